//! What is asked of a restore in place, and what came of it.
//!
//! Both are what callers see of it; nothing in here does anything.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::Result;

/// How to replace.
#[expect(clippy::struct_excessive_bools, reason = "choices that do not depend on each other")]
pub struct Options<'a> {
    /// The snapshot or backup is whole: list what else stands in the data directory.
    pub whole: bool,
    /// Copy through SQLite's backup API into databases that somebody has open, instead of refusing.
    pub into_live: bool,
    /// The origin recorded no owners: a replaced file keeps the owner of the one it replaces, a new one gets that of
    /// the nearest folder above. Only matters to the superuser. It recorded times in milliseconds.
    pub keep_owners: bool,
    /// What stands of a knowledge graph and is not staged goes: for a restore that has all of it, or is of all of it.
    pub graph: bool,
    /// Asked when everything is ready, before anything is touched, and again right before the first change: fails if
    /// what is to be touched is not what the caller made its safety backup of, but for databases that were changed
    /// here in between.
    pub recheck: &'a dyn Fn(&BTreeSet<PathBuf>) -> Result<()>,
    /// The safety backup that the caller made, as it is shown.
    pub safety: Option<&'a str>,
    /// What the safety backup lacks of what is replaced, or that there is none: to be told at the end, also if another
    /// command finishes this or gives it up.
    pub remarks: &'a [String],
    /// What is restored, in words: to be told until it is done.
    pub what: Option<&'a str>,
    /// What the origin lacks of what was asked for, in words: to be told also by another command that finishes this.
    pub lacks: Option<&'a str>,
    /// Whether the origin says mode and time of a staged folder, and that folder was asked for: one that stands there
    /// gets them. Others are only on the way to what was.
    pub described: &'a dyn Fn(&Path) -> bool,
    /// What was asked for and is not staged, as it is shown.
    pub left_out: &'a [String],
    /// Entries that are this program's own or never part of a backup (relative path): never listed, never touched.
    pub ignored: &'a dyn Fn(&Path) -> bool,
    /// Entries that snapshots leave out since the user says so: not listed, and not to go with a folder that is in the
    /// way. What is staged of them is put in place as everything else is.
    pub excluded: &'a dyn Fn(&Path) -> bool,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Replaced {
    /// Files and links that were put in place.
    pub files: u64,
    /// Files and links that were as they are to be.
    pub unchanged: u64,
    /// Bytes of the files that were put in place.
    pub bytes: u64,
    /// What was to be restored and was left as it is, as it is shown: it is `ignored`.
    pub skipped: Vec<String>,
    /// What the origin lacked of what was asked for, in words: what was put in place is not all of it.
    pub lacks: Option<String>,
    /// What was restored, in words.
    pub what: Option<String>,
    /// What was put in place by an earlier process, or was as it should be, and what was written to or removed before
    /// this one went on: it is left so, and is not what was restored.
    pub stayed: Vec<PathBuf>,
    /// Paths that stand in the data directory and not in what was restored; they were kept. A folder of which nothing
    /// was restored is listed once.
    pub extra: Vec<PathBuf>,
    /// What went because it would have mixed old and new (sidecars, files of a knowledge graph), or since an
    /// entry of another kind is at its path now. It is in the safety backup, if one was made.
    pub removed: Vec<PathBuf>,
    /// What could not be opened as a database and was moved aside, and where it is now (never deleted).
    pub aside: Vec<(PathBuf, PathBuf)>,
    /// Databases that were written through the backup API since somebody has them open.
    pub through: Vec<PathBuf>,
    /// Processes that still have replaced files open: they must be restarted.
    pub holders: Vec<(u32, String)>,
    /// What else there is to know.
    pub remarks: Vec<String>,
}

/// How an interrupted one came to its end.
#[derive(Debug)]
pub enum Ended {
    /// It was finished.
    Finished(Replaced),
    /// A person had given it up, and that was interrupted too: now it is.
    GivenUp(Abandoned),
}

/// What came of giving one up.
#[derive(Debug, Default)]
pub struct Abandoned {
    /// Where that is kept which had been replaced, if anything had.
    pub kept: Option<PathBuf>,
    /// Databases whose write-ahead log had been turned off, and could not be turned on again. They hold what they held.
    pub without_log: Vec<PathBuf>,
    /// Databases that were written through the backup API, since somebody had them open: what they held before is not
    /// among what is kept.
    pub written: Vec<PathBuf>,
    /// Databases of which it cannot be told whether they were.
    pub maybe_written: Vec<PathBuf>,
    /// The safety backup, which has what those held, as it is shown. Older restores did not note it.
    pub safety: Option<String>,
    /// What that lacks of what was to be replaced, in words.
    pub not_in_backup: Vec<String>,
    /// What else there is to know.
    pub remarks: Vec<String>,
}
