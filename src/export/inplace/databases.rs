//! Taking a live database away from whoever might open it, and giving it back.
//!
//! `PRAGMA journal_mode=DELETE` first takes the file's exclusive lock and only then checkpoints the log and removes
//! it and the shared memory: if another connection has the database open in WAL mode, it fails and has changed
//! nothing. (An explicit checkpoint before it would write into a database that is then refused.) `BEGIN EXCLUSIVE`
//! keeps others out from there on; that the mode is still the one that was set shows that nobody slipped in between.
//!
//! A connection in rollback mode that is idle holds no lock at all. That one is looked for among the open files of
//! processes ([`crate::source::holders`]).

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::root::{Kind, Root};
use crate::error::{Error, Result};
use crate::snapshot::sidecar::sidecars;
use crate::source::handle::FileHandle;
use crate::source::sqlite::{HEADER_BYTES, Header, looks_like_database};

/// How long is waited for another connection's lock.
const PATIENCE: Duration = Duration::from_secs(1);

/// The bytes that a journal begins with, and ends with if it names a super-journal.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// The sidecars that stand beside `database`. A folder of such a name is none.
pub fn standing_sidecars(root: &Root, database: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in sidecars(database) {
        if root.seen(&path)?.is_some_and(|seen| seen.kind != Kind::Folder) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The header of the live file at `path`, if it has one of a database.
pub fn header(root: &Root, path: &Path) -> Option<Header> {
    let mut head = [0; HEADER_BYTES];
    let file = FileHandle::open(&root.place(path)).ok()?;
    let got = file.read_at(&mut head, 0).ok()?;
    looks_like_database(&head[..got])
}

/// Whether a database stands at `path`: by its header, or since something lies beside an empty file.
pub fn stands(root: &Root, path: &Path) -> Result<bool> {
    let Some(seen) = root.seen(path)?.filter(|seen| seen.kind == Kind::File) else { return Ok(false) };
    Ok(header(root, path).is_some() || (seen.stamp.size == 0 && !standing_sidecars(root, path)?.is_empty()))
}

/// A database that nobody else can open for as long as this lives.
pub struct Held {
    conn: Connection,
    was_wal: bool,
    gives_back: Cell<bool>,
}

impl Held {
    /// From now on it is left as it is, whatever happens: its stamp stands in an intent.
    pub fn commit(&self) {
        self.gives_back.set(false);
    }

    /// Whether its journal mode was changed, and what was in its log written into it.
    pub fn was_switched(&self) -> bool {
        self.was_wal
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.gives_back.get() {
            return;
        }
        // As far as it can be done: a database in another journal mode has the same content.
        let _ = self.conn.execute_batch("ROLLBACK");
        if self.was_wal {
            let _ = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
            let _ = self.conn.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()));
        }
    }
}

/// How a live database stands.
pub enum Standing<T> {
    /// There is none.
    Absent,
    /// It is ours now.
    Held(T),
    /// SQLite cannot open it, and why.
    Malformed(String),
    /// Somebody has it open.
    Busy,
}

/// Tries to take the database at `path`.
pub fn hold(root: &Root, path: &Path) -> Result<Standing<Held>> {
    let Some(seen) = root.seen(path)?.filter(|seen| seen.kind == Kind::File) else { return Ok(Standing::Absent) };
    if seen.stamp.size == 0 && !standing_sidecars(root, path)?.is_empty() {
        // SQLite takes such a file for new, and its sidecars for left-overs that can be deleted.
        return Ok(Standing::Malformed("it is empty, and its journal is not".to_owned()));
    }
    if !journal_is_harmless(root, path)? {
        return Ok(Standing::Malformed("the file named as its journal is none, or is one of several".to_owned()));
    }
    let conn = match connect(&root.place(path)) {
        Ok(conn) => conn,
        Err(error) => return classify(root, path, error),
    };
    match take(&conn) {
        Ok(Some(was_wal)) => Ok(Standing::Held(Held { conn, was_wal, gives_back: Cell::new(true) })),
        Ok(None) => Ok(Standing::Busy),
        Err(error) => classify(root, path, error),
    }
}

/// Opens a database for writing. `path` is absolute, so it is never taken for a URI, and no link in it is followed.
pub fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let conn = Connection::open_with_flags_and_vfs(path, flags, c"unix")?;
    conn.busy_timeout(PATIENCE)?;
    // A log is never checkpointed just because this connection was refused.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.execute_batch("PRAGMA mmap_size=0; PRAGMA synchronous=FULL; PRAGMA trusted_schema=OFF")?;
    Ok(conn)
}

/// `None` if somebody else has it open; else whether it was in WAL mode.
fn take(conn: &Connection) -> rusqlite::Result<Option<bool>> {
    // The first read: a hot journal is rolled back here, and the mode is only known after it.
    conn.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
    let was_wal = mode(conn, "PRAGMA journal_mode")? == "wal";
    if was_wal && !turn_log_off(conn)? {
        return Ok(None);
    }
    conn.execute_batch("BEGIN EXCLUSIVE")?;
    // Somebody who came in between and turned the log on again has it open now.
    Ok((mode(conn, "PRAGMA journal_mode")? != "wal").then_some(was_wal))
}

/// `false` if somebody else has it open; then nothing was changed.
fn turn_log_off(conn: &Connection) -> rusqlite::Result<bool> {
    let start = Instant::now();
    loop {
        match mode(conn, "PRAGMA journal_mode=DELETE") {
            Ok(now) if now == "delete" => return Ok(true),
            Err(error) if !is_busy(&error) => return Err(error),
            // This lock is not waited for by SQLite itself.
            _ if start.elapsed() >= PATIENCE => return Ok(false),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn mode(conn: &Connection, pragma: &str) -> rusqlite::Result<String> {
    conn.query_row(pragma, [], |row| row.get::<_, String>(0))
}

/// Whether somebody else's lock was in the way.
pub fn is_busy(error: &rusqlite::Error) -> bool {
    use ErrorCode::{DatabaseBusy, DatabaseLocked, FileLockingProtocolFailed};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed))
}

fn classify(root: &Root, path: &Path, error: rusqlite::Error) -> Result<Standing<Held>> {
    let opens = || FileHandle::open(&root.place(path)).is_ok();
    match error.sqlite_error_code() {
        _ if is_busy(&error) => Ok(Standing::Busy),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Ok(Standing::Malformed(error.to_string())),
        Some(ErrorCode::CannotOpen) if opens() => Ok(Standing::Malformed(error.to_string())),
        _ => Err(failed("take the live database away from other programs", &root.place(path), error)),
    }
}

/// Turns the write-ahead log of the database at `path` on again. Whether it is on: it is not if somebody is in the way,
/// and then the database says the same without it.
pub fn turn_log_on(root: &Root, path: &Path) -> bool {
    if header(root, path).is_none_or(|header| header.write_version == 2) {
        return true;
    }
    // What lies beside it is for whoever opens it next.
    if !standing_sidecars(root, path).is_ok_and(|beside| beside.is_empty()) {
        return false;
    }
    let turned = connect(&root.place(path)).and_then(|conn| {
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        mode(&conn, "PRAGMA journal_mode=WAL")
    });
    turned.is_ok_and(|mode| mode == "wal")
}

/// An error of SQLite's about `path`.
pub fn failed(action: &str, path: &Path, error: rusqlite::Error) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => io::ErrorKind::StorageFull,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    Error::io(action, path, io::Error::new(kind, error))
}

/// SQLite deletes what it takes for a hot journal after it rolled it back, *whatever it is*, and also the file that the
/// journal names as its super-journal. So only a journal that is one, and stands alone, is given to it.
fn journal_is_harmless(root: &Root, database: &Path) -> Result<bool> {
    let [_, _, journal] = sidecars(database);
    match root.seen(&journal)? {
        None => return Ok(true),
        Some(seen) if seen.kind != Kind::File => return Ok(false),
        Some(_) => {}
    }
    let place = root.place(&journal);
    let read = || {
        let file = FileHandle::open(&place)?;
        let (mut first, mut last) = ([0; 8], [0; 8]);
        let size = file.size()?;
        let got = file.read_at(&mut first, 0)?;
        file.read_at(&mut last, size.saturating_sub(8))?;
        // Empty, or with zeros in place of its header: used, and kept for the next time.
        let is_cold = got == 0 || first[0] == 0;
        Ok(is_cold || (first == JOURNAL_MAGIC && (size < 16 || last != JOURNAL_MAGIC)))
    };
    read().map_err(|error| Error::io("read the journal of a database", &place, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(folder: &Path, mode: &str) -> Connection {
        let conn = Connection::open(folder.join("h.db")).expect("opened");
        conn.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).expect("set");
        conn.execute_batch("PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a); INSERT INTO t VALUES(1)").expect("made");
        conn
    }

    /// The lock alone, without the look at processes.
    #[test]
    fn a_log_that_somebody_has_open_is_left_as_it_is() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let conn = database(folder.path(), "WAL");
        let files = || ["h.db", "h.db-wal"].map(|name| std::fs::read(folder.path().join(name)).expect("read"));
        let before = files();
        let root = Root::open(folder.path()).expect("opened");
        assert!(matches!(hold(&root, Path::new("h.db")).expect("looked at"), Standing::Busy));
        assert_eq!(files(), before);
        conn.execute_batch("INSERT INTO t VALUES(2)").expect("it goes on");
    }

    #[test]
    fn a_transaction_of_somebody_else_is_in_the_way() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let conn = database(folder.path(), "DELETE");
        let root = Root::open(folder.path()).expect("opened");
        for begin in ["BEGIN IMMEDIATE", "BEGIN; SELECT * FROM t"] {
            conn.execute_batch(begin).expect("begun");
            assert!(matches!(hold(&root, Path::new("h.db")).expect("looked at"), Standing::Busy), "{begin}");
            conn.execute_batch("ROLLBACK").expect("ended");
        }
    }

    #[test]
    fn what_is_held_opens_to_nobody_and_is_given_back() {
        for kind in ["WAL", "DELETE"] {
            let folder = tempfile::TempDir::new().expect("a folder");
            drop(database(folder.path(), kind));
            let root = Root::open(folder.path()).expect("opened");
            let Standing::Held(held) = hold(&root, Path::new("h.db")).expect("looked at") else { panic!("{kind}") };
            assert!(standing_sidecars(&root, Path::new("h.db")).expect("looked at").is_empty());
            let other = Connection::open(folder.path().join("h.db")).expect("opened");
            other.busy_timeout(Duration::ZERO).expect("set");
            let read = |conn: &Connection| conn.query_row("SELECT sum(a) FROM t", [], |row| row.get::<_, i64>(0));
            assert!(read(&other).is_err_and(|error| is_busy(&error)));
            drop(held);
            assert_eq!(read(&other).expect("read"), 1);
            assert_eq!(mode(&other, "PRAGMA journal_mode").expect("asked"), kind.to_lowercase());
        }
    }

    #[test]
    fn a_journal_that_names_another_file_is_not_rolled_back() {
        let folder = tempfile::TempDir::new().expect("a folder");
        drop(database(folder.path(), "DELETE"));
        let journal = folder.path().join("h.db-journal");
        let root = Root::open(folder.path()).expect("opened");
        for text in [[&JOURNAL_MAGIC[..], &[0; 100], &JOURNAL_MAGIC].concat(), b"somebody's diary".to_vec()] {
            std::fs::write(&journal, &text).expect("written");
            assert!(matches!(hold(&root, Path::new("h.db")).expect("looked at"), Standing::Malformed(_)));
            assert_eq!(std::fs::read(&journal).expect("still there"), text);
        }
        std::fs::write(&journal, [0; 600]).expect("written");
        assert!(matches!(hold(&root, Path::new("h.db")).expect("looked at"), Standing::Held(_)));
    }
}
