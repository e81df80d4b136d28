//! Two data directories of the same path without a name, in one store or one folder of backups: it is noticed, and
//! nothing is forgotten or pruned then. And what looks alike, and is one directory, is no alarm, or one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::{KEY, Place, Run, copy, noise};
use crate::daemon_common::clock::Clock;
use crate::daemon_common::{LONG, Life, daemon, json_lines, make_due, text, until};
use crate::drive_common::Cloud;
use crate::named::{Turns, id, ids, notes, refused, take};
use serde_json::{Value, json};

const FILE: &str = ".nbak-state/seen.json";
const SAYS: &str = "another data directory with the same path writes to this store";

/// Has the directory remember, as if a daemon had run there.
fn remembers(data: &std::path::Path) {
    fs::create_dir_all(data.join(".nbak-state")).expect("made");
    fs::write(data.join(FILE), "").expect("written");
}

fn two() -> Turns {
    let turns = Turns::new(&|_| json!({}));
    remembers(&turns.place.data);
    remembers(&turns.place.path("other"));
    turns
}

/// One that remembers, with a snapshot.
fn one() -> Place {
    let place = Place { key: Some(KEY), ..Place::empty() };
    remembers(&place.data);
    take(&place, "begin");
    place
}

/// Takes a snapshot of something new; its id, and whether it is an alarm.
fn taken(place: &Place, text: &str) -> (String, bool) {
    fs::write(place.data.join("notes"), text).expect("written");
    let run = place.ok(&["snapshot", "--json"]);
    (id(&run, "snapshot").expect("an id"), run.err.contains(SAYS))
}

fn is_alarm(place: &Place, text: &str) -> bool {
    taken(place, text).1
}

#[test]
fn two_that_take_turns_are_noticed_each_time() {
    let mut turns = two();
    assert!(!is_alarm(turns.at("one"), "one 1") && !is_alarm(turns.at("one"), "one 2"));
    let own = ids(&turns.place).pop().expect("one");
    // It remembers nothing: it may have been restored here.
    assert!(!is_alarm(turns.at("other"), "other 1"));
    assert!(!turns.place.run(&["doctor"]).out.contains(SAYS));
    let its = ids(&turns.place).pop().expect("one");
    fs::write(turns.at("one").data.join("notes"), "one 3").expect("written");
    let run = turns.place.ok(&["snapshot"]);
    for words in [SAYS, &own[..8], &its[..8], "nbak.name", "NBAK_NAME", "its own store and folder", "--as-one"] {
        assert!(run.err.contains(words), "{words}: {run:?}");
    }
    assert!(is_alarm(turns.at("other"), "other 2") && is_alarm(turns.at("one"), "one 4"));
    // It is bad, and said to who means the newest.
    let doctor = turns.place.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains(SAYS) && doctor.out.contains("nbak.name"), "{doctor:?}");
    let status = json_lines(&turns.place.ok(&["status", "--json"])).remove(0);
    assert!(status["same_path"].as_str().expect("said").contains(SAYS), "{status}");
    let run = turns.place.ok(&["cat", "latest", "notes"]);
    assert!(run.err.contains(SAYS) && run.err.contains("by its id"), "{run:?}");
    // Nothing is forgotten that may be the other's.
    let there = ids(&turns.place);
    for args in
        [&["forget", "--keep-last", "1"][..], &["forget", "--keep-last", "1", "--dry-run"], &["forget", "latest"]]
    {
        refused(&turns.place.run(args), 1, &[SAYS, "nothing was forgotten", "nbak.name"]);
    }
    assert_eq!(ids(&turns.place), there);
    let first = &there[0];
    assert!(!turns.place.ok(&["forget", first]).err.contains(SAYS), "an id says which");
    assert!(!turns.place.ok(&["cat", &there[1], "notes"]).err.contains(SAYS));
    // With a name that is over, for the one that has it.
    let named = |args: &[&str]| {
        let mut command = turns.place.command(args);
        command.env("NBAK_NAME", "web-1");
        Run::of(command)
    };
    for text in ["named 1", "named 2"] {
        fs::write(turns.place.data.join("notes"), text).expect("written");
        let run = named(&["snapshot"]);
        assert!(run.code == 0 && !run.err.contains(SAYS), "{run:?}");
    }
    assert!(!named(&["doctor"]).out.contains(SAYS));
    let run = named(&["forget", "--keep-last", "1"]);
    assert!(run.code == 0 && run.out.contains("1 snapshot forgotten"), "{run:?}");
    assert_eq!(ids(&turns.place).len(), there.len(), "one was forgotten by its id, and one of the name is new");
}

#[test]
fn what_came_since_is_noticed_before_anything_is_forgotten() {
    let mut turns = two();
    take(turns.at("one"), "one 1");
    take(turns.at("other"), "other 1");
    let there = ids(&turns.place);
    refused(&turns.at("one").run(&["forget", "--keep-last", "1"]), 1, &[SAYS]);
    assert_eq!(ids(&turns.place), there);
    assert!(turns.place.run(&["doctor"]).out.contains(SAYS), "and is noted");
}

/// What was taken after it follows it, so it is no other's.
#[test]
fn a_directory_that_was_set_back_is_no_alarm() {
    let place = one();
    copy(&place.data, &place.path("earlier"));
    for text in ["1", "2"] {
        assert!(!is_alarm(&place, text));
    }
    fs::remove_dir_all(&place.data).expect("removed");
    copy(&place.path("earlier"), &place.data);
    for text in ["3", "4", "5"] {
        assert!(!is_alarm(&place, text), "{text}");
    }
    place.ok(&["forget", "--keep-last", "1"]);
}

/// Two of one copy: the second does not know of the first, but what it takes does not follow that.
#[test]
fn a_copy_with_the_same_memory_is_noticed_when_the_two_take_turns() {
    let mut turns = Turns::new(&|_| json!({}));
    remembers(&turns.at("one").data);
    take(&turns.place, "begin");
    fs::remove_dir_all(turns.place.path("other")).expect("removed");
    copy(&turns.place.data, &turns.place.path("other"));
    assert!(!is_alarm(turns.at("one"), "one 1"));
    assert!(!is_alarm(turns.at("other"), "other 1"), "it may have been set back");
    assert!(is_alarm(turns.at("one"), "one 2") && is_alarm(turns.at("other"), "other 2"));
}

#[test]
fn a_person_says_that_it_is_over() {
    let mut turns = two();
    take(turns.at("one"), "one 1");
    take(turns.at("other"), "other 1");
    assert!(is_alarm(turns.at("one"), "one 2"));
    let place = &turns.place;
    refused(&place.run(&["forget", "--keep-last", "2"]), 1, &[SAYS, "--as-one"]);
    place.ok(&["forget", "--keep-last", "2", "--as-one", "--dry-run"]);
    refused(&place.run(&["forget", "--keep-last", "2"]), 1, &[SAYS]);
    place.ok(&["forget", "--keep-last", "2", "--as-one"]);
    assert_eq!(ids(place).len(), 2);
    assert!(!place.run(&["doctor"]).out.contains(SAYS) && !is_alarm(place, "one 3"));
    place.ok(&["forget", "--keep-last", "1"]);
    // Or by the word that accepts a store as it is.
    take(turns.at("other"), "other 2");
    assert!(is_alarm(turns.at("one"), "one 4"));
    turns.place.ok(&["repair", "index"]);
    assert!(!turns.place.run(&["doctor"]).out.contains(SAYS));
    turns.place.ok(&["forget", "--keep-last", "1"]);
}

/// The other store is its own: what is said of this one is not about it.
#[test]
fn one_store_is_not_blamed_for_another() {
    let mut turns = two();
    let second = turns.place.path("second");
    let of_second = |place: &Place, args: &[&str]| {
        let mut command = place.command(args);
        command.env("NBAK_REPO", &second);
        Run::of(command)
    };
    take(turns.at("one"), "one 1");
    assert_eq!(of_second(&turns.place, &["snapshot"]).code, 0);
    take(turns.at("other"), "other 1");
    assert!(is_alarm(turns.at("one"), "one 2"));
    let run = of_second(&turns.place, &["forget", "--keep-last", "9"]);
    assert_eq!(run.code, 0, "{run:?}");
    refused(&turns.place.run(&["forget", "--keep-last", "9"]), 1, &[SAYS]);
}

/// Cron starts both in the same second.
#[test]
fn two_stores_of_one_directory_at_once_are_no_alarm() {
    let place = one();
    let second = place.path("second");
    for round in 0..15 {
        fs::write(place.data.join("notes"), format!("{round}")).expect("written");
        let mut other = place.command(&["snapshot"]);
        other.env("NBAK_REPO", &second);
        let other = std::thread::spawn(move || Run::of(other));
        let own = place.run(&["snapshot"]);
        let other = other.join().expect("it ends");
        for run in [own, other] {
            assert!(run.code == 0 && !run.err.contains(SAYS) && !run.err.contains("remember"), "{round}: {run:?}");
        }
    }
    place.ok(&["forget", "--keep-last", "9"]);
}

/// Before a restore, and not by its safety snapshot.
#[test]
fn what_is_the_others_is_not_restored_in_place_for_the_latest() {
    let mut turns = two();
    take(turns.at("one"), "one 1");
    turns.place.ok(&["backup"]);
    take(turns.at("other"), "other 1");
    let before = ids(&turns.place);
    refused(&turns.at("one").run(&["restore", "latest", "--in-place", "--yes"]), 2, &[SAYS, "by its id"]);
    assert_eq!((ids(&turns.place), notes(&turns.place).as_str()), (before.clone(), "one 1"));
    turns.place.ok(&["restore", &before[0], "--in-place", "--yes"]);
    assert_eq!(notes(&turns.place), "one 1");
}

#[test]
fn a_directory_that_goes_on_is_no_alarm() {
    let place = one();
    // Restored where nothing is remembered.
    let (run, target) = place.restore("latest", "restored");
    assert_eq!(run.code, 0, "{run:?}");
    fs::remove_dir_all(&place.data).expect("removed");
    fs::rename(&target, &place.data).expect("moved there");
    assert!(!is_alarm(&place, "restored") && !is_alarm(&place, "and goes on"));
    remembers(&place.data);
    assert!(!is_alarm(&place, "remembers") && !is_alarm(&place, "again"));
    // Copied, with what it remembers.
    copy(&place.data, &place.path("copy"));
    fs::remove_dir_all(&place.data).expect("removed");
    fs::rename(place.path("copy"), &place.data).expect("moved there");
    assert!(!is_alarm(&place, "copied"));
    // What a restore takes before it.
    let first = ids(&place)[0].clone();
    place.ok(&["restore", &first, "--in-place", "--yes"]);
    assert!(!is_alarm(&place, "restored in place"));
    place.ok(&["backup"]);
    place.ok(&["backup", "restore", "--yes"]);
    assert!(!is_alarm(&place, "restored a backup"));
    // What is forgotten and comes back.
    let newest = ids(&place).pop().expect("one");
    place.ok(&["forget", &newest]);
    assert!(!is_alarm(&place, "the newest was forgotten"));
    place.ok(&["undelete", &newest]);
    assert!(!is_alarm(&place, "and is back"));
    // A store that lost a pack, is mended, and gets the pack back.
    fs::write(place.data.join("large"), noise(1, 3_000_000)).expect("written");
    let before: Vec<PathBuf> = place.packs();
    assert!(!is_alarm(&place, "large"));
    let new: Vec<PathBuf> = place.packs().into_iter().filter(|pack| !before.contains(pack)).collect();
    let away = |pack: &PathBuf| place.path("away").with_extension(pack.file_name().expect("a name"));
    for pack in &new {
        fs::rename(pack, away(pack)).expect("moved away");
    }
    let run = place.run(&["repair"]);
    assert!([0, 13].contains(&run.code), "{run:?}");
    assert!(!is_alarm(&place, "repaired"));
    for pack in &new {
        fs::rename(away(pack), pack).expect("moved back");
    }
    assert!(!is_alarm(&place, "the pack is back"));
    // Two are away, which is accepted, and come back: the chain is forked, and the other end has the higher number.
    let before: Vec<PathBuf> = place.packs();
    assert!(!is_alarm(&place, "first") && !is_alarm(&place, "second"));
    let new: Vec<PathBuf> = place.packs().into_iter().filter(|pack| !before.contains(pack)).collect();
    for pack in &new {
        fs::rename(pack, away(pack)).expect("moved away");
    }
    place.ok(&["repair", "index"]);
    assert!(!is_alarm(&place, "without them"));
    for pack in &new {
        fs::rename(away(pack), pack).expect("moved back");
    }
    assert!(!is_alarm(&place, "with them") && !is_alarm(&place, "and on"));
    assert!(!place.run(&["doctor"]).out.contains(SAYS));
    place.ok(&["forget", "--keep-last", "1"]);
}

/// Killed behind the commit, or on a full disk, or where it may not write: the memory stays what it was.
#[test]
fn a_memory_that_could_not_be_kept_is_no_alarm() {
    let place = one();
    let before = fs::read(place.data.join(FILE)).expect("read");
    for text in ["1", "2", "3"] {
        assert!(!is_alarm(&place, text), "{text}");
        fs::write(place.data.join(FILE), &before).expect("written");
    }
    place.ok(&["forget", "--keep-last", "2"]);
    assert!(!is_alarm(&place, "4") && !is_alarm(&place, "5"));
    assert!(!place.run(&["doctor"]).out.contains(SAYS));
}

/// Root's cron forgets, and the application's user takes the snapshots.
#[test]
fn what_root_does_leaves_the_memory_to_who_has_the_directory() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = one();
    let owner = |path: &str| fs::metadata(place.data.join(path)).expect("there").uid();
    for path in ["", ".nbak-state", FILE] {
        std::os::unix::fs::chown(place.data.join(path), Some(65534), Some(65534)).expect("given away");
    }
    take(&place, "1");
    assert_eq!(owner(FILE), 65534);
    fs::remove_dir_all(place.data.join(".nbak-state")).expect("removed");
    place.ok(&["forget", "--keep-last", "9"]);
    assert!(!place.data.join(FILE).exists(), "it would be root's");
}

#[test]
fn who_lets_a_policy_go_over_a_store_elsewhere_begins_to_remember() {
    let mut turns = Turns::new(&|_| json!({}));
    take(turns.at("one"), "one 1");
    assert!(!turns.place.data.join(".nbak-state").exists(), "a snapshot changes nothing there");
    turns.place.ok(&["forget", "--keep-last", "9", "--dry-run"]);
    assert!(!turns.place.data.join(".nbak-state").exists(), "nor does a dry run");
    turns.place.ok(&["forget", "--keep-last", "9"]);
    assert!(turns.place.data.join(FILE).exists());
    take(turns.at("other"), "other 1");
    assert!(is_alarm(turns.at("one"), "one 2"));
    // A store in the data directory is nobody else's.
    let place = Place { key: Some(KEY), ..Place::empty() };
    let own = Place { repo: place.data.join("backups/store"), ..place };
    take(&own, "1");
    own.ok(&["forget", "--keep-last", "9"]);
    assert!(!own.data.join(".nbak-state").exists());
}

#[test]
fn what_a_pull_brings_is_no_others() {
    let cloud = Cloud::new();
    cloud.grant();
    remembers(&cloud.place.data);
    let step = |cloud: &Cloud, text: &str| {
        take(&cloud.place, text);
        cloud.ok(&["gdrive", "push"]);
    };
    step(&cloud, "1");
    step(&cloud, "2");
    let mut other = cloud.on_a_new_machine();
    copy(&cloud.place.repo, &other.place.repo);
    copy(&cloud.place.data, &other.place.data);
    // The other machine, at the same path, goes on for a while.
    let (own, its, aside) = (cloud.place.data.clone(), other.place.data.clone(), cloud.place.path("aside"));
    other.place.data.clone_from(&own);
    fs::rename(&own, &aside).expect("moved away");
    fs::rename(&its, &own).expect("moved there");
    step(&other, "3");
    fs::rename(&own, &its).expect("moved away");
    fs::rename(&aside, &own).expect("moved back");
    cloud.ok(&["gdrive", "pull"]);
    assert_eq!(ids(&cloud.place).len(), 3);
    assert!(!is_alarm(&cloud.place, "4") && !is_alarm(&cloud.place, "5"));
    // Where one was noticed, nothing is removed there either.
    let mut seen: Value = serde_json::from_slice(&fs::read(own.join(FILE)).expect("read")).expect("JSON");
    for mark in seen.as_object_mut().expect("an object").values_mut() {
        mark["other"] = json!({"source": mark["known_as"], "own": "00112233", "its": "44556677"});
    }
    fs::write(own.join(FILE), seen.to_string()).expect("written");
    let refused_to = cloud.run(&["backup", "gdrive", "prune"]);
    refused(&refused_to, 1, &[SAYS, "no backup was removed"]);
}

#[test]
fn a_daemon_tells_of_it_and_forgets_nothing() {
    let mut turns = two();
    take(turns.at("one"), "one 1");
    take(turns.at("other"), "other 1");
    fs::write(turns.at("one").data.join("notes"), "one 2").expect("written");
    let told = turns.place.path("told");
    let line = format!("echo $NBAK_EVENT >> {0}; cat >> {0}.json", told.display());
    let mut command = daemon(&turns.place);
    command.env("NBAK_NOTIFY", json!([{"kind": "command", "command": line}]).to_string());
    command.env("NBAK_KEEP_WITHIN", "").env("NBAK_KEEP_LAST", "1").env("NBAK_KEEP_HOURLY", "0");
    make_due(&turns.place.data, &["backup"]);
    let life = Life::start(command);
    life.says("forget failed");
    until(LONG, "it is told", || text(&told).contains("config_mistaken"));
    life.end();
    assert!(text(&told.with_extension("json")).contains(SAYS));
    assert_eq!(ids(&turns.place).len(), 3, "nothing was forgotten");
}

/// Makes a backup of something new, at the time of `clock`.
fn made(place: &Place, clock: &Clock, text: &str) -> (PathBuf, String) {
    fs::write(place.data.join("notes"), text).expect("written");
    let mut command = place.command(&["backup", "--json"]);
    clock.give(&mut command);
    let run = Run::of(command);
    (PathBuf::from(id(&run, "path").expect("a path")), id(&run, "snapshot").expect("an id"))
}

#[test]
fn the_retention_of_backups_goes_by_the_alarm_too() {
    let mut turns = two();
    let day = Duration::from_hours(24);
    let mut clock = Clock::new();
    clock.back(60 * day);
    let (old, _) = made(turns.at("one"), &clock, "one 1");
    clock.forward(59 * day);
    made(turns.at("one"), &clock, "one 2");
    take(turns.at("other"), "other 1");
    assert!(is_alarm(turns.at("one"), "one 3"));
    refused(&turns.place.run(&["backup", "prune", "--days", "30"]), 1, &[SAYS, "no backup was removed"]);
    assert!(old.exists());
    let run = turns.place.ok(&["backup", "verify"]);
    assert!(run.err.contains("may be its"), "{run:?}");
    turns.place.ok(&["backup", "prune", "--days", "30", "--as-one"]);
    assert!(!old.exists());
    let seen: Value = serde_json::from_slice(&fs::read(turns.place.data.join(FILE)).expect("read")).expect("JSON");
    assert!(seen.to_string().contains("other"), "a prune forgets no alarm: {seen}");
}
