//! Packs put together.
//!
//! The caller hands a [`PackSink`] the chunks that are new, one after the other. They gather in one open segment for
//! each kind of content; a full segment goes to the thread pool, which compresses and seals it; the pack's thread waits
//! for its segments, seals the footer and puts the object, while the caller fills the next pack.
//!
//! Memory: at most [`IN_FLIGHT`] segments wait for the pool, and at most three packs exist at a time (one that is
//! filled, one that waits, one that is written), each of at most [`PACK_TARGET`] plaintext.
//!
//! **Commit.** [`PackSink::flush`] waits until every closed pack is durable and gives a [`Flushed`]; only that can
//! [`Flushed::commit`] a snapshot record, which goes into the footer of the last pack (I1). A small snapshot is one
//! pack, and one put.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::objects::{Durable, Key, Kind, Objects};
use super::pack::{Footer, HEADER, Header, MAX_CHUNKS, MAX_FOOTER, MAX_RECORD, TRAILER, encode_trailer};
use super::segment::{self, Bases, ChunkEntry, Chunks, Codec, Content, MAX_PLAIN, SegmentEntry, TARGET};
use crate::crypto::keys::Keys;
use crate::crypto::seal::{PackSealer, Ticket, Tickets};
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId};

/// A pack is closed when it holds this much plaintext, in bytes.
pub const PACK_TARGET: usize = 16 * 1024 * 1024;
/// No pack is larger: its target, one segment more, and its footer.
pub const PACK_MOST: u64 = (PACK_TARGET + MAX_PLAIN + MAX_FOOTER) as u64;
/// A segment is closed when it holds this many chunks.
const SEGMENT_CHUNKS: usize = 4096;
/// A pack is closed when it holds this many segments: half of the numbers that there are.
const PACK_SEGMENTS: usize = 32_768;
/// A pack is closed when it holds this many records: where many are carried over, a damaged footer shall not take all.
const PACK_RECORDS: usize = 256;
/// Segments that may wait for the thread pool.
const IN_FLIGHT: usize = 32;

/// A pack that is durable.
#[derive(Debug)]
pub struct Stored {
    /// Its id.
    pub id: PackId,
    /// Its size in bytes.
    pub size: u64,
    /// What its key is derived with.
    pub salt: [u8; 32],
    /// What it holds.
    pub footer: Footer,
    _durable: Durable,
}

/// The prefix of a segment that builds on earlier chunks.
#[derive(Debug, Clone, Default)]
pub struct Base {
    /// The chunks.
    pub ids: Vec<ChunkId>,
    /// Their plaintexts, joined.
    pub plain: Vec<u8>,
    /// One more than the deepest of the segments they lie in.
    pub depth: u8,
}

/// A chunk that is stored as the difference from an earlier one, in a segment of its own.
#[derive(Debug)]
pub struct Delta {
    /// The earlier chunk.
    pub base: ChunkId,
    /// One more than the depth of the segment that it lies in.
    pub depth: u8,
    /// The chunk as a zstd frame with the earlier one as prefix, in a buffer that has room for the seal.
    pub frame: Vec<u8>,
}

#[derive(Default)]
struct OpenSegment {
    plain: Vec<u8>,
    chunks: Vec<ChunkEntry>,
}

type Sealed = Result<(usize, Codec, Vec<u8>)>;

struct OpenPack {
    id: PackId,
    sealer: Arc<PackSealer>,
    tickets: Tickets,
    segments: Vec<SegmentEntry>,
    plain: usize,
    chunks: usize,
    done: (Sender<Sealed>, Receiver<Sealed>),
}

impl OpenPack {
    fn new(keys: &Keys) -> Self {
        let id = PackId::random();
        let (sealer, tickets) = PackSealer::fresh(keys, id);
        OpenPack { id, sealer: Arc::new(sealer), tickets, segments: Vec::new(), plain: 0, chunks: 0, done: unbounded() }
    }
}

/// What a pack's thread is given.
struct Closed {
    pack: OpenPack,
    records: Vec<Vec<u8>>,
}

/// Makes packs out of chunks.
pub struct PackSink {
    objects: Arc<dyn Objects>,
    keys: Arc<Keys>,
    open: [OpenSegment; 3],
    pack: Option<OpenPack>,
    slots: (Sender<()>, Receiver<()>),
    writer: Option<Writer>,
    stored: Vec<Stored>,
}

struct Writer {
    queue: Option<Sender<Closed>>,
    results: Receiver<Result<Stored>>,
    waiting: usize,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Writer {
    /// Waits for the thread: nothing may be written any more when the writer's lock is given back (I11).
    fn drop(&mut self) {
        self.queue = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl PackSink {
    /// A sink into `objects`. Nothing is written before a chunk arrives.
    pub fn new(objects: Arc<dyn Objects>, keys: Arc<Keys>) -> Self {
        PackSink {
            objects,
            keys,
            open: Default::default(),
            pack: None,
            slots: bounded(IN_FLIGHT),
            writer: None,
            stored: Vec::new(),
        }
    }

    /// Adds a chunk that the store does not have.
    pub fn add(&mut self, content: Content, id: ChunkId, plain: &[u8]) -> Result<()> {
        if plain.len() > MAX_PLAIN {
            return Err(Error::failed(format!(
                "a piece of metadata of {} bytes is larger than the {} that the format allows",
                plain.len(),
                MAX_PLAIN
            ))
            .hint("a directory may hold up to about a million entries"));
        }
        let at = content.code() as usize;
        if !self.open[at].plain.is_empty() && self.open[at].plain.len() + plain.len() > TARGET.max(plain.len()) {
            self.close_segment(content)?;
        }
        let segment = &mut self.open[at];
        segment.plain.extend_from_slice(plain);
        segment.chunks.push(ChunkEntry { id, length: plain.len() as u32 });
        if segment.plain.len() >= TARGET || segment.chunks.len() >= SEGMENT_CHUNKS {
            self.close_segment(content)?;
        }
        Ok(())
    }

    /// Whether nothing was added: all that was to be stored is there already.
    pub fn is_untouched(&self) -> bool {
        self.pack.is_none()
            && self.stored.is_empty()
            && self.writer.is_none()
            && self.open.iter().all(|s| s.chunks.is_empty())
    }

    /// Ends the open segment of `content`, so that what follows is compressed apart from it.
    pub fn close_segment(&mut self, content: Content) -> Result<()> {
        let segment = std::mem::take(&mut self.open[content.code() as usize]);
        if segment.chunks.is_empty() {
            return Ok(());
        }
        self.add_segment(content, segment.chunks, segment.plain, Base::default())
    }

    /// Adds a whole segment at once, compressed against `base`.
    pub fn add_segment(&mut self, content: Content, chunks: Vec<ChunkEntry>, plain: Vec<u8>, base: Base) -> Result<()> {
        let (pack, number, ticket) = self.next_segment(SegmentEntry {
            offset: 0,
            stored: 0,
            plain: plain.len() as u32,
            content,
            codec: Codec::Raw,
            depth: base.depth,
            bases: base.ids.into(),
            chunks: chunks.into(),
        })?;
        let (sealer, done) = (pack.sealer.clone(), pack.done.0.clone());
        let slots = self.slots.1.clone();
        // Waits while the pool is behind. The pool's tasks never wait for this thread.
        let _ = self.slots.0.send(());
        let seal = move || {
            let sealed = segment::compress(&plain, &base.plain).map(|(codec, mut bytes)| {
                sealer.seal_segment(ticket, &mut bytes);
                (number, codec, bytes)
            });
            drop(plain);
            let _ = slots.try_recv();
            let _ = done.send(sealed);
        };
        // A thread of the pool cannot wait for the pool: where no other could be made, this is the only one.
        if rayon::current_thread_index().is_some() {
            seal();
        } else {
            rayon::spawn(seal);
        }
        Ok(())
    }

    /// Adds a chunk that the store does not have, as `delta` has it.
    pub fn add_delta(&mut self, id: ChunkId, length: u32, delta: Delta) -> Result<()> {
        let Delta { base, depth, mut frame } = delta;
        let (pack, number, ticket) = self.next_segment(SegmentEntry {
            offset: 0,
            stored: 0,
            plain: length,
            content: Content::Data,
            codec: Codec::Zstd,
            depth,
            bases: Bases::from_buf([base]),
            chunks: Chunks::from_buf([ChunkEntry { id, length }]),
        })?;
        // A few hundred bytes: sealed sooner than handed to another thread.
        pack.sealer.seal_segment(ticket, &mut frame);
        let _ = pack.done.0.send(Ok((number, Codec::Zstd, frame)));
        Ok(())
    }

    /// Adds a whole segment that another pack has, as it was before it was sealed there, and as `entry` describes it.
    /// Only its place is new, and its depth and bases if those of `entry` are.
    pub fn add_coded(&mut self, entry: SegmentEntry, mut coded: Vec<u8>) -> Result<()> {
        let codec = entry.codec;
        let (pack, number, ticket) = self.next_segment(entry)?;
        let (sealer, done) = (pack.sealer.clone(), pack.done.0.clone());
        let slots = self.slots.1.clone();
        let _ = self.slots.0.send(());
        let seal = move || {
            sealer.seal_segment(ticket, &mut coded);
            let _ = slots.try_recv();
            let _ = done.send(Ok((number, codec, coded)));
        };
        if rayon::current_thread_index().is_some() {
            seal();
        } else {
            rayon::spawn(seal);
        }
        Ok(())
    }

    /// The open pack, with a number in it for `segment`. Closes the pack before it if that is full.
    fn next_segment(&mut self, segment: SegmentEntry) -> Result<(&mut OpenPack, usize, Ticket)> {
        let is_full = |pack: &OpenPack| {
            pack.plain + segment.plain as usize > PACK_TARGET
                || pack.chunks + segment.chunks.len() > MAX_CHUNKS
                || pack.segments.len() >= PACK_SEGMENTS
        };
        if self.pack.as_ref().is_some_and(|pack| !pack.segments.is_empty() && is_full(pack)) {
            self.close_pack(Vec::new())?;
        }
        let pack = self.pack.get_or_insert_with(|| OpenPack::new(&self.keys));
        let (number, ticket) =
            pack.tickets.issue().ok_or_else(|| Error::failed("a pack ran out of segment numbers"))?;
        pack.plain += segment.plain as usize;
        pack.chunks += segment.chunks.len();
        pack.segments.push(segment);
        Ok((pack, number as usize, ticket))
    }

    fn close_pack(&mut self, records: Vec<Vec<u8>>) -> Result<()> {
        let Some(pack) = self.pack.take() else { return Ok(()) };
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(Writer::start(self.objects.clone(), self.keys.clone())?),
        };
        writer.waiting += 1;
        let sent = writer.queue.as_ref().is_some_and(|queue| queue.send(Closed { pack, records }).is_ok());
        // Errors surface as soon as they are known: no use in capturing on for a full disk.
        while let Ok(result) = writer.results.try_recv() {
            writer.waiting -= 1;
            self.stored.push(result?);
        }
        if sent { Ok(()) } else { Err(Error::failed("the thread that writes packs has ended")) }
    }

    /// Closes the open segments and waits until all packs but the last are durable.
    pub fn flush(mut self) -> Result<Flushed> {
        for content in Content::ALL {
            self.close_segment(content)?;
        }
        self.wait()?;
        Ok(Flushed(self))
    }

    fn wait(&mut self) -> Result<()> {
        if let Some(writer) = &mut self.writer {
            while writer.waiting > 0 {
                let result =
                    writer.results.recv().map_err(|_| Error::failed("the thread that writes packs has ended"))?;
                writer.waiting -= 1;
                self.stored.push(result?);
            }
        }
        Ok(())
    }
}

/// A sink whose earlier packs are durable: the only thing that can commit.
pub struct Flushed(PackSink);

impl Flushed {
    /// Puts the last pack, with `record` in its footer. When this returns, the snapshot exists and is durable.
    pub fn commit(self, record: Vec<u8>) -> Result<Vec<Stored>> {
        self.commit_all(vec![record])
    }

    /// The same for several records, none of which leads to anything that is not durable by then.
    pub fn commit_all(mut self, records: Vec<Vec<u8>>) -> Result<Vec<Stored>> {
        if let Some(record) = records.iter().find(|record| record.len() > MAX_RECORD) {
            return Err(Error::failed(format!(
                "a snapshot record of {} bytes is larger than the format allows",
                record.len()
            ))
            .hint("give a shorter note or fewer tags"));
        }
        let keys = self.0.keys.clone();
        let mut records = records.into_iter().peekable();
        loop {
            self.0.pack.get_or_insert_with(|| OpenPack::new(&keys));
            let some: Vec<_> = records.by_ref().take(PACK_RECORDS).collect();
            if records.peek().is_none() {
                return self.finish(some);
            }
            self.0.close_pack(some)?;
        }
    }

    /// Puts the last pack without a record: what was gathered is kept, and no snapshot is made of it.
    pub fn keep(self) -> Result<Vec<Stored>> {
        self.finish(Vec::new())
    }

    fn finish(mut self, records: Vec<Vec<u8>>) -> Result<Vec<Stored>> {
        self.0.close_pack(records)?;
        self.0.wait()?;
        Ok(self.0.stored)
    }
}

impl Writer {
    fn start(objects: Arc<dyn Objects>, keys: Arc<Keys>) -> Result<Writer> {
        let (queue, closed) = bounded::<Closed>(1);
        let (answers, results) = unbounded();
        let thread = std::thread::Builder::new().name("packs".to_owned()).spawn(move || {
            for closed in closed {
                let stored = put(&*objects, &keys, closed);
                let failed = stored.is_err();
                if answers.send(stored).is_err() || failed {
                    // One failed put ends the operation: nothing after it may become durable in its stead.
                    break;
                }
            }
        });
        let thread = Some(thread.map_err(Error::thread)?);
        Ok(Writer { queue: Some(queue), results, waiting: 0, thread })
    }
}

/// Waits for a pack's segments, seals its footer and puts it.
fn put(objects: &dyn Objects, keys: &Keys, closed: Closed) -> Result<Stored> {
    let Closed { mut pack, records } = closed;
    let (sender, results) = pack.done;
    drop(sender);
    let mut bodies = vec![Vec::new(); pack.segments.len()];
    for _ in 0..bodies.len() {
        let (number, codec, bytes) =
            results.recv().map_err(|_| Error::failed("a segment was lost on its way to its pack"))??;
        pack.segments[number].codec = codec;
        pack.segments[number].stored = bytes.len() as u32;
        bodies[number] = bytes;
    }
    let mut offset = HEADER as u64;
    for segment in &mut pack.segments {
        segment.offset = offset;
        offset += u64::from(segment.stored);
    }
    let footer = Footer { segments: pack.segments, records };
    let mut sealed = footer.encode()?;
    pack.sealer.seal_footer(pack.tickets, &mut sealed);
    let header = Header { store: keys.store(), pack: pack.id, salt: *pack.sealer.salt() }.encode();
    let trailer = encode_trailer(sealed.len() as u32);
    let size = offset + sealed.len() as u64 + TRAILER as u64;
    let mut parts: Vec<&[u8]> = Vec::with_capacity(bodies.len() + 3);
    parts.push(&header);
    parts.extend(bodies.iter().map(Vec::as_slice));
    parts.push(&sealed);
    parts.push(&trailer);
    let durable = objects.put(Key::new(Kind::Pack, pack.id.0), &parts)?;
    Ok(Stored { id: pack.id, size, salt: *pack.sealer.salt(), footer, _durable: durable })
}
