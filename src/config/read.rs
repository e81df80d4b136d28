//! Values out of what the layers say, and the mistakes in it.
//!
//! A value that cannot be understood is as if it was not said, with a warning; the layer below it counts. Retention is
//! the exception: what is meant is not known, and so nothing is removed.

use std::path::PathBuf;

use jiff::tz::TimeZone;
use serde_json::Value;

use super::cron::Schedule;
use super::keys::{KEYS, Key, Kind, find};
use super::layers::{Layers, Origin};
use crate::notice::channels::Channels;
use crate::source::exclude::{Exclusions, NO_EXCEPTION};
use crate::source::named;
use crate::upkeep::policy::parse_duration;

/// What is set.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own, in a file that people write")]
pub struct Config {
    /// Where backups go.
    pub backup_dir: Option<PathBuf>,
    /// When a documented backup is made.
    pub backup_schedule: Schedule,
    /// Days to keep documented backups; 0 keeps them for ever.
    pub retention_days: u32,
    /// How long they are kept was said by this, or may have been, and could not be understood: then that is 0.
    pub days_unknown: Option<Origin>,
    /// Encrypt documented backups. Without a vault key none is made of a protected store, unless this says `false`.
    pub encrypt: bool,
    /// Upload documented backups, if access to Google Drive was granted.
    pub gdrive: bool,
    /// Who this program is for Google: client id and secret.
    pub google_client: (Option<String>, Option<String>),
    /// What the data directory is called beside its path.
    pub name: Option<String>,
    /// That was said, and could not be understood; or what says it could not be read.
    pub name_unknown: bool,
    /// It was said that it has no name.
    pub unnamed: bool,
    /// Globs that are left out.
    pub exclude: Vec<String>,
    /// Compress every file apart from all others.
    pub separate_files: bool,
    /// When a snapshot is taken, if at all.
    pub snapshot_schedule: Option<Schedule>,
    /// The time zone of the schedules; that of the machine if none is named. To find that one takes longer than all
    /// else here, and most commands need none.
    pub timezone: Option<TimeZone>,
    /// A backup begins up to so many seconds later.
    pub jitter: u64,
    /// Which snapshots are kept; none if all are.
    pub keep: Option<Keep>,
    /// When a snapshot is restored for a proof.
    pub drill: When,
    /// When the store is pushed to Google Drive.
    pub gdrive_push: When,
    /// Hours without a backup that are told; 0 for never.
    pub stale_hours: u64,
    /// Who is told of trouble.
    pub notify: Vec<Value>,
    /// Hours after which trouble that lasts is told again.
    pub notify_again_hours: u64,
    /// Where metrics are written.
    pub metrics_file: Option<PathBuf>,
    /// The port on loopback where they can be read; 0 for none.
    pub metrics_port: u16,
    /// The user's file is there, and could not be understood: what it says of the store's place is not known.
    pub unreadable: bool,
    /// Where backups go was said, and could not be understood.
    pub place_unknown: bool,
    /// What is wrong with it, in words.
    pub mistakes: Vec<String>,
    /// Every key, what counts, and who set it.
    pub shown: Vec<(&'static Key, Value, Origin)>,
}

/// Which snapshots are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many.
    pub last: u64,
    /// All that are younger than this; empty for none.
    pub within: String,
    /// One of each hour, and so on.
    pub hourly: u64,
    /// One of each day.
    pub daily: u64,
    /// One of each week.
    pub weekly: u64,
    /// One of each month.
    pub monthly: u64,
}

/// When something is done besides.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// Never.
    Never,
    /// After each documented backup.
    AfterBackup,
    /// After each snapshot.
    AfterSnapshot,
    /// By its own schedule.
    At(Schedule),
}

struct Reading {
    layers: Layers,
    /// Who said a value last that counts for nothing, since it could not be understood.
    bad: Option<Origin>,
    /// The same, of the name of the data directory.
    bad_name: bool,
    shown: Vec<(&'static Key, Value, Origin)>,
}

/// Who names them by hand, or a policy, says what is meant.
const BUT: &str = ", unless `nbak forget` is told which";

/// What the layers say, and the mistakes in it, with file and line.
pub fn read(layers: Layers) -> (Config, Vec<String>) {
    let unreadable = layers.unreadable.is_some();
    let mut reading = Reading { layers, bad: None, bad_name: false, shown: Vec::new() };
    let mut config = reading.config(unreadable);
    config.mistakes.clone_from(&reading.layers.warnings);
    (config, reading.layers.warnings)
}

fn text(value: &Value) -> Result<String, String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned).ok_or_else(|| "is not a text".to_owned())
}

fn path(value: &Value) -> Result<PathBuf, String> {
    text(value).map(PathBuf::from).map_err(|_| "is not a path".to_owned())
}

fn switch(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "is neither true nor false".to_owned())
}

fn count(value: &Value, most: u64) -> Result<u64, String> {
    value.as_u64().filter(|n| *n <= most).ok_or_else(|| format!("is no whole number from 0 to {most}"))
}

fn schedule(value: &Value) -> Result<Schedule, String> {
    Schedule::parse(&text(value)?)
}

fn own_schedule_or_false(value: &Value) -> Result<Option<Schedule>, String> {
    if value == &Value::Bool(false) || value.as_str() == Some("false") {
        return Ok(None);
    }
    Schedule::parse_own(&text(value)?).map(Some)
}

fn when(value: &Value, kind: Kind) -> Result<When, String> {
    let Kind::OneOf(words, cron) = kind else { return Err("has no such value".to_owned()) };
    match value.as_str() {
        _ if value == &Value::Bool(false) => Ok(When::Never),
        Some("false") => Ok(When::Never),
        Some("after_backup") => Ok(When::AfterBackup),
        Some("after_snapshot") if words.contains(&"after_snapshot") => Ok(When::AfterSnapshot),
        Some(text) if cron => Schedule::parse_own(text).map(When::At),
        _ => Err(format!("is neither false nor one of: {}", words.join(", "))),
    }
}

impl Reading {
    /// The value of a key: what the highest layer says that can be understood.
    fn pick<T>(&mut self, path: &'static str, default: T, read: impl Fn(&Value) -> Result<T, String>) -> T {
        self.pick_or(path, default, read, None)
    }

    /// The same; if something was said that cannot be understood, `otherwise`.
    fn pick_or<T>(
        &mut self,
        path: &'static str,
        default: T,
        read: impl Fn(&Value) -> Result<T, String>,
        otherwise: Option<T>,
    ) -> T {
        let key = find(path).expect("the code reads the keys of the table");
        let (mut value, mut shown) = (default, (Value::String(key.default.to_owned()), Origin::Default));
        let mut bad: Option<Origin> = None;
        for (said, origin) in self.layers.say(path, key.project) {
            // What removes something is not for a stranger to mend.
            if bad.is_some() && otherwise.is_some() && self.layers.is_project(&origin) {
                continue;
            }
            match read(&said) {
                Ok(read) => (value, shown, bad) = (read, (said, origin), None),
                Err(why) => {
                    let then = if otherwise.is_some() { ": nothing is removed" } else { "" };
                    self.layers.warnings.push(format!("{origin}: `{path}` {why}{then}"));
                    bad = Some(origin);
                }
            }
        }
        if key.secret && shown.1 != Origin::Default {
            shown.0 = Value::String("(set)".to_owned());
        }
        self.bad = bad.clone().or_else(|| self.bad.take());
        if let (Some(origin), Some(otherwise)) = (bad, otherwise) {
            self.shown.push((key, Value::String("nothing is removed".to_owned()), origin));
            return otherwise;
        }
        self.shown.push((key, shown.0, shown.1));
        value
    }

    fn count(&mut self, path: &'static str) -> u64 {
        let key = find(path).expect("the code reads the keys of the table");
        let most = if let Kind::Count(most) = key.kind { most } else { u64::MAX };
        let default = key.default.parse().unwrap_or(0);
        self.pick(path, default, |value| count(value, most))
    }

    fn schedule_of(key: &str) -> Schedule {
        let default = find(key).map_or("@daily", |key| key.default);
        Schedule::parse(default).expect("the defaults of the table are schedules")
    }

    fn config(&mut self, unreadable: bool) -> Config {
        let some_text = |value: &Value| text(value).map(Some);
        let some_path = |value: &Value| path(value).map(Some);
        let kind = |path| find(path).map_or(Kind::Text, |key: &Key| key.kind);
        let backup_dir = self.pick("backup_dir", None, some_path);
        let place_unknown = self.bad.is_some();
        let (retention_days, days_unknown) = self.days();
        let name = self.name();
        let unnamed = name.as_deref() == Some("");
        let name_unknown = self.bad_name || unreadable && name.is_none();
        let name = name.filter(|_| !unnamed);
        let config = Config {
            backup_dir,
            place_unknown,
            name,
            name_unknown,
            unnamed,
            backup_schedule: self.pick("backup_schedule", Self::schedule_of("backup_schedule"), schedule),
            retention_days,
            days_unknown,
            encrypt: self.pick("backup_encrypt", true, switch),
            gdrive: self.pick("backup_gdrive", true, switch),
            google_client: (
                self.pick("google_client_id", None, some_text),
                self.pick("google_client_secret", None, some_text),
            ),
            exclude: self.exclude(),
            separate_files: self.pick("nbak.separate_files", false, switch),
            snapshot_schedule: self.pick(
                "nbak.snapshot_schedule",
                Some(Self::schedule_of("nbak.snapshot_schedule")),
                own_schedule_or_false,
            ),
            timezone: self.pick("nbak.timezone", None, |value| {
                let name = text(value)?;
                TimeZone::get(&name).map(Some).map_err(|_| format!("names no time zone: `{name}`"))
            }),
            jitter: self.count("nbak.jitter_seconds"),
            keep: self.keep(),
            drill: self.pick("nbak.drill", When::AfterBackup, |value| when(value, kind("nbak.drill"))),
            gdrive_push: self.pick("nbak.gdrive_push", When::Never, |value| when(value, kind("nbak.gdrive_push"))),
            stale_hours: self.count("nbak.stale_hours"),
            notify: self.channels(),
            notify_again_hours: self.count("nbak.notify_again_hours"),
            metrics_file: self.pick("nbak.metrics_file", None, some_path),
            metrics_port: self.count("nbak.metrics_port") as u16,
            unreadable,
            mistakes: Vec::new(),
            shown: Vec::new(),
        };
        let order = |path: &str| KEYS.iter().position(|key| key.path == path);
        let mut shown = std::mem::take(&mut self.shown);
        shown.sort_by_key(|(key, _, _)| order(key.path));
        Config { shown, ..config }
    }

    /// An empty one says that there is none. One that cannot be understood does not let a lower layer's count: that
    /// may be another's.
    fn name(&mut self) -> Option<String> {
        let earlier = self.bad.take();
        let read = |value: &Value| match value {
            Value::String(said) if said.is_empty() => Ok(Some(String::new())),
            _ => text(value).and_then(|text| named::name(&text)).map(Some),
        };
        let name = self.pick("nbak.name", None, read);
        self.bad_name = std::mem::replace(&mut self.bad, earlier).is_some();
        if self.bad_name {
            if let Some((_, value, _)) = self.shown.last_mut() {
                *value = Value::String("not known".to_owned());
            }
            self.layers.warnings.push(
                "until the configuration is mended this data directory has the name that it had last, if that is \
                 remembered, and no snapshot is forgotten nor backup removed for its age"
                    .to_owned(),
            );
            return None;
        }
        name
    }

    /// What may be meant by a name that is not known removes nothing. And who said what is not understood.
    fn days(&mut self) -> (u32, Option<Origin>) {
        let read = |value: &Value| count(value, 365).map(|days| days as u32);
        self.bad = None;
        let days = self.pick_or("backup_retention_days", 30, read, Some(0));
        let Some(unclear) = self.layers.unreadable.clone().or_else(|| self.layers.unclear_days.clone()) else {
            return (days, self.bad.take());
        };
        if let Some((_, value, _)) = self.shown.last_mut() {
            *value = Value::String("nothing is removed".to_owned());
        }
        let what = "no backup is removed until the configuration is mended, unless `--days` says which";
        self.layers.warnings.push(what.to_owned());
        (0, Some(unclear))
    }

    /// One glob that means nothing, or everything, must not keep anybody from a backup.
    fn exclude(&mut self) -> Vec<String> {
        let globs = self.pick("nbak.exclude", Vec::new(), |value| {
            let globs = value.as_array().filter(|globs| globs.iter().all(Value::is_string));
            let globs = globs.ok_or_else(|| "is not a list of globs".to_owned())?;
            Ok(globs.iter().filter_map(|glob| glob.as_str().map(str::to_owned)).collect())
        });
        let origin = self.shown.last().map(|(_, _, origin)| origin.to_string()).unwrap_or_default();
        let mut good = Vec::new();
        for glob in globs {
            let why = if glob.trim_matches(['/', '.', ' ', '*']).is_empty() {
                Some("it would leave out everything".to_owned())
            } else if glob.starts_with('!') {
                Some(NO_EXCEPTION.to_owned())
            } else {
                Exclusions::new(Vec::new(), std::slice::from_ref(&glob)).err().map(|error| error.to_string())
            };
            match why {
                None => good.push(glob),
                Some(why) => self.layers.warnings.push(format!(
                    "{origin}: `nbak.exclude` has `{glob}`, which is left aside, so that it leaves out nothing: {why}"
                )),
            }
        }
        good
    }

    /// A mistake in one channel keeps no other from telling.
    fn channels(&mut self) -> Vec<Value> {
        let all = self.pick("nbak.notify", Vec::new(), |value| {
            value.as_array().cloned().ok_or_else(|| "is no list of channels".to_owned())
        });
        let origin = self.shown.last().map(|(_, _, origin)| origin.to_string()).unwrap_or_default();
        for mistake in Channels::mistakes(&all) {
            self.layers.warnings.push(format!("{origin}: `nbak.notify` {mistake}: it tells nobody"));
        }
        all
    }

    /// `keep: false` keeps all; so does what cannot be understood.
    fn keep(&mut self) -> Option<Keep> {
        let warnings = self.layers.warnings.len();
        self.bad = None;
        let keep = Keep {
            last: self.count("nbak.keep.last"),
            within: self.pick("nbak.keep.within", "2d".to_owned(), |value| {
                let text = text(value)?;
                parse_duration(&text).map(|_| text).map_err(|error| format!("is no duration: {error}"))
            }),
            hourly: self.count("nbak.keep.hourly"),
            daily: self.count("nbak.keep.daily"),
            weekly: self.count("nbak.keep.weekly"),
            monthly: self.count("nbak.keep.monthly"),
        };
        let is_bad = self.layers.warnings.len() > warnings || self.layers.unclear_keep;
        let said = self.layers.say("nbak.keep", false).pop();
        let unreadable = self.layers.unreadable.is_some();
        let mut warn = |text: String| self.layers.warnings.push(text);
        // What is shown then is not what counts.
        let why = match said {
            _ if unreadable => {
                warn(format!("no snapshot is forgotten until the configuration can be read{BUT}"));
                "all, until the configuration can be read"
            }
            Some((Value::Bool(false), _)) => "all",
            None | Some((Value::Object(_), _)) if !is_bad => return Some(keep),
            None | Some((Value::Object(_), _)) => {
                let what = "a mistake in `nbak` may be in what is meant for `nbak.keep`";
                warn(format!("{what}: no snapshot is forgotten until it is mended{BUT}"));
                "all, until the mistake is mended"
            }
            Some((_, ref origin)) => {
                warn(format!("{origin}: `nbak.keep` is neither false nor an object: no snapshot is forgotten{BUT}"));
                "all, until the mistake is mended"
            }
        };
        let mistake = self.bad.take();
        let origin = mistake.or(said.map(|(_, origin)| origin)).unwrap_or(Origin::Default);
        for (_, value, from) in self.shown.iter_mut().filter(|(key, _, _)| key.path.starts_with("nbak.keep.")) {
            (*value, *from) = (Value::String(why.to_owned()), origin.clone());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn layered(user: &str, project: Option<&str>, environment: &[(&str, &str)]) -> (Config, Vec<String>) {
        let mut layers = Layers::default();
        layers.add_file(Path::new("user.json"), Ok(user.to_owned()), false);
        if let Some(project) = project {
            layers.add_file(Path::new("project.json"), Ok(project.to_owned()), true);
        }
        layers.add_environment(&|name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        });
        read(layers)
    }

    fn of(user: &str) -> (Config, Vec<String>) {
        layered(user, None, &[])
    }

    #[test]
    fn configuration_mistakes_are_warnings() {
        let (config, warnings) = of(r#"{"backup_dir": "~/b", "nbak": {"exclude": ["*.tmp"]}, "other": 1}"#);
        assert_eq!((config.backup_dir, config.exclude), (Some(PathBuf::from("~/b")), vec!["*.tmp".to_owned()]));
        assert!(warnings.is_empty());
        let (config, warnings) = of("{\"backup_dir\": 3,\n \"nbak\": {\n\"exclude\": \"x\", \"what\": 1}}");
        assert_eq!((config.backup_dir, warnings.len(), config.keep), (None, 4, None), "{warnings:?}");
        for (place, key) in
            [("user.json:1", "backup_dir"), ("user.json:3", "nbak.exclude"), ("user.json:3", "nbak.what")]
        {
            assert!(warnings.iter().any(|line| line.starts_with(place) && line.contains(key)), "{key}: {warnings:?}");
        }
        let (config, warnings) = of(r#"{"backup_retention_days": 0, "nbak": {"keep": false,}}"#);
        assert_eq!((config.keep, config.unreadable), (None, true), "nothing is forgotten: {warnings:?}");
        assert_eq!((config.mistakes, warnings.is_empty()), (warnings.clone(), false));
        let (config, warnings) =
            of(r#"{"nbak": {"notify": [{"kind": "pigeon"}, {"kind": "command", "command": "x"}]}}"#);
        let told = Channels::parse_good(&Value::Array(config.notify)).len();
        assert!(told == 1 && warnings.len() == 1 && warnings[0].contains("channel 1 of 2"), "{warnings:?}");
        let (config, warnings) = of(r#"{"nbak": {"exclude": ["*.a", "[", "/", "*.b"]}}"#);
        assert_eq!((config.exclude.join(" "), warnings.len()), ("*.a *.b".to_owned(), 2), "{warnings:?}");
        assert!(of("{\n\n,").1[0].starts_with("user.json:3") && of("{\n\n,").0.unreadable);
        assert_eq!(of("\u{feff}{}").1.len(), 0);
        assert!(of("[]").0.unreadable);
    }

    #[test]
    fn what_would_remove_something_is_left_undone() {
        let (config, warnings) = of(r#"{"backup_retention_days": 500, "nbak": {"keep": {"daily": "all"}}}"#);
        assert_eq!((config.retention_days, config.keep, warnings.len()), (0, None, 3), "{warnings:?}");
        assert_eq!(of(r#"{"nbak": {"keep": false}}"#).0.keep, None);
        assert_eq!(of(r#"{"nbak": {"keep": {"within": "eternity"}}}"#).0.keep, None);
        // And what is shown is what counts.
        let shown = |config: &str, path: &str| {
            let all = of(config).0.shown;
            all.into_iter().find(|(key, _, _)| key.path == path).map(|(_, value, _)| value.to_string()).expect("shown")
        };
        assert!(shown(r#"{"nbak": {"keep": false}}"#, "nbak.keep.daily").contains("all"));
        assert!(shown(r#"{"nbak": {"keep": {"daily": "all"}}}"#, "nbak.keep.hourly").contains("mended"));
        assert!(shown(r#"{"backup_retention_days": 500}"#, "backup_retention_days").contains("nothing is removed"));
        let keep = of(r#"{"nbak": {"keep": {"daily": 3}}}"#).0.keep.expect("a policy");
        assert_eq!((keep.daily, keep.hourly, keep.within.as_str()), (3, 72, "2d"));
        // So is what may be about it, by a name or of a form that is not known.
        for unclear in [
            r#"{"nbak.keep": false, "nbak": {}}"#,
            r#"{"nbak": {"keep": {"dayly": 1000}}}"#,
            r#"{"nbak": {"kepp": false}}"#,
            r#"{"nbak": []}"#,
            r#"{"Nbak": {"keep": false}}"#,
            r#"{"nbak": {"keep": false}, "nbak": {}}"#,
        ] {
            let (config, warnings) = of(unclear);
            assert!(config.keep.is_none() && !warnings.is_empty(), "{unclear}: {warnings:?}");
        }
        for unclear in [r#"{"backup_retention_day": 0}"#, r#"{"Backup_Retention_Days": 0}"#] {
            let (config, warnings) = of(unclear);
            assert!(config.retention_days == 0 && config.keep.is_some() && !warnings.is_empty(), "{unclear}");
        }
        assert_eq!(layered("{}", None, &[("NBAK_KEEP", "false")]).0.keep, None);
        let (config, _) =
            layered(r#"{"backup_retention_days": "never"}"#, Some(r#"{"backup_retention_days": 1}"#), &[]);
        assert_eq!(config.retention_days, 0, "a stranger's file mends nothing");
        assert!(of(r#"{"backup_dir": ["/b"]}"#).0.place_unknown && !of(r#"{"backup_dir": "/b"}"#).0.place_unknown);
        assert!(of(r#"{"nbak": {"exclude": ["*", "**/*"]}}"#).0.exclude.is_empty());
        // A higher layer that is understood mends a lower one that is not.
        let (config, _) = layered(r#"{"backup_retention_days": "x"}"#, None, &[("NBAK_BACKUP_RETENTION_DAYS", "9")]);
        assert_eq!(config.retention_days, 9);
    }

    #[test]
    fn a_higher_layer_wins_and_a_project_may_not_all() {
        let user = r#"{"backup_dir": "/u", "backup_schedule": "@daily", "backup_gdrive": true}"#;
        let project = "{\"backup_dir\": \"/p\",\n\"backup_encrypt\": false, \"backup_gdrive\": false}";
        let environment = [("NBAK_BACKUP_SCHEDULE", "0 4 * * *"), ("GOOGLE_CLIENT_ID", "me"), ("NBAK_DRILL", "false")];
        let (config, warnings) = layered(user, Some(project), &environment);
        assert_eq!(config.backup_dir, Some(PathBuf::from("/p")));
        assert_eq!((config.backup_schedule.as_str(), config.encrypt, config.gdrive), ("0 4 * * *", false, true));
        assert_eq!((config.google_client.0.as_deref(), config.drill), (Some("me"), When::Never));
        assert!(warnings.iter().any(|line| line.contains("project.json:2") && line.contains("encryption")));
        assert!(warnings.iter().any(|line| line.contains("project.json:1") && line.contains("where backups lie")));
        assert!(warnings.iter().any(|line| line.contains("`backup_gdrive` cannot be set by a project")));
        let origin = |path| config.shown.iter().find(|(key, _, _)| key.path == path).expect("shown").2.to_string();
        assert_eq!(origin("backup_dir"), "project.json:1");
        assert_eq!(origin("backup_schedule"), "$NBAK_BACKUP_SCHEDULE");
        assert_eq!(origin("nbak.exclude"), "default");
        assert_eq!(config.shown.len(), KEYS.len());
        let (config, warnings) = layered("{}", Some(r#"{"nbak": {"keep": false}}"#), &[]);
        assert!(
            config.keep.is_some() && warnings[0].contains("`nbak.keep` cannot be set by a project"),
            "{warnings:?}"
        );
    }

    #[test]
    fn variables_that_set_nothing_are_told() {
        let mut layers = Layers::default();
        let names = ["NBAK_KEEP_DAILY", "NBAK_KEEP_DAYLY", "NBAK_REPO", "NBAK_TEST_ROUNDS", "PATH"];
        layers.warn_of_variables(names.into_iter().map(str::to_owned));
        assert!(layers.warnings.len() == 1 && layers.warnings[0].contains("NBAK_KEEP_DAYLY"), "{:?}", layers.warnings);
    }

    #[test]
    fn secrets_are_not_shown() {
        let (config, _) =
            of(r#"{"google_client_secret": "hush", "nbak": {"notify": [{"kind": "ntfy", "url": "https://h/hush"}]}}"#);
        assert!(!format!("{:?}", config.shown).contains("hush"));
    }
}
