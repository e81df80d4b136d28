//! What is left out of a snapshot, each with its reason.
//!
//! Everything in the data directory is captured unless this table, or a glob that the user gave, says why not. A fixed
//! list of what to *include* forgot stores that later versions of the application added; a list of what to leave
//! out fails the other way round.
//!
//! Key files are left out at the top of the data directory only: further down, a file of the same name is somebody's
//! work. Sidecars of databases are not in the table: which file is one is known when its database was captured.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Names at the top of the data directory that are left out, and why. A `*` stands for any characters.
pub const TABLE: &[(&str, &str)] = &[
    (".env", "holds the vault key: a backup that carries its own key protects nothing"),
    ("vault.key", "holds the vault key: a backup that carries its own key protects nothing"),
    ("secrets.json", "holds credentials in the clear"),
    ("http-secret", "holds a credential in the clear; the application makes a new one"),
    (".last_version", "says which version ran last; restored, it would hide an update"),
    ("*.lock", "a running process's lock"),
    ("*.pid", "a running process's number"),
    (".nbak-*", "this program's own scratch space"),
];

/// What is said of a glob that begins with `!`, as it would with git. Taken for a name it would mean nothing, and what
/// somebody wants to keep would be left out without a word.
pub const NO_EXCEPTION: &str = "a `!` makes no exception: what another glob leaves out stays out (`\\!` begins a name)";

/// Decides what is left out.
pub struct Exclusions {
    folders: Vec<(PathBuf, &'static str)>,
    globs: GlobSet,
    patterns: Vec<String>,
    despite: BTreeSet<PathBuf>,
}

impl Exclusions {
    /// `folders` are absolute paths of this program's own stores and backups; `patterns` are globs on paths relative
    /// to the data directory, where one without a `/` matches a name at any depth.
    pub fn new(folders: Vec<(PathBuf, &'static str)>, patterns: &[String]) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let trimmed = pattern.trim_start_matches("./").trim_end_matches('/');
            let anchored = match trimmed.strip_prefix('/') {
                Some(rest) => rest.to_owned(),
                None if trimmed.contains('/') => trimmed.to_owned(),
                None => format!("**/{trimmed}"),
            };
            set.add(GlobBuilder::new(&anchored).literal_separator(true).build()?);
        }
        // As they are compared: without a slash at the end.
        let folders = folders.into_iter().map(|(folder, reason)| (folder.components().collect(), reason)).collect();
        Ok(Exclusions { folders, globs: set.build()?, patterns: patterns.to_vec(), despite: BTreeSet::new() })
    }

    /// The same, but for the entries at `despite`, which no glob leaves out, nor the folders above them. What else is
    /// in a folder that is not left out for their sake still is, each entry by itself.
    #[must_use]
    pub fn despite(self, despite: BTreeSet<PathBuf>) -> Exclusions {
        Exclusions { despite, ..self }
    }

    /// Which glob leaves out the entry at `relative`, or a folder above it; nothing if none does.
    pub fn by_glob(&self, relative: &Path) -> Option<&str> {
        if self.globs.is_empty() {
            return None;
        }
        let above = relative.ancestors().filter(|path| !path.as_os_str().is_empty());
        above.into_iter().find_map(|path| self.hit(path))
    }

    fn hit(&self, relative: &Path) -> Option<&str> {
        self.globs.matches(relative).first().map(|&at| self.patterns[at].as_str())
    }

    /// Why the entry at `relative` of the data directory `root` is left out; nothing if it is not.
    pub fn reason(&self, relative: &Path, root: &Path) -> Option<String> {
        let name = relative.as_os_str().as_bytes();
        // Its end decides nearly always, and is at hand.
        let is_it = |folder: &Path| folder.as_os_str().as_bytes().ends_with(name) && *folder == *root.join(relative);
        if let Some((_, reason)) = self.folders.iter().find(|(folder, _)| is_it(folder)) {
            return Some((*reason).to_owned());
        }
        if !name.contains(&b'/')
            && let Some(reason) = of_table(name)
        {
            return Some(reason.to_owned());
        }
        if self.globs.is_empty() {
            return None;
        }
        let pattern = if self.despite.is_empty() {
            // What is below a folder that is left out is never asked for.
            self.hit(relative)
        } else {
            // What is below a path follows it at once.
            let next = self.despite.range::<Path, _>((Bound::Included(relative), Bound::Unbounded)).next();
            if next.is_some_and(|path| path.starts_with(relative)) { None } else { self.by_glob(relative) }
        };
        pattern.map(|pattern| format!("excluded by {pattern}"))
    }
}

/// Why the table leaves out what is called `name` at the top of the data directory; nothing if it does not.
pub fn of_table(name: &[u8]) -> Option<&'static str> {
    TABLE.iter().find(|(pattern, _)| matches(pattern.as_bytes(), name)).map(|(_, reason)| *reason)
}

/// Patterns of the table: one `*`, at the start or at the end, or none.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.strip_prefix(b"*"), pattern.strip_suffix(b"*")) {
        (Some(end), _) => name.ends_with(end),
        (_, Some(start)) => name.starts_with(start),
        _ => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(patterns: &[&str], path: &str) -> Option<String> {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        let folders = vec![(PathBuf::from("/data//backups/"), "backups")];
        let exclusions = Exclusions::new(folders, &patterns).expect("globs that parse");
        exclusions.reason(Path::new(path), Path::new("/data"))
    }

    #[test]
    fn the_table_is_about_the_top_only() {
        for name in [".env", "vault.key", "app.lock", "app.pid", ".nbak-scratch-7", "backups"] {
            assert!(reason(&[], name).is_some(), "{name}");
        }
        for name in ["workspace/.env", "workspace/Cargo.lock", "history.db", "lock", "env"] {
            assert_eq!(reason(&[], name), None, "{name}");
        }
    }

    #[test]
    fn globs_match_names_or_paths() {
        assert!(reason(&["*.tmp"], "a/b/c.tmp").is_some());
        assert!(reason(&["cache/"], "a/cache").is_some());
        assert!(reason(&["/cache"], "a/cache").is_none());
        assert!(reason(&["a/*.txt"], "a/b.txt").is_some());
        assert!(reason(&["a/*.txt"], "a/b/c.txt").is_none());
        assert!(reason(&["a/**"], "a/b/c.txt").is_some());
    }

    #[test]
    fn what_is_wanted_all_the_same_takes_nothing_else_along() {
        let patterns = ["cache/", "*.tmp"].map(str::to_owned);
        let exclusions = Exclusions::new(Vec::new(), &patterns).expect("globs that parse");
        assert_eq!(exclusions.by_glob(Path::new("a/cache/b/c")), Some("cache/"));
        assert_eq!(exclusions.by_glob(Path::new("a/b")), None);
        let exclusions = exclusions.despite(["a/cache/b/c", "x.tmp"].map(PathBuf::from).into());
        let is_out = |path: &str| exclusions.reason(Path::new(path), Path::new("/data")).is_some();
        for path in ["a", "a/cache", "a/cache/b", "a/cache/b/c", "x.tmp", "a/x"] {
            assert!(!is_out(path), "{path}");
        }
        for path in ["cache", "a/cache/b/c2", "a/cache/b/c/d", "a/cache/a", "y.tmp", "a/x.tmp", "vault.key"] {
            assert!(is_out(path), "{path}");
        }
    }
}
