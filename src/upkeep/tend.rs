//! What a snapshot does for the store on its way out, now and then, so that nobody must schedule it: small packs are
//! put together, and what was forgotten some time ago is reclaimed, a bounded piece at a time.

use super::gc::{Options, gc};
use super::swarm::gather;
use crate::error::Result;
use crate::snapshot::progress::Silent;
use crate::snapshot::record::Record;
use crate::snapshot::store::Store;

/// Forgotten snapshots are left alone for a day by the upkeep after a snapshot, in milliseconds.
const GRACE: i64 = 24 * 60 * 60 * 1000;
/// The upkeep after a snapshot frees space when so many were forgotten before that, and as many as this part of those
/// that are left: one in so many. So its cost is spread over many snapshots.
const FORGOTTEN: (usize, usize) = (16, 4);
/// And at one snapshot of so many at the latest.
const EVERY: u64 = 64;
/// It writes at most so many bytes again.
const SLICE: u64 = 64 * 1024 * 1024;

/// What was done.
#[derive(Debug, Default)]
pub struct Tended {
    /// Small packs that were put together.
    pub packs: usize,
    /// What the packs take less than before, in bytes, if space was freed.
    pub freed: Option<i64>,
}

/// Tends `store`, which is open for writing, after the snapshot `taken`, at the time `now`: milliseconds since 1970.
pub fn tend(store: &mut Store, taken: &Record, now: i64) -> Result<Tended> {
    let packs = gather(store)?;
    // To know what was forgotten, all records have to be read: not each time.
    if packs == 0 && !taken.sequence.is_multiple_of(EVERY) {
        return Ok(Tended::default());
    }
    let (history, before) = (store.history()?, now - GRACE);
    let old = history.ledger().forgotten.values().filter(|at| **at < before).count();
    if old < FORGOTTEN.0 || old * FORGOTTEN.1 < history.live().count() {
        return Ok(Tended { packs, freed: None });
    }
    let options = Options { forgotten_before: before, rewrite: SLICE, ..Options::default() };
    let freed = gc(store, &options, &Silent)?.freed;
    Ok(Tended { packs, freed: Some(freed) })
}
