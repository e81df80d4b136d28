//! Where files are cut into chunks.
//!
//! Two ways, and the choice is a function of what the file is, so that the same file is cut alike every time:
//! - **Pages** ([`Cut::Pages`]): databases, at their page size but at least 4 KiB; and other files of at least
//!   [`PAGED_LEAST`] bytes whose size is a multiple of 4 KiB. Engines that keep their state in pages change them in
//!   place and grow by whole ones; with cuts at page borders a changed page costs a page, where content-defined cuts
//!   cost four. Measured on the workload's graph database: 15 changed pages add 35 KB by pages, 125 KB by content.
//! - **Content** ([`Cut::Content`]): everything else, by FastCDC, so that an insertion moves no later cut.
//!
//! The parameters here are part of the format in that another choice finds no duplicates in older snapshots; reading
//! does not depend on them. `tests/suite/golden_cuts.rs` holds them still.

use std::borrow::Cow;

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};

/// The smallest page, in bytes; smaller pages of a database are taken several at a time.
pub const PAGE: u32 = 4096;
/// A file that is no database is cut by pages from this size on, in bytes.
pub const PAGED_LEAST: u64 = 64 * 1024;
/// The smallest, average and largest content-defined chunk, in bytes.
pub const CONTENT: (usize, usize, usize) = (4096, 16 * 1024, 64 * 1024);

/// How a file is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Every so many bytes.
    Pages(u32),
    /// Where its content says.
    Content,
}

impl Cut {
    /// How a database with pages of `page_size` bytes is cut.
    pub fn for_database(page_size: u32) -> Cut {
        Cut::Pages(page_size.max(PAGE))
    }

    /// How a file of `size` bytes that is no database is cut.
    pub fn for_file(size: u64) -> Cut {
        if size >= PAGED_LEAST && size.is_multiple_of(u64::from(PAGE)) { Cut::Pages(PAGE) } else { Cut::Content }
    }
}

/// Finds the content-defined cuts of one store.
pub struct Cutter {
    gear: Cow<'static, [u64]>,
    gear_shifted: Cow<'static, [u64]>,
    masks: (u64, u64),
}

impl Cutter {
    /// A cutter whose gear table is mixed with `seed`.
    pub fn new(seed: u64) -> Self {
        let (gear, gear_shifted) = get_gear_with_seed(seed);
        Cutter { gear, gear_shifted, masks: select_masks(CONTENT.1, Normalization::Level1) }
    }

    /// The length of the first chunk of `bytes`. Unless `bytes` holds at least the largest chunk, or the rest of the
    /// file, the answer is not the cut that more bytes would give.
    pub fn first(&self, bytes: &[u8]) -> usize {
        let (least, average, most) = CONTENT;
        if bytes.len() <= least {
            return bytes.len();
        }
        let (small, large) = self.masks;
        let (_, length) =
            cut_gear(bytes, least, average, most, small, large, small << 1, large << 1, &self.gear, &self.gear_shifted);
        length
    }

    /// The lengths of the chunks of `bytes`. Unless it is the file's `last` piece, stops where a cut would need more
    /// bytes than there are.
    pub fn cuts(&self, bytes: &[u8], last: bool) -> Vec<usize> {
        let mut lengths = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() && (last || rest.len() >= CONTENT.2) {
            let length = self.first(rest);
            lengths.push(length);
            rest = &rest[length..];
        }
        lengths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn cuts_rejoin_and_keep_their_limits() {
        let bytes = noise(1 << 20);
        let lengths = Cutter::new(9).cuts(&bytes, true);
        assert_eq!(lengths.iter().sum::<usize>(), bytes.len());
        let (last, others) = lengths.split_last().expect("some chunks");
        assert!(others.iter().all(|length| (CONTENT.0..=CONTENT.2).contains(length)));
        assert!(*last <= CONTENT.2);
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_file_is_read() {
        let bytes = noise(3 << 20);
        let cutter = Cutter::new(9);
        let whole = cutter.cuts(&bytes, true);
        let (mut pieces, mut start, mut end) = (Vec::new(), 0, 0);
        while end < bytes.len() {
            end = (end + 300_000).min(bytes.len());
            let some = cutter.cuts(&bytes[start..end], end == bytes.len());
            start += some.iter().sum::<usize>();
            pieces.extend(some);
        }
        assert_eq!(pieces, whole);
    }

    #[test]
    fn an_insertion_moves_no_later_cut() {
        let mut bytes = noise(1 << 20);
        let cutter = Cutter::new(9);
        let ends = |bytes: &[u8]| {
            cutter
                .cuts(bytes, true)
                .iter()
                .scan(0, |at, length| {
                    *at += length;
                    Some(bytes.len() - *at)
                })
                .collect::<Vec<_>>()
        };
        let before = ends(&bytes);
        bytes.splice(1000..1000, *b"inserted");
        let after = ends(&bytes);
        let kept = after.iter().filter(|end| before.contains(end)).count();
        assert!(kept * 10 >= after.len() * 9, "{kept} of {}", after.len());
    }

    #[test]
    fn the_way_follows_from_the_file() {
        assert_eq!(Cut::for_database(512), Cut::Pages(4096));
        assert_eq!(Cut::for_database(65536), Cut::Pages(65536));
        assert_eq!(Cut::for_file(1 << 20), Cut::Pages(4096));
        assert_eq!(Cut::for_file((1 << 20) + 1), Cut::Content);
        assert_eq!(Cut::for_file(4096), Cut::Content);
    }
}
