//! Setting what is not content, when all content stands in place: mode, owner and time.
//!
//! Of folders the deepest come first: one that may not be written is closed when all below it is done. Whoever finishes
//! an interrupted restore sets them again, also of what an earlier process put in place or found as it should be: a
//! stamp does not tell that somebody changed a mode or an owner since.

use std::collections::BTreeMap;
use std::path::Path;

use super::apply::Run;
use super::intent::{Name, Touch, Way};
use super::root::{Kind, Seen};
use crate::error::Result;

/// What a folder gets.
struct Attributes<'a> {
    path: &'a Path,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    mtime: (i64, u32),
}

impl Run<'_> {
    /// Sets all of them.
    pub fn attributes(&mut self) -> Result<()> {
        let intent = self.intent;
        let made = intent.folders.iter().map(|one| (&one.path.0, Some(one.mode), one.owner, one.mtime));
        let mut folders: Vec<_> =
            made.map(|(path, mode, owner, mtime)| Attributes { path, mode, owner, mtime }).collect();
        for touch in &intent.touch {
            let (path, mode, owner, mtime) = (&touch.path.0, touch.mode, touch.owner, touch.mtime);
            let seen = self.root.seen(path)?;
            if touch.is_of_folder() && seen.is_none_or(|seen| seen.kind == Kind::Folder) {
                folders.extend(seen.map(|_| Attributes { path, mode, owner, mtime }));
                continue;
            }
            // What somebody wrote since keeps the time at which they did.
            let is_other = touch.live.is_some_and(|then| !touch.is_as_it_was(then, seen));
            if seen.is_some() && !is_other {
                self.progress.advance(1);
                self.root.set(path, mode, owner, mtime)?;
            }
        }
        if self.is_recovery {
            self.set_again()?;
        }
        folders.sort_unstable_by(|a, b| b.path.cmp(a.path));
        for one in folders {
            self.progress.advance(1);
            let seen = self.root.seen(one.path)?;
            if !seen.is_some_and(|seen| seen.mtime == one.mtime && has(seen, one.mode, one.owner)) {
                self.root.set(one.path, one.mode, one.owner, one.mtime)?;
            }
        }
        self.close_folders(true)
    }

    /// Opens the folders that are to be opened, also again after a crash.
    pub fn open_folders(&self) -> Result<()> {
        for one in &self.intent.opened {
            if let Some((mode, now)) = one.to_open(self.root.seen(&one.path.0)?) {
                self.progress.advance(1);
                self.root.set(&one.path.0, Some(mode), None, now.mtime)?;
            }
        }
        Ok(())
    }

    /// Gives those that are open the mode that they had; but, at the end of a restore that `is_done`, not those that
    /// were given another by it.
    pub fn close_folders(&self, is_done: bool) -> Result<()> {
        let has_mode = |path: &Name| self.intent.touch.iter().any(|one| one.path == *path && one.mode.is_some());
        for one in self.intent.opened.iter().rev().filter(|one| !(is_done && has_mode(&one.path))) {
            if let Some((mode, now)) = one.to_close(self.root.seen(&one.path.0)?) {
                self.progress.advance(1);
                self.root.set(&one.path.0, Some(mode), None, now.mtime)?;
            }
        }
        Ok(())
    }

    /// Modes and owners of files that were not written since, and are not as they were to be.
    fn set_again(&mut self) -> Result<()> {
        let intent = self.intent;
        for one in intent.moves.iter().filter(|one| one.way != Way::Through) {
            let seen = self.root.seen(&one.path.0)?.filter(|seen| seen.stamp == one.staged);
            self.set_file_again(&one.path.0, seen, one.mode, one.owner);
        }
        let touched: BTreeMap<&Name, &Touch> = intent.touch.iter().map(|one| (&one.path, one)).collect();
        for one in intent.same.iter().flatten().filter(|one| !one.is_folder()) {
            let seen = self.root.seen(&one.path.0)?;
            let is_as_it_was = match touched.get(&one.path) {
                Some(touch) => touch.is_as_it_was(one.live, seen),
                None => seen.is_some_and(|now| now.stamp == one.live),
            };
            self.set_file_again(&one.path.0, seen.filter(|_| is_as_it_was), one.mode, one.owner);
        }
        Ok(())
    }

    fn set_file_again(&mut self, path: &Path, seen: Option<Seen>, mode: Option<u32>, owner: Option<(u32, u32)>) {
        let Some(seen) = seen.filter(|seen| seen.kind != Kind::Folder && !has(*seen, mode, owner)) else { return };
        // Somebody else may own it by now. That is no reason to leave the rest undone.
        if let Err(error) = self.root.set(path, mode, owner, seen.mtime) {
            self.remark(path, &format!("its mode or owner was changed after the restore began, and stays so: {error}"));
        }
    }
}

/// Whether `seen` has that mode and owner, as far as they are known.
fn has(seen: Seen, mode: Option<u32>, owner: Option<(u32, u32)>) -> bool {
    mode.is_none_or(|mode| mode == seen.mode) && owner.is_none_or(|owner| owner == seen.owner)
}
