//! Documented backups in Drive: one folder each, the manifest last.
//!
//! `nodyn-backups/<name>/…`, with real folders inside. Files go in any order, several at a time, and `manifest.json`
//! when all others are there and were compared: a folder without one is no backup, and nobody takes it for one. What is
//! there already, with the same size and checksum, is not sent again; what is there twice, or with other content, is
//! removed.
//!
//! **Back again**, nothing that a list says is believed. Names become paths only if a backup may have such a path;
//! the manifest says which files there are, how large, and with which checksum, and that is what is written, into a
//! folder that has no backup's name until all of it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::api::{Drive, Remote, shown};
use super::sessions::Sessions;
use super::upload::{Content, Job, OnDisk, Sums, sums, upload};
use crate::error::{Error, Result};
use crate::export::backup::Backup;
use crate::export::dialect::Dialect;
use crate::export::list::Listed;
use crate::export::manifest::{BYTES_MAX, FileEntry, Kind as EntryKind, Manifest};
use crate::export::names::{self, MANIFEST};
use crate::export::retention::{self, Decision};

/// Files that are under way at a time: each takes a part in memory, and Drive's quotas are per user and minute.
const AT_ONCE: usize = 3;
/// So much is asked for at a time when downloading, in bytes.
const STRETCH: u64 = 8 * 1024 * 1024;
/// The top of the account.
const ROOT: &str = "root";
/// Notes the path with each file, for whoever looks at it there.
const PROPERTY: &str = "nbak_path";
/// Notes with a backup's folder which it is: its manifest's checksum.
const BACKUP: &str = "nbak_backup";

/// A backup in Drive.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The id of its folder.
    pub id: String,
    /// What its manifest says; damage if it has none, or none that can be read.
    pub listed: Listed,
}

/// What an upload did.
#[derive(Debug, Default)]
pub struct Uploaded {
    /// Files that were sent.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were there already.
    pub kept: u64,
}

/// Told of bytes that went, from any thread.
pub type Watch<'a> = &'a (dyn Fn(u64) + Sync);

/// The backups in one account.
pub struct Backups<'a> {
    /// The account.
    pub drive: &'a Drive,
    /// Uploads that have begun.
    pub sessions: &'a Sessions,
}

/// Files below a remote folder, by their paths; more than one if there are several of the same name.
type Files = BTreeMap<String, Vec<Remote>>;

impl Backups<'_> {
    /// Uploads `backup`, as far as it is not there.
    pub fn upload(&self, backup: &Backup, watch: Watch<'_>) -> Result<Uploaded> {
        let top = self.drive.folder(ROOT, backup.manifest.dialect.drive_folder())?;
        let folder = self.folder_of(&top, backup)?;
        let mut there = self.below(&folder)?;
        self.take_back_manifest(backup, &mut there)?;
        let mut paths = files_of(&backup.path)?;
        paths.retain(|path| path != MANIFEST);
        let folders = Folders { drive: self.drive, known: Mutex::new(BTreeMap::from([(String::new(), folder)])) };
        let done = Mutex::new(Uploaded::default());
        let known: BTreeMap<&str, &str> =
            backup.manifest.files.iter().map(|entry| (entry.path.as_str(), entry.sha256.as_str())).collect();
        let one = |path: &String| -> Result<()> {
            let content = OnDisk::open(&backup.path.join(path))?;
            let sums = sums(&content)?;
            if let Some(expected) = known.get(path.as_str()).filter(|expected| **expected != sums.sha256)
                && !expected.is_empty()
            {
                return Err(Error::integrity("a file of the backup is not what its manifest says")
                    .at(backup.path.join(path))
                    .hint("`nbak backup verify` names all of them; upload another backup"));
            }
            let sent = self.put(&backup.name, path, &folders, there.get(path), &content, &sums, watch)?;
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            if sent {
                done.files += 1;
                done.bytes += content.size();
            } else {
                done.kept += 1;
            }
            Ok(())
        };
        at_once(&paths, &one)?;
        // What is there and belongs to no file of the backup would be restored by programs that go by the folder.
        let wanted: BTreeSet<&String> = paths.iter().collect();
        for (path, copies) in there.iter().filter(|(path, _)| !wanted.contains(path) && *path != MANIFEST) {
            for copy in copies {
                self.drive.delete(&copy.id).map_err(|error| error.also(shown(path)))?;
            }
        }
        one(&MANIFEST.to_owned())?;
        Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The folder of this very backup. One of the same name may be another machine's, made in the same second: it is
    /// left alone.
    fn folder_of(&self, top: &str, backup: &Backup) -> Result<String> {
        let checksum = &backup.manifest.checksum;
        let is_its = |folder: &&Remote| folder.is_folder && folder.properties.get(BACKUP) == Some(checksum);
        if let Some(own) = self.drive.named(top, &backup.name)?.iter().find(is_its) {
            return Ok(own.id.clone());
        }
        let properties = BTreeMap::from([(BACKUP.to_owned(), checksum.clone())]);
        self.drive.make_folder(top, &backup.name, &properties)
    }

    /// A folder with a manifest is a backup. If something in it is missing or wrong, which is about to be mended, it is
    /// none until it is.
    fn take_back_manifest(&self, backup: &Backup, there: &mut Files) -> Result<()> {
        let is_there = |entry: &&FileEntry| {
            let fits =
                |copy: &Remote| copy.size == entry.size && copy.sha256.as_ref().is_none_or(|s| *s == entry.sha256);
            entry.kind.is_directory() || there.get(&entry.path).is_some_and(|copies| copies.iter().any(fits))
        };
        if there.contains_key(MANIFEST) && !backup.manifest.files.iter().all(|entry| is_there(&entry)) {
            for copy in there.remove(MANIFEST).unwrap_or_default() {
                self.drive.delete(&copy.id)?;
            }
        }
        Ok(())
    }

    /// Uploads one file unless it is there; answers whether it was sent. Other copies go.
    #[expect(clippy::too_many_arguments, reason = "each is another thing, and there is one caller")]
    fn put(
        &self,
        backup: &str,
        path: &str,
        folders: &Folders<'_>,
        copies: Option<&Vec<Remote>>,
        content: &OnDisk,
        sums: &Sums,
        watch: Watch<'_>,
    ) -> Result<bool> {
        let mut copies: Vec<&Remote> = copies.into_iter().flatten().collect();
        let good = copies.iter().position(|copy| sums.are_of(copy, content.size())).map(|at| copies.swap_remove(at));
        for other in copies {
            self.drive.delete(&other.id)?;
        }
        if good.is_some() {
            self.sessions.end(&format!("{backup}/{path}"));
            watch(content.size());
            return Ok(false);
        }
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = folders.id(above)?;
        let properties = BTreeMap::from([(PROPERTY.to_owned(), short(path))]);
        let key = format!("{backup}/{path}");
        let job = Job { key: &key, parent: &parent, name, properties, content, sums };
        upload(self.drive, self.sessions, &job, watch).map_err(|error| error.also(format!("of backup {backup}")))?;
        Ok(true)
    }

    /// All files below `folder`, by their paths.
    fn below(&self, folder: &str) -> Result<Files> {
        let mut files = Files::new();
        let mut waiting = vec![(String::new(), folder.to_owned())];
        let mut seen = BTreeSet::new();
        while let Some((path, id)) = waiting.pop() {
            // A folder may be named in itself, by a service that is none.
            if !seen.insert(id.clone()) || path.matches('/').count() > names::DEPTH_MAX {
                return Err(Error::remote(format!("folders in Google Drive lie in each other: {}", shown(&path))));
            }
            for remote in self.drive.children(&id)? {
                let at = if path.is_empty() { remote.name.clone() } else { format!("{path}/{}", remote.name) };
                if remote.is_folder {
                    waiting.push((at, remote.id));
                } else {
                    files.entry(at).or_default().push(remote);
                }
            }
        }
        Ok(files)
    }

    /// All backups there, the oldest first. Only manifests are read.
    pub fn list(&self) -> Result<Vec<Stored>> {
        let mut found = Vec::new();
        for dialect in [Dialect::Nodyn, Dialect::Lynox] {
            let tops = self.drive.named(ROOT, dialect.drive_folder())?;
            for top in tops.into_iter().filter(|top| top.is_folder) {
                for folder in self.drive.children(&top.id)?.into_iter().filter(|child| child.is_folder) {
                    let listed = self.look_at(&folder)?;
                    found.push(Stored { id: folder.id, listed });
                }
            }
        }
        found.sort_by(|one, other| {
            (one.listed.created_ms, &one.listed.name).cmp(&(other.listed.created_ms, &other.listed.name))
        });
        Ok(found)
    }

    fn look_at(&self, folder: &Remote) -> Result<Listed> {
        if let Err(why) = names::check_name(&folder.name) {
            return Ok(Listed::damaged(Path::new(""), &shown(&folder.name), format!("its name is no backup's: {why}")));
        }
        let manifests = self.drive.named(&folder.id, MANIFEST)?;
        let Some(manifest) = manifests.iter().find(|remote| !remote.is_folder) else {
            let why = "incomplete: it has no manifest, since its upload did not end".to_owned();
            return Ok(Listed::damaged(Path::new(""), &folder.name, why));
        };
        Ok(match self.manifest(manifest) {
            Ok(manifest) => Listed::whole(folder.name.clone(), PathBuf::new(), manifest),
            Err(error) if error.is_integrity() => Listed::damaged(Path::new(""), &folder.name, error.what()),
            Err(error) => return Err(error),
        })
    }

    fn manifest(&self, remote: &Remote) -> Result<Manifest> {
        if remote.size > BYTES_MAX {
            return Err(Error::integrity("its manifest is larger than one can be"));
        }
        Manifest::parse(&self.drive.read_whole(remote, BYTES_MAX)?)
    }

    /// The backup called `name`, or whose folder has this id, or the newest that is complete and was not made before a
    /// restore.
    pub fn find(&self, name: Option<&str>) -> Result<Stored> {
        let all = self.list()?;
        let hint = "`nbak backup gdrive list` lists them";
        if let Some(name) = name {
            let is_meant = |one: &Stored| one.listed.name == name || one.id == name;
            let mut found: Vec<Stored> = all.into_iter().filter(is_meant).collect();
            // One that is not complete is in nobody's way.
            if found.len() > 1 {
                found.retain(|one| one.listed.damage.is_none());
            }
            if found.len() > 1 {
                let ids: Vec<&str> = found.iter().map(|one| one.id.as_str()).collect();
                let what = format!("there are several backups {name} in Google Drive, of several machines");
                return Err(Error::usage(what).hint(format!("name one by its id: {}", ids.join(", "))));
            }
            let what = || Error::no_store(format!("there is no backup {name} in Google Drive")).hint(hint);
            return found.pop().ok_or_else(what);
        }
        let whole = || all.iter().rev().filter(|one| one.listed.damage.is_none());
        let newest = whole().find(|one| !one.listed.before_restore).or_else(|| whole().next());
        newest.cloned().ok_or_else(|| Error::no_store("there is no complete backup in Google Drive").hint(hint))
    }

    /// Downloads `stored` into `folder`, which has nothing of another backup. What is there of it, from an earlier try,
    /// is not fetched again.
    pub fn download(&self, stored: &Stored, folder: &Path, watch: Watch<'_>) -> Result<Uploaded> {
        let name = &stored.listed.name;
        if let Some(why) = &stored.listed.damage {
            return Err(Error::integrity(format!("backup {name} in Google Drive cannot be restored: {why}")));
        }
        let files = self.below(&stored.id)?;
        let Some(remote) = files.get(MANIFEST).and_then(|copies| copies.first()) else {
            return Err(Error::integrity(format!("backup {name} in Google Drive has no manifest any more")));
        };
        let bytes = self.drive.read_whole(remote, BYTES_MAX)?;
        let manifest = Manifest::parse(&bytes)?;
        let wanted = plan(name, &manifest, &files)?;
        make_folders(folder, &manifest, &wanted)?;
        enough_room(folder, wanted.iter().map(|one| one.remote.size).sum())?;
        let done = Mutex::new(Uploaded::default());
        at_once(&wanted, &|one: &Wanted<'_>| {
            let fetched = self.fetch(one, &folder.join(&one.path), watch)?;
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.kept += u64::from(fetched == 0 && one.remote.size > 0);
            done.files += u64::from(fetched > 0 || one.remote.size == 0);
            done.bytes += fetched;
            Ok(())
        })?;
        let path = folder.join(MANIFEST);
        crate::export::files::write_durably(&path, &bytes)?;
        Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Downloads one file, from where an earlier try ended; answers with how many bytes came.
    fn fetch(&self, one: &Wanted<'_>, path: &Path, watch: Watch<'_>) -> Result<u64> {
        let failed = |error| Error::io("write what is downloaded", path, error);
        let size = one.remote.size;
        let open = || {
            let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            let mut options = std::fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
        };
        let fetched = AtomicU64::new(0);
        // A second time from the beginning, if what was there before was of something else.
        for fresh in [false, true] {
            let file = open().map_err(failed)?;
            if fresh {
                file.set_len(0).map_err(failed)?;
            }
            let mut at = file.metadata().map_err(failed)?.len();
            if at > size {
                file.set_len(0).map_err(failed)?;
                at = 0;
            }
            watch(if fresh { 0 } else { at });
            while at < size {
                let length = (size - at).min(STRETCH);
                let mut offset = at;
                self.drive.read(one.remote, at, length, &mut |bytes| {
                    file.write_all_at(bytes, offset).map_err(failed)?;
                    offset += bytes.len() as u64;
                    fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    watch(bytes.len() as u64);
                    Ok(())
                })?;
                at += length;
            }
            file.sync_data().map_err(failed)?;
            let sums = sums(&OnDisk::open(path)?)?;
            if one.is(&sums) {
                return Ok(fetched.into_inner());
            }
        }
        std::fs::remove_file(path).map_err(failed)?;
        Err(Error::integrity(format!("{} in Google Drive is not what the backup's manifest says", shown(&one.path)))
            .hint("restore another backup: `nbak backup gdrive list`"))
    }

    /// Removes backups there that are older than `days`, never the newest complete one, nor what is not known to be
    /// one.
    pub fn prune(&self, days: u32, now_ms: i64, dry_run: bool) -> Result<Vec<Decision>> {
        let all = self.list()?;
        let listed: Vec<Listed> = all.iter().map(|one| one.listed.clone()).collect();
        let newest = listed.iter().rev().find(|one| one.damage.is_none() && !one.before_restore);
        let decisions = retention::plan(&listed, days, now_ms, newest.map(|one| one.name.as_str()));
        for (one, _) in all.iter().zip(&decisions).filter(|(_, decision)| !decision.keep && !dry_run) {
            // Without its manifest it is no backup any more, however the rest ends.
            for manifest in self.drive.named(&one.id, MANIFEST)? {
                self.drive.delete(&manifest.id)?;
            }
            self.drive.delete(&one.id)?;
        }
        Ok(decisions)
    }
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

/// A file to download.
struct Wanted<'a> {
    path: String,
    remote: &'a Remote,
    /// By the manifest; none in a folder that older backups name as a whole.
    sha256: Option<&'a str>,
}

impl Wanted<'_> {
    fn is(&self, sums: &Sums) -> bool {
        match self.sha256 {
            Some(sha256) => sums.sha256 == sha256,
            None => sums.are_of(self.remote, self.remote.size),
        }
    }
}

/// What to download: what the manifest names, with the sizes that it says.
fn plan<'a>(name: &str, manifest: &'a Manifest, files: &'a Files) -> Result<Vec<Wanted<'a>>> {
    let bad = |path: &str, why: &str| {
        Error::integrity(format!("backup {name} in Google Drive cannot be restored: {}: {why}", shown(path)))
    };
    let mut wanted = Vec::new();
    for entry in manifest.files.iter().filter(|entry| !entry.kind.is_directory()) {
        let copies = files.get(&entry.path).ok_or_else(|| bad(&entry.path, "it is not there"))?;
        let fits = |copy: &&Remote| {
            copy.size == entry.size && copy.sha256.as_ref().is_none_or(|sha256| *sha256 == entry.sha256)
        };
        let remote = copies.iter().find(fits);
        let remote =
            remote.ok_or_else(|| bad(&entry.path, "it has another size or checksum than the manifest says"))?;
        wanted.push(Wanted { path: entry.path.clone(), remote, sha256: Some(&entry.sha256) });
    }
    // Older backups name a knowledge graph's folder, and not what is in it.
    for folder in manifest.files.iter().filter(|entry| entry.kind == EntryKind::KuzuDir) {
        let inside = files
            .iter()
            .filter(|(path, _)| path.strip_prefix(folder.path.as_str()).is_some_and(|rest| rest.starts_with('/')));
        for (path, copies) in inside.filter(|(path, _)| manifest.files.iter().all(|entry| entry.path != **path)) {
            names::check_path(path).map_err(|why| bad(path, &why))?;
            if let Some(remote) = copies.first() {
                wanted.push(Wanted { path: path.clone(), remote, sha256: None });
            }
        }
    }
    let together = wanted.iter().map(|one| (one.path.as_str(), false));
    names::check_together(together).map_err(|why| bad("", &why))?;
    Ok(wanted)
}

fn make_folders(folder: &Path, manifest: &Manifest, wanted: &[Wanted<'_>]) -> Result<()> {
    let mut folders: BTreeSet<PathBuf> = BTreeSet::from([folder.to_path_buf()]);
    let listed =
        manifest.files.iter().filter(|entry| entry.kind.is_directory()).map(|entry| PathBuf::from(&entry.path));
    let above = wanted.iter().filter_map(|one| Path::new(&one.path).parent().map(Path::to_path_buf));
    for path in listed.chain(above) {
        folders.extend(path.ancestors().map(|part| folder.join(part)));
    }
    // Sorted, a folder comes before what is in it.
    for path in folders {
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                    return Err(Error::failed("something stands where a folder is to be").at(&path));
                }
            }
            Err(error) => return Err(Error::io("make a folder", &path, error)),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn enough_room(folder: &Path, bytes: u64) -> Result<()> {
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes > free {
        return Err(Error::failed(format!("the backup has {bytes} bytes, and there are {free} on the disk")).at(folder));
    }
    Ok(())
}

/// The files in a backup's folder, by their paths. Links are none.
fn files_of(backup: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(folder) = waiting.pop() {
        let at = backup.join(&folder);
        let failed = |error| Error::io("read the backup", &at, error);
        for entry in std::fs::read_dir(&at).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let path = folder.join(entry.file_name());
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file()
                && let Some(path) = path.to_str()
            {
                files.push(path.to_owned());
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// A property is at most 124 bytes with its name: the end of a path says most.
fn short(path: &str) -> String {
    let mut start = path.len().saturating_sub(100);
    while !path.is_char_boundary(start) {
        start += 1;
    }
    path[start..].to_owned()
}

/// Does `act` for each of `items`, some at a time, until one fails.
pub(super) fn at_once<T: Sync>(items: &[T], act: &(dyn Fn(&T) -> Result<()> + Sync)) -> Result<()> {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(None::<Error>));
    let has_failed = || failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                while !has_failed()
                    && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                {
                    if let Err(error) = act(item) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
