//! Seals: no key and nonce twice, nothing in common between two stores, nothing that opens at another place.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{Place, noise, rounds, tree};
use nbak::crypto::keys::Keys;
use nbak::crypto::seal::{MAX_SEGMENTS, PackOpener, PackSealer, RowSealer};
use nbak::crypto::secret::Secret;
use nbak::id::{ChunkId, PackId, StoreId};
use nbak::snapshot::store::{Access, Store};
use nbak::store::memory::Memory;
use nbak::store::objects::{Key, Kind, Objects};
use nbak::store::pack::{HEADER, Header};
use nbak::store::reader::Packs;
use nbak::store::segment::Content;
use nbak::store::sink::PackSink;

fn keys() -> Arc<Keys> {
    Arc::new(Keys::new(StoreId::random(), &Secret::random()))
}

/// A pack's key comes from its salt, a segment's nonce is its number. So no pair occurs twice if no salt does and if
/// the tickets of one pack count up. Both are looked at here, in 100,000 seals for each round; and each seals the same
/// zeros, of which the beginning is kept: a pair that came twice would give the same bytes, whatever brought it about.
#[test]
fn no_salt_and_number_twice() {
    let most = 100_000 * rounds();
    let keys = keys();
    let (mut salts, mut sealed) = (HashSet::new(), HashSet::new());
    let (mut seals, mut round) = (0u64, 0u64);
    while seals < most {
        let (sealer, mut tickets) = PackSealer::fresh(&keys, PackId::random());
        assert!(salts.insert(*sealer.salt()), "a salt came twice");
        // Packs of one segment, of many, and full ones.
        let wanted = [1, 2, 40, 300, u64::from(MAX_SEGMENTS) + 1][(round % 5) as usize].min(most - seals);
        round += 1;
        let mut next = 0;
        for _ in 0..wanted {
            let Some((number, ticket)) = tickets.issue() else { break };
            assert_eq!(number, next, "a number came twice, or was left out");
            next += 1;
            let mut bytes = vec![0; 16];
            sealer.seal_segment(ticket, &mut bytes);
            let head: [u8; 8] = bytes[..8].try_into().expect("eight bytes");
            // 64 bits: of 10 million, two are alike by chance once in 400,000 runs.
            assert!(sealed.insert(head), "the key stream came twice");
        }
        assert!(next <= MAX_SEGMENTS);
        seals += u64::from(next);
    }
    println!("{seals} seals in {} packs", salts.len());
}

/// The same for what really lies in a store: the same plaintext, sealed many times over, no ciphertext like another.
#[test]
fn equal_plaintexts_have_no_equal_ciphertexts() {
    let keys = keys();
    let mut seen = HashSet::new();
    for _ in 0..300 * rounds() {
        let pack = PackId::random();
        let (sealer, mut tickets) = PackSealer::fresh(&keys, pack);
        for _ in 0..100 {
            let (number, ticket) = tickets.issue().expect("a number");
            let mut bytes = vec![0; 32];
            sealer.seal_segment(ticket, &mut bytes);
            assert!(seen.insert(bytes.clone()), "the key stream came twice");
            let opener = PackOpener::new(&keys, pack, sealer.salt());
            assert_eq!(opener.open_segment(number, &mut bytes), Ok(()));
            assert_eq!(bytes, [0; 32]);
        }
        let mut footer = vec![0; 32];
        sealer.seal_footer(tickets, &mut footer);
        assert!(seen.insert(footer), "the footer shares a key stream with a segment");
    }
}

#[test]
fn rows_draw_their_nonces_anew() {
    let rows = RowSealer::new(&keys());
    let mut nonces = HashSet::new();
    for _ in 0..100_000 * rounds() {
        assert!(nonces.insert(rows.seal(b"name", b"")[..12].to_vec()));
    }
}

/// Packs that the sink makes, of one store and of many sinks: each has a salt and a name of its own.
#[test]
fn packs_of_many_sinks_share_nothing() {
    let (memory, keys) = (Arc::new(Memory::default()), keys());
    for n in 0..200 {
        let mut sink = PackSink::new(memory.clone(), keys.clone());
        let plain = noise(n % 3, 500);
        sink.add(Content::Data, keys.chunk_id(&plain), &plain).expect("added");
        sink.flush().expect("flushed").keep().expect("kept");
    }
    let ids = memory.list(Kind::Pack).expect("a list");
    assert_eq!(ids.len(), 200);
    let mut salts = HashSet::new();
    let mut bodies = HashSet::new();
    for id in ids {
        let bytes = memory.get(Key::new(Kind::Pack, id), 1 << 20).expect("read");
        let header = Header::decode(&bytes[..HEADER]).expect("a header");
        assert!(salts.insert(header.salt));
        assert!(bodies.insert(bytes[HEADER..HEADER + 64].to_vec()));
    }
}

#[test]
fn two_stores_of_the_same_files_have_nothing_in_common() {
    let (place, other) = (Place::filled(None), Place::empty());
    for (path, thing) in tree(&place.data).into_iter().filter(|(_, thing)| thing.kind == "file") {
        let path = other.data.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, thing.bytes).expect("written");
    }
    place.ok(&["snapshot"]);
    other.ok(&["snapshot"]);
    let ids = |place: &Place| -> HashSet<ChunkId> {
        let store = Store::open(&place.repo, &[], Access::Read).expect("opens");
        let packs = store.catalog().packs();
        let opened = packs.list().expect("a list").into_iter().map(|id| packs.open(id).expect("a pack"));
        opened.flat_map(|pack| pack.footer.chunks().map(|(.., chunk)| chunk.id).collect::<Vec<_>>()).collect()
    };
    let (ours, theirs) = (ids(&place), ids(&other));
    assert!(ours.len() > 20 && theirs.len() > 20);
    assert!(ours.is_disjoint(&theirs), "a chunk id is not keyed");

    // Beyond the header's magic and the trailer, no eight bytes of one are in the other.
    let windows = |place: &Place| -> HashSet<[u8; 8]> {
        let mut all = HashSet::new();
        for path in place.packs() {
            let bytes = fs::read(path).expect("read");
            let sealed = &bytes[HEADER..bytes.len() - 16];
            all.extend(sealed.windows(8).map(|window| <[u8; 8]>::try_from(window).expect("eight bytes")));
        }
        all
    };
    let (ours, theirs) = (windows(&place), windows(&other));
    assert!(ours.is_disjoint(&theirs), "the same ciphertext stands in both");
    // Nor is anything of the plaintext.
    for (path, thing) in tree(&place.data).into_iter().filter(|(_, thing)| thing.bytes.len() > 64) {
        let plain = thing.bytes.windows(8).step_by(3).filter(|window| window.iter().any(|byte| *byte != window[0]));
        for window in plain {
            let window: [u8; 8] = window.try_into().expect("eight bytes");
            assert!(!ours.contains(&window), "{} stands in the store as it is", path.display());
        }
    }
}

#[test]
fn segments_do_not_open_elsewhere() {
    let (memory, keys) = (Arc::new(Memory::default()), keys());
    // Two packs of the same shape: equal lengths, so that only the seals can tell.
    let mut made = Vec::new();
    for n in 0..2 {
        let mut sink = PackSink::new(memory.clone(), keys.clone());
        for m in 0..3 {
            let plain = noise(10 * n + m, 1000);
            sink.add(Content::Data, keys.chunk_id(&plain), &plain).expect("added");
            sink.close_segment(Content::Data).expect("closed");
        }
        made.extend(sink.flush().expect("flushed").keep().expect("kept"));
    }
    let key = |n: usize| Key::new(Kind::Pack, made[n].id.0);
    let bytes = |n: usize| memory.get(key(n), 1 << 20).expect("read");
    let (first, second) = (bytes(0), bytes(1));
    assert_eq!(first.len(), second.len(), "the sample has lost its point");
    let span = |number: usize| {
        let entry = &made[0].footer.segments[number];
        entry.offset as usize..entry.offset as usize + entry.stored as usize
    };
    let opens = |number: usize| {
        let packs = Packs::new(memory.clone(), keys.clone());
        let pack = packs.open(made[0].id)?;
        packs.segment(&pack, number, &[])
    };
    for from in 0..3 {
        for to in 0..3 {
            // From the other pack, to the same and to other places; and within the pack.
            for (source, is_same) in [(&second, false), (&first, from == to)] {
                memory.damage(key(0), |bytes| bytes[span(to)].copy_from_slice(&source[span(from)]));
                let opened = opens(to);
                assert_eq!(opened.is_ok(), is_same, "segment {from} at {to}");
                if let Err(error) = opened {
                    assert!(error.is_integrity() && error.to_string().contains(&memory.place(key(0))), "{error}");
                }
                memory.damage(key(0), |bytes| bytes.copy_from_slice(&first));
            }
        }
    }
    // The other pack's footer, salt, or both with the header's name put right.
    let body = first.len() - 16 - 200;
    memory.damage(key(0), |bytes| bytes[body..].copy_from_slice(&second[body..]));
    assert!(opens(0).expect_err("another footer").is_integrity());
    memory.damage(key(0), |bytes| {
        bytes.copy_from_slice(&second);
        bytes[26..42].copy_from_slice(&first[26..42]);
    });
    assert!(opens(0).expect_err("another pack under this name").is_integrity());
}

#[test]
fn a_store_opened_for_reading_seals_nothing() {
    let place = Place::taken(None);
    let before = tree(&place.repo);
    let store = Store::open(&place.repo, &[], Access::Read).expect("opens");
    drop(store);
    let store = Store::open(&place.repo, &[], Access::Write(Duration::ZERO)).expect("opens");
    drop(store);
    let after = tree(&place.repo);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert_eq!(tree(&place.repo.join("packs")).len(), 1);
}
