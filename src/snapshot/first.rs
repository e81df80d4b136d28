//! The first look at each file: which are vouched for, which are databases, and which are to be read.
//!
//! Databases are opened at once, so that all transactions begin close together.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::capture::{Open, looks_open, open_database};
use super::frames::Earlier;
use super::parent::Parent;
use super::same;
use super::sidecar::sidecar_stamps;
use super::taking::Taking;
use super::tree::{Entry, Node};
use crate::source::walk::{Found, Identity, Kind, Stamp, Walk, identity};

/// What the first look at each file said.
#[derive(Default)]
pub(super) struct First {
    /// Databases, open.
    pub(super) databases: HashMap<PathBuf, Open>,
    /// Files that a receipt vouches for, by their place in the walk. It is asked once: a database that is vouched for
    /// at one moment and not at the next must not end up as one that nobody opened.
    pub(super) vouched: HashSet<usize>,
    /// Files that were no databases, by their path, with the stamp that they had: they are not looked at twice.
    plain: HashMap<PathBuf, Stamp>,
    /// Files that were read and are what they are in the parent snapshot, by their place in the walk.
    pub(super) same: HashSet<usize>,
}

impl First {
    /// Whether this file is open, under whatever name. SQLite has one shared memory for all connections of a process to
    /// a file, which lies beside the name that the first of them was opened by; under another name there may be another
    /// log. So no file is open under two.
    pub(super) fn has_open(&self, who: Identity) -> bool {
        self.databases.values().any(|open| open.identity() == who)
    }

    /// Closes this file, unless it is open as `path`. It is opened again when its turn comes.
    pub(super) fn close_others(&mut self, who: Identity, path: &Path) {
        let is_other = |other: &PathBuf, open: &mut Open| other != path && open.identity() == who;
        self.databases.extract_if(is_other).for_each(|(_, open)| open.close());
    }
}

impl Taking<'_> {
    /// Looks at the files at `places`: asks for their receipts, and opens the databases that none vouches for and that
    /// are not open yet.
    pub(super) fn look_first(&self, walked: &Walk, parent: &Parent, places: &[usize], first: &mut First) {
        first.vouched.clear();
        let (source, mut rest) = (self.top.through(), Vec::new());
        let ask = |&at: &usize| (at, is_vouched(source, &walked.found[at], parent));
        let files = |at: &&usize| {
            let found = &walked.found[**at];
            found.kind == Kind::File && !first.databases.contains_key(&found.path)
        };
        let files: Vec<usize> = places.iter().filter(files).copied().collect();
        let asked: Vec<_> = files.par_iter().with_min_len(256).map(ask).collect();
        first.vouched.reserve(asked.len());
        for (at, is_vouched) in asked {
            if is_vouched {
                first.vouched.insert(at);
                continue;
            }
            let found = &walked.found[at];
            let is_known = first.plain.get(&found.path) == Some(&found.stamp);
            // What is expected to be the same is read in a moment, and opened then if it has become a database.
            if !is_known && same::expected(found, parent).is_none() {
                rest.push(at);
            }
        }
        // Thousands of files, most of them none: on all cores. An error is not lost: the file is looked at again when
        // it is read, and what was in the way then, or that it is a database after all, is seen there.
        let look = |&at: &usize| (at, looks_open(&source.join(&walked.found[at].path)));
        let seen: Vec<_> = rest.par_iter().with_min_len(16).map(look).collect();
        for (at, seen) in seen {
            let found = &walked.found[at];
            match seen {
                Ok(None) => drop(first.plain.insert(found.path.clone(), found.stamp)),
                Ok(Some(_)) => {
                    let earlier = Earlier::of(found, parent, self.options.full_scan);
                    let folder = walked.folder_of(found);
                    if first.has_open(identity(&found.stamp)) {
                        continue;
                    }
                    if let Ok(Some(opened)) = self.opening(|opening| open_database(opening, found, folder, earlier)) {
                        first.databases.insert(found.path.clone(), opened);
                    }
                }
                Err(_) => {}
            }
        }
    }
}

/// Whether a receipt says that `found` is what it was in the parent snapshot.
fn is_vouched(source: &Path, found: &Found, parent: &Parent) -> bool {
    // A receipt without the entry that it is for, in a parent that cannot be read any more, vouches for nothing.
    let Some(Entry { node: Node::File { .. }, .. }) = parent.entry(found) else { return false };
    let Some(receipt) = parent.receipt(found) else { return false };
    receipt.stamp == found.stamp
        && (receipt.beside().is_none() || receipt.is_same_beside(sidecar_stamps(&source.join(&found.path))))
}
