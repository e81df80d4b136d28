//! Data directories in the states that a restore meets, what is to be restored into them, and child processes that are
//! killed at a step of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};

use nbak::error::{Error, Result};
use nbak::export::inplace::{Options, Replaced, Staging, abandon, recover, replace};
use nbak::snapshot::progress::Progress;
use rusqlite::Connection;
use tempfile::TempDir;

/// What the child is to do; the rest is in `NBAK_TEST_INPLACE_DATA`, `_ORIGIN`, `_KILL`, `_LIVE`.
pub const ROLE: &str = "NBAK_TEST_INPLACE_ROLE";

/// More steps than any restore here has.
pub const MANY: i64 = 200;

/// The first step at which a restore was found half done.
static FIRST: AtomicI64 = AtomicI64::new(MANY);

/// The steps to be killed at: from the first at which one was found half done before, and then the others.
pub fn kills() -> impl Iterator<Item = i64> {
    let first = FIRST.load(Ordering::SeqCst) % MANY;
    (first..MANY).chain(0..first)
}

/// Notes that one was, killed at `kill`.
pub fn is_half_at(kill: i64) {
    FIRST.fetch_min(kill, Ordering::SeqCst);
}

/// What the journal notes as the safety backup.
pub const SAFETY: &str = "/backups/the-safety-backup";

/// Kills the process at a call.
pub struct Killer(pub AtomicI64);

impl Progress for Killer {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {
        if self.0.fetch_sub(1, Ordering::SeqCst) == 0 {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
    fn end(&self) {}
}

/// Calls a function before every step.
pub struct Hook<F: Fn() + Sync>(pub F);

impl<F: Fn() + Sync> Progress for Hook<F> {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {
        (self.0)();
    }
    fn end(&self) {}
}

pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a list") {
        let entry = entry.expect("an entry");
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            copy_tree(&source, &target);
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source).expect("a link"), &target).expect("a link");
        } else {
            fs::copy(&source, &target).expect("a copy");
            let times = fs::FileTimes::new().set_modified(entry.metadata().expect("its time").modified().expect("set"));
            fs::File::options().write(true).open(&target).and_then(|file| file.set_times(times)).expect("its time");
        }
    }
    fs::set_permissions(to, fs::metadata(from).expect("its mode").permissions()).expect("its mode");
}

/// A folder with `data` and `origin`, which is what gets staged.
pub struct Scene {
    _folder: TempDir,
    pub data: PathBuf,
    pub origin: PathBuf,
}

pub fn is_ignored(path: &Path) -> bool {
    path == Path::new(".env") || path.starts_with("backups")
}

pub fn options(into_live: bool) -> Options<'static> {
    Options {
        whole: true,
        into_live,
        keep_owners: false,
        graph: true,
        recheck: &|_| Ok(()),
        safety: Some(SAFETY),
        remarks: &[],
        what: Some("snapshot 1a2b3c4d"),
        lacks: None,
        described: &|_| true,
        left_out: &[],
        ignored: &is_ignored,
        excluded: &|_| false,
    }
}

impl Scene {
    pub fn empty() -> Scene {
        let folder = TempDir::new().expect("a folder");
        let (data, origin) = (folder.path().join("data"), folder.path().join("origin"));
        fs::create_dir(&data).expect("made");
        fs::create_dir(&origin).expect("made");
        Scene { _folder: folder, data, origin }
    }

    /// A copy in a folder of its own: what a restore tells its steps by, inodes, is new.
    pub fn again(&self) -> Scene {
        let scene = Scene::empty();
        for (from, to) in [(&self.data, &scene.data), (&self.origin, &scene.origin)] {
            fs::remove_dir(to).expect("empty");
            copy_tree(from, to);
        }
        scene
    }

    pub fn live(&self, path: &str, text: &str) {
        put(&self.data, path, text);
    }

    pub fn staged(&self, path: &str, text: &str) {
        put(&self.origin, path, text);
    }

    pub fn replace(&self, options: &Options<'_>) -> Result<Replaced> {
        self.replace_with(options, &nbak::snapshot::progress::Silent)
    }

    pub fn replace_with(&self, options: &Options<'_>, progress: &dyn Progress) -> Result<Replaced> {
        let staging = Staging::begin(&self.data)?;
        copy_tree(&self.origin, staging.root());
        replace(staging, options, progress)
    }

    pub fn recover(&self) -> Result<Option<Replaced>> {
        recover(&self.data, &nbak::snapshot::progress::Silent)
    }

    pub fn is_pending(&self) -> bool {
        self.data.join(".nbak-restore/intent").exists()
    }

    /// Replaces or recovers in a child that is killed at the `kill`th step. Whether it was.
    pub fn child(&self, role: &str, kill: i64, into_live: bool) -> bool {
        let output = command(role)
            .env("NBAK_TEST_INPLACE_DATA", &self.data)
            .env("NBAK_TEST_INPLACE_ORIGIN", &self.origin)
            .env("NBAK_TEST_INPLACE_KILL", kill.to_string())
            .env("NBAK_TEST_INPLACE_LIVE", u8::from(into_live).to_string())
            .output()
            .expect("the child runs");
        let killed = output.status.signal() == Some(9);
        assert!(killed || output.status.success(), "{role}, killed at {kill}: {output:?}");
        killed
    }

    /// What the application would find, databases by their rows. Looked at in a copy: looking changes databases.
    pub fn state(&self) -> BTreeMap<String, String> {
        state(&self.data)
    }

    /// All bytes, as they are, but for this program's own and shared memory.
    pub fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for path in paths(&self.data, Path::new("")) {
            let place = self.data.join(&path);
            if place.is_file() && !path.to_string_lossy().ends_with("-shm") {
                found.insert(path, fs::read(place).expect("read"));
            }
        }
        found
    }

    pub fn kept(&self) -> Vec<PathBuf> {
        let names = fs::read_dir(&self.data).expect("a list").map(|entry| entry.expect("an entry").path());
        names.filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(".nbak-kept-"))).collect()
    }
}

fn put(root: &Path, path: &str, text: &str) {
    let place = root.join(path);
    fs::create_dir_all(place.parent().expect("a folder")).expect("made");
    fs::write(place, text).expect("written");
}

pub fn paths(root: &Path, below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(below)).expect("a list") {
        let entry = entry.expect("an entry");
        let path = below.join(entry.file_name());
        if path.to_string_lossy().starts_with(".nbak-") {
            continue;
        }
        found.push(path.clone());
        if entry.file_type().expect("a kind").is_dir() {
            found.extend(paths(root, &path));
        }
    }
    found
}

pub fn state(data: &Path) -> BTreeMap<String, String> {
    let copy = TempDir::new().expect("a folder");
    copy_tree(data, &copy.path().join("data"));
    let data = copy.path().join("data");
    let mut found = BTreeMap::new();
    for path in paths(&data, Path::new("")) {
        let (place, name) = (data.join(&path), path.to_string_lossy().into_owned());
        let meta = place.symlink_metadata().map(|meta| meta.file_type());
        let is_sidecar = ["-wal", "-shm", "-journal"].iter().any(|end| name.ends_with(end));
        let Some(kind) = meta.ok().filter(|_| !is_sidecar) else { continue };
        let what = match () {
            () if kind.is_dir() => format!("folder {:o}", place.metadata().expect("its mode").mode() & 0o7777),
            () if kind.is_symlink() => format!("link {}", fs::read_link(&place).expect("a link").display()),
            () if path.extension().is_some_and(|end| end == "db") => {
                rows(&place).unwrap_or_else(|error| format!("malformed: {error}"))
            }
            () => String::from_utf8_lossy(&fs::read(&place).expect("read")).into_owned(),
        };
        found.insert(name, what);
    }
    found
}

/// The rows of table `t`, after an integrity check.
pub fn rows(path: &Path) -> rusqlite::Result<String> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    let mut texts = Vec::new();
    let mut statement = conn.prepare("SELECT a FROM t ORDER BY a")?;
    for text in statement.query_map([], |row| row.get::<_, String>(0))? {
        texts.push(text?);
    }
    Ok(format!("{sound}: {} rows {}", texts.len(), texts.join(" ")))
}

pub fn database(path: &Path, mode: &str, what: &str, count: u32) -> Connection {
    let conn = Connection::open(path).expect("opened");
    conn.execute_batch("PRAGMA synchronous=OFF").expect("set");
    conn.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).expect("set");
    conn.execute_batch("PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a TEXT, b BLOB)").expect("made");
    insert(&conn, what, count);
    conn
}

pub fn insert(conn: &Connection, what: &str, count: u32) {
    for n in 0..count {
        conn.execute("INSERT INTO t VALUES(?, randomblob(900))", [format!("{what}{n:02}")]).expect("inserted");
    }
}

/// The states of a live database that a restore meets. `db` and whatever is beside it is put into `data`.
pub const STATES: &[&str] =
    &["closed", "full-wal", "partial-wal", "stale-shm", "hot-journal", "malformed", "orphan-wal"];

pub fn live_database(data: &Path, state: &str) {
    let scratch = TempDir::new().expect("a folder");
    let (from, to) = (scratch.path().join("h.db"), data.join("h.db"));
    let beside = |path: &Path, end: &str| PathBuf::from(format!("{}{end}", path.display()));
    match state {
        "closed" => drop(database(&to, "WAL", "old", 20)),
        "full-wal" | "partial-wal" | "stale-shm" | "orphan-wal" => {
            let conn = database(&from, "WAL", "old", 10);
            conn.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).expect("checkpointed");
            insert(&conn, "late", 10);
            let _ = (state != "orphan-wal").then(|| fs::copy(&from, &to).expect("copied"));
            if state == "stale-shm" {
                fs::copy(beside(&from, "-shm"), beside(&to, "-shm")).expect("copied");
                return;
            }
            fs::copy(beside(&from, "-wal"), beside(&to, "-wal")).expect("copied");
            if state == "partial-wal" {
                let log = fs::File::options().write(true).open(beside(&to, "-wal")).expect("opened");
                log.set_len(log.metadata().expect("its size").len() / 2 + 77).expect("cut");
            }
        }
        "hot-journal" => {
            let conn = database(&from, "DELETE", "old", 40);
            conn.execute_batch(
                "PRAGMA cache_size=2; PRAGMA cache_spill=1; BEGIN; UPDATE t SET a='half', b=randomblob(900)",
            )
            .expect("under way");
            fs::copy(&from, &to).expect("copied");
            fs::copy(beside(&from, "-journal"), beside(&to, "-journal")).expect("copied");
            conn.execute_batch("ROLLBACK").expect("rolled back");
        }
        "malformed" => {
            fs::write(&to, [&b"SQLite format 3\0"[..], &[0x77; 5000]].concat()).expect("written");
            fs::write(beside(&to, "-wal"), [0x55; 3000]).expect("written");
        }
        other => panic!("{other}"),
    }
}

/// A small data directory with a database in `state`, and another one, a file, a graph and a folder to be restored.
pub fn scene(state: &str) -> Scene {
    let scene = Scene::empty();
    live_database(&scene.data, state);
    drop(database(&scene.data.join("second.db"), "WAL", "old", 3));
    drop(database(&scene.origin.join("h.db"), "DELETE", "new", 12));
    drop(database(&scene.origin.join("second.db"), "DELETE", "new", 2));
    scene.live("notes.txt", "old notes");
    scene.staged("notes.txt", "new notes");
    scene.live("mine.txt", "only here");
    scene.live("knowledge-graph/log", "old log");
    scene.live("knowledge-graph/data", "old graph");
    scene.staged("knowledge-graph/data", "new graph");
    scene.staged("fresh/file", "new file");
    fs::set_permissions(scene.origin.join("fresh"), fs::Permissions::from_mode(0o750)).expect("its mode");
    scene
}

/// What is to be found after the restore: what was staged, and what was live besides, but for the old graph's log.
pub fn restored(scene: &Scene) -> BTreeMap<String, String> {
    let mut expected = scene.state();
    expected.remove("knowledge-graph/log");
    expected.extend(state(&scene.origin));
    expected
}

pub fn command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["inplace::child", "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

/// A process that has a database open, and answers what it sees in it.
pub struct Opener {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Opener {
    pub fn of(database: &Path) -> Opener {
        let mut child = command("open")
            .env("NBAK_TEST_INPLACE_DATA", database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("its output"));
        let mut opener = Opener { child, input, output: BufReader::new(output) };
        opener.ask();
        opener
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The rows that its connection sees now.
    pub fn ask(&mut self) -> String {
        writeln!(self.input.as_mut().expect("open"), "rows").expect("asked");
        let mut line = String::new();
        while !line.starts_with("answer ") {
            line.clear();
            assert!(self.output.read_line(&mut line).expect("an answer") > 0, "the opener is gone");
        }
        line["answer ".len()..].trim_end().to_owned()
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// The child's side.
pub fn play(role: &str) {
    let path = |name: &str| PathBuf::from(std::env::var_os(name).expect("set"));
    if role == "open" {
        let conn = Connection::open(path("NBAK_TEST_INPLACE_DATA")).expect("opened");
        for _ in std::io::stdin().lines() {
            let mut statement = conn.prepare("SELECT a FROM t ORDER BY a").expect("prepared");
            let rows = statement.query_map([], |row| row.get::<_, String>(0)).expect("queried");
            let texts: Vec<String> = rows.map(|row| row.expect("a row")).collect();
            writeln!(std::io::stdout(), "\nanswer {}", texts.join(" ")).expect("told");
        }
        return;
    }
    let number = |name: &str| std::env::var(name).expect("set").parse::<i64>().expect("a number");
    let killer = Killer(AtomicI64::new(number("NBAK_TEST_INPLACE_KILL")));
    let data = path("NBAK_TEST_INPLACE_DATA");
    let done = match role {
        "recover" => recover(&data, &killer).map(|_| ()),
        "abandon" => abandon(&data, &killer).map(|_| ()),
        _ => Staging::begin(&data).and_then(|staging| {
            copy_tree(&path("NBAK_TEST_INPLACE_ORIGIN"), staging.root());
            replace(staging, &options(number("NBAK_TEST_INPLACE_LIVE") == 1), &killer).map(|_| ())
        }),
    };
    done.unwrap_or_else(|error: Error| panic!("{role}: {error}"));
}
