//! Whether a store has all that its snapshots need, and what of another copy of it is new to it.
//!
//! Who removes something from a copy because it is not here asks this before: what is missing here by mistake must not
//! be removed there too.

use std::collections::BTreeSet;

use super::mark::mark;
use super::survey::Survey;
use crate::error::words::count;
use crate::error::{Error, Result};
use crate::snapshot::ledger::{Ledger, is_ledger};
use crate::snapshot::record::Record;
use crate::snapshot::store::Store;

/// Fails unless everything that a snapshot needs is in the packs, by their footers, and nothing is known to be lost.
pub fn require_whole(store: &Store) -> Result<()> {
    let history = store.history()?;
    let index = store.catalog().index();
    let lost = store.losses().or_else(|| store.unfinished()).or_else(|| {
        let lost = history.live().filter(|record| history.ledger().losses.contains_key(&record.id)).count();
        (lost > 0).then(|| format!("{} lost something for good", count(lost as u64, "snapshot has", "snapshots have")))
    });
    let lost = lost.or_else(|| (!index.damaged().is_empty()).then(|| "a check found packs damaged".to_owned()));
    let lost = lost.or_else(|| index.unreadable().first().map(|(_, why)| why.clone()));
    if let Some(why) = lost {
        return Err(not_whole(store, &why));
    }
    has_all(store, history.live())
}

/// Fails unless everything is in the packs that a snapshot needs of which no loss was accepted.
pub fn require_present(store: &Store) -> Result<()> {
    let history = store.history()?;
    has_all(store, history.live().filter(|record| !history.ledger().losses.contains_key(&record.id)))
}

/// Whether all that `record` leads to is in the packs.
pub fn is_whole(store: &Store, survey: &Survey, record: &Record) -> Result<bool> {
    let marked = mark(store.catalog(), survey, std::iter::once(record))?;
    Ok(marked.missing.is_empty()
        && marked.broken.is_empty()
        && survey.unsound(&marked.live, &BTreeSet::new()).is_empty())
}

fn has_all<'a>(store: &Store, records: impl Iterator<Item = &'a Record>) -> Result<()> {
    let survey = Survey::of(store.catalog().packs(), store.catalog().index())?;
    let marked = mark(store.catalog(), &survey, records)?;
    let is_whole = marked.missing.is_empty()
        && marked.broken.is_empty()
        && survey.unsound(&marked.live, &BTreeSet::new()).is_empty();
    if is_whole { Ok(()) } else { Err(not_whole(store, "something that its snapshots need is missing")) }
}

fn not_whole(store: &Store, why: &str) -> Error {
    Error::integrity(format!("this store is not whole: {why}")).at(store.root())
}

/// Whether `records`, of a pack that this store does not have, tell of something that it does not know: a snapshot that
/// it neither has nor forgot, or a newer ledger.
pub fn is_news(store: &Store, records: &[Vec<u8>]) -> Result<bool> {
    let history = store.history()?;
    let keys = store.catalog().packs().keys();
    let named = history.ledger().named();
    let (ledgers, records): (Vec<&[u8]>, Vec<&[u8]>) =
        records.iter().map(Vec::as_slice).partition(|record| is_ledger(record));
    if !ledgers.is_empty() && Ledger::decode(ledgers)?.generation > history.ledger().generation {
        return Ok(true);
    }
    for bytes in records {
        let (record, mac) = (Record::decode(bytes)?, keys.record_mac(bytes));
        let is_known = history.known().iter().any(|one| one.mac == mac)
            || history.ledger().is_gone(&record, mac, &named)
            || history.ledger().spans(record.sequence);
        if !is_known {
            return Ok(true);
        }
    }
    Ok(false)
}
