//! A store, and its own keys to put hostile things into it with.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nbak::crypto::keys::Keys;
use nbak::crypto::seal::PackSealer;
use nbak::error::Error;
use nbak::id::{ChunkId, PackId, SnapshotId, TreeId};
use nbak::snapshot::check::{self, check};
use nbak::snapshot::look::list_of;
use nbak::snapshot::progress::Silent;
use nbak::snapshot::record::{Record, Totals};
use nbak::snapshot::restore::{self, restore};
use nbak::snapshot::store::{Access, Store};
use nbak::snapshot::take::{self, take};
use nbak::snapshot::tree::{Attributes, Consistency, Content, Entry, Node, Tree};
use nbak::store::objects::{Key, Kind, Objects};
use nbak::store::pack::{Header, encode_trailer};
use nbak::store::segment::Content as Segment;
use nbak::store::sink::PackSink;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::{Place, assert_equal, tree};

/// What this process may allocate, in bytes: a few times the largest segment.
const MEMORY: u64 = 512 * 1024 * 1024;
/// Also what others take that run before.
pub const SECONDS: u64 = 60;

/// A chunk to be stored as it is.
pub type Piece = (Segment, ChunkId, Vec<u8>);

/// A store to put hostile things into.
pub struct Forge {
    pub place: Place,
    pub objects: Arc<dyn Objects>,
    pub keys: Arc<Keys>,
    /// The limit is one for the process: one at a time.
    _alone: MutexGuard<'static, ()>,
}

impl Forge {
    pub fn new() -> Forge {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let maximum = getrlimit(Resource::Data).maximum;
        setrlimit(Resource::Data, Rlimit { current: Some(MEMORY), maximum }).expect("a limit");
        let place = Place::empty();
        fs::create_dir(place.data.join("d")).expect("made");
        fs::write(place.data.join("d/file"), "what is really there").expect("written");
        fs::write(place.path("outside"), "not to be touched").expect("written");
        let store = Store::open_or_create(&place.repo, &[], Duration::ZERO, 0).expect("a store");
        let (objects, keys) = (store.objects().clone(), store.catalog().packs().keys().clone());
        Forge { place, objects, keys, _alone: alone }
    }

    pub fn sink(&self) -> PackSink {
        PackSink::new(self.objects.clone(), self.keys.clone())
    }

    /// A directory in its whole form, under its own id.
    pub fn directory(&self, entries: Vec<Entry>) -> (TreeId, Piece) {
        let whole = Tree { entries }.encode();
        let id = self.keys.tree_id(&whole);
        (id, (Segment::Tree, id.into(), [&[0], whole.as_slice()].concat()))
    }

    pub fn data(&self, bytes: &[u8]) -> (ChunkId, Piece) {
        let id = self.keys.chunk_id(bytes);
        (id, (Segment::Data, id, bytes.to_vec()))
    }

    pub fn record(&self, root: TreeId) -> Record {
        Record {
            id: SnapshotId::random(),
            sequence: 1,
            previous: None,
            parent: None,
            instance: None,
            apart: Vec::new(),
            started: 1,
            ended: 2,
            source: self.place.data.canonicalize().expect("there").to_string_lossy().into_owned(),
            tree: root,
            root: Attributes { mode: 0o700, ..Attributes::default() },
            totals: Totals { files: 300, databases: 0, directories: 300, symlinks: 10, bytes: 1000 },
            unreadable: Vec::new(),
            unreadable_count: 0,
            tags: Vec::new(),
            note: None,
            program: "forged".into(),
        }
    }

    /// A snapshot of `pieces` whose root is `root`.
    pub fn commit(&self, pieces: &[Piece], root: TreeId) {
        let mut sink = self.sink();
        for (content, id, bytes) in pieces {
            sink.add(*content, *id, bytes).expect("added");
        }
        let _ = sink.flush().expect("flushed").commit(self.record(root).encode()).expect("committed");
    }

    /// A snapshot whose root holds `entry` alone.
    pub fn commit_entry(&self, mut pieces: Vec<Piece>, entry: Entry) {
        let (root, piece) = self.directory(vec![entry]);
        pieces.push(piece);
        self.commit(&pieces, root);
    }

    /// A pack with these tables in its footer, as they are.
    pub fn pack_with_tables(&self, codec: u8, length: u32, body: &[u8]) -> PackId {
        let id = PackId::random();
        let (sealer, tickets) = PackSealer::fresh(&self.keys, id);
        let mut footer = vec![codec];
        footer.extend_from_slice(&length.to_le_bytes());
        footer.extend_from_slice(body);
        sealer.seal_footer(tickets, &mut footer);
        let header = Header { store: self.keys.store(), pack: id, salt: *sealer.salt() }.encode();
        let trailer = encode_trailer(footer.len() as u32);
        let _ = self.objects.put(Key::new(Kind::Pack, id.0), &[&header, &footer, &trailer]).expect("put");
        id
    }

    pub fn open(&self) -> Store {
        Store::open(&self.place.repo, &[], Access::Read).expect("the slot is whole")
    }

    /// What a check says.
    pub fn check(&self) -> Vec<String> {
        let report = check(&self.open(), check::Options { read_data: true, subset: None }, &Silent).expect("checked");
        report.problems.iter().map(|problem| format!("{}: {}", problem.subject, problem.what)).collect()
    }

    /// What a restore of the first snapshot complains about.
    pub fn restore(&self) -> Vec<String> {
        let store = self.open();
        let records = match store.records() {
            Ok(records) => records,
            Err(error) => return vec![integrity(&error)],
        };
        let target = self.place.path("target");
        let options = restore::Options { target: target.clone(), ..restore::Options::default() };
        let complaints = match restore(&store, &records[0], &options, &Silent) {
            Ok(restored) => {
                restored.damaged.into_iter().map(|(path, why)| format!("{}: {why}", path.display())).collect()
            }
            Err(error) => vec![integrity(&error)],
        };
        if target.exists() {
            fs::remove_dir_all(target).expect("removed");
        }
        complaints
    }

    pub fn list(&self) -> Vec<String> {
        let store = self.open();
        let records = match store.records() {
            Ok(records) => records,
            Err(error) => return vec![integrity(&error)],
        };
        match list_of(&store, &records[0], records[0].tree, Path::new(""), true) {
            Ok(_) => Vec::new(),
            Err(error) => vec![integrity(&error)],
        }
    }

    /// A snapshot on top of it is made, and restores what is really there.
    pub fn go_on(&self) {
        let mut store = Store::open(&self.place.repo, &[], Access::Write(Duration::ZERO)).expect("opens");
        let options = take::Options { source: self.place.data.clone(), ..take::Options::default() };
        let taken = take(&mut store, &options, &Silent).expect("a hostile parent is no parent");
        drop(store);
        let target = self.place.path("target");
        let options = restore::Options { target: target.clone(), ..restore::Options::default() };
        let restored = restore(&self.open(), &taken.record, &options, &Silent).expect("restored");
        assert!(restored.damaged.is_empty(), "{:?}", restored.damaged);
        assert_equal(&tree(&self.place.data), &tree(&target));
        fs::remove_dir_all(target).expect("removed");
    }

    /// Nothing is beside the store and the data that was not there before.
    pub fn assert_contained(&self, what: &str) {
        let mut names: Vec<_> = fs::read_dir(self.place.folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["data", "outside", "repo"], "{what}");
        assert_eq!(fs::read(self.place.path("outside")).expect("there"), b"not to be touched", "{what}");
        assert_eq!(tree(&self.place.data).len(), 2, "{what}");
    }
}

pub fn integrity(error: &Error) -> String {
    assert!(error.is_integrity(), "{error:?}");
    error.to_string()
}

/// Whether a message names an object, by an id of 32 digits, or the path that it is about.
pub fn names_an_object(text: &str) -> bool {
    let path = text.starts_with("f: ") || text.contains(": d/d/");
    path || text.as_bytes().windows(32).any(|window| window.iter().all(u8::is_ascii_hexdigit))
}

pub fn entry(name: &[u8], node: Node) -> Entry {
    Entry { name: name.to_vec(), attributes: Attributes { mode: 0o600, ..Attributes::default() }, node }
}

pub fn file(name: &[u8], size: u64, content: Content) -> Entry {
    entry(name, Node::File { size, consistency: Consistency::Stable, content })
}

pub fn link(name: &[u8], target: &str) -> Entry {
    entry(name, Node::Symlink(target.as_bytes().to_vec()))
}
