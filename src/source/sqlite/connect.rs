//! Connections to databases of the source: read-only, never checkpointing, and what they begin.
//!
//! Every live view begins here, and so does the one case in which a database is written: a hot journal.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::super::handle::{FileHandle, beside};
use super::ffi;
use super::quiet::preflight;
use super::view::{HotJournal, Refusal};

/// How long a connection waits for a lock.
const BUSY: Duration = Duration::from_secs(1);

/// The longest path that SQLite opens, in bytes: its limit, less room for the longest sidecar suffix.
const PATH_MAX: usize = 512 - 8;

/// The bytes that a journal begins with, and ends with if there is a super-journal.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// The fields at the beginning of a journal; a shorter file holds nothing to roll back.
const JOURNAL_HEADER_BYTES: u64 = 28;

/// What the open transaction reads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transaction {
    /// The file alone.
    Rollback,
    /// The file and a write-ahead log.
    Wal,
}

/// Opens a connection for reading. A hot journal is rolled back first, which a remark then says, or is a refusal.
///
/// `path` must be absolute: SQLite, as built here, would take a name that begins with `file:` for a URI.
pub(super) fn reader(path: &Path, hot: HotJournal, remarks: &mut Vec<String>) -> Result<Connection, Refusal> {
    preflight(path)?;
    if path.canonicalize()?.as_os_str().as_bytes().len() > PATH_MAX {
        return Err(Refusal::NotADatabase("its path is longer than SQLite can open".into()));
    }
    let conn = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    match begin(&conn) {
        Ok(_) => end(&conn)?,
        Err(error) if error.hot_journal() && hot == HotJournal::Leave => return Err(Refusal::HotJournal),
        Err(error) if error.hot_journal() => {
            drop(conn);
            roll_back(path)?;
            remarks.push("a hot journal left by a crash was rolled back".to_owned());
            let conn = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            begin(&conn)?;
            end(&conn)?;
            return Ok(conn);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(conn)
}

/// Begins a read transaction. Reads no more than page 1, so the schema may be of any kind, or damaged.
pub(super) fn begin(conn: &Connection) -> Result<Transaction, Failure> {
    conn.execute_batch("BEGIN").map_err(Failure)?;
    let begun = conn
        .query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0))
        .and_then(|_| conn.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0)));
    match begun {
        Ok(mode) if mode == "wal" => Ok(Transaction::Wal),
        Ok(_) => Ok(Transaction::Rollback),
        Err(error) => {
            // The first error is the one to tell of.
            let _ = conn.execute_batch("ROLLBACK");
            Err(Failure(error))
        }
    }
}

/// Ends a transaction that [`begin`] began.
pub(super) fn end(conn: &Connection) -> Result<(), Failure> {
    conn.execute_batch("COMMIT").map_err(Failure)
}

/// What a database that crashed in a transaction needs before anybody can read it: SQLite rolls back in the first
/// read of a connection that may write.
///
/// SQLite deletes the journal then, *whatever it is*, and also the file that the journal names as its super-journal.
/// So what does not begin as a journal, or names another file, is not given to it: somebody may have put it there.
fn roll_back(path: &Path) -> Result<(), Refusal> {
    let alone = match FileHandle::open(&beside(path, "-journal")) {
        Ok(journal) => rolls_back_alone(&journal)?,
        // Somebody else rolled it back meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(error.into()),
    };
    if !alone {
        return Err(Refusal::NotADatabase("the file named as its journal is none, or is one of several".into()));
    }
    let conn = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    match begin(&conn) {
        Ok(_) => Ok(end(&conn)?),
        Err(error) if error.hot_journal() => Err(Refusal::Io(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "a crash left a hot journal, and without permission to write it can not be rolled back",
        ))),
        Err(error) => Err(error.into()),
    }
}

/// Whether a journal begins as one, and does not end in the name of a super-journal: both have the same magic.
fn rolls_back_alone(journal: &FileHandle) -> io::Result<bool> {
    let size = journal.size()?;
    let (mut first, mut last) = (JOURNAL_MAGIC, JOURNAL_MAGIC);
    journal.read_at(&mut first, 0)?;
    journal.read_at(&mut last, size.saturating_sub(JOURNAL_MAGIC.len() as u64))?;
    Ok(size >= JOURNAL_HEADER_BYTES && first == JOURNAL_MAGIC && last != JOURNAL_MAGIC)
}

fn open(path: &Path, access: OpenFlags) -> Result<Connection, Failure> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags_and_vfs(path, flags, ffi::VFS).map_err(Failure)?;
    conn.busy_timeout(BUSY).map_err(Failure)?;
    // Not the application's business that somebody reads its database: its log stays as it is.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(Failure)?;
    // A mapped file would be read through the map, and a truncation under it is a fault, not an error.
    conn.execute_batch("PRAGMA mmap_size=0; PRAGMA query_only=1").map_err(Failure)?;
    Ok(conn)
}

/// An error from SQLite.
#[derive(Debug)]
pub(super) struct Failure(pub(super) rusqlite::Error);

impl Failure {
    fn hot_journal(&self) -> bool {
        self.0.sqlite_extended_error_code() == Some(rusqlite::ffi::SQLITE_READONLY_ROLLBACK)
    }
}

impl From<Failure> for Refusal {
    fn from(Failure(error): Failure) -> Refusal {
        use rusqlite::ErrorCode as Code;
        let message = error.to_string();
        let kind = match error.sqlite_error_code() {
            Some(Code::NotADatabase | Code::DatabaseCorrupt) => return Refusal::NotADatabase(message),
            Some(Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed) => {
                return Refusal::Busy(message);
            }
            Some(Code::ReadOnly | Code::PermissionDenied | Code::AuthorizationForStatementDenied) => {
                io::ErrorKind::PermissionDenied
            }
            Some(Code::DiskFull) => io::ErrorKind::StorageFull,
            Some(Code::OutOfMemory) => io::ErrorKind::OutOfMemory,
            _ => io::ErrorKind::Other,
        };
        Refusal::Io(io::Error::new(kind, message))
    }
}
