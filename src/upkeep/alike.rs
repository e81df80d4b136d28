//! Whether another data directory with the same path writes to the store.
//!
//! A path is all that a data directory without a name is known by, and in a container it is the same each time: two of
//! them in one store are one to it, and each one's retention goes over both. No snapshot says which of them it is of.
//! But each directory remembers its own newest ([`remembered`](super::remembered)), and each record has which one that
//! was ([`Record::follows`]). If the store has a newer one of the same path, and it does not follow the one that is
//! remembered, nor follows one that does, somebody else took that.
//!
//! What is no sign: a directory that remembers nothing, as one that was restored on a new machine; one that goes on
//! elsewhere with what it remembered; a memory that could not be kept, or was lost, or was set back together with its
//! directory, since what was taken after it follows it all the same; packs that were away and are back, since what was
//! taken meanwhile is newer by the clock. A copy with a memory of its own is known for another one by the second
//! snapshot that the two take in turn. Nothing of this is synced, or needs to be.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::SnapshotId;
use crate::snapshot::record::Record;
use crate::snapshot::store::Store;

/// What is to be done about it.
pub const REMEDY: &str = "give each a name of its own (`nbak.name` in config.json, or NBAK_NAME), or its own store and \
                          folder of backups; if all is of this one, `--as-one` with `forget` says \
                          so and ends this, as `nbak repair index` does, and `backup prune` takes it too";

/// The newest snapshot that is one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    id: String,
    number: u64,
}

/// Another that was noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    source: String,
    own: String,
    its: String,
}

impl Newest {
    /// The newest in `store` that is known as `source`, all of which are one's own by now.
    pub fn of(store: &Store, source: &str) -> Result<Option<Newest>> {
        let head = store.head()?;
        let found = head.newest_of(source);
        Ok(found.map(|one| Newest { id: one.id.to_string(), number: one.sequence }))
    }

    /// Its id.
    pub fn id(&self) -> Option<SnapshotId> {
        SnapshotId::parse(&self.id).ok()
    }

    /// That `store` has a newer one that is known as `source` and somebody else took, if it has.
    pub fn other(&self, store: &Store, source: &str) -> Result<Option<Other>> {
        let head = store.head()?;
        let is_newer = |one: &&Record| one.sequence > self.number && one.id.to_string() != self.id;
        let Some(found) = head.newest_of(source).filter(is_newer) else { return Ok(None) };
        if self.leads_to(found, store)? {
            return Ok(None);
        }
        let its = found.id.to_string();
        Ok(Some(Other { source: source.to_owned(), own: self.id.clone(), its }))
    }
}

impl Newest {
    /// Whether `found` was taken by who remembered this one, or remembered one that was.
    fn leads_to(&self, found: &Record, store: &Store) -> Result<bool> {
        let own = self.id();
        // After a memory that was not kept once: no history has to be read for it.
        if own.is_some() && found.follows == own {
            return Ok(true);
        }
        let before: HashMap<SnapshotId, SnapshotId> =
            store.history()?.known().iter().filter_map(|one| Some((one.record.id, one.record.follows?))).collect();
        let (mut at, mut seen) = (Some(found.id), HashSet::new());
        while let Some(id) = at.filter(|id| seen.insert(*id)) {
            if Some(id) == own {
                return Ok(true);
            }
            at = before.get(&id).copied();
        }
        Ok(false)
    }
}

impl Other {
    /// Whether it is about what is known as `source`. It counts until a person says what it is: that the other one is
    /// silent does not mean that its snapshots may go, and a clock may be wrong.
    pub fn is_of(&self, source: &str) -> bool {
        self.source == source
    }

    /// What was noticed, in words.
    pub fn text(&self) -> String {
        let short = |id: &str| id.get(..8).unwrap_or(id).to_owned();
        format!(
            "another data directory with the same path writes to this store: snapshot {} of {} is newer than {}, the \
             newest that this one knows as its own, and does not follow it",
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
