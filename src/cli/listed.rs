//! A backup in a list, on this machine or in Drive, and the one that is meant.
//!
//! What a manifest says of itself may be anybody's words: it is shown without what a terminal would obey.

use serde_json::{Value, json};

use super::context::Context;
use super::output::{self, count, iso, line, shown, size, time};
use crate::error::{Error, Result};
use crate::export::backup::Backup;
use crate::export::dialect::Dialect;
use crate::export::list::{Listed, NOT_COME};
use crate::export::manager::BackupManager;
use crate::export::manifest::lacks::Lacks;
use crate::export::manifest::whose::Whose;
use crate::snapshot::lack::Lack;
use crate::snapshot::now::now_ms;

/// What is said where backups stay since their age is in doubt.
pub const IN_DOUBT: &str = "backups stay that are old enough by the clock, since there was none for half a year before \
                            it: is the clock right? If it is, they go later (`--dry-run` says which)";

/// The backup called `name`, or the newest. What is to be known of the choice is said.
pub fn find_backup(manager: &BackupManager, name: Option<&str>) -> Result<Backup> {
    let (backup, remarks) = manager.choose_backup(name)?;
    remarks.iter().for_each(output::warning);
    Ok(backup)
}

/// The entries that a backup lacks, as far as they are named.
pub fn lacks_json(lacks: &Lacks) -> Value {
    lacks.named.iter().map(|(path, reason)| json!({"path": path, "reason": reason})).collect()
}

/// Names what a backup lacks, each with the reason.
pub fn tell_lacks(lacks: &Lacks) {
    let mixed = usize::from(lacks.lack().mixed);
    for (path, reason) in lacks.named.iter().skip(mixed) {
        output::warning(format!("not in the backup: {}: {}", shown(path), shown(reason)));
    }
    let unnamed = lacks.count.saturating_sub(lacks.named.len() as u64);
    if unnamed > 0 {
        output::warning(format!("not in the backup: {}, which it does not name", count(unnamed, "entry", "entries")));
    }
    if mixed > 0 {
        let only = Lack { entries: 0, mixed: true };
        output::warning(format!("the backup was made while a restore in place was half done: {only}"));
    }
}

/// One backup in a list, with what says where it is, and of which machine if that is not plain.
pub fn tell_backup(context: &Context, backup: &Listed, (place, value): (&str, &str), machine: &str) {
    let (ahead, lack) = (backup.is_ahead(now_ms()), backup.lacks.lack());
    if context.json {
        output::json(&json!({
            "name": backup.name,
            place: value,
            "source_dir": backup.source_dir,
            "instance": match backup.whose {
                Whose::Of(it) => it.map(|it| it.to_string()),
                Whose::Unsaid => None,
            },
            "machine": Some(machine).filter(|machine| !machine.is_empty()),
            "created": backup.created_ms.map(iso),
            "bytes": backup.bytes,
            "files": backup.files,
            "encrypted": backup.encrypted,
            "version": backup.version,
            "dialect": backup.dialect.map(Dialect::as_str),
            "snapshot": backup.snapshot,
            "before_restore": backup.before_restore,
            "mixed": lack.mixed,
            "lacks": lacks_json(&backup.lacks),
            "lacks_count": backup.lacks.count,
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
        "{name:26}  {}  {:>9}  {:>7} files  {}  version {:<8}{}{}{}{}{}",
        backup.created_ms.map_or_else(|| "-".to_owned(), time),
        size(backup.bytes),
        backup.files,
        if backup.encrypted { "encrypted" } else { "plain    " },
        shown(&backup.version),
        backup.snapshot.as_ref().map_or_else(String::new, |id| format!("  snapshot {}", id.get(..8).unwrap_or(id))),
        if backup.before_restore { "  made before a restore" } else { "" },
        if lack.is_none() { String::new() } else { format!("  incomplete: {lack}") },
        if ahead { format!("  {NOT_COME}") } else { String::new() },
        if machine.is_empty() {
            match context.places() {
                Ok(places) if !places.owns()(&backup.source_dir) => format!("  of {}", shown(&backup.source_dir)),
                _ => String::new(),
            }
        } else {
            format!("  {} on {}", shown(&backup.source_dir), shown(machine))
        },
    ));
}

/// What to say if all that had this path were this one.
pub const ASK: &str = "--as-one goes over those too, if it was this one";

/// That a retention leaves so many backups to whose they are, and what is `next`.
pub fn tell_left(left: usize, next: &str) {
    if left > 0 {
        let those = count(left as u64, "backup stays", "backups stay");
        output::warning(format!(
            "{those} whatever the age: another directory of the same path made them, that lives or lived beside this \
             one or is what this one was before, or nobody knows which ({next}; for two beside each other, give each a \
             name)"
        ));
    }
}

/// What to say where the newest backup, `name`, is what a restore made of what it replaced, and nobody named it; `list`
/// is the command that shows the others.
pub fn safety_is_not_meant(name: &str, list: &str) -> Error {
    Error::usage(format!("the newest backup, {name}, is what a restore made of the state that it replaced"))
        .hint(format!("give a name (`{list}`): that one, or another; nothing was changed"))
}
