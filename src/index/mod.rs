//! The index: which pack holds a chunk, and what makes the next snapshot cheap.
//!
//! It is a **cache**, and only ever a hint. Everything in it can be made again from the packs' footers, and is, at the
//! next command and without being asked, when the file is missing, stale, foreign or damaged. A location that it gives
//! is held against the pack's sealed footer before it counts (I6), so that an index that was tampered with, or rotted,
//! can cost time and nothing else: it cannot make a snapshot skip data that the store does not have.
//!
//! One thing it knows that the packs do not say: which packs were there before. Those that are gone are *lost*, and
//! stay on a list until they are back, or until somebody accepts it. Without the list the next snapshot would start
//! over, and nobody would hear that older ones cannot be restored any more.
//!
//! [`disk`] is the redb file; [`catalog`] is what the rest of the house asks: packs and index as one, with [`lineage`]
//! for what builds on what. Rows that say anything about the source are sealed; chunk ids are keyed hashes.

pub mod catalog;
mod disk;
pub mod lineage;
pub mod trail;
mod unsynced;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use self::disk::{Disk, place_of};
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId};
use crate::store::pack::Footer;
use crate::store::reader::Packs;
use crate::store::sink::Stored;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: PackId,
    /// The segment's number in it.
    pub segment: u32,
    /// The chunk's place in the segment.
    pub nth: u32,
}

/// What the index knows of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// What chunk entries call the pack: 16 bytes would be two thirds of each.
    number: u32,
    /// The pack's size in bytes.
    size: u64,
    /// How many records are in it.
    count: u32,
    /// The records, where they are at hand: the file has them apart.
    records: Vec<Vec<u8>>,
}

/// The index of one store, in step with the packs that are there.
pub struct Index {
    path: PathBuf,
    disk: Option<Disk>,
    rows: BTreeMap<PackId, Row>,
    numbers: HashMap<u32, PackId>,
    /// Chunks of packs that the file does not know (yet).
    extra: HashMap<ChunkId, Location>,
    unreadable: Vec<(PackId, String)>,
    lost: BTreeMap<PackId, Row>,
    /// Segments that a check found damaged, though their packs' footers open.
    damaged: BTreeSet<(PackId, u32)>,
    /// A snapshot has stored again since then what was at hand of them.
    mended: bool,
    rebuilt: bool,
}

/// The note that lists damaged segments: whether they were mended, then pack and number of each.
const DAMAGED: &str = "damaged segments";

fn decode_damaged(note: &[u8]) -> Option<(bool, BTreeSet<(PackId, u32)>)> {
    let (mended, note) = note.split_first()?;
    let one = |bytes: &[u8]| {
        let (pack, number) = bytes.split_first_chunk::<16>()?;
        Some((PackId(*pack), u32::from_le_bytes(number.try_into().ok()?)))
    };
    Some((*mended == 1, note.chunks_exact(20).filter_map(one).collect()))
}

/// Stands in the list of damaged segments for all of a pack whose footer does not open.
pub const WHOLE_PACK: u32 = u32::MAX;

/// Stands in the list of lost packs for all that there were, where it is not known which.
const ALL: PackId = PackId([0; 16]);

impl Index {
    /// Opens the index at `path` and brings it in step with the packs. Only the holder of the writer's lock may ask
    /// for a `writable` one; a reader keeps what the file does not know in memory.
    pub fn open(path: &Path, packs: &Packs, writable: bool) -> Result<Index> {
        let mut listed: HashSet<PackId> = packs.list()?.into_iter().collect();
        let mut index = Index {
            path: path.to_path_buf(),
            disk: None,
            rows: BTreeMap::new(),
            numbers: HashMap::new(),
            extra: HashMap::new(),
            unreadable: Vec::new(),
            lost: BTreeMap::new(),
            damaged: BTreeSet::new(),
            mended: false,
            rebuilt: false,
        };
        let opened = Disk::open(path, packs.keys(), writable).and_then(|disk| Ok((disk.rows()?, disk.lost()?, disk)));
        // Somebody may have stored a pack between the one look and the other: a reader has no lock against that.
        if opened.as_ref().is_ok_and(|(rows, ..)| rows.keys().any(|id| !listed.contains(id))) {
            listed = packs.list()?.into_iter().collect();
        }
        match opened {
            // A pack that is gone takes its entries with it, and may have hidden another copy of a chunk: start over.
            Ok((rows, lost, mut disk)) if rows.keys().all(|id| listed.contains(id)) => {
                index.lost.clone_from(&lost);
                index.lost.retain(|id, _| !listed.contains(id));
                if writable && index.lost.len() < lost.len() {
                    // If not, the next command finds the same.
                    let _ = disk.set_lost(&index.lost);
                }
                index.rows = rows;
                index.disk = Some(disk);
            }
            other => {
                drop(other);
                index.lost = Disk::ever_known(path, packs.keys());
                index.lost.retain(|id, _| !listed.contains(id));
                if index.lost.is_empty() && listed.is_empty() && disk::has_notes(path) {
                    index.lost.insert(ALL, Row { number: 0, size: 0, count: 0, records: Vec::new() });
                }
                if writable {
                    index.rebuilt = path.exists();
                    index.disk = Disk::create(path, packs.keys(), &index.lost).ok();
                }
            }
        }
        if let Some((mended, damaged)) = index.note(DAMAGED).and_then(|note| decode_damaged(&note)) {
            (index.mended, index.damaged) = (mended, damaged);
        }
        index.damaged.retain(|(pack, _)| listed.contains(pack));
        index.numbers = index.rows.iter().map(|(id, row)| (row.number, *id)).collect();
        let unknown: Vec<PackId> = listed.into_iter().filter(|id| !index.rows.contains_key(id)).collect();
        if !unknown.is_empty() {
            index.learn(packs, &unknown);
        }
        Ok(index)
    }

    /// Reads the footers of packs that the index does not know. A pack that cannot be read is remembered as such: it
    /// must not keep anyone from what is whole.
    fn learn(&mut self, packs: &Packs, unknown: &[PackId]) {
        for batch in unknown.chunks(64) {
            let mut read = Vec::new();
            for &id in batch {
                match packs.open(id) {
                    Ok(pack) => read.push(pack),
                    Err(error) => self.unreadable.push((id, error.to_string())),
                }
            }
            let seen: Vec<_> = read.iter().map(|pack| (pack.id, pack.size, &pack.salt, &pack.footer)).collect();
            self.insert(&seen);
        }
    }

    /// Takes in packs that were just stored. The file is brought up to date too; when that fails the snapshot stands
    /// all the same, and the next command catches up.
    pub fn add(&mut self, stored: &[Stored]) {
        let seen: Vec<_> = stored.iter().map(|pack| (pack.id, pack.size, &pack.salt, &pack.footer)).collect();
        self.insert(&seen);
    }

    /// Forgets the packs `gone`, which are about to be deleted: from now on nobody misses them. `chunks` are those that
    /// they list, and `elsewhere` says where those of them lie that stay in another pack. If the file cannot be
    /// written, it is thrown away, and made anew.
    ///
    /// Deleting packs is synced, so this has to be too: after a power loss an older state of the file would come back,
    /// and name as lost what was deleted on purpose. While this fails, nothing may be deleted.
    pub fn remove(
        &mut self,
        gone: &BTreeSet<PackId>,
        chunks: &[ChunkId],
        elsewhere: &[(ChunkId, Location)],
    ) -> Result<()> {
        let numbers: HashSet<u32> = gone.iter().filter_map(|id| self.rows.get(id)).map(|row| row.number).collect();
        let place = |(id, at): &(ChunkId, Location)| Some((*id, place_of(self.rows.get(&at.pack)?.number, at)));
        let stays: Vec<_> = elsewhere.iter().filter_map(place).collect();
        let disk = self.disk.as_mut().filter(|disk| disk.is_writable());
        if disk.is_none_or(|disk| disk.remove(gone, &numbers, chunks, &stays).is_err()) {
            self.discard();
        }
        self.settle().map_err(|error| Error::io("bring the index up to date", &self.path, error))?;
        self.rows.retain(|id, _| !gone.contains(id));
        self.numbers.retain(|number, _| !numbers.contains(number));
        self.extra.retain(|_, at| !gone.contains(&at.pack));
        if self.disk.is_none() {
            self.extra.extend(elsewhere.iter().copied());
        }
        self.unreadable.retain(|(id, _)| !gone.contains(id));
        if self.damaged.iter().any(|(pack, _)| gone.contains(pack)) {
            self.damaged.retain(|(pack, _)| !gone.contains(pack));
            self.note_damaged();
        }
        Ok(())
    }

    /// Syncs the file, or that there is none. A store in memory has none.
    fn settle(&mut self) -> std::io::Result<()> {
        let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
        let folder = folder.to_path_buf();
        if self.disk.is_some() && std::fs::File::open(&self.path).and_then(|file| file.sync_all()).is_err() {
            self.discard();
        }
        if self.disk.is_none() && self.path.symlink_metadata().is_ok() {
            std::fs::remove_file(&self.path)?;
        }
        std::fs::File::open(folder)?.sync_all()
    }

    /// Gives the room that removed packs had in the file back to the file system.
    pub fn shrink(&mut self) {
        if let Some(disk) = self.disk.as_mut().filter(|disk| disk.is_writable()) {
            disk.shrink();
        }
    }

    fn insert(&mut self, packs: &[(PackId, u64, &[u8; 32], &Footer)]) {
        if packs.is_empty() {
            return;
        }
        let first = self.numbers.keys().max().map_or(0, |most| most + 1);
        let mut rows = Vec::with_capacity(packs.len());
        for (number, (id, size, salt, footer)) in (first..).zip(packs) {
            let count = footer.records.len() as u32;
            let row = Row { number, size: *size, count, records: footer.records.clone() };
            self.numbers.insert(number, *id);
            self.rows.insert(*id, row.clone());
            rows.push((*id, row, [&salt[..], &footer.outline()].concat()));
        }
        let locations = |(pack, footer): (PackId, &Footer)| -> Vec<(ChunkId, Location)> {
            let at = |segment: usize, nth: usize| Location { pack, segment: segment as u32, nth: nth as u32 };
            footer.chunks().map(|(segment, nth, chunk)| (chunk.id, at(segment, nth))).collect()
        };
        let on_disk = self.disk.as_mut().filter(|disk| disk.is_writable()).is_some_and(|disk| {
            // All in one transaction: in several, with ids that are spread evenly, each would write most of the tree
            // again, and the file be several times as large.
            let mut entries = Vec::with_capacity(packs.iter().map(|(.., footer)| footer.chunks().count()).sum());
            for ((.., footer), (id, row, _)) in packs.iter().zip(&rows) {
                let places = locations((*id, footer)).into_iter();
                entries.extend(places.map(|(chunk, at)| (chunk, place_of(row.number, &at))));
            }
            entries.sort_unstable_by_key(|(id, _)| *id);
            disk.insert(&rows, entries.into_iter()).is_ok()
        });
        if !on_disk {
            self.extra.extend(packs.iter().flat_map(|(id, .., footer)| locations((*id, footer))));
        }
    }

    /// Where `id` probably lies.
    pub fn find(&self, id: ChunkId) -> Option<Location> {
        if let Some(location) = self.extra.get(&id) {
            return Some(*location);
        }
        let (number, segment, nth) = self.disk.as_ref()?.find(id)?;
        Some(Location { pack: *self.numbers.get(&number)?, segment, nth })
    }

    /// A pack's salt, its size, and its footer without ids ([`Footer::outline`]), if the file has that.
    pub fn outline(&self, id: PackId) -> Option<([u8; 32], u64, Footer)> {
        let row = self.disk.as_ref()?.outline(id)?;
        let (salt, outline) = row.split_first_chunk()?;
        Some((*salt, self.rows.get(&id)?.size, Footer::from_outline(outline).ok()?))
    }

    /// A pack as the file remembers it: salt, size, and its footer with those ids that no other pack took over. For one
    /// whose own footer does not open any more; what it says has to be proven.
    pub fn remembered(&self, id: PackId) -> Option<([u8; 32], u64, Footer)> {
        let (salt, size, mut footer) = self.outline(id)?;
        for (chunk, segment, nth) in self.disk.as_ref()?.chunks_in(self.rows.get(&id)?.number) {
            let entry = footer.segments.get_mut(segment as usize)?.chunks.get_mut(nth as usize)?;
            entry.id = chunk;
        }
        Some((salt, size, footer))
    }

    /// The packs that hold records.
    pub fn packs_with_records(&self) -> impl Iterator<Item = PackId> {
        self.rows.iter().filter(|(_, row)| row.count > 0).map(|(id, _)| *id)
    }

    /// All records, by packs. Where the file does not give them, the pack's footer in `packs` does; if that does not
    /// open either, it is not known which snapshots there are, and that is an error: an answer without them would let
    /// `gc` free what they need.
    pub fn records(&self, packs: &Packs) -> Result<Vec<(PackId, Vec<Vec<u8>>)>> {
        let one = |(id, row): (&PackId, &Row)| {
            if !row.records.is_empty() {
                return Ok((*id, row.records.clone()));
            }
            let known = self.disk.as_ref().and_then(|disk| disk.records(*id));
            match known.filter(|records| records.len() == row.count as usize) {
                Some(known) => Ok((*id, known)),
                None => Ok((*id, packs.open(*id)?.footer.records.clone())),
            }
        };
        self.rows.iter().filter(|(_, row)| row.count > 0).map(one).collect()
    }

    /// All packs that can be read, with their sizes in bytes.
    pub fn packs(&self) -> impl Iterator<Item = (PackId, u64)> {
        self.rows.iter().map(|(id, row)| (*id, row.size))
    }

    /// How many packs were counted so far: each has a number below that, and keeps it for as long as the file is there.
    pub fn counted(&self) -> u32 {
        self.numbers.keys().max().map_or(0, |most| most + 1)
    }

    /// The packs with a number below `most`, in the order of their numbers.
    pub fn numbered(&self, most: u32) -> Vec<PackId> {
        let mut packs: Vec<_> = self.numbers.iter().filter(|(number, _)| **number < most).collect();
        packs.sort_unstable();
        packs.into_iter().map(|(_, id)| *id).collect()
    }

    /// Whether the file knows all that is known, so that nobody has to bring it up to date.
    pub fn is_current(&self) -> bool {
        self.disk.is_some() && self.extra.is_empty()
    }

    /// Packs that could not be read, and why.
    pub fn unreadable(&self) -> &[(PackId, String)] {
        &self.unreadable
    }

    /// Packs that the store had, and that are gone: ids, and the records of the snapshots that went with them.
    pub fn lost(&self) -> impl Iterator<Item = (PackId, &[Vec<u8>])> {
        self.lost.iter().filter(|(id, _)| **id != ALL).map(|(id, row)| (*id, row.records.as_slice()))
    }

    /// All packs are gone, and it is not known how many there were.
    pub fn lost_all(&self) -> bool {
        self.lost.contains_key(&ALL)
    }

    /// Whether a command left notes beside the index at `path`: none does before something was stored.
    pub fn has_notes(path: &Path) -> bool {
        disk::has_notes(path)
    }

    /// Whether a file that was there had to be thrown away.
    pub fn was_rebuilt(&self) -> bool {
        self.rebuilt
    }

    /// A note that an earlier command left under `name`, unless it was lost.
    pub fn note(&self, name: &str) -> Option<Vec<u8>> {
        self.disk.as_ref()?.note(name)
    }

    /// Leaves a note for later commands. Losing it costs time and nothing else.
    pub fn leave_note(&mut self, name: &str, note: &[u8]) {
        if let Some(disk) = self.disk.as_mut().filter(|disk| disk.is_writable()) {
            let _ = disk.leave_note(name, note);
        }
    }

    /// Segments that a check found damaged: what the index says of chunks in them is worth nothing.
    pub fn damaged(&self) -> &BTreeSet<(PackId, u32)> {
        &self.damaged
    }

    /// Whether what lies at `at` was found damaged.
    pub fn is_damaged(&self, at: &Location) -> bool {
        [at.segment, WHOLE_PACK].iter().any(|segment| self.damaged.contains(&(at.pack, *segment)))
    }

    /// Remembers `damaged`, and forgets what earlier snapshots were found to be: the next one looks at everything
    /// again, and stores again what is at hand. The caller holds the writer's lock.
    pub fn remember_damaged(&mut self, damaged: BTreeSet<(PackId, u32)>) {
        if damaged == self.damaged {
            return;
        }
        disk::remove_notes(&self.path);
        (self.damaged, self.mended) = (damaged, false);
        self.note_damaged();
    }

    /// Whether damaged segments are known of which nobody has stored again what is at hand.
    pub fn is_to_be_mended(&self) -> bool {
        !self.damaged.is_empty() && !self.mended
    }

    /// A snapshot that looked at everything was stored: what was at hand of damaged segments is there again.
    pub fn remember_mended(&mut self) {
        if self.is_to_be_mended() {
            self.mended = true;
            self.note_damaged();
        }
    }

    fn note_damaged(&mut self) {
        let each = self.damaged.iter().flat_map(|(pack, number)| [&pack.0[..], &number.to_le_bytes()].concat());
        let note: Vec<u8> = std::iter::once(u8::from(self.mended)).chain(each).collect();
        if let Some(disk) = self.disk.as_mut() {
            // If it cannot be written, the next check finds the same.
            let _ = disk.leave_note(DAMAGED, &note);
        }
    }

    /// Throws the file away: somebody found it wrong. The next command makes it anew, and takes the packs that there
    /// are for all that there ever were.
    pub fn discard(&mut self) {
        self.disk = None;
        let _ = std::fs::remove_file(&self.path);
        disk::remove_notes(&self.path);
    }
}
