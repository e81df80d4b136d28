//! Documented backups in Drive: one folder each, the manifest last.
//!
//! `nodyn-backups/<name>/…`, with real folders inside. A folder without a manifest is no backup, and nobody takes it
//! for one: [`send`] puts it there when all else is there, and prune takes it away first. [`fetch`] brings one back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::api::Drive;
use super::owner::{Owner, machine, source};
use super::remote::{Remote, shown};
use super::sessions::Sessions;
use crate::error::{Error, Result};
use crate::export::dialect::Dialect;
use crate::export::list::{Listed, Order, newest_of, remarks};
use crate::export::manifest::whose::{Evidence, Known, WHENEVER, Whose};
use crate::export::manifest::{BYTES_MAX, Manifest};
use crate::export::names::{self, MANIFEST};
use crate::export::retention::{self, Decision};
use crate::source::named;

pub mod fetch;
mod send;

/// Files that are under way at a time: each takes a part in memory, and Drive's quotas are per user and minute.
const AT_ONCE: usize = 3;
/// The top of the account.
const ROOT: &str = "root";

/// Of whom old backups are to go.
#[derive(Debug, Clone)]
pub struct Which {
    /// Of every machine that shares the account.
    pub every: bool,
    /// Which directory this machine's data directory is.
    pub known: Known,
    /// A person says that it was all those before that have its path.
    pub as_one: bool,
}

/// By what the one that is meant is chosen.
#[derive(Debug)]
pub struct Choice<'a> {
    /// The order of the snapshots that are known.
    pub order: &'a Order,
    /// The time, in milliseconds since 1970.
    pub now_ms: i64,
    /// Which directory this machine's data directory is.
    pub known: &'a Known,
}

/// A backup in Drive.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The id of its folder.
    pub id: String,
    /// What its manifest says; damage if it has none, or none that can be read.
    pub listed: Listed,
    /// The machine that uploaded it; empty if that was not noted.
    pub machine: String,
    /// The data directory that was noted; empty if none was.
    source: String,
    /// When it came there, by Drive's clock.
    came_ms: i64,
}

impl Stored {
    /// Its id, and whose it is.
    fn in_words(&self) -> String {
        let owner = self.owner();
        let machine = if owner.machine.is_empty() { "a machine that is not named" } else { &owner.machine };
        format!("{} (backup {} of {} on {})", self.id, self.listed.name, shown(&owner.source_dir), shown(machine))
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        let said = &self.listed.source_dir;
        let source_dir = if said.is_empty() { self.source.clone() } else { said.clone() };
        Owner { machine: self.machine.clone(), source_dir }
    }
}

/// What an upload did.
#[derive(Debug, Default)]
pub struct Uploaded {
    /// Files that were sent.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were there already.
    pub kept: u64,
}

/// Told of bytes that went, from any thread.
pub type Watch<'a> = &'a (dyn Fn(u64) + Sync);

/// The backups in one account.
pub struct Backups<'a> {
    /// The account.
    pub drive: &'a Drive,
    /// Uploads that have begun.
    pub sessions: &'a Sessions,
    /// Whose the backups of this machine are.
    pub own: &'a Owner,
}

/// Files below a remote folder, by their paths; more than one if there are several of the same name.
type Files = BTreeMap<String, Vec<Remote>>;

impl Backups<'_> {
    /// All files below the remote `folder`, by their paths.
    fn below(&self, folder: &str) -> Result<Files> {
        let mut files = Files::new();
        let mut waiting = vec![(String::new(), folder.to_owned())];
        let mut seen = BTreeSet::new();
        while let Some((path, id)) = waiting.pop() {
            // A folder may be named in itself, by a service that is none.
            if !seen.insert(id.clone()) || path.matches('/').count() > names::DEPTH_MAX {
                return Err(Error::remote(format!("folders in Google Drive lie in each other: {}", shown(&path))));
            }
            for remote in self.drive.children(&id)? {
                let at = if path.is_empty() { remote.name.clone() } else { format!("{path}/{}", remote.name) };
                if remote.is_folder {
                    waiting.push((at, remote.id));
                } else {
                    files.entry(at).or_default().push(remote);
                }
            }
        }
        Ok(files)
    }

    /// All backups there, the oldest first. Only manifests are read.
    pub fn list(&self) -> Result<Vec<Stored>> {
        let mut found = Vec::new();
        for dialect in [Dialect::Nodyn, Dialect::Lynox] {
            let tops = self.drive.named(ROOT, dialect.drive_folder())?;
            for top in tops.into_iter().filter(|top| top.is_folder) {
                for folder in self.drive.children(&top.id)?.into_iter().filter(|child| child.is_folder) {
                    let listed = self.look_at(&folder)?;
                    let (machine, source) = (machine(&folder.properties), source(&folder.properties));
                    found.push(Stored { id: folder.id, listed, machine, source, came_ms: folder.created_ms });
                }
            }
        }
        found.sort_by(|one, other| {
            (one.listed.created_ms, &one.listed.name).cmp(&(other.listed.created_ms, &other.listed.name))
        });
        Ok(found)
    }

    fn look_at(&self, folder: &Remote) -> Result<Listed> {
        if let Err(why) = names::check_name(&folder.name) {
            return Ok(Listed::damaged(Path::new(""), &shown(&folder.name), format!("its name is no backup's: {why}")));
        }
        let manifests = self.drive.named(&folder.id, MANIFEST)?;
        let Some(manifest) = manifests.iter().find(|remote| !remote.is_folder) else {
            let why = "incomplete: it has no manifest: its upload has not ended, or somebody removed that".to_owned();
            return Ok(Listed::damaged(Path::new(""), &folder.name, why));
        };
        Ok(match self.manifest(manifest) {
            Ok(manifest) => Listed::whole(folder.name.clone(), PathBuf::new(), manifest),
            Err(error) if error.is_integrity() => Listed::damaged(Path::new(""), &folder.name, error.what()),
            Err(error) => return Err(error),
        })
    }

    fn manifest(&self, remote: &Remote) -> Result<Manifest> {
        if remote.size > BYTES_MAX {
            return Err(Error::integrity("its manifest is larger than one can be"));
        }
        Manifest::parse(&self.drive.read_whole(remote, BYTES_MAX)?)
    }

    /// The backup called `name`, or whose folder has this id, or the newest of this machine that is complete and was
    /// not made before a restore, or while one was half done; and what is to be said of the choice. Which is the newest
    /// is judged as on this machine: by the order of the snapshots that are known, and by dates and the clock that is
    /// given. Of several directories with this machine's name and path that is this one's, if one is. On a new machine,
    /// that of the only one there is, or of the only one with a data directory at the same place; whose is meant of
    /// several is for a person to say.
    pub fn find(&self, name: Option<&str>, by: &Choice<'_>) -> Result<(Stored, Vec<String>)> {
        self.find_in(self.list()?, name, by)
    }

    /// The same, among `all` that there are.
    pub fn find_in(&self, all: Vec<Stored>, name: Option<&str>, by: &Choice<'_>) -> Result<(Stored, Vec<String>)> {
        let hint = "`nbak backup gdrive list` lists them";
        if let Some(name) = name {
            let is_meant = |one: &Stored| one.listed.name == name || one.id == name;
            let mut found: Vec<Stored> = all.into_iter().filter(is_meant).collect();
            // One that is not complete is in nobody's way.
            if found.len() > 1 {
                found.retain(|one| one.listed.damage.is_none());
            }
            if found.len() > 1 {
                let what = format!("there are several backups {name} in Google Drive, of several machines");
                let ids = found.iter().map(Stored::in_words).collect::<Vec<_>>().join(", ");
                return Err(Error::usage(what).hint(format!("name one by its id: {ids}")));
            }
            let what = || Error::no_store(format!("there is no backup {name} in Google Drive")).hint(hint);
            return found.pop().map(|one| (one, Vec::new())).ok_or_else(what);
        }
        let mut owners: BTreeMap<Owner, Vec<Stored>> = BTreeMap::new();
        for one in all.iter().filter(|one| one.listed.damage.is_none()) {
            owners.entry(one.owner()).or_default().push(one.clone());
        }
        if let Some(of_it) = owners.get_mut(self.own) {
            *of_it = of_this_one(std::mem::take(of_it), by)?;
        }
        let mut newest: BTreeMap<Owner, (Stored, Vec<String>)> =
            owners.into_iter().filter_map(|(owner, of_it)| Some((owner, newest_in(&of_it, by)?))).collect();
        if let Some(own) = newest.remove(self.own) {
            return Ok(own);
        }
        // Another's is no substitute that nobody asked for.
        if all.iter().any(|one| self.own.owns(&one.owner())) {
            return Err(Error::no_store("there is no complete backup of this machine in Google Drive")
                .hint("`nbak backup gdrive upload` completes one; another machine's is to be named"));
        }
        if newest.keys().any(|owner| owner.source_dir == self.own.source_dir) {
            newest.retain(|owner, _| owner.source_dir == self.own.source_dir);
        }
        let names = newest.values().map(|(one, _)| one.in_words()).collect::<Vec<_>>().join(", ");
        match newest.into_values().collect::<Vec<_>>().as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(Error::no_store("there is no complete backup in Google Drive").hint(hint)),
            _ => Err(Error::usage("the backups in Google Drive are of several machines, and none of them is this one")
                .hint(format!("name one by its id: {names}"))),
        }
    }

    /// The names of those of `all` that are this machine's, came after `stored`, and are not complete.
    pub fn incomplete_after<'a>(&self, all: &'a [Stored], stored: &Stored) -> Vec<&'a str> {
        let is_later =
            |one: &&Stored| self.own.owns(&one.owner()) && one.listed.damage.is_some() && one.came_ms > stored.came_ms;
        all.iter().filter(is_later).map(|one| one.listed.name.as_str()).collect()
    }

    /// Removes backups there that `which` says are older than `days`; never the newest complete one of each directory,
    /// nor what is not known to be one. Answers with what was decided, and of which machine, and how many of this one
    /// stay since another directory of the same path made them.
    pub fn prune(
        &self,
        which: &Which,
        days: u32,
        now_ms: i64,
        dry_run: bool,
    ) -> Result<(Vec<(String, Decision)>, usize)> {
        let all = self.list()?;
        let has_path = |one: &Stored| self.own.owns(&one.owner());
        // Whatever it is called, and its machine: what was made at this path tells which directories there are.
        let path = |source: &str| named::split(source).1.to_owned();
        let has_any = |one: &Stored| path(&one.owner().source_dir) == path(&self.own.source_dir);
        let mut said = Evidence::default();
        for one in all.iter().filter(|one| one.listed.damage.is_none() && (has_path(one) || has_any(one))) {
            let to = if has_path(one) { &mut said.here } else { &mut said.elsewhere };
            to.push((one.listed.whose, one.listed.created_ms));
        }
        // What the application put there says no machine: of another with the path it may be as well.
        let is_other = |one: &Stored| !one.owner().machine.is_empty() && !has_path(one) && has_any(one);
        let mut known = which.known.clone();
        known.is_named_beside |= all.iter().any(is_other);
        let owns: Box<dyn Fn(Whose, Option<i64>) -> bool> =
            if which.as_one { Box::new(known.owns_as_one(&said)) } else { Box::new(known.owns(&said)) };
        let is_own = |one: &Stored| has_path(one) && owns(one.listed.whose, one.listed.created_ms);
        let mut owners: BTreeMap<(Owner, Whose), Vec<&Stored>> = BTreeMap::new();
        let (asked, others): (Vec<&Stored>, Vec<&Stored>) = all.iter().partition(|one| which.every || is_own(one));
        for one in asked {
            let whose = if is_own(one) { Whose::Of(which.known.own) } else { one.listed.whose };
            owners.entry((one.owner(), whose)).or_default().push(one);
        }
        let left = others.into_iter().filter(|one| has_path(one) && one.listed.is_past(days, now_ms)).count();
        let mut decided: Vec<(&Stored, Decision)> = Vec::new();
        for stored in owners.into_values() {
            let listed: Vec<Listed> = stored.iter().map(|one| one.listed.clone()).collect();
            // The newest that has all its files there, by what Drive says of them, and better a complete one. Without
            // one, none goes.
            let mut good = None;
            let readable = stored.iter().rev().filter(|one| one.listed.damage.is_none());
            let (complete, others): (Vec<_>, Vec<_>) = readable.partition(|one| one.listed.lacks.count == 0);
            for one in complete.into_iter().chain(others) {
                match self.verify(one) {
                    Ok(()) => {
                        good = Some(one.listed.name.as_str());
                        break;
                    }
                    Err(error) if error.is_integrity() => {}
                    Err(error) => return Err(error),
                }
            }
            let days = if good.is_some() { days } else { 0 };
            decided.extend(stored.into_iter().zip(retention::plan(&listed, days, now_ms, good)));
        }
        for (one, _) in decided.iter().filter(|(_, decision)| !decision.keep && !dry_run) {
            // Without its manifest it is no backup any more, however the rest ends.
            for manifest in self.drive.named(&one.id, MANIFEST)? {
                self.drive.delete(&manifest.id)?;
            }
            self.drive.delete(&one.id)?;
        }
        decided.sort_by(|(_, one), (_, other)| one.name.cmp(&other.name));
        Ok((decided.into_iter().map(|(one, decision)| (one.machine.clone(), decision)).collect(), left))
    }

    /// What is not as it should be with a backup there, by its manifest and by what Drive says of its files: nothing is
    /// downloaded but the manifest.
    pub fn verify(&self, stored: &Stored) -> Result<()> {
        self.plan(stored).map(drop)
    }
}

/// Those of `all`, which have this machine's name and path, that are this directory's. If none is, all of them, as long
/// as they are of one directory: of which of several, a person has to say.
fn of_this_one(all: Vec<Stored>, by: &Choice<'_>) -> Result<Vec<Stored>> {
    let whose: BTreeSet<Whose> = all.iter().map(|one| one.listed.whose).collect();
    let here = all.iter().map(|one| (one.listed.whose, one.listed.created_ms)).collect();
    let owns = by.known.clone().owns(&Evidence { here, ..Evidence::default() });
    let (own, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| owns(one.listed.whose, WHENEVER));
    if !own.is_empty() || whose.len() <= 1 {
        return Ok(if own.is_empty() { others } else { own });
    }
    let of_each = whose.into_iter().filter_map(|it| {
        let its: Vec<Stored> = others.iter().filter(|one| one.listed.whose == it).cloned().collect();
        Some(newest_in(&its, by)?.0.in_words())
    });
    let ids = of_each.collect::<Vec<_>>().join(", ");
    Err(Error::usage(
        "the backups of this path in Google Drive are of several data directories, and none is this one's",
    )
    .hint(format!("name one by its id: {ids}")))
}

/// The newest of those of one machine, as [`newest_of`] has it; and what is to be said of the choice.
fn newest_in(all: &[Stored], by: &Choice<'_>) -> Option<(Stored, Vec<String>)> {
    let (order, now) = (by.order, by.now_ms);
    let listed: Vec<Listed> = all.iter().map(|one| one.listed.clone()).collect();
    let found = newest_of(&listed, &|_| true, now, order);
    let at = found.whole.and_then(|whole| listed.iter().position(|one| std::ptr::eq(one, whole)))?;
    Some((all[at].clone(), remarks(&found, now)))
}

/// Does `act` for each of `items`, some at a time, until one fails.
pub(super) fn at_once<T: Sync>(items: &[T], act: &(dyn Fn(&T) -> Result<()> + Sync)) -> Result<()> {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(None::<Error>));
    let has_failed = || failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                while !has_failed()
                    && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                {
                    if let Err(error) = act(item) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
