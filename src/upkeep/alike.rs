//! Whose the snapshots are that are known as one data directory.
//!
//! A path is all that a data directory without a name is known by, and in a container it is the same each time: two of
//! them in one store are one to it by that. But each snapshot says which directory it was taken of
//! ([`instance`](crate::snapshot::instance)), and one directory may have followed on another: it was moved to another
//! disk, restored on a new machine, made anew with its container. What it was before takes no snapshot any more once it
//! has taken its own ([`Head::apart`]). So of the snapshots with the same path
//! - those of the directory that is there now are its own, and those that do not say which they are of;
//! - those of one that took another when this one had begun are **another's**, for good;
//! - the rest is taken for **what it was before**, and its own. A policy waits for eight days from its first snapshot
//!   on: it may be another all the same, whose next one is just not there yet. (One that finds nothing changed is
//!   stored if it is the first since another took one.) Where the rest is itself of several that are apart, nobody can
//!   tell which of them went on here, and none counts; nor does one that goes on at another path.
//!
//! A person can say that all is one ([`super::remembered::accept`]). What nothing tells apart are the clones of one
//! disk, and file systems that do not know when a folder was made.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::error::words::time;
use crate::id::{InstanceId, SnapshotId};
use crate::snapshot::head::{Head, MOST_APART};
use crate::snapshot::record::Record;

/// What is to be done about it.
pub const REMEDY: &str = "give each a name of its own (`nbak.name` in config.json, or NBAK_NAME), or its own store and \
                          folder of backups; if all is of this one, `--as-one` with `forget` says so and ends this, as \
                          `nbak repair index` does, and `backup prune` takes it too";
/// So long a directory has to be there before a policy takes what no other claimed for its own, in milliseconds.
const SILENCE: i64 = 8 * 86_400_000;

/// What is known as one data directory, told apart.
#[derive(Debug, Clone)]
pub struct Alike {
    source: String,
    own: Option<InstanceId>,
    /// Others, which are not it.
    apart: BTreeSet<InstanceId>,
    /// What it may have been before.
    before: BTreeSet<InstanceId>,
    /// It was there for long enough to know.
    is_settled: bool,
    /// What it may have been before is of several, and nobody can tell which.
    at_odds: bool,
    /// The newest snapshot of those that are not its own by all that is known.
    its: Option<(SnapshotId, i64)>,
    /// Another took a snapshot after its newest.
    is_active: bool,
}

impl Alike {
    /// What `head` has of `source`, as the directory `own` sees it at the time `now`. It is one with those in `one`.
    pub fn of(head: &Head, source: &str, own: Option<InstanceId>, one: &BTreeSet<InstanceId>, now: i64) -> Alike {
        let newest: Vec<&Record> = head.newest_of_each(source).collect();
        let others = |record: &Record| record.instance.filter(|it| Some(*it) != own && !one.contains(it));
        let known = own.map(|own| head.apart(source, own)).unwrap_or_default();
        // There may have been more than are kept in mind.
        let lives_elsewhere = |it: &InstanceId| own.is_some() && has_gone_on(head, source, *it);
        let is_apart = |it: &InstanceId| known.len() >= MOST_APART || known.contains(it) || lives_elsewhere(it);
        let apart: BTreeSet<InstanceId> = newest.iter().filter_map(|record| others(record)).filter(is_apart).collect();
        let rest = || newest.iter().filter_map(|record| Some((*record, others(record)?)));
        let rest = || rest().filter(|(_, it)| !apart.contains(it));
        let before: BTreeSet<InstanceId> = rest().map(|(_, it)| it).collect();
        // All that are there count: one of two that were apart is not the only one for the other's being known.
        let there: BTreeSet<InstanceId> = newest.iter().filter_map(|record| others(record)).collect();
        let at_odds = rest().any(|(record, _)| record.apart.iter().any(|it| there.contains(it)));
        // What took none since this one began is known by that, and by nothing that another clock says.
        let since = head.own(source, own).map(|record| record.since.unwrap_or(record.started));
        let is_settled = own.is_none() || since.is_some_and(|since| since <= now.saturating_sub(SILENCE));
        let is_anothers = |it: InstanceId| apart.contains(&it) || at_odds;
        let its = newest.iter().find(|record| others(record).is_some_and(is_anothers));
        let own_at = newest.iter().position(|record| own.is_some() && record.instance == own);
        let is_after = |record: &&Record| others(record).is_some_and(|it| apart.contains(&it));
        let is_active = newest.iter().take(own_at.unwrap_or(newest.len())).copied().any(|record| is_after(&record));
        Alike {
            source: source.to_owned(),
            own,
            its: its.map(|record| (record.id, record.started)),
            apart,
            before,
            is_settled,
            at_odds,
            is_active,
        }
    }

    /// What `head` has of `source` to who is none of the directories that it is of, and says that all may go that is of
    /// one.
    pub fn seen_by_nobody(head: &Head, source: &str) -> Alike {
        Alike::of(head, source, None, &BTreeSet::new(), 0)
    }

    /// Whether a policy of this directory goes over `record`.
    pub fn owns(&self, record: &Record) -> bool {
        // What does not say whose it is may be that of any.
        let is_alone = self.apart.is_empty() && self.before.is_empty();
        let is_it = match record.instance {
            None => self.own.is_none() || is_alone || self.is_settled && self.apart.is_empty() && !self.at_odds,
            Some(it) => Some(it) == self.own || self.is_settled || !self.before.contains(&it),
        };
        is_it && self.means(record)
    }

    /// Whether `record` may be meant by `latest`, a time or a tag.
    pub fn means(&self, record: &Record) -> bool {
        let is_it =
            |it| Some(it) == self.own || !(self.apart.contains(&it) || self.at_odds && self.before.contains(&it));
        record.source == self.source && record.instance.is_none_or(is_it)
    }

    /// Those that are not its own by all that is known.
    pub fn others(&self) -> BTreeSet<InstanceId> {
        self.apart.iter().chain(self.before.iter().filter(|_| self.at_odds || !self.is_settled)).copied().collect()
    }

    /// The same, to whom all that is known as it is one: a person says so.
    #[must_use]
    pub fn as_one(self) -> Alike {
        let none = BTreeSet::new;
        Alike { apart: none(), before: none(), at_odds: false, its: None, is_active: false, ..self }
    }

    /// Another directory of the same path takes snapshots: it did after this one's newest.
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// That there is another with the same path, in words.
    pub fn text(&self) -> Option<String> {
        let (id, at) = self.its.as_ref()?;
        let which = if self.apart.is_empty() {
            "several data directories with the same path wrote to this store, and none of them is this one"
        } else {
            "another data directory with the same path writes to this store"
        };
        Some(format!("{which}: snapshot {} of {}, taken {}, is not of this one", id.short(), self.source, time(*at)))
    }

    /// That something is not done for it.
    pub fn refusal(&self, what: &str) -> Option<Error> {
        Some(Error::failed(self.text()?).hint(format!("{REMEDY}; {what}")))
    }

    /// That a policy leaves out for now what may be another's, in words.
    pub fn waits(&self) -> Option<String> {
        let waits = !self.before.is_empty() && !self.at_odds && !self.is_settled;
        waits.then(|| {
            format!(
                "some snapshots of {} are of the directory that lay there before, or of another with the same path, \
                 which eight days of this one's snapshots will tell: those stay for now (`--as-one` goes over them)",
                self.source
            )
        })
    }
}

/// Whether `it` took a snapshot as something else after the newest that is known as `source`: it lives elsewhere.
fn has_gone_on(head: &Head, source: &str, it: InstanceId) -> bool {
    head.newest.iter().find(|record| record.instance == Some(it)).is_some_and(|record| record.source != source)
}

#[cfg(test)]
mod tests;
