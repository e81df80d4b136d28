//! Whether anybody wrote to what a restore is about to replace, since its safety backup was begun.
//!
//! A safety backup takes seconds to minutes. What is written to the live directory meanwhile may not be in it, and
//! would be gone with the exchange. So stamps are taken before, and held against those right before the first change
//! (I16).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::snapshot::sidecar::sidecars;
use crate::source::handle::FileHandle;
use crate::source::sqlite::{HEADER_BYTES, looks_like_database};
use crate::source::walk::{Stamp, stamp};

/// What stood in the live directory, of what is to be replaced, before the safety backup was made.
pub(super) struct Live(BTreeMap<PathBuf, Option<Stamp>>);

impl Live {
    /// Looks at the live versions of what is staged, and at the logs and journals beside them.
    pub(super) fn look(data: &Path, staged: &Path) -> Result<Live> {
        let mut all = BTreeMap::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let place = staged.join(&folder);
            let failed = |error| Error::io("list what is staged", &place, error);
            for entry in std::fs::read_dir(&place).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let path = folder.join(entry.file_name());
                if entry.file_type().map_err(failed)?.is_dir() {
                    folders.push(path);
                    continue;
                }
                let [log, _, journal] = sidecars(&path);
                for path in [path, log, journal] {
                    let meta = std::fs::symlink_metadata(data.join(&path)).ok().filter(|meta| !meta.is_dir());
                    // An empty log says nothing: a reader may have made it.
                    let meta = meta.filter(|meta| meta.len() > 0);
                    // SQLite gives a log its owner and mode anew when it opens it, which is no change of what is in it.
                    all.insert(path, meta.map(|meta| Stamp { ctime: 0, ..stamp(&meta) }));
                }
            }
        }
        Ok(Live(all))
    }

    /// Fails if anything was written since. With `into_live` a program is known to, and its databases are let be.
    pub(super) fn recheck(&self, data: &Path, staged: &Path, into_live: bool) -> Result<()> {
        let now = Live::look(data, staged)?;
        let base = |path: &Path| {
            let name = path.as_os_str().as_bytes();
            let base = [&b"-wal"[..], b"-journal"].iter().find_map(|end| name.strip_suffix(*end)).unwrap_or(name);
            PathBuf::from(OsStr::from_bytes(base))
        };
        let is_expected = |path: &Path| {
            let base = base(path);
            let mut head = [0; HEADER_BYTES];
            let read = FileHandle::open(&data.join(&base)).and_then(|file| file.read_at(&mut head, 0));
            let is_database = read.is_ok_and(|got| looks_like_database(&head[..got]).is_some());
            // A hot journal was rolled back for the safety backup: that was us.
            let [.., journal] = sidecars(&base);
            is_database && (into_live || self.0.get(&journal).is_some_and(Option::is_some))
        };
        let mut changed = self.0.iter().filter(|(path, before)| now.0.get(*path) != Some(*before));
        match changed.find(|(path, _)| !is_expected(path)) {
            None => Ok(()),
            Some((path, _)) => Err(Error::locked("a program wrote to this file while the safety backup was made")
                .at(data.join(path))
                .hint("what it wrote would be lost: stop the application, and restore again; nothing was changed")),
        }
    }
}
