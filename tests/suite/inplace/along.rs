//! What goes along with what is named, to a target too; what may not stand beside what is restored; and what a program
//! has open that SQLite cannot open.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::lacking::{kill, said};
use super::scene::{database, insert, rows};
use crate::common::strace::can_trace;
use crate::common::{Place, Run};

const LOG_MAGIC: [u8; 4] = [0x37, 0x7f, 0x06, 0x82];

fn sealed(version: &str) -> Vec<u8> {
    version.bytes().cycle().take(8192).collect()
}

fn log(version: &str) -> Vec<u8> {
    [&LOG_MAGIC[..], &sealed(version)].concat()
}

fn put(place: &Place, path: &str, bytes: impl AsRef<[u8]>) {
    let to = place.data.join(path);
    fs::create_dir_all(to.parent().expect("a folder")).expect("made");
    fs::write(to, bytes).expect("written");
}

fn snapshot(place: &Place) -> String {
    said(&place.ok(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned()
}

fn to_target(place: &Place, id: &str, paths: &[&str], target: &Path, more: &[&str]) -> Run {
    let target = ["--target", target.to_str().expect("UTF-8")];
    place.run(&[&["restore", id][..], paths, &target, more].concat())
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// The newest rows of an encrypted file are in its log; of a knowledge graph, too. What is only called alike is not
/// asked for.
#[test]
fn who_names_a_file_gets_its_log_in_a_target() {
    let place = Place::empty();
    for (path, bytes) in [("d/c.db", sealed("ONE")), ("d/c.db-wal", log("ONE")), ("d/notes", b"text".to_vec())] {
        put(&place, path, bytes);
    }
    for (path, text) in [("d/notes-journal", "a diary"), ("d/c.db-journal", ""), ("d/c.db-shm", "mine")] {
        put(&place, path, text);
    }
    put(&place, "knowledge-graph", "graph");
    put(&place, "knowledge-graph.wal", "its log");
    put(&place, "knowledge-graph.bak", "mine");
    let id = snapshot(&place);
    let got = |name: &str, paths: &[&str]| {
        let target = place.path(name);
        let run = to_target(&place, &id, paths, &target, &[]);
        assert_eq!(run.code, 0, "{run:?}");
        if target.join("d").is_dir() { names(&target.join("d")) } else { names(&target) }
    };
    assert_eq!(got("one", &["./d/c.db"]), ["c.db", "c.db-wal"]);
    assert_eq!(got("log", &["d/c.db-wal"]), ["c.db-wal"], "to look at");
    assert_eq!(got("text", &["d/notes"]), ["notes"]);
    assert_eq!(got("all", &["d"]).len(), 6);
    assert_eq!(got("graph", &["knowledge-graph"]), ["knowledge-graph", "knowledge-graph.wal"]);
    assert_eq!(got("part", &["knowledge-graph.wal"]), ["knowledge-graph.wal"]);
    assert_eq!(fs::read(place.path("one/d/c.db-wal")).expect("read"), log("ONE"));
}

/// Over what stands there: a log comes beside no other file, and of two graphs nothing stands side by side.
#[test]
fn nothing_in_a_target_meets_what_is_of_another() {
    let place = Place::empty();
    put(&place, "c.db-wal", log("ONE"));
    put(&place, "zz", "first");
    let alone = snapshot(&place);
    put(&place, "knowledge-graph/data", "first");
    let graph = snapshot(&place);
    let target = place.path("look");
    let refused = |id: &str, paths: &[&str], name: &str, text: &str, at: &str| {
        let _ = fs::remove_dir_all(&target);
        fs::create_dir(&target).expect("made");
        let to = target.join(name);
        fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        fs::write(to, text).expect("written");
        let run = to_target(&place, id, paths, &target, &["--overwrite"]);
        assert!(run.code == 1 && run.err.contains(at) && run.err.contains("nothing was changed"), "{run:?}");
        assert_eq!(fs::read_to_string(target.join(name)).expect("read"), text);
        assert!(!target.join("zz").exists() && !target.join("c.db-wal").exists());
    };
    refused(&alone, &[], "c.db", "another", "c.db");
    refused(&alone, &["c.db-wal"], "c.db", "another", "c.db");
    for (name, at) in [("knowledge-graph.wal", "knowledge-graph.wal"), ("knowledge-graph/old", "knowledge-graph/old")] {
        refused(&graph, &[], name, "of another", at);
        refused(&graph, &["knowledge-graph"], name, "of another", at);
    }
    // Its own stands there, and part of a graph is asked for by itself.
    fs::remove_dir_all(&target).expect("removed");
    for more in [&[][..], &["--overwrite"]] {
        let run = to_target(&place, &graph, &[], &target, more);
        assert_eq!(run.code, 0, "{run:?}");
    }
    fs::write(target.join("knowledge-graph/old"), "another").expect("written");
    let run = to_target(&place, &graph, &["knowledge-graph/data"], &target, &["--overwrite"]);
    assert_eq!(run.code, 0, "{run:?}");
}

/// It has no header by which it would be known, and no lock that could be taken; it has a log.
#[test]
fn an_encrypted_database_that_a_program_has_open_is_not_exchanged() {
    for (end, bytes) in [("-wal", log("LIVE")), ("-wal", Vec::new()), ("-shm", vec![7; 32768])] {
        let place = Place::empty();
        put(&place, "c.db", sealed("SNAP"));
        put(&place, "zz", "first");
        let id = snapshot(&place);
        put(&place, "c.db", sealed("LIVE"));
        put(&place, &format!("c.db{end}"), &bytes);
        put(&place, "zz", "later");
        let open = fs::File::open(place.data.join("c.db")).expect("opened");
        for more in [&[][..], &["--into-live"]] {
            let run = place.run(&[&["restore", &id, "--in-place", "--yes"][..], more].concat());
            assert!(run.code == 11 && run.err.contains("c.db") && run.err.contains("nothing was changed"), "{run:?}");
            assert!(!run.err.contains("--into-live"), "it would not help: {run:?}");
            assert!(!place.data.join("backups").exists(), "and nothing was made for nothing");
        }
        let is_as_it_was = fs::read(place.data.join("c.db")).expect("read") == sealed("LIVE");
        assert!(is_as_it_was && fs::read(place.data.join("zz")).expect("read") == b"later");
        assert!(!place.data.join(".nbak-restore").exists());
        drop(open);
        place.ok(&["restore", &id, "--in-place", "--yes"]);
        assert_eq!(fs::read(place.data.join("c.db")).expect("read"), sealed("SNAP"));
    }
}

/// What stands where a file and its log, or a folder, are to come, and how the restore was begun.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Begun {
    File,
    Folder,
    /// A program has another database open, which is written into.
    IntoLive,
}

/// Who finishes it is refused as well, whoever began it and however far it came: also where what told the file to be a
/// database was taken away by then, or is still to come beside it.
#[test]
fn nor_by_a_resume() {
    if !can_trace() {
        return;
    }
    for begun in [Begun::File, Begun::Folder, Begun::IntoLive] {
        let place = Place::empty();
        if begun == Begun::Folder {
            put(&place, "c.db/in", "a folder");
        } else {
            put(&place, "c.db", sealed("SNAP"));
            put(&place, "c.db-wal", log("SNAP"));
        }
        let live = place.data.join("a.db");
        drop(database(&live, "WAL", "first", 3));
        put(&place, "zz", "first");
        let id = snapshot(&place);
        if begun == Begun::Folder {
            fs::remove_dir_all(place.data.join("c.db")).expect("removed");
        }
        let mut args = vec!["restore", &id, "--in-place", "--yes", "--without-safety-backup"];
        args.extend((begun == Begun::IntoLive).then_some("--into-live"));
        let mut refused = 0;
        for nth in 1..40 {
            put(&place, "c.db", sealed("LIVE"));
            put(&place, "c.db-wal", log("LIVE"));
            put(&place, "zz", "later");
            let conn = Connection::open(&live).expect("opened");
            insert(&conn, "later", 1);
            let app = (begun == Begun::IntoLive).then_some(conn);
            if !kill(&place.command(&args), nth) {
                break;
            }
            if !place.data.join(".nbak-restore/intent").exists() {
                continue;
            }
            if let Ok(open) = fs::File::open(place.data.join("c.db")).map_err(drop)
                && open.metadata().is_ok_and(|meta| meta.is_file())
            {
                let names = || ["c.db", "c.db-wal"].map(|name| fs::read(place.data.join(name)).ok());
                let before = names();
                let is_done = before == [Some(sealed("SNAP")), Some(log("SNAP"))];
                let run = place.run(&["restore", "--resume", "--yes"]);
                if !is_done {
                    assert!(run.code == 11 && run.err.contains("c.db"), "{begun:?}, {nth}: {run:?}");
                    assert_eq!(names(), before, "{begun:?}, {nth}");
                    refused += 1;
                }
            }
            let _ = place.run(&["restore", "--resume", "--yes"]);
            assert!(!place.data.join(".nbak-restore").exists());
            if begun == Begun::Folder {
                fs::remove_dir_all(place.data.join("c.db")).expect("it came");
            } else {
                assert_eq!(fs::read(place.data.join("c.db")).expect("read"), sealed("SNAP"));
            }
            drop(app);
        }
        assert!(refused > 0, "{begun:?}");
    }
}

/// Nor where it stands in a target, which no safety backup is made of.
#[test]
fn nor_in_a_target() {
    let place = Place::empty();
    put(&place, "c.db", sealed("ONE"));
    put(&place, "c.db-wal", log("ONE"));
    let one = snapshot(&place);
    put(&place, "c.db", sealed("TWO"));
    put(&place, "c.db-wal", log("TWO"));
    let two = snapshot(&place);
    let target = place.path("look");
    assert_eq!(to_target(&place, &one, &[], &target, &[]).code, 0);
    let open = fs::File::open(target.join("c.db")).expect("opened");
    for paths in [&[][..], &["c.db"]] {
        let run = to_target(&place, &two, paths, &target, &["--overwrite"]);
        assert!(run.code == 11 && run.err.contains("c.db") && run.err.contains("nothing was changed"), "{run:?}");
        assert_eq!(fs::read(target.join("c.db")).expect("read"), sealed("ONE"));
    }
    assert_eq!(to_target(&place, &one, &[], &target, &["--overwrite"]).code, 0, "it is as it should be");
    drop(open);
    assert_eq!(to_target(&place, &two, &[], &target, &["--overwrite"]).code, 0);
    assert_eq!(fs::read(target.join("c.db-wal")).expect("read"), log("TWO"));
}

/// One that is broken cannot be written into either.
#[test]
fn a_broken_database_that_is_open_is_not_moved_aside() {
    let place = Place::empty();
    drop(database(&place.data.join("h.db"), "DELETE", "first", 3));
    let id = snapshot(&place);
    let mut broken = fs::read(place.data.join("h.db")).expect("read");
    broken[100..4000].fill(0xee);
    put(&place, "h.db", &broken);
    let open = fs::File::open(place.data.join("h.db")).expect("opened");
    let run = place.run(&["restore", &id, "--in-place", "--yes", "--into-live"]);
    assert!(run.code == 11 && run.err.contains("nothing was changed"), "{run:?}");
    assert_eq!(fs::read(place.data.join("h.db")).expect("read"), broken);
    drop(open);
    place.ok(&["restore", &id, "--in-place", "--yes", "--into-live"]);
    assert!(rows(&place.data.join("h.db")).is_ok());
}

fn linked(place: &Place, mode: &str) -> [PathBuf; 2] {
    let both = ["a.db", "b.db"].map(|name| place.data.join(name));
    drop(database(&both[0], mode, "first", 3));
    fs::hard_link(&both[0], &both[1]).expect("linked");
    both
}

/// A second lock on one file would be refused, and nobody has it open.
#[test]
fn two_names_of_one_database_are_taken_once() {
    for mode in ["WAL", "DELETE"] {
        let place = Place::empty();
        let both = linked(&place, mode);
        put(&place, "zz", "first");
        let id = snapshot(&place);
        let change = || {
            let conn = Connection::open(&both[0]).expect("opened");
            insert(&conn, "later", 2);
        };
        let first = rows(&both[0]);
        for more in [&[][..], &["--into-live"]] {
            change();
            let run = place.run(&[&["restore", &id, "--in-place", "--yes"][..], more].concat());
            assert!(run.code == 0 && both.iter().all(|path| rows(path) == first), "{mode} {more:?}: {run:?}");
            assert!(!place.data.join(".nbak-restore").exists());
            fs::remove_file(&both[1]).and_then(|()| fs::hard_link(&both[0], &both[1])).expect("linked");
        }
        // What a killed program left in the log of one is of both.
        if mode == "WAL" {
            for which in [0, 1] {
                let aside = place.path("aside.db");
                fs::copy(&both[which], &aside).expect("copied");
                let conn = Connection::open(&aside).expect("opened");
                conn.execute_batch("PRAGMA wal_autocheckpoint=0").expect("set");
                insert(&conn, "later", 2);
                let beside = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
                fs::copy(beside(&aside), beside(&both[which])).expect("copied");
                drop(conn);
                let run = place.run(&["restore", &id, "--in-place", "--yes"]);
                assert!(run.code == 0 && both.iter().all(|path| rows(path) == first), "{which}: {run:?}");
                fs::remove_file(&both[1]).and_then(|()| fs::hard_link(&both[0], &both[1])).expect("linked");
            }
        }
        // One that is open is found by either name.
        change();
        let open = Connection::open(&both[1]).expect("opened");
        assert!(rows(&both[1]) != first && open.query_row("SELECT 1 FROM t", [], |_| Ok(())).is_ok());
        let run = place.run(&["restore", &id, "--in-place", "--yes"]);
        assert!(run.code == 11 && !place.data.join(".nbak-restore").exists(), "{run:?}");
        drop(open);
        if !can_trace() {
            continue;
        }
        put(&place, "zz", "later");
        for nth in 1.. {
            let args = ["restore", &id, "--in-place", "--yes", "--without-safety-backup"];
            let is_killed = kill(&place.command(&args), nth);
            if !is_killed {
                break;
            }
            if place.data.join(".nbak-restore/intent").exists() {
                place.ok(&["restore", "--resume", "--yes"]);
                assert!(both.iter().all(|path| rows(path) == first), "{mode} {nth}");
                change();
            }
        }
    }
}

/// A log whose file is not in the snapshot is left out of a folder, and refused by its name: before anything is backed
/// up.
#[test]
fn a_folder_with_a_log_alone_is_restored_without_it() {
    let place = Place::empty();
    put(&place, "d/c.db-wal", log("SNAP"));
    put(&place, "d/text", "first");
    put(&place, "zz", "first");
    place.ok(&["backup", "--json"]);
    let backup = names(&place.path("data/backups"));
    let id = snapshot(&place);
    put(&place, "d/c.db", sealed("LIVE"));
    put(&place, "d/text", "later");
    let text = || fs::read_to_string(place.data.join("d/text")).expect("read");
    let run = place.run(&["restore", &id, "d/c.db-wal", "--in-place", "--yes"]);
    assert!(run.code == 2 && run.err.contains("--target") && text() == "later", "{run:?}");
    assert_eq!(names(&place.path("data/backups")), backup, "none was made for nothing");
    put(&place, "d/c.db-wal", log("LIVE"));
    let run = place.run(&["restore", &id, "d", "--in-place", "--yes"]);
    assert!(run.code == 3 && run.err.contains("d/c.db-wal: it is a log") && text() == "first", "{run:?}");
    assert_eq!(fs::read(place.data.join("d/c.db-wal")).expect("read"), log("LIVE"));
    assert_eq!(fs::read(place.data.join("d/c.db")).expect("read"), sealed("LIVE"));
}

/// What the snapshot has of a graph stays where it is, however what came beside it is called.
#[test]
fn what_is_as_it_should_be_in_a_graph_stays() {
    let place = Place::empty();
    put(&place, "knowledge-graph/x-wal", log("SNAP"));
    put(&place, "knowledge-graph/data", "first");
    let id = snapshot(&place);
    put(&place, "knowledge-graph/x", sealed("LATER"));
    put(&place, "knowledge-graph/data", "later");
    let run = place.run(&["restore", &id, "--in-place", "--yes"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(names(&place.data.join("knowledge-graph")), ["data", "x-wal"], "{run:?}");
    assert!(!names(&place.data).iter().any(|name| name.starts_with(".nbak-kept-")), "{run:?}");
}
