//! Restore drills: what comes back whole is proven, what does not is named, and nothing of a drill stays behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::small_disk::{mount, small_disk};
use crate::common::{KEY, OTHER_KEY, Place, Run, assert_equal, database, noise, tree};
use crate::daemon_common::{Life, daemon};
use crate::hostile_backup::fifo;
use rusqlite::Connection;
use serde_json::{Value, json};

fn said(run: &Run) -> Value {
    serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

fn snapshot(place: &Place) -> String {
    said(&place.ok(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned()
}

fn with_file(place: &Place, seed: u64) -> String {
    fs::write(place.data.join("changing"), noise(seed, 50_000)).expect("written");
    snapshot(place)
}

/// When each snapshot was proven, if it was.
fn proven(place: &Place) -> Vec<(String, bool)> {
    let list = place.ok(&["snapshots", "--json"]);
    let one = |line: &str| {
        let said: Value = serde_json::from_str(line).expect("JSON");
        (said["snapshot"].as_str().expect("an id").to_owned(), said["proven"].is_string())
    };
    list.out.lines().map(one).collect()
}

/// Scratch space in `folder`.
fn left(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    all.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".nbak-"))).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_drill_proves_and_leaves_everything_as_it_was() {
    let place = Place::filled(Some(KEY));
    for (name, mode) in [("closed", 0o000), ("workspace/unwritable", 0o500)] {
        fs::create_dir(place.data.join(name)).expect("made");
        fs::set_permissions(place.data.join(name), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let first = snapshot(&place);
    let second = with_file(&place, 1);
    let before = (tree(&place.data), place.packs().len());
    let run = place.ok(&["drill", "--json"]);
    let found = said(&run);
    assert_eq!(found["snapshot"], second.as_str());
    assert!(found["proven"].is_string() && found["faults"] == json!([]) && found["duration_ms"].is_u64(), "{found}");
    let files = before.0.values().filter(|thing| thing.kind == "file");
    let bytes: usize = files.clone().map(|thing| thing.bytes.len()).sum();
    assert_eq!((found["files"].as_u64(), found["bytes"].as_u64()), (Some(files.count() as u64), Some(bytes as u64)));
    let databases = found["databases"].as_array().expect("a list");
    let rows: Vec<_> = databases.iter().map(|one| (one["path"].as_str().expect("a path"), &one["rows"]["t"])).collect();
    assert_eq!(rows, [("engine.db", &json!(40)), ("history.db", &json!(300)), ("workspace/notes.sqlite", &json!(10))]);
    assert_equal(&before.0, &tree(&place.data));
    assert_eq!(place.packs().len(), before.1 + 1, "the ledger");
    assert!(left(place.folder.path()).is_empty() && left(&place.repo).is_empty());
    assert_eq!(proven(&place), [(first.clone(), false), (second.clone(), true)]);
    assert!(place.ok(&["snapshots"]).out.contains("  proven 2"));

    // Another one by name, elsewhere, in words.
    let elsewhere = place.path("elsewhere");
    fs::create_dir(&elsewhere).expect("made");
    let run = place.ok(&["-v", "drill", &first, "--scratch", elsewhere.to_str().expect("UTF-8")]);
    assert!(run.out.contains("proven: snapshot") && run.out.contains("rows: t 300"), "{run:?}");
    assert_eq!(fs::read_dir(&elsewhere).expect("a folder").count(), 0);
    assert_eq!(proven(&place), [(first, true), (second, true)]);
    place.ok(&["check", "--read-data"]);

    for bad in [place.repo.clone(), place.repo.join("packs")] {
        let run = place.run(&["drill", "--scratch", bad.to_str().expect("UTF-8")]);
        assert!(run.code == 2 && run.err.contains("plaintext"), "{run:?}");
    }
    assert_eq!(place.run(&["drill", "--scratch", "/nowhere/at/all"]).code, 1);
    let wrong = place.with_key(Some(OTHER_KEY), &["drill"]);
    assert_eq!(wrong.code, 12, "{wrong:?}");
    assert!(left(place.folder.path()).is_empty());
}

/// A mark of a snapshot that does not come back is taken from it.
#[test]
fn a_flipped_bit_and_a_deleted_pack_are_found() {
    for deleted in [false, true] {
        let place = Place { key: Some(KEY), ..Place::empty() };
        fs::write(place.data.join("precious"), noise(1, 300_000)).expect("written");
        snapshot(&place);
        let pack = place.packs().remove(0);
        // It moves, so that nothing but its content is in the pack that will be bad: a list of the same folder with one
        // more name would be kept as a patch to the list in there, or not, as the bytes happen to compress.
        fs::create_dir(place.data.join("moved")).expect("made");
        fs::rename(place.data.join("precious"), place.data.join("moved/precious")).expect("moved");
        fs::write(place.data.join("moved/other"), "whole").expect("written");
        let id = snapshot(&place);
        place.ok(&["drill"]);
        assert_eq!(proven(&place)[1], (id.clone(), true));
        if deleted {
            fs::remove_file(&pack).expect("removed");
        } else {
            flip(&pack, 1000);
        }
        let run = place.run(&["drill", &id, "--json"]);
        assert_eq!(run.code, 13, "{run:?}");
        let found = said(&run);
        assert!(found["proven"].is_null(), "{found}");
        let faults = found["faults"].as_array().expect("a list");
        assert!(
            faults.len() == 1 && faults[0]["path"] == "moved/precious" && faults[0]["subject"] == "file",
            "{found}"
        );
        assert_eq!(found["files"], 1, "the other one");
        assert!(proven(&place).iter().all(|(_, proven)| !proven), "{:?}", proven(&place));
        assert!(left(place.folder.path()).is_empty());
        let run = place.run(&["drill", &id]);
        assert!(run.code == 13 && run.out.contains("fault: file moved/precious"), "{run:?}");
    }
}

/// Whoever asks how things stand hears that the newest does not come back, however it was named and whoever runs
/// besides, until it passes.
#[test]
fn a_drill_that_failed_is_remembered() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    let old = with_file(&place, 1);
    let pack = place.packs().remove(0);
    let id = with_file(&place, 2);
    let newest = place.packs().into_iter().find(|path| *path != pack).expect("another one");
    let is_told = || place.run(&["doctor"]).out.contains("drill failed");
    // An older one is no reason.
    flip(&pack, 1000);
    assert_eq!(place.run(&["drill", &old]).code, 13);
    assert!(!is_told());
    flip(&pack, 1000);
    for with_daemon in [false, true] {
        let life = with_daemon.then(|| Life::start(daemon(&place)));
        if let Some(life) = &life {
            life.says("daemon of");
        }
        for name in ["latest", &id, ""] {
            let args: Vec<&str> = ["drill", name].into_iter().filter(|arg| !arg.is_empty()).collect();
            flip(&newest, 1000);
            assert_eq!(place.run(&args).code, 13, "{args:?}");
            // Nor does the daemon forget it when it keeps what it knows itself.
            if let Some(life) = &life {
                let before = life.count("configuration was read again");
                life.signal("HUP");
                life.says_times("configuration was read again", before + 1);
            }
            assert!(is_told(), "{args:?}, {with_daemon}");
            flip(&newest, 1000);
            place.ok(&args);
            assert!(!is_told(), "{args:?}, {with_daemon}");
        }
        flip(&newest, 1000);
        assert_eq!(place.run(&["drill"]).code, 13);
        life.map(Life::end);
        assert!(is_told(), "{with_daemon}");
        flip(&newest, 1000);
        place.ok(&["drill"]);
    }
}

/// Its header is fine, and so is what the store has of it: it was damaged in the data directory.
#[test]
fn a_database_that_was_captured_malformed_is_found() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    let path = place.data.join("vault.db");
    let conn = Connection::open(&path).expect("open");
    conn.execute_batch(
        "CREATE TABLE secrets(id INTEGER PRIMARY KEY, v TEXT); CREATE INDEX i ON secrets(v);
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<2000)
         INSERT INTO secrets SELECT x, hex(randomblob(20)) FROM n;",
    )
    .expect("filled");
    conn.close().expect("closed");
    database(&place.data.join("fine.db"), "WAL", 20);
    snapshot(&place);
    place.ok(&["drill"]);

    let mut bytes = fs::read(&path).expect("read");
    let end = bytes.len() - 3000;
    bytes[end..].fill(0xff);
    fs::write(&path, bytes).expect("written");
    let id = snapshot(&place);
    place.ok(&["check", "--read-data"]);
    let run = place.run(&["drill", "--json"]);
    assert_eq!(run.code, 13, "{run:?}");
    let found = said(&run);
    let faults = found["faults"].as_array().expect("a list");
    assert!(faults.len() == 1 && faults[0]["path"] == "vault.db" && faults[0]["subject"] == "database", "{found}");
    assert_eq!(found["databases"][0]["rows"]["t"], 20);
    assert_eq!(proven(&place).last(), Some(&(id, false)));
    assert_eq!(proven(&place).iter().filter(|(_, proven)| *proven).count(), 1, "the one before stays proven");
}

#[test]
fn rows_that_refer_to_nothing_are_a_remark() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    let conn = Connection::open(place.data.join("a.db")).expect("open");
    conn.execute_batch(
        "PRAGMA foreign_keys=OFF; CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p);
         INSERT INTO c VALUES(1),(2)",
    )
    .expect("filled");
    conn.close().expect("closed");
    snapshot(&place);
    let found = said(&place.ok(&["drill", "--json"]));
    assert_eq!(found["databases"][0]["foreign_key_violations"], json!({"c": 2}));
    assert!(found["remarks"][0].as_str().is_some_and(|remark| remark.contains("2 rows refer")), "{found}");
}

/// A policy never takes the last one of which it is known that it comes back.
#[test]
fn the_newest_proven_one_is_not_forgotten() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    let ids: Vec<String> = (0..5).map(|seed| with_file(&place, seed)).collect();
    place.ok(&["drill", &ids[0]]);
    place.ok(&["drill", &ids[1]]);
    place.ok(&["pin", &ids[2]]);
    let dry = place.ok(&["forget", "--keep-last", "1", "--dry-run"]);
    assert!(dry.out.contains("the newest one that a drill has restored"), "{dry:?}");
    place.ok(&["forget", "--keep-last", "1"]);
    place.ok(&["gc"]);
    let there: Vec<String> = proven(&place).into_iter().map(|(id, _)| id).collect();
    assert_eq!(there, [&ids[1], &ids[2], &ids[4]].map(String::clone));
    let refused = place.run(&["forget", &ids[1]]);
    assert!(refused.code == 2 && refused.err.contains("--force") && refused.err.contains("drill"), "{refused:?}");
    // With a newer one the older goes.
    place.ok(&["drill"]);
    place.ok(&["forget", &ids[1]]);
    place.ok(&["forget", "--force", &ids[2]]);
    place.ok(&["drill", &ids[4]]);
    place.ok(&["check", "--read-data"]);
}

#[test]
fn what_a_killed_drill_left_the_next_one_sweeps() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    for nth in 0..300 {
        fs::write(place.data.join(format!("file-{nth}")), noise(nth, 60_000)).expect("written");
    }
    database(&place.data.join("history.db"), "WAL", 20_000);
    snapshot(&place);
    let mut seen = 0;
    for delay in [20, 40, 60, 90, 130, 200, 300].map(Duration::from_millis) {
        let mut child = place.command(&["drill"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
        let start = Instant::now();
        // Not before there is something to sweep.
        while left(place.folder.path()).is_empty() && start.elapsed() < Duration::from_secs(20) {
            if child.try_wait().expect("asked").is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(delay / 4);
        let _ = child.kill();
        child.wait().expect("ended");
        seen += usize::from(!left(place.folder.path()).is_empty());
    }
    assert!(seen > 0, "no kill left anything: the test shows nothing");
    place.ok(&["drill"]);
    assert!(left(place.folder.path()).is_empty(), "{:?}", left(place.folder.path()));
    place.ok(&["check", "--read-data"]);
}

#[test]
fn a_full_disk_ends_a_drill_and_nothing_stays() {
    let Some(disk) = small_disk(own_name!("a_full_disk_ends_a_drill_and_nothing_stays")) else { return };
    let place = Place { key: Some(KEY), ..Place::empty() };
    for nth in 0..40 {
        fs::write(place.data.join(format!("file-{nth}")), noise(nth, 60_000)).expect("written");
    }
    let hole = fs::File::create(place.data.join("hole")).expect("made");
    hole.set_len(1 << 30).expect("a hole");
    snapshot(&place);
    let scratch = disk.to_str().expect("UTF-8");
    let drill = ["drill", "--scratch", scratch];
    // Refused before anything is written.
    mount(&disk, 4096);
    let run = place.run(&drill);
    assert!(run.code == 1 && run.err.contains("no room") && run.err.contains("--scratch"), "{run:?}");
    assert_eq!(fs::read_dir(&disk).expect("a folder").count(), 0);
    // Full in the middle: there are bytes, and no more files.
    mount(&disk, 16 * 1024);
    let few = Command::new("mount").args(["-o", "remount,nr_inodes=20"]).arg(&disk).output().expect("runs");
    assert!(few.status.success(), "{few:?}");
    let run = place.run(&drill);
    assert!(run.code == 1 && run.err.contains("free some space"), "{run:?}");
    assert_eq!(fs::read_dir(&disk).expect("a folder").count(), 0);
    assert!(proven(&place).iter().all(|(_, proven)| !proven));
    // Holes take no room.
    mount(&disk, 16 * 1024);
    place.ok(&drill);
    assert_eq!(fs::read_dir(&disk).expect("a folder").count(), 0);
    assert!(proven(&place)[0].1);
}

/// One that lacks something may come back as it is, and takes the place of none that has everything.
#[test]
fn an_incomplete_one_does_not_displace_a_complete_one() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    let whole = with_file(&place, 1);
    place.ok(&["drill"]);
    // What is no file is not captured.
    let path = place.data.join("changing");
    fs::remove_file(&path).expect("removed");
    fifo(&path);
    let taken = place.run(&["snapshot", "--json"]);
    assert_eq!(taken.code, 3, "{taken:?}");
    let lacking = said(&taken)["snapshot"].as_str().expect("an id").to_owned();
    let run = place.run(&["drill", "--json"]);
    let found = said(&run);
    assert!(run.code == 3 && found["proven"].is_string() && found["incomplete"] == true, "{run:?}");
    assert_eq!(found["unreadable_entries"][0]["path"], "changing");
    let run = place.run(&["drill"]);
    assert!(run.code == 3 && run.out.contains("proven, but incomplete: snapshot"), "{run:?}");
    assert!(run.out.contains("; 1 entry was not captured; "), "{run:?}");

    // Both are held, each for what it is.
    let dry = place.ok(&["forget", "--keep-last", "1", "--dry-run"]);
    assert!(dry.out.contains("the newest complete one that a drill has restored"), "{dry:?}");
    place.ok(&["forget", "--keep-last", "1"]);
    assert_eq!(proven(&place), [(whole.clone(), true), (lacking.clone(), true)]);
    let refused = place.run(&["forget", &whole]);
    assert!(refused.code == 2 && refused.err.contains("--force"), "{refused:?}");

    // And who asks how things stand hears of both.
    let now = said(&place.ok(&["status", "--json"]));
    assert_eq!(now["newest_proven"]["snapshot"], whole.as_str(), "{now}");
    assert_eq!(now["newest_proven_incomplete"]["snapshot"], lacking.as_str(), "{now}");
    assert_eq!((&now["newest_proven_incomplete"]["lacks"], &now["newest_snapshot"]["lacks"]), (&json!(1), &json!(1)));
    let status = place.ok(&["status"]).out;
    assert_eq!(status.matches("1 entry was not captured").count(), 2, "{status}");
    let doctor = place.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("is incomplete: 1 entry was not captured"), "{doctor:?}");
    let proof = doctor.out.lines().find(|line| line.contains("  proof ")).expect("a line");
    assert!(proof.starts_with("note") && proof.contains(&whole[..8]) && proof.contains(&lacking[..8]), "{proof}");

    // One that is complete again is the newest of all.
    fs::remove_file(&path).expect("removed");
    let again = with_file(&place, 2);
    place.ok(&["drill"]);
    let now = said(&place.ok(&["status", "--json"]));
    assert_eq!(now["newest_proven"]["snapshot"], again.as_str());
    assert!(now["newest_proven_incomplete"].is_null() && now["newest_snapshot"]["lacks"] == 0, "{now}");
    place.ok(&["forget", &whole, &lacking]);
}
