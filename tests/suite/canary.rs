//! A key that is known is looked for where a process leaves things: in its own memory while it waits for months, and in
//! what it would leave if it were to die.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use crate::common::Place;
use crate::daemon_common::{Life, filled, make_due, quiet, signal_to};

const CANARY: &str = "Q0FOQVJZY2FuYXJ5Q0FOQVJZY2FuYXJ5Q0FOQVJZMTI=";
/// Halves too: a buffer that grows leaves the beginning behind, and what uses it again begins by overwriting that.
const PARTS: [&str; 3] = [CANARY, "Y2FuYXJ5Q0FOQVJZ", "Q0FOQVJZMTI="];

/// Where in the memory of a process a part of the key stands.
fn found_in_memory(id: u32) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).expect("its maps");
    let mut memory = File::open(format!("/proc/{id}/mem")).expect("its memory");
    let mut found = Vec::new();
    for map in maps.lines().filter(|map| map.contains(" rw")) {
        let (from, to) = map.split_whitespace().next().and_then(|range| range.split_once('-')).expect("a range");
        let at = |text| u64::from_str_radix(text, 16).expect("an address");
        let mut bytes = Vec::new();
        memory.seek(SeekFrom::Start(at(from))).expect("sought");
        // Some, as guard pages, cannot be read by anybody.
        let _ = (&mut memory).take(at(to) - at(from)).read_to_end(&mut bytes);
        for part in PARTS {
            if bytes.windows(part.len()).any(|window| window == part.as_bytes()) {
                found.push(format!("{part} in {map}"));
            }
        }
    }
    found
}

/// A daemon without a key in its environment, after a backup for which each of its jobs read one.
fn waits(place: &Place, looks: usize, change: impl FnOnce(&mut Command)) -> Vec<String> {
    make_due(&place.data, &["backup"]);
    let mut command = quiet(place.command(&["daemon"]));
    command.env_remove("NODYN_VAULT_KEY");
    change(&mut command);
    let life = Life::start(command);
    life.says("gc: done in");
    // It has a key while it looks at how things stand: what stays in every one of many looks is left for good.
    let mut found = Vec::new();
    for _ in 0..looks {
        found = found_in_memory(life.id());
        if found.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!life.end().contains(CANARY));
    found
}

#[test]
fn a_daemon_that_waits_has_no_key_in_its_memory() {
    let place = filled();
    let file = place.path("key");
    fs::write(&file, format!("{CANARY}\n")).expect("written");
    let none = Vec::<String>::new();
    assert_eq!(waits(&place, 50, |command| _ = command.arg("--vault-key-file").arg(&file)), none);
    let print = format!("echo {} | rev", CANARY.chars().rev().collect::<String>());
    assert_eq!(waits(&place, 50, |command| _ = command.arg("--vault-key-command").arg(print)), none);
    let env = place.data.join(".env");
    fs::write(&env, format!("OTHER=1\nNODYN_VAULT_KEY={CANARY}\nMORE={}\n", "x".repeat(9000))).expect("written");
    fs::set_permissions(&env, fs::Permissions::from_mode(0o600)).expect("a mode");
    assert_eq!(waits(&place, 50, |_| {}), none);
    // What is in the environment is in the memory: where it is, it is found.
    fs::remove_file(&env).expect("removed");
    let found = waits(&place, 1, |command| _ = command.env("NODYN_VAULT_KEY", CANARY));
    assert!(found.iter().filter(|one| one.contains("[stack]")).count() >= PARTS.len(), "{found:?}");
}

#[test]
fn one_that_dies_leaves_no_core() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.starts_with('|') || pattern.contains('/') {
        eprintln!("cores go elsewhere on this machine: not looked for");
        return;
    }
    let place = filled();
    let abort = |program: &Command| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "ulimit -S -c $(ulimit -H -c); exec \"$@\"", "sh"]).current_dir(folder.path());
        command.arg(program.get_program()).args(program.get_args());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = command.spawn().expect("started");
        std::thread::sleep(Duration::from_millis(500));
        signal_to(child.id(), "ABRT");
        assert_eq!(child.wait().expect("ended").signal(), Some(6));
        fs::read_dir(folder.path()).expect("a folder").count()
    };
    let mut sleeper = Command::new("sleep");
    sleeper.arg("60");
    if abort(&sleeper) == 0 {
        eprintln!("no cores are made on this machine: not looked for");
        return;
    }
    assert_eq!(abort(&quiet(place.command(&["daemon"]))), 0);
}
