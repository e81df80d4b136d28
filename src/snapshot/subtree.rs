//! Folders in which nothing changed, taken over whole.
//!
//! Most snapshots find something new in a few folders, and hundreds as they were. A *subtree* is a folder with all that
//! is below it. Of each whose files all have a plain [receipt](super::receipts) a snapshot notes a digest of what its
//! walk saw there, the folder's own entry included, and which tree it has for it. If the next walk has the same digest
//! for the same path, that tree still says all of it: nothing in there is asked for, no receipt is read, no tree is
//! loaded, and the note is handed on as it is.
//!
//! **Why an equal digest proves it.** It says what asking for each receipt would: every entry is there that was, no
//! other is, and each has the stamp that its receipt has. The folder's tree was made of these entries, with the
//! attributes that are in the digest. Receipts hold against the parent snapshot, whose chunks are all known to be
//! there, and so does this; that the trees still open, which nobody looks at, is what the packs' stamps are for, as for
//! [a walk that is all the same](super::still). A link has no receipt: it is noted only if the one that was read had
//! the stamp that the walk saw, before and after. What is moved out of a folder of a subtree or into one while the
//! snapshot is taken shows in that folder's stamp at the end, as ever: then all of the subtree is gathered, files by
//! their receipts and links from the parent, for which the digest vouches ([`super::gather`]). A folder above that is
//! moved shows in no stamp below; but nothing below was read, and what the walk saw was there.
//!
//! Databases, and whatever is named like a sidecar of one, are never in a subtree: more than their stamps counts there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::contents::Contents;
use super::now::Moment;
use super::receipt::{Receipt, put_stamp, take_stamp};
use super::record::Totals;
use super::sidecar::{Sidecar, fits_shared_memory};
use super::tree::{Consistency, Node};
use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::crypto::keys::Keys;
use crate::id::TreeId;
use crate::source::walk::{Found, Kind, Walk};

/// So many entries are hashed at a time.
const PART: usize = 256;

/// For each folder of a walk, by its place, the digest of what the walk saw of it and below it.
#[derive(Default)]
pub(super) struct Digests(HashMap<usize, [u8; 16]>);

impl Digests {
    /// Of `walked`. `left_out` are the places of the sidecars that are left out; of the folders that are `untouched`
    /// the digests are `known`.
    pub(super) fn of(
        keys: &Keys,
        walked: &Walk,
        left_out: &[(usize, Sidecar)],
        (known, untouched): (&Digests, &Untouched),
    ) -> Digests {
        let memory: HashSet<usize> =
            left_out.iter().filter(|(_, which)| *which == Sidecar::Memory).map(|(at, _)| *at).collect();
        // Each folder begins with itself; the walk lists it before what is in it.
        let mut inside: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, found) in walked.found.iter().enumerate().filter(|(at, _)| !untouched.has(*at)) {
            let folder = if found.kind == Kind::Directory { at } else { found.parent };
            inside.entry(folder).or_default().push(at);
        }
        let own = |(folder, places): (usize, Vec<usize>)| {
            let digest = keys.walk_digest(places.chunks(PART).map(|part| {
                let mut out = Vec::with_capacity(PART * 160);
                for at in part {
                    put(&mut out, &walked.found[*at], memory.contains(at));
                }
                out
            }));
            (folder, digest)
        };
        let own: Vec<(usize, [u8; 16])> =
            inside.into_iter().collect::<Vec<_>>().into_par_iter().with_max_len(1).map(own).collect();
        let mut all: HashMap<usize, [u8; 16]> = own.into_iter().collect();
        all.extend(known.0.iter().filter(|(at, _)| untouched.has(**at)).map(|(at, digest)| (*at, *digest)));
        // From the deepest up: what a folder says includes what the folders in it say.
        let mut below: HashMap<usize, Vec<u8>> = HashMap::new();
        for (at, found) in walked.found.iter().enumerate().rev().filter(|(_, found)| found.kind == Kind::Directory) {
            let Some(digest) = all.get_mut(&at) else { continue };
            if let Some(below) = below.remove(&at) {
                *digest = keys.walk_digest([&digest[..], &below].into_iter());
            }
            if at > 0 && !untouched.is_inside(at) {
                below.entry(found.parent).or_default().extend_from_slice(&digest[..]);
            }
        }
        Digests(all)
    }

    /// Of the whole walk.
    pub(super) fn root(&self) -> Option<[u8; 16]> {
        self.0.get(&0).copied()
    }
}

/// All that counts of one entry.
fn put(out: &mut Vec<u8>, found: &Found, is_left_out_memory: bool) {
    let Found { path, parent: _, kind, mode, owner, stamp } = found;
    let path = path.as_os_str().as_bytes();
    out.extend_from_slice(&(path.len() as u64).to_le_bytes());
    out.extend_from_slice(path);
    if is_left_out_memory && *kind == Kind::File {
        out.push(3 + u8::from(fits_shared_memory(stamp.size)));
        return;
    }
    out.push(match kind {
        Kind::Directory => 0,
        Kind::File => 1,
        Kind::Symlink => 2,
    });
    for number in [*mode, owner.0, owner.1] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in [stamp.device, stamp.inode, stamp.size] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for time in [stamp.mtime, stamp.ctime] {
        out.extend_from_slice(&time.to_le_bytes());
    }
}

/// What is noted of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subtree {
    digest: [u8; 16],
    tree: TreeId,
    /// What is below the folder, counted.
    totals: Totals,
    /// Receipts of the files that lie in the folder itself, in the form that they are written in: hardly ever is one
    /// asked for.
    receipts: Vec<u8>,
}

/// All that are noted, by the path of the folder.
pub type Subtrees = BTreeMap<PathBuf, Subtree>;

impl Subtree {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digest);
        out.extend_from_slice(&self.tree.0);
        let Totals { files, databases, directories, symlinks, bytes } = self.totals;
        for number in [files, databases, directories, symlinks, bytes] {
            put_varint(out, number);
        }
        put_bytes(out, &self.receipts);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Subtree, Malformed> {
        let (digest, tree) = (reader.array()?, TreeId(reader.array()?));
        let mut number = || reader.varint();
        let (files, databases, directories) = (number()?, number()?, number()?);
        let totals = Totals { files, databases, directories, symlinks: number()?, bytes: number()? };
        Ok(Subtree { digest, tree, totals, receipts: reader.bytes()?.to_vec() })
    }

    /// The receipts of the files in `folder`, by their paths; none if they cannot be read.
    pub(super) fn receipts_in(&self, folder: &Path) -> Vec<(PathBuf, Receipt)> {
        let mut reader = Reader::new(&self.receipts);
        let mut read = || -> Result<_, Malformed> {
            let mut all = Vec::new();
            while reader.remaining() > 0 {
                let path = folder.join(OsStr::from_bytes(reader.bytes()?));
                all.push((path, Receipt::of_file(take_stamp(&mut reader)?)));
            }
            Ok(all)
        };
        read().unwrap_or_default()
    }
}

/// What a walk has of the subtrees that the parent snapshot noted: those that are as they were.
#[derive(Default)]
pub(super) struct Untouched {
    /// By the place of the folder; none lies in another.
    tops: BTreeMap<usize, Top>,
    /// By place: whether it is in one, its folder itself excepted.
    inside: Vec<bool>,
}

struct Top {
    /// The place behind the last one that is in it.
    end: usize,
    tree: TreeId,
    totals: Totals,
}

impl Untouched {
    /// The largest subtrees in `walked` that are as `noted`.
    pub(super) fn find(walked: &Walk, digests: &Digests, noted: &Subtrees) -> Untouched {
        let found = &walked.found;
        let mut ends: Vec<usize> = (1..=found.len()).collect();
        for at in (1..found.len()).rev() {
            ends[found[at].parent] = ends[found[at].parent].max(ends[at]);
        }
        let mut untouched = Untouched { tops: BTreeMap::new(), inside: vec![false; found.len()] };
        let mut at = 1;
        while at < found.len() {
            let subtree = (found[at].kind == Kind::Directory).then(|| noted.get(&found[at].path)).flatten();
            let Some(Subtree { tree, totals, .. }) = subtree.filter(|s| digests.0.get(&at) == Some(&s.digest)) else {
                at += 1;
                continue;
            };
            let top = Top { end: ends[at], tree: *tree, totals: *totals };
            untouched.inside[at + 1..top.end].fill(true);
            at = untouched.tops.entry(at).or_insert(top).end;
        }
        untouched
    }

    /// Whether what is at the place `at` is in one, but not its folder itself.
    pub(super) fn is_inside(&self, at: usize) -> bool {
        self.inside.get(at) == Some(&true)
    }

    /// Whether what is at the place `at` is in one, or its folder.
    pub(super) fn has(&self, at: usize) -> bool {
        self.is_inside(at) || self.tops.contains_key(&at)
    }

    /// The places in `walked` that are to be looked at: all that are in none.
    pub(super) fn others(&self, walked: &Walk) -> Vec<usize> {
        (0..walked.found.len()).filter(|at| !self.is_inside(*at)).collect()
    }

    /// The tree of the one whose folder is at the place `at`, and what is below that.
    pub(super) fn tree(&self, at: usize) -> Option<(TreeId, Totals)> {
        self.tops.get(&at).map(|top| (top.tree, top.totals))
    }

    /// The one that the place `at` is in, or whose folder is there, is none any more. Answers with the places that were
    /// in it, and its folder's.
    pub(super) fn give_up(&mut self, at: usize) -> Option<Range<usize>> {
        let (&top, Top { end, .. }) = self.tops.range(..=at).next_back().filter(|(_, top)| at < top.end)?;
        let places = top..*end;
        self.inside[places.clone()].fill(false);
        self.tops.remove(&top);
        Some(places)
    }

    /// The places that are in one.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.tops.iter().flat_map(|(at, top)| at + 1..top.end)
    }
}

/// What will be noted, by the place of the folder, as far as it is known before there are trees.
pub(super) struct Drafts(Vec<(usize, Subtree)>);

/// A folder of which all is seen that is below it.
#[derive(Default)]
struct Below {
    totals: Totals,
    receipts: Vec<u8>,
    /// Something in it has no receipt that says it all.
    is_more: bool,
}

impl Drafts {
    /// What a snapshot that began at `began` can note of the folders in `walked`; what it
    /// left `untouched` is left to [`Drafts::finish`].
    pub(super) fn of(
        walked: &Walk,
        contents: &Contents,
        digests: &Digests,
        untouched: &Untouched,
        began: Moment,
    ) -> Drafts {
        let mut drafts = Vec::new();
        let mut folders: HashMap<usize, Below> = HashMap::new();
        for at in untouched.others(walked).into_iter().skip(1).rev() {
            let found = &walked.found[at];
            let mut one = Below::default();
            if found.kind == Kind::Directory {
                let Below { totals, receipts, is_more } = match untouched.tree(at) {
                    Some((_, totals)) => Below { totals, ..Below::default() },
                    None => folders.remove(&at).unwrap_or_default(),
                };
                (one.totals, one.is_more) = (totals, is_more);
                one.totals.directories += 1;
                if let (false, None, Some(digest)) = (is_more, untouched.tree(at), digests.0.get(&at)) {
                    drafts.push((at, Subtree { digest: *digest, tree: TreeId([0; 16]), totals, receipts }));
                }
            } else {
                let node = contents.nodes[at].as_ref().map(|(node, _)| node);
                one = entry(found, node, contents.receipts.get(&at), began);
                one.is_more |= contents.other_links.contains(&at);
            }
            let folder = folders.entry(found.parent).or_default();
            folder.totals.add(&one.totals);
            folder.receipts.append(&mut one.receipts);
            folder.is_more |= one.is_more;
        }
        Drafts(drafts)
    }

    /// Those of `receipts` that are not noted with a subtree.
    pub(super) fn others(&self, walked: &Walk, receipts: HashMap<usize, Receipt>) -> HashMap<PathBuf, Receipt> {
        let mut is_noted = vec![false; walked.found.len()];
        self.0.iter().for_each(|(at, _)| is_noted[*at] = true);
        let is_left = |at: usize| !is_noted[walked.found[at].parent];
        let mut others = HashMap::with_capacity(receipts.keys().filter(|at| is_left(**at)).count());
        let left = receipts.into_iter().filter(|(at, _)| is_left(*at));
        others.extend(left.map(|(at, receipt)| (walked.found[at].path.clone(), receipt)));
        others
    }

    /// The notes, with the `trees` of the folders by their places, and what was `noted` of the `untouched` ones.
    pub(super) fn finish(
        self,
        walked: &Walk,
        trees: &HashMap<usize, TreeId>,
        (noted, untouched): (Option<&Subtrees>, &Untouched),
    ) -> Subtrees {
        let path = |at: usize| walked.found[at].path.clone();
        let draft = |(at, subtree): (usize, Subtree)| Some((path(at), Subtree { tree: *trees.get(&at)?, ..subtree }));
        let mut all: Subtrees = self.0.into_iter().filter_map(draft).collect();
        let folders = untouched.tops.iter().flat_map(|(at, top)| *at..top.end);
        let folders = folders.filter(|at| walked.found[*at].kind == Kind::Directory);
        all.extend(folders.filter_map(|at| Some((path(at), noted?.get(&walked.found[at].path)?.clone()))));
        all
    }
}

/// What is to be said of an entry that is no folder.
fn entry(found: &Found, node: Option<&Node>, receipt: Option<&Receipt>, began: Moment) -> Below {
    let mut below = Below::default();
    match node {
        Some(Node::Symlink(_)) => {
            below.totals.symlinks = 1;
            // Nobody writes to a link: its times are those of a call.
            below.is_more = !Receipt::of_database(found.stamp, [None; 2]).is_safe(began);
        }
        Some(Node::File { size, consistency: Consistency::Stable, .. }) => {
            let is_all = receipt == Some(&Receipt::of_file(found.stamp)) && Sidecar::named(&found.path).is_none();
            (below.totals.files, below.totals.bytes, below.is_more) = (1, *size, !is_all);
            put_bytes(&mut below.receipts, found.path.file_name().map_or(b"", OsStrExt::as_bytes));
            put_stamp(&mut below.receipts, &found.stamp);
        }
        _ => below.is_more = true,
    }
    below
}

#[cfg(test)]
mod tests;
