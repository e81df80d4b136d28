//! What a signal ends leaves no plaintext beside the store or in the data directory, and is seen to be ended by it.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::strace::{can_trace, traced};
use crate::common::{KEY, Place, noise};

/// So much that each command takes a moment for it.
fn place() -> Place {
    let place = Place { key: Some(KEY), ..Place::empty() };
    for nth in 0..40 {
        fs::write(place.data.join(format!("file-{nth}")), noise(nth, 2_000_000)).expect("written");
    }
    place.ok(&["snapshot"]);
    for nth in 0..40 {
        fs::write(place.data.join(format!("file-{nth}")), noise(nth + 100, 2_000_000)).expect("written");
    }
    place
}

/// Everything that is passing, beside the store, in the data directory, and among the backups.
fn passing(place: &Place) -> Vec<PathBuf> {
    let folders = [place.folder.path().to_path_buf(), place.data.clone(), place.data.join("backups")];
    let all = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let is_passing = |name: &str| {
        name.starts_with(".nbak-scratch-")
            || name.starts_with(".nbak-young-")
            || name == ".nbak-restore"
            || name.rsplit('.').next() == Some("tmp")
    };
    all.map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| is_passing(&name.to_string_lossy())))
        .collect()
}

/// Starts it, and waits until there is something to be removed.
fn begun(place: &Place, mut command: Command) -> Child {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    while passing(place).is_empty() {
        assert!(child.try_wait().expect("asked").is_none(), "it was too fast");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn what_a_signal_ends_leaves_no_plaintext() {
    let place = place();
    // By its id: `latest` is what a restore that was ended has saved.
    let list = place.ok(&["snapshots", "--json"]);
    let first: serde_json::Value = serde_json::from_str(list.out.lines().next().expect("one")).expect("JSON");
    let restore = ["restore", first["snapshot"].as_str().expect("an id"), "--in-place", "--yes"];
    for args in [&["drill"][..], &["backup"], &restore] {
        for (signal, delay) in [(Signal::INT, 5), (Signal::TERM, 40), (Signal::HUP, 100)] {
            let child = begun(&place, place.command(args));
            std::thread::sleep(Duration::from_millis(delay));
            kill_process(Pid::from_child(&child), signal).expect("told");
            let output = child.wait_with_output().expect("ended");
            let err = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() {
                continue;
            }
            assert_eq!(output.status.signal(), Some(signal.as_raw()), "{args:?}: {}: {err}", output.status);
            assert!(!err.contains("error: "), "{args:?}: {err}");
            let is_pending = place.data.join(".nbak-restore/intent").exists();
            assert!(is_pending || passing(&place).is_empty(), "{args:?}, {signal:?}: {:?}", passing(&place));
            if is_pending {
                place.ok(&["restore", "--resume", "--yes"]);
            }
        }
    }
    place.ok(&["drill"]);
    place.ok(&["check", "--read-data"]);
    assert!(passing(&place).is_empty());
}

/// The signals that this process ignores, a bit for each, from the lowest for 1.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0");
    u64::from_str_radix(mask.trim(), 16).expect("a mask of signals")
}

/// Ctrl-\, a limit of processor time, timers, and what is sent by hand.
#[test]
fn every_other_signal_that_ends_a_process_leaves_none_either() {
    let place = place();
    let signals = [
        Signal::QUIT,
        Signal::XCPU,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::USR1,
        Signal::USR2,
        Signal::ABORT,
    ];
    // What is ignored here (a shell has its background jobs ignore some) stays ignored in what is started from here.
    let ignored = ignored();
    let signals = signals.into_iter().filter(|signal| ignored >> (signal.as_raw() - 1) & 1 == 0);
    for (nth, signal) in signals.enumerate() {
        let args = if nth % 3 == 2 { "backup" } else { "drill" };
        let child = begun(&place, place.command(&[args]));
        kill_process(Pid::from_child(&child), signal).expect("told");
        let output = child.wait_with_output().expect("ended");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.signal(), Some(signal.as_raw()), "{args}: {}: {err}", output.status);
        assert!(!err.contains("error: "), "{args}, {signal:?}: {err}");
        assert!(passing(&place).is_empty(), "{args}, {signal:?}: {:?}", passing(&place));
    }
    place.ok(&["check"]);
}

/// A limit for the size of files is told of, as a full disk is.
#[test]
fn a_file_that_may_not_get_so_large_is_an_error() {
    let place = place();
    let mut command = Command::new("/bin/sh");
    let nbak = place.command(&["drill"]);
    command.args(["-c", "ulimit -f 1000; exec \"$0\" drill"]).arg(nbak.get_program()).env_clear();
    command.envs(nbak.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.code().is_some_and(|code| code > 0), "{}: {said}", output.status);
    assert!(said.contains("File too large"), "{said}");
    assert!(passing(&place).is_empty(), "{:?}", passing(&place));
}

/// Nobody can sweep at a `kill -9`: `doctor` names it, and the next command that may write removes it.
#[test]
fn what_a_killed_drill_left_is_named_and_goes() {
    let place = place();
    for args in ["snapshot", "gc", "backup"] {
        let mut child = begun(&place, place.command(&["drill"]));
        let left = || passing(&place).into_iter().find(|path| path.to_string_lossy().contains(".nbak-scratch-"));
        while left().is_none() {
            assert!(child.try_wait().expect("asked").is_none(), "it was too fast");
            std::thread::sleep(Duration::from_millis(1));
        }
        let scratch = left().expect("it is there");
        let doctor = || place.run(&["doctor"]).out;
        let is_named = |out: &str| out.contains(scratch.to_str().expect("text"));
        let early = doctor();
        let is_used = child.try_wait().expect("asked").is_none();
        assert!(!is_used || !is_named(&early), "somebody uses it: {early}");
        assert!(is_used, "it was too fast");
        child.kill().expect("killed");
        child.wait().expect("ended");
        let out = doctor();
        assert!(is_named(&out) && out.contains("plaintext"), "{out}");
        place.ok(&["check"]);
        place.run(&["snapshot", "--dry-run"]);
        assert!(scratch.exists(), "what only looks removes nothing");
        place.ok(&[args]);
        assert!(passing(&place).is_empty(), "{args}: {:?}", passing(&place));
        assert!(!is_named(&doctor()));
    }
}

/// The command does what it was asked to, and says what is left of it. The next one removes that.
#[test]
fn what_cannot_be_removed_is_named() {
    if !can_trace() {
        return;
    }
    let place = Place { key: Some(KEY), ..Place::empty() };
    fs::write(place.data.join("file"), noise(1, 20_000)).expect("written");
    place.ok(&["snapshot"]);
    for args in [&["drill"][..], &["backup", "verify"]] {
        place.ok(&["backup"]);
        let options = ["-o", "/dev/null", "-e", "trace=unlinkat", "-e", "inject=unlinkat:error=EIO"];
        let output = traced(&place.command(args), &options).output().expect("it runs");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {}: {err}", output.status);
        let [left] = &passing(&place)[..] else { panic!("{args:?}: {err}") };
        let warning = format!("warning: {}: this could not be removed", left.display());
        assert!(err.contains(&warning), "{args:?}: {err}");
        let run = place.ok(args);
        assert!(passing(&place).is_empty() && !run.err.contains("could not be removed"), "{args:?}: {run:?}");
    }
}

#[test]
fn what_was_to_be_ignored_stays_ignored() {
    let place = place();
    let mut command = Command::new("/bin/sh");
    let nbak = place.command(&["drill"]);
    command.args(["-c", "trap '' HUP; exec \"$0\" drill"]).arg(nbak.get_program()).env_clear();
    command.envs(nbak.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = begun(&place, command);
    kill_process(Pid::from_child(&child), Signal::HUP).expect("told");
    let output = child.wait_with_output().expect("ended");
    assert!(output.status.success(), "{output:?}");
}
