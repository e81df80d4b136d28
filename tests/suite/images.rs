//! Large databases that have to be read in full, of which only what differs is saved: each version comes back, whatever
//! was changed, added or cut off, and whoever has it open.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use crate::live_common::Place;
use crate::replaced::taken;
use nbak::snapshot::progress::Silent;
use nbak::snapshot::restore;
use nbak::snapshot::store::{Access, Store};
use nbak::snapshot::take::Taken;

fn snapshot(place: &Place) -> Taken {
    let taken = taken(place, |_| {});
    assert!(taken.unreadable.is_empty(), "{:?}", taken.unreadable);
    taken
}

fn restored(place: &Place, taken: &Taken) -> std::path::PathBuf {
    let store = Store::open(&place.repo, &[], Access::Read).expect("opens");
    let target = place.path(&format!("target-{}", taken.record.id));
    let options = restore::Options { target: target.clone(), ..restore::Options::default() };
    restore::restore(&store, &taken.record, &options, &Silent).expect("restored");
    target
}

fn rows(path: &Path) -> Vec<(i64, Vec<u8>)> {
    let conn = Connection::open(path).expect("opens");
    let ok: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a verdict");
    assert_eq!(ok, "ok", "{}", path.display());
    let mut all = conn.prepare("SELECT id, v FROM t ORDER BY id").expect("asked");
    let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

fn made(path: &Path, page_size: u32, mode: &str) -> Connection {
    let conn = Connection::open(path).expect("opens");
    let sql = format!(
        "PRAGMA page_size={page_size}; PRAGMA journal_mode={mode}; PRAGMA wal_autocheckpoint=0;
         CREATE TABLE t(id INTEGER PRIMARY KEY, v);
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<1500)
         INSERT INTO t SELECT i, randomblob(1500) FROM n"
    );
    conn.execute_batch(&sql).expect("made");
    conn
}

/// How many chunks may be new, of a database of so many pages.
type Most = fn(u64) -> u64;

/// What is done to it, and what that may add.
const STEPS: [(&str, Most); 7] = [
    ("UPDATE t SET v=randomblob(1500) WHERE id IN (1, 700, 1500)", |_| 8),
    ("INSERT INTO t SELECT id+100000, randomblob(1500) FROM t WHERE id<60", |pages| pages / 10 + 8),
    ("DELETE FROM t WHERE id>100000; VACUUM", |pages| pages + 1),
    ("UPDATE t SET v=zeroblob(1500) WHERE id BETWEEN 300 AND 310", |_| 16),
    ("UPDATE t SET v=randomblob(1500)", |pages| pages + 1),
    ("DELETE FROM t WHERE id>1200; VACUUM", |pages| pages + 1),
    ("UPDATE t SET v=randomblob(1400) WHERE id=5", |_| 4),
];

#[test]
fn each_version_of_a_large_database_comes_back() {
    for (page_size, mode) in [(4096, "DELETE"), (4096, "WAL"), (8192, "WAL"), (65_536, "DELETE"), (1024, "WAL")] {
        for is_open in [false, true] {
            let place = Place::new();
            let path = place.data.join("app.db");
            let mut conn = Some(made(&path, page_size, mode));
            snapshot(&place);
            for (nth, (sql, most)) in STEPS.into_iter().enumerate() {
                let app = conn.take().unwrap_or_else(|| Connection::open(&path).expect("opens"));
                app.execute_batch(sql).expect("done");
                // So that its log says nothing of what it was.
                app.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("copied");
                if nth % 2 == 0 {
                    app.execute_batch("UPDATE t SET v=randomblob(1500) WHERE id=9").expect("done");
                }
                conn = is_open.then_some(app);
                let what = format!("{page_size}, {mode}, {is_open}, {nth}");
                let taken = snapshot(&place);
                assert_eq!((taken.record.totals.databases, taken.entries[0].by_log), (1, false), "{what}");
                let pages = fs::metadata(&path).expect("there").len() / u64::from(page_size);
                if page_size >= 4096 {
                    assert!(taken.new_chunks <= most(pages) + 4, "{what}: {} of {pages}", taken.new_chunks);
                }
                assert!(rows(&restored(&place, &taken).join("app.db")) == rows(&path), "{what}");
            }
        }
    }
}

/// SQLite has one shared memory for a file, whatever names it has: it is closed under the one before it is opened under
/// the other, also while another core reads it.
#[test]
fn a_large_database_with_two_names_is_read_under_each() {
    let place = Place::new();
    let (one, other) = (place.data.join("a.db"), place.data.join("z.db"));
    let conn = made(&one, 4096, "WAL");
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("copied");
    fs::hard_link(&one, &other).expect("a second name");
    snapshot(&place);
    for _ in 0..3 {
        conn.execute_batch("UPDATE t SET v=randomblob(1500) WHERE id%100=1").expect("done");
        conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("copied");
        conn.execute_batch("UPDATE t SET v=randomblob(1500) WHERE id=9").expect("done");
        let target = restored(&place, &snapshot(&place));
        assert!(rows(&target.join("a.db")) == rows(&one));
        // Beside that name lies no log.
        let is_other = |row: &&(i64, Vec<u8>)| row.0 != 9;
        let (there, here) = (rows(&target.join("z.db")), rows(&one));
        assert!(there.iter().filter(is_other).eq(here.iter().filter(is_other)));
    }
}
