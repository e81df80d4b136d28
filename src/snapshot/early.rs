//! Databases that changed, opened before anything else is looked at.
//!
//! The transactions of a snapshot are to begin before its walk, so that no file is older than they are. Which files
//! are databases is known from the walk; so whoever knows nothing walks twice. But most snapshots of a directory in
//! use find the same databases as the one before, with something new in them. Their paths and stamps are in a small
//! note of their own: if one of them has another stamp now, it is opened at once, and one walk is enough, unless that
//! finds a database that the note does not name.
//!
//! The note is no more than a hint about what to open first. What it says of logs is what the receipts say
//! ([`super::marks`]), for the same snapshot, and is proven by the log as there. What the receipts say besides, that
//! all of the parent snapshot is known to be there, it does not: who makes use of the parent's content asks for that
//! ([`super::frames::save`]).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::capture::open_database;
use super::first::First;
use super::frames::Earlier;
use super::receipt::Receipt;
use super::receipts::Receipts;
use super::record::Record;
use super::sidecar::sidecar_stamps;
use super::taking::Taking;
use crate::index::Index;
use crate::source::walk::{Found, Identity, Kind, identity, stamp};

/// The name of the note for the data directory `source`.
fn note_name(source: &str) -> String {
    format!("databases {source}")
}

/// What `source`'s note says, if it is about the snapshot `record`.
fn note(index: &Index, record: &Record) -> Option<Receipts> {
    let note = Receipts::decode(&index.note(&note_name(&record.source))?).ok()?;
    (note.snapshot == record.id).then_some(note)
}

/// Leaves the note about the databases in `contents`, which `record` holds.
pub(super) fn leave_note(index: &mut Index, record: &Record, databases: HashMap<PathBuf, Receipt>, seen: &Receipts) {
    let note = Receipts { files: databases, marks: seen.marks.clone(), ..Receipts::none(record.id) };
    if self::note(index, record).as_ref() != Some(&note) {
        index.leave_note(&note_name(&record.source), &note.encode());
    }
}

impl Taking<'_> {
    /// Opens the databases that changed since the snapshot `record`, as far as its note tells.
    pub(super) fn open_early(&self, record: Option<&Record>) -> First {
        let mut first = First::default();
        let index = self.store.catalog().index();
        let Some(note) = record.filter(|_| index.unreadable().is_empty()).and_then(|record| note(index, record)) else {
            return first;
        };
        for (path, receipt) in note.files {
            let Some(folder) = self.walked_folder(&path) else { continue };
            let absolute = self.source.join(&path);
            // What is gone, or became something else, is the walk's business.
            let Some(meta) = std::fs::symlink_metadata(&absolute).ok().filter(std::fs::Metadata::is_file) else {
                continue;
            };
            if receipt.stamp == stamp(&meta) && receipt.is_same_beside(sidecar_stamps(&absolute)) {
                continue;
            }
            let earlier = note.marks.get(&path).map(|mark| Earlier::by(*mark, self.options.full_scan));
            let found = Found::new(path, 0, Kind::File, &meta);
            if first.has_open(identity(&found.stamp)) {
                continue;
            }
            if let Ok(Some(opened)) = self.opening(|opening| open_database(opening, &found, folder, earlier)) {
                first.databases.insert(found.path, opened);
            }
        }
        first
    }

    /// The folder of `path` if a walk can come there: no folder on the way is excluded, or has become a link.
    fn walked_folder(&self, path: &Path) -> Option<Identity> {
        let mut above = path.ancestors().filter(|path| !path.as_os_str().is_empty());
        if above.any(|path| self.exclusions.reason(path, &self.source).is_some()) {
            return None;
        }
        // Paths that are compared have no slash at the end.
        let folder: PathBuf = self.source.join(path.parent()?).components().collect();
        let meta = std::fs::symlink_metadata(&folder).ok()?;
        let is_it = std::fs::canonicalize(&folder).is_ok_and(|found| found == folder);
        is_it.then(|| identity(&stamp(&meta)))
    }
}
