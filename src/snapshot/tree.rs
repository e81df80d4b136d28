//! Trees: one directory each.
//!
//! Entries are in the order of their names' bytes, and a name is one path component: never empty, `.`, `..`, nor with a
//! `/` or a NUL in it. Both hold for every tree that is read, so that nothing further on has to ask.
//!
//! A patch lists the entries that were put and the names that were removed.

use crate::codec::{Malformed, Reader, put_bytes, put_signed, put_varint};
use crate::id::{ChunkId, RecipeId, TreeId};
use crate::store::segment::MAX_PLAIN;

/// The longest name, and the longest symlink target, in bytes.
const LONGEST: usize = 4096;

/// How consistent a file's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// It did not change while it was read.
    Stable,
    /// It changed while it was read, each time it was tried: the content may be of two moments.
    Changed,
    /// A database: the image of one transaction.
    Transaction,
}

impl Consistency {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Consistency::Stable => "stable",
            Consistency::Changed => "changed",
            Consistency::Transaction => "transaction",
        }
    }
}

/// Who may do what with an entry, and since when it is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// The owner's id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
    /// Last modification: seconds since 1970.
    pub mtime: i64,
    /// Last modification: nanoseconds of that second.
    pub mtime_nanos: u32,
}

/// The chunks of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Few enough to be listed here: lengths in bytes, and ids.
    Chunks(Vec<(u32, ChunkId)>),
    /// Those of these recipes, joined.
    Recipes(Vec<RecipeId>),
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
        /// How consistent its content is.
        consistency: Consistency,
        /// Its content.
        content: Content,
    },
    /// A directory.
    Directory(TreeId),
    /// A symbolic link, and its target's bytes.
    Symlink(Vec<u8>),
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name's bytes.
    pub name: Vec<u8>,
    /// Its attributes.
    pub attributes: Attributes,
    /// What it is.
    pub node: Node,
}

/// A directory's entries, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// The entries.
    pub entries: Vec<Entry>,
}

impl Tree {
    /// The entry called `name`.
    pub fn get(&self, name: &[u8]) -> Option<&Entry> {
        self.entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok().map(|at| &self.entries[at])
    }

    /// The whole form: what the id is the hash of.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len() * 64);
        put_varint(&mut out, self.entries.len() as u64);
        self.entries.iter().for_each(|entry| entry.encode(&mut out));
        out
    }

    /// Reads the whole form.
    pub fn decode(bytes: &[u8]) -> Result<Tree, Malformed> {
        let mut reader = Reader::new(bytes);
        let count = reader.count(8)?;
        let entries = in_order(&mut reader, count)?;
        reader.end()?;
        Ok(Tree { entries })
    }

    /// What changed from `base` to this tree.
    pub fn patch(&self, base: &Tree) -> Vec<u8> {
        // Both are in order.
        let (mut old, mut removed, mut put) = (base.entries.iter().peekable(), Vec::new(), Vec::new());
        for entry in &self.entries {
            removed.extend(std::iter::from_fn(|| old.next_if(|old| old.name < entry.name)));
            if old.next_if(|old| old.name == entry.name) != Some(entry) {
                put.push(entry);
            }
        }
        removed.extend(old);
        let mut out = Vec::new();
        put_varint(&mut out, removed.len() as u64);
        for entry in removed {
            put_bytes(&mut out, &entry.name);
        }
        put_varint(&mut out, put.len() as u64);
        for entry in put {
            entry.encode(&mut out);
        }
        out
    }

    /// The tree that `patch` makes of this one.
    pub fn apply(mut self, patch: &[u8]) -> Result<Tree, Malformed> {
        let mut reader = Reader::new(patch);
        let count = reader.count(2)?;
        if count > self.entries.len() {
            return Err(Malformed("a patch removes more entries than there are"));
        }
        let removed = (0..count).map(|_| reader.bytes()).collect::<Result<Vec<_>, _>>()?;
        let count = reader.count(8)?;
        let put = in_order(&mut reader, count)?;
        reader.end()?;
        if !removed.is_sorted_by(|a, b| a < b) {
            return Err(Malformed("a patch of a directory is out of order"));
        }
        let gone = |name: &[u8]| {
            removed.binary_search(&name).is_ok() || put.binary_search_by(|e| e.name.as_slice().cmp(name)).is_ok()
        };
        self.entries.retain(|entry| !gone(&entry.name));
        self.entries.reserve_exact(put.len());
        self.entries.extend(put);
        // What was there is in order, what was put too, and no name is in both.
        self.entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(self)
    }
}

/// Reads `count` entries; stops at the first that is out of order, before more of the like fill memory.
fn in_order(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Entry>, Malformed> {
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..count {
        let entry = Entry::decode(reader)?;
        if entries.last().is_some_and(|last| last.name >= entry.name) {
            return Err(Malformed("a directory's entries are out of order, or one is there twice"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, &self.name);
        out.push(match &self.node {
            Node::File { consistency: Consistency::Stable, .. } => 0,
            Node::File { consistency: Consistency::Changed, .. } => 1,
            Node::File { consistency: Consistency::Transaction, .. } => 2,
            Node::Directory(_) => 3,
            Node::Symlink(_) => 4,
        });
        let Attributes { mode, uid, gid, mtime, mtime_nanos } = self.attributes;
        for number in [mode, uid, gid] {
            put_varint(out, u64::from(number));
        }
        put_signed(out, mtime);
        put_varint(out, u64::from(mtime_nanos));
        match &self.node {
            Node::File { size, content, .. } => {
                put_varint(out, *size);
                match content {
                    Content::Chunks(chunks) => {
                        put_varint(out, chunks.len() as u64 * 2);
                        for (length, id) in chunks {
                            put_varint(out, u64::from(*length));
                            out.extend_from_slice(&id.0);
                        }
                    }
                    Content::Recipes(recipes) => {
                        put_varint(out, recipes.len() as u64 * 2 + 1);
                        for id in recipes {
                            out.extend_from_slice(&id.0);
                        }
                    }
                }
            }
            Node::Directory(tree) => out.extend_from_slice(&tree.0),
            Node::Symlink(target) => put_bytes(out, target),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Entry, Malformed> {
        let name = reader.bytes()?.to_vec();
        if name.is_empty() || name.len() > LONGEST || name == b"." || name == b".." {
            return Err(Malformed("an entry's name is not one that a file can have"));
        }
        if name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err(Malformed("an entry's name is a path"));
        }
        let kind = reader.u8()?;
        let attributes = Attributes {
            mode: reader.varint_up_to(0o7777, "an entry's mode is out of range")? as u32,
            uid: reader.varint_up_to(u64::from(u32::MAX), "an owner is out of range")? as u32,
            gid: reader.varint_up_to(u64::from(u32::MAX), "a group is out of range")? as u32,
            mtime: reader.signed()?,
            mtime_nanos: reader.varint_up_to(999_999_999, "a time is out of range")? as u32,
        };
        let node = match kind {
            0..=2 => {
                let consistency = [Consistency::Stable, Consistency::Changed, Consistency::Transaction][kind as usize];
                let size = reader.varint()?;
                Node::File { size, consistency, content: Content::decode(reader, size)? }
            }
            3 => Node::Directory(TreeId(reader.array()?)),
            4 => {
                let target = reader.bytes()?.to_vec();
                if target.is_empty() || target.len() > LONGEST || target.contains(&0) {
                    return Err(Malformed("a symbolic link's target is not one that it can have"));
                }
                Node::Symlink(target)
            }
            _ => return Err(Malformed("an entry is of an unknown kind: use a newer nbak")),
        };
        Ok(Entry { name, attributes, node })
    }
}

impl Entry {
    /// What it takes in memory, in bytes, with what the allocator takes for each piece.
    pub(super) fn cost(&self) -> usize {
        let node = match &self.node {
            Node::File { content: Content::Chunks(chunks), .. } => 24 + 20 * chunks.len(),
            Node::File { content: Content::Recipes(recipes), .. } => 24 + 16 * recipes.len(),
            Node::Directory(_) => 0,
            Node::Symlink(target) => 24 + target.len(),
        };
        size_of::<Entry>() + 24 + self.name.len() + node
    }
}

impl Content {
    fn decode(reader: &mut Reader<'_>, size: u64) -> Result<Content, Malformed> {
        let code = reader.varint()?;
        if code / 2 > reader.remaining() as u64 / 16 {
            return Err(Malformed("a file counts more chunks than it lists"));
        }
        let count = code as usize / 2;
        if code % 2 == 1 {
            return Ok(Content::Recipes((0..count).map(|_| reader.array().map(RecipeId)).collect::<Result<_, _>>()?));
        }
        let mut chunks = Vec::with_capacity(count);
        let mut total = 0u64;
        for _ in 0..count {
            let length = reader.varint_up_to(MAX_PLAIN as u64, "a chunk length is out of range")?;
            total += length;
            chunks.push((length as u32, ChunkId(reader.array()?)));
        }
        if total == size { Ok(Content::Chunks(chunks)) } else { Err(Malformed("a file's chunks do not make its size")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(name: &str, n: u8) -> Entry {
        let content = Content::Chunks(vec![(10, ChunkId([n; 16]))]);
        let node = Node::File { size: 10, consistency: Consistency::Stable, content };
        Entry { name: name.into(), attributes: Attributes { mtime: -5, mtime_nanos: 7, ..Attributes::default() }, node }
    }

    fn tree(entries: &[(&str, u8)]) -> Tree {
        Tree { entries: entries.iter().map(|(name, n)| file(name, *n)).collect() }
    }

    #[test]
    fn trees_round_trip() {
        let mut sample = tree(&[("a", 1), ("b", 2)]);
        sample.entries.push(Entry { name: b"d\xff".to_vec(), node: Node::Directory(TreeId([3; 16])), ..file("", 0) });
        sample.entries.push(Entry { name: b"l".to_vec(), node: Node::Symlink(b"../x".to_vec()), ..file("", 0) });
        let content = Content::Recipes(vec![RecipeId([4; 16])]);
        let node = Node::File { size: 1 << 30, consistency: Consistency::Transaction, content };
        sample.entries.push(Entry { name: b"z".to_vec(), node, ..file("", 0) });
        assert_eq!(Tree::decode(&sample.encode()), Ok(sample));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0b"] {
            assert!(Tree::decode(&tree(&[(name, 1)]).encode()).is_err(), "{name:?}");
        }
        assert!(Tree::decode(&tree(&[("a", 1), ("a", 2)]).encode()).is_err(), "twice the same");
        assert!(Tree::decode(&tree(&[("b", 1), ("a", 2)]).encode()).is_err(), "out of order");
    }

    #[test]
    fn patches_lead_from_one_to_the_other() {
        let (old, new) = (tree(&[("a", 1), ("b", 2), ("c", 3)]), tree(&[("a", 1), ("b", 9), ("d", 4)]));
        let patch = new.patch(&old);
        assert_eq!(old.clone().apply(&patch), Ok(new));
    }

    proptest! {
        #[test]
        fn any_two_trees_have_a_patch(
            a in prop::collection::btree_map("[a-e]{1,2}", 0u8..4, 0..12),
            b in prop::collection::btree_map("[a-e]{1,2}", 0u8..4, 0..12),
        ) {
            let make = |map: &std::collections::BTreeMap<String, u8>| {
                Tree { entries: map.iter().map(|(k, v)| file(k, *v)).collect() }
            };
            let (a, b) = (make(&a), make(&b));
            prop_assert_eq!(a.clone().apply(&b.patch(&a)), Ok(b));
        }

        #[test]
        fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Tree::decode(&bytes);
            let _ = tree(&[("a", 1)]).apply(&bytes);
        }
    }
}
