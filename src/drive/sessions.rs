//! Uploads that have begun, for whoever comes after a crash.
//!
//! An upload's id and the address of its session are noted before the first byte goes, so that another process goes on
//! where this one ended, and makes no second copy. The address lets anybody upload who has it: the file is 0600, and
//! the addresses are never shown. What is lost with it costs bytes that are sent again, and nothing else.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::remote::is_id;
use crate::error::{Error, Result};
use crate::export::files::{read_bounded, write_durably};
use crate::export::names::check_name;
use crate::source::own::make_room;

/// Where it is in the data directory.
pub const FILE: &str = ".nbak-state/uploads.json";
/// It is at most this long, in bytes.
const MOST: u64 = 16 * 1024 * 1024;

/// An upload that has begun.
#[derive(Clone, Serialize, Deserialize)]
pub struct Session {
    /// The id that the file has, or will have.
    pub id: String,
    /// Where it goes on.
    pub address: Zeroizing<String>,
    /// SHA-256 of what is being uploaded.
    pub sha256: String,
    /// The id of the folder that it goes to.
    #[serde(default)]
    pub parent: String,
}

/// What has begun, and what is to be done.
pub struct Sessions {
    path: PathBuf,
    begun: Mutex<BTreeMap<String, Session>>,
}

impl Sessions {
    /// Those that are noted at `path`. What cannot be read is forgotten.
    pub fn open(path: PathBuf) -> Sessions {
        let bytes = read_bounded(&path, MOST).map(Zeroizing::new).ok();
        let begun = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut begun: BTreeMap<String, Session> = begun.unwrap_or_default();
        begun.retain(|_, session| is_id(&session.id) && is_id(&session.parent));
        Sessions { path, begun: Mutex::new(begun) }
    }

    /// The upload of `what`, if one has begun.
    pub fn get(&self, what: &str) -> Option<Session> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).get(what).cloned()
    }

    /// Notes that the upload of `what` has begun.
    pub fn put(&self, what: &str, session: Session) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.insert(what.to_owned(), session);
        self.write(&begun);
    }

    /// Notes that it has ended.
    pub fn end(&self, what: &str) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.remove(what).is_some() {
            self.write(&begun);
        }
    }

    fn write(&self, begun: &BTreeMap<String, Session>) {
        // Best effort: see above.
        if begun.is_empty() {
            let _ = std::fs::remove_file(&self.path);
        } else if let Ok(bytes) = serde_json::to_vec(begun).map(Zeroizing::new) {
            let _ = make_room(&self.path);
            let _ = write_durably(&self.path, &bytes);
        }
    }
}

/// The folder's place in the data directory.
pub const WAITING: &str = ".nbak-state/waiting";

/// Backups that are to be uploaded: a file for each, so that processes that come and go do not undo each other's notes.
/// It has the path of the folder that the backup is in: by the next run another may be configured.
pub struct Waiting(PathBuf);

impl Waiting {
    /// Those of `data_dir`.
    pub fn of(data_dir: &Path) -> Waiting {
        Waiting(data_dir.join(WAITING))
    }

    /// Notes that the backup `name` in `folder` is to be uploaded.
    pub fn add(&self, name: &str, folder: &Path) -> Result<()> {
        let failed = |error| Error::io("note a backup that is to be uploaded", &self.0, error);
        make_room(&self.0).map_err(failed)?;
        match std::fs::DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(self.0.join(name)).map_err(failed)?;
        std::io::Write::write_all(&mut file, folder.as_os_str().as_bytes()).map_err(failed)
    }

    /// Notes that it was, or never will be.
    pub fn remove(&self, name: &str) {
        // Then it is looked at once more, and found to be there.
        let _ = std::fs::remove_file(self.0.join(name));
        let _ = std::fs::remove_dir(&self.0);
    }

    /// Their names with the folders that they are in, the oldest first. What cannot be the name of a backup is none.
    pub fn all(&self) -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| check_name(name).is_ok());
        names.sort_unstable();
        let with_folder = |name: String| {
            let folder = read_bounded(&self.0.join(&name), 4096).ok()?;
            Some((name, PathBuf::from(OsString::from_vec(folder))))
        };
        names.into_iter().filter_map(with_folder).collect()
    }
}
