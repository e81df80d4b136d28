//! `forget`, `gc`, and what is done for the store after a snapshot, while the process is killed, calls fail, or the
//! disk is full; in `power` the power fails, and steps are killed one by one. Whatever happens: each snapshot that was
//! not forgotten restores, byte for byte, a check finds nothing, and the next `gc` ends with about the size that an
//! undisturbed one has.
//!
//! Calls are made to fail by strace; where that is not installed, or may not trace, those tests say so and pass. It
//! counts calls by thread. `NBAK_TEST_ROUNDS` multiplies how many of the calls have their turn.
#![allow(clippy::print_stdout, reason = "a test that was skipped says so, and the others how much they did")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::small_disk::{limited, mount, small_disk};
use crate::common::strace::{self, CHANGING, Times};
use crate::common::{self, Place, Random, Run, Thing, assert_equal, copy, noise, objects, rounds, tree};
use serde_json::Value;

type Tree = BTreeMap<PathBuf, Thing>;

/// What is done while something fails.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Deed {
    Forget,
    Gc,
    /// A snapshot after which small packs are put together.
    Swarm,
}

/// A store, again and again as it was before the deed.
struct Scene {
    deed: Deed,
    place: Place,
    before: PathBuf,
    /// Snapshots that are never forgotten, and what they hold.
    kept: Vec<(String, Tree)>,
    doomed: Vec<String>,
    args: Vec<String>,
    /// What the packs take after an undisturbed deed and `gc`, in bytes.
    sound: u64,
}

/// What came of a run that may have been killed.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn snapshot(place: &Place) -> String {
    let run = place.ok(&["snapshot", "--json"]);
    let said: Value = serde_json::from_str(&run.out).expect("JSON");
    said["snapshot"].as_str().expect("an id").to_owned()
}

fn listed(place: &Place) -> BTreeSet<String> {
    let run = place.ok(&["snapshots", "--json"]);
    assert!(!run.err.contains("lost something"), "{run:?}");
    let id = |line: &str| {
        let said: Value = serde_json::from_str(line).expect("JSON");
        said["snapshot"].as_str().expect("an id").to_owned()
    };
    run.out.lines().map(id).collect()
}

fn pack_bytes(place: &Place) -> u64 {
    place.packs().iter().map(|pack| fs::metadata(pack).expect("a pack").len()).sum()
}

fn gc(place: &Place) -> Value {
    serde_json::from_str(&place.ok(&["gc", "--json"]).out).expect("JSON")
}

/// The `nth` state of a data directory: a file of pages of which some change a little, one of which all changes, text.
fn change(data: &Path, nth: u64) {
    let mut pages = noise(1, 40 * 4096);
    for page in 0..40 {
        let at = page as usize * 4096 + (nth as usize * 64) % 4000;
        if page < 8 || page % 8 == nth % 8 {
            pages[at..at + 16].copy_from_slice(&noise(nth * 100 + page, 16));
        }
    }
    fs::write(data.join("pages"), pages).expect("written");
    fs::write(data.join("other"), noise(1000 + nth, 30_000 + nth as usize)).expect("written");
    fs::create_dir_all(data.join("folder")).expect("made");
    fs::write(data.join(format!("folder/stays {nth}")), noise(2000 + nth, 5000)).expect("written");
    fs::write(data.join("folder/text"), format!("text {nth} ").repeat(500)).expect("written");
}

impl Scene {
    fn new(deed: Deed) -> Scene {
        let place = Place { key: Some(common::KEY), ..Place::empty() };
        let (mut kept, mut doomed) = (Vec::new(), Vec::new());
        let count = if deed == Deed::Swarm { 31 } else { 8 };
        for nth in 0..count {
            change(&place.data, nth);
            let id = snapshot(&place);
            let stays = if deed == Deed::Swarm { nth % 12 == 6 } else { [2, 5, 7].contains(&nth) };
            match deed {
                _ if stays => kept.push((id, tree(&place.data))),
                Deed::Swarm => {}
                Deed::Forget | Deed::Gc => doomed.push(id),
            }
        }
        let forget: Vec<String> = [vec!["forget".to_owned()], doomed.clone()].concat();
        let args = match deed {
            Deed::Forget => forget,
            Deed::Gc => {
                place.ok(&forget);
                vec!["gc".to_owned(), "--json".to_owned()]
            }
            Deed::Swarm => {
                change(&place.data, count);
                vec!["snapshot".to_owned(), "--json".to_owned()]
            }
        };
        let before = place.path("before");
        copy(&place.repo, &before);
        let packs = place.packs().len();
        place.ok(&args);
        if deed == Deed::Swarm {
            assert!(place.packs().len() < packs, "packs were put together");
        }
        gc(&place);
        let sound = pack_bytes(&place);
        Scene { deed, place, before, kept, doomed, args, sound }
    }

    fn reset(&self) {
        fs::remove_dir_all(&self.place.repo).expect("removed");
        copy(&self.before, &self.place.repo);
    }

    fn restores(&self, id: &str, expected: &Tree, what: &str) {
        let (run, target) = self.place.restore(id, "restored");
        assert_eq!(run.code, 0, "{what}: {run:?}");
        assert_equal(expected, &tree(&target));
        fs::remove_dir_all(target).expect("removed");
    }

    /// Nothing that is kept was harmed.
    fn is_whole(&self, what: &str) -> BTreeSet<String> {
        let listed = listed(&self.place);
        for (id, expected) in &self.kept {
            assert!(listed.contains(id), "{what}: {id} is gone");
            self.restores(id, expected, what);
        }
        let run = self.place.run(&["check", "--read-data"]);
        assert_eq!(run.code, 0, "{what}: {run:?}");
        listed
    }

    /// What has to be so after the deed, however it ended.
    fn holds(&self, ended: &Ended, what: &str) {
        assert!(!ended.err.contains("panicked"), "{what}: {ended:?}");
        assert!(!matches!(ended.code, Some(101 | 134)), "{what}: {ended:?}");
        let listed = self.is_whole(what);
        let left = self.doomed.iter().filter(|id| listed.contains(*id)).count();
        match self.deed {
            Deed::Forget => {
                assert!(left == 0 || left == self.doomed.len(), "{what}: {left} are left");
                assert!(left == 0 || ended.code != Some(0), "{what}: it said that they are forgotten");
            }
            Deed::Gc => assert_eq!(listed.len(), self.kept.len(), "{what}: forgotten ones came back"),
            Deed::Swarm => {
                assert!(listed.len() >= 31, "{what}: {} are left", listed.len());
                if let Ok(said) = serde_json::from_str::<Value>(&ended.out) {
                    let id = said["snapshot"].as_str().expect("an id");
                    assert!(listed.contains(id), "{what}: it said that it stored it");
                    self.restores(id, &tree(&self.place.data), what);
                }
            }
        }
        // The next one finishes.
        if left > 0 {
            self.place.ok(&self.args);
        }
        let said = gc(&self.place);
        assert!(said["held_packs"].as_array().is_some_and(Vec::is_empty), "{what}: {said}");
        let bytes = pack_bytes(&self.place);
        // What is less than a quarter of its pack is left alone.
        assert!(bytes <= self.sound + self.sound / 4 + 8192, "{what}: {bytes} bytes, and not {}", self.sound);
        assert_eq!(objects(&self.place.repo, "tmp").len(), 0, "{what}: the next writer left something");
        self.is_whole(&format!("{what}, and gc"));
    }

    /// The deed, with strace doing as `options` say.
    fn traced(&self, options: &[&str]) -> Ended {
        let output = strace::traced(&self.place.command(&self.args), options).output().expect("runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The deed, and what calls it makes: thread, call and arguments of each, with the paths of descriptors.
    fn calls(&self) -> Vec<(String, String, String)> {
        let log = self.place.path("calls");
        let trace = format!("trace=?{}", CHANGING.join(",?"));
        let ended = self.traced(&["-y", "-s", "16", "-o", log.to_str().expect("text"), "-e", &trace]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        strace::calls(&fs::read_to_string(log).expect("a log"))
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        self.reset();
        strace::counts(self.calls())
    }
}

/// Each of the calls fails, once and from then on, with every error.
fn failing_calls(deed: Deed, most: u64) {
    if !strace::can_trace() {
        return;
    }
    let scene = Scene::new(deed);
    let mut random = Random::seeded(&format!("{deed:?}, of which a call fails"));
    let (mut runs, mut failed, mut killed) = (0, 0, 0);
    for (call, count) in scene.counts() {
        // What is interrupted is tried again, for ever if it must be.
        let mut faults = vec![
            ("error=EIO", Times::Once),
            ("error=EIO", Times::OnAndOn),
            ("error=ENOSPC", Times::Once),
            ("error=ENOSPC", Times::OnAndOn),
            ("error=EINTR", Times::Five),
            ("signal=KILL", Times::Once),
        ];
        if call.contains("write") {
            faults.push(("retval=0", Times::Once));
        }
        for (nth, (fault, times)) in faults.into_iter().enumerate() {
            for (turn, at) in strace::positions(count, most * rounds(), &mut random).into_iter().enumerate() {
                // In one round each fault has its own half of the calls.
                if rounds() == 1 && turn % 2 != nth % 2 {
                    continue;
                }
                scene.reset();
                let when = times.when(at);
                let inject = format!("inject={call}:{fault}:when={when}");
                let log = scene.place.path("calls");
                let path = log.to_str().expect("text");
                let ended = scene.traced(&["-y", "-o", path, "-e", &format!("trace={call}"), "-e", &inject]);
                runs += 1;
                failed += u64::from(ended.code.is_some_and(|code| code != 0));
                killed += u64::from(ended.code.is_none());
                let what = format!("{deed:?}, {call} number {when}: {fault}");
                let passed_over = strace::passed_over(&fs::read_to_string(&log).expect("a log"));
                let is_told = match deed {
                    // The snapshot is stored by then, and packs that stay are only more of them: it is a warning.
                    Deed::Swarm => ended.err.contains("warning: "),
                    // On a full disk it tries again without writing anything, and frees what it can; its new ledger
                    // may wait for the next one.
                    Deed::Gc if fault == "error=ENOSPC" => true,
                    Deed::Gc | Deed::Forget => false,
                };
                let is_well = ended.code == Some(0) && !is_told;
                assert!(!is_well || passed_over.is_empty(), "{what}: it ended well after {passed_over:?}");
                scene.holds(&ended, &what);
            }
        }
    }
    println!("{deed:?}: {failed} of {runs} failed, {killed} were killed");
    assert!(failed > 4 && killed > 1, "{failed} of {runs} failed, {killed} were killed");
}

#[test]
fn a_forget_of_which_a_call_fails() {
    failing_calls(Deed::Forget, 2);
}

#[test]
fn a_gc_of_which_a_call_fails() {
    failing_calls(Deed::Gc, 2);
}

#[test]
fn a_snapshot_that_puts_packs_together_of_which_a_call_fails() {
    failing_calls(Deed::Swarm, 2);
}

/// A limit on the size of files: a write is cut short, and the next one fails.
#[test]
fn writes_that_are_cut_short() {
    for deed in [Deed::Forget, Deed::Gc] {
        let scene = Scene::new(deed);
        let mut failed = 0;
        for blocks in [1, 2, 8, 50, 200, 400, 1000] {
            scene.reset();
            let run = Run::of(limited(&scene.place.command(&scene.args), blocks));
            failed += u64::from(run.code != 0);
            let ended = Ended { code: Some(run.code), out: run.out, err: run.err };
            scene.holds(&ended, &format!("{deed:?}, files of at most {blocks} blocks"));
        }
        // A ledger is smaller than any limit.
        assert!(failed > 0 || deed == Deed::Forget, "{deed:?}: nothing failed");
    }
}

/// New packs before old ones go, each step synced before the next: the order that everything else rests on (I1, I2).
#[test]
fn the_order_of_writes() {
    if !strace::can_trace() {
        return;
    }
    for deed in [Deed::Gc, Deed::Swarm] {
        let scene = Scene::new(deed);
        scene.reset();
        let calls = scene.calls();
        let find = |from: usize, call: &str, path: &str| {
            let at = calls[from..].iter().position(|(_, made, args)| made.contains(call) && args.contains(path));
            at.map(|at| at + from)
        };
        let last = |to: usize, call: &str, path: &str| {
            calls[..to].iter().rposition(|(_, made, args)| made.contains(call) && args.contains(path))
        };
        let deleted = find(0, "unlink", "/packs/").expect("a pack is deleted");
        let named = last(deleted, "rename", "/packs/").expect("a pack is stored before");
        let written = last(named, "fdatasync", "/tmp/").expect("it is synced");
        let synced = find(named, "fsync", "/packs>").expect("its folder is synced");
        assert!(written < named && synced < deleted, "{deed:?}: deleted before it was durable");
        let noted = last(deleted, "pwrite64", "/index.redb").expect("the index is brought up to date");
        let kept = find(noted, "fsync", "/index.redb").expect("the index is synced");
        assert!(synced < kept && kept < deleted, "{deed:?}: an older index could come back, and miss what was deleted");
        let durable = find(deleted, "fsync", "/packs>").expect("the deletion is synced");
        if deed == Deed::Gc {
            let ledger = find(durable, "rename", "/packs/").expect("what was reclaimed is noted after it is gone");
            let synced = find(ledger, "fsync", "/packs>").expect("the ledger is synced");
            let before = last(calls.len(), "unlink", "/packs/").expect("the one before goes");
            assert!(synced < before, "the old ledger goes when the new one is durable");
        }
    }
}

#[test]
fn a_gc_that_is_killed_at_any_moment() {
    let scene = Scene::new(Deed::Gc);
    let mut random = Random::seeded("a gc that is killed");
    let mut whole = Duration::ZERO;
    for _ in 0..3 {
        scene.reset();
        let start = Instant::now();
        scene.place.ok(&scene.args);
        whole = whole.max(start.elapsed());
    }
    let mut kills = 0;
    for round in 0..10 * rounds() {
        scene.reset();
        let mut ended = None;
        // Every third is killed, tried again, and killed again.
        for _ in 0..if round % 3 == 0 { 3 } else { 1 } {
            let mut command = scene.place.command(&scene.args);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
            std::thread::sleep(whole * random.below(1000) as u32 / 1000);
            child.kill().expect("it can be killed");
            let output = child.wait_with_output().expect("its output");
            kills += u64::from(output.status.signal().is_some());
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert!(output.status.code().is_none_or(|code| code == 0), "round {round}: {output:?}");
            ended = Some(Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) });
        }
        scene.holds(&ended.expect("at least one"), &format!("round {round}"));
    }
    println!("{kills} kills");
    assert!(kills >= 2 * rounds(), "{kills} kills are too few to mean anything");
}

/// How many KiB are left on a disk, from none to `most`: a page more each time in the long form, and in the short one
/// `step`, from where the seed says.
fn steps(most: usize, step: usize) -> Vec<usize> {
    let (step, shift) = match rounds() {
        1 => (step, Random::seeded("what is left of the disk").below(step as u64 / 4) as usize * 4),
        _ => (4, 4),
    };
    std::iter::once(0).chain((shift.max(4)..=most).step_by(step)).collect()
}

/// Puts the store of `scene` on a disk of `kib` KiB, and fills that up so that `left` KiB are free.
fn fill_up(scene: &Scene, disk: &Path, kib: usize, left: usize) {
    mount(disk, kib);
    copy(&scene.before, &scene.place.repo);
    brim(disk, left);
}

fn brim(disk: &Path, left: usize) {
    let ballast = disk.join("ballast");
    let mut length = 0;
    let file = fs::File::create(&ballast).expect("made");
    let page = [1; 4096];
    while std::os::unix::fs::FileExt::write_at(&file, &page, length).is_ok_and(|written| written == page.len()) {
        length += 4096;
    }
    assert!(length > left as u64 * 1024, "the disk is too small for this");
    file.set_len(length - left as u64 * 1024).expect("cut");
}

#[test]
fn on_a_full_disk_snapshots_can_be_forgotten_and_their_space_freed() {
    let Some(disk) = small_disk(own_name!("on_a_full_disk_snapshots_can_be_forgotten_and_their_space_freed")) else {
        return;
    };
    let mut scene = Scene::new(Deed::Forget);
    scene.place.repo = disk.join("repo");
    let mut without = 0;
    for left in steps(256, 48) {
        let what = format!("{left} KiB are left");
        fill_up(&scene, &disk, 8192, left);
        let all = listed(&scene.place).len();
        assert_eq!(all, scene.kept.len() + scene.doomed.len(), "{what}");
        scene.is_whole(&what);
        let start = pack_bytes(&scene.place);
        scene.place.ok(&scene.args);
        assert_eq!(listed(&scene.place).len(), scene.kept.len(), "{what}");
        let said = gc(&scene.place);
        without += u64::from(said["no_room"] == true);
        let now = pack_bytes(&scene.place);
        assert!(now < start, "{what}: {start} bytes became {now}: {said}");
        assert_eq!(objects(&scene.place.repo, "tmp").len(), 0, "{what}");
        let ended = Ended { code: Some(0), out: String::new(), err: String::new() };
        scene.holds(&ended, &what);
    }
    println!("{without} times there was not enough room");
}

/// Packs of each of which something is needed.
#[test]
fn on_a_full_disk_without_a_pack_that_is_all_waste_nothing_is_lost() {
    let Some(disk) = small_disk(own_name!("on_a_full_disk_without_a_pack_that_is_all_waste_nothing_is_lost")) else {
        return;
    };
    let mut place = Place { key: Some(common::KEY), ..Place::empty() };
    let mut ids = Vec::new();
    for nth in 0..8 {
        fs::write(place.data.join(format!("stays {nth}")), noise(nth, 60_000)).expect("written");
        fs::write(place.data.join("changes"), noise(100 + nth, 100_000)).expect("written");
        ids.push(snapshot(&place));
    }
    let id = ids.pop().expect("the last one");
    let expected = tree(&place.data);
    place.ok(&[vec!["forget".to_owned()], ids].concat());
    let before = place.path("before");
    copy(&place.repo, &before);
    gc(&place);
    let sound = pack_bytes(&place);
    place.repo = disk.join("repo");
    let names = |place: &Place| place.packs().iter().map(|path| path.file_name().map(Into::into)).collect::<Vec<_>>();
    let (mut without, mut freed) = (0, 0);
    for left in steps(1024, 160) {
        let what = format!("{left} KiB are left");
        mount(&disk, 8192);
        copy(&before, &place.repo);
        // Without a cache that could give its room.
        fs::remove_file(place.repo.join("index.redb")).expect("removed");
        brim(&disk, left);
        let (packs, start): (Vec<Option<PathBuf>>, u64) = (names(&place), pack_bytes(&place));
        let run = place.ok(&["gc"]);
        let now = pack_bytes(&place);
        if run.out.contains("there was not enough room") {
            without += 1;
        } else {
            assert!(now <= sound + 8192, "{what}: {now} bytes, and not {sound}: {run:?}");
        }
        freed += u64::from(now < start);
        assert!(now <= start + 4096, "{what}: {start} bytes became {now}");
        if left == 0 {
            assert!(run.out.contains("there was not enough room") && run.out.contains("freed 0 B"), "{run:?}");
            // Not but for a ledger, which says what was reclaimed.
            let now = names(&place);
            assert!(packs.iter().all(|pack| now.contains(pack)) && now.len() <= packs.len() + 1, "{what}: {now:?}");
        }
        assert_eq!(objects(&place.repo, "tmp").len(), 0, "{what}");
        for round in ["full", "with room"] {
            assert_eq!(listed(&place).len(), 1, "{what}, {round}");
            let (run, target) = place.restore(&id, "restored");
            assert_eq!(run.code, 0, "{what}, {round}: {run:?}");
            assert_equal(&expected, &tree(&target));
            fs::remove_dir_all(target).expect("removed");
            place.ok(&["check", "--read-data"]);
            if round == "full" {
                fs::remove_file(disk.join("ballast")).expect("removed");
                gc(&place);
                let now = pack_bytes(&place);
                assert!(now <= sound + 8192, "{what}: {now} bytes, and not {sound}");
            }
        }
    }
    println!("{without} times there was not enough room, {freed} times some was freed");
    assert!(without > 0 && freed > 0, "{without} times not enough room, {freed} times some");
}
