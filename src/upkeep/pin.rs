//! Marks of snapshots: that one is kept on purpose, and that a drill restored one.
//!
//! Both are in the ledger, so each of these writes one, and needs the store open for writing. What they mean for
//! retention is in [`policy`](super::policy). Nothing is written that the ledger says already.

use super::ledgers::put;
use crate::error::{Error, Result};
use crate::id::SnapshotId;
use crate::snapshot::ledger::{LONGEST_REASON, Ledger, Pin};
use crate::snapshot::store::Store;

/// Pins the snapshot `id`, for `reason`, at `now`, in milliseconds since 1970. One that is pinned gets the new reason.
pub fn pin(store: &mut Store, id: SnapshotId, reason: &str, now: i64) -> Result<()> {
    if reason.len() > LONGEST_REASON {
        return Err(Error::usage(format!("the reason is longer than {LONGEST_REASON} bytes")).hint("say it shorter"));
    }
    change(store, id, |ledger| {
        let known = ledger.pinned.get(&id).is_some_and(|pin| pin.reason == reason);
        if !known {
            ledger.pinned.insert(id, Pin { at: now, reason: reason.to_owned() });
        }
    })
}

/// Lets the snapshot `id` go like any other again; answers whether it was pinned.
pub fn unpin(store: &mut Store, id: SnapshotId) -> Result<bool> {
    let was = store.history()?.ledger().pinned.contains_key(&id);
    change(store, id, |ledger| drop(ledger.pinned.remove(&id)))?;
    Ok(was)
}

/// Notes that a drill restored the snapshot `id` whole, at the time `at`; or, without one, that it is not to be relied
/// on, whatever an earlier drill found.
pub fn prove(store: &mut Store, id: SnapshotId, at: Option<i64>) -> Result<()> {
    change(store, id, |ledger| match at {
        Some(at) => drop(ledger.proven.insert(id, at)),
        None => drop(ledger.proven.remove(&id)),
    })
}

fn change(store: &mut Store, id: SnapshotId, act: impl FnOnce(&mut Ledger)) -> Result<()> {
    let history = store.history()?;
    // It may have been forgotten since it was chosen: a drill takes its time, and holds up nobody.
    if !history.live().any(|record| record.id == id) {
        return Err(Error::failed(format!("snapshot {} is not there any more", id.short()))
            .hint("it was forgotten meanwhile; `nbak snapshots` lists what there is"));
    }
    let mut ledger = history.ledger().clone();
    act(&mut ledger);
    if ledger == *history.ledger() {
        return Ok(());
    }
    put(store, ledger).map(drop)
}
