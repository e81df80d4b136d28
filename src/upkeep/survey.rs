//! All that lies in the packs, by their footers: what `gc` decides by.
//!
//! The index takes no part in it. A wrong hint costs a snapshot some time; here it would cost data. So every footer is
//! read, and each copy of each chunk gets a **place** in a table that is sorted by chunk id. Copies of one chunk stand
//! side by side.
//!
//! Memory: 34 bytes for each copy of a chunk, 9 MiB for a GiB of pages. Footers themselves are not kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rayon::prelude::*;

use crate::error::Result;
use crate::id::{ChunkId, PackId};
use crate::index::Index;
use crate::snapshot::ledger::{Ledger, is_ledger};
use crate::store::reader::Packs;
use crate::store::segment::Content;

/// A place in the table.
pub type Place = u32;
/// Stands for no place.
pub const NONE: Place = u32::MAX;
/// So many footers are read at a time: enough for the cores, and one of a large pack takes a megabyte.
const BATCH: usize = 4;

/// One pack of the survey.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its id.
    pub id: PackId,
    /// Its size in bytes.
    pub size: u64,
    /// The records in it.
    pub records: Vec<Vec<u8>>,
    /// Whether the ledger that counts is in it.
    pub has_ledger: bool,
}

impl Seen {
    /// Whether it is wanted for more than its chunks.
    pub fn is_wanted(&self) -> bool {
        self.has_ledger || !self.records.is_empty()
    }
}

/// One copy of a chunk, on its way into the table.
#[derive(Clone, Copy)]
struct Copy {
    id: u128,
    at: u64,
    depth: u8,
    content: u8,
}

/// The table.
pub struct Survey {
    /// The packs, those that were stored first first, as far as the index knows.
    pub packs: Vec<Seen>,
    /// Packs that could not be read, and why.
    pub unreadable: BTreeMap<PackId, String>,
    ids: Vec<u128>,
    at: Vec<u64>,
    depth: Vec<u8>,
    content: Vec<u8>,
    base: Vec<Place>,
    /// Bases of segments that name more than one.
    more: HashMap<Place, Vec<ChunkId>>,
}

fn pack_at(pack: usize, segment: usize, nth: usize) -> u64 {
    (pack as u64) << 32 | (segment as u64) << 16 | nth as u64
}

impl Survey {
    /// Reads all footers.
    pub fn of(packs: &Packs, index: &Index) -> Result<Survey> {
        let mut ids = packs.list()?;
        let order: HashMap<PackId, usize> =
            index.numbered(u32::MAX).into_iter().enumerate().map(|(n, id)| (id, n)).collect();
        ids.sort_by_key(|id| (order.get(id).copied().unwrap_or(usize::MAX), *id));
        let (mut seen, mut unreadable) = (Vec::new(), BTreeMap::new());
        let mut copies: Vec<Copy> = Vec::new();
        // Of each chunk that is stored as a difference: where, in the order in which they lie, and from what.
        let mut bases: Vec<(u64, ChunkId)> = Vec::new();
        let mut many: HashMap<u64, Vec<ChunkId>> = HashMap::new();
        for batch in ids.chunks(BATCH) {
            let read: Vec<_> = batch.par_iter().map(|id| (*id, packs.read(*id))).collect();
            for (id, pack) in read {
                let pack = match pack {
                    Ok(pack) => pack,
                    Err(error) => {
                        unreadable.insert(id, error.to_string());
                        continue;
                    }
                };
                let number = seen.len();
                for (segment, nth, chunk) in pack.footer.chunks() {
                    let entry = &pack.footer.segments[segment];
                    let (key, at) = (u128::from_be_bytes(chunk.id.0), pack_at(number, segment, nth));
                    copies.push(Copy { id: key, at, depth: entry.depth, content: code(entry.content) });
                    match entry.bases.as_slice() {
                        [] => {}
                        [base] => bases.push((at, *base)),
                        more => {
                            many.insert(at, more.to_vec());
                        }
                    }
                }
                seen.push(Seen { id, size: pack.size, records: pack.footer.records, has_ledger: false });
            }
        }
        copies.par_sort_unstable_by_key(|copy| (copy.id, copy.at));
        let mut survey = Survey {
            packs: seen,
            unreadable,
            ids: copies.iter().map(|copy| copy.id).collect(),
            at: copies.iter().map(|copy| copy.at).collect(),
            depth: copies.iter().map(|copy| copy.depth).collect(),
            content: copies.iter().map(|copy| copy.content).collect(),
            base: vec![NONE; copies.len()],
            more: HashMap::new(),
        };
        drop(copies);
        for place in 0..survey.len() {
            let at = survey.at[place];
            if let Ok(known) = bases.binary_search_by_key(&at, |(at, _)| *at) {
                // One that no pack has stays unknown: what builds on it cannot be read.
                survey.base[place] = survey.find(bases[known].1).unwrap_or(NONE);
            } else if let Some(bases) = many.remove(&at) {
                survey.more.insert(place as Place, bases);
            }
        }
        Ok(survey)
    }

    /// Leaves of the records those that `wanted` says yes to, each in one pack, and notes where the ledger of this
    /// `generation` is. Where packs were put together and the old ones could not be deleted, they hold the same.
    pub fn keep_records(&mut self, generation: u64, wanted: impl Fn(&[u8]) -> bool) {
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        for pack in self.packs.iter_mut().rev() {
            let (ledgers, mut records): (Vec<_>, Vec<_>) =
                std::mem::take(&mut pack.records).into_iter().partition(|record| is_ledger(record));
            let ledger = Ledger::decode(ledgers.iter().map(Vec::as_slice));
            pack.has_ledger = !ledgers.is_empty() && ledger.is_ok_and(|ledger| ledger.generation == generation);
            records.retain(|record| wanted(record) && seen.insert(record.clone()));
            pack.records = records;
        }
    }

    /// How many copies there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The first copy of `id`.
    pub fn find(&self, id: ChunkId) -> Option<Place> {
        let key = u128::from_be_bytes(id.0);
        let place = self.ids.partition_point(|known| *known < key);
        (self.ids.get(place) == Some(&key)).then_some(place as Place)
    }

    /// The first copy of the chunk at `place`.
    pub fn first(&self, place: Place) -> Place {
        let id = self.ids[place as usize];
        self.ids[..place as usize].iter().rposition(|known| *known != id).map_or(0, |before| before as Place + 1)
    }

    /// All copies of the chunk whose first one is `first`.
    pub fn copies(&self, first: Place) -> impl Iterator<Item = Place> + use<'_> {
        let id = self.ids[first as usize];
        let count = self.ids[first as usize..].iter().take_while(|known| **known == id).count();
        first..first + count as Place
    }

    /// The chunk at `place`.
    pub fn id(&self, place: Place) -> ChunkId {
        ChunkId(self.ids[place as usize].to_be_bytes())
    }

    /// Where the copy lies: the pack's place in [`Self::packs`], its segment, and its place in that.
    pub fn at(&self, place: Place) -> (usize, usize, usize) {
        let at = self.at[place as usize];
        ((at >> 32) as usize, (at >> 16) as usize & 0xFFFF, at as usize & 0xFFFF)
    }

    /// Where the copy lies, as a number that orders copies as they lie.
    pub fn order(&self, place: Place) -> u64 {
        self.at[place as usize]
    }

    /// How many segments have to be opened before that of the copy.
    pub fn depth(&self, place: Place) -> u8 {
        self.depth[place as usize]
    }

    /// What it is.
    pub fn content(&self, place: Place) -> Content {
        Content::ALL[self.content[place as usize] as usize]
    }

    /// First copies of what this copy builds on: the bases of its segment, or that of its patch, if that was noted.
    pub fn bases(&self, place: Place) -> Vec<Place> {
        match (self.base[place as usize], self.more.get(&place)) {
            (_, Some(more)) => more.iter().filter_map(|id| self.find(*id)).collect(),
            (NONE, None) => Vec::new(),
            (base, None) => vec![base],
        }
    }

    /// Those of the chunks that are `live`, all by their first copies, of which there is no copy that lies in no
    /// `damaged` segment and rests on such ones only.
    pub fn unsound(&self, live: &[bool], damaged: &BTreeSet<(PackId, u32)>) -> Vec<Place> {
        let mut known: HashMap<Place, bool> = HashMap::new();
        let live = (0..self.len() as Place).filter(|place| live[*place as usize]);
        live.filter(|first| !self.is_sound(*first, damaged, &mut known)).collect()
    }

    fn is_sound(&self, first: Place, damaged: &BTreeSet<(PackId, u32)>, known: &mut HashMap<Place, bool>) -> bool {
        if let Some(sound) = known.get(&first) {
            return *sound;
        }
        let sound = self.copies(first).any(|copy| {
            let (pack, segment, _) = self.at(copy);
            let (depth, bases) = (self.depth(copy), self.bases(copy));
            let below = |base: &Place| self.copies(*base).any(|copy| self.depth(copy) < depth);
            !damaged.contains(&(self.packs[pack].id, segment as u32))
                && (depth == 0
                    || (!bases.is_empty()
                        && bases.iter().all(|base| below(base) && self.is_sound(*base, damaged, known))))
        });
        known.insert(first, sound);
        sound
    }

    /// Notes that the tree or recipe at `place` is a patch against the one whose first copy is `base`.
    pub fn note_patch(&mut self, place: Place, base: Place) {
        self.base[place as usize] = base;
    }
}

fn code(content: Content) -> u8 {
    Content::ALL.iter().position(|known| *known == content).unwrap_or(0) as u8
}
