//! `snapshot` and `snapshots`.
//!
//! A snapshot that lacks what could not be read is still one: it is made, said, and the exit code is 3.

use std::fmt::Write;
use std::time::Instant;

use serde_json::{Value, json};

use super::args::{SnapshotArgs, SnapshotsArgs};
use super::context::Context;
use super::inplace::{finish_or_warn, warn_of_captured};
use super::output::{self, count, iso, line, size, time};
use super::retention;
use crate::error::{Error, Result};
use crate::export::inplace::beside::Watch;
use crate::snapshot::lack::is_mixed;
use crate::snapshot::now::now_ms;
use crate::snapshot::record::Record;
use crate::snapshot::store::{Access, Store};
use crate::snapshot::take::{Options, Taken};
use crate::snapshot::tree::Consistency;
use crate::source::exclude::NO_EXCEPTION;
use crate::upkeep::headless::headless;
use crate::upkeep::policy::Reason;
use crate::upkeep::remembered::take as take_snapshot;

/// The exit code for a snapshot that was made although some of the source could not be read, or of a directory in which
/// a restore is half done.
const INCOMPLETE: u8 = 3;

/// Takes a snapshot.
pub fn take(context: &Context, args: SnapshotArgs) -> Result<u8> {
    let start = Instant::now();
    let source = context.data_dir()?;
    if !source.is_dir() {
        return Err(Error::failed("the data directory is not there").at(&source).hint("name it with --data-dir"));
    }
    if let Some(glob) = args.exclude.iter().find(|glob| glob.starts_with('!')) {
        return Err(Error::usage(format!("`--exclude {glob}`: {NO_EXCEPTION}"))
            .hint("leave it away, and exclude less; nothing was changed"));
    }
    let half_done = finish_or_warn(context, args.dry_run);
    let config = context.config()?;
    let places = context.places()?;
    let repo = &places.repo;
    let own_folders = places.own_folders()?;
    let credentials = context.credentials()?;
    let mut store = if args.dry_run {
        match Store::open(repo, &credentials, Access::Read) {
            Err(error) if error.is_no_store() => Store::in_memory(&credentials, now_ms() / 1000)?,
            other => {
                let store = other?;
                store.would_take(&credentials)?;
                store
            }
        }
    } else {
        Store::open_or_create(repo, &credentials, context.patience(), now_ms() / 1000)?
    };
    context.warn(&store);
    Context::warn_of_left_out(&places);
    if !args.dry_run {
        Context::sweep(&places);
    }
    let new_store = store.is_new();
    if new_store && !context.json {
        context.say(format!("made a new store at {}", store.root().display()));
    }
    let options = Options {
        name: places.name.clone(),
        exclude: config.exclude.iter().cloned().chain(args.exclude).collect(),
        own_folders,
        tags: args.tag,
        note: args.note,
        dry_run: args.dry_run,
        full_scan: args.full_scan,
        separate_files: args.separate_files || config.separate_files,
        list: context.json,
        beside: Watch::begin(&source).knowing(half_done.is_some()).asked(),
        source,
        ..Options::default()
    };
    let before = store.head().ok();
    let taken = take_snapshot(&mut store, &options, &context.bars())?;
    let half_done = warn_of_captured(half_done, &taken.record);
    let duration_ms = start.elapsed().as_millis() as u64;
    report(context, &options, &taken, (new_store, half_done.as_deref()), duration_ms);
    if let Some(before) = before.as_ref().and_then(|head| head.newest_by(&taken.record.source, taken.record.instance)) {
        warn_of_lost_databases(&store, before, &taken);
    }
    if !args.dry_run && !taken.unchanged {
        retention::upkeep(context, &mut store, &taken.record);
    }
    Ok(if taken.unreadable.is_empty() && half_done.is_none() { 0 } else { INCOMPLETE })
}

/// Says which databases are none any more: a first page that is damaged looks like any other file. It costs nothing
/// where there are as many as before.
fn warn_of_lost_databases(store: &Store, before: &Record, taken: &Taken) {
    let record = &taken.record;
    if taken.unchanged || record.totals.databases >= before.totals.databases {
        return;
    }
    for path in headless(store, before, record).unwrap_or_default() {
        let (id, path) = (before.id.short(), path.display());
        output::warning(format!(
            "{path} was a database in snapshot {id}, and is none any more: unless that is meant, it is damaged, and \
             snapshot {id} has it as it was"
        ));
    }
}

fn report(
    context: &Context,
    options: &Options,
    taken: &Taken,
    (new_store, half_done): (bool, Option<&str>),
    duration_ms: u64,
) {
    let record = &taken.record;
    let remarks = || taken.remarks.iter().cloned().chain(not_captured(taken));
    remarks().for_each(output::warning);
    if context.verbose {
        for (path, reason) in &taken.excluded {
            output::message(format!("left out: {}: {reason}", path.display()));
        }
        for entry in taken.entries.iter().filter(|entry| entry.by_log) {
            output::message(format!("read by its log: {}", entry.path.display()));
        }
        if taken.taken_over > 0 {
            let entries = count(taken.taken_over, "entry is", "entries are");
            output::message(format!("{entries} in folders that are as the last walk saw them: not looked at"));
        }
        if taken.at_a_glance {
            output::message("every entry is as the last walk saw it: nothing else was looked at");
        }
    }
    if context.json {
        let entries: Vec<Value> = taken
            .entries
            .iter()
            .map(|entry| {
                let (path, consistency) = (entry.path.to_string_lossy(), entry.consistency.as_str());
                json!({"path": path, "type": entry.kind, "consistency": consistency, "by_log": entry.by_log})
            })
            .collect();
        let tally = |wanted: Consistency| taken.entries.iter().filter(|entry| entry.consistency == wanted).count();
        let mut object = record_json(record);
        let more = json!({
            "unchanged": taken.unchanged,
            "dry_run": options.dry_run,
            "new_store": new_store,
            "new_chunks": taken.new_chunks,
            "new_bytes": taken.new_bytes,
            "stored_bytes": taken.stored_bytes,
            "changed_files": taken.changed_files,
            "duration_ms": duration_ms,
            "cut_ms": taken.cut_ms,
            "consistency": {
                "transaction": tally(Consistency::Transaction),
                "stable": tally(Consistency::Stable),
                "changed": tally(Consistency::Changed),
            },
            "warnings": remarks().collect::<Vec<_>>(),
            "pending_restore": half_done,
            "entries": entries,
        });
        if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
            object.extend(more);
        }
        output::json(&object);
        return;
    }
    let seconds = duration_ms as f64 / 1000.0;
    if taken.unchanged {
        let (name, verb) = if options.dry_run { ("dry run: ", "would be") } else { ("", "was") };
        line(format!(
            "{name}nothing changed since snapshot {} of {}: nothing {verb} stored ({seconds:.2} s)",
            record.id.short(),
            time(record.started)
        ));
        return;
    }
    let verb = if options.dry_run { "would store" } else { "stored" };
    let name = if options.dry_run { "dry run".to_owned() } else { format!("snapshot {}", record.id.short()) };
    line(format!(
        "{name}: {} of {}, {}; {} changed; {verb} {} ({} of {}); the data is of one span of {} ms; {seconds:.2} s",
        count(record.totals.files, "file", "files"),
        size(record.totals.bytes),
        count(record.totals.databases, "database", "databases"),
        taken.changed_files,
        size(taken.stored_bytes),
        count(taken.new_chunks, "new chunk", "new chunks"),
        size(taken.new_bytes),
        taken.cut_ms,
    ));
    if !record.lack().is_none() {
        context.say(format!("{}: the snapshot is incomplete", record.lack()));
    }
}

/// What could not be captured, in words. That it is a mixture is told as what is to be known of the restore.
pub fn not_captured(taken: &Taken) -> impl Iterator<Item = String> {
    taken.unreadable.iter().filter(|error| !is_mixed(error)).map(|error| format!("not captured: {error}"))
}

fn record_json(record: &Record) -> Value {
    json!({
        "snapshot": record.id.to_string(),
        "parent": record.parent.map(|id| id.to_string()),
        "sequence": record.sequence,
        "started": iso(record.started),
        "ended": iso(record.ended),
        "source": record.source,
        "instance": record.instance.map(|it| it.to_string()),
        "files": record.totals.files,
        "databases": record.totals.databases,
        "directories": record.totals.directories,
        "symlinks": record.totals.symlinks,
        "bytes": record.totals.bytes,
        "tags": record.tags,
        "note": record.note,
        "unreadable": record.unreadable_count,
        "unreadable_entries": unreadable_json(record),
        "mixed": record.lack().mixed,
    })
}

/// The entries that a snapshot lacks, as far as they are named.
pub fn unreadable_json(record: &Record) -> Value {
    record.unreadable.iter().map(|(path, reason)| json!({"path": path, "reason": reason})).collect()
}

/// Lists the snapshots, oldest first.
pub fn list(context: &Context, args: &SnapshotsArgs) -> Result<u8> {
    let store = context.open()?;
    let history = store.history()?;
    let ledger = history.ledger();
    let records: Vec<&Record> = if args.forgotten {
        let there = history.forgotten().filter(|one| ledger.forgotten.contains_key(&one.record.id));
        there.map(|one| &one.record).collect()
    } else {
        history.live().collect()
    };
    // Where all are of one that is not this, too: whose they are is what is asked then.
    let own = context.known_as().ok();
    let first = own.as_ref().or_else(|| records.first().map(|record| &record.source));
    let several = records.iter().any(|record| Some(&record.source) != first);
    for record in &records {
        let lost = ledger.losses.get(&record.id);
        if context.json {
            let mut object = record_json(record);
            object["lost"] = lost.map_or(Value::Null, |loss| json!({"count": loss.count, "paths": loss.paths}));
            if let Some(at) = ledger.forgotten.get(&record.id) {
                object["forgotten"] = iso(*at);
            }
            object["proven"] = ledger.proof(record.id).map_or(Value::Null, iso);
            let pin = ledger.pinned.get(&record.id);
            object["pinned"] = pin.map_or(Value::Null, |pin| json!({"at": iso(pin.at), "reason": pin.reason}));
            output::json(&object);
            continue;
        }
        let mut text = format!(
            "{}  {}  {:>8} files  {:>9}",
            record.id.short(),
            time(record.started),
            record.totals.files,
            size(record.totals.bytes)
        );
        if several {
            let _ = write!(text, "  {}", record.source);
        }
        if !record.tags.is_empty() {
            let _ = write!(text, "  [{}]", record.tags.join(", "));
        }
        let lack = record.lack();
        if lack.mixed {
            text.push_str("  mixed: taken while a restore in place was half done");
        }
        if lack.entries > 0 {
            let _ = write!(text, "  incomplete: {} not captured", lack.entries);
        }
        if let Some(at) = ledger.forgotten.get(&record.id) {
            let _ = write!(text, "  forgotten {}", time(*at));
        }
        if let Some(at) = ledger.proof(record.id) {
            let _ = write!(text, "  proven {}", time(at));
        }
        if let Some(pin) = ledger.pinned.get(&record.id) {
            let _ = write!(text, "  {}", Reason::Pinned(pin.reason.clone()));
        }
        if let Some(loss) = lost {
            let what = if loss.paths.iter().any(String::is_empty) {
                "everything".to_owned()
            } else {
                count(loss.count, "file or directory", "files and directories")
            };
            let _ = write!(text, "  damaged: {what} lost");
        }
        if let Some(note) = &record.note {
            let _ = write!(text, "  {note}");
        }
        line(text);
        if context.verbose {
            let missing = record.unreadable.iter().skip(usize::from(lack.mixed));
            missing.for_each(|(path, reason)| line(format!("  not captured: {path}: {reason}")));
            for path in lost.iter().flat_map(|loss| &loss.paths) {
                line(format!("  lost: {}", if path.is_empty() { "everything" } else { path }));
            }
        }
    }
    if records.is_empty() && !context.json {
        context.say(match (args.forgotten, history.forgotten().next()) {
            (true, _) => "there is no forgotten snapshot that could be brought back",
            (false, None) => "the store holds no snapshot yet",
            (false, Some(_)) => "all snapshots were forgotten: see `nbak snapshots --forgotten`",
        });
    }
    Ok(0)
}
