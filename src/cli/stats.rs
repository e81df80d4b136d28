//! `stats`: what the store holds, and what each snapshot has in it.
//!
//! One set of figures answers all of it; what was typed says which part of them is printed.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};

use super::args::StatsArgs;
use super::context::Context;
use super::output::{self, count, iso, line, size, time};
use crate::error::Result;
use crate::id::SnapshotId;
use crate::snapshot::store::Store;
use crate::upkeep::stats::{Day, Stats, by_day, stats as store_stats};

/// Days of growth that people are shown, and programs.
const DAYS: (usize, usize) = (7, 366);

/// Shows what the store holds, or what some snapshots have in it.
pub fn stats(context: &Context, args: &StatsArgs) -> Result<u8> {
    let store = context.open()?;
    let named: Result<BTreeSet<SnapshotId>> =
        args.snapshots.iter().map(|name| context.select(&store, name).map(|record| record.id)).collect();
    let named = named?;
    let stats = store_stats(&store, &named)?;
    if !stats.complete {
        output::warning(
            "some of what the snapshots need could not be read, so that what is needed is more than what is counted as \
             that: run `nbak check` to see which snapshots that is about",
        );
    }
    if args.all || !named.is_empty() {
        list(context, &store, &stats, &named)?;
    } else {
        summary(context, &store, &stats);
    }
    Ok(0)
}

fn summary(context: &Context, store: &Store, stats: &Stats) {
    let days = by_day(&stats.shares, &output::zone());
    let last = |most: usize| &days[days.len().saturating_sub(most)..];
    let needed = stats.stored_bytes - stats.unneeded_bytes;
    if context.json {
        let day = |day: &Day| {
            json!({
                "day": day.day,
                "snapshots": day.snapshots,
                "added_bytes": day.added_bytes,
                "added_chunk_bytes": day.added_chunk_bytes,
            })
        };
        output::json(&json!({
            "store": store.id().to_string(),
            "snapshots": stats.snapshots,
            "packs": stats.packs,
            "stored_bytes": stats.stored_bytes,
            "data_bytes": stats.data_bytes,
            "metadata_bytes": stats.metadata_bytes,
            "chunks": stats.chunks,
            "chunk_bytes": stats.chunk_bytes,
            "snapshot_bytes": stats.snapshot_bytes,
            "protected": !store.is_unprotected(),
            "needed_bytes": needed,
            "only_bytes": stats.only_bytes,
            "shared_bytes": stats.shared_bytes,
            "overhead_bytes": stats.overhead_bytes,
            "unneeded_bytes": stats.unneeded_bytes,
            "forgotten_snapshots": stats.forgotten,
            "complete": stats.complete,
            "growth": last(DAYS.1).iter().map(day).collect::<Vec<_>>(),
        }));
        return;
    }
    let ratio = |a: u64, b: u64| if b == 0 { "-".to_owned() } else { format!("{:.1}", a as f64 / b as f64) };
    line(format!("snapshots      {} of {}", stats.snapshots, size(stats.snapshot_bytes)));
    line(format!("stored         {} in {}", size(stats.stored_bytes), count(stats.packs, "pack", "packs")));
    line(format!("  data         {} in {}", size(stats.data_bytes), count(stats.chunks, "chunk", "chunks")));
    line(format!("  metadata     {}", size(stats.metadata_bytes)));
    line(format!("needed         {}", size(needed)));
    line(format!("  by one       {}", size(stats.only_bytes)));
    line(format!("  by several   {}", size(needed - stats.only_bytes)));
    let hint =
        if stats.unneeded_bytes > 0 { "  (`nbak gc --dry-run` says how much of it can be freed now)" } else { "" };
    output::advice(format!("not needed     {}{hint}", size(stats.unneeded_bytes)));
    if stats.forgotten > 0 {
        output::advice(format!(
            "forgotten      {}, until `nbak gc` reclaims them",
            count(stats.forgotten, "snapshot", "snapshots")
        ));
    }
    line(format!("compression    {}", ratio(stats.chunk_bytes, stats.data_bytes)));
    line(format!("deduplication  {}", ratio(stats.snapshot_bytes, stats.chunk_bytes)));
    line(format!("protected      {}", if store.is_unprotected() { "no" } else { "yes" }));
    for (nth, day) in last(DAYS.0).iter().enumerate() {
        line(format!(
            "{:14} {} {:>10} by {}",
            if nth == 0 { "added" } else { "" },
            day.day,
            size(day.added_bytes),
            count(day.snapshots, "snapshot", "snapshots")
        ));
    }
}

/// Prints the snapshots in `named`, or all if none is named.
fn list(context: &Context, store: &Store, stats: &Stats, named: &BTreeSet<SnapshotId>) -> Result<()> {
    let records: Vec<_> = store.history()?.live().collect();
    let several = records.iter().any(|record| record.source != records[0].source);
    let is_wanted = |id: &SnapshotId| named.is_empty() || named.contains(id);
    for (record, share) in records.into_iter().zip(&stats.shares).filter(|(record, _)| is_wanted(&record.id)) {
        if context.json {
            output::json(&json!({
                "snapshot": record.id.to_string(),
                "started": iso(record.started),
                "source": record.source,
                "tags": record.tags,
                "bytes": record.totals.bytes,
                "added_bytes": share.added_bytes,
                "added_chunk_bytes": share.added_chunk_bytes,
                "only_bytes": share.only_bytes,
                "together_bytes": if named.is_empty() { Value::Null } else { json!(stats.together_bytes) },
                "complete": stats.complete,
            }));
            continue;
        }
        let mut text = format!(
            "{}  {}  {:>9}  added {:>9}  alone {:>9}",
            record.id.short(),
            time(record.started),
            size(record.totals.bytes),
            size(share.added_bytes),
            size(share.only_bytes),
        );
        if several {
            let _ = write!(text, "  {}", record.source);
        }
        if !record.tags.is_empty() {
            let _ = write!(text, "  [{}]", record.tags.join(", "));
        }
        line(text);
    }
    if context.json {
        return Ok(());
    }
    if named.len() > 1 {
        line(format!("these {} hold {} that no other needs", named.len(), size(stats.together_bytes)));
    } else if stats.shares.is_empty() {
        context.say("the store holds no snapshot yet");
    }
    Ok(())
}
