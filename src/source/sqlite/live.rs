//! The views that rest on a read transaction: the file alone, or the file and its write-ahead log.
//!
//! Why what they read is one transaction is reasoned out at the head of the room.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::connect::{self, Transaction};
use super::ffi;
use super::header::{HEADER_BYTES, looks_like_database};
use super::image::{EMPTY_PAGE_SIZE, HotJournal, Refusal, Shape, View};
use super::wal::{self, PageMap, WAL_HEADER_BYTES, WalHeader, Walk};

/// How long to try for a transaction that begins between two commits.
const PATIENCE: Duration = Duration::from_secs(5);
/// After this many misses in a row, tries are spaced out.
const EAGER_TRIES: u32 = 50;
/// Misses without even a header to compare, after which there is none to be had.
const BLIND_TRIES: u32 = 5;
/// Bytes of the log that are read at once.
const WALK_BYTES: usize = 1 << 20;

/// The end of an image in the write-ahead log. With the same salts, a later log begins with the same frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalMark {
    /// The two salts of the log's generation.
    pub salts: [u32; 2],
    /// The number of the last frame; zero if the log is empty.
    pub mx_frame: u32,
    /// The cumulative checksum of that frame.
    pub checksum: [u32; 2],
    /// The size of the database in pages; zero if an empty log leaves that to the file.
    pub pages: u32,
}

/// A connection with an open read transaction.
#[derive(Debug)]
pub(super) struct Live {
    conn: Connection,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Rollback {
        /// Bytes of the file.
        len: u64,
    },
    Wal {
        mark: WalMark,
        page_size: u32,
        /// Bytes of the file, if it alone is the image: then nobody may write it.
        frozen: Option<u64>,
        overlay: PageMap,
    },
}

/// The wal-index header as SQLite checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IndexHeader {
    words: [u32; 12],
}

impl IndexHeader {
    /// `None` while it is being written, or if it is damaged.
    fn check(words: &ffi::WalIndexWords) -> Option<IndexHeader> {
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

    fn mark(&self) -> WalMark {
        let w = &self.words;
        // The salts are kept as they are in the log, which is big-endian; the rest is in host order.
        WalMark { mx_frame: w[4], pages: w[5], checksum: [w[6], w[7]], salts: [u32::from_be(w[8]), u32::from_be(w[9])] }
    }
}

/// Why there is a transaction, but no proof of what it sees.
pub(super) type Unproven = String;

impl Live {
    /// The inner error asks for the backup API.
    pub(super) fn open(path: &Path, hot: HotJournal) -> Result<Result<(Live, Shape), Unproven>, Refusal> {
        let mut remarks = Vec::new();
        let conn = connect::reader(path, hot, &mut remarks)?;
        let started = Instant::now();
        let (mut tries, mut blind) = (0, 0);
        let mut before = None;
        loop {
            match connect::begin(&conn)? {
                Transaction::Rollback => return Self::rollback(conn, remarks).map(Ok),
                Transaction::Wal => {}
            }
            let words = ffi::wal_index(&conn)?;
            let after = words.as_ref().and_then(IndexHeader::check);
            if let (Some(words), Some(header)) = (&words, after)
                && before == after
            {
                return Self::wal(conn, &header, words.backfill, remarks);
            }
            connect::end(&conn)?;
            blind = if words.is_none() { blind + 1 } else { 0 };
            if blind >= BLIND_TRIES {
                return Ok(Err("the log's shared memory can not be read".into()));
            }
            if started.elapsed() >= PATIENCE {
                return Ok(Err("commits followed too closely on one another to tell which one was seen".into()));
            }
            tries += 1;
            if tries > EAGER_TRIES {
                std::thread::sleep(Duration::from_millis(1));
            }
            before = ffi::wal_index(&conn)?.as_ref().and_then(IndexHeader::check);
        }
    }

    fn rollback(conn: Connection, remarks: Vec<String>) -> Result<(Live, Shape), Refusal> {
        let len = ffi::main_size(&conn)?;
        let page_size = if len == 0 { EMPTY_PAGE_SIZE } else { page_size_of(&conn)? };
        let live = Live { conn, kind: Kind::Rollback { len } };
        Ok((live, Shape { view: View::Rollback, page_size, len, remarks }))
    }

    fn wal(
        conn: Connection,
        header: &IndexHeader,
        backfill: u32,
        remarks: Vec<String>,
    ) -> Result<Result<(Live, Shape), Unproven>, Refusal> {
        let mark = header.mark();
        let file = ffi::main_size(&conn)?;
        if backfill > mark.mx_frame {
            return Ok(Err("the log's shared memory is not as expected".into()));
        }
        if backfill == mark.mx_frame {
            // The index of a log that never had a frame does not know the page size; the file does.
            let page_size = page_size_of(&conn)?;
            // A length that is no multiple of the page size is read as SQLite reads it: with zeros.
            let Some(len) = file.checked_next_multiple_of(u64::from(page_size)) else {
                return Err(Refusal::NotADatabase("its length is out of range".into()));
            };
            let kind = Kind::Wal { mark, page_size, frozen: Some(file), overlay: PageMap::default() };
            return Ok(Ok((Live { conn, kind }, Shape { view: View::Wal, page_size, len, remarks })));
        }
        let page_size = header.page_size();
        if !(512..=65_536).contains(&page_size) || !page_size.is_power_of_two() {
            return Ok(Err("the log's shared memory is not as expected".into()));
        }
        let page = u64::from(page_size);
        // SQLite's own bound on what a log can make of a file; past it, one of them is not what it says.
        let len = u64::from(mark.pages) * page;
        if len > file.saturating_add(65_536).saturating_add(u64::from(mark.mx_frame) * page) {
            return Err(Refusal::NotADatabase("its log makes it larger than it can be".into()));
        }
        let overlay = match walk(&conn, page_size, mark)? {
            Ok(overlay) => overlay,
            Err(unproven) => return Ok(Err(unproven)),
        };
        let kind = Kind::Wal { mark, page_size, frozen: None, overlay };
        Ok(Ok((Live { conn, kind }, Shape { view: View::Wal, page_size, len, remarks })))
    }

    pub(super) fn mark(&self) -> Option<WalMark> {
        match &self.kind {
            Kind::Wal { mark, .. } => Some(*mark),
            Kind::Rollback { .. } => None,
        }
    }

    pub(super) fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let count = ffi::read_main(&self.conn, buf, offset)?;
        let (page_size, overlay) = match &self.kind {
            Kind::Rollback { .. } if count < buf.len() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Kind::Rollback { .. } => return Ok(()),
            Kind::Wal { page_size, overlay, .. } => (*page_size, overlay),
        };
        // Past the end of the file is what the log will add, or what was never written.
        buf[count..].fill(0);
        let page = u64::from(page_size);
        let first = offset / page + 1;
        let pages = (buf.len() as u64).div_ceil(page);
        for (number, frame) in overlay.span(first, pages) {
            let start = (u64::from(*number) - first) as usize * page_size as usize;
            let into = &mut buf[start..start + page_size as usize];
            if ffi::read_wal(&self.conn, into, wal::page_offset(*frame, page_size))? < into.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let lock_page = LOCK_BYTES / page + 1;
        if let Some(index) = lock_page.checked_sub(first)
            && index < pages
        {
            let start = index as usize * page_size as usize;
            buf[start..start + page_size as usize].fill(0);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<bool> {
        match self.kind {
            Kind::Rollback { len } | Kind::Wal { frozen: Some(len), .. } => Ok(ffi::main_size(&self.conn)? == len),
            Kind::Wal { mark, .. } => {
                // A commit may be writing the header just now; it has the same salts.
                for _ in 0..1000 {
                    if let Some(now) = ffi::wal_index(&self.conn)?.as_ref().and_then(IndexHeader::check) {
                        return Ok(now.mark().salts == mark.salts && now.mark().mx_frame >= mark.mx_frame);
                    }
                    std::thread::sleep(Duration::from_micros(100));
                }
                Ok(false)
            }
        }
    }
}

/// The page size that the file's own header gives; for when the file is the image.
fn page_size_of(conn: &Connection) -> Result<u32, Refusal> {
    let mut first = [0; HEADER_BYTES];
    let count = ffi::read_main(conn, &mut first, 0)?;
    match looks_like_database(&first[..count]) {
        Some(header) => Ok(header.page_size),
        None => Err(Refusal::NotADatabase("its header is not that of a database".into())),
    }
}

/// Where SQLite's locks are; the page that holds it is never used.
const LOCK_BYTES: u64 = 0x4000_0000;

/// Walks the log to the end mark. The inner error says what was not as it must be.
fn walk(conn: &Connection, page_size: u32, mark: WalMark) -> io::Result<Result<PageMap, Unproven>> {
    let unlike = || Ok(Err("the log is not the one that its shared memory describes".to_owned()));
    let mut first = [0; WAL_HEADER_BYTES];
    if ffi::read_wal(conn, &mut first, 0)? < first.len() {
        return unlike();
    }
    let Some(header) = WalHeader::parse(&first) else { return unlike() };
    if header.page_size != page_size || header.salts != mark.salts {
        return unlike();
    }
    let frame_bytes = header.frame_bytes();
    let frames = (ffi::wal_size(conn)?.saturating_sub(WAL_HEADER_BYTES as u64)) / frame_bytes as u64;
    if u64::from(mark.mx_frame) > frames {
        return unlike();
    }
    let mut walk = Walk::new(header);
    let mut left = mark.mx_frame as usize;
    let mut offset = WAL_HEADER_BYTES as u64;
    let mut block = vec![0; frame_bytes * left.min((WALK_BYTES / frame_bytes).max(1))];
    while left > 0 {
        let take = left.min(block.len() / frame_bytes);
        let part = &mut block[..take * frame_bytes];
        if ffi::read_wal(conn, part, offset)? < part.len() {
            return unlike();
        }
        for frame in part.chunks_exact(frame_bytes) {
            if !walk.push(frame) {
                return unlike();
            }
        }
        offset += part.len() as u64;
        left -= take;
    }
    if walk.checksum() != mark.checksum || walk.commit() != Some(mark.pages) {
        return unlike();
    }
    Ok(Ok(walk.into_map(mark.pages)))
}

#[cfg(test)]
mod tests;
