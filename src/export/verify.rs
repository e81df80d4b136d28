//! Whether a backup is whole: everything that its manifest says, held against what is there.
//!
//! For each file: that it is there, a regular file of the right size and SHA-256; in a sealed backup that it is sealed
//! (S11), and with a key that it opens; for a database `PRAGMA integrity_check`, on what was decrypted too. For the
//! manifest: its checksum over all files, and its MAC.
//!
//! SQLite needs a file to look at. What is decrypted for it lies in scratch space, 0600 in a 0700 folder, and goes at
//! once: in the data directory, whose it is, since the backup may lie on a medium that leaves the house; beside the
//! backup only if that directory is not there or may not be written to (S17). A plain database is looked at where it
//! is, and nothing appears beside it.
//!
//! A file that cannot be read is a fault of that file, not the end. What could not be looked at, since there is no key
//! or no room for scratch, is told apart from what is wrong.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, ErrorKind, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{Dir, FileType};

use super::backup::{Backup, MacKeys, MacState, mac_state};
use super::database::{self, Failure};
use super::files::sha256;
use super::manifest::{FileEntry, Kind, Manifest};
use super::names::MANIFEST;
use super::nbak::{self, NbakKeys, is_nbak};
use crate::error::{Error, Result};
use crate::snapshot::scratch::Scratch;
use crate::source::sqlite::{HEADER_BYTES, looks_like_database};
use copy::Copy;

mod copy;

/// The longest path, in bytes, under which SQLite is asked to open a database. Its own limit is a little above.
const SQLITE_PATH_MAX: usize = 480;
/// The most entries that are not in the manifest and are named.
const EXTRA_MAX: usize = 1000;

/// What verifying found.
#[derive(Debug)]
pub struct Verified {
    /// Files that were read, and are what the manifest says.
    pub files: u64,
    /// Their bytes as they lie in the backup.
    pub bytes: u64,
    /// Databases among them that passed `integrity_check`.
    pub databases: u64,
    /// What is wrong. A backup without a fault can be restored, as far as it was looked at.
    pub faults: Vec<Fault>,
    /// What is there and not in the manifest; nobody restores it.
    pub extra: Vec<String>,
    /// What was not looked at, and why.
    pub not_checked: Vec<String>,
    /// What is worth knowing besides.
    pub remarks: Vec<String>,
    /// Who vouches for the manifest.
    pub mac: MacState,
    /// Keys were given, and not a single file opens with one of them: the faults say so too.
    pub wrong_key: bool,
    /// No key was given, and there are sealed files: nobody looked at what they contain.
    pub no_key: bool,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The entry, relative to the backup.
    pub path: String,
    /// What is wrong with it, in words.
    pub what: String,
}

/// Verifies `backup` of the data directory `data_dir`, as far as `keys` allow. An error is about this machine (no room
/// for scratch space); what is wrong with the backup is in the answer.
pub fn verify(backup: &Backup, data_dir: &Path, keys: &NbakKeys, mac_keys: MacKeys<'_>) -> Result<Verified> {
    let manifest = &backup.manifest;
    let mac = mac_state(manifest, mac_keys);
    let mut verified = Verified {
        files: 0,
        bytes: 0,
        databases: 0,
        faults: Vec::new(),
        extra: Vec::new(),
        not_checked: Vec::new(),
        remarks: Vec::new(),
        mac,
        wrong_key: false,
        no_key: false,
    };
    verified.manifest(backup);
    let opens = manifest.encrypted && !keys.is_empty();
    let long = |entry: &FileEntry| backup.path.as_os_str().len() + 1 + entry.path.len() > SQLITE_PATH_MAX;
    let beside = backup.path.parent().unwrap_or(Path::new("."));
    let scratch = if opens { Scratch::private(data_dir, beside) } else { Scratch::beside(beside) };
    let needs = opens || manifest.files.iter().any(|entry| entry.kind == Kind::Sqlite && long(entry));
    let folder = if needs { make_scratch(&scratch, backup)? } else { Err("no scratch space was needed".to_owned()) };
    let check = Check { backup, keys: opens.then_some(keys), folder, vouched: mac == MacState::Valid };
    let found: Vec<Found> = manifest.files.par_iter().map(|entry| check.entry(entry)).collect::<Result<_>>()?;
    drop(scratch);
    verified.sum_up(backup, found, opens);
    verified.extra(backup);
    Ok(verified)
}

/// A folder for scratch files; why there is none, if the place cannot be written to. On a full disk this is an error:
/// there it may be otherwise the next time.
fn make_scratch(scratch: &Scratch, backup: &Backup) -> Result<Result<PathBuf, String>> {
    match scratch.folder() {
        Ok(folder) => Ok(Ok(folder)),
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            Err(Error::io("make scratch space to verify a backup", &backup.path, error))
        }
        Err(error) => Ok(Err(format!("there can be no scratch space beside the backup: {error}"))),
    }
}

/// What was found out about one entry.
#[derive(Default)]
struct Found {
    fault: Option<String>,
    remark: Option<String>,
    bytes: u64,
    /// Whether one of the keys opens it, if that was tried.
    opened: Option<bool>,
    database: Database,
}

#[derive(Default)]
enum Database {
    /// It is none, or not known to be one.
    #[default]
    None,
    Sound,
    NotChecked(String),
}

impl Found {
    fn fault(what: impl Into<String>) -> Found {
        Found { fault: Some(what.into()), ..Found::default() }
    }

    /// What `integrity_check` said. A file that the manifest does not call a database was unsound when the backup was
    /// made, and is kept as it was.
    fn integrity(&mut self, kind: Kind, result: Result<(), Failure>) {
        match (result, kind) {
            (Ok(()), _) => self.database = Database::Sound,
            (Err(Failure::Database(why)), Kind::Sqlite) => self.fault = Some(format!("integrity_check: {why}")),
            (Err(Failure::Database(why)), _) => {
                self.remark = Some(format!("a database that was damaged when the backup was made: {why}"));
            }
            (Err(Failure::Machine(why)), _) => self.fault = Some(format!("the database cannot be checked: {why}")),
        }
    }
}

/// What lies beside a database under the names of its logs: it is complete without, and would be torn by one.
fn logs_beside(manifest: &Manifest, entry: &FileEntry) -> Vec<String> {
    let names = ["-wal", "-journal"].map(|end| format!("{}{end}", entry.path));
    let there = manifest.files.iter().filter(|other| other.size > 0 && names.contains(&other.path));
    let say = |other: &FileEntry| {
        format!("{}: a log beside a database that is complete without it: no restore puts it there", other.path)
    };
    there.map(say).collect()
}

struct Check<'a> {
    backup: &'a Backup,
    /// The keys, if the backup is sealed and there are some.
    keys: Option<&'a NbakKeys>,
    /// Scratch space, or why there is none.
    folder: Result<PathBuf, String>,
    /// Whether somebody vouches for the manifest.
    vouched: bool,
}

impl Check<'_> {
    fn entry(&self, entry: &FileEntry) -> Result<Found> {
        if entry.kind.is_directory() {
            let there = self.backup.check_folder(entry);
            return Ok(there.map_or_else(|error| Found::fault(error.what()), |()| Found::default()));
        }
        match self.backup.file(entry) {
            Ok(file) => self.file(entry, file),
            Err(error) => Ok(Found::fault(error.what())),
        }
    }

    fn file(&self, entry: &FileEntry, mut file: File) -> Result<Found> {
        let mut head = [0; HEADER_BYTES];
        let found = read_head(&file, &mut head).and_then(|got| Ok((got, sha256(&mut file)?)));
        let (got, (hash, size)) = match found {
            Ok(found) => found,
            Err(error) => return Ok(Found::fault(format!("it cannot be read: {error}"))),
        };
        let head = &head[..got];
        let sealed = is_nbak(head);
        if size != entry.size {
            return Ok(Found::fault("its size changed while it was read"));
        }
        if self.backup.manifest.encrypted {
            if !sealed {
                return Ok(Found::fault("it is not sealed, in a backup that is: somebody put it there"));
            }
            if let Err(why) = nbak::parse_header(head) {
                return Ok(Found::fault(format!("it is no NBAK file: {why}")));
            }
        }
        if hash != entry.sha256 {
            return Ok(Found::fault("its content is not what the manifest says (SHA-256)"));
        }
        if sealed && !self.backup.manifest.encrypted && !self.vouched {
            return Ok(Found::fault("it is sealed, in a backup that says it is not: the manifest was changed"));
        }
        let mut found = Found { bytes: size, ..Found::default() };
        if self.backup.manifest.encrypted {
            match self.keys {
                Some(keys) => self.open(entry, &mut file, keys, &mut found)?,
                None if entry.kind == Kind::Sqlite => found.database = Database::NotChecked("no vault key".to_owned()),
                None => {}
            }
        } else if entry.kind == Kind::Sqlite || looks_like_database(head).is_some() {
            self.plain_database(entry, &mut file, &mut found)?;
        }
        Ok(found)
    }

    fn open(&self, entry: &FileEntry, file: &mut File, keys: &NbakKeys, found: &mut Found) -> Result<()> {
        let mut copy = Copy::new(self.folder.as_deref().ok(), entry.kind == Kind::Sqlite);
        let opened = nbak::open(file, &self.backup.path.join(&entry.path), keys, &mut copy);
        if let Some(error) = copy.failure() {
            return Err(error);
        }
        match opened {
            Ok(_) => found.opened = Some(true),
            Err(error) if error.is_key() => found.opened = Some(false),
            Err(error) => found.fault = Some(error.what()),
        }
        if found.opened != Some(true) {
            return Ok(());
        }
        let is_database = copy.is_database();
        match (copy.place(), &self.folder) {
            _ if !is_database => {}
            (Ok(Some(path)), _) => found.integrity(entry.kind, database::integrity(path)),
            (Ok(None), Err(why)) => found.database = Database::NotChecked(why.clone()),
            (Ok(None), Ok(_)) => {}
            (Err(error), _) => return Err(error),
        }
        Ok(())
    }

    fn plain_database(&self, entry: &FileEntry, file: &mut File, found: &mut Found) -> Result<()> {
        let path = self.backup.path.join(&entry.path);
        if path.as_os_str().as_bytes().len() <= SQLITE_PATH_MAX {
            found.integrity(entry.kind, database::integrity(&path));
            return Ok(());
        }
        let Ok(folder) = &self.folder else {
            found.database = Database::NotChecked("its path is too long for SQLite".to_owned());
            return Ok(());
        };
        let mut copy = Copy::new(Some(folder), true);
        let copied = file.rewind().and_then(|()| io::copy(file, &mut copy));
        if let Some(error) = copy.failure() {
            return Err(error);
        }
        match copied {
            Ok(_) => {
                if let Some(path) = copy.place()? {
                    found.integrity(entry.kind, database::integrity(path));
                }
            }
            Err(error) => found.fault = Some(format!("it cannot be read: {error}")),
        }
        Ok(())
    }
}

fn read_head(file: &File, head: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < head.len() {
        match file.read_at(&mut head[got..], got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

impl Verified {
    fn found(&mut self, path: &str, what: impl Into<String>) {
        self.faults.push(Fault { path: path.to_owned(), what: what.into() });
    }

    fn manifest(&mut self, backup: &Backup) {
        let manifest = &backup.manifest;
        if !manifest.checksum_holds() {
            self.found(MANIFEST, "`checksum` is not that of the files it lists");
        }
        match self.mac {
            MacState::Valid => {}
            MacState::Absent if manifest.files.iter().any(|entry| entry.mode.is_some() || entry.mtime_ms.is_some()) => {
                self.found(MANIFEST, "this program made it, and its MAC was taken away");
            }
            MacState::Absent => self.remarks.push(
                "nobody vouches for the manifest: it has no MAC, as those that the application itself makes".to_owned(),
            ),
            MacState::NoKey => {
                self.not_checked.push("who made the manifest: the key of its MAC is not there".to_owned());
            }
            MacState::Invalid => {
                self.found(MANIFEST, "its MAC does not match: it was changed, or made under another key");
            }
        }
        if let Err(error) = backup.check_case(self.mac) {
            self.found(MANIFEST, error.what());
        }
    }

    fn sum_up(&mut self, backup: &Backup, found: Vec<Found>, opens: bool) {
        let manifest = &backup.manifest;
        let tried = || found.iter().filter_map(|one| one.opened);
        self.wrong_key = tried().any(|opened| !opened) && !tried().any(|opened| opened);
        let mut databases: Vec<(u64, String)> = Vec::new();
        let mut sealed = 0_u64;
        let mut closed = 0_u64;
        for (entry, one) in manifest.files.iter().zip(found) {
            let is_file = !entry.kind.is_directory();
            if entry.kind == Kind::Sqlite {
                self.remarks.extend(logs_beside(manifest, entry));
            }
            if let Some(what) = one.fault {
                self.found(&entry.path, what);
                continue;
            }
            if let Some(remark) = one.remark {
                self.remarks.push(format!("{}: {remark}", entry.path));
            }
            if one.opened == Some(false) {
                closed += 1;
                if !self.wrong_key {
                    self.found(
                        &entry.path,
                        "no vault key that was given opens it: another one sealed it, or it was changed",
                    );
                }
                continue;
            }
            self.files += u64::from(is_file);
            self.bytes += one.bytes;
            sealed += u64::from(is_file && manifest.encrypted && !opens);
            match one.database {
                Database::None => {}
                Database::Sound => self.databases += 1,
                Database::NotChecked(why) => match databases.iter_mut().find(|(_, other)| *other == why) {
                    Some((count, _)) => *count += 1,
                    None => databases.push((1, why)),
                },
            }
        }
        if self.wrong_key {
            let what = format!(
                "no vault key that was given opens any of its files ({closed}): they were sealed under another"
            );
            self.found(MANIFEST, what);
        }
        self.no_key = sealed > 0;
        if sealed > 0 {
            self.not_checked.push(format!("what {sealed} sealed files contain: no vault key"));
        }
        for (count, why) in databases {
            self.not_checked.push(format!("the integrity of {count} databases: {why}"));
        }
    }

    /// Looks for what the manifest does not know. What is in a folder that it does not know is not looked at.
    fn extra(&mut self, backup: &Backup) {
        let mut known = HashSet::new();
        let mut folders = vec![""];
        let mut seen = HashSet::new();
        for entry in &backup.manifest.files {
            known.insert(entry.path.as_str());
            if entry.kind.is_directory() && seen.insert(entry.path.as_str()) {
                folders.push(&entry.path);
            }
            let mut above = entry.path.as_str();
            while let Some((folder, _)) = above.rsplit_once('/') {
                if !seen.insert(folder) {
                    break;
                }
                folders.push(folder);
                above = folder;
            }
        }
        let mut more = 0_u64;
        for folder in folders {
            // A folder that cannot be opened is a fault already, of itself or of what should be in it.
            let names =
                backup.folder(folder).ok().and_then(|folder| Dir::new(folder).ok()).into_iter().flatten().flatten();
            for entry in names.filter(|entry| !matches!(entry.file_name().to_bytes(), b"." | b"..")) {
                let name = entry.file_name().to_string_lossy();
                let path = if folder.is_empty() { name.into_owned() } else { format!("{folder}/{name}") };
                if path == MANIFEST || known.contains(path.as_str()) || seen.contains(path.as_str()) {
                    continue;
                }
                if self.extra.len() < EXTRA_MAX {
                    let mark = if entry.file_type() == FileType::Directory { "/" } else { "" };
                    self.extra.push(format!("{path}{mark}"));
                } else {
                    more += 1;
                }
            }
        }
        self.extra.sort();
        if more > 0 {
            self.remarks.push(format!("{more} more entries are not in the manifest"));
        }
    }
}
