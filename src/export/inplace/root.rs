//! The data directory, held open: every path below it is resolved one component at a time.
//!
//! No symbolic link is followed, also none that is put there meanwhile. Staging, old and kept files are below it too,
//! so every move is one between two paths of the same root.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, StatxFlags, Timespec, Timestamps, Uid, accessat,
    chmod, chownat, fstatvfs, fsync, mkdirat, openat, readlinkat, renameat, renameat_with, statx, unlinkat, utimensat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Folder,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A socket, a pipe, a device.
    Other,
}

/// How one version of an entry is told from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The inode, without the device.
    pub inode: u64,
    /// Bytes; 0 for a directory, whose size says nothing.
    pub size: u64,
    /// Last modification, in seconds since 1970 and nanoseconds; 0 for a directory, which others may use, and for
    /// nothing else ([`Stamp::time`]).
    pub mtime: (i64, u32),
}

impl Stamp {
    /// How a stamp has the time of what is no directory. The first moment of 1970 would say that it is one, so that is
    /// written as the last second before and a whole one.
    pub fn time(mtime: (i64, u32)) -> (i64, u32) {
        if mtime == (0, 0) { (-1, 1_000_000_000) } else { mtime }
    }

    /// Whether it is of a directory.
    pub fn is_of_folder(&self) -> bool {
        self.mtime == (0, 0) && self.size == 0
    }
}

/// What stands at a path.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// What it is.
    pub kind: Kind,
    /// Which version of it.
    pub stamp: Stamp,
    /// Its names. Of a directory that says nothing.
    pub links: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Last modification, also of a directory.
    pub mtime: (i64, u32),
    /// The device, as `stat` gives it.
    pub device: u64,
    /// The mount it is reached by; 0 if the kernel does not say.
    pub mount: u64,
}

/// The data directory.
pub struct Root {
    path: PathBuf,
    fd: OwnedFd,
}

impl Root {
    /// Opens the directory `path`. Links that lead *to* it are followed.
    pub fn open(path: &Path) -> Result<Root> {
        let failed = |error| Error::io("open the data directory", path, error);
        let path = path.canonicalize().map_err(failed)?;
        let fd = openat(CWD, &path, FOLDER, Mode::empty()).map_err(|e| failed(e.into()))?;
        Ok(Root { path, fd })
    }

    /// The absolute path, for messages, and for SQLite, which is told not to follow links.
    pub fn place(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.path.clone() } else { self.path.join(path) }
    }

    fn failed(&self, action: &str, path: &Path, error: Errno) -> Error {
        Error::io(action, self.place(path), error.into())
    }

    /// Opens a folder.
    pub fn folder(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let mut at = openat(&self.fd, ".", FOLDER, Mode::empty())?;
        for name in path.components() {
            at = openat(&at, name.as_os_str(), FOLDER, Mode::empty())?;
        }
        Ok(at)
    }

    fn parent<'p>(&self, path: &'p Path) -> rustix::io::Result<(OwnedFd, &'p Path)> {
        let name = path.file_name().map_or(Path::new("."), Path::new);
        Ok((self.folder(path.parent().unwrap_or(Path::new("")))?, name))
    }

    fn look(at: &OwnedFd, name: &Path) -> rustix::io::Result<Seen> {
        let stat = statx(at, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
        let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::Directory => Kind::Folder,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Link,
            _ => Kind::Other,
        };
        let mtime = (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
        let (size, stamped) = if kind == Kind::Folder { (0, (0, 0)) } else { (stat.stx_size, Stamp::time(mtime)) };
        let has_mount = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        Ok(Seen {
            kind,
            stamp: Stamp { inode: stat.stx_ino, size, mtime: stamped },
            links: stat.stx_nlink.into(),
            mode: u32::from(stat.stx_mode) & 0o7777,
            owner: (stat.stx_uid, stat.stx_gid),
            mtime,
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            mount: if has_mount { stat.stx_mnt_id } else { 0 },
        })
    }

    /// What stands at `path`. `None` also if something that is neither a folder nor a link stands above it. A link
    /// above it is an error: what is written there would land elsewhere.
    pub fn seen(&self, path: &Path) -> Result<Option<Seen>> {
        let failed = |error| self.failed("look at", path, error);
        let mut at = openat(&self.fd, ".", FOLDER, Mode::empty()).map_err(failed)?;
        let mut above = PathBuf::new();
        for name in path.parent().unwrap_or(Path::new("")).components() {
            above.push(name);
            at = match openat(&at, name.as_os_str(), FOLDER, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(error @ (Errno::LOOP | Errno::NOTDIR)) => {
                    return match Root::look(&at, Path::new(name.as_os_str())) {
                        Ok(seen) if seen.kind != Kind::Link => Ok(None),
                        _ => Err(self.failed("go through a symbolic link", &above, error).hint(
                            "a restore follows no link within the data directory: move it away, or restore to another \
                             directory",
                        )),
                    };
                }
                Err(error) => return Err(failed(error)),
            };
        }
        match Root::look(&at, path.file_name().map_or(Path::new("."), Path::new)) {
            Ok(seen) => Ok(Some(seen)),
            // A sidecar whose name is longer than names can be is not there either.
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The names in a folder, in order. Empty if it is none, or not there.
    pub fn names(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let folder = match self.folder(path) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("read a folder", path, error)),
        };
        let failed = |error| self.failed("read a folder", path, error);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(path.join(std::ffi::OsStr::from_bytes(name)));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Whether entries of a folder may be replaced, or why not.
    pub fn may_write(&self, path: &Path) -> rustix::io::Result<()> {
        let may = |at: OwnedFd| accessat(at, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
        self.folder(path).and_then(may)
    }

    /// What a symbolic link says.
    pub fn link(&self, path: &Path) -> Result<Vec<u8>> {
        let read = || {
            let (parent, name) = self.parent(path)?;
            readlinkat(&parent, name, Vec::new())
        };
        Ok(read().map_err(|e| self.failed("read a symbolic link", path, e))?.into_bytes())
    }

    /// Makes a folder of our own (0700), and those above it. One that is there is fine.
    pub fn make_folder(&self, path: &Path) -> Result<()> {
        let mut at = openat(&self.fd, ".", FOLDER, Mode::empty()).map_err(|e| self.failed("open", path, e))?;
        let failed = |error| self.failed("make a folder", path, error);
        for name in path.components() {
            match mkdirat(&at, name.as_os_str(), Mode::RWXU) {
                Ok(()) => fsync(&at).map_err(failed)?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(error)),
            }
            at = openat(&at, name.as_os_str(), FOLDER, Mode::empty()).map_err(failed)?;
        }
        Ok(())
    }

    /// Makes a file of our own (0600) where nothing stands.
    pub fn create(&self, path: &Path) -> Result<File> {
        let create = || {
            let (parent, name) = self.parent(path)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)
        };
        create().map(File::from).map_err(|e| self.failed("make", path, e))
    }

    /// Moves `from` to `to`, where nothing stands.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let rename = || {
            let ((old, a), (new, b)) = (self.parent(from)?, self.parent(to)?);
            match renameat_with(&old, a, &new, b, RenameFlags::NOREPLACE) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if Root::look(&new, b).is_err() => {
                    renameat(&old, a, &new, b)
                }
                other => other,
            }
        };
        rename().map_err(|e| self.failed("put in place", to, e))
    }

    /// Moves `from` to `to`, in place of a file that is ours.
    pub fn replace(&self, from: &Path, to: &Path) -> Result<()> {
        let replace = || {
            let ((old, a), (new, b)) = (self.parent(from)?, self.parent(to)?);
            renameat(&old, a, &new, b)
        };
        replace().map_err(|e| self.failed("put in place", to, e))
    }

    /// Exchanges two entries in one step. `false`: this file system cannot, and nothing was done.
    pub fn exchange(&self, staged: &Path, live: &Path) -> Result<bool> {
        let exchange = || {
            let ((new, a), (old, b)) = (self.parent(staged)?, self.parent(live)?);
            renameat_with(&new, a, &old, b, RenameFlags::EXCHANGE)
        };
        match exchange() {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(self.failed("put in place", live, error)),
        }
    }

    /// Sets what is not content. The content may be open: no descriptor of it is made, since closing one drops locks.
    pub fn set(&self, path: &Path, mode: Option<u32>, owner: Option<(u32, u32)>, mtime: (i64, u32)) -> Result<()> {
        let set = || {
            let (parent, name) = self.parent(path)?;
            if let Some((uid, gid)) = owner {
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            if let Some(mode) = mode {
                // A path descriptor pins the entry and, unlike any other, drops no locks when it is closed.
                let pin = openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                let way = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pin));
                chmod(way, Mode::from_raw_mode(mode))?;
            }
            Ok(())
        };
        set().map_err(|e| self.failed("set mode, owner and time of", path, e))
    }

    /// Makes what happened to the entries of a folder durable. One that is not there has nothing to be made durable.
    pub fn sync_folder(&self, path: &Path) -> Result<()> {
        match self.folder(path).and_then(fsync) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(self.failed("sync a folder", path, error)),
        }
    }

    /// Removes a file of our own. It may be gone already.
    pub fn remove_file(&self, path: &Path) -> Result<()> {
        let remove = || {
            let (parent, name) = self.parent(path)?;
            unlinkat(&parent, name, AtFlags::empty())
        };
        match remove() {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed("remove", path, error)),
        }
    }

    /// Removes a folder of our own with everything in it, also if it has folders that may not be written.
    pub fn remove_folder(&self, path: &Path) -> Result<()> {
        if self.seen(path)?.is_none() {
            return Ok(());
        }
        self.open_up(path)?;
        let place = self.place(path);
        std::fs::remove_dir_all(&place).map_err(|error| Error::io("remove", place, error))
    }

    fn open_up(&self, path: &Path) -> Result<()> {
        let Some(seen) = self.seen(path)?.filter(|seen| seen.kind == Kind::Folder) else { return Ok(()) };
        if seen.mode & 0o700 != 0o700 {
            self.set(path, Some(0o700), None, seen.mtime)?;
        }
        self.names(path)?.iter().try_for_each(|name| self.open_up(name))
    }

    /// Bytes that can still be written.
    pub fn free_bytes(&self) -> Option<u64> {
        fstatvfs(&self.fd).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
