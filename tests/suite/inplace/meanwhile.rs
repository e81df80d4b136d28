//! What others write while a restore makes its safety backup: nothing is changed, and the path is named (I16).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nbak::error::Error;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

use super::scene::{self, live_database, options};
use crate::common::{Place, Run, Thing, assert_equal, noise, tree};

/// A directory with so much in it that its safety backup takes a moment.
fn place() -> Place {
    let place = Place::empty();
    for n in 0..4 {
        fs::write(place.data.join(format!("large{n}")), noise(n, 6 << 20)).expect("written");
    }
    place
}

fn snapshot(place: &Place) -> String {
    let run = place.ok(&["snapshot", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&run.out).expect("JSON");
    said["snapshot"].as_str().expect("an id")[..8].to_owned()
}

fn is_saving(place: &Place) -> bool {
    let names = fs::read_dir(place.data.join("backups")).into_iter().flatten().flatten();
    names.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"))
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("told");
}

/// All but this program's own.
fn live(place: &Place) -> BTreeMap<PathBuf, Thing> {
    let mut all = tree(&place.data);
    let own = |path: &Path| path.starts_with("backups") || path.to_string_lossy().starts_with(".nbak-");
    // Shared memory changes with every reader.
    all.retain(|path, _| !own(path) && !path.to_string_lossy().ends_with("-shm"));
    all
}

/// Restores `args`, and does `act` while the program stands still in the middle of the safety backup.
fn restore(place: &Place, args: &[&str], act: impl FnOnce()) -> Run {
    let args = [&["restore"], args, &["--in-place", "--yes"]].concat();
    let mut command = place.command(&args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    while !is_saving(place) {
        assert!(child.try_wait().expect("asked").is_none(), "it ended before: {:?}", child.wait_with_output());
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(&child, Signal::STOP);
    std::thread::sleep(Duration::from_millis(20));
    assert!(is_saving(place), "it was too fast");
    act();
    signal(&child, Signal::CONT);
    let output = child.wait_with_output().expect("it ended");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    Run { code: output.status.code().expect("it was not killed"), out, err, raw: output.stdout }
}

/// `act` happens during the safety backup, which ends the restore with everything as `act` left it, and `path` named.
/// When it happens no more, the command that the message names restores.
fn refused(place: &Place, snapshot: &str, path: &str, act: impl FnOnce()) {
    let mut after = None;
    let run = restore(place, &[snapshot], || {
        act();
        after = Some(live(place));
    });
    assert_eq!(run.code, 11, "{path}: {run:?}");
    assert!(run.err.contains(&format!("{} (what", place.data.join(path).display())), "{run:?}");
    assert!(run.err.contains(&format!("`nbak restore {snapshot} --in-place`")), "{run:?}");
    assert_equal(&after.expect("it was done"), &live(place));
    place.ok(&["restore", snapshot, "--in-place", "--yes"]);
}

fn append(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let mut file = fs::File::options().append(true).create(true).open(path).expect("opened");
    file.write_all(text.as_bytes()).expect("written");
}

#[test]
fn the_log_of_a_knowledge_graph() {
    for (graph, log) in [("knowledge-graph", "knowledge-graph.wal"), ("knowledge-graph/data", "knowledge-graph/.wal")] {
        for is_there in [true, false] {
            let place = place();
            append(&place.data.join(graph), "a graph");
            let id = snapshot(&place);
            append(&place.data.join(graph), ", changed");
            if is_there {
                append(&place.data.join(log), "before");
            }
            refused(&place, &id, log, || append(&place.data.join(log), "meanwhile"));
            assert_eq!(fs::read(place.data.join(graph)).expect("read"), b"a graph");
            assert!(!place.data.join(log).exists(), "it goes with the graph that it is of");
        }
    }
}

/// The live database goes, and what is committed to it is in its log alone.
#[test]
fn a_database_that_stands_where_a_folder_is_to_come() {
    let place = place();
    append(&place.data.join("m/in"), "a file in a folder");
    let id = snapshot(&place);
    fs::remove_dir_all(place.data.join("m")).expect("removed");
    let (aside, [database, log]) = (place.path("aside"), ["m", "m-wal"].map(|name| place.data.join(name)));
    let conn = Connection::open(&aside).expect("opened");
    conn.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).expect("set");
    conn.execute_batch("PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a)").expect("made");
    fs::copy(&aside, &database).expect("copied");
    fs::copy(place.path("aside-wal"), &log).expect("copied");
    conn.execute_batch("INSERT INTO t VALUES('meanwhile')").expect("committed");
    refused(&place, &id, "m-wal", || assert!(fs::copy(place.path("aside-wal"), &log).expect("copied") > 0));
    assert_eq!(fs::read_to_string(database.join("in")).expect("read"), "a file in a folder");
    assert!(!log.exists());
}

/// A part of a graph is asked for that is a folder, and the one that is there is a file: it goes, with its log.
#[test]
fn the_log_of_a_graph_that_is_a_file_where_a_folder_is_to_come() {
    let place = place();
    append(&place.data.join("knowledge-graph/data"), "a graph");
    let id = snapshot(&place);
    fs::remove_dir_all(place.data.join("knowledge-graph")).expect("removed");
    append(&place.data.join("knowledge-graph"), "another");
    let log = place.data.join("knowledge-graph.wal");
    append(&log, "its log");
    let args = [&*id, "knowledge-graph/data"];
    let run = restore(&place, &args, || append(&log, "meanwhile"));
    assert!(run.code == 11 && run.err.contains("knowledge-graph.wal"), "{run:?}");
    let run = place.ok(&["restore", args[0], args[1], "--in-place", "--yes"]);
    assert!(run.err.contains("knowledge-graph.wal"), "{run:?}");
    assert!(!log.exists() && place.data.join("knowledge-graph/data").exists());
}

/// To the folder at a path.
type Deed = fn(&Path);

#[test]
fn a_folder_that_stands_where_a_file_is_to_come() {
    let deeds: [(&str, Deed); 4] = [
        ("x/new", |x| append(&x.join("new"), "meanwhile")),
        ("x/deep/new", |x| append(&x.join("deep/new"), "meanwhile")),
        ("x/deep/old", |x| append(&x.join("deep/old"), "meanwhile")),
        ("x/deep/folder", |x| fs::create_dir(x.join("deep/folder")).expect("made")),
    ];
    for (path, deed) in deeds {
        let place = place();
        let x = place.data.join("x");
        fs::write(&x, "a file").expect("written");
        let id = snapshot(&place);
        fs::remove_file(&x).expect("removed");
        append(&x.join("deep/old"), "old");
        refused(&place, &id, path, || deed(&x));
        assert_eq!(fs::read(&x).expect("read"), b"a file");
    }
}

#[test]
fn a_file_that_stands_where_a_folder_is_to_come() {
    for is_there in [true, false] {
        let place = place();
        let x = place.data.join("x");
        append(&x.join("a"), "a");
        let id = snapshot(&place);
        fs::remove_dir_all(&x).expect("removed");
        if is_there {
            append(&x, "before");
        }
        refused(&place, &id, "x", || append(&x, "meanwhile"));
        assert_eq!(fs::read(x.join("a")).expect("read"), b"a");
    }
}

#[test]
fn a_row_in_a_database_that_keeps_its_journal() {
    let place = place();
    let commit = |row: &str| {
        let conn = Connection::open(place.data.join("x.db")).expect("opened");
        conn.query_row("PRAGMA journal_mode=PERSIST", [], |_| Ok(())).expect("set");
        conn.execute_batch(&format!("CREATE TABLE IF NOT EXISTS t(a); INSERT INTO t VALUES('{row}')")).expect("done");
    };
    commit("old");
    let id = snapshot(&place);
    commit("present");
    assert!(place.data.join("x.db-journal").metadata().expect("it is kept").len() > 0);
    refused(&place, &id, "x.db", || commit("meanwhile"));
}

#[test]
fn a_hot_journal_excuses_nothing_but_its_rollback() {
    for is_written in [true, false] {
        let place = place();
        drop(scene::database(&place.data.join("h.db"), "DELETE", "new", 3));
        append(&place.data.join("x"), "a file");
        let id = snapshot(&place);
        fs::remove_file(place.data.join("h.db")).expect("removed");
        live_database(&place.data, "hot-journal");
        // And one below a folder that goes.
        fs::remove_file(place.data.join("x")).expect("removed");
        fs::create_dir(place.data.join("x")).expect("made");
        live_database(&place.data.join("x"), "hot-journal");
        if is_written {
            refused(&place, &id, "h.db", || {
                let conn = Connection::open(place.data.join("h.db")).expect("opened");
                scene::insert(&conn, "meanwhile", 1);
            });
        } else {
            let run = restore(&place, &[&id], || {});
            assert_eq!(run.code, 0, "nobody wrote: {run:?}");
        }
        assert!(scene::rows(&place.data.join("h.db")).expect("it opens").starts_with("ok: 3 rows new"));
    }
}

#[test]
fn what_a_reader_leaves_beside_a_database_is_nobodys() {
    let place = place();
    append(&place.data.join("x"), "a file");
    let id = snapshot(&place);
    fs::remove_file(place.data.join("x")).expect("removed");
    for (folder, state) in [("a", "closed"), ("b", "full-wal"), ("c", "stale-shm"), ("d", "malformed")] {
        let folder = place.data.join("x").join(folder);
        fs::create_dir_all(&folder).expect("made");
        live_database(&folder, state);
    }
    let run = restore(&place, &[&id], || {
        scene::rows(&place.data.join("x/a/h.db")).expect("read");
    });
    assert_eq!(run.code, 0, "{run:?}");
}

const MAPPER: &str = "
import mmap, sys
f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0)
m[0:6] = b'before'; print('stored', flush=True)
for line in sys.stdin: m[100:109] = b'meanwhile'; print('stored', flush=True)
";

#[test]
fn a_store_into_a_page_of_a_map_that_was_dirty() {
    let place = place();
    if nbak::source::medium::is_in_memory(&place.data) {
        return;
    }
    let path = place.data.join("state");
    fs::write(&path, [b'-'; 5000]).expect("written");
    let id = snapshot(&place);
    let mut mapper = Command::new("python3");
    mapper.args(["-c", MAPPER]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut mapper = mapper.spawn().expect("python3 runs");
    let mut told = mapper.stdin.take().expect("a pipe");
    let mut said = BufReader::new(mapper.stdout.take().expect("a pipe")).lines();
    said.next().expect("a line").expect("text");
    let mut told = Some(&mut told);
    refused(&place, &id, "state", || {
        writeln!(told.take().expect("once"), "store").expect("told");
        said.next().expect("a line").expect("text");
    });
    mapper.kill().expect("ended");
    mapper.wait().expect("ended");
}

/// Taking the databases may take long. What is no database is looked at again after it, and a database that was not
/// changed by that too.
#[test]
fn all_is_looked_at_again_right_before_the_first_change() {
    let template = scene::scene("closed");
    fs::remove_file(template.data.join("second.db")).expect("removed");
    drop(scene::database(&template.data.join("second.db"), "DELETE", "old", 3));
    let (scene, asked) = (template.again(), Mutex::new(Vec::new()));
    let recheck = |changed: &BTreeSet<PathBuf>| {
        let mut asked = asked.lock().expect("not poisoned");
        asked.push(changed.clone());
        if asked.len() == 2 { Err(Error::locked("something was written")) } else { Ok(()) }
    };
    let mut how = options(false);
    how.recheck = &recheck;
    let before = scene.state();
    let error = scene.replace(&how).expect_err("refused");
    assert_eq!(error.exit_code(), 11);
    assert_eq!(scene.state(), before);
    assert!(!scene.data.join(".nbak-restore").exists());
    assert_eq!(fs::read(scene.data.join("h.db")).expect("read")[18], 2, "it has its journal mode back");
    assert_eq!(asked.into_inner().expect("not poisoned"), [BTreeSet::new(), BTreeSet::from([PathBuf::from("h.db")])]);
}

#[test]
fn the_latest_snapshot_after_a_refusal_is_not_taken_for_the_one_before() {
    let place = place();
    let notes = place.data.join("notes");
    fs::write(&notes, "good").expect("written");
    let id = snapshot(&place);
    fs::write(&notes, "ruined").expect("written");
    let run = restore(&place, &["latest", "notes"], || fs::write(&notes, "ruined more").expect("written"));
    assert_eq!(run.code, 11, "{run:?}");
    assert!(run.err.contains(&format!("`nbak restore {id} --in-place notes`")), "{run:?}");
    let before = live(&place);
    let run = place.run(&["restore", "latest", "--in-place", "--yes"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.err.contains(&format!("{id} is the one before")), "{run:?}");
    assert_equal(&before, &live(&place));
    // To look at it is no harm.
    let (run, target) = place.restore("latest", "look");
    assert_eq!((run.code, fs::read(target.join("notes")).expect("read")), (0, b"ruined".to_vec()));
    place.ok(&["restore", &id, "notes", "--in-place", "--yes"]);
    assert_eq!(fs::read(&notes).expect("read"), b"good");
    // A snapshot since then is one like others.
    fs::write(&notes, "later").expect("written");
    place.ok(&["snapshot"]);
    place.ok(&["restore", "latest", "notes", "--in-place", "--yes"]);
}

#[test]
fn without_a_safety_backup_the_hint_names_the_snapshot() {
    let place = Place::empty();
    let notes = place.data.join("notes");
    fs::write(&notes, "good").expect("written");
    let id = snapshot(&place);
    fs::write(&notes, "ruined").expect("written");
    fs::write(place.data.join("backups"), "in the way of all backups").expect("written");
    let run = place.run(&["restore", "latest", "--in-place", "--yes"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.err.contains("--without-safety-backup"), "{run:?}");
    assert!(run.err.contains(&format!("`nbak restore {id} --in-place`")), "{run:?}");
    assert_eq!(fs::read(&notes).expect("read"), b"ruined");
}
