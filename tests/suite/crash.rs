//! The program is killed, at random moments and at every system call that changes something. Whatever it had promised
//! before must be there, byte for byte, and the next command must work as if nothing had happened.
//!
//! `NBAK_TEST_ROUNDS` multiplies the kills, of which those alone count that ended a process; `NBAK_TEST_SEED` repeats
//! them, as far as timing can be repeated.
#![allow(clippy::print_stdout, reason = "they say how many kills there were")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::strace;
use crate::live_common::{KEY, Place, Random, Run, Survey, app, assert_same, rounds, run, seed, survey, text};
use serde_json::Value;

const SIGKILL: i32 = 9;

/// Runs `command` and kills it after `delay`. Answers what it had printed by then, and whether it was killed.
fn killed_after(command: &mut Command, delay: Duration) -> (String, bool) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    std::thread::sleep(delay);
    child.kill().expect("it can be killed");
    let output = child.wait_with_output().expect("its output");
    let killed = output.status.signal() == Some(SIGKILL);
    let run = Run::of(output, format!("{command:?}"));
    assert!(killed || run.code == Some(0), "{run:?}");
    (run.out, killed)
}

/// So many kills are wanted; what ends before it is killed is tried again, up to four times as often.
struct Kills {
    what: &'static str,
    wanted: u32,
    done: u32,
    tries: u32,
}

impl Kills {
    fn of(what: &'static str, wanted: u32) -> Kills {
        Kills { what, wanted, done: 0, tries: 0 }
    }

    /// The number of the next try, if there is to be one.
    fn next(&mut self) -> Option<u32> {
        if self.done < self.wanted && self.tries < self.wanted.max(5) * 4 {
            self.tries += 1;
            return Some(self.tries - 1);
        }
        println!("{}: {} kills in {} tries", self.what, self.done, self.tries);
        assert!(self.done * 2 >= self.wanted, "{}: {} kills are too few to mean anything", self.what, self.done);
        None
    }

    fn count<T>(&mut self, (said, killed): (T, bool)) -> (T, bool) {
        self.done += u32::from(killed);
        (said, killed)
    }
}

/// How long `command` takes when it is left alone.
fn duration_of(command: &mut Command) -> Duration {
    let start = Instant::now();
    run(command).exits(0);
    start.elapsed()
}

fn part(whole: Duration, random: &mut Random) -> Duration {
    whole * random.below(1100) as u32 / 1000
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a list") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

fn below(survey: &Survey, folder: &str) -> Survey {
    survey
        .iter()
        .filter(|(path, _)| path.starts_with(folder))
        .map(|(path, item)| (path.clone(), item.clone()))
        .collect()
}

fn listed(place: &Place) -> Vec<String> {
    let lines = place.ok(["snapshots", "--json"]).json_lines();
    lines.iter().map(|one| text(&one["snapshot"]).to_owned()).collect()
}

fn assert_swept(place: &Place) {
    let left: Vec<_> = fs::read_dir(place.repo.join("tmp")).expect("a list").collect();
    assert!(left.is_empty(), "the next writer left {left:?}");
}

/// One step of use: files in `small/`; now and then more in `big/` than one pack holds.
fn change(data: &Path, random: &mut Random, big: bool) {
    for _ in 0..=random.below(4) {
        let size = random.below(40_000) as usize;
        fs::write(data.join(format!("small/f{}", random.below(30))), random.bytes(size)).expect("a file");
    }
    let _ = fs::remove_file(data.join(format!("small/f{}", random.below(30))));
    if big {
        for n in 0..3 {
            fs::write(data.join(format!("big/b{n}")), random.bytes(6_200_000)).expect("a file");
        }
    }
}

#[test]
fn what_was_acknowledged_survives_every_kill() {
    let seed = seed("kills");
    let mut random = Random::new(seed);
    let place = Place::new();
    for folder in ["small", "big"] {
        fs::create_dir(place.data.join(folder)).expect("a folder");
    }
    change(&place.data, &mut random, true);
    let big = duration_of(&mut place.nbak(["snapshot"]));
    assert!(place.packs() > 1, "the directory is larger than a pack");
    change(&place.data, &mut random, false);
    let mut small = duration_of(&mut place.nbak(["snapshot"]));

    let mut promised: BTreeMap<String, Survey> = BTreeMap::new();
    let (mut kills, mut acknowledged) = (Kills::of("snapshots", rounds(200)), 0);
    while let Some(round) = kills.next() {
        let many = round % 25 == 7;
        change(&place.data, &mut random, many);
        let delay = part(if many { big } else { small }, &mut random);
        let (out, killed) = kills.count(killed_after(&mut place.nbak(["snapshot", "--json"]), delay));
        if let Ok(said) = serde_json::from_str::<Value>(&out) {
            acknowledged += 1;
            promised.insert(text(&said["snapshot"]).to_owned(), survey(&place.data));
        } else {
            assert!(killed, "it ended well and said nothing: {out:?}");
        }
        if round % 10 == 9 {
            let listed = listed(&place);
            for id in promised.keys() {
                assert!(listed.contains(id), "round {round}: {id} was promised and is not listed");
            }
        }
        if round % 20 == 19 {
            // Machines are busy now and idle then: take the measure again.
            let start = Instant::now();
            let said = place.snapshot();
            small = start.elapsed();
            promised.insert(text(&said["snapshot"]).to_owned(), survey(&place.data));
            assert_swept(&place);
        }
    }
    println!("{acknowledged} were acknowledged all the same");
    let full_every = promised.len().div_ceil(8);
    for (n, (id, expected)) in promised.iter().enumerate() {
        let target = place.path("restored");
        let mut args = vec!["restore".as_ref(), id.as_ref(), "--target".as_ref(), target.as_os_str()];
        let full = n % full_every == 0;
        if !full {
            args.push("small".as_ref());
        }
        place.ok(args);
        let found = survey(&target);
        if full {
            assert_same(expected, &found, id);
        } else {
            assert_same(&below(expected, "small"), &below(&found, "small"), id);
        }
        fs::remove_dir_all(target).expect("removed");
    }
    place.check();
}

/// The same under databases with a log: a killed snapshot leaves nothing in the data directory that the next one
/// takes for data, and no lock that the application would meet.
#[test]
fn a_killed_snapshot_does_not_touch_the_databases() {
    let seed = seed("kills beside databases");
    let mut random = Random::new(seed);
    let place = Place::new();
    app::make(&place.data, &mut random, 1);
    let [mut history, mut datastore, _] = app::connect(&place.data);
    let whole = duration_of(&mut place.nbak(["snapshot"]));
    let mut kills = Kills::of("snapshots beside databases", rounds(30));
    while kills.next().is_some() {
        app::add_runs(&mut history, &mut random, 2).expect("runs");
        app::change_records(&mut datastore, &mut random).expect("records");
        kills.count(killed_after(&mut place.nbak(["snapshot"]), part(whole, &mut random)));
        history.busy_timeout(Duration::ZERO).expect("a timeout");
        app::add_runs(&mut history, &mut random, 1).expect("no lock is left");
    }
    let said = place.snapshot();
    let restored = place.restore(text(&said["snapshot"]), "restored");
    assert_eq!(app::verify(&restored, "after the kills"), app::verify_live(&place.data));
    place.check();
}

#[test]
fn the_first_snapshot_can_be_killed() {
    let seed = seed("first snapshot");
    let mut random = Random::new(seed);
    let place = Place::new();
    fs::create_dir(place.data.join("small")).expect("a folder");
    change(&place.data, &mut random, false);
    let whole = duration_of(&mut place.nbak(["snapshot"]));
    let expected = survey(&place.data);
    let mut kills = Kills::of("first snapshots", rounds(40));
    while let Some(round) = kills.next() {
        fs::remove_dir_all(&place.repo).expect("removed");
        let killed = killed_after(&mut place.nbak(["snapshot", "--json"]), part(whole, &mut random));
        let (out, _) = kills.count(killed);
        // A store that is half made is none, or an empty one; never a broken one.
        let list = place.run(["snapshots", "--json"]);
        assert!(matches!(list.code, Some(0 | 10)), "round {round}: {list:?}");
        if let Ok(said) = serde_json::from_str::<Value>(&out) {
            assert!(list.out.contains(text(&said["snapshot"])), "round {round}: {list:?}");
        }
        place.snapshot();
        assert_swept(&place);
        let restored = place.restore("latest", "restored");
        assert_same(&expected, &survey(&restored), &format!("round {round}"));
        fs::remove_dir_all(restored).expect("removed");
        if round % 10 == 0 {
            place.check();
        }
    }
}

fn with_key(place: &Place, key: &str, args: &[&str]) -> Command {
    let mut command = place.nbak(args);
    command.env("NODYN_VAULT_KEY", key);
    command
}

#[test]
fn a_rotation_can_be_killed() {
    let seed = seed("key rotation");
    let mut random = Random::new(seed);
    let place = Place::new();
    fs::write(place.data.join("file"), "content").expect("a file");
    place.snapshot();
    let file = place.path("new-key");
    let flag = file.to_str().expect("text").to_owned();
    let key_of = |n: u32| format!("{n:04}{}", &KEY[..28]);
    let rotate = ["key", "rotate", "--new-vault-key-file", &flag];
    fs::write(&file, key_of(0)).expect("a key");
    let whole = duration_of(&mut with_key(&place, KEY, &rotate));
    let mut current = key_of(0);
    let mut kills = Kills::of("rotations", rounds(40));
    while let Some(round) = kills.next() {
        let round = round + 1;
        let next = key_of(round);
        fs::write(&file, &next).expect("a key");
        let killed = killed_after(&mut with_key(&place, &current, &rotate), part(whole, &mut random));
        let (out, _) = kills.count(killed);
        let old_opens = run(&mut with_key(&place, &current, &["cat", "latest", "file"])).code == Some(0);
        let new_opens = run(&mut with_key(&place, &next, &["cat", "latest", "file"])).code == Some(0);
        assert!(old_opens || new_opens, "round {round}: nobody can read the store any more");
        if out.contains("rotated") {
            assert!(new_opens && !old_opens, "round {round}: it said that it was done");
        }
        if new_opens {
            current = next;
        }
        fs::write(place.data.join("file"), "content").expect("a file");
        run(&mut with_key(&place, &current, &["snapshot"])).exits(0);
        assert_swept(&place);
        // A slot that a killed rotation left is still listed, and can be removed; there is room for 64.
        if round % 40 == 0 {
            let slots = run(&mut with_key(&place, &current, &["key", "list", "--json"])).exits(0).json_lines();
            for slot in slots.iter().filter(|slot| slot["in_use"] == false) {
                run(&mut with_key(&place, &current, &["key", "remove", text(&slot["slot"])])).exits(0);
            }
        }
    }
    run(&mut with_key(&place, &current, &["check", "--read-data"])).exits(0);
}

#[test]
fn repairs_and_restores_can_be_killed() {
    let seed = seed("repair and restore");
    let mut random = Random::new(seed);
    let place = Place::new();
    for folder in ["small", "big"] {
        fs::create_dir(place.data.join(folder)).expect("a folder");
    }
    let mut states = Vec::new();
    for n in 0..4 {
        change(&place.data, &mut random, n == 1);
        states.push((text(&place.snapshot()["snapshot"]).to_owned(), survey(&place.data)));
    }
    let whole = duration_of(&mut place.nbak(["repair", "index"]));
    let mut kills = Kills::of("repairs", rounds(30));
    while kills.next().is_some() {
        kills.count(killed_after(&mut place.nbak(["repair", "index"]), part(whole, &mut random)));
        assert_eq!(listed(&place).len(), states.len());
    }
    let said = place.snapshot();
    assert_eq!((&said["unchanged"], &said["new_chunks"]), (&true.into(), &0.into()), "an index was lost for good");

    let store = survey(&place.repo);
    let target = place.path("target");
    let args = |more: &'static str| -> Vec<PathBuf> {
        let mut args: Vec<PathBuf> = ["restore", "latest", "--target"].map(PathBuf::from).to_vec();
        args.push(target.clone());
        args.extend((!more.is_empty()).then(|| PathBuf::from(more)));
        args
    };
    let whole = duration_of(&mut place.nbak(args("")));
    let mut kills = Kills::of("restores", rounds(12));
    while kills.next().is_some() {
        if random.below(2) == 0 {
            let _ = fs::remove_dir_all(&target);
        }
        kills.count(killed_after(&mut place.nbak(args("--overwrite")), part(whole, &mut random)));
    }
    place.ok(args("--overwrite"));
    let mut found = survey(&target);
    // What a killed restore left under a name of its own is in nobody's way.
    found.retain(|path, _| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".nbak-restore-")));
    // The target may be there already, and then its mode and times are its own.
    let mut expected = states[3].1.clone();
    expected.insert(PathBuf::new(), found[Path::new("")].clone());
    assert_same(&expected, &found, "restored over what killed restores left");
    assert_same(&store, &survey(&place.repo), "restores do not change the store");
    for (id, expected) in &states {
        let restored = place.restore(id, "restored");
        assert_same(expected, &survey(&restored), id);
        fs::remove_dir_all(restored).expect("removed");
    }
    place.check();
}

/// Every system call that can change a file, one after the other: the program dies as it enters it. (strace counts the
/// calls of each thread: where several threads make one, the program dies at the first that comes so far.)
#[test]
fn a_kill_at_every_call_that_writes() {
    // Those that open files are hundreds, and of few of them it matters: in `power::sweep` they have their turn.
    let calls = strace::CHANGING.into_iter().filter(|call| *call != "openat").chain(["flock"]);
    if !strace::can_trace() {
        return;
    }
    let mut random = Random::new(seed("a kill at every call"));
    let place = Place::new();
    fs::create_dir(place.data.join("small")).expect("a folder");
    change(&place.data, &mut random, false);
    crate::common::database(&place.data.join("with-log.db"), "WAL", 30);
    crate::common::database(&place.data.join("with-journal.db"), "DELETE", 30);
    let first = text(&place.snapshot()["snapshot"]).to_owned();
    let before = place.restore("latest", "before");
    let before = survey(&before);
    change(&place.data, &mut random, false);
    for name in ["with-log.db", "with-journal.db"] {
        let conn = rusqlite::Connection::open(place.data.join(name)).expect("open");
        conn.execute_batch("UPDATE t SET v = 'another' WHERE id % 3 = 1").expect("changed");
        conn.close().expect("closed");
    }
    let after = survey(&place.data);
    let template = place.path("template");
    copy_tree(&place.repo, &template);

    let mut kills = BTreeMap::new();
    for call in calls {
        for nth in 1..=200 {
            fs::remove_dir_all(&place.repo).expect("removed");
            copy_tree(&template, &place.repo);
            let program = place.nbak(["snapshot", "--json"]);
            let mut traced = Command::new("strace");
            traced.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("inject=?{call}:signal=KILL:when={nth}"));
            traced.arg(program.get_program()).args(program.get_args()).env_clear();
            traced.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
            traced.env("PATH", std::env::var_os("PATH").unwrap_or_default());
            let ended = run(&mut traced);
            let done = ended.code == Some(0);
            let what = format!("{call} number {nth}");
            assert!(done || ended.code.is_none(), "{what}: {ended:?}");

            let listed = listed(&place);
            assert!(listed.contains(&first), "{what}: the first snapshot is gone");
            if let Ok(said) = serde_json::from_str::<Value>(&ended.out) {
                assert!(listed.contains(&text(&said["snapshot"]).to_owned()), "{what}: promised and not there");
            }
            if done {
                break;
            }
            *kills.entry(call).or_insert(0) += 1;
            let said = place.snapshot();
            assert_swept(&place);
            for (id, expected) in [(first.as_str(), &before), (text(&said["snapshot"]), &after)] {
                let restored = place.restore(id, "restored");
                assert_same(expected, &survey(&restored), &what);
                fs::remove_dir_all(restored).expect("removed");
            }
            place.check();
        }
    }
    println!("killed at {kills:?}");
    for needed in ["write", "renameat2", "fdatasync", "fsync", "pwrite64"] {
        assert!(kills.contains_key(needed), "no kill at {needed}: {kills:?}");
    }
}
