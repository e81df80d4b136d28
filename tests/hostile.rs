//! Content that is sealed as it should be, and hostile: made by hand with the store's own keys. Each is an error that
//! names the object, without a panic, without more memory than the limit, and with nothing outside of the target.
//!
//! The limit is the kernel's: what goes beyond it ends this process.

use std::fs;
use std::path::Path;

use common::{Place, assert_equal, noise, tree, within};
use forge::{Forge, SECONDS, entry, file, link, names_an_object};
use nbak::codec::{put_bytes, put_varint};
use nbak::crypto::seal::PackSealer;
use nbak::id::{ChunkId, PackId, RecipeId, TreeId};
use nbak::snapshot::target::Target;
use nbak::snapshot::tree::{Attributes, Content, Entry, Node, Tree};
use nbak::store::objects::{Key, Kind};
use nbak::store::pack::{Footer, Header, encode_trailer};
use nbak::store::segment::{Bases, ChunkEntry, Chunks, Codec, Content as Segment, SegmentEntry};
use nbak::store::sink::Base;
use serde_json::json;

#[path = "suite/common/mod.rs"]
mod common;
#[path = "hostile/forge.rs"]
mod forge;

/// Looks at what `make` made in every way, and expects that all of them complain.
fn refused(what: &str, make: impl FnOnce(&Forge) + Send + 'static) {
    refused_by(what, true, make);
}

fn refused_by(what: &str, checked: bool, make: impl FnOnce(&Forge) + Send + 'static) {
    let name = what.to_owned();
    within(SECONDS, what, move || {
        let forge = Forge::new();
        make(&forge);
        let (problems, complaints) = (forge.check(), forge.restore());
        assert!(!complaints.is_empty(), "{name}: it was restored");
        assert!(complaints.iter().all(|text| names_an_object(text)), "{name}: {complaints:?}");
        assert!(!checked || !problems.is_empty(), "{name}: a check finds nothing");
        assert!(problems.iter().all(|text| names_an_object(text)), "{name}: {problems:?}");
        let _ = forge.list();
        forge.go_on();
        forge.assert_contained(&name);
    });
}

// ---- trees --------------------------------------------------------------------------------------

#[test]
fn names_that_lead_elsewhere() {
    let long = vec![b'x'; 5000];
    let names: Vec<Vec<u8>> = [
        b"..".as_slice(),
        b".",
        b"",
        b"/",
        b"a/b",
        b"../outside",
        b"/etc/passwd",
        b"a\0b",
        b"\0",
        b"../../../../../../../../tmp/nbak-escaped",
        &long,
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    for name in names {
        for kind in 0..3 {
            let name = name.clone();
            refused(&format!("{:?} as {kind}", String::from_utf8_lossy(&name[..name.len().min(40)])), move |forge| {
                let (chunk, piece) = forge.data(b"hostile");
                let (below, tree) = forge.directory(vec![]);
                let node = match kind {
                    0 => file(&name, 7, Content::Chunks(vec![(7, chunk)])),
                    1 => entry(&name, Node::Directory(below)),
                    _ => link(&name, "outside"),
                };
                forge.commit_entry(vec![piece, tree], node);
            });
        }
    }
}

#[test]
fn names_that_come_twice_or_out_of_order() {
    for order in [["a", "a"], ["b", "a"]] {
        refused(&format!("{order:?}"), move |forge| {
            let (chunk, piece) = forge.data(b"hostile");
            let entries = order.map(|name| file(name.as_bytes(), 7, Content::Chunks(vec![(7, chunk)])));
            let (root, tree) = forge.directory(entries.to_vec());
            forge.commit(&[piece, tree], root);
        });
    }
}

#[test]
fn a_link_and_a_directory_of_one_name() {
    for links_first in [true, false] {
        refused("a link and a directory of one name", move |forge| {
            let (chunk, piece) = forge.data(b"hostile");
            let (below, inner) = forge.directory(vec![file(b"outside", 7, Content::Chunks(vec![(7, chunk)]))]);
            let mut entries = vec![link(b"d", ".."), entry(b"d", Node::Directory(below))];
            if !links_first {
                entries.reverse();
            }
            let (root, tree) = forge.directory(entries);
            forge.commit(&[piece, inner, tree], root);
        });
    }
}

#[test]
fn links_with_targets_that_no_link_has() {
    for target in ["", "a\0b", &"x".repeat(5000)] {
        let target = target.to_owned();
        refused("a link's target", move |forge| forge.commit_entry(vec![], link(b"l", &target)));
    }
}

#[test]
fn bytes_that_are_no_tree() {
    let huge = |count: u64| {
        let mut bytes = vec![0];
        put_varint(&mut bytes, count);
        bytes
    };
    let cases: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![7],
        huge(u64::MAX),
        huge(1 << 40),
        [huge(2), vec![0; 100]].concat(),
        [huge(1 << 20), vec![b'x'; 1 << 20]].concat(),
        // Millions of the smallest entries, all alike.
        [huge(4_000_000), [1, b'a', 4, 0, 0, 0, 0, 0, 1, b'x'].repeat(4_000_000)].concat(),
    ];
    for bytes in cases {
        refused(&format!("{} bytes that are no tree", bytes.len()), move |forge| {
            let root = forge.keys.tree_id(bytes.get(1..).unwrap_or(&[]));
            forge.commit(&[(Segment::Tree, root.into(), bytes)], root);
        });
    }
}

#[test]
fn trees_without_an_end() {
    refused("a tree that holds itself", |forge| {
        let root = TreeId::random();
        let whole = Tree { entries: vec![entry(b"d", Node::Directory(root))] }.encode();
        forge.commit(&[(Segment::Tree, root.into(), [&[0], whole.as_slice()].concat())], root);
    });
    refused("trees deeper than the format allows", |forge| {
        let (mut root, piece) = forge.directory(vec![]);
        let mut pieces = vec![piece];
        for _ in 0..300 {
            let (above, piece) = forge.directory(vec![entry(b"d", Node::Directory(root))]);
            root = above;
            pieces.push(piece);
        }
        forge.commit(&pieces, root);
    });
    for lost in [false, true] {
        // 2^200 paths, of 200 small trees. Whether all is there can be told quickly; listing it can not.
        refused_by("trees that name each other twice", lost, move |forge| {
            let (mut root, piece) = forge.directory(vec![]);
            let mut pieces = if lost { vec![] } else { vec![piece] };
            for _ in 0..200 {
                let twice = [b"a", b"b"].map(|name| entry(name, Node::Directory(root)));
                let (above, piece) = forge.directory(twice.to_vec());
                root = above;
                pieces.push(piece);
            }
            forge.commit(&pieces, root);
        });
    }
}

#[test]
fn chains_of_patches() {
    let patch = |base: TreeId, ordinal: u64| {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&base.0);
        put_varint(&mut bytes, ordinal);
        bytes.extend_from_slice(&[0, 0]);
        bytes
    };
    refused("a patch of itself", move |forge| {
        let root = TreeId::random();
        forge.commit(&[(Segment::Tree, root.into(), patch(root, 1))], root);
    });
    refused("patches of each other", move |forge| {
        let (a, b) = (TreeId::random(), TreeId::random());
        forge.commit(&[(Segment::Tree, a.into(), patch(b, 2)), (Segment::Tree, b.into(), patch(a, 1))], a);
    });
    refused("a chain that is too long", move |forge| {
        let (first, piece) = forge.directory(vec![]);
        let (mut at, mut pieces) = (first, vec![piece]);
        for n in 1..200 {
            let next = TreeId([n; 16]);
            pieces.push((Segment::Tree, next.into(), patch(at, u64::from(n))));
            at = next;
        }
        forge.commit(&pieces, at);
    });
    for ordinal in [0, 1 << 60, u64::MAX] {
        refused(&format!("the ordinal {ordinal}"), move |forge| {
            let (base, piece) = forge.directory(vec![]);
            let root = TreeId::random();
            forge.commit(&[piece, (Segment::Tree, root.into(), patch(base, ordinal))], root);
        });
    }
    for tail in [&[0xff, 0xff, 0xff, 0x7f][..], &[1, 1, b'x', 0], &[0, 0xff, 0x7f], &[0, 0, 0], &[]] {
        let tail = tail.to_vec();
        refused(&format!("the patch {tail:?}"), move |forge| {
            let (base, piece) = forge.directory(vec![]);
            let root = TreeId::random();
            let bytes = [&[1], base.0.as_slice(), &[1], &tail].concat();
            forge.commit(&[piece, (Segment::Tree, root.into(), bytes)], root);
        });
    }
    refused("millions of removals", move |forge| {
        let (base, piece) = forge.directory(vec![]);
        let root = TreeId::random();
        let mut bytes = [&[1], base.0.as_slice(), &[1]].concat();
        put_varint(&mut bytes, 25_000_000);
        bytes.extend([1, b'x'].repeat(25_000_000));
        forge.commit(&[piece, (Segment::Tree, root.into(), bytes)], root);
    });
}

/// A wrong ordinal is no harm to what is read: the content is held against its id. But the next patch is made against
/// what it says.
#[test]
fn a_wrong_ordinal_stops_no_later_snapshot() {
    for ordinal in [1, 2, 3, 8, 64, 1 << 40, 1 << 51] {
        within(SECONDS, "a wrong ordinal", move || {
            let forge = Forge::new();
            let entries: Vec<Entry> = (0..9u8).map(|n| link(&[b'a' + n], "x")).collect();
            let base = Tree { entries: entries[..8].to_vec() };
            let whole = Tree { entries };
            let (base_id, piece) = forge.directory(base.entries.clone());
            let root = forge.keys.tree_id(&whole.encode());
            let mut bytes = [&[1], base_id.0.as_slice()].concat();
            put_varint(&mut bytes, ordinal);
            bytes.extend(whole.patch(&base));
            forge.commit(&[piece, (Segment::Tree, root.into(), bytes)], root);
            assert_eq!(forge.check(), Vec::<String>::new(), "{ordinal}");
            assert_eq!(forge.restore(), Vec::<String>::new(), "{ordinal}");
            forge.go_on();
            forge.assert_contained("a wrong ordinal");
        });
    }
}

// ---- recipes and chunks -------------------------------------------------------------------------

#[test]
fn recipes_that_are_none() {
    let form = |kind: u8, numbers: &[u64], rest: &[u8]| {
        let mut bytes = vec![kind];
        for number in numbers {
            put_varint(&mut bytes, *number);
        }
        bytes.extend_from_slice(rest);
        bytes
    };
    let ids = [7; 32];
    let cases = vec![
        vec![],
        form(9, &[], &[]),
        form(0, &[4096, u64::MAX, u64::MAX], &[]),
        form(0, &[0, 0, 0], &[]),
        form(0, &[0, 5, 2], &ids),
        form(0, &[u64::MAX, 5, 2], &ids),
        form(0, &[4096, u64::MAX, 2], &ids),
        form(0, &[4096, 4096, 2], &ids),
        form(0, &[1, 4096, 2], &ids),
        form(1, &[u64::MAX, 2, u64::MAX, u64::MAX], &ids),
        form(1, &[8192, 2, 4096, 4095], &ids),
        form(1, &[1 << 40, 1 << 40], &[0; 100]),
        form(0, &[1, 70_000, 70_000], &vec![7; 16 * 70_000]),
    ];
    for whole in cases {
        refused(&format!("the recipe {:?}", &whole[..whole.len().min(30)]), move |forge| {
            let id = forge.keys.recipe_id(&whole);
            let piece = (Segment::Recipe, id.into(), [&[0], whole.as_slice()].concat());
            forge.commit_entry(vec![piece], file(b"f", 8192, Content::Recipes(vec![id])));
        });
    }
}

#[test]
fn recipes_that_do_not_make_their_file() {
    for (size, times) in [(0, 1), (99, 1), (101, 1), (u64::MAX, 1), (100, 2), (100, 0)] {
        refused_by(&format!("{size} bytes of {times} recipes"), true, move |forge| {
            let (chunk, piece) = forge.data(&[5; 100]);
            let mut whole = vec![1];
            for number in [100, 1, 100] {
                put_varint(&mut whole, number);
            }
            whole.extend_from_slice(&chunk.0);
            let id = forge.keys.recipe_id(&whole);
            let recipe = (Segment::Recipe, id.into(), [&[0], whole.as_slice()].concat());
            let entry = file(b"f", size, Content::Recipes(vec![id; times]));
            forge.commit_entry(vec![piece, recipe], entry);
        });
    }
}

#[test]
fn a_patch_of_a_recipe_with_millions_of_steps() {
    refused("millions of steps", |forge| {
        let whole = [1, 0, 0];
        let base = forge.keys.recipe_id(&whole);
        let piece = (Segment::Recipe, base.into(), [&[0], whole.as_slice()].concat());
        let id = RecipeId::random();
        let mut bytes = [&[1], base.0.as_slice(), &[1, 0]].concat();
        put_varint(&mut bytes, 21_000_000);
        bytes.extend(vec![0; 63_000_000]);
        let entry = file(b"f", 0, Content::Recipes(vec![id]));
        forge.commit_entry(vec![piece, (Segment::Recipe, id.into(), bytes)], entry);
    });
}

#[test]
fn chunks_that_are_not_what_they_are_called() {
    refused("other content", |forge| {
        let id = ChunkId::random();
        let entry = file(b"f", 7, Content::Chunks(vec![(7, id)]));
        forge.commit_entry(vec![(Segment::Data, id, b"hostile".to_vec())], entry);
    });
    for length in [0, 6, 8, 64 * 1024 * 1024] {
        refused(&format!("a length of {length}"), move |forge| {
            let (id, piece) = forge.data(b"hostile");
            forge.commit_entry(vec![piece], file(b"f", u64::from(length), Content::Chunks(vec![(length, id)])));
        });
    }
    for size in [0, 6, 8, u64::MAX] {
        refused(&format!("a size of {size}"), move |forge| {
            let (id, piece) = forge.data(b"hostile");
            forge.commit_entry(vec![piece], file(b"f", size, Content::Chunks(vec![(7, id)])));
        });
    }
    refused("no such chunk", |forge| {
        forge.commit_entry(vec![], file(b"f", 7, Content::Chunks(vec![(7, ChunkId::random())])));
    });
    refused("a tree in the place of data", |forge| {
        let (below, piece) = forge.directory(vec![]);
        let length = piece.2.len() as u32;
        let entry = file(b"f", u64::from(length), Content::Chunks(vec![(length, below.into())]));
        forge.commit_entry(vec![piece], entry);
    });
    refused("data in the place of a tree", |forge| {
        let (id, piece) = forge.data(&[0, 0]);
        forge.commit_entry(vec![piece], entry(b"d", Node::Directory(TreeId(id.0))));
    });
}

/// The store holds 10 KB; what it says that it holds is more than any disk.
#[test]
fn a_file_larger_than_the_disk() {
    within(SECONDS, "a file larger than the disk", || {
        let forge = Forge::new();
        let (id, piece) = forge.data(&vec![7; 1 << 20]);
        let count = 1 << 16;
        let mut whole = vec![0];
        for number in [1 << 20, (count as u64) << 20, count as u64] {
            put_varint(&mut whole, number);
        }
        whole.extend(id.0.repeat(count));
        let recipe = forge.keys.recipe_id(&whole);
        let stored = (Segment::Recipe, recipe.into(), [&[0], whole.as_slice()].concat());
        let files: Vec<Entry> =
            (0..20u8).map(|n| file(&[b'a' + n], (count as u64) << 20, Content::Recipes(vec![recipe]))).collect();
        let (root, piece_of_root) = forge.directory(files);
        forge.commit(&[piece, stored, piece_of_root], root);
        assert_eq!(forge.check(), Vec::<String>::new());
        let run =
            forge.place.run(&["restore", "latest", "--target", &forge.place.path("target").display().to_string()]);
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.err.contains("are free"), "{run:?}");
    });
}

// ---- segments and footers -----------------------------------------------------------------------

fn chunk(id: ChunkId, bytes: &[u8]) -> ChunkEntry {
    ChunkEntry { id, length: bytes.len() as u32 }
}

/// A base of these chunks, which the caller says lie so deep.
fn base(chunks: &[(ChunkId, &[u8])], depth: u8) -> Base {
    Base {
        ids: chunks.iter().map(|(id, _)| *id).collect(),
        plain: chunks.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect(),
        depth,
    }
}

#[test]
fn bases_without_an_end() {
    refused("a segment that builds on itself", |forge| {
        let bytes = noise(1, 5000);
        let id = forge.keys.chunk_id(&bytes);
        let (root, (_, tree, form)) = forge.directory(vec![file(b"f", 5000, Content::Chunks(vec![(5000, id)]))]);
        let mut sink = forge.sink();
        sink.add(Segment::Tree, tree, &form).expect("added");
        let segment = vec![chunk(id, &bytes)];
        sink.add_segment(Segment::Data, segment, bytes.clone(), base(&[(id, &bytes)], 1)).expect("added");
        let _ = sink.flush().expect("flushed").commit(forge.record(root).encode()).expect("committed");
    });
    refused("two segments that build on each other", |forge| {
        let plains = [noise(1, 5000), noise(2, 5000)];
        let ids = plains.each_ref().map(|bytes| forge.keys.chunk_id(bytes));
        let chunks = Content::Chunks(vec![(5000, ids[0]), (5000, ids[1])]);
        let (root, (_, tree, form)) = forge.directory(vec![file(b"f", 10_000, chunks)]);
        let mut sink = forge.sink();
        sink.add(Segment::Tree, tree, &form).expect("added");
        for n in 0..2 {
            let on = base(&[(ids[1 - n], &plains[1 - n])], 16);
            sink.add_segment(Segment::Data, vec![chunk(ids[n], &plains[n])], plains[n].clone(), on).expect("added");
        }
        let _ = sink.flush().expect("flushed").commit(forge.record(root).encode()).expect("committed");
    });
    for says in [16, 1] {
        refused(&format!("twenty deep, each says {says}"), move |forge| {
            let plains: Vec<Vec<u8>> = (0..20).map(|n| noise(n, 2000)).collect();
            let ids: Vec<ChunkId> = plains.iter().map(|bytes| forge.keys.chunk_id(bytes)).collect();
            let chunks = Content::Chunks(vec![(2000, ids[19])]);
            let (root, (_, tree, form)) = forge.directory(vec![file(b"f", 2000, chunks)]);
            let mut sink = forge.sink();
            sink.add(Segment::Tree, tree, &form).expect("added");
            sink.add(Segment::Data, ids[0], &plains[0]).expect("added");
            sink.close_segment(Segment::Data).expect("closed");
            for n in 1..20 {
                let on = base(&[(ids[n - 1], &plains[n - 1])], says);
                sink.add_segment(Segment::Data, vec![chunk(ids[n], &plains[n])], plains[n].clone(), on).expect("added");
            }
            let _ = sink.flush().expect("flushed").commit(forge.record(root).encode()).expect("committed");
        });
    }
}

/// Large segments, which are not kept in memory, of which each needs the one below many times over.
#[test]
fn bases_that_fan_out() {
    refused("segments that fan out", |forge| {
        let filler = vec![0u8; 1_100_000];
        let mut below: Vec<(ChunkId, Vec<u8>)> = Vec::new();
        let mut sink = forge.sink();
        for layer in 0..4u64 {
            let small: Vec<(ChunkId, Vec<u8>)> = (0..40)
                .map(|n| noise(1000 * layer + n, 32))
                .map(|bytes| (forge.keys.chunk_id(&bytes), bytes))
                .collect();
            let large = [&filler[..], &layer.to_le_bytes()].concat();
            let mut chunks: Vec<ChunkEntry> = small.iter().map(|(id, bytes)| chunk(*id, bytes)).collect();
            chunks.push(chunk(forge.keys.chunk_id(&large), &large));
            let plain: Vec<u8> = small.iter().flat_map(|(_, bytes)| bytes.clone()).chain(large).collect();
            let on: Vec<(ChunkId, &[u8])> = below.iter().map(|(id, bytes)| (*id, bytes.as_slice())).collect();
            sink.add_segment(Segment::Data, chunks, plain, base(&on, layer as u8)).expect("added");
            below = small;
        }
        let chunks = Content::Chunks(vec![(32, below[0].0)]);
        let (root, (_, tree, form)) = forge.directory(vec![file(b"f", 32, chunks)]);
        sink.add(Segment::Tree, tree, &form).expect("added");
        let _ = sink.flush().expect("flushed").commit(forge.record(root).encode()).expect("committed");
    });
}

#[test]
fn footers_that_claim_too_much() {
    let numbers = |numbers: &[u64]| {
        let mut tables = Vec::new();
        for number in numbers {
            put_varint(&mut tables, *number);
        }
        tables
    };
    let full = [numbers(&[0xFFFF]), [0, 0, 0, 0, 0, 0x80, 0x80, 4].repeat(0xFFFF)].concat();
    let mut records = numbers(&[0, 5000]);
    (0..5000).for_each(|_| put_bytes(&mut records, b"{}"));
    let mut long = numbers(&[0, 1]);
    put_bytes(&mut long, &vec![b'x'; 70_000]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("endless segments", numbers(&[u64::MAX])),
        ("65,535 segments of 65,536 chunks", full),
        ("a segment without chunks", numbers(&[1, 0, 0, 0, 0, 0, 0, 0])),
        ("a segment of an unknown kind", [numbers(&[1, 0, 9, 0, 0, 0, 1, 5]), vec![7; 16], numbers(&[0])].concat()),
        ("endless bases", [numbers(&[1, 0, 0, 0, 1, u64::MAX, 1, 5]), vec![7; 40]].concat()),
        ("bases without depth", [numbers(&[1, 0, 0, 0, 0, 1, 1, 5]), vec![7; 32], numbers(&[0])].concat()),
        ("a chunk larger than the format allows", [numbers(&[1, 0, 0, 0, 0, 0, 1, 1 << 40]), vec![7; 40]].concat()),
        ("a segment beyond the pack", [numbers(&[1, 5000, 0, 0, 0, 0, 1, 5]), vec![7; 16], numbers(&[0])].concat()),
        ("endless records", numbers(&[0, u64::MAX])),
        ("5,000 records", records),
        ("a long record", long),
        ("bytes after its end", numbers(&[0, 0, 0])),
    ];
    for (what, tables) in cases {
        within(SECONDS, what, move || {
            let forge = Forge::new();
            let id = forge.pack_with_tables(0, tables.len() as u32, &tables);
            assert!(forge.check().iter().any(|text| text.contains(&id.to_string())), "{what}");
            forge.go_on();
        });
    }
    let bomb = zstd::bulk::compress(&vec![0; 60 << 20], 3).expect("compressed");
    let lengths = [(2, 0), (0, u32::MAX), (1, u32::MAX), (1, 60 << 20), (1, 1 << 26), (1, 5)];
    for (codec, length) in lengths {
        let bomb = bomb.clone();
        within(SECONDS, "a footer's length", move || {
            let forge = Forge::new();
            let id = forge.pack_with_tables(codec, length, &bomb);
            assert!(forge.check().iter().any(|text| text.contains(&id.to_string())), "{codec} {length}");
            forge.go_on();
        });
    }
}

#[test]
fn a_segment_that_inflates() {
    refused("a segment that inflates beyond its length", |forge| {
        let bomb = zstd::bulk::compress(&vec![0; 60 << 20], 3).expect("compressed");
        let id = PackId::random();
        let (sealer, mut tickets) = PackSealer::fresh(&forge.keys, id);
        let (_, ticket) = tickets.issue().expect("a number");
        let mut body = bomb;
        sealer.seal_segment(ticket, &mut body);
        let plain = vec![0; 100];
        let data = forge.keys.chunk_id(&plain);
        let segment = SegmentEntry {
            offset: 0,
            stored: body.len() as u32,
            plain: 100,
            content: Segment::Data,
            codec: Codec::Zstd,
            depth: 0,
            bases: Bases::new(),
            chunks: Chunks::from_buf([chunk(data, &plain)]),
        };
        let mut footer = Footer { segments: vec![segment], records: vec![] }.encode().expect("encoded");
        sealer.seal_footer(tickets, &mut footer);
        let header = Header { store: forge.keys.store(), pack: id, salt: *sealer.salt() }.encode();
        let trailer = encode_trailer(footer.len() as u32);
        let _ = forge.objects.put(Key::new(Kind::Pack, id.0), &[&header, &body, &footer, &trailer]).expect("put");
        forge.commit_entry(vec![], file(b"f", 100, Content::Chunks(vec![(100, data)])));
    });
}

#[test]
fn records_with_bad_fields() {
    let good = || {
        let forge = Forge::new();
        let (root, _) = forge.directory(vec![]);
        let record: serde_json::Value = serde_json::from_slice(&forge.record(root).encode()).expect("JSON");
        record
    };
    let with = |name: &str, value: serde_json::Value| {
        let mut record = good();
        record[name] = value;
        serde_json::to_vec(&record).expect("JSON")
    };
    let bad: Vec<Vec<u8>> = vec![
        vec![],
        b"{}".to_vec(),
        vec![0xff; 100],
        vec![b'['; 60_000],
        b"null".to_vec(),
        with("format", json!(2)),
        with("id", json!("../../outside")),
        with("id", json!("x".repeat(1000))),
        with("tree", json!("zz")),
        with("previous", json!("")),
        with("sequence", json!(0)),
        with("sequence", json!(u64::MAX)),
        with("sequence", json!(-1)),
        with("root", json!([0o77777, 0, 0, 0, 0])),
        with("root", json!([0o700, 0, 0, 0, u32::MAX])),
        with("root", json!([])),
        with("totals", json!({"files": -1})),
    ];
    for bytes in bad {
        let forge = Forge::new();
        let _ = forge.sink().flush().expect("flushed").commit(bytes.clone()).expect("committed");
        let what = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        let problems = forge.check();
        assert!(!problems.is_empty() && problems.iter().all(|text| names_an_object(text)), "{what}: {problems:?}");
        for args in [&["snapshots"][..], &["ls", "latest"], &["snapshot"], &["stats"]] {
            let run = forge.place.run(args);
            assert_eq!(run.code, 13, "{what}: {run:?}");
            assert!(names_an_object(&run.err), "{what}: {run:?}");
        }
    }
    // Odd, and no harm.
    let odd = vec![
        with("started_ms", json!(i64::MAX)),
        with("started_ms", json!(i64::MIN)),
        with(
            "totals",
            json!({"files": u64::MAX, "databases": u64::MAX, "directories": u64::MAX, "symlinks": u64::MAX,
            "bytes": u64::MAX}),
        ),
        with("source", json!("\u{0}/../..")),
        with("unreadable_count", json!(u64::MAX)),
        with("root", json!([0o700, u32::MAX, u32::MAX, i64::MAX, 999_999_999])),
        with("sequence", json!(u32::MAX)),
    ];
    for bytes in odd {
        let forge = Forge::new();
        let (_, piece) = forge.directory(vec![]);
        let mut sink = forge.sink();
        sink.add(piece.0, piece.1, &piece.2).expect("added");
        let _ = sink.flush().expect("flushed").commit(bytes.clone()).expect("committed");
        for args in [&["snapshots"][..], &["snapshots", "--json"], &["ls", "latest"], &["stats"], &["check"]] {
            let run = forge.place.run(args);
            assert!([0, 13].contains(&run.code), "{}: {run:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn attributes_at_their_limits() {
    for (mtime, nanos) in [(i64::MAX, 999_999_999), (i64::MIN, 0), (-1, 1)] {
        let forge = Forge::new();
        let (id, piece) = forge.data(b"hostile");
        let attributes = Attributes { mode: 0o7777, uid: 0, gid: 0, mtime, mtime_nanos: nanos };
        let entry = Entry { attributes, ..file(b"f", 7, Content::Chunks(vec![(7, id)])) };
        forge.commit_entry(vec![piece], entry);
        let target = forge.place.path("target").display().to_string();
        for args in
            [&["ls", "-l", "latest"][..], &["ls", "--json", "latest"], &["restore", "latest", "--target", &target]]
        {
            let run = forge.place.run(args);
            assert!([0, 1].contains(&run.code), "{run:?}");
        }
    }
}

// ---- the target ---------------------------------------------------------------------------------

#[test]
fn a_link_in_the_target_is_not_followed() {
    let place = Place::taken(None);
    let elsewhere = place.path("elsewhere");
    let plant = |name: &str, to: &Path| {
        let path = place.path("target").join(name);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        std::os::unix::fs::symlink(to, path).expect("linked");
    };
    let restore = |paths: &[&str]| {
        let target = place.path("target").display().to_string();
        place.run(&[&["restore", "latest", "--overwrite", "--target", &target], paths].concat())
    };
    fs::create_dir_all(elsewhere.join("deep/er")).expect("made");
    fs::write(elsewhere.join("letter.txt"), "precious").expect("written");
    fs::write(elsewhere.join("script"), "precious").expect("written");
    let before = tree(&elsewhere);
    for (name, paths) in
        [("workspace", &[][..]), ("workspace", &["workspace/letter.txt"]), ("empty", &[]), ("workspace/deep", &[])]
    {
        let _ = fs::remove_dir_all(place.path("target"));
        fs::create_dir_all(place.path("target/workspace")).expect("made");
        plant(name, &elsewhere);
        let planted = tree(&place.path("target"));
        let run = restore(paths);
        assert_eq!(run.code, 1, "{name}: {run:?}");
        assert!(run.err.contains(&place.path("target").join(name).display().to_string()), "{name}: {run:?}");
        assert_equal(&before, &tree(&elsewhere));
        assert_equal(&planted, &tree(&place.path("target")));
    }
    // A file takes a link's place.
    let _ = fs::remove_dir_all(place.path("target"));
    fs::create_dir(place.path("target")).expect("made");
    for name in ["script", "nothing", "link"] {
        plant(name, &elsewhere.join("script"));
    }
    assert_eq!(restore(&[]).code, 0);
    assert_equal(&before, &tree(&elsewhere));
    assert_equal(&tree(&place.data), &tree(&place.path("target")));
}

/// What a restore looks for beforehand can change until it writes: the writing itself follows no link either.
#[test]
fn a_link_that_is_put_into_the_target_meanwhile_is_not_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, elsewhere) = (folder.path().join("target"), folder.path().join("elsewhere"));
    fs::create_dir_all(elsewhere.join("below")).expect("made");
    fs::write(elsewhere.join("file"), "precious").expect("written");
    let target = Target::open(&root, true).expect("opened");
    std::os::unix::fs::symlink(&elsewhere, root.join("d")).expect("linked");
    std::os::unix::fs::symlink(elsewhere.join("file"), root.join("l")).expect("linked");
    let before = tree(&elsewhere);
    let attributes = Attributes { mode: 0o777, ..Attributes::default() };
    for name in ["d/new", "d/file", "d/below/new", "l"] {
        let path = Path::new(name);
        assert!(target.create(path).is_err(), "{name}");
        assert!(target.reopen(path).is_err(), "{name}");
        assert!(target.make_folder(path).is_err(), "{name}");
        assert!(target.complete_folder(path, &attributes).is_err(), "{name}");
        if name != "l" {
            assert!(target.symlink(path, b"x", &attributes, true).is_err(), "{name}");
            target.remove(path);
        }
    }
    assert!(target.complete_folder(Path::new("d"), &attributes).is_err());
    assert!(target.rename(Path::new("l"), Path::new("d/l")).is_err() || !elsewhere.join("l").is_symlink());
    assert_equal(&before, &tree(&elsewhere));
}

#[test]
fn a_link_that_an_earlier_snapshot_restored_is_not_followed() {
    let place = Place::empty();
    let elsewhere = place.path("elsewhere");
    fs::create_dir(&elsewhere).expect("made");
    std::os::unix::fs::symlink(&elsewhere, place.data.join("d")).expect("linked");
    place.ok(&["snapshot", "--tag", "link"]);
    fs::remove_file(place.data.join("d")).expect("removed");
    fs::create_dir(place.data.join("d")).expect("made");
    fs::write(place.data.join("d/file"), "x").expect("written");
    place.ok(&["snapshot", "--tag", "folder"]);
    assert_eq!(place.restore("link", "target").0.code, 0);
    let target = place.path("target").display().to_string();
    let run = place.run(&["restore", "folder", "--overwrite", "--target", &target]);
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!(tree(&elsewhere).len(), 0);
}

// ---- delta segments -----------------------------------------------------------------------------

/// Versions of one file, each in a pack of its own that builds on the one before.
fn versions(forge: &Forge, count: u8) -> (Vec<PackId>, Vec<Vec<u8>>) {
    let mut plain = noise(1, 8192);
    let (mut packs, mut plains, mut below): (Vec<PackId>, Vec<Vec<u8>>, _) = (vec![], vec![], Vec::new());
    let mut files = vec![];
    for n in 0..count {
        plain[usize::from(n) * 100] ^= 0x55;
        // Two chunks a version, as pages are.
        let chunks: Vec<(ChunkId, Vec<u8>)> =
            plain.chunks(4096).map(|bytes| (forge.keys.chunk_id(bytes), bytes.to_vec())).collect();
        let fresh: Vec<&(ChunkId, Vec<u8>)> = chunks.iter().filter(|chunk| !below.contains(*chunk)).collect();
        let mut sink = forge.sink();
        let on: Vec<(ChunkId, &[u8])> =
            below.iter().map(|(id, bytes): &(_, Vec<u8>)| (*id, bytes.as_slice())).collect();
        let segment = fresh.iter().map(|(id, bytes)| chunk(*id, bytes)).collect();
        let joined: Vec<u8> = fresh.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let length = joined.len();
        sink.add_segment(Segment::Data, segment, joined, base(&on, n)).expect("added");
        let stored = sink.flush().expect("flushed").keep().expect("kept");
        if n > 0 {
            let saved = stored[0].footer.segments[0].stored as usize;
            assert!(saved < length / 10, "{saved} of {length}: no delta");
        }
        packs.push(stored[0].id);
        let content = Content::Chunks(chunks.iter().map(|(id, bytes)| (bytes.len() as u32, *id)).collect());
        files.push(file(format!("v{n:02}").as_bytes(), plain.len() as u64, content));
        plains.push(plain.clone());
        below = chunks;
    }
    let (root, (_, tree, form)) = forge.directory(files);
    forge.commit(&[(Segment::Tree, tree, form)], root);
    (packs, plains)
}

#[test]
fn a_delta_segment_is_read_back() {
    let forge = Forge::new();
    let (_, plains) = versions(&forge, 17);
    assert_eq!(forge.check(), Vec::<String>::new());
    forge.place.ok(&["check", "--read-data"]);
    let (run, target) = forge.place.restore("latest", "target");
    assert_eq!(run.code, 0, "{run:?}");
    for (n, plain) in plains.iter().enumerate() {
        let name = format!("v{n:02}");
        assert_eq!(&fs::read(target.join(&name)).expect("restored"), plain);
        assert_eq!(&forge.place.ok(&["cat", "latest", &name]).raw, plain);
    }
}

#[test]
fn a_base_that_is_missing_or_damaged_takes_what_builds_on_it() {
    for (lost, gone) in [(0usize, true), (2, true), (0, false), (2, false), (4, false)] {
        let forge = Forge::new();
        let (packs, plains) = versions(&forge, 5);
        let path = forge.place.repo.join(Key::new(Kind::Pack, packs[lost].0).to_string());
        if gone {
            fs::remove_file(&path).expect("removed");
        } else {
            let mut bytes = fs::read(&path).expect("read");
            bytes[80] ^= 1;
            fs::write(&path, bytes).expect("written");
        }
        let (run, target) = forge.place.restore("latest", "target");
        assert_eq!(run.code, 13, "{run:?}");
        let check = forge.place.run(&["check", "--read-data"]);
        assert_eq!(check.code, 13, "{check:?}");
        for (n, plain) in plains.iter().enumerate() {
            let name = format!("v{n:02}");
            let dead = n >= lost;
            assert_eq!(run.err.contains(&format!("not restored: {name}:")), dead, "{name}: {run:?}");
            assert_eq!(check.out.lines().any(|line| line.trim() == name), dead, "{name}: {check:?}");
            assert_eq!(fs::read(target.join(&name)).ok().as_ref(), (!dead).then_some(plain), "{name}");
        }
        if gone {
            let plain_check = forge.place.run(&["check"]);
            assert_eq!(plain_check.code, 13, "{plain_check:?}");
            assert!(plain_check.out.contains(&format!("v{:02}", plains.len() - 1)), "by the footers: {plain_check:?}");
        }
    }
}
