//! Repairing a store: everything that can be saved is saved, and what is lost is said.
//!
//! The order matters. Nothing is set aside before everything was tried that may bring it back:
//! 1. Check all data. What is damaged is remembered, so that nobody relies on it.
//! 2. Put back what the index remembers of packs that are gone or do not open: records, and the ledger. From here on no
//!    snapshot is unknown, however much it lost.
//! 3. Take a snapshot of the data directory: what is at hand of it is stored again, trees and recipes too.
//! 4. Look for what is still lost in the documented backups: their files hold the same bytes.
//! 5. Check again. Damaged packs are set aside, after what is sound of them was stored again
//!    ([`crate::upkeep::salvage`]).
//! 6. Make the index anew, check once more, and note which paths of which snapshots are lost. Those snapshots are
//!    marked from then on, restore but for these paths, and no longer keep `gc` from its work.
//!
//! Killed at any point it leaves the store no worse than before, and is run again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::backup::Backup;
use super::inplace::beside::Watch;
use super::list;
use super::manager::BackupManager;
use super::nbak;
use crate::error::{Error, Result};
use crate::id::{PackId, SnapshotId};
use crate::index::WHOLE_PACK;
use crate::snapshot::check::{self, Report, check};
use crate::snapshot::progress::Progress;
use crate::snapshot::store::{Access, Store};
use crate::snapshot::take::{self, Taken};
use crate::store::segment::MAX_DEPTH;
use crate::store::sink::PackSink;
use crate::upkeep::heal::Healer;
use crate::upkeep::remembered;
use crate::upkeep::salvage::{
    AGAIN, forget_nothing, lost_chunks, note_losses, orphaned_ledger, orphaned_records, set_aside,
};

/// What to repair with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Folders of documented backups to look for lost data in, besides those of the data directory; or backups.
    pub backups: Vec<PathBuf>,
    /// Take no snapshot of the data directory.
    pub without_snapshot: bool,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Nothing was wrong.
    pub nothing: bool,
    /// Records of snapshots that were put back.
    pub records: u64,
    /// The snapshot that was taken, if one was.
    pub taken: Option<Taken>,
    /// Why none was.
    pub not_taken: Option<String>,
    /// Chunks that were found in documented backups.
    pub healed: u64,
    /// Backups that were looked in.
    pub looked_in: u64,
    /// Snapshots that were known to have lost something, and have it again.
    pub whole_again: Vec<SnapshotId>,
    /// Backups that no key that was given opens.
    pub sealed: Vec<String>,
    /// Files of backups that could not be read, and why.
    pub remarks: Vec<String>,
    /// Packs that were set aside.
    pub set_aside: Vec<PackId>,
    /// Snapshots that lost something, and how many paths.
    pub lost: Vec<(SnapshotId, u64)>,
    /// Snapshots whose very record is missing: nobody knows any more which they were.
    pub missing: u64,
    /// Packs among those set aside of which nobody knows any more what they held.
    pub unknown: u64,
    /// Something of all that was not known before.
    pub news: bool,
    /// What is still wrong beyond that.
    pub problems: Vec<check::Problem>,
}

const EVERYTHING: check::Options = check::Options { read_data: true, subset: None };

impl BackupManager {
    /// Repairs the store.
    pub fn repair(&self, options: &Options, progress: &dyn Progress) -> Result<Repaired> {
        let mut repaired = Repaired::default();
        if let Some(missing) = options.backups.iter().find(|path| !path.is_dir()) {
            return Err(Error::usage("there is no such folder of backups").at(missing).hint("nothing was changed"));
        }
        let holds_none = |path: &&PathBuf| backups_in(path).is_empty() && Backup::open(path).is_err();
        if let Some(empty) = options.backups.iter().find(holds_none) {
            return Err(Error::usage("there is no documented backup there").at(empty).hint("nothing was changed"));
        }
        let mut store = self.open_to_repair()?;
        let report = look(&mut store, progress)?;
        let known = store.history()?.ledger().losses.clone();
        let clean = is_clean(&store, &report);
        if clean && known.is_empty() {
            repaired.nothing = true;
            return Ok(repaired);
        }
        repaired.records = put_back(&mut store)?;
        // One that is not mounted would make for an empty snapshot, and that the newest.
        let is_empty = std::fs::read_dir(&self.places.data_dir).is_ok_and(|mut entries| entries.next().is_none());
        if clean {
            repaired.not_taken = Some("nothing is damaged that was not known".to_owned());
        } else if options.without_snapshot {
            repaired.not_taken = Some("none was wanted".to_owned());
        } else if is_empty {
            repaired.not_taken = Some("the data directory is empty".to_owned());
        } else {
            match self.take_again(&mut store, progress) {
                Ok(taken) => repaired.taken = Some(taken),
                // The data directory may be what was lost.
                Err(error) => repaired.not_taken = Some(error.to_string()),
            }
        }
        self.heal(&mut store, options, &mut repaired)?;

        // Once more for each step of what builds on what: a segment may open as long as a damaged pack is there.
        for _ in 0..=MAX_DEPTH {
            let report = look(&mut store, progress)?;
            let unreadable = store.catalog().index().unreadable().iter().map(|(pack, _)| (*pack, WHOLE_PACK));
            let damaged: BTreeSet<_> = report.damaged.iter().copied().chain(unreadable).collect();
            let aside = set_aside(&mut store, &damaged)?;
            repaired.unknown += aside.unknown;
            if aside.unknown > 0 || store.catalog().index().lost_all() {
                forget_nothing(&mut store)?;
            }
            // What is gone or set aside is accepted now: the ledger says what that took.
            store.catalog_mut().index_mut().discard();
            drop(store);
            store = self.open_to_repair()?;
            if aside.packs.is_empty() {
                break;
            }
            repaired.set_aside.extend(aside.packs);
        }
        let mut report = check(&store, check::Options::default(), progress)?;
        if let Some(error) = report.unread.take() {
            return Err(error.also(AGAIN));
        }
        (repaired.lost, repaired.missing) = note_losses(&mut store, &report)?;
        let ledger = store.history()?.ledger();
        let is_whole = |id: &&SnapshotId| !ledger.losses.contains_key(id);
        repaired.whole_again = known.keys().filter(is_whole).copied().collect();
        repaired.news = (repaired.unknown, repaired.missing) != (0, 0);
        repaired.news |= repaired.lost.iter().any(|(id, _)| ledger.losses.get(id) != known.get(id));
        repaired.problems = check(&store, check::Options::default(), progress)?.problems;
        // What is gone was said. If that cannot be noted, it is said again.
        let _ = remembered::remember(&self.places.data_dir, &self.places.known_as(), &store, false);
        Ok(repaired)
    }

    fn open_to_repair(&self) -> Result<Store> {
        Store::open(&self.places.repo, &self.credentials, Access::Write(self.settings.patience))
    }

    fn take_again(&self, store: &mut Store, progress: &dyn Progress) -> Result<Taken> {
        let options = take::Options {
            source: self.places.data_dir.clone(),
            name: self.places.name.clone(),
            exclude: self.settings.exclude.clone(),
            own_folders: self.places.own_folders()?,
            separate_files: self.settings.separate_files,
            full_scan: true,
            beside: Watch::begin(&self.places.data_dir).asked(),
            ..take::Options::default()
        };
        take::take(store, &options, progress)
    }

    /// Looks for what is still lost in documented backups.
    fn heal(&self, store: &mut Store, options: &Options, repaired: &mut Repaired) -> Result<()> {
        let lost = lost_chunks(store)?;
        if lost.is_empty() {
            return Ok(());
        }
        let mut places: Vec<PathBuf> = Vec::new();
        for folder in [&self.places.backup_dir].into_iter().chain(&options.backups) {
            places.extend(backups_in(folder));
        }
        // One that was named may be a backup itself.
        places.extend(options.backups.iter().filter(|path| Backup::open(path).is_ok()).cloned());
        let catalog = store.catalog();
        let sink = PackSink::new(store.objects().clone(), catalog.packs().keys().clone());
        let mut healer = Healer::new(catalog, sink, lost);
        for place in places {
            if healer.lost().is_empty() {
                break;
            }
            match Backup::open(&place) {
                Ok(backup) => {
                    repaired.looked_in += 1;
                    self.offer(&backup, &mut healer, repaired)?;
                }
                Err(error) => repaired.remarks.push(error.to_string()),
            }
        }
        let (stored, found) = healer.finish()?;
        repaired.healed = found;
        store.catalog_mut().index_mut().add(&stored);
        Ok(())
    }

    /// Gives all files of `backup` to `healer`. A file that cannot be read is passed over.
    fn offer(&self, backup: &Backup, healer: &mut Healer<'_>, repaired: &mut Repaired) -> Result<()> {
        let keys = self.nbak_keys(backup);
        for entry in backup.manifest.files.iter().filter(|entry| !entry.kind.is_directory()) {
            let path = backup.path.join(&entry.path);
            let read = backup.file(entry).and_then(|mut file| {
                if backup.manifest.encrypted {
                    healer.begin(entry.size.saturating_sub(nbak::HEADER));
                    nbak::open(&mut file, &path, &keys, healer).map(drop)
                } else {
                    healer.begin(entry.size);
                    let copied = std::io::copy(&mut file, healer).map(drop);
                    copied.map_err(|error| Error::io("read a file of the backup", &path, error))
                }
            });
            // What the store says goes before what the file says.
            match (healer.end(), read) {
                (Err(error), _) => return Err(error),
                // Then no other file of it opens either: it needs the key of its time.
                (Ok(()), Err(error)) if error.is_key() => {
                    repaired.sealed.push(backup.name.clone());
                    return Ok(());
                }
                (Ok(()), Err(error)) => repaired.remarks.push(error.to_string()),
                (Ok(()), Ok(())) => {}
            }
        }
        Ok(())
    }
}

/// The backups in `folder`, the newest first; none if there is no such folder.
fn backups_in(folder: &Path) -> Vec<PathBuf> {
    list::list(folder).unwrap_or_default().into_iter().rev().map(|listed| listed.path).collect()
}

/// Checks all data, and remembers what is damaged.
fn look(store: &mut Store, progress: &dyn Progress) -> Result<Report> {
    let mut report = check(store, EVERYTHING, progress)?;
    if let Some(error) = report.unread.take() {
        return Err(error.also(AGAIN));
    }
    store.remember_damaged(&report.read, &report.damaged);
    Ok(report)
}

fn is_clean(store: &Store, report: &Report) -> bool {
    report.problems.is_empty()
        && report.damaged.is_empty()
        && store.losses().is_none()
        && store.catalog().index().unreadable().is_empty()
}

/// Puts back records, and the ledger, that only the index remembers.
fn put_back(store: &mut Store) -> Result<u64> {
    let records = orphaned_records(store)?;
    let count = records.len() as u64;
    if let Some(ledger) = orphaned_ledger(store)? {
        store.put_ledger(ledger)?;
    }
    if !records.is_empty() {
        let sink = PackSink::new(store.objects().clone(), store.catalog().packs().keys().clone());
        let stored = sink.flush()?.commit_all(records)?;
        store.catalog_mut().index_mut().add(&stored);
    }
    Ok(count)
}
