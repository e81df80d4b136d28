//! What is taken while a restore in place is half done is of old and new data. It says so for ever, and nobody who asks
//! for the newest gets it unless there is nothing else.

use std::fs;
use std::time::Duration;

use nbak::snapshot::lack::Beside;
use nbak::snapshot::progress::Silent;
use nbak::snapshot::store::Store;
use nbak::snapshot::take::{Options, take};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::interrupted::Half;
use super::scene::insert;
use crate::common::Run;

/// A restore that was killed half way, and cannot be finished since somebody wrote; what the store and the backups have
/// of the same state looks as if no restore had been.
pub fn half_with(args: &[&[&str]]) -> Half {
    let half = Half::made();
    insert(&Connection::open(&half.left).expect("opened"), "since", 1);
    let (journal, aside) = (half.scene.data.join(".nbak-restore"), half.scene.data.with_file_name("aside"));
    fs::rename(&journal, &aside).expect("moved");
    for args in args {
        let run = half.run(args);
        assert_eq!(run.code, 0, "{args:?}: {run:?}");
    }
    fs::rename(&aside, &journal).expect("moved");
    half
}

fn snapshots(half: &Half) -> Vec<Value> {
    let (code, all) = half.json(&["snapshots"]);
    assert_eq!(code, 0);
    all
}

fn id(snapshot: &Value) -> String {
    snapshot["snapshot"].as_str().expect("an id")[..8].to_owned()
}

fn assert_passed_over(run: &Run, mixed: &str, whole: &str) {
    assert_eq!(run.code, 0, "{run:?}");
    let said = run.err.lines().find(|line| line.contains("passed over")).unwrap_or_else(|| panic!("{run:?}"));
    assert!(said.contains(mixed) && said.contains(whole) && said.contains("give the id"), "{said}");
}

#[test]
fn a_snapshot_says_for_ever_that_it_is_a_mixture() {
    // Nothing changed since one that does not say it.
    let half = half_with(&[&["snapshot"], &["snapshot"]]);
    for _ in 0..2 {
        let (code, said) = half.json(&["snapshot"]);
        assert_eq!((code, &said[0]["mixed"]), (3, &json!(true)), "{said:?}");
    }
    let all = snapshots(&half);
    let mixed: Vec<&Value> = all.iter().map(|one| &one["mixed"]).collect();
    assert_eq!(mixed, [&json!(false), &json!(true)], "neither hidden nor taken twice: {all:?}");
    assert_eq!((&all[1]["unreadable"], &all[1]["unreadable_entries"][0]["path"]), (&json!(1), &json!(".nbak-restore")));
    let reason = all[1]["unreadable_entries"][0]["reason"].as_str().expect("text");
    assert!(reason.contains("half done") && reason.contains("old and new data"), "{reason}");
    let listed = half.run(&["snapshots", "-v"]).out;
    assert_eq!(listed.matches("mixed: taken while a restore in place was half done").count(), 1, "{listed}");
    assert!(!listed.contains("not captured"), "{listed}");
    assert!(half.run(&["doctor"]).out.contains("is incomplete: old and new data of a restore in place"));

    // Once nothing is half done, the same state is what it is.
    assert_eq!(half.run(&["restore", "--abandon"]).code, 0);
    assert_eq!(half.run(&["snapshot"]).code, 0);
    let all = snapshots(&half);
    assert_eq!((all.len(), &all[2]["mixed"]), (3, &json!(false)), "{all:?}");
    assert!(!half.run(&["doctor"]).out.contains("is incomplete"));
}

/// One walk that finds all as it was says nothing of a restore.
#[test]
fn what_is_known_at_a_glance_hides_nothing() {
    let place = crate::live_common::Place::new();
    fs::write(place.data.join("letter"), "Dear reader").expect("written");
    let taken = |beside: bool| {
        let mut store = Store::open_or_create(&place.repo, &[], Duration::from_secs(10), 0).expect("a store");
        let beside = Beside::asking(move || beside);
        let options = Options { source: place.data.clone(), beside, ..Options::default() };
        take(&mut store, &options, &Silent).expect("a snapshot")
    };
    let settled = (0..10).map(|_| taken(false)).find(|taken| {
        std::thread::sleep(Duration::from_millis(130));
        taken.at_a_glance
    });
    let whole = settled.expect("one walk is enough").record;
    let mixed = taken(true);
    assert!(mixed.record.lack().mixed && !mixed.unchanged && mixed.record.tree == whole.tree, "{mixed:?}");
    let again = taken(true);
    assert!(again.unchanged && again.record == mixed.record && again.unreadable.len() == 1, "{again:?}");
    let after = taken(false);
    assert!(!after.unchanged && after.record.lack().is_none(), "{after:?}");
}

#[test]
fn who_asks_for_the_latest_gets_one_that_is_no_mixture() {
    let half = half_with(&[&["snapshot"]]);
    assert_eq!(half.run(&["snapshot"]).code, 3);
    let all = snapshots(&half);
    let (whole, mixed) = (&*id(&all[0]), &*id(&all[1]));
    let place = |name: &str| half.scene.data.with_file_name(name).to_str().expect("UTF-8").to_owned();
    let (one, two, three) = (place("one"), place("two"), place("three"));
    for args in [
        &["restore", "latest", "--target", &one][..],
        &["export", "latest", "--to", &place("exported")],
        &["drill"],
        &["drill", "latest"],
        &["cat", "latest", "notes.txt"],
    ] {
        assert_passed_over(&half.run(args), mixed, whole);
    }
    let (code, said) = half.json(&["drill"]);
    assert_eq!((code, &said[0]["snapshot"]), (0, &all[0]["snapshot"]));

    // By its id it is to be had, with what there is to say of it.
    let run = half.run(&["restore", mixed, "--target", &two]);
    assert!(run.code == 3 && run.err.contains("old and new data stand side by side"), "{run:?}");
    assert!(run.out.contains("of incomplete snapshot") && !run.err.contains("passed over"), "{run:?}");
    let run = half.run(&["restore", mixed, "notes.txt", "--target", &three]);
    assert!(run.code == 3 && run.err.contains("old and new data"), "whatever is asked for: {run:?}");
    let run = half.run(&["drill", mixed]);
    assert!(run.code == 3 && run.out.contains("proven, but incomplete: "), "{run:?}");
    assert!(run.out.contains("; old and new data of a restore in place") && !run.out.contains("captured"), "{run:?}");
    // It is held beside the complete one that was proven.
    assert_eq!(half.run(&["forget", "--keep-last", "1"]).code, 0);
    assert_eq!(snapshots(&half).len(), 2);

    assert_eq!(half.run(&["restore", "--abandon"]).code, 0);
    let run = half.run(&["restore", "latest", "--in-place", "--yes"]);
    assert_passed_over(&run, mixed, whole);
    assert_eq!(half.run(&["forget", "--force", whole]).code, 0);
    let run = half.run(&["restore", mixed, "--in-place", "--yes"]);
    assert!(run.code == 3 && run.out.contains("restored incomplete snapshot"), "{run:?}");
}

#[test]
fn where_there_is_nothing_else_a_mixture_is_the_latest() {
    let half = half_with(&[]);
    assert_eq!(half.run(&["snapshot"]).code, 3);
    let run =
        half.run(&["restore", "latest", "--target", half.scene.data.with_file_name("to").to_str().expect("UTF-8")]);
    assert!(run.code == 3 && run.err.contains("side by side") && !run.err.contains("passed over"), "{run:?}");
}

/// What a restore took of the state that it was to replace is no answer to `latest`, behind a mixture either.
#[test]
fn behind_a_mixture_the_latest_is_still_not_what_was_to_go() {
    let half = half_with(&[&["snapshot"], &["snapshot", "--tag", "before-restore"]]);
    assert_eq!(half.run(&["snapshot"]).code, 3);
    assert_eq!(half.run(&["restore", "--abandon"]).code, 0);
    let all = snapshots(&half);
    let run = half.run(&["restore", "latest", "--in-place", "--yes"]);
    assert!(run.code == 2 && run.err.contains(&format!("{} is the one before", id(&all[0]))), "{run:?}");
}

#[test]
fn a_backup_says_for_ever_that_it_is_a_mixture() {
    let half = half_with(&[&["backup"]]);
    std::thread::sleep(Duration::from_millis(1100));
    let (code, said) = half.json(&["backup"]);
    let mixed = said[0]["name"].as_str().expect("a name").to_owned();
    assert_eq!((code, &said[0]["incomplete"]), (3, &json!(true)), "{said:?}");
    assert_eq!(half.run(&["restore", "--abandon"]).code, 0);
    let (_, all) = half.json(&["backup", "list"]);
    assert_eq!((&all[0]["mixed"], &all[1]["mixed"], &all[1]["name"]), (&json!(false), &json!(true), &json!(mixed)));
    let whole = all[0]["name"].as_str().expect("a name").to_owned();
    let listed = half.run(&["backup", "list"]).out;
    assert_eq!(listed.matches("incomplete: old and new data of a restore in place stand").count(), 1, "{listed}");
    let doctor = half.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains(&format!("{mixed} is newer, and was made while")), "{doctor:?}");
    assert_eq!(half.json(&["status"]).1[0]["mixed_backup"], json!(mixed));

    // Named it is to be had, with what there is to say of it.
    let run = half.run(&["backup", "verify", &mixed]);
    assert!(run.code == 3 && run.err.contains("made while a restore in place was half done"), "{run:?}");
    assert!(!run.out.contains("whole") && !run.out.contains("captured"), "{run:?}");
    let passed_over = |run: &Run| {
        let said = run.err.lines().find(|line| line.contains("passed over")).unwrap_or_else(|| panic!("{run:?}"));
        assert!(said.contains(&mixed) && said.contains(&whole) && said.contains("give the name"), "{said}");
    };
    let run = half.run(&["backup", "verify"]);
    assert!(run.code == 0 && run.out.contains(&format!("backup {whole} is whole")), "{run:?}");
    passed_over(&run);
    fs::write(half.scene.data.join("notes.txt"), "later").expect("written");
    let run = half.run(&["backup", "restore", "--yes"]);
    assert!(run.code == 0 && run.out.contains(&format!("restored backup {whole}")), "{run:?}");
    passed_over(&run);
    let run = half.run(&["backup", "restore", &mixed, "--yes", "--only", "notes.txt"]);
    assert!(run.code == 3 && run.err.contains("the backup is incomplete: old and new data stand"), "{run:?}");

    // Where there is nothing else it is the newest.
    for one in half.json(&["backup", "list"]).1.iter().filter(|one| one["name"] != json!(mixed)) {
        fs::remove_dir_all(one["path"].as_str().expect("a path")).expect("removed");
    }
    let run = half.run(&["backup", "verify"]);
    assert!(run.code == 3 && run.out.contains(&mixed) && !run.err.contains("passed over"), "{run:?}");
}
