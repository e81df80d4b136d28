//! Objects in a local directory.
//!
//! `keys/<id>` and `packs/<id>`, where an id is 32 hexadecimal digits. A put writes `tmp/<random>`, syncs it, renames
//! it to its name and syncs the folder, in that order: after a crash a name either is not there or holds the whole
//! object (I2). Files are 0600 and folders 0700 from their creation on.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::lock::Held;
use super::objects::{Durable, Key, Kind, Objects};
use crate::error::{Error, Result};
use crate::id::{PackId, SlotId, random_bytes};

const TEMPORARY: &str = "tmp";
/// Where damaged objects are put out of the way.
const QUARANTINE: &str = "quarantine";
/// What a store that is being made may hold already.
const OURS: [&str; 9] =
    ["keys", "packs", TEMPORARY, "lock", "readers", "index.redb", QUARANTINE, "retired-keys", "pull-unfinished"];

/// A directory of objects.
pub struct LocalDirectory {
    root: PathBuf,
    /// The writer's lock, where this process has it.
    held: Option<Held>,
}

impl LocalDirectory {
    /// The store at `root`, which need not exist yet. Nothing is touched.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        LocalDirectory { root: root.into(), held: None }
    }

    /// The same, of which the writer's lock is `held`: nothing is written or removed once it is another's.
    #[must_use]
    pub fn locked(self, held: Held) -> Self {
        LocalDirectory { held: Some(held), ..self }
    }

    fn check_lock(&self) -> Result<()> {
        self.held.as_ref().map_or(Ok(()), Held::check)
    }

    /// Makes the folders that are missing, durably. A directory that holds anything else is left alone.
    pub fn create(&self) -> Result<()> {
        let ours = |name: &std::ffi::OsStr| {
            OURS.iter().any(|our| name == *our) || name.as_encoded_bytes().starts_with(b"note-")
        };
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        if let Some(other) = entries.map(|entry| entry.file_name()).find(|name| !ours(name))
            && !self.root.join(Kind::Slot.folder()).is_dir()
        {
            return Err(Error::usage("this directory is no store, and is not empty")
                .at(self.root.join(other))
                .hint("name another place with --repo; nothing was changed"));
        }
        create_folder(&self.root)?;
        for name in [Kind::Slot.folder(), Kind::Pack.folder(), TEMPORARY] {
            create_folder(&self.root.join(name))?;
        }
        Ok(())
    }

    /// Removes what writers that were killed left in `tmp/`, and nothing else: neither what has another kind of name,
    /// nor through a link that somebody put there. Only for the holder of the writer's lock, who deletes and moves in
    /// the other folders too, and does that through no link either.
    pub fn sweep(&self) -> Result<()> {
        for kind in [Kind::Slot, Kind::Pack] {
            let folder = self.root.join(kind.folder());
            if folder.is_symlink() {
                return Err(Error::failed("a symbolic link stands in the place of one of the store's folders")
                    .at(&folder)
                    .hint("put the folder itself in its place, or move all of the store and name it with --repo"));
            }
        }
        let folder = self.root.join(TEMPORARY);
        if folder.is_symlink() {
            return Err(Error::failed("a symbolic link stands in the place of the store's temporary folder")
                .at(&folder)
                .hint("remove the link; the folder is made anew"));
        }
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io("list the store's temporary folder", &folder, error)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("list the store's temporary folder", &folder, e))?;
            if entry.file_name().to_str().is_some_and(|name| SlotId::parse(name).is_ok()) {
                // What cannot be removed is in nobody's way.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// What `stat` says of the packs `ids`, as bytes: they are others when one of them was written to or replaced.
    pub fn stamps(&self, ids: &[PackId]) -> std::io::Result<Vec<u8>> {
        use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, self.root.join(Kind::Pack.folder()), flags, Mode::empty())?;
        let mut stamps = Vec::with_capacity(ids.len() * 128);
        for id in ids {
            let stat = statat(&folder, id.to_string(), AtFlags::SYMLINK_NOFOLLOW)?;
            stamps.extend_from_slice(&id.0);
            for number in [stat.st_dev as i128, stat.st_ino as i128, stat.st_size as i128] {
                stamps.extend_from_slice(&number.to_le_bytes());
            }
            for number in [stat.st_mtime as i128, stat.st_mtime_nsec as i128, stat.st_ctime as i128] {
                stamps.extend_from_slice(&number.to_le_bytes());
            }
            stamps.extend_from_slice(&(stat.st_ctime_nsec as i128).to_le_bytes());
        }
        Ok(stamps)
    }

    fn path(&self, key: Key) -> PathBuf {
        self.root.join(key.to_string())
    }

    fn open(&self, key: Key) -> Result<File> {
        let path = self.path(key);
        // Whoever can write to the store could leave a pipe there, and every reader would wait for ever.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let open = twice(|| OpenOptions::new().read(true).custom_flags(flags).open(&path));
        let file = open.map_err(|error| unreadable(&path, error))?;
        if file.metadata().is_ok_and(|meta| meta.is_file()) {
            Ok(file)
        } else {
            Err(Error::integrity("a stored object is no regular file").at(&path))
        }
    }
}

impl Objects for LocalDirectory {
    fn put(&self, key: Key, parts: &[&[u8]]) -> Result<Durable> {
        let folder = self.root.join(TEMPORARY);
        let temporary = folder.join(SlotId(random_bytes()).to_string());
        let target = self.path(key);
        let written = write_new(&temporary, parts).and_then(|()| self.check_lock()).and_then(|()| {
            rename_new(&temporary, &target).map_err(|e| Error::io("give a stored object its name", &target, e))
        });
        if let Err(error) = written {
            // Best effort: `sweep` removes it otherwise.
            let _ = std::fs::remove_file(&temporary);
            return Err(error);
        }
        if let Err(error) = sync_folder(&self.root.join(key.kind.folder())).and_then(|()| self.check_lock()) {
            // Whether the name is durable, or what it builds on is there, is not known: it must not be taken for an
            // object that was promised.
            let _ = std::fs::remove_file(&target);
            return Err(error);
        }
        Ok(Durable::promise())
    }

    fn get_range(&self, key: Key, offset: u64, length: usize) -> Result<Vec<u8>> {
        let file = self.open(key)?;
        let mut bytes = vec![0; length];
        twice(|| file.read_exact_at(&mut bytes, offset)).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => {
                Error::integrity("a stored object is shorter than it should be").at(self.path(key))
            }
            _ => Error::io("read a stored object", self.path(key), error),
        })?;
        Ok(bytes)
    }

    fn size(&self, key: Key) -> Result<u64> {
        let path = self.path(key);
        Ok(twice(|| std::fs::metadata(&path)).map_err(|error| unreadable(&path, error))?.len())
    }

    fn list(&self, kind: Kind) -> Result<Vec<[u8; 16]>> {
        let folder = self.root.join(kind.folder());
        let failed = |error: std::io::Error| {
            let is_file = error.kind() == ErrorKind::NotADirectory;
            let error = Error::io("list stored objects", &folder, error);
            let hint = "a file stands where the store should be: --repo, NBAK_REPO or `backup_dir` names its place";
            if is_file { error.hint(hint) } else { error }
        };
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            // What is not named like an object is not ours: leave it alone.
            if let Some(id) = entry.map_err(failed)?.file_name().to_str().and_then(|name| SlotId::parse(name).ok()) {
                ids.push(id.0);
            }
        }
        Ok(ids)
    }

    fn delete(&self, key: Key) -> Result<()> {
        self.delete_all(key.kind, &[key.id])
    }

    /// One sync for all: thousands of packs may go at once.
    fn delete_all(&self, kind: Kind, ids: &[[u8; 16]]) -> Result<()> {
        for id in ids {
            self.check_lock()?;
            let path = self.path(Key::new(kind, *id));
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::io("remove a stored object", &path, error));
                }
                _ => {}
            }
        }
        sync_folder(&self.root.join(kind.folder()))
    }

    fn set_aside(&self, key: Key) -> Result<()> {
        let folder = self.root.join(QUARANTINE);
        if folder.is_symlink() {
            return Err(Error::failed("a symbolic link stands in the place of the store's quarantine")
                .at(&folder)
                .hint("remove the link; the folder is made anew"));
        }
        create_folder(&folder)?;
        self.check_lock()?;
        let (path, name) = (self.path(key), SlotId(key.id).to_string());
        let mut number = 0u32;
        loop {
            // One may be there that was put back, and is damaged still.
            let target = folder.join(if number == 0 { name.clone() } else { format!("{name}-{number}") });
            match rename_new(&path, &target) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(Error::io("set a stored object aside", &path, error)),
                Ok(()) => break,
            }
        }
        sync_folder(&folder)?;
        sync_folder(&self.root.join(key.kind.folder()))
    }

    fn place(&self, key: Key) -> String {
        self.path(key).display().to_string()
    }
}

/// Does `act` a second time if it fails, for a disk or a network that hiccups. Not if something is not there, or is too
/// short.
fn twice<T>(mut act: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    match act() {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => act(),
        other => other,
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::integrity("a stored object is missing").at(path),
        _ => Error::io("open a stored object", path, error),
    }
}

fn write_new(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let failed = |error| Error::io("write to the store", path, error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    for part in parts {
        file.write_all(part).map_err(failed)?;
    }
    file.sync_data().map_err(|error| Error::io("sync a stored object to disk", path, error))
}

/// Renames, refusing to replace anything where the file system can tell.
fn rename_new(from: &Path, to: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems do not know the flag. Names are 128 random bits: a clash is not to be expected.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            std::fs::rename(from, to)
        }
        other => Ok(other?),
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| Error::io("sync a folder of the store", path, e))
}

/// Makes one folder and those above it, 0700, each durable in its parent.
pub fn create_folder(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(Error::io("create a folder", path, ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("look at a folder", path, error)),
    }
    // What is above a bare name is where the process is: nobody makes that.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_folder(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists || !path.is_dir() => {
            Err(Error::io("create a folder", path, error))
        }
        _ => sync_folder(parent.unwrap_or(Path::new("."))),
    }
}
