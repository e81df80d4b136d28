//! What somebody who wanted to break it found, one promise each: losses are told of, errors end well, secrets stay out
//! of the store.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::live_common::{KEY, Place, Random, Run, is_root, run, text};
use serde_json::Value;

/// A user that owns nothing and whose limits bind.
const NOBODY: u32 = 65534;

fn packs(place: &Place) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(place.repo.join("packs"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (fs::metadata(&path).expect("there").modified().expect("a time"), path))
        .collect();
    all.sort();
    all.into_iter().map(|(_, path)| path).collect()
}

fn write(place: &Place, name: &str, seed: u64) {
    fs::write(place.data.join(name), Random::new(seed).bytes(5000)).expect("written");
}

/// With one snapshot for each of `names`, each of which has a pack of its own.
fn with_snapshots(names: &[&str]) -> Place {
    let place = Place::new();
    for (at, name) in names.iter().enumerate() {
        write(&place, name, at as u64);
        place.snapshot();
    }
    place
}

fn restore<'a>(target: &'a Path, more: &'a [&'a str]) -> Vec<&'a OsStr> {
    let args = ["restore".as_ref(), "latest".as_ref(), "--target".as_ref(), target.as_os_str()];
    args.into_iter().chain(more.iter().map(OsStr::new)).collect()
}

fn move_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::rename(entry.path(), to.join(entry.file_name())).expect("moved");
    }
}

// ---- packs that are gone ------------------------------------------------------------------------

#[test]
fn packs_that_are_gone_are_told_of_until_they_are_back_or_given_up() {
    let place = with_snapshots(&["a", "b", "c"]);
    let said = ["1 pack that it had is gone, and 1 snapshot with that", "nbak repair", "copy"];
    let second = packs(&place).remove(1);
    let aside = place.path("aside");
    fs::rename(&second, &aside).expect("moved");
    // By each command, and again: who finds it first is not the only one who hears of it.
    for args in [&["snapshots"][..], &["ls", "latest"], &["stats"], &["key", "list"], &["snapshots"]] {
        let run = place.run(args).says(&said);
        assert_eq!(run.err.matches("lost something").count(), 1, "{run:?}");
    }
    let name = second.file_name().expect("a name").to_str().expect("text").to_owned();
    place.run(["check"]).exits(13).says(&[&name, "was there, and is gone"]);
    // A snapshot goes on, stores again what is at hand, and does not make it forgotten.
    let taken = place.ok(["snapshot"]).says(&said);
    assert!(!taken.out.contains("nothing was stored"), "{taken:?}");
    assert_eq!(fs::read(place.restore("latest", "whole").join("b")).expect("there").len(), 5000);
    place.ok(["snapshot"]).says(&said).says(&["nothing changed"]);
    place.run(["check"]).exits(13).says(&[&name]);
    fs::rename(&aside, &second).expect("moved back");
    let back = place.ok(["snapshots"]);
    assert!(back.err.is_empty(), "it is back: {back:?}");
    fs::rename(&second, &aside).expect("moved");
    place.ok(["snapshots"]).says(&said);
    let repaired = place.ok(["repair", "index"]).says(&["accepted as lost: 1 pack", "1 snapshot"]);
    assert!(repaired.err.matches("lost something").count() == 0, "{repaired:?}");
    assert!(place.ok(["snapshots"]).err.is_empty(), "it was given up");
}

#[test]
fn an_emptied_store_is_no_new_one() {
    for index in ["kept", "removed", "noise"] {
        let place = with_snapshots(&["a", "b"]);
        let aside = place.path("aside");
        move_all(&place.repo.join("packs"), &aside);
        match index {
            "removed" => fs::remove_file(place.repo.join("index.redb")).expect("removed"),
            "noise" => fs::write(place.repo.join("index.redb"), Random::new(1).bytes(9000)).expect("written"),
            _ => {}
        }
        place.run(["check"]).exits(13).says(&["gone"]);
        place.ok(["snapshots"]).says(&["the store has lost something", "nbak repair"]);
        place.ok(["snapshot"]).says(&["the store has lost something"]);
        place.run(["check"]).exits(13).says(&["gone"]);
        let said = place.ok(["repair", "index", "--json"]).json();
        assert_eq!(said["accepted_lost_packs"], if index == "kept" { 2 } else { 0 }, "{index}: {said}");
        assert!(place.ok(["check"]).err.is_empty());
        // They come back after all: two beginnings, and both are whole.
        move_all(&aside, &place.repo.join("packs"));
        place.ok(["check", "--read-data"]).says(&["remark: snapshot", "were made after the same one"]);
        assert_eq!(place.ok(["snapshots"]).out.lines().count(), 3);
    }
}

#[test]
fn a_store_without_slots_and_packs_is_not_begun_anew() {
    let place = with_snapshots(&["a"]);
    for folder in ["keys", "packs"] {
        move_all(&place.repo.join(folder), &place.path(folder));
    }
    for args in [&["snapshots"][..], &["check"], &["snapshot", "--dry-run"], &["snapshot"]] {
        place.run(args).exits(13).says(&["a store was here", "move this folder away"]);
    }
    for folder in ["keys", "packs"] {
        fs::remove_dir(place.repo.join(folder)).expect("removed");
    }
    place.run(["snapshots"]).exits(13).says(&["a store was here"]);
    place.run(["snapshot"]).exits(13).says(&["a store was here"]);
    fs::create_dir_all(place.repo.join("quarantine/x")).expect("made");
    place.run(["snapshot"]).exits(13).says(&["a store was here"]);
    fs::remove_dir_all(place.repo.join("quarantine")).expect("removed");
    for folder in ["keys", "packs"] {
        move_all(&place.path(folder), &place.repo.join(folder));
    }
    assert!(place.ok(["check", "--read-data"]).err.is_empty());
}

#[test]
fn a_pack_that_was_away_for_a_while_is_no_damage() {
    let place = with_snapshots(&["a", "b", "c"]);
    let away = place.path("away");
    fs::create_dir(&away).expect("made");
    let newest = packs(&place).split_off(1);
    for path in &newest {
        fs::rename(path, away.join(path.file_name().expect("a name"))).expect("moved");
    }
    write(&place, "d", 9);
    let run = place.ok(["snapshot", "--json"]).says(&["2 packs that it had are gone, and 2 snapshots with that"]);
    let after = run.json();
    assert_eq!(after["sequence"], 2, "it follows what is there");
    move_all(&away, &place.repo.join("packs"));
    let check = place.ok(["check", "--read-data", "--json"]).json();
    assert_eq!((&check["ok"], check["remarks"].as_array().map(Vec::len)), (&true.into(), Some(1)), "{check}");
    assert!(text(&check["remarks"][0]).contains(text(&after["snapshot"])), "{check}");
    // The newest is what was taken last, whatever its number; and what comes next follows it.
    assert!(place.ok(["ls", "latest"]).out.contains("d\n"), "the newest is the newest");
    let last = place.ok(["snapshots", "--json"]).json_lines().pop().expect("snapshots");
    assert_eq!(last["snapshot"], after["snapshot"]);
    write(&place, "e", 10);
    let next = place.snapshot();
    assert_eq!((&next["parent"], &next["sequence"]), (&after["snapshot"], &3.into()));
    place.ok(["check"]).says(&["remark: "]);
    // What is missing in the middle, with those behind it there, stays a fault.
    let after = packs(&place).into_iter().nth(3).expect("the pack of d");
    fs::remove_file(after).expect("removed");
    place.ok(["repair", "index"]);
    place.run(["check"]).exits(13).says(&["the snapshot before it is missing"]);
}

// ---- threads, folders, disks --------------------------------------------------------------------

/// The program as a user that may not do everything; for that user to have, `place` is given away.
fn as_nobody(place: &Place, args: &[&OsStr]) -> Option<Command> {
    as_user(NOBODY, place, args)
}

fn as_user(user: u32, place: &Place, args: &[&OsStr]) -> Option<Command> {
    if !is_root() {
        return Some(place.nbak(args));
    }
    let program = place.path("nbak");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_nbak"), &program).expect("copied");
        fs::set_permissions(place.root.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    let mut waiting = vec![place.root.path().to_path_buf()];
    while let Some(path) = waiting.pop() {
        let _ = std::os::unix::fs::lchown(&path, Some(user), Some(user));
        if path.is_dir() && !path.is_symlink() {
            waiting.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        }
    }
    let user = user.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(&program).args(args);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TZ", "UTC");
    command.env("HOME", place.path("home")).env("NODYN_VAULT_KEY", KEY);
    command.env("NBAK_DATA_DIR", &place.data).env("NBAK_REPO", &place.repo);
    let works =
        Command::new("setpriv").args(["--reuid", &user, "--clear-groups"]).arg(&program).arg("--version").output();
    works.is_ok_and(|output| output.status.success()).then_some(command)
}

/// `command` within a limit of processes and threads that it has already: none can be made.
fn without_threads(command: &Command) -> Command {
    let mut limited = Command::new("prlimit");
    limited.args(["--nproc=1:1", "--"]).arg(command.get_program()).args(command.get_args()).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited
}

#[test]
#[allow(clippy::print_stdout, reason = "a test that cannot be run says so")]
fn where_no_thread_can_be_made_one_does_the_work() {
    // The limit counts all processes of a user: a user whom nobody else is.
    let alone = 200_000 + std::process::id() % 50_000;
    let place = with_snapshots(&["a", "b"]);
    fs::write(place.data.join("large"), Random::new(5).bytes(3_000_000)).expect("written");
    place.snapshot();
    let limited = |args: &[&OsStr]| as_user(alone, &place, args).map(|command| run(&mut without_threads(&command)));
    let none = || println!("skipped: no other user, or no prlimit");
    let Some(check) = limited(&["check".as_ref(), "--read-data".as_ref()]) else { return none() };
    if check.err.contains("prlimit") {
        return none();
    }
    check.exits(0).says(&["no problem found"]);
    let target = place.path("target");
    limited(&restore(&target, &[])).expect("as before").exits(0);
    assert_eq!(fs::read(target.join("large")).expect("there"), fs::read(place.data.join("large")).expect("there"));
    // The files have another owner by now.
    place.snapshot();
    limited(&["snapshot".as_ref(), "--full-scan".as_ref()]).expect("as before").exits(0).says(&["nothing changed"]);
    let before = packs(&place);
    fs::write(place.data.join("more"), Random::new(6).bytes(9_000_000)).expect("written");
    for args in [&["snapshot".as_ref()][..], &["snapshot".as_ref(), "--dry-run".as_ref()]] {
        let run = limited(args).expect("as before").exits(1).says(&["cannot start a thread", "ulimit -u"]);
        assert!(run.out.is_empty(), "{run:?}");
    }
    assert_eq!(packs(&place), before, "and nothing of it is stored");
    place.snapshot();
    place.check();
}

#[test]
#[allow(clippy::print_stdout, reason = "a test that cannot be run says so")]
fn a_folder_that_cannot_be_looked_at_ends_it() {
    let place = with_snapshots(&["a"]);
    let closed = place.path("closed");
    fs::create_dir(&closed).expect("made");
    let args = [OsStr::new("restore"), "latest".as_ref(), "--target".as_ref(), "out".as_ref()];
    let Some(command) = as_nobody(&place, &args) else { return println!("skipped: no other user") };
    let run = if is_root() {
        let _ = chown(&closed, Some(0), Some(0));
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("chmod");
        let mut command = command;
        run(command.current_dir(&closed))
    } else {
        let mut shell = Command::new("sh");
        shell.args(["-c", "chmod 0 . && exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
        shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let run = run(shell.current_dir(&closed));
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("chmod");
        run
    };
    let run = run.exits(1).says(&["out", "Permission denied", "chmod"]);
    assert!(!run.err.contains("overflow"), "{run:?}");
}

/// A file system of `kilobytes`, as long as the value is there; none without the right to mount one.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, options: &str) -> Option<Small> {
        fs::create_dir_all(at).expect("made");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(at).output();
        done.is_ok_and(|output| output.status.success()).then(|| Small(at.to_path_buf()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "a test that cannot be run says so")]
fn a_restore_that_fails_says_what_is_there() {
    let place = with_snapshots(&["a"]);
    for n in 0..40 {
        fs::write(place.data.join(format!("b{n}")), format!("{n}")).expect("written");
    }
    place.snapshot();
    // No room for names: what the free bytes cannot tell beforehand.
    let disk = place.path("disk");
    let Some(small) = Small::mount(&disk, "size=20m,nr_inodes=20") else {
        return println!("skipped: nothing can be mounted");
    };
    let target = disk.join("target");
    let run =
        place.run(restore(&target, &[])).exits(1).says(&["disk is full", "restored before that", "stay in the target"]);
    let left = fs::read_dir(&target).expect("there").count();
    assert!(run.err.contains(&format!("{left} file")), "{left}: {run:?}");
    drop(small);
    let Some(_small) = Small::mount(&disk, "size=20m,nr_inodes=2") else { return };
    let run = place.run(restore(&disk.join("target"), &[])).exits(1);
    assert!(run.err.contains("nothing of the snapshot is in the target"), "{run:?}");
    assert!(!disk.join("target").exists(), "it is withdrawn: {run:?}");
}

// ---- where plaintext goes -----------------------------------------------------------------------

#[test]
fn no_way_leads_plaintext_into_the_store() {
    let place = with_snapshots(&["a"]);
    symlink(&place.repo, place.path("link")).expect("linked");
    symlink(place.repo.join("packs"), place.path("deep")).expect("linked");
    fs::create_dir(place.path("dir")).expect("made");
    let before: Vec<_> =
        fs::read_dir(&place.repo).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    for target in
        ["link/inside", "link", "dir/../store/inside", "deep/in", "new/../store/inside", "new/../link/x", "store"]
    {
        for more in [&[][..], &["--overwrite"]] {
            let target = place.path(target);
            place.run(restore(&target, more)).exits(2).says(&["lies in the store", "--target"]);
        }
    }
    let after: Vec<_> =
        fs::read_dir(&place.repo).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(before, after);
    assert!(!place.path("new").exists());
    symlink(&place.data, place.path("data-link")).expect("linked");
    for target in ["data-link/sub", "dir/../data/other"] {
        let target = place.path(target);
        place.run(restore(&target, &["--overwrite"])).exits(2).says(&["lies in it", "--in-place"]);
        place.ok(restore(&target, &[])).says(&["lies in the data directory"]);
    }
    // A store that is known by a link, and a target that is not.
    let target = place.repo.join("inside");
    let mut command = place.nbak(restore(&target, &[]));
    run(command.env("NBAK_REPO", place.path("link"))).exits(2).says(&["lies in the store"]);
}

#[test]
fn what_a_killed_restore_left_is_swept_by_the_next() {
    let place = with_snapshots(&["a"]);
    fs::create_dir(place.data.join("sub")).expect("made");
    write(&place, "sub/b", 2);
    place.snapshot();
    let target = place.restore("latest", "target");
    fs::create_dir(target.join("other")).expect("made");
    let left = format!(".nbak-restore-{}", "0f".repeat(16));
    let kept = [format!("{left}0"), ".nbak-restore-mine".to_owned(), format!("other/{left}")];
    let swept = [left.clone(), format!("sub/{left}")];
    for name in kept.iter().chain(&swept) {
        fs::write(target.join(name), "secret").expect("written");
    }
    place.ok(restore(&target, &["--overwrite"]));
    assert!(swept.iter().all(|name| !target.join(name).exists()), "swept");
    assert!(kept.iter().all(|name| target.join(name).exists()), "what is not its own stays");
}

// ---- what is said -------------------------------------------------------------------------------

#[test]
fn an_incomplete_snapshot_says_so_when_it_is_restored() {
    let place = with_snapshots(&["a"]);
    fs::create_dir(place.data.join("sub")).expect("made");
    let _sockets: Vec<_> = (0..7)
        .map(|n| std::os::unix::net::UnixListener::bind(place.data.join(format!("sub/s{n}"))).expect("a socket"))
        .collect();
    place.run(["snapshot"]).exits(3);
    let run = place.run(restore(&place.path("one"), &[])).exits(3);
    run.says(&["the snapshot is incomplete: 7 entries could not be read", "sub/s0, ", "sub/s4, …"]);
    let said = place.run(restore(&place.path("two"), &["--json"])).exits(3).json();
    assert_eq!((&said["incomplete"], said["unreadable_entries"].as_array().map(Vec::len)), (&true.into(), Some(7)));
    // Whom it does not concern need not hear of it.
    let args = ["restore".as_ref(), "latest".as_ref(), OsStr::new("a"), "--target".as_ref()];
    let three = place.path("three");
    let run = place.ok(args.into_iter().chain([three.as_os_str()]));
    assert!(!run.err.contains("incomplete"), "{run:?}");
    let listed = place.ok(["snapshots", "--json"]).json_lines();
    assert_eq!(listed[0]["unreadable_entries"], Value::Array(Vec::new()));
    assert_eq!(listed[1]["unreadable_entries"][0]["path"], "sub/s0");
    assert!(text(&listed[1]["unreadable_entries"][0]["reason"]).contains("socket"), "{}", listed[1]);
    assert!(place.ok(["snapshots", "-v"]).out.contains("  not captured: sub/s6: "));
    assert!(!place.ok(["snapshots"]).out.contains("sub/s6"));
}

#[test]
fn a_new_store_is_told_of() {
    let place = Place::new();
    write(&place, "a", 1);
    place.ok(["snapshot"]).says(&["made a new store at", place.repo.to_str().expect("text")]);
    let again = place.ok(["snapshot"]);
    assert!(again.err.is_empty(), "{again:?}");
    let other = place.path("elsewhere");
    let said = |place: &Place| run(place.nbak(["snapshot", "--json"]).env("NBAK_REPO", &other)).exits(0).json();
    assert_eq!(said(&place)["new_store"], true);
    assert_eq!(said(&place)["new_store"], false);
}

#[test]
fn a_glob_that_is_none_keeps_nobody_from_a_backup() {
    let place = Place::new();
    write(&place, "a", 1);
    write(&place, "b.tmp", 2);
    let config = r#"{"nbak":{"exclude":["[", "*.tmp", "/"]}}"#;
    fs::write(place.data.join("config.json"), config).expect("written");
    let run = place.ok(["snapshot"]).says(&["config.json", "`[`", "`/`"]);
    assert_eq!(run.err.matches("warning").count(), 2, "{run:?}");
    assert_eq!(place.ok(["ls", "latest"]).out, "a\nconfig.json\n", "the others count");
    place.run(["snapshot", "--exclude", "["]).exits(2).says(&["["]);
}

fn limited(limit: &str, mut command: Command) -> Run {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("ulimit {limit}; exec \"$@\""), "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env_clear();
    run(&mut shell)
}

#[test]
fn messages_name_the_next_step() {
    let place = Place::new();
    write(&place, "a", 1);
    let file = place.path("file");
    fs::write(&file, "x").expect("written");
    for args in [["snapshot"], ["snapshots"]] {
        run(place.nbak(args).env("NBAK_REPO", &file)).says(&["file", "--repo"]);
        let config = format!("{{\"backup_dir\": {:?}}}", file.to_str().expect("text"));
        fs::write(place.data.join("config.json"), config).expect("written");
        run(place.nbak(args).env_remove("NBAK_REPO")).says(&["file", "`backup_dir`"]);
        fs::remove_file(place.data.join("config.json")).expect("removed");
    }
    place.snapshot();
    fs::write(&file, "\n").expect("written");
    let file = file.to_str().expect("text");
    place.run(["snapshots", "--vault-key-file", file]).exits(12).says(&["there is no key in", "first line"]);
    place.run(["snapshots", "--vault-key-file", "/not/there"]).exits(12).says(&["/not/there", "name a file"]);
    // The folders of the walk are open at the same time as the store is.
    let mut deep = place.data.clone();
    for n in 0..40 {
        deep.push(format!("d{n}"));
        fs::create_dir(&deep).expect("made");
    }
    let run = limited("-n 9", place.nbak(["snapshot"]));
    if run.code != Some(0) {
        assert!(run.err.contains("ulimit -n") && !run.err.contains("--data-dir"), "{run:?}");
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "a test that cannot be run says so")]
fn a_store_that_is_read_only_says_so() {
    let place = with_snapshots(&["a"]);
    let at = place.path("mounted");
    let Some(_small) = Small::mount(&at, "size=10m") else { return println!("skipped: nothing can be mounted") };
    let repo = at.join("store");
    run(place.nbak(["snapshot"]).env("NBAK_REPO", &repo)).exits(0);
    let done = Command::new("mount").args(["-o", "remount,ro"]).arg(&at).output().expect("mount");
    assert!(done.status.success(), "{done:?}");
    run(place.nbak(["snapshots"]).env("NBAK_REPO", &repo)).exits(0);
    for args in [&["snapshot"][..], &["repair", "index"]] {
        run(place.nbak(args).env("NBAK_REPO", &repo))
            .exits(1)
            .says(&["mounted read-only", repo.to_str().expect("text")]);
    }
}

/// A key that is to go and cannot be removed: who rotates must know that both open the store.
#[test]
#[allow(clippy::print_stdout, reason = "a test that cannot be run says so")]
fn a_rotation_that_stops_halfway_says_what_opens() {
    let place = with_snapshots(&["a"]);
    let new = place.path("new-key");
    fs::write(&new, "another-key-that-is-as-long-as-the-right-one\n").expect("written");
    let new = new.to_str().expect("text");
    let command = place.nbak(["key", "rotate", "--new-vault-key-file", new]);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-o", "/dev/null", "-e", "inject=unlink,unlinkat:error=EIO", "--"]);
    traced.arg(command.get_program()).args(command.get_args());
    traced.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    traced.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let Ok(output) = traced.output() else { return println!("skipped: no strace") };
    let run = Run::of(output, "a rotation".to_owned());
    if run.err.contains("PTRACE") {
        return println!("skipped: nothing can be traced");
    }
    // Both were made in the same second: the old one is told by that the old key opens it.
    let slots = place.ok(["key", "list", "--json"]).json_lines();
    let old = slots.iter().find(|slot| slot["in_use"] == true).expect("the old key opens one");
    let short = &text(&old["slot"])[..8];
    run.exits(1).says(&["the new key opens the store already", &format!("nbak key remove {short}")]);
    place.ok(["snapshots"]);
    place.ok(["snapshots", "--vault-key-file", new]);
    place.ok(["key", "remove", short, "--vault-key-file", new]);
    place.run(["snapshots"]).exits(12);
}

#[test]
#[allow(clippy::print_stdout, reason = "a test that cannot be run says so")]
fn what_the_safety_backup_cannot_read_is_not_replaced_and_no_plaintext_is_left() {
    let place = Place::new();
    let graph = place.data.join("knowledge-graph");
    for folder in [&place.data, &graph, &place.data.join("sealed")] {
        fs::create_dir_all(folder).expect("made");
    }
    fs::write(place.data.join("kind"), "a file").expect("written");
    fs::write(graph.join("data.kz"), "data").expect("written");
    fs::write(place.data.join("sealed/text"), "in a folder that may not be written").expect("written");
    fs::set_permissions(place.data.join("sealed"), fs::Permissions::from_mode(0o500)).expect("chmod");
    let Some(mut command) = as_nobody(&place, &["backup", "--json"].map(OsStr::new)) else {
        return println!("skipped: nothing can be run as another user");
    };
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let left = |name: &str| {
        let names = fs::read_dir(&place.data).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        names.filter(|entry| entry.to_string_lossy().starts_with(name)).count()
    };
    assert_eq!(left(".nbak-scratch"), 0, "plaintext was left");

    // Where a file is to come stands a folder with a file that cannot be read; and beside the graph stands another one.
    fs::remove_file(place.data.join("kind")).expect("removed");
    fs::create_dir(place.data.join("kind")).expect("made");
    for path in ["kind/precious", "knowledge-graph/later.kz"] {
        let path = place.data.join(path);
        fs::write(&path, "precious").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("chmod");
        let output = as_nobody(&place, &["backup", "restore", "--yes"].map(OsStr::new))
            .expect("as before")
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read(&path).expect("it is there"), b"precious");
        fs::remove_file(path).expect("removed");
        let _ = fs::remove_dir(place.data.join("kind"));
    }
    fs::set_permissions(place.data.join("sealed"), fs::Permissions::from_mode(0o700)).expect("chmod");
    let output = as_nobody(&place, &["backup", "restore", "--yes"].map(OsStr::new))
        .expect("as before")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(place.data.join("kind")).expect("read"), b"a file");
}
