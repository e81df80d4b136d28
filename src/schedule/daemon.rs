//! The loop: what is due is done, one thing at a time.
//!
//! After a documented backup come prune, forget and gc, the drill and the push, as configured. A backup that fails is
//! tried again a few times before its next turn. What was begun and did not end, since the daemon was killed or told to
//! end, is due again at the next start: `running` in the state says so.
//!
//! Each result goes into the state, and to whoever is to be told ([`Watch`]).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::Value;

use super::child::{Ran, Work};
use super::clock::{Clock, Woken};
use super::plan::{Job, Plan};
use super::state::{Running, State};
use crate::config::read::{Config, Keep, When};
use crate::error::Result;

/// Minutes until a backup that failed is tried again, by how often it failed.
const AGAIN: [i64; 3] = [10, 30, 60];
/// What was forgotten less than this long ago can be brought back.
const KEEP_FORGOTTEN: &str = "7d";
/// How often the standing is looked at, in milliseconds.
const LOOK_MS: i64 = 10 * 60 * 1000;

/// Is told of what happens.
pub trait Watch {
    /// Something was done; `good` if it succeeded.
    fn done(&mut self, what: &str, ran: &Ran, good: bool, config: &Config, state: &mut State);
    /// Something is not usual; what became of pinning the snapshot before, if that was tried.
    fn unusual(&mut self, texts: &[String], pinned: Option<&Ran>, config: &Config, state: &mut State);
    /// Every few minutes, and after every job.
    fn look(&mut self, config: &Config, plan: &Plan, state: &mut State, now: i64);
}

/// The loop and what it needs.
pub struct Daemon<'a> {
    /// The data directory.
    pub data_dir: &'a Path,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Runs jobs.
    pub work: &'a dyn Work,
    /// Reads the configuration.
    pub load: &'a dyn Fn() -> Result<Config>,
    /// Whether access to Google Drive was granted.
    pub granted: &'a dyn Fn() -> bool,
}

/// The plan that `config` makes.
pub fn plan(config: &Config) -> Plan {
    let mut schedules = BTreeMap::from([(Job::Backup, config.backup_schedule.clone())]);
    schedules.extend(config.snapshot_schedule.clone().map(|schedule| (Job::Snapshot, schedule)));
    if let When::At(schedule) = &config.drill {
        schedules.insert(Job::Drill, schedule.clone());
    }
    Plan::new(schedules, config.timezone.clone().unwrap_or_else(TimeZone::system), config.jitter)
}

/// The flags of `forget` that `keep` means.
pub fn forget_flags(keep: &Keep) -> Vec<String> {
    let mut flags = Vec::new();
    let counts = [
        ("--keep-last", keep.last),
        ("--keep-hourly", keep.hourly),
        ("--keep-daily", keep.daily),
        ("--keep-weekly", keep.weekly),
        ("--keep-monthly", keep.monthly),
    ];
    for (flag, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        flags.extend([flag.to_owned(), count.to_string()]);
    }
    if !keep.within.is_empty() {
        flags.extend(["--keep-within".to_owned(), keep.within.clone()]);
    }
    flags
}

impl Daemon<'_> {
    /// Runs until it is told to end.
    pub fn run(&self, watch: &mut dyn Watch) -> Result<()> {
        let mut config = (self.load)()?;
        let mut plan = plan(&config);
        let mut state = State::load(self.data_dir);
        if let Some(running) = state.running.take() {
            // It did not end: it is due again, also if it was another try, which no schedule asks for.
            state.seen = running.seen;
            if running.job == Job::Backup {
                state.again = Some(i64::MIN);
            }
        }
        let mut looked = i64::MIN;
        loop {
            let now = self.clock.now();
            plan.settle(&mut state.seen, now);
            let due = match plan.due(&state.seen, now) {
                Err(_) if state.again.is_some_and(|at| at <= now) => Ok(Job::Backup),
                other => other,
            };
            let mut reload = false;
            if let Ok(job) = due {
                let before = state.seen.clone();
                plan.begun(job, &mut state.seen, now);
                state.running = Some(Running { job, seen: before });
                self.store(&state);
                let mut steps = Steps { daemon: self, config: &config, state: &mut state, watch };
                let ended = steps.job(job);
                reload = ended == Woken::Reload;
                if ended == Woken::End {
                    // As it was before: the next start makes it up.
                    self.store(&state);
                    return Ok(());
                }
                state.running = None;
                looked = i64::MIN;
            }
            if now.saturating_sub(looked) >= LOOK_MS || looked > now {
                looked = now;
                watch.look(&config, &plan, &mut state, self.clock.now());
                self.store(&state);
            }
            if due.is_err() && !reload {
                let next = [due.err().flatten(), state.again].into_iter().flatten().min().unwrap_or(i64::MAX);
                let wait = next.min(looked.saturating_add(LOOK_MS)).saturating_sub(now).clamp(0, LOOK_MS);
                match self.clock.wait(Duration::from_millis(wait as u64)) {
                    Woken::Time => {}
                    Woken::End => return Ok(()),
                    Woken::Reload => reload = true,
                }
            }
            if reload {
                // One that cannot be read leaves the one before; why was said when it was read.
                if let Some(read) = (self.load)().ok().filter(|read| !read.unreadable) {
                    (config, looked) = (read, i64::MIN);
                    plan = self::plan(&config);
                }
            }
        }
    }

    fn store(&self, state: &State) {
        // Without it the next start begins anew; it is tried again at once.
        let _ = state.store(self.data_dir);
    }
}

/// A job, step by step.
struct Steps<'a> {
    daemon: &'a Daemon<'a>,
    config: &'a Config,
    state: &'a mut State,
    watch: &'a mut dyn Watch,
}

impl Steps<'_> {
    /// Does it; whether the daemon is to end, or to read its configuration again.
    fn job(&mut self, job: Job) -> Woken {
        let mut woken = Woken::Time;
        let mut steps: Vec<Vec<String>> = Vec::new();
        let own = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
        match job {
            Job::Snapshot => steps.push(own(&["snapshot"])),
            Job::Drill => steps.push(own(&["drill"])),
            Job::Backup => {
                self.state.again = None;
                steps.push(own(&["backup"]));
                steps.push(own(&["backup", "prune"]));
                if self.config.gdrive && (self.daemon.granted)() {
                    steps.push(own(&["backup", "gdrive", "prune"]));
                }
                if let Some(keep) = &self.config.keep {
                    let flags = forget_flags(keep);
                    if !flags.is_empty() {
                        steps.push([own(&["forget"]), flags].concat());
                    }
                }
                steps.push(own(&["gc", "--keep-forgotten", KEEP_FORGOTTEN]));
                if self.config.drill == When::AfterBackup {
                    steps.push(own(&["drill"]));
                }
            }
        }
        let pushes = match self.config.gdrive_push {
            When::AfterSnapshot => job != Job::Drill,
            When::AfterBackup => job == Job::Backup,
            _ => false,
        };
        if pushes && (self.daemon.granted)() {
            steps.push(own(&["gdrive", "push"]));
        }
        for step in &steps {
            let (ran, good) = self.step(step);
            if ran.reload {
                woken = Woken::Reload;
            }
            if ran.ended {
                return Woken::End;
            }
            // What comes after a backup is for when there is one.
            if step.as_slice() == ["backup"] && !good {
                break;
            }
        }
        woken
    }

    fn step(&mut self, args: &[String]) -> (Ran, bool) {
        let at = self.daemon.clock.now();
        let mut all: Vec<&str> = args.iter().map(String::as_str).collect();
        all.push("--json");
        let mut ran = self.daemon.work.run(&all);
        if ran.ended {
            return (ran, false);
        }
        let words: Vec<&str> = args.iter().map(String::as_str).take_while(|arg| !arg.starts_with('-')).collect();
        let what = words.join(" ");
        // Incomplete is done, and told; what did not get to Drive is Drive's failure, not the backup's.
        let good = matches!(ran.code, Some(0 | 3 | 14)) && (ran.code != Some(14) || what == "backup");
        self.note(&what, at, &ran, good);
        if what == "backup" {
            if good && self.config.gdrive && (self.daemon.granted)() {
                self.note("upload", at, &ran, ran.code != Some(14));
            }
            let failures = self.state.last.get("backup").map_or(0, |last| last.failures);
            let minutes = AGAIN.get((failures.max(1) - 1) as usize).filter(|_| !good);
            self.state.again = minutes.map(|minutes| self.daemon.clock.now() + minutes * 60_000);
        }
        if good && (what == "snapshot" || what == "backup") {
            // What was not made says nothing of what is missing.
            self.note("completeness", at, &ran, ran.code != Some(3));
            let asked = self.compare(&ran);
            (ran.ended, ran.reload) = (asked.ended, ran.reload || asked.reload);
        }
        if good && what == "drill" {
            self.count(&ran);
        }
        (ran, good)
    }

    fn note(&mut self, what: &str, at: i64, ran: &Ran, good: bool) {
        let message = if good { String::new() } else { ran.message() };
        self.state.note(what, at, ran.took, ran.code, good, message);
        self.watch.done(what, ran, good, self.config, self.state);
    }

    /// Holds a snapshot against the one before; if something is not usual, that one is pinned. Answers with what was
    /// asked of the daemon meanwhile.
    fn compare(&mut self, ran: &Ran) -> Ran {
        let mut asked = Ran::default();
        let results = ran.json();
        let Some(taken) = results.last() else { return asked };
        let id = |name: &str| taken[name].as_str().map(str::to_owned);
        let (Some(after), Some(before)) = (id("snapshot"), id("parent")) else { return asked };
        // Where files only went, none changed: that is not `unchanged`.
        if taken["unchanged"] == Value::Bool(true) {
            return asked;
        }
        let mut run = |args: &[&str]| {
            let ran = self.daemon.work.run(args);
            (asked.ended, asked.reload) = (asked.ended || ran.ended, asked.reload || ran.reload);
            ran
        };
        let compared = run(&["diff", "--anomalies", &before, &after, "--json"]);
        let texts: Vec<String> = compared.json().iter().filter_map(text_of).collect();
        if !texts.is_empty() {
            let reason = format!("the snapshot before: {}", texts[0]);
            let short: String = reason.chars().take(150).collect();
            let pinned = run(&["pin", &before, "--reason", &short, "--json"]);
            self.watch.unusual(&texts, Some(&pinned), self.config, self.state);
        }
        asked
    }

    /// Holds the rows that a drill counted against those of the drill before.
    fn count(&mut self, ran: &Ran) {
        let Some(drilled) = ran.json().pop() else { return };
        let after = drilled["databases"].clone();
        let texts = fallen(&self.state.rows, &after);
        if !texts.is_empty() {
            self.watch.unusual(&texts, None, self.config, self.state);
        }
        self.state.rows = after;
    }
}

fn text_of(line: &Value) -> Option<String> {
    line["anomaly"].as_str()?;
    line["text"].as_str().map(str::to_owned)
}

/// Tables that lost more than half of their rows.
fn fallen(before: &Value, after: &Value) -> Vec<String> {
    crate::upkeep::anomaly::judge_rows(&databases(before), &databases(after))
        .into_iter()
        .map(|anomaly| anomaly.text)
        .collect()
}

/// What a drill's result says of its databases.
fn databases(result: &Value) -> Vec<crate::upkeep::drill::Database> {
    let counts = |value: &Value| -> BTreeMap<String, u64> {
        let rows = value.as_object().into_iter().flatten();
        rows.filter_map(|(table, count)| Some((table.clone(), count.as_u64()?))).collect()
    };
    let one = |database: &Value| {
        Some(crate::upkeep::drill::Database {
            path: database["path"].as_str()?.into(),
            found: crate::source::sqlite::inspect::Inspected {
                rows: counts(&database["rows"]),
                not_counted: 0,
                violations: counts(&database["foreign_key_violations"]),
                remarks: Vec::new(),
            },
        })
    };
    result.as_array().into_iter().flatten().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
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
        fn run(&self, args: &[&str]) -> Ran {
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
        daemon.run(&mut listen).expect("it ends");
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
            "forget --keep-hourly 72 --keep-daily 30 --keep-weekly 12 --keep-monthly 24 --keep-within 2d --json",
            "gc --keep-forgotten 7d --json",
            "drill --json",
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
        daemon.run(&mut listen).expect("it ends");
        assert_eq!(listen.0, ["failed: upload"]);
        assert_eq!(work.ran.borrow().iter().filter(|(_, line)| line == "backup --json").count(), 1);
        assert!(work.ran.borrow().iter().any(|(_, line)| line == "backup gdrive prune --json"));
    }
}
