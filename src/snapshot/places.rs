//! Where things are that belong together: the data directory, its backups, its store.
//!
//! The store and the backups usually lie in the data directory, and must not be captured with it.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The folders of one data directory.
#[derive(Debug, Clone)]
pub struct Places {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where its documented backups are.
    pub backup_dir: PathBuf,
    /// Its store.
    pub repo: PathBuf,
}

impl Places {
    /// Absolute paths within the data directory that are this program's own, and what they are. Both as they are called
    /// and as they really lie: either may be what a walk meets.
    pub fn own_folders(&self) -> Result<Vec<(PathBuf, &'static str)>> {
        let source = real(&self.data_dir);
        if source == real(&self.repo) {
            return Err(Error::usage("the store cannot be the data directory itself")
                .at(&self.repo)
                .hint("name another with --repo"));
        }
        let mut folders = Vec::new();
        for (path, what) in [(&self.backup_dir, "backups of this directory"), (&self.repo, "the store itself")] {
            let really = real(path);
            if really == source {
                continue;
            }
            folders.push((really, what));
            if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                folders.push((real(parent).join(name), what));
            }
        }
        folders.push((source.join("backups"), "backups of this directory"));
        Ok(folders)
    }
}

/// The path with all links followed, as far as it exists.
pub fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    for above in path.ancestors() {
        if let Ok(found) = above.canonicalize() {
            return found.join(path.strip_prefix(above).unwrap_or(Path::new("")));
        }
    }
    path
}
