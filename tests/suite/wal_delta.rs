//! Databases captured by their logs: whatever happens to a database between two snapshots, what is stored of it is what
//! reading all of it gives, id for id (I19).
//!
//! `NBAK_TEST_CAPTURE_ROUNDS` multiplies the rounds, `NBAK_TEST_SEED` repeats a run.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::live_common::{KEY, Place, Random, seed};
use nbak::crypto::secret::Credential;
use nbak::snapshot::look;
use nbak::snapshot::marks::MOST;
use nbak::snapshot::progress::Silent;
use nbak::snapshot::record::Record;
use nbak::snapshot::store::{Access, Store};
use nbak::snapshot::take::{Options, Taken, take};
use nbak::snapshot::tree::{Consistency, Content, Entry, Node};
use nbak::source::sqlite::Database;
use rusqlite::Connection;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).expect("open");
    conn.busy_timeout(Duration::from_secs(10)).expect("timeout");
    conn.execute_batch("PRAGMA synchronous=OFF").expect("off");
    conn
}

/// Turns the log on, and makes the table, in which the sum of `v` is always zero.
fn prepare(conn: &Connection, random: &mut Random) {
    let vacuum = ["NONE", "FULL", "INCREMENTAL"][random.below(3) as usize];
    let limit = [20, 100, 1000, 1000][random.below(4) as usize];
    conn.execute_batch(&format!("PRAGMA auto_vacuum={vacuum}; PRAGMA wal_autocheckpoint={limit}")).expect("pragmas");
    conn.execute_batch("PRAGMA journal_mode=WAL").expect("a log");
    conn.execute_batch("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v INT, pad BLOB)").expect("a table");
    conn.execute_batch("CREATE INDEX IF NOT EXISTS i ON t(v)").expect("an index");
}

fn try_all(conn: &Connection, sql: &str) {
    if conn.execute_batch(sql).is_err() && !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK").expect("rollback");
    }
}

/// One commit, of a few pages mostly.
fn commit(conn: &Connection, random: &mut Random) {
    let (rows, bytes) = (1 + random.below(6), [0, 100, 900, 5000, 40_000][random.below(5) as usize]);
    let (n, from) = (1 + random.below(50), random.below(300));
    let sql = match random.below(8) {
        0..4 => format!(
            "BEGIN IMMEDIATE; WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<{rows})
             INSERT INTO t SELECT NULL, {n}, randomblob({bytes}) FROM n;
             INSERT INTO t(v, pad) SELECT -{n}*changes(), NULL; COMMIT"
        ),
        4 | 5 => format!("UPDATE t SET pad=randomblob(length(pad)) WHERE id BETWEEN {from} AND {from}+{n}"),
        6 => format!("DELETE FROM t WHERE v=0 AND id%{}=0", 2 + random.below(5)),
        _ => format!(
            "BEGIN IMMEDIATE; INSERT INTO t(v, pad) VALUES({n}, zeroblob({bytes})), (-{n}, zeroblob({bytes})); {}",
            ["COMMIT", "ROLLBACK"][random.below(2) as usize]
        ),
    };
    try_all(conn, &sql);
}

// ---- the second process -------------------------------------------------------------------------

const WRITER: &str = "NBAK_TEST_WAL_DELTA_WRITER";

/// Writes until it is killed, or its standard input ends.
fn writer(path: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", own_name!("second_process"), "--nocapture"])
        .env(WRITER, path)
        .env("NBAK_TEST_WAL_DELTA_SEED", seed.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("spawn")
}

/// Not a test but the body of the second process.
#[test]
fn second_process() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let Some(path) = std::env::var_os(WRITER) else { return };
    let seed = std::env::var("NBAK_TEST_WAL_DELTA_SEED").ok().and_then(|seed| seed.parse().ok()).expect("a seed");
    std::thread::spawn(|| {
        let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0; 1]);
        STOP.store(true, Ordering::Relaxed);
    });
    let mut random = Random::new(seed);
    let conn = open(&PathBuf::from(path));
    while !STOP.load(Ordering::Relaxed) {
        match random.below(12) {
            0 => try_all(&conn, "PRAGMA wal_checkpoint(PASSIVE)"),
            1 if random.below(4) == 0 => {
                // It would wait for a reader that has no reason to end.
                conn.busy_timeout(Duration::ZERO).expect("timeout");
                try_all(&conn, "PRAGMA wal_checkpoint(TRUNCATE)");
                conn.busy_timeout(Duration::from_secs(10)).expect("timeout");
            }
            2 => std::thread::sleep(Duration::from_millis(random.below(8))),
            _ => commit(&conn, &mut random),
        }
    }
}

// ---- the application, and its snapshots -----------------------------------------------------------

struct Scene {
    place: Place,
    path: PathBuf,
    /// Connections that the application holds.
    apps: Vec<Connection>,
    /// One that may be in a read transaction.
    reader: Option<Connection>,
    random: Random,
    by_log: u32,
    whole: u32,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let place = Place::new();
        let path = place.data.join("app.db");
        let mut random = Random::new(seed);
        let app = open(&path);
        prepare(&app, &mut random);
        Scene { place, path, apps: vec![app], reader: None, random, by_log: 0, whole: 0 }
    }

    fn app(&mut self) -> &Connection {
        if self.apps.is_empty() {
            let app = open(&self.path);
            prepare(&app, &mut self.random);
            self.apps.push(app);
        }
        &self.apps[0]
    }

    /// What happens to the database until the next snapshot.
    fn step(&mut self) -> String {
        let kind = self.random.below(40);
        let pick = self.random.below(4) as usize;
        match kind {
            0..20 => {
                for _ in 0..=self.random.below(5) {
                    let mut random = Random::new(self.random.next());
                    commit(self.app(), &mut random);
                }
                "commits".to_owned()
            }
            20..23 => {
                let sql = format!("PRAGMA wal_checkpoint({})", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][pick]);
                self.app().busy_timeout(Duration::ZERO).expect("timeout");
                try_all(self.app(), &sql);
                self.app().busy_timeout(Duration::from_secs(10)).expect("timeout");
                sql
            }
            23 => {
                try_all(self.app(), "BEGIN IMMEDIATE; COMMIT");
                "an empty transaction".to_owned()
            }
            24 | 25 => {
                let sql = ["VACUUM", "PRAGMA incremental_vacuum", "PRAGMA incremental_vacuum(3)", "REINDEX"][pick];
                try_all(self.app(), sql);
                sql.to_owned()
            }
            26 => {
                try_all(self.app(), "DELETE FROM t WHERE v=0 OR id IN (SELECT id FROM t WHERE v=0 LIMIT 100)");
                try_all(self.app(), "PRAGMA incremental_vacuum");
                "it shrinks".to_owned()
            }
            27 => {
                self.reader = None;
                self.apps.clear();
                "the last one closes".to_owned()
            }
            28 => self.change_page_size(),
            29 | 30 => {
                let path = self.path.clone();
                let old = self.reader.get_or_insert_with(|| open(&path));
                try_all(old, "COMMIT");
                let _ = old.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema");
                "a reader begins".to_owned()
            }
            31 | 32 => {
                self.reader = None;
                "no reader".to_owned()
            }
            33 if pick == 0 => {
                self.reader = None;
                self.apps.clear();
                for suffix in ["", "-wal", "-shm"] {
                    let _ = fs::remove_file(self.place.data.join(format!("app.db{suffix}")));
                }
                let mut random = Random::new(self.random.next());
                let app = self.app();
                (0..20).for_each(|_| commit(app, &mut random));
                "deleted and made anew".to_owned()
            }
            34..37 => self.killed_writer(),
            37 | 38 => self.snapshots_under_a_writer(),
            _ => "nothing".to_owned(),
        }
    }

    fn change_page_size(&mut self) -> String {
        self.reader = None;
        self.apps.truncate(1);
        let size = [512, 1024, 4096, 4096, 8192, 65_536][self.random.below(6) as usize];
        let sql = format!("PRAGMA journal_mode=DELETE; PRAGMA page_size={size}; VACUUM");
        try_all(self.app(), &sql);
        self.apps.clear();
        self.app();
        sql
    }

    fn killed_writer(&mut self) -> String {
        let close = self.random.below(3) == 0;
        if close {
            // Then the next opener recovers the log.
            self.reader = None;
            self.apps.clear();
        } else {
            self.app();
        }
        let mut child = writer(&self.path, self.random.next());
        std::thread::sleep(Duration::from_millis(20 + self.random.below(30)));
        child.kill().expect("killed");
        child.wait().expect("gone");
        format!("a writer is killed, {}", if close { "alone" } else { "beside the application" })
    }

    fn snapshots_under_a_writer(&mut self) -> String {
        self.app();
        let mut child = writer(&self.path, self.random.next());
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(self.random.below(15)));
            let (taken, image) = self.snapshot();
            self.assert_sound(&image, &taken);
        }
        drop(child.stdin.take());
        assert!(child.wait().expect("an end").success());
        "snapshots while somebody writes".to_owned()
    }

    fn take(&self, full_scan: bool) -> Taken {
        let source = self.place.data.clone();
        let options = Options { source, full_scan, dry_run: full_scan, ..Options::default() };
        let mut store =
            Store::open_or_create(&self.place.repo, &credentials(), Duration::from_secs(30), 0).expect("a store");
        take(&mut store, &options, &Silent).expect("a snapshot")
    }

    /// Takes a snapshot, and answers with the image that it holds.
    fn snapshot(&mut self) -> (Taken, Vec<u8>) {
        let taken = self.take(false);
        assert!(taken.unreadable.is_empty(), "{:?}", taken.unreadable);
        let listed = taken.entries.iter().find(|entry| entry.path == Path::new("app.db")).expect("it is listed");
        assert_eq!(listed.consistency, Consistency::Transaction);
        *(if listed.by_log { &mut self.by_log } else { &mut self.whole }) += 1;
        let store = Store::open(&self.place.repo, &credentials(), Access::Read).expect("a store");
        let (size, content) = content(&store, &taken.record);
        let mut image = Vec::new();
        look::cat(&store, size, &content, &mut image).expect("restored");
        (taken, image)
    }

    /// Takes a snapshot while nobody writes, and holds it against a copy by the backup API and a full scan.
    fn assert_snapshot(&mut self, what: &str) {
        let (taken, image) = self.snapshot();
        let full = self.take(true);
        assert!(full.unreadable.is_empty(), "{what}: {:?}", full.unreadable);
        assert!(full.entries.iter().all(|entry| !entry.by_log));
        // A directory's id is over what is in it: the ids of recipes too.
        assert_eq!(full.record.tree, taken.record.tree, "{what}: {:?}", taken.entries);
        assert_eq!(full.new_chunks, 0, "{what}");
        let scratch = self.place.path("scratch");
        fs::create_dir_all(&scratch).expect("a folder");
        let mut copy = Database::open_backup(&self.path, &scratch).expect("a copy");
        let mut expected = vec![0; copy.len() as usize];
        copy.read_at(0, &mut expected).expect("read");
        // What the backup API sets in the copy's page 1: see tests/capture.rs.
        for at in [24, 40, 92, 96] {
            expected[at..at + 4].copy_from_slice(&image[at..at + 4]);
        }
        assert_eq!(image.len(), expected.len(), "{what}");
        assert!(image == expected, "{what}");
    }

    fn assert_sound(&self, image: &[u8], taken: &Taken) {
        let path = self.place.path("check.db");
        fs::write(&path, image).expect("written");
        let conn = open(&path);
        let ok: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a verdict");
        let sum: i64 = conn.query_row("SELECT coalesce(sum(v), 0) FROM t", [], |row| row.get(0)).expect("a sum");
        assert_eq!((ok.as_str(), sum), ("ok", 0), "{:?}", taken.entries);
        drop(conn);
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(self.place.path(&format!("check.db{suffix}")));
        }
    }
}

fn credentials() -> [Credential; 1] {
    [Credential::VaultKey(KEY.to_owned())]
}

fn content(store: &Store, record: &Record) -> (u64, Content) {
    match look::find(store, record, Path::new("app.db")).expect("it is there") {
        look::Place::Entry(Entry { node: Node::File { size, content, .. }, .. }) => (size, content),
        _ => panic!("not a file"),
    }
}

fn rounds(n: u64) -> u64 {
    n * std::env::var("NBAK_TEST_CAPTURE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

#[test]
fn whatever_happens_a_capture_by_the_log_is_what_reading_all_gives() {
    let seed = seed("wal_delta");
    let (mut by_log, mut whole) = (0, 0);
    for number in 0..rounds(1) + 4 {
        // A row whose steps mostly begin the log anew has hardly any by the log: then others have to show some.
        if number >= rounds(1) && by_log * 10 > by_log + whole {
            break;
        }
        let mut scene = Scene::new(seed.wrapping_add(number));
        let mut random = Random::new(scene.random.next());
        let app = scene.app();
        (0..30).for_each(|_| commit(app, &mut random));
        let began = Instant::now();
        // A row of steps that makes the database large is cut short, unless many rows were asked for.
        for round in (0..50).take_while(|_| rounds(1) > 1 || began.elapsed() < Duration::from_secs(15)) {
            let what = format!("seed {seed}, round {round}: {}", scene.step());
            scene.assert_snapshot(&what);
        }
        scene.place.check();
        by_log += scene.by_log;
        whole += scene.whole;
    }
    println!("{by_log} captures by the log, {whole} of all or none");
    assert!(by_log * 10 > by_log + whole, "{by_log} of {}", by_log + whole);
}

/// An application that is left to itself: it holds its connection, commits, and every hundred frames or so its log is
/// copied and begun anew. Nothing of that is a reason to read all of it.
#[test]
fn a_log_that_is_begun_anew_now_and_then_is_followed() {
    let mut scene = Scene::new(seed("begun anew"));
    scene.app().execute_batch("PRAGMA wal_autocheckpoint=100; PRAGMA cache_size=10").expect("pragmas");
    // Once the log was a long one; what is left of that tells where later ones ended.
    scene.app().execute_batch("INSERT INTO t(v, pad) VALUES(0, randomblob(900000)); DELETE FROM t").expect("written");
    for _ in 0..20 {
        scene.app().execute_batch("INSERT INTO t(v, pad) VALUES(0, randomblob(9000))").expect("written");
    }
    scene.snapshot();
    let log = scene.place.data.join("app.db-wal");
    let salts = |log: &Path| fs::read(log).expect("a log")[16..24].to_vec();
    let (mut before, mut anew, mut by_log) = (salts(&log), 0, 0);
    for round in 0..40 {
        for _ in 0..=scene.random.below(3) {
            let (from, bytes) = (scene.random.below(20), scene.random.below(20_000));
            let rolled_back = format!("BEGIN; UPDATE t SET pad=randomblob({bytes}) WHERE id<9; ROLLBACK");
            let kept = format!("UPDATE t SET pad=randomblob({bytes}) WHERE id={from}; INSERT INTO t(v) VALUES(0)");
            scene.app().execute_batch(&kept).expect("written");
            if scene.random.below(30) == 0 {
                scene.app().execute_batch(&rolled_back).expect("rolled back");
            }
        }
        let now = salts(&log);
        anew += u32::from(now != before);
        before = now;
        let before_it = scene.by_log;
        scene.assert_snapshot(&format!("round {round}"));
        by_log += scene.by_log - before_it;
    }
    println!("{by_log} of 40 by the log, which was begun anew before {anew} of them");
    // Where a rollback left frames behind that lead nowhere, it is not.
    assert!(anew >= 3 && 40 - by_log < anew, "{by_log} of 40 by the log, begun anew before {anew} of them");
}

// ---- what is held against the log -----------------------------------------------------------------

/// A page is written past SQLite: the log does not know, and only who reads all of it sees.
fn write_past_sqlite(scene: &Scene) {
    // Never closed: that would drop the locks of the connections in this process.
    let file = fs::OpenOptions::new().read(true).write(true).open(&scene.path).expect("open");
    let mut page = [0; 4096];
    file.read_exact_at(&mut page, 30 * 4096).expect("read");
    page[2000..2100].fill(7);
    file.write_all_at(&page, 30 * 4096).expect("write");
    std::mem::forget(file);
}

/// A database of some pages, all of them in the file, with a log that goes on.
fn settled() -> Scene {
    let mut scene = Scene::new(1);
    scene.app().execute_batch("PRAGMA wal_autocheckpoint=0").expect("no checkpoints");
    scene.app().execute_batch("INSERT INTO t(v, pad) VALUES(0, randomblob(400000))").expect("written");
    scene.app().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("copied");
    scene.app().execute_batch("INSERT INTO t(v, pad) VALUES(0, NULL)").expect("written");
    let (taken, _) = scene.snapshot();
    assert!(!taken.entries[0].by_log, "the first time, all of it is read");
    scene.app().execute_batch("UPDATE t SET pad=randomblob(50) WHERE id=2").expect("written");
    assert!(scene.snapshot().0.entries[0].by_log);
    scene
}

/// Copies a part of the log into the file, as checkpoints do beside a reader: then the file's time says nothing any
/// more. The log goes on for as long as the reader is there.
fn checkpoint(scene: &mut Scene) -> Connection {
    let reader = open(&scene.path);
    reader.execute_batch("BEGIN; SELECT count(*) FROM t").expect("a reader");
    scene.app().execute_batch("UPDATE t SET pad=randomblob(50) WHERE id=2").expect("written");
    scene.app().execute_batch("PRAGMA wal_checkpoint(PASSIVE)").expect("copied");
    reader
}

#[test]
fn what_was_written_past_a_log_that_nobody_copied_is_found_at_once() {
    for is_put_back in [false, true] {
        let mut scene = settled();
        let was = fs::metadata(&scene.path).expect("there");
        write_past_sqlite(&scene);
        if is_put_back {
            let times = [(was.atime(), was.atime_nsec()), (was.mtime(), was.mtime_nsec())];
            let [last_access, last_modification] = times.map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec });
            utimensat(CWD, &scene.path, &Timestamps { last_access, last_modification }, AtFlags::empty()).expect("set");
        }
        scene.app().execute_batch("UPDATE t SET pad=randomblob(50) WHERE id=2").expect("written");
        let taken = scene.take(false);
        let said = &taken.unreadable;
        assert!(!taken.entries[0].by_log && said[0].reason.contains("past SQLite"), "{is_put_back}: {said:?}");
        scene.assert_snapshot("after that");
    }
}

/// The application was killed; its log of an earlier time is copied back over the one that it left.
#[test]
fn an_earlier_log_that_comes_back_is_found() {
    let mut scene = settled();
    let log = scene.place.data.join("app.db-wal");
    let earlier = fs::read(&log).expect("a log");
    scene.app().execute_batch("PRAGMA wal_checkpoint(RESTART); UPDATE t SET pad=randomblob(50)").expect("written");
    scene.app().execute_batch("PRAGMA wal_checkpoint(FULL)").expect("copied");
    // As a kill does it: nothing is copied or deleted when the last one goes.
    for app in scene.apps.drain(..) {
        app.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("a setting");
    }
    fs::write(&log, earlier).expect("copied back");
    let taken = scene.take(false);
    assert!(!taken.entries[0].by_log, "the log is that of the mark, and the file is another one");
}

#[test]
fn what_the_log_does_not_know_is_found_when_all_is_read() {
    let mut scene = settled();
    let _reader = checkpoint(&mut scene);
    write_past_sqlite(&scene);
    scene.app().execute_batch("UPDATE t SET pad=randomblob(50) WHERE id=2").expect("written");
    // The log says nothing of it, so neither does a capture that goes by it.
    assert!(scene.snapshot().0.entries[0].by_log);

    let run = scene.place.run(["snapshot", "--json", "--full-scan"]).exits(3);
    let run = run.says(&["app.db: this snapshot has all of it, but 1 of its pages, the first of them page 31", "2 by"]);
    let said = run.json();
    assert_eq!((&said["entries"][0]["by_log"], &said["unreadable"]), (&false.into(), &1.into()), "{said}");
    // It is right, and it is where the next ones go on from.
    scene.assert_snapshot("after that");
    scene.app().execute_batch("UPDATE t SET pad=randomblob(50) WHERE id=2").expect("written");
    assert!(scene.snapshot().0.entries[0].by_log);
    let run = scene.place.ok(["snapshot", "-v", "--full-scan"]);
    assert!(!run.err.contains("read by its log"));
    scene.app().execute_batch("UPDATE t SET pad=randomblob(50) WHERE id=2").expect("written");
    let said = scene.place.ok(["snapshot", "-v", "--json"]).says(&["read by its log: app.db"]).json();
    assert_eq!(said["entries"][0]["by_log"], true);
    scene.place.check();
}

#[test]
fn all_is_read_again_after_so_many_captures() {
    let mut scene = settled();
    let _reader = checkpoint(&mut scene);
    for n in 1..=MOST + 1 {
        if n == MOST - 1 {
            write_past_sqlite(&scene);
        }
        scene.app().execute_batch("UPDATE t SET pad=randomblob(50) WHERE id=2").expect("written");
        let taken = scene.take(false);
        let is_due = n == MOST;
        assert_eq!((taken.entries[0].by_log, taken.unreadable.len()), (!is_due, usize::from(is_due)), "{n}");
    }
    scene.assert_snapshot("after that");
}

/// What is only copied, deleted, or held by another reader: the log is gone or another one, and all is read.
#[test]
fn a_log_that_is_not_the_same_is_not_gone_by() {
    type Step<'a> = (&'a str, &'a dyn Fn(&mut Scene));

    let mut scene = settled();
    let replace = |scene: &mut Scene| {
        scene.apps.clear();
        let copy = scene.place.data.join("copy");
        fs::copy(&scene.path, &copy).expect("copied");
        fs::rename(copy, &scene.path).expect("replaced");
    };
    let steps: [Step<'_>; 4] = [
        ("another log", &|scene| {
            scene
                .app()
                .execute_batch("PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET pad=randomblob(50) WHERE id=2")
                .expect("written");
        }),
        ("another file", &replace),
        ("another mode", &|scene| scene.app().execute_batch("PRAGMA journal_mode=DELETE").expect("a mode")),
        ("back again", &|scene| scene.app().execute_batch("PRAGMA journal_mode=WAL").expect("a mode")),
    ];
    for (what, act) in steps {
        act(&mut scene);
        scene.app().execute_batch("UPDATE t SET pad=randomblob(50) WHERE id=2").expect("written");
        let (taken, _) = scene.snapshot();
        assert!(!taken.entries[0].by_log, "{what}");
        scene.assert_snapshot(what);
    }
    scene.app().execute_batch("UPDATE t SET pad=randomblob(50) WHERE id=2").expect("written");
    let (taken, _) = scene.snapshot();
    assert!(taken.entries[0].by_log, "the new log is gone by");
    let notes = || -> Vec<PathBuf> {
        let all = fs::read_dir(&scene.place.repo).expect("a folder").map(|entry| entry.expect("an entry").path());
        all.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("note-"))).collect()
    };
    let write =
        |scene: &Scene| scene.apps[0].execute_batch("UPDATE t SET pad=randomblob(50) WHERE id=2").expect("written");
    // Notes of an earlier snapshot are none of the parent: whoever left them did not get to the end of the next one.
    let earlier: Vec<_> = notes().into_iter().map(|path| (fs::read(&path).expect("a note"), path)).collect();
    assert!(!earlier.is_empty());
    write(&scene);
    assert!(scene.take(false).entries[0].by_log);
    for (note, path) in &earlier {
        fs::write(path, note).expect("written");
    }
    write(&scene);
    assert!(!scene.take(false).entries[0].by_log, "notes of another snapshot");
    write(&scene);
    assert!(scene.take(false).entries[0].by_log);
    // Without notes nothing is known.
    for path in notes() {
        fs::remove_file(path).expect("removed");
    }
    write(&scene);
    assert!(!scene.take(false).entries[0].by_log, "no notes");
    // Without one of them: what it takes to go by the log is not in a single one, and nothing is made up.
    let mut by_log = Vec::new();
    for gone in notes() {
        write(&scene);
        assert!(scene.take(false).entries[0].by_log, "all notes");
        fs::remove_file(gone).expect("removed");
        write(&scene);
        by_log.push(scene.take(false).entries[0].by_log);
        scene.place.check();
    }
    assert!(by_log.contains(&false), "without the receipts nobody vouches for the parent's chunks");
    scene.assert_snapshot("in the end");
}
