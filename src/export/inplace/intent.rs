//! The intent journal: what goes where, so that whoever comes next can finish it.
//!
//! Two lines: a JSON object, and the BLAKE3 hash of the first line in hex. It is written under another name, synced and
//! renamed, so it is there as a whole or not at all; the hash tells a damaged one.
//!
//! Paths need not be UTF-8: a byte that does not fit, and `%` itself, is written as `%` and two hex digits. They are
//! checked when read, although the folder is ours ([`trust`]): a `..` in a journal would move files outside of the data
//! directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::called::{FOLDER, GIVEN_UP, INTENT, NEW};
use super::origin::Origin;
use super::root::{Root, Seen, Stamp};
use super::trust;
use crate::error::{Error, Result};

const VERSION: u32 = 1;
/// What a remark ends with on what goes as a whole.
pub const IN_BACKUP: &str = "what was in it is in the safety backup";
/// The same where none was made.
pub const GONE: &str = "what was in it is gone, since no safety backup was made";
/// Bytes: millions of files.
const LARGEST: u64 = 1 << 30;
const TEMPORARY: &str = ".nbak-restore/intent.tmp";

/// A path relative to the data directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub PathBuf);

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        for chunk in self.0.as_os_str().as_bytes().utf8_chunks() {
            text.push_str(&chunk.valid().replace('%', "%25"));
            for byte in chunk.invalid() {
                let _ = write!(text, "%{byte:02x}");
            }
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        decode(&text).map(Name).ok_or_else(|| serde::de::Error::custom(format!("not a path to restore to: {text:?}")))
    }
}

fn decode(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(first);
        }
    }
    let path = PathBuf::from(std::ffi::OsString::from_vec(bytes));
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let has_nul = path.as_os_str().as_bytes().contains(&0);
    (is_plain && !has_nul && !path.as_os_str().is_empty() && !is_own(&path)).then_some(path)
}

/// Whether `path` is this program's own, at the top of the data directory.
pub fn is_own(path: &Path) -> bool {
    path.components().next().is_some_and(|first| first.as_os_str().as_bytes().starts_with(b".nbak-"))
}

/// A folder that is not there yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Folder {
    pub path: Name,
    pub mode: u32,
    pub owner: Option<(u32, u32)>,
    pub mtime: (i64, u32),
}

/// A folder that its owner, who restores, may not write, and in which something is put, moved or removed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Opened {
    pub path: Name,
    /// Its mode before, which it has again in the end, unless [`Touch`] says another.
    pub mode: u32,
}

/// Something live that is moved away, and what is put in its place is another entry, or none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Clear {
    pub path: Name,
    pub live: Stamp,
}

/// What stood at a path when somebody went on with a restore, or that nothing did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    pub path: Name,
    pub live: Option<Stamp>,
}

/// How a staged entry gets to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Exchanged with what is there.
    File,
    /// The same, and what is there, or what is staged, is a database.
    Database,
    /// The same, and what is there could not be opened: it is kept, with its sidecars.
    Malformed,
    /// Written into the live database through SQLite.
    Through,
}

/// A staged entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Move {
    pub path: Name,
    pub way: Way,
    /// The staged version. Its inode tells whether the move was done.
    pub staged: Stamp,
    /// BLAKE3, in hex, of its bytes; of a symbolic link's, what it says.
    pub hash: String,
    /// What stood there.
    pub live: Option<Stamp>,
    /// The mode of a file, to be set again if somebody changed it before all is done. Older journals do not say.
    #[serde(default)]
    pub mode: Option<u32>,
    /// The owner, where it may be set. Older journals do not say.
    #[serde(default)]
    pub owner: Option<(u32, u32)>,
}

/// A file whose content is right already, and its mode, owner or time is not; or a folder that stands there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Touch {
    pub path: Name,
    pub mode: Option<u32>,
    pub owner: Option<(u32, u32)>,
    pub mtime: (i64, u32),
    /// Which version of it that is. Older journals do not say.
    #[serde(default)]
    pub live: Option<Stamp>,
}

/// An entry that is as it is to be, but maybe for what [`Touch`] says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Same {
    pub path: Name,
    pub live: Stamp,
    /// It is a database, and nothing stood beside it.
    pub database: bool,
    /// The mode of a file that it has, or that [`Touch`] gives it. Older journals do not say.
    #[serde(default)]
    pub mode: Option<u32>,
    /// The owner, where it may be set. Older journals do not say.
    #[serde(default)]
    pub owner: Option<(u32, u32)>,
}

impl Same {
    /// Whether it is a folder, of which a stamp says no time.
    pub fn is_folder(&self) -> bool {
        self.live.is_of_folder()
    }
}

impl Touch {
    /// Whether it is of a folder, of which a stamp says no time.
    pub fn is_of_folder(&self) -> bool {
        self.live.is_some_and(|live| live.is_of_folder())
    }

    /// Whether what stands there now is what stood there `then`, with the one time or with the other.
    pub fn is_as_it_was(&self, then: Stamp, now: Option<Seen>) -> bool {
        let set = Stamp { mtime: Stamp::time(self.mtime), ..then };
        now.is_some_and(|now| now.stamp == then || now.stamp == set)
    }
}

/// All that is needed to finish.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Intent {
    pub version: u32,
    /// Which copy of the data directory it is of. Older journals do not say.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// The name of the folder for what must not be lost, in the data directory. Made when it is needed.
    pub kept: String,
    pub folders: Vec<Folder>,
    pub clear: Vec<Clear>,
    pub moves: Vec<Move>,
    pub touch: Vec<Touch>,
    /// Folders that are opened for it, and closed again. Older journals have none.
    #[serde(default)]
    pub opened: Vec<Opened>,
    /// What the restore is about and leaves, to tell what is written to it before this is finished. Older journals do
    /// not say.
    #[serde(default)]
    pub same: Option<Vec<Same>>,
    /// What was written to when somebody went on with it, and is not replaced: noted before the rest is, so that it is
    /// told by whoever ends it.
    #[serde(default)]
    pub stayed: Vec<Name>,
    /// What stands beside what is exchanged and below what goes, to tell what is written before this is finished.
    /// Older journals do not say.
    #[serde(default)]
    pub standing: Option<Vec<Clear>>,
    /// What stood there, and beside it, when somebody went on with this and found it to be another. Older journals do
    /// not say.
    #[serde(default)]
    pub since: Vec<Since>,
    /// Databases whose write-ahead log was turned off, to be turned on again if this is given up. Older journals do not
    /// say.
    #[serde(default)]
    pub switched: Vec<Name>,
    /// What was exchanged or is to go, and may be a database that is encrypted by itself: nobody may have it open when
    /// this is finished. What told that may be gone by then. Older journals do not say.
    #[serde(default)]
    pub sealed: Option<Vec<Name>>,
    pub unchanged: u64,
    pub extra: Vec<Name>,
    pub removed: Vec<Name>,
    pub remarks: Vec<String>,
    /// What was left as it is though it was asked for, as it is shown: no path to act on. Older journals do not say.
    #[serde(default)]
    pub skipped: Vec<String>,
    /// What is restored, in words: `snapshot 1a2b3c4d`. Older journals do not say.
    #[serde(default)]
    pub what: Option<String>,
    /// What the origin lacks of what was asked for, in words. Older journals do not say.
    #[serde(default)]
    pub lacks: Option<String>,
    /// The safety backup, as it is shown: no path to act on. Older journals do not say.
    #[serde(default)]
    pub safety: Option<String>,
    /// What the safety backup lacks of what is replaced, or that there is none, in words. It is among `remarks`, too.
    /// Older journals do not say.
    #[serde(default)]
    pub not_in_backup: Vec<String>,
}

impl Intent {
    /// One that says nothing yet.
    pub fn new(kept: String) -> Intent {
        Intent {
            version: VERSION,
            origin: None,
            kept,
            folders: Vec::new(),
            clear: Vec::new(),
            moves: Vec::new(),
            touch: Vec::new(),
            opened: Vec::new(),
            same: Some(Vec::new()),
            stayed: Vec::new(),
            standing: None,
            since: Vec::new(),
            switched: Vec::new(),
            sealed: Some(Vec::new()),
            unchanged: 0,
            extra: Vec::new(),
            removed: Vec::new(),
            remarks: Vec::new(),
            skipped: Vec::new(),
            what: None,
            lacks: None,
            safety: None,
            not_in_backup: Vec::new(),
        }
    }

    /// Notes that `path` goes, and why.
    pub fn goes(&mut self, path: &Path, why: &str, is_backed_up: bool) {
        self.removed.push(Name(path.to_path_buf()));
        let becomes = if is_backed_up { IN_BACKUP } else { GONE };
        self.remarks.push(format!("{}: {why}; {becomes}", path.display()));
    }

    /// Writes it. When this returns, it is durable.
    pub fn write(&mut self, root: &Root) -> Result<()> {
        self.put(root, None)?;
        root.rename(Path::new(TEMPORARY), Path::new(INTENT))?;
        root.sync_folder(Path::new(FOLDER))
    }

    /// Notes in it what was written to and stays, and what stands `now` of what is still to go. It keeps the time at
    /// which it was written first.
    pub fn note(&mut self, root: &Root, stayed: impl IntoIterator<Item = PathBuf>, now: Vec<Since>) -> Result<()> {
        let known = self.stayed.len();
        let is_known = now.iter().all(|one| self.since.contains(one));
        if !is_known {
            let all = std::mem::take(&mut self.since).into_iter().chain(now);
            let latest: BTreeMap<Name, Option<Stamp>> = all.map(|one| (one.path, one.live)).collect();
            self.since = latest.into_iter().map(|(path, live)| Since { path, live }).collect();
        }
        let mut all: BTreeSet<Name> = std::mem::take(&mut self.stayed).into_iter().collect();
        all.extend(stayed.into_iter().map(Name));
        self.stayed = all.into_iter().collect();
        if self.stayed.len() == known && is_known {
            return Ok(());
        }
        // Somebody may have been killed at this.
        root.remove_file(Path::new(TEMPORARY))?;
        self.put(root, root.seen(Path::new(INTENT))?)?;
        root.replace(Path::new(TEMPORARY), Path::new(INTENT))?;
        root.sync_folder(Path::new(FOLDER))
    }

    /// Writes it under another name, with the time of an `earlier` one.
    fn put(&mut self, root: &Root, earlier: Option<Seen>) -> Result<()> {
        let place = root.place(Path::new(TEMPORARY));
        let failed = |error| Error::io("write the journal of the restore", &place, error);
        let mut file = root.create(Path::new(TEMPORARY))?;
        self.origin = Some(Origin::of(root, Path::new(TEMPORARY))?);
        let mut text = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        let hash = blake3::hash(&text).to_hex();
        text.push(b'\n');
        text.extend_from_slice(hash.as_bytes());
        text.push(b'\n');
        file.write_all(&text).map_err(failed)?;
        if let Some(earlier) = earlier {
            root.set(Path::new(TEMPORARY), None, None, earlier.mtime)?;
        }
        file.sync_all().map_err(failed)
    }

    /// Reads and checks it. Fails if another user may have written it.
    pub fn read(root: &Root) -> Result<Intent> {
        let place = root.place(Path::new(INTENT));
        let failed = |error| Error::io("read the journal of an interrupted restore", &place, error);
        let mut text = Vec::new();
        trust::open(root)?.take(LARGEST).read_to_end(&mut text).map_err(failed)?;
        Intent::parse(&text).map_err(|why| {
            Error::integrity(format!("the journal of an interrupted restore is damaged ({why}); nothing was changed"))
                .at(&place)
                .hint(
                    "what was there and what was to be restored stand in its folder: rename that folder to go on, and \
                     restore again; do not delete it before",
                )
        })
    }

    fn parse(text: &[u8]) -> Result<Intent, String> {
        let text = text.strip_suffix(b"\n").ok_or("it is cut off")?;
        let (line, hash) = text.rsplit_once_newline().ok_or("it is cut off")?;
        if blake3::hash(line).to_hex().as_bytes() != hash {
            return Err("its checksum is wrong".to_owned());
        }
        let intent: Intent = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if intent.version != VERSION {
            return Err(format!("it is of version {}, and {VERSION} is known", intent.version));
        }
        let is_ours = intent.kept.starts_with(".nbak-kept-") && !intent.kept.contains(['/', '\0']);
        if is_ours { Ok(intent) } else { Err("it names a folder that is not ours".to_owned()) }
    }

    /// Notes that it is not to be finished. When this returns, that is durable.
    pub fn give_up(root: &Root) -> Result<()> {
        let note = Path::new(GIVEN_UP);
        if root.seen(note)?.is_none() {
            let failed = |error| Error::io("note that a restore is given up", root.place(note), error);
            root.create(note)?.sync_all().map_err(failed)?;
        }
        root.sync_folder(Path::new(FOLDER))
    }

    /// Whether that was noted.
    pub fn is_given_up(root: &Root) -> Result<bool> {
        Ok(root.seen(Path::new(GIVEN_UP))?.is_some())
    }

    /// Removes it: the restore is done, or was given up.
    pub fn remove(root: &Root) -> Result<()> {
        root.remove_file(Path::new(TEMPORARY))?;
        root.remove_file(Path::new(INTENT))?;
        root.sync_folder(Path::new(FOLDER))
    }
}

trait Lines {
    fn rsplit_once_newline(&self) -> Option<(&[u8], &[u8])>;
}

impl Lines for [u8] {
    fn rsplit_once_newline(&self) -> Option<(&[u8], &[u8])> {
        let at = self.iter().rposition(|&byte| byte == b'\n')?;
        Some((&self[..at], &self[at + 1..]))
    }
}

impl Move {
    /// Whether the staged entry still stands in the staging.
    pub fn is_pending(&self, root: &Root) -> Result<bool> {
        let staged = root.seen(&Path::new(NEW).join(&self.path.0))?;
        Ok(staged.is_some_and(|seen| seen.stamp.inode == self.staged.inode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(intent: &Intent) -> Vec<u8> {
        let line = serde_json::to_vec(intent).expect("serialised");
        let hash = blake3::hash(&line).to_hex();
        [&line, &b"\n"[..], hash.as_bytes(), b"\n"].concat()
    }

    #[test]
    fn names_of_any_bytes_survive() {
        for bytes in [&b"a/b"[..], b"100%", b"%41", b"\xff\xfe/x\x80", "grün/\u{1}".as_bytes(), b"a\nb"] {
            let name = Name(PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec())));
            let json = serde_json::to_string(&name).expect("serialised");
            assert_eq!(serde_json::from_str::<Name>(&json).expect("read"), name, "{json}");
        }
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["", "/etc/passwd", "a/../b", "..", "./a", "a%00b", "%2e%2e/x", ".nbak-restore/new/x", "%4", "%zz"]
        {
            assert!(serde_json::from_str::<Name>(&format!("{path:?}")).is_err(), "{path:?}");
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let mut intent = Intent::new(".nbak-kept-20260101T000000Z".to_owned());
        intent.extra.push(Name("a".into()));
        let good = text(&intent);
        assert!(Intent::parse(&good).is_ok());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Intent::parse(&bad).is_err(), "byte {at}");
            assert!(Intent::parse(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn later_versions_and_foreign_folders_are_refused() {
        let mut intent = Intent::new(".nbak-kept-x".to_owned());
        intent.version = 2;
        assert!(Intent::parse(&text(&intent)).expect_err("refused").contains("version"));
        for kept in ["elsewhere", ".nbak-kept-/../x", ""] {
            assert!(Intent::parse(&text(&Intent::new(kept.to_owned()))).is_err(), "{kept}");
        }
    }
}
