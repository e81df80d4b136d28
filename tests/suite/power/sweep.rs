//! The same deeds, of which a call fails: once or from then on, with every error that a disk gives; or the program is
//! killed as it enters the call. What has to be so afterwards is what has to be so when the power failed; and an exit
//! code of 0 says that all is done.
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
                let ended = traced(scene, &["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
                runs += 1;
                failed += u64::from(ended.0.is_some_and(|code| code != 0));
                killed += u64::from(ended.0.is_none());
                judged(&ended, &format!("{}, {call} number {when}: {fault}", scene.name));
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
    assert!(failed > 0 && killed > 0, "{}: {failed} of {runs} failed, {killed} were killed", scene.name);
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
