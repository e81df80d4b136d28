//! Checking a store: that everything that a snapshot needs is there, and, if asked, that it is what it should be.
//!
//! What is held against what (the numbers are those of `docs/ARCHITECTURE.md`):
//! - every key slot and every pack can be read (I2, I3);
//! - every pack that the store had is there, as far as the index remembers;
//! - the records are an unbroken chain (I8), which may have forked;
//! - every tree and recipe that a record leads to resolves to its id, and every chunk named there lies in a pack, with
//!   that length (I4, I5);
//! - every base of a segment lies in a pack (I5);
//! - with `read_data`, every segment opens, and each chunk of data gives its id.
//!
//! The index takes no part in it: it is only a cache. All footers are read from the packs.
//!
//! What no snapshot needs may build on what is gone: `gc` leaves such waste in packs that are mostly needed
//! ([`sound`]).

mod sound;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;

use self::sound::{Bad, Chunk, UNSOUND};
use super::ledger::{Ledger, Loss, Start, is_ledger};
use super::meta::{Recent, Stored};
use super::progress::Progress;
use super::recipe::Recipe;
use super::record::Record;
use super::store::Store;
use super::tree::{Content, Node, Tree};
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId, RecipeId, SnapshotId, TreeId, random_bytes};
use crate::index::{WHOLE_PACK, lineage};
use crate::store::objects::{Key, Kind};
use crate::store::reader::Pack;
use crate::store::segment::{ChunkEntry, Content as Segment};

/// How much to read.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Options {
    /// Open every segment.
    pub read_data: bool,
    /// Only this part of the packs, drawn at random: above 0, up to 100 percent.
    pub subset: Option<f64>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The number of the invariant that does not hold, see [`PROVEN`].
    pub invariant: u8,
    /// The object or path that it is about.
    pub subject: String,
    /// What is wrong.
    pub what: String,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// Snapshots that were followed.
    pub snapshots: u64,
    /// Packs whose footers were read.
    pub packs: u64,
    /// Chunks that they list.
    pub chunks: u64,
    /// Segments that were opened.
    pub segments_read: u64,
    /// Bytes that were opened.
    pub bytes_read: u64,
    /// What is worth knowing and is no damage.
    pub remarks: Vec<String>,
    /// What is wrong. Nothing: the store is whole, as far as it was looked at.
    pub problems: Vec<Problem>,
    /// Segments that do not open or hold something else than their footer says: pack and number, or [`WHOLE_PACK`].
    pub damaged: BTreeSet<(PackId, u32)>,
    /// Of these packs every segment was opened.
    pub read: BTreeSet<PackId>,
    /// Snapshots that lost something: id, and the paths.
    pub affected: Vec<(String, Vec<PathBuf>)>,
    /// Those of which the ledger says so already, and that did not lose more since.
    pub known: Vec<(String, Vec<PathBuf>)>,
    /// What could not be read for another reason than damage: then not all that is said here need be so.
    pub unread: Option<Error>,
}

/// What a check proves, by the numbers of docs/ARCHITECTURE.md, and how. The others are about what was done and not
/// about what lies there (the order of writes, locks, the source, documented backups): tests hold those.
pub const PROVEN: [(u8, &str); 9] = [
    (2, "every object is whole under its name: key slots are read, footers are where their trailers say"),
    (3, "nothing changed since it was put: every footer opens, and with --read-data every segment"),
    (4, "ids name content: every tree and recipe resolves to its id, and with --read-data every chunk has its own"),
    (5, "all that a snapshot leads to is there, with what it builds on, which lies less deep"),
    (6, "the index is only a hint: no part of this was asked of it, and it leads nowhere else"),
    (8, "the records are an unbroken chain, with runs of forgotten ones"),
    (9, "no two packs have a salt in common, so no key and nonce occur twice"),
    (20, "no chunk lies deeper than differences are written"),
    (23, "the ledger has what the chain needs of each forgotten snapshot"),
];

/// What is said of a pack that is gone.
const GONE: &str = "this pack was there, and is gone";

/// No writer makes a difference that lies deeper.
const DEEPEST: u8 = 8;

/// Affected paths are looked for up to this number for each snapshot: small trees that name each other many times would
/// be followed for ever.
const MOST_LOST: usize = 100_000;

impl Report {
    fn add(&mut self, invariant: u8, subject: impl Into<String>, what: impl Into<String>) {
        self.problems.push(Problem { invariant, subject: subject.into(), what: what.into() });
    }
}

struct Checking<'a> {
    store: &'a Store,
    /// Every chunk by the footers.
    chunks: HashMap<ChunkId, Chunk>,
    /// Chunks that a snapshot needs and of which no copy is sound.
    lost: HashSet<ChunkId>,
    /// A tree or a recipe could not be resolved: what it needs is not known.
    unknown: bool,
    trees: HashMap<TreeId, bool>,
    /// Versions that were loaded not long ago.
    recent: (Recent<Tree>, Recent<Recipe>),
    /// What each makes, in bytes; nothing if it is not whole.
    recipes: HashMap<RecipeId, Option<u64>>,
    report: Report,
}

/// Checks `store`.
pub fn check(store: &Store, options: Options, progress: &dyn Progress) -> Result<Report> {
    let mut checking = Checking {
        store,
        chunks: HashMap::new(),
        lost: HashSet::new(),
        unknown: false,
        trees: HashMap::new(),
        recent: Default::default(),
        recipes: HashMap::new(),
        report: Report::default(),
    };
    for damaged in store.damaged_slots() {
        checking.report.add(2, "key slot", damaged);
    }
    checking.check_losses();
    let packs = checking.read_footers()?;
    let of_segments = |(_, number): &&(PackId, u32)| *number != WHOLE_PACK;
    let damaged = store.catalog().index().damaged().iter();
    let mut bad: Bad = damaged.filter(of_segments).map(known).collect();
    let mut dangling = checking.settle(&packs, &bad);
    if options.read_data {
        let found = checking.read_segments(&packs, &dangling, options.subset, progress);
        bad.retain(|(pack, _), _| !checking.report.read.contains(pack));
        dangling = checking.settle_found(&packs, &mut bad, found);
    }
    checking.judge(&packs, &bad);
    checking.check_packs(&packs);
    let (records, losses) = checking.check_records(&packs);
    // What is known to be lost is no news. It is followed last: what others need too is their problem first.
    let (known, others): (Vec<_>, Vec<_>) = records.iter().partition(|record| losses.contains_key(&record.id));
    for record in others {
        checking.follow(record);
    }
    for record in known {
        checking.follow_known(record, &losses[&record.id]);
    }
    checking.name_bases(&packs, &dangling);
    // Causes before what follows from them.
    let is_cause = |problem: &Problem| problem.invariant <= 3 || problem.what.starts_with(GONE);
    checking
        .report
        .problems
        .sort_by(|a, b| (!is_cause(a), &a.subject, &a.what).cmp(&(!is_cause(b), &b.subject, &b.what)));
    checking.report.problems.dedup();
    Ok(checking.report)
}

/// How much `paths` are. A lost directory is one of them, with all that is below it.
fn in_words(paths: &[PathBuf]) -> String {
    match paths {
        [root] if root.as_os_str().is_empty() => "everything".to_owned(),
        [_] => "1 file or directory".to_owned(),
        paths => format!("{} files and directories", paths.len()),
    }
}

/// What an earlier check found, for one that reads less.
fn known(segment: &(PackId, u32)) -> ((PackId, u32), String) {
    (*segment, format!("segment {} of a pack was found damaged by an earlier check", segment.1))
}

impl Checking<'_> {
    /// What fails for another reason than damage says nothing of what is stored.
    fn not_read(&mut self, error: Error) {
        if !error.is_damage() {
            self.report.unread.get_or_insert(error);
        }
    }

    fn place(&self, id: PackId) -> String {
        self.store.objects().place(Key::new(Kind::Pack, id.0))
    }

    fn read_footers(&mut self) -> Result<Vec<std::sync::Arc<Pack>>> {
        let source = self.store.catalog().packs();
        source.forget();
        let mut ids = source.list()?;
        ids.sort_unstable();
        let opened: Vec<_> = ids.par_iter().map(|id| (*id, source.open(*id))).collect();
        let mut packs = Vec::new();
        for (id, pack) in opened {
            match pack {
                Ok(pack) => {
                    for segment in &pack.footer.segments {
                        let chunk = |length| Chunk { length, content: segment.content, depth: UNSOUND };
                        self.chunks.extend(segment.chunks.iter().map(|c| (c.id, chunk(c.length))));
                    }
                    packs.push(pack);
                }
                Err(error) => {
                    self.report.add(3, self.place(id), error.what());
                    if error.is_damage() {
                        self.report.damaged.insert((id, WHOLE_PACK));
                    } else {
                        self.report.unread.get_or_insert(error);
                    }
                }
            }
        }
        self.report.packs = packs.len() as u64;
        self.report.chunks = self.chunks.len() as u64;
        Ok(packs)
    }

    /// Salts (I9), depths (I20), and whether the index leads where the footers say (I6). That it does not is no damage.
    fn check_packs(&mut self, packs: &[std::sync::Arc<Pack>]) {
        let mut salts = HashMap::new();
        let index = self.store.catalog().index();
        let mut astray = 0u64;
        let by_id: HashMap<PackId, &Pack> = packs.iter().map(|pack| (pack.id, &**pack)).collect();
        for pack in packs {
            if let Some(other) = salts.insert(pack.salt, pack.id) {
                self.report.add(9, self.place(pack.id), format!("it has the salt of pack {other}"));
            }
            if pack.footer.segments.iter().any(|segment| segment.depth > DEEPEST) {
                let place = self.place(pack.id);
                self.report.remarks.push(format!("{place}: differences lie deeper than this program writes them"));
            }
        }
        for id in self.chunks.keys() {
            let is_there = index.find(*id).is_some_and(|at| {
                let segment = by_id.get(&at.pack).and_then(|pack| pack.footer.segments.get(at.segment as usize));
                segment.and_then(|segment| segment.chunks.get(at.nth as usize)).is_some_and(|chunk| chunk.id == *id)
            });
            astray += u64::from(!is_there);
        }
        if astray > 0 {
            self.report.remarks.push(format!(
                "the index leads astray for {astray} chunks, which costs time and nothing else: `nbak repair index`"
            ));
        }
    }

    /// Opens segments, but for those whose bases are not there; answers with those that are not what their footer says,
    /// and why.
    fn read_segments(
        &mut self,
        packs: &[std::sync::Arc<Pack>],
        dangling: &BTreeSet<(PackId, u32)>,
        subset: Option<f64>,
        progress: &dyn Progress,
    ) -> Bad {
        let drawn = |_: &&std::sync::Arc<Pack>| {
            subset
                .is_none_or(|percent| f64::from(u32::from_le_bytes(random_bytes())) < percent / 100.0 * 4_294_967_296.0)
        };
        let mut chosen: Vec<&std::sync::Arc<Pack>> = packs.iter().filter(drawn).collect();
        if chosen.is_empty() {
            chosen.extend(packs.first());
        }
        let all = chosen.iter().flat_map(|pack| (0..pack.footer.segments.len()).map(|number| (&***pack, number)));
        let segments: Vec<(&Pack, usize)> =
            all.filter(|(pack, number)| !dangling.contains(&(pack.id, *number as u32))).collect();
        progress
            .begin("reading packs", segments.iter().map(|(pack, n)| u64::from(pack.footer.segments[*n].stored)).sum());
        self.report.segments_read = segments.len() as u64;
        self.report.bytes_read = segments.iter().map(|(pack, n)| u64::from(pack.footer.segments[*n].stored)).sum();
        let (bad, unread) = (Mutex::new(Vec::new()), Mutex::new(None));
        let order = lineage::families(self.store.catalog(), segments, |(pack, number)| (pack, *number as u32));
        // What is found is no error of the check's own.
        let _ = order.run(|&(pack, number)| {
            if let Err(error) = self.read_segment(pack, number) {
                let why = error.what();
                if !error.is_damage() {
                    unread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                }
                bad.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((pack, number, why));
            }
            progress.advance(u64::from(pack.footer.segments[number].stored));
            Ok(())
        });
        progress.end();
        let unread = unread.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.report.unread = self.report.unread.take().or(unread);
        self.report.read = chosen.iter().map(|pack| pack.id).collect();
        let bad = bad.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        bad.into_iter().map(|(pack, number, why)| ((pack.id, number as u32), why)).collect()
    }

    fn read_segment(&self, pack: &Pack, number: usize) -> Result<()> {
        let catalog = self.store.catalog();
        let plain = catalog.segment(pack, number)?;
        let entry = &pack.footer.segments[number];
        let spans = entry.split(&plain);
        let sound: Vec<bool> = match entry.content {
            Segment::Data => {
                let ids = catalog.packs().keys().chunk_ids(&spans);
                entry.chunks.iter().zip(ids).map(|(chunk, id)| chunk.id == id).collect()
            }
            Segment::Tree => spans.iter().map(|bytes| Stored::<Tree>::parse(bytes).is_ok()).collect(),
            Segment::Recipe => spans.iter().map(|bytes| Stored::<Recipe>::parse(bytes).is_ok()).collect(),
        };
        match entry.chunks.iter().zip(sound).find(|(_, sound)| !sound) {
            None => Ok(()),
            Some((ChunkEntry { id, .. }, _)) => {
                Err(Error::integrity(format!("chunk {id} in segment {number} has other content than its id says")))
            }
        }
    }

    /// Reads the records and holds the chain: each follows on another, or on a run of forgotten ones (I8). Answers with
    /// those that were not forgotten, and with what the ledger says that they lost.
    fn check_records(&mut self, packs: &[std::sync::Arc<Pack>]) -> (Vec<Record>, BTreeMap<SnapshotId, Loss>) {
        let keys = self.store.catalog().packs().keys();
        let (mut records, mut seen, mut ledger) = (Vec::new(), HashSet::new(), Ledger::default());
        for pack in packs {
            let (ledgers, others): (Vec<_>, Vec<_>) = pack.footer.records.iter().partition(|bytes| is_ledger(bytes));
            match Ledger::decode(ledgers.into_iter().map(Vec::as_slice)) {
                Ok(other) if other.generation > ledger.generation => ledger = other,
                Ok(other) if other.generation == ledger.generation => ledger.merge(other),
                Ok(_) => {}
                Err(error) => self.report.add(23, self.place(pack.id), error.what()),
            }
            for bytes in others {
                let mac = keys.record_mac(bytes);
                match Record::decode(bytes) {
                    // Where packs were put together, it may lie in two for a while.
                    Ok(record) if seen.insert(mac) => records.push((record, mac)),
                    Ok(_) => {}
                    Err(error) => self.report.add(8, self.place(pack.id), error.what()),
                }
            }
        }
        records.sort_by_key(|(record, _)| (record.sequence, record.started));
        // What the index still lists, and no pack that opens holds any more, is lost with its pack.
        let there: HashSet<_> = records.iter().map(|(record, _)| record.id).collect();
        for known in self.store.records().unwrap_or_default() {
            if !there.contains(&known.id) {
                self.report.add(5, format!("snapshot {}", known.id), "its pack cannot be read: the snapshot is lost");
                self.report.affected.push((known.id.to_string(), vec![PathBuf::new()]));
            }
        }
        let named = ledger.named();
        for (record, _) in records.iter().filter(|(record, _)| ledger.has_forgotten(record.id)) {
            if !ledger.spans(record.sequence) {
                self.report.add(
                    23,
                    format!("snapshot {}", record.id),
                    "it was forgotten, and no run of the ledger has it",
                );
            }
        }
        records.retain(|(record, mac)| !ledger.is_gone(record, *mac, &named));
        let names = records.iter().map(|(record, _)| format!("snapshot {}", record.id));
        let links = records.iter().map(|(record, mac)| ((record.sequence, record.previous), (record.sequence, *mac)));
        let links = links.zip(names);
        let runs = ledger.runs.iter().map(|run| {
            let name = match (run.first, run.last) {
                (first, last) if first == last => format!("snapshot number {first}, which is forgotten"),
                (first, last) => format!("what was forgotten, snapshots number {first} to {last}"),
            };
            ((run.start(), (run.last, run.end)), name)
        });
        let links: Vec<_> = links.chain(runs).collect();
        let mut ends: HashMap<Start, Option<&str>> = HashMap::from([((1, None), None)]);
        ends.extend(links.iter().map(|((_, (last, mac)), _)| ((last + 1, Some(*mac)), None)));
        ends.extend(ledger.gaps.iter().map(|gap| ((gap.last + 1, Some(gap.end)), None)));
        // What is known to be missing follows on something too, and that must be there. It is no second branch of what
        // follows on the same: it may be the very snapshot, come back.
        for gap in &ledger.gaps {
            let start = (gap.first, gap.from);
            if !ends.contains_key(&start) && !ledger.goes_on_after(gap.first.saturating_sub(1)) {
                let name = format!("what is known to be missing, up to snapshot number {}", gap.last);
                self.report.add(8, name, "the snapshot before it is missing too: run `nbak repair`");
            }
        }
        for ((start, _), name) in &links {
            match ends.get_mut(start) {
                Some(none @ None) => *none = Some(name),
                // A pack was away while a snapshot was taken, and came back. Both are whole.
                Some(Some(other)) => self.report.remarks.push(format!(
                    "{other} and {name} were made after the same one: the older one was away for a while"
                )),
                // It came back with a pack that was away while others were forgotten, or after its space was reclaimed.
                None if ledger.goes_on_after(start.0.saturating_sub(1)) => self.report.remarks.push(format!(
                    "{name} was made after one that is forgotten: it came back with a pack that was away"
                )),
                None => {
                    let what = "the snapshot before it is missing, or is another than it was made after";
                    self.report.add(8, name.clone(), what);
                }
            }
        }
        (records.into_iter().map(|(record, _)| record).collect(), ledger.losses)
    }

    /// What the store had, and has no longer.
    fn check_losses(&mut self) {
        const HINT: &str = "bring it back from a copy, or run `nbak repair`";
        let index = self.store.catalog().index();
        if index.lost_all() {
            let what = "all packs that the store had once are gone: bring them back, or run `nbak repair`";
            self.report.add(5, self.store.root().to_string_lossy(), what);
        }
        for (id, records) in index.lost() {
            self.report.add(5, self.place(id), format!("{GONE}: {HINT}"));
            for lost in records.iter().filter_map(|bytes| Record::decode(bytes).ok()) {
                self.report.add(5, format!("snapshot {}", lost.id), "its pack is gone, and the snapshot with it");
                self.report.affected.push((lost.id.to_string(), vec![PathBuf::new()]));
            }
        }
    }

    fn follow(&mut self, record: &Record) {
        self.report.snapshots += 1;
        let mut lost = Vec::new();
        self.follow_tree(record.tree, Path::new(""), 0, &mut lost);
        if !lost.is_empty() {
            self.report.affected.push((record.id.to_string(), lost));
        }
    }

    /// The same for a snapshot of which it is known that it lost something: that is a remark, unless it is more by now.
    fn follow_known(&mut self, record: &Record, loss: &Loss) {
        let (problems, affected) = (self.report.problems.len(), self.report.affected.len());
        let (lost, unknown) = (self.lost.clone(), self.unknown);
        self.follow(record);
        let paths = self.report.affected.drain(affected..).next().map_or_else(Vec::new, |(_, paths)| paths);
        if !loss.covers(&paths) {
            self.report.add(5, format!("snapshot {}", record.id), "it lost more than was known: run `nbak repair`");
            self.report.affected.push((record.id.to_string(), paths));
            return;
        }
        self.report.problems.truncate(problems);
        (self.lost, self.unknown) = (lost, unknown);
        if !paths.is_empty() {
            self.report.remarks.push(format!(
                "snapshot {}: it is known that it lost {}; nothing else of it is",
                record.id,
                in_words(&paths)
            ));
            self.report.known.push((record.id.to_string(), paths));
        }
    }

    /// Whether all of a directory is there. One that was found whole is not followed again; one that was not is, so
    /// that each snapshot gets its own list.
    fn follow_tree(&mut self, id: TreeId, path: &Path, depth: usize, lost: &mut Vec<PathBuf>) -> bool {
        match self.trees.get(&id) {
            Some(true) => return true,
            // Enough is named: small trees that name each other many times would be followed for ever.
            Some(false) if lost.len() >= MOST_LOST => return false,
            _ => {}
        }
        if depth > crate::source::walk::DEEPEST + 1 {
            self.report.add(4, format!("directory {id}"), "directories are nested deeper than the format allows");
            lost.push(path.to_path_buf());
            return false;
        }
        let (tree, from) = match self.recent.0.load_from(self.store.catalog(), id) {
            Ok(tree) => tree,
            Err(error) => {
                self.report.add(4, format!("directory {id}"), error.what());
                self.not_read(error);
                self.unknown = true;
                self.trees.insert(id, false);
                lost.push(path.to_path_buf());
                return false;
            }
        };
        let mut whole = true;
        // What is as it was in a version that is whole was followed with that.
        let from = from.filter(|from| self.trees.get(&from.id) == Some(&true));
        let mut old = from.iter().flat_map(|from| &from.value.entries).peekable();
        for entry in &tree.value.entries {
            use std::os::unix::ffi::OsStrExt;
            while old.next_if(|old| old.name < entry.name).is_some() {}
            if old.next_if_eq(&entry).is_some() {
                continue;
            }
            let place = path.join(std::ffi::OsStr::from_bytes(&entry.name));
            whole &= match &entry.node {
                Node::Directory(below) => self.follow_tree(*below, &place, depth + 1, lost),
                Node::Symlink(_) => true,
                Node::File { size, content, .. } => {
                    let sound = self.follow_file(&place, *size, content);
                    if !sound {
                        lost.push(place);
                    }
                    sound
                }
            };
        }
        self.trees.insert(id, whole);
        whole
    }

    fn follow_file(&mut self, path: &Path, size: u64, content: &Content) -> bool {
        let recipes = match content {
            Content::Chunks(chunks) => return self.follow_chunks(chunks.iter().copied()),
            Content::Recipes(recipes) => recipes,
        };
        let (mut total, mut whole) = (0u64, true);
        for id in recipes {
            match self.follow_recipe(*id) {
                Some(size) => total = total.saturating_add(size),
                None => whole = false,
            }
        }
        if whole && total != size {
            self.report.add(4, path.to_string_lossy(), "the file's recipes do not make its size");
        }
        whole && total == size
    }

    /// The bytes that a recipe makes, if all of its chunks are there. None is followed twice.
    fn follow_recipe(&mut self, id: RecipeId) -> Option<u64> {
        if let Some(known) = self.recipes.get(&id) {
            return *known;
        }
        let size = match self.recent.1.load_from(self.store.catalog(), id) {
            Ok((version, from)) => {
                let value = &version.value;
                // What stands where it stands in a version that is whole was followed with that: thousands of pages.
                let from = from.filter(|from| matches!(self.recipes.get(&from.id), Some(Some(_))));
                let old = |nth: usize| {
                    let from = &from.as_ref()?.value;
                    from.ids.get(nth).map(|id| (from.length(nth), *id))
                };
                let chunks = value.ids.iter().enumerate().map(|(nth, id)| (nth, (value.length(nth), *id)));
                let chunks = chunks.filter(|(nth, chunk)| old(*nth) != Some(*chunk)).map(|(_, chunk)| chunk);
                self.follow_chunks(chunks).then_some(value.size)
            }
            Err(error) => {
                self.report.add(4, format!("recipe {id}"), error.what());
                self.not_read(error);
                self.unknown = true;
                None
            }
        };
        self.recipes.insert(id, size);
        size
    }

    fn follow_chunks(&mut self, chunks: impl Iterator<Item = (u32, ChunkId)>) -> bool {
        let mut whole = true;
        for (length, id) in chunks.filter(|(_, id)| *id != ChunkId::ZEROS) {
            let problem = match self.chunks.get(&id) {
                Some(known) if known.length == length && known.content == Segment::Data => {
                    if known.depth == UNSOUND {
                        self.lost.insert(id);
                        whole = false;
                    }
                    continue;
                }
                Some(known) if known.content == Segment::Data => "has another length than a file says",
                Some(_) => "is no file's content, and a file names it",
                None => "is in no pack of this store",
            };
            self.report.add(5, format!("chunk {id}"), problem);
            whole = false;
        }
        whole
    }
}
