//! What is captured beside a restore in place, which exchanges files meanwhile: old and new data side by side.
//!
//! A restore that is half done has its intent in place. But one may begin and end while a snapshot is taken, and then
//! nothing of it is there before or after. So each that is about to exchange something marks the file that restores
//! lock, which stays: once its intent is there, it writes into it what was never there before. Whoever captures reads
//! the mark, then looks for an intent, captures, and does both again, before it commits: what it takes says so in its
//! record. Where no intent was there the first time, one that comes later marks later.
//!
//! Only the user who restored first may read the mark. For the others it is the stamp of that file.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::called::{LOCK, MARK};
use super::trust;
use crate::snapshot::lack::Beside;

/// What the file of the lock is, and what is in it.
#[derive(Debug, PartialEq, Eq)]
enum Mark {
    /// Its inode and its content.
    Read(u64, Vec<u8>),
    /// Another user's is closed to this one. Its inode and its times, which change when a mark is written.
    Closed(u64, [(i64, i64); 2]),
}

/// A look at the data directory before it is captured.
pub struct Watch {
    data: PathBuf,
    mark: Option<Mark>,
    was_half_done: bool,
}

impl Watch {
    /// From now on.
    pub fn begin(data: &Path) -> Watch {
        let mark = mark(data);
        Watch { data: data.to_path_buf(), mark, was_half_done: is_half_done(data) }
    }

    /// The same where it is `known` before that a restore is half done.
    #[must_use]
    pub fn knowing(self, known: bool) -> Watch {
        Watch { was_half_done: self.was_half_done || known, ..self }
    }

    /// For who captures it, to ask when all is read, and before it is committed.
    pub fn asked(self) -> Beside {
        Beside::asking(move || self.saw_restore())
    }

    /// Whether a restore in place exchanged files, or stood half done, at any time until now.
    fn saw_restore(&self) -> bool {
        self.was_half_done || is_half_done(&self.data) || mark(&self.data) != self.mark
    }
}

fn is_half_done(data: &Path) -> bool {
    // Another user's is behind a folder that is closed to this one.
    trust::is_there(data).unwrap_or(true)
}

fn mark(data: &Path) -> Option<Mark> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let place = data.join(LOCK);
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(&place) else {
        let meta = place.symlink_metadata().ok().filter(|meta| meta.len() > 0)?;
        let times = [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())];
        return Some(Mark::Closed(meta.ino(), times));
    };
    let mut bytes = Vec::new();
    let inode = file.metadata().ok()?.ino();
    file.take(MARK).read_to_end(&mut bytes).ok()?;
    // One that only locked it exchanged nothing.
    (!bytes.is_empty()).then_some(Mark::Read(inode, bytes))
}
