//! Files that cannot be databases, opened without SQLite's file layer.
//!
//! That layer keeps this process's locks when a file is closed ([`super::handle`]), and costs eight calls and a mutex
//! that all threads share. For thousands of small files that is most of the time.
//!
//! **Which files.** A file that SQLite has locks on is a database or its `-shm`. A database is a whole number of
//! pages, and a page has 512 bytes or more. So a file of any other size, that is not named like shared memory, is
//! none: nobody holds a lock on it that a `close` could drop ([`cannot_be_locked`]). Only one that was cut off, or that
//! something was appended to, could be of such a size and be open as a database all the same. Therefore the caller must
//! also know that the file is what it was when its bytes were last read, and that those were not a database's.
//!
//! The file is asked for its stamp before a byte is read, and again afterwards: what was swapped in meanwhile is not
//! read, and what was written meanwhile does not count.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};

use super::walk::{Stamp, stamp_of};

/// The smallest page of a database, in bytes.
const PAGE_LEAST: u64 = 512;

/// Reading leaves no trace in the access times where the system allows that: for files of other owners it does not.
static MAY_LEAVE_TIMES: AtomicBool = AtomicBool::new(true);

/// Whether a file of this size and name is none that SQLite locks, unless it is a damaged database.
pub fn cannot_be_locked(name: &Path, size: u64) -> bool {
    !size.is_multiple_of(PAGE_LEAST) && !name.as_os_str().as_bytes().ends_with(b"-shm")
}

/// A folder whose files are read.
pub struct Folder(OwnedFd);

impl Folder {
    /// Opens the folder `path`, which must not be a link unless it is the data directory itself, which is at the `top`.
    pub fn open(path: &Path, top: bool) -> io::Result<Folder> {
        let link = if top { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | link;
        Ok(Folder(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Reads all of the file `name` into `buffer`, if it has this `stamp` all the while.
    pub fn read(&self, name: &OsStr, stamp: &Stamp, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let file = self.file(name)?;
        let stands = || Ok::<_, io::Error>(stamp_of(&fstat(&file)?) == *stamp);
        if !stands()? {
            return Ok(false);
        }
        buffer.resize(usize::try_from(stamp.size).map_err(io::Error::other)?, 0);
        file.read_exact_at(buffer, 0)?;
        stands()
    }

    fn file(&self, name: &OsStr) -> io::Result<File> {
        // A pipe that was put in its place would block for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        #[cfg(target_os = "linux")]
        if MAY_LEAVE_TIMES.load(Ordering::Relaxed) {
            match openat(&self.0, name, flags | OFlags::NOATIME, Mode::empty()) {
                Err(rustix::io::Errno::PERM) => MAY_LEAVE_TIMES.store(false, Ordering::Relaxed),
                other => return Ok(other?.into()),
            }
        }
        Ok(openat(&self.0, name, flags, Mode::empty())?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::walk::stamp;
    use super::*;

    #[test]
    fn whole_pages_and_shared_memory_are_left_to_sqlite() {
        for (name, size, is) in [
            ("a", 511, true),
            ("a", 513, true),
            ("a", 0, false),
            ("a", 512, false),
            ("a", 4096, false),
            ("a-shm", 3, false),
        ] {
            assert_eq!(cannot_be_locked(Path::new(name), size), is, "{name} {size}");
        }
    }

    #[test]
    fn only_the_very_file_is_read() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("f");
        std::fs::write(&path, b"content").expect("written");
        let seen = stamp(&path.symlink_metadata().expect("there"));
        let folder = Folder::open(place.path(), true).expect("open");
        let mut buffer = vec![9; 100];
        assert!(folder.read("f".as_ref(), &seen, &mut buffer).expect("read"));
        assert_eq!(buffer, b"content");
        std::fs::rename(&path, place.path().join("g")).expect("renamed");
        std::fs::write(&path, b"another").expect("written");
        assert!(!folder.read("f".as_ref(), &seen, &mut buffer).expect("looked at"), "another file");
        std::fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("g", &path).expect("linked");
        assert!(folder.read("f".as_ref(), &seen, &mut buffer).is_err(), "a link");
        assert!(Folder::open(&path, false).is_err(), "no folder");
    }
}
