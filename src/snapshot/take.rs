//! Taking a snapshot.
//!
//! 1. Walk, by stat. What a receipt vouches for is not looked at again; of everything else the first bytes are read,
//!    which tells the databases.
//!    If all is as the last walk saw it, the rest is not needed ([`super::still`]).
//! 2. Open every changed database: all transactions begin here, close together. If one was opened, walk again, so that
//!    no file is older than they are.
//! 3. Save content: databases first, since a reader is in somebody's way (a rollback journal's writer, a checkpoint
//!    that restarts the log), and each is released as soon as it was read; then the files, and what is named like a
//!    database's sidecar last ([`super::gather`]). Then look for what was moved meanwhile ([`crate::source::moved`]).
//! 4. Build the trees from the bottom. If the root is the parent's, nothing changed and nothing is stored; unless the
//!    store has lost something that the parent names: then that was gathered again, and is committed.
//! 5. Commit: flush, then the record (I1). Then bring the index up to date; a failure there loses no snapshot.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::contents::Contents;
pub use super::contents::Listed;
use super::early;
use super::gather::Gathering;
use super::instance::instance;
use super::lack;
use super::look;
use super::now::now_nanos;
use super::outward;
use super::parent::{Parent, name_of};
use super::places::known_as;
use super::progress::Progress;
use super::receipts::Receipts;
use super::record::{LONGEST_NOTE, MOST_UNREADABLE, Record, TAGS};
use super::save::Session;
use super::scratch::Scratch;
use super::still::{self, Still};
use super::store::Store;
use super::subtree::{Digests, Drafts};
use super::taking::Taking;
pub use super::taking::{Options, Taken};
use super::tree::{Attributes, Entry, Node, Tree};
use crate::error::{Error, Result, SourceError};
use crate::id::{PackId, SnapshotId, TreeId};
use crate::index::WHOLE_PACK;
use crate::source::clock::{Clock, ahead};
use crate::source::exclude::Exclusions;
use crate::source::mounts::{Mounts, unmounted};
use crate::source::sqlite;
use crate::source::top::Top;
use crate::source::walk::{Found, Kind, Walk, walk};
use crate::store::memory::Discard;
use crate::store::objects::{Key, Kind as ObjectKind};
use crate::store::sink::PackSink;

/// How often, and after how long each time, a data directory that is not in its place is looked for again.
const PATIENCE: u32 = 100;
const MOMENT: Duration = Duration::from_millis(20);

/// Takes a snapshot of `options.source` into `store`, which must be open for writing unless it is a dry run.
pub fn take(store: &mut Store, options: &Options, progress: &dyn Progress) -> Result<Taken> {
    sqlite::check_version()?;
    if options.note.as_ref().is_some_and(|note| note.len() > LONGEST_NOTE) {
        return Err(Error::usage(format!("a note has at most {LONGEST_NOTE} bytes")));
    }
    if options.tags.len() > TAGS.0 || options.tags.iter().any(|tag| tag.is_empty() || tag.len() > TAGS.1) {
        return Err(Error::usage(format!("a snapshot has at most {} tags, of 1 to {} bytes each", TAGS.0, TAGS.1)));
    }
    // A tag that reads like another way to name a snapshot would name a different one than its owner thinks.
    let ambiguous = |tag: &&String| {
        *tag == "latest" || look::reads_as_time(tag) || tag.len() >= 4 && tag.bytes().all(|b| b.is_ascii_hexdigit())
    };
    if let Some(tag) = options.tags.iter().find(ambiguous) {
        return Err(Error::usage(format!("`{tag}` cannot be a tag: it names a snapshot in another way")));
    }
    if options.exclude.iter().any(|glob| glob.trim_matches(['/', '.', ' ']).is_empty()) {
        return Err(Error::usage("a pattern to exclude is empty: it would leave out everything"));
    }
    let source = std::fs::canonicalize(&options.source).map_err(|error| {
        Error::io("open the data directory", &options.source, error).hint("--data-dir names another")
    })?;
    let top = Top::open(&source)
        .map_err(|error| Error::io("open the data directory", &source, error).hint("--data-dir names another"))?;
    let exclusions = Exclusions::new(options.own_folders.clone(), &options.exclude)
        .map_err(|error| Error::usage("a pattern to exclude is not a glob").because(error))?
        .despite(options.despite.clone());
    let mounts = Mounts::below(&source);
    let began = now_nanos();
    let taking = Taking {
        store,
        options,
        exclusions,
        scratch: Scratch::beside(&source),
        clock: Clock::of(&source, &mounts),
        mounts,
        source,
        top,
        remarks: RefCell::default(),
        since: began,
        began,
        steady: began,
        ahead: ahead(),
    };
    taking.run(progress)
}

impl Taking<'_> {
    fn run(mut self, progress: &dyn Progress) -> Result<Taken> {
        let began = self.began;
        let source_name = known_as(self.options.name.as_deref(), &self.source);
        self.steady = self.steady_since(&source_name);
        if !self.clock.is_ours() {
            // Before anything is opened: what was seen by then tells what time it was.
            self.walk()?;
        }
        self.since = self.clock.now().min(self.since);
        let head = self.store.head()?;
        let (sequence, previous) = head.next;
        let instance = instance(self.top.through());
        let record = head.newest_by(&source_name, instance).cloned();
        let apart = instance.map(|own| head.apart(&source_name, own)).unwrap_or_default();

        let mut first = self.open_early(record.as_ref());
        let early = first.databases.len();
        let mut walked = self.walk()?;
        self.check_place()?;
        // Whose it is will decide what may go one day: another one's holds nothing for this one, were it the same. And
        // that there is another has to be on record, as early as it shows.
        let is_own = |record: &&Record| record.instance == instance && record.apart.len() == apart.len();
        let note = self.still_note(record.as_ref().filter(is_own));
        let mut digests = self.digests(&walked, note.as_ref());
        if early == 0
            && let (Some(note), Some(record)) = (note.as_ref(), record.as_ref())
            && let Some(taken) = self.still(note.clone(), record, &walked, &digests)
            // It does not say so of itself.
            && !self.options.beside.saw_restore()
        {
            return Ok(taken);
        }
        let mut parent = self.parent(record, &source_name, &walked, &digests);
        self.look_first(&walked, &parent, &parent.untouched.others(&walked), &mut first);
        if first.databases.len() > early {
            walked = self.walk()?;
            digests = self.digests(&walked, note.as_ref());
            self.suit(&mut parent, &walked, &digests);
            self.look_first(&walked, &parent, &parent.untouched.others(&walked), &mut first);
        }

        let catalog = self.store.catalog();
        let objects = if self.options.dry_run { Arc::new(Discard) } else { self.store.objects().clone() };
        let sink = PackSink::new(objects, catalog.packs().keys().clone());
        let mut session = Session::new(catalog, sink, parent.trusted);

        let (mut walked, mut contents) = Gathering {
            taking: &self,
            session: &mut session,
            parent: &mut parent,
            progress,
            walked,
            first,
            contents: Contents::new(),
        }
        .gather()?;
        self.check_place()?;
        self.name_unmounted(&mut walked);
        // All that is captured was read by now.
        if self.options.beside.saw_restore() {
            walked.errors.insert(0, lack::mixed());
        }
        if self.clock_was_set() {
            contents.distrust();
        }
        contents.remarks.extend(outward::remark([&self.source, &self.options.source], &walked, &contents, &parent));
        let ended = now_nanos();
        let left_out = contents.left_out_in_order();
        let keys = self.store.catalog().packs().keys();
        let digests = Digests::of(keys, &walked, &left_out, (&digests, &parent.untouched));
        let still = Still::of(&digests, left_out, &walked, &contents, &parent.untouched, self.moment());
        let drafts = Drafts::of(&walked, &contents, &digests, &parent.untouched, self.moment());
        let (tree, trees) = build_trees(&mut session, &walked, &parent, &mut contents)?;
        let root = attributes(&walked.found[0]);

        let broken = self.store.catalog().take_broken();
        if !broken.is_empty() && !self.options.dry_run {
            drop(session);
            return self.again_without(&broken, progress);
        }
        let (id, started) = (SnapshotId::random(), (began / 1_000_000) as i64);
        let same = parent
            .record
            .as_ref()
            .filter(is_own)
            .filter(|r| r.tree == tree && r.root == root && r.unreadable == named(&walked.errors));
        let asked_for = !self.options.tags.is_empty() || self.options.note.is_some();
        // Nothing changed, and yet something was stored: the store had lost it, and has it again with this snapshot
        // (I5).
        let unchanged = same.is_some() && !asked_for && session.sink.is_untouched();
        let record = match same {
            Some(record) if unchanged => record.clone(),
            _ => Record {
                id,
                sequence,
                previous,
                parent: parent.record.as_ref().map(|record| record.id),
                apart,
                instance,
                started,
                ended: (ended / 1_000_000) as i64,
                source: source_name.clone(),
                tree,
                root,
                totals: contents.totals,
                unreadable: named(&walked.errors),
                unreadable_count: walked.errors.len() as u64,
                tags: self.options.tags.clone(),
                note: self.options.note.clone(),
                program: env!("CARGO_PKG_VERSION").to_owned(),
            },
        };

        if contents.totals.files == 0 && walked.found.len() == 1 && !self.options.exclude.is_empty() {
            contents.remarks.push("everything in the data directory is excluded: the snapshot is empty".to_owned());
        }
        let (new_chunks, new_bytes) = (session.new_chunks, session.new_bytes);
        let stored = if unchanged { Vec::new() } else { session.sink.flush()?.commit(record.encode())? };
        let stored_bytes = stored.iter().map(|pack| pack.size).sum();
        if !self.options.dry_run {
            let (index, receipts) = (self.store.catalog_mut().index_mut(), contents.receipts);
            let noted = || {
                let files = drafts.others(&walked, receipts);
                (files, drafts.finish(&walked, &trees, (parent.noted(), &parent.untouched)))
            };
            // Each takes about as long as the other.
            let ((), (files, subtrees)) = rayon::join(|| index.add(&stored), noted);
            let (marks, packs) = (contents.marks, self.store.stamped());
            let receipts = Receipts { snapshot: record.id, files, marks, subtrees, packs };
            let is_new = parent.receipts.as_ref() != Some(&receipts);
            let still = still.zip(packs).map(|(still, packs)| still.encode_for(record.id, packs));
            self.note_clock(&record.source);
            self.remember(is_new.then_some(&receipts), still, &record);
            early::leave_note(self.store.catalog_mut().index_mut(), &record, contents.databases, &receipts);
            if !unchanged {
                self.store.leave_head(&head.follow(&record, self.store.catalog().packs().keys()));
            }
            if !parent.trusted {
                self.store.catalog_mut().index_mut().remember_mended();
            }
        }
        let mut remarks = self.remarks.take();
        remarks.append(&mut contents.remarks);
        remarks.dedup();
        Ok(Taken {
            record,
            unchanged,
            at_a_glance: false,
            taken_over: parent.untouched.places().count() as u64,
            new_chunks,
            new_bytes,
            stored_bytes,
            changed_files: contents.changed.len() as u64,
            entries: contents.entries,
            unreadable: walked.errors,
            remarks,
            excluded: walked.excluded,
            cut_ms: ((ended - began) / 1_000_000).max(0) as u64,
        })
    }

    /// Takes the snapshot anew: packs that the last one was built on do not open any more. What the parent snapshot
    /// names is no longer trusted, so that everything is looked up, and stored again if it is at hand.
    fn again_without(mut self, broken: &BTreeSet<PackId>, progress: &dyn Progress) -> Result<Taken> {
        let index = self.store.catalog_mut().index_mut();
        let mut damaged = index.damaged().clone();
        damaged.extend(broken.iter().map(|pack| (*pack, WHOLE_PACK)));
        index.remember_damaged(damaged);
        for pack in broken {
            let place = self.store.objects().place(Key::new(ObjectKind::Pack, pack.0));
            self.remarks.get_mut().push(format!(
                "{place}: this pack does not open; what is at hand of it is stored again. Run `nbak check` to see what \
                 earlier snapshots lost"
            ));
        }
        self.run(progress)
    }

    /// Fails if the data directory is not where it was, or another took its place. What is moved for a moment is waited
    /// for.
    pub(super) fn check_place(&self) -> Result<()> {
        for _ in 0..PATIENCE {
            if self.top.is_in_place() {
                return Ok(());
            }
            std::thread::sleep(MOMENT);
        }
        let what = "the data directory was moved, unmounted or replaced while it was captured: no snapshot was taken";
        Err(Error::failed(what).at(&self.source).hint("when it is in its place, take another snapshot"))
    }

    /// Names the folders on which something was mounted when this began, and is no more, or something else.
    fn name_unmounted(&self, walked: &mut Walk) {
        let now = Mounts::below(&self.source);
        let places = self.mounts.changed(&now).into_iter().filter_map(|place| place.strip_prefix(&self.source).ok());
        let is_left_out = |place: &&Path| {
            let mut above = place.ancestors().filter(|above| !above.as_os_str().is_empty());
            above.any(|above| self.exclusions.reason(above, &self.source).is_some())
        };
        walked.errors.extend(places.filter(|place| !is_left_out(place)).map(unmounted));
    }

    fn walk(&self) -> Result<Walk> {
        walk(&self.top, &self.exclusions, &self.clock)
            .map_err(|error| Error::io("read the data directory", &self.source, error).hint("--data-dir names another"))
    }

    /// Brings the index up to date. Only the cache is at stake here.
    fn remember(&mut self, receipts: Option<&Receipts>, still: Option<Vec<u8>>, record: &Record) {
        let source = &record.source;
        let index = self.store.catalog_mut().index_mut();
        if let Some(receipts) = receipts {
            index.leave_note(&Receipts::note_name(source), &receipts.encode());
        }
        if let Some(note) = still {
            let name = still::note_name(source);
            if index.note(&name).as_ref() != Some(&note) {
                index.leave_note(&name, &note);
            }
        }
    }
}

fn attributes(found: &Found) -> Attributes {
    let (mtime, mtime_nanos) = found.mtime();
    Attributes { mode: found.mode, uid: found.owner.0, gid: found.owner.1, mtime, mtime_nanos }
}

/// Builds the trees, deepest first, and answers with the root's id, and those of all that were built by their places.
fn build_trees(
    session: &mut Session<'_>,
    walked: &Walk,
    parent: &Parent,
    contents: &mut Contents,
) -> Result<(TreeId, HashMap<usize, TreeId>)> {
    let mut ids = HashMap::new();
    let mut children: HashMap<usize, Vec<Entry>> = HashMap::new();
    // The walk lists a directory before what is in it.
    for (at, found) in walked.found.iter().enumerate().rev() {
        if parent.untouched.is_inside(at) {
            // Known only where everything is listed.
            contents.entries.extend(parent.entry(found).map(|entry| Listed::of(found, &entry.node)));
            continue;
        }
        let (node, own) = if let Some((tree, totals)) = parent.untouched.tree(at) {
            contents.totals.add(&totals);
            let node = Node::Directory(tree);
            contents.list(found, &node);
            (node, None)
        } else if found.kind == Kind::Directory {
            let mut entries = children.remove(&at).unwrap_or_default();
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            let id = session.save_version(&Tree { entries }, parent.trees.get(&at))?;
            if at == 0 {
                contents.entries.reverse();
                return Ok((id, ids));
            }
            ids.insert(at, id);
            let node = Node::Directory(id);
            contents.list(found, &node);
            (node, None)
        } else {
            match contents.nodes[at].take() {
                Some((node, own)) => {
                    contents.list(found, &node);
                    (node, own)
                }
                None => continue,
            }
        };
        let attributes = own.unwrap_or_else(|| attributes(found));
        children.entry(found.parent).or_default().push(Entry { name: name_of(found).to_vec(), attributes, node });
    }
    Err(Error::failed("the walk did not begin with the data directory"))
}

fn named(errors: &[SourceError]) -> Vec<(String, String)> {
    let name = |error: &SourceError| (error.path.to_string_lossy().into_owned(), error.reason.clone());
    errors.iter().take(MOST_UNREADABLE).map(name).collect()
}
