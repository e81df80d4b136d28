//! Packs taken apart.
//!
//! [`Packs`] reads footers and segments and believes nothing that did not open under the pack's key. Footers stay in
//! memory once read, up to a bound: 20 bytes a chunk, about 5 MiB for a GiB of pages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::kept::Kept;
use super::objects::{Key, Kind, Objects};
use super::pack::{self, Footer, HEADER, Header, TRAILER};
use super::segment;
use crate::codec::Malformed;
use crate::crypto::keys::Keys;
use crate::crypto::seal::PackOpener;
use crate::error::{Error, Result};
use crate::id::PackId;

/// Footers kept in memory, in bytes: 800,000 chunks.
const KEPT: usize = 8 * 1024 * 1024;
/// How much of a pack's end is read at first: the footers of small packs are within it.
const GUESS: u64 = 16 * 1024;

/// One pack, opened.
pub struct Pack {
    /// Its id.
    pub id: PackId,
    /// Its size in bytes.
    pub size: u64,
    /// What its key is derived with.
    pub salt: [u8; 32],
    /// What it holds.
    pub footer: Footer,
    opener: PackOpener,
}

/// Reads the packs of one store.
pub struct Packs {
    objects: Arc<dyn Objects>,
    keys: Arc<Keys>,
    opened: Mutex<Opened>,
}

/// Footers that were opened: those of late, and those that somebody still holds, which are not opened a second time.
/// A restore holds the footers of all packs that it reads; were there a second of each, memory would not be bounded.
struct Opened {
    kept: Kept<PackId, Arc<Pack>>,
    held: HashMap<PackId, Weak<Pack>>,
}

impl Pack {
    /// What it takes in memory, in bytes.
    pub fn cost(&self) -> usize {
        // One base and one chunk have room in the entry itself.
        let many = |spilled: bool, bytes: usize| if spilled { bytes } else { 0 };
        let each = |segment: &segment::SegmentEntry| {
            let (bases, chunks) = (&segment.bases, &segment.chunks);
            size_of::<segment::SegmentEntry>()
                + many(bases.spilled(), 16 * bases.len())
                + many(chunks.spilled(), 20 * chunks.len())
        };
        256 + self.footer.segments.iter().map(each).sum::<usize>()
    }
}

impl Packs {
    /// The packs among `objects`, sealed under `keys`.
    pub fn new(objects: Arc<dyn Objects>, keys: Arc<Keys>) -> Self {
        Packs { objects, keys, opened: Mutex::new(Opened { kept: Kept::up_to(KEPT), held: HashMap::new() }) }
    }

    /// The store's objects.
    pub fn objects(&self) -> &Arc<dyn Objects> {
        &self.objects
    }

    /// The store's keys.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Ids of all packs that are there.
    pub fn list(&self) -> Result<Vec<PackId>> {
        Ok(self.objects.list(Kind::Pack)?.into_iter().map(PackId).collect())
    }

    /// A pack whose footer was opened not long ago.
    pub fn opened(&self, id: PackId) -> Option<Arc<Pack>> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.kept.get(id).or_else(|| opened.held.get(&id)?.upgrade())
    }

    /// Opens a pack's footer.
    pub fn open(&self, id: PackId) -> Result<Arc<Pack>> {
        if let Some(pack) = self.opened(id) {
            return Ok(pack);
        }
        let pack = Arc::new(self.read(id)?);
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        // Two threads may have read it at once.
        if let Some(first) = opened.held.get(&id).and_then(Weak::upgrade) {
            return Ok(first);
        }
        opened.kept.put(id, pack.clone(), pack.cost());
        opened.held.insert(id, Arc::downgrade(&pack));
        Ok(pack)
    }

    /// A pack by what the index has of it ([`Footer::outline`]), of which nothing was read.
    pub fn outlined(&self, id: PackId, size: u64, salt: [u8; 32], footer: Footer) -> Pack {
        Pack { id, size, salt, footer, opener: PackOpener::new(&self.keys, id, &salt) }
    }

    /// Forgets the footers in memory, so that the next look is at the disk.
    pub fn forget(&self) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.kept.clear();
        opened.held.clear();
    }

    /// Reads a pack's footer from the medium, and does not keep it.
    pub fn read(&self, id: PackId) -> Result<Pack> {
        let key = Key::new(Kind::Pack, id.0);
        let damaged = |why: &dyn std::fmt::Display| {
            Error::integrity(format!("a pack is damaged: {why}"))
                .at(self.objects.place(key))
                .hint("run `nbak check` to see which snapshots need it")
        };
        let size = self.objects.size(key)?;
        if size < (HEADER + TRAILER) as u64 {
            return Err(damaged(&"it is shorter than an empty pack"));
        }
        let tail_length = size.min(GUESS);
        let mut tail = self.objects.get_range(key, size - tail_length, tail_length as usize)?;
        let trailer = tail.split_off(tail.len() - TRAILER);
        let footer_length = pack::decode_trailer(&trailer).map_err(|e| damaged(&e))?;
        let body = (size - (HEADER + TRAILER) as u64)
            .checked_sub(footer_length as u64)
            .ok_or_else(|| damaged(&"its footer is longer than the pack"))?;
        let mut sealed = if footer_length <= tail.len() {
            tail.split_off(tail.len() - footer_length)
        } else {
            self.objects.get_range(key, HEADER as u64 + body, footer_length)?
        };
        let head = self.objects.get_range(key, 0, HEADER)?;
        let header = Header::decode(&head).map_err(|e| damaged(&e))?;
        if header.store != self.keys.store() {
            return Err(damaged(&"it belongs to another store"));
        }
        if header.pack != id {
            return Err(damaged(&"it has another pack's name"));
        }
        let opener = PackOpener::new(&self.keys, id, &header.salt);
        opener.open_footer(&mut sealed).map_err(|_| damaged(&"its footer does not open"))?;
        let footer = Footer::decode(&sealed, body).map_err(|e| damaged(&e))?;
        Ok(Pack { id, size, salt: header.salt, footer, opener })
    }

    /// The plaintext of a segment: opened, and decompressed with `prefix`, the joined plaintexts of its bases.
    pub fn segment(&self, pack: &Pack, number: usize, prefix: &[u8]) -> Result<Vec<u8>> {
        let key = Key::new(Kind::Pack, pack.id.0);
        let damaged = |why: Malformed| {
            Error::integrity(format!("segment {number} of a pack is damaged: {}", why.0))
                .at(self.objects.place(key))
                .hint("run `nbak check --read-data` to see which files need it")
        };
        let (entry, bytes) = self.coded(pack, number)?;
        segment::decompress(entry.codec, &bytes, entry.plain as usize, prefix).map_err(damaged)
    }

    /// A segment as it was before it was sealed, for one that is put into another pack as it is.
    pub fn coded<'p>(&self, pack: &'p Pack, number: usize) -> Result<(&'p segment::SegmentEntry, Vec<u8>)> {
        let key = Key::new(Kind::Pack, pack.id.0);
        let damaged = |why: &str| {
            Error::integrity(format!("segment {number} of a pack is damaged: {why}"))
                .at(self.objects.place(key))
                .hint("run `nbak check --read-data` to see which files need it")
        };
        let entry = pack.footer.segments.get(number).ok_or_else(|| damaged("it is not there"))?;
        let mut bytes = self.objects.get_range(key, entry.offset, entry.stored as usize)?;
        pack.opener
            .open_segment(number as u32, &mut bytes)
            .map_err(|_| damaged("its bytes are not what was written"))?;
        Ok((entry, bytes))
    }
}
