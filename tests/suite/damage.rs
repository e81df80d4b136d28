//! Damage: every byte, every length, whole objects, and the index. What a restore gives is right or is reported; what a
//! check calls whole is whole; nothing panics.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{
    KEY, Place, Random, Thing, assert_equal, assert_same, copy, database, noise, objects, rounds, tree,
};
use nbak::crypto::secret::Credential;
use nbak::error::Error;
use nbak::snapshot::check::{self, check};
use nbak::snapshot::progress::Silent;
use nbak::snapshot::restore::{self, restore};
use nbak::snapshot::store::{Access, Store};
use nbak::snapshot::take::{self, take};
use tempfile::TempDir;

/// A store of a few KB: two snapshots, a small database, text, a directory, a link, a file in recipes.
fn tiny() -> Place {
    let place = Place::empty();
    fs::create_dir(place.data.join("d")).expect("made");
    fs::write(place.data.join("a"), b"the first file").expect("written");
    fs::write(place.data.join("d/b"), noise(1, 300)).expect("written");
    fs::write(place.data.join("zeros"), vec![0; 70_000]).expect("written");
    fs::write(place.data.join("pages"), b"0123456789abcdef".repeat(4096)).expect("written");
    std::os::unix::fs::symlink("a", place.data.join("l")).expect("linked");
    database(&place.data.join("x.db"), "DELETE", 1);
    place.ok(&["snapshot"]);
    fs::write(place.data.join("a"), b"the first file, changed").expect("written");
    place.ok(&["snapshot"]);
    place
}

/// What came of looking at a store that is damaged.
#[derive(Default)]
struct Outcome {
    reported: bool,
    whole: bool,
    /// The newest snapshot is not there at all. From within, that looks like a store before it was taken.
    older: bool,
}

/// Opens, checks and restores in process; panics if anything wrong came out without a word.
fn look(repo: &Path, expected: &BTreeMap<PathBuf, Thing>, scratch: &Path, what: &str) -> Outcome {
    let refused = |error: &Error| {
        assert!(error.is_integrity() || error.is_key() || error.is_no_store(), "{what}: {error:?}");
        Outcome { reported: true, ..Outcome::default() }
    };
    let store = match Store::open(repo, &[], Access::Read) {
        Ok(store) => store,
        Err(error) => return refused(&error),
    };
    let problems = match check(&store, check::Options { read_data: true, subset: None }, &Silent) {
        Ok(report) => report.problems,
        Err(error) => return refused(&error),
    };
    let reported = !problems.is_empty();
    let records = match store.records() {
        Ok(records) => records,
        Err(error) => return refused(&error),
    };
    let Some(record) = records.iter().find(|record| record.sequence == 2) else {
        return Outcome { reported, whole: false, older: true };
    };
    let target = TempDir::new_in(scratch).expect("a folder");
    let options = restore::Options { target: target.path().to_path_buf(), ..restore::Options::default() };
    let whole = match restore(&store, record, &options, &Silent) {
        Ok(restored) => {
            let found = tree(target.path());
            for (path, thing) in &found {
                assert_eq!(Some(thing), expected.get(path), "{what}: {} is wrong", path.display());
            }
            for path in expected.keys().filter(|path| !found.contains_key(*path)) {
                let named = restored.damaged.iter().any(|(damaged, _)| damaged == path);
                assert!(named, "{what}: {} is gone without a word", path.display());
            }
            restored.damaged.is_empty()
        }
        Err(error) => {
            assert!(error.is_integrity(), "{what}: {error:?}");
            false
        }
    };
    assert!(whole || reported, "{what}: a restore fails, and the check finds nothing");
    Outcome { reported, whole, older: false }
}

/// Does `act` with every number below `count`, on two threads that each have a copy of the store.
fn on_copies(repo: &Path, count: usize, act: impl Fn(&Path, &Path, usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let folder = memory_folder();
                let mine = folder.path().join("repo");
                copy(repo, &mine);
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    act(&mine, folder.path(), n);
                }
            });
        }
    });
}

/// Thousands of small files are quicker in memory.
fn memory_folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a folder")
}

fn all_objects(repo: &Path) -> Vec<PathBuf> {
    let both = objects(repo, "packs").into_iter().chain(objects(repo, "keys"));
    both.map(|path| path.strip_prefix(repo).expect("within").to_path_buf()).collect()
}

/// The place in all objects, joined, that `n` is: an object and an offset.
fn place_in(sizes: &[(PathBuf, Vec<u8>)], mut n: usize) -> (&Path, &[u8], usize) {
    for (path, bytes) in sizes {
        if n < bytes.len() {
            return (path, bytes, n);
        }
        n -= bytes.len();
    }
    panic!("beyond the last object");
}

fn read_all(repo: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    all_objects(repo).into_iter().map(|path| (path.clone(), fs::read(repo.join(path)).expect("read"))).collect()
}

#[test]
fn every_flipped_byte_is_noticed() {
    let place = tiny();
    let expected = tree(&place.data);
    let objects = read_all(&place.repo);
    let total: usize = objects.iter().map(|(_, bytes)| bytes.len()).sum();
    println!("{total} bytes in {} objects", objects.len());
    assert!((1000..20_000).contains(&total), "{total} bytes: no longer a store that every byte of can be tried");
    on_copies(&place.repo, total, |repo, scratch, n| {
        let (path, bytes, at) = place_in(&objects, n);
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        fs::write(repo.join(path), &flipped).expect("written");
        if n.is_multiple_of(16) {
            let _ = fs::remove_file(repo.join("index.redb"));
        }
        let outcome = look(repo, &expected, scratch, &format!("byte {at} of {}", path.display()));
        assert!(outcome.reported, "byte {at} of {} is nobody's", path.display());
        fs::write(repo.join(path), bytes).expect("written");
    });
}

#[test]
fn every_cut_is_noticed() {
    let place = tiny();
    let expected = tree(&place.data);
    let objects = read_all(&place.repo);
    let total: usize = objects.iter().map(|(_, bytes)| bytes.len()).sum();
    let step = if rounds() > 1 { 1 } else { 3 };
    on_copies(&place.repo, total / step, |repo, scratch, n| {
        let (path, bytes, at) = place_in(&objects, n * step);
        fs::write(repo.join(path), &bytes[..at]).expect("written");
        let outcome = look(repo, &expected, scratch, &format!("{} cut at {at}", path.display()));
        assert!(outcome.reported, "{} cut at {at}: not reported", path.display());
        fs::write(repo.join(path), bytes).expect("written");
    });
    on_copies(&place.repo, objects.len() * 3, |repo, scratch, n| {
        let (path, bytes) = &objects[n / 3];
        let longer = [bytes.as_slice(), &vec![[0u8, 0xff, bytes[0]][n % 3]; 1 + n * 7]].concat();
        fs::write(repo.join(path), longer).expect("written");
        let outcome = look(repo, &expected, scratch, &format!("{} with bytes after its end", path.display()));
        assert!(outcome.reported);
        fs::write(repo.join(path), bytes).expect("written");
    });
}

#[test]
fn objects_that_are_gone_doubled_or_swapped_are_noticed() {
    let place = tiny();
    let other = tiny();
    let expected = tree(&place.data);
    let scratch = memory_folder();
    let (ours, theirs) = (read_all(&place.repo), read_all(&other.repo));
    let fresh = |index: bool| {
        let repo = TempDir::new_in(scratch.path()).expect("a folder");
        copy(&place.repo, repo.path());
        if !index {
            fs::remove_file(repo.path().join("index.redb")).expect("removed");
        }
        repo
    };
    for index in [true, false] {
        let repo = fresh(index);
        let outcome = look(repo.path(), &expected, scratch.path(), "untouched");
        assert!(outcome.whole && !outcome.reported);
        for (at, (path, bytes)) in ours.iter().enumerate() {
            let name = path.display();
            let repo = fresh(index);
            fs::remove_file(repo.path().join(path)).expect("removed");
            let outcome = look(repo.path(), &expected, scratch.path(), &format!("{name} gone"));
            assert!(outcome.reported || outcome.older, "{name} gone");

            let repo = fresh(index);
            fs::write(repo.path().join(path).with_file_name("f0".repeat(16)), bytes).expect("written");
            let outcome = look(repo.path(), &expected, scratch.path(), &format!("{name} twice"));
            assert!(outcome.reported && outcome.whole, "{name} twice");

            for (with, bytes) in ours[at + 1..].iter().chain(&theirs) {
                let repo = fresh(index);
                fs::write(repo.path().join(path), bytes).expect("written");
                if ours.iter().any(|(path, _)| path == with) {
                    fs::write(repo.path().join(with), &ours[at].1).expect("written");
                }
                let what = format!("{name} for {}", with.display());
                let outcome = look(repo.path(), &expected, scratch.path(), &what);
                assert!(outcome.reported, "{what}");
            }
        }
    }
}

#[test]
fn packs_of_another_store_with_the_same_key_do_not_pass() {
    let (place, other) = (Place::taken(Some(KEY)), Place::taken(Some(KEY)));
    let credentials = || [Credential::VaultKey(KEY.to_owned())];
    let theirs = &other.packs()[0];
    fs::copy(theirs, place.repo.join("packs").join(theirs.file_name().expect("a name"))).expect("copied");
    let run = place.run(&["check", "--read-data"]);
    assert_eq!(run.code, 13, "{run:?}");
    assert!(run.out.contains("belongs to another store"), "{run:?}");
    place.assert_restores("beside");
    fs::copy(theirs, &place.packs()[0]).expect("copied");
    let store = Store::open(&place.repo, &credentials(), Access::Read).expect("the slot is whole");
    let report = check(&store, check::Options::default(), &Silent).expect("checked");
    assert!(!report.problems.is_empty());
}

// ---- the index ----------------------------------------------------------------------------------

/// What is answered about a store: through the binary, so that a crash is one.
fn answers(place: &Place, target: &str) -> Vec<String> {
    let mut all = Vec::new();
    for args in [&["snapshots", "--json"][..], &["ls", "-lR", "latest"], &["cat", "latest", "d/b"]] {
        let run = place.ok(args);
        all.push(format!("{:?}", run.raw));
        assert_eq!(
            run.err.replace("warning: this store is not protected", "").matches("warning").count(),
            0,
            "{run:?}"
        );
    }
    let (run, target) = place.restore("latest", target);
    assert_eq!(run.code, 0, "{run:?}");
    all.push(format!("{:?}", tree(&target)));
    fs::remove_dir_all(target).expect("removed");
    all
}

#[test]
fn any_index_gives_the_same_answers() {
    let place = tiny();
    let other = tiny();
    let index = place.repo.join("index.redb");
    let expected = answers(&place, "target");
    let whole = fs::read(&index).expect("an index");
    let replace = |with: Option<&[u8]>| {
        let _ = fs::remove_file(&index).or_else(|_| fs::remove_dir_all(&index));
        if let Some(bytes) = with {
            fs::write(&index, bytes).expect("written");
        }
    };
    let foreign = fs::read(other.repo.join("index.redb")).expect("an index");
    let noisy = noise(3, whole.len());
    let mut half = whole.clone();
    half[whole.len() / 2..].fill(0);
    let cases: [(&str, Option<&[u8]>); 6] = [
        ("gone", None),
        ("empty", Some(b"")),
        ("foreign", Some(&foreign)),
        ("noise", Some(&noisy)),
        ("half zeros", Some(&half)),
        ("text", Some(b"this is no database\n")),
    ];
    for (what, with) in cases {
        replace(with);
        assert_eq!(answers(&place, "target"), expected, "{what}");
        let now = fs::read(&index).expect("made anew");
        assert!(now.len() > 4096 && Some(now.as_slice()) != with, "{what}: not made anew");
        replace(with);
        let run = place.ok(&["snapshot"]);
        assert!(run.out.contains("nothing changed"), "{what}: {run:?}");
        assert!(fs::read(&index).expect("made anew").len() > 4096, "{what}");
        place.ok(&["check", "--read-data"]);
    }
    // What cannot be made anew is done without.
    replace(None);
    fs::create_dir(&index).expect("made");
    fs::write(index.join("file"), b"x").expect("written");
    assert_eq!(answers(&place, "target"), expected, "a directory");
    assert!(place.ok(&["snapshot"]).out.contains("nothing changed"));
    assert!(index.join("file").exists());
    place.ok(&["snapshot", "--note", "again"]);
    place.ok(&["check", "--read-data"]);
}

/// One look at a store through the library with an index that may be anything, and one snapshot.
fn use_index(repo: &Path, data: &Path, expected: &BTreeMap<PathBuf, Thing>, scratch: &Path, what: &str) {
    let outcome = look(repo, expected, scratch, what);
    assert!(outcome.whole && !outcome.reported, "{what}: the index decided something");
    let mut store = Store::open(repo, &[], Access::Write(std::time::Duration::from_secs(5)))
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    let options = take::Options { source: data.to_path_buf(), ..take::Options::default() };
    let taken = take(&mut store, &options, &Silent).unwrap_or_else(|e| panic!("{what}: {e}"));
    let at_most = if taken.unchanged { 2 } else { 3 };
    drop(store);
    let store = Store::open(repo, &[], Access::Read).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(store.records().expect("records").len(), at_most, "{what}");
    let report = check(&store, check::Options { read_data: true, subset: None }, &Silent).expect("checked");
    assert!(report.problems.is_empty(), "{what}: {:?}", report.problems);
}

fn on_indexes(count: usize, damage: impl Fn(usize, &[u8]) -> (String, Vec<u8>) + Sync) {
    let place = tiny();
    let expected = tree(&place.data);
    let whole = fs::read(place.repo.join("index.redb")).expect("an index");
    on_copies(&place.repo, count, |_, scratch, n| {
        let repo = scratch.join("one");
        copy(&place.repo, &repo);
        let (what, bytes) = damage(n, &whole);
        fs::write(repo.join("index.redb"), bytes).expect("written");
        use_index(&repo, &place.data, &expected, scratch, &what);
        fs::remove_dir_all(repo).expect("removed");
    });
}

#[test]
fn an_index_that_was_cut_is_made_anew() {
    on_indexes(60, |n, whole| {
        let length = if n < 20 { whole.len() * n / 20 } else { n * n * 7 % whole.len() };
        (format!("cut at {length}"), whole[..length].to_vec())
    });
}

#[test]
fn an_index_with_flipped_bytes_does_no_harm() {
    let mut random = Random::seeded("flips in the index");
    // Most of the file is never written: what is, is where a flip can do something.
    let sample = tiny();
    let whole = fs::read(sample.repo.join("index.redb")).expect("an index");
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let count = 300 * rounds() as usize;
    let picks: Vec<Vec<(usize, u8)>> = (0..count)
        .map(|n| {
            let flips = if n % 10 == 9 { 40 } else { 1 };
            (0..flips)
                .map(|_| {
                    let near = if random.below(4) == 0 {
                        random.below(whole.len() as u64) as usize
                    } else {
                        used[random.below(used.len() as u64) as usize]
                    };
                    (near, 1 << random.below(8))
                })
                .collect()
        })
        .collect();
    on_indexes(count, |n, whole| {
        let mut bytes = whole.to_vec();
        for (at, bit) in &picks[n] {
            let at = at % bytes.len();
            bytes[at] ^= bit;
        }
        (format!("flips at {:?}", picks[n]), bytes)
    });
}

/// Chunk ids and places, as the index has them.
type Entries = Vec<(u128, u64)>;

/// An index that lies in the ways that matter: whoever can write to the backup disk can make one. Its chunk entries are
/// hints, and each is held against the packs (I6).
#[test]
fn an_index_that_lies_is_not_believed() {
    let place = tiny();
    let expected = tree(&place.data);
    let unseen = noise(99, 3000);
    let claimed = {
        let store = Store::open(&place.repo, &[], Access::Read).expect("opens");
        store.catalog().packs().keys().chunk_id(&unseen)
    };
    let table: redb::TableDefinition<'_, u128, u64> = redb::TableDefinition::new("chunks");
    let lie = |change: &dyn Fn(&mut Entries)| {
        let database = redb::Database::open(place.repo.join("index.redb")).expect("an index");
        let transaction = database.begin_write().expect("begun");
        {
            let mut chunks = transaction.open_table(table).expect("a table");
            let mut entries: Entries = redb::ReadableTable::iter(&chunks)
                .expect("entries")
                .map(|entry| entry.map(|(id, place)| (id.value(), place.value())).expect("an entry"))
                .collect();
            change(&mut entries);
            for (id, place) in entries {
                chunks.insert(id, place).expect("inserted");
            }
        }
        transaction.commit().expect("committed");
    };
    let scratch = memory_folder();
    let sound = |what: &str| {
        let outcome = look(&place.repo, &expected, scratch.path(), what);
        assert!(outcome.whole && !outcome.reported, "{what}");
    };
    lie(&|entries| {
        let places: Vec<u64> = entries.iter().map(|(_, place)| *place).collect();
        for (n, (_, place)) in entries.iter_mut().enumerate() {
            *place = places[(n + 1) % places.len()];
        }
    });
    sound("places that are each other's");
    lie(&|entries| entries.iter_mut().for_each(|(_, place)| *place = u64::MAX));
    sound("places that are none");
    lie(&|entries| {
        let place = entries[0].1;
        entries.push((u128::from_be_bytes(claimed.0), place));
    });
    // The index says that this is stored already. It is not.
    fs::write(place.data.join("unseen"), &unseen).expect("written");
    place.ok(&["snapshot"]);
    place.assert_restores("target");
    place.ok(&["check", "--read-data"]);
}

// ---- what is lost, and what heals ---------------------------------------------------------------

/// A store of three snapshots, and the second one's pack. So few entries change so much that no directory is kept as a
/// patch against another pack: what is lost with a pack is what was in it.
fn three() -> (Place, PathBuf) {
    let place = Place::empty();
    let write = |name: &str, seed: u64| {
        let path = place.data.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, noise(seed, 5000)).expect("written");
    };
    write("a/old", 1);
    write("b/x", 2);
    place.ok(&["snapshot"]);
    let first = place.packs();
    write("b/young", 3);
    place.ok(&["snapshot"]);
    let second = place.packs().into_iter().find(|path| !first.contains(path)).expect("a second pack");
    (place, second)
}

#[test]
fn a_lost_pack_costs_what_was_in_it_and_nothing_else() {
    let (place, second) = three();
    fs::write(place.data.join("b/x"), noise(4, 5000)).expect("written");
    fs::write(place.data.join("b/z"), noise(5, 5000)).expect("written");
    place.ok(&["snapshot"]);

    fs::remove_file(&second).expect("removed");
    let (run, target) = place.restore("latest", "target");
    assert_eq!(run.code, 13, "{run:?}");
    assert_eq!(run.err.matches("not restored: ").count(), 1, "{run:?}");
    assert!(run.err.contains("not restored: b/young:"), "the lost path is named: {run:?}");
    let mut expected = tree(&place.data);
    expected.remove(Path::new("b/young"));
    assert_equal(&expected, &tree(&target));
    for (path, code) in [("a/old", 0), ("b/z", 0), ("b/young", 13)] {
        assert_eq!(place.run(&["cat", "latest", path]).code, code, "{path}");
    }
    let run = place.run(&["check"]);
    assert_eq!(run.code, 13, "{run:?}");
    assert!(run.out.lines().any(|line| line.trim() == "b/young"), "the lost path is named: {run:?}");

    // Nothing changed in the data directory; all the same the snapshot stores what the store has lost.
    let run = place.ok(&["snapshot"]);
    assert!(!run.out.contains("nothing was stored"), "{run:?}");
    place.assert_restores("healed");
    let run = place.run(&["check", "--read-data"]);
    assert!(!run.out.contains("is in no pack"), "all data is there again: {run:?}");
    assert!(place.ok(&["snapshot"]).out.contains("nothing changed"), "once is enough");
}

#[test]
fn a_lost_directory_costs_what_is_in_it_and_nothing_else() {
    let (place, second) = three();
    fs::write(place.data.join("a/youngest"), noise(4, 5000)).expect("written");
    place.ok(&["snapshot"]);
    fs::remove_file(&second).expect("removed");
    let (run, target) = place.restore("latest", "target");
    assert_eq!(run.code, 13, "{run:?}");
    assert_eq!(run.err.matches("not restored: ").count(), 1, "{run:?}");
    assert!(run.err.contains("not restored: b:"), "the lost path is named: {run:?}");
    let mut expected = tree(&place.data);
    expected.retain(|path, _| path == Path::new("b") || !path.starts_with("b"));
    assert_equal(&expected, &tree(&target));
    let run = place.run(&["check"]);
    assert!(run.code == 13 && run.out.lines().any(|line| line.trim() == "b"), "{run:?}");
    let run = place.run(&["ls", "-R", "latest"]);
    assert!(run.code == 13 && run.err.contains(": b:"), "{run:?}");
    assert_eq!(place.ok(&["ls", "-R", "latest", "a"]).out, "a/old\na/youngest\n");
    place.ok(&["snapshot"]);
    place.assert_restores("healed");
}

#[test]
fn any_lost_pack_heals() {
    for lost in 0..4 {
        for change in [false, true] {
            let place = Place::filled(None);
            for n in 0..4 {
                fs::write(place.data.join(format!("file {n}")), noise(n, 3000)).expect("written");
                fs::write(place.data.join("workspace/letter.txt"), noise(n, 3000)).expect("written");
                place.ok(&["snapshot"]);
            }
            let mut packs = place.packs();
            packs.sort_by_key(|path| fs::metadata(path).expect("there").modified().expect("a time"));
            fs::remove_file(&packs[lost]).expect("removed");
            if change {
                fs::write(place.data.join("script"), "changed").expect("written");
            }
            place.ok(&["snapshot"]);
            place.assert_restores("target");
            let run = place.run(&["check", "--read-data", "--json"]);
            let report: serde_json::Value = serde_json::from_str(&run.out).expect("JSON");
            let newest = place.ok(&["snapshots", "--json"]);
            let newest: serde_json::Value =
                serde_json::from_str(newest.out.lines().last().expect("a line")).expect("JSON");
            let affected = report["affected"].as_array().expect("a list");
            assert!(affected.iter().all(|one| one["snapshot"] != newest["snapshot"]), "{run:?}");
        }
    }
}

#[test]
fn a_pack_put_back_is_whole_again() {
    let place = Place::taken(None);
    let pack = &place.packs()[0];
    let aside = place.path("aside");
    fs::rename(pack, &aside).expect("moved");
    place.ok(&["snapshots"]);
    place.ok(&["snapshot"]);
    fs::rename(&aside, pack).expect("moved back");
    place.assert_restores("target");
    place.ok(&["snapshot"]);
    place.assert_restores("again");
}

/// Many files with a chunk in one bad segment and chunks in others: those threads meet over each file.
#[test]
fn a_bad_segment_takes_its_files_and_no_others() {
    let place = Place::empty();
    // The chunks that all the damaged files share come first, and so lie together.
    let shared: Vec<u8> = noise(1, 70_000);
    fs::write(place.data.join("0"), &shared).expect("written");
    for n in 0..60u64 {
        let mut bytes = shared.clone();
        bytes.extend(noise(100 + n, 120_000));
        fs::write(place.data.join(format!("hit {n:02}")), bytes).expect("written");
        fs::write(place.data.join(format!("miss {n:02}")), noise(1000 + n, 9_000)).expect("written");
    }
    place.ok(&["snapshot", "--separate-files"]);
    let path = &place.packs()[0];
    let whole = fs::read(path).expect("read");
    let expected = tree(&place.data);
    // The shared chunks themselves; and later ones, when their files were begun with the shared chunks.
    for at in [200, whole.len() / 4, whole.len() / 2, whole.len() * 3 / 4, whole.len() * 9 / 10] {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        fs::write(path, bad).expect("written");
        let store = Store::open(&place.repo, &[], Access::Read).expect("opens");
        let records = store.records().expect("records");
        for round in 0..2 * rounds() {
            let what = format!("byte {at}, round {round}");
            let target = memory_folder();
            let options = restore::Options { target: target.path().to_path_buf(), ..restore::Options::default() };
            let restored = restore(&store, &records[0], &options, &Silent).unwrap_or_else(|e| panic!("{what}: {e}"));
            let found = tree(target.path());
            assert!(found.iter().all(|(path, thing)| expected.get(path) == Some(thing)), "{what}");
            let lost: Vec<_> = restored.damaged.iter().map(|(path, _)| path.display().to_string()).collect();
            if at == 200 {
                assert!(lost.len() >= 61 && lost.iter().all(|path| path == "0" || path.starts_with("hit")), "{lost:?}");
            } else {
                assert!((1..4).contains(&lost.len()), "{what}: {lost:?}");
            }
            assert_eq!(found.len() + lost.len(), expected.len(), "{what}");
        }
    }
    fs::write(path, whole).expect("written");
    let (run, target) = place.restore("latest", "target");
    assert_eq!(run.code, 0, "{run:?}");
    assert_same(&place.data, &target);
    assert_equal(&expected, &tree(&target));
}
