//! Giving back the space of what no snapshot needs.
//!
//! The order, for one run, which holds the writer's lock from beginning to end:
//! 1. Read all footers, follow all snapshots, make a plan. If a pack cannot be read or is missing, or a tree cannot be
//!    resolved, it is not known what is needed: then nothing is done.
//! 2. Write what is kept of the packs that are written again, with the records in them, into new packs, durably; read
//!    their footers back and see that each kept chunk is there.
//! 3. Bring the index up to date: the new packs in, the old ones out, so that nobody takes them for lost.
//! 4. Delete the old packs, under the readers' lock: nobody reads them. If somebody does, they stay until the next run.
//! 5. Note in the ledger which snapshots cannot be brought back any more.
//!
//! Step 1 is I21, and so is the second half of step 2; step 4 is I22.
//!
//! Whatever ends it before step 4 leaves more packs than before, and all that there was; what ends it later leaves some
//! packs that nobody needs. The next run finds either, since it asks only what is needed and what is there.
//!
//! **A full disk.** If there is no room for step 2, what was written so far is removed, and the packs that nobody needs
//! at all are deleted first, which takes no room; then packs are written again as far as the room allows.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use super::ledgers::{follows, give_up_cache, put, remove};
use super::mark::{Marked, mark};
use super::plan::{Limits, Plan, plan};
use super::rewrite::{Rewritten, rewrite};
use super::survey::Survey;
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::index::Location;
use crate::snapshot::ledger::Mac;
use crate::snapshot::progress::Progress;
use crate::snapshot::record::Record;
use crate::snapshot::store::{Store, UNFINISHED_NEXT, UNFINISHED_WHAT};
use crate::store::objects::Kind;
use crate::store::sink::{PackSink, Stored};

/// How often packs are planned anew since one could not be read, or the disk was full.
const ROUNDS: usize = 6;

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Change nothing; say what would be done.
    pub dry_run: bool,
    /// Snapshots that were forgotten after this moment stay: milliseconds since 1970.
    pub forgotten_before: i64,
    /// At most so many bytes of packs are written again.
    pub rewrite: u64,
    /// How long to wait for those who read.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let (forgotten_before, rewrite) = (i64::MAX, u64::MAX);
        Options { dry_run: false, forgotten_before, rewrite, patience: Duration::ZERO }
    }
}

/// What was done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Snapshots that cannot be brought back any more, or could not be after a dry run's real one.
    pub reclaimed: Vec<SnapshotId>,
    /// Packs that were deleted.
    pub deleted: u64,
    /// Packs that were made of what was needed of some of them.
    pub written: u64,
    /// What the packs take less than before, in bytes; on a dry run about that.
    pub freed: i64,
    /// About what nobody needs, in packs that are mostly needed: bytes.
    pub left: u64,
    /// Old packs that stay since somebody reads the store, in bytes, and the processes that do, as far as is known.
    pub waiting: Option<(u64, Vec<u32>)>,
    /// Packs of which something could not be read, and why: they stay as they are.
    pub held: BTreeMap<PackId, String>,
    /// Much went: the index is larger than it need be.
    much: bool,
    /// There was not enough room to write all packs again that are mostly waste.
    pub no_room: bool,
}

/// Frees what can be freed in `store`, which must be open for writing unless it is a dry run.
pub fn gc(store: &mut Store, options: &Options, progress: &dyn Progress) -> Result<Outcome> {
    refuse_if_unknown(store)?;
    let mut outcome = Outcome::default();
    let mut limits = Limits { held: BTreeSet::new(), bytes: options.rewrite };
    limits.held.extend(store.catalog().index().damaged().iter().map(|(pack, _)| *pack));
    for _ in 0..ROUNDS {
        match round(store, options, &limits, &mut outcome, progress) {
            Ok(Round::Done) => break,
            Ok(Round::Unreadable(packs)) => {
                limits.held.extend(packs.keys());
                outcome.held.extend(packs);
            }
            Err(error) if error.is_full() && limits.bytes > 0 => {
                outcome.no_room = true;
                give_up_cache(store);
                // First without writing anything, then with half of the room that there is by then.
                limits.bytes = 0;
                round(store, options, &limits, &mut outcome, progress)?;
                limits.bytes = store.free_space().unwrap_or(0) / 2;
                if limits.bytes == 0 {
                    break;
                }
            }
            Err(error) => return Err(error),
        }
    }
    // Without room, or while somebody reads, nothing may have gone: then all can still be brought back.
    let may_have_gone = outcome.deleted > 0 || !(outcome.no_room || outcome.waiting.is_some());
    if options.dry_run {
        let forgotten = &store.history()?.ledger().forgotten;
        let gone = forgotten.iter().filter(|(_, at)| **at < options.forgotten_before).map(|(id, _)| *id);
        outcome.reclaimed = gone.collect();
    } else if may_have_gone {
        note_reclaimed(store, options, &mut outcome)?;
    }
    // Last of all: the ledger that went may have been large too.
    if outcome.much {
        store.catalog_mut().index_mut().shrink();
    }
    Ok(outcome)
}

/// What is not there or cannot be read may say that something is needed.
fn refuse_if_unknown(store: &Store) -> Result<()> {
    let refused = |what: String| {
        Error::integrity(format!("nothing can be freed while it is not known what is needed: {what}")).at(store.root())
    };
    if let Some(losses) = store.losses() {
        return Err(refused(losses).hint("bring the packs back from a copy, or accept the loss with `nbak repair`"));
    }
    if store.awaits_pull() {
        return Err(refused(UNFINISHED_WHAT.to_owned()).hint(UNFINISHED_NEXT));
    }
    if let Some((_, why)) = store.catalog().index().unreadable().first() {
        return Err(refused(why.clone()).hint("run `nbak repair`, which sets damaged packs aside"));
    }
    Ok(())
}

/// What a snapshot has lost may come back with a pack that is away, if what that builds on is still there then. So
/// nothing is freed before the loss was accepted.
fn refuse_if_lost(store: &Store, survey: &Survey, records: &[Record], all: &Marked) -> Result<()> {
    let ledger = store.history()?.ledger();
    let is_whole = |record: &&Record| !ledger.losses.contains_key(&record.id) && !ledger.has_forgotten(record.id);
    let apart;
    let marked = if records.iter().all(|record| is_whole(&record)) {
        all
    } else {
        apart = mark(store.catalog(), survey, records.iter().filter(is_whole))?;
        &apart
    };
    let unsound = survey.unsound(&marked.live, &BTreeSet::new());
    let lost = marked.missing.iter().copied().chain(unsound.into_iter().map(|first| survey.id(first))).next();
    match lost {
        None => Ok(()),
        Some(chunk) => Err(Error::integrity(format!(
            "nothing can be freed while something is missing that snapshots need: chunk {chunk}"
        ))
        .at(store.root())
        .hint("bring the packs back from a copy, or run `nbak repair`; `nbak check` names the snapshots")),
    }
}

enum Round {
    Done,
    Unreadable(BTreeMap<PackId, String>),
}

/// The snapshots whose data stays: those that were not forgotten, and those that were not long ago.
fn roots(store: &Store, options: &Options) -> Result<(Vec<Record>, HashSet<Mac>)> {
    let history = store.history()?;
    let stays = |id| history.ledger().forgotten.get(id).is_some_and(|at| *at >= options.forgotten_before);
    let known = history.known().iter().filter(|one| !one.forgotten || stays(&one.record.id));
    Ok(known.map(|one| (one.record.clone(), one.mac)).unzip())
}

fn round(
    store: &mut Store,
    options: &Options,
    limits: &Limits,
    outcome: &mut Outcome,
    progress: &dyn Progress,
) -> Result<Round> {
    let (records, macs) = roots(store, options)?;
    let history = store.history()?;
    let (generation, losses) = (history.ledger().generation, &history.ledger().losses);
    let catalog = store.catalog();
    let mut survey = Survey::of(catalog.packs(), catalog.index())?;
    if let Some((_, why)) = survey.unreadable.first_key_value() {
        return Err(Error::integrity(format!("nothing can be freed while a pack cannot be read: {why}"))
            .hint("run `nbak repair`, which sets damaged packs aside"));
    }
    survey.keep_records(generation, |record| macs.contains(&catalog.packs().keys().record_mac(record)));
    let marked = mark(catalog, &survey, records.iter())?;
    // Of a snapshot that is known to have lost something that much was accepted.
    let is_news = |id: &SnapshotId| !losses.contains_key(id) && !history.ledger().has_forgotten(*id);
    if let Some((id, why)) = marked.broken.iter().find(|(id, _)| is_news(id)) {
        return Err(Error::integrity(format!(
            "nothing can be freed while it is not known what snapshot {} needs: {why}",
            id.short()
        ))
        .hint("run `nbak repair`, or forget that snapshot"));
    }
    refuse_if_lost(store, &survey, &records, &marked)?;
    // The plan reads footers one by one, and takes most memory itself.
    catalog.let_go();
    let plan = plan(catalog, &mut survey, &marked, limits)?;
    if options.dry_run {
        outcome.freed = (plan.old_bytes - plan.needed_bytes.min(plan.old_bytes)) as i64;
        outcome.deleted = (plan.gone.len() + plan.rewrite.len()) as u64;
        outcome.left = plan.left_bytes;
        return Ok(Round::Done);
    }
    let before: BTreeSet<PackId> = survey.packs.iter().map(|pack| pack.id).collect();
    let sink = PackSink::new(store.objects().clone(), catalog.packs().keys().clone());
    let stored = match rewrite(catalog, &survey, &marked, &plan, sink, progress) {
        Ok(Rewritten::Stored(stored)) => stored,
        Ok(Rewritten::Unreadable(packs)) => {
            remove_leftovers(store, &before)?;
            return Ok(Round::Unreadable(packs));
        }
        Err(error) => {
            // If they cannot be removed either, the first error says more.
            let _ = remove_leftovers(store, &before);
            return Err(error);
        }
    };
    prove(store, &survey, &plan, &stored)?;
    outcome.left = plan.left_bytes;
    outcome.written += stored.len() as u64;
    replace(store, options, &survey, &plan, &stored, outcome)?;
    Ok(Round::Done)
}

/// Removes what a round that failed had written: nobody else writes, so what was not there before is that.
fn remove_leftovers(store: &Store, before: &BTreeSet<PackId>) -> Result<()> {
    let packs = store.catalog().packs().list()?;
    let new: Vec<[u8; 16]> = packs.into_iter().filter(|id| !before.contains(id)).map(|id| id.0).collect();
    store.objects().delete_all(Kind::Pack, &new)
}

/// Reads the new packs' footers back: each chunk that is kept of a pack that is to go must be in one of them.
fn prove(store: &Store, survey: &Survey, plan: &Plan, stored: &[Stored]) -> Result<()> {
    let mut there: HashSet<ChunkId> = HashSet::new();
    for pack in stored {
        let pack = store.catalog().packs().read(pack.id)?;
        there.extend(pack.footer.chunks().map(|(_, _, chunk)| chunk.id));
    }
    let is_to_go = |pack: usize| plan.rewrite.contains(&pack) || plan.gone.contains(&pack);
    let kept = (0..survey.len() as u32).filter(|copy| plan.kept[*copy as usize] && is_to_go(survey.at(*copy).0));
    let anew = plan.versions.iter().flatten().copied();
    match kept.chain(anew).find(|copy| !there.contains(&survey.id(*copy))) {
        None => Ok(()),
        Some(copy) => Err(Error::failed(format!(
            "chunk {} is needed and was not written again: this is a mistake of the program",
            survey.id(copy)
        ))
        .hint("nothing was removed; please report it")),
    }
}

/// Puts the new packs in the place of the old ones.
fn replace(
    store: &mut Store,
    options: &Options,
    survey: &Survey,
    plan: &Plan,
    stored: &[Stored],
    outcome: &mut Outcome,
) -> Result<()> {
    let old: BTreeSet<usize> = plan.gone.iter().chain(&plan.rewrite).copied().collect();
    let new_bytes: u64 = stored.iter().map(|pack| pack.size).sum();
    store.catalog_mut().index_mut().add(stored);
    outcome.freed -= new_bytes as i64;
    if old.is_empty() {
        return Ok(());
    }
    let deleting = match store.begin_deleting(options.patience)? {
        Ok(deleting) => deleting,
        Err(readers) => {
            outcome.waiting = Some((plan.old_bytes, readers));
            return Ok(());
        }
    };
    let chunks: Vec<ChunkId> =
        (0..survey.len() as u32).filter(|copy| old.contains(&survey.at(*copy).0)).map(|copy| survey.id(copy)).collect();
    let packs: BTreeSet<PackId> = old.iter().map(|number| survey.packs[*number].id).collect();
    let elsewhere = elsewhere(survey, plan, &old);
    remove(store, deleting, &packs, &chunks, &elsewhere)?;
    outcome.deleted += packs.len() as u64;
    outcome.freed += plan.old_bytes as i64;
    outcome.much |= chunks.len() > survey.len() / 4;
    Ok(())
}

/// Where chunks of `old` packs lie that are kept in a pack that stays.
fn elsewhere(survey: &Survey, plan: &Plan, old: &BTreeSet<usize>) -> Vec<(ChunkId, Location)> {
    let mut places = Vec::new();
    let stays = |copy: &u32| plan.kept[*copy as usize] && !old.contains(&survey.at(*copy).0);
    for kept in (0..survey.len() as u32).filter(stays) {
        let first = survey.first(kept);
        if survey.copies(first).any(|copy| old.contains(&survey.at(copy).0)) {
            let (pack, segment, nth) = survey.at(kept);
            let at = Location { pack: survey.packs[pack].id, segment: segment as u32, nth: nth as u32 };
            places.push((survey.id(kept), at));
        }
    }
    places
}

/// Says in the ledger what cannot be brought back any more.
fn note_reclaimed(store: &mut Store, options: &Options, outcome: &mut Outcome) -> Result<()> {
    let history = store.history()?;
    let there: HashSet<SnapshotId> = history.known().iter().map(|one| one.record.id).collect();
    let mut ledger = history.ledger().clone();
    let (stays, reclaimed): (BTreeMap<_, _>, BTreeMap<_, _>) =
        std::mem::take(&mut ledger.forgotten).into_iter().partition(|(_, at)| *at >= options.forgotten_before);
    ledger.forgotten = stays;
    outcome.reclaimed = reclaimed.keys().copied().collect();
    ledger.reclaimed.extend(reclaimed.keys());
    // With those that came back after they were gone.
    let stray = |id: &SnapshotId| !ledger.forgotten.contains_key(id);
    ledger.reclaimed.extend(history.forgotten().map(|one| one.record.id).filter(stray));
    ledger.reclaimed.retain(|id| there.contains(id));
    ledger.losses.retain(|id, _| there.contains(id) && !ledger.reclaimed.contains(id));
    ledger.drop_marks(&there);
    ledger.join(follows(history, &ledger).into_iter());
    if ledger == *history.ledger() {
        return Ok(());
    }
    match put(store, ledger) {
        // Then they are asked for once more, and found to be not whole.
        Err(error) if error.is_full() => Ok(()),
        Err(error) => Err(error),
        Ok(removed) => {
            outcome.deleted += removed.0;
            outcome.freed += removed.1;
            Ok(())
        }
    }
}
