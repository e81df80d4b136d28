//! What restores into the data directory have in common, whether of a snapshot or of a backup.
//!
//! The safety backup of a restore is told as soon as it is made: whatever happens afterwards, its place is known.

use std::cell::RefCell;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::args::{BackupRestoreArgs, LiveArgs};
use super::context::Context;
use super::output::{self, count, line, shown, size, time};
use crate::error::words::word;
use crate::error::{Error, Result};
use crate::export::backup::Backup;
use crate::export::inplace::pending::pending;
use crate::export::inplace::{self, Abandoned, Ended, Replaced};
use crate::export::manager::{BackupManager, Created};
use crate::export::only;
use crate::export::restore::{Options, Restored, is_meant};
use crate::snapshot::lack::Lack;
use crate::snapshot::look::clean_path;
use crate::snapshot::progress::Progress;
use crate::snapshot::record::Record;
use crate::snapshot::sidecar::Sidecar;

/// What a warning begins with that a daemon tells people of.
pub const HALF_DONE: &str = "a restore is half done";
/// The exit code of a restore that left out some of what it was asked for, or restored what lacks some of it, or could
/// not be given up without a trace.
const IN_PART: u8 = 3;
/// So many entries that the snapshot lacks are named.
const NAMED: usize = 5;

/// Finishes a restore that was interrupted, if nothing was written since, or brings to its end one that was given up.
/// Else, or if that cannot be done, it is an error.
pub fn finish(context: &Context) -> Result<()> {
    let data = context.data_dir()?;
    match inplace::recover_untouched(&data, &context.bars())? {
        Some(Ended::Finished(replaced)) => {
            output::warning("a restore that had been interrupted was finished");
            replaced.lacks.iter().for_each(output::warning);
            tell(context, &replaced);
        }
        Some(Ended::GivenUp(ended)) => {
            output::warning("a restore that had been given up was brought to its end: what is live stays as it is");
            warn_of_given_up(context, &ended);
            if let Some(kept) = &ended.kept {
                output::message(format!("what the restore had replaced is kept in {}", kept.display()));
            }
        }
        None => {}
    }
    Ok(())
}

/// The same for a command that must go on: what is half done is captured as it stands, since no other copy may have
/// what was written meanwhile. That it is half done is said; `dry` changes nothing. Answers what is to be known.
pub fn finish_or_warn(context: &Context, dry: bool) -> Option<String> {
    if dry {
        return warn(context);
    }
    let error = finish(context).err()?;
    let text = format!("{HALF_DONE}: {error}");
    output::warning(&text);
    Some(text)
}

/// The same for what was captured: `earlier` is what was to be known before, and the record says whether a restore
/// exchanged files meanwhile.
pub fn warn_of_captured(earlier: Option<String>, record: &Record) -> Option<String> {
    if earlier.is_some() || !record.lack().mixed {
        return earlier;
    }
    let text = format!(
        "{HALF_DONE} in what was captured: it put files in place meanwhile, so old and new data may stand side by \
         side; when it has ended, give this command again"
    );
    output::warning(&text);
    Some(text)
}

/// Says so if a restore is half done, for a command that finishes none.
pub fn warn(context: &Context) -> Option<String> {
    let pending = pending(&context.data_dir().ok()?)?;
    let text = format!("{}; {}", pending.text(), pending.remedy());
    output::warning(&text);
    Some(text)
}

/// `restore --resume`.
pub fn resume(context: &Context, yes: bool) -> Result<u8> {
    let data = context.data_dir()?;
    if pending(&data).is_some_and(|pending| pending.can_be_finished()) {
        let how = "What was written there since is kept aside; what was written elsewhere since stays, and is named.";
        confirm(context, "the rest of an interrupted restore", how, yes)?;
    }
    let start = Instant::now();
    let Some(replaced) = inplace::recover(&data, &context.bars())? else { return Err(nothing_pending(&data)) };
    // Who began it was told before it was.
    let remarks = replaced.lacks.iter().cloned().collect();
    Ok(told(context, "what an interrupted restore was about", &Restored { replaced, remarks }, None, start))
}

/// `restore --abandon`.
pub fn abandon(context: &Context) -> Result<u8> {
    let data = context.data_dir()?;
    let Some(ended) = inplace::abandon(&data, &context.bars())? else { return Err(nothing_pending(&data)) };
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    warn_of_given_up(context, &ended);
    let code = if ended.written.is_empty() && ended.maybe_written.is_empty() { 0 } else { IN_PART };
    if context.json {
        let without_log: Vec<String> = ended.without_log.iter().map(text).collect();
        let kept = ended.kept.as_ref().map(text);
        output::json(&json!({
            "abandoned": true,
            "kept": kept,
            "without_log": without_log,
            "written_into": ended.written.iter().map(text).collect::<Vec<_>>(),
            "maybe_written_into": ended.maybe_written.iter().map(text).collect::<Vec<_>>(),
            "safety_backup": ended.safety,
            "warnings": ended.not_in_backup.iter().filter(|_| ended.kept.is_some()).chain(&ended.remarks)
                .collect::<Vec<_>>(),
        }));
        return Ok(code);
    }
    if code != 0 {
        line("the interrupted restore was ended: the live data stays as it is, with what was written into databases");
    } else if ended.kept.is_some() {
        line("the interrupted restore was ended: the live data stays as it is, and some of it is what was restored");
    } else {
        line("the interrupted restore was ended: the live data says what it said");
    }
    match ended.kept {
        Some(kept) => {
            line(format!("what it had replaced is kept in {}", kept.display()));
            let but = if ended.not_in_backup.is_empty() { "" } else { ", but for what the warning says is not in it" };
            let before = ended.safety.map(|safety| match command(context, Path::new(&safety), None) {
                Some(command) => format!("; `{command}` goes back to before it{but}"),
                None => format!("; to restore the backup in {} goes back to before it{but}", shown(&safety)),
            });
            output::advice(format!("the same restore again finishes it{}", before.unwrap_or_default()));
        }
        None => line(if code == 0 { "it had replaced nothing" } else { "it had replaced no file" }),
    }
    Ok(code)
}

/// The command that restores `backup`, or `only` that of it, with the places: without them it may be about another data
/// directory. None if something of it cannot be typed.
fn command(context: &Context, backup: &Path, only: Option<&Path>) -> Option<String> {
    let data_dir =
        context.data_dir().ok().map_or(Some(String::new()), |path| Some(format!(" --data-dir {}", word(&path)?)))?;
    let repo = context.repo().ok().map_or(Some(String::new()), |path| Some(format!(" --repo {}", word(&path)?)))?;
    let only = only.map_or(Some(String::new()), |path| Some(format!(" --only {}", word(path)?)))?;
    Some(format!("nbak{data_dir}{repo} backup restore {}{only}", word(backup)?))
}

/// What is worth knowing of one that was given up.
fn warn_of_given_up(context: &Context, ended: &Abandoned) {
    if let Some(kept) = &ended.kept {
        for what in &ended.not_in_backup {
            output::warning(format!("{what}; what was replaced by now is kept in {}", kept.display()));
        }
    }
    ended.remarks.iter().for_each(output::warning);
    for path in &ended.without_log {
        output::warning(format!(
            "{}: it is in rollback mode, in which the restore had put it; it says the same, and `PRAGMA \
             journal_mode=WAL` puts it back, which the application may give by itself when it opens it",
            path.display()
        ));
    }
    let written = ended.written.iter().map(|path| (path, "the restore wrote into it while a program had it open"));
    let maybe = ended.maybe_written.iter().map(|path| (path, "the restore may have written into it"));
    for (path, what) in written.chain(maybe) {
        let before = match &ended.safety {
            Some(safety) => {
                let command = command(context, Path::new(safety), Some(path)).map(|command| format!(" (`{command}`)"));
                format!("in the safety backup {}{}", shown(safety), command.unwrap_or_default())
            }
            None => "in a safety backup if one was made (`nbak backup list`), and else in none".to_owned(),
        };
        output::warning(format!("{}: {what}, and that stays; what it held before is {before}", path.display()));
    }
}

fn nothing_pending(data: &Path) -> Error {
    Error::failed("no interrupted restore is pending here").at(data).hint("nothing was changed")
}

/// Restores `backup`, wherever it lies.
pub fn restore_this(
    context: &Context,
    manager: &BackupManager,
    backup: &Backup,
    args: BackupRestoreArgs,
) -> Result<u8> {
    let lacks = backup.manifest.lacks();
    let words = |entries| format!("{} not captured", count(entries, "entry was", "entries were"));
    let missing = missing_of((&lacks.named, lacks.count), &only::named(&args.only)?, &words)?;
    let missing = missing.map(|missing| format!("the backup is incomplete: {missing} when it was made"));
    let incomplete = if missing.is_some() { "incomplete " } else { "" };
    let mut what = format!("{incomplete}backup {} of {}", backup.name, time(backup.manifest.created_ms));
    if backup.manifest.own.as_ref().is_some_and(|own| own.before_restore) {
        what.push_str(" (which a restore made of what it replaced)");
    }
    let options = options(args.only, args.allow_unsigned, &args.live, (format!("backup {}", backup.name), missing));
    finish(context)?;
    options.lacks.iter().for_each(output::warning);
    let (source, places) = (&backup.manifest.source_dir, context.places()?);
    if !places.owns()(source) {
        // Asked for by name, as after a move; or a command was given without the --data-dir that it was meant with.
        let own = places.known_as();
        output::warning(format!("the backup is of {}, and is put in place of what is in {own}", shown(source)));
    }
    confirm(context, &what, REPLACES, args.live.yes)?;
    carry_out(context, &what, |safety, progress| manager.restore_backup(backup, &options, safety, progress))
}

/// `restore SNAP --in-place`.
pub fn restore_in_place(context: &Context, snapshot: &str, paths: Vec<PathBuf>, live: &LiveArgs) -> Result<u8> {
    finish(context)?;
    let manager = context.backups(None)?;
    let store = context.open()?;
    let record = context.select_own_to_restore(&store, snapshot)?;
    is_meant(&store, snapshot, &record)?;
    let missing = missing(&record, &only::named(&paths)?)?;
    let incomplete = if missing.is_some() { "incomplete " } else { "" };
    let what = format!("{incomplete}snapshot {} of {}", record.id.short(), time(record.started));
    let options = options(paths, false, live, (format!("snapshot {}", record.id.short()), missing));
    options.lacks.iter().for_each(output::warning);
    confirm(context, &what, REPLACES, live.yes)?;
    carry_out(context, &what, |safety, progress| manager.restore_in_place(&store, &record, &options, safety, progress))
}

fn options(
    only: Vec<PathBuf>,
    allow_unsigned: bool,
    live: &LiveArgs,
    (what, lacks): (String, Option<String>),
) -> Options {
    let (into_live, without_safety_backup) = (live.into_live, live.without_safety_backup);
    Options { only, allow_unsigned, into_live, without_safety_backup, lacks, what: Some(what) }
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

const REPLACES: &str = "A safety backup of that is made first.";

/// Asks on a terminal; elsewhere the flag has to say it.
fn confirm(context: &Context, what: &str, how: &str, yes: bool) -> Result<()> {
    may_replace(context, yes)?;
    if yes {
        return Ok(());
    }
    let data = context.data_dir()?;
    output::message(format!("This puts {what} in place of what is in {}. {how} Go on? [y/N]", data.display()));
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
        output::message(format!("safety backup of the present state: {}{}", path.display(), way_back(context, &path)));
        *safety.borrow_mut() = Some((path, created.taken.record.id.to_string()));
    };
    let restored = act(&on_safety, &context.bars());
    let safety = safety.into_inner();
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) => {
            if let Some((path, _)) = &safety {
                output::message(format!(
                    "the state from before the restore is in the safety backup: {}{}",
                    path.display(),
                    way_back(context, path)
                ));
            }
            return Err(error);
        }
    };
    warn_of_moved_places(context);
    Ok(told(context, what, &restored, safety.as_ref(), start))
}

/// Says so if the configuration that was restored names another place for backups or store: the next command looks
/// there, and finds nothing of what is here.
fn warn_of_moved_places(context: &Context) {
    let Ok(before) = context.config().and_then(|config| context.backup_dir(config)) else { return };
    let after = context.own_config().and_then(|config| context.backup_dir(&config));
    if let Some(after) = after.ok().filter(|after| *after != before) {
        output::warning(format!(
            "config.json as it was restored has the backups, and the store with them, in {}; they are in {}, with the \
             safety backup: put `backup_dir` back into it, or the next snapshot makes a new store",
            after.display(),
            before.display()
        ));
    }
}

/// The command that restores the safety backup at `path`, in brackets.
fn way_back(context: &Context, path: &Path) -> String {
    // By its path: what is restored may name another folder of backups.
    command(context, path, None).map(|command| format!(" (`{command}`)")).unwrap_or_default()
}

/// Answers the exit code.
fn told(context: &Context, what: &str, restored: &Restored, safety: Option<&(PathBuf, String)>, start: Instant) -> u8 {
    let replaced = &restored.replaced;
    let is_incomplete = replaced.lacks.is_some();
    restored.remarks.iter().for_each(output::warning);
    tell(context, replaced);
    if context.json {
        let mut said = restored_json(restored, safety, start);
        said["incomplete"] = is_incomplete.into();
        output::json(&said);
    } else {
        line(format!(
            "restored {what}: {} put in place ({}), {} were as they should be; {:.2} s",
            count(replaced.files, "file", "files"),
            size(replaced.bytes),
            replaced.unchanged,
            start.elapsed().as_secs_f64(),
        ));
        if replaced.files > replaced.through.len() as u64 {
            line("restart the application now");
        } else if replaced.files > 0 {
            line("the programs that have the databases open go on with what was restored");
        }
    }
    if replaced.skipped.is_empty() && replaced.stayed.is_empty() && !is_incomplete { 0 } else { IN_PART }
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
        "skipped": &replaced.skipped,
        "written_since": paths(&replaced.stayed),
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
    for path in &replaced.skipped {
        let why = if Sidecar::named(Path::new(path)).is_some() {
            "it is a log of another file than the one that stands there, and would be played into that"
        } else {
            "it is this program's own, or of the kind that is never part of a snapshot"
        };
        output::warning(format!(
            "not restored, and left as it is: {path}: {why}; `nbak restore SNAP PATH --target DIR` has it out of a \
             snapshot"
        ));
    }
    let of = replaced.what.as_ref().map(|what| format!(", of {what},")).unwrap_or_default();
    for path in &replaced.stayed {
        output::warning(format!(
            "not what was restored: {}: it was written to or removed while the restore was half done, and is left as \
             it is; the same restore{of} again puts it right, and makes a safety backup of it",
            name(path)
        ));
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

/// What of `paths`, or of everything, the snapshot never had, in words; nothing if it is complete.
pub(super) fn missing(record: &Record, paths: &[PathBuf]) -> Result<Option<String>> {
    let words = |entries| format!("{} not be read", count(entries, "entry could", "entries could"));
    let what = missing_of((&record.unreadable, record.unreadable_count), paths, &words)?;
    Ok(what.map(|what| format!("the snapshot is incomplete: {what} when it was taken")))
}

/// The same of entries that are named, as far as they are, and counted; also that there is a mixture.
fn missing_of(
    (named, all): (&[(String, String)], u64),
    paths: &[PathBuf],
    words: &dyn Fn(u64) -> String,
) -> Result<Option<String>> {
    let lack = Lack::of(named, all);
    let mut named: Vec<&str> = named.iter().skip(usize::from(lack.mixed)).map(|(path, _)| path.as_str()).collect();
    let unnamed = lack.entries.saturating_sub(named.len() as u64);
    let wanted = paths.iter().map(|path| clean_path(path)).collect::<Result<Vec<_>>>()?;
    named.retain(|path| wanted.is_empty() || wanted.iter().any(|wanted| Path::new(path).starts_with(wanted)));
    let entries = named.len() as u64 + unnamed;
    let mut what = Vec::new();
    if lack.mixed {
        let half_done = "old and new data stand side by side in it, since a restore in place was half done";
        what.push(half_done.to_owned());
    }
    if entries > 0 {
        let first = named[..named.len().min(NAMED)].iter().map(|path| shown(path)).collect::<Vec<_>>().join(", ");
        let more = if entries > NAMED as u64 { ", …" } else { "" };
        what.push(format!("{} ({first}{more})", words(entries)));
    }
    Ok((!what.is_empty()).then(|| what.join(", and ")))
}
