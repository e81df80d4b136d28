//! What fuzzing begins from: valid encodings, near misses, and lies that were thought of beforehand.
//!
//! The layouts are written out by hand where the house's own encoder would refuse, or would not lie.

use nbak::codec::{put_bytes, put_varint};
use nbak::crypto::secret::{Credential, Secret};
use nbak::crypto::slot::Slot;
use nbak::id::{ChunkId, RecipeId, SnapshotId, StoreId, TreeId};
use nbak::snapshot::recipe::{Lengths, Recipe};
use nbak::snapshot::record::{Record, Totals};
use nbak::snapshot::tree::{Attributes, Consistency, Content, Entry, Node, Tree};
use nbak::store::pack::{Header, encode_trailer};

#[path = "export_seeds.rs"]
mod export_seeds;

type Seed = (&'static str, String, Vec<u8>);

pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |target: &'static str, of: Vec<(String, Vec<u8>)>| {
        seeds.extend(of.into_iter().map(|(name, data)| (target, name, data)));
    };
    add("backup_names", export_seeds::backup_names());
    add("chunker", chunker());
    add("drive_reply", drive_reply());
    add("key_slot", key_slot());
    add("manifest", export_seeds::manifest());
    add("nbak", nbak());
    add("pack_footer", pack_footer());
    add("recipe_and_tree", recipe_and_tree());
    add("record", record());
    add("sqlite_header_wal", sqlite_header_wal());
    seeds
}

type Named = Vec<(String, Vec<u8>)>;

fn drive_reply() -> Named {
    let (md5, sha) = ("0f".repeat(16), "ab".repeat(32));
    named([
        ("empty", b"{}".to_vec()),
        (
            "page",
            br#"{"files":[{"id":"a-_9","name":"history.db","mimeType":"application/octet-stream","size":"7"}],
                "nextPageToken":"t"}"#
                .to_vec(),
        ),
        (
            "file",
            format!(
                r#"{{"id":"x1","name":"a/b","size":"3","md5Checksum":"{md5}","sha256Checksum":"{sha}",
                    "appProperties":{{"nbak_path":"a/b"}}}}"#
            )
            .into_bytes(),
        ),
        ("folder", br#"{"id":"f","name":"..","mimeType":"application/vnd.google-apps.folder"}"#.to_vec()),
        ("incomplete", br#"{"incompleteSearch":true,"files":[]}"#.to_vec()),
        ("bad id", br#"{"files":[{"id":"../x"}]}"#.to_vec()),
        ("bad size", br#"{"id":"a","size":"-1"}"#.to_vec()),
        ("control", b"{\"id\":\"a\",\"name\":\"\\u001b[2J\"}".to_vec()),
        ("a list", b"[[],[],1]".to_vec()),
    ])
}

fn named<const N: usize>(seeds: [(&str, Vec<u8>); N]) -> Named {
    seeds.into_iter().map(|(name, data)| (name.to_owned(), data)).collect()
}

fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, value);
    out
}

fn bytes(of: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, of);
    out
}

/// `first`, and then the parts, joined.
fn join(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[first], parts.concat().as_slice()].concat()
}

// ---- packs --------------------------------------------------------------------------------------

struct Segment {
    stored: u64,
    content: u8,
    codec: u8,
    depth: u8,
    bases: Vec<u8>,
    chunks: Vec<(u64, u8)>,
}

fn segment(stored: u64, chunks: &[(u64, u8)]) -> Segment {
    Segment { stored, content: 0, codec: 0, depth: 0, bases: Vec::new(), chunks: chunks.to_vec() }
}

fn tables(segments: &[Segment], records: &[&[u8]]) -> Vec<u8> {
    let mut out = varint(segments.len() as u64);
    for segment in segments {
        put_varint(&mut out, segment.stored);
        out.extend_from_slice(&[segment.content, segment.codec, segment.depth]);
        put_varint(&mut out, segment.bases.len() as u64);
        put_varint(&mut out, segment.chunks.len() as u64);
    }
    segments.iter().flat_map(|s| &s.chunks).for_each(|(length, _)| put_varint(&mut out, *length));
    segments.iter().flat_map(|s| &s.chunks).for_each(|(_, id)| out.extend_from_slice(&[*id; 16]));
    segments.iter().flat_map(|s| &s.bases).for_each(|id| out.extend_from_slice(&[*id; 16]));
    put_varint(&mut out, records.len() as u64);
    for record in records {
        put_bytes(&mut out, record);
    }
    out
}

fn pack_footer() -> Named {
    let deep = |depth: u8, bases: &[u8]| Segment { depth, bases: bases.to_vec(), ..segment(50, &[(34, 3)]) };
    let of = |content, codec| Segment { content, codec, ..segment(40, &[(24, 9)]) };
    let first = || segment(66, &[(30, 1), (20, 2)]);
    let plain = |codec: u8, length: u32, body: &[u8]| join(0, &[&[codec], &length.to_le_bytes(), body]);
    let valid = tables(&[first(), deep(1, &[1])], &[b"{}"]);
    let header = |pack: u8| {
        let header = Header { store: StoreId([0x53; 16]), pack: nbak::id::PackId([pack; 16]), salt: [7; 32] };
        header.encode().to_vec()
    };
    let zeros = |count: u64| {
        // Frames that zstd would make of this many zeros: run-length blocks, four bytes for 128 KiB.
        let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
        let blocks = count.div_ceil(128 << 10);
        for block in 0..blocks {
            let size = (128 << 10).min(count - block * (128 << 10)) as u32;
            let word = u32::from(block + 1 == blocks) | 1 << 1 | size << 3;
            out.extend_from_slice(&word.to_le_bytes()[..3]);
            out.push(0);
        }
        out
    };
    let large = |tables: &[Vec<u8>]| {
        let tables = tables.concat();
        plain(1, tables.len() as u32, &zstd_of(&tables))
    };
    let million = [&[0, 0, 0, 0, 0], varint(1 << 16).as_slice()].concat().repeat(16);
    let mut seeds = named([
        ("nothing", join(1, &[])),
        ("empty", join(1, &[&tables(&[], &[])])),
        ("record only", join(1, &[&tables(&[], &[b"{\"format\":1}"])])),
        ("records", join(1, &[&tables(&[], &[b"", b"a", &[b'r'; 300]])])),
        ("valid", join(1, &[&valid])),
        ("valid, compressed", join(2, &[&valid])),
        ("valid, as plain", plain(0, valid.len() as u32, &valid)),
        ("left over", join(1, &[&valid, &[0]])),
        ("cut short", join(1, &[&valid[..valid.len() - 1]])),
        ("trees and recipes", join(1, &[&tables(&[of(1, 0), segment(30, &[(14, 5)]), of(2, 1)], &[])])),
        ("kinds unknown", join(1, &[&tables(&[of(3, 0)], &[])])),
        ("codec unknown", join(1, &[&tables(&[of(0, 2)], &[])])),
        ("chunk twice", join(1, &[&tables(&[segment(66, &[(30, 1), (20, 1)])], &[])])),
        ("chunk twice, apart", join(1, &[&tables(&[first(), segment(20, &[(4, 2)])], &[])])),
        ("chunks of no length", join(1, &[&tables(&[segment(16, &[(0, 1), (0, 2)])], &[])])),
        ("segment shorter than a seal", join(1, &[&tables(&[segment(3, &[(3, 1)])], &[])])),
        ("segment without chunks", join(1, &[&tables(&[segment(20, &[])], &[])])),
        ("depth without bases", join(1, &[&tables(&[deep(1, &[])], &[])])),
        ("bases without depth", join(1, &[&tables(&[deep(0, &[1])], &[])])),
        ("deepest", join(1, &[&tables(&[first(), deep(16, &[1, 2, 1])], &[])])),
        ("too deep", join(1, &[&tables(&[first(), deep(17, &[1])], &[])])),
        ("built on itself", join(1, &[&tables(&[deep(16, &[3; 40])], &[])])),
        ("built on what is missing", join(1, &[&tables(&[deep(1, &[0xee])], &[])])),
        ("plain too large", join(1, &[&tables(&[segment(99, &[(1 << 26, 1), (1, 2)])], &[])])),
        ("chunk largest", join(1, &[&tables(&[segment(99, &[(1 << 26, 1)])], &[])])),
        ("chunk too large", join(1, &[&tables(&[segment(99, &[((1 << 26) + 1, 1)])], &[])])),
        ("stored largest", join(1, &[&tables(&[segment((1 << 26) + 16, &[(1, 1)])], &[])])),
        ("stored too large", join(1, &[&tables(&[segment((1 << 26) + 17, &[(1, 1)])], &[])])),
        ("counts of segments", join(1, &[&varint(u64::MAX), &[0; 64]])),
        ("counts of segments, 65535", large(&[varint(0xffff), vec![0; 6 * 0xffff]])),
        ("counts of segments, 65536", large(&[varint(1 << 16), vec![0; 6 << 16]])),
        ("counts of chunks, a million", large(&[vec![16], million, vec![0; 17 << 20]])),
        ("counts of chunks", join(1, &[&[1, 20, 0, 0, 0, 0], &varint(1 << 16), &[0; 64]])),
        ("counts of chunks, too many", join(1, &[&[1, 20, 0, 0, 0, 0], &varint((1 << 16) + 1), &[0; 64]])),
        ("counts of bases", join(1, &[&[1, 20, 0, 0, 1], &varint(4097), &[1; 64]])),
        ("counts of bases, more than there are", join(1, &[&[1, 20, 0, 0, 1], &varint(4096), &[1; 64]])),
        ("counts of records", join(1, &[&[0], &varint(u64::MAX), &[0; 8]])),
        ("counts of records, 4097", join(1, &[&[0], &varint(4097), &[0; 4097]])),
        ("record of a length", join(1, &[&[0, 1], &varint(u64::MAX), b"x"])),
        (
            "record too large",
            plain(
                1,
                65_541,
                &[zstd_of(&[&[0, 1], varint(65_537).as_slice(), vec![0; 65_537].as_slice()].concat())].concat(),
            ),
        ),
        ("number too long", join(1, &[&[0x80, 0x00]])),
        ("number not shortest", join(1, &[&[0x80, 0x00, 0x00]])),
        ("counts of records, 16 million", join(1, &[&[0], &varint(1 << 24), &[0; 8]])),
        ("counts of segments, 65535 of none", join(1, &[&varint(0xffff), &[0; 64]])),
        ("number too large", join(1, &[&[0xff; 12]])),
        ("length lies, raw", plain(0, 0xffff_ffff, &valid)),
        ("length lies, compressed", plain(1, 1 << 26, &zeros(40))),
        ("length too large", plain(1, (1 << 26) + 1, &zeros(40))),
        ("not a frame", plain(1, 100, b"no zstd here")),
        ("bomb", plain(1, 1 << 26, &zeros(1 << 26))),
        ("bomb longer than it says", plain(1, 1000, &zeros(1 << 20))),
        ("codec of the footer unknown", plain(7, 3, &valid)),
        ("object, empty", join(3, &[])),
        ("object, trailer only", join(3, &[&header(0x50), &encode_trailer(0)])),
        ("object, footer of zeros", join(3, &[&header(0x50), &[0; 40], &encode_trailer(40)])),
        ("object, footer longer than it", join(3, &[&header(0x50), &encode_trailer(1 << 20)])),
        ("object, footer longest", join(3, &[&header(0x50), &encode_trailer(u32::MAX)])),
        ("object, another's name", join(3, &[&header(0x51), &[0; 16], &encode_trailer(16)])),
        ("object, no trailer", join(3, &[&header(0x50), &[0; 32]])),
    ]);
    for count in [2u8, 17, 60] {
        let many: Vec<Segment> = (1..=count).map(|n| segment(17, &[(1, n)])).collect();
        seeds.push((format!("segments, {count}"), join(1, &[&tables(&many, &[])])));
    }
    seeds
}

fn zstd_of(plain: &[u8]) -> Vec<u8> {
    nbak::store::segment::compress(plain, &[]).expect("zstd compresses anything").1
}

// ---- recipes and trees --------------------------------------------------------------------------

fn pages(ids: &[u8], size: u64) -> Vec<u8> {
    Recipe { size, lengths: Lengths::Fixed(4096), ids: ids.iter().map(|n| ChunkId([*n; 16])).collect() }.encode()
}

fn cut(ids: &[u8]) -> Vec<u8> {
    let lengths: Vec<u32> = ids.iter().map(|n| u32::from(*n) + 5000).collect();
    let size = lengths.iter().map(|length| u64::from(*length)).sum();
    Recipe { size, lengths: Lengths::Each(lengths), ids: ids.iter().map(|n| ChunkId([*n; 16])).collect() }.encode()
}

fn entry(name: &[u8], node: Node) -> Entry {
    let attributes = Attributes { mode: 0o644, uid: 1000, gid: 1000, mtime: -5, mtime_nanos: 7 };
    Entry { name: name.to_vec(), attributes, node }
}

fn file(name: &[u8], n: u8) -> Entry {
    let content = Content::Chunks(vec![(10, ChunkId([n; 16]))]);
    entry(name, Node::File { size: 10, consistency: Consistency::Stable, content })
}

fn tree(entries: &[Entry]) -> Vec<u8> {
    Tree { entries: entries.to_vec() }.encode()
}

fn recipe_and_tree() -> Named {
    let mut seeds = recipes();
    seeds.extend(trees());
    seeds.extend(chains());
    seeds
}

fn recipes() -> Named {
    let step = |numbers: &[u64]| numbers.iter().flat_map(|n| varint(*n)).collect::<Vec<u8>>();
    let on = |base: &[u8], patch: &[&[u8]]| join(0, &[&bytes(base), &patch.concat()]);
    let (three, cuts) = (pages(&[1, 2, 3], 12_000), cut(&[1, 2, 3]));
    let id = [9; 16];
    named([
        ("recipe, pages", join(0, &[&three])),
        ("recipe, no pages", join(0, &[&pages(&[], 0)])),
        ("recipe, zeros", join(0, &[&pages(&[0, 0, 0, 0], 16_384)])),
        ("recipe, cuts", join(0, &[&cuts])),
        ("recipe, no cuts", join(0, &[&cut(&[])])),
        ("recipe, kind unknown", join(0, &[&[2, 0, 0]])),
        ("recipe, unit of zero", join(0, &[&[0, 0, 0, 0]])),
        ("recipe, unit too large", join(0, &[&[0], &varint((1 << 26) + 1), &[0, 0]])),
        ("recipe, a page too many", join(0, &[&pages(&[1, 2], 4096)])),
        ("recipe, a page too few", join(0, &[&pages(&[1, 2], 9000)])),
        ("recipe, left over", join(0, &[&three, &[0]])),
        ("recipe, cut short", join(0, &[&three[..three.len() - 1]])),
        ("recipe, counts", join(0, &[&[0, 1], &varint(u64::MAX), &varint(u64::MAX)])),
        ("recipe, counts cuts", join(0, &[&[1], &varint(u64::MAX), &varint(1 << 60), &[0; 32]])),
        ("recipe, counts 16 million", join(0, &[&[0, 1], &varint(1 << 24), &varint(1 << 24), &[0; 32]])),
        ("recipe, counts 16 million cuts", join(0, &[&[1], &varint(1 << 24), &varint(1 << 24), &[0; 32]])),
        ("recipe, number not shortest", join(0, &[&[0, 0x81, 0, 0, 0]])),
        ("recipe, size of 64 bits", join(0, &[&[0], &varint(1 << 26), &varint(u64::MAX), &[1], &id])),
        ("recipe, cuts of no length", join(0, &[&[1, 0, 2, 0, 0], &id, &id])),
        ("recipe, cuts make another size", join(0, &[&[1, 9, 1, 8], &id])),
        ("patch, copies all", on(&three, &[&step(&[12_000, 1, 3, 0, 0])])),
        ("patch, changes one", on(&three, &[&step(&[12_000, 2, 1, 1, 1, 1, 0, 0]), &id])),
        ("patch, inserts", on(&three, &[&step(&[12_289, 1, 3, 0, 1]), &id])),
        ("patch, drops all", on(&three, &[&step(&[0, 1, 0, 3, 0])])),
        ("patch, no steps", on(&three, &[&step(&[0, 0])])),
        ("patch, of cuts", on(&cuts, &[&step(&[10_014, 1, 1, 1, 1, 5007]), &id, &[0]])),
        ("patch, of cuts, right", on(&cuts, &[&step(&[10_010, 2, 1, 1, 1, 1, 0, 0, 6]), &id])),
        ("patch, copies beyond", on(&three, &[&step(&[12_000, 1, 4, 0, 0])])),
        ("patch, drops beyond", on(&three, &[&step(&[12_000, 2, 3, 0, 0, 0, 1, 0])])),
        ("patch, copies too much", on(&three, &[&step(&[0, 1, 65_537, 0, 0])])),
        ("patch, inserts too much", on(&three, &[&step(&[0, 1, 0, 0, 65_536])])),
        ("patch, inserts again and again", on(&three, &[&step(&[0, 3, 0, 0, 65_536, 0, 0, 65_536, 0, 0, 65_536])])),
        ("patch, counts steps", on(&three, &[&step(&[0, u64::MAX]), &[0; 30]])),
        ("patch, counts 16 million steps", on(&three, &[&step(&[0, 1 << 24]), &[0; 30]])),
        ("patch, steps that do nothing", on(&three, &[&step(&[12_000, 9]), &[0; 24], &step(&[3, 0, 0])])),
        ("two recipes", on(&three, &[&pages(&[1, 7, 3, 4], 16_384)])),
        ("two recipes of cuts", on(&cuts, &[&cut(&[1, 2, 9, 9, 3])])),
        ("two recipes of two kinds", on(&cuts, &[&three])),
        ("two recipes, alternating", on(&pages(&[1; 40], 163_840), &[&pages(&[1, 2].repeat(20), 163_840)])),
        ("two recipes, shorter", on(&pages(&[1; 40], 163_840), &[&pages(&[1; 3], 12_288)])),
    ])
}

fn trees() -> Named {
    let on = |base: &[u8], patch: &[&[u8]]| join(1, &[&bytes(base), &patch.concat()]);
    let all = [
        entry(b"a", Node::Directory(TreeId([1; 16]))),
        entry(b"b", Node::Symlink(b"../../x".to_vec())),
        file(b"c", 1),
        entry(
            b"d.db",
            Node::File {
                size: 1 << 40,
                consistency: Consistency::Transaction,
                content: Content::Recipes(vec![RecipeId([4; 16]), RecipeId([5; 16])]),
            },
        ),
        entry(
            b"e\xff\n",
            Node::File { size: 0, consistency: Consistency::Changed, content: Content::Chunks(Vec::new()) },
        ),
    ];
    let whole = tree(&all);
    let two = tree(&[file(b"a", 1), file(b"b", 2)]);
    let one = |entry: Entry| join(1, &[&tree(&[entry])]);
    let raw = |tail: &[u8]| join(1, &[&[1, 1, b'a'], tail]);
    let attributes = |mtime| Entry { attributes: Attributes { mtime, ..all[2].attributes }, ..all[2].clone() };
    let names: [(&str, &[u8]); 7] = [
        ("empty", b""),
        ("dot", b"."),
        ("dots", b".."),
        ("path", b"a/b"),
        ("absolute", b"/etc/passwd"),
        ("nul", b"a\0b"),
        ("three dots", b"..."),
    ];
    let mut seeds = named([
        ("tree, all kinds", join(1, &[&whole])),
        ("tree, empty", join(1, &[&tree(&[])])),
        ("tree, left over", join(1, &[&whole, &[0]])),
        ("tree, cut short", join(1, &[&whole[..whole.len() - 1]])),
        ("tree, name twice", join(1, &[&tree(&[file(b"a", 1), file(b"a", 2)])])),
        ("tree, out of order", join(1, &[&tree(&[file(b"b", 1), file(b"a", 2)])])),
        ("tree, name long", one(file(&[b'n'; 4096], 1))),
        ("tree, name too long", one(file(&[b'n'; 4097], 1))),
        ("tree, target empty", one(entry(b"l", Node::Symlink(Vec::new())))),
        ("tree, target with nul", one(entry(b"l", Node::Symlink(b"a\0".to_vec())))),
        ("tree, time before all", one(attributes(i64::MIN))),
        ("tree, time after all", one(attributes(i64::MAX))),
        ("tree, counts", join(1, &[&varint(u64::MAX), &[0; 40]])),
        ("tree, name of a length", join(1, &[&[1], &varint(u64::MAX), &[0; 40]])),
        ("tree, kind unknown", raw(&[5, 0, 0, 0, 0, 0, 0, 0])),
        ("tree, mode too large", raw(&[0, 0x80, 0x20, 0, 0, 0, 0, 0, 0])),
        ("tree, owner too large", raw(&[&[0, 0], varint(1 << 32).as_slice(), &[0, 0, 0, 0, 0]].concat())),
        ("tree, nanoseconds too many", raw(&[&[0, 0, 0, 0, 0], varint(1_000_000_000).as_slice(), &[0, 0]].concat())),
        ("tree, counts chunks", raw(&[&[0, 0, 0, 0, 0, 0, 9], varint(u64::MAX - 1).as_slice(), &[0; 20]].concat())),
        ("tree, counts recipes", raw(&[&[2, 0, 0, 0, 0, 0, 9], varint(u64::MAX).as_slice(), &[0; 20]].concat())),
        (
            "tree, counts 16 million chunks",
            raw(&[&[0, 0, 0, 0, 0, 0, 9], varint(1 << 25).as_slice(), &[0; 20]].concat()),
        ),
        (
            "tree, counts 16 million recipes",
            raw(&[&[2, 0, 0, 0, 0, 0, 9], varint(1 << 25 | 1).as_slice(), &[0; 20]].concat()),
        ),
        ("tree, counts 16 million", join(1, &[&varint(1 << 24), &[0; 40]])),
        ("tree, number not shortest", join(1, &[&[0x80, 0]])),
        ("tree, chunks make another size", raw(&[&[0, 0, 0, 0, 0, 0, 9, 2, 8], [7; 16].as_slice()].concat())),
        ("tree, no recipes", raw(&[1, 0, 0, 0, 0, 0, 9, 1])),
        ("tree patch, nothing", on(&two, &[&[0, 0]])),
        ("tree patch, removes", on(&two, &[&[1], &bytes(b"a"), &[0]])),
        ("tree patch, removes what is not there", on(&two, &[&[1], &bytes(b"z"), &[0]])),
        ("tree patch, removes twice", on(&two, &[&[2], &bytes(b"a"), &bytes(b"a"), &[0]])),
        ("tree patch, puts", on(&two, &[&[0], &tree(&[file(b"ab", 3), file(b"b", 9)])])),
        ("tree patch, puts and removes the same", on(&two, &[&[1], &bytes(b"a"), &tree(&[file(b"a", 3)])])),
        ("tree patch, puts twice", on(&two, &[&[0], &tree(&[file(b"c", 3), file(b"c", 4)])])),
        ("tree patch, puts dots", on(&two, &[&[0], &tree(&[file(b"..", 3)])])),
        ("tree patch, counts removed", on(&two, &[&varint(u64::MAX), &[0; 9]])),
        ("tree patch, counts put", on(&two, &[&[0], &varint(1 << 62), &[0; 90]])),
        ("two trees", on(&two, &[&whole])),
        ("two trees, one empty", on(&tree(&[]), &[&two])),
    ]);
    seeds.extend(names.map(|(what, name)| (format!("tree, name is {what}"), one(file(name, 1)))));
    seeds
}

/// Stored versions: the byte after the form says which earlier version is meant.
fn chains() -> Named {
    let whole = |value: &[u8]| bytes(&join(0, &[value]));
    let patch = |base: u8, ordinal: u64, patch: &[u8]| bytes(&join(1, &[&[base], &[0; 15], &varint(ordinal), patch]));
    let twenty: Vec<u8> = (1..=20).collect();
    let first = whole(&pages(&twenty, 20 * 4096));
    let change = |n: u8| {
        let steps: Vec<u8> = [20 * 4096, 2, 1, 1, 1, 18, 0, 0].into_iter().flat_map(varint).collect();
        [steps, vec![n; 16]].concat()
    };
    let two = whole(&tree(&[file(b"a", 1), file(b"b", 2)]));
    let put = |n: u8| [vec![0], tree(&[file(b"b", n)])].concat();
    let rows: Vec<u8> = (0..10).flat_map(|n| patch(n, u64::from(n) + 1, &change(n + 20))).collect();
    let far: Vec<u8> =
        (0..9).flat_map(|n| patch(if n == 7 { 0 } else { n }, u64::from(n) + 1, &change(n + 20))).collect();
    named([
        ("versions, one", join(2, &[&first])),
        ("versions, two", join(2, &[&first, &patch(0, 1, &change(9))])),
        ("versions, one after the other", join(2, &[&first, &rows])),
        ("versions, with a far base", join(2, &[&first, &far])),
        ("versions, many on one", join(2, &[&first, &patch(0, 1, &change(8)), &patch(0, 1, &change(9))])),
        ("versions, on themselves", join(2, &[&first, &patch(1, 1, &change(9))])),
        ("versions, on what is damaged", join(2, &[&whole(b"\x07"), &patch(0, 1, &change(9))])),
        ("versions, patch for another", join(2, &[&whole(&cut(&[1, 2])), &patch(0, 1, &change(9))])),
        ("versions, ordinal of a whole", join(2, &[&first, &patch(0, 0, &change(9))])),
        ("versions, ordinal of a far base", join(2, &[&first, &patch(0, 7, &change(9)), &patch(1, 511, &change(8))])),
        ("versions, form unknown", join(2, &[&first, &bytes(&[2, 0, 0])])),
        ("versions, under another id", join(2, &[&bytes(&join(0x80, &[&cut(&[1, 2])])), &first])),
        ("versions, patch under another id", join(2, &[&first, &bytes(&join(0x81, &[&[0; 16], &[1], &change(9)]))])),
        ("versions, nothing stored", join(2, &[&first, &bytes(&[])])),
        ("versions, patch cut short", join(2, &[&first, &bytes(&[1, 0, 0])])),
        ("versions of trees", join(3, &[&two, &patch(0, 1, &put(9)), &patch(1, 2, &put(8))])),
        ("versions of trees, on themselves", join(3, &[&patch(0, 1, &put(9)), &two])),
        ("versions of trees, with a name that leads elsewhere", join(3, &[&whole(&tree(&[file(b"..", 1)]))])),
    ])
}

// ---- records ------------------------------------------------------------------------------------

fn record() -> Named {
    let small = Record {
        id: SnapshotId([0x1d; 16]),
        sequence: 1,
        previous: None,
        parent: None,
        instance: None,
        apart: Vec::new(),
        started: 1_774_408_800_000,
        ended: 1_774_408_801_000,
        source: "/data".into(),
        tree: TreeId([0x2e; 16]),
        root: Attributes { mode: 0o700, uid: 0, gid: 0, mtime: 1_774_408_800, mtime_nanos: 1 },
        totals: Totals::default(),
        unreadable: Vec::new(),
        unreadable_count: 0,
        tags: Vec::new(),
        note: None,
        program: "0.1.0".into(),
    };
    let full = Record {
        sequence: u64::MAX,
        previous: Some([9; 16]),
        parent: Some(SnapshotId([3; 16])),
        instance: None,
        apart: Vec::new(),
        started: i64::MIN,
        ended: i64::MAX,
        source: "/d\u{1b}[31m \u{202e}\"\\\u{0}".into(),
        totals: Totals { files: u64::MAX, databases: 1, directories: 2, symlinks: 3, bytes: u64::MAX },
        unreadable: vec![("a".into(), "a socket".into()), ("../b".into(), String::new())],
        unreadable_count: 2,
        tags: vec!["daily".into(), String::new()],
        note: Some("n".into()),
        ..small.clone()
    };
    let text = String::from_utf8(small.encode()).expect("JSON is text");
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1).into_bytes()
    };
    let many: Vec<String> = (0..120).map(|n| format!("[\"{n}\",\"x\"]")).collect();
    let stamp = [vec![1, 2, 3], vec![10, 0], vec![10, 0]].concat();
    let receipt =
        |path: &[u8], flags: u8, more: &[u8]| [bytes(path), stamp.clone(), vec![flags], more.to_vec()].concat();
    let receipts = |list: &[Vec<u8>]| [vec![7; 16], varint(list.len() as u64), list.concat()].concat();
    named([
        ("small", small.encode()),
        ("full", full.encode()),
        ("nothing", Vec::new()),
        ("empty", b"{}".to_vec()),
        ("no object", b"[]".to_vec()),
        ("cut short", text.as_bytes()[..100].to_vec()),
        ("left over", text.bytes().chain(*b" x").collect()),
        ("field unknown", with("\"format\":1", "\"format\":1,\"later\":{\"a\":[1,2.5e300,null]}")),
        ("field twice", with("\"format\":1", "\"format\":1,\"format\":1")),
        ("format of later", with("\"format\":1", "\"format\":2")),
        ("format negative", with("\"format\":1", "\"format\":-1")),
        ("id short", with("1d1d", "1d")),
        ("id of capitals", with("1d1d", "1D1D")),
        ("id not hexadecimal", with("1d1d", "zzzz")),
        ("mode too large", with("[448,", "[4096,")),
        ("nanoseconds too many", with(",1]", ",1000000000]")),
        ("root too long", with(",1]", ",1,1]")),
        ("number of a fraction", with("\"sequence\":1", "\"sequence\":1.5")),
        ("number too large", with("\"sequence\":1", "\"sequence\":18446744073709551616")),
        ("time out of range", with("1774408800000", "9223372036854775807")),
        ("surrogate alone", with("/data", "\\ud800")),
        ("not UTF-8", text.bytes().map(|byte| if byte == b'/' { 0xff } else { byte }).collect()),
        ("unreadable, many", with("\"format\":1", &format!("\"format\":1,\"unreadable\":[{}]", many.join(",")))),
        ("deep", with("\"format\":1", &format!("\"x\":{}{},\"format\":1", "[".repeat(200), "]".repeat(200)))),
        ("receipts", receipts(&[receipt(b"a", 0, &[]), receipt(b"b.db", 3, &stamp), receipt(b"c.db", 1, &[])])),
        ("receipts, none", receipts(&[])),
        ("receipts, flags unknown", receipts(&[receipt(b"a", 0xff, &[stamp.clone(), stamp.clone()].concat())])),
        ("receipts, counts", [vec![7; 16], varint(u64::MAX), vec![0; 40]].concat()),
        ("receipts, path twice", receipts(&[receipt(b"a", 0, &[]), receipt(b"a", 0, &[])])),
        ("receipts, path of a length", [vec![7; 16], vec![1], varint(u64::MAX), vec![0; 40]].concat()),
        (
            "receipts, times of 64 bits",
            [vec![7; 16], vec![1, 1, b'a', 1, 2, 3], [varint(u64::MAX), varint(u64::MAX)].concat().repeat(2), vec![0]]
                .concat(),
        ),
    ])
}

// ---- key slots ----------------------------------------------------------------------------------

/// A slot without its checksum.
fn slot(method: u8, argon2: [u32; 3], label: &[u8]) -> Vec<u8> {
    let mut out = b"nbakslot\x01".to_vec();
    out.push(method);
    out.extend_from_slice(&[0x53; 16]);
    out.extend_from_slice(&[0x1d; 16]);
    out.extend_from_slice(&1_774_408_800u64.to_le_bytes());
    for number in argon2 {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&[0x5a; 32 + 16 + 12 + 32 + 16]);
    out.push(label.len() as u8);
    out.extend_from_slice(label);
    out
}

fn key_slot() -> Named {
    let strong = Credential::VaultKey("k".repeat(44));
    let made = Slot::new(StoreId([0x53; 16]), &Secret::random(), Some(&strong), 5, "mine").expect("a key");
    let sound = slot(1, [0; 3], b"mine");
    let with = |at: usize, byte: u8| {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        bytes
    };
    named([
        ("nothing", Vec::new()),
        ("short", vec![0; 15]),
        ("made", made.bytes().to_vec()),
        ("made, flipped", made.bytes().iter().enumerate().map(|(at, b)| b ^ u8::from(at == 40)).collect()),
        ("open", slot(0, [0; 3], b"")),
        ("vault key", sound.clone()),
        ("passphrase", slot(2, [64, 1, 1], "Schl\u{fc}ssel".as_bytes())),
        ("passphrase, no memory", slot(2, [0, 1, 1], b"")),
        ("passphrase, no passes", slot(2, [64, 0, 1], b"")),
        ("passphrase, no lanes", slot(2, [64, 1, 0], b"")),
        ("passphrase, lanes of 32 bits", slot(2, [64, 1, u32::MAX], b"")),
        ("passphrase, memory of 32 bits", slot(2, [u32::MAX, 1, 1], b"")),
        ("passphrase, passes of 32 bits", slot(2, [512, u32::MAX, 4], b"")),
        ("label longest", slot(1, [0; 3], &[b'l'; 255])),
        ("label not UTF-8", slot(1, [0; 3], b"\xff\xfe")),
        ("label with controls", slot(1, [0; 3], b"\x1b[2J\r\n\0")),
        ("label longer than it", with(158, 200)),
        ("label shorter than it", with(158, 1)),
        ("magic", with(0, b'N')),
        ("version", with(8, 2)),
        ("method unknown", with(9, 3)),
        ("time before 1970", with(49, 0x80)),
        ("cut short", sound[..150].to_vec()),
        ("left over", [sound.as_slice(), &[0]].concat()),
    ])
}

// ---- databases ----------------------------------------------------------------------------------

fn sqlite_header_wal() -> Named {
    let mut head = b"SQLite format 3\0\x10\0\x02\x02\0\x40\x20\x20".to_vec();
    head.resize(100, 0);
    (head[27], head[31], head[95]) = (3, 7, 3);
    let with = |at: usize, to: &[u8]| {
        let mut bytes = head.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        join(0, &[&bytes])
    };
    let wal = |big: bool, page: u32| {
        let words = [0x377f_0682 | u32::from(big), 3_007_000, page, 7, 11, 22];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let (mut s1, mut s2) = (0u32, 0u32);
        for pair in bytes.chunks_exact(8) {
            let of = |b: &[u8]| {
                let b = [b[0], b[1], b[2], b[3]];
                if big { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) }
            };
            s1 = s1.wrapping_add(of(&pair[..4])).wrapping_add(s2);
            s2 = s2.wrapping_add(of(&pair[4..])).wrapping_add(s1);
        }
        bytes.extend([s1, s2].iter().flat_map(|word| word.to_be_bytes()));
        bytes
    };
    named([
        ("database", join(0, &[&head])),
        ("database, and more", join(0, &[&head, &[9; 40]])),
        ("database, short", join(0, &[&head[..99]])),
        ("database, page of 64 KiB", with(16, &[0, 1])),
        ("database, page of 512", with(16, &[2, 0])),
        ("database, page of 256", with(16, &[1, 0])),
        ("database, page of 0", with(16, &[0, 0])),
        ("database, page no power of two", with(16, &[0x11, 0])),
        ("database, all reserved", with(16, &[2, 0, 2, 2, 255])),
        ("database, most reserved", with(16, &[2, 0, 2, 2, 32])),
        ("database, version of later", with(18, &[9, 2])),
        ("database, version unreadable", with(18, &[1, 3])),
        ("database, fractions", with(21, &[64, 32, 31])),
        ("database, count is stale", with(27, &[4])),
        ("database, count of 32 bits", with(28, &[0xff; 4])),
        ("log, little", join(1, &[&wal(false, 512)])),
        ("log, big", join(1, &[&wal(true, 65_536)])),
        ("log, a frame that is none", join(1, &[&wal(false, 512), &[0; 536]])),
        ("log, a frame cut short", join(1, &[&wal(false, 512), &[1; 100]])),
        ("log, page too small", join(1, &[&wal(false, 256)])),
        ("log, page of 32 bits", join(1, &[&wal(false, 1 << 31)])),
        ("log, short", join(1, &[&wal(false, 512)[..31]])),
        ("frames, none", join(2, &[&[0]])),
        ("frames, little", join(2, &[&[0, 3, 0, 1, 0, 1, 3, 2, 0, 3, 0, 3, 0, 9, 2, 4, 0]])),
        ("frames, big", join(2, &[&[1, 3, 0, 1, 0, 1, 3, 2, 0, 3, 0, 3, 0, 9, 9, 4, 0]])),
        ("frames, same page", join(2, &[&[1], &[5, 5, 0, 0].repeat(40)])),
        ("frames, one flips", join(2, &[&[0, 3, 0, 1, 0, 1, 3, 2, 0x85, 3, 0, 3, 0]])),
        ("frames, page of zero", join(2, &[&[0, 3, 0, 1, 0, 0, 3, 2, 0]])),
    ])
}

// ---- files that are cut -------------------------------------------------------------------------

fn chunker() -> Named {
    let step = |kind: u8, kib: u16, value: u8| {
        let [low, high] = (kib * 256).to_le_bytes();
        [kind, low, high, value]
    };
    let noise = |n| step(0, 200, n);
    named([
        ("nothing", vec![0, 0]),
        ("nothing, by pages", vec![1, 0]),
        ("noise", [&[0, 0][..], &noise(0), &noise(4)].concat()),
        ("noise, another seed", [&[0, 9][..], &noise(0), &noise(4)].concat()),
        ("noise, odd end", [&[0, 9][..], &noise(1), &step(0, 3, 3)].concat()),
        ("noise, by pages", [&[1, 9][..], &noise(0)].concat()),
        ("noise, by large pages", [&[33, 9][..], &noise(0)].concat()),
        ("noise, by pages, odd end", [&[1, 9][..], &noise(1)].concat()),
        ("zeros", [&[0, 0][..], &step(1, 250, 0)].concat()),
        ("zeros, by pages", [&[1, 0][..], &step(1, 250, 0)].concat()),
        ("zeros between noise", [&[0, 0][..], &noise(0), &step(1, 100, 0), &noise(8)].concat()),
        ("ones", [&[0, 3][..], &step(1, 250, 255)].concat()),
        ("pattern", [&[0, 3][..], &step(2, 200, 97)].concat()),
        ("pattern, by pages", [&[9, 3][..], &step(2, 200, 254)].concat()),
        ("copies", [&[0, 3][..], &noise(0), &step(3, 150, 20), &step(3, 90, 128)].concat()),
        ("an insertion", [&[0, 3][..], &noise(0), &[0, 1, 0, 1], &step(3, 200, 0)].concat()),
        ("smallest", [&[0, 0][..], &step(0, 4, 0)].concat()),
        ("smallest, and one", [&[0, 0][..], &step(0, 4, 1)].concat()),
        ("largest", [&[2, 0][..], &step(1, 64, 0)].concat()),
        ("largest, and one", [&[2, 0][..], &step(1, 64, 1)].concat()),
        ("read in small pieces", [&[2, 5][..], &noise(0), &noise(12)].concat()),
        ("read in large pieces", [&[250, 5][..], &noise(0), &noise(12), &noise(16)].concat()),
        ("longest", [&[7, 5][..], &noise(0), &noise(1), &noise(2), &noise(3)].concat()),
    ])
}

fn nbak() -> Named {
    let file = |version: u8, rest: usize| [b"NBAK", &[version][..], &vec![0x5a; rest]].concat();
    named([
        ("nothing", Vec::new()),
        ("magic alone", b"NBAK".to_vec()),
        ("header cut", file(1, 27)),
        ("header alone", file(1, 28)),
        ("version 0", file(0, 40)),
        ("version 2", file(2, 40)),
        ("one byte", file(1, 29)),
        ("some blocks", file(1, 28 + 64)),
        ("flip in the magic", vec![0, 0, 0, 1, b'p', b'l', b'a', b'i', b'n']),
        ("flip in the tag", vec![0, 0, 0, 0x90, b'p', b'l', b'a', b'i', b'n']),
        ("flip in the text", vec![0, 0, 1, 0x0a, b'p', b'l', b'a', b'i', b'n']),
        ("plaintext of two pieces", vec![b'x'; 4096]),
    ])
}
