//! Segments: the unit of compression and of encryption.
//!
//! A segment is a run of chunks, joined, compressed with zstd and sealed once. It may name **base chunks**: then their
//! plaintexts, joined, are the prefix that zstd refers back to, and reading the segment needs those chunks first. A
//! base may itself lie in such a segment; [`MAX_DEPTH`] bounds how far that goes.
//!
//! Every segment is decompressed again and compared before it leaves this room: a compressor or a memory that is at
//! fault is caught while the data is still in hand.

use std::cell::RefCell;

use smallvec::SmallVec;
use zstd::zstd_safe::{CCtx, CParameter, DCtx};

use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::id::ChunkId;

/// A segment is closed when it holds at least this much plaintext, in bytes. Measured: below, compression suffers;
/// above, a restore of aged data opens more than it needs.
pub const TARGET: usize = 128 * 1024;
/// The most plaintext a segment can hold, in bytes: one chunk larger than [`TARGET`] has a segment of its own.
pub const MAX_PLAIN: usize = 64 * 1024 * 1024;
/// The most base plaintext, in bytes, that a segment may refer to.
pub const MAX_BASE: usize = 8 * 1024 * 1024;
/// The most base chunks a segment may name.
pub const MAX_BASES: usize = 4096;
/// How many segments with bases may have to be opened, one for the other, to read one.
pub const MAX_DEPTH: u8 = 16;
/// The most plaintext, in bytes, that may have to be opened for bases to read one segment. Without it, segments that
/// each name many chunks of the one below would be opened without an end.
pub const MAX_WORK: u64 = 512 * 1024 * 1024;
/// The zstd level. Measured on the workload: level 1 saves a quarter of the CPU and costs a tenth more bytes.
pub const LEVEL: i32 = 3;
/// A chunk is stored as a delta if that takes at most this part of its plaintext; else it is compressed better, and
/// read sooner, together with others.
const DELTA_WORTH: usize = 4;

/// What a zstd dictionary begins with (RFC 8878, section 5): a prefix that does is content all the same.
const DICTIONARY: [u8; 4] = 0xEC30_A437_u32.to_le_bytes();

/// What the chunks of a segment are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// File content.
    Data,
    /// Directories.
    Tree,
    /// Recipes.
    Recipe,
}

impl Content {
    /// All of them.
    pub const ALL: [Content; 3] = [Content::Data, Content::Tree, Content::Recipe];

    pub(super) fn code(self) -> u8 {
        match self {
            Content::Data => 0,
            Content::Tree => 1,
            Content::Recipe => 2,
        }
    }

    pub(super) fn from_code(code: u8) -> Result<Self, Malformed> {
        Content::ALL
            .into_iter()
            .find(|c| c.code() == code)
            .ok_or(Malformed("a segment's content is of an unknown kind"))
    }
}

/// How a segment's plaintext is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As it is: it does not compress.
    Raw,
    /// One zstd frame (RFC 8878).
    Zstd,
}

/// One chunk of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Its id.
    pub id: ChunkId,
    /// Its length in bytes.
    pub length: u32,
}

/// The chunks that a segment builds on: mostly none, or one.
pub type Bases = SmallVec<[ChunkId; 1]>;
/// The chunks of a segment. One that is stored as a difference has one, and a store of a thousand snapshots has a
/// hundred thousand such: an allocation for each, and one for its base, was most of the memory of its footers.
pub type Chunks = SmallVec<[ChunkEntry; 1]>;

/// What a footer says about one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Where it begins in the pack, in bytes.
    pub offset: u64,
    /// What it takes in the pack, seal included, in bytes.
    pub stored: u32,
    /// Its plaintext's length in bytes: the sum of its chunks'.
    pub plain: u32,
    /// What its chunks are.
    pub content: Content,
    /// How its plaintext is stored.
    pub codec: Codec,
    /// How many segments must be opened before it: 0 without bases.
    pub depth: u8,
    /// The chunks whose plaintexts, joined, are its prefix.
    pub bases: Bases,
    /// Its chunks, in order.
    pub chunks: Chunks,
}

impl SegmentEntry {
    /// Where the `nth` chunk lies in the segment's plaintext.
    pub fn span(&self, nth: usize) -> Option<std::ops::Range<usize>> {
        let length = self.chunks.get(nth)?.length as usize;
        let start = self.chunks[..nth].iter().map(|c| c.length as usize).sum::<usize>();
        Some(start..start + length)
    }

    /// What each of its chunks has of `plain`, its plaintext.
    pub fn split<'p>(&self, plain: &'p [u8]) -> Vec<&'p [u8]> {
        let mut rest = plain;
        let mut next = |chunk: &ChunkEntry| rest.split_off(..chunk.length as usize).unwrap_or_default();
        self.chunks.iter().map(&mut next).collect()
    }
}

thread_local! {
    static COMPRESSOR: RefCell<CCtx<'static>> = RefCell::new(compressor(LEVEL));
    /// For deltas, which are small: what zstd keeps at hand for them has another size than for segments.
    static DELTAS: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
    static DECOMPRESSOR: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

fn compressor(level: i32) -> CCtx<'static> {
    let mut context = CCtx::create();
    // Cannot fail: the level is a constant within zstd's range.
    let _ = context.set_parameter(CParameter::CompressionLevel(level));
    // The footer holds the length, authenticated; the frame need not.
    let _ = context.set_parameter(CParameter::ContentSizeFlag(false));
    context
}

/// Compresses `plain`, referring back to `prefix`, into a buffer that has room for the seal. Data that does not shrink
/// by a fortieth is kept as it is.
pub fn compress(plain: &[u8], prefix: &[u8]) -> Result<(Codec, Vec<u8>)> {
    let failed = |code| Error::failed(format!("zstd failed: {}", zstd::zstd_safe::get_error_name(code)));
    let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(plain.len()) + crate::crypto::seal::OVERHEAD);
    if prefix.is_empty() {
        COMPRESSOR.with_borrow_mut(|context| context.compress2(&mut out, plain)).map_err(failed)?;
    } else if prefix.starts_with(&DICTIONARY) {
        // Only the other call takes it for what it is not. A context for each is what it costs: as much as a page.
        let mut context = compressor(LEVEL);
        context.ref_prefix(prefix).map_err(failed)?;
        context.compress2(&mut out, plain).map_err(failed)?;
    } else {
        DELTAS
            .with_borrow_mut(|context| context.compress_using_dict(&mut out, plain, prefix, LEVEL))
            .map_err(failed)?;
    }
    if out.len() >= plain.len() - plain.len() / 40 {
        out.clear();
        out.extend_from_slice(plain);
        return Ok((Codec::Raw, out));
    }
    // A pack is kept until all of it is there: without the room that compression might have needed.
    out.shrink_to(out.len() + crate::crypto::seal::OVERHEAD);
    match decompress(Codec::Zstd, &out, plain.len(), prefix) {
        Ok(again) if again == plain => Ok((Codec::Zstd, out)),
        _ => Err(Error::failed("compressed data does not decompress to what it was made from")
            .hint("memory or processor of this machine may be at fault; nothing was committed")),
    }
}

/// Compresses one chunk against its base, for a segment of its own; nothing if that is not worth it.
pub fn compress_delta(plain: &[u8], base: &[u8]) -> Result<Option<Vec<u8>>> {
    let (codec, out) = compress(plain, base)?;
    Ok((codec == Codec::Zstd && out.len() <= plain.len() / DELTA_WORTH).then_some(out))
}

/// Decompresses to exactly `length` bytes; never allocates more.
pub fn decompress(codec: Codec, stored: &[u8], length: usize, prefix: &[u8]) -> Result<Vec<u8>, Malformed> {
    if length > MAX_PLAIN {
        return Err(Malformed("a segment is larger than the format allows"));
    }
    let plain = match codec {
        Codec::Raw => stored.to_vec(),
        Codec::Zstd => {
            let mut out = Vec::with_capacity(length);
            let done = if prefix.is_empty() {
                DECOMPRESSOR.with_borrow_mut(|context| context.decompress(&mut out, stored))
            } else if prefix.starts_with(&DICTIONARY) {
                // Only this call takes it for what it is. A context for each is what it costs: as much as a page.
                let mut context = DCtx::create();
                context.ref_prefix(prefix).and_then(|_| context.decompress(&mut out, stored))
            } else {
                DECOMPRESSOR.with_borrow_mut(|context| context.decompress_using_dict(&mut out, stored, prefix))
            };
            if done.is_err() {
                return Err(Malformed("a segment does not decompress"));
            }
            out
        }
    };
    if plain.len() == length { Ok(plain) } else { Err(Malformed("a segment has another length than its footer says")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_comes_back() {
        let text = b"snapshot ".repeat(1000);
        let noise: Vec<u8> =
            (0..9000u32).flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..4].to_vec()).collect();
        for (plain, codec) in [(&text, Codec::Zstd), (&noise, Codec::Raw)] {
            let (how, stored) = compress(plain, &[]).expect("compresses");
            assert_eq!(how, codec);
            assert_eq!(&decompress(how, &stored, plain.len(), &[]).expect("decompresses"), plain);
        }
    }

    #[test]
    fn a_prefix_makes_noise_small() {
        let base: Vec<u8> =
            (0..4096u32).flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..4].to_vec()).collect();
        let mut changed = base.clone();
        changed[5000] ^= 1;
        let (how, stored) = compress(&changed, &base).expect("compresses");
        assert_eq!(how, Codec::Zstd);
        assert!(stored.len() < 100, "{}", stored.len());
        assert_eq!(decompress(how, &stored, changed.len(), &base).expect("decompresses"), changed);
        assert!(decompress(how, &stored, changed.len(), &[]).is_err());
    }

    #[test]
    fn a_prefix_that_looks_like_a_dictionary_is_only_bytes() {
        let mut base = b"\x37\xa4\x30\xec".to_vec();
        base.extend(b"not a dictionary at all ".repeat(100));
        let (how, stored) = compress(&base, &base).expect("compresses");
        assert_eq!(decompress(how, &stored, base.len(), &base).expect("decompresses"), base);
    }

    #[test]
    fn a_bomb_is_not_inflated() {
        let (how, stored) = compress(&vec![0; 1 << 20], &[]).expect("compresses");
        assert!(decompress(how, &stored, 1 << 10, &[]).is_err());
        assert!(decompress(how, &stored, MAX_PLAIN + 1, &[]).is_err());
    }
}
