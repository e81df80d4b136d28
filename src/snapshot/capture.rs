//! One file of the data directory into the session: a database as an image, anything else as bytes.
//!
//! A file is read and then looked at again: if its stamp is what it was before, the content is of one moment
//! ([`Consistency::Stable`]). If not, it is read again, up to [`ATTEMPTS`] times; after that what was read last stays,
//! and says so ([`Consistency::Changed`]).
//!
//! What only looks like a database, or is too broken for SQLite to read, is captured as the bytes that it is, sidecars
//! included. So is one that stays locked, which is reported besides.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::receipts::Receipt;
use super::save::{Failure, Session};
use super::tree::{Attributes, Consistency, Content};
use crate::chunk::Cut;
use crate::error::Result;
use crate::source::handle::FileHandle;
use crate::source::sqlite::{Database, HEADER_BYTES, Refusal, View, looks_like_database};
use crate::source::walk::{Found, Stamp, stamp};
use crate::store::segment::Content as Segment;

/// How often a file that changes is read.
const ATTEMPTS: u32 = 3;
/// A larger file, in bytes, is read once only: what changes all the time and is large would cost too much.
const RETRY_MOST: u64 = 256 * 1024 * 1024;
/// The smallest database has one page of 512 bytes.
const DATABASE_LEAST: u64 = 512;

/// A file that has a database's header.
pub struct Open {
    state: std::result::Result<Box<Database>, Refusal>,
    receipt: Receipt,
    attributes: Attributes,
}

impl Open {
    /// Whether it is captured as an image, so that its sidecars are part of it.
    pub fn is_image(&self) -> bool {
        self.state.is_ok()
    }

    /// Whether writers wait for it to be captured.
    pub fn blocks_writers(&self) -> bool {
        self.state.as_ref().is_ok_and(|db| matches!(db.view(), View::Quiet | View::Rollback))
    }
}

/// What came of one file.
#[derive(Default)]
pub struct Captured {
    /// Size in bytes, consistency, content; nothing if the file is gone or unreadable.
    pub content: Option<(u64, Consistency, Content)>,
    /// What was seen before it was read, if that can be relied on.
    pub receipt: Option<Receipt>,
    /// Attributes, where they are not those of the walk.
    pub attributes: Option<Attributes>,
    /// Why it could not be captured, or not as it should be.
    pub error: Option<String>,
    /// What is worth knowing besides.
    pub remarks: Vec<String>,
    /// It was not at its place any more, or another was: what the walk saw may be elsewhere now.
    pub moved: bool,
    /// A database that is kept as bytes: its log and journal are part of what it says, and must be kept too.
    pub as_bytes: bool,
}

impl Captured {
    fn gone() -> Captured {
        Captured { moved: true, ..Captured::default() }
    }
}

/// The sidecars of a database that are what their names say, the log, the shared memory and the journal: somebody's own
/// file may be called alike, and is captured like any other.
pub fn true_sidecars(source: &Path, database: &Path) -> [Option<PathBuf>; 3] {
    let [log, memory, journal] = sidecars(database);
    let begins = |path: &Path, is: &dyn Fn(&[u8]) -> bool| {
        let mut head = [0; 28];
        let handle = FileHandle::open(&source.join(path)).ok()?;
        let got = handle.read_at(&mut head, 0).ok()?;
        Some(is(&head[..got]))
    };
    let is_log = |head: &[u8]| head.is_empty() || head.starts_with(&[0x37, 0x7f, 0x06]);
    // A journal that was used and is kept for the next time has zeros in place of its header.
    let is_journal = |head: &[u8]| head.is_empty() || head.starts_with(&JOURNAL_MAGIC) || *head == [0; 28];
    [
        begins(&log, &is_log).unwrap_or(false).then_some(log),
        is_shared_memory(&source.join(&memory)).then_some(memory),
        begins(&journal, &is_journal).unwrap_or(false).then_some(journal),
    ]
}

/// What a rollback journal begins with (SQLite file format, 3).
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// Whether a file that is named like shared memory can be: SQLite makes it of regions of 32 KiB. To open it, only to
/// look, would drop the locks on it.
fn is_shared_memory(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len().is_multiple_of(32 * 1024))
}

/// The names that SQLite gives to a database's sidecars.
pub fn sidecars(database: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", "-journal"].map(|suffix| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    })
}

/// The stamps of a database's write-ahead log and rollback journal.
pub fn sidecar_stamps(database: &Path) -> [Option<Stamp>; 2] {
    let [log, _, journal] = sidecars(database);
    [log, journal].map(|path| std::fs::symlink_metadata(path).ok().map(|meta| stamp(&meta)))
}

/// Opens `found` if it is a database. Anything else, and what cannot be read, is left to [`capture_file`].
pub fn open_database(source: &Path, found: &Found, scratch: &dyn Fn() -> std::io::Result<PathBuf>) -> Option<Open> {
    let path = source.join(&found.path);
    // The stamps come first: what changes after them is noticed the next time.
    let meta = std::fs::symlink_metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
    let beside = sidecar_stamps(&path);
    if meta.len() < DATABASE_LEAST && !(meta.len() == 0 && beside[0].is_some_and(|log| log.size > 0)) {
        return None;
    }
    if meta.len() > 0 {
        let mut head = [0; HEADER_BYTES];
        let handle = FileHandle::open(&path).ok()?;
        handle.read_at(&mut head, 0).ok().filter(|&got| got == HEADER_BYTES)?;
        looks_like_database(&head)?;
    }
    let state = Database::open(&path, scratch).map(Box::new);
    let now = Found { stamp: stamp(&meta), ..found.clone() };
    let (mtime, mtime_nanos) = now.mtime();
    let attributes = Attributes { mode: found.mode, uid: found.owner.0, gid: found.owner.1, mtime, mtime_nanos };
    Some(Open { state, receipt: Receipt { stamp: now.stamp, database: Some(beside) }, attributes })
}

/// Saves a database's image.
pub fn capture_database(
    session: &mut Session<'_>,
    source: &Path,
    found: &Found,
    open: Open,
    before: Option<&Content>,
    scratch: &dyn Fn() -> std::io::Result<PathBuf>,
) -> Result<Captured> {
    let path = source.join(&found.path);
    let Open { state, receipt, attributes } = open;
    let mut next = state.map(|database| *database);
    let mut attempt = 0;
    let refused = loop {
        attempt += 1;
        let database = match next {
            Ok(database) => database,
            // A live view has no room for a copy: ask for one, if the database can be copied at all.
            Err(Refusal::Busy(_)) if attempt == 2 => {
                next = copied(&path, scratch);
                continue;
            }
            Err(refusal) => break refusal,
        };
        match save_image(session, database, before)? {
            Ok(mut captured) => {
                captured.receipt = Some(receipt);
                captured.attributes = Some(attributes);
                return Ok(captured);
            }
            Err(Disturbed::Io(error)) => {
                return Ok(Captured { error: Some(error.to_string()), ..Captured::default() });
            }
            Err(Disturbed::Again) => {}
        }
        // Somebody began to write. A live transaction is not disturbed by that; a copy is never.
        next = match attempt {
            1 => Database::open_live(&path),
            2 | 3 => copied(&path, scratch),
            _ => break Refusal::Busy("it changed under every attempt to read it".to_owned()),
        };
    };
    if let Refusal::Io(error) = &refused
        && error.kind() == ErrorKind::NotFound
    {
        return Ok(Captured::gone());
    }
    let mut captured = capture_file(session, source, found, before)?;
    session.sink.close_segment(Segment::Data)?;
    captured.as_bytes = true;
    match &refused {
        Refusal::NotADatabase(why) => {
            captured.remarks.push(format!("looks like a database but is not a sound one, kept as bytes: {why}"));
        }
        refusal => {
            captured.error.get_or_insert(format!("{refusal}; kept as bytes, which may not be of one moment"));
            captured.receipt = None;
            if let Some((_, consistency, _)) = &mut captured.content {
                *consistency = Consistency::Changed;
            }
        }
    }
    Ok(captured)
}

fn copied(path: &Path, scratch: &dyn Fn() -> std::io::Result<PathBuf>) -> std::result::Result<Database, Refusal> {
    Database::open_backup(path, &scratch()?)
}

enum Disturbed {
    Again,
    Io(std::io::Error),
}

fn save_image(
    session: &mut Session<'_>,
    mut database: Database,
    before: Option<&Content>,
) -> Result<std::result::Result<Captured, Disturbed>> {
    // Databases share no segment with other files.
    session.sink.close_segment(Segment::Data)?;
    let (length, mut offset) = (database.len(), 0);
    let saved = session.save(Cut::for_database(database.page_size()), before, &mut |buffer| {
        let amount = buffer.len().min((length - offset) as usize);
        database.read_at(offset, &mut buffer[..amount])?;
        offset += amount as u64;
        Ok(amount)
    });
    // Also when it failed half way: what was saved of it shares no segment either.
    session.sink.close_segment(Segment::Data)?;
    let (size, content) = match saved {
        Ok(saved) => saved,
        Err(Failure::Store(error)) => return Err(error),
        Err(Failure::Source(error)) if error.kind() == ErrorKind::Interrupted => return Ok(Err(Disturbed::Again)),
        Err(Failure::Source(error)) => return Ok(Err(Disturbed::Io(error))),
    };
    let remarks = database.remarks().to_vec();
    match database.finish() {
        Ok(true) => {
            let content = Some((size, Consistency::Transaction, content));
            Ok(Ok(Captured { content, remarks, ..Captured::default() }))
        }
        Ok(false) => Ok(Err(Disturbed::Again)),
        Err(error) => Ok(Err(Disturbed::Io(error))),
    }
}

/// Saves a file's bytes.
pub fn capture_file(
    session: &mut Session<'_>,
    source: &Path,
    found: &Found,
    before: Option<&Content>,
) -> Result<Captured> {
    let path = source.join(&found.path);
    let mut seen = found.stamp;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let saved = Bytes::open(&path).map_err(Failure::Source).and_then(|handle| {
            let mut offset = 0;
            session.save(Cut::for_file(seen.size), before, &mut |buffer| {
                let got = handle.read_full(buffer, offset)?;
                offset += got as u64;
                Ok(got)
            })
        });
        let after = std::fs::symlink_metadata(&path);
        let (size, content) = match (saved, &after) {
            (Err(Failure::Store(error)), _) => return Err(error),
            // Deleted while the snapshot was taken: it is not in it.
            (Err(Failure::Source(error)), _) if error.kind() == ErrorKind::NotFound => return Ok(Captured::gone()),
            (_, Err(error)) if error.kind() == ErrorKind::NotFound => return Ok(Captured::gone()),
            (_, Ok(meta)) if !meta.is_file() => {
                let error = Some("it became something else while the snapshot was taken".to_owned());
                return Ok(Captured { error, ..Captured::default() });
            }
            (Err(Failure::Source(error)), _) => {
                return Ok(Captured { error: Some(error.to_string()), ..Captured::default() });
            }
            (Ok(saved), _) => saved,
        };
        let now = after.map_or(seen, |meta| stamp(&meta));
        let moved = now.inode != found.stamp.inode;
        if now == seen && size == now.size {
            let receipt = Some(Receipt { stamp: now, database: None });
            let attributes = Some(attributes_at(found, now));
            let content = Some((size, Consistency::Stable, content));
            return Ok(Captured { content, receipt, attributes, moved, ..Captured::default() });
        }
        if attempt >= ATTEMPTS || now.size > RETRY_MOST {
            let attributes = Some(attributes_at(found, now));
            return Ok(Captured {
                content: Some((size, Consistency::Changed, content)),
                moved,
                attributes,
                ..Captured::default()
            });
        }
        seen = now;
    }
}

fn attributes_at(found: &Found, now: Stamp) -> Attributes {
    let (mtime, mtime_nanos) = Found { stamp: now, ..found.clone() }.mtime();
    Attributes { mode: found.mode, uid: found.owner.0, gid: found.owner.1, mtime, mtime_nanos }
}

/// The bytes of a file that is captured as such.
enum Bytes {
    Handle(FileHandle),
    /// A file that is only *named* like a database's shared memory: nobody can hold SQLite's locks on it.
    Plain(std::fs::File),
}

impl Bytes {
    fn open(path: &Path) -> std::io::Result<Bytes> {
        if let Some(base) = path.as_os_str().as_bytes().strip_suffix(b"-shm") {
            let mut head = [0; HEADER_BYTES];
            let base = FileHandle::open(Path::new(OsStr::from_bytes(base)));
            let is_database = |base: &FileHandle, head: &mut [u8; HEADER_BYTES]| -> std::io::Result<bool> {
                Ok(base.read_at(head, 0)? == HEADER_BYTES && looks_like_database(head).is_some())
            };
            if let Ok(base) = base
                && !(is_shared_memory(path) && is_database(&base, &mut head)?)
            {
                let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
                return Ok(Bytes::Plain(OpenOptions::new().read(true).custom_flags(flags).open(path)?));
            }
        }
        FileHandle::open(path).map(Bytes::Handle)
    }

    fn read_full(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
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
