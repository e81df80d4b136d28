//! A store that was put back to an earlier state, or exchanged for another course of things, as a whole: nothing in it
//! can tell, and what the data directory remembers of it does (S10).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::common::{KEY, Place, copy, noise};
use crate::daemon_common::{Life, daemon, filled};
use serde_json::Value;

const FILE: &str = ".nbak-state/seen.json";
const SAYS: &str = "not what this machine has seen";

/// A data directory where the daemon was once.
fn place() -> Place {
    let place = Place { key: Some(KEY), ..Place::empty() };
    fs::create_dir(place.data.join(".nbak-state")).expect("made");
    fs::write(place.data.join(FILE), "").expect("written");
    place
}

fn snapshot(place: &Place, seed: u64) -> String {
    fs::write(place.data.join("file"), noise(seed, 5000)).expect("written");
    let run = place.ok(&["snapshot", "--json"]);
    let said: Value = serde_json::from_str(&run.out).expect("JSON");
    said["snapshot"].as_str().expect("an id").to_owned()
}

fn put_back(place: &Place, name: &str) {
    fs::remove_dir_all(&place.repo).expect("removed");
    copy(&place.path(name), &place.repo);
}

/// Whether every command that looks says it.
fn is_told(place: &Place) -> bool {
    let listed = place.ok(&["snapshots"]);
    let checked = place.run(&["check"]);
    let doctor = place.run(&["doctor"]);
    let status = place.run(&["status", "--json"]);
    let said = [listed.err.contains(SAYS), checked.out.contains(SAYS), doctor.out.contains(SAYS)];
    assert!(said.iter().all(|one| *one == said[0]), "{listed:?} {checked:?} {doctor:?}");
    assert_eq!(checked.code, if said[0] { 13 } else { 0 }, "{checked:?}");
    assert_eq!(status.out.contains(SAYS), said[0], "{status:?}");
    said[0]
}

#[test]
fn a_store_that_was_put_back_is_told_of_until_that_is_accepted() {
    let place = place();
    snapshot(&place, 1);
    snapshot(&place, 2);
    copy(&place.repo, &place.path("earlier"));
    let last = snapshot(&place, 3);
    assert!(!is_told(&place));
    // Keeping it changes nothing.
    let again: Value = serde_json::from_str(&place.ok(&["snapshot", "--json"]).out).expect("JSON");
    assert_eq!(again["unchanged"], true, "{again}");

    put_back(&place, "earlier");
    assert!(is_told(&place));
    // A backup goes on, and says it; that it has as many snapshots again, and more, does not hush it up.
    for seed in 4..7 {
        let run = place.ok(&["snapshot"]);
        assert!(run.err.contains(SAYS), "{run:?}");
        fs::write(place.data.join("file"), noise(seed, 5000)).expect("written");
    }
    assert!(is_told(&place));
    assert!(!place.ok(&["snapshots"]).out.contains(&last[..8]));

    place.ok(&["repair", "index"]);
    assert!(!is_told(&place));
    snapshot(&place, 8);
    assert!(!is_told(&place));
}

#[test]
fn a_store_that_took_another_course_is_told_of() {
    let place = place();
    snapshot(&place, 1);
    copy(&place.repo, &place.path("earlier"));
    snapshot(&place, 2);
    copy(&place.repo, &place.path("ours"));
    let seen = fs::read(place.data.join(FILE)).expect("it remembers");
    // The same number, and further, by somebody who remembers nothing.
    for further in [0, 1] {
        put_back(&place, "earlier");
        fs::remove_file(place.data.join(FILE)).expect("removed");
        for seed in 0..=further {
            snapshot(&place, 10 + seed);
        }
        fs::write(place.data.join(FILE), &seen).expect("written");
        let checked = place.run(&["check"]);
        assert!(checked.code == 13 && checked.out.contains(SAYS), "{further}: {checked:?}");
    }
    put_back(&place, "ours");
    assert!(!is_told(&place));
}

#[test]
fn the_daemon_begins_it() {
    let place = filled();
    let life = Life::start(daemon(&place));
    life.says("daemon of");
    let mode = fs::metadata(place.data.join(FILE)).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    life.end();
    place.ok(&["snapshot"]);
    assert!(fs::read_to_string(place.data.join(FILE)).expect("it remembers").contains("\"next\":"));
}

#[test]
fn what_was_forgotten_is_not_missed() {
    let place = place();
    snapshot(&place, 1);
    let second = snapshot(&place, 2);
    let third = snapshot(&place, 3);
    place.ok(&["forget", &third, &second]);
    assert!(!is_told(&place));
    place.ok(&["gc"]);
    assert!(!is_told(&place));
    snapshot(&place, 4);
    assert!(!is_told(&place));
}

#[test]
fn a_memory_that_is_none_harms_nothing() {
    let place = place();
    snapshot(&place, 1);
    let long = vec![0xff; 2_000_000];
    for bytes in [&b""[..], b"{", b"[]", b"{\"x\": 1}", &long] {
        fs::write(place.data.join(FILE), bytes).expect("written");
        assert!(!is_told(&place));
    }
    snapshot(&place, 2);
    let kept = fs::read_to_string(place.data.join(FILE)).expect("it remembers again");
    serde_json::from_str::<Value>(&kept).expect("JSON, and nothing behind it");
    // No link is followed.
    let elsewhere = place.path("elsewhere");
    fs::write(&elsewhere, "precious").expect("written");
    fs::remove_file(place.data.join(FILE)).expect("removed");
    std::os::unix::fs::symlink(&elsewhere, place.data.join(FILE)).expect("linked");
    snapshot(&place, 3);
    assert!(fs::symlink_metadata(place.data.join(FILE)).expect("there").is_file(), "it stands in the link's place");
    assert_eq!(fs::read(&elsewhere).expect("read"), b"precious");
}

#[test]
fn another_store_in_its_place_is_told_of_until_that_is_accepted() {
    let place = place();
    snapshot(&place, 1);
    copy(&place.repo, &place.path("ours"));
    // It was removed, or its disk is not there: the next snapshot makes a new one.
    fs::remove_dir_all(&place.repo).expect("removed");
    fs::write(place.data.join("file"), noise(2, 5000)).expect("written");
    let run = place.ok(&["snapshot"]);
    assert!(run.err.contains(SAYS), "{run:?}");
    copy(&place.repo, &place.path("theirs"));
    for seed in 3..5 {
        assert!(is_told(&place));
        snapshot(&place, seed);
    }
    // One that lies elsewhere is another matter.
    let elsewhere = place.path("second").to_string_lossy().into_owned();
    let run = place.ok(&["--repo", &elsewhere, "snapshot"]);
    assert!(!run.err.contains(SAYS), "{run:?}");
    put_back(&place, "ours");
    assert!(!is_told(&place));
    put_back(&place, "theirs");
    assert!(is_told(&place));
    place.ok(&["repair", "index"]);
    assert!(!is_told(&place));
    snapshot(&place, 6);
    assert!(!is_told(&place));
}
