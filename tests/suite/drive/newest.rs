//! Which backup in Google Drive is the newest, whatever clock its date is of; and a pull whose lock becomes another's.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::common::strace::{can_trace, traced};
use crate::common::{Run, noise};
use crate::daemon_common::clock::Clock;
use crate::drive_common::{Cloud, store_grant};

fn json(run: &Run) -> Value {
    serde_json::from_str(run.out.trim()).unwrap_or_else(|_| panic!("{run:?}"))
}

/// As on this machine: by the order of the snapshots, and by a date only where that says nothing.
#[test]
fn the_newest_there_is_not_the_one_of_a_clock_that_was_ahead() {
    let cloud = Cloud::new();
    store_grant(&cloud);
    let mut clock = Clock::new();
    let by = |cloud: &Cloud, clock: &Clock, args: &[&str]| {
        let mut command = cloud.command(args);
        clock.give(&mut command);
        let run = Run::of(command);
        assert_eq!(run.code, 0, "{args:?}: {run:?}");
        run
    };
    let made = |clock: &Clock, text: &str| {
        fs::write(cloud.place.data.join("doc"), text).expect("written");
        json(&by(&cloud, clock, &["backup", "--json"]))["name"].as_str().expect("a name").to_owned()
    };
    let taken = |cloud: &Cloud, clock: &Clock| {
        let run = by(cloud, clock, &["backup", "gdrive", "verify", "--json"]);
        (json(&run)["name"].as_str().expect("a name").to_owned(), run.err)
    };
    let month = Duration::from_hours(30 * 24);
    clock.forward(month);
    let ahead = made(&clock, "while the clock was ahead");
    clock.back(month);
    let (name, said) = taken(&cloud, &clock);
    assert!(name == ahead && said.contains("is the clock right?"), "the only one: {said}");
    let newest = made(&clock, "today");
    let (name, said) = taken(&cloud, &clock);
    assert!(name == newest && said.contains(&ahead) && said.contains("has not come yet"), "{name}: {said}");
    // Without a store the dates that can be right are all there is.
    let mut command = cloud.command(&["backup", "gdrive", "verify", "--json"]);
    command.env("NBAK_REPO", cloud.place.path("nothing"));
    let run = Run::of(command);
    assert!(run.code == 0 && json(&run)["name"] == newest.as_str(), "{run:?}");
    // When that time has come the dates say nothing, and the store does.
    clock.forward(2 * month);
    let (name, said) = taken(&cloud, &clock);
    assert!(name == newest && !said.contains("has not come yet"), "{name}: {said}");
    fs::write(cloud.place.data.join("doc"), "trash").expect("written");
    by(&cloud, &clock, &["backup", "gdrive", "restore", "--yes"]);
    assert_eq!(fs::read_to_string(cloud.place.data.join("doc")).expect("a file"), "today");
}

/// Who removes the lock, or puts another store in its place, has a pull write beside another writer.
#[test]
fn a_pull_whose_lock_is_gone_puts_nothing_more() {
    if !can_trace() {
        return;
    }
    let cloud = Cloud::new();
    cloud.grant();
    for nth in 0..4 {
        fs::write(cloud.place.data.join(format!("file {nth}")), noise(nth, 100_000)).expect("written");
        cloud.ok(&["snapshot"]);
    }
    cloud.ok(&["gdrive", "push"]);
    let new = cloud.on_a_new_machine();
    new.grant();
    // Each object gets its name late.
    let slow = ["-o", "/dev/null", "-e", "trace=renameat2", "-e", "inject=renameat2:delay_enter=700000"];
    let mut command = traced(&new.command(&["gdrive", "pull", "--limit-rate", "100k"]), &slow);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let packs = || fs::read_dir(new.place.repo.join("packs")).map_or(0, Iterator::count);
    while packs() == 0 {
        assert!(child.try_wait().expect("asked").is_none(), "it has ended already");
        std::thread::sleep(Duration::from_millis(2));
    }
    fs::remove_file(new.place.repo.join("lock")).expect("removed");
    let output = child.wait_with_output().expect("its output");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("the lock of this store was removed"), "{said}");
    assert!(new.place.repo.join("pull-unfinished").exists() && new.place.slots().is_empty());
    // Again, and all is there.
    new.ok(&["gdrive", "pull"]);
    new.ok(&["check", "--read-data"]);
}
