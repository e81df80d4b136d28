//! One file to Drive: resumed where it stands, compared afterwards, there once.
//!
//! The id comes first, from Drive, and is noted with the session's address before a byte goes ([`super::sessions`]). So
//! whatever breaks, and whoever goes on, asks under that id what is there: nothing, a part, or the whole file. A part
//! that was sent is never taken for stored; the service says how much it has. When it has all, size and checksum are
//! compared; what differs is removed, and uploaded anew, a few times.

use std::collections::BTreeMap;

use super::api::{Drive, Part};
use super::remote::{Remote, shown};
use super::sessions::{Session, Sessions};
use super::sums::{Content, Sums};
use crate::error::{Error, Result};

/// So many bytes are sent at a time: a multiple of 256 KiB, as Drive asks for.
pub const PART: usize = 4 * 1024 * 1024;
/// How often a file is uploaded that then has another content.
const UPLOADS_MOST: usize = 3;

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
        if remote.is_trashed {
            return Err(Error::remote(format!(
                "{} went into Google Drive's bin while it was uploaded",
                shown(job.name)
            ))
            .hint("run it again: what is in the bin counts as not there"));
        }
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
    // What had begun in another folder would end there: that folder may lie in the bin by now.
    let is_this = |session: &Session| session.sha256 == job.sums.sha256 && session.parent == job.parent;
    let is_its = |remote: &Remote| remote.size == size && remote.parent.as_deref() == Some(job.parent);
    let mut session = sessions.get(job.key).filter(is_this);
    let mut id = session.as_ref().map(|session| session.id.clone());
    // Where it stands; nothing if that has to be asked for.
    let (mut at, mut most) = (None, 0);
    loop {
        let Some(open) = &session else {
            let own = match id.clone() {
                Some(id) => id,
                None => drive.id()?,
            };
            id = Some(own.clone());
            let Some(address) = drive.begin_upload(&own, job.parent, job.name, &job.properties, size)? else {
                // There already: an earlier try went through.
                if let Some(remote) = drive.file(&own)?.filter(is_its) {
                    return Ok(remote);
                }
                id = None;
                tries.again(&what, "its id is taken", None)?;
                continue;
            };
            let (sha256, parent) = (job.sums.sha256.clone(), job.parent.to_owned());
            let begun = Session { id: own, address, sha256, parent };
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
                if let Some(remote) = drive.file(&open.id)?.filter(is_its) {
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
