//! Whole operations on a real directory and a real store: what a user waits for, but for the start of a process.
//!
//! The directory has two databases that write ahead, of 30 MB together, 1500 small files and one of 8 MB. Each
//! operation opens the store anew, as each run of the program does. Making and changing the directory is in no figure,
//! nor is removing what an operation left. `benches/README.md` says what each case is good for.

#![allow(clippy::unwrap_used, missing_docs, reason = "nothing here can be handled, or is used by anyone")]

use std::cell::RefCell;
use std::fmt::Write;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use nbak::crypto::secret::Credential;
use nbak::snapshot::check::{self, check};
use nbak::snapshot::now::now_ms;
use nbak::snapshot::progress::Silent;
use nbak::snapshot::restore::{self, restore};
use nbak::snapshot::store::{Access, Store};
use nbak::snapshot::take::{self, Taken, take};
use rusqlite::{Connection, params};
use tempfile::TempDir;

const PAGE: usize = 4096;
const SMALL_FILES: u64 = 1500;
/// Rows in a database, of about 2 KB each.
const ROWS: u64 = 7500;
/// Rows that one ageing changes in a database, and how many it adds.
const CHANGED: u64 = 40;
/// Snapshots of a store that is not new, after the first.
const AGED: u64 = 30;
/// Set it to wait until files are old enough for their time stamps to be trusted.
const REST: &str = "NBAK_TEST_BENCH_REST";
/// A second more than the margin of `snapshot::receipts`.
const REST_TIME: Duration = Duration::from_secs(61);

/// The same bytes for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Words of a vocabulary that grows with nothing, so that they compress as text does.
fn prose(seed: u64, length: usize) -> String {
    let mut text = String::with_capacity(length + 8);
    for pair in noise(seed, length).chunks_exact(2) {
        // Low numbers are more frequent than high ones.
        let word = u16::from(pair[0]) * u16::from(pair[1]) / 7;
        write!(text, "{word:x}th ").unwrap();
        if text.len() >= length {
            break;
        }
    }
    text
}

/// A data directory, a place for stores beside it, and what was done to it so far.
struct Bench {
    folder: TempDir,
    data: PathBuf,
    age: u64,
    places: u64,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        for number in 0..SMALL_FILES {
            let path = data.join(format!("notes/{:02}/{number}.txt", number % 40));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, prose(number, 200 + (number * 37 % 4000) as usize)).unwrap();
        }
        let pages: Vec<u8> = (0..2048).flat_map(|n| [noise(n, PAGE / 2), vec![0; PAGE / 2]].concat()).collect();
        fs::write(data.join("graph.bin"), pages).unwrap();
        let bench = Bench { folder, data, age: 0, places: 0 };
        for (nth, mut connection) in bench.connections().into_iter().enumerate() {
            connection
                .execute_batch("CREATE TABLE rows(id INTEGER PRIMARY KEY, name TEXT UNIQUE, text TEXT, sealed BLOB)")
                .unwrap();
            add(&mut connection, nth as u64 * ROWS, ROWS);
        }
        bench
    }

    /// One to each database. What they write stays in the log for as long as they are open.
    fn connections(&self) -> Vec<Connection> {
        let open = |name| {
            let connection = Connection::open(self.data.join(name)).unwrap();
            connection
                .execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0")
                .unwrap();
            connection
        };
        vec![open("history.db"), open("datastore.db")]
    }

    /// Changes rows all over both databases, and adds some.
    fn age(&mut self, connections: &mut [Connection]) {
        self.age += 1;
        for connection in connections {
            let changes = connection.transaction().unwrap();
            for nth in 0..CHANGED {
                let seed = self.age * CHANGED + nth;
                let change = "UPDATE rows SET text = ?1 WHERE id = (SELECT min(id) + ?2 FROM rows)";
                changes.execute(change, params![prose(seed, 900), (seed * 7919 % ROWS) as i64]).unwrap();
            }
            changes.commit().unwrap();
            add(connection, (1 << 32) + self.age * CHANGED, CHANGED / 4);
        }
    }

    /// A path where there is nothing.
    fn place(&mut self, name: &str) -> PathBuf {
        self.places += 1;
        self.folder.path().join(format!("{name}-{}", self.places))
    }

    fn take(&self, store: &Path) -> Taken {
        let mut store = Store::open_or_create(store, &[key()], Duration::ZERO, now_ms()).unwrap();
        let options = take::Options { source: self.data.clone(), ..take::Options::default() };
        let taken = take(&mut store, &options, &Silent).unwrap();
        assert!(taken.unreadable.is_empty());
        taken
    }

    /// A store with one snapshot.
    fn store(&mut self) -> PathBuf {
        let store = self.place("store");
        self.take(&store);
        store
    }

    /// Removes all stores and targets.
    fn clear(&self) {
        for entry in fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap) {
            if entry.path() != self.data {
                fs::remove_dir_all(entry.path()).unwrap();
            }
        }
    }

    /// Bytes of its files.
    fn size(&self) -> u64 {
        self.files().iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    }

    fn files(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.data.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let kind = if entry.file_type().unwrap().is_dir() { &mut folders } else { &mut files };
                kind.push(entry.path());
            }
        }
        files
    }

    /// Makes every file as young as if it had just been written, and changes nothing that a snapshot holds.
    fn touch(&self) {
        // Not the databases: SQLite's locks would go with the handle. They need not be old to be trusted.
        let is_database = |path: &Path| path.extension().is_some_and(|end| end == "db");
        for path in self.files().iter().filter(|path| !is_database(path)) {
            let file = File::options().write(true).open(path).unwrap();
            let time = file.metadata().unwrap().modified().unwrap();
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        }
    }
}

fn key() -> Credential {
    Credential::VaultKey("bm90IGEgc2VjcmV0LCBhbmQgYXMgbG9uZyBhcyBvbmU=".to_owned())
}

fn add(connection: &mut Connection, from: u64, count: u64) {
    let rows = connection.transaction().unwrap();
    for id in from..from + count {
        let name = blake3::hash(&id.to_le_bytes()).to_hex().to_string();
        // Half of it is sealed, and does not compress.
        let values = params![id as i64, name, prose(id, 900), noise(id, 900)];
        rows.execute("INSERT INTO rows VALUES(?1, ?2, ?3, ?4)", values).unwrap();
    }
    rows.commit().unwrap();
}

/// Measures `operation` alone. Everything that `prepare` and earlier rounds left is on disk before it begins.
fn timed<P, R>(rounds: u64, mut prepare: impl FnMut(u64) -> P, mut operation: impl FnMut(&P) -> R) -> Duration {
    (0..rounds)
        .map(|round| {
            let prepared = prepare(round);
            rustix::fs::sync();
            let began = Instant::now();
            let result = operation(&prepared);
            let time = began.elapsed();
            drop(result);
            time
        })
        .sum()
}

fn snapshots(group: &mut BenchmarkGroup<'_, WallTime>, bench: &RefCell<Bench>) {
    group.bench_function("first", |b| {
        b.iter_custom(|rounds| {
            let prepare = |_| bench.borrow_mut().place("store");
            let time = timed(rounds, prepare, |store| bench.borrow().take(store));
            bench.borrow().clear();
            time
        });
    });
    after_first(group, bench, "young", "");
    if std::env::var_os(REST).is_some_and(|value| value != "0") {
        after_first(group, bench, "at rest", ", at rest");
    }
}

/// With files as old as they are, or, if they are to be `young`, touched before each snapshot.
fn after_first(group: &mut BenchmarkGroup<'_, WallTime>, bench: &RefCell<Bench>, files: &str, ending: &str) {
    // How old a file is, is only relied on if the last snapshot saw the clock and it went evenly since. So at rest is
    // what a store is that had a snapshot before and one after that time, and one store is used for all.
    let rested = (files != "young").then(|| {
        let mut bench = bench.borrow_mut();
        let store = bench.store();
        std::thread::sleep(REST_TIME);
        bench.take(&store);
        store
    });
    let store = || rested.clone().unwrap_or_else(|| bench.borrow_mut().store());
    let clear = || {
        if rested.is_none() {
            bench.borrow().clear();
        }
    };
    let touch = || {
        if files == "young" {
            bench.borrow().touch();
        }
    };
    group.bench_function(format!("unchanged/{files}"), |b| {
        b.iter_custom(|rounds| {
            let store = store();
            let time = timed(rounds, |_| touch(), |()| assert!(bench.borrow().take(&store).unchanged));
            clear();
            time
        });
    });
    group.bench_function(format!("aged/full scan{ending}"), |b| {
        b.iter_custom(|rounds| {
            let store = store();
            let prepare = |_| {
                touch();
                let mut connections = bench.borrow().connections();
                bench.borrow_mut().age(&mut connections);
            };
            let time = timed(rounds, prepare, |()| assert!(!bench.borrow().take(&store).unchanged));
            clear();
            time
        });
    });
    group.bench_function(format!("aged/log{ending}"), |b| {
        b.iter_custom(|rounds| {
            let mut connections = bench.borrow().connections();
            // The log that the first snapshot sees is the one that is written on to.
            bench.borrow_mut().age(&mut connections);
            let store = store();
            let prepare = |_| {
                touch();
                bench.borrow_mut().age(&mut connections);
            };
            let time = timed(rounds, prepare, |()| assert!(!bench.borrow().take(&store).unchanged));
            clear();
            time
        });
    });
    bench.borrow().clear();
}

fn reading(group: &mut BenchmarkGroup<'_, WallTime>, bench: &RefCell<Bench>) {
    let new = bench.borrow_mut().store();
    let old = bench.borrow_mut().store();
    for _ in 0..AGED {
        let mut bench = bench.borrow_mut();
        let mut connections = bench.connections();
        bench.age(&mut connections);
        drop(connections);
        bench.take(&old);
    }
    for (name, store) in [("restore/1", &new), ("restore/30 aged", &old)] {
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let mut last: Option<PathBuf> = None;
                let prepare = |_| {
                    last.take().inspect(|last| fs::remove_dir_all(last).unwrap());
                    last.insert(bench.borrow_mut().place("target")).clone()
                };
                timed(rounds, prepare, |target| {
                    let store = Store::open(store, &[key()], Access::Read).unwrap();
                    let record = store.records().unwrap().pop().unwrap();
                    let options = restore::Options { target: target.clone(), ..restore::Options::default() };
                    let restored = restore(&store, &record, &options, &Silent).unwrap();
                    assert!(restored.damaged.is_empty() && restored.files == SMALL_FILES + 3);
                })
            });
        });
    }
    for (name, read_data) in [("check", false), ("check/read data", true)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let store = Store::open(&old, &[key()], Access::Read).unwrap();
                let report = check(&store, check::Options { read_data, subset: None }, &Silent).unwrap();
                assert!(report.problems.is_empty() && report.snapshots == AGED + 1);
            });
        });
    }
}

fn whole(c: &mut Criterion) {
    let bench = RefCell::new(Bench::new());
    let mut group = c.benchmark_group("whole");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.throughput(Throughput::Bytes(bench.borrow().size()));
    snapshots(&mut group, &bench);
    reading(&mut group, &bench);
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    targets = whole
}
criterion_main!(benches);
