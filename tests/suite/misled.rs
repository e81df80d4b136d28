//! What ends with 0 was done, and what is said is so: nothing is removed by what nobody could read, nothing is called
//! empty that was not looked at, and a time has its zone.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::{KEY, OTHER_KEY, Place, Run, bare};
use crate::daemon_common::clock::Clock;
use crate::daemon_common::{Life, daemon};
use serde_json::Value;

fn json(run: &Run) -> Value {
    serde_json::from_str(run.out.trim()).unwrap_or_else(|_| panic!("{run:?}"))
}

fn count(run: &Run) -> usize {
    run.out.lines().count()
}

/// A place whose store and backups lie where they do by themselves: nothing but the configuration says where.
struct Plain(Place);

impl Plain {
    fn new() -> Plain {
        let place = Place { key: Some(KEY), ..Place::empty() };
        let repo = place.data.join("backups/store");
        fs::write(place.data.join("file"), "content").expect("written");
        Plain(Place { repo, ..place })
    }

    fn run(&self, args: &[&str]) -> Run {
        self.with(args, &[])
    }

    fn with(&self, args: &[&str], variables: &[(&str, &str)]) -> Run {
        let mut command = self.0.command(args);
        command.env_remove("NBAK_REPO").envs(variables.iter().copied());
        Run::of(command)
    }

    fn ok(&self, args: &[&str]) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}: {run:?}");
        run
    }

    fn configure(&self, text: &str) {
        fs::write(self.0.data.join("config.json"), text).expect("written");
    }
}

/// The configuration may name another store, or keep more: what is removed then is said by who types it, all of it.
#[test]
fn nothing_is_forgotten_by_a_configuration_that_cannot_be_read() {
    let place = Plain::new();
    for text in ["one", "two", "three"] {
        fs::write(place.0.data.join("file"), text).expect("written");
        place.ok(&["snapshot"]);
    }
    let first = place.ok(&["snapshots"]).out[..8].to_owned();
    for broken in ["{", r#"{"backup_dir": ["/elsewhere"]}"#] {
        place.configure(broken);
        for args in
            [&["forget", "--keep-last", "1"][..], &["forget", &first], &["forget", "--keep-last", "1", "--dry-run"]]
        {
            let run = place.run(args);
            assert!(run.code == 1 && run.out.is_empty(), "{broken}: {run:?}");
            for words in ["config.json", "--repo", "nothing was forgotten"] {
                assert!(run.err.contains(words), "{words}: {run:?}");
            }
        }
        assert_eq!(count(&place.ok(&["snapshots"])), 3, "{broken}");
    }
    // All of it is typed; and the warning does not say that nothing goes.
    let repo = place.0.repo.to_str().expect("text").to_owned();
    let run = place.run(&["--repo", &repo, "forget", &first]);
    assert!(run.code == 0 && run.out.contains("forgot"), "{run:?}");
    // Where the store is known, a policy that is typed is all that counts.
    place.configure(r#"{"nbak": {"keep": {"dayly": 1000}}}"#);
    let run = place.ok(&["forget", "--keep-last", "1"]);
    assert!(
        run.out.contains("1 snapshot forgotten") && run.err.contains("unless `nbak forget` is told which"),
        "{run:?}"
    );
}

#[test]
fn no_backup_is_pruned_by_a_configuration_that_cannot_be_read() {
    let place = Plain::new();
    place.ok(&["backup"]);
    let folder = place.0.data.join("backups");
    let folder = folder.to_str().expect("text");
    place.configure("{");
    for args in [&["backup", "prune"][..], &["backup", "prune", "--dry-run"], &["backup", "gdrive", "prune"]] {
        let run = place.run(args);
        assert!(run.code == 1 && run.out.is_empty(), "{run:?}");
        for words in ["config.json:1", "--days", "nothing was removed"] {
            assert!(run.err.contains(words), "{words}: {run:?}");
        }
    }
    let run = place.run(&["backup", "prune", "--days", "30"]);
    assert!(run.code == 1 && run.err.contains("NBAK_BACKUP_DIR") && run.err.contains("config.json"), "{run:?}");
    // Nor is it known then whether it has a name; who gives one says so.
    let run = place.with(&["backup", "prune", "--days", "30"], &[("NBAK_BACKUP_DIR", folder)]);
    assert!(run.code == 1 && run.err.contains("NBAK_NAME"), "{run:?}");
    let name = ("NBAK_NAME", "web-1");
    let run = place.with(&["backup", "prune", "--days", "30"], &[name, ("NBAK_BACKUP_DIR", folder)]);
    assert!(run.code == 0 && run.out == "no backup is to be removed\n", "{run:?}");
    // A mistake in this alone is named, wherever it is.
    for (text, variables, said) in [
        (r#"{"backup_retention_days": "never"}"#, &[][..], "config.json:1"),
        ("{\n\"backup_retention_day\": 0}", &[], "config.json:2"),
        ("{}", &[("NBAK_BACKUP_RETENTION_DAYS", "x")], "$NBAK_BACKUP_RETENTION_DAYS"),
        ("{}", &[("NBAK_BACKUP_RETENTION", "3")], "$NBAK_BACKUP_RETENTION"),
    ] {
        place.configure(text);
        let run = place.with(&["backup", "prune"], variables);
        let error = run.err.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(run.code == 1 && error.contains(said) && error.contains("--days"), "{text}: {run:?}");
        let run = place.with(&["backup", "prune", "--days", "30"], variables);
        assert_eq!(run.code, 0, "{text}: {run:?}");
    }
}

/// That there is none is said of a place that was looked at.
#[test]
fn nothing_is_called_empty_that_is_not_there() {
    let place = Plain::new();
    let none = place.ok(&["backup", "list"]);
    let folder = place.0.data.join("backups");
    assert!(none.out.is_empty() && none.err.contains(&format!("no backup yet in {}", folder.display())), "{none:?}");
    assert_eq!(place.ok(&["backup", "prune"]).out, "no backup is to be removed\n");
    let nowhere = place.0.path("nowhere");
    let nowhere = nowhere.to_str().expect("text");
    // One that is named, and lies on a disk that is not there.
    for args in [&["backup", "list"][..], &["backup", "list", "--json"], &["backup", "prune"]] {
        let run = place.with(args, &[("NBAK_BACKUP_DIR", nowhere)]);
        assert!(run.code == 1 && run.out.is_empty() && run.err.contains(nowhere), "{run:?}");
        let run = place.run(&[&["--data-dir", nowhere], args].concat());
        assert!(run.code == 1 && run.out.is_empty(), "{run:?}");
        assert!(run.err.contains(&format!("the data directory is not there: {nowhere}")), "{run:?}");
    }
    // Backups that are there are listed all the same: whoever lost the directory looks for them.
    place.ok(&["backup"]);
    let run =
        place.with(&["--data-dir", nowhere, "backup", "list"], &[("NBAK_BACKUP_DIR", folder.to_str().expect("text"))]);
    assert!(run.code == 0 && count(&run) == 1, "{run:?}");
}

/// A clock that is years ahead makes all backups old, and the one that is made by it the newest.
#[test]
fn a_clock_that_is_years_ahead_prunes_nothing() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    let day = Duration::from_hours(24);
    let mut clock = Clock::new();
    let by = |clock: &Clock, args: &[&str]| {
        let mut command = place.command(args);
        clock.give(&mut command);
        let run = Run::of(command);
        assert_eq!(run.code, 0, "{args:?}: {run:?}");
        run
    };
    let made = |clock: &Clock, text: &str| {
        fs::write(place.data.join("file"), text).expect("written");
        PathBuf::from(json(&by(clock, &["backup", "--json"]))["path"].as_str().expect("a path"))
    };
    clock.back(60 * day);
    let old = made(&clock, "one");
    clock.forward(40 * day);
    let mut all = vec![made(&clock, "two")];
    clock.forward(20 * day);
    all.push(made(&clock, "three"));
    clock.forward(1000 * day);
    by(&clock, &["backup", "prune"]);
    assert!(!old.exists() && all.iter().all(|path| path.exists()), "by the time before");
    // As cron does it: a backup, and then that.
    all.push(made(&clock, "four"));
    let run = by(&clock, &["backup", "prune", "--days", "30"]);
    assert!(all.iter().all(|path| path.exists()) && run.err.contains("is the clock right?"), "{run:?}");
    let run = by(&clock, &["backup", "prune", "--dry-run"]);
    assert!(run.out.contains("1020 days old, but in 1000 of them there was no backup"), "{run:?}");
    // If it is, the time that has passed since says so.
    clock.forward(20 * day);
    all.push(made(&clock, "five"));
    by(&clock, &["backup", "prune"]);
    let there: Vec<bool> = all.iter().map(|path| path.exists()).collect();
    assert_eq!(there, [false, true, true, true]);
}

/// With a wrong key there may be any number of what cannot be read.
#[test]
fn what_cannot_be_read_is_not_called_none() {
    let place = Place::taken(Some(KEY));
    let run = place.with_key(Some(OTHER_KEY), &["status"]);
    for line in ["newest snapshot  not known", "newest proof     not known"] {
        assert!(run.out.contains(line), "{line}: {run:?}");
    }
    let status = json(&place.with_key(Some(OTHER_KEY), &["status", "--json"]));
    assert!(status["snapshots"].is_null() && status["newest_snapshot"].is_null(), "{status}");
    assert_eq!(json(&place.ok(&["status", "--json"]))["snapshots"], 1);
    // What it says is the message; and what failed has a next step.
    let doctor = place.with_key(Some(OTHER_KEY), &["doctor"]);
    assert!(doctor.code == 1 && !doctor.out.contains("see the message"), "{doctor:?}");
    assert!(!doctor.out.contains("no snapshot was restored"), "{doctor:?}");
    let state = r#"{"last": {"backup prune": {"at": 5, "failures": 2, "code": 1, "message": "no room"}}}"#;
    fs::create_dir_all(place.data.join(".nbak-state")).expect("made");
    fs::write(place.data.join(".nbak-state/daemon.json"), state).expect("written");
    let doctor = place.run(&["doctor"]).out;
    assert!(doctor.contains("no room") && doctor.contains("try it: `nbak backup prune`"), "{doctor}");
    // Without any there is none.
    let status = Place::filled(Some(KEY)).ok(&["status"]);
    assert!(status.out.contains("newest snapshot  none"), "{status:?}");
    // A folder of backups that is no folder.
    let file = place.path("file");
    fs::write(&file, "no folder").expect("written");
    let mut command = place.command(&["status"]);
    command.env("NBAK_BACKUP_DIR", &file);
    let run = Run::of(command);
    assert!(run.out.contains("newest backup    not known"), "{run:?}");
}

/// What lies in the home directory is the user's own, and no project's that may set something of another directory.
#[test]
fn the_home_directory_is_no_project() {
    let place = Place::empty();
    let home = place.path("home");
    let show = |cwd: &Path| {
        let mut command = bare();
        command.args(["config", "show"]).current_dir(cwd).env("HOME", &home).env("NBAK_DATA_DIR", &place.data);
        Run::of(command)
    };
    for folder in [&home, &place.path("project")] {
        fs::create_dir_all(folder.join(".nodyn")).expect("made");
        fs::write(folder.join(".nodyn/config.json"), r#"{"backup_retention_days": 3}"#).expect("written");
    }
    let run = show(&place.path("project"));
    assert!(run.err.contains("this project says how long"), "{run:?}");
    for cwd in [home.clone(), home.join("../home")] {
        let run = show(&cwd);
        assert!(run.code == 0 && run.err.is_empty() && !run.out.contains(".nodyn/config.json"), "{run:?}");
    }
}

/// For people a time is local, says so, and is one that a command takes; for programs it is UTC.
#[test]
fn a_time_has_its_zone() {
    let place = Place::taken(Some(KEY));
    let zoned = |args: &[&str]| {
        let mut command = place.command(args);
        command.env("TZ", "Asia/Kathmandu");
        Run::of(command)
    };
    let list = zoned(&["snapshots"]);
    let shown: Vec<&str> = list.out.split_whitespace().skip(1).take(2).collect();
    assert!(shown[1].ends_with("+05:45"), "{list:?}");
    let shown = shown.join(" ");
    assert_eq!(place.ok(&["ls", &shown]).out, place.ok(&["ls", "latest"]).out, "{shown}");
    for (args, label) in [(["status"], "newest snapshot"), (["doctor"], "clock")] {
        let run = zoned(&args);
        let line = run.out.lines().find(|line| line.contains(label)).expect("a line");
        assert!(line.contains("+05:45") && !line.contains("Z "), "{line}");
    }
    let json = json(&zoned(&["snapshots", "--json"]));
    assert!(json["started"].as_str().is_some_and(|at| at.ends_with('Z')), "{json}");
}

/// What is told to who can do it.
#[test]
fn hints_are_for_who_reads_them() {
    let place = Place::taken(Some(KEY));
    let life = Life::start(daemon(&place));
    life.says("daemon of");
    let second = Run::of(daemon(&place));
    assert!(second.code == 11 && second.err.contains("has one daemon"), "{second:?}");
    assert!(!second.err.contains("--lock-wait") && second.err.contains("nbak status"), "{second:?}");
    life.end();
    // Another user's key file: a mode is not what is wrong with it.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let env = place.data.join(".env");
    fs::write(&env, format!("NODYN_VAULT_KEY={KEY}\n")).expect("written");
    fs::set_permissions(&env, fs::Permissions::from_mode(0o600)).expect("a mode");
    chown(&env, Some(4711), None).expect("given away");
    let run = place.with_key(None, &["snapshots"]);
    assert!(run.code == 12 && run.err.contains("chown") && !run.err.contains("chmod"), "{run:?}");
}

#[test]
fn a_command_that_is_printed_is_about_what_the_one_that_printed_it_was_about() {
    let place = Place::empty();
    fs::write(place.data.join("note"), "a note").expect("written");
    let (repo, key) = (place.path("the store"), place.path("key"));
    fs::write(&key, KEY).expect("written");
    let typed = |args: &[&str]| {
        let mut command = bare();
        command.env("HOME", place.path("home")).arg("--data-dir").arg(&place.data).arg("--repo").arg(&repo);
        command.arg("--vault-key-file").arg(&key).args(args);
        Run::of(command)
    };
    assert_eq!(typed(&["snapshot"]).code, 0);
    let forgot = typed(&["forget", "latest", "--force"]);
    let id = forgot.out.split_whitespace().nth(1).expect("an id");
    let printed = forgot.out.split('`').find(|part| part.ends_with(" undelete SNAP")).expect("a command");
    let line = printed.replacen("nbak", env!("CARGO_BIN_EXE_nbak"), 1).replace("SNAP", id);
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().env("HOME", place.path("home")).args(["-c", &line]);
    let back = Run::of(shell);
    assert_eq!(back.code, 0, "{line}: {back:?}");
    assert!(typed(&["snapshots"]).out.contains(id), "{line}");
}
