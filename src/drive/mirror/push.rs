//! What the store has and Drive has not.
//!
//! Packs with data alone come first, then those with snapshots' records, in their order and each after the one before,
//! then the key slots: whatever ends a push, what is there is a store in which every snapshot is whole, or none yet. As
//! long as no slot is there no order is needed, since nobody opens what is there.
//!
//! A pack goes only if all that is in it opens: a copy must not take over what is damaged here. What is sent are the
//! very bytes that were looked at.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::held::{footer, sound};
use super::{DriveObjects, Moved};
use crate::crypto::slot::{Method, Slot};
use crate::drive::backups::{Watch, at_once};
use crate::drive::sums::{Content, Sums};
use crate::error::{Error, Result};
use crate::id::{PackId, SlotId};
use crate::store::objects::{Key, Kind, Objects};
use crate::store::reader::Packs;
use crate::store::sink::PACK_MOST;

/// A key slot is at most this long, in bytes.
pub const SLOT_MOST: u64 = 64 * 1024;

/// What is to go.
pub struct Order<'a> {
    /// Packs with data alone.
    pub data: Vec<PackId>,
    /// Packs with records, the oldest first.
    pub records: Vec<PackId>,
    /// Whether to compare what is there already by its checksum, not only by its size.
    pub compare: bool,
    /// Removes packs there that are not here, if this agrees that nothing is missing here.
    pub prune: Option<&'a dyn Fn() -> Result<()>>,
    /// Whether records of a pack that is not here tell of something that this store does not know.
    pub is_news: &'a dyn Fn(&[Vec<u8>]) -> Result<bool>,
    /// Key slots that were removed here.
    pub retired: Vec<SlotId>,
    /// Packs there that were looked at before, and told of nothing new; what is found now is added.
    pub judged: &'a mut BTreeSet<PackId>,
    /// Packs that were here once: those of them that are not here any more were thrown away here.
    pub known: &'a BTreeSet<PackId>,
}

/// What is in no snapshot that is known here may be another machine's, whose push has not ended: it stays so long.
const PATIENCE_MS: i64 = 7 * 86_400_000;

/// Why a store without a key does not go.
pub fn unprotected() -> Error {
    Error::key("this store is not protected: who reads it in Google Drive could read all that is in it")
        .hint("set NODYN_VAULT_KEY, run `nbak key rotate`, then push")
}

/// Copies what `to` has not yet, as `order` says.
pub fn push(from: &Packs, to: &DriveObjects<'_>, order: &mut Order<'_>, watch: Watch<'_>) -> Result<Moved> {
    let here = from.objects();
    let slots = slots(&**here)?;
    keeps_a_key(&slots, to, &order.retired)?;
    let own: BTreeSet<[u8; 16]> = here.list(Kind::Pack)?.into_iter().collect();
    let unknown = look_at_others(from, to, order, &own)?;
    let moved = Mutex::new(Moved::default());
    let pack = |id: &PackId| one_pack(from, to, *id, order.compare, &moved, watch);
    at_once(&order.data, &pack)?;
    let together = if to.list(Kind::Slot)?.is_empty() { order.records.len().max(1) } else { 1 };
    order.records.chunks(together).try_for_each(|some| at_once(some, &pack))?;
    // A slot that was removed here must not open the copy there; one that another machine removed does not come back.
    let mut removed = 0;
    for id in &order.retired {
        removed += u64::from(to.retire(id.0)?);
    }
    let (gone, slots): (Vec<_>, Vec<_>) = slots.into_iter().partition(|(key, _)| to.is_retired(key.id));
    at_once(&slots, &|(key, bytes): &(Key, Vec<u8>)| {
        let sums = Sums::of(bytes)?;
        put(to, *key, bytes, to.holds(*key, bytes.size(), Some(&sums)), &moved)
    })?;
    let sent = order.data.iter().chain(&order.records).map(|id| Key::new(Kind::Pack, id.0));
    to.require(sent.chain(slots.iter().map(|(key, _)| *key)))?;
    let mut moved = moved.into_inner().unwrap_or_else(PoisonError::into_inner);
    moved.removed += removed;
    moved.retired = gone.into_iter().map(|(key, _)| SlotId(key.id)).collect();
    let extra = to.in_order(Kind::Pack).into_iter().map(PackId).filter(|id| !own.contains(&id.0));
    let (bad, extra): (Vec<_>, Vec<_>) = extra.partition(|id| unknown.contains(id));
    (moved.unknown, moved.extra) = (bad.len() as u64, extra.len() as u64);
    if let Some(agrees) = order.prune.filter(|_| !extra.is_empty()) {
        agrees()?;
        // What came while this one was pushing may need what is about to go.
        look_at_others(from, &to.again()?, order, &own)?;
        let newest = to.newest().unwrap_or(0);
        let is_old = |id: &PackId| to.came(Key::new(Kind::Pack, id.0)).is_some_and(|at| at + PATIENCE_MS < newest);
        // The newest first: what refers to others came after them.
        for id in extra.into_iter().rev().filter(|id| order.known.contains(id) || is_old(id)) {
            to.delete(Key::new(Kind::Pack, id.0))?;
            moved.removed += 1;
            moved.extra -= 1;
        }
    }
    Ok(moved)
}

/// Fails if, after this push, no key would open the copy: two machines have each removed the other's.
fn keeps_a_key(slots: &[(Key, Vec<u8>)], to: &DriveObjects<'_>, retired: &[SlotId]) -> Result<()> {
    let stays = |id: [u8; 16]| !to.is_retired(id) && !retired.contains(&SlotId(id));
    if slots.iter().any(|(key, _)| stays(key.id)) || to.in_order(Kind::Slot).into_iter().any(stays) {
        return Ok(());
    }
    Err(Error::failed(
        "no key would open the copy in Google Drive: another machine removed the key slots of this store",
    )
    .at(to.root_place())
    .hint("`nbak key rotate` makes a new one here; then push. Nothing in Google Drive was touched"))
}

/// Looks at packs there that are not here. If one tells of something that this store does not know, the copy is ahead
/// of it, and nothing is pushed: an older copy of the store, or another machine's, would undo what is there. Answers
/// with those that cannot be read.
fn look_at_others(
    from: &Packs,
    to: &DriveObjects<'_>,
    order: &mut Order<'_>,
    own: &BTreeSet<[u8; 16]>,
) -> Result<BTreeSet<PackId>> {
    let mut unknown = BTreeSet::new();
    let others = to.in_order(Kind::Pack).into_iter().filter(|id| !own.contains(id)).map(PackId);
    for id in others.filter(|id| !order.judged.contains(id)).collect::<Vec<_>>() {
        let judged = footer(from.keys(), id, to).and_then(|footer| (order.is_news)(&footer.records));
        match judged {
            Ok(false) => drop(order.judged.insert(id)),
            Ok(true) => {
                return Err(Error::failed("the copy in Google Drive has something that this store does not know of")
                    .hint("run `nbak gdrive pull` first: this store is older, or another machine pushed to it too"));
            }
            Err(error) if error.is_integrity() => drop(unknown.insert(id)),
            Err(error) => return Err(error),
        }
    }
    Ok(unknown)
}

/// The key slots, none of which may be one that anybody opens.
fn slots(here: &dyn Objects) -> Result<Vec<(Key, Vec<u8>)>> {
    let mut slots = Vec::new();
    for id in here.list(Kind::Slot)? {
        let key = Key::new(Kind::Slot, id);
        let bytes = here.get(key, SLOT_MOST)?;
        let slot = Slot::parse(&bytes).map_err(|error| Error::integrity(error.to_string()).at(here.place(key)))?;
        if slot.method == Method::Open {
            return Err(unprotected());
        }
        slots.push((key, bytes));
    }
    Ok(slots)
}

fn one_pack(
    from: &Packs,
    to: &DriveObjects<'_>,
    id: PackId,
    compare: bool,
    moved: &Mutex<Moved>,
    watch: Watch<'_>,
) -> Result<()> {
    let (here, key) = (from.objects(), Key::new(Kind::Pack, id.0));
    let size = here.size(key)?;
    let is_there = to.holds(key, size, None);
    if is_there && !compare {
        moved.lock().unwrap_or_else(PoisonError::into_inner).kept += 1;
        watch(size);
        return Ok(());
    }
    let bytes = sound(from.keys(), id, here.get(key, PACK_MOST)?, here.place(key)).map_err(|error| {
        error.hint(
            "what is damaged is not pushed; `nbak gdrive pull` brings back what is sound there, then `nbak repair`",
        )
    })?;
    let is_same = is_there && to.holds(key, size, Some(&Sums::of(&*bytes)?));
    put(to, key, &*bytes, is_same, moved)?;
    watch(size);
    Ok(())
}

fn put(to: &DriveObjects<'_>, key: Key, bytes: &dyn Content, is_there: bool, moved: &Mutex<Moved>) -> Result<()> {
    let is_other = !is_there && to.size(key).is_ok();
    if !is_there {
        to.replace(key, bytes)?;
    }
    let mut moved = moved.lock().unwrap_or_else(PoisonError::into_inner);
    moved.kept += u64::from(is_there);
    moved.replaced += u64::from(is_other);
    moved.objects += u64::from(!is_there);
    moved.bytes += if is_there { 0 } else { bytes.size() };
    Ok(())
}
