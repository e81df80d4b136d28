//! What looks as if something had gone wrong with the data is said, and nothing of what people and programs do every
//! day. And what differs between snapshots, and where a path is found.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::common::{KEY, Place, database, noise};
use nbak::crypto::secret::Credential;
use nbak::snapshot::progress::Silent;
use nbak::snapshot::store::{Access, Store};
use nbak::upkeep::anomaly::{Anomaly, Kind, compare, judge, judge_rows};
use nbak::upkeep::drill::{Database, drill};
use rusqlite::Connection;
use serde_json::{Value, json};

/// A text of about `length` bytes, other for another seed.
fn text(seed: u64, length: usize) -> Vec<u8> {
    let mut text = String::new();
    for nth in 0.. {
        if text.len() >= length {
            break;
        }
        let dogs = seed * 31 + nth;
        let _ = writeln!(text, "line {nth} of note {seed}: the quick brown fox jumps over {dogs} dogs");
    }
    text.into_bytes()
}

fn photo(seed: u64) -> Vec<u8> {
    [b"\xff\xd8\xff\xe0".as_slice(), &noise(seed, 30_000)].concat()
}

fn write(data: &Path, name: &str, bytes: &[u8]) {
    let path = data.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, bytes).expect("written");
}

/// Notes, pictures, logs, an application with assets, and a database.
fn place() -> Place {
    let place = Place { key: Some(KEY), ..Place::empty() };
    for nth in 0..60 {
        write(&place.data, &format!("notes/{nth:02}.md"), &text(nth, 6000));
        write(&place.data, &format!("app/asset-{nth:02}-v1.js"), &text(1000 + nth, 4000));
        if nth < 12 {
            write(&place.data, &format!("pictures/{nth:02}.jpg"), &photo(nth));
            write(&place.data, &format!("logs/{nth:02}.log"), &text(2000 + nth, 20_000));
            write(&place.data, &format!("logs/{nth:02}.log.1"), &text(3000 + nth, 20_000));
        }
    }
    database(&place.data.join("history.db"), "WAL", 12_000);
    place.ok(&["snapshot"]);
    place
}

fn open(place: &Place) -> Store {
    Store::open(&place.repo, &[Credential::VaultKey(KEY.to_owned())], Access::Read).expect("it opens")
}

/// What is said of the snapshot that is taken after `act`.
fn after(place: &Place, act: impl FnOnce(&Path)) -> Vec<Anomaly> {
    act(&place.data);
    place.ok(&["snapshot"]);
    let store = open(place);
    let records = store.records().expect("records");
    let [.., before, after] = &records[..] else { panic!("two snapshots") };
    judge(&compare(&store, before, after).expect("compared"))
}

fn kinds(found: &[Anomaly]) -> Vec<Kind> {
    found.iter().map(|anomaly| anomaly.kind).collect()
}

#[test]
fn each_kind_is_found() {
    let gone = |data: &Path| {
        fs::remove_dir_all(data.join("notes")).expect("removed");
        fs::remove_dir_all(data.join("app")).expect("removed");
    };
    let found = after(&place(), gone);
    assert_eq!(kinds(&found), [Kind::FilesGone], "{found:?}");
    assert!(found[0].text.contains("157") && found[0].text.contains("37"), "{found:?}");

    let found = after(&place(), |data| fs::remove_dir_all(data.join("notes")).expect("removed"));
    assert_eq!(kinds(&found), [Kind::Deletions], "{found:?}");
    assert_eq!(found[0].numbers, [("before", 157), ("deleted", 60)]);

    let found = after(&place(), |data| fs::remove_file(data.join("history.db")).expect("removed"));
    assert_eq!(kinds(&found), [Kind::BytesGone], "{found:?}");

    let found = after(&place(), |data| {
        fs::remove_file(data.join("history.db")).expect("removed");
        database(&data.join("history.db"), "WAL", 3);
    });
    assert_eq!(kinds(&found), [Kind::DatabaseShrank], "{found:?}");

    let found = after(&place(), |data| write(data, "history.db", &noise(5, 3_000_000)));
    assert_eq!(kinds(&found), [Kind::NoDatabase], "{found:?}");
}

/// Under the same names, with an ending, and under names that mean nothing.
#[test]
fn what_ransomware_does_is_found() {
    for way in 0..3 {
        let found = after(&place(), |data| {
            for (nth, folder) in ["notes", "pictures", "logs"].iter().enumerate() {
                let all: Vec<_> = fs::read_dir(data.join(folder)).expect("a folder").collect();
                for (at, entry) in all.into_iter().enumerate() {
                    let path = entry.expect("an entry").path();
                    let length = fs::metadata(&path).expect("there").len() as usize;
                    let sealed = noise((nth * 1000 + at) as u64 + 77, length + 32);
                    fs::remove_file(&path).expect("removed");
                    let to = match way {
                        0 => path,
                        1 => path.with_added_extension("locked"),
                        _ => path.with_file_name(format!("{:x}", at * 7919 + 13)),
                    };
                    fs::write(to, sealed).expect("written");
                }
            }
        });
        assert_eq!(kinds(&found), [Kind::Scrambled], "{way}: {found:?}");
        assert!(found[0].text.contains("ransomware"), "{found:?}");
    }
}

#[test]
fn what_is_done_every_day_is_none() {
    let place = place();
    let quiet = |what: &str, act: &dyn Fn(&Path)| {
        let found = after(&place, act);
        assert!(found.is_empty(), "{what}: {found:?}");
    };
    quiet("edits", &|data| {
        for nth in 0..60 {
            write(data, &format!("notes/{nth:02}.md"), &text(nth + 100, 5000));
        }
        fs::remove_file(data.join("notes/07.md")).expect("removed");
    });
    quiet("a vacuum", &|data| {
        let conn = Connection::open(data.join("history.db")).expect("open");
        conn.execute_batch("DELETE FROM t WHERE id % 4; VACUUM").expect("done");
    });
    quiet("a rotation", &|data| {
        for nth in 0..12 {
            let name = |end: &str| data.join(format!("logs/{nth:02}.log{end}"));
            let packed = [b"\x1f\x8b\x08\0".as_slice(), &noise(nth, 4000)].concat();
            fs::write(name(".2.gz"), packed).expect("written");
            fs::rename(name(""), name(".1")).expect("moved");
            fs::write(name(""), text(nth, 300)).expect("written");
        }
    });
    quiet("logs that were packed", &|data| {
        for nth in 0..12 {
            fs::remove_file(data.join(format!("logs/{nth:02}.log.1"))).expect("removed");
            let packed = [b"\x1f\x8b\x08\0".as_slice(), &noise(nth, 4000)].concat();
            write(data, &format!("logs/{nth:02}.log.1.gz"), &packed);
        }
    });
    quiet("a log that became large", &|data| write(data, "logs/large.log", &text(1, 9_000_000)));
    quiet("and was packed and cut", &|data| {
        let packed = [b"\x1f\x8b\x08\0".as_slice(), &noise(1, 300_000)].concat();
        write(data, "logs/large.log.1.gz", &packed);
        write(data, "logs/large.log", &text(2, 100));
    });
    quiet("an update", &|data| {
        for nth in 0..60 {
            fs::remove_file(data.join(format!("app/asset-{nth:02}-v1.js"))).expect("removed");
            write(data, &format!("app/asset-{nth:02}-v2.js"), &text(5000 + nth, 4500));
        }
    });
    quiet("an update under the same names", &|data| {
        for nth in 0..60 {
            write(data, &format!("app/asset-{nth:02}-v2.js"), &text(6000 + nth, 3500));
        }
    });
    quiet("a folder that was moved", &|data| fs::rename(data.join("notes"), data.join("archive")).expect("moved"));
    quiet("pictures that were edited", &|data| {
        for nth in 0..12 {
            write(data, &format!("pictures/{nth:02}.jpg"), &photo(nth + 100));
        }
    });
    quiet("pictures that came", &|data| {
        for nth in 20..60 {
            write(data, &format!("pictures/{nth:02}.jpg"), &photo(nth));
        }
    });
    let small = Place { key: Some(KEY), ..Place::empty() };
    (0..7).for_each(|nth| write(&small.data, &format!("{nth}"), &text(nth, 3000)));
    small.ok(&["snapshot"]);
    let found = after(&small, |data| {
        (0..6).for_each(|nth| fs::remove_file(data.join(format!("{nth}"))).expect("removed"));
        write(data, "6", &noise(1, 3000));
    });
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn rows_that_are_gone_are_found_by_two_drills() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    let conn = Connection::open(place.data.join("a.db")).expect("open");
    conn.execute_batch(
        "PRAGMA foreign_keys=OFF; CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p);
         CREATE TABLE few(x); INSERT INTO few VALUES(1);
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<500) INSERT INTO p SELECT x FROM n;
         INSERT INTO c SELECT id FROM p",
    )
    .expect("filled");
    let drilled = || -> Vec<Database> {
        place.ok(&["snapshot"]);
        let store = open(&place);
        let record = store.records().expect("records").pop().expect("one");
        let drilled = drill(&store, &record, place.folder.path(), &Silent).expect("drilled");
        assert!(drilled.is_proof(), "{drilled:?}");
        drilled.databases
    };
    let first = drilled();
    conn.execute_batch("ALTER TABLE c RENAME TO child; DELETE FROM p WHERE id > 400; DELETE FROM child WHERE p > 400")
        .expect("done");
    let second = drilled();
    assert_eq!(judge_rows(&first, &second), [], "a migration, and some rows");
    conn.execute_batch("DELETE FROM p WHERE id > 100; DELETE FROM few").expect("done");
    let third = drilled();
    let found = judge_rows(&second, &third);
    assert_eq!(kinds(&found), [Kind::RowsGone, Kind::Orphans], "{found:?}");
    assert_eq!(found[0].text, "a.db: table p had 400 rows, and 100 are left");
    conn.execute_batch("DROP TABLE child").expect("done");
    let found = judge_rows(&third, &drilled());
    assert_eq!(found[0].numbers, [("before", 400), ("after", 0)]);
}

#[test]
fn differences_are_listed_and_paths_found() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    for name in ["a/one.txt", "a/two.txt", "same", "kind"] {
        write(&place.data, name, name.as_bytes());
    }
    place.ok(&["snapshot", "--tag", "first"]);
    place.ok(&["snapshot", "--tag", "again"]);
    fs::remove_file(place.data.join("a/one.txt")).expect("removed");
    write(&place.data, "a/two.txt", b"other");
    write(&place.data, "new/three.txt", b"three");
    fs::remove_file(place.data.join("kind")).expect("removed");
    write(&place.data, "kind/four.txt", b"four");
    place.ok(&["snapshot", "--tag", "second"]);
    let run = place.ok(&["diff", "first", "second"]);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(
        lines,
        [
            "- a/one.txt  9 B",
            "M a/two.txt  9 B -> 5 B",
            "M kind/  4 B",
            "+ kind/four.txt  4 B",
            "+ new/",
            "+ new/three.txt  5 B",
            "3 entries added, 1 removed, 2 changed"
        ]
    );
    assert_eq!(place.ok(&["diff", "first", "again", "--json"]).out, "");
    let run = place.ok(&["diff", "second", "first", "--json"]);
    let first: Value = serde_json::from_str(run.out.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["change"], "added");
    assert_eq!(
        (&first["path"], &first["bytes"], &first["bytes_before"]),
        (&json!("a/one.txt"), &json!(9), &json!(null))
    );

    let found = |glob: &str| -> Vec<(String, usize)> {
        let run = place.ok(&["find", glob, "--json"]);
        let one = |line: &str| {
            let said: Value = serde_json::from_str(line).expect("JSON");
            (said["path"].as_str().expect("a path").to_owned(), said["snapshots"].as_array().expect("a list").len())
        };
        run.out.lines().map(one).collect()
    };
    let expected = |all: &[(&str, usize)]| all.iter().map(|(path, n)| ((*path).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(found("two.*"), expected(&[("a/two.txt", 2), ("a/two.txt", 1)]));
    assert_eq!(found("a/*"), expected(&[("a/one.txt", 2), ("a/two.txt", 2), ("a/two.txt", 1)]));
    assert_eq!(found("same"), expected(&[("same", 3)]));
    assert_eq!(found("nothing"), []);
    assert!(place.ok(&["find", "one.txt"]).out.contains(" to "));
    assert_eq!(place.run(&["find", "["]).code, 2);
}
