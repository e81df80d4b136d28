//! What can be typed about retention: what is forgotten, what is kept on purpose, and what is freed.
//!
//! The flags are called as in restic and borg.

/// Arguments of `forget`.
#[derive(Debug, clap::Args)]
pub struct ForgetArgs {
    /// `latest`, the beginning of an id, a tag, or a time; each names one snapshot
    #[arg(conflicts_with = "rules")]
    pub snapshots: Vec<String>,
    /// Forget nothing; say what would be forgotten, and why the others stay
    #[arg(long)]
    pub dry_run: bool,
    /// Forget what is named also if it is pinned, or the newest that a drill has restored
    #[arg(long, requires = "snapshots", conflicts_with = "rules")]
    pub force: bool,
    /// Go by the policy over those that are known as this, as `nbak snapshots` shows it: what this data directory was
    /// known as before it got a name, or lay elsewhere [default: those of this data directory]
    #[arg(long, value_name = "SOURCE", conflicts_with = "snapshots")]
    pub of: Option<String>,
    /// What this data directory was before, as far as that can be told, is this one: alone, from now on, of what is
    /// there by now; with a policy, for this command; with --of, whoever took it. None that lived beside another
    #[arg(long, conflicts_with = "snapshots")]
    pub as_one: bool,
    /// The same of the one directory that took this snapshot, or made the backup of this name
    #[arg(long, value_name = "SNAPSHOT", conflicts_with_all = ["snapshots", "as_one"])]
    pub as_one_with: Option<String>,
    #[command(flatten)]
    pub rules: Rules,
}

/// Arguments of `pin`.
#[derive(Debug, clap::Args)]
pub struct PinArgs {
    /// `latest`, the beginning of an id, a tag, or a time
    pub snapshot: String,
    /// Why it is kept, in a few words
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

/// Arguments of `unpin`.
#[derive(Debug, clap::Args)]
pub struct UnpinArgs {
    /// `latest`, the beginning of an id, a tag, or a time
    pub snapshot: String,
}

/// A policy: what one of the rules keeps stays. It goes for each data directory by itself, of which the newest snapshot
/// always stays, and the newest that a drill restored; what is pinned stays too.
#[expect(clippy::struct_field_names, reason = "they are the names of the flags")]
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Policy (instead of names; what one of these keeps stays)")]
#[group(id = "rules", multiple = true)]
pub struct Rules {
    /// Keep the last N
    #[arg(long, value_name = "N", value_parser = number)]
    pub keep_last: Option<u64>,
    /// Keep the last of each of N hours
    #[arg(long, value_name = "N", value_parser = number)]
    pub keep_hourly: Option<u64>,
    /// Keep the last of each of N days
    #[arg(long, value_name = "N", value_parser = number)]
    pub keep_daily: Option<u64>,
    /// Keep the last of each of N weeks
    #[arg(long, value_name = "N", value_parser = number)]
    pub keep_weekly: Option<u64>,
    /// Keep the last of each of N months
    #[arg(long, value_name = "N", value_parser = number)]
    pub keep_monthly: Option<u64>,
    /// Keep the last of each of N years
    #[arg(long, value_name = "N", value_parser = number)]
    pub keep_yearly: Option<u64>,
    /// Keep all that are no older than this, counted from the newest: `36h`, `7d`, `1y6m` (h hours, d days, w
    /// weeks, m months, y years)
    #[arg(long, value_name = "TIME")]
    pub keep_within: Option<String>,
    /// Keep all with this tag; may be given more than once
    #[arg(long, value_name = "TAG", value_parser = tag)]
    pub keep_tag: Vec<String>,
}

/// Arguments of `undelete`.
#[derive(Debug, clap::Args)]
pub struct UndeleteArgs {
    /// `latest` of the forgotten, the beginning of an id, a tag, or a time; or `all`
    #[arg(required = true)]
    pub snapshots: Vec<String>,
}

/// Arguments of `gc`.
#[derive(Debug, clap::Args)]
pub struct GcArgs {
    /// Free nothing; say how much would be freed
    #[arg(long)]
    pub dry_run: bool,
    /// Leave alone what was forgotten less than this long ago: `24h`, `7d` [default: nothing]
    #[arg(long, value_name = "TIME")]
    pub keep_forgotten: Option<String>,
}

/// A tag. What a variable of a shell that is not set leaves is none.
pub(super) fn tag(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("a tag is not empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn number(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) => Err("to keep none of these, leave the rule out".to_owned()),
        Ok(number) => Ok(number),
        Err(_) if text == "unlimited" => Ok(u64::MAX),
        Err(_) => Err("it is a number, or `unlimited`".to_owned()),
    }
}
