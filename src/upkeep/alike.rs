//! Whose the snapshots are that are known as one data directory.
//!
//! A path is all that a data directory without a name is known by, and in a container it is the same each time: two of
//! them in one store are one to it by that. But each snapshot says which directory it was taken of
//! ([`instance`](crate::snapshot::instance)). So a policy goes over those that this very directory took, **and over no
//! others until a person says that they are this one's too** ([`super::remembered::accept`]): those of all that may be
//! what this one was before, or of one that is named. Whether another of the
//! same path is what this one was before (it was moved to another disk, restored on a new machine, made anew with its
//! container), or lives beside it, is known to nobody else: neither how long it has been silent nor what both have in
//! common proves it. What stays by mistake is what was there when this one began, and costs room; what goes by mistake
//! is lost.
//!
//! Who looks, or restores, is served better by a likely answer:
//! - what took a snapshot when this one had begun ([`Head::apart`]) is **another**, for good: nobody means that by
//!   `latest`;
//! - the rest is most likely **what it was before**, unless that is itself of several which lived beside each other:
//!   then nobody can tell which of them is meant.
//!
//! What nothing tells apart are the clones of one disk, and directories of file systems that do not know when a folder
//! was made: those are one to this.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::words::time;
use crate::error::{Error, Result};
use crate::id::{InstanceId, SnapshotId};
use crate::snapshot::head::{Head, MOST_APART};
use crate::snapshot::record::Record;

/// What is to be done about it.
pub const REMEDY: &str = "give each a name of its own (`nbak.name` in config.json, or NBAK_NAME), or its own store and \
                          folder of backups; if this one was that one, before it was moved or made anew, `nbak forget \
                          --as-one-with SNAPSHOT` says so, with one of its snapshots";
/// What took nothing for so long, and this one did, is no other that takes turns with it here, in milliseconds. Words
/// end by that, and nothing else.
const QUIET: i64 = 8 * 86_400_000;

/// So many of them are named.
const NAMED: usize = 5;

/// Which directory, as far as its file system says.
pub type Which = Option<InstanceId>;

/// Other directories, and of each the number of a snapshot: those up to that one are meant.
pub type UpTo = BTreeMap<Which, u64>;

/// What is known as one data directory, told apart.
#[derive(Debug, Clone)]
pub struct Alike {
    source: String,
    own: Which,
    /// What a person said is its own too. That one of them takes snapshots still shows that it is not.
    one: UpTo,
    /// All others.
    others: UpTo,
    /// Those of them that are not what it was before.
    apart: BTreeSet<Which>,
    /// What it may have been before is of several, and nobody can tell which.
    at_odds: bool,
    /// The newest snapshot of each of the others, the newest first.
    newest_of_others: Vec<(SnapshotId, i64)>,
    /// The newest snapshot of those that are not its own by all that is known.
    its: Option<(SnapshotId, i64)>,
    /// It has a snapshot itself.
    has_begun: bool,
    /// Another took a snapshot after its newest.
    is_active: bool,
}

impl Alike {
    /// What `head` has of `source`, as the directory `own` sees it at `now_ms`, of which a person said that it is one
    /// with `one`.
    pub fn of(head: &Head, source: &str, own: Which, one: &UpTo, now_ms: i64) -> Alike {
        let newest: Vec<&Record> = head.newest_of_each(source).collect();
        let is_one = |record: &Record| one.get(&record.instance).is_some_and(|upto| record.sequence <= *upto);
        let (ones, rest): (Vec<&Record>, Vec<&Record>) =
            newest.iter().filter(|record| record.instance != own).partition(|record| is_one(record));
        let begun = newest.iter().position(|record| record.instance == own);
        let is_own = |record: &&Record| record.source == source && record.instance == own;
        let later = head.newest_at(source).take_while(|record| !is_own(record)).filter(|_| begun.is_some());
        let later: BTreeSet<Which> = later.map(|record| record.instance).collect();
        // Who goes on under a name of its own is not what this one was.
        let goes_on = |it: Which| {
            let mut its = head.newest_at(source).filter(|record| record.instance == it);
            its.next().is_some_and(|newest| newest.source != source)
        };
        let mut known = own.map(|own| head.apart(source, own)).unwrap_or_default();
        // What lived beside what it was before lived beside it.
        known.extend(ones.iter().flat_map(|record| record.apart.iter()));
        let itself: BTreeSet<Which> = ones.iter().map(|record| record.instance).chain([own]).collect();
        // There may have been more than are kept in mind.
        let is_apart = |record: &&&Record| {
            let it = record.instance;
            let has_this = record.apart.iter().any(|it| itself.contains(&Some(*it)));
            let is_known = it.is_some_and(|it| known.contains(&it));
            known.len() >= MOST_APART || has_this || later.contains(&it) || is_known || goes_on(it)
        };
        let apart: BTreeSet<Which> = rest.iter().filter(is_apart).map(|record| record.instance).collect();
        // All that are there count: one of two that were apart is not the only one for the other's being known.
        let there: BTreeSet<Which> = rest.iter().map(|record| record.instance).collect();
        let mut before = rest.iter().filter(|record| !apart.contains(&record.instance));
        let at_odds = before.any(|record| record.apart.iter().any(|it| there.contains(&Some(*it))));
        // One that is idle takes none itself, and a clock may be behind.
        let latest = begun.map(|at| newest[at].started.max(now_ms));
        let is_quiet = |record: &Record| latest.is_some_and(|latest| record.started < latest.saturating_sub(QUIET));
        let is_its = |record: &&&Record| (at_odds && begun.is_none()) || apart.contains(&record.instance);
        let its = rest.iter().filter(is_its).find(|record| !is_quiet(record));
        // Up to its newest by any name: what it takes later shows that it was another.
        let last = |record: &Record| {
            let its = head.newest_at(source).filter(|other| other.instance == record.instance);
            its.map(|other| other.sequence).max().unwrap_or(record.sequence)
        };
        Alike {
            source: source.to_owned(),
            own,
            one: ones.iter().map(|record| (record.instance, one[&record.instance])).collect(),
            others: rest.iter().map(|record| (record.instance, last(record))).collect(),
            newest_of_others: rest.iter().map(|record| (record.id, record.started)).collect(),
            its: its.map(|record| (record.id, record.started)),
            has_begun: begun.is_some(),
            is_active: rest.iter().any(|record| later.contains(&record.instance)),
            apart,
            at_odds,
        }
    }

    /// Whether `record` is its own: a policy of this directory goes over it.
    pub fn owns(&self, record: &Record) -> bool {
        let is_one = || self.one.get(&record.instance).is_some_and(|upto| record.sequence <= *upto);
        record.source == self.source && (record.instance == self.own || is_one())
    }

    /// Whether `record` may be meant by `latest`, a time or a tag.
    pub fn means(&self, record: &Record) -> bool {
        let is_its = self.others.contains_key(&record.instance);
        let is_anothers = is_its && (self.at_odds || self.apart.contains(&record.instance));
        record.source == self.source && !is_anothers
    }

    /// All that is not its own, up to the newest of each.
    pub fn others(&self) -> &UpTo {
        &self.others
    }

    /// What a person said was this one, up to which snapshot.
    pub fn ones(&self) -> &UpTo {
        &self.one
    }

    /// Those of them that it may have been before, which a person may take together. Where these are of several that
    /// lived beside each other, that takes a name.
    pub fn before(&self) -> Result<UpTo> {
        if self.at_odds {
            return Err(Error::usage(format!(
                "the directories that took snapshots of {} before lived beside each other: it was not all of them",
                self.source
            ))
            .hint(format!(
                "`nbak forget --as-one-with SNAPSHOT` names the one that is gone and was this one, by one of its \
                 snapshots; the newest of each: {}",
                self.newest_of_each()
            )));
        }
        Ok(self.others.iter().filter(|(it, _)| !self.apart.contains(it)).map(|(it, upto)| (*it, *upto)).collect())
    }

    /// The same, to whom `these` are its own too, up to their newest by now.
    #[must_use]
    pub fn with(mut self, these: UpTo) -> Alike {
        self.others.retain(|it, _| !these.contains_key(it));
        self.apart.retain(|it| !these.contains_key(it));
        self.one.extend(these);
        if self.others.is_empty() {
            (self.at_odds, self.its, self.is_active) = (false, None, false);
        }
        self
    }

    /// Those that are not what it was before, or of which nobody can tell.
    pub fn not_before(&self) -> BTreeSet<Which> {
        let all = self.others.keys().filter(|it| self.at_odds || self.apart.contains(it));
        all.copied().collect()
    }

    /// Another directory of the same path takes snapshots: it did after this one's newest.
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// It took a snapshot itself.
    pub fn has_begun(&self) -> bool {
        self.has_begun
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

    /// The newest snapshot of each of the others, in words.
    fn newest_of_each(&self) -> String {
        let named = self.newest_of_others.iter().take(NAMED);
        let named: Vec<String> = named.map(|(id, at)| format!("{} of {}", id.short(), time(*at))).collect();
        let more = if self.newest_of_others.len() > NAMED { ", …" } else { "" };
        format!("{}{more}", named.join(", "))
    }

    /// That a policy leaves out what may be another's, in words. A snapshot to type is never among them: the newest is
    /// most likely of the one that lives. `of` says that the policy is given for what is known as this.
    pub fn leaves(&self, of: bool) -> Option<String> {
        if self.others.is_empty() || self.its.is_some() {
            return None;
        }
        let text = format!("some snapshots of {} were taken of another directory", self.source);
        let remedy = match self.before() {
            Ok(before) if of && !before.is_empty() => {
                "if they are of what this one was before, --as-one beside the policy goes over them".to_owned()
            }
            _ if of => "--as-one-with SNAPSHOT beside the policy goes over those of the one that took this".to_owned(),
            Ok(before) if before.is_empty() => format!("it took them beside this one: {REMEDY}"),
            Ok(_) => "if they are of what this one was before, `nbak forget --as-one` says so; if there is one beside \
                      it, give each a name"
                .to_owned(),
            Err(_) => format!("of several that lived beside each other: {REMEDY}"),
        };
        Some(format!(
            "{text}: of what lay there before this one, or of one beside it that has the same path. No policy \
                      goes over those ({remedy})"
        ))
    }
}

#[cfg(test)]
mod tests;
