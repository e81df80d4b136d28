//! `forget`, `pin`, `unpin`, `undelete` and `gc`.
//!
//! None of them asks: what was forgotten can be brought back, and `gc` only takes what was forgotten before.

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::ZonedDateTime;
use serde_json::json;

use super::args::{ForgetArgs, GcArgs, PinArgs, Rules, UndeleteArgs, UnpinArgs};
use super::context::Context;
use super::meant::is_id;
use super::output::{self, count, iso, line, size, time};
use crate::error::{Error, Result};
use crate::export::manifest::whose::Others;
use crate::id::SnapshotId;
use crate::snapshot::look;
use crate::snapshot::now::now_ms;
use crate::snapshot::record::Record;
use crate::snapshot::store::{Access, Store};
use crate::upkeep::alike::{Alike, REMEDY, UpTo, Which};
use crate::upkeep::policy::{Candidate, Policy, Reason, candidates, held, parse_duration, plan};
use crate::upkeep::tend::tend;
use crate::upkeep::{forget as forgetting, gc as collecting, pin as marking, remembered};

/// Forgets snapshots.
pub fn forget(context: &Context, args: &ForgetArgs) -> Result<u8> {
    let now = ZonedDateTime::now();
    let policy = policy(&args.rules)?;
    let is_alone = args.snapshots.is_empty() && policy.is_empty() && args.of.is_none() && !args.dry_run;
    if is_alone && (args.as_one || args.as_one_with.is_some()) {
        return take_as_one(context, args.as_one_with.as_deref());
    }
    if args.snapshots.is_empty() && policy.is_empty() {
        return Err(Error::usage("it is not said which snapshots to forget")
            .hint("name some, or give a policy such as `--keep-daily 14 --keep-weekly 8 --dry-run`"));
    }
    context.sure_of_store()?;
    if !policy.is_empty() && args.of.is_none() {
        context.require_name()?;
    }
    let mut store = open(context, args.dry_run)?;
    let verdicts: Vec<(Record, Vec<String>)> = if args.snapshots.is_empty() {
        let known: BTreeSet<&String> = store.history()?.live().flat_map(|record| &record.tags).collect();
        for tag in policy.tags.iter().filter(|tag| !known.contains(tag)) {
            output::warning(format!("no snapshot has the tag {tag}: it keeps none"));
        }
        let alike = told_apart(context, args, &store)?;
        by_policy(context, args.of.as_deref(), &alike, &store, &policy, &now)?
    } else {
        let named: Result<BTreeSet<SnapshotId>> =
            args.snapshots.iter().map(|name| context.select_certain(&store, name).map(|record| record.id)).collect();
        let named = named?;
        if !args.force {
            refuse_held(&store, &named, &now)?;
        }
        let why = |record: &Record| if named.contains(&record.id) { Vec::new() } else { vec!["not named".to_owned()] };
        store.history()?.live().map(|record| (record.clone(), why(record))).collect()
    };
    let gone: BTreeSet<SnapshotId> =
        verdicts.iter().filter(|(_, keep)| keep.is_empty()).map(|(record, _)| record.id).collect();
    if !args.dry_run && !gone.is_empty() {
        forgetting::forget(&mut store, &gone, now_ms())?;
    }
    let named = !args.snapshots.is_empty();
    for (record, keep) in &verdicts {
        if context.json {
            output::json(&json!({
                "snapshot": record.id.to_string(),
                "started": iso(record.started),
                "source": record.source,
                "forget": keep.is_empty(),
                "reasons": keep,
                "dry_run": args.dry_run,
            }));
        } else if keep.is_empty() {
            let verb = if args.dry_run { "would forget" } else { "forgot" };
            line(format!("{verb} {}  {}", record.id.short(), time(record.started)));
        } else if !named && (args.dry_run || context.verbose) {
            line(format!("keep         {}  {}  {}", record.id.short(), time(record.started), keep.join(", ")));
        }
    }
    if !context.json {
        let stay = verdicts.len() - gone.len();
        let verb = if args.dry_run { "would be forgotten" } else { "forgotten" };
        line(format!("{} {verb}, {stay} stay", count(gone.len() as u64, "snapshot", "snapshots")));
        if !args.dry_run && !gone.is_empty() {
            output::advice("`nbak gc` frees the space; until then `nbak undelete SNAP` brings back what was forgotten");
        }
        if stay == 0 && !gone.is_empty() {
            output::warning("no snapshot stays");
        }
    }
    Ok(0)
}

/// Whose what is known as this data directory, or as `--of` says, is in `store`.
fn told_apart(context: &Context, args: &ForgetArgs, store: &Store) -> Result<Alike> {
    let other = args.of.as_ref().filter(|source| context.known_as().ok().as_ref() != Some(source));
    let (alike, source) = match other {
        None => (context.alike(store)?, context.known_as()?),
        Some(source) => {
            require_known(source, &store.history()?.live().collect::<Vec<_>>())?;
            (remembered::alike(&context.data_dir()?, source, store)?, source.clone())
        }
    };
    if args.as_one || args.as_one_with.is_some() {
        let mut these = said_as_one(context, args.as_one_with.as_deref(), &alike, &source, store)?;
        if args.as_one && other.is_none() {
            leave_those_beside(context, &mut these);
        }
        return Ok(alike.with(these));
    }
    if other.is_some() && !store.history()?.live().any(|record| alike.owns(record)) {
        return Err(Error::usage(format!(
            "none of the snapshots of {} that are there was taken of this data directory",
            output::shown(&source)
        ))
        .hint(
            "--as-one goes over them by one policy, whoever took them, as long as no two of those lived beside each \
             other; --as-one-with SNAPSHOT over those of the one that took this; nothing was forgotten",
        ));
    }
    Ok(alike)
}

/// Of whom a person says that this directory was it: all of which that may be, or the one that took the snapshot, or
/// made the backup, `with`.
fn said_as_one(context: &Context, with: Option<&str>, alike: &Alike, source: &str, store: &Store) -> Result<UpTo> {
    let Some(name) = with else { return alike.before() };
    // It is said once more, where what was said has ended.
    let upto = |it: &Which| alike.others().get(it).or(alike.ones().get(it)).copied();
    let all: Vec<Record> = store.records()?.into_iter().filter(|record| record.source == source).collect();
    if !is_id(&all, name) {
        if let Ok(manager) = context.backups(None)
            && manager.list_backups()?.iter().any(|one| one.name == name)
        {
            let it = manager.maker_of(name)?;
            return Ok([(it, upto(&it).unwrap_or(0))].into());
        }
        return Err(Error::usage(format!("no snapshot of {} has this id: {name}", output::shown(source))).hint(
            "name one by its id (`nbak snapshots`), no tag and no time; or one of its backups by its name; \
                 nothing was noted, nor forgotten",
        ));
    }
    let meant = look::select(&all, name, &ZonedDateTime::now())?.instance;
    Ok(upto(&meant).map(|upto| (meant, upto)).into_iter().collect())
}

/// Takes out of `these` who made a backup since this directory was made: it lives beside it, whatever it took snapshots
/// into. Answers with those that backups alone say it may have been before.
fn leave_those_beside(context: &Context, these: &mut UpTo) -> BTreeSet<Which> {
    let others = context.backups(None).and_then(|manager| manager.others()).unwrap_or_else(|error| {
        output::warning(format!("what backups say of other directories of this path is not known: {error}"));
        Others::default()
    });
    these.retain(|it, _| !others.beside.contains(it));
    if !others.beside.is_empty() {
        let those = count(others.beside.len() as u64, "directory", "directories");
        output::warning(format!(
            "{those} of the same path made backups since this one was made, or beside another: not taken for what \
             this one was (`nbak forget --as-one-with BACKUP` says of one that it was, with one of its backups; else \
             give each a name)"
        ));
    }
    others.before
}

/// `--as-one` or `--as-one-with` alone: it forgets nothing, and counts from now on. With a policy it is said for that
/// command.
fn take_as_one(context: &Context, with: Option<&str>) -> Result<u8> {
    context.require_name()?;
    let store = open(context, true)?;
    let (alike, source) = (context.alike(&store)?, context.known_as()?);
    let mut these = said_as_one(context, with, &alike, &source, &store)?;
    if with.is_none() {
        // Those that backups alone tell of: no snapshot of theirs counts yet.
        for it in leave_those_beside(context, &mut these) {
            these.entry(it).or_insert(0);
        }
    }
    remembered::accept(&context.data_dir()?, &source, &store, &these)?;
    let left = context.alike(&store)?;
    if context.json {
        output::json(&json!({"as_one": these.len(), "others": left.others().len()}));
        return Ok(0);
    }
    if these.is_empty() {
        line(
            "nothing is known as this data directory that it may have been before, and that is not its own already \
             (what lay at another path: `nbak forget --of OLD-PATH --as-one` with a policy)",
        );
    } else {
        let others = count(these.len() as u64, "other data directory", "other data directories");
        line(format!("what {others} of the same path took so far counts as this one's from now on"));
    }
    if let Some(other) = left.text() {
        output::warning(format!("{other}: that stays another's ({REMEDY})"));
    }
    if with.is_some() || these.is_empty() {
        let again = |words: &String| !words.contains("`nbak forget --as-one`");
        left.leaves(false).filter(again).iter().for_each(output::warning);
    }
    Ok(0)
}

/// Fails if one of `named` is pinned, or the newest that a drill restored.
fn refuse_held(store: &Store, named: &BTreeSet<SnapshotId>, now: &ZonedDateTime) -> Result<()> {
    let candidates = candidates(store.history()?);
    let held = held(&candidates, now);
    let Some((id, reason)) =
        held.iter().map(|(place, why)| (candidates[*place].id, why)).find(|(id, _)| named.contains(id))
    else {
        return Ok(());
    };
    let id = id.short();
    let error = Error::usage(format!("snapshot {id} is to stay: it is {reason}"));
    Err(match reason {
        Reason::Pinned(_) => error.hint(format!("`nbak unpin {id}` first, or give --force; nothing was forgotten")),
        _ => error.hint("`nbak drill` restores a newer one; or give --force; nothing was forgotten"),
    })
}

/// Keeps a snapshot, whatever a policy says.
pub fn pin(context: &Context, args: &PinArgs) -> Result<u8> {
    let mut store = open(context, false)?;
    let record = context.select_certain(&store, &args.snapshot)?;
    let reason = args.reason.trim();
    marking::pin(&mut store, record.id, reason, now_ms())?;
    if context.json {
        output::json(&json!({"snapshot": record.id.to_string(), "pinned": true, "reason": reason}));
    } else {
        line(format!("pinned {}  {}", record.id.short(), time(record.started)));
    }
    Ok(0)
}

/// Lets it go like any other again.
pub fn unpin(context: &Context, args: &UnpinArgs) -> Result<u8> {
    let mut store = open(context, false)?;
    let record = context.select_certain(&store, &args.snapshot)?;
    let was = marking::unpin(&mut store, record.id)?;
    if context.json {
        output::json(&json!({"snapshot": record.id.to_string(), "pinned": false, "was_pinned": was}));
    } else {
        let verb = if was { "unpinned" } else { "was not pinned:" };
        line(format!("{verb} {}  {}", record.id.short(), time(record.started)));
    }
    Ok(0)
}

fn open(context: &Context, dry_run: bool) -> Result<Store> {
    let access = if dry_run { Access::Read } else { Access::Write(context.patience()) };
    let seen = context.seen();
    let store = Store::open(&context.repo()?, &context.credentials()?, access)?;
    context.warn(&store);
    Context::warn_if_behind(seen.as_ref(), &store);
    Ok(store)
}

fn policy(rules: &Rules) -> Result<Policy> {
    Ok(Policy {
        last: rules.keep_last.unwrap_or(0),
        hourly: rules.keep_hourly.unwrap_or(0),
        daily: rules.keep_daily.unwrap_or(0),
        weekly: rules.keep_weekly.unwrap_or(0),
        monthly: rules.keep_monthly.unwrap_or(0),
        yearly: rules.keep_yearly.unwrap_or(0),
        within: rules.keep_within.as_deref().map(parse_duration).transpose()?,
        tags: rules.keep_tag.clone(),
    })
}

/// Each snapshot with the reasons why it stays; none if it is to be forgotten. A policy is one data directory's: where
/// the store has snapshots of others, those stay, and count for nothing.
fn by_policy(
    context: &Context,
    of: Option<&str>,
    alike: &Alike,
    store: &Store,
    policy: &Policy,
    now: &ZonedDateTime,
) -> Result<Vec<(Record, Vec<String>)>> {
    let records: Vec<&Record> = store.history()?.live().collect();
    if of.is_none() {
        drop(context.own(store, &store.records()?)?);
    }
    let is_own: HashSet<SnapshotId> = records.iter().filter(|one| alike.owns(one)).map(|one| one.id).collect();
    let own = candidates(store.history()?).into_iter().filter(|one| is_own.contains(&one.id));
    // What it was before and what it is are one here.
    let own: Vec<Candidate<'_>> = own.map(|one| Candidate { instance: None, ..one }).collect();
    let mut verdicts: HashMap<SnapshotId, Vec<String>> = plan(&own, policy, now)
        .into_iter()
        .map(|verdict| (verdict.id, verdict.keep.iter().map(ToString::to_string).collect()))
        .collect();
    // A clock that was behind makes the newest one look old: it stays all the same.
    // Then so does the last that is no mixture.
    let last = |mixed_too: bool| own.iter().rev().find(|one| mixed_too || !one.mixed).map(|one| one.id);
    let (last, unmixed) = (last(true), last(false));
    let with_reasons = records.iter().map(|record| {
        let Some(mut keep) = verdicts.remove(&record.id) else {
            return ((*record).clone(), vec!["of another data directory".to_owned()]);
        };
        if keep.is_empty() && last == Some(record.id) {
            keep.push("the last one that was taken".to_owned());
        }
        if keep.is_empty() && unmixed == Some(record.id) {
            keep.push("the last one that was taken (mixed ones not counted)".to_owned());
        }
        ((*record).clone(), keep)
    });
    let all = with_reasons.collect();
    for word in alike
        .leaves(of.is_some())
        .into_iter()
        .chain(alike.text().map(|other| format!("{other}: those stay ({REMEDY})")))
    {
        output::warning(word);
    }
    Ok(all)
}

/// Fails if no snapshot is known as `source`.
fn require_known(source: &str, records: &[&Record]) -> Result<()> {
    if records.iter().all(|one| one.source != source) {
        let known: BTreeSet<String> = records.iter().map(|one| output::shown(&one.source).to_string()).collect();
        let known = known.into_iter().take(5).collect::<Vec<_>>().join(", ");
        return Err(Error::usage(format!("no snapshot in the store is known as {}", output::shown(source)))
            .hint(format!("there are those of {known} (`nbak snapshots`); nothing was forgotten")));
    }
    Ok(())
}

/// Brings forgotten snapshots back.
pub fn undelete(context: &Context, args: &UndeleteArgs) -> Result<u8> {
    let mut store = open(context, false)?;
    let history = store.history()?;
    let there: Vec<Record> = history
        .forgotten()
        .filter(|one| history.ledger().forgotten.contains_key(&one.record.id))
        .map(|one| one.record.clone())
        .collect();
    if there.is_empty() {
        return Err(Error::failed("there is no forgotten snapshot that could be brought back")
            .hint("`gc` has reclaimed what was forgotten, or nothing was"));
    }
    let ids: Result<BTreeSet<SnapshotId>> = if args.snapshots == ["all"] {
        Ok(there.iter().map(|record| record.id).collect())
    } else {
        let (now, own) = (ZonedDateTime::now(), context.of_this(&store, &there));
        let one = |name: &String| {
            let meant = if is_id(&there, name) { &there } else { &own };
            if meant.is_empty() {
                return Err(Error::usage("no forgotten snapshot that could be brought back is of this data directory"));
            }
            look::select(meant, name, &now).map(|record| record.id)
        };
        args.snapshots.iter().map(one).collect()
    };
    let ids =
        ids.map_err(|error| error.hint("`nbak snapshots --forgotten` lists what can be brought back, by its id"))?;
    let gone = forgetting::undelete(&mut store, &ids, args.snapshots == ["all"])?;
    for record in there.iter().filter(|record| ids.contains(&record.id) && !gone.contains(&record.id)) {
        if context.json {
            output::json(&json!({"snapshot": record.id.to_string(), "started": iso(record.started)}));
        } else {
            line(format!("brought back {}  {}", record.id.short(), time(record.started)));
        }
    }
    if let Some(first) = gone.first() {
        return Err(Error::failed(format!(
            "{} could not be brought back, such as {}: some of its space was reclaimed, or it is damaged",
            count(gone.len() as u64, "snapshot", "snapshots"),
            first.short()
        ))
        .hint("the others were brought back; `nbak snapshots --forgotten` lists what is left"));
    }
    Ok(0)
}

/// Frees space.
pub fn gc(context: &Context, args: &GcArgs) -> Result<u8> {
    let now = ZonedDateTime::now();
    let before = match &args.keep_forgotten {
        None => i64::MAX,
        Some(text) => {
            let span = parse_duration(text)?;
            let moment = now.checked_sub(span);
            moment.map_or(i64::MIN, |moment| moment.timestamp().as_millisecond())
        }
    };
    let mut store = open(context, args.dry_run)?;
    if !args.dry_run {
        Context::sweep(&context.places()?);
    }
    let options = collecting::Options {
        dry_run: args.dry_run,
        forgotten_before: before,
        patience: context.patience(),
        ..collecting::Options::default()
    };
    let outcome = collecting::gc(&mut store, &options, &context.bars())?;
    for why in outcome.held.values() {
        output::warning(format!("a pack stays as it is: {why} (run `nbak check --read-data`, then `nbak repair`)"));
    }
    let readers = |pids: &[u32]| pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if context.json {
        let waiting = outcome.waiting.as_ref();
        output::json(&json!({
            "dry_run": args.dry_run,
            "freed_bytes": outcome.freed,
            "deleted_packs": outcome.deleted,
            "written_packs": outcome.written,
            "reclaimed": outcome.reclaimed.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "left_bytes": outcome.left,
            "waiting_bytes": waiting.map_or(0, |(bytes, _)| *bytes),
            "readers": waiting.map_or_else(Vec::new, |(_, pids)| pids.clone()),
            "held_packs": outcome.held.keys().map(ToString::to_string).collect::<Vec<_>>(),
            "no_room": outcome.no_room,
        }));
        return Ok(0);
    }
    let freed = size(outcome.freed.max(0).cast_unsigned());
    if args.dry_run {
        let gone = count(outcome.reclaimed.len() as u64, "forgotten snapshot", "forgotten snapshots");
        let packs = count(outcome.deleted, "pack", "packs");
        line(format!("would free about {freed}, from {packs}; {gone} could not be brought back after that"));
    } else {
        let freed = if outcome.freed < 0 {
            // What is stored by itself now was the difference from what is gone.
            format!("freed nothing: the packs take {} more than before", size(outcome.freed.unsigned_abs()))
        } else {
            format!("freed {freed}")
        };
        line(format!(
            "{freed}: {} deleted, {} written; {} reclaimed",
            count(outcome.deleted, "pack", "packs"),
            outcome.written,
            count(outcome.reclaimed.len() as u64, "snapshot", "snapshots"),
        ));
    }
    if let Some((bytes, pids)) = &outcome.waiting {
        let who = if pids.is_empty() { String::new() } else { format!(" (process {})", readers(pids)) };
        line(format!("{} wait until nobody reads the store{who}: run it again then", size(*bytes)));
    }
    if outcome.left > 0 {
        line(format!("about {} are left in packs that are mostly needed", size(outcome.left)));
    }
    if outcome.no_room {
        line("there was not enough room to put together what is needed of packs that are mostly waste: run it again");
    }
    Ok(0)
}

/// What is done for the store after a snapshot now and then. It must not fail the snapshot, which stands.
pub fn upkeep(context: &Context, store: &mut Store, taken: &Record) {
    match tend(store, taken, now_ms()) {
        Ok(tended) if context.verbose => {
            if tended.packs > 0 {
                let packs = count(tended.packs as u64, "small pack was", "small packs were");
                output::message(format!("{packs} put together"));
            }
            if let Some(freed) = tended.freed {
                output::message(format!("freed {}", size(freed.max(0).cast_unsigned())));
            }
        }
        Ok(_) => {}
        Err(error) => output::warning(format!("the snapshot was taken; upkeep of the store failed: {error}")),
    }
}
