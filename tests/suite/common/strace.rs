//! The real program under strace, which records its calls, makes them fail, or kills it as it enters one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Random;

/// Calls that change what is on disk, and `openat`, which makes files. Where a kernel has none of a name, or the
/// program makes no such call, nothing is tried.
pub const CHANGING: [&str; 27] = [
    "openat",
    "write",
    "writev",
    "pwrite64",
    "fsync",
    "fdatasync",
    "syncfs",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "ftruncate",
    "mkdir",
    "mkdirat",
    "symlink",
    "symlinkat",
    "link",
    "linkat",
    "fallocate",
    "copy_file_range",
    "chmod",
    "fchmod",
    "fchmodat",
    "fchown",
    "utimensat",
];

/// Whether strace is here and may trace. If not, that is said, and the test that asks passes without; but not where
/// `NBAK_TEST_STRACE=required`, as in CI: there it would be said to nobody.
#[expect(clippy::print_stdout, reason = "a test that was skipped says so")]
pub fn can_trace() -> bool {
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let works = works.is_ok_and(|status| status.success());
    let is_required = std::env::var_os("NBAK_TEST_STRACE").is_some_and(|value| value == "required");
    assert!(works || !is_required, "strace is not installed, or may not trace, and NBAK_TEST_STRACE says that it must");
    if !works {
        println!("skipped: strace is not installed, or may not trace");
    }
    works
}

/// `program`, with strace doing as `options` say.
pub fn traced(program: &Command, options: &[&str]) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq"]).args(options).arg("--").arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    traced.stdin(Stdio::null());
    traced
}

/// Options that choose calls about the entries at `relative` of the data directory `data`: by name, or by way of a
/// descriptor of that, of which nobody knows the number.
pub fn only_of(data: &Path, relative: &[&str]) -> Vec<String> {
    let tops = (3..24).map(|number| PathBuf::from(format!("/proc/self/fd/{number}")));
    let tops: Vec<PathBuf> = tops.chain([data.to_path_buf()]).collect();
    let names =
        tops.iter().flat_map(|top| relative.iter().map(|path| top.join(path).to_str().expect("text").to_owned()));
    names.flat_map(|name| ["-P".to_owned(), name]).collect()
}

/// Whether what runs under `strace` has the file at `path` open.
fn is_open(strace: &Child, path: &Path) -> bool {
    let open = |child: &str| {
        let all = fs::read_dir(format!("/proc/{child}/fd")).into_iter().flatten().flatten();
        all.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target == path)
    };
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", strace.id()));
    children.unwrap_or_default().split_whitespace().any(open)
}

/// Waits until what runs under `strace` has the file at `path` open.
pub fn opened(strace: &mut Child, path: &Path) {
    while !is_open(strace, path) {
        assert!(strace.try_wait().expect("asked").is_none(), "it ended before it opened {}", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until what runs under `strace` had the file at `path` open, and has it no more.
pub fn closed(strace: &mut Child, path: &Path) {
    opened(strace, path);
    while is_open(strace, path) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The calls in a log: thread, name and arguments of each.
pub fn calls(log: &str) -> Vec<(String, String, String)> {
    let call = |line: &str| {
        let (thread, rest) = line.split_once(' ')?;
        let (call, rest) = rest.trim_start().split_once('(')?;
        Some((thread.to_owned(), call.to_owned(), rest.to_owned()))
    };
    log.lines().filter_map(call).collect()
}

/// How often each call is made, at most, by one thread: strace counts by thread which call is to fail.
pub fn counts(calls: Vec<(String, String, String)>) -> BTreeMap<String, u64> {
    let mut by_thread: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (thread, call, _) in calls {
        *by_thread.entry((thread, call)).or_default() += 1;
    }
    let mut counts = BTreeMap::new();
    for ((_, call), count) in by_thread {
        let most: &mut u64 = counts.entry(call).or_default();
        *most = count.max(*most);
    }
    counts
}

/// How often a call fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Times {
    Once,
    Five,
    OnAndOn,
}

impl Times {
    /// As strace has it, from the call with the number `nth` on.
    pub fn when(self, nth: u64) -> String {
        match self {
            Times::Once => nth.to_string(),
            Times::Five => format!("{nth}..{}", nth + 4),
            Times::OnAndOn => format!("{nth}+"),
        }
    }
}

/// So many of the numbers from 1 to `count`, or all of them: one from each part of equal length, where `random` says.
pub fn positions(count: u64, most: u64, random: &mut Random) -> Vec<u64> {
    if count <= most {
        return (1..=count).collect();
    }
    let start = |part: u64| part * count / most;
    (0..most).map(|part| 1 + start(part) + random.below(start(part + 1) - start(part))).collect()
}

/// What a warning says of what a restore in place had replaced and cannot remove.
pub const IS_LEFT: &str = "could not be removed, and is left in";

/// Syncs and removals that may fail without a word, and why: by what stands in their paths.
const BEST_EFFORT: [(&str, &str); 5] = [
    ("/index.redb", "the index is made anew from the packs, and never synced"),
    ("/repo/note-", "the index's notes: without them the next snapshot looks at more"),
    (
        "/.nbak-state",
        "what is remembered of uploads: without it they begin anew, and what is there is seen to be there",
    ),
    ("/.nbak-scratch-", "scratch space: `doctor` names what is left, and the next command that has some sweeps it"),
    ("/.nbak-restore\", AT_REMOVEDIR", "it is empty by then, and the next one that may write removes it"),
];

/// Syncs and removals of a `log` with paths (`-y`) that were made to fail by EIO or ENOSPC, without those that are best
/// effort on purpose, and what SQLite does itself: it syncs the folder of a journal behind that, and removes its own
/// files, without a look whether that worked. Whoever ends with 0 after one of these says what is not so: the bytes may
/// be there, and nobody knows whether they stay.
pub fn passed_over(log: &str) -> Vec<String> {
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let mut journals: BTreeMap<&str, bool> = BTreeMap::new();
    let mut failed = Vec::new();
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some((call, _)) = rest.split_once(" <unfinished") {
            begun.insert(thread, call);
        }
        let call = if rest.starts_with("<...") { begun.get(thread).copied().unwrap_or(rest) } else { rest };
        let is_meant = ["fsync(", "fdatasync(", "unlink(", "unlinkat("].iter().any(|name| call.starts_with(name));
        let has_failed = rest.contains("(INJECTED)") && (rest.contains(" EIO ") || rest.contains(" ENOSPC "));
        let is_by_sqlite = journals.insert(thread, call.contains("-journal>)")).unwrap_or(false);
        // What of these is left the program looks at itself; its own removals are by folders that are open.
        let is_by_sqlite = is_by_sqlite
            || call.starts_with("unlink(") && ["-wal\"", "-shm\"", "-journal\""].iter().any(|end| call.contains(end));
        if is_meant && has_failed && !is_by_sqlite && !BEST_EFFORT.iter().any(|(path, _)| call.contains(path)) {
            failed.push(call.to_owned());
        }
    }
    failed
}
