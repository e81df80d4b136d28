//! Bytes that can be read again, and their checksums: what an upload reads from, and what a copy in Drive is held
//! against.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::remote::Remote;
use crate::error::{Error, Result};

/// What failed when a file cannot be read.
const READ: &str = "read what is, or was, in Google Drive";

/// Bytes that can be read again.
pub trait Content: Sync {
    /// How many there are.
    fn size(&self) -> u64;
    /// Fills `buffer` from `offset` on.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
}

impl Content for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        buffer.copy_from_slice(&self[offset as usize..][..buffer.len()]);
        Ok(())
    }
}

/// A file on this machine.
pub struct OnDisk {
    file: File,
    path: PathBuf,
    size: u64,
}

impl OnDisk {
    /// The opened `file`, which lies at `path`.
    pub fn new(file: File, path: &Path) -> Result<OnDisk> {
        let size = file.metadata().map_err(|error| Error::io(READ, path, error))?.len();
        Ok(OnDisk { file, path: path.to_path_buf(), size })
    }
}

impl Content for OnDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| Error::io(READ, &self.path, error))
    }
}

/// Checksums of what is uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// SHA-256, 64 digits.
    pub sha256: String,
    /// MD5, 32 digits: for where Drive has no other.
    pub md5: String,
}

impl Sums {
    /// Reads all of `content` for its checksums.
    pub fn of(content: &dyn Content) -> Result<Sums> {
        let (mut sha256, mut md5) = (Sha256::new(), md5::Md5::new());
        let mut block = vec![0; 256 * 1024];
        let mut at = 0;
        while at < content.size() {
            let length = (content.size() - at).min(block.len() as u64) as usize;
            content.read_at(at, &mut block[..length])?;
            sha256.update(&block[..length]);
            md5.update(&block[..length]);
            at += length as u64;
        }
        let hex = |bytes: &[u8]| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        };
        Ok(Sums { sha256: hex(&sha256.finalize()), md5: hex(&md5.finalize()) })
    }

    /// Whether `remote` is what these are of, as far as Drive says. Without any checksum it is not known, and then no.
    pub fn are_of(&self, remote: &Remote, size: u64) -> bool {
        let is = match (&remote.sha256, &remote.md5) {
            (Some(sha256), _) => *sha256 == self.sha256,
            (None, Some(md5)) => *md5 == self.md5,
            (None, None) => false,
        };
        is && remote.size == size && !remote.is_folder
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_copy_counts_only_if_drive_vouches_for_it() {
        let content = b"abc".to_vec();
        let sums = Sums::of(&content).expect("read");
        assert_eq!(sums.md5, "900150983cd24fb0d6963f7d28e17f72");
        assert!(sums.sha256.starts_with("ba7816bf8f01cfea"));
        let remote = |sha256: Option<&str>, md5: Option<&str>, size| Remote {
            id: "x".to_owned(),
            name: String::new(),
            is_folder: false,
            size,
            md5: md5.map(str::to_owned),
            sha256: sha256.map(str::to_owned),
            properties: BTreeMap::new(),
            parent: None,
            is_trashed: false,
            created_ms: 0,
        };
        let (sha, md5) = (sums.sha256.as_str(), sums.md5.as_str());
        assert!(sums.are_of(&remote(Some(sha), None, 3), 3) && sums.are_of(&remote(None, Some(md5), 3), 3));
        assert!(!sums.are_of(&remote(None, None, 3), 3) && !sums.are_of(&remote(Some(sha), None, 4), 3));
        assert!(!sums.are_of(&remote(Some(&sha.replace('b', "c")), Some(md5), 3), 3));
    }
}
