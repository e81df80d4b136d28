//! A walk over the data directory: what is there, by stat alone.
//!
//! The result is a flat list in which a directory comes before what is in it, entries in the order of their names. No
//! file is opened. Symbolic links are entries, never followed. What vanishes under the walk was deleted by the
//! application, and is no error, or was moved, and is found by [`super::moved`]; what cannot be read is one, and so are
//! sockets, pipes and devices, which no snapshot can hold.
//!
//! All cores look, one level of folders after the other, in batches of names: a folder of thousands of files is spread
//! too. A batch opens its folder and asks for each name relative to that, which spares the kernel the way there. Only
//! folders are opened, and no batch waits while it has one open: there are never more open than there are threads.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, openat, statat};

use super::exclude::Exclusions;
use crate::error::SourceError;

/// The deepest directory that is captured.
pub const DEEPEST: usize = 256;
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
    #[allow(clippy::unnecessary_cast, reason = "the field has another width on other systems")]
    fn seen(path: PathBuf, kind: Kind, stat: &Stat) -> Self {
        let mode = stat.st_mode as u32 & 0o7777;
        Found { path, parent: 0, kind, mode, owner: (stat.st_uid, stat.st_gid), stamp: stamp_of(stat) }
    }

    /// The modification time as seconds and nanoseconds.
    pub fn mtime(&self) -> (i64, u32) {
        let second = 1_000_000_000;
        (self.stamp.mtime.div_euclid(second) as i64, self.stamp.mtime.rem_euclid(second) as u32)
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
    /// When it began, in nanoseconds since 1970: no folder was listed earlier.
    pub began: i128,
    /// Places of folders in which something was listed and was not there a moment later. If it was the folder that
    /// moved, its own stamp does not tell.
    pub vanished: Vec<usize>,
    /// Entries that were left out, and why.
    pub excluded: Vec<(PathBuf, String)>,
}

/// Walks `root`. Fails only when the directory itself cannot be read.
pub fn walk(root: &Path, exclusions: &Exclusions) -> std::io::Result<Walk> {
    let began = now_nanos();
    let meta = std::fs::metadata(root)?;
    if !meta.is_dir() {
        return Err(std::io::Error::from(ErrorKind::NotADirectory));
    }
    let mut walk = Walk { began, ..Walk::default() };
    walk.found.push(Found::new(PathBuf::new(), 0, Kind::Directory, &meta));
    let names = names_in(root)?;
    descend(&mut walk, root, 0, names, 1, exclusions);
    Ok(walk)
}

pub(super) fn names_in(folder: &Path) -> std::io::Result<Vec<OsString>> {
    let mut names = std::fs::read_dir(folder)?.map(|e| Ok(e?.file_name())).collect::<std::io::Result<Vec<_>>>()?;
    names.sort_unstable();
    // What is deleted and made again while a folder is listed may be listed twice. A path has one place.
    names.dedup();
    Ok(names)
}

/// Nanoseconds since 1970.
pub(super) fn now_nanos() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128)
}

/// What an entry is, if a snapshot can hold it.
pub(super) fn kind_of(meta: &Metadata) -> Option<Kind> {
    match meta.file_type() {
        kind if kind.is_file() => Some(Kind::File),
        kind if kind.is_symlink() => Some(Kind::Symlink),
        kind if kind.is_dir() => Some(Kind::Directory),
        _ => None,
    }
}

/// What was seen of one name in a folder.
enum Seen {
    /// A file or a link, without its place.
    Entry(Found),
    /// A folder, the names in it, and where among the folders these are looked at.
    Folder(Found, Vec<OsString>, usize),
    LeftOut(PathBuf, String),
    Refused(PathBuf, std::io::Error),
    /// There is no way that a snapshot could hold it.
    Unfit(SourceError),
}

/// A folder that is walked: its names, and then what was seen of them.
struct Folder {
    path: PathBuf,
    names: Vec<OsString>,
    /// By batches.
    seen: Vec<Vec<Seen>>,
}

/// Walks the folder at the place `parent`, which has `names` in it and lies `depth` levels down.
pub(super) fn descend(
    walk: &mut Walk,
    root: &Path,
    parent: usize,
    names: Vec<OsString>,
    mut depth: usize,
    exclusions: &Exclusions,
) {
    let mut folders = vec![Folder { path: walk.found[parent].path.clone(), names, seen: Vec::new() }];
    let mut level = 0..1;
    while !level.is_empty() {
        let look = |(at, names): (usize, &[OsString])| (at, look(root, &folders[at].path, names, depth, exclusions));
        let batches = level.clone().flat_map(|at| folders[at].names.chunks(BATCH).map(move |names| (at, names)));
        let batches: Vec<_> = batches.collect();
        let seen: Vec<(usize, Vec<Seen>)> = match batches.len() {
            0..2 => batches.into_iter().map(look).collect(),
            _ => batches.into_par_iter().with_max_len(1).map(look).collect(),
        };
        let end = folders.len();
        for (at, mut seen) in seen {
            for one in &mut seen {
                if let Seen::Folder(found, names, place) = one {
                    *place = folders.len();
                    let (path, names) = (found.path.clone(), std::mem::take(names));
                    folders.push(Folder { path, names, seen: Vec::new() });
                }
            }
            folders[at].seen.push(seen);
        }
        level = end..folders.len();
        depth += 1;
    }
    walk.found.reserve(folders.iter().flat_map(|folder| &folder.seen).map(Vec::len).sum());
    put_in_order(walk, &mut folders, 0, parent);
}

/// Looks at `names` in the folder `path`.
fn look(root: &Path, path: &Path, names: &[OsString], depth: usize, exclusions: &Exclusions) -> Vec<Seen> {
    // The data directory itself may be named by a link. What became one meanwhile is not the folder that was listed.
    let link = if path.as_os_str().is_empty() { OFlags::empty() } else { OFlags::NOFOLLOW };
    let absolute = root.join(path);
    let folder = openat(CWD, &absolute, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | link, Mode::empty());
    let folder = folder.map_err(|error| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => rustix::io::Errno::NOENT,
        other => other,
    });
    let one = |name: &OsString| {
        let path = path.join(name);
        if let Some(reason) = exclusions.reason(&path, root) {
            return Seen::LeftOut(path, reason);
        }
        let stat = folder
            .as_ref()
            .map_err(|error| *error)
            .and_then(|folder| statat(folder, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW));
        let stat = match stat {
            Ok(stat) => stat,
            Err(error) => return Seen::Refused(path, error.into()),
        };
        let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::RegularFile => Kind::File,
            rustix::fs::FileType::Symlink => Kind::Symlink,
            rustix::fs::FileType::Directory if depth >= DEEPEST => {
                return Seen::Unfit(SourceError::new(path, format!("directories are nested deeper than {DEEPEST}")));
            }
            rustix::fs::FileType::Directory => {
                return match names_in(&absolute.join(name)) {
                    Ok(names) => Seen::Folder(Found::seen(path, Kind::Directory, &stat), names, 0),
                    Err(error) => Seen::Refused(path, error),
                };
            }
            other => {
                let what = match other {
                    rustix::fs::FileType::Socket => "a socket",
                    rustix::fs::FileType::Fifo => "a named pipe",
                    _ => "a device",
                };
                let reason = format!("{what} has no content that a snapshot could hold");
                return Seen::Unfit(SourceError::new(path, reason));
            }
        };
        Seen::Entry(Found::seen(path, kind, &stat))
    };
    names.iter().map(one).collect()
}

/// Adds what was seen in the folder `at`, which stands at the place `parent`, each folder with what is in it.
fn put_in_order(walk: &mut Walk, folders: &mut [Folder], at: usize, parent: usize) {
    for seen in std::mem::take(&mut folders[at].seen).into_iter().flatten() {
        match seen {
            Seen::Entry(found) => walk.found.push(Found { parent, ..found }),
            Seen::Folder(found, _, at) => {
                let place = walk.found.len();
                walk.found.push(Found { parent, ..found });
                put_in_order(walk, folders, at, place);
            }
            Seen::LeftOut(path, reason) => walk.excluded.push((path, reason)),
            Seen::Refused(path, error) => refuse(walk, parent, path, error),
            Seen::Unfit(error) => walk.errors.push(error),
        }
    }
}

fn refuse(walk: &mut Walk, parent: usize, path: PathBuf, error: std::io::Error) {
    if error.kind() == ErrorKind::NotFound {
        walk.vanished.push(parent);
    } else {
        walk.errors.push(SourceError::new(path, error));
    }
}
