//! The data directory, held open while it is captured.
//!
//! Its name may lead elsewhere at any moment: it, or a folder above it, is renamed, unmounted, exchanged for another.
//! Who goes by the name then finds nothing below it, and takes everything for deleted. So the directory is opened once,
//! and what is below it is asked for by way of that descriptor, wherever it lies by then. `/proc/self/fd` makes one out
//! of a descriptor that a path may begin with; where there is no such thing, the name has to do.
//!
//! Databases are opened by name all the same: SQLite makes a name of whatever it is given, and those of what lies
//! beside a database of that. One that is not where the name leads counts as gone, and is looked for again.
//!
//! In the end the name must lead to the directory still ([`Top::is_in_place`]). If it does not, nobody knows what the
//! databases are of, and whose directory the snapshot would be of.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// A directory that is held open.
#[derive(Debug)]
pub struct Top {
    path: PathBuf,
    through: PathBuf,
    /// Its device and inode.
    who: (u64, u64),
    _held: File,
}

impl Top {
    /// Opens the directory at `path`, which must be absolute.
    pub fn open(path: &Path) -> io::Result<Top> {
        let held = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let held = File::from(held);
        let who = identity(&held.metadata()?);
        let through = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let through = if leads_to(&through, who) { through } else { path.to_path_buf() };
        Ok(Top { path: path.to_path_buf(), through, who, _held: held })
    }

    /// The name that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a path to something below it begins with, wherever it lies by now.
    pub fn through(&self) -> &Path {
        &self.through
    }

    /// Whether its name leads to it.
    pub fn is_in_place(&self) -> bool {
        leads_to(&self.path, self.who)
    }
}

fn leads_to(path: &Path, who: (u64, u64)) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| identity(&meta) == who)
}

fn identity(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_directory_wherever_it_lies() {
        let place = tempfile::tempdir().expect("a place");
        let name = |name: &str| place.path().join(name);
        std::fs::create_dir(name("data")).expect("made");
        std::fs::write(name("data/file"), "of before").expect("written");
        let top = Top::open(&name("data")).expect("opened");
        let said = || std::fs::read_to_string(top.through().join("file")).ok();
        assert!(top.is_in_place());
        std::fs::rename(name("data"), name("moved")).expect("moved");
        assert!(!top.is_in_place());
        assert_eq!(said().as_deref(), Some("of before"));
        std::fs::create_dir(name("data")).expect("another");
        assert!(!top.is_in_place());
        std::fs::remove_dir(name("data")).expect("removed");
        std::fs::rename(name("moved"), name("data")).expect("back");
        assert!(top.is_in_place());
        assert!(Top::open(&name("data/file")).is_err());
    }
}
