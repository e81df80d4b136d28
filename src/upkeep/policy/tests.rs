//! The policy, by tables of days on which clocks and calendars are not regular, and by what has to hold for every
//! policy and every set of snapshots.

use super::*;
use jiff::tz::TimeZone;
use proptest::prelude::*;

const BERLIN: &str = "Europe/Berlin";

fn zoned(text: &str, zone: &str) -> ZonedDateTime {
    let moment: Timestamp = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    moment.to_zoned_datetime(TimeZone::get(zone).expect("the system knows the zone"))
}

fn candidate(nth: usize, started: i64) -> Candidate<'static> {
    let id = SnapshotId((nth as u128).to_be_bytes());
    Candidate {
        id,
        started,
        source: "/data",
        instance: None,
        tags: &[],
        proven: false,
        complete: true,
        mixed: false,
        pinned: None,
    }
}

fn candidates(times: &[&str]) -> Vec<Candidate<'static>> {
    let started = |text: &str| zoned(text, "UTC").timestamp().as_millisecond();
    times.iter().enumerate().map(|(nth, text)| candidate(nth, started(text))).collect()
}

/// Those of `times` that stay in `zone`, where all of them are past.
fn kept<'a>(zone: &str, times: &[&'a str], policy: &Policy) -> Vec<&'a str> {
    let verdicts = plan(&candidates(times), policy, &zoned("2030-01-01T00:00:00Z", zone));
    times.iter().zip(verdicts).filter(|(_, verdict)| verdict.stays()).map(|(text, _)| *text).collect()
}

fn reasons(verdict: &Verdict) -> String {
    verdict.keep.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn each_rule_keeps_the_newest_of_its_periods() {
    let times = [
        "2023-06-30T12:00:00Z",
        "2024-12-30T12:00:00Z",
        "2025-04-30T12:00:00Z",
        "2025-05-01T12:00:00Z",
        "2025-05-12T09:00:00Z",
        "2025-05-12T09:59:59Z",
        "2025-05-12T10:00:00Z",
        "2025-05-13T10:00:00Z",
    ];
    let none = Policy::default;
    for (name, policy, stay) in [
        ("last", Policy { last: 3, ..none() }, &[5, 6, 7][..]),
        ("hourly", Policy { hourly: 3, ..none() }, &[5, 6, 7]),
        ("daily", Policy { daily: 3, ..none() }, &[3, 6, 7]),
        ("weekly", Policy { weekly: 2, ..none() }, &[3, 7]),
        ("monthly", Policy { monthly: 2, ..none() }, &[2, 7]),
        ("yearly", Policy { yearly: 2, ..none() }, &[1, 7]),
        ("rules count the same ones", Policy { last: 2, hourly: 1, daily: 2, ..none() }, &[6, 7]),
        ("rules add up", Policy { daily: 2, yearly: 2, ..none() }, &[1, 6, 7]),
        ("all there are", Policy { last: u64::MAX, ..none() }, &[0, 1, 2, 3, 4, 5, 6, 7]),
        ("hours without end", Policy { hourly: u64::MAX, ..none() }, &[0, 1, 2, 3, 5, 6, 7]),
        ("years without end", Policy { yearly: u64::MAX, ..none() }, &[0, 1, 7]),
    ] {
        let stay: Vec<_> = stay.iter().map(|nth| times[*nth]).collect();
        assert_eq!(kept("UTC", &times, &policy), stay, "{name}");
    }
}

#[test]
fn the_oldest_fills_a_rule_that_is_short() {
    let mut times = vec!["2025-05-01T01:00:00Z", "2025-05-01T02:00:00Z", "2025-05-02T01:00:00Z"];
    let policy = Policy { daily: 3, ..Policy::default() };
    assert_eq!(kept("UTC", &times, &policy), times);
    let verdicts = plan(&candidates(&times), &policy, &zoned("2030-01-01T00:00:00Z", "UTC"));
    assert_eq!(verdicts[0].keep, [Reason::Oldest(Period::Day)]);
    times.push("2025-05-03T01:00:00Z");
    assert_eq!(kept("UTC", &times, &policy), times[1..], "three days are there: it goes");
    // With quotas that are used up to the last, the oldest has no part.
    assert_eq!(kept("UTC", &times[..3], &Policy { daily: 2, ..policy }), times[1..3]);
}

#[test]
fn an_hour_shown_twice_is_two() {
    let none = Policy::default;
    // In Berlin the second hour from 02:00 on began at 01:00Z.
    let berlin = ["2025-10-25T23:30:00Z", "2025-10-26T00:10:00Z", "2025-10-26T00:50:00Z", "2025-10-26T01:20:00Z"];
    assert_eq!(kept(BERLIN, &berlin, &Policy { hourly: 2, ..none() }), berlin[2..]);
    // On Lord Howe only its second half was shown again, from 15:00Z on.
    let howe = ["2026-04-04T14:10:00Z", "2026-04-04T14:20:00Z", "2026-04-04T14:50:00Z", "2026-04-04T15:10:00Z"];
    assert_eq!(kept("Australia/Lord_Howe", &howe, &Policy { hourly: 2, ..none() }), howe[2..]);
    // There it is then 01:40, the second time, and 02:10: other hours, though the half hour lies across UTC's.
    let after = ["2026-04-04T15:10:00Z", "2026-04-04T15:20:00Z", "2026-04-04T15:40:00Z"];
    assert_eq!(kept("Australia/Lord_Howe", &after[..], &Policy { hourly: 1, ..none() }), after[2..]);
    assert_eq!(kept("Australia/Lord_Howe", &after[1..], &Policy { hourly: 1, ..none() }), after[2..]);
}

#[test]
fn an_hour_left_out_is_none() {
    let none = Policy::default;
    let berlin = ["2026-03-29T00:10:00Z", "2026-03-29T00:50:00Z", "2026-03-29T01:10:00Z"];
    assert_eq!(kept(BERLIN, &berlin, &Policy { hourly: 2, ..none() }), berlin[1..]);
    // From 02:00 to 02:30: what is left of this hour is half of one.
    let howe = ["2026-10-03T15:10:00Z", "2026-10-03T15:20:00Z", "2026-10-03T15:40:00Z", "2026-10-03T16:10:00Z"];
    assert_eq!(kept("Australia/Lord_Howe", &howe, &Policy { hourly: 3, ..none() }), howe[1..]);
}

#[test]
fn a_day_is_the_calendars_whatever_its_length() {
    let two = Policy { daily: 2, ..Policy::default() };
    // 25 hours from 22:00Z to 23:00Z, and 23 from 23:00Z to 22:00Z.
    let long = ["2025-10-25T21:50:00Z", "2025-10-25T22:10:00Z", "2025-10-26T22:50:00Z", "2025-10-26T23:10:00Z"];
    assert_eq!(kept(BERLIN, &long, &two), long[2..]);
    let short = ["2026-03-28T22:50:00Z", "2026-03-28T23:10:00Z", "2026-03-29T21:50:00Z", "2026-03-29T22:10:00Z"];
    assert_eq!(kept(BERLIN, &short, &two), short[2..]);
    assert_eq!(kept("UTC", &short, &two), [short[1], short[3]], "the same ones elsewhere");
    // At one minute past midnight the clock went back to 23:01: the last one is again of the first one's day.
    let again = ["2010-11-06T00:00:00Z", "2010-11-07T02:20:00Z", "2010-11-07T02:30:30Z", "2010-11-07T02:50:00Z"];
    assert_eq!(kept("America/St_Johns", &again, &two), again[2..]);
    assert_eq!(kept("America/St_Johns", &again, &Policy { daily: 3, ..two }), [again[0], again[2], again[3]]);
}

#[test]
fn weeks_do_not_end_with_the_year() {
    let times = [
        "2025-12-28T12:00:00Z", // Sunday of 2025-W52
        "2025-12-29T12:00:00Z", // Monday of 2026-W01
        "2025-12-31T12:00:00Z",
        "2026-01-01T12:00:00Z",
        "2026-01-04T12:00:00Z", // its Sunday
        "2027-01-01T12:00:00Z", // Friday of 2026-W53
    ];
    let none = Policy::default;
    assert_eq!(kept("UTC", &times, &Policy { weekly: 2, ..none() }), times[4..]);
    assert_eq!(kept("UTC", &times, &Policy { weekly: 3, ..none() }), [times[0], times[4], times[5]]);
    assert_eq!(kept("UTC", &times, &Policy { yearly: 3, ..none() }), [times[2], times[4], times[5]]);
}

#[test]
fn within_counts_from_the_newest() {
    let within = |text: &str| Policy { within: Some(parse_duration(text).expect("a span")), ..Policy::default() };
    let times = ["2026-03-28T10:59:59.999Z", "2026-03-28T11:00:00Z", "2026-03-28T12:00:00Z", "2026-03-29T10:00:00Z"];
    // The night between had an hour less, so a day is 23 hours; and it is years until now.
    assert_eq!(kept(BERLIN, &times, &within("1d")), times[1..]);
    assert_eq!(kept(BERLIN, &times, &within("23h")), times[1..]);
    assert_eq!(kept(BERLIN, &times, &within("22h")), times[2..]);
    assert_eq!(kept(BERLIN, &times, &within("19998y")), times, "before the calendar begins");
    // One from the future is not what it counts from.
    let now = zoned("2026-03-29T09:00:00Z", BERLIN);
    let verdicts = plan(&candidates(&times), &within("1h"), &now);
    let told: Vec<_> = verdicts.iter().map(reasons).collect();
    assert_eq!(told, ["", "within 1h", "the newest one; within 1h", "from the future: was the clock right?"]);
}

#[test]
fn sources_tags_and_the_future() {
    let (keep, other) = (["keep".to_owned(), "x".to_owned()], ["other".to_owned()]);
    let days = |n: i64| n * 24 * 60 * 60 * 1000;
    let all = [
        Candidate { tags: &keep, ..candidate(0, days(1)) },
        Candidate { source: "/quiet", ..candidate(1, days(2)) },
        Candidate { tags: &other, ..candidate(2, days(3)) },
        candidate(3, days(4)),
        Candidate { source: "/quiet", ..candidate(4, days(5)) },
        candidate(5, days(6)),
        Candidate { tags: &keep, ..candidate(6, days(7) + 1) },
        candidate(7, i64::MAX),
        Candidate { source: "/quiet", ..candidate(8, i64::MIN) },
    ];
    let tags = vec!["keep".to_owned(), "nowhere".to_owned(), "keep".to_owned()];
    let policy = Policy { last: 2, daily: 1, tags, ..Policy::default() };
    let now = zoned("1970-01-08T00:00:00Z", "UTC");
    let told: Vec<_> = plan(&all, &policy, &now).iter().map(reasons).collect();
    let (newest, second) = ("the newest one; last: number 1; daily: number 1", "last: number 2");
    let future = "from the future: was the clock right?";
    let tagged = format!("{future}; tag keep");
    assert_eq!(told, ["tag keep", second, "", second, newest, newest, &tagged, future, ""]);
}

#[test]
fn equal_times_and_strange_ones() {
    let one = Policy { last: 1, ..Policy::default() };
    let now = zoned("2030-01-01T00:00:00Z", BERLIN);
    let stay = |times: &[i64], policy: &Policy| {
        let all: Vec<_> = times.iter().enumerate().map(|(nth, started)| candidate(nth, *started)).collect();
        plan(&all, policy, &now).iter().map(Verdict::stays).collect::<Vec<_>>()
    };
    assert_eq!(stay(&[5, 5, 5], &one), [false, false, true], "the last in their order is the newest");
    assert_eq!(stay(&[9, 5, 9, 5], &Policy { last: 2, ..one.clone() }), [true, false, true, false]);
    assert_eq!(stay(&[i64::MIN, i64::MIN + 1], &one), [false, true]);
    assert_eq!(stay(&[i64::MIN, 0], &Policy { weekly: 2, ..Policy::default() }), [true, true]);
    assert!(stay(&[], &one).is_empty());
    let at_now = now.timestamp().as_millisecond();
    assert_eq!(stay(&[0, at_now], &one), [false, true], "now is not the future");
    assert_eq!(stay(&[0, at_now + 1], &one), [true, true]);
}

#[test]
fn no_rule_keeps_all() {
    let none = Policy { within: Some(Span::new()), ..Policy::default() };
    assert!(none.is_empty() && Policy::default().is_empty());
    assert!(!Policy { yearly: 1, ..none.clone() }.is_empty());
    assert!(!Policy { within: Some(Span::new().hours(1)), ..none.clone() }.is_empty());
    assert!(!Policy { tags: vec![String::new()], ..none.clone() }.is_empty());
    let times = ["2025-01-01T00:00:00Z", "2025-01-01T00:00:00Z"];
    assert_eq!(kept("UTC", &times, &none), times);
}

#[test]
fn spans_are_read() {
    for (text, span) in [
        ("2d", Span::new().days(2)),
        ("36h", Span::new().hours(36)),
        ("3w", Span::new().weeks(3)),
        ("1y5m7d2h", Span::new().years(1).months(5).days(7).hours(2)),
        ("2h0d", Span::new().hours(2)),
    ] {
        assert_eq!(parse_duration(text).expect(text).fieldwise(), span, "{text}");
    }
    for (text, why) in [
        ("", "it is no time at all"),
        ("0d", "it is no time at all"),
        ("12", "what is 12 of?"),
        ("1d2", "what is 2 of?"),
        ("d", "there is no number before `d`"),
        ("-1d", "there is no number before `-`"),
        ("1d 2h", "there is no number before ` `"),
        ("1d1d", "it has `d` twice"),
        ("90min", "there is no number before `i`"),
        ("90s", "`s` is no unit"),
        ("3é", "`é` is no unit"),
        ("20000y", "no calendar goes that far"),
        ("99999999999999999999h", "no calendar goes that far"),
    ] {
        let error = parse_duration(text).expect_err(text).to_string();
        assert!(error.contains(why) && error.contains("1y5m7d2h"), "{text}: {error}");
    }
}

/// What the properties are about, in a form that can be made: the source, the minute, which tags, and whether it is a
/// mixture.
type Made = (bool, i64, u8, bool);

const TAGS: [[&str; 2]; 3] = [["", "-"], ["x", "-"], ["x", "y"]];

fn with_made<T>(made: &[Made], then: impl FnOnce(&[Candidate<'_>]) -> T) -> T {
    let tags = TAGS.map(|tags| tags.map(str::to_owned));
    let one = |(nth, (quiet, minute, tag, mixed)): (usize, &Made)| Candidate {
        source: if *quiet { "/quiet" } else { "/data" },
        tags: &tags[*tag as usize],
        mixed: *mixed,
        ..candidate(nth, minute * 60_000)
    };
    then(&made.iter().enumerate().map(one).collect::<Vec<_>>())
}

fn stays(made: &[Made], policy: &Policy, now: &ZonedDateTime) -> Vec<bool> {
    with_made(made, |all| plan(all, policy, now).iter().map(Verdict::stays).collect())
}

fn any_made() -> impl Strategy<Value = Vec<Made>> {
    // Around changes of the clock in Berlin (two) and on Lord Howe, and over years.
    let minute = prop_oneof![
        29_356_000i64..29_358_000,
        29_578_000i64..29_580_000,
        29_587_500i64..29_589_500,
        25_000_000i64..31_000_000,
    ];
    prop::collection::vec((any::<bool>(), minute, 0u8..3, prop::bool::weighted(0.3)), 0..60)
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let quota = || prop_oneof![3 => Just(0), 4 => 1u64..9, 1 => Just(u64::MAX)];
    let tags = prop_oneof![4 => Just(vec![]), 1 => Just(vec!["y".to_owned()]), 1 => Just(vec!["x".to_owned()])];
    let within = prop::option::of((0i64..3, 0i64..9, 0i64..40));
    let span = |(months, days, hours)| Span::new().months(months).days(days).hours(hours);
    (prop::array::uniform6(quota()), within, tags).prop_map(
        move |([last, hourly, daily, weekly, monthly, yearly], within, tags)| {
            let within = within.map(span);
            Policy { last, hourly, daily, weekly, monthly, yearly, within, tags }
        },
    )
}

fn any_now() -> impl Strategy<Value = ZonedDateTime> {
    let zones = vec!["UTC", BERLIN, "Australia/Lord_Howe", "America/St_Johns"];
    let times = vec!["2025-11-01T00:00:00Z", "2026-04-06T12:00:00Z", "2030-01-01T00:00:00Z"];
    (prop::sample::select(times), prop::sample::select(zones)).prop_map(|(time, zone)| zoned(time, zone))
}

fn sum(a: &Policy, b: &Policy) -> Policy {
    let within = match (a.within, b.within) {
        (Some(a), Some(b)) => {
            let longer = |get: fn(&Span) -> i64| get(&a).saturating_add(get(&b));
            let months = longer(|span| span.get_months().into());
            let (days, hours) = (longer(|span| span.get_days().into()), longer(|span| span.get_hours().into()));
            Some(Span::new().months(months).days(days).hours(hours))
        }
        (a, b) => a.or(b),
    };
    Policy {
        last: a.last.saturating_add(b.last),
        hourly: a.hourly.saturating_add(b.hourly),
        daily: a.daily.saturating_add(b.daily),
        weekly: a.weekly.saturating_add(b.weekly),
        monthly: a.monthly.saturating_add(b.monthly),
        yearly: a.yearly.saturating_add(b.yearly),
        within,
        tags: [a.tags.clone(), b.tags.clone()].concat(),
    }
}

proptest! {
    #[test]
    fn one_verdict_each_and_the_newest_stays(made in any_made(), policy in any_policy(), now in any_now()) {
        with_made(&made, |all| {
            let verdicts = plan(all, &policy, &now);
            prop_assert!(verdicts.iter().map(|verdict| verdict.id).eq(all.iter().map(|one| one.id)));
            let past = |one: &&Candidate<'_>| one.started <= now.timestamp().as_millisecond();
            for (verdict, one) in verdicts.iter().zip(all).filter(|(_, one)| past(one)) {
                let newest = all.iter().filter(past).filter(|other| other.source == one.source)
                    .max_by_key(|other| other.started).expect("there is this one");
                prop_assert!(newest.id != one.id || verdict.stays());
            }
            prop_assert!(verdicts.iter().zip(all).all(|(verdict, one)| past(&one) || verdict.stays()));
            Ok(())
        })?;
    }

    #[test]
    fn more_is_never_less(made in any_made(), policy in any_policy(), more in any_policy(), now in any_now()) {
        prop_assume!(!policy.is_empty());
        let (before, after) = (stays(&made, &policy, &now), stays(&made, &sum(&policy, &more), &now));
        prop_assert!(before.iter().zip(&after).all(|(before, after)| *after || !before));
    }

    #[test]
    fn what_was_kept_is_kept(made in any_made(), policy in any_policy(), now in any_now()) {
        let first = stays(&made, &policy, &now);
        let rest: Vec<_> = made.iter().zip(first).filter(|(_, stays)| *stays).map(|(one, _)| *one).collect();
        prop_assert!(stays(&rest, &policy, &now).iter().all(|stays| *stays));
    }

    /// What stays of all as if none were a mixture, and what stays where there are none.
    #[test]
    fn a_mixture_takes_nobodys_place(made in any_made(), policy in any_policy(), now in any_now()) {
        let unmixed: Vec<Made> = made.iter().map(|(quiet, minute, tag, _)| (*quiet, *minute, *tag, false)).collect();
        let mut expected = stays(&unmixed, &policy, &now);
        let whole: Vec<usize> = (0..made.len()).filter(|nth| !made[*nth].3).collect();
        let alone: Vec<Made> = whole.iter().map(|nth| made[*nth]).collect();
        for (nth, stays) in whole.into_iter().zip(stays(&alone, &policy, &now)) {
            expected[nth] |= stays;
        }
        prop_assert_eq!(stays(&made, &policy, &now), expected);
    }

    #[test]
    fn the_order_does_not_matter(
        (made, shuffled) in any_made().prop_flat_map(|mut made| {
            made.sort_unstable();
            made.dedup_by_key(|(quiet, minute, ..)| (*quiet, *minute));
            (Just(made.clone()), Just(made).prop_shuffle())
        }),
        policy in any_policy(),
        now in any_now(),
    ) {
        let by_made = |made: &[Made]| {
            made.iter().copied().zip(stays(made, &policy, &now)).collect::<BTreeMap<_, _>>()
        };
        prop_assert_eq!(by_made(&made), by_made(&shuffled));
    }

    #[test]
    fn any_text_is_a_span_or_an_error(text in "[0-9ymwdhHs é-]{0,12}") {
        let _ = parse_duration(&text);
    }
}

#[test]
fn what_is_pinned_stays_and_the_newest_that_is_proven() {
    let days = |n: i64| n * 24 * 3_600_000;
    let now = zoned("1970-02-01T00:00:00Z", "UTC");
    let all = [
        Candidate { proven: true, ..candidate(0, days(1)) },
        Candidate { pinned: Some("the old office"), ..candidate(1, days(2)) },
        Candidate { proven: true, ..candidate(2, days(3)) },
        Candidate { source: "/quiet", proven: true, ..candidate(3, days(1)) },
        Candidate { source: "/quiet", ..candidate(4, days(2)) },
        candidate(5, days(4)),
        Candidate { proven: true, pinned: Some(""), ..candidate(6, days(400)) },
    ];
    let policy = Policy { last: 1, ..Policy::default() };
    let keep: Vec<Vec<String>> = plan(&all, &policy, &now)
        .iter()
        .map(|verdict| verdict.keep.iter().map(ToString::to_string).collect())
        .collect();
    let proven = "the newest one that a drill has restored";
    assert_eq!(keep[0], [""; 0], "a newer one is proven");
    assert_eq!(keep[1], ["pinned: the old office"]);
    assert_eq!(keep[2], [proven], "the one from the future takes nobody's place");
    assert_eq!(keep[3], [proven]);
    assert_eq!(keep[5], ["the newest one", "last: number 1"]);
    assert_eq!(keep[6], ["from the future: was the clock right?", "pinned"]);
    // Incomplete ones are proven too, and the newest complete one stays beside them.
    let lacking = |nth, day| Candidate { proven: true, complete: false, ..candidate(nth, days(day)) };
    let all = [all[0], all[2], lacking(7, 4), lacking(8, 5), candidate(9, days(6))];
    let keep: Vec<bool> = plan(&all, &policy, &now).iter().map(Verdict::stays).collect();
    assert_eq!(keep, [false, true, false, true, true]);
    assert_eq!(held(&all, &now), [(1, Reason::ProvenComplete), (3, Reason::Proven)]);
}

#[test]
fn beside_a_mixture_the_policy_keeps_whole_ones() {
    let (hours, now) = (|n: i64| n * 3_600_000, zoned("1970-02-01T00:00:00Z", "UTC"));
    let mixed = |nth, hour| Candidate { mixed: true, complete: false, ..candidate(nth, hours(hour)) };
    let lacking = |nth, hour| Candidate { complete: false, ..candidate(nth, hours(hour)) };
    let told = |all: &[Candidate<'_>], policy: &Policy| plan(all, policy, &now).iter().map(reasons).collect::<Vec<_>>();
    let all = [
        candidate(0, hours(1)),
        candidate(1, hours(2)),
        candidate(2, hours(30)),
        mixed(3, 31),
        mixed(4, 32),
        Candidate { source: "/quiet", ..mixed(5, 33) },
    ];
    let one = Policy { last: 1, ..Policy::default() };
    let (newest, whole) = ("the newest one; last: number 1", " (mixed ones not counted)");
    let second = format!("the newest one{whole}; last: number 1{whole}");
    assert_eq!(told(&all, &one), ["", "", &second, "", newest, newest], "where there is no other, a mixture alone");
    let day = Policy { daily: 2, ..Policy::default() };
    let (newest, second) =
        ("the newest one; daily: number 1", format!("the newest one{whole}; daily: number 1{whole}"));
    assert_eq!(told(&all[..5], &day), ["", "daily: number 2", &second, "", newest], "the day has a whole one too");
    let within = Policy { within: Some(Span::new().hours(1)), ..Policy::default() };
    let stay: Vec<bool> = plan(&all[..5], &within, &now).iter().map(Verdict::stays).collect();
    assert_eq!(stay, [false, false, true, true, true]);
    // A whole one that is newer makes the mixture one of the old ones.
    let after = [all[2], mixed(6, 31), candidate(7, hours(32))];
    assert_eq!(told(&after, &one), ["", "", "the newest one; last: number 1"]);
    // What only lacks something is no mixture, and takes the place of what came before.
    assert_eq!(told(&[all[2], lacking(8, 31)], &one), ["", "the newest one; last: number 1"]);
}

/// Another directory of the same path that was proven later is not this one's proof.
#[test]
fn what_is_proven_is_proven_of_one_directory() {
    let days = |n: i64| n * 24 * 3_600_000;
    let of = |which: u8| Some(InstanceId([which; 16]));
    let all = [
        Candidate { proven: true, instance: of(1), ..candidate(0, days(1)) },
        Candidate { proven: true, instance: of(2), ..candidate(1, days(2)) },
        Candidate { proven: true, instance: of(2), ..candidate(2, days(3)) },
    ];
    let held: Vec<usize> = held(&all, &zoned("1970-02-01T00:00:00Z", "UTC")).into_iter().map(|(nth, _)| nth).collect();
    assert_eq!(held, [0, 2]);
}
