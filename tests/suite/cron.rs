//! Schedules, held against another implementation (`tests/fixtures/cron.json`, made by the script beside it), and what
//! is different by design: the hours that a clock skips or repeats.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, TimeZone};
use nbak::config::cron::Schedule;
use serde_json::Value;

/// The next times after `after`, those that `is_meant`.
fn next(
    schedule: &str,
    zone: &TimeZone,
    after: Timestamp,
    count: usize,
    is_meant: &dyn Fn(Timestamp) -> bool,
) -> Vec<String> {
    let schedule = Schedule::parse(schedule).expect("a schedule");
    let (mut at, mut found) = (after.as_millisecond(), Vec::new());
    while found.len() < count {
        let next = schedule.next(at, zone).expect("it comes");
        assert!(next > at, "{}: time goes on", schedule.as_str());
        at = next;
        let time = Timestamp::from_millisecond(at).expect("in range");
        if is_meant(time) {
            found.push(time.to_string());
        }
    }
    found
}

#[test]
fn another_implementation_says_the_same() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cron.json");
    let cases: Vec<Value> = serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON");
    let (mut wrong, mut changes) = (Vec::new(), 0);
    for case in &cases {
        let text = |name: &str| case[name].as_str().expect("text");
        let list = |name: &str| -> Vec<&str> {
            case[name].as_array().into_iter().flatten().map(|one| one.as_str().expect("text")).collect()
        };
        let zone = TimeZone::get(text("zone")).expect("a zone");
        let expected = list("next");
        let made_up: BTreeSet<Timestamp> =
            list("skipped_until").into_iter().map(|at| at.parse().expect("a time")).collect();
        changes += usize::from(case["left_out"].as_u64().is_some_and(|count| count > 0));
        let is_meant = |at: Timestamp| {
            let wall = at.to_zoned_datetime(zone.clone()).datetime();
            let plain = zone.to_ambiguous_timestamp(wall).offset();
            // By design: what comes twice, and what is made up for at the end of a gap, is in the table below.
            let is_plain = matches!(plain, AmbiguousOffset::Unambiguous { .. });
            is_plain && (!made_up.contains(&at) || expected.contains(&at.to_string().as_str()))
        };
        let found = next(text("schedule"), &zone, text("after").parse().expect("a time"), expected.len(), &is_meant);
        if found != expected {
            wrong.push(format!("{case}\n    ours: {found:?}"));
        }
    }
    assert!(cases.len() > 400 && changes > 15, "{} cases, {changes} of them with a clock that changes", cases.len());
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// As Vixie cron does it, so that nothing that has a time is left out in spring or done twice in autumn, and what goes
/// on all day goes by what the clock shows.
#[test]
fn clocks_that_change_are_gone_by_design() {
    for (schedule, zone, after, expected) in [
        // A fixed time in the hour that is skipped comes at its end.
        ("30 2 * * *", "Europe/Zurich", "2026-03-28T12:00:00Z", ["03-29T03:00+02", "03-30T02:30+02"]),
        ("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", ["03-08T03:00-04", "03-09T02:30-04"]),
        ("0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z", ["09-06T01:00-03", "09-07T00:00-03"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", ["10-04T02:30+11", "10-05T02:15+11"]),
        // In the hour that comes twice it is done once, the first time.
        ("30 2 * * *", "Europe/Zurich", "2026-10-24T12:00:00Z", ["10-25T02:30+02", "10-26T02:30+01"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", ["11-01T01:30-04", "11-02T01:30-05"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T03:00:00Z", ["04-05T01:45+11", "04-06T01:45+1030"]),
        // What has steps or stars goes by the wall: not in the gap, and in both of the hours.
        ("*/30 * * * *", "Europe/Zurich", "2026-03-29T00:15:00Z", ["03-29T01:30+01", "03-29T03:00+02"]),
        ("*/30 * * * *", "Europe/Zurich", "2026-10-25T00:30:00Z", ["10-25T02:00+01", "10-25T02:30+01"]),
        ("0 * * * *", "America/New_York", "2026-11-01T05:00:00Z", ["11-01T01:00-05", "11-01T02:00-05"]),
    ] {
        let named = TimeZone::get(zone).expect("a zone");
        let found = next(schedule, &named, after.parse().expect("a time"), 2, &|_| true);
        let show = |text: &String| {
            let at: Timestamp = text.parse().expect("a time");
            let shown = at.to_zoned_datetime(named.clone()).strftime("%m-%dT%H:%M%z").to_string();
            shown.strip_suffix("00").filter(|short| short.len() == 14).map_or(shown.clone(), str::to_owned)
        };
        assert_eq!(found.iter().map(show).collect::<Vec<_>>(), expected, "{schedule} in {zone} after {after}");
    }
}
