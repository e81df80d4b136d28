//! What a store holds, in numbers; and of each snapshot, what it brought and what it alone holds.
//!
//! Sums are from footers and records. Who needs what is found by following the snapshots ([`spans`]): a chunk whose
//! first and last snapshot are the same one is needed by that **alone**; and what a snapshot is the first to need is
//! what it **added**. Only what changed from one snapshot to the next is looked at, so a thousand snapshots of one
//! directory take seconds. Trees and recipes are chunks here like any other. Forgotten snapshots need nothing.
//!
//! **Every byte of a pack is counted once.** Of a segment each chunk has the part that it is of it before
//! compression; so a chunk that is stored as a difference has all of its segment. What a pack has around its segments
//! is mostly the footer, and is divided among the chunks and records that it lists. Of a chunk that lies in several
//! packs one copy is needed. So what is needed by one snapshot, by several, by none, and what is
//! [overhead](Stats::overhead_bytes) add up to what is stored.
//!
//! **What forgetting would free** is what a snapshot alone needs, about: two things are left out. What another version
//! is stored as a difference from stays as its base for as long as `gc` does not write that one again. And `gc` leaves
//! alone what is less than a quarter of its pack.
//!
//! Memory: that of the survey, and 12 to 20 bytes for each copy of a chunk.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rayon::prelude::*;

use super::spans::{NOBODY, spans};
use super::survey::{Place, Survey};
use crate::error::Result;
use crate::id::SnapshotId;
use crate::snapshot::ledger::{Mac, is_ledger};
use crate::snapshot::record::Record;
use crate::snapshot::store::Store;
use crate::store::reader::Pack;
use crate::store::segment::Content;

/// So many footers are read at a time, as in the [survey](super::survey).
const BATCH: usize = 4;
/// What a footer takes for each chunk, in bytes, about: an id and two numbers.
const LISTED: u64 = 20;

/// Sums over all packs that can be read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Snapshots that were not forgotten.
    pub snapshots: u64,
    /// Snapshots that were forgotten and whose space was not reclaimed.
    pub forgotten: u64,
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
    /// Of the stored bytes: what one snapshot alone needs.
    pub only_bytes: u64,
    /// Of the stored bytes: what several snapshots need.
    pub shared_bytes: u64,
    /// Of the stored bytes: what no snapshot needs.
    pub unneeded_bytes: u64,
    /// Of the stored bytes: the records of snapshots, the ledger that counts, and what their packs need around them.
    pub overhead_bytes: u64,
    /// What forgetting all snapshots that were asked for would free, in stored bytes.
    pub together_bytes: u64,
    /// Whether all that the snapshots need was found. If not, what is needed is more than what is counted as that.
    pub complete: bool,
    /// The snapshots, oldest first.
    pub shares: Vec<Share>,
}

/// What a snapshot has in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The snapshot.
    pub id: SnapshotId,
    /// When it began: milliseconds since 1970.
    pub started: i64,
    /// Stored bytes that it needs and no snapshot before it does.
    pub added_bytes: u64,
    /// Of these, data before compression.
    pub added_chunk_bytes: u64,
    /// Stored bytes that it needs and no other snapshot does.
    pub only_bytes: u64,
}

/// What was added on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    /// The day: `2026-03-25`.
    pub day: String,
    /// Snapshots that began on it, and that are still there.
    pub snapshots: u64,
    /// What they added, in stored bytes.
    pub added_bytes: u64,
    /// Of these, data before compression.
    pub added_chunk_bytes: u64,
}

/// Adds up `store`, and what only the snapshots in `together` hold.
pub fn stats(store: &Store, together: &BTreeSet<SnapshotId>) -> Result<Stats> {
    let (catalog, history) = (store.catalog(), store.history()?);
    let records: Vec<&Record> = history.live().collect();
    let macs: HashSet<Mac> = history.known().iter().filter(|one| !one.forgotten).map(|one| one.mac).collect();
    let mut survey = Survey::of(catalog.packs(), catalog.index())?;
    survey
        .keep_records(history.ledger().generation, |record| macs.contains(&catalog.packs().keys().record_mac(record)));

    let mut found = spans(catalog, &survey, records.iter().copied())?;
    let complete = found.complete && survey.unreadable.is_empty();
    let mut others = Vec::new();
    if together.len() > 1 {
        others = spans(catalog, &survey, history.live().filter(|record| !together.contains(&record.id)))?.first;
    }
    // What comes now reads each footer once more, and keeps none.
    catalog.let_go();
    settle(&survey, &mut [&mut found.first, &mut found.last, &mut others]);

    let share = |record: &&Record| {
        let (id, started) = (record.id, record.started);
        Share { id, started, added_bytes: 0, added_chunk_bytes: 0, only_bytes: 0 }
    };
    let stats = Stats {
        snapshots: records.len() as u64,
        forgotten: history.ledger().forgotten.len() as u64,
        snapshot_bytes: records.iter().fold(0, |sum, record| sum.saturating_add(record.totals.bytes)),
        complete,
        shares: records.iter().map(share).collect(),
        ..Stats::default()
    };
    let mut adding = Adding { first: found.first, last: found.last, others, stats };
    adding.packs(store, &survey, &macs)?;
    let mut stats = adding.stats;
    stats.metadata_bytes = stats.stored_bytes - stats.data_bytes;
    if together.len() == 1 {
        stats.together_bytes =
            stats.shares.iter().find(|share| together.contains(&share.id)).map_or(0, |share| share.only_bytes);
    }
    Ok(stats)
}

/// Moves what is known of each chunk from its first copy to the one that counts: that which rests on least, and of
/// those the one that was stored last. `gc` keeps such a one too.
fn settle(survey: &Survey, known: &mut [&mut Vec<u32>]) {
    let mut first: Place = 0;
    while (first as usize) < survey.len() {
        let last = survey.copies(first).last().unwrap_or(first);
        let best = (first..=last).min_by_key(|copy| (survey.depth(*copy), Reverse(survey.order(*copy))));
        for of in known.iter_mut().filter(|of| !of.is_empty()) {
            of.swap(first as usize, best.unwrap_or(first) as usize);
        }
        first = last + 1;
    }
}

struct Adding {
    first: Vec<u32>,
    last: Vec<u32>,
    /// Who needs it besides those that are asked for together; empty if that is not to be known.
    others: Vec<u32>,
    stats: Stats,
}

impl Adding {
    fn packs(&mut self, store: &Store, survey: &Survey, macs: &HashSet<Mac>) -> Result<()> {
        let packs = store.catalog().packs();
        // Copies as they lie, which is how footers list them.
        let mut lying: Vec<Place> = (0..survey.len() as Place).collect();
        lying.par_sort_unstable_by_key(|place| survey.order(*place));
        let mut lying = lying.into_iter();
        for batch in survey.packs.chunks(BATCH) {
            let read: Vec<Result<Pack>> = batch.par_iter().map(|seen| packs.read(seen.id)).collect();
            for (seen, pack) in batch.iter().zip(read) {
                let is_wanted = |record: &[u8]| {
                    if is_ledger(record) { seen.has_ledger } else { macs.contains(&packs.keys().record_mac(record)) }
                };
                self.pack(&pack?, &mut lying, is_wanted);
            }
        }
        Ok(())
    }

    fn pack(&mut self, pack: &Pack, lying: &mut impl Iterator<Item = Place>, is_wanted: impl Fn(&[u8]) -> bool) {
        self.stats.packs += 1;
        self.stats.stored_bytes += pack.size;
        let (segments, records) = (&pack.footer.segments, &pack.footer.records);
        let stored: u64 = segments.iter().map(|segment| u64::from(segment.stored)).sum();
        let listed: u64 = segments.iter().map(|segment| LISTED * segment.chunks.len() as u64).sum();
        let weight: u64 = listed + records.iter().map(|record| record.len() as u64).sum::<u64>();
        let mut around = Parts::new(pack.size - stored, weight);
        for segment in segments {
            let is_data = segment.content == Content::Data;
            if is_data {
                self.stats.chunks += segment.chunks.len() as u64;
                self.stats.chunk_bytes += u64::from(segment.plain);
                self.stats.data_bytes += u64::from(segment.stored);
            }
            let mut parts = Parts::new(u64::from(segment.stored), u64::from(segment.plain));
            for (chunk, place) in segment.chunks.iter().zip(&mut *lying) {
                let length = u64::from(chunk.length);
                self.chunk(place as usize, parts.next(length) + around.next(LISTED), if is_data { length } else { 0 });
            }
            self.stats.unneeded_bytes += parts.rest();
        }
        for record in records {
            let bytes = around.next(record.len() as u64);
            let sum = if is_wanted(record) { &mut self.stats.overhead_bytes } else { &mut self.stats.unneeded_bytes };
            *sum += bytes;
        }
        self.stats.unneeded_bytes += around.rest();
    }

    fn chunk(&mut self, place: usize, stored: u64, plain: u64) {
        let (first, last) = (self.first[place], self.last[place]);
        let Some(share) = self.stats.shares.get_mut(first as usize) else {
            self.stats.unneeded_bytes += stored;
            return;
        };
        share.added_bytes += stored;
        share.added_chunk_bytes += plain;
        if first == last {
            share.only_bytes += stored;
            self.stats.only_bytes += stored;
        } else {
            self.stats.shared_bytes += stored;
        }
        if self.others.get(place).is_some_and(|other| *other == NOBODY) {
            self.stats.together_bytes += stored;
        }
    }
}

/// A number of bytes, divided by weights: the parts add up to it.
struct Parts {
    bytes: u64,
    weight: u64,
    weighed: u64,
    given: u64,
}

impl Parts {
    fn new(bytes: u64, weight: u64) -> Parts {
        Parts { bytes, weight, weighed: 0, given: 0 }
    }

    /// The part of what has this weight.
    fn next(&mut self, weight: u64) -> u64 {
        self.weighed += weight;
        let so_far = u128::from(self.bytes) * u128::from(self.weighed) / u128::from(self.weight.max(1));
        // Not more than all, also where the weights are more than was said.
        let so_far = (so_far as u64).min(self.bytes);
        let part = so_far.saturating_sub(self.given);
        self.given += part;
        part
    }

    /// What is left, if nothing has any weight.
    fn rest(self) -> u64 {
        self.bytes - self.given
    }
}

/// What was added on each day, in the time zone `zone`, that snapshots were taken on; oldest first. What was added and
/// is needed by no snapshot any more is not in it.
pub fn by_day(shares: &[Share], zone: &TimeZone) -> Vec<Day> {
    let mut days: BTreeMap<String, Day> = BTreeMap::new();
    for share in shares {
        let Ok(moment) = Timestamp::from_millisecond(share.started) else { continue };
        let name = moment.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d").to_string();
        let fresh = || Day { day: name.clone(), snapshots: 0, added_bytes: 0, added_chunk_bytes: 0 };
        let day = days.entry(name.clone()).or_insert_with(fresh);
        day.snapshots += 1;
        day.added_bytes += share.added_bytes;
        day.added_chunk_bytes += share.added_chunk_bytes;
    }
    days.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        for (bytes, weights) in [(100, vec![1, 1, 1]), (7, vec![1000, 1, 0, 9]), (0, vec![5]), (9, vec![])] {
            let mut parts = Parts::new(bytes, weights.iter().sum());
            let given: u64 = weights.iter().map(|weight| parts.next(*weight)).sum();
            assert_eq!(given, if weights.is_empty() { 0 } else { bytes }, "{weights:?}");
            assert_eq!(parts.rest(), bytes - given);
        }
        let mut parts = Parts::new(1000, 10);
        assert_eq!((parts.next(3), parts.next(7), parts.next(7)), (300, 700, 0));
    }

    #[test]
    fn days_are_those_of_the_zone() {
        let share = |started, added_bytes| {
            let id = SnapshotId::random();
            Share { id, started, added_bytes, added_chunk_bytes: 2 * added_bytes, only_bytes: 0 }
        };
        let hour = 60 * 60 * 1000;
        let shares = [share(0, 1), share(23 * hour, 2), share(25 * hour, 4), share(2 * hour, 8)];
        let days = by_day(&shares, &TimeZone::UTC);
        let short: Vec<_> = days.iter().map(|day| (day.day.as_str(), day.snapshots, day.added_bytes)).collect();
        assert_eq!(short, [("1970-01-01", 3, 11), ("1970-01-02", 1, 4)]);
        assert_eq!(days[0].added_chunk_bytes, 22);
        let days = by_day(&shares, &TimeZone::fixed(jiff::tz::offset(2)));
        assert_eq!(days[0].snapshots, 2, "23:00 is the next day two hours east: {days:?}");
    }
}
