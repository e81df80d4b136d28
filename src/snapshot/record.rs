//! Snapshot records.
//!
//! A record is one JSON object in the footer of the pack that commits the snapshot. It is read with fields that are not
//! known ignored, so that later versions can add some. Its place in a sealed footer authenticates it; its `sequence`
//! and `previous`, the keyed hash of the record before it, chain all records of a store, so that one that was
//! taken away is missed.

use serde::{Deserialize, Serialize};

use super::lack::Lack;
use super::tree::Attributes;
use crate::error::{Error, Result};
use crate::id::{InstanceId, SnapshotId, TreeId};

/// What a snapshot holds, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Regular files, databases included.
    pub files: u64,
    /// Databases.
    pub databases: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: SnapshotId,
    /// One more than the record's before it; the first is 1.
    pub sequence: u64,
    /// The keyed hash of the record before it.
    pub previous: Option<[u8; 16]>,
    /// The snapshot of the same data directory before it.
    pub parent: Option<SnapshotId>,
    /// Which directory that was, if its file system can tell.
    pub instance: Option<InstanceId>,
    /// Others of the same path that took snapshots after this one had: they are not what it was before
    /// ([`super::head`]).
    pub apart: Vec<InstanceId>,
    /// When the cut began: milliseconds since 1970. The first transaction was opened after it.
    pub started: i64,
    /// When the last file was read: milliseconds since 1970.
    pub ended: i64,
    /// The data directory.
    pub source: String,
    /// The root directory's content.
    pub tree: TreeId,
    /// The root directory's attributes.
    pub root: Attributes,
    /// What is in it.
    pub totals: Totals,
    /// Entries that could not be captured, and why. At most [`MOST_UNREADABLE`] are kept by name. The first may be what
    /// says that it is a mixture ([`super::lack`]).
    pub unreadable: Vec<(String, String)>,
    /// How many could not.
    pub unreadable_count: u64,
    /// Tags.
    pub tags: Vec<String>,
    /// What its maker noted.
    pub note: Option<String>,
    /// The program's version.
    pub program: String,
}

/// Entries that could not be captured are named in the record up to this number.
pub const MOST_UNREADABLE: usize = 100;
/// And up to this many bytes: a record that is too long could not be stored.
const UNREADABLE_ROOM: usize = 16 * 1024;
/// The longest note, in bytes.
pub const LONGEST_NOTE: usize = 4096;
/// The most tags, and the longest one in bytes.
pub const TAGS: (usize, usize) = (32, 128);

#[derive(Serialize, Deserialize)]
struct Wire {
    format: u32,
    id: String,
    sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    apart: Vec<String>,
    started_ms: i64,
    ended_ms: i64,
    source: String,
    tree: String,
    /// mode, uid, gid, mtime in seconds, and its nanoseconds
    root: (u32, u32, u32, i64, u32),
    totals: Totals,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<(String, String)>,
    #[serde(default)]
    unreadable_count: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    program: String,
}

/// Those of `entries` that there is room for.
pub fn within_bounds(entries: &[(String, String)]) -> Vec<(String, String)> {
    let mut room = UNREADABLE_ROOM;
    let fits = |(path, reason): &&(String, String)| {
        room = room.saturating_sub(path.len() + reason.len());
        room > 0
    };
    entries.iter().take(MOST_UNREADABLE).take_while(fits).cloned().collect()
}

impl Totals {
    /// Counts what `more` counts too.
    pub fn add(&mut self, more: &Totals) {
        let Totals { files, databases, directories, symlinks, bytes } = more;
        self.files += files;
        self.databases += databases;
        self.directories += directories;
        self.symlinks += symlinks;
        self.bytes += bytes;
    }

    /// How many entries a full listing has, and one for the root.
    pub fn entries(&self) -> u64 {
        self.files.saturating_add(self.directories).saturating_add(self.symlinks)
    }
}

impl Record {
    /// What keeps it from being all of its data directory at one time.
    pub fn lack(&self) -> Lack {
        Lack::of(&self.unreadable, self.unreadable_count)
    }

    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let root = self.root;
        let wire = Wire {
            format: 1,
            id: self.id.to_string(),
            sequence: self.sequence,
            previous: self.previous.map(|mac| SnapshotId(mac).to_string()),
            parent: self.parent.map(|id| id.to_string()),
            instance: self.instance.map(|id| id.to_string()),
            apart: self.apart.iter().map(InstanceId::to_string).collect(),
            started_ms: self.started,
            ended_ms: self.ended,
            source: self.source.clone(),
            tree: self.tree.to_string(),
            root: (root.mode, root.uid, root.gid, root.mtime, root.mtime_nanos),
            totals: self.totals,
            unreadable: within_bounds(&self.unreadable),
            unreadable_count: self.unreadable_count,
            tags: self.tags.clone(),
            note: self.note.clone(),
            program: self.program.clone(),
        };
        serde_json::to_vec(&wire).expect("a record of strings and numbers has a JSON form")
    }

    /// Reads a record's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Record> {
        let bad = |why: &str| Error::integrity(format!("a snapshot record is malformed: {why}"));
        let wire: Wire = serde_json::from_slice(bytes).map_err(|error| bad(&error.to_string()))?;
        if wire.format != 1 {
            return Err(bad("it is of another format version: use a newer nbak"));
        }
        let id = |text: &str| SnapshotId::parse(text).map_err(|_| bad("an id is not one"));
        let which = |text: &str| InstanceId::parse(text).map_err(|_| bad("an instance is not one"));
        // Numbers count up from 1 by one: no store gets near the limit, and nothing that adds to one overflows.
        if wire.sequence == 0 || wire.sequence > u64::from(u32::MAX) {
            return Err(bad("its number is out of range"));
        }
        let (mode, uid, gid, mtime, mtime_nanos) = wire.root;
        if mode > 0o7777 || mtime_nanos > 999_999_999 {
            return Err(bad("the root directory's attributes are out of range"));
        }
        Ok(Record {
            id: id(&wire.id)?,
            sequence: wire.sequence,
            previous: wire.previous.map(|mac| id(&mac).map(|id| id.0)).transpose()?,
            parent: wire.parent.map(|parent| id(&parent)).transpose()?,
            instance: wire.instance.as_deref().map(which).transpose()?,
            apart: wire.apart.iter().map(|other| which(other)).collect::<Result<_>>()?,
            started: wire.started_ms,
            ended: wire.ended_ms,
            source: wire.source,
            tree: TreeId(id(&wire.tree)?.0),
            root: Attributes { mode, uid, gid, mtime, mtime_nanos },
            totals: wire.totals,
            unreadable: wire.unreadable,
            unreadable_count: wire.unreadable_count,
            tags: wire.tags,
            note: wire.note,
            program: wire.program,
        })
    }
}

#[cfg(test)]
impl Record {
    /// Of an empty directory, for tests that are about some of its fields.
    pub(crate) fn empty() -> Record {
        Record {
            id: SnapshotId([0; 16]),
            sequence: 1,
            previous: None,
            parent: None,
            instance: None,
            apart: Vec::new(),
            started: 0,
            ended: 0,
            source: String::new(),
            tree: TreeId([0; 16]),
            root: Attributes::default(),
            totals: Totals::default(),
            unreadable: Vec::new(),
            unreadable_count: 0,
            tags: Vec::new(),
            note: None,
            program: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        let record = Record {
            id: SnapshotId::random(),
            sequence: 7,
            previous: Some([9; 16]),
            parent: None,
            instance: Some(InstanceId::random()),
            apart: vec![InstanceId::random()],
            started: 1,
            ended: -2,
            source: "/d".into(),
            tree: TreeId::random(),
            root: Attributes { mode: 0o700, uid: 1, gid: 2, mtime: -1, mtime_nanos: 5 },
            totals: Totals { files: 1, databases: 1, directories: 2, symlinks: 0, bytes: u64::MAX },
            unreadable: vec![("s".into(), "a socket".into())],
            unreadable_count: 1,
            tags: vec!["daily".into()],
            note: Some("n".into()),
            program: "0.1.0".into(),
        };
        assert_eq!(Record::decode(&record.encode()).expect("what was written"), record);
        assert!(Record::decode(b"{}").is_err());
        assert!(Record::decode(&record.encode()[..40]).is_err());
    }
}
