//! A disk in memory: files and folders as numbered nodes, changed by [`Change`]s.
//!
//! A node is what Linux calls an inode; the names are in the folders. What a process did is a list of [`Step`]s. The
//! disk that it leaves when the power fails is made by carrying out those steps that a `sync` covers, and any others
//! ([`super::image`]).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path};

/// The number of a node.
pub type Node = usize;

/// What a node is.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    File(Vec<u8>),
    Folder(BTreeMap<OsString, Node>),
    Link(OsString),
}

/// Files and folders.
#[derive(Clone)]
pub struct Disk {
    /// Node 0 is the top.
    pub nodes: Vec<Content>,
    /// By the number of its inode, each node that was read from a real disk.
    pub inodes: BTreeMap<u64, Node>,
}

/// One change of one node. A rename is the one that may change two folders: [`Disk::apply_halves`].
#[derive(Clone, Debug)]
pub enum Change {
    Data {
        node: Node,
        at: u64,
        bytes: Vec<u8>,
    },
    Size {
        node: Node,
        length: u64,
    },
    Entry {
        folder: Node,
        name: OsString,
        node: Option<Node>,
    },
    Rename {
        from: (Node, OsString),
        to: (Node, OsString),
        node: Node,
        back: Option<Node>,
    },
    /// All that was done to the node before is on the disk.
    Sync {
        node: Node,
    },
    /// All that was done to anything.
    SyncAll,
    /// The process said this.
    Said(Vec<u8>),
}

/// A change, and the lines of the log between which it was made.
#[derive(Clone, Debug)]
pub struct Step {
    pub began: usize,
    pub ended: usize,
    pub change: Change,
}

impl Disk {
    /// What is below `top`.
    pub fn read(top: &Path) -> Disk {
        let mut disk = Disk { nodes: Vec::new(), inodes: BTreeMap::new() };
        disk.read_in(top);
        disk
    }

    fn read_in(&mut self, path: &Path) -> Node {
        let meta = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if let Some(node) = self.inodes.get(&meta.ino()).filter(|_| meta.is_file()) {
            return *node;
        }
        let node = self.nodes.len();
        self.inodes.insert(meta.ino(), node);
        self.nodes.push(Content::File(Vec::new()));
        self.nodes[node] = if meta.is_dir() {
            let mut names = BTreeMap::new();
            for entry in fs::read_dir(path).expect("a folder") {
                let entry = entry.expect("an entry");
                names.insert(entry.file_name(), self.read_in(&entry.path()));
            }
            Content::Folder(names)
        } else if meta.is_symlink() {
            Content::Link(fs::read_link(path).expect("a link").into_os_string())
        } else {
            Content::File(fs::read(path).expect("a file"))
        };
        node
    }

    /// Makes `top` be this, whatever it is; and tells where which node is.
    pub fn write(&self, top: &Path) -> BTreeMap<Node, std::path::PathBuf> {
        if top.exists() {
            fs::remove_dir_all(top).expect("removed");
        }
        let mut placed = BTreeMap::new();
        self.write_in(0, top, &mut placed);
        placed
    }

    fn write_in(&self, node: Node, path: &Path, placed: &mut BTreeMap<Node, std::path::PathBuf>) {
        if let Some(first) = placed.get(&node) {
            // A rename that came to one folder and did not leave the other. Of a folder fsck leaves one name.
            if !matches!(self.nodes[node], Content::Folder(_)) {
                fs::hard_link(first, path).expect("a second name");
            }
            return;
        }
        placed.insert(node, path.to_owned());
        match &self.nodes[node] {
            Content::File(bytes) => {
                fs::write(path, bytes).expect("written");
                fs::set_permissions(path, Permissions::from_mode(0o600)).expect("a mode");
            }
            Content::Link(target) => symlink(target, path).expect("linked"),
            Content::Folder(names) => {
                fs::create_dir(path).expect("made");
                fs::set_permissions(path, Permissions::from_mode(0o700)).expect("a mode");
                for (name, node) in names {
                    self.write_in(*node, &path.join(name), placed);
                }
            }
        }
    }

    /// The names in a folder.
    pub fn names(&self, folder: Node) -> &BTreeMap<OsString, Node> {
        match &self.nodes[folder] {
            Content::Folder(names) => names,
            _ => panic!("node {folder} is no folder"),
        }
    }

    fn names_mut(&mut self, folder: Node) -> &mut BTreeMap<OsString, Node> {
        match &mut self.nodes[folder] {
            Content::Folder(names) => names,
            _ => panic!("node {folder} is no folder"),
        }
    }

    /// A file's bytes.
    pub fn bytes_mut(&mut self, node: Node) -> &mut Vec<u8> {
        match &mut self.nodes[node] {
            Content::File(bytes) => bytes,
            _ => panic!("node {node} is no file"),
        }
    }

    /// The folder in which `path` is, and its name there, from `from`.
    pub fn place(&self, from: Node, path: &Path) -> Option<(Node, OsString)> {
        let mut parts: Vec<&OsStr> = Vec::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => parts.push(name),
                Component::CurDir => {}
                _ => panic!("{}: not followed", path.display()),
            }
        }
        let name = parts.pop()?;
        let mut folder = from;
        for part in parts {
            folder = *self.names(folder).get(part)?;
        }
        Some((folder, name.to_owned()))
    }

    /// The node at `path`.
    pub fn find(&self, path: &Path) -> Option<Node> {
        let (folder, name) = self.place(0, path)?;
        self.names(folder).get(&name).copied()
    }

    /// Carries out a change as a whole.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Data { node, at, bytes } => {
                let file = self.bytes_mut(*node);
                let (from, to) = (*at as usize, *at as usize + bytes.len());
                if file.len() < to {
                    file.resize(to, 0);
                }
                file[from..to].copy_from_slice(bytes);
            }
            Change::Size { node, length } => self.bytes_mut(*node).resize(*length as usize, 0),
            Change::Entry { folder, name, node: Some(node) } => {
                self.names_mut(*folder).insert(name.clone(), *node);
            }
            Change::Entry { folder, name, node: None } => {
                self.names_mut(*folder).remove(name);
            }
            Change::Rename { .. } => self.apply_halves(change, true, true),
            Change::Sync { .. } | Change::SyncAll | Change::Said(_) => {}
        }
    }

    /// Carries out a rename in the folder that the name leaves, or in the one that it comes to, or in both.
    pub fn apply_halves(&mut self, change: &Change, gone: bool, come: bool) {
        let Change::Rename { from, to, node, back } = change else { panic!("no rename: {change:?}") };
        if gone {
            match back {
                Some(back) => self.names_mut(from.0).insert(from.1.clone(), *back),
                None => self.names_mut(from.0).remove(&from.1),
            };
        }
        if come {
            self.names_mut(to.0).insert(to.1.clone(), *node);
        }
    }

    /// A hash of all names and bytes: of two disks it is the same if they are.
    pub fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        // By which name a file was met first: the second is no copy of it.
        let mut met = BTreeMap::new();
        let mut waiting = vec![0];
        while let Some(node) = waiting.pop() {
            let number = met.len() as u64;
            if let Some(first) = met.get(&node) {
                hasher.update(b"again").update(&u64::to_le_bytes(*first));
                continue;
            }
            met.insert(node, number);
            let parts: Vec<&[u8]> = match &self.nodes[node] {
                Content::File(bytes) => vec![b"file", bytes],
                Content::Link(to) => vec![b"link", to.as_bytes()],
                Content::Folder(names) => {
                    waiting.extend(names.values());
                    std::iter::once(&b"folder"[..]).chain(names.keys().map(|name| name.as_bytes())).collect()
                }
            };
            for part in parts {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
            }
            hasher.update(b"end");
        }
        hasher.finalize()
    }

    /// All that is below a node, by path.
    pub fn listing(&self, node: Node) -> BTreeMap<std::path::PathBuf, &Content> {
        let mut all = BTreeMap::new();
        let mut waiting = vec![(std::path::PathBuf::new(), node)];
        while let Some((path, node)) = waiting.pop() {
            if let Content::Folder(names) = &self.nodes[node] {
                waiting.extend(names.iter().map(|(name, node)| (path.join(name), *node)));
            }
            all.insert(path, &self.nodes[node]);
        }
        all
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Content::File(bytes) => {
                write!(f, "file of {} bytes {}", bytes.len(), &blake3::hash(bytes).to_hex()[..8])
            }
            Content::Folder(names) => write!(f, "folder of {}", names.len()),
            Content::Link(to) => write!(f, "link to {}", String::from_utf8_lossy(to.as_bytes())),
        }
    }
}
