//! `restore`.
//!
//! Files that lost data are named one by one; everything else is restored, and the exit code is 13.

use std::time::Instant;

use serde_json::json;

use super::args::RestoreArgs;
use super::backup;
use super::context::Context;
use super::output::{self, count, line, size, time};
use crate::error::{Error, Result};
use crate::snapshot::restore::{Options, restore as restore_snapshot};

/// Restores a snapshot into a directory.
pub fn restore(context: &Context, args: RestoreArgs) -> Result<u8> {
    let Some(target) = args.target else {
        return backup::restore_in_place(context, &args.snapshot, args.paths, &args.live);
    };
    let start = Instant::now();
    let store = context.open()?;
    let record = &context.select(&store, &args.snapshot)?;
    let target = std::path::absolute(&target).map_err(|error| Error::io("find", &target, error))?;
    if target.starts_with(store.root()) {
        return Err(Error::usage("the target lies in the store: plaintext does not belong there").at(&target));
    }
    if context.data_dir().is_ok_and(|data| std::path::absolute(data).is_ok_and(|data| target.starts_with(data))) {
        output::warning("the target lies in the data directory: later snapshots will contain it too");
    }
    let options = Options { target, paths: args.paths, overwrite: args.overwrite };
    let restored = restore_snapshot(&store, record, &options, &context.bars())?;
    let duration_ms = start.elapsed().as_millis() as u64;
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
            "directories": restored.directories,
            "symlinks": restored.symlinks,
            "damaged": damaged,
            "duration_ms": duration_ms,
        }));
    } else {
        line(format!(
            "restored {} ({}) of snapshot {}, taken {}, to {} in {:.2} s",
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
