//! What is typed after `auth`, `gdrive` and `backup gdrive`.
//!
//! Help texts are read from the comments here.

use clap::Subcommand;

use super::BackupRestoreArgs;

/// Arguments of `auth`.
#[derive(Debug, clap::Args)]
pub struct AuthArgs {
    #[command(subcommand)]
    pub action: Auth,
}

/// What can be done about access.
#[derive(Debug, Subcommand)]
pub enum Auth {
    /// Let this program put files into your Google Drive, and see those files only
    Google {
        /// Show a code to type on another device, for servers and containers without a browser
        #[arg(long)]
        device: bool,
    },
    /// Say whether there is access, and ask Google whether it still holds
    Status {
        /// Ask nobody
        #[arg(long)]
        offline: bool,
    },
    /// Take the access back, at Google and here
    Revoke,
}

/// Arguments of `gdrive`.
#[derive(Debug, clap::Args)]
pub struct StoreCopyArgs {
    #[command(subcommand)]
    pub action: StoreCopy,
}

/// Which way the store goes.
#[derive(Debug, Subcommand)]
pub enum StoreCopy {
    /// List the stores in Google Drive
    List,
    /// Copy to Google Drive what of the store is not there yet
    Push(PushArgs),
    /// Make the store on this machine from the copy in Google Drive, or bring it up to date
    Pull {
        /// The store's id, or the beginning of it, if there are several
        #[arg(long, value_name = "ID")]
        store: Option<String>,
        #[command(flatten)]
        rate: RateArgs,
    },
}

/// Arguments of `gdrive push`.
#[derive(Debug, clap::Args)]
pub struct PushArgs {
    /// Compare what is there already by its checksum too, which reads the whole store here
    #[arg(long)]
    pub read_data: bool,
    /// Remove there what was in this store and is not any more, since `gc` removed it; what never was, after a week
    #[arg(long)]
    pub prune: bool,
    #[command(flatten)]
    pub rate: RateArgs,
}

/// What can be done with backups in Google Drive.
#[derive(Debug, Subcommand)]
pub enum Gdrive {
    /// List them, the oldest first
    List,
    /// Upload a backup
    Upload {
        /// Its name, or its path [default: the newest]
        name: Option<String>,
        #[command(flatten)]
        rate: RateArgs,
    },
    /// Download one and put it in place of what is in the data directory, after a safety backup of that
    Restore {
        #[command(flatten)]
        restore: BackupRestoreArgs,
        #[command(flatten)]
        rate: RateArgs,
    },
    /// Hold one against its manifest, by the sizes and checksums that Google Drive has; nothing is downloaded
    Verify {
        /// Its name, or its id [default: the newest]
        name: Option<String>,
    },
    /// Remove those of this machine that are older than the retention, never the newest complete one
    Prune {
        /// Of every machine that shares the account; the newest complete one of each stays
        #[arg(long)]
        every_machine: bool,
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
    },
}

/// How fast bytes go to and from Google Drive.
#[derive(Debug, Default, clap::Args)]
pub struct RateArgs {
    /// Send to Google Drive, and receive from it, at most so many bytes a second: `500k`, `2M`
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub limit_rate: Option<u64>,
}

/// A number of bytes: with `k`, `M` or `G` for thousands, millions and thousands of millions.
fn rate(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| "write it as 500k, 2M or 1G".to_owned())?;
    number.checked_mul(factor).filter(|rate| *rate >= 1000).ok_or_else(|| "it is below 1k, or too large".to_owned())
}
