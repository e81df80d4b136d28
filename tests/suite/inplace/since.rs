//! What was written between the end of a killed restore and `--resume`, in the places that have no stamp of their own:
//! all of it is somewhere afterwards.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::beside;
use super::interrupted::Half;
use super::scene::{Scene, database, scene as a_scene};

const TOKEN: &str = "TOKEN of what was written since";

/// Folders stand where a file, a link, a database and nothing is to be.
fn folders() -> Scene {
    let template = a_scene("closed");
    for folder in ["file", "link", "base", "knowledge-graph/index"] {
        template.live(&format!("{folder}/old"), "old");
        template.live(&format!("{folder}/deep/old"), "old");
    }
    template.staged("file", "a file now");
    symlink("file", template.origin.join("link")).expect("a link");
    drop(database(&template.origin.join("base"), "DELETE", "new", 2));
    template
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Where the token is, but for the store and backups, which no command made here.
fn tokens(data: &Path) -> Vec<PathBuf> {
    let has_it = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| bytes.windows(5).any(|part| part == b"TOKEN"));
    files_below(data).into_iter().filter(has_it).collect()
}

fn assert_kept(half: &Half, what: &str) {
    let run = half.run(&["restore", "--resume", "--yes"]);
    assert_eq!(run.code, 0, "{what}: {run:?}");
    assert!(!half.scene.is_pending() && half.scene.state()["h.db"].contains("new00"), "{what}");
    let [kept] = &half.scene.kept()[..] else { panic!("{what}: {:?}", half.scene.kept()) };
    let found = tokens(&half.scene.data);
    assert!(!found.is_empty() && found.iter().all(|path| path.starts_with(kept)), "{what}: {found:?}");
    assert!(run.err.contains(".nbak-kept-"), "{what}: {run:?}");
}

#[test]
fn a_folder_that_was_written_below_is_kept_as_a_whole() {
    let template = folders();
    for folder in ["file", "link", "base", "knowledge-graph/index"] {
        for is_deep in [false, true] {
            let half = Half::of(&template, |state| {
                state["h.db"].contains("old00")
                    && state["second.db"].contains("old00")
                    && state.contains_key(&format!("{folder}/old"))
            });
            let folder_path = half.scene.data.join(folder);
            if is_deep {
                // Replaced, as an editor does.
                fs::write(half.scene.data.join("mine.tmp"), TOKEN).expect("written");
                fs::rename(half.scene.data.join("mine.tmp"), folder_path.join("deep/old")).expect("replaced");
            } else {
                fs::write(folder_path.join("old"), format!("old {TOKEN}")).expect("written");
            }
            assert_kept(&half, &format!("{folder}, {is_deep}"));
            let run = half.run(&["status"]);
            assert!(!run.err.contains("half done"), "{run:?}");
        }
    }
}

/// A recovery that is killed between taking a folder away and its end is followed by one that finds it taken away.
#[test]
fn a_recovery_that_is_killed_keeps_no_less() {
    let template = folders();
    for kill in 0.. {
        let half = Half::of(&template, |state| {
            state["h.db"].contains("old00") && state["second.db"].contains("old00") && state.contains_key("file/old")
        });
        fs::write(half.scene.data.join("file/old"), TOKEN).expect("written");
        let killed = half.scene.child("recover", kill, false);
        let found = tokens(&half.scene.data);
        assert!(!found.is_empty(), "killed at {kill}");
        if half.scene.is_pending() {
            half.scene.recover().expect("recovered");
        }
        let [kept] = &half.scene.kept()[..] else { panic!("{kill}: {:?}", half.scene.kept()) };
        assert_eq!(tokens(&half.scene.data), [kept.join("file/old")], "killed at {kill}");
        if !killed {
            break;
        }
    }
}

#[test]
fn nobodys_sidecar_beside_a_database_is_kept() {
    for end in ["-wal", "-shm", "-journal"] {
        let half = Half::made();
        fs::write(beside(&half.left, end), TOKEN).expect("written");
        assert_kept(&half, end);
    }
    let half = Half::made();
    fs::remove_file(&half.left).expect("removed");
    fs::write(beside(&half.left, "-wal"), TOKEN).expect("written");
    assert_kept(&half, "a log without its database");
}

/// The folder of what is still to come is gone, or a file stands there.
#[test]
fn a_folder_that_is_gone_since_is_made_again() {
    let template = a_scene("closed");
    template.live("sub/deep/a", "old");
    template.staged("sub/deep/a", "new");
    for is_file in [false, true] {
        let half = Half::of(&template, |state| state["sub/deep/a"] == "old");
        let folder = half.scene.data.join("sub/deep");
        fs::remove_dir_all(&folder).expect("removed");
        if is_file {
            fs::write(&folder, TOKEN).expect("written");
            assert_kept(&half, "a file");
        } else {
            let run = half.run(&["restore", "--resume", "--yes"]);
            assert!(run.code == 0 && !half.scene.is_pending(), "{run:?}");
        }
        assert_eq!(half.scene.state()["sub/deep/a"], "new");
    }
}

#[test]
fn where_nobody_wrote_nothing_is_kept() {
    let half = Half::of(&folders(), |state| {
        state["h.db"].contains("old00") && state["second.db"].contains("old00") && state.contains_key("file/old")
    });
    let run = half.run(&["restore", "--resume", "--yes"]);
    assert!(run.code == 0 && half.scene.kept().is_empty(), "{run:?}");
    assert!(run.err.contains("file: a folder stood where a file was restored"), "{run:?}");
}
