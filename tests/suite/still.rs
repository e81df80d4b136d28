//! The short cut of a snapshot that finds nothing to do: that it is taken, and that nothing that changed escapes it.

use std::fs::{self, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::live_common::{self, Place, Run, app, assert_same, is_root, survey, text};
use rusqlite::Connection;

/// Beyond what stamps of links, folders and databases need to be relied on.
const SETTLED: Duration = Duration::from_millis(130);

/// With a bit of everything, and a database that somebody has open: its log and its shared memory are there.
fn scene() -> (Place, Connection) {
    let place = Place::new();
    for folder in ["sub/deep", "other", "empty"] {
        fs::create_dir_all(place.data.join(folder)).expect("a folder");
    }
    for n in 0..150 {
        fs::write(place.data.join(format!("sub/f{n}")), format!("content {n} ").repeat(n + 1)).expect("a file");
    }
    fs::write(place.data.join("sub/deep/pages"), vec![7; 65_536 * 10]).expect("a file");
    fs::write(place.data.join("sub/deep/script"), b"#!/bin/sh\n").expect("a file");
    fs::write(place.data.join("nothing"), b"").expect("a file");
    symlink("sub/f1", place.data.join("link")).expect("a link");
    let closed = app::open(&place.data.join("closed.db"));
    closed.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES (1), (2), (3)").expect("filled");
    closed.close().expect("closed");
    let live = app::open(&place.data.join("live.db"));
    live.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(v); INSERT INTO t VALUES (1)").expect("filled");
    (place, live)
}

fn snapshot(place: &Place, more: &[&str]) -> Run {
    place.run(["snapshot", "--json", "-v"].iter().chain(more))
}

fn is_at_a_glance(run: &Run) -> bool {
    run.err.contains("nothing else was looked at")
}

/// Takes snapshots until one walk is enough.
fn settle(place: &Place, more: &[&str]) {
    for _ in 0..5 {
        std::thread::sleep(SETTLED);
        if is_at_a_glance(&snapshot(place, more).exits(0)) {
            return;
        }
    }
    panic!("nothing changes, and it is never seen at a glance");
}

/// The index and its notes: content, inode, and when they were written.
fn cache(place: &Place) -> Vec<(PathBuf, Vec<u8>, u64, i64, i64)> {
    let mut all: Vec<_> = fs::read_dir(&place.repo)
        .expect("a store")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file() && !path.ends_with("lock"))
        .map(|path| {
            let meta = path.metadata().expect("there");
            let bytes = fs::read(&path).expect("read");
            (path, bytes, meta.ino(), meta.mtime(), meta.mtime_nsec())
        })
        .collect();
    all.sort();
    all
}

fn with_time_of(path: &Path, act: impl FnOnce()) {
    let before = path.metadata().expect("there").modified().expect("a time");
    act();
    fs::File::open(path).expect("open").set_times(FileTimes::new().set_modified(before)).expect("a time");
}

/// Exchanges bytes, at the same size and time of change.
fn rewrite(path: &Path) {
    with_time_of(path, || {
        let mut bytes = fs::read(path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).expect("written");
    });
}

#[test]
fn what_did_not_change_is_seen_at_a_glance_and_nothing_is_written() {
    let (place, live) = scene();
    let long = snapshot(&place, &[]).exits(0).json();
    settle(&place, &[]);
    for round in 0..3 {
        let before = cache(&place);
        // A reader's marks are in the shared memory.
        let _: i64 = live.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("read");
        let run = snapshot(&place, &[]).exits(0);
        assert!(is_at_a_glance(&run), "{round}: {run:?}");
        assert!(cache(&place) == before, "{round}");
        // What it says is what the long way says.
        let mut said = run.json();
        let mut expected = snapshot(&place, &["--full-scan"]).exits(0).json();
        for answer in [&mut said, &mut expected] {
            let fields = answer.as_object_mut().expect("an object");
            assert!(fields.remove("duration_ms").is_some() && fields.remove("cut_ms").is_some());
        }
        assert_eq!(said, expected);
        assert_eq!((&said["entries"], &said["unchanged"]), (&long["entries"], &true.into()));
        let left_out = |run: &Run| {
            let mut lines: Vec<_> = run.err.lines().filter(|l| l.starts_with("left out")).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let full = snapshot(&place, &["--full-scan"]);
        assert_eq!(left_out(&run), left_out(&full));
        assert!(left_out(&run).len() >= 2, "the log and the shared memory: {run:?}");
        settle(&place, &[]);
    }
    let dry = snapshot(&place, &["--dry-run"]).exits(0);
    assert!(is_at_a_glance(&dry) && dry.json()["unchanged"] == true, "{dry:?}");
    place.check();
}

/// What somebody may do to a data directory.
type Change = (&'static str, fn(&Place, &Connection));

const CHANGES: &[Change] = &[
    ("a small file's content, at the same time", |place, _| rewrite(&place.data.join("sub/f20"))),
    ("a large file's content, at the same time", |place, _| rewrite(&place.data.join("sub/deep/pages"))),
    ("a closed database's content, at the same time", |place, _| {
        let path = place.data.join("closed.db");
        with_time_of(&path, || {
            let conn = app::open(&path);
            conn.execute_batch("PRAGMA journal_mode=DELETE; UPDATE t SET v = v + 1").expect("changed");
            conn.close().expect("closed");
        });
    }),
    ("a database's page, written over at the same time", |place, _| rewrite(&place.data.join("closed.db"))),
    ("a mode", |place, _| {
        fs::set_permissions(place.data.join("sub/deep/script"), Permissions::from_mode(0o755)).expect("a mode");
    }),
    ("a folder's mode", |place, _| {
        fs::set_permissions(place.data.join("other"), Permissions::from_mode(0o711)).expect("a mode");
    }),
    ("the data directory's own mode", |place, _| {
        fs::set_permissions(&place.data, Permissions::from_mode(0o711)).expect("a mode");
    }),
    ("a time", |place, _| {
        let file = fs::File::open(place.data.join("sub/f3")).expect("open");
        let then = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        file.set_times(FileTimes::new().set_modified(then)).expect("a time");
    }),
    ("a name", |place, _| fs::rename(place.data.join("sub/f4"), place.data.join("sub/g4")).expect("renamed")),
    ("a file's folder", |place, _| fs::rename(place.data.join("sub/f4"), place.data.join("other/f4")).expect("moved")),
    ("a folder's folder", |place, _| fs::rename(place.data.join("sub/deep"), place.data.join("deep")).expect("moved")),
    ("a new empty folder", |place, _| fs::create_dir(place.data.join("sub/new")).expect("made")),
    ("a new empty file", |place, _| fs::write(place.data.join("sub/new"), b"").expect("made")),
    ("a folder that is gone", |place, _| fs::remove_dir(place.data.join("empty")).expect("removed")),
    ("a file that is gone", |place, _| fs::remove_file(place.data.join("sub/f5")).expect("removed")),
    ("another name for a file", |place, _| {
        fs::hard_link(place.data.join("sub/f6"), place.data.join("other/f6")).expect("linked");
    }),
    ("where a link leads", |place, _| {
        fs::remove_file(place.data.join("link")).expect("removed");
        symlink("sub/f2", place.data.join("link")).expect("linked");
    }),
    ("a link in the place of a file", |place, _| {
        fs::remove_file(place.data.join("sub/f7")).expect("removed");
        symlink("f8", place.data.join("sub/f7")).expect("linked");
    }),
    ("a folder in the place of a file", |place, _| {
        fs::remove_file(place.data.join("sub/f7")).expect("removed");
        fs::create_dir(place.data.join("sub/f7")).expect("made");
    }),
    ("another file in the place of one, with all times put back", |place, _| {
        let (path, other) = (place.data.join("sub/f9"), place.data.join("sub/f9.new"));
        let folder = place.data.join("sub");
        with_time_of(&folder, || {
            with_time_of(&path, || {
                let mut bytes = fs::read(&path).expect("read");
                bytes[0] ^= 1;
                fs::write(&other, bytes).expect("written");
                fs::rename(&other, &path).expect("replaced");
            });
        });
    }),
    ("two files that changed places, with all times put back", |place, _| {
        let [a, b, aside] = ["sub/f10", "sub/f11", "sub/aside"].map(|name| place.data.join(name));
        with_time_of(&place.data.join("sub"), || {
            for (from, to) in [(&a, &aside), (&b, &a), (&aside, &b)] {
                fs::rename(from, to).expect("renamed");
            }
        });
    }),
    ("a file of no bytes that got some", |place, _| fs::write(place.data.join("nothing"), b"more").expect("written")),
    ("a database's log", |_, live| live.execute_batch("INSERT INTO t VALUES (2)").expect("written")),
    ("a log that appears", |place, _| {
        let conn = app::open(&place.data.join("closed.db"));
        conn.execute_batch("PRAGMA journal_mode=WAL; INSERT INTO t VALUES (9)").expect("written");
        // As an application does that is killed.
        std::mem::forget(conn);
    }),
    ("a checkpoint", |_, live| {
        live.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
    }),
];

#[test]
fn every_change_is_looked_at() {
    for (what, change) in CHANGES {
        let (place, live) = scene();
        snapshot(&place, &[]).exits(0);
        settle(&place, &[]);
        change(&place, &live);
        let run = snapshot(&place, &[]).exits(0);
        assert!(!is_at_a_glance(&run), "{what}: {run:?}");
        assert_eq!(run.json()["unchanged"], false, "{what}: {run:?}");
        settle(&place, &[]);
        drop(live);
        let expected = without_sidecars(&place.data);
        assert_same(&expected, &without_sidecars(&place.restore("latest", "back")), what);
    }
}

/// The same in folders that are taken over whole where nothing changes: that takes files that are old enough for a
/// receipt, so this test waits.
#[test]
fn every_change_in_a_folder_that_would_be_taken_over_is_looked_at() {
    let scenes: Vec<_> = CHANGES.iter().map(|change| (change, scene())).collect();
    // The clock has to be seen to go evenly for as long.
    for (_, (place, _)) in &scenes {
        snapshot(place, &[]).exits(0);
    }
    std::thread::sleep(Duration::from_secs(61));
    for ((what, change), (place, live)) in scenes {
        live.execute_batch("INSERT INTO t VALUES (0)").expect("written");
        snapshot(&place, &[]).exits(0);
        settle(&place, &[]);
        live.execute_batch("INSERT INTO t VALUES (1)").expect("written");
        let run = snapshot(&place, &[]).exits(0);
        assert!(run.err.contains("as the last walk saw them"), "{what}: {run:?}");
        change(&place, &live);
        let run = snapshot(&place, &[]).exits(0);
        assert!(!is_at_a_glance(&run), "{what}: {run:?}");
        assert_eq!(run.json()["unchanged"], false, "{what}: {run:?}");
        assert_eq!(snapshot(&place, &["--full-scan"]).exits(0).json()["unchanged"], true, "{what}");
        drop(live);
        let expected = without_sidecars(&place.data);
        assert_same(&expected, &without_sidecars(&place.restore("latest", "back")), what);
    }
}

/// All but databases and what belongs to them, which are compared by other tests; closed ones are here byte for byte.
fn without_sidecars(folder: &Path) -> live_common::Survey {
    let mut all = survey(folder);
    all.retain(|path, _| !path.to_string_lossy().contains(".db"));
    // The last connection took sidecars away.
    if let Some(top) = all.get_mut(Path::new("")) {
        top.mtime = (0, 0);
    }
    all
}

#[test]
fn an_owner_counts() {
    if !is_root() {
        return;
    }
    let (place, _live) = scene();
    snapshot(&place, &[]).exits(0);
    for (user, group) in [(Some(65_534), None), (None, Some(65_534))] {
        settle(&place, &[]);
        chown(place.data.join("sub/f1"), user, group).expect("given away");
        let run = snapshot(&place, &[]).exits(0);
        assert!(!is_at_a_glance(&run) && run.json()["unchanged"] == false, "{run:?}");
    }
}

#[test]
fn a_log_that_goes_is_looked_at() {
    let (place, live) = scene();
    snapshot(&place, &[]).exits(0);
    settle(&place, &[]);
    live.close().expect("closed");
    let run = snapshot(&place, &[]).exits(0);
    assert!(!is_at_a_glance(&run) && run.json()["unchanged"] == false, "{run:?}");
}

#[test]
fn what_is_excluded_counts() {
    let (place, _live) = scene();
    snapshot(&place, &[]).exits(0);
    settle(&place, &[]);
    let less = ["--exclude", "f1?"];
    let run = snapshot(&place, &less).exits(0);
    assert!(!is_at_a_glance(&run) && run.json()["unchanged"] == false, "left out: {run:?}");
    settle(&place, &less);
    let run = snapshot(&place, &[]).exits(0);
    assert!(!is_at_a_glance(&run) && run.json()["unchanged"] == false, "back: {run:?}");
    settle(&place, &[]);
    // What leaves out nothing changes nothing.
    assert!(is_at_a_glance(&snapshot(&place, &["--exclude", "no such name"])));
}

#[test]
fn what_is_asked_for_is_done() {
    let (place, _live) = scene();
    snapshot(&place, &[]).exits(0);
    for more in [&["--tag", "kept"][..], &["--note", "a note"]] {
        settle(&place, &[]);
        let run = snapshot(&place, more).exits(0);
        assert!(!is_at_a_glance(&run) && run.json()["unchanged"] == false, "{run:?}");
    }
    settle(&place, &[]);
    let run = snapshot(&place, &["--full-scan"]).exits(0);
    assert!(!is_at_a_glance(&run) && run.json()["unchanged"] == true, "{run:?}");
}

#[test]
fn what_cannot_be_captured_is_told_of_each_time() {
    let (place, _live) = scene();
    snapshot(&place, &[]).exits(0);
    settle(&place, &[]);
    let _socket = std::os::unix::net::UnixListener::bind(place.data.join("sub/socket")).expect("a socket");
    for _ in 0..3 {
        std::thread::sleep(SETTLED);
        let run = snapshot(&place, &[]).exits(3);
        assert!(!is_at_a_glance(&run) && run.err.contains("a socket"), "{run:?}");
    }
}

fn packs(place: &Place) -> Vec<PathBuf> {
    let packs = fs::read_dir(place.repo.join("packs")).expect("a folder");
    packs.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn the_store_counts() {
    let (place, _live) = scene();
    snapshot(&place, &[]).exits(0);
    fs::write(place.data.join("sub/more"), "more").expect("written");
    snapshot(&place, &[]).exits(0);
    for pack in packs(&place) {
        settle(&place, &[]);
        let bytes = fs::read(&pack).expect("read");
        // Damaged, and put right.
        for at in [bytes.len() / 2, bytes.len() - 1] {
            with_time_of(&pack, || {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1;
                fs::write(&pack, bytes).expect("written");
            });
            assert!(!is_at_a_glance(&snapshot(&place, &[])), "{at}");
            fs::write(&pack, &bytes).expect("written");
            settle(&place, &[]);
        }
        fs::remove_file(&pack).expect("removed");
        let run = snapshot(&place, &[]).exits(0);
        assert!(!is_at_a_glance(&run) && run.err.contains("lost something"), "{run:?}");
        // What it had is there again.
        assert_same(
            &without_sidecars(&place.data),
            &without_sidecars(&place.restore("latest", &format!("without-{}", bytes.len()))),
            "restored",
        );
        place.ok(["repair", "index"]);
    }
    settle(&place, &[]);
    fs::remove_file(place.repo.join("index.redb")).expect("removed");
    assert!(!is_at_a_glance(&snapshot(&place, &[]).exits(0)));
    settle(&place, &[]);
    // Found damaged, it is stored again.
    let pack = packs(&place).pop().expect("a pack");
    let mut bytes = fs::read(&pack).expect("read");
    bytes[100] ^= 1;
    with_time_of(&pack, || fs::write(&pack, bytes).expect("written"));
    place.run(["check", "--read-data"]).exits(13);
    let run = snapshot(&place, &[]).exits(0);
    assert!(!is_at_a_glance(&run), "{run:?}");
}

#[test]
fn every_data_directory_and_every_store_has_a_note_of_its_own() {
    let (place, _live) = scene();
    snapshot(&place, &[]).exits(0);
    settle(&place, &[]);
    let other = place.path("other");
    app_copy(&place.data, &other);
    let other = other.to_str().expect("text").to_owned();
    let run = snapshot(&place, &["--data-dir", &other]).exits(0);
    assert!(!is_at_a_glance(&run) && run.json()["unchanged"] == false, "{run:?}");
    assert!(is_at_a_glance(&snapshot(&place, &[]).exits(0)), "one has nothing to do with the other");
    settle(&place, &["--data-dir", &other]);
    assert!(is_at_a_glance(&snapshot(&place, &[]).exits(0)), "the newest of its own counts");
    // In the place of the first: the same paths, other files.
    fs::rename(&place.data, place.path("aside")).expect("moved");
    fs::rename(&other, &place.data).expect("moved");
    assert!(!is_at_a_glance(&snapshot(&place, &[]).exits(0)));
    settle(&place, &[]);
    let copied = place.path("copied");
    app_copy(&place.repo, &copied);
    let copied = copied.to_str().expect("text").to_owned();
    let run = snapshot(&place, &["--repo", &copied]).exits(0);
    assert!(!is_at_a_glance(&run) && run.json()["unchanged"] == true, "other packs: {run:?}");
    settle(&place, &["--repo", &copied]);
}

fn app_copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp starts").success());
}

#[test]
fn a_snapshot_that_only_readers_saw_stays_theirs_to_see() {
    let (place, _live) = scene();
    snapshot(&place, &[]).exits(0);
    settle(&place, &[]);
    // The index is open for reading alone in both.
    let listed = place.ok(["snapshots", "--json"]).json_lines();
    assert_eq!(listed.len(), 1);
    let first = text(&listed[0]["snapshot"]).to_owned();
    fs::write(place.data.join("new"), "new").expect("written");
    let second = snapshot(&place, &[]).exits(0).json();
    assert_eq!(text(&second["parent"]), first);
    assert_eq!(place.ok(["snapshots", "--json"]).json_lines().len(), 2);
    place.check();
}
