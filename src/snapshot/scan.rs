//! Large files that consist of pages, held against the parent snapshot while others are captured.
//!
//! In a graph of hundreds of megabytes a few pages change from one snapshot to the next, and nobody says which. To read
//! and hash it takes a core about as long as all else takes another one. So one begins with it at once, and keeps the
//! pages that differ; its turn comes after the other files', and then only these are saved, as if a log had listed
//! them ([`super::save`]).
//!
//! What is not as simple as that is not answered for: a file that changed while it was read, one with many new pages,
//! one that begins as a database does. Then it is read in its turn ([`super::capture`]), which also tells why. So is
//! one that nobody has begun with by then: who waits for it may be the only one who could.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, bounded};
use rayon::Scope;

use super::against::{Expected, hold};
use super::captured::Bytes;
use super::parent::Parent;
use super::save::Paged;
use super::sidecar::{HEAD, Sidecar};
use super::tree::{Consistency, Node};
use crate::chunk::{Cut, PAGE};
use crate::index::catalog::Catalog;
use crate::source::sqlite::looks_like_database;
use crate::source::walk::{Found, Identity, Kind, Stamp, lies_in, stamp};

/// A smaller file is read in its turn, in bytes.
const LEAST: u64 = 1024 * 1024;
/// So many files are scanned in one go: what differs in them is in memory until their turn comes.
const MOST: usize = 4;
/// So many bytes of one may differ: a thousand pages.
const DIFFERING: usize = 4 * 1024 * 1024;

/// A file that was held against the parent's while its stamp stood still.
pub struct Scanned {
    /// The stamp.
    pub(super) stamp: Stamp,
    /// The first bytes of it.
    pub(super) head: Vec<u8>,
    /// How many pages it has.
    pub(super) pages: u32,
    /// Those that differ, by their number, of which the first is 1; in order.
    pub(super) changed: Vec<u32>,
    /// What is in them.
    bytes: Vec<u8>,
    before: Expected,
}

impl Scanned {
    /// What the parent snapshot has, as far as it is the same.
    pub(super) fn before(&self) -> Paged<'_> {
        self.before.paged()
    }

    /// Reads a page that differs.
    pub(super) fn read(&self, page: u32, into: &mut [u8]) -> std::io::Result<()> {
        let nth = self.changed.binary_search(&page).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        into.copy_from_slice(&self.bytes[nth * PAGE as usize..][..PAGE as usize]);
        Ok(())
    }
}

/// What there is to hold `found` against, if it is worth a scan.
fn expected(found: &Found, parent: &Parent) -> Option<Expected> {
    let is_large = found.stamp.size >= LEAST && Cut::for_file(found.stamp.size) == Cut::Pages(PAGE);
    if found.kind != Kind::File || !is_large || !parent.trusted || Sidecar::named(&found.path).is_some() {
        return None;
    }
    match &parent.entry(found)?.node {
        Node::File { size, consistency, content }
            if *consistency != Consistency::Transaction && Cut::for_file(*size) == Cut::Pages(PAGE) =>
        {
            Expected::of(content, *size, PAGE)
        }
        _ => None,
    }
}

/// The files that are scanned, by their place in the walk.
pub(super) struct Scans {
    worth_it: HashMap<usize, Expected>,
    begun: HashMap<usize, Awaited>,
}

/// A scan that another core may have begun with.
struct Awaited {
    is_taken: Arc<AtomicBool>,
    told: Receiver<Scanned>,
}

impl Scans {
    /// Those of the files at `places`, all of which will be read, that are worth it.
    pub(super) fn among(places: impl Iterator<Item = usize>, found: &[Found], parent: &Parent) -> Scans {
        let worth_it = places.filter_map(|at| Some((at, expected(&found[at], parent)?)));
        Scans { worth_it: worth_it.take(MOST).collect(), begun: HashMap::new() }
    }

    /// Their places in the walk.
    pub(super) fn places(&self) -> HashSet<usize> {
        self.worth_it.keys().copied().collect()
    }

    /// Has other cores begin with the file at the place `at`, which is `found` and lies in `folder`, if it is one.
    pub(super) fn begin<'s>(
        &mut self,
        scope: &Scope<'s>,
        (catalog, source): (&'s Catalog, &'s Path),
        at: usize,
        (found, folder): (&Found, Identity),
    ) {
        let Some(before) = self.worth_it.remove(&at) else { return };
        let (tell, told) = bounded(1);
        let is_taken = Arc::new(AtomicBool::new(false));
        self.begun.insert(at, Awaited { is_taken: is_taken.clone(), told });
        let path = source.join(&found.path);
        scope.spawn(move |_| {
            if is_taken.swap(true, Ordering::AcqRel) {
                return;
            }
            if let Some(scanned) = scan(catalog, &path, folder, before) {
                // Nobody waits for it any more if the snapshot failed meanwhile.
                let _ = tell.send(scanned);
            }
        });
    }

    /// What came of the file at the place `at`, whose turn has come.
    pub(super) fn take(&mut self, at: usize) -> Option<Scanned> {
        let Awaited { is_taken, told } = self.begun.remove(&at)?;
        let is_begun = is_taken.swap(true, Ordering::AcqRel);
        is_begun.then(|| told.recv().ok()).flatten()
    }
}

/// Holds the file at `path` in `folder` against what the parent snapshot has.
fn scan(catalog: &Catalog, path: &Path, folder: Identity, before: Expected) -> Option<Scanned> {
    let look = || {
        let meta = std::fs::symlink_metadata(path).ok().filter(|meta| meta.is_file() && lies_in(path, folder))?;
        Some(stamp(&meta))
    };
    let stamp = look().filter(|seen| Cut::for_file(seen.size) == Cut::Pages(PAGE))?;
    let file = Bytes::open(path).ok()?;
    let (mut changed, mut bytes, mut head) = (Vec::new(), Vec::new(), Vec::new());
    let pages = u32::try_from(stamp.size / u64::from(PAGE)).ok()?;
    // A handle belongs to one thread at a time.
    let begins = &mut head;
    let mut read = move |offset: u64, into: &mut [u8]| {
        let is_whole = file.read_full(into, offset).ok()? == into.len();
        if offset == 0 {
            begins.extend_from_slice(&into[..HEAD.min(into.len())]);
        }
        (is_whole && (offset > 0 || looks_like_database(into).is_none())).then_some(())
    };
    hold(catalog, &before, pages, &mut read, &mut |page, span| {
        changed.push(page);
        bytes.extend_from_slice(span);
        bytes.len() <= DIFFERING
    })?;
    (look() == Some(stamp)).then_some(Scanned { stamp, head, pages, changed, bytes, before })
}
