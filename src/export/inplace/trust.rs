//! Whose a journal is: one that another user may have written is not believed.
//!
//! A journal says what is moved, and which owner and mode a file gets. Its checksum tells a damaged one, and not who
//! wrote it: whoever may write in the data directory can make one, and need not be the user who comes next. So the
//! folder of the staging and the journal in it must belong to the user who acts on them, and nobody else may be able to
//! write to them. What is read is what was looked at: the descriptors are asked, and the journal is opened from its
//! folder's.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::called::{FOLDER, INTENT};
use super::root::Root;
use crate::error::{Error, Result};

/// Permission to write for others than the owner. An access control list that names somebody shows there too.
const WRITABLE: u32 = 0o022;

/// Why something is not believed to be ours.
enum Why {
    /// What it is instead of a folder or a file.
    Other(&'static str),
    /// It belongs to this user.
    Owner(u32),
    /// Others may write to it.
    Mode(u32),
}

impl Why {
    fn text(&self) -> String {
        match self {
            Why::Other(what) => (*what).to_owned(),
            Why::Owner(uid) => format!("it belongs to user {uid}, and this is user {}", geteuid().as_raw()),
            Why::Mode(mode) => format!("others may write to it (its mode is {mode:04o})"),
        }
    }

    fn refuse(&self, root: &Root, path: &Path) -> Error {
        let folder = root.place(Path::new(FOLDER));
        let folder = folder.display();
        let next = match self {
            Why::Other(_) => "look who put it there, and move it away".to_owned(),
            Why::Owner(uid) => format!(
                "if user {uid} is one of yours and began a restore here, give `nbak restore --resume` or `nbak restore \
                 --abandon` as that user; if nobody of yours did, it is forged: remove {folder}"
            ),
            Why::Mode(_) => format!(
                "if you began a restore here, and nobody else wrote into it, take that from them (`chmod -R go-w \
                 {folder}`) and give `nbak restore --resume` or `nbak restore --abandon`; if nobody of yours did, it \
                 is forged: remove {folder}"
            ),
        };
        Error::failed(format!("the journal of an interrupted restore is not to be trusted, since {}", self.text()))
            .at(root.place(path))
            .hint(format!("{next}; nothing was changed"))
    }
}

/// Whether a journal is there. Fails if it cannot be told, and says whose it is where that is why.
pub fn is_there(data: &Path) -> Result<bool> {
    match data.join(INTENT).symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => {
            check(data)?;
            Err(Error::io("look for an interrupted restore", data.join(INTENT), error))
        }
    }
}

/// Fails as [`open`] does.
pub fn check(data: &Path) -> Result<()> {
    open(&Root::open(data)?).map(drop)
}

/// Opens the journal. Fails if anybody but this user may have written it.
pub fn open(root: &Root) -> Result<File> {
    let folder = match root.folder(Path::new(FOLDER)) {
        Ok(folder) => folder,
        Err(error) => return Err(closed(root, Path::new(FOLDER), error)),
    };
    is_ours(&folder, FileType::Directory).map_err(|why| why.refuse(root, Path::new(FOLDER)))?;
    let name = Path::new(INTENT).file_name().unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let journal =
        openat(&folder, name, flags, Mode::empty()).map_err(|error| closed(root, Path::new(INTENT), error))?;
    is_ours(&journal, FileType::RegularFile).map_err(|why| why.refuse(root, Path::new(INTENT)))?;
    Ok(File::from(journal))
}

/// Fails unless the folder at `path`, which this user makes if it is not there, is this user's.
pub fn is_own_folder(root: &Root, path: &Path) -> Result<()> {
    let failed = |error: Errno| Error::io("open a folder of our own", root.place(path), error.into());
    let folder = root.folder(path).map_err(failed)?;
    is_ours(&folder, FileType::Directory).map_err(|why| {
        let place = root.place(path);
        let next = match why {
            Why::Mode(_) => {
                format!("if nobody else wrote into it, `chmod go-w {}` and the same again; else ", place.display())
            }
            _ => String::new(),
        };
        Error::failed(format!("a folder that was made for this restore is not to be trusted, since {}", why.text()))
            .at(place)
            .hint(format!(
                "{next}stop what runs in the data directory, or restore to another directory with --target; so too \
                 where the file system keeps no owners and modes"
            ))
    })
}

/// What is opened is asked, whatever stands at its path by now.
fn is_ours(opened: &OwnedFd, kind: FileType) -> Result<(), Why> {
    let Ok(stat) = fstat(opened) else { return Err(Why::Other("it cannot be looked at")) };
    if FileType::from_raw_mode(stat.st_mode) != kind {
        return Err(Why::Other(if kind == FileType::Directory { "it is no folder" } else { "it is no regular file" }));
    }
    if stat.st_uid != geteuid().as_raw() {
        return Err(Why::Owner(stat.st_uid));
    }
    if stat.st_mode & WRITABLE != 0 {
        return Err(Why::Mode(stat.st_mode & 0o7777));
    }
    Ok(())
}

/// Why it does not open: another user's may be closed to this one.
fn closed(root: &Root, path: &Path, error: Errno) -> Error {
    if matches!(error, Errno::LOOP | Errno::NOTDIR) {
        return Why::Other("it is a link, or no folder").refuse(root, path);
    }
    match root.seen(path) {
        Ok(Some(seen)) if seen.owner.0 != geteuid().as_raw() => Why::Owner(seen.owner.0).refuse(root, path),
        _ => Error::io("read the journal of an interrupted restore", root.place(path), error.into()),
    }
}
