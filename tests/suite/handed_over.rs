//! What an application hands over from one file to another while a snapshot is taken: one of the two has it. In each
//! scene it is in the other first, and only then gone from the one; so at every moment it is somewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crate::live_common::{Place, app};
use crate::replaced::{LARGE, Moment, TICKS, assert_quiet, database, taken};
use nbak::snapshot::progress::Silent;
use nbak::snapshot::restore;
use nbak::snapshot::store::{Access, Store};
use nbak::snapshot::take::Taken;

const ITEM: &str = "precious";

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("listed").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Whether the item is in a file below `folder`: in a row that is there, where it is a database.
fn is_in(folder: &Path) -> bool {
    let has = |path: &PathBuf| {
        if path.extension().is_some_and(|extension| extension == "db") {
            let count = "SELECT count(*) FROM t WHERE v = ?1";
            return app::open(path).query_row(count, [ITEM], |row| row.get::<_, i64>(0)).expect("rows") > 0;
        }
        let bytes = fs::read(path).expect("read");
        bytes.windows(ITEM.len()).any(|window| window == ITEM.as_bytes())
    };
    files(folder).iter().any(has)
}

fn assert_held(place: &Place, taken: &Taken, what: &str) {
    assert_quiet(taken, what);
    assert!(is_in(&place.data), "{what}: the scene itself lost it");
    let store = Store::open(&place.repo, &[], Access::Read).expect("opens");
    let target = place.path("target");
    let options = restore::Options { target: target.clone(), ..restore::Options::default() };
    restore::restore(&store, &taken.record, &options, &Silent).expect("restored");
    assert!(is_in(&target), "{what}: in {:?}", taken.entries);
}

fn append(path: &Path, what: &str) {
    let all = [fs::read(path).expect("read"), what.into()].concat();
    // In place, as who appends does.
    let file = fs::File::options().write(true).open(path).expect("opens");
    std::os::unix::fs::FileExt::write_all_at(&file, &all, 0).expect("appended");
}

fn insert(path: &Path) {
    app::open(path).execute("INSERT INTO t VALUES (?1)", [ITEM]).expect("imported");
}

/// A snapshot of `place` in which `act` happens once, when all was listed.
fn with(place: &Place, act: impl FnOnce() + Send) -> Taken {
    let mut act = Some(act);
    let taken = taken(place, |moment| {
        if moment == Moment::Reading(0)
            && let Some(act) = act.take()
        {
            act();
        }
    });
    assert!(act.is_none(), "nothing was read");
    taken
}

/// Each scene: what it is called, and what it does with the data directory.
type Scene<'a> = (&'a str, &'a (dyn Fn(&Path) + Sync));

/// An archive that did not change for long is vouched for by its stamp. That it had when the walk came by.
#[test]
fn what_goes_into_a_file_that_is_vouched_for_is_in_the_snapshot() {
    let scenes: [Scene<'_>; 3] = [
        ("a database", &|data| insert(&data.join("archive.db"))),
        ("a file", &|data| append(&data.join("archive"), ITEM)),
        ("a file in a folder that is taken over", &|data| append(&data.join("old/archive"), ITEM)),
    ];
    std::thread::scope(|scope| {
        for (what, import) in scenes {
            scope.spawn(move || {
                let place = Place::new();
                let path = |name: &str| place.data.join(name);
                drop(database(&path("archive.db"), "DELETE"));
                for name in ["archive", "old/archive"] {
                    fs::create_dir_all(path(name).parent().expect("a folder")).expect("made");
                    fs::write(path(name), "old").expect("a file");
                }
                fs::create_dir(path("spool")).expect("made");
                // Until what is old looks old, and a snapshot has noted it.
                for wait in [0, 61, 1] {
                    std::thread::sleep(Duration::from_secs(wait));
                    fs::write(path("new"), format!("{wait}")).expect("something to read");
                    drop(with(&place, || {}));
                }
                fs::write(path("spool/msg"), ITEM).expect("a message");
                let taken = with(&place, || {
                    import(&place.data);
                    fs::remove_file(path("spool/msg")).expect("removed");
                });
                assert_held(&place, &taken, what);
            });
        }
    });
}

/// A segment is sealed: it was captured, got one more, and has another name then.
#[test]
fn what_grew_and_was_renamed_then_is_in_the_snapshot() {
    let scenes: [Scene<'_>; 3] = [
        ("a file", &|data| {
            append(&data.join("a/open"), ITEM);
            fs::rename(data.join("a/open"), data.join("a/sealed")).expect("renamed");
        }),
        ("a folder", &|data| {
            append(&data.join("a/open"), ITEM);
            fs::rename(data.join("a"), data.join("sealed")).expect("renamed");
        }),
        ("a database", &|data| {
            insert(&data.join("a/live.db"));
            fs::rename(data.join("a/live.db"), data.join("a/past.db")).expect("renamed");
        }),
    ];
    for (what, seal) in scenes {
        let place = Place::new();
        let message = place.data.join("b/msg");
        for folder in ["a", "b"] {
            fs::create_dir_all(place.data.join(folder)).expect("made");
        }
        drop(database(&place.data.join("a/live.db"), "DELETE"));
        fs::write(place.data.join("a/open"), vec![b'x'; LARGE]).expect("a file");
        fs::write(&message, [ITEM.as_bytes(), &vec![b'y'; LARGE][..]].concat()).expect("a file");
        std::thread::sleep(2 * TICKS);
        let mut is_done = false;
        let taken = taken(&place, |moment| {
            // What comes before it is read, and it is not.
            if moment == Moment::Read(LARGE as u64) && !is_done {
                is_done = true;
                std::thread::sleep(TICKS);
                seal(&place.data);
                fs::remove_file(&message).expect("removed");
            }
        });
        assert!(is_done, "{what}: nothing happened");
        assert_held(&place, &taken, what);
    }
}

/// The file that it came from stays, without it.
#[test]
fn what_leaves_a_file_that_stays_is_in_the_snapshot() {
    let scenes: [Scene<'_>; 4] = [
        ("cut short", &|data| fs::File::create(data.join("spool")).map(drop).expect("cut")),
        ("overwritten", &|data| {
            let file = fs::File::options().write(true).open(data.join("spool")).expect("opens");
            std::os::unix::fs::FileExt::write_all_at(&file, b"nothing.", 0).expect("written");
        }),
        ("written anew", &|data| {
            fs::write(data.join("spool.new"), "rest").expect("a file");
            fs::rename(data.join("spool.new"), data.join("spool")).expect("renamed");
        }),
        ("deleted from a database", &|data| {
            app::open(&data.join("spool.db")).execute("DELETE FROM t WHERE v = ?1", [ITEM]).expect("deleted");
        }),
    ];
    for (what, leave) in scenes {
        let is_row = what.ends_with("database");
        let place = Place::new();
        let path = |name: &str| place.data.join(name);
        // The log is the application's, and goes on.
        let held = Mutex::new(database(&path("archive.db"), "WAL"));
        let outbox = database(&path("spool.db"), "DELETE");
        if is_row {
            outbox.execute("INSERT INTO t VALUES (?1)", [ITEM]).expect("a row");
        }
        drop(outbox);
        fs::write(path("spool"), if is_row { "nothing." } else { ITEM }).expect("a file");
        std::thread::sleep(2 * TICKS);
        let mut is_done = false;
        let taken = taken(&place, |moment| {
            // A database without a log is held until it was read.
            let is_time = if is_row { matches!(moment, Moment::Read(_)) } else { moment == Moment::Reading(0) };
            if is_time && !is_done {
                is_done = true;
                let held = held.lock().expect("no panic before");
                held.execute("INSERT INTO t VALUES (?1)", [ITEM]).expect("imported");
                leave(&place.data);
            }
        });
        assert!(is_done, "{what}: nothing happened");
        assert_held(&place, &taken, what);
    }
}

/// Two of them at once, and again and again: whatever is read first, the other one has it then.
#[test]
fn what_goes_to_and_fro_between_two_files_is_in_the_snapshot() {
    let place = Place::new();
    let path = |name: &str| place.data.join(name);
    fs::write(path("a"), vec![b'x'; LARGE]).expect("a file");
    fs::write(path("b"), [ITEM.as_bytes(), &vec![b'y'; LARGE][..]].concat()).expect("a file");
    std::thread::sleep(2 * TICKS);
    let mut times = 0;
    let taken = taken(&place, |moment| {
        // Behind the first that is read each time, until nothing moves any more.
        if matches!(moment, Moment::Read(_)) && times < 3 {
            times += 1;
            let (from, to) = if times % 2 == 1 { ("b", "a") } else { ("a", "b") };
            append(&path(to), ITEM);
            fs::write(path(from), vec![b'z'; LARGE]).expect("written");
        }
    });
    assert_eq!(times, 3);
    assert_held(&place, &taken, "to and fro");
}

/// An application's own pages and its own log, called as SQLite calls them, and not SQLite's. The log is played into
/// the file and begun anew once the file was read.
#[test]
fn what_is_played_into_a_file_that_is_no_database_is_in_the_snapshot() {
    for suffix in ["wal", "journal", "shm"] {
        let place = Place::new();
        let (file, log) = (place.data.join("store"), place.data.join(format!("store-{suffix}")));
        fs::write(&file, vec![b'x'; LARGE]).expect("a file");
        fs::write(&log, [ITEM.as_bytes(), &vec![b'y'; LARGE + 1][..]].concat()).expect("a log");
        std::thread::sleep(2 * TICKS);
        let mut is_done = false;
        let taken = taken(&place, |moment| {
            if moment == Moment::Read(LARGE as u64) && !is_done {
                is_done = true;
                append(&file, ITEM);
                fs::write(&log, "anew").expect("begun anew");
            }
        });
        assert!(is_done, "{suffix}: nothing happened");
        assert_held(&place, &taken, suffix);
    }
}
