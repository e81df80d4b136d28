//! Folders that their owner may not write, opened while a restore puts, moves or removes something in them.
//!
//! A mode of 0555 keeps its owner from an accident, and not from a restore that asks for the safety backup and the
//! journal first. Which folders that are, and the mode of each, is in the journal before any is opened: whoever
//! finishes the restore, or gives it up, closes them again. What is not their owner's to open, and what a mode is not
//! the reason for, is refused before anything is changed.
//!
//! A database is taken before there is a journal, and SQLite writes beside it for that. So one that is to be replaced
//! in such a folder is refused as well.

use std::path::Path;

use rustix::io::Errno;
use rustix::process::geteuid;

use super::intent::{Intent, Name, Opened};
use super::root::{Kind, Root, Seen};
use crate::error::words::word;
use crate::error::{Error, Result};

/// Of a mode: the owner may write.
const WRITE: u32 = 0o200;
/// Of a mode: the owner may list it, and look at what is in it. Without these nothing can be told of it.
const LOOK: u32 = 0o500;
/// Of a mode: what is set for a user, a group and others, without the set-id and sticky bits.
const PERMISSIONS: u32 = 0o777;

/// Notes that something is put, moved or removed in the live folder at `path`. Fails if it may not be written, and
/// cannot be opened.
pub fn writes_in(root: &Root, intent: &mut Intent, path: &Path) -> Result<()> {
    let Some(seen) = root.seen(path)?.filter(|seen| seen.kind == Kind::Folder) else { return Ok(()) };
    let Err(error) = root.may_write(path) else { return Ok(()) };
    // No other reason goes with the mode.
    let is_mine = seen.owner.0 == geteuid().as_raw() && !path.as_os_str().is_empty();
    if error == Errno::ACCESS && is_mine && seen.mode & (LOOK | WRITE) == LOOK {
        intent.opened.push(Opened { path: Name(path.to_path_buf()), mode: seen.mode });
        return Ok(());
    }
    Err(Error::failed(format!("this folder may not be written ({})", std::io::Error::from(error)))
        .at(root.place(path))
        .hint("change its mode, or restore as its owner; nothing was changed"))
}

/// Fails if the live database at `path` is in a folder that is to be opened.
pub fn refuse_database(root: &Root, intent: &Intent, path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    if !intent.opened.iter().any(|one| one.path.0 == folder) {
        return Ok(());
    }
    let place = root.place(folder);
    let next = word(&place).map_or("let its owner write to it".to_owned(), |word| format!("`chmod u+w {word}`"));
    Err(Error::failed("this folder may not be written, and a database in it is to be replaced")
        .at(place)
        .hint(format!("{next}, and restore again; nothing was changed")))
}

impl Opened {
    /// What is to be set to open it: nothing if it has another mode by now.
    pub fn to_open(&self, now: Option<Seen>) -> Option<(u32, Seen)> {
        now.filter(|now| has(*now, self.mode)).map(|now| (self.mode | WRITE, now))
    }

    /// What is to be set to close it again: nothing if it has another mode by now.
    pub fn to_close(&self, now: Option<Seen>) -> Option<(u32, Seen)> {
        now.filter(|now| has(*now, self.mode | WRITE)).map(|now| (self.mode, now))
    }
}

/// Whether it is a folder of that mode. The kernel takes the bit of a group that is not the caller's.
fn has(seen: Seen, mode: u32) -> bool {
    seen.kind == Kind::Folder && seen.mode & PERMISSIONS == mode & PERMISSIONS
}
