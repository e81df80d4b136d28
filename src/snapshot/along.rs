//! What goes along with a path of a snapshot that is asked for by its name.
//!
//! A path can be spelled in many ways, and so can all of it (`.`, `/`). From here on each has one spelling, since what
//! is done depends on it. And a knowledge graph is one thing ([`super::graph`]): who names it gets all of it. It is the
//! same with a file that was captured beside a log or a journal: it may be a database that is encrypted by itself, or
//! one that could not be read as one, and its newest rows are in the log; who names it gets both. Not so what is only
//! called alike: two texts `notes` and `notes-journal` are two things, and who names one gets that one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::graph::{GRAPH, beside_graph, is_whole};
use super::look::{Place, clean_path, find, head};
use super::record::Record;
use super::sidecar::{HEAD, Sidecar, fits_shared_memory, sidecars};
use super::store::Store;
use super::tree::{Entry, Node};
use crate::error::Result;

/// The paths that `given` names, each in one spelling, and with a knowledge graph what may lie beside it, whether it
/// is there or not; none for everything.
pub fn spelled(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut named = given.iter().map(|path| clean_path(path)).collect::<Result<Vec<_>>>()?;
    if named.iter().any(|path| path.as_os_str().is_empty()) {
        return Ok(Vec::new());
    }
    if named.iter().any(|path| path == Path::new(GRAPH)) {
        named.extend(beside_graph());
        named.sort_unstable();
        named.dedup();
    }
    Ok(named)
}

/// What is restored of `record` if these paths, as [`spelled`], are asked for; none for everything.
pub fn along(store: &Store, record: &Record, named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in named {
        let asked_for = path == Path::new(GRAPH) || !is_whole(path) || !named.contains(&PathBuf::from(GRAPH));
        if asked_for || entry(store, record, path).is_some() {
            all.push(path.clone());
        }
        if entry(store, record, path).is_some_and(|entry| !matches!(entry.node, Node::Directory(_))) {
            for beside in sidecars(path).into_iter().filter(|beside| !named.contains(beside)) {
                if let Some(found) = entry(store, record, &beside)
                    && belongs(store, &beside, &found)?
                {
                    all.push(beside);
                }
            }
        }
    }
    Ok(all)
}

/// The logs and journals among `entries` whose file is not among them: each would be played into whatever stands under
/// that name.
pub fn without_their_file(store: &Store, entries: &BTreeMap<PathBuf, Entry>) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (path, entry) in entries {
        let Some((Sidecar::Log | Sidecar::Journal, base)) = Sidecar::named(path) else { continue };
        if !entries.contains_key(&base) && belongs(store, path, entry)? {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn entry(store: &Store, record: &Record, path: &Path) -> Option<Entry> {
    match find(store, record, path) {
        Ok(Place::Entry(entry)) => Some(entry),
        _ => None,
    }
}

/// Whether what was captured at `path` is by its bytes what it is called. What is lost cannot be told: it belongs, so
/// that it is said to be lost.
fn belongs(store: &Store, path: &Path, entry: &Entry) -> Result<bool> {
    let (Some((which, _)), Node::File { size, content, .. }) = (Sidecar::named(path), &entry.node) else {
        return Ok(false);
    };
    if which == Sidecar::Memory {
        return Ok(fits_shared_memory(*size));
    }
    match head(store, *size, content, HEAD) {
        Ok(head) => Ok(which.holds_something(&head)),
        Err(error) if error.is_integrity() => Ok(true),
        Err(error) => Err(error),
    }
}
