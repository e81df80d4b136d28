//! `manifest.json`: what a backup holds, as the application writes it, and who vouches for it.
//!
//! The application's fields are `version`, `created_at`, `nodyn_dir` (or `lynox_dir`), `encrypted`, `files`,
//! `checksum`; it ignores others. Ours are `nbak` beside them, with the snapshot that the backup was made of and a MAC
//! over all that the manifest says (S11), and `mode` and `mtime_ms` in each entry.
//!
//! What is read was written by anybody. [`Manifest::parse`] takes a manifest only if there is one way to read it: no
//! field twice, no number that is rounded, no hexadecimal in two cases, no two paths in each other's way. What has
//! passed can be written again with the same meaning ([`Manifest::to_json`]).

use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap, Serializer};
use sha2::{Digest, Sha256};

use self::lacks::Lacks;
use self::whose::Whose;
use super::dialect::Dialect;
use super::names;
use crate::codec::hex;
use crate::crypto::vault::MacSource;
use crate::error::{Error, Result};
use crate::id::InstanceId;

pub mod lacks;
mod read;
pub mod whose;

/// The largest manifest, in bytes.
pub const BYTES_MAX: u64 = 64 << 20;
/// The most entries.
pub const ENTRIES_MAX: usize = 1_000_000;
/// The largest whole number that every JSON reader holds exactly: 2^53 - 1.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// What is at the head of the MAC's input.
const MAC_LABEL: &str = "nbak v1 manifest mac";
/// The version of [`Own`].
const OWN_FORMAT: u64 = 1;

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The application's version.
    pub version: String,
    /// When the backup was made, as it is written: ISO 8601 with milliseconds and `Z`.
    pub created_at: String,
    /// The same in milliseconds since 1970.
    pub created_ms: i64,
    /// Whose names it uses.
    pub dialect: Dialect,
    /// The data directory that it was made of.
    pub source_dir: String,
    /// Whether every file is an NBAK file.
    pub encrypted: bool,
    /// Files and folders.
    pub files: Vec<FileEntry>,
    /// [`overall_checksum`] of the files.
    pub checksum: String,
    /// Ours, if this program made it.
    pub own: Option<Own>,
}

/// One file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to the backup and to the data directory, by `/`.
    pub path: String,
    /// Bytes of the file as it lies in the backup; 0 for a folder.
    pub size: u64,
    /// SHA-256 of the same bytes, 64 lower-case digits; empty for a folder.
    pub sha256: String,
    /// What it is.
    pub kind: Kind,
    /// Permissions in the data directory.
    pub mode: Option<u32>,
    /// Time of the last change, in milliseconds since 1970.
    pub mtime_ms: Option<i64>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A database, as SQLite copied it.
    Sqlite,
    /// Any other file.
    File,
    /// A folder.
    Directory,
    /// A folder that holds a knowledge graph, in older backups. It is never written: the application's own restore of
    /// such a folder puts ciphertext over what it decrypted.
    KuzuDir,
}

/// What this program adds: who vouches for the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The snapshot that the backup was made of, 32 digits.
    pub snapshot: String,
    /// HMAC-SHA256 over [`Manifest::mac_input`].
    pub mac: [u8; 32],
    /// Where its key comes from.
    pub mac_key: MacSource,
    /// What its key is derived with. It also has what vouches for `lacks`.
    pub mac_salt: [u8; 32],
    /// Which data directory that was, if its file system says.
    pub instance: Option<InstanceId>,
    /// A restore made it, of what it was about to replace: nobody wants to restore that unasked.
    pub before_restore: bool,
    /// What is not in the backup.
    pub lacks: Lacks,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Sqlite, Kind::File, Kind::Directory, Kind::KuzuDir];

    /// The word in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Sqlite => "sqlite",
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::KuzuDir => "kuzu_dir",
        }
    }

    /// The kind that the manifest calls `word`.
    pub fn parse(word: &str) -> Option<Kind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether it is a folder, which has no bytes of its own.
    pub fn is_directory(self) -> bool {
        matches!(self, Kind::Directory | Kind::KuzuDir)
    }
}

/// SHA-256 over the digits of all files' `checksum_sha256`, sorted, joined by `:`.
pub fn overall_checksum(files: &[FileEntry]) -> String {
    let mut sums: Vec<&str> =
        files.iter().filter(|entry| !entry.kind.is_directory()).map(|entry| entry.sha256.as_str()).collect();
    sums.sort_unstable();
    let mut hash = Sha256::new();
    for (at, sum) in sums.into_iter().enumerate() {
        if at > 0 {
            hash.update(b":");
        }
        hash.update(sum);
    }
    hex(&hash.finalize())
}

/// A moment as manifests tell it: `2026-03-25T03:00:00.000Z`.
pub fn iso(ms: i64) -> String {
    let moment = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    moment.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// The moment that [`iso`] wrote, if `text` is one.
pub fn parse_iso(text: &str) -> Option<i64> {
    let ms = text.parse::<Timestamp>().ok()?.as_millisecond();
    (iso(ms) == text).then_some(ms)
}

impl Manifest {
    /// Reads a manifest. An error says which field is wrong, and of which entry.
    pub fn parse(bytes: &[u8]) -> Result<Manifest> {
        if bytes.len() as u64 > BYTES_MAX {
            return Err(wrong(format!("it is larger than {BYTES_MAX} bytes")));
        }
        let manifest: Manifest = serde_json::from_slice::<read::Parsed>(bytes).map_err(wrong)?.0;
        names::check_together(manifest.files.iter().map(|entry| (entry.path.as_str(), entry.kind.is_directory())))
            .map_err(wrong)?;
        Ok(manifest)
    }

    /// The manifest as a file, in the application's own form: two spaces, no newline at the end.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("texts and numbers have a JSON form")
    }

    /// Which directory it says that it was made of.
    pub fn whose(&self) -> Whose {
        self.own.as_ref().map_or(Whose::Unsaid, |own| Whose::Of(own.instance))
    }

    /// What is not in the backup, as far as its manifest says.
    pub fn lacks(&self) -> Lacks {
        self.own.as_ref().map(|own| own.lacks.clone()).unwrap_or_default()
    }

    /// Whether `checksum` is that of the files.
    pub fn checksum_holds(&self) -> bool {
        self.checksum == overall_checksum(&self.files)
    }

    /// What the manifest's MAC is over. Every field has a length or a fixed size, so no two manifests have the same.
    /// Integers are little-endian; a *text* is a u64, its bytes, and then the bytes in UTF-8.
    ///
    /// | bytes | what |
    /// |---|---|
    /// | text | `nbak v1 manifest mac` |
    /// | text | `version` |
    /// | text | `created_at` |
    /// | text | the dialect: `nodyn` or `lynox` |
    /// | text | `nodyn_dir` or `lynox_dir` |
    /// | 1 | `encrypted`: 0 or 1 |
    /// | text | `nbak.snapshot` |
    /// | text | `nbak.mac_key` |
    /// | 32 | `nbak.mac_salt`, as bytes |
    /// | text | `checksum` |
    /// | 8 | number of entries |
    ///
    /// and for each entry, in the order of `files`:
    ///
    /// | bytes | what |
    /// |---|---|
    /// | text | `path` |
    /// | 8 | `size_bytes` |
    /// | text | `checksum_sha256` |
    /// | text | `type` |
    /// | 1 and 4 | 1 and `mode`; or only a 0 if there is none |
    /// | 1 and 8 | 1 and `mtime_ms`, signed; or only a 0 if there is none |
    ///
    /// and in the end a byte 2 and 16 bytes if there is `nbak.instance`, and a byte 1 if `nbak.before_restore` is true.
    /// What the backup lacks is vouched for by `nbak.mac_salt` ([`lacks`]).
    ///
    /// Without [`Own`] there is no MAC: snapshot and key are empty texts then, and the salt is zeros.
    pub fn mac_input(&self) -> Vec<u8> {
        let (snapshot, mac_key, mac_salt) = match &self.own {
            Some(own) => (own.snapshot.as_str(), own.mac_key.as_str(), own.mac_salt),
            None => ("", "", [0; 32]),
        };
        let mut out = Vec::new();
        put_text(&mut out, MAC_LABEL);
        put_text(&mut out, &self.version);
        put_text(&mut out, &self.created_at);
        put_text(&mut out, self.dialect.as_str());
        put_text(&mut out, &self.source_dir);
        out.push(u8::from(self.encrypted));
        put_text(&mut out, snapshot);
        put_text(&mut out, mac_key);
        out.extend_from_slice(&mac_salt);
        put_text(&mut out, &self.checksum);
        out.extend_from_slice(&(self.files.len() as u64).to_le_bytes());
        for entry in &self.files {
            put_text(&mut out, &entry.path);
            out.extend_from_slice(&entry.size.to_le_bytes());
            put_text(&mut out, &entry.sha256);
            put_text(&mut out, entry.kind.as_str());
            put_option(&mut out, entry.mode.map(u32::to_le_bytes));
            put_option(&mut out, entry.mtime_ms.map(i64::to_le_bytes));
        }
        if let Some(instance) = self.own.as_ref().and_then(|own| own.instance) {
            out.push(2);
            out.extend_from_slice(&instance.0);
        }
        if self.own.as_ref().is_some_and(|own| own.before_restore) {
            out.push(1);
        }
        out
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_option<const N: usize>(out: &mut Vec<u8>, value: Option<[u8; N]>) {
    out.push(u8::from(value.is_some()));
    out.extend_from_slice(value.as_ref().map_or(&[], |bytes| bytes.as_slice()));
}

fn wrong(why: impl std::fmt::Display) -> Error {
    Error::integrity(format!("the manifest is damaged: {why}"))
}

// The application's own order of fields, and ours after them.
impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", &self.version)?;
        map.serialize_entry("created_at", &self.created_at)?;
        map.serialize_entry(self.dialect.directory_field(), &self.source_dir)?;
        map.serialize_entry("encrypted", &self.encrypted)?;
        map.serialize_entry("files", &self.files)?;
        map.serialize_entry("checksum", &self.checksum)?;
        if let Some(own) = &self.own {
            map.serialize_entry("nbak", own)?;
        }
        map.end()
    }
}

impl Serialize for FileEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("path", &self.path)?;
        map.serialize_entry("size_bytes", &self.size)?;
        map.serialize_entry("checksum_sha256", &self.sha256)?;
        map.serialize_entry("type", self.kind.as_str())?;
        if let Some(mode) = self.mode {
            map.serialize_entry("mode", &mode)?;
        }
        if let Some(mtime_ms) = self.mtime_ms {
            map.serialize_entry("mtime_ms", &mtime_ms)?;
        }
        map.end()
    }
}

impl Serialize for Own {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("format", &OWN_FORMAT)?;
        map.serialize_entry("snapshot", &self.snapshot)?;
        map.serialize_entry("mac", &hex(&self.mac))?;
        map.serialize_entry("mac_key", self.mac_key.as_str())?;
        map.serialize_entry("mac_salt", &hex(&self.mac_salt))?;
        if let Some(instance) = &self.instance {
            map.serialize_entry("instance", &instance.to_string())?;
        }
        if self.before_restore {
            map.serialize_entry("before_restore", &true)?;
        }
        if self.lacks.count > 0 {
            map.serialize_entry("lacks", &self.lacks.named)?;
            map.serialize_entry("lacks_count", &self.lacks.count)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
