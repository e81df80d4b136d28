//! The view that SQLite makes: a copy by its backup API, in a scratch file that goes with the view.
//!
//! The last resort, and what the other views are held against in tests.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::super::handle::FileHandle;
use super::connect::{self, Failure, Transaction};
use super::ffi;
use super::header::{HEADER_BYTES, looks_like_database};
use super::view::{EMPTY_PAGE_SIZE, HotJournal, Refusal, Shape, View};

/// The copy, open. `None` for a database without pages, of which the backup API would make one with a page.
#[derive(Debug)]
pub(super) struct Copy {
    // In this order: closed, then removed.
    file: Option<FileHandle>,
    _scratch: Option<Scratch>,
}

/// A file of our own that is removed on drop.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // The directory is the caller's and is removed with everything in it in the end.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Copy {
    pub(super) fn make(path: &Path, scratch_dir: &Path, hot: HotJournal) -> Result<(Copy, Shape), Refusal> {
        let mut remarks = Vec::new();
        let source = connect::reader(path, hot, &mut remarks)?;
        let transaction = connect::begin(&source)?;
        let whole = ffi::main_size(&source)?;
        if whole == 0 {
            let shape = Shape { view: View::Backup, page_size: EMPTY_PAGE_SIZE, len: 0, remarks };
            return Ok((Copy { file: None, _scratch: None }, shape));
        }
        let scratch = create(scratch_dir)?;
        copy(&source, &scratch.0)?;
        let file = FileHandle::open(&scratch.0)?;
        let len = file.size()?;
        // Only a commit in a log can make a database smaller than its file. Otherwise there is something behind
        // its pages, which the backup API leaves out, and a capture must not.
        let no_log = transaction == Transaction::Rollback || ffi::wal_size(&source)? == 0;
        if no_log && len < whole {
            return Err(Refusal::NotADatabase("its file is longer than the database in it".into()));
        }
        drop(source);

        let mut first = [0; HEADER_BYTES];
        let count = file.read_at(&mut first, 0)?;
        let Some(header) = looks_like_database(&first[..count]) else {
            return Err(Refusal::NotADatabase("the copy of it is not one".into()));
        };
        let shape = Shape { view: View::Backup, page_size: header.page_size, len, remarks };
        Ok((Copy { file: Some(file), _scratch: Some(scratch) }, shape))
    }

    pub(super) fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let count = self.file.as_ref().map_or(Ok(0), |file| file.read_at(buf, offset))?;
        if count < buf.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

fn create(dir: &Path) -> io::Result<Scratch> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let dir = std::path::absolute(dir)?;
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("capture-{}-{number}.db", std::process::id()));
        // Plaintext: nobody else's from its first moment on.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(_) => return Ok(Scratch(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Copies within the transaction that `source` has open.
pub(super) fn copy(source: &Connection, to: &Path) -> Result<(), Refusal> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut target = Connection::open_with_flags_and_vfs(to, flags, ffi::VFS).map_err(Failure)?;
    // A copy that a crash spoils is of no use to anybody: no journal, no syncs.
    target.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF").map_err(Failure)?;
    let backup = Backup::new(source, &mut target).map_err(Failure)?;
    match backup.step(-1).map_err(Failure)? {
        StepResult::Done => Ok(()),
        step => Err(Refusal::Busy(format!("the backup API could not copy it in one step ({step:?})"))),
    }
}
