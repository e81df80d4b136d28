//! Which version of a database a log belongs to: told by what was last seen of each part.
//!
//! A log is taken away before its database, so who is killed in between leaves the database alone, and an application
//! may go on with that: the log is then one of an earlier version, and would tear it. So whoever goes on with a restore
//! first notes what stands there now ([`now`]), and from that on a part is held against it: what is not what was seen
//! last is of another version. A database that was never seen to change goes with whatever was taken from beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::company;
use super::intent::{Intent, Name, Since, Way};
use super::root::{Kind, Root, Stamp};
use crate::error::Result;

/// What was last seen of what an intent is about, by path.
#[derive(Debug, Default)]
pub struct Versions<'a> {
    /// When the intent was written.
    stood: BTreeMap<&'a Path, Stamp>,
    /// When somebody went on with it: `None` for what was not there.
    since: BTreeMap<&'a Path, Option<Stamp>>,
}

impl<'a> Versions<'a> {
    pub fn of(intent: &'a Intent) -> Versions<'a> {
        let noted = intent.standing.iter().flatten().map(|one| (one.path.0.as_path(), one.live));
        let moved = intent.moves.iter().filter_map(|one| Some((one.path.0.as_path(), one.live?)));
        let cleared = intent.clear.iter().map(|one| (one.path.0.as_path(), one.live));
        let since = intent.since.iter().map(|one| (one.path.0.as_path(), one.live));
        Versions { stood: noted.chain(moved).chain(cleared).collect(), since: since.collect() }
    }

    /// Whether `stamp` is of what was last seen at `path`.
    pub fn is_last(&self, path: &Path, stamp: Stamp) -> bool {
        let last = self.since.get(path).copied().unwrap_or_else(|| self.stood.get(path).copied());
        last == Some(stamp)
    }

    /// Whether `stamp` may be of the version that was last seen: it was not seen to be another.
    pub fn fits(&self, path: &Path, stamp: Stamp) -> bool {
        self.since.get(path).is_none_or(|last| *last == Some(stamp))
    }
}

/// What stands now of what is still to go, and what beside it, where that is another than was last seen. If it is
/// something else than it was, nothing that was taken from beside it belongs to it any more.
pub fn now(root: &Root, intent: &Intent) -> Result<Vec<Since>> {
    let versions = Versions::of(intent);
    let mut bases: Vec<&Path> = Vec::new();
    for one in intent.moves.iter().filter(|one| one.way != Way::Through) {
        if one.is_pending(root)? {
            bases.push(&one.path.0);
        }
    }
    let others = intent.clear.iter().map(|one| &one.path).chain(intent.folders.iter().map(|one| &one.path));
    bases.extend(others.map(|name| name.0.as_path()));
    let all: BTreeSet<&Path> = bases.iter().copied().chain(intent.moves.iter().map(|one| &*one.path.0)).collect();
    let mut found = Vec::new();
    // What goes with another is looked at with that one.
    for base in bases.into_iter().filter(|path| !company::whole_of(path).is_some_and(|base| all.contains(&*base))) {
        let Some(seen) = root.seen(base)?.filter(|seen| seen.kind != Kind::Folder) else { continue };
        let is_other = !versions.is_last(base, seen.stamp);
        for part in parts(base) {
            let stamp = root.seen(&part)?.map(|seen| seen.stamp);
            let is_new = stamp.is_some_and(|stamp| !versions.is_last(&part, stamp));
            if is_other || is_new {
                found.push(Since { path: Name(part), live: stamp });
            }
        }
    }
    Ok(found)
}

/// A file, and the names of all that goes with it.
pub fn parts(base: &Path) -> Vec<PathBuf> {
    [base.to_path_buf()].into_iter().chain(company::of(base)).collect()
}
