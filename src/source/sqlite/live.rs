//! The views that rest on a read transaction: the file alone, or the file and its write-ahead log.
//!
//! Why what they read is one transaction is reasoned out at the head of the room.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::connect::{self, Transaction};
use super::ffi;
use super::ground::{
    Ground, IndexHeader, Unproven, WalMark, ground, lock_page, log_header, page_size_of, stands, walk_to,
};
use super::since::{self, Changes};
use super::view::{EMPTY_PAGE_SIZE, HotJournal, Refusal, Shape, View};
use super::wal::{self, PageMap, Walk};

/// How long to try for a transaction that begins between two commits.
const PATIENCE: Duration = Duration::from_secs(5);
/// After this many misses in a row, tries are spaced out.
const EAGER_TRIES: u32 = 50;
/// Misses without even a header to compare, after which there is none to be had.
const BLIND_TRIES: u32 = 5;

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
        ground: Ground,
        overlay: PageMap,
    },
}

/// A transaction, before anything of it was read.
enum Begun {
    Rollback(Connection),
    /// With the header that is proven to be its own, and the number of frames that are in the file.
    Wal(Connection, IndexHeader, u32),
}

/// What comes of opening a database of which an earlier end mark is known.
#[derive(Debug)]
pub(super) enum Since {
    Changes(Changes),
    Whole(Live, Shape),
}

impl Live {
    /// The inner error asks for the backup API.
    pub(super) fn open(path: &Path, hot: HotJournal) -> Result<Result<(Live, Shape), Unproven>, Refusal> {
        let mut remarks = Vec::new();
        match begin(path, hot, &mut remarks)? {
            Ok(Begun::Rollback(conn)) => Self::rollback(conn, remarks).map(Ok),
            Ok(Begun::Wal(conn, header, backfill)) => match ground(&conn, &header, backfill)? {
                Ok(ground) => Self::wal(conn, ground, remarks),
                Err(unproven) => Ok(Err(unproven)),
            },
            Err(unproven) => Ok(Err(unproven)),
        }
    }

    /// [`Live::open`], or what changed since `mark`, if the log says it.
    pub(super) fn open_since(path: &Path, hot: HotJournal, mark: &WalMark) -> Result<Result<Since, Unproven>, Refusal> {
        let mut remarks = Vec::new();
        let whole = |(live, shape)| Since::Whole(live, shape);
        let (conn, ground) = match begin(path, hot, &mut remarks)? {
            Ok(Begun::Rollback(conn)) => return Self::rollback(conn, remarks).map(|found| Ok(whole(found))),
            Ok(Begun::Wal(conn, header, backfill)) => match ground(&conn, &header, backfill)? {
                Ok(ground) => (conn, ground),
                Err(unproven) => return Ok(Err(unproven)),
            },
            Err(unproven) => return Ok(Err(unproven)),
        };
        // What cannot be read here is reported by who reads all of it.
        match since::changed(&conn, &ground, mark) {
            Ok(Some(changed)) => Ok(Ok(Since::Changes(Changes::new(conn, ground, changed, remarks)))),
            Ok(None) | Err(_) => Ok(Self::wal(conn, ground, remarks)?.map(whole)),
        }
    }

    fn rollback(conn: Connection, remarks: Vec<String>) -> Result<(Live, Shape), Refusal> {
        let len = ffi::main_size(&conn)?;
        let page_size = if len == 0 { EMPTY_PAGE_SIZE } else { page_size_of(&conn)? };
        let live = Live { conn, kind: Kind::Rollback { len } };
        Ok((live, Shape { view: View::Rollback, page_size, len, remarks }))
    }

    fn wal(conn: Connection, ground: Ground, remarks: Vec<String>) -> Result<Result<(Live, Shape), Unproven>, Refusal> {
        let overlay = match ground.frozen {
            Some(_) => PageMap::default(),
            None => match walk(&conn, &ground.mark)? {
                Ok(overlay) => overlay,
                Err(unproven) => return Ok(Err(unproven)),
            },
        };
        let Ground { len, mark: WalMark { page_size, .. }, .. } = ground;
        let live = Live { conn, kind: Kind::Wal { ground, overlay } };
        Ok(Ok((live, Shape { view: View::Wal, page_size, len, remarks })))
    }

    pub(super) fn mark(&self) -> Option<WalMark> {
        match &self.kind {
            Kind::Wal { ground, .. } => Some(ground.mark),
            Kind::Rollback { .. } => None,
        }
    }

    /// The pages that the log says were changed since `mark`, in order.
    pub(super) fn changed(&self, mark: &WalMark) -> io::Result<Option<Vec<u32>>> {
        let Kind::Wal { ground, .. } = &self.kind else { return Ok(None) };
        let changed = since::changed(&self.conn, ground, mark)?;
        Ok(changed.map(|changed| changed.map.entries().iter().map(|(page, _)| *page).collect()))
    }

    pub(super) fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let count = ffi::read_main(&self.conn, buf, offset)?;
        let (page_size, overlay) = match &self.kind {
            Kind::Rollback { .. } if count < buf.len() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Kind::Rollback { .. } => return Ok(()),
            Kind::Wal { ground, overlay } => (ground.mark.page_size, overlay),
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
        if let Some(index) = u64::from(lock_page(page_size)).checked_sub(first)
            && index < pages
        {
            let start = index as usize * page_size as usize;
            buf[start..start + page_size as usize].fill(0);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<bool> {
        match self.kind {
            Kind::Rollback { len } => Ok(ffi::main_size(&self.conn)? == len),
            Kind::Wal { ground, .. } => stands(&self.conn, &ground),
        }
    }
}

/// Begins a transaction. The inner error asks for the backup API.
fn begin(path: &Path, hot: HotJournal, remarks: &mut Vec<String>) -> Result<Result<Begun, Unproven>, Refusal> {
    let conn = connect::reader(path, hot, remarks)?;
    let started = Instant::now();
    let (mut tries, mut blind) = (0, 0);
    let mut before = None;
    loop {
        match connect::begin(&conn)? {
            Transaction::Rollback => return Ok(Ok(Begun::Rollback(conn))),
            Transaction::Wal => {}
        }
        let words = ffi::wal_index(&conn)?;
        let after = words.as_ref().and_then(IndexHeader::check);
        if let (Some(words), Some(header)) = (&words, after)
            && before == after
        {
            return Ok(Ok(Begun::Wal(conn, header, words.backfill)));
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

/// Walks the log to the end mark. The inner error says what was not as it must be.
fn walk(conn: &Connection, mark: &WalMark) -> io::Result<Result<PageMap, Unproven>> {
    let walked = match log_header(conn, mark)? {
        Some(header) => walk_to(conn, Walk::new(header), 0, mark)?,
        None => None,
    };
    Ok(walked.map(|walk| walk.into_map(mark.pages)).ok_or_else(|| {
        let unlike = "the log is not the one that its shared memory describes";
        unlike.to_owned()
    }))
}

#[cfg(test)]
pub(super) mod tests;
