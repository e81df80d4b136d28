//! What was taken away, held against what the intent says of it.
//!
//! All of it is removed in the end, since the safety backup has it: as it was when the intent was written, and not as
//! it is if somebody wrote to it after that. The stamp of a folder says nothing of what is below it, so that is asked
//! too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::databases::standing_sidecars;
use super::intent::Intent;
use super::root::{Kind, Root, Stamp};
use crate::error::{Error, Result};
use crate::snapshot::sidecar::{HEAD, Sidecar, is_shared_memory};
use crate::source::handle::FileHandle;

/// What an intent noted of what it does not name one by one, by path.
pub type Noted<'a> = BTreeMap<&'a Path, Stamp>;

/// Empty for a journal of an older version: then nothing is known of any of it.
pub fn noted(intent: &Intent) -> Noted<'_> {
    intent.standing.iter().flatten().map(|one| (one.path.0.as_path(), one.live)).collect()
}

/// Whether what stands at `at`, and was `path`, is what stood there `then`, and has nothing below it that was not.
pub fn is_as_noted(root: &Root, noted: &Noted<'_>, at: &Path, path: &Path, then: Option<Stamp>) -> Result<bool> {
    let Some(now) = root.seen(at)? else { return Ok(true) };
    if then != Some(now.stamp) {
        return Ok(false);
    }
    if now.kind == Kind::Folder {
        for below in root.names(at)? {
            let was = path.join(below.file_name().unwrap_or_default());
            if !is_as_noted(root, noted, &below, &was, noted.get(&*was).copied())? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// What stands beside `database`, is called like a sidecar of it and is none, and was not there when the intent was
/// written. SQLite removes it when it takes the database, whatever it is. (A journal that is none keeps a database from
/// being taken at all.)
pub fn foreign_sidecars(root: &Root, noted: &Noted<'_>, database: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in standing_sidecars(root, database)? {
        let Some(now) = root.seen(&path)?.filter(|now| now.stamp.size > 0) else { continue };
        let is_true = match Sidecar::named(&path).map(|(which, _)| which) {
            Some(Sidecar::Memory) => is_shared_memory(&root.place(&path)),
            Some(Sidecar::Log) if now.kind == Kind::File => {
                let mut head = [0; HEAD];
                let place = root.place(&path);
                let got = FileHandle::open(&place).and_then(|file| file.read_at(&mut head, 0));
                let got = got.map_err(|error| Error::io("read what is beside a database", place, error))?;
                Sidecar::Log.is_true(&head[..got])
            }
            Some(Sidecar::Log) => false,
            Some(Sidecar::Journal) | None => true,
        };
        if !is_true && noted.get(&*path) != Some(&now.stamp) {
            found.push(path);
        }
    }
    Ok(found)
}
