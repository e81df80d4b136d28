//! Symbolic links that lead out of the data directory: a snapshot has the link, and not what it leads to.
//!
//! Who moves a large folder to another disk and leaves a link has it in no snapshot from then on, while everything
//! works as before. So that is said once, in the snapshot in which the link is new or leads elsewhere than before.

use std::path::Path;

use super::contents::Contents;
use super::parent::Parent;
use super::tree::Node;
use crate::source::walk::{Kind, Walk};

/// So many are named.
const NAMED: usize = 3;

/// What is to be said of those links in `walked`, of the data directory `source`, that the parent has not as they are.
pub(super) fn remark(source: &Path, walked: &Walk, contents: &Contents, parent: &Parent) -> Option<String> {
    let leads_out = |at: &usize| {
        let found = &walked.found[*at];
        let link = contents.nodes[*at].as_ref().filter(|_| found.kind == Kind::Symlink);
        let Some((node, _)) = link else { return false };
        let is_old = parent.entry(found).is_some_and(|before| before.node == *node);
        // What leads nowhere has nothing that could be missing.
        let is_out = || std::fs::canonicalize(source.join(&found.path)).is_ok_and(|real| !real.starts_with(source));
        matches!(node, Node::Symlink(_)) && !is_old && is_out()
    };
    let all: Vec<usize> = parent.untouched.others(walked).into_iter().filter(leads_out).collect();
    let names: Vec<String> = all.iter().map(|at| walked.found[*at].path.display().to_string()).collect();
    let (first, more) = names.split_at(names.len().min(NAMED));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    let what = "links lead out of the data directory, and what they lead to is in no snapshot";
    (!first.is_empty()).then(|| format!("{what}: {}{more}", first.join(", ")))
}
