//! Data directories that have the same path, as those of two sets of containers have, in one store and one folder of
//! backups: a name keeps them apart, and what concerns one is about that one alone.
//!
//! That two lie at one path is had by exchanging them there: a store cannot tell that from two machines.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::{KEY, Place, Run};
use crate::daemon_common::clock::Clock;
use crate::daemon_common::json_lines;
use serde_json::json;

/// One path, and two data directories that take turns there.
pub struct Turns {
    pub place: Place,
    now: &'static str,
}

impl Turns {
    /// The directory `one` lies there, and `other` beside it; each has its notes, and what `config` makes of its name.
    pub fn new(config: &dyn Fn(&str) -> serde_json::Value) -> Turns {
        let place = Place { key: Some(KEY), ..Place::empty() };
        fs::create_dir(place.path("other")).expect("made");
        for (folder, name) in [(place.data.clone(), "one"), (place.path("other"), "other")] {
            let nbak = config(name);
            let config = json!({"backup_dir": place.path("shared"), "nbak": nbak}).to_string();
            fs::write(folder.join("config.json"), config).expect("written");
            fs::write(folder.join("notes"), name).expect("written");
        }
        Turns { place, now: "one" }
    }

    fn named() -> Turns {
        Turns::new(&|name| json!({"name": name}))
    }

    /// The place, with `who` at the path.
    pub fn at(&mut self, who: &'static str) -> &Place {
        if who != self.now {
            fs::rename(&self.place.data, self.place.path(self.now)).expect("moved away");
            fs::rename(self.place.path(who), &self.place.data).expect("moved there");
            self.now = who;
        }
        &self.place
    }
}

pub fn take(place: &Place, text: &str) -> String {
    fs::write(place.data.join("notes"), text).expect("written");
    id(&place.ok(&["snapshot", "--json"]), "snapshot").expect("an id")
}

pub fn id(run: &Run, which: &str) -> Option<String> {
    json_lines(run)[0][which].as_str().map(str::to_owned)
}

pub fn ids(place: &Place) -> Vec<String> {
    let all = json_lines(&place.ok(&["snapshots", "--json"]));
    all.iter().map(|one| one["snapshot"].as_str().expect("an id").to_owned()).collect()
}

pub fn notes(place: &Place) -> String {
    fs::read_to_string(place.data.join("notes")).expect("read")
}

pub fn refused(run: &Run, code: i32, words: &[&str]) {
    assert!(run.code == code && words.iter().all(|word| run.err.contains(word)), "{words:?}: {run:?}");
}

#[test]
fn names_keep_snapshots_apart() {
    let mut turns = Turns::named();
    let path = turns.place.data.canonicalize().expect("a path").to_str().expect("text").to_owned();
    let first = take(turns.at("one"), "one 1");
    let others = take(turns.at("other"), "other 1");
    let run = turns.at("one").ok(&["snapshot", "--json"]);
    assert_eq!(id(&run, "snapshot"), Some(first.clone()), "nothing changed since its own newest");
    assert_eq!(id(&run, "source"), Some(format!("one:{path}")));
    fs::write(turns.place.data.join("notes"), "one 2").expect("written");
    let run = turns.place.ok(&["snapshot", "--json"]);
    assert_eq!(id(&run, "parent"), Some(first.clone()), "and builds on that");
    let second = id(&run, "snapshot").expect("an id");
    // `latest`, and what goes by it.
    assert_eq!(turns.at("other").ok(&["cat", "latest", "notes"]).out, "other 1");
    assert_eq!(turns.at("one").ok(&["cat", "latest", "notes"]).out, "one 2");
    let status = json_lines(&turns.at("other").ok(&["status", "--json"])).remove(0);
    assert_eq!((&status["snapshots"], &status["other_snapshots"]), (&json!(1), &json!(2)), "{status}");
    fs::write(turns.place.data.join("notes"), "spoilt").expect("written");
    turns.place.ok(&["restore", &others, "--in-place", "--yes"]);
    assert_eq!(notes(&turns.place), "other 1");
    // A policy is one's own.
    let third = take(turns.at("other"), "other 2");
    turns.place.ok(&["forget", "--keep-last", "1"]);
    assert_eq!(ids(&turns.place), [first.clone(), second.clone(), third.clone()]);
    turns.at("one").ok(&["forget", "--keep-last", "1"]);
    assert_eq!(ids(&turns.place), [second, third]);
    // A target in the data directory is known as that, whatever it is called in the store.
    let target = turns.place.data.join("sub");
    let run = turns.place.run(&["restore", "latest", "--overwrite", "--target", target.to_str().expect("text")]);
    refused(&run, 2, &["the target is a data directory", "nothing was changed"]);
}

#[test]
fn names_keep_backups_apart() {
    let mut turns = Turns::named();
    let day = Duration::from_hours(24);
    let mut clock = Clock::new();
    let made = |place: &Place, clock: &Clock| {
        let mut command = place.command(&["backup", "--json"]);
        clock.give(&mut command);
        PathBuf::from(id(&Run::of(command), "path").expect("a path"))
    };
    clock.back(60 * day);
    let mut all = Vec::new();
    for _ in 0..3 {
        let own = made(turns.at("one"), &clock);
        clock.forward(day);
        all.push((own, made(turns.at("other"), &clock)));
        clock.forward(19 * day);
    }
    let manifest = fs::read_to_string(all[0].0.join("manifest.json")).expect("read");
    assert!(manifest.contains("\"one:/"), "{manifest}");
    // The newest is the other's; it is not taken for one's own.
    fs::write(turns.at("one").data.join("notes"), "spoilt").expect("written");
    turns.place.ok(&["backup", "restore", "--yes"]);
    assert_eq!(notes(&turns.place), "one");
    turns.place.ok(&["backup", "prune", "--days", "30"]);
    let there: Vec<(bool, bool)> = all.iter().map(|(one, other)| (one.exists(), other.exists())).collect();
    assert_eq!(there, [(false, true), (false, true), (true, true)]);
}

#[test]
fn the_first_snapshot_under_a_name_says_what_that_means() {
    let mut turns = Turns::new(&|_| json!({}));
    let place = turns.at("one");
    let path = place.data.canonicalize().expect("a path").to_str().expect("text").to_owned();
    let before = [take(place, "1"), take(place, "2"), take(place, "3")];
    let named = |args: &[&str]| {
        let mut command = place.command(args);
        command.env("NBAK_NAME", "web-1");
        Run::of(command)
    };
    // None is of that name yet: nobody's is taken for it.
    for args in [
        &["restore", "latest", "--in-place", "--yes"][..],
        &["restore", "latest", "--target", "/nowhere/to/go"],
        &["cat", "latest", "notes"],
        &["drill"],
        &["forget", "--keep-last", "1"],
    ] {
        refused(&named(args), 2, &["none of this data directory's snapshots", &format!("web-1:{path}"), "by its id"]);
    }
    assert_eq!(ids(place), before);
    let run = named(&["snapshot"]);
    let says = format!("known as web-1:{path} from now on");
    assert!(run.code == 0 && run.err.contains(&says) && run.err.contains("forget --of"), "{run:?}");
    fs::write(place.data.join("notes"), "4").expect("written");
    let run = named(&["snapshot"]);
    assert!(run.code == 0 && !run.err.contains("known as"), "{run:?}");
    assert_eq!(named(&["cat", "latest", "notes"]).out, "4");
    // A policy goes over the old ones where it is told to, and over no others.
    refused(&named(&["forget", "--of", "web-2:/d", "--keep-last", "1"]), 2, &["known as web-2:/d", &path]);
    assert_eq!(ids(place).len(), 5);
    let run = named(&["forget", "--of", &path, "--keep-last", "1"]);
    assert!(run.code == 0 && run.out.contains("2 snapshots forgotten, 3 stay"), "{run:?}");
    assert_eq!(ids(place)[0], before[2]);
}

#[test]
fn a_name_that_is_none_removes_nothing_and_loses_no_snapshot() {
    let mut turns = Turns::named();
    let place = turns.at("one");
    fs::create_dir(place.data.join(".nbak-state")).expect("made");
    fs::write(place.data.join(".nbak-state/seen.json"), "").expect("written");
    take(place, "1");
    let config = |nbak: &str| {
        let text = format!(r#"{{"backup_dir": {:?}, "nbak": {nbak}}}"#, place.path("shared"));
        fs::write(place.data.join("config.json"), text).expect("written");
    };
    for bad in [r#"{"name": "a/b"}"#, r#"{"name": "a:b"}"#, r#"{"name": 7}"#, r#"{"name": "bytes"}"#] {
        config(bad);
        fs::write(place.data.join("notes"), bad).expect("written");
        let run = place.ok(&["snapshot", "--json"]);
        assert!(id(&run, "source").expect("a source").starts_with("one:/"), "it is called as it was: {run:?}");
        assert!(run.err.contains("`nbak.name`"), "{run:?}");
        for args in [&["forget", "--keep-last", "1"][..], &["backup", "prune", "--days", "1"]] {
            refused(&place.run(args), 1, &["nothing was changed", "mend `nbak.name`"]);
        }
    }
    assert_eq!(ids(place).len(), 5);
    // So while the file is only half there.
    fs::write(place.data.join("config.json"), "{").expect("written");
    let run = place.ok(&["snapshot", "--json"]);
    assert!(id(&run, "source").expect("a source").starts_with("one:/"), "{run:?}");
    // The environment's counts, and a stranger's file names nobody.
    let project = place.path("project/.nodyn");
    fs::create_dir_all(&project).expect("made");
    fs::write(project.join("config.json"), r#"{"nbak": {"name": "stranger"}}"#).expect("written");
    config(r#"{"name": "one"}"#);
    let shown = |variable: Option<&str>| {
        let mut command = place.command(&["config", "show", "--json"]);
        command.current_dir(place.path("project"));
        if let Some(name) = variable {
            command.env("NBAK_NAME", name);
        }
        json_lines(&Run::of(command)).into_iter().find(|key| key["key"] == "nbak.name").expect("the key")["value"]
            .clone()
    };
    assert_eq!((shown(None), shown(Some("web-1"))), (json!("one"), json!("web-1")));
    assert_eq!(shown(Some("a b")), json!("not known"), "what was meant is not what a lower layer says");
}

/// Cron has none of the variables that a container has, and a restore may bring a configuration from before the name.
#[test]
fn a_name_that_is_not_said_any_more_counts() {
    let mut turns = Turns::new(&|_| json!({}));
    for who in ["one", "other"] {
        fs::create_dir(turns.at(who).data.join(".nbak-state")).expect("made");
        fs::write(turns.place.data.join(".nbak-state/seen.json"), "").expect("written");
    }
    let named = |place: &Place, args: &[&str]| {
        let mut command = place.command(args);
        command.env("NBAK_NAME", "web-1");
        let run = Run::of(command);
        assert_eq!(run.code, 0, "{run:?}");
    };
    fs::write(turns.at("one").data.join("notes"), "one 1").expect("written");
    named(&turns.place, &["snapshot"]);
    take(turns.at("other"), "other 1");
    take(&turns.place, "other 2");
    let there = ids(&turns.place);
    let run = turns.at("one").run(&["forget", "--keep-last", "1"]);
    assert!(run.code == 0 && run.err.contains("was called web-1") && run.err.contains("NBAK_NAME"), "{run:?}");
    assert_eq!(ids(&turns.place), there, "its own only one stays, and the other's");
    fs::write(turns.place.data.join("notes"), "spoilt").expect("written");
    turns.place.ok(&["restore", "latest", "--in-place", "--yes"]);
    assert_eq!(notes(&turns.place), "one 1");
    // Until it is said that there is none.
    fs::write(turns.place.data.join("config.json"), r#"{"nbak": {"name": ""}}"#).expect("written");
    let run = turns.place.ok(&["snapshot", "--json"]);
    assert!(id(&run, "source").expect("a source").starts_with('/') && !run.err.contains("was called"), "{run:?}");
}
