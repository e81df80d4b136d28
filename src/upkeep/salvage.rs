//! Damaged packs set aside, and what is sound of them kept.
//!
//! Nothing is deleted here: a damaged pack is moved out of the way, as it is, and can be put back by hand. Before that
//! its sound segments go into a new pack, sealed again as they are, with its records. So what is lost is what the
//! damage took, and nothing that lay beside it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::ledgers::put;
use super::mark::mark;
use super::survey::Survey;
use crate::error::Result;
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::index::WHOLE_PACK;
use crate::snapshot::check::Report;
use crate::snapshot::history::History;
use crate::snapshot::ledger::{Gap, Ledger, Loss, MOST_LOST, Mac, Run, Start, is_ledger};
use crate::snapshot::record::Record;
use crate::snapshot::store::Store;
use crate::store::objects::{Key, Kind};
use crate::store::reader::Pack;
use crate::store::segment::{Content, SegmentEntry};
use crate::store::sink::PackSink;

/// Chunks of data that snapshots need and that cannot be read: in no pack, or only in segments that a check found
/// damaged, or built on such ones.
pub fn lost_chunks(store: &Store) -> Result<HashSet<ChunkId>> {
    let catalog = store.catalog();
    let survey = Survey::of(catalog.packs(), catalog.index())?;
    let marked = mark(catalog, &survey, store.history()?.live())?;
    let mut lost = marked.missing;
    let damaged = catalog.index().damaged();
    lost.extend(survey.unsound(&marked.live, damaged).into_iter().map(|first| survey.id(first)));
    Ok(lost)
}

/// Records that the index remembers, of packs that are gone or do not open, and that no pack has: the snapshots may
/// have lost little but their records.
pub fn orphaned_records(store: &Store) -> Result<Vec<Vec<u8>>> {
    let catalog = store.catalog();
    let keys = catalog.packs().keys();
    let mut there = HashSet::new();
    for id in catalog.packs().list()? {
        if let Ok(pack) = catalog.packs().open(id) {
            there.extend(pack.footer.records.iter().map(|record| keys.record_mac(record)));
        }
    }
    let ledger = store.history()?.ledger();
    let known = catalog.index().records(catalog.packs())?;
    let known = known.iter().flat_map(|(_, records)| records);
    let gone = catalog.index().lost().flat_map(|(_, records)| records);
    let mut orphaned: Vec<Vec<u8>> = Vec::new();
    for record in known.chain(gone).filter(|record| !is_ledger(record)) {
        let is_wanted = Record::decode(record).is_ok_and(|record| !ledger.has_forgotten(record.id));
        if is_wanted && there.insert(keys.record_mac(record)) {
            orphaned.push(record.clone());
        }
    }
    Ok(orphaned)
}

/// The ledger that counts, if it lies in a pack that is gone or does not open.
pub fn orphaned_ledger(store: &Store) -> Result<Option<Ledger>> {
    let catalog = store.catalog();
    let mut newest = 0;
    for id in catalog.packs().list()? {
        if let Ok(pack) = catalog.packs().open(id) {
            let ledgers = pack.footer.records.iter().map(Vec::as_slice).filter(|record| is_ledger(record));
            newest = newest.max(Ledger::decode(ledgers).map_or(0, |ledger| ledger.generation));
        }
    }
    let known = catalog.index().records(catalog.packs())?;
    let known = known.iter().map(|(_, records)| records.as_slice());
    let gone = catalog.index().lost().map(|(_, records)| records);
    let ledgers = known.chain(gone).filter_map(|records| {
        let ledgers: Vec<&[u8]> = records.iter().map(Vec::as_slice).filter(|record| is_ledger(record)).collect();
        (!ledgers.is_empty()).then(|| Ledger::decode(ledgers).ok()).flatten()
    });
    Ok(ledgers.max_by_key(|ledger| ledger.generation).filter(|ledger| ledger.generation > newest))
}

/// What [`set_aside`] did.
#[derive(Debug, Default)]
pub struct Aside {
    /// Packs that were set aside.
    pub packs: Vec<PackId>,
    /// How many of them nobody knows any more what they held: snapshots, perhaps.
    pub unknown: u64,
}

/// Sets the packs aside in which `damaged` segments are, after what is sound of them was stored again. Each is looked
/// at once more before: one read that failed is no damage. The index must be made anew afterwards.
pub fn set_aside(store: &mut Store, damaged: &BTreeSet<(PackId, u32)>) -> Result<Aside> {
    let mut packs: BTreeMap<PackId, BTreeSet<u32>> = BTreeMap::new();
    for (pack, segment) in damaged {
        packs.entry(*pack).or_default().insert(*segment);
    }
    let mut aside = Aside::default();
    for (id, mut segments) in packs {
        let packs = store.catalog().packs();
        packs.forget();
        let pack = match packs.open(id) {
            Ok(pack) => {
                let mut still = BTreeSet::new();
                for number in segments.into_iter().filter(|number| *number != WHOLE_PACK) {
                    if !opens(store, &pack, number)? {
                        still.insert(number);
                    }
                }
                segments = still;
                if segments.is_empty() {
                    continue;
                }
                Some(pack)
            }
            // The index may remember what its footer said.
            Err(error) if error.is_damage() => {
                segments.insert(WHOLE_PACK);
                let remembered = store.catalog().index().remembered(id);
                remembered.map(|(salt, size, footer)| Arc::new(packs.outlined(id, size, salt, footer)))
            }
            // What cannot be opened just now, for want of a right or of descriptors, is not damaged.
            Err(error) => return Err(error.also(AGAIN)),
        };
        match pack {
            Some(pack) => keep_sound(store, &pack, &segments)?,
            None => aside.unknown += 1,
        }
        store.objects().set_aside(Key::new(Kind::Pack, id.0))?;
        aside.packs.push(id);
    }
    Ok(aside)
}

/// What to do when something could not be read that may be whole.
pub const AGAIN: &str = "nothing more was changed: run it again when this can be read";

/// Whether a segment that was found damaged opens now, and is what its footer says.
fn opens(store: &Store, pack: &Pack, number: u32) -> Result<bool> {
    let Some(entry) = pack.footer.segments.get(number as usize) else { return Ok(true) };
    match store.catalog().segment(pack, number as usize) {
        Ok(plain) => Ok(is_what_it_says(store, entry, &plain)),
        Err(error) if error.is_damage() => Ok(false),
        Err(error) => Err(error.also(AGAIN)),
    }
}

/// Stores what is sound of a pack again, with its records.
fn keep_sound(store: &Store, pack: &Pack, damaged: &BTreeSet<u32>) -> Result<()> {
    let packs = store.catalog().packs();
    let mut sink = PackSink::new(store.objects().clone(), packs.keys().clone());
    for number in (0..pack.footer.segments.len()).filter(|number| !damaged.contains(&(*number as u32))) {
        let entry = &pack.footer.segments[number];
        let is_whole = entry.chunks.iter().all(|chunk| chunk.id != ChunkId::ZEROS);
        match store.catalog().segment(pack, number) {
            // Of a pack whose footer does not open, ids are only what the index remembers: each must be that of what is
            // there. Trees and recipes are held against theirs by whoever loads them.
            Ok(plain) => {
                if is_whole && is_what_it_says(store, entry, &plain) {
                    let (entry, coded) = packs.coded(pack, number)?;
                    sink.add_coded(entry.clone(), coded)?;
                } else {
                    add_known(store, &mut sink, entry, &plain)?;
                }
            }
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    if sink.is_untouched() && pack.footer.records.is_empty() {
        return Ok(());
    }
    sink.flush()?.commit_all(pack.footer.records.clone()).map(drop)
}

fn is_what_it_says(store: &Store, entry: &SegmentEntry, plain: &[u8]) -> bool {
    let keys = store.catalog().packs().keys();
    entry.chunks.iter().enumerate().all(|(nth, chunk)| {
        let bytes = entry.span(nth).and_then(|span| plain.get(span));
        bytes.is_some_and(|bytes| entry.content != Content::Data || keys.chunk_id(bytes) == chunk.id)
    })
}

/// Stores those chunks of a segment by themselves whose ids are known, and are theirs.
fn add_known(store: &Store, sink: &mut PackSink, entry: &SegmentEntry, plain: &[u8]) -> Result<()> {
    for (nth, chunk) in entry.chunks.iter().enumerate().filter(|(_, chunk)| chunk.id != ChunkId::ZEROS) {
        let Some(bytes) = entry.span(nth).and_then(|span| plain.get(span)) else { continue };
        if entry.content != Content::Data || store.catalog().packs().keys().chunk_id(bytes) == chunk.id {
            sink.add(entry.content, chunk.id, bytes)?;
        }
    }
    Ok(())
}

/// Notes in the ledger what the snapshots have lost for good, as a check found it. Answers with those that lost
/// something, id and how many paths; and with the number of those whose very record is missing, which was not known.
pub fn note_losses(store: &mut Store, report: &Report) -> Result<(Vec<(SnapshotId, u64)>, u64)> {
    let history = store.history()?;
    let mut ledger = history.ledger().clone();
    // Of a forgotten one nobody looked; it may be brought back.
    let forgotten = ledger.forgotten.clone();
    ledger.losses.retain(|id, _| forgotten.contains_key(id));
    for (id, paths) in report.affected.iter().chain(&report.known) {
        let Ok(id) = SnapshotId::parse(id) else { continue };
        let named = paths.iter().take(MOST_LOST).map(|path| path.to_string_lossy().into_owned());
        ledger.losses.insert(id, Loss { paths: named.collect(), count: paths.len() as u64 });
    }
    // A drill restored it when it was whole.
    ledger.proven.retain(|id, _| !ledger.losses.contains_key(id));
    let lost = ledger.losses.iter().filter(|(id, _)| !forgotten.contains_key(id));
    let lost = lost.map(|(id, loss)| (*id, loss.count)).collect();
    let missing = accept_gaps(history, &mut ledger);
    if ledger != *history.ledger() {
        put(store, ledger)?;
    }
    Ok((lost, missing))
}

/// Notes a gap where the snapshot before one is missing, or before those of a run: what came before it was lost, and
/// that is known now. Else a check would say so for ever, and hide the next thing that goes wrong. Answers with how
/// many snapshots are missing that were not known to be.
fn accept_gaps(history: &History, ledger: &mut Ledger) -> u64 {
    let live = || history.known().iter().filter(|one| !one.forgotten);
    let mut ends: BTreeMap<u64, Vec<Mac>> = BTreeMap::new();
    let known = ledger.runs.iter().map(|run| (run.last, run.end));
    let known = known.chain(live().map(|one| (one.record.sequence, one.mac)));
    for (number, mac) in known.clone() {
        ends.entry(number + 1).or_default().push(mac);
    }
    // Those that came back are missing no longer.
    let there: BTreeSet<(u64, Mac)> = known.collect();
    ledger.gaps.retain(|gap| !there.contains(&(gap.last, gap.end)));
    for gap in &ledger.gaps {
        ends.entry(gap.last + 1).or_default().push(gap.end);
    }
    let mut starts: Vec<Start> = live().map(|one| (one.record.sequence, one.record.previous)).collect();
    starts.extend(ledger.runs.iter().map(Run::start));
    starts.extend(ledger.gaps.iter().map(|gap| (gap.first, gap.from)));
    starts.sort_unstable();
    starts.dedup();
    let mut missing = 0;
    for (number, previous) in starts {
        let Some(previous) = previous.filter(|_| number > 1) else { continue };
        if ends.get(&number).is_some_and(|ends| ends.contains(&previous)) || ledger.goes_on_after(number - 1) {
            continue;
        }
        let before = ends.range(..number).next_back().map(|(number, macs)| (*number, macs.first().copied()));
        let (first, from) = before.unwrap_or((1, None));
        ledger.gaps.insert(Gap { first, from, last: number - 1, end: previous });
        missing += number - first;
    }
    missing
}

/// Takes back that snapshots were forgotten, if it is not known what a pack held that is gone: it may have been the
/// ledger that brought them back.
pub fn forget_nothing(store: &mut Store) -> Result<()> {
    let history = store.history()?;
    let mut ledger = history.ledger().clone();
    if ledger.forgotten.is_empty() {
        return Ok(());
    }
    for one in history.forgotten().filter(|one| history.ledger().forgotten.contains_key(&one.record.id)) {
        ledger.bring_back(&one.record, one.mac);
    }
    ledger.forgotten.clear();
    put(store, ledger).map(drop)
}
