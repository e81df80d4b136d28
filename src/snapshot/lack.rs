//! What keeps a snapshot, or a backup of one, from being all of its data directory at one time: entries that could not
//! be captured, and that a restore in place was half done, so that old and new data stand side by side in it.
//!
//! The latter is an entry among the former, at the place of the restore's own folder, which is never captured. So
//! whoever knows nothing of it takes such a snapshot for incomplete, which it is.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::error::SourceError;
use crate::error::words::count;

/// Where the entry stands that says it: always the first one.
pub const MIXED: &str = ".nbak-restore";
/// And its reason.
const HALF_DONE: &str = "a restore in place was half done: old and new data stand side by side";

/// How much is not as it should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lack {
    /// How many entries could not be captured.
    pub entries: u64,
    /// Old and new data stand side by side.
    pub mixed: bool,
}

impl Lack {
    /// By the entries that are `named`, and how many there are in all, the one for a mixture included.
    pub fn of(named: &[(String, String)], all: u64) -> Lack {
        let mixed = named.first().is_some_and(|(path, _)| path == MIXED);
        Lack { entries: all.max(named.len() as u64) - u64::from(mixed), mixed }
    }

    /// Whether there is nothing.
    pub fn is_none(self) -> bool {
        self == Lack::default()
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mixed {
            f.write_str("old and new data of a restore in place stand side by side in it")?;
            f.write_str(if self.entries > 0 { "; " } else { "" })?;
        }
        if self.entries > 0 || !self.mixed {
            write!(f, "{} not captured", count(self.entries, "entry was", "entries were"))?;
        }
        Ok(())
    }
}

/// The entry for a mixture.
pub(super) fn mixed() -> SourceError {
    SourceError::new(MIXED, HALF_DONE)
}

/// Whether `error` is that entry: it is no file that could not be read.
pub fn is_mixed(error: &SourceError) -> bool {
    error.path == Path::new(MIXED)
}

/// Asks whether a restore in place exchanged files while a snapshot was taken, or stood half done. Who takes one of a
/// directory into which nobody restores need not ask.
#[derive(Clone, Default)]
pub struct Beside(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Beside {
    /// Asks `saw_restore`.
    pub fn asking(saw_restore: impl Fn() -> bool + Send + Sync + 'static) -> Beside {
        Beside(Some(Arc::new(saw_restore)))
    }

    /// Whether one did, until now.
    pub(super) fn saw_restore(&self) -> bool {
        self.0.as_ref().is_some_and(|ask| ask())
    }
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Beside(asking)" } else { "Beside(nobody)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_fit_what_it_is() {
        let named = |paths: &[&str]| paths.iter().map(|path| ((*path).to_owned(), String::new())).collect::<Vec<_>>();
        let of = |paths: &[&str], all| Lack::of(&named(paths), all).to_string();
        assert!(Lack::of(&[], 0).is_none());
        assert_eq!(of(&["a"], 1), "1 entry was not captured");
        assert_eq!(of(&["a", "b"], 7), "7 entries were not captured");
        assert_eq!(of(&[MIXED], 1), "old and new data of a restore in place stand side by side in it");
        let both = "old and new data of a restore in place stand side by side in it; 2 entries were not captured";
        assert_eq!(of(&[MIXED, "a", "b"], 3), both);
    }
}
