//! Delta segments: what is stored as the difference from the version before comes back, whatever became of what it
//! builds on; and where that rotted, it is said, and nothing new is built on it.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{KEY, Place, Random, noise, rounds};
use nbak::crypto::secret::Credential;
use nbak::snapshot::store::{Access, Store};
use nbak::store::reader::Pack;
use nbak::store::segment::Content;
use rusqlite::Connection;

/// No delta lies deeper.
const DEEPEST: u8 = 8;

fn packs(place: &Place) -> Vec<Arc<Pack>> {
    let credentials = [Credential::VaultKey(KEY.into())];
    let store = Store::open(&place.repo, &credentials, Access::Read).expect("opens");
    let packs = store.catalog().packs();
    packs.list().expect("lists").into_iter().map(|id| packs.open(id).expect("opens")).collect()
}

/// How many segments lie how deep.
fn depths(place: &Place) -> BTreeMap<u8, usize> {
    let mut depths = BTreeMap::new();
    for segment in packs(place).iter().flat_map(|pack| &pack.footer.segments) {
        *depths.entry(segment.depth).or_default() += 1;
    }
    depths
}

/// A database of about a megabyte whose rows are found by number.
fn make(path: &Path) {
    let conn = Connection::open(path).expect("open");
    conn.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, n INT);
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<4000)
         INSERT INTO t SELECT x, hex(randomblob(100)), 0 FROM n;",
    )
    .expect("filled");
    conn.close().expect("closed");
}

fn age(path: &Path, random: &mut Random) {
    let conn = Connection::open(path).expect("open");
    for _ in 0..=random.below(20) {
        // A few rows again and again, and any other now and then.
        let row = if random.below(3) > 0 { random.below(60) } else { random.below(4000) };
        conn.execute("UPDATE t SET n = n + 1 WHERE id = ?1", [row as i64]).expect("updated");
    }
    if random.below(4) == 0 {
        conn.execute("INSERT INTO t(v, n) VALUES(hex(randomblob(500)), 1)", []).expect("inserted");
    }
    conn.close().expect("closed");
}

#[test]
fn versions_come_back_and_no_chain_is_long() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    let mut random = Random::seeded("versions");
    let (database, text) = (place.data.join("history.db"), place.data.join("memory.txt"));
    make(&database);
    fs::write(&text, "a line of text that is not the same as others\n".repeat(700)).expect("written");
    place.ok(&["snapshot", "--tag", "v0"]);
    let first: u64 = place.packs().iter().map(|pack| fs::metadata(pack).expect("a pack").len()).sum();
    let mut versions = vec![(fs::read(&database).expect("read"), fs::read(&text).expect("read"))];
    let steps = 30 * rounds();
    for step in 1..=steps {
        age(&database, &mut random);
        let grown = [fs::read(&text).expect("read"), format!("and one more line, number {step}\n").into_bytes()];
        fs::write(&text, grown.concat()).expect("written");
        place.ok(&["snapshot", "--tag", &format!("v{step}")]);
        versions.push((fs::read(&database).expect("read"), fs::read(&text).expect("read")));
    }
    let depths = depths(&place);
    assert!(depths.keys().all(|depth| *depth <= DEEPEST), "{depths:?}");
    assert!(depths.contains_key(&DEEPEST) && depths.values().skip(1).sum::<usize>() > 50, "{depths:?}");
    let all: u64 = place.packs().iter().map(|pack| fs::metadata(pack).expect("a pack").len()).sum();
    let each = (all - first) / steps;
    // Each of the ten or so pages takes about 2.2 kB by itself.
    assert!(each < 12_000, "{each} bytes for each snapshot");
    assert!(place.ok(&["check", "--read-data"]).out.contains("no problem"));
    for (step, (bytes, words)) in versions.iter().enumerate() {
        let (run, target) = place.restore(&format!("v{step}"), "version");
        assert_eq!(run.code, 0, "{run:?}");
        assert!(fs::read(target.join("history.db")).expect("read") == *bytes, "version {step} of the database");
        assert!(fs::read(target.join("memory.txt")).expect("read") == *words, "version {step} of the text");
        fs::remove_dir_all(target).expect("removed");
        assert!(place.ok(&["cat", &format!("v{step}"), "history.db"]).raw == *bytes, "version {step}, read in order");
    }
}

#[test]
fn what_is_mostly_new_is_stored_by_itself() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    make(&place.data.join("history.db"));
    fs::write(place.data.join("noise"), noise(1, 3_000_000)).expect("written");
    place.ok(&["snapshot"]);
    let conn = Connection::open(place.data.join("history.db")).expect("open");
    conn.execute_batch("UPDATE t SET v = hex(randomblob(100)); VACUUM").expect("changed");
    conn.close().expect("closed");
    fs::write(place.data.join("noise"), noise(2, 3_000_000)).expect("written");
    place.ok(&["snapshot"]);
    // The first page differs in its counters alone, and a few others are at hand before it is known how many changed.
    let deltas: usize = depths(&place).into_iter().filter(|(depth, _)| *depth > 0).map(|(_, count)| count).sum();
    assert!(deltas <= 16, "{deltas}");
    place.assert_restores("after");
}

/// A place whose database was changed a little and captured again; and the pack that holds what that builds on.
fn with_a_delta() -> (Place, PathBuf) {
    let place = Place { key: Some(KEY), ..Place::empty() };
    make(&place.data.join("history.db"));
    fs::write(place.data.join("other"), noise(3, 50_000)).expect("written");
    place.ok(&["snapshot", "--tag", "old"]);
    let below = place.packs()[0].clone();
    change(&place, 7);
    place.ok(&["snapshot", "--tag", "new"]);
    assert!(depths(&place).contains_key(&1));
    (place, below)
}

fn change(place: &Place, row: i64) {
    let conn = Connection::open(place.data.join("history.db")).expect("open");
    conn.execute("UPDATE t SET n = n + 1 WHERE id = ?1", [row]).expect("updated");
    conn.close().expect("closed");
}

/// Flips a byte in every segment of a pack that holds data.
fn rot(place: &Place, path: &Path) {
    let id = path.file_name().expect("a name").to_string_lossy().into_owned();
    let pack = packs(place).into_iter().find(|pack| pack.id.to_string() == id).expect("known");
    let mut bytes = fs::read(path).expect("read");
    for segment in pack.footer.segments.iter().filter(|segment| segment.content == Content::Data) {
        bytes[(segment.offset + u64::from(segment.stored) / 2) as usize] ^= 1;
    }
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_damaged_base_is_named_with_what_builds_on_it() {
    let (place, below) = with_a_delta();
    let above = place.packs().into_iter().find(|pack| *pack != below).expect("two packs");
    rot(&place, &below);
    let check = place.run(&["check", "--read-data"]);
    assert_eq!(check.code, 13, "{check:?}");
    let named = |line: &str, path: &Path| line.contains(&path.to_string_lossy().into_owned());
    let built: Vec<&str> = check.out.lines().filter(|line| line.contains("builds on chunk")).collect();
    assert!(built.iter().any(|line| named(line, &above) && named(line, &below)), "{check:?}");
    let (run, target) = place.restore("latest", "lost");
    assert_eq!(run.code, 13, "{run:?}");
    assert!(run.err.contains("history.db") && !target.join("history.db").exists(), "{run:?}");
    // The data is still at hand: the next snapshot stores it again, the deltas with it.
    place.ok(&["snapshot"]);
    place.assert_restores("mended");
    let (run, mended) = place.restore("new", "mended-too");
    assert_eq!(run.code, 0, "what it shares with the newest is there again: {run:?}");
    common::assert_same(&place.data, &mended);
}

#[test]
fn a_base_that_is_gone_is_named_with_what_builds_on_it() {
    let (place, below) = with_a_delta();
    fs::remove_file(&below).expect("removed");
    let check = place.run(&["check"]);
    assert!(check.code == 13 && check.out.contains("builds on chunk"), "{check:?}");
    place.ok(&["snapshot"]);
    place.assert_restores("again");
}

/// I20.
#[test]
fn nothing_is_built_on_what_rotted_unnoticed() {
    let (place, below) = with_a_delta();
    rot(&place, &below);
    // All pages are new, so that the snapshot needs nothing of the old pack but as bases.
    change(&place, 7);
    let before: BTreeSet<PathBuf> = place.packs().into_iter().collect();
    place.ok(&["snapshot"]);
    let after: BTreeSet<PathBuf> = place.packs().into_iter().collect();
    let new = after.difference(&before).next().expect("a pack").file_name().expect("a name").to_owned();
    let packs = packs(&place);
    let pack = packs.iter().find(|pack| *pack.id.to_string() == *new).expect("known");
    let rests = pack.footer.segments.iter().filter(|segment| !segment.bases.is_empty()).count();
    assert_eq!(rests, 0, "a delta was made against what cannot be read");
}

#[test]
fn a_copy_elsewhere_stands_in_for_a_damaged_base() {
    let (place, below) = with_a_delta();
    // While the pack is away, the old content is captured from another file.
    let (run, old) = place.restore("old", "old");
    assert_eq!(run.code, 0, "{run:?}");
    let aside = place.path("aside");
    fs::rename(&below, &aside).expect("moved");
    fs::copy(old.join("history.db"), place.data.join("copy.db")).expect("copied");
    place.ok(&["snapshot"]);
    fs::rename(&aside, &below).expect("moved back");
    rot(&place, &below);
    let (run, target) = place.restore("new", "target");
    assert_eq!(run.code, 0, "{run:?}");
    for name in ["history.db", "other"] {
        assert!(fs::read(target.join(name)).expect("read") == fs::read(place.data.join(name)).expect("read"), "{name}");
    }
}
