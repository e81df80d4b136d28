//! Whether a folder of backups is shared with another data directory of the same path that has a store of its own.
//!
//! A manifest says the path and the snapshot that a backup was made of. That the store does not know a snapshot says
//! little: it may have been forgotten, and its space freed. But snapshots are numbered, and where the store has the one
//! before and the next one after the moment at which a backup was made, none is missing between them: what was made of
//! another is another's.

use super::list::Listed;
use crate::snapshot::history::History;

/// A backup that is older than this, in milliseconds, is no sign any more.
const COUNTS_MS: i64 = 14 * 86_400_000;

/// One of `listed`, all of which say that they are of the data directory that is known as `source`, that was made of a
/// snapshot that the store with this `history` cannot have had.
pub fn of_another_store<'a>(listed: &'a [Listed], history: &History, source: &str, now: i64) -> Option<&'a Listed> {
    let mut known: Vec<(i64, u64)> =
        history.known().iter().map(|one| (one.record.started, one.record.sequence)).collect();
    known.sort_unstable();
    let is_known = |id: &str| history.known().iter().any(|one| one.record.id.to_string() == id);
    let first = history.known().iter().filter(|one| one.record.source == source).map(|one| one.record.started).min()?;
    listed.iter().filter(|one| one.damage.is_none()).find(|one| {
        let (Some(made), Some(snapshot)) = (one.created_ms, &one.snapshot) else { return false };
        let age = now.saturating_sub(made);
        if age >= COUNTS_MS || one.is_ahead(now) || made <= first || is_known(snapshot) {
            return false;
        }
        let after = known.partition_point(|(started, _)| *started <= made);
        let before = known[..after].last().map(|(_, number)| *number);
        let next = known.get(after).map_or(history.end().0, |(_, number)| *number);
        before.is_some_and(|number| number.checked_add(1) == Some(next))
    })
}
