//! `export`, `backup`, and restoring into the data directory.
//!
//! The safety backup of a restore is told as soon as it is made: whatever happens afterwards, its place is known.

use std::cell::RefCell;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::args::{BackupAction, BackupArgs, BackupRestoreArgs, CreateArgs, ExportArgs, LiveArgs};
use super::context::Context;
use super::drive::{self, After};
use super::output::{self, count, iso, line, shown, size, time};
use super::restore::missing;
use crate::error::{Error, Result};
use crate::export::backup::{Backup, MacState};
use crate::export::dialect::Dialect;
use crate::export::inplace::Replaced;
use crate::export::list::Listed;
use crate::export::manager::{BackupManager, Created};
use crate::export::manifest::Manifest;
use crate::export::restore::{Options, Restored};
use crate::export::write::Written;
use crate::snapshot::progress::Progress;

/// The exit code for a backup that was made although some of the source is not in it.
const INCOMPLETE: u8 = 3;

/// `export`.
pub fn export(context: &Context, args: ExportArgs) -> Result<u8> {
    let start = Instant::now();
    let manager = context.backups(args.form.dialect)?;
    let store = context.open()?;
    let record = context.select(&store, &args.snapshot)?;
    warn_of_plaintext(&manager);
    let written = manager.export(&store, &record, args.to, record.started, &context.bars())?;
    report(context, &written, (&record.id.to_string(), None), start, &After::default());
    Ok(if written.left_out.is_empty() { 0 } else { INCOMPLETE })
}

/// `backup`.
pub fn run(context: &Context, args: BackupArgs) -> Result<u8> {
    match args.action {
        None => create(context, &args.create),
        Some(BackupAction::Create(args)) => create(context, &args),
        Some(BackupAction::Gdrive { action }) => drive::backups(context, action),
        Some(BackupAction::List) => list(context),
        Some(BackupAction::Verify { name }) => verify(context, name.as_deref()),
        Some(BackupAction::Restore(args)) => restore(context, args),
        Some(BackupAction::Prune { days, dry_run }) => prune(context, days, dry_run),
    }
}

/// Finishes a restore that was interrupted. If it cannot be finished now, that is a warning: a command that only looks,
/// and a snapshot too, must go on. A restore asks again, and then it is an error.
pub fn recover(context: &Context) {
    let Ok(data) = context.data_dir() else { return };
    match crate::export::inplace::recover(&data, &context.bars()) {
        Ok(None) => {}
        Ok(Some(replaced)) => {
            output::warning("a restore that had been interrupted was finished");
            tell(context, &replaced);
        }
        Err(error) => output::warning(error.to_string()),
    }
}

fn warn_of_plaintext(manager: &BackupManager) {
    if !manager.encrypts() {
        output::warning(
            "the backup is not encrypted: who can read it can read all that is in it \
             (set NODYN_VAULT_KEY, and leave `backup_encrypt` on)",
        );
    }
}

fn create(context: &Context, args: &CreateArgs) -> Result<u8> {
    create_for(context, args).map(|(_, code)| code)
}

/// Makes a backup; where it is, and the exit code. That it did not get to Google Drive is said, and no failure of it.
pub fn create_for(context: &Context, args: &CreateArgs) -> Result<(PathBuf, u8)> {
    let start = Instant::now();
    let manager = context.backups(args.form.dialect)?;
    if !context.data_dir()?.is_dir() {
        return Err(Error::failed("the data directory is not there")
            .at(context.data_dir()?)
            .hint("name it with --data-dir"));
    }
    warn_of_plaintext(&manager);
    // Only for what there is to be warned of; what keeps it from being opened is said below.
    drop(context.open());
    let created = manager.create_backup(&context.bars())?;
    if created.new_store {
        context.say(format!("made a new store at {}", context.repo()?.display()));
    }
    for error in &created.taken.unreadable {
        output::warning(format!("not captured: {error}"));
    }
    if !context.quiet {
        created.taken.remarks.iter().for_each(output::warning);
    }
    let record = &created.taken.record;
    let parent = record.parent.filter(|_| !created.taken.unchanged).map(|id| id.to_string());
    let snapshot = (record.id.to_string(), parent);
    let snapshot = (snapshot.0.as_str(), snapshot.1.as_deref());
    let upload = || drive::after_backup(context, &created.written.path, &args.rate);
    // People see it before anything goes anywhere; JSON is one object, and comes last.
    let after = if context.json {
        let after = upload();
        report(context, &created.written, snapshot, start, &after);
        after
    } else {
        report(context, &created.written, snapshot, start, &After::default());
        upload()
    };
    if let Some(uploaded) = after.done.as_ref().filter(|_| !context.json) {
        line(drive::said(uploaded));
    }
    if let Some(error) = after.error {
        // The backup stands; that it is on this machine only is said, and is another exit code.
        let error = error.also("the backup on this machine is whole; the next `nbak backup` uploads what is missing");
        output::error(&error);
        return Ok((created.written.path, error.exit_code()));
    }
    let whole = created.taken.unreadable.is_empty() && created.written.left_out.is_empty();
    Ok((created.written.path, if whole { 0 } else { INCOMPLETE }))
}

fn counts(manifest: &Manifest) -> (u64, u64) {
    let files = || manifest.files.iter().filter(|entry| !entry.kind.is_directory());
    (files().count() as u64, files().map(|entry| entry.size).sum())
}

/// The snapshot comes with the one before, if it was taken for this.
fn report(
    context: &Context,
    written: &Written,
    (snapshot, parent): (&str, Option<&str>),
    start: Instant,
    after: &After,
) {
    let duration_ms = start.elapsed().as_millis() as u64;
    for (path, why) in &written.left_out {
        output::warning(format!("not in the backup, only in the snapshot: {}: {why}", path.display()));
    }
    if !context.quiet {
        written.remarks.iter().for_each(output::warning);
    }
    let (files, bytes) = counts(&written.manifest);
    if context.json {
        let left_out: Vec<Value> =
            written.left_out.iter().map(|(path, why)| json!({"path": path.to_string_lossy(), "reason": why})).collect();
        output::json(&json!({
            "name": written.name,
            "path": written.path.to_string_lossy(),
            "snapshot": snapshot,
            "parent": parent,
            "encrypted": written.manifest.encrypted,
            "files": files,
            "bytes": bytes,
            "databases": written.verified.databases,
            "checksum": written.manifest.checksum,
            "created": written.manifest.created_at,
            "left_out": left_out,
            "warnings": written.remarks,
            "duration_ms": duration_ms,
            "uploaded": after.done.is_some(),
            "upload_error": after.error.as_ref().map(Error::what),
        }));
        return;
    }
    line(format!(
        "backup {}: {} of {}, {}, {}, verified; of snapshot {}; {:.2} s",
        written.name,
        count(files, "file", "files"),
        size(bytes),
        count(written.verified.databases, "database", "databases"),
        if written.manifest.encrypted { "encrypted" } else { "not encrypted" },
        &snapshot[..8],
        duration_ms as f64 / 1000.0,
    ));
    line(written.path.display().to_string());
}

fn list(context: &Context) -> Result<u8> {
    let manager = context.backups(None)?;
    let backups = manager.list_backups()?;
    for backup in &backups {
        tell_backup(context, backup, ("path", &backup.path.to_string_lossy()), "");
    }
    if backups.is_empty() && !context.json {
        context.say("there is no backup yet: `nbak backup` makes one");
    }
    Ok(0)
}

/// One backup in a list, with what says where it is, and of which machine if that is not plain.
pub fn tell_backup(context: &Context, backup: &Listed, (place, value): (&str, &str), machine: &str) {
    if context.json {
        output::json(&json!({
            "name": backup.name,
            place: value,
            "source_dir": backup.source_dir,
            "machine": Some(machine).filter(|machine| !machine.is_empty()),
            "created": backup.created_ms.map(iso),
            "bytes": backup.bytes,
            "files": backup.files,
            "encrypted": backup.encrypted,
            "version": backup.version,
            "dialect": backup.dialect.map(Dialect::as_str),
            "snapshot": backup.snapshot,
            "before_restore": backup.before_restore,
            "damaged": backup.damage,
        }));
        return;
    }
    let name = shown(&backup.name);
    if let Some(why) = &backup.damage {
        let what = if why.starts_with("incomplete") { "" } else { "damaged: " };
        let of = if machine.is_empty() { String::new() } else { format!(" (of {})", shown(machine)) };
        line(format!("{name:26}  {what}{}{of}", shown(why)));
        return;
    }
    line(format!(
        "{name:26}  {}  {:>9}  {:>7} files  {}  version {:<8}{}{}{}",
        backup.created_ms.map_or_else(|| "-".to_owned(), time),
        size(backup.bytes),
        backup.files,
        if backup.encrypted { "encrypted" } else { "plain    " },
        shown(&backup.version),
        backup.snapshot.as_ref().map_or_else(String::new, |id| format!("  snapshot {}", id.get(..8).unwrap_or(id))),
        if backup.before_restore { "  made before a restore" } else { "" },
        if machine.is_empty() {
            String::new()
        } else {
            format!("  {} on {}", shown(&backup.source_dir), shown(machine))
        },
    ));
}

fn verify(context: &Context, name: Option<&str>) -> Result<u8> {
    let start = Instant::now();
    let manager = context.backups(None)?;
    let backup = manager.find_backup(name)?;
    let verified = manager.verify_backup(&backup)?;
    let duration_ms = start.elapsed().as_millis() as u64;
    if context.json {
        let faults: Vec<Value> =
            verified.faults.iter().map(|fault| json!({"path": fault.path, "what": fault.what})).collect();
        output::json(&json!({
            "name": backup.name,
            "path": backup.path.to_string_lossy(),
            "ok": verified.faults.is_empty(),
            "encrypted": backup.manifest.encrypted,
            "files": verified.files,
            "bytes": verified.bytes,
            "databases": verified.databases,
            "mac": match verified.mac {
                MacState::Valid => "valid",
                MacState::Absent => "absent",
                MacState::NoKey => "no-key",
                MacState::Invalid => "invalid",
            },
            "faults": faults,
            "extra": verified.extra,
            "not_checked": verified.not_checked,
            "remarks": verified.remarks,
            "duration_ms": duration_ms,
        }));
    } else {
        for fault in &verified.faults {
            line(format!("fault: {}: {}", fault.path, fault.what));
        }
        for path in &verified.extra {
            output::warning(format!("in the backup, but not in its manifest: {path}"));
        }
        verified.not_checked.iter().for_each(|what| output::warning(format!("not checked: {what}")));
        verified.remarks.iter().for_each(output::warning);
    }
    if verified.faults.is_empty() {
        if !context.json {
            line(format!(
                "backup {} is whole: {} of {}, {} checked; {:.2} s",
                backup.name,
                count(verified.files, "file", "files"),
                size(verified.bytes),
                count(verified.databases, "database", "databases"),
                duration_ms as f64 / 1000.0
            ));
        }
        return Ok(0);
    }
    if verified.wrong_key {
        return Err(Error::key("no vault key that was given opens any file of this backup")
            .at(&backup.path)
            .hint("give the key of that time with --vault-key-file"));
    }
    Err(Error::integrity(format!("the backup has {}", count(verified.faults.len() as u64, "fault", "faults")))
        .at(&backup.path)
        .hint("restore another one (`nbak backup list`), or a snapshot (`nbak snapshots`)"))
}

fn prune(context: &Context, days: Option<u32>, dry_run: bool) -> Result<u8> {
    let manager = context.backups(None)?;
    let pruned = manager.prune_backups(days, dry_run)?;
    for decision in &pruned.decisions {
        if context.json {
            output::json(&json!({
                "name": decision.name,
                "keep": decision.keep,
                "reason": decision.reason,
                "removed": pruned.removed.contains(&decision.name),
                "dry_run": dry_run,
            }));
            continue;
        }
        let verb = match (decision.keep, dry_run) {
            (true, _) if !context.verbose && !dry_run => continue,
            (true, _) => "keep",
            (false, true) => "would remove",
            (false, false) => "removed",
        };
        line(format!("{verb} {}: {}", decision.name, decision.reason));
    }
    if pruned.unverified {
        output::warning(
            "no backup verifies with the keys that are there, so none was removed (`nbak backup verify NAME` says why)",
        );
    }
    if !context.json && !pruned.decisions.iter().any(|decision| !decision.keep) {
        line("no backup is to be removed");
    }
    Ok(0)
}

/// `backup restore`.
fn restore(context: &Context, args: BackupRestoreArgs) -> Result<u8> {
    let manager = context.backups(None)?;
    let backup = manager.find_backup(args.name.as_deref())?;
    restore_this(context, &manager, &backup, args)
}

/// Restores `backup`, wherever it lies.
pub fn restore_this(
    context: &Context,
    manager: &BackupManager,
    backup: &Backup,
    args: BackupRestoreArgs,
) -> Result<u8> {
    let mut what = format!("backup {} of {}", backup.name, time(backup.manifest.created_ms));
    if backup.manifest.own.as_ref().is_some_and(|own| own.before_restore) {
        what.push_str(", which a restore made of what it replaced,");
    }
    let options = options(args.only, args.allow_unsigned, &args.live);
    confirm(context, &what, args.live.yes)?;
    carry_out(context, &what, |safety, progress| manager.restore_backup(backup, &options, safety, progress))
}

/// `restore SNAP --in-place`.
pub fn restore_in_place(context: &Context, snapshot: &str, paths: Vec<PathBuf>, live: &LiveArgs) -> Result<u8> {
    let manager = context.backups(None)?;
    let store = context.open()?;
    let record = context.select(&store, snapshot)?;
    let what = format!("snapshot {} of {}", record.id.short(), time(record.started));
    if let Some(missing) = missing(&record, &paths)? {
        output::warning(format!("the snapshot is incomplete: {missing} when it was taken"));
    }
    let options = options(paths, false, live);
    confirm(context, &what, live.yes)?;
    carry_out(context, &what, |safety, progress| manager.restore_in_place(&store, &record, &options, safety, progress))
}

fn options(only: Vec<PathBuf>, allow_unsigned: bool, live: &LiveArgs) -> Options {
    Options { only, allow_unsigned, into_live: live.into_live, without_safety_backup: live.without_safety_backup }
}

/// Refuses where nobody can be asked, and no flag says it.
pub fn may_replace(context: &Context, yes: bool) -> Result<()> {
    if yes || std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        return Ok(());
    }
    Err(Error::usage("this replaces what is in the data directory, and there is nobody to ask")
        .at(context.data_dir()?)
        .hint("give --yes; nothing was changed"))
}

/// Asks on a terminal; elsewhere the flag has to say it.
fn confirm(context: &Context, what: &str, yes: bool) -> Result<()> {
    may_replace(context, yes)?;
    if yes {
        return Ok(());
    }
    let data = context.data_dir()?;
    output::message(format!(
        "This puts {what} in place of what is in {}. A safety backup of that is made first. Go on? [y/N]",
        data.display()
    ));
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Error::failed("not restored, as you said").hint("nothing was changed"))
}

/// The second half of both restores: the safety backup is told first, whatever becomes of the rest.
fn carry_out(
    context: &Context,
    what: &str,
    act: impl FnOnce(&dyn Fn(&Created), &dyn Progress) -> Result<Restored>,
) -> Result<u8> {
    let start = Instant::now();
    let safety: RefCell<Option<(PathBuf, String)>> = RefCell::default();
    let on_safety = |created: &Created| {
        let path = created.written.path.clone();
        output::message(format!("safety backup of the present state: {}", path.display()));
        *safety.borrow_mut() = Some((path, created.taken.record.id.to_string()));
    };
    let restored = act(&on_safety, &context.bars());
    let safety = safety.into_inner();
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) => {
            if let Some((path, _)) = &safety {
                output::message(format!(
                    "the state from before the restore is in the safety backup: {} (`nbak backup restore {}`)",
                    path.display(),
                    path.file_name().unwrap_or_default().to_string_lossy()
                ));
            }
            return Err(error);
        }
    };
    let replaced = &restored.replaced;
    restored.remarks.iter().for_each(output::warning);
    tell(context, replaced);
    if context.json {
        output::json(&restored_json(&restored, safety.as_ref(), start));
    } else {
        line(format!(
            "restored {what}: {} put in place ({}), {} were as they should be; {:.2} s",
            count(replaced.files, "file", "files"),
            size(replaced.bytes),
            replaced.unchanged,
            start.elapsed().as_secs_f64(),
        ));
        line("restart the application now");
    }
    Ok(0)
}

fn restored_json(restored: &Restored, safety: Option<&(PathBuf, String)>, start: Instant) -> Value {
    let replaced = &restored.replaced;
    let paths = |paths: &[PathBuf]| paths.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>();
    let aside = |(from, to): &(PathBuf, PathBuf)| json!({"path": from.to_string_lossy(), "now": to.to_string_lossy()});
    let holder = |(pid, command): &(u32, String)| json!({"pid": pid, "command": command});
    json!({
        "restored_files": replaced.files,
        "unchanged_files": replaced.unchanged,
        "bytes": replaced.bytes,
        "safety_backup": safety.map(|(path, _)| path.to_string_lossy()),
        "safety_snapshot": safety.map(|(_, id)| id),
        "extra": paths(&replaced.extra),
        "removed": paths(&replaced.removed),
        "aside": replaced.aside.iter().map(aside).collect::<Vec<_>>(),
        "through": paths(&replaced.through),
        "holders": replaced.holders.iter().map(holder).collect::<Vec<_>>(),
        "warnings": restored.remarks.iter().chain(&replaced.remarks).collect::<Vec<_>>(),
        "duration_ms": start.elapsed().as_millis() as u64,
    })
}

/// What is worth knowing of what was put in place.
fn tell(context: &Context, replaced: &Replaced) {
    let name = |path: &Path| path.display().to_string();
    for (from, to) in &replaced.aside {
        output::warning(format!("moved aside, since it could not be opened: {} is now {}", name(from), name(to)));
    }
    for path in &replaced.through {
        output::warning(format!("written into while a program has it open: {}", name(path)));
    }
    for (pid, command) in &replaced.holders {
        output::warning(format!("process {pid} ({command}) still uses files that were replaced: restart it"));
    }
    replaced.remarks.iter().for_each(output::warning);
    if context.quiet {
        return;
    }
    for path in &replaced.removed {
        output::message(format!("removed, since it belongs to what was replaced: {}", name(path)));
    }
    for path in &replaced.extra {
        output::message(format!("kept, though it is not in what was restored: {}", name(path)));
    }
}
