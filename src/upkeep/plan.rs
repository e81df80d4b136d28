//! What `gc` is to do: which copies stay, which packs go, which are written again without what nobody needs.
//!
//! One copy of each chunk that a snapshot needs is **kept**: the one that rests on least. A copy that is stored as a
//! difference needs its base, and a patch the version that it is against, whether a snapshot needs those or not: what
//! is kept for that reason alone is **dead weight**. A pack without any kept copy goes. A pack that is mostly waste, or
//! one of many small ones, is written again. What is written again is freed of dead weight: a chunk is stored as the
//! difference from what stood at its place in the snapshot before that still exists, and trees and recipes likewise.
//!
//! **Depth.** What builds on a chunk must lie deeper than it. So a chunk that something builds on which is *not*
//! written again must not come to lie deeper than it did: it is **pinned** ([`super::forms`]).

use std::collections::{BTreeSet, HashMap, HashSet};

use super::forms::{self, Form, Ground};
use super::mark::Marked;
use super::survey::{NONE, Place, Survey};
use crate::error::Result;
use crate::id::PackId;
use crate::index::catalog::Catalog;
use crate::snapshot::meta::{Stored, Versioned};
use crate::snapshot::recipe::Recipe;
use crate::snapshot::tree::Tree;
use crate::store::segment::Content;

/// A pack is written again if this part of it is waste: one in so many bytes.
const WASTE: u64 = 4;
/// A pack below this size is small, in bytes.
const SMALL: u64 = 2 * 1024 * 1024;
/// So many small packs of about one size are put together.
const SWARM: usize = 8;
/// Versions that stand at one place are stored anew when dead weight comes to this part of them: one in so many.
const WEIGHT: usize = 4;

/// What to do. Packs are named by their place in the survey, chunks by their first copies.
pub struct Plan {
    /// Packs that nobody needs.
    pub gone: BTreeSet<usize>,
    /// Packs to write again.
    pub rewrite: BTreeSet<usize>,
    /// Those of them that are for their waste alone.
    wasted: BTreeSet<usize>,
    /// Whether each *copy* is to be kept.
    pub kept: Vec<bool>,
    /// How differences in packs that are written again are stored.
    pub forms: HashMap<Place, Form>,
    /// Trees and recipes to be stored anew, in their order, by the place where they stand.
    pub versions: Vec<Vec<Place>>,
    /// Bytes of packs that go or are written again.
    pub old_bytes: u64,
    /// About what of these is needed, in bytes.
    pub needed_bytes: u64,
    /// About what stays as waste in packs that are mostly needed, in bytes.
    pub left_bytes: u64,
}

/// How a copy of a tree or recipe is stored.
#[derive(Debug, Clone, Copy)]
enum Version {
    Whole,
    /// As a patch against this one.
    Patch(Place),
    /// It cannot be read, or its base is in no pack.
    Unreadable,
}

/// What the plan may do.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Packs that must not be written again: something in them could not be read.
    pub held: BTreeSet<PackId>,
    /// At most so many bytes are written again: that takes room.
    pub bytes: u64,
}

struct Planning<'a> {
    catalog: &'a Catalog,
    survey: &'a mut Survey,
    marked: &'a Marked,
    damaged: BTreeSet<(PackId, u32)>,
    /// Chunks that cannot be read, which is known: they are copied as they are, with what they build on.
    unsound: HashSet<Place>,
    /// How much of each pack snapshots need, in bytes.
    needed: Vec<u64>,
    /// The copy of each chunk that is kept, by its first copy, or [`NONE`].
    chosen: Vec<Place>,
    rewrite: BTreeSet<usize>,
}

/// How often a plan is made anew since packs in it were not worth it.
const ROUNDS: usize = 4;

/// Makes a plan.
pub fn plan(catalog: &Catalog, survey: &mut Survey, marked: &Marked, limits: &Limits) -> Result<Plan> {
    let mut full = BTreeSet::new();
    let mut round = 0;
    loop {
        round += 1;
        let mut plan = plan_without(catalog, survey, marked, limits, &full)?;
        // What is dead weight shows only when it is settled what is written again. A pack that is full with it would be
        // written again for nothing, and by every gc that comes.
        let kept =
            needed_bytes(catalog, survey, |first| survey.copies(first).filter(|copy| plan.kept[*copy as usize]))?;
        let is_full = |number: &usize| {
            let size = survey.packs[*number].size;
            plan.wasted.contains(number) && size.saturating_sub(kept[*number]) * WASTE <= size
        };
        let more: Vec<usize> = plan.rewrite.iter().copied().filter(is_full).collect();
        if more.is_empty() || round == ROUNDS {
            let of = |number: &usize| kept[*number].min(survey.packs[*number].size);
            plan.needed_bytes = plan.rewrite.iter().map(of).sum();
            return Ok(plan);
        }
        full.extend(more);
    }
}

/// Makes a plan in which the packs `full` are no waste.
fn plan_without(
    catalog: &Catalog,
    survey: &mut Survey,
    marked: &Marked,
    limits: &Limits,
    full: &BTreeSet<usize>,
) -> Result<Plan> {
    let needed =
        needed_bytes(catalog, survey, |first| survey.copies(first).filter(move |_| marked.live[first as usize]))?;
    let chosen = vec![NONE; survey.len()];
    let damaged = catalog.index().damaged().clone();
    let rewrite = BTreeSet::new();
    let unsound: HashSet<Place> = survey.unsound(&marked.live, &damaged).into_iter().collect();
    let mut planning = Planning { catalog, survey, marked, damaged, unsound, needed, chosen, rewrite };
    planning.choose_data();
    planning.weigh_copies()?;
    let wasted = planning.choose_packs(limits, full);
    let versions = planning.choose_versions()?;
    planning.weigh_data();
    let Planning { survey, chosen, mut rewrite, needed, unsound, .. } = planning;
    let forms = forms::settle(&Ground { survey, marked, chosen: &chosen, rewrite: &rewrite, unsound: &unsound });

    let anew: HashSet<Place> = versions.iter().flatten().copied().collect();
    let mut kept = vec![false; survey.len()];
    let mut in_use: BTreeSet<usize> = BTreeSet::new();
    for (first, copy) in chosen.iter().enumerate() {
        if *copy != NONE && !anew.contains(&(first as Place)) {
            kept[*copy as usize] = true;
            in_use.insert(survey.at(*copy).0);
        }
    }
    in_use.extend(survey.packs.iter().enumerate().filter(|(_, pack)| pack.is_wanted()).map(|(number, _)| number));
    rewrite.retain(|number| in_use.contains(number));
    let gone: BTreeSet<usize> = (0..survey.packs.len()).filter(|number| !in_use.contains(number)).collect();
    let size = |number: &usize| survey.packs[*number].size;
    let stays = |number: &usize| !gone.contains(number) && !rewrite.contains(number);
    Ok(Plan {
        old_bytes: gone.iter().chain(&rewrite).map(size).sum(),
        needed_bytes: 0,
        wasted,
        left_bytes: (0..survey.packs.len())
            .filter(stays)
            .map(|number| size(&number).saturating_sub(needed[number]))
            .sum(),
        gone,
        rewrite,
        kept,
        forms,
        versions,
    })
}

/// About how much of each pack is needed, in bytes: of each segment the part that its needed chunks are of it. `needed`
/// says which copies of a chunk are, by its first one.
fn needed_bytes<I: Iterator<Item = Place>>(
    catalog: &Catalog,
    survey: &Survey,
    needed: impl Fn(Place) -> I,
) -> Result<Vec<u64>> {
    let mut live: Vec<u64> = Vec::new();
    let mut first = 0;
    while (first as usize) < survey.len() {
        live.extend(needed(first).map(|copy| survey.order(copy)));
        first = survey.copies(first).last().unwrap_or(first) + 1;
    }
    live.sort_unstable();
    let mut needed = Vec::with_capacity(survey.packs.len());
    let mut at = 0;
    for number in 0..survey.packs.len() {
        let start = at;
        while at < live.len() && (live[at] >> 32) as usize == number {
            at += 1;
        }
        let wanted = survey.packs[number].is_wanted();
        if start == at && !wanted {
            needed.push(0);
            continue;
        }
        let pack = catalog.packs().read(survey.packs[number].id)?;
        let mut bytes = 0;
        for chunks in live[start..at].chunk_by(|a, b| a >> 16 == b >> 16) {
            let segment = &pack.footer.segments[(chunks[0] >> 16) as usize & 0xFFFF];
            let of = |at: &u64| u64::from(segment.chunks[*at as usize & 0xFFFF].length);
            let plain: u64 = chunks.iter().map(of).sum();
            bytes += u64::from(segment.stored) * plain / u64::from(segment.plain.max(1));
        }
        // Its part of the footer, and of the records.
        let all = pack.footer.chunks().count().max(1) as u64;
        let around = pack.size - pack.footer.segments.iter().map(|segment| u64::from(segment.stored)).sum::<u64>();
        needed.push(bytes + if wanted { around } else { around * (at - start) as u64 / all });
    }
    Ok(needed)
}

impl Planning<'_> {
    fn is_damaged(&self, copy: Place) -> bool {
        let (pack, segment, _) = self.survey.at(copy);
        self.damaged.contains(&(self.survey.packs[pack].id, segment as u32))
    }

    /// In what order copies are better: sound, less deep, in a pack of which clearly more is needed, in a larger one.
    /// So of packs that hold the same all copies are chosen from one, and the other goes.
    fn rank(&self, copy: Place) -> (bool, u8, std::cmp::Reverse<(u64, u64, u64)>) {
        let (pack, ..) = self.survey.at(copy);
        let size = self.survey.packs[pack].size.max(1);
        let eighths = (self.needed[pack] * 8 + size / 2) / size;
        let last = (eighths, size, self.survey.order(copy));
        (self.is_damaged(copy), self.survey.depth(copy), std::cmp::Reverse(last))
    }

    fn best(&self, first: Place) -> Place {
        self.survey.copies(first).min_by_key(|copy| self.rank(*copy)).unwrap_or(first)
    }

    fn choose_data(&mut self) {
        for first in 0..self.survey.len() as Place {
            if self.marked.live[first as usize] && self.survey.content(first) == Content::Data {
                let best = self.best(first);
                self.chosen[first as usize] = best;
            }
        }
    }

    /// Counts as needed one copy of each chunk only, if there are more of some. Else packs that were put together and
    /// could not be deleted, as their process ended or somebody read them, would be needed as much as the new ones.
    fn weigh_copies(&mut self) -> Result<()> {
        let is_live = |first: &Place| self.marked.live[*first as usize];
        let mut live = (0..self.survey.len() as Place).filter(is_live);
        if live.any(|first| self.survey.copies(first).nth(1).is_some()) {
            let one = |first: Place| {
                let chosen = Some(self.chosen[first as usize]).filter(|copy| *copy != NONE);
                is_live(&first).then(|| chosen.unwrap_or_else(|| self.best(first))).into_iter()
            };
            self.needed = needed_bytes(self.catalog, self.survey, one)?;
        }
        Ok(())
    }

    /// Which packs are written again: those with much waste, then swarms of small ones, up to the limit. Those in
    /// `full` have none that could be freed. Answers with the former.
    fn choose_packs(&mut self, limits: &Limits, full: &BTreeSet<usize>) -> BTreeSet<usize> {
        let may = |number: &usize| {
            let pack = &self.survey.packs[*number];
            !limits.held.contains(&pack.id) && !pack.has_ledger
        };
        let size = |number: usize| self.survey.packs[number].size;
        let waste = |number: usize| size(number).saturating_sub(self.needed[number]);
        let is_wasted = |number: &usize| waste(*number) * WASTE > size(*number) && !full.contains(number);
        let mut wasted: Vec<usize> = (0..self.survey.packs.len()).filter(may).filter(is_wasted).collect();
        wasted.sort_by_key(|number| std::cmp::Reverse(waste(*number)));
        // Each size has eight times that of the one below: so each byte is put together with others a few times only.
        let mut sizes: HashMap<u32, Vec<usize>> = HashMap::new();
        for number in (0..self.survey.packs.len()).filter(may) {
            if self.needed[number] > 0 && size(number) < SMALL {
                sizes.entry(size(number).max(1).ilog2() / 3).or_default().push(number);
            }
        }
        let swarms: Vec<usize> = sizes.into_values().filter(|swarm| swarm.len() >= SWARM).flatten().collect();
        let mut left = limits.bytes;
        let mut for_waste: BTreeSet<usize> = wasted.iter().copied().collect();
        for number in &swarms {
            for_waste.remove(number);
        }
        for number in wasted.into_iter().chain(swarms) {
            // What is dead weight is not known yet, and small.
            let cost = self.needed[number] + 1;
            if cost <= left && self.rewrite.insert(number) {
                left -= cost;
            }
        }
        for_waste
    }

    /// Whether the copy lies in a pack that is written again.
    fn is_rewritten(&self, copy: Place) -> bool {
        self.rewrite.contains(&self.survey.at(copy).0)
    }

    /// Chooses copies of trees and recipes, and which are stored anew since too much dead weight hangs on them.
    fn choose_versions(&mut self) -> Result<Vec<Vec<Place>>> {
        let forms = self.read_forms()?;
        self.choose_from(&forms);
        let anew = self.heavy_versions();
        self.weigh_versions(&anew);
        Ok(anew)
    }

    /// How all copies of trees and recipes are stored that snapshots need, or that those lead to.
    fn read_forms(&self) -> Result<HashMap<Place, Version>> {
        let mut waiting: Vec<Place> = (0..self.survey.len() as Place)
            .filter(|first| self.marked.live[*first as usize] && self.survey.content(*first) != Content::Data)
            .collect();
        let mut forms: HashMap<Place, Version> = HashMap::new();
        while !waiting.is_empty() {
            // Copies that lie side by side are read one after the other: then each segment is opened once.
            let mut copies: Vec<Place> = waiting.iter().flat_map(|first| self.survey.copies(*first)).collect();
            copies.sort_unstable_by_key(|copy| self.survey.order(*copy));
            let mut bases = Vec::new();
            for copy in copies {
                let form = self.read_form(copy)?;
                forms.insert(copy, form);
                if let Version::Patch(base) = form {
                    bases.push(base);
                }
            }
            bases.sort_unstable();
            bases.dedup();
            bases.retain(|base| !forms.contains_key(base));
            waiting = bases;
        }
        Ok(forms)
    }

    /// Chooses whole copies first, then patches against what was chosen, and so on: so nothing comes to rest on itself,
    /// though there may be copies of two versions that are patches against each other.
    fn choose_from(&mut self, forms: &HashMap<Place, Version>) {
        let mut on: HashMap<Place, Vec<Place>> = HashMap::new();
        let mut whole: Vec<Place> = Vec::new();
        for (copy, form) in forms {
            match form {
                Version::Whole => whole.push(*copy),
                Version::Patch(base) => on.entry(*base).or_default().push(*copy),
                Version::Unreadable => {}
            }
        }
        let mut settled: [Vec<Place>; 2] = [Vec::new(), Vec::new()];
        let choose = |planning: &mut Self, mut copies: Vec<Place>, settled: &mut [Vec<Place>; 2]| {
            copies.sort_unstable_by_key(|copy| (planning.rank(*copy), *copy));
            for copy in copies {
                let first = planning.survey.first(copy);
                if planning.chosen[first as usize] == NONE {
                    planning.chosen[first as usize] = copy;
                    if let Some(Version::Patch(base)) = forms.get(&copy) {
                        planning.survey.note_patch(copy, *base);
                    }
                    settled[usize::from(planning.marked.live[first as usize])].push(first);
                }
            }
        };
        choose(self, whole, &mut settled);
        // What rests on what snapshots need anyway comes before what rests on anything else.
        while let Some(base) = settled[1].pop().or_else(|| settled[0].pop()) {
            choose(self, on.remove(&base).unwrap_or_default(), &mut settled);
        }
        // What cannot be resolved stays as it is.
        for first in (0..self.survey.len() as Place).filter(|first| self.marked.live[*first as usize]) {
            if self.chosen[first as usize] == NONE {
                self.chosen[first as usize] = self.best(first);
            }
        }
    }

    /// How the tree or recipe at `copy` is stored.
    fn read_form(&self, copy: Place) -> Result<Version> {
        let (pack, segment, nth) = self.survey.at(copy);
        let read = || -> Result<Vec<u8>> {
            let pack = self.catalog.packs().open(self.survey.packs[pack].id)?;
            let plain = self.catalog.segment(&pack, segment)?;
            let span = pack.footer.segments[segment].span(nth);
            Ok(span.and_then(|span| plain.get(span)).map(<[u8]>::to_vec).unwrap_or_default())
        };
        match read() {
            Ok(bytes) => Ok(match self.survey.content(copy) {
                Content::Tree => self.base_in::<Tree>(&bytes),
                Content::Recipe => self.base_in::<Recipe>(&bytes),
                Content::Data => Version::Whole,
            }),
            Err(error) if error.is_integrity() => Ok(Version::Unreadable),
            Err(error) => Err(error),
        }
    }

    fn base_in<T: Versioned>(&self, bytes: &[u8]) -> Version {
        match Stored::<T>::parse(bytes) {
            Ok(Stored::Whole(_)) => Version::Whole,
            Ok(Stored::Patch { base, .. }) => self.survey.find(base.into()).map_or(Version::Unreadable, Version::Patch),
            Err(_) => Version::Unreadable,
        }
    }

    /// What the kept copy of a tree or recipe is a patch against.
    fn base_of(&self, first: Place) -> Option<Place> {
        let copy = Some(self.chosen[first as usize]).filter(|copy| *copy != NONE)?;
        self.survey.bases(copy).first().copied()
    }

    /// Places whose versions are stored anew: the dead ones that theirs are patches against are many.
    fn heavy_versions(&self) -> Vec<Vec<Place>> {
        let is_touched = |first: Place| self.is_rewritten(self.chosen[first as usize]);
        let mut heavy = Vec::new();
        for versions in self.marked.versions.values() {
            let mut dead = HashSet::new();
            let mut touched = false;
            for first in versions {
                let mut at = *first;
                touched |= is_touched(at);
                while let Some(base) = self.base_of(at) {
                    // The chain of what is alive is looked at in its own turn.
                    if self.marked.live[base as usize] || !dead.insert(base) {
                        break;
                    }
                    touched |= is_touched(base);
                    at = base;
                }
            }
            if touched && !dead.is_empty() && dead.len() * WEIGHT >= versions.len() {
                heavy.push(versions.clone());
            }
        }
        heavy.sort_unstable_by_key(|versions| versions.first().map(|first| self.survey.order(*first)));
        heavy
    }

    /// Keeps what versions are patches against, but for those that are stored anew.
    fn weigh_versions(&mut self, anew: &[Vec<Place>]) {
        let anew: HashSet<Place> = anew.iter().flatten().copied().collect();
        let mut kept = vec![false; self.chosen.len()];
        let is_version =
            |first: &usize| self.chosen[*first] != NONE && self.survey.content(*first as Place) != Content::Data;
        for first in (0..self.chosen.len()).filter(is_version) {
            if !self.marked.live[first] || anew.contains(&(first as Place)) {
                continue;
            }
            let mut at = first;
            while !std::mem::replace(&mut kept[at], true)
                && let Some(base) = self.base_of(at as Place).filter(|base| !anew.contains(base))
            {
                at = base as usize;
            }
        }
        let dead: Vec<usize> = (0..self.chosen.len())
            .filter(is_version)
            .filter(|first| !kept[*first] && !anew.contains(&(*first as Place)))
            .collect();
        for first in dead {
            self.chosen[first] = NONE;
        }
    }

    /// Keeps what differences build on that are not written again, and what that builds on in turn.
    fn weigh_data(&mut self) {
        let is_data = |copy: &&Place| **copy != NONE && self.survey.content(**copy) == Content::Data;
        let stays = |copy: &&Place| !self.is_rewritten(**copy) || self.unsound.contains(&self.survey.first(**copy));
        let mut waiting: Vec<Place> = self.chosen.iter().filter(is_data).filter(stays).copied().collect();
        while let Some(copy) = waiting.pop() {
            for base in self.survey.bases(copy) {
                if self.chosen[base as usize] == NONE {
                    let best = self.best(base);
                    self.chosen[base as usize] = best;
                    // Dead weight is copied as it is, wherever it lies, and so needs what it builds on.
                    waiting.push(best);
                }
            }
        }
    }
}
