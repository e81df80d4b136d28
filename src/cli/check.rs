//! `check`.
//!
//! A problem that was found is a line of the result; that there are any is the error, and exit code 13.

use std::collections::BTreeMap;

use serde_json::json;

use super::args::CheckArgs;
use super::context::Context;
use super::output::{self, count, line, size};
use crate::error::{Error, Result};
use crate::id::SnapshotId;
use crate::snapshot::check::{Options, PROVEN, Problem, Report, check as check_store};
use crate::snapshot::store::{Access, Store};
use crate::upkeep::pin::prove;
use crate::upkeep::remembered;

/// Problems that are named, unless all are asked for: a lost pack makes thousands.
const SHOWN: usize = 50;
/// Of one object so many, unless all are asked for.
const SHOWN_OF_EACH: usize = 3;

/// The invariant that a snapshot which was taken away breaks.
const CHAIN: u8 = 8;

/// Paths of a snapshot that are named, unless all are asked for.
const SHOWN_PATHS: usize = 100;

/// A drill restored them once, and now they lost something: nobody is to rely on them any more, retention least of all.
fn take_proof(context: &Context, store: &Store, report: &Report) {
    let Some(history) = store.history().ok().filter(|_| report.unread.is_none()) else { return };
    let is_live = |id: &SnapshotId| history.live().any(|record| record.id == *id);
    let affected = report.affected.iter().filter_map(|(id, _)| SnapshotId::parse(id).ok());
    let proven: Vec<SnapshotId> = affected.filter(|id| history.ledger().proof(*id).is_some()).filter(is_live).collect();
    let Some(first) = proven.first() else { return };
    let take = || -> Result<()> {
        let mut store = Store::open(&context.repo()?, &context.credentials()?, Access::Write(context.patience()))?;
        proven.iter().try_for_each(|id| prove(&mut store, *id, None))
    };
    // What the check found is said all the same.
    if let Err(error) = take() {
        output::warning(format!(
            "snapshot {} is still noted as proven, and has lost something: {error}",
            first.short()
        ));
    }
}

/// Verifies the store.
pub fn check(context: &Context, args: &CheckArgs) -> Result<u8> {
    let seen = context.seen();
    let mut store = context.open()?;
    let options = Options { read_data: args.read_data || args.subset.is_some(), subset: args.subset };
    let mut report = check_store(&store, options, &context.bars())?;
    let behind = seen.map(|seen| remembered::missing(&seen, &store, true)).transpose()?.flatten();
    for what in behind.into_iter().chain(store.unfinished()) {
        report.problems.push(Problem { invariant: CHAIN, subject: "the store".to_owned(), what });
    }
    store.remember_damaged(&report.read, &report.damaged);
    take_proof(context, &store, &report);
    if context.json {
        let problems: Vec<_> = report
            .problems
            .iter()
            .map(|p| json!({"subject": p.subject, "problem": p.what, "invariant": format!("I{}", p.invariant)}))
            .collect();
        let affected: Vec<_> = report
            .affected
            .iter()
            .map(|(id, paths)| {
                let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
                json!({"snapshot": id, "paths": paths})
            })
            .collect();
        output::json(&json!({
            "ok": report.problems.is_empty(),
            "snapshots": report.snapshots,
            "packs": report.packs,
            "chunks": report.chunks,
            "segments_read": report.segments_read,
            "bytes_read": report.bytes_read,
            "problems": problems,
            "proven": PROVEN.iter().map(|(number, what)| json!({
                "invariant": format!("I{number}"),
                "what": what,
                "holds": report.problems.iter().all(|problem| problem.invariant != *number),
            })).collect::<Vec<_>>(),
            "remarks": report.remarks,
            "affected": affected,
            "known_losses": report.known.iter().map(|(id, _)| id).collect::<Vec<_>>(),
        }));
    } else {
        // What is wrong with one object may be said of each of its parts: so few are, that others are named too.
        let mut said: BTreeMap<&str, usize> = BTreeMap::new();
        let mut shown: Vec<&Problem> = Vec::new();
        for problem in &report.problems {
            let times = said.entry(problem.subject.as_str()).or_default();
            *times += 1;
            if context.verbose || *times <= SHOWN_OF_EACH {
                shown.push(problem);
            }
        }
        let shown = &shown[..shown.len().min(if context.verbose { usize::MAX } else { SHOWN })];
        for problem in shown {
            line(format!("I{}: {}: {}", problem.invariant, problem.subject, problem.what));
        }
        if report.problems.len() > shown.len() {
            line(format!("… and {} more problems: -v lists them all", report.problems.len() - shown.len()));
        }
        for (id, paths) in &report.affected {
            line(format!("snapshot {} lost {}:", &id[..8], count(paths.len() as u64, "path", "paths")));
            let shown = if context.verbose { paths.len() } else { SHOWN_PATHS };
            for path in paths.iter().take(shown) {
                let path = path.display().to_string();
                line(format!("  {}", if path.is_empty() { "everything" } else { &path }));
            }
            if paths.len() > shown {
                line(format!("  … and {} more: -v lists them all", paths.len() - shown));
            }
        }
        report.remarks.iter().for_each(|remark| line(format!("remark: {remark}")));
        for (number, what) in PROVEN.iter().filter(|_| context.verbose) {
            let broken = report.problems.iter().filter(|problem| problem.invariant == *number).count();
            let verdict = if broken == 0 { "holds ".to_owned() } else { format!("BROKEN ({broken})") };
            line(format!("I{number:<3} {verdict} {what}"));
        }
    }
    if !report.problems.is_empty() {
        return Err(Error::integrity(format!(
            "{} found",
            count(report.problems.len() as u64, "problem was", "problems were")
        ))
        .at(store.root())
        .hint(
            "remove nothing; bring back from a copy of the store what is missing, or run `nbak repair`, which stores \
             again what is at hand; `nbak check --read-data` names every path that is affected",
        ));
    }
    if !context.json {
        let what = if options.read_data {
            format!("{} of data read and verified", size(report.bytes_read))
        } else {
            let but = if report.known.is_empty() { "" } else { " but for what is known to be lost" };
            format!("all of their data is there{but} (--read-data also opens it)")
        };
        line(format!(
            "no problem found: {}, {}, {}; {what}",
            count(report.snapshots, "snapshot", "snapshots"),
            count(report.packs, "pack", "packs"),
            count(report.chunks, "chunk", "chunks")
        ));
    }
    Ok(0)
}
