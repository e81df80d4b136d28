//! Small packs put together: a bounded piece of upkeep that a snapshot can do on its way out.
//!
//! Each snapshot leaves a pack, most of them small. A hundred thousand of them would make every listing slow. So when
//! there are many of about one size, they are put together as they are: segments are opened and sealed again, records
//! are carried over, and nobody is asked who needs what. It takes time in proportion to the packs that it touches, and
//! each byte is put together with others a few times only, since a pack that came of it is of a larger size.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::ledgers::remove;
use crate::error::Result;
use crate::id::{ChunkId, PackId};
use crate::snapshot::ledger::{Ledger, is_ledger};
use crate::snapshot::store::Store;
use crate::store::reader::Pack;
use crate::store::sink::PackSink;

/// So many packs of about one size are put together.
const MANY: usize = 32;
/// A pack of this size is large enough, in bytes.
const LARGE: u64 = 2 * 1024 * 1024;
/// At most so many bytes are put together at a time.
const MOST: u64 = 16 * 1024 * 1024;

/// The packs to put together, if there are enough; `packs` are all that there are, with their sizes.
fn choose(packs: impl Iterator<Item = (PackId, u64)>) -> Vec<PackId> {
    let mut sizes: BTreeMap<u32, Vec<(PackId, u64)>> = BTreeMap::new();
    for (id, size) in packs.filter(|(_, size)| *size < LARGE) {
        sizes.entry(size.max(1).ilog2() / 3).or_default().push((id, size));
    }
    let Some(swarm) = sizes.into_values().find(|swarm| swarm.len() >= MANY) else { return Vec::new() };
    let mut left = MOST;
    let fits = |(_, size): &&(PackId, u64)| {
        let fits = *size <= left;
        left = left.saturating_sub(*size);
        fits
    };
    swarm.iter().take_while(fits).map(|(id, _)| *id).collect()
}

/// Puts small packs of `store` together, if there are many; answers how many there were. The store must be open for
/// writing. Nothing is done while packs are missing or damaged.
pub fn gather(store: &mut Store) -> Result<usize> {
    let index = store.catalog().index();
    if store.losses().is_some() || !index.unreadable().is_empty() || !index.damaged().is_empty() {
        return Ok(0);
    }
    let chosen = choose(index.packs());
    if chosen.is_empty() {
        return Ok(0);
    }
    // Somebody reads, and the old packs would have to stay.
    if store.begin_deleting(Duration::ZERO)?.is_err() {
        return Ok(0);
    }
    let generation = store.history()?.ledger().generation;
    let head = store.head()?;
    let packs = store.catalog().packs();
    let mut sink = PackSink::new(store.objects().clone(), packs.keys().clone());
    let (mut seen, mut records, mut old) = (HashSet::new(), Vec::new(), BTreeSet::new());
    for id in chosen {
        let pack = packs.open(id)?;
        let ids: Vec<ChunkId> = pack.footer.chunks().map(|(_, _, chunk)| chunk.id).collect();
        // No pack lists a chunk twice: one of a chunk that another has already waits for its turn.
        if has_ledger(&pack, generation)? || ids.iter().any(|id| seen.contains(id)) {
            continue;
        }
        seen.extend(ids);
        for number in 0..pack.footer.segments.len() {
            let (entry, coded) = packs.coded(&pack, number)?;
            sink.add_coded(entry.clone(), coded)?;
        }
        records.extend(pack.footer.records.iter().filter(|record| !is_ledger(record)).cloned());
        old.insert(id);
    }
    if old.len() < 2 {
        return Ok(0);
    }
    let stored = sink.flush()?.commit_all(records)?;
    store.catalog_mut().index_mut().add(&stored);
    if let Ok(deleting) = store.begin_deleting(Duration::ZERO)? {
        let chunks: Vec<ChunkId> = seen.into_iter().collect();
        remove(store, deleting, &old, &chunks, &[])?;
    }
    // The records are the same, in other packs.
    store.leave_head(&head);
    Ok(old.len())
}

/// Whether the ledger that counts is in the pack. Earlier ones are left behind.
fn has_ledger(pack: &Arc<Pack>, generation: u64) -> Result<bool> {
    let records: Vec<&[u8]> =
        pack.footer.records.iter().map(Vec::as_slice).filter(|record| is_ledger(record)).collect();
    Ok(!records.is_empty() && Ledger::decode(records)?.generation == generation)
}
