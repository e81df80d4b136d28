//! Packs and index as one: ask for a chunk, get its bytes.
//!
//! [`Catalog::locate`] takes the index's hint and holds it against the pack's footer. When the hint is wrong, or there
//! is none, every footer is read into memory once, and that decides: a chunk that is missing is missing from the packs,
//! whatever the index says.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::prelude::*;

use super::{Index, Location};
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId};
use crate::store::kept::Kept;
use crate::store::objects::{Key, Kind};
use crate::store::reader::{Pack, Packs};
use crate::store::segment::{Content, MAX_BASE, MAX_DEPTH, MAX_WORK};

/// Segments kept in memory after use: metadata of one directory tends to lie together, and so do the versions of a
/// page with what they build on.
const CACHED: usize = 64;
/// A larger segment is not kept, in bytes.
const CACHED_MOST: usize = 1024 * 1024;
/// What is kept of all of them, in bytes.
const CACHED_ALL: usize = 8 * 1024 * 1024;
/// Outlines kept in memory, in bytes.
const OUTLINES: usize = 8 * 1024 * 1024;

/// So many chunks are looked up to tell whether one is there, with all that it builds on.
const LOOKS: u32 = 65_536;

/// So many chunks are looked up by one thread at a time.
const PART: usize = 16;

/// What the store has of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// All of it, as far as footers tell.
    There,
    /// The index has a place for it, and it cannot be read from there.
    Lost,
    /// Nothing: it is new.
    New,
}

/// A segment that was opened: pack, number, plaintext.
type Recent = (PackId, usize, Arc<Vec<u8>>);

/// What is in the store, and where.
pub struct Catalog {
    packs: Packs,
    index: Index,
    /// All chunks by all footers, in the order of their ids, made when the index turns out to be wrong or a copy to be
    /// damaged.
    survey: OnceLock<Vec<(ChunkId, Location)>>,
    recent: Mutex<VecDeque<Recent>>,
    /// Packs as far as the index describes them; nothing for those that it does not.
    outlines: Mutex<Kept<PackId, Option<Arc<Pack>>>>,
    broken: Mutex<BTreeSet<PackId>>,
}

impl Catalog {
    /// `index` must be that of `packs`.
    pub fn new(packs: Packs, index: Index) -> Self {
        Catalog {
            packs,
            index,
            survey: OnceLock::new(),
            recent: Mutex::default(),
            outlines: Mutex::new(Kept::up_to(OUTLINES)),
            broken: Mutex::default(),
        }
    }

    /// The packs.
    pub fn packs(&self) -> &Packs {
        &self.packs
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The index, to bring it up to date.
    pub fn index_mut(&mut self) -> &mut Index {
        self.survey = OnceLock::new();
        &mut self.index
    }

    /// Whether the store holds `id` and all that it builds on, proven by the footers of the packs that those are in. A
    /// hint that does not hold is taken as a no: the chunk is then stored once more, which is harmless. So is one that
    /// lies in a segment that a check found damaged.
    pub fn has(&self, id: ChunkId) -> bool {
        self.has_at_depth(id, MAX_DEPTH, &mut { LOOKS })
    }

    /// `left` bounds how many chunks are looked up for one: bases of bases may be many.
    fn has_at_depth(&self, id: ChunkId, allowed: u8, left: &mut u32) -> bool {
        let Some(fewer) = left.checked_sub(1) else { return false };
        *left = fewer;
        let Some(at) = self.index.find(id).filter(|at| !self.index.is_damaged(at)) else { return false };
        let pack = match self.confirm(id, at) {
            Ok(Some(pack)) => pack,
            Ok(None) => return false,
            Err(error) => {
                if error.is_integrity() {
                    self.broken.lock().unwrap_or_else(PoisonError::into_inner).insert(at.pack);
                }
                return false;
            }
        };
        let segment = &pack.footer.segments[at.segment as usize];
        segment.depth <= allowed
            && segment.bases.iter().all(|base| self.has_at_depth(*base, segment.depth.saturating_sub(1), left))
    }

    /// Packs that turned out not to open while somebody asked [`Self::has`]: nothing that lies in them is there, though
    /// the index can still lead to it.
    pub fn take_broken(&self) -> BTreeSet<PackId> {
        std::mem::take(&mut self.broken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the index has a place for `id`, sound or not. What is stored again for that reason must not build on
    /// anything: what built on the lost copy may be among it.
    pub fn was_there(&self, id: ChunkId) -> bool {
        self.index.find(id).is_some()
    }

    /// What the store has of each of `ids`: asked on all cores, since each answer is a page of the index or several.
    pub fn look_up(&self, ids: &[ChunkId]) -> Vec<Presence> {
        let one = |id: &ChunkId| match self.index.find(*id) {
            None => Presence::New,
            Some(_) if self.has(*id) => Presence::There,
            Some(_) => Presence::Lost,
        };
        ids.par_iter().with_min_len(PART).map(one).collect()
    }

    fn confirm(&self, id: ChunkId, at: Location) -> Result<Option<Arc<Pack>>> {
        let pack = self.packs.open(at.pack)?;
        let entry = pack.footer.segments.get(at.segment as usize).and_then(|s| s.chunks.get(at.nth as usize));
        Ok(entry.is_some_and(|chunk| chunk.id == id).then_some(pack))
    }

    /// The pack that holds `id`, and where in it.
    pub fn locate(&self, id: ChunkId) -> Result<(Arc<Pack>, Location)> {
        if let Some(hint) = self.index.find(id)
            && let Ok(Some(pack)) = self.confirm(id, hint)
        {
            return Ok((pack, hint));
        }
        match self.survey(id).first() {
            Some((_, at)) => Ok((self.packs.open(at.pack)?, *at)),
            None => Err(self.in_no_pack(id)),
        }
    }

    /// That `id` is nowhere; and if a pack is closed to this user, that it may be in that.
    fn in_no_pack(&self, id: ChunkId) -> Error {
        let missing = Error::integrity(format!("chunk {id} is in no pack of this store"));
        let closed = |pack| self.packs.open(pack).err().filter(|error| !error.is_integrity());
        match self.packs.list().unwrap_or_default().into_iter().find_map(closed) {
            Some(closed) => missing.because(closed).hint("mend that first: what seems to be lost may be in there"),
            None => missing.hint("run `nbak check` to see what is affected"),
        }
    }

    /// Every place where `id` lies, by all footers.
    fn survey(&self, id: ChunkId) -> &[(ChunkId, Location)] {
        let all = self.survey.get_or_init(|| {
            let mut all = Vec::new();
            for pack in self.packs.list().unwrap_or_default() {
                if let Ok(pack) = self.packs.open(pack) {
                    all.extend(pack.footer.chunks().map(|(segment, nth, chunk)| {
                        (chunk.id, Location { pack: pack.id, segment: segment as u32, nth: nth as u32 })
                    }));
                }
            }
            all.sort_unstable_by_key(|(id, at)| (*id, at.pack, at.segment));
            all
        });
        let from = all.partition_point(|(known, _)| *known < id);
        let count = all[from..].iter().take_while(|(known, _)| *known == id).count();
        &all[from..from + count]
    }

    fn place(&self, pack: &Pack) -> String {
        self.packs.objects().place(Key::new(Kind::Pack, pack.id.0))
    }

    /// The plaintext of a segment, its bases resolved.
    pub fn segment(&self, pack: &Pack, number: usize) -> Result<Arc<Vec<u8>>> {
        self.segment_for(pack, number, &mut 0)
    }

    /// `spent` counts the bytes that were opened so far for the segment that was asked for.
    fn segment_for(&self, pack: &Pack, number: usize, spent: &mut u64) -> Result<Arc<Vec<u8>>> {
        if let Some(plain) = self.recent(pack.id, number) {
            return Ok(plain);
        }
        let mut prefix = Vec::new();
        if let Some(entry) = pack.footer.segments.get(number)
            && !entry.bases.is_empty()
        {
            let refused =
                |why: &str| Error::integrity(format!("segment {number} of a pack {why}")).at(self.place(pack));
            *spent += u64::from(entry.plain);
            if *spent > MAX_WORK {
                return Err(refused("builds on more segments than the format allows"));
            }
            // Each base lies less deep than what builds on it, by the footers: so this ends, and it does not depend on
            // what is in memory just now whether a segment can be read.
            let below = entry.depth.saturating_sub(1);
            for base in &entry.bases {
                let chunk = self.chunk_at_depth(Content::Data, *base, below, spent).map_err(|error| {
                    if !error.is_integrity() {
                        return error;
                    }
                    // Both are named: what cannot be read, and what is damaged.
                    refused(&format!("builds on chunk {base}, which cannot be read: {error}"))
                })?;
                if prefix.len() + chunk.len() > MAX_BASE {
                    return Err(refused("builds on more than the format allows"));
                }
                prefix.extend_from_slice(&chunk);
            }
        }
        let plain = Arc::new(self.packs.segment(pack, number, &prefix)?);
        self.keep(pack.id, number, plain.clone());
        Ok(plain)
    }

    /// A segment that was opened not long ago.
    fn recent(&self, pack: PackId, number: usize) -> Option<Arc<Vec<u8>>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let at = recent.iter().position(|(id, at, _)| *id == pack && *at == number)?;
        let found = recent.remove(at)?;
        let plain = found.2.clone();
        recent.push_front(found);
        Some(plain)
    }

    fn keep(&self, pack: PackId, number: usize, plain: Arc<Vec<u8>>) {
        if plain.len() > CACHED_MOST {
            return;
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_front((pack, number, plain));
        let (mut left, most) = (CACHED_ALL, CACHED);
        let kept = recent.iter().take(most).take_while(|(.., plain)| {
            let fits = plain.len() <= left;
            left = left.saturating_sub(plain.len());
            fits
        });
        let kept = kept.count();
        recent.truncate(kept);
    }

    /// Lets go of the footers, outlines and segments that were kept in memory. Whoever has followed all trees and
    /// recipes needs other ones next, or none, and room for other things. What is asked for later is read again.
    pub fn let_go(&self) {
        self.packs.forget();
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.outlines.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The bytes stored under `id`. Data is checked against its id; trees and recipes are by whoever resolves them.
    pub fn chunk(&self, content: Content, id: ChunkId) -> Result<Vec<u8>> {
        self.chunk_at_depth(content, id, MAX_DEPTH, &mut 0)
    }

    /// Where the index says that `id` lies, with what it has of that pack. To believe it takes what
    /// [`Self::quick_chunk`] does.
    pub(super) fn hint(&self, id: ChunkId) -> Option<(Arc<Pack>, Location)> {
        let at = self.index.find(id)?;
        if let Some(pack) = self.packs.opened(at.pack) {
            return Some((pack, at));
        }
        let mut outlines = self.outlines.lock().unwrap_or_else(PoisonError::into_inner);
        let pack = outlines.get(at.pack).unwrap_or_else(|| {
            let outline = self.index.outline(at.pack);
            let pack = outline.map(|(salt, size, footer)| Arc::new(self.packs.outlined(at.pack, size, salt, footer)));
            outlines.put(at.pack, pack.clone(), pack.as_ref().map_or(64, |pack| pack.cost()));
            pack
        });
        Some((pack?, at))
    }

    /// The bytes of a chunk that lies at most `allowed` deep, by the index alone: a footer lists all chunks of a pack,
    /// and to read it for one of them costs more than that one. Whether the index is right shows in what is found: it
    /// opens under the pack's key and number, and has the id that was asked for, or nothing is answered (I6). Of
    /// metadata the id is that of the whole form, and held against it by whoever resolves it.
    pub(super) fn quick_chunk(&self, content: Content, id: ChunkId, allowed: u8, spent: &mut u64) -> Option<Vec<u8>> {
        let (pack, at) = self.hint(id)?;
        let entry = pack.footer.segments.get(at.segment as usize)?;
        let span = entry.span(at.nth as usize).filter(|_| entry.content == content && entry.depth <= allowed)?;
        let plain = if let Some(plain) = self.recent(pack.id, at.segment as usize) {
            plain
        } else {
            let mut prefix = Vec::new();
            for base in &entry.bases {
                *spent += u64::from(entry.plain);
                let below = entry.depth.checked_sub(1).filter(|_| *spent <= MAX_WORK)?;
                prefix.extend(self.quick_chunk(Content::Data, *base, below, spent)?);
                if prefix.len() > MAX_BASE {
                    return None;
                }
            }
            let plain = Arc::new(self.packs.segment(&pack, at.segment as usize, &prefix).ok()?);
            self.keep(pack.id, at.segment as usize, plain.clone());
            plain
        };
        let bytes = plain.get(span)?;
        (content != Content::Data || self.packs.keys().chunk_id(bytes) == id).then(|| bytes.to_vec())
    }

    /// Every copy of `id` that can be read, wherever it lies. A tree or a recipe may be there twice: as a patch whose
    /// base was lost, and whole, since it was stored again for that. Looks at all footers.
    pub fn copies(&self, content: Content, id: ChunkId) -> Vec<Vec<u8>> {
        let all = self.all(id).into_iter();
        all.filter_map(|(pack, at)| self.chunk_there(content, id, &pack, at, &mut 0).ok()).collect()
    }

    /// The bytes of a chunk of data from any copy that is sound: for when the one that is known is not. Looks at all
    /// footers.
    pub fn sound_copy(&self, id: ChunkId) -> Option<Vec<u8>> {
        let mut all = self.all(id).into_iter();
        all.find_map(|(pack, at)| self.chunk_there(Content::Data, id, &pack, at, &mut 0).ok())
    }

    /// The chunk, from a copy that lies at most `allowed` deep: there may be another that builds on the very segment
    /// that it is wanted for. If the one that the index knows lies deeper, or is damaged, from any other.
    fn chunk_at_depth(&self, content: Content, id: ChunkId, allowed: u8, spent: &mut u64) -> Result<Vec<u8>> {
        let is_above = |pack: &Pack, at: Location| pack.footer.segments[at.segment as usize].depth <= allowed;
        if let Some(bytes) = self.quick_chunk(content, id, allowed, spent) {
            return Ok(bytes);
        }
        let (pack, at) = self.locate(id)?;
        let first = if is_above(&pack, at) {
            self.chunk_there(content, id, &pack, at, spent)
        } else {
            Err(Error::integrity(format!("chunk {id} is built on by a segment that lies no deeper"))
                .at(self.place(&pack)))
        };
        first.or_else(|error| {
            if !error.is_integrity() {
                return Err(error);
            }
            let others = self.all(id).into_iter().filter(|(pack, other)| *other != at && is_above(pack, *other));
            let mut read = others.map(|(pack, other)| self.chunk_there(content, id, &pack, other, spent));
            read.find_map(Result::ok).ok_or(error)
        })
    }

    fn all(&self, id: ChunkId) -> Vec<(Arc<Pack>, Location)> {
        self.survey(id).iter().filter_map(|(_, at)| Some((self.packs.open(at.pack).ok()?, *at))).collect()
    }

    pub(super) fn chunk_there(
        &self,
        content: Content,
        id: ChunkId,
        pack: &Pack,
        at: Location,
        spent: &mut u64,
    ) -> Result<Vec<u8>> {
        let damaged = |why: &str| Error::integrity(format!("chunk {id} {why}")).at(self.place(pack));
        let plain = self.segment_for(pack, at.segment as usize, spent)?;
        let entry = &pack.footer.segments[at.segment as usize];
        let span = entry.span(at.nth as usize).filter(|_| entry.content == content);
        let bytes = span.and_then(|span| plain.get(span)).ok_or_else(|| damaged("is not what it should be"))?;
        if content == Content::Data && self.packs.keys().chunk_id(bytes) != id {
            return Err(damaged("has other content than its id says"));
        }
        Ok(bytes.to_vec())
    }
}
