//! Before an update: when the application's version changed, a backup comes before anything else.
//!
//! The version that ran last stands in `.last_version`. It is written only when the backup succeeded, so that a start
//! whose backup failed is followed by one that tries again. The first run only writes it.

use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};
use crate::export::files::{read_bounded, write_durably};

/// The file's name in the data directory; the application's own.
pub const FILE: &str = ".last_version";
/// A version is at most this long, in bytes.
const MOST: u64 = 256;

/// What a start finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing ran here before.
    First,
    /// The same version did.
    Same,
    /// This one did.
    Other(String),
}

/// Which version ran last, against `version`.
pub fn look(data_dir: &Path, version: &str) -> Result<Found> {
    check(version)?;
    let path = data_dir.join(FILE);
    let bytes = match read_bounded(&path, MOST) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::First),
        Err(error) => return Err(Error::io("read which version ran last", &path, error)),
    };
    // Whatever stands there, something ran here: a file that was cut short must not cost the backup.
    let last = String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok(if last == version.trim() { Found::Same } else { Found::Other(last) })
}

/// Notes that `version` runs now.
pub fn note(data_dir: &Path, version: &str) -> Result<()> {
    check(version)?;
    write_durably(&data_dir.join(FILE), version.trim().as_bytes())
}

/// Before an update: calls `backup` if another version ran last, and notes `version` if that succeeded, and says that
/// one can go back to it; else the next start makes another. Answers with what was found, and what `backup` gave.
pub fn before_update<T>(
    data_dir: &Path,
    version: &str,
    backup: impl FnOnce(&str) -> Result<(T, bool)>,
) -> Result<(Found, Option<T>)> {
    let found = look(data_dir, version)?;
    let (made, counts) = match &found {
        Found::Same => return Ok((found, None)),
        Found::First => (None, true),
        Found::Other(last) => {
            let (made, counts) = backup(last)?;
            (Some(made), counts)
        }
    };
    if counts {
        note(data_dir, version)?;
    }
    Ok((found, made))
}

fn check(version: &str) -> Result<()> {
    if version.trim().is_empty() || version.len() as u64 > MOST || version.chars().any(char::is_control) {
        return Err(Error::usage("a version is some text on one line").hint("--app-version 1.2.3"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_noted_when_there_is_a_backup() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        let never = |_: &str| -> Result<((), bool)> { panic!("no backup is due") };
        assert_eq!(before_update(data, "1.0", never).expect("noted"), (Found::First, None));
        assert_eq!(before_update(data, "1.0", never).expect("the same"), (Found::Same, None));
        let fails = |_: &str| -> Result<((), bool)> { Err(Error::failed("no room")) };
        assert!(before_update(data, "1.1", fails).is_err());
        assert_eq!(look(data, "1.1").expect("read"), Found::Other("1.0".to_owned()), "the next start tries again");
        before_update(data, "1.1", |_| Ok(((), false))).expect("made, and a mixture");
        assert_eq!(look(data, "1.1").expect("read"), Found::Other("1.0".to_owned()), "and so it does then");
        let made = before_update(data, "1.1", |last| Ok((last.to_owned(), true))).expect("made");
        assert_eq!(made, (Found::Other("1.0".to_owned()), Some("1.0".to_owned())));
        assert_eq!(look(data, "1.1").expect("read"), Found::Same);
        std::fs::write(data.join(FILE), "").expect("written");
        assert_eq!(look(data, "1.1").expect("read"), Found::Other(String::new()), "something ran here");
        assert_eq!(look(data, " 1.1 ").expect("read"), Found::Other(String::new()));
        note(data, "1.1 ").expect("noted");
        assert_eq!(look(data, "1.1 ").expect("read"), Found::Same);
        assert!(before_update(data, " ", never).is_err() && before_update(data, "1\n2", never).is_err());
    }
}
