//! A new ledger in the place of those before it, and packs that go.
//!
//! A pack that goes leaves the index first: who is ended in between leaves a pack that nobody needs, and not an index
//! that names a pack that is gone.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::Result;
use crate::id::{ChunkId, PackId};
use crate::index::Location;
use crate::snapshot::history::History;
use crate::snapshot::ledger::{Ledger, Start, is_ledger};
use crate::snapshot::store::Store;
use crate::store::lock::Deleting;
use crate::store::objects::Kind;

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

/// Deletes `packs`, which nobody needs any more; `chunks` are those in them, and `elsewhere` says where those of them
/// are that stay.
pub(super) fn remove(
    store: &mut Store,
    deleting: Option<Deleting>,
    packs: &BTreeSet<PackId>,
    chunks: &[ChunkId],
    elsewhere: &[(ChunkId, Location)],
) -> Result<()> {
    store.catalog_mut().index_mut().remove(packs, chunks, elsewhere)?;
    store.catalog().packs().forget();
    let ids: Vec<[u8; 16]> = packs.iter().map(|pack| pack.0).collect();
    let deleted = store.objects().delete_all(Kind::Pack, &ids);
    drop(deleting);
    deleted.map_err(|error| error.also("what could not be removed is found again by the next `nbak gc`"))
}
