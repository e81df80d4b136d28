//! The contract of `store::objects::Objects`, held against every implementation.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use nbak::store::local::LocalDirectory;
use nbak::store::memory::Memory;
use nbak::store::objects::{Key, Kind, Objects};
use tempfile::TempDir;

fn pack(n: u8) -> Key {
    Key::new(Kind::Pack, [n; 16])
}

fn slot(n: u8) -> Key {
    Key::new(Kind::Slot, [n; 16])
}

fn put(objects: &dyn Objects, key: Key, parts: &[&[u8]]) {
    let _ = objects.put(key, parts).expect("a put");
}

/// A temporary directory's store; the folder goes when it is dropped.
fn local() -> (TempDir, LocalDirectory) {
    let folder = TempDir::new().expect("a folder");
    let local = LocalDirectory::at(folder.path().join("store"));
    local.create().expect("made");
    (folder, local)
}

fn every(suite: fn(&dyn Objects)) {
    suite(&Memory::default());
    let (folder, local) = local();
    suite(&local);
    let left = fs::read_dir(folder.path().join("store/tmp")).expect("a folder").count();
    assert_eq!(left, 0, "something is left in tmp");
}

#[test]
fn a_put_is_whole() {
    every(|objects| {
        put(objects, pack(1), &[b"one", b"", b" and ", b"two"]);
        assert_eq!(objects.get_range(pack(1), 0, 11).expect("read"), b"one and two");
        assert_eq!(objects.size(pack(1)).expect("a size"), 11);
        assert_eq!(objects.get(pack(1), 11).expect("read"), b"one and two");
        put(objects, pack(2), &[]);
        assert_eq!(objects.size(pack(2)).expect("a size"), 0);
        assert_eq!(objects.get_range(pack(2), 0, 0).expect("read"), b"");
        let large: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        put(objects, pack(3), &[&large[..1_000_000], &large[1_000_000..]]);
        assert_eq!(objects.get(pack(3), 1 << 30).expect("read"), large);
    });
}

#[test]
fn nothing_is_overwritten() {
    every(|objects| {
        put(objects, pack(1), &[b"first"]);
        let error = objects.put(pack(1), &[b"second"]).expect_err("the name is taken");
        assert!(!error.is_integrity(), "{error}");
        assert!(error.to_string().contains(&objects.place(pack(1))), "{error}");
        assert_eq!(objects.get(pack(1), 100).expect("read"), b"first");
        put(objects, slot(1), &[b"the same id, another kind"]);
        assert_eq!(objects.get(pack(1), 100).expect("read"), b"first");
    });
}

#[test]
fn ranges_have_bounds() {
    every(|objects| {
        put(objects, pack(1), &[b"0123456789"]);
        for (offset, length, expected) in [(0, 10, "0123456789"), (3, 4, "3456"), (9, 1, "9"), (10, 0, ""), (0, 0, "")]
        {
            assert_eq!(objects.get_range(pack(1), offset, length).expect("within"), expected.as_bytes());
        }
        for (offset, length) in [(0, 11), (10, 1), (9, 2), (11, 1), (u64::from(u32::MAX), 1)] {
            let error = objects.get_range(pack(1), offset, length).expect_err("beyond its end");
            assert!(error.is_integrity(), "{offset}+{length}: {error:?}");
            assert!(error.to_string().contains(&objects.place(pack(1))), "{error}");
        }
        let error = objects.get(pack(1), 9).expect_err("larger than the limit");
        assert!(error.is_integrity() && error.to_string().contains(&objects.place(pack(1))), "{error}");
    });
}

#[test]
fn an_offset_that_no_file_has_is_no_panic() {
    every(|objects| {
        put(objects, pack(1), &[b"0123456789"]);
        for offset in [u64::MAX, u64::MAX - 4, 1 << 63, i64::MAX as u64] {
            objects.get_range(pack(1), offset, 5).expect_err("beyond its end");
        }
    });
}

#[test]
fn what_is_missing_is_an_integrity_error_that_names_its_place() {
    every(|objects| {
        let errors =
            [objects.get_range(pack(9), 0, 1).err(), objects.size(pack(9)).err(), objects.get(pack(9), 10).err()];
        for error in errors {
            let error = error.expect("there is no such object");
            assert!(error.is_integrity(), "{error:?}");
            assert!(error.to_string().contains(&objects.place(pack(9))), "{error}");
        }
    });
}

#[test]
fn lists_hold_each_kind_apart() {
    every(|objects| {
        assert!(objects.list(Kind::Pack).expect("a list").is_empty());
        for n in 0..50 {
            put(objects, pack(n), &[&[n]]);
        }
        put(objects, slot(77), &[b"slot"]);
        let mut listed = objects.list(Kind::Pack).expect("a list");
        listed.sort_unstable();
        assert_eq!(listed, (0..50).map(|n| [n; 16]).collect::<Vec<_>>());
        assert_eq!(objects.list(Kind::Slot).expect("a list"), [[77; 16]]);
    });
}

#[test]
fn a_delete_may_come_twice() {
    every(|objects| {
        objects.delete(pack(1)).expect("there was nothing to delete");
        put(objects, pack(1), &[b"one"]);
        put(objects, pack(2), &[b"two"]);
        objects.delete(pack(1)).expect("deleted");
        objects.delete(pack(1)).expect("deleted before");
        assert!(objects.size(pack(1)).expect_err("gone").is_integrity());
        assert_eq!(objects.list(Kind::Pack).expect("a list"), [[2; 16]]);
        put(objects, pack(1), &[b"again"]);
        assert_eq!(objects.get(pack(1), 100).expect("read"), b"again");
    });
}

#[test]
fn a_name_that_is_taken_is_so_for_all_threads() {
    every(|objects| {
        std::thread::scope(|scope| {
            let tries: Vec<_> =
                (0..8u8).map(|n| scope.spawn(move || objects.put(pack(5), &[&[n; 1000]]).is_ok())).collect();
            let won = tries.into_iter().map(|t| t.join().expect("no panic")).filter(|ok| *ok).count();
            assert_eq!(won, 1);
        });
        let bytes = objects.get(pack(5), 5000).expect("read");
        assert!(bytes.len() == 1000 && bytes.iter().all(|byte| *byte == bytes[0]), "of one writer");
    });
}

#[test]
fn files_are_private_from_the_beginning() {
    let (folder, local) = local();
    put(&local, pack(1), &[b"one"]);
    put(&local, slot(1), &[b"two"]);
    let mode = |path: &str| fs::metadata(folder.path().join(path)).expect("there").permissions().mode() & 0o7777;
    for path in ["store", "store/keys", "store/packs", "store/tmp"] {
        assert_eq!(mode(path), 0o700, "{path}");
    }
    for key in [pack(1), slot(1)] {
        assert_eq!(mode(&format!("store/{key}")), 0o600, "{key}");
    }
}

#[test]
fn a_put_that_fails_leaves_nothing() {
    let (folder, local) = local();
    let root = folder.path().join("store");
    fs::remove_dir(root.join("packs")).expect("removed");
    let error = local.put(pack(1), &[b"one"]).expect_err("there is no folder for it");
    assert!(error.to_string().contains(&local.place(pack(1))), "{error}");
    assert_eq!(fs::read_dir(root.join("tmp")).expect("a folder").count(), 0);
    assert!(local.list(Kind::Pack).expect("no folder, no packs").is_empty());
    fs::remove_dir(root.join("tmp")).expect("removed");
    local.put(pack(1), &[b"one"]).expect_err("there is no folder for temporaries");
    local.create().expect("made again");
    put(&local, pack(1), &[b"one"]);
}

#[test]
fn names_that_are_none_of_ours_are_left_alone() {
    let (folder, local) = local();
    put(&local, pack(0xab), &[b"one"]);
    let packs = folder.path().join("store/packs");
    let name = "ab".repeat(16);
    for foreign in ["README", ".hidden", &name[1..], &format!("{name}0"), &name.to_uppercase(), &format!("{name}.tmp")]
    {
        fs::write(packs.join(foreign), b"foreign").expect("written");
    }
    fs::create_dir(packs.join("folder")).expect("made");
    assert_eq!(local.list(Kind::Pack).expect("a list"), [[0xab; 16]]);
}

#[test]
fn a_sweep_takes_what_writers_left_and_nothing_else() {
    let (folder, local) = local();
    let root = folder.path().join("store");
    put(&local, pack(1), &[b"one"]);
    fs::write(root.join("tmp").join("0123456789abcdef".repeat(2)), b"half an object").expect("written");
    fs::write(root.join("tmp/notes.txt"), b"somebody's").expect("written");
    fs::create_dir(root.join("tmp/folder")).expect("made");
    local.sweep().expect("swept");
    let mut left: Vec<_> =
        fs::read_dir(root.join("tmp")).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    left.sort();
    assert_eq!(left, ["folder", "notes.txt"]);
    assert_eq!(local.get(pack(1), 10).expect("read"), b"one");
}

#[test]
fn a_sweep_does_not_follow_a_link() {
    let (folder, local) = local();
    let root = folder.path().join("store");
    let precious = folder.path().join("precious");
    fs::create_dir(&precious).expect("made");
    let file = precious.join("0123456789abcdef".repeat(2));
    fs::write(&file, b"not ours").expect("written");
    fs::remove_dir(root.join("tmp")).expect("removed");
    std::os::unix::fs::symlink(&precious, root.join("tmp")).expect("linked");
    let _ = local.sweep();
    assert_eq!(fs::read(&file).expect("still there"), b"not ours");
}
