//! Content of which only some pages changed: made from the parent snapshot's, without looking at the others.
//!
//! What comes out is what [`Session::save`] makes of the whole image, id for id: recipes cover the same places, few
//! pages stand in the tree itself, and the pages that changed go through the same hands. Only recipes in which
//! something changed are loaded; the others keep their id.

use super::super::meta;
use super::super::recipe::{Lengths, MOST, Recipe};
use super::super::tree::Content;
use super::{BLOCK, Before, Collector, Failure, INLINE, Pieces, Session, room};
use crate::chunk::Cut;
use crate::error::Result;
use crate::id::ChunkId;
use crate::index::catalog::Catalog;

/// Reads one page, by its number, of which the first is 1.
pub type ReadPage<'a> = dyn FnMut(u32, &mut [u8]) -> std::io::Result<()> + 'a;

/// Content that consists of pages.
#[derive(Debug, Clone, Copy)]
pub struct Paged<'a> {
    /// The content.
    pub content: &'a Content,
    /// Bytes per page.
    pub page_size: u32,
    /// How many there are.
    pub pages: u32,
}

impl Paged<'_> {
    /// Whether content of so many pages has this form.
    fn is_sound(&self) -> bool {
        let pages = self.pages as usize;
        match self.content {
            Content::Chunks(chunks) => {
                chunks.len() == pages && pages <= INLINE && chunks.iter().all(|(length, _)| *length == self.page_size)
            }
            Content::Recipes(recipes) => recipes.len() == pages.div_ceil(MOST) && pages > INLINE,
        }
    }

    /// The `nth` recipe's pages, and the version that they were loaded from.
    pub(in crate::snapshot) fn piece(
        &self,
        catalog: &Catalog,
        nth: usize,
    ) -> Option<(Vec<ChunkId>, Option<meta::Version<Recipe>>)> {
        let recipe = match self.content {
            Content::Chunks(chunks) if nth == 0 => return Some((chunks.iter().map(|(_, id)| *id).collect(), None)),
            Content::Chunks(_) => return Some((Vec::new(), None)),
            Content::Recipes(recipes) => recipes.get(nth),
        };
        let Some(id) = recipe else { return Some((Vec::new(), None)) };
        let version = meta::load_before::<Recipe>(catalog, *id).ok()?;
        let is_sound = version.value.lengths == Lengths::Fixed(self.page_size)
            && version.value.ids.len() == within(self.pages, nth)
            && version.value.size == within(self.pages, nth) as u64 * u64::from(self.page_size);
        is_sound.then(|| (version.value.ids.clone(), Some(version)))
    }
}

/// How many of so many pages are in the `nth` recipe.
fn within(pages: u32, nth: usize) -> usize {
    (pages as usize).saturating_sub(nth * MOST).min(MOST)
}

impl Session<'_> {
    /// Saves the content that `before` becomes if it is made `pages` pages long and those in `changed`, in order, are
    /// what `read` gives. Every page that is added must be among them, but for one that is zeros.
    ///
    /// Nothing comes of it if `before` is not what it should be, or cannot be loaded.
    pub fn save_changed(
        &mut self,
        before: Paged<'_>,
        pages: u32,
        changed: &[u32],
        read: &mut ReadPage<'_>,
    ) -> Result<Option<(u64, Content)>, Failure> {
        if !before.is_sound() {
            return Ok(None);
        }
        let size = u64::from(pages) * u64::from(before.page_size);
        let is_inline = pages as usize <= INLINE;
        let mut recipes = Vec::new();
        for nth in 0..(pages as usize).div_ceil(MOST).max(1) {
            let count = within(pages, nth);
            let first = nth * MOST;
            let from = changed.partition_point(|page| (*page as usize) <= first);
            let to = changed.partition_point(|page| (*page as usize) <= first + count);
            if let Content::Recipes(old) = before.content
                && let Some(old) = old.get(nth).filter(|_| from == to && count == within(before.pages, nth))
                && !is_inline
            {
                recipes.push(*old);
                continue;
            }
            let Some((mut ids, version)) = before.piece(self.catalog, nth) else { return Ok(None) };
            let known = ids.len().min(count);
            ids.resize(count, ChunkId::ZEROS);
            self.replace(before.page_size, &mut ids, known, first, &changed[from..to], read)?;
            if is_inline {
                let chunks = ids.into_iter().map(|id| (before.page_size, id)).collect();
                return Ok(Some((size, Content::Chunks(chunks))));
            }
            let bytes = count as u64 * u64::from(before.page_size);
            let recipe = Recipe { size: bytes, lengths: Lengths::Fixed(before.page_size), ids };
            recipes.push(self.save_version(&recipe, version.as_ref())?);
        }
        Ok(Some((size, Content::Recipes(recipes))))
    }

    /// Reads and saves the pages in `changed`, and puts their ids in place. `ids` begins behind page `first`; the first
    /// `known` of them are the parent's.
    fn replace(
        &mut self,
        page_size: u32,
        ids: &mut [ChunkId],
        known: usize,
        first: usize,
        changed: &[u32],
        read: &mut ReadPage<'_>,
    ) -> Result<(), Failure> {
        let length = page_size as usize;
        // What was looked at without reading it: all pages, unless most of them changed.
        let all = if changed.len() > ids.len() / 4 { 0 } else { ids.len() };
        for part in changed.chunks((BLOCK / length).max(1)) {
            let mut blocks = std::mem::take(&mut self.blocks);
            let bytes = room(&mut blocks[0], part.len() * length);
            let places: Vec<usize> = part.iter().map(|page| *page as usize - 1 - first).collect();
            for (page, into) in part.iter().zip(bytes.chunks_exact_mut(length)) {
                if let Err(error) = read(*page, into) {
                    // What was saved before it counts as stored.
                    self.store_waiting()?;
                    return Err(error.into());
                }
            }
            // Those that the parent has not are the last.
            let old: Vec<_> = places.iter().filter(|at| **at < known).map(|at| (page_size, ids[*at])).collect();
            let none = Collector::new(Cut::Pages(page_size), None);
            let mut collector = Collector { before: Before::Chunks(&old), ..none };
            let pieces = Pieces::of(&self.cutter, self.catalog.packs().keys(), Cut::Pages(page_size), bytes, true);
            self.save_pieces(bytes, pieces, all, &mut collector)?;
            for (at, id) in places.into_iter().zip(&collector.ids) {
                ids[at] = *id;
            }
            self.blocks = blocks;
        }
        Ok(self.store_waiting()?)
    }

    /// From now on, the places at which what is saved differs from the parent's are kept.
    pub fn watch(&mut self) {
        self.differing = Some(Vec::new());
    }

    /// The chunks, counted from 1, at which what was saved since [`Session::watch`] differs from the parent's, as far
    /// as both go; in order.
    pub fn watched(&mut self) -> Vec<u32> {
        self.differing.take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
