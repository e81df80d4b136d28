//! The staging of one restore, and the lock that keeps a second one out.
//!
//! The lock is a kernel lock on a file beside the staging that is never removed: a lock on a file that comes and goes
//! can be held twice. The staging itself comes and goes, and one without an intent changed nothing: it is swept.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::called::{FOLDER, INTENT, LOCK, NEW};
use super::plan::kept_name;
use super::root::{Kind, Root};
use super::trust;
use crate::error::{Error, Result};
use crate::id::SlotId;
use crate::source::{own, passing};

/// How long even a lock that is held is tried for.
const MOMENT: Duration = Duration::from_millis(300);

/// Where files are staged, on the file system of the data directory. While it lives, no other restore of this data
/// directory begins.
pub struct Staging {
    /// The data directory.
    pub(super) root: Root,
    new: PathBuf,
    /// What is in the staging is not ours to remove, or an intent needs it.
    pub(super) is_needed: bool,
    /// What an earlier restore left and could not be removed, in words.
    pub(super) left: Option<String>,
    /// After `new`: it is released last.
    lock: File,
}

/// Removes the staging, which nothing needs any more. What cannot be removed, since it holds another user's folders,
/// is moved to where what is kept stands: it is in nobody's way there. Answers what there is to know then.
pub(super) fn clear_away(root: &Root) -> Result<Option<String>> {
    let Err(error) = root.remove_folder(Path::new(FOLDER)) else { return Ok(None) };
    let kept = kept_name(root)?;
    if root.rename(Path::new(FOLDER), Path::new(&kept)).is_err() {
        return Err(error);
    }
    root.sync_folder(Path::new(""))?;
    let kept = root.place(Path::new(&kept));
    Ok(Some(format!("what was replaced could not be removed, and is left in {}: {error}", kept.display())))
}

impl Staging {
    /// Begins a restore into `data`: sweeps what an earlier one left, if that changed nothing, and makes the folder to
    /// stage in.
    ///
    /// Fails as locked while another restore is under way, and if an interrupted one is still to be finished, which
    /// [`super::recover`] does.
    pub fn begin(data: &Path) -> Result<Staging> {
        let mut staging = Staging::lock(data)?;
        let root = &staging.root;
        if root.seen(Path::new(INTENT))?.is_some() {
            return Err(Error::failed("an interrupted restore is still to be finished")
                .at(root.place(Path::new(INTENT)))
                .hint("`nbak restore --resume` finishes it, `nbak restore --abandon` ends it; nothing was changed"));
        }
        if let Some(seen) = root.seen(Path::new(FOLDER))? {
            if seen.kind != Kind::Folder {
                return Err(Error::failed("something that is no folder stands where files are staged")
                    .at(root.place(Path::new(FOLDER)))
                    .hint("move it away; nothing was changed"));
            }
            staging.left = clear_away(root)?;
        }
        staging.is_needed = false;
        let folder = staging.root.place(Path::new(FOLDER));
        passing::made(&folder, || staging.root.make_folder(Path::new(NEW)))?;
        // Somebody else may have been faster.
        [FOLDER, NEW].into_iter().try_for_each(|path| trust::is_own_folder(&staging.root, Path::new(path)))?;
        Ok(staging)
    }

    /// Takes the lock, to finish what an earlier process began. What is in the staging stays there.
    pub(super) fn lock(data: &Path) -> Result<Staging> {
        let root = Root::open(data)?;
        let path = root.place(Path::new(LOCK));
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed())
            .open(&path)
            .map_err(|error| Error::io("open the lock of restores", &path, error))?;
        // It is written to: under a second name it may be anything, that others may not write to themselves.
        let meta = lock.metadata().map_err(|error| Error::io("look at the lock of restores", &path, error))?;
        if !meta.is_file() || meta.nlink() != 1 {
            return Err(Error::failed("the lock of restores is no file, or has a second name")
                .at(&path)
                .hint("move it away, where no restore is under way: it is made anew; nothing was changed"));
        }
        own::give_to_owner(&lock, data).map_err(|error| Error::io("give the lock of restores away", &path, error))?;
        let start = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
                // A process that is just being started holds what its parent has open, for a moment.
                Err(TryLockError::WouldBlock) if start.elapsed() < MOMENT => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::locked("another restore into this data directory is under way")
                        .at(&path)
                        .hint("wait for it to finish; the lock ends with that process"));
                }
            }
        }
        let new = root.place(Path::new(NEW));
        Ok(Staging { root, new, is_needed: true, left: None, lock })
    }

    /// Whether a process restores here now. The lock is asked for and not kept: it is not made if it is not there.
    pub(super) fn is_under_way(root: &Root) -> bool {
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
        let lock = OpenOptions::new().read(true).custom_flags(flags).open(root.place(Path::new(LOCK)));
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Where the caller puts what is to be restored, as it is to stand in the data directory.
    pub fn root(&self) -> &Path {
        &self.new
    }

    /// From now on no end of this process removes it: it is gone, or an intent is about to need it.
    pub(super) fn stays(&self) {
        passing::forget(&self.root.place(Path::new(FOLDER)));
    }

    /// Leaves a mark for those who capture the directory meanwhile ([`super::beside`]): files are exchanged now.
    /// The intent is there already.
    pub(super) fn mark(&self) -> Result<()> {
        let failed = |error| Error::io("mark that a restore is under way", self.root.place(Path::new(LOCK)), error);
        self.lock.write_all_at(&SlotId::random().0, 0).map_err(failed)
    }

    /// Removes the staging; nothing of the data directory was changed. Dropping it does the same, as far as it can.
    pub fn discard(mut self) -> Result<()> {
        // Once is enough: dropping it does not try again.
        self.is_needed = true;
        self.root.remove_folder(Path::new(FOLDER))?;
        self.stays();
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.is_needed {
            // What stays is swept by the next restore.
            let _ = self.root.remove_folder(Path::new(FOLDER));
            self.stays();
        }
    }
}
