//! Names: what a backup may be called, and which paths a manifest may name.
//!
//! A manifest lies where anybody may have written to it, and its paths become paths in the live data directory. So a
//! path is taken only if there is one way to read it (S12): relative, by `/`, no `.` or `..`, nothing that another
//! system takes for a separator or a drive, nothing that this program or the application keeps to itself. A path that
//! is refused on the way in is not written on the way out either: both use [`check_path`].
//!
//! Backups are called after their time. The documented form is `20260325T030000Z`; the application really wrote
//! `2026-03-25T03000012Z`: ISO time without `:` and `.`, cut at 19 characters. Both are recognised, and any other name
//! counts if there is a manifest in it.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::source::exclude;

/// What a backup's folder is called while it is written or removed: then it is no backup.
pub const TEMPORARY: &str = ".tmp";
/// The file that makes a folder a backup.
pub const MANIFEST: &str = "manifest.json";
/// The longest path, in bytes.
pub const PATH_MAX: usize = 4096;
/// The longest component, in bytes.
pub const COMPONENT_MAX: usize = 255;
/// The most components.
pub const DEPTH_MAX: usize = 255;

/// Whether an entry may be called `path`; why not, if it may not.
pub fn check_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("it is empty".to_owned());
    }
    if path.len() > PATH_MAX {
        return Err(format!("it is longer than {PATH_MAX} bytes"));
    }
    if path.starts_with('/') {
        return Err("it is absolute".to_owned());
    }
    let mut depth = 0;
    for component in path.split('/') {
        check_component(component)?;
        depth += 1;
    }
    if depth > DEPTH_MAX {
        return Err(format!("it is deeper than {DEPTH_MAX} folders"));
    }
    let top = path.split_once('/').map_or(path, |(top, _)| top);
    let drive = top.as_bytes();
    if drive.len() >= 2 && drive[0].is_ascii_alphabetic() && drive[1] == b':' {
        return Err("it begins with a drive".to_owned());
    }
    if path == MANIFEST {
        return Err("it is the manifest's own name".to_owned());
    }
    if top == "backups" {
        return Err("it is where the backups are".to_owned());
    }
    match exclude::of_table(top.as_bytes()) {
        Some(reason) => Err(format!("it is never part of a backup: {reason}")),
        None => Ok(()),
    }
}

fn check_component(component: &str) -> Result<(), String> {
    match component {
        "" => Err("a part of it is empty".to_owned()),
        "." | ".." => Err(format!("it contains `{component}`")),
        _ if component.contains('\0') => Err("it contains a zero byte".to_owned()),
        _ if component.contains('\\') => Err("it contains a backslash".to_owned()),
        _ if component.len() > COMPONENT_MAX => Err(format!("a part of it is longer than {COMPONENT_MAX} bytes")),
        _ => Ok(()),
    }
}

/// Whether paths, each with whether it is a folder, can all be there at once: none twice, none below a file. Why not,
/// if they cannot. Each has passed [`check_path`].
pub fn check_together<'a>(paths: impl Iterator<Item = (&'a str, bool)>) -> Result<(), String> {
    let mut sorted: Vec<(&str, bool)> = paths.collect();
    // With `/` before everything else, what is below a path follows it at once.
    sorted.sort_unstable_by(|(one, _), (other, _)| one.split('/').cmp(other.split('/')));
    for pair in sorted.windows(2) {
        let [(first, is_folder), (second, _)] = pair else { continue };
        if first == second {
            return Err(format!("{} stands there twice", quoted(first)));
        }
        if !is_folder && second.strip_prefix(first).is_some_and(|rest| rest.starts_with('/')) {
            return Err(format!("{} is a file, and {} is below it", quoted(first), quoted(second)));
        }
    }
    Ok(())
}

/// Two of the paths that differ in nothing but upper and lower case, or that lead through folders that do.
///
/// A directory on Linux may hold both. So it depends on who vouches for the manifest: from a stranger they are a way to
/// have one file overwrite another on a file system that does not tell them apart.
pub fn case_collision<'a>(paths: impl Iterator<Item = &'a str>) -> Option<(&'a str, &'a str)> {
    let mut sorted: Vec<(String, &str)> = paths.map(|path| (path.to_lowercase(), path)).collect();
    sorted.sort_unstable_by(|(one, _), (other, _)| one.split('/').cmp(other.split('/')));
    let collide = |(low, path): &(String, &str), (other_low, other): &(String, &str)| {
        let lows = low.split('/').zip(other_low.split('/'));
        let real = path.split('/').zip(other.split('/'));
        lows.zip(real).take_while(|((low, other), _)| low == other).any(|(_, (real, other))| real != other)
    };
    sorted.windows(2).find(|pair| collide(&pair[0], &pair[1])).map(|pair| (pair[0].1, pair[1].1))
}

/// Whether a folder called `name` can be a backup at all; why not, if it cannot.
pub fn check_name(name: &str) -> Result<(), String> {
    check_component(name)?;
    if name.contains('/') {
        return Err("it is a path".to_owned());
    }
    if name.ends_with(TEMPORARY) {
        return Err("it is being written or removed, or was left by a process that was killed".to_owned());
    }
    if name.starts_with(".nbak-") {
        return Err("it is this program's own scratch space".to_owned());
    }
    Ok(())
}

/// Whether `name` is one that this program or the application gives to a backup.
pub fn is_dated(name: &str) -> bool {
    date_of(name).is_some()
}

/// The time that a backup's name tells, in milliseconds since 1970.
pub fn date_of(name: &str) -> Option<i64> {
    let (stamp, number) = name.split_at_checked(name.find('Z')? + 1)?;
    if !number.is_empty() {
        let digits = number.strip_prefix('-')?;
        if digits.is_empty() || digits.len() > 9 || digits.starts_with('0') || !is_number(digits) {
            return None;
        }
    }
    let stamp = stamp.strip_suffix('Z')?;
    let (date, time) = stamp.split_once('T')?;
    let (year, month, day) = match *date.as_bytes() {
        [_, _, _, _, b'-', _, _, b'-', _, _] => (date.get(..4)?, date.get(5..7)?, date.get(8..)?),
        [_, _, _, _, _, _, _, _] => (date.get(..4)?, date.get(4..6)?, date.get(6..)?),
        _ => return None,
    };
    // The application's form has hundredths of a second, the documented one has none.
    if time.len() != if date.len() == 10 { 8 } else { 6 } || !is_number(time) {
        return None;
    }
    let hundredths = if time.len() == 8 { time.get(6..)?.parse::<i32>().ok()? } else { 0 };
    let part = |text: &str| if is_number(text) { text.parse::<i8>().ok() } else { None };
    let year = if is_number(year) { year.parse::<i16>().ok()? } else { return None };
    let (hour, minute, second) = (part(time.get(..2)?)?, part(time.get(2..4)?)?, part(time.get(4..6)?)?);
    let moment = DateTime::new(year, part(month)?, part(day)?, hour, minute, second, hundredths * 10_000_000).ok()?;
    TimeZone::UTC.to_timestamp(moment).ok().map(Timestamp::as_millisecond)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The name of a new backup made at `ms` milliseconds since 1970: the first of `…Z`, `…Z-1`, `…Z-2` and so on that is
/// not `taken`.
pub fn new_name(ms: i64, taken: &dyn Fn(&str) -> bool) -> String {
    let moment = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let stamp = moment.strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut name = stamp.clone();
    let mut number = 0_u64;
    while taken(&name) {
        number += 1;
        name = format!("{stamp}-{number}");
    }
    name
}

/// `text` for a message: not longer than a line, whatever it is.
pub(super) fn quoted(text: &str) -> String {
    const MOST: usize = 120;
    match text.char_indices().nth(MOST) {
        None => format!("`{text}`"),
        Some((end, _)) => format!("`{}…`", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_nowhere_else_are_taken() {
        let deep = vec!["a"; DEPTH_MAX].join("/");
        for path in
            ["history.db", "memory/acme/später-日本.txt", "a b", "...", "a/..b", "workspace/.env", "a/c:", &deep]
        {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn every_other_path_is_refused() {
        let (deep, long) = (vec!["a"; DEPTH_MAX + 1].join("/"), "x".repeat(COMPONENT_MAX + 1));
        let longer = format!("{}/a", "x".repeat(200)).repeat(30);
        for path in [
            "",
            "/",
            "/etc/passwd",
            "..",
            ".",
            "../a",
            "a/..",
            "a/../b",
            "a/./b",
            "./a",
            "a//b",
            "a/",
            "a\0b",
            "a\\b",
            "..\\a",
            "C:",
            "c:/a",
            "c:a",
            "manifest.json",
            "backups",
            "backups/a",
            ".env",
            "vault.key",
            "x.lock",
            ".nbak-restore/intent",
            &deep,
            &long,
            &longer,
        ] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn paths_must_be_possible_together() {
        let check =
            |paths: &[&str]| check_together(paths.iter().map(|path| (path.trim_end_matches('/'), path.ends_with('/'))));
        assert_eq!(check(&["a/", "a/b", "a-b", "a.b/c", "ab"]), Ok(()));
        for paths in [&["a", "b", "a"][..], &["a/", "a"], &["a", "a/b"], &["a/b/c", "a!", "a", "a-b"], &["a/b", "a/b/"]]
        {
            assert!(check(paths).is_err(), "{paths:?}");
        }
    }

    #[test]
    fn case_is_told_apart() {
        let collision = |paths: &[&'static str]| case_collision(paths.iter().copied());
        assert_eq!(collision(&["a/b", "A2", "a/c", "b/a"]), None);
        assert!(collision(&["README", "b", "readme"]).is_some());
        assert!(collision(&["A/x", "a/y"]).is_some());
        assert!(collision(&["A/x", "a"]).is_some());
        assert!(collision(&["STRASSE/Ä", "STRASSE/ä"]).is_some());
    }

    #[test]
    fn names_of_backups() {
        for name in ["20260325T030000Z", "20260325T030000Z-1", "2026-03-26T03000012Z", "2026-03-26T03000012Z-12"] {
            assert!(is_dated(name) && check_name(name).is_ok(), "{name}");
        }
        for name in [
            "20260325T030000",
            "20260325T030000Z-",
            "20260325T030000Z-0",
            "20260325T030000Z-x",
            "20261325T030000Z",
            "2026-03-26T030000Z",
            "20260325T03000012Z",
            "20260325T030000Z.tmp",
            "Z",
            "",
            "+0260325T030000Z",
            "äZ",
            "2026032\u{e4}T030000Z",
        ] {
            assert!(!is_dated(name), "{name}");
        }
        assert_eq!(date_of("19700101T000001Z"), Some(1000));
        assert_eq!(date_of("1970-01-01T00000112Z-3"), Some(1120));
        for name in ["", ".", "..", "a/b", "a.tmp", ".nbak-scratch-1", "a\\b", "a\0"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert_eq!(check_name("before the move"), Ok(()));
    }

    #[test]
    fn a_new_name_is_free() {
        let ms = 1_774_407_600_999;
        assert_eq!(new_name(ms, &|_| false), "20260325T030000Z");
        let taken = ["20260325T030000Z", "20260325T030000Z-1"];
        let name = new_name(ms, &|name| taken.contains(&name));
        assert_eq!(name, "20260325T030000Z-2");
        assert_eq!(date_of(&name), Some(ms - 999));
        assert!(is_dated(&new_name(i64::MAX, &|_| false)));
    }
}
