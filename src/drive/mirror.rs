//! The store in Drive: its objects, through the storage seam, so that what is pushed can be pulled on another machine.
//!
//! `nbak-stores/<store>/packs/…` and `keys/…`, each object under its own name. Objects never change, so a name that is
//! there with the same size need not be sent again. What goes there, and comes back, is [`push`] and [`pull`].
//!
//! Two machines that begin at the same moment may make a folder twice. Then what is in both counts, and what is new
//! goes to the first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::api::Drive;
use super::owner::{Owner, machine};
use super::remote::Remote;
use super::sessions::Sessions;
use super::sums::{Content, Sums};
use super::upload::{Job, upload};
use crate::error::{Error, Result};
use crate::id::{SlotId, StoreId};
use crate::store::objects::{Durable, Key, Kind, Objects};

mod held;
pub mod pull;
pub mod push;

/// The folder of all stores.
const TOP: &str = "nbak-stores";

/// The objects of one store in Drive.
pub struct DriveObjects<'a> {
    drive: &'a Drive,
    sessions: &'a Sessions,
    store: String,
    /// Whose it is, noted with its folder when that is made.
    own: &'a Owner,
    /// By kind: the folder, and what is in it by id.
    folders: [Mutex<Folder>; 2],
    /// Key slots of which a note says that they were removed.
    retired: Mutex<BTreeSet<[u8; 16]>>,
}

/// How the name of such a note ends.
const RETIRED: &str = ".retired";

struct Folder {
    /// None if there is none yet.
    id: Option<String>,
    objects: BTreeMap<[u8; 16], Vec<Remote>>,
}

fn place_of(kind: Kind) -> usize {
    match kind {
        Kind::Slot => 0,
        Kind::Pack => 1,
    }
}

/// The folders called `name` in those called `parents`.
fn folders(drive: &Drive, parents: &[String], name: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for parent in parents {
        let named = drive.named(parent, name)?;
        found.extend(named.into_iter().filter(|one| one.is_folder).map(|folder| folder.id));
    }
    Ok(found)
}

impl<'a> DriveObjects<'a> {
    /// The objects of the store `id`, which may not be there yet: then it is made as one of `own`.
    pub fn open(drive: &'a Drive, sessions: &'a Sessions, own: &'a Owner, id: StoreId) -> Result<DriveObjects<'a>> {
        let store = id.to_string();
        let tops = folders(drive, &["root".to_owned()], TOP)?;
        let roots = folders(drive, &tops, &store)?;
        let retired = Mutex::new(BTreeSet::new());
        let open = |kind: Kind| -> Result<Mutex<Folder>> {
            let ids = folders(drive, &roots, kind.folder())?;
            let mut objects: BTreeMap<[u8; 16], Vec<Remote>> = BTreeMap::new();
            for id in &ids {
                // What is not named like an object is not ours.
                for remote in drive.children(id)?.into_iter().filter(|remote| !remote.is_folder) {
                    if let Ok(name) = SlotId::parse(&remote.name) {
                        objects.entry(name.0).or_default().push(remote);
                    } else if let Some(Ok(name)) = remote.name.strip_suffix(RETIRED).map(SlotId::parse) {
                        retired.lock().unwrap_or_else(PoisonError::into_inner).insert(name.0);
                    }
                }
            }
            Ok(Mutex::new(Folder { id: ids.into_iter().next(), objects }))
        };
        let folders = [open(Kind::Slot)?, open(Kind::Pack)?];
        Ok(DriveObjects { drive, sessions, store, own, folders, retired })
    }

    fn folder(&self, kind: Kind) -> MutexGuard<'_, Folder> {
        self.folders[place_of(kind)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder that new objects go to, made if need be. One at a time: two threads would make it twice.
    fn folder_to_fill(&self, kind: Kind) -> Result<String> {
        let mut folder = self.folder(kind);
        if let Some(id) = &folder.id {
            return Ok(id.clone());
        }
        let top = self.drive.folder("root", TOP)?;
        let root = self.drive.folder_noted(&top, &self.store, &self.own.of_store())?;
        let id = self.drive.folder(&root, kind.folder())?;
        folder.id = Some(id.clone());
        Ok(id)
    }

    /// All copies of an object; at least one.
    fn copies(&self, key: Key) -> Result<Vec<Remote>> {
        let found = self.folder(key.kind).objects.get(&key.id).cloned().filter(|copies| !copies.is_empty());
        found.ok_or_else(|| Error::integrity("a stored object is missing").at(self.place(key)))
    }

    /// The ids of one kind, in the order in which they came there.
    fn in_order(&self, kind: Kind) -> Vec<[u8; 16]> {
        let folder = self.folder(kind);
        let first = |copies: &Vec<Remote>| copies.iter().map(|copy| copy.created_ms).min();
        let mut ids: Vec<_> = folder.objects.iter().map(|(id, copies)| (first(copies), *id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// When the newest object came there, in milliseconds since 1970.
    pub fn newest(&self) -> Option<i64> {
        let folder = self.folder(Kind::Pack);
        folder.objects.values().flatten().map(|one| one.created_ms).max()
    }

    /// How many bytes all objects have.
    pub fn size_of_all(&self) -> u64 {
        let of =
            |kind| self.folder(kind).objects.values().filter_map(|copies| copies.first()).map(|one| one.size).sum();
        let (slots, packs): (u64, u64) = (of(Kind::Slot), of(Kind::Pack));
        slots + packs
    }

    /// Whether a copy of this size is there; with `sums`, one that is the same.
    fn holds(&self, key: Key, size: u64, sums: Option<&Sums>) -> bool {
        let is = |copy: &Remote| copy.size == size && sums.is_none_or(|sums| sums.are_of(copy, size));
        self.folder(key.kind).objects.get(&key.id).is_some_and(|copies| copies.iter().any(is))
    }

    /// Where it is, for messages.
    fn root_place(&self) -> String {
        format!("Google Drive: {TOP}/{}", self.store)
    }

    /// Whether a key slot was ever removed there.
    fn has_notes(&self) -> bool {
        !self.retired.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// When an object came there, by Drive's clock.
    fn came(&self, key: Key) -> Option<i64> {
        self.folder(key.kind).objects.get(&key.id)?.iter().map(|one| one.created_ms).max()
    }

    /// Whether a note says that this key slot was removed.
    fn is_retired(&self, id: [u8; 16]) -> bool {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// Removes a key slot, and leaves a note; answers whether it was there.
    fn retire(&self, id: [u8; 16]) -> Result<bool> {
        if !self.is_retired(id) {
            let parent = self.folder_to_fill(Kind::Slot)?;
            let name = format!("{}{RETIRED}", SlotId(id));
            let (content, session) = (Vec::new(), format!("store {}/keys/{name}", self.store));
            let (properties, sums) = (BTreeMap::new(), Sums::of(&content)?);
            let job = Job { key: &session, parent: &parent, name: &name, properties, content: &content, sums: &sums };
            upload(self.drive, self.sessions, &job, &|_| {})?;
            self.retired.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
        let was_there = self.folder(Kind::Slot).objects.contains_key(&id);
        self.delete(Key::new(Kind::Slot, id))?;
        Ok(was_there)
    }

    /// The same, as it is there now.
    fn again(&self) -> Result<DriveObjects<'a>> {
        let id = StoreId::parse(&self.store).map_err(|_| Error::failed("a store has another name"))?;
        DriveObjects::open(self.drive, self.sessions, self.own, id)
    }

    /// Looks once more whether all of `keys` are there: somebody may have thrown them away meanwhile.
    fn require(&self, mut keys: impl Iterator<Item = Key>) -> Result<()> {
        let now = self.again()?;
        match keys.find(|key| !now.folder(key.kind).objects.contains_key(&key.id)) {
            None => Ok(()),
            Some(key) => Err(Error::remote("something went into Google Drive's bin while it was pushed")
                .at(self.place(key))
                .hint("run it again: what lies in the bin counts as not there")),
        }
    }

    /// Puts `content` in the place of what is there under this name, if anything is.
    fn replace(&self, key: Key, content: &dyn Content) -> Result<()> {
        let sums = Sums::of(content)?;
        let parent = self.folder_to_fill(key.kind)?;
        let name = SlotId(key.id).to_string();
        let session = format!("store {}/{key}", self.store);
        let properties = BTreeMap::new();
        let job = Job { key: &session, parent: &parent, name: &name, properties, content, sums: &sums };
        let remote = upload(self.drive, self.sessions, &job, &|_| {})?;
        // Only now: at no time is there none.
        let others = self.folder(key.kind).objects.insert(key.id, vec![remote.clone()]).unwrap_or_default();
        others.iter().filter(|other| other.id != remote.id).try_for_each(|other| self.drive.delete(&other.id))
    }
}

impl Objects for DriveObjects<'_> {
    fn put(&self, key: Key, parts: &[&[u8]]) -> Result<Durable> {
        if self.folder(key.kind).objects.contains_key(&key.id) {
            return Err(Error::failed("a stored object of this name is there already").at(self.place(key)));
        }
        self.replace(key, &Parts(parts))?;
        Ok(Durable::promise())
    }

    fn get_range(&self, key: Key, offset: u64, length: usize) -> Result<Vec<u8>> {
        let remote = self.copies(key)?.swap_remove(0);
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
        Ok(self.copies(key)?.swap_remove(0).size)
    }

    fn list(&self, kind: Kind) -> Result<Vec<[u8; 16]>> {
        Ok(self.folder(kind).objects.keys().copied().collect())
    }

    fn delete(&self, key: Key) -> Result<()> {
        let copies = self.folder(key.kind).objects.remove(&key.id).unwrap_or_default();
        copies.iter().try_for_each(|copy| self.drive.delete(&copy.id))
    }

    /// Any copy that is what Drive says it is.
    fn get(&self, key: Key, limit: u64) -> Result<Vec<u8>> {
        let mut failed = None;
        for copy in self.copies(key)? {
            match self.drive.read_whole(&copy, limit) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => failed = failed.or(Some(error.at(self.place(key)))),
            }
        }
        Err(failed.unwrap_or_else(|| Error::integrity("a stored object is missing").at(self.place(key))))
    }

    fn place(&self, key: Key) -> String {
        format!("{}/{key}", self.root_place())
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
    /// Objects here that are sound, and not what is there under their name: neither was touched.
    pub differ: u64,
    /// Objects that took the place of a copy that was not the same.
    pub replaced: u64,
    /// Objects that were removed there.
    pub removed: u64,
    /// Packs there that are not here, and belong to nobody who is known.
    pub extra: u64,
    /// What is there under a pack's name and cannot be read.
    pub unknown: u64,
    /// Key slots here that another machine removed: they were not pushed.
    pub retired: Vec<SlotId>,
    /// What could not be pulled, and why.
    pub bad: Vec<String>,
    /// Whether some of that is damage, and does not pass.
    pub damaged: bool,
}

/// The stores there, and the machines that they are of, as far as that was noted.
pub fn stores(drive: &Drive) -> Result<BTreeMap<StoreId, String>> {
    let mut found = BTreeMap::new();
    for top in drive.named("root", TOP)?.into_iter().filter(|top| top.is_folder) {
        let folders = drive.children(&top.id)?.into_iter().filter(|child| child.is_folder);
        let owned = |folder: Remote| Some((StoreId::parse(&folder.name).ok()?, machine(&folder.properties)));
        found.extend(folders.filter_map(owned));
    }
    Ok(found)
}
