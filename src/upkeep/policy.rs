//! Which snapshots stay, and why.
//!
//! [`plan`] touches nothing and asks no clock: the same snapshots, policy and time give the same plan, so what
//! `--dry-run` prints is what will be done. The rules are called as in restic and borg; they mean what restic means:
//!
//! - Each data directory is judged by itself: a busy one does not push out the snapshots of a quiet one.
//! - *Last* keeps the newest ones. *Hourly* to *yearly* keep the newest snapshot in each of the newest periods that
//!   have one: seven daily ones are of seven days on which something was taken, not of the last seven days.
//! - Every rule counts for itself, also what another rule keeps; a snapshot stays when one rule wants it. With borg a
//!   later rule counts only what no earlier one keeps, so the same numbers reach further back there.
//! - Periods are those of the calendar, in the time zone of `now`; weeks are those of ISO 8601, from Monday on. A day
//!   of 23 or 25 hours is one day. When the clock is put back it shows an hour twice: those are two, told apart by
//!   their offset from UTC. In a few places it was put back over midnight: what is before and after is still the same
//!   day, so a period need not be in one piece.
//! - A rule whose number is not reached yet keeps the oldest snapshot too, until it is. restic and borg do the same:
//!   without it, a new store with a yearly rule would have no past before its first year was over.
//! - *Within* counts back from the newest snapshot and not from now, as restic does and borg does not. The newest is
//!   never later than now, so this keeps at least as much; and where nothing is taken for a while, nothing is lost.
//!   Years to days are the calendar's, hours are real ones; a snapshot of exactly that age stays.
//!
//! A snapshot that was taken while a restore in place was half done is of old and new data, and takes no other one's
//! place either: all rules count once as if there were no such mixtures, too, and what either count keeps stays. What
//! merely lacks entries is no such case: beside a file that can never be read, the last complete ones would stay for
//! ever.
//!
//! Five things hold whatever the policy says. The newest snapshot of a data directory stays, and the newest that is no
//! mixture. One from the future stays and takes nobody's place: its time is a clock's mistake, and must not cost one
//! whose time can be right. What is pinned stays, and of those that a drill restored the newest of each data directory,
//! and the newest that is complete ([`held`]): so there is always one of which it is known that it comes back, and not
//! only hoped. And a policy without any rule keeps everything; it is for the caller to refuse it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use jiff::{Span, Timestamp, ZonedDateTime};

use crate::error::{Error, Result};
use crate::id::{InstanceId, SnapshotId};
use crate::snapshot::history::History;

/// One snapshot, as far as retention asks.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its id.
    pub id: SnapshotId,
    /// When it began: milliseconds since 1970.
    pub started: i64,
    /// The data directory.
    pub source: &'a str,
    /// Which one that was.
    pub instance: Option<InstanceId>,
    /// Its tags.
    pub tags: &'a [String],
    /// Whether a drill restored it whole, and nothing of it was lost since.
    pub proven: bool,
    /// Whether everything could be captured when it was taken.
    pub complete: bool,
    /// Whether old and new data of a restore in place stand side by side in it.
    pub mixed: bool,
    /// Why it is pinned, if it is.
    pub pinned: Option<&'a str>,
}

impl<'a> Candidate<'a> {
    /// What it is of, as far as that is told apart from others of the same path.
    fn directory(&self) -> (&'a str, Option<InstanceId>) {
        (self.source, self.instance)
    }
}

/// What is to be kept. A number of 0 is no rule.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// So many of the newest.
    pub last: u64,
    /// The newest of so many hours.
    pub hourly: u64,
    /// The newest of so many days.
    pub daily: u64,
    /// The newest of so many weeks.
    pub weekly: u64,
    /// The newest of so many months.
    pub monthly: u64,
    /// The newest of so many years.
    pub yearly: u64,
    /// All that are not older than this when the newest was taken. A span that is not positive is no rule.
    pub within: Option<Span>,
    /// All that have one of these tags.
    pub tags: Vec<String>,
}

/// A unit of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// An hour on the clock.
    Hour,
    /// A day.
    Day,
    /// A week of ISO 8601.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

/// Why a snapshot stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The policy has no rule.
    NoRule,
    /// It was taken after now, by its own account.
    Future,
    /// The newest of its data directory, those from the future apart.
    Newest,
    /// One of the last; which, counted from the newest, which is 1.
    Last(u64),
    /// The newest in its period; which period, counted from the newest that has a snapshot, which is 1.
    Periodic(Period, u64),
    /// The oldest, and the rule for this period has not reached its number.
    Oldest(Period),
    /// Young enough; the span.
    Within(String),
    /// It has this tag.
    Tag(String),
    /// It is pinned, for this reason, if one was given.
    Pinned(String),
    /// The newest of its data directory that a drill restored, those from the future apart.
    Proven,
    /// The newest of those that are complete, where that is another one.
    ProvenComplete,
    /// This, if those that are mixtures are not counted, and nothing that is about time if they are.
    Unmixed(Box<Reason>),
}

/// What happens to one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The snapshot.
    pub id: SnapshotId,
    /// Why it stays. Without any reason it is to be forgotten.
    pub keep: Vec<Reason>,
}

impl Policy {
    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.last == 0
            && self.periods().iter().all(|(_, quota)| *quota == 0)
            && self.span().is_none()
            && self.tags.is_empty()
    }

    fn periods(&self) -> [(Period, u64); 5] {
        [
            (Period::Hour, self.hourly),
            (Period::Day, self.daily),
            (Period::Week, self.weekly),
            (Period::Month, self.monthly),
            (Period::Year, self.yearly),
        ]
    }

    fn span(&self) -> Option<Span> {
        self.within.filter(Span::is_positive)
    }
}

impl Period {
    /// What all moments of one period have in common, and no other.
    fn of(self, moment: &ZonedDateTime) -> (i16, i8, i8, i8, i32) {
        let (year, month, day) = (moment.year(), moment.month(), moment.day());
        match self {
            Period::Hour => (year, month, day, moment.hour(), moment.offset().seconds()),
            Period::Day => (year, month, day, 0, 0),
            Period::Week => {
                let week = moment.iso_week_date();
                (week.year(), week.week(), 0, 0, 0)
            }
            Period::Month => (year, month, 0, 0, 0),
            Period::Year => (year, 0, 0, 0, 0),
        }
    }
}

impl Verdict {
    /// Whether the snapshot stays.
    pub fn stays(&self) -> bool {
        !self.keep.is_empty()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |period: &Period| match period {
            Period::Hour => "hourly",
            Period::Day => "daily",
            Period::Week => "weekly",
            Period::Month => "monthly",
            Period::Year => "yearly",
        };
        match self {
            Reason::NoRule => write!(f, "the policy has no rule"),
            Reason::Future => write!(f, "from the future: was the clock right?"),
            Reason::Newest => write!(f, "the newest one"),
            Reason::Last(nth) => write!(f, "last: number {nth}"),
            Reason::Periodic(period, nth) => write!(f, "{}: number {nth}", each(period)),
            Reason::Oldest(period) => write!(f, "{}: the oldest, as there are not enough yet", each(period)),
            Reason::Within(span) => write!(f, "within {span}"),
            Reason::Tag(tag) => write!(f, "tag {tag}"),
            Reason::Pinned(why) if why.is_empty() => write!(f, "pinned"),
            Reason::Pinned(why) => write!(f, "pinned: {why}"),
            Reason::Proven => write!(f, "the newest one that a drill has restored"),
            Reason::ProvenComplete => write!(f, "the newest complete one that a drill has restored"),
            Reason::Unmixed(reason) => write!(f, "{reason} (mixed ones not counted)"),
        }
    }
}

/// All snapshots that were not forgotten, oldest first, with what the ledger says of them.
pub fn candidates(history: &History) -> Vec<Candidate<'_>> {
    let ledger = history.ledger();
    let all = history.live().map(|record| Candidate {
        id: record.id,
        started: record.started,
        source: &record.source,
        instance: record.instance,
        tags: &record.tags,
        proven: ledger.proof(record.id).is_some(),
        complete: record.unreadable_count == 0,
        mixed: record.lack().mixed,
        pinned: ledger.pinned.get(&record.id).map(|pin| pin.reason.as_str()),
    });
    all.collect()
}

/// What no policy takes, and nobody without saying so: what is pinned, and the newest of each data directory that a
/// drill restored; if that one is incomplete, the newest complete one too: a proof is of what a snapshot holds, and
/// says nothing of what it lacks. By place among `candidates`, in their order.
pub fn held(candidates: &[Candidate<'_>], now: &ZonedDateTime) -> Vec<(usize, Reason)> {
    let (newest, complete) = (newest_proven(candidates, now, false), newest_proven(candidates, now, true));
    let mut held = Vec::new();
    for (place, one) in candidates.iter().enumerate() {
        held.extend(one.pinned.map(|why| (place, Reason::Pinned(why.to_owned()))));
        if newest.get(&one.directory()) == Some(&place) {
            held.push((place, Reason::Proven));
        } else if complete.get(&one.directory()) == Some(&place) {
            held.push((place, Reason::ProvenComplete));
        }
    }
    held
}

/// The newest of each data directory that a drill restored, or of those that are complete.
fn newest_proven<'a>(
    candidates: &[Candidate<'a>],
    now: &ZonedDateTime,
    only_complete: bool,
) -> HashMap<(&'a str, Option<InstanceId>), usize> {
    let now_ms = now.timestamp().as_millisecond();
    let counts = |one: &Candidate<'_>| one.proven && (one.complete || !only_complete) && one.started <= now_ms;
    let mut newest = HashMap::new();
    for (place, one) in candidates.iter().enumerate().filter(|(_, one)| counts(one)) {
        let known = newest.entry(one.directory()).or_insert(place);
        if candidates[*known].started <= one.started {
            *known = place;
        }
    }
    newest
}

/// What `policy` makes of `candidates` at `now`: one verdict for each, in their order. Of two that began at the same
/// time the later one in this order is the newer.
pub fn plan(candidates: &[Candidate<'_>], policy: &Policy, now: &ZonedDateTime) -> Vec<Verdict> {
    let empty = policy.is_empty();
    let now_ms = now.timestamp().as_millisecond();
    let mut verdicts: Vec<_> = candidates.iter().map(|one| Verdict { id: one.id, keep: Vec::new() }).collect();
    let mut sources: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, one) in candidates.iter().enumerate() {
        if empty {
            verdicts[place].keep.push(Reason::NoRule);
        } else if one.started > now_ms {
            verdicts[place].keep.push(Reason::Future);
        } else {
            sources.entry(one.source).or_default().push(place);
        }
    }
    for mut places in sources.into_values() {
        // The sort keeps the order of equal times, and only then is the newest put first.
        places.sort_by_key(|&place| candidates[place].started);
        places.reverse();
        // No time is after now here: one that no calendar has is before its first day.
        let moment = |place: usize| Timestamp::from_millisecond(candidates[place].started).unwrap_or(Timestamp::MIN);
        let mut dated: Vec<_> =
            places.into_iter().map(|place| (place, moment(place).to_zoned_datetime(now.time_zone().clone()))).collect();
        judge(&dated, policy, &mut |place, reason| verdicts[place].keep.push(reason));
        // Once more without mixtures. What stays anyway needs no second reason.
        dated.retain(|(place, _)| !candidates[*place].mixed);
        let mut unmixed = Vec::new();
        judge(&dated, policy, &mut |place, reason| unmixed.push((place, reason)));
        unmixed.retain(|(place, _)| !verdicts[*place].stays());
        for (place, reason) in unmixed {
            verdicts[place].keep.push(Reason::Unmixed(Box::new(reason)));
        }
    }
    for (verdict, one) in verdicts.iter_mut().zip(candidates) {
        for tag in policy.tags.iter().filter(|tag| one.tags.contains(tag)) {
            let reason = Reason::Tag(tag.clone());
            if !verdict.keep.contains(&reason) {
                verdict.keep.push(reason);
            }
        }
    }
    for (place, reason) in held(candidates, now) {
        verdicts[place].keep.push(reason);
    }
    verdicts
}

/// Applies all rules that are about time to the snapshots of one data directory, the newest first.
fn judge(dated: &[(usize, ZonedDateTime)], policy: &Policy, keep: &mut dyn FnMut(usize, Reason)) {
    let (Some((newest, latest)), Some((oldest, _))) = (dated.first(), dated.last()) else { return };
    keep(*newest, Reason::Newest);
    for (nth, (place, _)) in (1..=policy.last).zip(dated) {
        keep(*place, Reason::Last(nth));
    }
    for (period, quota) in policy.periods() {
        let mut seen = HashSet::new();
        let mut last = None;
        for (place, moment) in dated {
            if seen.len() as u64 == quota {
                break;
            }
            if seen.insert(period.of(moment)) {
                keep(*place, Reason::Periodic(period, seen.len() as u64));
                last = Some(place);
            }
        }
        if (seen.len() as u64) < quota && last != Some(oldest) {
            keep(*oldest, Reason::Oldest(period));
        }
    }
    if let Some(span) = policy.span() {
        // Before the calendar's first day there is nothing to forget.
        let limit = latest.checked_sub(span).map_or(Timestamp::MIN, |moment| moment.timestamp());
        for (place, _) in dated.iter().take_while(|(_, moment)| moment.timestamp() >= limit) {
            keep(*place, Reason::Within(format!("{span:#}")));
        }
    }
}

/// Reads a span of time as `--keep-within` takes it: numbers with a unit each, `2d`, `36h` or `1y5m7d2h`.
///
/// The units are restic's, and weeks as borg has them: `y`, `m` for months, `w`, `d`, `h`, each at most once. There are
/// no minutes: nobody can tell that a lone `m` is a month and another one is not.
pub fn parse_duration(text: &str) -> Result<Span> {
    let bad = |why: &str| {
        Error::usage(format!("`{text}` is no span of time: {why}")).hint(
            "numbers with a unit each, like `2d`, `36h` or `1y5m7d2h`: y years, m months, w weeks, d days, h hours",
        )
    };
    let (mut span, mut units, mut rest) = (Span::new(), String::new(), text);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let Some(unit) = after.chars().next() else {
            return Err(bad(&format!("what is {number} of?")));
        };
        if number.is_empty() {
            return Err(bad(&format!("there is no number before `{unit}`")));
        }
        if units.contains(unit) {
            return Err(bad(&format!("it has `{unit}` twice")));
        }
        units.push(unit);
        rest = &after[unit.len_utf8()..];
        // More than any calendar has, like a number that is too long.
        let count: i64 = number.parse().unwrap_or(i64::MAX);
        span = match unit {
            'y' => span.try_years(count),
            'm' => span.try_months(count),
            'w' => span.try_weeks(count),
            'd' => span.try_days(count),
            'h' => span.try_hours(count),
            _ => return Err(bad(&format!("`{unit}` is no unit"))),
        }
        .map_err(|_| bad("no calendar goes that far"))?;
    }
    if span.is_positive() { Ok(span) } else { Err(bad("it is no time at all")) }
}

#[cfg(test)]
mod tests;
