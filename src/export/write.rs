//! Writing an export: one snapshot as the documented directory.
//!
//! 1. Under the lock of the backup folder, sweep what killed exports left, and reserve the seals.
//! 2. Restore the snapshot into scratch: in the data directory when the export is sealed, since plaintext goes nowhere
//!    else (S17), and in `<name>.tmp` when it is plain anyway.
//! 3. Each file on all cores: a database becomes a `VACUUM INTO` copy; then it is sealed, or moved, into `<name>.tmp`;
//!    synced; read back for its size and SHA-256.
//! 4. (I14) `manifest.json`, last, with its MAC; then all of it is verified as a stranger would, from the disk; only
//!    then `<name>.tmp` gets its name, and the folder is synced. Whatever fails before leaves nothing that is listed.
//!
//! What the documented format has no form for is left out and named: symbolic links, and names that are not UTF-8 or
//! hold a backslash. The snapshot holds them.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rayon::prelude::*;

use super::backup::Backup;
use super::database;
use super::dialect::Dialect;
use super::files::{create, open_regular, rename_new, sha256, sync_folder, write_durably};
use super::manifest::lacks::Lacks;
use super::manifest::{FileEntry, Kind, Manifest, Own, overall_checksum};
use super::names;
use super::nbak::{self, NbakKeys};
use super::seals;
use super::verify::{self, Verified};
use crate::crypto::secret::{Credential, Secret};
use crate::crypto::vault::{MacSource, mac, mac_key_of_store, mac_key_of_vault, nbak_key};
use crate::error::{Error, Result};
use crate::id::random_bytes;
use crate::snapshot::look;
use crate::snapshot::places::real;
use crate::snapshot::progress::Progress;
use crate::snapshot::record::Record;
use crate::snapshot::restore;
use crate::snapshot::scratch::{Scratch, open_up, remove_tree};
use crate::snapshot::store::Store;
use crate::snapshot::tree::{Attributes, Consistency, Node};
use crate::source::passing;
use crate::store::lock::WriterLock;

/// The lock of a backup folder: one export, restore or prune at a time.
const LOCK: &str = ".nbak-backup.lock";
/// Where plaintext lies within `<name>.tmp` while an unsealed export is written.
const TEMPORARY: &str = ".tmp";

/// What to write, and where.
pub struct Options<'a> {
    /// The folder that holds the backups.
    pub backup_dir: &'a Path,
    /// The data directory: scratch space for plaintext is made in it, if it is there.
    pub data_dir: &'a Path,
    /// The names to use.
    pub dialect: Dialect,
    /// The application's version, as far as it is known.
    pub version: String,
    /// What the backup is called after, and what it says of its age, in milliseconds since 1970.
    pub created: i64,
    /// The vault key, if there is one.
    pub vault: Option<&'a Credential>,
    /// Seal the files with it.
    pub encrypt: bool,
    /// A restore makes it, of what it is about to replace.
    pub before_restore: bool,
    /// How long to wait for another process that is at the backups.
    pub patience: Duration,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// The backup's name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// What its manifest says.
    pub manifest: Manifest,
    /// What reading it back found.
    pub verified: Verified,
    /// Entries that the documented format has no name for, and why: only the snapshot holds them.
    pub left_out: Vec<(PathBuf, String)>,
    /// What is worth knowing besides.
    pub remarks: Vec<String>,
}

/// Takes the lock of the backups at `folder`, which is made if it is not there.
pub fn lock(folder: &Path, patience: Duration) -> Result<WriterLock> {
    crate::store::local::create_folder(folder)?;
    let lock = lock_unsigned(folder, patience)?;
    lock.sign();
    Ok(lock)
}

/// The same of a folder that is there, for those who may turn out to have no key: nothing is written until they sign.
pub fn lock_unsigned(folder: &Path, patience: Duration) -> Result<WriterLock> {
    WriterLock::acquire_at(&folder.join(LOCK), "making, restoring or removing a backup here", patience)
}

/// Writes the snapshot `record` of `store` as a backup.
pub fn write(store: &Store, record: &Record, options: &Options<'_>, progress: &dyn Progress) -> Result<Written> {
    if real(options.backup_dir) == real(options.data_dir) {
        return Err(Error::usage("backups cannot lie in the data directory itself: each would hold all earlier ones")
            .at(options.backup_dir)
            .hint("name a folder of its own as `backup_dir`; nothing was written"));
    }
    let _lock = lock(options.backup_dir, options.patience)?;
    sweep(options.backup_dir)?;
    let listing = look::list_whole(store, record, record.tree, Path::new(""))?;
    if let Some((path, why)) = listing.lost.first() {
        return Err(damaged(record, path, why));
    }
    let mut items = Vec::new();
    let mut left_out = Vec::new();
    let mut links = Vec::new();
    for (path, entry) in listing.entries {
        let name = match path.to_str() {
            None => Err("its name is not UTF-8".to_owned()),
            Some(name) => names::check_path(name).map(|()| name.to_owned()),
        };
        match (name, &entry.node) {
            (_, Node::Symlink(_)) => links.push(path.display().to_string()),
            (Err(why), _) => left_out.push((path, why)),
            (Ok(name), Node::Directory(_)) => items.push(Item::new(name, entry.attributes, None)),
            (Ok(name), Node::File { size, consistency, .. }) => {
                items.push(Item::new(name, entry.attributes, Some((*size, *consistency == Consistency::Transaction))));
            }
        }
    }
    let mut remarks = Vec::new();
    if let Some(first) = links.first() {
        let more = if links.len() > 1 { format!(" and {} more", links.len() - 1) } else { String::new() };
        let what = "symbolic links are left out of the backup, and kept in the snapshot as what they say";
        remarks.push(format!("{what}: {first}{more}"));
    }
    let sealed = options.vault.filter(|_| options.encrypt);
    let files = items.iter().filter(|item| item.file.is_some()).count() as u64;
    if let Some(vault) = sealed {
        seals::reserve(options.backup_dir, vault, options.dialect, files)?;
    }
    room_for(&items, options.backup_dir)?;

    let taken = |name: &str| {
        let exists = |name: &str| std::fs::symlink_metadata(options.backup_dir.join(name)).is_ok();
        exists(name) || exists(&format!("{name}{TEMPORARY}"))
    };
    let name = names::new_name(options.created, &taken);
    let staging = Staging::make(options.backup_dir.join(format!("{name}{TEMPORARY}")))?;
    let scratch = scratch_for(options, sealed.is_some(), &staging);
    let folder =
        scratch.folder().map_err(|error| Error::io("make scratch space for an export beside", &staging.0, error))?;
    let plain = folder.join("plain");
    let restored = restore::restore(
        store,
        record,
        &restore::Options { target: plain.clone(), ..restore::Options::default() },
        progress,
    )?;
    if let Some((path, why)) = restored.damaged.first() {
        return Err(damaged(record, path, why));
    }

    open_up(&plain).map_err(|error| Error::io("open the scratch space of an export", &plain, error))?;
    let exporting_folder = folder.clone();
    let exporting = Exporting {
        plain,
        folder,
        staging: &staging.0,
        seal: sealed.map(|vault| nbak_key(vault, options.dialect.labels())),
        raw: Mutex::default(),
        numbers: AtomicU64::new(0),
        progress,
    };
    let files = exporting.all(&items)?;
    remarks.append(&mut exporting.raw.into_inner().unwrap_or_else(PoisonError::into_inner));
    drop(scratch);
    // Plaintext must not be published with what is sealed.
    if std::fs::symlink_metadata(&exporting_folder).is_ok() {
        return Err(Error::failed("the scratch space of an export cannot be removed")
            .at(&exporting_folder)
            .hint("remove it; no backup was made"));
    }
    let not_in_it = left_out.iter().map(|(path, why)| (path.to_string_lossy().into_owned(), why.clone()));
    let lacks = Lacks::of(&record.unreadable, record.unreadable_count, not_in_it);
    let manifest = manifest(store, record, options, sealed.is_some(), (files, lacks))?;
    write_durably(&staging.0.join("manifest.json"), &manifest.to_json())?;
    sync_tree(&staging.0, &items)?;

    let verified = read_back(store, &staging.0, options)?;
    let path = options.backup_dir.join(&name);
    staging.publish(&path)?;
    Ok(Written { name, path, manifest, verified, left_out, remarks })
}

fn damaged(record: &Record, path: &Path, why: &str) -> Error {
    Error::integrity(format!("snapshot {} has lost data: {why}", record.id.short()))
        .at(path)
        .hint("`nbak check --read-data` names what is lost; export an earlier or later snapshot; nothing was written")
}

/// Removes what exports that were killed left behind. Only for the holder of the lock.
pub fn sweep(folder: &Path) -> Result<()> {
    let failed = |error| Error::io("list the backups", folder, error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let stale =
            entry.file_name().to_str().and_then(|name| name.strip_suffix(TEMPORARY)).is_some_and(names::is_dated);
        if stale && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // What cannot be removed is in nobody's way: it is never listed.
            let _ = remove_tree(&entry.path());
        }
    }
    Ok(())
}

/// Fails early if the backups' file system has no room for all files: filling it would hurt the application too.
fn room_for(items: &[Item], folder: &Path) -> Result<()> {
    let need: u64 = items.iter().filter_map(|item| item.file.map(|(size, _)| size + nbak::HEADER)).sum();
    let free = rustix::fs::statvfs(folder).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    if free < need {
        return Err(Error::failed(format!("the backup may need {need} bytes, and {free} are free")).at(folder).hint(
            "free some space (`nbak backup prune`), or name another folder (`backup_dir`); nothing was written",
        ));
    }
    Ok(())
}

/// Scratch space for plaintext: see the head of this file.
fn scratch_for(options: &Options<'_>, sealed: bool, staging: &Staging) -> Scratch {
    if sealed { Scratch::private(options.data_dir, &staging.0) } else { Scratch::beside(&staging.0) }
}

/// An entry that goes into the backup.
struct Item {
    path: String,
    attributes: Attributes,
    /// A file's size in bytes, and whether it is a database; nothing for a folder.
    file: Option<(u64, bool)>,
}

impl Item {
    fn new(path: String, attributes: Attributes, file: Option<(u64, bool)>) -> Item {
        Item { path, attributes, file }
    }

    fn entry(&self, size: u64, sha256: String, kind: Kind) -> FileEntry {
        let attributes = &self.attributes;
        let mtime_ms =
            attributes.mtime.saturating_mul(1000).saturating_add(i64::from(attributes.mtime_nanos / 1_000_000));
        FileEntry {
            path: self.path.clone(),
            size,
            sha256,
            kind,
            mode: Some(attributes.mode & 0o777),
            mtime_ms: Some(mtime_ms),
        }
    }
}

struct Exporting<'a> {
    /// The snapshot's plain files.
    plain: PathBuf,
    /// Room for copies of databases.
    folder: PathBuf,
    staging: &'a Path,
    seal: Option<Secret>,
    /// Databases that SQLite could not copy, in words.
    raw: Mutex<Vec<String>>,
    numbers: AtomicU64,
    progress: &'a dyn Progress,
}

impl Exporting<'_> {
    fn all(&self, items: &[Item]) -> Result<Vec<FileEntry>> {
        for item in items.iter().filter(|item| item.file.is_none()) {
            let path = self.staging.join(&item.path);
            DirBuilder::new().mode(0o700).create(&path).map_err(|error| Error::io("make a folder", &path, error))?;
        }
        self.progress.begin("exporting", items.iter().filter_map(|item| item.file.map(|(size, _)| size)).sum());
        let entries = items.par_iter().map(|item| match item.file {
            None => Ok(item.entry(0, String::new(), Kind::Directory)),
            Some((size, database)) => self.file(item, database).inspect(|_| self.progress.advance(size)),
        });
        let entries = entries.collect::<Result<Vec<_>>>();
        self.progress.end();
        entries
    }

    /// One file into the staging folder; its plain form is gone then.
    fn file(&self, item: &Item, database: bool) -> Result<FileEntry> {
        let mut from = self.plain.join(&item.path);
        let mut kind = Kind::File;
        if database && std::fs::symlink_metadata(&from).is_ok_and(|meta| meta.len() > 0) {
            let copy = self.folder.join(format!("copy-{}", self.numbers.fetch_add(1, Ordering::Relaxed)));
            match database::vacuum_into(&from, &copy) {
                Ok(()) => {
                    let _ = std::fs::remove_file(&from);
                    from = copy;
                    kind = Kind::Sqlite;
                }
                Err(database::Failure::Machine(why)) => {
                    return Err(Error::failed("cannot copy a database for the backup")
                        .at(&copy)
                        .because(why)
                        .hint("is the disk full? Nothing was written to the backups"));
                }
                Err(database::Failure::Database(why)) => {
                    let _ = std::fs::remove_file(&copy);
                    let remark =
                        format!("SQLite cannot copy a database, it is kept as its pages are: {}: {why}", item.path);
                    self.raw.lock().unwrap_or_else(PoisonError::into_inner).push(remark);
                }
            }
        }
        let to = self.staging.join(&item.path);
        let mut file = if let Some(key) = &self.seal {
            let mut plain = open_regular(&from).map_err(|error| Error::io("open a restored file", &from, error))?;
            let mut file = create(&to)?;
            nbak::seal(&mut plain, &from, &mut file, &to, key)?;
            let _ = std::fs::remove_file(&from);
            file
        } else {
            rename_new(&from, &to).map_err(|error| Error::io("move a file into the backup", &to, error))?;
            let file = open_regular(&to).map_err(|error| Error::io("open a file of the backup", &to, error))?;
            let mode = std::fs::Permissions::from_mode(0o600);
            file.set_permissions(mode).map_err(|error| Error::io("protect a file of the backup", &to, error))?;
            file
        };
        file.sync_all().map_err(|error| Error::io("sync a file of the backup", &to, error))?;
        let back = |error| Error::io("read a file of the backup back", &to, error);
        file.seek(SeekFrom::Start(0)).map_err(back)?;
        let (sha256, size) = sha256(&mut file).map_err(back)?;
        Ok(item.entry(size, sha256, kind))
    }
}

fn manifest(
    store: &Store,
    record: &Record,
    options: &Options<'_>,
    encrypted: bool,
    (files, lacks): (Vec<FileEntry>, Lacks),
) -> Result<Manifest> {
    let source = MacSource::of(options.vault);
    let salt = lacks.salt(random_bytes());
    let key = match options.vault {
        Some(vault) => mac_key_of_vault(vault, source, &salt)
            .ok_or_else(|| Error::failed("the key of the manifest cannot be derived from the vault key"))?,
        None => mac_key_of_store(store.catalog().packs().keys(), &salt),
    };
    let checksum = overall_checksum(&files);
    let mut manifest = Manifest {
        version: options.version.clone(),
        created_at: super::manifest::iso(options.created),
        created_ms: options.created,
        dialect: options.dialect,
        source_dir: record.source.clone(),
        encrypted,
        files,
        checksum,
        own: Some(Own {
            snapshot: record.id.to_string(),
            mac: [0; 32],
            mac_key: source,
            mac_salt: salt,
            instance: record.instance,
            before_restore: options.before_restore,
            lacks,
        }),
    };
    let mac = mac(&key, &manifest.mac_input());
    if let Some(own) = &mut manifest.own {
        own.mac = mac;
    }
    Ok(manifest)
}

/// Reads the whole backup back, and fails if anything of it is not as it should be.
fn read_back(store: &Store, staging: &Path, options: &Options<'_>) -> Result<Verified> {
    let backup = Backup::open(staging)?;
    let keys = NbakKeys::new(options.vault, options.dialect);
    let mac_keys = |own: &Own| match (own.mac_key, options.vault) {
        (MacSource::Store, _) => vec![mac_key_of_store(store.catalog().packs().keys(), &own.mac_salt)],
        (source, vault) => vault.and_then(|vault| mac_key_of_vault(vault, source, &own.mac_salt)).into_iter().collect(),
    };
    let verified = verify::verify(&backup, options.data_dir, &keys, &mac_keys)?;
    if let Some(fault) = verified.faults.first() {
        return Err(Error::integrity(format!("what was written does not read back: {}", fault.what))
            .at(staging.join(&fault.path))
            .hint("the disk or the memory may be failing; the backup was removed again"));
    }
    Ok(verified)
}

/// Makes every name in the staging folder durable.
fn sync_tree(staging: &Path, items: &[Item]) -> Result<()> {
    for item in items.iter().filter(|item| item.file.is_none()).rev() {
        sync_folder(&staging.join(&item.path))?;
    }
    sync_folder(staging)
}

/// `<name>.tmp`, removed with the value unless it was published.
struct Staging(PathBuf);

impl Staging {
    fn make(path: PathBuf) -> Result<Staging> {
        passing::made(&path, || DirBuilder::new().mode(0o700).create(&path))
            .map_err(|error| Error::io("make a backup's folder", &path, error))?;
        Ok(Staging(path))
    }

    /// Gives the backup its name. From then on it exists.
    fn publish(mut self, path: &Path) -> Result<()> {
        passing::forget(&self.0);
        rename_new(&self.0, path).map_err(|error| Error::io("give the backup its name", path, error))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        if let Err(error) = sync_folder(folder) {
            // Whether the name is durable is not known: it must not be taken for a backup that was promised.
            let _ = rename_new(path, &self.0);
            return Err(error);
        }
        self.0 = PathBuf::new();
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            passing::end(&self.0);
        }
    }
}

/// The application's version, as it notes it in the data directory; what it says itself when it does not know.
pub fn application_version(data_dir: &Path) -> String {
    let text = super::files::read_bounded(&data_dir.join(".last_version"), 256);
    let version = text.ok().and_then(|bytes| String::from_utf8(bytes).ok()).map(|text| text.trim().to_owned());
    version
        .filter(|version| !version.is_empty() && !version.chars().any(char::is_control))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Whether the folder at `path` can be listed: a backup folder that is not there holds no backups.
pub fn is_there(path: &Path) -> Result<bool> {
    match File::open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("open the folder of backups", path, error)),
    }
}
