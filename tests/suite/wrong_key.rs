//! With a wrong key, or with none, no command writes anything: not in the store, not among the backups, and not in the
//! data directory. Every command of the program is here, or is said to need no key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use crate::common::{KEY, OTHER_KEY, Run, Thing, assert_equal, bare, days_ago, noise, tree};
use crate::drive_common::{Cloud, store_grant};
use serde_json::Value;

/// What ends with the exit code for a wrong key. `ID` is a snapshot, `GONE` one that was forgotten, `BACKUP` a backup,
/// `DIR` a folder that is not there.
const COMMANDS: &[&[&str]] = &[
    &["snapshot"],
    &["snapshot", "--dry-run"],
    &["snapshots"],
    &["snapshots", "--forgotten"],
    &["forget", "ID"],
    &["forget", "--keep-last", "1"],
    &["forget", "--keep-last", "1", "--dry-run"],
    &["pin", "ID"],
    &["unpin", "ID"],
    &["undelete", "GONE"],
    &["gc"],
    &["gc", "--dry-run"],
    &["ls", "latest"],
    &["cat", "latest", "one"],
    &["diff", "ID", "latest"],
    &["find", "*"],
    &["restore", "ID", "--target", "DIR"],
    &["restore", "ID", "--in-place", "--yes"],
    &["restore", "ID", "--in-place", "--yes", "--without-safety-backup"],
    &["drill"],
    &["export", "latest"],
    &["export", "latest", "--to", "DIR"],
    &["backup"],
    &["backup", "create"],
    &["backup", "verify"],
    &["backup", "restore", "BACKUP", "--yes"],
    &["backup", "restore", "BACKUP", "--yes", "--allow-unsigned"],
    &["backup", "prune"],
    &["backup", "prune", "--days", "1"],
    &["backup", "gdrive", "list"],
    &["backup", "gdrive", "upload"],
    &["backup", "gdrive", "restore", "--yes"],
    &["backup", "gdrive", "prune"],
    &["gdrive", "list"],
    &["gdrive", "push"],
    &["gdrive", "push", "--prune"],
    &["gdrive", "pull"],
    &["check"],
    &["check", "--read-data"],
    &["stats"],
    &["repair"],
    &["repair", "index"],
    &["key", "list"],
    &["key", "add", "--new-vault-key-command", "echo a key that is new"],
    &["key", "rotate", "--new-vault-key-command", "echo a key that is new"],
    &["key", "remove", "00"],
    &["startup", "--app-version", "2"],
];

/// What may end otherwise, since it has something to say without a key; it writes nothing either.
const OTHERS: &[&[&str]] = &[&["backup", "list"], &["status"], &["doctor"], &["auth", "status", "--offline"]];

/// What has nothing to do with a key, or waits for a schedule.
const KEYLESS: [&str; 6] = ["daemon", "notify", "config", "completions", "man", "help"];

fn machine() -> (Cloud, Vec<(&'static str, String)>) {
    let cloud = Cloud::new();
    let data = &cloud.place.data;
    let id = |run: &Run| -> String {
        let said: Value = serde_json::from_str(&run.out).expect("JSON");
        said["snapshot"].as_str().expect("an id").to_owned()
    };
    let mut ids = Vec::new();
    for nth in 0..3 {
        fs::write(data.join("one"), noise(nth, 20_000)).expect("written");
        crate::common::database(&data.join(format!("{nth}.db")), "WAL", 20);
        ids.push(id(&cloud.ok(&["snapshot", "--json"])));
    }
    cloud.ok(&["forget", &ids[1]]);
    cloud.ok(&["startup", "--app-version", "1"]);
    let mut names = Vec::new();
    for nth in 0..3 {
        fs::write(data.join("one"), noise(10 + nth, 20_000)).expect("written");
        let said: Value = serde_json::from_str(&cloud.ok(&["backup", "--json"]).out).expect("JSON");
        names.push(said["name"].as_str().expect("a name").to_owned());
    }
    store_grant(&cloud);
    cloud.ok(&["backup", "gdrive", "upload"]);
    cloud.ok(&["gdrive", "push"]);
    // Old enough to go, by their dates; the newest stays as it is.
    for name in &names[..2] {
        let manifest = data.join("backups").join(name).join("manifest.json");
        let text = fs::read_to_string(&manifest).expect("a manifest");
        let said: Value = serde_json::from_str(&text).expect("JSON");
        let created = said["created_at"].as_str().expect("a time");
        fs::write(&manifest, text.replace(created, &days_ago(100))).expect("written");
    }
    let words = vec![("ID", ids[0].clone()), ("GONE", ids[1].clone()), ("BACKUP", names[2].clone())];
    (cloud, words)
}

#[test]
fn no_command_writes_anything_with_a_wrong_key() {
    let (cloud, mut words) = machine();
    words.push(("DIR", cloud.place.path("new").display().to_string()));
    let all = || -> BTreeMap<PathBuf, Thing> {
        let (data, repo) = (tree(&cloud.place.data), tree(&cloud.place.repo));
        let below = |top: &'static str, all: BTreeMap<PathBuf, Thing>| {
            all.into_iter().map(move |(path, thing)| (PathBuf::from(top).join(path), thing))
        };
        below("data", data).chain(below("repo", repo)).collect()
    };
    let in_drive = || -> BTreeSet<String> { cloud.fake.files().into_iter().map(|file| file.name).collect() };
    let (before, drive_before) = (all(), in_drive());
    for (args, is_refused) in COMMANDS.iter().map(|args| (args, true)).chain(OTHERS.iter().map(|args| (args, false))) {
        let word = |arg: &&str| -> String {
            words.iter().find(|(word, _)| word == arg).map_or_else(|| (*arg).to_owned(), |(_, value)| value.clone())
        };
        let args: Vec<String> = args.iter().map(word).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        for key in [Some(OTHER_KEY), None] {
            let mut command = cloud.command(&args);
            command.env_remove("NODYN_VAULT_KEY");
            if let Some(key) = key {
                command.env("NODYN_VAULT_KEY", key);
            }
            let run = Run::of(command);
            assert!(!is_refused || run.code == 12, "{args:?}, {key:?}: {run:?}");
            assert_equal(&before, &all());
            assert_eq!(drive_before, in_drive(), "{args:?}");
            assert!(!cloud.place.path("new").exists(), "{args:?}");
        }
    }
    // With the right one the same words do something.
    assert_eq!(cloud.place.key, Some(KEY));
    assert!(cloud.ok(&["backup", "prune"]).out.contains("removed"));
}

#[test]
fn every_command_is_asked() {
    let mut help = bare();
    help.arg("--help");
    let help = Run::of(help).out;
    let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list of commands");
    let listed: BTreeSet<&str> = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(listed.len() > 15, "{help}");
    let asked: BTreeSet<&str> = COMMANDS.iter().chain(OTHERS).map(|args| args[0]).chain(KEYLESS).collect();
    let missing: Vec<_> = listed.difference(&asked).collect();
    assert!(missing.is_empty(), "{missing:?} is tried with no wrong key");
}
