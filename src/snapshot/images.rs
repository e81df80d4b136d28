//! Large databases that have to be read in full, held against the parent snapshot before their turn comes.
//!
//! Whoever reads a database in its turn has one core reading and one hashing, and the next database waits. Here each is
//! lent to a core of its own. What comes back is the database, still open, in the same transaction, and which of its
//! pages differ; only these are read once more, and saved as if a log had listed them ([`super::save`]). So however
//! much has changed, no page waits in memory.
//!
//! One that has changed nearly everywhere comes back at once: page by page it would take longer than as a whole. So
//! does one that cannot be read, and whoever reads it in its turn tells why.

use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, bounded};
use rayon::Scope;

use super::against::{Expected, hold};
use super::parent::Parent;
use super::tree::Node;
use crate::chunk::PAGE;
use crate::index::catalog::Catalog;
use crate::source::sqlite::{Database, View};
use crate::source::walk::Found;

/// A smaller database is read in its turn, in bytes.
const LEAST: u64 = 64 * 1024;
/// Where one of so many pages, or more, differs, and so many do, it is read as a whole.
const ONE_OF: u32 = 4;
const FEW: usize = 64;

/// What differs from the parent's version of a database.
pub(super) struct Differing {
    /// The parent's version.
    pub(super) before: Expected,
    /// The pages that differ, by their number, of which the first is 1; in order.
    pub(super) changed: Vec<u32>,
}

impl Differing {
    /// Those of them that the parent has.
    pub(super) fn of_both(&self) -> &[u32] {
        &self.changed[..self.changed.partition_point(|page| *page <= self.before.paged().pages)]
    }
}

/// A database that came back, and what differs, if that was found out.
type Back = (Box<Database>, Option<Differing>);

/// A database that is lent to another core.
pub(super) struct Lent {
    /// It lies here until somebody begins with it.
    waits: Arc<Mutex<Option<Box<Database>>>>,
    back: Receiver<Back>,
}

/// What there is to hold `database` against, which is `found`, if it is worth it.
pub(super) fn expected(database: &Database, found: &Found, parent: &Parent) -> Option<Expected> {
    let page_size = database.page_size();
    let is_paged = page_size >= PAGE && database.len().is_multiple_of(u64::from(page_size));
    // A copy was read already.
    if !parent.trusted || !is_paged || database.len() < LEAST || database.view() == View::Backup {
        return None;
    }
    match &parent.entry(found)?.node {
        Node::File { size, content, .. } => Expected::of(content, *size, page_size),
        _ => None,
    }
}

impl Lent {
    /// Has other cores begin with it.
    pub(super) fn to<'s>(scope: &Scope<'s>, catalog: &'s Catalog, database: Box<Database>, before: Expected) -> Lent {
        let (tell, back) = bounded(1);
        let waits = Arc::new(Mutex::new(Some(database)));
        let lent = Arc::downgrade(&waits);
        scope.spawn(move |_| {
            // Nobody wants it any more if the snapshot failed meanwhile.
            let Some(mut database) = lent.upgrade().and_then(|waits| take(&waits)) else { return };
            let differing = differing(catalog, &mut database, before);
            let _ = tell.send((database, differing));
        });
        Lent { waits, back }
    }

    /// Has it back. Nothing comes back from who panicked.
    pub(super) fn back(self) -> Option<Back> {
        // Who is the only one of the cores waits for nobody.
        let is_alone = rayon::current_thread_index().is_some();
        let own = is_alone.then(|| take(&self.waits)).flatten();
        own.map(|database| (database, None)).or_else(|| self.back.recv().ok())
    }
}

fn take(waits: &Mutex<Option<Box<Database>>>) -> Option<Box<Database>> {
    waits.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn differing(catalog: &Catalog, database: &mut Database, before: Expected) -> Option<Differing> {
    let pages = u32::try_from(database.len() / u64::from(database.page_size())).ok()?;
    let mut changed = Vec::new();
    let mut read = |offset: u64, into: &mut [u8]| database.read_at(offset, into).ok();
    hold(catalog, &before, pages, &mut read, &mut |page, _| {
        changed.push(page);
        changed.len() < FEW || (changed.len() as u32) < page / ONE_OF
    })?;
    Some(Differing { before, changed })
}
