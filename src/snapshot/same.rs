//! Files that are read again though they hardly ever changed: no receipt vouches for them yet, since their last change
//! is too recent to rely on stamps alone ([`super::receipts`]).
//!
//! There may be thousands of them, most of them small. To save each costs several looks, and goes one after the other.
//! Here they are read on all cores, and held against the chunks that the parent snapshot names: if every id is the
//! same, so is the content. Whatever is not as simple as that is left to [`super::capture`], which also tells why.

use std::collections::HashSet;
use std::path::Path;

use rayon::prelude::*;

use super::save::is_zero;
use super::sidecar::Sidecar;
use super::take::Parent;
use super::tree::{Consistency, Content, Entry, Node};
use crate::crypto::keys::Keys;
use crate::id::ChunkId;
use crate::source::handle::FileHandle;
use crate::source::sqlite::looks_like_database;
use crate::source::walk::{Found, Kind, Walk, stamp};

/// A larger file is left to the capture, in bytes: so much memory it may take for each core.
const LARGEST: u64 = 512 * 1024;

/// The chunks that `found` must still have, if it is a file that is worth holding against them.
pub(super) fn expected<'p>(found: &Found, parent: &'p Parent) -> Option<&'p [(u32, ChunkId)]> {
    if found.kind != Kind::File
        || found.stamp.size > LARGEST
        || !parent.trusted
        || Sidecar::named(&found.path).is_some()
    {
        return None;
    }
    match parent.entry(found)? {
        Entry {
            node: Node::File { size, consistency: Consistency::Stable, content: Content::Chunks(chunks) }, ..
        } if *size == found.stamp.size => Some(chunks),
        _ => None,
    }
}

/// Which of the files at `places` in the walk have the very content that they have in the parent snapshot, read while
/// their stamps stood still.
pub(super) fn find(keys: &Keys, source: &Path, walked: &Walk, parent: &Parent, places: &[usize]) -> HashSet<usize> {
    let is_same = |buffer: &mut Vec<u8>, at: usize| -> Option<bool> {
        let found = &walked.found[at];
        let chunks = expected(found, parent)?;
        let path = source.join(&found.path);
        let handle = FileHandle::open(&path).ok()?;
        let size = found.stamp.size as usize;
        // One byte more than there should be: it has grown if that is there.
        buffer.resize(size + 1, 0);
        if handle.read_at(buffer, 0).ok()? != size || looks_like_database(&buffer[..size]).is_some() {
            return None;
        }
        let mut rest = &buffer[..size];
        for (length, id) in chunks {
            let (span, more) = rest.split_at_checked(*length as usize)?;
            let found = if is_zero(span) { ChunkId::ZEROS } else { keys.chunk_id(span) };
            if found != *id {
                return None;
            }
            rest = more;
        }
        let after = std::fs::symlink_metadata(&path).ok()?;
        Some(rest.is_empty() && after.is_file() && stamp(&after) == found.stamp)
    };
    places
        .par_iter()
        .with_min_len(16)
        .map_init(Vec::new, |buffer, &at| (at, is_same(buffer, at)))
        .filter_map(|(at, same)| (same == Some(true)).then_some(at))
        .collect()
}
