//! One store, opened: its key slots, its packs, its index.
//!
//! A store exists when it has a key slot. Opening proves the key first: nothing else is looked at, and nothing is
//! written, before a slot has opened.
//!
//! When a vault key is given, a slot that opens without one is not good enough to *write* under: whoever can write to
//! the backup disk could have put it there, together with a master key of their own, and would read every later
//! snapshot. Reading such a store is fine, and says that it is not protected.

use std::collections::BTreeSet;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::head::Head;
use super::history::History;
use super::ledger::{Ledger, is_ledger};
use super::record::Record;
use crate::crypto::keys::Keys;
use crate::crypto::secret::{Credential, Secret};
use crate::crypto::slot::{Method, Slot};
use crate::error::{Error, Result};
use crate::id::{PackId, SlotId, StoreId};
use crate::index::catalog::Catalog;
use crate::index::{Index, WHOLE_PACK};
use crate::store::local::LocalDirectory;
use crate::store::lock::{Deleting, Reading, WriterLock};
use crate::store::memory::Memory;
use crate::store::objects::{Key, Kind, Objects};
use crate::store::reader::Packs;
use crate::store::sink::PackSink;

/// Stands in the folder of a store that is being pulled: keys and packs come one by one.
pub const UNFINISHED: &str = "pull-unfinished";
/// What that means.
pub const UNFINISHED_WHAT: &str =
    "a pull from Google Drive has not ended: newer snapshots, or parts of these, may be missing";
/// What is to be done then.
pub const UNFINISHED_NEXT: &str = "run `nbak gdrive pull` again; `nbak repair index` accepts the store as it is";

/// The most key slots a store may have.
pub const MOST_SLOTS: usize = 64;
/// The largest key slot object, in bytes.
const SLOT_LIMIT: u64 = 1024;
const INDEX: &str = "index.redb";

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading: takes no lock, waits for nobody.
    Read,
    /// Changing: takes the writer's lock, and waits this long for it.
    Write(Duration),
}

/// A store that was opened.
pub struct Store {
    root: PathBuf,
    objects: Arc<dyn Objects>,
    catalog: Catalog,
    history: OnceLock<History>,
    slots: Vec<Slot>,
    damaged_slots: Vec<String>,
    opened_with: SlotId,
    /// Which of the credentials that were given did it; none if it opens for everyone.
    opened_by: Option<usize>,
    master: Secret,
    is_new: bool,
    lock: Option<WriterLock>,
    _reading: Option<Reading>,
}

impl Store {
    /// Opens the store at `root` with any of `credentials`.
    pub fn open(root: &Path, credentials: &[Credential], access: Access) -> Result<Store> {
        let local = LocalDirectory::at(root);
        if !root.join(Kind::Slot.folder()).is_dir() {
            return Err(nothing_opens(root, &local)?);
        }
        let lock = match access {
            Access::Read => None,
            Access::Write(patience) => Some(WriterLock::acquire(root, patience)?),
        };
        Self::open_locked(root, &local, credentials, lock)
    }

    /// Opens the store at `root`, or makes one that opens with the first of `credentials`; with none, it is not
    /// protected.
    pub fn open_or_create(root: &Path, credentials: &[Credential], patience: Duration, now: i64) -> Result<Store> {
        let local = LocalDirectory::at(root);
        if local.list(Kind::Slot)?.is_empty() {
            match nothing_opens(root, &local)? {
                none if none.is_no_store() => {
                    // Before a folder of it is made.
                    credentials.first().map_or(Ok(()), Credential::refuse_placeholder)?;
                    local.create()?;
                }
                error => return Err(error),
            }
        }
        let lock = WriterLock::acquire(root, patience)?;
        let local = local.locked(lock.held(root)?);
        let mut is_new = false;
        if local.list(Kind::Slot)?.is_empty() {
            match nothing_opens(root, &local)? {
                none if none.is_no_store() => is_new = true,
                error => return Err(error),
            }
            let master = Secret::random();
            let slot = Slot::new(StoreId::random(), &master, credentials.first(), now, "first")?;
            let _ = local.put(Key::new(Kind::Slot, slot.id.0), &[slot.bytes()])?;
        }
        let store = Self::assemble(root, Arc::new(local), credentials, Some(lock))?;
        Ok(Store { is_new, ..store })
    }

    /// A store in memory, for a dry run where there is none.
    pub fn in_memory(credentials: &[Credential], now: i64) -> Result<Store> {
        let memory = Memory::default();
        let slot = Slot::new(StoreId::random(), &Secret::random(), credentials.first(), now, "first")?;
        let _ = memory.put(Key::new(Kind::Slot, slot.id.0), &[slot.bytes()])?;
        Self::assemble(Path::new(""), Arc::new(memory), credentials, None)
    }

    fn open_locked(
        root: &Path,
        local: &LocalDirectory,
        credentials: &[Credential],
        lock: Option<WriterLock>,
    ) -> Result<Store> {
        if local.list(Kind::Slot)?.is_empty() {
            return Err(nothing_opens(root, local)?);
        }
        let local = LocalDirectory::at(root);
        let local = match &lock {
            Some(lock) => local.locked(lock.held(root)?),
            None => local,
        };
        Self::assemble(root, Arc::new(local), credentials, lock)
    }

    fn assemble(
        root: &Path,
        objects: Arc<dyn Objects>,
        credentials: &[Credential],
        lock: Option<WriterLock>,
    ) -> Result<Store> {
        let (slots, damaged_slots) = read_slots(&*objects)?;
        let (at, opened_by, master) =
            open_slot(&slots, credentials).ok_or_else(|| refusal(root, &slots, &damaged_slots, credentials))?;
        let opened_with = slots[at].id;
        if lock.is_some() {
            hold_to_key(root, &slots[at], credentials)?;
        }
        let keys = Arc::new(Keys::new(slots[at].store, &master));
        let packs = Packs::new(objects.clone(), keys);
        // Before the first look at what packs there are.
        let reading = (lock.is_none() && !root.as_os_str().is_empty()).then(|| Reading::begin(root)).flatten();
        let index_path = root.join(INDEX);
        if let Some(lock) = &lock {
            lock.sign();
            WriterLock::make_for_readers(root);
            let local = LocalDirectory::at(root);
            local.create()?;
            local.sweep()?;
        }
        let mut index = Index::open(&index_path, &packs, lock.is_some())?;
        if lock.is_none() && !index.is_current() && !root.as_os_str().is_empty() {
            // Bring the file up to date for everyone, if nobody is writing just now; else go on with what is in memory.
            if let Some(_lock) = WriterLock::for_a_moment(root) {
                drop(index);
                drop(Index::open(&index_path, &packs, true)?);
                index = Index::open(&index_path, &packs, false)?;
            }
        }
        let catalog = Catalog::new(packs, index);
        let root = root.to_path_buf();
        Ok(Store {
            root,
            objects,
            catalog,
            history: OnceLock::new(),
            slots,
            damaged_slots,
            opened_with,
            opened_by,
            master,
            is_new: false,
            lock,
            _reading: reading,
        })
    }

    /// Whether it is open for writing: nobody else changes it.
    pub fn is_writable(&self) -> bool {
        self.lock.is_some() || self.root.as_os_str().is_empty()
    }

    /// Whether opening it made it.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its packs and index.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Its packs and index, to bring the index up to date.
    pub fn catalog_mut(&mut self) -> &mut Catalog {
        self.history = OnceLock::new();
        &mut self.catalog
    }

    /// Its objects.
    pub fn objects(&self) -> &Arc<dyn Objects> {
        &self.objects
    }

    /// Its id.
    pub fn id(&self) -> StoreId {
        self.catalog.packs().keys().store()
    }

    /// Its key slots.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Key slots that could not be read, and why.
    pub fn damaged_slots(&self) -> &[String] {
        &self.damaged_slots
    }

    /// Which of the credentials that were given opened it; none if anyone can.
    pub fn opened_by(&self) -> Option<usize> {
        self.opened_by
    }

    /// The slot that it was opened with.
    pub fn opened_with(&self) -> SlotId {
        self.opened_with
    }

    /// Whether somebody without a key can read it.
    pub fn is_unprotected(&self) -> bool {
        self.slots.iter().any(|slot| slot.method == Method::Open)
    }

    /// Fails where opening it for writing with `credentials` would: for a dry run, which must not promise what the real
    /// one refuses.
    pub fn would_take(&self, credentials: &[Credential]) -> Result<()> {
        match self.slots.iter().find(|slot| slot.id == self.opened_with) {
            Some(slot) => hold_to_key(&self.root, slot, credentials),
            None => Ok(()),
        }
    }

    /// All snapshots that were not forgotten, oldest first.
    pub fn records(&self) -> Result<Vec<Record>> {
        Ok(self.history()?.live().cloned().collect())
    }

    /// What the next snapshot follows on.
    pub fn head(&self) -> Result<Head> {
        match Head::noted(self.catalog.index(), self.catalog.packs().keys()) {
            Some(head) => Ok(head),
            None => Ok(Head::of(self.history()?)),
        }
    }

    /// Notes what the next snapshot follows on, for the packs that there are now.
    pub fn leave_head(&mut self, head: &Head) {
        let keys = self.catalog.packs().keys().clone();
        head.leave_note(self.catalog_mut().index_mut(), &keys);
    }

    /// All snapshots that the packs have records of, and what the ledger says of them.
    pub fn history(&self) -> Result<&History> {
        if let Some(history) = self.history.get() {
            return Ok(history);
        }
        let place = |pack: PackId| self.objects.place(Key::new(Kind::Pack, pack.0));
        let history = History::read(&self.catalog, &place)?;
        Ok(self.history.get_or_init(|| history))
    }

    /// Makes `ledger` the one that counts, durably: a pack of its own, without segments.
    pub fn put_ledger(&mut self, mut ledger: Ledger) -> Result<()> {
        ledger.generation = self.history()?.next_generation();
        let sink = PackSink::new(self.objects.clone(), self.catalog.packs().keys().clone());
        let stored = sink.flush()?.commit_all(ledger.encode())?;
        self.catalog_mut().index_mut().add(&stored);
        Ok(())
    }

    /// Begins to delete packs, if nobody reads the store for a moment within `patience`; else answers who does, as far
    /// as that can be told. A store in memory has nobody else.
    pub fn begin_deleting(&self, patience: Duration) -> Result<std::result::Result<Option<Deleting>, Vec<u32>>> {
        if self.root.as_os_str().is_empty() {
            return Ok(Ok(None));
        }
        Ok(Deleting::begin(&self.root, patience)?.map(Some))
    }

    /// Bytes that are free where it lies, if that can be told.
    pub fn free_space(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.root).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// A digest of what `stat` says of the packs with a number below `most`: it differs when one of them was written to
    /// or replaced. Nothing where that cannot be told.
    pub fn stamps_of_packs(&self, most: u32) -> Option<[u8; 16]> {
        if self.root.as_os_str().is_empty() {
            return None;
        }
        let stamps = LocalDirectory::at(&self.root).stamps(&self.catalog.index().numbered(most)).ok()?;
        Some(self.catalog.packs().keys().walk_digest(std::iter::once(stamps)))
    }

    /// How many packs were counted so far, and what [`Store::stamps_of_packs`] says of them.
    pub fn stamped(&self) -> Option<(u32, [u8; 16])> {
        let most = self.catalog.index().counted();
        Some((most, self.stamps_of_packs(most)?))
    }

    /// Whether not all that Google Drive has of it has come yet: there may be newer snapshots.
    pub fn awaits_pull(&self) -> bool {
        !self.root.as_os_str().is_empty() && self.root.join(UNFINISHED).exists()
    }

    /// The same, in words, with what is to be done.
    pub fn unfinished(&self) -> Option<String> {
        self.awaits_pull().then(|| format!("{UNFINISHED_WHAT} ({UNFINISHED_NEXT})"))
    }

    /// What the store had and has no longer, in words; nothing if all is there.
    pub fn losses(&self) -> Option<String> {
        let index = self.catalog.index();
        let number = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
        let of_snapshots = |records: &[Vec<u8>]| records.iter().filter(|record| !is_ledger(record)).count();
        let (packs, records) = index.lost().fold((0, 0), |(n, m), (_, records)| (n + 1, m + of_snapshots(records)));
        let mut all = Vec::new();
        all.extend(index.lost_all().then(|| "all packs that it had once are gone, with all snapshots".to_owned()));
        if packs > 0 {
            let snapshots = number(records, "snapshot", "snapshots");
            let verb = if packs == 1 { "is" } else { "are" };
            all.push(format!("{} that it had {verb} gone, and {snapshots} with that", number(packs, "pack", "packs")));
        }
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Remembers which segments a check found damaged, so that the next snapshot stores again what is at hand of them.
    /// `read` are the packs that were looked at. If somebody is writing, that is left to the next check.
    pub fn remember_damaged(&mut self, read: &BTreeSet<PackId>, found: &BTreeSet<(PackId, u32)>) {
        let known = self.catalog.index().damaged();
        // Footers were read again, all of them.
        let stays = |(pack, number): &&(PackId, u32)| *number != WHOLE_PACK && !read.contains(pack);
        let mut damaged: BTreeSet<_> = known.iter().filter(stays).copied().collect();
        damaged.extend(found);
        if self.lock.is_some() {
            self.catalog_mut().index_mut().remember_damaged(damaged);
        } else if let Some(_lock) = WriterLock::for_a_moment(&self.root) {
            self.catalog.index_mut().remember_damaged(damaged);
        }
    }

    /// Adds a key slot for `credential`.
    pub fn add_slot(&mut self, credential: &Credential, now: i64, label: &str) -> Result<SlotId> {
        if self.slots.len() >= MOST_SLOTS {
            return Err(Error::failed(format!("a store has at most {MOST_SLOTS} key slots")).hint("remove one first"));
        }
        let slot = Slot::new(self.id(), &self.master, Some(credential), now, label)?;
        let _ = self.objects.put(Key::new(Kind::Slot, slot.id.0), &[slot.bytes()])?;
        self.slots.push(slot);
        Ok(self.slots[self.slots.len() - 1].id)
    }

    /// Removes a key slot; never the one that the store was opened with, which is the only one known to open (I7).
    pub fn remove_slot(&mut self, id: SlotId) -> Result<()> {
        let at = self.slots.iter().position(|slot| slot.id == id);
        let at = at.ok_or_else(|| Error::usage(format!("there is no key slot {id}")).hint("see `nbak key list`"))?;
        if id == self.opened_with {
            return Err(Error::usage(
                "this key slot is the one that opened the store: without it, nothing may open it again",
            )
            .hint("open the store with the key that is to stay, or use `nbak key rotate`"));
        }
        // Noted first: a copy of the store elsewhere must not be opened by it either.
        retire(&self.root, id)?;
        self.objects.delete(Key::new(Kind::Slot, id.0))?;
        self.slots.remove(at);
        Ok(())
    }

    /// Puts a slot for `credential` in the place of the one that the store was opened with, by one of `given`, and of
    /// every unprotected one. The new slot is durable before an old one goes (I7).
    ///
    /// A key may have several slots: it was added twice, or a rotation was killed and run again. All of the old key's
    /// go, else it would open the store still; and all others of the new one's, else the next rotation would have to
    /// know of them.
    pub fn rotate_slot(
        &mut self,
        given: &[Credential],
        credential: &Credential,
        now: i64,
        label: &str,
    ) -> Result<SlotId> {
        let opens = |slot: &Slot, credential: &Credential| slot.open(Some(credential)).is_some();
        let used = self.slots.iter().find(|slot| slot.id == self.opened_with);
        let key = used.and_then(|used| given.iter().find(|given| opens(used, given)));
        let old = |slot: &&Slot| {
            slot.id == self.opened_with
                || slot.method == Method::Open
                || key.into_iter().chain([credential]).any(|key| opens(slot, key))
        };
        let old: Vec<SlotId> = self.slots.iter().filter(old).map(|slot| slot.id).collect();
        let new = self.add_slot(credential, now, label)?;
        // Read back and opened before anything goes.
        let bytes = self.objects.get(Key::new(Kind::Slot, new.0), SLOT_LIMIT)?;
        let opens = Slot::parse(&bytes).is_ok_and(|slot| {
            slot.open(Some(credential)).is_some_and(|master| master.expose() == self.master.expose())
        });
        if !opens {
            return Err(Error::integrity("the new key slot does not open; the old ones were kept").at(self.root()));
        }
        self.opened_with = new;
        for id in old {
            self.remove_slot(id).map_err(|error| {
                error.also(format!(
                    "the new key opens the store already, and so does the old one until `nbak key remove {}`, run with \
                     the new key, has succeeded",
                    id.short()
                ))
            })?;
        }
        Ok(new)
    }

    /// Opens a store whose slots are to be changed, also one that is not protected although a key is given.
    pub fn open_for_keys(root: &Path, credentials: &[Credential], patience: Duration) -> Result<Store> {
        match Self::open(root, credentials, Access::Write(patience)) {
            Err(error) if error.is_key() && !credentials.is_empty() => {
                Self::open(root, &[], Access::Write(patience)).map_err(|_| error)
            }
            other => other,
        }
    }
}

/// Nothing is written under a slot that opens without a key when one is given: somebody else may have put it there.
fn hold_to_key(root: &Path, slot: &Slot, credentials: &[Credential]) -> Result<()> {
    if credentials.is_empty() || slot.method != Method::Open {
        return Ok(());
    }
    Err(Error::key("a vault key is given, but this store opens without one")
        .at(root)
        .hint("if you made it so, run `nbak key rotate` to protect it; if not, these key slots are not yours"))
}

fn no_store(root: &Path) -> Error {
    Error::no_store("there is no store here")
        .at(root)
        .hint("`nbak snapshot` makes one; --repo or NBAK_REPO names another place")
}

/// Why there is no key slot: there is no store, or what it had is gone, or has not come yet.
fn nothing_opens(root: &Path, local: &LocalDirectory) -> Result<Error> {
    if root.join(UNFINISHED).exists() {
        return Ok(Error::integrity("a store is being pulled here from Google Drive, and is not complete")
            .at(root)
            .hint("run `nbak gdrive pull` again: it goes on from here; or, to begin a new store, remove this folder"));
    }
    if !local.list(Kind::Pack)?.is_empty() {
        return Ok(keys_are_gone(root));
    }
    // Neither was made before there was a slot. To begin anew here would hide that everything is gone.
    let has_been = root.join(INDEX).exists() || Index::has_notes(&root.join(INDEX));
    Ok(if has_been {
        Error::integrity("a store was here, and its key slots and packs are gone")
            .at(root)
            .hint("bring `keys` and `packs` back from a copy; to begin anew, move this folder away first")
    } else {
        no_store(root)
    })
}

fn keys_are_gone(root: &Path) -> Error {
    Error::integrity("this store has packs but no key slot: without one nothing in it can be read")
        .at(root.join(Kind::Slot.folder()))
        .hint("bring the folder back from a copy of the store")
}

fn read_slots(objects: &dyn Objects) -> Result<(Vec<Slot>, Vec<String>)> {
    let (mut slots, mut damaged) = (Vec::new(), Vec::new());
    let mut ids = objects.list(Kind::Slot)?;
    ids.sort_unstable();
    for id in ids.into_iter().take(4 * MOST_SLOTS) {
        let key = Key::new(Kind::Slot, id);
        let parsed = objects.get(key, SLOT_LIMIT).map_err(|e| e.to_string()).and_then(|bytes| {
            let slot = Slot::parse(&bytes).map_err(|e| format!("{}: {e}", objects.place(key)))?;
            if slot.id.0 == id { Ok(slot) } else { Err(format!("{}: it has another slot's name", objects.place(key))) }
        });
        match parsed {
            Ok(slot) => slots.push(slot),
            Err(why) => damaged.push(why),
        }
    }
    slots.sort_by_key(|slot| slot.created);
    Ok((slots, damaged))
}

/// The slot that opens, and what was in it. Slots that a key opens come before those that anyone opens.
fn open_slot(slots: &[Slot], credentials: &[Credential]) -> Option<(usize, Option<usize>, Secret)> {
    for method in [Method::VaultKey, Method::Passphrase] {
        for (by, credential) in credentials.iter().enumerate() {
            for (at, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.method == method) {
                if let Some(master) = slot.open(Some(credential)) {
                    return Some((at, Some(by), master));
                }
            }
        }
    }
    let at = slots.iter().position(|slot| slot.method == Method::Open)?;
    Some((at, None, slots[at].open(None)?))
}

fn refusal(root: &Path, slots: &[Slot], damaged: &[String], credentials: &[Credential]) -> Error {
    if slots.is_empty() {
        let error = Error::integrity(format!("no key slot can be read: {}", damaged.join("; "))).at(root);
        return error.hint("bring the folder `keys` back from a copy of the store");
    }
    let error = if credentials.is_empty() {
        Error::key("this store is protected, and no key was given")
    } else {
        Error::key("the key does not open this store")
    };
    let error = error.at(root).hint(
        "set NODYN_VAULT_KEY (or LYNOX_VAULT_KEY), or give --vault-key-file, --vault-key-command or --passphrase-file",
    );
    if damaged.is_empty() {
        error
    } else {
        error.because(format!("besides, a key slot is damaged: {}", damaged.join("; ")))
    }
}

/// The file that names the key slots that were removed, one on a line.
const RETIRED: &str = "retired-keys";

/// The key slots that were removed from the store at `root`.
pub fn retired(root: &Path) -> Vec<SlotId> {
    let text = std::fs::read_to_string(root.join(RETIRED)).unwrap_or_default();
    text.lines().filter_map(|line| SlotId::parse(line.trim()).ok()).collect()
}

fn retire(root: &Path, id: SlotId) -> Result<()> {
    let path = root.join(RETIRED);
    let failed = |error| Error::io("note that a key slot is removed", &path, error);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
    std::io::Write::write_all(&mut file, format!("{id}\n").as_bytes()).map_err(failed)?;
    file.sync_data().map_err(failed)
}
