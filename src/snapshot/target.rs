//! The directory that a restore writes into.
//!
//! Every path is opened from a descriptor of the target itself, and the kernel follows no link on its way and does
//! not leave the target (`openat2`; where there is no such call, one component at a time with `O_NOFOLLOW`): a symbolic
//! link that stands in the target, or is put there meanwhile, leads nowhere. A folder that is moved away is missed by
//! the next file that goes there, and one that another folder took the place of when it is completed. New files are
//! 0600 and new folders 0700 until their content is complete.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    AtFlags, CWD, Dir, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, fchmod, fchown, fstat, fstatvfs,
    futimens, mkdirat, openat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::tree::Attributes;
use crate::error::{Error, Result};
use crate::id::SlotId;
use crate::source::passing;
use crate::source::walk::{Identity, identity, stamp_of};
use crate::store::local::create_folder;

/// A directory to restore into.
pub struct Target {
    path: PathBuf,
    root: OwnedFd,
    /// Only the superuser can give files away.
    may_chown: bool,
    /// Folders that were made for it, the deepest first.
    made: Mutex<Vec<PathBuf>>,
    /// It was not there before.
    is_new: bool,
    /// Which folder each path led to when it was made, or found.
    folders: Mutex<HashMap<PathBuf, Identity>>,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// How the name begins under which a file is written that is to replace another; then comes an id.
pub const LEFT: &str = ".nbak-restore-";

/// What [`Attributes`] have of a mode.
const MODE: u32 = 0o7777;

/// Whether the kernel resolves a path below the target by one call.
#[cfg(target_os = "linux")]
static ASK_AT_ONCE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(true);

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Target {
    /// Opens `path`, making it if it is not there. It must be empty unless `overwrite` says otherwise.
    pub fn open(path: &Path, overwrite: bool) -> Result<Target> {
        let absent = |above: &&Path| !above.as_os_str().is_empty() && !above.exists();
        let made: Vec<PathBuf> = path.ancestors().take_while(absent).map(Path::to_path_buf).collect();
        // It may lie in scratch space, which is not made anew when a signal ends this process.
        passing::made_within(|| create_folder(path))?;
        let failed = |error| Error::io("open the target directory", path, error);
        let root =
            openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| failed(e.into()))?;
        if !overwrite && std::fs::read_dir(path).map_err(failed)?.next().is_some() {
            return Err(Error::failed("the target directory is not empty")
                .at(path)
                .hint("name an empty or a new one, or give --overwrite; nothing was changed"));
        }
        Ok(Target {
            path: path.to_path_buf(),
            root,
            may_chown: rustix::process::geteuid().is_root(),
            is_new: !made.is_empty(),
            made: Mutex::new(made),
            folders: Mutex::default(),
        })
    }

    /// Whether the target itself was made for this: one that was there has an owner and a mode that somebody chose.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Removes the folders that were made for it and in it, as far as they are empty.
    pub fn withdraw(&self) {
        for folder in &*self.made.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = std::fs::remove_dir(folder);
        }
    }

    /// Bytes that can still be written.
    pub fn free_bytes(&self) -> Option<u64> {
        fstatvfs(&self.root).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// The absolute path, for messages.
    pub fn place(&self, path: &Path) -> PathBuf {
        self.path.join(path)
    }

    fn failed(&self, action: &str, path: &Path, error: Errno) -> Error {
        let failed = Error::io(action, self.place(path), error.into());
        if matches!(error, Errno::LOOP | Errno::NOTDIR) {
            return failed.hint("something that is no directory stands in its way; a restore follows no symbolic link");
        }
        failed
    }

    /// Opens what `path` names in the target.
    fn open_below(&self, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        // Itself.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        #[cfg(target_os = "linux")]
        if ASK_AT_ONCE.load(std::sync::atomic::Ordering::Relaxed) {
            use rustix::fs::{ResolveFlags, openat2};
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match rustix::io::retry_on_intr(|| openat2(&self.root, path, flags, mode, resolve)) {
                // An old kernel, or one in which a container may not ask.
                Err(Errno::NOSYS | Errno::PERM) => ASK_AT_ONCE.store(false, std::sync::atomic::Ordering::Relaxed),
                other => return other,
            }
        }
        let mut at = openat(&self.root, ".", FOLDER, Mode::empty())?;
        let (name, above) = (path.file_name().map_or(path, Path::new), path.parent());
        for name in above.into_iter().flat_map(Path::components) {
            at = openat(&at, name.as_os_str(), FOLDER, Mode::empty())?;
        }
        openat(&at, name, flags, mode)
    }

    fn folder(&self, path: &Path) -> Result<OwnedFd> {
        self.open_below(path, FOLDER, Mode::empty()).map_err(|e| self.failed("open a folder", path, e))
    }

    fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p Path)> {
        let name = path.file_name().map_or(Path::new("."), Path::new);
        Ok((self.folder(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// What stands at `path`; a folder above it that is missing, or no folder, counts as nothing.
    pub fn standing(&self, path: &Path) -> Standing {
        let Ok((parent, name)) = self.parent(path) else { return Standing::Nothing };
        match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() => Standing::Directory,
            Ok(_) => Standing::Other,
            Err(_) => Standing::Nothing,
        }
    }

    /// Makes a folder, or uses the one that is there.
    pub fn make_folder(&self, path: &Path) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        match mkdirat(&parent, name, Mode::RWXU) {
            Err(Errno::EXIST) if self.standing(path) == Standing::Directory => {}
            Err(error) => return Err(self.failed("make a folder", path, error)),
            Ok(()) => {
                let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
                made.insert(0, self.place(path));
            }
        }
        let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| self.failed("look at", path, e))?;
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        folders.insert(path.to_path_buf(), identity(&stamp_of(&stat)));
        Ok(())
    }

    /// Makes a new file, which must not exist.
    pub fn create(&self, path: &Path) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.open_below(path, flags, Mode::RUSR | Mode::WUSR);
        Ok(File::from(file.map_err(|e| self.failed("create a file", path, e))?))
    }

    /// Opens a file that this restore made, to write more of it.
    pub fn reopen(&self, path: &Path) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.open_below(path, flags, Mode::empty());
        Ok(File::from(file.map_err(|e| self.failed("open a file", path, e))?))
    }

    /// A regular file of `size` bytes that stands at `path`, to read. Not one that has other names as well: its
    /// attributes would change under those too; nor one of another owner, if that is not to be changed.
    pub fn existing(&self, path: &Path, size: u64) -> Option<File> {
        // A pipe is not waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(self.open_below(path, flags, Mode::empty()).ok()?);
        let meta = file.metadata().ok()?;
        let is_ours = self.may_chown || meta.uid() == rustix::process::geteuid().as_raw();
        (is_ours && meta.is_file() && meta.nlink() == 1 && meta.len() == size).then_some(file)
    }

    /// Gives owner, mode and time to a file that has its content already.
    pub fn dress(&self, path: &Path, attributes: &Attributes) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = self.open_below(path, flags, Mode::empty()).map_err(|e| self.failed("open a file", path, e))?;
        let file = File::from(file);
        let now = file.metadata().map_err(|e| Error::io("look at a file", self.place(path), e))?;
        self.attributes(path, &file, &now, attributes)
    }

    /// Ends a file: its size (what was not written is a hole), owner, mode and time.
    pub fn complete(&self, path: &Path, file: &File, size: u64, attributes: &Attributes) -> Result<()> {
        let now = file.metadata().map_err(|e| Error::io("look at a restored file", self.place(path), e))?;
        if now.len() != size {
            file.set_len(size).map_err(|e| Error::io("set the size of a file", self.place(path), e))?;
        }
        self.attributes(path, file, &now, attributes)
    }

    /// Closes a file that was written. Some file systems (NFS, FUSE) write only then, and say only then that they could
    /// not: dropping the file would not hear it.
    pub fn close(&self, path: &Path, file: File) -> Result<()> {
        nix::unistd::close(file).map_err(|error| {
            Error::io("close a restored file", self.place(path), error.into()).hint(
                "the file system may not have what was written to it: look after its space, its quota and its \
                 connection, and restore again (with --overwrite into a directory that is not empty)",
            )
        })
    }

    /// Sets what `now`, which the file has, is not yet: each of these is a transaction of the file system's.
    fn attributes(&self, path: &Path, file: &File, now: &Metadata, attributes: &Attributes) -> Result<()> {
        let given = (now.uid(), now.gid()) != (attributes.uid, attributes.gid);
        if given {
            self.give(|uid, gid| fchown(file, uid, gid), path, attributes)?;
        }
        // To give a file away changes its mode as well.
        if given || now.mode() & MODE != attributes.mode {
            fchmod(file, Mode::from_raw_mode(attributes.mode))
                .map_err(|e| self.failed("set the mode of a file", path, e))?;
        }
        futimens(file, &times(attributes)).map_err(|e| self.failed("set the time of a file", path, e))
    }

    fn give(
        &self,
        chown: impl FnOnce(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
        path: &Path,
        attributes: &Attributes,
    ) -> Result<()> {
        if !self.may_chown {
            return Ok(());
        }
        chown(Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))
            .map_err(|e| self.failed("set the owner", path, e))
    }

    /// Makes a symbolic link, in place of whatever file stands there.
    pub fn symlink(&self, path: &Path, target: &[u8], attributes: &Attributes, overwrite: bool) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        // Without that nothing stands there but what this very restore has put there, where names are not told apart.
        match if overwrite { unlinkat(&parent, name, AtFlags::empty()) } else { Ok(()) } {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(self.failed("replace", path, error)),
        }
        symlinkat(target, &parent, name).map_err(|e| self.failed("make a symbolic link", path, e))?;
        self.give(|uid, gid| chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW), path, attributes)?;
        utimensat(&parent, name, &times(attributes), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| self.failed("set the time of a symbolic link", path, e))
    }

    /// Ends a folder: owner, mode and time.
    pub fn complete_folder(&self, path: &Path, attributes: &Attributes) -> Result<()> {
        let folder = self.folder(path)?;
        let now = fstat(&folder).map_err(|e| self.failed("look at", path, e))?;
        let made = self.folders.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied();
        if made.is_some_and(|made| made != identity(&stamp_of(&now))) {
            return Err(Error::failed("another folder took the place of one while it was restored")
                .at(self.place(path))
                .hint("what was restored before that went where the folder is now; restore again"));
        }
        self.give(|uid, gid| fchown(&folder, uid, gid), path, attributes)?;
        futimens(&folder, &times(attributes)).map_err(|e| self.failed("set the time of a folder", path, e))?;
        chmodat(&folder, ".", Mode::from_raw_mode(attributes.mode), AtFlags::empty())
            .map_err(|e| self.failed("set the mode of a folder", path, e))
    }

    /// Fails if the path of the target does not lead to it any more: what was restored is not where it was to be.
    pub fn check_place(&self) -> Result<()> {
        let own = fstat(&self.root).map_err(|e| self.failed("look at", Path::new(""), e))?;
        let named = statat(CWD, &self.path, AtFlags::empty());
        if named.is_ok_and(|named| identity(&stamp_of(&named)) == identity(&stamp_of(&own))) {
            return Ok(());
        }
        Err(Error::failed("the target directory was moved or replaced while it was restored to")
            .at(&self.path)
            .hint("what was restored is where that directory is now; restore again"))
    }

    /// Gives a file of this restore its final name, in place of whatever file stands there.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (parent, old) = self.parent(from)?;
        let (_, new) = self.parent(to)?;
        renameat(&parent, old, &parent, new).map_err(|e| self.failed("replace a file", to, e))
    }

    /// Removes what an earlier restore was writing in `folder` when it was killed: files, by their names, and nothing
    /// else. What cannot be removed is in nobody's way.
    pub fn sweep(&self, folder: &Path) {
        let Ok(folder) = self.folder(folder) else { return };
        let Ok(entries) = Dir::read_from(&folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let id = name.to_str().ok().and_then(|name| name.strip_prefix(LEFT));
            if id.is_some_and(|id| SlotId::parse(id).is_ok()) {
                let _ = unlinkat(&folder, name, AtFlags::empty());
            }
        }
    }

    /// Removes a file that this restore made and could not complete.
    pub fn remove(&self, path: &Path) {
        if let Ok((parent, name)) = self.parent(path) {
            let _ = unlinkat(&parent, name, AtFlags::empty());
        }
    }

    /// The paths of what stands in `folder`; none if it is none.
    pub fn names(&self, folder: &Path) -> Vec<PathBuf> {
        let Ok(entries) = self.folder(folder).map(Dir::read_from) else { return Vec::new() };
        let names = entries.into_iter().flatten().flatten();
        let names = names.map(|entry| PathBuf::from(OsStr::from_bytes(entry.file_name().to_bytes())));
        names.filter(|name| name != Path::new(".") && name != Path::new("..")).map(|name| folder.join(name)).collect()
    }

    /// Whether `path` stands in the target.
    pub fn exists(&self, path: &Path) -> bool {
        self.standing(path) != Standing::Nothing
    }
}

fn times(attributes: &Attributes) -> Timestamps {
    let time = Timespec { tv_sec: attributes.mtime, tv_nsec: attributes.mtime_nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}
