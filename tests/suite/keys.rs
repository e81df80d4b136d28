//! Keys, through the real binary: who gets in, what is written before that is known, and where the key is never found.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{KEY, OTHER_KEY, Place, Run, THIRD_KEY, Thing, assert_equal, bare, tree};
use nbak::crypto::secret::Credential;
use nbak::snapshot::store::{Access, Store};

const READING: &[&[&str]] = &[
    &["snapshots"],
    &["ls", "latest"],
    &["cat", "latest", "config.json"],
    &["restore", "latest", "--target", "TARGET"],
    &["check"],
    &["check", "--read-data"],
    &["stats"],
    &["key", "list"],
];

fn arguments(place: &Place, args: &[&str]) -> Vec<String> {
    let target = place.path("target").display().to_string();
    args.iter().map(|arg| arg.replace("TARGET", &target)).collect()
}

fn refused(run: &Run) {
    assert_eq!(run.code, 12, "{run:?}");
    assert!(run.out.is_empty(), "{run:?}");
    assert!(run.err.lines().any(|line| line.starts_with("error: ")), "{run:?}");
}

fn write(place: &Place, name: &str, text: &str) -> String {
    let path = place.path(name);
    fs::write(&path, text).expect("written");
    path.display().to_string()
}

fn warns(run: &Run, of: &str) {
    assert!(run.err.lines().any(|line| line.starts_with("warning: ") && line.contains(of)), "{of}: {run:?}");
}

/// The id of the only key slot, or of the one with `label`.
fn slot(place: &Place, key: Option<&str>, label: &str) -> String {
    let run = place.with_key(key, &["key", "list", "--json"]);
    let line = run.out.lines().find(|line| line.contains(&format!("\"label\":\"{label}\""))).expect("a slot");
    let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
    value["slot"].as_str().expect("an id").to_owned()
}

#[test]
fn a_wrong_key_writes_nothing() {
    let place = Place::taken(Some(KEY));
    let before = tree(&place.repo);
    let data = tree(&place.data);
    let writing: &[&[&str]] = &[
        &["snapshot"],
        &["snapshot", "--dry-run"],
        &["repair", "index"],
        &["key", "rotate"],
        &["key", "remove", "00"],
        &["key", "add", "--new-vault-key-command", "echo new"],
    ];
    for args in READING.iter().chain(writing) {
        for key in [Some(OTHER_KEY), Some("short"), Some(""), None] {
            let run = place.with_key(key, &arguments(&place, args));
            refused(&run);
            assert!(run.err.contains("NODYN_VAULT_KEY") || args[0] == "key", "says what to do: {run:?}");
            assert!(!place.path("target").exists(), "{args:?}");
            assert_equal(&before, &tree(&place.repo));
        }
    }
    assert_equal(&data, &tree(&place.data));
    place.assert_restores("target");
}

#[test]
fn a_wrong_key_does_not_mend_or_sweep() {
    let place = Place::taken(Some(KEY));
    fs::remove_file(place.repo.join("index.redb")).expect("removed");
    fs::write(place.repo.join("tmp").join("0123456789abcdef".repeat(2)), b"left").expect("written");
    let before = tree(&place.repo);
    for args in READING.iter().chain(&[&["snapshot"] as &[&str]]) {
        refused(&place.with_key(Some(OTHER_KEY), &arguments(&place, args)));
    }
    assert_equal(&before, &tree(&place.repo));
    // A store that was copied may lack the folders and files that hold nothing.
    fs::remove_dir_all(place.repo.join("tmp")).expect("removed");
    fs::remove_file(place.repo.join("lock")).expect("removed");
    refused(&place.with_key(Some(OTHER_KEY), &["snapshot"]));
    assert!(!place.repo.join("tmp").exists());
    place.ok(&["snapshot"]);
    place.assert_restores("target");
}

#[test]
fn any_of_the_ways_to_give_a_key_will_do() {
    let place = Place::taken(Some(KEY));
    let file = write(&place, "key", &format!("{KEY}\n"));
    let other = write(&place, "other", &format!("{OTHER_KEY}\n"));
    for args in [
        vec!["--vault-key-file", &file],
        vec!["--vault-key-file", &other, "--vault-key-file", &file],
        vec!["--vault-key-command", &format!("cat '{file}'")],
    ] {
        let args: Vec<&str> = args.into_iter().chain(["snapshots"]).collect();
        assert_eq!(place.with_key(None, &args).code, 0, "{args:?}");
    }
    let mut command = place.command(&["snapshots"]);
    command.env_remove("NODYN_VAULT_KEY").env("LYNOX_VAULT_KEY", KEY);
    assert_eq!(Run::of(command).code, 0);
    for args in [
        ["--vault-key-command", "exit 3"],
        ["--vault-key-command", "true"],
        ["--vault-key-file", "/nowhere/key"],
        ["--passphrase-file", "/nowhere/key"],
    ] {
        refused(&place.run(&[&args[..], &["snapshots"]].concat()));
    }
}

#[test]
fn a_store_without_a_key_says_so_until_it_has_one() {
    let place = Place::filled(None);
    warns(&place.ok(&["snapshot"]), "not protected");
    for args in READING {
        warns(&place.run(&arguments(&place, args)), "not protected");
    }
    // A key is set later: looking is fine, writing is not.
    for args in &READING[..3] {
        let run = place.with_key(Some(KEY), args);
        assert_eq!(run.code, 0, "{run:?}");
        warns(&run, "not protected");
    }
    let before = tree(&place.repo);
    let run = place.with_key(Some(KEY), &["snapshot"]);
    refused(&run);
    assert!(run.err.contains("key rotate"), "{run:?}");
    assert_equal(&before, &tree(&place.repo));

    let packs = packs(&place);
    assert_eq!(place.with_key(Some(KEY), &["key", "rotate"]).code, 0);
    assert_equal(&packs, &self::packs(&place));
    fs::write(place.data.join("new"), b"new").expect("written");
    let run = place.with_key(Some(KEY), &["snapshot"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{run:?}");
    for args in READING {
        let run = place.with_key(None, &arguments(&place, args));
        refused(&run);
        refused(&place.with_key(Some(OTHER_KEY), &arguments(&place, args)));
    }
}

/// The packs of a store, with all that a rewrite would change.
fn packs(place: &Place) -> BTreeMap<PathBuf, Thing> {
    tree(&place.repo.join("packs"))
}

#[test]
fn keys_are_added_and_removed() {
    let place = Place::taken(Some(KEY));
    let packs = packs(&place);
    let file = write(&place, "other", &format!("{OTHER_KEY}\n"));
    let phrase = write(&place, "phrase", "correct horse battery staple\nsecond line\n");
    place.ok(&["key", "add", "--new-vault-key-file", &file, "--label", "file"]);
    place.ok(&["key", "add", "--new-vault-key-command", &format!("echo {THIRD_KEY}"), "--label", "command"]);
    place.ok(&["key", "add", "--new-passphrase-file", &phrase, "--label", "phrase"]);
    let listed = place.ok(&["key", "list"]).out;
    assert_eq!((listed.lines().count(), listed.matches("vault-key").count()), (4, 3), "{listed}");
    assert_eq!(listed.matches("passphrase").count(), 1, "{listed}");
    assert!(!listed.contains("horse") && !listed.contains(OTHER_KEY));

    for key in [KEY, OTHER_KEY, THIRD_KEY] {
        assert_eq!(place.with_key(Some(key), &["snapshots"]).code, 0);
    }
    let with_phrase = |args: &[&str]| place.with_key(None, &[&["--passphrase-file", &phrase], args].concat());
    assert_eq!(with_phrase(&["snapshots"]).code, 0);
    assert_eq!(with_phrase(&["snapshot"]).code, 0, "also to write");
    let wrong = write(&place, "wrong", "correct horse battery stapler\n");
    refused(&place.with_key(None, &["--passphrase-file", &wrong, "snapshots"]));

    for (label, key) in [("file", OTHER_KEY), ("command", THIRD_KEY)] {
        let id = slot(&place, Some(KEY), label);
        place.ok(&["key", "remove", &id[..12]]);
        refused(&place.with_key(Some(key), &["snapshots"]));
    }
    let id = slot(&place, Some(KEY), "phrase");
    assert_eq!(with_phrase(&["key", "remove", &slot(&place, Some(KEY), "first")]).code, 0);
    refused(&place.run(&["snapshots"]));
    let run = with_phrase(&["key", "remove", &id]);
    assert_eq!(run.code, 2, "the last one stays: {run:?}");
    assert_eq!(with_phrase(&["key", "remove", "ffffffffffff"]).code, 2);
    assert_eq!(with_phrase(&["check", "--read-data"]).code, 0);
    assert_equal(&packs, &self::packs(&place));
}

#[test]
fn a_rotation_rewrites_no_data() {
    let place = Place::taken(Some(KEY));
    let before = packs(&place);
    let file = write(&place, "new", &format!("{OTHER_KEY}\n"));
    place.ok(&["key", "rotate", "--new-vault-key-file", &file]);
    assert_equal(&before, &packs(&place));
    assert_eq!(place.slots().len(), 1);
    refused(&place.run(&["snapshots"]));
    let place = Place { key: Some(OTHER_KEY), ..place };
    place.ok(&["check", "--read-data"]);
    place.assert_restores("target");
    let run = place.run(&["key", "rotate"]);
    assert_eq!(run.code, 2, "no new key was named: {run:?}");
    // A slot that is brought back from an old copy would open again: the master key is the same. Only so far does a
    // rotation reach, and the documents say so.
    assert_equal(&before, &packs(&place));
}

/// A key may have more than one slot: it was added twice, or a rotation was killed and run again.
#[test]
fn a_rotation_leaves_no_slot_of_the_old_key() {
    let place = Place::taken(Some(KEY));
    let second = write(&place, "second", &format!("{OTHER_KEY}\n"));
    let third = write(&place, "third", &format!("{THIRD_KEY}\n"));
    place.ok(&["key", "add", "--new-vault-key-file", &second]);
    place.ok(&["key", "add", "--new-vault-key-file", &third]);
    // As if it had been killed when the new slot was there.
    place.ok(&["key", "rotate", "--new-vault-key-file", &second]);
    assert_eq!(place.slots().len(), 2, "one of each key");
    refused(&place.run(&["snapshots"]));
    // And once more twice.
    let place = Place { key: Some(OTHER_KEY), ..place };
    place.ok(&["key", "add", "--new-vault-key-file", &second]);
    assert_eq!(place.slots().len(), 3);
    place.ok(&["key", "rotate", "--new-vault-key-file", &third]);
    assert_eq!(place.slots().len(), 1);
    refused(&place.run(&["snapshots"]));
    assert_eq!(place.with_key(Some(THIRD_KEY), &["check", "--read-data"]).code, 0);
}

#[test]
fn the_env_file_has_rules() {
    let place = Place::filled(None);
    let env = place.data.join(".env");
    fs::write(&env, format!("A=1\nexport NODYN_VAULT_KEY=\"{KEY}\"\n")).expect("written");
    for mode in [0o644, 0o640, 0o602, 0o660] {
        fs::set_permissions(&env, Permissions::from_mode(mode)).expect("a mode");
        let run = place.run(&["snapshot"]);
        refused(&run);
        assert!(run.err.contains(".env") && run.err.contains("chmod 600"), "{run:?}");
        assert!(!place.repo.exists(), "to go on would make a store that is not protected");
    }
    fs::set_permissions(&env, Permissions::from_mode(0o600)).expect("a mode");
    let run = place.ok(&["snapshot"]);
    assert!(!run.err.contains("not protected"), "it is protected: {run:?}");
    refused(&place.with_key(Some(OTHER_KEY), &["snapshots"]));
    assert_eq!(place.with_key(Some(KEY), &["snapshots"]).code, 0);
    assert!(!place.ok(&["ls", "latest", "-R"]).out.contains(".env"), "the key is not in its own backup");

    let moved = place.path("moved");
    fs::rename(&env, &moved).expect("moved");
    symlink(&moved, &env).expect("linked");
    let run = place.run(&["snapshots"]);
    refused(&run);
    assert!(run.err.contains("symbolic link"), "{run:?}");
    // One without a key in it is nobody's business.
    fs::remove_file(&env).expect("removed");
    fs::write(&env, "OTHER=1\n").expect("written");
    fs::set_permissions(&env, Permissions::from_mode(0o644)).expect("a mode");
    let run = place.run(&["snapshots"]);
    refused(&run);
    assert!(run.err.contains("no key was given"), "{run:?}");
}

#[test]
fn no_flag_takes_a_secret() {
    let place = Place::taken(Some(KEY));
    for flag in ["--vault-key", "--passphrase", "--key", "--password", "--new-vault-key", "--new-passphrase"] {
        let run = place.run(&["key", "add", flag, OTHER_KEY]);
        assert_eq!(run.code, 2, "{flag}: {run:?}");
        // Clap takes the beginning of a flag for the flag only if it is told to.
        let run = place.run(&[flag, KEY, "snapshots"]);
        assert_eq!(run.code, 2, "{flag}: {run:?}");
    }
}

#[test]
fn the_key_is_found_nowhere() {
    const CANARY: &str = "Q0FOQVJZY2FuYXJ5Q0FOQVJZY2FuYXJ5Q0FOQVJZMTI=";
    let place = Place { key: Some(CANARY), ..Place::filled(None) };
    fs::write(place.data.join(".env"), format!("NODYN_VAULT_KEY={CANARY}\n")).expect("written");
    fs::set_permissions(place.data.join(".env"), Permissions::from_mode(0o600)).expect("a mode");
    let file = write(&place, "other", &format!("{OTHER_KEY}\n"));
    let commands: &[&[&str]] = &[
        &["-v", "snapshot"],
        &["-v", "snapshot", "--json", "--note", "again"],
        &["-v", "snapshots"],
        &["-v", "ls", "-lR", "latest"],
        &["-v", "restore", "latest", "--target", "TARGET"],
        &["-v", "check", "--read-data"],
        &["-v", "stats"],
        &["-v", "key", "add", "--new-vault-key-file", &file],
        &["-v", "key", "list"],
        &["-v", "repair", "index"],
        &["-v", "cat", "latest", "nothing at all"],
    ];
    for args in commands {
        let run = place.run(&arguments(&place, args));
        for text in [&run.out, &run.err] {
            assert!(!text.contains(CANARY) && !text.contains(OTHER_KEY), "{args:?}: {run:?}");
        }
    }
    let raw = [CANARY.as_bytes(), OTHER_KEY.as_bytes(), b"CANARYcanaryCANARYcanaryCANARY12".as_slice()];
    let folders = [place.repo.clone(), place.path("target")];
    for folder in &folders {
        for (path, thing) in tree(folder) {
            for secret in raw {
                let found = thing.bytes.windows(secret.len()).any(|window| window == secret);
                assert!(!found, "a key stands in {}", folder.join(path).display());
            }
        }
    }
}

#[test]
fn what_is_in_the_store_is_private_whatever_the_umask() {
    for umask in ["000", "277"] {
        let place = Place::filled(Some(KEY));
        let mut shell = std::process::Command::new("/bin/sh");
        let script = format!(
            "umask {umask}; '{bin}' snapshot && '{bin}' key add --new-vault-key-command 'echo other' && \
             '{bin}' repair index && '{bin}' snapshot --note again && '{bin}' snapshots",
            bin = env!("CARGO_BIN_EXE_nbak")
        );
        shell.args(["-c", &script]).env("NBAK_DATA_DIR", &place.data).env("NBAK_REPO", &place.repo);
        shell.env("NODYN_VAULT_KEY", KEY);
        let run = Run::of(shell);
        if umask == "000" {
            assert_eq!(run.code, 0, "{run:?}");
        }
        if !place.repo.exists() {
            continue;
        }
        let mode = |path: &Path| fs::symlink_metadata(path).expect("there").mode() & 0o7777;
        assert_eq!(mode(&place.repo) & !0o700, 0);
        for (path, thing) in tree(&place.repo) {
            let allowed = if thing.kind == "directory" { 0o700 } else { 0o600 };
            let exact = umask == "000" && thing.mode != allowed;
            assert!(thing.mode & !allowed == 0 && !exact, "{}: {thing:?}", path.display());
        }
    }
}

#[test]
fn a_damaged_slot_beside_a_good_one_is_a_warning() {
    let place = Place::taken(Some(KEY));
    let good = place.slots();
    place.ok(&["key", "add", "--new-vault-key-command", &format!("echo {OTHER_KEY}")]);
    let other = place.slots().into_iter().find(|path| !good.contains(path)).expect("a second slot");
    let whole = fs::read(&other).expect("read");
    let mut flipped = whole.clone();
    flipped[70] ^= 1;
    for damage in [&flipped[..], &whole[..100], b"", &[0xff; 4000]] {
        fs::write(&other, damage).expect("written");
        for args in [&["snapshots"][..], &["snapshot"], &["key", "list"]] {
            let run = place.ok(args);
            warns(&run, "key slot is damaged");
            assert!(run.err.contains(&other.display().to_string()), "it is named: {run:?}");
        }
        let run = place.run(&["check"]);
        assert_eq!(run.code, 13, "{run:?}");
        refused(&place.with_key(Some(OTHER_KEY), &["snapshots"]));
    }
    // The good one damaged too: nothing can be opened, and it is not for a wrong key.
    fs::write(&good[0], &flipped).expect("written");
    let run = place.run(&["snapshots"]);
    assert_eq!(run.code, 13, "{run:?}");
}

#[test]
fn packs_without_a_key_slot_are_not_an_empty_place() {
    for also_the_folder in [false, true] {
        let place = Place::taken(Some(KEY));
        for path in place.slots() {
            fs::remove_file(path).expect("removed");
        }
        if also_the_folder {
            fs::remove_dir(place.repo.join("keys")).expect("removed");
        }
        let before = packs(&place);
        for args in [&["snapshots"][..], &["check"], &["snapshot", "--dry-run"], &["snapshot"]] {
            let run = place.run(args);
            assert_eq!(run.code, 13, "{args:?}: {run:?}");
            assert!(run.err.contains("no key slot"), "{run:?}");
        }
        assert_equal(&before, &packs(&place));
        assert!(!place.repo.join("keys").exists() || place.slots().is_empty());
    }
}

/// Whoever can write to the backup disk can write a slot. What it says must not hang, crash or exhaust anything.
#[test]
fn a_planted_slot_does_no_harm() {
    let place = Place::taken(Some(KEY));
    let whole = fs::read(&place.slots()[0]).expect("read");
    let id = "0".repeat(32);
    let plant = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        bytes[26..42].fill(0);
        change(&mut bytes);
        let body = bytes.len() - 16;
        let sum = blake3::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(&sum.as_bytes()[..16]);
        fs::write(place.repo.join("keys").join(&id), bytes).expect("written");
    };
    let number = |bytes: &mut Vec<u8>, at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let clock = std::time::Instant::now();
    for (memory, passes, lanes) in
        [(u32::MAX, 1, 1), (8, u32::MAX, 1), (1 << 20, 1000, 1), (1 << 30, 1, 1 << 20), (0, 0, 0), (8, 1, 1 << 24)]
    {
        plant(&|bytes| {
            bytes[9] = 2;
            number(bytes, 50, memory);
            number(bytes, 54, passes);
            number(bytes, 58, lanes);
        });
        refused(&place.with_key(Some(OTHER_KEY), &["snapshots"]));
        place.ok(&["snapshots"]);
    }
    assert!(clock.elapsed().as_secs() < 20, "{:?}", clock.elapsed());
    for created in [i64::MAX, i64::MIN, -1, i64::MAX / 1000 + 1] {
        plant(&|bytes| bytes[42..50].copy_from_slice(&created.to_le_bytes()));
        place.ok(&["key", "list"]);
        place.ok(&["key", "list", "--json"]);
    }
    // Another store's slot that opens for anyone, in the hope that the next snapshot goes under its key.
    let foreign = Place::taken(None);
    fs::remove_file(place.repo.join("keys").join(&id)).expect("removed");
    let planted = &foreign.slots()[0];
    fs::copy(planted, place.repo.join("keys").join(planted.file_name().expect("a name"))).expect("copied");
    fs::write(place.data.join("new"), b"new").expect("written");
    let run = place.run(&["snapshot"]);
    assert_eq!(run.code, 0, "{run:?}");
    warns(&run, "not protected");
    fs::remove_file(place.repo.join("keys").join(planted.file_name().expect("a name"))).expect("removed");
    place.ok(&["check", "--read-data"]);
}

/// The same for everything else that the program opens by name in the store: a link there leads nowhere.
#[test]
fn a_planted_link_is_not_followed() {
    let place = Place::taken(Some(KEY));
    let precious = place.path("precious");
    for name in ["lock", "index.redb"] {
        for content in ["precious", ""] {
            fs::write(&precious, content).expect("written");
            fs::remove_file(place.repo.join(name)).expect("removed");
            symlink(&precious, place.repo.join(name)).expect("linked");
            let _ = place.run(&["snapshot"]);
            let _ = place.run(&["snapshots"]);
            assert_eq!(fs::read_to_string(&precious).expect("there"), content, "{name} was followed");
        }
        let _ = fs::remove_file(place.repo.join(name));
        place.ok(&["snapshot"]);
    }
    // Nor does a pipe make anyone wait for ever.
    fs::remove_file(place.repo.join("index.redb")).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(place.repo.join("index.redb")).status();
    if made.is_ok_and(|status| status.success()) {
        let mut child = place.command(&["snapshots"]).spawn().expect("runs");
        for _ in 0..200 {
            if child.try_wait().expect("a child").is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        panic!("the program waits on a pipe");
    }
}

#[test]
fn the_environment_of_the_tests_is_clean() {
    let mut command = bare();
    command.arg("--version");
    assert_eq!(Run::of(command).code, 0);
}

#[test]
fn a_line_of_an_environment_file_is_no_key() {
    let place = Place::filled(None);
    place.ok(&["snapshot"]);
    let file = write(&place, "settings", &format!("NODYN_VAULT_KEY={KEY}\n"));
    for args in [["key", "rotate", "--new-vault-key-file", &file], ["key", "add", "--new-vault-key-file", &file]] {
        let run = place.with_key(Some(KEY), &args);
        assert!(run.code == 12 && run.err.contains("NODYN_VAULT_KEY"), "{run:?}");
    }
    let run = place.run(&["--vault-key-file", &file, "snapshots"]);
    assert_eq!(run.code, 12, "{run:?}");
    // A weak key is told of before anybody relies on it.
    let weak = write(&place, "weak", "correct horse\n");
    let run = place.ok(&["key", "rotate", "--new-vault-key-file", &weak]);
    assert!(run.err.contains("the new vault key is shorter"), "{run:?}");
}

/// Windows editors put one before the first letter, and `\r` at the end. Nobody types either.
#[test]
fn a_byte_order_mark_is_no_part_of_a_key() {
    let place = Place::taken(Some(KEY));
    let marked = write(&place, "marked", &format!("\u{feff}{OTHER_KEY}\r\n"));
    place.ok(&["key", "rotate", "--new-vault-key-file", &marked]);
    assert_eq!(place.with_key(Some(OTHER_KEY), &["snapshots"]).code, 0, "by the key's text");
    assert_eq!(place.with_key(None, &["--vault-key-file", &marked, "snapshots"]).code, 0, "by the file");
    let words = write(&place, "words", "\u{feff}correct horse\r\n");
    let args = ["key", "add", "--new-passphrase-file", &words];
    assert_eq!(place.with_key(Some(OTHER_KEY), &args).code, 0);
    let plain = write(&place, "plain", "correct horse\n");
    for file in [&plain, &words] {
        assert_eq!(place.with_key(None, &["--passphrase-file", file, "snapshots"]).code, 0, "{file}");
    }

    // What was sealed with the mark opens as before, and by a rotation without it.
    let place = Place::filled(None);
    let marked = write(&place, "marked", &format!("\u{feff}{OTHER_KEY}\r\n"));
    let with_mark = format!("\u{feff}{OTHER_KEY}");
    assert_eq!(place.with_key(Some(&with_mark), &["snapshot"]).code, 0);
    assert_eq!(place.with_key(Some(OTHER_KEY), &["snapshots"]).code, 12);
    let by_file = |args: &[&str]| place.with_key(None, &[&["--vault-key-file", &marked], args].concat());
    assert_eq!(by_file(&["snapshots"]).code, 0);
    assert_eq!(by_file(&["key", "rotate", "--new-vault-key-file", &marked]).code, 0);
    assert_eq!(place.with_key(Some(OTHER_KEY), &["snapshots"]).code, 0);
    assert_eq!(place.with_key(Some(&with_mark), &["snapshots"]).code, 12);
}

/// The key slot of a store that an earlier version made under `${MASTER}`, taken for the key.
const SEALED_BY_MASTER: &str = concat!(
    "6e62616b736c6f740102bc7b2ecb081fdbfdfb2fc4fe305f639e17f4d021c96afe7d55737e19613b329800f153650000",
    "0000000001000300000004000000cca22cad5e1c30f0b183cedf327c68da99ddf284b49b9d75c9029302186ec90f7216",
    "32864e798ea63c13c59ffb29ecf74f7b5161698dddabc1cbc68f3d04936efc1ea6208691c25d82701b5bfe1d6359d6d5",
    "c55aa1758a0f43b89f0c46bcb9f4b821203117a046dffe9fddc905666972737477e3776f844e451de6fe72cd1bb32530",
);

/// Who calls the library is refused as well, wherever a key slot would be made, and before anything is.
#[test]
fn the_library_seals_nothing_under_a_reference_either() {
    let place = Place::taken(Some(KEY));
    let key = |text: &str| Credential::VaultKey(text.to_owned());
    let repo = place.path("new");
    for credential in [key("${NBAK_KEY}"), Credential::Passphrase("changeme".to_owned())] {
        let refused = Store::open_or_create(&repo, std::slice::from_ref(&credential), Duration::ZERO, 1_700_000_000);
        assert!(refused.err().is_some_and(|error| error.is_key()) && !repo.exists());
        assert!(Store::in_memory(std::slice::from_ref(&credential), 1_700_000_000).is_err());
        let access = Access::Write(Duration::from_secs(30));
        let mut store = Store::open(&place.repo, &[key(KEY)], access).expect("opens");
        assert!(store.add_slot(&credential, 1_700_000_000, "").err().is_some_and(|error| error.is_key()));
        let rotated = store.rotate_slot(&[key(KEY)], &credential, 1_700_000_000, "");
        assert!(rotated.err().is_some_and(|error| error.is_key()));
    }
    assert_eq!(place.slots().len(), 1);
}

/// What stands for a key, and nobody put the key in its place, is known to everybody.
#[test]
fn a_reference_that_nobody_expanded_seals_nothing() {
    let words = [
        "${MASTER}",
        "$OTHER_KEY",
        "$(pass nbak)",
        "%VAULT_KEY%",
        "{{ vault_key }}",
        "<your key here>",
        "changeme",
        "your-vault-key-here",
    ];
    let taken = Place::taken(Some(KEY));
    // Who waited for the lock last is no part of what it holds.
    let held = || -> BTreeMap<PathBuf, Thing> {
        tree(&taken.repo).into_iter().filter(|(path, _)| path != Path::new("lock")).collect()
    };
    let before = held();
    for word in words {
        let place = Place::filled(None);
        let data = tree(&place.data);
        for args in [&["snapshot"][..], &["snapshot", "--dry-run"], &["backup"]] {
            let run = place.with_key(Some(word), args);
            refused(&run);
            assert!(run.err.contains("stands for a key"), "{run:?}");
            assert!(!place.repo.exists() && !run.err.contains(word), "{run:?}");
        }
        assert_equal(&data, &tree(&place.data));
        let file = write(&taken, "new", word);
        for args in [
            ["key", "add", "--new-vault-key-file", &file],
            ["key", "rotate", "--new-vault-key-file", &file],
            ["key", "add", "--new-passphrase-file", &file],
        ] {
            refused(&taken.run(&args));
        }
    }
    assert_equal(&before, &held());

    // Where it is the key of a store already, the store opens, and its owner hears of it.
    let place = Place::filled(None);
    for folder in ["keys", "packs", "tmp"] {
        fs::create_dir_all(place.repo.join(folder)).expect("made");
    }
    let digits = SEALED_BY_MASTER.as_bytes().chunks(2);
    let digit = |two: &[u8]| u8::from_str_radix(str::from_utf8(two).expect("text"), 16).expect("a number");
    let slot: Vec<u8> = digits.map(digit).collect();
    fs::write(place.repo.join("keys").join(&SEALED_BY_MASTER[52..84]), slot).expect("written");
    let run = place.with_key(Some("${MASTER}"), &["snapshot"]);
    assert_eq!(run.code, 0, "{run:?}");
    warns(&run, "stands for a key");
    // What has such a thing in it is a key like any other.
    for word in ["correct ${horse} battery", "$", "<>", "100%", "$1 and more", "change me not"] {
        let place = Place::filled(None);
        assert_eq!(place.with_key(Some(word), &["snapshot"]).code, 0, "{word}");
    }
}
