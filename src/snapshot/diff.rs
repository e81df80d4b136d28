//! What is different between two snapshots.
//!
//! Both are followed from their roots together. A directory that has the same id in both is the same with all that is
//! in it, and is not looked into: two snapshots of a large directory that differ in little are compared in no time.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::meta;
use super::record::Record;
use super::store::Store;
use super::tree::{Entry, Node, Tree};
use crate::error::{Error, Result};
use crate::id::TreeId;
use crate::source::walk::DEEPEST;

/// How an entry differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is in the second snapshot alone.
    Added(Entry),
    /// It is in the first alone.
    Removed(Entry),
    /// It is another kind of thing, or has other content: what it was, and what it is.
    Content(Entry, Entry),
    /// Only its mode, its owner or its time is another. The time of a directory does not count: it changes with what is
    /// in it.
    Attributes(Entry, Entry),
}

/// Calls `act` for each entry that differs between `before` and `after`, a directory before what is in it.
pub fn diff(
    store: &Store,
    before: &Record,
    after: &Record,
    act: &mut dyn FnMut(PathBuf, Change) -> Result<()>,
) -> Result<()> {
    // Few trees that name each other many times are more entries than anybody has: no more than the records count.
    let left = before.totals.entries().saturating_add(after.totals.entries());
    let mut walk = Walk { store, left, act };
    walk.folder(Path::new(""), Some(before.tree), Some(after.tree), 0)
}

struct Walk<'a> {
    store: &'a Store,
    left: u64,
    act: &'a mut dyn FnMut(PathBuf, Change) -> Result<()>,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, before: Option<TreeId>, after: Option<TreeId>, depth: usize) -> Result<()> {
        if before == after {
            return Ok(());
        }
        if depth > DEEPEST + 1 {
            return Err(Error::integrity("directories of a snapshot are nested deeper than the format allows").at(path));
        }
        let (before, after) = (self.entries(before, path)?, self.entries(after, path)?);
        let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.name.cmp(&new.name),
            };
            let old = if order == Ordering::Greater { None } else { before.next() };
            let new = if order == Ordering::Less { None } else { after.next() };
            self.entry(path, old, new, depth)?;
        }
    }

    fn entries(&mut self, tree: Option<TreeId>, path: &Path) -> Result<Vec<Entry>> {
        let Some(tree) = tree else { return Ok(Vec::new()) };
        let entries = meta::load::<Tree>(self.store.catalog(), tree)
            .map_err(|error| if error.is_integrity() { error.at(path) } else { error })?
            .value
            .entries;
        match self.left.checked_sub(entries.len() as u64) {
            Some(left) => self.left = left,
            None => return Err(Error::integrity("the directories of a snapshot hold more than its record counts")),
        }
        Ok(entries)
    }

    fn entry(&mut self, folder: &Path, old: Option<Entry>, new: Option<Entry>, depth: usize) -> Result<()> {
        let below = |entry: &Option<Entry>| match entry {
            Some(Entry { node: Node::Directory(tree), .. }) => Some(*tree),
            _ => None,
        };
        let (old_below, new_below) = (below(&old), below(&new));
        let Some(name) = old.as_ref().or(new.as_ref()).map(|entry| entry.name.clone()) else { return Ok(()) };
        let path = folder.join(OsStr::from_bytes(&name));
        let change = match (old, new) {
            (None, None) => None,
            (Some(old), None) => Some(Change::Removed(old)),
            (None, Some(new)) => Some(Change::Added(new)),
            (Some(old), Some(new)) => {
                let both = old_below.is_some() && new_below.is_some();
                let (mut was, mut is) = (old.attributes, new.attributes);
                if both {
                    (was.mtime, was.mtime_nanos, is.mtime, is.mtime_nanos) = (0, 0, 0, 0);
                }
                if !both && old.node != new.node {
                    Some(Change::Content(old, new))
                } else if was != is {
                    Some(Change::Attributes(old, new))
                } else {
                    None
                }
            }
        };
        if let Some(change) = change {
            (self.act)(path.clone(), change)?;
        }
        self.folder(&path, old_below, new_below, depth + 1)
    }
}
