//! Places of chunks that are asked for in the order in which files have them.
//!
//! What follows on each other in a file was mostly stored one after the other. So where the next chunk lies is guessed
//! from where the last ones lay, and the footer of that pack, which has the last word in any case (I6), says whether
//! the guess is right. The index is asked only where it is not: for a chunk of each run, not for each chunk.

use std::sync::Arc;

use super::Location;
use super::catalog::Catalog;
use crate::error::Result;
use crate::id::ChunkId;
use crate::store::reader::Pack;

/// Runs that are followed at a time. An aged file has most of its chunks in old runs, and changed ones between them.
const RUNS: usize = 3;
/// A run that nothing was found in for so many chunks is not asked any more.
const FAR: u32 = 64;

/// Where the last chunks lay.
#[derive(Default)]
pub struct Trail {
    /// Those of late first: the place of the last chunk that was found in each, and how many were asked for since.
    runs: Vec<(Arc<Pack>, Location, u32)>,
}

impl Trail {
    /// [`Catalog::locate`], for chunk after chunk.
    pub fn locate(&mut self, catalog: &Catalog, id: ChunkId) -> Result<(Arc<Pack>, Location)> {
        for (.., since) in &mut self.runs {
            *since += 1;
        }
        self.runs.retain(|(.., since)| *since <= FAR);
        let guessed = self.runs.iter().enumerate().find_map(|(nth, (pack, last, since))| {
            let at = further(pack, *last, *since)?;
            let chunk = &pack.footer.segments[at.segment as usize].chunks[at.nth as usize];
            (chunk.id == id && !catalog.index().is_damaged(&at)).then_some((nth, at))
        });
        let (pack, at) = match guessed {
            Some((nth, at)) => (self.runs.remove(nth).0, at),
            None => catalog.locate(id)?,
        };
        self.runs.insert(0, (pack.clone(), at, 0));
        self.runs.truncate(RUNS);
        Ok((pack, at))
    }
}

/// The place that lies `by` chunks behind `at`.
fn further(pack: &Pack, mut at: Location, by: u32) -> Option<Location> {
    at.nth += by;
    loop {
        let chunks = pack.footer.segments.get(at.segment as usize)?.chunks.len() as u32;
        if at.nth < chunks {
            return Some(at);
        }
        at.nth -= chunks;
        at.segment += 1;
    }
}
