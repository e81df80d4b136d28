//! One backup, opened for reading.
//!
//! A backup may lie where others can write. Everything in it is opened from a descriptor of the backup's own folder,
//! one component at a time, and no link is followed: neither a path in the manifest nor what was put there leads out
//! of it. What is no regular file is never waited for.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::manifest::{BYTES_MAX, FileEntry, Manifest, Own};
use super::names::{self, MANIFEST};
use crate::crypto::secret::Secret;
use crate::crypto::vault::mac_holds;
use crate::error::{Error, Result};

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A folder with a manifest that could be read.
#[derive(Debug)]
pub struct Backup {
    /// The folder's name.
    pub name: String,
    /// Where it is; absolute.
    pub path: PathBuf,
    /// What it says it holds.
    pub manifest: Manifest,
    root: OwnedFd,
}

/// Who vouches for a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacState {
    /// Somebody who has the key.
    Valid,
    /// Nobody: it has no MAC, as those that the application makes.
    Absent,
    /// It has one, whose key is not there.
    NoKey,
    /// Nobody: it was changed, or made under another key.
    Invalid,
}

/// Gives the keys that a manifest's MAC may have been made with.
pub type MacKeys<'a> = &'a dyn Fn(&Own) -> Vec<Secret>;

/// Holds a manifest's MAC against `keys`.
pub fn mac_state(manifest: &Manifest, keys: MacKeys<'_>) -> MacState {
    let Some(own) = &manifest.own else { return MacState::Absent };
    // It takes no key to see that this was changed.
    if !own.lacks.is_in(&own.mac_salt) {
        return MacState::Invalid;
    }
    let keys = keys(own);
    if keys.is_empty() {
        return MacState::NoKey;
    }
    let input = manifest.mac_input();
    if keys.iter().any(|key| mac_holds(key, &input, &own.mac)) { MacState::Valid } else { MacState::Invalid }
}

impl Backup {
    /// Opens the backup in the folder at `path`, which is no link, whatever it is called.
    pub fn open(path: &Path) -> Result<Backup> {
        let path = std::path::absolute(path).map_err(|error| Error::io("open a backup", path, error))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let root = openat(CWD, &path, FOLDER, Mode::empty()).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR => {
                Error::integrity("a backup is a folder, and this is none").at(&path).hint("links are not followed")
            }
            error => Error::io("open a backup", &path, error.into()),
        })?;
        let place = path.join(MANIFEST);
        let bytes = read_manifest(&root, &place)?;
        let manifest = Manifest::parse(&bytes).map_err(|error| {
            error
                .at(&place)
                .hint("the files beside it may be whole; another copy of the backup may have a manifest that is")
        })?;
        Ok(Backup { name, path, manifest, root })
    }

    /// Opens a file of the backup, which has the size that the manifest says.
    pub fn file(&self, entry: &FileEntry) -> Result<File> {
        let place = self.path.join(&entry.path);
        let (folder, name) = self.parent(&entry.path)?;
        let file = File::from(openat(&folder, name, FILE, Mode::empty()).map_err(|error| refused(error, &place))?);
        let meta = file.metadata().map_err(|error| Error::io("read a file of the backup", &place, error))?;
        if !meta.is_file() {
            return Err(Error::integrity("something that is no regular file stands in a file's place").at(&place));
        }
        if meta.len() != entry.size {
            let (size, found) = (entry.size, meta.len());
            return Err(Error::integrity(format!("it should have {size} bytes, and has {found}")).at(&place));
        }
        Ok(file)
    }

    /// Makes sure that a folder of the backup is there.
    pub fn check_folder(&self, entry: &FileEntry) -> Result<()> {
        self.folder(&entry.path).map(drop)
    }

    /// Refuses entries that differ in case only, unless somebody vouches for the manifest.
    pub fn check_case(&self, mac: MacState) -> Result<()> {
        if mac == MacState::Valid {
            return Ok(());
        }
        match names::case_collision(self.manifest.files.iter().map(|entry| entry.path.as_str())) {
            None => Ok(()),
            Some((one, other)) => {
                let (one, other) = (names::quoted(one), names::quoted(other));
                Err(Error::integrity(format!(
                    "two paths differ in case only, and nobody vouches for them: {one}, {other}"
                ))
                .at(self.path.join(MANIFEST)))
            }
        }
    }

    /// Opens the folder at `path` within the backup; the backup's own if that is empty.
    pub(super) fn folder(&self, path: &str) -> Result<OwnedFd> {
        let place = || self.path.join(path);
        // Whatever a manifest says, nothing is resolved that could lead upwards.
        if !path.is_empty() {
            names::check_path(path).map_err(|why| Error::integrity(format!("not a path in a backup: {why}")))?;
        }
        let mut at = openat(&self.root, ".", FOLDER, Mode::empty()).map_err(|error| refused(error, &place()))?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = openat(&at, name, FOLDER, Mode::empty()).map_err(|error| refused(error, &place()))?;
        }
        Ok(at)
    }

    fn parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str)> {
        names::check_path(path).map_err(|why| Error::integrity(format!("not a path in a backup: {why}")))?;
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.folder(folder)?, name))
    }
}

fn read_manifest(root: &OwnedFd, place: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Error::integrity("there is no manifest.json: this is no backup, or it was not finished")
            .at(place)
            .hint("`nbak backup list` shows what is there"),
        _ => Error::io("read a manifest", place, error),
    };
    let file = File::from(openat(root, MANIFEST, FILE, Mode::empty()).map_err(|error| match error {
        Errno::LOOP => Error::integrity("the manifest is a symbolic link, which is not followed").at(place),
        error => failed(error.into()),
    })?);
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(Error::integrity("the manifest is no regular file").at(place));
    }
    let mut bytes = Vec::new();
    // One byte more, so that the parser sees that it is too large.
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn refused(error: Errno, place: &Path) -> Error {
    match error {
        Errno::NOENT => Error::integrity("it is missing").at(place),
        Errno::LOOP | Errno::NOTDIR => {
            Error::integrity("a symbolic link, or something that is no folder, stands in its way").at(place)
        }
        Errno::NXIO | Errno::NODEV => {
            Error::integrity("something that is no regular file stands in its place").at(place)
        }
        error => Error::io("open what a backup holds", place, error.into()),
    }
}
