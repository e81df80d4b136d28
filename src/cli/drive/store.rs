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
use crate::drive::mirror::pull::{Onto, look, pull};
use crate::drive::mirror::push::{Order, SLOT_MOST, push, unprotected};
use crate::drive::mirror::{Moved, stores};
use crate::error::{Error, Result};
use crate::export::files::sync_folder;
use crate::id::{PackId, StoreId};
use crate::snapshot::progress::Progress;
use crate::snapshot::store::{Access, Store, UNFINISHED, UNFINISHED_NEXT, UNFINISHED_WHAT, retired};
use crate::source::own::make_room;
use crate::store::local::LocalDirectory;
use crate::store::lock::WriterLock;
use crate::store::objects::{Key, Kind, Objects};
use crate::store::pack::{HEADER, Header};
use crate::upkeep::whole::{is_news, require_present, require_whole};

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
            "replaced": moved.replaced, "removed": moved.removed, "extra": moved.extra,
            "unknown": moved.unknown, "differ": moved.differ,
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

/// Packs that were here when the store was pushed or pulled: what of them is not here any more was thrown away here.
const KNOWN: &str = ".nbak-state/drive-known";

/// What is noted at `path` of the store `id`.
fn read_noted(path: &Path, id: StoreId) -> BTreeSet<PackId> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some(&id.to_string()) {
        return BTreeSet::new();
    }
    lines.filter_map(|line| PackId::parse(line).ok()).collect()
}

/// Notes it. What is lost of that costs another look, or a week until something is removed there.
fn note(path: &Path, id: StoreId, packs: &BTreeSet<PackId>) {
    let names = std::iter::once(id.to_string()).chain(packs.iter().map(ToString::to_string));
    let _ = make_room(path);
    let _ = std::fs::write(path, names.collect::<Vec<_>>().join("\n"));
}

/// Notes what is `here`, beside what was and is still `there`.
fn note_known(path: &Path, here: &dyn Objects, there: &dyn Objects, id: StoreId) -> Result<()> {
    let list = |objects: &dyn Objects| objects.list(Kind::Pack).map(|all| all.into_iter().map(PackId));
    let there: BTreeSet<PackId> = list(there)?.collect();
    let mut known = read_noted(path, id);
    known.retain(|pack| there.contains(pack));
    known.extend(list(here)?);
    note(path, id, &known);
    Ok(())
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
    if store.awaits_pull() {
        return Err(Error::failed(UNFINISHED_WHAT).at(store.root()).hint(UNFINISHED_NEXT));
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
    let mut judged = read_noted(&judged_at, store.id());
    let known_at = context.data_dir()?.join(KNOWN);
    let known = read_noted(&known_at, store.id());
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
        known: &known,
    };
    let there = line_.store(store.id())?;
    let bars = context.bars();
    bars.begin("pushing", index.packs().map(|(_, size)| size).sum());
    let moved = push(store.catalog().packs(), &there, &mut order, &|bytes| bars.advance(bytes));
    bars.end();
    note(&judged_at, store.id(), &judged);
    let moved = moved?;
    note_known(&known_at, &**store.objects(), &there, store.id())?;
    for slot in &moved.retired {
        output::warning(format!(
            "key slot {} was removed by another machine, and is not pushed: `nbak key remove {}` removes it here too",
            slot.short(),
            slot.short()
        ));
    }
    tell(context, store.id(), &format!("pushed store {} to Google Drive", store.id()), &moved);
    if moved.extra > 0 && args.prune {
        context.say(format!(
            "{} there for less than a week, and never in this store: another machine's push may not have ended",
            count(moved.extra, "pack is", "packs are")
        ));
    } else if moved.extra > 0 {
        context.say(format!(
            "{} in this store: `nbak gdrive push --prune` removes what was thrown away here",
            count(moved.extra, "pack there is not", "packs there are not")
        ));
    }
    if moved.unknown > 0 {
        output::warning(format!(
            "{} in Google Drive cannot be read, and nothing here knows of it: look there, and remove it by hand",
            count(moved.unknown, "object with a pack's name", "objects with packs' names")
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
    // Slots that are all damaged are as good as none: those there take their place.
    let no_slot = || -> Result<bool> {
        let parses = |id: &[u8; 16]| {
            let bytes = local.get(Key::new(Kind::Slot, *id), SLOT_MOST);
            bytes.is_ok_and(|bytes| Slot::parse(&bytes).is_ok())
        };
        Ok(!local.list(Kind::Slot)?.iter().any(parses))
    };
    match Store::open(repo, &context.credentials()?, Access::Read) {
        Ok(store) => return Ok(Here { id: Some(store.id()), store: Some(store), begins }),
        Err(error) if error.is_no_store() => return Ok(Here { id: None, store: None, begins }),
        Err(_) if begins || no_slot()? => {}
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
                local.get(key, SLOT_MOST).ok().and_then(|bytes| Slot::parse(&bytes).ok()).map(|slot| slot.store)
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
    let first = here(context, &repo)?;
    let id = which(wanted, first.id, &there, &opens)?;
    // What opens here needs no key from there.
    let credentials = if first.store.is_some() { Vec::new() } else { context.credentials()? };
    let keys = look(&line_.store(id)?, id, &credentials)?;
    drop(first);
    let local = LocalDirectory::at(&repo);
    local.create()?;
    let lock = WriterLock::acquire(&repo, context.patience())?;
    lock.sign();
    let local = local.locked(lock.held(&repo)?);
    let here = here(context, &repo)?;
    if which(wanted, here.id, &there, &opens)? != id {
        return Err(Error::failed("another store was made here meanwhile").at(repo).hint("run it again"));
    }
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
    let keys = here.store.as_ref().map(|store| store.catalog().packs().keys()).or(keys.as_ref());
    let onto = Onto { objects: &local, keys, opens: here.store.is_some(), begins, retired: retired(&repo) };
    let moved = pull(&from, id, &onto, &|bytes| bars.advance(bytes));
    bars.end();
    let moved = moved?;
    note_known(&context.data_dir()?.join(KNOWN), &local, &from, id)?;
    lock.held(&repo)?.check()?;
    if moved.bad.is_empty() && begins {
        std::fs::remove_file(&unfinished)
            .map_err(|error| Error::io("note that the pull has ended", &unfinished, error))?;
        sync_folder(&repo)?;
    }
    tell(context, id, &format!("pulled store {id} to {}", repo.display()), &moved);
    if moved.differ > 0 {
        output::warning(format!(
            "{} from those here, which are sound: `nbak gdrive push --read-data` replaces what differs",
            count(moved.differ, "object in Google Drive differs", "objects in Google Drive differ")
        ));
    }
    if let Some(first) = moved.bad.first() {
        moved.bad.iter().for_each(output::warning);
        let what =
            format!("{} could not be pulled; all else is here", count(moved.bad.len() as u64, "object", "objects"));
        if !moved.damaged {
            return Err(Error::remote(what).hint(format!("run it again: it goes on from here; the first was: {first}")));
        }
        return Err(Error::integrity(what).hint(format!(
            "`nbak check --read-data` says what that costs, and what is whole restores; the first was: {first}"
        )));
    }
    if keys.is_some() {
        let store = Store::open(&repo, &context.credentials()?, Access::Read)?;
        require_present(&store).map_err(|error| {
            error.also("all that Google Drive has of it is here").hint("`nbak check` names what is missing")
        })?;
    }
    if !context.json {
        output::advice(
            "with its vault key `nbak check --read-data` proves it, `nbak restore latest --in-place` restores it",
        );
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
        (Some(own), []) => Err(missing(&own.to_string()).hint("`nbak gdrive push` puts it there")),
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
