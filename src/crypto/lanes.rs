//! The keyed BLAKE3 hashes of many pages at once.
//!
//! BLAKE3 is fast because it hashes 16 pieces of 1 KiB side by side, in the lanes of one vector register. A page of
//! 4 KiB has four of them: hashed by itself it leaves three lanes of four empty, and pages are most of what there is to
//! hash. Here the first KiB of 16 pages is hashed at once, then the second, and so on up the tree: 2 to 3 times as fast
//! with 512-bit registers, for the very same hashes.
//!
//! The tree is that of the BLAKE3 paper, section 2: chunks of 1 KiB, each with its number as counter and marked at its
//! first and last block; pairs of chaining values in parent nodes; the last of those is marked as the root. The crate
//! offers the step itself ([`Platform::hash_many`]) only outside of its promise to stay as it is, and so its version is
//! pinned; the tests hold the result against the crate's own hash.

use blake3::IncrementCounter;
use blake3::platform::Platform;

const CHUNK: usize = 1024;
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 1 << 1;
const PARENT: u8 = 1 << 2;
const ROOT: u8 = 1 << 3;
const KEYED_HASH: u8 = 1 << 4;

/// The most lanes that any register has.
const LANES: usize = 16;
/// Of larger inputs the crate fills the lanes itself, in bytes.
pub const LARGEST: usize = 8192;

type Value = [u8; 32];

/// Whether inputs of `length` bytes gain from being hashed together.
pub fn is_page(length: usize) -> bool {
    length.is_power_of_two() && (2 * CHUNK..=LARGEST).contains(&length)
}

/// Calls `take` with the hash of each of `pages`, in order. All of them must be of one length for which [`is_page`]
/// holds.
pub fn keyed_hashes(key: &[u8; 32], pages: &[&[u8]], mut take: impl FnMut(Value)) {
    let platform = Platform::detect();
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(key.chunks_exact(4)) {
        *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    for group in pages.chunks(LANES) {
        let width = group[0].len() / CHUNK;
        // By page, then by chunk.
        let mut values = [[0; 32]; LANES * LARGEST / CHUNK];
        for nth in 0..width {
            let chunks = group.iter().map_while(|page| page[nth * CHUNK..].first_chunk::<CHUNK>());
            let place = |lane: usize| lane * width + nth;
            let counter = nth as u64;
            let marks = (KEYED_HASH, CHUNK_START, CHUNK_END);
            step(platform, &words, counter, marks, chunks, &mut values, place);
        }
        let mut left = width;
        while left > 1 {
            let mut pairs = [[0; 64]; LANES * LARGEST / CHUNK / 2];
            let count = group.len() * left / 2;
            for (pair, two) in pairs.iter_mut().zip(values.chunks_exact(2)).take(count) {
                pair[..32].copy_from_slice(&two[0]);
                pair[32..].copy_from_slice(&two[1]);
            }
            let root = if left == 2 { ROOT } else { 0 };
            for (part, first) in pairs[..count].chunks(LANES).zip((0..).step_by(LANES)) {
                let marks = (KEYED_HASH | PARENT | root, 0, 0);
                step(platform, &words, 0, marks, part.iter(), &mut values, |lane| first + lane);
            }
            left /= 2;
        }
        values[..group.len()].iter().for_each(|value| take(*value));
    }
}

/// Hashes one input in each lane, and puts each value at its `place`.
fn step<'i, const N: usize>(
    platform: Platform,
    key: &[u32; 8],
    counter: u64,
    (flags, start, end): (u8, u8, u8),
    inputs: impl Iterator<Item = &'i [u8; N]>,
    values: &mut [Value],
    place: impl Fn(usize) -> usize,
) {
    let mut lanes = [&[0; N]; LANES];
    let mut count = 0;
    for (lane, input) in lanes.iter_mut().zip(inputs) {
        *lane = input;
        count += 1;
    }
    let mut out = [0; LANES * 32];
    let out = &mut out[..count * 32];
    platform.hash_many(&lanes[..count], key, counter, IncrementCounter::No, flags, start, end, out);
    for (lane, value) in out.chunks_exact(32).enumerate() {
        values[place(lane)].copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_crate() {
        let mut noise = vec![0; 70 * LARGEST];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        for length in [2048, 4096, 8192] {
            assert!(is_page(length));
            for count in [1, 2, 15, 16, 17, 33, 70] {
                for key in [[0; 32], [0xA5; 32], std::array::from_fn(|at| at as u8)] {
                    let pages: Vec<&[u8]> = noise.chunks(length).take(count).collect();
                    let mut hashes = Vec::new();
                    keyed_hashes(&key, &pages, |hash| hashes.push(hash));
                    let expected: Vec<_> =
                        pages.iter().map(|page| *blake3::keyed_hash(&key, page).as_bytes()).collect();
                    assert_eq!(hashes, expected, "{count} of {length} bytes");
                }
            }
        }
        assert!([0, 1024, 3072, 4095, 16_384].iter().all(|length| !is_page(*length)));
    }
}
