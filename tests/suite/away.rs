//! The data directory goes away while a snapshot of it is taken: it is moved, replaced, unmounted, for a moment or for
//! good. Nothing in it counts as deleted by that. The same of the target of a restore; and what was moved out of the
//! data directory for good, and a link left in its place.
//!
//! Snapshot and restore are held up where it matters, by strace.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::small_disk;
use crate::common::strace::{can_trace, only_of, opened, traced};
use crate::live_common::{Place, Random, Run, app, survey};

/// A data directory with many small files, a database, and files of 1 MB at the beginning and at the end.
fn place() -> Place {
    let place = Place::new();
    let mut random = Random::new(31);
    for folder in ["b", "y"] {
        fs::create_dir(place.data.join(folder)).expect("a folder");
        for number in 0..40 {
            fs::write(place.data.join(format!("{folder}/{number}")), random.bytes(300)).expect("a file");
        }
    }
    for name in ["a", "z"] {
        fs::write(place.data.join(name), random.bytes(1_000_000)).expect("a file");
    }
    let conn = app::open(&place.data.join("m.db"));
    conn.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(v); INSERT INTO t VALUES('kept')").expect("a table");
    drop(conn);
    std::thread::sleep(Duration::from_millis(130));
    place
}

/// `args`, held up for a while each time that it has opened one of `held`.
fn held_up(place: &Place, args: &[&str], held: &[&str]) -> Child {
    let held = only_of(&place.data, held);
    let mut options = vec!["-o", "/dev/null", "-e", "trace=openat", "-e", "inject=openat:delay_exit=700000"];
    options.extend(held.iter().map(String::as_str));
    let mut program = place.nbak(args.iter().copied());
    program.env("NBAK_BACKUP_DIR", place.path("backups"));
    let mut child = traced(&program, &options);
    child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("strace starts")
}

fn end(child: Child) -> Run {
    Run::of(child.wait_with_output().expect("it ends"), "held up".to_owned())
}

/// Renamed for a moment, by itself or with a folder above it: nothing was deleted, and all of it is in the snapshot.
#[test]
fn for_a_moment() {
    if !can_trace() {
        return;
    }
    for held in ["b", "a", "z"] {
        let place = place();
        let away = place.path("away");
        let mut child = held_up(&place, &["snapshot", "-q"], &[held]);
        opened(&mut child, &place.data.join(held));
        fs::rename(&place.data, &away).expect("moved");
        // It goes on, and ends unless it waits.
        std::thread::sleep(Duration::from_millis(1300));
        fs::rename(&away, &place.data).expect("moved back");
        end(child).exits(0);
        let back = place.restore("latest", "back");
        for path in survey(&place.data).into_keys().filter(|path| place.data.join(path).is_file()) {
            let is_database = path.starts_with("m.db");
            let (was, is) = (fs::read(place.data.join(&path)).ok(), fs::read(back.join(&path)).ok());
            assert!(is_database || was == is, "{} while {held} was held", path.display());
        }
        assert!(back.join("m.db").is_file(), "while {held} was held");
        place.check();
    }
}

/// For good, with another in its place or with none: there is no snapshot, and no backup.
#[test]
fn for_good() {
    if !can_trace() {
        return;
    }
    let backups = |place: &Place| fs::read_dir(place.path("backups")).into_iter().flatten().count();
    for (command, held, replaced) in
        [("snapshot", "b", false), ("snapshot", "z", false), ("snapshot", "a", true), ("backup", "z", false)]
    {
        let place = place();
        let mut child = held_up(&place, &[command], &[held]);
        opened(&mut child, &place.data.join(held));
        fs::rename(&place.data, place.path("away")).expect("moved");
        if replaced {
            fs::create_dir(&place.data).expect("another");
            fs::write(place.data.join("new"), "another's").expect("a file");
        }
        let run = end(child).exits(1);
        assert!(run.err.contains("moved, unmounted or replaced"), "{run:?}");
        fs::create_dir_all(&place.data).expect("a place to look from");
        let listed = place.ok(["snapshots", "--json"]).out;
        assert!(!listed.contains("started"), "{command}: {listed}");
        assert_eq!(backups(&place), 0, "{command}");
    }
}

/// A file system that is mounted below it, and goes while the snapshot is taken: that is named.
#[test]
fn what_is_mounted_below_it() {
    if !can_trace() {
        return;
    }
    let Some(disk) = small_disk::small_disk("away::what_is_mounted_below_it") else { return };
    let place = place();
    small_disk::mount(&disk, 64);
    let folder = place.path("folder");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("file"), "of the volume").expect("a file");
    let volume = place.data.join("volume");
    fs::create_dir(&volume).expect("a folder");
    let run = |program: &str, args: &[&Path]| {
        assert!(Command::new(program).args(args).status().expect("runs").success(), "{program} {args:?}");
    };
    fs::write(disk.join("file"), "of the volume").expect("a file");
    // Before the second walk, which a database asks for, and after the only one.
    let other = place.path("other");
    fs::create_dir(&other).expect("a folder");
    // Another file system, and a folder of the same one, which is exchanged for another.
    for (held, mounted, next) in [("a", &disk, None), ("z", &disk, None), ("z", &folder, Some(&other))] {
        run("mount", &[Path::new("--bind"), mounted, &volume]);
        let mut child = held_up(&place, &["snapshot"], &[held]);
        opened(&mut child, &place.data.join(held));
        run("umount", &[Path::new("-l"), &volume]);
        if let Some(next) = next {
            run("mount", &[Path::new("--bind"), next, &volume]);
        }
        let run = end(child).exits(3);
        assert!(run.err.contains("volume: what is mounted there is not what was"), "{run:?}");
        fs::write(place.data.join("z"), "another").expect("a file");
    }
}

/// The target of a restore is moved away meanwhile: nothing is where it was to be, and that is said.
#[test]
fn the_target_of_a_restore() {
    if !can_trace() {
        return;
    }
    let place = place();
    place.ok(["snapshot"]);
    let target = place.path("target");
    let restore = place.nbak(["restore", "latest", "--target", target.to_str().expect("text")]);
    let last = target.join("z");
    let options = ["-o", "/dev/null", "-e", "trace=close", "-e", "inject=close:delay_enter=700000", "-P"];
    let mut child = traced(&restore, &[&options[..], &[last.to_str().expect("text")]].concat());
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("strace starts");
    opened(&mut child, &last);
    fs::rename(&target, place.path("elsewhere")).expect("moved");
    let run = end(child).exits(1);
    assert!(run.err.contains("the target directory was moved or replaced"), "{run:?}");
    assert!(place.path("elsewhere/m.db").is_file());
}

/// Who moves a folder to another disk and leaves a link has it in no snapshot, and is told so, once.
#[test]
fn what_a_link_stands_for() {
    let place = place();
    let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, place.data.join(name)).expect("a link");
    fs::rename(place.data.join("y"), place.path("y")).expect("moved");
    link(&place.path("y"), "y");
    link(Path::new("b/1"), "within");
    link(Path::new("nowhere"), "dangling");
    link(&place.data.join("b"), "by-its-whole-name");
    let words = "links lead out of the data directory, and what they lead to is in no snapshot: y\n";
    let told = |run: &Run, words: &str| run.err.contains(words);
    assert!(told(&place.ok(["snapshot"]), words));
    fs::write(place.data.join("a"), "another").expect("a file");
    let again = place.ok(["snapshot"]);
    assert!(!told(&again, "links lead"), "{again:?}");
    fs::remove_file(place.data.join("within")).expect("removed");
    for n in 0..5 {
        link(&place.path("y/1"), &format!("out{n}"));
    }
    let run = place.ok(["snapshot"]);
    assert!(told(&run, "in no snapshot: out0, out1, out2 and 2 more"), "{run:?}");
    let backup = place.ok(["backup"]);
    assert!(told(&backup, "kept in the snapshot as what they say"), "{backup:?}");
}
