//! The database as its reader sees it: an image to read from, whichever way it is obtained.
//!
//! The views lie behind it; which one it is, it says, and nothing else depends on it.

use std::io;
use std::path::{Path, PathBuf};

use super::copy::Copy;
use super::ground::WalMark;
use super::live::{Live, Since};
use super::quiet::Quiet;
use super::since::Changes;
use super::view::{HotJournal, Refusal, Shape, View};

#[derive(Debug)]
enum Reader {
    Quiet(Quiet),
    Live(Live),
    Copy(Copy),
}

/// A database, open as one consistent image for as long as the value lives.
#[derive(Debug)]
pub struct Database {
    reader: Reader,
    shape: Shape,
}

/// What comes of opening a database of which an earlier end mark is known.
#[derive(Debug)]
pub enum Opened {
    /// The log still says what changed since then.
    Changes(Box<Changes>),
    /// It does not, or there is no log.
    Whole(Box<Database>),
}

impl Database {
    /// Opens `path` in the least intrusive way that works: Quiet, then a live transaction, then a copy by the
    /// backup API into a file in `scratch()`, which is only called for that.
    pub fn open(path: &Path, scratch: &dyn Fn() -> io::Result<PathBuf>) -> Result<Database, Refusal> {
        Self::open_with(path, scratch, HotJournal::RollBack)
    }

    /// [`Database::open`], with a choice about a hot journal.
    pub fn open_with(
        path: &Path,
        scratch: &dyn Fn() -> io::Result<PathBuf>,
        hot: HotJournal,
    ) -> Result<Database, Refusal> {
        let path = std::path::absolute(path)?;
        if let Some((quiet, shape)) = Quiet::open(&path)? {
            return Ok(Database { reader: Reader::Quiet(quiet), shape });
        }
        match Live::open(&path, hot)? {
            Ok((live, shape)) => Ok(Database { reader: Reader::Live(live), shape }),
            Err(unproven) => Self::copied_because(&path, scratch, hot, &unproven),
        }
    }

    /// [`Database::open_with`], or only what changed since the image that ended in `mark`, if the log says it.
    pub fn open_since(
        path: &Path,
        scratch: &dyn Fn() -> io::Result<PathBuf>,
        hot: HotJournal,
        mark: &WalMark,
    ) -> Result<Opened, Refusal> {
        let whole = |reader, shape| Opened::Whole(Box::new(Database { reader, shape }));
        let path = std::path::absolute(path)?;
        if let Some((quiet, shape)) = Quiet::open(&path)? {
            return Ok(whole(Reader::Quiet(quiet), shape));
        }
        match Live::open_since(&path, hot, mark)? {
            Ok(Since::Changes(changes)) => Ok(Opened::Changes(Box::new(changes))),
            Ok(Since::Whole(live, shape)) => Ok(whole(Reader::Live(live), shape)),
            Err(unproven) => Self::copied_because(&path, scratch, hot, &unproven).map(|db| Opened::Whole(Box::new(db))),
        }
    }

    fn copied_because(
        path: &Path,
        scratch: &dyn Fn() -> io::Result<PathBuf>,
        hot: HotJournal,
        unproven: &str,
    ) -> Result<Database, Refusal> {
        let mut copied = Self::open_backup_with(path, &scratch()?, hot)?;
        copied.shape.remarks.push(format!("captured by the backup API because {unproven}"));
        Ok(copied)
    }

    /// Opens a live transaction without trying Quiet first: for when Quiet was disturbed. What would need a copy is
    /// [`Refusal::Busy`].
    pub fn open_live(path: &Path) -> Result<Database, Refusal> {
        Self::open_live_with(path, HotJournal::RollBack)
    }

    /// [`Database::open_live`], with a choice about a hot journal.
    pub fn open_live_with(path: &Path, hot: HotJournal) -> Result<Database, Refusal> {
        match Live::open(&std::path::absolute(path)?, hot)? {
            Ok((live, shape)) => Ok(Database { reader: Reader::Live(live), shape }),
            Err(unproven) => Err(Refusal::Busy(unproven)),
        }
    }

    /// Copies the database with the backup API into a file in `scratch_dir` that is removed with this value.
    pub fn open_backup(path: &Path, scratch_dir: &Path) -> Result<Database, Refusal> {
        Self::open_backup_with(path, scratch_dir, HotJournal::RollBack)
    }

    /// [`Database::open_backup`], with a choice about a hot journal.
    pub fn open_backup_with(path: &Path, scratch_dir: &Path, hot: HotJournal) -> Result<Database, Refusal> {
        let (copy, shape) = Copy::make(&std::path::absolute(path)?, scratch_dir, hot)?;
        Ok(Database { reader: Reader::Copy(copy), shape })
    }

    /// How the image is obtained.
    pub fn view(&self) -> View {
        self.shape.view
    }

    /// Bytes per page.
    pub fn page_size(&self) -> u32 {
        self.shape.page_size
    }

    /// Bytes of the image. Zero for a database without pages.
    #[expect(clippy::len_without_is_empty, reason = "a length in bytes, not a collection")]
    pub fn len(&self) -> u64 {
        self.shape.len
    }

    /// Fills `buf` with the image from `offset`. The span must lie within the image; its offset and its length must
    /// be multiples of the page size, but that the last page of a file under Quiet or Rollback may be cut short.
    pub fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let page = u64::from(self.shape.page_size);
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.shape.len);
        let Some(end) = end else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the span goes past the end of the image"));
        };
        if !offset.is_multiple_of(page) || !(end.is_multiple_of(page) || end == self.shape.len) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the span is not one of whole pages"));
        }
        match &mut self.reader {
            Reader::Quiet(quiet) => quiet.read_at(offset, buf),
            Reader::Live(live) => live.read_at(offset, buf),
            Reader::Copy(copy) => copy.read_at(offset, buf),
        }
    }

    /// Ends the view. `true`: everything that was read is one consistent state. `false`: somebody wrote
    /// meanwhile, and the database has to be opened with [`Database::open_live`] and read again.
    pub fn finish(self) -> io::Result<bool> {
        match self.reader {
            Reader::Quiet(quiet) => quiet.finish(),
            Reader::Live(live) => live.finish(),
            Reader::Copy(_) => Ok(true),
        }
    }

    /// Where the image ends in the write-ahead log; only for [`View::Wal`].
    pub fn wal_mark(&self) -> Option<WalMark> {
        match &self.reader {
            Reader::Live(live) => live.mark(),
            Reader::Quiet(_) | Reader::Copy(_) => None,
        }
    }

    /// The pages that were changed since the image that ended in `mark`, in order, if the log says it: to hold against
    /// what is read here.
    pub fn changed_since(&self, mark: &WalMark) -> io::Result<Option<Vec<u32>>> {
        match &self.reader {
            Reader::Live(live) => live.changed(mark),
            Reader::Quiet(_) | Reader::Copy(_) => Ok(None),
        }
    }

    /// What a person should know about this capture.
    pub fn remarks(&self) -> &[String] {
        &self.shape.remarks
    }
}
