//! A snapshot that is asked for: how, of what, into which store; and what comes of it.
//!
//! The steps that it takes lie in other files, each with its part of [`Taking`]; [`super::take`] puts them in order.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use super::captured::Opening;
use super::contents::Listed;
use super::lack::Beside;
use super::now::Moment;
use super::record::Record;
use super::scratch::Scratch;
use super::store::Store;
use crate::error::SourceError;
use crate::source::clock::Clock;
use crate::source::exclude::Exclusions;
use crate::source::mounts::Mounts;
use crate::source::sqlite::HotJournal;
use crate::source::top::Top;

/// What to take, and how.
#[expect(clippy::struct_excessive_bools, reason = "choices that do not depend on each other")]
#[derive(Debug, Default, Clone)]
pub struct Options {
    /// The data directory.
    pub source: PathBuf,
    /// What the operator calls it, if anything.
    pub name: Option<String>,
    /// Globs that are left out.
    pub exclude: Vec<String>,
    /// Paths, relative to the data directory, that are captured although a glob leaves them out.
    pub despite: BTreeSet<PathBuf>,
    /// Absolute paths of stores and backups within the data directory, and what they are.
    pub own_folders: Vec<(PathBuf, &'static str)>,
    /// Tags.
    pub tags: Vec<String>,
    /// A note.
    pub note: Option<String>,
    /// Store nothing; say what would be.
    pub dry_run: bool,
    /// Read everything, whatever the receipts say.
    pub full_scan: bool,
    /// Compress every file apart from all others.
    pub separate_files: bool,
    /// List what was captured also where nothing changed, which takes a little longer.
    pub list: bool,
    /// Whether a restore in place exchanged files meanwhile: then the record says so.
    pub beside: Beside,
}

/// What came of it.
#[derive(Debug)]
pub struct Taken {
    /// The snapshot; when nothing changed, the one that already holds everything.
    pub record: Record,
    /// Nothing changed, and nothing was stored.
    pub unchanged: bool,
    /// One walk showed it: nothing else was looked at but files that are too young to rely on their stamps.
    pub at_a_glance: bool,
    /// Entries in folders that were taken over whole, as the last walk saw them.
    pub taken_over: u64,
    /// Chunks of data that the store did not have.
    pub new_chunks: u64,
    /// Their bytes before compression.
    pub new_bytes: u64,
    /// Bytes that the packs grew by, all metadata included; the index, a cache, is not counted.
    pub stored_bytes: u64,
    /// Files that are new or whose content changed.
    pub changed_files: u64,
    /// What was captured; where no list is wanted, without what is in folders that were taken over, and nothing if
    /// nothing changed.
    pub entries: Vec<Listed>,
    /// What could not be captured, and first of all whether it is a mixture ([`super::lack`]).
    pub unreadable: Vec<SourceError>,
    /// What is worth knowing besides.
    pub remarks: Vec<String>,
    /// What was left out, and why.
    pub excluded: Vec<(PathBuf, String)>,
    /// From the first to the last look at the data, in milliseconds.
    pub cut_ms: u64,
}

/// One that is under way.
pub(super) struct Taking<'a> {
    pub(super) store: &'a mut Store,
    pub(super) options: &'a Options,
    pub(super) exclusions: Exclusions,
    pub(super) scratch: Scratch,
    /// The data directory, by the name that it has by itself.
    pub(super) source: PathBuf,
    /// The same, held open.
    pub(super) top: Top,
    /// What was mounted below it when this began.
    pub(super) mounts: Mounts,
    pub(super) remarks: RefCell<Vec<String>>,
    /// The clock of the files.
    pub(super) clock: Clock,
    /// When it began, by that.
    pub(super) since: i128,
    /// When it began, in nanoseconds since 1970.
    pub(super) began: i128,
    /// Since when the clock went evenly, likewise.
    pub(super) steady: i128,
    /// How far it was ahead of one that nobody sets when this began ([`super::steady`]).
    pub(super) ahead: i128,
}

impl Taking<'_> {
    /// When it began.
    pub(super) fn moment(&self) -> Moment {
        // How evenly another machine's clock goes is not known.
        let steady = if self.clock.is_ours() { self.steady } else { i128::MIN };
        Moment { began: self.since, steady }
    }

    /// Does what it takes to open a database of the data directory.
    pub(super) fn opening<T>(&self, act: impl FnOnce(&Opening<'_>) -> T) -> T {
        let hot = if self.options.dry_run { HotJournal::Leave } else { HotJournal::RollBack };
        act(&Opening { source: &self.source, through: self.top.through(), scratch: &|| self.scratch.folder(), hot })
    }
}
