//! Which paths of a snapshot or a backup a restore in place is about.
//!
//! A path can be spelled in many ways, and so can all of it (`.`, `/`). From here on each has one spelling, since what
//! is done depends on it. And a knowledge graph is one thing, whether it is a folder or a file with others beside it:
//! an engine plays the log that it finds into the file that it finds. So who names it gets all of it, and none of what
//! lies beside it is put there by itself. It is the same with a file that was captured beside a log or a journal: it
//! may be a database that is encrypted by itself, and who names it gets both. Not so what is only called alike: two
//! texts `notes` and `notes-journal` are two things, and who names one gets that one.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::backup::Backup;
use super::inplace::{GRAPH, beside_graph, is_graph};
use crate::error::{Error, Result};
use crate::snapshot::look::{Place, clean_path, find, list_of};
use crate::snapshot::record::Record;
use crate::snapshot::sidecar::{HEAD, Sidecar, fits_shared_memory, sidecars};
use crate::snapshot::store::Store;
use crate::snapshot::tree::Node;
use crate::source::handle::FileHandle;

/// The paths that `given` names, whether they are there or not; none for everything.
///
/// Fails for what lies beside a knowledge graph alone.
pub fn named(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut named = given.iter().map(|path| clean_path(path)).collect::<Result<Vec<_>>>()?;
    if named.iter().any(|path| path.as_os_str().is_empty()) {
        return Ok(Vec::new());
    }
    if named.iter().any(|path| path == Path::new(GRAPH)) {
        named.extend(beside_graph());
        named.sort_unstable();
        named.dedup();
    } else if let Some(part) = named.iter().find(|path| is_whole(path)) {
        return Err(Error::usage("this belongs to the knowledge graph, and is not put beside another one by itself")
            .at(part)
            .hint(format!(
                "give `{GRAPH}`, which takes along what belongs to it, or restore this to another directory with \
                 --target; nothing was changed"
            )));
    }
    Ok(named)
}

/// Whether `path` is a graph, or all of one thing beside it, and no part of that.
pub(super) fn is_whole(path: &Path) -> bool {
    path.components().count() == 1 && is_graph(path)
}

/// The same of what `record` holds.
pub(super) fn of_snapshot(store: &Store, record: &Record, given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let is_file = |path: &Path| match find(store, record, path) {
        Ok(Place::Entry(entry)) => !matches!(entry.node, Node::Directory(_)),
        _ => false,
    };
    let named = with_company(named(given)?, &is_file);
    if !named.iter().any(|path| is_whole(path)) {
        return Ok(named);
    }
    let tops = list_of(store, record, record.tree, Path::new(""), false)?;
    Ok(there(named, &|path| tops.iter().any(|(top, _)| top == path)))
}

/// The same of what `backup` holds.
pub(super) fn of_backup(backup: &Backup, given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let is_there = |path: &Path| backup.manifest.files.iter().any(|entry| Path::new(&entry.path).starts_with(path));
    let is_file = |path: &Path| {
        let mut files = backup.manifest.files.iter().filter(|entry| !entry.kind.is_directory());
        files.any(|entry| Path::new(&entry.path) == path)
    };
    Ok(there(with_company(named(given)?, &is_file), &is_there))
}

/// With what was captured beside each file under the names of a database's sidecars. Beside an image is nothing of
/// them.
fn with_company(mut named: Vec<PathBuf>, is_file: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let files: Vec<&PathBuf> = named.iter().filter(|path| is_file(path)).collect();
    let beside: Vec<PathBuf> = files.into_iter().flat_map(|path| sidecars(path)).filter(|path| is_file(path)).collect();
    named.extend(beside.into_iter().filter(|path| !named.contains(path)).collect::<Vec<_>>());
    named
}

/// Takes out of what is `staged` what goes along with what was `given` by its name alone, and is somebody's own by its
/// bytes: nobody named it.
pub(super) fn leave_own(staged: &Path, given: &[PathBuf], all: &[PathBuf]) -> Result<()> {
    let given = named(given)?;
    for path in all.iter().filter(|path| !given.contains(path)) {
        let place = staged.join(path);
        if Sidecar::named(path).is_some_and(|(which, _)| is_own(which, &place)) {
            remove(&place).map_err(|error| Error::io("leave out what was not asked for", &place, error))?;
        }
    }
    Ok(())
}

/// Whether the file at `place` is none of what it is called. What cannot be read is taken for that.
fn is_own(which: Sidecar, place: &Path) -> bool {
    let Ok(meta) = std::fs::symlink_metadata(place) else { return false };
    if !meta.is_file() {
        return true;
    }
    if which == Sidecar::Memory {
        return !fits_shared_memory(meta.len());
    }
    let mut head = [0; HEAD];
    let got = FileHandle::open(place).and_then(|file| file.read_at(&mut head, 0));
    // One that is empty, or zeros, says nothing, and nothing is torn without it.
    got.is_ok_and(|got| !which.is_true(&head[..got]) || head.iter().all(|byte| *byte == 0))
}

/// Removes a staged file, also from a folder that its owner may not write; that keeps its mode and time.
fn remove(place: &Path) -> std::io::Result<()> {
    let parent = place.parent().unwrap_or(place);
    let meta = std::fs::symlink_metadata(parent)?;
    let mode = |mode: u32| std::fs::set_permissions(parent, Permissions::from_mode(mode));
    mode(meta.permissions().mode() | 0o700)?;
    std::fs::remove_file(place)?;
    std::fs::File::open(parent)?.set_modified(meta.modified()?)?;
    mode(meta.permissions().mode())
}

/// Without what may lie beside a graph and does not.
fn there(mut named: Vec<PathBuf>, is_there: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    named.retain(|path| path == Path::new(GRAPH) || !is_whole(path) || is_there(path));
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(given: &[&str]) -> Vec<PathBuf> {
        named(&given.iter().map(PathBuf::from).collect::<Vec<_>>()).expect("paths")
    }

    #[test]
    fn each_path_has_one_spelling() {
        for all_of_it in [&[][..], &["."], &["/"], &["./"], &["a", "."]] {
            assert!(all(all_of_it).is_empty(), "{all_of_it:?}");
        }
        for path in ["a/b", "./a/b", "/a/b", "a//b/", "a/./b"] {
            assert_eq!(all(&[path]), [PathBuf::from("a/b")]);
        }
        assert!(named(&["a/../b".into()]).is_err());
    }

    #[test]
    fn a_file_and_its_log_are_one_thing() {
        let is_file = |path: &Path| ["a/c.db", "a/c.db-wal", "b-wal"].iter().any(|file| path == Path::new(file));
        let with = |given: &[&str]| with_company(all(given), &is_file);
        let both = [PathBuf::from("a/c.db"), PathBuf::from("a/c.db-wal")];
        assert_eq!(with(&["a/c.db"]), both);
        assert_eq!(with(&["a/c.db", "a/c.db-wal"]), both);
        assert_eq!((with(&["a"]), with(&["b"])), (vec!["a".into()], vec!["b".into()]));
    }

    #[test]
    fn a_graph_is_one_thing() {
        let whole = all(&["knowledge-graph"]);
        assert!(whole.contains(&"knowledge-graph.wal".into()) && whole.contains(&"knowledge-graph".into()));
        for path in ["./knowledge-graph", "/knowledge-graph", "knowledge-graph/"] {
            assert_eq!(all(&[path]), whole, "{path}");
        }
        assert_eq!(all(&["knowledge-graph.wal", "knowledge-graph"]), whole);
        for part in ["knowledge-graph.wal", "./knowledge-graph.shadow"] {
            assert!(named(&[part.into()]).expect_err("a part").is_usage(), "{part}");
        }
        for other in ["knowledge-graph/data", "knowledge-graph.bak", "knowledge-graph.wal/x"] {
            assert_eq!(all(&[other]), [PathBuf::from(other)]);
        }
        assert_eq!(there(whole, &|_| false), [PathBuf::from("knowledge-graph")]);
    }
}
