//! Receipts: what `stat` said of each file when it was captured, so that an unchanged file costs a stat.
//!
//! They are a note in the index, for one data directory and the newest snapshot of it. That the note is there says
//! more: every chunk that the snapshot names was looked up in the packs, one by one, or was so for the snapshot before
//! it (I12). Losing it costs one full read.
//!
//! When a [receipt](super::receipt) may be relied on stands there.
//!
//! [Marks](super::marks) are kept with them, and hold for the same snapshot.

use std::collections::HashMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::marks::Mark;
use super::receipt::{Receipt, put_stamp, take_stamp};
use super::subtree::{Subtree, Subtrees};
use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::id::SnapshotId;

/// The receipts of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipts {
    /// The snapshot that holds what these files contained.
    pub snapshot: SnapshotId,
    /// By path, relative to the data directory.
    pub files: HashMap<PathBuf, Receipt>,
    /// Where in their logs databases ended in it, by path; with a receipt or without.
    pub marks: HashMap<PathBuf, Mark>,
    /// Folders whose files' receipts are noted with the folder, and not in `files`.
    pub subtrees: Subtrees,
    /// How many packs the index had counted, and the digest of their stamps; nothing if that could not be told.
    pub packs: Option<(u32, [u8; 16])>,
}

impl Receipts {
    /// None at all, of the snapshot `snapshot`.
    pub fn none(snapshot: SnapshotId) -> Receipts {
        let (files, marks, subtrees) = (HashMap::new(), HashMap::new(), Subtrees::new());
        Receipts { snapshot, files, marks, subtrees, packs: None }
    }

    /// The name of the note for the data directory `source`.
    pub fn note_name(source: &str) -> String {
        format!("receipts {source}")
    }

    /// The note.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.snapshot.0.to_vec();
        put_varint(&mut out, self.files.len() as u64);
        for (path, receipt) in &self.files {
            put_bytes(&mut out, path.as_os_str().as_bytes());
            put_stamp(&mut out, &receipt.stamp);
            let Some(sidecars) = receipt.beside() else {
                out.push(0);
                continue;
            };
            out.push(1 | u8::from(sidecars[0].is_some()) << 1 | u8::from(sidecars[1].is_some()) << 2);
            sidecars.iter().flatten().for_each(|stamp| put_stamp(&mut out, stamp));
        }
        put_varint(&mut out, self.marks.len() as u64);
        for (path, mark) in &self.marks {
            put_bytes(&mut out, path.as_os_str().as_bytes());
            mark.encode(&mut out);
        }
        put_varint(&mut out, self.subtrees.len() as u64);
        for (path, subtree) in &self.subtrees {
            put_bytes(&mut out, path.as_os_str().as_bytes());
            subtree.encode(&mut out);
        }
        if let Some((most, stamps)) = self.packs {
            put_varint(&mut out, u64::from(most));
            out.extend_from_slice(&stamps);
        }
        out
    }

    /// Reads the note.
    pub fn decode(bytes: &[u8]) -> Result<Receipts, Malformed> {
        let mut reader = Reader::new(bytes);
        let snapshot = SnapshotId(reader.array()?);
        let count = reader.count(8)?;
        let mut files = HashMap::with_capacity(count);
        for _ in 0..count {
            let path = take_path(&mut reader)?;
            let stamp = take_stamp(&mut reader)?;
            let flags = reader.u8()?;
            let mut sidecar = |bit: u8| (flags & bit != 0).then(|| take_stamp(&mut reader)).transpose();
            let receipt = match flags & 1 {
                0 => Receipt::of_file(stamp),
                _ => Receipt::of_database(stamp, [sidecar(2)?, sidecar(4)?]),
            };
            files.insert(path, receipt);
        }
        let count = reader.count(8)?;
        let mut marks = HashMap::with_capacity(count);
        for _ in 0..count {
            marks.insert(take_path(&mut reader)?, Mark::decode(&mut reader)?);
        }
        let count = reader.count(32)?;
        let mut subtrees = Subtrees::new();
        for _ in 0..count {
            subtrees.insert(take_path(&mut reader)?, Subtree::decode(&mut reader)?);
        }
        let packs = match reader.remaining() {
            0 => None,
            _ => Some((reader.varint_up_to(u64::from(u32::MAX), "too many packs")? as u32, reader.array()?)),
        };
        reader.end()?;
        Ok(Receipts { snapshot, files, marks, subtrees, packs })
    }
}

fn take_path(reader: &mut Reader<'_>) -> Result<PathBuf, Malformed> {
    Ok(PathBuf::from(std::ffi::OsString::from_vec(reader.bytes()?.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::walk::Stamp;

    fn stamp(time: i128) -> Stamp {
        Stamp { device: 1, inode: 2, size: 3, mtime: time, ctime: time }
    }

    #[test]
    fn receipts_round_trip() {
        let mut receipts = Receipts { packs: Some((3, [4; 16])), ..Receipts::none(SnapshotId::random()) };
        receipts.files.insert("a".into(), Receipt::of_file(stamp(-5)));
        receipts.files.insert("b".into(), Receipt::of_database(stamp(1 << 50), [Some(stamp(7)), None]));
        receipts.marks.insert("b".into(), crate::snapshot::marks::tests::mark());
        assert_eq!(Receipts::decode(&receipts.encode()), Ok(receipts));
    }
}
