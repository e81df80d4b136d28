//! Databases of a backup: copied by `VACUUM INTO`, checked by `integrity_check`, never written to.
//!
//! A database that lies in a backup or in scratch has no other user. It is opened as *immutable*: SQLite then takes no
//! lock, looks for no log and leaves no `-wal` or `-shm` beside it. Its content came from the data directory, where
//! anybody's mail may lie, so nothing that its schema names is trusted: no function with side effects, no extension.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Pages that a connection may keep in memory, in KiB.
const CACHE: i32 = 8 * 1024;
/// Lines of a failed check that are told.
const LINES: usize = 5;

/// Why SQLite did not do what it was asked for, in its words.
#[derive(Debug)]
pub enum Failure {
    /// It is about the machine: a full disk, an I/O error. It says nothing about the database.
    Machine(String),
    /// It is about the database: malformed, or in need of something that only the application has.
    Database(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied,
            ) => Failure::Machine(error.to_string()),
            _ => Failure::Database(error.to_string()),
        }
    }
}

/// Copies the database at `from`, which nobody writes to, into the new file `to`, as one compact database without a
/// log.
pub fn vacuum_into(from: &Path, to: &Path) -> Result<(), Failure> {
    let connection = open(from)?;
    // The copy is synced by whoever keeps it.
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.execute("VACUUM INTO ?1", [uri(to, "")])?;
    Ok(())
}

/// Runs `PRAGMA integrity_check` on the database at `path`; what it found, if it is not sound.
pub fn integrity(path: &Path) -> Result<(), Failure> {
    let connection = open(path)?;
    let check = |connection: &Connection| -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare(&format!("PRAGMA integrity_check({LINES})"))?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    match check(&connection) {
        Ok(lines) if lines == ["ok"] => Ok(()),
        Ok(lines) => Err(Failure::Database(lines.join("; "))),
        Err(error) => Err(error.into()),
    }
}

fn open(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri(path, "?immutable=1"), flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    Ok(connection)
}

/// SQLite's URI for the file at `path`, which must be absolute: every byte that could mean something in one is spelt
/// out.
fn uri(path: &Path, parameters: &str) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str(parameters);
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_compact_and_nothing_is_left_beside_the_original() {
        let place = tempfile::tempdir().expect("a folder");
        let from = place.path().join("odd ?#% name.db");
        let writer = Connection::open(&from).expect("open");
        writer
            .execute_batch(
                "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1),(2); DELETE FROM t WHERE a=1",
            )
            .expect("filled");
        writer.close().expect("closed");
        let to = place.path().join("copy");
        vacuum_into(&from, &to).expect("copied");
        integrity(&to).expect("sound");
        integrity(&from).expect("sound");
        let rows: i64 =
            Connection::open(&to).and_then(|c| c.query_row("SELECT sum(a) FROM t", [], |r| r.get(0))).expect("rows");
        assert_eq!(rows, 2);
        assert_eq!(std::fs::read_dir(place.path()).expect("a folder").count(), 2, "no sidecars");
    }

    #[test]
    fn what_is_not_sound_is_said() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("db");
        let writer = Connection::open(&path).expect("open");
        writer
            .execute_batch("CREATE TABLE t(a); CREATE INDEX i ON t(a); INSERT INTO t VALUES(1),(2),(3)")
            .expect("filled");
        writer.close().expect("closed");
        let mut bytes = std::fs::read(&path).expect("read");
        let end = bytes.len() - 40;
        bytes[end..].fill(0xff);
        std::fs::write(&path, &bytes).expect("written");
        assert!(integrity(&path).is_err());
        std::fs::write(&path, b"SQLite format 3\0 and no more").expect("written");
        assert!(integrity(&path).is_err() && vacuum_into(&path, &place.path().join("copy")).is_err());
    }
}
