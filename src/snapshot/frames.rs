//! Databases by their logs: where the log says what changed since the parent snapshot, only that is read.
//!
//! The source says which pages those are, and proves it ([`crate::source::sqlite::Changes`]). Here it is decided
//! whether it is asked at all: for a database of which the parent has an image, whose chunks are all known to be there,
//! with a [mark](super::marks) that is not due, and without `--full-scan`. Otherwise all is read; and if the log says
//! what changed all the same, what is read is held against it (I19).

use std::path::Path;

use super::captured::{Captured, Opening};
use super::marks::Mark;
use super::now::now_ms;
use super::parent::Parent;
use super::receipt::Receipt;
use super::save::{Failure, Paged, Session};
use super::sidecar::sidecar_stamps;
use super::tree::{Consistency, Content, Node};
use crate::error::Result;
use crate::source::sqlite::{Changes, Database, Opened, Refusal};
use crate::source::walk::{Found, stamp};
use crate::store::segment::Content as Segment;

/// What is known of a database from the parent snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Earlier {
    /// Where it ended in its log.
    pub mark: Mark,
    /// All of it is to be read, and held against the log.
    whole: bool,
}

impl Earlier {
    /// What the parent snapshot knows of `found`, if that can be relied on.
    pub(super) fn of(found: &Found, parent: &Parent, full_scan: bool) -> Option<Earlier> {
        let mark = *parent.marks.get(&found.path).filter(|_| parent.trusted)?;
        match &parent.entry(found)?.node {
            Node::File { size, consistency: Consistency::Transaction, .. } if *size == mark.bytes() => {
                Some(Earlier::by(mark, full_scan))
            }
            _ => None,
        }
    }

    /// What a mark says; what the parent has is not known yet.
    pub(super) fn by(mark: Mark, full_scan: bool) -> Earlier {
        Earlier { mark, whole: full_scan || mark.is_due(now_ms()) }
    }

    /// What is to be said if pages differ from the parent's that the log does not list.
    pub fn belied(&self, listed: &[u32], differing: &[u32]) -> Option<String> {
        let unlisted = differing.iter().filter(|page| listed.binary_search(page).is_err());
        let (first, count) = (unlisted.clone().next()?, unlisted.count());
        let captures = self.mark.captures;
        Some(format!(
            "this snapshot has all of it, but {count} of its pages, the first of them page {first}, changed without \
             a word in its log: something wrote the file past SQLite. Snapshots since it was last read in full \
             ({captures} by its log) may hold wrong pages of it"
        ))
    }
}

/// Opens the database at `path`, or only what changed.
pub(super) fn open(
    opening: &Opening<'_>,
    path: &Path,
    earlier: Option<&Earlier>,
) -> std::result::Result<Opened, Refusal> {
    if let Some(Earlier { mark, .. }) = earlier.filter(|earlier| !earlier.whole) {
        let opened = Database::open_since(path, opening.scratch, opening.hot, &mark.log)?;
        // The files that were opened are those of the mark if these stood at their names before and after.
        let is_known = match &opened {
            Opened::Whole(_) => true,
            Opened::Changes(changes) => std::fs::symlink_metadata(path).is_ok_and(|meta| {
                let now = Receipt::of_database(stamp(&meta), sidecar_stamps(path));
                mark.is_of(&now) && (now.stamp.ctime == mark.written || !changes.is_all_in_log())
            }),
        };
        if is_known {
            return Ok(opened);
        }
    }
    Database::open_with(path, opening.scratch, opening.hot).map(|db| Opened::Whole(Box::new(db)))
}

/// Saves what changed. Nothing comes of it if the log moved on under the reader, or the parent's content is not there:
/// then all has to be read.
pub(super) fn save(
    session: &mut Session<'_>,
    changes: Changes,
    earlier: &Earlier,
    before: &Content,
    receipt: &Receipt,
) -> Result<Option<Captured>> {
    if !session.trusts_parent() {
        return Ok(None);
    }
    let (was, now) = (earlier.mark.log, changes.mark());
    let before = Paged { content: before, page_size: was.page_size, pages: was.pages };
    // Databases share no segment with other files.
    session.sink.close_segment(Segment::Data)?;
    let saved =
        session.save_changed(before, now.pages, &changes.pages(), &mut |page, into| changes.read_page(page, into));
    session.sink.close_segment(Segment::Data)?;
    let (size, content) = match saved {
        Ok(Some(saved)) => saved,
        Err(Failure::Store(error)) => return Err(error),
        Ok(None) | Err(Failure::Source(_)) => return Ok(None),
    };
    let remarks = changes.remarks().to_vec();
    // Who reads all of it tells of an error.
    if !changes.finish().unwrap_or(false) {
        return Ok(None);
    }
    let content = Some((size, Consistency::Transaction, content));
    let mark = Some(earlier.mark.next(now, receipt));
    Ok(Some(Captured { content, remarks, mark, by_log: true, ..Captured::default() }))
}
