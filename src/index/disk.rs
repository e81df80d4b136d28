//! The index's file, in redb.
//!
//! It is never synced. A process that is killed loses nothing, since what it wrote is in the page cache in order; after
//! a power loss the file may be anything, and so it names the boot it was written in, and is thrown away in another.
//! That saves two syncs a snapshot and costs one rebuild a boot.
//!
//! It is opened for writing only when there is something to write: redb marks the file, and writes to it again when it
//! is closed, even if nothing was stored. Until then it is open for reading alone, also for the holder of the writer's
//! lock.
//!
//! redb may panic on a file that was altered behind its back; every call into it goes through [`guard`], which
//! turns a panic into [`Broken`]. Whoever sees that goes on without the file.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{
    Builder, ConcurrencyMode, Database, Durability, ReadOnlyDatabase, ReadOnlyTable, ReadableDatabase, ReadableTable,
    TableDefinition,
};
use rustix::fs::OFlags;

use super::unsynced::Unsynced;
use super::{Location, Row};
use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::crypto::keys::Keys;
use crate::crypto::seal::RowSealer;
use crate::id::{ChunkId, PackId, SlotId, random_bytes};

/// Chunk id to pack number (upper 32 bits), segment (16) and place in it (16).
const CHUNKS: TableDefinition<'_, u128, u64> = TableDefinition::new("chunks");
const PACKS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("packs");
/// By pack id: the records in it, sealed. Apart from the rest, since a snapshot needs none but the newest.
const RECORDS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("records");
/// Packs that were known and are gone, as they were known.
const LOST: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("lost");
/// By pack id: its salt and its outline, sealed.
const OUTLINES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("outlines");
/// One row: layout, boot, and the id of this very file, sealed.
const HEAD: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("head");
/// The name that the head is sealed under.
const HEAD_NAME: &[u8] = b"head";
/// A larger note is not read, in bytes.
const LARGEST_NOTE: u64 = 1 << 30;
/// Changes when anything here does: a file of another layout is thrown away.
const LAYOUT: &[u8] = b"nbak index 6";
/// redb's own cache, in bytes.
const CACHE: usize = 8 * 1024 * 1024;

/// The file cannot be used: absent, locked, foreign, of an earlier boot, or damaged.
#[derive(Debug)]
pub(super) struct Broken;

impl<E: std::error::Error> From<E> for Broken {
    fn from(_: E) -> Self {
        Broken
    }
}

fn guard<T>(call: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    let quiet = QuietPanics::begin();
    let result = catch_unwind(AssertUnwindSafe(call));
    drop(quiet);
    result.unwrap_or_else(|panic: Box<dyn Any + Send>| {
        drop(panic);
        Err(Broken)
    })
}

thread_local! {
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Keeps the message of a panic that is about to be caught off the user's terminal.
struct QuietPanics;

impl QuietPanics {
    fn begin() -> QuietPanics {
        static HOOK: std::sync::Once = std::sync::Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if !QUIET.get() {
                    before(info);
                }
            }));
        });
        QUIET.set(true);
        QuietPanics
    }
}

impl Drop for QuietPanics {
    fn drop(&mut self) {
        QUIET.set(false);
    }
}

enum Handle {
    Writable(Database),
    ReadOnly(ReadOnlyDatabase),
}

pub(super) struct Disk {
    chunks: Option<ReadOnlyTable<u128, u64>>,
    /// There until it is dropped.
    handle: Option<Handle>,
    rows: RowSealer,
    keys: Arc<Keys>,
    path: PathBuf,
    file_id: [u8; 16],
    /// Whether it may be written.
    writable: bool,
}

impl Drop for Disk {
    /// Closing the file is a call into redb like any other: after a panic in there it panics again.
    fn drop(&mut self) {
        let (chunks, handle) = (self.chunks.take(), self.handle.take());
        let _ = guard(|| {
            drop(chunks);
            Ok(())
        });
        let _ = guard(|| {
            drop(handle);
            Ok(())
        });
    }
}

impl Disk {
    fn new(path: &Path, keys: &Arc<Keys>, handle: Handle, file_id: [u8; 16]) -> Disk {
        let (rows, keys, path) = (RowSealer::new(keys), keys.clone(), path.to_path_buf());
        Disk { chunks: None, handle: Some(handle), rows, keys, path, file_id, writable: false }
    }

    /// Opens an existing file, whatever it says of itself. What may be `writable` later must be a file that lets itself
    /// be written now.
    fn handle(path: &Path, writable: bool, now: bool) -> Result<Handle, Broken> {
        // Neither through a link, which would have another file written, nor on a pipe, which would wait for ever.
        let flags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();
        let file = OpenOptions::new().read(true).write(writable).custom_flags(flags).open(path)?;
        let backend = Unsynced(FileBackend::new(file)?);
        Ok(if writable && now {
            Handle::Writable(builder().create_with_backend(backend)?)
        } else {
            Handle::ReadOnly(builder().open_read_only_with_backend(backend)?)
        })
    }

    /// All packs that the file knows or knew, whatever boot or layout it is of. It may be stale or damaged, but each
    /// row is sealed: such a pack of this store was there once.
    pub(super) fn ever_known(path: &Path, keys: &Arc<Keys>) -> BTreeMap<PackId, Row> {
        let read = || {
            let disk = Disk::new(path, keys, Self::handle(path, false, false)?, [0; 16]);
            let mut rows = disk.table(LOST).unwrap_or_default();
            for (id, row) in disk.table(PACKS)? {
                let records = if row.count > 0 { disk.records(id).unwrap_or_default() } else { Vec::new() };
                rows.insert(id, Row { records, ..row });
            }
            Ok(rows)
        };
        guard(read).unwrap_or_default()
    }

    /// Opens an existing file.
    pub(super) fn open(path: &Path, keys: &Arc<Keys>, writable: bool) -> Result<Disk, Broken> {
        let open = |now: bool| {
            guard(|| {
                let mut disk = Disk::new(path, keys, Self::handle(path, writable, now)?, [0; 16]);
                disk.writable = writable;
                disk.refresh()?;
                let head = disk.head()?;
                let (id, rest) = head.split_first_chunk::<16>().ok_or(Broken)?;
                disk.file_id = *id;
                if rest == layout() { Ok(disk) } else { Err(Broken) }
            })
        };
        // A writer that was killed left it as only a writer can open it.
        open(false).or_else(|broken| if writable { open(true) } else { Err(broken) })
    }

    fn head(&self) -> Result<Vec<u8>, Broken> {
        let sealed = self.read()?.open_table(HEAD)?.get(0)?.ok_or(Broken)?.value().to_vec();
        self.rows.open(HEAD_NAME, &sealed).map_err(|_| Broken)
    }

    /// Opens for writing what is open for reading.
    fn open_to_write(&mut self) -> Result<(), Broken> {
        if !self.writable {
            return Err(Broken);
        }
        if matches!(self.handle, Some(Handle::Writable(_))) {
            return Ok(());
        }
        // redb's locks belong to the descriptor: the reader must be gone first.
        (self.chunks, self.handle) = (None, None);
        match Self::handle(&self.path, true, true) {
            Ok(handle) => self.handle = Some(handle),
            Err(broken) => {
                // It is still good for reading.
                self.handle = Self::handle(&self.path, false, false).ok();
                let _ = self.refresh();
                return Err(broken);
            }
        }
        // Nobody else may write just now. If somebody put another file there all the same, it is not this one.
        if self.head()?.starts_with(&self.file_id) {
            Ok(())
        } else {
            self.handle = None;
            Err(Broken)
        }
    }

    /// Makes a new file in place of whatever is there. It knows nothing yet but what is `lost`.
    pub(super) fn create(path: &Path, keys: &Arc<Keys>, lost: &BTreeMap<PackId, Row>) -> Result<Disk, Broken> {
        let _ = std::fs::remove_file(path);
        guard(|| {
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
            let handle = Handle::Writable(builder().create_with_backend(Unsynced(FileBackend::new(file)?))?);
            let id = random_bytes();
            let mut disk = Disk::new(path, keys, handle, id);
            disk.writable = true;
            disk.write(|transaction, rows| {
                transaction.open_table(CHUNKS)?;
                transaction.open_table(PACKS)?;
                transaction.open_table(RECORDS)?;
                put_lost(transaction, rows, lost)?;
                let head = [id.as_slice(), &layout()].concat();
                transaction.open_table(HEAD)?.insert(0, rows.seal(HEAD_NAME, &head).as_slice())?;
                Ok(())
            })?;
            Ok(disk)
        })
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    fn read(&self) -> Result<redb::ReadTransaction, Broken> {
        Ok(match &self.handle {
            Some(Handle::Writable(database)) => database.begin_read()?,
            Some(Handle::ReadOnly(database)) => database.begin_read()?,
            None => return Err(Broken),
        })
    }

    fn refresh(&mut self) -> Result<(), Broken> {
        self.chunks = Some(self.read()?.open_table(CHUNKS)?);
        Ok(())
    }

    fn write(
        &mut self,
        change: impl FnOnce(&redb::WriteTransaction, &RowSealer) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        self.open_to_write()?;
        let Some(Handle::Writable(database)) = &self.handle else { return Err(Broken) };
        self.chunks = None;
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        change(&transaction, &self.rows)?;
        transaction.commit()?;
        self.refresh()
    }

    pub(super) fn rows(&self) -> Result<BTreeMap<PackId, Row>, Broken> {
        guard(|| self.table(PACKS))
    }

    /// Packs that were known and are gone.
    pub(super) fn lost(&self) -> Result<BTreeMap<PackId, Row>, Broken> {
        guard(|| self.table(LOST))
    }

    /// Makes `lost` all that is gone.
    pub(super) fn set_lost(&mut self, lost: &BTreeMap<PackId, Row>) -> Result<(), Broken> {
        guard(|| {
            self.write(|transaction, rows| {
                transaction.delete_table(LOST)?;
                put_lost(transaction, rows, lost)
            })
        })
    }

    fn table(&self, table: TableDefinition<'_, u128, &'static [u8]>) -> Result<BTreeMap<PackId, Row>, Broken> {
        let mut rows = BTreeMap::new();
        for entry in self.read()?.open_table(table)?.iter()? {
            let (id, sealed) = entry?;
            let id = PackId(id.value().to_be_bytes());
            let plain = self.rows.open(&name_of(id), sealed.value()).map_err(|_| Broken)?;
            rows.insert(id, Row::decode(&plain)?);
        }
        Ok(rows)
    }

    pub(super) fn insert(
        &mut self,
        packs: &[(PackId, Row, Vec<u8>)],
        chunks: impl Iterator<Item = (ChunkId, u64)>,
    ) -> Result<(), Broken> {
        guard(|| {
            self.write(|transaction, rows| {
                let mut table = transaction.open_table(CHUNKS)?;
                for (id, place) in chunks {
                    table.insert(u128::from_be_bytes(id.0), place)?;
                }
                let mut table = transaction.open_table(PACKS)?;
                let mut outlines = transaction.open_table(OUTLINES)?;
                let mut records = transaction.open_table(RECORDS)?;
                for (id, row, outline) in packs {
                    let key = u128::from_be_bytes(id.0);
                    let without = Row { records: Vec::new(), ..row.clone() };
                    table.insert(key, rows.seal(&name_of(*id), &without.encode()).as_slice())?;
                    if !row.records.is_empty() {
                        let sealed = rows.seal(&records_name_of(*id), &encode_records(&row.records));
                        records.insert(key, sealed.as_slice())?;
                    }
                    outlines.insert(key, rows.seal(&outline_name_of(*id), outline).as_slice())?;
                }
                Ok(())
            })
        })
    }

    /// Takes out the packs `gone`, which have these numbers, and those of `chunks` that the file has in one of them;
    /// those of `elsewhere` get their other place.
    pub(super) fn remove(
        &mut self,
        gone: &BTreeSet<PackId>,
        numbers: &HashSet<u32>,
        chunks: &[ChunkId],
        elsewhere: &[(ChunkId, u64)],
    ) -> Result<(), Broken> {
        guard(|| {
            self.write(|transaction, _| {
                let mut table = transaction.open_table(CHUNKS)?;
                for id in chunks {
                    let key = u128::from_be_bytes(id.0);
                    let is_there =
                        table.get(key)?.is_some_and(|place| numbers.contains(&((place.value() >> 32) as u32)));
                    if is_there {
                        table.remove(key)?;
                    }
                }
                for (id, place) in elsewhere {
                    table.insert(u128::from_be_bytes(id.0), *place)?;
                }
                let mut table = transaction.open_table(PACKS)?;
                let mut outlines = transaction.open_table(OUTLINES)?;
                let mut records = transaction.open_table(RECORDS)?;
                for id in gone {
                    let key = u128::from_be_bytes(id.0);
                    table.remove(key)?;
                    outlines.remove(key)?;
                    records.remove(key)?;
                }
                Ok(())
            })
        })
    }

    /// Makes the file as small as it can be, by copying what is in it into a new one, with the same id: what is sealed
    /// under that stays good. If it cannot be done, the file is larger than it need be.
    pub(super) fn shrink(&mut self) {
        let temporary = self.path.with_file_name("tmp").join(SlotId::random().to_string());
        let copied = guard(|| self.copy_to(&temporary));
        if copied.is_err() || std::fs::rename(&temporary, &self.path).is_err() {
            let _ = std::fs::remove_file(&temporary);
            return;
        }
        // The old file has no name any more; the new one is opened in its place.
        (self.chunks, self.handle) = (None, None);
        self.handle = Self::handle(&self.path, true, false).ok();
        let _ = guard(|| self.refresh());
    }

    fn copy_to(&self, path: &Path) -> Result<(), Broken> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let database = builder().create_with_backend(Unsynced(FileBackend::new(file)?))?;
        let (from, mut to) = (self.read()?, database.begin_write()?);
        to.set_durability(Durability::Immediate)?;
        {
            let mut chunks = to.open_table(CHUNKS)?;
            for entry in from.open_table(CHUNKS)?.iter()? {
                let (id, place) = entry?;
                chunks.insert(id.value(), place.value())?;
            }
            for table in [PACKS, RECORDS, LOST, OUTLINES] {
                let mut copy = to.open_table(table)?;
                // One that was never written to is not there.
                let Ok(table) = from.open_table(table) else { continue };
                for entry in table.iter()? {
                    let (id, sealed) = entry?;
                    copy.insert(id.value(), sealed.value())?;
                }
            }
            let mut head = to.open_table(HEAD)?;
            for entry in from.open_table(HEAD)?.iter()? {
                let (id, sealed) = entry?;
                head.insert(id.value(), sealed.value())?;
            }
        }
        to.commit()?;
        Ok(())
    }

    /// The records in a pack that has some.
    pub(super) fn records(&self, id: PackId) -> Option<Vec<Vec<u8>>> {
        let sealed = guard(|| {
            let table = self.read()?.open_table(RECORDS)?;
            Ok(table.get(u128::from_be_bytes(id.0))?.map(|guard| guard.value().to_vec()))
        });
        let plain = self.rows.open(&records_name_of(id), &sealed.ok()??).ok()?;
        decode_records(&mut Reader::new(&plain)).ok()
    }

    /// What was left as the outline of a pack.
    pub(super) fn outline(&self, id: PackId) -> Option<Vec<u8>> {
        let sealed = guard(|| {
            let table = self.read()?.open_table(OUTLINES)?;
            Ok(table.get(u128::from_be_bytes(id.0))?.map(|guard| guard.value().to_vec()))
        });
        self.rows.open(&outline_name_of(id), &sealed.ok()??).ok()
    }

    /// All chunks that the file has in the pack with this number: id, segment, place in it.
    pub(super) fn chunks_in(&self, number: u32) -> Vec<(ChunkId, u32, u32)> {
        let all = guard(|| {
            let mut found = Vec::new();
            for entry in self.chunks.as_ref().ok_or(Broken)?.iter()? {
                let (id, place) = entry?;
                let place = place.value();
                if (place >> 32) as u32 == number {
                    let (segment, nth) = ((place >> 16) as u32 & 0xFFFF, place as u32 & 0xFFFF);
                    found.push((ChunkId(id.value().to_be_bytes()), segment, nth));
                }
            }
            Ok(found)
        });
        all.unwrap_or_default()
    }

    pub(super) fn find(&self, id: ChunkId) -> Option<(u32, u32, u32)> {
        let place = guard(|| {
            let table = self.chunks.as_ref().ok_or(Broken)?;
            Ok(table.get(u128::from_be_bytes(id.0))?.map(|guard| guard.value()))
        });
        place.ok()?.map(|place| ((place >> 32) as u32, (place >> 16) as u32 & 0xFFFF, place as u32 & 0xFFFF))
    }

    pub(super) fn note(&self, name: &str) -> Option<Vec<u8>> {
        let flags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.note_path(name)).ok()?;
        let mut sealed = Vec::new();
        file.take(LARGEST_NOTE).read_to_end(&mut sealed).ok()?;
        self.rows.open(&self.note_name(name), &sealed).ok()
    }

    pub(super) fn leave_note(&mut self, name: &str, note: &[u8]) -> Result<(), Broken> {
        let path = self.note_path(name);
        let sealed = self.rows.seal(&self.note_name(name), note);
        // In the folder that the next writer sweeps, under a name that it sweeps.
        let folder = path.with_file_name("tmp");
        // A store that was copied may have none.
        if crate::store::local::create_folder(&folder).is_err() {
            return Err(Broken);
        }
        let temporary = folder.join(SlotId::random().to_string());
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let written = file.write_all(&sealed).and_then(|()| std::fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        Ok(written?)
    }

    /// A note is a file beside the index: rewritten at each snapshot, it would make redb's file breathe by its own
    /// size.
    fn note_path(&self, name: &str) -> PathBuf {
        self.path.with_file_name(format!("note-{}", SlotId(self.keys.note_name(name))))
    }

    /// What a note is sealed under: its name, and this very file, so that it is gone when the file is.
    fn note_name(&self, name: &str) -> Vec<u8> {
        [b"note ".as_slice(), &self.file_id, name.as_bytes()].concat()
    }
}

impl Row {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, u64::from(self.number));
        put_varint(&mut out, self.size);
        put_varint(&mut out, u64::from(self.count));
        out.extend(encode_records(&self.records));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Row, Malformed> {
        let mut reader = Reader::new(bytes);
        let number = reader.varint_up_to(u64::from(u32::MAX), "a pack's number")? as u32;
        let size = reader.varint()?;
        let count = reader.varint_up_to(u64::from(u32::MAX), "a number of records")? as u32;
        let records = decode_records(&mut reader)?;
        reader.end()?;
        Ok(Row { number, size, count, records })
    }
}

fn encode_records(records: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, records.len() as u64);
    for record in records {
        put_bytes(&mut out, record);
    }
    out
}

fn decode_records(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, Malformed> {
    let count = reader.count(1)?;
    (0..count).map(|_| reader.bytes().map(<[u8]>::to_vec)).collect()
}

fn put_lost(
    transaction: &redb::WriteTransaction,
    sealer: &RowSealer,
    lost: &BTreeMap<PackId, Row>,
) -> Result<(), Broken> {
    let mut table = transaction.open_table(LOST)?;
    for (id, row) in lost {
        table.insert(u128::from_be_bytes(id.0), sealer.seal(&name_of(*id), &row.encode()).as_slice())?;
    }
    Ok(())
}

/// Whether a command left notes beside the index at `path`. None does before it has stored something.
pub(super) fn has_notes(path: &Path) -> bool {
    // A store in memory has no folder, and what is in the process's own is not its.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    entries.into_iter().flatten().flatten().any(|entry| is_note(&entry))
}

/// Removes all notes beside the index at `path`: without the file that they are bound to, nobody can read them.
pub(super) fn remove_notes(path: &Path) {
    let entries = path.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    for note in entries.into_iter().flatten().flatten().filter(is_note) {
        let _ = std::fs::remove_file(note.path());
    }
}

fn is_note(entry: &std::fs::DirEntry) -> bool {
    let name = entry.file_name();
    name.to_str().and_then(|name| name.strip_prefix("note-")).is_some_and(|id| SlotId::parse(id).is_ok())
}

/// The value of a chunk's entry.
pub(super) fn place_of(number: u32, at: &Location) -> u64 {
    u64::from(number) << 32 | u64::from(at.segment & 0xFFFF) << 16 | u64::from(at.nth & 0xFFFF)
}

fn name_of(id: PackId) -> Vec<u8> {
    [b"pack ".as_slice(), &id.0].concat()
}

fn records_name_of(id: PackId) -> Vec<u8> {
    [b"records ".as_slice(), &id.0].concat()
}

fn outline_name_of(id: PackId) -> Vec<u8> {
    [b"outline ".as_slice(), &id.0].concat()
}

/// The layout and the boot that a file must be of.
fn layout() -> Vec<u8> {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    [LAYOUT, boot.trim_ascii()].concat()
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}
