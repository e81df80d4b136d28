//! What the tests of the store share: a data directory with a bit of everything, the real binary with a clean
//! environment, and a comparison of two directories that misses nothing a restore is to bring back.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileTimes, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use tempfile::TempDir;

pub mod small_disk;
pub mod strace;

/// A vault key as the application makes them, and others like it.
pub const KEY: &str = "Zm9ydHktZm91ciBjaGFyYWN0ZXJzIG9mIGEga2V5MDA=";
pub const OTHER_KEY: &str = "YW5vdGhlciBrZXksIHdoaWNoIGlzIG5vdCB0aGUgb25l";
pub const THIRD_KEY: &str = "dGhlIHRoaXJkIGtleSwgYWZ0ZXIgdGhlIG90aGVyIDI=";

/// How many times the rounds of a test are to be multiplied.
pub fn rounds() -> u64 {
    std::env::var("NBAK_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Whether fewer are asked for than a person's run has.
pub fn rounds_are_cut() -> bool {
    std::env::var("NBAK_TEST_ROUNDS").ok().and_then(|text| text.parse::<f64>().ok()).is_some_and(|rounds| rounds < 1.0)
}

/// A small generator with a seed that is printed, so that a failure can be had again.
pub struct Random(u64);

impl Random {
    pub fn seeded(what: &str) -> Random {
        let seed = std::env::var("NBAK_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64)
        });
        let _ = writeln!(std::io::stdout(), "{what}: NBAK_TEST_SEED={seed}");
        Random(seed | 1)
    }

    /// For what draws nothing, or always the same.
    pub fn fixed(seed: u64) -> Random {
        Random(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A folder of its own for one test: a data directory, a store, and room for targets.
pub struct Place {
    pub folder: TempDir,
    pub data: PathBuf,
    pub repo: PathBuf,
    /// What NODYN_VAULT_KEY is set to.
    pub key: Option<&'static str>,
}

impl Place {
    /// With an empty data directory, and no key.
    pub fn empty() -> Place {
        let folder = TempDir::new().expect("a folder");
        let (data, repo) = (folder.path().join("data"), folder.path().join("repo"));
        fs::create_dir(&data).expect("made");
        Place { folder, data, repo, key: None }
    }

    /// With [`fill`]ed data, opened by `key`.
    pub fn filled(key: Option<&'static str>) -> Place {
        let place = Place { key, ..Place::empty() };
        fill(&place.data);
        place
    }

    /// With data and one snapshot of it.
    pub fn taken(key: Option<&'static str>) -> Place {
        let place = Place::filled(key);
        place.ok(&["snapshot"]);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The binary with this place's data directory, store and key, and `args`.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = bare();
        command.env("NBAK_DATA_DIR", &self.data).env("NBAK_REPO", &self.repo).args(args);
        if let Some(key) = self.key {
            command.env("NODYN_VAULT_KEY", key);
        }
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Run {
        Run::of(self.command(args))
    }

    /// Runs and expects success.
    pub fn ok<S: AsRef<OsStr>>(&self, args: &[S]) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{run:?}");
        run
    }

    /// Runs with another key, or with none.
    pub fn with_key<S: AsRef<OsStr>>(&self, key: Option<&str>, args: &[S]) -> Run {
        let mut command = self.command(args);
        command.env_remove("NODYN_VAULT_KEY");
        if let Some(key) = key {
            command.env("NODYN_VAULT_KEY", key);
        }
        Run::of(command)
    }

    /// Restores a snapshot into a new directory.
    pub fn restore(&self, snapshot: &str, name: &str) -> (Run, PathBuf) {
        let target = self.path(name);
        let args = ["restore", snapshot, "--target"].map(OsString::from);
        (self.run(&[&args[..], &[target.clone().into()]].concat()), target)
    }

    /// Restores the newest snapshot and compares it with the data directory.
    pub fn assert_restores(&self, name: &str) {
        let (run, target) = self.restore("latest", name);
        assert_eq!(run.code, 0, "{run:?}");
        assert_same(&self.data, &target);
    }

    pub fn packs(&self) -> Vec<PathBuf> {
        objects(&self.repo, "packs")
    }

    pub fn slots(&self) -> Vec<PathBuf> {
        objects(&self.repo, "keys")
    }
}

/// The binary, without anything from this process's environment that it would listen to.
pub fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nbak"));
    for (name, _) in std::env::vars_os() {
        if ["NODYN_", "LYNOX_", "NBAK_", "GOOGLE_"].iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
        {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// What came of one run of the binary.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
    pub raw: Vec<u8>,
}

impl Run {
    pub fn of(mut command: Command) -> Run {
        let output = command.output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(!err.contains("panicked at"), "{err}");
        let code = output.status.code().unwrap_or_else(|| panic!("{}: {err}", output.status));
        Run { code, out, err, raw: output.stdout }
    }
}

/// The objects in one folder of a store, by name.
pub fn objects(repo: &Path, folder: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(repo.join(folder)).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// A moment that is far enough back for receipts to be relied on, with nanoseconds.
fn moment(n: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000 + n * 1000, 123_456_789)
}

fn stamp(path: &Path, n: u64) {
    let file = fs::File::open(path).expect("open");
    file.set_times(FileTimes::new().set_modified(moment(n)).set_accessed(moment(n))).expect("a time");
}

/// Writes a database of about `rows` * 200 bytes and closes it again.
pub fn database(path: &Path, mode: &str, rows: u32) {
    let conn = Connection::open(path).expect("open");
    conn.execute_batch(&format!(
        "PRAGMA journal_mode={mode}; PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<{rows})
         INSERT INTO t SELECT x, hex(randomblob(90)) FROM n;"
    ))
    .expect("filled");
    conn.close().expect("closed");
}

/// Makes a small data directory with a bit of everything. All databases are closed: what a restore gives back must be
/// the very bytes.
pub fn fill(data: &Path) {
    database(&data.join("history.db"), "WAL", 300);
    database(&data.join("engine.db"), "DELETE", 40);
    fs::create_dir_all(data.join("workspace/deep/er")).expect("made");
    database(&data.join("workspace/notes.sqlite"), "WAL", 10);
    fs::create_dir(data.join("empty")).expect("made");
    let write = |name: &[u8], bytes: &[u8]| {
        fs::write(data.join(OsStr::from_bytes(name)), bytes).expect("written");
    };
    write(b"config.json", b"{\"other\": 1}\n");
    write(b"nothing", b"");
    write(b"sparse", b"");
    let sparse = fs::OpenOptions::new().write(true).open(data.join("sparse")).expect("open");
    sparse.set_len(300_000).expect("a hole");
    write(b"workspace/letter.txt", &b"Dear reader, this is a letter. ".repeat(300));
    write(b"workspace/deep/noise", &noise(7, 150_000));
    write(b"workspace/deep/same", &noise(7, 150_000));
    write(b"workspace/deep/er/with space\tand\nmore", b"odd");
    write(b"workspace/not-utf8-\xff\xfe", b"bytes");
    write(b"script", b"#!/bin/sh\n");
    symlink("workspace/letter.txt", data.join("link")).expect("linked");
    symlink("/nowhere/at all", data.join("workspace/dangling")).expect("linked");
    symlink(OsStr::from_bytes(b"..\xff"), data.join("empty-ish")).expect("linked");
    for (name, mode) in [("script", 0o755), ("nothing", 0o400), ("empty", 0o750), ("workspace/letter.txt", 0o664)] {
        fs::set_permissions(data.join(name), Permissions::from_mode(mode)).expect("a mode");
    }
    for (n, path) in tree(data).into_keys().rev().enumerate() {
        if !data.join(&path).is_symlink() {
            stamp(&data.join(&path), n as u64);
        }
    }
    stamp(data, 99);
}

/// One entry of a directory, as far as a restore is to bring it back.
#[derive(Clone, PartialEq, Eq)]
pub struct Thing {
    pub kind: &'static str,
    pub mode: u32,
    pub mtime: (i64, i64),
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hash = blake3::hash(&self.bytes);
        write!(f, "{} {:o} {:?} {} bytes {}", self.kind, self.mode, self.mtime, self.bytes.len(), &hash.to_hex()[..8])
    }
}

/// All that is below `root`, by path.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, Thing> {
    let mut all = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("a folder") {
            let path = folder.join(entry.expect("an entry").file_name());
            let meta = fs::symlink_metadata(root.join(&path)).expect("an entry");
            let (kind, bytes) = match meta.file_type() {
                kind if kind.is_dir() => {
                    folders.push(path.clone());
                    ("directory", Vec::new())
                }
                kind if kind.is_symlink() => {
                    ("symlink", fs::read_link(root.join(&path)).expect("a link").as_os_str().as_bytes().to_vec())
                }
                kind if kind.is_file() => ("file", fs::read(root.join(&path)).expect("a file")),
                _ => ("other", Vec::new()),
            };
            let thing = Thing { kind, mode: meta.mode() & 0o7777, mtime: (meta.mtime(), meta.mtime_nsec()), bytes };
            all.insert(path, thing);
        }
    }
    all
}

/// Compares two trees and says what differs.
pub fn assert_equal(expected: &BTreeMap<PathBuf, Thing>, found: &BTreeMap<PathBuf, Thing>) {
    let paths: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differ: Vec<String> = paths
        .into_iter()
        .filter(|path| expected.get(*path) != found.get(*path))
        .map(|path| format!("{}: {:?} became {:?}", path.display(), expected.get(path), found.get(path)))
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// Compares two directories: names, kinds, bytes, modes, times to the nanosecond, targets of links.
pub fn assert_same(expected: &Path, found: &Path) {
    let own = |root: &Path| {
        let meta = fs::metadata(root).expect("a folder");
        (meta.mode(), meta.mtime(), meta.mtime_nsec())
    };
    assert_equal(&tree(expected), &tree(found));
    assert_eq!(own(expected), own(found), "the directory itself");
}

/// A moment so many days ago, as manifests tell it.
pub fn days_ago(days: i64) -> String {
    nbak::export::manifest::iso(jiff::Timestamp::now().as_millisecond() - days * 86_400_000)
}

/// Copies a directory, bytes and names alone.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for (path, thing) in tree(from) {
        let to = to.join(&path);
        match thing.kind {
            "directory" => fs::create_dir_all(&to).expect("made"),
            "file" => {
                fs::create_dir_all(to.parent().expect("a folder")).expect("made");
                fs::write(&to, &thing.bytes).expect("written");
            }
            _ => panic!("{}: neither a file nor a directory", path.display()),
        }
    }
}

/// Runs `act` on a thread of its own and fails when it takes longer than that: what hangs must not hang the tests.
pub fn within<T: Send + 'static>(seconds: u64, what: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(act());
    });
    match receiver.recv_timeout(Duration::from_secs(seconds)) {
        Ok(answer) => answer,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: not done after {seconds} s"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => panic!("{what}: no answer"),
        },
    }
}
