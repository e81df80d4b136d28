//! Each stage that a byte goes through on its way into a snapshot, by itself, and what the metadata costs.
//!
//! `benches/README.md` says what each one is good for. Inputs are the same in every run; files and stores lie in a
//! temporary directory, which should be on a real disk for the figures of `capture` and `index` to mean anything.

#![allow(clippy::unwrap_used, missing_docs, reason = "nothing here can be handled, or is used by anyone")]

use std::hint::black_box;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use nbak::chunk::{Cut, Cutter};
use nbak::crypto::keys::Keys;
use nbak::crypto::seal::{PackOpener, PackSealer, Ticket, Tickets};
use nbak::crypto::secret::Secret;
use nbak::id::{ChunkId, PackId, StoreId};
use nbak::index::Index;
use nbak::index::catalog::Catalog;
use nbak::snapshot::recipe::{Lengths, MOST, Recipe};
use nbak::snapshot::save::Session;
use nbak::source::sqlite::{Database, View};
use nbak::store::local::LocalDirectory;
use nbak::store::memory::{Discard, Memory};
use nbak::store::objects::Objects;
use nbak::store::pack::{Footer, HEADER};
use nbak::store::reader::Packs;
use nbak::store::segment::{self, Bases, ChunkEntry, Codec, Content, SegmentEntry, TARGET};
use nbak::store::sink::{PackSink, Stored};
use rusqlite::Connection;

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
/// Chunks in the index.
const CHUNKS: u32 = 50_000;
/// What is looked up at a time.
const LOOKUPS: u32 = 1000;

fn keys() -> Arc<Keys> {
    Arc::new(Keys::new(StoreId([1; 16]), &Secret::take(&mut [2; 32])))
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Pages as a database has them: a header, rows of text and numbers, and a gap of zeros.
fn pages(length: usize) -> Vec<u8> {
    let random = noise(length / PAGE * 32);
    let mut bytes = Vec::with_capacity(length);
    for (number, random) in random.chunks_exact(32).enumerate() {
        let page = bytes.len();
        bytes.extend_from_slice(&[13, 0, 0, 0, 40, 4]);
        for row in 0..40 {
            let id = number * 40 + row;
            bytes.extend_from_slice(format!("{id:08} the name of a thing, its path/{}", id % 97).as_bytes());
            bytes.extend_from_slice(&random[row % 4 * 8..][..8]);
        }
        bytes.resize(page + PAGE, 0);
    }
    bytes
}

fn cut(c: &mut Criterion) {
    let (bytes, cutter) = (noise(16 * MIB), Cutter::new(7));
    let mut group = c.benchmark_group("cut");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("content", |b| b.iter(|| cutter.cuts(black_box(&bytes), true)));
    // Cuts by pages need no search. What a file costs from its bytes to its packs, by either way:
    let keys = keys();
    let objects: Arc<dyn Objects> = Arc::new(Discard);
    let packs = Packs::new(objects.clone(), keys.clone());
    let index = Index::open(Path::new("no folder/no index"), &packs, false).unwrap();
    let catalog = Catalog::new(packs, index);
    let bytes = pages(16 * MIB);
    for (name, cut) in [("pages, and saved", Cut::Pages(PAGE as u32)), ("content, and saved", Cut::Content)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut session = Session::new(&catalog, PackSink::new(objects.clone(), keys.clone()), false);
                let mut rest = &bytes[..];
                let mut read = |buffer: &mut [u8]| {
                    let (now, later) = rest.split_at(rest.len().min(buffer.len()));
                    buffer[..now.len()].copy_from_slice(now);
                    rest = later;
                    Ok(now.len())
                };
                let saved = session.save(cut, None, &mut read).unwrap();
                session.sink.flush().and_then(nbak::store::sink::Flushed::keep).unwrap();
                saved
            });
        });
    }
    group.finish();
}

fn hash(c: &mut Criterion) {
    let (bytes, keys) = (noise(MIB), keys());
    let mut group = c.benchmark_group("hash");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    for (name, length) in [("4 KiB", PAGE), ("64 KiB", 64 * 1024)] {
        group.bench_function(name, |b| {
            b.iter(|| bytes.chunks_exact(length).fold(0, |sum, chunk| sum ^ keys.chunk_id(black_box(chunk)).0[0]));
        });
    }
    let spans: Vec<&[u8]> = bytes.chunks_exact(PAGE).collect();
    group.bench_function("4 KiB, many at once", |b| b.iter(|| keys.chunk_ids(black_box(&spans))));
    group.finish();
}

/// What no program can do without: to have the bytes.
fn floor(c: &mut Criterion) {
    let from = noise(64 * MIB);
    let mut to = vec![0; from.len()];
    let mut group = c.benchmark_group("floor");
    group.throughput(Throughput::Bytes(from.len() as u64));
    group.bench_function("copy", |b| b.iter(|| to.copy_from_slice(black_box(&from))));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, &from).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    group.bench_function("read a file that is in memory", |b| {
        b.iter(|| {
            for (part, at) in to.chunks_mut(4 * MIB).zip((0..).step_by(4 * MIB)) {
                file.read_exact_at(part, at).unwrap();
            }
        });
    });
    group.bench_function("write a file and sync it", |b| {
        b.iter(|| {
            let mut file = std::fs::File::create(folder.path().join("other")).unwrap();
            file.write_all(&from).unwrap();
            file.sync_data().unwrap();
        });
    });
    group.finish();
}

/// A page that changed a little, against what it was.
fn delta(c: &mut Criterion) {
    let base = pages(PAGE);
    let mut page = base.clone();
    page[1000..1300].copy_from_slice(&noise(300));
    let mut group = c.benchmark_group("delta");
    group.throughput(Throughput::Bytes(PAGE as u64));
    group.bench_function("made", |b| b.iter(|| segment::compress_delta(black_box(&page), &base).unwrap()));
    let frame = segment::compress_delta(&page, &base).unwrap().unwrap();
    group.bench_function("read", |b| b.iter(|| segment::decompress(Codec::Zstd, black_box(&frame), PAGE, &base)));
    group.finish();
}

fn compress(c: &mut Criterion) {
    let (text, noise) = (pages(TARGET), noise(TARGET));
    let mut group = c.benchmark_group("compress");
    group.throughput(Throughput::Bytes(TARGET as u64));
    group.bench_function("pages", |b| b.iter(|| segment::compress(black_box(&text), &[]).unwrap()));
    group.bench_function("noise", |b| b.iter(|| segment::compress(black_box(&noise), &[]).unwrap()));
    let (codec, stored) = segment::compress(&text, &[]).unwrap();
    assert!(codec == Codec::Zstd && stored.len() * 2 < TARGET);
    group.bench_function("pages, back", |b| b.iter(|| segment::decompress(codec, black_box(&stored), TARGET, &[])));
    group.finish();
}

/// Segment numbers without end: a new pack whenever one is full.
struct Numbers(Arc<PackSealer>, Tickets);

impl Numbers {
    fn new() -> Numbers {
        let (sealer, tickets) = PackSealer::fresh(&keys(), PackId([3; 16]));
        Numbers(Arc::new(sealer), tickets)
    }

    fn next(&mut self) -> (Arc<PackSealer>, Ticket) {
        loop {
            match self.1.issue() {
                Some((_, ticket)) => return (self.0.clone(), ticket),
                None => *self = Numbers::new(),
            }
        }
    }
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    group.throughput(Throughput::Bytes(TARGET as u64));
    let mut numbers = Numbers::new();
    let mut room = noise(TARGET);
    room.reserve(64);
    group.bench_function("128 KiB", |b| {
        b.iter_batched(
            || (numbers.next(), noise(TARGET + 64)[..TARGET].to_vec()),
            |((sealer, ticket), mut buffer)| {
                buffer.reserve_exact(16);
                sealer.seal_segment(ticket, &mut buffer);
                buffer
            },
            BatchSize::LargeInput,
        );
    });
    let (sealer, mut tickets) = PackSealer::fresh(&keys(), PackId([3; 16]));
    let (number, ticket) = tickets.issue().unwrap();
    sealer.seal_segment(ticket, &mut room);
    let opener = PackOpener::new(&keys(), PackId([3; 16]), sealer.salt());
    group.bench_function("128 KiB, opened", |b| {
        b.iter_batched(
            || room.clone(),
            |mut buffer| {
                opener.open_segment(number, &mut buffer).unwrap();
                buffer
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn id(number: u32) -> ChunkId {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]);
    ChunkId(id)
}

/// Packs that hold [`CHUNKS`] small chunks.
fn filled(objects: &Arc<dyn Objects>, keys: &Arc<Keys>) -> Vec<Stored> {
    let mut sink = PackSink::new(objects.clone(), keys.clone());
    for number in 0..CHUNKS {
        sink.add(Content::Data, id(number), &number.to_le_bytes().repeat(16)).unwrap();
    }
    sink.flush().unwrap().keep().unwrap()
}

fn index(c: &mut Criterion) {
    let (folder, keys) = (tempfile::tempdir().unwrap(), keys());
    let local = LocalDirectory::at(folder.path().join("store"));
    local.create().unwrap();
    let objects: Arc<dyn Objects> = Arc::new(local);
    let stored = filled(&objects, &keys);
    let packs = || Packs::new(objects.clone(), keys.clone());
    let none = Packs::new(Arc::new(Memory::default()), keys.clone());
    let path = folder.path().join("index.redb");

    let mut group = c.benchmark_group("index");
    group.sample_size(10);
    group.throughput(Throughput::Elements(u64::from(CHUNKS)));
    group.bench_function("insert", |b| {
        b.iter_batched(
            || {
                let _ = std::fs::remove_file(&path);
                Index::open(&path, &none, true).unwrap()
            },
            |mut index| {
                index.add(&stored);
                assert!(index.is_current());
                index
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("made anew from packs", |b| {
        b.iter_batched(
            || {
                let _ = std::fs::remove_file(&path);
                packs()
            },
            |packs| Index::open(&path, &packs, true).unwrap(),
            BatchSize::PerIteration,
        );
    });
    let packs = packs();
    let index = Index::open(&path, &packs, true).unwrap();
    assert!(index.is_current());
    let catalog = Catalog::new(packs, index);
    let hits: Vec<ChunkId> = (0..LOOKUPS).map(|n| id(n * 49)).collect();
    let misses: Vec<ChunkId> = (0..LOOKUPS).map(|n| id(CHUNKS + n)).collect();
    group.throughput(Throughput::Elements(u64::from(LOOKUPS)));
    for (name, ids, there) in [("hit", &hits, true), ("miss", &misses, false)] {
        group.bench_function(name, |b| {
            b.iter(|| assert!(ids.iter().all(|id| catalog.index().find(*id).is_some() == there)));
        });
        group.bench_function(format!("{name}, held against the footer"), |b| {
            b.iter(|| assert!(ids.iter().all(|id| catalog.has(*id) == there)));
        });
    }
    group.finish();
}

/// A database of 64 MB in a journal mode, and a connection to it.
fn database(path: &Path, mode: &str) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA journal_mode={mode}; PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, pad BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 64000)
         INSERT INTO t SELECT i, randomblob(960) FROM n;"
    ))
    .unwrap();
    conn
}

fn capture(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let (quiet, wal) = (folder.path().join("quiet.db"), folder.path().join("wal.db"));
    drop(database(&quiet, "DELETE"));
    // A log with a thousand pages in it, and somebody who keeps it there.
    let writer = database(&wal, "WAL");
    writer
        .execute_batch(
            "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_autocheckpoint=0;
             UPDATE t SET pad=zeroblob(960) WHERE id%64=0",
        )
        .unwrap();
    let no_scratch = || panic!("no copy should be needed");
    let mut group = c.benchmark_group("capture");
    group.sample_size(10);
    let mut buffer = vec![0; 4 * MIB];
    for (name, path, view) in [("quiet", &quiet, View::Quiet), ("wal", &wal, View::Wal)] {
        group.throughput(Throughput::Bytes(std::fs::metadata(path).unwrap().len()));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut database = Database::open(path, &no_scratch).unwrap();
                assert_eq!(database.view(), view);
                let mut offset = 0;
                while offset < database.len() {
                    let amount = (buffer.len() as u64).min(database.len() - offset);
                    database.read_at(offset, &mut buffer[..amount as usize]).unwrap();
                    offset += amount;
                }
                assert!(database.finish().unwrap());
            });
        });
    }
    group.finish();
}

/// What a pack of 16 MiB of pages has.
fn footer(c: &mut Criterion) {
    let mut footer = Footer::default();
    for number in 0..128 {
        let chunks: Vec<ChunkEntry> =
            (0..32).map(|n| ChunkEntry { id: id(number * 32 + n), length: PAGE as u32 }).collect();
        let (offset, stored) = (HEADER as u64 + u64::from(number) * 40_000, 40_000);
        footer.segments.push(SegmentEntry {
            offset,
            stored,
            plain: TARGET as u32,
            content: Content::Data,
            codec: Codec::Zstd,
            depth: 0,
            bases: Bases::new(),
            chunks: chunks.into(),
        });
    }
    let plain = footer.encode().unwrap();
    let mut group = c.benchmark_group("footer");
    group.throughput(Throughput::Bytes(plain.len() as u64));
    group.bench_function("encode", |b| b.iter(|| black_box(&footer).encode().unwrap()));
    group.bench_function("decode", |b| b.iter(|| Footer::decode(black_box(&plain), 128 * 40_000).unwrap()));
    group.finish();
}

/// 256 MiB of pages, of which 200 change.
fn recipe(c: &mut Criterion) {
    let ids: Vec<ChunkId> = (0..MOST as u32).map(id).collect();
    let size = (MOST * PAGE) as u64;
    let old = Recipe { size, lengths: Lengths::Fixed(PAGE as u32), ids };
    let mut new = old.clone();
    for n in 0..200 {
        new.ids[n * 327] = id(1 << 20 | n as u32);
    }
    let patch = new.patch(&old).unwrap();
    let whole = new.encode();
    assert_eq!(old.clone().apply(&patch).unwrap(), new);
    let mut group = c.benchmark_group("recipe");
    group.throughput(Throughput::Bytes(whole.len() as u64));
    group.bench_function("diff", |b| b.iter(|| black_box(&new).patch(&old)));
    group.bench_function("patch", |b| b.iter(|| old.clone().apply(black_box(&patch))));
    group.bench_function("decode", |b| b.iter(|| Recipe::decode(black_box(&whole))));
    group.finish();
}

fn config() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3)).sample_size(30)
}

criterion_group! {
    name = stages;
    config = config();
    targets = floor, cut, hash, compress, delta, seal, index, capture, footer, recipe
}
criterion_main!(stages);
