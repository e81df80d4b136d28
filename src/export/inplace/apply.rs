//! Doing what an intent says: the first time, or again after a crash.
//!
//! Every step first looks whether it was done. The order: what is in the way goes, folders are made, databases that
//! somebody has open are written, the others and then the files are exchanged (a staged sidecar must not stand beside
//! the old database), attributes are set, folders are synced, and everything is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::asked::Replaced;
use super::called::{COMPARED, NEW, OLD, ending};
use super::databases::{Held, standing_sidecars};
use super::holders::{self, Whose};
use super::intent::{Clear, GONE, IN_BACKUP, Intent, Move, Way};
use super::old::{Noted, Verdict, foreign_sidecars, is_as_noted, is_staged, noted, verdict};
use super::plan::is_graph;
use super::root::{Kind, Root, Seen, Stamp};
use super::staging::clear_away;
use super::through::{self, Outcome};
use super::trust;
use crate::error::{Error, Result};
use crate::snapshot::progress::Progress;
use crate::snapshot::sidecar::sidecars;

/// An intent being carried out.
pub struct Run<'a> {
    pub root: &'a Root,
    pub intent: &'a Intent,
    pub progress: &'a dyn Progress,
    /// Databases that are held until they were exchanged.
    pub held: BTreeMap<PathBuf, Held>,
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
        for one in moves {
            if self.is_recovery && Run::is_pending(self.root, one)? {
                self.make_way(&one.path.0)?;
            }
            self.place(one)?;
        }
        self.attributes()?;
        self.keep_written()?;
        self.sync()?;
        self.compare()?;
        self.end()
    }

    /// Whether the staged entry still stands in the staging.
    pub fn is_pending(root: &Root, one: &Move) -> Result<bool> {
        let staged = root.seen(&Path::new(NEW).join(&one.path.0))?;
        Ok(staged.is_some_and(|seen| seen.stamp.inode == one.staged.inode))
    }

    /// The folder of what must not be lost.
    pub fn kept(&self) -> &Path {
        Path::new(&self.intent.kept)
    }

    /// Moves `from`, a version of `path`, to where it is not lost.
    fn keep(&self, from: &Path, path: &Path) -> Result<PathBuf> {
        let to = self.free_name(&self.kept().join(path))?;
        self.progress.advance(1);
        self.make_kept(&to)?;
        self.root.rename(from, &to)?;
        Ok(to)
    }

    /// Makes the folders of what is kept as `to`. Somebody else's may stand there by the name that ours was to have.
    fn make_kept(&self, to: &Path) -> Result<()> {
        self.root.make_folder(to.parent().unwrap_or(self.kept()))?;
        trust::is_own_folder(self.root, self.kept())
    }

    fn free_name(&self, wanted: &Path) -> Result<PathBuf> {
        let mut name = wanted.to_path_buf();
        for number in 1.. {
            if self.root.seen(&name)?.is_none() {
                break;
            }
            name = ending(wanted, &format!(".{number}"));
        }
        Ok(name)
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
            return self.set_aside(path);
        }
        let was_done = self.root.seen(&Path::new(OLD).join(path))?.is_some();
        let is_folder_now = seen.kind == Kind::Folder && self.intent.folders.iter().any(|made| made.path.0 == *path);
        // Once the whole new graph stands in place, what appears beside it belongs to it.
        let mut graph = self.intent.moves.iter().filter(|one| is_graph(&one.path.0));
        let is_of_new = was_done && !graph.try_fold(false, |any, one| Ok(any || Run::is_pending(self.root, one)?))?;
        if is_folder_now || is_of_new {
            return Ok(());
        }
        self.keep_since(path, path, "it was")
    }

    fn make_folder(&mut self, path: &Path) -> Result<()> {
        match self.root.seen(path)? {
            Some(seen) if seen.kind == Kind::Folder => return Ok(()),
            Some(_) => {
                // Under another name: what belongs in the folder is kept under its own.
                let kept = self.keep(path, &ending(path, ".since"))?;
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
        let is_pending = Run::is_pending(self.root, one)?;
        let live = if is_pending { self.root.seen(path)? } else { None };
        if one.way == Way::Through && live.is_none_or(|live| live.kind == Kind::File) {
            let is_there = live.is_some();
            return if is_pending && is_there { self.write_through(one) } else { self.place_anew(one, is_pending) };
        }
        if is_pending {
            let keeps = one.way == Way::Malformed || self.malformed.contains(path);
            if one.way != Way::File {
                self.clear_sidecars(path, keeps)?;
            }
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
            self.clear_sidecars(path, true)?;
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
            let kept = self.free_name(&self.kept().join(path))?;
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

    /// Takes away what stands beside a database before another one comes there.
    fn clear_sidecars(&mut self, path: &Path, keeps: bool) -> Result<()> {
        for beside in standing_sidecars(self.root, path)? {
            if keeps {
                self.keep(&beside, &beside)?;
            } else {
                self.set_aside(&beside)?;
                let is_replaced = self.staged.contains(beside.as_path());
                self.done.removed.extend((!is_replaced).then_some(beside));
            }
        }
        Ok(())
    }

    /// Before a database is taken in a recovery: what came beside it since would be gone with that.
    pub fn keep_beside(&mut self, database: &Path) -> Result<()> {
        for beside in foreign_sidecars(self.root, &noted(self.intent), database)? {
            self.keep_since(&beside, &beside, "it was")?;
        }
        Ok(())
    }

    /// Keeps what is to go in the end and was written to since the intent, here or by an earlier process: asked of all
    /// that was taken away, where nobody finds it any more.
    fn keep_written(&mut self) -> Result<()> {
        let intent = self.intent;
        let noted = noted(intent);
        for one in &intent.clear {
            self.spare(&noted, &Path::new(OLD).join(&one.path.0), &one.path.0, Some(one.live))?;
        }
        for one in &intent.moves {
            if one.way != Way::Through {
                for old in self.old_versions(one)? {
                    self.spare(&noted, &old, &one.path.0, one.live)?;
                }
            }
            if one.way != Way::File {
                for beside in sidecars(&one.path.0) {
                    let old = Path::new(OLD).join(&beside);
                    let is_empty = |seen: Seen| seen.kind == Kind::File && seen.stamp.size == 0;
                    if !self.staged.contains(&*beside) && !self.root.seen(&old)?.is_none_or(is_empty) {
                        self.spare(&noted, &old, &beside, noted.get(&*beside).copied())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn spare(&mut self, noted: &Noted<'_>, old: &Path, path: &Path, then: Option<Stamp>) -> Result<()> {
        if !is_as_noted(self.root, noted, old, path, then)? {
            // It is not in the safety backup, as the plan had it.
            let begin = format!("{}: ", path.display());
            self.done
                .remarks
                .retain(|one| !(one.starts_with(&begin) && (one.ends_with(IN_BACKUP) || one.ends_with(GONE))));
            self.done.removed.retain(|one| one != path);
            self.spared.insert(path.to_path_buf());
            self.keep_since(old, path, "it, or something in it, was")?;
        }
        Ok(())
    }

    fn keep_since(&mut self, from: &Path, path: &Path, what: &str) -> Result<()> {
        let kept = self.keep(from, path)?;
        self.remark(path, &format!("{what} written after the restore began, and is kept as {}", kept.display()));
        Ok(())
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
    fn compare(&mut self) -> Result<()> {
        let checked: Vec<&Move> = self.intent.moves.iter().filter(|one| one.way != Way::Through).collect();
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
        let beside = self.intent.moves.iter().flat_map(|one| sidecars(&one.path.0));
        let cleared = self.intent.clear.iter().map(|one| one.path.0.clone());
        for path in cleared.chain(beside) {
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

#[cfg(test)]
mod tests {
    use super::super::called::FOLDER;
    use super::super::intent::Name;
    use super::*;
    use crate::snapshot::progress::Silent;

    /// A restore of `a` over another `a`, as far as the journal.
    fn begun(data: &Path) -> (Root, Intent) {
        std::fs::create_dir_all(data.join(NEW)).expect("made");
        std::fs::write(data.join("a"), "old").expect("written");
        std::fs::write(data.join(NEW).join("a"), "new").expect("written");
        let root = Root::open(data).expect("opened");
        let stamp = |path: &str| root.seen(Path::new(path)).expect("seen").expect("there").stamp;
        let mut intent = Intent::new(".nbak-kept-test".to_owned());
        intent.moves.push(Move {
            path: Name("a".into()),
            way: Way::File,
            staged: stamp(".nbak-restore/new/a"),
            hash: blake3::hash(b"new").to_hex().to_string(),
            live: Some(stamp("a")),
            mode: None,
            owner: None,
        });
        (root, intent)
    }

    #[test]
    fn without_an_exchange_it_takes_two_steps_and_goes_on_between_them() {
        for steps in 0..=2 {
            let folder = tempfile::TempDir::new().expect("a folder");
            let (root, intent) = begun(folder.path());
            let run = Run::new(&root, &intent, &Silent);
            match steps {
                1 => run.set_aside(Path::new("a")).expect("the first step"),
                2 => run.swap_in_two(&Path::new(NEW).join("a"), Path::new("a")).expect("both"),
                _ => {}
            }
            let old = std::fs::read(folder.path().join(OLD).join("a"));
            assert_eq!(old.is_ok(), steps > 0, "nothing is gone");
            let done = run.finish().expect("finished");
            assert_eq!(std::fs::read(folder.path().join("a")).expect("there"), b"new");
            assert!(done.remarks.is_empty() && !folder.path().join(FOLDER).exists(), "{steps}: {done:?}");
        }
    }

    #[test]
    fn what_was_made_between_two_steps_is_kept() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let (root, intent) = begun(folder.path());
        let run = Run::new(&root, &intent, &Silent);
        run.set_aside(Path::new("a")).expect("the first step");
        std::fs::write(folder.path().join("a"), "meanwhile").expect("written");
        run.swap_in_two(&Path::new(NEW).join("a"), Path::new("a")).expect("again");
        assert_eq!(std::fs::read(folder.path().join("a")).expect("there"), b"new");
        assert_eq!(std::fs::read(folder.path().join(".nbak-kept-test/a")).expect("kept"), b"meanwhile");
        assert_eq!(std::fs::read(folder.path().join(OLD).join("a")).expect("there"), b"old");
    }
}
