//! Whose snapshots are, by who took them in which order: each case is a store's newest snapshots, as one of the
//! directories sees them.

use super::*;

const DAY: i64 = SILENCE;

/// Who took it, when in hours, and whom it has as apart.
type Snapshot = (u8, i64, &'static [u8]);

fn which(one: u8) -> InstanceId {
    InstanceId([one; 16])
}

fn record(source: &str, sequence: u64, (who, hours, apart): Snapshot) -> Record {
    Record {
        id: SnapshotId([sequence as u8; 16]),
        sequence,
        instance: (who > 0).then(|| which(who)),
        apart: apart.iter().map(|it| which(*it)).collect(),
        started: hours * 3_600_000,
        source: source.to_owned(),
        ..Record::empty()
    }
}

/// What the store says whose snapshots are these, the oldest first: what each of 1 to 3 is to `own` a day after the
/// last. `o` is its own, `b` what it was before, `w` the same that a policy waits for, `-` another's.
fn to(own: u8, later: i64, all: &[Snapshot]) -> String {
    let mut newest: Vec<Record> = Vec::new();
    for (nth, one) in all.iter().enumerate() {
        let since = all.iter().find(|earlier| earlier.0 == one.0).map(|first| first.1 * 3_600_000);
        let record = Record { since, ..record("/d", nth as u64 + 1, *one) };
        newest.retain(|known| known.instance != record.instance);
        newest.insert(0, record);
    }
    let head = Head { next: (all.len() as u64 + 1, None), newest };
    let now = all.last().map_or(0, |one| one.1 * 3_600_000) + later;
    let alike = Alike::of(&head, "/d", (own > 0).then(|| which(own)), &BTreeSet::new(), now);
    let whose = |who: u8| {
        let record = record("/d", 99, (who, 0, &[]));
        match (alike.owns(&record), alike.means(&record)) {
            _ if Some(which(who)) == alike.own => 'o',
            (true, true) => 'b',
            (false, true) => 'w',
            (false, false) => '-',
            (true, false) => 'x',
        }
    };
    (1..=3).filter(|who| all.iter().any(|one| one.0 == *who)).map(whose).collect()
}

#[test]
fn one_that_goes_on_elsewhere_was_the_same_before() {
    assert_eq!(to(1, 0, &[(1, 0, &[]), (1, 1, &[])]), "o");
    let moved: &[Snapshot] = &[(1, 0, &[]), (1, 1, &[]), (2, 2, &[]), (2, 3, &[])];
    assert_eq!(to(2, 0, moved), "wo", "a policy waits");
    assert_eq!(to(2, DAY, moved), "bo");
    assert_eq!(to(2, 0, &[(1, 0, &[]), (1, 1, &[])]), "w", "it has taken none itself");
    assert_eq!(to(2, 99 * DAY, &[(1, 0, &[]), (1, 1, &[])]), "w", "however long that is ago");
    assert_eq!(to(3, DAY, &[(1, 0, &[]), (2, 1, &[]), (3, 2, &[])]), "bbo", "twice");
}

#[test]
fn one_that_goes_on_beside_it_is_another() {
    let turns: &[Snapshot] = &[(1, 0, &[]), (2, 1, &[]), (1, 2, &[])];
    assert_eq!(to(1, DAY, &turns[..2]), "o-", "a newer one is enough");
    assert_eq!(to(2, 0, &turns[..2]), "wo");
    assert_eq!(to(2, 99 * DAY, turns), "-o");
    // What showed it was forgotten since.
    assert_eq!(to(1, 99 * DAY, &[(2, 1, &[]), (1, 2, &[2])]), "o-");
    assert_eq!(to(2, 99 * DAY, &[(1, 3, &[]), (2, 4, &[1])]), "-o");
    // One that is neither of two cannot be what both were.
    assert_eq!(to(3, 99 * DAY, &[(2, 1, &[]), (1, 2, &[2])]), "--");
    assert_eq!(to(3, 99 * DAY, &[(2, 1, &[]), (1, 2, &[2]), (3, 3, &[])]), "--o");
}

#[test]
fn what_does_not_say_whose_it_is_is_ones_own() {
    let head = |all: &[Record]| Head { next: (9, None), newest: all.to_vec() };
    let (unknown, known) = (record("/d", 1, (0, 0, &[])), record("/d", 2, (1, 1, &[])));
    for (own, owns) in [(None, true), (Some(which(1)), true), (Some(which(2)), false)] {
        let alike = Alike::of(&head(&[known.clone(), unknown.clone()]), "/d", own, &BTreeSet::new(), 99 * DAY);
        assert!(alike.means(&unknown) && alike.means(&known) && alike.text().is_none(), "{own:?}");
        assert_eq!(alike.owns(&unknown), owns, "where there are others it may be theirs");
        assert!(!alike.owns(&record("/e", 3, (1, 0, &[]))), "another path");
    }
    let apart = Alike::of(
        &head(&[record("/d", 3, (2, 1, &[1])), known, unknown.clone()]),
        "/d",
        Some(which(2)),
        &BTreeSet::new(),
        99 * DAY,
    );
    assert!(!apart.owns(&unknown) && apart.means(&unknown));
}

/// The name of another was taken, or its path.
#[test]
fn one_that_was_known_as_something_else_takes_nothing_over() {
    let newest = vec![record("/d", 2, (2, 1, &[])), record("/e", 1, (1, 0, &[]))];
    let head = Head { next: (3, None), newest };
    let of = |own| Alike::of(&head, "/d", Some(which(own)), &BTreeSet::new(), 99 * DAY);
    assert!(!of(1).means(&head.newest[0]) && of(1).is_active());
    assert!(of(2).owns(&head.newest[0]) && of(3).means(&head.newest[0]));
}

#[test]
fn a_person_can_say_that_all_is_one() {
    let newest = vec![record("/d", 3, (1, 2, &[2])), record("/d", 2, (2, 1, &[1]))];
    let head = Head { next: (4, None), newest };
    let alike = |one: &BTreeSet<InstanceId>| Alike::of(&head, "/d", Some(which(1)), one, 0);
    let others = alike(&BTreeSet::new()).others();
    assert_eq!(others, [which(2)].into());
    for one in [alike(&others), alike(&BTreeSet::new()).as_one()] {
        assert!(head.newest.iter().all(|record| one.owns(record)) && one.text().is_none() && one.waits().is_none());
    }
    let refused = alike(&BTreeSet::new()).refusal("nothing was done").expect("refused").to_string();
    assert!(refused.contains("02020202") && refused.contains("--as-one") && refused.contains("nothing was done"));
}

/// More than are kept in mind: whoever is not known is not taken for what it was.
#[test]
fn of_too_many_none_is_ones_own() {
    let own =
        Record { apart: (0..MOST_APART).map(|nth| which(100 + nth as u8)).collect(), ..record("/d", 9, (1, 9, &[])) };
    let newest = vec![own, record("/d", 2, (2, 1, &[]))];
    let head = Head { next: (10, None), newest };
    let alike = Alike::of(&head, "/d", Some(which(1)), &BTreeSet::new(), 99 * DAY);
    assert!(!alike.means(&head.newest[1]) && !alike.owns(&head.newest[1]));
}

/// One of two that were apart is no more what a third was for the other's going on.
#[test]
fn one_of_two_is_nobodys_past() {
    let all: &[Snapshot] = &[(1, 0, &[]), (2, 1, &[]), (1, 2, &[2]), (2, 3, &[1]), (3, 4, &[]), (1, 5, &[2, 3])];
    assert_eq!(to(3, 99 * DAY, all), "--o");
}

/// What lies elsewhere now, and goes on there, is no past of what came to its old path.
#[test]
fn one_that_was_moved_away_takes_its_past_along() {
    let newest = vec![record("/e", 2, (1, 1, &[])), record("/d", 1, (1, 0, &[]))];
    let head = Head { next: (3, None), newest };
    let alike = Alike::of(&head, "/d", Some(which(2)), &BTreeSet::new(), 0);
    assert!(!alike.means(&head.newest[1]) && !alike.owns(&head.newest[1]) && alike.text().is_some());
    let nobody = Alike::seen_by_nobody(&head, "/d");
    assert!(nobody.owns(&head.newest[1]) && nobody.waits().is_none());
}
