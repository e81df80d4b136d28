//! Backups that the application itself made, in both dialects, restored by the real binary to what they must give.
//!
//! The samples under `tests/fixtures/reference` are never regenerated. What each must give is in its `expected.json`.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::{self, Place, Run, tree};

struct Sample {
    name: &'static str,
    folder: PathBuf,
    expected: Value,
}

fn samples() -> Vec<Sample> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference");
    ["nodyn-plain", "nodyn-encrypted", "lynox-encrypted"]
        .into_iter()
        .map(|name| {
            let text = fs::read(root.join(name).join("expected.json")).expect("what is expected");
            let expected = serde_json::from_slice(&text).expect("JSON");
            Sample { name, folder: root.join(name), expected }
        })
        .collect()
}

/// A place whose backup folder holds a copy of the sample.
fn place_with(sample: &Sample) -> Place {
    let place = Place::empty();
    common::copy(&sample.folder, &place.data.join("backups"));
    fs::remove_file(place.data.join("backups/expected.json")).expect("removed");
    place
}

fn run(place: &Place, sample: &Sample, args: &[&str]) -> Run {
    place.with_key(sample.expected["vault_key"].as_str(), args)
}

fn assert_expected(sample: &Sample, data: &Path) {
    for one in sample.expected["expected"].as_array().expect("a list") {
        let path = data.join(one["path"].as_str().expect("a path"));
        if let Some(rows) = one["rows_in_entries"].as_i64() {
            let conn = Connection::open(&path).expect("open");
            let count: i64 = conn.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).expect("rows");
            let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("an answer");
            assert_eq!((count, sound.as_str()), (rows, "ok"), "{}: {}", sample.name, path.display());
        } else {
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let hash = nbak::codec::hex(&Sha256::digest(&bytes));
            assert_eq!(one["sha256"], Value::from(hash), "{}: {}", sample.name, path.display());
        }
    }
}

#[test]
fn they_are_listed_verified_and_restored() {
    for sample in samples() {
        let place = place_with(&sample);
        let listed = run(&place, &sample, &["backup", "list", "--json"]);
        let one: Value = serde_json::from_str(&listed.out).expect("one line");
        assert_eq!(one["dialect"], sample.expected["dialect"], "{}", sample.name);
        assert_eq!(one["damaged"], Value::Null);
        // They were made of a directory at another place: only by its name one is meant.
        let name = one["name"].as_str().expect("a name");
        let nameless = run(&place, &sample, &["backup", "verify"]);
        assert!(
            nameless.code == 2 && nameless.err.contains(name) && nameless.err.contains("/home/user/."),
            "{nameless:?}"
        );
        let verified = run(&place, &sample, &["backup", "verify", name, "--json"]);
        assert_eq!(verified.code, 0, "{}: {verified:?}", sample.name);
        let said: Value = serde_json::from_str(&verified.out).expect("JSON");
        assert_eq!(said["mac"], "absent");
        assert_ne!(said["databases"], 0);

        let before = tree(&place.data);
        let refused = run(&place, &sample, &["backup", "restore", name, "--yes"]);
        assert!(refused.code == 13 && refused.err.contains("--allow-unsigned"), "{}: {refused:?}", sample.name);
        common::assert_equal(&before, &tree(&place.data));
        let restored = run(&place, &sample, &["backup", "restore", name, "--yes", "--allow-unsigned"]);
        assert_eq!(restored.code, 0, "{}: {restored:?}", sample.name);
        assert_expected(&sample, &place.data);

        // Over what is there now, and changed: with a log beside it, as the application leaves one that was killed.
        let history = place.data.join("history.db");
        let conn = Connection::open(&history).expect("open");
        conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; DELETE FROM entries")
            .expect("changed");
        let log = fs::read(place.data.join("history.db-wal")).expect("a log");
        conn.close().expect("closed");
        fs::write(place.data.join("history.db-wal"), log).expect("written");
        fs::write(place.data.join("config.json"), b"{}").expect("written");
        let again = run(&place, &sample, &["backup", "restore", name, "--yes", "--allow-unsigned"]);
        assert_eq!(again.code, 0, "{}: {again:?}", sample.name);
        assert_expected(&sample, &place.data);
    }
}

#[test]
fn one_flipped_bit_in_any_file_refuses_the_restore_and_changes_nothing() {
    for sample in samples() {
        let place = place_with(&sample);
        fs::write(place.data.join("config.json"), b"live").expect("written");
        let backups = place.data.join("backups");
        let files: Vec<PathBuf> =
            tree(&backups).into_iter().filter(|(_, t)| t.kind == "file").map(|(p, _)| p).collect();
        for file in files.iter().filter(|file| !file.ends_with("manifest.json")) {
            let path = backups.join(file);
            let whole = fs::read(&path).expect("read");
            if whole.is_empty() {
                continue;
            }
            let mut flipped = whole.clone();
            let at = whole.len() / 2;
            flipped[at] ^= 1;
            fs::write(&path, &flipped).expect("written");
            let before = tree(&place.data);
            let name = file.iter().next().and_then(|name| name.to_str()).expect("a backup's name");
            let verified = run(&place, &sample, &["backup", "verify", name]);
            assert_eq!(verified.code, 13, "{}: {verified:?}", file.display());
            let named = file.components().skip(1).collect::<PathBuf>();
            assert!(verified.out.contains(&named.display().to_string()), "{}: {verified:?}", file.display());
            let refused = run(&place, &sample, &["backup", "restore", name, "--yes", "--allow-unsigned"]);
            assert!(refused.code == 13 || refused.code == 12, "{}: {refused:?}", file.display());
            let after = tree(&place.data);
            let content = |tree: &std::collections::BTreeMap<PathBuf, common::Thing>| {
                let own = |path: &Path| path.to_string_lossy().starts_with(".nbak-");
                tree.iter().filter(|(p, _)| !own(p)).map(|(p, t)| (p.clone(), t.bytes.clone())).collect::<Vec<_>>()
            };
            assert!(content(&before) == content(&after), "{}", file.display());
            fs::write(&path, &whole).expect("written");
        }
    }
}
