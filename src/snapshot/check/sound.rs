//! Which copies of chunks are sound: in a segment that is what its footer says, and so is all that it builds on.
//!
//! A chunk may lie in several packs, and is sound if one copy is. A segment whose base is gone is **dangling**: nothing
//! is wrong with its own bytes. If no snapshot needs what is in it, it is waste, and worth no word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Checking;
use crate::id::{ChunkId, PackId};
use crate::store::reader::Pack;
use crate::store::segment::{Content, SegmentEntry};

/// A chunk by the footers.
pub(super) struct Chunk {
    pub(super) length: u32,
    pub(super) content: Content,
    /// How deep its best sound copy lies, or [`UNSOUND`].
    pub(super) depth: u8,
}

/// No copy is sound.
pub(super) const UNSOUND: u8 = u8::MAX;

/// Damaged segments, and what is wrong with each.
pub(super) type Bad = BTreeMap<(PackId, u32), String>;

type Segments = BTreeSet<(PackId, u32)>;

fn segments(packs: &[Arc<Pack>]) -> impl Iterator<Item = ((PackId, u32), &SegmentEntry)> {
    packs.iter().flat_map(|pack| {
        pack.footer.segments.iter().enumerate().map(|(number, segment)| ((pack.id, number as u32), segment))
    })
}

impl Checking<'_> {
    /// Finds how deep the best sound copy of each chunk lies, if the segments `bad` are not. Answers with those that
    /// dangle: they build on what has no sound copy above them.
    pub(super) fn settle(&mut self, packs: &[Arc<Pack>], bad: &Bad) -> Segments {
        let mut dangling = Segments::new();
        // Each round finds what builds on what the round before found: there are as many as it can be deep.
        loop {
            self.chunks.values_mut().for_each(|chunk| chunk.depth = UNSOUND);
            for (at, segment) in segments(packs) {
                if !bad.contains_key(&at) && !dangling.contains(&at) {
                    for id in segment.chunks.iter().map(|chunk| chunk.id) {
                        if let Some(chunk) = self.chunks.get_mut(&id) {
                            chunk.depth = chunk.depth.min(segment.depth);
                        }
                    }
                }
            }
            let more: Segments = segments(packs)
                .filter(|(at, segment)| !segment.bases.is_empty() && !dangling.contains(at))
                .filter(|(_, segment)| !segment.bases.iter().all(|base| self.is_above(*base, segment.depth)))
                .map(|(at, _)| at)
                .collect();
            if more.is_empty() {
                return dangling;
            }
            dangling.extend(more);
        }
    }

    fn is_above(&self, base: ChunkId, depth: u8) -> bool {
        base == ChunkId::ZEROS
            || self.chunks.get(&base).is_some_and(|chunk| chunk.content == Content::Data && chunk.depth < depth)
    }

    /// The same after segments were opened: of those that did not open, `found`, those are damaged that do not open by
    /// themselves. The others dangle, unless what they build on is sound. Damaged ones are added to `bad`.
    pub(super) fn settle_found(&mut self, packs: &[Arc<Pack>], bad: &mut Bad, found: Bad) -> Segments {
        let source = self.store.catalog().packs();
        let opens = |(pack, number): &(PackId, u32)| {
            let pack = packs.iter().find(|known| known.id == *pack);
            pack.is_some_and(|pack| {
                !pack.footer.segments[*number as usize].bases.is_empty() && source.coded(pack, *number as usize).is_ok()
            })
        };
        let (in_doubt, damaged): (Bad, Bad) = found.into_iter().partition(|(at, _)| opens(at));
        bad.extend(damaged.clone());
        let mut all = damaged;
        let mut dangling = self.settle(packs, bad);
        let wrong: Bad = in_doubt.into_iter().filter(|(at, _)| !dangling.contains(at)).collect();
        if !wrong.is_empty() {
            bad.extend(wrong.clone());
            all.extend(wrong);
            dangling = self.settle(packs, bad);
        }
        self.report.damaged.extend(all.into_keys());
        dangling
    }

    /// What is in damaged segments is lost, unless it also lies in a sound one: then the segment is worth a remark.
    pub(super) fn judge(&mut self, packs: &[Arc<Pack>], bad: &Bad) {
        for (at, why) in bad {
            let segment = packs.iter().find(|pack| pack.id == at.0).and_then(|p| p.footer.segments.get(at.1 as usize));
            let is_sound = |id: ChunkId| self.chunks.get(&id).is_some_and(|chunk| chunk.depth != UNSOUND);
            let place = self.place(at.0);
            if segment.is_some_and(|segment| segment.chunks.iter().all(|chunk| is_sound(chunk.id))) {
                self.report.remarks.push(format!("{place}: {why}; all that was in it is elsewhere too"));
            } else {
                self.report.add(3, place, why.clone());
            }
        }
    }

    /// Names what dangles and is needed, or may be, and what it builds on.
    pub(super) fn name_bases(&mut self, packs: &[Arc<Pack>], dangling: &Segments) {
        for (at, segment) in segments(packs).filter(|(at, _)| dangling.contains(at)) {
            let needed = self.unknown || segment.chunks.iter().any(|chunk| self.lost.contains(&chunk.id));
            let base = segment.bases.iter().find(|base| !self.is_above(**base, segment.depth));
            if let (true, Some(base)) = (needed, base) {
                let holds = |(_, other): &(_, &SegmentEntry)| other.chunks.iter().any(|chunk| chunk.id == *base);
                let why = match segments(packs).find(holds) {
                    Some(((pack, number), _)) => format!("cannot be read: {}, segment {number}", self.place(pack)),
                    None => "is in no pack of this store".to_owned(),
                };
                self.report.add(5, self.place(at.0), format!("segment {} builds on chunk {base}, which {why}", at.1));
            }
        }
    }
}
