//! Snapshots of a directory that is in full use: threads and a second process write and checkpoint all the while.
//!
//! What is asked of every snapshot: each database is whole, holds whole transactions only, comes without sidecars; and
//! no writer ever notices. `NBAK_TEST_ROUNDS` multiplies the rounds.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::live_common::app::{self, DATABASES, Second, Writers};
use crate::live_common::{Place, Random, Stop, rounds, seed, text};
use nbak::snapshot::progress::Silent;
use nbak::snapshot::store::Store;
use nbak::snapshot::take::{Options, take};

/// Not a test but the body of the second process.
#[test]
fn second_process() {
    let Some((role, folder)) = app::role() else { return };
    match role.as_str() {
        "write" => app::write_until_told(&folder, 77),
        "lock" => {
            for name in DATABASES {
                let conn = rusqlite::Connection::open(folder.join(name)).expect("open");
                conn.busy_timeout(Duration::ZERO).expect("a timeout");
                let busy = conn.execute_batch("BEGIN IMMEDIATE").expect_err("another process holds the lock");
                assert_eq!(busy.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy), "{name}: {busy}");
            }
        }
        other => panic!("{other}"),
    }
}

#[test]
fn every_snapshot_holds_whole_transactions() {
    let seed = seed("under fire");
    let place = Place::new();
    app::make(&place.data, &mut Random::new(seed), 4);
    let writers = Writers::start(&place.data, seed + 1);
    let second = Second::start("write", &place.data);
    let (mut last, mut grown) = (0, 0);
    for round in 0..rounds(20) {
        let what = format!("round {round}");
        let said = place.snapshot();
        let id = text(&said["snapshot"]).to_owned();
        let entries: BTreeMap<&str, (&str, &str)> = said["entries"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|entry| (text(&entry["path"]), (text(&entry["type"]), text(&entry["consistency"]))))
            .collect();
        for name in DATABASES {
            assert_eq!(entries.get(name), Some(&("database", "transaction")), "{what}: {name}");
            for suffix in ["-wal", "-shm", "-journal"] {
                assert_eq!(entries.get(format!("{name}{suffix}").as_str()), None, "{what}: {name}{suffix}");
            }
        }
        assert_eq!(said["consistency"]["transaction"], 3, "{what}");
        assert_eq!(said["unreadable"], 0, "{what}");
        if round % 5 == 0 {
            let listed = place.ok(["ls", "--json", id.as_str()]).json_lines();
            for name in DATABASES {
                let entry = listed.iter().find(|entry| entry["path"] == name).expect("it is listed");
                assert_eq!(entry["consistency"], "transaction", "{what}: {entry}");
                let long = place.ok(["ls", "-l", id.as_str(), name]).out;
                assert!(long.contains("transaction") && long.trim_end().ends_with(name), "{what}: {long}");
            }
        }
        let restored = place.restore(&id, "restored");
        let runs = app::verify(&restored, &what);
        assert!(runs >= last, "{what}: {runs} runs after {last}");
        grown += u32::from(runs > last);
        last = runs;
        fs::remove_dir_all(restored).expect("removed");
    }
    assert!(grown > rounds(20) / 2, "the writers wrote between most of the snapshots");
    assert!(second.end(), "the second process saw an error");
    assert!(writers.stop() > 0);
    assert!(
        !fs::read_dir(&place.data)
            .expect("a list")
            .any(|entry| { entry.expect("an entry").file_name().to_string_lossy().starts_with(".nbak-") })
    );
    place.check();

    // When all is still again, the last snapshot is the directory.
    let said = place.snapshot();
    let restored = place.restore(text(&said["snapshot"]), "still");
    let runs = app::verify(&restored, "at rest");
    assert_eq!(runs, app::verify_live(&place.data));
}

/// The cut is short: a writer that holds a transaction open all the time neither waits nor is waited for.
#[test]
fn an_open_transaction_is_neither_seen_nor_waited_for() {
    let place = Place::new();
    app::make(&place.data, &mut Random::new(3), 1);
    let [history, ..] = app::connect(&place.data);
    history.execute_batch("BEGIN IMMEDIATE; UPDATE ledger SET runs = runs + 1000").expect("begun");
    let start = Instant::now();
    let said = place.snapshot();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(said["consistency"]["transaction"], 3);
    history.execute_batch("COMMIT").expect("the transaction is still open");
    app::verify(&place.restore("latest", "restored"), "without what was not committed");
}

#[test]
fn a_capture_in_the_same_process_drops_no_lock() {
    for mode in ["WAL", "DELETE"] {
        let place = Place::new();
        app::make(&place.data, &mut Random::new(5), 1);
        let all = app::connect(&place.data);
        for conn in &all {
            let now: String =
                conn.query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0)).expect("a mode");
            assert_eq!(now, mode.to_lowercase());
        }
        all[0].execute_batch("BEGIN IMMEDIATE; UPDATE ledger SET runs = runs + 7").expect("begun");
        all[1].execute_batch("BEGIN IMMEDIATE").expect("begun");
        all[2].execute_batch("BEGIN IMMEDIATE").expect("begun");
        assert!(Second::start("lock", &place.data).end(), "{mode}: the lock holds before");
        let mut store = Store::open_or_create(&place.repo, &[], Duration::ZERO, 0).expect("a store");
        let options = Options { source: place.data.clone(), ..Options::default() };
        for round in 0..3 {
            let options = Options { full_scan: round == 2, ..options.clone() };
            let taken = take(&mut store, &options, &Silent).expect("a snapshot");
            assert_eq!(taken.record.totals.databases, 3, "{mode}: {:?}", taken.unreadable);
            assert!(Second::start("lock", &place.data).end(), "{mode}: the lock is gone after capture {round}");
        }
        for conn in &all {
            conn.execute_batch("COMMIT").expect("the transaction is still open");
        }
    }
}

/// Journals of every kind, and no journal: the application chooses.
#[test]
fn every_journal_mode_is_captured_as_transactions() {
    let place = Place::new();
    let (mut all, mut paths) = (Vec::new(), Vec::new());
    for mode in ["WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY"] {
        let path = place.data.join(format!("{}.db", mode.to_lowercase()));
        let conn = app::open(&path);
        conn.execute_batch(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t(v INT)")).expect("a table");
        all.push((mode, conn));
        paths.push((mode, path));
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let stopping = Stop(stop);
        let handle = scope.spawn(move || {
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for (mode, conn) in &all {
                    n += 1;
                    conn.execute_batch(&format!(
                        "BEGIN; INSERT INTO t VALUES({n}); INSERT INTO t VALUES(-{n}); COMMIT"
                    ))
                    .unwrap_or_else(|error| panic!("{mode}: {error}"));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        for round in 0..rounds(8) {
            let said = place.snapshot();
            assert_eq!(said["consistency"]["transaction"], 5, "{said}");
            let restored = place.restore(text(&said["snapshot"]), "restored");
            for (mode, path) in &paths {
                let conn = app::open(&restored.join(path.file_name().expect("a name")));
                let (count, sum): (i64, i64) = conn
                    .query_row("SELECT count(*), coalesce(sum(v), 0) FROM t", [], |row| Ok((row.get(0)?, row.get(1)?)))
                    .expect("a sum");
                assert_eq!((count % 2, sum), (0, 0), "{mode}, round {round}");
            }
            fs::remove_dir_all(restored).expect("removed");
        }
        drop(stopping);
        handle.join().expect("no writer saw an error");
    });
}
