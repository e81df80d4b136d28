//! Recipes and trees: whole forms, patches, and stored versions that build on each other.
//!
//! The first byte says which of the two, and whether the rest is a whole form with what is to be made of it, or a list
//! of stored versions. The ids that the versions have in the store are made here, so that chains hold together as far
//! as their patches do; a patch whose base is itself gives a ring.

use std::collections::HashSet;
use std::fmt::Debug;

use nbak::codec::Reader;
use nbak::crypto::keys::Keys;
use nbak::id::ChunkId;
use nbak::index::catalog::Catalog;
use nbak::snapshot::meta::{self, Stored, Version, Versioned};
use nbak::snapshot::recipe::Recipe;
use nbak::snapshot::tree::{Node, Tree};
use nbak::store::pack::Footer;
use nbak::store::segment::{Bases, ChunkEntry, Codec, SegmentEntry};

use super::sealed;

/// Stored versions in one input.
const VERSIONS: usize = 12;
/// A form with this bit is stored under an id that is not its own.
const LIES: u8 = 0x80;

pub fn body(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => forms(rest, recipe),
        1 => forms(rest, tree),
        2 => versions(rest, another_recipe),
        _ => versions(rest, another_tree),
    }
}

fn recipe(recipe: &Recipe) {
    let lengths: u64 = (0..recipe.ids.len()).map(|nth| u64::from(recipe.length(nth))).sum();
    assert_eq!(lengths, recipe.size);
}

fn tree(tree: &Tree) {
    for entry in &tree.entries {
        let name = entry.name.as_slice();
        assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0));
        assert_eq!(tree.get(name), Some(entry), "every entry is found by its name, and once");
    }
}

/// One that no input has stored, and that is nearly the same.
fn another_recipe(recipe: &Recipe) -> Option<Recipe> {
    let mut another = recipe.clone();
    another.ids.first_mut()?.0 = *b"stored by nobody";
    Some(another)
}

fn another_tree(tree: &Tree) -> Option<Tree> {
    let mut another = tree.clone();
    let mut entry = tree.entries.first()?.clone();
    // No name comes before it.
    entry.name = vec![1];
    entry.node = Node::Symlink(b"stored by nobody".to_vec());
    another.entries.retain(|other| other.name != entry.name);
    another.entries.insert(0, entry);
    Some(another)
}

/// What is read is written as it was, and fulfils `check`.
fn read<T: Versioned>(bytes: &[u8], check: fn(&T)) -> Option<T> {
    let value = T::read(bytes).ok()?;
    check(&value);
    assert!(value.whole() == bytes, "equal values have equal bytes");
    Some(value)
}

/// If there is a patch from one to the other, it leads there.
fn leads<T: Versioned + PartialEq + Debug>(from: &T, to: &T) {
    if let Some(patch) = to.patch_from(from) {
        assert_eq!(from.clone().patched(&patch).as_ref(), Ok(to));
    }
}

/// A whole form with its length before it, and after it a patch for it, or another whole form.
fn forms<T: Versioned + PartialEq + Debug>(data: &[u8], check: fn(&T)) {
    if let Some(value) = read(data, check) {
        leads(&value, &value);
    }
    let mut reader = Reader::new(data);
    let Some(base) = reader.bytes().ok().and_then(|whole| read(whole, check)) else { return };
    let rest = reader.take(reader.remaining()).expect("that many are left");
    for next in [base.clone().patched(rest).ok(), T::read(rest).ok()].into_iter().flatten() {
        assert_eq!(read(&next.whole(), check).as_ref(), Some(&next), "what a patch makes can be read");
        leads(&base, &next);
        leads(&next, &base);
    }
}

/// One stored version, and what has to come of it: nothing, or its ordinal and value.
struct Made<T> {
    id: ChunkId,
    bytes: Vec<u8>,
    expected: Option<(u64, T)>,
}

fn make<T: Versioned>(keys: &Keys, earlier: &[Made<T>], bytes: &[u8]) -> Made<T> {
    let mut bytes = bytes.to_vec();
    let mut id = ChunkId([0xe0 | earlier.len() as u8; 16]);
    let mut expected = None;
    let lies = bytes.first().is_some_and(|form| form & LIES != 0);
    if lies {
        bytes[0] &= !LIES;
    }
    if bytes.first() == Some(&1)
        && let Some(link) = bytes.get(1).copied()
        && bytes.len() >= 17
    {
        let base = earlier.get(usize::from(link) % (earlier.len() + 1)).map_or(id, |base| base.id);
        bytes[1..17].copy_from_slice(&base.0);
    }
    match Stored::<T>::parse(&bytes) {
        Ok(Stored::Whole(whole)) => expected = T::read(whole).ok().map(|value| (0, value)),
        Ok(Stored::Patch { base, ordinal, patch }) => {
            let base = earlier.iter().find(|made| made.id == base.into()).and_then(|made| made.expected.as_ref());
            expected = base.and_then(|(_, base)| base.clone().patched(patch).ok()).map(|value| (ordinal, value));
        }
        Err(_) => {}
    }
    if lies {
        expected = None;
    } else if let Some((_, value)) = &expected {
        id = value.identify(keys).0.into();
    }
    Made { id, bytes, expected }
}

fn versions<T: Versioned + PartialEq + Debug>(data: &[u8], another: fn(&T) -> Option<T>) {
    let keys = sealed::keys();
    let mut reader = Reader::new(data);
    let mut all: Vec<Made<T>> = Vec::new();
    while let Ok(bytes) = reader.bytes()
        && all.len() < VERSIONS
    {
        let made = make(&keys, &all, bytes);
        if all.iter().all(|other| other.id != made.id) {
            all.push(made);
        }
    }
    if all.is_empty() {
        return;
    }
    let catalog = store(&all);
    for made in &all {
        match (meta::load::<T>(&catalog, T::id_from(made.id.0)), &made.expected) {
            (Ok(version), Some((ordinal, value))) => {
                assert_eq!((version.ordinal, &version.value), (*ordinal, value));
                let before = meta::load_before::<T>(&catalog, version.id).expect("it was loaded a moment ago");
                assert_eq!((before.ordinal, &before.value), (*ordinal, value));
                if let Some(base) = &before.base {
                    let alone = meta::load::<T>(&catalog, base.id).expect("what a base is made of is there");
                    assert_eq!(alone.value, base.value, "the way there gives what its own id gives");
                }
                let next = all.iter().rev().find_map(|made| made.expected.as_ref()).expect("this one has a value");
                for value in [another(value), another(&next.1)].into_iter().flatten() {
                    follow(&catalog, &version, &value);
                    follow(&catalog, &before, &value);
                }
            }
            (Ok(_), None) => panic!("a version is loaded that cannot be made"),
            (Err(error), None) => assert!(error.is_integrity(), "{error}"),
            (Err(error), Some(_)) => panic!("a sound version is not loaded: {error}"),
        }
    }
}

/// All versions as the chunks of one segment.
fn store<T: Versioned>(all: &[Made<T>]) -> Catalog {
    let plain: Vec<u8> = all.iter().flat_map(|made| made.bytes.iter().copied()).collect();
    let stored = plain.len() as u32 + 16;
    let chunks = all.iter().map(|made| ChunkEntry { id: made.id, length: made.bytes.len() as u32 }).collect();
    let (content, codec, bases) = (T::CONTENT, Codec::Raw, Bases::new());
    let segment = SegmentEntry { offset: 74, stored, plain: stored - 16, content, codec, depth: 0, bases, chunks };
    let footer = Footer { segments: vec![segment], records: Vec::new() }.encode().expect("a footer of one segment");
    sealed::catalog(sealed::pack(&footer, &[stored], &plain))
}

/// The version that a snapshot would store after `before` can be loaded again.
fn follow<T: Versioned + PartialEq + Debug>(catalog: &Catalog, before: &Version<T>, value: &T) {
    let (id, prepared) = meta::prepare(catalog, &mut HashSet::new(), value, Some(before), true);
    assert!(id == value.identify(catalog.packs().keys()).0);
    let Some(bytes) = prepared else { return };
    match Stored::<T>::parse(&bytes).expect("what was just made is well-formed") {
        Stored::Whole(whole) => assert_eq!(whole, value.whole()),
        Stored::Patch { base, patch, .. } => {
            let base = meta::load::<T>(catalog, base).expect("a patch is made against what can be loaded");
            assert_eq!(base.value.patched(patch).as_ref(), Ok(value));
        }
    }
}
