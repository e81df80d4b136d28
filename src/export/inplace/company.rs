//! What belongs to an entry by its name, and goes where that goes.
//!
//! A log or a journal is nothing without its database, which may be torn without it; and beside what comes in place of
//! the database, it would be played into that. What stands live may be a database where a text, a link or a folder is
//! to come, and one that is encrypted by itself has no header to be told by. So whatever is replaced, removed or kept
//! takes along what lies beside it under the names of sidecars, but for folders, and for what is restored under that
//! very name; and the file of a knowledge graph takes along what lies beside that.
//!
//! A name alone makes no sidecar ([`crate::snapshot::sidecar`]). What is somebody's own by its bytes, beside what is no
//! database, is not removed with it: it is kept aside, and named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::databases::{header, standing_sidecars};
use super::root::{Kind, Root, Seen, Stamp};
use crate::error::{Error, Result};
use crate::snapshot::graph::{GRAPH, beside_graph, is_whole};
use crate::snapshot::sidecar::{HEAD, Sidecar, fits_shared_memory, is_shared_memory, sidecars};
use crate::source::handle::FileHandle;

/// The entry that a path is the sidecar of, by its name.
pub fn base_of(path: &Path) -> Option<PathBuf> {
    Sidecar::named(path).map(|(_, base)| base)
}

/// The same, and the graph for what lies beside that.
pub fn whole_of(path: &Path) -> Option<PathBuf> {
    let is_beside_graph = path != Path::new(GRAPH) && is_whole(path);
    if is_beside_graph { Some(PathBuf::from(GRAPH)) } else { base_of(path) }
}

/// The names of all that goes with the file at `path`.
pub fn of(path: &Path) -> Vec<PathBuf> {
    let mut all = sidecars(path).to_vec();
    if path == Path::new(GRAPH) {
        all.extend(beside_graph());
    }
    all
}

/// Whether what stands at `path`, under the name of a sidecar, is what it is called.
pub fn is_true(root: &Root, path: &Path, seen: &Seen) -> Result<bool> {
    match Sidecar::named(path) {
        Some((Sidecar::Memory, _)) => Ok(is_shared_memory(&root.place(path))),
        Some((which, _)) if seen.kind == Kind::File => Ok(which.is_true(&head(root, path)?)),
        _ => Ok(false),
    }
}

/// Whether what stands at `path`, under the name of a sidecar of `base`, is somebody's own all the same.
pub fn is_own(root: &Root, path: &Path, base: &Path) -> Result<bool> {
    let Some(seen) = root.seen(path)? else { return Ok(false) };
    Ok(seen.stamp.size > 0 && header(root, base).is_none() && !is_true(root, path, &seen)?)
}

/// What stands beside `database` under the names of sidecars, but for those that readers make: shared memory, and a log
/// or a journal without a byte.
pub fn sidecars_with_content(root: &Root, database: &Path) -> Result<BTreeMap<PathBuf, Stamp>> {
    let mut found = BTreeMap::new();
    for path in standing_sidecars(root, database)? {
        let is_memory = matches!(Sidecar::named(&path), Some((Sidecar::Memory, _)));
        if is_memory && is_shared_memory(&root.place(&path)) {
            continue;
        }
        if let Some(now) = root.seen(&path)?.filter(|now| now.stamp.size > 0 || now.kind != Kind::File) {
            found.insert(path, now.stamp);
        }
    }
    Ok(found)
}

/// Whether a log or a journal stands beside `base` that has anything in it: what `base` holds is not all there is.
pub fn has_log(root: &Root, base: &Path) -> Result<bool> {
    for path in standing_sidecars(root, base)? {
        if is_log(root, &path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a log or a journal of a database stands at `path`, and has anything in it.
pub fn is_log(root: &Root, path: &Path) -> Result<bool> {
    let Some((which @ (Sidecar::Log | Sidecar::Journal), _)) = Sidecar::named(path) else { return Ok(false) };
    if root.seen(path)?.is_none_or(|seen| seen.kind != Kind::File) {
        return Ok(false);
    }
    Ok(which.holds_something(&head(root, path)?))
}

/// Whether the file at `path` may be a database that a program is at work on: it has a header, or beside it lies, under
/// its name, what SQLite keeps there, whether there is anything in it or not. One that is encrypted by itself has no
/// header, and in rollback mode nothing beside it: that one cannot be told.
pub fn may_be_database(root: &Root, path: &Path) -> Result<bool> {
    if header(root, path).is_some() {
        return Ok(true);
    }
    for beside in standing_sidecars(root, path)? {
        let Some(seen) = root.seen(&beside)?.filter(|seen| seen.kind == Kind::File) else { continue };
        let is_one = match Sidecar::named(&beside) {
            Some((Sidecar::Memory, _)) => fits_shared_memory(seen.stamp.size),
            _ => is_true(root, &beside, &seen)?,
        };
        if is_one {
            return Ok(true);
        }
    }
    Ok(false)
}

fn head(root: &Root, path: &Path) -> Result<Vec<u8>> {
    let place = root.place(path);
    let mut head = vec![0; HEAD];
    let got = FileHandle::open(&place).and_then(|file| file.read_at(&mut head, 0));
    head.truncate(got.map_err(|error| Error::io("read what is beside a database", place, error))?);
    Ok(head)
}
