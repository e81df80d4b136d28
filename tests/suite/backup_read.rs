//! Backups that the application itself made, and others: found, listed, verified; and what is wrong with them is said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::hostile_backup::{self, KEY, OTHER_KEY, Workshop, credential, fifo};
use nbak::crypto::secret::Credential;
use nbak::error::Error;
use nbak::export::backup::{Backup, MacState};
use nbak::export::dialect::Dialect;
use nbak::export::list::find;
use nbak::export::list::list;
use nbak::export::manifest::{Kind, Manifest, iso};
use nbak::export::nbak::{NbakKeys, open};
use nbak::export::verify::{Verified, verify};
use nbak::snapshot::places::Places;
use serde_json::Value;
use tempfile::TempDir;

/// A copy of one of the application's own backups, in a folder of its own.
struct Sample {
    place: TempDir,
    path: PathBuf,
    key: Option<String>,
    dialect: Dialect,
    expected: Vec<Value>,
}

const SAMPLES: [&str; 3] = ["nodyn-plain", "nodyn-encrypted", "lynox-encrypted"];

fn sample(name: &str) -> Sample {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference").join(name);
    let place = TempDir::new().expect("a folder");
    let expected: Value = serde_json::from_slice(&fs::read(from.join("expected.json")).expect("read")).expect("JSON");
    let folders = fs::read_dir(&from).expect("a folder").map(|entry| entry.expect("an entry").path());
    let backup = folders.into_iter().find(|path| path.is_dir()).expect("a backup");
    let path = place.path().join(backup.file_name().expect("a name"));
    copy(&backup, &path);
    Sample {
        place,
        path,
        key: expected["vault_key"].as_str().map(str::to_owned),
        dialect: Dialect::parse(expected["dialect"].as_str().expect("a word")).expect("a dialect"),
        expected: expected["expected"].as_array().expect("a list").clone(),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

impl Sample {
    fn keys(&self) -> NbakKeys {
        let credentials: Vec<Credential> = self.key.as_deref().map(credential).into_iter().collect();
        NbakKeys::new(&credentials, self.dialect)
    }

    fn verify(&self, keys: &NbakKeys) -> Result<Verified, Error> {
        verify(&Backup::open(&self.path)?, Path::new(""), keys, &|_| Vec::new())
    }

    /// Nothing but the backup is left beside it.
    fn assert_clean(&self) {
        assert_eq!(fs::read_dir(self.place.path()).expect("a folder").count(), 1);
    }
}

fn none() -> NbakKeys {
    NbakKeys::new(&[], Dialect::Nodyn)
}

/// All files below `folder`, by their relative paths.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below").to_str().expect("UTF-8").to_owned();
                all.insert(name, fs::read(&path).expect("read"));
            }
        }
    }
    all
}

#[test]
fn the_application_s_own_are_listed_and_verified() {
    for name in SAMPLES {
        let sample = sample(name);
        let before = files(&sample.path);
        let listed = list(sample.place.path()).expect("listed");
        assert_eq!(listed.len(), 1, "{name}");
        let one = &listed[0];
        assert_eq!((one.files as usize, one.damage.as_deref()), (sample.expected.len(), None), "{name}");
        assert_eq!((one.dialect, one.encrypted), (Some(sample.dialect), sample.key.is_some()), "{name}");
        assert_eq!(
            one.bytes,
            before.iter().filter(|(n, _)| *n != "manifest.json").map(|(_, b)| b.len() as u64).sum::<u64>()
        );
        // The name is cut off the time that the manifest tells: the folder was made a moment before.
        let named = nbak::export::names::date_of(&one.name).expect("a dated name");
        assert!((0..1000).contains(&(one.created_ms.expect("known") - named)), "{name}");

        let verified = sample.verify(&sample.keys()).expect("opened");
        assert!(verified.faults.is_empty() && verified.extra.is_empty(), "{name}: {verified:?}");
        assert!(verified.not_checked.is_empty() && verified.mac == MacState::Absent, "{name}: {verified:?}");
        let databases = sample.expected.iter().filter(|one| one["rows_in_entries"].is_number()).count();
        assert_eq!((verified.databases as usize, verified.files, verified.bytes), (databases, one.files, one.bytes));
        assert_eq!(verified.remarks.len(), 1, "nobody vouches for it");

        let without = sample.verify(&none()).expect("opened");
        assert!(without.faults.is_empty() && !without.wrong_key, "{name}: {without:?}");
        if sample.key.is_some() {
            assert_eq!(without.databases, 0);
            let told = without.not_checked.join("\n");
            assert!(told.contains(&format!("{} sealed files", one.files)), "{told}");
            assert!(told.contains(&format!("{databases} databases")), "{told}");
            let other = NbakKeys::new(&[credential(KEY)], sample.dialect);
            let other = sample.verify(&other).expect("opened");
            assert!(other.wrong_key && other.faults.len() == 1 && other.databases == 0, "{name}: {other:?}");
        }
        // SQLite left nothing, and neither did scratch space.
        assert!(files(&sample.path) == before, "{name}");
        sample.assert_clean();
    }
}

#[test]
fn what_opens_is_what_the_application_sealed() {
    for name in SAMPLES {
        let sample = sample(name);
        let backup = Backup::open(&sample.path).expect("opened");
        let mut rows = 0;
        for entry in &backup.manifest.files {
            let expected = sample.expected.iter().find(|one| one["path"] == entry.path.as_str());
            assert_eq!(expected.is_none(), entry.kind.is_directory(), "{}", entry.path);
            let Some(expected) = expected else { continue };
            let mut file = backup.file(entry).expect("a file");
            let mut plain = Vec::new();
            if backup.manifest.encrypted {
                open(&mut file, &backup.path, &sample.keys(), &mut plain).expect("it opens");
            } else {
                std::io::copy(&mut file, &mut plain).expect("read");
            }
            if let Some(hash) = expected["sha256"].as_str() {
                assert_eq!(hostile_backup::hash(&plain), hash, "{}", entry.path);
                continue;
            }
            assert_eq!(entry.kind, Kind::Sqlite);
            let place = TempDir::new().expect("a folder");
            fs::write(place.path().join("db"), plain).expect("written");
            let db = rusqlite::Connection::open(place.path().join("db")).expect("opened");
            let count: i64 = db.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).expect("rows");
            assert_eq!(Some(count), expected["rows_in_entries"].as_i64(), "{}", entry.path);
            rows += count;
        }
        assert!(rows > 0, "{name}");
    }
}

/// One bit of every file at a time, at the same place in all of them: each has to be named, with a key or without.
#[test]
fn a_flipped_bit_in_any_file_is_found() {
    for name in SAMPLES {
        let sample = sample(name);
        let good = files(&sample.path);
        let (keys, none) = (sample.keys(), none());
        // In the long form every byte of each file. In the short one a third of the small ones, and of larger ones of
        // the head, the end, and places between them: each time the same.
        let is_long = crate::common::rounds() > 1;
        let longest = good.values().map(Vec::len).max().expect("a file");
        let small = if is_long { longest } else { 360 };
        let mut count = 0;
        let place = |round: usize, length: usize| match round {
            _ if length <= small => round,
            0..120 => round,
            120..240 => length - 1 - (round - 120),
            _ => 120 + (round - 240) * (length - 240) / (small - 240),
        };
        for round in (0..small).step_by(if is_long { 1 } else { 3 }) {
            let mut flipped = BTreeSet::new();
            for (file, bytes) in good.iter().filter(|(file, _)| *file != "manifest.json") {
                let at = place(round, bytes.len());
                let mut bytes = bytes.clone();
                if at < bytes.len() {
                    bytes[at] ^= 1 << ((at + round) % 8);
                    flipped.insert(file.clone());
                    count += 1;
                }
                fs::write(sample.path.join(file), bytes).expect("written");
            }
            for keys in [&keys, &none] {
                let verified = sample.verify(keys).expect("opened");
                let named: BTreeSet<String> = verified.faults.iter().map(|fault| fault.path.clone()).collect();
                assert_eq!(named, flipped, "{name}, round {round}: {verified:?}");
            }
        }
        let all: usize = good.iter().filter(|(file, _)| *file != "manifest.json").map(|(_, bytes)| bytes.len()).sum();
        println!("{name}: {count} of {all} bytes flipped");
        assert!(count == all || !is_long && count > 300, "{name}: {count} of {all}");
        sample.assert_clean();
    }
}

/// What of a manifest without a MAC can be changed by one bit and nobody can tell: what is about no file's content.
const UNPROTECTED: [&str; 3] = ["version", "created_at", "source_dir"];

#[test]
fn a_flipped_bit_in_a_manifest_is_found_or_is_about_no_content() {
    for name in SAMPLES {
        let sample = sample(name);
        let path = sample.path.join("manifest.json");
        let good = fs::read(&path).expect("read");
        let before = Manifest::parse(&good).expect("a manifest");
        let keys = sample.keys();
        let mut passed = BTreeSet::new();
        let mut refused = 0_u32;
        // Each costs a whole reading where it is not refused: where rounds are cut, each third of those.
        let (step, mut read) = (if crate::common::rounds_are_cut() { 3 } else { 1 }, 0_u32);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(after) = Manifest::parse(&bytes) else {
                refused += 1;
                continue;
            };
            if !after.checksum_holds() {
                // `verify` says so; the next test is witness.
                continue;
            }
            read += 1;
            if read % step != 0 {
                continue;
            }
            let mut differs = Vec::new();
            let fields = [before.version != after.version, before.created_at != after.created_at];
            for (field, other) in
                UNPROTECTED.into_iter().zip(fields.into_iter().chain([before.source_dir != after.source_dir]))
            {
                if other {
                    differs.push(field);
                }
            }
            fs::write(&path, &bytes).expect("written");
            let verified = sample.verify(&keys).expect("opened");
            if verified.faults.is_empty() {
                let what = format!(
                    "{name}: bit {bit}, in {:?}",
                    String::from_utf8_lossy(&good[(bit / 8).saturating_sub(20)..good.len().min(bit / 8 + 20)])
                );
                assert_eq!(differs.len(), 1, "nobody noticed: {what}");
                passed.insert(differs[0]);
                // Nothing else has changed with it.
                let back = Manifest {
                    version: before.version.clone(),
                    created_at: before.created_at.clone(),
                    created_ms: before.created_ms,
                    source_dir: before.source_dir.clone(),
                    ..after
                };
                assert_eq!(back, before, "{what}");
            }
        }
        assert!(refused > 10_000, "{refused}");
        assert_eq!(passed, UNPROTECTED.into_iter().collect(), "{name}");
        fs::write(&path, &good).expect("written");
        let wrong = String::from_utf8(good).expect("UTF-8").replacen(&before.checksum, &"0".repeat(64), 1);
        fs::write(&path, wrong).expect("written");
        let verified = sample.verify(&keys).expect("opened");
        assert!(verified.faults.len() == 1 && verified.faults[0].what.contains("checksum"), "{verified:?}");
    }
}

/// With a MAC nothing is left that could be changed.
#[test]
fn a_flipped_bit_in_a_signed_manifest_is_always_found() {
    for encrypted in [false, true] {
        let place = TempDir::new().expect("a folder");
        let path = place.path().join("backup");
        Workshop::new(encrypted, true).write(&path);
        let good = fs::read(path.join("manifest.json")).expect("read");
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(after) = Manifest::parse(&bytes) else { continue };
            let key = |own: &nbak::export::manifest::Own| hostile_backup::mac_keys(Some(KEY), own);
            match nbak::export::backup::mac_state(&after, &key) {
                MacState::Invalid => {}
                // Only what is called `nbak` can be lost by one bit; that it was there is seen from the entries.
                MacState::Absent => {
                    fs::write(path.join("manifest.json"), &bytes).expect("written");
                    let backup = Backup::open(&path).expect("opened");
                    let verified = verify(&backup, Path::new(""), &none(), &key).expect("verified");
                    assert!(verified.faults.iter().any(|fault| fault.what.contains("taken away")), "{verified:?}");
                }
                state => panic!("bit {bit}: {state:?}"),
            }
        }
    }
}

#[test]
fn names_and_ages_find_backups() {
    let place = TempDir::new().expect("a folder");
    let folder = place.path().join("backups");
    let places = Places {
        name: None,
        data_dir: "/home/user/.nodyn".into(),
        backup_dir: folder.clone(),
        repo: folder.join("store"),
    };
    let newest = |name: Option<&str>| find(&places, name);
    assert!(newest(None).expect_err("no folder").is_no_store());
    fs::create_dir(&folder).expect("made");
    assert!(newest(None).expect_err("no backup").is_no_store());
    let made = |name: &str, ms: i64| {
        let mut shop = Workshop::new(false, true);
        shop.manifest.created_ms = ms;
        shop.manifest.created_at = iso(ms);
        shop.settle();
        shop.write(&folder.join(name));
    };
    let day = 24 * 60 * 60 * 1000;
    let base = 1_774_407_600_000;
    made("20260325T030000Z", base);
    made("2026-03-27T03000000Z", base + 2 * day);
    made("before the move", base + 3 * day);
    // What is no backup: staged, somebody's folder, the store, scratch, a file, links.
    made("20260329T030000Z.tmp", base + 4 * day);
    made(".nbak-scratch-1", base + 4 * day);
    fs::create_dir(folder.join("store")).expect("made");
    fs::write(folder.join("20260330T030000Z"), b"a file").expect("written");
    symlink(folder.join("before the move"), folder.join("a link")).expect("linked");
    let names = || -> Vec<(String, bool)> {
        let listed = list(&folder).expect("listed");
        listed.into_iter().map(|one| (one.name, one.damage.is_some())).collect()
    };
    let whole = |name: &str| (name.to_owned(), false);
    let three = [whole("20260325T030000Z"), whole("2026-03-27T03000000Z"), whole("before the move")];
    assert_eq!(names(), three);
    assert_eq!(newest(None).expect("the newest").name, "before the move");
    assert_eq!(newest(Some("20260325T030000Z")).expect("by name").manifest.created_ms, base);
    let elsewhere = place.path().join("backups/../backups/2026-03-27T03000000Z");
    assert_eq!(newest(elsewhere.to_str()).expect("by path").name, "2026-03-27T03000000Z");
    assert_eq!(newest(folder.join("a link").to_str()).expect("a path may be a link").name, "before the move");
    for name in ["20260101T000000Z", "", "20260329T030000Z.tmp", ".nbak-scratch-1", "x\0", "/nowhere/at/all"] {
        assert!(newest(Some(name)).expect_err(name).is_usage(), "{name:?}");
    }
    for name in ["..", ".", "a link", "20260330T030000Z", "store"] {
        assert!(newest(Some(name)).is_err(), "{name}");
    }

    // Damaged ones are shown. An old one is in nobody's way, a new one is not passed over in silence.
    fs::create_dir(folder.join("20260324T030000Z")).expect("made");
    assert_eq!(names()[0], ("20260324T030000Z".to_owned(), true));
    assert_eq!(newest(None).expect("the newest").name, "before the move");
    symlink(folder.join("before the move"), folder.join("20260401T030000Z")).expect("linked");
    let error = newest(None).expect_err("the newest is not there");
    assert!(error.is_integrity() && error.to_string().contains("`before the move`"), "{error}");
    fs::remove_file(folder.join("20260401T030000Z")).expect("removed");
    fs::write(folder.join("before the move/manifest.json"), b"{").expect("written");
    assert_eq!(names()[0], ("before the move".to_owned(), true), "its age is not known");
    assert_eq!(newest(None).expect("the newest that is known").name, "2026-03-27T03000000Z");
    assert!(newest(Some("before the move")).expect_err("damaged").is_integrity());
}

#[test]
fn what_is_wrong_with_files_is_said_for_each() {
    let place = TempDir::new().expect("a folder");
    let path = place.path().join("backup");
    let mut shop = Workshop::new(true, true);
    // A database that was damaged when the snapshot was taken is kept as a file: no fault of the backup.
    let mut damaged = hostile_backup::database().to_vec();
    let end = damaged.len();
    damaged[end - 2000..].fill(0xff);
    shop.add("damaged.db", Kind::File, &damaged);
    shop.settle();
    shop.write(&path);
    let keys = hostile_backup::nbak_keys(Some(KEY));
    let look = || {
        let backup = Backup::open(&path).expect("opened");
        verify(&backup, Path::new(""), &keys, &|own| hostile_backup::mac_keys(Some(KEY), own)).expect("verified")
    };
    let verified = look();
    assert!(verified.faults.is_empty() && verified.remarks.len() == 1, "{verified:?}");
    assert!(verified.remarks[0].starts_with("damaged.db"), "{verified:?}");

    fs::write(path.join("extra.txt"), b"").expect("written");
    fs::create_dir_all(path.join("unknown/below")).expect("made");
    symlink("/etc", path.join("memory/link")).expect("linked");
    let verified = look();
    assert!(verified.faults.is_empty(), "{verified:?}");
    assert_eq!(verified.extra, ["extra.txt", "memory/link", "unknown/"]);

    fs::remove_file(path.join("history.db")).expect("removed");
    fs::remove_file(path.join("memory/facts.txt")).expect("removed");
    fifo(&path.join("memory/facts.txt"));
    fs::write(path.join("config.json"), b"x").expect("written");
    fs::remove_dir_all(path.join("knowledge-graph")).expect("removed");
    let verified = look();
    let told: BTreeMap<&str, &str> = verified.faults.iter().map(|f| (f.path.as_str(), f.what.as_str())).collect();
    let expect = [
        ("config.json", "bytes"),
        ("history.db", "missing"),
        ("knowledge-graph", "missing"),
        ("knowledge-graph/data.kz", "missing"),
        ("memory/facts.txt", "regular file"),
    ];
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), expect.map(|(path, _)| path), "{told:?}");
    assert!(expect.iter().all(|(path, say)| told[path].contains(say)), "{told:?}");
    assert_eq!((verified.databases, verified.mac), (1, MacState::Valid));
    assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 1);
}

/// S11: a backup is sealed altogether or not at all, whoever signed it and whether there is a key or not.
#[test]
fn plain_and_sealed_files_do_not_mix() {
    let place = TempDir::new().expect("a folder");
    let look = |name: &str, key: Option<&str>| {
        let backup = Backup::open(&place.path().join(name)).expect("opened");
        let mac_keys = |own: &_| hostile_backup::mac_keys(Some(KEY), own);
        verify(&backup, Path::new(""), &hostile_backup::nbak_keys(key), &mac_keys).expect("verified")
    };
    let mut shop = Workshop::new(true, true);
    shop.replace(5, b"facts about something".to_vec());
    let changed = shop.files[5].0.clone();
    shop.write(&place.path().join("plain in sealed"));
    for key in [None, Some(KEY)] {
        let verified = look("plain in sealed", key);
        assert_eq!(verified.mac, MacState::Valid);
        assert_eq!((verified.faults.len(), verified.faults[0].path.as_str()), (1, changed.as_str()), "{verified:?}");
        assert!(verified.faults[0].what.contains("not sealed"), "{verified:?}");
    }

    // Said to be plain, by somebody without a key: its ciphertext would be restored as it is.
    let mut shop = Workshop::new(true, false);
    shop.manifest.encrypted = false;
    shop.write(&place.path().join("said to be plain"));
    for key in [None, Some(KEY)] {
        let verified = look("said to be plain", key);
        assert_eq!(verified.faults.len(), shop.files.len(), "{verified:?}");
        assert!(verified.faults.iter().all(|fault| fault.what.contains("says it is not")), "{verified:?}");
    }

    // A plain backup may hold a file that happens to be sealed, if somebody vouches for it.
    let mut shop = Workshop::new(false, true);
    shop.add("workspace/old.nbak", Kind::File, &hostile_backup::sealed(b"from another backup", OTHER_KEY));
    shop.settle();
    shop.write(&place.path().join("sealed in plain"));
    assert!(look("sealed in plain", None).faults.is_empty());
}

/// What a killed verify left is swept, what another one is using is not; and what is decrypted is only for its owner.
#[test]
fn scratch_space_is_private_and_goes() {
    let place = TempDir::new().expect("a folder");
    let path = place.path().join("backup");
    Workshop::new(true, true).write(&path);
    let stale = place.path().join(".nbak-scratch-00112233445566778899aabbccddeeff");
    fs::create_dir(&stale).expect("made");
    fs::write(stale.join("lock"), b"").expect("written");
    fs::write(stale.join("plain"), b"left").expect("written");
    let keys = hostile_backup::nbak_keys(Some(KEY));
    let backup = Backup::open(&path).expect("opened");
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                for entry in fs::read_dir(place.path()).expect("a folder").flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    if name == "backup" || entry.path() == stale {
                        continue;
                    }
                    seen.extend(entry.metadata().map(|meta| ("folder", meta.permissions().mode() & 0o777)));
                    for file in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                        seen.extend(file.metadata().map(|meta| ("file", meta.permissions().mode() & 0o777)));
                    }
                }
            }
            seen
        });
        for _ in 0..100 {
            let verified = verify(&backup, Path::new(""), &keys, &|own| hostile_backup::mac_keys(Some(KEY), own))
                .expect("verified");
            assert!(verified.faults.is_empty() && verified.databases == 2);
        }
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("it watched")
    });
    assert_eq!(seen, BTreeSet::from([("file", 0o600), ("folder", 0o700)]));
    assert!(!stale.exists());
    assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 1);
}

/// SQLite opens no path beyond some 500 bytes; a backup may lie or go deeper.
#[test]
fn databases_at_long_paths_are_checked() {
    let long = vec!["d".repeat(100); 6].join("/") + "/long.db";
    for encrypted in [false, true] {
        let place = TempDir::new().expect("a folder");
        let path = place.path().join("backup");
        let mut shop = Workshop::new(encrypted, true);
        shop.add(&long, Kind::Sqlite, hostile_backup::database());
        shop.settle();
        shop.write(&path);
        let keys = hostile_backup::nbak_keys(Some(KEY));
        let look = || {
            let backup = Backup::open(&path).expect("opened");
            verify(&backup, Path::new(""), &keys, &|own| hostile_backup::mac_keys(Some(KEY), own)).expect("verified")
        };
        let verified = look();
        assert!(verified.faults.is_empty() && verified.databases == 3, "{verified:?}");
        assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 1);
    }
}
