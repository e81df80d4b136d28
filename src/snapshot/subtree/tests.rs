//! Which folders are taken over: those that are as they were in everything, and no others; and that what is noted of
//! them is what a look at everything would note.

use super::super::tree::Content;
use super::*;
use crate::crypto::secret::Secret;
use crate::id::StoreId;
use crate::source::walk::Stamp;

const BEGAN: i128 = 1_700_000_000_000_000_007;
const MOMENT: Moment = Moment { began: BEGAN, steady: 0 };

/// The folder, where its folder is, and what it is.
const NAMES: [(&str, usize, Kind); 13] = [
    ("", 0, Kind::Directory),
    ("a", 0, Kind::Directory),
    ("a/b", 1, Kind::Directory),
    ("a/b/f", 2, Kind::File),
    ("a/b/g", 2, Kind::File),
    ("a/c", 1, Kind::Directory),
    ("a/c/empty", 5, Kind::Directory),
    ("a/c/link", 5, Kind::Symlink),
    ("a/f", 1, Kind::File),
    ("app.db", 0, Kind::File),
    ("app.db-shm", 0, Kind::File),
    ("z", 0, Kind::Directory),
    ("z/f", 11, Kind::File),
];

fn found(at: usize) -> Found {
    let (path, parent, kind) = NAMES[at];
    let time = BEGAN - 90_000_000_000 - at as i128;
    let stamp = Stamp { device: 1, inode: at as u64, size: 4096, mtime: time, ctime: time };
    Found { path: PathBuf::from(path), parent, kind, mode: 0o644, owner: (6, 7), stamp }
}

fn walk() -> Walk {
    Walk { found: (0..NAMES.len()).map(found).collect(), ..Walk::default() }
}

/// All of the walk captured, with receipts for all files but what lies beside the database.
fn captured() -> (Walk, Contents) {
    let (walk, mut contents) = (walk(), Contents::new());
    contents.nodes = vec![None; NAMES.len()];
    for (at, found) in walk.found.iter().enumerate() {
        let content = Content::Chunks(Vec::new());
        let node = match found.kind {
            Kind::Directory => continue,
            Kind::Symlink => Node::Symlink(b"f".to_vec()),
            Kind::File => Node::File { size: 10, consistency: Consistency::Stable, content },
        };
        contents.nodes[at] = Some((node, None));
        if found.kind == Kind::File && at != 10 {
            let receipt = match at {
                9 => Receipt::of_database(found.stamp, [None; 2]),
                _ => Receipt::of_file(found.stamp),
            };
            contents.receipts.insert(at, receipt);
        }
    }
    contents.nodes[10] = None;
    contents.left_out.insert(10, Sidecar::Memory);
    (walk, contents)
}

fn keys() -> Keys {
    Keys::new(StoreId([1; 16]), &Secret::take(&mut [5; 32]))
}

fn digests(walk: &Walk, left_out: &[(usize, Sidecar)]) -> Digests {
    Digests::of(&keys(), walk, left_out, (&Digests::default(), &Untouched::default()))
}

fn trees() -> HashMap<usize, TreeId> {
    (0..NAMES.len()).map(|at| (at, TreeId([at as u8; 16]))).collect()
}

fn noted(walk: &Walk, contents: &Contents) -> Subtrees {
    let (digests, untouched) = (digests(walk, &contents.left_out_in_order()), Untouched::default());
    Drafts::of(walk, contents, &digests, &untouched, MOMENT).finish(walk, &trees(), (None, &untouched))
}

fn paths(subtrees: &Subtrees) -> Vec<&str> {
    subtrees.keys().map(|path| path.to_str().expect("a name")).collect()
}

fn tops(untouched: &Untouched) -> Vec<usize> {
    untouched.tops.keys().copied().collect()
}

#[test]
fn every_field_of_every_entry_counts() {
    let before = digests(&walk(), &[]);
    assert_eq!(before.0, digests(&walk(), &[]).0);
    assert_eq!(before.0.len(), 6, "one for each folder");
    let changes: [fn(&mut Found); 10] = [
        |found| found.path = PathBuf::from("x"),
        |found| found.kind = if found.kind == Kind::File { Kind::Symlink } else { Kind::File },
        |found| found.mode ^= 1,
        |found| found.owner.0 ^= 1,
        |found| found.owner.1 ^= 1,
        |found| found.stamp.device ^= 1,
        |found| found.stamp.inode ^= 1,
        |found| found.stamp.size ^= 1,
        |found| found.stamp.mtime ^= 1,
        |found| found.stamp.ctime ^= 1,
    ];
    for (which, change) in changes.into_iter().enumerate() {
        for (at, (_, _, kind)) in NAMES.iter().enumerate() {
            if which == 1 && *kind == Kind::Directory {
                continue;
            }
            let mut walk = walk();
            change(&mut walk.found[at]);
            let after = digests(&walk, &[]);
            // In each folder on the way up, and in no other.
            let mut above = vec![at];
            while *above.last().expect("one") > 0 {
                above.push(walk.found[*above.last().expect("one")].parent);
            }
            for (folder, digest) in &before.0 {
                let changed = after.0[folder] != *digest;
                assert_eq!(changed, above.contains(folder), "change {which} of entry {at}, folder {folder}");
            }
        }
    }
    let mut fewer = walk();
    fewer.found.pop();
    let after = digests(&fewer, &[]);
    assert!(after.root() != before.root() && after.0[&11] != before.0[&11] && after.0[&1] == before.0[&1]);
}

#[test]
fn shared_memory_that_is_left_out_counts_by_its_size_alone() {
    let left_out = [(10, Sidecar::Memory)];
    let before = digests(&walk(), &left_out);
    assert_ne!(before.root(), digests(&walk(), &[]).root());
    let mut walk = walk();
    (walk.found[10].stamp.mtime, walk.found[10].stamp.size) = (9, 32_768);
    assert_eq!(before.root(), digests(&walk, &left_out).root());
    walk.found[10].stamp.size = 8193;
    assert_ne!(before.root(), digests(&walk, &left_out).root(), "no database's");
    walk.found[10].stamp.size = 4096;
    walk.found[9].stamp.mtime = 9;
    assert_ne!(before.root(), digests(&walk, &left_out).root(), "the database");
}

#[test]
fn what_has_receipts_for_all_is_noted() {
    let (walk, contents) = captured();
    let noted = noted(&walk, &contents);
    assert_eq!(paths(&noted), ["a", "a/b", "a/c", "a/c/empty", "z"]);
    let totals = Totals { files: 3, directories: 3, symlinks: 1, bytes: 30, databases: 0 };
    assert_eq!((noted[Path::new("a")].totals, noted[Path::new("a")].tree), (totals, TreeId([1; 16])));
    let receipts = noted[Path::new("a/b")].receipts_in(Path::new("a/b"));
    let expected = |at: usize| (walk.found[at].path.clone(), contents.receipts[&at].clone());
    assert_eq!(receipts, [expected(4), expected(3)]);
    let digests = digests(&walk, &contents.left_out_in_order());
    let drafts = Drafts::of(&walk, &contents, &digests, &Untouched::default(), MOMENT);
    let others = drafts.others(&walk, contents.receipts.clone());
    assert_eq!(others.keys().collect::<Vec<_>>(), [Path::new("app.db")]);
    for (path, subtree) in &noted {
        let mut bytes = Vec::new();
        subtree.encode(&mut bytes);
        assert_eq!(Subtree::decode(&mut Reader::new(&bytes)).as_ref(), Ok(subtree), "{path:?}");
        for length in 0..bytes.len() {
            assert!(Subtree::decode(&mut Reader::new(&bytes[..length])).is_err());
        }
    }
}

/// What breaks a proof, how, and what is noted all the same.
type Break = (&'static str, fn(&mut Walk, &mut Contents), &'static [&'static str]);

#[test]
fn what_proves_nothing_is_not_noted() {
    let breaks: [Break; 9] = [
        (
            "a file without a receipt",
            |_, contents| {
                contents.receipts.remove(&3);
            },
            &["a/c", "a/c/empty", "z"],
        ),
        ("a file that changed since", |walk, _| walk.found[3].stamp.ctime += 1, &["a/c", "a/c/empty", "z"]),
        ("a file that is gone", |_, contents| contents.nodes[8] = None, &["a/b", "a/c", "a/c/empty", "z"]),
        ("a link of just now", |walk, _| walk.found[7].stamp.ctime = BEGAN - 1, &["a/b", "a/c/empty", "z"]),
        ("a link that is gone", |_, contents| contents.nodes[7] = None, &["a/b", "a/c/empty", "z"]),
        (
            "a link that was another one when it was read",
            |_, contents| {
                contents.other_links.insert(7);
            },
            &["a/b", "a/c/empty", "z"],
        ),
        (
            "a file that changed all the while",
            |_, contents| {
                let Some((Node::File { consistency, .. }, _)) = &mut contents.nodes[12] else { panic!("a file") };
                *consistency = Consistency::Changed;
            },
            &["a", "a/b", "a/c", "a/c/empty"],
        ),
        (
            "a database",
            |_, contents| {
                let receipt = contents.receipts.get_mut(&12).expect("one");
                *receipt = Receipt::of_database(receipt.stamp, [None; 2]);
            },
            &["a", "a/b", "a/c", "a/c/empty"],
        ),
        (
            "named like a log",
            |walk, _| {
                walk.found[12].path = PathBuf::from("z/f-wal");
            },
            &["a", "a/b", "a/c", "a/c/empty"],
        ),
    ];
    for (what, spoil, left) in breaks {
        let (mut walk, mut contents) = captured();
        spoil(&mut walk, &mut contents);
        assert_eq!(paths(&noted(&walk, &contents)), left, "{what}");
    }
}

#[test]
fn what_is_as_it_was_is_taken_over() {
    let (walk, contents) = captured();
    let noted = noted(&walk, &contents);
    let digests = |walk: &Walk| digests(walk, &[(10, Sidecar::Memory)]);
    let untouched = Untouched::find(&walk, &digests(&walk), &noted);
    assert_eq!(tops(&untouched), [1, 11]);
    assert_eq!(untouched.places().collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8, 12]);
    assert_eq!(untouched.tree(11).map(|(tree, totals)| (tree, totals.files)), Some((TreeId([11; 16]), 1)));
    let is = |at| (untouched.has(at), untouched.is_inside(at));
    assert_eq!(
        [0, 1, 8, 9, 10, 11, 12, 13].map(is),
        [
            (false, false),
            (true, false),
            (true, true),
            (false, false),
            (false, false),
            (true, false),
            (true, true),
            (false, false),
        ]
    );

    // One file is another: what is beside it and beside its folders is as it was.
    let mut other = captured().0;
    other.found[3].stamp.mtime += 1;
    assert_eq!(tops(&Untouched::find(&other, &digests(&other), &noted)), [5, 11]);
    // A folder that goes by the name of another.
    other.found[5].path = PathBuf::from("a/d");
    assert_eq!(tops(&Untouched::find(&other, &digests(&other), &noted)), [6, 11]);
}

#[test]
fn what_is_given_up_is_whole() {
    let (walk, contents) = captured();
    let noted = noted(&walk, &contents);
    for at in 0..NAMES.len() {
        let mut untouched = Untouched::find(&walk, &digests(&walk, &[(10, Sidecar::Memory)]), &noted);
        let expected = match at {
            1..=8 => Some((1..9, vec![11])),
            11 | 12 => Some((11..13, vec![1])),
            _ => None,
        };
        let given_up = untouched.give_up(at);
        let left = expected.as_ref().map_or(vec![1, 11], |(_, left)| left.clone());
        assert_eq!((given_up.clone(), tops(&untouched)), (expected.map(|(places, _)| places), left), "{at}");
        assert!(given_up.into_iter().flatten().all(|at| !untouched.has(at)));
        assert_eq!(untouched.give_up(at), None);
    }
}

/// A snapshot that takes folders over notes what one would that looks at everything.
#[test]
fn what_is_taken_over_is_noted_again() {
    let (walk, mut contents) = captured();
    let before = noted(&walk, &contents);
    let left_out = contents.left_out_in_order();
    let first = digests(&walk, &left_out);
    let untouched = Untouched::find(&walk, &first, &before);
    for at in untouched.places() {
        contents.nodes[at] = None;
        contents.receipts.remove(&at);
    }
    let again = Digests::of(&keys(), &walk, &left_out, (&first, &untouched));
    assert_eq!(again.0.get(&0), first.0.get(&0));
    let drafts = Drafts::of(&walk, &contents, &again, &untouched, MOMENT);
    assert_eq!(drafts.finish(&walk, &HashMap::new(), (Some(&before), &untouched)), before);
}
