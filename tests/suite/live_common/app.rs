//! A directory like the application's, and somebody who keeps using it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::Random;

/// How long a writer waits for a lock. A capture that holds one for longer is an error that an application would see.
const BUSY: Duration = Duration::from_secs(10);
/// The databases, in the order of [`connect`].
pub const DATABASES: [&str; 3] = ["history.db", "datastore.db", "vault.db"];

pub fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).expect("open a database");
    conn.busy_timeout(BUSY).expect("a timeout");
    conn.execute_batch("PRAGMA synchronous=NORMAL").expect("a pragma");
    conn
}

/// Opens the three databases, making what is not there.
pub fn connect(data: &Path) -> [Connection; 3] {
    let [history, datastore, vault] = DATABASES.map(|name| {
        let conn = open(&data.join(name));
        conn.execute_batch("PRAGMA journal_mode=WAL").expect("write-ahead log");
        conn
    });
    history
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS runs(id INTEGER PRIMARY KEY, task TEXT, answer BLOB, calls INT, status TEXT);
             CREATE TABLE IF NOT EXISTS tool_calls(id INTEGER PRIMARY KEY, run INT, input TEXT, output BLOB);
             CREATE INDEX IF NOT EXISTS by_run ON tool_calls(run);
             CREATE TABLE IF NOT EXISTS ledger(id INTEGER PRIMARY KEY CHECK(id=1), runs INT, calls INT);
             INSERT OR IGNORE INTO ledger VALUES(1, 0, 0);",
        )
        .expect("tables");
    datastore
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS contacts(id INTEGER PRIMARY KEY, name TEXT, notes TEXT, balance INT);
             CREATE INDEX IF NOT EXISTS by_name ON contacts(name);",
        )
        .expect("tables");
    vault
        .execute_batch("CREATE TABLE IF NOT EXISTS secrets(name TEXT PRIMARY KEY, sealed BLOB, version INT)")
        .expect("tables");
    [history, datastore, vault]
}

/// Runs with their tool calls, and the ledger that counts both, in one transaction.
pub fn add_runs(history: &mut Connection, random: &mut Random, count: u64) -> rusqlite::Result<()> {
    let txn = history.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut total = 0;
    for _ in 0..count {
        let calls = 1 + random.below(5);
        let answer = if random.below(2) == 0 { random.bytes(900) } else { random.prose(2500).into_bytes() };
        txn.execute(
            "INSERT INTO runs(task, answer, calls, status) VALUES(?1, ?2, ?3, 'done')",
            params![random.prose(120), answer, calls as i64],
        )?;
        let run = txn.last_insert_rowid();
        for _ in 0..calls {
            let size = 80 + random.below(900) as usize;
            txn.execute(
                "INSERT INTO tool_calls(run, input, output) VALUES(?1, ?2, ?3)",
                params![run, random.prose(100), random.bytes(size)],
            )?;
        }
        total += calls;
    }
    txn.execute("UPDATE ledger SET runs=runs+?1, calls=calls+?2", params![count as i64, total as i64])?;
    txn.commit()
}

/// Inserts, updates in place, deletes; the balances always add up to zero.
pub fn change_records(datastore: &mut Connection, random: &mut Random) -> rusqlite::Result<()> {
    let txn = datastore.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for _ in 0..4 {
        let amount = random.below(1000) as i64;
        let size = 40 + random.below(600) as usize;
        for balance in [amount, -amount] {
            txn.execute(
                "INSERT INTO contacts(name, notes, balance) VALUES(?1, ?2, ?3)",
                params![random.prose(12), random.prose(size), balance],
            )?;
        }
    }
    let top: i64 = txn.query_row("SELECT max(id) FROM contacts", [], |row| row.get(0))?;
    for _ in 0..6 {
        let id = 1 + random.below(top as u64) as i64;
        let size = 40 + random.below(700) as usize;
        txn.execute("UPDATE contacts SET notes=?1 WHERE id=?2", params![random.prose(size), id])?;
    }
    let doomed = 1 + random.below(top as u64) as i64;
    let lost: i64 =
        txn.query_row("SELECT coalesce(sum(balance), 0) FROM contacts WHERE id=?1", [doomed], |row| row.get(0))?;
    txn.execute("DELETE FROM contacts WHERE id=?1", [doomed])?;
    txn.execute("INSERT INTO contacts(name, notes, balance) VALUES('rest', '', ?1)", [lost])?;
    txn.commit()
}

pub fn change_secret(vault: &Connection, random: &mut Random) -> rusqlite::Result<()> {
    let name = format!("KEY_{}", random.below(30));
    let size = 40 + random.below(300) as usize;
    vault
        .execute(
            "INSERT INTO secrets VALUES(?1, ?2, 1) ON CONFLICT DO UPDATE SET sealed=excluded.sealed, version=version+1",
            params![name, random.bytes(size)],
        )
        .map(|_| ())
}

/// What is beside the databases: pages that change in place, texts that grow, sessions that are rewritten.
pub fn change_files(data: &Path, random: &mut Random) -> std::io::Result<()> {
    let graph = fs::OpenOptions::new().write(true).open(data.join("knowledge-graph/data.kz"))?;
    let pages = graph.metadata()?.len() / 4096;
    for _ in 0..4 {
        graph.write_all_at(&random.bytes(300), random.below(pages) * 4096 + random.below(3000))?;
    }
    if random.below(4) == 0 {
        graph.write_all_at(&random.bytes(4096), pages * 4096)?;
    }
    let memory = data.join(format!("memory/home/m{}.txt", random.below(40)));
    fs::OpenOptions::new().append(true).create(true).open(memory)?.write_all(random.prose(150).as_bytes())?;
    let session = data.join(format!("sessions/s{}.json", random.below(30)));
    let size = 500 + random.below(9000) as usize;
    let content = format!("{{\"turns\": \"{}\"}}", random.prose(size));
    if random.below(2) == 0 {
        let fresh = data.join(format!("sessions/.new-{}", random.next()));
        fs::write(&fresh, content)?;
        fs::rename(fresh, session)
    } else {
        fs::write(session, content)
    }
}

/// A fresh directory, with databases that have no log.
pub fn make(data: &Path, random: &mut Random, scale: u64) {
    for folder in ["knowledge-graph", "memory/home", "memory/ops", "sessions"] {
        fs::create_dir_all(data.join(folder)).expect("a folder");
    }
    let [mut history, mut datastore, vault] = connect(data);
    for _ in 0..scale {
        add_runs(&mut history, random, 40).expect("runs");
        (0..6).for_each(|_| change_records(&mut datastore, random).expect("records"));
    }
    (0..20).for_each(|_| change_secret(&vault, random).expect("a secret"));
    let pages = (16 + 16 * scale as usize) * 4096;
    fs::write(data.join("knowledge-graph/data.kz"), random.bytes(pages)).expect("a graph");
    fs::write(data.join("knowledge-graph/catalog.kz"), random.bytes(8 * 4096)).expect("a graph");
    for n in 0..40 {
        let size = random.below(5000) as usize;
        fs::write(data.join(format!("memory/home/m{n}.txt")), random.prose(size)).expect("a text");
    }
    for n in 0..30 {
        let size = random.below(9000) as usize;
        fs::write(data.join(format!("sessions/s{n}.json")), random.prose(size)).expect("a session");
    }
    fs::write(data.join("config.json"), "{\"default_tier\": \"sonnet\"}").expect("a configuration");
    for conn in [history, datastore, vault] {
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
    }
}

/// Looks at restored databases: sound, without sidecars, and with whole transactions only. Answers the count of runs.
pub fn verify(data: &Path, what: &str) -> i64 {
    for name in DATABASES {
        for suffix in ["-wal", "-shm", "-journal"] {
            let sidecar = data.join(format!("{name}{suffix}"));
            assert!(fs::symlink_metadata(&sidecar).is_err(), "{what}: {} was restored", sidecar.display());
        }
    }
    let [history, datastore, _] = DATABASES.map(|name| {
        let conn = open(&data.join(name));
        let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
        assert_eq!(sound, "ok", "{what}: {name}");
        conn
    });
    let number = |conn: &Connection, sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).expect(sql);
    let runs = number(&history, "SELECT count(*) FROM runs");
    assert_eq!(runs, number(&history, "SELECT runs FROM ledger"), "{what}: runs and ledger");
    let calls = number(&history, "SELECT count(*) FROM tool_calls");
    assert_eq!(calls, number(&history, "SELECT calls FROM ledger"), "{what}: calls and ledger");
    let torn = "SELECT count(*) FROM runs WHERE calls <> (SELECT count(*) FROM tool_calls WHERE run=runs.id)";
    assert_eq!(number(&history, torn), 0, "{what}: runs without all of their calls");
    assert_eq!(number(&datastore, "SELECT coalesce(sum(balance), 0) FROM contacts"), 0, "{what}: balances");
    runs
}

/// Writers in threads of this process.
pub struct Writers {
    stop: Arc<AtomicBool>,
    pub commits: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts three: one for each of the two busy databases, one for vault and files.
    pub fn start(data: &Path, seed: u64) -> Writers {
        let (stop, commits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..3)
            .map(|role| {
                let (data, stop, commits) = (data.to_path_buf(), stop.clone(), commits.clone());
                std::thread::spawn(move || {
                    let mut random = Random::new(seed + role);
                    let [mut history, mut datastore, vault] = connect(&data);
                    while !stop.load(Ordering::Relaxed) {
                        match role {
                            0 => {
                                let count = 1 + random.below(3);
                                add_runs(&mut history, &mut random, count).expect("a writer sees no error");
                            }
                            1 => change_records(&mut datastore, &mut random).expect("a writer sees no error"),
                            _ => {
                                change_secret(&vault, &mut random).expect("a writer sees no error");
                                change_files(&data, &mut random).expect("a writer sees no error");
                            }
                        }
                        commits.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_micros(random.below(8000)));
                    }
                })
            })
            .collect();
        Writers { stop, commits, threads }
    }

    /// Stops them; an error that one of them saw fails the test.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("no writer saw an error");
        }
        self.commits.load(Ordering::Relaxed)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

const ROLE: &str = "NBAK_TEST_LIVE_ROLE";
const FOLDER: &str = "NBAK_TEST_LIVE_FOLDER";

/// This test binary once more, to run its test `second_process` in a role.
pub struct Second(pub Child);

impl Second {
    pub fn start(role: &str, folder: &Path) -> Second {
        let child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "under_fire::second_process", "--nocapture"])
            .env(ROLE, role)
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a second process");
        Second(child)
    }

    /// Whether it ended well; a writer is told to end first.
    pub fn end(mut self) -> bool {
        drop(self.0.stdin.take());
        self.0.wait().expect("an exit").success()
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The role of this process, if it is a second one.
pub fn role() -> Option<(String, PathBuf)> {
    let role = std::env::var(ROLE).ok()?;
    Some((role, PathBuf::from(std::env::var_os(FOLDER).expect("a folder"))))
}

/// Writes and checkpoints in every way until the first process closes the pipe.
pub fn write_until_told(data: &Path, seed: u64) {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        told.store(true, Ordering::Relaxed);
    });
    let mut random = Random::new(seed);
    let [mut history, mut datastore, vault] = connect(data);
    while !stop.load(Ordering::Relaxed) {
        match random.below(8) {
            0..=1 => add_runs(&mut history, &mut random, 1).expect("runs"),
            2..=3 => change_records(&mut datastore, &mut random).expect("records"),
            4 => change_secret(&vault, &mut random).expect("a secret"),
            _ => {
                let conn = [&history, &datastore, &vault][random.below(3) as usize];
                let how = ["PASSIVE", "RESTART", "TRUNCATE"][random.below(3) as usize];
                // Its first column says whether it was kept from it by a reader; that is an answer, not an error.
                let sql = format!("PRAGMA wal_checkpoint({how})");
                conn.query_row(&sql, [], |_| Ok(())).expect("a checkpoint");
            }
        }
        std::thread::sleep(Duration::from_micros(random.below(9000)));
    }
}

/// The count of runs in a directory that may have sidecars.
pub fn verify_live(data: &Path) -> i64 {
    let conn = open(&data.join(DATABASES[0]));
    conn.query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).expect("a count")
}
