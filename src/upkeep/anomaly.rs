//! What of a new snapshot looks as if something had gone wrong with the data itself.
//!
//! A backup that is perfect in every bit is of no use if it is one of the ruins, and retention then takes the last that
//! were not. So a snapshot is held against the one before it. [`compare`] reads from the store what is needed for that,
//! and [`judge`] says what of it is not usual: it reads nothing, and the same numbers give the same answer. What two
//! drills counted in the databases is held against each other by [`judge_rows`].
//!
//! Nobody listens to what cries at every update. So there are floors, below which nothing is said, and what people and
//! programs do every day is known for what it is:
//!
//! - What was **moved** is not gone: the same content, at another path.
//! - A file whose name another one continues was **rotated** (`app.log`, `app.log.1.gz`): it may shrink.
//! - A file that went where another came in the same directory was **replaced** (`main-1f3a.js`, `main-77b0.js`).
//! - A **database** may shrink to a tenth, by a `VACUUM`. That rows are gone is known from its rows.
//! - **Scrambled** is what could be compressed before, or was of a known compressed form, and now is neither. So
//!   ransomware looks, under the same names or with an ending put behind them; pictures that were edited do not, nor
//!   does a text that was zipped, and a database that is still one does not.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::drill::Database;
use crate::error::Result;
use crate::error::words::{count, size};
use crate::id::ChunkId;
use crate::snapshot::diff::{Change, diff};
use crate::snapshot::meta;
use crate::snapshot::recipe::Recipe;
use crate::snapshot::record::Record;
use crate::snapshot::store::Store;
use crate::snapshot::tree::{Consistency, Content, Entry, Node};
use crate::store::segment::{Content as Segment, compress};

/// Below so many files it is not said that many are gone.
const FEW_FILES: u64 = 20;
/// So many that are gone are many, whatever part of all they are.
const MANY_FILES: u64 = 1000;
/// Below so many bytes it is not said that many are gone.
const FEW_BYTES: u64 = 1024 * 1024;
/// Below so many files it is not said that they are scrambled.
const FEW_SCRAMBLED: u64 = 8;
/// Below so many rows it is not said of a table that they are gone.
pub const FEW_ROWS: u64 = 100;
/// So many files are looked into, evenly chosen.
const SAMPLES: usize = 64;
/// Less than this says nothing about how it compresses, in bytes.
const SAMPLE: usize = 256;
/// So many databases are named.
const NAMED: usize = 20;

/// What compressed and encrypted files begin with that say of themselves what they are.
const KNOWN: &[&[u8]] = &[
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"\xfd7zXZ",
    b"BZh",
    b"7z\xbc\xaf",
    b"PK\x03\x04",
    b"Rar!",
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"GIF8",
    b"RIFF",
    b"OggS",
    b"fLaC",
    b"ID3",
    b"\x1aE\xdf\xa3",
    b"%PDF",
    b"wOF2",
    b"NBAK",
    b"age-encryption.org",
    b"Salted__",
];

/// What an anomaly is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// More than half of the files are gone.
    FilesGone,
    /// More than half of the bytes are gone.
    BytesGone,
    /// Many files were deleted at once.
    Deletions,
    /// Most of the files that changed are noise now.
    Scrambled,
    /// A database is none any more.
    NoDatabase,
    /// A database has less than a tenth of its bytes.
    DatabaseShrank,
    /// More than half of the rows of a table are gone.
    RowsGone,
    /// Rows refer to rows that are not there, and none did before.
    Orphans,
}

impl Kind {
    /// The word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::FilesGone => "files_gone",
            Kind::BytesGone => "bytes_gone",
            Kind::Deletions => "deletions",
            Kind::Scrambled => "scrambled",
            Kind::NoDatabase => "no_database",
            Kind::DatabaseShrank => "database_shrank",
            Kind::RowsGone => "rows_gone",
            Kind::Orphans => "orphans",
        }
    }
}

/// Something that is not usual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    /// What it is.
    pub kind: Kind,
    /// What it is, for people.
    pub text: String,
    /// The numbers that it is judged by.
    pub numbers: Vec<(&'static str, u64)>,
}

/// Two snapshots, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// Files of the one before, and of the new one.
    pub files: (u64, u64),
    /// Their bytes.
    pub bytes: (u64, u64),
    /// Files that are gone: neither moved, nor rotated, nor replaced.
    pub deleted: u64,
    /// Bytes that are gone: of these, and of what shrank and was not rotated.
    pub lost_bytes: u64,
    /// Files that have other content, or were replaced.
    pub changed: u64,
    /// Of those that were looked into: those that were no noise before.
    pub were_plain: u64,
    /// Of these: those that are noise now.
    pub are_noise: u64,
    /// Databases that are none any more.
    pub no_databases: Vec<PathBuf>,
    /// Databases that shrank to less than a tenth: their bytes before and now.
    pub shrunk: Vec<(PathBuf, u64, u64)>,
}

/// A regular file.
#[derive(Clone)]
struct File {
    size: u64,
    is_database: bool,
    content: Content,
}

impl File {
    fn of(entry: Entry) -> Option<File> {
        let Node::File { size, consistency, content } = entry.node else { return None };
        Some(File { size, is_database: consistency == Consistency::Transaction, content })
    }

    /// The same for the same content.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match &self.content {
            Content::Chunks(chunks) => chunks.hash(&mut hasher),
            Content::Recipes(recipes) => recipes.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// Compares the snapshot `after` with `before`, the one before it of the same data directory.
pub fn compare(store: &Store, before: &Record, after: &Record) -> Result<Compared> {
    let (mut removed, mut added) = (BTreeMap::new(), BTreeMap::new());
    let mut changed: Vec<(PathBuf, File, File)> = Vec::new();
    diff(store, before, after, &mut |path, change| {
        match change {
            Change::Removed(old) => removed.extend(File::of(old).map(|old| (path, old))),
            Change::Added(new) => added.extend(File::of(new).map(|new| (path, new))),
            Change::Content(old, new) => match (File::of(old), File::of(new)) {
                (Some(old), Some(new)) => changed.push((path, old, new)),
                (Some(old), None) => drop(removed.insert(path, old)),
                (None, Some(new)) => drop(added.insert(path, new)),
                (None, None) => {}
            },
            Change::Attributes(..) => {}
        }
        Ok(())
    })?;
    let mut compared = Compared {
        files: (before.totals.files, after.totals.files),
        bytes: (before.totals.bytes, after.totals.bytes),
        ..Compared::default()
    };
    let mut pairs = Vec::new();
    take_moved(&mut removed, &mut added, &mut changed);
    for (path, old, new) in changed {
        if old.is_database && !new.is_database {
            compared.no_databases.push(path.clone());
        }
        let is_rotated = new.size < old.size && successor(&added, &path).is_some();
        if old.is_database && new.is_database {
            if old.size >= FEW_BYTES && new.size < old.size / 10 {
                compared.shrunk.push((path, old.size, new.size));
            }
        } else if !is_rotated {
            compared.lost_bytes += old.size.saturating_sub(new.size);
        }
        pairs.push((old, new));
    }
    // What goes on under a longer name; then, in each directory, what came for what went.
    let mut gone: BTreeMap<PathBuf, Vec<File>> = BTreeMap::new();
    for (path, old) in removed {
        if let Some(next) = successor(&added, &path)
            && let Some(new) = added.remove(&next)
        {
            pairs.push((old, new));
        } else {
            gone.entry(path.parent().unwrap_or(Path::new("")).to_path_buf()).or_default().push(old);
        }
    }
    let mut come: BTreeMap<PathBuf, Vec<File>> = BTreeMap::new();
    for (path, new) in added {
        come.entry(path.parent().unwrap_or(Path::new("")).to_path_buf()).or_default().push(new);
    }
    for (folder, gone) in gone {
        let mut come = come.remove(&folder).unwrap_or_default().into_iter();
        for old in gone {
            if let Some(new) = come.next() {
                compared.lost_bytes += old.size.saturating_sub(new.size);
                pairs.push((old, new));
            } else {
                compared.deleted += 1;
                compared.lost_bytes += old.size;
            }
        }
    }
    compared.changed = pairs.len() as u64;
    pairs.retain(|(old, new)| !(old.is_database && new.is_database));
    let step = pairs.len().div_ceil(SAMPLES).max(1);
    for (old, new) in pairs.iter().step_by(step) {
        let (Some(was), Some(is)) = (look(store, old)?, look(store, new)?) else { continue };
        if !was {
            compared.were_plain += 1;
            compared.are_noise += u64::from(is);
        }
    }
    Ok(compared)
}

/// Takes away what was moved: a file that is gone, or has other content now, and whose content is at another path.
fn take_moved(
    removed: &mut BTreeMap<PathBuf, File>,
    added: &mut BTreeMap<PathBuf, File>,
    changed: &mut Vec<(PathBuf, File, File)>,
) {
    let mut come: HashMap<u64, Vec<PathBuf>> = HashMap::new();
    for (path, new) in added.iter().chain(changed.iter().map(|(path, _, new)| (path, new))) {
        come.entry(new.digest()).or_default().push(path.clone());
    }
    let mut take = |old: &File, added: &mut BTreeMap<PathBuf, File>| {
        let to = come.get_mut(&old.digest()).and_then(Vec::pop);
        to.inspect(|to| drop(added.remove(to))).is_some()
    };
    removed.retain(|_, old| !take(old, added));
    changed.retain(|(_, old, _)| !take(old, added));
}

/// The file that came whose name begins with that of `path`, in the same directory.
fn successor(added: &BTreeMap<PathBuf, File>, path: &Path) -> Option<PathBuf> {
    let range = added.range::<Path, _>((Bound::Excluded(path), Bound::Unbounded));
    let (next, _) = range.into_iter().next()?;
    let begins = next.as_os_str().as_encoded_bytes().starts_with(path.as_os_str().as_encoded_bytes());
    (begins && next.parent() == path.parent()).then(|| next.clone())
}

/// Whether a file is noise: it does not compress, and does not say why. Nothing if that cannot be told.
fn look(store: &Store, file: &File) -> Result<Option<bool>> {
    if file.is_database {
        return Ok(Some(false));
    }
    let (first, middle) = match &file.content {
        Content::Chunks(chunks) => {
            let id = |at: usize| chunks.get(at).map(|(_, id)| *id);
            (id(0), id(chunks.len() / 2))
        }
        Content::Recipes(recipes) => {
            let id = |at: usize, middle: bool| -> Result<Option<ChunkId>> {
                let Some(recipe) = recipes.get(at) else { return Ok(None) };
                match meta::load::<Recipe>(store.catalog(), *recipe) {
                    Ok(recipe) => {
                        let ids = recipe.value.ids;
                        Ok(ids.get(if middle { ids.len() / 2 } else { 0 }).copied())
                    }
                    Err(error) if error.is_damage() => Ok(None),
                    Err(error) => Err(error),
                }
            };
            (id(0, false)?, id(recipes.len() / 2, true)?)
        }
    };
    let (Some(first), Some(middle)) = (first, middle) else { return Ok(None) };
    let Some(head) = sample(store, first)? else { return Ok(None) };
    if head.len() < SAMPLE {
        return Ok(None);
    }
    let is_known = KNOWN.iter().any(|magic| head.starts_with(magic)) || head.get(4..8) == Some(b"ftyp");
    if is_known || !is_noise(&head)? {
        return Ok(Some(false));
    }
    let body = if middle == first { None } else { sample(store, middle)? };
    Ok(Some(body.map_or(Ok(true), |body| is_noise(&body))?))
}

/// A chunk, if it can be read.
fn sample(store: &Store, id: ChunkId) -> Result<Option<Vec<u8>>> {
    if id == ChunkId::ZEROS {
        return Ok(Some(vec![0; SAMPLE]));
    }
    match store.catalog().chunk(Segment::Data, id) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_damage() => Ok(store.catalog().sound_copy(id)),
        Err(error) => Err(error),
    }
}

fn is_noise(bytes: &[u8]) -> Result<bool> {
    Ok(compress(bytes, &[])?.1.len() * 100 >= bytes.len() * 97)
}

/// What of `compared` is not usual.
pub fn judge(compared: &Compared) -> Vec<Anomaly> {
    let mut found = Vec::new();
    let mut say = |kind, text, numbers: &[(&'static str, u64)]| {
        found.push(Anomaly { kind, text, numbers: numbers.to_vec() });
    };
    let ((files, files_now), (bytes, bytes_now)) = (compared.files, compared.bytes);
    let (deleted, lost) = (compared.deleted, compared.lost_bytes);
    if files >= FEW_FILES && files_now < files.div_ceil(2) {
        let text = format!("more than half of the files are gone: there were {files}, and {files_now} are left");
        say(Kind::FilesGone, text, &[("before", files), ("after", files_now)]);
    } else if deleted >= FEW_FILES && (deleted >= files / 4 || deleted >= MANY_FILES) {
        let text = format!("{deleted} of {files} files were deleted at once");
        say(Kind::Deletions, text, &[("before", files), ("deleted", deleted)]);
    }
    if bytes >= FEW_BYTES && bytes_now < bytes / 2 && lost > bytes / 2 {
        let text =
            format!("more than half of the data is gone: there were {}, and {} are left", size(bytes), size(bytes_now));
        say(Kind::BytesGone, text, &[("before", bytes), ("after", bytes_now), ("lost", lost)]);
    }
    let (plain, noise) = (compared.were_plain, compared.are_noise);
    if noise >= FEW_SCRAMBLED && noise * 2 > plain {
        let text = format!(
            "{} changed, and of {plain} that were looked into {noise} look encrypted now and did not before: is this \
             ransomware?",
            count(compared.changed, "file", "files")
        );
        say(Kind::Scrambled, text, &[("changed", compared.changed), ("looked_into", plain), ("scrambled", noise)]);
    }
    for path in compared.no_databases.iter().take(NAMED) {
        let count = compared.no_databases.len() as u64;
        say(
            Kind::NoDatabase,
            format!("{} was a database, and is none any more", path.display()),
            &[("databases", count)],
        );
    }
    for (path, was, is) in compared.shrunk.iter().take(NAMED) {
        let text = format!("{} shrank from {} to {}", path.display(), size(*was), size(*is));
        say(Kind::DatabaseShrank, text, &[("before", *was), ("after", *is)]);
    }
    found
}

/// What is not usual in the rows of `after`, as a drill counted them, beside those of `before`.
pub fn judge_rows(before: &[Database], after: &[Database]) -> Vec<Anomaly> {
    let mut found = Vec::new();
    let now: HashMap<&Path, &Database> = after.iter().map(|database| (database.path.as_path(), database)).collect();
    for was in before {
        // A database that is gone is a file that is gone.
        let Some(is) = now.get(was.path.as_path()) else { continue };
        let path = was.path.display();
        let (old, new) = (&was.found.rows, &is.found.rows);
        for (table, rows) in old.iter().filter(|(_, rows)| **rows >= FEW_ROWS) {
            // One that was not counted says nothing.
            if !new.contains_key(table) && is.found.not_counted > 0 {
                continue;
            }
            let left = new.get(table).copied().unwrap_or(0);
            // A migration puts a new table in the place of an old one.
            let is_migrated = || new.iter().any(|(name, count)| !old.contains_key(name) && *count >= rows / 2);
            if left < rows.div_ceil(2) && (new.contains_key(table) || !is_migrated()) {
                found.push(Anomaly {
                    kind: Kind::RowsGone,
                    text: format!("{path}: table {table} had {rows} rows, and {left} are left"),
                    numbers: vec![("before", *rows), ("after", left)],
                });
            }
        }
        for (table, count) in &is.found.violations {
            let known = was.found.violations.get(table).copied().unwrap_or(0);
            if known == 0 {
                found.push(Anomaly {
                    kind: Kind::Orphans,
                    text: format!(
                        "{path}: {count} rows of table {table} refer to what is not there, and none did before"
                    ),
                    numbers: vec![("before", known), ("after", *count)],
                });
            }
        }
    }
    found
}
