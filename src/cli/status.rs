//! `status`, `doctor`: how things stand, and what to do about it.
//!
//! Both only look. `doctor` ends with 1 if something is wrong, so that a monitor can call it.

use super::context::Context;
use super::output::{self, count, line, shown, size, time};
use crate::error::Result;
use crate::schedule::around::key_of_backup;
use crate::schedule::checks::{Check, Level};
use crate::schedule::health::{Standing, look};
use crate::schedule::state::State;
use crate::snapshot::lack::Lack;
use crate::snapshot::now::now_ms;

/// `status`.
pub fn status(context: &Context) -> Result<u8> {
    let (places, state, config) = (context.places()?, State::load(&context.data_dir()?), context.config()?);
    let standing = look(&places, config, &context.credentials()?, &state, now_ms());
    if context.json {
        output::json(&standing.json(&places, &state));
        return Ok(0);
    }
    line(format!("data directory   {}", places.data_dir.display()));
    line(format!("store            {}: {}", places.repo.display(), stored(&standing)));
    let ago = |at: i64| format!("{} ({})", time(at), age(standing.now - at));
    let named_or = |one: &Option<(String, i64)>, most: usize, none: &str| match one {
        Some((name, at)) => format!("{}, {}", name.get(..most).unwrap_or(name), ago(*at)),
        None => none.to_owned(),
    };
    // What cannot be read may hold any number of them.
    let of_store = if standing.store_is_closed { "not known: the store does not open" } else { "none" };
    let named = |one: &Option<(String, i64)>, most: usize| named_or(one, most, of_store);
    let incomplete = |lack: Lack| if lack.is_none() { String::new() } else { format!("; incomplete: {lack}") };
    let lacking = incomplete(standing.snapshot_lacks);
    line(format!("newest snapshot  {}{lacking}", named(&standing.snapshot, 8)));
    line(format!("newest proof     {}", named(&standing.proven, 8)));
    if let Some((id, at, lack)) = &standing.proven_incomplete {
        line(format!("newer proof      {}{}", named(&Some((id.clone(), *at)), 8), incomplete(*lack)));
    }
    let of_folder = standing.backups_error.as_ref().map_or("none".to_owned(), |why| format!("not known: {why}"));
    let newest_backup = named_or(&standing.backup, usize::MAX, &shown(&of_folder));
    line(format!("newest backup    {newest_backup}{}", incomplete(standing.backup_incomplete)));
    if let Some((name, why)) = &standing.backup_lost {
        line(format!("damaged backup   {}: {}", shown(name), shown(why)));
    }
    line(format!("Google Drive     {}", if standing.granted { "access was granted" } else { "no access" }));
    match &standing.daemon {
        Some(process) => line(format!("daemon           process {process}")),
        None => line("daemon           none"),
    }
    if standing.daemon.is_some() {
        for (job, at) in &standing.next {
            line(format!("next {:12}{}", job.as_str(), time(*at)));
        }
    }
    if let Some(pending) = &standing.pending {
        output::advice(format!("restore          {}", shown(&pending.text())));
    }
    for path in &standing.kept {
        line(format!("kept             {}", path.display()));
    }
    for (what, last) in state.last.iter().filter(|(_, last)| last.failures > 0) {
        line(format!("failing          {what}: {} ({})", shown(&last.message), count(last.failures, "time", "times")));
    }
    Ok(0)
}

fn stored(standing: &Standing) -> String {
    match &standing.store_error {
        Some(why) => why.clone(),
        None => format!("{}, {}", standing.known(), size(standing.store_bytes)),
    }
}

/// A span of time for people.
fn age(ms: i64) -> String {
    let minutes = ms / 60_000;
    match minutes {
        ..0 => "in the future".to_owned(),
        0..=119 => format!("{} ago", count(minutes.unsigned_abs(), "minute", "minutes")),
        120..=2879 => format!("{} hours ago", minutes / 60),
        _ => format!("{} days ago", minutes / 1440),
    }
}

/// `doctor`.
pub fn doctor(context: &Context) -> Result<u8> {
    let (places, state, config) = (context.places()?, State::load(&context.data_dir()?), context.config()?);
    let credentials = context.credentials()?;
    let standing = look(&places, config, &credentials, &state, now_ms());
    let mut checks = standing.checks(&places, config, &state);
    if let Some((name, _)) = &standing.backup {
        key_of_backup(&places.backup_dir.join(name), &credentials, &mut |subject, level, text, remedy: &str| {
            checks.push(Check { subject, level, text, remedy: remedy.to_owned() });
        });
    }
    for check in &checks {
        if context.json {
            output::json(&serde_json::json!({
                "subject": check.subject, "level": check.level.as_str(), "text": check.text, "remedy": check.remedy,
            }));
            continue;
        }
        output::advice(format!("{:4}  {:13} {}", check.level.as_str(), check.subject, check.text));
        if !check.remedy.is_empty() && check.level != Level::Good {
            output::advice(format!("{:20}{}", "", check.remedy));
        }
    }
    Ok(u8::from(checks.iter().any(|check| check.level == Level::Bad)))
}
