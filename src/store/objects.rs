//! The storage seam.
//!
//! Nothing above it needs append, rename or a shared lock file, so that an object store fits behind it as well as a
//! directory does.

use std::fmt;

use crate::error::Result;

/// What an object is; decides where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A key slot.
    Slot,
    /// A pack.
    Pack,
}

impl Kind {
    /// The folder, or prefix, that objects of this kind live under.
    pub fn folder(self) -> &'static str {
        match self {
            Kind::Slot => "keys",
            Kind::Pack => "packs",
        }
    }
}

/// The name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// Which one.
    pub id: [u8; 16],
}

impl Key {
    /// The object of `kind` with this id.
    pub fn new(kind: Kind, id: [u8; 16]) -> Self {
        Key { kind, id }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.kind.folder())?;
        self.id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Proof that an object was put and is durable. Only a [`Objects::put`] that succeeded makes one.
#[derive(Debug)]
#[must_use]
pub struct Durable(());

impl Durable {
    /// For implementations of [`Objects`], when the object is durable.
    pub(crate) fn promise() -> Self {
        Durable(())
    }
}

/// A place that holds objects.
///
/// Contract, which `tests/suite/objects.rs` holds every implementation to:
/// - An object appears whole or not at all (I2), under its final name, and never changes (I3).
/// - When `put` returns, the object and its name survive a power loss. When it fails, nothing is visible; a failed put
///   is tried again under another name only, since a sync that failed once may report success the second time.
/// - `list` shows every object whose put returned; objects whose put is under way may be missing.
/// - `delete` of an object that is not there succeeds. It needs no free space.
/// - Errors: a missing object is an integrity error (somebody was told that it is there), everything else is a
///   failure; both name the object's place.
pub trait Objects: Send + Sync {
    /// Stores `parts`, joined, as the object `key`, which must not exist.
    fn put(&self, key: Key, parts: &[&[u8]]) -> Result<Durable>;

    /// Reads `length` bytes from `offset` on. Fewer bytes are an integrity error.
    fn get_range(&self, key: Key, offset: u64, length: usize) -> Result<Vec<u8>>;

    /// The object's size in bytes.
    fn size(&self, key: Key) -> Result<u64>;

    /// The ids of all objects of one kind, in no order.
    fn list(&self, kind: Kind) -> Result<Vec<[u8; 16]>>;

    /// Removes an object.
    fn delete(&self, key: Key) -> Result<()>;

    /// Removes objects of one kind. If one cannot be removed the others may be or not.
    fn delete_all(&self, kind: Kind, ids: &[[u8; 16]]) -> Result<()> {
        ids.iter().try_for_each(|id| self.delete(Key::new(kind, *id)))
    }

    /// Takes an object out of the store without deleting it, for people to look at. One that is not there is none.
    fn set_aside(&self, key: Key) -> Result<()> {
        Err(crate::error::Error::failed("there is nowhere to set a damaged object aside").at(self.place(key)))
    }

    /// Where the object lies, for messages.
    fn place(&self, key: Key) -> String;

    /// The whole object, which must not be larger than `limit` bytes.
    fn get(&self, key: Key, limit: u64) -> Result<Vec<u8>> {
        let size = self.size(key)?;
        if size > limit {
            return Err(crate::error::Error::integrity(format!(
                "the object is larger than the {limit} bytes it can have"
            ))
            .at(self.place(key)));
        }
        self.get_range(key, 0, size as usize)
    }
}
