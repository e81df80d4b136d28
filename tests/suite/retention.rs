//! What users and attackers do between forgetting and freeing: packs that were away, ledgers that are lost, snapshots
//! that were damaged before they were forgotten.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{self, KEY, Place, Random, Run, copy, noise};
use crate::daemon_common::clock::Clock;
use crate::inplace::mixed::half_with;
use serde_json::Value;

fn snapshot(place: &Place, tags: &[&str]) -> String {
    let tags = tags.iter().flat_map(|tag| ["--tag", tag]);
    let args: Vec<&str> = ["snapshot", "--json"].into_iter().chain(tags).collect();
    let said: Value = serde_json::from_str(&place.ok(&args).out).expect("JSON");
    said["snapshot"].as_str().expect("an id").to_owned()
}

fn with_file(place: &Place, name: &str, seed: u64) -> String {
    fs::write(place.data.join(name), noise(seed, 200_000)).expect("written");
    snapshot(place, &[])
}

fn listed(place: &Place, more: &[&str]) -> BTreeSet<String> {
    let run = place.ok(&[&["snapshots", "--json"], more].concat());
    let id = |line: &str| {
        let said: Value = serde_json::from_str(line).expect("JSON");
        said["snapshot"].as_str().expect("an id").to_owned()
    };
    run.out.lines().map(id).collect()
}

/// What `act` adds to the packs.
fn new_packs(place: &Place, act: impl FnOnce() -> String) -> (String, Vec<PathBuf>) {
    let there = place.repo.join("packs").exists();
    let before: BTreeSet<PathBuf> = if there { place.packs().into_iter().collect() } else { BTreeSet::new() };
    let id = act();
    (id, place.packs().into_iter().filter(|pack| !before.contains(pack)).collect())
}

fn forget_memory(place: &Place) {
    for entry in fs::read_dir(&place.repo).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_name().expect("a name").to_string_lossy().into_owned();
        if name == "index.redb" || name.starts_with("note-") {
            fs::remove_file(&entry).expect("removed");
        }
    }
}

fn place() -> Place {
    Place { key: Some(KEY), ..Place::empty() }
}

/// I23: nobody forgot it, whatever its number is.
#[test]
fn a_snapshot_whose_pack_was_away_while_others_were_forgotten_is_kept() {
    let place = place();
    with_file(&place, "one", 1);
    let second = with_file(&place, "two", 2);
    let (third, packs) = new_packs(&place, || with_file(&place, "precious", 3));
    fs::remove_file(place.data.join("precious")).expect("removed");
    let away = place.path("away");
    fs::rename(&packs[0], &away).expect("moved");
    let (other, next) = (with_file(&place, "four", 4), with_file(&place, "five", 5));
    with_file(&place, "six", 6);
    place.ok(&["forget", &second, &other, &next]);
    fs::rename(&away, &packs[0]).expect("moved back");
    assert!(listed(&place, &[]).contains(&third), "it is listed");
    let check = place.ok(&["check", "--read-data"]);
    assert!(check.out.contains("remark") && check.out.contains(&third), "{check:?}");
    place.ok(&["gc"]);
    assert_eq!(place.ok(&["cat", &third, "precious"]).raw, noise(3, 200_000));
    place.ok(&["check", "--read-data"]);
}

/// To lose a ledger brings forgotten snapshots back, and never takes any.
#[test]
fn the_ledger_of_an_undelete_may_be_lost() {
    for way in ["deleted", "damaged", "damaged, and repaired", "deleted, and the index made anew"] {
        let place = place();
        with_file(&place, "one", 1);
        let second = with_file(&place, "two", 2);
        fs::remove_file(place.data.join("two")).expect("removed");
        with_file(&place, "three", 3);
        place.ok(&["forget", &second]);
        let (_, packs) = new_packs(&place, || place.ok(&["undelete", &second]).out);
        assert_eq!(packs.len(), 1, "the ledger");
        if way.starts_with("deleted") {
            fs::remove_file(&packs[0]).expect("removed");
        } else {
            let mut bytes = fs::read(&packs[0]).expect("read");
            let at = bytes.len() - 40;
            bytes[at] ^= 1;
            fs::write(&packs[0], bytes).expect("written");
        }
        match way {
            "deleted, and the index made anew" => drop(place.ok(&["repair", "index"])),
            _ => forget_memory(&place),
        }
        if way == "damaged, and repaired" {
            place.run(&["repair"]);
        }
        let run = place.run(&["gc"]);
        assert!(run.code == 0 || run.code == 13, "{way}: {run:?}");
        assert!(listed(&place, &[]).contains(&second), "{way}: it is listed");
        assert_eq!(place.ok(&["cat", &second, "two"]).raw, noise(2, 200_000), "{way}");
    }
}

fn damage(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
}

#[test]
fn what_had_lost_something_can_be_brought_back() {
    let place = place();
    fs::write(place.data.join("bad"), noise(1, 300_000)).expect("written");
    let (_, first) = new_packs(&place, || snapshot(&place, &[]));
    fs::write(place.data.join("precious"), noise(2, 100_000)).expect("written");
    let second = snapshot(&place, &[]);
    fs::remove_file(place.data.join("bad")).expect("removed");
    let third = with_file(&place, "other", 3);
    damage(&first[0], 1000);
    let repair = place.run(&["repair"]);
    assert_eq!(repair.code, 13, "{repair:?}");
    assert_eq!(place.ok(&["repair"]).code, 0, "what is known is no news");
    place.ok(&["check", "--read-data"]);
    place.ok(&["forget", "--keep-last", "1"]);
    let all = place.ok(&["undelete", "all"]);
    assert!(all.out.contains(&second[..8]), "{all:?}");
    assert_eq!(place.ok(&["cat", &second, "precious"]).raw, noise(2, 100_000));
    assert!(listed(&place, &[]).contains(&third));
    let check = place.ok(&["check", "--read-data"]);
    assert!(check.out.contains("it is known"), "{check:?}");
}

/// I21: what is away may come back.
#[test]
fn nothing_is_freed_while_something_is_missing() {
    let place = place();
    let mut pages = noise(1, 40 * 4096);
    fs::write(place.data.join("f"), &pages).expect("written");
    let first = snapshot(&place, &[]);
    pages[5000] ^= 1;
    fs::write(place.data.join("f"), &pages).expect("written");
    let (second, packs) = new_packs(&place, || snapshot(&place, &[]));
    fs::rename(place.data.join("f"), place.data.join("g")).expect("moved");
    with_file(&place, "more", 3);
    place.ok(&["forget", &first, &second]);
    let away = place.path("away");
    fs::rename(&packs[0], &away).expect("moved");
    forget_memory(&place);
    let refused = place.run(&["gc"]);
    assert!(refused.code == 13 && refused.err.contains("nbak repair"), "{refused:?}");
    fs::rename(&away, &packs[0]).expect("moved back");
    place.ok(&["gc"]);
    place.assert_restores("whole");
    place.ok(&["check", "--read-data"]);
}

#[test]
fn a_chain_with_a_hole_is_whole_after_a_repair() {
    let place = place();
    let ids: Vec<String> = (0..5).map(|nth| with_file(&place, "f", nth)).collect();
    place.ok(&["forget", &ids[1], &ids[2]]);
    place.ok(&["gc"]);
    let ledger = place.packs().into_iter().min_by_key(|pack| fs::metadata(pack).expect("there").len()).expect("one");
    fs::remove_file(ledger).expect("removed");
    forget_memory(&place);
    assert_eq!(place.run(&["check"]).code, 13, "a gap");
    let _ = place.run(&["repair"]);
    let check = place.ok(&["check", "--read-data"]);
    assert!(check.out.contains("no problem"), "{check:?}");
    for id in [&ids[0], &ids[3], &ids[4]] {
        place.ok(&["cat", id, "f"]);
    }
}

/// I8: a snapshot that nobody forgot is missed, also where the one after it was forgotten.
#[test]
fn a_hole_before_what_was_forgotten_is_named_and_accepted() {
    for reclaimed in [false, true] {
        let place = place();
        let mut made: Vec<_> = (0..6).map(|nth| new_packs(&place, || with_file(&place, "f", nth))).collect();
        let (_, packs) = made.remove(2);
        place.ok(&["forget", &made[2].0]);
        if reclaimed {
            place.ok(&["gc"]);
        }
        for pack in packs {
            fs::remove_file(pack).expect("removed");
        }
        forget_memory(&place);
        let check = place.run(&["check"]);
        assert!(check.code == 13 && check.out.contains("the snapshot before it is missing"), "{check:?}");
        let _ = place.run(&["repair"]);
        let check = place.ok(&["check", "--read-data"]);
        assert!(check.out.contains("no problem") && !check.out.contains("came back"), "{check:?}");
        for at in [0, 1, 3, 4] {
            place.ok(&["cat", &made[at].0, "f"]);
        }
    }
}

#[test]
fn every_lost_file_is_counted() {
    let place = place();
    for nth in 0..150 {
        fs::write(place.data.join(format!("{nth:03}")), noise(nth, 5000)).expect("written");
    }
    let (first, packs) = new_packs(&place, || snapshot(&place, &[]));
    fs::write(place.data.join("zebra"), noise(999, 5000)).expect("written");
    let second = snapshot(&place, &[]);
    for entry in fs::read_dir(&place.data).expect("a folder") {
        fs::remove_file(entry.expect("an entry").path()).expect("removed");
    }
    with_file(&place, "now", 1);
    for at in (100..fs::metadata(&packs[0]).expect("there").len() as usize - 9000).step_by(50_000) {
        damage(&packs[0], at);
    }
    let repair = place.run(&["repair"]);
    assert_eq!(repair.code, 13, "{repair:?}");
    for id in [&first, &second] {
        assert!(repair.out.contains(&format!("snapshot {} lost 150 files", &id[..8])), "{repair:?}");
    }
    place.ok(&["check"]);
}

/// I23: what was lost and is known to be missing was not forgotten. It counts again when it is back.
#[test]
fn what_was_missing_at_a_repair_counts_when_it_comes_back() {
    let place = place();
    with_file(&place, "one", 1);
    let (lost, packs) = new_packs(&place, || with_file(&place, "two", 2));
    fs::remove_file(place.data.join("two")).expect("removed");
    let last = with_file(&place, "three", 3);
    let away = place.path("away");
    fs::rename(&packs[0], &away).expect("moved");
    forget_memory(&place);
    let repair = place.run(&["repair"]);
    assert!(repair.code == 13 && repair.err.contains("1 snapshot is missing altogether"), "{repair:?}");
    place.ok(&["check"]);
    // It stays known, also over what is forgotten beside it.
    place.ok(&["forget", &last]);
    place.ok(&["gc"]);
    place.ok(&["check"]);
    assert!(place.ok(&["repair"]).out.contains("nothing is wrong"));
    fs::rename(&away, &packs[0]).expect("moved back");
    assert!(listed(&place, &[]).contains(&lost));
    let check = place.ok(&["check", "--read-data"]);
    assert!(!check.out.contains("remark"), "{check:?}");
    place.ok(&["gc"]);
    place.ok(&["cat", &lost, "two"]);
    place.ok(&["check", "--read-data"]);
}

/// I5: that as much was lost before does not hide what is lost now.
#[test]
fn another_loss_than_the_known_one_is_named() {
    let place = place();
    let packs: Vec<_> = (0..3).map(|nth| new_packs(&place, || with_file(&place, &nth.to_string(), nth)).1).collect();
    fs::create_dir(place.data.join("below")).expect("made");
    let (_, more) = new_packs(&place, || with_file(&place, "below/precious", 7));
    // Its record must stay: it is in a later pack too, with all that is small.
    fs::write(place.data.join("note"), "more").expect("written");
    let whole = snapshot(&place, &[]);
    let (saved, copied) = (place.path("saved"), place.path("copied"));
    copy(&place.data, &saved);
    for name in ["0", "1", "2", "below/precious"] {
        fs::remove_file(place.data.join(name)).expect("removed");
    }
    snapshot(&place, &[]);
    for packs in &packs {
        damage(&packs[0], 200);
    }
    assert_eq!(place.run(&["repair"]).code, 13);
    place.ok(&["check"]);
    for name in ["0", "1"] {
        fs::copy(saved.join(name), place.data.join(name)).expect("copied");
    }
    snapshot(&place, &[]);
    place.ok(&["check", "--read-data"]);
    copy(&place.repo, &copied);
    damage(&copied.join("packs").join(more[0].file_name().expect("a name")), 200);
    let elsewhere = Place { repo: copied, key: Some(KEY), ..Place::empty() };
    let check = elsewhere.run(&["check", "--read-data"]);
    assert!(check.code == 13 && check.out.contains("below/precious"), "{check:?}");
    assert!(check.out.contains(&format!("snapshot {} lost", &whole[..8])), "{check:?}");
}

/// I22: a copy of what counts has no lock for readers yet.
#[test]
fn who_reads_a_copy_is_seen_too() {
    let place = place();
    with_file(&place, "one", 1);
    fs::remove_file(place.repo.join("readers")).expect("removed");
    place.ok(&["snapshots"]);
    assert!(place.repo.join("readers").exists());
}

/// What something builds on is no waste that could be freed: nothing is written again for it, time after time.
#[test]
fn gc_comes_to_rest() {
    let place = place();
    let mut dice = Random::seeded("gc comes to rest");
    for round in 0..4 * common::rounds() {
        let mut pages = noise(dice.next(), 4096 * 200);
        let mut ids = Vec::new();
        for _ in 0..12 {
            for _ in 0..dice.below(40) {
                let at = (dice.below(200) * 4096 + dice.below(3500)) as usize;
                pages[at..at + 30].copy_from_slice(&noise(dice.next(), 30));
            }
            fs::write(place.data.join("pages"), &pages).expect("written");
            ids.push(snapshot(&place, &[]));
            if dice.below(3) == 0 {
                let id = ids.swap_remove(dice.below(ids.len() as u64) as usize);
                place.ok(&["forget", &id]);
                if dice.below(2) == 0 {
                    place.ok(&["gc"]);
                }
            }
        }
        let written = || {
            let said: Value = serde_json::from_str(&place.ok(&["gc", "--json"]).out).expect("JSON");
            said["written_packs"].as_u64().expect("a number")
        };
        let runs: Vec<u64> = (0..4).map(|_| written()).collect();
        assert_eq!(runs[2..], [0, 0], "round {round}: {runs:?}");
        place.ok(&["check", "--read-data"]);
    }
}

fn told(place: &Place, args: &[&str]) -> Vec<Value> {
    let run = place.ok(&[&["--json"], args].concat());
    run.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn what_is_pinned_stays_until_it_is_unpinned() {
    let place = place();
    let ids: Vec<String> = (0..4).map(|nth| with_file(&place, "f", nth)).collect();
    place.ok(&["pin", &ids[0], "--reason", "the old office"]);
    place.ok(&["pin", &ids[1]]);
    let dry = place.ok(&["forget", "--keep-last", "1", "--dry-run"]);
    assert!(dry.out.contains("pinned: the old office") && dry.out.contains("1 snapshot would be forgotten"), "{dry:?}");
    let done = place.ok(&["-v", "forget", "--keep-last", "1"]);
    assert!(done.out.contains("pinned: the old office"), "{done:?}");
    assert_eq!(listed(&place, &[]), [&ids[0], &ids[1], &ids[3]].map(String::clone).into());
    // By name neither, and then none of those that are named with it.
    for args in [&["forget", &ids[3], &ids[0]][..], &["forget", "--dry-run", &ids[0]]] {
        let refused = place.run(args);
        assert!(refused.code == 2 && refused.err.contains("nbak unpin"), "{refused:?}");
    }
    assert_eq!(place.run(&["forget", "--force", "--keep-last", "1"]).code, 2, "a policy never does");
    assert_eq!(listed(&place, &[]).len(), 3);
    // A mark survives what writes ledgers.
    place.ok(&["gc"]);
    place.ok(&["repair"]);
    forget_memory(&place);
    let list = told(&place, &["snapshots"]);
    assert_eq!((&list[0]["pinned"]["reason"], &list[1]["pinned"]["reason"]), (&"the old office".into(), &"".into()));
    assert!(list[2]["pinned"].is_null() && list[0]["proven"].is_null());
    assert!(place.ok(&["snapshots"]).out.contains("pinned: the old office"));

    place.ok(&["unpin", &ids[1]]);
    assert!(place.ok(&["unpin", &ids[1]]).out.contains("was not pinned"));
    place.ok(&["forget", &ids[1]]);
    // It comes back with its mark, and loses it with its space.
    place.ok(&["forget", "--force", &ids[0]]);
    place.ok(&["undelete", &ids[0]]);
    assert_eq!(told(&place, &["snapshots"])[0]["pinned"]["reason"], "the old office");
    place.ok(&["forget", "--force", &ids[0]]);
    place.ok(&["gc"]);
    assert_eq!(listed(&place, &[]), [ids[3].clone()].into());
    place.ok(&["check", "--read-data"]);
    assert_eq!(place.run(&["pin", "latest", "--reason", &"x".repeat(1001)]).code, 2);
}

/// A restore that is half done may wait for days for a person, while snapshots are taken and forgotten beside it.
#[test]
fn a_mixture_takes_no_whole_ones_place() {
    let half = half_with(&[&["snapshot"], &["snapshot", "--tag", "second"]]);
    assert_eq!(half.run(&["snapshot"]).code, 3);
    let listed = || {
        let (code, all) = half.json(&["snapshots"]);
        assert_eq!(code, 0, "{all:?}");
        all.iter().map(|one| one["snapshot"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let [first, second, mixed] = &listed()[..] else { panic!("{:?}", listed()) };
    for rule in ["--keep-last", "--keep-hourly", "--keep-daily", "--keep-yearly"] {
        let (code, said) = half.json(&["forget", rule, "1", "--dry-run"]);
        let gone: Vec<&Value> = said.iter().map(|one| &one["forget"]).collect();
        assert_eq!((code, gone), (0, [true, false, false].map(Value::from).iter().collect()), "{rule}: {said:?}");
    }
    let dry = half.run(&["forget", "--keep-last", "1", "--dry-run"]).out;
    let line =
        |id: &str| dry.lines().find(|line| line.contains(&id[..8])).unwrap_or_else(|| panic!("{dry}")).to_owned();
    assert!(line(first).contains("would forget"), "{dry}");
    assert!(line(second).contains("last: number 1 (mixed ones not counted)"), "{dry}");
    assert!(line(mixed).contains("last: number 1") && !line(mixed).contains("not counted"), "{dry}");
    for args in [&["forget", "--keep-last", "1"][..], &["gc"]] {
        assert_eq!(half.run(args).code, 0, "{args:?}");
    }
    assert_eq!(listed(), [second.clone(), mixed.clone()]);
    let run = half.run(&["cat", "latest", "notes.txt"]);
    assert!(run.code == 0 && run.err.contains("passed over"), "{run:?}");
    // Once something whole is newer, the policy takes the mixture.
    assert_eq!(half.run(&["restore", "--abandon"]).code, 0);
    assert_eq!(half.run(&["snapshot"]).code, 0);
    assert_eq!(half.run(&["forget", "--keep-last", "1"]).code, 0);
    let left = listed();
    assert!(left.len() == 1 && !left.contains(second) && !left.contains(mixed), "{left:?}");
}

/// What was taken last stays, however old a clock that was behind made it; behind a mixture the last whole one does.
#[test]
fn behind_a_mixture_the_last_whole_one_stays_whatever_the_clock_was() {
    let half = half_with(&[&["snapshot"], &["snapshot", "--tag", "second"]]);
    let mut clock = Clock::new();
    clock.back(Duration::from_hours(60 * 24));
    let taken = |args: &[&str]| {
        let mut command = half.command(args);
        clock.give(&mut command);
        Run::of(command).code
    };
    let (journal, aside) = (half.scene.data.join(".nbak-restore"), half.scene.data.with_file_name("aside"));
    fs::rename(&journal, &aside).expect("moved");
    assert_eq!((taken(&["snapshot", "--tag", "third"]), taken(&["snapshot", "--tag", "fourth"])), (0, 0));
    fs::rename(&aside, &journal).expect("moved");
    assert_eq!(taken(&["snapshot"]), 3);
    let (code, said) = half.json(&["forget", "--keep-last", "1"]);
    let why: Vec<&Value> = said.iter().map(|one| &one["reasons"][0]).collect();
    let last = "the last one that was taken";
    let apart = format!("{last} (mixed ones not counted)");
    assert_eq!(
        (code, why),
        (0, vec![&Value::Null, &"the newest one".into(), &Value::Null, &apart.into(), &last.into()])
    );
}
