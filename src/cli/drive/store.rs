//! `gdrive`: the store itself, to Google Drive and back.
//!
//! A store here that does not open is never mixed with one from there, whatever keeps it from opening.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use serde_json::json;

use super::Line;
use crate::cli::args::{PushArgs, RateArgs, StoreCopy};
use crate::cli::context::Context;
use crate::cli::output::{self, count, iso, line, shown, size, time};
use crate::crypto::slot::Slot;
use crate::drive::mirror::pull::{Onto, pull};
use crate::drive::mirror::push::{Order, push, unprotected};
use crate::drive::mirror::{Moved, stores};
use crate::error::{Error, Result};
use crate::id::{PackId, StoreId};
use crate::snapshot::progress::Progress;
use crate::snapshot::store::{Access, Store, UNFINISHED, retired};
use crate::source::own::make_room;
use crate::store::local::LocalDirectory;
use crate::store::lock::WriterLock;
use crate::store::objects::{Key, Kind, Objects};
use crate::store::pack::{HEADER, Header};
use crate::upkeep::whole::{is_news, require_whole};

/// `gdrive`.
pub fn copy_store(context: &Context, action: &StoreCopy) -> Result<u8> {
    match action {
        StoreCopy::List => list_stores(context),
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
            "bad": moved.bad,
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

/// Packs in Drive that were looked at, and told of nothing new: in the data directory.
const JUDGED: &str = ".nbak-state/drive-judged";

/// Those of the store `id`.
fn read_judged(path: &Path, id: StoreId) -> BTreeSet<PackId> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some(&id.to_string()) {
        return BTreeSet::new();
    }
    lines.filter_map(|line| PackId::parse(line).ok()).collect()
}

fn list_stores(context: &Context) -> Result<u8> {
    let line_ = Line::open(context, &RateArgs::default())?;
    let all = stores(&line_.drive)?;
    for (id, machine) in &all {
        let there = line_.store(*id)?;
        let (packs, bytes, newest) = (there.list(Kind::Pack)?.len() as u64, there.size_of_all(), there.newest());
        let opens = !there.list(Kind::Slot)?.is_empty();
        if context.json {
            output::json(&json!({
                "store": id.to_string(), "packs": packs, "bytes": bytes, "newest": newest.map(iso), "complete": opens,
                "machine": Some(machine).filter(|machine| !machine.is_empty()),
            }));
            continue;
        }
        line(format!(
            "{id}  {:>9} in {}, the newest of {}{}{}",
            size(bytes),
            count(packs, "pack", "packs"),
            newest.map_or_else(|| "-".to_owned(), time),
            if machine.is_empty() { String::new() } else { format!(", of {}", shown(machine)) },
            if opens { "" } else { "; incomplete: its first push has not ended" }
        ));
    }
    if all.is_empty() && !context.json {
        context.say("there is no store in Google Drive: `nbak gdrive push` puts it there");
    }
    Ok(0)
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
            .hint("`nbak gdrive pull` brings back what is in Google Drive; then `nbak repair`, if need be"));
    }
    let line_ = Line::open(context, &args.rate)?;
    let with_records: HashSet<PackId> = index.packs_with_records().collect();
    // By their numbers, and after them those that have none yet.
    let mut packs = index.numbered(index.counted());
    let known: HashSet<PackId> = packs.iter().copied().collect();
    packs.extend(index.packs().map(|(id, _)| id).filter(|id| !known.contains(id)));
    let (records, data) = packs.into_iter().partition(|pack| with_records.contains(pack));
    let judged_at = context.data_dir()?.join(JUDGED);
    let mut judged = read_judged(&judged_at, store.id());
    let agrees = || {
        require_whole(&store).map_err(|error| {
            error.hint("nothing is removed in Google Drive; `nbak gdrive pull` brings back what is there")
        })
    };
    let mut order = Order {
        data,
        records,
        compare: args.read_data,
        prune: args.prune.then_some(&agrees),
        is_news: &|records| is_news(&store, records),
        retired: retired(store.root()),
        judged: &mut judged,
    };
    let there = line_.store(store.id())?;
    let bars = context.bars();
    bars.begin("pushing", index.packs().map(|(_, size)| size).sum());
    let moved = push(store.catalog().packs(), &there, &mut order, &|bytes| bars.advance(bytes));
    bars.end();
    // If not, they are looked at again.
    let names = std::iter::once(store.id().to_string()).chain(judged.iter().map(ToString::to_string));
    let _ = make_room(&judged_at);
    let _ = std::fs::write(&judged_at, names.collect::<Vec<_>>().join("\n"));
    let moved = moved?;
    for slot in &moved.retired {
        output::warning(format!(
            "key slot {} was removed by another machine, and is not pushed: `nbak key remove {}` removes it here too",
            slot.short(),
            slot.short()
        ));
    }
    tell(context, store.id(), &format!("pushed store {} to Google Drive", store.id()), &moved);
    if moved.extra > 0 {
        context.say(format!(
            "{} there are not in this store any more: `nbak gdrive push --prune` removes them",
            count(moved.extra, "pack", "packs")
        ));
    }
    Ok(0)
}

/// What is at `repo`.
struct Here {
    /// Which store, as far as that can be told; none if nothing is there.
    id: Option<StoreId>,
    /// The store, if it opens.
    store: Option<Store>,
    /// Whether all that is there came from a pull that did not end.
    begins: bool,
}

/// What is at `repo`. `Err` if it does not open, and is not the beginning of an earlier pull: nothing of another store
/// may come in between.
fn here(context: &Context, repo: &Path) -> Result<Here> {
    let local = LocalDirectory::at(repo);
    let begins = repo.join(UNFINISHED).exists();
    match Store::open(repo, &context.credentials()?, Access::Read) {
        Ok(store) => return Ok(Here { id: Some(store.id()), store: Some(store), begins }),
        Err(error) if error.is_no_store() => return Ok(Here { id: None, store: None, begins }),
        Err(_) if begins || local.list(Kind::Slot)?.is_empty() => {}
        Err(error) => return Err(error),
    }
    // Objects say whose they are.
    let mut id = None;
    for (kind, name) in [Kind::Slot, Kind::Pack]
        .into_iter()
        .flat_map(|kind| local.list(kind).unwrap_or_default().into_iter().map(move |name| (kind, name)))
    {
        let key = Key::new(kind, name);
        let owner = match kind {
            Kind::Slot => {
                local.get(key, 64 * 1024).ok().and_then(|bytes| Slot::parse(&bytes).ok()).map(|slot| slot.store)
            }
            Kind::Pack => {
                let head = local.get_range(key, 0, HEADER).ok();
                head.and_then(|head| Header::decode(&head).ok()).map(|header| header.store)
            }
        };
        if owner.is_some() && id.is_some() && id != owner {
            return Err(Error::integrity("objects of several stores are here").at(local.place(key)));
        }
        id = id.or(owner);
    }
    if id.is_none() && !begins {
        return Err(Error::integrity("a store was here, of which nothing is left that says which it was")
            .at(repo)
            .hint("move this folder away, or name another place with --repo; then pull"));
    }
    Ok(Here { id, store: None, begins })
}

fn pull_store(context: &Context, wanted: Option<&str>, rate: &RateArgs) -> Result<u8> {
    let repo = context.repo()?;
    let line_ = Line::open(context, rate)?;
    let there: Vec<StoreId> = stores(&line_.drive)?.into_keys().collect();
    let opens = |id: StoreId| Ok(!line_.store(id)?.list(Kind::Slot)?.is_empty());
    // Before anything is made here; and again when nobody else can make something.
    which(wanted, here(context, &repo)?.id, &there, &opens)?;
    let local = LocalDirectory::at(&repo);
    local.create()?;
    let lock = WriterLock::acquire(&repo, context.patience())?;
    lock.sign();
    let here = here(context, &repo)?;
    let id = which(wanted, here.id, &there, &opens)?;
    if here.id.is_some_and(|own| own != id) {
        return Err(Error::usage("another store is here").at(repo).hint("name another place with --repo"));
    }
    let begins = here.begins || here.id.is_none();
    let unfinished = repo.join(UNFINISHED);
    if begins {
        crate::export::files::write_durably(&unfinished, id.to_string().as_bytes())?;
    }
    let from = line_.store(id)?;
    let bars = context.bars();
    bars.begin("pulling", from.size_of_all());
    let keys = here.store.as_ref().map(|store| store.catalog().packs().keys());
    let onto = Onto { objects: &local, keys, begins, retired: retired(&repo) };
    let moved = pull(&from, id, &onto, &|bytes| bars.advance(bytes));
    bars.end();
    let moved = moved?;
    if moved.bad.is_empty() && begins {
        std::fs::remove_file(&unfinished)
            .map_err(|error| Error::io("note that the pull has ended", &unfinished, error))?;
    }
    tell(context, id, &format!("pulled store {id} to {}", repo.display()), &moved);
    if moved.differ > 0 {
        output::warning(format!(
            "{} in Google Drive differ from those here, which are sound: `nbak gdrive push --read-data` replaces them",
            count(moved.differ, "object", "objects")
        ));
    }
    if let Some(first) = moved.bad.first() {
        moved.bad.iter().for_each(output::warning);
        let what =
            format!("{} could not be pulled; all else is here", count(moved.bad.len() as u64, "object", "objects"));
        return Err(Error::integrity(what).hint(format!(
            "`nbak check --read-data` says what that costs, and what is whole restores; the first was: {first}"
        )));
    }
    if !context.json {
        line("with its vault key `nbak check --read-data` proves it, `nbak restore latest --in-place` restores it");
    }
    Ok(0)
}

/// Which of the stores `there` is meant. One whose first push has not ended does not open, and is in nobody's way.
fn which(
    wanted: Option<&str>,
    own: Option<StoreId>,
    there: &[StoreId],
    opens: &dyn Fn(StoreId) -> Result<bool>,
) -> Result<StoreId> {
    let names = || there.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let missing = |which: &str| Error::no_store(format!("there is no store {which} in Google Drive"));
    if let Some(wanted) = wanted {
        let begins = |id: &&StoreId| wanted.len() >= 4 && id.to_string().starts_with(&wanted.to_ascii_lowercase());
        return match there.iter().filter(begins).collect::<Vec<_>>().as_slice() {
            [one] => Ok(**one),
            [] => Err(missing(wanted).hint(format!("those there: {}", names()))),
            _ => Err(Error::usage(format!("several stores begin with {wanted}")).hint(names())),
        };
    }
    match (own, there) {
        (Some(own), _) if there.contains(&own) => Ok(own),
        (Some(own), _) => Err(missing(&own.to_string()).hint(format!(
            "that is the store on this machine; to pull another one ({}), move this one away first, or name another \
             place with --repo",
            names()
        ))),
        (None, [one]) => Ok(*one),
        (None, []) => {
            Err(Error::no_store("there is no store in Google Drive").hint("`nbak gdrive push` puts it there"))
        }
        (None, _) => {
            let mut whole = Vec::new();
            for id in there {
                if opens(*id)? {
                    whole.push(*id);
                }
            }
            match whole.as_slice() {
                [one] => Ok(*one),
                _ => Err(Error::usage("there are several stores in Google Drive")
                    .hint(format!("`nbak gdrive list` tells them apart; --store names one: {}", names()))),
            }
        }
    }
}
