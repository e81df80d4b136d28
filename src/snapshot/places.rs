//! Where things are that belong together: the data directory, its backups, its store.
//!
//! The store and the backups usually lie in the data directory, and must not be captured with it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::source::named;

/// The folders of one data directory.
#[derive(Debug, Clone)]
pub struct Places {
    /// What the operator calls it, if anything.
    pub name: Option<String>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where its documented backups are.
    pub backup_dir: PathBuf,
    /// Its store.
    pub repo: PathBuf,
}

/// What the snapshots of the data directory `path`, which is absolute, are known by: its path, behind the `name` that
/// the operator gave it, if there is one. Different paths are known by different words, also where they are no text: an
/// absolute path never begins like those do, nor like a name.
pub fn known_as(name: Option<&str>, path: &Path) -> String {
    let path = name_of_source(path);
    name.map_or_else(|| path.clone(), |name| format!("{name}:{path}"))
}

/// The words for the path alone.
pub fn name_of_source(path: &Path) -> String {
    if let Some(text) = path.to_str() {
        return text.to_owned();
    }
    let mut name = format!("{}:", named::BYTES);
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        name.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            let _ = write!(name, "\\x{byte:02x}");
        }
    }
    name
}

/// Where the data directory lies that is known as `known`: what [`known_as`] made words of.
pub fn source_of_name(known: &str) -> PathBuf {
    let (_, path) = named::split(known);
    let Some(escaped) = path.strip_prefix(named::BYTES).and_then(|rest| rest.strip_prefix(':')) else {
        return PathBuf::from(path);
    };
    let (mut bytes, mut rest) = (Vec::new(), escaped.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let byte = after.strip_prefix(b"x").and_then(|hex| hex.get(..2));
        let byte = byte.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        let (byte, length) = match (first, byte) {
            (b'\\', Some(byte)) => (byte, 4),
            (b'\\', None) => (b'\\', 2),
            (byte, _) => (*byte, 1),
        };
        bytes.push(byte);
        rest = rest.get(length..).unwrap_or_default();
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Whether what is written to the folder `target` may land in `data`: it is that, contains it, or lies within it.
///
/// A folder can have several paths (a bind mount gives it another), so that folders are also compared by what they are:
/// those above both, and those in `data`, since one of them alone may be what is mounted elsewhere.
pub fn meet(target: &Path, data: &Path) -> bool {
    let (target, data) = (real(target), real(data));
    if target.starts_with(&data) || data.starts_with(&target) {
        return true;
    }
    let which = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let above: HashSet<_> = target.ancestors().filter_map(which).collect();
    if which(&target).is_some_and(|own| data.ancestors().any(|path| which(path) == Some(own))) {
        return true;
    }
    let (mut folders, mut seen) = (vec![data], HashSet::new());
    while let Some(folder) = folders.pop() {
        let Some(own) = which(&folder).filter(|own| seen.insert(*own)) else { continue };
        if above.contains(&own) {
            return true;
        }
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(entries.filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir())).map(|one| one.path()));
    }
    false
}

impl Places {
    /// What the snapshots and backups of this data directory are known by.
    pub fn known_as(&self) -> String {
        known_as(self.name.as_deref(), &real(&self.data_dir))
    }

    /// Whether what is said to be of a data directory is of this one: by where that really lies, as this program says
    /// it, or by what it is called here, as the application does. Nothing is looked up by what is said. One that has a
    /// name has it since others may lie at the same path: what says the path alone may be theirs.
    pub fn owns(&self) -> impl Fn(&str) -> bool + use<> {
        let own = self.known_as();
        let called = std::path::absolute(&self.data_dir).unwrap_or_else(|_| self.data_dir.clone());
        let called = Some(called).filter(|_| self.name.is_none());
        move |said| said == own || called.as_ref().is_some_and(|called| Path::new(said) == called)
    }

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
            refuse_own(&source, &really)?;
            folders.push((really, what));
            if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                folders.push((real(parent).join(name), what));
            }
        }
        folders.push((source.join("backups"), "backups of this directory"));
        Ok(folders)
    }
}

/// Fails if `path` lies among what is this program's own in the data directory `data`; both as [`real`] has them.
pub fn refuse_own(data: &Path, path: &Path) -> Result<()> {
    let first = path.strip_prefix(data).ok().and_then(|within| within.components().next());
    if first.is_none_or(|first| !first.as_os_str().as_bytes().starts_with(b".nbak-")) {
        return Ok(());
    }
    Err(Error::usage(
        "what is called .nbak-… in the data directory is this program's own: no snapshot contains it, and some of it \
         is removed unasked",
    )
    .at(path)
    .hint("name another place; nothing was changed"))
}

/// The path with all links followed, as far as it exists, and without `..`: where that would lead once the folders that
/// are missing were made.
pub fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    if let Ok(found) = path.canonicalize() {
        return found;
    }
    // Not all of it is there. What is found has no links in it, so that going up from it is only to drop a name.
    let Some(parent) = path.parent() else { return path };
    let mut found = real(parent);
    match path.components().next_back() {
        Some(Component::ParentDir) => {
            found.pop();
        }
        Some(last) => {
            found.push(last);
            found = found.canonicalize().unwrap_or(found);
        }
        None => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn every_data_directory_has_a_name_of_its_own() {
        let name = |path: &[u8]| name_of_source(Path::new(OsStr::from_bytes(path)));
        assert_eq!(name(b"/home/me/.nodyn"), "/home/me/.nodyn");
        assert_eq!(name(b"/d\\xff"), "/d\\xff");
        assert_eq!(name(b"/a\\b/d\xff\xfe"), "bytes:/a\\\\b/d\\xff\\xfe");
        assert_ne!(name(b"/d\xff"), name(b"/d\xfe"));
        for path in [&b"/d"[..], b"/d\\xff", b"/a\\b/d\xff\xfe", b"/\\xff\xff", b"/\\\\\xff\\"] {
            assert_eq!(source_of_name(&name(path)).as_os_str().as_bytes(), path);
            let known = known_as(Some("web-1"), Path::new(OsStr::from_bytes(path)));
            assert_eq!(source_of_name(&known).as_os_str().as_bytes(), path);
            assert_eq!(known, format!("web-1:{}", name(path)));
        }
        assert_ne!(name(b"/\\xff\xff"), name(b"/\xff\\xff"));
    }

    #[test]
    fn a_data_directory_is_known_by_where_it_lies_and_by_what_it_is_called() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a real path");
        std::fs::create_dir(root.join("data")).expect("made");
        std::os::unix::fs::symlink("data", root.join("link")).expect("linked");
        let places =
            |of: &str| Places { name: None, data_dir: root.join(of), backup_dir: root.clone(), repo: root.clone() };
        let said = |name: &str| root.join(name).to_string_lossy().into_owned();
        for (of, names, others) in [
            ("link", vec!["data", "link", "link/"], vec!["", "dat", "data2", "other"]),
            ("data", vec!["data", "data/"], vec!["link", "other"]),
            ("not/there", vec!["not/there"], vec!["not", "there"]),
        ] {
            let owns = places(of).owns();
            assert!(names.iter().all(|name| owns(&said(name))), "{of}");
            assert!(!others.iter().any(|name| owns(&said(name))) && !owns("") && !owns("data"), "{of}");
            let named = Places { name: Some("web-1".to_owned()), ..places(of) };
            let (owns, known) = (named.owns(), named.known_as());
            assert!(owns(&known) && known.starts_with("web-1:/"), "{known}");
            assert!(!names.iter().any(|name| owns(&said(name))) && !owns(&known.replace("web-1", "web-2")), "{of}");
        }
    }

    #[test]
    fn a_path_is_where_it_leads_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a real path");
        std::fs::create_dir_all(root.join("store/deep")).expect("made");
        std::os::unix::fs::symlink("store/deep", root.join("link")).expect("linked");
        for (path, expected) in [
            ("link/new/er", "store/deep/new/er"),
            ("link/../x", "store/x"),
            ("not/there/../../link/x", "store/deep/x"),
            ("not/../store/./y", "store/y"),
            ("plain", "plain"),
        ] {
            assert_eq!(real(&root.join(path)), root.join(expected), "{path}");
        }
        assert_eq!(real(Path::new("/..")), Path::new("/"));
    }
}
