//! A backup in a list, on this machine or in Drive.
//!
//! What a manifest says of itself may be anybody's words: it is shown without what a terminal would obey.

use serde_json::json;

use super::context::Context;
use super::output::{self, iso, line, shown, size, time};
use crate::export::dialect::Dialect;
use crate::export::list::Listed;

/// One backup in a list, with what says where it is, and of which machine if that is not plain.
pub fn tell_backup(context: &Context, backup: &Listed, (place, value): (&str, &str), machine: &str) {
    if context.json {
        output::json(&json!({
            "name": backup.name,
            place: value,
            "source_dir": backup.source_dir,
            "machine": Some(machine).filter(|machine| !machine.is_empty()),
            "created": backup.created_ms.map(iso),
            "bytes": backup.bytes,
            "files": backup.files,
            "encrypted": backup.encrypted,
            "version": backup.version,
            "dialect": backup.dialect.map(Dialect::as_str),
            "snapshot": backup.snapshot,
            "before_restore": backup.before_restore,
            "damaged": backup.damage,
        }));
        return;
    }
    let name = shown(&backup.name);
    if let Some(why) = &backup.damage {
        let what = if why.starts_with("incomplete") { "" } else { "damaged: " };
        let of = if machine.is_empty() { String::new() } else { format!(" (of {})", shown(machine)) };
        line(format!("{name:26}  {what}{}{of}", shown(why)));
        return;
    }
    line(format!(
        "{name:26}  {}  {:>9}  {:>7} files  {}  version {:<8}{}{}{}",
        backup.created_ms.map_or_else(|| "-".to_owned(), time),
        size(backup.bytes),
        backup.files,
        if backup.encrypted { "encrypted" } else { "plain    " },
        shown(&backup.version),
        backup.snapshot.as_ref().map_or_else(String::new, |id| format!("  snapshot {}", id.get(..8).unwrap_or(id))),
        if backup.before_restore { "  made before a restore" } else { "" },
        if machine.is_empty() {
            String::new()
        } else {
            format!("  {} on {}", shown(&backup.source_dir), shown(machine))
        },
    ));
}
