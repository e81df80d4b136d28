//! How things stand: the facts, and what is wrong with them, each with its remedy.
//!
//! Facts come from the store, the backups and the state; nothing is changed to find them out. `status` prints them,
//! `doctor` judges them, the daemon tells of them, and metrics are numbers of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::around::{leftovers, openers, permissions};
use super::checks::{Check, Level, Say};
use super::daemon::plan;
use super::plan::Job;
use super::state::State;
use crate::config::read::Config;
use crate::crypto::secret::Credential;
use crate::drive::grant::FILE as GRANT;
use crate::error::words::{count, size, time};
use crate::export::backup::Backup;
use crate::export::files::{open_regular, read_bounded};
use crate::export::inplace::pending::{Pending, kept, pending};
use crate::export::list::{AHEAD, Listed, NOT_COME, Order, list, newest_of, order_of};
use crate::id::PackId;
use crate::snapshot::lack::Lack;
use crate::snapshot::places::Places;
use crate::snapshot::record::Record;
use crate::snapshot::store::{Access, Store};
use crate::store::objects::{Key, Kind};
use crate::upkeep::alike::{Alike, REMEDY};
use crate::upkeep::remembered::{self, Seen};

/// Less room than this is told, in bytes.
const ROOM: u64 = 500_000_000;

/// The facts.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Standing {
    /// Now, in milliseconds since 1970.
    pub now: i64,
    /// The newest snapshot of this data directory: id and time.
    pub snapshot: Option<(String, i64)>,
    /// What it lacks.
    pub snapshot_lacks: Lack,
    /// How many of it there are.
    pub snapshots: u64,
    /// How many of other data directories the store has.
    pub others: u64,
    /// The newest of this data directory that is complete and that a drill restored: id, and when it did.
    pub proven: Option<(String, i64)>,
    /// A newer one that a drill restored and that is incomplete, and what it lacks.
    pub proven_incomplete: Option<(String, i64, Lack)>,
    /// The newest backup of this data directory that was not made before a restore: name and time.
    pub backup: Option<(String, i64)>,
    /// The time of the newest, of those of a time that has come.
    pub backup_at: Option<i64>,
    /// One that cannot be read and may be newer than that, and why.
    pub backup_lost: Option<(String, String)>,
    /// What is not there of it, if something is.
    pub backup_lacks: Option<String>,
    /// What it says itself that it lacks of the data directory.
    pub backup_incomplete: Lack,
    /// A newer one that was made while a restore in place was half done: no restore takes it unless it is named.
    pub backup_mixed: Option<String>,
    /// A backup of a time that has not come yet.
    pub backup_ahead: Option<String>,
    /// Everyone can read it.
    pub backup_plain: bool,
    /// How many of this data directory there are.
    pub backups: u64,
    /// What the packs take, in bytes.
    pub store_bytes: u64,
    /// What is free where the store is, in bytes.
    pub free: Option<u64>,
    /// Why the store does not open.
    pub store_error: Option<String>,
    /// What is to be done about that.
    pub store_remedy: Option<String>,
    /// There is one that does not: what is in it is not known.
    pub store_is_closed: bool,
    /// Why the folder of the backups cannot be read: which there are is not known.
    pub backups_error: Option<String>,
    /// What it lost, or what was found damaged.
    pub damage: Option<String>,
    /// Another data directory of the same path writes to it.
    pub other: Option<String>,
    /// What policies leave alone since another directory took it, in words.
    pub left: Option<String>,
    /// It opens for everyone.
    pub unprotected: bool,
    /// When each job is next, in milliseconds since 1970.
    pub next: BTreeMap<Job, i64>,
    /// What runs for so long that it hangs: the job, since when, and one that had to wait for too long.
    pub hangs: Option<(Job, i64, Job)>,
    /// The process that runs as daemon.
    pub daemon: Option<String>,
    /// Access to Google Drive was granted.
    pub granted: bool,
    /// A restore in place that is half done.
    pub pending: Option<Pending>,
    /// What restores in place have kept, since it was in no backup.
    pub kept: Vec<PathBuf>,
}

/// What a backup lacks by its manifest: whether what is there is whole is only known after verifying.
fn missing_of(path: &Path) -> Option<String> {
    let backup = match Backup::open(path) {
        Ok(backup) => backup,
        Err(error) => return Some(error.to_string()),
    };
    let files = backup.manifest.files.iter().filter(|entry| !entry.kind.is_directory());
    let is_there = |path: &str, size: u64| {
        std::fs::symlink_metadata(backup.path.join(path)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    };
    let missing: Vec<&str> =
        files.filter(|entry| !is_there(&entry.path, entry.size)).map(|entry| entry.path.as_str()).collect();
    missing.first().map(|first| match missing.len() {
        1 => format!("{first} is not there, or has another size"),
        more => format!("{more} of its files are not there, or have another size, {first} among them"),
    })
}

/// A job that is so late although none runs is late for no good reason, in milliseconds.
const LATE_MS: i64 = 3_600_000;
/// So long what was not usual is shown, in milliseconds.
const UNUSUAL_MS: i64 = 7 * 86_400_000;
/// What is to be done about a job that hangs.
pub const HANGS: &str = "it hangs, or takes far too long: see the daemon's log, and start it anew";
/// The file that a daemon holds a lock on, in the data directory.
pub const DAEMON_LOCK: &str = ".nbak-daemon.lock";

/// Looks.
pub fn look(places: &Places, config: &Config, credentials: &[Credential], state: &State, now: i64) -> Standing {
    let mut standing = Standing { now, granted: places.data_dir.join(GRANT).exists(), ..Standing::default() };
    let seen = remembered::seen(&places.data_dir);
    let mut order = Order::new();
    match Store::open(&places.repo, credentials, Access::Read) {
        Ok(store) => {
            let alike = remembered::alike(&places.data_dir, &places.known_as(), &store).ok();
            standing.other = alike.as_ref().and_then(Alike::text);
            standing.left = alike.as_ref().and_then(|alike| alike.leaves(false));
            order = standing.take(&store, &seen, &|record| alike.as_ref().is_some_and(|alike| alike.owns(record)));
        }
        Err(error) => {
            standing.store_is_closed = !error.is_no_store();
            standing.store_remedy = error.next_step().map(str::to_owned);
            standing.store_error = Some(error.to_string());
        }
    }
    let free_at = [&places.repo, &places.backup_dir, &places.data_dir].into_iter().find(|path| path.is_dir());
    standing.free = free_at.and_then(|path| rustix::fs::statvfs(path.as_path()).ok()).map(|disk| {
        let (blocks, size) = (disk.f_bavail, disk.f_frsize);
        blocks.saturating_mul(size)
    });
    let backups = list(&places.backup_dir).unwrap_or_else(|error| {
        standing.backups_error = Some(error.to_string());
        Vec::new()
    });
    standing.take_backups(&backups, &places.owns(), &order);
    let plan = plan(config);
    for job in plan.schedules.keys() {
        let mut seen = state.seen.clone();
        plan.settle(&mut seen, now);
        standing.next.extend(plan.next(*job, &seen).map(|at| (*job, at)));
    }
    let running = state.running.as_ref().map(|running| running.job);
    standing.hangs = running.and_then(|job| plan.hangs(job, &state.seen, now).map(|(since, late)| (job, since, late)));
    standing.daemon = daemon_of(&places.data_dir);
    standing.pending = pending(&places.data_dir);
    standing.kept = kept(&places.data_dir);
    standing
}

/// The process that runs as daemon of this data directory.
pub fn daemon_of(data_dir: &Path) -> Option<String> {
    let path = &data_dir.join(DAEMON_LOCK);
    let file = open_regular(path).ok()?;
    match file.try_lock() {
        Err(std::fs::TryLockError::WouldBlock) => {
            let text = read_bounded(path, 1024).unwrap_or_default();
            Some(String::from_utf8_lossy(&text).trim().to_owned())
        }
        _ => None,
    }
}

impl Standing {
    /// The newest one of this data directory, which is the one that a restore takes, and what may be newer but cannot
    /// be read. One of a time that has not come yet says nothing of how old the newest is.
    fn take_backups(&mut self, backups: &[Listed], owns: &dyn Fn(&str) -> bool, order: &Order) {
        let now = self.now;
        let is_ahead = |one: &&Listed| one.is_ahead(now);
        let own = || backups.iter().filter(|one| one.damage.is_none() && owns(&one.source_dir));
        self.backups = own().count() as u64;
        self.backup_ahead = own().filter(is_ahead).find(|one| !one.before_restore).map(|one| one.name.clone());
        let come = own().filter(|one| !is_ahead(one) && !one.before_restore);
        self.backup_at = come.filter_map(|one| one.created_ms).max();
        let found = newest_of(backups, owns, now, order);
        let lost = found.lost.map(|one| (one.name.clone(), one.damage.clone().unwrap_or_default()));
        self.backup_lost = lost;
        let newest = found.whole.filter(|one| !one.before_restore);
        self.backup = newest.and_then(|one| Some((one.name.clone(), one.created_ms?)));
        self.backup_lacks = newest.and_then(|one| missing_of(&one.path));
        self.backup_plain = newest.is_some_and(|one| !one.encrypted);
        self.backup_incomplete = newest.map(|one| one.lacks.lack()).unwrap_or_default();
        self.backup_mixed = found.mixed.map(|one| one.name.clone());
    }

    /// What the store knows; answers in which order its snapshots were taken.
    fn take(&mut self, store: &Store, seen: &Seen, is_own: &dyn Fn(&Record) -> bool) -> Order {
        let index = store.catalog().index();
        self.store_bytes = index.packs().map(|(_, size)| size).sum();
        self.unprotected = store.is_unprotected();
        self.damage = store.losses().or_else(|| store.unfinished());
        if self.damage.is_none() && !index.damaged().is_empty() {
            self.damage = Some("a check found packs damaged".to_owned());
        }
        if let (None, Some((_, why))) = (&self.damage, index.unreadable().first()) {
            self.damage = Some(why.clone());
        }
        if self.damage.is_none() {
            let is_cut = |(id, size): &(PackId, u64)| {
                store.objects().size(Key::new(Kind::Pack, id.0)).is_ok_and(|found| found != *size)
            };
            let cut = index.packs().find(is_cut);
            self.damage = cut.map(|(id, _)| format!("pack {id} has another size than it had"));
        }
        if self.damage.is_none() {
            self.damage = remembered::missing(seen, store, true).ok().flatten();
        }
        match store.history() {
            Ok(history) => {
                let order = order_of(history);
                let own = || history.live().filter(|record| is_own(record));
                self.snapshots = own().count() as u64;
                self.others = history.live().count() as u64 - self.snapshots;
                self.snapshot = own().next_back().map(|record| (record.id.to_string(), record.started));
                self.snapshot_lacks = own().next_back().map(Record::lack).unwrap_or_default();
                for (one, at) in own().rev().filter_map(|one| Some((one, history.ledger().proof(one.id)?))) {
                    let id = one.id.to_string();
                    if one.lack().is_none() {
                        self.proven = Some((id, at));
                        break;
                    }
                    self.proven_incomplete.get_or_insert((id, at, one.lack()));
                }
                order
            }
            Err(error) => {
                self.damage = Some(error.to_string());
                Order::new()
            }
        }
    }

    /// Since when what hangs runs, and what waits for it.
    pub fn hanging(&self) -> Option<String> {
        let (job, since, late) = self.hangs?;
        let waits = if late == job { String::new() } else { format!(", and {} waits", late.as_str()) };
        Some(format!("runs since {}{waits}", time(since)))
    }

    /// How many snapshots there are, in words.
    pub fn known(&self) -> String {
        let own = count(self.snapshots, "snapshot", "snapshots");
        match self.others {
            0 => own,
            others => format!("{own}, and {others} of other data directories"),
        }
    }

    /// Whether no backup succeeded for longer than is set; for how long, in hours.
    pub fn stale(&self, config: &Config) -> Option<u64> {
        if config.stale_hours == 0 {
            return None;
        }
        let newest = self.backup_at.unwrap_or(0);
        let hours = (self.now.saturating_sub(newest) / 3_600_000).max(0) as u64;
        (hours >= config.stale_hours).then_some(hours)
    }

    /// The facts as JSON.
    pub fn json(&self, places: &Places, state: &State) -> Value {
        let iso = crate::export::manifest::iso;
        let named = |one: &Option<(String, i64)>, name: &str| match one {
            Some((id, at)) => json!({name: id, "at": iso(*at), "age_seconds": (self.now - at) / 1000}),
            None => Value::Null,
        };
        let mut snapshot = named(&self.snapshot, "snapshot");
        if self.snapshot.is_some() {
            snapshot["lacks"] = json!(self.snapshot_lacks.entries);
            snapshot["mixed"] = json!(self.snapshot_lacks.mixed);
        }
        let mut backup = named(&self.backup, "name");
        if self.backup.is_some() {
            backup["lacks"] = json!(self.backup_incomplete.entries);
            backup["mixed"] = json!(self.backup_incomplete.mixed);
        }
        let incomplete = self.proven_incomplete.as_ref().map(|(id, at, lacks)| {
            let age = (self.now - at) / 1000;
            json!({"snapshot": id, "at": iso(*at), "age_seconds": age, "lacks": lacks.entries, "mixed": lacks.mixed})
        });
        let next: BTreeMap<&str, String> = self.next.iter().map(|(job, at)| (job.as_str(), iso(*at))).collect();
        let last = |(what, last): (&String, &super::state::Last)| {
            let succeeded = (last.succeeded > 0).then(|| iso(last.succeeded));
            let value = json!({
                "at": iso(last.at), "took_ms": last.took, "exit_code": last.code, "succeeded": succeeded,
                "failures": last.failures, "message": last.message,
            });
            (what.clone(), value)
        };
        let paths = |all: &[PathBuf]| all.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>();
        let pending = self.pending.as_ref().map(|one| {
            let written = paths(&one.written);
            json!({"since": iso(one.since), "written_since": written, "given_up": one.given_up, "text": one.text()})
        });
        json!({
            "data_dir": places.data_dir.to_string_lossy(),
            "repo": places.repo.to_string_lossy(),
            "backup_dir": places.backup_dir.to_string_lossy(),
            "snapshots": (!self.store_is_closed).then_some(self.snapshots),
            "other_snapshots": (!self.store_is_closed).then_some(self.others),
            "newest_snapshot": snapshot,
            "newest_proven": named(&self.proven, "snapshot"),
            "newest_proven_incomplete": incomplete,
            "backups": self.backups_error.is_none().then_some(self.backups),
            "backups_error": self.backups_error,
            "newest_backup": backup,
            "mixed_backup": self.backup_mixed,
            "damaged_backup": self.backup_lost.as_ref().map(|(name, why)| json!({"name": name, "reason": why})),
            "store_bytes": self.store_bytes,
            "free_bytes": self.free,
            "store_error": self.store_error,
            "damage": self.damage,
            "same_path": self.other,
            "left_alone": self.left,
            "pending_restore": pending,
            "kept_by_restores": paths(&self.kept),
            "protected": self.store_error.is_none().then_some(!self.unprotected),
            "next": next,
            "daemon": self.daemon,
            "gdrive": self.granted,
            "last": state.last.iter().map(last).collect::<serde_json::Map<String, Value>>(),
        })
    }

    /// Judges the facts.
    pub fn checks(&self, places: &Places, config: &Config, state: &State) -> Vec<Check> {
        let mut all = Vec::new();
        let mut say = |subject, level, text: String, remedy: &str| {
            all.push(Check { subject, level, text, remedy: remedy.to_owned() });
        };
        match (&self.store_error, self.unprotected) {
            (Some(why), _) => {
                let remedy = self.store_remedy.as_deref();
                let what = remedy.and_then(|remedy| why.strip_suffix(&format!(" ({remedy})"))).unwrap_or(why);
                say("store", Level::Bad, what.to_owned(), remedy.unwrap_or("mend that: `nbak check` says if it opens"));
            }
            (None, true) => say(
                "store",
                Level::Bad,
                "it opens for everyone who can read it".to_owned(),
                "set NODYN_VAULT_KEY, then `nbak key rotate`",
            ),
            (None, false) => say("store", Level::Good, format!("it opens; {}", self.known()), ""),
        }
        if self.snapshot.is_none() && self.others > 0 {
            let what = "no snapshot in the store is of this data directory".to_owned();
            say(
                "store",
                Level::Bad,
                what,
                "`nbak snapshot` takes one; `nbak snapshots` says whose there are; after a move see `retention` below",
            );
        }
        if let Some(damage) = &self.damage {
            say("store", Level::Bad, damage.clone(), "`nbak check --read-data`, then README: if the store is damaged");
        }
        if let Some(other) = &self.other {
            say("store", Level::Bad, other.clone(), REMEDY);
        }
        if let Some(left) = &self.left {
            say("retention", Level::Note, left.clone(), "");
        }
        if let Some(pending) = &self.pending {
            say("restore", Level::Bad, pending.text(), pending.remedy());
        }
        match &self.snapshot {
            Some((_, at)) if *at > self.now + AHEAD => say(
                "clock",
                Level::Bad,
                "the newest snapshot is of a time that has not come yet".to_owned(),
                "set the clock, or look whether it was wrong when that snapshot was taken",
            ),
            _ => say("clock", Level::Good, time(self.now), ""),
        }
        if let Some((id, _)) = self.snapshot.as_ref().filter(|_| !self.snapshot_lacks.is_none()) {
            let what = format!("the newest, {}, is incomplete: {}", &id[..8], self.snapshot_lacks);
            let remedy = match self.snapshot_lacks {
                Lack { entries: 0, .. } => {
                    format!("take another once no restore is half done; then `nbak forget {}`", &id[..8])
                }
                _ => "`nbak snapshots -v` names what; mend that, or exclude it, and take another".to_owned(),
            };
            say("snapshot", Level::Bad, what, &remedy);
        }
        match (&self.backup, self.stale(config)) {
            (Some(_), Some(hours)) if self.backup_at.is_some() => say(
                "backup",
                Level::Bad,
                format!("the newest backup is {} old", count(hours, "hour", "hours")),
                "`nbak backup` makes one; run `nbak daemon`, or look why it fails",
            ),
            (None, _) if let Some(why) = &self.backups_error => {
                say("backup", Level::Bad, why.clone(), "mend that: until then nobody knows which backups there are");
            }
            (None, _) => say("backup", Level::Bad, "there is none".to_owned(), "`nbak backup` makes one"),
            (Some((name, _)), _) => {
                let newest = if self.backup_lost.is_some() { "the newest that can be read" } else { "the newest" };
                say("backup", Level::Good, format!("{newest} is {name}"), "");
            }
        }
        if let Some((name, why)) = &self.backup_lost {
            let what = format!("{name} cannot be read, and may be the newest: {why}");
            say("backup", Level::Bad, what, "`nbak backup` makes another one; then look at it, and remove it by hand");
        }
        if let (Some((name, _)), Some(what)) = (&self.backup, &self.backup_lacks) {
            let remedy = "`nbak backup` makes another one; `nbak backup verify` looks at all of them";
            say("backup", Level::Bad, format!("{name} is not whole: {what}"), remedy);
        }
        self.say_what_backups_lack(&mut say);
        if let Some((name, _)) = self.backup.as_ref().filter(|_| self.backup_plain && config.encrypt) {
            let is_protected = self.store_error.is_none() && !self.unprotected;
            if is_protected {
                let what = format!("everyone who gets at {name} can read it: it is not encrypted, as the store is");
                let remedy = "`nbak backup` with a vault key makes one that is, then remove this one by hand; \
                              `backup_encrypt: false` says that it is meant";
                say("backup", Level::Bad, what, remedy);
            }
        }
        if let Some(name) = &self.backup_ahead {
            let remedy = "look whether the clock was wrong then; it is no sign of a new backup";
            say("backup", Level::Bad, format!("{name} is {NOT_COME}"), remedy);
        }
        for mistake in &config.mistakes {
            say("configuration", Level::Bad, mistake.clone(), "mend it: `nbak config show` says what counts");
        }
        for one in state.unusual.iter().filter(|one| !one.told || self.now.saturating_sub(one.at) < UNUSUAL_MS) {
            let (level, remedy) = if one.told {
                (Level::Note, "`nbak diff SNAP NEXT --anomalies` looks again")
            } else {
                (Level::Bad, "nobody could be told yet: see the channels in `nbak.notify`")
            };
            say("changes", level, one.text.replace('\n', " "), remedy);
        }
        self.say_proof(&mut say);
        match self.free {
            Some(free) if free < ROOM.max(self.store_bytes / 20) => say(
                "room",
                Level::Bad,
                format!("{} are free where the store is", size(free)),
                "make room: `nbak backup prune`, `nbak forget` and `nbak gc`, or another disk",
            ),
            Some(free) => say("room", Level::Good, format!("{} are free", size(free)), ""),
            None => {}
        }
        match &self.daemon {
            Some(process) => {
                let next = self.next.iter().map(|(job, at)| format!("{} at {}", job.as_str(), time(*at)));
                let next = next.collect::<Vec<_>>().join(", ");
                let late = self.next.iter().find(|(_, at)| at.saturating_add(LATE_MS) < self.now);
                let text = format!("process {process} runs as daemon; next: {next}");
                match (&self.hangs, late.filter(|_| state.running.is_none())) {
                    (Some((job, _, _)), _) => {
                        let text = format!("{text}: {} {}", job.as_str(), self.hanging().unwrap_or_default());
                        say("schedule", Level::Bad, text, HANGS);
                    }
                    (None, None) => say("schedule", Level::Good, text, ""),
                    (None, Some((job, _))) => {
                        let text = format!("{text}: the time of {} is over", job.as_str());
                        say("schedule", Level::Bad, text, "it hangs, or was stopped: start it anew");
                    }
                }
            }
            None => say(
                "schedule",
                Level::Note,
                "no daemon runs for this data directory".to_owned(),
                "`nbak daemon`, as a service (docs/OPERATIONS.md), or a timer for `nbak snapshot` and `nbak backup`",
            ),
        }
        for (what, last) in state.last.iter().filter(|(_, last)| last.failures > 0) {
            let times = if last.failures == 1 { String::new() } else { format!(", {} times", last.failures) };
            let remedy = match what.as_str() {
                "completeness" => "`nbak -v snapshots` names what is missing".to_owned(),
                "upload" => "`nbak backup gdrive upload` tries it again".to_owned(),
                "forget" | "gc" => "mend that: the next backup of the daemon tries it again".to_owned(),
                what => format!("mend that, and try it: `nbak {what}`"),
            };
            say("last runs", Level::Bad, format!("{what} failed{times}: {}", last.message), &remedy);
        }
        if config.gdrive && !self.granted {
            say(
                "Google Drive",
                Level::Note,
                "there is no access: backups stay on this machine".to_owned(),
                "`nbak auth google`, or `backup_gdrive: false` if that is meant",
            );
        } else if self.granted {
            say("Google Drive", Level::Good, "access was granted".to_owned(), "`nbak auth status` asks Google");
        }
        if !config.encrypt {
            say(
                "encryption",
                Level::Note,
                "documented backups are not encrypted".to_owned(),
                "remove `backup_encrypt: false` from the configuration",
            );
        }
        openers(places, &mut say);
        leftovers(places, &mut say);
        for path in &self.kept {
            let text = format!("a restore in place kept here what may be in no backup: {}", path.display());
            say("leftovers", Level::Note, text, "look at it, take from it what is needed, then remove the folder");
        }
        permissions(places, &mut say);
        say("SQLite", Level::Good, format!("version {}", rusqlite::version()), "");
        all
    }
}

impl Standing {
    /// What the newest backup lacks, and that a newer one is a mixture.
    fn say_what_backups_lack(&self, say: &mut Say<'_>) {
        if let Some((name, _)) = self.backup.as_ref().filter(|_| !self.backup_incomplete.is_none()) {
            let what = format!("the newest, {name}, is incomplete: {}", self.backup_incomplete);
            let remedy = "`nbak backup verify` names what; mend that, or exclude it, and make another one";
            say("backup", Level::Bad, what, remedy);
        }
        if let Some(name) = &self.backup_mixed {
            let what = format!("{name} is newer, and was made while a restore in place was half done");
            say("backup", Level::Bad, what, "`nbak backup` makes another one; then remove this one by hand");
        }
    }

    /// What a drill restored last, and whether that was all there was.
    fn say_proof(&self, say: &mut Say<'_>) {
        let ago = |at: i64| self.now.saturating_sub(at).max(0).unsigned_abs() / 86_400_000;
        let restored = |id: &str, at: i64| format!("{} was restored {} ago", &id[..8], count(ago(at), "day", "days"));
        if let Some((id, at, lacked)) = &self.proven_incomplete {
            let what = format!("snapshot {}, and is incomplete: {}", restored(id, *at), lacked);
            let before = match &self.proven {
                Some((id, at)) => format!("of the complete ones, {}", restored(id, *at)),
                None => "no complete one was restored yet".to_owned(),
            };
            let remedy = "`nbak drill` proves a complete one, once there is one";
            say("proof", Level::Note, format!("{what}; {before}"), remedy);
            return;
        }
        if self.store_is_closed {
            let what = "what was restored for the trial is not known: the store does not open".to_owned();
            return say("proof", Level::Note, what, "see the line about the store");
        }
        let Some((id, at)) = &self.proven else {
            let what = "no snapshot was restored for the trial yet".to_owned();
            return say("proof", Level::Note, what, "`nbak drill` does it");
        };
        let (level, remedy) =
            if ago(*at) > 30 { (Level::Note, "`nbak drill` proves a newer one") } else { (Level::Good, "") };
        say("proof", level, format!("snapshot {}", restored(id, *at)), remedy);
    }
}
