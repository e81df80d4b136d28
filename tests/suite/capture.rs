//! Capturing live databases: real SQLite, real writers, a real second process.
//!
//! `NBAK_TEST_CAPTURE_ROUNDS` multiplies the rounds under load.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nbak::source::handle::FileHandle;
use nbak::source::sqlite::{Database, Refusal, View, check_version, looks_like_database};
use rusqlite::Connection;
use tempfile::TempDir;

// ---- helpers ------------------------------------------------------------------------------------

fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).expect("open");
    conn.busy_timeout(Duration::from_secs(10)).expect("timeout");
    conn.execute_batch("PRAGMA synchronous=OFF").expect("off");
    conn
}

/// A database with a page of rows that any reader can check: the sum of `v` is always zero.
fn fill(conn: &Connection, rows: u32) {
    conn.execute_batch(&format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER NOT NULL, pad BLOB);
         CREATE INDEX i ON t(v);
         INSERT INTO t SELECT value, 0, randomblob(200) FROM generate(1, {rows});"
    ).replace(&format!("generate(1, {rows})"), &format!(
        "(WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value+1 FROM n WHERE value<{rows}) SELECT value FROM n)"
    )))
    .expect("fill");
}

fn image(db: &mut Database, span: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; db.len() as usize];
    let span = span.max(db.page_size() as usize);
    for (i, part) in bytes.chunks_mut(span).enumerate() {
        db.read_at((i * span) as u64, part).expect("read");
    }
    bytes
}

fn slurp(path: &Path) -> Vec<u8> {
    let file = FileHandle::open(path).expect("open");
    let mut bytes = vec![0; file.size().expect("size") as usize];
    assert_eq!(file.read_at(&mut bytes, 0).expect("read"), bytes.len());
    bytes
}

fn backup(path: &Path, scratch: &Path) -> Vec<u8> {
    let mut db = Database::open_backup(path, scratch).expect("backup");
    assert_eq!(db.view(), View::Backup);
    let bytes = image(&mut db, 1 << 20);
    assert!(db.finish().expect("finish"));
    assert_eq!(fs::read_dir(scratch).expect("dir").count(), 0, "the scratch file is removed");
    bytes
}

fn no_scratch() -> std::io::Result<PathBuf> {
    panic!("no copy should be needed")
}

/// The backup API writes page 1 of the copy itself: it sets the schema cookie (40..44) to one more than the target's,
/// so that connections to the target reload the schema, and commits that as the target's first transaction: change
/// counter (24..28, repeated at 92..96) one, and its own version (96..100). Everything else is the same, byte for byte.
fn assert_same(image: &[u8], copy: &[u8], what: &str) {
    assert_eq!(image.len(), copy.len(), "{what}: length");
    let set = [(24, 1), (40, 1), (92, 1), (96, rusqlite::version_number().unsigned_abs())];
    let mut expected = image.to_vec();
    for (at, value) in set {
        expected[at..at + 4].copy_from_slice(&u32::to_be_bytes(value));
    }
    if expected != copy {
        let differ: Vec<_> = (0..copy.len()).filter(|i| expected[*i] != copy[*i]).take(20).collect();
        panic!("{what}: bytes differ at {differ:?}");
    }
}

fn assert_sound(bytes: &[u8], dir: &Path) {
    let path = dir.join("check.db");
    fs::write(&path, bytes).expect("write");
    let conn = open(&path);
    let ok: String = conn.query_row("PRAGMA integrity_check", [], |r| r.get(0)).expect("check");
    assert_eq!(ok, "ok");
    let sum: i64 = conn.query_row("SELECT coalesce(sum(v), 0) FROM t", [], |r| r.get(0)).expect("sum");
    assert_eq!(sum, 0, "a transaction is there in part");
    drop(conn);
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(dir.join(format!("check.db{suffix}")));
    }
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// One step of an application: mostly commits, sometimes a checkpoint, rarely a vacuum.
fn churn(conn: &Connection, random: &mut Random) {
    let sql = match random.below(20) {
        0..3 => "PRAGMA wal_checkpoint(PASSIVE)".to_owned(),
        3..5 => "PRAGMA wal_checkpoint(RESTART)".to_owned(),
        5..7 => "PRAGMA wal_checkpoint(TRUNCATE)".to_owned(),
        7 => "PRAGMA incremental_vacuum".to_owned(),
        8 => "BEGIN IMMEDIATE; DELETE FROM t WHERE v=0 AND id%7=0; COMMIT".to_owned(),
        9 => "VACUUM".to_owned(),
        n => format!(
            "BEGIN IMMEDIATE; INSERT INTO t SELECT NULL, {n}, randomblob(300) FROM t LIMIT {};
             INSERT INTO t(v, pad) SELECT -{n}*changes(), NULL; DELETE FROM t WHERE id%{}=0 AND v=0; COMMIT",
            random.below(30),
            3 + random.below(50),
        ),
    };
    if conn.execute_batch(&sql).is_err() && !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK").expect("rollback");
    }
}

// ---- the second process -------------------------------------------------------------------------

const ROLE: &str = "NBAK_TEST_CAPTURE_ROLE";

fn spawn(role: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", own_name!("second_process"), "--nocapture"])
        .env(ROLE, role)
        .env("NBAK_TEST_CAPTURE_PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("spawn")
}

/// Whether a second process finds the database locked.
fn locked(role: &str, path: &Path) -> bool {
    let code = spawn(role, path).wait().expect("wait").code();
    match code {
        Some(42) => true,
        Some(0) => false,
        other => panic!("the second process failed: {other:?}"),
    }
}

/// Not a test but the body of the second process.
#[test]
#[expect(clippy::exit, reason = "the exit code is the answer")]
fn second_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let path = PathBuf::from(std::env::var_os("NBAK_TEST_CAPTURE_PATH").expect("path"));
    let conn = open(&path);
    let refuse = |locked: bool| {
        if locked {
            std::process::exit(42)
        }
    };
    match role.as_str() {
        "write" => {
            conn.busy_timeout(Duration::ZERO).expect("timeout");
            refuse(conn.execute_batch("BEGIN IMMEDIATE").is_err());
        }
        "leave-wal" => {
            conn.busy_timeout(Duration::ZERO).expect("timeout");
            let mode = conn.query_row("PRAGMA journal_mode=DELETE", [], |r| r.get::<_, String>(0));
            refuse(!matches!(mode.as_deref(), Ok("delete")));
        }
        "churn" => {
            // Until the parent goes away or says so.
            static STOP: AtomicBool = AtomicBool::new(false);
            std::thread::spawn(|| {
                let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0; 1]);
                STOP.store(true, Ordering::Relaxed);
            });
            let mut random = Random(77);
            while !STOP.load(Ordering::Relaxed) {
                churn(&conn, &mut random);
                std::thread::sleep(Duration::from_micros(random.below(6000)));
            }
        }
        other => panic!("{other}"),
    }
}

// ---- tests --------------------------------------------------------------------------------------

#[test]
fn types_are_send_and_version_is_checked() {
    fn send<T: Send>() {}
    send::<Database>();
    send::<FileHandle>();
    check_version().expect("version");
    assert_eq!(View::Wal.as_str(), "wal");
}

#[test]
fn images_equal_backups_under_load() {
    let dir = TempDir::new().expect("dir");
    let scratch = TempDir::new().expect("dir");
    let path = dir.path().join("app.db");
    let app = open(&path);
    app.execute_batch("PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=40")
        .expect("wal");
    fill(&app, 400);
    let mut child = spawn("churn", &path);
    let stop = AtomicBool::new(false);
    let factor: u32 = std::env::var("NBAK_TEST_CAPTURE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);

    let (mut exact, mut moved, mut restarted) = (0_u32, 0_u32, 0_u32);
    std::thread::scope(|scope| {
        let stop = &stop;
        // A failed assertion must stop the writer too.
        let stopping = OnDrop(|| stop.store(true, Ordering::Relaxed));
        scope.spawn(move || {
            let mut random = Random(5);
            while !stop.load(Ordering::Relaxed) {
                churn(&app, &mut random);
                std::thread::sleep(Duration::from_micros(random.below(6000)));
            }
        });
        let mut random = Random(9);
        let started = Instant::now();
        let mut round = 0_u32;
        while exact < 250 * factor {
            assert!(started.elapsed() < Duration::from_mins(1) * factor, "{exact} exact, {moved} moved");
            round += 1;
            let mut db = Database::open_live(&path).expect("live");
            assert_eq!(db.view(), View::Wal);
            let mark = db.wal_mark().expect("mark");
            // If the mark is the same after the copy, then the copy is of the same state: marks never come back.
            let copy = backup(&path, scratch.path());
            let second = Database::open_live(&path).expect("live");
            let same = second.wal_mark() == Some(mark);
            drop(second);
            // Give the writers time to do their worst under the open transaction.
            std::thread::sleep(Duration::from_micros(random.below(8000)));
            let bytes = image(&mut db, 4096 << random.below(8));
            let now = Database::open_live(&path).expect("live").wal_mark().expect("mark");
            restarted += u32::from(now.salts != mark.salts);
            assert!(db.finish().expect("finish"), "round {round}");
            if same {
                assert_same(&bytes, &copy, &format!("round {round}, {mark:?}"));
                exact += 1;
            } else {
                moved += 1;
            }
            if round.is_multiple_of(8) {
                assert_sound(&bytes, scratch.path());
            }
        }
        drop(stopping);
    });
    drop(child.stdin.take());
    assert!(child.wait().expect("wait").success());
    assert!(restarted > 0, "{exact} exact, {moved} moved on: the load never restarted the log under a transaction");
}

#[test]
fn a_restart_under_the_transaction_does_not_matter() {
    let (dir, scratch) = (TempDir::new().expect("dir"), TempDir::new().expect("dir"));
    let path = dir.path().join("app.db");
    let app = open(&path);
    app.execute_batch("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0").expect("wal");
    fill(&app, 500);
    app.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").expect("checkpoint");
    // All of the log is in the file: the reader gets lock 0, and the next writer starts the log again.
    let mut db = Database::open_live(&path).expect("live");
    let copy = backup(&path, scratch.path());
    app.execute_batch("UPDATE t SET pad=randomblob(200)").expect("write");
    let now = Database::open_live(&path).expect("live").wal_mark().expect("mark");
    assert_ne!(now.salts, db.wal_mark().expect("mark").salts, "restarted under the transaction");
    let _ = app.execute_batch("PRAGMA wal_checkpoint(PASSIVE)");
    assert_same(&image(&mut db, 1 << 16), &copy, "lock 0");
    assert!(db.finish().expect("finish"));
}

#[test]
fn checkpoints_under_the_transaction_do_not_matter() {
    let (dir, scratch) = (TempDir::new().expect("dir"), TempDir::new().expect("dir"));
    let path = dir.path().join("app.db");
    let app = open(&path);
    app.execute_batch("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0").expect("wal");
    fill(&app, 500);
    // An old reader keeps the first checkpoint from finishing, so that the log is copied in part.
    let old = open(&path);
    old.execute_batch("BEGIN; SELECT count(*) FROM t").expect("read");
    app.execute_batch("UPDATE t SET pad=randomblob(250) WHERE id%3=0; PRAGMA wal_checkpoint(PASSIVE)").expect("write");
    let mut db = Database::open_live(&path).expect("live");
    let copy = backup(&path, scratch.path());
    old.execute_batch("COMMIT").expect("end");
    app.execute_batch(
        "UPDATE t SET pad=randomblob(100) WHERE id%2=0; PRAGMA wal_checkpoint(PASSIVE); UPDATE t SET pad=NULL;
        PRAGMA wal_checkpoint(PASSIVE)",
    )
    .expect("write");
    app.busy_timeout(Duration::ZERO).expect("timeout");
    let (busy, ..): (i32, i32) =
        app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| Ok((r.get(0)?, r.get(1)?))).expect("checkpoint");
    assert_eq!(busy, 1, "the transaction keeps the log");
    assert_same(&image(&mut db, 1 << 14), &copy, "overlay");
    assert!(db.finish().expect("finish"));
}

#[test]
fn every_page_size_vacuum_and_mode() {
    let (dir, scratch) = (TempDir::new().expect("dir"), TempDir::new().expect("dir"));
    for page_size in (9..=16).map(|bits| 1_u32 << bits) {
        for vacuum in ["NONE", "FULL", "INCREMENTAL"] {
            let path = dir.path().join(format!("{page_size}-{vacuum}.db"));
            let what = format!("{page_size} {vacuum}");
            let app = open(&path);
            app.execute_batch(&format!("PRAGMA page_size={page_size}; PRAGMA auto_vacuum={vacuum}")).expect("size");
            fill(&app, 300);
            app.execute_batch("DELETE FROM t WHERE id%3=0").expect("delete");

            // Rollback: quiet while the application is idle, and live.
            let mut quiet = Database::open(&path, &no_scratch).expect("quiet");
            assert_eq!((quiet.view(), quiet.page_size()), (View::Quiet, page_size));
            let bytes = image(&mut quiet, 1 << 22);
            assert_eq!(bytes, slurp(&path), "{what}");
            assert!(quiet.finish().expect("finish"));
            let mut live = Database::open_live(&path).expect("live");
            assert_eq!((live.view(), live.page_size(), live.wal_mark()), (View::Rollback, page_size, None));
            assert_eq!(image(&mut live, 1 << 17), bytes, "{what}");
            assert!(live.finish().expect("finish"));
            assert_same(&bytes, &backup(&path, scratch.path()), &what);

            // WAL: everything in the log, then shrunk by a vacuum, then copied, then left by the application.
            app.execute_batch("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0").expect("wal");
            for step in [
                "UPDATE t SET pad=randomblob(150)",
                "DELETE FROM t WHERE id<200; PRAGMA incremental_vacuum",
                "VACUUM",
                "PRAGMA wal_checkpoint(PASSIVE)",
                "INSERT INTO t(v, pad) VALUES(0, zeroblob(100000))",
                "PRAGMA wal_checkpoint(TRUNCATE)",
            ] {
                app.execute_batch(step).expect(step);
                let mut live = Database::open(&path, &no_scratch).expect("live");
                assert_eq!((live.view(), live.page_size()), (View::Wal, page_size), "{what} {step}");
                let bytes = image(&mut live, 1 << 18);
                assert!(live.finish().expect("finish"));
                assert_same(&bytes, &backup(&path, scratch.path()), &format!("{what} {step}"));
                assert_sound(&bytes, scratch.path());
            }
            drop(app);
            let mut quiet = Database::open(&path, &no_scratch).expect("quiet");
            assert_eq!(quiet.view(), View::Quiet);
            assert_eq!(image(&mut quiet, 1 << 20), slurp(&path));
        }
    }
}

#[test]
fn journals_of_every_mode() {
    let dir = TempDir::new().expect("dir");
    for mode in ["DELETE", "TRUNCATE", "PERSIST"] {
        let path = dir.path().join(mode);
        let app = open(&path);
        app.execute_batch(&format!("PRAGMA journal_mode={mode}")).expect("mode");
        fill(&app, 200);
        // What is left of a finished transaction is not in the way of Quiet.
        let mut quiet = Database::open(&path, &no_scratch).expect("quiet");
        assert_eq!(quiet.view(), View::Quiet, "{mode}");
        // A writer can not get at the file now, whatever it does.
        app.busy_timeout(Duration::ZERO).expect("timeout");
        app.execute_batch("BEGIN; UPDATE t SET pad=NULL").expect("write");
        app.execute_batch("COMMIT").expect_err("locked out");
        let before = image(&mut quiet, 1 << 16);
        assert!(quiet.finish().expect("finish"), "{mode}");
        // Waiting to commit, it keeps new readers out; begin anew.
        app.execute_batch("ROLLBACK; BEGIN; UPDATE t SET pad=NULL").expect("write");
        // Between BEGIN and COMMIT the database is as it was before.
        let mut live = Database::open(&path, &no_scratch).expect("live");
        assert_eq!(live.view(), View::Rollback, "{mode}");
        assert_eq!(image(&mut live, 1 << 16), before, "{mode}");
        assert!(live.finish().expect("finish"));
        app.execute_batch("COMMIT").expect("commit");
        let mut after = Database::open(&path, &no_scratch).expect("quiet");
        assert_eq!(after.view(), View::Quiet, "{mode}");
        assert_ne!(image(&mut after, 1 << 16), before, "{mode}");
    }
}

/// A database in the middle of a transaction that has spilled into the file, with its journal.
fn crashed(dir: &Path) -> PathBuf {
    let live = dir.join("live.db");
    let app = open(&live);
    fill(&app, 500);
    app.execute_batch("PRAGMA cache_size=2; PRAGMA synchronous=FULL; BEGIN; UPDATE t SET v=1, pad=randomblob(200)")
        .expect("spill");
    let path = dir.join("crashed.db");
    // The in-process locks do not matter any more, and the copies are of another inode.
    fs::copy(&live, &path).expect("copy");
    fs::copy(dir.join("live.db-journal"), dir.join("crashed.db-journal")).expect("copy");
    path
}

#[test]
fn hot_journals_are_rolled_back() {
    let (dir, scratch) = (TempDir::new().expect("dir"), TempDir::new().expect("dir"));
    let path = crashed(dir.path());
    let mut db = Database::open(&path, &no_scratch).expect("open");
    assert_eq!(db.view(), View::Rollback);
    assert!(db.remarks().iter().any(|r| r.contains("hot journal")), "{:?}", db.remarks());
    assert_sound(&image(&mut db, 1 << 20), scratch.path());
    assert!(!dir.path().join("crashed.db-journal").exists());
}

#[test]
fn a_file_that_only_has_a_journals_name_is_left_alone() {
    let dir = TempDir::new().expect("dir");
    let path = dir.path().join("a.db");
    fill(&open(&path), 10);
    let other = dir.path().join("a.db-journal");
    fs::write(&other, "Dear diary").expect("write");
    assert!(matches!(Database::open(&path, &no_scratch), Err(Refusal::NotADatabase(_))));
    assert_eq!(fs::read(&other).expect("read"), b"Dear diary");
    // A journal that names another file, which SQLite would delete.
    let path = crashed(dir.path());
    let journal = dir.path().join("crashed.db-journal");
    let victim = b"/nowhere/other.db-mj012345678";
    let sum: u32 = victim.iter().map(|b| u32::from(*b)).sum();
    let mut bytes = fs::read(&journal).expect("read");
    bytes.extend(0x4000_0000_u32.to_be_bytes());
    bytes.extend(victim);
    bytes.extend((victim.len() as u32).to_be_bytes());
    bytes.extend(sum.to_be_bytes());
    bytes.extend([0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    fs::write(&journal, &bytes).expect("write");
    assert!(matches!(Database::open(&path, &no_scratch), Err(Refusal::NotADatabase(_))));
    assert_eq!(fs::read(&journal).expect("read"), bytes);
}

#[test]
fn empty_databases() {
    let (dir, scratch) = (TempDir::new().expect("dir"), TempDir::new().expect("dir"));
    let path = dir.path().join("empty.db");
    fs::write(&path, "").expect("write");
    for open in
        [Database::open(&path, &no_scratch), Database::open_live(&path), Database::open_backup(&path, scratch.path())]
    {
        let mut db = open.expect("open");
        assert_eq!(db.len(), 0);
        db.read_at(0, &mut []).expect("nothing");
        assert!(db.finish().expect("finish"));
    }
    for suffix in ["-wal", "-journal"] {
        // SQLite would delete it.
        let sidecar = dir.path().join(format!("empty.db{suffix}"));
        fs::write(&sidecar, "something").expect("write");
        assert!(matches!(Database::open(&path, &no_scratch), Err(Refusal::NotADatabase(_))), "{suffix}");
        assert!(matches!(Database::open_live(&path), Err(Refusal::NotADatabase(_))), "{suffix}");
        assert_eq!(fs::read(&sidecar).expect("read"), b"something");
        fs::remove_file(&sidecar).expect("remove");
    }
}

#[test]
fn what_only_looks_like_a_database_loses_no_byte() {
    let dir = TempDir::new().expect("dir");
    let scratch = TempDir::new().expect("dir");
    let made = dir.path().join("real.db");
    fill(&open(&made), 100);
    let real = fs::read(&made).expect("read");
    let mut random = Random(3);
    let mut garbage = |n: usize| (0..n).map(|_| random.below(256) as u8).collect::<Vec<u8>>();
    let wal_mode = {
        let mut b = real.clone();
        b[18] = 2;
        b[19] = 2;
        b
    };
    let forms: Vec<(&str, Vec<u8>)> = vec![
        ("magic", real[..16].to_vec()),
        ("header", real[..100].to_vec()),
        ("magic and zeros", [&real[..16], &[0; 9000][..]].concat()),
        ("magic and garbage", [&real[..16], &garbage(9000)[..]].concat()),
        ("header and garbage", [&real[..100], &garbage(real.len() - 100)[..]].concat()),
        ("wal header and garbage", [&wal_mode[..100], &garbage(real.len() - 100)[..]].concat()),
        ("truncated", real[..real.len() / 2 + 77].to_vec()),
        ("truncated wal", wal_mode[..real.len() / 2 + 77].to_vec()),
        ("one byte more", [&real[..], &[1]].concat()),
        ("one byte more wal", [&wal_mode[..], &[1]].concat()),
        ("much more", [&real[..], &garbage(50_000)].concat()),
        ("much more wal", [&wal_mode[..], &garbage(50_000)].concat()),
        ("text", b"not at all".to_vec()),
    ];
    let (mut captured, mut refused) = (0, 0);
    for (name, bytes) in &forms {
        for sidecar in ["", "-wal", "-journal"] {
            for live in [false, true] {
                let place = TempDir::new().expect("dir");
                let path = place.path().join("x");
                fs::write(&path, bytes).expect("write");
                if !sidecar.is_empty() {
                    fs::write(place.path().join(format!("x{sidecar}")), garbage(5000)).expect("write");
                }
                let what = format!("{name} {sidecar} {live}");
                let open = if live {
                    Database::open_live(&path)
                } else {
                    Database::open(&path, &|| Ok(scratch.path().into()))
                };
                match open {
                    Ok(mut db) => {
                        captured += 1;
                        let image = image(&mut db, 1 << 16);
                        assert!(image.starts_with(bytes), "{what}: {:?}", db.view());
                        assert!(image[bytes.len()..].iter().all(|b| *b == 0), "{what}");
                        assert!(db.finish().expect("finish"), "{what}");
                    }
                    Err(Refusal::NotADatabase(_)) => refused += 1,
                    Err(other) => panic!("{what}: {other}"),
                }
                assert_eq!(&fs::read(&path).expect("read"), bytes, "{what}");
            }
        }
    }
    assert!(captured > 10 && refused > 10, "{captured} {refused}");
}

#[test]
fn damaged_databases_and_logs_never_panic() {
    let (dir, scratch) = (TempDir::new().expect("dir"), TempDir::new().expect("dir"));
    let made = dir.path().join("real.db");
    let app = open(&made);
    app.execute_batch("PRAGMA page_size=512; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0").expect("wal");
    fill(&app, 20);
    app.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET pad=randomblob(90)").expect("write");
    let (db, wal) = (slurp(&made), slurp(&dir.path().join("real.db-wal")));
    let mut random = Random(11);
    for round in 0..400 {
        let place = TempDir::new().expect("dir");
        let path = place.path().join("x");
        let (mut db, mut wal) = (db.clone(), wal.clone());
        for _ in 0..=random.below(3) {
            let target = if random.below(2) == 0 { &mut db } else { &mut wal };
            // Headers more often than not.
            let within = if random.below(2) == 0 { 130 } else { target.len() as u64 };
            target[random.below(within) as usize] ^= 1 << random.below(8);
        }
        if random.below(4) == 0 {
            wal.truncate(random.below(wal.len() as u64) as usize);
        }
        fs::write(&path, &db).expect("write");
        fs::write(place.path().join("x-wal"), &wal).expect("write");
        let Ok(mut open) = Database::open(&path, &|| Ok(scratch.path().into())) else { continue };
        assert!(open.len() < 1 << 20, "round {round}");
        let _ = image(&mut open, 1 << 14);
        let _ = open.finish();
        assert_eq!(fs::read(place.path().join("x-wal")).expect("read"), wal, "round {round}");
        assert_eq!(fs::read(&path).expect("read"), db, "round {round}");
    }
}

#[test]
fn the_lock_byte_page_is_left_out() {
    const LOCK: u64 = 0x4000_0000;
    let dir = TempDir::new().expect("dir");
    for page_size in [4096_u64, 65_536] {
        let path = dir.path().join(format!("{page_size}.db"));
        let app = open(&path);
        app.execute_batch(&format!(
            "PRAGMA page_size={page_size}; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0"
        ))
        .expect("wal");
        fill(&app, 10);
        drop(app);
        // Grown by decree to a few pages short of the lock-byte page: a hole, so neither time nor space.
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).expect("open");
        let pages = LOCK / page_size - 3;
        file.write_all_at(&(pages as u32).to_be_bytes(), 28).expect("write");
        file.write_all_at(&[0xaa; 600], LOCK + 100).expect("write");
        file.set_len((pages + 10) * page_size).expect("grow");
        drop(file);
        let app = open(&path);
        app.execute_batch(&format!(
            "PRAGMA wal_autocheckpoint=0; INSERT INTO t(v, pad) VALUES(0, randomblob({}))",
            page_size * 9
        ))
        .expect("insert");
        let mut db = Database::open(&path, &no_scratch).expect("live");
        assert_eq!(db.view(), View::Wal);
        assert!(db.len() > LOCK + page_size, "{} pages", db.len() / page_size);
        let from = LOCK - 5 * page_size;
        let mut window = vec![0xee; (db.len() - from) as usize];
        db.read_at(from, &mut window).expect("read");
        assert!(db.finish().expect("finish"));
        let lock_page = (LOCK - from) as usize..(LOCK + page_size - from) as usize;
        assert!(window[lock_page.clone()].iter().all(|b| *b == 0), "the lock-byte page is zeros");
        // All else is what a checkpoint makes of it.
        app.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("checkpoint");
        let mut truth = vec![0; window.len()];
        assert_eq!(FileHandle::open(&path).expect("open").read_at(&mut truth, from).expect("read"), truth.len());
        truth[lock_page].fill(0);
        assert!(window == truth, "page size {page_size}");
    }
}

fn listing(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime, u32)> {
    let entry = |e: fs::DirEntry| {
        let meta = e.metadata().expect("meta");
        (e.path(), (slurp(&e.path()), meta.modified().expect("time"), meta.permissions().mode()))
    };
    fs::read_dir(dir).expect("dir").map(|e| entry(e.expect("entry"))).collect()
}

#[test]
fn the_source_is_not_changed() {
    let dir = TempDir::new().expect("dir");
    for mode in ["DELETE", "PERSIST", "WAL"] {
        let app = open(&dir.path().join(format!("{mode}.db")));
        app.execute_batch(&format!("PRAGMA journal_mode={mode}")).expect("mode");
        fill(&app, 100);
    }
    let before = listing(dir.path());
    for path in before.keys().filter(|p| p.extension() == Some(OsStr::new("db"))) {
        let mut db = Database::open(path, &no_scratch).expect("quiet");
        assert_eq!(db.view(), View::Quiet);
        image(&mut db, 1 << 20);
        assert!(db.finish().expect("finish"));
    }
    assert!(listing(dir.path()) == before);

    // With an application: the database and its log stay as they are, also when ours is the last connection.
    let path = dir.path().join("WAL.db");
    let app = open(&path);
    app.execute_batch("PRAGMA wal_autocheckpoint=0; UPDATE t SET pad=NULL").expect("write");
    let files = [path.clone(), dir.path().join("WAL.db-wal")];
    let before = files.clone().map(|f| (slurp(&f), f.metadata().expect("meta").modified().expect("time")));
    let mut db = Database::open(&path, &no_scratch).expect("live");
    assert_eq!(db.view(), View::Wal);
    drop(app);
    image(&mut db, 1 << 20);
    assert!(db.finish().expect("finish"));
    let after = files.map(|f| (slurp(&f), f.metadata().expect("meta").modified().expect("time")));
    assert!(before == after);
}

#[test]
fn a_writer_disturbs_quiet() {
    let dir = TempDir::new().expect("dir");
    let path = dir.path().join("app.db");
    let app = open(&path);
    app.execute_batch("PRAGMA journal_mode=WAL").expect("wal");
    fill(&app, 300);
    drop(app);
    let quiet = Database::open(&path, &no_scratch).expect("quiet");
    assert_eq!(quiet.view(), View::Quiet);
    // It writes, checkpoints into the file, and leaves: all while the file is being read.
    let modified = path.metadata().expect("meta").modified().expect("time");
    let app = open(&path);
    app.execute_batch("UPDATE t SET pad=NULL; PRAGMA wal_checkpoint(PASSIVE)").expect("write");
    drop(app);
    // Within one tick of the clock, for all that the time of the file says. (Set by name: opening it would unlock it.)
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).expect("epoch");
    let time = rustix::fs::Timespec { tv_sec: since.as_secs().cast_signed(), tv_nsec: i64::from(since.subsec_nanos()) };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).expect("touch");
    assert!(!quiet.finish().expect("finish"), "disturbed");
    let mut live = Database::open_live(&path).expect("live");
    assert_same(&image(&mut live, 1 << 20), &backup(&path, TempDir::new().expect("dir").path()), "after");

    // A program that cuts the file short without asking anybody.
    let path = dir.path().join("cut.db");
    fill(&open(&path), 300);
    let mut quiet = Database::open(&path, &no_scratch).expect("quiet");
    fs::OpenOptions::new().write(true).open(&path).expect("open").set_len(4096).expect("cut");
    image(&mut quiet, 1 << 20);
    assert!(!quiet.finish().expect("finish"), "cut short");
}

/// Goes through every way in which the capture opens and closes files.
fn capture_every_way(path: &Path, scratch: &Path) {
    for _ in 0..20 {
        let file = FileHandle::open(path).expect("open");
        file.read_at(&mut [0; 1000], 0).expect("read");
    }
    for _ in 0..3 {
        let mut db = Database::open(path, &no_scratch).expect("open");
        image(&mut db, 1 << 20);
        assert!(db.finish().expect("finish"));
        drop(Database::open_live(path).expect("live"));
        backup(path, scratch);
    }
}

#[test]
fn locks_of_the_same_process_survive() {
    let (dir, scratch) = (TempDir::new().expect("dir"), TempDir::new().expect("dir"));
    for mode in ["DELETE", "WAL"] {
        let path = dir.path().join(format!("{mode}.db"));
        let app = open(&path);
        app.execute_batch(&format!("PRAGMA journal_mode={mode}")).expect("mode");
        fill(&app, 100);
        app.execute_batch("BEGIN IMMEDIATE; UPDATE t SET pad=NULL WHERE id=1").expect("begin");
        capture_every_way(&path, scratch.path());
        assert!(locked("write", &path), "{mode}: the write lock is still held");
        if mode == "WAL" {
            assert!(locked("leave-wal", &path), "the lock on the file is still held");
            FileHandle::open(&dir.path().join("WAL.db-shm")).expect_err("its locks would go");
        } else {
            // The reason for all this, and the proof that the test would notice.
            drop(fs::File::open(&path).expect("open"));
            assert!(!locked("write", &path), "a plain open and close drops the lock");
        }
    }
}

#[test]
fn handles_on_any_file() {
    let dir = TempDir::new().expect("dir");
    let path = dir.path().join(OsStr::from_bytes(b"\xff\xfe name"));
    fs::write(&path, vec![7; 10_000]).expect("write");
    let file = FileHandle::open(&path).expect("open");
    let mut buf = vec![0; 4096];
    assert_eq!(file.size().expect("size"), 10_000);
    assert_eq!(file.read_at(&mut buf, 8000).expect("read"), 2000);
    assert_eq!(file.read_at(&mut buf, 10_000).expect("read"), 0);
    assert_eq!(file.read_at(&mut buf, u64::MAX).expect("read"), 0);
    assert_eq!(file.read_at(&mut [], 0).expect("read"), 0);
    assert!(file.try_lock_shared().expect("lock"));
    std::thread::spawn(move || drop(file)).join().expect("another thread may close it");

    let kind = |p: &Path| FileHandle::open(p).expect_err("not a file").kind();
    assert_eq!(kind(&dir.path().join("missing")), std::io::ErrorKind::NotFound);
    assert_eq!(kind(dir.path()), std::io::ErrorKind::IsADirectory);
    std::os::unix::fs::symlink(&path, dir.path().join("link")).expect("link");
    let link = FileHandle::open(&dir.path().join("link")).expect_err("a link");
    assert_eq!(link.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).expect("chmod");
    if fs::File::open(&path).is_err() {
        assert_eq!(kind(&path), std::io::ErrorKind::PermissionDenied);
    }
    // A locked file is busy, not an error.
    let db = dir.path().join("a.db");
    let app = open(&db);
    fill(&app, 1);
    app.execute_batch("BEGIN EXCLUSIVE").expect("lock");
    assert!(!FileHandle::open(&db).expect("open").try_lock_shared().expect("lock"));
}

#[test]
fn names_that_are_long_or_not_text() {
    let dir = TempDir::new().expect("dir");
    let path = dir.path().join(OsStr::from_bytes(b"\xff?mode=memory&x.db"));
    let app = open(&path);
    app.execute_batch("PRAGMA journal_mode=WAL").expect("wal");
    fill(&app, 50);
    let mut db = Database::open(&path, &no_scratch).expect("live");
    assert_eq!(db.view(), View::Wal);
    let bytes = image(&mut db, 1 << 20);
    assert!(db.finish().expect("finish"));
    drop(app);

    let deep = (0..4).fold(dir.path().to_owned(), |d, _| d.join("d".repeat(200)));
    fs::create_dir_all(&deep).expect("dirs");
    let long = deep.join("x.db");
    fs::write(&long, &bytes).expect("write");
    assert_eq!(slurp(&long), bytes);
    let mut db = Database::open(&long, &no_scratch).expect("quiet");
    assert_eq!(db.view(), View::Quiet);
    assert_eq!(image(&mut db, 1 << 20), bytes);
    fs::write(deep.join("x.db-wal"), "").expect("write");
    assert!(matches!(Database::open(&long, &no_scratch), Err(Refusal::NotADatabase(_))));
    assert!(looks_like_database(&bytes).is_some());
}
