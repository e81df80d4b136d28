//! Chunks that the store lost, looked for in files that may still hold them.
//!
//! A file is cut as a snapshot would cut it, and each piece hashed; one that has the id of a lost chunk *is* that
//! chunk, wherever the file comes from: the id is a keyed hash of the content (I4). So nobody has to vouch for the
//! file.

use std::collections::HashSet;
use std::io::{self, Write};

use crate::chunk::{Cut, Cutter};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::index::catalog::Catalog;
use crate::snapshot::pieces::pieces;
use crate::source::sqlite::{HEADER_BYTES, looks_like_database};
use crate::store::segment::Content;
use crate::store::sink::{PackSink, Stored};

/// So many bytes are cut and hashed at a time.
const BLOCK: usize = 2 * 1024 * 1024;

/// Looks for lost chunks in files that are written to it, one after the other.
pub struct Healer<'a> {
    catalog: &'a Catalog,
    cutter: Cutter,
    sink: PackSink,
    lost: HashSet<ChunkId>,
    found: u64,
    /// The file that is being written.
    size: u64,
    cut: Option<Cut>,
    buffer: Vec<u8>,
    failed: Option<Error>,
}

impl<'a> Healer<'a> {
    /// Looks for `lost`, and stores what is found through `sink`.
    pub fn new(catalog: &'a Catalog, sink: PackSink, lost: HashSet<ChunkId>) -> Self {
        let cutter = Cutter::new(catalog.packs().keys().chunker_seed());
        Healer { catalog, cutter, sink, lost, found: 0, size: 0, cut: None, buffer: Vec::new(), failed: None }
    }

    /// What is still lost.
    pub fn lost(&self) -> &HashSet<ChunkId> {
        &self.lost
    }

    /// A file of `size` bytes comes next; what is left of the one before is let go.
    pub fn begin(&mut self, size: u64) {
        (self.size, self.cut) = (size, None);
        self.buffer.clear();
    }

    /// The file was written whole.
    pub fn end(&mut self) -> Result<()> {
        self.look(true);
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Makes durable what was found: the packs, and how many chunks that was.
    pub fn finish(self) -> Result<(Vec<Stored>, u64)> {
        let stored = if self.sink.is_untouched() { Vec::new() } else { self.sink.flush()?.keep()? };
        Ok((stored, self.found))
    }

    fn look(&mut self, last: bool) {
        if self.buffer.is_empty() || self.failed.is_some() {
            return;
        }
        let cut = *self.cut.get_or_insert_with(|| {
            let head = &self.buffer[..self.buffer.len().min(HEADER_BYTES)];
            looks_like_database(head)
                .map_or_else(|| Cut::for_file(self.size), |header| Cut::for_database(header.page_size))
        });
        let (lengths, ids) = pieces(&self.cutter, self.catalog.packs().keys(), cut, &self.buffer, last);
        let mut at = 0;
        for (length, id) in lengths.into_iter().zip(ids) {
            if self.lost.remove(&id) {
                match self.sink.add(Content::Data, id, &self.buffer[at..at + length]) {
                    Ok(()) => self.found += 1,
                    Err(error) => self.failed = Some(error),
                }
            }
            at += length;
        }
        self.buffer.drain(..at);
    }
}

impl Write for Healer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BLOCK {
            self.look(false);
        }
        if self.failed.is_some() { Err(io::Error::other("the store failed")) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
