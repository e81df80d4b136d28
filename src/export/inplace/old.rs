//! What was taken away, held against what the intent says of it.
//!
//! All of it is removed in the end, since the safety backup has it: as it was when the intent was written, and not as
//! it is if somebody wrote to it after that. The stamp of a folder says nothing of what is below it, so that is asked
//! too.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::called::{INTENT, NEW};
use super::company::is_true;
use super::databases::standing_sidecars;
use super::intent::{Intent, Move, Way};
use super::origin::Origin;
use super::plan::hash_live;
use super::root::{Kind, Root, Stamp};
use crate::error::{Error, Result};
use crate::snapshot::sidecar::Sidecar;

/// What an intent noted of what it does not name one by one, by path.
pub type Noted<'a> = BTreeMap<&'a Path, Stamp>;

/// Empty for a journal of an older version: then nothing is known of any of it.
pub fn noted(intent: &Intent) -> Noted<'_> {
    intent.standing.iter().flatten().map(|one| (one.path.0.as_path(), one.live)).collect()
}

/// What stood at `path` when `intent` was written.
pub fn stood(intent: &Intent, noted: &Noted<'_>, path: &Path) -> Option<Stamp> {
    let cleared = intent.clear.iter().find(|one| one.path.0 == *path).map(|one| one.live);
    let moved = || intent.moves.iter().find(|one| one.path.0 == *path).and_then(|one| one.live);
    cleared.or_else(moved).or_else(|| noted.get(path).copied())
}

/// Whether what stands at `at`, and was `path`, is what stood there `then`, and has nothing below it that was not.
pub fn is_as_noted(root: &Root, noted: &Noted<'_>, at: &Path, path: &Path, then: Option<Stamp>) -> Result<bool> {
    let Some(now) = root.seen(at)? else { return Ok(true) };
    if then != Some(now.stamp) {
        return Ok(false);
    }
    if now.kind == Kind::Folder {
        for below in root.names(at)? {
            let was = path.join(below.file_name().unwrap_or_default());
            if !is_as_noted(root, noted, &below, &was, noted.get(&*was).copied())? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// What stands beside `database`, is called like a sidecar of it and is none, and was not there when the intent was
/// written. SQLite removes it when it takes the database, whatever it is. (A journal that is none keeps a database from
/// being taken at all.)
pub fn foreign_sidecars(root: &Root, noted: &Noted<'_>, database: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in standing_sidecars(root, database)? {
        let Some(now) = root.seen(&path)?.filter(|now| now.stamp.size > 0) else { continue };
        let is_journal = matches!(Sidecar::named(&path), Some((Sidecar::Journal, _)));
        if !is_journal && !is_true(root, &path, &now)? && noted.get(&*path) != Some(&now.stamp) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Whether the content of `one` stands at `at`, whatever its inode is.
pub fn is_staged(root: &Root, at: &Path, one: &Move) -> Result<bool> {
    let found = match root.seen(at)? {
        Some(seen) if seen.kind == Kind::Link => blake3::hash(&root.link(at)?),
        Some(seen) if seen.kind == Kind::File && seen.stamp.size == one.staged.size => {
            match hash_live(&root.place(at)) {
                Ok(found) => found,
                Err(_) => return Ok(false),
            }
        }
        _ => return Ok(false),
    };
    Ok(found.to_hex().as_str() == one.hash)
}

/// Whether the directory is a copy of the one that `intent` was written in: nothing is told by inodes then.
pub fn is_copied(root: &Root, intent: &Intent) -> Result<bool> {
    if let Some(origin) = intent.origin
        && !origin.is(&Origin::of(root, Path::new(INTENT))?)
    {
        return Ok(true);
    }
    // A part may have been copied back, and older journals do not say of which they are.
    for one in &intent.moves {
        let staged = Path::new(NEW).join(&one.path.0);
        let Some(seen) = root.seen(&staged)?.filter(|seen| seen.stamp.inode != one.staged.inode) else { continue };
        let is_in_place = root.seen(&one.path.0)?.is_some_and(|live| live.stamp.inode == one.staged.inode);
        if !is_in_place && one.live != Some(seen.stamp) && is_staged(root, &staged, one)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Fails in a copy.
pub fn refuse_copy(root: &Root, intent: &Intent) -> Result<()> {
    if !is_copied(root, intent)? {
        return Ok(());
    }
    Err(Error::failed(
        "the directory was copied or moved to another disk while a restore into it was half done, and how far that \
         came cannot be told here",
    )
    .at(root.place(Path::new(INTENT)))
    .hint(
        "`nbak restore --abandon` leaves the live data as it is and keeps what was replaced; then restore again; \
         nothing was changed",
    ))
}

/// How what stands in place compares with what was staged.
pub enum Verdict {
    /// The same.
    Same,
    /// Others wrote to it.
    Written,
    /// It is not what it is to be.
    Different,
}

/// The verdict on `one`; `is_fresh`: this process put it in place.
pub fn verdict(root: &Root, one: &Move, is_fresh: bool) -> Result<Verdict> {
    let path = &one.path.0;
    let Some(seen) = root.seen(path)? else {
        return Ok(if is_fresh { Verdict::Different } else { Verdict::Written });
    };
    if seen.stamp.inode != one.staged.inode {
        let is_old = Some(seen.stamp) == one.live;
        return Ok(if is_fresh || is_old { Verdict::Different } else { Verdict::Written });
    }
    if !matches!(seen.kind, Kind::File | Kind::Link) && !is_fresh {
        // What was put there is gone, and something else was made: file systems give numbers of inodes out again.
        return Ok(Verdict::Written);
    }
    let is_unwritten = seen.stamp == one.staged;
    let found = match seen.kind {
        Kind::Link => blake3::hash(&root.link(path)?),
        _ => match hash_live(&root.place(path)) {
            Ok(found) => found,
            // Its own mode forbids it, or it is named as shared memory. That it is the staged inode, and was not
            // written since, is what is left.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput) => {
                return Ok(if is_unwritten { Verdict::Same } else { Verdict::Written });
            }
            Err(_) => return Ok(Verdict::Different),
        },
    };
    if found.to_hex().as_str() == one.hash {
        return Ok(Verdict::Same);
    }
    let is_strict = is_fresh && one.way != Way::File;
    Ok(if is_unwritten || is_strict { Verdict::Different } else { Verdict::Written })
}
