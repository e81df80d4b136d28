//! What is damaged, thrown away, or another's, here or in Google Drive, is never taken over: not in a copy there, nor
//! in what is here. Each test shows that what was good before is good afterwards, and that the exit code says what
//! happened.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{Place, Run, noise};
use crate::drive_common::Cloud;
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
    crate::common::tree(root).into_iter().map(|(path, thing)| (path, thing.bytes)).collect()
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
    let all = crate::common::tree(root);
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

/// What goes into the bin after it came, and before all of the backup did, is not there.
#[test]
fn what_goes_while_a_backup_is_uploaded_is_missed() {
    let cloud = machine();
    fs::write(cloud.place.data.join("large"), noise(9, 8_000_000)).expect("written");
    made_here(&cloud);
    let upload = ["backup", "gdrive", "upload", "--limit-rate", "4M"];
    let child = cloud.command(&upload).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let begun = Instant::now();
    let small = loop {
        let found = cloud.fake.files().into_iter().find(|file| file.name.starts_with("one"));
        if let Some(found) = found {
            break found;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it never came");
        std::thread::sleep(Duration::from_millis(5));
    };
    cloud.fake.change(&small.id, |file| file.trashed = true);
    let ended = child.wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(14) && said.contains("one"), "{ended:?}");
    cloud.ok(&["backup", "gdrive", "upload"]);
    let name = json(&cloud.ok(&["backup", "gdrive", "list", "--json"]))["name"].as_str().expect("a name").to_owned();
    cloud.ok(&["backup", "gdrive", "verify", &name]);
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
    assert_eq!(new.place.packs().len(), packs.len() - 1, "all else came");
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
    let grant = cloud.place.data.join(".nbak-state/google.json");
    assert!(cloud.ok(&["auth", "status"]).out.contains("not sealed"));
    assert!(fs::read_to_string(&grant).expect("read").contains("refresh_token"));
    fs::set_permissions(&cloud.place.data, fs::Permissions::from_mode(0o500)).expect("set");
    let keyed = Cloud { place: Place { key: Some(crate::common::KEY), ..cloud.place }, ..cloud };
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
    // A proxy from the environment is asked for a way to Google; for a server on this machine there is none.
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", proxy.local_addr().expect("an address"));
    let mut here = cloud.command(&["auth", "status"]);
    here.env("http_proxy", &address).env("HTTPS_PROXY", &address).env("no_proxy", "");
    assert_eq!(Run::of(here).code, 0);
    let mut through = cloud.command(&["auth", "status"]);
    through.env_remove("NBAK_GOOGLE_BASE").env("HTTPS_PROXY", &address).env("no_proxy", "");
    let mut child = through.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    let (mut stream, _) = proxy.accept().expect("it comes");
    let mut head = [0; 64];
    let read = stream.read(&mut head).expect("read");
    let head = String::from_utf8_lossy(&head[..read]).into_owned();
    assert!(head.starts_with("CONNECT oauth2.googleapis.com:443"), "{head}");
    child.kill().expect("killed");
    child.wait().expect("ended");
}

/// Several machines share an account: nobody restores another's unasked, and nobody removes another's last one.
#[test]
fn machines_do_not_take_each_others() {
    let cloud = machine();
    cloud.ok(&["backup"]);
    let first = newest_backup(&cloud).file_name().expect("a name").to_string_lossy().into_owned();
    let second = cloud.on_a_new_machine();
    second.grant();
    fs::write(second.place.data.join("else"), noise(8, 1000)).expect("written");
    std::thread::sleep(Duration::from_millis(1100));
    second.ok(&["backup"]);
    // Each has its own; a third has to say whose.
    cloud.ok(&["backup", "gdrive", "restore", "--yes"]);
    assert!(!cloud.place.data.join("else").exists());
    let third = cloud.on_a_new_machine();
    third.grant();
    let refused = third.run(&["backup", "gdrive", "restore", "--yes"]);
    assert!(refused.code == 2 && refused.err.contains(&first) && refused.err.contains("by its id"), "{refused:?}");
    let listed = third.ok(&["backup", "gdrive", "list"]).out;
    assert!(listed.contains(&*second.place.data.to_string_lossy()), "{listed}");
    // However old: the newest of each stays, whoever prunes. An older one of the same machine goes.
    std::thread::sleep(Duration::from_millis(1100));
    cloud.ok(&["backup"]);
    for folder in cloud.fake.at("nodyn-backups").map(|top| cloud.fake.children(&top.id)).unwrap_or_default() {
        assert!(folder.app_properties.contains_key("nbak_machine"));
        cloud.age(&folder.id);
    }
    let count = || third.ok(&["backup", "gdrive", "list"]).out.lines().count();
    assert_eq!(count(), 3);
    third.ok(&["backup", "gdrive", "prune", "--days", "1"]);
    second.ok(&["backup", "gdrive", "prune", "--days", "1"]);
    assert_eq!(count(), 3, "nobody prunes another's unasked");
    third.ok(&["backup", "gdrive", "prune", "--days", "1", "--every-machine"]);
    let left = third.ok(&["backup", "gdrive", "list"]).out;
    assert!(count() == 2 && !left.contains(&first) && left.contains(&*second.place.data.to_string_lossy()), "{left}");
}

/// Who uploaded once is told when there is no access any more, until it is taken back on purpose.
#[test]
fn a_lost_grant_is_told() {
    let cloud = machine();
    cloud.ok(&["backup"]);
    fs::remove_file(cloud.place.data.join(".nbak-state/google.json")).expect("removed");
    std::thread::sleep(Duration::from_millis(1100));
    let told = cloud.run(&["backup"]);
    assert!(told.code == 14 && told.err.contains("nbak auth google"), "{told:?}");
    let lost = newest_backup(&cloud).file_name().expect("a name").to_string_lossy().into_owned();
    cloud.grant();
    std::thread::sleep(Duration::from_millis(1100));
    cloud.ok(&["backup"]);
    assert!(cloud.ok(&["backup", "gdrive", "list"]).out.contains(&lost), "it was made up for");
    // At Google it was taken back: that is what status says.
    cloud.fake.invalid_grant(true);
    let refused = cloud.run(&["auth", "status"]);
    assert!(refused.code == 14 && refused.err.contains("does not accept"), "{refused:?}");
    assert!(cloud.ok(&["auth", "status", "--offline"]).out.contains("not asked"));
    cloud.fake.invalid_grant(false);
    let mut nobody = cloud.command(&["auth", "revoke"]);
    nobody.env_remove("GOOGLE_CLIENT_ID").env_remove("GOOGLE_CLIENT_SECRET");
    assert_eq!(Run::of(nobody).code, 0);
    std::thread::sleep(Duration::from_millis(1100));
    cloud.ok(&["backup"]);
}

/// What a restore would refuse is refused before anything is downloaded; what is here already is not downloaded again.
#[test]
fn nothing_is_downloaded_in_vain() {
    let cloud = machine();
    cloud.ok(&["backup"]);
    cloud.ok(&["backup", "gdrive", "verify"]);
    let new = cloud.on_a_new_machine();
    new.grant();
    let before = cloud.fake.bytes_out();
    let small = |cloud: &Cloud| cloud.fake.bytes_out() - before < 50_000;
    assert_eq!(new.run(&["backup", "gdrive", "restore"]).code, 2);
    assert_eq!(new.run(&["backup", "gdrive", "restore", "--yes", "--only", "nowhere"]).code, 2);
    assert!(small(&cloud), "{} bytes came for nothing", cloud.fake.bytes_out() - before);
    // Under a wrong key one small file is enough to tell.
    let wrong = cloud.on_a_new_machine();
    let other = wrong.place.path("other");
    fs::write(&other, "YW5vdGhlciBrZXkgb2YgdGhlIHNhbWUgbGVuZ3RoIGFzIHRoZSBmaXJzdA==").expect("written");
    let with_other =
        |args: &[&str]| wrong.run(&[args, &["--vault-key-file", other.to_str().expect("a path")]].concat());
    assert_eq!(with_other(&["auth", "google", "--device"]).code, 0);
    let refused = with_other(&["backup", "gdrive", "restore", "--yes"]);
    assert!(refused.code == 12 && small(&cloud), "{} bytes: {refused:?}", cloud.fake.bytes_out() - before);
    // On the machine that has it, it is taken from there.
    fs::remove_file(cloud.place.data.join("three")).expect("removed");
    let restored = cloud.ok(&["backup", "gdrive", "restore", "--yes"]);
    assert!(restored.err.contains("on this machine already") && small(&cloud), "{restored:?}");
    assert_eq!(fs::read(cloud.place.data.join("three")).expect("back"), noise(3, 300_000));
    assert!(!cloud.place.data.join("backups/.nbak-gdrive").exists());
    // A file in the bin shows in a verify, and an upload mends it.
    let victim = cloud.fake.files().into_iter().find(|file| file.name.starts_with("two")).expect("there");
    cloud.fake.change(&victim.id, |file| file.trashed = true);
    let name = json(&cloud.ok(&["backup", "gdrive", "list", "--json"]))["name"].as_str().expect("a name").to_owned();
    let refused = cloud.run(&["backup", "gdrive", "verify", &name]);
    assert!(refused.code == 13 && refused.err.contains("two") && refused.err.contains("mends it"), "{refused:?}");
    cloud.ok(&["backup", "gdrive", "upload", &name]);
    cloud.ok(&["backup", "gdrive", "verify", &name]);
}

/// A machine whose only backup there is not complete gets no other machine's; its own is told of.
#[test]
fn an_own_incomplete_backup_is_no_reason_to_take_anothers() {
    let cloud = machine();
    cloud.ok(&["backup"]);
    let other = cloud.on_a_new_machine();
    let whose = |name: &str| cloud.fake.files().into_iter().find(|file| file.name == name).expect("there");
    let name = json(&cloud.ok(&["backup", "list", "--json"]))["name"].as_str().expect("a name").to_owned();
    // The upload of the other has begun, and has no manifest: it is of the same machine, and of another directory.
    let folder = whose(&name);
    let mut properties = folder.app_properties.clone();
    let source = other.place.data.canonicalize().expect("real").to_string_lossy().into_owned();
    properties.insert("nbak_source".to_owned(), source);
    let begun = cloud.fake.add_folder(&folder.parents[0], "20260101T000000Z");
    cloud.fake.change(&begun, |file| file.app_properties.clone_from(&properties));
    other.grant();
    for args in [&["backup", "gdrive", "restore", "--yes"][..], &["backup", "gdrive", "verify"]] {
        let refused = other.run(args);
        assert!(refused.code == 10 && refused.err.contains("no complete backup of this machine"), "{refused:?}");
    }
    let listed = other.ok(&["backup", "gdrive", "list"]).out;
    assert!(listed.contains("incomplete") && listed.contains("(of "), "{listed}");
    // Here an older one is taken, and it is said that there is a newer one.
    let own = cloud.place.data.canonicalize().expect("real").to_string_lossy().into_owned();
    properties.insert("nbak_source".to_owned(), own);
    cloud.fake.change(&begun, |file| file.app_properties.clone_from(&properties));
    let restored = cloud.ok(&["backup", "gdrive", "restore", "--yes"]);
    assert!(restored.err.contains("20260101T000000Z there is newer, and not complete"), "{restored:?}");
}

/// One that was made while a restore in place was half done says so there too, and is not the one that is meant.
#[test]
fn a_mixture_is_passed_over_there_too() {
    let cloud = machine();
    cloud.ok(&["backup"]);
    std::thread::sleep(Duration::from_millis(1100));
    let pending = cloud.place.data.join(".nbak-restore");
    fs::create_dir(&pending).expect("made");
    fs::write(pending.join("intent"), "a journal that nobody can read").expect("written");
    let run = cloud.run(&["backup", "--json"]);
    assert_eq!(run.code, 3, "{run:?}");
    let mixed = json(&run)["name"].as_str().expect("a name").to_owned();
    fs::remove_dir_all(&pending).expect("removed");
    let listed = cloud.ok(&["backup", "gdrive", "list"]).out;
    assert_eq!(listed.matches("incomplete: old and new data").count(), 1, "{listed}");
    let verified = cloud.ok(&["backup", "gdrive", "verify"]);
    assert!(verified.err.contains(&mixed) && verified.err.contains("passed over"), "{verified:?}");
    let verified = cloud.run(&["backup", "gdrive", "verify", &mixed]);
    assert!(verified.code == 3 && verified.out.contains("it is incomplete: old and new data"), "{verified:?}");

    let other = cloud.on_a_new_machine();
    other.grant();
    let restored = other.ok(&["backup", "gdrive", "restore", "--yes"]);
    assert!(restored.err.contains(&mixed) && restored.err.contains("passed over"), "{restored:?}");
    let restored = other.run(&["backup", "gdrive", "restore", &mixed, "--yes"]);
    assert!(restored.code == 3 && restored.err.contains("the backup is incomplete: old and new data"), "{restored:?}");
    // What was downloaded says what it did.
    let verified = other.run(&["backup", "verify", &mixed]);
    assert!(verified.code == 3 && verified.err.contains("half done"), "{verified:?}");
}

/// A prune looks at the files of what it keeps: a newest backup that lost something there costs no older one.
#[test]
fn the_last_that_restores_is_not_pruned() {
    let cloud = machine();
    cloud.ok(&["backup"]);
    let first = newest_backup(&cloud);
    cloud.age(&cloud.fake.at("nodyn-backups").map(|top| cloud.fake.children(&top.id)).expect("there")[0].id);
    std::thread::sleep(Duration::from_millis(1100));
    cloud.ok(&["backup"]);
    let second = newest_backup(&cloud).file_name().expect("a name").to_string_lossy().into_owned();
    let folder = cloud.fake.at(&format!("nodyn-backups/{second}")).expect("there");
    let lost = cloud.fake.children(&folder.id).into_iter().find(|file| file.name.starts_with("two")).expect("there");
    cloud.fake.change(&lost.id, |file| file.trashed = true);
    cloud.ok(&["backup", "gdrive", "prune", "--days", "30"]);
    let name = first.file_name().expect("a name").to_string_lossy().into_owned();
    cloud.ok(&["backup", "gdrive", "verify", &name]);
    cloud.fake.change(&lost.id, |file| file.trashed = false);
    cloud.ok(&["backup", "gdrive", "prune", "--days", "30"]);
    assert_eq!(cloud.run(&["backup", "gdrive", "verify", &name]).code, 10, "now it goes");
}

/// What is in a folder that an older manifest names as a whole: nobody can tell which copy is right.
#[test]
fn unvouched_folders_are_left_alone_where_they_differ() {
    let cloud = machine();
    let backup = cloud.place.data.join("backups/20260326T030000Z");
    fs::create_dir_all(backup.join("knowledge-graph")).expect("made");
    for name in ["one", "two"] {
        fs::write(backup.join("knowledge-graph").join(name), noise(7, 500)).expect("written");
    }
    let empty = nbak::export::files::sha256(&mut &b""[..]).expect("read").0;
    let manifest = format!(
        r#"{{"version": "1.0.0", "created_at": "2026-03-26T03:00:00.000Z", "nodyn_dir": "/home/x/.nodyn",
        "encrypted": false,
        "files": [{{"path": "knowledge-graph", "size_bytes": 0, "checksum_sha256": "", "type": "kuzu_dir"}}],
        "checksum": "{empty}"}}"#
    );
    fs::write(backup.join("manifest.json"), manifest).expect("written");
    cloud.ok(&["backup", "gdrive", "upload", "20260326T030000Z"]);
    let before = there(&cloud);
    let file = backup.join("knowledge-graph/two");
    let whole = fs::read(&file).expect("read");
    for damage in [|path: &Path| fs::remove_file(path).expect("removed"), |path: &Path| flip(path, 100)] {
        damage(&file);
        let refused = cloud.run(&["backup", "gdrive", "upload", "20260326T030000Z"]);
        assert!(refused.code == 13 && refused.err.contains("knowledge-graph"), "{refused:?}");
        assert!(there(&cloud) == before);
        fs::write(&file, &whole).expect("written");
    }
    cloud.ok(&["backup", "gdrive", "upload", "20260326T030000Z"]);
}
