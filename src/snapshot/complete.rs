//! What has another content by now than it was captured with, while something else is gone.
//!
//! An application that moves data from one file to another has them in both for a moment: a message is imported into a
//! database and its file removed, a segment is compacted into a new one, a line is appended to an archive. If the one
//! is captured before it has them, and the other is gone when its turn comes, the snapshot has them nowhere. So when a
//! place turns out to be empty, every file is asked once more whether it is what was captured, wherever it lies; the
//! others are captured again.

use std::path::Path;

use rayon::prelude::*;

use super::capture::RETRY_MOST;
use super::contents::Contents;
use super::sidecar::sidecar_stamps;
use super::subtree::Untouched;
use crate::source::walk::{Found, Kind, Stamp, Walk, identity, stamp};

/// What may be read again in one snapshot, in bytes: beside something that is gone again and again, what is large and
/// changes all the time would be read each time.
pub(super) const BUDGET: u64 = 1024 * 1024 * 1024;

/// What is not what it was.
#[derive(Default)]
pub(super) struct Others {
    /// Places of files that were captured with another content.
    pub(super) places: Vec<usize>,
    /// Places of folders that were taken over whole, and have a file that is another now.
    pub(super) folders: Vec<usize>,
}

/// Looks for them among all files in `walked`, and takes what it costs to read them again from what is `left` for that.
pub(super) fn others(
    source: &Path,
    walked: &Walk,
    contents: &Contents,
    untouched: &Untouched,
    left: &mut u64,
) -> Others {
    let look = |at: usize| {
        let found = &walked.found[at];
        let is_taken_over = untouched.has(at);
        if found.kind != Kind::File || !is_taken_over && contents.nodes[at].is_none() {
            return None;
        }
        let meta = std::fs::symlink_metadata(source.join(&found.path)).ok().filter(std::fs::Metadata::is_file)?;
        let now = stamp(&meta);
        if is_taken_over {
            return (now != found.stamp).then_some((at, true, 0));
        }
        Some((at, false, cost(source, found, contents, &now)?))
    };
    let seen: Vec<(usize, bool, u64)> =
        (0..walked.found.len()).into_par_iter().with_min_len(256).filter_map(look).collect();
    let mut others = Others::default();
    for (at, is_taken_over, cost) in seen {
        if is_taken_over {
            others.folders.push(walked.found[at].parent);
        } else if cost <= RETRY_MOST.min(*left) {
            *left -= cost;
            others.places.push(at);
        }
    }
    others
}

/// What it takes to read a file again, in bytes; nothing if it is what was captured, or another file, which the looks
/// are for. Of a database with a log only that is read.
fn cost(source: &Path, found: &Found, contents: &Contents, now: &Stamp) -> Option<u64> {
    let Some(receipt) = contents.databases.get(&found.path) else {
        let is_other = contents.settled.has(identity(now)) && !contents.settled.has_as(now);
        return is_other.then_some(now.size);
    };
    let beside = sidecar_stamps(&source.join(&found.path));
    let has_log = beside[0].is_some_and(|log| log.size > 0);
    (receipt.stamp != *now || !receipt.is_same_beside(beside)).then_some(if has_log { 0 } else { now.size })
}
