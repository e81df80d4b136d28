//! Thousands of hostile backups, put to the restore into a live directory: nothing is ever written outside of it, and
//! where the restore refuses, not a byte of it changed. `NBAK_TEST_ROUNDS=6` makes it ten thousand.

use crate::common;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nbak::export::backup::{MacState, mac_state};
use nbak::export::manager::{BackupManager, Settings};
use nbak::export::restore::Options;
use nbak::snapshot::places::Places;
use nbak::snapshot::progress::Silent;

use crate::hostile_backup::{KEY, Verdict, credential, mac_keys, make, outside};

/// For each round.
const BACKUPS: u64 = 1_000;
const THREADS: u64 = 2;

/// What must not change: names, kinds, modes and bytes.
type State = BTreeMap<PathBuf, (&'static str, u32, Vec<u8>)>;

fn state(root: &Path) -> State {
    let own = |path: &Path| path.to_string_lossy().starts_with(".nbak-");
    let all = common::tree(root).into_iter().filter(|(path, _)| !own(path));
    all.map(|(path, thing)| (path, (thing.kind, thing.mode, thing.bytes))).collect()
}

fn fill(data: &Path) {
    fs::create_dir_all(data.join("memory")).expect("made");
    fs::write(data.join("memory/facts.txt"), b"live facts").expect("written");
    fs::write(data.join("config.json"), b"{}").expect("written");
    fs::write(data.join(".env"), b"# nothing").expect("written");
    common::database(&data.join("history.db"), "DELETE", 3);
}

fn carry_out(seed: u64, counts: &[AtomicU64; 3]) {
    let place = tempfile::tempdir().expect("a folder");
    let data = place.path().join("data");
    fill(&data);
    let beyond = outside(place.path());
    let backup_dir = place.path().join("backups");
    let folder = backup_dir.join("20260325T030000Z");
    fs::create_dir(&backup_dir).expect("made");
    let hostile = make(seed, &folder, &beyond);
    let places = Places { name: None, data_dir: data.clone(), backup_dir, repo: place.path().join("store") };
    let manager = BackupManager::new(places, Settings::default(), vec![credential(KEY)]);
    let (live, away) = (state(&data), state(&beyond));

    let Ok(backup) = manager.find_backup(Some("20260325T030000Z")) else {
        counts[0].fetch_add(1, Ordering::Relaxed);
        assert!(state(&data) == live && state(&beyond) == away, "seed {seed}: {hostile:?}");
        return;
    };
    assert_ne!(hostile.verdict, Verdict::Unreadable, "seed {seed}: {hostile:?}");
    // First as it is; if nobody vouches for it, it is refused for that, and then tried all the same.
    let vouched = mac_state(&backup.manifest, &|own| mac_keys(Some(KEY), own)) == MacState::Valid;
    for allow_unsigned in if vouched { &[false][..] } else { &[false, true] } {
        let options = Options { allow_unsigned: *allow_unsigned, ..Options::default() };
        let restored = manager.restore_backup(&backup, &options, &|_| {}, &Silent);
        assert!(state(&beyond) == away, "seed {seed}: {hostile:?}: something outside was changed");
        if let Err(error) = restored {
            counts[1].fetch_add(1, Ordering::Relaxed);
            assert!(state(&data) == live, "seed {seed}: {hostile:?}: refused, and changed: {error}");
            assert!(!data.join(".nbak-restore").exists(), "seed {seed}: {hostile:?}: the staging was left");
        } else {
            counts[2].fetch_add(1, Ordering::Relaxed);
            assert!(vouched || *allow_unsigned, "seed {seed}: {hostile:?}: nobody vouched for it");
            assert_eq!(fs::read(data.join(".env")).expect("read"), b"# nothing", "seed {seed}: {hostile:?}");
        }
    }
}

#[test]
fn none_writes_outside_and_none_that_is_refused_changes_a_byte() {
    let counts = [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)];
    let backups = BACKUPS * common::rounds();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let counts = &counts;
            scope.spawn(move || (thread..backups).step_by(THREADS as usize).for_each(|seed| carry_out(seed, counts)));
        }
    });
    let [unreadable, refused, restored] = counts.map(AtomicU64::into_inner);
    println!("seeds 0 to {}", backups - 1);
    println!("{unreadable} could not be opened, {refused} restores were refused, {restored} were carried out");
    assert!(unreadable > backups / 10 && refused > backups / 10);
}
