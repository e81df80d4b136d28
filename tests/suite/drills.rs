//! Damage drills: each object of a store deleted, cut short and flipped in turn. `check` names it, `repair` saves all
//! that can be saved, and never more is lost than the damage took (I24).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{self, KEY, Place, Thing, copy, noise, tree};
use rusqlite::Connection;

/// How an object is damaged.
#[derive(Debug, Clone, Copy)]
enum Rot {
    Deleted,
    Cut,
    /// In what lies before the footer.
    Body,
    Footer,
}

const ALL: [Rot; 4] = [Rot::Deleted, Rot::Cut, Rot::Body, Rot::Footer];

fn damage(path: &Path, rot: Rot) {
    let mut bytes = fs::read(path).expect("read");
    let at = match rot {
        Rot::Deleted => return fs::remove_file(path).expect("removed"),
        Rot::Cut => {
            bytes.truncate(bytes.len() / 2);
            return fs::write(path, bytes).expect("written");
        }
        Rot::Body => 100.min(bytes.len() / 3),
        Rot::Footer => bytes.len() - 30,
    };
    bytes[at] ^= 4;
    fs::write(path, bytes).expect("written");
}

/// A store with a history: a database that changes, files that come and go, one snapshot forgotten. Answers with what
/// each live snapshot holds.
fn history() -> (Place, BTreeMap<String, BTreeMap<PathBuf, Thing>>) {
    let place = Place { key: Some(KEY), ..Place::empty() };
    fs::create_dir(place.data.join("notes")).expect("made");
    let mut states = BTreeMap::new();
    let database = Connection::open(place.data.join("history.db")).expect("open");
    database.execute_batch("PRAGMA journal_mode=DELETE; CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)").expect("made");
    for round in 0..5u64 {
        for row in 0..60u64 {
            let number = if row < 20 { row * 7 % 60 } else { round * 100 + row };
            let params = (number as i64, noise(round * 1000 + row, 100));
            database.execute("INSERT OR REPLACE INTO t VALUES(?1, ?2)", params).expect("written");
        }
        fs::write(place.data.join(format!("notes/{round}")), noise(round, 3000)).expect("written");
        let _ = fs::remove_file(place.data.join(format!("notes/{}", round.wrapping_sub(2))));
        let id = id_of(&place.ok(&["--json", "snapshot"]).out);
        states.insert(id, tree(&place.data));
    }
    let second = states.keys().nth(1).expect("a second").clone();
    place.ok(&["forget", &second]);
    states.remove(&second);
    (place, states)
}

fn id_of(json: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
    value["snapshot"].as_str().expect("an id").to_owned()
}

/// The paths of a snapshot that are restored, and as they were. Everything that is restored must be.
fn restored(place: &Place, id: &str, state: &BTreeMap<PathBuf, Thing>, name: &str) -> BTreeSet<PathBuf> {
    let (run, target) = place.restore(id, name);
    assert!(run.code == 0 || run.code == 13 || run.code == 2, "{run:?}");
    if !target.exists() {
        return BTreeSet::new();
    }
    let found = tree(&target);
    for (path, thing) in &found {
        if thing.kind == "file" {
            assert_eq!(
                Some(&thing.bytes),
                state.get(path).map(|thing| &thing.bytes),
                "{}: wrong bytes",
                path.display()
            );
        }
    }
    let whole = found.len() == state.len();
    assert_eq!(run.code == 0, whole, "exit code 0 means everything: {run:?}");
    fs::remove_dir_all(target).expect("removed");
    found.into_keys().collect()
}

#[test]
fn each_pack_in_turn() {
    let (place, states) = history();
    let packs = place.packs();
    let mut healed = 0;
    for (number, pack) in packs.iter().enumerate() {
        for rot in ALL {
            // Every other way of damage for every other pack: all of them take a minute.
            if common::rounds() == 1 && !matches!(rot, Rot::Deleted) && (number + rot as usize).is_multiple_of(2) {
                continue;
            }
            let what = format!("{rot:?} {}", pack.display());
            let repo = place.path("drill");
            let _ = fs::remove_dir_all(&repo);
            fs::create_dir(&repo).expect("made");
            for entry in fs::read_dir(&place.repo).expect("a folder") {
                let from = entry.expect("an entry").path();
                let to = repo.join(from.file_name().expect("a name"));
                if from.is_dir() { copy(&from, &to) } else { fs::copy(&from, &to).map(drop).expect("copied") }
            }
            let drill = Place { repo, data: place.data.clone(), key: place.key, ..Place::empty() };
            damage(&drill.repo.join("packs").join(pack.file_name().expect("a name")), rot);
            let before: Vec<_> = states.iter().map(|(id, state)| restored(&drill, id, state, "before")).collect();
            let check = drill.run(&["check", "--read-data"]);
            assert_eq!(check.code, 13, "{what}: a check finds it: {check:?}");

            let repair = drill.run(&["repair"]);
            assert!(repair.code == 0 || repair.code == 13, "{what}: {repair:?}");
            let check = drill.run(&["check", "--read-data"]);
            assert_eq!(check.code, 0, "{what}: what is lost is known, the rest is whole: {check:?}");
            for round in ["repaired", "collected"] {
                let mut lost = 0;
                for ((id, state), before) in states.iter().zip(&before) {
                    let after = restored(&drill, id, state, round);
                    assert!(after.is_superset(before), "{what}, {round}: {id} lost more than the damage took");
                    lost += usize::from(after.len() < state.len());
                    healed += usize::from(after.len() > before.len());
                }
                assert_eq!(repair.code == 0, lost == 0, "{what}, {round}: {repair:?}");
                // The newest is in the data directory: nothing of it can be lost.
                let newest = states.keys().last().expect("one");
                let _ = newest;
                if round == "repaired" {
                    drill.ok(&["gc"]);
                    assert_eq!(drill.run(&["check", "--read-data"]).code, 0, "{what}: after gc");
                }
            }
            let again = drill.run(&["snapshot"]);
            assert_eq!(again.code, 0, "{what}: {again:?}");
            let (run, target) = drill.restore("latest", "latest");
            assert_eq!(run.code, 0, "{what}: what is at hand is whole: {run:?}");
            assert_eq!(tree(&place.data).len(), tree(&target).len());
            assert!(!drill.repo.join("quarantine").exists() || !matches!(rot, Rot::Deleted), "{what}");
        }
    }
    assert!(healed > 0, "something was brought back");
}

#[test]
fn a_footer_that_does_not_open_costs_nothing() {
    let (place, states) = history();
    for pack in place.packs() {
        damage(&pack, Rot::Footer);
    }
    assert_eq!(place.run(&["check"]).code, 13);
    // Without the data directory: all of it comes from what the index remembers.
    let repair = place.run(&["repair", "--without-snapshot"]);
    assert_eq!(repair.code, 0, "{repair:?}");
    assert!(repair.out.contains("set aside"), "{repair:?}");
    place.ok(&["check", "--read-data"]);
    for (id, state) in &states {
        assert_eq!(restored(&place, id, state, "after").len(), state.len());
    }
}

#[test]
fn documented_backups_give_back_what_the_data_directory_has_no_longer() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    fs::write(place.data.join("old.bin"), noise(1, 300_000)).expect("written");
    fs::write(place.data.join("small"), b"a small one").expect("written");
    place.ok(&["snapshot", "--tag", "first"]);
    place.ok(&["backup"]);
    fs::remove_file(place.data.join("old.bin")).expect("removed");
    fs::remove_file(place.data.join("small")).expect("removed");
    place.ok(&["snapshot"]);
    let largest = place.packs().into_iter().max_by_key(|pack| fs::metadata(pack).expect("there").len()).expect("one");
    damage(&largest, Rot::Body);
    assert_eq!(place.run(&["check", "--read-data"]).code, 13);
    let repair = place.run(&["--json", "repair"]);
    assert_eq!(repair.code, 0, "{repair:?}");
    let result: serde_json::Value = serde_json::from_str(&repair.out).expect("JSON");
    assert!(result["chunks_from_backups"].as_u64().is_some_and(|n| n > 0), "{result}");
    place.ok(&["check", "--read-data"]);
    assert_eq!(place.ok(&["cat", "first", "old.bin"]).raw, noise(1, 300_000));
}

#[test]
fn each_key_slot_in_turn() {
    let place = Place::taken(Some(KEY));
    let key = place.path("second.key");
    fs::write(&key, common::OTHER_KEY).expect("written");
    place.ok(&["key", "add", "--new-vault-key-file", key.to_str().expect("text")]);
    for slot in place.slots() {
        for rot in ALL {
            let whole = fs::read(&slot).expect("read");
            damage(&slot, rot);
            let opened: Vec<i32> = [KEY, common::OTHER_KEY]
                .map(|key| place.with_key(Some(key), &["snapshots"]).code)
                .into_iter()
                .collect();
            assert!(opened.contains(&0), "one slot of two is enough: {opened:?}");
            if !matches!(rot, Rot::Deleted) {
                let which = if opened[0] == 0 { KEY } else { common::OTHER_KEY };
                let check = place.with_key(Some(which), &["check"]);
                assert_eq!(check.code, 13, "{rot:?}: {check:?}");
                assert!(check.out.contains("key slot"), "{check:?}");
            }
            fs::write(&slot, whole).expect("put back");
        }
    }
    place.ok(&["check"]);
}

#[test]
fn caches_and_locks_may_go() {
    let (place, states) = history();
    for entry in fs::read_dir(&place.repo).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if !entry.is_file() {
            continue;
        }
        for rot in ALL {
            let whole = fs::read(&entry).unwrap_or_default();
            if whole.len() < 40 && !matches!(rot, Rot::Deleted) {
                continue;
            }
            if entry.exists() {
                damage(&entry, rot);
            }
            let check = place.ok(&["check", "--read-data"]);
            assert!(check.out.contains("no problem"), "{check:?}");
            place.ok(&["snapshot"]);
        }
    }
    for (id, state) in &states {
        assert_eq!(restored(&place, id, state, "after").len(), state.len());
    }
}
