//! A live SQLite database as the bytes of one transaction.
//!
//! Nouns: the *image* is the database file as it would be if the application had stopped right after
//! some commit and checkpointed. A *view* is how an image is obtained. The *end mark* ([`WalMark`]) is
//! the last frame of the write-ahead log that belongs to the image. A *sidecar* is a `-wal`, `-shm` or
//! `-journal` beside the database.
//!
//! Flow: [`Database::open`] tries the views in order, the caller reads the image in spans of pages, and
//! [`Database::finish`] says whether all of it was one state.
//!
//! # Quiet: no transaction, no connection
//! With no `-wal` and no hot journal, the file is the image. SHARED is taken on it, and the sidecars are
//! looked for *after* that. From then on:
//! - A writer with a rollback journal needs EXCLUSIVE before its first byte reaches the file. Our lock
//!   is in the way. (A journal that appears now belongs to such a writer; it does not matter.)
//! - Turning the log on or off needs EXCLUSIVE.
//! - A connection that finds the log already turned on creates the `-wal` before it can commit, may
//!   then checkpoint into the file while we read, and may go away. It can not take the `-wal` with it:
//!   deleting that needs EXCLUSIVE. So no `-wal` at the end means that nothing was written.
//!
//! A connection would leave a `-wal` and a `-shm` behind in the source; this view leaves nothing.
//!
//! # Rollback: a read transaction, journal beside the file
//! SHARED again, taken by SQLite itself, which also finds hot journals. The image is the whole file.
//!
//! # Wal: a read transaction, and a proof of what it sees
//! The wal-index is shared memory with a header (end mark, page count, salts, checksums) and `nBackfill`,
//! the number of frames that have been copied into the file. A transaction's header is not to be had
//! from SQLite, so: read header A, begin, read `nBackfill` *then* header B. Every commit, restart and
//! truncation changes the header to one that was never there before, and SQLite verifies at BEGIN, with
//! its lock taken, that the header it copied is the live one. Hence A = B is the transaction's own header.
//!
//! Let M be its end mark, and N the `nBackfill` read. N only grows, but for a restart, which writes the
//! header first; B shows that none came before N was read. And whoever set N worked from a header no
//! newer than B, so it left out no page on the ground of a version newer than M.
//!
//! **N = M.** Every frame of the image is in the file. The transaction may hold read lock 0, which does
//! *not* keep the log: it may be restarted or truncated under us, so it must not be read. But lock 0
//! keeps out every checkpoint, which needs it exclusively to write. Or the transaction holds a lock with
//! a mark of M: then no checkpoint copies beyond M, and up to M all is copied. Either way nobody writes
//! the file, and it alone is the image.
//!
//! **N < M.** Then `nBackfill` was below M at BEGIN too, and so lock 0 was not to be had: the transaction
//! holds a lock with a mark of at most M. Such a lock keeps the log from being restarted, so frames 1 to M
//! stay; and it keeps checkpoints from copying beyond M. Pages that have a frame within M are read from
//! their last such frame, all others from the file, where nobody writes *them*. The frames are found by
//! walking the log; that the walk ends with the checksum that the header has for M proves that these are
//! its frames. `finish` looks at the salts once more: a restart all the same (one can be constructed, with a
//! process killed within a few instructions and another one recovering) is then noticed.
//!
//! Not taken from the log are its frames past M, and pages past the page count. The page that holds the
//! lock bytes (at 1 GiB) is never used by SQLite; in these images it is zeros.
//!
//! # What changed since
//! With the end mark of an earlier image, [`Database::open_since`] reads only the frames behind it, if the log still
//! has them. What that rests on is at the head of `since.rs`.
//!
//! # Backup: SQLite's own copy
//! Whenever something is not as described, and for comparison: one `step(-1)` of the backup API into a
//! scratch file. (Stepping in parts starts again at every commit, for ever under a busy writer.) The copy is
//! the same image but for the schema cookie, bytes 40 to 43, which the backup API sets to a value of its own so that
//! readers of the *destination* notice, and for what a commit puts into the copy's page 1: change counter
//! (24 to 27, 92 to 95), writer's version (96 to 99) and page count (28 to 31, which is only different if the source
//! does not keep it).
//!
//! # What is left of the source
//! Connections are read-only and never checkpoint at their close. They may create a `-shm` (and a
//! `-wal`, in [`Database::open_live`] only). The one change ever made to a database is the rollback of a hot
//! journal, which the next opener would do too; a remark says so. Whoever must not change anything asks for
//! [`HotJournal::Leave`].

pub(super) mod ffi;
pub mod inspect;

mod connect;
mod copy;
mod ground;
mod header;
mod image;
mod live;
mod quiet;
mod since;
mod view;
mod wal;

pub use ground::WalMark;
pub(super) use header::MAGIC;
pub use header::{HEADER_BYTES, Header, looks_like_database};
pub use image::{Database, Opened};
pub use since::Changes;
pub use view::{HotJournal, Refusal, View};

use crate::error::{Error, Result};

/// The first version without the defect that could corrupt a database when its log was reset.
const OLDEST: i32 = 3_051_003;

/// Fails if the SQLite that is linked is too old to be run beside an application's databases.
pub fn check_version() -> Result<()> {
    check(rusqlite::version_number(), rusqlite::version())
}

fn check(number: i32, version: &str) -> Result<()> {
    if number >= OLDEST {
        return Ok(());
    }
    Err(Error::failed(format!(
        "SQLite {version} can corrupt a database when its write-ahead log is reset: 3.51.3 or newer is needed"
    )))
}

#[cfg(test)]
mod tests {
    #[test]
    fn old_versions_are_refused() {
        super::check_version().expect("the bundled version is new enough");
        assert!(super::check(3_051_002, "3.51.2").is_err());
        assert!(super::check(3_051_003, "3.51.3").is_ok());
    }
}
