//! What a person says that a directory was before, and what counts for backups of that: never what another of the same
//! path made that lives beside it, whether a store knows of it or backups alone do.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::common::{KEY, Place, Run};
use crate::daemon_common::clock::Clock;
use crate::named::{Turns, id, ids, refused, take};

const DAY: Duration = Duration::from_hours(24);

/// Each of the two has a store of its own; their backups lie in one folder.
fn run(turns: &mut Turns, who: &'static str, clock: Option<&Clock>, args: &[&str]) -> Run {
    let place = turns.at(who);
    let mut command = place.command(args);
    command.env("NBAK_REPO", place.path(&format!("store-{who}")));
    if let Some(clock) = clock {
        clock.give(&mut command);
    }
    let run = Run::of(command);
    assert_eq!(run.code, 0, "{run:?}");
    run
}

/// A backup of something new, at the time of `clock`.
fn made(turns: &mut Turns, who: &'static str, clock: &Clock) -> PathBuf {
    let text = format!("{who} {:?}", std::time::Instant::now());
    fs::write(turns.at(who).data.join("notes"), text).expect("written");
    PathBuf::from(id(&run(turns, who, Some(clock), &["backup", "--json"]), "path").expect("a path"))
}

fn is_there(paths: &[PathBuf]) -> Vec<bool> {
    paths.iter().map(|path| path.exists()).collect()
}

/// The two live beside each other, and no store knows both.
#[test]
fn a_neighbour_that_backups_alone_tell_of_keeps_them() {
    let mut turns = Turns::new(&|_| json!({}));
    let mut clock = Clock::new();
    clock.back(60 * DAY);
    let old = ["one", "other"].map(|who| made(&mut turns, who, &clock));
    clock.forward(61 * DAY);
    let _ = ["one", "other"].map(|who| made(&mut turns, who, &clock));
    let prune = ["backup", "prune", "--days", "30", "--as-one"];
    let said = run(&mut turns, "one", Some(&clock), &prune);
    assert_eq!(is_there(&old), [false, true], "{said:?}");
    assert!(said.err.contains("1 backup stays") && said.err.contains("lives or lived beside"), "{said:?}");
    // Who says which it was, says it with a snapshot; and what the application makes may be of either.
    let said = run(&mut turns, "one", None, &["forget", "--as-one"]);
    assert!(said.out.contains("nothing is known"), "{said:?}");
    run(&mut turns, "one", Some(&clock), &prune);
    assert!(old[1].exists());
}

/// What a person said counts for what was made by then. Who goes on was not this one: then nothing of it goes.
#[test]
fn a_word_ends_when_the_other_goes_on() {
    for own_stores in [true, false] {
        let mut turns = Turns::new(&|_| json!({}));
        let by = |turns: &mut Turns, who: &'static str, clock: &Clock, args: &[&str]| {
            if own_stores {
                return run(turns, who, Some(clock), args);
            }
            let mut command = turns.at(who).command(args);
            clock.give(&mut command);
            let run = Run::of(command);
            assert_eq!(run.code, 0, "{run:?}");
            run
        };
        let backup = |turns: &mut Turns, who: &'static str, clock: &Clock| {
            fs::write(turns.at(who).data.join("notes"), format!("{who} {:?}", std::time::Instant::now())).expect("put");
            PathBuf::from(id(&by(turns, who, clock, &["backup", "--json"]), "path").expect("a path"))
        };
        let mut clock = Clock::new();
        clock.back(60 * DAY);
        let old = [backup(&mut turns, "other", &clock)];
        clock.forward(60 * DAY);
        by(&mut turns, "one", &clock, &["snapshot"]);
        let said = by(&mut turns, "one", &clock, &["forget", "--as-one"]);
        assert!(said.out.contains("1 other data directory"), "{said:?}");
        // A copy of the state is what a backup of files puts back.
        let state = turns.place.data.join(".nbak-state/seen.json");
        let word = fs::read(&state).expect("there");
        clock.forward(Duration::from_hours(1));
        let later = backup(&mut turns, "other", &clock);
        for rounds in 0..3 {
            clock.forward(40 * DAY);
            let prune = by(&mut turns, "one", &clock, &["backup", "prune", "--days", "30"]);
            assert!(is_there(&old) == [true] && later.exists(), "{own_stores}, {rounds}: {prune:?}");
            assert!(prune.err.contains("2 backups stay"), "{prune:?}");
            if rounds == 1 {
                by(&mut turns, "one", &clock, &["snapshot"]);
            }
            fs::write(&state, &word).expect("put back");
        }
        // Its name is asked for, and said with a backup.
        let name = later.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
        by(&mut turns, "one", &clock, &["backup", "prune", "--days", "30", "--as-one-with", &name]);
        assert!(!old[0].exists());
    }
}

/// The store knows of the other, and its backups do not say whose they are.
#[test]
fn what_the_application_of_a_neighbour_made_stays() {
    let mut turns = Turns::new(&|_| json!({}));
    let mut clock = Clock::new();
    clock.back(60 * DAY);
    let mut command = turns.at("other").command(&["backup", "--json"]);
    clock.give(&mut command);
    let old = PathBuf::from(id(&Run::of(command), "path").expect("a path"));
    let manifest = old.join("manifest.json");
    let mut said: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).expect("read")).expect("JSON");
    said.as_object_mut().expect("an object").remove("nbak");
    fs::write(&manifest, serde_json::to_vec(&said).expect("JSON")).expect("written");
    for round in 1..=2 {
        for who in ["one", "other"] {
            take(turns.at(who), &format!("{who} {round}"));
        }
    }
    turns.at("one").ok(&["backup"]);
    for more in [&[][..], &["--as-one"]] {
        let run = turns.place.ok(&[&["backup", "prune", "--days", "30"], more].concat());
        assert!(old.exists() && run.err.contains("1 backup stays"), "{run:?}");
    }
}

/// Where the store is away nobody says who lives beside this one; and what backups show counts for snapshots, too.
#[test]
fn what_is_not_known_is_not_taken_for_nothing() {
    let mut turns = Turns::new(&|_| json!({}));
    let mut clock = Clock::new();
    clock.back(60 * DAY);
    let old = made(&mut turns, "other", &clock);
    take(turns.at("other"), "other 1");
    clock.forward(60 * DAY);
    take(turns.at("one"), "one 1");
    turns.place.ok(&["backup"]);
    let prune = ["backup", "prune", "--days", "30", "--as-one"];
    let mut command = turns.place.command(&prune);
    command.env("NBAK_REPO", turns.place.path("not mounted"));
    let run = Run::of(command);
    assert!(run.code != 0 && old.exists() && run.err.contains("--as-one asks the store"), "{run:?}");
    // It has a store of its own by now, and shares the folder of backups.
    made(&mut turns, "other", &clock);
    let run = turns.at("one").ok(&["forget", "--as-one"]);
    assert!(run.out.contains("nothing is known") && run.err.contains("made backups since"), "{run:?}");
    let run = turns.place.ok(&["forget", "--as-one", "--keep-last", "1", "--dry-run"]);
    assert!(run.err.contains("made backups since") && run.out.contains("0 snapshots would be"), "{run:?}");
    turns.place.ok(&["backup", "prune", "--days", "30"]);
    assert!(old.exists());
    // What backups say cannot be read: what the store says can be said.
    let shared = turns.place.path("shared");
    fs::rename(&shared, turns.place.path("aside")).expect("moved away");
    fs::write(&shared, "no folder").expect("written");
    let run = turns.place.ok(&["forget", "--as-one"]);
    assert!(run.out.contains("1 other data directory") && run.err.contains("is not known"), "{run:?}");
}

/// A name is given as advised, and what was made before that is not another's: a neighbour that comes has none.
#[test]
fn what_was_made_under_a_name_shows_who_lives() {
    let mut turns = Turns::new(&|_| json!({}));
    let mut clock = Clock::new();
    clock.back(60 * DAY);
    let old = made(&mut turns, "one", &clock);
    clock.forward(60 * DAY);
    let mut command = turns.at("one").command(&["backup"]);
    command.env("NBAK_NAME", "web-1").env("NBAK_REPO", turns.place.path("store-one"));
    assert_eq!(Run::of(command).code, 0);
    made(&mut turns, "other", &clock);
    run(&mut turns, "other", None, &["backup", "prune", "--days", "30", "--as-one"]);
    assert!(old.exists());
}

/// What is printed can be typed, and never names the one that lives.
#[test]
fn no_words_name_a_snapshot_of_a_neighbour_to_type() {
    let mut turns = Turns::new(&|_| json!({}));
    for round in 1..=2 {
        for who in ["one", "other"] {
            take(turns.at(who), &format!("{who} {round}"));
        }
    }
    let old = turns.at("one").data.canonicalize().expect("a path");
    fs::rename(&turns.place.data, turns.place.path("gone")).expect("moved away");
    fs::create_dir(&turns.place.data).expect("made");
    take(&turns.place, "one, made anew");
    let mut clock = Clock::new();
    for days in [0, 9] {
        clock.forward(days * DAY);
        for args in [&["forget", "--keep-last", "9"][..], &["doctor"]] {
            let mut command = turns.place.command(args);
            clock.give(&mut command);
            let run = Run::of(command);
            let said = format!("{}{}", run.out, run.err);
            assert!(said.contains("--as-one-with SNAPSHOT") && !said.contains("`nbak forget --as-one`"), "{run:?}");
        }
    }
    let run = turns.place.run(&["forget", "--as-one"]);
    refused(&run, 2, &["the newest of each", "--as-one-with SNAPSHOT"]);
    // Of another path it is said beside the policy.
    let elsewhere = Place {
        key: Some(KEY),
        data: turns.place.path("elsewhere"),
        repo: turns.place.path("moved-store"),
        ..Place::empty()
    };
    fs::create_dir(&elsewhere.data).expect("made");
    let before =
        Place { key: Some(KEY), data: turns.place.path("gone"), repo: elsewhere.repo.clone(), ..Place::empty() };
    take(&before, "before");
    take(&elsewhere, "after");
    let known_as = before.data.canonicalize().expect("a path");
    let of = ["forget", "--of", known_as.to_str().expect("UTF-8"), "--keep-last", "1"];
    let run = elsewhere.run(&of);
    assert!(run.code == 2 && run.err.contains("--as-one goes over them"), "{run:?}");
    assert_eq!(elsewhere.run(&[&of[..], &["--as-one"]].concat()).code, 0);
    drop(old);
}

/// Both lay there before this one, and beside each other: one of them may go on elsewhere.
#[test]
fn of_two_that_lived_beside_each_other_neither_is_taken() {
    let mut turns = Turns::new(&|_| json!({}));
    let mut clock = Clock::new();
    let old: Vec<PathBuf> = [90, 80, 70, 60]
        .into_iter()
        .zip(["one", "other", "one", "other"])
        .map(|(days, who)| {
            clock.back(days * DAY);
            let made = made(&mut turns, who, &clock);
            clock.forward(days * DAY);
            made
        })
        .collect();
    let place = turns.at("one");
    fs::rename(&place.data, place.path("gone")).expect("moved away");
    fs::create_dir(&turns.place.data).expect("made");
    let config = json!({"backup_dir": turns.place.path("shared")}).to_string();
    fs::write(turns.place.data.join("config.json"), config).expect("written");
    let third = |args: &[&str]| {
        let mut command = turns.place.command(args);
        command.env("NBAK_REPO", turns.place.path("store-third"));
        Run::of(command)
    };
    assert_eq!(third(&["backup"]).code, 0);
    let said = third(&["backup", "prune", "--days", "30", "--as-one"]);
    assert!(said.code == 0 && said.err.contains("4 backups stay"), "{said:?}");
    assert_eq!(is_there(&old), [true; 4]);
}

/// A new machine has the backups of the one that is gone, and no store of that: what a person says once counts on, also
/// when the store has no snapshot that shows it.
#[test]
fn what_backups_alone_tell_of_can_be_said_once() {
    let mut turns = Turns::new(&|_| json!({}));
    let mut clock = Clock::new();
    clock.back(60 * DAY);
    let old = made(&mut turns, "one", &clock);
    clock.forward(10 * DAY);
    let later = made(&mut turns, "one", &clock);
    let place = turns.at("one");
    fs::rename(&place.data, place.path("gone")).expect("moved away");
    fs::create_dir(&turns.place.data).expect("made");
    let config = json!({"backup_dir": turns.place.path("shared")}).to_string();
    fs::write(turns.place.data.join("config.json"), config).expect("written");
    take(&turns.place, "a new machine");
    let prune = || turns.place.ok(&["backup", "prune", "--days", "30"]);
    assert!(prune().err.contains("2 backups stay") && old.exists());
    let said = turns.place.ok(&["forget", "--as-one"]);
    assert!(said.out.contains("1 other data directory") && said.err.is_empty(), "{said:?}");
    turns.place.ok(&["backup"]);
    let said = prune();
    assert!(!old.exists() && !later.exists() && !said.err.contains("stay"), "{said:?}");
    assert!(turns.place.ok(&["forget", "--as-one"]).out.contains("nothing is known"));
}

/// What says a path alone may be of the one that has a name of its own and another store.
#[test]
fn what_the_application_made_stays_where_one_with_a_name_has_the_path() {
    let mut turns = Turns::new(&|_| json!({}));
    let mut clock = Clock::new();
    clock.back(60 * DAY);
    let old = made(&mut turns, "one", &clock);
    clock.forward(60 * DAY);
    let manifest = old.join("manifest.json");
    let mut said: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).expect("read")).expect("JSON");
    said.as_object_mut().expect("an object").remove("nbak");
    fs::write(&manifest, serde_json::to_vec(&said).expect("JSON")).expect("written");
    made(&mut turns, "one", &clock);
    let fresh = |turns: &mut Turns| fs::metadata(&turns.at("one").data).expect("there").created().ok();
    assert!(fresh(&mut turns).is_some());
    let mut command = turns.at("other").command(&["backup"]);
    command.env("NBAK_NAME", "web-1").env("NBAK_REPO", turns.place.path("store-other"));
    assert_eq!(Run::of(command).code, 0);
    let prune = ["backup", "prune", "--days", "30"];
    for more in [&[][..], &["--as-one"]] {
        let run = run(&mut turns, "one", None, &[&prune[..], more].concat());
        assert!(old.exists() && run.err.contains("1 backup stays"), "{run:?}");
    }
    let shared: BTreeSet<PathBuf> =
        fs::read_dir(turns.place.path("shared")).expect("read").map(|e| e.expect("one").path()).collect();
    let named = shared
        .iter()
        .find(|path| fs::read_to_string(path.join("manifest.json")).is_ok_and(|text| text.contains("web-1")));
    fs::remove_dir_all(named.expect("there")).expect("removed");
    run(&mut turns, "one", None, &[&prune[..], &["--as-one"]].concat());
    assert!(!old.exists());
}

/// Under another path: what two took that lived beside each other does not go by one policy; each by itself does.
#[test]
fn of_another_path_each_goes_by_itself() {
    let mut turns = Turns::new(&|_| json!({}));
    let mut all = Vec::new();
    for round in 1..=2 {
        for who in ["one", "other"] {
            all.push(take(turns.at(who), &format!("{who} {round}")));
        }
    }
    let old = turns.place.data.canonicalize().expect("a path");
    let place = &turns.place;
    let elsewhere = Place { key: Some(KEY), data: place.path("elsewhere"), repo: place.repo.clone(), ..Place::empty() };
    fs::create_dir(&elsewhere.data).expect("made");
    take(&elsewhere, "a third");
    let forget = |more: &[&str]| {
        let of = ["forget", "--of", old.to_str().expect("UTF-8"), "--keep-last", "1"];
        elsewhere.run(&[&of[..], more].concat())
    };
    refused(&forget(&[]), 2, &["was taken of this data directory", "--as-one-with"]);
    refused(&forget(&["--as-one"]), 2, &["lived beside each other", "--as-one-with"]);
    assert!(all.iter().all(|id| ids(&elsewhere).contains(id)));
    refused(&forget(&["--as-one-with", "latest"]), 2, &["by its id"]);
    let run = forget(&["--as-one-with", &all[0]]);
    assert!(run.code == 0 && ids(&elsewhere).len() == 4 && !ids(&elsewhere).contains(&all[0]), "{run:?}");
    // It was said for that command.
    refused(&forget(&["--as-one"]), 2, &["lived beside each other"]);
    assert_eq!(forget(&["--as-one-with", &all[3]]).code, 0);
    let left: BTreeSet<String> = ids(&elsewhere).into_iter().collect();
    assert!(left.contains(&all[2]) && left.contains(&all[3]) && left.len() == 3, "{left:?}");
}

/// A word has ended: what is restored without a name is no living neighbour's.
#[test]
fn nothing_of_who_went_on_is_restored_without_a_name() {
    let mut turns = Turns::new(&|_| json!({}));
    let mut clock = Clock::new();
    clock.back(3 * DAY);
    made(&mut turns, "other", &clock);
    clock.forward(DAY);
    run(&mut turns, "one", Some(&clock), &["backup"]);
    run(&mut turns, "one", Some(&clock), &["forget", "--as-one"]);
    clock.forward(DAY);
    made(&mut turns, "other", &clock);
    fs::write(turns.at("one").data.join("notes"), "mine").expect("written");
    let mut command = turns.place.command(&["backup", "restore", "--yes"]);
    command.env("NBAK_REPO", turns.place.path("store-one"));
    refused(&Run::of(command), 2, &["was made of another directory", "nothing was changed"]);
    assert_eq!(fs::read_to_string(turns.place.data.join("notes")).expect("read"), "mine");
    // It can be said once more, with one of its backups, and counts on.
    let shared = turns.place.path("shared");
    let mut all: Vec<_> = fs::read_dir(shared).expect("read").map(|one| one.expect("one").file_name()).collect();
    all.retain(|name| !name.to_string_lossy().starts_with('.'));
    all.sort();
    let newest = all.last().expect("one").to_str().expect("UTF-8").to_owned();
    let said = run(&mut turns, "one", None, &["forget", "--as-one"]);
    assert!(said.out.contains("nothing is known") && said.err.contains("--as-one-with BACKUP"), "{said:?}");
    let said = run(&mut turns, "one", None, &["forget", "--as-one-with", &newest]);
    assert!(said.out.contains("1 other data directory"), "{said:?}");
    clock.forward(60 * DAY);
    run(&mut turns, "one", Some(&clock), &["backup", "prune", "--days", "30"]);
    let left = all.iter().filter(|name| turns.place.path("shared").join(name).exists()).count();
    assert_eq!(left, 1, "one of all");
}

/// A disk was away, and cron made a new store there: that knows of nobody, and says nothing of whose a backup is.
#[test]
fn a_store_in_place_of_another_tells_of_no_neighbour() {
    let mut turns = Turns::new(&|_| json!({}));
    let mut clock = Clock::new();
    clock.back(60 * DAY);
    let mut command = turns.at("other").command(&["backup", "--json"]);
    clock.give(&mut command);
    let old = PathBuf::from(id(&Run::of(command), "path").expect("a path"));
    let manifest = old.join("manifest.json");
    let mut said: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).expect("read")).expect("JSON");
    said.as_object_mut().expect("an object").remove("nbak");
    // It is as young as the directory that asks.
    fs::write(&manifest, serde_json::to_vec(&said).expect("JSON")).expect("written");
    take(turns.at("one"), "one 1");
    turns.place.ok(&["repair", "index"]);
    fs::create_dir_all(turns.place.data.join(".nbak-state")).expect("made");
    let _ = fs::File::create_new(turns.place.data.join(".nbak-state/seen.json"));
    take(&turns.place, "one 2");
    fs::rename(&turns.place.repo, turns.place.path("away")).expect("moved away");
    take(&turns.place, "one 3");
    let run = turns.place.run(&["backup", "prune", "--days", "30", "--as-one"]);
    assert!(run.code != 0 && old.exists() && run.err.contains("--as-one asks the store"), "{run:?}");
    turns.place.run(&["backup", "prune", "--days", "30"]);
    assert!(old.exists());
}

/// One got a name, as all words say, and goes on in the same store: it is not what another without one was before.
#[test]
fn who_got_a_name_keeps_what_it_took_before() {
    let mut turns = Turns::new(&|_| json!({}));
    let old: Vec<String> = (1..=3).map(|nth| take(turns.at("other"), &format!("other {nth}"))).collect();
    let named = |turns: &mut Turns, text: &str| {
        fs::write(turns.at("other").data.join("notes"), text).expect("written");
        let mut command = turns.place.command(&["snapshot"]);
        command.env("NBAK_NAME", "web-2");
        assert_eq!(Run::of(command).code, 0);
    };
    named(&mut turns, "other 4");
    take(turns.at("one"), "one 1");
    named(&mut turns, "other 5");
    let run = turns.at("one").ok(&["forget", "--as-one"]);
    assert!(run.out.contains("nothing is known"), "{run:?}");
    turns.place.ok(&["forget", "--as-one", "--keep-last", "1"]);
    assert!(old.iter().all(|id| ids(&turns.place).contains(id)));
    // Nor does a word that was said before it got that name go on.
    let mut turns = Turns::new(&|_| json!({}));
    let old: Vec<String> = (1..=3).map(|nth| take(turns.at("other"), &format!("other {nth}"))).collect();
    take(turns.at("one"), "one 1");
    turns.place.ok(&["forget", "--as-one"]);
    named(&mut turns, "other 4");
    take(turns.at("one"), "one 2");
    turns.place.ok(&["forget", "--keep-last", "1"]);
    assert!(old.iter().all(|id| ids(&turns.place).contains(id)));
}

/// Who has a name is told apart by it, and what it was before is its own by one word, whoever else lies there.
#[test]
fn names_do_not_keep_one_from_what_it_was_before() {
    let mut turns = Turns::new(&|who| json!({"name": if who == "one" { "web-1" } else { "web-2" }}));
    let mut clock = Clock::new();
    clock.back(90 * DAY);
    let mut old = Vec::new();
    for _ in 0..3 {
        old.push(made(&mut turns, "one", &clock));
        clock.forward(DAY);
        made(&mut turns, "other", &clock);
        clock.forward(DAY);
    }
    let place = turns.at("one");
    let gone = place.path("gone");
    fs::rename(&place.data, &gone).expect("moved away");
    fs::create_dir(&place.data).expect("made");
    fs::copy(gone.join("config.json"), place.data.join("config.json")).expect("copied");
    clock.forward(84 * DAY);
    made(&mut turns, "one", &clock);
    let said = run(&mut turns, "one", None, &["forget", "--as-one"]);
    assert!(said.out.contains("1 other data directory") && said.err.is_empty(), "{said:?}");
    run(&mut turns, "one", Some(&clock), &["backup", "prune", "--days", "30"]);
    assert_eq!(is_there(&old), [false; 3]);
}

/// What is gone over by a name is asked for, and the newest of it stays: it may live.
#[test]
fn one_backup_names_whose_are_meant() {
    let mut turns = Turns::new(&|_| json!({}));
    let mut clock = Clock::new();
    clock.back(60 * DAY);
    let own = made(&mut turns, "one", &clock);
    let mut its = Vec::new();
    for _ in 0..3 {
        clock.forward(DAY);
        its.push(made(&mut turns, "other", &clock));
    }
    made(&mut turns, "one", &Clock::new());
    let name = |path: &PathBuf| path.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
    let place = turns.at("one");
    let prune = |name: &str| {
        let mut command = place.command(&["backup", "prune", "--days", "30", "--as-one-with", name]);
        command.env("NBAK_REPO", place.path("store-one"));
        Run::of(command)
    };
    refused(&prune("20990101T000000Z"), 2, &["is no backup here"]);
    refused(&prune(&name(&own)), 2, &["of this very directory"]);
    let run = prune(&name(&its[0]));
    assert!(run.code == 0 && is_there(&its) == [false, false, true], "{run:?}");
}
