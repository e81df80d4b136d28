//! A backup back from Drive.
//!
//! Nothing that a list says is believed. Names become paths only if a backup may have such a path; the manifest says
//! which files there are, how large, and with which checksum, and that is what is written, into a folder that has no
//! backup's name until all of it is there.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Backups, Files, Stored, Uploaded, Watch, at_once};
use crate::drive::remote::{Remote, shown};
use crate::drive::sums::{OnDisk, Sums};
use crate::error::{Error, Result};
use crate::export::files::sync_folder;
use crate::export::manifest::{BYTES_MAX, Kind as EntryKind, Manifest};
use crate::export::names::{self, MANIFEST};

/// So much is asked for at a time, in bytes.
const STRETCH: u64 = 8 * 1024 * 1024;

/// A backup there, all of whose files are there as its manifest says.
pub struct Plan {
    /// Its name.
    name: String,
    /// Its manifest as it lies there.
    bytes: Vec<u8>,
    /// The same, read.
    pub manifest: Manifest,
    files: Files,
}

impl Backups<'_> {
    /// Looks at the files of `stored`, and downloads none but the manifest.
    pub fn plan(&self, stored: &Stored) -> Result<Plan> {
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
        wanted(name, &manifest, &files).map_err(|error| {
            error.hint(format!(
                "look in Google Drive's bin; where it is whole, `nbak backup gdrive upload {name}` mends it there"
            ))
        })?;
        Ok(Plan { name: name.clone(), bytes, manifest, files })
    }

    /// Downloads what `plan` has into `folder`, which has nothing of another backup. What is there of it, from an
    /// earlier try, is not fetched again. The smallest file comes first, and `proves` is asked about it before the
    /// others: whether the key is right is not to be found out at the end.
    pub fn download(
        &self,
        plan: &Plan,
        folder: &Path,
        proves: &dyn Fn(&Path) -> Result<()>,
        watch: Watch<'_>,
    ) -> Result<Uploaded> {
        let mut wanted = wanted(&plan.name, &plan.manifest, &plan.files)?;
        wanted.sort_by_key(|one| (one.sha256.is_none(), one.remote.size));
        let folders = make_folders(folder, &plan.manifest, &wanted)?;
        let missing = |one: &Wanted<'_>| {
            let there = std::fs::symlink_metadata(folder.join(&one.path)).map_or(0, |meta| meta.len());
            one.remote.size.saturating_sub(there)
        };
        enough_room(folder, wanted.iter().map(missing).sum())?;
        let done = Mutex::new(Uploaded::default());
        let one = |one: &Wanted<'_>| {
            let fetched = self.fetch(one, &folder.join(&one.path), watch)?;
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.kept += u64::from(fetched == 0 && one.remote.size > 0);
            done.files += u64::from(fetched > 0 || one.remote.size == 0);
            done.bytes += fetched;
            Ok(())
        };
        let (first, rest) = wanted.split_at(wanted.len().min(1));
        if let [first] = first {
            one(first)?;
            if first.sha256.is_some() {
                proves(&folder.join(&first.path))?;
            }
        }
        at_once(rest, &one)?;
        // Each file was synced, and not yet that it is there: with a manifest beside it the folder is a backup.
        folders.iter().try_for_each(|folder| sync_folder(folder))?;
        let path = folder.join(MANIFEST);
        crate::export::files::write_durably(&path, &plan.bytes)?;
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
            let sums = Sums::of(&OnDisk::new(open().map_err(failed)?, path)?)?;
            if one.is(&sums) {
                return Ok(fetched.into_inner());
            }
        }
        std::fs::remove_file(path).map_err(failed)?;
        Err(Error::integrity(format!("{} in Google Drive is not what the backup's manifest says", shown(&one.path)))
            .hint("restore another backup: `nbak backup gdrive list`"))
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
fn wanted<'a>(name: &str, manifest: &'a Manifest, files: &'a Files) -> Result<Vec<Wanted<'a>>> {
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

/// Makes the folders of the backup, and answers with them.
fn make_folders(folder: &Path, manifest: &Manifest, wanted: &[Wanted<'_>]) -> Result<BTreeSet<PathBuf>> {
    let mut folders: BTreeSet<PathBuf> = BTreeSet::from([folder.to_path_buf()]);
    let listed =
        manifest.files.iter().filter(|entry| entry.kind.is_directory()).map(|entry| PathBuf::from(&entry.path));
    let above = wanted.iter().filter_map(|one| Path::new(&one.path).parent().map(Path::to_path_buf));
    for path in listed.chain(above) {
        folders.extend(path.ancestors().map(|part| folder.join(part)));
    }
    // Sorted, a folder comes before what is in it.
    for path in &folders {
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
                    return Err(Error::failed("something stands where a folder is to be").at(path));
                }
            }
            Err(error) => return Err(Error::io("make a folder", path, error)),
            Ok(()) => {}
        }
    }
    Ok(folders)
}

fn enough_room(folder: &Path, bytes: u64) -> Result<()> {
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes > free {
        return Err(Error::failed(format!("{bytes} bytes are still to come, and there is room for {free}"))
            .at(folder)
            .hint("make room, or name another backup_dir; what has come is kept"));
    }
    Ok(())
}
