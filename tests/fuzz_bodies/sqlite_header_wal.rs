//! What is read of a database and its write-ahead log before SQLite says anything.
//!
//! The log's parser is private to its room and pure, so its source is taken in here as it is. The first byte says what
//! the rest is: the beginning of a database, a log, or a script for a log whose checksums are made here.

use std::collections::BTreeMap;

use header::looks_like_database;
use wal::{FRAME_HEADER_BYTES, WAL_HEADER_BYTES, WalHeader, Walk, page_offset};

#[path = "../../src/source/sqlite/header.rs"]
mod header;
#[allow(dead_code, reason = "the wal-index is not read here")]
#[path = "../../src/source/sqlite/wal.rs"]
mod wal;

const PAGE: usize = 512;

pub fn body(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 3 {
        0 => database(rest),
        1 => log(rest),
        _ => script(rest),
    }
}

fn database(bytes: &[u8]) {
    let Some(header) = looks_like_database(bytes) else { return };
    assert!(bytes.starts_with(header::MAGIC) && bytes.len() >= header::HEADER_BYTES);
    assert!((512..=65_536).contains(&header.page_size) && header.page_size.is_power_of_two());
    assert!(header.page_size - u32::from(header.reserved) >= 480);
    assert_eq!(looks_like_database(&bytes[..header::HEADER_BYTES]), Some(header), "only the header counts");
    assert!(header.pages != Some(0));
}

fn log(bytes: &[u8]) {
    let Some(header) = WalHeader::parse(bytes) else { return };
    let mut walk = Walk::new(header);
    for frame in bytes[WAL_HEADER_BYTES..].chunks(header.frame_bytes()) {
        if !walk.push(frame) {
            break;
        }
    }
}

fn add(big: bool, bytes: &[u8], sum: &mut [u32; 2]) {
    for (nth, word) in bytes.chunks_exact(4).enumerate() {
        let word: [u8; 4] = word.try_into().expect("four bytes");
        let word = if big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
        let other = sum[(nth + 1) % 2];
        sum[nth % 2] = sum[nth % 2].wrapping_add(word).wrapping_add(other);
    }
}

/// The byte order, then four bytes a frame: its page, the size that it commits, its filling, and which bit of it flips.
fn script(data: &[u8]) {
    let Some((order, steps)) = data.split_first() else { return };
    let big = order & 1 == 1;
    let mut sum = [0, 0];
    let mut head = Vec::new();
    for word in [0x377f_0682 | u32::from(big), 3_007_000, PAGE as u32, 7, 11, 22] {
        head.extend_from_slice(&u32::to_be_bytes(word));
    }
    add(big, &head, &mut sum);
    head.extend(sum.iter().flat_map(|word| word.to_be_bytes()));
    let header = WalHeader::parse(&head).expect("a header with the right checksum");
    assert_eq!(header.frame_bytes(), FRAME_HEADER_BYTES + PAGE);
    let mut walk = Walk::new(header);
    let (mut last, mut commit) = (BTreeMap::new(), None);
    for (nth, step) in steps.chunks_exact(4).take(256).enumerate() {
        let mut frame = [u32::from(step[0]).to_be_bytes(), u32::from(step[1]).to_be_bytes()].concat();
        let mut next = sum;
        add(big, &frame, &mut next);
        add(big, &[step[2]; PAGE], &mut next);
        for word in [header.salts[0], header.salts[1], next[0], next[1]] {
            frame.extend_from_slice(&word.to_be_bytes());
        }
        frame.resize(FRAME_HEADER_BYTES + PAGE, step[2]);
        let flips = step[3] >= 0x80;
        if flips {
            let bit = usize::from(step[3] & 0x7f) * 37 % (frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        let taken = walk.push(&frame);
        assert_eq!(taken, !flips && step[0] != 0, "frame {nth}");
        if !taken {
            return;
        }
        sum = next;
        assert_eq!(walk.checksum(), sum);
        commit = (step[1] > 0).then_some(u32::from(step[1]));
        assert_eq!(walk.commit(), commit);
        let place = WAL_HEADER_BYTES + nth * (FRAME_HEADER_BYTES + PAGE) + FRAME_HEADER_BYTES;
        assert_eq!(page_offset(nth as u32 + 1, PAGE as u32), place as u64);
        last.insert(u32::from(step[0]), nth as u32 + 1);
    }
    let pages = commit.unwrap_or(200);
    let expected: Vec<(u32, u32)> = last.range(..=pages).map(|(page, frame)| (*page, *frame)).collect();
    let map = walk.into_map(pages);
    assert_eq!(map.span(0, u64::MAX), expected);
    assert_eq!(
        map.span(5, 4),
        last.range(5..9).filter(|(p, _)| **p <= pages).map(|(p, f)| (*p, *f)).collect::<Vec<_>>()
    );
}
