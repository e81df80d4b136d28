//! Objects in memory, for tests that want a store without a disk.
//!
//! It keeps the same contract as every other implementation, durability aside: it is gone with the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::objects::{Durable, Key, Kind, Objects};
use crate::error::{Error, Result};

/// A map of objects.
#[derive(Default)]
pub struct Memory(Mutex<BTreeMap<Key, Vec<u8>>>);

impl Memory {
    fn map(&self) -> MutexGuard<'_, BTreeMap<Key, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, key: Key, read: impl FnOnce(&Vec<u8>) -> T) -> Result<T> {
        let missing = || Error::integrity("a stored object is missing").at(self.place(key));
        self.map().get(&key).map(read).ok_or_else(missing)
    }

    /// Changes an object's bytes, as rot would.
    pub fn damage(&self, key: Key, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(bytes) = self.map().get_mut(&key) {
            change(bytes);
        }
    }
}

impl Objects for Memory {
    fn put(&self, key: Key, parts: &[&[u8]]) -> Result<Durable> {
        let mut map = self.map();
        if map.contains_key(&key) {
            return Err(Error::failed("an object of this name exists").at(self.place(key)));
        }
        map.insert(key, parts.concat());
        Ok(Durable::promise())
    }

    fn get_range(&self, key: Key, offset: u64, length: usize) -> Result<Vec<u8>> {
        let start = offset as usize;
        let range = self.read(key, |bytes| bytes.get(start..start.saturating_add(length)).map(<[u8]>::to_vec))?;
        range.ok_or_else(|| Error::integrity("a stored object is shorter than it should be").at(self.place(key)))
    }

    fn size(&self, key: Key) -> Result<u64> {
        self.read(key, |bytes| bytes.len() as u64)
    }

    fn list(&self, kind: Kind) -> Result<Vec<[u8; 16]>> {
        Ok(self.map().keys().filter(|key| key.kind == kind).map(|key| key.id).collect())
    }

    fn delete(&self, key: Key) -> Result<()> {
        self.map().remove(&key);
        Ok(())
    }

    fn place(&self, key: Key) -> String {
        format!("memory:{key}")
    }
}

/// Takes every object and keeps none: where a dry run writes to.
pub struct Discard;

impl Objects for Discard {
    fn put(&self, _: Key, _: &[&[u8]]) -> Result<Durable> {
        Ok(Durable::promise())
    }

    fn get_range(&self, key: Key, _: u64, _: usize) -> Result<Vec<u8>> {
        Err(Error::failed("nothing was kept in a dry run").at(self.place(key)))
    }

    fn size(&self, key: Key) -> Result<u64> {
        Err(Error::failed("nothing was kept in a dry run").at(self.place(key)))
    }

    fn list(&self, _: Kind) -> Result<Vec<[u8; 16]>> {
        Ok(Vec::new())
    }

    fn delete(&self, _: Key) -> Result<()> {
        Ok(())
    }

    fn place(&self, key: Key) -> String {
        format!("dry run:{key}")
    }
}
