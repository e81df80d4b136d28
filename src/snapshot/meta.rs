//! Trees and recipes in the store: whole or patched, by the id of their whole form.
//!
//! Stored bytes are a form byte and then either the whole form, or the base's id, the version's ordinal, and a patch
//! ([`chain`] says against which base). Whoever loads one gets it resolved and held against its id, so that a
//! patch that was applied wrongly, or a base that is not what it was, cannot pass (I4).
//!
//! A recipe of a large database takes a megabyte, and few of its bytes change: it is patched in place, and hashed
//! without its whole form being made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::chain;
use super::recipe::Recipe;
use super::tree::{Entry, Tree};
use crate::codec::{Malformed, Reader, put_varint};
use crate::crypto::keys::Keys;
use crate::error::{Error, Result};
use crate::id::{ChunkId, RecipeId, TreeId};
use crate::index::catalog::Catalog;
use crate::store::kept::Kept;
use crate::store::segment::Content;

/// The form bytes.
const WHOLE: u8 = 0;
const PATCH: u8 = 1;

/// What is stored in versions.
pub trait Versioned: Sized + Clone + PartialEq {
    /// Its id.
    type Id: Copy + Eq + std::hash::Hash + std::fmt::Display + Into<ChunkId>;
    /// The kind of segment that it goes to.
    const CONTENT: Content;
    /// What it is called in messages.
    const NAME: &'static str;
    /// The whole form.
    fn whole(&self) -> Vec<u8>;
    /// Reads the whole form.
    fn read(whole: &[u8]) -> Result<Self, Malformed>;
    /// What leads from `base` to `self`, if that is any use.
    fn patch_from(&self, base: &Self) -> Option<Vec<u8>>;
    /// What `patch` makes of `self`.
    fn patched(self, patch: &[u8]) -> Result<Self, Malformed>;
    /// What it takes in memory, in bytes.
    fn cost(&self) -> usize;
    /// Its id, and the length of its whole form.
    fn identify(&self, keys: &Keys) -> (Self::Id, usize);
    /// The id in a stored patch.
    fn id_from(bytes: [u8; 16]) -> Self::Id;
}

impl Versioned for Tree {
    type Id = TreeId;
    const CONTENT: Content = Content::Tree;
    const NAME: &'static str = "directory";

    fn whole(&self) -> Vec<u8> {
        self.encode()
    }

    fn read(whole: &[u8]) -> Result<Self, Malformed> {
        Tree::decode(whole)
    }

    fn patch_from(&self, base: &Self) -> Option<Vec<u8>> {
        Some(self.patch(base))
    }

    fn patched(self, patch: &[u8]) -> Result<Self, Malformed> {
        self.apply(patch)
    }

    fn cost(&self) -> usize {
        self.entries.iter().map(Entry::cost).sum()
    }

    fn identify(&self, keys: &Keys) -> (TreeId, usize) {
        let whole = self.encode();
        (keys.tree_id(&whole), whole.len())
    }

    fn id_from(bytes: [u8; 16]) -> TreeId {
        TreeId(bytes)
    }
}

impl Versioned for Recipe {
    type Id = RecipeId;
    const CONTENT: Content = Content::Recipe;
    const NAME: &'static str = "recipe";

    fn whole(&self) -> Vec<u8> {
        self.encode()
    }

    fn read(whole: &[u8]) -> Result<Self, Malformed> {
        Recipe::decode(whole)
    }

    fn patch_from(&self, base: &Self) -> Option<Vec<u8>> {
        self.patch(base)
    }

    fn patched(self, patch: &[u8]) -> Result<Self, Malformed> {
        self.apply(patch)
    }

    fn cost(&self) -> usize {
        // A length of its own for each takes another four.
        self.ids.len() * 20
    }

    fn identify(&self, keys: &Keys) -> (RecipeId, usize) {
        let mut length = 0;
        let id = keys.recipe_id_of(self.parts().inspect(|part| length += part.len()));
        (id, length)
    }

    fn id_from(bytes: [u8; 16]) -> RecipeId {
        RecipeId(bytes)
    }
}

/// One version, resolved.
#[derive(Debug, Clone)]
pub struct Version<T: Versioned> {
    /// Its id.
    pub id: T::Id,
    /// How many patches were made since a whole one.
    pub ordinal: u64,
    /// What it is.
    pub value: T,
    /// The version that the next one is made against, if it is another one, and was asked for ([`load_before`]).
    pub base: Option<Box<Version<T>>>,
}

/// How a version is stored.
pub enum Stored<'a, T: Versioned> {
    /// Whole.
    Whole(&'a [u8]),
    /// As a patch.
    Patch {
        /// Against this version.
        base: T::Id,
        /// Its ordinal.
        ordinal: u64,
        /// The patch.
        patch: &'a [u8],
    },
}

impl<'a, T: Versioned> Stored<'a, T> {
    /// Takes stored bytes apart.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            WHOLE => Ok(Stored::Whole(reader.take(reader.remaining())?)),
            PATCH => {
                let base = T::id_from(reader.array()?);
                let ordinal = reader.varint_up_to(chain::HIGHEST, "a version's ordinal is out of range")?;
                if ordinal == 0 {
                    return Err(Malformed("a patch has the ordinal of a whole version"));
                }
                Ok(Stored::Patch { base, ordinal, patch: reader.take(reader.remaining())? })
            }
            _ => Err(Malformed("it is stored in an unknown form: use a newer nbak")),
        }
    }
}

fn damaged<T: Versioned>(id: T::Id, why: &dyn std::fmt::Display) -> Error {
    Error::integrity(format!("{} {id} is damaged: {why}", T::NAME)).hint("run `nbak check` to see what is affected")
}

/// Versions that were loaded not long ago. Most are a patch on one of them, so that whoever loads all versions of a
/// store, the oldest first, applies about one patch for each.
pub struct Recent<T: Versioned> {
    kept: Kept<T::Id, Arc<Version<T>>>,
}

/// A version, and an earlier one.
pub type Loaded<T> = (Arc<Version<T>>, Option<Arc<Version<T>>>);

/// What [`Recent`] keeps, in bytes.
const RECENT: usize = 4 * 1024 * 1024;

impl<T: Versioned> Default for Recent<T> {
    fn default() -> Self {
        Recent { kept: Kept::up_to(RECENT) }
    }
}

impl<T: Versioned> Recent<T> {
    /// Loads the version `id`. What comes of a patch on an earlier version is held against its id as ever (I4).
    pub fn load(&mut self, catalog: &Catalog, id: T::Id) -> Result<Arc<Version<T>>> {
        Ok(self.load_from(catalog, id)?.0)
    }

    /// Loads the version `id`. With the earlier one that it was made from, if that was at hand: the two are much alike.
    pub fn load_from(&mut self, catalog: &Catalog, id: T::Id) -> Result<Loaded<T>> {
        if let Some(version) = self.kept.get(id) {
            return Ok((version, None));
        }
        let (version, from) = match self.patched(catalog, id) {
            Some((version, from)) => (version, Some(from)),
            None => (load(catalog, id)?, None),
        };
        let (cost, version) = (version.value.cost() + 256, Arc::new(version));
        self.kept.put(id, version.clone(), cost);
        Ok((version, from))
    }

    /// The version, if it is a patch on one that is at hand, or on a short chain to such a one; with that.
    fn patched(&self, catalog: &Catalog, id: T::Id) -> Option<(Version<T>, Arc<Version<T>>)> {
        let (mut patches, mut at, mut ordinal) = (Vec::new(), id, None);
        let base = loop {
            let bytes = catalog.chunk(T::CONTENT, at.into()).ok()?;
            let Ok(Stored::Patch { base, ordinal: own, .. }) = Stored::<T>::parse(&bytes) else { return None };
            ordinal = ordinal.or(Some(own));
            patches.push(bytes);
            if let Some(version) = self.kept.get(base) {
                break version;
            }
            if patches.len() >= chain::LONGEST {
                return None;
            }
            at = base;
        };
        let mut value = base.value.clone();
        for bytes in patches.iter().rev() {
            let Ok(Stored::Patch { patch, .. }) = Stored::<T>::parse(bytes) else { return None };
            value = value.patched(patch).ok()?;
        }
        let is_it = value.identify(catalog.packs().keys()).0 == id;
        let version = Version { id, ordinal: ordinal?, value, base: None };
        is_it.then_some((version, base))
    }
}

/// Loads the version `id`.
pub fn load<T: Versioned>(catalog: &Catalog, id: T::Id) -> Result<Version<T>> {
    load_and(catalog, id, false)
}

/// Loads the version `id`, and what the next one is made against: that lies on the way there.
pub fn load_before<T: Versioned>(catalog: &Catalog, id: T::Id) -> Result<Version<T>> {
    load_and(catalog, id, true)
}

/// Loads `id`, and what the next one is made against if there will be a `next`. If that fails, once more with whatever
/// copies lead to a whole one.
fn load_and<T: Versioned>(catalog: &Catalog, id: T::Id, next: bool) -> Result<Version<T>> {
    resolve(catalog, id, next, &|at: T::Id| catalog.chunk(T::CONTENT, at.into())).or_else(|error| {
        if !error.is_integrity() {
            return Err(error);
        }
        let mut chain = HashMap::new();
        if !lead_to_whole::<T>(catalog, id, &mut chain, &mut HashSet::new()) {
            return Err(error);
        }
        let found = |at: T::Id| chain.get(&at.into()).cloned().ok_or_else(|| damaged::<T>(at, &"it is not there"));
        resolve(catalog, id, next, &found).map_err(|_| error)
    })
}

/// Finds for `id`, and for all that it then rests on, the copy to take: a version may be there whole here and as a
/// patch there, and two may be patches against each other. `tried` are those that were looked at on the way.
fn lead_to_whole<T: Versioned>(
    catalog: &Catalog,
    id: T::Id,
    chain: &mut HashMap<ChunkId, Vec<u8>>,
    tried: &mut HashSet<ChunkId>,
) -> bool {
    if tried.len() > chain::LONGEST || !tried.insert(id.into()) {
        return false;
    }
    let mut copies = catalog.copies(T::CONTENT, id.into());
    copies.sort_by_key(|bytes| bytes.first() != Some(&WHOLE));
    for bytes in copies {
        let leads = match Stored::<T>::parse(&bytes) {
            Ok(Stored::Whole(_)) => true,
            Ok(Stored::Patch { base, .. }) => lead_to_whole::<T>(catalog, base, chain, tried),
            Err(_) => false,
        };
        if leads {
            chain.insert(id.into(), bytes);
            return true;
        }
    }
    false
}

fn resolve<T: Versioned>(
    catalog: &Catalog,
    id: T::Id,
    next: bool,
    fetch: &dyn Fn(T::Id) -> Result<Vec<u8>>,
) -> Result<Version<T>> {
    // The patches on the way to a whole version, with what each of them makes.
    let mut patches: Vec<(T::Id, u64, Vec<u8>)> = Vec::new();
    let mut at = id;
    let mut value = loop {
        let bytes = fetch(at)?;
        let (base, ordinal) = match Stored::<T>::parse(&bytes).map_err(|e| damaged::<T>(at, &e))? {
            Stored::Whole(whole) => break T::read(whole).map_err(|e| damaged::<T>(at, &e))?,
            Stored::Patch { base, ordinal, .. } => (base, ordinal),
        };
        if patches.len() >= chain::LONGEST {
            return Err(damaged::<T>(id, &"its chain of patches is longer than the format allows"));
        }
        patches.push((at, ordinal, bytes));
        at = base;
    };
    let keys = catalog.packs().keys();
    let ordinal = patches.first().map_or(0, |(_, ordinal, _)| *ordinal);
    // A chain lacks the version that the next one should be made against if one was stored anew meanwhile. One that is
    // not what its id says is of no use either.
    let far = (next && ordinal < chain::HIGHEST).then(|| chain::base_of(ordinal + 1)).filter(|far| *far != ordinal);
    let mut base = None;
    let mut keep = |id: T::Id, ordinal: u64, value: &T| {
        if far == Some(ordinal) && value.identify(keys).0 == id {
            base = Some(Box::new(Version { id, ordinal, value: value.clone(), base: None }));
        }
    };
    keep(at, 0, &value);
    for (at, ordinal, bytes) in patches.iter().rev() {
        if let Stored::Patch { patch, .. } = Stored::<T>::parse(bytes).map_err(|e| damaged::<T>(id, &e))? {
            value = value.patched(patch).map_err(|e| damaged::<T>(id, &e))?;
        }
        keep(*at, *ordinal, &value);
    }
    if value.identify(keys).0 != id {
        return Err(damaged::<T>(id, &"its content is not what its id says"));
    }
    Ok(Version { id, ordinal, value, base })
}

/// Versions of one thing that are stored anew, one after the other, as if nothing had been before.
pub struct Anew<T: Versioned> {
    /// Those that a later one may be a patch against, with their new ordinals.
    bases: Vec<(u64, Arc<Version<T>>)>,
}

impl<T: Versioned> Default for Anew<T> {
    fn default() -> Self {
        Anew { bases: Vec::new() }
    }
}

impl<T: Versioned> Anew<T> {
    /// What `next` is stored as: a patch, if that is short and leads back to it, or whole.
    pub fn store(&mut self, keys: &Keys, next: Arc<Version<T>>) -> Vec<u8> {
        let whole = next.value.whole();
        let ordinal = self.bases.last().map_or(0, |(last, _)| last + 1);
        let far = if ordinal == 0 { None } else { Some(chain::base_of(ordinal)) };
        let base = self.bases.iter().find(|(known, _)| Some(*known) == far).map(|(_, base)| base);
        let patched = base.and_then(|base| {
            let patch = next.value.patch_from(&base.value)?;
            let again = base.value.clone().patched(&patch).ok()?;
            let is_it = patch.len() < whole.len() / 2 && again.identify(keys).0 == next.id;
            is_it.then(|| stored_patch::<T>(base.id, ordinal, &patch))
        });
        let Some(bytes) = patched else {
            self.bases = vec![(0, next)];
            return stored_whole(&whole);
        };
        // Of each power of eight only the latest multiple is ever a base again.
        let is_base = |known: u64| (0..17).any(|digit| ordinal >> (3 * digit) << (3 * digit) == known);
        self.bases.retain(|(known, _)| is_base(*known));
        self.bases.push((ordinal, next));
        bytes
    }
}

fn stored_whole(whole: &[u8]) -> Vec<u8> {
    let mut bytes = vec![WHOLE];
    bytes.extend_from_slice(whole);
    bytes
}

fn stored_patch<T: Versioned>(base: T::Id, ordinal: u64, patch: &[u8]) -> Vec<u8> {
    let mut bytes = vec![PATCH];
    bytes.extend_from_slice(&base.into().0);
    put_varint(&mut bytes, ordinal);
    bytes.extend_from_slice(patch);
    bytes
}

/// Ids that this session stored.
pub type Fresh = HashSet<ChunkId>;

/// Whether `id` can be loaded, and all that it takes is in packs that open: the index leads to others as well.
fn is_there<T: Versioned>(catalog: &Catalog, id: T::Id) -> bool {
    let mut at = id;
    for _ in 0..=chain::LONGEST {
        if !catalog.has(at.into()) {
            return false;
        }
        let Ok(bytes) = catalog.chunk(T::CONTENT, at.into()) else { return false };
        match Stored::<T>::parse(&bytes) {
            Ok(Stored::Whole(_)) => return load::<T>(catalog, id).is_ok(),
            Ok(Stored::Patch { base, .. }) => at = base,
            Err(_) => return false,
        }
    }
    false
}

/// What has to be stored so that `value` can be loaded by the id that is returned: nothing if it can be already. That
/// it is in a pack is not enough: it may be a patch, and its base lost. `before` is the version that it follows, and is
/// known to be in the store.
pub fn prepare<T: Versioned>(
    catalog: &Catalog,
    fresh: &mut Fresh,
    value: &T,
    before: Option<&Version<T>>,
    trust_parent: bool,
) -> (T::Id, Option<Vec<u8>>) {
    let (id, length) = value.identify(catalog.packs().keys());
    // That the one before could be loaded is not enough: the index may have led to a pack that does not open any more.
    if before.is_some_and(|before| before.id == id && trust_parent)
        || fresh.contains(&id.into())
        || is_there::<T>(catalog, id)
    {
        return (id, None);
    }
    fresh.insert(id.into());
    // What is stored again because its copy was lost is stored whole: a patch might lead back to itself.
    if let Some(before) = before.filter(|_| !catalog.was_there(id.into())) {
        let ordinal = before.ordinal + 1;
        let far = chain::base_of(ordinal);
        let loaded;
        let base = match &before.base {
            _ if far == before.ordinal => Some(before),
            Some(base) if base.ordinal == far => Some(&**base),
            // A chain that is damaged is left behind: what is to be saved is at hand. One that lacks this version ends
            // here with a whole form.
            _ => {
                loaded = load_before::<T>(catalog, before.id).ok().and_then(|before| before.base);
                loaded.as_deref()
            }
        };
        // So is one that could be loaded, but from packs that do not open any more.
        let base = base.filter(|base| trust_parent || is_there::<T>(catalog, base.id));
        let patch = base.and_then(|base| Some((base, value.patch_from(&base.value)?)));
        let patch = patch.filter(|(_, patch)| ordinal <= chain::HIGHEST && patch.len() < length / 2);
        // A patch that does not lead to what it is made of would lose a file: it is tried before it is stored.
        let leads = |(base, patch): &(&Version<T>, Vec<u8>)| {
            base.value.clone().patched(patch).is_ok_and(|again| again == *value)
        };
        if let Some((base, patch)) = patch.filter(leads) {
            return (id, Some(stored_patch::<T>(base.id, ordinal, &patch)));
        }
    }
    (id, Some(stored_whole(&value.whole())))
}
