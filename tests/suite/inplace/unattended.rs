//! Who comes upon a half done restore without being asked to finish it: in a copy of the directory, under a program
//! that has a file of it open, before the application starts; and what giving it up puts back.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;
use serde_json::{Value, json};

use super::interrupted::Half;
use super::scene::{insert, rows, scene as a_scene};

fn since(database: &Path) {
    insert(&Connection::open(database).expect("opened"), "since", 1);
}

/// How a half restored directory comes to be a copy.
type Copying = fn(&Half);

/// To another disk, or from a backup of files.
fn copied(half: &Half) {
    let (data, copy) = (&half.scene.data, half.scene.data.with_file_name("copy"));
    assert!(Command::new("cp").arg("-a").args([data, &copy]).status().expect("cp runs").success());
    fs::remove_dir_all(data).expect("removed");
    fs::rename(copy, data).expect("moved");
}

/// To a disk that gives the old versions the very inodes that the staged ones had, as a fresh one may.
fn copied_with_the_same_inodes(half: &Half) {
    copied(half);
    let folder = half.scene.data.join(".nbak-restore");
    let journal = folder.join("intent");
    let text = fs::read_to_string(&journal).expect("read");
    let mut intent: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    for one in intent["moves"].as_array_mut().expect("a list") {
        let place = folder.join("new").join(one["path"].as_str().expect("text"));
        if let Ok(meta) = fs::symlink_metadata(place) {
            one["staged"]["inode"] = meta.ino().into();
        }
    }
    let line = intent.to_string();
    fs::write(&journal, format!("{line}\n{}\n", blake3::hash(line.as_bytes()).to_hex())).expect("written");
}

/// Only what is still to come was copied back: the journal and its folder are the same.
fn partly_copied(half: &Half) {
    let staged = half.scene.data.join(".nbak-restore/new").join(half.left.file_name().expect("a name"));
    let (old, spare) = (staged.with_extension("old"), staged.with_extension("spare"));
    fs::rename(&staged, &old).expect("moved");
    assert!(Command::new("cp").arg("-a").args([&old, &staged]).status().expect("cp runs").success());
    // Its inode stays taken, so that no other file gets it.
    fs::rename(&old, half.scene.data.with_file_name(spare.file_name().expect("a name"))).expect("moved");
}

#[test]
fn in_a_copy_it_is_never_called_finished() {
    let copies: [(Copying, bool); 4] =
        [(copied, false), (copied, true), (partly_copied, false), (copied_with_the_same_inodes, false)];
    for (copy, is_written) in copies {
        let half = Half::made();
        copy(&half);
        if is_written {
            since(&half.left);
        }
        let before = half.live();
        for (args, code) in [(&["snapshot"][..], 3), (&["backup"], 3), (&["restore", "--resume", "--yes"], 1)] {
            let run = half.run(args);
            assert_eq!(run.code, code, "{args:?}: {run:?}");
            assert!(run.err.contains("copied or moved") && run.err.contains("--abandon"), "{args:?}: {run:?}");
            assert!(half.scene.is_pending() && half.live() == before, "{args:?}");
        }
        let [(level, text)] = &half.doctor()[..] else { panic!("{:?}", half.doctor()) };
        assert!(level == "bad" && text.contains("half done") && text.contains("copied or moved"), "{text}");
        assert!(half.json(&["status"]).1[0]["pending_restore"]["text"].is_string());

        let run = half.run(&["restore", "--abandon"]);
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(half.live(), before);
        let [kept] = &half.scene.kept()[..] else { panic!("{:?}", half.scene.kept()) };
        let name = |path: &Path| kept.join(path.file_name().expect("a name"));
        assert!(rows(&name(&half.done)).expect("it opens").contains("old00"));
        assert!(!name(&half.left).exists(), "what was to come was not replaced");
        assert!(half.scene.state()[half.left.file_name().expect("a name").to_str().expect("text")].contains("old00"));
    }
}

/// An event log is opened once, and written to days later.
#[test]
fn a_file_that_is_open_is_not_taken_away_unasked() {
    let template = a_scene("closed");
    template.live("x/old", "old");
    template.staged("x", "a file now");
    for path in ["notes.txt", "x/old"] {
        let half = Half::of(&template, |state| state["notes.txt"] == "old notes" && state.contains_key("x/old"));
        let path = half.scene.data.join(path);
        let mut log = fs::File::options().append(true).open(&path).expect("opened");
        for args in [&["snapshot"][..], &["backup"]] {
            let run = half.run(args);
            assert_eq!(run.code, 3, "{args:?}: {run:?}");
            assert!(run.err.contains("open in") && run.err.contains(path.to_str().expect("text")), "{run:?}");
            assert!(half.scene.is_pending());
        }
        log.write_all(b"an event").expect("written");
        assert!(fs::read_to_string(&path).expect("there").ends_with("an event"));
        drop(log);
        let run = half.run(&["snapshot"]);
        assert!(run.code == 3 && run.err.contains("written since"), "{run:?}");
        fs::remove_dir_all(half.scene.data.join(".nbak-restore")).expect("removed");

        let half = Half::of(&template, |state| state.contains_key("x/old"));
        drop(fs::File::options().append(true).open(half.scene.data.join("x/old")).expect("opened"));
        let run = half.run(&["snapshot"]);
        assert!(run.code == 0 && !half.scene.is_pending(), "opened and closed is nothing: {run:?}");
    }
}

/// It lies in the staging since it was replaced, and goes with it.
#[test]
fn a_file_that_is_open_since_before_it_was_replaced_is_not_removed_unasked() {
    let half = Half::of(&a_scene("closed"), |state| state["notes.txt"] != "old notes");
    let old = half.scene.data.join(".nbak-restore/new/notes.txt");
    let mut log = fs::File::options().append(true).open(&old).expect("opened");
    let run = half.run(&["snapshot"]);
    assert!(run.code == 3 && run.err.contains("open in") && half.scene.is_pending(), "{run:?}");
    log.write_all(b"an event").expect("written");
    let run = half.run(&["restore", "--resume", "--yes"]);
    assert_eq!(run.code, 0, "{run:?}");
    let [kept] = &half.scene.kept()[..] else { panic!("{:?}", half.scene.kept()) };
    assert!(fs::read_to_string(kept.join("notes.txt")).expect("kept").ends_with("an event"));
}

/// What stores into a file through memory need not have it open.
#[test]
fn a_file_that_is_mapped_is_not_taken_away_unasked() {
    const MAPPER: &str = "
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDWR); memory = mmap.mmap(file, 0); os.close(file)
for one in os.listdir('/proc/self/fd'):
    try: os.path.samefile(f'/proc/self/fd/{one}', sys.argv[1]) and os.close(int(one))
    except OSError: pass
print('mapped', flush=True); sys.stdin.read()
";
    let half = Half::of(&a_scene("closed"), |state| state["notes.txt"] == "old notes");
    let path = half.scene.data.join("notes.txt");
    let mut mapper = Command::new("python3");
    mapper.args(["-c", MAPPER]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut mapper = mapper.spawn().expect("python3 runs");
    let said = BufReader::new(mapper.stdout.as_mut().expect("a pipe")).lines().next();
    assert_eq!(said.expect("a line").expect("text"), "mapped");
    let run = half.run(&["snapshot"]);
    assert!(run.code == 3 && half.scene.is_pending(), "{run:?}");
    assert!(run.err.contains("open in") && run.err.contains("python3"), "{run:?}");
    drop(mapper.stdin.take());
    assert!(mapper.wait().expect("its end").success());
    let run = half.run(&["snapshot"]);
    assert!(run.code == 0 && !half.scene.is_pending(), "{run:?}");
}

#[test]
fn a_start_finishes_it_or_says_so() {
    for noted in [None, Some("1")] {
        for is_written in [false, true] {
            let half = Half::made();
            if let Some(version) = noted {
                fs::write(half.scene.data.join(".last_version"), version).expect("written");
            }
            if is_written {
                since(&half.left);
            }
            let run = half.run(&["startup", "--app-version", "1"]);
            assert_eq!((run.code, half.scene.is_pending()), if is_written { (3, true) } else { (0, false) }, "{run:?}");
            assert!(run.err.contains(if is_written { "half done" } else { "was finished" }), "{run:?}");
            let (code, said) = half.json(&["startup", "--app-version", "1"]);
            assert_eq!((code, said[0]["pending_restore"].is_string()), if is_written { (3, true) } else { (0, false) });
        }
    }
    // Another version: the backup says so, once.
    let half = Half::made();
    fs::write(half.scene.data.join(".last_version"), "1").expect("written");
    since(&half.left);
    let run = half.run(&["startup", "--app-version", "2"]);
    assert!(run.code == 3 && run.err.matches("half done").count() == 1, "{run:?}");
    // Nobody goes back to that one, so there is another when the restore has ended.
    half.run(&["restore", "--resume", "--yes"]);
    let (code, said) = half.json(&["startup", "--app-version", "2"]);
    assert!(code == 0 && said[0]["snapshot"].is_string(), "{said:?}");
    assert_eq!(half.json(&["startup", "--app-version", "2"]).1[0]["changed"], false);
}

#[test]
fn giving_it_up_turns_logs_on_again() {
    let has_log = |path: &Path| fs::read(path).expect("read")[18] == 2;
    for is_open in [false, true] {
        let half = Half::made();
        assert!(!has_log(&half.left), "the restore turned it off");
        let reader = is_open.then(|| {
            let conn = Connection::open(&half.left).expect("opened");
            conn.execute_batch("BEGIN; SELECT * FROM t").expect("read");
            conn
        });
        let (code, said) = half.json(&["restore", "--abandon"]);
        let left: Vec<&str> = half.left.file_name().and_then(|name| name.to_str()).into_iter().collect();
        let expected = if is_open { json!(left) } else { Value::Array(Vec::new()) };
        assert_eq!((code, &said[0]["without_log"]), (0, &expected), "{said:?}");
        assert_eq!(has_log(&half.left), !is_open);
        drop(reader);
        assert!(rows(&half.left).expect("it opens").contains("old00"));
    }
}
