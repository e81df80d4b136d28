//! What stands in a target already, and would be taken for a part of what is restored beside it.
//!
//! A log or a journal is played into the file whose name it has, whoever put it there; and of two knowledge graphs
//! nothing may stand side by side. So a restore over what is there is refused where that would come of it, before
//! anything is written.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::graph::{GRAPH, is_graph, is_whole};
use super::sidecar::{Sidecar, is_log, sidecars};
use super::target::{Standing, Target};
use crate::error::{Error, Result};
use crate::source::holders::{Whose, holders, in_words};

/// What is restored, and where to.
pub(super) struct Beside<'a> {
    pub target: &'a Target,
    pub restored: &'a HashSet<&'a Path>,
}

impl Beside<'_> {
    /// Fails if what stands beside the file at `path`, and stays, would be played into it. What is encrypted by itself
    /// is told to be a database by its log.
    pub fn of_file(&self, path: &Path, is_database: bool) -> Result<()> {
        let stays = |beside: &PathBuf| {
            let is_foreign = || !self.restored.contains(beside.as_path()) && is_log(&self.target.place(beside));
            self.target.exists(beside) && (is_database || is_foreign())
        };
        match sidecars(path).iter().find(|beside| stays(beside)) {
            None => Ok(()),
            Some(beside) => {
                Err(Error::failed("a sidecar of a database stands in the target: the database may be in use")
                    .at(self.target.place(beside))
                    .hint(
                        "stop what has it open (one that only looked may have left this: then remove it), or restore \
                         into another directory; nothing was changed",
                    ))
            }
        }
    }

    /// Fails if a program has the file open that is to be written at `path`, and that is a database by what lies beside
    /// it: it would go on with what is gone.
    pub fn of_programs(&self, path: &Path) -> Result<()> {
        if !sidecars(path).iter().any(|beside| self.target.exists(beside)) {
            return Ok(());
        }
        let Ok(meta) = std::fs::symlink_metadata(self.target.place(path)) else { return Ok(()) };
        let open = holders(&[(meta.dev(), meta.ino())], Whose::Anybody);
        match open.into_values().next() {
            None => Ok(()),
            Some(who) => Err(Error::locked(format!("a database that is to be replaced is open in {}", in_words(&who)))
                .at(self.target.place(path))
                .hint("stop it, or restore into another directory; nothing was changed")),
        }
    }

    /// Fails if one of `logs`, whose files are not restored, would be played into what stands there.
    pub fn of_logs(&self, logs: &[PathBuf]) -> Result<()> {
        for log in logs {
            let Some((_, base)) = Sidecar::named(log) else { continue };
            if self.target.standing(&base) == Standing::Other {
                return Err(Error::failed(
                    "this stands in the target, and the log of another one is to come beside it",
                )
                .at(self.target.place(&base))
                .hint("move it away first, or restore into another directory; nothing was changed"));
            }
        }
        Ok(())
    }

    /// Fails if a knowledge graph comes to stand with what is left of another. `asked` is what is restored, or nothing
    /// for everything.
    pub fn of_graph(&self, asked: &[PathBuf]) -> Result<()> {
        let is_about_it = asked.is_empty() || asked.iter().any(|path| is_whole(path));
        if !is_about_it || !self.restored.iter().any(|path| is_graph(path)) {
            return Ok(());
        }
        let mut waiting: Vec<PathBuf> =
            self.target.names(Path::new("")).into_iter().filter(|top| is_graph(top)).collect();
        while let Some(path) = waiting.pop() {
            if !self.restored.contains(path.as_path()) {
                return Err(Error::failed("this is of another knowledge graph than the one that is restored")
                    .at(self.target.place(&path))
                    .hint(format!(
                        "move it away first, with all that is called {GRAPH}, or restore into another directory; \
                         nothing was changed"
                    )));
            }
            if self.target.standing(&path) == Standing::Directory {
                waiting.extend(self.target.names(&path));
            }
        }
        Ok(())
    }
}
