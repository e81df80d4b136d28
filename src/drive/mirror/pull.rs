//! What Drive has of a store, and this machine has not.
//!
//! Packs come first and slots last, so that half a pull is no store that opens. Into a store that opens already packs
//! come one by one, in the order in which they went there: then every snapshot that is seen is whole; slots do not,
//! since one that was removed here would come back. What cannot be pulled is named, and keeps nothing else back.
//!
//! What comes is compared with the checksum that Drive has for it, and with the header that such an object has; with
//! the store's keys at hand, all of it must open: they come from the slots there, which are looked at first. What is
//! here is compared too. What differs is set aside, for people to look at, and fetched; but what is here and opens
//! stays, whatever is there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::held::sound;
use super::push::SLOT_MOST;
use super::{DriveObjects, Moved};
use crate::crypto::keys::Keys;
use crate::crypto::secret::Credential;
use crate::crypto::slot::{Method, Slot};
use crate::drive::backups::{Watch, at_once};
use crate::drive::sums::Sums;
use crate::error::{Error, Result};
use crate::id::{PackId, SlotId, StoreId};
use crate::store::objects::{Key, Kind, Objects};
use crate::store::pack::{HEADER, Header};
use crate::store::sink::PACK_MOST;

/// So much of what fails for another reason than damage is gone past.
const FAILURES_MOST: usize = 3;

/// Where to.
pub struct Onto<'a> {
    /// What is here of the store.
    pub objects: &'a dyn Objects,
    /// Its keys, if they are at hand.
    pub keys: Option<&'a Arc<Keys>>,
    /// Whether it opens, and may be in use.
    pub opens: bool,
    /// Whether it is the beginning of an earlier pull, and nothing else.
    pub begins: bool,
    /// Key slots that were removed here: they do not come back.
    pub retired: Vec<SlotId>,
}

/// Whether there is something to pull, and the store's keys, if one of `credentials` opens it. Nothing is made here,
/// and little comes.
pub fn look(from: &DriveObjects<'_>, id: StoreId, credentials: &[Credential]) -> Result<Option<Arc<Keys>>> {
    let slots = from.in_order(Kind::Slot);
    if slots.is_empty() {
        let what = if from.has_notes() {
            "that store in Google Drive has no key any more: all were removed, by several machines"
        } else {
            "that store in Google Drive has no keys: its first push did not end, or they lie in the bin"
        };
        return Err(Error::no_store(what)
            .at(from.root_place())
            .hint("a machine that has the store pushes its key again"));
    }
    if from.in_order(Kind::Pack).is_empty() {
        return Err(Error::integrity("that store in Google Drive has keys and no packs: nothing is in it")
            .at(from.root_place())
            .hint("look in Google Drive's bin"));
    }
    let (mut opens, mut unread) = (None, false);
    for slot in slots {
        let key = Key::new(Kind::Slot, slot);
        // What is wrong with one is named when it is to come.
        let bytes = from.get(key, SLOT_MOST).ok().filter(|bytes| belongs(bytes, id, key).is_ok());
        let Some(slot) = bytes.and_then(|bytes| Slot::parse(&bytes).ok()) else {
            unread = true;
            continue;
        };
        let by = |credential: &Credential| slot.open(Some(credential));
        opens = opens.or_else(|| credentials.iter().find_map(by));
    }
    match opens {
        Some(master) => Ok(Some(Arc::new(Keys::new(id, &master)))),
        // It comes all the same, to be opened later, or when the slot that is bad has come.
        None if credentials.is_empty() || unread => Ok(None),
        None => Err(Error::key("the key does not open that store")
            .at(from.root_place())
            .hint("nothing was downloaded; give the key of that store, or none to pull it unopened")),
    }
}

/// Copies what is not yet here of the store `id`.
pub fn pull(from: &DriveObjects<'_>, id: StoreId, onto: &Onto<'_>, watch: Watch<'_>) -> Result<Moved> {
    let Onto { objects: to, keys, opens, begins, .. } = *onto;
    let slots = from.in_order(Kind::Slot);
    let packs = from.in_order(Kind::Pack);
    if begins && !opens {
        // What was removed there since, by a prune, is no part of the store any more.
        let there: BTreeSet<[u8; 16]> = packs.iter().copied().collect();
        for gone in to.list(Kind::Pack)?.into_iter().filter(|id| !there.contains(id)) {
            to.set_aside(Key::new(Kind::Pack, gone))?;
        }
    }
    let moved = Mutex::new(Moved::default());
    let failures = AtomicUsize::new(0);
    // One that is bad keeps no other back.
    let one = |key: Key| match (One { from, id, keys, to, key }.pull(&moved, watch)) {
        Err(error) if error.is_integrity() || error.is_remote() => {
            if error.is_remote() && failures.fetch_add(1, Ordering::Relaxed) >= FAILURES_MOST {
                return Err(error);
            }
            let mut moved = moved.lock().unwrap_or_else(PoisonError::into_inner);
            moved.damaged |= error.is_integrity();
            moved.bad.push(error.to_string());
            Ok(())
        }
        other => other,
    };
    let together = if opens { 1 } else { packs.len().max(1) };
    let pack = |pack: &[u8; 16]| one(Key::new(Kind::Pack, *pack));
    packs.chunks(together).try_for_each(|some| at_once(some, &pack))?;
    // A slot that was removed here does not come back.
    if begins || !opens {
        let is_retired = |slot: &[u8; 16]| onto.retired.contains(&SlotId(*slot)) || from.is_retired(*slot);
        let stay = slots.into_iter().filter(|slot| !is_retired(slot));
        stay.map(|slot| Key::new(Kind::Slot, slot)).try_for_each(one)?;
    }
    Ok(moved.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// One object.
struct One<'a> {
    from: &'a DriveObjects<'a>,
    id: StoreId,
    keys: Option<&'a Arc<Keys>>,
    to: &'a dyn Objects,
    key: Key,
}

impl One<'_> {
    fn pull(&self, moved: &Mutex<Moved>, watch: Watch<'_>) -> Result<()> {
        let (from, to, key) = (self.from, self.to, self.key);
        let note = |what: &dyn Fn(&mut Moved)| what(&mut moved.lock().unwrap_or_else(PoisonError::into_inner));
        let limit = if key.kind == Kind::Slot { SLOT_MOST } else { PACK_MOST };
        let here = match to.size(key) {
            Ok(size) if size <= limit => Some(to.get(key, limit)?),
            Ok(_) => Some(Vec::new()),
            Err(error) if error.is_integrity() => None,
            Err(error) => return Err(error),
        };
        let is_here = here.is_some();
        if let Some(here) = here {
            let length = here.len() as u64;
            let is_same = from.holds(key, length, Some(&Sums::of(&here)?));
            let is_sound = self.is_sound(here);
            if is_same && is_sound == Some(false) {
                return Err(Error::integrity("the copy here is damaged, and the one in Google Drive is the same")
                    .at(to.place(key)));
            }
            if is_same {
                watch(length);
                note(&|moved| moved.kept += 1);
                return Ok(());
            }
            if is_sound == Some(true) {
                watch(length);
                note(&|moved| moved.differ += 1);
                return Ok(());
            }
        }
        let bytes = from.get(key, limit)?;
        belongs(&bytes, self.id, key).map_err(|why| Error::integrity(why).at(from.place(key)))?;
        let length = bytes.len() as u64;
        let put = |bytes: &[u8]| -> Result<()> {
            if is_here {
                to.set_aside(key)?;
            }
            to.put(key, &[bytes]).map(drop)
        };
        match (self.keys, key.kind) {
            (Some(keys), Kind::Pack) => put(sound(keys, PackId(key.id), bytes, from.place(key))?.bytes())?,
            _ => put(&bytes)?,
        }
        watch(length);
        note(&|moved| {
            moved.objects += 1;
            moved.replaced += u64::from(is_here);
            moved.bytes += length;
        });
        Ok(())
    }

    /// Whether this is what the store has under that name; none if that is not known, without the store's keys. A slot
    /// that parses is: it has a checksum.
    fn is_sound(&self, here: Vec<u8>) -> Option<bool> {
        match (self.keys, self.key.kind) {
            (_, Kind::Slot) => Some(belongs(&here, self.id, self.key).is_ok()),
            (Some(keys), Kind::Pack) => Some(sound(keys, PackId(self.key.id), here, String::new()).is_ok()),
            (None, Kind::Pack) => None,
        }
    }
}

/// Whether these are the bytes of that object of that store, as far as its head says.
fn belongs(bytes: &[u8], id: StoreId, key: Key) -> Result<(), String> {
    let (store, own) = match key.kind {
        Kind::Slot => match Slot::parse(bytes) {
            // It was never pushed, and whoever put it there knows the key that is in it.
            Ok(slot) if slot.method == Method::Open => return Err("it opens for everybody".to_owned()),
            Ok(slot) => (slot.store, slot.id.0),
            Err(error) => return Err(error.to_string()),
        },
        Kind::Pack => {
            let header = Header::decode(&bytes[..bytes.len().min(HEADER)]).map_err(|why| why.to_string())?;
            (header.store, header.pack.0)
        }
    };
    if store == id && own == key.id { Ok(()) } else { Err("it is another object than its name says".to_owned()) }
}
