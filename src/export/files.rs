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

/// What is read at a time, in bytes.
const PIECE: usize = 256 * 1024;

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

/// Puts `bytes` at `path`: the whole of them, or what was there before, whatever happens meanwhile.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let young = path.with_file_name(format!(".nbak-young-{}", SlotId::random()));
    let mut file = create(&young)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&young, path));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&young);
        return Err(Error::io("write a file", path, error));
    }
    sync_folder(path.parent().unwrap_or(Path::new(".")))
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
