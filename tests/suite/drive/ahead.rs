//! The store's copy in Google Drive against stores here that are older, damaged, or another machine's: what is sound
//! there stays there, and what was revoked stays revoked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nbak::crypto::secret::Secret;
use nbak::crypto::slot::Slot;
use nbak::id::StoreId;

use crate::common::{Place, Run, noise};
use crate::drive_common::{Cloud, store_grant};

const OTHER_KEY: &str = "YW5vdGhlciBrZXkgb2YgdGhlIHNhbWUgbGVuZ3RoIGFzIHRoZSBmaXJzdA==";

/// A machine with `count` snapshots, each pushed.
fn machine(count: u64) -> Cloud {
    let cloud = Cloud::new();
    cloud.grant();
    for round in 0..count {
        step(&cloud, round);
    }
    cloud
}

fn step(cloud: &Cloud, round: u64) {
    fs::write(cloud.place.data.join("steady"), noise(1, 40_000)).expect("written");
    fs::write(cloud.place.data.join(format!("file {round}")), noise(100 + round, 50_000)).expect("written");
    cloud.ok(&["snapshot"]);
    cloud.ok(&["gdrive", "push"]);
}

fn snapshots(cloud: &Cloud) -> usize {
    cloud.ok(&["snapshots", "--json"]).out.lines().count()
}

/// What a new machine gets of the copy is whole, and has so many snapshots.
fn assert_copy(cloud: &Cloud, expected: usize) {
    let new = cloud.on_a_new_machine();
    new.grant();
    new.ok(&["gdrive", "pull"]);
    new.ok(&["check", "--read-data"]);
    assert_eq!(snapshots(&new), expected);
}

/// Another machine with a copy of this one's store, as it is now.
fn clone(cloud: &Cloud) -> Cloud {
    let new = cloud.on_a_new_machine();
    crate::common::copy(&cloud.place.repo, &new.place.repo);
    crate::common::copy(&cloud.place.data, &new.place.data);
    new
}

/// Only packs and keys stay, as in a copy of "all that counts".
fn forget_the_index(repo: &Path) {
    for entry in fs::read_dir(repo).expect("a folder").map(|entry| entry.expect("one").path()) {
        if entry.is_file() {
            fs::remove_file(entry).expect("removed");
        }
    }
}

fn by_age(cloud: &Cloud) -> Vec<PathBuf> {
    let mut packs = cloud.place.packs();
    packs.sort_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).expect("a time"));
    packs
}

#[test]
fn a_store_that_lost_something_removes_nothing() {
    let cloud = machine(3);
    let oldest = by_age(&cloud).remove(0);
    fs::remove_file(oldest).expect("removed");
    forget_the_index(&cloud.place.repo);
    for args in [&["gdrive", "push"][..], &["gdrive", "push", "--prune"]] {
        let refused = cloud.run(args);
        assert!(refused.code != 0 && refused.err.contains("gdrive pull"), "{refused:?}");
    }
    assert_copy(&cloud, 3);
    // The way out that is named.
    cloud.ok(&["gdrive", "pull"]);
    cloud.ok(&["check", "--read-data"]);
    cloud.ok(&["gdrive", "push", "--prune"]);
    assert_copy(&cloud, 3);
}

#[test]
fn a_repaired_store_does_not_remove_what_it_lost() {
    let cloud = machine(2);
    let largest = cloud.place.packs().into_iter().max_by_key(|path| fs::metadata(path).expect("there").len());
    let victim = largest.expect("a pack");
    let mut bytes = fs::read(&victim).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&victim, bytes).expect("written");
    for entry in fs::read_dir(&cloud.place.data).expect("a folder").map(|entry| entry.expect("one")) {
        if entry.file_name().to_string_lossy().starts_with("file") || entry.file_name() == "steady" {
            fs::remove_file(entry.path()).expect("removed");
        }
    }
    assert_eq!(cloud.run(&["check", "--read-data"]).code, 13);
    assert_eq!(cloud.run(&["repair"]).code, 13);
    let refused = cloud.run(&["gdrive", "push", "--prune"]);
    assert!(refused.code == 13 && refused.err.contains("gdrive pull"), "{refused:?}");
    let new = cloud.on_a_new_machine();
    new.grant();
    new.ok(&["gdrive", "pull"]);
    let (target, name) = (new.place.path("target"), "file 0");
    let oldest = new.ok(&["snapshots", "--json"]).out.lines().next().map(str::to_owned).expect("a snapshot");
    let oldest: serde_json::Value = serde_json::from_str(&oldest).expect("JSON");
    let restored = new.run(&[
        "restore",
        oldest["snapshot"].as_str().expect("an id"),
        name,
        "--target",
        target.to_str().expect("a path"),
    ]);
    assert!(restored.code == 0 && fs::read(target.join(name)).expect("restored") == noise(100, 50_000), "{restored:?}");
}

#[test]
fn an_older_copy_of_the_store_undoes_nothing() {
    let cloud = machine(2);
    let old = clone(&cloud);
    step(&cloud, 2);
    step(&cloud, 3);
    for args in [&["gdrive", "push"][..], &["gdrive", "push", "--prune"]] {
        let refused = old.run(args);
        assert!(refused.code == 1 && refused.err.contains("gdrive pull"), "{refused:?}");
    }
    assert_copy(&cloud, 4);
    old.ok(&["gdrive", "pull"]);
    assert_eq!(snapshots(&old), 4);
    // Two that go on from the same: each pulls before it pushes, and nothing is lost.
    step(&old, 10);
    fs::write(cloud.place.data.join("mine"), noise(55, 9000)).expect("written");
    cloud.ok(&["snapshot"]);
    assert_eq!(cloud.run(&["gdrive", "push", "--prune"]).code, 1);
    cloud.ok(&["gdrive", "pull"]);
    cloud.ok(&["gdrive", "push", "--prune"]);
    assert_copy(&cloud, 6);
}

/// A key that was removed here opens no copy, and comes back by no pull and no older store.
#[test]
fn a_removed_key_stays_removed() {
    let cloud = machine(2);
    let old = clone(&cloud);
    let new_key = cloud.place.path("new key");
    fs::write(&new_key, OTHER_KEY).expect("written");
    let new_key = new_key.to_str().expect("a path");
    cloud.ok(&["key", "rotate", "--new-vault-key-file", new_key]);
    let with_new = |args: &[&str]| cloud.run(&[args, &["--vault-key-file", new_key]].concat());
    // What Google granted is sealed by the new key too.
    assert_eq!(cloud.run(&["auth", "status"]).code, 12);
    assert_eq!(with_new(&["auth", "status"]).code, 0);
    // The old slot is there still; a pull does not bring it back.
    assert_eq!(with_new(&["gdrive", "pull"]).code, 0);
    assert_eq!(with_new(&["key", "list", "--json"]).out.lines().count(), 1);
    let pushed = with_new(&["gdrive", "push"]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    assert_eq!(with_new(&["gdrive", "pull"]).code, 0);
    assert_eq!(with_new(&["key", "list", "--json"]).out.lines().count(), 1, "it did not come back");
    let refused = old.run(&["gdrive", "push"]);
    assert!(refused.code == 0 && refused.err.contains("removed by another machine"), "{refused:?}");
    let new = cloud.on_a_new_machine();
    new.grant();
    assert_eq!(new.run(&["gdrive", "pull"]).code, 12, "the old key opens nothing");
    let key = new.place.path("key");
    fs::write(&key, crate::common::KEY).expect("written");
    // The one for what Google granted, the other for the store.
    let key = key.to_str().expect("a path");
    new.ok(&["gdrive", "pull", "--vault-key-file", key, "--vault-key-file", new_key]);
    assert_eq!(new.run(&["snapshots"]).code, 12);
    assert_eq!(new.run(&["snapshots", "--vault-key-file", new_key]).code, 0);
    // A slot that is only not here, since its file was lost, stays there.
    let second = cloud.place.path("words");
    fs::write(&second, "a long passphrase of several words").expect("written");
    let second = second.to_str().expect("a path");
    assert_eq!(with_new(&["key", "add", "--new-passphrase-file", second]).code, 0);
    assert_eq!(with_new(&["gdrive", "push"]).code, 0);
    let slots = cloud.place.slots();
    let newest = slots.iter().max_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).expect("a time"));
    fs::remove_file(newest.expect("a slot")).expect("removed");
    assert_eq!(with_new(&["gdrive", "push"]).code, 0);
    let third = cloud.on_a_new_machine();
    third.grant();
    third.ok(&["gdrive", "pull", "--passphrase-file", second, "--vault-key-file", key]);
    assert_eq!(third.run(&["snapshots", "--passphrase-file", second]).code, 0);
    // Nor does it come back where a pull left a note that it had not ended, and then the key was removed.
    let listed = |cloud: &Cloud| cloud.run(&["key", "list", "--json", "--passphrase-file", second]).out;
    let vault = listed(&third).lines().find(|line| line.contains("vault-key")).map(str::to_owned).expect("one");
    let vault: serde_json::Value = serde_json::from_str(&vault).expect("JSON");
    let vault = vault["slot"].as_str().expect("an id");
    assert_eq!(third.run(&["key", "remove", vault, "--passphrase-file", second]).code, 0);
    fs::write(third.place.repo.join("pull-unfinished"), "").expect("written");
    third.ok(&["gdrive", "pull", "--passphrase-file", second, "--vault-key-file", key]);
    assert!(!listed(&third).contains("vault-key"), "it came back");
}

/// One object that is bad there keeps nothing else back.
#[test]
fn what_is_bad_there_is_named_and_the_rest_comes() {
    let cloud = machine(4);
    let packs = cloud.place.packs();
    let victim = packs.iter().min_by_key(|path| fs::metadata(path).expect("there").len()).expect("a pack");
    let name = victim.file_name().expect("a name").to_string_lossy().into_owned();
    let there = cloud.fake.files().into_iter().find(|file| file.name == name).expect("there");
    assert!(cloud.fake.corrupt(&there.id, 100));
    cloud.fake.add_file(&there.parents[0], "00112233445566778899aabbccddeeff", b"junk");
    let new = cloud.on_a_new_machine();
    new.grant();
    let pulled = new.run(&["gdrive", "pull"]);
    assert!(pulled.code == 13 && pulled.err.contains(&name) && pulled.err.contains("00112233"), "{pulled:?}");
    assert_eq!(new.place.packs().len(), packs.len() - 1);
    assert!(snapshots(&new) >= 3, "what is whole can be seen");
    assert!(cloud.fake.corrupt(&there.id, 100), "and back");
    assert_eq!(new.run(&["gdrive", "pull"]).code, 13);
    // What could not be pulled may be a newer snapshot, for all that is known: every command says so.
    for args in [&["check", "--read-data"][..], &["gdrive", "push"], &["gc"], &["doctor"], &["snapshots"]] {
        let run = new.run(args);
        assert_eq!(run.code == 0, args == ["snapshots"], "{args:?}: {run:?}");
        assert!(format!("{}{}", run.out, run.err).contains("gdrive pull"), "{args:?}: {run:?}");
    }
    // Until somebody accepts it.
    new.ok(&["repair", "index"]);
    let checked = new.ok(&["check", "--read-data"]);
    assert!(checked.err.is_empty() && snapshots(&new) == 4, "{checked:?}");
    // The same damage here and there: nothing here replaces it, and it is named.
    let here = new.place.packs().into_iter().find(|path| path.ends_with(&name)).expect("pulled");
    let mut bytes = fs::read(&here).expect("read");
    bytes[100] ^= 1;
    fs::write(&here, &bytes).expect("written");
    cloud.fake.remove(&there.id);
    cloud.fake.add_file(&there.parents[0], &name, &bytes);
    let pulled = new.run(&["gdrive", "pull"]);
    assert!(pulled.code == 13 && pulled.err.contains("the same") && pulled.err.contains(&name), "{pulled:?}");
}

/// What a pull that has not ended left is no store yet; every command says how it goes on.
#[test]
fn half_a_pull_says_how_it_goes_on() {
    let cloud = machine(3);
    let new = cloud.on_a_new_machine();
    new.grant();
    new.ok(&["gdrive", "pull"]);
    for slot in new.place.slots() {
        fs::remove_file(slot).expect("removed");
    }
    fs::write(new.place.repo.join("pull-unfinished"), "").expect("written");
    for args in [&["snapshots"][..], &["check"], &["snapshot"], &["restore", "latest", "--in-place", "--yes"]] {
        let refused = new.run(args);
        assert!(refused.code == 13 && refused.err.contains("gdrive pull"), "{args:?}: {refused:?}");
    }
    new.ok(&["gdrive", "pull"]);
    assert_eq!(snapshots(&new), 3);
}

/// Two machines have the same store. While one pushes, the other prunes: what came there and is in no snapshot yet
/// stays.
#[test]
fn a_prune_takes_nothing_from_a_push_that_runs() {
    let cloud = machine(2);
    let other = clone(&cloud);
    other.grant();
    other.ok(&["gdrive", "pull"]);
    fs::write(cloud.place.data.join("large"), noise(70, 40_000_000)).expect("written");
    cloud.ok(&["snapshot"]);
    let before = cloud.fake.files().len();
    let mut push = cloud.command(&["gdrive", "push", "--limit-rate", "12M"]);
    let mut push = push.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    crate::daemon_common::until(Duration::from_mins(1), "some of it is there", || cloud.fake.files().len() > before);
    let pruned = other.run(&["gdrive", "push", "--prune"]);
    assert!(push.wait().expect("ended").success(), "{pruned:?}");
    assert_copy(&cloud, 3);
    // A push that ended half-way, and is not gone on with: after a week that goes.
    other.ok(&["gdrive", "pull"]);
    fs::write(cloud.place.data.join("large"), noise(71, 40_000_000)).expect("written");
    cloud.ok(&["snapshot"]);
    let known: Vec<String> = cloud.fake.files().into_iter().map(|file| file.id).collect();
    let mut push = cloud.command(&["gdrive", "push", "--limit-rate", "12M"]);
    let mut push = push.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    let new = || cloud.fake.files().into_iter().filter(|file| !known.contains(&file.id)).collect::<Vec<_>>();
    crate::daemon_common::until(Duration::from_mins(1), "some of it is there", || !new().is_empty());
    push.kill().expect("killed");
    push.wait().expect("ended");
    let kept = other.ok(&["gdrive", "push", "--prune"]);
    assert!(kept.err.contains("less than a week") && !new().is_empty(), "{kept:?}");
    for file in new() {
        cloud.fake.change(&file.id, |file| file.created -= 8 * 86_400_000);
    }
    other.ok(&["gdrive", "push", "--prune"]);
    assert!(new().is_empty());
    cloud.ok(&["gdrive", "push"]);
    assert_copy(&cloud, 4);
}

/// Each machine removes the other's key: the last one that opens the copy stays there.
#[test]
fn the_last_key_there_stays() {
    let cloud = machine(1);
    let words = cloud.place.path("words");
    fs::write(&words, "a long passphrase of several words").expect("written");
    let words = words.to_str().expect("a path").to_owned();
    cloud.ok(&["key", "add", "--new-passphrase-file", &words]);
    cloud.ok(&["gdrive", "push"]);
    let other = clone(&cloud);
    store_grant(&other);
    let slot = |cloud: &Cloud, method: &str| {
        let listed = cloud.ok(&["key", "list", "--json"]).out;
        let line = listed.lines().find(|line| line.contains(method)).map(str::to_owned).expect("a slot");
        serde_json::from_str::<serde_json::Value>(&line).expect("JSON")["slot"].as_str().expect("an id").to_owned()
    };
    let (vault, phrase) = (slot(&cloud, "vault-key"), slot(&cloud, "passphrase"));
    cloud.ok(&["key", "remove", &phrase]);
    cloud.ok(&["gdrive", "push"]);
    // The other one goes on with the passphrase, which was removed there.
    let removed = other.run(&["key", "remove", &vault, "--passphrase-file", &words]);
    assert_eq!(removed.code, 0, "{removed:?}");
    let both = ["gdrive", "push", "--passphrase-file", words.as_str(), "--vault-key-file"];
    let key = other.place.path("key");
    fs::write(&key, crate::common::KEY).expect("written");
    let refused = other.run(&[&both[..], &[key.to_str().expect("a path")]].concat());
    assert!(refused.code == 1 && refused.err.contains("no key would open"), "{refused:?}");
    assert_copy(&cloud, 1);
}

/// A slot that opens for everybody was never pushed: whoever put it there has the key that is in it.
#[test]
fn a_slot_that_opens_for_everybody_is_not_pulled() {
    let cloud = machine(2);
    let listed: serde_json::Value = serde_json::from_str(&cloud.ok(&["gdrive", "list", "--json"]).out).expect("JSON");
    let store = StoreId::parse(listed["store"].as_str().expect("an id")).expect("an id");
    let slot = Slot::new(store, &Secret::random(), None, 1, "").expect("a slot");
    let keys = cloud.fake.files().into_iter().find(|file| file.name == "keys").expect("a folder");
    let id = cloud.fake.add_file(&keys.id, &slot.id.to_string(), slot.bytes());
    cloud.fake.change(&id, |file| file.created -= 86_400_000);
    let new = cloud.on_a_new_machine();
    new.grant();
    let pulled = new.run(&["gdrive", "pull"]);
    assert!(pulled.code == 13 && pulled.err.contains(&slot.id.to_string()), "{pulled:?}");
    assert_eq!((new.place.slots().len(), new.place.packs().len()), (1, cloud.place.packs().len()));
    new.ok(&["repair", "index"]);
    new.ok(&["check", "--read-data"]);
}

/// A pull that cannot be makes nothing here; what is gone here but for what was set aside comes back.
#[test]
fn a_pull_makes_nothing_in_vain_and_brings_keys_back() {
    let cloud = machine(2);
    let new = cloud.on_a_new_machine();
    let other = new.place.path("other");
    fs::write(&other, OTHER_KEY).expect("written");
    let with_other = |args: &[&str]| new.run(&[args, &["--vault-key-file", other.to_str().expect("a path")]].concat());
    assert_eq!(with_other(&["auth", "google", "--device"]).code, 0);
    let refused = with_other(&["gdrive", "pull"]);
    assert!(refused.code == 12 && refused.err.contains("nothing was downloaded"), "{refused:?}");
    assert!(!new.place.repo.exists());
    let slots: Vec<_> = cloud.fake.files().into_iter().filter(|file| file.name == "keys").collect();
    let slot = cloud.fake.children(&slots[0].id).remove(0);
    cloud.fake.change(&slot.id, |file| file.trashed = true);
    new.grant();
    assert_eq!(new.run(&["gdrive", "pull"]).code, 10);
    assert!(!new.place.repo.exists(), "a store that nobody can pull is in nobody's way");
    cloud.fake.change(&slot.id, |file| file.trashed = false);
    // Keys that are gone, or damaged, beside what was set aside.
    fs::create_dir(cloud.place.repo.join("quarantine")).expect("made");
    for damage in [true, false] {
        for path in cloud.place.slots() {
            if damage {
                fs::write(path, "x").expect("written");
            } else {
                fs::remove_file(path).expect("removed");
            }
        }
        if !damage {
            fs::remove_dir(cloud.place.repo.join("keys")).expect("removed");
        }
        cloud.ok(&["gdrive", "pull"]);
        cloud.ok(&["check", "--read-data"]);
    }
    // A store that lost a pack there is not called whole.
    let largest = cloud.place.packs().into_iter().max_by_key(|path| fs::metadata(path).expect("there").len());
    let name = largest.expect("a pack").file_name().expect("a name").to_string_lossy().into_owned();
    let there = cloud.fake.files().into_iter().find(|file| file.name == name).expect("there");
    cloud.fake.remove(&there.id);
    let third = cloud.on_a_new_machine();
    third.grant();
    let pulled = third.run(&["gdrive", "pull"]);
    assert!(pulled.code == 13 && pulled.err.contains("not whole"), "{pulled:?}");
}

/// What a push notes for itself does not make the data directory look changed: a snapshot and a push would follow on
/// each other for ever.
#[test]
fn a_push_changes_nothing_here() {
    let cloud = machine(2);
    for _ in 0..3 {
        cloud.ok(&["gdrive", "push"]);
        cloud.ok(&["snapshot"]);
    }
    let known = snapshots(&cloud);
    cloud.fake.expire_tokens();
    step(&cloud, 7);
    cloud.ok(&["snapshot"]);
    assert_eq!(snapshots(&cloud), known + 1, "the last found nothing new");
}

/// A list says whose a store is, and one whose first push did not end is in nobody's way.
#[test]
fn a_store_says_whose_it_is() {
    let cloud = machine(1);
    let listed: serde_json::Value = serde_json::from_str(&cloud.ok(&["gdrive", "list", "--json"]).out).expect("JSON");
    let machine = listed["machine"].as_str().expect("a machine");
    assert!(cloud.ok(&["gdrive", "list"]).out.contains(machine));
    let top = cloud.fake.children("root").into_iter().find(|file| file.name == "nbak-stores").expect("the stores");
    let begun = cloud.fake.add_folder(&top.id, "00112233445566778899aabbccddeeff");
    cloud.fake.add_folder(&begun, "packs");
    assert!(cloud.ok(&["gdrive", "list"]).out.contains("incomplete"));
    let new = cloud.on_a_new_machine();
    new.grant();
    new.ok(&["gdrive", "pull"]);
    assert_eq!(snapshots(&new), 1);
}

/// A snapshot that begins while a pull runs makes no store of its own in the same place.
#[test]
fn a_pull_and_a_first_snapshot_do_not_mix() {
    let cloud = machine(3);
    for after in [0, 30, 60, 100, 150, 220] {
        let new = cloud.on_a_new_machine();
        new.grant();
        fs::write(new.place.data.join("mine"), noise(9, 100)).expect("written");
        let start =
            |mut command: Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        let mut pull = start(new.command(&["gdrive", "pull"]));
        std::thread::sleep(Duration::from_millis(after));
        let mut snapshot = start(new.command(&["snapshot"]));
        let codes = (pull.wait().expect("ended").code(), snapshot.wait().expect("ended").code());
        assert_eq!(new.place.slots().len(), 1, "after {after} ms: {codes:?}");
        new.ok(&["check", "--read-data"]);
    }
}

/// A pull that was killed anywhere goes on.
#[test]
fn a_killed_pull_goes_on() {
    let cloud = machine(5);
    let words = cloud.place.path("words");
    fs::write(&words, "a long passphrase of several words").expect("written");
    cloud.ok(&["key", "add", "--new-passphrase-file", words.to_str().expect("a path")]);
    cloud.ok(&["gdrive", "push"]);
    let new = cloud.on_a_new_machine();
    new.grant();
    for after in [20, 40, 60, 80, 100, 120, 140] {
        let mut child = new.command(&["gdrive", "pull"]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        std::thread::sleep(Duration::from_millis(after));
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
    // Between the slots: one of them is here, and the key that is given is for the other.
    new.ok(&["gdrive", "pull"]);
    let unfinished = new.place.repo.join("pull-unfinished");
    assert!(!unfinished.exists());
    for slot in new.place.slots() {
        let whole = fs::read(&slot).expect("read");
        fs::remove_file(&slot).expect("removed");
        fs::write(&unfinished, "").expect("written");
        new.ok(&["gdrive", "pull"]);
        assert!(fs::read(&slot).expect("back") == whole && !unfinished.exists());
    }
    new.ok(&["check", "--read-data"]);
    assert_eq!(snapshots(&new), 5);
}

#[test]
fn a_damaged_configuration_uploads_nothing() {
    let cloud = Cloud { place: Place::empty(), ..Cloud::new() };
    cloud.grant();
    fs::write(cloud.place.data.join("config.json"), r#"{"backup_gdrive": false,}"#).expect("written");
    let told: Run = cloud.run(&["backup", "--repo", cloud.place.repo.to_str().expect("a path")]);
    assert!(told.code == 14 && told.err.contains("mend config.json"), "{told:?}");
    assert_eq!(cloud.fake.bytes_in(), 0);
}

/// A snapshot of a few minutes of use is a pack of some hundred bytes: it counts as any other.
#[test]
fn small_packs_count_too() {
    for size in [500, 9000, 16_000, 17_000, 33_000] {
        let cloud = machine(1);
        let old = clone(&cloud);
        old.grant();
        fs::write(cloud.place.data.join("small"), noise(7, size)).expect("written");
        cloud.ok(&["snapshot"]);
        cloud.ok(&["gdrive", "push"]);
        fs::remove_file(old.place.data.join("steady")).expect("removed");
        old.ok(&["snapshot"]);
        for args in [&["gdrive", "push"][..], &["gdrive", "push", "--prune"]] {
            let refused = old.run(args);
            assert!(refused.code != 0 && refused.err.contains("gdrive pull"), "{size}: {refused:?}");
        }
        assert_copy(&cloud, 2);
        // And what was forgotten goes from there.
        fs::write(cloud.place.data.join("small"), noise(8, size)).expect("written");
        cloud.ok(&["snapshot"]);
        cloud.ok(&["gdrive", "push"]);
        cloud.ok(&["forget", "--keep-last", "1"]);
        cloud.ok(&["gc"]);
        cloud.ok(&["gdrive", "push", "--prune"]);
        assert_copy(&cloud, 1);
    }
}
