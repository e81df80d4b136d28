//! Whether anybody wrote to what a restore is about to touch, since its safety backup was begun.
//!
//! A safety backup takes seconds to minutes. What is written to the live directory meanwhile may not be in it, and
//! would be gone with the exchange. So all that a restore replaces, removes or moves away is looked at before, and
//! again right before the first change; any difference ends it (I16). That is
//!
//! - what stands where a file or a link is to come, also if it is a folder, with all that is below it;
//! - what stands where a folder is to come and is none;
//! - what lies beside either under the names of a database's sidecars, or of what belongs to a knowledge graph's file;
//! - if a knowledge graph is to come, all that belongs to the one that is there.
//!
//! What is not there counts as well: a log that appears is taken away as one that grew would be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::inplace;
use super::names::check_path;
use crate::error::{Error, Result};
use crate::snapshot::graph::is_graph;
use crate::snapshot::sidecar::{Sidecar, is_shared_memory};
use crate::source::clock::Clock;
use crate::source::handle::FileHandle;
use crate::source::mounts::Mounts;
use crate::source::sqlite::{Database, HEADER_BYTES, looks_like_database};
use crate::source::walk::{Stamp, stamp};

/// What is to be restored, and how.
pub(super) struct Touch<'a> {
    /// The live directory.
    pub data: &'a Path,
    /// What is to be put there.
    pub staged: &'a Path,
    /// What is left of an old knowledge graph goes.
    pub graph: bool,
    /// Databases that a program has open are written all the same.
    pub into_live: bool,
    /// Paths that are never touched. What is left out of snapshots by a glob is no such path: it may be asked for.
    pub ignored: &'a dyn Fn(&Path) -> bool,
    /// The command that restores this again, for a message.
    pub again: &'a str,
}

/// By path in the live directory. What is not there has no stamp.
type Stamps = BTreeMap<PathBuf, Stamp>;

/// What a restore touches, as it was before the safety backup was begun.
pub(super) struct Live<'a> {
    touch: Touch<'a>,
    before: Stamps,
}

impl<'a> Live<'a> {
    /// Looks at all that will be touched. What others write from here on is in the safety backup, or is noticed.
    pub(super) fn look(touch: Touch<'a>) -> Result<Live<'a>> {
        // The safety backup would roll a hot journal back: if that is done by now, whatever changes was not us.
        for path in touch.look()?.keys() {
            let Some((Sidecar::Journal, base)) = Sidecar::named(&touch.data.join(path)) else { continue };
            if std::fs::symlink_metadata(&base).is_ok_and(|meta| meta.is_file()) {
                // What cannot be opened stays as it is.
                let _ = Database::open_live(&base);
            }
        }
        let before = touch.look()?;
        // A page of a memory map that waits to be written out takes writes without a new time stamp, until it was.
        // That can fail for what is none of ours.
        let _ = std::fs::File::open(touch.data).map(rustix::fs::syncfs);
        // And so does a file within a tick of its clock. By another machine's nobody knows how old it is.
        let clock = Clock::of(touch.data, &Mounts::below(touch.data));
        let is_young = |seen: &&Stamp| !clock.is_ours() || seen.hides_until() > clock.now();
        let young = before.values().filter(is_young).map(Stamp::tick).max();
        std::thread::sleep(Duration::from_nanos(young.map_or(0, |tick| tick as u64)));
        Ok(Live { touch, before })
    }

    /// Fails if anything of it is not as it was, but for the databases `changed`, which the restore itself changed
    /// since, and for those that a program is known to have open.
    pub(super) fn recheck(&self, changed: &BTreeSet<PathBuf>) -> Result<()> {
        let now = self.touch.look()?;
        let is_expected = |path: &Path| {
            let base = Sidecar::named(path).map_or_else(|| path.to_path_buf(), |(_, base)| base);
            changed.contains(&base) || self.touch.is_let_be(&base)
        };
        let all = self.before.keys().chain(now.keys());
        let mut differ = all.filter(|path| self.before.get(*path) != now.get(*path));
        match differ.find(|path| !is_expected(path)) {
            None => Ok(()),
            Some(path) => Err(Error::locked("a program wrote to this while the safety backup was made")
                .at(self.touch.data.join(path))
                .hint(format!(
                    "what it wrote would be lost: stop the application, and restore again with {}; nothing was changed",
                    self.touch.again
                ))),
        }
    }
}

impl Live<'_> {
    /// What stands in the live directory and will be touched.
    pub(super) fn touched(&self) -> impl Iterator<Item = &Path> {
        self.before.keys().map(PathBuf::as_path)
    }

    /// What will be touched and changed, and has no form in a documented backup: links, and names that are not UTF-8 or
    /// hold a backslash.
    pub(super) fn without_form(&self) -> Vec<&Path> {
        let is_link = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
        let has_no_form = |path: &Path| {
            is_link(&self.touch.data.join(path)) || path.to_str().is_none_or(|name| check_path(name).is_err())
        };
        let stays = |path: &Path| {
            let (live, staged) = (self.touch.data.join(path), self.touch.staged.join(path));
            if is_link(&live) || is_link(&staged) {
                let text = |path| std::fs::read_link(path).ok();
                return text(&live).is_some() && text(&live) == text(&staged);
            }
            let hash = |path| inplace::hash_live(path).ok();
            hash(&live).is_some() && hash(&live) == hash(&staged)
        };
        let there = self.before.keys().filter(|path| std::fs::symlink_metadata(self.touch.data.join(path)).is_ok());
        there.map(PathBuf::as_path).filter(|path| has_no_form(path) && !stays(path)).collect()
    }
}

impl Touch<'_> {
    fn look(&self) -> Result<Stamps> {
        let mut seen = Stamps::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for path in names(self.staged, &folder)? {
                if (self.ignored)(&path) {
                    continue;
                }
                let is_folder = |root: &Path, path: &Path| {
                    std::fs::symlink_metadata(root.join(path)).is_ok_and(|meta| meta.is_dir())
                };
                if is_folder(self.staged, &path) && is_folder(self.data, &path) {
                    folders.push(path);
                    continue;
                }
                // What belongs to it goes with it, whatever comes in its place.
                for beside in inplace::company(&path) {
                    if !is_folder(self.data, &beside) || is_graph(&beside) {
                        self.see(beside, &mut seen)?;
                    }
                }
                self.see(path, &mut seen)?;
            }
        }
        if self.graph && names(self.staged, Path::new(""))?.iter().any(|path| is_graph(path)) {
            for path in names(self.data, Path::new(""))?.into_iter().filter(|path| is_graph(path)) {
                self.see(path, &mut seen)?;
            }
        }
        Ok(seen)
    }

    /// Sees what stands at `path`, and all that is below it.
    fn see(&self, path: PathBuf, seen: &mut Stamps) -> Result<()> {
        let mut left = vec![path];
        while let Some(path) = left.pop() {
            let place = self.data.join(&path);
            let meta = match std::fs::symlink_metadata(&place) {
                Ok(meta) => meta,
                Err(error) if is_absence(&error) => continue,
                Err(error) => return Err(Error::io("look at what is to be replaced", place, error)),
            };
            if (self.ignored)(&path) || is_fleeting(&place, &meta) {
                continue;
            }
            if meta.is_dir() {
                left.extend(names(self.data, &path)?);
            }
            seen.insert(path, content_stamp(&place, &meta));
        }
        Ok(())
    }

    /// Whether the database at `base` is written into while a program has it open, and what that program writes is
    /// known to be lost.
    fn is_let_be(&self, base: &Path) -> bool {
        let is_replaced = || std::fs::symlink_metadata(self.staged.join(base)).is_ok_and(|meta| !meta.is_dir());
        let is_database = || {
            let mut head = [0; HEADER_BYTES];
            let read = FileHandle::open(&self.data.join(base)).and_then(|file| file.read_at(&mut head, 0));
            read.is_ok_and(|got| looks_like_database(&head[..got]).is_some())
        };
        self.into_live && is_replaced() && is_database()
    }
}

/// The paths of what is in `folder`. Nothing, if it is none.
fn names(root: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let place = root.join(folder);
    let failed = |error| Error::io("list a folder", &place, error);
    match std::fs::read_dir(&place) {
        Ok(entries) => entries.map(|entry| Ok(folder.join(entry.map_err(failed)?.file_name()))).collect(),
        Err(error) if is_absence(&error) => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

/// Whether it says that nothing is there. A sidecar's name may be longer than names can be.
fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(rustix::io::Errno::NAMETOOLONG.raw_os_error())
}

/// Whether it comes and goes when a database is read, and nothing in it is anybody's: shared memory, and a log or a
/// journal without a byte.
fn is_fleeting(place: &Path, meta: &Metadata) -> bool {
    match Sidecar::named(place) {
        Some((Sidecar::Memory, _)) => is_shared_memory(place),
        Some((Sidecar::Log | Sidecar::Journal, _)) => meta.is_file() && meta.len() == 0,
        None => false,
    }
}

/// What tells one content from another. Of a folder that is which one it is: what is in it is seen by itself.
fn content_stamp(place: &Path, meta: &Metadata) -> Stamp {
    let stamp = stamp(meta);
    match Sidecar::named(place) {
        _ if meta.is_dir() => Stamp { device: stamp.device, inode: stamp.inode, ..Stamp::default() },
        // SQLite gives a log its owner and mode anew when it opens it, which is no change of what is in it.
        Some(_) => Stamp { ctime: 0, ..stamp },
        None => stamp,
    }
}
