//! Snapshots of a directory in which everything moves under the reader: journals that come and go beside a database,
//! files that change folder, grow, or are written through a memory map. `NBAK_TEST_ROUNDS` multiplies the rounds.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::strace::{can_trace, opened, traced};
use crate::daemon_common::clock::Clock;
use crate::live_common::{Place, Run, Stop, app, assert_same, rounds, run, survey, text};
use nbak::snapshot::capture::capture_file;
use nbak::snapshot::captured::Instead;
use nbak::snapshot::save::Session;
use nbak::snapshot::sidecar::Sidecar;
use nbak::snapshot::store::Store;
use nbak::source::exclude::Exclusions;
use nbak::source::top::Top;
use nbak::source::walk::walk;
use nbak::store::memory::Discard;
use nbak::store::sink::PackSink;

/// Runs `act` again and again on a thread of its own while `body` runs.
fn meanwhile<T>(mut act: impl FnMut() + Send, body: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let thread = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                act();
            }
        });
        let answer = body();
        drop(stopping);
        thread.join().expect("it saw no error");
        answer
    })
}

fn names(said: &serde_json::Value) -> Vec<&str> {
    said["entries"].as_array().expect("a list").iter().map(|entry| text(&entry["path"])).collect()
}

// ---- sidecars -----------------------------------------------------------------------------------

/// Rows that every transaction changes together, on many pages: half of one shows.
fn write_once(conn: &rusqlite::Connection) {
    conn.execute_batch("BEGIN IMMEDIATE; UPDATE t SET v = v + 1; INSERT INTO log SELECT max(v) FROM t; COMMIT")
        .expect("committed");
}

fn assert_whole(path: &Path, what: &str) {
    let conn = app::open(path);
    let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a verdict");
    assert_eq!(sound, "ok", "{what}");
    let torn: (i64, i64, i64) = conn
        .query_row("SELECT min(v), max(v), (SELECT count(*) FROM log) FROM t", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .expect("rows");
    assert!(torn.0 == torn.1 && torn.1 == torn.2, "{what}: half of a transaction: {torn:?}");
}

fn hammer(mode: &str, reopen: bool) {
    let place = Place::new();
    for n in 0..8 {
        fs::write(place.data.join(format!("a{n}")), vec![n; 100_000]).expect("a file");
    }
    let path = place.data.join("app.db");
    let open = || {
        let conn = app::open(&path);
        conn.execute_batch(&format!("PRAGMA journal_mode={mode}")).expect("a mode");
        conn
    };
    let conn = open();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v INT, pad BLOB); CREATE TABLE log(v INT);
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<100)
         INSERT INTO t SELECT x, 0, randomblob(900) FROM n;",
    )
    .expect("tables");
    let mut conn = Some(conn);
    let write = || {
        let open = conn.take().unwrap_or_else(open);
        write_once(&open);
        conn = (!reopen).then_some(open);
        // Not so fast that no reader ever gets in.
        std::thread::sleep(Duration::from_micros(300));
    };
    let mut held = 0;
    meanwhile(write, || {
        for round in 0..rounds(40) {
            let what = format!("{mode}, round {round}");
            let run = place.run(["snapshot", "--full-scan", "--json"]);
            let said = run.json();
            let all = names(&said);
            if run.code == Some(3) {
                // Kept as bytes, with all that lies beside it, and said to be so.
                let _ = run.says(&["not captured: app.db: the database is in use"]);
                continue;
            }
            held += 1;
            assert!(all.contains(&"app.db"), "{what}");
            assert!(!all.contains(&"app.db-journal") && !all.contains(&"app.db-wal"), "{what}: {all:?}");
            let restored = place.restore(text(&said["snapshot"]), "restored");
            assert_whole(&restored.join("app.db"), &what);
            fs::remove_dir_all(restored).expect("removed");
        }
    });
    assert!(held > rounds(40) / 2, "{mode}: the database was captured {held} times only");
}

#[test]
fn no_journal_of_another_moment_lies_beside_an_image() {
    hammer("DELETE", false);
}

#[test]
fn no_log_of_another_moment_lies_beside_an_image() {
    hammer("WAL", true);
}

/// What decides is what is in the file, at the moment in which it is read.
#[test]
fn the_bytes_that_are_read_decide_what_a_file_is() {
    let place = Place::new();
    app::open(&place.data.join("x.db")).execute_batch("CREATE TABLE t(v)").expect("a table");
    let magic = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    fs::write(place.data.join("x.db-journal"), [&magic[..], &[1; 5000]].concat()).expect("a file");
    let walked = walk(
        &Top::open(&place.data).expect("opened"),
        &Exclusions::new(Vec::new(), &[]).expect("no globs"),
        &nbak::source::clock::Clock::of(&place.data, &nbak::source::mounts::Mounts::below(&place.data)),
    )
    .expect("walked");
    let store = Store::in_memory(&[], 0).expect("a store");
    let keys = store.catalog().packs().keys().clone();
    let mut session = Session::new(store.catalog(), PackSink::new(Arc::new(Discard), keys), false);
    for (name, beside, instead) in [
        ("x.db", None, Some(Instead::Database)),
        ("x.db-journal", Some(Sidecar::Journal), Some(Instead::Sidecar)),
        ("x.db-journal", None, None),
    ] {
        let found = walked.found.iter().find(|found| found.path == Path::new(name)).expect("it was found");
        let who = (found, walked.folder_of(found));
        let captured = capture_file(&mut session, &place.data, who, None, beside, None).expect("captured");
        assert_eq!((captured.instead, captured.content.is_none()), (instead, instead.is_some()), "{name}");
        assert_eq!(session.new_chunks > 0, instead.is_none(), "{name}: nothing of it was saved");
    }
}

#[test]
fn what_is_only_named_like_a_sidecar_stays() {
    let place = Place::new();
    for name in ["z.db", "u.db", "kept.db"] {
        let conn = app::open(&place.data.join(name));
        conn.execute_batch("PRAGMA journal_mode=PERSIST; CREATE TABLE t(v); INSERT INTO t VALUES(randomblob(9000))")
            .expect("a table");
    }
    let _ = fs::remove_file(place.data.join("z.db-journal"));
    let own = [
        ("z.db-shm", b"mine".repeat(8192)),
        ("z.db-wal.txt", b"a walrus".to_vec()),
        ("u.db-journal", [&[0; 28][..], b"Dear diary, "].concat()),
    ];
    for (name, content) in &own {
        fs::write(place.data.join(name), content).expect("a file");
    }
    for _ in 0..2 {
        let run = place.ok(["snapshot", "-v", "--json"]).says(&["left out: kept.db-journal: a database's rollback"]);
        assert!(!names(&run.json()).contains(&"kept.db-journal"));
        for (name, content) in &own {
            assert!(place.ok(["cat", "latest", name]).raw == *content, "{name}");
        }
    }
}

// ---- memory maps --------------------------------------------------------------------------------

const MAPPER: &str = "
import mmap, sys
f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0)
m[0:8] = b'VERSION0'; print('stored', flush=True)
for line in sys.stdin: m[0:8] = line.strip().encode(); print('stored', flush=True)
";

/// A process that has a file mapped, and stored into it.
struct Mapper {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Mapper {
    fn of(path: &Path) -> Mapper {
        let mut command = Command::new("python3");
        command.args(["-c", MAPPER]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 runs");
        let mut said = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        said.next().expect("a line").expect("text");
        Mapper { child, said }
    }

    /// Stores these eight bytes.
    fn store(&mut self, what: &str) {
        writeln!(self.child.stdin.as_mut().expect("a pipe"), "{what}").expect("told");
        self.said.next().expect("a line").expect("text");
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("its end").success());
    }
}

fn assert_stores_are_seen(place: &Place) {
    let path = place.data.join("state.bin");
    fs::write(&path, vec![b'-'; 5000]).expect("a file");
    let mut mapper = Mapper::of(&path);
    for n in 1..4 {
        std::thread::sleep(Duration::from_millis(300));
        place.ok(["snapshot"]);
        place.ok(["snapshot"]);
        mapper.store(&format!("VERSION{n}"));
        place.ok(["snapshot"]);
        let kept = place.ok(["cat", "latest", "state.bin"]).raw;
        assert_eq!(kept[..8], format!("VERSION{n}").into_bytes()[..], "the page was dirty already");
    }
    mapper.end();
}

#[test]
fn a_store_through_a_map_is_never_missed() {
    assert_stores_are_seen(&Place::new());
}

/// A machine that was paused, or learns the time late: what was stored a moment ago looks older than a minute, and is
/// not. Nothing else may be older than what it is either, so all is read until a minute has passed by itself.
#[test]
fn a_clock_that_is_set_makes_no_store_old() {
    let place = Place::new();
    let path = place.data.join("state.bin");
    fs::write(&path, vec![b'-'; 5000]).expect("a file");
    let mut clock = Clock::new();
    let snapshot = |clock: &Clock| {
        let mut command = place.nbak(["snapshot"]);
        clock.give(&mut command);
        Run::of(command.output().expect("it runs"), "snapshot".to_owned()).exits(0)
    };
    let mut mapper = Mapper::of(&path);
    for n in 1..4 {
        snapshot(&clock);
        clock.forward(Duration::from_secs(90));
        snapshot(&clock);
        mapper.store(&format!("VERSION{n}"));
        snapshot(&clock);
        let kept = place.ok(["cat", "latest", "state.bin"]).raw;
        assert_eq!(kept[..8], format!("VERSION{n}").into_bytes()[..], "the page was dirty already");
    }
    mapper.end();
}

/// The same, while a snapshot is taken: it began by another clock than the one that its files are stamped by.
#[test]
fn a_clock_that_is_set_during_a_snapshot_makes_no_store_old() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let [first, path] = ["a.bin", "state.bin"].map(|name| place.data.join(name));
    fs::write(&path, vec![b'-'; 300_000]).expect("a file");
    fs::write(&first, vec![b'a'; 300_000]).expect("a file");
    let mut clock = Clock::new();
    clock.forward(Duration::from_mins(10));
    let snapshot = |clock: &Clock| {
        let mut command = place.nbak(["snapshot", "--full-scan"]);
        clock.give(&mut command);
        command
    };
    run(&mut snapshot(&clock)).exits(0);
    // So long the clock has to have gone evenly, before any file is believed to be old.
    std::thread::sleep(Duration::from_secs(66));
    fs::write(&first, vec![b'b'; 300_000]).expect("a file");
    let mut mapper = Mapper::of(&path);
    // It is held while it reads the first file, and the other one is yet to come.
    let at = first.to_str().expect("text");
    let options = ["-P", at, "-e", "trace=pread64", "-e", "inject=pread64:delay_enter=700000", "-o", "/dev/null"];
    let mut held = traced(&snapshot(&clock), &options);
    let mut held = held.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace runs");
    opened(&mut held, &first);
    clock.back(Duration::from_mins(10));
    mapper.store("VERSION1");
    assert!(held.wait().expect("its end").success());
    let kept = || place.ok(["cat", "latest", "state.bin"]).raw[..8].to_vec();
    assert_eq!(kept(), b"VERSION1", "it was held long enough");
    mapper.store("VERSION2");
    for _ in 0..2 {
        let mut command = place.nbak(["snapshot"]);
        clock.give(&mut command);
        run(&mut command).exits(0);
        assert_eq!(kept(), b"VERSION2", "the page was dirty already");
    }
    mapper.end();
}

#[test]
fn no_receipt_vouches_for_a_file_in_memory() {
    let Ok(shared) = tempfile::TempDir::new_in("/dev/shm") else { return };
    if !nbak::source::medium::is_in_memory(shared.path()) {
        return;
    }
    let place = Place { data: shared.path().join("data"), ..Place::new() };
    fs::create_dir(&place.data).expect("a folder");
    assert_stores_are_seen(&place);
}

// ---- files that move ----------------------------------------------------------------------------

#[test]
fn a_file_that_changes_folder_is_held_or_named() {
    let place = Place::new();
    for folder in (0..40).map(|n| format!("m{n}")).chain(["a".to_owned(), "z".to_owned()]) {
        fs::create_dir(place.data.join(&folder)).expect("a folder");
        for n in 0..10 {
            fs::write(place.data.join(format!("{folder}/f{n}")), format!("{folder} {n}")).expect("a file");
        }
    }
    let both = ["a/precious", "z/precious"].map(|name| place.data.join(name));
    fs::write(&both[0], "precious").expect("a file");
    std::thread::sleep(Duration::from_millis(100));
    for pause in [500, 10_000, 50_000] {
        let mut at = usize::from(!both[0].exists());
        let (mut held, mut named) = (0, 0);
        let rename = || {
            fs::rename(&both[at], &both[1 - at]).expect("renamed");
            at = 1 - at;
            std::thread::sleep(Duration::from_micros(pause));
        };
        meanwhile(rename, || {
            for round in 0..rounds(40) {
                let run = place.run(["snapshot", "--json", "-q"]);
                let said = run.json();
                if names(&said).iter().any(|name| name.ends_with("precious")) {
                    assert_eq!(run.code, Some(0), "{run:?}");
                    held += 1;
                } else {
                    assert_eq!(run.code, Some(3), "round {round}, {pause} us: it is missing, and nobody says so");
                    assert!(run.err.contains("precious"), "{}", run.err);
                    named += 1;
                }
                assert_eq!(said["files"].as_u64().expect("a number") / 10, 42, "{round}");
            }
        });
        assert!(held > named, "{pause} us: held {held}, named {named}");
    }
    place.check();
}

#[test]
fn a_folder_that_is_moved_is_held_with_all_that_is_in_it() {
    let place = Place::new();
    for n in 0..300 {
        let folder = place.data.join(format!("a/d/s{}", n % 3));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(format!("f{n}")), vec![b'x'; 2000 + n]).expect("a file");
    }
    fs::create_dir(place.data.join("z")).expect("a folder");
    std::thread::sleep(Duration::from_millis(100));
    let both = ["a/d", "z/d"].map(|name| place.data.join(name));
    let mut at = 0;
    let rename = || {
        fs::rename(&both[at], &both[1 - at]).expect("renamed");
        at = 1 - at;
        std::thread::sleep(Duration::from_millis(15));
    };
    meanwhile(rename, || {
        for round in 0..rounds(25) {
            let run = place.run(["snapshot", "--json", "--full-scan"]);
            let said = run.json();
            let all = names(&said);
            let lost = (0..300).filter(|n| !all.iter().any(|name| name.ends_with(&format!("/f{n}")))).count();
            assert!(lost == 0 || run.code == Some(3), "round {round}: {lost} files are missing: {}", run.err);
        }
    });
    place.check();
}

#[test]
fn folders_in_which_files_come_and_go_raise_no_alarm() {
    let place = Place::new();
    fs::create_dir(place.data.join("busy")).expect("a folder");
    for n in 0..200 {
        fs::write(place.data.join(format!("busy/f{n}")), vec![b'x'; 3000]).expect("a file");
    }
    let mut n = 0;
    let churn = || {
        n += 1;
        let path = |name: &str, n: u32| place.data.join(format!("busy/{name}{n}"));
        fs::write(path("new", n), "new").expect("a file");
        fs::write(path("tmp", n), format!("{n}")).expect("a file");
        fs::rename(path("tmp", n), path("f", n % 200)).expect("replaced");
        if n > 20 {
            fs::remove_file(path("new", n - 20)).expect("removed");
        }
    };
    meanwhile(churn, || {
        for round in 0..rounds(40) {
            let run = place.ok(["snapshot", "--json"]);
            let said = run.json();
            assert_eq!(said["warnings"].as_array().expect("a list").len(), 0, "round {round}: {said}");
            for n in 0..200 {
                let name = format!("busy/f{n}");
                assert!(names(&said).contains(&name.as_str()), "round {round}: {name} always was there");
            }
        }
    });
}

// ---- dry runs, growth ---------------------------------------------------------------------------

/// A database as a crash in a transaction leaves it: half of it in the file, and the journal beside it.
fn crashed(place: &Place, name: &str) -> PathBuf {
    let (live, path) = (place.path("live.db"), place.data.join(name));
    let conn = app::open(&live);
    conn.execute_batch(
        "PRAGMA journal_mode=DELETE; CREATE TABLE t(v BLOB);
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<200)
         INSERT INTO t SELECT randomblob(2000) FROM n;
         PRAGMA cache_size=2; BEGIN; UPDATE t SET v=zeroblob(2000);",
    )
    .expect("half a transaction");
    for suffix in ["", "-journal"] {
        fs::copy(place.path(&format!("live.db{suffix}")), place.data.join(format!("{name}{suffix}"))).expect("a copy");
    }
    path
}

#[test]
fn a_dry_run_changes_nothing_and_promises_nothing() {
    let place = Place::new();
    crashed(&place, "hot.db");
    let before = survey(&place.data);
    place.ok(["snapshot", "--dry-run"]).says(&["hot.db: a hot journal left by a crash would be rolled back"]);
    assert_same(&before, &survey(&place.data), "a dry run");
    place.ok(["snapshot"]).says(&["hot.db: a hot journal left by a crash was rolled back"]);
    assert!(!place.data.join("hot.db-journal").exists());

    // What the real one refuses, it refuses.
    let open = Place::new();
    fs::write(open.data.join("f"), "x").expect("a file");
    run(open.nbak(["snapshot"]).env_remove("NODYN_VAULT_KEY")).exits(0);
    open.run(["snapshot"]).exits(12);
    open.run(["snapshot", "--dry-run"]).exits(12).says(&["opens without one"]);
}

#[test]
fn a_file_that_grows_faster_than_it_is_read_has_an_end() {
    let place = Place::new();
    let file = fs::File::create(place.data.join("grows")).expect("a file");
    file.write_all_at(b"first", 0).expect("a write");
    let start = Instant::now();
    let mut size = 0;
    let grow = || {
        size += 64 << 20;
        if size < 1 << 40 {
            file.set_len(size).expect("longer");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = meanwhile(grow, || place.snapshot());
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
    assert_eq!(said["entries"][0]["consistency"], "changed", "{said}");
}
