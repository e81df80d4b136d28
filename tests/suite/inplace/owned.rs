//! What a user may not move: it is seen before anything is changed. And what cannot be removed is in nobody's way.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::geteuid;

use super::lacking::{killed, killed_at, killed_by, said};
use super::scene::{database, insert};
use crate::common::strace::can_trace;
use crate::common::{Place, Run, tree};

const NOBODY: u32 = 65534;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode");
}

/// All of `place` belongs to somebody who is not root.
fn given(place: &Place) {
    if geteuid().is_root() {
        chmod(place.folder.path(), 0o755);
        chown(place.folder.path(), Some(NOBODY), Some(NOBODY)).expect("chown");
        for path in tree(place.folder.path()).into_keys() {
            std::os::unix::fs::lchown(place.folder.path().join(path), Some(NOBODY), Some(NOBODY)).expect("chown");
        }
    }
}

fn run(place: &Place, args: &[&str]) -> Run {
    let mut command = place.command(args);
    command.env("HOME", place.folder.path());
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    Run::of(command)
}

fn write(place: &Place, files: &[(&str, &str)]) {
    for (path, text) in files {
        fs::create_dir_all(place.data.join(path).parent().expect("a folder")).expect("made");
        fs::write(place.data.join(path), text).expect("written");
    }
}

/// With a snapshot of a file, a graph and a folder; what is live is other.
fn place() -> (Place, String) {
    let place = Place::empty();
    write(&place, &[("aa/f", "first"), ("knowledge-graph/g", "first"), ("shared/f", "first"), ("x", "first")]);
    given(&place);
    let taken = run(&place, &["snapshot", "--json"]);
    let id = said(&taken)["snapshot"].as_str().expect("an id").to_owned();
    write(&place, &[("aa/f", "later"), ("shared/f", "later")]);
    (place, id)
}

fn assert_refused(place: &Place, id: &str, path: &str, why: &str) {
    let before = tree(&place.data.join("aa"));
    let done = run(place, &["restore", id, "--in-place", "--yes"]);
    assert!(done.code == 1 && done.err.contains(&format!("/data/{path} (")) && done.err.contains(why), "{done:?}");
    assert!(done.err.contains("nothing was changed"), "{done:?}");
    assert!(!place.data.join(".nbak-restore").exists() && tree(&place.data.join("aa")) == before);
}

#[test]
fn a_folder_that_cannot_be_moved_is_seen_before() {
    let (place, id) = place();
    fs::remove_file(place.data.join("x")).expect("removed");
    write(&place, &[("x/in", "later")]);
    given(&place);
    chmod(&place.data.join("x"), 0o555);
    assert_refused(&place, &id, "x", "cannot be moved");
    chmod(&place.data.join("x"), 0o755);
    let done = run(&place, &["restore", &id, "--in-place", "--yes"]);
    assert!(done.code == 0 && place.data.join("x").is_file(), "{done:?}");

    if !geteuid().is_root() {
        return;
    }
    // Root's, below a graph.
    write(&place, &[("aa/f", "again"), ("knowledge-graph/rooted/in", "later")]);
    assert_refused(&place, &id, "knowledge-graph/rooted", "cannot be moved");
    fs::remove_dir_all(place.data.join("knowledge-graph/rooted")).expect("removed");
    // Root's, in a folder where only the owner may move things.
    let shared = place.data.join("shared");
    write(&place, &[("shared/f", "root's")]);
    for path in [shared.join("f"), shared.clone()] {
        chown(&path, Some(0), Some(0)).expect("chown");
    }
    chmod(&shared, 0o1777);
    assert_refused(&place, &id, "shared/f", "sticky");
    chown(shared.join("f"), Some(NOBODY), Some(NOBODY)).expect("chown");
    let done = run(&place, &["restore", &id, "--in-place", "--yes"]);
    assert!(done.code == 0 && done.err.contains("shared: its mode and time stay as they are"), "{done:?}");
}

/// What lies beside it under the name of a journal goes where it goes.
#[test]
fn what_goes_along_and_cannot_be_moved_is_seen_before() {
    if !geteuid().is_root() {
        return;
    }
    let (place, id) = place();
    let shared = place.data.join("shared");
    chown(&shared, Some(0), Some(0)).expect("chown");
    chmod(&shared, 0o1777);
    for beside in ["shared/f-journal", "shared/f-wal"] {
        write(&place, &[(beside, "root's")]);
        assert_refused(&place, &id, beside, "sticky");
        fs::remove_file(place.data.join(beside)).expect("removed");
    }
    // Also where something is to go.
    fs::remove_file(shared.join("f")).expect("removed");
    write(&place, &[("shared/f-wal", "root's")]);
    assert_refused(&place, &id, "shared/f-wal", "sticky");
    chown(shared.join("f-wal"), Some(NOBODY), Some(NOBODY)).expect("chown");
    let done = run(&place, &["restore", &id, "--in-place", "--yes"]);
    assert_eq!(done.code, 0, "{done:?}");
}

/// A file can be a mount by itself, as containers have them.
#[test]
fn what_goes_along_and_is_mounted_is_seen_before() {
    if !geteuid().is_root() {
        return;
    }
    let (place, id) = place();
    write(&place, &[("x-journal", "")]);
    fs::write(place.path("diary"), "a diary").expect("written");
    fs::write(place.data.join("x"), "later").expect("written");
    let (to, from) = (place.data.join("x-journal"), place.path("diary"));
    let plain = place.command(&["restore", &id, "--in-place", "--yes"]);
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$1\" \"$2\" 2>/dev/null || exit 77; shift 2; exec \"$@\"";
    command.args(["-m", "sh", "-c", script, "sh"]).args([&from, &to]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let Ok(output) = command.output() else { return };
    let err = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) || err.contains("unshare failed") {
        return;
    }
    assert!(output.status.code() == Some(1) && err.contains("x-journal") && err.contains("mount"), "{output:?}");
    assert!(err.contains("nothing was changed") && !place.data.join(".nbak-restore").exists(), "{output:?}");
}

#[test]
fn what_cannot_be_removed_is_in_no_later_restores_way() {
    if !geteuid().is_root() {
        return;
    }
    let (place, id) = place();
    let args = ["restore", &*id, "--in-place", "--yes"];
    write(&place, &[("knowledge-graph/mine/rooted/in", "later")]);
    chown(place.data.join("knowledge-graph/mine"), Some(NOBODY), Some(NOBODY)).expect("chown");
    let done = run(&place, &args);
    assert!(done.code == 0 && done.err.contains("could not be removed, and is left in"), "{done:?}");
    assert!(!place.data.join(".nbak-restore").exists());
    let kept = fs::read_dir(&place.data).expect("a list").flatten().map(|entry| entry.path());
    let kept: Vec<_> = kept.filter(|path| path.to_string_lossy().contains("/.nbak-kept-")).collect();
    assert!(kept.len() == 1 && kept[0].join("old/knowledge-graph/mine/rooted/in").exists(), "{kept:?}");
    // One that an older version left.
    fs::rename(&kept[0], place.data.join(".nbak-restore")).expect("renamed");
    write(&place, &[("aa/f", "again")]);
    let done = run(&place, &args);
    assert!(done.code == 0 && done.err.contains("could not be removed, and is left in"), "{done:?}");
    assert_eq!(fs::read_to_string(place.data.join("aa/f")).expect("there"), "first");
    write(&place, &[("aa/f", "again")]);
    let done = run(&place, &args);
    assert!(done.code == 0 && !done.err.contains("could not be removed"), "{done:?}");
}

/// What is kept gets an end to its name.
#[test]
fn a_name_of_any_length_is_kept() {
    if !can_trace() {
        return;
    }
    let place = Place::empty();
    let name = "d".repeat(252);
    let put = |text: &str| {
        for nth in 1..10 {
            write(&place, &[(&format!("{name}/{nth}"), text)]);
        }
    };
    put("first");
    let id = said(&place.ok(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
    put("later");
    killed(&place, &["restore", &id, "--in-place", "--yes"]);
    killed_at(&place, &["restore", "--resume", "--yes"], 2);
    fs::rename(place.data.join(&name), place.data.join("gone")).expect("moved");
    fs::write(place.data.join(&name), "since").expect("written");
    let run = place.run(&["restore", "--resume", "--yes"]);
    assert_eq!(run.code, 3, "the first was put there, and is gone: {run:?}");
    assert!(place.data.join(&name).join("9").exists());
    let kept = tree(&place.data)
        .into_iter()
        .find(|(path, one)| path.to_string_lossy().starts_with(".nbak-kept-") && one.bytes == b"since");
    assert!(kept.is_some_and(|(path, _)| path.to_string_lossy().ends_with("d.since")), "{run:?}");
}

/// The command of `args` as that user, of which strace can be told.
fn traceable(place: &Place, args: &[&str]) -> Command {
    let plain = place.command(args);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("HOME", place.folder.path());
    if geteuid().is_root() { command } else { plain }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

/// What a user's own folder that may not be written holds, and what is to be there: opened, and closed again.
#[test]
fn a_folder_that_its_owner_may_not_write_is_opened_for_the_restore() {
    let place = Place::empty();
    let (read_only, inner) = (place.data.join("ro"), place.data.join("ro/in"));
    let all = ["a", "b", "ro/f", "ro/in/g", "ro/in/link/h"];
    let put = |text: &str| {
        [&read_only, &inner].into_iter().filter(|path| path.exists()).for_each(|path| chmod(path, 0o755));
        write(&place, &all.map(|path| (path, text)));
        given(&place);
        chmod(&inner, 0o555);
        chmod(&read_only, 0o555);
    };
    let holds =
        |text: &str| all.iter().all(|path| fs::read_to_string(place.data.join(path)).is_ok_and(|found| found == text));
    put("first");
    let id = said(&run(&place, &["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
    let args = ["restore", &*id, "--in-place", "--yes"];

    // Nothing in it is moved.
    write(&place, &[("a", "later")]);
    let done = run(&place, &args);
    assert!(done.code == 0 && holds("first") && mode(&read_only) == 0o555, "{done:?}");
    // All of it is; and one is to come that is gone, with its folder.
    put("later");
    chmod(&inner, 0o755);
    fs::remove_dir_all(inner.join("link")).expect("removed");
    chmod(&inner, 0o555);
    let done = run(&place, &args);
    assert!(done.code == 0 && holds("first"), "{done:?}");
    assert_eq!((mode(&read_only), mode(&inner)), (0o555, 0o555));
    // One path alone: the folder above keeps what it has.
    put("later");
    chmod(&read_only, 0o550);
    let done = run(&place, &["restore", &id, "ro/f", "--in-place", "--yes"]);
    assert!(done.code == 0 && mode(&read_only) == 0o550 && mode(&inner) == 0o555, "{done:?}");
    assert_eq!(fs::read_to_string(read_only.join("f")).expect("there"), "first");
    if !can_trace() {
        return;
    }
    // Killed with the folder open, and finished, or given up.
    for end in ["--resume", "--abandon"] {
        put("later");
        killed_by(&place, &traceable(&place, &args));
        let stands = |path: &str| place.data.join(".nbak-restore").join(path).exists();
        assert!(stands("intent") && mode(&read_only) == 0o755, "it is open while it is half done");
        let done = run(&place, &["restore", end, "--yes"]);
        assert!(done.code == 0 && !stands("intent"), "{end}: {done:?}");
        assert_eq!((mode(&read_only), mode(&inner)), (0o555, 0o555), "{end}");
        assert!(end == "--abandon" || holds("first"), "{end}");
    }
}

/// SQLite writes beside a database before anything is noted that would close the folder again.
#[test]
fn a_database_in_a_folder_that_may_not_be_written_is_refused_with_the_next_step() {
    let place = Place::empty();
    write(&place, &[("aa/f", "first"), ("ro/f", "first")]);
    drop(database(&place.data.join("ro/d.db"), "DELETE", "first", 2));
    given(&place);
    let id = said(&run(&place, &["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
    write(&place, &[("aa/f", "later")]);
    let conn = rusqlite::Connection::open(place.data.join("ro/d.db")).expect("opened");
    insert(&conn, "later", 2);
    drop(conn);
    given(&place);
    chmod(&place.data.join("ro"), 0o555);
    assert_refused(&place, &id, "ro", "chmod u+w ");
    assert_eq!(mode(&place.data.join("ro")), 0o555);
    chmod(&place.data.join("ro"), 0o755);
    let done = run(&place, &["restore", &id, "--in-place", "--yes"]);
    assert_eq!(done.code, 0, "{done:?}");
}

/// Root's snapshot has folders that their owner may not look into. Who closed them could not finish the restore.
#[test]
fn a_new_folder_stays_open_for_who_restores() {
    if !geteuid().is_root() {
        return;
    }
    for (closed, becomes) in [(0o300, 0o700), (0o000, 0o500), (0o024, 0o524)] {
        let place = Place::empty();
        let sealed = place.data.join("sealed");
        write(&place, &[("aa/f", "first"), ("sealed/f", "first"), ("sealed/in/g", "first"), ("z", "first")]);
        chmod(&sealed, closed);
        let id = said(&place.run(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
        let take = || {
            fs::remove_dir_all(&sealed).expect("removed");
            write(&place, &[("aa/f", "later"), ("z", "later")]);
            given(&place);
        };
        let assert_done = |done: &Run| {
            assert!(done.code == 0 && done.err.contains("sealed: its mode"), "{closed:o}: {done:?}");
            assert_eq!(mode(&sealed), becomes, "{closed:o}");
            assert_eq!(fs::read_to_string(sealed.join("in/g")).expect("there"), "first");
            assert!(!place.data.join(".nbak-restore").exists());
        };
        let args = ["restore", &*id, "--in-place", "--yes"];
        take();
        assert_done(&run(&place, &args));
        // One that is there already is an obstacle, of which is heard before anything is changed.
        write(&place, &[("aa/f", "later")]);
        let done = run(&place, &args);
        assert!(done.code == 1 && !place.data.join(".nbak-restore").exists(), "{closed:o}: {done:?}");
        assert_eq!(fs::read_to_string(place.data.join("aa/f")).expect("there"), "later");
        if can_trace() {
            take();
            killed_by(&place, &traceable(&place, &args));
            assert_done(&run(&place, &["restore", "--resume", "--yes"]));
        }
    }
}

/// What is root's afterwards, an ordinary user's next command fails at: so it is said, and the lock is given away.
#[test]
fn root_says_that_what_it_makes_is_roots() {
    if !geteuid().is_root() {
        return;
    }
    let place = Place::empty();
    fs::write(place.data.join("zz"), "first").expect("written");
    let run = place.ok(&["snapshot"]);
    assert!(!run.err.contains("runs as root"), "{run:?}");
    chown(&place.data, Some(NOBODY), Some(NOBODY)).expect("given away");
    fs::write(place.data.join("zz"), "later").expect("written");
    for args in [&["snapshot"][..], &["gc"], &["restore", "latest", "--in-place", "--yes"]] {
        let run = place.run(args);
        assert!(run.err.contains("runs as root") && run.err.contains("user 65534"), "{args:?}: {run:?}");
    }
    assert!(!place.run(&["ls", "latest"]).err.contains("runs as root"));
    assert_eq!(fs::metadata(place.data.join(".nbak-restore.lock")).expect("there").uid(), NOBODY);
}
