//! All that the server knows: files, upload sessions, grants and tokens, the counters, and the settings of the test.
//! Everything sits behind one lock, which no handler keeps while it waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::clock;
use super::faults::Faults;
use super::hostile::Hostile;
use super::oauth::OAuth;
use super::upload::Session;

/// The type of folders.
pub const FOLDER: &str = "application/vnd.google-apps.folder";

/// The id for which `root` is another name.
pub const ROOT: &str = "0AFakeRootFolder";

/// Parts of an upload are multiples of this, all but the last.
pub const PART: u64 = 262_144;

/// A file or folder.
#[derive(Debug, Clone)]
pub struct StoredFile {
    /// Its id.
    pub id: String,
    /// Its name; others may have the same.
    pub name: String,
    /// The ids of its parents: one.
    pub parents: Vec<String>,
    /// Its type.
    pub mime: String,
    /// Its application properties.
    pub app_properties: BTreeMap<String, String>,
    /// Its size; 0 for a folder.
    pub size: u64,
    /// The SHA-256 of what was uploaded, in hexadecimal; empty for a folder.
    pub sha256: String,
    /// The MD5 of what was uploaded, in hexadecimal; empty for a folder.
    pub md5: String,
    /// What was uploaded; empty for a folder, and for all files uploaded while contents are not kept.
    pub content: Arc<Vec<u8>>,
    /// Whether the content was kept.
    pub kept: bool,
    /// Whether it is in the trash, itself and not by a folder above.
    pub trashed: bool,
    /// Its place in the order of creation.
    pub sequence: u64,
    /// When it was made, in milliseconds since 1970.
    pub created: i64,
    /// When it was changed last, in milliseconds since 1970.
    pub modified: i64,
}

impl StoredFile {
    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.mime == FOLDER
    }
}

/// What a create says about the file to be.
pub(super) struct Meta {
    pub(super) id: Option<String>,
    pub(super) name: String,
    pub(super) parent: String,
    pub(super) mime: String,
    pub(super) app_properties: BTreeMap<String, String>,
}

/// What a file holds.
#[derive(Default)]
pub(super) struct Content {
    pub(super) size: u64,
    pub(super) sha256: String,
    pub(super) md5: String,
    pub(super) bytes: Option<Vec<u8>>,
}

impl Content {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            size: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
            md5: hex(&Md5::digest(bytes)),
            bytes: Some(bytes.to_vec()),
        }
    }
}

/// The settings of the test.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct Settings {
    pub(super) page_cap: usize,
    pub(super) keep_content: bool,
    pub(super) without_sha256: bool,
    pub(super) strict_fields: bool,
    pub(super) any_id: bool,
    pub(super) incomplete_search: bool,
    pub(super) quota: Option<u64>,
    pub(super) session_lifetime: Duration,
    pub(super) now_offset: i64,
    pub(super) offline: bool,
}

/// All that the server knows.
pub(super) struct State {
    pub(super) files: HashMap<String, StoredFile>,
    pub(super) sessions: HashMap<String, Session>,
    pub(super) generated: BTreeSet<String>,
    pub(super) oauth: OAuth,
    pub(super) faults: Faults,
    pub(super) hostile: Vec<Hostile>,
    pub(super) settings: Settings,
    pub(super) counts: BTreeMap<String, u64>,
    pub(super) log: Vec<(String, Option<u16>)>,
    pub(super) bytes_in: u64,
    pub(super) sequence: u64,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            files: HashMap::new(),
            sessions: HashMap::new(),
            generated: BTreeSet::new(),
            oauth: OAuth::new(),
            faults: Faults::default(),
            hostile: Vec::new(),
            settings: Settings {
                page_cap: 1000,
                keep_content: true,
                without_sha256: false,
                strict_fields: false,
                any_id: false,
                incomplete_search: false,
                quota: None,
                session_lifetime: Duration::from_hours(7 * 24),
                now_offset: 0,
                offline: false,
            },
            counts: BTreeMap::new(),
            log: Vec::new(),
            bytes_in: 0,
            sequence: 0,
        }
    }

    pub(super) fn count(&mut self, kind: &str) {
        *self.counts.entry(kind.to_owned()).or_default() += 1;
    }

    pub(super) fn now(&self) -> i64 {
        clock::now(self.settings.now_offset)
    }

    /// A new id, of a shape like Drive's.
    pub(super) fn new_id() -> String {
        format!("1{}", clock::random_word())
    }

    /// Whether there is a folder of this id; the root always is.
    pub(super) fn is_folder(&self, id: &str) -> bool {
        id == ROOT || self.files.get(id).is_some_and(StoredFile::is_folder)
    }

    /// Adds a file or folder; an id that is taken is the caller's affair.
    pub(super) fn insert(&mut self, meta: Meta, content: Content) -> String {
        self.sequence += 1;
        let now = self.now();
        let id = meta.id.unwrap_or_else(Self::new_id);
        let file = StoredFile {
            id: id.clone(),
            name: meta.name,
            parents: vec![meta.parent],
            mime: meta.mime,
            app_properties: meta.app_properties,
            size: content.size,
            sha256: content.sha256,
            md5: content.md5,
            kept: content.bytes.is_some(),
            content: Arc::new(content.bytes.unwrap_or_default()),
            trashed: false,
            sequence: self.sequence,
            created: now,
            modified: now,
        };
        self.files.insert(id.clone(), file);
        id
    }

    /// Removes a file, or a folder with all below it.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let found = self.files.remove(id).is_some();
        let below: Vec<String> = self
            .files
            .values()
            .filter(|file| file.parents.iter().any(|parent| parent == id))
            .map(|f| f.id.clone())
            .collect();
        for id in below {
            self.remove(&id);
        }
        found
    }

    /// Whether a file is in the trash, by itself or by a folder above it.
    pub(super) fn in_trash(&self, file: &StoredFile) -> bool {
        let mut at = Some(file);
        // The bound is for folders that a test has put into themselves.
        for _ in 0..1000 {
            match at {
                Some(file) if file.trashed => return true,
                Some(file) => at = file.parents.first().and_then(|parent| self.files.get(parent)),
                None => return false,
            }
        }
        false
    }

    pub(super) fn used(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }

    /// Whether so many bytes more are within the quota.
    pub(super) fn has_room(&self, more: u64) -> bool {
        self.settings.quota.is_none_or(|quota| self.used().saturating_add(more) <= quota)
    }

    /// The metadata of a file as an answer.
    pub(super) fn describe(&self, file: &StoredFile) -> Value {
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
        put("kind", json!("drive#file"));
        put("id", json!(file.id));
        put("name", json!(file.name));
        put("mimeType", json!(file.mime));
        put("parents", json!(file.parents));
        if !file.is_folder() {
            put("size", json!(file.size.to_string()));
            put("md5Checksum", json!(file.md5));
            if !self.settings.without_sha256 {
                put("sha256Checksum", json!(file.sha256));
            }
        }
        if !file.app_properties.is_empty() {
            put("appProperties", json!(file.app_properties));
        }
        put("createdTime", json!(clock::rfc3339(file.created)));
        put("modifiedTime", json!(clock::rfc3339(file.modified)));
        put("trashed", json!(self.in_trash(file)));
        Value::Object(out)
    }

    /// Whether a session has lived too long.
    pub(super) fn outlived(&self, born: Instant) -> bool {
        born.elapsed() > self.settings.session_lifetime
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a string takes all");
        out
    })
}
