//! A journal that another user may have written: nobody acts on it, nobody takes a half restored directory for a whole
//! one, and what it says is not done. Where the tests do not run as root, who may write is all that is tried.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;

use serde_json::{Value, json};

use super::interrupted::Half;
use super::scene::{Scene, options};

const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
}

/// To the folder of a restore and its journal.
type Deed = fn(&Path, &Path);

/// What makes them another's, what takes it back, and what is said of it.
fn deeds() -> Vec<(Deed, Deed, &'static str)> {
    let mut deeds: Vec<(Deed, Deed, &str)> = vec![
        (|folder, _| set_mode(folder, 0o770), |folder, _| set_mode(folder, 0o700), "mode is 0770"),
        (|_, journal| set_mode(journal, 0o602), |_, journal| set_mode(journal, 0o600), "mode is 0602"),
        (
            |folder, _| {
                let elsewhere = folder.with_file_name("elsewhere");
                fs::rename(folder, &elsewhere).and_then(|()| symlink(&elsewhere, folder)).expect("a link");
            },
            |folder, _| {
                let back = || fs::rename(folder.with_file_name("elsewhere"), folder);
                fs::remove_file(folder).and_then(|()| back()).expect("moved back");
            },
            "link",
        ),
        (
            |_, journal| {
                let elsewhere = journal.with_file_name("elsewhere");
                fs::rename(journal, &elsewhere).and_then(|()| symlink(&elsewhere, journal)).expect("a link");
            },
            |_, journal| fs::rename(journal.with_file_name("elsewhere"), journal).expect("moved back"),
            "link",
        ),
    ];
    if is_root() {
        deeds.push((
            |folder, _| chown(folder, Some(NOBODY), None).expect("its owner"),
            |folder, _| chown(folder, Some(0), None).expect("its owner"),
            "belongs to user 65534",
        ));
        deeds.push((
            |_, journal| chown(journal, Some(NOBODY), None).expect("its owner"),
            |_, journal| chown(journal, Some(0), None).expect("its owner"),
            "belongs to user 65534",
        ));
    }
    deeds
}

#[test]
fn a_journal_that_another_may_have_written_is_not_believed() {
    for (deed, back, said) in deeds() {
        let half = Half::made();
        let folder = half.scene.data.join(".nbak-restore");
        let journal = folder.join("intent");
        deed(&folder, &journal);
        // A start notes the version.
        fs::write(half.scene.data.join(".last_version"), "1").expect("written");
        let before = (half.live(), fs::read_to_string(&journal).expect("there"));
        let startup = ["startup", "--app-version", "1"];
        let resume = ["restore", "--resume", "--yes"];
        let again = ["restore", "latest", "--in-place", "--yes"];
        for (args, code) in [
            (&["snapshot"][..], 3),
            (&["snapshot", "--dry-run"], 3),
            (&["backup"], 3),
            (&startup, 3),
            (&resume, 1),
            (&["restore", "--abandon"], 1),
            (&again, 1),
        ] {
            let run = half.run(args);
            assert_eq!(run.code, code, "{said}, {args:?}: {run:?}");
            let names = run.err.contains(said) && run.err.contains(".nbak-restore");
            assert!(names && !run.err.contains("was finished"), "{said}, {args:?}: {run:?}");
            assert_eq!((half.live(), fs::read_to_string(&journal).expect("there")), before, "{said}, {args:?}");
        }
        let [(level, text)] = &half.doctor()[..] else { panic!("{:?}", half.doctor()) };
        assert!(level == "bad" && text.contains("seems") && text.contains(said), "{said}: {text}");
        let (_, status) = half.json(&["status"]);
        assert!(status[0]["pending_restore"]["text"].as_str().is_some_and(|text| text.contains(said)), "{status:?}");
        let (_, taken) = half.json(&["snapshot"]);
        assert!(taken[0]["pending_restore"].as_str().is_some_and(|text| text.contains(said)), "{taken:?}");

        back(&folder, &journal);
        let run = half.run(&["snapshot"]);
        assert!(run.code == 0 && run.err.contains("was finished") && !half.scene.is_pending(), "{said}: {run:?}");
    }
}

/// Whoever may write in the data directory can make a journal with all that is to be in it.
#[test]
fn a_forged_journal_gives_nobody_rights() {
    let half = Half::made();
    let data = &half.scene.data;
    let folder = data.join(".nbak-restore");
    fs::remove_dir_all(&folder).expect("removed");
    fs::create_dir_all(folder.join("new")).expect("made");
    let tool = data.join("tool");
    fs::write(&tool, "a program").expect("written");
    set_mode(&tool, 0o755);
    let owner = fs::metadata(&tool).expect("there").uid();
    let touch = json!({"path": "tool", "mode": 0o4755, "owner": [owner, 0], "mtime": [1_700_000_000, 0]});
    let line = json!({
        "version": 1, "kept": ".nbak-kept-x", "folders": [], "clear": [], "moves": [], "touch": [touch],
        "unchanged": 0, "extra": [], "removed": [], "remarks": [],
    })
    .to_string();
    let text = format!("{line}\n{}\n", blake3::hash(line.as_bytes()).to_hex());
    fs::write(folder.join("intent"), text).expect("written");
    let others = [folder.clone(), folder.join("intent"), folder.join("new"), data.clone()];
    if is_root() {
        for path in &others {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("its owner");
        }
    } else {
        set_mode(&folder, 0o777);
    }
    for (args, code) in [(&["snapshot"][..], 3), (&["backup"], 3), (&["restore", "--resume", "--yes"], 1)] {
        let run = half.run(args);
        assert!(run.code == code && run.err.contains("forged"), "{args:?}: {run:?}");
        assert_eq!(fs::metadata(&tool).expect("there").mode() & 0o7777, 0o755, "{args:?}");
    }
}

/// A mark is written into the lock.
#[test]
fn a_lock_that_is_another_file_is_not_written_to() {
    let scene = Scene::empty();
    scene.live("a", "old");
    scene.staged("a", "new");
    let (precious, lock) = (scene.origin.with_file_name("precious"), scene.data.join(".nbak-restore.lock"));
    fs::write(&precious, "what nobody may write to").expect("written");
    let deeds: [fn(&Path, &Path) -> std::io::Result<()>; 3] =
        [|from, to| fs::hard_link(from, to), |from, to| symlink(from, to), |_, to| fs::create_dir(to)];
    for deed in deeds {
        deed(&precious, &lock).expect("put there");
        let error = scene.replace(&options(false)).expect_err("refused").to_string();
        assert!(error.contains(".nbak-restore.lock"), "{error}");
        assert_eq!(fs::read_to_string(&precious).expect("there"), "what nobody may write to");
        assert_eq!(fs::read_to_string(scene.data.join("a")).expect("there"), "old");
        let _ = fs::remove_file(&lock).or_else(|_| fs::remove_dir(&lock));
    }
    scene.replace(&options(false)).expect("replaced");
}

/// What only its owner may read stands there under its own name, and others' folders above it let everybody in.
#[test]
fn nothing_is_kept_in_a_folder_that_is_not_ours() {
    let half = Half::made();
    let text = fs::read_to_string(half.scene.data.join(".nbak-restore/intent")).expect("read");
    let intent: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    let kept = half.scene.data.join(intent["kept"].as_str().expect("a name"));
    let before = half.live();
    let names = || fs::read_dir(&kept).expect("a list").count();
    fs::create_dir(&kept).expect("made");
    set_mode(&kept, 0o777);
    let run = half.run(&["restore", "--abandon"]);
    assert!(run.code == 1 && run.err.contains(kept.to_str().expect("text")) && names() == 0, "{run:?}");
    let words = ["mode is 0777", "given up", "chmod go-w"];
    assert!(words.iter().all(|words| run.err.contains(words)), "{run:?}");
    assert_eq!(half.live(), before);
    fs::remove_dir(&kept).expect("removed");
    let run = half.run(&["restore", "--abandon"]);
    assert!(run.code == 0 && run.out.contains("the same restore again finishes it"), "{run:?}");
    assert_eq!(half.live(), before);
    assert!(names() > 0, "it is kept in a folder of our own");
}
