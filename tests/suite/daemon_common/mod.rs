//! What the tests of the daemon share: one that runs, its log as it grows, and a state that makes jobs due at once.
#![allow(dead_code, reason = "no test file uses all of it")]

pub mod clock;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::common::{KEY, Place, Run};

pub const STATE: &str = ".nbak-state/daemon.json";
/// So long a daemon may take for what it is to do, on a machine that is busy with other things.
pub const LONG: Duration = Duration::from_mins(2);

/// Looks until it is so.
pub fn until(most: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < most, "{what}: not so after {most:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A daemon that runs. It is killed when this is dropped.
pub struct Life {
    child: Child,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Life {
    pub fn start(mut command: Command) -> Life {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        let log: Arc<Mutex<String>> = Arc::default();
        let read = |pipe: Box<dyn Read + Send>| {
            let log = log.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let mut log = log.lock().expect("unpoisoned");
                    log.push_str(&line);
                    log.push('\n');
                }
            })
        };
        let readers = vec![
            read(Box::new(child.stdout.take().expect("piped"))),
            read(Box::new(child.stderr.take().expect("piped"))),
        ];
        Life { child, log, readers }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("unpoisoned").clone()
    }

    pub fn count(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// Waits for a text in its log.
    pub fn says(&self, text: &str) {
        self.says_times(text, 1);
    }

    pub fn says_times(&self, text: &str, times: usize) {
        let start = Instant::now();
        while self.count(text) < times {
            assert!(start.elapsed() < LONG, "`{text}`, {times} times, is not in:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, signal: &str) {
        signal_to(self.id(), signal);
    }

    /// The processes that it started and that live.
    pub fn children(&self) -> Vec<u32> {
        children(self.id())
    }

    /// Tells it to end: within ten seconds, with success, and no child is left. Answers with the whole log.
    pub fn end(self) -> String {
        let children = self.children();
        self.signal("TERM");
        self.ended(0, Duration::from_secs(10), &children)
    }

    /// Waits for its end.
    pub fn ended(mut self, code: i32, most: Duration, children: &[u32]) -> String {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("waited") {
                break status;
            }
            assert!(start.elapsed() < most, "it runs after {most:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("read");
        }
        let log = self.log();
        // One that is told to end before it listens has not begun: then the signal ends it.
        let had_not_begun = status.signal() == Some(15) && log.is_empty() && code == 0;
        assert!(status.code() == Some(code) || had_not_begun, "{status}: {log}");
        assert!(!log.contains("panicked at"), "{log}");
        for child in children {
            assert!(!lives(*child), "process {child} is left");
        }
        log
    }

    /// Kills it, and waits until what it started has ended too.
    pub fn kill(mut self) -> String {
        let children = self.children();
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        for child in children {
            until(Duration::from_secs(10), "the job ends with the daemon", || !lives(child));
        }
        self.log()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal_to(id: u32, signal: &str) {
    let done = Command::new("kill").args([format!("-{signal}"), id.to_string()]).output().expect("kill runs");
    assert!(done.status.success(), "{done:?}");
}

/// Whether a process runs: not, if it only waits for somebody to ask how it ended.
pub fn lives(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

pub fn children(parent: u32) -> Vec<u32> {
    let of_parent = |id: &u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    let ids = fs::read_dir("/proc").expect("a folder").filter_map(Result::ok);
    let ids = ids.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()));
    ids.filter(of_parent).filter(|id| lives(*id)).collect()
}

/// With data of which all can be in a documented backup.
pub fn filled() -> Place {
    let place = Place { key: Some(KEY), ..Place::empty() };
    fill(&place.data);
    place
}

pub fn fill(data: &Path) {
    super::common::fill(data);
    for (path, thing) in super::common::tree(data) {
        let is_text = path.to_str().is_some() && std::str::from_utf8(&thing.bytes).is_ok();
        if path.to_str().is_none() || thing.kind == "symlink" && !is_text {
            fs::remove_file(data.join(path)).expect("removed");
        }
    }
}

pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// The daemon of a place, with backups on leap days and no snapshots, in UTC and without jitter: nothing is due that is
/// not made so, whenever the tests run.
pub fn daemon(place: &Place) -> Command {
    quiet(place.command(&["daemon"]))
}

pub fn quiet(mut command: Command) -> Command {
    command.env("NBAK_BACKUP_SCHEDULE", "0 3 29 2 *").env("NBAK_SNAPSHOT_SCHEDULE", "false");
    command.env("NBAK_TIMEZONE", "UTC").env("NBAK_JITTER_SECONDS", "0");
    command
}

pub fn state(data: &Path) -> Value {
    serde_json::from_slice(&fs::read(data.join(STATE)).unwrap_or_default()).unwrap_or_else(|_| json!({}))
}

/// Makes these jobs due: nothing was seen to for eight years, in which there was a leap day or two.
pub fn make_due(data: &Path, jobs: &[&str]) {
    let mut state = state(data);
    for job in jobs {
        state["seen"][*job] = json!(now_ms() - 3000 * 86_400_000);
    }
    write_state(data, &state);
}

pub fn write_state(data: &Path, state: &Value) {
    let _ = fs::create_dir(data.join(".nbak-state"));
    fs::write(data.join(STATE), state.to_string()).expect("written");
}

/// The text of a file that others write, empty if it is not there.
pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

pub fn json_lines(run: &Run) -> Vec<Value> {
    run.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{run:?}"))).collect()
}

/// The documented backups that are listed.
pub fn backups(place: &Place) -> Vec<Value> {
    json_lines(&place.ok(&["backup", "list", "--json"]))
}

pub fn snapshots(place: &Place) -> Vec<Value> {
    json_lines(&place.ok(&["snapshots", "--json"]))
}

/// What no command leaves behind: scratch space, staging, files that were not finished.
pub fn leftovers(place: &Place) -> Vec<PathBuf> {
    let names = [".nbak-scratch", ".nbak-young", ".nbak-staging", ".nbak-drill", ".nbak-restore", ".partial", ".tmp"];
    let all = super::common::tree(place.folder.path()).into_keys();
    all.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name != ".nbak-restore.lock" && names.iter().any(|part| name.contains(part))
    })
    .collect()
}
