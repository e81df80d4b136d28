//! What a store holds, in numbers.
//!
//! All from footers and records: no data is opened. Packs that cannot be read are left out of the sums.

use super::store::Store;
use crate::error::Result;
use crate::store::segment::Content;

/// Sums over all packs that can be read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Snapshots.
    pub snapshots: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
    /// Chunks of data.
    pub chunks: u64,
    /// Their bytes before compression.
    pub chunk_bytes: u64,
    /// Bytes that their segments take in the packs.
    pub data_bytes: u64,
    /// Bytes that trees, recipes, footers and records take in the packs.
    pub metadata_bytes: u64,
    /// Bytes of all files of all snapshots, as if each were a copy.
    pub snapshot_bytes: u64,
}

/// Adds up `store`.
pub fn stats(store: &Store) -> Result<Stats> {
    let mut stats = Stats::default();
    for record in store.records()? {
        stats.snapshots += 1;
        stats.snapshot_bytes = stats.snapshot_bytes.saturating_add(record.totals.bytes);
    }
    for (id, size) in store.catalog().index().packs() {
        // What cannot be read is said when the store is opened, and by `check`.
        let Ok(pack) = store.catalog().packs().open(id) else { continue };
        stats.packs += 1;
        stats.stored_bytes += size;
        for segment in pack.footer.segments.iter().filter(|segment| segment.content == Content::Data) {
            stats.chunks += segment.chunks.len() as u64;
            stats.chunk_bytes += u64::from(segment.plain);
            stats.data_bytes += u64::from(segment.stored);
        }
    }
    stats.metadata_bytes = stats.stored_bytes - stats.data_bytes;
    Ok(stats)
}
