//! What is damaged, thrown away, or another's, here or in Google Drive, is never taken over: not in a copy there, nor
//! in what is here. Each test shows that what was good before is good afterwards, and that the exit code says what
//! happened.

mod common;
mod drive_common;
mod fake_drive;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Place, Run, noise};
use drive_common::Cloud;
use serde_json::Value;

fn json(run: &Run) -> Value {
    serde_json::from_str(run.out.lines().next().expect("a line")).expect("JSON")
}

fn newest_backup(cloud: &Cloud) -> PathBuf {
    let backups = fs::read_dir(cloud.place.data.join("backups")).expect("a folder").map(|entry| entry.expect("one"));
    backups.map(|entry| entry.path()).filter(|path| path.join("manifest.json").exists()).max().expect("a backup")
}

/// Damages a file.
type Damage = fn(&Path);

/// A machine with some files and a grant.
fn machine() -> Cloud {
    let cloud = Cloud::new();
    for (name, seed, size) in [("one", 1, 10_000), ("two", 2, 70_000), ("three", 3, 300_000)] {
        fs::write(cloud.place.data.join(name), noise(seed, size)).expect("written");
    }
    cloud.grant();
    cloud
}

/// Makes a backup that is not uploaded by itself.
fn made_here(cloud: &Cloud) {
    let config = cloud.place.data.join("config.json");
    fs::write(&config, r#"{"backup_gdrive": false}"#).expect("written");
    cloud.ok(&["backup"]);
    fs::remove_file(config).expect("removed");
}

/// All that is in Drive: names, checksums, whether in the bin.
fn there(cloud: &Cloud) -> Vec<(String, String, bool)> {
    let mut all: Vec<_> =
        cloud.fake.files().into_iter().map(|file| (file.name.clone(), file.sha256.clone(), file.trashed)).collect();
    all.sort();
    all
}

fn bytes_of(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    common::tree(root).into_iter().map(|(path, thing)| (path, thing.bytes)).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("read");
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_damaged_backup_does_not_take_the_good_copy_along() {
    let cloud = machine();
    cloud.ok(&["backup"]);
    let backup = newest_backup(&cloud);
    let before = there(&cloud);
    let victim = backup.join("data/two.enc");
    let victim = if victim.exists() { victim } else { find(&backup, "two") };
    let whole = fs::read(&victim).expect("read");
    let damages: [(&str, Damage); 4] = [
        ("gone", |path| fs::remove_file(path).expect("removed")),
        ("short", |path| fs::write(path, b"x").expect("written")),
        ("flipped", |path| flip(path, 30_000)),
        ("a link", |path| {
            fs::remove_file(path).expect("removed");
            std::os::unix::fs::symlink("/etc/hostname", path).expect("linked");
        }),
    ];
    for (what, damage) in damages {
        damage(&victim);
        let refused = cloud.run(&["backup", "gdrive", "upload"]);
        assert_eq!(refused.code, 13, "{what}: {refused:?}");
        assert!(refused.err.contains("two") && refused.err.contains("nothing in Google Drive was touched"), "{what}");
        assert!(there(&cloud) == before, "{what}: Drive was changed");
        let _ = fs::remove_file(&victim);
        fs::write(&victim, &whole).expect("written");
    }
    cloud.ok(&["backup", "gdrive", "upload"]);
    assert!(there(&cloud) == before);
    // What no manifest names is no part of a backup.
    fs::write(backup.join("stranger"), "not of the backup").expect("written");
    cloud.ok(&["backup", "gdrive", "upload"]);
    assert!(there(&cloud) == before);
}

fn find(root: &Path, part: &str) -> PathBuf {
    let all = common::tree(root);
    let found = all.iter().find(|(path, thing)| thing.kind == "file" && path.to_string_lossy().contains(part));
    root.join(found.expect("there").0)
}

/// An upload that was broken off does not go on in a folder that was thrown away since.
#[test]
fn the_bin_is_not_there() {
    let cloud = machine();
    fs::write(cloud.place.data.join("large"), noise(9, 12_000_000)).expect("written");
    made_here(&cloud);
    for after in [120, 250] {
        let mut child = cloud.command(&["backup", "gdrive", "upload", "--limit-rate", "16M"]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        std::thread::sleep(Duration::from_millis(after));
        child.kill().expect("killed");
        child.wait().expect("ended");
        if let Some(top) = cloud.fake.at("nodyn-backups") {
            cloud.fake.change(&top.id, |file| file.trashed = true);
        }
    }
    cloud.ok(&["backup", "gdrive", "upload"]);
    let listed = json(&cloud.ok(&["backup", "gdrive", "list", "--json"]));
    assert!(listed["damaged"].is_null(), "{listed}");
    let new = cloud.on_a_new_machine();
    new.grant();
    new.ok(&["backup", "gdrive", "restore", "--yes"]);
    assert_eq!(fs::read(new.place.data.join("large")).expect("restored"), noise(9, 12_000_000));

    // The same for the store.
    cloud.ok(&["snapshot"]);
    let mut child = cloud.command(&["gdrive", "push", "--limit-rate", "16M"]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    std::thread::sleep(Duration::from_millis(250));
    child.kill().expect("killed");
    child.wait().expect("ended");
    if let Some(top) = cloud.fake.at("nbak-stores") {
        cloud.fake.change(&top.id, |file| file.trashed = true);
    }
    cloud.ok(&["gdrive", "push"]);
    new.ok(&["gdrive", "pull"]);
    new.ok(&["check", "--read-data"]);
}

#[test]
fn what_is_damaged_here_is_not_pushed() {
    let cloud = machine();
    cloud.ok(&["snapshot"]);
    let pack = cloud.place.packs().into_iter().max_by_key(|path| fs::metadata(path).expect("there").len());
    let pack = pack.expect("a pack");
    let whole = fs::read(&pack).expect("read");
    for at in [60, whole.len() / 2, whole.len() - 20] {
        flip(&pack, at);
        let refused = cloud.run(&["gdrive", "push"]);
        assert_eq!(refused.code, 13, "byte {at}: {refused:?}");
        let name = pack.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(refused.err.contains(&name) && refused.err.contains("nbak repair"), "{refused:?}");
        assert!(cloud.fake.files().iter().all(|file| file.name != name), "byte {at} went there");
        fs::write(&pack, &whole).expect("written");
    }
    cloud.ok(&["gdrive", "push"]);
    // What is there and is not the same is replaced: another length at once, other bytes when they are compared.
    let name = pack.file_name().expect("a name").to_string_lossy().into_owned();
    let copy = || cloud.fake.files().into_iter().filter(|file| file.name == name).collect::<Vec<_>>();
    let there = copy().remove(0);
    cloud.fake.remove(&there.id);
    cloud.fake.add_file(&there.parents[0], &name, &whole[..whole.len() - 1]);
    assert_eq!(json(&cloud.ok(&["gdrive", "push", "--json"]))["replaced"], 1);
    let there = copy();
    assert!(there.len() == 1 && there[0].content.as_slice() == whole);
    cloud.fake.remove(&there[0].id);
    let mut other = whole.clone();
    other[1000] ^= 4;
    cloud.fake.add_file(&there[0].parents[0], &name, &other);
    assert_eq!(json(&cloud.ok(&["gdrive", "push", "--json"]))["replaced"], 0);
    assert_eq!(json(&cloud.ok(&["gdrive", "push", "--json", "--read-data"]))["replaced"], 1);
    assert!(copy().len() == 1 && copy()[0].content.as_slice() == whole);
}

#[test]
fn what_is_damaged_there_is_not_pulled() {
    let cloud = machine();
    cloud.ok(&["snapshot"]);
    cloud.ok(&["gdrive", "push"]);
    let packs = cloud.place.packs();
    let pack = packs.iter().max_by_key(|path| fs::metadata(path).expect("there").len()).expect("a pack");
    let name = pack.file_name().expect("a name").to_string_lossy().into_owned();
    let there = cloud.fake.files().into_iter().find(|file| file.name == name).expect("there");
    assert!(cloud.fake.corrupt(&there.id, 5000));
    let new = cloud.on_a_new_machine();
    new.grant();
    let refused = new.run(&["gdrive", "pull"]);
    assert!(refused.code == 13 && refused.err.contains(&name), "{refused:?}");
    assert!(new.place.slots().is_empty(), "half a pull is no store");
    assert!(cloud.fake.corrupt(&there.id, 5000), "and back");
    new.ok(&["gdrive", "pull"]);
    new.ok(&["check", "--read-data"]);

    // What is damaged here comes again, and what was here lies aside.
    let victim = new.place.repo.join("packs").join(pack.strip_prefix(cloud.place.repo.join("packs")).expect("inside"));
    let whole = fs::read(&victim).expect("read");
    let cut: fn(&Path) = |path| {
        let bytes = fs::read(path).expect("read");
        fs::write(path, &bytes[..bytes.len() / 2]).expect("written");
    };
    let flipped: fn(&Path) = |path| flip(path, 4000);
    for damage in [cut, flipped] {
        damage(&victim);
        let again = json(&new.ok(&["gdrive", "pull", "--json"]));
        assert_eq!((again["objects"].as_u64(), again["replaced"].as_u64()), (Some(1), Some(1)));
        assert!(fs::read(&victim).expect("read") == whole);
        new.ok(&["check", "--read-data"]);
    }
    // Something else under that name there, with its own checksum: what is here and opens stays.
    cloud.fake.remove(&there.id);
    cloud.fake.add_file(&there.parents[0], &name, &noise(3, whole.len()));
    let kept = new.ok(&["gdrive", "pull", "--json"]);
    assert_eq!(json(&kept)["differ"], 1);
    assert!(kept.err.contains("--read-data") && fs::read(&victim).expect("read") == whole);
    fs::remove_file(&victim).expect("removed");
    assert_eq!(new.run(&["gdrive", "pull"]).code, 13, "and what does not open does not come");
}

/// A pull brings nothing of another store, whatever keeps the one that is here from opening.
#[test]
fn stores_are_not_mixed() {
    let cloud = machine();
    cloud.ok(&["snapshot"]);
    cloud.ok(&["gdrive", "push"]);
    let other = cloud.on_a_new_machine();
    other.grant();
    fs::write(other.place.data.join("else"), noise(7, 50_000)).expect("written");
    other.ok(&["snapshot"]);
    let before = bytes_of(&other.place.repo);
    let refused = other.run(&["gdrive", "pull"]);
    assert!(refused.code == 10, "{refused:?}");
    let id = json(&cloud.ok(&["gdrive", "push", "--json"]))["store"].as_str().expect("an id").to_owned();
    assert_eq!(other.run(&["gdrive", "pull", "--store", &id]).code, 2);
    // With a key that does not open it, it is still another store.
    let slot = other.place.slots().remove(0);
    let good = fs::read(&slot).expect("read");
    flip(&slot, good.len() - 3);
    for args in [&["gdrive", "pull"][..], &["gdrive", "pull", "--store", &id]] {
        let refused = other.run(args);
        assert!([2, 10, 12, 13].contains(&refused.code), "{refused:?}");
    }
    fs::write(&slot, &good).expect("written");
    // Nor when its slots are gone: its packs say whose they are.
    fs::remove_file(&slot).expect("removed");
    for args in [&["gdrive", "pull"][..], &["gdrive", "pull", "--store", &id]] {
        let refused = other.run(args);
        assert!([2, 10].contains(&refused.code), "{refused:?}");
    }
    fs::write(&slot, &good).expect("written");
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    let after = bytes_of(&other.place.repo);
    let objects = |path: &PathBuf| path.starts_with("packs") || path.starts_with("keys");
    let only = |paths: Vec<PathBuf>| paths.into_iter().filter(objects).collect::<Vec<_>>();
    assert_eq!(only(names(&after)), only(names(&before)));
    other.ok(&["check", "--read-data"]);
    // Its own slots come back from its own copy.
    other.ok(&["gdrive", "push"]);
    fs::remove_file(&slot).expect("removed");
    other.ok(&["gdrive", "pull"]);
    assert!(fs::read(&slot).expect("back") == good);
    other.ok(&["check", "--read-data"]);
}

/// What was forgotten and collected here goes there too, when that is asked for, and does not come back.
#[test]
fn a_pruned_copy_has_what_the_store_has() {
    let cloud = machine();
    for round in 0..4u64 {
        fs::write(cloud.place.data.join("changing"), noise(100 + round, 60_000)).expect("written");
        cloud.ok(&["snapshot"]);
        cloud.ok(&["gdrive", "push"]);
    }
    cloud.ok(&["forget", "--keep-last", "1"]);
    cloud.ok(&["gc"]);
    let pushed = cloud.ok(&["gdrive", "push", "--json"]);
    assert!(json(&pushed)["extra"].as_u64().expect("a number") > 0, "{pushed:?}");
    assert!(
        cloud.ok(&["gdrive", "push"]).err.contains("--prune") || cloud.ok(&["gdrive", "push"]).out.contains("--prune")
    );
    let pruned = json(&cloud.ok(&["gdrive", "push", "--prune", "--json"]));
    assert!(pruned["removed"].as_u64().expect("a number") > 0 && pruned["extra"] == 0, "{pruned}");
    let packs = cloud.fake.at("nbak-stores").map(|top| cloud.fake.children(&top.id).remove(0));
    let packs = packs.and_then(|own| cloud.fake.children(&own.id).into_iter().find(|folder| folder.name == "packs"));
    assert_eq!(cloud.fake.children(&packs.expect("a folder").id).len(), cloud.place.packs().len());
    let new = cloud.on_a_new_machine();
    new.grant();
    new.ok(&["gdrive", "pull"]);
    let lines = |one: &Cloud| one.ok(&["snapshots", "--json"]).out.lines().count();
    assert_eq!((lines(&new), lines(&cloud)), (1, 1));
    new.ok(&["check", "--read-data"]);
}

/// `auth status` says what the file is, not what it would be; and with a key at hand it is sealed.
#[test]
fn whether_it_is_sealed_is_read_from_the_file() {
    let cloud = Cloud { place: Place::empty(), ..Cloud::new() };
    cloud.grant();
    let grant = cloud.place.data.join(".nbak-google.json");
    assert!(cloud.ok(&["auth", "status"]).out.contains("not sealed"));
    assert!(fs::read_to_string(&grant).expect("read").contains("refresh_token"));
    fs::set_permissions(&cloud.place.data, fs::Permissions::from_mode(0o500)).expect("set");
    let keyed = Cloud { place: Place { key: Some(common::KEY), ..cloud.place }, ..cloud };
    // Where it cannot be sealed it is not called so. (Root may write everywhere.)
    let said = keyed.ok(&["auth", "status"]).out;
    let in_clear = fs::read_to_string(&grant).expect("read").contains("refresh_token");
    assert_eq!(said.contains("not sealed"), in_clear, "{said}");
    fs::set_permissions(&keyed.place.data, fs::Permissions::from_mode(0o700)).expect("set");
    assert!(!keyed.ok(&["auth", "status"]).out.contains("not sealed"));
    assert!(!fs::read_to_string(&grant).expect("read").contains("refresh_token"));
    assert_eq!(json(&keyed.ok(&["auth", "status", "--json"]))["sealed"], true);
}

/// Nothing goes faster than it may, in either direction; and a proxy from the environment is used.
#[test]
fn rates_are_kept_and_proxies_used() {
    let cloud = machine();
    fs::write(cloud.place.data.join("large"), noise(9, 3_000_000)).expect("written");
    made_here(&cloud);
    let took = |one: &Cloud, args: &[&str]| {
        let start = Instant::now();
        one.ok(args);
        start.elapsed().as_secs_f64()
    };
    let up = took(&cloud, &["backup", "gdrive", "upload", "--limit-rate", "2M"]);
    assert!(up > 1.0, "3.4 MB went in {up} s");
    let new = cloud.on_a_new_machine();
    new.grant();
    let down = took(&new, &["backup", "gdrive", "restore", "--yes", "--limit-rate", "2M"]);
    assert!(down > 1.0, "3.4 MB came in {down} s");
    // Nobody listens there: a proxy that is used shows.
    let mut through = cloud.command(&["auth", "revoke"]);
    through.env("http_proxy", "http://127.0.0.1:9").env("no_proxy", "");
    let start = Instant::now();
    let mut child = through.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(child.try_wait().expect("asked").is_none(), "it did not try the proxy: {:?}", start.elapsed());
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(cloud.place.data.join(".nbak-google.json").exists());
}
