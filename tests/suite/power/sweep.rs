//! The same deeds, of which a call fails: once or from then on, with every error that a disk gives; or the program is
//! killed as it enters the call. What has to be so afterwards is what has to be so when the power failed; and an exit
//! code of 0 says that all is done.
//!
//! strace makes the calls fail. It counts them by thread.

use std::collections::BTreeMap;
use std::fs;

use super::disk::Disk;
use super::scenes::{self, Scene};
use crate::common::{rounds, strace};

/// Calls that change what is on disk.
const CALLS: [&str; 14] = [
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "ftruncate",
    "mkdir",
    "mkdirat",
    "fallocate",
    "copy_file_range",
];

/// What happens to a call. An interrupted one is tried again, for ever if it must be: so that happens once.
const FAULTS: [(&str, &str); 6] = [
    ("error=EIO", ""),
    ("error=ENOSPC", "+"),
    ("signal=KILL", ""),
    ("error=ENOSPC", ""),
    ("error=EIO", "+"),
    ("error=EINTR", ""),
];

fn traced(scene: &Scene, options: &[&str]) -> (Option<i32>, String, String) {
    let output = strace::traced(&scene.place.command(&scene.args), options).output().expect("strace runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn counts(scene: &Scene) -> BTreeMap<String, u64> {
    let log = tempfile::NamedTempFile::new().expect("a file for the log");
    let trace = format!("trace={}", CALLS.join(","));
    let ended = traced(scene, &["-o", log.path().to_str().expect("text"), "-e", &trace]);
    assert_eq!(ended.0, Some(0), "{}: {ended:?}", scene.name);
    strace::counts(strace::calls(&fs::read_to_string(log.path()).expect("a log")))
}

fn fails_at_any_call(scene: &Scene) {
    if !strace::can_trace() {
        return;
    }
    let before = Disk::read(&scene.top());
    let (mut runs, mut failed, mut killed) = (0, 0, 0);
    for (at, (call, count)) in counts(scene).into_iter().enumerate() {
        let turns = (2 * rounds()).min(count);
        for turn in 0..turns {
            let nth = 1 + turn * (count - 1) / (turns - 1).max(1);
            for (number, (fault, on)) in FAULTS.iter().enumerate() {
                // In one round each call has two of the faults, each time others.
                if rounds() == 1 && number != (at * 2 + turn as usize) % FAULTS.len() {
                    continue;
                }
                before.write(&scene.top());
                let inject = format!("inject={call}:{fault}:when={nth}{on}");
                let options = ["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject];
                let (code, out, err) = traced(scene, &options);
                let what = format!("{}, {call} number {nth}{on}: {fault}", scene.name);
                assert!(!err.contains("panicked") && !matches!(code, Some(101 | 134)), "{what}: {err}");
                assert!(code != Some(0) || !out.is_empty(), "{what}: it ended well and said nothing");
                // What it said counts if it ended well: a result that came before an error is no promise.
                let said = if code == Some(0) { out.as_str() } else { "" };
                runs += 1;
                failed += u64::from(code.is_some_and(|code| code != 0));
                killed += u64::from(code.is_none());
                (scene.judge)(scene, said, &what);
            }
        }
    }
    println!("{}: {runs} runs, of which {failed} failed and {killed} were killed", scene.name);
    assert!(failed > 0 && killed > 0, "{}: {failed} of {runs} failed, {killed} were killed", scene.name);
}

#[test]
fn of_a_snapshot_of_which_a_call_fails() {
    fails_at_any_call(&scenes::later_snapshot());
}

#[test]
fn of_a_backup_of_which_a_call_fails() {
    fails_at_any_call(&scenes::backup());
}

#[test]
fn of_a_restore_of_which_a_call_fails() {
    fails_at_any_call(&scenes::restore());
}

#[test]
fn of_a_restore_in_place_of_which_a_call_fails() {
    fails_at_any_call(&scenes::restore_in_place());
}

#[test]
fn of_a_key_rotation_of_which_a_call_fails() {
    fails_at_any_call(&scenes::rotation());
}

#[test]
fn of_a_repair_of_which_a_call_fails() {
    fails_at_any_call(&scenes::repair());
}
