//! A restore in place knows what it staged by the numbers of inodes, which a disk keeps when the power fails. A disk
//! that is laid out anew has others: the journal is written again with those.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::disk::Node;

/// How a node is known that the journal means.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// By what stood where when it was written.
    Names(&'a BTreeMap<PathBuf, Node>),
    /// By the inodes that it has: it was there when the recording began.
    Inodes(&'a BTreeMap<u64, Node>),
}

/// Gives the journal in `data`, if one is there, the inodes that the nodes have now. `placed` says where each node is.
pub fn renumber(data: &Path, origin: Origin<'_>, placed: &BTreeMap<Node, PathBuf>) {
    let journal = data.join(".nbak-restore/intent");
    let Ok(text) = fs::read_to_string(&journal) else { return };
    let Some((line, hash)) = text.trim_end().split_once('\n') else { return };
    if blake3::hash(line.as_bytes()).to_hex().as_str() != hash {
        return;
    }
    let mut intent: Value = serde_json::from_str(line).expect("JSON");
    let renumber = |stamp: &mut Value, path: &Path| {
        let node = match origin {
            Origin::Names(names) => names.get(path),
            Origin::Inodes(inodes) => inodes.get(&stamp["inode"].as_u64().expect("a number")),
        };
        if let Some(place) = node.and_then(|node| placed.get(node)) {
            let meta = fs::symlink_metadata(place).expect("it is there");
            stamp["inode"] = meta.ino().into();
            if stamp["mtime"] != serde_json::json!([0, 0]) {
                stamp["mtime"] = serde_json::json!([meta.mtime(), meta.mtime_nsec()]);
            }
        }
    };
    for one in intent["moves"].as_array_mut().expect("a list") {
        let path = one["path"].as_str().expect("text").to_owned();
        renumber(&mut one["staged"], &Path::new("data/.nbak-restore/new").join(&path));
        if !one["live"].is_null() {
            renumber(&mut one["live"], &Path::new("data").join(&path));
        }
    }
    for list in ["clear", "standing", "touch", "same"] {
        for one in intent[list].as_array_mut().expect("a list") {
            let path = one["path"].as_str().expect("text").to_owned();
            renumber(&mut one["live"], &Path::new("data").join(&path));
        }
    }
    // What tells a copy from the directory itself, which this stands for.
    let inode = |path: &Path| fs::symlink_metadata(path).expect("it is there").ino();
    let folder = journal.parent().expect("a folder");
    intent["origin"] = serde_json::json!({"folder": inode(folder), "journal": inode(&journal), "born": null});
    let line = intent.to_string();
    fs::write(&journal, format!("{line}\n{}\n", blake3::hash(line.as_bytes()).to_hex())).expect("written");
}
