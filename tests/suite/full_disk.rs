//! A full disk: a store, and a target, on a file system of a few hundred KiB.
//!
//! Mounting one needs the superuser; without, the tests say so and pass.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::small_disk::{mount, small_disk};
use crate::common::strace::{can_trace, traced};
use crate::common::{self, Place, Random, Run, assert_equal, noise, rounds, tree};

/// Sizes of disks, in KiB: a page apart in the long form. In the short one `step` apart, each time others.
fn steps(from: usize, to: usize, step: usize) -> impl Iterator<Item = usize> {
    if rounds() > 1 {
        return (from..to).step_by(4);
    }
    let shift = Random::seeded("sizes of the disk").below(step as u64 / 4) as usize * 4;
    (from + shift..to).step_by(step)
}

/// It says what failed, where, why, and what to do.
fn clear(run: &Run, path: &Path) {
    assert_eq!(run.code, 1, "{run:?}");
    let error = run.err.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{run:?}"));
    assert!(error.contains(&path.display().to_string()), "{error}");
    assert!(error.contains("free some space"), "{error}");
}

/// A data directory whose first snapshot is small and whose second is not.
fn place() -> Place {
    let place = Place::empty();
    fs::write(place.data.join("small"), noise(1, 3000)).expect("written");
    fs::create_dir(place.data.join("d")).expect("made");
    fs::write(place.data.join("d/text"), "text ".repeat(200)).expect("written");
    place
}

#[test]
fn a_snapshot_onto_a_full_disk_fails_and_harms_nothing() {
    let Some(disk) = small_disk(own_name!("a_snapshot_onto_a_full_disk_fails_and_harms_nothing")) else { return };
    let mut place = place();
    place.repo = disk.join("repo");
    let first = tree(&place.data);
    let second = noise(2, 150_000);
    let (mut failed, mut done) = (0, 0);
    // From no room for the first snapshot to room for both, a page at a time, and further in the long form.
    for kib in (16..280 * rounds().min(4) as usize).step_by(4) {
        mount(&disk, kib);
        let _ = fs::remove_file(place.data.join("large"));
        let run = place.run(&["snapshot"]);
        if run.code != 0 {
            clear(&run, &disk);
            failed += 1;
            // What could be made of a store neither stops the next try nor claims to hold something.
            let run = place.run(&["snapshots"]);
            assert!([0, 10].contains(&run.code) && run.out.is_empty(), "{kib} KiB: {run:?}");
            continue;
        }
        fs::write(place.data.join("large"), &second).expect("written");
        let run = place.run(&["snapshot"]);
        let expected = if run.code == 0 {
            done += 1;
            tree(&place.data)
        } else {
            clear(&run, &disk);
            failed += 1;
            first.clone()
        };
        // A failed try is not the last word: it can be done again, and fails alike.
        if run.code != 0 {
            clear(&place.run(&["snapshot"]), &disk);
        }
        let listed = place.ok(&["snapshots"]).out.lines().count();
        assert_eq!(listed, if run.code == 0 { 2 } else { 1 }, "{kib} KiB");
        assert_eq!(place.ok(&["ls", "-R", "latest"]).out.lines().count(), expected.len(), "{kib} KiB");
        place.ok(&["check", "--read-data"]);
        let (run, target) = place.restore("latest", "target");
        assert_eq!(run.code, 0, "{kib} KiB: {run:?}");
        let mut found = tree(&target);
        let mut expected = expected;
        // The data directory's own entries changed since.
        for map in [&mut found, &mut expected] {
            map.values_mut().filter(|thing| thing.kind == "directory").for_each(|thing| thing.mtime = (0, 0));
        }
        assert_equal(&expected, &found);
        fs::remove_dir_all(target).expect("removed");
        assert_eq!(fs::read_dir(place.repo.join("tmp")).expect("a folder").count(), 0, "{kib} KiB");
    }
    println!("{failed} failed, {done} done");
    assert!(failed >= 5 && done >= 5, "{failed} failed, {done} done: not around the boundary");
}

#[test]
fn an_index_that_does_not_fit_fails_no_snapshot() {
    let Some(disk) = small_disk(own_name!("an_index_that_does_not_fit_fails_no_snapshot")) else { return };
    let mut place = place();
    mount(&disk, 132);
    place.repo = disk.join("repo");
    for n in 0..4 {
        fs::write(place.data.join("changing"), noise(n, 2000)).expect("written");
        let run = place.ok(&["snapshot"]);
        assert!(run.out.starts_with("snapshot "), "{run:?}");
        assert_eq!(place.ok(&["snapshots"]).out.lines().count() as u64, n + 1);
        place.ok(&["check", "--read-data"]);
        place.assert_restores(&format!("target {n}"));
    }
    assert!(place.ok(&["snapshot"]).out.contains("nothing changed"));
    // With room it is there again.
    let done = Command::new("mount").args(["-o", "remount,size=16m"]).arg(&disk).output().expect("runs");
    assert!(done.status.success(), "{done:?}");
    place.ok(&["snapshots"]);
    assert!(fs::metadata(place.repo.join("index.redb")).is_ok_and(|meta| meta.len() > 4096));
    place.assert_restores("target");
}

#[test]
fn a_restore_into_a_full_disk_says_so() {
    let Some(disk) = small_disk(own_name!("a_restore_into_a_full_disk_says_so")) else { return };
    let place = place();
    fs::write(place.data.join("large"), noise(3, 200_000)).expect("written");
    for n in 0..40 {
        fs::write(place.data.join(format!("d/{n}")), noise(n, 100)).expect("written");
    }
    place.ok(&["snapshot"]);
    let mut failed = 0;
    for kib in steps(16, 520, 16) {
        mount(&disk, kib);
        let target = disk.join("target");
        let run = place.run(&["restore", "latest", "--target", &target.display().to_string()]);
        if run.code == 0 {
            assert_equal(&tree(&place.data), &tree(&target));
        } else {
            clear(&run, &target);
            failed += 1;
            // What stands there is whole or is still being made: mode 0600 and not complete.
            let expected = tree(&place.data);
            let stands = if target.exists() { tree(&target) } else { std::collections::BTreeMap::new() };
            for (path, thing) in stands.into_iter().filter(|(_, thing)| thing.kind == "file") {
                let whole = expected.get(&path).is_some_and(|e| e.bytes == thing.bytes);
                assert!(whole || thing.mode == 0o600, "{kib} KiB: {}: {thing:?}", path.display());
            }
        }
    }
    println!("{failed} failed");
    assert!(failed > 2 && failed < if rounds() == 1 { 30 } else { 120 }, "{failed} failed");
    mount(&disk, 16);
    place.ok(&["check", "--read-data"]);
    place.assert_restores("beside");
}

/// What the restore, and what came before it, would leave alone: the data directory but for this program's own files.
fn live(data: &Path) -> std::collections::BTreeMap<PathBuf, (&'static str, Vec<u8>)> {
    let own = |path: &Path| path.starts_with("backups") || path.to_string_lossy().starts_with(".nbak-");
    tree(data).into_iter().filter(|(p, _)| !own(p)).map(|(p, thing)| (p, (thing.kind, thing.bytes))).collect()
}

#[test]
fn a_backup_onto_a_full_disk_leaves_nothing_that_is_listed() {
    let Some(disk) = small_disk(own_name!("a_backup_onto_a_full_disk_leaves_nothing_that_is_listed")) else { return };
    let (mut failed, mut done) = (0, 0);
    for key in [Some(common::KEY), None] {
        let place = Place { key, ..Place::empty() };
        let from = self::place();
        common::copy(&from.data, &place.data);
        common::database(&place.data.join("history.db"), "WAL", 100);
        let config = format!("{{\"backup_dir\": {:?}}}", disk.join("backups"));
        fs::write(place.data.join("config.json"), config).expect("written");
        for kib in (8..160).step_by(4) {
            mount(&disk, kib);
            let run = place.run(&["backup"]);
            let listed = place.ok(&["backup", "list", "--json"]).out.lines().count();
            if run.code == 0 {
                done += 1;
                assert_eq!(listed, 1, "{kib} KiB");
                place.ok(&["backup", "verify"]);
            } else {
                failed += 1;
                assert_eq!(run.code, 1, "{kib} KiB: {run:?}");
                assert_eq!(listed, 0, "{kib} KiB: {run:?}");
                let left = fs::read_dir(disk.join("backups")).into_iter().flatten().flatten();
                let left = left.filter(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"));
                assert_eq!(left.count(), 0, "{kib} KiB");
            }
        }
    }
    println!("{failed} failed, {done} done");
    assert!(failed >= 10 && done >= 10, "{failed} failed, {done} done: not around the boundary");
}

#[test]
fn a_restore_in_place_onto_a_full_disk_leaves_what_was_there() {
    let Some(disk) = small_disk(own_name!("a_restore_in_place_onto_a_full_disk_leaves_what_was_there")) else { return };
    let mut place = place();
    place.key = Some(common::KEY);
    common::database(&place.data.join("history.db"), "WAL", 100);
    let backups = place.path("backups");
    let config = format!("{{\"backup_dir\": {backups:?}}}");
    fs::write(place.data.join("config.json"), &config).expect("written");
    let run = place.ok(&["backup", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&run.out).expect("JSON");
    let name = said["name"].as_str().expect("a name").to_owned();
    let good = live(&place.data);
    let other = self::place();
    common::database(&other.data.join("history.db"), "WAL", 30);
    fs::write(other.data.join("config.json"), &config).expect("written");
    let (mut failed, mut done) = (0, 0);
    for kib in steps(72, 1600, 40) {
        mount(&disk, kib);
        place.data = disk.join("data");
        common::copy(&other.data, &place.data);
        let before = live(&place.data);
        let run = place.run(&["backup", "restore", &name, "--yes"]);
        if run.code == 0 {
            done += 1;
            let mut after = live(&place.data);
            after.retain(|path, _| good.contains_key(path));
            let mut good = good.clone();
            // A database comes back compact.
            for map in [&mut after, &mut good] {
                map.remove(Path::new("history.db"));
            }
            assert!(after == good, "{kib} KiB");
        } else {
            failed += 1;
            assert_eq!(run.code, 1, "{kib} KiB: {run:?}");
            let (mut before, mut after) = (before, live(&place.data));
            // Its journal mode was changed and given back, which its header tells; what it says did not change.
            for map in [&mut before, &mut after] {
                map.remove(Path::new("history.db"));
            }
            assert!(after == before, "{kib} KiB: {run:?}");
            let conn = rusqlite::Connection::open(place.data.join("history.db")).expect("open");
            let rows: i64 = conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("rows");
            assert_eq!(rows, 30, "{kib} KiB");
            conn.close().expect("closed");
            place.ok(&["snapshots"]);
        }
    }
    println!("{failed} failed, {done} done");
    assert!(failed >= 5 && done >= 5, "{failed} failed, {done} done: not around the boundary");
}

/// To make room `gc` gives the index up, and then the packs say which snapshots there are. One that cannot be read just
/// then is no pack without any.
#[test]
fn gc_on_a_full_disk_takes_nothing_for_gone_that_it_cannot_read() {
    if !can_trace() {
        return;
    }
    let test = own_name!("gc_on_a_full_disk_takes_nothing_for_gone_that_it_cannot_read");
    let Some(disk) = small_disk(test) else { return };
    let mut place = place();
    let packs = |repo: &Path| -> BTreeSet<PathBuf> {
        let packs = fs::read_dir(repo.join("packs")).into_iter().flatten().flatten();
        packs.map(|entry| PathBuf::from(entry.file_name())).collect()
    };
    let change = |place: &Place, n: u64| {
        for file in 0..6 {
            fs::write(place.data.join(format!("d/{file}")), noise(n * 10 + file, 20_000)).expect("written");
        }
        place.ok(&["snapshot"]);
    };
    (0..3).for_each(|n| change(&place, n));
    let others = packs(&place.repo);
    // Of a directory in which nothing changed: its pack has the record, and nothing else.
    place.ok(&["snapshot", "--tag", "before"]);
    let own: Vec<PathBuf> = packs(&place.repo).difference(&others).cloned().collect();
    let before = tree(&place.data);
    (3..7).for_each(|n| change(&place, n));
    place.ok(&["forget", "--keep-last", "2", "--keep-tag", "before"]);
    let made = std::mem::replace(&mut place.repo, disk.join("repo"));
    let mut refused = 0;
    for nth in 1..10 {
        mount(&disk, 4096);
        common::copy(&made, &place.repo);
        let filler = fs::File::create(disk.join("filler")).and_then(|mut file| {
            while file.write_all(&[7; 4096]).is_ok() {}
            file.sync_all()
        });
        filler.expect("full");
        let listed = place.ok(&["snapshots", "--json"]).out;
        let pack = place.repo.join("packs").join(&own[0]);
        let fails = format!("inject=openat:error=EIO:when={nth}..{}", nth + 1);
        let pack = pack.to_str().expect("text");
        let options = ["-o", "/dev/null", "-P", pack, "-e", "trace=openat", "-e", &fails];
        let run = Run::of(traced(&place.command(&["gc"]), &options));
        refused += u32::from(run.code != 0);
        assert_eq!(place.ok(&["snapshots", "--json"]).out, listed, "{nth}: {run:?}");
        fs::remove_file(disk.join("filler")).expect("removed");
        let (back, target) = place.restore("before", &format!("back {nth}"));
        assert_eq!(back.code, 0, "{nth}: {back:?}");
        assert_eq!(tree(&target).len(), before.len(), "{nth}");
    }
    assert!(refused > 0, "the pack was never needed");
}
