//! Symbolic links that lead out of the data directory: a snapshot has the link, and not what it leads to.
//!
//! Who moves a large folder to another disk and leaves a link has it in no snapshot from then on, while everything
//! works as before. So that is said once, in the snapshot in which the link is new or leads elsewhere than before.
//!
//! What a link says is all that is looked at, not what is there: that may be a server that does not answer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::contents::Contents;
use super::parent::Parent;
use super::tree::Node;
use crate::source::walk::Walk;

/// So many are named.
const NAMED: usize = 3;

/// What is to be said of those links in `walked` that the parent has not as they are. The data directory has these
/// `names`.
pub(super) fn remark(names: [&Path; 2], walked: &Walk, contents: &Contents, parent: &Parent) -> Option<String> {
    let leads_out = |at: &usize| {
        let found = &walked.found[*at];
        let Some((node @ Node::Symlink(target), _)) = &contents.nodes[*at] else { return false };
        let is_old = parent.entry(found).is_some_and(|before| before.node == *node);
        let folder = found.path.parent().unwrap_or(Path::new(""));
        let is_in = |name: &&Path| leads_to(&name.join(folder), OsStr::from_bytes(target).as_ref()).starts_with(name);
        !is_old && !names.iter().any(is_in)
    };
    let all: Vec<usize> = parent.untouched.others(walked).into_iter().filter(leads_out).collect();
    let names: Vec<String> = all.iter().map(|at| walked.found[*at].path.display().to_string()).collect();
    let (first, more) = names.split_at(names.len().min(NAMED));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    let what = "links lead out of the data directory, and what they lead to is in no snapshot";
    (!first.is_empty()).then(|| format!("{what}: {}{more}", first.join(", ")))
}

/// Where a link in `folder` leads that says `target`, by the words alone. What it passes through may be a link itself;
/// if that leads out, it is named.
fn leads_to(folder: &Path, target: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for component in folder.join(target).components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_followed() {
        let to = |target: &str| leads_to(Path::new("/data/a"), Path::new(target)).to_string_lossy().into_owned();
        for (target, path) in [("b", "/data/a/b"), ("../b/./c", "/data/b/c"), ("../../b", "/b"), ("/x/../y", "/y")] {
            assert_eq!(to(target), path, "{target}");
        }
    }
}
