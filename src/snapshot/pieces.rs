//! What a block of a file is cut into: chunks, and their ids.
//!
//! Small ones are hashed side by side, and on all cores. Zeros have an id of their own, whatever their length.

use rayon::prelude::*;

use crate::chunk::{Cut, Cutter};
use crate::crypto::keys::Keys;
use crate::id::ChunkId;

/// So many chunks are hashed by one thread at a time.
const PART: usize = 64;

/// What a block is cut into.
#[derive(Default)]
pub(super) struct Pieces {
    pub(super) lengths: Vec<usize>,
    pub(super) ids: Vec<ChunkId>,
}

impl Pieces {
    pub(super) fn of(cutter: &Cutter, keys: &Keys, cut: Cut, block: &[u8], last: bool) -> Pieces {
        let lengths = match cut {
            Cut::Content => cutter.cuts(block, last),
            Cut::Pages(page) => pages(block.len(), page as usize, last),
        };
        let spans = spans(block, &lengths);
        let ids = |part: &[&[u8]]| ids(keys, part);
        // As many as fill the lanes a few times over.
        let ids = match spans.len() {
            0..=PART => ids(&spans),
            _ => spans.par_chunks(PART).flat_map_iter(ids).collect(),
        };
        Pieces { lengths, ids }
    }
}

fn ids(keys: &Keys, part: &[&[u8]]) -> Vec<ChunkId> {
    let mut ids = keys.chunk_ids(part);
    let zeros = ids.iter_mut().zip(part).filter(|(_, span)| is_zero(span));
    zeros.for_each(|(id, _)| *id = ChunkId::ZEROS);
    ids
}

/// The ids of the pages in `bytes`, made by one thread.
pub(super) fn page_ids(keys: &Keys, bytes: &[u8], page_size: usize) -> Vec<ChunkId> {
    bytes.chunks(PART * page_size).flat_map(|part| ids(keys, &part.chunks(page_size).collect::<Vec<_>>())).collect()
}

/// Lengths and ids of the chunks of `block`, of which more may come if it is not the `last` of its file.
pub fn pieces(cutter: &Cutter, keys: &Keys, cut: Cut, block: &[u8], last: bool) -> (Vec<usize>, Vec<ChunkId>) {
    let Pieces { lengths, ids } = Pieces::of(cutter, keys, cut, block, last);
    (lengths, ids)
}

pub(super) fn spans<'b>(bytes: &'b [u8], lengths: &[usize]) -> Vec<&'b [u8]> {
    let mut rest = bytes;
    let mut next = |length: &usize| rest.split_off(..*length).unwrap_or_default();
    lengths.iter().map(&mut next).collect()
}

/// Lengths of the pages in `filled` bytes; the last piece of a file may end in a part of one.
fn pages(filled: usize, page: usize, last: bool) -> Vec<usize> {
    let mut lengths = vec![page; filled / page];
    if last && !filled.is_multiple_of(page) {
        lengths.push(filled % page);
    }
    lengths
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // The first bytes decide nearly always; the comparison with itself, shifted by one, is a memcmp.
    bytes.first().is_none_or(|first| *first == 0 && bytes[1..] == bytes[..bytes.len() - 1])
}
