//! A tour: what this program promises, done once on this machine, and proved.
//!
//! It makes a small data directory in a temporary place, lets writers loose on it that wait for nobody, and takes
//! snapshots meanwhile. Then it restores, and holds what came back against what was there. A proof that fails makes the
//! exit code 1. How the library is used stands in [`Nbak`]; what it is tried on, in `tour/application.rs`.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nbak::crypto::secret::Credential;
use nbak::snapshot::check::{self, Report};
use nbak::snapshot::now::now_ms;
use nbak::snapshot::progress::Silent;
use nbak::snapshot::record::Record;
use nbak::snapshot::restore::{self, Restored};
use nbak::snapshot::store::{Access, Store};
use nbak::snapshot::take::{self, Taken};
use nbak::snapshot::tree::Consistency;
use rusqlite::Connection;

use application::{BALANCE, BUSY, DEALS, Writers, make_directory, open};

#[path = "tour/application.rs"]
mod application;
#[path = "tour/backup.rs"]
mod backup;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// What the directory is made of, and how it is used.
const PARTS: [(&str, &str); 7] = [
    ("history.db", "SQLite, WAL: a run and its tool calls are one transaction"),
    ("datastore.db", "SQLite, WAL: rows updated in place, inserted, deleted"),
    ("vault.db", "SQLite, WAL: small"),
    ("knowledge-graph", "pages of 4 KiB, changed in place"),
    ("memory", "text files that grow"),
    ("sessions", "JSON files that are replaced"),
    ("config.json", "never changes"),
];
/// Snapshots that are taken while everything changes, and how long it goes on changing before each.
const UNDER_FIRE: usize = 6;
const BETWEEN: Duration = Duration::from_millis(700);

fn main() -> ExitCode {
    match tour(&mut std::io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Tells the story to `out`; answers whether every proof held.
fn tour(out: &mut dyn Write) -> Result<bool> {
    let start = Instant::now();
    let scratch = tempfile::tempdir()?;
    let data = scratch.path().join("data");
    make_directory(&data)?;
    writeln!(out, "A data directory of {}:\n", size(bytes_in(&data)?))?;
    for (name, what) in PARTS {
        writeln!(out, "  {name:<16}{:>9}  {what}", size(bytes_in(&data.join(name))?))?;
    }

    let nbak = Nbak { source: data.clone(), repo: scratch.path().join("store"), key: random_key() };
    let writers = Writers::begin(&data)?;
    writeln!(out, "\nFive writers change it from now on and wait for nobody. Snapshots meanwhile:\n")?;
    writeln!(out, "  snapshot       took  directory     stored   ratio  files that changed")?;
    let mut fired: Vec<(Taken, RangeInclusive<u32>)> = Vec::new();
    for nth in 0..UNDER_FIRE {
        sleep(BETWEEN);
        let committed = writers.runs();
        let (taken, took) = timed(|| nbak.snapshot())?;
        tell(out, &taken, took, if nth == 0 { "  (the first)" } else { "" })?;
        // A run is counted a moment after its commit: one more may be there already.
        fired.push((taken, committed..=writers.runs() + 1));
    }
    let wrote = writers.stop()?;
    sleep(BETWEEN);
    let (last, took) = timed(|| nbak.snapshot())?;
    tell(out, &last, took, "  (the writers have stopped)")?;
    let (same, took) = timed(|| nbak.snapshot())?;
    tell(out, &same, took, "  (nothing changed since)")?;
    let stored = bytes_in(&nbak.repo)?;
    let times = last.record.sequence;
    let copies = last.record.totals.bytes + fired.iter().map(|(taken, _)| taken.record.totals.bytes).sum::<u64>();
    let changing = fired.iter().flat_map(|(taken, _)| &taken.entries).filter(|e| e.consistency == Consistency::Changed);
    writeln!(out, "\n  {times} snapshots take {}; {times} copies would take {}.", size(stored), size(copies))?;
    writeln!(out, "  Files that changed under every attempt to read them, and are marked so: {}.", changing.count())?;
    writeln!(out, "  The writers committed {} times; their slowest write took {}.", wrote.count, ms(wrote.longest))?;

    let mut proofs = Proofs { out, held: true };
    writeln!(proofs.out, "\nProofs:\n")?;
    proofs.note("no writer met an error", wrote.errors.is_empty(), wrote.errors.join("; "))?;
    let everything = fired.iter().all(|(taken, _)| taken.unreadable.is_empty()) && last.unreadable.is_empty();
    proofs.note("every snapshot holds every entry", everything, format!("{} files", last.record.totals.files))?;
    let databases = fired.iter().map(|(taken, _)| taken).chain([&last]).all(|taken| taken.record.totals.databases == 3);
    proofs.note("every database as one transaction", databases, format!("{} images", 3 * (fired.len() + 1)))?;
    let quiet = same.unchanged && same.stored_bytes == 0 && same.record.id == last.record.id;
    proofs.note("nothing stored when nothing changed", quiet, String::new())?;

    let (taken, committed) = &fired[1];
    let target = scratch.path().join("under-fire");
    let (restored, took) = timed(|| nbak.restore(&taken.record, &target))?;
    let told = format!("{} in {}", size(restored.bytes), ms(took));
    proofs.note(&format!("{} was restored", taken.record.id.short()), restored.damaged.is_empty(), told)?;
    proofs.databases(&target, committed)?;

    let target = scratch.path().join("last");
    let (restored, took) = timed(|| nbak.restore(&last.record, &target))?;
    let told = format!("{} in {}", size(restored.bytes), ms(took));
    proofs.note(&format!("{} was restored", last.record.id.short()), restored.damaged.is_empty(), told)?;
    let differ = differences(&data, &target)?;
    let told = if differ.is_empty() { format!("{} files", restored.files) } else { differ.join(", ") };
    proofs.note("  it is the directory, byte by byte", differ.is_empty(), told)?;
    proofs.databases(&target, &(wrote.runs..=wrote.runs))?;

    let (report, took) = timed(|| nbak.check())?;
    let told = format!("{} chunks, {} in {}", report.chunks, size(report.bytes_read), ms(took));
    proofs.note("all that is stored opens and is right", report.problems.is_empty(), told)?;
    let stranger = Nbak { key: random_key(), ..nbak.clone() };
    let refused = stranger.open().err().is_some_and(|error| error.is_key());
    proofs.note("another key does not open the store", refused, String::new())?;

    let copy = Nbak { repo: scratch.path().join("damaged"), ..nbak.clone() };
    let name = flip_a_bit(&nbak.repo, &copy.repo)?;
    let report = copy.check()?;
    let named = report.problems.iter().any(|problem| problem.subject.contains(&name));
    let told = format!("pack {}, {} files named", &name[..8], lost(&report));
    proofs.note("one bit flipped in a copy is found", named && lost(&report) > 0, told)?;

    proofs.backup(&nbak, scratch.path().join("backups"))?;

    let held = proofs.held;
    let end = if held { "Every proof held" } else { "A PROOF FAILED" };
    writeln!(out, "\n{end}, {:.1} s after the start.", start.elapsed().as_secs_f64())?;
    Ok(held)
}

// ---- the library -----------------------------------------------------------------------------------

/// A data directory, the store of its snapshots, and the key. Each call opens the store anew, as each command does.
#[derive(Clone)]
struct Nbak {
    source: PathBuf,
    repo: PathBuf,
    key: String,
}

impl Nbak {
    fn credentials(&self) -> [Credential; 1] {
        [Credential::VaultKey(self.key.clone())]
    }

    fn open(&self) -> nbak::error::Result<Store> {
        Store::open(&self.repo, &self.credentials(), Access::Read)
    }

    /// Takes a snapshot, and makes the store if there is none. A store inside of the data directory would have to
    /// be named in `own_folders`.
    fn snapshot(&self) -> Result<Taken> {
        let mut store = Store::open_or_create(&self.repo, &self.credentials(), BUSY, now_ms() / 1000)?;
        let options = take::Options { source: self.source.clone(), ..take::Options::default() };
        Ok(take::take(&mut store, &options, &Silent)?)
    }

    fn restore(&self, record: &Record, target: &Path) -> Result<Restored> {
        let options = restore::Options { target: target.to_owned(), ..restore::Options::default() };
        Ok(restore::restore(&self.open()?, record, &options, &Silent)?)
    }

    fn check(&self) -> Result<Report> {
        Ok(check::check(&self.open()?, check::Options { read_data: true, subset: None }, &Silent)?)
    }
}

/// 256 bits as characters: the kind of key that opens a store without a slow hash.
fn random_key() -> String {
    let half = || u128::from_be_bytes(nbak::id::random_bytes());
    format!("{:032x}{:032x}", half(), half())
}

// ---- the proofs ------------------------------------------------------------------------------------

struct Proofs<'a> {
    out: &'a mut dyn Write,
    held: bool,
}

impl Proofs<'_> {
    fn note(&mut self, what: &str, held: bool, told: impl AsRef<str>) -> Result<()> {
        self.held &= held;
        let text = format!("  {:<7}{what:<39}{}", if held { "ok" } else { "FAILED" }, told.as_ref());
        Ok(writeln!(self.out, "{}", text.trim_end())?)
    }

    /// The documented backup: made, verified, and put back over a directory that lost a good part of itself.
    fn backup(&mut self, nbak: &Nbak, folder: PathBuf) -> Result<()> {
        writeln!(self.out, "\nThe documented backup, a disaster, and the way back:\n")?;
        let backups = backup::Backups::of(nbak, folder);
        let before = backup::content(&nbak.source)?;
        let (created, took) = timed(|| backups.create())?;
        let manifest = &created.written.manifest;
        let bytes = manifest.files.iter().map(|entry| entry.size).sum();
        let told = format!("{} in {}", size(bytes), ms(took));
        self.note(&format!("backup {}", created.written.name), manifest.encrypted, told)?;
        let ((found, verified), took) = timed(|| backups.verify())?;
        let whole = found.name == created.written.name && verified.faults.is_empty() && verified.databases == 3;
        self.note("  it verifies", whole, format!("{} files in {}", verified.files, ms(took)))?;
        backups.disaster()?;
        let lost = backup::content(&nbak.source)?;
        self.note("a disaster", lost != before, format!("{} of {} files are left", lost.len(), before.len()))?;
        let ((restored, safety), took) = timed(|| backups.restore(&found))?;
        let told = format!("{} files in {}, safety backup included", restored.replaced.files, ms(took));
        self.note("  the backup was restored", safety.is_dir(), told)?;
        let after = backup::content(&nbak.source)?;
        self.note("  all rows and files are back", after == before, format!("{} files", after.len()))
    }

    /// Restored databases are alone, sound, and whole transactions; and no older than what was committed when the
    /// snapshot began, and no newer than what was when it ended.
    fn databases(&mut self, restored: &Path, committed: &RangeInclusive<u32>) -> Result<()> {
        let files = files_below(restored)?;
        let sidecars =
            files.iter().map(|path| path.to_string_lossy()).filter(|p| p.ends_with("-wal") || p.ends_with("-shm"));
        self.note("  no -wal and no -shm beside a database", sidecars.count() == 0, "")?;
        let (mut sound, mut told) = (true, String::from("3 databases"));
        for name in ["history.db", "datastore.db", "vault.db"] {
            let db = open(&restored.join(name))?;
            let answer: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
            if answer != "ok" {
                (sound, told) = (false, format!("{name}: {answer}"));
            }
        }
        self.note("  PRAGMA integrity_check", sound, told)?;
        let history = open(&restored.join("history.db"))?;
        let count = |db: &Connection, question: &str| db.query_row(question, [], |row| row.get::<_, u32>(0));
        let runs = count(&history, "SELECT count(*) FROM runs")?;
        let torn = "SELECT count(*) FROM runs WHERE calls <> (SELECT count(*) FROM tool_calls WHERE run = runs.id)";
        let torn = count(&history, torn)?;
        let orphans = count(&history, "SELECT count(*) FROM tool_calls WHERE run NOT IN (SELECT id FROM runs)")?;
        let store = open(&restored.join("datastore.db"))?;
        let kept = count(&store, "SELECT sum(balance) FROM contacts")? == BALANCE
            && count(&store, "SELECT count(*) FROM deals")? == DEALS;
        self.note("  no transaction is torn", torn == 0 && orphans == 0 && kept, format!("{runs} runs, {torn} torn"))?;
        let (least, most) = (committed.start(), committed.end());
        let told = if least == most { format!("{most} were committed") } else { format!("within {least} to {most}") };
        self.note("  as new as the snapshot", committed.contains(&runs), told)
    }
}

/// Files that are not the same in both directories.
fn differences(left: &Path, right: &Path) -> Result<Vec<String>> {
    let (ours, theirs) = (files_below(left)?, files_below(right)?);
    let mut differ = Vec::new();
    for path in ours.union(&theirs) {
        let in_both = ours.contains(path) && theirs.contains(path);
        if !in_both || fs::read(left.join(path))? != fs::read(right.join(path))? {
            differ.push(path.display().to_string());
        }
    }
    Ok(differ)
}

/// Copies a store, and flips one bit in the middle of the largest pack of the copy. Answers with that pack's name.
fn flip_a_bit(store: &Path, copy: &Path) -> Result<String> {
    for path in files_below(store)? {
        fs::create_dir_all(copy.join(&path).parent().unwrap_or(copy))?;
        fs::copy(store.join(&path), copy.join(&path))?;
    }
    let packs: Vec<PathBuf> =
        files_below(&copy.join("packs"))?.into_iter().map(|name| copy.join("packs").join(name)).collect();
    let length = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
    let pack = packs.iter().max_by_key(|path| length(path)).ok_or("the store has no pack")?;
    let file = File::options().read(true).write(true).open(pack)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, length(pack) / 2)?;
    file.write_all_at(&[byte[0] ^ 0b1000], length(pack) / 2)?;
    Ok(pack.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// How many paths a check says were lost, over all snapshots.
fn lost(report: &Report) -> usize {
    report.affected.iter().map(|(_, paths)| paths.len()).sum()
}

// ---- figures ---------------------------------------------------------------------------------------

fn timed<T>(act: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let start = Instant::now();
    Ok((act()?, start.elapsed()))
}

/// One line of the table of snapshots.
fn tell(out: &mut dyn Write, taken: &Taken, took: Duration, remark: &str) -> Result<()> {
    let bytes = taken.record.totals.bytes;
    let ratio = bytes.checked_div(taken.stored_bytes).map_or("-".to_owned(), |ratio| format!("{ratio}:1"));
    let (id, directory, stored) = (taken.record.id.short(), size(bytes), size(taken.stored_bytes));
    let changed = taken.changed_files;
    Ok(writeln!(out, "  {id}{:>9}  {directory:>9}  {stored:>9}  {ratio:>6}  {changed:>5}{remark}", ms(took))?)
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// Bytes for people, in powers of ten.
fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..100_000 => format!("{}.{} kB", bytes / 1000, bytes / 100 % 10),
        _ => format!("{}.{:02} MB", bytes / 1_000_000, bytes / 10_000 % 100),
    }
}

/// The paths of all files in `folder`, relative to it.
fn files_below(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let (mut files, mut waiting) = (BTreeSet::new(), vec![folder.to_owned()]);
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                files.insert(path.strip_prefix(folder)?.to_owned());
            }
        }
    }
    Ok(files)
}

/// Bytes of a file, or of all files in a folder.
fn bytes_in(path: &Path) -> Result<u64> {
    if path.is_file() {
        return Ok(fs::metadata(path)?.len());
    }
    files_below(path)?.iter().try_fold(0, |sum, file| Ok(sum + fs::metadata(path.join(file))?.len()))
}
