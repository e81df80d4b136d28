//! Packs around bytes that somebody made up, sealed as a writer with the key would.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use nbak::crypto::keys::Keys;
use nbak::crypto::seal::{OVERHEAD, PackSealer};
use nbak::crypto::secret::Secret;
use nbak::id::{PackId, StoreId};
use nbak::index::Index;
use nbak::index::catalog::Catalog;
use nbak::store::memory::Memory;
use nbak::store::objects::{Key, Kind, Objects};
use nbak::store::pack::{Header, encode_trailer};
use nbak::store::reader::Packs;

/// The one pack of the store.
pub const PACK: PackId = PackId([0x50; 16]);
static KEYS: LazyLock<Arc<Keys>> =
    LazyLock::new(|| Arc::new(Keys::new(StoreId([0x53; 16]), &Secret::take(&mut [0x4d; 32]))));

/// The keys of every store here.
pub fn keys() -> Arc<Keys> {
    KEYS.clone()
}

/// A store whose only object is a pack of these bytes.
pub fn raw(object: &[u8]) -> Packs {
    let objects = Arc::new(Memory::default());
    let _durable = objects.put(Key::new(Kind::Pack, PACK.0), &[object]).expect("an empty store takes an object");
    Packs::new(objects, keys())
}

/// A store whose only pack has this plain footer, and in place of its segments sealed bytes of these stored lengths,
/// `filling` over and over. What is too short for a seal stays as it is.
pub fn pack(footer: &[u8], stored: &[u32], filling: &[u8]) -> Packs {
    let (sealer, mut tickets) = PackSealer::fresh(&KEYS, PACK);
    let mut object = Header { store: KEYS.store(), pack: PACK, salt: *sealer.salt() }.encode().to_vec();
    for length in stored {
        let (_, ticket) = tickets.issue().expect("there are fewer segments than numbers");
        let plain = (*length as usize).saturating_sub(OVERHEAD);
        let mut bytes: Vec<u8> = filling.iter().copied().cycle().take(plain).collect();
        bytes.resize(plain, 0);
        sealer.seal_segment(ticket, &mut bytes);
        bytes.truncate(*length as usize);
        object.append(&mut bytes);
    }
    let mut sealed = footer.to_vec();
    sealer.seal_footer(tickets, &mut sealed);
    object.extend_from_slice(&sealed);
    object.extend_from_slice(&encode_trailer(sealed.len() as u32));
    raw(&object)
}

/// Packs and an index in memory.
pub fn catalog(packs: Packs) -> Catalog {
    let index = Index::open(Path::new("no folder/no index"), &packs, false).expect("a store in memory can be listed");
    Catalog::new(packs, index)
}
