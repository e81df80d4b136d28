//! Whether another data directory with the same path writes to the store.
//!
//! A path is all that a data directory without a name is known by, and in a container it is the same each time: two of
//! them in one store are one to it, and each one's retention goes over both. No snapshot says which of them it is of.
//! But each directory remembers its own newest ([`remembered`](super::remembered)), and if the store has a newer one of
//! the same path by then, somebody else took that.
//!
//! What is no sign: a directory that remembers nothing, as one that was restored on a new machine; one that goes on
//! elsewhere with what it remembered; a snapshot that was promised and of which the promise alone is known, since the
//! process ended before it noted the rest; packs that were away and are back, since what was taken meanwhile is newer
//! by the clock. A directory that was set back together with what it remembers, as that of a virtual machine may be,
//! cannot be told from two: it is one alarm, and then it goes on from there. Two that alternate are noticed each time.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::snapshot::record::Record;
use crate::snapshot::store::Store;

/// So long it counts that another was noticed, in milliseconds: longer than the time between two snapshots of whoever
/// takes one in a week.
const COUNTS_MS: i64 = 14 * 86_400_000;
/// What is to be done about it.
pub const REMEDY: &str = "give each a name of its own (`nbak.name` in config.json, or NBAK_NAME), or its own store and \
                          folder of backups; if all is of this one, which was set back, `--as-one` with `forget` says \
                          so and ends this, as `nbak repair index` does, and `backup prune` takes it too";

/// The newest snapshot that is one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    id: String,
    number: u64,
    /// One that was about to be committed, and may be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    coming: Option<String>,
}

/// Another that was noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    at: i64,
    source: String,
    own: String,
    its: String,
}

impl Newest {
    /// The newest in `store` that is known as `source`, all of which are one's own by now.
    pub fn of(store: &Store, source: &str) -> Result<Option<Newest>> {
        let head = store.head()?;
        let found = head.newest_of(source);
        Ok(found.map(|one| Newest { id: one.id.to_string(), number: one.sequence, coming: None }))
    }

    /// The same, when the snapshot `id` is about to be committed.
    #[must_use]
    pub fn before(self, id: String) -> Newest {
        Newest { coming: Some(id), ..self }
    }

    /// That `store` has a newer one that is known as `source`, if it does, noticed at `now`.
    pub fn other(&self, store: &Store, source: &str, now: i64) -> Result<Option<Other>> {
        let head = store.head()?;
        let is_own = |id: &str| id == self.id || self.coming.as_deref() == Some(id);
        let is_other = |one: &&Record| one.sequence > self.number && !is_own(&one.id.to_string());
        let Some(found) = head.newest_of(source).filter(is_other) else { return Ok(None) };
        let its = found.id.to_string();
        Ok(Some(Other { at: now, source: source.to_owned(), own: self.id.clone(), its }))
    }
}

impl Other {
    /// Whether it still counts at `now` for what is known as `source`.
    pub fn counts(&self, source: &str, now: i64) -> bool {
        self.source == source && now.saturating_sub(self.at) < COUNTS_MS
    }

    /// What was noticed, in words.
    pub fn text(&self) -> String {
        let short = |id: &str| id.get(..8).unwrap_or(id).to_owned();
        format!(
            "another data directory with the same path writes to this store, or this one was set back: snapshot {} of \
             {} is newer than {}, the newest that this one knows as its own",
            short(&self.its),
            self.source,
            short(&self.own)
        )
    }

    /// That something is not done for it.
    pub fn refusal(&self, what: &str) -> Error {
        Error::failed(self.text()).hint(format!("{REMEDY}; {what}"))
    }
}
