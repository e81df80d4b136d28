//! What the views have in common: how an image was obtained, what is known of it, and why there may be none.
//!
//! The views themselves are behind [`super::Database`].

use std::fmt;
use std::io;

/// How an image was obtained. The module's head says what each rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The file under a shared lock, with nobody writing.
    Quiet,
    /// The file under a read transaction, in a rollback-journal mode.
    Rollback,
    /// The file and its write-ahead log under a read transaction.
    Wal,
    /// A copy made by the backup API.
    Backup,
}

impl View {
    /// The name, in lower case, as it is recorded.
    pub fn as_str(self) -> &'static str {
        match self {
            View::Quiet => "quiet",
            View::Rollback => "rollback",
            View::Wal => "wal",
            View::Backup => "backup",
        }
    }
}

/// What is done about a hot journal, which a crash left and which has to be rolled back before anybody can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HotJournal {
    /// SQLite rolls it back, as for the next opener. This changes the source.
    #[default]
    RollBack,
    /// It is left, and opening answers with [`Refusal::HotJournal`].
    Leave,
}

/// Why a file was not captured as a database.
#[derive(Debug)]
pub enum Refusal {
    /// The header lied or the database is malformed: the file is to be captured as the bytes that it is,
    /// and so are the files beside it.
    NotADatabase(String),
    /// It was locked for longer than is worth waiting for, or never stood still for long enough.
    Busy(String),
    /// A crash left a hot journal, and nobody was to roll it back.
    HotJournal,
    /// It could not be read.
    Io(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotADatabase(why) => write!(f, "not a usable database: {why}"),
            Refusal::Busy(why) => write!(f, "the database is in use: {why}"),
            Refusal::HotJournal => f.write_str("a hot journal left by a crash would be rolled back first"),
            Refusal::Io(error) => write!(f, "the database could not be read: {error}"),
        }
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Refusal::Io(error) => Some(error),
            Refusal::NotADatabase(_) | Refusal::Busy(_) | Refusal::HotJournal => None,
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal::Io(error)
    }
}

/// What a view knows about its image.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) view: View,
    pub(super) page_size: u32,
    /// Bytes.
    pub(super) len: u64,
    pub(super) remarks: Vec<String>,
}

/// The page size that is reported for a database without pages: what SQLite would begin with.
pub(super) const EMPTY_PAGE_SIZE: u32 = 4096;
