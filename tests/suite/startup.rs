//! Before an update, and how things stand: `startup`, `status`, `doctor`, as the real program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::common::small_disk::{mount, small_disk};
use crate::common::{self, KEY, OTHER_KEY, Place, Run, noise};
use crate::daemon_common::clock::Clock;
use crate::daemon_common::{Life, STATE, backups, daemon, fill, filled, json_lines, now_ms, text, write_state};
use crate::drive_common::{Cloud, store_grant};
use serde_json::{Value, json};

const VERSION: &str = ".last_version";

fn startup(place: &Place, version: &str) -> Run {
    place.run(&["startup", "--app-version", version])
}

fn noted(place: &Place) -> String {
    text(&place.data.join(VERSION))
}

/// The two lines that are documented, and the path that the second names.
fn lines(run: &Run, name: &str, old: &str, new: &str) -> String {
    let first = format!("[{name}] Version changed ({old} → {new}) — creating pre-update backup...");
    let second = format!("[{name}] Pre-update backup created: ");
    let own: Vec<&str> = run.out.lines().filter(|line| line.starts_with('[')).collect();
    assert!(own.len() == 2 && own[0] == first && own[1].starts_with(&second), "{run:?}");
    assert_eq!(run.out.lines().next(), Some(first.as_str()), "before anything is done");
    own[1][second.len()..].to_owned()
}

#[test]
fn another_version_comes_after_a_backup() {
    let place = filled();
    // The first run writes which it is, and nothing else.
    let run = startup(&place, "1.0.0");
    assert_eq!((run.code, run.out.as_str()), (0, ""), "{run:?}");
    assert_eq!(noted(&place), "1.0.0");
    assert!(!place.repo.exists() && backups(&place).is_empty());
    // The same version does nothing.
    let run = startup(&place, "1.0.0");
    assert_eq!((run.code, run.out.as_str()), (0, ""), "{run:?}");
    assert!(!place.repo.exists());
    // Another one: a backup of the old, and then the new is noted.
    let run = startup(&place, "1.1.0");
    assert_eq!(run.code, 0, "{run:?}");
    let path = lines(&run, "nodyn", "1.0.0", "1.1.0");
    assert_eq!(noted(&place), "1.1.0");
    let listed = backups(&place);
    assert!(listed.len() == 1 && listed[0]["path"] == json!(path), "{listed:?}");
    let manifest: Value = serde_json::from_str(&text(&Path::new(&path).join("manifest.json"))).expect("JSON");
    assert_eq!((&manifest["version"], &listed[0]["version"]), (&json!("1.0.0"), &json!("1.0.0")));
    place.ok(&["backup", "verify"]);
    assert_eq!(startup(&place, "1.1.0").out, "");
    // Also to an older one.
    let run = startup(&place, "1.0.0");
    lines(&run, "nodyn", "1.1.0", "1.0.0");
    assert_eq!((run.code, noted(&place).as_str(), backups(&place).len()), (0, "1.0.0", 2));
    // As JSON it is one object.
    let run = place.ok(&["startup", "--app-version", "2", "--json"]);
    let object: Value = serde_json::from_str(&run.out).expect("one object");
    assert!(object["name"].is_string(), "{run:?}");
    let object: Value =
        serde_json::from_str(&place.ok(&["startup", "--app-version", "2", "--json"]).out).expect("JSON");
    assert_eq!(object, json!({"changed": false, "first": false, "pending_restore": null}));
    assert_eq!(startup(&place, "two\nlines").code, 2);
}

/// Before the application ran for the first time there may be no data directory; but there is one above it.
#[test]
fn where_nothing_is_yet_it_is_the_first_run() {
    let place = Place::empty();
    fs::remove_dir(&place.data).expect("empty");
    let run = startup(&place, "1.0.0");
    assert!(run.code == 0 && run.out.is_empty() && run.err.contains("nothing ran here before"), "{run:?}");
    let mode = fs::metadata(&place.data).expect("made").permissions().mode() & 0o777;
    assert_eq!((noted(&place).as_str(), mode), ("1.0.0", 0o700));
    let misspelt = place.path("no/such");
    let run = place.run(&["--data-dir", misspelt.to_str().expect("a path"), "startup", "--app-version", "1"]);
    assert!(run.code == 1 && run.err.contains("no/such"), "{run:?}");
}

#[test]
fn a_version_that_was_cut_short_costs_no_backup() {
    let place = filled();
    fs::write(place.data.join(VERSION), "").expect("written");
    let run = startup(&place, "3");
    lines(&run, "nodyn", "unknown", "3");
    assert_eq!((run.code, backups(&place).len()), (0, 1));
    // Spaces and line ends around it are no other version.
    fs::write(place.data.join(VERSION), " 3\n").expect("written");
    assert_eq!((startup(&place, "3").out.as_str(), backups(&place).len()), ("", 1));
}

#[test]
fn in_a_directory_of_lynox_it_is_lynox() {
    let mut place = Place { key: None, ..filled() };
    let data = place.path(".lynox");
    fs::rename(&place.data, &data).expect("renamed");
    place.data = data;
    let with_key = |version: &str| {
        let mut command = place.command(&["startup", "--app-version", version]);
        command.env("LYNOX_VAULT_KEY", KEY);
        Run::of(command)
    };
    assert_eq!(with_key("1").code, 0);
    let run = with_key("2");
    let path = lines(&run, "lynox", "1", "2");
    let manifest: Value = serde_json::from_str(&text(&Path::new(&path).join("manifest.json"))).expect("JSON");
    assert!(manifest["lynox_dir"].is_string() && manifest["version"] == "1", "{manifest}");
}

#[test]
fn without_a_backup_the_old_version_stands() {
    let place = filled();
    startup(&place, "1");
    place.ok(&["snapshot"]);
    // With a key that opens nothing.
    for _ in 0..2 {
        let run = place.with_key(Some(OTHER_KEY), &["startup", "--app-version", "2"]);
        assert!(run.code != 0 && run.err.contains("error: "), "{run:?}");
        assert!(run.out.contains("[nodyn] Version changed (1 → 2)") && !run.out.contains("created"), "{run:?}");
        assert_eq!((noted(&place).as_str(), backups(&place).len()), ("1", 0));
    }
    let run = startup(&place, "2");
    lines(&run, "nodyn", "1", "2");
    assert_eq!((run.code, noted(&place).as_str(), backups(&place).len()), (0, "2", 1));
}

#[test]
fn on_a_full_disk_the_old_version_stands() {
    let Some(disk) = small_disk(own_name!("on_a_full_disk_the_old_version_stands")) else { return };
    mount(&disk, 600);
    let mut place = filled();
    fs::write(place.data.join("more"), noise(4, 900_000)).expect("written");
    place.repo = disk.join("store");
    let run = |version: &str| {
        let mut command = place.command(&["startup", "--app-version", version]);
        command.env("NBAK_BACKUP_DIR", &disk);
        Run::of(command)
    };
    assert_eq!(run("1").code, 0);
    for _ in 0..2 {
        let failed = run("2");
        assert!(failed.code == 1 && failed.err.contains("free some space"), "{failed:?}");
        assert_eq!(noted(&place), "1");
    }
    fs::remove_file(place.data.join("more")).expect("removed");
    mount(&disk, 8000);
    let done = run("2");
    lines(&done, "nodyn", "1", "2");
    assert_eq!((done.code, noted(&place).as_str()), (0, "2"));
}

#[test]
fn it_is_uploaded_and_what_only_drive_refuses_stops_no_update() {
    let cloud = Cloud::new();
    fill(&cloud.place.data);
    store_grant(&cloud);
    let startup = |version: &str| cloud.run(&["startup", "--app-version", version]);
    assert_eq!(startup("1").code, 0);
    assert!(cloud.fake.files().is_empty());
    let run = startup("2");
    assert_eq!(run.code, 0, "{run:?}");
    let path = lines(&run, "nodyn", "1", "2");
    cloud.assert_holds_once(Path::new(&path));
    // A Drive that is full: the backup is made, and the update may go on.
    cloud.fake.storage_quota(1);
    fs::write(cloud.place.data.join("new"), noise(5, 100_000)).expect("written");
    let run = startup("3");
    assert_eq!(run.code, 14, "{run:?}");
    let path = lines(&run, "nodyn", "2", "3");
    assert!(Path::new(&path).join("manifest.json").exists() && run.err.contains("whole"), "{run:?}");
    assert_eq!(noted(&cloud.place), "3");
    // What is missing there is uploaded by the next one.
    cloud.fake.storage_quota(None);
    assert_eq!(startup("4").code, 0);
    cloud.assert_holds_once(Path::new(&path));
    cloud.assert_no_secret_was_shown();
}

fn status(place: &Place) -> Value {
    serde_json::from_str(&place.ok(&["status", "--json"]).out).expect("JSON")
}

/// How `doctor` finds a subject: its worst level and what it says there, and the exit code.
fn found(run: &Run, subject: &str) -> (String, String, i32) {
    let order = ["ok", "note", "bad"];
    let rank = |check: &Value| order.iter().position(|level| check["level"] == *level).expect("a level");
    let all: Vec<Value> = json_lines(run).into_iter().filter(|check| check["subject"] == subject).collect();
    let worst = all.iter().max_by_key(|check| rank(check)).unwrap_or_else(|| panic!("{subject}: {run:?}"));
    let text = |name: &str| worst[name].as_str().expect("text").to_owned();
    if worst["level"] != "ok" {
        assert!(!text("remedy").is_empty(), "what to do: {worst}");
    }
    (text("level"), text("text"), run.code)
}

#[test]
fn status_says_what_there_is() {
    let place = filled();
    let before = status(&place);
    assert!(before["store_error"].is_string() && before["newest_backup"].is_null(), "{before}");
    place.ok(&["backup"]);
    place.ok(&["drill"]);
    let life = Life::start(daemon(&place));
    life.says("daemon of");
    let now = status(&place);
    assert!(now["store_error"].is_null() && now["damage"].is_null(), "{now}");
    assert_eq!((&now["snapshots"], &now["backups"], &now["protected"]), (&json!(1), &json!(1), &json!(true)));
    assert_eq!(now["newest_snapshot"]["snapshot"], now["newest_proven"]["snapshot"]);
    assert_eq!(now["newest_backup"]["name"], backups(&place)[0]["name"]);
    for name in ["newest_snapshot", "newest_proven", "newest_backup"] {
        assert!((0..120).contains(&now[name]["age_seconds"].as_i64().expect("a number")), "{now}");
    }
    assert!(now["store_bytes"].as_u64() > Some(100_000) && now["free_bytes"].as_u64() > Some(0));
    assert_eq!((&now["daemon"], &now["gdrive"]), (&json!(life.id().to_string()), &json!(false)));
    let people = place.ok(&["status"]).out;
    for words in ["newest backup", "newest proof", "1 snapshot", &format!("process {}", life.id()), "next snapshot"] {
        assert!(people.contains(words), "{words}: {people}");
    }
    life.end();
    // It only looks.
    let before = common::tree(place.folder.path());
    status(&place);
    place.run(&["doctor"]);
    common::assert_equal(&before, &common::tree(place.folder.path()));
}

#[test]
fn doctor_finds_nothing_where_nothing_is() {
    let place = filled();
    fs::set_permissions(&place.data, fs::Permissions::from_mode(0o700)).expect("a mode");
    place.ok(&["backup"]);
    place.ok(&["drill"]);
    let life = Life::start(daemon(&place));
    life.says("daemon of");
    let mut command = place.command(&["doctor", "--json"]);
    command.env("NBAK_BACKUP_GDRIVE", "false");
    let run = Run::of(command);
    for check in json_lines(&run) {
        assert!(check["level"] == "ok" || check["subject"] == "room", "{check}");
    }
    for subject in ["store", "clock", "backup", "proof", "room", "schedule", "openers", "permissions", "SQLite"] {
        found(&run, subject);
    }
    assert!(found(&run, "openers").1.contains("nobody"), "{run:?}");
    let conn = rusqlite::Connection::open(place.data.join("opened.db")).expect("open");
    conn.execute_batch("CREATE TABLE t(v)").expect("made");
    let (_, words, _) = found(&place.run(&["doctor", "--json"]), "openers");
    let who = format!("(process {})", std::process::id());
    assert!(words.contains("opened.db by ") && words.contains(&who), "{words}");
    life.end();
}

#[test]
fn doctor_finds_what_is_wrong() {
    let place = filled();
    let doctor = || place.run(&["doctor", "--json"]);
    let bad = |run: &Run, subject: &str, words: &str| {
        let (level, text, code) = found(run, subject);
        assert!(level == "bad" && code == 1 && text.contains(words), "{subject}: {level}, {code}: {text}");
    };
    // Before anything was done.
    bad(&doctor(), "store", "");
    bad(&doctor(), "backup", "there is none");
    place.ok(&["backup"]);
    let run = doctor();
    assert_eq!((found(&run, "backup").0.as_str(), found(&run, "store").0.as_str()), ("ok", "ok"));
    assert_eq!((found(&run, "proof").0.as_str(), found(&run, "schedule").0.as_str()), ("note", "note"));
    // Without the key, and with another one.
    bad(&place.with_key(None, &["doctor", "--json"]), "store", "key");
    bad(&place.with_key(Some(OTHER_KEY), &["doctor", "--json"]), "store", "key");
    // Keys that others can read.
    fs::write(place.data.join(".env"), format!("NODYN_VAULT_KEY={KEY}\n")).expect("written");
    fs::set_permissions(place.data.join(".env"), fs::Permissions::from_mode(0o644)).expect("a mode");
    bad(&doctor(), "permissions", ".env");
    fs::set_permissions(place.data.join(".env"), fs::Permissions::from_mode(0o600)).expect("a mode");
    assert_ne!(found(&doctor(), "permissions").0, "bad");
    fs::remove_file(place.data.join(".env")).expect("removed");
    // A job that fails.
    let failing = json!({"last": {"drill": {"at": 1, "took": 1, "code": 13, "failures": 3, "message": "a fault"}}});
    write_state(&place.data, &failing);
    bad(&doctor(), "last runs", "drill failed, 3 times: a fault");
    assert!(place.ok(&["status"]).out.contains("drill: a fault (3 times)"));
    fs::remove_file(place.data.join(STATE)).expect("removed");
    // A clock that is a day behind: what was done lies ahead of it.
    let mut clock = Clock::new();
    clock.back(Duration::from_hours(24));
    let mut command = place.command(&["doctor", "--json"]);
    clock.give(&mut command);
    bad(&Run::of(command), "clock", "has not come yet");
    // And one that is two days ahead: the newest backup is old, and so in three months is the proof.
    place.ok(&["drill"]);
    let ahead = |clock: &mut Clock, days: u64| {
        clock.forward(Duration::from_hours(24 * days));
        let mut command = place.command(&["doctor", "--json"]);
        clock.give(&mut command);
        Run::of(command)
    };
    bad(&ahead(&mut clock, 3), "backup", "48 hours old");
    assert_eq!(found(&ahead(&mut clock, 90), "proof").0, "note");
    // A pack that is gone.
    let pack = place.packs().remove(0);
    fs::rename(&pack, place.path("aside")).expect("moved");
    let check = place.run(&["check", "--read-data"]);
    assert_ne!(check.code, 0, "{check:?}");
    let (level, words, code) = found(&doctor(), "store");
    assert!(level == "bad" && code == 1, "{level}: {words}");
    fs::rename(place.path("aside"), &pack).expect("moved");
}

/// A job that hangs holds up all others; that something runs is no excuse for ever.
#[test]
fn doctor_finds_a_job_that_hangs() {
    let place = filled();
    place.ok(&["backup"]);
    place.ok(&["drill"]);
    let life = Life::start(daemon(&place));
    life.says("daemon of");
    let hour = 3_600_000;
    let doctor = |job: &str, hours: i64| {
        let mut state = crate::daemon_common::state(&place.data);
        let begun = now_ms() - hours * hour;
        let before = json!({"snapshot": begun - 5000, "backup": begun - hour});
        state["running"] = json!({"job": job, "seen": before});
        state["seen"] = before;
        state["seen"][job] = json!(begun);
        write_state(&place.data, &state);
        let mut command = place.command(&["doctor", "--json"]);
        command.env("NBAK_SNAPSHOT_SCHEDULE", "@every 5s").env("NBAK_STALE_HOURS", "0");
        found(&Run::of(command), "schedule")
    };
    assert_eq!(doctor("snapshot", 4).0, "ok", "much data takes its time");
    let (level, text, code) = doctor("snapshot", 30);
    assert!(level == "bad" && code == 1 && text.contains("snapshot runs since"), "{text}");
    // A backup that goes far away may take days, but then no snapshot was taken for as long.
    let (level, text, _) = doctor("backup", 7);
    assert!(level == "bad" && text.contains("backup runs since") && text.contains("snapshot waits"), "{text}");
    life.end();
}

/// With git it would bring back what another glob takes; here it would be a name that nothing has.
#[test]
fn a_glob_that_begins_as_an_exception_is_told() {
    let place = Place::empty();
    for name in ["a.txt", "b.txt", "!c.txt", "kept"] {
        fs::write(place.data.join(name), name).expect("written");
    }
    let listed = || place.ok(&["ls", "latest"]).out;
    fs::write(place.data.join("config.json"), r#"{"nbak": {"exclude": ["b.*", "!*.txt"]}}"#).expect("written");
    let run = place.ok(&["snapshot"]);
    assert!(run.err.contains("`!*.txt`") && run.err.contains("makes no exception"), "{run:?}");
    assert!(listed().contains("a.txt") && listed().contains("!c.txt") && !listed().contains("b.txt"), "{}", listed());
    let doctor = place.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("makes no exception"), "{doctor:?}");
    fs::write(place.data.join("config.json"), r#"{"nbak": {"exclude": ["\\!c.txt"]}}"#).expect("written");
    let run = place.ok(&["snapshot"]);
    assert!(!run.err.contains("exception") && !listed().contains("!c.txt"), "{run:?}");
    let before = place.packs();
    let run = place.run(&["snapshot", "--exclude", "*.txt", "--exclude", "!a.txt"]);
    assert!(run.code == 2 && run.err.contains("makes no exception") && place.packs() == before, "{run:?}");
}

/// What `backup restore` refuses to pass over is not passed over here.
#[test]
fn doctor_finds_a_newest_backup_that_cannot_be_read() {
    let place = filled();
    let made = || {
        place.ok(&["backup"]);
        let last = backups(&place).pop().expect("one");
        (last["name"].as_str().expect("a name").to_owned(), last["path"].as_str().expect("a path").to_owned())
    };
    let doctor = || found(&place.run(&["doctor", "--json"]), "backup");
    let (old, _) = made();
    // A second later, by its name: that is all that is known of one that cannot be read.
    std::thread::sleep(Duration::from_millis(1100));
    let (name, path) = made();
    fs::write(Path::new(&path).join("manifest.json"), "{").expect("written");
    assert_eq!(place.run(&["backup", "verify"]).code, 13);
    let (level, words, code) = doctor();
    assert!(level == "bad" && code == 1 && words.contains(&name) && words.contains("cannot be read"), "{words}");
    let now = status(&place);
    assert_eq!((&now["newest_backup"]["name"], &now["damaged_backup"]["name"]), (&json!(old), &json!(name)), "{now}");
    assert!(place.ok(&["status"]).out.contains(&format!("damaged backup   {name}: ")));
    // A newer one that is whole makes it one of the past.
    std::thread::sleep(Duration::from_millis(1100));
    made();
    assert_eq!(doctor().0, "ok");
    assert!(status(&place)["damaged_backup"].is_null());
}

/// The store's key was exchanged since: it opens the store, and the newest backup not.
#[test]
fn doctor_finds_a_newest_backup_that_no_key_opens() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    fs::write(place.data.join("file"), "content").expect("written");
    place.ok(&["backup"]);
    let doctor = place.run(&["doctor"]);
    assert!(doctor.out.contains("a key that is set opens 2"), "{doctor:?}");
    let new = place.path("new key");
    fs::write(&new, OTHER_KEY).expect("written");
    place.ok(&["key", "rotate", "--new-vault-key-file", new.to_str().expect("text")]);
    let doctor = place.with_key(Some(OTHER_KEY), &["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("no key that is set opens 2"), "{doctor:?}");
    assert!(doctor.out.contains("it opens; "), "the store does: {doctor:?}");
    assert_eq!(place.with_key(Some(OTHER_KEY), &["backup"]).code, 0);
    let doctor = place.with_key(Some(OTHER_KEY), &["doctor"]);
    assert!(doctor.out.contains("a key that is set opens 2"), "{doctor:?}");
}

#[test]
fn doctor_finds_a_store_that_opens_for_everyone() {
    let place = Place::taken(None);
    let run = place.run(&["doctor", "--json"]);
    let (level, text, code) = found(&run, "store");
    assert!(level == "bad" && code == 1 && text.contains("everyone"), "{run:?}");
    assert_eq!(status(&place)["protected"], json!(false));
}

#[test]
fn doctor_finds_a_disk_that_is_almost_full() {
    let Some(disk) = small_disk(own_name!("doctor_finds_a_disk_that_is_almost_full")) else { return };
    mount(&disk, 4000);
    let mut place = filled();
    place.repo = disk.join("store");
    place.ok(&["snapshot"]);
    let run = place.run(&["doctor", "--json"]);
    let (level, text, code) = found(&run, "room");
    assert!(level == "bad" && code == 1 && text.contains("are free"), "{run:?}");
}
