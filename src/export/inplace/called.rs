//! What a restore in place calls its own things, all of them in the data directory.
//!
//! Each begins with `.nbak-`: nothing of that name at the top is ever captured, restored, or put in place.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

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
/// Bytes that a name may have.
const LONGEST: usize = 255;

/// `path` with `end` after its name. One that is too long for both is cut: it is ours to choose.
pub fn ending(path: &Path, end: &str) -> PathBuf {
    let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
    let mut at = name.len().min(LONGEST.saturating_sub(end.len()));
    // Not within a character.
    while at < name.len() && at > 0 && name[at] & 0xc0 == 0x80 {
        at -= 1;
    }
    path.with_file_name(OsStr::from_bytes(&[&name[..at], end.as_bytes()].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_finds_room() {
        assert_eq!(ending(Path::new("a/b.c"), ".since"), Path::new("a/b.c.since"));
        for long in ["n".repeat(252), "n".repeat(255), format!("{}n", "ü".repeat(127))] {
            let name = ending(&Path::new("a").join(&long), ".since");
            let text = name.file_name().and_then(OsStr::to_str).expect("whole characters");
            let rest = text.strip_suffix(".since").expect("its end");
            assert!(text.len() <= LONGEST && rest.len() > 240 && long.starts_with(rest), "{text}");
            assert_eq!(name.parent(), Some(Path::new("a")));
        }
    }
}
