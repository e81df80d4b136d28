//! What is due, and when.
//!
//! For each job the plan knows up to which time its schedule was seen to. The first time of the schedule after that is
//! the next one; if it is over already, because the machine slept, or was off, or another job took long, the job is due
//! now, and **once**, however many times were missed. A clock that was set back by more than [`SLACK`] would leave a
//! job without a next time for as long: then the plan goes on from now.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::config::cron::Schedule;
use crate::id::random_bytes;

/// A clock may be set back by so many milliseconds without anything being done twice.
const SLACK: i64 = 120_000;

/// Something that runs hangs when a job was not begun again for longer than this, in milliseconds, and for so many of
/// its turns: a first backup of much data over a slow line takes hours, and every turn that falls into it is missed.
const HANGS_MS: i64 = 6 * 3_600_000;
const HANGS_TURNS: usize = 3;

/// What is done by a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Job {
    /// A documented backup, and all that follows on it.
    Backup,
    /// A snapshot.
    Snapshot,
    /// A restore for a proof.
    Drill,
}

impl Job {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Job::Backup => "backup",
            Job::Snapshot => "snapshot",
            Job::Drill => "drill",
        }
    }
}

/// Up to when each schedule was seen to, in milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen(BTreeMap<Job, i64>);

/// The schedules of the jobs that have one.
pub struct Plan {
    /// By job; the first of those that are due at the same time goes first.
    pub schedules: BTreeMap<Job, Schedule>,
    /// The time zone that they mean.
    pub zone: TimeZone,
    /// A backup begins up to so many seconds later.
    pub jitter: u64,
    /// What was drawn for the next backup, in milliseconds.
    drawn: i64,
}

impl Plan {
    /// A plan of these schedules.
    pub fn new(schedules: BTreeMap<Job, Schedule>, zone: TimeZone, jitter: u64) -> Plan {
        let mut plan = Plan { schedules, zone, jitter, drawn: 0 };
        plan.draw();
        plan
    }

    fn draw(&mut self) {
        let part = u64::from(u32::from_le_bytes(random_bytes()));
        self.drawn = (part * self.jitter * 1000 / u64::from(u32::MAX)) as i64;
    }

    /// When `job` is next, by what was seen to. Its time may be over.
    pub fn next(&self, job: Job, seen: &Seen) -> Option<i64> {
        let from = seen.0.get(&job).copied()?;
        let next = self.schedules.get(&job)?.next(from, &self.zone)?;
        Some(if job == Job::Backup { next.saturating_add(self.drawn) } else { next })
    }

    /// Whether `running`, of which `seen` says when it was begun, hangs at `now`: since when it runs, and the job that
    /// waited for too long for its end, or `running` itself.
    pub fn hangs(&self, running: Job, seen: &Seen, now: i64) -> Option<(i64, Job)> {
        let since = seen.0.get(&running).copied()?;
        let is_over = |job: Job| {
            // A job that has no schedule any more has no turns.
            let Some(begun) = seen.0.get(&job).copied() else { return false };
            let turn = |at| self.schedules.get(&job).and_then(|schedule| schedule.next(at, &self.zone));
            let turns = (0..HANGS_TURNS).try_fold(begun, |at, _| turn(at)).unwrap_or(begun);
            turns.max(begun.saturating_add(HANGS_MS)) < now
        };
        let late = std::iter::once(running).chain(self.schedules.keys().copied()).find(|job| is_over(*job))?;
        Some((since, late))
    }

    /// Begins where nothing was seen to yet, and goes on from `now` where the clock was set back.
    pub fn settle(&self, seen: &mut Seen, now: i64) {
        for job in self.schedules.keys() {
            let at = seen.0.entry(*job).or_insert(now);
            // Before 1970 there was no daemon.
            if *at > now.saturating_add(SLACK) || *at < 0 {
                *at = now;
            }
        }
        seen.0.retain(|job, _| self.schedules.contains_key(job));
    }

    /// The job that is due, of several the one that waits longest, so that none that is due again and again keeps the
    /// others back; else when one will be, if ever. `again` is when a backup is to be tried again.
    pub fn due(&self, seen: &Seen, again: Option<i64>, now: i64) -> Result<Job, Option<i64>> {
        let by_schedule = self.schedules.keys().filter_map(|job| Some((self.next(*job, seen)?, *job)));
        let first = by_schedule.chain(again.map(|at| (at, Job::Backup))).min();
        match first {
            Some((at, job)) if at <= now => Ok(job),
            first => Err(first.map(|(at, _)| at)),
        }
    }

    /// Notes that `job` was begun at `now`: all its times up to then are seen to.
    pub fn begun(&mut self, job: Job, seen: &mut Seen, now: i64) {
        seen.0.insert(job, now);
        if job == Job::Backup {
            self.draw();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_millisecond()
    }

    /// Lives from `from` to `to`, in steps of a minute; what is done takes `takes` minutes. Gives each job's time.
    fn live(plan: &mut Plan, seen: &mut Seen, from: &str, to: &str, takes: i64) -> Vec<(Job, String)> {
        let (mut now, to) = (ms(from), ms(to));
        let mut done = Vec::new();
        while now < to {
            plan.settle(seen, now);
            if let Ok(job) = plan.due(seen, None, now) {
                plan.begun(job, seen, now);
                let zoned = Timestamp::from_millisecond(now).expect("in range").to_zoned_datetime(plan.zone.clone());
                done.push((job, zoned.strftime("%m-%dT%H:%M").to_string()));
                now += takes * 60_000;
            } else {
                now += 60_000;
            }
        }
        done
    }

    fn plan(schedules: &[(Job, &str)], zone: &str) -> Plan {
        let parse = |text| Schedule::parse(text).expect("a schedule");
        let schedules = schedules.iter().map(|(job, text)| (*job, parse(text))).collect();
        Plan::new(schedules, TimeZone::get(zone).expect("a zone"), 0)
    }

    fn times(done: &[(Job, String)], job: Job) -> Vec<&str> {
        done.iter().filter(|(one, _)| *one == job).map(|(_, at)| at.as_str()).collect()
    }

    #[test]
    fn days_across_daylight_saving_both_ways() {
        let mut daily = plan(&[(Job::Backup, "30 2 * * *"), (Job::Snapshot, "*/20 * * * *")], "Europe/Zurich");
        let mut seen = Seen::default();
        let spring = live(&mut daily, &mut seen, "2026-03-27T22:00:00Z", "2026-03-30T22:00:00Z", 1);
        assert_eq!(times(&spring, Job::Backup), ["03-28T02:30", "03-29T03:00", "03-30T02:30"]);
        // 72 hours have 216 thirds of an hour, whatever the clock on the wall says.
        assert_eq!(times(&spring, Job::Snapshot).len(), 215);
        let mut seen = Seen::default();
        let autumn = live(&mut daily, &mut seen, "2026-10-24T10:00:00Z", "2026-10-26T10:00:00Z", 1);
        assert_eq!(times(&autumn, Job::Backup), ["10-25T02:30", "10-26T02:30"]);
        assert_eq!(times(&autumn, Job::Snapshot).len(), 143);
    }

    #[test]
    fn month_ends_and_leap_days() {
        let mut monthly = plan(&[(Job::Backup, "0 3 L * *")], "UTC");
        let done = live(&mut monthly, &mut Seen::default(), "2028-01-01T00:00:00Z", "2028-05-01T00:00:00Z", 1);
        assert_eq!(times(&done, Job::Backup), ["01-31T03:00", "02-29T03:00", "03-31T03:00", "04-30T03:00"]);
        let mut leap = plan(&[(Job::Backup, "0 0 29 2 *")], "UTC");
        let done = live(&mut leap, &mut Seen::default(), "2027-01-01T00:00:00Z", "2029-01-01T00:00:00Z", 1);
        assert_eq!(times(&done, Job::Backup), ["02-29T00:00"]);
    }

    #[test]
    fn what_was_missed_is_made_up_once() {
        let mut daily = plan(&[(Job::Backup, "0 3 * * *"), (Job::Snapshot, "*/5 * * * *")], "UTC");
        let mut seen = Seen::default();
        live(&mut daily, &mut seen, "2026-01-01T00:00:00Z", "2026-01-01T12:00:00Z", 1);
        // Off for nine days.
        let done = live(&mut daily, &mut seen, "2026-01-10T10:01:00Z", "2026-01-10T10:20:00Z", 1);
        assert_eq!(times(&done, Job::Backup), ["01-10T10:02"]);
        assert_eq!(times(&done, Job::Snapshot), ["01-10T10:01", "01-10T10:05", "01-10T10:10", "01-10T10:15"]);
        // A backup that takes half an hour keeps snapshots waiting, and then there is one.
        let done = live(&mut daily, &mut seen, "2026-01-11T02:56:00Z", "2026-01-11T03:32:00Z", 30);
        assert_eq!(done.iter().map(|(_, at)| at.as_str()).collect::<Vec<_>>(), ["01-11T02:56", "01-11T03:26"]);
    }

    #[test]
    fn what_is_due_again_and_again_keeps_nothing_back() {
        let mut both = plan(&[(Job::Snapshot, "* * * * *"), (Job::Drill, "0 * * * *")], "UTC");
        let mut seen = Seen::default();
        let done = live(&mut both, &mut seen, "2026-01-01T00:00:30Z", "2026-01-01T04:30:00Z", 7);
        assert_eq!(times(&done, Job::Drill).len(), 4, "{done:?}");
        // Nor is a backup kept back that is to be tried again.
        let now = ms("2026-01-01T05:00:00Z");
        assert_eq!(both.due(&seen, Some(ms("2026-01-01T00:00:00Z")), now), Ok(Job::Backup));
    }

    #[test]
    fn clocks_that_are_set_do_not_stop_it() {
        let mut daily = plan(&[(Job::Backup, "0 3 * * *")], "UTC");
        let mut seen = Seen::default();
        // The clock was two years ahead, and is set right.
        live(&mut daily, &mut seen, "2028-01-01T00:00:00Z", "2028-01-01T12:00:00Z", 1);
        let done = live(&mut daily, &mut seen, "2026-01-01T00:00:00Z", "2026-01-02T12:00:00Z", 1);
        assert_eq!(times(&done, Job::Backup), ["01-01T03:00", "01-02T03:00"]);
        // A minute back does nothing twice.
        let mut seen = Seen::default();
        live(&mut daily, &mut seen, "2026-02-01T02:00:00Z", "2026-02-01T03:01:00Z", 1);
        let done = live(&mut daily, &mut seen, "2026-02-01T02:59:00Z", "2026-02-01T05:00:00Z", 1);
        assert_eq!(times(&done, Job::Backup), Vec::<&str>::new());
    }

    #[test]
    fn what_hangs_is_known_by_its_own_turns_and_by_those_that_wait() {
        let both = plan(&[(Job::Backup, "0 3 * * *"), (Job::Snapshot, "*/5 * * * *")], "UTC");
        let hangs = |running, backup: &str, snapshot: &str, now: &str| {
            let seen = Seen([(Job::Backup, ms(backup)), (Job::Snapshot, ms(snapshot))].into());
            both.hangs(running, &seen, ms(now)).map(|(_, late)| late)
        };
        let (night, noon) = ("2026-01-01T03:00:00Z", "2026-01-01T12:00:00Z");
        assert_eq!(hangs(Job::Snapshot, night, noon, "2026-01-01T17:59:00Z"), None);
        assert_eq!(hangs(Job::Snapshot, night, noon, "2026-01-01T18:01:00Z"), Some(Job::Snapshot));
        // The backup has three days, and what waits for it has not.
        assert_eq!(hangs(Job::Backup, night, "2026-01-01T02:55:00Z", "2026-01-01T08:54:00Z"), None);
        assert_eq!(hangs(Job::Backup, night, "2026-01-01T02:55:00Z", "2026-01-01T08:56:00Z"), Some(Job::Snapshot));
        let alone = plan(&[(Job::Backup, "0 3 * * *")], "UTC");
        let seen = Seen([(Job::Backup, ms(night))].into());
        assert_eq!(alone.hangs(Job::Backup, &seen, ms("2026-01-04T02:59:00Z")), None);
        assert_eq!(alone.hangs(Job::Backup, &seen, ms("2026-01-04T03:01:00Z")), Some((ms(night), Job::Backup)));
        // A drill whose schedule is gone, and a state without any.
        let seen = Seen([(Job::Drill, ms(night))].into());
        assert_eq!(alone.hangs(Job::Drill, &seen, ms("2026-01-01T09:01:00Z")), Some((ms(night), Job::Drill)));
        assert_eq!(alone.hangs(Job::Drill, &Seen::default(), ms(noon)), None);
    }

    #[test]
    fn jitter_is_bounded_and_moves_nothing_else() {
        let mut daily = plan(&[(Job::Backup, "0 3 * * *"), (Job::Snapshot, "0 * * * *")], "UTC");
        daily.jitter = 600;
        let mut seen = Seen::default();
        let done = live(&mut daily, &mut seen, "2026-01-01T00:00:00Z", "2026-01-21T00:00:00Z", 0);
        let backups = times(&done, Job::Backup);
        assert!(backups.len() == 20 && backups.iter().all(|at| at.contains("T03:0") || at.ends_with("T03:10")));
        assert!(backups.iter().map(|at| &at[6..]).collect::<std::collections::BTreeSet<_>>().len() > 3, "{backups:?}");
        assert!(times(&done, Job::Snapshot).iter().all(|at| at.ends_with(":00")));
    }
}
