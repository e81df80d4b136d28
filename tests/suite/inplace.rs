//! A restore into a live data directory: killed at every step, and finished; refused, with nothing changed; and never
//! a mix of old and new.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use nbak::export::inplace::{Staging, recover};
use scene::{
    Hook, MANY, Opener, ROLE, STATES, Scene, database, live_database, options, restored, rows, scene as a_scene,
};

mod along;
mod beside;
mod company;
mod excluded;
mod forged;
mod given_up;
mod graph;
mod interrupted;
mod lacking;
mod meanwhile;
pub mod mixed;
mod modes;
mod owned;
mod pairs;
mod scene;
mod since;
mod stayed;
mod through;
mod told;
mod unattended;

/// Not a test of its own: what a child process does.
#[test]
fn child() {
    if let Ok(role) = std::env::var(ROLE) {
        scene::play(&role);
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}{end}", path.display()))
}

/// Kills a restore at every step, and recovers; and kills each recovery at every step, and recovers that.
fn every_kill(state: &str) {
    let template = a_scene(state);
    let (old, new) = (template.state(), restored(&template));
    assert_ne!(old, new);
    let (mut intended, mut nested) = (0, 0);
    for kill in 0.. {
        let scene = template.again();
        let killed = scene.child("replace", kill, false);
        let is_pending = scene.is_pending();
        assert!(killed || !is_pending, "{state}: it ended at {kill} and left an intent");
        if killed && !is_pending {
            // Before it was durable, or after it was done.
            let found = scene.state();
            let expected = if intended == 0 { &old } else { &new };
            assert_eq!(&found, expected, "{state}: killed at {kill}, no intent");
            assert!(scene.recover().expect("nothing to do").is_none());
            scene.replace(&options(false)).expect("the next restore");
        }
        if is_pending {
            intended += 1;
            scene.recover().expect("recovered").expect("it was pending");
        }
        assert_eq!(scene.state(), new, "{state}: killed at {kill}");
        assert_whole(&scene, state);
        // Every third of them: the recoveries of its neighbours go through the same steps.
        if is_pending && intended % 3 == 1 {
            for again in 0.. {
                let scene = template.again();
                assert!(scene.child("replace", kill, false));
                if !scene.child("recover", again, false) {
                    break;
                }
                nested += 1;
                scene.recover().expect("recovered");
                assert_eq!(scene.state(), new, "{state}: killed at {kill}, and in recovery at {again}");
                assert_whole(&scene, state);
            }
        }
        if !killed {
            break;
        }
    }
    let _ = writeln!(std::io::stdout(), "{state}: {intended} kills with an intent, {nested} in recovery");
    assert!(intended > 5 && nested > 15, "{state}: {intended} and {nested} are too few to mean anything");
}

/// Nothing is left over, and what must not be lost is there.
fn assert_whole(scene: &Scene, state: &str) {
    assert!(!scene.data.join(".nbak-restore").exists(), "the staging is gone");
    for end in ["-wal", "-shm", "-journal"] {
        assert!(!beside(&scene.data.join("h.db"), end).exists(), "{end} is gone");
    }
    if state == "malformed" {
        let [kept] = &scene.kept()[..] else { panic!("kept in one place: {:?}", scene.kept()) };
        assert_eq!(fs::read(kept.join("h.db")).expect("kept")[16..], [0x77; 5000]);
        assert_eq!(fs::read(kept.join("h.db-wal")).expect("kept"), [0x55; 3000]);
    } else {
        assert_eq!(scene.kept(), [] as [PathBuf; 0], "there was nothing to keep");
    }
}

#[test]
fn killed_with_a_closed_database() {
    every_kill("closed");
}

#[test]
fn killed_with_a_full_log() {
    every_kill("full-wal");
}

#[test]
fn killed_with_a_partial_log() {
    every_kill("partial-wal");
}

#[test]
fn killed_with_stale_shared_memory() {
    every_kill("stale-shm");
}

#[test]
fn killed_with_a_hot_journal() {
    every_kill("hot-journal");
}

#[test]
fn killed_with_a_malformed_database() {
    every_kill("malformed");
}

#[test]
fn killed_with_a_log_without_a_database() {
    every_kill("orphan-wal");
}

#[test]
fn the_states_are_what_they_say() {
    for state in STATES {
        let scene = Scene::empty();
        live_database(&scene.data, state);
        let found = scene.state().get("h.db").cloned();
        let expected = |text: &str| found.as_deref().is_some_and(|found| found.starts_with(text));
        let holds = match *state {
            "closed" | "full-wal" => expected("ok: 20 rows"),
            "partial-wal" => expected("ok: 1") && !expected("ok: 10 "),
            "stale-shm" => expected("ok: 10 rows"),
            "hot-journal" => expected("ok: 40 rows old"),
            "malformed" => expected("malformed"),
            _ => found.is_none() && scene.data.join("h.db-wal").exists(),
        };
        assert!(holds, "{state}: {found:?}");
        if *state == "hot-journal" {
            // Without its journal it is half way.
            fs::remove_file(scene.data.join("h.db-journal")).expect("removed");
            assert!(!scene.state()["h.db"].starts_with("ok: 40 rows old"));
        }
    }
}

/// What the application did: the old rows come back, and the integrity check is content.
#[test]
fn a_naive_rename_brings_the_old_rows_back() {
    let template = Scene::empty();
    let conn = database(&template.data.join("copied.db"), "WAL", "old", 20);
    fs::copy(template.data.join("copied.db"), template.data.join("h.db")).expect("copied");
    fs::copy(template.data.join("copied.db-wal"), template.data.join("h.db-wal")).expect("copied");
    drop(conn);
    fs::remove_file(template.data.join("copied.db")).expect("removed");
    drop(database(&template.origin.join("h.db"), "WAL", "new", 12));

    let naive = template.again();
    fs::rename(naive.origin.join("h.db"), naive.data.join("h.db")).expect("renamed");
    let found = rows(&naive.data.join("h.db")).expect("it opens");
    assert!(found.starts_with("ok: 20 rows old00"), "the defect that this is about: {found}");

    template.replace(&options(false)).expect("replaced");
    let found = rows(&template.data.join("h.db")).expect("it opens");
    assert!(found.starts_with("ok: 12 rows new00"), "{found}");
}

#[test]
fn an_open_database_is_refused_and_nothing_changes() {
    for mode in ["WAL", "DELETE"] {
        let scene = a_scene("full-wal");
        fs::remove_file(scene.data.join("second.db")).expect("removed");
        drop(database(&scene.data.join("second.db"), mode, "old", 3));
        let mut opener = Opener::of(&scene.data.join("second.db"));
        let before = scene.bytes();
        let error = scene.replace(&options(false)).expect_err("refused");
        assert_eq!(error.exit_code(), 11);
        let text = error.to_string();
        for part in ["second.db", &opener.pid().to_string(), "--into-live"] {
            assert!(text.contains(part), "{mode}: {text}");
        }
        assert_eq!(scene.bytes(), before, "{mode}");
        assert!(!scene.data.join(".nbak-restore").exists());
        assert_eq!(opener.ask(), "old00 old01 old02");
        drop(opener);
        scene.replace(&options(false)).expect("nobody has it open now");
        assert!(scene.state()["second.db"].starts_with("ok: 2 rows new00"));
    }
}

#[test]
fn an_open_database_is_written_through_sqlite() {
    for mode in ["WAL", "DELETE"] {
        let scene = a_scene("closed");
        fs::remove_file(scene.data.join("second.db")).expect("removed");
        drop(database(&scene.data.join("second.db"), mode, "old", 3));
        let inode = fs::metadata(scene.data.join("second.db")).expect("there").ino();
        let mut opener = Opener::of(&scene.data.join("second.db"));
        let done = scene.replace(&options(true)).expect("replaced");
        assert_eq!(done.through, [Path::new("second.db")]);
        assert_eq!(opener.ask(), "new00 new01", "{mode}: the connection that was open sees it");
        assert_eq!(fs::metadata(scene.data.join("second.db")).expect("there").ino(), inode);
        assert!(done.holders.is_empty(), "{:?}", done.holders);
        let mut state = scene.state();
        assert!(state.remove("second.db").is_some_and(|rows| rows.starts_with("ok: 2 rows")));
        let header = fs::read(scene.data.join("second.db")).expect("read");
        assert_eq!(header[18] == 2, mode == "WAL", "it keeps its journal mode");
    }
}

#[test]
fn killed_with_a_live_opener() {
    let template = a_scene("closed");
    let new = restored(&template);
    let old = template.state();
    let mut intended = 0;
    for kill in 0.. {
        let scene = template.again();
        let mut opener = Opener::of(&scene.data.join("h.db"));
        let killed = scene.child("replace", kill, true);
        let is_pending = scene.is_pending();
        if killed && !is_pending && intended == 0 {
            assert_eq!(scene.state(), old, "killed at {kill}");
            continue;
        }
        if is_pending {
            intended += 1;
            for again in 0..3 {
                scene.child("recover", again, true);
            }
            if scene.is_pending() {
                scene.recover().expect("recovered");
            }
        }
        assert!(opener.ask().starts_with("new00 new01"), "killed at {kill}");
        drop(opener);
        assert_eq!(scene.state(), new, "killed at {kill}");
        // A recovery cannot know what was committed to an open database since, and keeps what it writes over.
        assert!(is_pending || scene.kept().is_empty());
        if !killed {
            break;
        }
    }
    assert!(intended > 5);
}

#[test]
fn what_was_opened_after_a_crash_is_waited_for() {
    let template = a_scene("closed");
    // The step before the first database: the intent was written, and the graph's log is gone.
    let kill = (0..MANY).find(|&kill| {
        let scene = template.again();
        scene.child("replace", kill, false) && scene.is_pending()
    });
    let scene = template.again();
    assert!(scene.child("replace", kill.expect("there is an intent"), false));
    let mut opener = Opener::of(&scene.data.join("h.db"));
    let before = scene.bytes();
    let error = scene.recover().expect_err("it is open");
    assert_eq!(error.exit_code(), 11);
    assert!(error.to_string().contains("h.db") && error.to_string().contains("stop the program"), "{error}");
    assert_eq!(scene.bytes(), before);
    let error = Staging::begin(&scene.data).map(|_| ()).expect_err("a restore is pending");
    assert!(error.to_string().contains("interrupted"), "{error}");
    assert!(opener.ask().starts_with("old00"));
    drop(opener);
    // The program wrote to it: that version is in no backup.
    let conn = rusqlite::Connection::open(scene.data.join("h.db")).expect("opened");
    scene::insert(&conn, "meanwhile", 1);
    drop(conn);
    fs::write(scene.data.join("notes.txt"), "written meanwhile").expect("written");
    let done = scene.recover().expect("recovered").expect("it was pending");
    assert_eq!(scene.state(), restored(&template));
    let [kept] = &scene.kept()[..] else { panic!("{:?}", scene.kept()) };
    assert!(rows(&kept.join("h.db")).expect("it opens").contains("meanwhile00"));
    assert_eq!(fs::read_to_string(kept.join("notes.txt")).expect("kept"), "written meanwhile");
    assert!(done.remarks.iter().any(|remark| remark.contains("notes.txt")), "{:?}", done.remarks);
}

#[test]
fn what_the_program_wrote_to_a_restored_file_stays() {
    let template = a_scene("closed");
    // The last kill that leaves an intent: all stands in place.
    let last = (0..MANY)
        .map(|kill| {
            let scene = template.again();
            (kill, scene.child("replace", kill, false), scene.is_pending())
        })
        .take_while(|(_, killed, _)| *killed)
        .filter(|(_, _, is_pending)| *is_pending)
        .last();
    let scene = template.again();
    assert!(scene.child("replace", last.expect("there is one").0, false));
    let conn = rusqlite::Connection::open(scene.data.join("h.db")).expect("opened");
    conn.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).expect("set");
    scene::insert(&conn, "since", 1);
    fs::write(scene.data.join("notes.txt"), "written since").expect("written");
    let done = scene.recover().expect("recovered").expect("it was pending");
    drop(conn);
    assert!(scene.state()["h.db"].contains("since00"), "not swapped back, its log not taken away");
    assert_eq!(scene.state()["notes.txt"], "written since");
    assert!(done.remarks.iter().any(|remark| remark.contains("notes.txt")), "{:?}", done.remarks);
    let [kept] = &scene.kept()[..] else { panic!("{:?}", scene.kept()) };
    assert_eq!(fs::read_to_string(kept.join("notes.txt")).expect("kept"), "old notes");
}

#[test]
fn a_wrong_byte_is_noticed_and_the_old_files_are_kept() {
    let scene = a_scene("closed");
    let (notes, is_done) = (scene.data.join("notes.txt"), AtomicBool::new(false));
    let hook = Hook(|| {
        if fs::read(&notes).is_ok_and(|bytes| bytes == b"new notes") && !is_done.swap(true, Ordering::SeqCst) {
            let time = fs::metadata(&notes).and_then(|meta| meta.modified()).expect("its time");
            fs::write(&notes, "new n0tes").expect("written");
            let file = fs::File::options().write(true).open(&notes).expect("opened");
            file.set_times(fs::FileTimes::new().set_modified(time)).expect("set");
        }
    });
    let error = scene.replace_with(&options(false), &hook).expect_err("it is noticed");
    assert_eq!(error.exit_code(), 13, "{error}");
    assert!(error.to_string().contains("notes.txt"), "{error}");
    let [kept] = &scene.kept()[..] else { panic!("{:?}", scene.kept()) };
    assert_eq!(fs::read_to_string(kept.join("notes.txt")).expect("kept"), "old notes");
    assert_eq!(fs::read_to_string(kept.join("knowledge-graph/log")).expect("kept"), "old log");
    assert!(rows(&kept.join("h.db")).expect("it opens").starts_with("ok: 20 rows old"));
    assert!(scene.recover().expect("nothing is pending").is_none());
}

#[test]
fn a_log_that_appears_beside_a_restored_database_is_noticed() {
    let scene = a_scene("closed");
    let (place, new) = (scene.data.join("h.db"), fs::read(scene.origin.join("h.db")).expect("read"));
    let hook = Hook(|| {
        if fs::read(&place).is_ok_and(|bytes| bytes == new) {
            fs::write(beside(&place, "-wal"), "of something else").expect("written");
        }
    });
    let error = scene.replace_with(&options(false), &hook).expect_err("it is noticed");
    assert_eq!(error.exit_code(), 13, "{error}");
    assert!(error.to_string().contains("h.db-wal"), "{error}");
}

#[test]
fn links_above_are_refused() {
    let outside = tempfile::TempDir::new().expect("a folder");
    for is_folder in [true, false] {
        let scene = Scene::empty();
        scene.live("a.txt", "old");
        scene.staged("a.txt", "new");
        scene.staged("sub/b.txt", "new");
        fs::write(outside.path().join("b.txt"), "elsewhere").expect("written");
        let target = if is_folder { outside.path().to_path_buf() } else { outside.path().join("b.txt") };
        symlink(target, scene.data.join("sub")).expect("a link");
        let before = scene.bytes();
        let error = scene.replace(&options(false)).expect_err("refused");
        assert!(error.to_string().contains("link"), "{error}");
        assert_eq!(scene.bytes(), before);
        assert_eq!(fs::read_dir(outside.path()).expect("a list").count(), 1);
        assert_eq!(fs::read_to_string(outside.path().join("b.txt")).expect("read"), "elsewhere");
    }
}

#[test]
fn a_link_in_place_of_a_file_is_replaced_and_not_followed() {
    let scene = Scene::empty();
    let outside = tempfile::TempDir::new().expect("a folder");
    drop(database(&outside.path().join("h.db"), "WAL", "outside", 2));
    let before = fs::read(outside.path().join("h.db")).expect("read");
    symlink(outside.path().join("h.db"), scene.data.join("h.db")).expect("a link");
    drop(database(&scene.origin.join("h.db"), "DELETE", "new", 2));
    symlink("nowhere", scene.origin.join("link")).expect("a link");
    symlink("elsewhere", scene.data.join("link")).expect("a link");
    scene.replace(&options(false)).expect("replaced");
    assert!(fs::symlink_metadata(scene.data.join("h.db")).expect("there").is_file());
    assert_eq!(scene.state()["link"], "link nowhere");
    assert_eq!(fs::read(outside.path().join("h.db")).expect("read"), before);
}

#[test]
fn a_partial_restore_leaves_everything_else_alone() {
    let scene = a_scene("closed");
    let part = scene.again();
    fs::remove_dir_all(&part.origin).expect("removed");
    part.staged("notes.txt", "new notes");
    part.live("extra/deep.txt", "mine");
    let mut expected = part.state();
    expected.insert("notes.txt".to_owned(), "new notes".to_owned());
    let mut how = options(false);
    how.whole = false;
    let done = part.replace(&how).expect("replaced");
    assert_eq!(part.state(), expected);
    assert_eq!((done.files, done.bytes, done.unchanged), (1, 9, 0));
    assert!(done.extra.is_empty() && done.removed.is_empty(), "{done:?}");
}

#[test]
fn a_whole_restore_lists_what_else_is_there() {
    let scene = a_scene("closed");
    scene.live("extra/deep.txt", "mine");
    scene.live("fresh/other", "mine");
    scene.live(".env", "secret");
    scene.live("backups/x", "a backup");
    scene.live("knowledge-graph.wal", "of the old graph");
    scene.live("knowledge-graph/deep/er", "of the old graph");
    let done = scene.replace(&options(false)).expect("replaced");
    let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(done.extra, paths(&["extra", "fresh/other", "mine.txt"]));
    assert_eq!(done.removed, paths(&["knowledge-graph/deep", "knowledge-graph/log", "knowledge-graph.wal"]));
    let state = scene.state();
    assert_eq!(state.keys().filter(|path| path.starts_with("knowledge-graph")).count(), 2, "{state:?}");
    assert_eq!(state[".env"], "secret");
    assert_eq!(state["fresh"], "folder 750", "a folder that stands there gets the mode of the one that is restored");
}

#[test]
fn files_and_folders_change_places() {
    let scene = Scene::empty();
    scene.live("a", "a file");
    scene.staged("a/b/c", "in folders");
    scene.live("d/e/f", "in folders");
    scene.staged("d", "a file");
    let done = scene.replace(&options(false)).expect("replaced");
    assert_eq!(scene.state()["a/b/c"], "in folders");
    assert_eq!(scene.state()["d"], "a file");
    assert_eq!(done.removed, [Path::new("a"), Path::new("d")]);
    assert!(done.extra.is_empty());

    // What no backup holds is not deleted with a folder.
    let scene = Scene::empty();
    scene.live("backups/store/pack", "all the snapshots");
    scene.staged("ok", "new");
    scene.staged("backups", "a file");
    scene.replace(&options(false)).expect("what is ignored is left alone");
    assert_eq!(scene.state()["backups/store/pack"], "all the snapshots");
    let inner = |path: &Path| path == Path::new("d/keep");
    let scene = Scene::empty();
    scene.live("d/keep/x", "in no backup");
    scene.staged("d", "a file");
    let mut how = options(false);
    how.ignored = &inner;
    let error = scene.replace(&how).expect_err("refused");
    assert!(error.to_string().contains("d/keep"), "{error}");
    assert_eq!(scene.state()["d/keep/x"], "in no backup");
}

#[test]
fn what_is_the_same_is_not_written() {
    let scene = Scene::empty();
    scene.live("same.txt", "the same");
    scene.staged("same.txt", "the same");
    fs::set_permissions(scene.origin.join("same.txt"), fs::Permissions::from_mode(0o640)).expect("its mode");
    drop(database(&scene.origin.join("h.db"), "DELETE", "same", 3));
    fs::copy(scene.origin.join("h.db"), scene.data.join("h.db")).expect("copied");
    drop(database(&scene.origin.join("log.db"), "WAL", "same", 3));
    fs::copy(scene.origin.join("log.db"), scene.data.join("log.db")).expect("copied");
    let conn = rusqlite::Connection::open(scene.data.join("log.db")).expect("opened");
    scene::insert(&conn, "later", 3);
    fs::copy(scene.data.join("log.db-wal"), scene.data.join("saved")).expect("copied");
    drop(conn);
    // The file alone is the same again; with its log it is another database.
    fs::copy(scene.origin.join("log.db"), scene.data.join("log.db")).expect("copied");
    fs::rename(scene.data.join("saved"), scene.data.join("log.db-wal")).expect("renamed");
    assert!(scene.state()["log.db"].contains("later00"));
    let inode = |name: &str| fs::metadata(scene.data.join(name)).expect("there").ino();
    let before = ["same.txt", "h.db"].map(inode);
    let done = scene.replace(&options(false)).expect("replaced");
    assert_eq!(["same.txt", "h.db"].map(inode), before);
    assert_eq!((done.files, done.unchanged), (1, 2));
    let (found, wanted) = (scene.data.join("same.txt"), scene.origin.join("same.txt"));
    let attributes = |path: &Path| fs::metadata(path).map(|meta| (meta.mode(), meta.mtime(), meta.mtime_nsec()));
    assert_eq!(attributes(&found).expect("there"), attributes(&wanted).expect("there"));
    assert!(scene.state()["log.db"].starts_with("ok: 3 rows same00"));
}

#[test]
fn two_restores_at_once() {
    let scene = Scene::empty();
    let first = Staging::begin(&scene.data).expect("begun");
    fs::write(first.root().join("a"), "new").expect("staged");
    let error = Staging::begin(&scene.data).map(|_| ()).expect_err("refused");
    assert_eq!(error.exit_code(), 11);
    assert!(error.to_string().contains(".nbak-restore.lock"), "{error}");
    assert!(first.root().join("a").exists(), "the second did not sweep the first");
    assert!(recover(&scene.data, &nbak::snapshot::progress::Silent).expect("no intent").is_none());
    first.discard().expect("discarded");
    assert!(!scene.data.join(".nbak-restore").exists());
    // What a crash left without an intent is swept.
    fs::create_dir_all(scene.data.join(".nbak-restore/new/left/over")).expect("made");
    fs::set_permissions(scene.data.join(".nbak-restore/new/left"), fs::Permissions::from_mode(0o500)).expect("set");
    let next = Staging::begin(&scene.data).expect("begun");
    assert_eq!(fs::read_dir(next.root()).expect("a list").count(), 0);
    assert_eq!(fs::metadata(scene.data.join(".nbak-restore")).expect("there").mode() & 0o777, 0o700);
    drop(next);
    assert!(!scene.data.join(".nbak-restore").exists());
    // A link in place of the staging, or of the lock, leads nowhere.
    let outside = tempfile::TempDir::new().expect("a folder");
    symlink(outside.path(), scene.data.join(".nbak-restore")).expect("a link");
    assert!(Staging::begin(&scene.data).is_err());
    fs::remove_file(scene.data.join(".nbak-restore")).expect("removed");
    fs::remove_file(scene.data.join(".nbak-restore.lock")).expect("removed");
    symlink(outside.path().join("lock"), scene.data.join(".nbak-restore.lock")).expect("a link");
    assert!(Staging::begin(&scene.data).is_err());
    assert_eq!(fs::read_dir(outside.path()).expect("a list").count(), 0);
}

#[test]
fn a_damaged_journal_changes_nothing() {
    let template = a_scene("closed");
    let scene = (0..MANY)
        .map(|kill| {
            let scene = template.again();
            scene.child("replace", kill, false);
            scene
        })
        .find(Scene::is_pending)
        .expect("there is an intent");
    let path = scene.data.join(".nbak-restore/intent");
    let good = fs::read(&path).expect("read");
    let mut bad = good.clone();
    bad[40] ^= 1;
    fs::write(&path, bad).expect("written");
    let before = scene.bytes();
    let error = scene.recover().expect_err("damaged");
    assert_eq!(error.exit_code(), 13);
    assert!(error.to_string().contains("intent"), "{error}");
    assert_eq!(scene.bytes(), before);
    fs::write(&path, good).expect("written");
    scene.recover().expect("recovered").expect("it was pending");
    assert_eq!(scene.state(), restored(&template));
}

#[test]
fn who_still_has_a_replaced_file_open_is_told() {
    let scene = a_scene("closed");
    let held = fs::File::open(scene.data.join("notes.txt")).expect("opened");
    let mut other = std::process::Command::new("sleep");
    let mut other = other.arg("60").stdin(held).spawn().expect("a process that has it open");
    let done = scene.replace(&options(false)).expect("replaced");
    other.kill().expect("ended");
    other.wait().expect("ended");
    // A child of another test may have it for a moment, too.
    assert!(done.holders.contains(&(other.id(), "sleep".to_owned())), "{:?}", done.holders);
}

struct Count<'a>(&'a AtomicI64, &'a AtomicI64);
impl nbak::snapshot::progress::Progress for Count<'_> {
    fn begin(&self, _: &str, total: u64) {
        self.1.store(total as i64, Ordering::SeqCst);
    }
    fn advance(&self, by: u64) {
        self.0.fetch_add(by as i64, Ordering::SeqCst);
    }
    fn end(&self) {}
}

#[test]
fn steps_are_counted_before_they_are_taken() {
    let scene = a_scene("full-wal");
    let (count, told) = (AtomicI64::new(0), AtomicI64::new(0));
    scene.replace_with(&options(false), &Count(&count, &told)).expect("replaced");
    let (count, told) = (count.into_inner(), told.into_inner());
    assert!((count - told).abs() <= 4, "{count} steps, {told} were told");
}
