//! Gathering what the walk found: which entries are opened first, in which order they are saved, and what is looked for
//! again at the end.
//!
//! Files that are named like sidecars come last: then it is known which databases are images, and the verdict about
//! what lies beside them is given on the bytes that are read ([`super::sidecar`]).
//!
//! Large files that were there before are begun with on other cores at once: databases that have to be read in full
//! ([`super::images`]), and what consists of pages ([`super::scan`]). Only what differs is saved in their turn.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::ahead::{self, Ahead};
use super::capture::{Early, Open, capture_database, capture_file, open_database};
use super::captured::{Captured, Instead, Opening};
use super::complete::Asking;
use super::contents::Contents;
use super::first::First;
use super::images;
use super::parent::Parent;
use super::progress::Progress;
use super::same;
use super::save::Session;
use super::scan::Scans;
use super::sidecar::{HEAD, Sidecar, is_shared_memory};
use super::taking::Taking;
use super::tree::{Content, Entry, Node};
use crate::error::{Result, SourceError};
use crate::source::clock::TICK;
use crate::source::handle::FileHandle;
use crate::source::moved::Again;
use crate::source::walk::{Found, Identity, Kind, Walk, identity};
use crate::store::segment::Content as Segment;

/// How often folders that changed are listed again, at most; and if something is gone then, and nothing was found that
/// may have taken its place.
const LOOKS: u32 = 6;
const MOST_LOOKS: u32 = 18;
/// How often every file is asked whether it is what was captured; and each time that something is gone.
const ASKS: u32 = 4;
/// How often what is one thing at a moment and another at the next is tried: a database and none, there and replaced.
const TRIES: u32 = 3;

/// A snapshot's content, while it is gathered.
pub(super) struct Gathering<'a, 's> {
    pub(super) taking: &'a Taking<'a>,
    pub(super) session: &'a mut Session<'s>,
    pub(super) parent: &'a mut Parent,
    pub(super) progress: &'a dyn Progress,
    pub(super) walked: Walk,
    pub(super) first: First,
    pub(super) contents: Contents,
}

/// A file that was seen where it was moved to, and could not be read there.
struct Missed {
    path: PathBuf,
    times: u32,
    born: Option<i128>,
}

impl Gathering<'_, '_> {
    /// Saves what is at `places` in the walk.
    fn capture(&mut self, mut places: Vec<usize>) -> Result<()> {
        let (walked, first) = (&self.walked, &self.first);
        self.contents.expect(walked.found.len(), places.len());
        let to_be_read = places.iter().filter(|at| self.is_to_be_read(**at)).copied();
        let mut scans = Scans::among(to_be_read, &walked.found, self.parent);
        let scanned = scans.places();
        places.sort_by_cached_key(|&at| {
            let path = &walked.found[at].path;
            match first.databases.get(path) {
                Some(open) => u8::from(!open.blocks_writers()),
                None if scanned.contains(&at) => 3,
                None if Sidecar::named(path).is_none() => 2,
                None => 4,
            }
        });
        let all = places.iter().map(|&at| walked.found[at].stamp.size).sum();
        let (catalog, source) = (self.taking.store.catalog(), self.taking.top.through());
        rayon::in_place_scope(|scope| {
            for &at in &places {
                let (found, parent) = (&self.walked.found[at], &*self.parent);
                if let Some((path, open)) = self.first.databases.remove_entry(&found.path) {
                    let open = open.lent(scope, catalog, |database| images::expected(database, found, parent));
                    self.first.databases.insert(path, open);
                }
            }
            for at in scanned {
                let found = &self.walked.found[at];
                scans.begin(scope, (catalog, source), at, (found, self.walked.folder_of(found)));
            }
            self.progress.begin("reading", all);
            self.capture_in_order(&places, scans)
        })?;
        self.progress.end();
        Ok(())
    }

    /// Saves what is at `places` in the walk, one after the other.
    fn capture_in_order(&mut self, places: &[usize], mut scans: Scans) -> Result<()> {
        let mut ahead = HashMap::new();
        for (nth, &at) in places.iter().enumerate() {
            let size = self.walked.found[at].stamp.size;
            match self.walked.found[at].kind {
                Kind::Directory => continue,
                Kind::Symlink => self.contents.symlink(self.taking.top.through(), at, &mut self.walked),
                Kind::File => {
                    if ahead.is_empty() && self.is_to_be_read(at) {
                        ahead = self.read_ahead(&places[nth..]);
                    }
                    let early = match scans.take(at) {
                        Some(scanned) => Some(Early::Scanned(scanned)),
                        None => ahead.remove(&at).map(Early::Read),
                    };
                    self.capture_one(at, early)?;
                }
            }
            self.progress.advance(size);
        }
        Ok(())
    }

    /// Whether the file at a place in the walk will be read, as far as that can be told.
    fn is_to_be_read(&self, at: usize) -> bool {
        let (found, first) = (&self.walked.found[at], &self.first);
        let is_known = first.vouched.contains(&at) || first.same.contains(&at);
        let is_plain = found.kind == Kind::File && !first.databases.contains_key(&found.path);
        is_plain && !is_known && Sidecar::named(&found.path).is_none()
    }

    /// Reads the next small files among `places` that have to be read, on all cores.
    fn read_ahead(&self, places: &[usize]) -> HashMap<usize, Ahead> {
        let mut left = ahead::ALL;
        let mut batch = Vec::new();
        for &at in places.iter().filter(|at| self.is_to_be_read(**at)) {
            let size = self.walked.found[at].stamp.size;
            if batch.len() >= ahead::FILES || size > left {
                break;
            }
            if size <= ahead::LARGEST {
                left -= size;
                batch.push(at);
            }
        }
        let (source, walked, reader) = (self.taking.top.through(), &self.walked, self.session.ahead());
        let read = |&at: &usize| {
            let found = &walked.found[at];
            Some((at, reader.read(source, found, walked.folder_of(found))?))
        };
        batch.par_iter().filter_map(read).collect()
    }

    fn capture_one(&mut self, at: usize, early: Option<Early>) -> Result<()> {
        let (taking, contents) = (self.taking, &mut self.contents);
        let found = &self.walked.found[at];
        let named = Sidecar::named(&found.path);
        if let Some((Sidecar::Memory, _)) = named
            && is_shared_memory(&taking.top.through().join(&found.path))
        {
            contents.leave_out(at, Sidecar::Memory, None, &mut self.walked);
            return Ok(());
        }
        let beside = named.as_ref().filter(|(_, base)| contents.images.contains_key(base)).map(|(which, _)| *which);
        self.first.close_others(identity(&found.stamp), &found.path);
        let (open, folder) = (self.first.databases.remove(&found.path), self.walked.folder_of(found));
        let before = self.parent.entry(found);
        // Beside an image only the bytes count. What a receipt vouches for may be a journal that once was kept, beside
        // a database that could not be read as an image then.
        if let (None, None, true) = (beside, &open, self.first.vouched.contains(&at))
            && let Some(receipt) = self.parent.receipt(found)
            && let Some(Entry { node: node @ Node::File { .. }, .. }) = before
        {
            contents.keep(at, node.clone(), found, receipt.clone(), self.parent.marks.get(&found.path));
            return Ok(());
        }
        if let (None, true, Some(Entry { node: node @ Node::File { .. }, .. })) =
            (&open, self.first.same.remove(&at), before)
        {
            contents.keep_same(taking.top.through(), at, node.clone(), found, taking.moment());
            return Ok(());
        }
        let before = match before {
            Some(Entry { node: Node::File { content, .. }, .. }) => Some(content),
            _ => None,
        };
        let session = &mut *self.session;
        let captured =
            taking.opening(|opening| read(session, opening, (found, folder), open, before, beside, early))?;
        if let Some(verdict) = captured.judged {
            contents.judged.insert(at, verdict);
        }
        if let (Some(Instead::Sidecar), Some((which, _))) = (captured.instead, &named) {
            let which = *which;
            contents.leave_out(at, which, captured.who, &mut self.walked);
        } else {
            contents.take(taking.top.through(), at, captured, before, taking.moment(), &mut self.walked);
        }
        if taking.options.separate_files {
            session.sink.close_segment(Segment::Data)?;
        }
        Ok(())
    }

    /// Saves everything that was found, and what was moved meanwhile.
    pub(super) fn gather(mut self) -> Result<(Walk, Contents)> {
        let all = self.parent.untouched.others(&self.walked);
        let places: Vec<usize> = all.iter().filter(|at| !self.first.vouched.contains(at)).copied().collect();
        let catalog = self.taking.store.catalog();
        self.first.same = same::find(catalog, self.taking.top.through(), &self.walked, self.parent, &places);
        self.capture(all)?;
        self.catch_moved()?;
        self.drop_sidecars();
        Ok((self.walked, self.contents))
    }

    /// Captures what was moved meanwhile, so that the walk missed it or it was gone when its turn came. What is known
    /// to be there and cannot be caught is an entry that cannot be captured.
    fn catch_moved(&mut self) -> Result<()> {
        let taking = self.taking;
        let mut again = Again::new(&taking.top, &taking.exclusions, &taking.clock, taking.since);
        let mut missed: HashMap<Identity, Missed> = HashMap::new();
        // Places that were found empty, and for what took theirs was looked since.
        let mut answered: HashSet<usize> = HashSet::new();
        let mut asking = Asking::new(taking.since);
        // Something is gone, and nothing else was captured since.
        let mut is_owed = false;
        let mut lost = Vec::new();
        for nth in 0..MOST_LOOKS {
            if nth >= LOOKS && !is_owed && self.standing(&answered).is_empty() {
                break;
            }
            // Databases are opened by name.
            taking.check_place()?;
            // Listed, and gone before it was looked at: it has no place that could be empty.
            let has_vanished = !self.walked.vanished.is_empty();
            let changed = again.changed(&mut self.walked);
            self.give_up_subtrees(changed.iter().map(|folder| folder.at))?;
            let gone = self.gone();
            let empty = self.empty(&gone, &answered);
            let has_gone = std::mem::take(&mut self.contents.went);
            let is_emptied = has_gone || !empty.is_empty();
            is_owed |= has_vanished || is_emptied;
            let look = again.look(&mut self.walked, &changed, &self.contents.settled, &gone);
            answered.extend(empty);
            self.contents.nodes.resize(self.walked.found.len(), None);
            look.displaced.iter().for_each(|who| self.contents.settled.forget(*who));
            lost = look.lost;
            let places: Vec<usize> = look.seen.iter().map(|(at, _)| *at).collect();
            for at in &places {
                answered.remove(at);
            }
            self.capture_again(places)?;
            let is_asked = is_emptied || nth < ASKS;
            let any = is_asked && self.complete(&mut asking, changed.len())?;
            if look.calm && !any {
                self.contents.calm = nth == 0;
                // What was gone at its new place is in no folder now: it was deleted.
                return Ok(());
            }
            is_owed &= !look.seen.iter().any(|(at, _)| self.contents.nodes[*at].is_some());
            for (at, born) in look.seen {
                let found = &self.walked.found[at];
                // If something else stands in its place, it was replaced, or the next look sees it elsewhere.
                if self.contents.nodes[at].is_none() && !self.contents.settled.has(identity(&found.stamp)) {
                    let new = Missed { path: found.path.clone(), times: 0, born };
                    missed.entry(identity(&found.stamp)).or_insert(new).times += 1;
                }
            }
        }
        self.catch_replaced(&answered)?;
        let named: Vec<PathBuf> = self.walked.errors.iter().map(|error| error.path.clone()).collect();
        let reason = "it was moved each time before it could be read; take another snapshot";
        self.walked.errors.extend(lost.into_iter().map(|path| SourceError::new(path, reason)));
        for (who, Missed { path, times, born }) in missed {
            // One that was made in the tick in which the snapshot began may look older than it, and may be deleted.
            let is_older = born.map_or(times > 1, |born| born + TICK < taking.since);
            if is_older && !self.contents.settled.has(who) && !named.contains(&path) {
                self.walked.errors.push(SourceError::new(path, reason));
            }
        }
        Ok(())
    }

    /// Captures what is at these places now.
    fn capture_again(&mut self, places: Vec<usize>) -> Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        self.taking.look_first(&self.walked, self.parent, &places, &mut self.first);
        self.capture(places)
    }

    /// Captures again what has another content by now; so many `folders` changed. Answers whether there was anything.
    fn complete(&mut self, asking: &mut Asking, folders: usize) -> Result<bool> {
        let (source, untouched) = (&self.taking.top, &self.parent.untouched);
        let others = asking.others(source, (&self.walked, folders), &self.contents, untouched, &self.taking.clock);
        let any = !others.places.is_empty() || !others.folders.is_empty();
        // Else what vouched for it as the walk saw it would do so again.
        for (at, now) in others.now {
            self.walked.found[at].become_now(now);
        }
        self.capture_again(others.places)?;
        self.give_up_subtrees(others.folders.into_iter())?;
        Ok(any)
    }

    /// Captures what stands where a place is empty still, and was not `answered` for, without another look at anything
    /// else. What is gone again each time, and stands there in the end, is an entry that cannot be captured.
    fn catch_replaced(&mut self, answered: &HashSet<usize>) -> Result<()> {
        for _ in 0..TRIES {
            let places = self.standing(answered);
            if places.is_empty() {
                return Ok(());
            }
            self.capture_again(places)?;
        }
        let reason = "it was replaced each time before it could be read; take another snapshot";
        let left = self.standing(answered);
        let named = left.into_iter().map(|at| SourceError::new(&self.walked.found[at].path, reason));
        let named: Vec<SourceError> = named.collect();
        self.walked.errors.extend(named);
        Ok(())
    }

    /// Places that are empty, and were not `answered` for, at which a file or a link stands now. What is not there any
    /// more was deleted, or goes on under another name.
    fn standing(&mut self, answered: &HashSet<usize>) -> Vec<usize> {
        let mut places = self.empty(&self.gone(), answered);
        places.retain(|&at| {
            let Found { path, parent, .. } = self.walked.found[at].clone();
            let meta = std::fs::symlink_metadata(self.taking.top.through().join(&path));
            let Some(meta) = meta.ok().filter(|meta| meta.is_file() || meta.is_symlink()) else { return false };
            let kind = if meta.is_file() { Kind::File } else { Kind::Symlink };
            self.walked.found[at] = Found::new(path, parent, kind, &meta);
            true
        });
        places
    }

    /// Looks at each entry of the subtrees in which any of the `folders` are. In the others everything is settled,
    /// which is asked only if there are any.
    fn give_up_subtrees(&mut self, folders: impl ExactSizeIterator<Item = usize>) -> Result<()> {
        let (parent, any) = (&mut *self.parent, folders.len() > 0);
        let given_up: Vec<_> = folders.filter_map(|at| parent.untouched.give_up(at)).collect();
        if !given_up.is_empty() {
            self.taking.load(parent, &self.walked);
            let mut places: Vec<usize> = given_up.into_iter().flatten().collect();
            for at in &places {
                self.contents.settled.forget(identity(&self.walked.found[*at].stamp));
            }
            self.contents.nodes.resize(self.walked.found.len(), None);
            // Files have their receipts. What vouches for a link is the digest: it may be gone from there by now.
            places.retain(|&at| {
                let found = &self.walked.found[at];
                let node = parent.entry(found).map(|entry| &entry.node).filter(|_| found.kind == Kind::Symlink);
                let Some(node @ Node::Symlink(_)) = node else { return true };
                self.contents.keep_link(at, found, node.clone());
                false
            });
            self.capture_again(places)?;
        }
        if any {
            let places = self.parent.untouched.places();
            let entries = places.map(|at| &self.walked.found[at]).filter(|found| found.kind != Kind::Directory);
            entries.for_each(|found| self.contents.settled.add(&found.stamp));
        }
        Ok(())
    }

    /// Places in the walk that were empty when their turn came, or at which something else was read than the walk saw.
    fn gone(&self) -> Vec<usize> {
        let (found, contents) = (&self.walked.found, &self.contents);
        let named: HashSet<&Path> = self.walked.errors.iter().map(|error| &*error.path).collect();
        let is_gone = |at: &usize| {
            let Found { kind, path, stamp, .. } = &found[*at];
            // Of what was captured at another place only its own stamp tells that it was it.
            let is_here = contents.nodes[*at].is_some() || contents.left_out.contains_key(at);
            let is_settled =
                if is_here { contents.settled.has(identity(stamp)) } else { contents.settled.has_as(stamp) };
            *kind != Kind::Directory && !is_settled && !named.contains(&**path)
        };
        self.parent.untouched.others(&self.walked).into_iter().filter(is_gone).collect()
    }

    /// Those of the places that are `gone` of which the snapshot has nothing, and that were not `answered` for: what is
    /// there now may be new, and stand for what was there.
    fn empty(&self, gone: &[usize], answered: &HashSet<usize>) -> Vec<usize> {
        let contents = &self.contents;
        let has_something = |at: &usize| contents.nodes[*at].is_some() || contents.left_out.contains_key(at);
        // The sidecars of an image come and go, and are not wanted.
        let is_of_image = |at: &usize| {
            let named = Sidecar::named(&self.walked.found[*at].path);
            named.is_some_and(|(_, base)| contents.images.contains_key(&base))
        };
        let is_empty = |at: &&usize| !has_something(at) && !answered.contains(at) && !is_of_image(at);
        gone.iter().filter(is_empty).copied().collect()
    }

    /// Takes away what lies beside an image and would be played into it. Only what was saved before its database turned
    /// out to be one is left here.
    fn drop_sidecars(&mut self) {
        if self.contents.images.is_empty() {
            return;
        }
        // No subtree has any.
        for at in self.parent.untouched.others(&self.walked) {
            let path = &self.walked.found[at].path;
            let Some((which, base)) = Sidecar::named(path) else { continue };
            let is_beside = self.contents.images.contains_key(&base) && self.contents.nodes[at].is_some();
            if which == Sidecar::Memory || !is_beside {
                continue;
            }
            let is_one = self.contents.judged.get(&at).copied().unwrap_or_else(|| {
                // A receipt vouched for it, so it is what it was.
                let mut head = [0; HEAD];
                let bytes =
                    FileHandle::open(&self.taking.top.through().join(path)).and_then(|file| file.read_at(&mut head, 0));
                bytes.map_or(true, |got| which.is_true(&head[..got]))
            });
            if is_one {
                self.contents.leave_out(at, which, None, &mut self.walked);
            }
        }
    }
}

/// Reads one file: the database that is open, or bytes, unless they turn out to be a database's.
fn read(
    session: &mut Session<'_>,
    opening: &Opening<'_>,
    (found, folder): (&Found, Identity),
    mut open: Option<Open>,
    before: Option<&Content>,
    beside: Option<Sidecar>,
    mut early: Option<Early>,
) -> Result<Captured> {
    for _ in 0..TRIES {
        let captured = match open.take() {
            Some(open) => capture_database(session, opening, (found, folder), open, before)?,
            None => capture_file(session, opening.through, (found, folder), before, beside, early.take())?,
        };
        if captured.instead != Some(Instead::Database) {
            return Ok(captured);
        }
        // It became one since the first look, or something was in the way of that.
        match open_database(opening, found, folder, None) {
            Ok(opened) => open = opened,
            // It is somewhere else, or was replaced.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Captured::gone()),
            Err(error) => return Ok(Captured::failed(error)),
        }
    }
    Ok(Captured::failed("it is a database at one moment and none at the next"))
}
