//! A file that is encrypted by itself and its log, whoever is killed where: of one version, they stand together or are
//! kept together, and neither lies beside another version of the other.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::beside;
use super::lacking::{kill, killed, said};
use crate::common::strace::can_trace;
use crate::common::{Place, Run};

const LOG_MAGIC: [u8; 4] = [0x37, 0x7f, 0x06, 0x82];
const SINCE: &[u8] = b"written since";

fn base(version: &str) -> Vec<u8> {
    version.as_bytes().iter().copied().cycle().take(8192).collect()
}

fn log(version: &str) -> Vec<u8> {
    [&LOG_MAGIC[..], &base(version)[..4116]].concat()
}

/// What the snapshot has where the file and its log stand.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Comes {
    File,
    Pair,
    Folder,
}

/// What is written before somebody goes on with the restore.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Written {
    Nothing,
    Log,
    Both,
}

/// What the application does where it finds the file without its log.
#[derive(Debug, Clone, Copy, PartialEq)]
enum GoesOn {
    No,
    /// By a descriptor that it has.
    OldLog,
    File,
    Pair,
}

struct Scene {
    place: Place,
    id: String,
}

impl Scene {
    fn of(comes: Comes) -> Scene {
        let place = Place::empty();
        match comes {
            Comes::Folder => fs::create_dir_all(place.data.join("c.db")).expect("made"),
            _ => fs::write(place.data.join("c.db"), base("SNAP")).expect("written"),
        }
        if comes == Comes::Pair {
            fs::write(place.data.join("c.db-wal"), log("SNAP")).expect("written");
        }
        fs::write(place.data.join("zz"), "first").expect("written");
        let id = said(&place.ok(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
        Scene { place, id }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.data.join(name)
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.at(name), bytes).expect("written");
    }

    /// As it was before the restore, and begins that.
    fn begin(&self) {
        for entry in fs::read_dir(&self.place.data).expect("a list") {
            let entry = entry.expect("an entry");
            let name = entry.file_name();
            if entry.path().is_dir() && (name == "c.db" || name.as_bytes().starts_with(b".nbak-kept-")) {
                fs::remove_dir_all(entry.path()).expect("removed");
            }
        }
        self.put("c.db", base("LIVE"));
        self.put("c.db-wal", log("LIVE"));
        self.put("zz", "later");
        killed(&self.place, &["restore", &self.id, "--in-place", "--yes", "--without-safety-backup"]);
    }

    fn is_half(&self) -> bool {
        let is_file = |name: &str| fs::read(self.at(name)).unwrap_or_default();
        is_file("c.db").starts_with(b"LIVE") && !self.at("c.db-wal").exists()
    }

    /// All that is there of the file and its log: which version, and what was written to it.
    fn found(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let names = fs::read_dir(&self.place.data).expect("a list").map(|entry| entry.expect("an entry").path());
        let is_kept = |path: &PathBuf| path.file_name().is_some_and(|n| n.as_bytes().starts_with(b".nbak-kept-"));
        for folder in names.filter(is_kept).chain([self.place.data.clone()]) {
            for entry in fs::read_dir(&folder).expect("a list") {
                let path = entry.expect("an entry").path();
                let is_it = path.is_file() && path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"c.db"));
                if is_it {
                    let bytes = fs::read(&path).expect("read");
                    let is_log = bytes.starts_with(&LOG_MAGIC);
                    let version = String::from_utf8_lossy(&bytes[if is_log { 4 } else { 0 }..][..4]).into_owned();
                    let since = if bytes.ends_with(SINCE) { " since" } else { "" };
                    found.insert(path, format!("{} {version}{since}", if is_log { "log" } else { "file" }));
                }
            }
        }
        found
    }
}

fn without_since(what: &str) -> String {
    what.trim_end_matches(" since").to_owned()
}

/// Every version is in one place, and lies beside no other.
fn assert_together(found: &BTreeMap<PathBuf, String>, comes: Comes, what: &str) {
    for (path, which) in found.iter().filter(|(_, which)| which.starts_with("file ")) {
        let version = without_since(which)["file ".len()..].to_owned();
        let log = found.get(&beside(path, "-wal"));
        if let Some(log) = log {
            assert_eq!(without_since(log), format!("log {version}"), "{what}: beside {}: {found:#?}", path.display());
        }
        let elsewhere = found.values().any(|other| without_since(other) == format!("log {version}"));
        assert!(log.is_some() || !elsewhere, "{what}: {} is without its log: {found:#?}", path.display());
        // The store has its log, and nobody wrote.
        assert!(log.is_some() || version != "SNAP" || comes != Comes::Pair, "{what}: {found:#?}");
    }
}

/// Where a kill arrives is not for a test to say: so often it is tried until it arrived between the two renames.
const TRIES: usize = 8;

/// Kills at every step, and ends it with `end`. Whether the file was found without its log once.
fn every_kill(comes: Comes, written: Written, goes_on: GoesOn, end: &str) -> bool {
    (0..TRIES).any(|_| every_kill_once(comes, written, goes_on, end) > 0)
}

fn every_kill_once(comes: Comes, written: Written, goes_on: GoesOn, end: &str) -> usize {
    let scene = Scene::of(comes);
    let (mut halves, mut ended) = (0, 0);
    for nth in 0..40 {
        let what = format!("{comes:?}, {written:?}, {goes_on:?}, {end}, killed at {nth}");
        scene.begin();
        if written != Written::Nothing {
            scene.put("c.db-wal", [&log("LIVE"), SINCE].concat());
        }
        if written == Written::Both {
            scene.put("c.db", [&base("LIVE"), SINCE].concat());
        }
        let resume = scene.place.command(&["restore", "--resume", "--yes"]);
        let is_killed = nth == 0 || kill(&resume, nth);
        if !scene.at(".nbak-restore/intent").exists() {
            ended += 1;
            assert_together(&scene.found(), comes, &what);
            if is_killed {
                continue;
            }
            break;
        }
        let is_half = scene.is_half();
        halves += usize::from(is_half);
        match goes_on {
            GoesOn::OldLog => {
                let old = scene.at(".nbak-restore/old/c.db-wal");
                if let Ok(bytes) = fs::read(&old) {
                    fs::write(&old, [&bytes, SINCE].concat()).expect("written");
                }
            }
            GoesOn::File | GoesOn::Pair if is_half => {
                scene.put("c.db", [&base("NEXT"), SINCE].concat());
                if goes_on == GoesOn::Pair {
                    scene.put("c.db-wal", [&log("NEXT"), SINCE].concat());
                }
            }
            _ => {}
        }
        let run = scene.place.ok(&["restore", end, "--yes"]);
        assert!(!scene.at(".nbak-restore").exists(), "{what}: {run:?}");
        let found = scene.found();
        assert_together(&found, comes, &format!("{what}: {run:?}"));
        assert_nothing_is_lost(&found, written, goes_on, is_half, end, &format!("{what}: {run:?}"));
        let is_removed = run.err.contains("removed, since");
        assert!(!is_removed || written == Written::Nothing, "{what}, half: {is_half}: {found:#?} {run:?}");
    }
    assert!(ended > 0);
    halves
}

fn assert_nothing_is_lost(
    found: &BTreeMap<PathBuf, String>,
    written: Written,
    goes_on: GoesOn,
    is_half: bool,
    end: &str,
    what: &str,
) {
    let has = |which: &str| found.values().any(|one| one == which);
    assert!(written == Written::Nothing || has("log LIVE since"), "{what}: {found:#?}");
    let goes_on = if is_half { goes_on } else { GoesOn::No };
    match goes_on {
        GoesOn::File | GoesOn::Pair => assert!(has("file NEXT since"), "{what}: {found:#?}"),
        GoesOn::OldLog => assert!(has("file LIVE") || has("file LIVE since"), "{what}: {found:#?}"),
        GoesOn::No if end == "--abandon" || written != Written::Nothing => {
            assert!(has("file LIVE") || has("file LIVE since"), "{what}: {found:#?}");
        }
        GoesOn::No => {}
    }
    assert!(goes_on != GoesOn::Pair || has("log NEXT since"), "{what}: {found:#?}");
}

#[test]
fn given_up_after_a_log_was_restored_or_not() {
    if can_trace() {
        for comes in [Comes::Pair, Comes::File, Comes::Folder] {
            assert!(every_kill(comes, Written::Nothing, GoesOn::No, "--abandon"), "{comes:?}");
        }
    }
}

#[test]
fn given_up_after_the_log_was_written() {
    if can_trace() {
        for (comes, written) in [
            (Comes::File, Written::Log),
            (Comes::Pair, Written::Both),
            (Comes::Folder, Written::Log),
            (Comes::Folder, Written::Both),
        ] {
            assert!(every_kill(comes, written, GoesOn::No, "--abandon"), "{comes:?}");
        }
    }
}

#[test]
fn given_up_after_the_log_was_written_where_it_was_put() {
    if can_trace() {
        for comes in [Comes::File, Comes::Folder] {
            assert!(every_kill(comes, Written::Nothing, GoesOn::OldLog, "--abandon"), "{comes:?}");
        }
    }
}

#[test]
fn given_up_after_the_application_went_on_without_the_log() {
    if can_trace() {
        for (written, goes_on) in [(Written::Nothing, GoesOn::File), (Written::Log, GoesOn::Pair)] {
            assert!(every_kill(Comes::File, written, goes_on, "--abandon"), "{goes_on:?}");
        }
    }
}

#[test]
fn finished_after_the_application_went_on_without_the_log() {
    if can_trace() {
        for (comes, written, goes_on) in [
            (Comes::File, Written::Log, GoesOn::Pair),
            (Comes::File, Written::Both, GoesOn::File),
            (Comes::Pair, Written::Nothing, GoesOn::File),
            (Comes::Folder, Written::Log, GoesOn::Pair),
        ] {
            assert!(every_kill(comes, written, goes_on, "--resume"), "{comes:?}, {written:?}, {goes_on:?}");
        }
    }
}

/// The file was put in place, its log was still to come, and the application opened the one without the other.
#[test]
fn a_log_does_not_come_after_somebody_went_on_with_its_file() {
    if !can_trace() {
        return;
    }
    let scene = Scene::of(Comes::Pair);
    for is_log in [false, true] {
        let mut seen = false;
        for nth in (1..8).cycle().take(7 * TRIES) {
            scene.begin();
            let run = scene.place.command(&["restore", "--resume", "--yes"]);
            let is_killed = kill(&run, nth);
            let is_new = fs::read(scene.at("c.db")).expect("read") == base("SNAP");
            if is_killed && is_new && !scene.at("c.db-wal").exists() {
                seen = true;
                if is_log {
                    scene.put("c.db-wal", [&log("NEXT"), SINCE].concat());
                } else {
                    scene.put("c.db", [&base("NEXT"), SINCE].concat());
                }
                let run: Run = scene.place.run(&["restore", "--resume", "--yes"]);
                assert_eq!(run.code, 3, "{run:?}");
                assert!(run.err.contains("c.db"), "{run:?}");
                let found = scene.found();
                let at = |name: &str| found.get(&scene.at(name)).map(String::as_str);
                if is_log {
                    assert_eq!((at("c.db"), at("c.db-wal")), (Some("file SNAP"), Some("log NEXT since")), "{run:?}");
                } else {
                    assert_eq!((at("c.db"), at("c.db-wal")), (Some("file NEXT since"), None), "{run:?}");
                }
                let old: Vec<&String> = found.values().filter(|which| which.contains("LIVE")).collect();
                assert!(old.is_empty() || old.len() == 2, "{found:#?}");
                break;
            }
            if scene.at(".nbak-restore/intent").exists() {
                scene.place.ok(&["restore", "--abandon", "--yes"]);
            }
        }
        assert!(seen, "it is killed there");
    }
}

/// Of a database that is left out of snapshots, say, the log is in them all the same.
#[test]
fn a_log_without_its_file_is_put_beside_no_other() {
    let place = Place::empty();
    fs::write(place.data.join("c.db-wal"), log("SNAP")).expect("written");
    fs::write(place.data.join("zz"), "first").expect("written");
    let id = said(&place.ok(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
    fs::write(place.data.join("c.db"), base("LIVE")).expect("written");
    for log_of in [None, Some("LIVE")] {
        let _ = fs::remove_file(place.data.join("c.db-wal"));
        if let Some(version) = log_of {
            fs::write(place.data.join("c.db-wal"), log(version)).expect("written");
        }
        fs::write(place.data.join("zz"), "later").expect("written");
        let run = place.run(&["restore", &id, "--in-place", "--yes"]);
        assert!(run.code == 3 && run.err.contains("c.db-wal: it is"), "{run:?}");
        assert_eq!(fs::read(place.data.join("c.db-wal")).ok(), log_of.map(log), "{run:?}");
        assert_eq!(fs::read(place.data.join("zz")).expect("read"), b"first");
    }
}

/// A folder that was restored to before is none where an older version meets the newer one's log.
#[test]
fn no_version_meets_the_log_of_another_in_a_target() {
    let scene = Scene::of(Comes::File);
    scene.put("c.db", base("NEXT"));
    scene.put("c.db-wal", log("NEXT"));
    let next = said(&scene.place.ok(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
    let target = scene.place.path("look");
    let to = |id: &str| scene.place.run(&["restore", id, "--overwrite", "--target", target.to_str().expect("text")]);
    assert!(to(&next).code == 0 && to(&next).code == 0, "it has its own log");
    let run = to(&scene.id);
    assert!(run.code == 1 && run.err.contains("c.db-wal"), "{run:?}");
    assert_eq!(fs::read(target.join("c.db")).expect("read"), base("NEXT"));
}

/// Somebody's own, that is called alike and no log, is nobody's half.
#[test]
fn given_up_somebodys_own_stays_where_it_was() {
    if !can_trace() {
        return;
    }
    let scene = Scene::of(Comes::File);
    for nth in 1..20 {
        scene.begin();
        scene.place.ok(&["restore", "--abandon", "--yes"]);
        scene.put("c.db-wal", "somebody's walrus");
        scene.put("c.db", base("LIVE"));
        scene.put("zz", "later");
        killed(&scene.place, &["restore", &scene.id, "--in-place", "--yes", "--without-safety-backup"]);
        let is_killed = kill(&scene.place.command(&["restore", "--resume", "--yes"]), nth);
        if !is_killed {
            break;
        }
        if !scene.at(".nbak-restore/intent").exists() {
            continue;
        }
        scene.place.ok(&["restore", "--abandon", "--yes"]);
        let is_old = fs::read(scene.at("c.db")).expect("read") == base("LIVE");
        assert_eq!(fs::read(scene.at("c.db-wal")).is_ok_and(|text| text == b"somebody's walrus"), is_old, "{nth}");
    }
}
