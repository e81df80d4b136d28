//! `restore`.
//!
//! Files that lost data are named one by one; everything else is restored, and the exit code is 13.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::args::RestoreArgs;
use super::context::Context;
use super::given::word;
use super::inplace::{abandon, missing, restore_in_place, resume};
use super::output::{self, count, line, size, time};
use super::snapshot::unreadable_json;
use crate::error::{Error, Result};
use crate::snapshot::along::{along, spelled};
use crate::snapshot::places::{meet, real, refuse_own, source_of_name};
use crate::snapshot::restore::{Options, restore as restore_snapshot};
use crate::source::exclude::of_table;

/// The exit code where all that the snapshot holds was restored, and it lacks some of what was asked for.
const INCOMPLETE: u8 = 3;

/// Warns that the target lies `within` the data directory.
fn lies_in_the_data(within: &Path) {
    let first = within.components().next().map(|first| first.as_os_str().as_bytes()).unwrap_or_default();
    let is_left_out = of_table(first).is_some() || first == b"backups";
    let then = if is_left_out { "no snapshot will contain it" } else { "later snapshots will contain it too" };
    output::warning(format!("the target lies in the data directory: {then}"));
}

/// Restores a snapshot into a directory.
pub fn restore(context: &Context, args: RestoreArgs) -> Result<u8> {
    let snapshot = args.snapshot.unwrap_or_default();
    let Some(target) = args.target else {
        return match (args.resume, args.abandon) {
            (true, _) => resume(context, args.live.yes),
            (_, true) => abandon(context),
            _ => restore_in_place(context, &snapshot, args.paths, &args.live),
        };
    };
    let start = Instant::now();
    let store = context.open()?;
    let record = &context.select_to_restore(&store, &snapshot)?;
    // As they really lie: a link or a `..` must not lead plaintext into the store.
    let really = real(&target);
    if really.starts_with(real(store.root())) {
        return Err(Error::usage("the target lies in the store: plaintext does not belong there")
            .at(&target)
            .hint("name another with --target; nothing was changed"));
    }
    let source = source_of_name(&record.source);
    let live = [context.data_dir().ok(), Some(source).filter(|source| source.exists())];
    let live = live.into_iter().flatten().find(|data| meet(&target, data));
    if args.overwrite
        && let Some(data) = &live
    {
        return Err(Error::usage(
            "the target is a data directory, or has it in it, or lies in it: nothing would be kept of what is there",
        )
        .at(&target)
        .hint(format!(
            "`nbak --data-dir {} restore {} --in-place` makes a safety backup first; or name another target; nothing \
             was changed",
            word(data),
            record.id.short()
        )));
    }
    if let Some(data) = live.map(|data| real(&data)) {
        refuse_own(&data, &really)?;
        really.strip_prefix(&data).into_iter().for_each(lies_in_the_data);
    }
    // A log that was captured beside what is named comes with it: the newest rows may be in that.
    let paths = along(&store, record, &spelled(&args.paths)?)?;
    let missing = missing(record, &paths)?;
    let options = Options { target, paths, overwrite: args.overwrite };
    let restored = restore_snapshot(&store, record, &options, &context.bars())?;
    let duration_ms = start.elapsed().as_millis() as u64;
    if let Some(missing) = &missing {
        output::warning(missing);
    }
    for (path, why) in &restored.damaged {
        output::warning(format!("not restored: {}: {why}", path.display()));
    }
    if context.json {
        let damaged: Vec<_> =
            restored.damaged.iter().map(|(path, why)| json!({"path": path.to_string_lossy(), "reason": why})).collect();
        output::json(&json!({
            "snapshot": record.id.to_string(),
            "target": options.target.to_string_lossy(),
            "files": restored.files,
            "bytes": restored.bytes,
            "kept": restored.kept,
            "directories": restored.directories,
            "symlinks": restored.symlinks,
            "damaged": damaged,
            "incomplete": missing.is_some(),
            "unreadable_entries": unreadable_json(record),
            "duration_ms": duration_ms,
        }));
    } else {
        let kept = match restored.kept {
            0 => String::new(),
            kept => format!(", {kept} of which were there as they should be"),
        };
        let incomplete = if missing.is_some() { "incomplete " } else { "" };
        line(format!(
            "restored {} ({}{kept}) of {incomplete}snapshot {}, taken {}, to {} in {:.2} s",
            count(restored.files, "file", "files"),
            size(restored.bytes),
            record.id.short(),
            time(record.started),
            options.target.display(),
            duration_ms as f64 / 1000.0
        ));
    }
    if restored.damaged.is_empty() {
        return Ok(if missing.is_some() { INCOMPLETE } else { 0 });
    }
    Err(Error::integrity(format!(
        "{} not restored, since the store lost some of their data; everything else was",
        count(restored.damaged.len() as u64, "path was", "paths were")
    ))
    .hint("an earlier or later snapshot may hold them whole"))
}
