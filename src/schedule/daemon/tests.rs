//! The loop with a clock that goes as fast as it is asked to, and jobs that only note that they were run.
//! What each job does is tested elsewhere, with the real program.

use std::cell::{Cell, RefCell};

use super::*;
use crate::config::layers::Layers;

/// A clock that goes as fast as it is asked to, and ends at a time.
struct Fast {
    now: Cell<i64>,
    end: i64,
}

impl Clock for Fast {
    fn now(&self) -> i64 {
        self.now.get()
    }

    fn wait(&self, most: Duration) -> Woken {
        self.now.set(self.now.get() + (most.as_millis() as i64).max(1));
        if self.now.get() >= self.end { Woken::End } else { Woken::Time }
    }
}

/// Notes what is run, and when; answers as it is told.
struct Pretend<'a> {
    clock: &'a Fast,
    ran: RefCell<Vec<(i64, String)>>,
    answer: &'a dyn Fn(&str, usize) -> Ran,
}

impl Work for Pretend<'_> {
    fn run(&self, args: &[&str], _: &mut dyn FnMut()) -> Ran {
        if args == BEGIN {
            return Ran { code: Some(1), ..Ran::default() };
        }
        let line = args.join(" ");
        let times = self.ran.borrow().iter().filter(|(_, one)| *one == line).count();
        self.ran.borrow_mut().push((self.clock.now.get(), line.clone()));
        self.clock.now.set(self.clock.now.get() + 1000);
        (self.answer)(&line, times)
    }
}

#[derive(Default)]
struct Listen(Vec<String>);

impl Watch for Listen {
    fn done(&mut self, what: &str, _: &Ran, good: bool, _: &Config, _: &mut State) {
        if !good {
            self.0.push(format!("failed: {what}"));
        }
    }

    fn unusual(&mut self, texts: &[String], _: Option<&Ran>, _: &Config, _: &mut State) {
        self.0.extend(texts.iter().cloned());
    }

    fn look(&mut self, _: &Config, _: &Plan, _: &mut State, _: i64) {}
}

fn good() -> Ran {
    Ran { code: Some(0), ..Ran::default() }
}

fn config(text: &str) -> Config {
    let mut layers = Layers::default();
    layers.add_file(Path::new("config.json"), Ok(text.to_owned()), false);
    let (config, warnings) = crate::config::read::read(layers);
    assert!(warnings.is_empty(), "{warnings:?}");
    config
}

type Ran2 = (Vec<(i64, String)>, Vec<String>);

fn live(folder: &Path, text: &str, from: i64, hours: i64, answer: &dyn Fn(&str, usize) -> Ran) -> Ran2 {
    let clock = Fast { now: Cell::new(from), end: from + hours * 3_600_000 };
    let work = Pretend { clock: &clock, ran: RefCell::default(), answer };
    let load = || Ok(config(text));
    let daemon = Daemon { data_dir: folder, clock: &clock, work: &work, load: &load, granted: &|| false };
    let mut listen = Listen::default();
    daemon.run(config(text), &mut listen).expect("it ends");
    (work.ran.into_inner(), listen.0)
}

const DAILY: &str = r#"{"nbak": {"snapshot_schedule": false, "timezone": "UTC", "jitter_seconds": 0}}"#;
/// Midnight.
const START: i64 = 1_767_225_600_000;

#[test]
fn a_backup_is_followed_by_what_belongs_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ran, told) = live(folder.path(), DAILY, START, 48, &|_, _| good());
    let lines: Vec<&str> = ran.iter().map(|(_, line)| line.as_str()).collect();
    let expected = [
        "backup --json",
        "backup prune --json",
        "drill --json",
        "forget --keep-hourly 72 --keep-daily 30 --keep-weekly 12 --keep-monthly 24 --keep-within 2d --json",
        "gc --keep-forgotten 7d --json",
    ];
    assert_eq!(lines, [expected, expected].concat());
    assert_eq!(ran[0].0, START + 3 * 3_600_000, "at three");
    assert!(told.is_empty());
}

#[test]
fn a_backup_that_fails_is_tried_again_and_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let answer = |line: &str, times: usize| match (line, times) {
        ("backup --json", 0 | 1) => Ran { code: Some(1), err: "error: no room".to_owned(), ..Ran::default() },
        _ => good(),
    };
    let (ran, told) = live(folder.path(), DAILY, START, 24, &answer);
    let backups: Vec<i64> =
        ran.iter().filter(|(_, line)| line == "backup --json").map(|(at, _)| (at - START) / 60_000).collect();
    assert_eq!(backups, [180, 190, 220]);
    assert_eq!(told, ["failed: backup", "failed: backup"]);
    assert_eq!(ran.iter().filter(|(_, line)| line.starts_with("backup prune")).count(), 1);
    let state = State::load(folder.path());
    assert_eq!((state.last["backup"].failures, state.again), (0, None));
}

#[test]
fn what_did_not_end_is_made_up_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let ended = |line: &str, _: usize| Ran { ended: line == "backup --json", ..good() };
    let (ran, _) = live(folder.path(), DAILY, START, 24, &ended);
    assert_eq!(ran.len(), 1);
    // Killed in the middle: the state says what was running.
    let (ran, _) = live(folder.path(), DAILY, START + 4 * 3_600_000, 1, &|_, _| good());
    assert_eq!(ran[0], (START + 4 * 3_600_000, "backup --json".to_owned()));
    let (ran, _) = live(folder.path(), DAILY, START + 5 * 3_600_000, 1, &|_, _| good());
    assert!(ran.is_empty(), "and once only: {ran:?}");
}

#[test]
fn another_try_that_did_not_end_is_made_up_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let answer = |line: &str, times: usize| match (line, times) {
        ("backup --json", 0) => Ran { code: Some(1), ..Ran::default() },
        ("backup --json", _) => Ran { ended: true, ..Ran::default() },
        _ => good(),
    };
    let (ran, _) = live(folder.path(), DAILY, START, 24, &answer);
    assert_eq!(ran.len(), 2, "{ran:?}");
    let (ran, _) = live(folder.path(), DAILY, START + 4 * 3_600_000, 1, &|_, _| good());
    assert_eq!(ran.iter().filter(|(_, line)| line == "backup --json").count(), 1, "{ran:?}");
}

#[test]
fn who_is_to_end_during_a_comparison_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let answer = |line: &str, _: usize| {
        let out = r#"{"snapshot": "new", "parent": "old", "changed_files": 3, "new_chunks": 2}"#;
        Ran { out: out.to_owned(), ended: line.starts_with("diff"), ..good() }
    };
    let text = r#"{"nbak": {"snapshot_schedule": "0 * * * *", "timezone": "UTC"}}"#;
    let (ran, _) = live(folder.path(), text, START + 1, 48, &answer);
    assert_eq!(ran.len(), 2, "{ran:?}");
}

#[test]
fn what_failed_says_nothing_of_what_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let answer = |line: &str, times: usize| match (line, times) {
        ("backup --json", 0) => Ran { code: Some(3), ..Ran::default() },
        ("backup --json", 1) => Ran { code: Some(1), ..Ran::default() },
        _ => good(),
    };
    live(folder.path(), DAILY, START, 27, &answer);
    assert_eq!(State::load(folder.path()).last["completeness"].failures, 1);
}

#[test]
fn what_is_not_usual_pins_the_snapshot_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = r#"{"backup_schedule": "0 0 1 1 *", "nbak": {"snapshot_schedule": "0 * * * *", "timezone": "UTC"}}"#;
    let answer = |line: &str, _: usize| {
        let out = if line.starts_with("snapshot") {
            r#"{"snapshot": "new", "parent": "old", "changed_files": 0, "new_chunks": 0}"#
        } else if line.starts_with("diff") {
            r#"{"anomaly": "files_gone", "text": "most files are gone", "numbers": {}}"#
        } else {
            ""
        };
        Ran { out: out.to_owned(), ..good() }
    };
    let (ran, told) = live(folder.path(), text, START + 1, 2, &answer);
    let lines: Vec<&str> = ran.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(lines[1], "diff --anomalies old new --json");
    assert_eq!(lines[2], "pin old --reason the snapshot before: most files are gone --json");
    assert_eq!(told[0], "most files are gone");
}

#[test]
fn drive_that_fails_is_no_failed_backup() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Fast { now: Cell::new(START), end: START + 24 * 3_600_000 };
    let answer =
        |line: &str, _: usize| Ran { code: Some(if line.starts_with("backup --") { 14 } else { 0 }), ..good() };
    let work = Pretend { clock: &clock, ran: RefCell::default(), answer: &answer };
    let load = || Ok(config(DAILY));
    let daemon = Daemon { data_dir: folder.path(), clock: &clock, work: &work, load: &load, granted: &|| true };
    let mut listen = Listen::default();
    daemon.run(config(DAILY), &mut listen).expect("it ends");
    assert_eq!(listen.0, ["failed: upload"]);
    assert_eq!(work.ran.borrow().iter().filter(|(_, line)| line == "backup --json").count(), 1);
    assert!(work.ran.borrow().iter().any(|(_, line)| line == "backup gdrive prune --json"));
}

const HOURLY: &str =
    r#"{"backup_schedule": "0 0 1 1 *", "nbak": {"snapshot_schedule": "0 * * * *", "timezone": "UTC"}}"#;

fn ran_lines(ran: &[(i64, String)]) -> Vec<&str> {
    ran.iter().map(|(_, line)| line.as_str()).collect()
}

/// Snapshots s1, s2, …, each of which is the parent of the next.
fn snapshots(line: &str, times: usize) -> Ran {
    let out = if line.starts_with("snapshot") || line.starts_with("backup --json") {
        format!(r#"{{"snapshot": "s{}", "parent": "s{times}", "changed_files": 1}}"#, times + 1)
    } else {
        String::new()
    };
    Ran { out, ..good() }
}

#[test]
fn a_comparison_that_did_not_end_is_made_up_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let answer = |line: &str, times: usize| match line {
        "diff --anomalies s1 s2 --json" => Ran { ended: true, ..good() },
        _ => snapshots(line, times),
    };
    let (ran, _) = live(folder.path(), HOURLY, START + 1, 48, &answer);
    assert_eq!(ran_lines(&ran).last(), Some(&"diff --anomalies s1 s2 --json"));
    let answer = |line: &str, times: usize| match line {
        "diff --anomalies s1 latest --json" => {
            let out = "{\"anomaly\": \"files_gone\", \"text\": \"most are gone\"}\n{\"from\": \"s1\", \"to\": \"s2\"}";
            Ran { out: out.to_owned(), ..good() }
        }
        _ => snapshots(line, times),
    };
    let (ran, told) = live(folder.path(), HOURLY, START + 9_000_000, 0, &answer);
    assert_eq!(ran_lines(&ran)[1], "pin s1 --reason the snapshot before: most are gone --json");
    assert_eq!(told[0], "most are gone");
    assert!(ran_lines(&ran).contains(&"diff --anomalies s2 s1 --json"), "it goes on from there: {ran:?}");
}

#[test]
fn a_backup_that_fails_after_its_snapshot_is_compared_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let answer = |line: &str, times: usize| match (line, times) {
        ("backup --json", 1) => Ran { code: Some(1), ..Ran::default() },
        ("diff --anomalies s1 latest --json", _) => Ran { out: r#"{"from": "s1", "to": "s2"}"#.to_owned(), ..good() },
        _ => snapshots(line, times),
    };
    let (ran, _) = live(folder.path(), DAILY, START, 28, &answer);
    let diffs: Vec<&str> = ran_lines(&ran).into_iter().filter(|line| line.starts_with("diff")).collect();
    let expected = ["s0 s1", "s1 latest", "s2 s3"].map(|ids| format!("diff --anomalies {ids} --json"));
    assert_eq!(diffs, expected);
}

#[test]
fn what_was_looked_at_last_may_be_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let answer = |line: &str, times: usize| match line {
        "diff --anomalies s1 s3 --json" => Ran { code: Some(1), ..Ran::default() },
        // Somebody took one by hand in between.
        "snapshot --json" if times == 1 => Ran { out: r#"{"snapshot": "s3", "parent": "s2"}"#.to_owned(), ..good() },
        _ => snapshots(line, times.min(1)),
    };
    let (ran, _) = live(folder.path(), HOURLY, START + 1, 3, &answer);
    let diffs: Vec<&str> = ran_lines(&ran).into_iter().filter(|line| line.starts_with("diff")).collect();
    assert_eq!(diffs[..3], ["s0 s1", "s1 s3", "s2 s3"].map(|ids| format!("diff --anomalies {ids} --json")));
}

fn drilled(id: &str, rows: u64) -> Ran {
    let out = format!(r#"{{"snapshot": "{id}", "databases": [{{"path": "a.db", "rows": {{"runs": {rows}}}}}]}}"#);
    Ran { out, ..good() }
}

#[test]
fn rows_that_are_gone_pin_the_snapshot_that_had_them_before_anything_is_forgotten() {
    let folder = tempfile::tempdir().expect("a folder");
    let answer = |line: &str, times: usize| match line {
        "drill --json" => drilled(["full", "empty"][times.min(1)], [2000, 10][times.min(1)]),
        _ => good(),
    };
    let (ran, told) = live(folder.path(), DAILY, START, 48, &answer);
    let lines = ran_lines(&ran);
    let at = |what: &str| lines.iter().rposition(|line| line.starts_with(what)).expect("run");
    assert!(at("drill") < at("pin full --reason") && at("pin full") < at("forget") && at("forget") < at("gc"));
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn nothing_goes_for_a_snapshot_that_does_not_restore() {
    // Nor for one of which nobody knows, since the drill was killed.
    for code in [Some(13), None] {
        let folder = tempfile::tempdir().expect("a folder");
        let answer = |line: &str, _: usize| match line {
            "drill --json" => Ran { code, ..Ran::default() },
            _ => good(),
        };
        let (ran, _) = live(folder.path(), DAILY, START, 24, &answer);
        assert_eq!(ran_lines(&ran), ["backup --json", "backup prune --json", "drill --json"], "{code:?}");
    }
}

/// A night that failed takes no tries from the next.
#[test]
fn each_night_has_its_tries() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ran, _) = live(folder.path(), DAILY, START, 48, &|_, _| Ran { code: Some(1), ..Ran::default() });
    assert_eq!(ran.len(), 8, "{ran:?}");
}

/// Jobs that take three hours each; counts how often it is looked at how things stand.
#[test]
fn how_things_stand_is_looked_at_while_a_job_runs() {
    struct Long<'a>(&'a Fast, Cell<usize>);
    impl Work for Long<'_> {
        fn run(&self, args: &[&str], meanwhile: &mut dyn FnMut()) -> Ran {
            if args[0] == "diff" {
                return good();
            }
            self.1.set(self.1.get() + 1);
            for _ in 0..36 {
                self.0.now.set(self.0.now.get() + 300_000);
                meanwhile();
            }
            good()
        }
    }
    #[derive(Default)]
    struct Looks(usize);
    impl Watch for Looks {
        fn done(&mut self, _: &str, _: &Ran, _: bool, _: &Config, _: &mut State) {}
        fn unusual(&mut self, _: &[String], _: Option<&Ran>, _: &Config, _: &mut State) {}
        fn look(&mut self, _: &Config, _: &Plan, _: &mut State, _: i64) {
            self.0 += 1;
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Fast { now: Cell::new(START + 10_500_000), end: START + 11_000_000 };
    let work = Long(&clock, Cell::new(0));
    let load = || Ok(config(DAILY));
    let daemon = Daemon { data_dir: folder.path(), clock: &clock, work: &work, load: &load, granted: &|| false };
    let mut looks = Looks::default();
    daemon.run(config(DAILY), &mut looks).expect("it ends");
    assert!(work.1.get() == 5 && looks.0 >= 5 * 18, "{} {}", work.1.get(), looks.0);
}

/// Also if nothing was looked at before: what there is at the start is where it begins.
#[test]
fn the_first_backup_that_fails_is_compared_too() {
    struct Fails<'a>(&'a Fast, RefCell<Vec<String>>);
    impl Work for Fails<'_> {
        fn run(&self, args: &[&str], _: &mut dyn FnMut()) -> Ran {
            self.0.now.set(self.0.now.get() + 1000);
            self.1.borrow_mut().push(args.join(" "));
            match args {
                ["diff", "--anomalies", _, "latest", "--json"] => {
                    Ran { out: r#"{"from": "old", "to": "old"}"#.to_owned(), ..good() }
                }
                _ => Ran { code: Some(1), ..Ran::default() },
            }
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Fast { now: Cell::new(START), end: START + 11_000_000 };
    let work = Fails(&clock, RefCell::default());
    let load = || Ok(config(DAILY));
    let daemon = Daemon { data_dir: folder.path(), clock: &clock, work: &work, load: &load, granted: &|| false };
    daemon.run(config(DAILY), &mut Listen::default()).expect("it ends");
    let expected = ["diff --anomalies latest latest --json", "backup --json", "diff --anomalies old latest --json"];
    assert_eq!(work.1.borrow()[..3], expected);
}
