//! `diff` and `find`.
//!
//! Both look at what differs from one snapshot to the next, and not at all that is in each: so `find` goes through all
//! snapshots of a store in about the time that it takes to list one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use serde_json::{Value, json};

use super::args::{DiffArgs, FindArgs};
use super::context::Context;
use super::output::{self, count, iso, line, size, time};
use crate::error::{Error, Result};
use crate::id::SnapshotId;
use crate::snapshot::diff::{Change, diff as compare_snapshots};
use crate::snapshot::look;
use crate::snapshot::record::Record;
use crate::snapshot::store::Store;
use crate::snapshot::tree::{Entry, Node};
use crate::upkeep::anomaly::{compare, judge};

/// Lists what differs between two snapshots.
pub fn diff(context: &Context, args: &DiffArgs) -> Result<u8> {
    let store = context.open()?;
    let (before, after) = (context.select(&store, &args.before)?, context.select(&store, &args.after)?);
    let (mut added, mut removed, mut changed) = (0, 0, 0);
    if args.anomalies {
        unusual(context, &store, &before, &after)?;
        if context.json && before.source == after.source {
            // Which ones that were: whoever asked for `latest` goes on from there.
            output::json(&json!({"from": before.id.to_string(), "to": after.id.to_string()}));
        }
        return Ok(0);
    }
    compare_snapshots(&store, &before, &after, &mut |path, change| {
        let (sign, word, old, new) = match &change {
            Change::Added(new) => ('+', "added", None, Some(new)),
            Change::Removed(old) => ('-', "removed", Some(old), None),
            Change::Content(old, new) => ('M', "changed", Some(old), Some(new)),
            Change::Attributes(old, new) => ('m', "attributes", Some(old), Some(new)),
        };
        match change {
            Change::Added(_) => added += 1,
            Change::Removed(_) => removed += 1,
            _ => changed += 1,
        }
        if context.json {
            output::json(&json!({
                "path": path.to_string_lossy(),
                "change": word,
                "type": new.or(old).map(kind),
                "bytes_before": old.and_then(bytes),
                "bytes": new.and_then(bytes),
            }));
        } else {
            let slash = if new.or(old).is_some_and(|entry| kind(entry) == "directory") { "/" } else { "" };
            let sizes = match (old.and_then(bytes), new.and_then(bytes)) {
                (Some(old), Some(new)) if old != new => format!("  {} -> {}", size(old), size(new)),
                (None, Some(one)) | (Some(one), None) => format!("  {}", size(one)),
                _ => String::new(),
            };
            line(format!("{sign} {}{slash}{sizes}", path.display()));
        }
        Ok(())
    })?;
    if !context.json {
        line(format!("{} added, {removed} removed, {changed} changed", count(added, "entry", "entries")));
    }
    unusual(context, &store, &before, &after)
}

/// What is not usual between two snapshots.
fn unusual(context: &Context, store: &Store, before: &Record, after: &Record) -> Result<u8> {
    // Only the one way round is it a history.
    if before.source == after.source && before.started < after.started {
        for anomaly in judge(&compare(store, before, after)?) {
            if context.json {
                let numbers: BTreeMap<&str, u64> = anomaly.numbers.iter().copied().collect();
                output::json(&json!({"anomaly": anomaly.kind.as_str(), "text": anomaly.text, "numbers": numbers}));
            } else {
                output::warning(anomaly.text);
            }
        }
    }
    Ok(0)
}

fn kind(entry: &Entry) -> &'static str {
    match entry.node {
        Node::File { .. } => "file",
        Node::Directory(_) => "directory",
        Node::Symlink(_) => "symlink",
    }
}

fn bytes(entry: &Entry) -> Option<u64> {
    if let Node::File { size, .. } = entry.node { Some(size) } else { None }
}

/// One version of what was found: it is the same in all of these snapshots.
struct Version {
    entry: Entry,
    snapshots: Vec<(SnapshotId, i64)>,
}

/// Says which snapshots have paths that match.
pub fn find(context: &Context, args: &FindArgs) -> Result<u8> {
    let glob = glob(&args.glob)?;
    let store = context.open()?;
    let mut found: BTreeMap<PathBuf, Vec<Version>> = BTreeMap::new();
    let mut sources: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in store.records()? {
        sources.entry(record.source.clone()).or_default().push(record);
    }
    for records in sources.values() {
        let mut there: BTreeMap<PathBuf, Entry> = BTreeMap::new();
        let mut last: Option<&Record> = None;
        for record in records {
            let mut fresh = BTreeMap::new();
            match last {
                None => {
                    let all = look::list_of(&store, record, record.tree, Path::new(""), true)?;
                    there = all.into_iter().filter(|(path, _)| glob.is_match(path)).collect();
                    fresh.extend(there.iter().map(|(path, entry)| (path.clone(), entry.clone())));
                }
                Some(last) => compare_snapshots(&store, last, record, &mut |path, change| {
                    if glob.is_match(&path) {
                        match change {
                            Change::Removed(_) => drop(there.remove(&path)),
                            Change::Added(new) | Change::Content(_, new) | Change::Attributes(_, new) => {
                                there.insert(path.clone(), new.clone());
                                fresh.insert(path, new);
                            }
                        }
                    }
                    Ok(())
                })?,
            }
            for (path, entry) in fresh {
                found.entry(path).or_default().push(Version { entry, snapshots: Vec::new() });
            }
            for path in there.keys() {
                if let Some(version) = found.get_mut(path).and_then(|versions| versions.last_mut()) {
                    version.snapshots.push((record.id, record.started));
                }
            }
            last = Some(record);
        }
    }
    for (path, version) in found.iter().flat_map(|(path, versions)| versions.iter().map(move |one| (path, one))) {
        report(context, path, version);
    }
    if found.is_empty() && !context.json {
        context.say("no snapshot has a path that matches");
    }
    Ok(0)
}

fn report(context: &Context, path: &Path, version: &Version) {
    let attributes = version.entry.attributes;
    let mtime = attributes.mtime.saturating_mul(1000).saturating_add(i64::from(attributes.mtime_nanos / 1_000_000));
    let (Some(first), Some(last)) = (version.snapshots.first(), version.snapshots.last()) else { return };
    if context.json {
        let snapshots: Value = version.snapshots.iter().map(|(id, _)| id.to_string()).collect();
        output::json(&json!({
            "path": path.to_string_lossy(),
            "type": kind(&version.entry),
            "bytes": bytes(&version.entry),
            "mtime": iso(mtime),
            "snapshots": snapshots,
        }));
        return;
    }
    let slash = if kind(&version.entry) == "directory" { "/" } else { "" };
    let size = bytes(&version.entry).map(size).unwrap_or_default();
    let ids = if first.0 == last.0 {
        format!("in {}", first.0.short())
    } else {
        format!("in {} to {} ({})", first.0.short(), last.0.short(), version.snapshots.len())
    };
    line(format!("{}{slash}  {size:>9}  {}  {ids}", path.display(), time(mtime)));
}

/// A glob as `--exclude` takes it: one without `/` matches a name at any depth, one with `/` a path from the top.
fn glob(text: &str) -> Result<GlobMatcher> {
    let trimmed = text.trim_start_matches("./").trim_end_matches('/');
    let anchored = match trimmed.strip_prefix('/') {
        Some(rest) => rest.to_owned(),
        None if trimmed.contains('/') => trimmed.to_owned(),
        None => format!("**/{trimmed}"),
    };
    let glob = GlobBuilder::new(&anchored).literal_separator(true).build();
    Ok(glob
        .map_err(|error| Error::usage(format!("`{text}` is no glob: {}", error.kind())).hint("such as `*.db`"))?
        .compile_matcher())
}
