//! A restore drill: a snapshot is restored for the trial, and what came back is looked at.
//!
//! `check --read-data` proves that the bytes are there. This proves the rest of the way: that a restore makes files of
//! them, that each file *on the disk* has the content that the snapshot says, and that every database among them opens
//! and is sound. A snapshot of which that was seen is *proven*; [`pin::prove`](super::pin::prove) notes it.
//!
//! In order: the snapshot is listed, and it is seen to that there is room; it is restored into scratch space; each file
//! is read back and held against the ids of its chunks, on all cores; each database is opened there, one after the
//! other ([`inspect`]), and its rows are counted. The scratch space goes with all of that, also after an error, and
//! what a drill left that was killed goes first. Nothing else is written: not in the store, and not in the data
//! directory.
//!
//! What is not as it should be is a [`Fault`], and does not end the drill. An error does: it is about the machine (no
//! room, no right), and says nothing of the snapshot. Rows that refer to rows that are not there are remarks: SQLite
//! lets an application have them, and a snapshot gives back what there was. Whether they are new is for whoever
//! compares two drills ([`anomaly`](super::anomaly)).
//!
//! Memory is that of a restore, with the list of entries, a chunk for each core, and the numbers of at most
//! [`MOST_TABLES`] tables.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;

use super::headless::headless;
use crate::crypto::keys::Keys;
use crate::error::{Error, Result};
use crate::id::{ChunkId, SnapshotId};
use crate::snapshot::look::{chunks_of, list_whole};
use crate::snapshot::now::now_ms;
use crate::snapshot::places::real;
use crate::snapshot::progress::Progress;
use crate::snapshot::record::Record;
use crate::snapshot::restore::{Options, restore};
use crate::snapshot::scratch::{Scratch, open_up};
use crate::snapshot::sidecar::sidecars;
use crate::snapshot::store::Store;
use crate::snapshot::tree::{Consistency, Content, Entry, Node};
use crate::source::sqlite::inspect::{Failure, Inspected, inspect};
use crate::source::sqlite::{HEADER_BYTES, looks_like_database};
use crate::store::segment::MAX_PLAIN;

/// Rows are counted of so many tables, of all databases together.
pub const MOST_TABLES: usize = 20_000;
/// And of so many of one database.
const MOST_OF_ONE: usize = 1000;
/// What is to stay free beside what is restored, in bytes, and a tenth of that.
const SPARE: u64 = 4 * 1024 * 1024;
/// Zeros are read so many at a time, in bytes.
const ZEROS: usize = 256 * 1024;
/// What was proven longer ago is not held against a snapshot, in milliseconds.
const LONG_AGO: i64 = 8 * 86_400_000;

/// What a drill found.
#[derive(Debug)]
pub struct Drilled {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// When it was done: milliseconds since 1970.
    pub at: i64,
    /// Files that were restored and compared.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Databases that were opened and are sound, by path.
    pub databases: Vec<Database>,
    /// What is not as it should be.
    pub faults: Vec<Fault>,
    /// What is worth knowing and is no fault.
    pub remarks: Vec<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// A database that was opened, and is sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Where it is in the snapshot.
    pub path: PathBuf,
    /// What is in it.
    pub found: Inspected,
}

/// What a fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// All of the snapshot.
    Snapshot,
    /// A file, a directory or a link of it.
    Entry,
    /// A database.
    Database,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where in the snapshot; empty if it is all of it.
    pub path: PathBuf,
    /// What it is about.
    pub subject: Subject,
    /// What is wrong, in words.
    pub reason: String,
}

impl Subject {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Subject::Snapshot => "snapshot",
            Subject::Entry => "file",
            Subject::Database => "database",
        }
    }
}

impl Drilled {
    /// Whether all of it came back as it should.
    pub fn is_proof(&self) -> bool {
        self.faults.is_empty()
    }

    fn fault(&mut self, path: &Path, subject: Subject, reason: String) {
        self.faults.push(Fault { path: path.to_path_buf(), subject, reason });
    }
}

/// Restores `record` into scratch space in `folder`, which must be there, and looks at what came back.
pub fn drill(store: &Store, record: &Record, folder: &Path, progress: &dyn Progress) -> Result<Drilled> {
    let start = Instant::now();
    let folder = real(folder);
    if folder.starts_with(real(store.root())) {
        return Err(Error::usage("scratch space cannot be in the store: plaintext does not belong there")
            .at(&folder)
            .hint("name another folder with --scratch; nothing was changed"));
    }
    if !folder.is_dir() {
        return Err(Error::failed("the folder for scratch space is not there")
            .at(&folder)
            .hint("make it, or name another"));
    }
    let mut drilled = Drilled {
        snapshot: record.id,
        at: 0,
        files: 0,
        bytes: 0,
        databases: Vec::new(),
        faults: Vec::new(),
        remarks: Vec::new(),
        duration_ms: 0,
    };
    // What a killed one left goes now: it may be what there is no room for.
    let scratch = Scratch::beside(&folder);
    let done = carry_out(store, record, &folder, &scratch, &mut drilled, progress);
    drop(scratch);
    done?;
    drilled.faults.sort();
    drilled.at = now_ms();
    drilled.duration_ms = start.elapsed().as_millis() as u64;
    Ok(drilled)
}

fn carry_out(
    store: &Store,
    record: &Record,
    folder: &Path,
    scratch: &Scratch,
    drilled: &mut Drilled,
    progress: &dyn Progress,
) -> Result<()> {
    if !record.lack().is_none() {
        drilled.remarks.push(format!("the snapshot is incomplete: {}", record.lack()));
    }
    let listing = match list_whole(store, record, record.tree, Path::new("")) {
        Ok(listing) => listing,
        Err(error) if error.is_integrity() => {
            drilled.fault(Path::new(""), Subject::Snapshot, error.to_string());
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for (path, id) in lost_databases(store, record)? {
        let id = id.short();
        drilled.fault(&path, Subject::Database, format!("it is none any more, and was one in snapshot {id}"));
    }
    see_to_room(store, &listing.entries, folder)?;
    let made = scratch.folder().map_err(|error| Error::io("make scratch space", folder, error))?;
    let target = made.join("restored");
    let options = Options { target: target.clone(), ..Options::default() };
    let restored = restore(store, record, &options, progress);
    let damaged = match restored {
        Ok(restored) => restored.damaged,
        Err(error) if error.is_integrity() => {
            drilled.fault(Path::new(""), Subject::Snapshot, error.to_string());
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let known: HashSet<&Path> = damaged.iter().map(|(path, _)| path.as_path()).collect();
    // What nobody may read is to be read here.
    open_up(&target).map_err(|error| Error::io("open scratch space", &target, error))?;

    let whole = |(path, entry): &&(PathBuf, Entry)| !(known.contains(path.as_path()) && is_file(entry));
    let entries: Vec<&(PathBuf, Entry)> = listing.entries.iter().filter(whole).collect();
    progress.begin("comparing", entries.iter().map(|(_, entry)| size(entry)).sum());
    let seen: Vec<Seen> = entries
        .par_iter()
        .map(|(path, entry)| {
            let seen = look_at(store, &target.join(path), entry);
            progress.advance(size(entry));
            seen
        })
        .collect::<Result<_>>()?;
    progress.end();
    let mut left = MOST_TABLES;
    for ((path, entry), seen) in entries.into_iter().zip(seen) {
        let is_alone = match seen {
            Seen::Wrong(reason) => {
                drilled.fault(path, Subject::Entry, reason);
                continue;
            }
            Seen::Database { alone } => Some(alone),
            Seen::Right => None,
        };
        if is_file(entry) {
            drilled.files += 1;
            drilled.bytes += size(entry);
        }
        let Some(alone) = is_alone else { continue };
        match inspect(&target.join(path), alone, left.min(MOST_OF_ONE)) {
            Ok(found) => {
                left -= found.rows.len();
                drilled.remarks.extend(found.remarks.iter().map(|remark| format!("{}: {remark}", path.display())));
                for (table, count) in &found.violations {
                    let rows = if *count == 1 { "row refers" } else { "rows refer" };
                    let path = path.display();
                    drilled.remarks.push(format!("{path}: {count} {rows} to what is not there, in table {table}"));
                }
                drilled.databases.push(Database { path: path.clone(), found });
            }
            Err(Failure::Database(why)) => drilled.fault(path, Subject::Database, format!("it is damaged: {why}")),
            Err(Failure::Machine(why)) => {
                return Err(Error::failed("cannot check a restored database").at(path).because(why));
            }
        }
    }
    for (path, reason) in damaged {
        drilled.fault(&path, Subject::Entry, reason);
    }
    Ok(())
}

/// The databases that are none in `record`, and were in the newest snapshot before it that was proven, or else in the
/// one before it: a first page that is damaged makes a file like any other. What was proven long ago says nothing: an
/// application may encrypt what it did not.
fn lost_databases(store: &Store, record: &Record) -> Result<Vec<(PathBuf, SnapshotId)>> {
    let history = store.history()?;
    let is_before = |one: &&Record| {
        (&one.source, one.instance) == (&record.source, record.instance)
            && one.sequence < record.sequence
            && one.totals.databases > 0
            && !one.lack().mixed
            && one.started >= record.started.saturating_sub(LONG_AGO)
    };
    let before: Vec<&Record> = history.live().filter(is_before).collect();
    let proven = before.iter().rev().find(|one| history.ledger().proof(one.id).is_some());
    let Some(before) = proven.or(before.last()) else { return Ok(Vec::new()) };
    let lost = match headless(store, before, record) {
        // The earlier one has lost something; that is no fault of this one.
        Err(error) if error.is_integrity() => Vec::new(),
        other => other?,
    };
    Ok(lost.into_iter().map(|path| (path, before.id)).collect())
}

fn is_file(entry: &Entry) -> bool {
    matches!(entry.node, Node::File { .. })
}

fn size(entry: &Entry) -> u64 {
    if let Node::File { size, .. } = entry.node { size } else { 0 }
}

/// Fails unless there is room in `folder` for all files, without their holes, and some more: others may need it
/// meanwhile.
fn see_to_room(store: &Store, entries: &[(PathBuf, Entry)], folder: &Path) -> Result<()> {
    let Ok(stat) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let enough = |need: u64| need.saturating_add(need / 10).saturating_add(SPARE) <= free;
    if enough(entries.iter().map(|(_, entry)| size(entry)).sum()) {
        return Ok(());
    }
    let mut need = 0u64;
    for (_, entry) in entries {
        let Node::File { size, content, .. } = &entry.node else { continue };
        // What cannot be resolved is not restored either.
        let Ok(chunks) = chunks_of(store.catalog(), *size, content) else { continue };
        let written = chunks.iter().filter(|(_, id)| *id != ChunkId::ZEROS).map(|(length, _)| u64::from(*length));
        need = need.saturating_add(written.sum());
    }
    if enough(need) {
        return Ok(());
    }
    Err(Error::failed(format!("there is no room for a drill: the files need {need} bytes, and {free} are free"))
        .at(folder)
        .hint("free some space, or name another folder with --scratch; nothing was changed"))
}

/// What became of an entry.
enum Seen {
    Right,
    /// It is a database, with nothing beside it that belongs to it, or not.
    Database {
        alone: bool,
    },
    Wrong(String),
}

fn look_at(store: &Store, path: &Path, entry: &Entry) -> Result<Seen> {
    let failed = |error| Error::io("read what was restored", path, error);
    let wrong = |why: &str| Ok(Seen::Wrong(why.to_owned()));
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return wrong("it was not restored"),
        Err(error) => return Err(failed(error)),
    };
    match &entry.node {
        Node::Directory(_) if meta.is_dir() => Ok(Seen::Right),
        Node::Directory(_) => wrong("it is no directory after the restore"),
        Node::Symlink(target) => match std::fs::read_link(path) {
            Ok(found) if found.as_os_str().as_encoded_bytes() == target => Ok(Seen::Right),
            _ => wrong("it is not the link that it was"),
        },
        Node::File { size, content, consistency } => {
            if !meta.is_file() || meta.len() != *size {
                return wrong(&format!("it has {} bytes after the restore, and had {size}", meta.len()));
            }
            if meta.mode() & 0o600 != 0o600 {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
            }
            let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            let mut file = OpenOptions::new().read(true).custom_flags(no_link).open(path).map_err(failed)?;
            let keys = store.catalog().packs().keys();
            let head = match compare(store, keys, &mut file, *size, content) {
                Ok(Ok(head)) => head,
                Ok(Err(why)) => return Ok(Seen::Wrong(why)),
                Err(error) => return Err(failed(error)),
            };
            let is_image = *consistency == Consistency::Transaction;
            if is_image || looks_like_database(&head).is_some() {
                let alone = is_image || !sidecars(path).iter().any(|sidecar| sidecar.exists());
                return Ok(Seen::Database { alone });
            }
            Ok(Seen::Right)
        }
    }
}

/// Reads a file and holds it against the ids of its chunks. Answers with its beginning, or with what is wrong.
fn compare(
    store: &Store,
    keys: &Keys,
    file: &mut File,
    size: u64,
    content: &Content,
) -> std::io::Result<std::result::Result<Vec<u8>, String>> {
    let chunks = match chunks_of(store.catalog(), size, content) {
        Ok(chunks) => chunks,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let (mut head, mut bytes, mut offset) = (Vec::new(), Vec::new(), 0u64);
    for (length, id) in chunks {
        let mut left = length as usize;
        if id != ChunkId::ZEROS && left > MAX_PLAIN {
            return Ok(Err("a chunk of it is longer than the format allows".to_owned()));
        }
        while left > 0 {
            // A chunk as a whole, zeros piece by piece.
            let some = if id == ChunkId::ZEROS { left.min(ZEROS) } else { left };
            bytes.resize(some, 0);
            match file.read_exact(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Err("it is cut short".to_owned())),
                other => other?,
            }
            let is_it = if id == ChunkId::ZEROS { bytes.iter().all(|b| *b == 0) } else { keys.chunk_id(&bytes) == id };
            if !is_it {
                return Ok(Err(format!("it has other content after the restore, from byte {offset} on")));
            }
            if head.len() < HEADER_BYTES {
                head.extend(bytes.iter().take(HEADER_BYTES - head.len()));
            }
            left -= some;
            offset += some as u64;
        }
    }
    Ok(Ok(head))
}
