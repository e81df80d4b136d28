//! `nbak stats`: what each snapshot alone holds is what forgetting it frees, and all figures add up to what is stored.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::{self, KEY, Place, Random, noise, rounds};
use nbak::crypto::secret::Credential;
use nbak::snapshot::record::Record;
use nbak::snapshot::store::{Access, Store};
use nbak::upkeep::mark::mark;
use nbak::upkeep::spans::{NOBODY, spans};
use nbak::upkeep::survey::Survey;
use rusqlite::Connection;
use serde_json::Value;

/// By how much a prediction may be wrong here, in bytes: footers, records and the ledger.
const NEAR: u64 = 8_000;

fn place() -> Place {
    Place { key: Some(KEY), ..Place::empty() }
}

fn write(place: &Place, name: &str, seed: u64, length: usize) {
    fs::write(place.data.join(name), noise(seed, length)).expect("written");
}

fn remove(place: &Place, name: &str) {
    fs::remove_file(place.data.join(name)).expect("removed");
}

fn take(place: &Place, tag: &str) {
    place.ok(&["snapshot", "--tag", tag]);
}

fn lines(place: &Place, args: &[&str]) -> Vec<Value> {
    let run = place.ok(&[&["stats", "--json"], args].concat());
    run.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn summary(place: &Place) -> Value {
    let mut lines = lines(place, &[]);
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} is a number: {value}"))
}

/// What the snapshot called `tag` alone holds.
fn only(place: &Place, tag: &str) -> u64 {
    let lines = lines(place, &[tag]);
    assert!(lines.len() == 1 && lines[0]["tags"][0] == tag, "{lines:?}");
    assert_eq!(lines[0]["together_bytes"], lines[0]["only_bytes"], "of one alone they are the same");
    number(&lines[0], "only_bytes")
}

fn assert_near(a: u64, b: u64) {
    assert!(a.abs_diff(b) < NEAR, "{a} is not about {b}");
}

/// Bytes of all packs, by `stat`.
fn on_disk(place: &Place) -> u64 {
    place.packs().iter().map(|pack| fs::metadata(pack).expect("a pack").len()).sum()
}

/// Holds the figures against one another, and answers the summary.
fn assert_adds_up(place: &Place) -> Value {
    let (all, each) = (summary(place), lines(place, &["--snapshots"]));
    let sum = |field: &str| each.iter().map(|one| number(one, field)).sum::<u64>();
    let of = |field: &str| number(&all, field);
    assert_eq!(of("stored_bytes"), on_disk(place));
    assert_eq!(of("needed_bytes"), of("only_bytes") + of("shared_bytes") + of("overhead_bytes"), "{all}");
    assert_eq!(of("stored_bytes"), of("needed_bytes") + of("unneeded_bytes"), "{all}");
    assert_eq!(sum("only_bytes"), of("only_bytes"), "{each:?}");
    assert_eq!(sum("added_bytes"), of("only_bytes") + of("shared_bytes"), "{each:?}");
    assert_eq!(each.len() as u64, of("snapshots"));
    let days = all["growth"].as_array().expect("a list");
    assert_eq!(days.iter().map(|day| number(day, "added_bytes")).sum::<u64>(), sum("added_bytes"), "{days:?}");
    assert_eq!(days.iter().map(|day| number(day, "snapshots")).sum::<u64>(), of("snapshots"), "{days:?}");
    assert!(
        all["complete"] == true && each.iter().all(|one| one["complete"] == true && one["together_bytes"].is_null())
    );
    all
}

#[test]
fn what_one_alone_holds_is_what_forgetting_it_frees() {
    let place = place();
    write(&place, "base", 1, 1_500_000);
    take(&place, "v1");
    write(&place, "unique", 2, 3_000_000);
    take(&place, "v2");
    remove(&place, "unique");
    write(&place, "small", 3, 20_000);
    take(&place, "v3");
    let all = assert_adds_up(&place);
    assert!(number(&all, "unneeded_bytes") == 0 && number(&all, "shared_bytes") >= 1_500_000, "{all}");
    let alone = only(&place, "v2");
    assert!((3_000_000..3_000_000 + NEAR).contains(&alone), "{alone}");
    assert!(only(&place, "v1") < NEAR);
    assert_near(only(&place, "v3"), 20_000);

    let before = on_disk(&place);
    place.ok(&["forget", "v2"]);
    let all = assert_adds_up(&place);
    assert_near(number(&all, "unneeded_bytes"), alone);
    assert_eq!((number(&all, "snapshots"), number(&all, "forgotten_snapshots")), (2, 1));
    let text = place.ok(&["stats"]).out;
    assert!(text.contains("forgotten      1 snapshot,") && text.contains("not needed     3.0 MB"), "{text}");
    place.ok(&["gc"]);
    assert_near(before - on_disk(&place), alone);
    let all = assert_adds_up(&place);
    assert!(number(&all, "unneeded_bytes") < NEAR && number(&all, "forgotten_snapshots") == 0, "{all}");
}

#[test]
fn a_forgotten_snapshot_holds_nothing() {
    let place = place();
    write(&place, "both", 1, 1_000_000);
    write(&place, "first", 2, 500_000);
    take(&place, "v1");
    remove(&place, "first");
    write(&place, "second", 3, 50_000);
    take(&place, "v2");
    assert_near(only(&place, "v1"), 500_000);
    assert_near(only(&place, "v2"), 50_000);
    place.ok(&["forget", "v1"]);
    assert_near(only(&place, "v2"), 1_050_000);
    let all = assert_adds_up(&place);
    assert_eq!(number(&all, "shared_bytes"), 0, "{all}");
    assert_near(number(&all, "unneeded_bytes"), 500_000);
    place.run(&["stats", "v1"]).exits_with(2);
    place.ok(&["undelete", "all"]);
    assert_near(only(&place, "v2"), 50_000);
    place.ok(&["forget", "v1", "v2"]);
    assert_eq!(number(&assert_adds_up(&place), "needed_bytes"), number(&summary(&place), "overhead_bytes"));
}

#[test]
fn what_is_in_two_is_of_neither_alone() {
    let place = place();
    write(&place, "file", 1, 400_000);
    fs::create_dir(place.data.join("folder")).expect("made");
    write(&place, "folder/inner", 2, 10_000);
    take(&place, "v1");
    take(&place, "same");
    assert_eq!((only(&place, "v1"), only(&place, "same")), (0, 0), "one is as good as the other");
    place.ok(&["forget", "v1"]);
    assert_near(only(&place, "same"), 410_000);

    // What is away for a while, what has another name, and what comes back elsewhere.
    fs::rename(place.data.join("file"), place.data.join("folder/moved")).expect("moved");
    take(&place, "v2");
    remove(&place, "folder/moved");
    take(&place, "v3");
    write(&place, "again", 1, 400_000);
    take(&place, "v4");
    for tag in ["same", "v2", "v3", "v4"] {
        let alone = only(&place, tag);
        assert!(alone < NEAR, "{tag}: {alone}");
    }
    let lines = lines(&place, &["v4"]);
    assert!(number(&lines[0], "added_bytes") < NEAR, "the store had it: {lines:?}");
    assert_adds_up(&place);
}

#[test]
fn of_several_it_is_told_what_only_they_hold() {
    let place = place();
    write(&place, "all", 1, 300_000);
    take(&place, "v1");
    write(&place, "two", 2, 1_000_000);
    take(&place, "v2");
    write(&place, "three", 3, 100_000);
    take(&place, "v3");
    remove(&place, "two");
    remove(&place, "three");
    take(&place, "v4");
    assert!(only(&place, "v2") < NEAR);
    assert_near(only(&place, "v3"), 100_000);
    let named = lines(&place, &["v3", "v2"]);
    assert_eq!((named.len(), &named[0]["tags"][0], &named[1]["tags"][0]), (2, &"v2".into(), &"v3".into()));
    let together = number(&named[0], "together_bytes");
    assert_near(together, 1_100_000);
    assert_eq!(together, number(&named[1], "together_bytes"));
    let text = place.ok(&["stats", "v2", "v3"]).out;
    assert!(text.ends_with("these 2 hold 1.1 MB that no other needs\n"), "{text}");
    assert_eq!(place.ok(&["stats", "--snapshots"]).out.lines().count(), 4);
    let before = on_disk(&place);
    place.ok(&["forget", "v2", "v3"]);
    place.ok(&["gc"]);
    assert_near(before - on_disk(&place), together);
}

#[test]
fn json_has_all_fields_and_what_makes_no_sense_is_refused() {
    let place = place();
    write(&place, "file", 1, 50_000);
    fs::write(place.data.join("text"), "a line of text\n".repeat(20_000)).expect("written");
    take(&place, "v1");
    let all = summary(&place);
    for field in ["snapshots", "packs", "stored_bytes", "data_bytes", "metadata_bytes", "chunks", "chunk_bytes"] {
        assert!(number(&all, field) > 0, "{field}: {all}");
    }
    for field in ["needed_bytes", "only_bytes", "shared_bytes", "overhead_bytes", "unneeded_bytes"] {
        number(&all, field);
    }
    assert!(all["store"].is_string() && all["protected"] == true && number(&all, "snapshot_bytes") == 350_000, "{all}");
    let one = lines(&place, &["latest"]).remove(0);
    assert!(one["snapshot"].is_string() && one["started"].is_string() && one["source"].is_string(), "{one}");
    assert_eq!((number(&one, "bytes"), number(&one, "added_chunk_bytes")), (350_000, number(&all, "chunk_bytes")));
    assert!((50_000..55_000).contains(&number(&one, "added_bytes")), "{one}");
    place.run(&["stats", "--snapshots", "v1"]).exits_with(2);
    let unknown = place.run(&["stats", "v9"]).exits_with(2);
    assert!(unknown.err.contains("nbak snapshots"), "{unknown:?}");
}

#[test]
fn what_cannot_be_followed_is_said() {
    let place = place();
    write(&place, "file", 1, 50_000);
    take(&place, "v1");
    let old = place.packs();
    write(&place, "more", 2, 50_000);
    take(&place, "v2");
    let aside = place.path("aside");
    fs::rename(&old[0], &aside).expect("moved");
    let run = place.ok(&["stats", "--json"]);
    let all: Value = serde_json::from_str(&run.out).expect("JSON");
    assert!(all["complete"] == false && run.err.contains("nbak check"), "{run:?}");

    // What is at hand is stored again. When the pack is back there are two copies, and one of them is needed.
    take(&place, "v3");
    fs::rename(&aside, &old[0]).expect("moved back");
    let all = assert_adds_up(&place);
    assert_near(number(&all, "unneeded_bytes"), 50_000);
    assert_near(number(&all, "only_bytes") + number(&all, "shared_bytes"), 100_000);
}

trait Exits {
    fn exits_with(self, code: i32) -> Self;
}

impl Exits for common::Run {
    fn exits_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// A directory in which anything may happen between two snapshots.
fn change(data: &Path, random: &mut Random) {
    let name =
        |random: &mut Random| format!("{}/file-{}", ["a", "a/b", "c"][random.below(3) as usize], random.below(5));
    for _ in 0..=random.below(4) {
        let (one, other) = (data.join(name(random)), data.join(name(random)));
        match random.below(8) {
            0 | 1 => drop(fs::remove_file(one)),
            2 | 3 => drop(fs::rename(one, other)),
            4 => drop(fs::copy(one, other)),
            // Contents come back, and longer ones begin like shorter ones.
            _ => fs::write(one, noise(random.below(3), [0, 700, 90_000, 1_500_000][random.below(4) as usize]))
                .expect("w"),
        }
    }
    if random.below(2) == 0 {
        let conn = Connection::open(data.join("c.db")).expect("open");
        conn.execute("UPDATE t SET v = hex(randomblob(150)) WHERE id = ?1", [random.below(900) as i64])
            .expect("updated");
    }
    if random.below(5) == 0 {
        let (from, to) = (data.join("c"), data.join("d"));
        let _ = fs::rename(&from, &to).and_then(|()| fs::create_dir(&from));
    }
}

/// The walk that looks only at what changed, against one that follows each snapshot by itself.
#[test]
fn spans_are_those_of_a_walk_of_each_snapshot() {
    let place = place();
    let mut random = Random::seeded("spans");
    let second = place.path("second");
    for data in [&place.data, &second] {
        for folder in ["a/b", "c"] {
            fs::create_dir_all(data.join(folder)).expect("made");
        }
        let conn = Connection::open(data.join("c.db")).expect("open");
        conn.execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<900)
             INSERT INTO t SELECT x, hex(randomblob(150)) FROM n;",
        )
        .expect("filled");
    }
    for step in 0..16 * rounds() {
        // Two data directories share the store.
        let data = if random.below(3) == 0 { &second } else { &place.data };
        change(data, &mut random);
        let dir = data.to_string_lossy().into_owned();
        place.ok(&["--data-dir", &dir, "snapshot", "--tag", &format!("v{step}")]);
    }
    let ids: Vec<String> = lines(&place, &["--snapshots"]).iter().map(|one| one["snapshot"].to_string()).collect();
    for id in [3, 7, 8].map(|number: usize| ids[number].trim_matches('"')) {
        place.ok(&["forget", id]);
    }
    assert_adds_up(&place);

    let store = Store::open(&place.repo, &[Credential::VaultKey(KEY.into())], Access::Read).expect("opens");
    let records = store.records().expect("read");
    let survey = Survey::of(store.catalog().packs(), store.catalog().index()).expect("read");
    let found = spans(store.catalog(), &survey, records.iter()).expect("followed");
    assert!(found.complete);
    let of = |record: &Record| mark(store.catalog(), &survey, std::iter::once(record)).expect("marked").live;
    let lives: Vec<Vec<bool>> = records.iter().map(of).collect();
    let mut kinds = BTreeSet::new();
    for place in 0..survey.len() {
        let holders: Vec<usize> = (0..lives.len()).filter(|number| lives[*number][place]).collect();
        let Some((first, last)) = holders.first().zip(holders.last()) else {
            assert_eq!(found.first[place], NOBODY, "nobody needs chunk {place}");
            continue;
        };
        let span = (found.first[place] as usize, found.last[place] as usize);
        assert_eq!(span, (*first, *last), "chunk {place} is in {holders:?}");
        kinds.insert(holders.len().min(3));
    }
    assert_eq!(kinds.len(), 3, "some are in one, in two and in more");
}
