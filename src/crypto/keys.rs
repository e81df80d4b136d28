//! The labelled subkeys of a store.
//!
//! Each is HKDF-SHA256 (RFC 5869) over the master key with the store's id as salt and a label of its own as info.
//! The labels are part of the format.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroize;

use super::lanes;
use super::secret::Secret;
use crate::id::{ChunkId, RecipeId, StoreId, TreeId};

/// Expands `key` under `info` into 32 bytes.
pub(super) fn derive(salt: &[u8], key: &[u8], info: &[&[u8]]) -> Secret {
    let mut out = [0; 32];
    Hkdf::<Sha256>::new(Some(salt), key)
        .expand_multi_info(info, &mut out)
        .expect("32 bytes are within what HKDF can expand");
    Secret::take(&mut out)
}

/// All that is needed to read and write one store.
pub struct Keys {
    store: StoreId,
    pub(super) packs: Secret,
    pub(super) index: Secret,
    chunk_ids: Secret,
    recipe_ids: Secret,
    tree_ids: Secret,
    records: Secret,
    note_names: Secret,
    walks: Secret,
    pub(super) manifests: Secret,
    chunker_seed: u64,
}

impl Keys {
    /// The subkeys of `master` in `store`.
    pub fn new(store: StoreId, master: &Secret) -> Self {
        let subkey = |label: &str| derive(&store.0, master.expose(), &[b"nbak v1 ", label.as_bytes()]);
        let seed = subkey("chunker");
        let mut head = [0; 8];
        head.copy_from_slice(&seed.expose()[..8]);
        let chunker_seed = u64::from_le_bytes(head);
        head.zeroize();
        Keys {
            store,
            packs: subkey("packs"),
            index: subkey("index"),
            chunk_ids: subkey("chunk ids"),
            recipe_ids: subkey("recipe ids"),
            tree_ids: subkey("tree ids"),
            records: subkey("snapshot records"),
            note_names: subkey("index names"),
            walks: subkey("walks"),
            manifests: subkey("manifests"),
            chunker_seed,
        }
    }

    /// The store these keys belong to.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// What the gear table of the content-defined cuts is mixed with. Not a secret that anything rests on (see
    /// `docs/SECURITY.md`): it only keeps the same file from being cut alike in every store.
    pub fn chunker_seed(&self) -> u64 {
        self.chunker_seed
    }

    /// The id of a chunk of data.
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        ChunkId(short(blake3::keyed_hash(self.chunk_ids.expose(), plain)))
    }

    /// The ids of chunks of data, in order.
    pub fn chunk_ids(&self, plains: &[&[u8]]) -> Vec<ChunkId> {
        let mut ids = Vec::with_capacity(plains.len());
        for run in plains.chunk_by(|a, b| a.len() == b.len()) {
            if lanes::is_page(run[0].len()) {
                let take = |hash: [u8; 32]| ids.push(ChunkId(std::array::from_fn(|at| hash[at])));
                lanes::keyed_hashes(self.chunk_ids.expose(), run, take);
            } else {
                ids.extend(run.iter().map(|plain| self.chunk_id(plain)));
            }
        }
        ids
    }

    /// The id of a recipe, from its whole form.
    pub fn recipe_id(&self, whole: &[u8]) -> RecipeId {
        self.recipe_id_of([whole].into_iter())
    }

    /// The id of a recipe, from the `parts` that its whole form consists of.
    pub fn recipe_id_of<T: AsRef<[u8]>>(&self, parts: impl Iterator<Item = T>) -> RecipeId {
        RecipeId(joined(&self.recipe_ids, parts))
    }

    /// The id of a directory, from its whole form.
    pub fn tree_id(&self, whole: &[u8]) -> TreeId {
        TreeId(short(blake3::keyed_hash(self.tree_ids.expose(), whole)))
    }

    /// What a note in the index is called there: its name may say what the source is.
    pub fn note_name(&self, name: &str) -> [u8; 16] {
        short(blake3::keyed_hash(self.note_names.expose(), name.as_bytes()))
    }

    /// What stands in a note for all that was seen of the source, or of the packs: `parts`, joined.
    pub fn walk_digest<T: AsRef<[u8]>>(&self, parts: impl Iterator<Item = T>) -> [u8; 16] {
        joined(&self.walks, parts)
    }

    /// What chains snapshot records: the next record carries it.
    pub fn record_mac(&self, record: &[u8]) -> [u8; 16] {
        short(blake3::keyed_hash(self.records.expose(), record))
    }
}

/// The keyed hash of `parts`, joined.
fn joined<T: AsRef<[u8]>>(key: &Secret, parts: impl Iterator<Item = T>) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(key.expose());
    parts.for_each(|part| {
        hasher.update(part.as_ref());
    });
    let digest = short(hasher.finalize());
    hasher.zeroize();
    digest
}

fn short(hash: blake3::Hash) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_use_has_a_key_of_its_own() {
        let (store, master) = (StoreId([1; 16]), Secret::random());
        let keys = Keys::new(store, &master);
        // All labels of the format, each with what is derived under it.
        let uses = [
            ("packs", &keys.packs),
            ("index", &keys.index),
            ("chunk ids", &keys.chunk_ids),
            ("recipe ids", &keys.recipe_ids),
            ("tree ids", &keys.tree_ids),
            ("snapshot records", &keys.records),
            ("index names", &keys.note_names),
            ("walks", &keys.walks),
            ("manifests", &keys.manifests),
        ];
        let labelled = |label: &str| derive(&store.0, master.expose(), &[b"nbak v1 ", label.as_bytes()]);
        let mut seen = vec![keys.chunker_seed.to_le_bytes()];
        assert_eq!(seen[0], labelled("chunker").expose()[..8]);
        for (label, key) in uses {
            assert_eq!(key.expose(), labelled(label).expose(), "{label}");
            // What the chunker has is eight bytes: so many are compared of all.
            let head: [u8; 8] = key.expose()[..8].try_into().expect("eight bytes");
            assert!(!seen.contains(&head), "{label} has the key of another use");
            seen.push(head);
        }
        assert_eq!(seen.len(), 10);
        // And each is used for what it is called: equal bytes have another id under each.
        let text = b"the same bytes";
        let mut ids = vec![
            keys.chunk_id(text).0,
            keys.recipe_id(text).0,
            keys.tree_id(text).0,
            keys.record_mac(text),
            keys.note_name("the same bytes"),
            keys.walk_digest(std::iter::once(text)),
        ];
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 6);
    }

    #[test]
    fn many_ids_are_those_of_each() {
        let keys = Keys::new(StoreId([1; 16]), &Secret::random());
        let bytes = vec![7; 70_000];
        let lengths = [4096, 4096, 10, 0, 4096, 2048, 2048, 2048, 16_384, 8192, 8192, 1];
        let plains: Vec<&[u8]> = lengths.iter().map(|length| &bytes[..*length]).collect();
        let each: Vec<ChunkId> = plains.iter().map(|plain| keys.chunk_id(plain)).collect();
        assert_eq!(keys.chunk_ids(&plains), each);
    }

    #[test]
    fn ids_depend_on_the_key_and_the_store() {
        let master = Secret::random();
        let id = |store: u8, master: &Secret| Keys::new(StoreId([store; 16]), master).chunk_id(b"x");
        assert_eq!(id(1, &master), id(1, &master));
        assert_ne!(id(1, &master), id(2, &master));
        assert_ne!(id(1, &master), id(1, &Secret::random()));
    }
}
