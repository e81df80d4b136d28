//! A backup in a list, on this machine or in Drive, and the one that is meant.
//!
//! What a manifest says of itself may be anybody's words: it is shown without what a terminal would obey.

use serde_json::json;

use super::context::Context;
use super::output::{self, iso, line, shown, size, time};
use crate::error::Result;
use crate::export::backup::Backup;
use crate::export::dialect::Dialect;
use crate::export::list::{Listed, NOT_COME};
use crate::export::manager::BackupManager;
use crate::snapshot::now::now_ms;

/// What is said where backups stay since their age is in doubt.
pub const IN_DOUBT: &str = "backups stay that are old enough by the clock, since there was none for half a year before \
                            it: is the clock right? If it is, they go later (`--dry-run` says which)";

/// The backup called `name`, or the newest. What is to be known of the choice is said.
pub fn find_backup(manager: &BackupManager, name: Option<&str>) -> Result<Backup> {
    let (backup, remark) = manager.choose_backup(name)?;
    remark.iter().for_each(output::warning);
    Ok(backup)
}

/// One backup in a list, with what says where it is, and of which machine if that is not plain.
pub fn tell_backup(context: &Context, backup: &Listed, (place, value): (&str, &str), machine: &str) {
    let ahead = backup.is_ahead(now_ms());
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
            "ahead": ahead,
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
        "{name:26}  {}  {:>9}  {:>7} files  {}  version {:<8}{}{}{}{}",
        backup.created_ms.map_or_else(|| "-".to_owned(), time),
        size(backup.bytes),
        backup.files,
        if backup.encrypted { "encrypted" } else { "plain    " },
        shown(&backup.version),
        backup.snapshot.as_ref().map_or_else(String::new, |id| format!("  snapshot {}", id.get(..8).unwrap_or(id))),
        if backup.before_restore { "  made before a restore" } else { "" },
        if ahead { format!("  {NOT_COME}") } else { String::new() },
        if machine.is_empty() {
            String::new()
        } else {
            format!("  {} on {}", shown(&backup.source_dir), shown(machine))
        },
    ));
}
