//! One pack in memory, of which every byte is proven before it goes anywhere; or its ends, for a look at its footer.
//!
//! It is an object store of one object, so that the reader of packs looks at it as at any other.

use std::sync::Arc;

use crate::crypto::keys::Keys;
use crate::drive::sums::Content;
use crate::error::{Error, Result};
use crate::id::PackId;
use crate::store::objects::{Durable, Key, Kind, Objects};
use crate::store::pack::{Footer, HEADER, TRAILER, decode_trailer};
use crate::store::reader::Packs;

/// So much of a pack's end is read at first: the reader asks for as much.
const GUESS: u64 = 16 * 1024;
/// A pack of at most so many bytes is read whole: the reader's first look would reach from its end into its head.
const SMALL: u64 = 2 * GUESS;

/// `bytes` as the pack `id`, whose place is `place`, if all that is in it opens under `keys`.
pub fn sound(keys: &Arc<Keys>, id: PackId, bytes: Vec<u8>, place: String) -> Result<Arc<Held>> {
    let held = Arc::new(Held { size: bytes.len() as u64, head: Vec::new(), tail: bytes, place });
    let packs = Packs::new(held.clone(), keys.clone());
    let pack = packs.read(id)?;
    (0..pack.footer.segments.len()).try_for_each(|number| packs.coded(&pack, number).map(drop))?;
    Ok(held)
}

/// The footer of a pack of which only the ends are read.
pub fn footer(keys: &Arc<Keys>, id: PackId, from: &dyn Objects) -> Result<Footer> {
    let key = Key::new(Kind::Pack, id.0);
    let size = from.size(key)?;
    let short = || Error::integrity("a pack is shorter than an empty one").at(from.place(key));
    let body = size.checked_sub((HEADER + TRAILER) as u64).ok_or_else(short)?;
    if size <= SMALL {
        let all = Held { size, head: Vec::new(), tail: from.get(key, SMALL)?, place: from.place(key) };
        return Ok(Packs::new(Arc::new(all), keys.clone()).read(id)?.footer);
    }
    let mut length = body.min(GUESS) as usize + TRAILER;
    let mut tail = from.get_range(key, size - length as u64, length)?;
    let needs = decode_trailer(&tail[length - TRAILER..]).map_err(|why| Error::integrity(why.0).at(from.place(key)))?;
    if needs as u64 <= body && needs + TRAILER > length {
        length = needs + TRAILER;
        tail = from.get_range(key, size - length as u64, length)?;
    }
    let ends = Held { size, head: from.get_range(key, 0, HEADER)?, tail, place: from.place(key) };
    Ok(Packs::new(Arc::new(ends), keys.clone()).read(id)?.footer)
}

/// A pack in memory: all of it, or its ends, which is what its footer is read from.
pub struct Held {
    size: u64,
    head: Vec<u8>,
    /// The end of it; all of it, if `head` is not needed.
    tail: Vec<u8>,
    place: String,
}

impl Held {
    /// Its bytes, as far as they are here: all, for one that [`sound`] made.
    pub fn bytes(&self) -> &[u8] {
        &self.tail
    }
}

impl Content for Held {
    fn size(&self) -> u64 {
        self.tail.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.tail.read_at(offset, buffer)
    }
}

/// A part of `bytes`, which lie at `start` of the object.
fn part(bytes: &[u8], start: u64, offset: u64, length: usize) -> Option<Vec<u8>> {
    let from = usize::try_from(offset.checked_sub(start)?).ok()?;
    bytes.get(from..)?.get(..length).map(<[u8]>::to_vec)
}

impl Objects for Held {
    fn put(&self, _: Key, _: &[&[u8]]) -> Result<Durable> {
        Err(Error::failed("a pack that is looked at takes nothing").at(&self.place))
    }

    fn get_range(&self, _: Key, offset: u64, length: usize) -> Result<Vec<u8>> {
        let tail = part(&self.tail, self.size - self.tail.len() as u64, offset, length);
        let found = tail.or_else(|| part(&self.head, 0, offset, length));
        found.ok_or_else(|| Error::integrity("a stored object is shorter than it should be").at(&self.place))
    }

    fn size(&self, _: Key) -> Result<u64> {
        Ok(self.size)
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
