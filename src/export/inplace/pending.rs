//! An interrupted restore, looked at: how far it came, and what was written since.
//!
//! Whoever finishes one puts an old state in place, maybe days later. So what is live is first held against the stamps
//! that the intent has of it. If all is as the restore left it, the machine died in the middle and nobody worked on
//! the rest: it is finished by the next command that may write. If not, somebody did, and only a person can say which
//! of both is to be there. What counts as written is
//!
//! - what stands where something is still to come, if it is not what the intent saw, and what is below it, or beside it
//!   under the names of sidecars;
//! - what was put in place, or was as it should be, and changed since, or has such a thing beside it: the rest would
//!   come beside it;
//! - what appeared or changed among the files of a knowledge graph that the restore is about.
//!
//! A person who has it finished over that gets the first kept aside, and what appeared beside a graph that is not
//! wholly exchanged: it is of the old one. The rest stays as it is, since nobody has what it is to be any more but the
//! store; so does what appeared beside a graph that is as it is to be, since it is of that one. It is noted in the
//! journal and named in the end, with exit code 3.
//!
//! What somebody has open of that may be written to any moment, and keeps it from being finished unasked as well.
//! Once nothing live is left to be moved, what was written is in nobody's way, and counts no more. A journal of an
//! older version has no stamps of what is below and beside: all of that counts then.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::called::{COMPARED, INTENT, NEW, OLD};
use super::company::{base_of, sidecars_with_content};
use super::intent::{Clear, Intent, Name, Touch, Way};
use super::old::refuse_copy;
use super::root::{Kind, Root, Seen, Stamp};
use super::staging::Staging;
use super::through;
use super::trust;
use crate::error::{Error, Result};
use crate::snapshot::graph::is_graph;

/// So many paths are named in a message.
const NAMED: usize = 5;

/// A restore in place that was begun and is not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// When its journal was written, in milliseconds since 1970.
    pub since: i64,
    /// What is restored, in words, if its journal says that.
    pub what: Option<String>,
    /// What was written since then, which keeps it from being finished without being asked for.
    pub written: Vec<PathBuf>,
    /// Why its journal cannot be read, or what it is about cannot be looked at.
    pub unreadable: Option<String>,
    /// It was given up, and that came to no end. Then nothing counts as written.
    pub given_up: bool,
}

impl Pending {
    /// One of which nothing else is known.
    fn since(since: i64) -> Pending {
        Pending { since, what: None, written: Vec::new(), unreadable: None, given_up: false }
    }

    /// Whether `restore --resume` can go on with it.
    pub fn can_be_finished(&self) -> bool {
        self.unreadable.is_none() && !self.given_up
    }

    /// What is to be known of it, in words.
    pub fn text(&self) -> String {
        let of = self.what.as_ref().map(|what| format!(" of {what}")).unwrap_or_default();
        let begun = format!("a restore in place{of}, begun at {},", crate::error::words::time(self.since));
        let what = format!("{begun} is half done: old and new data stand side by side");
        if self.given_up {
            return format!(
                "{begun} was given up, and that is half done: not all that it had \
                 replaced is where it is kept"
            );
        }
        match &self.unreadable {
            // Whether it is, is what cannot be told.
            Some(why) => format!("it seems that a restore in place is half done: {why}"),
            None if self.written.is_empty() => what,
            None => format!("{what}; written since: {}", named(&self.written)),
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        if self.unreadable.is_some() {
            "do what is said there, as the user that it belongs to: until then no command finishes it"
        } else if self.given_up {
            "`nbak restore --abandon` brings that to its end, and so does the next `nbak snapshot` or `nbak backup`"
        } else {
            "stop the application, then `nbak restore --resume` finishes it, and keeps or names what was written \
             since; `nbak restore --abandon` leaves the live data as it is, and keeps what was replaced"
        }
    }
}

/// The first of `paths`.
pub fn named(paths: &[PathBuf]) -> String {
    let first: Vec<String> = paths.iter().take(NAMED).map(|path| path.display().to_string()).collect();
    let more = if paths.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", first.join(", "))
}

/// The restore into `data` that was interrupted, if there is one, and none is under way. Nothing is changed, and
/// nothing waited for.
pub fn pending(data: &Path) -> Option<Pending> {
    let place = data.join(INTENT);
    let since = match place.symlink_metadata() {
        Ok(meta) => {
            let passed = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            passed.map_or(0, |passed| passed.as_millis() as i64)
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return None,
        Err(error) => {
            let error = Error::io("look for an interrupted restore", &place, error);
            let why = trust::is_there(data).err().unwrap_or(error).to_string();
            return Some(Pending { unreadable: Some(why), ..Pending::since(0) });
        }
    };
    let looked = Root::open(data).and_then(|root| {
        if Staging::is_under_way(&root) {
            return Ok(None);
        }
        let intent = Intent::read(&root)?;
        if Intent::is_given_up(&root)? {
            return Ok(Some(Pending { what: intent.what, given_up: true, ..Pending::since(since) }));
        }
        refuse_copy(&root, &intent)?;
        let written = in_the_way(&root, &intent)?;
        Ok(Some(Pending { what: intent.what, written, ..Pending::since(since) }))
    });
    match looked {
        Ok(found) => found,
        // It was finished in the meantime.
        Err(_) if !place.exists() => None,
        Err(error) => Some(Pending { unreadable: Some(error.to_string()), ..Pending::since(since) }),
    }
}

/// What a finished restore leaves until a person removes it: the folders of what must not be lost.
pub fn kept(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data).into_iter().flatten().flatten();
    let is_kept = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(".nbak-kept-");
    let mut found: Vec<PathBuf> =
        entries.filter(|entry| is_kept(&entry.file_name())).map(|entry| entry.path()).collect();
    found.sort_unstable();
    found
}

/// What was written since the intent.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// What is replaced, or goes, when the restore is finished: it is kept aside then.
    to_come: BTreeSet<PathBuf>,
    /// What the restore put in place, or found as it should be: that stays as it is.
    pub stays: BTreeSet<PathBuf>,
    /// What appeared beside a knowledge graph that is not wholly exchanged, also in place of what went, and may not
    /// stay beside a new one.
    pub beside_graph: BTreeSet<PathBuf>,
}

/// What was written since the intent, if anything live is still to be moved.
pub(super) fn in_the_way(root: &Root, intent: &Intent) -> Result<Vec<PathBuf>> {
    let Written { mut to_come, stays, beside_graph } = written(root, intent)?;
    to_come.extend(stays.into_iter().chain(beside_graph));
    Ok(to_come.into_iter().collect())
}

/// The same, by what becomes of it.
pub(super) fn written(root: &Root, intent: &Intent) -> Result<Written> {
    let mut found = Written::default();
    // Somebody began to finish it over that, and whoever ends it has to say so.
    found.stays.extend(intent.stayed.iter().map(|name| name.0.clone()));
    if !moves_live(root, intent)? {
        return Ok(found);
    }
    let is_staged = |path: &Path| intent.moves.iter().any(|other| other.path.0 == *path);
    for one in &intent.moves {
        let (path, live) = (&one.path.0, root.seen(&one.path.0)?);
        if one.is_pending(root)? {
            let is_as_it_was = match (live, one.live) {
                (Some(now), Some(then)) => now.stamp == then,
                // Between the two steps of an exchange nothing stands there.
                (None, Some(_)) => was_moved(root, intent, path)?,
                (None, None) => true,
                (Some(_), None) => false,
            };
            found.to_come.extend((!is_as_it_was).then(|| path.clone()));
            continue;
        }
        let is_as_placed = match one.way {
            // What it holds is asked by `written_through`.
            Way::Through => live.is_some_and(|now| now.kind == Kind::File),
            _ => live.is_some_and(|now| now.stamp == one.staged),
        };
        found.stays.extend((!is_as_placed).then(|| path.clone()));
        // A program may be at work in one that was written through SQLite.
        if one.way != Way::Through {
            let beside = sidecars_with_content(root, path)?;
            found.stays.extend(beside.into_keys().filter(|beside| !is_staged(beside)));
        }
    }
    let graph = is_graph_pending(root, intent)?;
    for one in &intent.clear {
        let is_other = root.seen(&one.path.0)?.is_some_and(|now| now.stamp != one.live && !is_made(intent, one, &now));
        // Once it was taken away, what comes there belongs to the graph that stands beside it.
        let is_of_graph = is_graph(&one.path.0) && !is_folder_to_be(intent, &one.path) && was_cleared(root, one)?;
        let becomes = match graph {
            _ if !is_of_graph => &mut found.to_come,
            true => &mut found.beside_graph,
            false => &mut found.stays,
        };
        becomes.extend(is_other.then(|| one.path.0.clone()));
    }
    for one in &intent.folders {
        let is_cleared = intent.clear.iter().any(|clear| clear.path == one.path);
        let is_other = root.seen(&one.path.0)?.is_some_and(|now| now.kind != Kind::Folder);
        found.to_come.extend((is_other && !is_cleared).then(|| one.path.0.clone()));
    }
    let touched: BTreeMap<&Name, &Touch> = intent.touch.iter().map(|one| (&one.path, one)).collect();
    for one in intent.same.iter().flatten() {
        let now = root.seen(&one.path.0)?;
        let is_as_it_was = match touched.get(&one.path) {
            Some(touch) => touch.is_as_it_was(one.live, now),
            None => now.is_some_and(|now| now.stamp == one.live),
        };
        found.stays.extend((!is_as_it_was).then(|| one.path.0.clone()));
    }
    for one in &intent.touch {
        let is_written = one.live.is_some_and(|then| !one.is_as_it_was(then, root.seen(&one.path.0).ok().flatten()));
        found.stays.extend(is_written.then(|| one.path.0.clone()));
    }
    let now = beside_and_below(root, intent)?;
    let Some(then) = &intent.standing else {
        found.to_come.extend(now.into_keys());
        found.stays.extend(beside_same(root, intent)?.into_keys());
        return Ok(found);
    };
    let then: BTreeMap<&Path, Stamp> = then.iter().map(|one| (one.path.0.as_path(), one.live)).collect();
    let is_other = |path: &Path, stamp: &Stamp| then.get(path) != Some(stamp);
    found.to_come.extend(now.into_iter().filter(|(path, stamp)| is_other(path, stamp)).map(|(path, _)| path));
    let now = beside_same(root, intent)?;
    found.stays.extend(now.into_iter().filter(|(path, stamp)| is_other(path, stamp)).map(|(path, _)| path));
    if !graph {
        found.stays.extend(written_to_graph(root, intent, &then)?);
        return Ok(found);
    }
    for (path, stamp) in of_graph(root, intent)? {
        if !then.contains_key(&*path) {
            found.beside_graph.insert(path);
        } else if is_other(&path, &stamp) {
            found.stays.insert(path);
        }
    }
    Ok(found)
}

/// The databases that were written through SQLite, and do not hold that any more, or of which it cannot be told: while
/// anything live is still to be moved. They are opened and read for that, so who only looks does not ask it.
pub(super) fn written_through(root: &Root, intent: &Intent) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !moves_live(root, intent)? {
        return Ok(found);
    }
    for one in intent.moves.iter().filter(|one| one.way == Way::Through) {
        let (path, done) = (&one.path.0, Path::new(OLD).join(&one.path.0));
        // One that is gone counts by that.
        let Some(live) = root.seen(path)?.filter(|now| now.kind == Kind::File) else { continue };
        if live.stamp == one.staged || one.is_pending(root)? {
            continue;
        }
        let is_noted = root.seen(&done)?.is_some_and(|seen| seen.stamp.inode == one.staged.inode);
        let is_same = || through::is_written(&root.place(&done), &root.place(path), &root.place(Path::new(COMPARED)));
        if !is_noted || !matches!(is_same(), Ok(true)) {
            found.push(path.clone());
        }
    }
    Ok(found)
}

/// Stamps of what the intent does not name one by one, and what goes with it: for [`in_the_way`] to compare with.
pub(super) fn standing(root: &Root, intent: &Intent) -> Result<Vec<Clear>> {
    let mut all = beside_and_below(root, intent)?;
    all.extend(beside_same(root, intent)?);
    all.extend(of_graph(root, intent)?);
    Ok(all.into_iter().map(|(path, live)| Clear { path: Name(path), live }).collect())
}

/// What finishing it takes away, with all that is below it: who has that open would go on writing to what is removed in
/// the end. A database that is written through SQLite stays the same file.
pub(super) fn still_to_go(root: &Root, intent: &Intent) -> Result<BTreeMap<PathBuf, Stamp>> {
    let mut found = beside_and_below(root, intent)?;
    for one in &intent.moves {
        let live = root.seen(&one.path.0)?;
        if let Some(now) = live.filter(|now| one.way != Way::Through || now.kind != Kind::File)
            && one.is_pending(root)?
        {
            found.insert(one.path.0.clone(), now.stamp);
        }
    }
    for one in &intent.clear {
        if let Some(now) = root.seen(&one.path.0)?.filter(|now| now.stamp == one.live) {
            found.insert(one.path.0.clone(), now.stamp);
        }
    }
    // What was replaced already lies in the staging, and goes with it.
    for one in &intent.moves {
        let old = Path::new(NEW).join(&one.path.0);
        if let Some(now) = root.seen(&old)?.filter(|now| now.stamp.inode != one.staged.inode) {
            if now.kind == Kind::Folder {
                below(root, &old, &mut found)?;
            }
            found.insert(old, now.stamp);
        }
    }
    if root.seen(Path::new(OLD))?.is_some() {
        below(root, Path::new(OLD), &mut found)?;
    }
    Ok(found)
}

/// What the restore is about and leaves as it is: what it put in place, and what it found as it should be. Nothing once
/// all of it stands in place: what uses it then uses what was restored.
pub(super) fn is_about(root: &Root, intent: &Intent) -> Result<BTreeMap<PathBuf, Stamp>> {
    let mut found = BTreeMap::new();
    // Who writes into databases that programs have open has them at work beside it.
    let is_into_live = intent.moves.iter().any(|one| one.way == Way::Through);
    if is_into_live || !moves_live(root, intent)? {
        return Ok(found);
    }
    let placed = intent.moves.iter().map(|one| &one.path.0);
    for path in placed.chain(intent.same.iter().flatten().map(|one| &one.path.0)) {
        if let Some(now) = root.seen(path)?.filter(|now| now.kind == Kind::File) {
            found.insert(path.clone(), now.stamp);
        }
    }
    Ok(found)
}

/// What stands beside what is still to be exchanged or to go, under the names of sidecars, and below folders of that.
fn beside_and_below(root: &Root, intent: &Intent) -> Result<BTreeMap<PathBuf, Stamp>> {
    let mut found = BTreeMap::new();
    for one in &intent.moves {
        if !one.is_pending(root)? {
            continue;
        }
        found.extend(sidecars_with_content(root, &one.path.0)?);
        if root.seen(&one.path.0)?.is_some_and(|now| now.kind == Kind::Folder) {
            below(root, &one.path.0, &mut found)?;
        }
    }
    for one in &intent.clear {
        let Some(now) = root.seen(&one.path.0)?.filter(|now| !is_made(intent, one, now)) else { continue };
        if now.kind == Kind::Folder {
            if now.stamp == one.live {
                below(root, &one.path.0, &mut found)?;
            }
        } else if now.stamp == one.live || !was_cleared(root, one)? {
            found.extend(sidecars_with_content(root, &one.path.0)?);
        }
    }
    for one in &intent.folders {
        if root.seen(&one.path.0)?.is_some_and(|now| now.kind != Kind::Folder) {
            found.extend(sidecars_with_content(root, &one.path.0)?);
        }
    }
    Ok(found)
}

/// What stands beside files that are as they are to be, under the names of sidecars, and is none of what the intent
/// names.
fn beside_same(root: &Root, intent: &Intent) -> Result<BTreeMap<PathBuf, Stamp>> {
    let mut found = BTreeMap::new();
    let named = intent.moves.iter().map(|one| &one.path).chain(intent.clear.iter().map(|one| &one.path));
    let named = named.chain(intent.same.iter().flatten().map(|one| &one.path));
    let named: BTreeSet<&Path> = named.map(|name| name.0.as_path()).collect();
    let same = files_that_are_same(intent);
    // Folder by folder: there are many of them, and few have anything beside them.
    let folders: BTreeSet<&Path> = same.iter().filter_map(|path| path.parent()).collect();
    for folder in folders {
        for path in root.names(folder)? {
            let Some(base) = base_of(&path).filter(|base| same.contains(base.as_path())) else { continue };
            if !named.contains(path.as_path()) && !found.contains_key(&path) {
                found.extend(sidecars_with_content(root, &base)?);
            }
        }
    }
    found.retain(|path, _| !named.contains(path.as_path()));
    Ok(found)
}

fn files_that_are_same(intent: &Intent) -> BTreeSet<&Path> {
    let same = intent.same.iter().flatten().filter(|one| !one.is_folder());
    same.map(|one| one.path.0.as_path()).collect()
}

/// Whether a knowledge graph is not wholly exchanged: some of it is still to come, or to go.
fn is_graph_pending(root: &Root, intent: &Intent) -> Result<bool> {
    for one in intent.moves.iter().filter(|one| is_graph(&one.path.0)) {
        if one.is_pending(root)? {
            return Ok(true);
        }
    }
    for one in intent.clear.iter().filter(|one| is_graph(&one.path.0)) {
        let now = root.seen(&one.path.0)?.filter(|now| !is_made(intent, one, now));
        if let Some(now) = now
            && (now.stamp == one.live || !was_cleared(root, one)?)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What stands of a knowledge graph that the restore is about, and that the intent does not name. What lies in a folder
/// that the restore makes, and is not to come there, came since.
fn of_graph(root: &Root, intent: &Intent) -> Result<BTreeMap<PathBuf, Stamp>> {
    let mut all = all_of_graph(root, intent)?;
    let moved: BTreeSet<&Path> = intent.moves.iter().map(|one| one.path.0.as_path()).collect();
    let made: BTreeSet<&Path> = intent.folders.iter().map(|one| one.path.0.as_path()).collect();
    let cleared = intent.clear.iter().map(|one| one.path.0.as_path()).filter(|path| !made.contains(path));
    // Those are looked at by their own stamps, with what is below and beside them.
    let gone: BTreeSet<&Path> = cleared.chain(moved.iter().copied()).collect();
    let same = files_that_are_same(intent);
    let is_beside = |path: &Path| base_of(path).is_some_and(|base| moved.contains(&*base) || same.contains(&*base));
    all.retain(|path, _| {
        !made.contains(path.as_path()) && !path.ancestors().any(|above| gone.contains(above)) && !is_beside(path)
    });
    Ok(all)
}

fn all_of_graph(root: &Root, intent: &Intent) -> Result<BTreeMap<PathBuf, Stamp>> {
    let mut all = BTreeMap::new();
    let moved = intent.moves.iter().map(|one| &one.path).chain(intent.clear.iter().map(|one| &one.path));
    let others = intent.folders.iter().map(|one| &one.path);
    let mut about = moved.chain(others).chain(intent.same.iter().flatten().map(|one| &one.path));
    if !about.any(|name| is_graph(&name.0)) {
        return Ok(all);
    }
    for top in root.names(Path::new(""))?.into_iter().filter(|top| is_graph(top)) {
        let Some(now) = root.seen(&top)? else { continue };
        if now.kind == Kind::Folder {
            below(root, &top, &mut all)?;
        } else {
            all.insert(top, now.stamp);
        }
    }
    Ok(all)
}

/// What came, changed or went beside and below a knowledge graph that is as it is to be: an engine that has opened it
/// plays that into it. `then` stood there when the intent was written.
fn written_to_graph(root: &Root, intent: &Intent, then: &BTreeMap<&Path, Stamp>) -> Result<BTreeSet<PathBuf>> {
    let moved: BTreeSet<&Path> = intent.moves.iter().map(|one| one.path.0.as_path()).collect();
    let cleared = intent.clear.iter().map(|one| &one.path).filter(|path| !is_folder_to_be(intent, path));
    let gone: BTreeSet<&Path> = cleared.map(|name| name.0.as_path()).chain(moved.iter().copied()).collect();
    let same = files_that_are_same(intent);
    let folders = intent.folders.iter().map(|one| &one.path);
    let known = folders.chain(intent.same.iter().flatten().map(|one| &one.path));
    let known: BTreeSet<&Path> = known.map(|name| name.0.as_path()).collect();
    // All of those are looked at by their own stamps, and what is beside files with them.
    let is_looked_at = |path: &Path| {
        let is_file = |base: &Path| moved.contains(base) || same.contains(base);
        known.contains(path)
            || path.ancestors().any(|above| gone.contains(above))
            || base_of(path).is_some_and(|base| is_file(&base))
    };
    let went_along = |path: &Path| base_of(path).is_some_and(|base| gone.contains(&*base));
    let now = all_of_graph(root, intent)?;
    let other = now.iter().filter(|(path, stamp)| then.get(path.as_path()) != Some(stamp)).map(|(path, _)| &**path);
    let gone_since = then.keys().copied();
    let gone_since = gone_since.filter(|path| is_graph(path) && !now.contains_key(*path) && !went_along(path));
    Ok(other.chain(gone_since).filter(|path| !is_looked_at(path)).map(Path::to_path_buf).collect())
}

fn below(root: &Root, folder: &Path, found: &mut BTreeMap<PathBuf, Stamp>) -> Result<()> {
    for path in root.names(folder)? {
        let Some(now) = root.seen(&path)? else { continue };
        if now.kind == Kind::Folder {
            below(root, &path, found)?;
        }
        found.insert(path, now.stamp);
    }
    Ok(())
}

/// Whether the restore itself took it away.
fn was_moved(root: &Root, intent: &Intent, path: &Path) -> Result<bool> {
    Ok(root.seen(&Path::new(OLD).join(path))?.is_some() || root.seen(&Path::new(&intent.kept).join(path))?.is_some())
}

/// Whether the folder that the restore makes in place of what is cleared stands there.
fn is_made(intent: &Intent, one: &Clear, now: &Seen) -> bool {
    now.kind == Kind::Folder && is_folder_to_be(intent, &one.path)
}

/// Whether a folder is to stand there in the end.
fn is_folder_to_be(intent: &Intent, path: &Name) -> bool {
    intent.folders.iter().any(|folder| folder.path == *path)
}

/// Whether what was to go was taken away: what stands there came later.
fn was_cleared(root: &Root, one: &Clear) -> Result<bool> {
    Ok(root.seen(&Path::new(OLD).join(&one.path.0))?.is_some())
}

/// Whether finishing it takes anything from where it is live.
fn moves_live(root: &Root, intent: &Intent) -> Result<bool> {
    for one in &intent.moves {
        if one.is_pending(root)? {
            return Ok(true);
        }
    }
    for one in &intent.clear {
        let now = root.seen(&one.path.0)?.filter(|now| !is_made(intent, one, now));
        // What came there after the old one went is left where it is.
        if let Some(now) = now
            && (now.stamp == one.live || !was_cleared(root, one)?)
        {
            return Ok(true);
        }
    }
    for one in &intent.folders {
        if root.seen(&one.path.0)?.is_some_and(|now| now.kind != Kind::Folder) {
            return Ok(true);
        }
    }
    Ok(false)
}
