//! The write-ahead log: which frame holds the latest version of which page.
//!
//! Pure: bytes in, a map out. The layout is that of "WAL File Format" in SQLite's documentation: a
//! header of 32 bytes, then frames, each a header of 24 bytes and one page. All integers are
//! big-endian, but for the checksum, which adds up words in the order that the header's magic
//! names, and is *cumulative*: the checksum in a frame covers the log from its beginning to that
//! frame. So a walk that arrives at frame N with the checksum of frame N has read exactly the log
//! that ends there, and no frame of an older generation, no torn write and no forged order passes.
//!
//! Nothing here trusts a count: memory grows only with frames that were handed in and verified.

use super::header::word;

/// Bytes before the first frame.
pub(super) const WAL_HEADER_BYTES: usize = 32;
/// Bytes of a frame before its page.
pub(super) const FRAME_HEADER_BYTES: usize = 24;

const MAGIC_LITTLE: u32 = 0x377f_0682;
const MAGIC_BIG: u32 = 0x377f_0683;
const VERSION: u32 = 3_007_000;

/// The header of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WalHeader {
    pub(super) page_size: u32,
    pub(super) salts: [u32; 2],
    big_endian: bool,
    checksum: [u32; 2],
}

impl WalHeader {
    /// `None` if this is not the header of a log, or its checksum is wrong.
    pub(super) fn parse(bytes: &[u8]) -> Option<WalHeader> {
        let bytes = bytes.get(..WAL_HEADER_BYTES)?;
        let big_endian = match word(bytes, 0) {
            MAGIC_LITTLE => false,
            MAGIC_BIG => true,
            _ => return None,
        };
        let page_size = word(bytes, 8);
        let checksum = add(big_endian, &bytes[..24], [0, 0]);
        let sound = word(bytes, 4) == VERSION
            && (512..=65_536).contains(&page_size)
            && page_size.is_power_of_two()
            && checksum == [word(bytes, 24), word(bytes, 28)];
        sound.then(|| WalHeader { page_size, salts: [word(bytes, 16), word(bytes, 20)], big_endian, checksum })
    }

    /// What counts of the header of another log in the same file, which this one's has replaced.
    pub(super) fn of_log(&self, salts: [u32; 2]) -> WalHeader {
        WalHeader { salts, ..*self }
    }

    /// Bytes of one frame with its page.
    pub(super) fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.page_size as usize
    }
}

/// Where frame `frame` (from 1) begins in the log.
pub(super) fn frame_offset(frame: u32, page_size: u32) -> u64 {
    let frame_bytes = FRAME_HEADER_BYTES as u64 + u64::from(page_size);
    WAL_HEADER_BYTES as u64 + u64::from(frame.saturating_sub(1)) * frame_bytes
}

/// Where the page of frame `frame` (from 1) begins in the log.
pub(super) fn page_offset(frame: u32, page_size: u32) -> u64 {
    frame_offset(frame, page_size) + FRAME_HEADER_BYTES as u64
}

/// The header of a frame, as it is written. What it says is only proven by a [`Walk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) page: u32,
    /// The size of the database in pages, if the frame ends a transaction; else zero.
    pub(super) commit_pages: u32,
    pub(super) salts: [u32; 2],
    pub(super) checksum: [u32; 2],
}

impl FrameHeader {
    pub(super) fn parse(bytes: &[u8; FRAME_HEADER_BYTES]) -> FrameHeader {
        let at = |place| word(bytes, place);
        FrameHeader { page: at(0), commit_pages: at(4), salts: [at(8), at(12)], checksum: [at(16), at(20)] }
    }
}

/// A walk over frames in order.
#[derive(Debug)]
pub(super) struct Walk {
    header: WalHeader,
    checksum: [u32; 2],
    /// The number of the frame that the walk goes on after.
    before: u32,
    /// Pages as they come.
    pages: Vec<u32>,
    /// Database size of the last frame, zero if it does not end a transaction.
    commit_pages: u32,
    /// The smallest database size after any of the transactions that ended here.
    least_pages: u32,
}

impl Walk {
    pub(super) fn new(header: WalHeader) -> Walk {
        Self::after(header, 0, header.checksum)
    }

    /// A walk that goes on after frame `before`, whose cumulative checksum is `checksum`.
    pub(super) fn after(header: WalHeader, before: u32, checksum: [u32; 2]) -> Walk {
        Walk { checksum, header, before, pages: Vec::new(), commit_pages: 0, least_pages: u32::MAX }
    }

    /// Takes the next frame, header and page. `false` if it does not continue the log: then the walk is as it was.
    #[must_use]
    pub(super) fn push(&mut self, frame: &[u8]) -> bool {
        if frame.len() != self.header.frame_bytes() {
            return false;
        }
        let page = word(frame, 0);
        if page == 0 || [word(frame, 8), word(frame, 12)] != self.header.salts {
            return false;
        }
        let checksum = add(self.header.big_endian, &frame[..8], self.checksum);
        let checksum = add(self.header.big_endian, &frame[FRAME_HEADER_BYTES..], checksum);
        if checksum != [word(frame, 16), word(frame, 20)] {
            return false;
        }
        self.checksum = checksum;
        self.commit_pages = word(frame, 4);
        if self.commit_pages > 0 {
            self.least_pages = self.least_pages.min(self.commit_pages);
        }
        self.pages.push(page);
        true
    }

    /// The checksum of the log up to here.
    pub(super) fn checksum(&self) -> [u32; 2] {
        self.checksum
    }

    /// The size of the database in pages after the last frame, if that frame ended a transaction.
    pub(super) fn commit(&self) -> Option<u32> {
        (self.commit_pages > 0).then_some(self.commit_pages)
    }

    /// The smallest size of the database in pages that any of the walked transactions left.
    pub(super) fn least(&self) -> u32 {
        self.least_pages
    }

    /// The last frame of each page that is within the database's `pages`.
    pub(super) fn into_map(self, pages: u32) -> PageMap {
        let first = self.before.saturating_add(1);
        let mut map: Vec<(u32, u32)> = (first..).zip(self.pages).map(|(frame, page)| (page, frame)).collect();
        map.retain(|(page, _)| *page <= pages);
        map.sort_unstable_by_key(|(page, frame)| (*page, std::cmp::Reverse(*frame)));
        map.dedup_by_key(|(page, _)| *page);
        map.shrink_to_fit();
        PageMap(map)
    }
}

/// In place of a frame's number: the page is in the database's file.
pub(super) const IN_FILE: u32 = 0;

/// Pages that are in the log, with the frame of their last version, by page.
#[derive(Debug, Default)]
pub(super) struct PageMap(Vec<(u32, u32)>);

#[cfg(test)]
impl FromIterator<(u32, u32)> for PageMap {
    /// Of pages in order.
    fn from_iter<T: IntoIterator<Item = (u32, u32)>>(entries: T) -> PageMap {
        PageMap(entries.into_iter().collect())
    }
}

impl PageMap {
    /// All of it.
    pub(super) fn entries(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// This one, with those pages of `old`, a log that is in the file, which it does not have.
    pub(super) fn over(mut self, old: &PageMap) -> PageMap {
        let new: Vec<(u32, u32)> = old.0.iter().map(|(page, _)| (*page, IN_FILE)).collect();
        self.0.extend(new);
        self.0.sort_unstable_by_key(|(page, frame)| (*page, std::cmp::Reverse(*frame)));
        self.0.dedup_by_key(|(page, _)| *page);
        self
    }

    /// Forgets a page.
    pub(super) fn remove(&mut self, page: u32) {
        self.0.retain(|(entry, _)| *entry != page);
    }

    /// The entries for the `count` pages from `first`.
    pub(super) fn span(&self, first: u64, count: u64) -> &[(u32, u32)] {
        let from = self.0.partition_point(|(page, _)| u64::from(*page) < first);
        let to = self.0.partition_point(|(page, _)| u64::from(*page) < first.saturating_add(count));
        &self.0[from..to]
    }
}

/// Adds `bytes`, a multiple of 8 long, to a checksum.
fn add(big_endian: bool, bytes: &[u8], checksum: [u32; 2]) -> [u32; 2] {
    let of = |b: [u8; 4]| if big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) };
    let [mut s1, mut s2] = checksum;
    for pair in bytes.chunks_exact(8) {
        s1 = s1.wrapping_add(of([pair[0], pair[1], pair[2], pair[3]])).wrapping_add(s2);
        s2 = s2.wrapping_add(of([pair[4], pair[5], pair[6], pair[7]])).wrapping_add(s1);
    }
    [s1, s2]
}

/// The checksum that the wal-index carries over its own header: words in host order, as they come.
pub(super) fn add_words(words: &[u32]) -> [u32; 2] {
    let [mut s1, mut s2] = [0_u32, 0_u32];
    for pair in words.chunks_exact(2) {
        s1 = s1.wrapping_add(pair[0]).wrapping_add(s2);
        s2 = s2.wrapping_add(pair[1]).wrapping_add(s1);
    }
    [s1, s2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(big: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [if big { MAGIC_BIG } else { MAGIC_LITTLE }, VERSION, 512, 0, 11, 22] {
            bytes.extend(word.to_be_bytes());
        }
        let sum = add(big, &bytes, [0, 0]);
        bytes.extend(sum.iter().flat_map(|w| w.to_be_bytes()));
        bytes
    }

    fn frame(big: bool, before: [u32; 2], page: u32, commit: u32, fill: u8) -> (Vec<u8>, [u32; 2]) {
        let mut bytes = [page.to_be_bytes(), commit.to_be_bytes()].concat();
        let body = vec![fill; 512];
        let sum = add(big, &body, add(big, &bytes, before));
        for word in [11, 22, sum[0], sum[1]] {
            bytes.extend(u32::to_be_bytes(word));
        }
        bytes.extend(body);
        (bytes, sum)
    }

    #[test]
    fn walks_both_byte_orders_and_keeps_the_last_frame() {
        for big in [false, true] {
            let header = WalHeader::parse(&header(big)).expect("header");
            let mut walk = Walk::new(header);
            let mut sum = header.checksum;
            for (page, commit) in [(3, 0), (1, 3), (3, 0), (9, 2)] {
                let (bytes, next) = frame(big, sum, page, commit, page as u8);
                assert!(walk.push(&bytes));
                assert_eq!(walk.checksum(), next);
                sum = next;
            }
            assert_eq!(walk.commit(), Some(2));
            assert_eq!(walk.least(), 2);
            let map = walk.into_map(3);
            assert_eq!(map.span(1, 100), &[(1, 2), (3, 3)]);
            assert_eq!(map.span(2, 1), &[]);
            assert_eq!(map.span(3, u64::MAX), &[(3, 3)]);
        }
    }

    #[test]
    fn a_walk_goes_on_where_another_one_ended() {
        let header = WalHeader::parse(&header(false)).expect("header");
        let mut whole = Walk::new(header);
        let frames: Vec<_> = [(3, 3), (1, 0), (7, 9), (1, 5)]
            .iter()
            .scan(header.checksum, |sum, (page, commit)| {
                let (bytes, next) = frame(false, *sum, *page, *commit, *page as u8);
                *sum = next;
                Some(bytes)
            })
            .collect();
        assert!(frames.iter().all(|frame| whole.push(frame)));
        let last: &[u8; FRAME_HEADER_BYTES] = frames[0][..FRAME_HEADER_BYTES].try_into().expect("a header");
        let last = FrameHeader::parse(last);
        assert_eq!((last.page, last.commit_pages, last.salts), (3, 3, [11, 22]));
        let mut rest = Walk::after(header, 1, last.checksum);
        assert!(frames[1..].iter().all(|frame| rest.push(frame)));
        assert_eq!((rest.checksum(), rest.commit(), rest.least()), (whole.checksum(), whole.commit(), 5));
        assert_eq!(rest.into_map(9).entries(), &[(1, 4), (7, 3)]);
        assert!(!Walk::after(header, 1, last.checksum).push(&frames[2]), "a frame is left out");
        assert!(!Walk::after(header, 1, header.checksum).push(&frames[1]), "another beginning");
    }

    #[test]
    fn every_flipped_bit_stops_the_walk() {
        let good = header(false);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(WalHeader::parse(&bytes), None, "header bit {bit}");
        }
        let header = WalHeader::parse(&good).expect("header");
        let (good, _) = frame(false, header.checksum, 5, 5, 0xa5);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!Walk::new(header).push(&bytes), "frame bit {bit}");
        }
        assert!(!Walk::new(header).push(&good[1..]));
        assert!(WalHeader::parse(&[]).is_none());
    }
}
