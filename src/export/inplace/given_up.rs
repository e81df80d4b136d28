//! Giving a restore up: what is live stays, and what was replaced is kept.
//!
//! That it is given up is noted, durably, before anything is moved ([`Intent::give_up`]): whoever comes next after a
//! crash goes on with that, and does not finish the restore.

use std::path::Path;

use super::apply::Run;
use super::asked::Abandoned;
use super::called::{FOLDER, NEW, OLD};
use super::databases::turn_log_on;
use super::intent::{Intent, Move, Way};
use super::old::{is_copied, is_staged};
use crate::error::Result;

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
            {
                self.progress.advance(1);
                self.root.rename(&old, path)?;
                self.root.sync_folder(path.parent().unwrap_or(Path::new("")))?;
            }
        }
        self.keep_everything()?;
        let mut without_log = Vec::new();
        for one in self.intent.moves.iter().filter(|one| self.intent.switched.contains(&one.path)) {
            if self.is_still_staged(one)? && !turn_log_on(self.root, &one.path.0) {
                without_log.push(one.path.0.clone());
            }
        }
        self.progress.advance(1);
        Intent::remove(self.root)?;
        self.progress.advance(1);
        self.root.remove_folder(Path::new(FOLDER))?;
        let is_kept = self.root.seen(self.kept())?.is_some();
        Ok(Abandoned { kept: is_kept.then(|| self.root.place(self.kept())), without_log })
    }

    /// The same, also in a copy of the directory.
    fn is_still_staged(&self, one: &Move) -> Result<bool> {
        if self.is_copied {
            is_staged(self.root, &Path::new(NEW).join(&one.path.0), one)
        } else {
            Run::is_pending(self.root, one)
        }
    }
}
