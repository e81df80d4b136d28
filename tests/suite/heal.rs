//! What rotted in the store, and is still at hand in the data directory, is stored again by the next snapshot.

use std::fs;

use crate::common::{self, KEY, Place, noise};

/// Flips a byte in the middle of every pack: in its data, not in its footer.
fn rot(place: &Place) {
    for pack in place.packs() {
        let mut bytes = fs::read(&pack).expect("read");
        let at = bytes.len() / 3;
        bytes[at] ^= 1;
        fs::write(&pack, bytes).expect("written");
    }
}

fn place() -> Place {
    let place = Place::taken(Some(KEY));
    // Long enough ago that receipts are relied on.
    fs::write(place.data.join("more"), noise(5, 400_000)).expect("written");
    place.ok(&["snapshot"]);
    place
}

#[test]
fn a_snapshot_after_a_check_restores_whole_though_nothing_changed() {
    let place = place();
    assert!(place.ok(&["snapshot"]).out.contains("nothing changed"));
    rot(&place);
    let (run, _) = place.restore("latest", "before");
    assert_eq!(run.code, 13, "{run:?}");
    let check = place.run(&["check", "--read-data"]);
    assert!(check.code == 13 && check.out.contains("lost"), "{check:?}");

    let warned = place.run(&["snapshots"]);
    assert!(warned.err.contains("damaged"), "{warned:?}");
    assert_eq!(place.run(&["check"]).code, 13, "a check that reads less knows it too");
    let again = place.ok(&["snapshot"]);
    assert!(!again.out.contains("nothing changed"), "{again:?}");
    place.assert_restores("after");
    let quiet = place.ok(&["snapshot"]);
    assert!(quiet.out.contains("nothing changed") && !quiet.err.contains("damaged"), "once is enough: {quiet:?}");
    // Earlier snapshots have it back too, and it does not hang on what the index remembers.
    fs::remove_file(place.repo.join("index.redb")).expect("removed");
    let first = place.ok(&["snapshots"]).out.lines().next().expect("a line")[..8].to_owned();
    let (run, _) = place.restore(&first, "first");
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(place.ok(&["cat", "latest", "more"]).raw, noise(5, 400_000));
    let check = place.ok(&["check", "--read-data"]);
    assert!(check.out.contains("elsewhere too"), "the segments are named, and nothing is lost: {check:?}");
}

#[test]
fn a_copy_of_keys_and_packs_alone_is_mended_too() {
    let mut place = place();
    let copy = place.path("copy");
    for folder in ["keys", "packs"] {
        common::copy(&place.repo.join(folder), &copy.join(folder));
    }
    place.repo = copy;
    rot(&place);
    assert_eq!(place.run(&["check", "--read-data"]).code, 13);
    place.ok(&["snapshot"]);
    place.assert_restores("after");
}

/// Which snapshots are said to be proven, by the beginning of their ids.
fn proven(place: &Place) -> Vec<String> {
    let listed = place.ok(&["snapshots"]).out;
    listed.lines().filter(|line| line.contains("  proven ")).map(|line| line[..8].to_owned()).collect()
}

#[test]
fn what_a_check_found_damaged_is_not_proven_any_more() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    let ids = [1, 2, 3].map(|seed| {
        fs::remove_dir_all(place.data.join("of")).unwrap_or_default();
        fs::create_dir(place.data.join("of")).expect("made");
        fs::write(place.data.join("of").join(seed.to_string()), noise(seed, 90_000)).expect("written");
        let before = if place.repo.exists() { place.packs() } else { Vec::new() };
        place.ok(&["snapshot"]);
        let pack = place.packs().into_iter().find(|pack| !before.contains(pack)).expect("a new one");
        let id = place.ok(&["snapshots"]).out.lines().last().expect("one")[..8].to_owned();
        (id, pack)
    });
    for (id, _) in &ids[..2] {
        place.ok(&["drill", id]);
    }
    assert_eq!(proven(&place), [ids[0].0.clone(), ids[1].0.clone()]);
    // What only the second one has goes bad.
    let mut bytes = fs::read(&ids[1].1).expect("read");
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(&ids[1].1, bytes).expect("written");
    let check = place.run(&["check", "--read-data"]);
    assert!(check.code == 13 && check.out.contains(&format!("snapshot {} lost", ids[1].0)), "{check:?}");
    assert_eq!(proven(&place), [ids[0].0.clone()]);
    let status = place.ok(&["status"]).out;
    assert!(status.lines().any(|line| line.starts_with("newest proof") && line.contains(&ids[0].0)), "{status}");
    // And retention keeps the one that comes back.
    let plan = place.ok(&["-v", "forget", "--keep-last", "1", "--dry-run"]).out;
    let kept = |id: &str| plan.lines().any(|line| line.contains(id) && line.starts_with("keep"));
    assert!(kept(&ids[0].0) && !kept(&ids[1].0), "{plan}");
}

#[test]
fn a_repair_says_what_its_snapshot_lacks() {
    let place = place();
    rot(&place);
    let pipe = place.data.join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).expect("a named pipe");
    let repaired = place.run(&["repair", "--json"]);
    assert!(repaired.code == 3 && repaired.err.contains("not captured: pipe"), "{repaired:?}");
    assert!(repaired.out.contains(r#""unreadable":[{"path":"pipe""#), "{repaired:?}");
    place.ok(&["check", "--read-data"]);
    fs::remove_file(&pipe).expect("removed");
    rot(&place);
    place.ok(&["repair"]);
}
