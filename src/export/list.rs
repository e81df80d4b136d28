//! The backups in a folder, the damaged ones too, and which of them a name stands for.
//!
//! A backup is a folder with a manifest, or one that is called as backups are: whose manifest is lost it is shown as
//! damaged, not hidden. Links are not followed: one that is called like a backup is shown as what it is. Everything
//! else in the folder (the store, what is being written, scratch space) is nobody's backup and is left out.
//!
//! Which one is the newest their dates say, and a date is a clock's word: one of a time that has not come yet counts
//! less than any other, and where the store knows the snapshots of both, their order decides and no date.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::FileType;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::backup::Backup;
use super::dialect::Dialect;
use super::manifest::Manifest;
use super::manifest::lacks::Lacks;
use super::manifest::whose::Whose;
use super::names::{self, MANIFEST};
use crate::error::{Error, Result};
use crate::snapshot::history::History;
use crate::snapshot::now::now_ms;
use crate::snapshot::places::{Places, real};

/// What is later than now by more than this, in milliseconds, is of a time that has not come yet.
pub const AHEAD: i64 = 120_000;
/// What is said of such a backup.
pub const NOT_COME: &str = "of a time that has not come yet";
/// So many data directories are named that have backups in the folder.
const NAMED: usize = 5;

/// A backup in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The folder's name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// When it was made, in milliseconds since 1970: by its manifest, or by its name if that cannot be read.
    pub created_ms: Option<i64>,
    /// Bytes of its files, by the manifest.
    pub bytes: u64,
    /// Its files, folders not counted.
    pub files: u64,
    /// Whether they are sealed.
    pub encrypted: bool,
    /// The application's version.
    pub version: String,
    /// The snapshot that it was made of, if this program made it.
    pub snapshot: Option<String>,
    /// A restore made it, of what it was about to replace.
    pub before_restore: bool,
    /// Whose names it uses.
    pub dialect: Option<Dialect>,
    /// The data directory that it was made of.
    pub source_dir: String,
    /// Which one that was.
    pub whose: Whose,
    /// What is not in it, by its manifest.
    pub lacks: Lacks,
    /// Why it cannot be read, if it cannot. That its files are whole is only known after verifying.
    pub damage: Option<String>,
}

/// All backups in `backup_dir`, the oldest first; before them those of an unknown age, and of a time that has not come
/// yet. None if the folder is not there.
pub fn list(backup_dir: &Path) -> Result<Vec<Listed>> {
    let failed = |error| Error::io("list the backups", backup_dir, error);
    let entries = match std::fs::read_dir(backup_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut listed = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        listed.extend(look_at(&entry.path(), &entry.file_name(), kind));
    }
    let now = now_ms();
    let age = |one: &Listed| (one.created_ms.filter(|_| !one.is_ahead(now)), one.created_ms);
    listed.sort_by(|one, other| (age(one), &one.name).cmp(&(age(other), &other.name)));
    Ok(listed)
}

/// Names of what lies in the folder of the backups, and is neither one nor the store, if the configuration put that
/// folder into the data directory: no snapshot has it.
pub fn left_out(places: &Places) -> Vec<String> {
    let (data_dir, folder, store) = (real(&places.data_dir), real(&places.backup_dir), real(&places.repo));
    if !folder.starts_with(&data_dir) || folder == data_dir || folder == data_dir.join("backups") {
        return Vec::new();
    }
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut others: Vec<String> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_own = name.starts_with(".nbak-") || entry.path() == store;
            let is_unfinished = name.strip_suffix(names::TEMPORARY).is_some_and(|name| names::check_name(name).is_ok());
            let is_backup =
                entry.file_type().is_ok_and(|kind| look_at(&entry.path(), &entry.file_name(), kind).is_some());
            !is_own && !is_unfinished && !is_backup
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    others.sort();
    others
}

fn look_at(path: &Path, file_name: &OsStr, kind: FileType) -> Option<Listed> {
    let name = file_name.to_string_lossy();
    if names::check_name(&name).is_err() {
        return None;
    }
    let dated = names::is_dated(&name);
    if kind.is_symlink() {
        return dated.then(|| Listed::damaged(path, &name, "it is a symbolic link, which is not followed".to_owned()));
    }
    // A name that is all there is to go by needs no look inside; neither does a folder without a manifest.
    if !kind.is_dir() || !dated && !may_be_there(&path.join(MANIFEST)) {
        return None;
    }
    if file_name.to_str().is_none() {
        return Some(Listed::damaged(path, &name, "its name is not UTF-8: rename it".to_owned()));
    }
    match Backup::open(path) {
        Ok(backup) => Some(Listed::whole(backup.name, backup.path, backup.manifest)),
        // It was removed, or got its name, since the folder was read.
        Err(_) if std::fs::symlink_metadata(path).is_err() => None,
        Err(error) => Some(Listed::damaged(path, &name, error.what())),
    }
}

/// Whether there is something at `path`, as far as can be seen.
fn may_be_there(path: &Path) -> bool {
    match std::fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

impl Listed {
    /// One whose manifest could be read.
    pub fn whole(name: String, path: PathBuf, manifest: Manifest) -> Listed {
        let files = || manifest.files.iter().filter(|entry| !entry.kind.is_directory());
        let lacks = manifest.lacks();
        Listed {
            name,
            path,
            created_ms: Some(manifest.created_ms),
            bytes: files().fold(0, |sum, entry| entry.size.saturating_add(sum)),
            files: files().count() as u64,
            encrypted: manifest.encrypted,
            dialect: Some(manifest.dialect),
            whose: manifest.whose(),
            source_dir: manifest.source_dir,
            damage: None,
            version: manifest.version,
            before_restore: manifest.own.as_ref().is_some_and(|own| own.before_restore),
            lacks,
            snapshot: manifest.own.map(|own| own.snapshot),
        }
    }

    /// Whether it says that it was made later than `now`, in milliseconds since 1970.
    pub fn is_ahead(&self, now: i64) -> bool {
        self.damage.is_none() && self.created_ms > Some(now.saturating_add(AHEAD))
    }

    /// Whether it says that it is older than `days`, which never is anything if that is 0.
    pub fn is_past(&self, days: u32, now: i64) -> bool {
        let limit = now.saturating_sub(i64::from(days).saturating_mul(86_400_000));
        days > 0 && self.damage.is_none() && self.created_ms.is_some_and(|made| made < limit)
    }

    /// One that cannot be read, and why.
    pub fn damaged(path: &Path, name: &str, why: String) -> Listed {
        Listed {
            name: name.to_owned(),
            path: path.to_path_buf(),
            created_ms: names::date_of(name),
            bytes: 0,
            files: 0,
            encrypted: false,
            version: String::new(),
            snapshot: None,
            before_restore: false,
            lacks: Lacks::default(),
            dialect: None,
            source_dir: String::new(),
            whose: Whose::Unsaid,
            damage: Some(why),
        }
    }
}

/// The backup that `name` stands for, among those in the folder of the backups or, if it has a `/` in it, anywhere;
/// without a name the newest of this data directory, by what its manifest says and whatever it is called. Where the
/// folder has others' alone, nobody can tell that one of them is meant.
///
/// What a restore made of what it replaced counts only if there is no other: who restores twice does not mean to go
/// back.
pub fn find(places: &Places, name: Option<&str>) -> Result<Backup> {
    let backup_dir = &places.backup_dir;
    match name {
        Some(name) if name.contains('/') || name == "." || name == ".." => {
            let path = Path::new(name);
            // What the user names may be reached through links. What is found there is not.
            let real = path.canonicalize().map_err(|error| match error.kind() {
                ErrorKind::NotFound => Error::usage("there is no such backup").at(path),
                _ => Error::io("open a backup", path, error),
            })?;
            Backup::open(&real)
        }
        Some(name) => {
            let unknown = |why: &str| {
                Error::usage(format!("there is no backup {}{why}", names::quoted(name)))
                    .at(backup_dir)
                    .hint("`nbak backup list` shows them; one that lies elsewhere is named by a path with a `/`")
            };
            if let Err(why) = names::check_name(name) {
                return Err(unknown(&format!(": {why}")));
            }
            let path = backup_dir.join(name);
            match std::fs::symlink_metadata(&path) {
                Ok(_) => Backup::open(&path),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    Err(unknown(""))
                }
                Err(error) => Err(Error::io("open a backup", &path, error)),
            }
        }
        None => newest(places, &Order::new()).map(|(backup, _)| backup),
    }
}

/// In which order the snapshots of a store were taken: the place of each among them, by its id.
pub type Order = HashMap<String, usize>;

/// The order of all snapshots that are known, also of those that were forgotten.
pub fn order_of(history: &History) -> Order {
    let ids = history.known().iter().map(|one| one.record.id.to_string());
    ids.zip(0..).collect()
}

/// What there is to say of the newest backup of one data directory.
#[derive(Debug, Clone, Copy)]
pub struct Newest<'a> {
    /// The newest of those whose manifests can be read. One that a restore made only if there is no other.
    pub whole: Option<&'a Listed>,
    /// One that says that it is newer, of a time that has not come yet.
    pub ahead: Option<&'a Listed>,
    /// A newer one that was made while a restore in place was half done, and was passed over for that.
    pub mixed: Option<&'a Listed>,
    /// One that cannot be read, and is newer by its name, or may be the only one: whose it is nobody can tell then.
    pub lost: Option<&'a Listed>,
}

/// The newest of `listed`, which are in the order of [`list`], that is of the data directory that `owns` knows, by the
/// clock `now` and the order of the snapshots that are known. One of old and new data counts only if there is no other.
pub fn newest_of<'a>(listed: &'a [Listed], owns: &dyn Fn(&str) -> bool, now: i64, order: &Order) -> Newest<'a> {
    let is_meant = |one: &&Listed| one.damage.is_some() || owns(&one.source_dir);
    let listed: Vec<&Listed> = listed.iter().filter(is_meant).collect();
    let all: Vec<&Listed> = listed.iter().filter(|one| one.damage.is_none()).copied().collect();
    let (mixtures, pure): (Vec<&Listed>, Vec<&Listed>) = all.into_iter().partition(|one| one.lacks.lack().mixed);
    let all = if pure.is_empty() { mixtures.clone() } else { pure };
    let has_regular = all.iter().any(|one| !one.before_restore);
    let counts: Vec<&Listed> = all.into_iter().filter(|one| !(has_regular && one.before_restore)).collect();
    let by_date = (counts.iter().copied().enumerate()).max_by_key(|(at, one)| (!one.is_ahead(now), *at));
    let taken = |one: &Listed| one.snapshot.as_ref().and_then(|id| order.get(id));
    let by_order = (counts.iter().copied().enumerate().filter(|(_, one)| taken(one).is_some()))
        .max_by_key(|(at, one)| (taken(one), !one.is_ahead(now), *at));
    let whole = by_date.map(|(_, one)| if taken(one).is_some() { by_order.map_or(one, |(_, last)| last) } else { one });
    let is_later = |one: &&Listed| one.is_ahead(now) && whole.is_some_and(|whole| one.created_ms > whole.created_ms);
    let ahead = counts.iter().rev().copied().find(is_later);
    let is_behind = |one: &&Listed| match (whole, whole.map(|whole| (taken(whole), taken(one)))) {
        (Some(_), Some((Some(chosen), Some(other)))) => other > chosen,
        (Some(whole), _) => one.created_ms > whole.created_ms,
        (None, _) => false,
    };
    let mixed = mixtures.into_iter().rev().find(is_behind);
    // To take an older one in silence would hide that the newest is lost.
    let is_newer =
        |one: &Listed| whole.is_none_or(|whole| one.created_ms.is_some_and(|ms| Some(ms) > whole.created_ms));
    let lost = listed.iter().rev().find(|one| one.damage.is_some() && is_newer(one)).copied();
    Newest { whole, ahead, mixed, lost }
}

/// What is to be said of the date of the newest that was found, and of those that it was preferred to.
pub fn remarks(newest: &Newest<'_>, now: i64) -> Vec<String> {
    let of_date = match (newest.whole, newest.ahead) {
        (Some(whole), _) if whole.is_ahead(now) => {
            Some(format!("the newest backup, {}, is {NOT_COME}: is the clock right?", names::quoted(&whole.name)))
        }
        (Some(_), Some(ahead)) => Some(format!(
            "backup {} is {NOT_COME}, and was passed over: give its name if it is meant",
            names::quoted(&ahead.name)
        )),
        _ => None,
    };
    let of_mixed = |(mixed, whole): (&Listed, &Listed)| passed_over(&mixed.name, &mixed.lacks, &whole.name);
    of_date.into_iter().chain(newest.mixed.zip(newest.whole).map(of_mixed)).collect()
}

/// The newest backup of this data directory, as [`newest_of`] has it; and what is to be said of the choice.
pub fn newest(places: &Places, order: &Order) -> Result<(Backup, Vec<String>)> {
    let (listed, now) = (list(&places.backup_dir)?, now_ms());
    let found = newest_of(&listed, &places.owns(), now, order);
    if found.whole.is_none() && listed.iter().any(|one| one.damage.is_none()) {
        return Err(others_alone(places, &listed, now));
    }
    let remarks = remarks(&found, now);
    let Newest { whole, lost, .. } = found;
    match (whole, lost) {
        (_, Some(lost)) => {
            let why = lost.damage.as_deref().unwrap_or("it is damaged");
            let hint = match whole {
                Some(whole) => format!("the newest that can be read is {}: give its name", names::quoted(&whole.name)),
                None => "`nbak backup list` shows what is there".to_owned(),
            };
            Err(Error::integrity(format!("the newest backup cannot be read: {why}")).at(&lost.path).hint(hint))
        }
        (Some(whole), None) => Ok((Backup::open(&whole.path)?, remarks)),
        (None, None) => {
            Err(Error::no_store("there is no backup yet").at(&places.backup_dir).hint("`nbak backup create` makes one"))
        }
    }
}

/// That a backup was `passed_over` for another one, since it is a mixture.
pub fn passed_over(name: &str, lacks: &Lacks, taken: &str) -> String {
    format!(
        "backup {} is newer, and was passed over: {}. {} is taken; give the name of the other if that is meant",
        names::quoted(name),
        lacks.lack(),
        names::quoted(taken)
    )
}

/// That the folder has backups of other data directories, and which.
fn others_alone(places: &Places, listed: &[Listed], now: i64) -> Error {
    let sources: BTreeSet<&str> =
        listed.iter().filter(|one| one.damage.is_none()).map(|one| one.source_dir.as_str()).collect();
    let newest = |source: &&str| {
        let one = newest_of(listed, &|said| said == *source, now, &Order::new()).whole?;
        Some(format!("{} is the newest of {}", names::quoted(&one.name), names::quoted(source)))
    };
    let mut named: Vec<String> = sources.iter().filter_map(newest).take(NAMED).collect();
    if sources.len() > named.len() {
        named.push(format!("{} more directories have some", sources.len() - named.len()));
    }
    let damaged = listed.iter().filter(|one| one.damage.is_some()).count();
    if damaged > 0 {
        named.push(format!("{damaged} cannot be read"));
    }
    let own = names::quoted(&places.known_as());
    Error::usage(format!("no backup that can be read is of the data directory {own}"))
        .at(&places.backup_dir)
        .hint(format!("give the name of the one that is meant: {} (`nbak backup list`)", named.join(", ")))
}
