//! The layout of a pack. This is its only description in code; `docs/FORMAT.md` is the one for people.
//!
//! ```text
//! header   74 bytes   magic, version, flags, store id, pack id, salt
//! segments            sealed, back to back, in the order of their numbers
//! footer              sealed: codec byte, plain length, then the tables below, zstd or raw
//! trailer  16 bytes   the sealed footer's length, its inverse, magic
//! ```
//!
//! Everything in the header and the trailer is either compared or goes into a key or the additional data, so that no
//! flipped bit passes. Footers are read with limits on every count; what they claim is checked against the pack's size
//! before anything is believed.

use std::collections::HashSet;

use super::segment::{self, Bases, ChunkEntry, Chunks, Codec, Content, MAX_BASES, MAX_DEPTH, MAX_PLAIN, SegmentEntry};
use crate::codec::{Malformed, Reader, put_varint};
use crate::crypto::seal::{MAX_SEGMENTS, OVERHEAD};
use crate::error::Result;
use crate::id::{ChunkId, PackId, StoreId};

const MAGIC: &[u8; 8] = b"nbakpack";
const TRAILER_MAGIC: &[u8; 8] = b"nbakfoot";
/// The version that this program writes.
pub const VERSION: u8 = 1;
/// Length of the header in bytes.
pub const HEADER: usize = 74;
/// Length of the trailer in bytes.
pub const TRAILER: usize = 16;
/// The most chunks a pack may hold.
pub const MAX_CHUNKS: usize = 1 << 20;
/// The most chunks a segment may hold.
pub const MAX_SEGMENT_CHUNKS: u64 = 1 << 16;
/// The most snapshot records a pack may hold.
pub const MAX_RECORDS: usize = 4096;
/// The longest snapshot record, in bytes.
pub const MAX_RECORD: usize = 64 * 1024;
/// The longest sealed footer, in bytes.
pub const MAX_FOOTER: usize = 64 * 1024 * 1024;

/// A pack's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The store it belongs to.
    pub store: StoreId,
    /// Its own id.
    pub pack: PackId,
    /// What its key is derived with.
    pub salt: [u8; 32],
}

impl Header {
    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8] = VERSION;
        out[10..26].copy_from_slice(&self.store.0);
        out[26..42].copy_from_slice(&self.pack.0);
        out[42..].copy_from_slice(&self.salt);
        out
    }

    /// Reads the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Header, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.array::<8>()? != *MAGIC {
            return Err(Malformed("the header is not that of a pack"));
        }
        if reader.u8()? != VERSION || reader.u8()? != 0 {
            return Err(Malformed("the pack is of another format version: use a newer nbak"));
        }
        Ok(Header { store: StoreId(reader.array()?), pack: PackId(reader.array()?), salt: reader.array()? })
    }
}

/// The trailer for a sealed footer of `length` bytes.
pub fn encode_trailer(length: u32) -> [u8; TRAILER] {
    let mut out = [0; TRAILER];
    out[..4].copy_from_slice(&length.to_le_bytes());
    out[4..8].copy_from_slice(&(!length).to_le_bytes());
    out[8..].copy_from_slice(TRAILER_MAGIC);
    out
}

/// The length of the sealed footer before this trailer.
pub fn decode_trailer(bytes: &[u8]) -> Result<usize, Malformed> {
    let mut reader = Reader::new(bytes);
    let (length, inverse) = (reader.u32()?, reader.u32()?);
    if reader.array::<8>()? != *TRAILER_MAGIC || length != !inverse {
        return Err(Malformed("the pack has no trailer: it was cut short or overwritten"));
    }
    if length as usize > MAX_FOOTER {
        return Err(Malformed("the footer is larger than the format allows"));
    }
    reader.end()?;
    Ok(length as usize)
}

/// What a pack holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footer {
    /// Its segments, by number.
    pub segments: Vec<SegmentEntry>,
    /// Snapshot records, as they are.
    pub records: Vec<Vec<u8>>,
}

impl Footer {
    /// The footer's plaintext.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut tables = Vec::new();
        put_varint(&mut tables, self.segments.len() as u64);
        for segment in &self.segments {
            put_varint(&mut tables, u64::from(segment.stored));
            tables.push(segment.content.code());
            tables.push(match segment.codec {
                Codec::Raw => 0,
                Codec::Zstd => 1,
            });
            tables.push(segment.depth);
            put_varint(&mut tables, segment.bases.len() as u64);
            put_varint(&mut tables, segment.chunks.len() as u64);
        }
        let chunks = || self.segments.iter().flat_map(|s| &s.chunks);
        chunks().for_each(|chunk| put_varint(&mut tables, u64::from(chunk.length)));
        chunks().for_each(|chunk| tables.extend_from_slice(&chunk.id.0));
        self.segments.iter().flat_map(|s| &s.bases).for_each(|base| tables.extend_from_slice(&base.0));
        put_varint(&mut tables, self.records.len() as u64);
        for record in &self.records {
            put_varint(&mut tables, record.len() as u64);
            tables.extend_from_slice(record);
        }
        let (codec, mut body) = segment::compress(&tables, &[])?;
        let mut out = Vec::with_capacity(body.len() + 8 + OVERHEAD);
        out.push(u8::from(codec == Codec::Zstd));
        out.extend_from_slice(&(tables.len() as u32).to_le_bytes());
        out.append(&mut body);
        Ok(out)
    }

    /// Reads a footer's plaintext. `body` is the room for segments in the pack, in bytes, which they must fill.
    pub fn decode(plain: &[u8], body: u64) -> Result<Footer, Malformed> {
        let mut reader = Reader::new(plain);
        let codec = match reader.u8()? {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            _ => return Err(Malformed("the footer's codec is unknown")),
        };
        let length = reader.u32()? as usize;
        let tables = segment::decompress(codec, reader.take(reader.remaining())?, length, &[])?;
        Self::decode_tables(&tables, body)
    }

    fn decode_tables(tables: &[u8], body: u64) -> Result<Footer, Malformed> {
        let mut reader = Reader::new(tables);
        let count = reader.count(6)?;
        if count > MAX_SEGMENTS as usize {
            return Err(Malformed("the footer lists more segments than a pack can have"));
        }
        let mut segments = Vec::with_capacity(count);
        let mut counts = Vec::with_capacity(count);
        let (mut offset, mut total) = (HEADER as u64, 0usize);
        for _ in 0..count {
            let stored =
                reader.varint_up_to(MAX_PLAIN as u64 + OVERHEAD as u64, "a segment is larger than it can be")?;
            let content = Content::from_code(reader.u8()?)?;
            let codec = match reader.u8()? {
                0 => Codec::Raw,
                1 => Codec::Zstd,
                _ => return Err(Malformed("a segment's codec is unknown")),
            };
            let depth = reader.u8()?;
            let bases = reader.varint_up_to(MAX_BASES as u64, "a segment names more bases than it can")? as usize;
            let chunks = reader.varint_up_to(MAX_SEGMENT_CHUNKS, "a segment has more chunks than it can")? as usize;
            if depth > MAX_DEPTH || (depth == 0) != (bases == 0) || chunks == 0 {
                return Err(Malformed("a segment's bases and depth do not agree"));
            }
            total += chunks;
            counts.push((bases, chunks));
            let stored = stored as u32;
            let (chunks, bases) = (Chunks::new(), Bases::new());
            segments.push(SegmentEntry { offset, stored, plain: 0, content, codec, depth, bases, chunks });
            offset += u64::from(stored);
        }
        if total > MAX_CHUNKS || total > reader.remaining() / 17 {
            return Err(Malformed("the footer counts more chunks than it lists"));
        }
        if offset != HEADER as u64 + body {
            return Err(Malformed("the segments do not fill the pack"));
        }
        for (segment, &(_, chunks)) in segments.iter_mut().zip(&counts) {
            let mut plain = 0u64;
            // To the item: there may be as many segments as chunks, and all footers of a store in memory.
            segment.chunks.reserve_exact(chunks);
            for _ in 0..chunks {
                let length = reader.varint_up_to(MAX_PLAIN as u64, "a chunk is larger than it can be")? as u32;
                plain += u64::from(length);
                segment.chunks.push(ChunkEntry { id: ChunkId::ZEROS, length });
            }
            if plain > MAX_PLAIN as u64 {
                return Err(Malformed("a segment's plaintext is larger than it can be"));
            }
            segment.plain = plain as u32;
        }
        let mut seen = HashSet::with_capacity(total);
        for chunk in segments.iter_mut().flat_map(|s| &mut s.chunks) {
            chunk.id = ChunkId(reader.array()?);
            if chunk.id == ChunkId::ZEROS {
                return Err(Malformed("the footer lists the id that stands for zeros"));
            }
            if !seen.insert(chunk.id) {
                return Err(Malformed("the footer lists a chunk twice"));
            }
        }
        for (segment, &(bases, _)) in segments.iter_mut().zip(&counts) {
            segment.bases.reserve_exact(bases.min(reader.remaining() / 16));
            for _ in 0..bases {
                segment.bases.push(ChunkId(reader.array()?));
            }
        }
        let count = reader.count(1)?;
        if count > MAX_RECORDS {
            return Err(Malformed("the footer holds more records than it can"));
        }
        let mut records = Vec::with_capacity(count);
        for _ in 0..count {
            let record = reader.bytes()?;
            if record.len() > MAX_RECORD {
                return Err(Malformed("a snapshot record is larger than it can be"));
            }
            records.push(record.to_vec());
        }
        reader.end()?;
        Ok(Footer { segments, records })
    }

    /// The footer without ids of chunks and without records: what it takes to open a segment of which it is known that
    /// it holds a chunk, and to prove by the chunk's own id that it does. A tenth of the footer, for the index.
    pub fn outline(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.segments.len() as u64);
        for segment in &self.segments {
            put_varint(&mut out, u64::from(segment.stored));
            out.push(segment.content.code());
            out.push(u8::from(segment.codec == Codec::Zstd));
            out.push(segment.depth);
            put_varint(&mut out, segment.bases.len() as u64);
            segment.bases.iter().for_each(|base| out.extend_from_slice(&base.0));
            // Runs of one length: pages are.
            for run in segment.chunks.chunk_by(|a, b| a.length == b.length) {
                put_varint(&mut out, run.len() as u64);
                put_varint(&mut out, u64::from(run[0].length));
            }
            put_varint(&mut out, 0);
        }
        out
    }

    /// Reads an outline: a footer in which every chunk has the id that stands for zeros.
    pub fn from_outline(outline: &[u8]) -> Result<Footer, Malformed> {
        let mut reader = Reader::new(outline);
        let count = reader.count(7)?;
        let mut segments = Vec::with_capacity(count);
        let mut offset = HEADER as u64;
        for _ in 0..count {
            let stored = reader.varint_up_to(u64::from(u32::MAX), "a segment is larger than it can be")? as u32;
            let content = Content::from_code(reader.u8()?)?;
            let codec = if reader.u8()? == 0 { Codec::Raw } else { Codec::Zstd };
            let depth = reader.u8()?;
            let bases = (0..reader.count(16)?).map(|_| reader.array().map(ChunkId)).collect::<Result<_, _>>()?;
            let (mut chunks, mut plain) = (Chunks::new(), 0u64);
            loop {
                let run = reader.varint_up_to(MAX_SEGMENT_CHUNKS, "a segment has more chunks than it can")? as usize;
                if run == 0 {
                    break;
                }
                let length = reader.varint_up_to(MAX_PLAIN as u64, "a chunk is larger than it can be")? as u32;
                plain += run as u64 * u64::from(length);
                if chunks.len() + run > MAX_SEGMENT_CHUNKS as usize || plain > MAX_PLAIN as u64 {
                    return Err(Malformed("a segment is larger than it can be"));
                }
                chunks.resize(chunks.len() + run, ChunkEntry { id: ChunkId::ZEROS, length });
            }
            segments.push(SegmentEntry { offset, stored, plain: plain as u32, content, codec, depth, bases, chunks });
            offset += u64::from(stored);
        }
        reader.end()?;
        Ok(Footer { segments, records: Vec::new() })
    }

    /// All chunks, each with its segment's number and its place there.
    pub fn chunks(&self) -> impl Iterator<Item = (usize, usize, &ChunkEntry)> {
        self.segments
            .iter()
            .enumerate()
            .flat_map(|(s, segment)| segment.chunks.iter().enumerate().map(move |(n, c)| (s, n, c)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Footer {
        let chunk = |n: u8| ChunkEntry { id: ChunkId([n; 16]), length: 100 + u32::from(n) };
        let segment = |offset, depth: u8, bases: Vec<ChunkId>, chunks: Vec<ChunkEntry>| SegmentEntry {
            offset,
            stored: 50,
            plain: chunks.iter().map(|c| c.length).sum(),
            content: Content::Data,
            codec: Codec::Zstd,
            depth,
            bases: bases.into(),
            chunks: chunks.into(),
        };
        Footer {
            segments: vec![
                segment(74, 0, vec![], vec![chunk(1), chunk(2)]),
                segment(124, 1, vec![ChunkId([1; 16])], vec![chunk(3)]),
            ],
            records: vec![b"{}".to_vec()],
        }
    }

    #[test]
    fn footers_round_trip() {
        let plain = sample().encode().expect("encodes");
        assert_eq!(Footer::decode(&plain, 100), Ok(sample()));
        assert!(Footer::decode(&plain, 101).is_err(), "segments must fill the pack");
    }

    #[test]
    fn an_outline_is_the_footer_without_ids() {
        let mut expected = sample();
        expected.segments.iter_mut().flat_map(|s| &mut s.chunks).for_each(|chunk| chunk.id = ChunkId::ZEROS);
        expected.records.clear();
        let outline = sample().outline();
        assert_eq!(Footer::from_outline(&outline), Ok(expected));
        for cut in 0..outline.len() {
            assert!(Footer::from_outline(&outline[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn hostile_footers_are_refused_quickly() {
        let mut tables = Vec::new();
        put_varint(&mut tables, u64::MAX);
        assert!(Footer::decode_tables(&tables, 0).is_err());
        let mut twice = sample();
        twice.segments[1].chunks[0].id = ChunkId([1; 16]);
        assert!(Footer::decode(&twice.encode().expect("encodes"), 100).is_err());
        let mut deep = sample();
        deep.segments[1].depth = MAX_DEPTH + 1;
        assert!(Footer::decode(&deep.encode().expect("encodes"), 100).is_err());

        // Whatever number stands wherever, and wherever it ends: it is read or refused, and nobody waits for that.
        let encoded = sample().encode().expect("encodes");
        let length = u32::from_le_bytes(encoded[1..5].try_into().expect("four bytes")) as usize;
        let codec = if encoded[0] == 0 { Codec::Raw } else { Codec::Zstd };
        let tables = segment::decompress(codec, &encoded[5..], length, &[]).expect("its own tables");
        let mut hostile: Vec<Vec<u8>> = (0..tables.len()).map(|cut| tables[..cut].to_vec()).collect();
        for at in 0..tables.len() {
            for number in [0, 1, 127, 1 << 16, 1 << 24, 1 << 31, 1 << 40, 1 << 62, u64::MAX] {
                let mut one = tables[..at].to_vec();
                put_varint(&mut one, number);
                one.extend_from_slice(&tables[at + 1..]);
                hostile.push(one);
            }
        }
        let zeros = vec![0; MAX_PLAIN];
        let (codec, bomb) = segment::compress(&zeros, &[]).expect("compresses");
        assert_eq!(codec, Codec::Zstd);
        let bomb = [&[1][..], &(MAX_PLAIN as u32).to_le_bytes(), &bomb].concat();
        let took = |act: &dyn Fn()| {
            let start = std::time::Instant::now();
            act();
            start.elapsed()
        };
        let longest = hostile.iter().map(|one| took(&|| drop(Footer::decode_tables(one, 100)))).max();
        let second = std::time::Duration::from_secs(1);
        assert!(hostile.len() > 500 && longest.is_some_and(|longest| longest < second), "{longest:?}");
        // A thousandth of a bomb's length is what it takes to send it.
        assert!(bomb.len() < MAX_PLAIN / 1000 && took(&|| assert!(Footer::decode(&bomb, 100).is_err())) < 10 * second);
    }

    #[test]
    fn headers_and_trailers_round_trip() {
        let header = Header { store: StoreId([1; 16]), pack: PackId([2; 16]), salt: [3; 32] };
        assert_eq!(Header::decode(&header.encode()), Ok(header.clone()));
        let mut bytes = header.encode();
        bytes[9] = 1;
        assert!(Header::decode(&bytes).is_err(), "unknown flags");
        assert_eq!(decode_trailer(&encode_trailer(77)), Ok(77));
        for at in 0..TRAILER {
            let mut bytes = encode_trailer(77);
            bytes[at] ^= 4;
            assert!(decode_trailer(&bytes).is_err());
        }
    }
}
