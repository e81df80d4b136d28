//! Several processes on one store: writers take turns, readers wait for nobody, and a lock ends with its process.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::strace::{can_trace, traced};
use crate::live_common::{Place, Random, Run, Stop, assert_same, rounds, seed, survey, text};
use rustix::process::{Pid, Signal, kill_process};

fn start(mut command: Command) -> (Child, String) {
    let what = format!("{command:?}");
    (command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts"), what)
}

fn end((child, what): (Child, String)) -> Run {
    Run::of(child.wait_with_output().expect("its output"), what)
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).expect("the process is there");
}

/// Waits until `child` says in the lock file that it holds the lock.
fn wait_for_lock(place: &Place, child: &Child) {
    let start = Instant::now();
    let pid = child.id().to_string();
    while fs::read_to_string(place.repo.join("lock")).ok().as_ref() != Some(&pid) {
        assert!(start.elapsed() < Duration::from_secs(20), "it never took the lock");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn fill(folder: &PathBuf, random: &mut Random, files: u32) {
    fs::create_dir_all(folder).expect("a folder");
    for n in 0..files {
        let size = random.below(60_000) as usize;
        fs::write(folder.join(format!("f{n}")), random.bytes(size)).expect("a file");
    }
}

#[test]
fn several_snapshots_at_once() {
    let seed = seed("together");
    let mut random = Random::new(seed);
    let place = Place::new();
    let folders: Vec<PathBuf> = (0..4).map(|n| place.path(&format!("data-{n}"))).collect();
    let shared = random.bytes(50_000);
    let mut promised = Vec::new();
    for round in 0..rounds(10) {
        let count = if round % 2 == 0 { 2 } else { 4 };
        for folder in &folders {
            fill(folder, &mut random, 6);
            fs::write(folder.join("shared"), &shared).expect("a file");
        }
        // In the first round they race to make the store; in every third nobody waits.
        let patient = round % 3 != 2;
        let running: Vec<_> = folders[..count]
            .iter()
            .map(|folder| {
                let mut command = place.nbak(["snapshot", "--json", "--lock-wait", if patient { "60" } else { "0" }]);
                command.env("NBAK_DATA_DIR", folder);
                (folder, start(command))
            })
            .collect();
        let mut succeeded = 0;
        for (folder, running) in running {
            let run = end(running);
            match run.code {
                Some(0) => {
                    succeeded += 1;
                    promised.push((text(&run.json()["snapshot"]).to_owned(), survey(folder)));
                }
                Some(11) if !patient => {
                    run.says(&["is writing to this store", "--lock-wait"]);
                }
                _ => panic!("round {round}: {run:?}"),
            }
        }
        assert!(succeeded > 0, "round {round}");
    }
    // The same directory, from all sides.
    let running: Vec<_> = (0..4).map(|_| start(place.nbak(["snapshot", "--json"]))).collect();
    for running in running {
        let said = end(running).exits(0).json();
        promised.push((text(&said["snapshot"]).to_owned(), survey(&place.data)));
    }
    let listed = place.ok(["snapshots", "--json"]).json_lines();
    for (n, one) in listed.iter().enumerate() {
        assert_eq!(one["sequence"], n as u64 + 1, "sequences have no gap and no twin");
    }
    for (id, expected) in &promised {
        let restored = place.restore(id, "restored");
        assert_same(expected, &survey(&restored), id);
        fs::remove_dir_all(restored).expect("removed");
    }
    place.check();
}

#[test]
fn writers_and_readers_at_once() {
    let seed = seed("writers and readers");
    let mut random = Random::new(seed);
    let place = Place::new();
    fill(&place.data, &mut random, 40);
    let first = text(&place.snapshot()["snapshot"]).to_owned();
    let expected = survey(&place.data);
    for round in 0..rounds(8) {
        fill(&place.data, &mut random, 20);
        let target = place.path(&format!("restored-{round}"));
        let target_text = target.to_str().expect("text");
        let commands: [&[&str]; 7] = [
            &["snapshot"],
            &["restore", &first, "--target", target_text],
            &["check", "--read-data"],
            &["ls", "-R", &first],
            &["snapshots", "--json"],
            &["stats"],
            &["repair", "index"],
        ];
        let running: Vec<_> = commands.iter().map(|args| start(place.nbak(*args))).collect();
        for running in running {
            end(running).exits(0);
        }
        assert_same(&expected, &survey(&target), "restored beside a writer");
        fs::remove_dir_all(target).expect("removed");
    }
    place.check();
}

/// A writer that is stopped while it holds the lock, early and late in its work.
#[test]
fn readers_do_not_wait_for_a_writer() {
    let mut random = Random::new(21);
    let place = Place::new();
    fs::write(place.data.join("small"), "small").expect("a file");
    place.snapshot();
    for (n, milliseconds) in [0, 1, 5, 20, 60].into_iter().enumerate() {
        fs::write(place.data.join("large"), random.bytes(40 << 20)).expect("a file");
        if n % 2 == 1 {
            // The index has to be made again: the stopped writer may be in the middle of that.
            fs::remove_file(place.repo.join("index.redb")).expect("removed");
        }
        let running = start(place.nbak(["snapshot"]));
        wait_for_lock(&place, &running.0);
        std::thread::sleep(Duration::from_millis(milliseconds));
        signal(&running.0, Signal::STOP);
        let target = place.path("restored");
        let target_text = target.to_str().expect("text");
        let begun = Instant::now();
        for args in [
            &["snapshots"][..],
            &["ls", "latest"],
            &["cat", "latest", "small"],
            &["stats"],
            &["check"],
            &["key", "list"],
            &["snapshot", "--dry-run"],
            &["restore", "latest", "small", "--target", target_text],
        ] {
            let start = Instant::now();
            place.ok(args);
            assert!(start.elapsed() < Duration::from_secs(10), "{args:?} waited for a writer");
        }
        assert!(begun.elapsed() < Duration::from_secs(30));
        fs::remove_dir_all(&target).expect("removed");
        // Other writers wait as long as they were told, and then say who it is.
        let pid = running.0.id().to_string();
        place.run(["snapshot", "--lock-wait", "0"]).exits(11).says(&[&pid, "lock", "--lock-wait"]);
        let start = Instant::now();
        place.run(["key", "rotate", "--lock-wait", "1", "--new-vault-key-command", "true"]).exits(11);
        assert!(start.elapsed() >= Duration::from_secs(1));
        if n % 2 == 0 {
            signal(&running.0, Signal::CONT);
            end(running).exits(0);
        } else {
            // The lock is gone with the process, without a wait and without a repair.
            let (mut child, _) = running;
            child.kill().expect("killed");
            assert_eq!(child.wait().expect("its end").signal(), Some(9));
            place.ok(["snapshot", "--lock-wait", "0"]);
        }
    }
    let restored = place.restore("latest", "last");
    assert_same(&survey(&place.data), &survey(&restored), "the last one");
    place.check();
}

/// A reader may bring the index up to date, but never in the way of a writer that is told not to wait.
#[test]
fn readers_are_in_no_writers_way() {
    let mut random = Random::new(4);
    let place = Place::new();
    fill(&place.data, &mut random, 30);
    place.snapshot();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopping = Stop(&stop);
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    place.ok(["ls", "latest"]);
                }
            });
        }
        for _ in 0..rounds(25) {
            fill(&place.data, &mut random, 2);
            place.ok(["snapshot", "--lock-wait", "0"]);
        }
    });
    place.check();
}

/// A snapshot that comes while another command looks is no reason to find the store behind what this machine has seen.
#[test]
fn a_store_that_goes_on_meanwhile_is_not_called_damaged() {
    let place = Place::new();
    let file = place.data.join("f");
    fs::write(&file, "0").expect("a file");
    // As a daemon has it.
    nbak::upkeep::remembered::begin(&place.data).expect("begun");
    place.ok(["snapshot"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let writer = scope.spawn(|| {
            let mut taken = 0;
            while !stop.load(Ordering::Relaxed) {
                taken += 1;
                fs::write(&file, format!("{taken}")).expect("a file");
                place.ok(["snapshot"]);
            }
            taken
        });
        for _ in 0..rounds(60) {
            for command in ["check", "snapshots", "status"] {
                let run = place.run([command]);
                assert!(!run.err.contains("not what this machine has seen"), "{run:?}");
                assert!(command == "status" || run.code == Some(0), "{run:?}");
            }
        }
        drop(stopping);
        assert!(writer.join().expect("it saw no error") > 3);
    });
}

/// Who takes the lock file for stale and removes it, or puts a copy of the store in its place, has two writers change
/// one store. The one whose lock it was lists no snapshot of which others may have removed a part.
#[test]
fn a_lock_that_is_removed_is_noticed() {
    if !can_trace() {
        return;
    }
    for is_exchanged in [false, true] {
        let place = Place::new();
        let packs = || fs::read_dir(place.repo.join("packs")).expect("packs").count();
        let mut random = Random::new(71);
        fs::write(place.data.join("small"), "small").expect("a file");
        place.snapshot();
        let before = packs();
        assert!(
            Command::new("cp").arg("-a").args([&place.repo, &place.path("copy")]).status().expect("runs").success()
        );
        for name in ["a", "b", "c"] {
            fs::write(place.data.join(name), random.bytes(20_000_000)).expect("a file");
        }
        // Each object gets its name late.
        let slow = ["-o", "/dev/null", "-e", "trace=renameat2", "-e", "inject=renameat2:delay_enter=700000"];
        let (mut child, what) = start(traced(&place.nbak(["snapshot"]), &slow));
        while packs() < before + 2 {
            assert!(child.try_wait().expect("asked").is_none(), "it has ended already");
            std::thread::sleep(Duration::from_millis(2));
        }
        if is_exchanged {
            fs::rename(&place.repo, place.path("exchanged")).expect("moved");
            fs::rename(place.path("copy"), &place.repo).expect("moved");
        } else {
            fs::remove_file(place.repo.join("lock")).expect("removed");
            // What the other writes and takes back is gone when it is looked at: then nothing is freed.
            let gc = place.run(["gc"]);
            assert!(matches!(gc.code, Some(0 | 13)), "{gc:?}");
        }
        let run = end((child, what)).exits(1);
        assert!(run.err.contains("the lock of this store was removed"), "{run:?}");
        assert_eq!(place.ok(["snapshots"]).out.lines().count(), 1);
        // `gc` has counted what the other took back, and it is missed, with no snapshot, until `repair` has looked.
        let check = place.run(["check"]);
        if !is_exchanged && check.code == Some(13) {
            assert!(check.err.contains("is gone, and 0 snapshots with that"), "{check:?}");
            place.ok(["repair"]);
        }
        place.check();
        place.snapshot();
        place.check();
        assert_same(&survey(&place.data), &survey(&place.restore("latest", "back")), "afterwards");
    }
}
