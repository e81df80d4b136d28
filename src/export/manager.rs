//! The documented programmatic interface: one value that knows a data directory, its backups, its store and its keys.
//!
//! It joins what the other rooms do, and adds no guarantee of its own but one: a restore is preceded by a verified
//! backup of what it replaces ([`restore`](super::restore)).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::backup::Backup;
use super::dialect::Dialect;
use super::files::open_regular;
use super::inplace::beside::Watch;
use super::list::{self, Listed, Order};
use super::manifest::whose::{Evidence, Known, Others, WHENEVER, Whose};
use super::manifest::{Manifest, Own};
use super::names;
use super::nbak::{self, NbakKeys};
use super::retention::{self, Decision};
use super::verify::{self, Verified};
use super::write::{self, Written};
use crate::crypto::secret::{Credential, Secret};
use crate::crypto::vault::{MacSource, mac_key_of_store, mac_key_of_vault};
use crate::error::{Error, Result};
use crate::id::{InstanceId, SnapshotId};
use crate::snapshot::instance::{instance, made_ms};
use crate::snapshot::now::now_ms;
use crate::snapshot::places::{Places, real, refuse_own};
use crate::snapshot::progress::Progress;
use crate::snapshot::record::Record;
use crate::snapshot::store::{Access, Store};
use crate::snapshot::take::{self, Taken};
use crate::source::named;
use crate::upkeep::alike::Alike;
use crate::upkeep::remembered;

/// The tag of the snapshot that a restore takes of what it is about to replace.
pub(super) const BEFORE_RESTORE: &str = "before-restore";

/// How backups are made and kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Days to keep old backups; 0 keeps them for ever.
    pub retention_days: u32,
    /// Encrypt when there is a vault key. Without one no backup is made of a store that is protected: only who says
    /// `false` gets what everyone can read.
    pub encrypt: bool,
    /// The names to write, if not those of the data directory.
    pub dialect: Option<Dialect>,
    /// Globs that snapshots leave out.
    pub exclude: Vec<String>,
    /// Compress every file of a snapshot apart from all others.
    pub separate_files: bool,
    /// How long to wait for another process.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            retention_days: 30,
            encrypt: true,
            dialect: None,
            exclude: Vec::new(),
            separate_files: false,
            patience: Duration::from_secs(30),
        }
    }
}

/// Makes, lists, verifies, restores and prunes the backups of one data directory.
pub struct BackupManager {
    pub(super) places: Places,
    pub(super) settings: Settings,
    pub(super) credentials: Vec<Credential>,
}

/// A backup that was made, and the snapshot it was made of.
#[derive(Debug)]
pub struct Created {
    /// The store was made for it.
    pub new_store: bool,
    /// The snapshot.
    pub taken: Taken,
    /// The backup.
    pub written: Written,
}

/// Of which other directories of the same path a prune removes old backups, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Also {
    /// Of none.
    None,
    /// Of all that this one may have been before.
    AllBefore,
    /// Of the one that made this backup.
    Of(String),
}

/// What a prune did, or would do.
#[derive(Debug)]
pub struct Pruned {
    /// Every backup, kept or not, and why.
    pub decisions: Vec<Decision>,
    /// The names of those that were removed.
    pub removed: Vec<String>,
    /// How many are past that age, and stay since another directory of the same path made them.
    pub left: usize,
    /// Some are old enough, and none was removed, since not a single backup verifies with the keys that are there.
    pub unverified: Option<Unverified>,
}

/// Why no backup verifies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unverified {
    /// At least of one the key is not there.
    NoKey,
    /// They have faults.
    Damaged,
}

impl BackupManager {
    /// The backups of `places`, sealed and opened by the vault keys among `credentials`; the first one seals.
    pub fn new(places: Places, settings: Settings, credentials: Vec<Credential>) -> BackupManager {
        BackupManager { places, settings, credentials }
    }

    /// Which directory this is, as far as the store and what a person said tell; and what is known as it there.
    fn look(&self) -> (Known, Option<Alike>) {
        let (source, data) = (self.places.known_as(), &self.places.data_dir);
        let seen = remembered::seen(data);
        let store = self.open_store().ok();
        // One that lies where another lay, or is behind, knows nothing of who else there is.
        let is_whole = store.as_ref().is_some_and(|store| matches!(remembered::missing(&seen, store, false), Ok(None)));
        let alike = store.as_ref().and_then(|store| remembered::alike(data, &source, store).ok());
        let head = store.as_ref().and_then(|store| store.head().ok());
        let known = Known {
            own: instance(data),
            made_ms: made_ms(data),
            ones: store.and_then(|store| remembered::ones(data, &source, &store).ok()).unwrap_or_default(),
            is_alone: is_whole && alike.as_ref().is_some_and(|alike| alike.others().is_empty()),
            apart: alike.as_ref().map(Alike::not_before).unwrap_or_default(),
            is_named_beside: head.is_some_and(|head| head.newest.iter().any(|record| self.has_path(&record.source))),
            now_ms: now_ms(),
        };
        (known, alike)
    }

    /// Whether `known` is another than this one by its name, or by that it has none, and has the same path all the
    /// same.
    fn has_path(&self, known: &str) -> bool {
        let source = self.places.known_as();
        known != source && named::split(known).1 == named::split(&source).1
    }

    /// Which directory this is, as far as the store and what a person said tell.
    pub fn known(&self) -> Known {
        self.look().0
    }

    /// That another directory of the same path may have made `backup`, in words.
    pub fn others_of(&self, backup: &Backup) -> Option<String> {
        let (known, alike) = self.look();
        let all = self.list_backups().unwrap_or_default();
        let (is_own, owns) = (known.owns(&self.evidence(&all)), self.places.owns());
        if is_own(backup.manifest.whose(), WHENEVER) {
            return None;
        }
        if let Some(other) = alike.and_then(|alike| alike.text()) {
            return Some(other);
        }
        // Where the store says nothing, its own that lies there does.
        let mut its = all.iter().rev().filter(|one| one.damage.is_none() && owns(&one.source_dir));
        let its = its.find(|one| one.whose != Whose::Unsaid && is_own(one.whose, WHENEVER))?;
        Some(format!("{} was made of another directory of the same path, and {} of this one", backup.name, its.name))
    }

    /// The vault key that seals, if there is one: the one that opened the store, so that what is made today opens with
    /// today's key, whatever other keys were given to open older backups.
    fn vault(&self, store: Option<&Store>) -> Option<&Credential> {
        let is_vault = |credential: &&Credential| matches!(credential, Credential::VaultKey(_));
        let opened = store.and_then(Store::opened_by).and_then(|by| self.credentials.get(by)).filter(is_vault);
        opened.or_else(|| self.credentials.iter().find(is_vault))
    }

    fn dialect(&self) -> Dialect {
        self.settings.dialect.unwrap_or_else(|| Dialect::of_data_dir(&self.places.data_dir))
    }

    /// Takes a snapshot and writes it as a backup, which is verified before it gets its name.
    pub fn create_backup(&self, progress: &dyn Progress) -> Result<Created> {
        self.create(&[], BTreeSet::new(), progress)
    }

    /// The same, with tags for the snapshot, and paths that it has although a glob of the settings leaves them out.
    pub(super) fn create(&self, tags: &[&str], despite: BTreeSet<PathBuf>, progress: &dyn Progress) -> Result<Created> {
        let created = now_ms();
        let (taken, new_store) = {
            let mut store =
                Store::open_or_create(&self.places.repo, &self.credentials, self.settings.patience, created / 1000)?;
            let options = take::Options {
                source: self.places.data_dir.clone(),
                name: self.places.name.clone(),
                exclude: self.settings.exclude.clone(),
                despite,
                own_folders: self.places.own_folders()?,
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                separate_files: self.settings.separate_files,
                beside: Watch::begin(&self.places.data_dir).asked(),
                ..take::Options::default()
            };
            let taken = remembered::take(&mut store, &options, progress)?;
            (taken, store.is_new())
        };
        let store = self.open_store()?;
        let before_restore = tags.contains(&BEFORE_RESTORE);
        let written = self.write(&store, &taken.record, None, created, before_restore, progress);
        let written = written.map_err(|error| also_taken(error, taken.record.id, before_restore))?;
        Ok(Created { new_store, taken, written })
    }

    /// Writes a snapshot of `store` as a backup into `folder`, or among the other backups. `created` is what it says of
    /// its age, in milliseconds since 1970.
    pub fn export(
        &self,
        store: &Store,
        record: &Record,
        folder: Option<PathBuf>,
        created: i64,
        progress: &dyn Progress,
    ) -> Result<Written> {
        self.write(store, record, folder, created, false, progress)
    }

    fn write(
        &self,
        store: &Store,
        record: &Record,
        folder: Option<PathBuf>,
        created: i64,
        before_restore: bool,
        progress: &dyn Progress,
    ) -> Result<Written> {
        let folder = folder.unwrap_or_else(|| self.places.backup_dir.clone());
        refuse_own(&real(&self.places.data_dir), &real(&folder))?;
        // A copy of the store's packs elsewhere would take it along.
        if real(&folder).starts_with(real(store.root())) {
            return Err(Error::usage("the folder for the backup lies in the store: plaintext does not belong there")
                .at(&folder)
                .hint("name another one (--to, or `backup_dir` in config.json); nothing was written"));
        }
        let vault = self.vault(Some(store));
        if vault.is_none() && self.settings.encrypt && !store.is_unprotected() {
            return Err(Error::key("the store is protected, and no vault key was given that could encrypt the backup")
                .at(&folder)
                .only_hint(
                    "a passphrase encrypts no backup: give a vault key beside it, with --vault-key-file FILE, and keep \
                     that, since nothing else opens the backup; or let everyone read it: NBAK_BACKUP_ENCRYPT=false \
                     in the environment for once, \"backup_encrypt\": false in config.json for good; no backup was \
                     written",
                ));
        }
        // One that opened the store seals that already.
        let opened = store.opened_by().and_then(|by| self.credentials.get(by));
        if let Some(key) =
            vault.filter(|key| self.settings.encrypt && !opened.is_some_and(|one| std::ptr::eq(one, *key)))
        {
            key.refuse_placeholder().map_err(|error| error.at(&folder))?;
        }
        let options = write::Options {
            backup_dir: &folder,
            data_dir: &self.places.data_dir,
            dialect: self.dialect(),
            version: write::application_version(&self.places.data_dir),
            created,
            vault,
            encrypt: self.settings.encrypt,
            before_restore,
            patience: self.settings.patience,
        };
        write::write(store, record, &options, progress)
    }

    /// Everything that is there, the oldest first, damaged ones too.
    pub fn list_backups(&self) -> Result<Vec<Listed>> {
        list::list(&self.places.backup_dir)
    }

    /// The backup called `name`, or the newest of this data directory.
    pub fn find_backup(&self, name: Option<&str>) -> Result<Backup> {
        self.choose_backup(name).map(|(backup, _)| backup)
    }

    /// The same, and what is to be said of the choice.
    pub fn choose_backup(&self, name: Option<&str>) -> Result<(Backup, Vec<String>)> {
        if name.is_some() {
            return list::find(&self.places, name).map(|backup| (backup, Vec::new()));
        }
        let (backup, mut remarks) = list::newest(&self.places, &self.order())?;
        let other = self.others_of(&backup);
        remarks.extend(other.map(|other| format!("{other}: {} may be its", backup.name)));
        Ok((backup, remarks))
    }

    /// The order in which the snapshots were taken that backups were made of. Where the store does not open, dates are
    /// all there is.
    pub fn order(&self) -> Order {
        self.open_store().and_then(|store| store.history().map(list::order_of)).unwrap_or_default()
    }

    /// Verifies a backup, as far as the keys that are there allow.
    pub fn verify_backup(&self, backup: &Backup) -> Result<Verified> {
        let store = self.open_store().ok();
        verify::verify(backup, &self.places.data_dir, &self.nbak_keys(backup), &|own| {
            self.mac_keys(store.as_ref(), own)
        })
    }

    /// The same for who says that this one was all those before: the store has to say who lives beside it, if there is
    /// one.
    pub fn known_as_one(&self) -> Result<Known> {
        let (seen, data) = (remembered::seen(&self.places.data_dir), &self.places.data_dir);
        let said = |error: Error| error.also("--as-one asks the store who else has this path; nothing was removed");
        let store = self.open_store().map_err(said)?;
        match remembered::missing(&seen, &store, false)? {
            Some(behind) => Err(said(Error::usage(behind).at(data))),
            None => Ok(self.known()),
        }
    }

    /// Which other directories of the same path the backups that are here tell of.
    pub fn others(&self) -> Result<Others> {
        Ok(self.known().others(&self.evidence(&self.list_backups()?)))
    }

    /// Which directory the backup called `name` is of, if it is of this path.
    pub fn maker_of(&self, name: &str) -> Result<Option<InstanceId>> {
        let unknown = |what: &str| {
            let error = Error::usage(format!("{} {what}", names::quoted(name)));
            Err(error.hint("name a backup of this path that nbak made (`nbak backup list`); nothing was changed"))
        };
        let backups = self.list_backups()?;
        let Some(meant) = backups.iter().find(|one| one.name == name) else { return unknown("is no backup here") };
        match meant.whose {
            _ if !self.places.owns()(&meant.source_dir) => unknown("is of another path, or has another name"),
            Whose::Unsaid => unknown("does not say which directory it is of"),
            Whose::Of(it) if it == self.known().own => unknown("is of this very directory"),
            Whose::Of(it) => Ok(it),
        }
    }

    /// What `backups` say of which directories have this path, whatever they are called.
    fn evidence(&self, backups: &[Listed]) -> Evidence {
        let (owns, mut all) = (self.places.owns(), Evidence::default());
        for one in backups.iter().filter(|one| one.damage.is_none()) {
            let made = (one.whose, one.created_ms);
            if owns(&one.source_dir) {
                all.here.push(made);
            } else if self.has_path(&one.source_dir) {
                all.elsewhere.push(made);
            }
        }
        all
    }

    /// Removes the backups of this data directory that are older than `days`, or than the retention of the settings.
    /// `also` says of which others, since a person says that it was those before.
    pub fn prune_backups(&self, days: Option<u32>, also: &Also, dry_run: bool) -> Result<Pruned> {
        if !write::is_there(&self.places.backup_dir)? {
            return Ok(Pruned { decisions: Vec::new(), removed: Vec::new(), left: 0, unverified: None });
        }
        let lock = write::lock_unsigned(&self.places.backup_dir, self.settings.patience)?;
        let days = days.unwrap_or(self.settings.retention_days);
        let backups = self.list_backups()?;
        let now = now_ms();
        // Those of another data directory are for its own retention. Whose a damaged one is nobody can tell: it stays.
        let owns = self.places.owns();
        let has_path = |one: &Listed| one.damage.is_none() && owns(&one.source_dir);
        let all = self.evidence(&backups);
        let mut known = if *also == Also::AllBefore { self.known_as_one()? } else { self.known() };
        // What the application made of this one says the path alone, as it does of one that has a name.
        let is_named = |one: &Listed| named::split(&one.source_dir).0.is_some() && self.has_path(&one.source_dir);
        known.is_named_beside |= backups.iter().any(|one| one.damage.is_none() && is_named(one));
        let also_of = if let Also::Of(name) = also { Some(Whose::Of(self.maker_of(name)?)) } else { None };
        let is_own: Box<dyn Fn(Whose, Option<i64>) -> bool> =
            if *also == Also::AllBefore { Box::new(known.owns_as_one(&all)) } else { Box::new(known.owns(&all)) };
        let (own, others): (Vec<Listed>, Vec<Listed>) = backups
            .into_iter()
            .partition(|one| one.damage.is_some() || has_path(one) && is_own(one.whose, one.created_ms));
        // That of another is planned by itself: it may live, and its newest good one stays then.
        let (its, others): (Vec<Listed>, Vec<Listed>) =
            others.into_iter().partition(|one| has_path(one) && Some(one.whose) == also_of);
        let (mut decisions, unverified) = self.plan(&own, days, now);
        let (more, its_unverified) = self.plan(&its, days, now);
        let unverified = unverified.or(its_unverified);
        decisions.extend(more);
        let left = others.iter().filter(|one| has_path(one) && one.is_past(days, now)).count();
        decisions.extend(others.into_iter().map(|one| Decision {
            keep: true,
            reason: if has_path(&one) {
                let which = one.whose.in_words();
                format!("of another directory of the same path{which}, or of what this one was before")
            } else {
                format!("of another data directory, {}", names::quoted(&one.source_dir))
            },
            by_gap: false,
            name: one.name,
        }));
        decisions.sort_by(|one, other| one.name.cmp(&other.name));
        let mut removed = Vec::new();
        for decision in decisions.iter().filter(|decision| !decision.keep && !dry_run) {
            lock.sign();
            retention::remove(&self.places.backup_dir.join(&decision.name))?;
            removed.push(decision.name.clone());
        }
        Ok(Pruned { decisions, removed, left, unverified })
    }

    /// What of `own` is old enough to go; and why nothing is, if none of them verifies.
    fn plan(&self, own: &[Listed], days: u32, now: i64) -> (Vec<Decision>, Option<Unverified>) {
        let mut decisions = retention::plan(own, days, now, None);
        // Verifying costs a whole read: only if something would be removed at all.
        if !decisions.iter().any(|decision| !decision.keep) {
            return (decisions, None);
        }
        // If none verifies, it is not known which of them is worth keeping: a key may be missing.
        match self.newest_good(own) {
            Ok(good) => (retention::plan(own, days, now, Some(&good)), None),
            Err(why) => {
                for decision in decisions.iter_mut().filter(|decision| !decision.keep) {
                    decision.keep = true;
                    decision.reason.push_str(", but none verifies with the keys that are there");
                }
                (decisions, Some(why))
            }
        }
    }

    /// The newest complete backup that verifies without a fault, or else the newest that does; or why none does.
    fn newest_good(&self, backups: &[Listed]) -> std::result::Result<String, Unverified> {
        let mut why = Unverified::Damaged;
        let (complete, others): (Vec<&Listed>, Vec<&Listed>) =
            backups.iter().rev().filter(|one| one.damage.is_none()).partition(|one| one.lacks.count == 0);
        for listed in complete.into_iter().chain(others) {
            // What a missing key keeps from being looked at is not known to be good.
            if listed.encrypted && self.vault(None).is_none() {
                why = Unverified::NoKey;
                continue;
            }
            let verified = Backup::open(&listed.path).and_then(|backup| self.verify_backup(&backup));
            match verified {
                Ok(verified) if verified.faults.is_empty() => return Ok(listed.name.clone()),
                Ok(verified) if verified.wrong_key => why = Unverified::NoKey,
                Err(error) if error.is_key() => why = Unverified::NoKey,
                _ => {}
            }
        }
        Err(why)
    }

    pub(super) fn open_store(&self) -> Result<Store> {
        Store::open(&self.places.repo, &self.credentials, Access::Read)
    }

    /// Fails if no key at hand opens `file`, which is of a backup with this `manifest`, if that one is encrypted.
    pub fn prove_key(&self, manifest: &Manifest, file: &Path) -> Result<()> {
        if !manifest.encrypted {
            return Ok(());
        }
        let mut sealed = open_regular(file).map_err(|error| Error::io("read a sealed file", file, error))?;
        nbak::prove(&mut sealed, file, &NbakKeys::new(&self.credentials, manifest.dialect)).map(drop)
    }

    pub(super) fn nbak_keys(&self, backup: &Backup) -> NbakKeys {
        NbakKeys::new(&self.credentials, backup.manifest.dialect)
    }

    /// The keys that a manifest's MAC may be made with.
    pub(super) fn mac_keys(&self, store: Option<&Store>, own: &Own) -> Vec<Secret> {
        match own.mac_key {
            MacSource::Store => {
                store.map(|store| mac_key_of_store(store.catalog().packs().keys(), &own.mac_salt)).into_iter().collect()
            }
            source => {
                let vaults = self.credentials.iter().filter(|one| matches!(one, Credential::VaultKey(_)));
                vaults.filter_map(|vault| mac_key_of_vault(vault, source, &own.mac_salt)).collect()
            }
        }
    }

    /// Fails if there is no data directory to work on.
    pub(super) fn data_dir(&self) -> Result<PathBuf> {
        std::fs::canonicalize(&self.places.data_dir).map_err(|error| {
            Error::io("open the data directory", &self.places.data_dir, error).hint("--data-dir names another")
        })
    }
}

/// Says with an error of the key where the data is all the same.
fn also_taken(error: Error, taken: SnapshotId, before_restore: bool) -> Error {
    if !error.is_key() {
        return error;
    }
    let error = error.also(format!("snapshot {} was taken, and is in the store", taken.short()));
    if !before_restore {
        return error;
    }
    error.also("with --without-safety-backup a restore goes on with that snapshot alone, and none of these")
}
