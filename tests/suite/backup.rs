//! The documented backup, as a user meets it: the real binary makes it, lists it, verifies it, prunes it, and puts it
//! back after a disaster.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::Value as Cell;
use serde_json::Value;

use crate::common::strace::{can_trace, traced};
use crate::common::{self, KEY, OTHER_KEY, Place, Random, Run, database, days_ago, noise, tree};
use crate::daemon_common::clock::Clock;
use crate::hostile_backup::fifo;

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

fn lines(run: &Run) -> Vec<Value> {
    run.out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn backup(place: &Place) -> (String, PathBuf) {
    let run = place.run(&["backup", "--json"]);
    assert!(run.code == 0 || run.code == 3, "{run:?}");
    let said = json(&run);
    let path = PathBuf::from(said["path"].as_str().expect("a path"));
    (said["name"].as_str().expect("a name").to_owned(), path)
}

fn manifest(backup: &Path) -> Value {
    serde_json::from_slice(&fs::read(backup.join("manifest.json")).expect("a manifest")).expect("JSON")
}

/// All rows of all tables, by table.
fn rows(path: &Path) -> BTreeMap<String, Vec<String>> {
    let conn = Connection::open(path).expect("open");
    let names: Vec<String> = conn
        .prepare("SELECT name FROM sqlite_master WHERE type='table'")
        .and_then(|mut s| s.query_map([], |row| row.get(0))?.collect())
        .expect("tables");
    let mut all = BTreeMap::new();
    for name in names {
        let mut statement = conn.prepare(&format!("SELECT * FROM \"{name}\"")).expect("a table");
        let columns = statement.column_count();
        let mut found: Vec<String> = statement
            .query_map([], |row| (0..columns).map(|n| row.get::<_, Cell>(n)).collect::<Result<Vec<_>, _>>())
            .and_then(|rows| rows.map(|row| row.map(|cells| format!("{cells:?}"))).collect())
            .expect("rows");
        found.sort();
        all.insert(name, found);
    }
    all
}

/// Everything in a data directory that a backup brings back, by content: rows of databases, bytes of files.
fn content(data: &Path) -> BTreeMap<PathBuf, String> {
    let own = |path: &Path| path.starts_with("backups") || path.to_string_lossy().starts_with(".nbak-");
    let sidecar = |path: &Path| ["-wal", "-shm", "-journal"].iter().any(|s| path.to_string_lossy().ends_with(s));
    let mut all = BTreeMap::new();
    for (path, thing) in tree(data) {
        if own(&path) || sidecar(&path) || thing.kind == "symlink" {
            continue;
        }
        let what = match thing.kind {
            "file" if thing.bytes.starts_with(b"SQLite format 3\0") => format!("{:?}", rows(&data.join(&path))),
            "file" => blake3::hash(&thing.bytes).to_hex().to_string(),
            kind => kind.to_owned(),
        };
        all.insert(path, what);
    }
    all
}

/// Damages what is in the data directory, as a bad day would.
fn disaster(data: &Path) {
    let conn = Connection::open(data.join("history.db")).expect("open");
    conn.execute_batch("DELETE FROM t; INSERT INTO t(v) VALUES('wrong')").expect("changed");
    conn.close().expect("closed");
    fs::remove_file(data.join("engine.db")).expect("removed");
    fs::remove_dir_all(data.join("workspace/deep")).expect("removed");
    fs::write(data.join("config.json"), b"broken").expect("written");
}

/// A place whose names a backup can hold all of.
fn plain_place(key: Option<&'static str>) -> Place {
    let place = Place::filled(key);
    for (path, _) in tree(&place.data) {
        if path.to_str().is_none() {
            fs::remove_file(place.data.join(path)).expect("removed");
        }
    }
    place
}

#[test]
fn made_listed_verified_and_put_back_after_a_disaster() {
    for key in [Some(KEY), None] {
        let place = plain_place(key);
        let before = content(&place.data);
        let (name, path) = backup(&place);
        let manifest = manifest(&path);
        assert_eq!(manifest["encrypted"], Value::from(key.is_some()));
        assert_eq!(manifest["version"], "unknown");
        for entry in manifest["files"].as_array().expect("files") {
            let file = path.join(entry["path"].as_str().expect("a path"));
            let meta = fs::symlink_metadata(&file).expect("it is there");
            let mode = if meta.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(meta.permissions().mode() & 0o777, mode, "{}", file.display());
            if meta.is_file() {
                assert_eq!(fs::read(&file).expect("read").starts_with(b"NBAK\x01"), key.is_some());
            }
        }
        assert_eq!(tree(&place.data).keys().filter(|p| p.to_string_lossy().starts_with(".nbak-scratch")).count(), 0);

        let listed = lines(&place.ok(&["backup", "list", "--json"]));
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0]["name"], Value::from(name.clone()));
        assert_eq!(listed[0]["damaged"], Value::Null);
        let verified = json(&place.ok(&["backup", "verify", "--json"]));
        assert_eq!((&verified["mac"], &verified["databases"]), (&Value::from("valid"), &Value::from(3)));

        disaster(&place.data);
        let broken = content(&place.data);
        assert_ne!(before, broken);
        let refused = place.run(&["backup", "restore"]);
        assert!(refused.code == 2 && refused.err.contains("--yes"), "{refused:?}");
        assert_eq!(content(&place.data), broken);
        let restored = place.ok(&["backup", "restore", &name, "--yes", "--json"]);
        let said = json(&restored);
        assert_eq!(content(&place.data), before);
        let safety = Path::new(said["safety_backup"].as_str().expect("a safety backup"));
        assert!(safety.is_dir() && restored.err.contains(&safety.display().to_string()), "{restored:?}");

        // And back again, to what was there before the restore.
        let safety_name = safety.file_name().expect("a name").to_string_lossy().into_owned();
        place.ok(&["backup", "verify", &safety_name]);
        place.ok(&["backup", "restore", &safety_name, "--yes"]);
        let mut back = content(&place.data);
        // What the first restore brought back was kept by the second.
        back.retain(|path, _| broken.contains_key(path));
        assert_eq!(back, broken);
    }
}

#[test]
fn the_store_restores_in_place_without_an_export() {
    let place = Place::filled(Some(KEY));
    let before = tree(&place.data);
    place.ok(&["snapshot", "--tag", "good"]);
    disaster(&place.data);
    let said = json(&place.ok(&["restore", "good", "--in-place", "--yes", "--json"]));
    assert!(said["safety_snapshot"].is_string() && said["safety_backup"].is_string(), "{said}");
    for (path, thing) in &before {
        let found = &tree(&place.data)[path];
        assert_eq!((found.kind, &found.bytes), (thing.kind, &thing.bytes), "{}", path.display());
        if thing.kind == "file" {
            assert_eq!((found.mode, found.mtime), (thing.mode, thing.mtime), "{}", path.display());
        }
    }
    // Some paths alone.
    fs::write(place.data.join("config.json"), b"mine").expect("written");
    fs::write(place.data.join("script"), b"broken").expect("written");
    place.ok(&["restore", "good", "script", "--in-place", "--yes"]);
    assert_eq!(fs::read(place.data.join("config.json")).expect("read"), b"mine");
    assert_eq!(fs::read(place.data.join("script")).expect("read"), b"#!/bin/sh\n");
}

#[test]
fn only_some_paths() {
    let place = plain_place(Some(KEY));
    let (name, _) = backup(&place);
    fs::write(place.data.join("config.json"), b"mine").expect("written");
    fs::write(place.data.join("script"), b"broken").expect("written");
    fs::remove_dir_all(place.data.join("workspace/deep")).expect("removed");
    place.ok(&["backup", "restore", &name, "--yes", "--only", "script", "workspace/deep"]);
    assert_eq!(fs::read(place.data.join("config.json")).expect("read"), b"mine");
    assert_eq!(fs::read(place.data.join("script")).expect("read"), b"#!/bin/sh\n");
    assert_eq!(fs::read(place.data.join("workspace/deep/noise")).expect("read"), noise(7, 150_000));
    assert_eq!(place.run(&["backup", "restore", &name, "--yes", "--only", "nothing/like/it"]).code, 1);
}

#[test]
fn a_wrong_or_missing_key_changes_nothing() {
    let place = plain_place(Some(KEY));
    let (name, _) = backup(&place);
    disaster(&place.data);
    for key in [Some(OTHER_KEY), None] {
        let before = tree(&place.data);
        let run = place.with_key(key, &["backup", "restore", &name, "--yes", "--allow-unsigned"]);
        assert_eq!(run.code, 12, "{run:?}");
        common::assert_equal(&before, &tree(&place.data));
        let verified = place.with_key(key, &["backup", "verify", &name]);
        assert_eq!(verified.code, 12, "{verified:?}");
        assert!(!verified.out.contains("is whole"), "{verified:?}");
        let told = place.with_key(key, &["backup", "verify", &name, "--json"]);
        assert!(told.code == 12 && told.out.contains("\"ok\":false"), "{told:?}");
    }
    let without = place.with_key(Some(OTHER_KEY), &["backup", "restore", &name, "--yes"]);
    assert!(
        without.code == 12 && without.err.contains("--vault-key-file"),
        "the key is named, not the MAC: {without:?}"
    );
}

/// What has no form in a documented backup is in no safety backup: who wants it back is told where it is.
#[test]
fn what_a_safety_backup_cannot_hold_is_said_to_be_in_its_snapshot() {
    let place = plain_place(None);
    let odd = OsStr::from_bytes(b"n\xff");
    let names = [OsStr::new("link"), odd, OsStr::new("a\\b")];
    for name in names {
        fs::write(place.data.join(name), "old").expect("written");
    }
    fs::write(place.data.join("same\\"), "the same").expect("written");
    let first = json(&place.ok(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
    for name in &names[1..] {
        fs::write(place.data.join(name), "of today").expect("written");
    }
    fs::remove_file(place.data.join("link")).expect("removed");
    symlink("config.json", place.data.join("link")).expect("linked");
    let run = place.ok(&["restore", &first, "--in-place", "--yes", "--json"]);
    let said = json(&run);
    let id = &said["safety_snapshot"].as_str().expect("an id")[..8];
    let warning = said["warnings"].to_string();
    for word in ["link", "n\u{fffd}", "a\\\\b", &format!("nbak restore {id} PATH --in-place")] {
        assert!(warning.contains(word), "{word}: {warning}");
    }
    assert!(!warning.contains("same"), "what stays as it is was not replaced: {warning}");
    assert_eq!(fs::read(place.data.join(odd)).expect("read"), b"old");
    // And that is how it is had back.
    for name in names {
        let args = [OsStr::new("restore"), OsStr::new(id), name, OsStr::new("--in-place"), OsStr::new("--yes")];
        place.ok(&args);
    }
    assert!(fs::read_link(place.data.join("link")).is_ok());
    for name in &names[1..] {
        assert_eq!(fs::read(place.data.join(name)).expect("read"), b"of today");
    }
    let none = place.ok(&["restore", id, "--in-place", "--yes", "--json"]);
    assert!(!none.out.contains("no backup can hold"), "nothing is replaced: {none:?}");
}

#[test]
fn an_older_key_still_opens_older_backups() {
    let place = plain_place(Some(OTHER_KEY));
    let before = content(&place.data);
    let (name, _) = backup(&place);
    let (old, new) = (place.path("old"), place.path("new"));
    fs::write(&old, OTHER_KEY).expect("written");
    fs::write(&new, KEY).expect("written");
    place.ok(&["key", "rotate", "--new-vault-key-file", new.to_str().expect("a name")]);
    disaster(&place.data);
    let files = ["--vault-key-file", new.to_str().expect("a name"), "--vault-key-file", old.to_str().expect("a name")];
    let run = place.with_key(None, &[&["backup", "restore", &name, "--yes"][..], &files[..]].concat());
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(content(&place.data), before);
    // The keys stand in the other order: what is made today opens with today's key all the same.
    let files = [files[2], files[3], files[0], files[1]];
    let run = place.with_key(None, &[&["backup", "restore", &name, "--yes", "--json"][..], &files[..]].concat());
    let safety = json(&run)["safety_backup"].as_str().expect("a safety backup").to_owned();
    assert_eq!(place.with_key(Some(KEY), &["backup", "verify", &safety]).code, 0);
    assert_eq!(place.with_key(Some(OTHER_KEY), &["backup", "verify", &safety]).code, 12);
}

#[test]
fn who_restores_twice_does_not_go_back() {
    let place = plain_place(Some(KEY));
    let before = content(&place.data);
    let (name, _) = backup(&place);
    disaster(&place.data);
    for _ in 0..2 {
        place.ok(&["backup", "restore", "--yes"]);
        assert_eq!(content(&place.data), before);
    }
    let listed = lines(&place.ok(&["backup", "list", "--json"]));
    let made: Vec<_> = listed.iter().map(|one| one["before_restore"] == true).collect();
    assert_eq!(made, [false, true, true]);
    assert_eq!(listed[0]["name"], Value::from(name));
}

/// A backup knows times in milliseconds. What is as it should be has no other time for that.
#[test]
fn what_is_as_it_should_be_keeps_its_time() {
    let place = plain_place(Some(KEY));
    let time = |path: &PathBuf| fs::metadata(place.data.join(path)).and_then(|meta| meta.modified()).expect("a time");
    // Databases come back in another form, and so are put in place.
    let is_database = |path: &PathBuf| path.extension().is_some_and(|it| it == "db" || it == "sqlite");
    let is_plain = |path: &PathBuf| place.data.join(path).is_file() && !is_database(path);
    let paths: Vec<PathBuf> = content(&place.data).into_keys().filter(is_plain).collect();
    let times = || paths.iter().map(time).collect::<Vec<_>>();
    backup(&place);
    let before = times();
    place.ok(&["backup", "restore", "--yes"]);
    assert_eq!(times(), before);
}

#[test]
fn two_in_the_same_second_and_what_was_killed() {
    let place = plain_place(Some(KEY));
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..3 {
        names.insert(backup(&place).0);
    }
    assert_eq!(names.len(), 3);
    // What a killed export leaves.
    let folder = place.data.join("backups");
    fs::create_dir(folder.join("20260101T000000Z.tmp")).expect("made");
    fs::write(folder.join("20260101T000000Z.tmp/history.db"), b"half").expect("written");
    fs::create_dir(folder.join("mine.tmp")).expect("made");
    assert_eq!(lines(&place.ok(&["backup", "list", "--json"])).len(), 3);
    backup(&place);
    assert!(!folder.join("20260101T000000Z.tmp").exists());
    assert!(folder.join("mine.tmp").exists(), "not ours");
}

#[test]
fn killed_exports_leave_nothing_that_is_listed() {
    let place = plain_place(Some(KEY));
    database(&place.data.join("big.db"), "WAL", 20_000);
    let start = std::time::Instant::now();
    backup(&place);
    let whole = start.elapsed();
    let mut random = Random::seeded("killed exports");
    let mut acknowledged = 1;
    for _ in 0..(12 * common::rounds()) {
        let mut command = place.command(&["backup", "--json"]);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("it runs");
        std::thread::sleep(Duration::from_micros(random.below(whole.as_micros() as u64 * 11 / 10)));
        let _ = child.kill();
        let output = child.wait_with_output().expect("it ended");
        acknowledged += usize::from(!output.stdout.is_empty());
        let listed = lines(&place.ok(&["backup", "list", "--json"]));
        assert!(listed.len() >= acknowledged, "{acknowledged} were acknowledged: {listed:?}");
        for one in &listed {
            assert_eq!(one["damaged"], Value::Null);
            place.ok(&["backup", "verify", one["name"].as_str().expect("a name")]);
        }
    }
    backup(&place);
    let left: Vec<_> = fs::read_dir(place.data.join("backups"))
        .expect("a folder")
        .chain(fs::read_dir(&place.data).expect("a folder"))
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(".tmp") || name.starts_with(".nbak-scratch"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn two_at_once_both_succeed_or_one_says_so() {
    let place = plain_place(Some(KEY));
    place.ok(&["snapshot"]);
    let spawn = |wait: &str| {
        let mut command = place.command(&["backup", "--json", "--lock-wait", wait]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("it runs")
    };
    for wait in ["30", "0"] {
        let running: Vec<_> = (0..3).map(|_| spawn(wait)).collect();
        let ended: Vec<_> = running.into_iter().map(|child| child.wait_with_output().expect("ended")).collect();
        let codes: Vec<_> = ended.iter().map(|output| output.status.code()).collect();
        assert!(codes.contains(&Some(0)), "{codes:?}");
        let fine = |code: &Option<i32>| *code == Some(0) || wait == "0" && *code == Some(11);
        assert!(codes.iter().all(fine), "{codes:?}: {}", String::from_utf8_lossy(&ended[2].stderr));
    }
    for one in lines(&place.ok(&["backup", "list", "--json"])) {
        place.ok(&["backup", "verify", one["name"].as_str().expect("a name")]);
    }
}

#[test]
fn old_ones_are_pruned_and_never_the_newest() {
    let place = plain_place(Some(KEY));
    for (tag, text) in [("one", b"{\"a\": 1}"), ("two", b"{\"a\": 2}")] {
        fs::write(place.data.join("config.json"), text).expect("written");
        place.ok(&["snapshot", "--tag", tag]);
    }
    let (old, _) = backup(&place);
    let (new, _) = backup(&place);
    assert_eq!(place.ok(&["backup", "prune", "--days", "1"]).out, "no backup is to be removed\n");
    // Nothing can be older than the future: make the old one look old, as a copy of the application's would be.
    let folder = place.data.join("backups");
    let text = fs::read_to_string(folder.join(&old).join("manifest.json")).expect("a manifest");
    let created = manifest(&folder.join(&old))["created_at"].as_str().expect("a time").to_owned();
    let aged = text.replace(&created, &days_ago(100));
    fs::write(folder.join(&old).join("manifest.json"), aged).expect("written");
    let dry = place.ok(&["backup", "prune", "--dry-run"]);
    assert!(dry.out.contains(&format!("would remove {old}")), "{dry:?}");
    assert!(folder.join(&old).exists());
    assert_eq!(place.ok(&["backup", "prune", "--days", "0"]).out, "no backup is to be removed\n");
    let pruned = place.ok(&["backup", "prune"]);
    assert!(pruned.out.contains(&old) && !folder.join(&old).exists(), "{pruned:?}");
    assert!(folder.join(&new).exists());
}

#[test]
fn export_of_an_older_snapshot_and_the_other_dialect() {
    let place = plain_place(Some(KEY));
    place.ok(&["snapshot", "--tag", "older"]);
    let before = content(&place.data);
    disaster(&place.data);
    place.ok(&["snapshot"]);
    let to = place.path("elsewhere");
    let run = place.ok(&["export", "older", "--to", to.to_str().expect("a name"), "--dialect", "lynox", "--json"]);
    let path = PathBuf::from(json(&run)["path"].as_str().expect("a path"));
    assert!(path.starts_with(&to));
    assert!(manifest(&path)["lynox_dir"].is_string());
    place.ok(&["backup", "restore", path.to_str().expect("a name"), "--yes"]);
    assert_eq!(content(&place.data), before);
}

#[test]
fn a_new_machine_needs_the_backup_and_the_key_alone() {
    let place = plain_place(Some(KEY));
    let before = content(&place.data);
    let (_, path) = backup(&place);
    let fresh = Place { key: Some(KEY), ..Place::empty() };
    fs::remove_dir(&fresh.data).expect("removed");
    let run = fresh.ok(&["backup", "restore", path.to_str().expect("a name"), "--yes"]);
    assert_eq!(content(&fresh.data), before, "{run:?}");
}

#[test]
fn names_that_the_format_cannot_hold_are_told_and_kept_in_the_snapshot() {
    let place = Place::filled(Some(KEY));
    fs::write(place.data.join("back\\slash"), b"x").expect("written");
    let run = place.run(&["backup"]);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.err.contains("back\\slash") && run.err.contains("only in the snapshot"), "{run:?}");
    assert!(run.err.contains("symbolic link"), "{run:?}");
    let (run, target) = place.restore("latest", "whole");
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(fs::read(target.join("back\\slash")).expect("read"), b"x");
}

#[test]
fn a_database_that_is_in_use_is_refused_at_once_or_written_into() {
    let place = plain_place(Some(KEY));
    let (name, _) = backup(&place);
    let before = rows(&place.data.join("history.db"));
    let conn = Connection::open(place.data.join("history.db")).expect("open");
    conn.execute_batch("DELETE FROM t").expect("changed");
    let refused = place.run(&["backup", "restore", &name, "--yes"]);
    assert!(refused.code == 11 && refused.err.contains("history.db"), "{refused:?}");
    assert!(refused.err.contains(&format!("process {}", std::process::id())), "{refused:?}");
    let count: i64 = conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("rows");
    assert_eq!(count, 0);
    assert_eq!(lines(&place.ok(&["backup", "list", "--json"])).len(), 1, "no safety backup was made for nothing");

    place.ok(&["backup", "restore", &name, "--yes", "--into-live"]);
    let count: i64 = conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("rows");
    assert_eq!(count, 300, "the open connection sees it");
    conn.close().expect("closed");
    assert_eq!(rows(&place.data.join("history.db")), before);
}

#[test]
fn what_is_written_while_the_safety_backup_is_made_is_not_lost() {
    let place = plain_place(Some(KEY));
    let (name, _) = backup(&place);
    fs::write(place.data.join("config.json"), b"first").expect("written");
    database(&place.data.join("large.db"), "WAL", 30_000);
    let mut command = place.command(&["backup", "restore", &name, "--yes"]);
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("it runs");
    // The safety backup is being made: its folder is there.
    let begun = |entry: fs::DirEntry| entry.file_name().to_string_lossy().contains(".tmp");
    while !fs::read_dir(place.data.join("backups")).expect("a folder").flatten().any(begun) {
        assert!(child.try_wait().expect("asked").is_none(), "it ended before");
        std::thread::sleep(Duration::from_millis(1));
    }
    fs::write(place.data.join("config.json"), b"second").expect("written");
    let output = child.wait_with_output().expect("it ended");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(11), "{said}");
    assert!(said.contains("config.json"), "{said}");
    assert_eq!(fs::read(place.data.join("config.json")).expect("read"), b"second");
    place.ok(&["backup", "restore", &name, "--yes"]);
    assert_eq!(fs::read(place.data.join("config.json")).expect("read"), b"{\"other\": 1}\n");
}

#[test]
fn a_folder_of_the_users_that_is_named_for_backups_is_told_of() {
    let place = plain_place(Some(KEY));
    fs::create_dir(place.data.join("memory")).expect("a folder");
    let config = serde_json::json!({"backup_dir": place.data.join("memory")}).to_string();
    fs::write(place.data.join("config.json"), config).expect("written");
    // Backups, the store and what belongs to them are no reason to say anything.
    for _ in 0..2 {
        let run = place.ok(&["backup"]);
        assert!(!run.err.contains("no backup: name another folder"), "{run:?}");
    }
    fs::write(place.data.join("memory/notes.md"), "mine").expect("written");
    for command in ["snapshot", "backup"] {
        let run = place.ok(&[command]);
        assert!(run.err.contains("warning: ") && run.err.contains("notes.md is no backup"), "{run:?}");
    }
}

/// In a folder of several data directories the newest whole backup of one says nothing of another's.
#[test]
fn backups_of_one_directory_are_no_reason_to_remove_anothers() {
    let place = plain_place(Some(KEY));
    let (shared, other) = (place.path("shared"), place.path("other"));
    fs::create_dir(&other).expect("a folder");
    for data in [&place.data, &other] {
        let config = serde_json::json!({"backup_dir": shared}).to_string();
        fs::write(data.join("config.json"), config).expect("written");
    }
    let mut clock = Clock::new();
    let made = |data: &Path, clock: &Clock| {
        let mut command = place.command(&["backup", "--json", "--data-dir", data.to_str().expect("text")]);
        clock.give(&mut command);
        let run = Run::of(command);
        assert!(run.code == 0 || run.code == 3, "{run:?}");
        PathBuf::from(json(&run)["path"].as_str().expect("a path"))
    };
    let day = Duration::from_hours(24);
    clock.back(60 * day);
    let old = made(&place.data, &clock);
    clock.forward(20 * day);
    let new = made(&place.data, &clock);
    clock.forward(39 * day);
    let others = made(&other, &clock);
    let file = new.join("history.db");
    let mut bytes = fs::read(&file).expect("read");
    bytes[1000] ^= 1;
    fs::write(&file, bytes).expect("written");
    place.ok(&["backup", "prune", "--days", "30"]);
    assert!(old.exists() && new.exists() && others.exists(), "the old one is the only whole one of its directory");
}

/// Its plaintext goes where the data lies, and not to the medium of a sealed backup.
#[test]
fn verifying_writes_nothing_beside_a_sealed_backup() {
    if !can_trace() {
        return;
    }
    let place = plain_place(Some(KEY));
    let medium = place.path("medium");
    fs::create_dir(&medium).expect("a folder");
    place.ok(&["snapshot"]);
    let said = json(&place.ok(&["export", "latest", "--json", "--to", medium.to_str().expect("text")]));
    let path = said["path"].as_str().expect("a path");
    let log = place.path("calls");
    let options = ["-o", log.to_str().expect("text"), "-e", "trace=openat,mkdirat,mkdir,rename,renameat2,linkat"];
    let run = Run::of(traced(&place.command(&["backup", "verify", path]), &options));
    assert_eq!(run.code, 0, "{run:?}");
    let log = fs::read_to_string(log).expect("a log");
    let writes = |line: &&str| {
        ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| line.contains(flag)) || !line.contains("openat(")
    };
    let at = medium.to_str().expect("text");
    let beside: Vec<&str> = log.lines().filter(|line| line.contains(at)).filter(writes).collect();
    assert!(beside.is_empty(), "{beside:?}");
    let plain = log.lines().filter(|line| line.contains("O_CREAT") && line.contains("history.db"));
    assert!(plain.count() > 0 || log.contains(".nbak-scratch"), "its databases are looked into somewhere: {log}");
}

#[test]
fn no_backup_is_made_in_the_store() {
    let place = plain_place(Some(KEY));
    place.ok(&["snapshot"]);
    let before = tree(&place.repo);
    symlink(&place.repo, place.path("link")).expect("linked");
    for folder in [place.repo.join("packs"), place.repo.join("new/er"), place.path("link/packs")] {
        let run = place.run(&["export", "latest", "--to", folder.to_str().expect("text")]);
        assert!(run.code == 2 && run.err.contains("plaintext does not belong there"), "{run:?}");
        let config = serde_json::json!({"backup_dir": folder, "backup_encrypt": false}).to_string();
        fs::write(place.data.join("config.json"), config).expect("written");
        let run = place.run(&["export", "latest"]);
        assert!(run.code == 2 && run.err.contains("plaintext does not belong there"), "{run:?}");
        fs::remove_file(place.data.join("config.json")).expect("removed");
    }
    common::assert_equal(&before, &tree(&place.repo));
}

#[test]
fn prune_removes_nothing_if_nothing_verifies() {
    let place = plain_place(Some(OTHER_KEY));
    let (old, _) = backup(&place);
    let new = place.path("new");
    fs::write(&new, KEY).expect("written");
    place.ok(&["key", "rotate", "--new-vault-key-file", new.to_str().expect("a name")]);
    let place = Place { key: Some(KEY), ..place };
    let (_, damaged) = backup(&place);
    let file = damaged.join("history.db");
    let mut bytes = fs::read(&file).expect("read");
    bytes[1000] ^= 1;
    fs::write(&file, bytes).expect("written");
    let folder = place.data.join("backups");
    let manifest_of_old = folder.join(&old).join("manifest.json");
    let text = fs::read_to_string(&manifest_of_old).expect("a manifest");
    let created = manifest(&folder.join(&old))["created_at"].as_str().expect("a time").to_owned();
    fs::write(&manifest_of_old, text.replace(&created, &days_ago(100))).expect("written");
    let run = place.run(&["backup", "prune"]);
    assert_eq!(run.code, 12, "the key of one is not there: {run:?}");
    assert!(run.err.contains("no backup verifies") && folder.join(&old).exists(), "{run:?}");
}

#[test]
fn one_file_of_the_graph_leaves_the_others_alone() {
    let place = plain_place(Some(KEY));
    let graph = place.data.join("knowledge-graph");
    fs::create_dir(&graph).expect("made");
    for name in ["nodes.idx", "data.kz"] {
        fs::write(graph.join(name), name).expect("written");
    }
    let (name, _) = backup(&place);
    fs::write(graph.join("nodes.idx"), b"broken").expect("written");
    fs::write(graph.join("later.wal"), b"a log").expect("written");
    fs::write(place.data.join("knowledge-graph-notes.txt"), b"mine").expect("written");
    place.ok(&["backup", "restore", &name, "--yes", "--only", "knowledge-graph/nodes.idx"]);
    assert_eq!(fs::read(graph.join("nodes.idx")).expect("read"), b"nodes.idx");
    assert!(graph.join("data.kz").exists() && graph.join("later.wal").exists());
    // All of it: what does not belong to the old graph goes, what is only called alike stays.
    place.ok(&["backup", "restore", &name, "--yes", "--only", "knowledge-graph"]);
    assert!(graph.join("data.kz").exists() && !graph.join("later.wal").exists());
    assert!(place.data.join("knowledge-graph-notes.txt").exists());
}

#[test]
fn the_longest_names_come_back_and_backups_do_not_hold_each_other() {
    let place = plain_place(Some(KEY));
    let long = "n".repeat(255);
    fs::write(place.data.join(&long), b"long").expect("written");
    let (name, _) = backup(&place);
    fs::write(place.data.join(&long), b"changed").expect("written");
    place.ok(&["backup", "restore", &name, "--yes"]);
    assert_eq!(fs::read(place.data.join(&long)).expect("read"), b"long");
    fs::write(place.data.join("config.json"), b"{\"backup_dir\": \".\"}").expect("written");
    let run = place.run(&["backup"]);
    assert!(run.code == 2 && run.err.contains("backup_dir"), "{run:?}");
}

/// What the snapshot lacks the backup lacks too.
#[test]
fn an_export_of_what_is_incomplete_says_so() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    fs::write(place.data.join("letter"), b"Dear reader").expect("written");
    fifo(&place.data.join("pipe"));
    assert_eq!(place.run(&["snapshot"]).code, 3);
    let to = place.path("out");
    fs::create_dir(&to).expect("made");
    let export =
        |more: &[&str]| place.run(&[&["export", "latest", "--to", to.to_str().expect("UTF-8")], more].concat());
    let run = export(&[]);
    assert!(run.code == 3 && run.err.contains("the snapshot is incomplete") && run.err.contains("pipe"), "{run:?}");
    assert!(run.out.contains("verified; of incomplete snapshot "), "{run:?}");
    let run = export(&["--json"]);
    let said = json(&run);
    assert!(run.code == 3 && said["incomplete"] == true, "{run:?}");
    assert_eq!(said["unreadable_entries"][0]["path"], "pipe");
    // A backup of now says it with the same words.
    let run = place.run(&["backup", "--json"]);
    let said = json(&run);
    assert!(run.code == 3 && said["incomplete"] == true, "{run:?}");

    fs::remove_file(place.data.join("pipe")).expect("removed");
    place.ok(&["snapshot"]);
    let run = export(&["--json"]);
    let said = json(&run);
    assert!(
        run.code == 0 && said["incomplete"] == false && said["unreadable_entries"] == Value::Array(vec![]),
        "{run:?}"
    );
    assert!(!export(&[]).err.contains("incomplete"));
}

/// A backup that lacks something says so to everyone who ever looks at it, and nobody can take that away.
#[test]
fn what_a_backup_lacks_it_says_for_ever() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    fs::write(place.data.join("letter"), b"Dear reader").expect("written");
    let (whole, _) = backup(&place);
    assert!(place.ok(&["backup", "verify"]).out.contains("is whole"));
    let listed = json(&place.ok(&["backup", "list", "--json"]));
    assert_eq!((&listed["lacks_count"], &listed["lacks"]), (&0.into(), &Value::Array(vec![])));
    assert!(
        !fs::read_to_string(place.data.join("backups").join(&whole).join("manifest.json"))
            .expect("read")
            .contains("lacks")
    );
    fifo(&place.data.join("pipe"));
    fs::write(place.data.join("back\\slash"), b"no form").expect("written");
    std::thread::sleep(Duration::from_millis(1100));
    let (name, path) = backup(&place);
    let own = &manifest(&path)["nbak"];
    let named: Vec<&str> =
        own["lacks"].as_array().expect("a list").iter().map(|one| one[0].as_str().expect("a path")).collect();
    assert_eq!(
        (named, &own["lacks_count"]),
        (vec!["pipe", "back\\slash"], &2.into()),
        "what the snapshot has not, then what it has"
    );

    let run = place.run(&["backup", "verify"]);
    assert!(run.code == 3 && run.err.contains("not in the backup: pipe: ") && run.err.contains("slash"), "{run:?}");
    assert!(run.out.contains("is incomplete (2 entries were not captured)") && !run.out.contains("whole"), "{run:?}");
    let run = place.run(&["backup", "verify", &name, "--json"]);
    let said = json(&run);
    assert_eq!(
        (run.code, &said["ok"], &said["incomplete"], &said["mac"]),
        (3, &true.into(), &true.into(), &"valid".into())
    );
    assert_eq!((&said["lacks"][0]["path"], &said["lacks_count"]), (&"pipe".into(), &2.into()));
    let listed = place.ok(&["backup", "list"]).out;
    let marked: Vec<bool> =
        listed.lines().map(|line| line.contains("incomplete: 2 entries were not captured")).collect();
    assert_eq!(marked, [false, true], "{listed}");
    let listed = lines(&place.ok(&["backup", "list", "--json"]));
    assert_eq!((&listed[1]["lacks_count"], &listed[1]["lacks"][0]["path"]), (&2.into(), &"pipe".into()));
    let doctor = place.run(&["doctor"]);
    let line = doctor.out.lines().find(|line| line.contains(&name) && line.contains("is incomplete")).expect("a line");
    assert!(doctor.code == 1 && line.starts_with("bad") && line.contains("2 entries were not captured"), "{line}");
    let status = place.ok(&["status"]).out;
    assert!(status.contains("ago); incomplete: 2 entries were not captured\nGoogle"), "{status}");
    assert_eq!(json(&place.ok(&["status", "--json"]))["newest_backup"]["lacks"], 2);

    fs::write(place.data.join("letter"), b"spoilt").expect("written");
    let run = place.run(&["backup", "restore", "--yes"]);
    assert!(
        run.code == 3 && run.err.contains("the backup is incomplete: 2 entries were not captured (pipe, "),
        "{run:?}"
    );
    assert!(run.out.contains(&format!("restored incomplete backup {name}")), "{run:?}");
    assert_eq!(fs::read(place.data.join("letter")).expect("read"), b"Dear reader");
    // Whom it does not concern need not hear of it.
    fs::write(place.data.join("letter"), b"spoilt").expect("written");
    let run = place.ok(&["backup", "restore", &name, "--yes", "--only", "letter", "--json"]);
    assert!(json(&run)["incomplete"] == false && !run.err.contains("the backup is incomplete"), "{run:?}");

    // Neither changed nor taken away.
    let place_of = path.join("manifest.json");
    let text = fs::read_to_string(&place_of).expect("read");
    for (from, to) in [("\"pipe\"", "\"pIpe\""), ("\"lacks_count\": 2", "\"lacks_count\": 3"), ("lacks", "locks")] {
        fs::write(&place_of, text.replace(from, to)).expect("written");
        let run = place.run(&["backup", "verify", &name]);
        assert!(run.code == 13 && run.out.contains("its MAC does not match"), "{from}: {run:?}");
        assert_eq!(place.run(&["backup", "restore", &name, "--yes"]).code, 13, "{from}");
    }
    fs::write(&place_of, &text).expect("written");

    // It takes no complete one's place.
    let pruned = place.ok(&["backup", "prune", "--days", "1", "--dry-run"]);
    assert!(!pruned.out.contains("would remove"), "{pruned:?}");
    for file in ["pipe", "back\\slash"] {
        fs::remove_file(place.data.join(file)).expect("removed");
    }
    std::thread::sleep(Duration::from_millis(1100));
    backup(&place);
    assert!(place.ok(&["backup", "verify"]).out.contains("is whole"));
}

/// The clock may have been wrong for an hour: that must not cost what was done since.
#[test]
fn a_backup_of_the_future_is_passed_over() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    let year = Duration::from_hours(365 * 24);
    let mut clock = Clock::new();
    let by = |clock: &Clock, args: &[&str]| {
        let mut command = place.command(args);
        clock.give(&mut command);
        let run = Run::of(command);
        assert!(run.code < 2, "{args:?}: {run:?}");
        run
    };
    let made = |clock: &Clock, text: &str| {
        fs::write(place.data.join("doc"), text).expect("written");
        json(&by(clock, &["backup", "--json"]))["name"].as_str().expect("a name").to_owned()
    };
    let verified = |run: &Run| json(run)["name"].as_str().expect("a name").to_owned();
    clock.forward(year);
    let ahead = made(&clock, "while the clock was ahead");
    clock.back(year);
    // The only one there is.
    let run = by(&clock, &["backup", "verify", "--json"]);
    assert!(verified(&run) == ahead && run.err.contains("has not come yet"), "{run:?}");
    let newest = made(&clock, "today");

    let agrees = |clock: &Clock| {
        let run = by(clock, &["backup", "verify", "--json"]);
        assert_eq!(verified(&run), newest, "{run:?}");
        let now = json(&by(clock, &["status", "--json"]));
        assert_eq!(now["newest_backup"]["name"], newest.as_str(), "{now}");
        run
    };
    let run = agrees(&clock);
    assert!(run.err.contains(&ahead) && run.err.contains("has not come yet"), "what was passed over: {run:?}");
    let list = lines(&by(&clock, &["backup", "list", "--json"]));
    assert_eq!(list.last().expect("one")["name"], newest.as_str(), "{list:?}");
    let doctor = by(&clock, &["doctor"]).out;
    let said = doctor.lines().find(|line| line.contains("  backup ")).expect("a line");
    assert!(said.contains(&newest), "{said}");
    let list = by(&clock, &["backup", "list"]).out;
    let marked: Vec<&str> = list.lines().filter(|line| line.contains("has not come yet")).collect();
    assert!(marked.len() == 1 && marked[0].starts_with(&ahead), "{list}");
    fs::write(place.data.join("doc"), "trash").expect("written");
    by(&clock, &["backup", "restore", "--yes"]);
    assert_eq!(fs::read_to_string(place.data.join("doc")).expect("a file"), "today");

    // When that time has come its date is as good as any, and it was made before the other all the same.
    clock.forward(year + Duration::from_hours(24));
    let run = agrees(&clock);
    assert!(!run.err.contains("has not come yet"), "{run:?}");
}

/// A printed command, given where another data directory is the one that is meant without a word.
#[test]
fn another_directorys_backup_is_restored_with_a_word() {
    let (one, other) = (Place::empty(), Place::empty());
    for (place, text) in [(&one, "one"), (&other, "other")] {
        fs::write(place.data.join("notes"), text).expect("written");
        place.ok(&["backup"]);
    }
    let first = fs::read_dir(one.data.join("backups")).expect("backups").map(|entry| entry.expect("one").path());
    let first = first.filter(|path| path.join("manifest.json").exists()).max().expect("a backup");
    // Unless both have one vault key, it also takes a word that nobody vouches for it.
    let run = other.ok(&["backup", "restore", first.to_str().expect("text"), "--yes", "--allow-unsigned"]);
    let (from, to) = (one.data.to_str().expect("text"), other.data.to_str().expect("text"));
    assert!(run.err.contains(&format!("the backup is of {from}, and is put in place of what is in {to}")), "{run:?}");
    let run = other.ok(&["backup", "restore", "--yes"]);
    assert!(!run.err.contains("the backup is of"), "{run:?}");
}
