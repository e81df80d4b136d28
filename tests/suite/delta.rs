//! Delta segments: what is stored as the difference from the version before comes back, whatever became of what it
//! builds on; and where that rotted, it is said, and nothing new is built on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::{self, KEY, Place, Random, noise, rounds};
use nbak::crypto::secret::Credential;
use nbak::id::ChunkId;
use nbak::index::trail::Trail;
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
fn a_trail_leads_to_what_was_asked_for_in_any_order() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    let mut random = Random::seeded("trail");
    make(&place.data.join("history.db"));
    // Pages of zeros are stored nowhere, and pages that are equal once.
    fs::write(place.data.join("graph"), [noise(1, 300_000), vec![0; 70_000], noise(1, 300_000)].concat())
        .expect("written");
    for _ in 0..6 {
        place.ok(&["snapshot"]);
        age(&place.data.join("history.db"), &mut random);
    }
    let store = Store::open(&place.repo, &[Credential::VaultKey(KEY.into())], Access::Read).expect("opens");
    let ids: BTreeSet<ChunkId> =
        packs(&place).iter().flat_map(|pack| pack.footer.chunks().map(|(.., chunk)| chunk.id)).collect();
    let mut ids: Vec<ChunkId> = ids.into_iter().collect();
    // In the order of the packs, most of them follow each other; then backwards, and in none.
    let place_of = |id: ChunkId| store.catalog().locate(id).expect("found").1;
    ids.sort_by_key(|id| (place_of(*id).pack, place_of(*id).segment, place_of(*id).nth));
    let backwards: Vec<ChunkId> = ids.iter().rev().copied().collect();
    let gaps: Vec<ChunkId> = ids.iter().copied().filter(|_| random.below(4) > 0).collect();
    let mixed: Vec<ChunkId> = (0..ids.len()).map(|_| ids[random.below(ids.len() as u64) as usize]).collect();
    assert!(ids.len() > 200, "{}", ids.len());
    for order in [ids, backwards, gaps, mixed] {
        let mut trail = Trail::default();
        for id in order {
            let (pack, at) = trail.locate(store.catalog(), id).expect("found");
            assert_eq!(pack.id, at.pack);
            assert_eq!(pack.footer.segments[at.segment as usize].chunks[at.nth as usize].id, id);
        }
        assert!(trail.locate(store.catalog(), ChunkId([7; 16])).is_err(), "what is nowhere is not found");
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

/// Flips one bit near the end of a pack, in its footer, or in its header: no segment is touched.
fn rot_around(path: &Path, footer: bool) {
    let mut bytes = fs::read(path).expect("read");
    let at = if footer { bytes.len() - 60 } else { 40 };
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
}

fn pages(place: &Place, five: u64, six: &[u64]) {
    let mut bytes = noise(1, 32 * 4096);
    bytes[5 * 4096..6 * 4096].copy_from_slice(&noise(1000 + five, 4096));
    let mut page = noise(2000, 4096);
    for (nth, change) in six.iter().enumerate() {
        page[nth * 100..nth * 100 + 8].copy_from_slice(&change.to_le_bytes());
    }
    bytes[6 * 4096..7 * 4096].copy_from_slice(&page);
    fs::write(place.data.join("f"), bytes).expect("written");
}

/// A pack whose footer does not open holds the base of a delta, and the content of that base comes back: the index
/// still leads to the old copy, and so do those that build on it.
#[test]
fn what_comes_back_does_not_shadow_what_others_build_on() {
    for (footer, check) in [(false, false), (true, false), (false, true), (true, true)] {
        let place = Place { key: Some(KEY), ..Place::empty() };
        let mut packs = BTreeSet::new();
        let mut snapshot = |place: &Place, tag: &str| -> PathBuf {
            place.ok(&["snapshot", "--tag", tag]);
            let now: BTreeSet<PathBuf> = place.packs().into_iter().collect();
            let new = now.difference(&packs).next().expect("a pack").clone();
            packs = now;
            new
        };
        pages(&place, 0, &[1]);
        snapshot(&place, "v1");
        pages(&place, 0, &[1, 2]);
        let holds_base = snapshot(&place, "v2");
        let mut versions = Vec::new();
        for six in [&[1, 2, 3][..], &[1, 2, 3, 4], &[1, 2, 3, 4, 5]] {
            pages(&place, 0, six);
            snapshot(&place, &format!("v{}", six.len()));
            versions.push((format!("v{}", six.len()), fs::read(place.data.join("f")).expect("read")));
        }
        assert!(depths(&place).contains_key(&3), "{:?}", depths(&place));
        rot_around(&holds_base, footer);
        if check {
            assert_eq!(place.run(&["check", "--read-data"]).code, 13);
        }
        // The content of the damaged pack is at hand again, and beside it what others need.
        pages(&place, 7, &[1, 2]);
        place.ok(&["snapshot"]);
        place.assert_restores("now");
        for (tag, bytes) in &versions {
            let (run, target) = place.restore(tag, tag);
            assert_eq!(run.code, 0, "{footer} {check} {tag}: {run:?}");
            assert!(fs::read(target.join("f")).expect("read") == *bytes, "{tag}");
        }
        // And it stays so when the index, which knew the damaged pack from better days, is gone.
        fs::remove_file(place.repo.join("index.redb")).expect("removed");
        place.assert_restores("without the index");
        place.ok(&["snapshot"]);
        place.assert_restores("after all");
    }
}

/// A row goes back to what it was while the pack that holds that version is damaged: its recipe must not become a patch
/// of one that is a patch of it.
#[test]
fn what_goes_back_does_not_build_on_itself() {
    for (footer, check) in [(false, false), (true, false), (false, true), (true, true)] {
        let place = Place { key: Some(KEY), ..Place::empty() };
        let database = place.data.join("history.db");
        make(&database);
        let set = |value: &str| {
            let conn = Connection::open(&database).expect("open");
            conn.execute("UPDATE t SET n = ?1 WHERE id = 7", [value]).expect("updated");
            conn.close().expect("closed");
        };
        place.ok(&["snapshot"]);
        let before: BTreeSet<PathBuf> = place.packs().into_iter().collect();
        set("one");
        place.ok(&["snapshot"]);
        let pack = place.packs().into_iter().find(|pack| !before.contains(pack)).expect("a pack");
        set("two");
        place.ok(&["snapshot"]);
        rot_around(&pack, footer);
        if check {
            assert_eq!(place.run(&["check", "--read-data"]).code, 13);
        }
        set("one");
        place.ok(&["snapshot"]);
        place.assert_restores("now");
        fs::remove_file(place.repo.join("index.redb")).expect("removed");
        place.assert_restores("without the index");
        place.ok(&["snapshot"]);
        place.assert_restores("after all");
    }
}

/// A check that finds a pack whose footer does not open is enough for the next snapshot to store again what it held.
#[test]
fn a_pack_that_does_not_open_is_mended_after_a_check() {
    for args in [&["check"][..], &["check", "--read-data"]] {
        let (place, below) = with_a_delta();
        rot_around(&below, true);
        assert_eq!(place.run(args).code, 13);
        place.ok(&["snapshot"]);
        fs::remove_file(place.repo.join("index.redb")).expect("removed");
        place.assert_restores("mended");
    }
}

/// What stands where it stood in a version that is whole is not followed again: this one is not whole.
#[test]
fn each_version_of_a_file_whose_old_pages_rotted_is_named() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    let mut first = None;
    for version in 1..4 {
        // A page of noise for a page of noise: the new one builds on nothing.
        pages(&place, version, &[]);
        place.ok(&["snapshot"]);
        first.get_or_insert_with(|| place.packs()[0].clone());
    }
    assert_eq!(depths(&place).keys().max(), Some(&0));
    rot(&place, &first.expect("a pack"));
    let check = place.run(&["check", "--read-data", "--json"]);
    assert_eq!(check.code, 13, "{check:?}");
    let check: serde_json::Value = serde_json::from_str(&check.out).expect("JSON");
    let paths: Vec<_> = check["affected"].as_array().expect("a list").iter().map(|one| &one["paths"][0]).collect();
    assert_eq!(paths, ["f", "f", "f"]);
}
