//! What a person meets at night: a database that is none any more, a log that somebody left beside a copy, a link to
//! another disk, a configuration that a restore puts back, and what is printed to go on with.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use nbak::codec::hex;

use crate::common::{KEY, Place, Run};
use crate::daemon_common::json_lines;

const LOG_MAGIC: [u8; 4] = [0x37, 0x7f, 0x06, 0x82];

fn place() -> Place {
    Place { key: Some(KEY), ..Place::empty() }
}

fn put(place: &Place, path: &str, bytes: impl AsRef<[u8]>) {
    let to = place.data.join(path);
    fs::create_dir_all(to.parent().expect("a folder")).expect("made");
    fs::write(to, bytes).expect("written");
}

fn snapshot(place: &Place) -> String {
    id(&place.ok(&["snapshot", "--json"]))
}

fn id(run: &Run) -> String {
    json_lines(run)[0]["snapshot"].as_str().expect("an id").to_owned()
}

fn database(path: &Path, mode: &str) -> Connection {
    let conn = Connection::open(path).expect("opened");
    conn.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).expect("set");
    conn.execute_batch("PRAGMA wal_autocheckpoint=0; CREATE TABLE IF NOT EXISTS t(a TEXT)").expect("made");
    grow(&conn, "first");
    conn
}

fn grow(conn: &Connection, what: &str) {
    for nth in 0..200 {
        conn.execute("INSERT INTO t VALUES(?)", [format!("{what} {nth} {}", "-".repeat(200))]).expect("written");
    }
}

fn rows(path: &Path) -> rusqlite::Result<i64> {
    let conn = Connection::open(path)?;
    let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    assert_eq!(sound, "ok");
    conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}{end}", path.display()))
}

/// Without its header a database is captured, restored and verified like any file.
#[test]
fn a_database_that_is_none_any_more_is_told_and_is_no_proof() {
    let place = place();
    let path = place.data.join("h.db");
    drop(database(&path, "DELETE"));
    let whole = snapshot(&place);
    place.ok(&["drill", &whole]);
    let mut broken = fs::read(&path).expect("read");
    broken[..4096].fill(0);
    fs::write(&path, &broken).expect("written");
    let run = place.ok(&["snapshot", "--json"]);
    assert!(run.err.contains("h.db was a database in snapshot") && run.err.contains(&whole[..8]), "{run:?}");
    let first = id(&run);
    put(&place, "zz", "later");
    let run = place.ok(&["snapshot", "--json"]);
    assert!(!run.err.contains("was a database"), "it is said once: {run:?}");
    for snapshot in [&first, &id(&run)] {
        let run = place.run(&["drill", snapshot]);
        assert!(run.code == 13 && run.out.contains("none any more") && run.out.contains(&whole[..8]), "{run:?}");
    }
    place.ok(&["restore", &whole, "h.db", "--in-place", "--yes"]);
    snapshot(&place);
    place.ok(&["drill"]);
    // One that is gone, or is a folder now, is none that is broken.
    fs::remove_file(&path).expect("removed");
    snapshot(&place);
    place.ok(&["drill"]);
}

/// An application's backup of a complete copy, beside which somebody put the log of the live one.
#[test]
fn a_log_beside_a_complete_copy_is_left_out() {
    let place = Place::empty();
    let live = place.data.join("h.db");
    let conn = database(&live, "WAL");
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("done");
    conn.execute_batch("DELETE FROM t WHERE rowid % 2; CREATE TABLE u(a)").expect("written");
    let backup = place.data.join("backups/2026-11-22T21124938Z");
    fs::create_dir_all(&backup).expect("made");
    conn.execute("VACUUM INTO ?", [backup.join("h.db").to_str().expect("UTF-8")]).expect("copied");
    fs::copy(beside(&live, "-wal"), backup.join("h.db-wal")).expect("copied");
    drop(conn);
    let hash = |name: &str| -> String { hex(&Sha256::digest(fs::read(backup.join(name)).expect("read"))) };
    let files: Vec<_> = [("h.db", "sqlite"), ("h.db-wal", "file")]
        .iter()
        .map(|(name, kind)| {
            let size = fs::metadata(backup.join(name)).expect("there").len();
            json!({"path": name, "size_bytes": size, "checksum_sha256": hash(name), "type": kind})
        })
        .collect();
    let mut sums = [hash("h.db"), hash("h.db-wal")];
    sums.sort();
    let sum = hex(&Sha256::digest(sums.join(":")));
    let manifest = json!({
        "version": "1.0.0", "created_at": "2026-11-22T21:12:49.380Z", "nodyn_dir": place.data, "encrypted": false,
        "files": files, "checksum": sum,
    });
    fs::write(backup.join("manifest.json"), manifest.to_string()).expect("written");
    let run = place.run(&["backup", "verify"]);
    assert!(run.code == 0 && run.err.contains("h.db-wal"), "{run:?}");
    for only in [&[][..], &["--only", "h.db"]] {
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(beside(&live, end));
        }
        let args = ["backup", "restore", "2026-11-22T21124938Z", "--yes", "--allow-unsigned"];
        let run = place.run(&[&args[..], only].concat());
        assert!(run.code == 3 && run.err.contains("h.db-wal"), "{run:?}");
        assert!(!beside(&live, "-wal").exists());
        assert_eq!(rows(&live).expect("sound"), 100, "{run:?}");
    }
}

/// Somebody copied a compact copy over the live database, and the old log stayed beside it.
#[test]
fn what_nbak_itself_makes_beside_a_database_is_no_programs() {
    let place = place();
    let live = place.data.join("h.db");
    let conn = database(&live, "WAL");
    grow(&conn, "more");
    let copy = place.path("copy.db");
    conn.execute("VACUUM INTO ?", [copy.to_str().expect("UTF-8")]).expect("copied");
    let log = fs::read(beside(&live, "-wal")).expect("read");
    drop(conn);
    let id = snapshot(&place);
    for _ in 0..2 {
        fs::copy(&copy, &live).expect("copied");
        fs::write(beside(&live, "-wal"), &log).expect("written");
        let run = place.run(&["restore", &id, "--in-place", "--yes"]);
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(rows(&live).expect("sound"), 400);
    }
}

/// It was moved to another disk since, and a program has it open by that.
#[test]
fn a_database_behind_a_link_that_a_program_has_open_is_not_replaced() {
    let place = place();
    let live = place.data.join("h.db");
    drop(database(&live, "WAL"));
    let id = snapshot(&place);
    let moved = place.path("moved.db");
    fs::rename(&live, &moved).expect("moved");
    symlink(&moved, &live).expect("linked");
    let conn = Connection::open(&live).expect("opened");
    grow(&conn, "more");
    for more in [&[][..], &["--into-live"]] {
        let run = place.run(&[&["restore", &id, "--in-place", "--yes"][..], more].concat());
        assert!(run.code == 11 && run.err.contains("h.db") && run.err.contains("nothing was changed"), "{run:?}");
        assert!(live.is_symlink() && !place.data.join("backups").exists());
    }
    // One that stays is in nobody's way.
    put(&place, "zz", "first");
    let linked = snapshot(&place);
    put(&place, "zz", "later");
    place.ok(&["restore", &linked, "--in-place", "--yes"]);
    assert!(live.is_symlink() && fs::read(place.data.join("zz")).expect("read") == b"first");
    drop(conn);
    place.ok(&["restore", &id, "--in-place", "--yes"]);
    assert_eq!((rows(&live).expect("sound"), rows(&moved).expect("sound")), (200, 400));
}

/// What is as it should be is not replaced, whoever has it open.
#[test]
fn who_has_open_what_stays_is_in_nobodys_way() {
    let place = place();
    let live = place.data.join("r.db");
    drop(database(&live, "DELETE"));
    put(&place, "vault.db", b"sealed".repeat(2000));
    put(&place, "note", "first");
    let id = snapshot(&place);
    put(&place, "vault.db-wal", "");
    put(&place, "vault.db-shm", vec![0; 32768]);
    let open = fs::File::open(place.data.join("vault.db")).expect("opened");
    let conn = Connection::open(&live).expect("opened");
    assert!(conn.query_row("SELECT count(*) FROM t", [], |_| Ok(())).is_ok());
    for more in [&[][..], &["--into-live"]] {
        put(&place, "note", "later");
        let run = place.run(&[&["restore", &id, "--in-place", "--yes"][..], more].concat());
        assert_eq!(run.code, 0, "{more:?}: {run:?}");
        assert_eq!(fs::read(place.data.join("note")).expect("read"), b"first");
    }
    // It is replaced, and then it is.
    put(&place, "vault.db-wal", [&LOG_MAGIC[..], &[7; 4000]].concat());
    let run = place.run(&["restore", &id, "--in-place", "--yes"]);
    assert!(run.code == 11 && run.err.contains("vault.db"), "{run:?}");
    drop(open);
}

/// What a restore made of what it replaced is not what the next one without a name means.
#[test]
fn a_restore_without_a_name_does_not_undo_the_one_before() {
    let place = place();
    put(&place, "zz", "first");
    let id = snapshot(&place);
    put(&place, "zz", "later");
    place.ok(&["restore", &id, "--in-place", "--yes"]);
    let run = place.run(&["backup", "restore", "--yes"]);
    assert!(run.code == 2 && run.err.contains("what a restore made") && run.err.contains("nothing was"), "{run:?}");
    assert_eq!(fs::read(place.data.join("zz")).expect("read"), b"first");
}

/// The folder of backups is named in what a restore puts back: the way back that is printed leads there all the same.
#[test]
fn the_way_back_leads_to_where_the_safety_backup_is() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    let run = |args: &[&str]| {
        let mut command = place.command(args);
        command.env_remove("NBAK_REPO");
        Run::of(command)
    };
    put(&place, "zz", "first");
    put(&place, "config.json", "{}");
    assert_eq!(run(&["snapshot"]).code, 0);
    fs::rename(place.data.join("backups"), place.path("disk")).expect("moved");
    put(&place, "config.json", json!({"backup_dir": place.path("disk")}).to_string());
    put(&place, "zz", "later");
    let list = run(&["snapshots", "--json"]);
    let id = json_lines(&list)[0]["snapshot"].as_str().expect("an id").to_owned();
    let restored = run(&["restore", &id, "--in-place", "--yes"]);
    assert!(restored.code == 0 && restored.err.contains("put `backup_dir` back"), "{restored:?}");
    let command = restored.err.split('`').nth(1).expect("a command").to_owned();
    let args: Vec<&str> = command.split(' ').skip(1).chain(["--yes"]).collect();
    let back = run(&args);
    assert!(back.code == 0, "{command}: {back:?}");
    assert_eq!(fs::read(place.data.join("zz")).expect("read"), b"later");
}

/// One path was asked for: the command that is printed is about that.
#[test]
fn a_command_to_give_again_has_the_paths() {
    let place = Place { key: Some(KEY), ..Place::empty() };
    put(&place, "a b", "first");
    put(&place, "zz", "first");
    let id = snapshot(&place);
    put(&place, "a b", "later");
    place.ok(&["backup"]);
    let lock = place.data.join("backups/.nbak-backup.lock");
    fs::remove_file(&lock).expect("removed");
    fs::create_dir(&lock).expect("made");
    let run = place.run(&["restore", &id, "a b", "--in-place", "--yes"]);
    assert!(run.code != 0 && run.err.contains(&format!("restore {} --in-place 'a b'`", &id[..8])), "{run:?}");
}

/// A restore that was killed before it changed anything leaves a copy of it all, and that is said.
#[test]
fn what_a_killed_restore_had_staged_is_called_left_over() {
    let place = place();
    put(&place, "zz", "first");
    snapshot(&place);
    put(&place, ".nbak-restore/new/zz", "staged");
    let doctor = place.run(&["doctor"]);
    assert!(doctor.out.contains("left what it had staged"), "{doctor:?}");
    place.ok(&["snapshot"]);
    assert!(!place.run(&["doctor"]).out.contains("left what it had staged"));
}
