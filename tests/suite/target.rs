//! What happens to the target of a restore while it is written to, and where it is somebody else's.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::common::noise;
use crate::common::strace::{calls, can_trace, traced};
use crate::live_common::{KEY, Place, is_root, run};
use nbak::crypto::secret::Credential;
use nbak::snapshot::progress::Progress;
use nbak::snapshot::restore::{Options, restore};
use nbak::snapshot::store::{Access, Store};

/// Acts once, when the first of several segments was written.
struct First<F: FnMut() + Send>(Mutex<Option<F>>);

impl<F: FnMut() + Send> Progress for First<F> {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {
        if let Some(mut act) = self.0.lock().expect("no panic before").take() {
            act();
        }
    }
    fn end(&self) {}
}

/// A directory of two folders with files in many segments, and a snapshot of it.
fn taken() -> Place {
    let place = Place::new();
    for n in 0..600 {
        let folder = place.data.join(if n < 300 { "a" } else { "b" });
        fs::create_dir_all(&folder).expect("a folder");
        let noise: Vec<u8> = (0..600u32).flat_map(|at| (at * 7919 + n * 104_729).to_le_bytes()).collect();
        fs::write(folder.join(format!("f{n:03}")), noise).expect("a file");
    }
    place.ok(["snapshot"]);
    place
}

#[test]
fn a_folder_that_is_taken_away_is_missed() {
    for how in ["moved", "a link", "another"] {
        let place = taken();
        let (target, away, elsewhere) = (place.path("target"), place.path("away"), place.path("elsewhere"));
        fs::create_dir(&elsewhere).expect("a folder");
        let act = || {
            fs::rename(target.join("b"), &away).expect("moved");
            match how {
                "a link" => symlink(&elsewhere, target.join("b")).expect("linked"),
                "another" => fs::create_dir(target.join("b")).expect("made"),
                _ => {}
            }
        };
        let key = Credential::VaultKey(KEY.into());
        let store = Store::open(&place.repo, &[key], Access::Read).expect("opens");
        let record = store.records().expect("read").pop().expect("a snapshot");
        let options = Options { target: target.clone(), ..Options::default() };
        let ended = restore(&store, &record, &options, &First(Mutex::new(Some(act))));
        assert!(ended.is_err(), "{how}: it says that all is there");
        let count = |path: &Path| fs::read_dir(path).map_or(0, Iterator::count);
        assert_eq!(count(&elsewhere), 0, "{how}: no link is followed");
        assert!(count(&away) < 300, "{how}: what was moved away is not written to");
    }
}

/// Old kernels have no `openat2`, and some containers refuse it.
#[test]
fn without_the_newer_call_paths_are_opened_part_by_part() {
    if !can_trace() {
        return;
    }
    let place = taken();
    for error in ["ENOSYS", "EPERM"] {
        let target = place.path(error);
        let inject = format!("inject=openat2:error={error}");
        let options = ["-o", "/dev/null", "-e", "trace=openat2", "-e", &inject];
        let args = ["restore", "latest", "--target", target.to_str().expect("text")];
        let mut command = traced(&place.nbak(args), &options);
        assert!(command.stdout(Stdio::null()).status().expect("strace runs").success(), "{error}");
        for name in ["a/f000", "b/f599"] {
            let read = |root: &Path| fs::read(root.join(name)).expect("read");
            assert!(read(&target) == read(&place.data), "{error}: {name}");
        }
        // Links lead nowhere there either.
        let aside = place.path(&format!("{error}-aside"));
        fs::rename(target.join("b"), &aside).expect("moved");
        symlink(&aside, target.join("b")).expect("linked");
        let args = ["restore", "latest", "--overwrite", "--target", target.to_str().expect("text")];
        let mut command = traced(&place.nbak(args), &options);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("strace runs");
        assert_eq!(status.code(), Some(1), "{error}");
    }
}

/// What is equal, and another's, is written anew by who may not change its attributes.
#[test]
fn an_equal_file_of_another_owner_is_no_obstacle() {
    if !is_root() {
        return;
    }
    let place = taken();
    let target = place.path("target");
    place.ok(["restore", "latest", "--target", target.to_str().expect("text")]);
    let nobody = 65534;
    // All may be used by the other one, but the file itself is not that one's.
    for path in [place.data.parent().expect("a folder"), &target, &target.join("a"), &target.join("b")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("a mode");
    }
    for path in [&target, &target.join("a"), &target.join("b")] {
        chown(path, Some(nobody), Some(nobody)).expect("given");
    }
    let mut all = vec![place.repo.clone()];
    while let Some(path) = all.pop() {
        chown(&path, Some(nobody), Some(nobody)).expect("given");
        all.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    let args = ["restore", "latest", "--overwrite", "--target", target.to_str().expect("text")];
    let mut command = place.nbak(args);
    command.uid(nobody).gid(nobody);
    run(&mut command).exits(0);
    assert_eq!(fs::metadata(target.join("a/f000")).expect("there").uid(), nobody);
}

/// The data directory is restored in place, with a safety backup: never by way of a target.
#[test]
fn the_data_directory_is_no_target_to_write_over() {
    let place = taken();
    fs::write(place.data.join("new"), "of this minute").expect("a file");
    fs::write(place.data.join("a/f000"), "changed").expect("a file");
    let link = place.path("link");
    symlink(&place.data, &link).expect("linked");
    let within = place.data.join("a");
    for target in [place.data.as_path(), place.data.parent().expect("a folder"), &link, &within] {
        let args = ["restore", "latest", "--overwrite", "--target", target.to_str().expect("text")];
        let _ = run(&mut place.nbak(args)).exits(2).says(&["--in-place", "nothing was changed"]);
        // Nor for one who has another data directory, as the superuser has, and names the store alone.
        let mut other = place.nbak(args);
        other.env("NBAK_DATA_DIR", place.path("other"));
        let _ = run(&mut other).exits(2).says(&["--in-place", "nothing was changed", "--data-dir"]);
    }
    assert_eq!(fs::read(place.data.join("a/f000")).expect("read"), b"changed");
    assert!(!place.data.join("a/a").exists());
}

/// What lies there is in no snapshot, and some of it is removed by the next command.
#[test]
fn a_name_of_our_own_in_the_data_directory_is_no_target() {
    let place = taken();
    for name in [".nbak-x", ".nbak-restore", ".nbak-x/below"] {
        let target = place.data.join(name);
        let path = target.to_str().expect("text");
        for args in [["restore", "latest", "--target", path], ["export", "latest", "--to", path]] {
            let run = run(&mut place.nbak(args)).exits(2);
            let _ = run.says(&[".nbak-", "nothing was changed"]);
            assert!(!target.exists());
        }
        let _ = run(place.nbak(["snapshot"]).env("NBAK_REPO", path)).exits(2).says(&[".nbak-"]);
        assert!(!target.exists());
    }
    let cases = [
        ("x.lock", "no snapshot will contain it"),
        ("backups/x", "no snapshot will contain it"),
        ("x", "later snapshots will contain it too"),
    ];
    for (name, words) in cases {
        let target = place.data.join(name);
        let args = ["restore", "latest", "--target", target.to_str().expect("text")];
        let _ = run(&mut place.nbak(args)).exits(0).says(&[words]);
    }
}

/// A folder that was there has the mode that somebody chose; one that is made has that of the data directory.
#[test]
fn a_target_that_was_there_keeps_its_mode_and_time() {
    let place = Place::new();
    fs::write(place.data.join("notes"), "private").expect("a file");
    fs::set_permissions(&place.data, fs::Permissions::from_mode(0o755)).expect("a mode");
    place.ok(["snapshot"]);
    for (name, mode, more) in [("private", 0o700, None), ("shared", 0o1777, Some("--overwrite"))] {
        let target = place.path(name);
        fs::create_dir(&target).expect("made");
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).expect("a mode");
        let args = ["restore", "latest", "--target", target.to_str().expect("text")];
        place.ok(args.into_iter().chain(more));
        let (now, data) = (fs::metadata(&target).expect("there"), fs::metadata(&place.data).expect("there"));
        assert_eq!(now.mode() & 0o7777, mode, "{name}");
        assert_ne!((now.mtime(), now.mtime_nsec()), (data.mtime(), data.mtime_nsec()), "{name}");
        assert_eq!(fs::read(target.join("notes")).expect("read"), b"private");
    }
    let made = place.restore("latest", "made");
    assert_eq!(fs::metadata(made).expect("there").mode() & 0o7777, 0o755);
}

/// A mount that ends with the test.
struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// The same directory under another name is the same directory.
#[test]
fn a_bind_mount_of_the_data_directory_is_no_target_to_write_over() {
    let place = taken();
    fs::write(place.data.join("a/f000"), "changed").expect("a file");
    let alias = place.path("alias");
    fs::create_dir(&alias).expect("made");
    for (what, below) in [(place.data.as_path(), ""), (place.data.parent().expect("a folder"), ""), (&place.data, "a")]
    {
        let mut mount = Command::new("mount");
        mount.arg("--bind").arg(what.join(below)).arg(&alias).stderr(Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            return;
        }
        let _bound = Bound(alias.clone());
        let args = ["restore", "latest", "--overwrite", "--target", alias.to_str().expect("text")];
        let _ = run(&mut place.nbak(args)).exits(2).says(&["--in-place", "nothing was changed"]);
    }
    assert_eq!(fs::read(place.data.join("a/f000")).expect("read"), b"changed");
}

/// The restore `args`, in one thread, of which the closing of the file at `path` fails `when` it does: the exit code
/// and what was said.
fn closing_fails(place: &Place, args: &[&str], path: Option<&Path>, when: &str) -> (Option<i32>, String) {
    let inject = format!("inject=close:error=EDQUOT{when}");
    let mut options = vec!["-o", "/dev/null", "-e", "trace=close", "-e", &inject];
    options.extend(path.into_iter().flat_map(|path| ["-P", path.to_str().expect("text")]));
    let mut command = traced(&place.nbak(args), &options);
    let output = command.env("RAYON_NUM_THREADS", "1").output().expect("strace runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What is closed in a restore: the thread, and what of.
fn closed(place: &Place, args: &[&str]) -> Vec<(String, String)> {
    let log = place.path("log");
    let options = ["-y", "-o", log.to_str().expect("text"), "-e", "trace=close"];
    let mut command = traced(&place.nbak(args), &options);
    let ended = command.env("RAYON_NUM_THREADS", "1").output().expect("strace runs");
    assert!(ended.status.success(), "{ended:?}");
    let calls = calls(&fs::read_to_string(log).expect("a log")).into_iter();
    calls.filter(|(_, call, _)| call == "close").map(|(thread, _, args)| (thread, args)).collect()
}

/// NFS, FUSE and quotas of a server: what was written is refused when the file is closed.
#[test]
fn what_is_said_only_when_a_file_is_closed_is_heard() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    // One of several segments, and more than are kept open that have a beginning in common.
    fs::write(place.data.join("large"), noise(1, 9 << 20)).expect("a file");
    for (name, text) in [("empty", ""), ("small", "small")] {
        fs::write(place.data.join(name), text).expect("a file");
    }
    let beginning = noise(2, 300_000);
    for n in 0..200 {
        let all = [&beginning[..], &noise(1000 + n, 20_000)].concat();
        fs::write(place.data.join(format!("many{n:03}")), all).expect("a file");
    }
    place.ok(["snapshot"]);
    let target = place.path("target");
    let restore = ["restore", "latest", "--target", target.to_str().expect("text")];
    let closings = closed(&place, &restore);
    let of = |name: &str| closings.iter().filter(|(_, args)| args.contains(&format!("/{name}>"))).count();
    let reopened = (0..200).map(|n| format!("many{n:03}")).find(|name| of(name) > 1).expect("one that made room");
    assert_eq!([of("small"), of("empty")], [1, 1], "no file is closed twice");
    for name in ["large", "small", "empty", &reopened] {
        fs::remove_dir_all(&target).expect("removed");
        let path = target.join(name);
        let (code, said) = closing_fails(&place, &restore, Some(&path), ":when=1");
        assert_eq!(code, Some(1), "{name}: {said}");
        for word in ["close a restored file", path.to_str().expect("text"), "Disk quota exceeded", "try again"] {
            assert!(said.contains(word), "{name}: {word}: {said}");
        }
        assert!(!path.exists(), "{name}: it stands there as if it were whole");
        fs::create_dir_all(&target).expect("made");
    }

    // What it is to replace stays.
    place.ok([&restore[..], &["--overwrite"]].concat());
    let old = target.join("small");
    let again = [&restore[..], &["--overwrite"]].concat();
    fs::write(&old, "other").expect("written");
    let closings = closed(&place, &again);
    fs::write(&old, "other").expect("written");
    let at = closings.iter().position(|(_, args)| args.contains("/.nbak-restore-")).expect("it is written aside");
    let nth = closings[..=at].iter().filter(|(thread, _)| *thread == closings[at].0).count();
    let (code, said) = closing_fails(&place, &again, None, &format!(":when={nth}"));
    assert!(code == Some(1) && said.contains(old.to_str().expect("text")), "{code:?}: {said}");
    assert_eq!(fs::read_to_string(&old).expect("there"), "other");
    let left = fs::read_dir(&target).expect("listed").flatten().map(|entry| entry.file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with(".nbak-")), "nothing is left over");

    // What is staged for a restore in place is heard of too.
    fs::write(place.data.join("small"), "of today").expect("written");
    let staged = place.data.join(".nbak-restore/new/small");
    let args = ["restore", "latest", "small", "--in-place", "--yes"];
    let (code, said) = closing_fails(&place, &args, Some(&staged), ":when=1");
    assert!(code == Some(1) && said.contains("close a restored file"), "{code:?}: {said}");
    assert_eq!(fs::read_to_string(place.data.join("small")).expect("there"), "of today");
}
