//! Locks: one process at a time changes a store, and nothing is deleted under those that read it.
//!
//! It is a kernel lock on the file `lock`, so it is gone with the process that held it, however that ended: no lock is
//! ever stale (I11). The file's text tells people which writer holds it; without one it is a reader that brings the
//! index up to date, for a moment, and a writer waits for that. Readers wait for nobody.
//!
//! **Readers** share a lock on the file `readers`, for as long as they have the store open ([`Reading`]). They need
//! none of each other and wait for no writer: nothing that is there changes. Only to *delete* packs, `gc` takes that
//! lock for itself ([`Deleting`]), if it is free, for a moment at a time; if readers have it, the packs stay until the
//! next time. A reader waits for that moment, and no longer: on a medium that it cannot write to it has no lock, and
//! reads on.
//!
//! **Who removes the file** `lock`, taking it for stale, or puts another store in the place of this one, has two
//! writers change a store at once: each has the lock of another file. So whoever takes it looks whether it is the file
//! of that name, and looks again before and after each object that gets its name, and before each that goes ([`Held`]).
//!
//! Taking the writer's lock writes nothing into a store that is there: whoever takes it may yet turn out to have no
//! key. A link in its place is not followed: whoever can write to the backup disk would choose which file is emptied.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Held while a store is changed; released when dropped.
#[derive(Debug)]
pub struct WriterLock {
    file: File,
}

/// The store's lock.
const NAME: &str = "lock";
/// The readers' lock.
const READERS: &str = "readers";

/// How long even a writer that was told not to wait waits for a reader.
const MOMENT: Duration = Duration::from_secs(5);

impl WriterLock {
    /// Takes the lock of the store at `root`, waiting up to `patience` for another writer.
    pub fn acquire(root: &Path, patience: Duration) -> Result<WriterLock> {
        Self::acquire_at(&root.join(NAME), "writing to this store", patience)
    }

    /// Takes the lock on the file `path`, made if it is not there, waiting up to `patience` for whoever has it.
    /// `deed` is what that one is doing.
    pub fn acquire_at(path: &Path, deed: &str, patience: Duration) -> Result<WriterLock> {
        let mut file = open(path)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) if Held::of(&file, path)?.is_there() => break,
                // It was removed after it was opened.
                Ok(()) => file = open(path)?,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(Error::io("take a lock", path, error)),
            }
            if start.elapsed() >= patience {
                let mut holder = String::new();
                let _ = file.rewind().and_then(|()| (&mut file).take(100).read_to_string(&mut holder));
                let holder = holder.trim();
                // No text: a reader, for a moment. It is in nobody's way.
                if !holder.is_empty() || start.elapsed() >= MOMENT {
                    let who =
                        if holder.is_empty() { "another process".to_owned() } else { format!("process {holder}") };
                    return Err(Error::locked(format!("{who} is {deed}")).at(path).hint(
                        "wait for it to finish, or give --lock-wait more seconds; the lock ends with that process",
                    ));
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(WriterLock { file })
    }

    /// What tells whether it is the lock of the store at `root` still.
    pub fn held(&self, root: &Path) -> Result<Held> {
        Held::of(&self.file, &root.join(NAME))
    }

    /// Makes the readers' lock, if it is not there.
    pub fn make_for_readers(root: &Path) {
        let _ = open(&root.join(READERS));
    }

    /// Says who holds it. For people only: failing to, on a full disk say, must not stop anything.
    pub fn sign(&self) {
        let mut file = &self.file;
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    }

    /// Takes the lock for a moment, if it is free: for a reader that brings the index up to date. It leaves no text, so
    /// that no writer gives up because of it.
    pub fn for_a_moment(root: &Path) -> Option<WriterLock> {
        let file = open(&root.join(NAME)).ok()?;
        file.try_lock().ok()?;
        file.set_len(0).ok()?;
        Some(WriterLock { file })
    }
}

/// The file of a lock that is held, and the path that it must have.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    /// Its device and inode.
    who: (u64, u64),
}

impl Held {
    fn of(file: &File, path: &Path) -> Result<Held> {
        let meta = file.metadata().map_err(|error| Error::io("look at a lock", path, error))?;
        Ok(Held { path: path.to_path_buf(), who: (meta.dev(), meta.ino()) })
    }

    fn is_there(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.who)
    }

    /// Fails if another file has its path by now, or none.
    pub fn check(&self) -> Result<()> {
        if self.is_there() {
            return Ok(());
        }
        let what = "the lock of this store was removed, or another store put in its place, while it was written to: \
                    others may have written to it, or removed from it, meanwhile";
        Err(Error::failed(what).at(&self.path).hint(
            "nothing more was written; run `nbak check`, and do it again. A lock ends with its process: leave the file",
        ))
    }
}

/// Held while a store is read: no pack that is there goes away.
#[derive(Debug)]
pub struct Reading {
    _file: File,
}

impl Reading {
    /// Begins to read the store at `root`; nothing if it has no lock that can be taken. A copy has none yet:
    /// it is made, if it can be.
    pub fn begin(root: &Path) -> Option<Reading> {
        let flags = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
        let path = root.join(READERS);
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => open(&path).ok()?,
            Err(_) => return None,
        };
        let start = Instant::now();
        while file.try_lock_shared().is_err() {
            if start.elapsed() >= MOMENT {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Some(Reading { _file: file })
    }
}

/// Held while packs are deleted: nobody reads the store.
#[derive(Debug)]
pub struct Deleting {
    _file: File,
}

impl Deleting {
    /// Begins to delete, if nobody reads for a moment within `patience`; if somebody does, answers who, as far as
    /// that can be told.
    pub fn begin(root: &Path, patience: Duration) -> Result<std::result::Result<Deleting, Vec<u32>>> {
        let path = root.join(READERS);
        let file = open(&path)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Ok(Deleting { _file: file })),
                Err(TryLockError::WouldBlock) if start.elapsed() >= patience => return Ok(Err(holders(&file))),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
                Err(TryLockError::Error(error)) => return Err(Error::io("take a lock", path, error)),
            }
        }
    }
}

/// The processes that hold a lock on `file`, as the kernel lists them; none where it does not.
fn holders(file: &File) -> Vec<u32> {
    let Ok(inode) = file.metadata().map(|meta| meta.ino()) else { return Vec::new() };
    let list = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    // 1: FLOCK  ADVISORY  READ 4242 08:01:1234 0 EOF
    let holder = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_its = fields.get(5)?.rsplit(':').next()? == inode.to_string();
        is_its.then(|| fields[4].parse().ok()).flatten()
    };
    let mut found: Vec<u32> = list.lines().filter_map(holder).filter(|pid| *pid != 0).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .map_err(|error| Error::io("open a lock", path, error))
}
