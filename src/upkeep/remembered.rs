//! How far a store had come when this machine last took a snapshot, remembered outside of it (S10).
//!
//! Packs are authentic and records are chained, but a whole store that was replaced by an earlier copy of itself is as
//! sound as it was then: nothing in it can tell. Nor can a new one that lies where it was, since somebody removed it,
//! or a disk is not mounted. So the number of the newest snapshot, the hash of its record, and where the store lies
//! stand in the data directory too, once the daemon has run there. They are no secret. The file is not synced: what is
//! lost of it is only the memory.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::codec::hex;
use crate::error::{Error, Result};
use crate::snapshot::ledger::Start;
use crate::snapshot::places::{known_as, name_of_source, real};
use crate::snapshot::progress::Progress;
use crate::snapshot::store::Store;
use crate::snapshot::take::{self, Options, Taken};
use crate::source::{named, own};

/// Where it is in the data directory.
pub const FILE: &str = ".nbak-state/seen.json";
/// It is at most this long, in bytes.
const MOST: u64 = 1024 * 1024;

/// What is remembered of one store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// The number that the next snapshot had then.
    next: u64,
    /// The keyed hash of the record before that, in hex.
    after: Option<String>,
    /// The store was found to be behind this, and nobody has accepted that yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    behind: bool,
    /// Where it lies.
    #[serde(default)]
    at: String,
    /// Another one lay there, and nobody has accepted that yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    instead: bool,
    /// What the data directory was known as in it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    known_as: String,
}

impl Mark {
    fn of((next, after): &Start) -> Mark {
        Mark { next: *next, after: after.map(|mac| hex(&mac)), ..Mark::default() }
    }
}

fn place(store: &Store) -> String {
    let root = store.root();
    name_of_source(&root.canonicalize().unwrap_or_else(|_| root.to_owned()))
}

/// By the store's id. What cannot be read is not remembered.
fn read(data_dir: &Path) -> BTreeMap<String, Mark> {
    let mut bytes = Vec::new();
    let file = open(OpenOptions::new().read(true), &data_dir.join(FILE));
    let read = file.and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    read.ok().and_then(|_| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Opens the file itself: no link is followed, and no pipe waited for.
fn open(options: &mut OpenOptions, path: &Path) -> std::io::Result<File> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let file = options.mode(0o600).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::Error::other("it is no regular file")) }
}

fn write(data_dir: &Path, all: &BTreeMap<String, Mark>) -> Result<()> {
    let path = data_dir.join(FILE);
    let failed = |error| Error::io("remember how far the store is", &path, error);
    let bytes = serde_json::to_vec(all).map_err(|error| failed(error.into()))?;
    own::put(&path, &bytes, 0o600).map_err(failed)
}

/// What this machine has seen of stores, as it was at some moment.
pub struct Seen(BTreeMap<String, Mark>);

/// What this machine has seen by now. Asked *before* a store is opened, or one that a snapshot is taken into meanwhile
/// seems to lack it.
pub fn seen(data_dir: &Path) -> Seen {
    Seen(read(data_dir))
}

/// What was `seen` of `store` that is not there, in words. `thoroughly` reads all records for it; without, a store that
/// was put back and has gone on since is only known if that was noticed before it went on.
pub fn missing(Seen(all): &Seen, store: &Store, thoroughly: bool) -> Result<Option<String>> {
    let other = || said("it is another one than lay there");
    let Some(mark) = all.get(&store.id().to_string()) else {
        let at = place(store);
        return Ok(all.values().any(|mark| mark.at == at).then(other));
    };
    if mark.instead {
        return Ok(Some(other()));
    }
    let now = Mark::of(&store.head()?.next);
    let seen = mark.next.saturating_sub(1);
    if now.next < mark.next || mark.behind {
        return Ok(Some(said(&format!("snapshot number {seen} was there, and is not any more"))));
    }
    let is_same = if now.next == mark.next {
        now.after == mark.after
    } else if thoroughly {
        is_in(store, mark, seen)?
    } else {
        true
    };
    Ok((!is_same).then(|| said(&format!("its snapshot number {seen} is another one than was there"))))
}

/// Whether a store of this data directory may lie at `root`: one is there, and none is remembered elsewhere only.
pub fn may_be(data_dir: &Path, root: &Path) -> bool {
    let at = name_of_source(&root.canonicalize().unwrap_or_else(|_| root.to_owned()));
    let all = read(data_dir);
    root.is_dir() && (all.is_empty() || all.values().any(|mark| mark.at.is_empty() || mark.at == at))
}

fn said(what: &str) -> String {
    format!(
        "the store is not what this machine has seen of it: {what} (look for a newer copy; `nbak repair index` accepts \
         it as it is)"
    )
}

/// Whether the snapshot that was the newest then is there, or was forgotten.
fn is_in(store: &Store, mark: &Mark, number: u64) -> Result<bool> {
    let history = store.history()?;
    let is_it = |mac: &[u8; 16]| Mark::of(&(mark.next, Some(*mac))).after == mark.after;
    Ok(mark.after.is_none()
        || history.known().iter().any(|one| one.record.sequence == number && is_it(&one.mac))
        || history.ledger().spans(number)
        || history.ledger().gaps.iter().any(|gap| gap.first <= number && number <= gap.last))
}

/// What the operator called the data directory when a snapshot of it was taken last, if that was one name.
pub fn name(data_dir: &Path) -> Option<String> {
    let all = read(data_dir);
    let mut names = all.values().map(|mark| named::split(&mark.known_as).0);
    let first = names.next()?;
    names.all(|other| other == first).then_some(first).flatten().map(str::to_owned)
}

/// Takes a snapshot, and remembers it. That the store is behind what was seen is one of its remarks, and that the data
/// directory is known by another name from now on.
pub fn take(store: &mut Store, options: &Options, progress: &dyn Progress) -> Result<Taken> {
    let seen = seen(&options.source);
    let behind = missing(&seen, store, false)?;
    let path = real(&options.source);
    let source = known_as(options.name.as_deref(), &path);
    let named = is_named(&seen, store, &source, &name_of_source(&path))?;
    let mut taken = take::take(store, options, progress)?;
    if !options.dry_run {
        // It is taken: a memory that cannot be kept does not undo that.
        let kept = remember(&options.source, &source, store, behind.is_some());
        taken.remarks.extend(kept.err().map(|error| error.to_string()));
    }
    taken.remarks.extend(behind.into_iter().chain(named));
    Ok(taken)
}

/// What it means that nothing in `store` is known as `source`, if there is something that this data directory was
/// known as before: by what was remembered, or by its `path` alone.
fn is_named(Seen(all): &Seen, store: &Store, source: &str, path: &str) -> Result<Option<String>> {
    let head = store.head()?;
    if head.newest_of(source).is_some() {
        return Ok(None);
    }
    let remembered = all.get(&store.id().to_string()).map(|mark| mark.known_as.as_str());
    let before = remembered.into_iter().chain([path]).find(|before| head.newest_of(before).is_some());
    Ok(before.map(|before| {
        format!(
            "this data directory is known as {source} from now on, and its snapshots so far as {before}: those stay, \
             as another one's. `latest`, times, tags and policies mean the new ones alone; the old ones are named by \
             their ids (`nbak snapshots`), and `nbak forget --of {before} --keep-last 1` goes over them by a policy. \
             The first snapshot under a name reads everything, and stores what the store does not have"
        )
    }))
}

/// Makes the file, if there is none: from now on it is remembered. A snapshot alone does not: it changes nothing in the
/// directory that it is of.
pub fn begin(data_dir: &Path) -> Result<()> {
    let path = data_dir.join(FILE);
    let room = own::make_room(&path);
    let made = room.and_then(|()| open(OpenOptions::new().write(true).create(true).truncate(false), &path));
    made.map(drop).map_err(|error| Error::io("remember how far the store is", &path, error))
}

/// Remembers how far `store` is, in which this data directory is known as `source`; or, if it is `behind`, that this
/// was so until somebody accepts it. Nothing where [`begin`] never was.
pub fn remember(data_dir: &Path, source: &str, store: &Store, behind: bool) -> Result<()> {
    if data_dir.join(FILE).symlink_metadata().is_err() {
        return Ok(());
    }
    let before = read(data_dir);
    let mut all = before.clone();
    let (id, at, now) = (store.id().to_string(), place(store), Mark::of(&store.head()?.next));
    let mark = match all.remove(&id) {
        Some(mark) if behind && !mark.instead => Mark { behind: true, ..mark },
        _ => Mark { instead: behind, ..now },
    };
    if !behind {
        // What lay there is no longer expected.
        all.retain(|_, other| other.at != at);
    }
    all.insert(id, Mark { at, known_as: source.to_owned(), ..mark });
    if all == before { Ok(()) } else { write(data_dir, &all) }
}
