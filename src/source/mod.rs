//! What is captured: the live data directory, read without disturbing whoever is using it.
//!
//! Nouns: an *entry* is one thing in the directory; a *handle* ([`handle::FileHandle`]) is how the
//! bytes of any regular file are read; a *database* ([`sqlite::Database`]) is an entry that is
//! captured as pages of one transaction instead of as bytes.
//!
//! Flow: open a handle, look at the first bytes, and hand what looks like a database to [`sqlite`];
//! everything else is read through the handle. A database that is refused there as malformed is
//! read as bytes like any other file: nothing in the directory is left out because it is damaged.
//!
//! Invariant (I10): **no file of the source is opened and closed behind SQLite's back**. POSIX advisory
//! locks belong to the process, and any `close` of a file drops all of them, so a plain
//! `File::open` of a database would silently unlock a transaction that is open in the same process. What cannot
//! be a database may be read without that care ([`plain`]).

pub mod block;
pub mod clock;
pub mod exclude;
pub mod handle;
pub mod holders;
pub mod medium;
pub mod mounts;
pub mod moved;
pub mod named;
pub mod own;
pub mod passing;
pub mod plain;
pub mod sqlite;
pub mod top;
pub mod walk;
