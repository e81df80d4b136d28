//! `auth`, `backup gdrive` and `gdrive`: what of it goes to Google Drive, and comes back.
//!
//! Whatever goes wrong there is exit code 14: what was done on this machine stands. One process at a time talks to
//! Drive for a data directory; two that upload the same would make it twice.

use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::args::{Auth, BackupRestoreArgs, Gdrive, RateArgs, StoreCopy};
use super::backup::restore_this;
use super::context::Context;
use super::output::{self, count, iso, line, shown, size, time};
use crate::drive::access::{Access, App};
use crate::drive::api::Drive;
use crate::drive::backups::{Backups, Stored, Uploaded};
use crate::drive::bases::Bases;
use crate::drive::grant::{FILE as GRANT, Grant, Keeper};
use crate::drive::http::Http;
use crate::drive::limit::Limit;
use crate::drive::login::Login;
use crate::drive::mirror::{DriveObjects, Moved, pull, push, stores};
use crate::drive::retry::Patience;
use crate::drive::sessions::{FILE as UPLOADS, Sessions, Waiting};
use crate::error::{Error, Result};
use crate::export::backup::Backup;
use crate::export::files::rename_new;
use crate::id::{PackId, StoreId};
use crate::snapshot::progress::Progress;
use crate::snapshot::store::{Access as StoreAccess, Store};
use crate::snapshot::take::now_ms;
use crate::store::local::LocalDirectory;
use crate::store::lock::WriterLock;

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
    let (id, secret) = &context.config()?.google_client;
    let from = |name: &str, other: &Option<String>| {
        std::env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).or(other.clone())
    };
    let (id, secret) = (from("GOOGLE_CLIENT_ID", id), from("GOOGLE_CLIENT_SECRET", secret));
    let (Some(id), Some(secret)) = (id, secret) else {
        return Err(Error::usage("it is not known which Google client this is").hint(
            "make one in the Google Cloud console (APIs and services, credentials, OAuth client: desktop app, or TVs \
             and limited input devices for --device), switch the Google Drive API on, and set GOOGLE_CLIENT_ID and \
             GOOGLE_CLIENT_SECRET, or google_client_id and google_client_secret in config.json",
        ));
    };
    Ok(App { id, secret: Zeroizing::new(secret) })
}

fn keeper(context: &Context) -> Result<Keeper> {
    Ok(Keeper::new(&context.data_dir()?, context.credentials()?))
}

/// `auth`.
pub fn auth(context: &Context, action: &Auth) -> Result<u8> {
    match action {
        Auth::Google { device } => grant(context, *device),
        Auth::Status => status(context),
        Auth::Revoke => revoke(context),
    }
}

fn grant(context: &Context, device: bool) -> Result<u8> {
    let (app, keeper) = (app(context)?, keeper(context)?);
    let data = context.data_dir()?;
    if !data.is_dir() {
        return Err(Error::failed("the data directory is not there").at(data).hint("name it with --data-dir"));
    }
    let (http, bases) = (Http::new(Limit::new(None))?, Bases::from_env()?);
    let login = Login { http: &http, bases: &bases, app: &app, patience: Patience::default() };
    let grant = if device {
        login.on_device(&|address, code| {
            output::message(format!("On any device, open {} and type the code {}", shown(address), shown(code)));
        })?
    } else {
        login.in_browser(&|address| {
            output::message("Open this address in a browser on this machine, and allow it:");
            output::message(address);
            open_browser(address);
        })?
    };
    keeper.store(&grant)?;
    if !keeper.seals() {
        output::warning(format!(
            "the access stands in the clear in {}: without a vault key it cannot be sealed",
            keeper.path().display()
        ));
    }
    tell(context, &keeper, Some(&grant));
    Ok(0)
}

/// Best effort: the address was printed.
fn open_browser(address: &str) {
    if std::io::stderr().is_terminal() {
        let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        let quiet = || Stdio::null();
        let _ = Command::new(program).arg(address).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn();
    }
}

fn status(context: &Context) -> Result<u8> {
    let keeper = keeper(context)?;
    let grant = keeper.load()?;
    tell(context, &keeper, grant.as_ref());
    Ok(u8::from(grant.is_none()))
}

fn tell(context: &Context, keeper: &Keeper, grant: Option<&Grant>) {
    if context.json {
        output::json(&json!({
            "granted": grant.is_some(),
            "since": grant.map(|grant| iso(grant.granted_ms)),
            "scope": grant.map(|grant| &grant.scope),
            "sealed": grant.is_some() && keeper.seals(),
            "path": keeper.path().to_string_lossy(),
        }));
        return;
    }
    match grant {
        None => line("there is no access to Google Drive: `nbak auth google` asks for it"),
        Some(grant) => line(format!(
            "access to Google Drive since {}, for files of this program only; kept {}sealed in {}",
            time(grant.granted_ms),
            if keeper.seals() { "" } else { "not " },
            keeper.path().display()
        )),
    }
}

fn revoke(context: &Context) -> Result<u8> {
    let (app, keeper) = (app(context)?, keeper(context)?);
    let (http, bases) = (Http::new(Limit::new(None))?, Bases::from_env()?);
    let login = Login { http: &http, bases: &bases, app: &app, patience: Patience::default() };
    let was_there = login.revoke(&keeper)?;
    // What had begun belongs to an access that is no more.
    let _ = std::fs::remove_file(context.data_dir()?.join(UPLOADS));
    if context.json {
        output::json(&json!({"revoked": was_there}));
    } else {
        line(if was_there { "the access was taken back" } else { "there was no access" });
    }
    Ok(0)
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
    waiting.add(&name)?;
    let line = Line::open(context, rate)?;
    let folder = backup.parent().unwrap_or(Path::new("."));
    let (mut all, mut damaged) = (Uploaded::default(), None);
    for name in waiting.names() {
        let path = folder.join(&name);
        if !path.is_dir() {
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
        if context.json {
            output::json(&json!({
                "name": listed.name,
                "id": id,
                "created": listed.created_ms.map(iso),
                "bytes": listed.bytes,
                "files": listed.files,
                "encrypted": listed.encrypted,
                "version": listed.version,
                "snapshot": listed.snapshot,
                "before_restore": listed.before_restore,
                "damaged": listed.damage,
            }));
            continue;
        }
        let name = shown(&listed.name);
        if let Some(why) = &listed.damage {
            line(format!("{name:26}  {}", shown(why)));
            continue;
        }
        line(format!(
            "{name:26}  {}  {:>9}  {:>7} files  {}  version {}",
            listed.created_ms.map_or_else(|| "-".to_owned(), time),
            size(listed.bytes),
            listed.files,
            if listed.encrypted { "encrypted" } else { "plain    " },
            shown(&listed.version),
        ));
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

/// `gdrive`.
pub fn copy_store(context: &Context, action: &StoreCopy) -> Result<u8> {
    match action {
        StoreCopy::Push(rate) => push_store(context, rate),
        StoreCopy::Pull { store, rate } => pull_store(context, store.as_deref(), rate),
    }
}

fn moved_json(store: StoreId, moved: &Moved) -> Value {
    json!({"store": store.to_string(), "objects": moved.objects, "bytes": moved.bytes, "kept": moved.kept})
}

fn push_store(context: &Context, rate: &RateArgs) -> Result<u8> {
    let store = context.open()?;
    if store.is_unprotected() {
        return Err(Error::key(
            "this store is not protected: who reads it in Google Drive could read all that is in it",
        )
        .hint("set NODYN_VAULT_KEY, run `nbak key rotate`, then push"));
    }
    if let Some(losses) = store.losses() {
        return Err(Error::integrity(format!("a store that has lost something is not pushed: {losses}"))
            .hint("run `nbak repair` first"));
    }
    let line_ = Line::open(context, rate)?;
    let index = store.catalog().index();
    let with_records: std::collections::HashSet<PackId> = index.packs_with_records().collect();
    let (records, data): (Vec<PackId>, Vec<PackId>) =
        index.numbered(index.counted()).into_iter().partition(|pack| with_records.contains(pack));
    let ids = |packs: Vec<PackId>| packs.into_iter().map(|pack| pack.0).collect::<Vec<_>>();
    let there = DriveObjects::open(&line_.drive, &line_.sessions, store.id())?;
    let bars = context.bars();
    bars.begin("pushing", index.packs().map(|(_, size)| size).sum());
    let moved = push(&**store.objects(), &there, &ids(data), &ids(records), &|bytes| bars.advance(bytes));
    bars.end();
    let moved = moved?;
    if context.json {
        output::json(&moved_json(store.id(), &moved));
    } else {
        line(format!(
            "pushed store {} to Google Drive: {} of {}, {} were there already",
            store.id(),
            count(moved.objects, "object", "objects"),
            size(moved.bytes),
            moved.kept
        ));
    }
    Ok(0)
}

fn pull_store(context: &Context, wanted: Option<&str>, rate: &RateArgs) -> Result<u8> {
    let repo = context.repo()?;
    let line_ = Line::open(context, rate)?;
    let there = stores(&line_.drive)?;
    let own = Store::open(&repo, &context.credentials()?, StoreAccess::Read).ok().map(|store| store.id());
    let names = || there.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let id = match (wanted, own) {
        (Some(wanted), _) => StoreId::parse(wanted)
            .ok()
            .filter(|id| there.contains(id))
            .ok_or_else(|| Error::no_store(format!("there is no store {wanted} in Google Drive")).hint(names()))?,
        (None, Some(own)) if there.contains(&own) => own,
        (None, Some(own)) => return Err(Error::no_store(format!("store {own} is not in Google Drive")).hint(names())),
        (None, None) => match there.as_slice() {
            [one] => *one,
            [] => {
                return Err(
                    Error::no_store("there is no store in Google Drive").hint("`nbak gdrive push` puts it there")
                );
            }
            _ => {
                return Err(
                    Error::usage("there are several stores in Google Drive").hint(format!("--store: {}", names()))
                );
            }
        },
    };
    if own.is_some_and(|own| own != id) {
        return Err(Error::usage("another store is here").at(repo).hint("name another place with --repo"));
    }
    let from = DriveObjects::open(&line_.drive, &line_.sessions, id)?;
    let local = LocalDirectory::at(&repo);
    local.create()?;
    let _lock = WriterLock::acquire(&repo, context.patience())?;
    let bars = context.bars();
    bars.begin("pulling", 0);
    let moved = pull(&from, &local, &|bytes| bars.advance(bytes));
    bars.end();
    let moved = moved?;
    if context.json {
        output::json(&moved_json(id, &moved));
    } else {
        line(format!(
            "pulled store {id} to {}: {} of {}, {} were there already",
            repo.display(),
            count(moved.objects, "object", "objects"),
            size(moved.bytes),
            moved.kept
        ));
        line("`nbak check --read-data` proves it, `nbak restore latest --in-place` restores it");
    }
    Ok(0)
}
