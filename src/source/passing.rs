//! Places with plaintext that are to be gone when the process ends, also when a signal ends it.
//!
//! Whoever makes such a place notes it, and forgets it when it is removed, or is needed beyond the process. Sweeping
//! removes all that is noted, and never gives the list back: from then on nothing is noted, forgotten or made needed
//! any more, and who tries waits for the end. So a restore in place that is about to write its journal either has
//! written it, and its staging stays, or never will.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often it is tried: other threads may still be writing there, until they find that it is gone.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

static PLACES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn places() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    PLACES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes it, and has it made. Nobody sweeps in between, and what was swept is not made any more: a thread that had to
/// wait would else make it anew between the sweeping and the end.
pub fn made<T>(path: &Path, make: impl FnOnce() -> T) -> T {
    let mut noted = places();
    noted.insert(path.to_path_buf());
    make()
}

/// Makes something that lies in such a place; not once that was swept.
pub fn made_within<T>(make: impl FnOnce() -> T) -> T {
    let _noted = places();
    make()
}

/// It is gone, or is to stay.
pub fn forget(path: &Path) {
    places().remove(path);
}

/// Removes it, and forgets it. What cannot be removed stays noted, and is [`left`].
pub fn end(path: &Path) {
    match remove_tree(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {}
        _ => forget(path),
    }
}

/// What is noted, and there: where everything else was removed, what could not be.
pub fn left() -> Vec<PathBuf> {
    let noted = places();
    noted.iter().filter(|path| std::fs::symlink_metadata(path).is_ok()).cloned().collect()
}

/// Removes all of them, as far as it can be done. Only for a process that ends right after it.
pub fn sweep() {
    let noted = places();
    for path in noted.iter() {
        for _ in 0..TRIES {
            match remove_any(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => std::thread::sleep(PAUSE),
                _ => break,
            }
        }
    }
    std::mem::forget(noted);
}

/// Removes a folder, or a file that was being written.
fn remove_any(path: &Path) -> Result<()> {
    match remove_tree(path) {
        Err(error) if error.kind() == ErrorKind::NotADirectory => std::fs::remove_file(path),
        other => other,
    }
}

/// Removes a folder of our own with everything in it, also if it has folders that may not be written: what was restored
/// there has the modes that it had.
pub fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            open_up(path)?;
            std::fs::remove_dir_all(path)
        }
        other => other,
    }
}

/// Makes every folder below `path` one that its owner may change.
pub fn open_up(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}
