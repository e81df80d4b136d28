//! Whose snapshots are, by who took them in which order: each case is a store's newest snapshots, as one of the
//! directories sees them.

use super::*;

/// Who took it, and whom it has as apart.
type Snapshot = (u8, &'static [u8]);

fn which(one: u8) -> InstanceId {
    InstanceId([one; 16])
}

fn record(source: &str, sequence: u64, (who, apart): Snapshot) -> Record {
    Record {
        id: SnapshotId([sequence as u8; 16]),
        sequence,
        instance: (who > 0).then(|| which(who)),
        apart: apart.iter().map(|it| which(*it)).collect(),
        source: source.to_owned(),
        ..Record::empty()
    }
}

/// The newest of each in `all`, which has the oldest first.
fn head(all: &[Snapshot]) -> Head {
    let mut newest: Vec<Record> = Vec::new();
    for (nth, one) in all.iter().enumerate() {
        let record = record("/d", nth as u64 + 1, *one);
        newest.retain(|known| known.instance != record.instance);
        newest.insert(0, record);
    }
    Head { next: (all.len() as u64 + 1, None), newest }
}

fn seen(head: &Head, own: u8, one: &UpTo) -> Alike {
    seen_at(head, own, one, 0)
}

fn seen_at(head: &Head, own: u8, one: &UpTo, now_ms: i64) -> Alike {
    Alike::of(head, "/d", (own > 0).then(|| which(own)), one, now_ms)
}

/// What the store says whose snapshots are these, the oldest first: what each of 0 to 3 is to `own`, of which 0 says
/// nothing of itself. `o` is its own, `b` most likely what it was before, `-` another's.
fn to(own: u8, all: &[Snapshot]) -> String {
    let alike = seen(&head(all), own, &UpTo::new());
    let whose = |who: u8| {
        let record = record("/d", 99, (who, &[]));
        match (alike.owns(&record), alike.means(&record)) {
            (true, true) => 'o',
            (false, true) => 'b',
            (false, false) => '-',
            (true, false) => 'x',
        }
    };
    (0..=3).filter(|who| all.iter().any(|one| one.0 == *who)).map(whose).collect()
}

#[test]
fn one_that_goes_on_elsewhere_was_most_likely_the_same_before() {
    assert_eq!(to(1, &[(1, &[]), (1, &[])]), "o");
    assert_eq!(to(2, &[(1, &[]), (1, &[]), (2, &[]), (2, &[])]), "bo");
    assert_eq!(to(2, &[(1, &[]), (1, &[])]), "b", "it has taken none itself");
    assert_eq!(to(3, &[(1, &[]), (2, &[]), (3, &[])]), "bbo", "twice");
    let alike = seen(&head(&[(1, &[]), (2, &[])]), 2, &UpTo::new());
    assert!(alike.text().is_none() && !alike.is_active() && alike.has_begun());
    assert!(alike.leaves(false).expect("left").contains("`nbak forget --as-one`"));
    assert!(seen(&head(&[(1, &[])]), 1, &UpTo::new()).leaves(false).is_none());
}

#[test]
fn one_that_goes_on_beside_it_is_another() {
    let turns: &[Snapshot] = &[(1, &[]), (2, &[]), (1, &[2])];
    assert_eq!(to(1, &turns[..2]), "o-", "a newer one is enough");
    assert!(seen(&head(&turns[..2]), 1, &UpTo::new()).is_active());
    assert_eq!(to(2, &turns[..2]), "bo");
    assert_eq!(to(2, turns), "-o");
    // What showed it was forgotten since.
    assert_eq!(to(1, &[(2, &[]), (1, &[2])]), "o-");
    assert!(!seen(&head(&[(2, &[]), (1, &[2])]), 1, &UpTo::new()).is_active());
    assert_eq!(to(2, &[(1, &[]), (2, &[1])]), "-o");
    // One that is neither of two cannot be what both were.
    assert_eq!(to(3, &[(2, &[]), (1, &[2])]), "--");
    assert_eq!(to(3, &[(2, &[]), (1, &[2]), (3, &[])]), "--o");
    // One of two that were apart is no more what a third was for the other's going on.
    assert_eq!(to(3, &[(1, &[]), (2, &[]), (1, &[2]), (2, &[1]), (3, &[]), (1, &[2, 3])]), "--o");
}

/// A file system that does not say when a folder was made: to it all such are one, and none is anybody else's.
#[test]
fn what_does_not_say_whose_it_is_is_of_those_that_cannot_say() {
    assert_eq!(to(0, &[(0, &[]), (0, &[])]), "o");
    assert_eq!(to(1, &[(0, &[]), (1, &[])]), "bo");
    assert_eq!(to(0, &[(1, &[]), (0, &[])]), "ob");
    assert_eq!(to(1, &[(1, &[]), (0, &[])]), "-o");
    assert_eq!(to(0, &[(0, &[]), (1, &[])]), "o-");
    let alike = seen(&head(&[(1, &[])]), 1, &UpTo::new());
    assert!(!alike.owns(&record("/e", 3, (1, &[]))) && !alike.means(&record("/e", 3, (1, &[]))), "another path");
}

#[test]
fn a_person_can_say_that_all_is_one() {
    let all = [(2, &[][..]), (1, &[2][..]), (2, &[1][..]), (1, &[2][..])];
    let head = head(&all);
    let others = seen(&head, 1, &UpTo::new()).others().clone();
    assert_eq!(others, [(Some(which(2)), 3)].into());
    let said = seen(&head, 1, &others);
    let all = seen(&head, 1, &UpTo::new()).with(others.clone());
    for one in [&said, &all] {
        assert!(head.newest.iter().all(|record| one.owns(record) && one.means(record)));
        assert!(one.text().is_none() && one.leaves(false).is_none() && one.others().is_empty());
    }
    assert!(!said.owns(&record("/d", 4, (2, &[]))), "nor what came to be after that");
    // If it goes on all the same it is not this one, and was not.
    let mut later = head.clone();
    later.newest.insert(0, record("/d", 5, (2, &[1])));
    later.newest.remove(2);
    let alike = seen(&later, 1, &others);
    assert!(alike.is_active() && alike.text().is_some());
    assert!(!alike.owns(&record("/d", 3, (2, &[]))) && !alike.means(&record("/d", 3, (2, &[]))));
}

/// What it may have been before is taken together; what lived beside it, or beside each other, takes a name.
#[test]
fn what_lived_beside_it_is_not_taken_with_the_rest() {
    let before = |own, all: &[Snapshot]| seen(&head(all), own, &UpTo::new()).before().ok();
    assert_eq!(before(3, &[(1, &[]), (2, &[]), (3, &[])]), Some([(Some(which(1)), 1), (Some(which(2)), 2)].into()));
    assert_eq!(before(3, &[(1, &[]), (2, &[]), (3, &[]), (2, &[])]), Some([(Some(which(1)), 1)].into()));
    assert_eq!(before(1, &[(1, &[]), (2, &[])]), Some(UpTo::new()));
    assert!(before(3, &[(1, &[]), (2, &[]), (1, &[2])]).is_none());
    // All of its own was forgotten; the other's know of it.
    assert_eq!(to(1, &[(2, &[1])]), "-");
    assert_eq!(before(1, &[(2, &[1])]), Some(UpTo::new()));
}

/// What lived beside what it was before lived beside it.
#[test]
fn what_was_beside_what_it_was_is_another() {
    // 1 and 2 lived beside each other; 1 was moved, and is 3 now.
    let all: &[Snapshot] = &[(1, &[]), (2, &[]), (1, &[2]), (2, &[1]), (3, &[])];
    for own_taken in [true, false] {
        let head = head(&all[..all.len() - usize::from(!own_taken)]);
        let alike = seen(&head, 3, &[(Some(which(1)), 3)].into());
        assert_eq!(alike.before().expect("not at odds"), UpTo::new());
        assert!(alike.owns(&record("/d", 3, (1, &[]))) && !alike.means(&record("/d", 4, (2, &[]))));
        assert!(alike.text().is_some() && alike.leaves(false).is_none());
    }
}

/// Words end once the other took nothing for so long; what is whose does not.
#[test]
fn one_that_is_quiet_is_not_told_of_for_ever() {
    let at = |mut record: Record, days: i64| {
        record.started = days * 86_400_000;
        record
    };
    let its = at(record("/d", 2, (2, &[1])), 1);
    let alike = |days| {
        let newest = vec![at(record("/d", 3, (1, &[2])), days), its.clone()];
        seen(&Head { next: (4, None), newest }, 1, &UpTo::new())
    };
    assert!(alike(2).text().is_some() && alike(9).text().is_some());
    let quiet = alike(10);
    assert!(quiet.text().is_none() && quiet.leaves(false).is_some() && !quiet.owns(&its) && !quiet.means(&its));
    // Nor where this one has nothing to take: then the clock says it. What is to be done is no empty word.
    let head = Head { next: (4, None), newest: vec![at(record("/d", 3, (1, &[2])), 2), its] };
    let idle = |day: i64| seen_at(&head, 1, &UpTo::new(), day * 86_400_000);
    assert!(idle(9).text().is_some() && idle(10).text().is_none());
    assert!(idle(10).leaves(false).is_some_and(|words| words.contains("give each a name") && !words.contains("0202")));
}

/// More than are kept in mind: whoever is not known is not taken for what it was.
#[test]
fn of_too_many_none_is_ones_own() {
    let own =
        Record { apart: (0..MOST_APART).map(|nth| which(100 + nth as u8)).collect(), ..record("/d", 9, (1, &[])) };
    let newest = vec![own, record("/d", 2, (2, &[]))];
    let head = Head { next: (10, None), newest };
    let alike = seen(&head, 1, &UpTo::new());
    assert!(!alike.means(&head.newest[1]) && !alike.owns(&head.newest[1]));
}
