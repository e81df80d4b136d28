//! All snapshots of a store: their records, in order, and which of them were forgotten.
//!
//! Records lie in the footers of packs, and the [`ledger`](super::ledger) too. A record may lie in two packs, where
//! packs were put together and the process ended before the old ones were deleted: it counts once.

use std::collections::HashSet;

use super::ledger::{Ledger, Mac, Start, is_ledger};
use super::record::Record;
use crate::error::Result;
use crate::id::PackId;
use crate::index::catalog::Catalog;

/// A snapshot that a pack has the record of.
#[derive(Debug)]
pub struct Known {
    /// What it is.
    pub record: Record,
    /// The keyed hash of its record.
    pub mac: Mac,
    /// Whether it was forgotten.
    pub forgotten: bool,
}

/// The snapshots of a store.
#[derive(Debug, Default)]
pub struct History {
    known: Vec<Known>,
    ledger: Ledger,
    generation: u64,
}

impl History {
    /// Reads what the index of `catalog` has of all packs; `place` says where a pack lies, for messages.
    pub(super) fn read(catalog: &Catalog, place: &dyn Fn(PackId) -> String) -> Result<History> {
        let (index, keys) = (catalog.index(), catalog.packs().keys());
        let (mut known, mut ledger, mut generation) = (Vec::new(), Ledger::default(), 0);
        let mut seen = HashSet::new();
        for (pack, records) in index.records(catalog.packs())? {
            let (ledgers, records): (Vec<&[u8]>, Vec<&[u8]>) =
                records.iter().map(Vec::as_slice).partition(|record| is_ledger(record));
            if !ledgers.is_empty() {
                let other = Ledger::decode(ledgers).map_err(|error| error.at(place(pack)))?;
                if other.generation > ledger.generation {
                    ledger = other;
                } else if other.generation == ledger.generation {
                    ledger.merge(other);
                }
            }
            for bytes in records {
                let mac = keys.record_mac(bytes);
                if seen.insert(mac) {
                    let record = Record::decode(bytes).map_err(|error| error.at(place(pack)))?;
                    known.push(Known { record, mac, forgotten: false });
                }
            }
        }
        // What is gone for now may come back, and must not count then.
        for (_, records) in index.lost() {
            let ledgers = records.iter().map(Vec::as_slice).filter(|record| is_ledger(record));
            generation = generation.max(Ledger::decode(ledgers).map_or(0, |ledger| ledger.generation));
        }
        generation = generation.max(ledger.generation);
        let named = ledger.named();
        for one in &mut known {
            one.forgotten = ledger.is_gone(&one.record, one.mac, &named);
        }
        // In the order of the chain. Where it forked, since a pack was away while a snapshot was taken, the clock
        // decides: nothing else says which end is the newest.
        let mut after = HashSet::new();
        if known.iter().all(|one| after.insert(one.record.previous)) {
            known.sort_by_key(|one| (one.record.sequence, one.record.started));
        } else {
            known.sort_by_key(|one| (one.record.started, one.record.sequence));
        }
        Ok(History { known, ledger, generation })
    }

    /// All of them, oldest first.
    pub fn known(&self) -> &[Known] {
        &self.known
    }

    /// Those that were not forgotten, oldest first.
    pub fn live(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.known.iter().filter(|one| !one.forgotten).map(|one| &one.record)
    }

    /// Those that were forgotten, oldest first. Not all of them may still be whole.
    pub fn forgotten(&self) -> impl DoubleEndedIterator<Item = &Known> {
        self.known.iter().filter(|one| one.forgotten)
    }

    /// What the store knows of them.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What the next ledger counts.
    pub(super) fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    /// What the next record follows on: its number, and the hash of the one before it (I8).
    pub fn end(&self) -> Start {
        let newest = self.known.last().map_or((0, None), |one| (one.record.sequence, Some(one.mac)));
        let run = self.ledger.runs.iter().max_by_key(|run| run.last).map(|run| (run.last, Some(run.end)));
        let (last, mac) = run.filter(|run| run.0 > newest.0).unwrap_or(newest);
        (last + 1, mac)
    }
}
