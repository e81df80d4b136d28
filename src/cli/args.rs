//! What can be typed.
//!
//! A secret is never the value of a flag: it would stand in the process list and in the shell's history.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use self::retention::{ForgetArgs, GcArgs, PinArgs, Rules, UndeleteArgs, UnpinArgs};
use crate::export::dialect::Dialect;

mod retention;

/// Frequent, cheap, encrypted snapshots of a live data directory.
#[derive(Debug, Parser)]
#[command(name = "nbak", version, max_term_width = 110)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

pub mod cloud;

pub use cloud::{Auth, AuthArgs, Gdrive, PushArgs, RateArgs, StoreCopy, StoreCopyArgs};

const COMMON: &str = "Common options";

/// What every command takes.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// The data directory [default: ~/.nodyn, or ~/.lynox if only that is there]
    #[arg(long, global = true, help_heading = COMMON, value_name = "DIR", env = "NBAK_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// The store [default: store/ in the backup directory]
    #[arg(long, global = true, help_heading = COMMON, value_name = "DIR", env = "NBAK_REPO")]
    pub repo: Option<PathBuf>,
    /// Read the vault key from this file; may be given more than once
    #[arg(long, global = true, help_heading = COMMON, value_name = "FILE")]
    pub vault_key_file: Vec<PathBuf>,
    /// Read the vault key from what this shell command prints
    #[arg(long, global = true, help_heading = COMMON, value_name = "COMMAND")]
    pub vault_key_command: Option<String>,
    /// Read a passphrase from the first line of this file
    #[arg(long, global = true, help_heading = COMMON, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Wait this many seconds for another process that is writing to the store; `gc` also for those that read it
    #[arg(long, global = true, help_heading = COMMON, value_name = "SECONDS", default_value_t = 30)]
    pub lock_wait: u64,
    /// Print results as JSON
    #[arg(long, global = true, help_heading = COMMON)]
    pub json: bool,
    /// Print results, warnings and errors only
    #[arg(short, long, global = true, help_heading = COMMON, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more: what a snapshot leaves out and why, what a check proved, why each snapshot is kept, what is lost
    #[arg(short, long, global = true, help_heading = COMMON)]
    pub verbose: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take a snapshot; make the store on first use
    Snapshot(SnapshotArgs),
    /// List the snapshots
    Snapshots(SnapshotsArgs),
    /// Forget snapshots, by name or by a policy; `gc` then frees their space
    Forget(ForgetArgs),
    /// Keep a snapshot, whatever a policy says, until `unpin`
    Pin(PinArgs),
    /// Let a pinned snapshot go like any other again
    Unpin(UnpinArgs),
    /// Bring forgotten snapshots back, as long as `gc` has not reclaimed their space
    Undelete(UndeleteArgs),
    /// Free the space of what no snapshot needs any more
    Gc(GcArgs),
    /// List what is in a snapshot
    Ls(LsArgs),
    /// Print a file of a snapshot
    Cat(CatArgs),
    /// List what differs between two snapshots
    Diff(DiffArgs),
    /// Say which snapshots have paths that match a glob
    Find(FindArgs),
    /// Write a snapshot, or some paths of it, into a directory
    Restore(RestoreArgs),
    /// Restore a snapshot for the trial, into scratch space, and look at all that came back
    Drill(DrillArgs),
    /// Write a snapshot as a documented backup: a directory with manifest.json
    Export(ExportArgs),
    /// Make, list, verify, restore and remove documented backups
    Backup(BackupArgs),
    /// Give this program access to Google Drive, or take it back
    Auth(AuthArgs),
    /// Copy the store to Google Drive, or from there
    Gdrive(StoreCopyArgs),
    /// Verify that the store is whole
    Check(CheckArgs),
    /// Show what the store holds, and what each snapshot has in it
    Stats(StatsArgs),
    /// Save what can be saved of a damaged store, and mark what is lost
    Repair(RepairArgs),
    /// Show and change what opens the store
    Key(KeyArgs),
    /// Take snapshots and make backups by the schedule, until it is told to end
    Daemon,
    /// Before the application starts: make a backup if its version changed
    Startup(StartupArgs),
    /// Say how things stand
    Status,
    /// Look at everything, and say what to do about what is wrong
    Doctor,
    /// Send a test to all channels of `nbak.notify`
    Notify,
    /// Show what is set, and by whom
    Config(ConfigArgs),
    /// Print a shell's completions for this program
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
}

/// Arguments of `snapshot`.
#[derive(Debug, clap::Args)]
pub struct SnapshotArgs {
    /// Give the snapshot a tag; may be given more than once
    #[arg(long, value_name = "TAG", value_parser = retention::tag)]
    pub tag: Vec<String>,
    /// Note something about the snapshot
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Leave out what matches this glob; may be given more than once
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Store nothing; say what would be stored
    #[arg(long)]
    pub dry_run: bool,
    /// Read every file, also those that did not change since the last snapshot
    #[arg(long)]
    pub full_scan: bool,
    /// Compress every file apart from all others (see docs/SECURITY.md)
    #[arg(long)]
    pub separate_files: bool,
}

/// Arguments of `snapshots`.
#[derive(Debug, clap::Args)]
pub struct SnapshotsArgs {
    /// List those that were forgotten and can be brought back
    #[arg(long)]
    pub forgotten: bool,
}

/// Arguments of `ls`.
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// `latest`, the beginning of an id, a tag, or a time (`2h ago`, `2026-03-25T03:00`)
    pub snapshot: String,
    /// A directory or file in it
    pub path: Option<PathBuf>,
    /// Also show mode, size, time, and how consistent each entry is
    #[arg(short, long)]
    pub long: bool,
    /// Go into directories
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// Arguments of `cat`.
#[derive(Debug, clap::Args)]
pub struct CatArgs {
    /// `latest`, the beginning of an id, a tag, or a time
    pub snapshot: String,
    /// A file in it
    pub path: PathBuf,
}

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// List no changes, only what is not usual about them
    #[arg(long)]
    pub anomalies: bool,
    /// `latest`, the beginning of an id, a tag, or a time
    pub before: String,
    /// The other one
    pub after: String,
}

/// Arguments of `find`.
#[derive(Debug, clap::Args)]
pub struct FindArgs {
    /// A glob: one without `/` matches a name at any depth, one with `/` a path from the top
    pub glob: String,
}

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("where").args(["target", "in_place", "resume", "abandon"]).required(true))]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag")]
pub struct RestoreArgs {
    /// `latest`, the beginning of an id, a tag, or a time
    #[arg(required_unless_present_any = ["resume", "abandon"])]
    pub snapshot: Option<String>,
    /// Only these paths [default: everything]
    pub paths: Vec<PathBuf>,
    /// The directory to write into: a new or an empty one
    #[arg(long, value_name = "DIR", conflicts_with = "in_place")]
    pub target: Option<PathBuf>,
    /// Write into a directory that is not empty; what has the same name is replaced if it differs, the rest is kept
    #[arg(long, conflicts_with = "in_place")]
    pub overwrite: bool,
    /// Put it in place of what is in the data directory, after a safety backup of that
    #[arg(long)]
    pub in_place: bool,
    /// Finish a restore in place that was interrupted; what was written since is kept aside
    #[arg(long, conflicts_with_all = ["snapshot", "overwrite", "into_live", "without_safety_backup"])]
    pub resume: bool,
    /// End a restore in place that was interrupted: live data stays as it is, what was replaced is kept aside
    #[arg(long, conflicts_with_all = ["snapshot", "overwrite", "into_live", "without_safety_backup"])]
    pub abandon: bool,
    #[command(flatten)]
    pub live: LiveArgs,
}

/// Arguments of `drill`.
#[derive(Debug, clap::Args)]
pub struct DrillArgs {
    /// `latest`, the beginning of an id, a tag, or a time [default: the newest]
    pub snapshot: Option<String>,
    /// The folder to make the scratch space in, which takes as much as the files [default: beside the store]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

/// How a restore into the data directory goes about it.
#[derive(Debug, clap::Args)]
pub struct LiveArgs {
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Write through SQLite into databases that a program has open, instead of refusing; what it writes between the
    /// safety backup and that moment is lost
    #[arg(long)]
    pub into_live: bool,
    /// Go on if no safety backup of the present state can be made
    #[arg(long)]
    pub without_safety_backup: bool,
}

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// `latest`, the beginning of an id, a tag, or a time
    pub snapshot: String,
    /// The folder to make the backup's directory in [default: the backup directory]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    #[command(flatten)]
    pub form: FormArgs,
}

/// What a written backup looks like.
#[derive(Debug, Default, clap::Args)]
pub struct FormArgs {
    /// The names to use: nodyn or lynox [default: as the data directory is called]
    #[arg(long, value_name = "NAME", value_parser = dialect)]
    pub dialect: Option<Dialect>,
}

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BackupArgs {
    #[command(subcommand)]
    pub action: Option<BackupAction>,
    #[command(flatten)]
    pub create: CreateArgs,
}

/// Arguments of `backup create`.
#[derive(Debug, Default, clap::Args)]
pub struct CreateArgs {
    #[command(flatten)]
    pub form: FormArgs,
    #[command(flatten)]
    pub rate: RateArgs,
}

/// Arguments of `startup`.
#[derive(Debug, clap::Args)]
pub struct StartupArgs {
    /// The version of the application that is about to run
    #[arg(long, value_name = "VERSION")]
    pub app_version: String,
}

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What can be asked about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// List every key, its value, and where that comes from
    Show,
    /// Print a JSON schema of config.json, for editors
    Schema,
    /// Print the table of all keys, as Markdown
    Table,
}

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// For which shell
    pub shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Where they are written, one file for each command
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// What can be done with documented backups.
#[derive(Debug, Subcommand)]
pub enum BackupAction {
    /// Take a snapshot, write it as a backup, and verify what was written [this is what `backup` alone does]
    Create(CreateArgs),
    /// List the backups, the oldest first
    List,
    /// Verify a backup: files, sizes, checksums, databases
    Verify {
        /// Its name, or its path [default: the newest]
        name: Option<String>,
    },
    /// Put a backup in place of what is in the data directory, after a safety backup of that
    Restore(BackupRestoreArgs),
    /// The backups in Google Drive
    Gdrive {
        #[command(subcommand)]
        action: Gdrive,
    },
    /// Remove backups that are older than the retention
    Prune {
        /// Remove what is older than this many days; 0 removes nothing [default: backup_retention_days, or 30]
        #[arg(long, value_name = "N")]
        days: Option<u32>,
        /// Remove nothing; say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Go over all that have this path, for this one was all of those; not over any that lived beside it, or beside
        /// each other, by when their backups were made
        #[arg(long)]
        as_one: bool,
        /// The same over those of the one directory that made this backup
        #[arg(long, value_name = "BACKUP", conflicts_with = "as_one")]
        as_one_with: Option<String>,
    },
}

/// Arguments of `backup restore`.
#[derive(Debug, clap::Args)]
pub struct BackupRestoreArgs {
    /// Its name, or its path [default: the newest]
    pub name: Option<String>,
    /// Only this path, and what is below it; may be given more than once
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub only: Vec<PathBuf>,
    /// Restore a backup whose manifest nobody vouches for, as those that the application made
    #[arg(long)]
    pub allow_unsigned: bool,
    #[command(flatten)]
    pub live: LiveArgs,
}

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Read, open and verify all data
    #[arg(long)]
    pub read_data: bool,
    /// Read the data of this part of the packs only, drawn at random; implies --read-data
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub subset: Option<f64>,
}

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
#[command(after_help = STATS_HELP)]
pub struct StatsArgs {
    /// Show what these snapshots have in the store: `latest`, the beginning of an id, a tag, or a time
    #[arg(value_name = "SNAP", conflicts_with = "all")]
    pub snapshots: Vec<String>,
    /// Show what each snapshot has in the store, a line each
    #[arg(long = "snapshots")]
    pub all: bool,
}

const STATS_HELP: &str = "\
All sizes but those of the files are as stored: compressed, and each thing once. Of each snapshot it is said:

(first figure): bytes of its files

added: what it needs, and no earlier snapshot that is still there does

alone: what no other snapshot needs. Forgetting it, and then `nbak gc`, frees at most that: what another version is \
the difference from stays, and what is too small a part of its pack stays until more of that pack is waste

Of several that are named it is also said what they hold together and no other does. That is the sum or more, for \
what some of them share and no other has counts too. Forgotten snapshots count for nothing: what only they need is not \
needed. What was added on a day is counted as far as it is still needed.";

/// Arguments of `repair`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RepairArgs {
    #[command(subcommand)]
    pub what: Option<Repair>,
    /// Look for lost data in these documented backups, or folders of such, besides those in the backup directory
    #[arg(long, value_name = "DIR")]
    pub from: Vec<PathBuf>,
    /// Take no snapshot of the data directory, which would store again what is at hand
    #[arg(long)]
    pub without_snapshot: bool,
}

/// What can be repaired.
#[derive(Debug, Subcommand)]
pub enum Repair {
    /// Only make the index anew from the packs, and accept that packs are gone
    Index,
}

/// Arguments of `key`.
#[derive(Debug, clap::Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    pub action: KeyAction,
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeyAction {
    /// List the key slots
    List,
    /// Let one more key open the store
    Add(NewKey),
    /// Let a key open the store no longer
    Remove {
        /// The slot's id, or the beginning of it
        slot: String,
    },
    /// Put another key in the place of the one that is given; no data is rewritten
    Rotate(NewKey),
}

/// The key that is to open the store.
#[derive(Debug, clap::Args)]
pub struct NewKey {
    /// Read the new vault key from this file
    #[arg(long, value_name = "FILE", group = "new")]
    pub new_vault_key_file: Option<PathBuf>,
    /// Read the new vault key from what this shell command prints
    #[arg(long, value_name = "COMMAND", group = "new")]
    pub new_vault_key_command: Option<String>,
    /// Read a new passphrase from the first line of this file
    #[arg(long, value_name = "FILE", group = "new")]
    pub new_passphrase_file: Option<PathBuf>,
    /// What to call it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub label: String,
}

fn dialect(text: &str) -> Result<Dialect, String> {
    Dialect::parse(text).ok_or_else(|| "it is nodyn or lynox".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| "not a percentage".to_owned())?;
    if number > 0.0 && number <= 100.0 { Ok(number) } else { Err("a percentage is above 0 and up to 100".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        assert_eq!(percent("10%"), Ok(10.0));
        assert!(percent("0").is_err() && percent("101").is_err() && percent("x").is_err());
    }
}
