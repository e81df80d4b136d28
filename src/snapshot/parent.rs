//! What the snapshot before this one knows, as far as it is any use to this one.
//!
//! That is its trees, its receipts, and where in their logs its databases ended. Of folders in which nothing changed
//! ([`super::subtree`]) neither trees nor receipts are needed, and none are loaded.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rayon::prelude::*;

use super::marks::Mark;
use super::meta::{self, Version};
use super::receipt::Receipt;
use super::receipts::Receipts;
use super::record::Record;
use super::subtree::{Digests, Subtrees, Untouched};
use super::taking::Taking;
use super::tree::{Entry, Node, Tree};
use crate::id::TreeId;
use crate::index::catalog::Catalog;
use crate::source::walk::{Found, Kind, Walk};

/// What a snapshot says of directories, by their place in the walk.
pub(super) type Trees = HashMap<usize, Version<Tree>>;

/// What the parent snapshot knows of each directory.
#[derive(Default)]
pub(super) struct Parent {
    pub(super) record: Option<Record>,
    /// Of folders that are not in an untouched subtree; of all where everything is listed.
    pub(super) trees: Trees,
    /// As they were noted, unless everything is to be read.
    pub(super) receipts: Option<Receipts>,
    /// Receipts that are noted with a subtree, of those that are not untouched.
    opened: HashMap<PathBuf, Receipt>,
    /// Where in their logs its databases ended, by path.
    pub(super) marks: HashMap<PathBuf, Mark>,
    /// Every chunk that the parent names is known to be there.
    pub(super) trusted: bool,
    /// What is as it was.
    pub(super) untouched: Untouched,
}

/// The name of `found` in its folder.
pub(super) fn name_of(found: &Found) -> &[u8] {
    found.path.file_name().map_or(b"", OsStrExt::as_bytes)
}

impl Parent {
    /// The parent of which nothing is known but `trees`, all that they name being there.
    pub(super) fn of(trees: Trees) -> Parent {
        Parent { trees, trusted: true, ..Parent::default() }
    }

    pub(super) fn entry(&self, found: &Found) -> Option<&Entry> {
        self.trees.get(&found.parent)?.value.get(name_of(found))
    }

    /// The receipt for `found`.
    pub(super) fn receipt(&self, found: &Found) -> Option<&Receipt> {
        self.receipts.as_ref()?.files.get(&found.path).or_else(|| self.opened.get(&found.path))
    }

    /// What it noted of subtrees.
    pub(super) fn noted(&self) -> Option<&Subtrees> {
        self.receipts.as_ref().map(|receipts| &receipts.subtrees)
    }

    /// Opens the receipts of each folder in `walked` that is not in an untouched subtree.
    fn open_receipts(&self, walked: &Walk) -> HashMap<PathBuf, Receipt> {
        let Some(noted) = self.noted().filter(|noted| !noted.is_empty()) else { return HashMap::new() };
        let folders = walked.found.iter().enumerate().filter(|(_, found)| found.kind == Kind::Directory);
        let folders = folders.filter(|(at, _)| !self.untouched.has(*at));
        let all: Vec<_> =
            folders.filter_map(|(_, found)| Some(noted.get(&found.path)?.receipts_in(&found.path))).collect();
        // A table that grows is made anew each time, and most of what that costs is memory that nobody had.
        let mut opened = HashMap::with_capacity(all.iter().map(Vec::len).sum());
        opened.extend(all.into_iter().flatten());
        opened
    }
}

impl Taking<'_> {
    /// What the parent snapshot knows of what `walked` found. A parent that is damaged is no parent: everything is at
    /// hand, and is stored again.
    pub(super) fn parent(&self, record: Option<Record>, source: &str, walked: &Walk, digests: &Digests) -> Parent {
        let index = self.store.catalog().index();
        // A pack that cannot be read may hold what the parent names: then every chunk is looked up.
        let receipts = index.unreadable().is_empty().then(|| index.note(&Receipts::note_name(source))).flatten();
        let receipts = receipts.and_then(|note| Receipts::decode(&note).ok());
        let receipts = receipts.filter(|receipts| record.as_ref().is_some_and(|record| record.id == receipts.snapshot));
        let trusted = receipts.is_some();
        let marks = receipts.as_ref().map(|receipts| receipts.marks.clone()).unwrap_or_default();
        let receipts = receipts.filter(|_| !self.options.full_scan);
        let mut parent = Parent { record, receipts, marks, trusted, ..Parent::default() };
        self.suit(&mut parent, walked, digests);
        parent
    }

    /// Has `parent` know what there is to know of what `walked` found, and of that alone.
    pub(super) fn suit(&self, parent: &mut Parent, walked: &Walk, digests: &Digests) {
        // Not where the store is to have again what it lost. A pack that somebody wrote to or put back is looked into.
        let is_to_be_mended = self.store.catalog().index().is_to_be_mended();
        let are_as_noted = |(most, stamps)| !is_to_be_mended && self.store.stamps_of_packs(most) == Some(stamps);
        let noted = parent.receipts.as_ref().filter(|noted| noted.packs.is_some_and(are_as_noted));
        let untouched = noted.map(|noted| Untouched::find(walked, digests, &noted.subtrees));
        parent.untouched = untouched.unwrap_or_default();
        if !self.load(parent, walked) && self.options.list {
            // What is to be listed was looked at, and some of it is damaged: it is stored anew.
            parent.untouched = Untouched::default();
            parent.opened = parent.open_receipts(walked);
        }
    }

    /// Loads what `parent` knows of folders that are in no untouched subtree, or of all where everything is listed, but
    /// for what it has already. Answers with whether none is damaged.
    pub(super) fn load(&self, parent: &mut Parent, walked: &Walk) -> bool {
        let (known, none) = (std::mem::take(&mut parent.trees), Untouched::default());
        let needed = if self.options.list { &none } else { &parent.untouched };
        let load = || load_trees(self.store.catalog(), parent.record.as_ref(), walked, known, needed);
        let ((trees, damage), opened) = rayon::join(load, || parent.open_receipts(walked));
        (parent.trees, parent.opened) = (trees, opened);
        let is_whole = damage.is_empty();
        let mut remarks = self.remarks.borrow_mut();
        for what in damage {
            if !remarks.contains(&what) {
                remarks.push(what);
            }
        }
        is_whole
    }
}

/// Loads what the snapshot `record` says of each folder in `walked` that is in no `untouched` subtree, on all cores,
/// one level after the other; `known` are trees that were loaded before. Answers besides with what is to be said of
/// those that are damaged.
pub(super) fn load_trees(
    catalog: &Catalog,
    record: Option<&Record>,
    walked: &Walk,
    known: Trees,
    untouched: &Untouched,
) -> (Trees, Vec<String>) {
    let mut known: HashMap<TreeId, Version<Tree>> = known.into_values().map(|tree| (tree.id, tree)).collect();
    let mut below: HashMap<usize, Vec<usize>> = HashMap::new();
    let folders = walked.found.iter().enumerate().skip(1).filter(|(_, found)| found.kind == Kind::Directory);
    for (at, found) in folders.filter(|(at, _)| !untouched.has(*at)) {
        below.entry(found.parent).or_default().push(at);
    }
    let (mut trees, mut damage) = (Trees::new(), Vec::new());
    let mut level: Vec<(usize, TreeId)> = record.map(|record| (0, record.tree)).into_iter().collect();
    while !level.is_empty() {
        let level_known: Vec<_> = level.into_iter().map(|(at, id)| (at, id, known.remove(&id))).collect();
        let load =
            |(at, id, known): (usize, TreeId, Option<_>)| (at, known.map_or_else(|| meta::load(catalog, id), Ok));
        let loaded: Vec<_> = level_known.into_par_iter().map(load).collect();
        level = Vec::new();
        for (at, tree) in loaded {
            match tree {
                Ok(tree) => {
                    let id_of = |at: &usize| match tree.value.get(name_of(&walked.found[*at]))?.node {
                        Node::Directory(id) => Some((*at, id)),
                        _ => None,
                    };
                    level.extend(below.remove(&at).iter().flatten().filter_map(id_of));
                    trees.insert(at, tree);
                }
                Err(error) => damage.push(format!(
                    "an earlier snapshot is damaged, what it says of directories is stored anew: {error}"
                )),
            }
        }
    }
    (trees, damage)
}
