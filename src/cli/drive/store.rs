//! `gdrive`: the store itself, to Google Drive and back.
//!
//! A store here that does not open is never mixed with one from there, whatever keeps it from opening.

use std::collections::HashSet;
use std::path::Path;

use serde_json::json;

use super::Line;
use crate::cli::args::{PushArgs, RateArgs, StoreCopy};
use crate::cli::context::Context;
use crate::cli::output::{self, count, line, size};
use crate::drive::mirror::pull::pull;
use crate::drive::mirror::push::{Order, push, unprotected};
use crate::drive::mirror::{DriveObjects, Moved, stores};
use crate::error::{Error, Result};
use crate::id::{PackId, StoreId};
use crate::snapshot::progress::Progress;
use crate::snapshot::store::{Access, Store};
use crate::store::local::LocalDirectory;
use crate::store::lock::WriterLock;
use crate::store::objects::{Key, Kind, Objects};
use crate::store::pack::{HEADER, Header};

/// `gdrive`.
pub fn copy_store(context: &Context, action: &StoreCopy) -> Result<u8> {
    match action {
        StoreCopy::Push(args) => push_store(context, args),
        StoreCopy::Pull { store, rate } => pull_store(context, store.as_deref(), rate),
    }
}

/// What went, in words or as JSON.
fn tell(context: &Context, store: StoreId, what: &str, moved: &Moved) {
    if context.json {
        output::json(&json!({
            "store": store.to_string(), "objects": moved.objects, "bytes": moved.bytes, "kept": moved.kept,
            "replaced": moved.replaced, "removed": moved.removed, "extra": moved.extra, "differ": moved.differ,
        }));
        return;
    }
    let more = |number: u64, what: &str| if number > 0 { format!(", {number} {what}") } else { String::new() };
    line(format!(
        "{what}: {} of {}, {} were there already{}{}",
        count(moved.objects, "object", "objects"),
        size(moved.bytes),
        moved.kept,
        more(moved.replaced, "replaced"),
        more(moved.removed, "removed"),
    ));
}

fn push_store(context: &Context, args: &PushArgs) -> Result<u8> {
    let store = context.open()?;
    if store.is_unprotected() {
        return Err(unprotected());
    }
    let index = store.catalog().index();
    let damage = store.losses().or_else(|| index.unreadable().first().map(|(_, why)| why.clone()));
    if let Some(damage) = damage {
        return Err(Error::integrity(format!("a store that has lost something is not pushed: {damage}"))
            .hint("run `nbak repair` first"));
    }
    let line_ = Line::open(context, &args.rate)?;
    let with_records: HashSet<PackId> = index.packs_with_records().collect();
    // By their numbers, and after them those that have none yet.
    let mut packs = index.numbered(index.counted());
    let known: HashSet<PackId> = packs.iter().copied().collect();
    packs.extend(index.packs().map(|(id, _)| id).filter(|id| !known.contains(id)));
    let (records, data) = packs.into_iter().partition(|pack| with_records.contains(pack));
    let order = Order { data, records, compare: args.read_data, prune: args.prune };
    let there = DriveObjects::open(&line_.drive, &line_.sessions, store.id())?;
    let bars = context.bars();
    bars.begin("pushing", index.packs().map(|(_, size)| size).sum());
    let moved = push(store.catalog().packs(), &there, &order, &|bytes| bars.advance(bytes));
    bars.end();
    let moved = moved?;
    tell(context, store.id(), &format!("pushed store {} to Google Drive", store.id()), &moved);
    if moved.extra > 0 {
        context.say(format!(
            "{} there are not in this store any more: `nbak gdrive push --prune` removes them",
            count(moved.extra, "pack", "packs")
        ));
    }
    Ok(0)
}

/// Which store is at `repo`, as far as that can be told; none if nothing is there. `Err` if what is there does not
/// open, and is not the beginning of an earlier pull: nothing of another store may come in between.
fn own_store(context: &Context, repo: &Path) -> Result<(Option<StoreId>, Option<Store>)> {
    match Store::open(repo, &context.credentials()?, Access::Read) {
        Ok(store) => return Ok((Some(store.id()), Some(store))),
        Err(error) if error.is_no_store() => return Ok((None, None)),
        Err(error) if LocalDirectory::at(repo).list(Kind::Slot)?.is_empty() => drop(error),
        Err(error) => return Err(error),
    }
    // Packs without a key slot say whose they are.
    let local = LocalDirectory::at(repo);
    let mut own = None;
    for id in local.list(Kind::Pack)? {
        let key = Key::new(Kind::Pack, id);
        let Ok(header) = Header::decode(&local.get_range(key, 0, HEADER)?) else { continue };
        if own.is_some_and(|own| own != header.store) {
            return Err(Error::integrity("packs of several stores are here").at(local.place(key)));
        }
        own = Some(header.store);
    }
    Ok((own, None))
}

fn pull_store(context: &Context, wanted: Option<&str>, rate: &RateArgs) -> Result<u8> {
    let repo = context.repo()?;
    let line_ = Line::open(context, rate)?;
    let there = stores(&line_.drive)?;
    let (own, store) = own_store(context, &repo)?;
    let id = which(wanted, own, &there)?;
    if own.is_some_and(|own| own != id) {
        return Err(Error::usage("another store is here").at(repo).hint("name another place with --repo"));
    }
    let from = DriveObjects::open(&line_.drive, &line_.sessions, id)?;
    let local = LocalDirectory::at(&repo);
    local.create()?;
    let _lock = WriterLock::acquire(&repo, context.patience())?;
    let bars = context.bars();
    bars.begin("pulling", from.size_of_all());
    let keys = store.as_ref().map(|store| store.catalog().packs().keys());
    let moved = pull(&from, id, keys, &local, &|bytes| bars.advance(bytes));
    bars.end();
    let moved = moved?;
    tell(context, id, &format!("pulled store {id} to {}", repo.display()), &moved);
    if moved.differ > 0 {
        output::warning(format!(
            "{} in Google Drive differ from those here, which are sound: `nbak gdrive push --read-data` replaces them",
            count(moved.differ, "object", "objects")
        ));
    }
    if !context.json {
        line("`nbak check --read-data` proves it, `nbak restore latest --in-place` restores it");
    }
    Ok(0)
}

/// Which of the stores `there` is meant.
fn which(wanted: Option<&str>, own: Option<StoreId>, there: &[StoreId]) -> Result<StoreId> {
    let names = || there.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let missing = |which: &str| Error::no_store(format!("there is no store {which} in Google Drive")).hint(names());
    if let Some(wanted) = wanted {
        return StoreId::parse(wanted).ok().filter(|id| there.contains(id)).ok_or_else(|| missing(wanted));
    }
    match (own, there) {
        (Some(own), _) if there.contains(&own) => Ok(own),
        (Some(own), _) => Err(missing(&own.to_string())),
        (None, [one]) => Ok(*one),
        (None, []) => {
            Err(Error::no_store("there is no store in Google Drive").hint("`nbak gdrive push` puts it there"))
        }
        (None, _) => {
            Err(Error::usage("there are several stores in Google Drive").hint(format!("--store: {}", names())))
        }
    }
}
