//! Forgetting snapshots, and bringing them back.
//!
//! Both write a ledger, and remove those before it. What a forgotten snapshot needs stays until `gc` reclaims it; until
//! then it can be brought back, if all of it is still there.
//!
//! A full disk must not keep anybody from freeing space: if there is no room for the ledger, the index goes, which is a
//! cache, and the ledger takes its place.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;

use super::gc::remove;
use super::mark::mark;
use super::survey::Survey;
use crate::error::{Error, Result};
use crate::id::SnapshotId;
use crate::snapshot::history::History;
use crate::snapshot::ledger::{Ledger, Start, is_ledger};
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
    put(store, ledger).map(drop)
}

/// Brings forgotten snapshots back. If one of them is not whole any more, none is, unless `some` will do; answers with
/// those that are not. What one had lost before it was forgotten does not count: that is known.
pub fn undelete(store: &mut Store, ids: &BTreeSet<SnapshotId>, some: bool) -> Result<Vec<SnapshotId>> {
    let history = store.history()?;
    let mut ledger = history.ledger().clone();
    let wanted: Vec<_> = history.forgotten().filter(|one| ids.contains(&one.record.id)).collect();
    let survey = Survey::of(store.catalog().packs(), store.catalog().index())?;
    let mut gone = Vec::new();
    for one in &wanted {
        let id = one.record.id;
        if history.ledger().losses.contains_key(&id) || is_whole(store, &survey, &one.record)? {
            ledger.bring_back(&one.record, one.mac);
        } else if some {
            gone.push(id);
        } else {
            return Err(Error::failed(format!(
                "snapshot {} cannot be brought back: some of its space was reclaimed, or it is damaged",
                id.short()
            ))
            .hint("`nbak snapshots --forgotten` lists what there is; nothing was changed"));
        }
    }
    ledger.join(follows(history, &ledger).into_iter());
    put(store, ledger)?;
    Ok(gone)
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

/// Puts `ledger`; on a full disk in the place of the index. Then those before it go: if the newest is lost some day, an
/// older one must not take its place, which names as forgotten what was brought back since. Answers with how many packs
/// went, and with the bytes that the store has less by all this.
pub(super) fn put(store: &mut Store, ledger: Ledger) -> Result<(u64, i64)> {
    match store.put_ledger(ledger.clone()) {
        Err(error) if error.is_full() && give_up_cache(store) => store.put_ledger(ledger)?,
        other => other?,
    }
    let generation = store.history()?.ledger().generation;
    let catalog = store.catalog();
    let (mut old, mut old_bytes, mut new_bytes) = (BTreeSet::new(), 0, 0);
    for id in catalog.index().packs_with_records().collect::<Vec<_>>() {
        let Ok(pack) = catalog.packs().open(id) else { continue };
        let records = pack.footer.records.iter().map(Vec::as_slice);
        let is_one = pack.footer.segments.is_empty() && pack.footer.records.iter().all(|record| is_ledger(record));
        match Ledger::decode(records).map(|ledger| ledger.generation.cmp(&generation)) {
            Ok(Ordering::Less) if is_one => {
                old.insert(id);
                old_bytes += pack.size as i64;
            }
            Ok(Ordering::Equal) if is_one => new_bytes += pack.size as i64,
            _ => {}
        }
    }
    if old.is_empty() {
        return Ok((0, -new_bytes));
    }
    match store.begin_deleting(Duration::ZERO)? {
        Ok(deleting) => {
            remove(store, deleting, &old, &[], &[])?;
            Ok((old.len() as u64, old_bytes - new_bytes))
        }
        // Somebody reads: the next one finds them.
        Err(_) => Ok((0, -new_bytes)),
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
