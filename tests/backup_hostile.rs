//! Backups that somebody made up: whatever they say, reading them ends with an answer, stays within them, and takes no
//! more memory than their size allows.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use common::{rounds, within};
use hostile_backup::{KEY, OTHER_KEY, Verdict, Workshop, mac_keys, make, nbak_keys, outside};
use nbak::error::Error;
use nbak::export::backup::{Backup, MacState};
use nbak::export::list::find;
use nbak::export::list::list;
use nbak::export::manifest::{ENTRIES_MAX, FileEntry, Kind, Manifest};
use nbak::export::verify::{Verified, verify};
use nbak::snapshot::places::Places;
use peak_alloc::PeakAlloc;
use tempfile::TempDir;

#[path = "suite/common/mod.rs"]
mod common;
#[path = "suite/hostile_backup/mod.rs"]
mod hostile_backup;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// How many are made, times [`rounds`].
const CASES: u64 = 3000;
/// What reading one may take, in bytes.
const PEAK: usize = 48 << 20;

/// Memory is that of the process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn read(path: &Path, key: Option<&str>) -> Result<Verified, Error> {
    let backup = Backup::open(path)?;
    verify(&backup, Path::new(""), &nbak_keys(key), &|own| mac_keys(key, own))
}

/// Everything below `folder` that a reader could have changed: names, kinds, sizes, times of change.
fn state(folder: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, i64)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let meta = path.symlink_metadata().expect("there");
            // Scratch space comes and goes beside a backup, which changes that folder's time.
            let (seconds, nanos) = if path.ends_with("backups") { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) };
            all.insert(path.clone(), (meta.mode(), meta.size(), seconds, nanos));
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    all
}

#[test]
fn what_was_made_up_is_noticed_and_contained() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    within(600, "hostile backups", || {
        let place = TempDir::new().expect("a folder");
        let outside = outside(place.path());
        let folder = place.path().join("backups");
        fs::create_dir(&folder).expect("made");
        let places = Places {
            name: None,
            data_dir: place.path().join("data"),
            backup_dir: folder.clone(),
            repo: folder.join("store"),
        };
        let path = folder.join("20260325T030000Z");
        // What is made once is no case's.
        Workshop::new(true, true).write(&path);
        assert!(read(&path, Some(KEY)).expect("opened").faults.is_empty());
        fs::remove_dir_all(&path).expect("removed");
        let mut counts = BTreeMap::<String, u32>::new();
        for seed in 0..CASES * rounds() {
            let hostile = make(seed, &path, &outside);
            let before = state(place.path());
            let (start, ()) = (MEMORY.current_usage(), MEMORY.reset_peak_usage());
            let with = read(&path, Some(KEY));
            let without = read(&path, None);
            let other = read(&path, Some(OTHER_KEY));
            let listed = list(&folder).expect("listed");
            let peak = MEMORY.peak_usage().saturating_sub(start);
            let case = format!("seed {seed}: {}: {with:?}", hostile.what);
            assert!(peak <= PEAK, "{peak} bytes: {case}");
            assert!(state(place.path()) == before, "something changed: {case}");
            assert_eq!(listed.len(), 1, "{case}");
            assert_eq!(listed[0].damage.is_some(), with.is_err(), "{case}");
            assert_eq!(with.is_err(), without.is_err() && other.is_err(), "{case}");
            match (&with, hostile.verdict) {
                (Err(error), _) => {
                    assert!(error.is_integrity() && error.to_string().contains("20260325T030000Z"), "{case}");
                    assert!(find(&places, None).expect_err("unreadable").is_integrity(), "{case}");
                }
                (Ok(_), Verdict::Unreadable) => panic!("it was read: {case}"),
                (Ok(verified), Verdict::Noticed) => assert!(!verified.faults.is_empty(), "nothing is wrong: {case}"),
                (Ok(_), Verdict::Either) => {}
            }
            for verified in [&with, &without, &other].into_iter().flatten() {
                assert!(verified.faults.iter().all(|fault| !fault.what.is_empty()), "{case}");
                assert_eq!(verified.mac == MacState::Absent, !still_signed(&path), "{case}");
            }
            // A wrong key never says that all is well.
            assert!(
                other.is_err() || other.is_ok_and(|verified| !encrypted(&path) || !verified.faults.is_empty()),
                "{case}"
            );
            let outcome = match &with {
                Err(_) => "refused",
                Ok(verified) if verified.faults.is_empty() => "whole",
                Ok(_) => "faults",
            };
            *counts.entry(outcome.to_owned()).or_default() += 1;
            fs::remove_dir_all(&path).expect("removed");
        }
        println!("{counts:?}");
        assert!(counts["refused"] > 500 && counts["faults"] > 500, "{counts:?}");
    });
}

fn encrypted(path: &Path) -> bool {
    Backup::open(path).is_ok_and(|backup| backup.manifest.encrypted && backup.manifest.files.iter().any(|f| f.size > 0))
}

fn still_signed(path: &Path) -> bool {
    Backup::open(path).is_ok_and(|backup| backup.manifest.own.is_some())
}

#[test]
fn good_ones_are_whole() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (encrypted, signed) in [(false, false), (false, true), (true, false), (true, true)] {
        let place = TempDir::new().expect("a folder");
        let path = place.path().join("any name");
        Workshop::new(encrypted, signed).write(&path);
        let verified = read(&path, Some(KEY)).expect("opened");
        assert!(verified.faults.is_empty() && verified.extra.is_empty() && verified.not_checked.is_empty());
        assert_eq!((verified.files, verified.databases), (7, 2));
        assert_eq!(verified.mac, if signed { MacState::Valid } else { MacState::Absent });
        let without = read(&path, None).expect("opened");
        assert!(without.faults.is_empty(), "{:?}", without.faults);
        assert_eq!(without.not_checked.len(), usize::from(signed) + 2 * usize::from(encrypted), "{without:?}");
        let other = read(&path, Some(OTHER_KEY)).expect("opened");
        assert_eq!(other.faults.is_empty(), !encrypted && !signed, "{other:?}");
        assert_eq!(other.wrong_key, encrypted);
        assert_eq!(other.mac, if signed { MacState::Invalid } else { MacState::Absent });
    }
}

/// As many entries as there may be, in as many bytes as there may be: the most that a manifest can make a reader hold.
#[test]
fn a_million_entries_are_bounded() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = String::from(
        r#"{"version":"1","created_at":"2026-03-25T03:00:00.000Z","nodyn_dir":"/","encrypted":false,"checksum":""#,
    );
    text.push_str(&hostile_backup::hash(b""));
    text.push_str(r#"","files":["#);
    let folder = |path: String| FileEntry {
        path,
        size: 0,
        sha256: String::new(),
        kind: Kind::Directory,
        mode: None,
        mtime_ms: None,
    };
    for at in 0..ENTRIES_MAX {
        let entry = serde_json::to_string(&folder(format!("{at:x}"))).expect("JSON");
        text.push_str(&entry);
        text.push(',');
        if text.len() as u64 + 100 > nbak::export::manifest::BYTES_MAX {
            break;
        }
    }
    text.pop();
    text.push_str("]}");
    assert!(text.len() > 60 << 20, "{}", text.len());
    let start = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let manifest = Manifest::parse(text.as_bytes()).expect("within the limits");
    let peak = MEMORY.peak_usage().saturating_sub(start);
    println!("{} entries, {peak} bytes", manifest.files.len());
    assert!(manifest.files.len() > 900_000);
    assert!(peak < 400 << 20, "{peak}");
}
