//! What must be so, whatever disk the power failure left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use super::scenes::{Contents, Scene, contents};
use crate::common::{KEY, OTHER_KEY, Run, objects};

fn lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn ok(scene: &Scene, args: &[&str], what: &str) -> Run {
    let run = scene.place.run(args);
    assert_eq!(run.code, 0, "{what}: {args:?}: {run:?}");
    run
}

fn listed(scene: &Scene, what: &str) -> BTreeSet<String> {
    let run = scene.place.run(&["snapshots", "--json"]);
    // Where no snapshot was ever acknowledged there may be no store yet.
    assert!(run.code == 0 || run.code == 10 && scene.kept.is_empty(), "{what}: {run:?}");
    assert!(!run.err.contains("lost something"), "{what}: {run:?}");
    lines(&run.out).iter().map(|one| one["snapshot"].as_str().expect("an id").to_owned()).collect()
}

fn same(expected: &Contents, found: &Contents, what: &str) {
    let paths: BTreeSet<&PathBuf> = expected.keys().chain(found.keys()).collect();
    let differ: Vec<_> = paths.into_iter().filter(|path| expected.get(*path) != found.get(*path)).collect();
    assert!(differ.is_empty(), "{what}: {differ:?} differ");
}

fn restores(scene: &Scene, id: &str, expected: &Contents, what: &str) {
    let target = scene.top().join("restored");
    ok(scene, &["restore", id, "--target", target.to_str().expect("text")], what);
    same(&plain(expected.clone()), &plain(contents(&target)), what);
    std::fs::remove_dir_all(target).expect("removed");
}

/// What is kept is there and whole, and the next snapshot is as good as any.
fn is_whole(scene: &Scene, what: &str) {
    let listed = listed(scene, what);
    for (id, expected) in &scene.kept {
        assert!(listed.contains(id), "{what}: {id} is gone");
        restores(scene, id, expected, what);
    }
    if !scene.kept.is_empty() {
        ok(scene, &["check", "--read-data"], what);
    }
}

fn goes_on(scene: &Scene, what: &str) {
    ok(scene, &["snapshot"], what);
    restores(scene, "latest", &contents(&scene.place.data), what);
    ok(scene, &["check", "--read-data"], what);
    assert_eq!(objects(&scene.place.repo, "tmp").len(), 0, "{what}: the next writer left something");
}

pub fn snapshot(scene: &Scene, said: &str, what: &str) {
    is_whole(scene, what);
    for said in lines(said) {
        let id = said["snapshot"].as_str().expect("an id");
        assert!(listed(scene, what).contains(id), "{what}: it said that it stored {id}");
        restores(scene, id, &scene.data, what);
    }
    goes_on(scene, what);
    is_whole(scene, what);
}

pub fn forget(scene: &Scene, said: &str, what: &str) {
    is_whole(scene, what);
    let listed = listed(scene, what);
    let left = scene.doomed.iter().filter(|id| listed.contains(*id)).count();
    assert!(
        left == 0 || left == scene.doomed.len() && said.is_empty(),
        "{what}: {left} are left, and it said {said:?}"
    );
    goes_on(scene, what);
}

pub fn gc(scene: &Scene, _: &str, what: &str) {
    is_whole(scene, what);
    let listed = listed(scene, what);
    assert!(!scene.doomed.iter().any(|id| listed.contains(id)), "{what}: what was forgotten came back");
    goes_on(scene, what);
    ok(scene, &["gc"], what);
    is_whole(scene, what);
}

pub fn rotation(scene: &Scene, said: &str, what: &str) {
    let opens = |key| scene.place.with_key(Some(key), &["snapshots"]).code == 0;
    let (old, new) = (opens(KEY), opens(OTHER_KEY));
    assert!(old || new, "{what}: nobody can read the store any more");
    assert!(said.is_empty() || new && !old, "{what}: it said {said:?}, old {old}, new {new}");
    let key = Some(if new { OTHER_KEY } else { KEY });
    for args in [&["snapshot"][..], &["check", "--read-data"]] {
        let run = scene.place.with_key(key, args);
        assert_eq!(run.code, 0, "{what}: {args:?}: {run:?}");
    }
    let run = scene.place.with_key(key, &["snapshots", "--json"]);
    assert!(scene.kept.iter().all(|(id, _)| run.out.contains(id)), "{what}: {run:?}");
}

fn opens_with_another(scene: &Scene) -> bool {
    scene.place.with_key(Some(OTHER_KEY), &["snapshots"]).code == 0
}

/// The key that was there opens the store, and the other one does if that was said.
pub fn key_added(scene: &Scene, said: &str, what: &str) {
    is_whole(scene, what);
    assert!(said.is_empty() || opens_with_another(scene), "{what}: it said {said:?}");
    goes_on(scene, what);
    is_whole(scene, what);
}

/// The other one no more, if that was said.
pub fn key_removed(scene: &Scene, said: &str, what: &str) {
    is_whole(scene, what);
    assert!(said.is_empty() || !opens_with_another(scene), "{what}: it said {said:?}");
    goes_on(scene, what);
    is_whole(scene, what);
}

pub fn backup(scene: &Scene, said: &str, what: &str) {
    is_whole(scene, what);
    let whole = |what: &str| {
        let all = lines(&ok(scene, &["backup", "list", "--json"], what).out);
        let names = all.iter().filter(|one| one["damaged"].is_null()).map(|one| one["name"].as_str().expect("a name"));
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = whole(what);
    assert!(!before.is_empty(), "{what}: the backup that was there is gone");
    for said in lines(said) {
        let name = said["name"].as_str().expect("a name").to_owned();
        assert!(before.contains(&name), "{what}: it said that it made {name}");
    }
    for name in &before {
        let run = scene.place.run(&["backup", "verify", name]);
        // One that could not read all of the source says so for ever, and whoever made it did not end well.
        let is_incomplete = run.code == 3 && said.is_empty() && run.out.contains("but is incomplete");
        assert!(run.code == 0 || is_incomplete, "{what}: {name}: {run:?}");
    }
    ok(scene, &["backup"], what);
    ok(scene, &["backup", "verify"], what);
    assert_eq!(whole(what).len(), before.len() + 1, "{what}");
}

pub fn restore(scene: &Scene, said: &str, what: &str) {
    let target = scene.top().join("target");
    let expected = &scene.kept[1].1;
    // It is not synced: the store has it all. That it was killed later must not matter.
    if !said.is_empty() && !what.contains("power failed") {
        same(expected, &contents(&target), &format!("{what}: it said {said:?}"));
    }
    is_whole(scene, what);
    let args: Vec<&str> = scene.next.iter().map(String::as_str).collect();
    ok(scene, &args, what);
    let mut found = contents(&target);
    // What was being written has a name of its own.
    found.retain(|path, _| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".nbak-restore-")));
    same(expected, &found, what);
}

/// Without what opening a database leaves: empty sidecars, and in its header the mode and the count of changes. A
/// restore that has not begun may have done that.
fn plain(mut all: Contents) -> Contents {
    let is_empty = |path: &PathBuf, bytes: &Option<Vec<u8>>| {
        let (name, bytes) = (path.to_string_lossy(), bytes.as_deref().unwrap_or_default());
        // A journal that begins with a zero is not used: SQLite had not come to rely on it.
        name.ends_with("-shm")
            || name.ends_with("-wal") && bytes.is_empty()
            || name.ends_with("-journal") && bytes.first().is_none_or(|&first| first == 0)
    };
    all.retain(|path, bytes| !is_empty(path, bytes));
    for (path, bytes) in &mut all {
        if let Some(bytes) =
            bytes.as_mut().filter(|bytes| path.extension().is_some_and(|end| end == "db") && bytes.len() > 100)
        {
            for at in [18..20, 24..28, 92..100] {
                bytes[at].fill(0);
            }
        }
    }
    all
}

/// Opens each database as the application will, which rolls back what SQLite had begun to write.
fn settle(scene: &Scene) {
    for name in ["history.db", "engine.db"] {
        let path = scene.place.data.join(name);
        if path.exists() {
            let conn = rusqlite::Connection::open(path).expect("open");
            let rows: i64 = conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("it can be read");
            assert!(rows > 0);
            conn.close().expect("closed");
        }
    }
}

/// All is as it was before, or as the snapshot has it, and no mixture of both; what is in no snapshot stays.
pub fn restore_in_place(scene: &Scene, said: &str, what: &str) {
    is_whole(scene, what);
    // Nobody wrote since: the next one that may write finishes it, or sweeps what was staged.
    ok(scene, &["snapshot"], what);
    settle(scene);
    let found = plain(contents(&scene.place.data));
    let (old, new) = (&plain(scene.data.clone()), plain(scene.kept[0].1.clone()));
    let mut restored: BTreeMap<_, _> = new.clone();
    restored
        .extend(old.iter().filter(|(path, _)| !new.contains_key(*path)).map(|(path, one)| (path.clone(), one.clone())));
    if said.is_empty() && found == *old {
        goes_on(scene, what);
        return;
    }
    same(&restored, &found, what);
    assert!(!scene.place.data.join(".nbak-restore").exists(), "{what}: not finished");
    goes_on(scene, what);
}

/// What was live stays, and what had been replaced is kept; or nothing was given up yet, and the restore is finished.
pub fn giving_up(scene: &Scene, said: &str, what: &str) {
    is_whole(scene, what);
    ok(scene, &["snapshot"], what);
    settle(scene);
    assert!(!scene.place.data.join(".nbak-restore").exists(), "{what}: not ended");
    let found = plain(contents(&scene.place.data));
    let all = std::fs::read_dir(&scene.place.data).expect("a list").map(|entry| entry.expect("an entry").path());
    let is_kept = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(".nbak-kept-"));
    let kept: Vec<PathBuf> = all.filter(is_kept).collect();
    if kept.is_empty() {
        assert!(said.is_empty(), "{what}: it said {said:?}, and nothing is kept");
        let new = plain(scene.kept[0].1.clone());
        assert!(new.iter().all(|(path, one)| found.get(path) == Some(one)), "{what}: neither the one nor the other");
    } else {
        same(&plain(scene.data.clone()), &found, what);
        // What could not be removed from the one that was to be the only one is left in another.
        assert!(kept.len() <= 2, "{what}: {kept:?}");
        let kept: BTreeMap<_, _> = kept.iter().flat_map(|folder| contents(folder)).collect();
        let is_there = |path: &PathBuf, one: &Option<Vec<u8>>| match path.extension() {
            // Its log was written into it before it was replaced.
            Some(end) if end == "db" => kept.contains_key(path),
            _ => kept.get(path) == Some(one),
        };
        let lost: Vec<_> =
            plain(scene.replaced.clone()).into_iter().filter(|(path, one)| !is_there(path, one)).collect();
        assert!(lost.is_empty(), "{what}: {:?} are not kept", lost.iter().map(|(path, _)| path).collect::<Vec<_>>());
    }
    goes_on(scene, what);
}
