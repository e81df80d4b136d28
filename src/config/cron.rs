//! When something is due: five cron fields with names, ranges, lists and steps, or `@daily` and its like. What this
//! program alone does, and no other reader of the configuration has to understand, may also come `@every 10s`.
//!
//! The `croner` crate reads the fields and searches; the calendar and the time zones are `jiff`'s, which the whole
//! house uses. As Vixie cron does it: what has a fixed time and falls into the hour that is skipped in spring comes
//! right after it, and once only in the hour that is repeated in autumn; what has steps or stars goes by the clock on
//! the wall, and so comes in both.

use std::cmp::Ordering;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{CivilDateTime, Cron, CronDateTime, Resolution, Weekday};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ZonedDateTime};

/// When something is due.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    times: Times,
}

#[derive(Debug, Clone)]
enum Times {
    Cron(Box<Cron>),
    /// So many milliseconds apart, counted from 1970: a daemon that starts anew goes on in step.
    Every(i64),
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Schedule) -> bool {
        self.text == other.text
    }
}

impl Schedule {
    /// Reads `text`; what is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        if text == "@reboot" {
            return Err("`@reboot` is no time".to_owned());
        }
        if text.starts_with("@every") {
            return Err(format!("`{text}` is only for what nbak alone does, as its snapshots"));
        }
        let cron = parser.parse(&text).map_err(|error| format!("`{text}` is no cron schedule: {error}"))?;
        // The thirtieth of February never comes.
        let found = cron.find_next_occurrence(&Local(ZonedDateTime::new(Timestamp::UNIX_EPOCH, TimeZone::UTC)), false);
        found.map_err(|_| format!("`{text}` never comes"))?;
        Ok(Schedule { text, times: Times::Cron(Box::new(cron)) })
    }

    /// The same, or `@every` and a duration.
    pub fn parse_own(text: &str) -> Result<Schedule, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let Some((&"@every", span)) = words.split_first() else { return Schedule::parse(text) };
        let bad = || format!("`{text}` is no schedule: after `@every` comes 5s to 24h, as 10s, 2m or 1h30m");
        let span: SignedDuration = span.concat().parse().map_err(|_| bad())?;
        if !(SignedDuration::from_secs(5)..=SignedDuration::from_hours(24)).contains(&span) {
            return Err(bad());
        }
        Ok(Schedule { text: format!("@every {}", words[1..].concat()), times: Times::Every(span.as_millis() as i64) })
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first time after `after`, in the time zone of `after`, in milliseconds since 1970.
    pub fn next(&self, after: i64, zone: &TimeZone) -> Option<i64> {
        let cron = match &self.times {
            Times::Cron(cron) => cron,
            Times::Every(span) => return after.div_euclid(*span).checked_add(1)?.checked_mul(*span),
        };
        let after = Timestamp::from_millisecond(after).ok()?.to_zoned_datetime(zone.clone());
        let next = cron.find_next_occurrence(&Local(after), false).ok()?;
        Some(next.0.timestamp().as_millisecond())
    }
}

/// A time in a time zone, for croner.
#[derive(Clone)]
struct Local(ZonedDateTime);

impl CronDateTime for Local {
    fn to_civil(&self) -> CivilDateTime {
        let at = self.0.datetime();
        let (year, month, day) = (i32::from(at.year()), at.month() as u32, at.day() as u32);
        CivilDateTime::from_ymd_hms(year, month, day, at.hour() as u32, at.minute() as u32, at.second() as u32)
            .expect("the parts of a time are in their ranges")
    }

    fn civil_weekday(&self) -> Weekday {
        Weekday::from_days_from_sunday(self.0.weekday().to_sunday_zero_offset() as u32)
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let (month, day) = (civil.month() as i8, civil.day() as i8);
        let (hour, minute, second) = (civil.hour() as i8, civil.minute() as i8, civil.second() as i8);
        let at = DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| CronError::InvalidDate)?;
        let found = self.0.time_zone().to_ambiguous_zoned_datetime(at);
        let time = |zoned: Result<ZonedDateTime, jiff::Error>| zoned.map(Local).map_err(|_| CronError::InvalidTime);
        Ok(match found.offset() {
            AmbiguousOffset::Unambiguous { .. } => Resolution::Single(time(found.unambiguous())?),
            AmbiguousOffset::Fold { .. } => Resolution::Ambiguous(time(found.clone().earlier())?, time(found.later())?),
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Local)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.timestamp().cmp(&other.0.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(schedule).expect("a schedule");
        let zone = TimeZone::get(zone).expect("a zone");
        let mut at = after.parse::<Timestamp>().expect("a time").as_millisecond();
        let mut found = Vec::new();
        for _ in 0..count {
            at = schedule.next(at, &zone).expect("it comes");
            let zoned = Timestamp::from_millisecond(at).expect("in range").to_zoned_datetime(zone.clone());
            found.push(zoned.strftime("%m-%dT%H:%M%z").to_string());
        }
        found
    }

    #[test]
    fn clocks_that_change_skip_nothing_and_repeat_nothing() {
        // Spring: 02:30 does not exist on 29 March 2026 in Zurich.
        let spring = times("30 2 * * *", "Europe/Zurich", "2026-03-28T00:00:00Z", 3);
        assert_eq!(spring, ["03-28T02:30+0100", "03-29T03:00+0200", "03-30T02:30+0200"]);
        // Autumn: 02:30 comes twice on 25 October, the job once.
        let autumn = times("30 2 * * *", "Europe/Zurich", "2026-10-24T12:00:00Z", 2);
        assert_eq!(autumn, ["10-25T02:30+0200", "10-26T02:30+0100"]);
        // What goes by steps goes on in both hours.
        let steps = times("*/30 * * * *", "Europe/Zurich", "2026-10-24T23:45:00Z", 6);
        let expected = ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100", "03:00+0100", "03:30+0100"];
        assert_eq!(steps, expected.map(|time| format!("10-25T{time}")));
    }

    #[test]
    fn mistakes_are_said() {
        for (text, why) in [
            ("", "no cron"),
            ("* * * *", "no cron"),
            ("61 * * * *", "no cron"),
            ("0 0 3 * * *", "no cron"),
            ("@reboot", "no time"),
            ("0 0 30 2 *", "never"),
            ("0 3 * * FUNDAY", "no cron"),
            ("@every 10s", "only for"),
        ] {
            let error = Schedule::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        for text in
            ["0 3 * * *", " 0  3 * * * ", "@daily", "@hourly", "*/5 * * * *", "0 3 1,15 jan-mar MON", "0 0 29 2 *"]
        {
            Schedule::parse(text).expect(text);
            Schedule::parse_own(text).expect(text);
        }
    }

    #[test]
    fn every_so_often_goes_on_in_step() {
        let every = |text| Schedule::parse_own(text).expect("a schedule");
        let next = |text, after| every(text).next(after, &TimeZone::UTC).expect("it comes");
        assert_eq!(
            (next("@every 10s", 0), next("@every  10s", 9_999), next("@every 10s", 10_000)),
            (10_000, 10_000, 20_000)
        );
        assert_eq!(
            (next("@every 2m", 1), next("@every 1h30m", 5_400_000), next("@every 5s", -1)),
            (120_000, 10_800_000, 0)
        );
        assert_eq!(every("@every  10 s").as_str(), "@every 10s");
        for text in ["@every", "@every 10", "@every 4s", "@every -1h", "@every 25h", "@every 2 parsecs", "@every noon"]
        {
            let error = Schedule::parse_own(text).expect_err(text);
            assert!(error.contains("5s to 24h"), "{text}: {error}");
        }
    }
}
