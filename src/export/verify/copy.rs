//! What is decrypted for SQLite to look at: a file in scratch space for as long as it takes.
//!
//! Whether a plaintext is a database is only known from its beginning. So it goes through here in any case, and only a
//! database is written to disk.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::export::files::create;
use crate::id::SlotId;
use crate::source::sqlite::{HEADER_BYTES, looks_like_database};

/// Takes a file's plaintext, and keeps it in scratch space if it is a database. Gone with the value.
pub(super) struct Copy<'a> {
    folder: Option<&'a Path>,
    /// It is to be a database, whatever it begins with.
    always: bool,
    head: Vec<u8>,
    file: Option<(PathBuf, File)>,
    failed: Option<Error>,
}

impl<'a> Copy<'a> {
    /// A copy in `folder`, if there is one; of any plaintext if it is to be a database, else of those that begin as
    /// one.
    pub(super) fn new(folder: Option<&'a Path>, always: bool) -> Copy<'a> {
        Copy { folder, always, head: Vec::new(), file: None, failed: None }
    }

    pub(super) fn is_database(&self) -> bool {
        self.always || looks_like_database(&self.head).is_some()
    }

    /// The file that was written, made if it is empty; nothing if there is no scratch space.
    pub(super) fn place(&mut self) -> Result<Option<&Path>> {
        if self.file.is_none()
            && let Some(folder) = self.folder
        {
            let path = folder.join(SlotId::random().to_string());
            self.file = Some((path.clone(), create(&path)?));
        }
        Ok(self.file.as_ref().map(|(path, _)| path.as_path()))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.place()?;
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(|error| Error::io("write a database to scratch space to check it", &*path, error))
    }

    /// Why scratch space could not be written, if that is what went wrong.
    pub(super) fn failure(&mut self) -> Option<Error> {
        self.failed.take()
    }
}

impl Write for Copy<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let known = self.head.len() >= HEADER_BYTES;
        let taken = if known { bytes.len() } else { bytes.len().min(HEADER_BYTES - self.head.len()) };
        let bytes = &bytes[..taken];
        let done = if known {
            if self.is_database() { self.put(bytes) } else { Ok(()) }
        } else {
            self.head.extend_from_slice(bytes);
            // All of the head at once, as soon as it says what this is; or piece by piece, if that is known.
            if self.always {
                self.put(bytes)
            } else if looks_like_database(&self.head).is_some() {
                let head = self.head.clone();
                self.put(&head)
            } else {
                Ok(())
            }
        };
        done.map(|()| taken).map_err(|error| {
            self.failed = Some(error);
            io::Error::other("scratch space")
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.file {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_database_is_written_and_it_goes_with_the_value() {
        let place = tempfile::tempdir().expect("a folder");
        let names = || std::fs::read_dir(place.path()).expect("a folder").count();
        let mut header = b"SQLite format 3\0\x10\0\x01\x01\0\x40\x20\x20".to_vec();
        header.resize(HEADER_BYTES, 0);
        for (begins, always, kept) in [
            (header.as_slice(), false, true),
            (&header[..HEADER_BYTES - 1], false, false),
            (b"plain text", false, false),
            (b"plain text", true, true),
            (b"", true, true),
        ] {
            let mut copy = Copy::new(Some(place.path()), always);
            // In pieces, as it may come, and longer than a header unless it is to be shorter.
            let more = if begins.len() == HEADER_BYTES { vec![7; 300] } else { Vec::new() };
            for piece in begins.chunks(33).chain([more.as_slice()]) {
                copy.write_all(piece).expect("written");
            }
            assert_eq!(copy.is_database(), kept);
            if kept {
                let path = copy.place().expect("made").expect("there is scratch space").to_path_buf();
                assert_eq!(std::fs::read(path).expect("read"), [begins, &more].concat());
            }
            assert_eq!(names(), usize::from(kept));
            drop(copy);
            assert_eq!(names(), 0);
        }
        let mut nowhere = Copy::new(None, true);
        nowhere.write_all(&header).expect("it is let go");
        assert!(nowhere.is_database() && nowhere.place().expect("no error").is_none());
        let gone = place.path().join("gone");
        let mut failing = Copy::new(Some(&gone), true);
        assert!(failing.write_all(&header).is_err() && failing.failure().is_some());
    }
}
