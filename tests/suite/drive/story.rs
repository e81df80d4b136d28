//! Google Drive, through the program, against a server on loopback that behaves as Drive does: access by both flows,
//! backups there and back on a new machine, the store there and back, what an interruption costs, and that no secret is
//! ever printed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{KEY, Place, Run, assert_same, noise};
use crate::drive_common::Cloud;
use rusqlite::Connection;
use serde_json::Value;

fn json(run: &Run) -> Value {
    serde_json::from_str(run.out.lines().next().expect("a line")).expect("JSON")
}

/// Files in folders, and a database.
fn fill(place: &Place) {
    for folder in 0..4 {
        fs::create_dir(place.data.join(format!("folder {folder}"))).expect("made");
        for file in 0..6 {
            let bytes = noise(folder * 10 + file, 3000 + 500 * file as usize);
            fs::write(place.data.join(format!("folder {folder}/it's {file}")), bytes).expect("written");
        }
    }
    fs::write(place.data.join("nothing"), "").expect("written");
    crate::common::database(&place.data.join("history.db"), "WAL", 500);
}

fn rows(place: &Place) -> Vec<String> {
    let database = Connection::open(place.data.join("history.db")).expect("open");
    let mut query = database.prepare("SELECT id || v FROM t ORDER BY id").expect("a query");
    let rows = query.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

#[test]
fn the_whole_story() {
    let cloud = Cloud::new();
    fill(&cloud.place);
    assert_eq!(cloud.run(&["auth", "status"]).code, 1);
    let refused = cloud.run(&["backup", "gdrive", "list"]);
    assert!(refused.code == 14 && refused.err.contains("nbak auth google"), "{refused:?}");
    cloud.grant();
    assert!(cloud.ok(&["auth", "status"]).out.contains("Google accepts it"));

    // Every backup goes there by itself.
    let made = json(&cloud.ok(&["backup", "--json"]));
    assert_eq!(made["uploaded"], true);
    let name = made["name"].as_str().expect("a name").to_owned();
    let files = made["files"].as_u64().expect("a number");
    let listed = json(&cloud.ok(&["backup", "gdrive", "list", "--json"]));
    assert_eq!((listed["name"].as_str(), listed["files"].as_u64()), (Some(name.as_str()), Some(files)));
    assert!(listed["damaged"].is_null() && listed["encrypted"] == true);
    cloud.assert_holds_once(&cloud.place.data.join("backups").join(&name));
    // A second time there is nothing to send.
    let before = cloud.fake.bytes_in();
    let again = json(&cloud.ok(&["backup", "gdrive", "upload", "--json"]));
    assert_eq!((again["files"].as_u64(), cloud.fake.bytes_in()), (Some(0), before));

    // The store too, and then only what is new.
    cloud.ok(&["gdrive", "push"]);
    fs::write(cloud.place.data.join("new"), noise(99, 20_000)).expect("written");
    let stored = json(&cloud.ok(&["snapshot", "--json"]))["stored_bytes"].as_u64().expect("a number");
    let before = cloud.fake.bytes_in();
    cloud.ok(&["gdrive", "push"]);
    let sent = cloud.fake.bytes_in() - before;
    assert!(sent >= stored && sent * 10 <= stored * 11, "{sent} bytes for {stored}");

    // The machine is lost. On the next one there is the key, and nothing else.
    let new = cloud.on_a_new_machine();
    new.grant_by_browser();
    let restored = new.ok(&["backup", "gdrive", "restore", "--yes"]);
    assert!(restored.out.contains(&format!("restored backup {name}")), "{restored:?}");
    assert_eq!(rows(&new.place), rows(&cloud.place));
    for (path, thing) in crate::common::tree(&cloud.place.data) {
        let is_own = path.to_string_lossy().starts_with(['.', 'b']) || path.to_string_lossy().contains("history.db");
        if thing.kind == "file" && !is_own && path.to_string_lossy() != "new" {
            assert_eq!(fs::read(new.place.data.join(&path)).expect("restored"), thing.bytes, "{}", path.display());
        }
    }
    let third = cloud.on_a_new_machine();
    third.grant();
    third.ok(&["gdrive", "pull"]);
    third.ok(&["check", "--read-data"]);
    let target = third.place.path("target");
    third.ok(&["restore", "latest", "--target", target.to_str().expect("a path")]);
    fs::remove_file(cloud.place.data.join(".nbak-state/google.json")).expect("the grant");
    let own = |name: &str| cloud.place.data.join(name);
    for name in ["backups", ".nbak-drive.lock", ".nbak-seals.json"] {
        let _ = fs::remove_dir_all(own(name));
        let _ = fs::remove_file(own(name));
    }
    let same = |root: &std::path::Path| {
        let mut all = crate::common::tree(root);
        all.retain(|path, _| !path.to_string_lossy().starts_with(".nbak") && !path.to_string_lossy().contains("-shm"));
        all.retain(|path, _| !path.to_string_lossy().contains("-wal"));
        all
    };
    crate::common::assert_equal(&same(&cloud.place.data), &same(&target));

    new.ok(&["auth", "revoke"]);
    assert_eq!(new.run(&["auth", "status"]).code, 1);
    for one in [&cloud, &new, &third] {
        one.assert_no_secret_was_shown();
    }
}

/// What fails there is exit code 14, the backup on this machine stands, and the next run makes up for it.
#[test]
fn a_failed_upload_is_made_up_for() {
    let cloud = Cloud::new();
    fill(&cloud.place);
    cloud.grant();
    cloud.fake.storage_quota(10_000);
    let full = cloud.run(&["backup", "--json"]);
    assert!(full.code == 14 && full.err.contains("Google Drive is full"), "{full:?}");
    let first = json(&full)["name"].as_str().expect("a name").to_owned();
    assert_eq!(json(&full)["uploaded"], false);
    cloud.ok(&["backup", "verify", &first]);
    let listed = json(&cloud.ok(&["backup", "gdrive", "list", "--json"]));
    assert!(listed["damaged"].as_str().expect("a reason").contains("incomplete"), "{listed}");
    let none = cloud.run(&["backup", "gdrive", "restore", "--yes"]);
    assert!(none.code == 10, "what is not complete is not restored: {none:?}");

    cloud.fake.storage_quota(None);
    // By then backups are kept elsewhere.
    let elsewhere = cloud.place.path("elsewhere");
    let config = cloud.place.data.join("config.json");
    fs::write(&config, format!(r#"{{"backup_dir": "{}"}}"#, elsewhere.display())).expect("written");
    std::thread::sleep(Duration::from_millis(1100));
    // Whatever keeps it from being uploaded, the backup was made.
    let mut nobody = cloud.command(&["backup"]);
    nobody.env_remove("GOOGLE_CLIENT_ID");
    let unknown = Run::of(nobody);
    assert!(unknown.code == 14 && unknown.err.contains("GOOGLE_CLIENT_ID"), "{unknown:?}");
    std::thread::sleep(Duration::from_millis(1100));
    cloud.ok(&["backup"]);
    let listed = cloud.ok(&["backup", "gdrive", "list", "--json"]);
    assert_eq!(listed.out.lines().count(), 3);
    assert!(!listed.out.contains("incomplete") && listed.out.contains(&first), "{listed:?}");
    // Not wanted any more.
    fs::write(cloud.place.data.join("config.json"), r#"{"backup_gdrive": false}"#).expect("written");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(json(&cloud.ok(&["backup", "--json"]))["uploaded"], false);
    assert_eq!(cloud.ok(&["backup", "gdrive", "list", "--json"]).out.lines().count(), 3);
    // Nothing old enough; then all but the newest complete one.
    cloud.ok(&["backup", "gdrive", "prune"]);
    assert_eq!(cloud.ok(&["backup", "gdrive", "list", "--json"]).out.lines().count(), 3);
}

/// A grant that was revoked elsewhere is told apart from trouble that passes.
#[test]
fn what_is_permanent_is_said() {
    let cloud = Cloud::new();
    fill(&cloud.place);
    cloud.grant();
    cloud.fake.invalid_grant(true);
    cloud.fake.expire_tokens();
    let refused = cloud.run(&["backup"]);
    assert!(refused.code == 14 && refused.err.contains("does not accept what was granted"), "{refused:?}");
    assert!(refused.err.contains("auth google") && refused.err.contains("7 days"), "{refused:?}");
    assert!(cloud.place.data.join(".nbak-state/google.json").exists(), "it is kept: a person decides");
    let none = Run::of(cloud.place.command(&["auth", "google", "--device"]));
    assert!(none.code == 2 && none.err.contains("GOOGLE_CLIENT_ID"), "{none:?}");
    let mut elsewhere = cloud.command(&["backup", "gdrive", "list"]);
    elsewhere.env("NBAK_GOOGLE_BASE", "http://example.org");
    let refused = Run::of(elsewhere);
    assert!(refused.code == 2 && refused.err.contains("this very machine"), "{refused:?}");
}

/// Killed at any moment, the same command again finishes, and sends little again.
#[test]
fn killed_uploads_and_downloads_go_on() {
    let cloud = Cloud::new();
    fs::write(cloud.place.data.join("large"), noise(5, 24_000_000)).expect("written");
    fill(&cloud.place);
    cloud.place.ok(&["backup"]);
    cloud.grant();
    let size = 24_000_000;
    let mut kills = 0;
    for after in [30, 60, 90, 120, 150, 180, 240, 300] {
        let mut child = cloud.command(&["backup", "gdrive", "upload", "--limit-rate", "40M"]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        std::thread::sleep(Duration::from_millis(after));
        child.kill().expect("killed");
        kills += u64::from(!child.wait().expect("ended").success());
    }
    cloud.ok(&["backup", "gdrive", "upload"]);
    // Each kill costs at most the parts that were under way.
    let most = size + 1_000_000 + kills * 3 * 4 * 1024 * 1024;
    assert!(cloud.fake.bytes_in() <= most, "{} bytes after {kills} kills", cloud.fake.bytes_in());
    let backup =
        fs::read_dir(cloud.place.data.join("backups")).expect("a folder").map(|entry| entry.expect("one").path());
    let backup = backup.filter(|path| path.join("manifest.json").exists()).max().expect("a backup");
    cloud.assert_holds_once(&backup);

    let new = cloud.on_a_new_machine();
    new.grant();
    let kills = [40, 80, 160, 240];
    for after in kills {
        let mut child = new.command(&["backup", "gdrive", "restore", "--yes", "--limit-rate", "40M"]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        std::thread::sleep(Duration::from_millis(after));
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
    new.ok(&["backup", "gdrive", "restore", "--yes"]);
    // What had come was not asked for again: each kill costs what was under way, which lies in the buffers of sockets
    // on both sides and so is more than a part, and the manifests.
    let most = size + 1_000_000 + kills.len() as u64 * 8 * 1024 * 1024;
    assert!(cloud.fake.bytes_out() <= most, "{} bytes came", cloud.fake.bytes_out());
    assert_eq!(fs::read(new.place.data.join("large")).expect("restored"), noise(5, 24_000_000));
    assert_eq!(rows(&new.place), rows(&cloud.place));
}

/// A file of 200 MB goes there in bounded memory, and as slowly as it is told.
#[test]
fn large_files_and_many_files() {
    let cloud = Cloud::new();
    for folder in 0..30 {
        fs::create_dir(cloud.place.data.join(format!("{folder}"))).expect("made");
        for file in 0..20 {
            fs::write(cloud.place.data.join(format!("{folder}/{file}")), noise(folder * 100 + file, 50))
                .expect("written");
        }
    }
    let large = fs::File::create(cloud.place.data.join("large")).expect("made");
    large.set_len(200_000_000).expect("a hole");
    fs::write(cloud.place.data.join("config.json"), r#"{"backup_encrypt": false}"#).expect("written");
    cloud.place.ok(&["backup"]);
    cloud.grant();
    cloud.fake.page_cap(7);
    let mut child = cloud.command(&["backup", "gdrive", "upload"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().expect("it can be asked").is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
        peak = peak.max(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    let run = child.wait_with_output().expect("ended");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(peak > 0 && peak < 64 * 1024, "{peak} KiB");
    let listed = json(&cloud.ok(&["backup", "gdrive", "list", "--json"]));
    assert_eq!(listed["files"], 602);
    let again = json(&cloud.ok(&["backup", "gdrive", "upload", "--json"]));
    assert_eq!((again["files"].as_u64(), again["kept"].as_u64()), (Some(0), Some(603)), "all pages were seen");
}

/// Without a vault key the slots would leave in the clear.
#[test]
fn an_unprotected_store_is_not_pushed() {
    let cloud = Cloud { place: Place::empty(), ..Cloud::new() };
    fill(&cloud.place);
    cloud.place.ok(&["snapshot"]);
    cloud.grant();
    let refused = cloud.run(&["gdrive", "push"]);
    assert!(refused.code == 12 && refused.err.contains("key rotate"), "{refused:?}");
    assert_eq!(cloud.fake.bytes_in(), 0);
}

#[test]
fn a_browser_that_says_no_ends_it() {
    let cloud = Cloud::new();
    cloud.fake.deny_consent(true);
    let start = Instant::now();
    let mut child = cloud.command(&["auth", "google"]);
    let mut child = child.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("started");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let address = lines.find_map(|line| line.ok().filter(|line| line.starts_with("http"))).expect("an address");
    crate::drive_common::visit(&address);
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().expect("ended").code(), Some(14), "{rest:?}");
    assert!(rest.join(" ").contains("access was denied") && start.elapsed() < Duration::from_secs(30), "{rest:?}");
    assert!(KEY.len() > 10 && !cloud.place.data.join(".nbak-state/google.json").exists());
    let _ = assert_same;
}
