//! `export` and `backup`: making, listing, verifying and pruning backups.
//!
//! A backup that lacks some of the source is still one: it is made, said, and the exit code is 3.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

use super::args::{BackupAction, BackupArgs, BackupRestoreArgs, CreateArgs, ExportArgs};
use super::context::Context;
use super::drive::{self, After};
use super::inplace::{finish_or_warn, missing, restore_this, warn_of_captured};
use super::listed::{ASK, IN_DOUBT, find_backup, lacks_json, safety_is_not_meant, tell_backup, tell_lacks, tell_left};
use super::output::{self, count, line, size};
use super::snapshot::{not_captured, unreadable_json};
use crate::error::{Error, Result};
use crate::export::backup::Backup;
use crate::export::backup::MacState;
use crate::export::manager::{Also, Unverified};
use crate::export::manifest::Manifest;
use crate::export::write::Written;
use crate::snapshot::record::Record;

/// The exit code for a backup that was made although some of the source is not in it, also where that was so when its
/// snapshot was taken, or a restore is half done there; and for one of which all is proven, but that.
const INCOMPLETE: u8 = 3;

/// `export`.
pub fn export(context: &Context, args: ExportArgs) -> Result<u8> {
    let start = Instant::now();
    let manager = context.backups(args.form.dialect)?;
    let store = context.open()?;
    let record = context.select_to_restore(&store, &args.snapshot)?;
    let missing = missing(&record, &[])?;
    let written = manager.export(&store, &record, args.to, record.started, &context.bars())?;
    if let Some(missing) = &missing {
        output::warning(missing);
    }
    report(context, &written, (&record, None, None), start, &After::default());
    Ok(if written.left_out.is_empty() && missing.is_none() { 0 } else { INCOMPLETE })
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
        Some(BackupAction::Prune { days, dry_run, as_one, as_one_with }) => {
            let also = if as_one { Also::AllBefore } else { as_one_with.map_or(Also::None, Also::Of) };
            prune(context, days, dry_run, &also)
        }
    }
}

fn create(context: &Context, args: &CreateArgs) -> Result<u8> {
    create_for(context, args).map(|(_, code, _)| code)
}

/// Makes a backup; where it is, the exit code, and whether it is of one time, and no mixture. That it did not get to
/// Google Drive is said, and no failure of it.
pub fn create_for(context: &Context, args: &CreateArgs) -> Result<(PathBuf, u8, bool)> {
    let start = Instant::now();
    let manager = context.backups(args.form.dialect)?;
    context.sure_of_data_dir("name it with --data-dir")?;
    let half_done = finish_or_warn(context, false);
    Context::warn_of_left_out(&context.places()?);
    Context::sweep(&context.places()?);
    // Only for what there is to be warned of; what keeps it from being opened is said below.
    drop(context.open());
    let created = manager.create_backup(&context.bars())?;
    let half_done = warn_of_captured(half_done, &created.taken.record);
    let is_one = !created.taken.record.lack().mixed;
    if created.new_store {
        context.say(format!("made a new store at {}", context.repo()?.display()));
        // Now there is one to be warned of.
        drop(context.open());
    }
    not_captured(&created.taken).for_each(output::warning);
    created.taken.remarks.iter().for_each(output::warning);
    let record = &created.taken.record;
    let parent = record.parent.filter(|_| !created.taken.unchanged).map(|id| id.to_string());
    let snapshot = (record, parent.as_deref(), half_done.as_deref());
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
        return Ok((created.written.path, error.exit_code(), is_one));
    }
    let whole = created.taken.unreadable.is_empty() && created.written.left_out.is_empty() && half_done.is_none();
    Ok((created.written.path, if whole { 0 } else { INCOMPLETE }, is_one))
}

fn counts(manifest: &Manifest) -> (u64, u64) {
    let files = || manifest.files.iter().filter(|entry| !entry.kind.is_directory());
    (files().count() as u64, files().map(|entry| entry.size).sum())
}

/// The snapshot comes with the one before, if it was taken for this, and with what is to be known of a restore that is
/// half done.
fn report(
    context: &Context,
    written: &Written,
    (record, parent, half_done): (&Record, Option<&str>, Option<&str>),
    start: Instant,
    after: &After,
) {
    let duration_ms = start.elapsed().as_millis() as u64;
    if !written.manifest.encrypted {
        output::warning(
            "the backup is not encrypted: who can read it can read all that is in it \
             (set NODYN_VAULT_KEY, and leave `backup_encrypt` on)",
        );
    }
    for (path, why) in &written.left_out {
        output::warning(format!("not in the backup, only in the snapshot: {}: {why}", path.display()));
    }
    written.remarks.iter().for_each(output::warning);
    let (files, bytes) = counts(&written.manifest);
    let incomplete = record.unreadable_count > 0;
    if context.json {
        let left_out: Vec<Value> =
            written.left_out.iter().map(|(path, why)| json!({"path": path.to_string_lossy(), "reason": why})).collect();
        output::json(&json!({
            "name": written.name,
            "path": written.path.to_string_lossy(),
            "snapshot": record.id.to_string(),
            "parent": parent,
            "encrypted": written.manifest.encrypted,
            "files": files,
            "bytes": bytes,
            "databases": written.verified.databases,
            "checksum": written.manifest.checksum,
            "created": written.manifest.created_at,
            "left_out": left_out,
            "incomplete": incomplete,
            "mixed": record.lack().mixed,
            "unreadable_entries": unreadable_json(record),
            "warnings": written.remarks,
            "pending_restore": half_done,
            "duration_ms": duration_ms,
            "uploaded": after.done.is_some(),
            "upload_error": after.error.as_ref().map(Error::what),
        }));
        return;
    }
    line(format!(
        "backup {}: {} of {}, {}, {}, verified; of {}snapshot {}; {:.2} s",
        written.name,
        count(files, "file", "files"),
        size(bytes),
        count(written.verified.databases, "database", "databases"),
        if written.manifest.encrypted { "encrypted" } else { "not encrypted" },
        if incomplete { "incomplete " } else { "" },
        record.id.short(),
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
    if backups.is_empty() {
        // Where nothing was looked at nobody knows that there is none.
        let folder = context.sure_of_folder()?;
        if !context.json {
            context.say(format!("there is no backup yet in {}: `nbak backup` makes one", folder.display()));
        }
    }
    Ok(0)
}

fn verify(context: &Context, name: Option<&str>) -> Result<u8> {
    let start = Instant::now();
    let manager = context.backups(None)?;
    let backup = find_backup(&manager, name)?;
    let verified = manager.verify_backup(&backup)?;
    let duration_ms = start.elapsed().as_millis() as u64;
    let lacks = backup.manifest.lacks();
    if context.json {
        let faults: Vec<Value> =
            verified.faults.iter().map(|fault| json!({"path": fault.path, "what": fault.what})).collect();
        output::json(&json!({
            "name": backup.name,
            "path": backup.path.to_string_lossy(),
            "ok": verified.faults.is_empty() && !verified.no_key,
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
            "incomplete": lacks.count > 0,
            "mixed": lacks.lack().mixed,
            "lacks": lacks_json(&lacks),
            "lacks_count": lacks.count,
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
        tell_lacks(&lacks);
    }
    if verified.faults.is_empty() && verified.no_key {
        return Err(Error::key(
            "checksums and sizes are right, but without a vault key nobody can say that it is whole",
        )
        .at(&backup.path)
        .hint("set NODYN_VAULT_KEY (or LYNOX_VAULT_KEY), or give --vault-key-file"));
    }
    if verified.faults.is_empty() {
        if !context.json {
            let incomplete = format!("has all that it should, but is incomplete ({}):", lacks.lack());
            line(format!(
                "backup {} {} {} of {}, {} checked; {:.2} s",
                backup.name,
                if lacks.count > 0 { &incomplete } else { "is whole:" },
                count(verified.files, "file", "files"),
                size(verified.bytes),
                count(verified.databases, "database", "databases"),
                duration_ms as f64 / 1000.0
            ));
        }
        return Ok(if lacks.count > 0 { INCOMPLETE } else { 0 });
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

fn prune(context: &Context, days: Option<u32>, dry_run: bool, also: &Also) -> Result<u8> {
    let days = context.days(days)?;
    context.sure_of_backups()?;
    context.require_name()?;
    context.sure_of_folder()?;
    let pruned = context.backups(None)?.prune_backups(Some(days), also, dry_run)?;
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
    if pruned.decisions.iter().any(|decision| decision.by_gap) {
        output::warning(IN_DOUBT);
    }
    let next = match also {
        Also::None => ASK,
        _ => {
            "--as-one-with BACKUP goes over those of the one that made this, if it was this one, and `nbak \
             forget --as-one-with BACKUP` says so for good; `nbak backup list --json` has `instance`"
        }
    };
    tell_left(pruned.left, next);
    if let Some(why) = pruned.unverified {
        let what = "no backup verifies with the keys that are there, so none was removed";
        return Err(match why {
            Unverified::NoKey => Error::key(what).hint("give the key of the backups with --vault-key-file"),
            Unverified::Damaged => Error::integrity(what).hint("`nbak backup verify NAME` says why of each"),
        });
    }
    if !context.json && !pruned.decisions.iter().any(|decision| !decision.keep) {
        line("no backup is to be removed");
    }
    Ok(0)
}

/// `backup restore`.
fn restore(context: &Context, args: BackupRestoreArgs) -> Result<u8> {
    let manager = context.backups(None)?;
    let backup = find_backup(&manager, args.name.as_deref())?;
    if args.name.is_none()
        && let Some(other) = manager.others_of(&backup)
    {
        let error = Error::usage(format!("{other}; the newest backup is not known to be this one's"));
        return Err(error.hint("name the one that is meant (`nbak backup list`); nothing was changed"));
    }
    refuse_safety(&backup, args.name.as_deref())?;
    restore_this(context, &manager, &backup, args)
}

/// Fails if nobody named `backup`, and a restore made it of what it replaced: after that restore it undoes it, and
/// after one that was refused it is what was to go.
fn refuse_safety(backup: &Backup, name: Option<&str>) -> Result<()> {
    let is_safety = backup.manifest.own.as_ref().is_some_and(|own| own.before_restore);
    if name.is_some() || !is_safety {
        return Ok(());
    }
    Err(safety_is_not_meant(&backup.name, "nbak backup list"))
}
