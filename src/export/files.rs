//! Small durable file operations that the rooms of the export share.
//!
//! Everything is 0600 or 0700 from its creation on (S15), no symbolic link is followed at the last component, and a
//! name is only given to what was synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};

use crate::codec::hex;
use crate::error::{Error, Result};
use crate::id::SlotId;
use crate::source::passing;

/// What is read at a time, in bytes.
const PIECE: usize = 256 * 1024;
/// How the name of a file begins that is being written.
const YOUNG: &str = ".nbak-young-";
/// How often it is tried to write one.
const TRIES: usize = 8;

/// Opens a regular file for reading. A link or a pipe in its place is refused, not followed or waited for.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// Reads a regular file of at most `most` bytes.
pub fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(io::Error::other(format!("it is larger than {most} bytes"))) } else { Ok(bytes) }
}

/// Makes a new file, 0600.
pub fn create(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.open(path).map_err(|error| Error::io("make a file", path, error))
}

/// Puts `bytes` at `path`: the whole of them, or what was there before, whatever happens meanwhile. What a process that
/// was killed at this left in the same folder goes.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    sweep_young(folder);
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let young = folder.join(format!("{YOUNG}{}", SlotId::random()));
        let mut file = passing::made(&young, || create(&young))?;
        let written = (file.lock().and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&young, path));
        passing::forget(&young);
        match written {
            Ok(()) => return sync_folder(folder),
            // Somebody swept it before it was locked.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => {}
            Err(error) => {
                let _ = std::fs::remove_file(&young);
                return Err(Error::io("write a file", path, error));
            }
        }
    }
}

/// Removes the files that nobody writes any more: whoever writes one holds its lock until it has its name.
fn sweep_young(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_young = entry.file_name().to_str().is_some_and(|name| name.starts_with(YOUNG));
        if is_young && open_regular(&entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Makes what happened to the names in a folder durable.
pub fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| Error::io("sync a folder", path, error))
}

/// Renames, and refuses to replace anything.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems do not know the flag: look, then rename. The caller holds the folder's lock.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            if std::fs::symlink_metadata(to).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            std::fs::rename(from, to)
        }
        other => Ok(other?),
    }
}

/// SHA-256 of what is left of `file`, in lower-case hexadecimal, and how many bytes it was.
pub fn sha256(file: &mut impl Read) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut total = 0;
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(got) => {
                hash.update(&piece[..got]);
                total += got as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((hex(&hash.finalize()), total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_writer_left_goes_with_the_next_write_and_what_is_being_written_stays() {
        let place = tempfile::tempdir().expect("a folder");
        let young = |name: &str| place.path().join(format!("{YOUNG}{name}"));
        std::fs::write(young("left"), b"half").expect("written");
        std::fs::create_dir(young("folder")).expect("made");
        let held = create(&young("held")).expect("made");
        held.lock().expect("locked");
        let path = place.path().join("file");
        write_durably(&path, b"whole").expect("written");
        assert_eq!(std::fs::read(&path).expect("there"), b"whole");
        assert!(!young("left").exists() && young("held").exists() && young("folder").exists());
    }

    #[test]
    fn many_write_the_same_file_at_once_and_it_is_always_whole() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("file");
        std::thread::scope(|scope| {
            for letter in b'a'..b'g' {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        write_durably(path, &[letter; 5000]).expect("written");
                        let found = std::fs::read(path).expect("there");
                        assert!(found.len() == 5000 && found.iter().all(|byte| *byte == found[0]));
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(place.path()).expect("a folder").count(), 1);
    }
}
