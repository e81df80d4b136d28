//! Which new chunks are stored as the difference from the version before, and which by themselves.
//!
//! A page that changed mostly differs in a few hundred bytes from what stood at its place in the parent snapshot. With
//! that as the prefix of its zstd frame it takes a tenth of what it takes alone. Three bounds keep this from costing
//! more than it gives:
//! - **Depth.** A version builds on the one before, which builds on the one before it, up to [`DEEPEST`]; the next one
//!   is stored by itself. So no page is further than that many small segments from one that builds on nothing.
//! - **Worth.** A delta that is not small is not used ([`segment::compress_delta`]).
//! - **Number.** Where most of a file is new (a `VACUUM`, another file under the same name) there is no version before,
//!   and to look for it would read all of the old data.
//!
//! A chunk's base is always of the very file that the chunk is of: what one file holds can show in the size of a delta
//! of another no more than in the segments that they shared before (see `docs/SECURITY.md`).

use std::borrow::Cow;

use crate::error::Result;
use crate::id::ChunkId;
use crate::index::catalog::Catalog;
use crate::store::segment;
use crate::store::sink::Delta;

/// No delta is written that lies deeper. Deeper ones save little more: each version is stored by itself once in so
/// many, and that is a tenth of a snapshot already.
const DEEPEST: u8 = 8;
/// So many chunks at a time may have a version before, or a quarter of all that were read with them.
const FEW: usize = 64;

/// A chunk that the store does not have.
pub(super) struct Fresh<'p> {
    /// Its bytes.
    pub(super) span: Cow<'p, [u8]>,
    /// Its id.
    pub(super) id: ChunkId,
    /// What stands at its place in the parent snapshot.
    pub(super) before: Option<ChunkId>,
}

impl Fresh<'_> {
    /// With bytes of its own.
    pub(super) fn into_owned(self) -> Fresh<'static> {
        Fresh { span: Cow::Owned(self.span.into_owned()), ..self }
    }
}

/// Whether deltas are looked for: some of `fresh`, out of `all` chunks that were read together, have a version before,
/// and not too many.
pub(super) fn are_worth_it(fresh: &[Fresh<'_>], all: usize) -> bool {
    let with = fresh.iter().filter(|fresh| fresh.before.is_some()).count();
    with > 0 && with <= FEW.max(all / 4)
}

/// What each of `fresh` is stored as if not by itself.
pub(super) fn against(catalog: &Catalog, fresh: &[Fresh<'_>]) -> Result<Vec<Option<Delta>>> {
    let is_base = |id: &ChunkId| *id != ChunkId::ZEROS;
    let with: Vec<(usize, ChunkId)> =
        fresh.iter().enumerate().filter_map(|(nth, fresh)| Some((nth, fresh.before.filter(is_base)?))).collect();
    let mut deltas: Vec<Option<Delta>> = fresh.iter().map(|_| None).collect();
    if with.is_empty() {
        return Ok(deltas);
    }
    let wanted: Vec<ChunkId> = with.iter().map(|(_, base)| *base).collect();
    let made = catalog.with_bases(&wanted, DEEPEST, |nth, plain, depth| {
        let frame = segment::compress_delta(&fresh[with[nth].0].span, plain)?;
        Ok(frame.map(|frame| Delta { base: wanted[nth], depth, frame }))
    });
    for ((nth, _), made) in with.iter().zip(made) {
        deltas[*nth] = made.transpose()?.flatten();
    }
    Ok(deltas)
}
