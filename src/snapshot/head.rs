//! What the next snapshot follows on, without reading all that there were.
//!
//! A store may hold a hundred thousand snapshots, and their records all have to be read to know which is the newest. So
//! each snapshot leaves a note: what the next record follows on, and the newest record of each data directory. The note
//! says which packs held records by then. If there are others now, since somebody else took a snapshot or forgot one,
//! or packs were put together, it is made anew from all of them.
//!
//! A data directory is known by its path, or by a name and its path. Several directories may have the same: one after
//! the other, since it was moved or made anew, or at the same time, as in containers. Which of the two it is shows in
//! the order of their snapshots ([`Head::apart`]).

use super::history::History;
use super::ledger::Start;
use super::record::Record;
use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::crypto::keys::Keys;
use crate::error::Result;
use crate::id::InstanceId;
use crate::index::Index;
use crate::source::named::split;

/// The name of the note.
const NOTE: &str = "heads";
/// So many others are kept in mind for one directory.
pub const MOST_APART: usize = 64;

/// The newest snapshots, and what follows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What the next record follows on.
    pub next: Start,
    /// The newest snapshot of each data directory that was not forgotten: of each instance, where several are known as
    /// the same. The newest of all comes first.
    pub newest: Vec<Record>,
}

/// Whether two snapshots are of one data directory.
fn is_of_one(one: &Record, other: &Record) -> bool {
    (&one.source, one.instance) == (&other.source, other.instance)
}

/// Which packs hold records.
fn digest(index: &Index, keys: &Keys) -> [u8; 16] {
    keys.walk_digest(index.packs_with_records().map(|pack| pack.0))
}

impl Head {
    /// What the note says, if it is of the packs that are there.
    pub(super) fn noted(index: &Index, keys: &Keys) -> Option<Head> {
        let note = index.note(NOTE)?;
        let (known, rest) = note.split_first_chunk::<16>()?;
        (*known == digest(index, keys)).then(|| Head::decode(rest).ok()).flatten()
    }

    /// The same from all records.
    pub(super) fn of(history: &History) -> Head {
        let mut newest: Vec<Record> = Vec::new();
        for record in history.live().rev() {
            if !newest.iter().any(|known| is_of_one(known, record)) {
                newest.push(record.clone());
            }
        }
        Head { next: history.end(), newest }
    }

    /// The newest snapshot of `source`.
    pub fn newest_of(&self, source: &str) -> Option<&Record> {
        self.newest_of_each(source).next()
    }

    /// The newest of its own that `instance` has of `source`; if it has none, the newest of all.
    pub fn newest_by(&self, source: &str, instance: Option<InstanceId>) -> Option<&Record> {
        self.own(source, instance).filter(|_| instance.is_some()).or_else(|| self.newest_of(source))
    }

    /// The newest snapshot that `instance` itself has of `source`.
    pub fn own(&self, source: &str, instance: Option<InstanceId>) -> Option<&Record> {
        self.newest_of_each(source).find(|record| record.instance == instance)
    }

    /// The newest snapshot of each instance that is known as `source`, the newest first.
    pub fn newest_of_each(&self, source: &str) -> impl Iterator<Item = &Record> {
        self.newest.iter().filter(move |record| record.source == source)
    }

    /// The newest snapshot of each instance that is known as `source`, or was, and has another name for the same path
    /// since; the newest first. One that got a name is no other for it.
    pub fn newest_at<'a>(&'a self, source: &'a str) -> impl Iterator<Item = &'a Record> {
        let is_known = |record: &Record| self.own(source, record.instance).is_some();
        let path = split(source).1;
        self.newest
            .iter()
            .filter(move |record| record.source == source || split(&record.source).1 == path && is_known(record))
    }

    /// The instances known as `source` that took a snapshot, by whatever name, when `instance` had taken one already.
    /// What it was before it was moved or made anew did not: so these are others, which have the same path. That counts
    /// for good: each snapshot has it from the one before, also where what showed it was forgotten since.
    pub fn apart(&self, source: &str, instance: InstanceId) -> Vec<InstanceId> {
        let mut apart: Vec<InstanceId> = Vec::new();
        for record in self.newest_at(source) {
            if record.source != source && record.instance == Some(instance) {
                continue;
            }
            if record.instance == Some(instance) {
                let known: Vec<_> = record.apart.iter().filter(|it| !apart.contains(*it)).copied().collect();
                apart.extend(known);
                apart.truncate(MOST_APART);
                return apart;
            }
            apart.extend(record.instance.filter(|it| !apart.contains(it)));
        }
        // It has taken none.
        Vec::new()
    }

    /// The head after `record` was committed.
    pub(super) fn follow(mut self, record: &Record, keys: &Keys) -> Head {
        self.next = (record.sequence + 1, Some(keys.record_mac(&record.encode())));
        self.newest.retain(|known| !is_of_one(known, record));
        self.newest.insert(0, record.clone());
        self
    }

    /// Leaves the note.
    pub(super) fn leave_note(&self, index: &mut Index, keys: &Keys) {
        let mut note = digest(index, keys).to_vec();
        note.extend(self.encode());
        index.leave_note(NOTE, &note);
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.next.0);
        put_bytes(&mut out, self.next.1.as_ref().map_or(&[], |mac| mac.as_slice()));
        put_varint(&mut out, self.newest.len() as u64);
        self.newest.iter().for_each(|record| put_bytes(&mut out, &record.encode()));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Head, Malformed> {
        let mut reader = Reader::new(bytes);
        let number = reader.varint()?;
        let previous = match reader.bytes()? {
            [] => None,
            mac => Some(mac.try_into().map_err(|_| Malformed("a hash has another length"))?),
        };
        let count = reader.count(1)?;
        let record =
            |reader: &mut Reader<'_>| Record::decode(reader.bytes()?).map_err(|_| Malformed("a record is malformed"));
        let newest = (0..count).map(|_| record(&mut reader)).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Head { next: (number, previous), newest })
    }
}
