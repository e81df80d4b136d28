//! A restore that is given up half way, and the giving up is killed too: nobody turns it into its opposite. What was
//! live stays, what was replaced is kept, and who comes next says what it does.

use std::collections::BTreeMap;
use std::fs;

use nbak::export::inplace::{Ended, abandon, recover, recover_untouched};
use nbak::snapshot::progress::Silent;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::MANY;
use super::interrupted::Half;
use super::scene::{Opener, SAFETY, Scene, insert, is_half_at, kills, scene as a_scene, state};

/// What the application would find in what is kept.
fn kept(scene: &Scene) -> BTreeMap<String, String> {
    let all = scene.kept();
    assert!(all.len() < 2, "it is kept in one place: {all:?}");
    all.first().map(|kept| state(kept)).unwrap_or_default()
}

fn is_given_up(scene: &Scene) -> bool {
    scene.data.join(".nbak-restore/given-up").exists()
}

/// Kills a restore at every third step, gives it up, and kills that at every step.
fn every_kill_of_giving_up(state: &str) {
    let template = a_scene(state);
    template.live("x/old", "old");
    template.staged("x", "a file now");
    let (mut begun, mut killed) = (0, 0);
    for kill in 0..MANY {
        let reference = template.again();
        reference.child("replace", kill, false);
        if !reference.is_pending() {
            continue;
        }
        begun += 1;
        if begun % 3 != 1 {
            continue;
        }
        let live = reference.state();
        abandon(&reference.data, &Silent).expect("given up").expect("it was pending");
        assert_eq!(reference.state(), live, "{state}: killed at {kill}");
        let expected = kept(&reference);
        for again in 0.. {
            let scene = template.again();
            assert!(scene.child("replace", kill, false));
            if !scene.child("abandon", again, false) {
                break;
            }
            let what = format!("{state}: killed at {kill}, and while it was given up at {again}");
            assert_eq!(scene.state(), live, "{what}");
            assert!(is_given_up(&scene) || !scene.is_pending(), "{what}: nothing says so");
            if scene.is_pending() {
                let error = recover(&scene.data, &Silent).expect_err("refused").to_string();
                assert!(error.contains("given up") && error.contains("--abandon"), "{what}: {error}");
            }
            if again % 2 == 0 {
                let ended = recover_untouched(&scene.data, &Silent).expect("the next command that may write");
                assert!(matches!(ended, None | Some(Ended::GivenUp(_))), "{what}: {ended:?}");
            } else {
                abandon(&scene.data, &Silent).expect("asked for again");
                recover_untouched(&scene.data, &Silent).expect("what is left is swept");
            }
            killed += 1;
            assert_eq!(scene.state(), live, "{what}");
            assert_eq!(kept(&scene), expected, "{what}");
            assert!(!scene.data.join(".nbak-restore").exists(), "{what}");
        }
    }
    assert!(begun > 5 && killed > 15, "{state}: {begun} and {killed} are too few to mean anything");
}

#[test]
fn killed_while_it_is_given_up() {
    every_kill_of_giving_up("closed");
}

#[test]
fn killed_while_it_is_given_up_with_a_malformed_database() {
    every_kill_of_giving_up("malformed");
}

/// One whose giving up was killed before the last step but a few.
fn half_given_up() -> Half {
    let half = Half::made();
    assert!(half.scene.child("abandon", 1, false) && half.scene.is_pending() && is_given_up(&half.scene));
    half
}

#[test]
fn what_is_given_up_half_way_is_told_and_brought_to_its_end() {
    let startup = ["startup", "--app-version", "1"];
    for args in [&["snapshot"][..], &["backup"], &startup, &["restore", "--abandon"]] {
        let half = half_given_up();
        fs::write(half.scene.data.join(".last_version"), "1").expect("written");
        let before = half.live();
        for looks in [&["status"][..], &["snapshots"], &["snapshot", "--dry-run"]] {
            let run = half.run(looks);
            assert!(run.err.contains("given up") && !run.err.contains("--resume"), "{looks:?}: {run:?}");
        }
        let [(level, text)] = &half.doctor()[..] else { panic!("{:?}", half.doctor()) };
        assert!(level == "bad" && text.contains("given up"), "{text}");
        assert_eq!(half.json(&["status"]).1[0]["pending_restore"]["given_up"], true);
        let run = half.run(&["restore", "--resume"]);
        assert!(run.code == 1 && run.err.contains("given up") && run.err.contains("--abandon"), "{run:?}");
        assert!(half.scene.is_pending() && half.live() == before);

        let run = half.run(args);
        assert_eq!(run.code, 0, "{args:?}: {run:?}");
        assert_eq!(half.live(), before, "{args:?}");
        let [kept] = &half.scene.kept()[..] else { panic!("{:?}", half.scene.kept()) };
        let said = run.out + &run.err;
        assert!(!said.contains("was finished") && said.contains(kept.to_str().expect("text")), "{args:?}: {said}");
        let name = half.done.file_name().and_then(|name| name.to_str()).expect("text");
        assert!(state(kept)[name].contains("old00"), "{args:?}");
        assert_eq!(half.json(&["status"]).1[0]["pending_restore"], Value::Null);
    }
}

/// A restore into a database that a program has open, killed: what the database says then, and how it is given up.
fn given_up_into_live(kill: i64, since: bool) -> Option<(String, Half, Value)> {
    let template = a_scene("closed");
    let scene = template.again();
    let (done, left) = (scene.data.join("h.db"), scene.data.join("second.db"));
    let mut opener = Opener::of(&done);
    scene.child("replace", kill, true);
    if !scene.is_pending() {
        return None;
    }
    let found = opener.ask();
    if since {
        insert(&Connection::open(&done).expect("opened"), "since", 1);
    }
    let half = Half { scene, done, left };
    let before = half.live();
    let (code, said) = half.json(&["restore", "--abandon"]);
    assert_eq!(half.live(), before, "killed at {kill}");
    let all = |name: &str| said[0][name].as_array().expect("a list").len();
    let expected = if all("written_into") + all("maybe_written_into") > 0 { 3 } else { 0 };
    assert_eq!((code, &said[0]["safety_backup"]), (expected, &json!(SAFETY)), "killed at {kill}: {said:?}");
    Some((found, half, said[0].clone()))
}

#[test]
fn what_was_written_into_a_live_database_is_named_when_it_is_given_up() {
    let (mut old, mut new) = (0, 0);
    for kill in 0..MANY {
        let Some((found, _, said)) = given_up_into_live(kill, false) else {
            if old + new > 0 {
                break;
            }
            continue;
        };
        let is_new = found.contains("new00");
        *if is_new { &mut new } else { &mut old } += 1;
        let expected = if is_new { json!(["h.db"]) } else { json!([]) };
        assert_eq!((&said["written_into"], &said["maybe_written_into"]), (&expected, &json!([])), "killed at {kill}");
        // The program goes on: it is named all the same, and may be named for nothing.
        if kill % 3 == 0 {
            let (found, _, said) = given_up_into_live(kill, true).expect("the same again");
            let named = [&said["written_into"], &said["maybe_written_into"]].contains(&&json!(["h.db"]));
            assert!(named, "killed at {kill}: {found}: {said}");
        }
    }
    assert!(old > 1 && new > 3, "{old} and {new} are too few to mean anything");
}

#[test]
fn where_its_earlier_content_is_is_said() {
    let template = a_scene("closed");
    for noted in [true, false] {
        let half = kills()
            .find_map(|kill| {
                let scene = template.again();
                let (done, left) = (scene.data.join("h.db"), scene.data.join("second.db"));
                let mut opener = Opener::of(&done);
                scene.child("replace", kill, true);
                if scene.is_pending() {
                    is_half_at(kill);
                }
                let is_it = scene.is_pending() && opener.ask().contains("new00");
                is_it.then_some(Half { scene, done, left })
            })
            .expect("it passes there");
        if !noted {
            // An older version did not.
            let path = half.scene.data.join(".nbak-restore/intent");
            let text = fs::read_to_string(&path).expect("read");
            let mut intent: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
            intent.as_object_mut().expect("an object").remove("safety").expect("there");
            let line = intent.to_string();
            fs::write(&path, format!("{line}\n{}\n", blake3::hash(line.as_bytes()).to_hex())).expect("written");
        }
        let run = half.run(&["restore", "--abandon"]);
        assert!(run.code == 3 && run.err.contains("h.db: the restore wrote into it"), "{run:?}");
        let place =
            if noted { " backup restore /backups/the-safety-backup --only h.db`" } else { "`nbak backup list`" };
        assert!(run.err.contains(place), "{run:?}");
        // As it is printed, it is about this data directory.
        let meant = format!("`nbak --data-dir {}", half.scene.data.display());
        assert!(!noted || run.err.contains(&meant) && run.out.contains(&meant), "{run:?}");
        assert!(!run.out.contains("says what it said") && !run.out.contains("replaced nothing"), "{run:?}");
    }
}
