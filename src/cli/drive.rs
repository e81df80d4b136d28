//! `auth`, `backup gdrive` and `gdrive`: what of it goes to Google Drive, and comes back.
//!
//! Whatever goes wrong there is exit code 14: what was done on this machine stands. One process at a time talks to
//! Drive for a data directory; two that upload the same would make it twice.

use std::path::Path;

use serde_json::json;
use zeroize::Zeroizing;

use super::args::{BackupRestoreArgs, Gdrive, RateArgs};
use super::backup::{restore_this, tell_backup};
use super::context::Context;
use super::output::{self, count, line, shown, size};
use crate::drive::access::{Access, App};
use crate::drive::api::Drive;
use crate::drive::backups::{Backups, Stored, Uploaded};
use crate::drive::bases::Bases;
use crate::drive::grant::{FILE as GRANT, Keeper};
use crate::drive::http::Http;
use crate::drive::limit::Limit;
use crate::drive::retry::Patience;
use crate::drive::sessions::{FILE as UPLOADS, Sessions, Waiting};
use crate::error::{Error, Result};
use crate::export::backup::Backup;
use crate::export::files::rename_new;
use crate::snapshot::progress::Progress;
use crate::snapshot::take::now_ms;
use crate::store::lock::WriterLock;

pub mod auth;
pub mod store;

/// Held while this process talks to Drive for a data directory.
const LOCK: &str = ".nbak-drive.lock";
/// Where downloads lie until they are complete, in the backup directory.
const DOWNLOADS: &str = ".nbak-gdrive";

/// One conversation with Drive.
struct Line {
    drive: Drive,
    sessions: Sessions,
    _lock: WriterLock,
}

impl Line {
    fn open(context: &Context, rate: &RateArgs) -> Result<Line> {
        let data = context.data_dir()?;
        let access = Access::open(app(context)?, keeper(context)?)?;
        let lock = WriterLock::acquire_at(&data.join(LOCK), "talking to Google Drive", context.patience())?;
        lock.sign();
        let http = Http::new(Limit::new(rate.limit_rate))?;
        let drive = Drive::new(http, Bases::from_env()?, access, Patience::default());
        Ok(Line { drive, sessions: Sessions::open(data.join(UPLOADS)), _lock: lock })
    }

    fn backups(&self) -> Backups<'_> {
        Backups { drive: &self.drive, sessions: &self.sessions }
    }
}

/// Who this program is for Google: as the environment says, or the configuration.
fn app(context: &Context) -> Result<App> {
    let (Some(id), Some(secret)) = &context.config()?.google_client else {
        return Err(Error::usage("it is not known which Google client this is").hint(
            "make one in the Google Cloud console (APIs and services, credentials, OAuth client: desktop app, or TVs \
             and limited input devices for --device), switch the Google Drive API on, and set GOOGLE_CLIENT_ID and \
             GOOGLE_CLIENT_SECRET, or google_client_id and google_client_secret in config.json",
        ));
    };
    Ok(App { id: id.clone(), secret: Zeroizing::new(secret.clone()) })
}

fn keeper(context: &Context) -> Result<Keeper> {
    Ok(Keeper::new(&context.data_dir()?, context.credentials()?))
}

/// Uploads a backup that was just made, if that is wanted and there is access; and those that could not be before.
pub fn after_backup(context: &Context, backup: &Path, rate: &RateArgs) -> Option<Result<Uploaded>> {
    let wanted = context.config().is_ok_and(|config| config.gdrive);
    let granted = context.data_dir().is_ok_and(|data| data.join(GRANT).exists());
    (wanted && granted).then(|| upload_waiting(context, backup, rate).map_err(Error::into_remote))
}

fn upload_waiting(context: &Context, backup: &Path, rate: &RateArgs) -> Result<Uploaded> {
    let name = backup.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let waiting = Waiting::of(&context.data_dir()?);
    // Noted before anything can fail, so that the next run knows of it.
    let folder = backup.parent().unwrap_or(Path::new("."));
    waiting.add(&name, folder)?;
    let line = Line::open(context, rate)?;
    let (mut all, mut damaged) = (Uploaded::default(), None);
    for (name, folder) in waiting.all() {
        let path = folder.join(&name);
        if !path.is_dir() {
            output::warning(format!("backup {name} is gone, and was never uploaded whole: {}", path.display()));
            waiting.remove(&name);
            continue;
        }
        match Backup::open(&path).and_then(|backup| upload_one(context, &line, &backup)) {
            Ok(one) => {
                all.files += one.files;
                all.bytes += one.bytes;
                all.kept += one.kept;
            }
            // It is said once, and keeps no other back.
            Err(error) if error.is_integrity() => {
                waiting.remove(&name);
                damaged = damaged.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    damaged.map_or(Ok(all), Err)
}

fn upload_one(context: &Context, line: &Line, backup: &Backup) -> Result<Uploaded> {
    let bars = context.bars();
    let files = backup.manifest.files.iter().filter(|entry| !entry.kind.is_directory());
    bars.begin("uploading", files.map(|entry| entry.size).sum());
    let uploaded = line.backups().upload(backup, &|bytes| bars.advance(bytes));
    bars.end();
    let uploaded = uploaded?;
    Waiting::of(&context.data_dir()?).remove(&backup.name);
    Ok(uploaded)
}

/// What an upload did, in words.
pub fn said(uploaded: &Uploaded) -> String {
    let there = if uploaded.kept > 0 { format!(", {} were there already", uploaded.kept) } else { String::new() };
    format!("uploaded to Google Drive: {} of {}{there}", count(uploaded.files, "file", "files"), size(uploaded.bytes))
}

/// `backup gdrive`.
pub fn backups(context: &Context, action: Gdrive) -> Result<u8> {
    match action {
        Gdrive::List => list(context),
        Gdrive::Upload { name, rate } => upload(context, name.as_deref(), &rate),
        Gdrive::Restore { restore, rate } => download(context, restore, &rate),
        Gdrive::Prune { days, dry_run } => prune(context, days, dry_run),
    }
}

fn list(context: &Context) -> Result<u8> {
    let line_ = Line::open(context, &RateArgs::default())?;
    let all = line_.backups().list()?;
    for Stored { id, listed } in &all {
        tell_backup(context, listed, ("id", id));
    }
    if all.is_empty() && !context.json {
        context.say("there is no backup in Google Drive yet: `nbak backup gdrive upload` puts one there");
    }
    Ok(0)
}

fn upload(context: &Context, name: Option<&str>, rate: &RateArgs) -> Result<u8> {
    let backup = context.backups(None)?.find_backup(name)?;
    let line_ = Line::open(context, rate)?;
    let uploaded = upload_one(context, &line_, &backup)?;
    if context.json {
        output::json(&json!({
            "name": backup.name, "files": uploaded.files, "bytes": uploaded.bytes, "kept": uploaded.kept,
        }));
    } else {
        line(format!("backup {} {}", backup.name, said(&uploaded)));
    }
    Ok(0)
}

/// Downloads a backup to where the others are, and restores it from there.
fn download(context: &Context, args: BackupRestoreArgs, rate: &RateArgs) -> Result<u8> {
    let manager = context.backups(None)?;
    let places = context.places()?;
    let line_ = Line::open(context, rate)?;
    let name = args.name.as_deref();
    let stored = line_.backups().find(name)?;
    let name = stored.listed.name.clone();
    let staging = places.backup_dir.join(DOWNLOADS).join(&name);
    crate::store::local::create_folder(&staging)?;
    let bars = context.bars();
    bars.begin("downloading", stored.listed.bytes);
    let fetched = line_.backups().download(&stored, &staging, &|bytes| bars.advance(bytes));
    bars.end();
    let fetched = fetched?;
    context.say(format!(
        "downloaded backup {name} from Google Drive: {} of {}{}",
        count(fetched.files, "file", "files"),
        size(fetched.bytes),
        if fetched.kept > 0 { format!(", {} were there already", fetched.kept) } else { String::new() },
    ));
    drop(line_);
    // Among the others, unless one of that name is there.
    let target = places.backup_dir.join(&name);
    let path = match rename_new(&staging, &target) {
        Ok(()) => {
            crate::export::files::sync_folder(&places.backup_dir)?;
            // Only if nothing else is being downloaded.
            let _ = std::fs::remove_dir(places.backup_dir.join(DOWNLOADS));
            target
        }
        Err(_) if target.exists() => staging,
        Err(error) => return Err(Error::io("put a downloaded backup among the others", &target, error)),
    };
    restore_this(context, &manager, &Backup::open(&path)?, args)
}

fn prune(context: &Context, days: Option<u32>, dry_run: bool) -> Result<u8> {
    let config = context.config()?;
    let days = days.unwrap_or(if config.unreadable { 0 } else { config.retention_days });
    let line_ = Line::open(context, &RateArgs::default())?;
    let decisions = line_.backups().prune(days, now_ms(), dry_run)?;
    for decision in &decisions {
        if context.json {
            output::json(&json!({
                "name": decision.name, "keep": decision.keep, "reason": decision.reason,
                "removed": !decision.keep && !dry_run, "dry_run": dry_run,
            }));
        } else if !decision.keep || dry_run || context.verbose {
            let verb = match (decision.keep, dry_run) {
                (true, _) => "keep",
                (false, true) => "would remove",
                (false, false) => "removed",
            };
            line(format!("{verb} {}: {}", shown(&decision.name), decision.reason));
        }
    }
    if !context.json && decisions.iter().all(|decision| decision.keep) {
        line("no backup is to be removed");
    }
    Ok(0)
}
