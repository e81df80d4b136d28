//! What has another content by now than it was captured with.
//!
//! An application moves data from one file to another: a message is imported into a database and its file removed, a
//! row goes from one database to the next, a queue is written anew without what was done, a log is cut when it was
//! played into its file. At each moment the data is somewhere; but who reads the one file before and the other after
//! has it nowhere. So when everything was captured, every file is asked once more whether it is what was captured,
//! wherever it lies and whoever vouched for it, and the others are captured again, until none is left.
//!
//! **Why that is enough.** If none is left, each file has been as it was captured from then until it was asked. All
//! that time holds the moment between the last capture and the first question: the snapshot is the directory of that
//! moment. (Databases are held by the transaction that they were captured in, and by the stamps that they were opened
//! at.) A file that was written to just before it was captured may have been written to again within a tick of the
//! clock, and look the same: it is captured once more too.
//!
//! **When nobody has to be asked.** Most snapshots are taken of a directory in which nothing happens meanwhile. If
//! nothing that was read was changed since the snapshot began, and no folder was, then the snapshot is the directory as
//! it was when the walk began, whatever became of the rest: what was read has been as it is since before that, and
//! what was not read was vouched for by the stamp that the walk saw, which is later, so it was as it is in the parent
//! snapshot until then. So those that were read are asked first, and mostly they are few.
//!
//! Where one single thing changed since the snapshot began, nothing can have been moved anywhere: that one is as it was
//! captured, whatever it has become since. So nobody reads a log twice that merely grows.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::capture::RETRY_MOST;
use super::contents::Contents;
use super::sidecar::{Sidecar, sidecar_stamps};
use super::subtree::Untouched;
use crate::source::clock::Clock;
use crate::source::top::Top;
use crate::source::walk::{Found, Kind, Stamp, Standing, Walk, identity};

/// What may be read again in one snapshot, in bytes: what is large and changes all the time would be read each time.
const BUDGET: u64 = 1024 * 1024 * 1024;

/// What is not what it was.
#[derive(Default)]
pub(super) struct Others {
    /// Places of files that were captured with another content, or may have been.
    pub(super) places: Vec<usize>,
    /// Places of folders that were taken over whole, and have a file that is another now.
    pub(super) folders: Vec<usize>,
    /// What stands at these places, and where something is another in such folders.
    pub(super) now: Vec<(usize, Standing)>,
}

/// The questions of one snapshot.
pub(super) struct Asking {
    /// When the snapshot began, by the clock of the files.
    began: i128,
    /// When those that were captured last began to be, likewise.
    since: i128,
    /// What may be read again, in bytes.
    left: u64,
    /// More than one thing changed since the snapshot began.
    is_busy: bool,
    /// Nobody was asked yet.
    is_first: bool,
}

impl Asking {
    /// Of a snapshot that began at `began`, by the clock of the files.
    pub(super) fn new(began: i128) -> Asking {
        Asking { began, since: began, left: BUDGET, is_busy: false, is_first: true }
    }

    /// Asks every file in `walked`; so many `folders` changed. What is answered is captured next.
    pub(super) fn others(
        &mut self,
        source: &Top,
        (walked, folders): (&Walk, usize),
        contents: &Contents,
        untouched: &Untouched,
        clock: &Clock,
    ) -> Others {
        if std::mem::take(&mut self.is_first)
            && folders == 0
            && self.is_of_the_beginning(source, walked, contents, clock)
        {
            return Others::default();
        }
        let now = clock.now();
        let is_file = |at: &usize| walked.found[*at].kind == Kind::File;
        let files: Vec<usize> = (0..walked.found.len()).filter(is_file).collect();
        let standing = walked.standing(source, &files);
        let (began, since) = (clock.least_after(self.began), clock.least_after(self.since));
        for (_, now) in &standing {
            clock.see(now.stamp.ctime);
        }
        if !self.is_busy {
            let late = standing.iter().filter(|(_, now)| is_late(&now.stamp, began));
            // A database and its log are one thing, and what lies in memory beside them is nothing. Beside any other
            // file these are names like others.
            let things: HashSet<PathBuf> = late
                .filter_map(|(at, _)| {
                    let path = &walked.found[*at].path;
                    match Sidecar::named(path).filter(|(_, base)| contents.images.contains_key(base)) {
                        Some((Sidecar::Memory, _)) => None,
                        Some((_, base)) => Some(base),
                        None => Some(path.clone()),
                    }
                })
                .collect();
            self.is_busy = things.len() + folders > 1;
        }
        let mut others = Others::default();
        if !self.is_busy {
            return others;
        }
        for (at, now) in standing {
            let found = &walked.found[at];
            let is_same_file = identity(&now.stamp) == identity(&found.stamp);
            if untouched.has(at) {
                if now.stamp != found.stamp {
                    others.folders.push(found.parent);
                    others.now.extend(is_same_file.then_some((at, now)));
                }
                continue;
            }
            let is_captured = contents.nodes[at].is_some();
            let Some(cost) = cost(source.through(), found, contents, &now.stamp, |stamp| is_late(stamp, since)) else {
                continue;
            };
            if is_captured && cost <= RETRY_MOST.min(self.left) {
                self.left -= cost;
                others.places.push(at);
                others.now.extend(is_same_file.then_some((at, now)));
            }
        }
        self.since = now;
        others
    }

    /// Whether all that was read has been what it is since before the snapshot began. It is asked of this machine's
    /// clock only: the newest that was seen of another one may be from long before.
    fn is_of_the_beginning(&self, source: &Top, walked: &Walk, contents: &Contents, clock: &Clock) -> bool {
        let mut read: Vec<usize> =
            contents.read.iter().copied().filter(|at| walked.found[*at].kind == Kind::File).collect();
        read.sort_unstable();
        read.dedup();
        let standing = walked.standing(source, &read);
        let began = clock.least_after(self.began);
        let is_same = |(at, now): &(usize, Standing)| {
            let is_late = |stamp: &Stamp| is_late(stamp, began);
            contents.nodes[*at].is_some()
                && is_as_captured(source.through(), &walked.found[*at], contents, &now.stamp, is_late)
        };
        clock.is_ours() && standing.len() == read.len() && standing.iter().all(is_same)
    }
}

/// Whether it may have been changed since then.
fn is_late(stamp: &Stamp, since: i128) -> bool {
    stamp.hides_until() >= since
}

/// What it takes to read a file again, in bytes; nothing if it is what was captured, or another file, which the looks
/// are for. Of a database with a log only that is read. What `is_late` may have changed once more, unseen.
fn cost(
    source: &Path,
    found: &Found,
    contents: &Contents,
    now: &Stamp,
    is_late: impl Fn(&Stamp) -> bool,
) -> Option<u64> {
    let is_database = contents.databases.contains_key(&found.path);
    let is_it = is_database || contents.settled.has(identity(now));
    if !is_it || is_as_captured(source, found, contents, now, is_late) {
        return None;
    }
    let has_log = is_database && sidecar_stamps(&source.join(&found.path))[0].is_some_and(|log| log.size > 0);
    Some(if has_log { 0 } else { now.size })
}

/// Whether what stands `now` where `found` was seen is what was captured there, and nothing of it `is_late`.
fn is_as_captured(
    source: &Path,
    found: &Found,
    contents: &Contents,
    now: &Stamp,
    is_late: impl Fn(&Stamp) -> bool,
) -> bool {
    let Some(receipt) = contents.databases.get(&found.path) else {
        return contents.settled.has_as(now) && !is_late(now);
    };
    let beside = sidecar_stamps(&source.join(&found.path));
    // SQLite gives a log its owner anew as it opens it: that time is of whoever read it last.
    let by_content = |log: &Stamp| is_late(&Stamp { ctime: log.mtime, ..*log });
    let is_same = receipt.stamp == *now && receipt.is_same_beside(beside);
    is_same && !is_late(now) && !beside.iter().flatten().any(by_content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tree::{Consistency, Content, Node};
    use crate::source::clock;
    use crate::source::exclude::Exclusions;
    use crate::source::walk::walk;

    /// All files that were `walked`, captured as they stood.
    fn captured(walked: &Walk) -> Contents {
        let mut contents = Contents::new();
        contents.nodes.resize(walked.found.len(), None);
        for (at, found) in walked.found.iter().enumerate().skip(1) {
            let content = Content::Chunks(Vec::new());
            contents.nodes[at] = Some((Node::File { size: 0, consistency: Consistency::Stable, content }, None));
            contents.settled.add(&found.stamp);
        }
        contents
    }

    /// A file system of another machine, whose clock is two seconds behind: what is written there after the snapshot
    /// began has a stamp of before, by the clock of this machine.
    #[test]
    fn what_another_machine_stamps_is_asked_of_its_own_clock() {
        let place = tempfile::tempdir().expect("a place");
        let paths = ["a", "b", "old"].map(|name| place.path().join(name));
        for path in &paths {
            std::fs::write(path, "of before").expect("written");
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        std::fs::write(&paths[2], "the newest").expect("written");
        for is_ours in [true, false] {
            let clock = Clock::of_machine(is_ours);
            let exclusions = Exclusions::new(Vec::new(), &[]).expect("no globs");
            let top = Top::open(place.path()).expect("opened");
            let walked = walk(&top, &exclusions, &clock).expect("walked");
            let began = if is_ours { clock::now_nanos() + 2_000_000_000 } else { clock.now() };
            let contents = captured(&walked);
            std::thread::sleep(std::time::Duration::from_millis(50));
            for path in &paths[..2] {
                std::fs::write(path, "handed over").expect("written");
            }
            let mut asking = Asking::new(began);
            let others = asking.others(&top, (&walked, 0), &contents, &Untouched::default(), &clock);
            let names: Vec<_> = others.places.iter().map(|at| walked.found[*at].path.to_str().expect("text")).collect();
            // The first is what would happen if nobody knew whose clock it is.
            assert_eq!(names, if is_ours { [].as_slice() } else { ["a", "b"].as_slice() });
        }
    }

    /// Two files that receipts vouch for are written to after the walk, and one that was read is, or is not.
    #[test]
    fn where_nothing_that_was_read_changed_the_snapshot_is_of_its_beginning() {
        let place = tempfile::tempdir().expect("a place");
        let names = ["read", "vouched", "vouched-too"];
        for name in names {
            std::fs::write(place.path().join(name), "of before").expect("written");
        }
        for writes in [[false, true, true], [true, true, false]] {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let clock = Clock::of_machine(true);
            let began = clock.now();
            let exclusions = Exclusions::new(Vec::new(), &[]).expect("no globs");
            let top = Top::open(place.path()).expect("opened");
            let walked = walk(&top, &exclusions, &clock).expect("walked");
            let mut contents = captured(&walked);
            contents.read.push(1);
            for (name, _) in names.iter().zip(writes).filter(|(_, writes)| *writes) {
                std::fs::write(place.path().join(name), "handed over").expect("written");
            }
            let mut asking = Asking::new(began);
            let others = asking.others(&top, (&walked, 0), &contents, &Untouched::default(), &clock);
            assert_eq!(others.places, if writes[0] { [1, 2].as_slice() } else { [].as_slice() });
        }
    }
}
