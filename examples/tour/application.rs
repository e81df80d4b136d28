//! The application of the tour: a data directory, and threads that write to it until they are told to stop.
//!
//! Its databases keep promises that only whole transactions keep: a run has as many tool calls as it says, all balances
//! add up to [`BALANCE`], and there are always [`DEALS`] deals.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::Result;

const PAGE: u64 = 4096;
const RUNS: u32 = 4000;
const CONTACTS: u32 = 8000;
pub const DEALS: u32 = 4000;
/// The balances of all contacts together, whatever is moved between them.
pub const BALANCE: u32 = CONTACTS * 1000;
const GRAPH_PAGES: u32 = 2000;
const MEMORIES: u32 = 300;
const SESSIONS: u32 = 100;
/// How long a writer waits for a lock before that is an error.
pub const BUSY: Duration = Duration::from_secs(5);

pub fn make_directory(data: &Path) -> Result<()> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for folder in ["knowledge-graph", "memory", "sessions"] {
        fs::create_dir_all(data.join(folder))?;
    }
    let mut history = open(&data.join("history.db"))?;
    history.execute_batch(
        "CREATE TABLE runs(id TEXT PRIMARY KEY, task TEXT, response TEXT, calls INTEGER);
         CREATE TABLE tool_calls(id INTEGER PRIMARY KEY, run TEXT, name TEXT, output BLOB);
         CREATE INDEX calls_of ON tool_calls(run);",
    )?;
    for _ in 0..RUNS / 200 {
        let rows = history.transaction()?;
        (0..200).try_for_each(|_| add_run(&rows, &mut dice))?;
        rows.commit()?;
    }
    let mut store = open(&data.join("datastore.db"))?;
    store.execute_batch(
        "CREATE TABLE contacts(id INTEGER PRIMARY KEY, balance INTEGER, notes TEXT);
         CREATE TABLE deals(id INTEGER PRIMARY KEY AUTOINCREMENT, contact INTEGER, document TEXT);",
    )?;
    let rows = store.transaction()?;
    for _ in 0..CONTACTS {
        rows.execute("INSERT INTO contacts(balance, notes) VALUES(1000, ?1)", [dice.prose(400)])?;
    }
    for _ in 0..DEALS {
        rows.execute(
            "INSERT INTO deals(contact, document) VALUES(?1, ?2)",
            params![dice.below(CONTACTS) + 1, dice.prose(900)],
        )?;
    }
    rows.commit()?;
    let vault = open(&data.join("vault.db"))?;
    vault.execute_batch("CREATE TABLE secrets(name TEXT PRIMARY KEY, sealed BLOB)")?;
    (0..40).try_for_each(|nth| seal_secret(&vault, &mut dice, nth))?;
    let graph = File::create(data.join("knowledge-graph/data.kz"))?;
    for nth in 0..GRAPH_PAGES {
        let mut page = dice.bytes(PAGE as usize / 2);
        page.resize(PAGE as usize, 0x11);
        graph.write_all_at(&page, u64::from(nth) * PAGE)?;
    }
    for nth in 0..MEMORIES {
        fs::write(memory(data, nth), dice.prose(3000))?;
    }
    (0..SESSIONS).try_for_each(|nth| save_session(data, &mut dice, nth))?;
    fs::write(data.join("config.json"), "{\n  \"backup_schedule\": \"0 3 * * *\"\n}\n")?;
    Ok(())
}

pub fn open(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    Ok(db)
}

/// One run and its tool calls. Whoever sees one without the others sees a torn transaction.
fn add_run(db: &Connection, dice: &mut Dice) -> Result<()> {
    let (id, calls) = (dice.name(), 1 + dice.below(5));
    for _ in 0..calls {
        let output = if dice.below(2) == 0 { dice.bytes(900) } else { dice.prose(1200).into_bytes() };
        db.execute("INSERT INTO tool_calls(run, name, output) VALUES(?1, 'shell', ?2)", params![id, output])?;
    }
    let (task, response) = (dice.prose(200), dice.prose(2500));
    db.execute("INSERT INTO runs VALUES(?1, ?2, ?3, ?4)", params![id, task, response, calls])?;
    Ok(())
}

/// Moves money, rewrites notes, and replaces the oldest deal: sums and counts stay.
fn do_business(db: &mut Connection, dice: &mut Dice) -> Result<()> {
    let rows = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let (from, to, amount) = (dice.below(CONTACTS) + 1, dice.below(CONTACTS) + 1, dice.below(50));
    rows.execute("UPDATE contacts SET balance = balance - ?2 WHERE id = ?1", [from, amount])?;
    rows.execute(
        "UPDATE contacts SET balance = balance + ?2, notes = ?3 WHERE id = ?1",
        params![to, amount, dice.prose(400)],
    )?;
    rows.execute("DELETE FROM deals WHERE id = (SELECT min(id) FROM deals)", [])?;
    rows.execute("INSERT INTO deals(contact, document) VALUES(?1, ?2)", params![to, dice.prose(900)])?;
    Ok(rows.commit()?)
}

fn seal_secret(db: &Connection, dice: &mut Dice, nth: u32) -> Result<()> {
    db.execute("INSERT OR REPLACE INTO secrets VALUES(?1, ?2)", params![format!("KEY_{nth}"), dice.bytes(200)])?;
    Ok(())
}

fn change_graph(graph: &File, dice: &mut Dice) -> Result<()> {
    Ok(graph.write_all_at(&dice.bytes(300), u64::from(dice.below(GRAPH_PAGES)) * PAGE + u64::from(dice.below(2000)))?)
}

fn memory(data: &Path, nth: u32) -> PathBuf {
    data.join(format!("memory/note-{nth}.txt"))
}

/// Grows a text, and now and then replaces a session.
fn remember(data: &Path, dice: &mut Dice) -> Result<()> {
    let mut text = File::options().append(true).open(memory(data, dice.below(MEMORIES)))?;
    writeln!(text, "\n{}", dice.prose(200))?;
    if dice.below(4) > 0 {
        Ok(())
    } else {
        {
            let nth = dice.below(SESSIONS);
            save_session(data, dice, nth)
        }
    }
}

fn save_session(data: &Path, dice: &mut Dice, nth: u32) -> Result<()> {
    let turns: Vec<String> =
        (0..20).map(|_| format!("{{\"role\": \"user\", \"text\": \"{}\"}}", dice.prose(700))).collect();
    let path = data.join(format!("sessions/{nth}.json"));
    fs::write(path.with_extension("new"), format!("[{}]\n", turns.join(",\n")))?;
    Ok(fs::rename(path.with_extension("new"), path)?)
}

/// Threads that use the directory until they are told to stop.
pub struct Writers {
    stop: Arc<AtomicBool>,
    runs: Arc<AtomicU32>,
    threads: Vec<JoinHandle<Wrote>>,
}

/// What the writers did.
#[derive(Default)]
pub struct Wrote {
    pub count: u64,
    /// Runs in history.db.
    pub runs: u32,
    pub longest: Duration,
    pub errors: Vec<String>,
}

impl Writers {
    pub fn begin(data: &Path) -> Result<Writers> {
        let (stop, runs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(RUNS)));
        let mut writers = Writers { stop, runs: runs.clone(), threads: Vec::new() };
        let mut history = open(&data.join("history.db"))?;
        writers.spawn(1, 8, move |dice| {
            let rows = history.transaction()?;
            add_run(&rows, dice)?;
            rows.commit()?;
            runs.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        let mut store = open(&data.join("datastore.db"))?;
        writers.spawn(2, 15, move |dice| do_business(&mut store, dice));
        let vault = open(&data.join("vault.db"))?;
        writers.spawn(3, 100, move |dice| {
            let nth = dice.below(40);
            seal_secret(&vault, dice, nth)
        });
        let graph = File::options().write(true).open(data.join("knowledge-graph/data.kz"))?;
        writers.spawn(4, 20, move |dice| change_graph(&graph, dice));
        let folder = data.to_owned();
        writers.spawn(5, 40, move |dice| remember(&folder, dice));
        Ok(writers)
    }

    /// Runs `step` over and over, `pause` milliseconds apart.
    fn spawn(&mut self, seed: u64, pause: u64, mut step: impl FnMut(&mut Dice) -> Result<()> + Send + 'static) {
        let stop = self.stop.clone();
        self.threads.push(spawn(move || {
            let (mut dice, mut wrote) = (Dice(seed * 0x1234_5678_9abc_def1), Wrote::default());
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                match step(&mut dice) {
                    Ok(()) => wrote.count += 1,
                    Err(error) => wrote.errors.push(error.to_string()),
                }
                wrote.longest = wrote.longest.max(start.elapsed());
                sleep(Duration::from_millis(pause));
            }
            wrote
        }));
    }

    pub fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    pub fn stop(self) -> Result<Wrote> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Wrote::default();
        for thread in self.threads {
            let wrote = thread.join().map_err(|_| "a writer panicked")?;
            all.count += wrote.count;
            all.longest = all.longest.max(wrote.longest);
            all.errors.extend(wrote.errors);
        }
        all.runs = self.runs.load(Ordering::SeqCst);
        Ok(all)
    }
}

/// Content that is not all alike: xorshift64*.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u32) -> u32 {
        (self.next() >> 32) as u32 % limit
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_be_bytes()[0]).collect()
    }

    fn name(&mut self) -> String {
        format!("{:016x}{:016x}", self.next(), self.next())
    }

    /// About so many bytes of words, some of which are frequent.
    fn prose(&mut self, bytes: u64) -> String {
        let mut text = String::new();
        while (text.len() as u64) < bytes {
            let word = u64::from(self.below(60) * self.below(60)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            text.extend((0..3 + word % 6).map(|at| char::from(b'a' + (word >> (8 + 5 * at) & 31) as u8 % 26)));
            text.push(' ');
        }
        text
    }
}
