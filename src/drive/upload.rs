//! One file to Drive: resumed where it stands, compared afterwards, there once.
//!
//! The id comes first, from Drive, and is noted with the session's address before a byte goes ([`super::sessions`]). So
//! whatever breaks, and whoever goes on, asks under that id what is there: nothing, a part, or the whole file. A part
//! that was sent is never taken for stored; the service says how much it has. When it has all, size and checksum are
//! compared; what differs is removed, and uploaded anew, a few times.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::api::{Drive, Part, Remote, shown};
use super::sessions::{Session, Sessions};
use crate::error::{Error, Result};

/// So many bytes are sent at a time: a multiple of 256 KiB, as Drive asks for.
pub const PART: usize = 4 * 1024 * 1024;
/// How often a file is uploaded that then has another content.
const UPLOADS_MOST: usize = 3;

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
    file: std::fs::File,
    path: std::path::PathBuf,
    size: u64,
}

impl OnDisk {
    /// The file at `path`, which must be a regular one.
    pub fn open(path: &std::path::Path) -> Result<OnDisk> {
        let failed = |error| Error::io("read a file to upload", path, error);
        let file = crate::export::files::open_regular(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok(OnDisk { file, path: path.to_path_buf(), size })
    }
}

impl Content for OnDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        use std::os::unix::fs::FileExt;
        self.file.read_exact_at(buffer, offset).map_err(|error| Error::io("read a file to upload", &self.path, error))
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

/// Reads all of `content` for its checksums.
pub fn sums(content: &dyn Content) -> Result<Sums> {
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

impl Sums {
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

/// What is to be uploaded, and where to.
pub struct Job<'a> {
    /// Names it among [`Sessions`].
    pub key: &'a str,
    /// The folder's id.
    pub parent: &'a str,
    /// The name there.
    pub name: &'a str,
    /// What is noted with it.
    pub properties: BTreeMap<String, String>,
    /// The bytes.
    pub content: &'a dyn Content,
    /// Their checksums.
    pub sums: &'a Sums,
}

/// Uploads what `job` says; tells `sent` of bytes that Drive has.
pub fn upload(drive: &Drive, sessions: &Sessions, job: &Job<'_>, sent: &dyn Fn(u64)) -> Result<Remote> {
    let size = job.content.size();
    for _ in 0..UPLOADS_MOST {
        let remote = send(drive, sessions, job, sent)?;
        // What an upload answers may leave the checksums out.
        let remote = if remote.sha256.is_some() || remote.md5.is_some() {
            remote
        } else {
            drive.file(&remote.id)?.unwrap_or(remote)
        };
        sessions.end(job.key);
        if job.sums.are_of(&remote, size) {
            return Ok(remote);
        }
        drive.delete(&remote.id)?;
    }
    Err(Error::remote(format!("{} has another content in Google Drive than what was sent", shown(job.name)))
        .hint("the copy there was removed; try again, and look at your proxies if it stays so"))
}

/// Sends it under one id until it is complete.
fn send(drive: &Drive, sessions: &Sessions, job: &Job<'_>, sent: &dyn Fn(u64)) -> Result<Remote> {
    let what = format!("cannot upload {}", shown(job.name));
    let size = job.content.size();
    let mut tries = drive.patience().begin();
    let mut session = sessions.get(job.key).filter(|session| session.sha256 == job.sums.sha256);
    let mut id = session.as_ref().map(|session| session.id.clone());
    // Where it stands; nothing if that has to be asked for.
    let (mut at, mut most) = (None, 0);
    loop {
        let Some(open) = &session else {
            let own = match id.clone() {
                Some(id) => id,
                None => drive.ids(1)?.remove(0),
            };
            id = Some(own.clone());
            let Some(address) = drive.begin_upload(&own, job.parent, job.name, &job.properties, size)? else {
                // There already: an earlier try went through.
                if let Some(remote) = drive.file(&own)? {
                    return Ok(remote);
                }
                id = None;
                tries.again(&what, "its id is taken", None)?;
                continue;
            };
            let begun = Session { id: own, address, sha256: job.sums.sha256.clone() };
            sessions.put(job.key, begun.clone());
            (session, at) = (Some(begun), Some(0));
            continue;
        };
        let part = match at {
            Some(offset) if size > 0 => {
                let mut bytes = vec![0; (size - offset).min(PART as u64) as usize];
                job.content.read_at(offset, &mut bytes)?;
                Some((offset, bytes))
            }
            _ => None,
        };
        match drive.send_part(&open.address, part, size) {
            Ok(Part::Complete(remote)) => {
                sent(size - most);
                return Ok(remote);
            }
            Ok(Part::Stored(stored)) => {
                // All of it, and no end: that is asked for.
                at = Some(stored).filter(|stored| *stored < size);
                if stored > most {
                    sent(stored - most);
                    most = stored;
                    tries.progress();
                } else {
                    tries.again(&what, "nothing of a part was stored", None)?;
                }
            }
            Ok(Part::Gone) => {
                // It may have become a file in the meantime.
                if let Some(remote) = drive.file(&open.id)?.filter(|remote| remote.size == size) {
                    return Ok(remote);
                }
                (session, at) = (None, None);
                tries.again(&what, "the upload was broken off", None)?;
            }
            Err(trouble) => {
                at = None;
                tries.after(&what, trouble)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_counts_only_if_drive_vouches_for_it() {
        let content = b"abc".to_vec();
        let sums = sums(&content).expect("read");
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
        };
        let (sha, md5) = (sums.sha256.as_str(), sums.md5.as_str());
        assert!(sums.are_of(&remote(Some(sha), None, 3), 3) && sums.are_of(&remote(None, Some(md5), 3), 3));
        assert!(!sums.are_of(&remote(None, None, 3), 3) && !sums.are_of(&remote(Some(sha), None, 4), 3));
        assert!(!sums.are_of(&remote(Some(&sha.replace('b', "c")), Some(md5), 3), 3));
    }
}
