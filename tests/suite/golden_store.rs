//! A store that was made once and is never made again: whatever changes here, it must open, and give back what it was
//! given. `tests/fixtures/golden/1/` holds the store, its key, and what is in each snapshot.
//!
//! It has what a store comes to have: databases and files, differences up to several deep, patched trees and recipes,
//! packs that were put together and packs that `gc` wrote again, runs of forgotten snapshots, one that can be brought
//! back, a slot for a vault key and one for a passphrase.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Place, copy, tree};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden/1")
}

/// A copy of the store: to open it writes into it.
fn place() -> (Place, Value) {
    let place = Place::empty();
    copy(&golden().join("store"), &place.repo);
    let expected = fs::read(golden().join("expected.json")).expect("what is in it");
    (place, serde_json::from_slice(&expected).expect("JSON"))
}

fn with_key<'a>(arguments: &[&'a str], key: &'a str) -> Vec<&'a str> {
    [&["--vault-key-file", key], arguments].concat()
}

/// What a snapshot holds: the SHA-256 of each file, by path.
fn contents(root: &Path) -> BTreeMap<String, String> {
    let files = tree(root).into_iter().filter(|(_, thing)| thing.kind == "file");
    let hash = |bytes: &[u8]| {
        Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    files.map(|(path, thing)| (path.to_string_lossy().into_owned(), hash(&thing.bytes))).collect()
}

fn ids(lines: &str) -> Vec<String> {
    let id = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("JSON");
        value["snapshot"].as_str().expect("an id").to_owned()
    };
    lines.lines().map(id).collect()
}

fn assert_holds(place: &Place, key: &str, id: &str, expected: &Value) {
    let target = place.path(&format!("out-{}", &id[..8]));
    place.ok(&with_key(&["restore", id, "--target", target.to_str().expect("text")], key));
    let expected: BTreeMap<String, String> = serde_json::from_value(expected.clone()).expect("paths and hashes");
    assert_eq!(contents(&target), expected, "snapshot {id}");
}

#[test]
fn it_opens_and_gives_back_what_it_was_given() {
    let (place, expected) = place();
    let key = golden().join("vault.key");
    let key = key.to_str().expect("text");
    let live = expected["snapshots"].as_object().expect("snapshots");
    let listed = ids(&place.ok(&with_key(&["--json", "snapshots"], key)).out);
    let order: Vec<String> = serde_json::from_value(expected["order"].clone()).expect("ids");
    assert_eq!(listed, order);
    for (id, holds) in live {
        assert_holds(&place, key, id, holds);
    }
    let check = place.ok(&with_key(&["check", "--read-data"], key));
    assert!(check.out.contains("no problem") && !check.out.contains("remark"), "{check:?}");

    let forgotten = expected["forgotten"].as_object().expect("snapshots");
    assert_eq!(ids(&place.ok(&with_key(&["--json", "snapshots", "--forgotten"], key)).out).len(), forgotten.len());
    for (id, holds) in forgotten {
        place.ok(&with_key(&["undelete", id], key));
        assert_holds(&place, key, id, holds);
    }
}

#[test]
fn the_passphrase_opens_it_too() {
    let (place, expected) = place();
    let phrase = golden().join("passphrase");
    let run = place.ok(&["--passphrase-file", phrase.to_str().expect("text"), "--json", "snapshots"]);
    assert_eq!(ids(&run.out).len(), expected["order"].as_array().expect("a list").len());
}

#[test]
fn a_newer_program_goes_on_from_it() {
    let (place, expected) = place();
    let key = golden().join("vault.key");
    let key = key.to_str().expect("text");
    fs::write(place.data.join("new"), b"something new").expect("written");
    place.ok(&with_key(&["snapshot"], key));
    place.ok(&with_key(&["gc"], key));
    let check = place.ok(&with_key(&["check", "--read-data"], key));
    assert!(check.out.contains("no problem"), "{check:?}");
    for (id, holds) in expected["snapshots"].as_object().expect("snapshots") {
        assert_holds(&place, key, id, holds);
    }
    assert_eq!(place.ok(&with_key(&["cat", "latest", "new"], key)).raw, b"something new");
}
