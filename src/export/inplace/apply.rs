//! Doing what an intent says: the first time, or again after a crash.
//!
//! Every step first looks whether it was done. The order: what is in the way goes, folders are made, databases that
//! somebody has open are written, the others and then the files are exchanged (a staged sidecar must not stand beside
//! the old database), attributes are set, folders are synced, and everything is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rayon::prelude::*;

use super::asked::Replaced;
use super::called::{COMPARED, NEW, OLD};
use super::company::{is_own, sidecars_with_content};
use super::databases::{Held, standing_sidecars};
use super::intent::{Clear, Intent, Move, Way};
use super::old::{Noted, Verdict, is_staged, noted, verdict};
use super::root::{Kind, Root, Seen};
use super::staging::clear_away;
use super::through::{self, Outcome};
use super::versions::Versions;
use crate::error::{Error, Result};
use crate::snapshot::graph::{GRAPH, beside_graph, is_graph};
use crate::snapshot::progress::Progress;
use crate::snapshot::sidecar::sidecars;
use crate::source::holders::{self, Whose};

/// An intent being carried out.
pub struct Run<'a> {
    pub root: &'a Root,
    pub intent: &'a Intent,
    pub progress: &'a dyn Progress,
    /// Databases that are held until they were exchanged.
    pub held: BTreeMap<PathBuf, Rc<Held>>,
    /// Databases that turned out to be malformed after the intent was written.
    pub malformed: BTreeSet<PathBuf>,
    /// An earlier process began it: what is live may have been written since.
    pub is_recovery: bool,
    /// The directory is a copy of the one that the intent was written in.
    pub is_copied: bool,
    /// What appeared beside a knowledge graph before it is exchanged by this process.
    pub beside_graph: BTreeSet<PathBuf>,
    /// What would have gone in the end, and was kept.
    spared: BTreeSet<PathBuf>,
    /// What was put in place by this process.
    placed: BTreeSet<PathBuf>,
    staged: BTreeSet<&'a Path>,
    same: BTreeSet<&'a Path>,
    moves: BTreeMap<&'a Path, &'a Move>,
    cleared: BTreeMap<&'a Path, &'a Clear>,
    noted: Noted<'a>,
    versions: Versions<'a>,
    mismatched: Vec<String>,
    /// Others wrote to what was put in place.
    was_written: bool,
    done: Replaced,
}

impl<'a> Run<'a> {
    pub fn new(root: &'a Root, intent: &'a Intent, progress: &'a dyn Progress) -> Run<'a> {
        Run {
            root,
            intent,
            progress,
            held: BTreeMap::new(),
            malformed: BTreeSet::new(),
            is_recovery: false,
            is_copied: false,
            beside_graph: BTreeSet::new(),
            spared: BTreeSet::new(),
            placed: BTreeSet::new(),
            staged: intent.moves.iter().map(|one| one.path.0.as_path()).collect(),
            same: intent.same.iter().flatten().map(|one| one.path.0.as_path()).collect(),
            moves: intent.moves.iter().map(|one| (one.path.0.as_path(), one)).collect(),
            cleared: intent.clear.iter().map(|one| (one.path.0.as_path(), one)).collect(),
            noted: noted(intent),
            versions: Versions::of(intent),
            mismatched: Vec::new(),
            was_written: false,
            done: Replaced {
                unchanged: intent.unchanged,
                skipped: intent.skipped.clone(),
                lacks: intent.lacks.clone(),
                what: intent.what.clone(),
                stayed: intent.stayed.iter().map(|name| name.0.clone()).collect(),
                remarks: intent.remarks.clone(),
                ..Replaced::default()
            },
        }
    }

    /// How many times the progress is advanced, about.
    pub fn steps(intent: &Intent) -> u64 {
        (intent.folders.len() * 2
            + intent.clear.len()
            + intent.moves.len()
            + intent.touch.len()
            + intent.opened.len() * 2
            + 3) as u64
    }

    /// Does it all, and ends the staging.
    pub fn finish(mut self) -> Result<Replaced> {
        self.open_folders()?;
        for path in std::mem::take(&mut self.beside_graph) {
            // What is below a folder went with it.
            if self.root.seen(&path)?.is_some() {
                self.keep_since(&path, &path, "it was")?;
            }
        }
        for one in &self.intent.clear {
            self.clear(one)?;
        }
        for folder in &self.intent.folders {
            self.make_folder(&folder.path.0)?;
        }
        let rank = |one: &&Move| match one.way {
            Way::Through => 0,
            Way::Database | Way::Malformed => 1,
            Way::File => 2,
        };
        let mut moves: Vec<&Move> = self.intent.moves.iter().collect();
        moves.sort_by_key(rank);
        let mut left = BTreeSet::new();
        for one in moves {
            if self.is_recovery && one.is_pending(self.root)? {
                self.make_way(&one.path.0)?;
            }
            if self.comes_too_late(one)? {
                left.insert(&one.path.0);
                self.done.stayed.extend((!self.done.stayed.contains(&one.path.0)).then(|| one.path.0.clone()));
                continue;
            }
            self.place(one)?;
        }
        self.attributes()?;
        self.keep_written()?;
        self.keep_company()?;
        self.sync()?;
        self.compare(&left)?;
        self.end()
    }

    /// The folder of what must not be lost.
    pub fn kept(&self) -> &Path {
        Path::new(&self.intent.kept)
    }

    /// Moves `path` to `old/`, which goes in the end; to where it is kept, if something from there is in `old/`
    /// already.
    fn set_aside(&self, path: &Path) -> Result<()> {
        let to = Path::new(OLD).join(path);
        if self.root.seen(&to)?.is_some() {
            self.keep(path, path)?;
            return Ok(());
        }
        self.progress.advance(1);
        self.root.make_folder(to.parent().unwrap_or(Path::new(OLD)))?;
        self.root.rename(path, &to)
    }

    /// Notes what is to be known of `path`.
    pub fn remark(&mut self, path: &Path, what: &str) {
        self.done.remarks.push(format!("{}: {what}", path.display()));
    }

    fn clear(&mut self, one: &Clear) -> Result<()> {
        let path = &one.path.0;
        let Some(seen) = self.root.seen(path)? else { return Ok(()) };
        if seen.stamp == one.live {
            self.take_along(path, Way::File)?;
            self.set_aside(path)?;
            self.held.remove(path);
            return Ok(());
        }
        let was_done = self.root.seen(&Path::new(OLD).join(path))?.is_some();
        let is_folder_now = seen.kind == Kind::Folder && self.intent.folders.iter().any(|made| made.path.0 == *path);
        // Once the whole new graph stands in place, what appears beside it belongs to it.
        let mut graph = self.intent.moves.iter().filter(|one| is_graph(&one.path.0));
        let is_of_new = was_done && !graph.try_fold(false, |any, one| Ok(any || one.is_pending(self.root)?))?;
        if is_folder_now || is_of_new {
            return Ok(());
        }
        self.take_along(path, Way::File)?;
        self.unsay(path);
        self.keep_since(path, path, "it was")?;
        self.held.remove(path);
        Ok(())
    }

    fn make_folder(&mut self, path: &Path) -> Result<()> {
        match self.root.seen(path)? {
            Some(seen) if seen.kind == Kind::Folder => return Ok(()),
            Some(_) => {
                // Under another name: what belongs in the folder is kept under its own.
                for beside in standing_sidecars(self.root, path)? {
                    if !self.has_its_turn(&beside) {
                        self.keep_as(&beside, &beside, ".since")?;
                    }
                }
                let kept = self.keep_as(path, path, ".since")?;
                self.held.remove(path);
                self.remark(path, &format!("it was made after the restore began, and is kept as {}", kept.display()));
            }
            None => {}
        }
        self.progress.advance(1);
        self.root.make_folder(path)
    }

    fn place(&mut self, one: &Move) -> Result<()> {
        let path = &one.path.0;
        let staged = Path::new(NEW).join(path);
        let is_pending = one.is_pending(self.root)?;
        let live = if is_pending { self.root.seen(path)? } else { None };
        if one.way == Way::Through && live.is_none_or(|live| live.kind == Kind::File) {
            let is_there = live.is_some();
            return if is_pending && is_there { self.write_through(one) } else { self.place_anew(one, is_pending) };
        }
        if is_pending {
            self.take_along(path, one.way)?;
            self.progress.advance(1);
            self.swap(&staged, path)?;
            self.placed.insert(path.clone());
        }
        for old in self.old_versions(one)? {
            let is_known = one.live.is_some() && self.root.seen(&old)?.map(|seen| seen.stamp) == one.live;
            if !is_known {
                self.keep_since(&old, path, "it was")?;
            } else if one.way == Way::Malformed || self.malformed.contains(path) {
                self.keep(&old, path)?;
            }
        }
        // Nobody could open the old version until here.
        self.held.remove(path);
        Ok(())
    }

    /// A database that was to be written through SQLite, and is gone; or it was written before.
    fn place_anew(&mut self, one: &Move, is_pending: bool) -> Result<()> {
        let path = &one.path.0;
        if is_pending {
            self.take_along(path, Way::Malformed)?;
            self.progress.advance(1);
            self.root.rename(&Path::new(NEW).join(path), path)?;
        }
        Ok(())
    }

    fn write_through(&mut self, one: &Move) -> Result<()> {
        let path = &one.path.0;
        let staged = Path::new(NEW).join(path);
        if self.is_recovery {
            // No safety backup has what was committed since the restore was begun.
            let kept = self.free_stem(path)?;
            self.make_kept(&kept)?;
            through::keep(&self.root.place(path), &self.root.place(&kept))?;
            self.remark(path, &format!("as it was when the restore was finished, it is kept as {}", kept.display()));
        }
        self.progress.advance(1);
        let place = |path: &Path| self.root.place(path);
        match through::copy(&place(&staged), &place(path), &place(Path::new(COMPARED)))? {
            Outcome::Same => {}
            Outcome::Written => {
                self.remark(path, "the program that has it open wrote to it right after it was restored");
            }
            Outcome::Different => self.mismatched.push(path.display().to_string()),
        }
        // That it is no longer in its place says that it was written: the next one must not overwrite what others
        // commit from here on.
        self.progress.advance(1);
        let done = Path::new(OLD).join(path);
        self.root.make_folder(done.parent().unwrap_or(Path::new(OLD)))?;
        self.root.rename(&staged, &done)
    }

    /// Takes away what stands beside `path` under the names of sidecars, before that is replaced or goes.
    fn take_along(&mut self, path: &Path, way: Way) -> Result<()> {
        let keeps = way == Way::Malformed || self.malformed.contains(path);
        let mut standing = standing_sidecars(self.root, path)?;
        if path == Path::new(GRAPH) {
            standing.extend(self.of_graph_to_come()?);
        }
        if standing.is_empty() {
            return Ok(());
        }
        let with_content = sidecars_with_content(self.root, path)?;
        for beside in standing {
            let is_replaced = self.staged.contains(beside.as_path());
            if !is_replaced && self.has_its_turn(&beside) || is_replaced && !self.is_to_come(&beside)? {
                continue;
            }
            let is_noted = with_content.get(&beside).is_none_or(|now| self.noted.get(&*beside) == Some(now));
            // Where a log is to come, too: that is no other version of it.
            let may_be_own = !is_replaced || self.is_part(&Path::new(NEW).join(&beside))?;
            let is_own = || Ok(may_be_own && way == Way::File && is_own(self.root, &beside, path)?);
            if !keeps && !is_noted && !is_replaced {
                self.unsay(&beside);
                self.keep_since(&beside, &beside, "it was")?;
            } else if keeps || is_own()? {
                let kept = self.keep(&beside, &beside)?;
                // Of what is not replaced the plan says so.
                if is_replaced && !keeps {
                    self.remark(&beside, &format!("it was none of a database, and is kept as {}", kept.display()));
                }
            } else {
                self.set_aside(&beside)?;
                self.done.removed.extend((!is_replaced).then_some(beside));
            }
        }
        Ok(())
    }

    /// What stands beside a knowledge graph in the place of what is to come there. The rest is gone already.
    fn of_graph_to_come(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for path in beside_graph().filter(|path| self.staged.contains(path.as_path())) {
            if self.root.seen(&path)?.is_some_and(|seen| seen.kind != Kind::Folder) {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// Whether the intent says by itself what becomes of what stands there. What is as it should be stays.
    fn has_its_turn(&self, path: &Path) -> bool {
        self.staged.contains(path) || self.cleared.contains_key(path) || self.same.contains(path)
    }

    /// Whether it is one that is still to be put in place.
    fn is_to_come(&self, path: &Path) -> Result<bool> {
        let one = self.moves.get(path);
        one.map_or(Ok(false), |one| one.is_pending(self.root))
    }

    /// Somebody may have removed a folder above `path` since, or put a file in its place, which is kept.
    fn make_way(&mut self, path: &Path) -> Result<()> {
        let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        above.reverse();
        above.into_iter().try_for_each(|folder| self.make_folder(folder))
    }

    fn swap(&self, staged: &Path, path: &Path) -> Result<()> {
        if self.root.seen(path)?.is_none() {
            return self.root.rename(staged, path);
        }
        if self.root.exchange(staged, path)? { Ok(()) } else { self.swap_in_two(staged, path) }
    }

    /// For file systems that cannot exchange. Between the two steps nothing stands there, and the next run goes on.
    fn swap_in_two(&self, staged: &Path, path: &Path) -> Result<()> {
        self.set_aside(path)?;
        self.progress.advance(1);
        self.root.rename(staged, path)
    }

    /// Where the old version of what was put in place stands now.
    fn old_versions(&self, one: &Move) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for place in [NEW, OLD] {
            let path = Path::new(place).join(&one.path.0);
            // In a copy of the directory the staged one has another inode, and any other may have that one.
            let is_other = |seen: &Seen| self.is_copied || seen.stamp.inode != one.staged.inode;
            let Some(seen) = self.root.seen(&path)?.filter(is_other) else { continue };
            if one.live == Some(seen.stamp) || !is_staged(self.root, &path, one)? {
                found.push(path);
            }
        }
        Ok(found)
    }

    fn sync(&mut self) -> Result<()> {
        let intent = self.intent;
        let moved = intent.moves.iter().map(|one| &one.path).chain(intent.clear.iter().map(|one| &one.path));
        let changed = moved.chain(intent.folders.iter().map(|one| &one.path));
        let mut folders: BTreeSet<&Path> = changed.filter_map(|name| name.0.parent()).collect();
        folders.extend(intent.folders.iter().map(|one| one.path.0.as_path()));
        self.progress.advance(1);
        folders.into_iter().try_for_each(|folder| self.root.sync_folder(folder))?;
        self.sync_below(self.kept())
    }

    /// What is kept was moved there, so its folders are synced before the places that it came from are forgotten.
    fn sync_below(&self, folder: &Path) -> Result<()> {
        for name in self.root.names(folder)? {
            if self.root.seen(&name)?.is_some_and(|seen| seen.kind == Kind::Folder) {
                self.sync_below(&name)?;
            }
        }
        self.root.sync_folder(folder)
    }

    /// Holds what is live against what was staged, and asserts that no sidecar was left.
    fn compare(&mut self, left: &BTreeSet<&PathBuf>) -> Result<()> {
        let checked = self.intent.moves.iter().filter(|one| one.way != Way::Through && !left.contains(&one.path.0));
        let checked: Vec<&Move> = checked.collect();
        let (root, placed) = (self.root, &self.placed);
        let verdict = |one: &&Move| verdict(root, one, placed.contains(&one.path.0));
        let verdicts = checked.par_iter().map(verdict).collect::<Result<Vec<Verdict>>>()?;
        for (one, verdict) in checked.into_iter().zip(verdicts) {
            let path = &one.path.0;
            match verdict {
                Verdict::Same => {}
                Verdict::Written => {
                    if self.placed.contains(path) {
                        self.was_written = true;
                    } else {
                        // An earlier process put it there, and the application went on with it.
                        for old in self.old_versions(one)? {
                            self.keep(&old, path)?;
                        }
                        self.keep_old_company(path)?;
                    }
                    if !self.done.stayed.contains(path) {
                        self.remark(path, "something wrote to it after it was put in place");
                    }
                }
                Verdict::Different => self.mismatched.push(path.display().to_string()),
            }
            if one.way != Way::File && self.placed.contains(path) {
                let staged = &self.staged;
                let beside = standing_sidecars(self.root, path)?;
                let left = beside.iter().filter(|beside| !staged.contains(beside.as_path()));
                self.mismatched.extend(left.map(|beside| beside.display().to_string()));
            }
        }
        Ok(())
    }

    /// Whatever stood there, kept: something is not as it should be.
    pub fn keep_everything(&self) -> Result<()> {
        for one in self.intent.moves.iter().filter(|one| one.way != Way::Through) {
            for old in self.old_versions(one)? {
                self.keep(&old, &one.path.0)?;
            }
        }
        let cleared = self.intent.clear.iter().map(|one| &one.path.0);
        let bases = self.intent.moves.iter().map(|one| &one.path.0).chain(cleared.clone());
        let beside = bases.flat_map(|path| sidecars(path));
        for path in cleared.cloned().chain(beside) {
            let old = Path::new(OLD).join(&path);
            if self.root.seen(&old)?.is_some() {
                self.keep(&old, &path)?;
            }
        }
        self.sync_below(self.kept())
    }

    fn end(mut self) -> Result<Replaced> {
        self.report()?;
        if !self.mismatched.is_empty() || self.was_written {
            self.keep_everything()?;
        }
        self.progress.advance(1);
        Intent::remove(self.root)?;
        self.progress.advance(1);
        match clear_away(self.root) {
            Ok(left) => self.done.remarks.extend(left),
            Err(error) => self.done.remarks.push(format!("what was replaced could not be removed: {error}")),
        }
        if !self.mismatched.is_empty() {
            return Err(Error::integrity(format!(
                "what was put in place differs from what was restored: {}",
                self.mismatched.join(", ")
            ))
            .at(self.root.place(Path::new("")))
            .hint(format!(
                "what stood there before is kept in {}; stop whatever writes there, and restore again",
                self.root.place(self.kept()).display()
            )));
        }
        Ok(self.done)
    }

    fn report(&mut self) -> Result<()> {
        let done = &mut self.done;
        // A folder that was gone is there again, if anything was to come below it.
        for one in self.intent.same.iter().flatten().filter(|one| one.is_folder()) {
            if self.root.seen(&one.path.0)?.is_some_and(|now| now.kind == Kind::Folder) {
                done.stayed.retain(|path| *path != one.path.0);
            }
        }
        for one in &self.intent.moves {
            done.files += 1;
            done.bytes += one.staged.size;
            if one.way == Way::Through {
                done.through.push(one.path.0.clone());
            }
            if one.way == Way::Malformed || self.malformed.contains(&one.path.0) {
                for path in [one.path.0.clone()].into_iter().chain(sidecars(&one.path.0)) {
                    let kept = Path::new(&self.intent.kept).join(&path);
                    if self.root.seen(&kept)?.is_some() {
                        done.aside.push((path, self.root.place(&kept)));
                    }
                }
            }
        }
        for name in &self.intent.removed {
            // By a process that was killed: it was not removed.
            let is_in = |place: &str| Ok(self.root.seen(&Path::new(place).join(&name.0))?.is_some());
            // Where a folder came in its place, that is what stands there in the staging.
            let is_made = self.intent.folders.iter().any(|made| made.path == *name);
            if is_in(&self.intent.kept)? && !is_in(OLD)? && (is_made || !is_in(NEW)?) {
                self.spared.insert(name.0.clone());
            }
        }
        let done = &mut self.done;
        let removed = self.intent.removed.iter().filter(|name| !self.spared.contains(&name.0));
        done.removed.extend(removed.map(|name| name.0.clone()));
        done.removed.sort_unstable();
        done.removed.dedup();
        done.extra = self.intent.extra.iter().map(|name| name.0.clone()).collect();
        let device = self.root.seen(Path::new(""))?.map_or(0, |top| top.device);
        let replaced = self.intent.moves.iter().filter(|one| one.way != Way::Through).filter_map(|one| one.live);
        let gone = replaced.chain(self.intent.clear.iter().map(|one| one.live));
        let files: Vec<_> = gone.map(|stamp| (device, stamp.inode)).collect();
        let holders: BTreeSet<_> = holders::holders(&files, Whose::Others).into_values().flatten().collect();
        done.holders = holders.into_iter().collect();
        Ok(())
    }
}

mod kept;
mod since;
#[cfg(test)]
mod tests;
