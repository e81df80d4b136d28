//! What the program says and does beside a restore that was killed half way: it takes nothing for well, and puts no
//! old state over what was written since, unless a person asks for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use serde_json::Value;

use super::scene::{self, Opener, Scene, is_half_at, kills, rows, scene as a_scene};
use super::{MANY, beside};
use crate::common::{Run, bare};
use crate::daemon_common::{LONG, Life, text, until};

/// A restore that was killed behind the first of two databases, and where the binary keeps its store.
pub struct Half {
    pub scene: Scene,
    /// What is new already, and what is old still.
    pub done: PathBuf,
    pub left: PathBuf,
}

impl Half {
    pub fn made() -> Half {
        Half::of(&a_scene("closed"), |state| {
            let is_new = |name: &str| state[name].contains("new00");
            is_new("h.db") != is_new("second.db")
        })
    }

    /// Killed where the state is as asked.
    pub fn of(template: &Scene, is_it: impl Fn(&BTreeMap<String, String>) -> bool) -> Half {
        let scene = kills().find_map(|kill| {
            let scene = template.again();
            scene.child("replace", kill, false);
            if !scene.is_pending() {
                return None;
            }
            is_half_at(kill);
            is_it(&scene.state()).then_some(scene)
        });
        let scene = scene.expect("it passes there");
        let is_new = scene.state()["h.db"].contains("new00");
        let (done, left) = if is_new { ("h.db", "second.db") } else { ("second.db", "h.db") };
        let (done, left) = (scene.data.join(done), scene.data.join(left));
        Half { scene, done, left }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = bare();
        let repo = self.scene.data.with_file_name("repo");
        command.env("NBAK_DATA_DIR", &self.scene.data).env("NBAK_REPO", repo).args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command(args))
    }

    pub fn json(&self, args: &[&str]) -> (i32, Vec<Value>) {
        let run = self.run(&[args, &["--json"]].concat());
        (run.code, run.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
    }

    pub fn doctor(&self) -> Vec<(String, String)> {
        let text = |one: &Value, name: &str| one[name].as_str().expect("text").to_owned();
        let (_, all) = self.json(&["doctor"]);
        let all = all.iter().filter(|one| one["subject"] == "restore" || one["subject"] == "leftovers");
        all.map(|one| (text(one, "level"), text(one, "text"))).collect()
    }

    /// What the application would find.
    pub fn live(&self) -> BTreeMap<String, String> {
        let mut state = self.scene.state();
        state.retain(|path, _| !path.starts_with("backups"));
        state
    }

    /// What is in the newest snapshot of the database at `live`.
    fn captured(&self, live: &Path) -> String {
        let name = live.file_name().expect("a name").to_str().expect("text");
        let target = tempfile::TempDir::new().expect("a folder");
        let to = target.path().join("to");
        let run = self.run(&["restore", "latest", name, "--target", to.to_str().expect("text")]);
        assert!(run.code == 0 || run.code == 3 && run.err.contains("side by side"), "{run:?}");
        rows(&to.join(name)).expect("it opens")
    }
}

fn commit(database: &Path, row: &str) {
    let conn = Connection::open(database).expect("opened");
    scene::insert(&conn, row, 1);
}

#[test]
fn commands_that_look_say_it_and_finish_nothing() {
    let half = Half::made();
    let before = half.scene.bytes();
    for args in [&["doctor"][..], &["status"], &["config", "show"], &["backup", "list"], &["snapshot", "--dry-run"]] {
        let run = half.run(args);
        assert!(run.err.contains("half done") && run.err.contains("--resume"), "{args:?}: {run:?}");
        assert!(half.scene.is_pending(), "{args:?} finished it");
    }
    assert_eq!(half.run(&["doctor"]).code, 1);
    let [(level, text)] = &half.doctor()[..] else { panic!("{:?}", half.doctor()) };
    assert!(level == "bad" && text.contains("half done"), "{level}: {text}");
    let (code, status) = half.json(&["status"]);
    assert_eq!((code, &status[0]["pending_restore"]["written_since"]), (0, &serde_json::json!([])));
    assert!(half.run(&["status"]).out.contains("restore          a restore in place of snapshot 1a2b3c4d, begun at "));
    assert_eq!(half.scene.bytes(), before);
}

#[test]
fn where_nobody_wrote_the_next_one_that_may_write_finishes_it() {
    for args in [&["snapshot"][..], &["backup"], &["restore", "--resume", "--yes"]] {
        let half = Half::made();
        let run = half.run(args);
        assert_eq!(run.code, 0, "{args:?}: {run:?}");
        assert!(!half.scene.is_pending(), "{args:?}");
        assert!(half.scene.state()["h.db"].contains("new00") && half.scene.state()["second.db"].contains("new00"));
        assert!(half.doctor().is_empty(), "{:?}", half.doctor());
        assert_eq!(half.json(&["status"]).1[0]["pending_restore"], Value::Null);
    }
}

/// Whoever finishes it says what was asked for and is not there.
#[test]
fn what_was_left_out_is_named_by_the_one_that_finishes_it() {
    let template = a_scene("closed");
    template.staged(".env", "another key");
    let is_half =
        |state: &BTreeMap<String, String>| state["h.db"].contains("new00") != state["second.db"].contains("new00");
    let half = Half::of(&template, is_half);
    let (code, said) = half.json(&["restore", "--resume", "--yes"]);
    assert_eq!((code, &said[0]["skipped"]), (3, &serde_json::json!([".env"])), "{said:?}");
    let half = Half::of(&template, is_half);
    let run = half.run(&["snapshot"]);
    assert!(run.code == 0 && run.err.contains("not restored, and left as it is: .env"), "{run:?}");
}

#[test]
fn while_a_program_has_the_rest_open_a_snapshot_is_no_plain_success() {
    let half = Half::made();
    let opener = Opener::of(&half.left);
    for args in [&["snapshot"][..], &["backup"]] {
        let (code, said) = half.json(args);
        assert_eq!(code, 3, "{args:?}");
        assert!(said[0]["pending_restore"].as_str().is_some_and(|text| text.contains("half done")), "{said:?}");
    }
    drop(opener);
    assert_eq!(half.run(&["snapshot"]).code, 0);
    assert!(!half.scene.is_pending());
}

/// The application worked on for days, and is stopped for a moment when cron's snapshot comes.
#[test]
fn what_was_written_since_is_neither_replaced_nor_lost() {
    for is_in_what_is_done in [false, true] {
        let half = Half::made();
        let at = if is_in_what_is_done { &half.done } else { &half.left };
        commit(at, "since");
        let before = half.live();
        for args in [&["snapshot"][..], &["backup"]] {
            let run = half.run(args);
            assert_eq!(run.code, 3, "{args:?}: {run:?}");
            for word in [at.to_str().expect("text"), "half done", "--resume", "--abandon"] {
                assert!(run.err.contains(word), "{word}: {run:?}");
            }
            assert_eq!(half.live(), before, "{args:?}");
            assert!(half.captured(at).contains("since00"), "{args:?}");
        }
        let run = half.run(&["restore", "latest", "--in-place", "--yes"]);
        assert!(run.code == 1 && run.err.contains("--resume"), "{run:?}");
        assert_eq!(half.live(), before);
        let since = &half.json(&["status"]).1[0]["pending_restore"]["written_since"];
        assert_eq!(since[0].as_str(), at.file_name().and_then(std::ffi::OsStr::to_str), "{since}");

        let run = half.run(&["restore", "--resume", "--yes"]);
        assert_eq!(run.code, if is_in_what_is_done { 3 } else { 0 }, "{run:?}");
        assert!(half.scene.state()["h.db"].contains("new00") && half.scene.state()["second.db"].contains("new00"));
        let [kept] = &half.scene.kept()[..] else { panic!("{:?}", half.scene.kept()) };
        let name = at.file_name().expect("a name");
        let other = if is_in_what_is_done { at.clone() } else { kept.join(name) };
        assert!(rows(&other).expect("it opens").contains("since00"), "{}", other.display());
        let [(level, text)] = &half.doctor()[..] else { panic!("{:?}", half.doctor()) };
        assert!(level == "note" && text.contains(kept.to_str().expect("text")), "{text}");
        assert_eq!(half.json(&["status"]).1[0]["kept_by_restores"][0].as_str(), kept.to_str());
        fs::remove_dir_all(kept).expect("removed");
        assert!(half.doctor().is_empty());
    }
}

/// To a data directory; with what is to stay open.
type Deed = fn(&Path) -> Option<Connection>;

/// In a log that is not written back yet, in a file that appears, below a folder that is to go, beside a graph.
#[test]
fn what_has_no_stamp_of_its_own_counts_too() {
    let template = a_scene("closed");
    template.live("x/old", "old");
    template.staged("x", "a file now");
    let is_early = |state: &BTreeMap<String, String>| {
        state["second.db"].contains("old00") && state["h.db"].contains("old00") && state.contains_key("x/old")
    };
    let write = |path: PathBuf| fs::write(path, "since").expect("written");
    let deeds: [(&str, Deed); 4] = [
        ("h.db", |data| {
            let conn = Connection::open(data.join("h.db")).expect("opened");
            conn.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).expect("set");
            scene::insert(&conn, "since", 1);
            Some(conn)
        }),
        ("x/new", |data| {
            fs::write(data.join("x/new"), "since").expect("written");
            None
        }),
        ("x/old", |data| {
            fs::write(data.join("x/old"), "since").expect("written");
            None
        }),
        ("knowledge-graph.wal", |data| {
            fs::write(data.join("knowledge-graph.wal"), "since").expect("written");
            None
        }),
    ];
    for (path, deed) in deeds {
        let half = Half::of(&template, is_early);
        let conn = deed(&half.scene.data);
        let run = half.run(&["snapshot"]);
        assert!(run.code == 3 && run.err.contains(&format!("written since: {path}")), "{path}: {run:?}");
        drop(conn);
        assert!(half.scene.is_pending());
    }
    // A reader's leavings are nobody's.
    let half = Half::of(&template, is_early);
    write(beside(&half.scene.data.join("h.db"), "-wal"));
    fs::write(beside(&half.scene.data.join("h.db"), "-wal"), "").expect("written");
    let run = half.run(&["snapshot"]);
    assert!(run.code == 0 && !half.scene.is_pending(), "{run:?}");
}

/// An older version noted less: what it did not note counts as written, and what it did is enough for the rest.
#[test]
fn a_journal_of_an_older_version_is_read() {
    for is_written in [false, true] {
        let half = Half::made();
        let path = half.scene.data.join(".nbak-restore/intent");
        let text = fs::read_to_string(&path).expect("read");
        let mut intent: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        for later in ["standing", "same", "stayed"] {
            intent.as_object_mut().expect("an object").remove(later).expect("there");
        }
        for touch in intent["touch"].as_array_mut().expect("a list") {
            touch.as_object_mut().expect("an object").remove("live").expect("there");
        }
        let line = intent.to_string();
        fs::write(&path, format!("{line}\n{}\n", blake3::hash(line.as_bytes()).to_hex())).expect("written");
        if is_written {
            commit(&half.left, "since");
        }
        let run = half.run(&["snapshot"]);
        assert_eq!((run.code, half.scene.is_pending()), if is_written { (3, true) } else { (0, false) }, "{run:?}");
    }
}

/// All stands in place, and the machine died while it was compared: nothing live is to be moved any more.
#[test]
fn what_was_written_to_a_restore_that_was_done_is_in_nobodys_way() {
    let template = a_scene("closed");
    let half = Half::of(&template, |state| *state == super::restored(&template) && state["notes.txt"] == "new notes");
    commit(&half.scene.data.join("h.db"), "since");
    let run = half.run(&["snapshot"]);
    assert!(run.code == 0 && !half.scene.is_pending(), "{run:?}");
    assert!(half.scene.state()["h.db"].contains("since00"));
}

#[test]
fn a_daemon_tells_of_it_until_it_is_over() {
    let half = Half::made();
    let place = |name: &str| half.scene.data.with_file_name(name);
    let (told, metrics) = (place("told"), place("metrics"));
    let notify = format!("echo $NBAK_EVENT >> {}; cat >> {}", told.display(), place("texts").display());
    let config = serde_json::json!({"nbak": {
        "backup_schedule": "0 0 1 1 *", "drill": "never", "metrics_file": metrics.to_str(),
        "notify": [{"kind": "command", "command": notify}],
    }});
    fs::write(half.scene.data.join("config.json"), config.to_string()).expect("written");
    for (event, pending) in [("snapshot_failed", "1"), ("recovered", "0")] {
        let life = Life::start(half.command(&["daemon"]));
        until(LONG, "it is told", || text(&told).lines().last() == Some(event));
        until(LONG, "it is measured", || text(&metrics).contains(&format!("nbak_restore_pending {pending}\n")));
        assert!(text(&place("texts")).contains("half done"), "{}", life.log());
        life.end();
        assert_eq!(half.scene.is_pending(), pending == "1", "a daemon that only looks finishes none");
        if pending == "1" {
            half.scene.child("recover", MANY, false);
        }
    }
}

#[test]
fn one_that_is_given_up_leaves_what_is_live_and_keeps_what_was_replaced() {
    let half = Half::made();
    commit(&half.left, "since");
    let before = half.live();
    let run = half.run(&["restore", "--abandon"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(half.live(), before);
    let [kept] = &half.scene.kept()[..] else { panic!("{:?}", half.scene.kept()) };
    assert!(run.out.contains(kept.to_str().expect("text")), "{run:?}");
    let old = rows(&kept.join(half.done.file_name().expect("a name"))).expect("it opens");
    assert!(old.contains("old00"), "{old}");
    assert!(!half.scene.data.join(".nbak-restore").exists());
    assert_eq!(half.run(&["snapshot"]).code, 0);
    for args in [&["restore", "--abandon"][..], &["restore", "--resume", "--yes"]] {
        let run = half.run(args);
        assert!(run.code == 1 && run.err.contains("no interrupted restore"), "{run:?}");
    }
    // What it was about is asked for by a person.
    let half = Half::made();
    let run = half.run(&["restore", "--resume"]);
    assert!(run.code == 2 && half.scene.is_pending(), "{run:?}");
}
