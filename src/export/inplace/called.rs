//! What a restore in place calls its own things, all of them in the data directory.
//!
//! Each begins with `.nbak-`: nothing of that name at the top is ever captured, restored, or put in place.

/// The folder of the staging.
pub const FOLDER: &str = ".nbak-restore";
/// What is to be put in place.
pub const NEW: &str = ".nbak-restore/new";
/// What stood in the way, and was no version of a file that was put in place.
pub const OLD: &str = ".nbak-restore/old";
/// The journal.
pub const INTENT: &str = ".nbak-restore/intent";
/// That the restore was given up. Its content says nothing.
pub const GIVEN_UP: &str = ".nbak-restore/given-up";
/// For the copy of a database that was written through SQLite.
pub const COMPARED: &str = ".nbak-restore/compare";
/// The file that restores lock, which stays.
pub const LOCK: &str = ".nbak-restore.lock";
/// So many bytes in it tell one restore from another.
pub const MARK: u64 = 16;
