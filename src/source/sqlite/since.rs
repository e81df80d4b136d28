//! What changed since an earlier image: the frames of the log behind the mark that it ended in.
//!
//! Nouns: the *earlier mark* E is where an image ended that was read before. M and N are those of this transaction (see
//! the head of the room). What is claimed: the image of M is the image of E, cut off or made longer to the page count
//! of M, with each page that has a frame in E+1 to M as its last one has it.
//!
//! **The log is the same one.** A log that is begun anew gets salts that it never had (one is counted up and one drawn;
//! both are drawn for a new file), and each frame carries them. Checksums are cumulative: a sum that starts from E's,
//! goes over the frames E+1 to M, each with these salts, and arrives at the one that the transaction's own header has
//! for M, is over exactly what was appended to the log that E ended in. A log that lost its end in a crash and was
//! written on differently gets to M another way. Frame E itself is looked at besides; with E = 0 the log's header takes
//! its place. A mark whose salts are both zero names no log: an index that found none has them.
//!
//! **Nobody else wrote the database meanwhile.** While it has one log, SQLite writes the file by checkpoints alone, and
//! those copy frames: they make no image another one. To leave the mode takes the log away. A file of another inode is
//! the caller's to notice; so is what was written past SQLite, for which it reads everything now and then.
//!
//! A log that was copied back from an earlier time is the log that E ended in, and yet SQLite wrote the file under
//! another one since. If nothing of it was copied into the file since it was opened, the file's own time tells
//! ([`Changes::is_all_in_log`]); later on only reading everything does.
//!
//! **N < M.** The lock keeps frames 1 to M, so the walk, and whoever reads a page from its last frame later, see the
//! same.
//!
//! **N = M.** The log may be begun anew at any moment, while it is walked or after. But the walk is over bytes in
//! memory: if they pass, they *were* the frames, whatever the log holds by now. One that is half another has wrong
//! salts or a wrong sum. So the list of pages is right. Their *content* is not read from the log but from the file,
//! which is frozen and has all frames up to M. A walk that does not pass proves nothing: then everything is read, from
//! the file.
//!
//! **Pages that were cut off and came back.** Between E and M a database may have shrunk, a checkpoint have cut the
//! file, and the database have grown again. Nothing is known of such a page from the earlier image. SQLite writes every
//! page that it adds; that each page past the smallest size has a frame behind E is required here.
//!
//! Whatever is not so is no error: then nothing is said, and the image is read as if there were no mark.

use std::io;

use rusqlite::Connection;

use super::ffi;
use super::live::{Ground, WalMark, lock_page, log_header, stands, walk_to};
use super::wal::{self, FRAME_HEADER_BYTES, FrameHeader, PageMap, Walk};

/// What changed, as long as the value lives: it holds the read transaction.
#[derive(Debug)]
pub struct Changes {
    conn: Connection,
    ground: Ground,
    changed: PageMap,
    remarks: Vec<String>,
}

/// The pages with a frame behind `since`, and their last one, or nothing if the log does not say.
pub(super) fn changed(conn: &Connection, ground: &Ground, since: &WalMark) -> io::Result<Option<PageMap>> {
    let mark = &ground.mark;
    let is_later = since.salts != [0, 0]
        && mark.salts == since.salts
        && mark.mx_frame >= since.mx_frame
        && mark.page_size == since.page_size
        && u64::from(mark.pages) * u64::from(mark.page_size) == ground.len;
    if !is_later {
        return Ok(None);
    }
    if mark.mx_frame == since.mx_frame {
        // A log without frames has no checksum yet.
        let is_same = mark.pages == since.pages && (mark.mx_frame == 0 || mark.checksum == since.checksum);
        return Ok(is_same.then(PageMap::default));
    }
    let Some(header) = log_header(conn, since)? else { return Ok(None) };
    let walk = if since.mx_frame == 0 {
        Walk::new(header)
    } else {
        let Some(last) = frame_header(conn, since, since.mx_frame)? else { return Ok(None) };
        if last.checksum != since.checksum || last.commit_pages != since.pages {
            return Ok(None);
        }
        Walk::after(header, since.mx_frame, since.checksum)
    };
    let Some(walk) = walk_to(conn, walk, since.mx_frame, mark)? else { return Ok(None) };
    let least = walk.least().min(since.pages);
    let mut map = walk.into_map(mark.pages);
    // It is never used, and zeros in every image.
    let lock = lock_page(mark.page_size);
    map.remove(lock);
    Ok(has_all(&map, least, mark.pages, lock).then_some(map))
}

/// Whether every page past `least` is in `map`, which goes as far as `pages` and lacks the page called `lock`.
fn has_all(map: &PageMap, least: u32, pages: u32, lock: u32) -> bool {
    let added = pages.saturating_sub(least) - u32::from(least < lock && lock <= pages);
    let from = map.entries().partition_point(|(page, _)| *page <= least);
    map.entries()[from..].len() == added as usize
}

/// The header of frame `frame`, if it is one of the mark's log.
fn frame_header(conn: &Connection, mark: &WalMark, frame: u32) -> io::Result<Option<FrameHeader>> {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    if ffi::read_wal(conn, &mut bytes, wal::frame_offset(frame, mark.page_size))? < bytes.len() {
        return Ok(None);
    }
    Ok(Some(FrameHeader::parse(&bytes)).filter(|header| header.salts == mark.salts))
}

impl Changes {
    pub(super) fn new(conn: Connection, ground: Ground, changed: PageMap, remarks: Vec<String>) -> Changes {
        Changes { conn, ground, changed, remarks }
    }

    /// Where the image ends in the log.
    pub fn mark(&self) -> WalMark {
        self.ground.mark
    }

    /// Whether nothing of the log is known to have been copied into the file. Then nothing has written the file since
    /// whoever has the database open opened it.
    pub fn is_all_in_log(&self) -> bool {
        self.ground.backfill == 0
    }

    /// The numbers of the pages that changed, in order; the first page is 1. None is past the end of the image.
    pub fn pages(&self) -> Vec<u32> {
        self.changed.entries().iter().map(|(page, _)| *page).collect()
    }

    /// Reads a page that changed. `into` must be of its size.
    pub fn read_page(&self, page: u32, into: &mut [u8]) -> io::Result<()> {
        let unlike = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
        if into.len() != self.ground.mark.page_size as usize {
            return Err(unlike("the buffer is not of a page's size"));
        }
        let Some((_, frame)) = self.changed.span(u64::from(page), 1).first() else {
            return Err(unlike("the page is not one that changed"));
        };
        if self.ground.frozen.is_some() {
            // The log may be another one by now.
            let count = ffi::read_main(&self.conn, into, self.place(page))?;
            into[count..].fill(0);
            return Ok(());
        }
        let offset = wal::page_offset(*frame, self.ground.mark.page_size);
        if ffi::read_wal(&self.conn, into, offset)? < into.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn place(&self, page: u32) -> u64 {
        (u64::from(page) - 1) * u64::from(self.ground.mark.page_size)
    }

    /// What a person should know about this capture.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Ends the transaction. `true`: everything that was read is of one state. `false`: it has to be read again.
    pub fn finish(self) -> io::Result<bool> {
        stands(&self.conn, &self.ground)
    }
}

#[cfg(test)]
mod tests;
