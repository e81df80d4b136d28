//! Databases that nobody else has open: in a backup, or in scratch space.
//!
//! Such a one is opened as *immutable*: SQLite then takes no lock, looks for no log and leaves no `-wal` or `-shm`
//! beside it. Its content came from the data directory, where anybody's mail may lie, so nothing that its schema names
//! is trusted: no function with side effects, no extension.
//!
//! [`inspect`] is all that can be said of one without knowing the application: whether it is sound, how many rows its
//! tables have, and which of them refer to rows that are not there.

use std::collections::BTreeMap;
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

/// The longest name of a table that is told, in bytes.
const LONGEST_NAME: usize = 1000;

/// What there is in a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Its tables, and how many rows each has.
    pub rows: BTreeMap<String, u64>,
    /// Tables that were not counted, as there are too many.
    pub not_counted: u64,
    /// Tables with rows that refer to rows that are not there, and how many such.
    pub violations: BTreeMap<String, u64>,
    /// What could not be looked at, since it takes something that only the application has.
    pub remarks: Vec<String>,
}

/// Runs `PRAGMA integrity_check` on the database at `path`; what it found, if it is not sound.
pub fn integrity(path: &Path) -> Result<(), Failure> {
    match check(&open(path)?) {
        Ok(lines) if lines == ["ok"] => Ok(()),
        Ok(lines) => Err(Failure::Database(lines.join("; "))),
        Err(error) => Err(error.into()),
    }
}

fn check(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({LINES})"))?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Opens the database at `path`, which must be absolute and which nobody else has open, to read it.
pub fn open(path: &Path) -> Result<Connection, Failure> {
    open_as(&uri(path, "?immutable=1"), OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn open_as(uri: &str, access: OpenFlags) -> Result<Connection, Failure> {
    let flags = access | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    Ok(connection)
}

/// SQLite's URI for the file at `path`, which must be absolute: every byte that could mean something in one is spelt
/// out.
pub fn uri(path: &Path, parameters: &str) -> String {
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

/// Looks into the database at `path`, which must be absolute and which nobody else has open; fails if it is not sound.
/// Rows are counted of `most` tables. One that is not `alone` has a log or a journal beside it, which belongs to it:
/// that is played in first, as its application would do.
pub fn inspect(path: &Path, alone: bool, most: usize) -> Result<Inspected, Failure> {
    let connection = if alone { open(path)? } else { open_as(&uri(path, ""), OpenFlags::SQLITE_OPEN_READ_WRITE)? };
    let mut inspected = Inspected::default();
    match check(&connection) {
        Ok(lines) if lines == ["ok"] => {}
        Ok(lines) => return Err(Failure::Database(lines.join("; "))),
        Err(error) => inspected.remark("it could not be checked", error)?,
    }
    match foreign_keys(&connection) {
        Ok(violations) => inspected.violations = violations,
        Err(error) => inspected.remark("its foreign keys could not be checked", error)?,
    }
    let names = tables(&connection)?;
    for name in names.iter().filter(|name| name.len() <= LONGEST_NAME).take(most) {
        let quoted = name.replace('"', "\"\"");
        let count =
            connection.query_row(&format!("SELECT count(*) FROM main.\"{quoted}\""), [], |row| row.get::<_, i64>(0));
        match count {
            Ok(count) => drop(inspected.rows.insert(name.clone(), count.cast_unsigned())),
            Err(error) => inspected.remark(&format!("the rows of {name} could not be counted"), error)?,
        }
    }
    inspected.not_counted = (names.len() - inspected.rows.len()) as u64;
    Ok(inspected)
}

impl Inspected {
    /// Remarks on what `error` kept from being done, unless it says something of the database or the machine.
    fn remark(&mut self, what: &str, error: rusqlite::Error) -> Result<(), Failure> {
        let words = error.to_string();
        // A collation, a function or a module of the application's own. What is damaged has other words, and other
        // codes.
        let is_missing = ["no such", "unsafe use", "foreign key mismatch"].iter().any(|begin| words.starts_with(begin));
        if error.sqlite_error_code() == Some(ErrorCode::Unknown) && is_missing {
            self.remarks.push(format!("{what}: {words}"));
            return Ok(());
        }
        Err(error.into())
    }
}

/// The tables that have rows of their own, by name.
fn tables(connection: &Connection) -> Result<Vec<String>, Failure> {
    let all = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0 \
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    let mut statement = connection.prepare(all)?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(names)
}

fn foreign_keys(connection: &Connection) -> rusqlite::Result<BTreeMap<String, u64>> {
    let mut violations = BTreeMap::new();
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        *violations.entry(row.get(0)?).or_default() += 1;
    }
    Ok(violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(path: &Path, sql: &str) {
        let writer = Connection::open(path).expect("open");
        writer.execute_batch(sql).expect("filled");
        writer.close().expect("closed");
    }

    #[test]
    fn rows_are_counted_and_what_refers_to_nothing() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("db");
        database(
            &path,
            "PRAGMA journal_mode=WAL; CREATE TABLE \"a \"\"b\"(x PRIMARY KEY); CREATE TABLE c(y REFERENCES \"a \"\"b\");
             CREATE TABLE z(i INTEGER PRIMARY KEY AUTOINCREMENT); CREATE VIEW v AS SELECT 1;
             INSERT INTO \"a \"\"b\" VALUES(1),(2); PRAGMA foreign_keys=OFF; INSERT INTO c VALUES(1),(7),(8),(NULL)",
        );
        let found = inspect(&path, true, 10).expect("sound");
        assert_eq!(found.rows, [("a \"b".to_owned(), 2), ("c".to_owned(), 4), ("z".to_owned(), 0)].into());
        assert_eq!(found.violations, [("c".to_owned(), 2)].into());
        assert_eq!((found.not_counted, found.remarks.len()), (0, 0));
        assert_eq!(inspect(&path, true, 1).expect("sound").not_counted, 2);
        assert_eq!(std::fs::read_dir(place.path()).expect("a folder").count(), 1, "no sidecars");
    }

    #[test]
    fn what_only_the_application_has_is_a_remark() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("db");
        database(
            &path,
            "CREATE TABLE t(a TEXT COLLATE nocase); CREATE INDEX i ON t(a); INSERT INTO t VALUES('x'),('y');
             PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = replace(sql, 'nocase', 'theirs')",
        );
        let found = inspect(&path, true, 10).expect("nothing is wrong with it");
        assert!(found.remarks.iter().any(|remark| remark.contains("theirs")), "{found:?}");
    }

    #[test]
    fn a_log_that_belongs_to_it_is_played_in() {
        let place = tempfile::tempdir().expect("a folder");
        let (path, copy) = (place.path().join("db"), place.path().join("copy"));
        let writer = Connection::open(&path).expect("open");
        writer.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)").expect("filled");
        std::fs::copy(&path, &copy).expect("copied");
        std::fs::copy(place.path().join("db-wal"), place.path().join("copy-wal")).expect("copied");
        assert_eq!(inspect(&copy, false, 10).expect("sound").rows, [("t".to_owned(), 1)].into());
    }
}
