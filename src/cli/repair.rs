//! `repair`.
//!
//! What was lost is a line of the result; that anything was is the error, and exit code 13. What could not be read of
//! the data directory meanwhile is a warning, and exit code 3 if nothing is worse.

use std::collections::HashSet;

use serde_json::json;

use super::args::{Repair, RepairArgs};
use super::context::Context;
use super::inplace::warn_of_captured;
use super::output::{self, count, line};
use super::snapshot::not_captured;
use crate::error::{Error, Result};
use crate::export::repair::{Options, Repaired};
use crate::snapshot::ledger::is_ledger;
use crate::snapshot::store::{Access, Store, UNFINISHED};
use crate::upkeep::remembered;

/// The exit code where all is well again, and the snapshot that was taken for it lacks something.
const INCOMPLETE: u8 = 3;

/// Repairs the store, or its index only.
pub fn repair(context: &Context, args: &RepairArgs) -> Result<u8> {
    match &args.what {
        Some(Repair::Index) => index(context),
        None => all(context, args),
    }
}

/// Saves everything that can be saved, and says what is lost.
fn all(context: &Context, args: &RepairArgs) -> Result<u8> {
    let options = Options { backups: args.from.clone(), without_snapshot: args.without_snapshot };
    let repaired = context.backups(None)?.repair(&options, &context.bars())?;
    let unreadable = repaired.taken.as_ref().map_or(&[][..], |taken| &taken.unreadable);
    if let Some(taken) = &repaired.taken {
        not_captured(taken).for_each(output::warning);
        warn_of_captured(None, &taken.record);
    }
    if context.json {
        let taken = repaired.taken.as_ref();
        output::json(&json!({
            "nothing_wrong": repaired.nothing,
            "snapshot": taken.map(|taken| taken.record.id.to_string()),
            "no_snapshot_since": repaired.not_taken,
            "unreadable": unreadable.iter().map(|error| {
                json!({"path": error.path.to_string_lossy(), "reason": error.reason})
            }).collect::<Vec<_>>(),
            "stored_again_bytes": taken.map_or(0, |taken| taken.stored_bytes),
            "records_put_back": repaired.records,
            "chunks_from_backups": repaired.healed,
            "backups_looked_in": repaired.looked_in,
            "whole_again": repaired.whole_again.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "packs_set_aside": repaired.set_aside.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "sealed_backups": repaired.sealed,
            "remarks": repaired.remarks,
            "missing_snapshots": repaired.missing,
            "unknown_packs": repaired.unknown,
            "lost": repaired.lost.iter()
                .map(|(id, paths)| json!({"snapshot": id.to_string(), "paths": paths})).collect::<Vec<_>>(),
            "problems": repaired.problems.iter()
                .map(|p| json!({"subject": p.subject, "problem": p.what})).collect::<Vec<_>>(),
        }));
    } else {
        report(context, &repaired);
    }
    if let Some(problem) = repaired.problems.first() {
        return Err(Error::integrity(format!(
            "not everything could be repaired: {}: {}",
            problem.subject, problem.what
        ))
        .hint("`nbak check` lists it all"));
    }
    if !repaired.news {
        return Ok(if unreadable.is_empty() { 0 } else { INCOMPLETE });
    }
    let mut what = Vec::new();
    if !repaired.lost.is_empty() {
        what.push(format!(
            "{} lost something for good, which is written down",
            count(repaired.lost.len() as u64, "snapshot has", "snapshots have")
        ));
    }
    if repaired.missing > 0 {
        what.push(format!("{} missing altogether", count(repaired.missing, "snapshot is", "snapshots are")));
    }
    if repaired.unknown > 0 {
        let packs = count(repaired.unknown, "pack was set aside", "packs were set aside");
        what.push(format!("{packs} of which it is not known any more what was in it: the newest snapshots, perhaps"));
    }
    Err(Error::integrity(format!("{}; everything else restores", what.join("; "))).hint(
        "`nbak snapshots -v` names what is lost; if a copy of the store has it, bring the packs back before the \
             next `nbak gc`, and run `nbak repair` again; a documented backup of that time has it too, databases in \
             another form: restore it as a whole",
    ))
}

fn report(context: &Context, repaired: &Repaired) {
    if repaired.nothing {
        line("nothing is wrong: nothing was changed");
        return;
    }
    if repaired.records > 0 {
        line(format!("put back {} that only the index remembered", count(repaired.records, "record", "records")));
    }
    if let Some(taken) = &repaired.taken {
        let id = taken.record.id.short();
        line(if taken.unchanged {
            format!("the data directory is as snapshot {id} has it: nothing of that directory was lost")
        } else {
            format!("took snapshot {id}, with what was at hand of what was lost")
        });
    }
    if let Some(why) = &repaired.not_taken {
        line(format!("took no snapshot: {why}"));
    }
    if repaired.healed > 0 || repaired.looked_in > 0 {
        line(format!(
            "found {} in {}",
            count(repaired.healed, "lost chunk", "lost chunks"),
            count(repaired.looked_in, "documented backup", "documented backups")
        ));
    }
    let aside = repaired.set_aside.len() as u64;
    if aside > 0 {
        line(format!(
            "set aside {}, in the store's folder `quarantine`",
            count(aside, "damaged pack", "damaged packs")
        ));
    }
    for name in &repaired.sealed {
        output::warning(format!(
            "backup {name} opens with none of the keys that were given: give the key of its time too"
        ));
    }
    for (id, paths) in &repaired.lost {
        let what = count(*paths, "file or directory", "files and directories");
        line(format!("snapshot {} lost {what}{}", id.short(), if repaired.news { "" } else { ", as was known" }));
    }
    for id in &repaired.whole_again {
        line(format!("snapshot {} has again all that it had lost", id.short()));
    }
    if context.verbose {
        repaired.remarks.iter().for_each(output::message);
    }
}

/// Makes the index anew from the packs, and takes those that there are for all that there ever were.
fn index(context: &Context) -> Result<u8> {
    let (repo, credentials) = (context.repo()?, context.credentials()?);
    let mut store = Store::open(&repo, &credentials, Access::Write(context.patience()))?;
    let losses = store.losses();
    let index = store.catalog().index();
    let (lost, snapshots) = index
        .lost()
        .fold((0, 0), |(n, m), (_, records)| (n + 1, m + records.iter().filter(|record| !is_ledger(record)).count()));
    let before: Vec<_> = store.records()?.iter().map(|record| record.id).collect();
    store.catalog_mut().index_mut().discard();
    drop(store);
    let store = Store::open(&repo, &credentials, Access::Write(context.patience()))?;
    // What did not come is accepted too.
    let unfinished = repo.join(UNFINISHED);
    if store.awaits_pull() {
        std::fs::remove_file(&unfinished)
            .map_err(|error| Error::io("accept the store as it is", &unfinished, error))?;
    }
    let remembered = context
        .data_dir()
        .and_then(|data_dir| Ok((data_dir, context.known_as()?)))
        .map(|(data_dir, source)| remembered::remember(&data_dir, &source, &store, false));
    if let Ok(Err(error)) = remembered {
        output::warning(format!("it is not remembered that this was accepted, and will be told of again: {error}"));
    }
    context.warn(&store);
    // Those of packs that are there and do not open.
    let after: HashSet<_> = store.records()?.iter().map(|record| record.id).collect();
    let unlisted = before.iter().filter(|id| !after.contains(id)).count() as u64;
    let packs = store.catalog().index().packs().count() as u64;
    let unreadable = store.catalog().index().unreadable().len() as u64;
    if context.json {
        output::json(&json!({
            "packs": packs,
            "unreadable_packs": unreadable,
            "accepted_lost_packs": lost,
            "accepted_lost_snapshots": snapshots,
            "unlisted_snapshots": unlisted,
        }));
    } else {
        if let Some(losses) = &losses {
            line(format!("accepted as lost: {losses}"));
        }
        line(format!("the index was made anew from {}", count(packs, "pack", "packs")));
    }
    if unreadable > 0 {
        let what = count(unreadable, "pack could not", "packs could not");
        let gone = count(unlisted, "snapshot is", "snapshots are");
        return Err(Error::integrity(format!("{what} be read, and {gone} not listed any more"))
            .hint("bring the packs back from a copy of the store that `nbak check` names, or run `nbak repair`"));
    }
    Ok(0)
}
