//! A restore of a snapshot, or of a backup, that lacks something, or of some paths alone: whoever finishes it says what
//! there is to say, as the one that began it would have.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::strace::{can_trace, traced};
use crate::common::{Place, Run};

/// Runs `args`, killed at a call that exchanges files, as soon as a journal is there.
pub fn killed(place: &Place, args: &[&str]) {
    killed_by(place, &place.command(args));
}

pub fn killed_by(place: &Place, command: &Command) {
    for nth in 1..40 {
        let is_killed = kill(command, nth);
        if place.data.join(".nbak-restore/intent").exists() {
            return;
        }
        assert!(is_killed, "it was not killed, {nth}");
    }
    panic!("it was never killed in its middle");
}

/// Runs `args`, killed at the `nth` such call.
pub fn killed_at(place: &Place, args: &[&str], nth: u32) {
    assert!(kill(&place.command(args), nth), "{args:?} was not killed");
}

/// Killed at the `nth` rename: on some kernels now before and now after it.
pub fn kill(command: &Command, nth: u32) -> bool {
    let inject = format!("inject=renameat2:signal=KILL:when={nth}");
    let options = ["-o", "/dev/null", "-e", "trace=renameat2", "-e", &inject];
    !traced(command, &options).output().expect("it runs").status.success()
}

pub fn said(run: &Run) -> Value {
    serde_json::from_str(run.out.lines().next().unwrap_or_default()).unwrap_or_else(|_| panic!("{run:?}"))
}

#[test]
fn what_it_lacks_is_told_by_the_one_that_finishes_it() {
    if !can_trace() {
        return;
    }
    let place = Place::empty();
    let put = |text: &str| {
        for name in ["a", "b", "c"] {
            fs::write(place.data.join(name), text).expect("written");
        }
    };
    put("first");
    let pipe = place.data.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let backup = said(&place.run(&["backup", "--json"]))["name"].as_str().expect("a name").to_owned();
    let snapshot = said(&place.run(&["snapshots", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
    fs::remove_file(&pipe).expect("removed");

    let of_snapshot = ["restore", &snapshot, "--in-place", "--yes"];
    let of_backup = ["backup", "restore", &backup, "--yes"];
    for (args, words) in [(&of_snapshot, "the snapshot is incomplete: "), (&of_backup, "the backup is incomplete: ")] {
        put("resumed");
        killed(&place, args);
        let run = place.run(&["restore", "--resume", "--yes", "--json"]);
        let done = said(&run);
        assert_eq!((run.code, &done["incomplete"]), (3, &json!(true)), "{args:?}: {run:?}");
        assert!(run.err.contains(words) && run.err.contains("pipe"), "{args:?}: {run:?}");
        assert!(done["warnings"][0].as_str().is_some_and(|text| text.starts_with(words)), "{args:?}: {run:?}");
        assert_eq!(fs::read_to_string(place.data.join("c")).expect("there"), "first");

        put("unattended");
        killed(&place, args);
        let run = place.run(&["snapshot"]);
        assert!(run.code == 0 && run.err.contains("was finished") && run.err.contains(words), "{args:?}: {run:?}");

        // Once, where nobody was killed.
        put("at once");
        let run = place.run(args);
        assert!(run.code == 3 && run.err.matches(words).count() == 1, "{args:?}: {run:?}");
    }
    // What is asked for is all there.
    put("in part");
    let part = ["restore", &snapshot, "a", "b", "--in-place", "--yes"];
    killed(&place, &part);
    let run = place.run(&["restore", "--resume", "--yes", "--json"]);
    assert_eq!((run.code, &said(&run)["incomplete"]), (0, &json!(false)), "{run:?}");
}

/// What stands beside some of a graph that is restored, and is neither replaced nor taken away.
#[test]
fn what_was_written_to_the_rest_of_a_graph_is_told() {
    if !can_trace() {
        return;
    }
    let deeds: [fn(&Path); 3] =
        [|_| {}, |log| fs::write(log, "written since").expect("written"), |log| fs::remove_file(log).expect("removed")];
    for (nth, deed) in deeds.into_iter().enumerate() {
        let place = Place::empty();
        let log = place.data.join("knowledge-graph/log");
        fs::create_dir(place.data.join("knowledge-graph")).expect("made");
        for path in ["a", "b", "c", "knowledge-graph/data", "knowledge-graph/log"] {
            fs::write(place.data.join(path), "first").expect("written");
        }
        let id = said(&place.run(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
        for path in ["a", "b", "c"] {
            fs::write(place.data.join(path), "later").expect("written");
        }
        killed(&place, &["restore", &id, "a", "b", "c", "knowledge-graph/data", "--in-place", "--yes"]);
        deed(&log);
        let run = place.run(&["snapshot"]);
        if nth == 0 {
            assert!(run.code == 0 && run.err.contains("was finished"), "nobody wrote: {run:?}");
            continue;
        }
        assert!(run.code == 3 && run.err.contains("knowledge-graph/log"), "{nth}: {run:?}");
        let run = place.run(&["restore", "--resume", "--yes", "--json"]);
        assert_eq!((run.code, &said(&run)["written_since"]), (3, &json!(["knowledge-graph/log"])), "{nth}: {run:?}");
        assert_eq!(fs::read_to_string(place.data.join("c")).expect("there"), "first");
    }
}
