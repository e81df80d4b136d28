//! A snapshot or a backup that runs beside a restore in place is of old and new data, and says so, also if the restore
//! began after it and ended before it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::Path;
use std::process::Command;

use nbak::export::inplace::Staging;
use serde_json::Value;

use super::scene::{Scene, options, scene as a_scene};
use super::{MANY, restored};
use crate::common::strace::{can_trace, only_of, opened, traced};
use crate::common::{Run, bare};

fn command(scene: &Scene, args: &[&str]) -> Command {
    let mut command = bare();
    let repo = scene.data.with_file_name("repo");
    command.env("NBAK_DATA_DIR", &scene.data).env("NBAK_REPO", repo).args(args);
    command
}

/// Runs it, and `act` while it reads a file.
fn while_it_reads(scene: &Scene, args: &[&str], act: impl FnOnce()) -> (Run, Vec<Value>) {
    while_reads(scene, &command(scene, &[args, &["--json"]].concat()), act)
}

fn while_reads(scene: &Scene, program: &Command, act: impl FnOnce()) -> (Run, Vec<Value>) {
    let place = scene.data.join("notes.txt");
    let held = only_of(&scene.data, &["notes.txt"]);
    let mut stall = vec!["-o", "/dev/null", "-e", "trace=openat", "-e", "inject=openat:delay_exit=3000000:when=1"];
    stall.extend(held.iter().map(String::as_str));
    let mut slow = traced(program, &stall);
    let mut slow =
        slow.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("runs");
    opened(&mut slow, &place);
    act();
    assert!(slow.try_wait().expect("asked").is_none(), "it has ended already");
    let output = slow.wait_with_output().expect("ended");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    let run = Run { code, out: text(&output.stdout), err: text(&output.stderr), raw: output.stdout };
    let said = run.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (run, said)
}

/// Of each snapshot, whether it says that it is a mixture.
fn mixed(scene: &Scene) -> Vec<bool> {
    let list = Run::of(command(scene, &["snapshots", "--json"]));
    list.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["mixed"] == true).collect()
}

fn assert_is_told(scene: &Scene, (run, said): &(Run, Vec<Value>), what: &str) {
    assert_eq!(run.code, 3, "{what}: {run:?}");
    assert!(run.err.contains("restore is half done in what was captured"), "{what}: {run:?}");
    assert!(said[0]["pending_restore"].as_str().is_some_and(|text| text.contains("half done")), "{what}: {said:?}");
    assert_eq!(mixed(scene), [true], "{what}: it has what was there, and says what it is");
    if what == "backup" {
        let list = Run::of(command(scene, &["backup", "list", "--json"]));
        assert!(list.out.contains("\"mixed\":true"), "{list:?}");
    }
}

#[test]
fn a_restore_that_began_and_ended_meanwhile_is_told() {
    if !can_trace() {
        return;
    }
    let template = a_scene("closed");
    for args in [&["snapshot"][..], &["backup"]] {
        let scene = template.again();
        let told = while_it_reads(&scene, args, || {
            scene.replace(&options(false)).expect("restored");
        });
        assert!(!scene.data.join(".nbak-restore").exists());
        assert_is_told(&scene, &told, args[0]);
        let run = Run::of(command(&scene, args));
        assert!(run.code == 0 && !run.err.contains("half done"), "the next one is whole: {run:?}");
        assert_eq!(mixed(&scene), [true, false]);
    }
}

/// One that is going on, or was killed: its journal is there.
#[test]
fn a_restore_that_began_meanwhile_is_told() {
    if !can_trace() {
        return;
    }
    let template = a_scene("closed");
    let is_half = |kill: &i64| {
        let scene = template.again();
        scene.child("replace", *kill, false);
        scene.is_pending() && scene.state() != template.state() && scene.state() != restored(&template)
    };
    let kill = (0..MANY).find(is_half).expect("it passes there");
    for args in [&["snapshot"][..], &["backup"]] {
        // As it stands, and finished within the same snapshot.
        for is_finished in [false, true] {
            let scene = template.again();
            let told = while_it_reads(&scene, args, || {
                assert!(scene.child("replace", kill, false), "it was killed");
                if is_finished {
                    scene.recover().expect("recovered").expect("it was pending");
                }
            });
            assert_eq!(scene.is_pending(), !is_finished);
            assert_is_told(&scene, &told, args[0]);
        }
    }
}

fn give(path: &Path, user: u32) {
    lchown(path, Some(user), Some(user)).expect("given");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a list") {
            give(&entry.expect("an entry").path(), user);
        }
    }
}

/// The file of the mark is closed to everyone but who restored first.
#[test]
fn a_restore_of_another_user_is_told() {
    const NOBODY: u32 = 65_534;
    if !can_trace() || !rustix::process::geteuid().is_root() {
        return;
    }
    let scene = Scene::empty();
    scene.live("notes.txt", "old");
    let (top, program) = (scene.data.parent().expect("a folder"), scene.data.with_file_name("nbak"));
    fs::copy(env!("CARGO_BIN_EXE_nbak"), &program).expect("copied");
    give(top, NOBODY);
    fs::set_permissions(top, fs::Permissions::from_mode(0o755)).expect("its mode");
    let as_nobody = |args: &[&str]| {
        let own = command(&scene, &[args, &["--json"]].concat());
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).args(own.get_args());
        own.get_envs().filter_map(|(name, value)| Some((name, value?))).for_each(|(name, value)| {
            command.env(name, value);
        });
        command.env("HOME", top).env_remove("NODYN_VAULT_KEY");
        command
    };
    if Command::new("setpriv").arg("--reuid=65534").arg(&program).arg("--version").output().is_err() {
        return;
    }
    let is_mixed = |(run, said): &(Run, Vec<Value>)| {
        assert_eq!(run.code, if said[0]["mixed"] == true { 3 } else { 0 }, "{run:?}");
        assert_eq!(run.err.contains("restore is half done in what was captured"), said[0]["mixed"] == true, "{run:?}");
        said[0]["mixed"] == true
    };
    let during = |text: &str, act: &dyn Fn()| {
        // What nobody wrote to is not read again.
        scene.live("notes.txt", text);
        is_mixed(&while_reads(&scene, &as_nobody(&["snapshot"]), act))
    };
    let stage = || Staging::begin(&scene.data).and_then(Staging::discard).expect("staged");
    for text in ["first", "second"] {
        assert!(!during(&format!("before the {text}"), &stage), "{text}: one that only stages exchanges nothing");
        scene.staged("notes.txt", text);
        let restore = || {
            scene.replace(&options(false)).expect("restored");
        };
        assert!(during(&format!("beside the {text}"), &restore), "{text}: it began and ended meanwhile");
        let lock = fs::metadata(scene.data.join(".nbak-restore.lock")).expect("there");
        assert_eq!(lock.permissions().mode() & 0o777, 0o600);
        let run = Run::of(as_nobody(&["snapshot"]));
        assert!(run.code == 0 && !run.err.contains("half done"), "{text}: the next one is whole: {run:?}");
    }
}

#[test]
fn one_that_only_stages_changes_nothing_and_its_own_safety_backup_is_whole() {
    let scene = a_scene("closed");
    let begin = || Staging::begin(&scene.data).expect("begun");
    let staging = if can_trace() {
        let mut staging = None;
        // The first one ever makes the file that restores lock.
        let (run, _) = while_it_reads(&scene, &["snapshot"], || staging = Some(begin()));
        assert!(run.code == 0 && !run.err.contains("half done"), "{run:?}");
        staging.expect("begun")
    } else {
        begin()
    };
    for args in [&["snapshot"][..], &["backup"]] {
        let run = Run::of(command(&scene, args));
        assert!(run.code == 0 && !run.err.contains("half done"), "{args:?}: {run:?}");
    }
    staging.discard().expect("removed");
    fs::write(scene.data.join("notes.txt"), "later").expect("written");
    let run = Run::of(command(&scene, &["backup", "restore", "--yes"]));
    assert!(run.code == 0 && !run.err.contains("half done"), "{run:?}");
    assert!(run.err.contains("safety backup"), "{run:?}");
}
