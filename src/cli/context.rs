//! What is meant by what was typed: which data directory, which store, which keys.
//!
//! Looked for in this order, and the first that is there counts: the flag, the environment, the configuration, the
//! default.

use std::cell::OnceCell;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{Common, NewKey};
use super::output::{self, Bars};
use super::secrets;
use crate::config::layers::{HAD_CONFIG, Layers};
use crate::config::read::{self, Config};
use crate::crypto::secret::Credential;
use crate::error::{Error, Result};
use crate::export::dialect::Dialect;
use crate::export::list;
use crate::export::manager::{BackupManager, Settings};
use crate::schedule::state::State;
use crate::snapshot::places::{Places, known_as, real};
use crate::snapshot::scratch::sweep;
use crate::snapshot::store::{Access, Store};
use crate::upkeep::remembered::{self, Seen};

/// What the commands work with.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, as it was typed")]
pub struct Context {
    data_dir: Option<PathBuf>,
    repo: Option<PathBuf>,
    vault_key_files: Vec<PathBuf>,
    vault_key_command: Option<String>,
    passphrase_file: Option<PathBuf>,
    lock_wait: Duration,
    read: OnceCell<Config>,
    warns: bool,
    /// Print results as JSON.
    pub json: bool,
    /// Print results and errors only.
    pub quiet: bool,
    /// Print more.
    pub verbose: bool,
}

impl Context {
    /// The meaning of `args`.
    pub fn new(args: &Common) -> Self {
        Context {
            data_dir: args.data_dir.clone(),
            repo: args.repo.clone(),
            vault_key_files: args.vault_key_file.clone(),
            vault_key_command: args.vault_key_command.clone(),
            passphrase_file: args.passphrase_file.clone(),
            lock_wait: Duration::from_secs(args.lock_wait),
            read: OnceCell::new(),
            warns: true,
            json: args.json,
            quiet: args.quiet,
            verbose: args.verbose,
        }
    }

    /// The same, of which mistakes in the configuration are not said: they were.
    #[must_use]
    pub fn without_warnings(mut self) -> Self {
        self.warns = false;
        self
    }

    /// Prints a message, unless only results are wanted.
    pub fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            output::message(text);
        }
    }

    /// Progress bars, where they are of use.
    pub fn bars(&self) -> Bars {
        Bars::new(!self.quiet && !self.json)
    }

    /// How long to wait for another writer.
    pub fn patience(&self) -> Duration {
        self.lock_wait
    }

    /// The data directory.
    pub fn data_dir(&self) -> Result<PathBuf> {
        if let Some(path) = &self.data_dir {
            return Ok(path.clone());
        }
        let home = home()?;
        let (nodyn, lynox) = (home.join(".nodyn"), home.join(".lynox"));
        Ok(if !nodyn.is_dir() && lynox.is_dir() { lynox } else { nodyn })
    }

    /// What the data directory's configuration says. A mistake in it is a warning: a backup must not fail for it.
    pub fn config(&self) -> Result<&Config> {
        if let Some(config) = self.read.get() {
            return Ok(config);
        }
        let config = self.read_config()?;
        Ok(self.read.get_or_init(|| config))
    }

    /// The same, read anew, for whoever keeps it.
    pub fn own_config(&self) -> Result<Config> {
        self.read_config()
    }

    fn read_config(&self) -> Result<Config> {
        let data_dir = self.data_dir()?;
        let (config, warnings) = read::read(layers(&data_dir));
        if self.warns {
            warnings.into_iter().for_each(output::warning);
        }
        Ok(config)
    }

    /// Where backups go.
    pub fn backup_dir(&self, config: &Config) -> Result<PathBuf> {
        if let Some(path) = &config.backup_dir {
            return match path.strip_prefix("~") {
                Ok(rest) => Ok(home()?.join(rest)),
                // Not relative to wherever the command was typed: a timer and a shell must mean the same store.
                Err(_) => Ok(self.data_dir()?.join(path)),
            };
        }
        let path = self.data_dir()?.join("backups");
        let is_unknown = (config.unreadable || config.place_unknown) && self.repo.is_none();
        if is_unknown && !remembered::may_be(&self.data_dir()?, &path.join("store")) {
            let what = "the configuration cannot be understood, and may name another place for the store";
            return Err(Error::failed(what)
                .at(self.data_dir()?.join("config.json"))
                .hint("mend it, or name the store with --repo; nothing was changed"));
        }
        Ok(path)
    }

    /// Fails if the configuration may name another store than the one from which something is to be removed.
    pub fn sure_of_store(&self) -> Result<()> {
        if self.repo.is_some() {
            return Ok(());
        }
        self.sure_of_place(
            "the store",
            "mend it, or name the store too, with --repo: then what was typed is all that counts; nothing was \
             forgotten",
        )
    }

    fn sure_of_place(&self, what: &str, hint: &str) -> Result<()> {
        let config = self.config()?;
        if !config.place_unknown && (!config.unreadable || config.backup_dir.is_some()) {
            return Ok(());
        }
        let what = format!("the configuration cannot be understood, and may name another place for {what}");
        Err(Error::failed(what).at(self.data_dir()?.join("config.json")).hint(hint))
    }

    /// How long backups are kept, by what was typed or else by the configuration. Fails if that cannot be understood:
    /// to remove nothing, and say that nothing is to be removed, would hide it.
    pub fn days(&self, typed: Option<u32>) -> Result<u32> {
        let config = self.config()?;
        match (typed, &config.days_unknown) {
            (Some(days), _) => Ok(days),
            (None, None) => Ok(config.retention_days),
            (None, Some(said)) => {
                let what = format!("how long backups are kept cannot be understood: {said}");
                Err(Error::failed(what).hint("mend it, or give --days; nothing was removed"))
            }
        }
    }

    /// Fails if there is no data directory.
    pub fn sure_of_data_dir(&self, hint: &str) -> Result<()> {
        let path = self.data_dir()?;
        if path.is_dir() { Ok(()) } else { Err(Error::failed("the data directory is not there").at(path).hint(hint)) }
    }

    /// The folder of the backups. Fails if there is no data directory, whose configuration names it; or if that names
    /// one that is not there, which may lie on a disk that is not mounted.
    pub fn sure_of_folder(&self) -> Result<PathBuf> {
        self.sure_of_data_dir("name it with --data-dir, or mount it: what it says of its backups is not known")?;
        let config = self.config()?;
        let folder = self.backup_dir(config)?;
        if config.backup_dir.is_some() && !folder.is_dir() {
            return Err(Error::failed("the folder of the backups, which `backup_dir` names, is not there")
                .at(folder)
                .hint("mount the disk that it lies on, or mend `backup_dir`; the first `nbak backup` makes it"));
        }
        Ok(folder)
    }

    /// Fails if the configuration may name another folder than the one from which backups are to be removed.
    pub fn sure_of_backups(&self) -> Result<()> {
        self.sure_of_place("the backups", "mend it, or name the folder too, with NBAK_BACKUP_DIR; nothing was removed")
    }

    /// The store's directory, absolute.
    pub fn repo(&self) -> Result<PathBuf> {
        let path =
            if let Some(path) = &self.repo { path.clone() } else { self.backup_dir(self.config()?)?.join("store") };
        std::path::absolute(&path).map_err(|error| Error::io("find the store", &path, error))
    }

    /// Puts an end to the plaintext that killed commands left beside the store and the backups. What they left in the
    /// data directory goes with each snapshot.
    pub fn sweep(places: &Places) {
        places.repo.parent().into_iter().chain([places.backup_dir.as_path()]).for_each(sweep);
    }

    /// The data directory, its backups and its store.
    pub fn places(&self) -> Result<Places> {
        Ok(Places {
            name: self.name()?,
            data_dir: self.data_dir()?,
            backup_dir: self.backup_dir(self.config()?)?,
            repo: self.repo()?,
        })
    }

    /// What the data directory is called beside its path. If that cannot be understood, or is not said, as by cron,
    /// what it was called last: neither may make another directory of it.
    pub fn name(&self) -> Result<Option<String>> {
        let config = self.config()?;
        if config.name.is_some() || config.unnamed {
            return Ok(config.name.clone());
        }
        let last = self.repo().ok().and_then(|repo| remembered::name(&self.data_dir().ok()?, &repo));
        if let Some(last) = last.as_ref().filter(|_| !config.name_unknown) {
            static SAID: std::sync::Once = std::sync::Once::new();
            SAID.call_once(|| {
                output::warning(format!(
                    "this data directory was called {last} when a snapshot of it was taken last, and no name is given \
                     now: that one counts (give it by NBAK_NAME or `nbak.name`; an empty `nbak.name` says that it has \
                     none any more)"
                ));
            });
        }
        Ok(last)
    }

    /// Fails if it was said and cannot be understood, so that what is removed might be another's.
    pub fn require_name(&self) -> Result<()> {
        let config = self.config()?;
        let data_dir = self.data_dir()?;
        let is_remembered = || self.repo().is_ok_and(|repo| remembered::knows(&data_dir, &repo));
        if config.name_unknown && !(config.unreadable && is_remembered()) {
            let what = "what this data directory is called cannot be understood, and others may lie at the same path";
            let hint = if config.unreadable {
                "mend the configuration, which may say it, or give NBAK_NAME; nothing was changed"
            } else {
                "mend `nbak.name` (`nbak config show`); nothing was changed"
            };
            return Err(Error::failed(what).hint(hint));
        }
        Ok(())
    }

    /// What this data directory's snapshots and backups are known by.
    pub fn known_as(&self) -> Result<String> {
        Ok(known_as(self.name()?.as_deref(), &real(&self.data_dir()?)))
    }

    /// The documented backups of the data directory.
    pub fn backups(&self, dialect: Option<Dialect>) -> Result<BackupManager> {
        let config = self.config()?;
        let settings = Settings {
            // Of a file that cannot be read this is 0: nothing may be removed for it.
            retention_days: config.retention_days,
            encrypt: config.encrypt,
            dialect,
            exclude: config.exclude.clone(),
            separate_files: config.separate_files,
            patience: self.lock_wait,
        };
        Ok(BackupManager::new(self.places()?, settings, self.credentials()?))
    }

    /// The keys that may open the store.
    pub fn credentials(&self) -> Result<Vec<Credential>> {
        let mut found = Vec::new();
        for path in &self.vault_key_files {
            found.extend(secrets::of_file(path)?.into_openers(Credential::VaultKey));
        }
        if let Some(command) = &self.vault_key_command {
            found.extend(secrets::of_command(command)?.into_openers(Credential::VaultKey));
        }
        if let Some(path) = &self.passphrase_file {
            found.extend(secrets::of_file(path)?.into_openers(Credential::Passphrase));
        }
        if found.is_empty() {
            found.extend(secrets::in_environment()?);
        }
        if found.is_empty()
            && let Some(key) = secrets::in_env_file(&self.data_dir()?.join(".env"))?
        {
            found.push(key);
        }
        if let Some(first) = found.first() {
            secrets::warn_of_weak("the vault key", first);
        }
        Ok(found)
    }

    /// The key that `key add` and `key rotate` are about.
    pub fn new_credential(new: &NewKey) -> Result<Option<Credential>> {
        let key = match (&new.new_vault_key_file, &new.new_vault_key_command) {
            (Some(path), _) => Some(secrets::of_file(path)?),
            (None, Some(command)) => Some(secrets::of_command(command)?),
            (None, None) => None,
        };
        if let Some(key) = key.map(|given| Credential::VaultKey(given.key)) {
            secrets::warn_of_weak("the new vault key", &key);
            return Ok(Some(key));
        }
        match &new.new_passphrase_file {
            Some(path) => Ok(Some(Credential::Passphrase(secrets::of_file(path)?.key))),
            None => Ok(None),
        }
    }

    /// Opens the store for reading.
    pub fn open(&self) -> Result<Store> {
        let seen = self.seen();
        let store = Store::open(&self.repo()?, &self.credentials()?, Access::Read)?;
        self.warn(&store);
        Self::warn_if_behind(seen.as_ref(), &store);
        Ok(store)
    }

    /// Says if the store is behind what this machine had `seen` of it. A snapshot says it by itself.
    pub fn warn_if_behind(seen: Option<&Seen>, store: &Store) {
        // Where that cannot be told, what keeps it from being told is an error of its own.
        let missing = seen.and_then(|seen| remembered::missing(seen, store, false).ok().flatten());
        missing.iter().for_each(output::warning);
    }

    /// What this machine has seen of its stores: to be asked before one is opened.
    pub fn seen(&self) -> Option<Seen> {
        self.data_dir().ok().map(|data_dir| remembered::seen(&data_dir))
    }

    /// Says once what its owner should know about the store.
    pub fn warn(&self, store: &Store) {
        Self::warn_of_losses(store);
        store.unfinished().iter().for_each(output::warning);
        if store.is_unprotected() {
            output::warning(
                "this store is not protected: who can read it can read all that is in it \
                 (set NODYN_VAULT_KEY, then run `nbak key rotate`)",
            );
        }
        for damaged in store.damaged_slots() {
            output::warning(format!("a key slot is damaged: {damaged}"));
        }
        for (_, why) in store.catalog().index().unreadable() {
            output::warning(why);
        }
        let index = store.catalog().index();
        let damaged = index.damaged().len() as u64;
        if index.is_to_be_mended() {
            output::warning(format!(
                "a check found {} of this store damaged; a snapshot stores again what is at hand (`nbak check \
                 --read-data` says what is lost)",
                output::count(damaged, "segment", "segments")
            ));
        }
        if store.catalog().index().was_rebuilt() && self.verbose {
            output::message("the index was out of step with the packs, and was made anew");
        }
    }
}

impl Context {
    /// Says what a snapshot leaves out since it lies where the backups do.
    pub fn warn_of_left_out(places: &Places) {
        let others = list::left_out(places);
        if let [first, more @ ..] = &others[..] {
            let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            output::warning(format!(
                "no snapshot has what lies in the folder of the backups, {}, and {first}{more} is no backup: name \
                 another folder in `backup_dir`",
                places.backup_dir.display()
            ));
        }
    }

    /// Says what the store had and has no longer: also to those who only change keys.
    pub fn warn_of_losses(store: &Store) {
        if let Some(losses) = store.losses() {
            output::warning(format!(
                "the store has lost something: {losses} (bring the packs back from a copy of the store, or run \
                 `nbak repair`, which saves what can be saved; `nbak check` names them)"
            ));
        }
    }
}

fn home() -> Result<PathBuf> {
    std::env::home_dir()
        .filter(|home| !home.as_os_str().is_empty())
        .ok_or_else(|| Error::usage("there is no home directory").hint("name the data directory with --data-dir"))
}

/// Reads a file of at most a megabyte; a pipe is refused, not waited for.
fn read_small(path: &Path) -> std::io::Result<String> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    file.take(1 << 20).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether a file that is not there is expected to be: a link leads nowhere, or a daemon has read it, the one that
/// started this process or one that ran before.
fn is_missed(path: &Path, is_project: bool) -> bool {
    let was_read = || {
        let data_dir = path.parent().filter(|_| !is_project);
        data_dir.is_some_and(|path| std::env::var_os(HAD_CONFIG).is_some() || State::load(path).had_config)
    };
    fs::symlink_metadata(path).is_ok() || was_read()
}

/// The user's file, the project's in the folder in which the command was given, and the environment.
fn layers(data_dir: &Path) -> Layers {
    let mut layers = Layers::default();
    let user = data_dir.join("config.json");
    let dialect = if data_dir.file_name().is_some_and(|name| name == ".lynox") { ".lynox" } else { ".nodyn" };
    // The home directory is no project: what lies there is the user's own, of a data directory that may be another one.
    let is_home = |folder: &PathBuf| home().is_ok_and(|home| real(&home) == real(folder));
    let folder = std::env::current_dir().ok().filter(|folder| !is_home(folder));
    let project = folder.map(|folder| folder.join(dialect).join("config.json"));
    // Who stands above the data directory has one file, not two.
    let is_other = |path: &PathBuf| match (path.canonicalize(), user.canonicalize()) {
        (Ok(project), Ok(user)) => project != user,
        _ => true,
    };
    let project = project.filter(is_other);
    for (path, is_project) in [(Some(&user), false), (project.as_ref(), true)] {
        let Some(path) = path else { continue };
        match read_small(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && !is_missed(path, is_project) => {}
            read => layers.add_file(path, read.map_err(|error| error.to_string()), is_project),
        }
    }
    layers.add_environment(&|name| std::env::var(name).ok());
    layers.warn_of_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()));
    layers
}
