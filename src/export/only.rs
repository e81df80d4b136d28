//! Which paths of a snapshot or a backup a restore in place is about.
//!
//! What goes along with what is named is [`crate::snapshot::along`]; here it is what a restore in place does not do,
//! and the same of a documented backup, whose files are only looked into when they are staged.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::backup::Backup;
use crate::error::{Error, Result};
use crate::snapshot::along::{along, spelled};
use crate::snapshot::graph::{GRAPH, is_whole};
use crate::snapshot::record::Record;
use crate::snapshot::sidecar::{HEAD, Sidecar, fits_shared_memory, is_log, sidecars};
use crate::snapshot::store::Store;
use crate::source::handle::FileHandle;

/// The paths that `given` names, whether they are there or not; none for everything.
///
/// Fails for what lies beside a knowledge graph alone.
pub fn named(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let named = spelled(given)?;
    let is_alone = !named.iter().any(|path| path == Path::new(GRAPH));
    match named.iter().find(|path| is_alone && is_whole(path)) {
        None => Ok(named),
        Some(part) => {
            Err(Error::usage("this belongs to the knowledge graph, and is not put beside another one by itself")
                .at(part)
                .hint(format!(
                    "give `{GRAPH}`, which takes along what belongs to it, or restore this to another directory with \
                     --target; nothing was changed"
                )))
        }
    }
}

/// The same of what `record` holds.
pub(super) fn of_snapshot(store: &Store, record: &Record, given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    along(store, record, &named(given)?)
}

/// The same of what `backup` holds.
pub(super) fn of_backup(backup: &Backup, given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let is_there = |path: &Path| backup.manifest.files.iter().any(|entry| Path::new(&entry.path).starts_with(path));
    let is_file = |path: &Path| {
        let mut files = backup.manifest.files.iter().filter(|entry| !entry.kind.is_directory());
        files.any(|entry| Path::new(&entry.path) == path)
    };
    let mut named = with_company(named(given)?, &is_file);
    // Without what may lie beside a graph and does not.
    named.retain(|path| path == Path::new(GRAPH) || !is_whole(path) || is_there(path));
    Ok(named)
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

/// Takes out of what is `staged` the logs that lie beside `images`, which are complete without: they would be played
/// into them. Answers with those.
pub(super) fn leave_beside_images<'a>(staged: &Path, images: impl Iterator<Item = &'a Path>) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for beside in images.flat_map(sidecars).filter(|beside| is_log(&staged.join(beside))) {
        let place = staged.join(&beside);
        remove(&place).map_err(|error| Error::io("leave out a log beside a database", &place, error))?;
        left.push(beside.display().to_string());
    }
    Ok(left)
}

/// Fails if what is `given` by its name is a log, and is staged without its file, while another stands live under that
/// name: it would be played into that. `has` says what could be restored.
pub(super) fn refuse_alone(staged: &Path, data: &Path, given: &[PathBuf], has: &dyn Fn(&Path) -> bool) -> Result<()> {
    for path in named(given)? {
        let Some((_, base)) = Sidecar::named(&path).filter(|_| is_log(&staged.join(&path))) else { continue };
        let is_there = |root: &Path| std::fs::symlink_metadata(root.join(&base)).is_ok_and(|meta| !meta.is_dir());
        if !is_there(staged) && is_there(data) {
            let first = if has(&base) {
                format!("give `{}`, which takes it along, or ", base.display())
            } else {
                format!("`{}` itself was not captured with it: ", base.display())
            };
            return Err(Error::usage("this belongs to a database, and is not put beside another one by itself")
                .at(&path)
                .hint(format!("{first}restore this to another directory with --target; nothing was changed")));
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
    got.is_ok_and(|got| !which.holds_something(&head[..got]))
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
    }
}
