//! The index's file as redb sees it: one that is not synced, and whose locks are waited for, but not for ever.
//!
//! What is lost with a power failure is a cache: see [`super::disk`].

use std::ops::Bound;
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// Waits for a lock of redb's, but not for ever: its holder may have been stopped, and nobody needs the file that much.
fn patiently(mut attempt: impl FnMut() -> Result<bool, BackendError>) -> Result<(), BackendError> {
    for _ in 0..100 {
        if attempt()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(BackendError::Io(std::io::ErrorKind::WouldBlock.into()))
}

/// A file that is not synced: see the head of this module.
#[derive(Debug)]
pub(super) struct Unsynced(pub(super) FileBackend);

type Io<T> = Result<T, std::io::Error>;

impl StorageBackend for Unsynced {
    fn len(&self) -> Io<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Io<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Io<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Io<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Io<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> Io<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        patiently(|| self.0.try_lock_range(start, end))
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        patiently(|| self.0.try_lock_shared_range(start, end))
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
