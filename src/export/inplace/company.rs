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
use crate::snapshot::sidecar::{HEAD, Sidecar, is_shared_memory, sidecars};
use crate::source::handle::FileHandle;

/// The knowledge graph: a folder, or a file with others beside it, at the top of the data directory.
pub const GRAPH: &str = "knowledge-graph";
/// What the names of those others end in. What is called in any other way beside it is somebody's own.
const BESIDE_GRAPH: [&str; 6] = ["wal", "shadow", "tmp", "lock", "checkpoint", "wal.checkpoint"];

/// Whether `path` is of the knowledge graph.
pub fn is_graph(path: &Path) -> bool {
    let first = path.components().next().and_then(|first| first.as_os_str().to_str());
    let Some(rest) = first.and_then(|first| first.strip_prefix(GRAPH)) else { return false };
    rest.is_empty() || rest.strip_prefix('.').is_some_and(|end| BESIDE_GRAPH.contains(&end))
}

/// What may lie beside a knowledge graph, and is of it.
pub fn beside_graph() -> impl Iterator<Item = PathBuf> {
    BESIDE_GRAPH.iter().map(|end| PathBuf::from(format!("{GRAPH}.{end}")))
}

/// The entry that a path is the sidecar of, by its name.
pub fn base_of(path: &Path) -> Option<PathBuf> {
    Sidecar::named(path).map(|(_, base)| base)
}

/// The same, and the graph for what lies beside that.
pub fn whole_of(path: &Path) -> Option<PathBuf> {
    let is_beside_graph = path != Path::new(GRAPH) && path.components().count() == 1 && is_graph(path);
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
    let Some((Sidecar::Log | Sidecar::Journal, _)) = Sidecar::named(path) else { return Ok(false) };
    let Some(seen) = root.seen(path)?.filter(|seen| seen.kind == Kind::File) else { return Ok(false) };
    Ok(is_true(root, path, &seen)? && head(root, path)?.iter().any(|byte| *byte != 0))
}

fn head(root: &Root, path: &Path) -> Result<Vec<u8>> {
    let place = root.place(path);
    let mut head = vec![0; HEAD];
    let got = FileHandle::open(&place).and_then(|file| file.read_at(&mut head, 0));
    head.truncate(got.map_err(|error| Error::io("read what is beside a database", place, error))?);
    Ok(head)
}
