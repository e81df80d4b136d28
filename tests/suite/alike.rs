//! Two data directories of the same path without a name, in one store or one folder of backups: they are told apart by
//! which directory each snapshot is of, and no policy of one goes over the other's. And what looks alike, and is one
//! directory that went on elsewhere, keeps what it was before.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{KEY, Place, Run, copy};
use crate::daemon_common::clock::Clock;
use crate::daemon_common::{LONG, Life, daemon, json_lines, make_due, text, until};
use crate::drive_common::Cloud;
use crate::fake_drive::StoredFile;
use crate::named::{Turns, id, ids, notes, refused, take};
use serde_json::json;

const SAYS: &str = "another data directory with the same path writes to this store";
const LEAVES: &str = "were taken of another directory";
const DAY: Duration = Duration::from_hours(24);

fn two() -> Turns {
    Turns::new(&|_| json!({}))
}

/// Takes a snapshot of something new; its id, and whether another is named.
fn taken(place: &Place, text: &str) -> (String, bool) {
    fs::write(place.data.join("notes"), text).expect("written");
    let run = place.ok(&["snapshot", "--json"]);
    (id(&run, "snapshot").expect("an id"), run.err.contains(SAYS))
}

fn is_told(place: &Place, text: &str) -> bool {
    taken(place, text).1
}

/// Runs `args` by `clock`.
fn at_time(place: &Place, clock: &Clock, args: &[&str]) -> Run {
    let mut command = place.command(args);
    clock.give(&mut command);
    Run::of(command)
}

/// Both take turns; the ids of the four, in turn.
fn in_turn(turns: &mut Turns) -> Vec<String> {
    let mut all = Vec::new();
    for round in 1..=2 {
        for who in ["one", "other"] {
            all.push(take(turns.at(who), &format!("{who} {round}")));
        }
    }
    all
}

#[test]
fn two_that_take_turns_keep_what_is_theirs() {
    let mut turns = two();
    assert!(!is_told(turns.at("one"), "one 1") && !is_told(turns.at("one"), "one 2"));
    // It may have been moved here.
    assert!(!is_told(turns.at("other"), "other 1"));
    assert!(!turns.place.run(&["doctor"]).out.contains(SAYS));
    let its = ids(&turns.place).pop().expect("one");
    // The first knows better, also before it takes one.
    let doctor = turns.at("one").run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains(SAYS) && doctor.out.contains("nbak.name"), "{doctor:?}");
    fs::write(turns.place.data.join("notes"), "one 3").expect("written");
    let run = turns.place.ok(&["snapshot"]);
    for words in [SAYS, &its[..8], "nbak.name", "NBAK_NAME", "its own store and folder", "--as-one-with"] {
        assert!(run.err.contains(words), "{words}: {run:?}");
    }
    assert!(is_told(turns.at("other"), "other 2") && is_told(turns.at("one"), "one 4"));
    let status = json_lines(&turns.place.ok(&["status", "--json"])).remove(0);
    assert!(status["same_path"].as_str().expect("said").contains(SAYS), "{status}");
    // What nobody named is one's own.
    for who in ["one", "other"] {
        let run = turns.at(who).ok(&["cat", "latest", "notes"]);
        assert_eq!(run.out, notes(&turns.place));
        let newest = ids(&turns.place);
        let status = turns.place.ok(&["status", "--json"]);
        assert!(
            newest.contains(&json_lines(&status)[0]["newest_snapshot"]["snapshot"].as_str().unwrap_or_default().into())
        );
    }
    let there = ids(&turns.place);
    let run = turns.at("one").ok(&["forget", "--keep-last", "1"]);
    assert!(run.err.contains(SAYS) && run.err.contains("those stay") && run.out.contains("3 snapshots forgotten"));
    assert_eq!(ids(&turns.place), [&there[2], &there[4], &there[5]].map(Clone::clone));
    turns.at("other").ok(&["forget", "--keep-last", "1"]);
    assert_eq!(ids(&turns.place), there[4..]);
    // An id says which.
    turns.place.ok(&["forget", &there[5]]);
    assert_eq!(ids(&turns.place), there[4..5]);
}

/// Another may have begun here, whatever the time is, and however long the first was silent: a disk may be away, and
/// cron go on in the folder that it is mounted at.
#[test]
fn one_that_begins_takes_nothing_of_who_was_there() {
    let mut turns = two();
    let all = ["one 1", "one 2", "one 3"].map(|text| take(turns.at("one"), text));
    let mut clock = Clock::new();
    for days in [0, 9, 400] {
        clock.forward(days * DAY);
        fs::write(turns.at("other").data.join("notes"), format!("other {days}")).expect("written");
        let taken = at_time(&turns.place, &clock, &["snapshot"]);
        assert!(taken.code == 0 && taken.err.contains(LEAVES) == (days == 0), "it says so once: {taken:?}");
        for args in [&["forget", "--keep-last", "1"][..], &["repair", "index"], &["forget", "--keep-last", "1"]] {
            let run = at_time(&turns.place, &clock, args);
            assert!(run.code == 0 && (args[0] != "forget" || run.err.contains(LEAVES)), "{run:?}");
        }
        let doctor = at_time(&turns.place, &clock, &["doctor"]);
        assert!(doctor.out.contains(LEAVES) && !doctor.out.contains(SAYS), "{doctor:?}");
        assert!(all.iter().all(|id| ids(&turns.place).contains(id)));
    }
    turns.at("one").ok(&["forget", "--keep-last", "1"]);
    assert_eq!(ids(&turns.place).len(), 2, "one of each");
}

/// What showed that they are two is forgotten, and one is silent for long: its last snapshot stays all the same.
#[test]
fn what_is_known_of_another_outlives_what_showed_it() {
    let mut turns = two();
    let all = in_turn(&mut turns);
    turns.at("one").ok(&["forget", "--keep-last", "1"]);
    turns.at("other").ok(&["forget", "--keep-last", "1"]);
    assert_eq!(ids(&turns.place), all[2..]);
    let mut clock = Clock::new();
    clock.forward(99 * DAY);
    for args in [&["forget", "--keep-last", "1"][..], &["gc"], &["repair"], &["forget", "--keep-within", "1d"]] {
        let run = at_time(turns.at("other"), &clock, args);
        assert_eq!(run.code, 0, "{run:?}");
    }
    assert_eq!(ids(&turns.place), all[2..]);
    // Nor is it what a third was before, nor what the latest means to that.
    fs::rename(&turns.place.data, turns.place.path("other")).expect("moved away");
    fs::create_dir(&turns.place.data).expect("made");
    let run = at_time(&turns.place, &clock, &["restore", "latest", "--in-place", "--yes"]);
    refused(&run, 2, &["several data directories with the same path", "by its id"]);
    assert_eq!(fs::read_dir(&turns.place.data).expect("read").count(), 0);
}

/// A copy on another disk, or what was restored on a new machine: it goes on with what was there.
#[test]
fn a_directory_that_goes_on_elsewhere_keeps_what_it_was() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    for text in ["1", "2", "3"] {
        take(&place, text);
    }
    copy(&place.data, &place.path("copy"));
    fs::remove_dir_all(&place.data).expect("removed");
    fs::rename(place.path("copy"), &place.data).expect("moved there");
    // At once for who restores; for a policy once a person says so.
    assert_eq!(place.ok(&["cat", "latest", "notes"]).out, "3");
    refused(&place.run(&["forget", "latest"]), 2, &[LEAVES, "by its id"]);
    place.ok(&["restore", "latest", "--in-place", "--yes"]);
    assert!(!is_told(&place, "4") && !is_told(&place, "5"));
    let doctor = place.run(&["doctor"]);
    assert!(!doctor.out.contains(SAYS), "{doctor:?}");
    let before = ids(&place);
    let run = place.ok(&["forget", "--keep-last", "1"]);
    assert!(run.err.contains(LEAVES), "{run:?}");
    let old = before[..3].to_vec();
    assert!(old.iter().all(|id| ids(&place).contains(id)), "they stay");
    let run = place.ok(&["forget", "--as-one"]);
    assert!(run.out.contains("1 other data directory of the same path took so far counts as this one's"), "{run:?}");
    assert!(place.ok(&["forget", "--as-one"]).out.contains("nothing is known"));
    let run = place.ok(&["forget", "--keep-last", "1"]);
    assert!(!run.err.contains(LEAVES), "{run:?}");
    assert_eq!(ids(&place).len(), 1);
}

/// What a person said is of one directory, up to that moment: a copy of it is another, and who goes on is too.
#[test]
fn what_a_person_said_is_not_said_of_a_copy_nor_of_what_comes() {
    let mut turns = two();
    let old = ["one 1", "one 2"].map(|text| take(turns.at("one"), text));
    take(turns.at("other"), "other 1");
    turns.place.ok(&["forget", "--as-one"]);
    // A copy for a second container has the file.
    let copied = turns.place.path("copied");
    copy(&turns.place.data, &copied);
    fs::rename(&turns.place.data, turns.place.path("its")).expect("moved away");
    fs::rename(&copied, &turns.place.data).expect("moved there");
    take(&turns.place, "copied 1");
    turns.place.ok(&["forget", "--keep-last", "1"]);
    assert!(old.iter().all(|id| ids(&turns.place).contains(id)));
    fs::rename(&turns.place.data, &copied).expect("moved away");
    fs::rename(turns.place.path("its"), &turns.place.data).expect("moved back");
    // It was not what this one was: it goes on.
    let later = take(turns.at("one"), "one 3");
    let run = turns.at("other").ok(&["forget", "--keep-last", "1"]);
    assert!(run.err.contains(SAYS), "{run:?}");
    assert!(old.iter().chain([&later]).all(|id| ids(&turns.place).contains(id)));
}

/// One had nothing to change for days, and takes its snapshots all the same; the other began beside it.
#[test]
fn one_that_is_idle_is_not_silent() {
    let mut turns = two();
    let mut clock = Clock::new();
    clock.back(5 * DAY);
    fs::write(turns.at("one").data.join("notes"), "one 1").expect("written");
    let first = id(&at_time(&turns.place, &clock, &["snapshot", "--json"]), "snapshot").expect("an id");
    clock.forward(3 * DAY);
    let idle = |turns: &mut Turns, clock: &Clock| at_time(turns.at("one"), clock, &["snapshot"]);
    assert!(idle(&mut turns, &clock).out.contains("nothing changed"));
    fs::write(turns.at("other").data.join("notes"), "other 1").expect("written");
    assert_eq!(at_time(&turns.place, &clock, &["snapshot"]).code, 0);
    // It was there before; now that is on record, once.
    assert!(idle(&mut turns, &clock).out.contains("0 changed"));
    assert!(idle(&mut turns, &clock).out.contains("nothing changed"));
    clock.forward(9 * DAY);
    assert_eq!(at_time(turns.at("other"), &clock, &["forget", "--keep-last", "1"]).code, 0);
    assert!(ids(&turns.place).contains(&first));
}

/// What the first snapshot under a name advises, typed as it stands, goes over what this directory took.
#[test]
fn what_it_was_known_as_before_is_what_it_took_itself() {
    let mut turns = two();
    let its = ["other 1", "other 2", "other 3"].map(|text| take(turns.at("other"), text));
    let own = ["one 1", "one 2"].map(|text| take(turns.at("one"), text));
    let path = turns.place.data.canonicalize().expect("a path").to_str().expect("text").to_owned();
    let named = |place: &Place, args: &[&str]| {
        let mut command = place.command(args);
        command.env("NBAK_NAME", "web-1");
        Run::of(command)
    };
    fs::write(turns.place.data.join("notes"), "one 3").expect("written");
    let run = named(&turns.place, &["snapshot"]);
    let advice = format!("`nbak forget --of {path} --keep-last 1`");
    assert!(run.code == 0 && run.err.contains(&advice), "{run:?}");
    let run = named(&turns.place, &["forget", "--of", &path, "--keep-last", "1"]);
    assert!(run.code == 0 && run.out.contains("1 snapshot forgotten"), "{run:?}");
    let left = ids(&turns.place);
    assert!(its.iter().chain([&own[1]]).all(|id| left.contains(id)) && left.len() == 5, "{left:?}");
    // Who is none of several has to say that all are meant.
    fs::rename(&turns.place.data, turns.place.path("one")).expect("moved away");
    fs::create_dir(&turns.place.data).expect("made");
    let third = named(&turns.place, &["forget", "--of", &path, "--keep-last", "1"]);
    refused(&third, 2, &["was taken of this data directory", "--as-one", "nothing was forgotten"]);
    assert_eq!(ids(&turns.place), left);
    assert_eq!(named(&turns.place, &["forget", "--of", &path, "--keep-last", "1", "--as-one"]).code, 0);
    assert_eq!(ids(&turns.place).len(), 3, "who goes on under a name keeps what it took before that");
    let with = ["forget", "--of", &path, "--keep-last", "1", "--as-one-with", &own[1]];
    assert_eq!(named(&turns.place, &with).code, 0);
    assert_eq!(ids(&turns.place).len(), 3);
}

/// The other's name is taken in for once, and is not this one's for it.
#[test]
fn what_is_taken_in_gives_no_name() {
    let mut turns = Turns::new(&|name| if name == "other" { json!({"name": "web-2"}) } else { json!({}) });
    take(turns.at("one"), "one 1");
    for text in ["other 1", "other 2"] {
        take(turns.at("other"), text);
    }
    let data = turns.at("one").data.clone();
    let source = format!("web-2:{}", data.canonicalize().expect("a path").display());
    let run = turns.place.ok(&["forget", "--of", &source, "--keep-last", "1", "--as-one"]);
    assert!(run.out.contains("1 snapshot forgotten"), "{run:?}");
    take(&turns.place, "one 2");
    let all = json_lines(&turns.place.ok(&["snapshots", "--json"]));
    let newest = all.last().expect("one")["source"].as_str().expect("a path").to_owned();
    assert!(!newest.starts_with("web-2"), "{newest}");
    assert_eq!(turns.place.ok(&["cat", "latest", "notes"]).out, "one 2");
}

/// A machine that was set back, a lost memory, a moved store, another mount of it: the directory is the same.
#[test]
fn what_is_remembered_or_where_the_store_lies_does_not_matter() {
    let mut turns = two();
    let all = in_turn(&mut turns);
    let moved = turns.place.path("moved");
    copy(&turns.place.repo, &moved);
    let _ = fs::remove_dir_all(turns.at("one").data.join(".nbak-state"));
    let mut command = turns.place.command(&["forget", "--keep-last", "1"]);
    command.env("NBAK_REPO", &moved);
    let run = Run::of(command);
    assert!(run.code == 0 && run.out.contains("1 snapshot forgotten"), "{run:?}");
    for args in [&["repair"][..], &["forget", "--keep-last", "1"]] {
        turns.at("one").ok(args);
    }
    assert_eq!(ids(&turns.place), all[1..]);
}

/// What another has is not one's own for being equal: it goes by that one's policy.
#[test]
fn what_is_equal_to_anothers_is_ones_own_too() {
    let mut turns = two();
    for who in ["one", "other", "one", "other"] {
        fs::write(turns.at(who).data.join("notes"), "the same").expect("written");
        let config = turns.place.data.join("config.json");
        let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + DAY);
        for path in [config, turns.place.data.join("notes")] {
            fs::File::options().write(true).open(path).expect("opened").set_times(times).expect("set");
        }
        fs::File::open(&turns.place.data).expect("opened").set_times(times).expect("set");
        turns.place.ok(&["snapshot"]);
    }
    let there = ids(&turns.place);
    assert!(there.len() >= 2, "{there:?}");
    turns.at("one").ok(&["forget", &there[1]]);
    assert_eq!(turns.place.ok(&["cat", "latest", "notes"]).out, "the same");
    assert!(turns.place.ok(&["snapshot"]).out.contains("nothing changed"), "it has its own");
}

/// One that lives beside it, and takes snapshots, is not said to be this one with the rest: that takes one of its
/// snapshots.
#[test]
fn a_person_says_which_it_was() {
    let mut turns = two();
    let all = in_turn(&mut turns);
    let place = turns.at("one");
    refused(&place.run(&["forget", "latest"]), 2, &[SAYS, "by its id"]);
    let run = place.ok(&["forget", "--as-one"]);
    assert!(
        run.out.contains("nothing is known") && run.err.contains(SAYS) && run.err.contains("--as-one-with"),
        "{run:?}"
    );
    place.ok(&["forget", "--keep-last", "2", "--as-one"]);
    assert_eq!(ids(place), all);
    assert!(place.run(&["doctor"]).out.contains(SAYS));
    // It was this one all the same.
    place.ok(&["forget", "--as-one-with", &all[1]]);
    assert!(!place.run(&["doctor"]).out.contains(SAYS) && !is_told(place, "one 3"));
    place.ok(&["forget", "--keep-last", "1"]);
    assert_eq!(ids(place).len(), 1);
    // To accept a store as it is says nothing of whose it is. It goes on, and so it was not; nor is it when what showed
    // that is forgotten.
    let its = [take(turns.at("other"), "other 3"), take(&turns.place, "other 4")];
    turns.at("one").ok(&["repair", "index"]);
    assert!(turns.place.run(&["doctor"]).out.contains(SAYS) && is_told(&turns.place, "one 4"));
    turns.place.ok(&["forget", &its[1]]);
    turns.place.ok(&["forget", "--keep-last", "1"]);
    assert!(ids(&turns.place).contains(&its[0]));
}

/// One of two that lived beside each other was moved: which one a person says, and the other stays another.
#[test]
fn who_says_which_of_two_it_was_leaves_the_other_alone() {
    let mut turns = two();
    let all = in_turn(&mut turns);
    let moved = turns.place.path("moved");
    copy(&turns.at("one").data, &moved);
    fs::rename(&turns.place.data, turns.place.path("gone")).expect("moved away");
    fs::rename(&moved, &turns.place.data).expect("moved there");
    let place = &turns.place;
    refused(&place.run(&["forget", "--as-one"]), 2, &["lived beside each other", "--as-one-with"]);
    refused(&place.run(&["forget", "--as-one-with", "latest"]), 2, &["by its id", "nothing was noted"]);
    place.ok(&["forget", "--as-one-with", &all[2]]);
    refused(&place.run(&["restore", "latest", "--in-place", "--yes"]), 2, &[SAYS, "by its id"]);
    take(place, "one 3");
    let run = place.ok(&["forget", "--as-one"]);
    assert!(run.out.contains("nothing is known") && run.err.contains(SAYS), "{run:?}");
    place.ok(&["forget", "--keep-last", "1"]);
    let left = ids(place);
    assert!(left.len() == 3 && left.contains(&all[1]) && left.contains(&all[3]), "{left:?}");
}

/// The numbers of a store that was put back are given once more: what was said of them does not count.
#[test]
fn what_a_person_said_ends_when_the_store_is_put_back() {
    let mut turns = two();
    take(turns.at("one"), "one 1");
    let earlier = turns.place.path("earlier");
    copy(&turns.place.repo, &earlier);
    let _ = [take(&turns.place, "one 2"), take(&turns.place, "one 3")];
    take(turns.at("other"), "other 1");
    turns.place.ok(&["forget", "--as-one"]);
    fs::remove_dir_all(&turns.place.repo).expect("removed");
    fs::rename(&earlier, &turns.place.repo).expect("put back");
    let its = [take(turns.at("one"), "one 2 again"), take(&turns.place, "one 3 again")];
    for args in [&["forget", "--keep-last", "1"][..], &["repair", "index"], &["forget", "--keep-last", "1"]] {
        let _ = turns.at("other").run(args);
        assert!(its.iter().all(|id| ids(&turns.place).contains(id)), "{args:?}");
    }
}

/// All of one's own is forgotten: what is left is another's all the same, whatever is asked by a name.
#[test]
fn without_any_of_its_own_it_takes_nothing_of_anothers() {
    let mut turns = two();
    let all = in_turn(&mut turns);
    turns.at("other").ok(&["snapshot", "--tag", "gold"]);
    for id in [&all[0], &all[2]] {
        turns.at("one").ok(&["forget", id]);
    }
    fs::write(turns.place.data.join("notes"), "mine").expect("written");
    for args in [&["restore", "latest", "--in-place", "--yes"][..], &["unpin", "gold"], &["pin", "latest"]] {
        refused(&turns.place.run(args), 2, &["by its id"]);
    }
    assert_eq!(notes(&turns.place), "mine");
    let path = turns.place.data.canonicalize().expect("a path").to_str().expect("text").to_owned();
    let mut command = turns.place.command(&["forget", "--of", &path, "--keep-last", "1"]);
    command.env("NBAK_NAME", "web-1");
    refused(&Run::of(command), 2, &["was taken of this data directory", "nothing was forgotten"]);
    assert_eq!(ids(&turns.place).len(), 3);
}

/// Makes the backups in `folder` such as the application makes.
fn as_the_application(folder: &Path) {
    for backup in fs::read_dir(folder).expect("read").flatten() {
        let path = backup.path().join("manifest.json");
        let Ok(bytes) = fs::read(&path) else { continue };
        let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        manifest.as_object_mut().expect("an object").remove("nbak");
        for entry in manifest["files"].as_array_mut().expect("a list") {
            let entry = entry.as_object_mut().expect("an object");
            entry.retain(|name, _| !["mode", "mtime_ms"].contains(&name.as_str()));
        }
        fs::write(path, serde_json::to_vec_pretty(&manifest).expect("JSON")).expect("written");
    }
}

/// A new machine, with a new store, finds the backups that the application made on the one that is gone: what is older
/// than the data directory is not of this one, until a person says so.
#[test]
fn what_was_there_before_the_directory_is_not_pruned() {
    let mut turns = two();
    let backups = turns.place.path("backups");
    let with = |place: &Place, args: &[&str]| {
        let mut command = place.command(args);
        command.env("NBAK_BACKUP_DIR", &backups).env("NBAK_REPO", place.path("new store"));
        let run = Run::of(command);
        assert_eq!(run.code, 0, "{run:?}");
        run
    };
    let mut clock = Clock::new();
    clock.back(60 * DAY);
    let mut command = turns.at("one").command(&["backup", "--json"]);
    command.env("NBAK_BACKUP_DIR", &backups);
    clock.give(&mut command);
    let old = PathBuf::from(id(&Run::of(command), "path").expect("a path"));
    as_the_application(&backups);
    with(turns.at("other"), &["backup"]);
    let run = with(&turns.place, &["backup", "prune", "--days", "30"]);
    assert!(old.exists() && run.err.contains("1 backup stays"), "{run:?}");
    with(&turns.place, &["backup", "prune", "--days", "30", "--as-one"]);
    assert!(!old.exists());
}

/// The application's own backups say a path alone: they may be of any directory that the store knows.
#[test]
fn a_backup_that_does_not_say_whose_it_is_stays_where_there_are_two() {
    let mut turns = two();
    let mut clock = Clock::new();
    clock.back(60 * DAY);
    let old = made(turns.at("one"), &clock, "one 1");
    clock.forward(30 * DAY);
    made(&turns.place, &clock, "one 2");
    as_the_application(old.parent().expect("a folder"));
    take(turns.at("other"), "other 1");
    let run = turns.place.ok(&["backup", "prune", "--days", "40"]);
    assert!(old.exists() && run.err.contains("1 backup stays"), "{run:?}");
    turns.place.ok(&["forget", "--as-one"]);
    // Nor where the other has a name.
    let mut command = turns.place.command(&["snapshot"]);
    command.env("NBAK_NAME", "web-1");
    assert_eq!(Run::of(command).code, 0);
    let _ = fs::remove_dir_all(turns.place.data.join(".nbak-state"));
    turns.place.ok(&["forget", "--as-one"]);
    // Whoever says what this one was before knows nothing of that.
    for more in [&[][..], &["--as-one"]] {
        let run = turns.place.ok(&[&["backup", "prune", "--days", "40"], more].concat());
        assert!(old.exists() && run.err.contains("1 backup stays"), "{run:?}");
    }
}

/// The store is away: which of the two made a backup is in its manifest.
#[test]
fn a_restore_without_a_name_asks_the_manifests_too() {
    let mut turns = two();
    turns.at("one").ok(&["backup"]);
    std::thread::sleep(Duration::from_millis(1100));
    turns.at("other").ok(&["backup"]);
    fs::write(turns.at("one").data.join("notes"), "mine").expect("written");
    let mut command = turns.place.command(&["backup", "restore", "--yes", "--without-safety-backup"]);
    command.env("NBAK_REPO", turns.place.path("away"));
    refused(&Run::of(command), 2, &["was made of another directory of the same path", "nothing was changed"]);
    assert_eq!(notes(&turns.place), "mine");
}

/// The name of another, or its path: what is there under that was never this one's.
#[test]
fn one_that_takes_anothers_name_or_path_takes_nothing_over() {
    let mut turns = Turns::new(&|name| json!({"name": name}));
    take(turns.at("one"), "one 1");
    let its = take(turns.at("other"), "other 1");
    let mut clock = Clock::new();
    clock.forward(9 * DAY);
    let as_other = |place: &Place, args: &[&str]| {
        let mut command = place.command(args);
        clock.give(&mut command);
        command.env("NBAK_NAME", "other");
        Run::of(command)
    };
    fs::write(turns.at("one").data.join("notes"), "one 2").expect("written");
    assert_eq!(as_other(&turns.place, &["snapshot"]).code, 0);
    let run = as_other(&turns.place, &["forget", "--keep-last", "1"]);
    assert!(run.code == 0 && run.err.contains(LEAVES), "{run:?}");
    assert!(ids(&turns.place).contains(&its));
    // Two that exchange their paths, without names.
    let place = Place { key: Some(KEY), ..Place::empty() };
    let second = place.path("second");
    fs::create_dir(&second).expect("made");
    let at = |data: &Path, args: &[&str]| {
        let mut command = place.command(args);
        clock.give(command.env("NBAK_DATA_DIR", data));
        Run::of(command)
    };
    for data in [&place.data, &second] {
        fs::write(data.join("notes"), data.to_str().expect("text")).expect("written");
        assert_eq!(at(data, &["snapshot"]).code, 0);
    }
    for (from, to) in [(&place.data, "x"), (&second, "data"), (&place.path("x"), "second")] {
        fs::rename(from, place.path(to)).expect("moved");
    }
    for data in [&place.data, &second] {
        fs::write(data.join("notes"), "exchanged").expect("written");
        assert_eq!(at(data, &["snapshot"]).code, 0);
        assert_eq!(at(data, &["forget", "--keep-last", "1"]).code, 0);
    }
    assert_eq!(ids(&place).len(), 4, "none was forgotten");
}

/// A name that cannot be understood may be the one of another.
#[test]
fn nothing_is_restored_in_place_for_a_mistyped_name() {
    let mut turns = two();
    take(turns.at("one"), "one 1");
    fs::write(turns.at("other").data.join("notes"), "other").expect("written");
    let mut command = turns.place.command(&["restore", "latest", "--in-place", "--yes"]);
    command.env("NBAK_NAME", "web 1");
    refused(&Run::of(command), 1, &["cannot be understood", "nothing was changed"]);
    assert_eq!(notes(&turns.place), "other");
}

/// Which of the two lies here may be a mistake, such as a disk that is not mounted: what changes something takes an id.
#[test]
fn what_is_restored_in_place_is_named_by_its_id() {
    let mut turns = two();
    let all = in_turn(&mut turns);
    turns.at("other").ok(&["backup"]);
    fs::write(turns.at("one").data.join("notes"), "spoilt").expect("written");
    for args in [&["restore", "latest", "--in-place", "--yes"][..], &["backup", "restore", "--yes"]] {
        refused(&turns.place.run(args), 2, &[SAYS, "name the one that is meant", "nothing was changed"]);
    }
    assert_eq!(notes(&turns.place), "spoilt");
    let looked = turns.place.ok(&["cat", "latest", "notes"]);
    assert!(looked.out == "one 2" && looked.err.contains(SAYS), "one's own, to who only looks: {looked:?}");
    turns.place.ok(&["restore", &all[2], "--in-place", "--yes"]);
    assert_eq!(notes(&turns.place), "one 2");
    // A backup says of which of the two it is.
    std::thread::sleep(Duration::from_millis(1100));
    turns.place.ok(&["backup"]);
    fs::write(turns.place.data.join("notes"), "spoilt").expect("written");
    turns.place.ok(&["backup", "restore", "--yes"]);
    assert_eq!(notes(&turns.place), "one 2");
}

#[test]
fn a_daemon_tells_of_it_and_forgets_its_own_alone() {
    let mut turns = two();
    let mut clock = Clock::new();
    clock.back(100 * DAY);
    let own = ["one 1", "one 2", "one 3"].map(|text| {
        fs::write(turns.at("one").data.join("notes"), text).expect("written");
        id(&at_time(&turns.place, &clock, &["snapshot", "--json"]), "snapshot").expect("an id")
    });
    let its = take(turns.at("other"), "other 1");
    fs::write(turns.at("one").data.join("notes"), "one 4").expect("written");
    let told = turns.place.path("told");
    let line = format!("echo $NBAK_EVENT >> {0}; cat >> {0}.json", told.display());
    let mut command = daemon(&turns.place);
    command.env("NBAK_NOTIFY", json!([{"kind": "command", "command": line}]).to_string());
    command.env("NBAK_KEEP_HOURLY", "0");
    make_due(&turns.place.data, &["backup"]);
    let life = Life::start(command);
    until(LONG, "it is told", || text(&told).contains("config_mistaken"));
    life.says("gc: done");
    life.end();
    assert!(text(&told.with_extension("json")).contains(SAYS));
    // The oldest of its own stays, and the newest of each day.
    let there = ids(&turns.place);
    assert!(there.len() == 4 && there.contains(&its) && !there.contains(&own[1]), "{there:?}");
}

/// Makes a backup of something new, at the time of `clock`.
fn made(place: &Place, clock: &Clock, text: &str) -> PathBuf {
    fs::write(place.data.join("notes"), text).expect("written");
    PathBuf::from(id(&at_time(place, clock, &["backup", "--json"]), "path").expect("a path"))
}

/// A backup says which directory it is of, whatever the store says, or if it does not open.
#[test]
fn no_backup_is_pruned_that_is_anothers() {
    let mut turns = two();
    let mut clock = Clock::new();
    clock.back(60 * DAY);
    let old = made(turns.at("one"), &clock, "one 1");
    clock.forward(60 * DAY);
    made(turns.at("one"), &clock, "one 2");
    // It may have been moved here, or be another.
    let run = turns.at("other").ok(&["backup", "prune", "--days", "30", "--dry-run"]);
    assert!(run.out.contains("or of what this one was before") && run.err.contains("--as-one"), "{run:?}");
    let run = turns.place.ok(&["backup", "prune", "--days", "30"]);
    assert!(run.err.contains("1 backup stays") && old.exists(), "{run:?}");
    take(&turns.place, "other 1");
    assert!(is_told(turns.at("one"), "one 3"));
    let run = turns.at("other").ok(&["backup", "verify"]);
    assert!(run.err.contains("may be its"), "{run:?}");
    // It lives beside this one: who says that it was this one names it, and then it goes.
    let run = turns.place.ok(&["backup", "prune", "--days", "30", "--as-one"]);
    assert!(old.exists() && run.err.contains("lives or lived beside"), "{run:?}");
    assert!(turns.place.run(&["doctor"]).out.contains(SAYS));
    let newest = ids(&turns.place).pop().expect("one");
    turns.place.ok(&["forget", "--as-one-with", &newest]);
    turns.place.ok(&["backup", "prune", "--days", "30"]);
    assert!(!old.exists());
    // Its own goes, also where the store is away.
    clock.back(60 * DAY);
    let own = made(turns.at("one"), &clock, "one 4");
    let mut away = turns.place.command(&["backup", "prune", "--days", "30"]);
    away.env("NBAK_REPO", turns.place.path("away"));
    let run = Run::of(away);
    assert!(run.code == 0 && !own.exists(), "{run:?}");
}

/// The folders of the backups there, the oldest first.
fn uploaded(cloud: &Cloud) -> Vec<StoredFile> {
    let mut all = cloud.fake.children(&cloud.fake.at("nodyn-backups").expect("a folder").id);
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

#[test]
fn nor_in_google_drive() {
    let cloud = Cloud::new();
    cloud.grant();
    cloud.ok(&["backup"]);
    std::thread::sleep(Duration::from_millis(1100));
    cloud.ok(&["backup"]);
    cloud.age(&uploaded(&cloud)[0].id);
    let (own, aside) = (cloud.place.data.clone(), cloud.place.path("aside"));
    fs::rename(&own, &aside).expect("moved away");
    fs::create_dir(&own).expect("made");
    cloud.grant();
    take(&cloud.place, "another's");
    let run = cloud.ok(&["backup", "gdrive", "prune"]);
    assert!(run.err.contains("1 backup stays") && run.out == "no backup is to be removed\n", "{run:?}");
    assert_eq!(uploaded(&cloud).len(), 2);
    // Whose it is may prune it, also where the store is away.
    fs::rename(&own, cloud.place.path("its")).expect("moved away");
    fs::rename(&aside, &own).expect("moved back");
    fs::rename(&cloud.place.repo, cloud.place.path("away")).expect("moved away");
    assert!(cloud.ok(&["backup", "gdrive", "prune"]).out.contains("removed"));
    assert_eq!(uploaded(&cloud).len(), 1);
    // And another of which a person says that it was this one before.
    fs::rename(&own, &aside).expect("moved away");
    fs::rename(cloud.place.path("its"), &own).expect("moved back");
    fs::rename(cloud.place.path("away"), &cloud.place.repo).expect("moved back");
    cloud.age(&uploaded(&cloud)[0].id);
    std::thread::sleep(Duration::from_millis(1100));
    cloud.ok(&["backup"]);
    cloud.ok(&["backup", "gdrive", "prune"]);
    assert_eq!(uploaded(&cloud).len(), 2);
    cloud.ok(&["backup", "gdrive", "prune", "--as-one"]);
    assert_eq!(uploaded(&cloud).len(), 1);
}

/// A clone of this machine under another name has the very same directory, and what it made is its own. What the
/// application put there, and is older than the directory, may be of another machine.
#[test]
fn in_google_drive_nothing_goes_that_a_machine_of_another_name_made() {
    let cloud = Cloud::new();
    let made = id(&cloud.ok(&["backup", "--json"]), "name").expect("a name");
    as_the_application(&cloud.place.data.join("backups"));
    cloud.grant();
    cloud.ok(&["backup", "gdrive", "upload", &made]);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(1100));
        cloud.ok(&["backup"]);
    }
    let all = uploaded(&cloud);
    for (folder, machine) in all.iter().zip([None, Some("earlier"), Some("earlier")]) {
        cloud.age(&folder.id);
        cloud.fake.change(&folder.id, |folder| {
            folder.app_properties.remove("nbak_machine");
            let machine = machine.map(|name| ("nbak_machine".to_owned(), name.to_owned()));
            folder.app_properties.extend(machine);
        });
    }
    let run = cloud.ok(&["backup", "gdrive", "prune"]);
    assert!(run.err.contains("1 backup stays"), "{run:?}");
    assert_eq!(uploaded(&cloud).len(), all.len(), "{run:?}");
}

/// Two containers of the same path and of no name, each with a store of its own, and one account.
#[test]
fn a_restore_from_drive_without_a_name_is_of_this_directory() {
    let cloud = Cloud::new();
    let (own, path) = (cloud.place.data.clone(), |name: &str| cloud.place.path(name));
    let become_another = |aside: &str| {
        fs::rename(&own, path(aside)).expect("moved away");
        fs::rename(&cloud.place.repo, path(&format!("{aside}-store"))).expect("moved away");
        fs::create_dir(&own).expect("made");
        cloud.grant();
    };
    let backup = |text: &str| {
        fs::write(own.join("notes"), text).expect("written");
        std::thread::sleep(Duration::from_millis(1100));
        cloud.ok(&["backup"]);
    };
    cloud.grant();
    backup("one");
    become_another("first");
    backup("other");
    become_another("second");
    // One that is neither: a person has to say which.
    for args in [&["backup", "gdrive", "verify"][..], &["backup", "gdrive", "restore", "--yes"]] {
        refused(&cloud.run(args), 2, &["of several data directories", "by its id"]);
    }
    fs::rename(&own, path("third")).expect("moved away");
    fs::rename(path("first"), &own).expect("moved back");
    fs::rename(path("first-store"), &cloud.place.repo).expect("moved back");
    fs::write(own.join("notes"), "lost").expect("written");
    cloud.ok(&["backup", "gdrive", "restore", "--yes"]);
    assert_eq!(fs::read_to_string(own.join("notes")).expect("read"), "one");
}

/// A copy of a directory has seen more of the store than there is: what is said then would not count.
#[test]
fn nothing_is_said_of_a_store_that_was_put_back() {
    let mut turns = two();
    take(turns.at("one"), "one 1");
    let earlier = turns.place.path("earlier");
    copy(&turns.place.repo, &earlier);
    let state = turns.at("other").data.join(".nbak-state");
    let _ = [take(&turns.place, "other 1"), take(&turns.place, "other 2")];
    fs::create_dir_all(&state).expect("made");
    fs::write(state.join("seen.json"), "").expect("written");
    take(&turns.place, "other 3");
    fs::remove_dir_all(&turns.place.repo).expect("removed");
    fs::rename(&earlier, &turns.place.repo).expect("put back");
    refused(&turns.place.run(&["forget", "--as-one"]), 2, &["repair index", "say this once more"]);
    turns.place.ok(&["repair", "index"]);
    take(&turns.place, "other 4");
    turns.place.ok(&["forget", "--as-one"]);
    turns.place.ok(&["forget", "--keep-last", "1"]);
    assert_eq!(ids(&turns.place).len(), 1);
}

/// Two disks that take turns at one place: what was said of the store on one of them counts when that is back.
#[test]
fn what_a_person_said_counts_for_each_of_two_disks() {
    let mut turns = two();
    let (repo, disks) = (turns.place.repo.clone(), ["a", "b"].map(|disk| turns.place.path(disk)));
    for disk in &disks {
        take(turns.at("one"), &format!("of {}", disk.display()));
        take(&turns.place, &format!("more of {}", disk.display()));
        fs::rename(&repo, disk).expect("moved away");
    }
    for (nth, disk) in [0, 1, 0, 1].into_iter().enumerate() {
        fs::rename(&disks[disk], &repo).expect("there");
        take(turns.at("other"), &format!("other {nth}"));
        if nth < 2 {
            turns.place.ok(&["repair", "index"]);
            turns.place.ok(&["forget", "--as-one"]);
        } else {
            let run = turns.place.ok(&["forget", "--keep-last", "1"]);
            assert!(!run.err.contains(LEAVES) && ids(&turns.place).len() == 1, "{nth}: {run:?}");
        }
        fs::rename(&repo, &disks[disk]).expect("moved away");
    }
}

/// Root says it of the directory of somebody else, who goes on by what was said.
#[test]
fn what_root_says_counts_for_the_owner() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut turns = two();
    take(turns.at("one"), "one 1");
    take(turns.at("other"), "other 1");
    std::os::unix::fs::chown(&turns.place.data, Some(65534), Some(65534)).expect("given away");
    turns.place.ok(&["forget", "--as-one"]);
    for name in [".nbak-state", ".nbak-state/seen.json"] {
        use std::os::unix::fs::MetadataExt as _;
        let meta = fs::metadata(turns.place.data.join(name)).expect("there");
        assert_eq!(meta.uid(), 65534, "{name}");
    }
}

/// A disk that was not mounted for one snapshot, and is back: nothing is amiss any more.
#[test]
fn packs_that_were_away_and_are_back_are_no_store_that_was_put_back() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    fs::create_dir_all(place.data.join(".nbak-state")).expect("made");
    fs::write(place.data.join(".nbak-state/seen.json"), "").expect("written");
    for text in ["1", "2", "3"] {
        take(&place, text);
    }
    let (packs, away) = (place.repo.join("packs"), place.path("away"));
    fs::rename(&packs, &away).expect("moved away");
    fs::create_dir(&packs).expect("made");
    fs::write(place.data.join("notes"), "4").expect("written");
    let run = place.run(&["snapshot"]);
    assert!(run.err.contains("not what this machine has seen"), "{run:?}");
    for pack in fs::read_dir(&away).expect("read") {
        let pack = pack.expect("an entry");
        fs::rename(pack.path(), packs.join(pack.file_name())).expect("moved back");
    }
    let checked = place.run(&["check", "--read-data"]);
    assert!(checked.code == 0 && !checked.err.contains("machine has seen"), "{checked:?}");
    assert!(!is_told(&place, "5"));
    let run = place.ok(&["snapshot", "--tag", "more"]);
    assert!(!run.err.contains("machine has seen"), "{run:?}");
}
