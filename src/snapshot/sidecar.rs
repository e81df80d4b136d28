//! The files that SQLite keeps beside a database, told by what is in them.
//!
//! An image has in it what they hold, so they are left out beside one; and they *must* be: a rollback journal or a log
//! of another moment, lying beside a restored image, is played into it at the first opening, and tears it. A name alone
//! makes no sidecar, though: somebody's own file may be called alike, and is captured like any other.
//!
//! A journal appears and goes with every transaction. So what was seen of one earlier says nothing about the bytes
//! that are read later: the verdict is given on the very bytes that would be saved.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::source::handle::FileHandle;
use crate::source::sqlite::{HEADER_BYTES, looks_like_database};
use crate::source::walk::{Stamp, stamp};

/// How many bytes the verdict needs, where the file has so many: the smallest sector that a journal's header fills.
pub const HEAD: usize = 512;

/// What a rollback journal begins with (SQLite file format, 3), once it was synced.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// What a write-ahead log begins with, but for its last byte, which gives the order of bytes in its checksums.
const LOG_MAGIC: [u8; 3] = [0x37, 0x7f, 0x06];

/// Which sidecar a file is named as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sidecar {
    /// `-wal`
    Log,
    /// `-shm`
    Memory,
    /// `-journal`
    Journal,
}

impl Sidecar {
    /// Which sidecar `path` is named as, and of which database.
    pub fn named(path: &Path) -> Option<(Sidecar, PathBuf)> {
        let bytes = path.as_os_str().as_bytes();
        let all = [(Sidecar::Log, &b"-wal"[..]), (Sidecar::Memory, b"-shm"), (Sidecar::Journal, b"-journal")];
        all.into_iter()
            .find_map(|(which, suffix)| Some((which, bytes.strip_suffix(suffix)?)))
            .filter(|(_, base)| !base.is_empty() && !base.ends_with(b"/"))
            .map(|(which, base)| (which, PathBuf::from(OsStr::from_bytes(base))))
    }

    /// Whether a file that begins with `head`, which is [`HEAD`] bytes or all of it, is what its name says.
    pub fn is_true(self, head: &[u8]) -> bool {
        match self {
            Sidecar::Log => head.starts_with(&LOG_MAGIC[..head.len().min(LOG_MAGIC.len())]),
            Sidecar::Memory => head.is_empty(),
            Sidecar::Journal => is_journal(head),
        }
    }

    /// The same, and there is something in it: one without a byte, or of zeros, is played into nothing.
    pub fn holds_something(self, head: &[u8]) -> bool {
        self.is_true(head) && head.iter().any(|byte| *byte != 0)
    }

    /// Why it is left out.
    pub fn reason(self) -> &'static str {
        match self {
            Sidecar::Log => "a database's write-ahead log: what it holds is in the database's image",
            Sidecar::Memory => "a database's shared memory: SQLite makes it anew",
            Sidecar::Journal => "a database's rollback journal: the image is of a moment without it",
        }
    }
}

/// Whether what stands at `path` is called as a log or a journal, and is one that holds something.
pub fn is_log(path: &Path) -> bool {
    let Some((which @ (Sidecar::Log | Sidecar::Journal), _)) = Sidecar::named(path) else { return false };
    let mut head = [0; HEAD];
    let got = FileHandle::open(path).and_then(|file| file.read_at(&mut head, 0));
    got.is_ok_and(|got| which.holds_something(&head[..got]))
}

/// A journal in any of its states: in use, its header synced or not yet; emptied; kept for the next time with zeros in
/// place of its header.
fn is_journal(head: &[u8]) -> bool {
    // Unsynced: magic and count are zeros, then a random number, the old size, and two sizes that are powers of two.
    let size = |at: usize| head.get(at..at + 4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    let is_size = |at, least| size(at).is_some_and(|size| size.is_power_of_two() && (least..=65_536).contains(&size));
    let unsynced = head.iter().take(12).all(|byte| *byte == 0) && is_size(20, 32) && is_size(24, 512);
    // Zeroed: the header fills a sector, and what follows its fields is zeros too.
    head.starts_with(&JOURNAL_MAGIC) || unsynced || head.iter().all(|byte| *byte == 0)
}

/// The names that SQLite gives to a database's sidecars: the log, the shared memory and the journal.
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

/// Whether a database's shared memory can have this size in bytes.
pub fn fits_shared_memory(size: u64) -> bool {
    size == 3 || size.is_multiple_of(4096)
}

/// Whether the file at `path`, which is named like shared memory, can be that of a database. It is never opened to find
/// out: closing it would drop the locks that this process has on it.
///
/// SQLite makes it for databases whose header says that they have a log: of whole pages, and of 3 bytes at first.
/// Somebody's own file of such a size beside such a database would be written over when the database is next opened.
pub fn is_shared_memory(path: &Path) -> bool {
    let Some((Sidecar::Memory, base)) = Sidecar::named(path) else { return false };
    if !std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && fits_shared_memory(meta.len())) {
        return false;
    }
    let mut head = [0; HEADER_BYTES];
    let Ok(got) = FileHandle::open(&base).and_then(|base| base.read_at(&mut head, 0)) else {
        // It is not known to be none. Without a database it is a file like others.
        return std::fs::symlink_metadata(&base).is_ok_and(|meta| meta.is_file());
    };
    let [log, ..] = sidecars(&base);
    let cut_short = got == 0 && std::fs::symlink_metadata(&log).is_ok();
    // Beside a log that has anything in it SQLite makes one whatever the header says.
    cut_short
        || looks_like_database(&head[..got]).is_some() && is_log(&log)
        || looks_like_database(&head[..got]).is_some_and(|header| header.read_version.max(header.write_version) > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let named =
            |path: &str| Sidecar::named(Path::new(path)).map(|(which, base)| (which, base.display().to_string()));
        assert_eq!(named("a/x.db-wal"), Some((Sidecar::Log, "a/x.db".to_owned())));
        assert_eq!(named("x-shm"), Some((Sidecar::Memory, "x".to_owned())));
        assert_eq!(named("x-journal"), Some((Sidecar::Journal, "x".to_owned())));
        assert_eq!((named("a/-wal"), named("-journal"), named("x-walrus")), (None, None, None));
    }

    #[test]
    fn sidecars_are_told_by_their_bytes() {
        let unsynced = [&[0; 12][..], &[7, 7, 7, 7, 0, 0, 0, 9, 0, 0, 2, 0, 0, 0, 16, 0], &[0; 484]].concat();
        let diary = [&[0; 28][..], b"Dear diary"].concat();
        for (which, head, is) in [
            (Sidecar::Journal, &b""[..], true),
            (Sidecar::Journal, &JOURNAL_MAGIC, true),
            (Sidecar::Journal, &[0; 512], true),
            (Sidecar::Journal, &unsynced, true),
            (Sidecar::Journal, &diary, false),
            (Sidecar::Journal, b"a diary", false),
            (Sidecar::Log, b"", true),
            (Sidecar::Log, &[0x37, 0x7f], true),
            (Sidecar::Log, &[0x37, 0x7f, 6, 0x82, 0], true),
            (Sidecar::Log, b"a walrus", false),
        ] {
            assert_eq!(which.is_true(head), is, "{which:?} {head:?}");
        }
    }
}
