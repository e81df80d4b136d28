//! The store in Drive: its objects, through the storage seam, so that what is pushed can be pulled on another machine.
//!
//! `nbak-stores/<store>/packs/…` and `keys/…`, each object under its own name. Objects never change, so a name that is
//! there need not be sent again. Packs go before key slots, and those with snapshots' records after all others in the
//! order of the records: whatever ends a push, what is there is a store in which every snapshot is whole, or none yet.
//! A pull writes packs first and slots last, so that a half of it is no store that opens.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::api::{Drive, Remote};
use super::backups::{Watch, at_once};
use super::sessions::Sessions;
use super::upload::{Content, Job, sums, upload};
use crate::crypto::slot::{Method, Slot};
use crate::error::{Error, Result};
use crate::id::{SlotId, StoreId};
use crate::store::objects::{Durable, Key, Kind, Objects};
use crate::store::sink::PACK_MOST;

/// The folder of all stores.
const TOP: &str = "nbak-stores";

/// The objects of one store in Drive.
pub struct DriveObjects<'a> {
    drive: &'a Drive,
    sessions: &'a Sessions,
    store: String,
    /// By kind: the folder, and what is in it by id.
    folders: [Mutex<Folder>; 2],
}

struct Folder {
    id: String,
    objects: BTreeMap<[u8; 16], Vec<Remote>>,
}

fn place_of(kind: Kind) -> usize {
    match kind {
        Kind::Slot => 0,
        Kind::Pack => 1,
    }
}

impl<'a> DriveObjects<'a> {
    /// The objects of the store `id`, whose folders are made if they are not there.
    pub fn open(drive: &'a Drive, sessions: &'a Sessions, id: StoreId) -> Result<DriveObjects<'a>> {
        let store = id.to_string();
        let top = drive.folder("root", TOP)?;
        let own = drive.folder(&top, &store)?;
        let open = |kind: Kind| -> Result<Mutex<Folder>> {
            let id = drive.folder(&own, kind.folder())?;
            let mut objects: BTreeMap<[u8; 16], Vec<Remote>> = BTreeMap::new();
            // What is not named like an object is not ours.
            for remote in drive.children(&id)?.into_iter().filter(|remote| !remote.is_folder) {
                if let Ok(name) = SlotId::parse(&remote.name) {
                    objects.entry(name.0).or_default().push(remote);
                }
            }
            Ok(Mutex::new(Folder { id, objects }))
        };
        Ok(DriveObjects { folders: [open(Kind::Slot)?, open(Kind::Pack)?], drive, sessions, store })
    }

    fn folder(&self, kind: Kind) -> std::sync::MutexGuard<'_, Folder> {
        self.folders[place_of(kind)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remote(&self, key: Key) -> Result<Remote> {
        let found = self.folder(key.kind).objects.get(&key.id).and_then(|copies| copies.first().cloned());
        found.ok_or_else(|| Error::integrity("a stored object is missing").at(self.place(key)))
    }
}

impl Objects for DriveObjects<'_> {
    fn put(&self, key: Key, parts: &[&[u8]]) -> Result<Durable> {
        if self.folder(key.kind).objects.contains_key(&key.id) {
            return Err(Error::failed("a stored object of this name is there already").at(self.place(key)));
        }
        let content = Parts(parts);
        let sums = sums(&content)?;
        let parent = self.folder(key.kind).id.clone();
        let name = SlotId(key.id).to_string();
        let session = format!("store {}/{key}", self.store);
        let properties = BTreeMap::new();
        let job = Job { key: &session, parent: &parent, name: &name, properties, content: &content, sums: &sums };
        let remote = upload(self.drive, self.sessions, &job, &|_| {})?;
        self.folder(key.kind).objects.entry(key.id).or_default().push(remote);
        Ok(Durable::promise())
    }

    fn get_range(&self, key: Key, offset: u64, length: usize) -> Result<Vec<u8>> {
        let remote = self.remote(key)?;
        if offset.checked_add(length as u64).is_none_or(|end| end > remote.size) {
            return Err(Error::integrity("a stored object is shorter than it should be").at(self.place(key)));
        }
        let mut bytes = Vec::with_capacity(length);
        self.drive.read(&remote, offset, length as u64, &mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn size(&self, key: Key) -> Result<u64> {
        Ok(self.remote(key)?.size)
    }

    fn list(&self, kind: Kind) -> Result<Vec<[u8; 16]>> {
        Ok(self.folder(kind).objects.keys().copied().collect())
    }

    fn delete(&self, key: Key) -> Result<()> {
        let copies = self.folder(key.kind).objects.remove(&key.id).unwrap_or_default();
        copies.iter().try_for_each(|copy| self.drive.delete(&copy.id))
    }

    fn place(&self, key: Key) -> String {
        format!("Google Drive: {TOP}/{}/{key}", self.store)
    }
}

/// Parts that are uploaded as one, where they lie.
struct Parts<'a>(&'a [&'a [u8]]);

impl Content for Parts<'_> {
    fn size(&self) -> u64 {
        self.0.iter().map(|part| part.len() as u64).sum()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let (mut skip, mut done) = (offset as usize, 0);
        for part in self.0 {
            let from = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            let length = from.len().min(buffer.len() - done);
            buffer[done..done + length].copy_from_slice(&from[..length]);
            done += length;
        }
        Ok(())
    }
}

/// What a push or a pull did.
#[derive(Debug, Default)]
pub struct Moved {
    /// Objects that went.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were there already.
    pub kept: u64,
}

/// The stores there.
pub fn stores(drive: &Drive) -> Result<Vec<StoreId>> {
    let mut found = Vec::new();
    for top in drive.named("root", TOP)?.into_iter().filter(|top| top.is_folder) {
        let folders = drive.children(&top.id)?.into_iter().filter(|child| child.is_folder);
        found.extend(folders.filter_map(|folder| StoreId::parse(&folder.name).ok()));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Copies what `to` has not yet: packs with `data` alone, then those with `records`, in their order, each after the one
/// before; then the key slots, none of which may be one that anybody opens. As long as there is no slot no order is
/// needed: then nobody opens what is there.
pub fn push(
    from: &dyn Objects,
    to: &DriveObjects<'_>,
    data: &[[u8; 16]],
    records: &[[u8; 16]],
    watch: Watch<'_>,
) -> Result<Moved> {
    let slots = from.list(Kind::Slot)?;
    for id in &slots {
        let key = Key::new(Kind::Slot, *id);
        let slot = Slot::parse(&from.get(key, 64 * 1024)?)
            .map_err(|error| Error::integrity(error.to_string()).at(from.place(key)))?;
        if slot.method == Method::Open {
            return Err(Error::key(
                "this store is not protected: who reads it in Google Drive could read all that is in it",
            )
            .hint("set NODYN_VAULT_KEY, run `nbak key rotate`, then push"));
        }
    }
    let mut moved = Moved::default();
    copy_all(from, to, Kind::Pack, data, &mut moved, watch)?;
    let together = if to.list(Kind::Slot)?.is_empty() { records.len().max(1) } else { 1 };
    for some in records.chunks(together) {
        copy_all(from, to, Kind::Pack, some, &mut moved, watch)?;
    }
    copy_all(from, to, Kind::Slot, &slots, &mut moved, watch)?;
    // A slot that was removed here must not open the copy there.
    for id in to.list(Kind::Slot)?.into_iter().filter(|id| !slots.contains(id)) {
        to.delete(Key::new(Kind::Slot, id))?;
    }
    Ok(moved)
}

/// Copies what `to` has not yet: packs, then key slots.
pub fn pull(from: &DriveObjects<'_>, to: &dyn Objects, watch: Watch<'_>) -> Result<Moved> {
    let mut moved = Moved::default();
    let packs = from.list(Kind::Pack)?;
    let slots = from.list(Kind::Slot)?;
    if slots.is_empty() {
        return Err(Error::no_store("that store in Google Drive has no keys: its first push did not end"));
    }
    copy_all(from, to, Kind::Pack, &packs, &mut moved, watch)?;
    copy_all(from, to, Kind::Slot, &slots, &mut moved, watch)?;
    Ok(moved)
}

fn copy_all(
    from: &dyn Objects,
    to: &dyn Objects,
    kind: Kind,
    ids: &[[u8; 16]],
    moved: &mut Moved,
    watch: Watch<'_>,
) -> Result<()> {
    let there: std::collections::BTreeSet<[u8; 16]> = to.list(kind)?.into_iter().collect();
    let missing: Vec<[u8; 16]> = ids.iter().copied().filter(|id| !there.contains(id)).collect();
    moved.kept += (ids.len() - missing.len()) as u64;
    let bytes = std::sync::atomic::AtomicU64::new(0);
    at_once(&missing, &|id| {
        let key = Key::new(kind, *id);
        let content = from.get(key, PACK_MOST)?;
        let durable = to.put(key, &[&content])?;
        drop(durable);
        bytes.fetch_add(content.len() as u64, std::sync::atomic::Ordering::Relaxed);
        watch(content.len() as u64);
        Ok(())
    })?;
    moved.objects += missing.len() as u64;
    moved.bytes += bytes.into_inner();
    Ok(())
}
