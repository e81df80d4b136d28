//! `daemon`, `startup`: what happens by itself.
//!
//! One daemon for a data directory. It talks to its supervisor as systemd asks for: when it is ready, that it lives,
//! that it reads its configuration again, that it ends.

use std::cell::Cell;
use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::unbounded;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::{Common, CreateArgs, StartupArgs};
use super::backup;
use super::context::Context;
use super::inplace::finish_or_warn;
use super::output;
use crate::config::layers::HAD_CONFIG;
use crate::drive::grant::FILE as GRANT;
use crate::error::{Error, Result};
use crate::export::dialect::Dialect;
use crate::notice::channels::Channels;
use crate::notice::event::Event;
use crate::notice::message::Notice;
use crate::schedule::child::{LOOK, Processes};
use crate::schedule::clock::{LONGEST, Machine, Woken};
use crate::schedule::daemon::Daemon;
use crate::schedule::health::DAEMON_LOCK;
use crate::schedule::startup::{Found, before_update, look};
use crate::schedule::watch::Teller;
use crate::snapshot::now::now_ms;
use crate::store::lock::WriterLock;
use crate::upkeep::remembered;

/// `status` holds the daemon's lock for a moment, to see whether it is free.
const MOMENT: Duration = Duration::from_secs(1);
/// The exit code of a start in a directory where a restore is half done.
const HALF_DONE: u8 = 3;

/// `daemon`.
pub fn daemon(common: &Common, context: &Context) -> Result<u8> {
    let data_dir = context.data_dir()?;
    if !data_dir.is_dir() {
        return Err(Error::failed("the data directory is not there").at(data_dir).hint("name it with --data-dir"));
    }
    let lock =
        WriterLock::acquire_at(&data_dir.join(DAEMON_LOCK), "running as daemon here", MOMENT).map_err(|error| {
            if !error.is_locked() {
                return error;
            }
            error.hint(
            "a data directory has one daemon, which does it all: `nbak status` says what it does next; if this one is \
             to take its place, end that one first (as a service: systemctl stop)",
        )
        })?;
    lock.sign();
    // What keeps every job from working is said now, and not at three in the morning. What is read here is what counts
    // until it is read again: a second look might find a file that is just being written.
    let config = context.config()?.clone();
    context.places()?;
    context.credentials()?;
    if let Err(error) = remembered::begin(&data_dir) {
        output::warning(format!("a store that is put back would not be noticed: {error}"));
    }
    let (give, signals) = unbounded();
    let mut asked = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| Error::failed("cannot listen for signals").because(error))?;
    let ends = Arc::new(AtomicBool::new(false));
    let ending = ends.clone();
    let listen = move || {
        for signal in &mut asked {
            if signal != SIGHUP {
                super::secrets::give_up();
            }
            if signal != SIGHUP && !ending.swap(true, Ordering::Relaxed) {
                let _ = sd_notify::notify(&[NotifyState::Stopping]);
            }
            let _ = give.send(if signal == SIGHUP { Woken::Reload } else { Woken::End });
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(Error::thread)?;
    let text = Arc::new(Mutex::new(String::new()));
    let alive = || drop(sd_notify::notify(&[NotifyState::Watchdog]));
    // Twice in the time after which the supervisor would take this process for dead.
    let often = sd_notify::watchdog_enabled().map_or(Duration::MAX, |time| time / 2);
    // One that is gone is no configuration that says nothing.
    let config_file = data_dir.join("config.json");
    let had_config = Cell::new(config_file.exists());
    let work = Processes {
        variables: &|| if had_config.get() { vec![(HAD_CONFIG, "1")] } else { Vec::new() },
        program: std::env::current_exe()
            .map_err(|error| Error::failed("cannot find this program").because(error))?
            .into(),
        common: passed_on(common),
        signals: signals.clone(),
        alive: &alive,
        look: LOOK.min(often),
    };
    let log = |line: &str| output::message(line);
    // What is wrong with the configuration is said when it is read for the daemon itself, and not at every look.
    let fresh = || Context::new(common).without_warnings();
    let load = || {
        alive();
        let begins = NotifyState::monotonic_usec_now().map(|now| sd_notify::notify(&[NotifyState::Reloading, now]));
        let mut read = Context::new(common).own_config();
        let is_there = std::fs::symlink_metadata(&config_file).is_ok();
        if let Ok(read) = &mut read {
            read.unreadable |= had_config.get() && !is_there;
        }
        had_config.set(had_config.get() || is_there);
        let _ = begins.map(|_| sd_notify::notify(&[NotifyState::Ready]));
        match &read {
            Ok(read) if !read.unreadable => log("the configuration was read again"),
            _ => log("warning: the configuration cannot be read: what it said before stays in force"),
        }
        read
    };
    let granted = || data_dir.join(GRANT).exists();
    let places = || fresh().places();
    let credentials = || fresh().credentials();
    let clock = Alive { clock: Machine { signals }, word: &alive, often: LONGEST.min(often) };
    let running = Daemon { data_dir: &data_dir, clock: &clock, work: &work, load: &load, granted: &granted };
    let mistakes = || {
        let read = fresh().own_config();
        let mut all = read.map_or_else(|error| vec![error.to_string()], |config| config.mistakes);
        if had_config.get() && std::fs::symlink_metadata(&config_file).is_err() {
            all.push(format!(
                "{} is gone: what it said stays in force here, as far as that can be",
                config_file.display()
            ));
        }
        all
    };
    let mut teller = Teller {
        host: super::drive::machine(),
        data_dir: &data_dir,
        places: &places,
        known: None,
        mistakes: &mistakes,
        warned: std::collections::BTreeMap::new(),
        credentials: &credentials,
        log: &log,
        metrics: text,
        port: None,
        ends: &|| {
            alive();
            ends.load(Ordering::Relaxed)
        },
    };
    log(&format!(
        "daemon of {}: backups at `{}`, snapshots {}",
        data_dir.display(),
        config.backup_schedule.as_str(),
        config.snapshot_schedule.as_ref().map_or("never".to_owned(), |at| format!("at `{}`", at.as_str()))
    ));
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    running.run(config, &mut teller)?;
    log("daemon ends");
    Ok(0)
}

/// A clock that says at every look that this process lives.
struct Alive<'a> {
    clock: Machine,
    word: &'a dyn Fn(),
    often: Duration,
}

impl crate::schedule::clock::Clock for Alive<'_> {
    fn now(&self) -> i64 {
        self.clock.now()
    }

    fn wait(&self, most: Duration) -> Woken {
        (self.word)();
        self.clock.wait(most.min(self.often))
    }

    fn ran(&self) -> Option<i64> {
        self.clock.ran()
    }
}

/// What was given to the daemon goes to each of its jobs; secrets were never among it.
fn passed_on(common: &Common) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut path = |flag: &str, value: &std::path::Path| {
        args.push(flag.into());
        args.push(std::path::absolute(value).unwrap_or_else(|_| value.to_path_buf()).into());
    };
    common.data_dir.iter().for_each(|value| path("--data-dir", value));
    common.repo.iter().for_each(|value| path("--repo", value));
    common.vault_key_file.iter().for_each(|value| path("--vault-key-file", value));
    common.passphrase_file.iter().for_each(|value| path("--passphrase-file", value));
    if let Some(command) = &common.vault_key_command {
        args.extend(["--vault-key-command".into(), command.into()]);
    }
    args.extend(["--lock-wait".into(), common.lock_wait.to_string().into()]);
    args
}

/// `startup`.
pub fn startup(context: &Context, args: &StartupArgs) -> Result<u8> {
    let data_dir = context.data_dir()?;
    // Where nothing ran yet there may be nothing yet: what is above it is there, or the name is wrong.
    match std::fs::DirBuilder::new().mode(0o700).create(&data_dir) {
        Ok(()) => context.say(format!("{} was not there: nothing ran here before", data_dir.display())),
        Err(_) if data_dir.is_dir() => {}
        Err(error) => return Err(Error::io("make the data directory", &data_dir, error)),
    }
    let name = match Dialect::of_data_dir(&data_dir) {
        Dialect::Nodyn => "nodyn",
        Dialect::Lynox => "lynox",
    };
    let version = args.app_version.as_str();
    // Before it starts nobody has anything open yet. A backup sees to it itself; and which version ran last may be
    // among what is restored, so it is asked again.
    let half_done = match look(&data_dir, version)? {
        Found::Other(_) => None,
        Found::First | Found::Same => finish_or_warn(context, false),
    };
    let (found, code) = before_update(&data_dir, version, |last| {
        let last = if last.is_empty() { "unknown" } else { last };
        if !context.json {
            output::line(format!("[{name}] Version changed ({last} → {version}) — creating pre-update backup..."));
        }
        let (path, code, is_one) = backup::create_for(context, &CreateArgs::default())?;
        if !context.json {
            output::line(format!("[{name}] Pre-update backup created: {}", path.display()));
        }
        if !is_one {
            output::warning("no version is noted: nobody goes back to such a backup, so the next start makes another");
        }
        Ok((code, is_one))
    })?;
    if context.json && !matches!(found, Found::Other(_)) {
        let first = found == Found::First;
        output::json(&serde_json::json!({"changed": false, "first": first, "pending_restore": half_done}));
    }
    Ok(code.unwrap_or(if half_done.is_some() { HALF_DONE } else { 0 }))
}

/// `notify`: a test to every channel.
pub fn notify(context: &Context) -> Result<u8> {
    let config = context.config()?;
    // One that is wrong keeps no other from telling; it was said when the configuration was read.
    let channels = Channels::parse_good(&serde_json::Value::Array(config.notify.clone()));
    let mistakes = Channels::mistakes(&config.notify);
    if channels.is_empty() && mistakes.is_empty() {
        return Err(Error::usage("`nbak.notify` names no channel").hint("docs/OPERATIONS.md shows how"));
    }
    let notice = Notice {
        event: Event::Test,
        host: super::drive::machine(),
        data_dir: context.data_dir()?.to_string_lossy().into_owned(),
        title: "nbak: a test".to_owned(),
        text: "If you read this, you are told of trouble.".to_owned(),
        when_ms: now_ms(),
        facts: std::collections::BTreeMap::new(),
    };
    let outcomes = channels.send(&notice);
    for outcome in &outcomes {
        if context.json {
            output::json(
                &serde_json::json!({"channel": outcome.channel, "told": outcome.is_told(), "error": outcome.error}),
            );
        } else {
            let how = outcome.error.as_deref().unwrap_or("told");
            output::line(format!("{}: {how}", outcome.channel));
        }
    }
    if let Some(mistake) = mistakes.first() {
        return Err(Error::usage(format!("`nbak.notify` {mistake}: it tells nobody")).hint("mend config.json"));
    }
    Ok(u8::from(outcomes.iter().any(|outcome| !outcome.is_told())))
}
