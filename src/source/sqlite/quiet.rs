//! The view for a database that nobody is writing: the file under a shared lock, without a connection.
//!
//! It leaves nothing behind in the source, not even a sidecar.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::super::handle::{FileHandle, beside};
use super::super::walk::{Identity, identity, stamp};
use super::header::{HEADER_BYTES, MAGIC, looks_like_database};
use super::view::{EMPTY_PAGE_SIZE, Refusal, Shape, View};

/// How long to wait for a writer to let go of the file before a connection is tried instead.
const PATIENCE: Duration = Duration::from_millis(250);

/// The file, locked.
#[derive(Debug)]
pub(super) struct Quiet {
    file: FileHandle,
    path: PathBuf,
    len: u64,
    modified: Option<SystemTime>,
    who: Identity,
    /// The file ended before its length: whoever did that does not go by the locks.
    cut_short: bool,
}

/// What is beside a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sidecars {
    /// Nothing that a reader of the file alone would miss.
    None,
    /// A log, or a journal that is in use or hot.
    Some,
}

impl Quiet {
    /// `None` if the database is in use, so that it takes a connection to read it.
    pub(super) fn open(path: &Path) -> Result<Option<(Quiet, Shape)>, Refusal> {
        if sidecars(path)? == Sidecars::Some {
            return Ok(None);
        }
        let file = FileHandle::open(path)?;
        let started = Instant::now();
        let mut pause = Duration::from_millis(1);
        while !file.try_lock_shared()? {
            if started.elapsed() >= PATIENCE {
                return Ok(None);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        // With the lock held, and not before: see the head of the room.
        if sidecars(path)? == Sidecars::Some {
            return Ok(None);
        }
        let len = file.size()?;
        let page_size = if len == 0 {
            EMPTY_PAGE_SIZE
        } else {
            let mut first = [0; HEADER_BYTES];
            let count = file.read_at(&mut first, 0)?;
            match looks_like_database(&first[..count]) {
                Some(header) => header.page_size,
                None => return Err(Refusal::NotADatabase("its header is not that of a database".into())),
            }
        };
        let meta = path.symlink_metadata()?;
        let (modified, who) = (meta.modified().ok(), identity(&stamp(&meta)));
        let quiet = Quiet { file, path: path.to_owned(), len, modified, who, cut_short: false };
        Ok(Some((quiet, Shape { view: View::Quiet, page_size, len, remarks: Vec::new() })))
    }

    pub(super) fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let count = self.file.read_at(buf, offset)?;
        if count < buf.len() {
            buf[count..].fill(0);
            self.cut_short = true;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<bool> {
        // The log first: it can not be deleted while the lock is held, so looking once is enough.
        if exists(&beside(&self.path, "-wal"))? || self.cut_short {
            return Ok(false);
        }
        // Programs that write without locks are not SQLite, but are noticed if they can be.
        let meta = match self.path.symlink_metadata() {
            Ok(meta) => meta,
            // Unlinked or renamed: where a log would lie now is not known.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if identity(&stamp(&meta)) != self.who {
            return Ok(false);
        }
        Ok(self.file.size()? == self.len && meta.len() == self.len && meta.modified().ok() == self.modified)
    }
}

/// What a connection must not be opened on, because it would either fail or, for an empty file, delete
/// what is beside it: SQLite takes sidecars of a database without pages for remains of another one.
pub(super) fn preflight(path: &Path) -> Result<(), Refusal> {
    let file = FileHandle::open(path)?;
    let mut first = [0; MAGIC.len()];
    let count = file.read_at(&mut first, 0)?;
    if count == 0 {
        return match sidecars(path)? {
            Sidecars::None => Ok(()),
            Sidecars::Some => Err(Refusal::NotADatabase("it is empty, but has a log or journal beside it".into())),
        };
    }
    if &first != MAGIC {
        return Err(Refusal::NotADatabase("its header is not that of a database".into()));
    }
    Ok(())
}

fn sidecars(path: &Path) -> io::Result<Sidecars> {
    if exists(&beside(path, "-wal"))? || journal_counts(&beside(path, "-journal"))? {
        return Ok(Sidecars::Some);
    }
    Ok(Sidecars::None)
}

/// Whether a journal is one that SQLite would look into. An empty one, and one whose first byte is zero, are
/// what finished transactions leave behind in the modes that keep the file.
fn journal_counts(journal: &Path) -> io::Result<bool> {
    let file = match FileHandle::open(journal) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        // A link, or not readable: SQLite shall say what it makes of it.
        Err(_) => return Ok(true),
    };
    let mut first = [0; 1];
    Ok(file.read_at(&mut first, 0)? == 1 && first != [0])
}

fn exists(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        // A sidecar's name can be too long where the database's own is not: then there is none.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NAMETOOLONG.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}
