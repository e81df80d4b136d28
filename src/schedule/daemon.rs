//! The loop: what is due is done, one thing at a time.
//!
//! After a documented backup come prune, the drill, forget and gc, and the push, as configured: the drill before what
//! removes snapshots, so that none goes for one that does not restore, or has lost its rows. A backup that fails is
//! tried again a few times before its next turn. What was begun and did not end, since the daemon was killed or told to
//! end, is due again at the next start: `running` in the state says so.
//!
//! What changed in an unusual way is looked for from where it was looked at last ([`State::compared`]) to what there is
//! now, so that nothing that comes between is left out: not the end of this process, not a backup that fails after its
//! snapshot, not a snapshot that somebody took by hand.
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
use super::state::{Running, State, rows_to_keep};
use crate::config::read::{Config, Keep, When};
use crate::error::Result;

/// Minutes until a backup that failed is tried again, by how often it failed.
const AGAIN: [i64; 3] = [10, 30, 60];
/// What was forgotten less than this long ago can be brought back.
const KEEP_FORGOTTEN: &str = "7d";
/// Says which snapshot is the newest.
const BEGIN: [&str; 5] = ["diff", "--anomalies", "latest", "latest", "--json"];
/// The exit code of what found damage.
const DAMAGED: i32 = 13;
/// Steps that remove something by how old it is.
const REMOVE: [&str; 3] = ["forget", "gc", "prune"];
/// A clock that goes forward by more than this, while the machine ran for less, was set.
const SET_MS: i64 = 6 * 3_600_000;
/// So long nothing is removed after that: by then somebody has seen whether the time is right.
const DOUBT_MS: i64 = 24 * 3_600_000;
/// How often the standing is looked at, in milliseconds.
const LOOK_MS: i64 = 10 * 60 * 1000;

/// Is told of what happens.
pub trait Watch {
    /// Something was done; `good` if it succeeded.
    fn done(&mut self, what: &str, ran: &Ran, good: bool, config: &Config, state: &mut State);
    /// Something is not usual; what became of pinning the snapshot before, if that was tried.
    fn unusual(&mut self, texts: &[String], pinned: Option<&Ran>, config: &Config, state: &mut State);
    /// Something that a reader of the log should know.
    fn says(&mut self, line: &str) {
        let _ = line;
    }
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
    /// Reads the configuration again.
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
    /// Runs until it is told to end, by `config` until that is read again.
    pub fn run(&self, mut config: Config, watch: &mut dyn Watch) -> Result<()> {
        let mut plan = plan(&config);
        let mut state = State::load(self.data_dir);
        if let Some(running) = state.running.take() {
            // It did not end: it is due again, also if it was another try, which no schedule asks for.
            state.seen = running.seen;
            if running.job == Job::Backup {
                state.again = Some(i64::MIN);
            }
        }
        if state.begun == 0 {
            state.begun = self.clock.now();
        }
        let (mut looked, mut is_first) = (i64::MIN, true);
        state.had_config |= self.data_dir.join("config.json").exists();
        // Of a machine that started anew since, that day begins with its start.
        let doubted = state.doubted.map(|at| self.clock.ran().map_or(at, |ran| at.min(ran)));
        let mut hands = Hands { doubted, ..Hands::default() };
        loop {
            let now = self.clock.now();
            if hands.were_set(self.clock) {
                watch.says("the clock was set forward: nothing is removed for a day");
            }
            if state.doubted != hands.doubted {
                state.doubted = hands.doubted;
                self.store(&state);
            }
            plan.settle(&mut state.seen, now);
            let due = plan.due(&state.seen, state.again, now);
            let mut reload = false;
            if let Ok(job) = due {
                let before = state.seen.clone();
                plan.begun(job, &mut state.seen, now);
                state.running = Some(Running { job, seen: before });
                self.store(&state);
                let mut steps =
                    Steps { daemon: self, config: &config, plan: &plan, state: &mut state, watch, hands: &mut hands };
                let ended = steps.job(job, std::mem::replace(&mut is_first, false));
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
                let next = due.err().flatten().unwrap_or(i64::MAX);
                let wait = next.min(looked.saturating_add(LOOK_MS)).saturating_sub(now).clamp(0, LOOK_MS);
                match self.clock.wait(Duration::from_millis(wait as u64)) {
                    Woken::Time => {}
                    Woken::End => return Ok(()),
                    Woken::Reload => reload = true,
                }
            }
            if reload {
                // One that cannot be read leaves the one before; why was said when it was read.
                looked = i64::MIN;
                if let Some(read) = (self.load)().ok().filter(|read| !read.unreadable) {
                    config = read;
                    plan = self::plan(&config);
                    state.had_config |= self.data_dir.join("config.json").exists();
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
    plan: &'a Plan,
    state: &'a mut State,
    watch: &'a mut dyn Watch,
    hands: &'a mut Hands,
}

impl Steps<'_> {
    /// Does it; whether the daemon is to end, or to read its configuration again. Before the first one it is looked at
    /// what was left to be compared.
    fn job(&mut self, job: Job, is_first: bool) -> Woken {
        let mut woken = Woken::Time;
        if is_first {
            let asked = self.catch_up();
            if asked.ended {
                return Woken::End;
            }
            if asked.reload {
                woken = Woken::Reload;
            }
        }
        let mut steps: Vec<Vec<String>> = Vec::new();
        let own = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
        match job {
            Job::Snapshot => steps.push(own(&["snapshot"])),
            Job::Drill => steps.push(own(&["drill"])),
            Job::Backup => {
                if self.state.again.take().is_none() {
                    self.state.tries = 0;
                }
                steps.push(own(&["backup"]));
                // What is not understood is told by itself.
                let is_known = self.config.days_unknown.is_none();
                if is_known {
                    steps.push(own(&["backup", "prune"]));
                }
                if is_known && self.config.gdrive && (self.daemon.granted)() {
                    steps.push(own(&["backup", "gdrive", "prune"]));
                }
                if self.config.drill == When::AfterBackup {
                    steps.push(own(&["drill"]));
                }
                if let Some(keep) = &self.config.keep {
                    let flags = forget_flags(keep);
                    if !flags.is_empty() {
                        steps.push([own(&["forget"]), flags].concat());
                    }
                }
                steps.push(own(&["gc", "--keep-forgotten", KEEP_FORGOTTEN]));
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
        let mut removes = true;
        for step in &steps {
            if !removes && ["forget", "gc"].contains(&step[0].as_str()) {
                continue;
            }
            let is_removal = step.iter().any(|word| REMOVE.contains(&word.as_str()));
            let clock = self.daemon.clock;
            if is_removal && (self.hands.were_set(clock) || self.hands.are_doubted(clock)) {
                self.watch.says(&format!("{}: not now, since the clock was set forward", step.join(" ")));
                continue;
            }
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
            // What is older may be all that is whole.
            removes &=
                step.as_slice() != ["drill"] || ran.code.is_some_and(|code| code != DAMAGED) && !is_unknown(&ran);
        }
        woken
    }

    /// Runs something, and looks now and then how things stand meanwhile.
    fn run(&mut self, args: &[&str]) -> Ran {
        let mut looked = self.daemon.clock.now();
        let mut meanwhile = || {
            let now = self.daemon.clock.now();
            if now.saturating_sub(looked) >= LOOK_MS {
                looked = now;
                self.watch.look(self.config, self.plan, self.state, now);
                self.daemon.store(self.state);
            }
        };
        self.daemon.work.run(args, &mut meanwhile)
    }

    fn step(&mut self, args: &[String]) -> (Ran, bool) {
        let at = self.daemon.clock.now();
        let mut all: Vec<&str> = args.iter().map(String::as_str).collect();
        all.push("--json");
        let mut ran = self.run(&all);
        if ran.ended {
            return (ran, false);
        }
        let words: Vec<&str> = args.iter().map(String::as_str).take_while(|arg| !arg.starts_with('-')).collect();
        let what = words.join(" ");
        // Incomplete is done, and told; what did not get to Drive is Drive's failure, not the backup's.
        let good = matches!(ran.code, Some(0 | 3 | 14)) && (ran.code != Some(14) || what == "backup");
        let good = good && (what != "drill" || !is_unknown(&ran));
        self.note(&what, at, &ran, good);
        if what == "backup" {
            // It ends with 14 too where access was there once, and is lost.
            if good && self.config.gdrive && ((self.daemon.granted)() || ran.code == Some(14)) {
                self.note("upload", at, &ran, ran.code != Some(14));
            }
            let minutes = AGAIN.get(self.state.tries).filter(|_| !good);
            self.state.tries += 1;
            self.state.again = minutes.map(|minutes| self.daemon.clock.now() + minutes * 60_000);
        }
        if what == "snapshot" || what == "backup" {
            // What was not made says nothing of what is missing; and yet there may be a snapshot.
            if good {
                self.note("completeness", at, &ran, ran.code != Some(3));
            }
            let taken = ran.json().pop().filter(|_| good).unwrap_or_default();
            let id = |name: &str| taken[name].as_str().map(str::to_owned);
            // One that is there already has no parent of now.
            let parent = id("parent").filter(|_| taken["unchanged"] != Value::Bool(true));
            let asked = self.compare(id("snapshot"), parent);
            (ran.ended, ran.reload) = (asked.ended, ran.reload || asked.reload);
        }
        if good && what == "drill" {
            let asked = self.count(&ran);
            (ran.ended, ran.reload) = (asked.ended, ran.reload || asked.reload);
        }
        (ran, good)
    }

    fn note(&mut self, what: &str, at: i64, ran: &Ran, good: bool) {
        let message = if good { String::new() } else { ran.message() };
        self.state.note(what, at, ran.took, ran.code, good, message);
        self.watch.done(what, ran, good, self.config, self.state);
    }

    /// Looks at what changed since it was looked at last; the first time, at what is the newest to begin with.
    fn catch_up(&mut self) -> Ran {
        if self.state.compared.is_some() {
            return self.compare(None, None);
        }
        let mut asked = Ran::default();
        let newest = self.ask(&BEGIN, &mut asked).json();
        self.state.compared = newest.iter().find_map(|line| line["to"].as_str().map(str::to_owned));
        asked
    }

    /// Holds what there is now, which is `taken` if that is known, against what was looked at last, or else against
    /// its `parent`. If something is not usual, that one is pinned. Answers with what was asked of the daemon
    /// meanwhile.
    fn compare(&mut self, taken: Option<String>, parent: Option<String>) -> Ran {
        let mut asked = Ran::default();
        // What was looked at last may be forgotten and gone.
        if taken.is_some() && self.state.compared == taken {
            return asked;
        }
        let mut before: Vec<String> = self.state.compared.iter().cloned().chain(parent).collect();
        before.dedup();
        if before.is_empty() {
            self.state.compared = taken;
            return asked;
        }
        let after = taken.clone().unwrap_or_else(|| "latest".to_owned());
        for before in before.iter().filter(|before| **before != after) {
            let compared = self.ask(&["diff", "--anomalies", before, &after, "--json"], &mut asked);
            if asked.ended {
                return asked;
            }
            if compared.code != Some(0) {
                continue;
            }
            let lines = compared.json();
            let texts: Vec<String> = lines.iter().filter_map(text_of).collect();
            if !texts.is_empty() {
                self.unusual(&texts, before, &mut asked);
                if asked.ended {
                    return asked;
                }
            }
            let to = lines.iter().find_map(|line| line["to"].as_str().map(str::to_owned));
            self.state.compared = to.or(taken).or_else(|| Some(before.clone()));
            return asked;
        }
        // It has nothing before it that could be looked at; what was not made changes nothing.
        self.state.compared = taken.or_else(|| self.state.compared.take());
        asked
    }

    /// Pins the snapshot before what is not usual, and has it told.
    fn unusual(&mut self, texts: &[String], before: &str, asked: &mut Ran) {
        let reason: String = format!("the snapshot before: {}", texts[0]).chars().take(150).collect();
        let pinned = self.ask(&["pin", before, "--reason", &reason, "--json"], asked);
        if !asked.ended {
            self.watch.unusual(texts, Some(&pinned), self.config, self.state);
        }
    }

    fn ask(&mut self, args: &[&str], asked: &mut Ran) -> Ran {
        let ran = self.run(args);
        (asked.ended, asked.reload) = (asked.ended || ran.ended, asked.reload || ran.reload);
        ran
    }

    /// Holds the rows that a drill counted against those of the drill before.
    fn count(&mut self, ran: &Ran) -> Ran {
        let mut asked = Ran::default();
        let Some(drilled) = ran.json().pop() else { return asked };
        let after = drilled["databases"].clone();
        let texts = fallen(&self.state.rows, &after);
        if !texts.is_empty() {
            match self.state.rows_of.clone() {
                Some(before) => self.unusual(&texts, &before, &mut asked),
                None => self.watch.unusual(&texts, None, self.config, self.state),
            }
        }
        if !asked.ended {
            self.state.rows = rows_to_keep(&after);
            self.state.rows_of = drilled["snapshot"].as_str().map(str::to_owned);
        }
        asked
    }
}

/// Whether a job succeeded whose result did not come whole.
fn is_unknown(ran: &Ran) -> bool {
    matches!(ran.code, Some(0 | 3))
        && ran.out.lines().last().is_some_and(|line| serde_json::from_str::<Value>(line).is_err())
}

/// The hands of the clock: whether they were set. Retention goes by how old something is, and a clock that is a year
/// ahead for a minute makes all of it old.
#[derive(Default)]
struct Hands {
    /// The time, and how long the machine had run.
    before: Option<(i64, i64)>,
    /// When that was noticed, by how long the machine had run.
    doubted: Option<i64>,
}

impl Hands {
    /// Whether they were set forward since they were looked at.
    fn were_set(&mut self, clock: &dyn Clock) -> bool {
        let Some(ran) = clock.ran() else { return false };
        let now = clock.now();
        let was_set = self.before.is_some_and(|(then, had_run)| (now - then) - (ran - had_run) > SET_MS);
        self.before = Some((now, ran));
        if was_set {
            self.doubted = Some(ran);
        }
        was_set
    }

    fn are_doubted(&self, clock: &dyn Clock) -> bool {
        let since = self.doubted.zip(clock.ran());
        since.is_some_and(|(at, now)| now.saturating_sub(at) < DOUBT_MS)
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
mod tests;
