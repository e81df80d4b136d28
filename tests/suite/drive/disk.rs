//! This machine's disk fails while files go to Drive or come from there: a call of each kind that writes fails, once or
//! from then on, or is interrupted, or the program is killed as it enters it. An exit code of 0 says that all is done;
//! else the same command, on a disk that works, does it. What was there before is there.
//!
//! strace makes the calls fail, and counts them by thread. Sockets are written to by `write`, which is left alone here,
//! so that only files are meant. Which calls have their turn the seed says; all, if the rounds are enough.
#![allow(clippy::print_stdout, reason = "they say how many failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common::strace::{self, CHANGING, Times};
use crate::common::{Random, noise, rounds, tree};
use crate::drive_common::{Cloud, store_grant};

/// With what happens to them in one round, in turn.
const FAULTS: [(&str, Times); 6] = [
    ("error=EIO", Times::Once),
    ("error=ENOSPC", Times::OnAndOn),
    ("signal=KILL", Times::Once),
    ("error=EIO", Times::OnAndOn),
    ("error=EINTR", Times::Five),
    ("error=ENOSPC", Times::Once),
];

/// How often each call is made when nothing fails, at most, by one thread.
fn counts(cloud: &Cloud, args: &[&str]) -> BTreeMap<String, u64> {
    let log = tempfile::NamedTempFile::new().expect("a file for the log");
    let calls: Vec<&str> = CHANGING.into_iter().filter(|call| !["write", "writev"].contains(call)).collect();
    let trace = format!("trace=?{}", calls.join(",?"));
    let options = ["-o", log.path().to_str().expect("text"), "-e", &trace];
    let output = strace::traced(&cloud.command(args), &options).output().expect("strace runs");
    assert!(output.status.success(), "{args:?}: {output:?}");
    strace::counts(strace::calls(&fs::read_to_string(log.path()).expect("a log")))
}

/// Runs the program with a call that fails; its exit code, and whether the call was made at all.
fn with_fault(cloud: &Cloud, args: &[&str], call: &str, fault: &str, when: &str) -> (Option<i32>, bool) {
    let log = tempfile::NamedTempFile::new().expect("a file for the log");
    let (trace, inject) = (format!("trace=?{call}"), format!("inject={call}:{fault}:when={when}"));
    let options = ["-y", "-o", log.path().to_str().expect("text"), "-e", &trace, "-e", &inject];
    let output = strace::traced(&cloud.command(args), &options).output().expect("strace runs");
    let err = String::from_utf8_lossy(&output.stderr);
    cloud.heard(&[&String::from_utf8_lossy(&output.stdout), &err]);
    assert!(!err.contains("panicked"), "{call} {when} {fault}: {err}");
    let log = fs::read_to_string(log.path()).expect("a log");
    let (injected, passed_over) = (log.contains("(INJECTED)"), strace::passed_over(&log));
    let is_lie = output.status.success() && !passed_over.is_empty() && !err.contains(strace::IS_LEFT);
    assert!(!is_lie, "{args:?}, {call} {when} {fault}: it ended well after {passed_over:?}");
    (output.status.code(), injected)
}

/// `begin` makes a machine as it is before; `is_done` fails unless all is done.
fn sweep(args: &[&str], begin: &dyn Fn() -> Cloud, is_done: &dyn Fn(&Cloud)) {
    if !strace::can_trace() {
        return;
    }
    let mut random = Random::seeded(&format!("{args:?}, of which a call fails"));
    let shift = random.below(FAULTS.len() as u64) as usize;
    let (mut failed, mut killed, mut runs) = (0, 0, 0);
    for (at, (call, count)) in counts(&begin(), args).into_iter().enumerate() {
        for (turn, nth) in strace::positions(count, 2 * rounds(), &mut random).into_iter().enumerate() {
            for (number, (fault, times)) in FAULTS.iter().enumerate() {
                if rounds() == 1 && number != (shift + at * 2 + turn) % FAULTS.len() {
                    continue;
                }
                let when = times.when(nth);
                let cloud = begin();
                let (code, injected) = with_fault(&cloud, args, &call, fault, &when);
                runs += u64::from(injected || code.is_none());
                failed += u64::from(code.is_some_and(|code| code != 0));
                killed += u64::from(code.is_none());
                if code == Some(0) {
                    is_done(&cloud);
                }
                let again = cloud.run(args);
                assert_eq!(again.code, 0, "{args:?} after {call} {when} {fault}: {again:?}");
                is_done(&cloud);
            }
        }
    }
    println!("{args:?}: {failed} of {runs} failed, {killed} were killed");
    assert!(runs > 3, "{args:?}: {runs} runs are too few to mean anything");
    // Hardly a call of the disk's ends an upload: what it keeps there is a memory. In one round it may be none.
    let ended = failed + killed;
    assert!(ended > 0 || rounds() == 1, "{args:?}: {failed} of {runs} failed, {killed} were killed");
}

fn machine() -> Cloud {
    let cloud = Cloud::new();
    fs::create_dir(cloud.place.data.join("a")).expect("made");
    for (name, seed, size) in [("one", 1, 10), ("a/two", 2, 70_000), ("a/three", 3, 900_000)] {
        fs::write(cloud.place.data.join(name), noise(seed, size)).expect("written");
    }
    crate::common::database(&cloud.place.data.join("history.db"), "WAL", 60);
    cloud.place.ok(&["backup"]);
    store_grant(&cloud);
    cloud
}

fn newest(cloud: &Cloud) -> std::path::PathBuf {
    let all = fs::read_dir(cloud.place.data.join("backups")).expect("a folder").map(|entry| entry.expect("one").path());
    all.filter(|path| path.join("manifest.json").exists()).max().expect("a backup")
}

fn files(root: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    // A backup has a compact copy of a database: that is held against its checksum when it is restored.
    let own = |path: &Path| {
        let name = path.to_string_lossy();
        path.starts_with("backups") || name.starts_with(".nbak-") || name.starts_with("history.db")
    };
    let all = tree(root).into_iter().filter(|(path, thing)| thing.kind == "file" && !own(path));
    all.map(|(path, thing)| (path, thing.bytes)).collect()
}

#[test]
fn an_upload_whose_disk_fails_is_made_up_for() {
    let cloud = machine();
    let backup = newest(&cloud);
    // The machines of this test have their directories at other places: by its name it is meant.
    let name = backup.file_name().and_then(|name| name.to_str()).expect("a name");
    let begin = || {
        cloud.empty_the_drive();
        let new = cloud.on_a_new_machine();
        crate::common::copy(&cloud.place.data, &new.place.data);
        store_grant(&new);
        new
    };
    sweep(&["backup", "gdrive", "upload", name], &begin, &|new| {
        new.assert_holds_once(&backup);
        assert!(files(&new.place.data) == files(&cloud.place.data), "the data directory is as it was");
        new.place.ok(&["backup", "verify", name]);
    });
}

#[test]
fn a_restore_from_drive_whose_disk_fails_is_made_up_for() {
    let cloud = machine();
    cloud.ok(&["backup", "gdrive", "upload"]);
    let begin = || {
        let new = cloud.on_a_new_machine();
        store_grant(&new);
        new
    };
    let expected = files(&cloud.place.data);
    sweep(&["backup", "gdrive", "restore", "--yes"], &begin, &|new| {
        assert!(files(&new.place.data) == expected, "what was restored is not what was saved");
        let rows = |cloud: &Cloud| -> i64 {
            let conn = rusqlite::Connection::open(cloud.place.data.join("history.db")).expect("open");
            conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("rows")
        };
        assert_eq!(rows(new), rows(&cloud));
    });
}

#[test]
fn a_pull_whose_disk_fails_is_made_up_for() {
    let cloud = machine();
    cloud.ok(&["gdrive", "push"]);
    let begin = || {
        let new = cloud.on_a_new_machine();
        store_grant(&new);
        new
    };
    let expected = cloud.ok(&["snapshots", "--json"]).out;
    sweep(&["gdrive", "pull"], &begin, &|new| {
        assert_eq!(new.ok(&["snapshots", "--json"]).out, expected);
        new.ok(&["check", "--read-data"]);
    });
}

#[test]
fn a_push_whose_disk_fails_is_made_up_for() {
    let cloud = machine();
    let begin = || {
        cloud.empty_the_drive();
        let new = cloud.on_a_new_machine();
        crate::common::copy(&cloud.place.repo, &new.place.repo);
        store_grant(&new);
        new
    };
    let expected = cloud.ok(&["snapshots", "--json"]).out;
    sweep(&["gdrive", "push"], &begin, &|new| {
        let other = new.on_a_new_machine();
        store_grant(&other);
        other.ok(&["gdrive", "pull"]);
        assert_eq!(other.ok(&["snapshots", "--json"]).out, expected);
    });
}
