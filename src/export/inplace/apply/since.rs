//! What was written to after the restore began, and would go with what is replaced: it is kept, and named.
//!
//! It is asked of what was taken away, where nobody finds it any more, and told by what lies there: whichever process
//! took it.

use std::path::{Path, PathBuf};

use super::Run;
use crate::error::Result;
use crate::export::inplace::called::OLD;
use crate::export::inplace::company;
use crate::export::inplace::intent::{GONE, IN_BACKUP, Way};
use crate::export::inplace::old::{foreign_sidecars, is_as_noted, stood};
use crate::export::inplace::root::{Kind, Seen, Stamp};
use crate::snapshot::sidecar::sidecars;

impl Run<'_> {
    /// Before a database is taken in a recovery: what came beside it since would be gone with that.
    pub fn keep_beside(&mut self, database: &Path) -> Result<()> {
        for beside in foreign_sidecars(self.root, &self.noted, database)? {
            self.keep_since(&beside, &beside, "it was")?;
        }
        Ok(())
    }

    /// Keeps what is to go in the end and was written to since the intent, here or by an earlier process: asked of all
    /// that was taken away, where nobody finds it any more.
    pub(super) fn keep_written(&mut self) -> Result<()> {
        let intent = self.intent;
        for one in &intent.clear {
            self.spare(&Path::new(OLD).join(&one.path.0), &one.path.0, Some(one.live))?;
        }
        for one in &intent.moves {
            if one.way != Way::Through {
                for old in self.old_versions(one)? {
                    self.spare(&old, &one.path.0, one.live)?;
                }
            }
        }
        if self.root.seen(Path::new(OLD))?.is_none() {
            return Ok(());
        }
        let bases = intent.clear.iter().map(|one| &one.path).chain(intent.moves.iter().map(|one| &one.path));
        for beside in bases.flat_map(|name| sidecars(&name.0)) {
            let old = Path::new(OLD).join(&beside);
            let is_empty = |seen: Seen| seen.kind == Kind::File && seen.stamp.size == 0;
            if !self.root.seen(&old)?.is_none_or(is_empty) && !self.has_its_turn(&beside) {
                self.spare(&old, &beside, self.noted.get(&*beside).copied())?;
            }
        }
        Ok(())
    }

    /// A log that is kept since it was written to is nothing without its database, nor is that without it: what was
    /// taken away with what is kept is kept beside it. It is told by what lies there, whoever put it there.
    pub(super) fn keep_company(&mut self) -> Result<()> {
        let intent = self.intent;
        if self.root.seen(self.kept())?.is_none() {
            return Ok(());
        }
        let moved = intent.moves.iter().filter(|one| one.way != Way::Through).map(|one| (&one.path.0, Some(one)));
        for (path, one) in moved.chain(intent.clear.iter().map(|one| (&one.path.0, None))) {
            let parts: Vec<PathBuf> = [path.clone()].into_iter().chain(company::of(path)).collect();
            let mut is_written = false;
            for part in &parts {
                let kept = self.root.seen(&self.kept().join(part))?.filter(|kept| kept.kind != Kind::Folder);
                is_written |= kept.is_some_and(|kept| stood(intent, &self.noted, part) != Some(kept.stamp));
            }
            if !is_written {
                continue;
            }
            let mut old: Vec<(PathBuf, &Path)> =
                parts.iter().map(|part| (Path::new(OLD).join(part), &**part)).collect();
            if let Some(one) = one {
                let versions = self.old_versions(one)?;
                old.splice(..1, versions.into_iter().map(|old| (old, &**path)));
            }
            for (from, part) in old {
                if self.root.seen(&from)?.is_some_and(|seen| seen.kind != Kind::Folder) {
                    self.unsay(part);
                    self.keep_since(&from, part, "what belongs to it was")?;
                }
            }
        }
        Ok(())
    }

    /// What goes is in the safety backup, as the plan has it. What was written since is not.
    pub(super) fn unsay(&mut self, path: &Path) {
        let begin = format!("{}: ", path.display());
        let says_so = |one: &str| one.starts_with(&begin) && (one.ends_with(IN_BACKUP) || one.ends_with(GONE));
        self.done.remarks.retain(|one| !says_so(one));
        self.done.removed.retain(|one| one != path);
        self.spared.insert(path.to_path_buf());
    }

    fn spare(&mut self, old: &Path, path: &Path, then: Option<Stamp>) -> Result<()> {
        if !is_as_noted(self.root, &self.noted, old, path, then)? {
            self.unsay(path);
            self.keep_since(old, path, "it, or something in it, was")?;
        }
        Ok(())
    }

    pub(super) fn keep_since(&mut self, from: &Path, path: &Path, what: &str) -> Result<()> {
        let kept = self.keep(from, path)?;
        self.remark(path, &format!("{what} written after the restore began, and is kept as {}", kept.display()));
        Ok(())
    }
}
