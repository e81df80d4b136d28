//! What is done while the power fails, and what was there before.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use super::disk::{Change, Disk};
use super::image::{MEDIA, Medium, killed};
use super::inplace::{self, Origin};
use super::judge;
use super::record::record;
use crate::common::{KEY, OTHER_KEY, Place, database, noise};

/// Paths and bytes; of a folder none.
pub type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Something that is done, and how to tell that all is well.
pub struct Scene {
    pub name: &'static str,
    pub place: Place,
    /// What is done.
    pub args: Vec<String>,
    /// What anybody would do next.
    pub next: Vec<String>,
    /// Snapshots that must be there whatever happens, and what they hold.
    pub kept: Vec<(String, Contents)>,
    /// Snapshots that the deed is about.
    pub doomed: Vec<String>,
    /// What lies in the data directory.
    pub data: Contents,
    /// A path whose coming into being is to be noted.
    pub note: Option<PathBuf>,
    /// What a restore that is half done has replaced.
    pub replaced: Contents,
    /// On what the power fails.
    pub media: &'static [Medium],
    pub judge: fn(&Scene, &str, &str),
}

fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

/// What is in a folder; not what nbak itself put there.
pub fn contents(top: &Path) -> Contents {
    let own = |path: &Path| {
        let first = path.components().next().expect("a path").as_os_str().to_string_lossy().into_owned();
        first.starts_with(".nbak-") || first == "backups"
    };
    let bytes = |thing: crate::common::Thing| (thing.kind != "directory").then_some(thing.bytes);
    let all = crate::common::tree(top).into_iter().filter(|(path, _)| !own(path));
    all.map(|(path, thing)| (path, bytes(thing))).collect()
}

fn change(data: &Path, nth: u64) {
    let conn = Connection::open(data.join("history.db")).expect("open");
    conn.execute_batch(&format!(
        "UPDATE t SET v = 'version {nth}' WHERE id % 5 = {}; INSERT INTO t(v) VALUES (hex(randomblob(400)));",
        nth % 5
    ))
    .expect("changed");
    conn.close().expect("closed");
    fs::write(data.join("memory/notes.md"), format!("note {nth}\n").repeat(300)).expect("written");
    fs::write(data.join(format!("memory/new {nth}")), noise(nth, 9000)).expect("written");
    fs::write(data.join("graph"), noise(100 + nth, 20_000)).expect("written");
}

fn snapshot(place: &Place) -> String {
    let said: Value = serde_json::from_str(&place.ok(&["snapshot", "--json"]).out).expect("JSON");
    said["snapshot"].as_str().expect("an id").to_owned()
}

impl Scene {
    fn new(name: &'static str, args: &[&str], judge: fn(&Scene, &str, &str)) -> Scene {
        // In memory where that can be: it is not this disk whose power fails.
        let folder = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a folder");
        let top = folder.path().canonicalize().expect("a real path");
        let (data, repo) = (top.join("data"), top.join("repo"));
        let place = Place { folder, data, repo, key: Some(KEY) };
        fs::create_dir_all(place.data.join("memory/deep")).expect("made");
        fs::write(place.data.join("memory/deep/stays"), noise(1, 30_000)).expect("written");
        database(&place.data.join("history.db"), "WAL", 60);
        database(&place.data.join("engine.db"), "DELETE", 20);
        change(&place.data, 0);
        let (args, next) = (strings(args), strings(&["snapshot"]));
        let (kept, doomed, data, replaced) = (Vec::new(), Vec::new(), Contents::new(), Contents::new());
        Scene { name, place, args, next, kept, doomed, data, note: None, replaced, media: &MEDIA, judge }
    }

    /// Takes so many snapshots, of which those in `doomed` may go.
    fn with(mut self, count: u64, doomed: &[u64]) -> Scene {
        for nth in 1..=count {
            change(&self.place.data, nth);
            let id = snapshot(&self.place);
            if doomed.contains(&nth) {
                self.doomed.push(id);
            } else {
                self.kept.push((id, contents(&self.place.data)));
            }
        }
        self
    }

    fn then(mut self, act: impl FnOnce(&mut Scene)) -> Scene {
        act(&mut self);
        self.data = contents(&self.place.data);
        self
    }

    /// All that the program may change.
    pub fn top(&self) -> PathBuf {
        self.place.data.parent().expect("a parent").to_owned()
    }

    /// Makes the real folder be this disk.
    pub fn lay(&self, disk: &Disk, origin: Origin<'_>) {
        let placed = disk.write(&self.top());
        if self.note.is_some() {
            inplace::renumber(&self.place.data, origin, &placed);
        }
    }
}

pub fn first_snapshot() -> Scene {
    Scene::new("first snapshot", &["snapshot", "--json"], judge::snapshot).then(|_| {})
}

pub fn later_snapshot() -> Scene {
    let scene = Scene::new("later snapshot", &["snapshot", "--json"], judge::snapshot).with(3, &[]);
    scene.then(|scene| change(&scene.place.data, 9))
}

/// After so many small packs a snapshot puts them together.
pub fn swarm() -> Scene {
    let all: Vec<u64> = (1..=31).filter(|nth| nth % 12 != 6).collect();
    let mut scene = Scene::new("putting packs together", &["snapshot", "--json"], judge::snapshot).with(31, &all);
    // None of them is forgotten: they are too many to look at each time.
    scene.doomed.clear();
    scene.then(|scene| change(&scene.place.data, 40))
}

pub fn forget() -> Scene {
    let scene = Scene::new("forget", &["forget"], judge::forget).with(4, &[1, 3]);
    scene.then(|scene| {
        scene.args.extend(scene.doomed.clone());
        scene.next = scene.args.clone();
    })
}

pub fn gc() -> Scene {
    let scene = Scene::new("gc", &["gc"], judge::gc).with(6, &[1, 2, 4, 5]);
    scene.then(|scene| {
        let args = [strings(&["forget"]), scene.doomed.clone()].concat();
        scene.place.ok(&args);
        scene.next = strings(&["gc"]);
    })
}

/// A file with another key, in no folder whose power fails.
fn other_key() -> String {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("nbak-power-{}", std::process::id()));
    fs::write(&file, OTHER_KEY).expect("a key");
    file.to_str().expect("text").to_owned()
}

pub fn rotation() -> Scene {
    let scene = Scene::new("key rotation", &["key", "rotate", "--new-vault-key-file"], judge::rotation).with(2, &[]);
    scene.then(|scene| scene.args.push(other_key()))
}

pub fn key_added() -> Scene {
    let args = ["key", "add", "--new-vault-key-file"];
    Scene::new("a key that is added", &args, judge::key_added).with(2, &[]).then(|scene| scene.args.push(other_key()))
}

pub fn key_removed() -> Scene {
    let scene = Scene::new("a key that is removed", &["key", "remove"], judge::key_removed).with(2, &[]);
    scene.then(|scene| {
        let said = scene.place.ok(&["key", "add", "--new-vault-key-file", &other_key(), "--json"]).out;
        let said: Value = serde_json::from_str(&said).expect("JSON");
        scene.args.push(said["slot"].as_str().expect("an id").to_owned());
    })
}

pub fn repair() -> Scene {
    Scene::new("repair of the index", &["repair", "index"], judge::snapshot).with(3, &[]).then(|_| {})
}

pub fn backup() -> Scene {
    let scene = Scene::new("backup", &["backup", "--json"], judge::backup).with(1, &[]);
    scene.then(|scene| {
        scene.place.ok(&["backup"]);
        change(&scene.place.data, 9);
        scene.next = strings(&["backup"]);
    })
}

pub fn restore() -> Scene {
    let scene = Scene::new("restore", &["restore", "latest", "--target"], judge::restore).with(2, &[]);
    scene.then(|scene| {
        let target = scene.top().join("target").to_str().expect("text").to_owned();
        scene.args.push(target);
        scene.next = [scene.args.clone(), strings(&["--overwrite"])].concat();
    })
}

pub fn restore_in_place() -> Scene {
    let scene = Scene::new("restore in place", &["restore"], judge::restore_in_place).with(1, &[]);
    scene.then(|scene| {
        change(&scene.place.data, 9);
        fs::remove_file(scene.place.data.join("memory/deep/stays")).expect("removed");
        fs::remove_dir(scene.place.data.join("memory/deep")).expect("removed");
        fs::write(scene.place.data.join("extra"), "not in the snapshot").expect("written");
        scene.args.extend([scene.kept[0].0.clone(), "--in-place".to_owned(), "--yes".to_owned()]);
        scene.next = strings(&["snapshots"]);
        scene.note = Some(PathBuf::from("data/.nbak-restore/intent"));
        // It exchanges files between folders, and no order of syncs makes that safe where a rename is two writes.
        scene.media = &[Medium::Journal];
    })
}

/// The same, killed in its middle, and then given up.
pub fn giving_up() -> Scene {
    let mut scene = restore_in_place();
    let replaced = contents(&scene.place.data);
    let recording = record(&scene.place.command(&scene.args), &scene.top(), scene.note.as_deref());
    let (begun, names) = recording.noted.as_ref().expect("a journal");
    let renames = recording.steps.iter().enumerate().skip(*begun);
    let renames: Vec<usize> =
        renames.filter(|(_, step)| matches!(step.change, Change::Rename { .. })).map(|(at, _)| at).collect();
    let half = killed(&recording, renames[renames.len() / 2]);
    scene.lay(&half.disk, Origin::Names(names));
    scene.name = "giving a restore in place up";
    scene.args = strings(&["restore", "--abandon"]);
    scene.next = strings(&["snapshot"]);
    scene.judge = judge::giving_up;
    scene.data = contents(&scene.place.data);
    let (live, new) = (&scene.data, &scene.kept[0].1);
    scene.replaced = replaced;
    scene.replaced.retain(|path, was| was.is_some() && live.get(path) != Some(was) && live.get(path) == new.get(path));
    assert!(!scene.replaced.is_empty() && live != new, "it is half done");
    scene
}
