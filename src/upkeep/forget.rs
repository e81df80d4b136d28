//! Forgetting snapshots, and bringing them back.
//!
//! Both write a ledger, and remove those before it. What a forgotten snapshot needs stays until `gc` reclaims it; until
//! then it can be brought back, if all of it is still there.
//!
//! A full disk must not keep anybody from freeing space: if there is no room for the ledger, the index goes, which is a
//! cache, and the ledger takes its place.

use std::collections::BTreeSet;

use super::ledgers::{follows, put};
use super::survey::Survey;
use super::whole::is_whole;
use crate::error::{Error, Result};
use crate::id::SnapshotId;
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
