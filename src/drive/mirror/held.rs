//! One pack in memory, of which every byte is proven before it goes anywhere.
//!
//! It is an object store of one object, so that the reader of packs looks at it as at any other.

use std::sync::Arc;

use crate::crypto::keys::Keys;
use crate::drive::sums::Content;
use crate::error::{Error, Result};
use crate::id::PackId;
use crate::store::objects::{Durable, Key, Kind, Objects};
use crate::store::reader::Packs;

/// `bytes` as the pack `id`, whose place is `place`, if all that is in it opens under `keys`.
pub fn sound(keys: &Arc<Keys>, id: PackId, bytes: Vec<u8>, place: String) -> Result<Arc<Held>> {
    let held = Arc::new(Held { bytes, place });
    let packs = Packs::new(held.clone(), keys.clone());
    let pack = packs.read(id)?;
    (0..pack.footer.segments.len()).try_for_each(|number| packs.coded(&pack, number).map(drop))?;
    Ok(held)
}

/// One pack in memory.
pub struct Held {
    /// Its bytes.
    pub bytes: Vec<u8>,
    place: String,
}

impl Content for Held {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.bytes.read_at(offset, buffer)
    }
}

impl Objects for Held {
    fn put(&self, _: Key, _: &[&[u8]]) -> Result<Durable> {
        Err(Error::failed("a pack that is looked at takes nothing"))
    }

    fn get_range(&self, key: Key, offset: u64, length: usize) -> Result<Vec<u8>> {
        let bytes = self.bytes.get(offset as usize..).and_then(|rest| rest.get(..length));
        let short = || Error::integrity("a stored object is shorter than it should be").at(self.place(key));
        bytes.map(<[u8]>::to_vec).ok_or_else(short)
    }

    fn size(&self, _: Key) -> Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn list(&self, _: Kind) -> Result<Vec<[u8; 16]>> {
        Ok(Vec::new())
    }

    fn delete(&self, _: Key) -> Result<()> {
        Ok(())
    }

    fn place(&self, _: Key) -> String {
        self.place.clone()
    }
}
