//! A service that means harm, or is none: names that lead elsewhere, wrong sizes and checksums, lists without an end,
//! redirects, giant bodies, wrong types. Each is refused with an error, bounded in time and memory; nothing is written
//! outside the target, and no token goes anywhere else.

use std::fs;
use std::path::Path;

use crate::common::noise;
use crate::drive_common::{Cloud, drive, store_grant};
use crate::fake_drive::{FakeDrive, Hostile};
use nbak::drive::backups::{Backups, Choice};
use nbak::drive::mirror::{DriveObjects, stores};
use nbak::drive::owner::Owner;
use nbak::drive::sessions::Sessions;
use nbak::error::Error;
use nbak::export::backup::Backup;
use nbak::export::list::Order;
use nbak::export::manifest::whose::Known;
use nbak::id::StoreId;
use nbak::store::objects::{Key, Kind, Objects};

/// What one machine holds, and what it can do with Drive.
struct Scene {
    cloud: Cloud,
    backup: Backup,
}

impl Scene {
    /// With one backup in Drive.
    fn new() -> Scene {
        let cloud = Cloud::new();
        fs::create_dir(cloud.place.data.join("a")).expect("made");
        fs::write(cloud.place.data.join("a/one"), noise(1, 700_000)).expect("written");
        fs::write(cloud.place.data.join("two"), noise(2, 10)).expect("written");
        cloud.place.ok(&["backup"]);
        store_grant(&cloud);
        let backups = fs::read_dir(cloud.place.data.join("backups")).expect("a folder");
        let path = backups.map(|entry| entry.expect("one").path()).find(|path| path.join("manifest.json").exists());
        let backup = Backup::open(&path.expect("a backup")).expect("it opens");
        let scene = Scene { cloud, backup };
        scene.upload().expect("uploaded");
        scene
    }

    fn with<T>(&self, act: impl FnOnce(&Backups<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let drive = drive(&self.cloud);
        let sessions = Sessions::open(self.cloud.place.data.join(".nbak-state/uploads.json"));
        act(&Backups { drive: &drive, sessions: &sessions, own: &Owner::default() })
    }

    fn assert_is_right(&self, target: &Path) {
        for name in ["a/one", "two", "manifest.json"] {
            let read = |root: &Path| fs::read(root.join(name)).expect("there");
            assert!(read(&target.join("inner")) == read(&self.backup.path), "{name}");
        }
    }

    fn upload(&self) -> Result<(), Error> {
        self.with(|backups| backups.upload(&self.backup, &|_| {})).map(drop)
    }

    /// Into `target/inner`; what is beside `inner` is nobody's business.
    fn download(&self, target: &Path) -> Result<(), Error> {
        let inner = target.join("inner");
        let result = self.with(|backups| {
            backups
                .find(None, &Choice { order: &Order::new(), now_ms: 0, known: &Known::default() })
                .and_then(|(stored, _)| backups.download(&backups.plan(&stored)?, &inner, &|_| Ok(()), &|_| {}))
        });
        let beside: Vec<_> =
            fs::read_dir(target).expect("a folder").map(|entry| entry.expect("one").file_name()).collect();
        assert!(beside.iter().all(|name| name == "inner"), "{beside:?}");
        result.map(drop)
    }
}

fn refused(what: &str, result: Result<(), Error>) -> String {
    let error = result.expect_err(what);
    assert!(error.is_remote() || error.is_integrity() || error.is_no_store(), "{what}: {error}");
    error.to_string()
}

#[test]
fn names_lead_nowhere() {
    let scene = Scene::new();
    let names = ["../evil", "a/../../evil", "/tmp/evil-from-drive", "..", "a\\b", "\u{1b}[2J", "inner/../../evil", ""];
    scene.cloud.fake.hostile(Hostile::InjectNames(names.map(str::to_owned).to_vec()));
    let target = tempfile::tempdir().expect("a folder");
    // What the manifest does not name is not written, and what it names is there.
    scene.download(target.path()).expect("the backup itself is whole");
    assert_eq!(fs::read_dir(target.path().join("inner")).expect("a folder").count(), 3);
    assert!(!Path::new("/tmp/evil-from-drive").exists());
    // A manifest may not name them either.
    let scene = Scene::new();
    let folder = scene.cloud.fake.at(&format!("nodyn-backups/{}", scene.backup.name)).expect("there");
    let manifest = scene.cloud.fake.at(&format!("nodyn-backups/{}/manifest.json", scene.backup.name)).expect("there");
    let text = String::from_utf8(manifest.content.to_vec()).expect("JSON").replace("\"a/one\"", "\"../one\"");
    scene.cloud.fake.remove(&manifest.id);
    scene.cloud.fake.add_file(&folder.id, "manifest.json", text.as_bytes());
    let target = tempfile::tempdir().expect("a folder");
    let why = refused("a path that leads out", scene.download(target.path()));
    assert!(why.contains("no complete backup"), "{why}");
    let damage = scene.with(|backups| Ok(backups.list()?.remove(0).listed.damage)).expect("a list");
    assert!(damage.as_ref().is_some_and(|why| why.contains("..")), "{damage:?}");
}

/// The application flattens folders into names, and another client may not: both are read.
#[test]
fn names_with_folders_in_them_are_read() {
    let scene = Scene::new();
    let fake = &scene.cloud.fake;
    let top = format!("nodyn-backups/{}", scene.backup.name);
    let file = fake.at(&format!("{top}/a/one")).expect("there");
    let folder = fake.at(&top).expect("there");
    fake.remove(&fake.at(&format!("{top}/a")).expect("there").id);
    fake.add_file(&folder.id, "a/one", &file.content);
    let target = tempfile::tempdir().expect("a folder");
    scene.download(target.path()).expect("downloaded");
    scene.assert_is_right(target.path());
}

/// Two machines that make a backup in the same second: neither takes the other's for its own.
#[test]
fn another_machine_of_the_same_second_is_left_alone() {
    let scene = Scene::new();
    let fake = &scene.cloud.fake;
    let top = fake.at("nodyn-backups").expect("there");
    let folder = fake.at(&format!("nodyn-backups/{}", scene.backup.name)).expect("there");
    // As if another machine had made it.
    fake.change(&folder.id, |file| _ = file.app_properties.insert("nbak_backup".to_owned(), "f".repeat(64)));
    let before = fake.children(&folder.id).len();
    scene.upload().expect("uploaded");
    assert_eq!(fake.children(&folder.id).len(), before);
    let folders = fake.children(&top.id);
    assert_eq!(folders.len(), 2);
    let name = scene.backup.name.clone();
    let why = scene
        .with(|backups| {
            backups.find(Some(&name), &Choice { order: &Order::new(), now_ms: 0, known: &Known::default() }).map(drop)
        })
        .expect_err("it is not clear which")
        .to_string();
    assert!(folders.iter().all(|folder| why.contains(&folder.id)), "{why}");
    scene
        .with(|backups| {
            backups
                .find(Some(&folders[1].id), &Choice { order: &Order::new(), now_ms: 0, known: &Known::default() })
                .map(drop)
        })
        .expect("by its id");
}

/// What is wrong there is no backup while it is mended.
#[test]
fn a_backup_that_is_mended_is_none_meanwhile() {
    let scene = Scene::new();
    let fake = &scene.cloud.fake;
    let file = fake.at(&format!("nodyn-backups/{}/a/one", scene.backup.name)).expect("there");
    fake.remove(&file.id);
    fake.storage_quota(1000);
    scene.upload().expect_err("there is no room");
    let damage = scene.with(|backups| Ok(backups.list()?.remove(0).listed.damage)).expect("a list");
    assert!(damage.is_some_and(|why| why.contains("incomplete")));
    fake.storage_quota(None);
    scene.upload().expect("uploaded");
    scene.cloud.assert_holds_once(&scene.backup.path);
}

#[test]
fn lies_about_files_are_noticed() {
    for (what, hostile) in
        [("a wrong size", Hostile::WrongSize("7".to_owned())), ("a wrong checksum", Hostile::WrongChecksum)]
    {
        let scene = Scene::new();
        scene.cloud.fake.hostile(hostile);
        let target = tempfile::tempdir().expect("a folder");
        let why = refused(what, scene.download(target.path()));
        assert!(why.contains("one") || why.contains("two") || why.contains("complete"), "{what}: {why}");
    }
    // More bytes than were asked for are not written.
    let scene = Scene::new();
    scene.cloud.fake.hostile(Hostile::LongMedia(100));
    let target = tempfile::tempdir().expect("a folder");
    match scene.download(target.path()) {
        Ok(()) => scene.assert_is_right(target.path()),
        Err(error) => drop(refused("media longer than its size", Err(error))),
    }
    // Bytes that rotted there, under a checksum of before.
    let scene = Scene::new();
    let file = scene.cloud.fake.at(&format!("nodyn-backups/{}/a/one", scene.backup.name)).expect("there");
    assert!(scene.cloud.fake.corrupt(&file.id, 5));
    let target = tempfile::tempdir().expect("a folder");
    let why = refused("rot", scene.download(target.path()));
    assert!(why.contains("a/one"), "{why}");
    assert!(!target.path().join("inner/manifest.json").exists(), "a half is no backup");
    // An upload that arrives as something else is not called done.
    let scene = Scene::new();
    scene.cloud.empty_the_drive();
    scene.cloud.fake.hostile(Hostile::WrongChecksum);
    let why = refused("an upload that arrives as something else", scene.upload());
    assert!(why.contains("another content"), "{why}");
}

#[test]
fn answers_have_an_end_and_a_form() {
    let kinds = ["files.list", "files.generateIds", "files.media", "files.get"];
    let mut all = vec![("endless pages", Hostile::EndlessPages)];
    for kind in kinds {
        all.push(("giant", Hostile::Giant(kind.to_owned(), 200_000_000)));
        all.push(("no JSON", Hostile::Canned(kind.to_owned(), 200, b"<html>".to_vec())));
        all.extend((0..3).map(|depth| ("wrong types", Hostile::WrongTypes(kind.to_owned(), depth))));
    }
    let mut refusals = 0;
    for (what, hostile) in all {
        let scene = Scene::new();
        let what = format!("{what}: {hostile:?}");
        scene.cloud.fake.hostile(hostile);
        let target = tempfile::tempdir().expect("a folder");
        // Each either fails with an error or was of no consequence: then what came is right.
        match scene.download(target.path()) {
            Ok(()) => scene.assert_is_right(target.path()),
            Err(error) => {
                refusals += 1;
                refused(&what, Err(error));
            }
        }
        scene.cloud.fake.behave();
        scene.cloud.empty_the_drive();
    }
    assert!(refusals >= 6, "{refusals}");
}

#[test]
fn nobody_else_sees_a_token_or_the_data() {
    let trap = FakeDrive::start();
    for kind in
        ["files.list", "files.media", "files.create", "upload.start", "upload.put", "files.generateIds", "token"]
    {
        let scene = Scene::new();
        if kind.starts_with("upload") || kind.contains("create") || kind.contains("Ids") {
            scene.cloud.empty_the_drive();
        }
        if kind == "token" {
            scene.cloud.fake.expire_tokens();
        }
        scene.cloud.fake.hostile(Hostile::Redirect(kind.to_owned(), trap.base()));
        let target = tempfile::tempdir().expect("a folder");
        let upload = scene.upload();
        let why = if upload.is_err() { upload } else { scene.download(target.path()) };
        let why = refused(kind, why);
        assert!(why.contains("elsewhere") || why.contains("302"), "{kind}: {why}");
    }
    let scene = Scene::new();
    scene.cloud.empty_the_drive();
    scene.cloud.fake.hostile(Hostile::SessionElsewhere(trap.base()));
    let why = refused("a session elsewhere", scene.upload());
    assert!(why.contains("not Google's"), "{why}");
    assert_eq!(trap.log(), Vec::<String>::new());
}

/// Drive's objects keep the contract of the storage seam; `tests/objects.rs` has it for the others.
#[test]
fn objects_in_drive_keep_the_contract() {
    let cloud = Cloud::new();
    store_grant(&cloud);
    let drive = drive(&cloud);
    let sessions = Sessions::open(cloud.place.data.join(".nbak-state/uploads.json"));
    let own = Owner::default();
    let open = || DriveObjects::open(&drive, &sessions, &own, StoreId([7; 16])).expect("opened");
    let objects = open();
    let key = |n: u8| Key::new(Kind::Pack, [n; 16]);
    drop(objects.put(key(1), &[b"one", b"", b" and ", b"two"]).expect("a put"));
    drop(objects.put(key(2), &[]).expect("a put"));
    let large = noise(3, 6_000_000);
    drop(objects.put(key(3), &[&large[..1_000_001], &large[1_000_001..]]).expect("a put"));
    assert!(objects.put(key(1), &[b"other"]).expect_err("the name is taken").to_string().contains("packs/0101"));
    // Seen by another, too.
    for objects in [&objects, &open()] {
        assert_eq!(objects.get(key(1), 11).expect("read"), b"one and two");
        assert_eq!(
            (objects.size(key(2)).expect("a size"), objects.get_range(key(2), 0, 0).expect("read").len()),
            (0, 0)
        );
        assert_eq!(objects.get_range(key(3), 5_999_990, 10).expect("read"), large[5_999_990..]);
        let mut listed = objects.list(Kind::Pack).expect("a list");
        listed.sort_unstable();
        assert_eq!(listed, [[1; 16], [2; 16], [3; 16]]);
        assert!(objects.list(Kind::Slot).expect("a list").is_empty());
        for missing in [objects.get_range(key(9), 0, 1), objects.get_range(key(1), 5, 7), objects.get(key(9), 10)] {
            assert!(missing.expect_err("it is not there").is_integrity());
        }
        assert!(!objects.get(key(1), 10).expect_err("it is too large").to_string().is_empty());
    }
    objects.delete(key(1)).expect("removed");
    objects.delete(key(1)).expect("that it is not there is no failure");
    assert!(objects.size(key(1)).expect_err("it is gone").is_integrity());
    assert_eq!(open().list(Kind::Pack).expect("a list").len(), 2);
    assert_eq!(stores(&drive).expect("a list").into_keys().collect::<Vec<_>>(), [StoreId([7; 16])]);
}
