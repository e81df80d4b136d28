//! What a half done restore had put in place already, or had found as it should be, and what is written there before it
//! is finished: nothing calls the result what was restored.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};

use super::MANY;
use super::interrupted::Half;
use super::scene::{Opener, Scene, database, insert, rows, scene as a_scene};

/// With a file, a database and a folder that are as they should be.
fn template() -> Scene {
    let template = a_scene("closed");
    for path in ["same.txt", "both/same"] {
        template.live(path, "the same");
        template.staged(path, "the same");
    }
    drop(database(&template.origin.join("same.db"), "WAL", "same", 2));
    fs::copy(template.origin.join("same.db"), template.data.join("same.db")).expect("copied");
    template
}

fn half() -> Half {
    Half::of(&template(), |state| state["h.db"].contains("new00") != state["second.db"].contains("new00"))
}

fn is_whole(state: &BTreeMap<String, String>) -> bool {
    state["h.db"].contains("new00") && state["second.db"].contains("new00")
}

fn commit(database: &Path) {
    insert(&Connection::open(database).expect("opened"), "since", 1);
}

/// To a data directory, and the file that was put in place first.
type Deed = fn(&Path, &Path);

fn deeds() -> [(&'static str, Deed); 7] {
    [
        ("same.txt", |data, _| fs::write(data.join("same.txt"), "since").expect("written")),
        ("both/same", |data, _| fs::remove_file(data.join("both/same")).expect("removed")),
        ("both", |data, _| fs::remove_dir_all(data.join("both")).expect("removed")),
        ("same.db", |data, _| commit(&data.join("same.db"))),
        ("same.db-wal", |data, _| {
            // A log that nobody wrote back: its program was killed.
            let copy = data.with_file_name("copy.db");
            fs::copy(data.join("same.db"), &copy).expect("copied");
            let conn = Connection::open(&copy).expect("opened");
            insert(&conn, "since", 1);
            fs::copy(copy.with_extension("db-wal"), data.join("same.db-wal")).expect("copied");
        }),
        ("done", |_, done| commit(done)),
        ("done", |_, done| fs::remove_file(done).expect("removed")),
    ]
}

#[test]
fn what_is_left_as_it_was_written_is_named_and_is_no_plain_success() {
    for (nth, (path, deed)) in deeds().into_iter().enumerate() {
        let half = half();
        deed(&half.scene.data, &half.done);
        let path =
            if path == "done" { half.done.file_name().and_then(|name| name.to_str()).expect("text") } else { path };
        let what = format!("{path}, deed {nth}");
        for args in [&["snapshot"][..], &["backup"]] {
            let run = half.run(args);
            assert!(run.code == 3 && run.err.contains("written since") && run.err.contains(path), "{what}: {run:?}");
        }
        let before = half.live();
        let (code, said) = half.json(&["restore", "--resume", "--yes"]);
        assert_eq!(code, 3, "{what}: {said:?}");
        let since = said[0]["written_since"].as_array().expect("a list");
        assert!(since.contains(&json!(path)), "{what}: {said:?}");
        assert!(!half.scene.is_pending() && half.doctor().iter().all(|(level, _)| level == "note"), "{what}");
        let mut after = half.live();
        let left = half.left.file_name().and_then(|name| name.to_str()).expect("text");
        assert!(after[left].contains("new00"), "{what}: {after:?}");
        for (path, text) in before.iter().filter(|(path, _)| path.contains("same")) {
            assert_eq!(after.remove(path).as_ref(), Some(text), "{what}: it is not touched");
        }
        // The rest of what was put in place goes without a trace: the safety backup has it.
        let kept: Vec<_> = half.scene.kept().iter().flat_map(|kept| fs::read_dir(kept).expect("a list")).collect();
        assert!(kept.len() <= 1, "{what}: {kept:?}");
    }
}

/// Nobody but the first one that went on with it knows what was written: the journal keeps it.
#[test]
fn it_is_named_though_the_one_that_went_on_was_killed() {
    let template = template();
    let is_half = |state: &BTreeMap<String, String>| state["h.db"].contains("new00") && !is_whole(state);
    let mut tried = 0;
    for kill in 0..MANY {
        let half = Half::of(&template, is_half);
        fs::write(half.scene.data.join("same.txt"), "since").expect("written");
        let is_killed = half.scene.child("recover", kill, false);
        if !half.scene.is_pending() {
            break;
        }
        assert!(is_killed);
        tried += 1;
        let run = half.run(&["snapshot"]);
        assert!(run.code == 3 && run.err.contains("same.txt"), "killed at {kill}: {run:?}");
        let (code, said) = half.json(&["restore", "--resume", "--yes"]);
        assert_eq!((code, &said[0]["written_since"]), (3, &json!(["same.txt"])), "killed at {kill}");
        assert!(is_whole(&half.scene.state()));
    }
    assert!(tried > 5, "{tried}");
}

/// It works on, half on old and half on new data.
#[test]
fn under_an_application_that_is_at_work_it_is_not_finished() {
    let pick: [fn(&Half) -> std::path::PathBuf; 3] =
        [|half| half.done.clone(), |half| half.scene.data.join("same.db"), |half| half.left.clone()];
    for pick in pick {
        let half = half();
        let database = pick(&half);
        let opener = Opener::of(&database);
        let before = half.scene.bytes();
        let run = half.run(&["restore", "--resume", "--yes"]);
        assert!(run.code == 11 && run.err.contains("open in") && run.err.contains("stop the program"), "{run:?}");
        let run = half.run(&["snapshot"]);
        assert!(run.code == 3 && run.err.contains("open in"), "{run:?}");
        assert!(half.scene.is_pending() && half.scene.bytes() == before, "{}", database.display());
        drop(opener);
        let (code, said) = half.json(&["restore", "--resume", "--yes"]);
        assert_eq!((code, &said[0]["written_since"]), (0, &json!([])), "{said:?}");
        assert!(is_whole(&half.scene.state()) && half.scene.kept().is_empty());
    }
    // Any file of it, for who was not asked.
    let template = template();
    template.live("z.txt", "old");
    template.staged("z.txt", "new");
    for path in ["same.txt", "notes.txt"] {
        let half = Half::of(&template, |state| state["notes.txt"] == "new notes" && state["z.txt"] == "old");
        let log = fs::File::options().append(true).open(half.scene.data.join(path)).expect("opened");
        let run = half.run(&["snapshot"]);
        assert!(run.code == 3 && run.err.contains("open in") && run.err.contains(path), "{path}: {run:?}");
        drop(log);
        let run = half.run(&["snapshot"]);
        assert!(run.code == 0 && !half.scene.is_pending(), "{run:?}");
    }
}

/// What an engine wrote beside the old graph would be played into the new one.
#[test]
fn what_appeared_beside_an_old_graph_does_not_stay_beside_the_new_one() {
    let half = Half::of(&template(), |state| state["knowledge-graph/data"] == "old graph");
    let log = half.scene.data.join("knowledge-graph.wal");
    fs::write(&log, "since").expect("written");
    let (code, said) = half.json(&["restore", "--resume", "--yes"]);
    assert_eq!((code, &said[0]["written_since"]), (0, &json!([])), "{said:?}");
    let [kept] = &half.scene.kept()[..] else { panic!("{:?}", half.scene.kept()) };
    assert_eq!(fs::read_to_string(kept.join("knowledge-graph.wal")).expect("kept"), "since");
    assert!(!log.exists() && half.scene.state()["knowledge-graph/data"] == "new graph");
    assert!(said[0]["warnings"].to_string().contains("knowledge-graph.wal"), "{said:?}");
}

/// Killed behind the graph: it is as it is to be, and the notes are still to come.
fn with_graph() -> Half {
    Half::of(&template(), |state| state["knowledge-graph/data"] == "new graph" && state["notes.txt"] == "old notes")
}

/// Killed before anything, where the graph was as it is to be.
fn with_the_same_graph() -> Half {
    let template = template();
    template.staged("knowledge-graph/data", "old graph");
    template.staged("knowledge-graph/log", "old log");
    Half::of(&template, |state| state["notes.txt"] == "old notes")
}

/// An engine that has the restored graph open plays it in: it is of that one, and stays.
#[test]
fn what_came_to_a_graph_that_is_as_it_is_to_be_is_named() {
    let of_both: [fn() -> Half; 2] = [with_graph, with_the_same_graph];
    let came = ["knowledge-graph.wal", "knowledge-graph/shadow"].map(|path| of_both.map(|half| (path, half)));
    // It was there once, and was taken away.
    let again: (&str, fn() -> Half) = ("knowledge-graph/log", with_graph);
    for (nth, (path, half)) in came.into_iter().flatten().chain([again]).enumerate() {
        let (half, what) = (half(), format!("{path}, {nth}"));
        let place = half.scene.data.join(path);
        assert!(!place.exists(), "{what}");
        fs::write(&place, "since").expect("written");
        for args in [&["snapshot"][..], &["backup"]] {
            let run = half.run(args);
            assert!(run.code == 3 && run.err.contains("written since") && run.err.contains(path), "{what}: {run:?}");
        }
        let (code, said) = half.json(&["restore", "--resume", "--yes"]);
        assert_eq!((code, &said[0]["written_since"]), (3, &json!([path])), "{what}: {said:?}");
        assert_eq!(fs::read_to_string(&place).expect("there"), "since", "{what}");
        assert!(half.scene.state()["notes.txt"] == "new notes" && half.scene.kept().is_empty(), "{what}");
    }
    // Nobody wrote.
    for half in of_both {
        let run = half().run(&["snapshot"]);
        assert!(run.code == 0 && run.err.contains("was finished"), "{run:?}");
    }
}

/// What goes of it is taken away before what comes.
#[test]
fn what_comes_again_while_others_of_a_graph_are_still_to_go_is_of_the_old_one() {
    let template = template();
    template.staged("knowledge-graph/data", "old graph");
    template.staged("knowledge-graph/log", "old log");
    let beside = ["knowledge-graph.lock", "knowledge-graph.wal"];
    for path in beside {
        template.live(path, "old");
    }
    let half = Half::of(&template, |state| beside.iter().filter(|path| state.contains_key(**path)).count() == 1);
    let gone = beside.into_iter().find(|path| !half.scene.data.join(path).exists()).expect("one of them");
    fs::write(half.scene.data.join(gone), "since").expect("written");
    let run = half.run(&["snapshot"]);
    assert!(run.code == 3 && run.err.contains(gone), "{run:?}");
    let (code, said) = half.json(&["restore", "--resume", "--yes"]);
    assert_eq!((code, &said[0]["written_since"]), (0, &json!([])), "{said:?}");
    let [kept] = &half.scene.kept()[..] else { panic!("{:?}", half.scene.kept()) };
    assert_eq!(fs::read_to_string(kept.join(gone)).expect("kept"), "since");
    assert!(beside.iter().all(|path| !half.scene.data.join(path).exists()), "{said:?}");
}

/// A file system gives the number of an inode out again, maybe to a folder under the name of what had it.
#[test]
fn a_folder_in_place_of_what_was_put_there_is_named() {
    let half = with_graph();
    let place = half.scene.data.join("fresh/file");
    fs::remove_file(&place).expect("it was put there");
    fs::create_dir(&place).expect("made");
    let journal = half.scene.data.join(".nbak-restore/intent");
    let text = fs::read_to_string(&journal).expect("read");
    let mut intent: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    let mut moves = intent["moves"].as_array_mut().expect("a list").iter_mut();
    let one = moves.find(|one| one["path"] == "fresh/file").expect("it is among them");
    one["staged"]["inode"] = fs::metadata(&place).expect("there").ino().into();
    let line = intent.to_string();
    fs::write(&journal, format!("{line}\n{}\n", blake3::hash(line.as_bytes()).to_hex())).expect("written");
    let (code, said) = half.json(&["restore", "--resume", "--yes"]);
    assert_eq!((code, &said[0]["written_since"]), (3, &json!(["fresh/file"])), "{said:?}");
    assert!(place.is_dir() && half.scene.state()["notes.txt"] == "new notes");
}

/// All stood in place, and the application went on with it: only what it wrote to is told from the rest.
#[test]
fn where_all_stood_in_place_nothing_is_amiss() {
    let template = a_scene("closed");
    let half = Half::of(&template, |state| *state == super::restored(&template) && state["notes.txt"] == "new notes");
    commit(&half.scene.data.join("h.db"));
    let _opener = Opener::of(&half.scene.data.join("second.db"));
    let (code, said) = half.json(&["restore", "--resume", "--yes"]);
    assert_eq!((code, &said[0]["written_since"]), (0, &Value::Array(Vec::new())), "{said:?}");
    assert!(rows(&half.scene.data.join("h.db")).expect("it opens").contains("since00"));
}
