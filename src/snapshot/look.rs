//! Looking into snapshots without writing anything: choose one, list it, read a file of it.
//!
//! Paths that users give are made relative to the snapshot's root first, and never lead out of it.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use jiff::{Span, Timestamp, ZonedDateTime};

use super::meta;
use super::recipe::Recipe;
use super::record::Record;
use super::store::Store;
use super::tree::{Content, Entry, Node, Tree};
use crate::error::words::time;
use crate::error::{Error, Result};
use crate::id::{ChunkId, TreeId};
use crate::index::catalog::Catalog;
use crate::store::segment::Content as Segment;

/// The snapshot that `text` names: `latest`, an id or the unique beginning of one, a tag (its newest), or a time (the
/// newest at or before it): `2h ago`, `2026-03-25`, `2026-03-25T03:00`.
pub fn select<'a>(records: &'a [Record], text: &str, now: &ZonedDateTime) -> Result<&'a Record> {
    if records.is_empty() {
        return Err(Error::failed("the store holds no snapshot yet").hint("`nbak snapshot` takes one"));
    }
    if text == "latest" {
        return Ok(&records[records.len() - 1]);
    }
    if text.len() >= 4 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let lower = text.to_ascii_lowercase();
        let mut hits = records.iter().filter(|record| record.id.to_string().starts_with(&lower));
        match (hits.next(), hits.next()) {
            (Some(record), None) => return Ok(record),
            (Some(_), Some(_)) => {
                return Err(
                    Error::usage(format!("more than one snapshot's id begins with {text}")).hint("give more of it")
                );
            }
            _ => {}
        }
    }
    if let Some(record) = records.iter().rev().find(|record| record.tags.iter().any(|tag| tag == text)) {
        return Ok(record);
    }
    if let Some(moment) = parse_time(text, now) {
        let by = moment.as_millisecond();
        return records
            .iter()
            .rev()
            .filter(|record| record.started <= by)
            .max_by_key(|record| record.started)
            .ok_or_else(|| {
                let there = time(by);
                Error::failed(format!("no snapshot is as old as {there}")).hint("`nbak snapshots` lists what there is")
            });
    }
    Err(Error::usage(format!(
        "`{text}` names no snapshot: it is not `latest`, 4 or more digits of an id, a tag, or a time"
    ))
    .hint("`nbak snapshots` lists what there is"))
}

/// Whether `text` is a time to [`select`].
pub fn reads_as_time(text: &str) -> bool {
    parse_time(text, &ZonedDateTime::now()).is_some()
}

fn parse_time(text: &str, now: &ZonedDateTime) -> Option<Timestamp> {
    if let Some(ago) = text.strip_suffix(" ago") {
        let ago = ago.trim();
        let digits = ago.find(|c: char| !c.is_ascii_digit())?;
        let count: i64 = ago[..digits].parse().ok()?;
        // The plain setters panic on a number that no calendar has.
        let span = match ago[digits..].trim() {
            "s" | "sec" | "second" | "seconds" => Span::new().try_seconds(count),
            "m" | "min" | "minute" | "minutes" => Span::new().try_minutes(count),
            "h" | "hour" | "hours" => Span::new().try_hours(count),
            "d" | "day" | "days" => Span::new().try_days(count),
            "w" | "week" | "weeks" => Span::new().try_weeks(count),
            _ => return None,
        };
        let span = span.ok()?;
        return now.checked_sub(span).ok().map(|moment| moment.timestamp());
    }
    // A second, a minute, an hour or a day is meant as a whole: the newest snapshot within it counts.
    let rest = precision(text).checked_sub(Span::new().nanoseconds(1)).ok()?;
    if let Ok(moment) = text.parse::<Timestamp>() {
        return moment.checked_add(rest).ok();
    }
    let moment = text.parse::<jiff::civil::DateTime>().ok()?.checked_add(rest).ok()?;
    // An hour that the clock shows twice is meant with both.
    now.time_zone().to_ambiguous_zoned_datetime(moment).later().ok().map(|moment| moment.timestamp())
}

/// The unit that `text`, which may be a time, was given in: `2026-03-25` is a day, `20260325T03` an hour.
fn precision(text: &str) -> Span {
    let time = text.split_once(['T', 't', ' ']).map_or("", |(_, time)| time);
    let time = &time[..time.find(['Z', 'z', '+', '-', '[']).unwrap_or(time.len())];
    let (whole, fraction) = time.split_once(['.', ',']).unwrap_or((time, ""));
    match whole.chars().filter(char::is_ascii_digit).count() {
        0 => Span::new().hours(24),
        1 | 2 => Span::new().hours(1),
        3 | 4 => Span::new().minutes(1),
        _ => Span::new().nanoseconds(1_000_000_000 / 10i64.pow(fraction.len().min(9) as u32)),
    }
}

/// Reads a path that a user gave: relative to the snapshot's root, without `..`.
pub fn clean_path(path: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::usage("a path within a snapshot has no `..`").at(path));
            }
        }
    }
    Ok(clean)
}

/// What a path leads to.
pub enum Place {
    /// The snapshot's root.
    Root(TreeId),
    /// An entry.
    Entry(Entry),
}

/// Follows `path` from the root of `record`.
pub fn find(store: &Store, record: &Record, path: &Path) -> Result<Place> {
    let missing = || {
        Error::failed(format!("snapshot {} has no such path", record.id.short()))
            .at(path)
            .hint("`nbak ls` lists what is in it")
    };
    let mut tree = record.tree;
    let mut names = path.components().peekable();
    while let Some(name) = names.next() {
        let version = meta::load::<Tree>(store.catalog(), tree)?;
        let entry = version.value.get(name.as_os_str().as_bytes()).ok_or_else(missing)?;
        match (&entry.node, names.peek()) {
            (_, None) => return Ok(Place::Entry(entry.clone())),
            (Node::Directory(id), Some(_)) => tree = *id,
            _ => return Err(missing()),
        }
    }
    Ok(Place::Root(tree))
}

/// All entries below `tree`, a directory before what is in it; `prefix` is its path.
pub fn list(catalog: &Catalog, tree: TreeId, prefix: &Path, recursive: bool) -> Result<Vec<(PathBuf, Entry)>> {
    walk(catalog, tree, prefix, recursive, None, &mut |_, error| Err(error))
}

/// The same for a tree of `record`. Few small trees that name each other many times make more entries than any memory
/// holds, so no more are listed than the record counts.
pub fn list_of(
    store: &Store,
    record: &Record,
    tree: TreeId,
    prefix: &Path,
    recursive: bool,
) -> Result<Vec<(PathBuf, Entry)>> {
    walk(store.catalog(), tree, prefix, recursive, Some(record), &mut |_, error| Err(error))
}

/// All entries below `tree` that can be read, and the directories whose own can not, with the reason.
pub fn list_whole(store: &Store, record: &Record, tree: TreeId, prefix: &Path) -> Result<Listing> {
    let mut lost = Vec::new();
    let entries = walk(store.catalog(), tree, prefix, true, Some(record), &mut |path, error| {
        if !error.is_integrity() || path == prefix {
            return Err(error);
        }
        lost.push((path.to_path_buf(), error.to_string()));
        Ok(())
    })?;
    Ok(Listing { entries, lost })
}

/// What is in a directory, as far as it can be read.
pub struct Listing {
    /// The entries, a directory before what is in it.
    pub entries: Vec<(PathBuf, Entry)>,
    /// Directories among them whose entries are lost, and why.
    pub lost: Vec<(PathBuf, String)>,
}

fn walk(
    catalog: &Catalog,
    tree: TreeId,
    prefix: &Path,
    recursive: bool,
    record: Option<&Record>,
    lost: &mut dyn FnMut(&Path, Error) -> Result<()>,
) -> Result<Vec<(PathBuf, Entry)>> {
    let mut out = Vec::new();
    let mut waiting = vec![(prefix.to_path_buf(), tree)];
    while let Some((path, id)) = waiting.pop() {
        if path.components().count() > crate::source::walk::DEEPEST + 1 {
            return Err(Error::integrity("directories of a snapshot are nested deeper than the format allows").at(path));
        }
        let version = match meta::load::<Tree>(catalog, id) {
            Ok(version) => version,
            Err(cause) if cause.is_integrity() => {
                let name = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
                lost(&path, Error::integrity("a directory of the snapshot is lost").at(name).because(cause))?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let count = (out.len() + version.value.entries.len()) as u64;
        if let Some(record) = record.filter(|record| count > record.totals.entries()) {
            let what = format!("the directories of snapshot {} hold more than its record counts", record.id);
            return Err(Error::integrity(what));
        }
        let start = waiting.len();
        for entry in version.value.entries {
            let place = path.join(std::ffi::OsStr::from_bytes(&entry.name));
            if let (Node::Directory(below), true) = (&entry.node, recursive) {
                waiting.push((place.clone(), *below));
            }
            out.push((place, entry));
        }
        waiting[start..].reverse();
    }
    Ok(out)
}

/// The chunks of a file: length in bytes and id, in order.
pub fn chunks_of(catalog: &Catalog, size: u64, content: &Content) -> Result<Vec<(u32, ChunkId)>> {
    let recipes = match content {
        Content::Chunks(chunks) => return Ok(chunks.clone()),
        Content::Recipes(recipes) => recipes,
    };
    let mut chunks = Vec::new();
    let mut total = 0u64;
    for id in recipes {
        let recipe = meta::load::<Recipe>(catalog, *id)?.value;
        total = total.saturating_add(recipe.size);
        chunks.extend(recipe.ids.iter().enumerate().map(|(nth, id)| (recipe.length(nth), *id)));
    }
    if total == size { Ok(chunks) } else { Err(Error::integrity("a file's recipes do not make its size")) }
}

/// Writes a file's content to `out`.
pub fn cat(store: &Store, size: u64, content: &Content, out: &mut dyn Write) -> Result<()> {
    let written =
        |result: std::io::Result<()>| result.map_err(|e| Error::io("write the file's content", "standard output", e));
    pieces(store, size, content, &mut |bytes| written(out.write_all(bytes)).map(|()| true))
}

/// What a file begins with: `most` bytes, or all of it.
pub fn head(store: &Store, size: u64, content: &Content, most: usize) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    pieces(store, size, content, &mut |bytes| {
        head.extend_from_slice(&bytes[..bytes.len().min(most - head.len())]);
        Ok(head.len() < most)
    })?;
    Ok(head)
}

/// Hands out a file's content in order, as long as `take` answers that it wants more.
fn pieces(store: &Store, size: u64, content: &Content, take: &mut dyn FnMut(&[u8]) -> Result<bool>) -> Result<()> {
    let zeros = vec![0; 64 * 1024];
    for (length, id) in chunks_of(store.catalog(), size, content)? {
        if id == ChunkId::ZEROS {
            let mut left = length as usize;
            while left > 0 {
                let some = left.min(zeros.len());
                if !take(&zeros[..some])? {
                    return Ok(());
                }
                left -= some;
            }
            continue;
        }
        let bytes = match store.catalog().chunk(Segment::Data, id) {
            // There may be another copy, stored again since a check found this one damaged.
            Err(error) if error.is_integrity() => store.catalog().sound_copy(id).ok_or(error)?,
            other => other?,
        };
        if bytes.len() != length as usize {
            return Err(Error::integrity(format!("chunk {id} has another length than its file says")));
        }
        if !take(&bytes)? {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood() {
        let now: ZonedDateTime = "2026-03-25T12:00:00+00:00[UTC]".parse().expect("a time");
        let at = |text: &str| parse_time(text, &now).map(|t| t.to_string());
        assert_eq!(at("2h ago").as_deref(), Some("2026-03-25T10:00:00Z"));
        assert_eq!(at("3 days ago").as_deref(), Some("2026-03-22T12:00:00Z"));
        assert_eq!(at("noon"), None);
        assert_eq!(at("1000000000w ago"), None);
        assert_eq!(at("9223372036854775807 s ago"), None);
    }

    #[test]
    fn a_time_means_the_whole_of_what_was_given() {
        let utc: ZonedDateTime = "2026-03-25T12:00:00+00:00[UTC]".parse().expect("a time");
        let berlin: ZonedDateTime = "2026-03-25T12:00:00+01:00[Europe/Berlin]".parse().expect("a time");
        let at = |text: &str, now| parse_time(text, now).unwrap_or_else(|| panic!("{text} is a time")).to_string();
        for (text, end) in [
            ("2026-03-24", "2026-03-24T23:59:59.999999999Z"),
            ("20260324", "2026-03-24T23:59:59.999999999Z"),
            ("2026-03-25T03", "2026-03-25T03:59:59.999999999Z"),
            ("20260325T03", "2026-03-25T03:59:59.999999999Z"),
            ("2026-03-25T03Z", "2026-03-25T03:59:59.999999999Z"),
            ("2026-03-25T03+01:00", "2026-03-25T02:59:59.999999999Z"),
            ("2026-03-25T03:07", "2026-03-25T03:07:59.999999999Z"),
            ("2026-03-25 03:07", "2026-03-25T03:07:59.999999999Z"),
            ("20260325T0307", "2026-03-25T03:07:59.999999999Z"),
            ("2026-03-25T03:07Z", "2026-03-25T03:07:59.999999999Z"),
            ("2026-03-25T03:07-02:00", "2026-03-25T05:07:59.999999999Z"),
            ("20260325T0307Z", "2026-03-25T03:07:59.999999999Z"),
            ("2026-03-25T03:07:09", "2026-03-25T03:07:09.999999999Z"),
            ("20260325T030709", "2026-03-25T03:07:09.999999999Z"),
            ("2026-03-25T03:07:09Z", "2026-03-25T03:07:09.999999999Z"),
            ("20260325T030709+0100", "2026-03-25T02:07:09.999999999Z"),
            ("2026-03-25T03:07:09.12", "2026-03-25T03:07:09.129999999Z"),
            ("2026-03-25T03:07:09.123Z", "2026-03-25T03:07:09.123999999Z"),
            ("2026-03-25T03:07:09.123456789Z", "2026-03-25T03:07:09.123456789Z"),
        ] {
            assert_eq!(at(text, &utc), end, "{text}");
        }
        // Where the clock was put back, and where it was put forward.
        assert_eq!(at("2025-10-26T02", &berlin), "2025-10-26T01:59:59.999999999Z");
        assert_eq!(at("2026-03-29", &berlin), "2026-03-29T21:59:59.999999999Z");
    }

    #[test]
    fn paths_stay_within() {
        assert_eq!(clean_path(Path::new("./a//b/")).expect("fine"), PathBuf::from("a/b"));
        assert_eq!(clean_path(Path::new("/a")).expect("fine"), PathBuf::from("a"));
        assert!(clean_path(Path::new("a/../b")).is_err());
    }
}
