//! Restoring into a directory.
//!
//! Nothing is written before all metadata was read and everything that can be known to go wrong was looked for: the
//! target, what stands in the way there, sidecars of a live database, free space.
//!
//! Then data is written in the order in which it is *stored*: packs one after the other, each segment opened once, on
//! all cores, its chunks written wherever they belong; what builds on a segment right after it ([`lineage`]). A file
//! is made when its first chunk arrives and completed, with mode and time, when its last one did. Memory is a segment
//! for each core and 24 bytes for each chunk.
//!
//! A chunk counts only after its bytes gave its id. A file that lacks one is removed again and reported; all others are
//! restored.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::along::without_their_file;
use super::look::{self, Place, chunks_of, clean_path};
use super::progress::Progress;
use super::record::Record;
use super::standing::Beside;
use super::store::Store;
use super::target::{LEFT, Standing, Target};
use super::tree::{Attributes, Consistency, Entry, Node};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::index::lineage;
use crate::index::trail::Trail;
use crate::store::reader::Pack;

/// So many chunks are looked up at a time, on all cores, and so many of them by one.
const LOOKED_UP: usize = 8192;
const FOLLOWED: usize = 512;
/// Zeros are compared so many at a time, in bytes.
const GAP: u64 = 128 * 1024;
/// Files that are kept open between segments.
const OPEN_FILES: usize = 128;

/// What to restore, and where to.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The directory to restore into.
    pub target: PathBuf,
    /// Only these paths, and what is below them; everything if there are none.
    pub paths: Vec<PathBuf>,
    /// Restore into a directory that is not empty, replacing what has the same name.
    pub overwrite: bool,
}

/// What was restored.
#[derive(Debug, Default)]
pub struct Restored {
    /// Files.
    pub files: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Files among them that stood in the target as they should, and were not written.
    pub kept: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Files that could not be restored, and why: they are not in the target. And directories whose entries are lost.
    pub damaged: Vec<(PathBuf, String)>,
}

struct FileItem {
    path: PathBuf,
    /// Where it is written first, if something stands at its path.
    temporary: Option<PathBuf>,
    attributes: Attributes,
    size: u64,
    database: bool,
    left: AtomicU32,
    created: AtomicBool,
    complete: AtomicBool,
    broken: AtomicBool,
    /// It stands in the target already, byte for byte.
    kept: bool,
}

/// One chunk's way into one file.
struct Write {
    pack: u32,
    segment: u32,
    nth: u32,
    file: u32,
    offset: u64,
}

#[derive(Default)]
struct Plan {
    packs: Vec<Arc<Pack>>,
    writes: Vec<Write>,
    files: Vec<FileItem>,
    folders: Vec<(PathBuf, Attributes)>,
    symlinks: Vec<(PathBuf, Vec<u8>, Attributes)>,
    damaged: Vec<(PathBuf, String)>,
}

/// Restores what `options` say from the snapshot `record`.
pub fn restore(store: &Store, record: &Record, options: &Options, progress: &dyn Progress) -> Result<Restored> {
    let mut plan = Plan::default();
    let entries = selected(store, record, &options.paths, &mut plan.damaged)?;
    plan.lay_out(store, &entries)?;
    let target = Target::open(&options.target, options.overwrite)?;
    if options.overwrite {
        plan.keep_what_is_there(store, &target);
    }
    let is_free = plan.look_ahead(&target, options.overwrite);
    let is_free = is_free
        .and_then(|()| if options.overwrite { plan.look_beside(store, &entries, &target, options) } else { Ok(()) });
    is_free.inspect_err(|_| target.withdraw())?;

    let written = plan.carry_out(store, record, options, &target, progress);
    let damaged = written.map_err(|error| plan.undo(&target, error))?;
    let whole = || plan.files.iter().filter(|file| !file.broken.load(Ordering::Relaxed));
    Ok(Restored {
        files: whole().count() as u64,
        bytes: whole().map(|file| file.size).sum(),
        kept: whole().filter(|file| file.kept).count() as u64,
        directories: plan.folders.len() as u64,
        symlinks: plan.symlinks.len() as u64,
        damaged,
    })
}

/// The entries to restore, a directory before what is in it, with the directories above what was asked for. A directory
/// whose entries are lost costs those and no others.
fn selected(
    store: &Store,
    record: &Record,
    paths: &[PathBuf],
    damaged: &mut Vec<(PathBuf, String)>,
) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut entries = BTreeMap::new();
    let everything = [PathBuf::new()];
    for path in if paths.is_empty() { &everything } else { paths } {
        let path = clean_path(path)?;
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            if let Place::Entry(entry) = look::find(store, record, above)? {
                entries.insert(above.to_path_buf(), entry);
            }
        }
        let below = match look::find(store, record, &path)? {
            Place::Root(tree) => Some(tree),
            Place::Entry(entry) => {
                let below = if let Node::Directory(tree) = entry.node { Some(tree) } else { None };
                entries.insert(path.clone(), entry);
                below
            }
        };
        if let Some(tree) = below {
            let listing = look::list_whole(store, record, tree, &path)?;
            entries.extend(listing.entries);
            damaged.extend(listing.lost);
        }
    }
    Ok(entries)
}

impl Plan {
    fn lay_out(&mut self, store: &Store, entries: &BTreeMap<PathBuf, Entry>) -> Result<()> {
        let (mut numbers, mut trail) = (HashMap::new(), Trail::default());
        for (path, entry) in entries {
            match &entry.node {
                Node::Directory(_) => self.folders.push((path.clone(), entry.attributes)),
                Node::Symlink(link) => self.symlinks.push((path.clone(), link.clone(), entry.attributes)),
                Node::File { size, content, consistency } => {
                    let planned = chunks_of(store.catalog(), *size, content)
                        .and_then(|chunks| self.place_chunks(store, &chunks, &mut numbers, &mut trail));
                    match planned {
                        Ok(count) => self.files.push(FileItem {
                            path: path.clone(),
                            temporary: None,
                            attributes: entry.attributes,
                            size: *size,
                            database: *consistency == Consistency::Transaction,
                            left: AtomicU32::new(count),
                            created: AtomicBool::new(false),
                            complete: AtomicBool::new(false),
                            broken: AtomicBool::new(false),
                            kept: false,
                        }),
                        Err(error) if error.is_integrity() => self.damaged.push((path.clone(), error.to_string())),
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        self.writes.sort_unstable_by_key(|write| (write.pack, write.segment, write.nth, write.file, write.offset));
        Ok(())
    }

    /// Plans the writes of the next file; answers how many there are. Plans none if a chunk is missing.
    fn place_chunks(
        &mut self,
        store: &Store,
        chunks: &[(u32, ChunkId)],
        numbers: &mut HashMap<crate::id::PackId, u32>,
        trail: &mut Trail,
    ) -> Result<u32> {
        let (start, file) = (self.writes.len(), self.files.len() as u32);
        let mut offset = 0;
        let find = |trail: &mut Trail, part: &[(u32, ChunkId)]| -> Vec<_> {
            let asked = |(_, id): &(u32, ChunkId)| (*id != ChunkId::ZEROS).then(|| trail.locate(store.catalog(), *id));
            part.iter().map(asked).collect()
        };
        let places = chunks.chunks(LOOKED_UP).flat_map(|part| match part.len() {
            ..FOLLOWED => find(trail, part),
            _ => part.par_chunks(FOLLOWED).flat_map_iter(|part| find(&mut Trail::default(), part)).collect(),
        });
        for ((length, id), place) in chunks.iter().zip(places) {
            if let Some(place) = place {
                let (pack, at) = place.inspect_err(|_| self.writes.truncate(start))?;
                if pack.footer.segments[at.segment as usize].chunks[at.nth as usize].length != *length {
                    self.writes.truncate(start);
                    return Err(Error::integrity(format!("chunk {id} has another length than its file says")));
                }
                let next = self.packs.len() as u32;
                let number = *numbers.entry(at.pack).or_insert(next);
                if number == next {
                    self.packs.push(pack);
                }
                self.writes.push(Write { pack: number, segment: at.segment, nth: at.nth, file, offset });
            }
            offset += u64::from(*length);
        }
        Ok((self.writes.len() - start) as u32)
    }

    fn pack_of(&self, group: &[Write]) -> &Pack {
        &self.packs[group[0].pack as usize]
    }

    /// The bytes of a write.
    fn length(&self, write: &Write) -> u64 {
        let segment = &self.packs[write.pack as usize].footer.segments[write.segment as usize];
        u64::from(segment.chunks[write.nth as usize].length)
    }

    /// Writes all of it; answers what is damaged.
    fn carry_out(
        &mut self,
        store: &Store,
        record: &Record,
        options: &Options,
        target: &Target,
        progress: &dyn Progress,
    ) -> Result<Vec<(PathBuf, String)>> {
        for (path, _) in &self.folders {
            target.make_folder(path)?;
        }
        if options.overwrite {
            self.sweep(target);
        }
        progress.begin("restoring", self.writes.iter().map(|write| self.length(write)).sum());
        let damaged = self.write(store, target, progress)?;
        progress.end();
        for (path, link, attributes) in &self.symlinks {
            target.symlink(path, link, attributes, options.overwrite)?;
        }
        for (path, attributes) in self.folders.iter().rev() {
            target.complete_folder(path, attributes)?;
        }
        if options.paths.is_empty() && target.is_new() {
            target.complete_folder(Path::new(""), &record.root)?;
        }
        target.check_place()?;
        Ok(damaged)
    }

    /// Removes what a restore that was killed left in the folders that this one writes to.
    fn sweep(&self, target: &Target) {
        let mut folders: Vec<&Path> = self.files.iter().filter_map(|file| file.path.parent()).collect();
        folders.sort_unstable();
        folders.dedup();
        for folder in folders {
            target.sweep(folder);
        }
    }

    /// After a failure: a file that is not complete must not stand there as if it were (I13). What is complete stays,
    /// since it may have replaced something, and is told of.
    fn undo(&self, target: &Target, error: Error) -> Error {
        // One is broken after it was complete if a thread that was still closing it was told that it is not whole.
        let is_whole = |file: &&FileItem| file.complete.load(Ordering::Acquire) && !file.broken.load(Ordering::Acquire);
        let begun = |file: &&FileItem| file.created.load(Ordering::Acquire) && !is_whole(file);
        for file in self.files.iter().filter(begun) {
            let young = file.temporary.as_ref().filter(|_| !file.complete.load(Ordering::Acquire));
            target.remove(young.unwrap_or(&file.path));
        }
        let whole = self.files.iter().filter(is_whole).count();
        if whole > 0 {
            let files = if whole == 1 { "file was" } else { "files were" };
            return error.also(format!("{whole} {files} restored before that, whole, and stay in the target"));
        }
        target.withdraw();
        error.also("nothing of the snapshot is in the target")
    }

    /// Finds the files that stand in the target as the snapshot has them: they are not written again.
    fn keep_what_is_there(&mut self, store: &Store, target: &Target) {
        let keys = store.catalog().packs().keys();
        let mut chunks: Vec<(u32, u64, u64, ChunkId)> = Vec::with_capacity(self.writes.len());
        chunks.extend(self.writes.iter().map(|write| {
            let segment = &self.packs[write.pack as usize].footer.segments[write.segment as usize];
            let chunk = &segment.chunks[write.nth as usize];
            (write.file, write.offset, u64::from(chunk.length), chunk.id)
        }));
        chunks.sort_unstable_by_key(|(file, offset, ..)| (*file, *offset));
        let files: HashMap<u32, &[_]> = chunks.chunk_by(|a, b| a.0 == b.0).map(|own| (own[0].0, own)).collect();
        let is_there = |(at, item): (usize, &FileItem)| -> Option<()> {
            let file = target.existing(&item.path, item.size)?;
            let (mut bytes, mut end) = (Vec::new(), 0);
            // What no chunk covers is zeros; a chunk of zeros at the end of the file closes the last gap.
            let rest = [(at as u32, item.size, 0, ChunkId::ZEROS)];
            for (_, offset, length, id) in files.get(&(at as u32)).copied().unwrap_or_default().iter().chain(&rest) {
                while end < *offset {
                    bytes.resize((*offset - end).min(GAP) as usize, 0);
                    file.read_exact_at(&mut bytes, end).ok()?;
                    end += bytes.len() as u64;
                    bytes.iter().all(|byte| *byte == 0).then_some(())?;
                }
                bytes.resize(*length as usize, 0);
                file.read_exact_at(&mut bytes, *offset).ok()?;
                (*length == 0 || keys.chunk_id(&bytes) == *id).then_some(())?;
                end = offset + length;
            }
            Some(())
        };
        let kept: Vec<bool> = self.files.par_iter().enumerate().map(|file| is_there(file).is_some()).collect();
        self.writes.retain(|write| !kept[write.file as usize]);
        for (file, kept) in self.files.iter_mut().zip(kept) {
            file.kept = kept;
        }
    }

    /// Looks for everything that can be known to go wrong, before anything is written.
    fn look_ahead(&mut self, target: &Target, overwrite: bool) -> Result<()> {
        let need: u64 = self.files.iter().filter(|file| !file.kept).map(|file| file.size).sum();
        let stored: u64 = self.writes.iter().map(|write| self.length(write)).sum();
        if let Some(free) = target.free_bytes().filter(|free| *free < stored.min(need)) {
            return Err(Error::failed(format!("the restored files need {stored} bytes, and {free} are free"))
                .at(target.place(Path::new("")))
                .hint("free some space or name another target; nothing was changed"));
        }
        if !overwrite {
            return Ok(());
        }
        let in_the_way = |path: &Path, what: &str| {
            Error::failed(format!("{what} stands where the snapshot has something else"))
                .at(target.place(path))
                .hint("move it away first; nothing was changed")
        };
        for (path, _) in &self.folders {
            if target.standing(path) == Standing::Other {
                return Err(in_the_way(path, "a file or a symbolic link"));
            }
        }
        for (path, ..) in &self.symlinks {
            if target.standing(path) == Standing::Directory {
                return Err(in_the_way(path, "a directory"));
            }
        }
        for file in &mut self.files {
            match target.standing(&file.path) {
                Standing::Nothing => {}
                Standing::Directory => return Err(in_the_way(&file.path, "a directory")),
                Standing::Other if file.kept => {}
                Standing::Other => {
                    let name = format!("{LEFT}{}", crate::id::SlotId::random());
                    file.temporary = Some(file.path.with_file_name(name));
                }
            }
        }
        Ok(())
    }

    /// Looks for what stands beside what is to come, and must not stay there.
    fn look_beside(
        &self,
        store: &Store,
        entries: &BTreeMap<PathBuf, Entry>,
        target: &Target,
        options: &Options,
    ) -> Result<()> {
        let files = self.files.iter().map(|file| file.path.as_path());
        let links = self.symlinks.iter().map(|(path, ..)| path.as_path());
        let restored = files.chain(links).chain(self.folders.iter().map(|(path, _)| path.as_path())).collect();
        let beside = Beside { target, restored: &restored };
        self.files.iter().try_for_each(|file| beside.of_file(&file.path, file.database))?;
        let mut written = self.files.iter().filter(|file| !file.kept);
        written.try_for_each(|file| beside.of_programs(&file.path))?;
        beside.of_logs(&without_their_file(store, entries)?)?;
        beside.of_graph(&options.paths)
    }

    fn write(&mut self, store: &Store, target: &Target, progress: &dyn Progress) -> Result<Vec<(PathBuf, String)>> {
        let open = OpenFiles { target, files: &self.files, recent: Mutex::default() };
        let damaged = Mutex::new(std::mem::take(&mut self.damaged));
        let groups = self.writes.chunk_by(|a, b| (a.pack, a.segment) == (b.pack, b.segment)).collect();
        lineage::families(store.catalog(), groups, |group| (self.pack_of(group), group[0].segment)).run(|group| {
            let pack = self.pack_of(group);
            match write_group(store, pack, group, &open) {
                Ok(()) => {}
                Err(error) if error.is_integrity() => {
                    // What was stored again, since a check found this segment damaged, lies elsewhere too.
                    for write in *group {
                        let chunk = &pack.footer.segments[write.segment as usize].chunks[write.nth as usize];
                        match store.catalog().sound_copy(chunk.id) {
                            Some(bytes) => open.write(write.file, write.offset, &bytes, 1)?,
                            None => open.give_up(write.file, &error, &damaged),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
            progress.advance(group.iter().map(|write| self.length(write)).sum());
            Ok(())
        })?;
        for item in self.files.iter().filter(|item| item.kept) {
            target.dress(&item.path, &item.attributes)?;
            item.complete.store(true, Ordering::Release);
        }
        for at in (0..self.files.len()).filter(|at| !self.files[*at].kept) {
            if self.files[at].left.load(Ordering::Relaxed) == 0 && !self.files[at].created.load(Ordering::Relaxed) {
                open.complete(at as u32, open.create(at as u32)?.into())?;
            }
        }
        let mut damaged = damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
        damaged.sort();
        damaged.dedup_by(|a, b| a.0 == b.0);
        Ok(damaged)
    }
}

fn write_group(store: &Store, pack: &Pack, group: &[Write], open: &OpenFiles<'_>) -> Result<()> {
    let catalog = store.catalog();
    let number = group[0].segment as usize;
    let plain = catalog.segment(pack, number)?;
    let entry = &pack.footer.segments[number];
    let mut wanted: Vec<usize> = group.iter().map(|write| write.nth as usize).collect();
    wanted.dedup();
    let spans = entry.split(&plain);
    let ids = catalog.packs().keys().chunk_ids(&wanted.iter().map(|nth| spans[*nth]).collect::<Vec<_>>());
    if let Some((nth, _)) = wanted.iter().zip(ids).find(|(nth, id)| entry.chunks[**nth].id != *id) {
        return Err(Error::integrity(format!("chunk {} has other content than its id says", entry.chunks[*nth].id)));
    }
    // Chunks that follow each other here mostly do so in their file: one write for all of them.
    let follows = |a: &Write, b: &Write| {
        a.file == b.file && a.nth + 1 == b.nth && a.offset + u64::from(entry.chunks[a.nth as usize].length) == b.offset
    };
    for run in group.chunk_by(follows) {
        let start = spans[..run[0].nth as usize].iter().map(|span| span.len()).sum::<usize>();
        let length = run.iter().map(|write| spans[write.nth as usize].len()).sum::<usize>();
        open.write(run[0].file, run[0].offset, &plain[start..start + length], run.len())?;
    }
    Ok(())
}

struct OpenFiles<'a> {
    target: &'a Target,
    files: &'a [FileItem],
    recent: Mutex<HashMap<u32, Arc<File>>>,
}

impl OpenFiles<'_> {
    fn path(&self, file: u32) -> &Path {
        let item = &self.files[file as usize];
        item.temporary.as_ref().unwrap_or(&item.path)
    }

    fn create(&self, file: u32) -> Result<File> {
        self.files[file as usize].created.store(true, Ordering::Relaxed);
        self.target.create(self.path(file))
    }

    /// The file, unless it was given up.
    fn open(&self, file: u32) -> Result<Option<Arc<File>>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, as it is given up under it: a file that was removed must not be opened again.
        if self.files[file as usize].broken.load(Ordering::Acquire) {
            return Ok(None);
        }
        if let Some(handle) = recent.get(&file) {
            return Ok(Some(handle.clone()));
        }
        if recent.len() >= OPEN_FILES {
            recent.drain().try_for_each(|(file, handle)| self.close(file, handle))?;
        }
        // Under the lock, so that no two threads make the same file.
        let created = self.files[file as usize].created.load(Ordering::Relaxed);
        let handle = Arc::new(if created { self.target.reopen(self.path(file))? } else { self.create(file)? });
        recent.insert(file, handle.clone());
        Ok(Some(handle))
    }

    fn write(&self, file: u32, offset: u64, bytes: &[u8], chunks: usize) -> Result<()> {
        let item = &self.files[file as usize];
        let failed = |error| Error::io("write a restored file", self.target.place(&item.path), error);
        // All that is written of it: nobody else is going to open it.
        if item.left.load(Ordering::Relaxed) == chunks as u32 && !item.created.load(Ordering::Relaxed) {
            let handle = self.create(file)?;
            handle.write_all_at(bytes, offset).map_err(failed)?;
            item.left.store(0, Ordering::Release);
            return self.complete(file, handle.into());
        }
        let Some(handle) = self.open(file)? else { return Ok(()) };
        handle.write_all_at(bytes, offset).map_err(failed)?;
        if item.left.fetch_sub(chunks as u32, Ordering::AcqRel) == chunks as u32 {
            // Another one than this, if this one had to make room, and another thread opened the file again.
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner).remove(&file);
            recent.map_or(Ok(()), |recent| self.close(file, recent))?;
            return self.complete(file, handle);
        }
        self.close(file, handle)
    }

    /// Closes the file if nobody else uses this handle, and hears what the file system says to that. Who uses it last
    /// closes it.
    fn close(&self, file: u32, handle: Arc<File>) -> Result<()> {
        let item = &self.files[file as usize];
        let closed = Arc::into_inner(handle).map_or(Ok(()), |handle| self.target.close(&item.path, handle));
        // It may have its final name by now.
        closed.inspect_err(|_| item.broken.store(true, Ordering::Release))
    }

    fn complete(&self, file: u32, handle: Arc<File>) -> Result<()> {
        let item = &self.files[file as usize];
        self.target.complete(self.path(file), &handle, item.size, &item.attributes)?;
        self.close(file, handle)?;
        if item.temporary.is_some() {
            self.target.rename(self.path(file), &item.path)?;
        }
        item.complete.store(true, Ordering::Release);
        Ok(())
    }

    /// A chunk of `file` is damaged: what there is of the file goes.
    fn give_up(&self, file: u32, error: &Error, damaged: &Mutex<Vec<(PathBuf, String)>>) {
        let item = &self.files[file as usize];
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if !item.broken.swap(true, Ordering::AcqRel) {
            recent.remove(&file);
            if item.created.swap(true, Ordering::AcqRel) {
                self.target.remove(self.path(file));
            }
            damaged.lock().unwrap_or_else(PoisonError::into_inner).push((item.path.clone(), error.to_string()));
        }
    }
}
