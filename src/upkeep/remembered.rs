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

use super::alike::{Alike, REMEDY, UpTo, Which};
use crate::codec::hex;
use crate::error::{Error, Result};
use crate::id::InstanceId;
use crate::snapshot::head::Head;
use crate::snapshot::instance::instance;
use crate::snapshot::ledger::Start;
use crate::snapshot::now::now_ms;
use crate::snapshot::places::{known_as, name_of_source, real};
use crate::snapshot::progress::Progress;
use crate::snapshot::store::Store;
use crate::snapshot::take::{self, Options, Taken};
use crate::source::{named, own};

/// Where it is in the data directory.
pub const FILE: &str = ".nbak-state/seen.json";
/// Directories of file systems that do not know when a folder was made.
const UNKNOWN: &str = "unknown";
/// Where a store lies that is not where it was. No path reads like that.
const ELSEWHERE: &str = "elsewhere";
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
    /// Directories of the same path of which a person said that they are one with another, which is named first, and
    /// up to which snapshot. A copy of this file in a copy of the data directory says nothing of the copy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    as_one: BTreeMap<String, BTreeMap<String, Said>>,
}

/// What a person said of another directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Form")]
struct Said {
    /// Up to which snapshot.
    upto: u64,
    /// When, in milliseconds since 1970.
    at: i64,
}

/// How that is written. Older ones do not say when: then no backup counts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Upto(u64),
    Both { upto: u64, at: i64 },
}

impl From<Form> for Said {
    fn from(form: Form) -> Said {
        match form {
            Form::Upto(upto) => Said { upto, at: 0 },
            Form::Both { upto, at } => Said { upto, at },
        }
    }
}

impl Mark {
    fn of((next, after): &Start) -> Mark {
        Mark { next: *next, after: after.map(|mac| hex(&mac)), ..Mark::default() }
    }
}

fn place(store: &Store) -> String {
    place_of(store.root())
}

fn place_of(root: &Path) -> String {
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

/// What is remembered, changed by `act`, if that changes anything. One at a time: commands of two stores may be about
/// one data directory.
fn changed(data_dir: &Path, act: impl FnOnce(&mut BTreeMap<String, Mark>)) -> Result<()> {
    let path = data_dir.join(FILE);
    let failed = |error| Error::io("remember how far the store is", &path, error);
    // Who may not open the folder may not write there either, which the rest says.
    let turn = path.parent().and_then(|folder| File::open(folder).ok());
    let _ = turn.as_ref().map(File::lock);
    let before = read(data_dir);
    let mut all = before.clone();
    act(&mut all);
    if all == before {
        return Ok(());
    }
    let bytes = serde_json::to_vec(&all).map_err(|error| failed(error.into()))?;
    own::put_for_owner(&path, &bytes, 0o600, data_dir).map_err(failed)
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
    let other = || behind("it is another one than lay there");
    let Some(mark) = all.get(&store.id().to_string()) else {
        let at = place(store);
        return Ok(all.values().any(|mark| mark.at == at).then(other));
    };
    if mark.instead {
        return Ok(Some(other()));
    }
    let now = Mark::of(&store.head()?.next);
    let seen = mark.next.saturating_sub(1);
    // Packs that were away may be back.
    if (now.next < mark.next || mark.behind) && !is_in(store, mark, seen)? {
        return Ok(Some(behind(&format!("snapshot number {seen} was there, and is not any more"))));
    }
    let is_same = if now.next == mark.next {
        now.after == mark.after
    } else if thoroughly {
        is_in(store, mark, seen)?
    } else {
        true
    };
    Ok((!is_same).then(|| behind(&format!("its snapshot number {seen} is another one than was there"))))
}

/// Whether a store of this data directory may lie at `root`: one is there, and none is remembered elsewhere only.
pub fn may_be(data_dir: &Path, root: &Path) -> bool {
    let (at, all) = (place_of(root), read(data_dir));
    root.is_dir() && (all.is_empty() || all.values().any(|mark| mark.at.is_empty() || mark.at == at))
}

fn behind(what: &str) -> String {
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

/// What the operator called the data directory when it was remembered last how far the store at `root` is; where
/// nothing is remembered of that one, of all stores, if that is one name.
pub fn name(data_dir: &Path, root: &Path) -> Option<String> {
    let (all, at) = (read(data_dir), place_of(root));
    let name_of = |mark: &Mark| named::split(&mark.known_as).0.map(str::to_owned);
    if let Some(mark) = all.values().find(|mark| mark.at == at && !mark.known_as.is_empty()) {
        return name_of(mark);
    }
    let mut names = all.values().map(name_of);
    let first = names.next()?;
    names.all(|other| other == first).then_some(first).flatten()
}

/// Whether anything is remembered of the store at `root`, so that [`name`] is what counts there.
pub fn knows(data_dir: &Path, root: &Path) -> bool {
    let at = place_of(root);
    read(data_dir).values().any(|mark| mark.at == at && !mark.known_as.is_empty())
}

/// Takes a snapshot, and remembers it. Among its remarks: that the store is behind what was seen, that the data
/// directory is known by another name from now on, and that another of the same path takes snapshots too.
pub fn take(store: &mut Store, options: &Options, progress: &dyn Progress) -> Result<Taken> {
    let seen = seen(&options.source);
    let behind = missing(&seen, store, false)?;
    let path = real(&options.source);
    let source = known_as(options.name.as_deref(), &path);
    let named = is_named(&seen, store, &source, &path)?;
    let alike = alike(&options.source, &source, store)?;
    let mut taken = take::take(store, options, progress)?;
    if !options.dry_run {
        // It is taken: a memory that cannot be kept does not undo that.
        let kept = remember(&options.source, &source, store, behind.is_some());
        taken.remarks.extend(kept.err().map(|error| error.to_string()));
    }
    let other = alike.text().filter(|_| alike.is_active());
    taken.remarks.extend(other.map(|other| format!("{other} ({REMEDY}; until then no policy goes over its)")));
    // Once: `forget` says it each time.
    taken.remarks.extend(alike.leaves(false).filter(|_| !alike.has_begun()));
    taken.remarks.extend(behind.into_iter().chain(named));
    Ok(taken)
}

/// Whose what is known as `source` in `store` is, as the data directory `data_dir` sees it.
pub fn alike(data_dir: &Path, source: &str, store: &Store) -> Result<Alike> {
    let (Seen(all), own) = (seen(data_dir), instance(data_dir));
    let head = store.head()?;
    let one = said(&all, own, store, head.next.0).into_iter().map(|(it, said)| (it, said.upto)).collect();
    Ok(Alike::of(&head, source, own, &one, now_ms()))
}

/// Which directories a person said that `data_dir`, which is known as `source`, was before, and when, whether a
/// snapshot of them is there or not. Not those that took one since.
pub fn ones(data_dir: &Path, source: &str, store: &Store) -> Result<BTreeMap<Which, i64>> {
    let (Seen(all), head) = (seen(data_dir), store.head()?);
    let said = said(&all, instance(data_dir), store, head.next.0).into_iter();
    // An older form does not say when: then it is to be said once more.
    let stays = |it: &Which, said: &Said| said.at != 0 && !goes_on(&head, source, *it, said.upto);
    Ok(said.filter(|(it, said)| stays(it, said)).map(|(it, said)| (it, said.at)).collect())
}

/// Whether `it` took a snapshot after number `upto`, by whatever name: then it is not what this one was.
fn goes_on(head: &Head, source: &str, it: Which, upto: u64) -> bool {
    head.newest_at(source).any(|record| record.instance == it && record.sequence > upto)
}

/// What was said of `own`. In a store that was put back the numbers are given once more: what was said of them is said
/// anew.
fn said(all: &BTreeMap<String, Mark>, own: Which, store: &Store, next: u64) -> BTreeMap<Which, Said> {
    let mark = all.get(&store.id().to_string()).filter(|mark| mark.next <= next && !mark.behind);
    let said = mark.and_then(|mark| mark.as_one.get(&text(own)));
    said.into_iter().flatten().filter_map(|(it, said)| Some((which(it)?, *said))).collect()
}

/// Whether any store of `data_dir` is remembered.
pub fn is_any(data_dir: &Path) -> bool {
    !read(data_dir).is_empty()
}

/// A person says that what `these` took in `store` by now of what is known as `source`, as this data directory is, is
/// of it.
pub fn accept(data_dir: &Path, source: &str, store: &Store, these: &UpTo) -> Result<()> {
    if these.is_empty() {
        return Ok(());
    }
    begin(data_dir)?;
    if let Some(behind) = missing(&seen(data_dir), store, false)? {
        return Err(Error::usage(behind).hint("then say this once more; nothing was changed"));
    }
    remember(data_dir, source, store, false)?;
    changed(data_dir, |all| {
        if let Some(mark) = all.get_mut(&store.id().to_string()) {
            let said = mark.as_one.entry(text(instance(data_dir))).or_default();
            let at = now_ms();
            for (it, upto) in these {
                let earlier = said.get(&text(*it)).map_or(0, |said| said.upto);
                said.insert(text(*it), Said { upto: (*upto).max(earlier), at });
            }
        }
    })
}

/// What a directory is called in the file.
fn text(which: Which) -> String {
    which.map_or_else(|| UNKNOWN.to_owned(), |it| it.to_string())
}

fn which(text: &str) -> Option<Which> {
    if text == UNKNOWN { Some(None) } else { InstanceId::parse(text).ok().map(Some) }
}

/// What it means that nothing in `store` is known as `source`, if there is something that this data directory was
/// known as before: by what was remembered, or by its `path` alone.
fn is_named(Seen(all): &Seen, store: &Store, source: &str, path: &Path) -> Result<Option<String>> {
    let (head, own) = (store.head()?, instance(path));
    let has_own = |source: &str| head.newest_of_each(source).any(|record| record.instance == own);
    let remembered = all.get(&store.id().to_string()).map(|mark| mark.known_as.clone());
    if has_own(source) || remembered.as_deref() == Some(source) {
        return Ok(None);
    }
    let before = remembered.into_iter().chain([name_of_source(path)]).find(|before| has_own(before));
    Ok(before.map(|before| {
        format!(
            "this data directory is known as {source} from now on, and its snapshots so far as {before}: those stay, \
             as another one's. `latest`, times, tags and policies mean the new ones alone; the old ones are named by \
             their ids (`nbak snapshots`), and `nbak forget --of {before} --keep-last 1` goes over those that this \
             directory took. The first snapshot under a name reads everything, and stores what the store does not have"
        )
    }))
}

/// Makes the file, if there is none: from now on it is remembered. A snapshot alone does not: it changes nothing in the
/// directory that it is of.
pub fn begin(data_dir: &Path) -> Result<()> {
    let path = data_dir.join(FILE);
    let room = own::make_room_for_owner(&path, data_dir);
    let made = room.and_then(|()| open(OpenOptions::new().write(true).create(true).truncate(false), &path));
    let made = made.and_then(|file| own::give_to_owner(&file, data_dir));
    made.map_err(|error| Error::io("remember how far the store is", &path, error))
}

/// Remembers how far `store` is, in which this data directory is known as `source`; or, if it is `behind`, that this
/// was so until somebody accepts it. Nothing where [`begin`] never was.
pub fn remember(data_dir: &Path, source: &str, store: &Store, behind: bool) -> Result<()> {
    if data_dir.join(FILE).symlink_metadata().is_err() {
        return Ok(());
    }
    let (id, at, head) = (store.id().to_string(), place(store), store.head()?);
    let now = Mark::of(&head.next);
    // Who goes on is not what this one was, and that stays so when what showed it is forgotten.
    let goes_on = |it: &str, upto: u64| which(it).is_none_or(|it| goes_on(&head, source, it, upto));
    changed(data_dir, |all| {
        let earlier = all.remove(&id);
        let mut as_one = earlier.as_ref().map(|mark| mark.as_one.clone()).unwrap_or_default();
        for said in as_one.values_mut() {
            said.retain(|it, said| !goes_on(it, said.upto));
        }
        // In a store that was put back the numbers are given once more.
        as_one.retain(|_, said| !said.is_empty() && earlier.as_ref().is_none_or(|mark| mark.next <= now.next));
        let mark = match earlier {
            Some(mark) if behind && !mark.instead => Mark { behind: true, ..mark },
            _ => Mark { instead: behind, ..now },
        };
        if !behind {
            // What lay there is no longer expected. What a person said of it counts when it is there again: disks may
            // take turns at one place.
            all.retain(|_, other| other.at != at || !other.as_one.is_empty());
            let others = all.values_mut().filter(|other| other.at == at);
            others.for_each(|other| ELSEWHERE.clone_into(&mut other.at));
        }
        all.insert(id, Mark { at, known_as: source.to_owned(), as_one, ..mark });
    })
}
