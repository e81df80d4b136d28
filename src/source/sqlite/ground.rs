//! What a read transaction on a database with a log stands on, and the walk over that log.
//!
//! Why that makes what is read one transaction is reasoned out at the head of the room.

use std::io;
use std::time::Duration;

use rusqlite::Connection;

use super::ffi;
use super::header::{HEADER_BYTES, looks_like_database};
use super::view::Refusal;
use super::wal::{self, WAL_HEADER_BYTES, WalHeader, Walk};

/// The end of an image in the write-ahead log. With the same salts, a later log begins with the same frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalMark {
    /// The two salts of the log's generation.
    pub salts: [u32; 2],
    /// The number of the last frame; zero if the log is empty.
    pub mx_frame: u32,
    /// The cumulative checksum of that frame.
    pub checksum: [u32; 2],
    /// The size of the database in pages.
    pub pages: u32,
    /// Bytes per page.
    pub page_size: u32,
}

/// What a read transaction on a database with a log stands on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground {
    pub(super) mark: WalMark,
    /// Bytes of the file, if it alone is the image: then nobody may write it.
    pub(super) frozen: Option<u64>,
    /// Bytes of the image.
    pub(super) len: u64,
    /// How many frames of the log are in the file, as far as those know that have it open now.
    pub(super) backfill: u32,
}

/// The wal-index header as SQLite checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexHeader {
    words: [u32; 12],
}

impl IndexHeader {
    /// `None` while it is being written, or if it is damaged.
    pub(super) fn check(words: &ffi::WalIndexWords) -> Option<IndexHeader> {
        let header = IndexHeader { words: words.first };
        let sound = words.first == words.second
            && words.first[0] == 3_007_000
            && header.flags().0 != 0
            && wal::add_words(&words.first[..10]) == [words.first[10], words.first[11]];
        sound.then_some(header)
    }

    /// The word of `isInit` and `bigEndCksum` (bytes) and `szPage` (two bytes), in host order.
    fn flags(&self) -> (u8, u32) {
        let word = self.words[3];
        let (init, size) =
            if cfg!(target_endian = "big") { (word >> 24, word & 0xffff) } else { (word & 0xff, word >> 16) };
        // 1 stands for 65,536 here too.
        (init as u8, (size & 0xfe00) + ((size & 1) << 16))
    }

    fn page_size(&self) -> u32 {
        self.flags().1
    }

    pub(super) fn mark(&self) -> WalMark {
        let w = &self.words;
        // The salts are kept as they are in the log, which is big-endian; the rest is in host order.
        WalMark {
            mx_frame: w[4],
            pages: w[5],
            checksum: [w[6], w[7]],
            salts: [u32::from_be(w[8]), u32::from_be(w[9])],
            page_size: self.page_size(),
        }
    }
}

/// Why there is a transaction, but no proof of what it sees.
pub(super) type Unproven = String;

/// What the transaction of `header` stands on, if `backfill` frames are in the file.
pub(super) fn ground(
    conn: &Connection,
    header: &IndexHeader,
    backfill: u32,
) -> Result<Result<Ground, Unproven>, Refusal> {
    let mut mark = header.mark();
    let file = ffi::main_size(conn)?;
    if backfill > mark.mx_frame {
        return Ok(Err("the log's shared memory is not as expected".into()));
    }
    if backfill == mark.mx_frame {
        // The index of a log that never had a frame does not know the page size; the file does.
        mark.page_size = page_size_of(conn)?;
        let page = u64::from(mark.page_size);
        // A length that is no multiple of the page size is read as SQLite reads it: with zeros.
        let Some(len) = file.checked_next_multiple_of(page) else {
            return Err(Refusal::NotADatabase("its length is out of range".into()));
        };
        if mark.pages == 0 {
            // Nor does it know how many there are.
            mark.pages = u32::try_from(len / page).unwrap_or(0);
        }
        return Ok(Ok(Ground { mark, frozen: Some(file), len, backfill }));
    }
    if !(512..=65_536).contains(&mark.page_size) || !mark.page_size.is_power_of_two() {
        return Ok(Err("the log's shared memory is not as expected".into()));
    }
    let page = u64::from(mark.page_size);
    // SQLite's own bound on what a log can make of a file; past it, one of them is not what it says.
    let len = u64::from(mark.pages) * page;
    if len > file.saturating_add(65_536).saturating_add(u64::from(mark.mx_frame) * page) {
        return Err(Refusal::NotADatabase("its log makes it larger than it can be".into()));
    }
    Ok(Ok(Ground { mark, frozen: None, len, backfill }))
}

/// Whether a transaction still stands on what it stood on when it began.
pub(super) fn stands(conn: &Connection, ground: &Ground) -> io::Result<bool> {
    if let Some(len) = ground.frozen {
        return Ok(ffi::main_size(conn)? == len);
    }
    let mark = ground.mark;
    // A commit may be writing the header just now; it has the same salts.
    for _ in 0..1000 {
        if let Some(now) = ffi::wal_index(conn)?.as_ref().and_then(IndexHeader::check) {
            return Ok(now.mark().salts == mark.salts && now.mark().mx_frame >= mark.mx_frame);
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(false)
}

/// The page size that the file's own header gives; for when the file is the image.
pub(super) fn page_size_of(conn: &Connection) -> Result<u32, Refusal> {
    let mut first = [0; HEADER_BYTES];
    let count = ffi::read_main(conn, &mut first, 0)?;
    match looks_like_database(&first[..count]) {
        Some(header) => Ok(header.page_size),
        None => Err(Refusal::NotADatabase("its header is not that of a database".into())),
    }
}

/// Where SQLite's locks are.
const LOCK_BYTES: u64 = 0x4000_0000;

/// The page that holds the bytes that locks are taken on; it is never used.
pub(super) fn lock_page(page_size: u32) -> u32 {
    (LOCK_BYTES / u64::from(page_size)) as u32 + 1
}

/// Bytes of the log that are read at once.
pub(super) const WALK_BYTES: usize = 1 << 20;

/// The header of the log, if it is that of the mark's generation.
pub(super) fn log_header(conn: &Connection, mark: &WalMark) -> io::Result<Option<WalHeader>> {
    let mut first = [0; WAL_HEADER_BYTES];
    if ffi::read_wal(conn, &mut first, 0)? < first.len() {
        return Ok(None);
    }
    let header = WalHeader::parse(&first);
    Ok(header.filter(|header| header.page_size == mark.page_size && header.salts == mark.salts))
}

/// Goes on with `walk`, which has come as far as frame `done`, to the end mark. Nothing if a frame does not continue
/// the log, or the end is not that of the mark.
pub(super) fn walk_to(conn: &Connection, mut walk: Walk, done: u32, mark: &WalMark) -> io::Result<Option<Walk>> {
    let frame_bytes = wal::FRAME_HEADER_BYTES + mark.page_size as usize;
    let frames = (ffi::wal_size(conn)?.saturating_sub(WAL_HEADER_BYTES as u64)) / frame_bytes as u64;
    if u64::from(mark.mx_frame) > frames {
        return Ok(None);
    }
    let mut left = mark.mx_frame.saturating_sub(done) as usize;
    let mut offset = wal::frame_offset(done.saturating_add(1), mark.page_size);
    let mut block = vec![0; frame_bytes * left.min((WALK_BYTES / frame_bytes).max(1))];
    while left > 0 {
        let take = left.min(block.len() / frame_bytes);
        let part = &mut block[..take * frame_bytes];
        if ffi::read_wal(conn, part, offset)? < part.len() {
            return Ok(None);
        }
        for frame in part.chunks_exact(frame_bytes) {
            if !walk.push(frame) {
                return Ok(None);
            }
        }
        offset += part.len() as u64;
        left -= take;
    }
    Ok((walk.checksum() == mark.checksum && walk.commit() == Some(mark.pages)).then_some(walk))
}
