//! What is to be done, from what is staged and what is live. Nothing live is changed here.
//!
//! Everything that can be known to go wrong is looked for: links above an entry, folders that may not be written, other
//! mounts (nothing can be exchanged across them), and things in the way that no backup holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::process::geteuid;

use super::asked::Options;
use super::called::NEW;
use super::company::{base_of, has_log, is_log};
use super::databases::{self, standing_sidecars};
use super::intent::{Clear, Folder, Intent, Move, Name, Same, Touch, Way, is_own};
use super::linked::Links;
use super::opened::{refuse_database, writes_in};
use super::root::{Kind, Root, Seen};
use crate::error::{Error, Result};
use crate::snapshot::graph::{GRAPH, beside_graph, is_graph};
use crate::snapshot::sidecar::sidecars;
use crate::source::block::Block;
use crate::source::handle::FileHandle;
use crate::source::sqlite::{HEADER_BYTES, Header, looks_like_database};
use crate::source::walk::DEEPEST;

const BLOCK: usize = 1 << 20;
/// Of a folder's mode: only the owner of what is in it, or of the folder, may move that.
const STICKY: u32 = 0o1000;
/// Of a folder's mode: its owner may list it, and look at what is in it.
const LOOK: u32 = 0o500;

/// What is to be done.
pub struct Plan {
    /// All of it, but for the databases, whose way is only known when they were taken.
    pub intent: Intent,
    /// The headers of the staged databases, by path.
    pub databases: BTreeMap<PathBuf, Header>,
    /// The paths of all staged entries.
    pub staged: BTreeSet<PathBuf>,
}

struct Entry {
    path: PathBuf,
    staged: Seen,
    live: Option<Seen>,
}

struct Measured {
    hash: blake3::Hash,
    header: Option<Header>,
    is_same: bool,
}

struct Planner<'a> {
    root: &'a Root,
    options: &'a Options<'a>,
    may_chown: bool,
    top: Seen,
    /// Folders that were looked at.
    sound: BTreeSet<PathBuf>,
    /// Folders in which something is put, moved or removed.
    written: BTreeSet<PathBuf>,
    /// What has second names.
    links: Links,
    /// Paths that get another entry.
    moved: BTreeSet<PathBuf>,
    /// Paths whose entry goes.
    cleared: BTreeSet<PathBuf>,
    plan: Plan,
}

/// Looks at what is staged and what is live.
pub fn draw(root: &Root, options: &Options<'_>) -> Result<Plan> {
    let top = root.seen(Path::new(""))?.ok_or_else(|| Error::failed("it is gone").at(root.place(Path::new(""))))?;
    let plan = Plan { intent: Intent::new(kept_name(root)?), databases: BTreeMap::new(), staged: BTreeSet::new() };
    let may_chown = geteuid().is_root();
    let (sound, written, links) = (BTreeSet::new(), BTreeSet::new(), Links::default());
    let (moved, cleared) = (BTreeSet::new(), BTreeSet::new());
    let mut planner = Planner { root, options, may_chown, top, sound, written, links, moved, cleared, plan };
    planner.plan.intent.remarks.extend_from_slice(options.remarks);
    planner.plan.intent.not_in_backup.extend_from_slice(options.remarks);
    planner.plan.intent.what = options.what.map(str::to_owned);
    planner.plan.intent.lacks = options.lacks.map(str::to_owned);
    planner.plan.intent.skipped.extend_from_slice(options.left_out);
    let mut entries = Vec::new();
    planner.walk(Path::new(""), 0, &mut entries)?;
    planner.plan.staged = entries.iter().map(|entry: &Entry| entry.path.clone()).collect();
    let (folders, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.staged.kind == Kind::Folder);
    for entry in &folders {
        planner.folder(entry)?;
    }
    let measured = others.par_iter().map(|entry| measure(root, entry)).collect::<Result<Vec<Measured>>>()?;
    let same = others.iter().zip(&measured).filter(|(_, measured)| measured.is_same);
    planner.links = Links::of(same.filter_map(|(entry, _)| Some((entry.staged, entry.live?))));
    for (entry, measured) in others.iter().zip(&measured) {
        planner.look_for_links(entry, measured)?;
    }
    for (entry, measured) in others.iter().zip(measured) {
        planner.entry(entry, &measured)?;
    }
    planner.graph()?;
    if options.whole {
        planner.extra(Path::new(""))?;
    }
    Ok(planner.plan)
}

/// A name that is not taken for the folder of what must not be lost.
pub fn kept_name(root: &Root) -> Result<String> {
    let stem = format!(".nbak-kept-{}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
    let mut name = stem.clone();
    for number in 1.. {
        if root.seen(Path::new(&name))?.is_none() {
            break;
        }
        name = format!("{stem}-{number}");
    }
    Ok(name)
}

impl Planner<'_> {
    /// Lists what is staged; makes its names durable, and its folders such that entries can be moved out of them.
    fn walk(&mut self, path: &Path, depth: usize, entries: &mut Vec<Entry>) -> Result<()> {
        let folder = Path::new(NEW).join(path);
        for staged in self.root.names(&folder)? {
            let path = staged.strip_prefix(NEW).unwrap_or(&staged).to_path_buf();
            let Some(seen) = self.root.seen(&staged)? else { continue };
            if is_own(&path) || (self.options.ignored)(&path) {
                self.plan.intent.skipped.push(path.display().to_string());
                continue;
            }
            if seen.kind == Kind::Other || depth >= DEEPEST {
                return Err(Error::failed("what is staged here is neither file, folder nor link, or nested too deep")
                    .at(self.root.place(&staged)));
            }
            let live = self.root.seen(&path)?;
            self.parent_is_sound(&path)?;
            if live.is_some_and(|live| live.mount != self.top.mount || live.device != self.top.device) {
                return Err(self.other_mount(&path));
            }
            entries.push(Entry { path: path.clone(), staged: seen, live });
            if seen.kind == Kind::Folder {
                if seen.mode & 0o700 != 0o700 {
                    self.root.set(&staged, Some(seen.mode | 0o700), None, seen.mtime)?;
                }
                self.walk(&path, depth + 1, entries)?;
            }
        }
        self.root.sync_folder(&folder)
    }

    fn other_mount(&self, path: &Path) -> Error {
        Error::failed("this is on another file system or mount than the data directory, and cannot be exchanged")
            .at(self.root.place(path))
            .hint("restore it to another directory and copy it; nothing was changed")
    }

    fn parent_is_sound(&mut self, path: &Path) -> Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if !self.sound.insert(parent.to_path_buf()) {
            return Ok(());
        }
        let Some(seen) = self.root.seen(parent)?.filter(|seen| seen.kind == Kind::Folder) else { return Ok(()) };
        if seen.mount != self.top.mount || seen.device != self.top.device {
            return Err(self.other_mount(parent));
        }
        Ok(())
    }

    /// Something is put at `path`, or moved away from there.
    fn changes(&mut self, path: &Path) -> Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if !self.written.insert(parent.to_path_buf()) {
            return Ok(());
        }
        writes_in(self.root, &mut self.plan.intent, parent)
    }

    /// The owner of the nearest folder above that is there.
    fn owner_above(&self, path: &Path) -> Result<(u32, u32)> {
        for above in path.ancestors().skip(1) {
            if let Some(seen) = self.root.seen(above)?.filter(|seen| seen.kind == Kind::Folder) {
                return Ok(seen.owner);
            }
        }
        Ok(self.top.owner)
    }

    fn folder(&mut self, entry: &Entry) -> Result<()> {
        match entry.live.map(|live| (live, live.kind)) {
            Some((live, Kind::Folder)) => {
                self.same(entry, live, false);
                if (self.options.described)(&entry.path) {
                    self.touch_folder(entry, live);
                }
                return Ok(());
            }
            Some((_, Kind::Link)) => {
                return Err(Error::failed("a symbolic link stands where a folder is to be restored")
                    .at(self.root.place(&entry.path))
                    .hint("a restore follows no link: move it away; nothing was changed"));
            }
            Some((live, _)) => {
                self.clear(&entry.path, live)?;
                if entry.path == Path::new(GRAPH) {
                    beside_graph().try_for_each(|path| self.graph_entry(&path))?;
                }
            }
            None => self.changes(&entry.path)?,
        }
        let owner = match (self.may_chown, self.options.keep_owners) {
            (false, _) => None,
            (true, false) => Some(entry.staged.owner),
            (true, true) => Some(self.owner_above(&entry.path)?),
        };
        let path = Name(entry.path.clone());
        let (mut mode, mtime) = (entry.staged.mode, entry.staged.mtime);
        if self.closes(mode) {
            mode |= LOOK;
            let remark = format!("{}: its mode is {mode:03o}, and not {:03o}", path.0.display(), entry.staged.mode);
            self.plan.intent.remarks.push(format!("{remark}: this user could not look into it then"));
        }
        self.plan.intent.folders.push(Folder { path, mode, owner, mtime });
        Ok(())
    }

    /// Notes which databases are exchanged that have other names.
    fn look_for_links(&mut self, entry: &Entry, measured: &Measured) -> Result<()> {
        let Some(live) = entry.live.filter(|live| live.kind == Kind::File && live.links > 1) else { return Ok(()) };
        let is_exchanged = !measured.is_same || !standing_sidecars(self.root, &entry.path)?.is_empty();
        if is_exchanged && databases::stands(self.root, &entry.path)? {
            self.links.take(live);
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, measured: &Measured) -> Result<()> {
        let (root, path) = (self.root, &entry.path);
        let live = entry.live;
        if self.is_of_another(path)? {
            self.plan.intent.skipped.push(path.display().to_string());
            return Ok(());
        }
        let beside = standing_sidecars(root, path)?;
        if let Some(header) = measured.header {
            self.plan.databases.insert(path.clone(), header);
        }
        let is_database = measured.header.is_some() || databases::stands(root, path)?;
        // Taking a database makes its sidecars vanish, so they are never what they were.
        let is_sidecar = base_of(path).is_some_and(|base| self.plan.staged.contains(&base));
        // One without a header is told to be a database by its log.
        let is_all = if is_database { beside.is_empty() } else { beside.is_empty() || !has_log(root, path)? };
        let is_linked = live.is_some_and(|live| self.links.is_taken(live) || self.is_other_by_its_link(entry, live));
        if measured.is_same && !is_sidecar && !is_linked && is_all {
            self.plan.intent.unchanged += 1;
            if let Some(live) = live {
                self.touch(entry, live);
                self.same(entry, live, is_database);
            }
            return Ok(());
        }
        if let Some(live) = live {
            self.may_move(path, live)?;
        }
        // Beside one that is written through SQLite nothing is moved.
        if !(is_database && self.options.into_live) {
            self.may_go_along(path)?;
        }
        self.changes(path)?;
        if is_database && live.is_some_and(|live| live.kind == Kind::File) {
            refuse_database(root, &self.plan.intent, path)?;
        }
        if live.is_some_and(|live| live.kind == Kind::Folder) {
            self.may_go(path)?;
            let is_backed_up = self.options.safety.is_some();
            self.plan.intent.goes(path, "a folder stood where a file was restored", is_backed_up);
        }
        let mut owner = entry.staged.owner;
        if self.may_chown && self.options.keep_owners {
            owner = match live {
                Some(live) => live.owner,
                None => self.owner_above(path)?,
            };
            if owner != entry.staged.owner {
                // To give a file away takes its set-id bits.
                let mode = (entry.staged.kind == Kind::File).then_some(entry.staged.mode);
                root.set(&Path::new(NEW).join(path), mode, Some(owner), entry.staged.mtime)?;
            }
        }
        self.moved.insert(path.clone());
        self.plan.intent.moves.push(Move {
            path: Name(path.clone()),
            way: if is_database { Way::Database } else { Way::File },
            staged: entry.staged.stamp,
            hash: measured.hash.to_hex().to_string(),
            live: live.map(|live| live.stamp),
            mode: (entry.staged.kind == Kind::File).then_some(entry.staged.mode),
            owner: self.may_chown.then_some(owner),
        });
        Ok(())
    }

    /// Whether what is staged at `path` is a log that came without its file: it would be played into whatever stands
    /// there. Of a knowledge graph nothing stands there that is not restored.
    fn is_of_another(&self, path: &Path) -> Result<bool> {
        if self.options.graph && is_graph(path) {
            return Ok(false);
        }
        let Some(base) = base_of(path).filter(|base| !self.plan.staged.contains(base)) else { return Ok(false) };
        let stands = self.root.seen(&base)?.is_some_and(|seen| seen.kind == Kind::File);
        Ok(stands && is_log(self.root, &Path::new(NEW).join(path))?)
    }

    fn same(&mut self, entry: &Entry, live: Seen, database: bool) {
        let takes_mode = entry.staged.kind == Kind::File && self.may_set(live);
        let mode = takes_mode.then_some(entry.staged.mode);
        let owner = (self.may_chown && !self.options.keep_owners).then_some(entry.staged.owner);
        let same = Same { path: Name(entry.path.clone()), live: live.stamp, database, mode, owner };
        self.plan.intent.same.get_or_insert_default().push(same);
    }

    /// Whether mode and time of what is live may be set.
    fn may_set(&self, live: Seen) -> bool {
        self.may_chown || live.owner.0 == geteuid().as_raw()
    }

    /// Whether a user who restores that mode could not look into the folder any more, and so not finish what is begun.
    fn closes(&self, mode: u32) -> bool {
        !self.may_chown && mode & LOOK != LOOK
    }

    /// Whether another name of what is live keeps it from getting what it is to have: that would be set of both.
    fn is_other_by_its_link(&self, entry: &Entry, live: Seen) -> bool {
        self.may_set(live) && self.wants(entry, live).is_some() && !self.links.agree(live)
    }

    fn touch(&mut self, entry: &Entry, live: Seen) {
        match self.wants(entry, live) {
            Some(touch) if self.may_set(live) => self.plan.intent.touch.push(touch),
            Some(_) => self.leaves(entry, live),
            None => {}
        }
    }

    /// What is to be set of what is live.
    fn wants(&self, entry: &Entry, live: Seen) -> Option<Touch> {
        let staged = entry.staged;
        let mode = (staged.kind == Kind::File && staged.mode != live.mode).then_some(staged.mode);
        let takes_owner = self.may_chown && !self.options.keep_owners && staged.owner != live.owner;
        // A backup, which records no owners, records milliseconds: a time that is the same up to there stays.
        let (seconds, nanos) = live.mtime;
        let is_cut = self.options.keep_owners && staged.mtime == (seconds, nanos / 1_000_000 * 1_000_000);
        let is_other = mode.is_some() || takes_owner || staged.mtime != live.mtime && !is_cut;
        is_other.then(|| Touch {
            path: Name(entry.path.clone()),
            mode: (staged.kind == Kind::File).then_some(staged.mode),
            owner: takes_owner.then_some(staged.owner),
            mtime: if is_cut { live.mtime } else { staged.mtime },
            live: Some(live.stamp),
        })
    }

    /// The same of a folder. What is exchanged in it gives it another time, so that is set whatever it is now.
    fn touch_folder(&mut self, entry: &Entry, live: Seen) {
        let staged = entry.staged;
        if !self.may_set(live) {
            if staged.mode != live.mode {
                self.leaves(entry, live);
            }
            return;
        }
        // No backup has the set-id and sticky bits.
        let kept = if self.options.keep_owners { live.mode & !0o777 } else { 0 };
        let is_closed = self.closes(staged.mode);
        if is_closed && staged.mode != live.mode {
            let remark = format!("{}: its mode {:03o} was not set", entry.path.display(), staged.mode);
            self.plan.intent.remarks.push(format!("{remark}: this user could not look into it then"));
        }
        let takes_owner = self.may_chown && !self.options.keep_owners && staged.owner != live.owner;
        self.plan.intent.touch.push(Touch {
            path: Name(entry.path.clone()),
            mode: (!is_closed).then_some(staged.mode | kept),
            owner: takes_owner.then_some(staged.owner),
            mtime: staged.mtime,
            live: Some(live.stamp),
        });
    }

    fn leaves(&mut self, entry: &Entry, live: Seen) {
        let (path, user) = (entry.path.display(), live.owner.0);
        self.plan.intent.remarks.push(format!("{path}: its mode and time stay as they are: it belongs to user {user}"));
    }

    fn clear(&mut self, path: &Path, live: Seen) -> Result<()> {
        self.may_move(path, live)?;
        if !self.cleared.insert(path.to_path_buf()) {
            return Ok(());
        }
        self.may_go_along(path)?;
        self.changes(path)?;
        if databases::stands(self.root, path)? {
            refuse_database(self.root, &self.plan.intent, path)?;
        }
        self.plan.intent.clear.push(Clear { path: Name(path.to_path_buf()), live: live.stamp });
        self.plan.intent.removed.push(Name(path.to_path_buf()));
        Ok(())
    }

    /// What is moved to another folder must be writable itself if it is one, since it has another parent then; and out
    /// of a sticky folder only who owns either may move it.
    fn may_move(&self, path: &Path, live: Seen) -> Result<()> {
        let refuse = |why: &str| {
            Err(Error::failed(why)
                .at(self.root.place(path))
                .hint("change its mode or owner, or restore as its owner; nothing was changed"))
        };
        if live.kind == Kind::Folder && self.root.may_write(path).is_err() {
            return refuse("this folder is to go, and cannot be moved, since it may not be written");
        }
        let above = self.root.seen(path.parent().unwrap_or(Path::new("")))?;
        if above.is_some_and(|above| above.mode & STICKY != 0 && !self.may_set(above)) && !self.may_set(live) {
            return refuse("this is another user's, and its folder lets only that one replace it (sticky)");
        }
        Ok(())
    }

    /// What lies beside `path` under the names of sidecars goes where that goes, so it has to be movable, too.
    fn may_go_along(&self, path: &Path) -> Result<()> {
        for beside in standing_sidecars(self.root, path)? {
            let Some(live) = self.root.seen(&beside)? else { continue };
            if live.mount != self.top.mount || live.device != self.top.device {
                return Err(self.other_mount(&beside));
            }
            self.may_move(&beside, live)?;
        }
        Ok(())
    }

    /// What goes is deleted in the end, so all of it must be in a backup, and none of it mounted.
    fn may_go(&self, path: &Path) -> Result<()> {
        match self.obstacle(path, self.options.excluded)? {
            None => Ok(()),
            Some(at) => Err(Error::failed("this is in the way, and no backup holds it")
                .at(self.root.place(&at))
                .hint("move it away; nothing was changed")),
        }
    }

    fn obstacle(&self, path: &Path, stays: &dyn Fn(&Path) -> bool) -> Result<Option<PathBuf>> {
        let Some(seen) = self.root.seen(path)? else { return Ok(None) };
        if is_own(path) || (self.options.ignored)(path) || stays(path) || seen.mount != self.top.mount {
            return Ok(Some(path.to_path_buf()));
        }
        if seen.kind == Kind::Folder {
            for name in self.root.names(path)? {
                if let Some(found) = self.obstacle(&name, stays)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// A knowledge graph is one thing: of an old one nothing may stay beside a new one, nor what is excluded.
    fn graph(&mut self) -> Result<()> {
        if !self.options.graph || !self.plan.staged.iter().any(|path| is_graph(path)) {
            return Ok(());
        }
        let names = self.root.names(Path::new(""))?;
        names.iter().filter(|name| is_graph(name)).try_for_each(|name| self.graph_entry(name))
    }

    fn graph_entry(&mut self, path: &Path) -> Result<()> {
        let Some(live) = self.root.seen(path)?.filter(|_| !(self.options.ignored)(path)) else { return Ok(()) };
        let is_staged = self.plan.staged.contains(path);
        if is_staged && live.kind != Kind::Folder {
            return Ok(());
        }
        // A folder where a file was staged goes as a whole, with that file's move.
        if is_staged && self.moved.contains(path) {
            return Ok(());
        }
        if is_staged || (live.kind == Kind::Folder && self.obstacle(path, &|_| false)?.is_some()) {
            return self.root.names(path)?.iter().try_for_each(|name| self.graph_entry(name));
        }
        if live.mount != self.top.mount {
            return Err(self.other_mount(path));
        }
        self.parent_is_sound(path)?;
        // The sidecars of a database are taken away with it.
        if !base_of(path).is_some_and(|base| self.plan.databases.contains_key(&base)) {
            self.clear(path, live)?;
        }
        Ok(())
    }

    /// Lists what is live and was not restored: a folder once, without what is in it.
    fn extra(&mut self, folder: &Path) -> Result<()> {
        for path in self.root.names(folder)? {
            let Some(live) = self.root.seen(&path)? else { continue };
            if is_own(&path) || (self.options.ignored)(&path) || (self.options.excluded)(&path) {
                continue;
            }
            if self.plan.staged.contains(&path) {
                if live.kind == Kind::Folder && !self.moved.contains(&path) {
                    self.extra(&path)?;
                }
                continue;
            }
            let is_sidecar = base_of(&path).is_some_and(|base| {
                let goes = self.moved.contains(&base) || self.cleared.contains(&base);
                goes || self.plan.databases.contains_key(&base) || databases::header(self.root, &base).is_some()
            });
            if !self.cleared.contains(&path) && !is_sidecar {
                self.plan.intent.extra.push(Name(path));
            }
        }
        Ok(())
    }
}

/// Hashes and syncs a staged entry, and compares it with what is live.
fn measure(root: &Root, entry: &Entry) -> Result<Measured> {
    let staged = Path::new(NEW).join(&entry.path);
    let like = entry.live.filter(|live| live.kind == entry.staged.kind);
    if entry.staged.kind == Kind::Link {
        let text = root.link(&staged)?;
        let is_same = like.is_some() && root.link(&entry.path)? == text;
        return Ok(Measured { hash: blake3::hash(&text), header: None, is_same });
    }
    let failed = |error| Error::io("read what is staged", root.place(&staged), error);
    let unreadable = entry.staged.mode & 0o400 == 0;
    if unreadable {
        root.set(&staged, Some(entry.staged.mode | 0o400), None, entry.staged.mtime)?;
    }
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(root.place(&staged));
    if unreadable {
        root.set(&staged, Some(entry.staged.mode), None, entry.staged.mtime)?;
    }
    let mut file = opened.map_err(failed)?;
    let (hash, head) = hash_staged(&mut file).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let header = looks_like_database(&head);
    let is_same = like.is_some_and(|live| {
        live.stamp.size == entry.staged.stamp.size
            && hash_live(&root.place(&entry.path)).is_ok_and(|found| found == hash)
    });
    Ok(Measured { hash, header, is_same })
}

fn hash_staged(file: &mut File) -> std::io::Result<(blake3::Hash, Vec<u8>)> {
    let mut head = Vec::new();
    file.take(HEADER_BYTES as u64).read_to_end(&mut head)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head).update_reader(file)?;
    Ok((hasher.finalize(), head))
}

/// Hashes a live file, without dropping anybody's locks on it (I10).
pub fn hash_live(path: &Path) -> std::io::Result<blake3::Hash> {
    let file = FileHandle::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut block = Block::new(BLOCK);
    let mut offset = 0;
    loop {
        let got = file.read_at(&mut block, offset)?;
        hasher.update(&block[..got]);
        offset += got as u64;
        if got < BLOCK {
            return Ok(hasher.finalize());
        }
    }
}

/// Whether a database and what belongs to it can be written through SQLite: it has no sidecars of its own.
pub fn stands_alone(plan: &Plan, path: &Path) -> bool {
    plan.databases.contains_key(path) && sidecars(path).iter().all(|beside| !plan.staged.contains(beside))
}
