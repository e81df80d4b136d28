//! The knowledge graph of a data directory: one thing, whatever it consists of.
//!
//! It is a folder, or a file with others beside it, at the top of the data directory. An engine plays the log that it
//! finds into the file that it finds, so none of it may come to stand beside what belongs to another.

use std::path::{Path, PathBuf};

/// Its name.
pub const GRAPH: &str = "knowledge-graph";
/// What the names of those others end in. What is called in any other way beside it is somebody's own.
const BESIDE: [&str; 6] = ["wal", "shadow", "tmp", "lock", "checkpoint", "wal.checkpoint"];

/// Whether `path` is of the knowledge graph.
pub fn is_graph(path: &Path) -> bool {
    let first = path.components().next().and_then(|first| first.as_os_str().to_str());
    let Some(rest) = first.and_then(|first| first.strip_prefix(GRAPH)) else { return false };
    rest.is_empty() || rest.strip_prefix('.').is_some_and(|end| BESIDE.contains(&end))
}

/// Whether `path` is a graph, or all of one thing beside it, and no part of that.
pub fn is_whole(path: &Path) -> bool {
    path.components().count() == 1 && is_graph(path)
}

/// What may lie beside a knowledge graph, and is of it.
pub fn beside_graph() -> impl Iterator<Item = PathBuf> {
    BESIDE.iter().map(|end| PathBuf::from(format!("{GRAPH}.{end}")))
}
