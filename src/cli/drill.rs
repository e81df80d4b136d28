//! `drill`.
//!
//! A fault that was found is a line of the result; that there are any is the error, and exit code 13. Of a snapshot
//! that lacks something all that it has may come back: that is exit code 3. The store is open for reading while the
//! drill runs, so that it holds up no snapshot, and for writing only to note that it passed.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::args::DrillArgs;
use super::context::Context;
use super::output::{self, count, iso, line, size, time};
use super::snapshot::unreadable_json;
use crate::error::{Error, Result};
use crate::schedule::child::is_job;
use crate::schedule::state::State;
use crate::snapshot::places::real;
use crate::snapshot::record::Record;
use crate::snapshot::store::{Access, Store};
use crate::upkeep::drill::{Drilled, Fault, drill as run};
use crate::upkeep::pin::prove;

/// The exit code for a snapshot that came back, and lacks what could not be captured when it was taken.
const INCOMPLETE: u8 = 3;
/// Faults that are named, unless all are asked for.
const SHOWN: usize = 50;

/// Restores a snapshot for the trial.
pub fn drill(context: &Context, args: &DrillArgs) -> Result<u8> {
    let store = context.open()?;
    let record = context.select_to_restore(&store, args.snapshot.as_deref().unwrap_or("latest"))?;
    let folder = match (&args.scratch, store.root().parent()) {
        (Some(folder), _) => folder.clone(),
        (None, Some(parent)) => parent.to_path_buf(),
        (None, None) => PathBuf::from("."),
    };
    warn_of_snapshots(context, &folder);
    let drilled = run(&store, &record, &folder, &context.bars())?;
    // However it was named. A mixture is nobody's newest, unless there is nothing else.
    let own = context.of_this(&store, &store.records()?);
    let newest = own.iter().rev().find(|one| !one.lack().mixed).or(own.last());
    let is_newest = newest.is_some_and(|newest| newest.id == record.id);
    let was_proven = store.history()?.ledger().proof(record.id).is_some();
    drop(store);
    let passed = drilled.is_proof();
    let noted = if passed || was_proven { note(context, &drilled) } else { Ok(()) };
    report(context, &record, &drilled, passed && noted.is_ok());
    let found = format!(
        "snapshot {} does not come back as it should: {} found",
        record.id.short(),
        count(drilled.faults.len() as u64, "fault was", "faults were")
    );
    let good = if record.unreadable_count > 0 { INCOMPLETE } else { 0 };
    if is_newest {
        keep(context, &drilled, (!passed).then_some(found.as_str()), good);
    }
    if !passed {
        return Err(Error::integrity(found).hint(
            "another snapshot may be whole (`nbak drill SNAP`); `nbak check --read-data` says what the store lost; a \
             database that is damaged in every snapshot is damaged in the data directory",
        ));
    }
    noted.map_err(|error| error.also("the drill itself passed, and is not noted"))?;
    Ok(good)
}

/// Keeps for `doctor` that the newest one failed, until it passes. A daemon keeps that itself of its own drills.
fn keep(context: &Context, drilled: &Drilled, fault: Option<&str>, good: u8) {
    let Ok(data_dir) = context.data_dir() else { return };
    let mut state = State::load(&data_dir);
    let failed = state.last.get("drill").is_some_and(|last| last.failures > 0);
    if fault.is_none() && !failed || is_job() {
        return;
    }
    let (took, code) = (drilled.duration_ms as i64, if fault.is_some() { 13 } else { i32::from(good) });
    state.note("drill", drilled.at, took, Some(code), fault.is_none(), fault.unwrap_or_default().to_owned());
    // What the drill found is said here, whether it can be kept or not.
    let _ = state.store_drill(&data_dir);
}

fn note(context: &Context, drilled: &Drilled) -> Result<()> {
    let mut store = Store::open(&context.repo()?, &context.credentials()?, Access::Write(context.patience()))?;
    prove(&mut store, drilled.snapshot, drilled.is_proof().then_some(drilled.at))
}

/// Says so if snapshots would have the scratch space in them.
fn warn_of_snapshots(context: &Context, folder: &Path) {
    let (Ok(data), Ok(places)) = (context.data_dir(), context.places()) else { return };
    let (data, folder) = (real(&data), real(folder));
    let own = places.own_folders().unwrap_or_default();
    if folder.starts_with(&data) && folder != data && !own.iter().any(|(path, _)| folder.starts_with(path)) {
        output::warning("the scratch space lies in the data directory: a snapshot that is taken meanwhile contains it");
    }
}

fn report(context: &Context, record: &Record, drilled: &Drilled, proven: bool) {
    if context.json {
        let databases: Vec<Value> = drilled
            .databases
            .iter()
            .map(|database| {
                json!({
                    "path": database.path.to_string_lossy(),
                    "rows": database.found.rows,
                    "not_counted": database.found.not_counted,
                    "foreign_key_violations": database.found.violations,
                })
            })
            .collect();
        let fault = |fault: &Fault| {
            let path = fault.path.to_string_lossy();
            json!({"path": path, "subject": fault.subject.as_str(), "reason": fault.reason})
        };
        output::json(&json!({
            "snapshot": record.id.to_string(),
            "started": iso(record.started),
            "files": drilled.files,
            "bytes": drilled.bytes,
            "databases": databases,
            "duration_ms": drilled.duration_ms,
            "proven": proven.then(|| iso(drilled.at)),
            "incomplete": record.unreadable_count > 0,
            "unreadable_entries": unreadable_json(record),
            "mixed": record.lack().mixed,
            "faults": drilled.faults.iter().map(fault).collect::<Vec<_>>(),
            "remarks": drilled.remarks,
        }));
        return;
    }
    let shown = if context.verbose { usize::MAX } else { SHOWN };
    for fault in drilled.faults.iter().take(shown) {
        let path = fault.path.display().to_string();
        let of = if path.is_empty() { String::new() } else { format!(" {path}") };
        line(format!("fault: {}{of}: {}", fault.subject.as_str(), fault.reason));
    }
    if drilled.faults.len() > shown {
        line(format!("… and {} more faults: -v lists them all", drilled.faults.len() - shown));
    }
    drilled.remarks.iter().take(shown).for_each(|remark| line(format!("remark: {remark}")));
    if context.verbose {
        for database in &drilled.databases {
            let tables = database.found.rows.iter().map(|(table, count)| format!("{table} {count}"));
            let tables: Vec<String> = tables.collect();
            line(format!("{}: sound; rows: {}", database.path.display(), tables.join(", ")));
        }
    }
    let rows: u64 = drilled.databases.iter().flat_map(|database| database.found.rows.values()).sum();
    let lack = record.lack();
    let lacks = if lack.is_none() { String::new() } else { format!("{lack}; ") };
    line(format!(
        "{} snapshot {}, taken {}: {} of {} restored and compared, {} with {} opened and sound; {lacks}{:.2} s",
        match drilled.is_proof() {
            true if lack.is_none() => "proven:",
            true => "proven, but incomplete:",
            false => "not proven:",
        },
        record.id.short(),
        time(record.started),
        count(drilled.files, "file", "files"),
        size(drilled.bytes),
        count(drilled.databases.len() as u64, "database", "databases"),
        count(rows, "row", "rows"),
        drilled.duration_ms as f64 / 1000.0
    ));
}
