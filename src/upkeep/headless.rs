//! Databases that are none any more.
//!
//! What makes a file a database to all who look at it is its first page. If that is damaged, it is a file like any
//! other: it is captured byte for byte, restored so, and nothing says that it is lost but that it was a database
//! before.

use std::path::PathBuf;

use crate::error::Result;
use crate::snapshot::diff::{Change, diff};
use crate::snapshot::look::head;
use crate::snapshot::record::Record;
use crate::snapshot::store::Store;
use crate::snapshot::tree::{Consistency, Content, Entry, Node};
use crate::source::sqlite::{HEADER_BYTES, looks_like_database};

/// The databases of `before` in whose place `after` has a file without a database's header.
pub fn headless(store: &Store, before: &Record, after: &Record) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    diff(store, before, after, &mut |path, change| {
        let Change::Content(old, new) = change else { return Ok(()) };
        if file(&old).is_some_and(|(_, consistency, _)| consistency == Consistency::Transaction)
            && let Some((size, consistency, content)) = file(&new)
            && consistency != Consistency::Transaction
        {
            // One that was kept as bytes, since it was written to all the time, has its header.
            let head = head(store, size, content, HEADER_BYTES)?;
            found.extend(looks_like_database(&head).is_none().then_some(path));
        }
        Ok(())
    })?;
    Ok(found)
}

fn file(entry: &Entry) -> Option<(u64, Consistency, &Content)> {
    let Node::File { size, consistency, content } = &entry.node else { return None };
    Some((*size, *consistency, content))
}
