//! The power fails while files go to Drive or come from there. What Drive has is what it had when all was done: it is
//! this machine's disk that loses something. (Kills at any moment of a transfer, with what Drive has then, are in
//! `drive/story.rs` and `drive/ahead.rs`.)

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::draws::failures;
use super::image::{Image, MEDIA, Medium, killed};
use super::inplace::{self, Origin};
use super::record::record;
use crate::common::strace::can_trace;
use crate::common::{Random, noise, rounds};
use crate::drive_common::{Cloud, store_grant};

fn fails_at_any_step(name: &str, cloud: &Cloud, args: &[&str], media: &[Medium], judge: &dyn Fn(&str, &str)) {
    if !can_trace() {
        return;
    }
    let mut random = Random::seeded(name);
    let top = cloud.place.data.parent().expect("a parent").canonicalize().expect("a real path");
    let recording = record(&cloud.command(args), &top, Some(Path::new("data/.nbak-restore/intent")));
    assert_eq!(recording.code, Some(0), "{name}");
    let count = recording.steps.len() as u64;
    let none = (0, BTreeMap::new());
    let (_, names) = recording.noted.as_ref().unwrap_or(&none);
    let show = |image: Image, what: &str| {
        let placed = image.disk.write(&top);
        inplace::renumber(&cloud.place.data, Origin::Names(names), &placed);
        judge(&image.said, &format!("{name}, of {count} steps: {what}"));
    };
    for _ in 0..2 * rounds() {
        let at = random.below(count + 1) as usize;
        show(killed(&recording, at), &format!("killed after {at}"));
    }
    let tally = failures(&recording, media, &mut random, &mut |image, failure| show(image, &format!("{failure:?}")));
    println!("{name}: {count} steps, {} kills, {tally}", 2 * rounds());
}

/// With a backup and two snapshots.
fn machine() -> Cloud {
    let cloud = Cloud::new();
    fs::create_dir_all(cloud.place.data.join("a/deep/er")).expect("made");
    for (name, seed, size) in [("one", 1, 10), ("a/two", 2, 70_000), ("a/deep/er/three", 3, 400_000)] {
        fs::write(cloud.place.data.join(name), noise(seed, size)).expect("written");
    }
    crate::common::database(&cloud.place.data.join("history.db"), "WAL", 60);
    cloud.place.ok(&["snapshot"]);
    fs::write(cloud.place.data.join("a/two"), noise(4, 60_000)).expect("written");
    cloud.place.ok(&["backup"]);
    store_grant(&cloud);
    cloud
}

fn another(cloud: &Cloud) -> Cloud {
    let new = cloud.on_a_new_machine();
    store_grant(&new);
    new
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The application's files. A database is another file after a backup: its rows are asked for.
fn files(data: &Path) -> (Vec<(PathBuf, Vec<u8>)>, i64) {
    let own = |path: &Path| {
        let name = path.to_string_lossy();
        path.starts_with("backups") || name.starts_with(".nbak-") || name.starts_with("history.db")
    };
    let all = crate::common::tree(data).into_iter().filter(|(path, thing)| thing.kind == "file" && !own(path));
    let all = all.map(|(path, thing)| (path, thing.bytes)).collect();
    let conn = rusqlite::Connection::open(data.join("history.db")).expect("open");
    (all, conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("rows"))
}

/// Whatever is listed as a backup on this machine is one.
fn what_is_listed_is_whole(cloud: &Cloud, what: &str) {
    for one in lines(&cloud.place.run(&["backup", "list", "--json"]).out) {
        if one["damaged"].is_null() {
            let name = one["name"].as_str().expect("a name");
            let run = cloud.place.run(&["backup", "verify", name]);
            assert_eq!(run.code, 0, "{what}: {run:?}");
        }
    }
}

#[test]
fn of_a_pull() {
    let cloud = machine();
    cloud.ok(&["gdrive", "push"]);
    let expected = cloud.ok(&["snapshots", "--json"]).out;
    let new = another(&cloud);
    let is_whole = |what: &str| {
        let run = new.run(&["snapshots", "--json"]);
        assert_eq!((run.code, &run.out), (0, &expected), "{what}: {run:?}");
        let run = new.run(&["check", "--read-data"]);
        assert_eq!(run.code, 0, "{what}: {run:?}");
    };
    fails_at_any_step("pull", &new, &["gdrive", "pull"], &MEDIA, &|said, what| {
        // A store that opens is whole; what is none yet, or may not be, is called so.
        let seen = new.run(&["snapshots"]);
        if !said.is_empty() || seen.code == 0 && !seen.err.contains("gdrive pull") {
            is_whole(what);
        }
        let run = new.run(&["gdrive", "pull"]);
        assert_eq!(run.code, 0, "{what}: {run:?}");
        is_whole(what);
    });
}

#[test]
fn of_a_restore_from_drive() {
    let cloud = machine();
    cloud.ok(&["backup", "gdrive", "upload"]);
    let expected = files(&cloud.place.data);
    let new = another(&cloud);
    let args = ["backup", "gdrive", "restore", "--yes"];
    fails_at_any_step("restore from Drive", &new, &args, &[Medium::Journal], &|said, what| {
        // What every command does first: it ends a restore that had begun.
        what_is_listed_is_whole(&new, what);
        if !said.is_empty() {
            new.run(&["snapshots"]);
            assert!(files(&new.place.data) == expected, "{what}: it said {said:?}");
        }
        let run = new.run(&args);
        assert_eq!(run.code, 0, "{what}: {run:?}");
        assert!(files(&new.place.data) == expected, "{what}");
        what_is_listed_is_whole(&new, what);
    });
}

#[test]
fn of_an_upload() {
    let cloud = machine();
    let expected = files(&cloud.place.data);
    let backup =
        fs::read_dir(cloud.place.data.join("backups")).expect("a folder").map(|entry| entry.expect("one").path());
    let backup = backup.filter(|path| path.join("manifest.json").exists()).max().expect("a backup");
    fails_at_any_step("upload", &cloud, &["backup", "gdrive", "upload"], &MEDIA, &|_, what| {
        let run = cloud.run(&["backup", "gdrive", "upload"]);
        assert_eq!(run.code, 0, "{what}: {run:?}");
        cloud.assert_holds_once(&backup);
        what_is_listed_is_whole(&cloud, what);
        assert!(files(&cloud.place.data) == expected, "{what}");
    });
}

#[test]
fn of_a_push() {
    let cloud = machine();
    let expected = cloud.ok(&["snapshots", "--json"]).out;
    fails_at_any_step("push", &cloud, &["gdrive", "push"], &MEDIA, &|_, what| {
        let run = cloud.run(&["gdrive", "push"]);
        assert_eq!(run.code, 0, "{what}: {run:?}");
        let new = another(&cloud);
        new.ok(&["gdrive", "pull"]);
        for one in [&cloud, &new] {
            assert_eq!(one.ok(&["snapshots", "--json"]).out, expected, "{what}");
            one.ok(&["check", "--read-data"]);
        }
    });
}
