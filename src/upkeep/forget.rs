//! Forgetting snapshots, and bringing them back.
//!
//! Both write a ledger and nothing else. What a forgotten snapshot needs stays until `gc` reclaims it; until then it
//! can be brought back, if all of it is still there.
//!
//! A full disk must not keep anybody from freeing space: if there is no room for the ledger, the index goes, which is a
//! cache, and the ledger takes its place.

use std::collections::BTreeSet;

use super::mark::mark;
use super::survey::Survey;
use crate::error::{Error, Result};
use crate::id::SnapshotId;
use crate::snapshot::history::History;
use crate::snapshot::ledger::{Ledger, Start};
use crate::snapshot::record::Record;
use crate::snapshot::store::Store;

/// Forgets the snapshots `ids` at the time `now`, in milliseconds since 1970. Those that were forgotten before stay so.
pub fn forget(store: &mut Store, ids: &BTreeSet<SnapshotId>, now: i64) -> Result<()> {
    let history = store.history()?;
    let mut ledger = history.ledger().clone();
    for one in history.known().iter().filter(|one| ids.contains(&one.record.id)) {
        ledger.forget(&one.record, one.mac, now);
    }
    ledger.join(follows(history, &ledger).into_iter());
    put(store, ledger)
}

/// Brings forgotten snapshots back. If one of them is not whole any more, none is.
pub fn undelete(store: &mut Store, ids: &BTreeSet<SnapshotId>) -> Result<()> {
    let history = store.history()?;
    let mut ledger = history.ledger().clone();
    let wanted: Vec<_> = history.forgotten().filter(|one| ids.contains(&one.record.id)).collect();
    let survey = Survey::of(store.catalog().packs(), store.catalog().index())?;
    for one in &wanted {
        if !is_whole(store, &survey, &one.record)? {
            return Err(Error::failed(format!(
                "snapshot {} cannot be brought back: some of its space was reclaimed",
                one.record.id.short()
            ))
            .hint("`nbak snapshots --forgotten` lists what there is; nothing was changed"));
        }
        ledger.bring_back(&one.record, one.mac);
    }
    ledger.join(follows(history, &ledger).into_iter());
    put(store, ledger)
}

/// Whether all that `record` leads to is in the packs.
pub fn is_whole(store: &Store, survey: &Survey, record: &Record) -> Result<bool> {
    let marked = mark(store.catalog(), survey, std::iter::once(record))?;
    Ok(marked.missing.is_empty()
        && marked.broken.is_empty()
        && survey.unsound(&marked.live, &BTreeSet::new()).is_empty())
}

/// What each snapshot follows on that `ledger` does not name as forgotten.
pub(super) fn follows(history: &History, ledger: &Ledger) -> Vec<Start> {
    let live = history.known().iter().filter(|one| !ledger.has_forgotten(one.record.id));
    live.map(|one| (one.record.sequence, one.record.previous)).collect()
}

/// Puts `ledger`; on a full disk in the place of the index.
pub(super) fn put(store: &mut Store, ledger: Ledger) -> Result<()> {
    match store.put_ledger(ledger.clone()) {
        Err(error) if error.is_full() && give_up_cache(store) => store.put_ledger(ledger),
        other => other,
    }
}

/// Throws the index away, so that there is some room. Not if it remembers a loss that nobody else knows of.
pub(super) fn give_up_cache(store: &mut Store) -> bool {
    let remembers = store.losses().is_some();
    if !remembers {
        store.catalog_mut().index_mut().discard();
    }
    !remembers
}
