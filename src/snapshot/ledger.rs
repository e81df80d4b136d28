//! The ledger: which snapshots were forgotten, which are gone, what of the others is known to be lost, and which have a
//! mark: a drill restored them, or somebody wants them kept.
//!
//! A store's objects never change (I3), so that a snapshot is forgotten is written beside it: a pack without segments
//! whose footer holds the ledger, as one record or several. Each ledger is the whole truth of its time and counts one
//! more than the one before; the highest counts, and the others are garbage. To lose the newest one brings forgotten
//! snapshots back: nothing is deleted for want of a ledger, only kept.
//!
//! **Chain.** Every record names the one before it by its keyed hash, so that nobody can take one away unnoticed (I8).
//! A forgotten one may go, so the ledger has, first (I23), what the chain needs of it: its number, the hash that it
//! names, and its own hash. Neighbours join to one [`Run`], so that a store that keeps sixty of a hundred thousand
//! snapshots has about sixty runs. Since that is written when a snapshot is *forgotten*, nothing has to be written when
//! its packs are deleted: space can be freed on a disk that has none.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::error::{Error, Result};
use crate::id::SnapshotId;
use crate::store::pack::MAX_RECORD;

/// What the bytes of a ledger record begin with, and those of a snapshot record never.
const OPENING: &[u8] = br#"{"kind":"#;
const KIND: &str = "ledger";
/// Lost paths are named up to this number for each snapshot.
pub const MOST_LOST: usize = 100;
/// The longest reason of a pin, in bytes.
pub const LONGEST_REASON: usize = 1000;
/// Room for them in one record, in bytes.
const LOST_ROOM: usize = 16 * 1024;

/// The keyed hash of a record.
pub type Mac = [u8; 16];
/// What a record follows on: its own number, and the hash of the one before it. Two share it only where the chain
/// forked.
pub type Start = (u64, Option<Mac>);

/// Forgotten snapshots that followed on one another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The number of the first.
    pub first: u64,
    /// The hash of the record before it.
    pub from: Option<Mac>,
    /// The hash of the first, if it is known.
    pub head: Option<Mac>,
    /// The number of the last.
    pub last: u64,
    /// The hash of the last.
    pub end: Mac,
}

impl Run {
    /// What the first of it follows on.
    pub fn start(&self) -> Start {
        (self.first, self.from)
    }
}

/// Snapshots that are missing in the chain, which is known. Nobody forgot them: if one comes back it counts again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// The number of the first.
    pub first: u64,
    /// The hash of the record before it, if that is known.
    pub from: Option<Mac>,
    /// The number of the last.
    pub last: u64,
    /// The hash of the last: what follows on it says so.
    pub end: Mac,
}

/// What of a snapshot is known to be lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loss {
    /// Paths, as many as are named.
    pub paths: Vec<String>,
    /// How many there are.
    pub count: u64,
}

impl Loss {
    /// Whether all of `paths`, in the order of a walk, are among those that are known to be lost. Only the first are
    /// noted by name: of what comes after them no more may be lost than were counted.
    pub fn covers(&self, paths: &[PathBuf]) -> bool {
        let noted: HashSet<&Path> = self.paths.iter().map(Path::new).collect();
        let last = self.paths.last().map(Path::new);
        let others: Vec<&Path> = paths.iter().map(PathBuf::as_path).filter(|path| !is_in(&noted, path)).collect();
        let hidden = self.count.saturating_sub(self.paths.len() as u64);
        others.len() as u64 <= hidden && others.iter().all(|path| last.is_none_or(|last| *path > last))
    }
}

/// Whether `path` is noted, or a directory that it is in.
fn is_in(noted: &HashSet<&Path>, path: &Path) -> bool {
    let is = |path: &Path| noted.contains(path) || noted.contains(Path::new(&*path.to_string_lossy()));
    path.ancestors().any(is)
}

/// That a snapshot is to be kept, whatever a policy says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin {
    /// Since when: milliseconds since 1970.
    pub at: i64,
    /// Why, in the words of whoever wants it; may be empty.
    pub reason: String,
}

/// What the store knows of its snapshots besides their records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// One more than that of the ledger before.
    pub generation: u64,
    /// The forgotten, for the chain.
    pub runs: Vec<Run>,
    /// What is missing between, in no order.
    pub gaps: BTreeSet<Gap>,
    /// Those of them that can be brought back, and when they were forgotten: milliseconds since 1970.
    pub forgotten: BTreeMap<SnapshotId, i64>,
    /// Those whose space was reclaimed, as long as a pack still holds their record.
    pub reclaimed: BTreeSet<SnapshotId>,
    /// Snapshots that lost something, and what.
    pub losses: BTreeMap<SnapshotId, Loss>,
    /// Snapshots that a drill restored whole, and when it last did: milliseconds since 1970.
    pub proven: BTreeMap<SnapshotId, i64>,
    /// Snapshots that are kept on purpose.
    pub pinned: BTreeMap<SnapshotId, Pin>,
}

/// `first`, `from`, `head`, `last`, `end`.
type WireRun = (u64, Option<String>, Option<String>, u64, String);
/// `first`, `from`, `last`, `end`.
type WireGap = (u64, Option<String>, u64, String);

#[derive(Default, Serialize, Deserialize)]
struct Wire {
    kind: String,
    format: u32,
    generation: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    runs: Vec<WireRun>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<WireGap>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    forgotten: Vec<(String, i64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    reclaimed: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    losses: Vec<(String, u64, Vec<String>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    proven: Vec<(String, i64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pinned: Vec<(String, i64, String)>,
}

impl Wire {
    fn part(generation: u64) -> Wire {
        Wire { kind: KIND.to_owned(), format: 1, generation, ..Wire::default() }
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers have a JSON form")
    }
}

/// Whether `record` is one of a ledger, not of a snapshot.
pub fn is_ledger(record: &[u8]) -> bool {
    record.starts_with(OPENING)
}

/// The beginning of `text`, of at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

impl Ledger {
    /// Whether there is nothing to know.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
            && self.gaps.is_empty()
            && self.forgotten.is_empty()
            && self.reclaimed.is_empty()
            && self.losses.is_empty()
            && self.proven.is_empty()
            && self.pinned.is_empty()
    }

    /// Whether the snapshot `id` was forgotten.
    pub fn has_forgotten(&self, id: SnapshotId) -> bool {
        self.forgotten.contains_key(&id) || self.reclaimed.contains(&id)
    }

    /// Whether `record`, with this hash of its own, is of a forgotten snapshot: it is named; or its space was
    /// reclaimed, it came back with a pack that somebody put back, and a run has its very hash. Nothing is concluded
    /// from numbers alone: on another branch of the chain the same number is another snapshot, which nobody forgot.
    pub fn is_gone(&self, record: &Record, mac: Mac, named: &HashSet<(u64, Mac)>) -> bool {
        self.has_forgotten(record.id) || named.contains(&(record.sequence, mac))
    }

    /// The hashes that runs have of forgotten records, with their numbers.
    pub fn named(&self) -> HashSet<(u64, Mac)> {
        let both = |run: &Run| [Some((run.last, run.end)), run.head.map(|head| (run.first, head))];
        self.runs.iter().flat_map(both).flatten().collect()
    }

    /// Whether forgotten snapshots had this number.
    pub fn spans(&self, number: u64) -> bool {
        self.runs.iter().any(|run| run.first <= number && number <= run.last)
    }

    /// Whether a run or a gap goes on after this number: that snapshot was forgotten or lost, and so was the next, and
    /// no hash tells which.
    pub fn goes_on_after(&self, number: u64) -> bool {
        let runs = self.runs.iter().map(|run| (run.first, run.last));
        let mut all = runs.chain(self.gaps.iter().map(|gap| (gap.first, gap.last)));
        all.any(|(first, last)| first <= number && number < last)
    }

    /// When a drill last restored the snapshot `id` whole, if one did and nothing of it is known to be lost since.
    pub fn proof(&self, id: SnapshotId) -> Option<i64> {
        self.proven.get(&id).copied().filter(|_| !self.losses.contains_key(&id))
    }

    /// Drops the marks of snapshots that are not in `there`, or whose space was reclaimed.
    pub fn drop_marks(&mut self, there: &HashSet<SnapshotId>) {
        let stays = |id: &SnapshotId| there.contains(id) && !self.reclaimed.contains(id);
        self.proven.retain(|id, _| stays(id));
        self.pinned.retain(|id, _| stays(id));
    }

    /// Takes in a second ledger of the same generation, made while the first was away: forgotten is what both say,
    /// marked is what one of them says.
    pub fn merge(&mut self, other: Ledger) {
        self.forgotten.retain(|id, _| other.has_forgotten(*id));
        self.reclaimed.retain(|id| other.has_forgotten(*id));
        self.runs.extend(other.runs);
        self.runs.sort_unstable();
        self.runs.dedup();
        self.gaps.extend(other.gaps);
        self.losses.extend(other.losses);
        for (id, at) in other.proven {
            let known = self.proven.entry(id).or_insert(at);
            *known = at.max(*known);
        }
        for (id, pin) in other.pinned {
            let known = self.pinned.entry(id).or_insert_with(|| pin.clone());
            *known = pin.max(known.clone());
        }
    }

    /// Its records, each of which a footer takes.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        let mut part = Wire::part(self.generation);
        let mut room = MAX_RECORD / 2;
        let mut take = |length: usize, add: &mut dyn FnMut(&mut Wire)| {
            if length > room {
                parts.push(std::mem::replace(&mut part, Wire::part(self.generation)).bytes());
                room = MAX_RECORD / 2;
            }
            room = room.saturating_sub(length);
            add(&mut part);
        };
        let hex = |mac: Mac| SnapshotId(mac).to_string();
        for run in &self.runs {
            let wire = (run.first, run.from.map(hex), run.head.map(hex), run.last, hex(run.end));
            take(160, &mut |part| part.runs.push(wire.clone()));
        }
        for gap in &self.gaps {
            let wire = (gap.first, gap.from.map(hex), gap.last, hex(gap.end));
            take(120, &mut |part| part.gaps.push(wire.clone()));
        }
        for (id, at) in &self.forgotten {
            take(60, &mut |part| part.forgotten.push((id.to_string(), *at)));
        }
        for id in &self.reclaimed {
            take(40, &mut |part| part.reclaimed.push(id.to_string()));
        }
        for (id, loss) in &self.losses {
            let mut left = LOST_ROOM;
            let fits = |path: &&String| {
                // What a path takes in JSON is at most six times its bytes.
                left = left.saturating_sub(6 * path.len());
                left > 0
            };
            let paths: Vec<String> = loss.paths.iter().take(MOST_LOST).take_while(fits).cloned().collect();
            take(LOST_ROOM - left + 60, &mut |part| part.losses.push((id.to_string(), loss.count, paths.clone())));
        }
        for (id, at) in &self.proven {
            take(60, &mut |part| part.proven.push((id.to_string(), *at)));
        }
        for (id, pin) in &self.pinned {
            let reason = cut(&pin.reason, LONGEST_REASON);
            // As paths above.
            take(6 * reason.len() + 60, &mut |part| part.pinned.push((id.to_string(), pin.at, reason.to_owned())));
        }
        parts.push(part.bytes());
        parts
    }

    /// Reads the records of one ledger: all that one pack has.
    pub fn decode<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Result<Ledger> {
        let bad = |why: &str| Error::integrity(format!("a ledger of the store is malformed: {why}"));
        let id = |text: &str| SnapshotId::parse(text).map_err(|_| bad("an id is not one"));
        let mut ledger = Ledger::default();
        for record in records {
            let wire: Wire = serde_json::from_slice(record).map_err(|error| bad(&error.to_string()))?;
            if wire.kind != KIND || wire.format != 1 {
                return Err(bad("it is of another format version: use a newer nbak"));
            }
            ledger.generation = wire.generation;
            let mac = |mac: Option<String>| mac.map(|mac| id(&mac).map(|id| id.0)).transpose();
            let in_range = |first: u64, last: u64| {
                let is = first > 0 && first <= last && u32::try_from(last).is_ok();
                is.then_some(()).ok_or_else(|| bad("a number is out of range"))
            };
            for (first, from, last, end) in wire.gaps {
                in_range(first, last)?;
                ledger.gaps.insert(Gap { first, from: mac(from)?, last, end: id(&end)?.0 });
            }
            for (first, from, head, last, end) in wire.runs {
                in_range(first, last)?;
                ledger.runs.push(Run { first, from: mac(from)?, head: mac(head)?, last, end: id(&end)?.0 });
            }
            for (forgotten, at) in wire.forgotten {
                ledger.forgotten.insert(id(&forgotten)?, at);
            }
            for reclaimed in wire.reclaimed {
                ledger.reclaimed.insert(id(&reclaimed)?);
            }
            for (snapshot, count, paths) in wire.losses {
                ledger.losses.insert(id(&snapshot)?, Loss { paths, count });
            }
            for (proven, at) in wire.proven {
                ledger.proven.insert(id(&proven)?, at);
            }
            for (pinned, at, reason) in wire.pinned {
                ledger.pinned.insert(id(&pinned)?, Pin { at, reason });
            }
        }
        Ok(ledger)
    }

    /// Forgets the snapshot of `record`, whose own hash is `mac`. [`Self::join`] when all are forgotten.
    pub fn forget(&mut self, record: &Record, mac: Mac, at: i64) {
        if !self.has_forgotten(record.id) {
            self.forgotten.insert(record.id, at);
            let (first, last) = (record.sequence, record.sequence);
            self.runs.push(Run { first, from: record.previous, head: Some(mac), last, end: mac });
        }
    }

    /// Brings the snapshot of `record` back: the run that it is in is cut there.
    pub fn bring_back(&mut self, record: &Record, mac: Mac) {
        self.forgotten.remove(&record.id);
        self.reclaimed.remove(&record.id);
        let number = record.sequence;
        // Where the chain forked, more than one run has the number. Its own names both hashes, if it ends or begins
        // there; one that goes through does neither, and then there is no other way to tell.
        let is_its = |run: &&Run| {
            (run.first <= number && number <= run.last)
                && (run.first != number || run.from == record.previous)
                && (run.last != number || run.end == mac)
        };
        let Some(at) = self.runs.iter().position(|run| is_its(&run)) else { return };
        let run = self.runs.swap_remove(at);
        if let Some(previous) = record.previous.filter(|_| run.first < number) {
            self.runs.push(Run { last: number - 1, end: previous, ..run.clone() });
        }
        if run.last > number {
            self.runs.push(Run { first: number + 1, from: Some(mac), head: None, ..run });
        }
        self.runs.sort_unstable();
    }

    /// Joins runs that follow on one another. `others` is what every record that is not forgotten follows on: where a
    /// record or a second run follows on a run too, the chain forked, and the end of that run stays.
    pub fn join(&mut self, others: impl Iterator<Item = Start>) {
        let mut followers: HashMap<Start, usize> = HashMap::new();
        for start in others.chain(self.runs.iter().map(Run::start)) {
            *followers.entry(start).or_default() += 1;
        }
        self.runs.sort_unstable();
        let mut by_start: HashMap<Start, Run> = HashMap::new();
        let mut forked = Vec::new();
        for run in self.runs.drain(..) {
            if let Some(other) = by_start.insert(run.start(), run) {
                forked.push(other);
            }
        }
        let mut starts: Vec<Start> = by_start.keys().copied().collect();
        starts.sort_unstable();
        for start in starts {
            let Some(mut run) = by_start.remove(&start) else { continue };
            loop {
                let next = (run.last + 1, Some(run.end));
                let only = followers.get(&next) == Some(&1);
                let Some(more) = only.then(|| by_start.remove(&next)).flatten() else { break };
                (run.last, run.end) = (more.last, more.end);
            }
            self.runs.push(run);
        }
        self.runs.append(&mut forked);
        self.runs.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(sequence: u64) -> Record {
        let id = SnapshotId([sequence as u8; 16]);
        Record { id, sequence, previous: (sequence > 1).then(|| mac(sequence - 1)), ..Record::empty() }
    }

    fn mac(sequence: u64) -> Mac {
        [sequence as u8 ^ 0x80; 16]
    }

    /// Whether records and runs are one chain up to `most`.
    fn is_chain(ledger: &Ledger, most: u64) -> bool {
        let mut at = (1, None);
        while at.0 <= most {
            if let Some(run) = ledger.runs.iter().find(|run| run.start() == at) {
                at = (run.last + 1, Some(run.end));
            } else if ledger.has_forgotten(record(at.0).id) {
                return false;
            } else {
                at = (at.0 + 1, Some(mac(at.0)));
            }
        }
        true
    }

    fn live(ledger: &Ledger, most: u64) -> Vec<Start> {
        let records = (1..=most).map(record).filter(|record| !ledger.has_forgotten(record.id));
        records.map(|record| (record.sequence, record.previous)).collect()
    }

    proptest! {
        #[test]
        fn the_chain_holds_whatever_is_forgotten_and_brought_back(
            steps in prop::collection::vec((1u64..20, any::<bool>(), any::<bool>()), 0..60),
        ) {
            let mut ledger = Ledger::default();
            for (number, forget, join) in steps {
                let record = record(number);
                if forget {
                    ledger.forget(&record, mac(number), 5);
                } else if ledger.has_forgotten(record.id) {
                    ledger.bring_back(&record, mac(number));
                }
                if join {
                    let others = live(&ledger, 20);
                    ledger.join(others.into_iter());
                }
                prop_assert!(is_chain(&ledger, 20), "{ledger:?}");
            }
            let others = live(&ledger, 20);
            ledger.join(others.into_iter());
            prop_assert!(ledger.runs.len() <= live(&ledger, 20).len() + 1);
            let records = ledger.encode();
            prop_assert_eq!(Ledger::decode(records.iter().map(Vec::as_slice)).expect("what was written"), ledger);
        }

        #[test]
        fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Ledger::decode([bytes.as_slice()]);
        }
    }

    #[test]
    fn only_what_is_named_is_gone() {
        let mut ledger = Ledger::default();
        for number in 2..=6 {
            ledger.forget(&record(number), mac(number), 0);
        }
        ledger.join(live(&ledger, 9).into_iter());
        ledger.forgotten.clear();
        let named = ledger.named();
        let gone: Vec<u64> = (1..=9).filter(|number| ledger.is_gone(&record(*number), mac(*number), &named)).collect();
        // Those between are looked into like any other, and found to lack something.
        assert_eq!(gone, [2, 6]);
        // A branch that nobody forgot has the same numbers.
        assert!((1..=9).all(|number| !ledger.is_gone(&record(number), [9; 16], &named)));
        assert!(ledger.spans(4) && !ledger.spans(7));
    }

    #[test]
    fn of_two_ledgers_of_one_time_forgotten_is_what_both_say() {
        let (mut one, mut other) = (Ledger::default(), Ledger::default());
        for number in [1, 2] {
            one.forget(&record(number), mac(number), 0);
        }
        for number in [2, 3] {
            other.forget(&record(number), mac(number), 0);
        }
        one.merge(other);
        assert_eq!(one.forgotten.keys().copied().collect::<Vec<_>>(), [record(2).id]);
        assert_eq!(one.runs.len(), 3);
    }

    #[test]
    fn of_two_ledgers_of_one_time_marked_is_what_one_says() {
        let pin = |at, reason: &str| Pin { at, reason: reason.to_owned() };
        let (mut one, mut other) = (Ledger::default(), Ledger::default());
        one.proven.extend([(record(1).id, 5), (record(2).id, 9)]);
        other.proven.extend([(record(2).id, 7), (record(3).id, 6)]);
        one.pinned.extend([(record(1).id, pin(1, "old")), (record(2).id, pin(1, "a"))]);
        other.pinned.extend([(record(1).id, pin(2, "new")), (record(3).id, pin(1, "b"))]);
        one.merge(other);
        assert_eq!(one.proven, [(record(1).id, 5), (record(2).id, 9), (record(3).id, 6)].into());
        let pins = [(record(1).id, pin(2, "new")), (record(2).id, pin(1, "a")), (record(3).id, pin(1, "b"))];
        assert_eq!(one.pinned, pins.into());
        one.reclaimed.insert(record(1).id);
        one.losses.insert(record(2).id, Loss::default());
        assert_eq!((one.proof(record(2).id), one.proof(record(3).id)), (None, Some(6)));
        one.drop_marks(&[record(1).id, record(2).id].into());
        assert!(one.proven.keys().eq([&record(2).id]) && one.pinned.keys().eq([&record(2).id]), "{one:?}");
    }

    /// What nbak 0.1 wrote before there were marks, byte for byte.
    #[test]
    fn a_ledger_without_marks_reads_and_writes_as_before() {
        let old =
            br#"{"kind":"ledger","format":1,"generation":4,"forgotten":[["000102030405060708090a0b0c0d0e0f",7]]}"#;
        let read = Ledger::decode([old.as_slice()]).expect("an old one");
        assert!(read.proven.is_empty() && read.pinned.is_empty() && read.forgotten.len() == 1);
        assert_eq!(read.encode(), [old.to_vec()]);
    }

    #[test]
    fn a_fork_keeps_the_end_that_two_follow_on() {
        let mut ledger = Ledger::default();
        for number in [1, 2, 3] {
            ledger.forget(&record(number), mac(number), 0);
        }
        // Another third one, which is not forgotten, was made after the second too.
        ledger.join([(3, Some(mac(2)))].into_iter());
        assert!(ledger.runs.iter().any(|run| run.last == 2 && run.end == mac(2)), "{ledger:?}");
    }

    #[test]
    fn a_large_ledger_fits_its_records() {
        let mut ledger = Ledger { generation: 3, ..Ledger::default() };
        for number in 0..20_000u64 {
            let id = SnapshotId(u128::from(number).to_be_bytes());
            ledger.forgotten.insert(id, i64::MAX);
            if number % 100 == 0 {
                ledger.losses.insert(id, Loss { paths: vec!["\u{1}".repeat(4000); 40], count: u64::MAX });
                ledger.pinned.insert(id, Pin { at: i64::MIN, reason: "\u{1}ä".repeat(1000) });
            }
            ledger.proven.insert(id, i64::MIN);
        }
        let records = ledger.encode();
        assert!(records.iter().all(|record| record.len() <= MAX_RECORD && is_ledger(record)));
        let read = Ledger::decode(records.iter().map(Vec::as_slice)).expect("what was written");
        assert_eq!((read.generation, &read.forgotten), (3, &ledger.forgotten));
        assert_eq!(read.losses.len(), 200);
        assert_eq!(read.proven, ledger.proven);
        assert!(read.pinned.len() == 200 && read.pinned.values().all(|pin| pin.reason.len() <= LONGEST_REASON));
    }
}
