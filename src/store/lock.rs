//! The writer's lock: one process at a time changes a store.
//!
//! It is a kernel lock on the file `lock`, so it is gone with the process that held it, however that ended: no lock is
//! ever stale (I11). The file's text tells people who holds it, and nothing is decided by it. Readers take no lock.
//!
//! Taking it writes nothing into a store that is there: whoever takes it may yet turn out to have no key. A link in its
//! place is not followed: whoever can write to the backup disk would choose which file is emptied.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Held while a store is changed; released when dropped.
#[derive(Debug)]
pub struct WriterLock {
    file: File,
}

impl WriterLock {
    /// Takes the lock of the store at `root`, waiting up to `patience` for another writer.
    pub fn acquire(root: &Path, patience: Duration) -> Result<WriterLock> {
        let path = root.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|error| Error::io("open the store's lock", &path, error))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if start.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = (&file).take(100).read_to_string(&mut holder);
                    let holder = holder.trim();
                    let who =
                        if holder.is_empty() { "another process".to_owned() } else { format!("process {holder}") };
                    return Err(Error::locked(format!("{who} is writing to this store")).at(&path).hint(
                        "wait for it to finish, or give --lock-wait more seconds; the lock ends with that process",
                    ));
                }
                Err(TryLockError::Error(error)) => return Err(Error::io("lock the store", &path, error)),
            }
        }
        Ok(WriterLock { file })
    }

    /// Says who holds it. For people only: failing to, on a full disk say, must not stop anything.
    pub fn sign(&self) {
        let mut file = &self.file;
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    }
}
