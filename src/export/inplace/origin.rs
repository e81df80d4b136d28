//! Which copy of a data directory a journal is of.
//!
//! A journal tells by inodes what was done. In a copy of the directory, on another disk or restored from somewhere, all
//! of them are others, and what is still to be put in place would pass for what was replaced. The journal's own inode,
//! that of its folder, and when the file system made the journal (which no copy takes over) tell one from the other.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::called::FOLDER;
use super::root::Root;
use crate::error::{Error, Result};

/// File systems keep such a time more or less exactly, and some only after they were mounted anew.
const CLOSE_MS: u64 = 2_000;

/// What no copy has alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    folder: u64,
    journal: u64,
    /// When the journal was made, in milliseconds since 1970; some file systems do not say.
    born: Option<u64>,
}

impl Origin {
    /// That of the journal at `journal`.
    pub fn of(root: &Root, journal: &Path) -> Result<Origin> {
        let look = |path: &Path| {
            let place = root.place(path);
            place.symlink_metadata().map_err(|error| Error::io("look at the journal of a restore", place, error))
        };
        let (folder, journal) = (look(Path::new(FOLDER))?, look(journal)?);
        let born = journal.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Ok(Origin { folder: folder.ino(), journal: journal.ino(), born: born.map(|passed| passed.as_millis() as u64) })
    }

    /// Whether both are of one and the same.
    pub fn is(&self, other: &Origin) -> bool {
        let is_close = |(one, other): (u64, u64)| one.abs_diff(other) <= CLOSE_MS;
        self.folder == other.folder && self.journal == other.journal && self.born.zip(other.born).is_none_or(is_close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_not_said_counts_for_nothing() {
        let one = Origin { folder: 1, journal: 2, born: Some(10_000) };
        assert!(one.is(&Origin { born: None, ..one }) && one.is(&Origin { born: Some(10_999), ..one }));
        assert!(!one.is(&Origin { born: Some(20_000), ..one }) && !one.is(&Origin { born: Some(0), ..one }));
        assert!(!one.is(&Origin { folder: 2, ..one }) && !one.is(&Origin { journal: 1, ..one }));
    }
}
