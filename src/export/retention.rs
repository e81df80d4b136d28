//! Which backups are old enough to go, and how one goes.
//!
//! What to keep is decided by [`plan`], which touches nothing; its answer can be shown before anything happens. A
//! backup goes by losing its name first ([`remove`]): from then on it is no backup any more, however the rest ends.
//! Neither needs room on the disk, and no path in a manifest decides what is deleted.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use super::files::{rename_new, sync_folder};
use super::list::Listed;
use super::names::{self, TEMPORARY};
use crate::error::{Error, Result};

/// What happens to one backup, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The backup.
    pub name: String,
    /// Whether it stays.
    pub keep: bool,
    /// Why, in words.
    pub reason: String,
    /// It stays since its age is in doubt: there is a gap without any backup, by which the clock may have been set
    /// forward.
    pub by_gap: bool,
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// A time without any backup that is longer than this makes none older: a clock that is ahead makes such a one, and all
/// would go but the newest.
const GAP_MS: i64 = 180 * DAY_MS;

/// Which of `backups` are older than `days` at `now_ms` and may go; `days` 0 keeps all. `good` is the newest that is
/// known to be whole: it stays, and so does the newest of each data directory by what manifests say, and the newest
/// that was not made for the sake of a restore: a safety backup may hold the very state that somebody wanted to be rid
/// of. Where one of these lacks something, the newest that is complete stays too. Age is what a manifest says too,
/// without the gaps that are longer than [`GAP_MS`]: so what was made before one is judged as if that was a moment, and
/// goes when enough time has passed behind it.
pub fn plan(backups: &[Listed], days: u32, now_ms: i64, good: Option<&str>) -> Vec<Decision> {
    let age = |one: &Listed| one.created_ms.filter(|_| one.damage.is_none()).map(|ms| now_ms.saturating_sub(ms));
    let newest = |by: &dyn Fn(&&Listed) -> bool| {
        let mut backups: Vec<&Listed> = backups.iter().filter(|one| age(one).is_some()).filter(by).collect();
        backups.sort_by(|one, other| (one.created_ms, &one.name).cmp(&(other.created_ms, &other.name)));
        backups.pop().map(|one| one.name.as_str())
    };
    // A date in the future may be a lie: it must not cost the newest of those that can be right.
    let past_newest = newest(&|one| age(one).is_some_and(|age| age >= 0));
    let sources: BTreeSet<&str> = backups.iter().map(|one| one.source_dir.as_str()).collect();
    let is_past = |one: &&Listed| age(one).is_some_and(|age| age >= 0);
    let newest_of_each = |by: &dyn Fn(&&Listed) -> bool| -> BTreeSet<&str> {
        sources
            .iter()
            .filter_map(|source| newest(&|one| one.source_dir == *source && is_past(one) && by(one)))
            .collect()
    };
    let is_complete = |one: &&Listed| one.lacks.count == 0;
    let (of_each, complete_of_each) = (newest_of_each(&|_| true), newest_of_each(&is_complete));
    let regular = newest(&|one| !one.before_restore && is_past(one));
    let complete_regular = newest(&|one| !one.before_restore && is_past(one) && is_complete(one));
    let newest = newest(&|_| true);
    let mut moments: Vec<i64> =
        backups.iter().filter(|one| age(one).is_some_and(|age| age >= 0)).filter_map(|one| one.created_ms).collect();
    moments.push(now_ms);
    moments.sort_unstable();
    let gaps: Vec<(i64, i64)> = moments.windows(2).map(|two| (two[0], two[1].saturating_sub(two[0]))).collect();
    let in_gaps = |one: &Listed| -> i64 {
        let behind = gaps.iter().filter(|(at, length)| *length > GAP_MS && one.created_ms <= Some(*at));
        behind.fold(0, |sum, (_, length)| length.saturating_add(sum))
    };
    let in_days = |ms: i64| match ms / DAY_MS {
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    let decide = |one: &Listed| {
        let name = one.name.as_str();
        let stays = |reason: &str| (true, reason.to_owned(), false);
        if one.damage.is_some() {
            return stays("damaged: look at it, and remove it by hand");
        }
        let Some(age) = age(one) else { return stays("its age is not known") };
        if age < 0 {
            return stays("it says that it was made in the future: is the clock right?");
        }
        if days == 0 {
            return stays("no retention is set");
        }
        if Some(name) == newest || Some(name) == past_newest {
            return stays("the newest one");
        }
        if of_each.contains(name) {
            return stays("the newest one of its data directory");
        }
        if Some(name) == regular {
            return stays("the newest that is not a safety backup");
        }
        if complete_of_each.contains(name) {
            return stays("the newest complete one of its data directory");
        }
        if Some(name) == complete_regular {
            return stays("the newest complete one that is not a safety backup");
        }
        if Some(name) == good {
            return stays("the newest one that is known to be whole");
        }
        let (old, most) = (in_days(age), i64::from(days) * DAY_MS);
        if age <= most {
            return (true, format!("{old} old, {days} are kept"), false);
        }
        let gap = in_gaps(one);
        if age.saturating_sub(gap) <= most {
            let gap = gap / DAY_MS;
            return (true, format!("{old} old, but in {gap} of them there was no backup: is the clock right?"), true);
        }
        (false, format!("{old} old, more than {days}"), false)
    };
    backups
        .iter()
        .map(|one| {
            let (keep, reason, by_gap) = decide(one);
            Decision { name: one.name.clone(), keep, reason, by_gap }
        })
        .collect()
}

/// Removes the backup in the folder at `path`. Only for the holder of the lock of the backups.
pub fn remove(path: &Path) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    names::check_name(name).map_err(|why| Error::usage(format!("this is no backup: {why}")).at(path))?;
    let meta = std::fs::symlink_metadata(path).map_err(|error| Error::io("remove a backup", path, error))?;
    if !meta.is_dir() {
        return Err(Error::usage("a backup is a folder, and this is none").at(path).hint("nothing was removed"));
    }
    let mut number = 0_u32;
    let doomed = loop {
        let doomed = match number {
            0 => path.with_file_name(format!("{name}{TEMPORARY}")),
            _ => path.with_file_name(format!("{name}-{number}{TEMPORARY}")),
        };
        match rename_new(path, &doomed) {
            Ok(()) => break doomed,
            // What is called so may be somebody's: it is left alone.
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => {
                number += 1;
            }
            Err(error) => return Err(Error::io("remove a backup", path, error)),
        }
    };
    sync_folder(path.parent().unwrap_or(Path::new(".")))?;
    // No link in it is followed.
    std::fs::remove_dir_all(&doomed).map_err(|error| {
        Error::io("remove all of what was a backup", &doomed, error)
            .hint("it is no backup any more: remove the rest by hand")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::manifest::lacks::Lacks;
    use crate::export::manifest::whose::Whose;

    const NOW: i64 = 1_774_407_600_000;

    fn listed(name: &str, days_old: i64) -> Listed {
        Listed {
            name: name.to_owned(),
            path: name.into(),
            created_ms: Some(NOW - days_old * DAY_MS - 1),
            bytes: 0,
            files: 0,
            encrypted: true,
            version: String::new(),
            snapshot: None,
            before_restore: false,
            lacks: Lacks::default(),
            dialect: None,
            source_dir: String::new(),
            whose: Whose::Unsaid,
            damage: None,
        }
    }

    fn removed(backups: &[Listed], days: u32, good: Option<&str>) -> Vec<String> {
        let decisions = plan(backups, days, NOW, good);
        assert_eq!(decisions.len(), backups.len());
        assert!(decisions.iter().all(|decision| !decision.reason.is_empty()));
        decisions.into_iter().filter(|decision| !decision.keep).map(|decision| decision.name).collect()
    }

    #[test]
    fn old_ones_go() {
        let backups = [listed("a", 40), listed("b", 30), listed("c", 29), listed("d", 0)];
        assert_eq!(removed(&backups, 30, None), ["a", "b"], "a millisecond over thirty days is over");
        assert_eq!(removed(&backups, 30, Some("b")), ["a"]);
        assert_eq!(removed(&backups, 31, None), ["a"]);
        assert!(removed(&backups, 0, None).is_empty());
        let exactly = Listed { created_ms: Some(NOW - 30 * DAY_MS), ..listed("a", 0) };
        assert!(removed(&[exactly, listed("b", 0)], 30, None).is_empty());
    }

    #[test]
    fn safety_backups_are_not_all_that_stays() {
        let safety = Listed { before_restore: true, ..listed("c", 1) };
        assert_eq!(removed(&[listed("a", 50), listed("b", 40), safety.clone()], 30, None), ["a"]);
        let old = Listed { created_ms: Some(NOW - 35 * DAY_MS), ..safety };
        assert_eq!(removed(&[listed("a", 3), old], 30, None), ["c"]);
    }

    #[test]
    fn the_newest_never_goes() {
        assert!(removed(&[listed("a", 400)], 30, None).is_empty());
        assert_eq!(removed(&[listed("b", 100), listed("a", 99)], 30, None), ["b"], "whatever their order and name");
        assert_eq!(removed(&[listed("a", 100), listed("b", 100)], 30, None), ["a"]);
        assert!(removed(&[], 30, None).is_empty());
    }

    #[test]
    fn what_is_strange_stays_and_protects_nothing() {
        let damaged = Listed { damage: Some("broken".to_owned()), ..listed("damaged", 1) };
        let unknown = Listed { created_ms: None, ..damaged.clone() };
        let future = listed("future", -1);
        let extreme = [i64::MIN, i64::MAX].map(|ms| Listed { created_ms: Some(ms), ..listed("extreme", 0) });
        let backups = [listed("a", 50), listed("b", 40), damaged, unknown, future, extreme[1].clone()];
        assert_eq!(removed(&backups, 30, None), ["a"], "b is the newest of those that can be right");
        assert!(removed(&[extreme[0].clone(), listed("b", 1)], 30, None).is_empty());
    }

    /// A clock that is years ahead makes everything look old: also where a backup was made by it already.
    #[test]
    fn a_clock_that_is_ahead_costs_nothing() {
        let years = 1000_i64;
        let before = |days: i64| listed(&format!("{days}"), years + days);
        let all = [before(40), before(20), before(1)];
        assert_eq!(removed(&all, 30, None), ["40"], "by the time before the gap");
        let decisions = plan(&all, 30, NOW, None);
        assert_eq!(decisions.iter().map(|one| one.by_gap).collect::<Vec<_>>(), [false, true, false]);
        assert!(decisions[1].reason.starts_with("1020 days old, but in 1001 of them there was no backup"));
        let made = [before(40), before(20), before(1), listed("new", 0)];
        assert_eq!(removed(&made, 30, None), ["40"]);
        // If it was right, that many days later they go.
        let later = [before(20), before(1), listed("c", 15), listed("d", 10), listed("e", 0)];
        assert_eq!(removed(&later, 30, None), ["20"]);
        let later = [before(20), before(1), listed("c", 31), listed("d", 20), listed("e", 0)];
        assert_eq!(removed(&later, 30, None), ["20", "1", "c"]);
        // What is rare is no gap.
        assert_eq!(removed(&[listed("a", 178), listed("b", 0)], 30, None), ["a"]);
    }

    #[test]
    fn the_newest_of_each_data_directory_stays() {
        let of = |name: &str, days: i64, source: &str| Listed { source_dir: source.to_owned(), ..listed(name, days) };
        let backups = [of("a", 90, "/one"), of("b", 80, "/one"), of("c", 40, "/two"), of("d", 1, "/two")];
        assert_eq!(removed(&backups, 30, None), ["a", "c"]);
    }

    #[test]
    fn what_lacks_something_takes_no_complete_one_s_place() {
        let lacking = |name: &str, days: i64| {
            let lacks = Lacks { named: vec![("pipe".to_owned(), "a pipe".to_owned())], count: 1 };
            Listed { lacks, ..listed(name, days) }
        };
        let of = |one: Listed, source: &str| Listed { source_dir: source.to_owned(), ..one };
        let backups = [listed("a", 90), listed("b", 80), lacking("c", 70), lacking("d", 1)];
        assert_eq!(removed(&backups, 30, Some("d")), ["a", "c"]);
        let backups =
            [of(listed("a", 90), "/one"), of(lacking("b", 80), "/one"), of(listed("c", 40), "/two"), lacking("d", 1)];
        assert!(removed(&backups, 30, None).is_empty());
        let safety = Listed { before_restore: true, ..listed("c", 2) };
        assert_eq!(removed(&[listed("a", 50), safety, lacking("d", 1)], 30, None), [""; 0]);
    }

    #[test]
    fn one_goes_and_nothing_else() {
        let place = tempfile::tempdir().expect("a folder");
        let (backup, outside) = (place.path().join("20260325T030000Z"), place.path().join("outside"));
        std::fs::create_dir_all(backup.join("a/b")).expect("made");
        std::fs::create_dir(&outside).expect("made");
        std::fs::write(outside.join("f"), b"kept").expect("written");
        std::fs::write(backup.join("a/b/f"), b"gone").expect("written");
        std::os::unix::fs::symlink(&outside, backup.join("a/link")).expect("linked");
        std::fs::hard_link(outside.join("f"), backup.join("hard")).expect("linked");
        let taken = place.path().join("20260325T030000Z.tmp");
        std::fs::create_dir_all(taken.join("x")).expect("made");
        remove(&backup).expect("removed");
        assert!(!backup.exists() && taken.join("x").exists());
        assert_eq!(std::fs::read(outside.join("f")).expect("read"), b"kept");
        assert_eq!(std::fs::read_dir(place.path()).expect("a folder").count(), 2);

        std::os::unix::fs::symlink(&outside, &backup).expect("linked");
        for path in [&backup, &taken, &outside.join("f"), &place.path().join("nothing"), &place.path().join("..")] {
            assert!(remove(path).is_err(), "{}", path.display());
        }
        assert!(outside.join("f").exists() && taken.exists());
    }
}
