//! What a snapshot under way has captured so far: nodes by their place in the walk, and everything that is told of
//! them.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::captured::Captured;
use super::marks::Mark;
use super::now::Moment;
use super::receipt::Receipt;
use super::record::Totals;
use super::sidecar::Sidecar;
use super::tree::{Attributes, Consistency, Content, Node};
use crate::error::SourceError;
use crate::source::medium;
use crate::source::moved::Known;
use crate::source::walk::{Found, Stamp, Walk, identity, lies_in, stamp};

/// One captured entry, for listings.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Path relative to the data directory.
    pub path: PathBuf,
    /// What it is: `file`, `database`, `directory`, `symlink`.
    pub kind: &'static str,
    /// How consistent its content is.
    pub consistency: Consistency,
    /// For a database: only what its log says of the changes was read.
    pub by_log: bool,
}

impl Listed {
    /// What is listed of `found`, which was captured as `node`.
    pub(super) fn of(found: &Found, node: &Node) -> Listed {
        let (kind, consistency) = match node {
            Node::File { consistency: Consistency::Transaction, .. } => ("database", Consistency::Transaction),
            Node::File { consistency, .. } => ("file", *consistency),
            Node::Directory(_) => ("directory", Consistency::Stable),
            Node::Symlink(_) => ("symlink", Consistency::Stable),
        };
        Listed { path: found.path.clone(), kind, consistency, by_log: false }
    }
}

/// What was captured, by the walk's places.
pub(super) struct Contents {
    /// Files whose content is not that of the parent.
    pub(super) changed: HashSet<PathBuf>,
    pub(super) nodes: Vec<Option<(Node, Option<Attributes>)>>,
    /// Places of which something was read, or was to be: no receipt vouched for them.
    pub(super) read: Vec<usize>,
    /// Databases that are captured as images: nothing that SQLite would play into them may lie beside them.
    pub(super) images: HashMap<PathBuf, usize>,
    /// What needs no other look: it was captured, or left out for a reason.
    pub(super) settled: Known,
    /// A file was gone when it was to be captured again: what was captured of it may not be all.
    pub(super) went: bool,
    /// By place, of what is named like a sidecar: whether the bytes that were read are one's.
    pub(super) judged: HashMap<usize, bool>,
    pub(super) entries: Vec<Listed>,
    pub(super) receipts: HashMap<usize, Receipt>,
    /// What was seen of databases, relied on or not.
    pub(super) databases: HashMap<PathBuf, Receipt>,
    pub(super) marks: HashMap<PathBuf, Mark>,
    /// Databases of which only the log was read.
    by_log: HashSet<PathBuf>,
    /// Files that got no receipt, since they may yet change without notice: the stamps that they were captured with.
    pub(super) young: HashMap<PathBuf, Stamp>,
    /// Sidecars that were left out, by place.
    pub(super) left_out: HashMap<usize, Sidecar>,
    /// Places of links that were read when another one stood there than the walk saw.
    pub(super) other_links: HashSet<usize>,
    /// When everything had been read, every folder was as it was listed.
    pub(super) calm: bool,
    pub(super) totals: Totals,
    pub(super) remarks: Vec<String>,
    /// By device: whether its files change behind their time stamps.
    in_memory: HashMap<u64, bool>,
}

impl Contents {
    pub(super) fn new() -> Self {
        Contents {
            changed: HashSet::new(),
            nodes: Vec::new(),
            read: Vec::new(),
            images: HashMap::new(),
            settled: Known::default(),
            went: false,
            judged: HashMap::new(),
            entries: Vec::new(),
            receipts: HashMap::new(),
            databases: HashMap::new(),
            marks: HashMap::new(),
            by_log: HashSet::new(),
            young: HashMap::new(),
            left_out: HashMap::new(),
            other_links: HashSet::new(),
            calm: false,
            totals: Totals { directories: 1, ..Totals::default() },
            remarks: Vec::new(),
            in_memory: HashMap::new(),
        }
    }

    /// Makes room for a walk of `all` entries, of which `more` are captured now.
    pub(super) fn expect(&mut self, all: usize, more: usize) {
        self.nodes.resize(all, None);
        self.receipts.reserve(more);
        self.settled.reserve(more);
    }

    pub(super) fn list(&mut self, found: &Found, node: &Node) {
        match node {
            Node::File { size, consistency, .. } => {
                self.totals.files += 1;
                self.totals.bytes += size;
                self.totals.databases += u64::from(*consistency == Consistency::Transaction);
            }
            Node::Directory(_) => self.totals.directories += 1,
            Node::Symlink(_) => self.totals.symlinks += 1,
        }
        let by_log = self.by_log.contains(&found.path);
        self.entries.push(Listed { by_log, ..Listed::of(found, node) });
    }

    /// Puts a node at a place in the walk, instead of what may have been captured there before.
    fn put(&mut self, at: usize, found: &Found, node: Node, attributes: Option<Attributes>) {
        if matches!(node, Node::File { consistency: Consistency::Transaction, .. }) {
            self.images.insert(found.path.clone(), at);
        } else {
            self.images.remove(&found.path);
        }
        self.nodes[at] = Some((node, attributes));
    }

    /// Keeps what was seen of a database before it was read, for the next snapshot's note.
    fn note_database(&mut self, found: &Found, receipt: &Receipt) {
        if receipt.beside().is_some() {
            self.databases.insert(found.path.clone(), receipt.clone());
        }
    }

    /// Takes over what the parent snapshot has, because `receipt` vouches for it.
    pub(super) fn keep(&mut self, at: usize, node: Node, found: &Found, receipt: Receipt, mark: Option<&Mark>) {
        self.settled.add(&found.stamp);
        if receipt.beside().is_some() {
            self.settled.add_restless(identity(&found.stamp));
        }
        self.marks.extend(mark.map(|mark| (found.path.clone(), *mark)));
        self.note_database(found, &receipt);
        self.receipts.insert(at, receipt);
        self.put(at, found, node, None);
    }

    /// Takes over what the parent snapshot has, because the file was read and is the same.
    pub(super) fn keep_same(&mut self, source: &Path, at: usize, node: Node, found: &Found, began: Moment) {
        self.read.push(at);
        self.settled.add(&found.stamp);
        self.hand_out(source, at, found, Receipt::of_file(found.stamp), began);
        self.put(at, found, node, None);
    }

    /// Keeps `receipt` if it is safe to rely on.
    pub(super) fn hand_out(&mut self, source: &Path, at: usize, found: &Found, receipt: Receipt, began: Moment) {
        let in_memory = self.in_memory.entry(receipt.stamp.device);
        let in_memory = *in_memory.or_insert_with(|| medium::is_in_memory(&source.join(&found.path)));
        if receipt.may_be_kept(began, in_memory) {
            self.receipts.insert(at, receipt);
        } else {
            self.young.insert(found.path.clone(), receipt.stamp);
        }
    }

    /// Leaves out a sidecar of a database.
    pub(super) fn leave_out(&mut self, at: usize, which: Sidecar, who: Option<Stamp>, walked: &mut Walk) {
        let found = &walked.found[at];
        self.settled.add(&who.unwrap_or(found.stamp));
        self.forget(at, found);
        self.left_out.insert(at, which);
        walked.excluded.push((found.path.clone(), which.reason().to_owned()));
    }

    /// The places of sidecars that were left out, in order.
    pub(super) fn left_out_in_order(&self) -> Vec<(usize, Sidecar)> {
        let mut all: Vec<_> = self.left_out.iter().map(|(at, which)| (*at, *which)).collect();
        all.sort_unstable_by_key(|(at, _)| *at);
        all
    }

    /// Forgets what was captured at a place.
    pub(super) fn forget(&mut self, at: usize, found: &Found) {
        self.receipts.remove(&at);
        self.databases.remove(&found.path);
        self.marks.remove(&found.path);
        self.by_log.remove(&found.path);
        self.young.remove(&found.path);
        self.left_out.remove(&at);
        self.other_links.remove(&at);
        self.changed.remove(&found.path);
        self.images.remove(&found.path);
        self.nodes[at] = None;
    }

    pub(super) fn symlink(&mut self, source: &Path, at: usize, walked: &mut Walk) {
        let found = &walked.found[at];
        let path = source.join(&found.path);
        let folder = walked.folder_of(found);
        let there = |meta| if lies_in(&path, folder) { Ok(meta) } else { Err(std::io::ErrorKind::NotFound.into()) };
        let look = || std::fs::symlink_metadata(&path).and_then(there).map(|meta| stamp(&meta));
        let read = || -> std::io::Result<_> { Ok((look()?, std::fs::read_link(&path)?, look()?)) };
        match read() {
            Ok((before, target, after)) => {
                // Another one may stand there by now: then the one that the walk saw is elsewhere, or gone.
                if before == after {
                    self.settled.add(&after);
                }
                if (before, after) != (found.stamp, found.stamp) {
                    self.other_links.insert(at);
                }
                let node = Node::Symlink(target.as_os_str().as_bytes().to_vec());
                self.put(at, found, node, None);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => walked.errors.push(SourceError::new(&found.path, error)),
        }
    }

    /// No file looks any more as if it were old enough to be relied on, but for databases, which need no clock.
    pub(super) fn distrust(&mut self) {
        self.receipts.retain(|_, receipt| receipt.beside().is_some());
    }

    /// Takes over a link that the parent snapshot has, because a digest vouches for it.
    pub(super) fn keep_link(&mut self, at: usize, found: &Found, node: Node) {
        self.settled.add(&found.stamp);
        self.put(at, found, node, None);
    }

    /// Takes what was captured of a file of the data directory `source`.
    pub(super) fn take(
        &mut self,
        source: &Path,
        at: usize,
        captured: Captured,
        before: Option<&Content>,
        began: Moment,
        walked: &mut Walk,
    ) {
        self.read.push(at);
        let found = &walked.found[at];
        // What was captured before it went stays: it was there while the snapshot was taken.
        if captured.is_gone() && self.nodes[at].is_some() {
            self.went = true;
            return;
        }
        self.forget(at, found);
        self.remarks.extend(captured.remarks.iter().map(|remark| format!("{}: {remark}", found.path.display())));
        if let Some(error) = captured.error {
            walked.errors.push(SourceError::new(&found.path, error));
        }
        captured.who.iter().for_each(|who| self.settled.add(who));
        let Some((size, consistency, content)) = captured.content else { return };
        if let (Consistency::Transaction, Some(who)) = (consistency, &captured.who) {
            self.settled.add_restless(identity(who));
        }
        let remark = format!("{}: changed while it was read", found.path.display());
        if consistency == Consistency::Changed && !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
        if before != Some(&content) {
            self.changed.insert(found.path.clone());
        }
        self.marks.extend(captured.mark.map(|mark| (found.path.clone(), mark)));
        if captured.by_log {
            self.by_log.insert(found.path.clone());
        }
        if let Some(receipt) = captured.receipt {
            self.note_database(found, &receipt);
            self.hand_out(source, at, found, receipt, began);
        }
        self.put(at, found, Node::File { size, consistency, content }, captured.attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::walk::Kind;

    /// The folder above may have been another one for a moment.
    #[test]
    fn a_link_that_is_not_the_one_that_was_seen_settles_nothing_but_itself() {
        let dir = tempfile::TempDir::new().expect("dir");
        std::os::unix::fs::symlink("where", dir.path().join("l")).expect("a link");
        let meta = std::fs::symlink_metadata(dir.path().join("l")).expect("there");
        let found = Found::new("l".into(), 0, Kind::Symlink, &meta);
        let other = Found { stamp: Stamp { inode: found.stamp.inode + 1, ..found.stamp }, ..found.clone() };
        for (seen, is_it) in [(found.clone(), true), (other, false)] {
            let folder = Found::new("".into(), 0, Kind::Directory, &std::fs::metadata(dir.path()).expect("there"));
            let mut walked = Walk { found: vec![folder, seen.clone()], ..Walk::default() };
            let mut contents = Contents::new();
            contents.nodes.resize(2, None);
            contents.symlink(dir.path(), 1, &mut walked);
            assert_eq!(contents.nodes[1].as_ref().map(|(node, _)| node), Some(&Node::Symlink(b"where".to_vec())));
            let mut only = Known::default();
            only.add(&found.stamp);
            assert_eq!(contents.settled, only);
            assert_eq!(contents.other_links.is_empty(), is_it);
        }
    }
}
