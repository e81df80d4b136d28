//! What the next snapshot follows on, without reading all that there were.
//!
//! A store may hold a hundred thousand snapshots, and their records all have to be read to know which is the newest. So
//! each snapshot leaves a note: what the next record follows on, and the newest record of each data directory. The note
//! says which packs held records by then. If there are others now, since somebody else took a snapshot or forgot one,
//! or packs were put together, it is made anew from all of them.

use super::history::History;
use super::ledger::Start;
use super::record::Record;
use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::crypto::keys::Keys;
use crate::error::Result;
use crate::index::Index;

/// The name of the note.
const NOTE: &str = "head";

/// The newest snapshots, and what follows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What the next record follows on.
    pub next: Start,
    /// The newest snapshot of each data directory that was not forgotten.
    pub newest: Vec<Record>,
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
            if newest.iter().all(|known| known.source != record.source) {
                newest.push(record.clone());
            }
        }
        Head { next: history.end(), newest }
    }

    /// The newest snapshot of `source`.
    pub fn newest_of(&self, source: &str) -> Option<&Record> {
        self.newest.iter().find(|record| record.source == source)
    }

    /// The head after `record` was committed.
    pub(super) fn follow(mut self, record: &Record, keys: &Keys) -> Head {
        self.next = (record.sequence + 1, Some(keys.record_mac(&record.encode())));
        self.newest.retain(|known| known.source != record.source);
        self.newest.push(record.clone());
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
