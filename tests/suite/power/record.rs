//! A run of the real program, as a list of what it changed.
//!
//! The program runs under strace. Each of its calls is carried out on a [`Disk`] in memory too, which gives the node it
//! means. In the end that disk must be what lies in the real folder, byte for byte: nothing that the program does to
//! files gets past the recording.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::disk::{Change, Content, Disk, Node, Step};
use super::trace::{self, Call};
use crate::common::strace;

/// What a run did.
pub struct Recording {
    /// The disk before, with the nodes that came into being already there, and empty, and in no folder.
    pub before: Disk,
    pub steps: Vec<Step>,
    /// Its exit code.
    pub code: Option<i32>,
    /// What stood where at the step with this number, for those who asked for a path that comes into being.
    pub noted: Option<(usize, BTreeMap<PathBuf, Node>)>,
}

/// An open file.
#[derive(Clone, Copy)]
struct Open {
    node: Node,
    at: u64,
    append: bool,
}

struct Recorder<'a> {
    top: &'a Path,
    live: Disk,
    /// What each node was when it came into being.
    born: Vec<Content>,
    open: BTreeMap<i64, Open>,
    steps: Vec<Step>,
}

/// Runs `program`, which may do what it likes below `top`. `note` is a path whose coming into being is noted.
pub fn record(program: &Command, top: &Path, note: Option<&Path>) -> Recording {
    let top = top.canonicalize().expect("a real path");
    let log = tempfile::NamedTempFile::new().expect("a file for the log");
    let before = Disk::read(&top);
    let trace = format!("trace=?{}", trace::CALLS.replace(',', ",?"));
    let log_path = log.path().to_str().expect("text");
    let options = ["-y", "-xx", "-s", "100000000", "-o", log_path, "-e", &trace, "-e", "signal=none"];
    let output = strace::traced(program, &options).output().expect("strace runs");
    let mut recorder = Recorder {
        top: &top,
        born: before.nodes.clone(),
        live: before.clone(),
        open: BTreeMap::new(),
        steps: Vec::new(),
    };
    let calls = trace::read(&fs::read_to_string(log.path()).expect("a log"));
    let mut noted = None;
    for call in &calls {
        recorder.call(call);
        if noted.is_none() && note.is_some_and(|path| recorder.live.find(path).is_some()) {
            noted = Some((recorder.steps.len(), recorder.paths()));
        }
    }
    let Recorder { live, born, steps, .. } = recorder;
    assert_matches(&live, &Disk::read(&top), &calls);
    Recording { before: Disk { nodes: born, ..before }, steps, code: output.status.code(), noted }
}

/// Fails unless the disk in memory became what the real one is. The memory that SQLite's processes share is written
/// through a mapping, and is nothing that is relied upon after a crash.
fn assert_matches(model: &Disk, real: &Disk, calls: &[Call]) {
    let (mut model, mut real) = (model.listing(0), real.listing(0));
    for side in [&mut model, &mut real] {
        side.retain(|path, _| !path.to_string_lossy().ends_with("-shm"));
    }
    let paths: std::collections::BTreeSet<_> = model.keys().chain(real.keys()).collect();
    for path in paths {
        let same = match (model.get(path), real.get(path)) {
            // The numbers of the nodes differ.
            (Some(Content::Folder(_)), Some(Content::Folder(_))) => true,
            (model, real) => model == real,
        };
        assert!(
            same,
            "{}: recorded {:?}, and is {:?}, after {} calls",
            path.display(),
            model.get(path),
            real.get(path),
            calls.len()
        );
    }
}

impl Recorder<'_> {
    fn paths(&self) -> BTreeMap<PathBuf, Node> {
        let mut all = BTreeMap::new();
        let mut waiting = vec![(PathBuf::new(), 0)];
        while let Some((path, node)) = waiting.pop() {
            if let Content::Folder(names) = &self.live.nodes[node] {
                waiting.extend(names.iter().map(|(name, node)| (path.join(name), *node)));
            }
            all.insert(path, node);
        }
        all
    }

    fn step(&mut self, call: &Call, change: Change) {
        self.live.apply(&change);
        self.steps.push(Step { began: call.began, ended: call.ended, change });
    }

    fn new_node(&mut self, content: Content) -> Node {
        self.live.nodes.push(content.clone());
        self.born.push(content);
        self.live.nodes.len() - 1
    }

    /// The folder and the name that a path argument means, if it is below the top.
    fn place(&self, call: &Call, dir: Option<usize>, path: usize) -> Option<(Node, std::ffi::OsString)> {
        let path = call.path(path);
        if path.is_relative()
            && let Some(open) = dir.and_then(|dir| self.open.get(&call.fd(dir)))
        {
            return self.live.place(open.node, &path);
        }
        let whole = match dir.and_then(|dir| call.fd_path(dir)) {
            Some(base) => base.join(&path),
            None => path,
        };
        let below = whole.strip_prefix(self.top).ok()?;
        self.live.place(0, below)
    }

    fn node(&self, place: &(Node, std::ffi::OsString)) -> Option<Node> {
        self.live.names(place.0).get(&place.1).copied()
    }

    fn write(&mut self, call: &Call, bytes: &[u8], at: Option<u64>) {
        let fd = call.fd(0);
        let Some(open) = self.open.get(&fd).copied() else {
            if fd == 1 {
                self.step(call, Change::Said(bytes[..call.answer as usize].to_vec()));
            }
            return;
        };
        let length = match &self.live.nodes[open.node] {
            Content::File(bytes) => bytes.len() as u64,
            _ => return,
        };
        let from = at.unwrap_or(if open.append { length } else { open.at });
        let bytes = bytes[..call.answer as usize].to_vec();
        if at.is_none() {
            self.open.get_mut(&fd).expect("it is open").at = from + bytes.len() as u64;
        }
        if !bytes.is_empty() {
            self.step(call, Change::Data { node: open.node, at: from, bytes });
        }
    }

    fn opened(&mut self, call: &Call, dir: Option<usize>, path: usize) {
        let flags = path + 1;
        // The top, and the folder that a descriptor is already, have no place in another.
        let path_is = call.path(path);
        let same = match dir.and_then(|dir| self.open.get(&call.fd(dir))) {
            _ if path_is == self.top => Some(0),
            Some(open) if path_is == Path::new(".") => Some(open.node),
            _ => None,
        };
        let place = if same.is_some() { None } else { self.place(call, dir, path) };
        let node = match (&place, same) {
            (None, Some(node)) => node,
            (None, None) => return,
            (Some(place), _) => match self.node(place) {
                Some(node) => {
                    if call.has(flags, "O_TRUNC") {
                        self.step(call, Change::Size { node, length: 0 });
                    }
                    node
                }
                None if call.has(flags, "O_CREAT") => {
                    let node = self.new_node(Content::File(Vec::new()));
                    let (folder, name) = place.clone();
                    self.step(call, Change::Entry { folder, name, node: Some(node) });
                    node
                }
                None => panic!("opened, and not there: {call:?}"),
            },
        };
        self.open.insert(call.answer, Open { node, at: 0, append: call.has(flags, "O_APPEND") });
    }

    fn renamed(
        &mut self,
        call: &Call,
        from: Option<(Node, std::ffi::OsString)>,
        to: Option<(Node, std::ffi::OsString)>,
        swap: bool,
    ) {
        let (Some(from), Some(to)) = (from, to) else { return };
        let node = self.node(&from).expect("what is renamed is there");
        let back = swap.then(|| self.node(&to).expect("both are there"));
        self.step(call, Change::Rename { from, to, node, back });
    }

    /// Another name, or no name, for what is there.
    fn entry(&mut self, call: &Call, place: Option<(Node, std::ffi::OsString)>, node: Option<Node>) {
        if let Some((folder, name)) = place {
            self.step(call, Change::Entry { folder, name, node });
        }
    }

    fn made(&mut self, call: &Call, place: Option<(Node, std::ffi::OsString)>, content: Content) {
        if place.is_some() {
            let node = self.new_node(content);
            self.entry(call, place, Some(node));
        }
    }

    fn copied(&mut self, call: &Call, from: usize, to: usize) {
        let (source, target) = (self.open.get(&call.fd(from)).copied(), self.open.get(&call.fd(to)).copied());
        let count = call.answer as u64;
        let bytes = match source {
            Some(open) => {
                let Content::File(bytes) = &self.live.nodes[open.node] else { return };
                bytes[open.at as usize..(open.at + count) as usize].to_vec()
            }
            // From elsewhere, which does not change meanwhile.
            None => fs::read(call.fd_path(from).expect("a path")).expect("read")[..count as usize].to_vec(),
        };
        if let Some(open) = source {
            self.open.insert(call.fd(from), Open { at: open.at + count, ..open });
        }
        if let Some(open) = target.filter(|_| count > 0) {
            self.open.insert(call.fd(to), Open { at: open.at + count, ..open });
            self.step(call, Change::Data { node: open.node, at: open.at, bytes });
        }
    }

    fn sized(&mut self, call: &Call, length: u64) {
        if let Some(open) = self.open.get(&call.fd(0)).copied() {
            self.step(call, Change::Size { node: open.node, length });
        }
    }

    fn call(&mut self, call: &Call) {
        match call.name.as_str() {
            "open" | "creat" => self.opened(call, None, 0),
            "openat" => self.opened(call, Some(0), 1),
            "close" => {
                self.open.remove(&call.fd(0));
            }
            "dup" | "dup2" | "dup3" => self.doubled(call),
            "fcntl" if call.args.get(1).is_some_and(|arg| arg.starts_with("F_DUPFD")) => self.doubled(call),
            "lseek" | "read" => {
                if let Some(open) = self.open.get_mut(&call.fd(0)) {
                    open.at = if call.name == "lseek" { call.answer as u64 } else { open.at + call.answer as u64 };
                }
            }
            "write" | "writev" => self.write(call, &call.data(1), None),
            "pwrite64" | "pwritev" | "pwritev2" => {
                let at = call.number(if call.name == "pwrite64" { 3 } else { 2 });
                self.write(call, &call.data(1), Some(at));
            }
            "copy_file_range" => {
                assert!(call.args[1] == "NULL" && call.args[3] == "NULL", "{call:?}");
                self.copied(call, 0, 2);
            }
            "sendfile" => self.copied(call, 1, 0),
            "ftruncate" => self.sized(call, call.number(1)),
            "fallocate" => self.allocated(call),
            "truncate" => panic!("not known: {call:?}"),
            "ioctl" => assert!(!call.args[1].contains("FICLONE") || !self.open.contains_key(&call.fd(0)), "{call:?}"),
            "rename" => self.renamed(call, self.place(call, None, 0), self.place(call, None, 1), false),
            "renameat" | "renameat2" => {
                let swap = call.has(4, "RENAME_EXCHANGE");
                self.renamed(call, self.place(call, Some(0), 1), self.place(call, Some(2), 3), swap);
            }
            "unlink" | "rmdir" => self.entry(call, self.place(call, None, 0), None),
            "unlinkat" => self.entry(call, self.place(call, Some(0), 1), None),
            "mkdir" => self.made(call, self.place(call, None, 0), Content::Folder(BTreeMap::new())),
            "mkdirat" => self.made(call, self.place(call, Some(0), 1), Content::Folder(BTreeMap::new())),
            "symlink" => self.made(call, self.place(call, None, 1), Content::Link(call.path(0).into())),
            "symlinkat" => self.made(call, self.place(call, Some(1), 2), Content::Link(call.path(0).into())),
            "link" => {
                let node = self.place(call, None, 0).and_then(|place| self.node(&place));
                self.entry(call, self.place(call, None, 1), node);
            }
            "linkat" => {
                let node = self.place(call, Some(0), 1).and_then(|place| self.node(&place));
                self.entry(call, self.place(call, Some(2), 3), Some(node.expect("what gets another name is there")));
            }
            "fsync" | "fdatasync" => {
                let open = self.open.get(&call.fd(0)).copied();
                let is_ours = call.fd_path(0).is_some_and(|path| path.starts_with(self.top));
                assert!(open.is_some() || !is_ours, "a sync of something that was not seen to be opened: {call:?}");
                if let Some(open) = open {
                    self.step(call, Change::Sync { node: open.node });
                }
            }
            "syncfs" | "sync" => self.step(call, Change::SyncAll),
            _ => {}
        }
    }

    fn doubled(&mut self, call: &Call) {
        if let Some(open) = self.open.get(&call.fd(0)).copied() {
            self.open.insert(call.answer, open);
        }
    }

    /// Room for a file: longer by it, unless it is to keep its size.
    fn allocated(&mut self, call: &Call) {
        let Some(open) = self.open.get(&call.fd(0)).copied() else { return };
        assert!(!call.args[1].contains("PUNCH") && !call.args[1].contains("ZERO"), "not known: {call:?}");
        let end = call.number(2) + call.number(3);
        let Content::File(bytes) = &self.live.nodes[open.node] else { return };
        if !call.has(1, "FALLOC_FL_KEEP_SIZE") && bytes.len() as u64 <= end {
            self.sized(call, end);
        }
    }
}
