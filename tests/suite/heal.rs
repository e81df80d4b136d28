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
