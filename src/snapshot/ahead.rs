//! Small files that are read ahead of their turn, a batch at a time and on all cores.
//!
//! A first snapshot reads thousands of them. To look at one, open, read, cut and hash it takes longer than to store
//! what is new of it, and only the storing has an order. What is not as simple as it should be, a file that changed
//! while it was read say, is not answered for here: then it is read in its turn ([`super::capture`]), which also tells
//! why.

use std::path::Path;

use super::captured::Bytes;
use super::pieces::Pieces;
use crate::chunk::{Cut, Cutter};
use crate::crypto::keys::Keys;
use crate::source::walk::{Found, Identity, Stamp, lies_in, stamp};

/// A larger file is read in its turn, in bytes.
pub(super) const LARGEST: u64 = 256 * 1024;
/// So many files are read at a time, and so many bytes of them.
pub(super) const FILES: usize = 256;
pub(super) const ALL: u64 = 4 * 1024 * 1024;

/// A file that was read while its stamp stood still.
pub struct Ahead {
    /// The stamp.
    pub(super) stamp: Stamp,
    /// All of it.
    pub(super) bytes: Vec<u8>,
    /// How it was cut, and into what.
    pub(super) cut: Cut,
    pub(super) pieces: Pieces,
}

/// What it takes to read files ahead.
pub(super) struct Reader<'a> {
    pub(super) cutter: &'a Cutter,
    pub(super) keys: &'a Keys,
}

impl Reader<'_> {
    /// Reads `found`, which lies in `folder`.
    pub(super) fn read(&self, source: &Path, found: &Found, folder: Identity) -> Option<Ahead> {
        let path = source.join(&found.path);
        let meta = || std::fs::symlink_metadata(&path).ok().filter(|meta| meta.is_file() && lies_in(&path, folder));
        let look = || meta().map(|meta| stamp(&meta));
        let seen = look().filter(|seen| seen.size <= LARGEST)?;
        let mut bytes = vec![0; seen.size as usize];
        let got = Bytes::open(&path).and_then(|file| file.read_full(&mut bytes, 0)).ok()?;
        if got < bytes.len() || look() != Some(seen) {
            return None;
        }
        let cut = Cut::for_file(seen.size);
        let pieces = Pieces::of(self.cutter, self.keys, cut, &bytes, true);
        Some(Ahead { stamp: seen, bytes, cut, pieces })
    }
}
