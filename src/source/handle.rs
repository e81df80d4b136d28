//! A read-only handle on any regular file that never drops anybody's locks.
//!
//! POSIX advisory locks are owned by the process and the inode: when a process closes *any*
//! descriptor of a file, all its locks on that file are gone. A program that embeds this library
//! beside its own SQLite connections, and this library's own open read transactions, would lose
//! theirs through an innocent `File::open`, read, drop. So every regular file is opened through
//! SQLite's own file layer, which knows each inode it holds open, defers the closing of a
//! descriptor for as long as the process has locks on the inode, and reuses the deferred ones.
//!
//! Which file is a database is only known once its first bytes have been read, hence *any* file.
//!
//! Three limits, all inherited:
//! - The layer does not account for the locks on `-shm` files, so [`FileHandle::open`] refuses a
//!   `-shm` that has a database beside it.
//! - A handle may move to another thread but is not shared between threads (`Send`, not `Sync`):
//!   the error number of a failed read is kept in the handle.
//! - A final symbolic link is never followed.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::sqlite::MAGIC;
use super::sqlite::ffi::VfsFile;

/// A regular file, open for reading. Closing it, which is dropping it, unlocks nothing that another
/// handle or connection of this process holds.
#[derive(Debug)]
pub struct FileHandle {
    file: VfsFile,
}

impl FileHandle {
    /// Opens `path`, which must be a regular file and not a symbolic link. Paths need not be UTF-8
    /// and may be as long as the system takes.
    ///
    /// Errors carry the system's own number where there is one: a missing file is
    /// [`io::ErrorKind::NotFound`], a link is `ELOOP`, and so on.
    pub fn open(path: &Path) -> io::Result<FileHandle> {
        // The layer opens with blocking flags, and a FIFO would block for ever. What is not a regular
        // file is turned away before that; the open itself refuses links.
        let meta = path.symlink_metadata()?;
        if meta.file_type().is_symlink() {
            return Err(rustix::io::Errno::LOOP.into());
        }
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if is_shared_memory(path) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a database's shared memory is never opened: closing it would drop the locks on it",
            ));
        }
        let name = CString::new(std::path::absolute(path)?.as_os_str().as_bytes())?;
        Ok(FileHandle { file: VfsFile::open(&name)? })
    }

    /// Reads at `offset` until `buf` is full or the file ends, and returns how many bytes it read.
    /// What lies beyond the end in `buf` has unspecified contents.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    /// The length of the file now, in bytes.
    pub fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    /// Takes the lock that a reader of a database takes; `false` when a writer stands in the way.
    /// It is held until the handle is dropped.
    pub fn try_lock_shared(&self) -> io::Result<bool> {
        self.file.try_lock_shared()
    }
}

/// `path` with `suffix` appended to its last component, as SQLite names the files beside a database.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether a connection of this process may hold locks on `path`: whether it is the `-shm` of a database. Beside any
/// other file it is a file like others, whatever it is called.
fn is_shared_memory(path: &Path) -> bool {
    let Some(base) = path.as_os_str().as_bytes().strip_suffix(b"-shm") else { return false };
    let mut head = [0; MAGIC.len()];
    match FileHandle::open(Path::new(OsStr::from_bytes(base))).and_then(|base| base.read_at(&mut head, 0)) {
        Ok(count) => head[..count] == MAGIC[..],
        // It is not there, or nothing that a connection has open under this name: a link, a folder, a pipe.
        Err(error) => {
            let kinds = [io::ErrorKind::NotFound, io::ErrorKind::IsADirectory, io::ErrorKind::InvalidInput];
            let is_link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
            !is_link && !kinds.contains(&error.kind())
        }
    }
}
