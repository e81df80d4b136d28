//! Restoring into the live data directory, from a backup or straight from the store.
//!
//! 1. An interrupted restore is finished first ([`inplace::recover_untouched`]), or this one is refused.
//! 2. Everything that is to be put in place is staged on the data directory's own file system: sizes, hashes, seals,
//!    `integrity_check`. A wrong key or a damaged file ends it here, and nothing was changed (I15).
//! 3. A safety backup of what is there now is made and verified; if it cannot be, or anything that will be touched is
//!    written to meanwhile, nothing is changed (I16).
//! 4. [`inplace::replace`] swaps the staged files in, so that a crash leaves the old or the new content, and compares
//!    (I17).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, FileTimes, Permissions};
use std::io::{Read, Seek};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use super::backup::{Backup, MacState, mac_state};
use super::database;
use super::files::{create, open_regular, sha256};
use super::inplace::{self, Replaced, Staging};
use super::live::{Live, Touch};
use super::manager::{BEFORE_RESTORE, BackupManager, Created};
use super::manifest::{FileEntry, Kind};
use super::nbak::{self, NbakKeys};
use super::only;
use crate::crypto::vault::MacSource;
use crate::error::words::word;
use crate::error::{Error, Result};
use crate::snapshot::graph::{is_graph, is_whole};
use crate::snapshot::look;
use crate::snapshot::progress::Progress;
use crate::snapshot::record::Record;
use crate::snapshot::restore as from_store;
use crate::snapshot::sidecar::Sidecar;
use crate::snapshot::store::Store;
use crate::source::exclude::Exclusions;

/// So many paths are named that the safety backup lacks.
const NAMED: usize = 20;

/// What to restore, and what may be skipped.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only these paths, and what is below them; everything if there are none.
    pub only: Vec<PathBuf>,
    /// Restore a backup whose manifest nobody vouches for.
    pub allow_unsigned: bool,
    /// Copy into databases that somebody has open, instead of refusing.
    pub into_live: bool,
    /// Go on without a safety backup if none can be made.
    pub without_safety_backup: bool,
    /// What is lacking of what is to be restored, in words. Whoever ends an interrupted restore has to say it too.
    pub lacks: Option<String>,
    /// What is restored, in words: `snapshot 1a2b3c4d`.
    pub what: Option<String>,
}

/// What was restored, and how to get back.
#[derive(Debug)]
pub struct Restored {
    /// What was put in place.
    pub replaced: Replaced,
    /// What is worth knowing besides.
    pub remarks: Vec<String>,
}

/// What there is to know of where it comes from.
struct Origin<'a> {
    /// It says nothing of owners, and cuts times.
    keep_owners: bool,
    /// The command that restores it again.
    again: &'a str,
    /// Whether it says mode and time of a folder.
    described: &'a dyn Fn(&Path) -> bool,
    /// What it has, and is not restored.
    left_out: &'a [String],
}

/// Told as soon as there is a safety backup, so that its place is known also if what follows fails.
pub type OnSafety<'a> = &'a dyn Fn(&Created);

impl BackupManager {
    /// Finishes a restore that was interrupted, if there is one, whatever was written since: that is kept aside.
    pub fn recover(&self, progress: &dyn Progress) -> Result<Option<Replaced>> {
        inplace::recover(&self.places.data_dir, progress)
    }

    /// Restores `backup` into the data directory.
    pub fn restore_backup(
        &self,
        backup: &Backup,
        options: &Options,
        on_safety: OnSafety<'_>,
        progress: &dyn Progress,
    ) -> Result<Restored> {
        let data = self.prepare()?;
        let mut remarks = Vec::new();
        let keys = self.nbak_keys(backup);
        let given = &options.only;
        let options = &Options { only: only::of_backup(backup, given)?, ..options.clone() };
        let entries = selected(backup, &options.only)?;
        let sealed = backup.manifest.encrypted.then_some(&keys);
        // Before the manifest is judged: under a wrong key its MAC does not match either, and the key is what to say.
        Source { backup, keys: sealed, vouched: false }.prove_key(&entries)?;
        let by_store = backup.manifest.own.as_ref().is_some_and(|own| own.mac_key == MacSource::Store);
        let store = match self.open_store() {
            Ok(store) => Some(store),
            // The MAC's key is in there.
            Err(error) if error.is_key() && by_store => return Err(error),
            Err(_) => None,
        };
        let mac = mac_state(&backup.manifest, &|own| self.mac_keys(store.as_ref(), own));
        match mac {
            MacState::Valid => {}
            state if options.allow_unsigned => remarks.push(format!("restored all the same: {}", unsigned(state))),
            state => {
                let refusal = Error::integrity(unsigned(state)).at(&backup.path);
                return Err(refusal.hint("if you know where it comes from, give --allow-unsigned; nothing was changed"));
            }
        }
        drop(store);
        backup.check_case(mac)?;
        if !backup.manifest.checksum_holds() {
            return Err(Error::integrity("the manifest's checksum is not that of the files it lists")
                .at(&backup.path)
                .hint("restore another backup; nothing was changed"));
        }
        let from = Source { backup, keys: sealed, vouched: mac == MacState::Valid };
        let staging = Staging::begin(&data)?;
        let staged = from.stage(&entries, staging.root(), &data, progress);
        let staged = staged.and_then(|()| only::leave_own(staging.root(), given, &options.only));
        let has = |path: &Path| backup.manifest.files.iter().any(|entry| Path::new(&entry.path) == path);
        let staged = staged.and_then(|()| only::refuse_alone(staging.root(), &data, given, &has));
        let images = || entries.iter().filter(|entry| entry.kind == Kind::Sqlite).map(|entry| Path::new(&entry.path));
        let left_out = match staged.and_then(|()| only::leave_beside_images(staging.root(), images())) {
            Ok(left_out) => left_out,
            Err(error) => {
                staging.discard()?;
                return Err(error);
            }
        };
        let is_here = backup.path.parent() == Some(self.places.backup_dir.as_path());
        let name = if is_here { Path::new(&backup.name) } else { &backup.path };
        let again = match word(name) {
            Some(name) => format!("`nbak backup restore {name}`"),
            None => format!("`nbak backup restore` and {}", name.display()),
        };
        // What else is staged of folders is on the way to what the manifest lists.
        let entries = entries.iter().filter(|entry| entry.mode.is_some() && entry.mtime_ms.is_some());
        let folders: BTreeSet<&Path> =
            entries.filter(|entry| entry.kind.is_directory()).map(|entry| Path::new(&entry.path)).collect();
        let described = |path: &Path| folders.contains(path);
        let origin = Origin { keep_owners: true, again: &again, described: &described, left_out: &left_out };
        self.finish(&data, staging, options, &origin, remarks, on_safety, progress)
    }

    /// Restores a snapshot of `store` into the data directory.
    pub fn restore_in_place(
        &self,
        store: &Store,
        record: &Record,
        options: &Options,
        on_safety: OnSafety<'_>,
        progress: &dyn Progress,
    ) -> Result<Restored> {
        let given = &options.only;
        let options = &Options { only: only::of_snapshot(store, record, given)?, ..options.clone() };
        let data = self.prepare()?;
        let staging = Staging::begin(&data)?;
        let to_staging =
            from_store::Options { target: staging.root().to_path_buf(), paths: options.only.clone(), overwrite: false };
        let staged = from_store::restore(store, record, &to_staging, progress).and_then(|restored| {
            match restored.damaged.first() {
                None => Ok(()),
                Some((path, why)) => Err(Error::integrity(format!("the snapshot has lost data: {why}"))
                    .at(path)
                    .hint("restore another snapshot, or what is whole of this one into a new directory with --target")),
            }
        });
        let has = |path: &Path| look::find(store, record, path).is_ok();
        let staged = staged.and_then(|()| only::refuse_alone(staging.root(), &data, given, &has));
        if let Err(error) = staged {
            staging.discard()?;
            return Err(error);
        }
        let again = format!("`nbak restore {} --in-place`", record.id.short());
        let origin = Origin { keep_owners: false, again: &again, described: &|_| true, left_out: &[] };
        self.finish(&data, staging, options, &origin, Vec::new(), on_safety, progress)
    }

    fn prepare(&self) -> Result<PathBuf> {
        if !self.places.data_dir.exists() {
            // A new machine: there is nothing to lose, and somewhere to restore to.
            crate::store::local::create_folder(&self.places.data_dir)?;
        }
        let data = self.data_dir()?;
        inplace::recover_untouched(&data, &crate::snapshot::progress::Silent)?;
        Ok(data)
    }

    #[expect(clippy::too_many_arguments, reason = "the second half of both restores")]
    fn finish(
        &self,
        data: &Path,
        staging: Staging,
        options: &Options,
        origin: &Origin<'_>,
        mut remarks: Vec<String>,
        on_safety: OnSafety<'_>,
        progress: &dyn Progress,
    ) -> Result<Restored> {
        let Origin { keep_owners, again, described, left_out } = *origin;
        if let Err(error) = inplace::look_for_openers(&staging, options.into_live) {
            staging.discard()?;
            return Err(error);
        }
        let left_out_by = |globs: &[String]| {
            Exclusions::new(self.places.own_folders()?, globs)
                .map_err(|error| Error::usage("a pattern to exclude is not a glob").because(error))
        };
        // What was captured once and is asked for now is restored, whatever the globs of today leave out.
        let (never, globs) = (left_out_by(&[])?, left_out_by(&self.settings.exclude)?);
        let ignored = |path: &Path| never.reason(path, data).is_some();
        let graph = options.only.is_empty() || options.only.iter().any(|path| is_whole(path));
        let is_asked_for =
            |path: &Path| options.only.is_empty() || options.only.iter().any(|one| path.starts_with(one));
        let again = again_with(again, origin.keep_owners, &options.only);
        let (into_live, staged) = (options.into_live, staging.root().to_path_buf());
        let touch = Touch { data, staged: &staged, graph, into_live, ignored: &ignored, again: &again };
        // Before the safety backup begins: what changes from here on may not be in it.
        let live = Live::look(touch)?;
        let despite: BTreeSet<PathBuf> =
            live.touched().filter(|path| globs.by_glob(path).is_some()).map(Path::to_path_buf).collect();
        let is_backed_up = left_out_by(&self.settings.exclude)?.despite(despite.clone());
        let (mut lost, mut safety) = (Vec::new(), None);
        if is_empty(data, &|path| is_backed_up.reason(path, data).is_some())? {
            remarks.push("the data directory was empty: there was nothing to back up first".to_owned());
        } else {
            match self.safety_backup(data, staging.root(), despite, progress) {
                Ok(created) => {
                    on_safety(&created);
                    safety = Some(created.written.path.display().to_string());
                    lost.extend(only_in_snapshot(&live.without_form(), &created));
                }
                Err(error) if options.without_safety_backup => {
                    lost.push(format!("there is no safety backup: {error}"));
                }
                Err(error) => {
                    staging.discard()?;
                    return Err(no_safety(data, error, &again));
                }
            }
        }
        let replaced = inplace::replace(
            staging,
            &inplace::Options {
                graph,
                recheck: &|changed| live.recheck(changed),
                whole: options.only.is_empty(),
                into_live,
                keep_owners,
                safety: safety.as_deref(),
                remarks: &lost,
                what: options.what.as_deref(),
                lacks: options.lacks.as_deref(),
                described: &|path| is_asked_for(path) && described(path),
                left_out,
                ignored: &ignored,
                excluded: &|path| globs.by_glob(path).is_some(),
            },
            progress,
        )?;
        Ok(Restored { replaced, remarks })
    }

    /// Backs up what is there now, and of what globs leave out the paths `despite`, since those are about to go.
    fn safety_backup(
        &self,
        data: &Path,
        staged: &Path,
        despite: BTreeSet<PathBuf>,
        progress: &dyn Progress,
    ) -> Result<Created> {
        let created = self.create(&[BEFORE_RESTORE], despite, progress)?;
        // What could not be read would be lost if it is replaced, or if it goes with what is: a folder in whose place a
        // file comes, and the old files of a knowledge graph.
        let there = |path: &Path| std::fs::symlink_metadata(staged.join(path)).ok();
        let graph = std::fs::read_dir(staged).into_iter().flatten().flatten();
        let graph = graph.into_iter().any(|entry| is_graph(Path::new(&entry.file_name())));
        let replaced = |path: &Path| {
            let under = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
            there(path).is_some()
                || Sidecar::named(path).is_some_and(|(_, base)| there(&base).is_some())
                || under.into_iter().any(|above| there(above).is_some_and(|meta| !meta.is_dir()))
                || graph && is_graph(path)
        };
        if let Some(error) = created.taken.unreadable.iter().find(|error| replaced(&error.path)) {
            return Err(Error::failed("the safety backup lacks a file that would be replaced")
                .at(data.join(&error.path))
                .because(error.reason.clone()));
        }
        Ok(created)
    }
}

/// Fails if `name` is `latest`, and the snapshot that it names was taken by a restore, of what that was to replace.
///
/// After a refused restore the same command would put the very state in place that is to go; after one that was done,
/// it would undo it; and on a new machine it may be what is wanted. So it is not for the program to choose.
pub fn is_meant(store: &Store, name: &str, record: &Record) -> Result<()> {
    let is_safety = |record: &Record| record.tags.iter().any(|tag| tag == BEFORE_RESTORE);
    if name != "latest" || !is_safety(record) {
        return Ok(());
    }
    let records = store.records()?;
    let is_before = |one: &&Record| one.source == record.source && one.sequence < record.sequence;
    let before = records.iter().rev().filter(is_before).find(|one| !is_safety(one) && !one.lack().mixed);
    let before = before.map(|one| format!("{} is the one before, ", one.id.short())).unwrap_or_default();
    let id = record.id.short();
    Err(Error::usage(format!("the latest snapshot, {id}, is what a restore took of the state that it was to replace"))
        .hint(format!("give an id in place of `latest`: {before}{id} is that one; nothing was changed")))
}

/// The command `again`, which ends with a backtick, with the paths that were asked for: without them it is about all of
/// it.
fn again_with(again: &str, is_backup: bool, only: &[PathBuf]) -> String {
    if only.is_empty() {
        return again.to_owned();
    }
    let words: Option<Vec<_>> = only.iter().map(|path| word(path)).collect();
    match (words, again.strip_suffix('`')) {
        (Some(words), Some(command)) => {
            let words = words.join(" ");
            let only = if is_backup { " --only" } else { "" };
            format!("{command}{only} {words}`")
        }
        _ => format!("{again} and the same paths"),
    }
}

/// Whether nothing is in the data directory that could be lost.
fn is_empty(data: &Path, ignored: &dyn Fn(&Path) -> bool) -> Result<bool> {
    let failed = |error| Error::io("list the data directory", data, error);
    for entry in std::fs::read_dir(data).map_err(failed)? {
        if !ignored(Path::new(&entry.map_err(failed)?.file_name())) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is to be said of what will be replaced and is `formless`: the safety backup does not have it.
fn only_in_snapshot(formless: &[&Path], created: &Created) -> Option<String> {
    if formless.is_empty() {
        return None;
    }
    let named = formless.iter().take(NAMED).map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let more = formless.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let id = created.taken.record.id.short();
    Some(format!(
        "no backup can hold a link, or a name that is not UTF-8 or has a backslash: what stood at {named}{more} is not \
         in the safety backup, but in snapshot {id} (`nbak restore {id} PATH --in-place`; without PATH all that was \
         replaced)"
    ))
}

fn no_safety(data: &Path, error: Error, again: &str) -> Error {
    if error.is_key() {
        // What says by itself what helps keeps that. `latest` is the snapshot of what is to be replaced by now.
        return error
            .hint(
                "a safety backup of the present state comes first, and needs the store's key: give that one too, \
                 with --vault-key-file more than once",
            )
            .also(format!("nothing was changed; do so with {again}, and both keys"));
    }
    if error.is_locked() {
        return error.hint(format!(
            "no safety backup of the present state could be made; wait and try again with {again}; nothing was changed"
        ));
    }
    Error::failed("no safety backup of the present state could be made, and so nothing was restored")
        .at(data)
        .because(error)
        .hint(format!(
            "mend that, or give --without-safety-backup, and restore again with {again}; nothing was changed"
        ))
}

fn unsigned(state: MacState) -> &'static str {
    match state {
        MacState::Valid => "its manifest is authentic",
        MacState::Absent => {
            "nobody vouches for this backup: its manifest has no MAC, as those that the application makes"
        }
        MacState::NoKey => "nobody vouches for this backup: the key of its manifest's MAC is not there",
        MacState::Invalid => "the manifest's MAC does not match: it was changed, or made under another key",
    }
}

/// The entries to restore: all, or those that `only` names and what is below them.
fn selected<'b>(backup: &'b Backup, only: &[PathBuf]) -> Result<Vec<&'b FileEntry>> {
    for path in only {
        if !backup.manifest.files.iter().any(|entry| Path::new(&entry.path).starts_with(path)) {
            return Err(Error::failed("the backup has no such path").at(path).hint("nothing was changed"));
        }
    }
    let wanted =
        |entry: &&FileEntry| only.is_empty() || only.iter().any(|path| Path::new(&entry.path).starts_with(path));
    Ok(backup.manifest.files.iter().filter(wanted).collect())
}

/// A backup, and what it is opened with.
struct Source<'a> {
    backup: &'a Backup,
    /// The keys, if it is encrypted.
    keys: Option<&'a NbakKeys>,
    /// Whether somebody vouches for its manifest.
    vouched: bool,
}

impl Source<'_> {
    /// Fails if there is no key, or a wrong one. The smallest file is enough to tell, and nothing is written (R14).
    fn prove_key(&self, entries: &[&FileEntry]) -> Result<()> {
        let Some(keys) = self.keys else { return Ok(()) };
        let backup = self.backup;
        if keys.is_empty() {
            return Err(Error::key("this backup is encrypted, and no vault key was given")
                .at(&backup.path)
                .hint("set NODYN_VAULT_KEY (or LYNOX_VAULT_KEY), or give --vault-key-file; nothing was changed"));
        }
        let files = entries.iter().filter(|entry| !entry.kind.is_directory());
        match files.min_by_key(|entry| entry.size) {
            None => Ok(()),
            Some(smallest) => {
                let mut file = backup.file(smallest)?;
                nbak::prove(&mut file, &backup.path.join(&smallest.path), keys).map(|_| ())
            }
        }
    }

    /// Puts what is to be restored into `root`, opened and proven.
    fn stage(&self, entries: &[&FileEntry], root: &Path, data: &Path, progress: &dyn Progress) -> Result<()> {
        let need: u64 = entries.iter().fold(0, |sum, entry| entry.size.saturating_add(sum));
        let free = rustix::fs::statvfs(root).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        if free < need {
            return Err(Error::failed(format!("the restored files need {need} bytes, and {free} are free"))
                .at(data)
                .hint("free some space; nothing was changed"));
        }
        let mut folders: BTreeMap<PathBuf, Option<&FileEntry>> = BTreeMap::new();
        for entry in entries {
            let path = Path::new(&entry.path);
            for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
                folders.entry(above.to_path_buf()).or_default();
            }
            if entry.kind.is_directory() {
                folders.insert(path.to_path_buf(), Some(entry));
            }
        }
        for path in folders.keys() {
            let path = root.join(path);
            DirBuilder::new().mode(0o700).create(&path).map_err(|error| Error::io("make a folder", &path, error))?;
        }
        progress.begin("opening", need);
        let files: Vec<_> = entries.iter().filter(|entry| !entry.kind.is_directory()).collect();
        files.par_iter().try_for_each(|entry| {
            self.stage_file(entry, root, data)?;
            progress.advance(entry.size);
            Ok::<(), Error>(())
        })?;
        progress.end();
        for (path, entry) in folders.iter().rev() {
            let standing = std::fs::symlink_metadata(data.join(path)).ok().filter(std::fs::Metadata::is_dir);
            let mode = entry.and_then(|entry| entry.mode).or(standing.map(|meta| meta.permissions().mode() & 0o777));
            finish(&root.join(path), mode.unwrap_or(0o700), entry.and_then(|entry| entry.mtime_ms))?;
        }
        Ok(())
    }

    fn stage_file(&self, entry: &FileEntry, root: &Path, data: &Path) -> Result<()> {
        let from = self.backup.path.join(&entry.path);
        let to = root.join(&entry.path);
        let mut source = self.backup.file(entry)?;
        let mut target = create(&to)?;
        let hash = if let Some(keys) = self.keys {
            let read = |error| Error::io("read a file of the backup", &from, error);
            let (hash, _) = sha256(&mut source).map_err(read)?;
            if hash == entry.sha256 {
                nbak::open(&mut source, &from, keys, &mut target)?;
            }
            hash
        } else {
            if !self.vouched {
                refuse_sealed(&mut source, &from)?;
            }
            let copied = std::io::copy(&mut source, &mut target);
            copied.map_err(|error| Error::io("copy a file of the backup", &to, error))?;
            // Of what was written, not of what was read: both are the same only if nothing went wrong in between.
            let written = open_regular(&to).and_then(|mut written| sha256(&mut written));
            written.map_err(|error| Error::io("read a staged file", &to, error))?.0
        };
        if hash != entry.sha256 {
            return Err(Error::integrity("a file of the backup has other content than its manifest says")
                .at(&from)
                .hint("`nbak backup verify` names every fault; restore another backup; nothing was changed"));
        }
        drop(target);
        if entry.kind == Kind::Sqlite {
            check_database(&to, &from)?;
        }
        let standing = std::fs::symlink_metadata(data.join(&entry.path)).ok().filter(std::fs::Metadata::is_file);
        let mode = entry.mode.or(standing.map(|meta| meta.permissions().mode() & 0o777)).unwrap_or(0o600);
        finish(&to, mode, entry.mtime_ms)
    }
}

/// In a backup that says it is not encrypted, an NBAK file would be put in place as the ciphertext that it is.
fn refuse_sealed(source: &mut (impl Read + Seek), from: &Path) -> Result<()> {
    let mut head = Vec::new();
    let read = source.by_ref().take(4).read_to_end(&mut head).and_then(|_| source.rewind());
    read.map_err(|error| Error::io("read a file of the backup", from, error))?;
    if nbak::is_nbak(&head) {
        return Err(Error::integrity("a file is sealed, in a backup that says it is not: the manifest was changed")
            .at(from)
            .hint("restore another backup; nothing was changed"));
    }
    Ok(())
}

fn check_database(staged: &Path, from: &Path) -> Result<()> {
    match database::integrity(staged) {
        Ok(()) => Ok(()),
        Err(database::Failure::Machine(why)) => Err(Error::failed("cannot check a database of the backup")
            .at(from)
            .because(why)
            .hint("nothing was changed")),
        Err(database::Failure::Database(why)) => Err(Error::integrity("a database of the backup is damaged")
            .at(from)
            .because(why)
            .hint("restore another backup, or other paths of this one with --only; nothing was changed")),
    }
}

/// Mode and time of what was staged.
fn finish(path: &Path, mode: u32, mtime_ms: Option<i64>) -> Result<()> {
    let failed = |error| Error::io("set the mode and time of a staged file", path, error);
    let file = std::fs::File::open(path).map_err(failed)?;
    if let Some(ms) = mtime_ms {
        file.set_times(FileTimes::new().set_modified(moment(ms))).map_err(failed)?;
    }
    file.set_permissions(Permissions::from_mode(mode & 0o777)).map_err(failed)
}

fn moment(ms: i64) -> SystemTime {
    let span = Duration::from_millis(ms.unsigned_abs());
    let moment = if ms >= 0 { UNIX_EPOCH.checked_add(span) } else { UNIX_EPOCH.checked_sub(span) };
    moment.unwrap_or(UNIX_EPOCH)
}
