//! Who is told of what a daemon does: its log, the channels, the metrics.
//!
//! Trouble is told at once, then now and then while it lasts, and once when it is over ([`Muffle`]); what was told is
//! in the state, so that a daemon that is started again does not begin anew. That no backup succeeded for long is
//! trouble like any other, whatever the reason.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::child::Ran;
use super::daemon::Watch;
use super::health::{HANGS, Standing, look};
use super::metrics;
use super::plan::{Job, Plan};
use super::state::{FILE, State};
use crate::config::read::{Config, When};
use crate::crypto::secret::Credential;
use crate::error::Result;
use crate::error::words::{count, size, time};
use crate::export::list::NOT_COME;
use crate::notice::channels::{Channels, Outcome};
use crate::notice::event::Event;
use crate::notice::message::{Notice, TROUBLE};
use crate::notice::muffle::{Muffle, Say};
use crate::snapshot::places::Places;
use crate::upkeep::alike::REMEDY;
use crate::upkeep::remembered;

/// Tells.
pub struct Teller<'a> {
    /// This machine's name.
    pub host: String,
    /// The data directory.
    pub data_dir: &'a Path,
    /// Its places, as the configuration says now.
    pub places: &'a dyn Fn() -> Result<Places>,
    /// The last that were known.
    pub known: Option<Places>,
    /// What is wrong with the configuration now.
    pub mistakes: &'a dyn Fn() -> Vec<String>,
    /// What each job warned of, when it succeeded the last time.
    pub warned: BTreeMap<String, String>,
    /// The keys that may open the store.
    pub credentials: &'a dyn Fn() -> Result<Vec<Credential>>,
    /// A line of the log.
    pub log: &'a dyn Fn(&str),
    /// What the port for metrics says.
    pub metrics: Arc<Mutex<String>>,
    /// That port, once it answers.
    pub port: Option<u16>,
    /// Called now and then while people are told; whether the process is to end.
    pub ends: &'a dyn Fn() -> bool,
}

/// What a restore that is half done is told by: whatever is taken beside it is of old and new data.
const PENDING: &str = "restore";
/// What a job that hangs is told by.
const HANGING: &str = "hangs";
/// What another data directory of the same path in the store is told by.
const SAME_PATH: &str = "same path";
/// How often that is called.
const LOOK: Duration = Duration::from_millis(500);
/// How long a process that is to end waits for notices that are on their way.
const PATIENCE: Duration = Duration::from_secs(4);

type Facts = BTreeMap<String, String>;

/// What event it is when this fails.
fn event_of(what: &str) -> Event {
    match what {
        "snapshot" => Event::SnapshotFailed,
        "upload" | "gdrive push" | "backup gdrive prune" => Event::DriveFailed,
        "drill" => Event::DrillFailed,
        _ => Event::BackupFailed,
    }
}

impl Teller<'_> {
    /// Tells trouble, unless it was told lately; whether nobody has to be told of it any more.
    fn trouble(&self, event: Event, key: &str, title: &str, text: &str, config: &Config, state: &mut State) -> bool {
        let now = jiff::Timestamp::now().as_millisecond();
        let mut muffle = muffle(state);
        let every = Duration::from_secs(config.notify_again_hours.max(1) * 3600);
        let lasts = match muffle.trouble(event, key, now, every) {
            Say::First => String::new(),
            // Each of these is something of its own.
            Say::Again(_) if event == Event::Anomaly => String::new(),
            Say::Again(past) => format!("\nIt lasts since {}.", time(past.since_ms)),
            Say::Nothing => {
                keep(state, &muffle);
                return true;
            }
        };
        let all_failed = self.send(event, title, &format!("{text}{lasts}"), BTreeMap::new(), now, config);
        if all_failed {
            muffle.unheard(event, key);
        }
        keep(state, &muffle);
        !all_failed
    }

    /// Tells what was not usual to whoever could not be reached so far.
    fn tell_unusual(&self, config: &Config, state: &mut State) {
        for at in 0..state.unusual.len() {
            if !state.unusual[at].told {
                let text = state.unusual[at].text.clone();
                let title = "the data changed in a way that is not usual";
                state.unusual[at].told = self.trouble(Event::Anomaly, &text, title, &text, config, state);
            }
        }
    }

    /// Tells that trouble is over, if it was told.
    fn over(&self, event: Event, key: &str, title: &str, config: &Config, state: &mut State) {
        let mut muffle = muffle(state);
        if let Some(past) = muffle.ended(event, key) {
            let now = jiff::Timestamp::now().as_millisecond();
            let text = format!("It had lasted since {}.", time(past.since_ms));
            // What reached nobody is not over yet: the next look, or the next success, tells it.
            if !self.send(Event::Recovered, title, &text, BTreeMap::new(), now, config) {
                keep(state, &muffle);
            }
        }
    }

    /// Trouble that nobody looks for any more is not over, and nothing to tell; whether there was any.
    fn drop_trouble(event: Event, key: &str, state: &mut State) -> bool {
        let mut muffle = muffle(state);
        let was_there = muffle.ended(event, key).is_some();
        if was_there {
            keep(state, &muffle);
        }
        was_there
    }

    /// Tells what is wrong with the configuration; what is switched off in it can fail no more.
    fn look_at_config(&self, config: &Config, state: &mut State) {
        let mistakes = (self.mistakes)();
        if mistakes.is_empty() {
            self.over(Event::ConfigMistaken, "config", "the configuration has no mistakes any more", config, state);
        } else {
            let text = mistakes.join("\n");
            self.trouble(Event::ConfigMistaken, "config", "the configuration has mistakes", &text, config, state);
        }
        for (is_off, what) in [
            (config.snapshot_schedule.is_none(), "snapshot"),
            (config.drill == When::Never, "drill"),
            (config.keep.is_none(), "forget"),
            (config.gdrive_push == When::Never, "gdrive push"),
            (!config.gdrive, "upload"),
            (!config.gdrive, "backup gdrive prune"),
        ] {
            // What failed when a person did it, and not the daemon, stays until it passes.
            if is_off
                && Self::drop_trouble(event_of(what), what, state)
                && let Some(last) = state.last.get_mut(what)
            {
                (last.failures, last.message) = (0, String::new());
            }
        }
    }

    /// Tells of a job that hangs: it holds up all others, and by itself it says nothing.
    fn look_at_hanging(&self, standing: &Standing, config: &Config, state: &mut State) {
        let hanging = standing.hangs.map(|(job, _, _)| job);
        if let (Some(job), Some(text)) = (hanging, standing.hanging()) {
            let text = format!("It {text}; {HANGS}.");
            let title = format!("{} hangs", job.as_str());
            self.trouble(event_of(job.as_str()), HANGING, &title, &text, config, state);
        }
        for job in [Job::Backup, Job::Snapshot, Job::Drill].into_iter().filter(|job| hanging != Some(*job)) {
            let title = format!("{} does not hang any more", job.as_str());
            self.over(event_of(job.as_str()), HANGING, &title, config, state);
        }
    }

    /// Keeps the state; that it cannot be kept is told, since what is missed is then not made up for.
    fn keep_state(&self, config: &Config, state: &mut State) {
        match state.store(self.data_dir) {
            Ok(()) => self.over(Event::BackupFailed, "state", "what the daemon knows is kept again", config, state),
            Err(error) => {
                let text = format!(
                    "{}: {error}. Until that is mended, what is missed while the machine is off is not made up for.",
                    self.data_dir.join(FILE).display()
                );
                self.trouble(
                    Event::BackupFailed,
                    "state",
                    "what the daemon knows cannot be kept",
                    &text,
                    config,
                    state,
                );
            }
        }
    }

    /// Sends it; whether there are channels that want it, and none was reached.
    fn send(&self, event: Event, title: &str, text: &str, facts: Facts, now: i64, config: &Config) -> bool {
        let data_dir = self.data_dir.to_string_lossy().into_owned();
        let host = self.host.clone();
        let notice = Notice {
            event,
            title: format!("nbak on {host}: {title}"),
            host,
            data_dir,
            text: text.to_owned(),
            when_ms: now,
            facts,
        };
        // What is wrong with them was said when the configuration was read.
        let channels = Channels::parse_good(&serde_json::Value::Array(config.notify.clone()));
        let Some(outcomes) = self.deliver(channels, notice) else { return true };
        for outcome in outcomes.iter().filter(|outcome| !outcome.is_told()) {
            (self.log)(&format!(
                "not told by {}: {}",
                outcome.channel,
                outcome.error.as_deref().unwrap_or("no reason")
            ));
        }
        !outcomes.is_empty() && outcomes.iter().all(|outcome| !outcome.is_told())
    }

    /// Hands it over, and goes on to answer meanwhile: a server that hangs must not make a supervisor believe that this
    /// process does, nor keep it from ending. Nothing if it was not awaited; then it is told after the next start.
    fn deliver(&self, channels: Channels, notice: Notice) -> Option<Vec<Outcome>> {
        let (give, take) = bounded(1);
        let deliver = move || drop(give.send(channels.send(&notice)));
        std::thread::Builder::new().name("notices".to_owned()).spawn(deliver).ok()?;
        let mut asked: Option<Instant> = None;
        loop {
            match take.recv_timeout(LOOK) {
                Ok(outcomes) => return Some(outcomes),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if (self.ends)() => {
                    if asked.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                        (self.log)("not told: the daemon is to end, and nobody answered so far");
                        return None;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

fn muffle(state: &State) -> Muffle {
    serde_json::from_value(state.told.clone()).unwrap_or_default()
}

fn keep(state: &mut State, muffle: &Muffle) {
    state.told = serde_json::to_value(muffle).unwrap_or_default();
}

impl Teller<'_> {
    /// What a job warned of that succeeded; not again, as long as it is the same.
    fn log_warnings(&mut self, what: &str, ran: &Ran) {
        let warnings: Vec<&str> = ran.err.lines().filter(|line| line.starts_with("warning: ")).take(20).collect();
        let text = warnings.join("\n");
        if self.warned.get(what) != Some(&text) {
            for line in warnings {
                (self.log)(line);
            }
        }
        self.warned.insert(what.to_owned(), text);
    }
}

impl Watch for Teller<'_> {
    fn done(&mut self, what: &str, ran: &Ran, good: bool, config: &Config, state: &mut State) {
        let took = ran.took as f64 / 1000.0;
        let event = event_of(what);
        if good {
            // What is no step of its own is not logged as one.
            if what != "completeness" && what != "upload" {
                (self.log)(&format!("{what}: done in {took:.1} s"));
                self.log_warnings(what, ran);
            }
            self.over(event, what, &format!("{what} succeeds again"), config, state);
            if what == "backup" {
                let now = jiff::Timestamp::now().as_millisecond();
                self.send(Event::BackupOk, "a backup was made", &made(ran), besides(ran, state), now, config);
            }
        } else {
            let (title, message) = match what {
                "completeness" => ("something of the data is not in the backup".to_owned(), missing(ran)),
                "upload" => ("a backup did not get to Google Drive".to_owned(), ran.message()),
                _ => (format!("{what} failed"), ran.message()),
            };
            (self.log)(&format!("{title} after {took:.1} s: {message}"));
            self.trouble(event, what, &title, &message, config, state);
        }
    }

    fn unusual(&mut self, texts: &[String], pinned: Option<&Ran>, config: &Config, state: &mut State) {
        for text in texts {
            (self.log)(&format!("not usual: {text}"));
        }
        let then = match pinned {
            Some(ran) if ran.code == Some(0) => {
                let pinned = ran.json().pop().unwrap_or_default();
                let id = pinned["snapshot"].as_str().and_then(|id| id.get(..8)).unwrap_or("before it");
                format!(
                    "Snapshot {id}, the one before, is pinned: no retention removes it. `nbak diff {id} latest \
                     --anomalies` shows what is; if this is meant, `nbak unpin {id}` lets it go."
                )
            }
            Some(ran) => format!("The snapshot before could not be pinned ({}): `nbak pin` does it.", ran.message()),
            None => "`nbak pin` keeps a snapshot from before that from any retention.".to_owned(),
        };
        let text = format!("{}\n\n{then}", texts.join("\n"));
        state.note_unusual(jiff::Timestamp::now().as_millisecond(), text);
        self.tell_unusual(config, state);
    }

    fn says(&mut self, line: &str) {
        (self.log)(line);
    }

    fn look(&mut self, config: &Config, plan: &Plan, state: &mut State, now: i64) {
        let _ = plan;
        state.take_up(self.data_dir);
        self.tell_unusual(config, state);
        // Who removed it meanwhile did not mean that nothing is to be remembered.
        let _ = remembered::begin(self.data_dir);
        self.look_at_config(config, state);
        self.keep_state(config, state);
        if let Ok(places) = (self.places)() {
            self.known = Some(places);
        }
        let Some(places) = self.known.clone() else { return };
        let credentials = (self.credentials)();
        let mut standing = look(&places, config, credentials.as_deref().unwrap_or_default(), state, now);
        standing.store_error = credentials.err().map(|error| error.to_string()).or(standing.store_error);
        match &standing.damage {
            Some(damage) => {
                self.trouble(Event::StoreDamaged, "store", "the store is not as it should be", damage, config, state);
            }
            None if standing.store_error.is_none() => {
                self.over(Event::StoreDamaged, "store", "the store is as it should be again", config, state);
            }
            None => {}
        }
        match &standing.other {
            Some(other) => {
                let text = format!("{other}.\nNo policy goes over its snapshots and backups: {REMEDY}.");
                self.trouble(Event::ConfigMistaken, SAME_PATH, "two data directories are one", &text, config, state);
            }
            None => self.over(Event::ConfigMistaken, SAME_PATH, "two are not one any more", config, state),
        }
        match &standing.pending {
            Some(pending) => {
                let text = format!("{}.\n{}.", pending.text(), pending.remedy());
                self.trouble(Event::SnapshotFailed, PENDING, "a restore in place is half done", &text, config, state);
            }
            None => self.over(Event::SnapshotFailed, PENDING, "no restore is half done any more", config, state),
        }
        self.look_at_hanging(&standing, config, state);
        // A machine without any has as long as any other from when a daemon ran here first.
        let since_begun = (now.saturating_sub(state.begun) / 3_600_000).max(0).unsigned_abs();
        let stale = match standing.backup_at {
            Some(_) => standing.stale(config),
            None => Some(since_begun).filter(|hours| config.stale_hours > 0 && *hours >= config.stale_hours),
        };
        match stale {
            None if config.stale_hours == 0 => drop(Self::drop_trouble(Event::Stale, "backup", state)),
            // There is none, and that is not long: what was told before may be as true as it was.
            None if standing.backup_at.is_none() => {}
            Some(hours) => {
                let text = match &standing.backup {
                    Some((name, _)) if standing.backup_at.is_none() => {
                        format!("The newest backup, {name}, is {NOT_COME}.")
                    }
                    Some((name, _)) => format!("The newest backup, {name}, is {} old.", count(hours, "hour", "hours")),
                    None => "There is no backup.".to_owned(),
                };
                self.trouble(Event::Stale, "backup", "no backup succeeded for too long", &text, config, state);
            }
            None => self.over(Event::Stale, "backup", "there is a new backup again", config, state),
        }
        let text = metrics::text(&standing, state);
        if let Some(path) = &config.metrics_file
            && let Err(error) = metrics::write(path, &text)
        {
            (self.log)(&format!("cannot write the metrics: {}: {error}", path.display()));
        }
        if config.metrics_port > 0 && self.port != Some(config.metrics_port) {
            match metrics::serve(config.metrics_port, self.metrics.clone()) {
                Ok(()) => self.port = Some(config.metrics_port),
                Err(error) => (self.log)(&format!("no metrics for now: {error}")),
            }
        }
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

/// What else is wrong when a backup was made. That none was for too long is over by then, and what was not usual is
/// told once.
fn besides(ran: &Ran, state: &State) -> Facts {
    let muffle = muffle(state);
    let mut wrong: Vec<String> = (muffle.open().map(|(event, _, _)| event))
        .filter(|event| !matches!(event, Event::Stale | Event::Anomaly))
        .map(|event| event.as_str().to_owned())
        .collect();
    match ran.code {
        Some(3) => wrong.push("it is not complete".to_owned()),
        Some(14) => wrong.push("it is not in Google Drive".to_owned()),
        _ => {}
    }
    wrong.dedup();
    if wrong.is_empty() { Facts::new() } else { Facts::from([(TROUBLE.to_owned(), wrong.join(", "))]) }
}

/// A backup in a sentence, by its result.
fn made(ran: &Ran) -> String {
    let result = ran.json().pop().unwrap_or_default();
    let number = |name: &str| result[name].as_u64().unwrap_or(0);
    let name = result["name"].as_str().unwrap_or("It");
    let where_else = match (result["uploaded"].as_bool(), result["upload_error"].as_str()) {
        (_, Some(why)) => format!("; it is not in Google Drive: {why}"),
        (Some(true), None) => "; it is in Google Drive too".to_owned(),
        _ => String::new(),
    };
    let (files, bytes, databases) = (number("files"), number("bytes"), number("databases"));
    format!("{name} has {} of {}; databases: {databases}{where_else}.", count(files, "file", "files"), size(bytes))
}

/// What a snapshot or a backup lacks, by the warnings.
fn missing(ran: &Ran) -> String {
    let is_meant = |line: &&str| {
        ["not captured", "not in the backup", "restore is half done"].iter().any(|known| line.contains(known))
    };
    let lines: Vec<&str> = ran.err.lines().filter(is_meant).take(20).collect();
    if lines.is_empty() { "`nbak snapshot` says what".to_owned() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_told_in_words() {
        let of = |out: &str| made(&Ran { out: out.to_owned(), ..Ran::default() });
        let result = r#"{"name": "20261123T173010Z", "files": 3, "bytes": 85, "databases": 1, "uploaded": false}"#;
        assert_eq!(of(result), "20261123T173010Z has 3 files of 85 B; databases: 1.");
        let uploaded = result.replace("false", "true");
        assert!(of(&uploaded).ends_with("databases: 1; it is in Google Drive too."));
        let failed = result.replace('}', ", \"upload_error\": \"no access\"}");
        assert!(of(&failed).ends_with("; it is not in Google Drive: no access."));
        assert!(!of("").contains('{'));
    }
}
