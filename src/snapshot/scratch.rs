//! Scratch space for plaintext that has to be a file for a while: a 0700 folder, made when it is first asked for, gone
//! with the value.
//!
//! A process that a signal ends removes its folder ([`passing`]); one that is killed leaves it. So each holds a file
//! with a kernel lock on it, and whoever makes scratch space in the same place removes the folders whose lock is free:
//! a process number would not do, since a container counts its own.

use std::cell::RefCell;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::id::SlotId;
use crate::source::passing;
pub use crate::source::passing::{open_up, remove_tree};

const PREFIX: &str = ".nbak-scratch-";
/// While it is made.
const YOUNG: &str = ".nbak-young-";
/// How often it is tried to make one: somebody may sweep it before it is locked.
const TRIES: usize = 8;
const LOCK: &str = "lock";

/// A folder for scratch files, which may not be there yet.
pub struct Scratch {
    path: PathBuf,
    made: RefCell<Option<File>>,
}

impl Scratch {
    /// Scratch space in `folder`, and an end to what killed processes left there.
    pub fn beside(folder: &Path) -> Scratch {
        sweep(folder);
        Scratch { path: folder.join(format!("{PREFIX}{}", SlotId::random())), made: RefCell::default() }
    }

    /// Scratch space for what a sealed backup holds: in the data directory `data_dir`, whose it is. Beside the backup,
    /// in `folder`, only if that directory is not there or may not be written to (S17).
    pub fn private(data_dir: &Path, folder: &Path) -> Scratch {
        let is_writable = || rustix::fs::access(data_dir, rustix::fs::Access::WRITE_OK).is_ok();
        Scratch::beside(if data_dir.is_dir() && is_writable() { data_dir } else { folder })
    }

    /// The folder, made if it is not there.
    pub fn folder(&self) -> io::Result<PathBuf> {
        let mut made = self.made.borrow_mut();
        if made.is_none() {
            *made = Some(self.make(TRIES)?);
        }
        Ok(self.path.clone())
    }

    /// Made under a name of its own, and locked before it gets the other one. All of it is one deed for who sweeps.
    fn make(&self, tries: usize) -> io::Result<File> {
        let young = self.path.with_file_name(format!("{YOUNG}{}", SlotId::random()));
        let made = passing::made(&self.path, || {
            DirBuilder::new().mode(0o700).create(&young)?;
            let locked = lock(&young).and_then(|file| std::fs::rename(&young, &self.path).map(|()| file));
            locked.inspect_err(|_| {
                let _ = std::fs::remove_dir_all(&young);
            })
        });
        match made {
            // It was swept before it was locked.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 1 => self.make(tries - 1),
            other => other,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.made.get_mut().is_some() {
            passing::end(&self.path);
        }
    }
}

/// Puts an end to what killed processes left in `folder`, as far as it can be done.
pub fn sweep(folder: &Path) {
    for path in left(folder) {
        let _ = remove_tree(&path);
    }
    for path in named(folder, YOUNG) {
        sweep_young(&path);
    }
}

/// The scratch space that killed processes left in `folder`, and that may hold plaintext. Nothing is changed.
pub fn left(folder: &Path) -> Vec<PathBuf> {
    let mut all = named(folder, PREFIX);
    all.retain(|path| is_left(path));
    all
}

/// The folders in `folder` whose names begin so.
fn named(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_meant = |entry: &std::fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix))
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
    };
    entries.filter(is_meant).map(|entry| entry.path()).collect()
}

fn lock(folder: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(LOCK))?;
    file.lock()?;
    Ok(file)
}

/// Opens a lock that may be somebody else's: through no link, and without waiting for who reads a pipe.
fn open_lock(place: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    OpenOptions::new().write(true).custom_flags(flags.bits().cast_signed()).open(place)
}

/// Removes a folder that was being made, unless its lock is held. Whoever is still at it waits for the lock or finds no
/// folder, and then makes another: only what is empty goes, and the lock's file only by who has the lock.
fn sweep_young(folder: &Path) {
    let place = folder.join(LOCK);
    let lock = open_lock(&place);
    if lock.as_ref().is_ok_and(|file| file.try_lock().is_ok()) {
        let _ = std::fs::remove_file(&place);
    }
    let _ = std::fs::remove_dir(folder);
}

/// Whether the process that made `folder` is gone. One without a lock file was being removed.
fn is_left(folder: &Path) -> bool {
    match open_lock(&folder.join(LOCK)) {
        Ok(file) => file.try_lock().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever can write there could leave one, and every snapshot would wait for ever.
    #[test]
    fn no_pipe_is_waited_for() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let place = tempfile::tempdir().expect("a folder");
        for name in [format!("{PREFIX}x"), format!("{YOUNG}x")] {
            std::fs::create_dir(place.path().join(&name)).expect("made");
            mknodat(CWD, place.path().join(name).join(LOCK), FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        }
        drop(Scratch::beside(place.path()));
        assert_eq!(std::fs::read_dir(place.path()).expect("a folder").count(), 2, "they are nobody's to remove");
    }

    #[test]
    fn it_is_there_while_it_is_used_and_swept_when_it_was_left() {
        let place = tempfile::tempdir().expect("a folder");
        let names = || std::fs::read_dir(place.path()).expect("a folder").count();
        let unused = Scratch::beside(place.path());
        let used = Scratch::beside(place.path());
        let folder = used.folder().expect("made");
        std::fs::write(folder.join("copy"), b"plain").expect("written");
        assert_eq!(used.folder().expect("made"), folder);
        drop(Scratch::beside(place.path()));
        assert!(folder.join("copy").exists(), "another one leaves it alone");
        drop(unused);
        assert_eq!(names(), 1);

        // As a kill leaves it: the folder is there, and nobody has its lock.
        let file = used.made.take().expect("locked");
        drop(file);
        drop(used);
        assert!(folder.exists());
        drop(Scratch::beside(place.path()));
        assert_eq!(names(), 0);

        // Killed even before that.
        let young = place.path().join(".nbak-young-1");
        for is_locked in [false, true] {
            std::fs::create_dir(&young).expect("made");
            let held = is_locked.then(|| lock(&young).expect("locked"));
            drop(Scratch::beside(place.path()));
            assert_eq!(names(), usize::from(is_locked), "somebody is making it");
            drop(held);
            drop(Scratch::beside(place.path()));
            assert_eq!(names(), 0);
        }
    }

    #[test]
    fn many_make_and_sweep_at_once_and_each_has_its_own() {
        let place = tempfile::tempdir().expect("a folder");
        let make = || {
            for _ in 0..100 {
                let scratch = Scratch::beside(place.path());
                let folder = scratch.folder().expect("made");
                std::fs::write(folder.join("copy"), b"plain").expect("written");
                assert!(folder.join(LOCK).exists() && folder.join("copy").exists());
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(make))));
        assert_eq!(std::fs::read_dir(place.path()).expect("a folder").count(), 0);
    }
}
