//! Giving a restore up: what is live stays, and what was replaced is kept.
//!
//! That it is given up is noted, durably, before anything is moved ([`Intent::give_up`]): whoever comes next after a
//! crash goes on with that, and does not finish the restore.
//!
//! What was written into a database that a program has open cannot be told from what the program wrote, and what it
//! held before is in the safety backup alone: such databases are named, with that.

use std::path::Path;

use super::apply::Run;
use super::asked::Abandoned;
use super::called::{COMPARED, NEW, OLD};
use super::company::sidecars_with_content;
use super::databases::turn_log_on;
use super::intent::{Intent, Move, Way};
use super::old::{is_copied, is_staged, noted};
use super::root::Kind;
use super::staging::clear_away;
use super::through;
use crate::error::Result;
use crate::snapshot::sidecar::sidecars;

/// Whether a database was written through SQLite. What it held before is then in no file of the staging.
enum Written {
    No,
    Perhaps,
    Yes,
}

impl Run<'_> {
    /// Ends it as it stands: what is live stays, and what was replaced is kept, where the answer says. Begun anew, it
    /// goes on where it was.
    pub fn abandon(mut self) -> Result<Abandoned> {
        Intent::give_up(self.root)?;
        self.progress.advance(1);
        self.is_copied = is_copied(self.root, self.intent)?;
        for one in self.intent.moves.iter().filter(|one| one.way != Way::Through) {
            let (path, old) = (&one.path.0, Path::new(OLD).join(&one.path.0));
            // Between the two steps of an exchange nothing stands there.
            if self.root.seen(path)?.is_none()
                && one.live.is_some()
                && self.is_still_staged(one)?
                && self.root.seen(&old)?.is_some_and(|seen| self.is_copied || Some(seen.stamp) == one.live)
                // What goes with another goes where that goes.
                && !(self.goes_with_another(path) && self.is_part(&old)?)
            {
                self.step_back(&old, path)?;
            }
        }
        self.put_company_back()?;
        self.complete_pairs()?;
        self.keep_everything()?;
        self.close_folders(false)?;
        let (mut written, mut maybe_written) = (Vec::new(), Vec::new());
        for one in self.intent.moves.iter().filter(|one| one.way == Way::Through) {
            match self.was_written(one)? {
                Written::No => {}
                Written::Perhaps => maybe_written.push(one.path.0.clone()),
                Written::Yes => written.push(one.path.0.clone()),
            }
        }
        let mut without_log = Vec::new();
        for one in self.intent.moves.iter().filter(|one| self.intent.switched.contains(&one.path)) {
            if self.is_still_staged(one)? && !turn_log_on(self.root, &one.path.0) {
                without_log.push(one.path.0.clone());
            }
        }
        for one in self.intent.clear.iter().filter(|one| self.intent.switched.contains(&one.path)) {
            if self.is_still_there(one)? && !turn_log_on(self.root, &one.path.0) {
                without_log.push(one.path.0.clone());
            }
        }
        self.progress.advance(1);
        Intent::remove(self.root)?;
        self.progress.advance(1);
        let remarks = clear_away(self.root)?.into_iter().collect();
        let is_kept = self.root.seen(self.kept())?.is_some();
        let kept = is_kept.then(|| self.root.place(self.kept()));
        let (safety, not_in_backup) = (self.intent.safety.clone(), self.intent.not_in_backup.clone());
        Ok(Abandoned { kept, without_log, written, maybe_written, safety, not_in_backup, remarks })
    }

    fn was_written(&self, one: &Move) -> Result<Written> {
        let (path, done) = (&one.path.0, Path::new(OLD).join(&one.path.0));
        let is_done = match self.root.seen(&done)? {
            Some(_) if self.is_copied => is_staged(self.root, &done, one)?,
            seen => seen.is_some_and(|seen| seen.stamp.inode == one.staged.inode),
        };
        if is_done {
            return Ok(Written::Yes);
        }
        let live = self.root.seen(path)?;
        if live.is_some_and(|live| !self.is_copied && live.stamp.inode == one.staged.inode) {
            // It was gone, and the staged one was put there.
            return Ok(Written::No);
        }
        if live.is_none_or(|live| live.kind != Kind::File) || !self.is_still_staged(one)? {
            return Ok(Written::Perhaps);
        }
        if live.map(|live| live.stamp) == one.live && self.is_log_as_noted(path)? {
            return Ok(Written::No);
        }
        // Others wrote, or the restore did before it could note that.
        self.progress.advance(1);
        let place = |path: &Path| self.root.place(path);
        let staged = place(&Path::new(NEW).join(path));
        Ok(match through::is_written(&staged, &place(path), &place(Path::new(COMPARED))) {
            Ok(true) => Written::Yes,
            _ => Written::Perhaps,
        })
    }

    /// What is written to a database may be in its log alone.
    fn is_log_as_noted(&self, database: &Path) -> Result<bool> {
        let (now, noted) = (sidecars_with_content(self.root, database)?, noted(self.intent));
        Ok(sidecars(database).iter().all(|beside| now.get(&**beside) == noted.get(&**beside)))
    }
}
