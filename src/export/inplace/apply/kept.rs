//! What is kept aside, under names by which a database finds its log; and what goes back from there.
//!
//! A file and what goes with it are kept under one stem: `c.db` and `c.db-wal`, or, if a part of another version is
//! kept there already, `c.db.1` and `c.db.1-wal`. Which version a part is of is told by what was last seen
//! ([`super::super::versions`]), so it does not matter whether one process kept both or two that were killed did.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::Run;
use crate::error::Result;
use crate::export::inplace::called::{NEW, OLD, ending};
use crate::export::inplace::company;
use crate::export::inplace::intent::{Clear, Move, Way};
use crate::export::inplace::old::is_staged;
use crate::export::inplace::root::{Kind, Seen, Stamp};
use crate::export::inplace::trust;
use crate::export::inplace::versions::parts;
use crate::snapshot::sidecar::Sidecar;

/// What a stem with a number ends in at the most: a name has to have room for that, too.
const LONGEST_END: &str = "-journal";

/// The name of `part`, which goes with `base`, beside what is kept as `stem`.
fn beside(stem: &Path, base: &Path, part: &Path) -> PathBuf {
    let [base, part] = [base, part].map(|path| path.as_os_str().as_bytes());
    let name = [stem.as_os_str().as_bytes(), part.strip_prefix(base).unwrap_or_default()].concat();
    PathBuf::from(std::ffi::OsString::from_vec(name))
}

/// `stem`, and then that with numbers.
fn numbered(stem: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let first = stem.to_path_buf();
    let stem = stem.to_path_buf();
    let with = move |number: usize| {
        let name = ending(&stem, &format!(".{number}{LONGEST_END}")).into_os_string().into_vec();
        PathBuf::from(std::ffi::OsString::from_vec(name[..name.len() - LONGEST_END.len()].to_vec()))
    };
    [first].into_iter().chain((1..).map(with))
}

impl Run<'_> {
    /// Moves `from`, a version of `path`, to where it is not lost.
    pub(super) fn keep(&self, from: &Path, path: &Path) -> Result<PathBuf> {
        self.keep_as(from, path, "")
    }

    /// The same with `end` after the name of the file that it is of.
    pub(super) fn keep_as(&self, from: &Path, path: &Path, end: &str) -> Result<PathBuf> {
        let base = company::whole_of(path).unwrap_or_else(|| path.to_path_buf());
        let to = self.stem_of(from, path, &base, end)?;
        self.progress.advance(1);
        self.make_kept(&to)?;
        self.root.rename(from, &to)?;
        Ok(to)
    }

    /// Makes the folders of what is kept as `to`. Somebody else's may stand there by the name that ours was to have.
    pub(super) fn make_kept(&self, to: &Path) -> Result<()> {
        self.root.make_folder(to.parent().unwrap_or(self.kept()))?;
        trust::is_own_folder(self.root, self.kept())
    }

    /// Where `path` is kept so that it is found with its own version, and with no other.
    fn stem_of(&self, from: &Path, path: &Path, base: &Path, end: &str) -> Result<PathBuf> {
        let parts = parts(base);
        let fits = self.root.seen(from)?.is_none_or(|seen| self.fits(path, seen.stamp));
        let mut stems = numbered(&self.kept().join(ending_of(base, end)));
        loop {
            let stem = stems.next().unwrap_or_default();
            let to = beside(&stem, base, path);
            let mut is_free = self.root.seen(&to)?.is_none();
            for part in parts.iter().filter(|part| *part != path) {
                let there = self.root.seen(&beside(&stem, base, part))?;
                is_free &= there.is_none_or(|there| fits && self.fits(part, there.stamp));
            }
            if is_free {
                return Ok(to);
            }
        }
    }

    /// Where `path` is kept beside nothing.
    pub(super) fn free_stem(&self, path: &Path) -> Result<PathBuf> {
        let mut stems = numbered(&self.kept().join(path));
        loop {
            let stem = stems.next().unwrap_or_default();
            if self.parts_at(&stem, path)?.is_empty() {
                return Ok(stem);
            }
        }
    }

    /// What is kept as `stem`, and beside that: which part of `base` it is, where it stands, and what it is.
    fn parts_at(&self, stem: &Path, base: &Path) -> Result<Vec<(PathBuf, PathBuf, Seen)>> {
        let mut found = Vec::new();
        for part in parts(base) {
            let at = beside(stem, base, &part);
            if let Some(seen) = self.root.seen(&at)? {
                found.push((part, at, seen));
            }
        }
        Ok(found)
    }

    fn fits(&self, path: &Path, stamp: Stamp) -> bool {
        self.is_copied || self.versions.fits(path, stamp)
    }

    /// A file that was to go and stands there still, as it was last seen, gets back what was taken from beside it: both
    /// stand then. If it is another by now, what was taken is of an earlier one, and stays away from it.
    pub(in crate::export::inplace) fn put_company_back(&self) -> Result<()> {
        let moved = self.intent.moves.iter().filter(|one| one.way != Way::Through).map(|one| &one.path.0);
        let others = self.intent.clear.iter().map(|one| &one.path.0);
        let made = self.intent.folders.iter().map(|one| &one.path.0);
        for base in moved.chain(others).chain(made) {
            if self.is_old_there(base)? {
                self.put_back(base)?;
            }
        }
        Ok(())
    }

    /// Whether what stands at `base` is what was last seen there, and is still to go.
    fn is_old_there(&self, base: &Path) -> Result<bool> {
        let Some(seen) = self.root.seen(base)? else { return Ok(false) };
        if let Some(one) = self.move_of(base) {
            let is_last = self.is_copied || self.versions.is_last(base, seen.stamp);
            return Ok(is_last && self.is_still_staged(one)?);
        }
        if let Some(one) = self.cleared.get(base)
            && self.is_still_there(one)?
        {
            return Ok(true);
        }
        // Where a folder is to come.
        Ok(seen.kind != Kind::Folder && self.versions.is_last(base, seen.stamp))
    }

    fn put_back(&self, base: &Path) -> Result<()> {
        // The version that was kept last, and of which the file itself was not.
        let mut newest = Vec::new();
        for end in ["", ".since"] {
            for stem in numbered(&self.kept().join(ending_of(base, end))) {
                let mut all = self.parts_at(&stem, base)?;
                if all.is_empty() {
                    break;
                }
                let has_base = all.iter().any(|(part, ..)| part == base);
                all.retain(|(part, _, seen)| seen.kind != Kind::Folder && self.fits(part, seen.stamp));
                if !has_base && !all.is_empty() {
                    newest = all;
                }
            }
        }
        let mut old = self.parts_at(&Path::new(OLD).join(base), base)?;
        old.retain(|(part, _, seen)| part != base && seen.kind != Kind::Folder && self.fits(part, seen.stamp));
        for (part, from, _) in newest.into_iter().chain(old) {
            if self.root.seen(&part)?.is_none() {
                self.step_back(&from, &part)?;
            }
        }
        Ok(())
    }

    /// A file that was put in place, and whose log was still to come when the restore was given up, gets that: it may
    /// be torn without it. Not if somebody went on with it.
    pub(in crate::export::inplace) fn complete_pairs(&self) -> Result<()> {
        for one in self.intent.moves.iter().filter(|one| one.way != Way::Through) {
            let base = company::whole_of(&one.path.0);
            let Some(base) = base.and_then(|base| self.move_of(&base)) else { continue };
            let staged = Path::new(NEW).join(&one.path.0);
            if !self.is_still_staged(one)? || !self.is_as_placed(base)? || !self.is_part(&staged)? {
                continue;
            }
            match self.root.seen(&one.path.0)? {
                None => self.step_back(&staged, &one.path.0)?,
                Some(now) if Some(now.stamp) == one.live => {
                    self.progress.advance(1);
                    self.swap(&staged, &one.path.0)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Whether it was put in place, and nobody wrote to it.
    pub(super) fn is_as_placed(&self, one: &Move) -> Result<bool> {
        let Some(seen) = self.root.seen(&one.path.0)? else { return Ok(false) };
        if self.is_copied { is_staged(self.root, &one.path.0, one) } else { Ok(seen.stamp == one.staged) }
    }

    pub(in crate::export::inplace) fn step_back(&self, from: &Path, to: &Path) -> Result<()> {
        self.progress.advance(1);
        self.root.rename(from, to)?;
        self.root.sync_folder(to.parent().unwrap_or(Path::new("")))
    }

    /// Whether `path` goes with a file that the restore is about: what becomes of that decides.
    pub(in crate::export::inplace) fn goes_with_another(&self, path: &Path) -> bool {
        let is_about = |base: &Path| self.move_of(base).is_some() || self.cleared.contains_key(base);
        company::whole_of(path).is_some_and(|base| is_about(&base))
    }

    /// Whether what stands at `at` is of a database or a graph, and not somebody's own that is called alike.
    pub(in crate::export::inplace) fn is_part(&self, at: &Path) -> Result<bool> {
        let Some(seen) = self.root.seen(at)? else { return Ok(false) };
        match Sidecar::named(at) {
            Some((Sidecar::Log | Sidecar::Journal, _)) => company::is_true(self.root, at, &seen),
            _ => Ok(true),
        }
    }

    /// Whether a log is to come beside something that was put in place by a process that was killed, and that somebody
    /// went on with: it would tear that.
    pub(super) fn comes_too_late(&self, one: &Move) -> Result<bool> {
        let path = &one.path.0;
        let base = company::whole_of(path);
        let Some(base) = base.and_then(|base| self.move_of(&base)).filter(|_| self.is_recovery) else {
            return Ok(false);
        };
        if self.placed.contains(&base.path.0) || base.is_pending(self.root)? || !one.is_pending(self.root)? {
            return Ok(false);
        }
        let is_other = self.root.seen(path)?.is_some_and(|now| Some(now.stamp) != one.live);
        Ok((is_other || !self.is_as_placed(base)?) && self.is_part(&Path::new(NEW).join(path))?)
    }

    /// Keeps what was taken away from beside `base`, whose old version is kept.
    pub(super) fn keep_old_company(&self, base: &Path) -> Result<()> {
        for part in company::of(base) {
            let old = match self.move_of(&part) {
                Some(one) => self.old_versions(one)?,
                None => vec![Path::new(OLD).join(&part)],
            };
            for old in old {
                if self.root.seen(&old)?.is_some_and(|seen| seen.kind != Kind::Folder) {
                    self.keep(&old, &part)?;
                }
            }
        }
        Ok(())
    }

    fn move_of(&self, path: &Path) -> Option<&Move> {
        self.moves.get(path).copied().filter(|one| one.way != Way::Through)
    }

    /// Whether what was to go was not taken away.
    pub(in crate::export::inplace) fn is_still_there(&self, one: &Clear) -> Result<bool> {
        let is_away = self.root.seen(&Path::new(OLD).join(&one.path.0))?.is_some();
        let is_it = |stamp| self.is_copied || self.versions.is_last(&one.path.0, stamp);
        Ok(!is_away && self.root.seen(&one.path.0)?.is_some_and(|now| is_it(now.stamp)))
    }

    /// Whether it is, also in a copy of the directory.
    pub(in crate::export::inplace) fn is_still_staged(&self, one: &Move) -> Result<bool> {
        if self.is_copied {
            is_staged(self.root, &Path::new(NEW).join(&one.path.0), one)
        } else {
            one.is_pending(self.root)
        }
    }
}

fn ending_of(base: &Path, end: &str) -> PathBuf {
    if end.is_empty() { base.to_path_buf() } else { ending(base, end) }
}
