//! What goes in comes out: every byte, mode, time, link and name; what did not change is not stored; what changed is
//! never missed; what cannot be read is said. `NBAK_TEST_ROUNDS` multiplies the rounds of the random parts.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::live_common::{self, Place, Random, Run, Stop, app, assert_same, is_root, rounds, run, seed, survey, text};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, mkfifoat, utimensat};

/// Somebody who is not root and owns nothing.
const NOBODY: u32 = 65534;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("utimensat");
}

fn fifo(path: &Path) {
    mkfifoat(CWD, path, rustix::fs::Mode::from_raw_mode(0o600)).expect("a named pipe");
}

fn now() -> SystemTime {
    SystemTime::now()
}

/// Lets the clock of the file system move on, past the margin within which a time stamp proves nothing.
fn settle() {
    std::thread::sleep(Duration::from_millis(150));
}

// ---- every byte and attribute -------------------------------------------------------------------

/// Everything that a directory can hold and a snapshot can keep.
fn oddities(data: &Path, random: &mut Random) {
    let at = |name: &str| data.join(name);
    let border = 4 * 1024 * 1024;
    let sizes = [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 69_632, 131_072, 131_073];
    for size in sizes.into_iter().chain([border - 1, border, border + 1]) {
        fs::write(at(&format!("random-{size}")), random.bytes(size)).expect("a file");
        fs::write(at(&format!("zeros-{size}")), vec![0; size]).expect("a file");
    }
    fs::write(at("words"), random.prose(300_000)).expect("a file");
    let sparse = fs::File::create(at("sparse")).expect("a file");
    sparse.set_len(24 << 20).expect("a size");
    sparse.write_all_at(b"in the middle", 13 << 20).expect("a write");
    let tail = fs::File::create(at("sparse-odd")).expect("a file");
    tail.set_len((8 << 20) + 12_345).expect("a size");
    tail.write_all_at(b"first", 0).expect("a write");

    for mode in [0o000, 0o400, 0o600, 0o644, 0o666, 0o755, 0o777, 0o1644, 0o2755, 0o4755] {
        let path = at(&format!("mode-{mode:o}"));
        fs::write(&path, format!("{mode:o}")).expect("a file");
        chmod(&path, mode);
    }
    for (name, mode) in [("setgid", 0o2775), ("sticky", 0o1777), ("closed", 0o500)] {
        let folder = at(name);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("inside"), name).expect("a file");
        chmod(&folder, mode);
    }
    fs::create_dir_all(at("empty/within/empty")).expect("folders");

    symlink("nowhere/at all", at("dangling")).expect("a link");
    symlink("/etc/hostname", at("absolute")).expect("a link");
    symlink("setgid", at("to-a-folder")).expect("a link");
    symlink("../..", at("upwards")).expect("a link");
    symlink(OsStr::from_bytes(b"not\xffutf-8"), at("to-odd-bytes")).expect("a link");

    for name in [&b"not\xffutf-8"[..], b"new\nline", b"quo'te\"s", b"-leading-dash", b" space ", b"back\\slash", b"*?["]
    {
        fs::write(data.join(OsStr::from_bytes(name)), name).expect("a file");
    }
    fs::write(data.join("n".repeat(255)), "a long name").expect("a file");
    let folder = data.join(OsStr::from_bytes(b"fol\xfeder\n"));
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("inside"), "inside").expect("a file");

    let deep: PathBuf = (0..100).map(|n| format!("d{n}")).collect();
    fs::create_dir_all(data.join(&deep)).expect("folders");
    fs::write(data.join(&deep).join("bottom"), "deep").expect("a file");
    fs::create_dir(at("many")).expect("a folder");
    for n in 0..5000 {
        fs::write(data.join(format!("many/{n}")), format!("{}", n % 100)).expect("a file");
    }
    for (name, seconds, nanos) in [
        ("random-1", 1, 1),
        ("zeros-1", 1_700_000_000, 999_999_999),
        ("random-0", -1, 5),
        ("words", 4_000_000_000, 123_456_789),
        ("dangling", 1_600_000_000, 987_654_321),
        ("empty", 1_500_000_000, 1),
        ("setgid", 1_500_000_000, 2),
        ("many", 1_500_000_000, 3),
        ("", 1_400_000_000, 4),
    ] {
        set_mtime(&at(name), seconds, nanos);
    }
}

#[test]
fn everything_comes_back() {
    let seed = seed("fidelity");
    let place = Place::new();
    oddities(&place.data, &mut Random::new(seed));
    app::make(&place.data, &mut Random::new(seed), 1);
    set_mtime(&place.data, 1_400_000_000, 4);
    // Databases whose logs are empty: their images are their files.
    for name in app::DATABASES {
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(place.data.join(format!("{name}{suffix}")));
        }
    }
    set_mtime(&place.data, 1_400_000_000, 4);
    let before = is_root().then(|| survey(&place.data));
    let said = place.snapshot();
    if !is_root() {
        return; // A file of mode 000 cannot be read; the other tests go on from here.
    }
    let before = before.expect("root reads all");
    let restored = place.restore("latest", "restored");
    assert_same(&before, &survey(&restored), "restored");
    assert_same(&before, &survey(&place.data), "the source is as it was");
    assert_eq!(said["unreadable"], 0);
    assert_eq!(said["symlinks"], 5);
    assert_eq!(said["databases"], 3);

    for (name, most) in [("sparse", 2048), ("sparse-odd", 2048), ("zeros-4194304", 64)] {
        let blocks = fs::metadata(restored.join(name)).expect("it is there").blocks();
        assert!(blocks <= most, "{name} takes {blocks} blocks");
    }

    // The same content anywhere else is nothing new.
    let again = run(place.nbak(["snapshot", "--json"]).env("NBAK_DATA_DIR", &restored)).exits(0).json();
    assert_eq!((&again["new_chunks"], &again["new_bytes"]), (&0.into(), &0.into()), "{}", again["stored_bytes"]);
    assert_same(&before, &survey(&place.restore("latest", "twice")), "restored from what was restored");

    // Each file of its own: `cat` gives its bytes, whatever its name.
    for (path, item) in &before {
        let many = path.starts_with("many") && !path.ends_with("77") || path.starts_with("memory");
        if item.mode & 0o170_000 != 0o100_000 || many {
            continue;
        }
        let printed = place.ok(["cat".as_ref(), "latest".as_ref(), "--".as_ref(), path.as_os_str()]);
        assert_eq!(blake3::hash(&printed.raw).as_bytes()[..], item.content[..], "{}", path.display());
    }
    place.check();
}

/// Somebody who is not root restores what they may: content, modes and times.
#[test]
fn a_restore_needs_no_root() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    oddities(&place.data, &mut Random::new(1));
    place.snapshot();
    chmod(place.root.path(), 0o777);
    let mut chown = Command::new("chown");
    assert!(chown.args(["-R", "65534:65534"]).arg(&place.repo).status().expect("chown").success());
    let target = place.path("restored");
    let args = ["restore".as_ref(), "latest".as_ref(), "--target".as_ref(), target.as_os_str()];
    run(place.nbak(args).uid(NOBODY).gid(NOBODY)).exits(0);
    let (mut before, mut after) = (survey(&place.data), survey(&target));
    for (path, item) in before.iter_mut().chain(after.iter_mut()) {
        item.owner = (0, 0);
        // Set-id bits of another's file are not for everyone to set.
        if path.to_string_lossy().starts_with("mode-") {
            item.mode &= !0o6000;
        }
    }
    assert_same(&before, &after, "restored by nobody");
}

type Spoil = fn(&Path);
type Change<'a> = Box<dyn Fn() + 'a>;

// ---- partial restores, overwriting --------------------------------------------------------------

fn small(data: &Path) {
    for (name, content) in
        [("a.txt", "a"), ("dir/b.txt", "b"), ("dir/sub/c.txt", "c"), ("dir/sub/d.txt", "d"), ("other/e.txt", "e")]
    {
        let path = data.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
    symlink("a.txt", data.join("link")).expect("a link");
}

fn names(folder: &Path) -> BTreeSet<String> {
    survey(folder).into_keys().map(|path| path.to_string_lossy().into_owned()).filter(|name| !name.is_empty()).collect()
}

fn restore(place: &Place, more: &[&str], target: &Path) -> Run {
    let mut args: Vec<&OsStr> = vec!["restore".as_ref(), "latest".as_ref()];
    args.extend(more.iter().map(OsStr::new));
    args.extend([OsStr::new("--target"), target.as_os_str()]);
    place.run(args)
}

#[test]
fn some_paths_only() {
    let place = Place::new();
    small(&place.data);
    chmod(&place.data.join("dir"), 0o750);
    let before = survey(&place.data);
    place.snapshot();
    for (n, (paths, expected)) in [
        (vec!["a.txt"], vec!["a.txt"]),
        (vec!["dir/sub/c.txt"], vec!["dir", "dir/sub", "dir/sub/c.txt"]),
        (vec!["dir/sub"], vec!["dir", "dir/sub", "dir/sub/c.txt", "dir/sub/d.txt"]),
        (vec!["/other/", "link", "./a.txt"], vec!["a.txt", "link", "other", "other/e.txt"]),
        (vec!["dir/sub/c.txt", "dir/sub/c.txt", "dir/b.txt"], vec!["dir", "dir/b.txt", "dir/sub", "dir/sub/c.txt"]),
    ]
    .into_iter()
    .enumerate()
    {
        let target = place.path(&format!("part-{n}"));
        restore(&place, &paths, &target).exits(0);
        assert_eq!(names(&target), expected.iter().map(|name| (*name).to_owned()).collect(), "{paths:?}");
        for (path, item) in survey(&target).into_iter().filter(|(path, _)| !path.as_os_str().is_empty()) {
            assert_eq!(item, before[&path], "{}", path.display());
        }
    }
    for (paths, code) in [(vec!["no-such"], 1), (vec!["a.txt", "dir/no"], 1), (vec!["a.txt/x"], 1), (vec!["../a"], 2)] {
        let target = place.path("nothing");
        restore(&place, &paths, &target).exits(code).says(&[paths[paths.len() - 1]]);
        assert!(!target.exists(), "{paths:?} wrote something");
    }
}

#[test]
fn what_is_there_is_overwritten_only_when_told() {
    let place = Place::new();
    small(&place.data);
    let conn = app::open(&place.data.join("x.db"));
    conn.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(v); INSERT INTO t VALUES(1)").expect("a table");
    drop(conn);
    place.snapshot();
    let original = survey(&place.data);

    let target = place.path("target");
    fs::create_dir_all(target.join("dir")).expect("a folder");
    fs::write(target.join("a.txt"), "theirs").expect("a file");
    fs::write(target.join("dir/kept"), "theirs").expect("a file");
    symlink("/etc/hostname", target.join("link")).expect("a link");
    let theirs = survey(&target);
    restore(&place, &[], &target).exits(1).says(&["not empty", "--overwrite", "nothing was changed"]);
    assert_same(&theirs, &survey(&target), "refused");

    restore(&place, &["--overwrite"], &target).exits(0);
    let mut expected = original.clone();
    expected.insert("dir/kept".into(), theirs[Path::new("dir/kept")].clone());
    let found = survey(&target);
    expected.get_mut(Path::new("dir")).expect("it is there").mtime = found[Path::new("dir")].mtime;
    // The target was there: its mode is its own.
    let (root, was) = (found[Path::new("")].clone(), &theirs[Path::new("")]);
    assert_eq!(root.mode, was.mode);
    expected.insert(PathBuf::new(), root);
    assert_same(&expected, &found, "overwritten");
    // Once more, over itself.
    restore(&place, &["--overwrite"], &target).exits(0);
    assert_eq!(names(&target), names(&place.data).into_iter().chain(["dir/kept".to_owned()]).collect());

    // What stands there as it should is not written again; what does not is replaced, with no moment without it.
    let inode = |name: &str| fs::metadata(target.join(name)).expect("there").ino();
    let (kept, replaced) = (inode("x.db"), inode("a.txt"));
    fs::set_permissions(target.join("x.db"), fs::Permissions::from_mode(0o700)).expect("a mode");
    let theirs = fs::read(target.join("a.txt")).expect("read");
    fs::write(target.join("a.txt"), theirs.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()).expect("written");
    restore(&place, &["--overwrite"], &target).exits(0);
    assert!(inode("x.db") == kept && inode("a.txt") != replaced);
    let again = survey(&target);
    for name in ["x.db", "a.txt"] {
        assert!(again[Path::new(name)] == original[Path::new(name)], "{name}: {:?}", again[Path::new(name)]);
    }

    // Each of these is refused before anything is changed.
    let spoils: [(&str, Spoil); 6] = [
        ("a.txt", |t| fs::create_dir(t.join("a.txt")).expect("a folder")),
        ("dir", |t| fs::write(t.join("dir"), "a file").expect("a file")),
        ("dir", |t| symlink("/", t.join("dir")).expect("a link")),
        ("link", |t| fs::create_dir(t.join("link")).expect("a folder")),
        ("x.db-wal", |t| fs::write(t.join("x.db-wal"), "a log").expect("a file")),
        ("x.db-journal", |t| fs::write(t.join("x.db-journal"), "a journal").expect("a file")),
    ];
    for (n, (name, spoil)) in spoils.into_iter().enumerate() {
        let target = place.path(&format!("spoilt-{n}"));
        fs::create_dir(&target).expect("a folder");
        fs::write(target.join("theirs"), "theirs").expect("a file");
        spoil(&target);
        let before = survey(&target);
        restore(&place, &["--overwrite"], &target).exits(1).says(&[name, "nothing was changed"]);
        assert_same(&before, &survey(&target), name);
    }

    // A link that stands for the target itself is followed: it was named. One within it is not.
    symlink(place.path("elsewhere"), place.path("named")).expect("a link");
    fs::create_dir(place.path("elsewhere")).expect("a folder");
    restore(&place, &[], &place.path("named")).exits(0);
    let (mut expected, found) = (original, survey(&place.path("elsewhere")));
    expected.insert(PathBuf::new(), found[Path::new("")].clone());
    assert_same(&expected, &found, "through a named link");
    fs::write(place.path("file"), "x").expect("a file");
    restore(&place, &[], &place.path("file")).exits(1).says(&["file"]);
}

// ---- looking inside -----------------------------------------------------------------------------

#[test]
fn snapshots_are_named_in_every_way() {
    let place = Place::new();
    let file = place.data.join("n");
    let mut ids = Vec::new();
    for n in 0..40 {
        fs::write(&file, format!("{n}")).expect("a file");
        let tag = format!("tag{}", n % 3);
        let said = place.ok(["snapshot", "--json", "--tag", &tag, "--note", "a note"]).json();
        ids.push(text(&said["snapshot"]).to_owned());
    }
    let cat = |name: &str| place.run(["cat", name, "n"]);
    assert_eq!(cat("latest").exits(0).out, "39");
    assert_eq!(cat(&ids[7]).exits(0).out, "7");
    assert_eq!(cat(&ids[7][..12]).exits(0).out, "7");
    assert_eq!(cat(&ids[7][..12].to_uppercase()).exits(0).out, "7");
    assert_eq!(cat("tag0").exits(0).out, "39");
    assert_eq!(cat("tag1").exits(0).out, "37");
    let listed = place.ok(["snapshots", "--json"]).json_lines();
    assert_eq!(listed.iter().map(|one| text(&one["snapshot"])).collect::<Vec<_>>(), ids);
    // A time: the newest at or before it.
    assert_eq!(cat(text(&listed[20]["started"])).exits(0).out, "20");
    assert_eq!(cat("0s ago").exits(0).out, "39");
    assert_eq!(cat("2999-12-31").exits(0).out, "39");
    cat("2h ago").exits(1).says(&["nbak snapshots"]);
    cat("2020-01-01T00:00").exits(1);
    for nonsense in ["no-such-tag", "ffffffffffffffff", "", "yesterday-ish", "h ago", "99999999999999999999h ago"] {
        cat(nonsense).exits(2).says(&["nbak snapshots"]);
    }
    cat("1000000000w ago").exits(2);
    // An ambiguous beginning, from ids that share four digits; those are rare, so make it likely.
    let mut by_start = std::collections::HashMap::new();
    let mut twins = None;
    for n in 40..500 {
        fs::write(&file, format!("{n}")).expect("a file");
        let id = text(&place.snapshot()["snapshot"]).to_owned();
        if by_start.insert(id[..4].to_owned(), n).is_some() {
            twins = Some(id[..4].to_owned());
            break;
        }
        if n >= 60 && std::env::var_os("NBAK_TEST_ROUNDS").is_none() {
            break;
        }
    }
    if let Some(start) = twins {
        cat(&start).exits(2).says(&["more than one", "give more of it"]);
    }
}

#[test]
fn directories_are_listed_in_every_form() {
    let place = Place::new();
    small(&place.data);
    fs::write(place.data.join("new\nline"), "x").expect("a file");
    place.snapshot();
    let lines = |args: &[&str]| place.ok([&["ls", "latest"], args].concat()).out;
    assert_eq!(lines(&["dir"]), "dir/b.txt\ndir/sub/\n");
    assert_eq!(lines(&["/dir/"]), "dir/b.txt\ndir/sub/\n");
    assert_eq!(lines(&["dir", "-R"]), "dir/b.txt\ndir/sub/\ndir/sub/c.txt\ndir/sub/d.txt\n");
    assert_eq!(lines(&["a.txt"]), "a.txt\n");
    assert!(lines(&["-l"]).contains("link -> a.txt"));
    let all = place.ok(["ls", "latest", "-R", "--json"]).json_lines();
    let mut paths: Vec<&str> = all.iter().map(|entry| text(&entry["path"])).collect();
    paths.sort_unstable();
    let expected = names(&place.data);
    assert_eq!(paths, expected.iter().map(String::as_str).collect::<Vec<_>>());
    place.run(["ls", "latest", "no"]).exits(1).says(&["no", "nbak ls"]);
    place.run(["ls", "latest", "a/../b"]).exits(2);
    place.run(["cat", "latest", "dir"]).exits(1).says(&["dir", "not a file"]);
    place.run(["cat", "latest", "link"]).exits(1);
    // What a file's name contains is text to a terminal, not a command.
    let evil = "\x1b]0;owned\x07\x1b[2J\x7f\u{9b}2J".as_bytes();
    fs::write(place.data.join(OsStr::from_bytes(evil)), "x").expect("a file");
    place.snapshot();
    for args in [["ls", "latest"], ["ls", "-l"]] {
        let args = if args[1] == "-l" { vec!["ls", "-l", "latest"] } else { args.to_vec() };
        let run = place.ok(&args);
        assert!(!run.out.contains(['\x1b', '\x07', '\x7f', '\u{9b}']), "{args:?} sends escapes: {:?}", run.out);
    }
    let all = place.ok(["ls", "latest", "--json"]).json_lines();
    assert!(all.iter().any(|entry| text(&entry["path"]).as_bytes() == evil), "a program gets the name as it is");
}

// ---- what changed, what did not -----------------------------------------------------------------

#[test]
fn nothing_changed_stores_nothing() {
    let place = Place::new();
    app::make(&place.data, &mut Random::new(9), 1);
    small(&place.data);
    let first = place.snapshot();
    settle();
    let packs = place.packs();
    for args in [&["snapshot"][..], &["snapshot", "--full-scan"], &["snapshot"]] {
        let run = place.ok(args).says(&["nothing changed", "nothing was stored"]);
        assert!(run.err.is_empty(), "{run:?}");
    }
    let said = place.snapshot();
    assert_eq!((&said["unchanged"], &said["snapshot"]), (&true.into(), &first["snapshot"]));
    for zero in ["new_chunks", "new_bytes", "stored_bytes", "changed_files"] {
        assert_eq!(said[zero], 0, "{zero}");
    }
    assert_eq!(place.packs(), packs);
    assert_eq!(place.ok(["snapshots"]).out.lines().count(), 1);
    // A tag or a note asks for a snapshot of its own.
    assert_eq!(place.ok(["snapshot", "--json", "--tag", "t"]).json()["unchanged"], false);
    assert_eq!(place.packs(), packs + 1);
}

#[test]
fn every_kind_of_change_is_seen() {
    let place = Place::new();
    small(&place.data);
    fs::write(place.data.join("large"), Random::new(4).bytes(300_000)).expect("a file");
    place.snapshot();
    let path = |name: &str| place.data.join(name);
    let changes: Vec<(&str, u64, Change<'_>)> = vec![
        ("a time", 0, Box::new(|| set_mtime(&path("a.txt"), 1_000_000_000, 7))),
        ("a mode", 0, Box::new(|| chmod(&path("a.txt"), 0o640))),
        ("a folder's mode", 0, Box::new(|| chmod(&path("dir"), 0o711))),
        ("a folder's time", 0, Box::new(|| set_mtime(&path("dir"), 1_000_000_000, 7))),
        ("the root's mode", 0, Box::new(|| chmod(&place.data, 0o700))),
        ("a rename", 1, Box::new(|| fs::rename(path("large"), path("moved")).expect("renamed"))),
        ("a deletion", 0, Box::new(|| fs::remove_file(path("dir/sub/d.txt")).expect("removed"))),
        ("an empty folder", 0, Box::new(|| fs::create_dir(path("dir/fresh")).expect("a folder"))),
        (
            "a link",
            0,
            Box::new(|| {
                fs::remove_file(path("link")).expect("removed");
                symlink("dir", path("link")).expect("a link");
            }),
        ),
        (
            "a file for a folder",
            1,
            Box::new(|| {
                fs::remove_dir(path("dir/fresh")).expect("removed");
                fs::write(path("dir/fresh"), "now a file").expect("a file");
            }),
        ),
        (
            "the same size and time",
            1,
            Box::new(|| {
                let meta = fs::metadata(path("dir/b.txt")).expect("it is there");
                fs::write(path("dir/b.txt"), "B").expect("a file");
                set_mtime(&path("dir/b.txt"), meta.mtime(), meta.mtime_nsec());
            }),
        ),
        (
            "two files change places",
            2,
            Box::new(|| {
                fs::rename(path("a.txt"), path("x")).expect("renamed");
                fs::rename(path("other/e.txt"), path("a.txt")).expect("renamed");
                fs::rename(path("x"), path("other/e.txt")).expect("renamed");
            }),
        ),
    ];
    for (n, (what, changed, change)) in changes.into_iter().enumerate() {
        settle();
        change();
        let said = place.snapshot();
        assert_eq!(said["unchanged"], false, "{what}");
        assert_eq!(said["changed_files"], changed, "{what}");
        if what != "the same size and time" && what != "a file for a folder" {
            assert_eq!(said["new_chunks"], 0, "{what}");
        }
        let restored = place.restore("latest", &format!("restored-{n}"));
        assert_same(&survey(&place.data), &survey(&restored), what);
    }
    place.check();
}

/// A rewrite of the same size right before or right after a snapshot: the clock of a file system has ticks.
/// All chunks of zeros have one id, however long they are.
#[test]
fn holes_of_every_length_come_back() {
    let place = Place::new();
    let path = place.data.join("hole");
    let mut random = Random::new(seed("holes"));
    for round in 0..rounds(12) {
        let file = fs::File::create(&path).expect("a file");
        file.set_len(2_000_000 + random.below(70_000)).expect("a length");
        for _ in 0..random.below(3) {
            file.write_all_at(b"not zero", random.below(2_000_000)).expect("written");
        }
        place.ok(["snapshot", "-q"]);
        let back = place.restore("latest", &format!("back{round}"));
        assert!(fs::read(back.join("hole")).expect("restored") == fs::read(&path).expect("there"), "round {round}");
    }
    place.check();
}

#[test]
fn a_rewrite_in_the_same_tick_is_never_missed() {
    let seed = seed("same tick");
    let mut random = Random::new(seed);
    let place = Place::new();
    let files: Vec<PathBuf> = (0..6).map(|n| place.data.join(format!("f{n}"))).collect();
    let mut expected = vec![Vec::new(); files.len()];
    let write = |random: &mut Random, expected: &mut Vec<Vec<u8>>| {
        let n = random.below(files.len() as u64) as usize;
        expected[n] = random.bytes(512);
        if random.below(2) == 0 {
            let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&files[n]).expect("open");
            file.write_all_at(&expected[n], 0).expect("a write");
        } else {
            fs::write(&files[n], &expected[n]).expect("a file");
        }
    };
    for round in 0..rounds(120) {
        if random.below(3) > 0 {
            write(&mut random, &mut expected);
        }
        let id = text(&place.snapshot()["snapshot"]).to_owned();
        let held = expected.clone();
        for _ in 0..random.below(3) {
            write(&mut random, &mut expected);
        }
        if round % 10 == 9 {
            std::thread::sleep(Duration::from_millis(random.below(160)));
        }
        if round % 4 == 3 {
            let restored = place.restore(&id, "restored");
            for (n, content) in held.iter().enumerate().filter(|(_, content)| !content.is_empty()) {
                let found = fs::read(restored.join(format!("f{n}"))).expect("it is there");
                assert_eq!(&found, content, "round {round}, file {n}");
            }
            fs::remove_dir_all(restored).expect("removed");
        }
    }
}

/// Receipts vouch for databases by the stamps of the file and of its log: whatever is done to either has to show.
#[test]
fn a_write_to_a_database_is_never_missed() {
    let seed = seed("database receipts");
    let mut random = Random::new(seed);
    let place = Place::new();
    let modes = ["WAL", "DELETE", "PERSIST"];
    let mut conns: Vec<Option<rusqlite::Connection>> = Vec::new();
    let path = |n: usize| place.data.join(format!("{n}.db"));
    for (n, mode) in modes.iter().enumerate() {
        let conn = app::open(&path(n));
        conn.execute_batch(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)"))
            .expect("a table");
        conns.push(Some(conn));
    }
    let mut unchanged = 0;
    for round in 0..rounds(100) {
        for (n, slot) in conns.iter_mut().enumerate() {
            if slot.is_none() && random.below(2) == 0 {
                *slot = Some(app::open(&path(n)));
            }
            let Some(conn) = slot else { continue };
            let sql = match random.below(10) {
                0..=2 => continue,
                3 => "PRAGMA wal_checkpoint(TRUNCATE)".to_owned(),
                4 => "PRAGMA wal_checkpoint(PASSIVE)".to_owned(),
                5 => "VACUUM".to_owned(),
                6 => "UPDATE t SET v=randomblob(length(v)) WHERE id=(SELECT max(id) FROM t)".to_owned(),
                7 => "DELETE FROM t WHERE id=(SELECT min(id) FROM t)".to_owned(),
                8 => {
                    *slot = None; // The last connection closes: checkpoint, and the log goes.
                    continue;
                }
                size => format!("INSERT INTO t(v) VALUES(randomblob({}))", size * random.below(400)),
            };
            conn.execute_batch(&sql).expect("a statement");
        }
        if random.below(4) == 0 {
            settle(); // Else no receipt is ever old enough to count.
        }
        let said = place.snapshot();
        assert_eq!(said["consistency"]["transaction"], 3, "{said}");
        unchanged += u32::from(said["unchanged"] == true);
        for n in 0..modes.len() {
            let found = place.ok(["cat", "latest", &format!("{n}.db")]).raw;
            let copy = place.path("copy.db");
            fs::write(&copy, found).expect("a copy");
            let rows = |path: &Path| -> Vec<(i64, Vec<u8>)> {
                let conn = app::open(path);
                let mut rows = conn.prepare("SELECT id, v FROM t ORDER BY id").expect("a query");
                let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
                rows.collect::<Result<_, _>>().expect("rows")
            };
            let kept = rows(&copy);
            // Through the open connection if there is one: closing another would be one more event.
            let live = match &conns[n] {
                Some(conn) => {
                    let mut live = conn.prepare("SELECT id, v FROM t ORDER BY id").expect("a query");
                    let live = live.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
                    live.collect::<Result<Vec<_>, _>>().expect("rows")
                }
                None => rows(&path(n)),
            };
            assert!(kept == live, "round {round}: {} is not what the snapshot says", modes[n]);
            for suffix in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(place.path(&format!("copy.db{suffix}")));
            }
        }
    }
    println!("{unchanged} snapshots found nothing changed");
}

// ---- what cannot be read, what is left out ------------------------------------------------------

#[test]
fn what_cannot_be_read_is_said() {
    let place = Place::new();
    small(&place.data);
    let _socket = UnixListener::bind(place.data.join("socket")).expect("a socket");
    fifo(&place.data.join("dir/pipe"));
    let run = place.run(["snapshot"]).exits(3).says(&["socket", "dir/pipe", "not captured", "incomplete"]);
    assert!(run.out.starts_with("snapshot "), "{run:?}");
    let said = place.run(["snapshot", "--json", "--tag", "t"]).exits(3).json();
    assert_eq!(said["unreadable"], 2);
    let warnings = said["warnings"].as_array().expect("a list");
    for name in ["socket", "dir/pipe"] {
        assert!(warnings.iter().any(|warning| text(warning).contains(name)), "{name}: {said}");
    }
    // It stays said: in the list, and when nothing changed.
    assert!(place.ok(["snapshots"]).out.contains("incomplete: 2"));
    assert_eq!(place.ok(["snapshots", "--json"]).json_lines()[0]["unreadable"], 2);
    place.run(["snapshot"]).exits(3);
    let restored = place.path("restored");
    let to = restored.to_str().expect("UTF-8");
    place.run(["restore", "latest", "--target", to]).exits(3).says(&["incomplete", "socket", "dir/pipe"]);
    let mut expected = survey(&place.data);
    expected.retain(|path, _| !path.ends_with("socket") && !path.ends_with("pipe"));
    assert_same(&expected, &survey(&restored), "all the rest");
}

#[test]
fn files_of_others_are_said_too() {
    let place = Place::new();
    small(&place.data);
    let conn = app::open(&place.data.join("x.db"));
    conn.execute_batch("CREATE TABLE t(v)").expect("a table");
    drop(conn);
    let all = ["secret", "closed", "dir/x.db", "dir/sub"];
    fs::write(place.data.join("secret"), "s").expect("a file");
    fs::rename(place.data.join("x.db"), place.data.join("dir/x.db")).expect("renamed");
    fs::create_dir(place.data.join("closed")).expect("a folder");
    fs::write(place.data.join("closed/inside"), "i").expect("a file");
    let as_nobody = |args: &[&str]| {
        let mut command = place.nbak(args);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        run(&mut command)
    };
    if is_root() {
        chmod(place.root.path(), 0o755);
        let own = |path: &Path| std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
        for path in survey(&place.data).into_keys() {
            own(&place.data.join(path));
        }
        fs::create_dir(&place.repo).expect("a folder");
        own(&place.repo);
    }
    let _ = as_nobody(&["snapshot"]).exits(0);
    for name in all {
        chmod(&place.data.join(name), 0o000);
    }
    let said = as_nobody(&["snapshot", "--json"]).exits(3).json();
    assert_eq!(said["unreadable"], 4, "{said}");
    for name in all {
        assert!(said["warnings"].to_string().contains(&format!("not captured: {name}: ")), "{name}: {said}");
    }
    assert!(said["warnings"].to_string().contains("ermission denied"), "{said}");
    for name in all {
        chmod(&place.data.join(name), 0o700);
    }
    // A file that cannot be read is not what it was before, either: it is not there.
    let listed = as_nobody(&["ls", "-R", "latest"]).exits(0).out;
    assert!(!listed.contains("secret") && !listed.contains("c.txt") && listed.contains("b.txt"), "{listed}");
    // And once it can be read, all is well.
    let said = as_nobody(&["snapshot", "--json"]).exits(0).json();
    assert_eq!((&said["unreadable"], &said["databases"]), (&0.into(), &1.into()));
}

#[test]
fn files_that_vanish_are_no_error() {
    let place = Place::new();
    for n in 0..400 {
        fs::create_dir_all(place.data.join(format!("d{}", n % 7))).expect("a folder");
        fs::write(place.data.join(format!("d{}/f{n}", n % 7)), vec![b'x'; 3000]).expect("a file");
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopping = Stop(&stop);
        scope.spawn(|| {
            let mut random = Random::new(8);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let n = random.below(400);
                let folder = place.data.join(format!("d{}", n % 7));
                let file = folder.join(format!("f{n}"));
                match random.below(12) {
                    0 => drop(fs::remove_dir_all(&folder)),
                    1..=6 => drop(fs::remove_file(&file)),
                    _ => {
                        let _ = fs::create_dir_all(&folder);
                        let _ = fs::write(&file, random.bytes(3000));
                    }
                }
            }
        });
        for round in 0..rounds(25) {
            let run = place.run(["snapshot", "--json"]);
            // On a machine that is busy one may be made anew between all looks at it: then it is named.
            let is_replaced = |line: &str| line.contains("it was replaced each time before it could be read");
            let is_named = run.code == Some(3) && run.err.lines().all(is_replaced);
            assert!(run.code == Some(0) || is_named, "round {round}: {run:?}");
        }
    });
    place.check();
}

#[test]
fn what_is_left_out_and_what_is_not() {
    let place = Place::new();
    let put = |name: &str| {
        let path = place.data.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, name).expect("a file");
        chmod(&path, 0o600);
    };
    let left_out = [
        ".env",
        "vault.key",
        "secrets.json",
        "http-secret",
        ".last_version",
        "app.lock",
        "app.pid",
        "backups/b1/x",
        ".nbak-scratch-1/x",
        "mystore/mine",
        "a.tmp",
        "work/b.tmp",
        "cache/x",
        "work/only/this",
        "skip.me",
    ];
    let kept = [
        "work/.env",
        "work/vault.key",
        "work/Cargo.lock",
        "work/backups/x",
        "work/app.pid",
        "keep/cache-not",
        "lock",
        "work/only/that",
        "env",
        "work/.nbak-scratch/x",
    ];
    left_out.iter().chain(&kept).for_each(|name| put(name));
    let config = r#"{"nbak": {"exclude": ["*.tmp", "cache/"]}}"#;
    fs::write(place.data.join("config.json"), config).expect("a configuration");
    let args = ["snapshot", "-v", "--exclude", "work/only/this", "--exclude", "/skip.me", "--json"];
    let inside = place.data.join("mystore");
    fs::remove_dir_all(&inside).expect("removed");
    let run = run(place.nbak(args).env("NBAK_REPO", &inside)).exits(0);
    let reasons = ["left out: .env: holds the vault key", "left out: mystore: the store itself", "excluded by *.tmp"];
    let run = run.says(&reasons).says(&["left out: backups: ", "excluded by cache/", "excluded by work/only/this"]);
    let found: BTreeSet<String> = run.json()["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|entry| entry["type"] == "file")
        .map(|entry| text(&entry["path"]).to_owned())
        .collect();
    let expected: BTreeSet<String> = kept.iter().chain(&["config.json"]).map(|name| (*name).to_owned()).collect();
    assert_eq!(found, expected);
    // A store within the directory does not make each snapshot a change of its own.
    settle();
    let args = ["snapshot", "--exclude", "work/only/this", "--exclude", "/skip.me"];
    live_common::run(place.nbak(args).env("NBAK_REPO", &inside)).exits(0).says(&["nothing changed"]);
    // A glob that is none is a mistake of the request, and is named.
    place.run(["snapshot", "--exclude", "a["]).exits(2).says(&["glob"]);
}

/// A name alone makes no sidecar and no database.
#[test]
fn names_do_not_make_databases() {
    let place = Place::new();
    let magic = b"SQLite format 3\0";
    let header: Vec<u8> =
        [&magic[..], &[0x10, 0, 1, 1, 0, 64, 32, 32], &[0; 3], &[1], &[0; 3], &[1]].concat().into_iter().collect();
    let page: Vec<u8> = header.iter().copied().chain([0xAA; 8192]).take(8192).collect();
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("notes", b"plain notes".to_vec()),
        ("notes-wal", b"a walrus".to_vec()),
        ("notes-shm", b"a shampoo".to_vec()),
        ("notes-journal", b"a diary".to_vec()),
        ("x.db", b"this is no database".to_vec()),
        ("x.db-journal", b"a diary".to_vec()),
        ("x.db-shm", b"text".to_vec()),
        ("alone-wal", b"no database near".to_vec()),
        ("alone-shm", b"no database near".to_vec()),
        ("empty.db", Vec::new()),
        ("empty.db-shm", b"text".to_vec()),
        ("magic-only.db", magic.to_vec()),
        ("header.db", page.clone()),
        ("header.db-journal", b"text beside it".to_vec()),
        ("header.db-wal", b"text beside it".to_vec()),
        ("cut.db", page[..700].to_vec()),
        ("text.db", b"SQLite format 3 is what this text begins with, and goes on".repeat(40)),
    ];
    for (name, content) in &files {
        fs::write(place.data.join(name), content).expect("a file");
    }
    let before = survey(&place.data);
    let run = place.run(["snapshot", "--json"]);
    let said = run.json();
    assert_eq!(run.code, Some(0), "{}", said["warnings"]);
    let restored = place.restore("latest", "restored");
    for (name, content) in &files {
        let found = fs::read(restored.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(&found == content, "{name} came back as something else");
    }
    assert_same(&before, &survey(&place.data), "the source is as it was");
}

/// A real database that is damaged is kept byte for byte, with all that lies beside it.
#[test]
fn damaged_databases_are_kept_as_they_are() {
    let place = Place::new();
    let conn = app::open(&place.data.join("x.db"));
    conn.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(v); INSERT INTO t VALUES(randomblob(50000))")
        .expect("a table");
    for name in ["x.db", "x.db-wal", "x.db-shm"] {
        fs::copy(place.data.join(name), place.data.join(name.replace('x', "y"))).expect("a copy");
    }
    drop(conn);
    // An empty file with a log: SQLite would throw the log away.
    fs::write(place.data.join("y.db"), "").expect("emptied");
    let before = survey(&place.data);
    let run = place.run(["snapshot", "--json"]);
    assert!(matches!(run.code, Some(0 | 3)), "{run:?}");
    let restored = place.restore("latest", "restored");
    let after = survey(&restored);
    for name in ["y.db", "y.db-wal"] {
        assert_eq!(before.get(Path::new(name)), after.get(Path::new(name)), "{name}");
    }
    assert_same(&before, &survey(&place.data), "the source is as it was");
}

#[test]
fn times_before_1970_and_in_the_far_future() {
    let place = Place::new();
    fs::write(place.data.join("old"), "x").expect("a file");
    set_mtime(&place.data.join("old"), -2_000_000_000, 999_999_999);
    fs::write(place.data.join("far"), "x").expect("a file");
    set_mtime(&place.data.join("far"), 15_000_000_000, 1);
    let before = survey(&place.data);
    place.snapshot();
    assert_same(&before, &survey(&place.restore("latest", "restored")), "times");
    place.ok(["ls", "-l", "latest"]);
    place.ok(["ls", "--json", "latest"]);
    assert!(now() > UNIX_EPOCH);
}
