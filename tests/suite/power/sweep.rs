//! The same deeds, of which a call fails: once or from then on, with every error that a disk gives; or the program is
//! killed as it enters the call. What has to be so afterwards is what has to be so when the power failed; and an exit
//! code of 0 says that all is done.
//!
//! A file whose sync failed can be read all the same, and so can a folder whose file was not removed: what is looked at
//! afterwards does not show it. So the exit code is held against the fault too, with the exceptions of
//! [`strace::passed_over`].
//!
//! strace makes the calls fail. It counts them by thread, so that a call that several threads make fails in each of
//! them. Which have their turn the seed says; all of them, if the rounds are enough.

use std::collections::BTreeMap;
use std::fs;

use super::disk::Disk;
use super::inplace::Origin;
use super::scenes::{self, Scene};
use crate::common::small_disk::limited;
use crate::common::strace::{self, CHANGING, Times};
use crate::common::{Random, rounds};

/// What happens to a call, from the first number to the last. An interrupted one is tried again, for ever if it must
/// be: so that happens once, or five times in a row.
const FAULTS: [(&str, Times); 7] = [
    ("error=EIO", Times::Once),
    ("error=ENOSPC", Times::OnAndOn),
    ("signal=KILL", Times::Once),
    ("error=ENOSPC", Times::Once),
    ("error=EIO", Times::OnAndOn),
    ("error=EINTR", Times::Once),
    ("error=EINTR", Times::Five),
];
/// Limits of the size of a file, in blocks of 512 bytes: a write is cut short there, and the next one fails.
const BLOCKS: [u64; 8] = [1, 2, 8, 20, 50, 120, 200, 400];

fn traced(scene: &Scene, options: &[&str]) -> (Option<i32>, String, String) {
    let output = strace::traced(&scene.place.command(&scene.args), options).output().expect("strace runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn counts(scene: &Scene) -> BTreeMap<String, u64> {
    let log = tempfile::NamedTempFile::new().expect("a file for the log");
    let trace = format!("trace=?{}", CHANGING.join(",?"));
    let ended = traced(scene, &["-o", log.path().to_str().expect("text"), "-e", &trace]);
    assert_eq!(ended.0, Some(0), "{}: {ended:?}", scene.name);
    strace::counts(strace::calls(&fs::read_to_string(log.path()).expect("a log")))
}

/// Syncs and removals, each of which fails once: nothing of that is to be seen on the disk, so only what is said of it
/// is looked at, and many can have their turn.
fn is_told_of_each(scene: &Scene, reset: &dyn Fn(), counts: &BTreeMap<String, u64>) {
    for call in ["fsync", "fdatasync", "unlink", "unlinkat"] {
        let count = counts.get(call).copied().unwrap_or(0);
        let turns = (12 * rounds()).min(count);
        for turn in 0..turns {
            let nth = 1 + turn * (count - 1) / (turns - 1).max(1);
            reset();
            let log = tempfile::NamedTempFile::new().expect("a file for the log");
            let (path, inject) = (log.path().to_str().expect("text"), format!("inject={call}:error=EIO:when={nth}"));
            let (code, _, err) = traced(scene, &["-y", "-o", path, "-e", &format!("trace={call}"), "-e", &inject]);
            let passed_over = strace::passed_over(&fs::read_to_string(log.path()).expect("a log"));
            let what = format!("{}, {call} number {nth}: {err}", scene.name);
            let is_told = passed_over.is_empty() || err.contains(strace::IS_LEFT);
            assert!(code != Some(0) || is_told, "{what}: it ended well after {passed_over:?}");
        }
    }
}

fn fails_at_any_call(scene: &Scene) {
    if !strace::can_trace() {
        return;
    }
    let mut random = Random::seeded(&format!("{}, of which a call fails", scene.name));
    let before = Disk::read(&scene.top());
    let reset = || scene.lay(&before, Origin::Inodes(&before.inodes));
    let judged = |(code, out, err): &(Option<i32>, String, String), what: &str| {
        assert!(!err.contains("panicked") && !matches!(code, Some(101 | 134)), "{what}: {err}");
        assert!(*code != Some(0) || !out.is_empty(), "{what}: it ended well and said nothing");
        // What it said counts if it ended well: a result that came before an error is no promise.
        (scene.judge)(scene, if *code == Some(0) { out } else { "" }, what);
    };
    let counts = counts(scene);
    reset();
    is_told_of_each(scene, &reset, &counts);
    let (mut runs, mut failed, mut killed) = (0, 0, 0);
    let shift = random.below(FAULTS.len() as u64) as usize;
    for (at, (call, count)) in counts.into_iter().enumerate() {
        for (turn, nth) in strace::positions(count, 2 * rounds(), &mut random).into_iter().enumerate() {
            for (number, (fault, times)) in FAULTS.iter().enumerate() {
                // In one round each call has two of the faults, each time others.
                if rounds() == 1 && number != (shift + at * 2 + turn) % FAULTS.len() {
                    continue;
                }
                reset();
                let when = times.when(nth);
                let inject = format!("inject={call}:{fault}:when={when}");
                let log = tempfile::NamedTempFile::new().expect("a file for the log");
                let path = log.path().to_str().expect("text");
                let ended = traced(scene, &["-y", "-o", path, "-e", &format!("trace={call}"), "-e", &inject]);
                let what = format!("{}, {call} number {when}: {fault}", scene.name);
                let passed_over = strace::passed_over(&fs::read_to_string(log.path()).expect("a log"));
                let is_told = passed_over.is_empty() || ended.2.contains(strace::IS_LEFT);
                assert!(ended.0 != Some(0) || is_told, "{what}: it ended well after {passed_over:?}");
                runs += 1;
                failed += u64::from(ended.0.is_some_and(|code| code != 0));
                killed += u64::from(ended.0.is_none());
                judged(&ended, &what);
            }
        }
    }
    let mut cut = 0;
    for nth in strace::positions(BLOCKS.len() as u64, 2 * rounds(), &mut random) {
        reset();
        let blocks = BLOCKS[nth as usize - 1];
        let output = limited(&scene.place.command(&scene.args), blocks).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ended = (output.status.code(), text(&output.stdout), text(&output.stderr));
        cut += u64::from(ended.0 != Some(0));
        judged(&ended, &format!("{}, files of at most {blocks} blocks", scene.name));
    }
    println!("{}: {runs} runs, of which {failed} failed and {killed} were killed, {cut} cut short", scene.name);
    assert!(failed + killed > 0, "{}: {failed} of {runs} failed, {killed} were killed", scene.name);
}

#[test]
fn of_the_first_snapshot_of_which_a_call_fails() {
    fails_at_any_call(&scenes::first_snapshot());
}

#[test]
fn of_a_key_that_is_added_of_which_a_call_fails() {
    fails_at_any_call(&scenes::key_added());
}

#[test]
fn of_a_key_that_is_removed_of_which_a_call_fails() {
    fails_at_any_call(&scenes::key_removed());
}

#[test]
fn of_giving_up_of_which_a_call_fails() {
    if strace::can_trace() {
        fails_at_any_call(&scenes::giving_up());
    }
}

#[test]
fn of_a_snapshot_of_which_a_call_fails() {
    fails_at_any_call(&scenes::later_snapshot());
}

#[test]
fn of_a_backup_of_which_a_call_fails() {
    fails_at_any_call(&scenes::backup());
}

/// Several threads sync the files of a backup, and a call that is chosen by its number fails in each of them, in the
/// first of all for something else that is told. So each file has its turn by its name, in whatever second it is made.
#[test]
fn of_a_backup_of_which_a_file_cannot_be_synced() {
    if !strace::can_trace() {
        return;
    }
    let scene = scenes::backup();
    let before = Disk::read(&scene.top());
    // The next one is of another second than the one that is there, and is called by that.
    std::thread::sleep(std::time::Duration::from_secs(1));
    for file in ["history.db", "engine.db", "graph", "memory/notes.md", "memory/deep/stays"] {
        scene.lay(&before, Origin::Inodes(&before.inodes));
        let log = tempfile::NamedTempFile::new().expect("a file for the log");
        let now = jiff::Timestamp::now();
        let seconds = (0..30).map(|second| now + jiff::SignedDuration::from_secs(second));
        let name = |moment: jiff::Timestamp| {
            let folder = scene.place.data.join(format!("backups/{}.tmp", moment.strftime("%Y%m%dT%H%M%SZ")));
            ["-P".to_owned(), folder.join(file).to_str().expect("text").to_owned()]
        };
        let paths: Vec<String> = seconds.flat_map(name).collect();
        let path = log.path().to_str().expect("text");
        let options = ["-y", "-o", path, "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"];
        let options: Vec<&str> = options.into_iter().chain(paths.iter().map(String::as_str)).collect();
        let (code, out, err) = traced(&scene, &options);
        let log = fs::read_to_string(log.path()).expect("a log");
        assert_eq!(strace::passed_over(&log).len(), 1, "{file}: {log}");
        assert!(code == Some(1) && err.contains(file), "{file}: {code:?}: {err}");
        assert!(out.is_empty(), "{file}: {out}");
        (scene.judge)(&scene, "", file);
    }
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
