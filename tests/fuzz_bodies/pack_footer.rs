//! Footers, and packs around them.
//!
//! The first byte says what the rest is: a footer's plaintext; its tables, to be stored raw or compressed; or a whole
//! object, as it lies on a disk that anybody can write to.

use nbak::codec::{Malformed, Reader};
use nbak::store::pack::{
    Footer, HEADER, Header, MAX_CHUNKS, MAX_RECORD, MAX_RECORDS, TRAILER, decode_trailer, encode_trailer,
};
use nbak::store::segment::{self, Codec, Content, MAX_DEPTH, MAX_PLAIN};

use super::sealed;

/// Packs with more room for segments than this, in bytes, are only read as footers.
const ROOM_MOST: u64 = 64 * 1024;
/// So are packs of more segments.
const SEGMENTS_MOST: usize = 1024;
/// Larger tables, in bytes, are a bomb: they are read, and not looked at twice.
const TABLES_MOST: usize = 1 << 20;

pub fn body(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => footer(rest),
        1 => footer(&plain(Codec::Raw, rest.len(), rest)),
        2 => {
            let (codec, stored) = segment::compress(rest, &[]).expect("zstd compresses anything");
            footer(&plain(codec, rest.len(), &stored));
        }
        _ => object(rest),
    }
}

/// A footer's plaintext around its tables.
fn plain(codec: Codec, length: usize, stored: &[u8]) -> Vec<u8> {
    let mut plain = vec![u8::from(codec == Codec::Zstd)];
    plain.extend_from_slice(&(length as u32).to_le_bytes());
    plain.extend_from_slice(stored);
    plain
}

/// The tables in a footer's plaintext.
fn tables(plain: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut reader = Reader::new(plain);
    let codec = if reader.u8()? == 0 { Codec::Raw } else { Codec::Zstd };
    let length = reader.u32()? as usize;
    segment::decompress(codec, reader.take(reader.remaining())?, length, &[])
}

/// The stored lengths that tables claim for the segments.
fn stored(tables: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut reader = Reader::new(tables);
    let count = reader.count(6)?;
    let mut stored = Vec::new();
    for _ in 0..count {
        stored.push(reader.varint_up_to(1 << 27, "too long")? as u32);
        reader.take(3)?;
        reader.varint()?;
        reader.varint()?;
    }
    Ok(stored)
}

fn footer(plain: &[u8]) {
    let tables = match tables(plain) {
        Ok(tables) if tables.len() > TABLES_MOST => {
            drop(tables);
            let _ = Footer::decode(plain, 0);
            return;
        }
        tables => tables,
    };
    let stored = tables.as_deref().ok().and_then(|tables| stored(tables).ok()).unwrap_or_default();
    let room: u64 = stored.iter().map(|length| u64::from(*length)).sum();
    for other in [0, 74, room.wrapping_sub(1), room + 1, 1 << 40] {
        assert!(other == room || other > 1 << 50 || Footer::decode(plain, other).is_err(), "segments fill their pack");
    }
    let decoded = Footer::decode(plain, room);
    if let Ok(footer) = &decoded {
        sound(footer, room);
        let again = footer.encode().expect("what was read can be written");
        assert_eq!(self::tables(&again), tables, "equal footers have equal tables");
        assert_eq!(Footer::decode(&again, room).as_ref(), Ok(footer));
    }
    if room <= ROOM_MOST && stored.len() <= SEGMENTS_MOST {
        pack(plain, &stored, decoded.ok().as_ref());
    }
}

/// What everybody who holds a footer relies on.
fn sound(footer: &Footer, room: u64) {
    let (mut offset, mut ids) = (HEADER as u64, std::collections::HashSet::new());
    for segment in &footer.segments {
        assert_eq!(segment.offset, offset);
        offset += u64::from(segment.stored);
        let plain: usize = segment.chunks.iter().map(|chunk| chunk.length as usize).sum();
        assert!(plain == segment.plain as usize && plain <= MAX_PLAIN);
        assert!(segment.depth <= MAX_DEPTH && (segment.depth == 0) == segment.bases.is_empty());
        let last = segment.chunks.len().checked_sub(1).expect("a segment has a chunk");
        assert_eq!(segment.span(last).map(|span| span.end), Some(plain));
        assert_eq!(segment.span(last + 1), None);
    }
    assert_eq!(offset, HEADER as u64 + room);
    assert!(footer.chunks().all(|(.., chunk)| ids.insert(chunk.id)), "a chunk is listed once");
    assert!(ids.len() <= MAX_CHUNKS && footer.records.len() <= MAX_RECORDS);
    assert!(footer.records.iter().all(|record| record.len() <= MAX_RECORD));
}

/// The same through the seal.
fn pack(plain: &[u8], stored: &[u32], expected: Option<&Footer>) {
    let packs = sealed::pack(plain, stored, plain);
    let pack = match packs.open(sealed::PACK) {
        Ok(pack) => pack,
        Err(error) => {
            assert!(expected.is_none() && error.is_integrity(), "{error}");
            return;
        }
    };
    assert_eq!(Some(&pack.footer), expected);
    let catalog = sealed::catalog(packs);
    assert!(catalog.index().unreadable().is_empty());
    let records = catalog.index().records(catalog.packs()).expect("the pack opens");
    assert_eq!(records.iter().map(|(_, records)| records.len()).sum::<usize>(), pack.footer.records.len());
    for (number, nth, chunk) in pack.footer.chunks().take(16) {
        let segment = &pack.footer.segments[number];
        let (_, at) = catalog.locate(chunk.id).expect("a chunk of a footer is found");
        assert_eq!((at.segment as usize, at.nth as usize), (number, nth));
        match catalog.chunk(segment.content, chunk.id) {
            Ok(bytes) => {
                assert_eq!(bytes.len(), chunk.length as usize);
                assert!(segment.content != Content::Data || catalog.packs().keys().chunk_id(&bytes) == chunk.id);
            }
            Err(error) => assert!(error.is_integrity(), "{error}"),
        }
    }
}

/// Nobody without the key can make an object that opens.
fn object(bytes: &[u8]) {
    match sealed::raw(bytes).open(sealed::PACK) {
        Ok(_) => panic!("a pack opens that was sealed by nobody"),
        Err(error) => assert!(error.is_integrity(), "{error}"),
    }
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(header.encode(), bytes[..HEADER]);
    }
    let trailer = &bytes[bytes.len().saturating_sub(TRAILER)..];
    if let Ok(length) = decode_trailer(trailer) {
        assert_eq!(encode_trailer(length as u32), trailer);
    }
}
