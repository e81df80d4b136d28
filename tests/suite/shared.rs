//! Several data directories that share a store and a folder of backups: what one does is about its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{KEY, Place, Run};
use crate::daemon_common::clock::Clock;
use crate::daemon_common::json_lines;
use serde_json::{Value, json};

/// Two places with one store, and one folder of backups.
fn two() -> (Place, Place) {
    let one = Place { key: Some(KEY), ..Place::empty() };
    let other = Place { key: Some(KEY), repo: one.repo.clone(), ..Place::empty() };
    for (place, what) in [(&one, "one"), (&other, "other")] {
        let config = json!({"backup_dir": one.path("shared")}).to_string();
        fs::write(place.data.join("config.json"), config).expect("written");
        fs::write(place.data.join("notes"), what).expect("written");
    }
    (one, other)
}

fn notes(place: &Place) -> String {
    fs::read_to_string(place.data.join("notes")).expect("read")
}

fn take(place: &Place, text: &str) -> String {
    fs::write(place.data.join("notes"), text).expect("written");
    json_lines(&place.ok(&["snapshot", "--json"]))[0]["snapshot"].as_str().expect("an id").to_owned()
}

fn backup(place: &Place) -> (String, PathBuf) {
    let said = json_lines(&place.ok(&["backup", "--json"])).remove(0);
    let text = |name: &str| said[name].as_str().expect("text").to_owned();
    (text("name"), text("path").into())
}

fn real(path: &Path) -> String {
    path.canonicalize().expect("a path").to_str().expect("text").to_owned()
}

fn ids(place: &Place) -> Vec<String> {
    let all = json_lines(&place.ok(&["snapshots", "--json"]));
    all.iter().map(|one| one["snapshot"].as_str().expect("an id").to_owned()).collect()
}

/// Refused, and every one of these words is said.
fn refused(run: &Run, words: &[&str]) {
    assert!(run.code == 2 && words.iter().all(|word| run.err.contains(word)), "{words:?}: {run:?}");
}

#[test]
fn the_newest_backup_is_ones_own() {
    let (one, other) = two();
    let (others, _) = backup(&other);
    // None is its own: none is taken for it.
    for args in [&["backup", "verify"][..], &["backup", "restore", "--yes"], &["backup", "gdrive", "upload"]] {
        refused(&one.run(args), &["give the name", &others, &real(&other.data), &real(&one.data)]);
    }
    assert_eq!((notes(&one).as_str(), ids(&one).len()), ("one", 1));
    // Its own is, also if another's is newer.
    let (own, _) = backup(&one);
    fs::write(other.data.join("notes"), "newer").expect("written");
    // Of one that cannot be read the name alone says its age, to the second.
    std::thread::sleep(Duration::from_millis(1100));
    let (newer, path) = backup(&other);
    assert_eq!(json_lines(&one.ok(&["backup", "verify", "--json"]))[0]["name"], own.as_str());
    assert_eq!(json_lines(&other.ok(&["backup", "verify", "--json"]))[0]["name"], newer.as_str());
    fs::write(one.data.join("notes"), "spoilt").expect("written");
    one.ok(&["backup", "restore", "--yes"]);
    assert_eq!(notes(&one), "one");
    // A name is a name.
    one.ok(&["backup", "restore", &newer, "--yes"]);
    assert_eq!(notes(&one), "newer");
    // Whose one is that cannot be read nobody can tell: it is not passed over.
    fs::write(path.join("manifest.json"), "{").expect("written");
    let run = other.run(&["backup", "verify"]);
    assert!(run.code == 13 && run.err.contains(&others), "{run:?}");
    // A directory is known by whatever path it is called.
    let link = one.path("link");
    std::os::unix::fs::symlink(&one.data, &link).expect("linked");
    let linked = Place { data: link, repo: one.repo.clone(), key: one.key, ..Place::empty() };
    fs::remove_dir_all(&path).expect("removed");
    assert_eq!(json_lines(&linked.ok(&["backup", "verify", "--json"]))[0]["name"], own.as_str());
}

#[test]
fn retention_is_about_ones_own_backups() {
    let (one, other) = two();
    let day = Duration::from_hours(24);
    let mut clock = Clock::new();
    let made = |place: &Place, clock: &Clock| {
        let mut command = place.command(&["backup", "--json"]);
        clock.give(&mut command);
        PathBuf::from(json_lines(&Run::of(command))[0]["path"].as_str().expect("a path"))
    };
    clock.back(60 * day);
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push((made(&one, &clock), made(&other, &clock)));
        clock.forward(20 * day);
    }
    let dry = one.ok(&["backup", "prune", "--days", "30", "--dry-run"]).out;
    assert_eq!(dry.matches(&format!("of another data directory, `{}`", real(&other.data))).count(), 3, "{dry}");
    one.ok(&["backup", "prune", "--days", "30"]);
    let there: Vec<(bool, bool)> = all.iter().map(|(one, other)| (one.exists(), other.exists())).collect();
    assert_eq!(there, [(false, true), (false, true), (true, true)]);
}

#[test]
fn nothing_of_anothers_is_changed_by_a_word_that_may_mean_it() {
    let (one, other) = two();
    let made: Vec<String> = (0..4).map(|nth| take(&other, &format!("state {nth}"))).collect();
    other.ok(&["snapshot", "--tag", "good"]);
    let made_then = ids(&other);
    let its = real(&other.data);
    for args in [
        &["forget", "--keep-last", "1"][..],
        &["forget", "--keep-last", "1", "--dry-run"],
        &["forget", "latest"],
        &["forget", "good"],
        &["pin", "latest"],
        &["unpin", "latest"],
        &["restore", "latest", "--in-place", "--yes"],
    ] {
        refused(&one.run(args), &["none of this data directory's snapshots", &its, "by its id", "--data-dir"]);
    }
    assert_eq!((ids(&other), notes(&one).as_str()), (made_then, "one"));
    // Who only looks may mean it: it may be this directory, which had another place.
    let target = one.path("target");
    let looks = [
        &["cat", "latest", "notes"][..],
        &["ls", "latest"],
        &["restore", "latest", "--target", target.to_str().expect("text")],
        &["diff", "latest", "latest"],
        &["drill"],
    ];
    for args in looks {
        let run = one.ok(args);
        assert!(run.err.contains("warning: none of this data directory's") && run.err.contains(&its), "{run:?}");
    }
    assert!(!other.ok(&["cat", "latest", "notes"]).err.contains("warning"));
    // An id says which is meant, on a new machine too.
    one.ok(&["pin", &made[0]]);
    one.ok(&["unpin", &made[0]]);
    one.ok(&["forget", &made[1]]);
    refused(&one.run(&["undelete", "latest"]), &["no forgotten snapshot", "by its id"]);
    one.ok(&["undelete", &made[1]]);
    one.ok(&["restore", &made[3], "--in-place", "--yes"]);
    assert_eq!(notes(&one), "state 3");
    // From then on it has its own.
    one.ok(&["forget", "--keep-last", "1"]);
    assert!(made.iter().all(|id| ids(&other).contains(id)), "{:?}", ids(&other));
}

#[test]
fn how_one_stands_says_nothing_of_another() {
    let (one, other) = two();
    backup(&other);
    other.ok(&["drill"]);
    let status = |place: &Place| -> Value { json_lines(&place.ok(&["status", "--json"])).remove(0) };
    let of = |value: &Value| ["newest_snapshot", "newest_proven", "newest_backup"].map(|name| value[name].is_null());
    let now = status(&one);
    assert_eq!((of(&now), &now["snapshots"], &now["backups"]), ([true; 3], &json!(0), &json!(0)), "{now}");
    assert_eq!(now["other_snapshots"], 1);
    assert_eq!((of(&status(&other)), &status(&other)["other_snapshots"]), ([false; 3], &json!(0)));
    let doctor = one.run(&["doctor"]);
    assert_eq!(doctor.code, 1, "{doctor:?}");
    let own = "no snapshot in the store is of this data directory";
    for words in [own, "backup        there is none", "no snapshot was restored", "0 snapshots, and 1 of other"] {
        assert!(doctor.out.contains(words), "{words}: {doctor:?}");
    }
    // Its own is the one that is told of, though another's is newer.
    let (own, _) = backup(&one);
    let id = ids(&one).pop().expect("one");
    fs::write(other.data.join("notes"), "newer").expect("written");
    backup(&other);
    other.ok(&["drill"]);
    let now = status(&one);
    assert_eq!((&now["newest_snapshot"]["snapshot"], &now["newest_backup"]["name"]), (&json!(id), &json!(own)));
    assert!(now["newest_proven"].is_null() && now["snapshots"] == 1 && now["other_snapshots"] == 2, "{now}");
}
