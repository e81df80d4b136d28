//! What was moved while the directory was walked and read, so that the walk missed it.
//!
//! A file that goes from a folder that is yet to be listed into one that was listed is in neither list. But moving
//! changes both folders, and their times. So, when everything was read, every folder's stamp is looked at again, and a
//! folder that changed since it was listed is listed again ([`Again::look`]). An entry that nobody captured was moved
//! there, missed, or made since; it is handed out to be captured at once. A folder is looked into, and looked at again
//! from then on: older files may have gone there.
//!
//! What was made since counts as well: it may have taken the place of something older. A database is compacted into a
//! new file, a folder exchanged for another, a document saved under a new name and the old one removed: at each moment
//! one of the two was there, and the snapshot that passes over the new one has neither. So an inode's number is not
//! enough to know a new file by: a deleted one's goes to the next that is made ([`Known::has_as`]).
//!
//! A folder above may go and come, or be exchanged for another with the same names, and nothing below shows it. So a
//! folder is only listed if what is opened is the one that was seen ([`open_folder`]); if not, the one above it is
//! listed again. And a file that was gone when its turn came, or for which another one was read, is looked for by name
//! as well: if it is back, it is captured.
//!
//! When no folder changed since it was listed, nothing can have escaped: a file that is in none of the lists would have
//! had to come into its folder later. Where folders change all the while, looks are bounded, and what remains
//! is a file that at each look was moved from a folder not yet listed again into one that was, within the time of
//! that one look.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, Dir, FileType, StatxFlags, StatxTimestamp, makedev, statx};
use rustix::io::Errno;

use super::clock::{Clock, now_nanos};
use super::exclude::Exclusions;
use super::top::Top;
use super::walk::{
    DEEPEST, Found, Identity, Kind, Stamp, Walk, identity, names_in, open_folder, stamp, too_deep, too_long,
};
use crate::error::SourceError;

/// How often one look lists folders again for what turns out to be displaced as it does.
const PASSES: usize = 4;

/// What one look found.
#[derive(Debug, Default)]
pub struct Look {
    /// Places in the walk that are to be captured: new ones, and ones at which another file stands now. Each with when
    /// it was born, in nanoseconds since 1970, where that is known.
    pub seen: Vec<(usize, Option<i128>)>,
    /// Folders that were moved, and could not be listed where they were seen.
    pub lost: Vec<PathBuf>,
    /// Files that were captured where another one stands now, which will be captured there: they are not any more.
    pub displaced: HashSet<Identity>,
    /// No folder changed since it was listed last: nothing can have been missed.
    pub calm: bool,
}

/// Files that were captured, or left out for a reason, and the stamps that they had then.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Known {
    stamps: HashMap<Identity, Stamp>,
    /// Files whose own stamp does not say whether they changed: databases, whose logs count too.
    restless: HashSet<Identity>,
}

impl Known {
    /// Makes room for so many more.
    pub fn reserve(&mut self, more: usize) {
        self.stamps.reserve(more);
    }

    /// Adds the file that had this stamp.
    pub fn add(&mut self, stamp: &Stamp) {
        self.stamps.insert(identity(stamp), *stamp);
    }

    /// What is said of the file with this identity is not for its own stamp to say.
    pub fn add_restless(&mut self, who: Identity) {
        self.restless.insert(who);
    }

    /// The file with this identity is to be captured again.
    pub fn forget(&mut self, who: Identity) {
        self.stamps.remove(&who);
    }

    /// Whether the file with this identity is one of them. It may have become another since: a file system gives the
    /// number of a deleted file to the next one that is made.
    pub fn has(&self, who: Identity) -> bool {
        self.stamps.contains_key(&who)
    }

    /// Whether it is one of them, and nothing of it changed since. Size and time of modification would not do: who
    /// copies files with their times gives another file the same.
    pub fn has_as(&self, stamp: &Stamp) -> bool {
        self.stamps.get(&identity(stamp)) == Some(stamp)
    }

    /// Whether what was captured is what it holds now, though it was moved, which changes the third of its times.
    fn has_content_of(&self, stamp: &Stamp) -> bool {
        let who = identity(stamp);
        let is_same = |was: &Stamp| (was.size, was.mtime) == (stamp.size, stamp.mtime);
        !self.restless.contains(&who) && self.stamps.get(&who).is_some_and(is_same)
    }
}

/// A folder that changed since it was listed, or may have.
#[derive(Debug)]
pub struct Changed {
    /// Its place in the walk.
    pub at: usize,
    /// Its stamp now.
    now: Stamp,
}

/// The looks of one snapshot.
pub struct Again<'a> {
    root: &'a Top,
    exclusions: &'a Exclusions,
    clock: &'a Clock,
    /// When the snapshot began, by the clock.
    began: i128,
    /// Stamps that folders had before they were listed again, and when that was.
    listed: HashMap<usize, (Stamp, i128)>,
    /// Places in the walk, by path; filled when the first folder is listed again.
    places: HashMap<PathBuf, usize>,
}

/// What is seen of an entry that is looked at again.
struct Now {
    /// What a snapshot can hold.
    kind: Option<Kind>,
    mode: u32,
    owner: (u32, u32),
    links: u32,
    stamp: Stamp,
    /// When it was born, in nanoseconds since 1970.
    born: Option<i128>,
}

impl Now {
    /// The entry `name` of the folder that is open as `folder`.
    fn of(folder: impl AsFd, name: &OsStr) -> Result<Now, Errno> {
        let stat = statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
        let nanos = |time: StatxTimestamp| i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::RegularFile => Some(Kind::File),
            FileType::Symlink => Some(Kind::Symlink),
            FileType::Directory => Some(Kind::Directory),
            _ => None,
        };
        Ok(Now {
            kind,
            mode: u32::from(stat.stx_mode) & 0o7777,
            owner: (stat.stx_uid, stat.stx_gid),
            links: stat.stx_nlink,
            stamp: Stamp {
                device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
                inode: stat.stx_ino,
                size: stat.stx_size,
                mtime: nanos(stat.stx_mtime),
                ctime: nanos(stat.stx_ctime),
            },
            born: (stat.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| nanos(stat.stx_btime)),
        })
    }

    fn found(&self, path: PathBuf, parent: usize, kind: Kind) -> Found {
        Found { path, parent, kind, mode: self.mode, owner: self.owner, stamp: self.stamp }
    }
}

impl<'a> Again<'a> {
    /// Looks at `root`, of a snapshot that began at `began` by the `clock` of the files.
    pub fn new(root: &'a Top, exclusions: &'a Exclusions, clock: &'a Clock, began: i128) -> Again<'a> {
        Again { root, exclusions, clock, began, listed: HashMap::new(), places: HashMap::new() }
    }

    /// Lists again the folders that `changed`. Adds what was missed to `walk`; `settled` says what was captured, or
    /// left out for a reason, and `gone` which places in the walk were empty when their turn came.
    pub fn look(&mut self, walk: &mut Walk, changed: &[Changed], settled: &Known, gone: &[usize]) -> Look {
        let mut look = Look::default();
        for &at in gone {
            let Ok(meta) = std::fs::symlink_metadata(self.root.through().join(&walk.found[at].path)) else { continue };
            if identity(&stamp(&meta)) == identity(&walk.found[at].stamp) {
                look.seen.push((at, meta.created().ok().map(nanos)));
            }
        }
        look.calm = changed.is_empty() && look.seen.is_empty();
        if changed.is_empty() {
            return look;
        }
        for at in self.places.len()..walk.found.len() {
            self.places.insert(walk.found[at].path.clone(), at);
        }
        let refused: HashSet<PathBuf> = walk.errors.iter().map(|error| error.path.clone()).collect();
        for Changed { at: folder, now } in changed {
            self.listed.insert(*folder, (*now, self.clock.now()));
            self.list(walk, *folder, identity(now), settled, (&refused, &mut look));
        }
        // They may stand in a folder that was listed before that was known, in this look or in one before it.
        let mut sought = 0;
        for _ in 0..PASSES {
            if look.displaced.len() == sought {
                break;
            }
            sought = look.displaced.len();
            let refused: HashSet<PathBuf> = walk.errors.iter().map(|error| error.path.clone()).collect();
            let mut listed: Vec<(usize, Identity)> =
                self.listed.iter().map(|(at, (seen, _))| (*at, identity(seen))).collect();
            listed.sort_unstable_by_key(|(at, _)| *at);
            for (folder, who) in listed {
                self.list(walk, folder, who, settled, (&refused, &mut look));
            }
        }
        look.seen.sort_unstable();
        look.seen.dedup_by_key(|(at, _)| *at);
        look
    }

    /// The folders that changed since they were listed, or may have.
    pub fn changed(&mut self, walk: &mut Walk) -> Vec<Changed> {
        let vanished: HashSet<usize> = std::mem::take(&mut walk.vanished).into_iter().collect();
        let still_gone = &mut walk.vanished;
        let folders = walk.found.iter().enumerate().filter(|(_, found)| found.kind == Kind::Directory);
        // Each is in the list before what is in it.
        let mut real: HashSet<usize> = HashSet::new();
        let looked = folders.filter_map(|(at, found)| {
            let path = self.root.through().join(&found.path);
            // The data directory itself may be named by a link. What is gone was deleted, or moved into a folder that
            // changed by that.
            let meta = if at == 0 { std::fs::metadata(path) } else { std::fs::symlink_metadata(path) };
            // Below what became a link nothing is the data directory's.
            let is_in_real = at == 0 || real.contains(&found.parent);
            let Some(meta) = meta.ok().filter(|meta| meta.is_dir() && is_in_real) else {
                still_gone.extend(vanished.get(&at));
                return None;
            };
            real.insert(at);
            let now = stamp(&meta);
            self.clock.see(now.ctime);
            let (seen, when) = self.listed.get(&at).copied().unwrap_or((found.stamp, walk.began));
            // A change in the same tick as the one before it leaves the stamp as it was.
            let may_hide = now.hides_until() > self.clock.least_after(when);
            let is_due = now != seen || may_hide || vanished.contains(&at);
            is_due.then_some(Changed { at, now })
        });
        looked.collect()
    }

    /// Adds what nobody captured of what is in a folder, which is `who`. Answers with whether it could be listed.
    fn list(
        &mut self,
        walk: &mut Walk,
        folder: usize,
        who: Identity,
        settled: &Known,
        (refused, look): (&HashSet<PathBuf>, &mut Look),
    ) -> bool {
        let opened = open_folder(self.root, &walk.found[folder].path, who).and_then(Dir::new);
        let (dir, names) = match opened.and_then(|mut dir| names_in(&mut dir).map(|names| (dir, names))) {
            Ok(listed) => listed,
            Err(error) => {
                refuse(walk, folder, error, refused);
                return false;
            }
        };
        if identity(&walk.found[folder].stamp) == who {
            walk.others.remove(&folder);
        } else {
            walk.others.insert(folder, who);
        }
        let began = self.clock.least_after(self.began);
        for (name, inode) in names {
            let path = walk.found[folder].path.join(&name);
            let known = self.places.get(&path).copied();
            let is_settled = |at: usize| {
                let stamp = &walk.found[at].stamp;
                stamp.inode == inode && settled.has_as(stamp) && is_known(settled, look, stamp)
            };
            if known.is_some_and(is_settled) {
                continue;
            }
            if refused.contains(&path) || self.exclusions.reason(&path, self.root.path()).is_some() {
                continue;
            }
            if let Some(error) = too_long(self.root.path(), &path) {
                walk.errors.push(error);
                continue;
            }
            // What is gone again was deleted, or is seen in the next look.
            let Ok(now) = dir.fd().and_then(|dir| Now::of(dir, &name)) else {
                walk.vanished.push(folder);
                continue;
            };
            // One of several names can be new while its file is old.
            let is_captured = is_known(settled, look, &now.stamp) && (known.is_some() || now.links == 1);
            let may_be_another = now.born.is_none_or(|born| born + now.stamp.tick() >= began);
            let is_captured = is_captured && (!may_be_another || settled.has_as(&now.stamp));
            // What grew before it was moved, nobody asks for at its old place.
            let is_moved = known.is_none_or(|at| identity(&walk.found[at].stamp) != identity(&now.stamp));
            let is_captured = is_captured && (!is_moved || settled.has_content_of(&now.stamp));
            let born = now.born;
            if is_captured {
                continue;
            }
            match (now.kind, known) {
                (None, _) => {}
                (Some(Kind::Directory), None) => {
                    self.add_folder(walk, (path, folder), &now, settled, (refused, &mut *look));
                }
                // Its own stamp tells whether it has to be listed again.
                (Some(Kind::Directory), Some(at)) if walk.found[at].kind == Kind::Directory => {}
                (Some(kind), Some(at)) if (kind == Kind::Directory) != (walk.found[at].kind == Kind::Directory) => {
                    walk.errors.push(SourceError::new(path, "it became something else while the snapshot was taken"));
                }
                (Some(kind), Some(at)) => {
                    let was = identity(&walk.found[at].stamp);
                    if was != identity(&now.stamp) {
                        look.displaced.insert(was);
                    }
                    walk.found[at] = now.found(path, folder, kind);
                    look.seen.push((at, born));
                }
                (Some(kind), None) => {
                    let at = walk.found.len();
                    self.places.insert(path.clone(), at);
                    walk.found.push(now.found(path, folder, kind));
                    look.seen.push((at, born));
                }
            }
        }
        true
    }

    /// A folder that came here, whether it was moved or made: what is in it that nobody captured is looked for. From
    /// now on it is looked at again like those of the walk, since more may come into it.
    fn add_folder(
        &mut self,
        walk: &mut Walk,
        (path, parent): (PathBuf, usize),
        now: &Now,
        settled: &Known,
        (refused, look): (&HashSet<PathBuf>, &mut Look),
    ) {
        if path.components().count() >= DEEPEST {
            return walk.errors.push(too_deep(path));
        }
        let at = walk.found.len();
        self.places.insert(path.clone(), at);
        walk.found.push(now.found(path.clone(), parent, Kind::Directory));
        self.listed.insert(at, (now.stamp, self.clock.now()));
        // One that is new and gone again was somebody's scratch.
        if !self.list(walk, at, identity(&now.stamp), settled, (refused, look)) && !self.is_new(now) {
            look.lost.push(path);
        }
    }

    /// Whether it was made after the snapshot began. What says that it was born later than now has it from a clock that
    /// was wrong.
    fn is_new(&self, now: &Now) -> bool {
        now.born.is_some_and(|born| (self.began..=now_nanos()).contains(&born))
    }
}

fn is_known(settled: &Known, look: &Look, stamp: &Stamp) -> bool {
    let who = identity(stamp);
    settled.has(who) && !look.displaced.contains(&who)
}

fn refuse(walk: &mut Walk, folder: usize, error: Errno, refused: &HashSet<PathBuf>) {
    let path = walk.found[folder].path.clone();
    if error == Errno::NOENT {
        walk.vanished.push(folder);
    } else if !refused.contains(&path) {
        let error = std::io::Error::from(error);
        walk.errors.push(SourceError::new(path, format!("it changed, and cannot be listed again: {error}")));
    }
}

fn nanos(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}
