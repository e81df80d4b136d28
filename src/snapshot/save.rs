//! Content into the store: what is new becomes chunks in packs, what is known becomes its id.
//!
//! A [`Session`] is the writing side of one snapshot. Its caller hands it a reader for each changed file; it cuts,
//! hashes on all cores, asks the catalog what is known, gives the rest to the sink, and answers with the file's
//! [`Content`].
//!
//! Two kinds of error leave this room apart: what the *reader* says is about that file ([`Failure::Source`]), and
//! everything else is about the store and ends the snapshot ([`Failure::Store`]).

mod changed;

use std::borrow::Cow;
use std::collections::HashSet;

use super::ahead::{Ahead, Reader};
use super::delta::{self, Fresh};
use super::meta::{self, Version, Versioned};
use super::pieces::{Pieces, spans};
use super::recipe::{Lengths, MOST, Recipe};
use super::tree::Content;
use crate::chunk::{CONTENT, Cut, Cutter};
use crate::error::{Error, Result};
use crate::id::{ChunkId, RecipeId};
use crate::index::catalog::{Catalog, Presence};
use crate::source::block::Block;
use crate::store::segment;
use crate::store::sink::{Delta, PackSink};

pub use changed::{Paged, ReadPage};

/// How much of a file is read at a time, in bytes: a multiple of every page size.
const BLOCK: usize = 2 * 1024 * 1024;
/// What a block may leave over: less than the largest chunk and than any page, in bytes. What is read behind it begins
/// with a page of memory, as the block does.
const ROOM: usize = CONTENT.2;
/// So many bytes of new chunks of a file wait until deltas are made of them, on all cores: in one block there are few.
const WAITING: usize = 1024 * 1024;
/// Up to this many chunks are listed in the tree itself.
const INLINE: usize = 8;

/// Why a file's content was not saved.
#[derive(Debug)]
pub enum Failure {
    /// It could not be read.
    Source(std::io::Error),
    /// The store failed.
    Store(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Store(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Source(error)
    }
}

/// Reads a file in order: fills the buffer, or less of it at the end.
pub type ReadBlock<'a> = dyn FnMut(&mut [u8]) -> std::io::Result<usize> + 'a;

/// The writing side of one snapshot.
pub struct Session<'a> {
    catalog: &'a Catalog,
    /// Where new chunks go.
    pub sink: PackSink,
    fresh: HashSet<ChunkId>,
    cutter: Cutter,
    blocks: [Block; 2],
    /// Chunks of the file that is saved that have a version before, and what came with them.
    waiting: Vec<Fresh<'static>>,
    /// Whether what the parent snapshot names is known to be there, without looking.
    trust_parent: bool,
    /// Where what is saved differs from the parent's, if anybody asked ([`Session::watch`]).
    differing: Option<Vec<u32>>,
    /// Chunks of data that were stored.
    pub new_chunks: u64,
    /// Their bytes.
    pub new_bytes: u64,
}

/// Collects ids into recipes of bounded size.
struct Collector<'b> {
    unit: Option<u32>,
    size: u64,
    lengths: Vec<u32>,
    ids: Vec<ChunkId>,
    done: Vec<RecipeId>,
    before: Before<'b>,
}

/// The version of the file in the parent snapshot.
enum Before<'b> {
    None,
    Chunks(&'b [(u32, ChunkId)]),
    Recipes(&'b [RecipeId], Option<Version<Recipe>>),
}

impl<'a> Session<'a> {
    /// A session that asks `catalog` and stores through `sink`.
    pub fn new(catalog: &'a Catalog, sink: PackSink, trust_parent: bool) -> Self {
        let cutter = Cutter::new(catalog.packs().keys().chunker_seed());
        let (fresh, blocks, waiting) = (HashSet::new(), Default::default(), Vec::new());
        let differing = None;
        Session { catalog, sink, fresh, cutter, blocks, waiting, trust_parent, differing, new_chunks: 0, new_bytes: 0 }
    }

    /// Saves what `read` gives until it gives less than it was asked for. `before` is the file's content in the parent
    /// snapshot.
    pub fn save(
        &mut self,
        cut: Cut,
        before: Option<&Content>,
        read: &mut ReadBlock<'_>,
    ) -> Result<(u64, Content), Failure> {
        let mut collector = Collector::new(cut, before);
        let mut blocks = std::mem::take(&mut self.blocks);
        let result = self.save_blocks(cut, &mut collector, &mut blocks, read);
        self.blocks = blocks;
        // Also of what could not be read to its end: these count as stored.
        self.store_waiting()?;
        result?;
        Ok(self.finish(collector)?)
    }

    /// Whether what the parent snapshot names is known to be there.
    pub(super) fn trusts_parent(&self) -> bool {
        self.trust_parent
    }

    /// What reads files ahead of their turn, on other cores.
    pub(super) fn ahead(&self) -> Reader<'_> {
        Reader { cutter: &self.cutter, keys: self.catalog.packs().keys() }
    }

    /// Saves a file that was read, cut and hashed ahead.
    pub(super) fn save_ahead(&mut self, ahead: Ahead, before: Option<&Content>) -> Result<(u64, Content)> {
        let Ahead { bytes, cut, pieces, .. } = ahead;
        let mut collector = Collector::new(cut, before);
        let all = pieces.ids.len();
        self.save_pieces(&bytes, pieces, all, &mut collector)?;
        self.store_waiting()?;
        self.finish(collector)
    }

    /// Reads one block while the one before it is cut and hashed on the other cores. What a block leaves over is put in
    /// front of the next one, which leaves room for it.
    fn save_blocks(
        &mut self,
        cut: Cut,
        collector: &mut Collector<'_>,
        blocks: &mut [Block; 2],
        read: &mut ReadBlock<'_>,
    ) -> Result<(), Failure> {
        let [this, next] = blocks;
        // Small files must not pay for a large block.
        let (mut start, mut want) = (ROOM, ROOM);
        let mut end = start + read(room(this, want))?;
        loop {
            let last = end < ROOM + want;
            let block = &this[start..end];
            let keys = self.catalog.packs().keys();
            let (mut pieces, mut got) = (Pieces::default(), Ok(0));
            if last {
                pieces = Pieces::of(&self.cutter, keys, cut, block, last);
            } else {
                let cutter = &self.cutter;
                rayon::in_place_scope(|scope| {
                    scope.spawn(|_| pieces = Pieces::of(cutter, keys, cut, block, last));
                    got = read(room(next, BLOCK));
                });
            }
            let used = pieces.lengths.iter().sum();
            let all = pieces.ids.len();
            self.save_pieces(&block[..used], pieces, all, collector)?;
            if last {
                return Ok(());
            }
            let left = &block[used..];
            (start, want, end) = (ROOM - left.len(), BLOCK, ROOM + got?);
            next[start..ROOM].copy_from_slice(left);
            std::mem::swap(this, next);
        }
    }

    /// Saves pieces of a file, which were looked at together with others: `all` of them. Some of them may wait until
    /// [`Session::store_waiting`].
    fn save_pieces(&mut self, bytes: &[u8], pieces: Pieces, all: usize, collector: &mut Collector<'_>) -> Result<()> {
        let Pieces { lengths, ids } = pieces;
        let spans = spans(bytes, &lengths);
        let mut unknown = Vec::new();
        for (span, id) in spans.into_iter().zip(ids) {
            if collector.is_full() {
                self.end_recipe(collector)?;
            }
            let before = collector.next_before(self.catalog);
            let known = before == Some(id) && self.trust_parent;
            if let (Some(differing), false) = (&mut self.differing, before.is_none_or(|before| before == id)) {
                differing.push((collector.done.len() * MOST + collector.ids.len() + 1) as u32);
            }
            collector.push(span.len() as u32, id);
            if id != ChunkId::ZEROS && !known && self.fresh.insert(id) {
                unknown.push(Fresh { span: Cow::Borrowed(span), id, before });
            }
        }
        let looks = self.catalog.look_up(&unknown.iter().map(|chunk| chunk.id).collect::<Vec<_>>());
        let fresh: Vec<Fresh<'_>> = unknown
            .into_iter()
            .zip(looks)
            .filter(|(_, look)| *look != Presence::There)
            .map(|(chunk, look)| Fresh { before: chunk.before.filter(|_| look == Presence::New), ..chunk })
            .collect();
        if !delta::are_worth_it(&fresh, all) {
            return self.store(&fresh, Vec::new());
        }
        self.waiting.extend(fresh.into_iter().map(Fresh::into_owned));
        if self.waiting.iter().map(|chunk| chunk.span.len()).sum::<usize>() < WAITING {
            return Ok(());
        }
        self.store_waiting()
    }

    /// Stores the chunks that wait.
    fn store_waiting(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let deltas = delta::against(self.catalog, &waiting)?;
        self.store(&waiting, deltas)
    }

    /// Stores chunks that are new, as the `deltas` that there are of them.
    fn store(&mut self, fresh: &[Fresh<'_>], deltas: Vec<Option<Delta>>) -> Result<()> {
        let deltas = deltas.into_iter().chain(std::iter::repeat_with(|| None));
        for (Fresh { span, id, .. }, delta) in fresh.iter().zip(deltas) {
            match delta {
                Some(delta) => self.sink.add_delta(*id, span.len() as u32, delta)?,
                None => self.sink.add(segment::Content::Data, *id, span)?,
            }
            self.new_chunks += 1;
            self.new_bytes += span.len() as u64;
        }
        Ok(())
    }

    fn end_recipe(&mut self, collector: &mut Collector<'_>) -> Result<()> {
        let before = collector.take_before(self.catalog);
        let recipe = collector.take_recipe();
        let id = self.save_version(&recipe, before.as_ref())?;
        collector.done.push(id);
        Ok(())
    }

    fn finish(&mut self, mut collector: Collector<'_>) -> Result<(u64, Content)> {
        let size = collector.size;
        if collector.done.is_empty() && collector.ids.len() <= INLINE {
            let recipe = collector.take_recipe();
            let lengths: Vec<u32> = (0..recipe.ids.len()).map(|nth| recipe.length(nth)).collect();
            return Ok((size, Content::Chunks(lengths.into_iter().zip(recipe.ids).collect())));
        }
        if !collector.ids.is_empty() {
            self.end_recipe(&mut collector)?;
        }
        Ok((size, Content::Recipes(collector.done)))
    }

    /// Saves a tree or a recipe.
    pub fn save_version<T: Versioned>(&mut self, value: &T, before: Option<&Version<T>>) -> Result<T::Id> {
        let (id, stored) = meta::prepare(self.catalog, &mut self.fresh, value, before, self.trust_parent);
        if let Some(bytes) = stored {
            self.sink.add(T::CONTENT, id.into(), &bytes)?;
        }
        Ok(id)
    }
}

/// The part of a block that is read into.
fn room(block: &mut Block, want: usize) -> &mut [u8] {
    block.grow(ROOM + want);
    &mut block[ROOM..ROOM + want]
}

impl<'b> Collector<'b> {
    fn new(cut: Cut, before: Option<&'b Content>) -> Self {
        let unit = match cut {
            Cut::Pages(page) => Some(page),
            Cut::Content => None,
        };
        let before = match before {
            None => Before::None,
            Some(Content::Chunks(chunks)) => Before::Chunks(chunks),
            Some(Content::Recipes(recipes)) => Before::Recipes(recipes, None),
        };
        Collector { unit, size: 0, lengths: Vec::new(), ids: Vec::new(), done: Vec::new(), before }
    }

    fn is_full(&self) -> bool {
        self.ids.len() >= MOST
    }

    fn push(&mut self, length: u32, id: ChunkId) {
        self.size += u64::from(length);
        self.lengths.push(length);
        self.ids.push(id);
    }

    /// The recipe of the parent's version that stands where the current one does. What cannot be loaded is as good as
    /// not there: the data is at hand, and is stored again.
    fn version_before(&mut self, catalog: &Catalog) -> Option<&Version<Recipe>> {
        let nth = self.done.len();
        match &mut self.before {
            Before::Recipes(recipes, version) => {
                let id = *recipes.get(nth)?;
                if version.as_ref().is_none_or(|version| version.id != id) {
                    *version = meta::load_before(catalog, id).ok();
                }
                if version.is_none() {
                    self.before = Before::None;
                }
            }
            _ => return None,
        }
        match &self.before {
            Before::Recipes(_, version) => version.as_ref(),
            _ => None,
        }
    }

    fn next_before(&mut self, catalog: &Catalog) -> Option<ChunkId> {
        let nth = self.ids.len();
        match &self.before {
            Before::None => None,
            Before::Chunks(chunks) => chunks.get(self.done.len() * MOST + nth).map(|(_, id)| *id),
            Before::Recipes(..) => self.version_before(catalog)?.value.ids.get(nth).copied(),
        }
    }

    fn take_before(&mut self, catalog: &Catalog) -> Option<Version<Recipe>> {
        self.version_before(catalog)?;
        match &mut self.before {
            Before::Recipes(_, version) => version.take(),
            _ => None,
        }
    }

    fn take_recipe(&mut self) -> Recipe {
        let lengths = std::mem::take(&mut self.lengths);
        let size = lengths.iter().map(|length| u64::from(*length)).sum();
        let lengths = match self.unit {
            Some(unit) => Lengths::Fixed(unit),
            None => Lengths::Each(lengths),
        };
        Recipe { size, lengths, ids: std::mem::take(&mut self.ids) }
    }
}
