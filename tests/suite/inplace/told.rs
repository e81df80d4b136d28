//! What is said of the safety backup is so: that there is none, what it lacks, and the command that goes back to it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::lacking::{killed, killed_at, killed_by, said};
use crate::common::strace::can_trace;
use crate::common::{Place, Run};

fn write(place: &Place, text: &str) {
    for name in ["b", "c", "d", "e", "f", "g", "h"] {
        fs::write(place.data.join(name), text).expect("written");
    }
}

fn snapshot(place: &Place) -> String {
    said(&place.ok(&["snapshot", "--json"]))["snapshot"].as_str().expect("an id").to_owned()
}

#[test]
fn where_there_is_no_safety_backup_nothing_is_in_it() {
    if !can_trace() {
        return;
    }
    let place = Place::empty();
    write(&place, "first");
    fs::write(place.data.join("zz"), "first").expect("written");
    let id = snapshot(&place);
    let no_folder = place.path("file");
    fs::write(&no_folder, "no folder").expect("written");
    let command = |args: &[&str]| {
        let mut command = place.command(args);
        command.env("NBAK_BACKUP_DIR", no_folder.join("backups"));
        command
    };
    let args = ["restore", &id, "--in-place", "--yes", "--without-safety-backup"];
    for is_killed in [false, true] {
        write(&place, "later");
        fs::remove_file(place.data.join("zz")).expect("removed");
        fs::create_dir(place.data.join("zz")).expect("made");
        fs::write(place.data.join("zz/in"), "later").expect("written");
        let run = if is_killed {
            killed_by(&place, &command(&args));
            Run::of(command(&["restore", "--resume", "--yes"]))
        } else {
            Run::of(command(&args))
        };
        assert_eq!(run.code, 0, "{run:?}");
        assert!(run.err.contains("there is no safety backup: "), "{is_killed}: {run:?}");
        assert!(run.err.contains("zz: a folder stood where a file was restored; what was in it is gone"), "{run:?}");
        assert!(!run.err.contains("is in the safety backup"), "{run:?}");
    }
}

/// A restore that was killed when the first file stood in place, and given up.
fn given_up(place: &Place, id: &str) -> Run {
    killed(place, &["restore", id, "--in-place", "--yes"]);
    killed_at(place, &["restore", "--resume", "--yes"], 2);
    place.ok(&["restore", "--abandon"])
}

#[test]
fn the_way_back_can_be_typed_as_it_is_printed() {
    if !can_trace() {
        return;
    }
    for name in ["it's \"$HOME\" `x", "two\nlines"] {
        let mut place = Place::empty();
        place.data = place.path(name);
        place.repo = place.path("the store");
        fs::create_dir(&place.data).expect("made");
        write(&place, "first");
        let id = snapshot(&place);
        write(&place, "later");
        let run = given_up(&place, &id);
        let text = run.out.clone() + &run.err;
        if name.contains('\n') {
            assert!(!text.contains("`nbak") && text.contains("to restore the backup in"), "{text}");
            continue;
        }
        assert_eq!(fs::read_to_string(place.data.join("b")).expect("there"), "first");
        let end = text.find("` goes back to before it").expect("it is told");
        let typed = text[..end].rsplit_once("`nbak ").expect("a command").1;
        // Between backticks one of its own cannot be told from the end, but by the words after it.
        let typed = text[..end].find("`nbak --data-dir").map_or(typed, |at| &text[at + "`nbak ".len()..end]);
        let mut shell = Command::new("sh");
        let program = env!("CARGO_BIN_EXE_nbak");
        shell.args(["-c", &format!("unset NBAK_DATA_DIR NBAK_REPO; {program} {typed} --yes")]);
        shell.envs(place.command(&["x"]).get_envs().filter_map(|(name, value)| Some((name, value?))));
        let back = Run::of(shell);
        assert_eq!(back.code, 0, "{typed}: {back:?}");
        assert_eq!(fs::read_to_string(place.data.join("b")).expect("there"), "later");
    }
}

#[test]
fn what_the_safety_backup_lacks_is_told_by_who_gives_up() {
    if !can_trace() {
        return;
    }
    let place = Place::empty();
    write(&place, "first");
    let link = place.data.join("a-link");
    let point = |to: &str| {
        let _ = fs::remove_file(&link);
        symlink(to, &link).expect("linked");
    };
    point("first");
    let id = snapshot(&place);
    write(&place, "later");
    point("later");
    let run = given_up(&place, &id);
    assert_eq!(fs::read_link(&link).expect("a link"), Path::new("first"), "it was put in place");
    assert!(run.err.contains("no backup can hold a link") && run.err.contains("a-link"), "{run:?}");
    assert!(run.err.contains("what was replaced by now is kept in") && run.err.contains(".nbak-kept-"), "{run:?}");
    let text = run.out + &run.err;
    assert!(text.contains("goes back to before it, but for what the warning says"), "{text}");
}
