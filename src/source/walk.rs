//! A walk over the data directory: what is there, by stat alone.
//!
//! The result is a flat list in which a directory comes before what is in it, entries in the order of their names. No
//! file is opened. Symbolic links are entries, never followed. What vanishes under the walk was deleted by the
//! application, and is no error, or was moved, and is found by [`super::moved`]; what cannot be read is one, and so are
//! sockets, pipes and devices, which no snapshot can hold.
//!
//! All cores look, each at a folder, or at a batch of the names in one: a folder of thousands of files is spread too.
//! Who looks has the folder open and asks for each name relative to that, which spares the kernel the way there. Only
//! folders are opened, and nobody waits who has one open: there are never more open than there are threads.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Sender, unbounded};
use rayon::Scope;
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use super::clock::{COARSE_TICK, Clock, TICK};
use super::exclude::Exclusions;
use super::top::Top;
use crate::error::SourceError;

/// The deepest directory that is captured.
pub const DEEPEST: usize = 256;
/// Bytes of the longest path that the system takes, the one that ends it included.
const LONGEST: usize = 4096;
/// So many of them are kept for where an entry goes beside its place: into a backup, a drill, the folder from which a
/// restore puts it in place.
const BESIDE: usize = 256;
/// So many names are looked at by one thread at a time.
const BATCH: usize = 128;

/// What `stat` says of an entry, as far as it tells whether it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
    /// The size in bytes.
    pub size: u64,
    /// Last modification, in nanoseconds since 1970.
    pub mtime: i128,
    /// Last change of the inode, in nanoseconds since 1970.
    pub ctime: i128,
}

impl Stamp {
    /// Nanoseconds within which another change may have left it as it is.
    pub fn tick(&self) -> i128 {
        let whole = |nanos: i128| nanos.rem_euclid(1_000_000_000) == 0;
        if whole(self.mtime) && whole(self.ctime) { COARSE_TICK } else { TICK }
    }

    /// Until when, in nanoseconds since 1970, another change may have left it as it is.
    pub fn hides_until(&self) -> i128 {
        self.mtime.max(self.ctime) + self.tick()
    }
}

/// The device and the inode, which a file keeps when it is moved.
pub type Identity = (u64, u64);

/// The identity in `stamp`.
pub fn identity(stamp: &Stamp) -> Identity {
    (stamp.device, stamp.inode)
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

/// One entry of the walk.
#[derive(Debug, Clone)]
pub struct Found {
    /// Path relative to the data directory; empty for the directory itself.
    pub path: PathBuf,
    /// The place of its directory in the list.
    pub parent: usize,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// How to tell whether it changed.
    pub stamp: Stamp,
}

impl Found {
    /// What `meta` says of the entry at `path`, whose directory has the place `parent`.
    pub fn new(path: PathBuf, parent: usize, kind: Kind, meta: &Metadata) -> Self {
        Found { path, parent, kind, mode: meta.mode() & 0o7777, owner: (meta.uid(), meta.gid()), stamp: stamp(meta) }
    }

    /// What a walk saw; its place is not known yet.
    fn seen(path: PathBuf, kind: Kind, stat: &Stat) -> Self {
        let Standing { mode, owner, stamp } = Standing::of(stat);
        Found { path, parent: 0, kind, mode, owner, stamp }
    }

    /// Is what stands there now.
    pub fn become_now(&mut self, now: Standing) {
        let Standing { mode, owner, stamp } = now;
        *self = Found { path: std::mem::take(&mut self.path), mode, owner, stamp, ..*self };
    }

    /// The modification time as seconds and nanoseconds.
    pub fn mtime(&self) -> (i64, u32) {
        let second = 1_000_000_000;
        (self.stamp.mtime.div_euclid(second) as i64, self.stamp.mtime.rem_euclid(second) as u32)
    }
}

/// What stands at the place of a file.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    mode: u32,
    owner: (u32, u32),
    /// How to tell whether it changed.
    pub stamp: Stamp,
}

impl Standing {
    #[allow(clippy::unnecessary_cast, reason = "the field has another width on other systems")]
    fn of(stat: &Stat) -> Standing {
        Standing { mode: stat.st_mode as u32 & 0o7777, owner: (stat.st_uid, stat.st_gid), stamp: stamp_of(stat) }
    }
}

/// The stamp in `meta`.
pub fn stamp(meta: &Metadata) -> Stamp {
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.len(),
        mtime: nanos(meta.mtime(), meta.mtime_nsec()),
        ctime: nanos(meta.ctime(), meta.ctime_nsec()),
    }
}

/// The stamp in `stat`, the same as the one in the [`Metadata`].
#[allow(clippy::unnecessary_cast, reason = "the fields have other widths on other systems")]
pub fn stamp_of(stat: &Stat) -> Stamp {
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Stamp {
        device: stat.st_dev as u64,
        inode: stat.st_ino as u64,
        size: stat.st_size as u64,
        mtime: nanos(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        ctime: nanos(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
    }
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Walk {
    /// The entries; the first is the data directory itself.
    pub found: Vec<Found>,
    /// Entries that cannot be captured.
    pub errors: Vec<SourceError>,
    /// When it began, by the clock of the files: no folder was listed earlier.
    pub began: i128,
    /// Places of folders in which something was listed and was not there a moment later. If it was the folder that
    /// moved, its own stamp does not tell.
    pub vanished: Vec<usize>,
    /// Entries that were left out, and why.
    pub excluded: Vec<(PathBuf, String)>,
    /// By place: folders at which another one stood when they were listed again.
    pub others: HashMap<usize, Identity>,
}

impl Walk {
    /// The folder in which `found` was seen.
    pub fn folder_of(&self, found: &Found) -> Identity {
        let other = self.others.get(&found.parent).copied();
        other.unwrap_or_else(|| identity(&self.found[found.parent].stamp))
    }

    /// What stands now at each of these places at which the walk saw a file, if it is one, and in the folder that was
    /// seen; on all cores.
    pub fn standing(&self, root: &Top, places: &[usize]) -> Vec<(usize, Standing)> {
        let folders = places.chunk_by(|a, b| self.found[*a].parent == self.found[*b].parent);
        let batches: Vec<&[usize]> = folders.flat_map(|folder| folder.chunks(BATCH)).collect();
        let all = batches.into_par_iter().with_min_len(1).flat_map_iter(|batch| {
            let found = &self.found[batch[0]];
            let folder = open_folder(root, &self.found[found.parent].path, self.folder_of(found)).ok();
            batch.iter().filter_map(move |at| {
                let name = self.found[*at].path.file_name()?;
                let stat = statat(folder.as_ref()?, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
                let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
                is_file.then(|| (*at, Standing::of(&stat)))
            })
        });
        all.collect()
    }
}

/// Whether the folder in which `path` lies is `folder`, by whatever way that leads there now. If it is not, what stands
/// at the path is not what was seen: a folder above was exchanged for another, or for a link that leads elsewhere.
pub fn lies_in(path: &Path, folder: Identity) -> bool {
    let above = path.parent().and_then(|above| std::fs::metadata(above).ok());
    above.is_some_and(|above| identity(&stamp(&above)) == folder)
}

/// Walks `root`. Fails only when the directory itself cannot be read.
pub fn walk(root: &Top, exclusions: &Exclusions, clock: &Clock) -> std::io::Result<Walk> {
    let began = clock.now();
    let meta = std::fs::metadata(root.through())?;
    if !meta.is_dir() {
        return Err(std::io::Error::from(ErrorKind::NotADirectory));
    }
    let mut walk = Walk { began, ..Walk::default() };
    walk.found.push(Found::new(PathBuf::new(), 0, Kind::Directory, &meta));
    Below::of(root, PathBuf::new(), identity(&walk.found[0].stamp), exclusions)?.add_to(&mut walk, 0);
    walk.found.iter().for_each(|found| clock.see(found.stamp.ctime));
    Ok(walk)
}

/// What was seen of one name in a folder.
enum Seen {
    /// A file or a link, without its place.
    Entry(Found),
    /// A folder, and its number among the folders that were seen.
    Folder(Found, usize),
    LeftOut(PathBuf, String),
    Refused(PathBuf, Errno),
    /// There is no way that a snapshot could hold it.
    Unfit(SourceError),
}

/// What was seen below a folder.
pub(super) struct Below(Vec<Inside>);

/// What was seen of a batch of the names in a folder, and the how manieth it is.
type Batch = (usize, Vec<Seen>);

/// What was seen in one folder; or why it could not be listed.
type Inside = Result<Vec<Batch>, Errno>;

impl Below {
    /// Of the folder `path` in `root`, which is `who`. Fails only when that cannot be listed.
    pub(super) fn of(root: &Top, path: PathBuf, who: Identity, exclusions: &Exclusions) -> std::io::Result<Below> {
        let (told, heard) = unbounded();
        let looking = Looking { root, exclusions, folders: AtomicUsize::new(1), told };
        let depth = path.components().count();
        rayon::scope(|scope| looking.list(scope, Folder { number: 0, path, who, depth }));
        let count = looking.folders.into_inner();
        drop(looking.told);
        let mut all: Vec<Inside> = Vec::new();
        all.resize_with(count, || Ok(Vec::new()));
        for (number, told) in heard {
            match (&mut all[number], told) {
                (Ok(batches), Ok(batch)) => batches.push(batch),
                (inside, Err(error)) => *inside = Err(error),
                (Err(_), Ok(_)) => {}
            }
        }
        if let Err(error) = all[0] {
            return Err(error.into());
        }
        Ok(Below(all))
    }

    /// Adds what was seen to `walk`, in which the folder stands at the place `parent`.
    pub(super) fn add_to(mut self, walk: &mut Walk, parent: usize) {
        let batches = self.0.iter().filter_map(|inside| inside.as_ref().ok()).flatten();
        walk.found.reserve(batches.map(|(_, seen)| seen.len()).sum());
        self.put_in_order(walk, 0, parent);
    }

    /// Adds what was seen in the folder with this `number`, each folder with what is in it.
    fn put_in_order(&mut self, walk: &mut Walk, number: usize, parent: usize) {
        let Ok(batches) = &mut self.0[number] else { return };
        let mut batches = std::mem::take(batches);
        batches.sort_unstable_by_key(|(at, _)| *at);
        for seen in batches.into_iter().flat_map(|(_, seen)| seen) {
            match seen {
                Seen::Entry(found) => walk.found.push(Found { parent, ..found }),
                Seen::Folder(found, number) => {
                    if let Err(error) = self.0[number] {
                        refuse(walk, parent, found.path, error);
                        continue;
                    }
                    let place = walk.found.len();
                    walk.found.push(Found { parent, ..found });
                    self.put_in_order(walk, number, place);
                }
                Seen::LeftOut(path, reason) => walk.excluded.push((path, reason)),
                Seen::Refused(path, error) => refuse(walk, parent, path, error),
                Seen::Unfit(error) => walk.errors.push(error),
            }
        }
    }
}

fn refuse(walk: &mut Walk, parent: usize, path: PathBuf, error: Errno) {
    if error == Errno::NOENT {
        walk.vanished.push(parent);
    } else {
        walk.errors.push(SourceError::new(path, std::io::Error::from(error)));
    }
}

/// A folder that is to be looked into.
struct Folder {
    number: usize,
    path: PathBuf,
    who: Identity,
    /// How many levels it lies down.
    depth: usize,
}

/// All cores, looking.
struct Looking<'a> {
    root: &'a Top,
    exclusions: &'a Exclusions,
    /// How many have a number.
    folders: AtomicUsize,
    /// Of the folder with this number a batch of names; or why there are none.
    told: Sender<(usize, Result<Batch, Errno>)>,
}

impl Looking<'_> {
    /// Lists `folder`, and looks at what is in it, or lets others do so if that is much.
    fn list<'s>(&'s self, scope: &Scope<'s>, folder: Folder) {
        let listed = open_folder(self.root, &folder.path, folder.who)
            .and_then(Dir::new)
            .and_then(|mut dir| Ok((names_in(&mut dir)?, dir)));
        let (names, dir) = match listed {
            Ok(listed) => listed,
            Err(error) => return self.tell(folder.number, Err(error)),
        };
        if names.len() <= BATCH {
            return self.tell(folder.number, Ok((0, self.look(scope, dir.fd(), &folder, &names))));
        }
        drop(dir);
        let (folder, names) = (Arc::new(folder), Arc::new(names));
        for (number, start) in (0..names.len()).step_by(BATCH).enumerate() {
            let (folder, names) = (folder.clone(), names.clone());
            scope.spawn(move |scope| {
                let dir = open_folder(self.root, &folder.path, folder.who);
                let names = &names[start..names.len().min(start + BATCH)];
                let seen = self.look(scope, dir.as_ref().map(OwnedFd::as_fd).map_err(|error| *error), &folder, names);
                self.tell(folder.number, Ok((number, seen)));
            });
        }
    }

    fn tell(&self, number: usize, told: Result<Batch, Errno>) {
        // Who listens waits until all have told.
        let _ = self.told.send((number, told));
    }

    /// Looks at `names` in `folder`, which is open as `dir`.
    fn look<'s>(
        &'s self,
        scope: &Scope<'s>,
        dir: Result<BorrowedFd<'_>, Errno>,
        folder: &Folder,
        names: &[(OsString, u64)],
    ) -> Vec<Seen> {
        let one = |(name, _): &(OsString, u64)| {
            let mut path = PathBuf::with_capacity(folder.path.as_os_str().len() + 1 + name.len());
            path.extend([folder.path.as_os_str(), name]);
            if let Some(reason) = self.exclusions.reason(&path, self.root.path()) {
                return Seen::LeftOut(path, reason);
            }
            if let Some(error) = too_long(self.root.path(), &path) {
                return Seen::Unfit(error);
            }
            let stat = match dir.and_then(|dir| statat(dir, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW)) {
                Ok(stat) => stat,
                Err(error) => return Seen::Refused(path, error),
            };
            let what = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => return Seen::Entry(Found::seen(path, Kind::File, &stat)),
                FileType::Symlink => return Seen::Entry(Found::seen(path, Kind::Symlink, &stat)),
                FileType::Directory => return self.folder(scope, path, folder.depth + 1, &stat),
                FileType::Socket => "a socket",
                FileType::Fifo => "a named pipe",
                _ => "a device",
            };
            Seen::Unfit(SourceError::new(path, format!("{what} has no content that a snapshot could hold")))
        };
        names.iter().map(one).collect()
    }

    /// A folder that was seen at `path`, `depth` levels down. Somebody will look into it.
    fn folder<'s>(&'s self, scope: &Scope<'s>, path: PathBuf, depth: usize, stat: &Stat) -> Seen {
        if depth >= DEEPEST {
            return Seen::Unfit(too_deep(path));
        }
        let number = self.folders.fetch_add(1, Ordering::Relaxed);
        let found = Found::seen(path.clone(), Kind::Directory, stat);
        let folder = Folder { number, path, who: identity(&found.stamp), depth };
        scope.spawn(move |scope| self.list(scope, folder));
        Seen::Folder(found, number)
    }
}

/// What is to be said of a folder that lies too deep.
pub(super) fn too_deep(path: PathBuf) -> SourceError {
    SourceError::new(path, format!("directories are nested deeper than {DEEPEST}"))
}

/// What is to be said of an entry at `path` in `root` if its path is so long that it could only ever be restored where
/// it is: no backup could be made of it, and no restore in place, of it and of all else.
pub(super) fn too_long(root: &Path, path: &Path) -> Option<SourceError> {
    let (most, long) = (LONGEST - BESIDE, root.as_os_str().len() + 1 + path.as_os_str().len());
    let reason = || {
        format!(
            "its path has {long} bytes, and one of more than {most} cannot be restored beside it: shorten a name in it"
        )
    };
    (long > most).then(|| SourceError::new(path.to_path_buf(), reason()))
}

/// Opens the folder `path` in `root` if it is `who`. If it, or one above it, was exchanged for another, the one that
/// was seen is not there.
pub(super) fn open_folder(root: &Top, path: &Path, who: Identity) -> Result<OwnedFd, Errno> {
    // The data directory itself may be named by a link. What became one meanwhile is not the folder that was seen.
    let link = if path.as_os_str().is_empty() { OFlags::empty() } else { OFlags::NOFOLLOW };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | link;
    let folder = openat(CWD, root.through().join(path), flags, Mode::empty()).map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR => Errno::NOENT,
        other => other,
    })?;
    if identity(&stamp_of(&fstat(&folder)?)) == who { Ok(folder) } else { Err(Errno::NOENT) }
}

/// The names in a folder, in their order, and the inodes that it says they have.
pub(super) fn names_in(dir: &mut Dir) -> Result<Vec<(OsString, u64)>, Errno> {
    let mut names = Vec::new();
    for entry in dir {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push((OsString::from_vec(name.to_vec()), entry.ino()));
        }
    }
    names.sort_unstable();
    // What is deleted and made again while a folder is listed may be listed twice. A path has one place.
    names.dedup_by(|(second, _), (first, _)| first == second);
    Ok(names)
}
