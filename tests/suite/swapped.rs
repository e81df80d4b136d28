//! Folders that change places while a snapshot is taken, with all that is below them: what was in the one or in the
//! other all the while is in the snapshot, and what is told of a path was there.
//!
//! The snapshot is held up where it matters, by strace. And databases that have two names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::common::strace::{can_trace, closed, only_of, opened, traced};
use crate::live_common::{Place, Random, Run, survey};

/// A data directory, and a snapshot of it that is held up at the moments that it opens `held`.
struct Scene {
    place: Place,
    data: PathBuf,
}

impl Scene {
    /// With these files, of 1 MB each where `large`: those are read in their turn.
    fn new(files: &[&str], large: bool) -> Scene {
        let place = Place::new();
        let data = place.data.canonicalize().expect("there");
        let mut random = Random::new(9);
        for file in files {
            let path = data.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            fs::write(path, random.bytes(if large { 1_000_000 } else { 100 })).expect("a file");
        }
        // What a snapshot finds is older than it.
        std::thread::sleep(Duration::from_millis(130));
        Scene { place, data }
    }

    /// A snapshot that is held up as it has opened what is `held`.
    fn snapshot(&self, held: &[&str]) -> Child {
        let held = only_of(&self.data, held);
        let mut options = vec!["-o", "/dev/null", "-e", "trace=openat", "-e", "inject=openat:delay_exit=700000"];
        options.extend(held.iter().map(String::as_str));
        let mut child = traced(&self.place.nbak(["snapshot", "-q"]), &options);
        child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("strace starts")
    }

    fn exchange(&self, one: &str, other: &str) {
        let (one, other) = (self.data.join(one), self.data.join(other));
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("exchanged");
    }

    /// All that is there must be in the snapshot, at the path where it is.
    fn assert_all(&self, child: Child) {
        Run::of(child.wait_with_output().expect("it ends"), "held up".to_owned()).exits(0);
        let back = self.place.restore("latest", "back");
        // Folders may have the times of any moment meanwhile.
        for path in survey(&self.data).keys().filter(|path| self.data.join(path).is_file()) {
            let held = fs::read(back.join(path)).ok();
            assert_eq!(held, fs::read(self.data.join(path)).ok(), "{} in {:?}", path.display(), survey(&back).keys());
        }
        self.place.check();
    }
}

/// Between the look at a folder and the look into a folder in it, another one takes its place.
#[test]
fn between_two_levels_of_the_walk() {
    if !can_trace() {
        return;
    }
    let scene = Scene::new(&["x/sub/old", "y/sub/new"], false);
    let mut child = scene.snapshot(&["x"]);
    opened(&mut child, &scene.data.join("x"));
    fs::rename(scene.data.join("x"), scene.data.join("z")).expect("moved");
    fs::rename(scene.data.join("y"), scene.data.join("x")).expect("moved");
    scene.assert_all(child);
}

/// The same, and they change back before anything is read.
#[test]
fn and_back_again() {
    if !can_trace() {
        return;
    }
    for names in [["x/sub/one", "y/sub/other"], ["x/sub/same", "y/sub/same"]] {
        let scene = Scene::new(&names, false);
        let mut child = scene.snapshot(&["x", "x/sub"]);
        opened(&mut child, &scene.data.join("x"));
        scene.exchange("x", "y");
        opened(&mut child, &scene.data.join("x/sub"));
        scene.exchange("x", "y");
        scene.assert_all(child);
    }
}

/// They change places after a file of the one was read, and back when the one of the same path in the other was to be.
#[test]
fn while_a_file_is_read() {
    if !can_trace() {
        return;
    }
    let scene = Scene::new(&["a/x/file", "b", "p/x/file", "r"], true);
    let [before, after] = ["b", "r"].map(|held| scene.data.join(held));
    let mut child = scene.snapshot(&["b", "r"]);
    // After the first look at each file, of which this is the last.
    closed(&mut child, &after);
    opened(&mut child, &before);
    scene.exchange("a", "p");
    opened(&mut child, &after);
    scene.exchange("a", "p");
    scene.assert_all(child);
}

/// A folder whose files were read is moved, and one from elsewhere takes its place, with files of the same names.
#[test]
fn what_was_read_is_displaced() {
    if !can_trace() {
        return;
    }
    let scene = Scene::new(&["a/file", "a/sub/file", "r"], true);
    let other = scene.place.path("other");
    fs::create_dir_all(other.join("sub")).expect("folders");
    for file in ["file", "sub/file"] {
        fs::write(other.join(file), "older than the snapshot, and not in it yet").expect("a file");
    }
    std::thread::sleep(Duration::from_millis(130));
    let mut child = scene.snapshot(&["r"]);
    closed(&mut child, &scene.data.join("r"));
    opened(&mut child, &scene.data.join("r"));
    fs::rename(scene.data.join("a"), scene.data.join("z")).expect("moved");
    fs::rename(other, scene.data.join("a")).expect("moved");
    scene.assert_all(child);
}

/// A file that was read is moved, which one look sees; another takes its place, which the next look sees. By then the
/// folder that the first went to has long been listed, and does not change any more.
#[test]
fn what_was_moved_is_displaced_later() {
    if !can_trace() {
        return;
    }
    let scene = Scene::new(&["a/p", "b/other", "r", "z/other"], true);
    let [a, b, r, z] = ["a/p", "b/q", "r", "z"].map(|path| scene.data.join(path));
    let other = scene.place.path("other");
    fs::write(&other, "older than the snapshot, and not in it yet").expect("a file");
    std::thread::sleep(Duration::from_millis(130));
    let mut child = scene.snapshot(&["r", "z"]);
    closed(&mut child, &r);
    opened(&mut child, &r);
    fs::rename(&a, &b).expect("moved");
    fs::write(z.join("new"), "so that this folder is listed again, after the others").expect("a file");
    opened(&mut child, &z);
    fs::rename(&other, &a).expect("moved");
    child.wait_with_output().expect("it ends");
    let back = scene.place.restore("latest", "back");
    for path in ["a/p", "b/q"] {
        assert_eq!(fs::read(back.join(path)).ok(), fs::read(scene.data.join(path)).ok(), "{path}");
    }
}

/// A link takes a folder's place, and leads to files of the same names that are none of the data directory's.
#[test]
fn a_link_that_leads_out() {
    if !can_trace() {
        return;
    }
    for held in ["x", "0"] {
        let scene = Scene::new(&["0", "x/file", "x/sub/file", "z"], true);
        let outside = tempfile::TempDir::new().expect("a folder");
        fs::create_dir_all(outside.path().join("sub")).expect("a folder");
        for file in ["file", "sub/file"] {
            fs::write(outside.path().join(file), "a secret").expect("a file");
        }
        let x = scene.data.join("x");
        let mut child = scene.snapshot(&[held, "z"]);
        if held == "0" {
            // After the first look at each file.
            closed(&mut child, &scene.data.join("z"));
        }
        opened(&mut child, &scene.data.join(held));
        fs::rename(&x, outside.path().join("was")).expect("moved");
        std::os::unix::fs::symlink(outside.path(), &x).expect("a link");
        child.wait_with_output().expect("it ends");
        // With 3 if it says that something is not in it.
        let back = scene.place.path("back");
        let args = ["restore".as_ref(), "latest".as_ref(), "--target".as_ref(), back.as_os_str()];
        let restored = scene.place.run(args);
        assert!(matches!(restored.code, Some(0 | 3)), "{restored:?}");
        let files = survey(&back).into_keys().map(|path| back.join(path)).filter(|path| path.is_file());
        files.for_each(|path| assert_ne!(fs::read(&path).expect("read"), b"a secret", "{}", path.display()));
    }
}

/// What is in a folder that is moved was seen before, by other names.
#[test]
fn a_folder_of_hard_links() {
    if !can_trace() {
        return;
    }
    let scene = Scene::new(&["0", "a/one", "z"], true);
    fs::create_dir_all(scene.data.join("x/sub")).expect("folders");
    fs::hard_link(scene.data.join("a/one"), scene.data.join("x/sub/other")).expect("linked");
    std::thread::sleep(Duration::from_millis(130));
    let mut child = scene.snapshot(&["0", "z"]);
    // After the first look at each file.
    closed(&mut child, &scene.data.join("z"));
    opened(&mut child, &scene.data.join("0"));
    fs::rename(scene.data.join("x"), scene.data.join("y")).expect("moved");
    scene.assert_all(child);
}

/// A database that the application has open, with some of its pages in the log.
fn database(path: &Path, what: &str) -> Connection {
    let conn = Connection::open(path).expect("opened");
    conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(v)").expect("a table");
    for n in 0..300 {
        conn.execute("INSERT INTO t VALUES (?1)", [format!("{what} {n}: {}", "-".repeat(200))]).expect("a row");
    }
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET v = v || ' again' WHERE rowid % 37 = 0")
        .expect("a log");
    conn
}

fn rows(path: &Path) -> Vec<String> {
    let conn = Connection::open(path).expect("opened");
    let mut all = conn.prepare("SELECT v FROM t ORDER BY rowid").expect("a query");
    all.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("text")
}

/// A database that has a second name, with a log of its own beside that: SQLite has one shared memory for both.
#[test]
fn two_names_of_one_database() {
    for names in [["a", "b"], ["b", "a"]] {
        let scene = Scene::new(&["a/other", "b/other"], false);
        let [link, live] = names.map(|folder| scene.data.join(folder).join("app.db"));
        let _app = database(&live, "row");
        fs::hard_link(&live, &link).expect("linked");
        fs::write(link.with_file_name("app.db-wal"), b"").expect("an empty log");
        for back in ["first", "second"] {
            scene.place.ok(["snapshot", "-q", "--full-scan", "--tag", "one"]);
            let back = scene.place.restore("latest", back);
            assert_eq!(rows(&back.join(names[1]).join("app.db")), rows(&live), "{names:?}");
        }
    }
}

/// A folder is made, and what was there before is moved into it.
#[test]
fn into_a_folder_that_is_new() {
    if !can_trace() {
        return;
    }
    let scene = Scene::new(&["0", "a/one", "a/sub/two", "b/other", "z"], true);
    let mut child = scene.snapshot(&["0"]);
    // After the walk, and before anything is read.
    opened(&mut child, &scene.data.join("0"));
    fs::create_dir_all(scene.data.join("b/new/deeper")).expect("folders");
    fs::rename(scene.data.join("a/one"), scene.data.join("b/new/deeper/one")).expect("moved");
    fs::rename(scene.data.join("a/sub"), scene.data.join("b/new/sub")).expect("moved");
    scene.assert_all(child);
}

/// A folder whose files were read is moved, and what was not read yet is moved into it: at once, or between two looks.
#[test]
fn into_a_folder_that_was_moved() {
    if !can_trace() {
        return;
    }
    for is_later in [false, true] {
        let scene = Scene::new(&["a/one", "b/other", "r", "x/keep", "z/other"], true);
        let [r, z] = ["r", "z"].map(|path| scene.data.join(path));
        let keep_moves = || fs::rename(scene.data.join("x/keep"), scene.data.join("b/a/keep")).expect("moved");
        let mut child = scene.snapshot(&["r", "z"]);
        closed(&mut child, &r);
        opened(&mut child, &r);
        fs::rename(scene.data.join("a"), scene.data.join("b/a")).expect("moved");
        fs::write(z.join("new"), "so that this folder is listed again, after the others").expect("a file");
        if is_later {
            fs::rename(scene.data.join("x/keep"), scene.data.join("z/keep")).expect("moved");
            opened(&mut child, &z);
            fs::rename(scene.data.join("z/keep"), scene.data.join("b/a/keep")).expect("moved");
        } else {
            keep_moves();
        }
        child.wait_with_output().expect("it ends");
        let back = scene.place.restore("latest", "back");
        let held = |path: &str| fs::read(back.join(path)).ok();
        let one = fs::read(scene.data.join("b/a/one")).ok();
        assert!(held("a/one") == one || held("b/a/one") == one, "{is_later}");
        let keep = fs::read(scene.data.join("b/a/keep")).ok();
        assert!(["x/keep", "z/keep", "b/a/keep"].iter().any(|path| held(path) == keep), "{is_later}");
        scene.place.check();
    }
}
