//! `restore`.
//!
//! Files that lost data are named one by one; everything else is restored, and the exit code is 13.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use super::args::RestoreArgs;
use super::backup;
use super::context::Context;
use super::output::{self, count, line, size, time};
use super::snapshot::unreadable_json;
use crate::error::{Error, Result};
use crate::snapshot::look::clean_path;
use crate::snapshot::places::real;
use crate::snapshot::record::Record;
use crate::snapshot::restore::{Options, restore as restore_snapshot};

/// So many entries that the snapshot lacks are named.
const NAMED: usize = 5;

/// Restores a snapshot into a directory.
pub fn restore(context: &Context, args: RestoreArgs) -> Result<u8> {
    let Some(target) = args.target else {
        return backup::restore_in_place(context, &args.snapshot, args.paths, &args.live);
    };
    let start = Instant::now();
    let store = context.open()?;
    let record = &context.select(&store, &args.snapshot)?;
    // As they really lie: a link or a `..` must not lead plaintext into the store.
    let really = real(&target);
    if really.starts_with(real(store.root())) {
        return Err(Error::usage("the target lies in the store: plaintext does not belong there")
            .at(&target)
            .hint("name another with --target; nothing was changed"));
    }
    if context.data_dir().is_ok_and(|data| really.starts_with(real(&data))) {
        output::warning("the target lies in the data directory: later snapshots will contain it too");
    }
    let missing = missing(record, &args.paths)?;
    let options = Options { target, paths: args.paths, overwrite: args.overwrite };
    let restored = restore_snapshot(&store, record, &options, &context.bars())?;
    let duration_ms = start.elapsed().as_millis() as u64;
    if let Some(missing) = &missing {
        output::warning(format!("the snapshot is incomplete: {missing} when it was taken"));
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
        line(format!(
            "restored {} ({}{kept}) of snapshot {}, taken {}, to {} in {:.2} s",
            count(restored.files, "file", "files"),
            size(restored.bytes),
            record.id.short(),
            time(record.started),
            options.target.display(),
            duration_ms as f64 / 1000.0
        ));
    }
    if restored.damaged.is_empty() {
        return Ok(0);
    }
    Err(Error::integrity(format!(
        "{} not restored, since the store lost some of their data; everything else was",
        count(restored.damaged.len() as u64, "path was", "paths were")
    ))
    .hint("an earlier or later snapshot may hold them whole"))
}

/// What of `paths`, or of everything, the snapshot never had, in words; nothing if it is complete.
pub(super) fn missing(record: &Record, paths: &[PathBuf]) -> Result<Option<String>> {
    let mut named: Vec<&str> = record.unreadable.iter().map(|(path, _)| path.as_str()).collect();
    let unnamed = record.unreadable_count.saturating_sub(named.len() as u64);
    let wanted = paths.iter().map(|path| clean_path(path)).collect::<Result<Vec<_>>>()?;
    named.retain(|path| wanted.is_empty() || wanted.iter().any(|wanted| Path::new(path).starts_with(wanted)));
    let entries = named.len() as u64 + unnamed;
    if entries == 0 {
        return Ok(None);
    }
    let first = named[..named.len().min(NAMED)].join(", ");
    let more = if entries > NAMED as u64 { ", …" } else { "" };
    Ok(Some(format!("{} not be read ({first}{more})", count(entries, "entry could", "entries could"))))
}
