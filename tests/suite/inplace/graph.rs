//! A knowledge graph, as a folder or as a file with others beside it, is one thing: nothing of an old one, or of one
//! that was begun meanwhile, stands beside the one that is restored.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::interrupted::Half;
use super::scene::{Scene, scene as a_scene};
use crate::common::{Place, Run};

/// What is staged has a graph, and what is live has none, or a file in its place.
fn without_a_graph(is_file: bool) -> Scene {
    let template = a_scene("closed");
    fs::remove_dir_all(template.data.join("knowledge-graph")).expect("removed");
    if is_file {
        template.live("knowledge-graph", "an old graph");
    }
    template.staged("knowledge-graph/index/nodes", "new nodes");
    template
}

fn has(state: &BTreeMap<String, String>, path: &str, what: &str) -> bool {
    state.get(path).is_some_and(|found| found.starts_with(what))
}

/// The application found the folder that the restore had made, and began a graph in it.
#[test]
fn what_came_in_a_folder_that_the_restore_made_is_of_another_graph() {
    for is_file in [false, true] {
        let template = without_a_graph(is_file);
        let is_empty = |state: &BTreeMap<String, String>| {
            has(state, "knowledge-graph/index", "folder") && !state.contains_key("knowledge-graph/data")
        };
        let half = || {
            let half = Half::of(&template, is_empty);
            half.scene.live("knowledge-graph/data.wal", "a log");
            half.scene.live("knowledge-graph/index/tmp/shadow", "a shadow");
            half
        };
        for args in [&["snapshot"][..], &["backup"]] {
            let half = half();
            let run = half.run(args);
            assert!(run.code == 3 && run.err.contains("knowledge-graph/data.wal"), "{is_file}: {run:?}");
            assert!(half.scene.is_pending());
        }
        let half = half();
        let since = &half.json(&["status"]).1[0]["pending_restore"]["written_since"];
        assert_eq!(since[0], "knowledge-graph/data.wal", "{since}");
        let (code, said) = half.json(&["restore", "--resume", "--yes"]);
        assert_eq!((code, &said[0]["written_since"]), (0, &json!([])), "it is of another graph: {said:?}");
        assert!(
            said[0]["warnings"].to_string().contains("knowledge-graph/index/tmp: it was written after"),
            "{said:?}"
        );
        let [kept] = &half.scene.kept()[..] else { panic!("{:?}", half.scene.kept()) };
        for (path, text) in [("knowledge-graph/data.wal", "a log"), ("knowledge-graph/index/tmp/shadow", "a shadow")] {
            assert_eq!(fs::read_to_string(kept.join(path)).expect("kept"), text);
            assert!(!half.scene.data.join(path).exists(), "{is_file}: {path}");
        }
        assert!(has(&half.scene.state(), "knowledge-graph/index/nodes", "new nodes"));

        // Once all of it stands there, it is of this one, and stays.
        let half = Half::of(&template, |state| {
            has(state, "knowledge-graph/index/nodes", "new") && has(state, "notes.txt", "old notes")
        });
        half.scene.live("knowledge-graph/index/tmp/shadow", "a shadow");
        assert_eq!(half.run(&["snapshot"]).code, 3);
        let (code, said) = half.json(&["restore", "--resume", "--yes"]);
        let tmp = json!(["knowledge-graph/index/tmp", "knowledge-graph/index/tmp/shadow"]);
        assert_eq!((code, &said[0]["written_since"]), (3, &tmp), "{said:?}");
        assert!(half.scene.kept().is_empty());

        // Nobody wrote.
        let run = Half::of(&template, is_empty).run(&["snapshot"]);
        assert!(run.code == 0 && run.err.contains("was finished"), "{run:?}");
    }
}

fn write(place: &Place, files: &[(&str, &str)]) {
    for (path, text) in files {
        fs::create_dir_all(place.data.join(path).parent().expect("a folder")).expect("made");
        fs::write(place.data.join(path), text).expect("written");
    }
}

/// The name of a snapshot and of a backup of what is there.
fn taken(place: &Place) -> (String, String) {
    let name = |run: &Run, what: &str| {
        let said: Value = serde_json::from_str(run.out.lines().next().expect("a line")).expect("JSON");
        said[what].as_str().expect("a name").to_owned()
    };
    let backup = name(&place.ok(&["backup", "--json"]), "name");
    (name(&place.ok(&["snapshots", "--json"]), "snapshot"), backup)
}

fn graph_of(place: &Place) -> Vec<(String, String)> {
    let all = crate::common::tree(&place.data)
        .into_iter()
        .filter(|(path, one)| one.kind == "file" && path.to_string_lossy().starts_with("knowledge-graph"));
    all.map(|(path, one)| (path.display().to_string(), String::from_utf8_lossy(&one.bytes).into_owned())).collect()
}

fn pairs(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// However its path is spelled.
#[test]
fn of_the_old_graph_nothing_stays_however_it_is_called() {
    for in_folder in [true, false] {
        let graph = if in_folder { "knowledge-graph/data" } else { "knowledge-graph" };
        let place = Place::empty();
        write(&place, &[(graph, "first"), ("notes", "first")]);
        let (snapshot, backup) = taken(&place);
        for path in ["knowledge-graph", "./knowledge-graph", "/knowledge-graph", "knowledge-graph/", ".", "/"] {
            let of_snapshot = ["restore", &snapshot, path, "--in-place", "--yes"];
            let of_backup = ["backup", "restore", &backup, "--yes", "--only", path];
            for args in [&of_snapshot[..], &of_backup] {
                write(&place, &[(graph, "later"), ("knowledge-graph.wal", "later")]);
                if in_folder {
                    write(&place, &[("knowledge-graph/more", "later")]);
                }
                place.ok(args);
                assert_eq!(graph_of(&place), pairs(&[(graph, "first")]), "{args:?}");
            }
        }
        // What is asked for is all of it, and what else there is gets named.
        write(&place, &[(graph, "later"), ("mine", "later")]);
        let run = place.ok(&["restore", &snapshot, "./", "--in-place", "--yes"]);
        assert!(run.err.contains("kept, though it is not in what was restored: mine"), "{run:?}");
    }
}

/// It takes its log along, and the log is nothing without it.
#[test]
fn one_file_of_a_graph_is_not_restored_alone() {
    let place = Place::empty();
    let first = [("knowledge-graph", "first"), ("knowledge-graph.wal", "first log")];
    write(&place, &first);
    write(&place, &[("notes", "first")]);
    let (snapshot, backup) = taken(&place);
    let later =
        [("knowledge-graph", "later"), ("knowledge-graph.shadow", "later"), ("knowledge-graph.wal", "later log")];
    let call = |path| {
        let of_snapshot = vec!["restore", &*snapshot, path, "--in-place", "--yes"];
        [of_snapshot, vec!["backup", "restore", &*backup, "--yes", "--only", path]]
    };
    for args in call("knowledge-graph") {
        write(&place, &later);
        place.ok(&args);
        assert_eq!(graph_of(&place), pairs(&first), "{args:?}");
    }
    for args in call("./knowledge-graph.wal") {
        write(&place, &later);
        let run = place.run(&args);
        assert!(run.code == 2 && run.err.contains("give `knowledge-graph`"), "{args:?}: {run:?}");
        assert!(run.err.contains("nothing was changed") && run.err.contains("--target"), "{run:?}");
        assert_eq!(graph_of(&place), pairs(&later), "{args:?}");
    }
    // Both is all of it. To look at, one is to be had.
    place.ok(&["restore", &snapshot, "knowledge-graph.wal", "knowledge-graph", "--in-place", "--yes"]);
    assert_eq!(graph_of(&place), pairs(&first));
    let target = place.path("target");
    place.ok(&["restore", &snapshot, "knowledge-graph.wal", "--target", target.to_str().expect("UTF-8")]);
    assert!(target.join("knowledge-graph.wal").exists() && !Path::new(&target).join("knowledge-graph").exists());
}
