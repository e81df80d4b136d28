//! Folders that a snapshot takes over whole: what is moved into them, out of them, or between them while it is taken is
//! held or named as ever. `NBAK_TEST_ROUNDS` multiplies the rounds, `NBAK_TEST_SEED` repeats a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::common::strace::{can_trace, only_of, opened, traced};
use crate::live_common::{Place, Random, Run, assert_same, rounds, seed, survey};

/// Beyond what stamps of folders, and of files without a byte, need to be relied on.
const SETTLED: Duration = Duration::from_millis(130);
const FOLDERS: [&str; 6] = ["a", "a/b", "a/b/c", "d", "d/e", "z"];

/// Files without a byte get their receipts at once. The large one is what a snapshot takes its time for.
fn scene() -> Place {
    let place = Place::new();
    for folder in FOLDERS {
        fs::create_dir_all(place.data.join(folder)).expect("a folder");
        for n in 0..12 {
            let name = format!("{folder}/{}{n}", folder.replace('/', "-"));
            fs::write(place.data.join(name), b"").expect("a file");
        }
        let link = place.data.join(format!("{folder}/{}l", folder.replace('/', "-")));
        std::os::unix::fs::symlink("where", link).expect("a link");
    }
    touch(&place, 0);
    place
}

/// A change outside of all folders, so that one walk is not enough.
fn touch(place: &Place, round: u32) {
    let large = fs::File::create(place.data.join("large")).expect("a file");
    large.set_len(60_000_000 + u64::from(round)).expect("a length");
}

fn taken_over(run: &Run) -> u64 {
    let line = run.err.lines().find(|line| line.contains("as the last walk saw them"));
    line.map_or(0, |line| line.split_whitespace().find_map(|word| word.parse().ok()).expect("a number"))
}

#[test]
fn folders_without_a_change_are_taken_over() {
    let place = scene();
    std::thread::sleep(SETTLED);
    assert_eq!(taken_over(&place.ok(["snapshot", "-v"])), 0, "there was none before");
    touch(&place, 1);
    // All but `a`, `d` and `z` themselves.
    let all = 6 * 13 + 3;
    let run = place.ok(["snapshot", "-v"]);
    assert_eq!(taken_over(&run), all, "{run:?}");
    let said = place.ok(["snapshot", "--json", "--tag", "one"]).json();
    assert_eq!((&said["files"], &said["directories"]), (&73.into(), &7.into()));
    assert_eq!(said["entries"].as_array().map(Vec::len), Some(85), "listed all the same");
    // What was taken over is so again, and is what reading everything gives.
    std::thread::sleep(SETTLED);
    fs::write(place.data.join("d/e/new"), b"").expect("a file");
    std::thread::sleep(SETTLED);
    let run = place.ok(["snapshot", "-v"]);
    assert_eq!(taken_over(&run), 4 * 13 + 2, "{run:?}");
    assert_eq!(place.ok(["snapshot", "--full-scan", "--json"]).json()["unchanged"], true);
    assert_eq!(taken_over(&place.ok(["snapshot", "-v", "--tag", "two"])), all + 1);
    assert_same(&survey(&place.data), &survey(&place.restore("latest", "back")), "all of it");
    place.check();
}

/// Each file has a name of its own, wherever it is.
fn names(folder: &Path) -> Vec<PathBuf> {
    let is_folder = |path: &PathBuf| fs::symlink_metadata(folder.join(path)).expect("there").is_dir();
    let all = survey(folder).into_keys().filter(|path| !is_folder(path) && !path.ends_with("large"));
    let mut names: Vec<_> = all.filter_map(|path| path.file_name().map(PathBuf::from)).collect();
    names.sort();
    names
}

/// What somebody does while a snapshot is taken.
fn disturb(data: &Path, random: &mut Random) {
    let (from, to) = (FOLDERS[random.below(6) as usize], FOLDERS[random.below(6) as usize]);
    let file = format!("{}{}", from.replace('/', "-"), random.below(12));
    let (file, other) = (data.join(from).join(&file), data.join(to).join(&file));
    let rename = |from: &Path, to: &Path| fs::rename(from, to).expect("moved");
    let link = format!("{}l", from.replace('/', "-"));
    match random.below(6) {
        5 => rename(&data.join(from).join(&link), &data.join(to).join(&link)),
        // Into another folder, away and back, and into a folder that was taken over from one that was not.
        0 if file.exists() => rename(&file, &other),
        1 if file.exists() => {
            rename(&file, &data.join("aside"));
            rename(&data.join("aside"), &file);
        }
        2 => rename(&data.join("young/y"), &data.join(to).join("y")),
        // Folders with all that is in them.
        3 => rename(&data.join("a/b/c"), &data.join("z/c")),
        _ => rename(&data.join("d"), &data.join("dd")),
    }
}

/// Puts back what others are found by.
fn put_back(data: &Path) {
    for (from, to) in [("z/c", "a/b/c"), ("dd", "d")] {
        if data.join(from).exists() {
            fs::rename(data.join(from), data.join(to)).expect("moved back");
        }
    }
    for folder in FOLDERS {
        let _ = fs::rename(data.join(folder).join("y"), data.join("young/y"));
        let link = format!("{}l", folder.replace('/', "-"));
        for other in FOLDERS {
            let _ = fs::rename(data.join(other).join(&link), data.join(folder).join(&link));
        }
    }
}

#[test]
fn what_is_moved_meanwhile_is_held_or_named() {
    let place = scene();
    // Too young for a receipt each time, and large enough that its turn comes after the other large one's.
    fs::create_dir(place.data.join("young")).expect("a folder");
    fs::write(place.data.join("young/y"), vec![b'y'; 900_000]).expect("a file");
    let mut random = Random::new(seed("moved meanwhile"));
    let (mut held, mut over) = (0, 0);
    let rounds = rounds(24);
    for round in 0..rounds {
        std::thread::sleep(SETTLED);
        place.ok(["snapshot", "-q"]);
        touch(&place, round + 1);
        let expected = names(&place.data);
        let (data, delay) = (place.data.clone(), random.below(50_000));
        let mut own = Random::new(random.next());
        let acting = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(delay));
            disturb(&data, &mut own);
        });
        let run = place.run(["snapshot", "-v"]);
        acting.join().expect("it moved something");
        over += u32::from(taken_over(&run) > 0);
        let found = names(&place.restore("latest", &format!("back{round}")));
        // What is moved while the walk goes on may be in both lists, and is held twice.
        let missing: Vec<_> = expected.iter().filter(|name| !found.contains(name)).collect();
        if missing.is_empty() {
            assert_eq!(run.code, Some(0), "round {round}: {run:?}");
            held += 1;
        } else {
            assert_eq!(run.code, Some(3), "round {round}: {missing:?} is missing, and nobody says so: {found:?}");
        }
        put_back(&place.data);
    }
    println!("{held} of {rounds} held, {over} took something over");
    assert!(held * 10 >= rounds * 8 && over * 2 > rounds, "{held} of {rounds} held, {over} took something over");
    place.check();
}

#[test]
fn a_pack_that_somebody_wrote_to_is_looked_into() {
    let place = scene();
    std::thread::sleep(SETTLED);
    for round in 1..3 {
        place.ok(["snapshot", "-q"]);
        touch(&place, round);
    }
    for round in 3..6 {
        let packs = survey(&place.repo).into_keys().filter(|path| path.starts_with("packs"));
        let packs: Vec<_> = packs.map(|path| place.repo.join(path)).filter(|path| path.is_file()).collect();
        let pack = &packs[round as usize % packs.len()];
        let bytes = fs::read(pack).expect("a pack");
        fs::write(pack, bytes).expect("written");
        let run = place.ok(["snapshot", "-v"]);
        assert_eq!(taken_over(&run), 0, "round {round}: {run:?}");
        touch(&place, round);
        assert!(taken_over(&place.ok(["snapshot", "-v"])) > 0, "round {round}");
        touch(&place, round + 100);
    }
}

/// What the snapshot reads first is held up, and meanwhile a file that comes later is moved, so that folders are looked
/// at again. That file is held up where it is now, and meanwhile links leave folders that were taken over.
#[test]
fn links_that_leave_a_folder_that_is_given_up_are_held() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let data = place.data.canonicalize().expect("there");
    for folder in ["u/inner", "v", "w", "x", "y"] {
        fs::create_dir_all(data.join(folder)).expect("a folder");
    }
    for link in ["u/link", "u/inner/deep", "w/renamed"] {
        std::os::unix::fs::symlink(link, data.join(link)).expect("a link");
    }
    fs::write(data.join("u/file"), b"").expect("a file");
    std::thread::sleep(SETTLED);
    place.ok(["snapshot", "-q"]);
    let mut random = Random::new(17);
    let [first, second] = [data.join("0"), data.join("x/second")];
    fs::write(&first, random.bytes(1_000_000)).expect("a file");
    fs::write(data.join("y/second"), random.bytes(1_000_000)).expect("a file");

    let held = only_of(&data, &["0", "x/second"]);
    let mut how = vec!["-o", "/dev/null", "-e", "trace=openat", "-e", "inject=openat:delay_exit=700000"];
    how.extend(held.iter().map(String::as_str));
    let mut child = traced(&place.nbak(["snapshot", "-v"]), &how);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("strace starts");
    let to = |from: &str, to: &str| fs::rename(data.join(from), data.join(to)).expect("moved");
    opened(&mut child, &first);
    to("y/second", "x/second");
    opened(&mut child, &second);
    for (from, into) in [("u/link", "v/link"), ("w/renamed", "w/other"), ("u/file", "v/file"), ("u/inner", "v/inner")] {
        to(from, into);
    }
    let run = Run::of(child.wait_with_output().expect("it ends"), "held up".to_owned()).exits(0);
    // Where the walk saw them, as the file beside them, for which its receipt vouches.
    let found = survey(&place.restore("latest", "back"));
    for path in ["u/link", "u/inner/deep", "w/renamed", "u/file", "x/second"] {
        assert!(found.contains_key(Path::new(path)), "{path} is missing: {found:?}, {run:?}");
    }
    place.check();
}
