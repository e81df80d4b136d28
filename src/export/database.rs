//! Databases of a backup: copied by `VACUUM INTO`, checked by `integrity_check`, never written to.
//!
//! A database that lies in a backup or in scratch has no other user, and is opened as such
//! ([`inspect`](crate::source::sqlite::inspect)).

use std::path::Path;

use super::files::create;
pub use crate::source::sqlite::inspect::{Failure, integrity};
use crate::source::sqlite::inspect::{open, uri};

/// Copies the database at `from`, which nobody writes to, into the new file `to`, as one compact database without a
/// log.
pub fn vacuum_into(from: &Path, to: &Path) -> Result<(), Failure> {
    let connection = open(from)?;
    // The copy is synced by whoever keeps it.
    connection.pragma_update(None, "synchronous", "OFF")?;
    // Plaintext: nobody else's from its first moment on. SQLite takes a file that is empty.
    create(to).map_err(|error| Failure::Machine(error.to_string()))?;
    connection.execute("VACUUM INTO ?1", [uri(to, "")])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

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
