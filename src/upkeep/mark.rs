//! What the snapshots lead to: every tree, recipe and chunk of data that one of them needs.
//!
//! Snapshots are followed from the oldest to the newest, and what one has in common with the one before is not looked
//! at again: a directory with the same id is the same, and of a recipe only those places are looked up that differ from
//! the recipe that stood there before. So a mark takes time in proportion to what changed over the years, not to what
//! all snapshots hold together.
//!
//! On the way it is noted what stood at each place before, for those who store something anew later on: of a chunk the
//! one that it may be the difference from, of a tree or recipe the versions in their order.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::survey::{NONE, Place, Survey};
use crate::error::Result;
use crate::id::{ChunkId, RecipeId, SnapshotId, TreeId};
use crate::index::catalog::Catalog;
use crate::snapshot::meta::Recent;
use crate::snapshot::recipe::Recipe;
use crate::snapshot::record::Record;
use crate::snapshot::tree::{Content, Node, Tree};
use crate::source::walk::DEEPEST;

/// Stands for a chunk of no large file.
pub const NO_FILE: u32 = 0;
/// Problems are named up to this number.
const MOST_NAMED: usize = 20;

/// A path in the data directory, by a hash. Two that share one cost bytes at worst: versions of the one are then stored
/// as differences from the other's.
type Where = u64;

/// What the snapshots need. All is said of the *first* copy of a chunk.
pub struct Marked {
    /// Whether a snapshot needs it.
    pub live: Vec<bool>,
    /// What stood at its place in the snapshot before the first that has it.
    pub before: Vec<Place>,
    /// The large file that it is of, counted from 1. Chunks of one file may share a segment.
    pub file: Vec<u32>,
    /// Trees and recipes, in the order in which they came to stand where they stand.
    pub versions: HashMap<Where, Vec<Place>>,
    /// Chunks that are needed and that no pack has.
    pub missing: HashSet<ChunkId>,
    /// Trees and recipes that could not be resolved: what they lead to is not known. With the snapshot that needs them.
    pub broken: Vec<(SnapshotId, String)>,
}

struct Marking<'a> {
    catalog: &'a Catalog,
    survey: &'a Survey,
    trees: Recent<Tree>,
    recipes: Recent<Recipe>,
    files: HashMap<Where, u32>,
    snapshot: SnapshotId,
    marked: Marked,
}

/// Marks what `records` need, which come oldest first.
pub fn mark<'r>(catalog: &Catalog, survey: &Survey, records: impl Iterator<Item = &'r Record>) -> Result<Marked> {
    let count = survey.len();
    let marked = Marked {
        live: vec![false; count],
        before: vec![NONE; count],
        file: vec![NO_FILE; count],
        versions: HashMap::new(),
        missing: HashSet::new(),
        broken: Vec::new(),
    };
    let mut marking = Marking {
        catalog,
        survey,
        trees: Recent::default(),
        recipes: Recent::default(),
        files: HashMap::new(),
        snapshot: SnapshotId([0; 16]),
        marked,
    };
    let mut newest: HashMap<&str, TreeId> = HashMap::new();
    for record in records {
        marking.snapshot = record.id;
        let root = below(0, record.source.as_bytes());
        marking.tree(record.tree, newest.get(record.source.as_str()).copied(), root, 0)?;
        newest.insert(&record.source, record.tree);
    }
    Ok(marking.marked)
}

fn below(place: Where, name: &[u8]) -> Where {
    let mut hasher = DefaultHasher::new();
    (place, name).hash(&mut hasher);
    hasher.finish()
}

impl Marking<'_> {
    fn tree(&mut self, id: TreeId, old: Option<TreeId>, place: Where, depth: usize) -> Result<()> {
        if old == Some(id) || self.is_done(id.into()) {
            return Ok(());
        }
        if depth > DEEPEST + 1 {
            self.broken(format!("directory {id}: directories are nested deeper than the format allows"));
            return Ok(());
        }
        let Some(tree) = self.loaded(|marking| marking.trees.load(marking.catalog, id))? else { return Ok(()) };
        self.version(id.into(), place);
        let old = match old {
            // What could be loaded when its own snapshot's turn came can be now; if not, nothing is in common.
            Some(old) => self.trees.load(self.catalog, old).ok(),
            None => None,
        };
        for entry in &tree.value.entries {
            let before = old.as_ref().and_then(|old| old.value.get(&entry.name)).map(|entry| &entry.node);
            let place = below(place, &entry.name);
            match (&entry.node, before) {
                (node, Some(before)) if node == before => {}
                (Node::Symlink(_), _) => {}
                (Node::Directory(id), Some(Node::Directory(old))) => self.tree(*id, Some(*old), place, depth + 1)?,
                (Node::Directory(id), _) => self.tree(*id, None, place, depth + 1)?,
                (Node::File { content, .. }, Some(Node::File { content: before, .. })) => {
                    self.content(content, Some(before), place)?;
                }
                (Node::File { content, .. }, _) => self.content(content, None, place)?,
            }
        }
        Ok(())
    }

    fn content(&mut self, content: &Content, before: Option<&Content>, place: Where) -> Result<()> {
        match content {
            Content::Chunks(chunks) => {
                let before = match before {
                    Some(Content::Chunks(before)) => before.as_slice(),
                    _ => &[],
                };
                for (nth, (_, id)) in chunks.iter().enumerate() {
                    self.chunk(*id, before.get(nth).map(|(_, id)| *id), NO_FILE);
                }
            }
            Content::Recipes(recipes) => {
                let before = match before {
                    Some(Content::Recipes(before)) => before.as_slice(),
                    _ => &[],
                };
                for (nth, id) in recipes.iter().enumerate() {
                    self.recipe(*id, before.get(nth).copied(), below(place, &nth.to_le_bytes()), place)?;
                }
            }
        }
        Ok(())
    }

    fn recipe(&mut self, id: RecipeId, old: Option<RecipeId>, place: Where, file: Where) -> Result<()> {
        if old == Some(id) || self.is_done(id.into()) {
            return Ok(());
        }
        let Some(recipe) = self.loaded(|marking| marking.recipes.load(marking.catalog, id))? else { return Ok(()) };
        self.version(id.into(), place);
        let old = match old {
            Some(old) if self.is_done(old.into()) => self.recipes.load(self.catalog, old).ok(),
            _ => None,
        };
        let next = self.files.len() as u32 + 1;
        let file = *self.files.entry(file).or_insert(next);
        for (nth, id) in recipe.value.ids.iter().enumerate() {
            let before = old.as_ref().and_then(|old| old.value.ids.get(nth)).copied();
            // What stood there before is marked already.
            if before != Some(*id) {
                self.chunk(*id, before, file);
            }
        }
        Ok(())
    }

    fn chunk(&mut self, id: ChunkId, before: Option<ChunkId>, file: u32) {
        if id == ChunkId::ZEROS {
            return;
        }
        let Some(first) = self.survey.find(id) else {
            self.marked.missing.insert(id);
            return;
        };
        let at = first as usize;
        if !self.marked.live[at] {
            self.marked.live[at] = true;
            self.marked.file[at] = file;
            let before = before.filter(|before| *before != ChunkId::ZEROS).and_then(|before| self.survey.find(before));
            self.marked.before[at] = before.unwrap_or(NONE);
        }
    }

    /// Whether a tree or recipe was followed already.
    fn is_done(&self, id: ChunkId) -> bool {
        self.survey.find(id).is_some_and(|first| self.marked.live[first as usize])
    }

    /// Notes a version that was loaded.
    fn version(&mut self, id: ChunkId, place: Where) {
        if let Some(first) = self.survey.find(id) {
            self.marked.live[first as usize] = true;
            self.marked.versions.entry(place).or_default().push(first);
        }
    }

    /// What `load` gives; nothing if it is damaged, which is noted. Any other error ends the mark.
    fn loaded<T>(&mut self, load: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match load(self) {
            Ok(version) => Ok(Some(version)),
            Err(error) if error.is_integrity() => {
                self.broken(error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn broken(&mut self, why: String) {
        let named = self.marked.broken.len();
        if named < MOST_NAMED || self.marked.broken.iter().all(|(id, _)| *id != self.snapshot) {
            self.marked.broken.push((self.snapshot, why));
        }
    }
}
