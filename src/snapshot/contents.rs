//! What a snapshot under way has captured so far: nodes by their place in the walk, and everything that is told of
//! them.
//!
//! When something moved while it was read, the walk is done again, and what did not change since is taken over from
//! here ([`Kept`]) instead of being read twice.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::capture::Captured;
use super::receipts::{Receipt, Receipts};
use super::record::Totals;
use super::tree::{Attributes, Consistency, Node};
use crate::error::SourceError;
use crate::id::SnapshotId;
use crate::source::walk::{Found, Stamp, Walk};

/// One captured entry, for listings.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Path relative to the data directory.
    pub path: PathBuf,
    /// What it is: `file`, `database`, `directory`, `symlink`.
    pub kind: &'static str,
    /// How consistent its content is.
    pub consistency: Consistency,
}

/// A file that an earlier round of the same snapshot captured.
pub(super) struct Kept {
    pub(super) stamp: Stamp,
    pub(super) node: Node,
    pub(super) attributes: Option<Attributes>,
    pub(super) receipt: Option<Receipt>,
    pub(super) changed: bool,
}

impl Kept {
    pub(super) fn is_image(&self) -> bool {
        matches!(self.node, Node::File { consistency: Consistency::Transaction, .. })
    }
}

/// What was captured, by the walk's places.
pub(super) struct Contents {
    /// Something was not where the walk had seen it.
    pub(super) moved: bool,
    /// Files whose content is not that of the parent.
    pub(super) changed: HashSet<PathBuf>,
    pub(super) nodes: Vec<Option<(Node, Option<Attributes>)>>,
    pub(super) entries: Vec<Listed>,
    pub(super) receipts: HashMap<PathBuf, Receipt>,
    pub(super) totals: Totals,
    pub(super) changed_files: u64,
    pub(super) read_any: bool,
    pub(super) remarks: Vec<String>,
}

impl Contents {
    pub(super) fn new(count: usize) -> Self {
        Contents {
            moved: false,
            changed: HashSet::new(),
            nodes: vec![None; count],
            entries: Vec::with_capacity(count),
            receipts: HashMap::new(),
            totals: Totals { directories: 1, ..Totals::default() },
            changed_files: 0,
            read_any: false,
            remarks: Vec::new(),
        }
    }

    pub(super) fn list(&mut self, found: &Found, node: &Node) {
        let (kind, consistency) = match node {
            Node::File { size, consistency, .. } => {
                self.totals.files += 1;
                self.totals.bytes += size;
                let database = *consistency == Consistency::Transaction;
                self.totals.databases += u64::from(database);
                (if database { "database" } else { "file" }, *consistency)
            }
            Node::Directory(_) => {
                self.totals.directories += 1;
                ("directory", Consistency::Stable)
            }
            Node::Symlink(_) => {
                self.totals.symlinks += 1;
                ("symlink", Consistency::Stable)
            }
        };
        self.entries.push(Listed { path: found.path.clone(), kind, consistency });
    }

    pub(super) fn keep(
        &mut self,
        at: usize,
        node: Node,
        attributes: Option<Attributes>,
        found: &Found,
        receipt: Option<Receipt>,
    ) {
        self.list(found, &node);
        self.receipts.extend(receipt.map(|receipt| (found.path.clone(), receipt)));
        self.nodes[at] = Some((node, attributes));
    }

    /// What need not be read again in the next round.
    pub(super) fn into_kept(self, walked: &Walk) -> HashMap<PathBuf, Kept> {
        let mut kept = HashMap::new();
        for (found, node) in walked.found.iter().zip(self.nodes) {
            if let Some((node @ Node::File { .. }, attributes)) = node {
                let receipt = self.receipts.get(&found.path).copied();
                let changed = self.changed.contains(&found.path);
                kept.insert(found.path.clone(), Kept { stamp: found.stamp, node, attributes, receipt, changed });
            }
        }
        kept
    }

    pub(super) fn symlink(&mut self, source: &Path, at: usize, found: &Found, errors: &mut Vec<SourceError>) {
        match std::fs::read_link(source.join(&found.path)) {
            Ok(target) => {
                let node = Node::Symlink(target.as_os_str().as_bytes().to_vec());
                self.list(found, &node);
                self.nodes[at] = Some((node, None));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.moved = true,
            Err(error) => errors.push(SourceError::new(&found.path, error)),
        }
    }

    pub(super) fn take(
        &mut self,
        at: usize,
        found: &Found,
        captured: Captured,
        before: Option<&super::tree::Content>,
        began: i128,
        errors: &mut Vec<SourceError>,
    ) {
        self.remarks.extend(captured.remarks.iter().map(|remark| format!("{}: {remark}", found.path.display())));
        if let Some(error) = captured.error {
            errors.push(SourceError::new(&found.path, error));
        }
        self.moved |= captured.moved;
        let Some((size, consistency, content)) = captured.content else { return };
        if consistency == Consistency::Changed {
            self.remarks.push(format!("{}: changed while it was read", found.path.display()));
        }
        if before != Some(&content) {
            self.changed_files += 1;
            self.changed.insert(found.path.clone());
        }
        let node = Node::File { size, consistency, content };
        self.list(found, &node);
        if let Some(receipt) = captured.receipt {
            let mut one = Receipts { snapshot: SnapshotId([0; 16]), files: HashMap::new() };
            one.keep(&found.path, receipt, began);
            self.receipts.extend(one.files);
        }
        self.nodes[at] = Some((node, captured.attributes));
    }
}
