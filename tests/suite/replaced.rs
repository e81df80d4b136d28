//! What takes the place of something older while a snapshot is taken: of the two one is in it, or it is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::live_common::{Place, app};
use nbak::snapshot::progress::Progress;
use nbak::snapshot::store::Store;
use nbak::snapshot::take::{Options, Taken, take};

/// Acts each time when all was listed, and every database was opened, and nothing of it was read yet.
struct Before<F: FnMut(usize) + Send>(Mutex<(usize, F)>);

impl<F: FnMut(usize) + Send> Progress for Before<F> {
    fn begin(&self, what: &str, _: u64) {
        if what == "reading" {
            let mut this = self.0.lock().expect("no panic before");
            let (times, act) = &mut *this;
            // What is made now is younger than the snapshot, by more than a tick of the kernel's clock.
            std::thread::sleep(Duration::from_millis(30));
            act(*times);
            *times += 1;
        }
    }
    fn advance(&self, _: u64) {}
    fn end(&self) {}
}

/// A snapshot of a directory as `make` makes it, in which `act` happens before everything that is read.
fn snapshot(make: impl FnOnce(&Path), mut act: impl FnMut(&Path, usize) + Send) -> Taken {
    let place = Place::new();
    fs::write(place.data.join("config.json"), "{}").expect("a file");
    make(&place.data);
    // Older than the snapshot, by more than a tick.
    std::thread::sleep(Duration::from_millis(60));
    let mut store = Store::open_or_create(&place.repo, &[], Duration::ZERO, 0).expect("a store");
    let options = Options { source: place.data.clone(), ..Options::default() };
    let data = place.data.clone();
    take(&mut store, &options, &Before(Mutex::new((0, |times| act(&data, times))))).expect("a snapshot")
}

fn has(taken: &Taken, path: &str, kind: &str) -> bool {
    taken.entries.iter().any(|entry| entry.path == Path::new(path) && entry.kind == kind)
}

fn assert_quiet(taken: &Taken, what: &str) {
    assert!(taken.unreadable.is_empty(), "{what}: {:?}", taken.unreadable);
}

fn database(path: &Path, mode: &str) -> rusqlite::Connection {
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
fn what_is_new_and_stands_for_nothing_is_left_to_the_next_snapshot() {
    let taken = snapshot(
        |data| fs::write(data.join("old"), "old").expect("a file"),
        |data, _| fs::write(data.join("new"), "new").expect("a file"),
    );
    assert_quiet(&taken, "new");
    assert!(has(&taken, "old", "file") && !has(&taken, "new", "file"), "{:?}", taken.entries);
}
