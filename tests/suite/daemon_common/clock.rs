//! A clock that a test sets, for the real program: `tests/fixtures/clock.c`, which comes before the system's.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// The clock of all processes that got it.
pub struct Clock {
    folder: TempDir,
    ahead: i64,
}

impl Clock {
    pub fn new() -> Clock {
        let clock = Clock { folder: TempDir::new().expect("a folder"), ahead: 0 };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clock.c");
        let mut compile = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()));
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(clock.path("clock.so")).arg(source);
        let done = compile.output().expect("a C compiler, which the build needs too");
        assert!(done.status.success(), "{done:?}");
        fs::write(clock.path("ahead"), 0i64.to_le_bytes()).expect("written");
        clock
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives it to a program.
    pub fn give(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.path("clock.so")).env("NBAK_TEST_CLOCK", self.path("ahead"));
    }

    /// Sets it forward; nobody who waits is woken.
    pub fn forward(&mut self, by: Duration) {
        self.set(self.ahead + by.as_nanos() as i64);
    }

    pub fn back(&mut self, by: Duration) {
        self.set(self.ahead - by.as_nanos() as i64);
    }

    /// Sets it to a time.
    pub fn set_to(&mut self, time: &str) {
        let at = time.parse::<jiff::Timestamp>().expect("a time");
        self.set(at.duration_since(jiff::Timestamp::now()).as_nanos() as i64);
    }

    fn set(&mut self, ahead: i64) {
        self.ahead = ahead;
        let file = fs::OpenOptions::new().write(true).open(self.path("ahead")).expect("open");
        file.write_all_at(&ahead.to_le_bytes(), 0).expect("written");
    }
}
