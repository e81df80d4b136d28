//! Uploads that have begun, for whoever comes after a crash.
//!
//! An upload's id and the address of its session are noted before the first byte goes, so that another process goes on
//! where this one ended, and makes no second copy. The address lets anybody upload who has it: the file is 0600, and
//! the addresses are never shown. What is lost with it costs bytes that are sent again, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::export::files::{read_bounded, write_durably};

/// The file's name in the data directory.
pub const FILE: &str = ".nbak-uploads.json";
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
}

/// What is noted.
#[derive(Default, Serialize, Deserialize)]
struct Noted {
    /// Uploads that have begun, by what is uploaded to where.
    #[serde(default)]
    begun: BTreeMap<String, Session>,
    /// Backups that are to be uploaded, and were not yet.
    #[serde(default)]
    waiting: BTreeSet<String>,
}

/// What has begun, and what is to be done.
pub struct Sessions {
    path: PathBuf,
    noted: Mutex<Noted>,
}

impl Sessions {
    /// Those that are noted at `path`. What cannot be read is forgotten.
    pub fn open(path: PathBuf) -> Sessions {
        let bytes = read_bounded(&path, MOST).map(Zeroizing::new).ok();
        let noted = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Sessions { path, noted: Mutex::new(noted) }
    }

    /// The upload of `what`, if one has begun.
    pub fn get(&self, what: &str) -> Option<Session> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).begun.get(what).cloned()
    }

    /// Notes that the upload of `what` has begun.
    pub fn put(&self, what: &str, session: Session) {
        self.change(|noted| drop(noted.begun.insert(what.to_owned(), session)));
    }

    /// Notes that it has ended.
    pub fn end(&self, what: &str) {
        self.change(|noted| drop(noted.begun.remove(what)));
    }

    /// Notes that the backup `name` is to be uploaded.
    pub fn wait(&self, name: &str) {
        self.change(|noted| _ = noted.waiting.insert(name.to_owned()));
    }

    /// Notes that it was, or never will be.
    pub fn arrived(&self, name: &str) {
        self.change(|noted| _ = noted.waiting.remove(name));
    }

    /// The backups that are to be uploaded.
    pub fn waiting(&self) -> Vec<String> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).waiting.iter().cloned().collect()
    }

    fn change(&self, act: impl FnOnce(&mut Noted)) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut noted);
        // Best effort: see above.
        if noted.begun.is_empty() && noted.waiting.is_empty() {
            let _ = std::fs::remove_file(&self.path);
        } else if let Ok(bytes) = serde_json::to_vec(&*noted).map(Zeroizing::new) {
            let _ = write_durably(&self.path, &bytes);
        }
    }
}
