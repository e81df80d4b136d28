//! What takes the place of something older while a snapshot is taken: of the two one is in it, or it is named.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::common::strace::{can_trace, only_of, traced};
use crate::live_common::{Place, app};
use nbak::snapshot::progress::{Progress, Silent};
use nbak::snapshot::restore;
use nbak::snapshot::store::{Access, Store};
use nbak::snapshot::take::{Options, Taken, take};

/// What a snapshot is about to do.
#[derive(Clone, Copy, PartialEq)]
pub enum Moment {
    /// All was listed, and every database opened; this is read for the so-manieth time, from nought.
    Reading(usize),
    /// A file of so many bytes was read.
    Read(u64),
}

/// Acts at each moment.
struct At<F: FnMut(Moment) + Send>(Mutex<(usize, F)>);

impl<F: FnMut(Moment) + Send> At<F> {
    fn new(act: F) -> At<F> {
        At(Mutex::new((0, act)))
    }
}

impl<F: FnMut(Moment) + Send> Progress for At<F> {
    fn begin(&self, what: &str, _: u64) {
        if what == "reading" {
            let mut this = self.0.lock().expect("no panic before");
            let (times, act) = &mut *this;
            std::thread::sleep(TICKS);
            act(Moment::Reading(*times));
            *times += 1;
        }
    }
    fn advance(&self, bytes: u64) {
        self.0.lock().expect("no panic before").1(Moment::Read(bytes));
    }
    fn end(&self) {}
}

/// What is made so much later is younger, by more than a tick of the kernel's clock.
pub const TICKS: Duration = Duration::from_millis(30);
/// Too large to be read ahead of its turn, in bytes.
pub const LARGE: usize = 300_000;

/// A snapshot of a directory as `make` makes it, in which `act` happens before everything that is read.
fn snapshot(make: impl FnOnce(&Path), mut act: impl FnMut(&Path, usize) + Send) -> Taken {
    let place = Place::new();
    fs::write(place.data.join("config.json"), "{}").expect("a file");
    make(&place.data);
    std::thread::sleep(2 * TICKS);
    let data = place.data.clone();
    taken(&place, |moment| {
        if let Moment::Reading(times) = moment {
            act(&data, times);
        }
    })
}

/// A snapshot of the `files`, each of so many bytes, in which `act` happens once, when the first of them was read.
fn behind_the_first(place: &Place, files: &[(&str, usize)], act: impl FnOnce() + Send) -> Taken {
    for (name, size) in files {
        let path = place.data.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, vec![b'x'; *size]).expect("a file");
    }
    std::thread::sleep(2 * TICKS);
    let (first, mut act) = (Moment::Read(files[0].1 as u64), Some(act));
    taken(place, |moment| {
        if moment == first
            && let Some(act) = act.take()
        {
            std::thread::sleep(TICKS);
            act();
        }
    })
}

/// Another test's thread may be starting a process, which has this one's lock in hand until it is started.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn taken(place: &Place, act: impl FnMut(Moment) + Send) -> Taken {
    let mut store = Store::open_or_create(&place.repo, &[], PATIENCE, 0).expect("a store");
    let options = Options { source: place.data.clone(), ..Options::default() };
    take(&mut store, &options, &At::new(act)).expect("a snapshot")
}

fn has(taken: &Taken, path: &str, kind: &str) -> bool {
    taken.entries.iter().any(|entry| entry.path == Path::new(path) && entry.kind == kind)
}

pub fn assert_quiet(taken: &Taken, what: &str) {
    assert!(taken.unreadable.is_empty(), "{what}: {:?}", taken.unreadable);
}

pub fn database(path: &Path, mode: &str) -> rusqlite::Connection {
    let conn = app::open(path);
    conn.execute_batch(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t(v); INSERT INTO t VALUES (1)"))
        .expect("a table");
    conn
}

/// As SQLite's documentation has it: a copy without what was deleted, in the place of the old file.
fn compact(path: &Path) {
    let new = path.with_extension("new");
    app::open(path).execute("VACUUM INTO ?1", [new.to_str().expect("text")]).expect("compacted");
    fs::rename(new, path).expect("renamed");
}

#[test]
fn a_database_that_is_compacted_is_in_the_snapshot() {
    for (mode, is_open) in [("DELETE", false), ("DELETE", true), ("WAL", false)] {
        let what = format!("{mode}, open: {is_open}");
        let held = Mutex::new(None);
        let make = |data: &Path| {
            let conn = database(&data.join("history.db"), mode);
            *held.lock().expect("no panic") = is_open.then_some(conn);
        };
        let taken = snapshot(make, |data, times| {
            if times == 0 {
                compact(&data.join("history.db"));
            }
        });
        assert_quiet(&taken, &what);
        assert!(has(&taken, "history.db", "database"), "{what}: {:?}", taken.entries);
    }
}

#[test]
fn a_database_that_is_made_anew_is_in_the_snapshot() {
    let make = |data: &Path| drop(database(&data.join("history.db"), "DELETE"));
    let taken = snapshot(make, |data, times| {
        if times == 0 {
            fs::remove_file(data.join("history.db")).expect("removed");
            drop(database(&data.join("history.db"), "DELETE"));
        }
    });
    assert_quiet(&taken, "made anew");
    assert!(has(&taken, "history.db", "database"), "{:?}", taken.entries);
}

#[test]
fn a_database_that_is_never_there_for_long_enough_is_named() {
    let make = |data: &Path| drop(database(&data.join("history.db"), "DELETE"));
    let taken = snapshot(make, |data, _| compact(&data.join("history.db")));
    let named: Vec<&PathBuf> = taken.unreadable.iter().map(|error| &error.path).collect();
    assert!(has(&taken, "history.db", "database") || named == [Path::new("history.db")], "{:?}", taken.entries);
    assert_eq!(taken.unreadable.len(), 1, "as often as it is looked for, it is another one");
}

#[test]
fn a_folder_that_is_exchanged_for_a_new_one_is_in_the_snapshot() {
    let fill = |folder: PathBuf, content: &str| {
        fs::create_dir_all(folder.join("deep")).expect("a folder");
        for n in 0..5 {
            fs::write(folder.join(format!("page{n}")), content).expect("a file");
            fs::write(folder.join(format!("deep/{content}{n}")), content).expect("a file");
        }
    };
    let taken = snapshot(
        |data| fill(data.join("graph"), "old"),
        |data, times| {
            if times == 0 {
                fill(data.join("graph.new"), "new");
                renameat_with(CWD, data.join("graph.new"), CWD, data.join("graph"), RenameFlags::EXCHANGE)
                    .expect("exchanged");
                fs::remove_dir_all(data.join("graph.new")).expect("removed");
            }
        },
    );
    assert_quiet(&taken, "exchanged");
    for n in 0..5 {
        for path in [format!("graph/page{n}"), format!("graph/deep/new{n}")] {
            assert!(has(&taken, &path, "file"), "{path}: {:?}", taken.entries);
        }
    }
}

#[test]
fn a_document_that_goes_on_under_a_new_name_is_in_the_snapshot() {
    for folder in ["", "docs", "docs/deep"] {
        let make = |data: &Path| {
            fs::create_dir_all(data.join(folder)).expect("a folder");
            fs::write(data.join(folder).join("state-0.json"), "precious").expect("a file");
        };
        let taken = snapshot(make, |data, times| {
            let state = |n: usize| data.join(folder).join(format!("state-{n}.json"));
            if times < 3 {
                fs::write(state(times + 1), "precious").expect("saved");
                fs::remove_file(state(times)).expect("removed");
            }
        });
        assert_quiet(&taken, folder);
        let path = Path::new(folder).join("state-3.json");
        assert!(has(&taken, path.to_str().expect("text"), "file"), "{folder}: {:?}", taken.entries);
    }
}

#[test]
fn what_is_made_meanwhile_is_in_the_snapshot() {
    let taken = snapshot(
        |data| fs::write(data.join("old"), "old").expect("a file"),
        |data, times| {
            if times == 0 {
                fs::create_dir_all(data.join("new/er")).expect("a folder");
                fs::write(data.join("new/er/file"), "new").expect("a file");
                fs::write(data.join("new-too"), "new").expect("a file");
            }
        },
    );
    assert_quiet(&taken, "new");
    for path in ["old", "new/er/file", "new-too"] {
        assert!(has(&taken, path, "file"), "{path}: {:?}", taken.entries);
    }
}

/// It was there while the snapshot was taken.
#[test]
fn what_was_captured_before_it_went_stays() {
    let place = Place::new();
    let path = |name: &str| place.data.join(name);
    fs::write(path("one"), vec![b'1'; LARGE]).expect("a file");
    fs::write(path("two"), vec![b'2'; LARGE + 1]).expect("a file");
    std::thread::sleep(2 * TICKS);
    let taken = taken(&place, |moment| match moment {
        // It is to be captured again, since it is another now and something is gone; and it is gone when that reads it.
        Moment::Read(bytes) if bytes == LARGE as u64 && path("two").exists() => {
            fs::write(path("one"), "other").expect("changed");
            fs::remove_file(path("two")).expect("removed");
        }
        Moment::Reading(1) => fs::remove_file(path("one")).expect("removed"),
        _ => {}
    });
    assert_quiet(&taken, "went");
    assert!(!path("one").exists() && has(&taken, "one", "file"), "{:?}", taken.entries);
}

/// A file system gives the number of a deleted file to the next one that is made: by that a new document is one that
/// was captured, and went.
#[test]
#[allow(clippy::print_stdout, reason = "a test that cannot be run says so")]
fn a_number_that_is_used_again_makes_nothing_captured() {
    let place = Place::new();
    let path = |name: &str| place.data.join(name);
    let mut is_used_again = false;
    let act = || {
        let seen = fs::metadata(path("a-1")).expect("there");
        let was = seen.ino();
        fs::write(path("a-2"), "a").expect("saved");
        fs::remove_file(path("a-1")).expect("removed");
        for n in 0..500 {
            fs::write(path("b-2"), "b").expect("saved");
            is_used_again = fs::metadata(path("b-2")).expect("there").ino() == was;
            if is_used_again {
                break;
            }
            fs::rename(path("b-2"), place.path(&format!("aside{n}"))).expect("moved");
        }
        if is_used_again {
            // With the size and the time of the other, as a copy with its times has.
            fs::write(path("b-2"), vec![b'b'; LARGE]).expect("saved");
            let times = fs::FileTimes::new().set_modified(seen.modified().expect("a time"));
            fs::File::options().write(true).open(path("b-2")).and_then(|file| file.set_times(times)).expect("set");
            fs::remove_file(path("b-1")).expect("removed");
        }
    };
    let taken = behind_the_first(&place, &[("a-1", LARGE), ("b-1", LARGE + 1)], act);
    assert_quiet(&taken, "a number");
    if !is_used_again {
        println!("skipped: this file system used no number again");
        return;
    }
    assert!(has(&taken, "b-2", "file"), "{:?}", taken.entries);
}

/// What was captured before it was complete does not stand for what it took the place of.
#[test]
fn half_of_what_takes_a_place_is_not_enough() {
    let place = Place::new();
    let path = |name: &str| place.data.join(name);
    let act = || {
        fs::write(path("a-new"), vec![b'n'; 500_000]).expect("complete");
        fs::remove_file(path("b-old")).expect("removed");
    };
    let taken = behind_the_first(&place, &[("a-new", LARGE), ("b-old", 500_000)], act);
    assert_quiet(&taken, "half");
    assert_eq!(taken.record.totals.bytes, 500_000, "{:?}", taken.entries);
}

/// A message goes into a database, or an archive, and its own file is removed: one of the two has it.
#[test]
fn what_goes_into_another_file_is_in_the_snapshot() {
    for folder in ["", "spool"] {
        let held = Mutex::new(None);
        let make = |data: &Path| {
            fs::create_dir_all(data.join(folder)).expect("a folder");
            fs::write(data.join(folder).join("msg"), "precious").expect("a file");
            *held.lock().expect("no panic") = Some(database(&data.join("app.db"), "WAL"));
        };
        let place = Place::new();
        make(&place.data);
        std::thread::sleep(2 * TICKS);
        let import = |moment| {
            if moment == Moment::Reading(0) {
                let held = held.lock().expect("no panic");
                held.as_ref().expect("open").execute("INSERT INTO t VALUES ('precious')", []).expect("imported");
                fs::remove_file(place.data.join(folder).join("msg")).expect("removed");
            }
        };
        let taken = taken(&place, import);
        assert_quiet(&taken, folder);
        let store = Store::open(&place.repo, &[], Access::Read).expect("opens");
        let target = place.path("target");
        let options = restore::Options { target: target.clone(), ..restore::Options::default() };
        restore::restore(&store, &taken.record, &options, &Silent).expect("restored");
        let rows: i64 = app::open(&target.join("app.db"))
            .query_row("SELECT count(*) FROM t WHERE v = 'precious'", [], |row| row.get(0))
            .expect("rows");
        assert!(rows == 1 || target.join(folder).join("msg").exists(), "{folder}: {:?}", taken.entries);
    }

    let place = Place::new();
    let (archive, message) = (place.data.join("a/archive"), place.data.join("spool/msg"));
    let append = || {
        let all = [fs::read(&archive).expect("read"), fs::read(&message).expect("read")].concat();
        fs::write(&archive, all).expect("appended");
        fs::remove_file(&message).expect("removed");
    };
    let taken = behind_the_first(&place, &[("a/archive", LARGE), ("spool/msg", LARGE + 1)], append);
    assert_quiet(&taken, "an archive");
    assert_eq!(taken.record.totals.bytes, 2 * LARGE as u64 + 1, "{:?}", taken.entries);
}

/// A document goes to a folder that was listed already, and from one that is yet to be listed: in neither list it is.
#[test]
fn what_was_made_before_all_was_listed_is_not_too_new() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    for slot in ["a", "b"] {
        fs::create_dir(place.data.join(slot)).expect("a folder");
    }
    fs::write(place.data.join("b/state.json"), "v1").expect("a file");
    std::thread::sleep(2 * TICKS);
    // It is held as it lists the second folder.
    let held = only_of(&place.data, &["b"]);
    let inject = "inject=openat:delay_enter=1500000:when=1";
    let mut options = vec!["-o", "/dev/null", "-e", "trace=openat", "-e", inject];
    options.extend(held.iter().map(String::as_str));
    let mut child = traced(&place.nbak(["snapshot"]), &options);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace runs");
    std::thread::sleep(Duration::from_millis(900));
    fs::write(place.data.join("a/state.json"), "v2").expect("saved");
    fs::remove_file(place.data.join("b/state.json")).expect("removed");
    assert!(child.try_wait().expect("asked").is_none(), "it was not held");
    assert!(child.wait().expect("its end").success());
    let listed = place.ok(["ls", "-R", "latest"]).out;
    assert!(listed.contains("state.json"), "{listed}");
}
