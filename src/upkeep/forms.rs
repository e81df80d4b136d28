//! How a chunk that is stored as the difference from another is written again.
//!
//! If what it builds on stays, it is copied as it is. Otherwise it is made the difference from what stood at its place
//! in the snapshot before that still exists, if that does not lie too deep; otherwise it is stored by itself.
//!
//! What builds on a chunk must lie deeper than it, and there is a limit to that. So these are settled together, each
//! after what it builds on, before anything is written. Two chunks that took turns at one place may each have been
//! stored as the difference from the other, once: whoever comes upon itself on the way is stored by itself.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::mark::Marked;
use super::survey::{NONE, Place, Survey};
use crate::store::segment::Content;

/// No difference is made that lies deeper, as in a snapshot.
const DEEPEST: u8 = 8;

/// How it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is, at this depth.
    AsIs(u8),
    /// As the difference from this chunk, at this depth.
    Against(Place, u8),
    /// By itself.
    Whole,
}

/// What it is settled by.
pub(super) struct Ground<'a> {
    pub(super) survey: &'a Survey,
    pub(super) marked: &'a Marked,
    /// The copy of each chunk that is kept, by its first copy, or [`NONE`].
    pub(super) chosen: &'a [Place],
    /// Packs that are written again.
    pub(super) rewrite: &'a BTreeSet<usize>,
    /// Chunks that cannot be read.
    pub(super) unsound: &'a HashSet<Place>,
}

impl Ground<'_> {
    fn is_rewritten(&self, copy: Place) -> bool {
        self.rewrite.contains(&self.survey.at(copy).0)
    }
}

/// Settles all differences that are kept and lie in packs that are written again, by their first copies.
pub(super) fn settle(ground: &Ground<'_>) -> HashMap<Place, Form> {
    let deltas: Vec<(Place, Place)> = ground
        .chosen
        .iter()
        .enumerate()
        .filter(|(_, copy)| **copy != NONE)
        .map(|(first, copy)| (first as Place, *copy))
        .filter(|(_, copy)| ground.survey.content(*copy) == Content::Data && ground.survey.depth(*copy) > 0)
        .collect();
    // Pinned is what something builds on that stays where it is, and what that builds on in turn.
    let mut pinned = HashSet::new();
    let outside = deltas.iter().filter(|(_, copy)| !ground.is_rewritten(*copy));
    let mut waiting: Vec<Place> = outside.flat_map(|(_, copy)| ground.survey.bases(*copy)).collect();
    while let Some(first) = waiting.pop() {
        let copy = ground.chosen[first as usize];
        if pinned.insert(first) && copy != NONE {
            waiting.extend(ground.survey.bases(copy));
        }
    }
    let mut settling = Settling { ground, pinned, forms: HashMap::new(), under_way: HashSet::new() };
    for (first, _) in deltas {
        settling.depth(first);
    }
    settling.forms
}

struct Settling<'a> {
    ground: &'a Ground<'a>,
    pinned: HashSet<Place>,
    forms: HashMap<Place, Form>,
    under_way: HashSet<Place>,
}

impl Settling<'_> {
    /// How deep the chunk will lie. Nothing if it is not kept, or is being settled: then whoever asks would build on
    /// itself.
    ///
    /// It calls itself along what builds on what, and along what came before what. The first is bounded by depth. The
    /// second is as long as there are snapshots: [`Self::before`] settles it from its far end.
    fn depth(&mut self, first: Place) -> Option<u8> {
        let ground = self.ground;
        let copy = Some(ground.chosen[first as usize]).filter(|copy| *copy != NONE)?;
        let old = ground.survey.depth(copy);
        if old == 0 || !ground.is_rewritten(copy) {
            return Some(old);
        }
        if let Some(form) = self.forms.get(&first) {
            return Some(match form {
                Form::AsIs(depth) | Form::Against(_, depth) => *depth,
                Form::Whole => 0,
            });
        }
        for earlier in self.before(first) {
            self.settle(earlier);
        }
        self.settle(first)
    }

    /// What came before `first` at its place and is not settled, the oldest first.
    fn before(&self, first: Place) -> Vec<Place> {
        let (mut chain, mut seen) = (Vec::new(), HashSet::new());
        let mut at = self.ground.marked.before[first as usize];
        while at != NONE && !self.forms.contains_key(&at) && !self.under_way.contains(&at) && seen.insert(at) {
            chain.push(at);
            at = self.ground.marked.before[at as usize];
        }
        chain.reverse();
        chain
    }

    /// Settles `first`, whose own earlier ones are settled.
    fn settle(&mut self, first: Place) -> Option<u8> {
        let ground = self.ground;
        let copy = Some(ground.chosen[first as usize]).filter(|copy| *copy != NONE)?;
        let old = ground.survey.depth(copy);
        if old == 0 || !ground.is_rewritten(copy) {
            return Some(old);
        }
        if !self.forms.contains_key(&first) {
            if !self.under_way.insert(first) {
                return None;
            }
            let form = self.form(first, copy, old);
            self.under_way.remove(&first);
            self.forms.insert(first, form);
        }
        self.depth(first)
    }

    fn form(&mut self, first: Place, copy: Place, old: u8) -> Form {
        let ground = self.ground;
        if ground.unsound.contains(&first) {
            return Form::AsIs(old);
        }
        let most = if self.pinned.contains(&first) { old } else { DEEPEST.max(old) };
        let bases = ground.survey.bases(copy);
        if !bases.is_empty() {
            let depths: Option<Vec<u8>> = bases.iter().map(|base| self.depth(*base)).collect();
            let least = depths.and_then(|depths| depths.into_iter().max()).map(|depth| depth + 1);
            if let Some(depth) = least.filter(|least| *least <= most) {
                return Form::AsIs(depth);
            }
        }
        let before = ground.marked.before[first as usize];
        let least = (before != NONE).then(|| self.depth(before)).flatten().map(|depth| depth + 1);
        match least.filter(|least| *least <= most.min(DEEPEST)) {
            Some(depth) => Form::Against(before, depth),
            None => Form::Whole,
        }
    }
}
