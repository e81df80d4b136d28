//! What lies beside a database, and beside what takes its place: a log goes where its database goes, stands beside no
//! other one, and what is committed to it since is found with it. Whatever is to come there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};

use super::beside;
use super::lacking::{killed, killed_at, said};
use super::scene::{Opener, database, insert, rows};
use crate::common::strace::can_trace;
use crate::common::{Place, noise};

const LOG_MAGIC: [u8; 4] = [0x37, 0x7f, 0x06, 0x82];

fn put(place: &Place, path: &str, bytes: impl AsRef<[u8]>) {
    let to = place.data.join(path);
    fs::create_dir_all(to.parent().expect("a folder")).expect("made");
    fs::write(to, bytes).expect("written");
}

fn snapshot(place: &Place) -> String {
    said(&place.ok(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned()
}

/// A program writes rows to the database at `path`, which it makes if there is none, and dies: they are in its log.
fn dies_with_its_log(place: &Place, path: &Path, row: &str) {
    let aside = place.path("aside.db");
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(beside(&aside, end));
    }
    let conn = if path.exists() {
        fs::copy(path, &aside).expect("copied");
        let _ = fs::copy(beside(path, "-wal"), beside(&aside, "-wal"));
        let conn = Connection::open(&aside).expect("opened");
        conn.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).expect("set");
        conn.execute_batch("PRAGMA wal_autocheckpoint=0").expect("set");
        conn
    } else {
        database(&aside, "WAL", "made", 1)
    };
    insert(&conn, row, 1);
    fs::copy(&aside, path).expect("copied");
    fs::copy(beside(&aside, "-wal"), beside(path, "-wal")).expect("copied");
}

/// The folder of what must not be lost.
fn kept(place: &Place) -> PathBuf {
    let names = fs::read_dir(&place.data).expect("a list").map(|entry| entry.expect("an entry").path());
    let is_kept = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(".nbak-kept-"));
    let found: Vec<PathBuf> = names.filter(is_kept).collect();
    let [one] = &found[..] else { panic!("{found:?}") };
    one.clone()
}

fn is_pending(place: &Place) -> bool {
    place.data.join(".nbak-restore/intent").exists()
}

/// A folder `m` is to come where a database stands, of which a row is in its log.
fn over_a_database() -> (Place, String, PathBuf) {
    let place = Place::empty();
    put(&place, "m/in", "first");
    put(&place, "aa", "first");
    let id = snapshot(&place);
    let m = place.data.join("m");
    fs::remove_dir_all(&m).expect("removed");
    put(&place, "aa", "later");
    dies_with_its_log(&place, &m, "before");
    (place, id, m)
}

#[test]
fn a_database_that_goes_is_kept_with_what_was_committed_since() {
    if !can_trace() {
        return;
    }
    let (place, id, m) = over_a_database();
    killed(&place, &["restore", &id, "--in-place", "--yes"]);
    dies_with_its_log(&place, &m, "since");
    for args in [&["snapshot"][..], &["backup"]] {
        let run = place.run(args);
        assert!(run.code == 3 && run.err.contains("written since: m"), "{args:?}: {run:?}");
        assert!(is_pending(&place));
    }
    let opener = Opener::of(&m);
    let run = place.run(&["restore", "--resume", "--yes"]);
    assert!(run.code == 11 && run.err.contains(&opener.pid().to_string()), "{run:?}");
    drop(opener);
    let run = place.ok(&["restore", "--resume", "--yes", "--json"]);
    assert_eq!(said(&run)["removed"], json!([]), "it is kept: {run:?}");
    let found = rows(&kept(&place).join("m")).expect("it opens");
    assert!(found.contains("before00") && found.contains("since00"), "{found}");
    assert!(m.join("in").exists() && !beside(&m, "-wal").exists());
}

#[test]
fn a_database_that_goes_leaves_nothing_beside_the_folder() {
    let (place, id, m) = over_a_database();
    let opener = Opener::of(&m);
    let run = place.run(&["restore", &id, "--in-place", "--yes"]);
    assert!(run.code == 11 && run.err.contains(&opener.pid().to_string()), "{run:?}");
    drop(opener);
    dies_with_its_log(&place, &m, "again");
    place.ok(&["restore", &id, "--in-place", "--yes"]);
    assert!(m.join("in").exists());
    for end in ["-wal", "-shm", "-journal"] {
        assert!(!beside(&m, end).exists(), "{end}");
    }
    // The command that goes back brings all of it.
    let name = fs::read_dir(place.data.join("backups")).expect("a list").map(|entry| entry.expect("an entry"));
    let mut names: Vec<String> = name.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with('2'));
    names.sort_unstable();
    place.ok(&["backup", "restore", names.last().expect("one"), "--yes"]);
    let found = rows(&m).expect("it opens");
    assert!(found.contains("before00") && found.contains("again00"), "{found}");
}

/// Wherever it was killed: a database stands with its log, or is kept with it.
#[test]
fn given_up_a_database_and_its_log_are_in_one_place() {
    if !can_trace() {
        return;
    }
    let [first, old] = [noise(1, 8192), noise(2, 8192)];
    let log = [&LOG_MAGIC[..], &noise(3, 4148)].concat();
    let (mut is_live, mut is_away) = ([false; 2], [false; 2]);
    for nth in 0..30 {
        let place = Place::empty();
        for (path, bytes) in [("m/in", &b"first"[..]), ("c.db", &first), ("aa", b"first"), ("zz", b"first")] {
            put(&place, path, bytes);
        }
        let (id, m) = (snapshot(&place), place.data.join("m"));
        fs::remove_dir_all(&m).expect("removed");
        // One that goes, and one without a header that is replaced.
        dies_with_its_log(&place, &m, "before");
        for (path, bytes) in [("c.db", &old[..]), ("c.db-wal", &log), ("aa", b"later"), ("zz", b"later")] {
            put(&place, path, bytes);
        }
        killed(&place, &["restore", &id, "--in-place", "--yes"]);
        if nth > 0 {
            killed_at(&place, &["restore", "--resume", "--yes"], nth);
        }
        assert!(is_pending(&place));
        place.ok(&["restore", "--abandon"]);
        let stands = [m.is_file(), fs::read(place.data.join("c.db")).expect("read") == old];
        let at = |stands: bool| if stands { place.data.clone() } else { kept(&place) };
        let found = rows(&at(stands[0]).join("m")).expect("it opens");
        assert!(found.contains("before00"), "killed at {nth}: {found}");
        let pair = ["c.db", "c.db-wal"].map(|name| fs::read(at(stands[1]).join(name)).unwrap_or_default());
        assert!(pair == [&old[..], &log], "killed at {nth}: {stands:?}");
        assert!(stands[1] || !place.data.join("c.db-wal").exists(), "killed at {nth}");
        for which in 0..2 {
            is_live[which] |= stands[which];
            is_away[which] |= !stands[which];
        }
        if is_away == [true; 2] {
            break;
        }
    }
    // Whether the first one is seen where it stood depends on how many threads made the safety backup.
    assert!(is_live[1] && is_away == [true; 2], "{is_live:?}, {is_away:?}");
}

/// What the snapshot has at `x.db`: nothing that has a log.
const KINDS: [&str; 4] = ["empty", "text", "link", "folder"];

#[test]
fn a_database_that_was_made_since_is_kept_with_its_log() {
    if !can_trace() {
        return;
    }
    for kind in KINDS {
        let place = Place::empty();
        let x = place.data.join("x.db");
        match kind {
            "empty" => put(&place, "x.db", ""),
            "text" => put(&place, "x.db", "a text"),
            "link" => symlink("zz", &x).expect("a link"),
            _ => put(&place, "x.db/in", "in a folder"),
        }
        put(&place, "zz", "first");
        let id = snapshot(&place);
        if kind == "folder" { fs::remove_dir_all(&x) } else { fs::remove_file(&x) }.expect("removed");
        put(&place, "zz", "later");
        killed(&place, &["restore", &id, "--in-place", "--yes"]);
        // It may be made already.
        let _ = fs::remove_dir(&x);
        assert!(fs::symlink_metadata(&x).is_err(), "{kind}: it is still to come");
        dies_with_its_log(&place, &x, "since");
        let run = place.run(&["snapshot"]);
        assert!(run.code == 3 && run.err.contains("x.db-wal"), "{kind}: {run:?}");
        let run = place.ok(&["restore", "--resume", "--yes"]);
        let at = kept(&place).join(if kind == "folder" { "x.db.since" } else { "x.db" });
        let found = rows(&at).expect("it opens");
        assert!(found.contains("since00"), "{kind}: {found}, {run:?}");
        assert!(!beside(&x, "-wal").exists() && !beside(&x, "-shm").exists(), "{kind}: {run:?}");
        let is_right = match kind {
            "empty" => fs::read(&x).expect("read").is_empty(),
            "text" => fs::read_to_string(&x).expect("read") == "a text",
            "link" => fs::read_link(&x).is_ok(),
            _ => x.join("in").exists(),
        };
        assert!(is_right, "{kind}");
    }
}

/// A graph of which nothing has a header.
fn with_a_graph(is_live: bool) -> (Place, String) {
    let place = Place::empty();
    for name in ["knowledge-graph/catalog", "knowledge-graph/data", "aa", "zz", "zzz"] {
        put(&place, name, "first");
    }
    let id = snapshot(&place);
    if !is_live {
        fs::remove_dir_all(place.data.join("knowledge-graph")).expect("removed");
    }
    for name in ["aa", "zz", "zzz"] {
        put(&place, name, "later");
    }
    (place, id)
}

#[test]
fn what_came_beside_a_file_of_a_graph_is_noticed() {
    if !can_trace() {
        return;
    }
    for is_live in [false, true] {
        for end in ["-wal", "-journal"] {
            let what = format!("{is_live}, {end}");
            let (place, id) = with_a_graph(is_live);
            killed(&place, &["restore", &id, "--in-place", "--yes"]);
            let came = format!("knowledge-graph/data{end}");
            put(&place, &came, "a stranger's");
            let run = place.run(&["snapshot"]);
            assert!(run.code == 3 && run.err.contains(&came), "{what}: {run:?}");
            let run = place.run(&["restore", "--resume", "--yes", "--json"]);
            let since = if is_live { json!([came]) } else { json!([]) };
            assert_eq!((run.code, &said(&run)["written_since"]), (if is_live { 3 } else { 0 }, &since), "{what}");
            let at = if is_live { place.data.clone() } else { kept(&place) };
            assert_eq!(fs::read_to_string(at.join(&came)).expect("there"), "a stranger's", "{what}");
            assert_eq!(place.data.join(&came).exists(), is_live, "{what}");
        }
    }
}

/// A database without a header, as one that is encrypted by itself, and what is beside it.
fn encrypted(place: &Place, seed: u64, log: &[u8]) {
    put(place, "c.db", noise(seed, 8192));
    put(place, "c.db-wal", log);
}

#[test]
fn the_log_of_what_has_no_header_does_not_stay_beside_another_one() {
    let log = [&LOG_MAGIC[..], &noise(9, 4148)].concat();
    for (log, is_own) in [(&log[..], false), (b"somebody's walrus", true)] {
        for only in [None, Some("c.db")] {
            // The same file with another log says something else, too.
            for is_same in [false, true] {
                let what = format!("{is_own}, {only:?}, {is_same}");
                let place = Place::empty();
                put(&place, "c.db", noise(1, 8192));
                let id = snapshot(&place);
                encrypted(&place, if is_same { 1 } else { 2 }, log);
                let args: Vec<&str> = ["restore", &id].into_iter().chain(only).chain(["--in-place", "--yes"]).collect();
                let run = place.ok(&args);
                assert_eq!(fs::read(place.data.join("c.db")).expect("read"), noise(1, 8192), "{what}");
                let at = place.data.join("c.db-wal");
                if is_own && is_same {
                    assert_eq!(fs::read(&at).expect("read"), log, "{what}");
                    continue;
                }
                assert!(!at.exists(), "{what}: {run:?}");
                assert!(run.err.contains("c.db-wal"), "{what}: {run:?}");
                if is_own {
                    assert_eq!(fs::read(kept(&place).join("c.db-wal")).expect("kept"), log, "{what}: {run:?}");
                } else {
                    assert!(run.err.contains("removed, since it belongs to what was replaced: c.db-wal"), "{run:?}");
                }
            }
        }
    }
}

/// What it committed since is in the log alone: that is nothing without the file.
#[test]
fn what_has_no_header_is_kept_as_a_pair() {
    if !can_trace() {
        return;
    }
    let log = |seed| [&LOG_MAGIC[..], &noise(seed, 4148)].concat();
    for is_log in [true, false] {
        let place = Place::empty();
        put(&place, "c.db", noise(1, 8192));
        let id = snapshot(&place);
        encrypted(&place, 2, &log(3));
        killed(&place, &["restore", &id, "--in-place", "--yes"]);
        if is_log {
            put(&place, "c.db-wal", [log(3), noise(4, 4120)].concat());
        } else {
            put(&place, "c.db", noise(5, 8192));
        }
        let before = ["c.db", "c.db-wal"].map(|name| fs::read(place.data.join(name)).expect("read"));
        assert_eq!(place.run(&["snapshot"]).code, 3, "{is_log}");
        let run = place.ok(&["restore", "--resume", "--yes"]);
        assert_eq!(fs::read(place.data.join("c.db")).expect("read"), noise(1, 8192));
        assert!(!place.data.join("c.db-wal").exists());
        let after = ["c.db", "c.db-wal"].map(|name| fs::read(kept(&place).join(name)).expect("kept"));
        assert!(before == after, "{is_log}: {run:?}");
    }
}

#[test]
fn a_file_and_the_log_that_was_captured_beside_it_are_one_thing() {
    let log = |seed| [&LOG_MAGIC[..], &noise(seed, 4148)].concat();
    let place = Place::empty();
    encrypted(&place, 1, &log(3));
    let run = place.ok(&["backup", "--json"]);
    let backup = said(&run)["name"].as_str().expect("a name").to_owned();
    let id = said(&place.ok(&["snapshots", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
    let of_snapshot = |path| vec!["restore", &*id, path, "--in-place", "--yes"];
    for args in [of_snapshot("c.db"), vec!["backup", "restore", &*backup, "--yes", "--only", "c.db"]] {
        encrypted(&place, 2, &log(4));
        place.ok(&args);
        assert_eq!(fs::read(place.data.join("c.db")).expect("read"), noise(1, 8192), "{args:?}");
        assert!(fs::read(place.data.join("c.db-wal")).expect("read") == log(3), "{args:?}");
    }
    // It would be played into the one that is there.
    encrypted(&place, 2, &log(4));
    let run = place.run(&of_snapshot("c.db-wal"));
    assert!(run.code == 2 && run.err.contains("give `c.db`") && run.err.contains("nothing was changed"), "{run:?}");
    assert!(fs::read(place.data.join("c.db-wal")).expect("read") == log(4));
    let both = said(&place.ok(&["restore", &id, "c.db", "c.db-wal", "--in-place", "--yes", "--json"]));
    assert_eq!(both["restored_files"], Value::from(2));
}

/// Two texts that are called as a database and its journal are: who names one gets that one.
#[test]
fn somebodys_own_does_not_come_along_by_its_name() {
    let place = Place::empty();
    for name in ["in/notes", "in/notes-journal"] {
        put(&place, name, "first");
    }
    let run = place.ok(&["backup", "--json"]);
    let backup = said(&run)["name"].as_str().expect("a name").to_owned();
    let id = said(&place.ok(&["snapshots", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
    let of_snapshot = vec!["restore", &*id, "in/notes", "--in-place", "--yes", "--without-safety-backup"];
    let of_backup = vec!["backup", "restore", &*backup, "--yes", "--only", "in/notes", "--without-safety-backup"];
    for args in [of_snapshot, of_backup] {
        put(&place, "in/notes", "later");
        put(&place, "in/notes-journal", "today's diary");
        let run = place.ok(&args);
        assert_eq!(fs::read_to_string(place.data.join("in/notes")).expect("there"), "first", "{args:?}");
        assert!(!place.data.join("in/notes-journal").exists(), "{args:?}: {run:?}");
        let diary = kept(&place).join("in/notes-journal");
        assert_eq!(fs::read_to_string(&diary).expect("kept"), "today's diary", "{args:?}: {run:?}");
        assert!(run.err.contains("in/notes-journal: it is named as if it belonged to"), "{args:?}: {run:?}");
        fs::remove_dir_all(kept(&place)).expect("removed");
    }
    // Who names both gets both.
    put(&place, "in/notes-journal", "today's diary");
    place.ok(&["restore", &id, "in/notes", "in/notes-journal", "--in-place", "--yes"]);
    assert_eq!(fs::read_to_string(place.data.join("in/notes-journal")).expect("there"), "first");
}

/// A log comes along, and what stands there is somebody's own.
#[test]
fn somebodys_own_is_kept_where_a_log_comes_along() {
    let log = [&LOG_MAGIC[..], &noise(3, 4148)].concat();
    let place = Place::empty();
    encrypted(&place, 1, &log);
    let id = snapshot(&place);
    encrypted(&place, 2, b"somebody's walrus");
    let run = place.ok(&["restore", &id, "c.db", "--in-place", "--yes", "--without-safety-backup"]);
    assert!(fs::read(place.data.join("c.db-wal")).expect("read") == log);
    assert_eq!(fs::read(kept(&place).join("c.db-wal")).expect("kept"), b"somebody's walrus");
    assert!(run.err.contains("c.db-wal: it was none of a database, and is kept as"), "{run:?}");
}
