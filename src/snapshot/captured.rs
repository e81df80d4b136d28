//! What came of one file, and how files are opened.
//!
//! No other descriptor of a database may be closed while SQLite has it open: that would drop its locks. So whatever is
//! read as bytes is opened through a handle that knows of that ([`crate::source::handle`]).

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::marks::Mark;
use super::receipt::Receipt;
use super::sidecar::{Sidecar, is_shared_memory};
use super::tree::{Attributes, Consistency, Content};
use crate::source::handle::FileHandle;
use crate::source::sqlite::HotJournal;
use crate::source::walk::Stamp;

/// What came of one file.
#[derive(Default)]
pub struct Captured {
    /// Size in bytes, consistency, content; nothing if the file is gone or unreadable.
    pub content: Option<(u64, Consistency, Content)>,
    /// What was seen before it was read, if that can be relied on.
    pub receipt: Option<Receipt>,
    /// Where its log stood, if the next capture can go on from there.
    pub mark: Option<Mark>,
    /// Only what the log says of the changes was read.
    pub by_log: bool,
    /// Attributes, where they are not those of the walk.
    pub attributes: Option<Attributes>,
    /// Why it could not be captured, or not as it should be.
    pub error: Option<String>,
    /// What is worth knowing besides.
    pub remarks: Vec<String>,
    /// What its bytes turned out to be; then it was not saved.
    pub instead: Option<Instead>,
    /// For a file that is named like a sidecar: whether the bytes that were read are one's.
    pub judged: Option<bool>,
    /// The file that was read, if it is known to have been one and the same all the while.
    pub who: Option<Stamp>,
}

/// What a file is, if it is not one that is to be saved as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// It begins as a database does.
    Database,
    /// It is the log or the journal of a database that is captured as an image, or a database's shared memory.
    Sidecar,
}

impl Captured {
    /// It was deleted while the snapshot was taken, or moved: then [`crate::source::moved`] finds it.
    pub(super) fn gone() -> Captured {
        Captured::default()
    }

    /// Whether there was nothing to capture.
    pub(super) fn is_gone(&self) -> bool {
        self.content.is_none() && self.error.is_none() && self.instead.is_none()
    }

    /// It cannot be read.
    pub fn failed(error: impl std::fmt::Display) -> Captured {
        Captured { error: Some(error.to_string()), ..Captured::default() }
    }
}

/// How databases are opened.
pub struct Opening<'a> {
    /// The data directory, by name.
    pub source: &'a Path,
    /// The same, held open: what a path to something below it begins with.
    pub through: &'a Path,
    /// Where a copy can be made.
    pub scratch: &'a dyn Fn() -> std::io::Result<PathBuf>,
    /// What is done about a hot journal.
    pub hot: HotJournal,
}

/// The bytes of a file that is captured as such.
pub(super) enum Bytes {
    Handle(FileHandle),
    /// A file that is only *named* like a database's shared memory: nobody can hold SQLite's locks on it.
    Plain(std::fs::File),
}

impl Bytes {
    pub(super) fn open(path: &Path) -> std::io::Result<Bytes> {
        if let Some((Sidecar::Memory, base)) = Sidecar::named(path)
            && !is_shared_memory(path)
            && std::fs::symlink_metadata(base).is_ok()
        {
            let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            return Ok(Bytes::Plain(OpenOptions::new().read(true).custom_flags(flags).open(path)?));
        }
        FileHandle::open(path).map(Bytes::Handle)
    }

    pub fn read_full(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + filled as u64;
            let got = match self {
                Bytes::Handle(handle) => handle.read_at(&mut buffer[filled..], at)?,
                Bytes::Plain(file) => file.read_at(&mut buffer[filled..], at)?,
            };
            if got == 0 {
                break;
            }
            filled += got;
        }
        Ok(filled)
    }
}
