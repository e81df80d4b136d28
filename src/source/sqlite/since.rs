//! What changed since an earlier image: the frames of the log behind the mark that it ended in.
//!
//! Nouns: the *earlier mark* E is where an image ended that was read before. M and N are those of this transaction (see
//! the head of the room). What is claimed: the image of M is the image of E, cut off or made longer to the page count
//! of M, with each page that has a frame in E+1 to M as its last one has it.
//!
//! **The log is the same one.** ([`followed`]) A log that is begun anew gets salts that it never had (one is counted up
//! and one drawn; both are drawn for a new file), and each frame carries them. Checksums are cumulative: a sum that
//! starts from E's, goes over the frames E+1 to M, each with these salts, and arrives at the one that the transaction's
//! own header has for M, is over exactly what was appended to the log that E ended in. A log that lost its end in a
//! crash and was written on differently gets to M another way. Frame E itself is looked at besides; with E = 0 the
//! log's header takes its place. A mark whose salts are both zero names no log: an index that found none has them.
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
//! **The log was begun anew, once.** ([`followed_over`]) That counts the first salt up by one, and draws the second; so
//! the salts tell that it was once. All of the old log was in the file by then: the image is the file's, with the
//! frames 1 to M of the new log put in. What changed since E are the pages of these, and those of the old log's frames
//! from E+1 to its end, which are still there as long as the new log has not come so far.
//! - *They are all there.* The walk goes on from E with E's sum for as long as the frames are the old log's. Frames are
//!   written one after the other, so whoever had overwritten one of them would have overwritten E first. That E is
//!   still there is looked at *after* the walk.
//! - *The old log ended there.* The walk must be ended by a whole frame of a log before that one, whose first salt is
//!   smaller by some. At the end of the file it says nothing: somebody may have cut it (`PRAGMA journal_size_limit`
//!   does, in the middle). So it says nothing behind a frame of the old log that does not go on from the one before,
//!   and behind one without salts: older versions of SQLite leave such frames in the middle of a log, when a part of a
//!   transaction was rolled back after pages of it had been written twice. What a transaction left that was rolled back
//!   may go on: then a page too many is read.
//! - *No crash took a part of it.* SQLite syncs a log before it copies it, unless it was told not to; and what is known
//!   of E is not believed after the machine was started anew (it is sealed under the index's file, which is not).
//!
//! Their content is in the file, where nobody writes them: a checkpoint writes only pages that have a frame in the new
//! log, and those are read from there, or the file is frozen.
//!
//! Whatever is not so is no error: then nothing is said, and the image is read as if there were no mark.

use std::io;

use rusqlite::Connection;

use super::ffi;
use super::ground::{Ground, WALK_BYTES, WalMark, lock_page, log_header, stands, walk_to};
use super::wal::{self, FRAME_HEADER_BYTES, FrameHeader, IN_FILE, PageMap, WAL_HEADER_BYTES, WalHeader, Walk};

/// What changed, as long as the value lives: it holds the read transaction.
#[derive(Debug)]
pub struct Changes {
    conn: Connection,
    ground: Ground,
    changed: Changed,
    remarks: Vec<String>,
}

/// What a log says.
#[derive(Debug)]
pub(super) struct Changed {
    /// The pages that have a frame behind the earlier mark, and the last one of each.
    pub(super) map: PageMap,
    /// The log was begun anew since.
    anew: bool,
}

/// What changed since `since`, or nothing if the log does not say.
pub(super) fn changed(conn: &Connection, ground: &Ground, since: &WalMark) -> io::Result<Option<Changed>> {
    let mark = &ground.mark;
    let is_sound = since.salts != [0, 0]
        && mark.page_size == since.page_size
        && u64::from(mark.pages) * u64::from(mark.page_size) == ground.len;
    if !is_sound {
        return Ok(None);
    }
    let anew = mark.salts != since.salts;
    let walked = if anew { followed_over(conn, mark, since)? } else { followed(conn, mark, since)? };
    let Some((least, mut map)) = walked else { return Ok(None) };
    // It is never used, and zeros in every image.
    let lock = lock_page(mark.page_size);
    map.remove(lock);
    Ok(has_all(&map, least.min(since.pages), mark.pages, lock).then_some(Changed { map, anew }))
}

/// What a walk found: the smallest size in pages that a transaction left, and the pages.
type Walked = (u32, PageMap);

/// Follows the log from `since` to `mark`, if it is the same one.
fn followed(conn: &Connection, mark: &WalMark, since: &WalMark) -> io::Result<Option<Walked>> {
    if mark.mx_frame == since.mx_frame {
        // A log without frames has no checksum yet.
        let is_same = mark.pages == since.pages && (mark.mx_frame == 0 || mark.checksum == since.checksum);
        return Ok(is_same.then(|| (since.pages, PageMap::default())));
    }
    if mark.mx_frame < since.mx_frame {
        return Ok(None);
    }
    let Some(header) = log_header(conn, since)? else { return Ok(None) };
    let walk = if since.mx_frame == 0 {
        Walk::new(header)
    } else if is_there(conn, since)? {
        Walk::after(header, since.mx_frame, since.checksum)
    } else {
        return Ok(None);
    };
    let walk = walk_to(conn, walk, since.mx_frame, mark)?;
    Ok(walk.map(|walk| (walk.least(), walk.into_map(mark.pages))))
}

/// Follows the log from `since` to its end, and the one that was begun in its place to `mark`.
fn followed_over(conn: &Connection, mark: &WalMark, since: &WalMark) -> io::Result<Option<Walked>> {
    // Without a frame of its own there is nothing to tell that the old log is still there.
    if mark.salts[0] != since.salts[0].wrapping_add(1) || since.mx_frame == 0 || mark.mx_frame >= since.mx_frame {
        return Ok(None);
    }
    let mut first = [0; WAL_HEADER_BYTES];
    if ffi::read_wal(conn, &mut first, 0)? < first.len() {
        return Ok(None);
    }
    // Until its first frame is written, the log has the old one's.
    let header = WalHeader::parse(&first).filter(|header| header.page_size == mark.page_size);
    let is_either =
        |header: &WalHeader| header.salts == mark.salts || (mark.mx_frame == 0 && header.salts == since.salts);
    let Some(header) = header.filter(is_either) else { return Ok(None) };
    let new = Walk::new(header);
    let new = if mark.mx_frame == 0 { Some(new) } else { walk_to(conn, new, 0, mark)? };
    let old = Walk::after(header.of_log(since.salts), since.mx_frame, since.checksum);
    let (Some(new), Some(old)) = (new, walk_out(conn, old, since)?) else { return Ok(None) };
    // Not before: see the head.
    if !is_there(conn, since)? {
        return Ok(None);
    }
    let least = new.least().min(old.least());
    Ok(Some((least, new.into_map(mark.pages).over(&old.into_map(mark.pages)))))
}

/// How many logs ago a frame may have been written that is taken for what an older log left.
const GENERATIONS: u32 = 1 << 16;

/// Goes on with `walk` behind `since`, for as long as there are frames of its log. Nothing if it is not a frame of
/// an older log that ends it.
fn walk_out(conn: &Connection, mut walk: Walk, since: &WalMark) -> io::Result<Option<Walk>> {
    let frame_bytes = FRAME_HEADER_BYTES + since.page_size as usize;
    let mut offset = wal::frame_offset(since.mx_frame.saturating_add(1), since.page_size);
    let mut block = vec![0; frame_bytes * (WALK_BYTES / frame_bytes).max(1)];
    loop {
        let whole = ffi::read_wal(conn, &mut block, offset)? / frame_bytes * frame_bytes;
        for frame in block[..whole].chunks_exact(frame_bytes) {
            if !walk.push(frame) {
                let header = FrameHeader::parse(frame.first_chunk().expect("a frame begins with its header"));
                let generations = since.salts[0].wrapping_sub(header.salts[0]);
                let is_older = header.salts != [0, 0] && (1..=GENERATIONS).contains(&generations);
                return Ok(is_older.then_some(walk));
            }
        }
        if whole == 0 {
            return Ok(None);
        }
        offset += whole as u64;
    }
}

/// Whether the log has the frame that `mark` is about.
fn is_there(conn: &Connection, mark: &WalMark) -> io::Result<bool> {
    let frame = frame_header(conn, mark, mark.mx_frame)?;
    Ok(frame.is_some_and(|frame| frame.checksum == mark.checksum && frame.commit_pages == mark.pages))
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
    pub(super) fn new(conn: Connection, ground: Ground, changed: Changed, remarks: Vec<String>) -> Changes {
        Changes { conn, ground, changed, remarks }
    }

    /// Where the image ends in the log.
    pub fn mark(&self) -> WalMark {
        self.ground.mark
    }

    /// Whether nothing of the log is known to have been copied into the file. Then nothing has written the file since
    /// whoever has the database open opened it.
    pub fn is_all_in_log(&self) -> bool {
        self.ground.backfill == 0 && !self.changed.anew
    }

    /// The numbers of the pages that changed, in order; the first page is 1. None is past the end of the image.
    pub fn pages(&self) -> Vec<u32> {
        self.changed.map.entries().iter().map(|(page, _)| *page).collect()
    }

    /// Reads a page that changed. `into` must be of its size.
    pub fn read_page(&self, page: u32, into: &mut [u8]) -> io::Result<()> {
        let unlike = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
        if into.len() != self.ground.mark.page_size as usize {
            return Err(unlike("the buffer is not of a page's size"));
        }
        let Some((_, frame)) = self.changed.map.span(u64::from(page), 1).first() else {
            return Err(unlike("the page is not one that changed"));
        };
        // If the file is frozen, the log may be another one by now.
        if self.ground.frozen.is_some() || *frame == IN_FILE {
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
