//! A backup to Drive.
//!
//! **What goes is what the manifest names**, and only if all of it is here and is what the manifest says: that is read
//! and compared before anything there is touched. A backup that has lost something must not take the good copy along.
//!
//! Files go in any order, several at a time, and the manifest when all others are there and were compared. What is
//! there already, with the same size and checksum, is not sent again; what is there twice, or with other content, is
//! removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::{Backups, Files, ROOT, Uploaded, Watch, at_once};
use crate::drive::api::Drive;
use crate::drive::owner::short;
use crate::drive::remote::{Remote, shown};
use crate::drive::sums::{Content, OnDisk, Sums};
use crate::drive::upload::{Job, upload};
use crate::error::{Error, Result};
use crate::export::backup::Backup;
use crate::export::files::open_regular;
use crate::export::manifest::{FileEntry, Kind as EntryKind};
use crate::export::names::MANIFEST;

/// Notes the path with each file, for whoever looks at it there.
const PROPERTY: &str = "nbak_path";
/// Notes with a backup's folder which it is: its manifest's checksum.
const BACKUP: &str = "nbak_backup";

/// A file of the backup, as it lies here.
struct Here {
    /// Whether the manifest names it, and so says what it is; else only a folder that it is in.
    is_named: bool,
    path: String,
    size: u64,
    sums: Sums,
}

impl Backups<'_> {
    /// Uploads `backup`, as far as it is not there.
    pub fn upload(&self, backup: &Backup, watch: Watch<'_>) -> Result<Uploaded> {
        let files = whole(backup)?;
        let manifest = manifest_of(backup)?;
        let top = self.drive.folder(ROOT, backup.manifest.dialect.drive_folder())?;
        let folder = self.folder_of(&top, backup)?;
        let mut there = self.below(&folder)?;
        // A folder with a manifest is a backup. If something in it is missing or wrong, which is about to be mended,
        // it is none until it is.
        let is_there = |here: &Here| {
            there.get(&here.path).is_some_and(|copies| copies.iter().any(|copy| here.sums.are_of(copy, here.size)))
        };
        if there.contains_key(MANIFEST) {
            agree_on_folders(backup, &files, &there, &is_there)?;
        }
        if there.contains_key(MANIFEST) && !files.iter().all(is_there) {
            for copy in there.remove(MANIFEST).unwrap_or_default() {
                self.drive.delete(&copy.id)?;
            }
        }
        let known = Mutex::new(BTreeMap::from([(String::new(), folder.clone())]));
        let folders = Folders { drive: self.drive, known };
        let done = Mutex::new(Uploaded::default());
        let one = |here: &Here| -> Result<()> {
            let sent = self.put(backup, here, &folders, there.get(&here.path), watch)?;
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            if sent {
                done.files += 1;
                done.bytes += here.size;
            } else {
                done.kept += 1;
            }
            Ok(())
        };
        at_once(&files, &one)?;
        // What is there and belongs to no file of the backup would be restored by programs that go by the folder.
        let wanted: BTreeSet<&String> = files.iter().map(|here| &here.path).collect();
        for (path, copies) in there.iter().filter(|(path, _)| !wanted.contains(path) && *path != MANIFEST) {
            for copy in copies {
                self.drive.delete(&copy.id).map_err(|error| error.also(shown(path)))?;
            }
        }
        one(&manifest)?;
        // Somebody may have thrown it away meanwhile, with all that is in it.
        if self.drive.file(&folder)?.is_none() {
            let what = format!("backup {} was removed from Google Drive while it was uploaded", backup.name);
            return Err(Error::remote(what).hint("run it again: it is uploaded anew"));
        }
        let now = self.below(&folder)?;
        let is_now = |here: &&Here| {
            let copies = now.get(&here.path).into_iter().flatten();
            copies.into_iter().any(|copy| here.sums.are_of(copy, here.size))
        };
        if let Some(lost) = files.iter().chain([&manifest]).find(|here| !is_now(here)) {
            return Err(Error::remote("a file went from Google Drive while the backup was uploaded")
                .at(format!("{}/{}", backup.name, shown(&lost.path)))
                .hint("run it again: what is missing is sent again"));
        }
        Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a backup on this machine has all that its manifest names.
    pub fn is_whole(&self, backup: &Backup) -> bool {
        whole(backup).is_ok()
    }

    /// The folder of this very backup. One of the same name may be another machine's, made in the same second: it is
    /// left alone.
    fn folder_of(&self, top: &str, backup: &Backup) -> Result<String> {
        let checksum = &backup.manifest.checksum;
        let is_its = |folder: &&Remote| folder.is_folder && folder.properties.get(BACKUP) == Some(checksum);
        if let Some(own) = self.drive.named(top, &backup.name)?.iter().find(is_its) {
            return Ok(own.id.clone());
        }
        let mut properties = self.own.of_backup();
        properties.insert(BACKUP.to_owned(), checksum.clone());
        self.drive.make_folder(top, &backup.name, &properties)
    }

    /// Uploads one file unless it is there; answers whether it was sent. Other copies go.
    fn put(
        &self,
        backup: &Backup,
        here: &Here,
        folders: &Folders<'_>,
        copies: Option<&Vec<Remote>>,
        watch: Watch<'_>,
    ) -> Result<bool> {
        let Here { path, size, sums, .. } = here;
        let key = format!("{}/{path}", backup.name);
        let mut copies: Vec<&Remote> = copies.into_iter().flatten().collect();
        let good = copies.iter().position(|copy| sums.are_of(copy, *size)).map(|at| copies.swap_remove(at));
        for other in copies {
            self.drive.delete(&other.id)?;
        }
        if good.is_some() {
            self.sessions.end(&key);
            watch(*size);
            return Ok(false);
        }
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = folders.id(above)?;
        let properties = BTreeMap::from([(PROPERTY.to_owned(), short(path))]);
        let at = backup.path.join(path);
        let file = open_regular(&at).map_err(|error| Error::io("read a file to upload", &at, error))?;
        let content = OnDisk::new(file, &at)?;
        let job = Job { key: &key, parent: &parent, name, properties, content: &content, sums };
        let done = upload(self.drive, self.sessions, &job, watch);
        done.map_err(|error| error.also(format!("of backup {}", backup.name)))?;
        Ok(true)
    }
}

/// The files of `backup`, if each that its manifest names is here, and is what the manifest says. Older backups name a
/// knowledge graph's folder, and not what is in it: that goes as it is.
fn whole(backup: &Backup) -> Result<Vec<Here>> {
    let found = Mutex::new(Vec::new());
    at_once(&backup.manifest.files, &|entry: &FileEntry| {
        let here = if entry.kind.is_directory() {
            backup.check_folder(entry)?;
            inside(backup, entry)?
        } else {
            let here = read(&OnDisk::new(backup.file(entry)?, &backup.path.join(&entry.path))?, &entry.path, true)?;
            if here.sums.sha256 != entry.sha256 {
                return Err(Error::integrity("a file of the backup is not what its manifest says")
                    .at(backup.path.join(&entry.path)));
            }
            vec![here]
        };
        found.lock().unwrap_or_else(PoisonError::into_inner).extend(here);
        Ok(())
    })
    .map_err(|error| {
        error.hint("nothing in Google Drive was touched; `nbak backup verify` names all that is wrong with this backup")
    })?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn read(content: &OnDisk, path: &str, is_named: bool) -> Result<Here> {
    Ok(Here { is_named, path: path.to_owned(), size: content.size(), sums: Sums::of(content)? })
}

/// What lies in a folder that the manifest names as a whole. Links are not followed, and do not count.
fn inside(backup: &Backup, entry: &FileEntry) -> Result<Vec<Here>> {
    let named: BTreeSet<&str> = backup.manifest.files.iter().map(|entry| entry.path.as_str()).collect();
    let mut files = Vec::new();
    let mut waiting = match entry.kind {
        EntryKind::KuzuDir => vec![PathBuf::from(&entry.path)],
        _ => Vec::new(),
    };
    while let Some(folder) = waiting.pop() {
        let at = backup.path.join(&folder);
        let failed = |error| Error::io("read the backup", &at, error);
        for child in std::fs::read_dir(&at).map_err(failed)? {
            let child = child.map_err(failed)?;
            let kind = child.file_type().map_err(failed)?;
            let path = folder.join(child.file_name());
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() {
                let name = path.to_str().ok_or_else(|| {
                    Error::integrity("a file's name is not UTF-8, and cannot be one in Google Drive").at(child.path())
                })?;
                if !named.contains(name) {
                    let file = open_regular(&child.path()).map_err(failed)?;
                    files.push(read(&OnDisk::new(file, &child.path())?, name, false)?);
                }
            }
        }
    }
    Ok(files)
}

/// What is in a folder that an older manifest names as a whole is vouched for by nobody. If a complete copy there has
/// something else in it, nobody can tell which is right, and neither is touched.
fn agree_on_folders(backup: &Backup, files: &[Here], there: &Files, is_there: &dyn Fn(&Here) -> bool) -> Result<()> {
    let folders = backup.manifest.files.iter().filter(|entry| entry.kind == EntryKind::KuzuDir);
    let named: BTreeSet<&str> = backup.manifest.files.iter().map(|entry| entry.path.as_str()).collect();
    for folder in folders {
        let is_in = |path: &str| {
            path.strip_prefix(folder.path.as_str()).is_some_and(|rest| rest.starts_with('/')) && !named.contains(path)
        };
        let mut here = files.iter().filter(|here| !here.is_named && is_in(&here.path));
        let ours: BTreeSet<&str> = files.iter().map(|here| here.path.as_str()).collect();
        let same = here.all(is_there) && there.keys().all(|path| !is_in(path) || ours.contains(path.as_str()));
        if !same {
            return Err(Error::integrity(
                "the copy in Google Drive has other files in this folder than the backup here",
            )
            .at(backup.path.join(&folder.path))
            .hint("its manifest does not say which are right: nothing was touched; compare the two by hand"));
        }
    }
    Ok(())
}

/// The manifest, which is still the one that was read.
fn manifest_of(backup: &Backup) -> Result<Here> {
    let path = backup.path.join(MANIFEST);
    let file = open_regular(&path).map_err(|error| Error::io("read a manifest", &path, error))?;
    let here = read(&OnDisk::new(file, &path)?, MANIFEST, true)?;
    let again = Backup::open(&backup.path)?;
    if again.manifest.checksum != backup.manifest.checksum {
        return Err(Error::failed("the backup was changed while it was read").at(path).hint("run it again"));
    }
    Ok(here)
}

/// Real folders inside a backup's.
struct Folders<'a> {
    drive: &'a Drive,
    known: Mutex<BTreeMap<String, String>>,
}

impl Folders<'_> {
    /// The id of the folder at `path`. One at a time: two threads would make it twice.
    fn id(&self, path: &str) -> Result<String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = 0;
        while at < path.len() {
            let end = path[at..].find('/').map_or(path.len(), |next| at + next);
            if !known.contains_key(&path[..end]) {
                let parent = known[path[..at].trim_end_matches('/')].clone();
                let id = self.drive.folder(&parent, &path[at..end])?;
                known.insert(path[..end].to_owned(), id);
            }
            at = end + 1;
        }
        Ok(known[path].clone())
    }
}
