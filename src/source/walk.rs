//! A walk over the data directory: what is there, by stat alone.
//!
//! The result is a flat list in which a directory comes before what is in it, entries in the order of their names. No
//! file is opened. Symbolic links are entries, never followed. What vanishes under the walk was deleted by the
//! application, and is no error, or was moved, and is found by [`super::moved`]; what cannot be read is one, and so are
//! sockets, pipes and devices, which no snapshot can hold.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::exclude::Exclusions;
use crate::error::SourceError;

/// The deepest directory that is captured.
pub const DEEPEST: usize = 256;

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
    pub(super) fn new(path: PathBuf, parent: usize, kind: Kind, meta: &Metadata) -> Self {
        Found { path, parent, kind, mode: meta.mode() & 0o7777, owner: (meta.uid(), meta.gid()), stamp: stamp(meta) }
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

/// Walks the folder at the place `parent`, which has `names` in it and lies `depth` levels down.
pub(super) fn descend(
    walk: &mut Walk,
    root: &Path,
    parent: usize,
    names: Vec<OsString>,
    depth: usize,
    exclusions: &Exclusions,
) {
    for name in names {
        let path = walk.found[parent].path.join(name);
        let absolute = root.join(&path);
        if let Some(reason) = exclusions.reason(&path, &absolute) {
            walk.excluded.push((path, reason));
            continue;
        }
        let meta = match std::fs::symlink_metadata(&absolute) {
            Ok(meta) => meta,
            Err(error) => {
                refuse(walk, parent, path, error);
                continue;
            }
        };
        match kind_of(&meta) {
            Some(Kind::Directory) if depth >= DEEPEST => {
                walk.errors.push(SourceError::new(path, format!("directories are nested deeper than {DEEPEST}")));
            }
            Some(Kind::Directory) => match names_in(&absolute) {
                Ok(names) => {
                    let at = walk.found.len();
                    walk.found.push(Found::new(path, parent, Kind::Directory, &meta));
                    descend(walk, root, at, names, depth + 1, exclusions);
                }
                Err(error) => refuse(walk, parent, path, error),
            },
            Some(kind) => walk.found.push(Found::new(path, parent, kind, &meta)),
            None => {
                let what = match meta.file_type() {
                    kind if kind.is_socket() => "a socket",
                    kind if kind.is_fifo() => "a named pipe",
                    _ => "a device",
                };
                walk.errors.push(SourceError::new(path, format!("{what} has no content that a snapshot could hold")));
            }
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
