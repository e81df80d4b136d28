//! `auth`, `backup gdrive` and `gdrive`: what of it goes to Google Drive, and comes back.
//!
//! Whatever goes wrong there is exit code 14: what was done on this machine stands. One process at a time talks to
//! Drive for a data directory; two that upload the same would make it twice.

use std::path::Path;

use serde_json::json;
use zeroize::Zeroizing;

use super::args::{BackupRestoreArgs, Gdrive, RateArgs};
use super::context::Context;
use super::inplace::{may_replace, restore_this};
use super::listed::{ASK, IN_DOUBT, find_backup, lacks_json, safety_is_not_meant, tell_backup, tell_lacks, tell_left};
use super::output::{self, count, line, shown, size};
use crate::crypto::secret::Credential;
use crate::drive::access::{Access, App};
use crate::drive::api::Drive;
use crate::drive::backups::{Backups, Choice, Stored, Uploaded, Which};
use crate::drive::bases::Bases;
use crate::drive::grant::{FILE as GRANT, Keeper};
use crate::drive::http::Http;
use crate::drive::limit::Limit;
use crate::drive::mirror::DriveObjects;
use crate::drive::owner::Owner;
use crate::drive::retry::Patience;
use crate::drive::sessions::{FILE as UPLOADS, Sessions, Waiting};
use crate::error::{Error, Result};
use crate::export::backup::Backup;
use crate::export::files::rename_new;
use crate::export::list::Order;
use crate::id::StoreId;
use crate::snapshot::now::now_ms;
use crate::snapshot::progress::Progress;
use crate::snapshot::store::{Access as ToStore, Store};
use crate::source::own::make_room;
use crate::store::lock::WriterLock;

pub mod auth;
pub mod store;

/// Held while this process talks to Drive for a data directory.
const LOCK: &str = ".nbak-drive.lock";
/// Is there when something was uploaded, until the access is taken back.
pub const USED: &str = ".nbak-state/drive-used";
/// Where downloads lie until they are complete, in the backup directory.
const DOWNLOADS: &str = ".nbak-gdrive";

/// The exit code for a backup there that is as it should be, and lacks what could not be captured when it was made.
const INCOMPLETE: u8 = 3;

/// One conversation with Drive.
struct Line {
    drive: Drive,
    sessions: Sessions,
    own: Owner,
    _lock: WriterLock,
}

impl Line {
    fn open(context: &Context, rate: &RateArgs) -> Result<Line> {
        let data = context.data_dir()?;
        let access = Access::open(app(context)?, keeper(context)?)?;
        let lock = WriterLock::acquire_at(&data.join(LOCK), "talking to Google Drive", context.patience())?;
        lock.sign();
        let bases = Bases::from_env()?;
        let http = Http::new(Limit::new(rate.limit_rate), &bases)?;
        let drive = Drive::new(http, bases, access, patience(context));
        let own = Owner { machine: machine(), source_dir: context.known_as()? };
        Ok(Line { drive, sessions: Sessions::open(data.join(UPLOADS)), own, _lock: lock })
    }

    fn store(&self, id: StoreId) -> Result<DriveObjects<'_>> {
        DriveObjects::open(&self.drive, &self.sessions, &self.own, id)
    }

    fn backups(&self) -> Backups<'_> {
        Backups { drive: &self.drive, sessions: &self.sessions, own: &self.own }
    }
}

/// This machine's name. A container's is drawn anew for each, and says nothing.
pub fn machine() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let is_drawn = name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_drawn { "container".to_owned() } else { name }
}

/// How often things are tried; what is tried again is said.
fn patience(context: &Context) -> Patience {
    let tell: fn(&str) = |text| output::message(text);
    Patience { tell: Some(tell).filter(|_| !context.quiet), ..Patience::default() }
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

/// What became of the upload of a backup that was just made.
#[derive(Default)]
pub struct After {
    /// What was uploaded of it, and of others that waited; none if it could not be.
    pub done: Option<Uploaded>,
    /// What went wrong, with it or with another.
    pub error: Option<Error>,
}

/// Uploads a backup that was just made, if that is wanted and there is access; and those that could not be before.
pub fn after_backup(context: &Context, backup: &Path, rate: &RateArgs) -> After {
    let (Ok(config), Ok(data)) = (context.config(), context.data_dir()) else { return After::default() };
    // Who uploaded once is not to find out in the hour of need that nothing was any more.
    let expected = data.join(GRANT).exists() || data.join(USED).exists();
    if !config.gdrive || !expected {
        return After::default();
    }
    let mut after = After::default();
    if config.unreadable {
        let what = "not uploaded to Google Drive: the configuration cannot be read, and may say so";
        after.error = Some(Error::remote(what).hint("mend config.json"));
    } else {
        after.error = upload_waiting(context, backup, rate, &mut after.done).err().map(Error::into_remote);
    }
    after
}

fn upload_waiting(context: &Context, backup: &Path, rate: &RateArgs, done: &mut Option<Uploaded>) -> Result<()> {
    let own = backup.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let waiting = Waiting::of(&context.data_dir()?);
    // Noted before anything can fail, so that the next run knows of it.
    let folder = backup.parent().unwrap_or(Path::new("."));
    waiting.add(&own, folder)?;
    let line = Line::open(context, rate)?;
    // This one first: what is wrong with another is not its fault.
    let mut all = waiting.all();
    all.sort_by_key(|(name, _)| *name != own);
    let mut damaged = None;
    for (name, folder) in all {
        let path = folder.join(&name);
        if !path.is_dir() {
            // A disk that is not there today may be there tomorrow.
            if folder.is_dir() {
                output::warning(format!("backup {name} is gone, and was never uploaded whole: {}", path.display()));
                waiting.remove(&name);
            }
            continue;
        }
        match Backup::open(&path).and_then(|backup| upload_one(context, &line, &backup)) {
            Ok(one) => {
                let all = done.get_or_insert_default();
                all.files += one.files;
                all.bytes += one.bytes;
                all.kept += one.kept;
            }
            // It is said once, and keeps no other back.
            Err(error) if error.is_integrity() || error.is_key() => {
                waiting.remove(&name);
                damaged = damaged.or(Some(error.also(format!("of backup {name}, which was not uploaded"))));
            }
            Err(error) => return Err(error),
        }
    }
    damaged.map_or(Ok(()), Err)
}

/// Fails if everyone could read `backup` where it goes, and nobody said that this is meant.
fn may_leave(context: &Context, backup: &Backup) -> Result<()> {
    if backup.manifest.encrypted || !context.config()?.encrypt {
        return Ok(());
    }
    let is_protected = match Store::open(&context.repo()?, &context.credentials()?, ToStore::Read) {
        Ok(store) => !store.is_unprotected(),
        Err(error) => error.is_key(),
    };
    if !is_protected {
        return Ok(());
    }
    Err(Error::key("the store is protected, and this backup is not encrypted: it stays on this machine")
        .at(&backup.path)
        .only_hint(
            "`nbak backup` with a vault key makes one that is; if everyone may read them, say so with \
             `backup_encrypt`: false, and upload it by its name",
        ))
}

fn upload_one(context: &Context, line: &Line, backup: &Backup) -> Result<Uploaded> {
    may_leave(context, backup)?;
    let bars = context.bars();
    let files = backup.manifest.files.iter().filter(|entry| !entry.kind.is_directory());
    bars.begin("uploading", files.map(|entry| entry.size).sum());
    let uploaded = line.backups().upload(backup, &|bytes| bars.advance(bytes));
    bars.end();
    let uploaded = uploaded?;
    // If not, a grant that gets lost is not told, and nothing else.
    let used = context.data_dir()?.join(USED);
    let _ = make_room(&used);
    let _ = std::fs::write(used, "");
    Waiting::of(&context.data_dir()?).remove(&backup.name);
    Ok(uploaded)
}

/// What an upload did, in words.
pub fn said(uploaded: &Uploaded) -> String {
    let there = match uploaded.kept {
        0 => String::new(),
        1 => ", 1 was there already".to_owned(),
        kept => format!(", {kept} were there already"),
    };
    format!("uploaded to Google Drive: {} of {}{there}", count(uploaded.files, "file", "files"), size(uploaded.bytes))
}

/// What Google granted is sealed by `new` from now on: the key that seals it is about to go.
pub fn reseal(context: &Context, new: &Credential) -> Result<()> {
    let Credential::VaultKey(key) = new else { return Ok(()) };
    let Some(grant) = keeper(context)?.load()? else { return Ok(()) };
    Keeper::new(&context.data_dir()?, vec![Credential::VaultKey(key.clone())]).store(&grant)
}

/// `backup gdrive`.
pub fn backups(context: &Context, action: Gdrive) -> Result<u8> {
    match action {
        Gdrive::List => list(context),
        Gdrive::Upload { name, rate } => upload(context, name.as_deref(), &rate),
        Gdrive::Restore { restore, rate } => download(context, restore, &rate),
        Gdrive::Verify { name } => verify(context, name.as_deref()),
        Gdrive::Prune { every_machine, days, dry_run, as_one } => {
            let manager = context.backups(None)?;
            let known = if as_one { manager.known_as_one()? } else { manager.known() };
            prune(context, &Which { every: every_machine, known, as_one }, days, dry_run)
        }
    }
}

fn list(context: &Context) -> Result<u8> {
    let line_ = Line::open(context, &RateArgs::default())?;
    let all = line_.backups().list()?;
    for Stored { id, listed, machine, .. } in &all {
        tell_backup(context, listed, ("id", id), machine);
        // By its name it cannot be meant.
        if !context.json && all.iter().filter(|one| one.listed.name == listed.name).count() > 1 {
            line(format!("{:26}  id {id}", ""));
        }
    }
    if all.is_empty() && !context.json {
        context.say("there is no backup in Google Drive yet: `nbak backup gdrive upload` puts one there");
    }
    Ok(0)
}

fn upload(context: &Context, name: Option<&str>, rate: &RateArgs) -> Result<u8> {
    let backup = find_backup(&context.backups(None)?, name)?;
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

/// What the store knows of the order of its snapshots, where no `name` says which is meant.
fn order_for(context: &Context, name: Option<&str>) -> Result<Order> {
    if name.is_some() { Ok(Order::new()) } else { Ok(context.backups(None)?.order()) }
}

/// The one that was found; what is to be known of the choice is said.
fn choose((stored, remarks): (Stored, Vec<String>)) -> Stored {
    remarks.iter().for_each(output::warning);
    stored
}

/// Holds a backup there against its manifest, by what Drive says of its files.
fn verify(context: &Context, name: Option<&str>) -> Result<u8> {
    let line_ = Line::open(context, &RateArgs::default())?;
    let (order, known) = (order_for(context, name)?, context.backups(None)?.known());
    let stored = choose(line_.backups().find(name, &Choice { order: &order, now_ms: now_ms(), known: &known })?);
    line_.backups().verify(&stored)?;
    let listed = &stored.listed;
    let lacks = &listed.lacks;
    if context.json {
        output::json(&json!({
            "name": listed.name, "id": stored.id, "files": listed.files, "bytes": listed.bytes,
            "incomplete": lacks.count > 0, "mixed": lacks.lack().mixed, "lacks": lacks_json(lacks),
            "lacks_count": lacks.count,
        }));
    } else {
        tell_lacks(lacks);
        line(format!(
            "backup {} in Google Drive has all that its manifest names, with the same sizes and checksums: {} of {}{}",
            listed.name,
            count(listed.files, "file", "files"),
            size(listed.bytes),
            if lacks.count > 0 { format!("; it is incomplete: {}", lacks.lack()) } else { String::new() },
        ));
    }
    Ok(if lacks.count > 0 { INCOMPLETE } else { 0 })
}

/// Downloads a backup to where the others are, and restores it from there.
fn download(context: &Context, args: BackupRestoreArgs, rate: &RateArgs) -> Result<u8> {
    let manager = context.backups(None)?;
    let places = context.places()?;
    may_replace(context, args.live.yes)?;
    let line_ = Line::open(context, rate)?;
    let all = line_.backups().list()?;
    let name = args.name.as_deref();
    let (order, known) = (order_for(context, name)?, manager.known());
    let by = Choice { order: &order, now_ms: now_ms(), known: &known };
    let stored = choose(line_.backups().find_in(all.clone(), name, &by)?);
    if args.name.is_none() && stored.listed.before_restore {
        return Err(safety_is_not_meant(&stored.listed.name, "nbak backup gdrive list"));
    }
    if args.name.is_none() {
        for name in line_.backups().incomplete_after(&all, &stored) {
            let taken = &stored.listed.name;
            output::warning(format!("backup {} there is newer, and not complete: {taken} is taken", shown(name)));
        }
    }
    let plan = line_.backups().plan(&stored)?;
    let manifest = &plan.manifest;
    let name = stored.listed.name.clone();
    if manifest.encrypted && context.credentials()?.is_empty() {
        return Err(Error::key(format!("backup {name} is encrypted, and there is no vault key"))
            .hint("set NODYN_VAULT_KEY, or give --vault-key-file; nothing was downloaded"));
    }
    if let Some(missing) = args.only.iter().find(|path| !manifest.files.iter().any(|entry| is_of(&entry.path, path))) {
        return Err(Error::usage(format!("backup {name} has no {}", missing.display()))
            .hint("nothing was downloaded, and nothing changed"));
    }
    let staging = places.backup_dir.join(DOWNLOADS).join(&name);
    let target = places.backup_dir.join(&name);
    let here = Backup::open(&target).ok().filter(|here| here.manifest.checksum == manifest.checksum);
    if let Some(here) = here.filter(|here| line_.backups().is_whole(here)) {
        context.say(format!("backup {name} is on this machine already, and whole: {}", target.display()));
        drop(line_);
        clear_downloads(&places.backup_dir, &staging);
        return restore_this(context, &manager, &here, args);
    }
    crate::store::local::create_folder(&staging)?;
    let bars = context.bars();
    bars.begin("downloading", stored.listed.bytes);
    let proves = |file: &Path| manager.prove_key(manifest, file);
    let fetched = line_.backups().download(&plan, &staging, &proves, &|bytes| bars.advance(bytes));
    bars.end();
    let fetched = fetched?;
    context.say(format!(
        "downloaded backup {name} from Google Drive: {} of {}{}",
        count(fetched.files, "file", "files"),
        size(fetched.bytes),
        if fetched.kept > 0 { format!(", {} there already", fetched.kept) } else { String::new() },
    ));
    drop(line_);
    // Among the others, unless something of that name is there.
    let path = match rename_new(&staging, &target) {
        Ok(()) => {
            crate::export::files::sync_folder(&places.backup_dir)?;
            clear_downloads(&places.backup_dir, &staging);
            target
        }
        Err(_) if target.exists() => staging,
        Err(error) => return Err(Error::io("put a downloaded backup among the others", &target, error)),
    };
    restore_this(context, &manager, &Backup::open(&path)?, args)
        .map_err(|error| error.also(format!("the backup is on this machine now: {}", path.display())))
}

/// Whether the entry at `path` is `wanted`, or below it.
fn is_of(path: &str, wanted: &Path) -> bool {
    Path::new(path).starts_with(wanted)
}

/// Removes a download that is not needed any more, and the folder of downloads if nothing else is in it.
fn clear_downloads(backup_dir: &Path, staging: &Path) {
    // What stays takes space, and nothing else.
    let _ = std::fs::remove_dir_all(staging);
    let _ = std::fs::remove_dir(backup_dir.join(DOWNLOADS));
}

fn prune(context: &Context, which: &Which, days: Option<u32>, dry_run: bool) -> Result<u8> {
    let days = context.days(days)?;
    context.require_name()?;
    let line_ = Line::open(context, &RateArgs::default())?;
    let (decisions, left) = line_.backups().prune(which, days, now_ms(), dry_run)?;
    for (machine, decision) in &decisions {
        if context.json {
            output::json(&json!({
                "name": decision.name,
                "machine": Some(machine).filter(|machine| !machine.is_empty()),
                "keep": decision.keep, "reason": decision.reason,
                "removed": !decision.keep && !dry_run, "dry_run": dry_run,
            }));
        } else if !decision.keep || dry_run || context.verbose {
            let verb = match (decision.keep, dry_run) {
                (true, _) => "keep",
                (false, true) => "would remove",
                (false, false) => "removed",
            };
            let of = if machine.is_empty() { String::new() } else { format!(" of {}", shown(machine)) };
            line(format!("{verb} {}{of}: {}", shown(&decision.name), decision.reason));
        }
    }
    if decisions.iter().any(|(_, decision)| decision.by_gap) {
        output::warning(IN_DOUBT);
    }
    tell_left(
        left,
        if which.as_one {
            "`nbak forget --as-one-with BACKUP` says of one that it was, with one of its backups that is here"
        } else {
            ASK
        },
    );
    if !context.json && decisions.iter().all(|(_, decision)| decision.keep) {
        line("no backup is to be removed");
    }
    Ok(0)
}
