//! Files that are read again though they hardly ever changed: no receipt vouches for them yet, since their last change
//! is too recent to rely on stamps alone ([`super::receipts`]).
//!
//! There may be thousands of them, most of them small. To save each costs several looks, and goes one after the other.
//! Here they are read on all cores, and held against the chunks that the parent snapshot names: if every id is the
//! same, so is the content. Whatever is not as simple as that is left to [`super::capture`], which also tells why.
//!
//! Small files go folder by folder, and by the short way ([`crate::source::plain`]) where their size allows it: the
//! parent snapshot has such a file with the very size and time of change that it has now, and as bytes that stood
//! still, which is how nothing is captured that SQLite can work with. A large file is read in pieces, one recipe after
//! the other, so that memory does not grow with it.

use std::cell::Cell;
use std::collections::HashSet;
use std::path::Path;
use std::thread::LocalKey;

use rayon::prelude::*;

use super::meta::{self, Version};
use super::parent::Parent;
use super::pieces::is_zero;
use super::recipe::Recipe;
use super::sidecar::Sidecar;
use super::tree::{Consistency, Content, Entry, Node};
use crate::crypto::keys::Keys;
use crate::id::ChunkId;
use crate::index::catalog::Catalog;
use crate::source::block::Block;
use crate::source::handle::FileHandle;
use crate::source::plain::{self, Folder};
use crate::source::sqlite::looks_like_database;
use crate::source::walk::{Found, Kind, Walk, stamp};

/// So many chunks are hashed together.
const TOGETHER: usize = 64;
/// A larger file is read in pieces, in bytes: so much memory one may take for each core.
const LARGEST: u64 = 512 * 1024;
/// How much of a large file one thread reads at a time, in bytes: what stays close to the core until it is hashed.
const PIECE: u64 = 256 * 1024;
/// So many small files are read by one thread at a time, at most.
const BATCH: usize = 32;

/// What `found` must still be, if it is a file that is worth holding against it.
pub(super) fn expected<'p>(found: &Found, parent: &'p Parent) -> Option<&'p Content> {
    if found.kind != Kind::File || !parent.trusted || Sidecar::named(&found.path).is_some() {
        return None;
    }
    match parent.entry(found)? {
        entry @ Entry { node: Node::File { size, consistency: Consistency::Stable, content }, .. } => {
            // A large one that was written to is read once only, where it is saved.
            let is_worth_it = found.stamp.size <= LARGEST || is_of_then(found, entry);
            (*size == found.stamp.size && is_worth_it).then_some(content)
        }
        _ => None,
    }
}

/// Whether the file was not written to since the parent snapshot, as far as its time of change tells.
fn is_of_then(found: &Found, entry: &Entry) -> bool {
    (entry.attributes.mtime, entry.attributes.mtime_nanos) == found.mtime()
}

/// Which of the files at `places` in the walk have the very content that they have in the parent snapshot, read while
/// their stamps stood still.
pub(super) fn find(
    catalog: &Catalog,
    source: &Path,
    walked: &Walk,
    parent: &Parent,
    places: &[usize],
) -> HashSet<usize> {
    let comparing = Comparing { catalog, keys: catalog.packs().keys(), source, walked, parent };
    let is_expected = |at: &&usize| walked.found.get(**at).is_some_and(|found| expected(found, parent).is_some());
    let places = places.iter().filter(is_expected).copied();
    let (small, large): (Vec<usize>, Vec<usize>) = places.partition(|at| walked.found[*at].stamp.size <= LARGEST);
    let folders = small.chunk_by(|a, b| walked.found[*a].parent == walked.found[*b].parent);
    let batches: Vec<&[usize]> = folders.flat_map(|folder| folder.chunks(BATCH)).collect();
    let mut same: HashSet<usize> = batches
        .into_par_iter()
        .with_max_len(1)
        .flat_map_iter(|batch| with(&BUFFER, |buffer| comparing.small(batch, buffer)))
        .collect();
    same.extend(large.into_iter().filter(|at| comparing.is_same_large(*at) == Some(true)));
    same
}

thread_local! {
    static BUFFER: Cell<Vec<u8>> = Cell::default();
    static BLOCK: Cell<Block> = Cell::default();
}

/// Lends what the thread has: a buffer that is made anew for each file costs more than the reading.
fn with<B: Default, T>(lent: &'static LocalKey<Cell<B>>, act: impl FnOnce(&mut B) -> T) -> T {
    let mut buffer = lent.take();
    let answer = act(&mut buffer);
    lent.set(buffer);
    answer
}

/// A part of a large file, and the chunks that it must be.
struct Piece<'a> {
    start: u64,
    length: usize,
    chunks: &'a [(u32, ChunkId)],
}

struct Comparing<'a> {
    catalog: &'a Catalog,
    keys: &'a Keys,
    source: &'a Path,
    walked: &'a Walk,
    parent: &'a Parent,
}

impl Comparing<'_> {
    /// Those of a batch of files of one folder that are what they were.
    fn small(&self, batch: &[usize], buffer: &mut Vec<u8>) -> Vec<usize> {
        let Some(first) = batch.first() else { return Vec::new() };
        let path = &self.walked.found[self.walked.found[*first].parent].path;
        let folder = Folder::open(&self.source.join(path), path.as_os_str().is_empty()).ok();
        let mut same = Vec::with_capacity(batch.len());
        same.extend(batch.iter().filter(|at| self.is_same_small(**at, folder.as_ref(), buffer) == Some(true)));
        same
    }

    fn is_same_small(&self, at: usize, folder: Option<&Folder>, buffer: &mut Vec<u8>) -> Option<bool> {
        let found = &self.walked.found[at];
        let content = expected(found, self.parent)?;
        let entry = self.parent.entry(found)?;
        let is_plain = plain::cannot_be_locked(&found.path, found.stamp.size) && is_of_then(found, entry);
        let is_read = if let Some(folder) = folder.filter(|_| is_plain) {
            folder.read(found.path.file_name()?, &found.stamp, buffer).ok()?
        } else {
            let handle = FileHandle::open(&self.source.join(&found.path)).ok()?;
            // One byte more than there should be: it has grown if that is there.
            buffer.resize(found.stamp.size as usize + 1, 0);
            let got = handle.read_at(buffer, 0).ok()?;
            buffer.truncate(got);
            got as u64 == found.stamp.size && self.stands_still(found)
        };
        if !is_read {
            return Some(false);
        }
        if looks_like_database(buffer).is_some() {
            return Some(false);
        }
        match content {
            Content::Chunks(chunks) => Some(self.are(buffer, chunks)),
            Content::Recipes(recipes) => {
                let mut rest = &buffer[..];
                for id in recipes {
                    let recipe: Version<Recipe> = meta::load(self.catalog, *id).ok()?;
                    let (now, more) = rest.split_at_checked(recipe.value.size as usize)?;
                    if !self.are(now, &chunks(&recipe.value)) {
                        return Some(false);
                    }
                    rest = more;
                }
                Some(rest.is_empty())
            }
        }
    }

    /// Whether a large file is what it was: read in pieces, on all cores.
    fn is_same_large(&self, at: usize) -> Option<bool> {
        let found = &self.walked.found[at];
        let path = self.source.join(&found.path);
        let mut start = 0;
        let mut one = |chunks: &[(u32, ChunkId)]| {
            let mut pieces: Vec<Piece<'_>> = Vec::new();
            let mut rest = chunks;
            while !rest.is_empty() {
                let mut length = 0;
                let fitting = rest.iter().take_while(|(size, _)| {
                    let fits = length == 0 || length + u64::from(*size) <= PIECE;
                    length += if fits { u64::from(*size) } else { 0 };
                    fits
                });
                let (piece, more) = rest.split_at(fitting.count());
                pieces.push(Piece { start, length: length as usize, chunks: piece });
                (start, rest) = (start + length, more);
            }
            pieces.into_par_iter().with_max_len(1).all(|Piece { start, length, chunks }| {
                with(&BLOCK, |block| {
                    block.grow(length);
                    let buffer = &mut block[..length];
                    // A handle belongs to one thread.
                    let got = FileHandle::open(&path).and_then(|file| file.read_at(buffer, start));
                    let is_database = start == 0 && looks_like_database(buffer).is_some();
                    got.is_ok_and(|got| got == length) && !is_database && self.are(buffer, chunks)
                })
            })
        };
        match expected(found, self.parent)? {
            Content::Chunks(chunks) => {
                if !one(chunks) {
                    return Some(false);
                }
            }
            Content::Recipes(recipes) => {
                for id in recipes {
                    let recipe: Version<Recipe> = meta::load(self.catalog, *id).ok()?;
                    if !one(&chunks(&recipe.value)) {
                        return Some(false);
                    }
                }
            }
        }
        Some(start == found.stamp.size && self.stands_still(found))
    }

    fn stands_still(&self, found: &Found) -> bool {
        let now = std::fs::symlink_metadata(self.source.join(&found.path));
        now.is_ok_and(|now| now.is_file() && stamp(&now) == found.stamp)
    }

    /// Whether `bytes` are these chunks and no more.
    fn are(&self, mut bytes: &[u8], chunks: &[(u32, ChunkId)]) -> bool {
        for part in chunks.chunks(TOGETHER) {
            let mut spans = Vec::with_capacity(part.len());
            for (length, _) in part {
                let Some((span, more)) = bytes.split_at_checked(*length as usize) else { return false };
                spans.push(span);
                bytes = more;
            }
            let ids = self.keys.chunk_ids(&spans).into_iter().zip(&spans);
            let mut now = ids.map(|(id, span)| if is_zero(span) { ChunkId::ZEROS } else { id });
            if !part.iter().all(|(_, id)| now.next() == Some(*id)) {
                return false;
            }
        }
        bytes.is_empty()
    }
}

fn chunks(recipe: &Recipe) -> Vec<(u32, ChunkId)> {
    recipe.ids.iter().enumerate().map(|(nth, id)| (recipe.length(nth), *id)).collect()
}
