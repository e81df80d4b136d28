//! Pages held against those that the parent snapshot has, piece by piece.
//!
//! A piece is what stays close to a core until it is hashed. While one is hashed the next is read by another core, if
//! one is idle; if none is, the same core does both, and what it has read is still at hand. That is all there is to
//! who does what: with more files than cores each has one, and those that are left over help with the last.

use super::pieces::page_ids;
use super::save::Paged;
use super::tree::Content;
use crate::index::catalog::Catalog;
use crate::source::block::Block;

/// How much is read at a time, in bytes: a multiple of every page size.
const PIECE: usize = 256 * 1024;

/// What the parent snapshot has of a file.
pub(super) struct Expected {
    content: Content,
    page_size: u32,
    pages: u32,
}

impl Expected {
    /// Content of so many bytes, in pages of `page_size`, if it has so many that most of them stand in recipes.
    pub(super) fn of(content: &Content, size: u64, page_size: u32) -> Option<Expected> {
        let is_paged = matches!(content, Content::Recipes(_)) && size.is_multiple_of(u64::from(page_size));
        let pages = u32::try_from(size / u64::from(page_size)).ok().filter(|_| is_paged)?;
        Some(Expected { content: content.clone(), page_size, pages })
    }

    /// The same, to make other content of.
    pub(super) fn paged(&self) -> Paged<'_> {
        Paged { content: &self.content, page_size: self.page_size, pages: self.pages }
    }
}

/// Reads `all` pages, and hands `differs` each that is not what is `expected` where it stands, by its number, of which
/// the first is 1, in order. Nothing comes of it if something cannot be read, or `differs` says that this is enough.
pub(super) fn hold(
    catalog: &Catalog,
    expected: &Expected,
    all: u32,
    read: &mut (dyn FnMut(u64, &mut [u8]) -> Option<()> + Send),
    differs: &mut dyn FnMut(u32, &[u8]) -> bool,
) -> Option<()> {
    let keys = catalog.packs().keys();
    let page_size = expected.page_size as usize;
    let size = u64::from(all) * u64::from(expected.page_size);
    let length_at = |start: u64| (size - start).min(PIECE as u64) as usize;
    let (mut this, mut next) = (Block::new(PIECE), Block::new(PIECE));
    let (mut start, mut length) = (0, length_at(0));
    read(start, &mut this[..length])?;
    // Those that are expected next, the last first.
    let mut old = Vec::new();
    let (mut page, mut nth) = (0, 0);
    while length > 0 {
        let (behind, more) = (start + length as u64, length_at(start + length as u64));
        let piece = &this[..length];
        let read_next = || if more == 0 { Some(()) } else { read(behind, &mut next[..more]) };
        let (ids, got) = rayon::join(|| page_ids(keys, piece, page_size), read_next);
        got?;
        for (id, span) in ids.into_iter().zip(piece.chunks(page_size)) {
            if old.is_empty() && page < expected.pages {
                old = expected.paged().piece(catalog, nth)?.0;
                old.reverse();
                nth += 1;
            }
            page += 1;
            if old.pop() != Some(id) && !differs(page, span) {
                return None;
            }
        }
        std::mem::swap(&mut this, &mut next);
        (start, length) = (behind, more);
    }
    Some(())
}
