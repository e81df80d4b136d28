//! What the tests that run the real program share: a place to run it in, a way to look at a directory, and a workload.
#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::print_stdout, reason = "seeds are printed, so that a failure can be had again")]
#![allow(clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "small numbers on their way to SQLite and back")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub mod app;

/// A vault key with enough entropy not to be stretched, which would take a second for each command.
pub const KEY: &str = "q0Zk3vB8sYt1nWm6RdX4uJc7HfLp2GaE";

/// A data directory, a store beside it, and a home that nothing else uses.
pub struct Place {
    pub root: TempDir,
    pub data: PathBuf,
    pub repo: PathBuf,
}

/// What a command answered.
pub struct Run {
    pub code: Option<i32>,
    pub raw: Vec<u8>,
    pub out: String,
    pub err: String,
    what: String,
}

impl Place {
    pub fn new() -> Place {
        let root = TempDir::new().expect("a folder");
        // The name under which the program will know it.
        let real = root.path().canonicalize().expect("a real path");
        let (data, repo) = (real.join("data"), real.join("store"));
        fs::create_dir_all(&data).expect("a data directory");
        fs::create_dir_all(real.join("home")).expect("a home");
        Place { root, data, repo }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.data.parent().expect("a parent").join(name)
    }

    /// The program, with this place's data directory, store and key.
    pub fn nbak<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.bare(args);
        command.env("NBAK_DATA_DIR", &self.data).env("NBAK_REPO", &self.repo).env("NODYN_VAULT_KEY", KEY);
        command
    }

    /// The program with nothing in its environment but this place's home.
    pub fn bare<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nbak"));
        command.args(args).env_clear().env("HOME", self.path("home")).env("TZ", "UTC").stdin(Stdio::null());
        command
    }

    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        run(&mut self.nbak(args))
    }

    /// Runs it and expects success.
    pub fn ok<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        self.run(args).exits(0)
    }

    /// Takes a snapshot and answers what it said.
    pub fn snapshot(&self) -> Value {
        self.ok(["snapshot", "--json"]).json()
    }

    /// Restores a snapshot into a new folder.
    pub fn restore(&self, snapshot: &str, name: &str) -> PathBuf {
        let target = self.path(name);
        self.ok(["restore".as_ref(), snapshot.as_ref(), "--target".as_ref(), target.as_os_str()]);
        target
    }

    /// The packs in the store.
    pub fn packs(&self) -> usize {
        fs::read_dir(self.repo.join("packs")).map_or(0, Iterator::count)
    }

    /// Fails unless everything in the store can be read.
    pub fn check(&self) {
        let report = self.ok(["check", "--read-data", "--json"]).json();
        assert_eq!(report["ok"], true, "{report}");
    }
}

pub fn run(command: &mut Command) -> Run {
    let output = command.output().expect("the program starts");
    Run::of(output, format!("{command:?}"))
}

impl Run {
    pub fn of(output: Output, what: String) -> Run {
        let Output { status, stdout, stderr } = output;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let run = Run { code: status.code(), out: text(&stdout), err: text(&stderr), raw: stdout, what };
        assert!(!run.err.contains("panicked"), "{run:?}");
        assert_ne!(run.code, Some(101), "{run:?}");
        run
    }

    pub fn exits(self, code: i32) -> Run {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Fails unless each of `words` is in what was said.
    pub fn says(self, words: &[&str]) -> Run {
        for word in words {
            assert!(self.err.contains(word) || self.out.contains(word), "{word:?} is missing: {self:?}");
        }
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        self.out.lines().map(parse).collect()
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Run { code, out, err, what, .. } = self;
        let short: String = out.chars().take(3000).collect();
        write!(f, "{what}\nexit code: {code:?}\nstdout: {short}\nstderr: {err}")
    }
}

/// The text at a key.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// What stands at a path.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub size: u64,
    /// The hash of a file's content; a link's target.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Item { mode, owner, mtime, size, content } = self;
        let head = &content[..content.len().min(4)];
        write!(f, "{mode:o} {owner:?} {mtime:?} {size} bytes {head:02x?}")
    }
}

pub type Survey = BTreeMap<PathBuf, Item>;

/// Everything below `folder`, the folder itself included, as the empty path.
pub fn survey(folder: &Path) -> Survey {
    let mut survey = Survey::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let place = if path.as_os_str().is_empty() { folder.to_path_buf() } else { folder.join(&path) };
        let meta = fs::symlink_metadata(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
        let (size, content) = if meta.is_dir() {
            for entry in fs::read_dir(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display())) {
                waiting.push(path.join(entry.expect("an entry").file_name()));
            }
            (0, Vec::new())
        } else if meta.is_symlink() {
            (0, fs::read_link(&place).expect("a link").as_os_str().as_bytes().to_vec())
        } else if meta.is_file() {
            let bytes = fs::read(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
            (meta.len(), blake3::hash(&bytes).as_bytes().to_vec())
        } else {
            (0, b"special".to_vec())
        };
        let (owner, mtime) = ((meta.uid(), meta.gid()), (meta.mtime(), meta.mtime_nsec()));
        survey.insert(path, Item { mode: meta.mode(), owner, mtime, size, content });
    }
    survey
}

/// Fails with the first differences.
pub fn assert_same(expected: &Survey, found: &Survey, what: &str) {
    if expected == found {
        return;
    }
    let mut all = Vec::new();
    for path in expected.keys().chain(found.keys()).collect::<std::collections::BTreeSet<_>>() {
        if expected.get(path) != found.get(path) {
            all.push(format!("{}: {:?} expected, {:?} found", path.display(), expected.get(path), found.get(path)));
        }
    }
    panic!("{what}: {} differences\n{}", all.len(), all.iter().take(10).cloned().collect::<Vec<_>>().join("\n"));
}

/// A small generator: the same seed gives the same test.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n.max(1)
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(n + 8);
        while bytes.len() < n {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(n);
        bytes
    }

    /// Words that compress.
    pub fn prose(&mut self, n: usize) -> String {
        const WORDS: [&str; 16] = [
            "the", "run", "of", "a", "tool", "answer", "memory", "said", "again", "plan", "graph", "note", "session",
            "and", "model", "done",
        ];
        let mut text = String::with_capacity(n + 8);
        while text.len() < n {
            text.push_str(WORDS[self.below(16) as usize]);
            text.push(' ');
        }
        text.truncate(n);
        text
    }
}

/// The seed of this run, printed so that a failure can be had again: `NBAK_TEST_SEED`, or one from the clock.
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("NBAK_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        u64::from(now.subsec_nanos())
    });
    println!("{test}: NBAK_TEST_SEED={seed}");
    seed
}

/// `n` rounds, times `NBAK_TEST_ROUNDS`.
pub fn rounds(n: u32) -> u32 {
    let factor = std::env::var("NBAK_TEST_ROUNDS").ok().and_then(|factor| factor.parse::<f64>().ok()).unwrap_or(1.0);
    ((f64::from(n) * factor) as u32).max(1)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says stop to threads, also when an assertion fails: a scope waits for all of them.
pub struct Stop<'a>(pub &'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
