//! What builds on what: segments that hold a chunk as the difference from an earlier one, and where that ends.
//!
//! Such a segment names one base, which lies in another segment, which may name one in turn; the last of them, the
//! **root**, names none and holds many chunks. Whoever opens many segments opens those with one root in a row: then the
//! root is decompressed once, and each step of the way as well, however many versions of a page the store has.

use std::collections::HashMap;

use rayon::prelude::*;

use super::Location;
use super::catalog::Catalog;
use crate::error::Result;
use crate::id::{ChunkId, PackId};
use crate::store::reader::Pack;
use crate::store::segment::{Content, MAX_DEPTH};

/// A segment by its pack and its number there.
pub type Root = (PackId, u32);

impl Catalog {
    /// The segment that all of `number` of `pack` rests on in the end: itself, if it names no base. One that names
    /// several, or whose base is not to be found, counts as its own. This is about order only, so hints will do.
    pub fn root(&self, pack: &Pack, number: u32) -> Root {
        let mut at = (pack.id, number);
        let mut base = single_base(pack, number);
        for _ in 0..MAX_DEPTH {
            let Some((pack, location)) = base.and_then(|id| self.hint(id)) else { return at };
            at = (location.pack, location.segment);
            base = single_base(&pack, location.segment);
        }
        at
    }

    /// [`Self::root`], if that is known and no segment on the way to it was found damaged.
    fn sound_root(&self, pack: &Pack, mut at: Location) -> Option<Root> {
        let bases = |pack: &Pack, at: &Location| Some(pack.footer.segments.get(at.segment as usize)?.bases.len());
        let (mut left, mut base) = (bases(pack, &at)?, single_base(pack, at.segment));
        for _ in 0..=MAX_DEPTH {
            if self.index().is_damaged(&at) {
                return None;
            }
            if left == 0 {
                return Some((at.pack, at.segment));
            }
            let (pack, next) = self.hint(base?)?;
            at = next;
            (left, base) = (bases(&pack, &at)?, single_base(&pack, at.segment));
        }
        None
    }

    /// Opens those of `wanted` that a delta may build on, with the depth that it then has, and gives them to `act`, on
    /// all cores. Answers what that said, in the order of `wanted`. Left out is what the index does not find, or what
    /// is not sound, or lies `deepest` deep already: then whoever asks stores the new chunk by itself.
    ///
    /// That each base was opened, and gave its id, at the time when something came to build on it, is what keeps rot in
    /// an old pack from spreading into new ones (I20).
    pub fn with_bases<T: Send>(
        &self,
        wanted: &[ChunkId],
        deepest: u8,
        act: impl Fn(usize, &[u8], u8) -> T + Sync,
    ) -> Vec<Option<T>> {
        let place = |(nth, id): (usize, &ChunkId)| -> Option<(Root, u8, usize)> {
            let (pack, at) = self.hint(*id)?;
            let depth = pack.footer.segments.get(at.segment as usize)?.depth;
            (depth < deepest).then_some(())?;
            Some((self.sound_root(&pack, at)?, depth, nth))
        };
        let mut places: Vec<(Root, u8, usize)> = wanted.iter().enumerate().filter_map(place).collect();
        places.sort_unstable();
        let families: Vec<_> = places.chunk_by(|a, b| a.0 == b.0).collect();
        let one = |&(_, depth, nth): &(Root, u8, usize)| {
            let plain = self.quick_chunk(Content::Data, wanted[nth], depth, &mut 0)?;
            Some((nth, act(nth, &plain, depth + 1)))
        };
        let opened: Vec<(usize, T)> =
            families.par_iter().flat_map_iter(|family| family.iter().filter_map(one)).collect();
        let mut answers: Vec<Option<T>> = wanted.iter().map(|_| None).collect();
        for (nth, answer) in opened {
            answers[nth] = Some(answer);
        }
        answers
    }
}

/// Items that each need one segment, in the order in which they are best opened.
pub struct Families<T> {
    items: Vec<(Root, u8, T)>,
}

/// Puts `items` in order; `segment` says which segment of which pack each needs. Roots come in the order in which their
/// first items do.
pub fn families<'p, T: Send + Sync>(
    catalog: &Catalog,
    items: Vec<T>,
    segment: impl Fn(&T) -> (&'p Pack, u32) + Sync,
) -> Families<T> {
    let key = |item: T| {
        let (pack, number) = segment(&item);
        let depth = pack.footer.segments.get(number as usize).map_or(0, |segment| segment.depth);
        let root = if depth == 0 { (pack.id, number) } else { catalog.root(pack, number) };
        (root, depth, item)
    };
    let mut items: Vec<_> = items.into_par_iter().map(key).collect();
    let mut first: HashMap<Root, usize> = HashMap::new();
    for (root, ..) in &items {
        let next = first.len();
        first.entry(*root).or_insert(next);
    }
    items.sort_by_key(|(root, depth, _)| (first[root], *depth));
    Families { items }
}

impl<T: Send + Sync> Families<T> {
    /// Does each item, those of one root in a row and those that lie less deep first, on all cores. Ends with the first
    /// error.
    pub fn run(&self, act: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
        let families: Vec<_> = self.items.chunk_by(|a, b| a.0 == b.0).collect();
        families.par_iter().try_for_each(|family| family.iter().try_for_each(|(.., item)| act(item)))
    }
}

fn single_base(pack: &Pack, number: u32) -> Option<ChunkId> {
    match pack.footer.segments.get(number as usize)?.bases.as_slice() {
        [base] => Some(*base),
        _ => None,
    }
}
