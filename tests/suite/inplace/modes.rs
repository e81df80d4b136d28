//! Modes, owners and times: of folders that stand there, and of what somebody changed while a restore was half done.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::{Value, json};

use super::lacking::{killed, killed_at, said};
use super::scene::scene as a_scene;
use super::{MANY, restored};
use crate::common::Place;
use crate::common::strace::can_trace;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").mode() & 0o7777
}

#[test]
fn folders_that_stand_there_get_mode_and_time() {
    let place = Place::empty();
    let (outer, inner) = (place.data.join("memory"), place.data.join("memory/in"));
    fs::create_dir_all(&inner).expect("made");
    let write = |text: &str| ["a", "in/b"].map(|name| fs::write(outer.join(name), text).expect("written"));
    write("first");
    chmod(&outer, 0o700);
    chmod(&inner, 0o550);
    let time = |path: &Path| fs::metadata(path).expect("there").modified().expect("a time");
    let times = [time(&outer), time(&inner)];
    let backup = said(&place.ok(&["backup", "--json"]))["name"].as_str().expect("a name").to_owned();
    let snapshot = said(&place.ok(&["snapshots", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
    let of_snapshot = ["restore", &snapshot, "--in-place", "--yes"];
    let of_backup = ["backup", "restore", &backup, "--yes"];
    for args in [&of_snapshot[..], &of_backup] {
        chmod(&outer, 0o2777);
        chmod(&inner, 0o755);
        write("later");
        fs::write(inner.join("more"), "later").expect("written");
        place.ok(args);
        // A backup has no set-id bits, and takes none.
        let special = if args.len() == of_snapshot.len() && args[0] == "restore" { 0 } else { 0o2000 };
        assert_eq!((mode(&outer), mode(&inner)), (0o700 | special, 0o550), "{args:?}");
        for (path, was) in [&outer, &inner].into_iter().zip(times) {
            let off = was.duration_since(time(path)).expect("cut at most");
            assert!(off.as_micros() < if special == 0 { 1 } else { 1000 }, "{args:?}: {off:?}");
        }
        assert_eq!(fs::read_to_string(inner.join("b")).expect("there"), "first");
    }
    // What was asked for is the file.
    for args in [
        &["restore", &snapshot, "memory/a", "--in-place", "--yes"][..],
        &["backup", "restore", &backup, "--yes", "--only", "memory/a"],
    ] {
        chmod(&outer, 0o770);
        write("later");
        place.ok(args);
        assert_eq!(mode(&outer), 0o770, "{args:?}");
    }
}

#[test]
fn killed_with_a_folder_of_another_mode() {
    let template = a_scene("closed");
    template.live("memory/deep/a", "old");
    template.staged("memory/deep/a", "new");
    for (root, modes) in [(&template.data, [0o755, 0o777]), (&template.origin, [0o550, 0o500])] {
        for (path, mode) in ["memory/deep", "memory"].into_iter().zip(modes) {
            chmod(&root.join(path), mode);
        }
    }
    let new = restored(&template);
    assert_eq!(new["memory"], "folder 500");
    let mut pending = 0;
    for kill in 0..MANY {
        let scene = template.again();
        if !scene.child("replace", kill, false) {
            assert_eq!(scene.state(), new);
            break;
        }
        if scene.is_pending() {
            pending += 1;
            scene.recover().expect("recovered").expect("it was pending");
            assert_eq!(scene.state(), new, "killed at {kill}");
        }
    }
    assert!(pending > 10, "{pending}");
}

/// What was put there, what is to come, and what was as it should be.
#[test]
fn a_mode_that_was_changed_since_is_put_right() {
    if !can_trace() {
        return;
    }
    for by_hand in [true, false] {
        let place = Place::empty();
        let all = ["a", "b", "c", "d", "e", "f", "g", "h", "same"].map(|name| place.data.join(name));
        let put = |text: &str| all[..8].iter().for_each(|path| fs::write(path, text).expect("written"));
        put("first");
        fs::write(&all[8], "same").expect("written");
        for path in &all {
            chmod(path, 0o600);
        }
        let id = said(&place.ok(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
        put("later");
        killed(&place, &["restore", &id, "--in-place", "--yes"]);
        killed_at(&place, &["restore", "--resume", "--yes"], 2);
        let is_new = |path: &&std::path::PathBuf| fs::read_to_string(path).expect("there") == "first";
        assert!((1..8).contains(&all[..8].iter().filter(is_new).count()), "it is half done");
        for path in &all {
            chmod(path, 0o666);
        }
        let run = if by_hand { place.ok(&["restore", "--resume", "--yes", "--json"]) } else { place.ok(&["snapshot"]) };
        let since: Value = if by_hand { said(&run)["written_since"].clone() } else { json!([]) };
        assert_eq!(since, json!([]), "{run:?}");
        assert_eq!(all.iter().map(|path| mode(path)).collect::<Vec<_>>(), [0o600; 9], "{run:?}");
        assert_eq!(all[..8].iter().filter(is_new).count(), 8);
    }
}

/// Two names of one file that were two, with modes of their own: what is set by the one name is set by the other.
#[test]
fn a_second_name_takes_no_mode_of_another_file() {
    let place = Place::empty();
    let at = |name: &str| place.data.join(name);
    let outside = place.folder.path().join("outside");
    let hour = |hour: u64| std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000 + hour * 3600);
    let put = |path: &Path, text: &str, mode: u32, time: std::time::SystemTime| {
        let _ = fs::remove_file(path);
        fs::write(path, text).expect("written");
        fs::File::options().write(true).open(path).expect("opened").set_modified(time).expect("its time");
        chmod(path, mode);
    };
    for (name, text, mode) in [("secret", "x", 0o600), ("public", "x", 0o644), ("mine", "m", 0o600), ("q", "q", 0o644)]
    {
        put(&at(name), text, mode, hour(1));
    }
    put(&at("old"), "y", 0o644, hour(1));
    put(&at("new"), "z", 0o644, hour(2));
    put(&at("one"), "o", 0o640, hour(3));
    fs::hard_link(at("one"), at("two")).expect("linked");
    let id = said(&place.ok(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned();

    let link = |from: &Path, to: &Path| {
        let _ = fs::remove_file(to);
        fs::hard_link(from, to).expect("linked");
    };
    put(&outside, "m", 0o644, hour(1));
    let modes = |names: &[&str]| names.iter().map(|name| mode(&at(name))).collect::<Vec<_>>();
    for start in [0o600, 0o644] {
        put(&at("secret"), "x", start, hour(1));
        link(&at("secret"), &at("public"));
        link(&outside, &at("mine"));
        // Of one the content is to be another, of the other only the time.
        put(&at("new"), "z", 0o644, hour(4));
        link(&at("new"), &at("old"));
        put(&at("one"), "o", 0o600, hour(5));
        link(&at("one"), &at("two"));
        put(&at("q"), "later", 0o644, hour(6));
        let run = place.ok(&["restore", &id, "--in-place", "--yes"]);
        assert_eq!(modes(&["secret", "public", "mine"]), [0o600, 0o644, 0o600], "{start:o}: {run:?}");
        assert_eq!(mode(&outside), 0o644, "it is not restored: {run:?}");
        assert_eq!(fs::read_to_string(at("old")).expect("there"), "y");
        assert_eq!(fs::metadata(at("new")).expect("there").modified().expect("a time"), hour(2));
        assert!(!run.err.contains("kept"), "nobody wrote: {run:?}");
        // Where both are to be the same they may stay one.
        assert_eq!(modes(&["one", "two"]), [0o640; 2]);
        assert_eq!(fs::metadata(at("one")).expect("there").ino(), fs::metadata(at("two")).expect("there").ino());
    }
}

/// A folder has no time in a journal; a file of the first second of 1970 has one.
#[test]
fn a_file_of_1970_is_no_folder() {
    if !can_trace() {
        return;
    }
    for deed in ["folder", "chmod", "no more"] {
        let place = Place::empty();
        let put = |text: &str| {
            for name in ["a", "b", "z"] {
                fs::write(place.data.join(name), text).expect("written");
            }
        };
        put("first");
        let (file, empty) = (place.data.join("f"), place.data.join("e"));
        for (path, text) in [(&file, "text"), (&empty, "")] {
            fs::write(path, text).expect("written");
            let open = fs::File::options().write(true).open(path).expect("opened");
            open.set_modified(std::time::UNIX_EPOCH).expect("its time");
            chmod(path, 0o600);
        }
        let id = said(&place.ok(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned();
        put("later");
        // The time of one is to be put right as well.
        chmod(&empty, 0o640);
        killed(&place, &["restore", &id, "--in-place", "--yes"]);
        for path in [&file, &empty] {
            match deed {
                "chmod" => chmod(path, 0o666),
                _ => fs::remove_file(path).expect("removed"),
            }
            if deed == "folder" {
                fs::create_dir(path).expect("made");
                fs::write(path.join("new"), "since").expect("written");
            }
        }
        let run = place.run(&["restore", "--resume", "--yes", "--json"]);
        if deed == "chmod" {
            assert_eq!((run.code, mode(&file), mode(&empty)), (0, 0o600, 0o600), "{run:?}");
            continue;
        }
        assert_eq!((run.code, &said(&run)["written_since"]), (3, &json!(["e", "f"])), "{deed}: {run:?}");
        assert!(deed != "folder" || mode(&empty) & 0o700 == 0o700, "no file's mode for a folder");
    }
}
