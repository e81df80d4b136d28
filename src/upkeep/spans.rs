//! Which snapshot is the first that needs a chunk, and which is the last.
//!
//! Each snapshot is held against the one before it of the same data directory, and only where they differ is anything
//! looked at: what stands at a place now and did not before **came** with the later one, and what does not stand there
//! any more was there **last** in the earlier one. After the newest, all that is in it goes. A chunk can stand at many
//! places, at each for some time; the earliest coming and the latest going of all are its span. Where both are the same
//! snapshot, no other needs it: it would have come earlier or gone later.
//!
//! A [`mark`](super::mark) would not do: it looks at nothing twice, so it tells what comes first and not what goes
//! last; and one from the newest back would resolve every version of a directory from far away, since patches lead
//! forward.

use std::collections::{HashMap, HashSet};

use super::survey::{Place, Survey};
use crate::error::Result;
use crate::id::{ChunkId, RecipeId, TreeId};
use crate::index::catalog::Catalog;
use crate::snapshot::meta::Recent;
use crate::snapshot::recipe::Recipe;
use crate::snapshot::record::Record;
use crate::snapshot::tree::{Content, Node, Tree};
use crate::source::walk::DEEPEST;

/// Stands for no snapshot.
pub const NOBODY: u32 = u32::MAX;

/// The spans of all chunks, each by its first copy. Snapshots are counted from 0, as they were given.
pub struct Spans {
    /// The first that needs it, or [`NOBODY`].
    pub first: Vec<u32>,
    /// The last that does, if any.
    pub last: Vec<u32>,
    /// Whether all that the snapshots need was found and could be followed.
    pub complete: bool,
}

/// A snapshot by its number, and its directory.
type Side = Option<(u32, TreeId)>;

struct Walk<'a> {
    catalog: &'a Catalog,
    survey: &'a Survey,
    trees: Recent<Tree>,
    recipes: Recent<Recipe>,
    /// Directories and recipes that were held against each other for these two snapshots.
    done: HashSet<(Option<ChunkId>, Option<ChunkId>)>,
    earlier: u32,
    later: u32,
    spans: Spans,
}

/// Finds the spans of all chunks that `records` need, which come oldest first.
pub fn spans<'r>(catalog: &Catalog, survey: &Survey, records: impl Iterator<Item = &'r Record>) -> Result<Spans> {
    let spans = Spans { first: vec![NOBODY; survey.len()], last: vec![0; survey.len()], complete: true };
    let mut walk = Walk {
        catalog,
        survey,
        trees: Recent::default(),
        recipes: Recent::default(),
        done: HashSet::new(),
        earlier: NOBODY,
        later: NOBODY,
        spans,
    };
    let mut newest: HashMap<&str, (u32, TreeId)> = HashMap::new();
    for (number, record) in (0..).zip(records) {
        let this = (number, record.tree);
        let before = newest.insert(&record.source, this);
        walk.step(before, Some(this))?;
    }
    for last in newest.into_values() {
        walk.step(Some(last), None)?;
    }
    Ok(walk.spans)
}

/// Both sides of a list, side by side, to the end of the longer one.
fn paired<'s, T>(old: &'s [T], new: &'s [T]) -> impl Iterator<Item = (Option<&'s T>, Option<&'s T>)> {
    (0..old.len().max(new.len())).map(|nth| (old.get(nth), new.get(nth)))
}

impl Walk<'_> {
    fn step(&mut self, old: Side, new: Side) -> Result<()> {
        self.earlier = old.map_or(NOBODY, |(number, _)| number);
        self.later = new.map_or(NOBODY, |(number, _)| number);
        self.done.clear();
        self.tree(old.map(|(_, tree)| tree), new.map(|(_, tree)| tree), 0)
    }

    fn tree(&mut self, old: Option<TreeId>, new: Option<TreeId>, depth: usize) -> Result<()> {
        if old == new || !self.done.insert((old.map(Into::into), new.map(Into::into))) {
            return Ok(());
        }
        if depth > DEEPEST + 1 {
            self.spans.complete = false;
            return Ok(());
        }
        self.chunk(old.map(Into::into), new.map(Into::into));
        let old = self.loaded(old, |walk, id| walk.trees.load(walk.catalog, id))?;
        let new = self.loaded(new, |walk, id| walk.trees.load(walk.catalog, id))?;
        let mut old = old.iter().flat_map(|tree| &tree.value.entries).peekable();
        let mut new = new.iter().flat_map(|tree| &tree.value.entries).peekable();
        // Both are in the order of their names.
        loop {
            let (a, b) = match (old.peek(), new.peek()) {
                (None, None) => return Ok(()),
                (Some(a), Some(b)) if a.name == b.name => (old.next(), new.next()),
                (Some(a), Some(b)) if a.name > b.name => (None, new.next()),
                (None, Some(_)) => (None, new.next()),
                (Some(_), _) => (old.next(), None),
            };
            self.node(a.map(|entry| &entry.node), b.map(|entry| &entry.node), depth)?;
        }
    }

    fn node(&mut self, old: Option<&Node>, new: Option<&Node>, depth: usize) -> Result<()> {
        if old == new {
            return Ok(());
        }
        let directory = |node: Option<&Node>| match node {
            Some(Node::Directory(id)) => Some(*id),
            _ => None,
        };
        self.tree(directory(old), directory(new), depth + 1)?;
        for (old, new) in paired(chunks_of(old), chunks_of(new)) {
            self.chunk(old.map(|(_, id)| *id), new.map(|(_, id)| *id));
        }
        for (old, new) in paired(recipes_of(old), recipes_of(new)) {
            self.recipe(old.copied(), new.copied())?;
        }
        Ok(())
    }

    fn recipe(&mut self, old: Option<RecipeId>, new: Option<RecipeId>) -> Result<()> {
        if old == new || !self.done.insert((old.map(Into::into), new.map(Into::into))) {
            return Ok(());
        }
        self.chunk(old.map(Into::into), new.map(Into::into));
        let old = self.loaded(old, |walk, id| walk.recipes.load(walk.catalog, id))?;
        let new = self.loaded(new, |walk, id| walk.recipes.load(walk.catalog, id))?;
        let old = old.as_ref().map_or(&[][..], |recipe| &recipe.value.ids);
        let new = new.as_ref().map_or(&[][..], |recipe| &recipe.value.ids);
        for (old, new) in paired(old, new) {
            self.chunk(old.copied(), new.copied());
        }
        Ok(())
    }

    /// The chunk `old` stood where now `new` does.
    fn chunk(&mut self, old: Option<ChunkId>, new: Option<ChunkId>) {
        if old == new {
            return;
        }
        if let Some(first) = old.and_then(|id| self.found(id)) {
            let last = &mut self.spans.last[first as usize];
            *last = self.earlier.max(*last);
        }
        if let Some(first) = new.and_then(|id| self.found(id)) {
            let first = &mut self.spans.first[first as usize];
            *first = self.later.min(*first);
        }
    }

    fn found(&mut self, id: ChunkId) -> Option<Place> {
        if id == ChunkId::ZEROS {
            return None;
        }
        let first = self.survey.find(id);
        self.spans.complete &= first.is_some();
        first
    }

    /// What `load` gives; nothing if it is damaged, which is noted. Any other error ends the walk.
    fn loaded<I, T>(&mut self, id: Option<I>, load: impl FnOnce(&mut Self, I) -> Result<T>) -> Result<Option<T>> {
        let Some(id) = id else { return Ok(None) };
        match load(self, id) {
            Ok(version) => Ok(Some(version)),
            Err(error) if error.is_integrity() => {
                self.spans.complete = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn chunks_of(node: Option<&Node>) -> &[(u32, ChunkId)] {
    match node {
        Some(Node::File { content: Content::Chunks(chunks), .. }) => chunks,
        _ => &[],
    }
}

fn recipes_of(node: Option<&Node>) -> &[RecipeId] {
    match node {
        Some(Node::File { content: Content::Recipes(recipes), .. }) => recipes,
        _ => &[],
    }
}
