//! What the configuration of today leaves out, and the snapshot or the backup has: it is restored, and what it replaces
//! is in the safety backup. What cannot be restored though it was asked for is named, and is no plain success.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Place, assert_equal, tree};

/// Globs that leave out `cache/x` one way or the other.
const GLOBS: [&str; 4] = ["cache/", "cache/**", "x", "cache/x"];

fn write(place: &Place, path: &str, text: &str) {
    let path = place.data.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, text).expect("written");
}

fn read(folder: &Path, path: &str) -> Option<String> {
    fs::read_to_string(folder.join(path)).ok()
}

fn configure(place: &Place, config: &str) {
    fs::write(place.data.join("config.json"), config).expect("written");
}

fn exclude(place: &Place, globs: &str) {
    configure(place, &format!(r#"{{"nbak": {{"exclude": {globs}}}}}"#));
}

/// What `args` say as JSON, with exit code `code`.
fn json(place: &Place, code: i32, args: &[&str]) -> Value {
    let run = place.run(&[args, &["--json"]].concat());
    assert_eq!(run.code, code, "{args:?}: {run:?}");
    serde_json::from_str(&run.out).expect("JSON")
}

/// A snapshot and a backup of when nothing was left out; `cache/x` has changed since, and `cache/new` is new.
fn taken() -> (Place, String, String) {
    let place = Place::empty();
    write(&place, "notes", "notes");
    write(&place, "cache/x", "of then");
    write(&place, "cache/y", "the same");
    let backup = json(&place, 0, &["backup"]);
    let [id, name] = ["snapshot", "name"].map(|key| backup[key].as_str().expect("text").to_owned());
    write(&place, "cache/x", "of today");
    write(&place, "cache/new", "new");
    (place, id, name)
}

fn safety(said: &Value) -> PathBuf {
    PathBuf::from(said["safety_backup"].as_str().expect("a safety backup"))
}

#[test]
fn a_path_that_is_named_is_restored_and_what_it_replaces_is_kept() {
    for glob in GLOBS {
        for is_backup in [false, true] {
            let (place, id, name) = taken();
            exclude(&place, &format!("[{glob:?}]"));
            let of_snapshot = ["restore", &id, "cache/x", "--in-place", "--yes"];
            let of_backup = ["backup", "restore", &name, "--yes", "--only", "cache/x"];
            let said = json(&place, 0, if is_backup { &of_backup[..] } else { &of_snapshot });
            assert_eq!((&said["restored_files"], &said["skipped"]), (&1.into(), &serde_json::json!([])), "{glob}");
            assert_eq!(read(&place.data, "cache/x").as_deref(), Some("of then"), "{glob}");
            assert_eq!(read(&place.data, "cache/new").as_deref(), Some("new"), "{glob}");
            let safety = safety(&said);
            assert_eq!(read(&safety, "cache/x").as_deref(), Some("of today"), "{glob}");
            // It takes along nothing else of what is left out.
            let is_out = glob.starts_with("cache/") && !glob.ends_with('x');
            assert_eq!(read(&safety, "cache/new").is_none(), is_out, "{glob}");
            assert_eq!(read(&safety, "notes").as_deref(), Some("notes"), "{glob}");

            // And back, by what was kept; the snapshots from here on leave it out as before.
            let name = safety.file_name().expect("a name").to_str().expect("text");
            json(&place, 0, &["backup", "restore", name, "--yes"]);
            assert_eq!(read(&place.data, "cache/x").as_deref(), Some("of today"), "{glob}");
            place.ok(&["snapshot"]);
            let (run, target) = place.restore("latest", "after");
            assert_eq!((run.code, read(&target, "cache/x")), (0, None), "{glob}");
        }
    }
}

#[test]
fn the_whole_of_a_snapshot_is_the_whole_and_what_it_lacks_stays() {
    for is_backup in [false, true] {
        let (place, id, name) = taken();
        exclude(&place, r#"["cache/", "*.tmp"]"#);
        write(&place, "scratch.tmp", "mine");
        write(&place, "other/scratch.tmp", "mine");
        let of_snapshot = ["restore", &id, "--in-place", "--yes"];
        let of_backup = ["backup", "restore", &name, "--yes"];
        let said = json(&place, 0, if is_backup { &of_backup[..] } else { &of_snapshot });
        assert_eq!(read(&place.data, "cache/x").as_deref(), Some("of then"));
        for (path, text) in [("cache/new", "new"), ("scratch.tmp", "mine"), ("other/scratch.tmp", "mine")] {
            assert_eq!(read(&place.data, path).as_deref(), Some(text), "{path}");
        }
        assert_eq!((&said["removed"], &said["skipped"]), (&serde_json::json!([]), &serde_json::json!([])));
        assert_eq!(said["extra"], serde_json::json!(["config.json", "other"]), "{said}");
        let safety = safety(&said);
        assert_eq!(read(&safety, "cache/x").as_deref(), Some("of today"));
        assert_eq!((read(&safety, "cache/new"), read(&safety, "scratch.tmp")), (None, None));
    }
}

/// All that is live is left out: there is something to be backed up all the same.
#[test]
fn where_nothing_else_is_live_the_safety_backup_has_what_goes() {
    let (place, id, _) = taken();
    for path in ["notes", "cache/y", "cache/new"] {
        fs::remove_file(place.data.join(path)).expect("removed");
    }
    exclude(&place, r#"["/cache", "*.json"]"#);
    let said = json(&place, 0, &["restore", &id, "cache/x", "--in-place", "--yes"]);
    assert_eq!(read(&place.data, "cache/x").as_deref(), Some("of then"));
    assert_eq!(read(&safety(&said), "cache/x").as_deref(), Some("of today"));
}

/// A log that is left out would be played into the graph that comes.
#[test]
fn of_an_old_knowledge_graph_nothing_stays_beside_a_new_one() {
    let place = Place::empty();
    write(&place, "notes", "notes");
    write(&place, "knowledge-graph", "of then");
    let id = json(&place, 0, &["snapshot"])["snapshot"].as_str().expect("an id").to_owned();
    write(&place, "knowledge-graph", "of today");
    write(&place, "knowledge-graph.wal", "its log");
    exclude(&place, r#"["knowledge-graph*"]"#);
    let said = json(&place, 0, &["restore", &id, "--in-place", "--yes"]);
    assert_eq!(read(&place.data, "knowledge-graph").as_deref(), Some("of then"));
    assert_eq!(read(&place.data, "knowledge-graph.wal"), None, "{said}");
    let safety = safety(&said);
    assert_eq!(read(&safety, "knowledge-graph").as_deref(), Some("of today"));
    assert_eq!(read(&safety, "knowledge-graph.wal").as_deref(), Some("its log"));
}

/// Where a file is to come stands a folder that was left out of snapshots: nobody asked for that to go.
#[test]
fn a_folder_that_is_left_out_does_not_go_for_a_file() {
    let place = Place::empty();
    write(&place, "built", "a file");
    let id = json(&place, 0, &["snapshot"])["snapshot"].as_str().expect("an id").to_owned();
    fs::remove_file(place.data.join("built")).expect("removed");
    write(&place, "built/modules/a", "large");
    exclude(&place, r#"["modules/"]"#);
    let before = tree(&place.data.join("built"));
    let run = place.run(&["restore", &id, "--in-place", "--yes"]);
    assert!(run.code == 1 && run.err.contains("move it away; nothing was changed"), "{run:?}");
    assert_equal(&before, &tree(&place.data.join("built")));
}

/// A folder that was like any other, and holds the backups now.
#[test]
fn what_is_never_restored_is_named_and_is_no_plain_success() {
    let place = Place::empty();
    write(&place, "notes", "of then");
    write(&place, "kept/x", "of then");
    let id = json(&place, 0, &["snapshot"])["snapshot"].as_str().expect("an id").to_owned();
    write(&place, "notes", "of today");
    write(&place, "kept/x", "of today");
    configure(&place, r#"{"backup_dir": "kept"}"#);
    for paths in [&["kept/x"][..], &["kept", "notes"], &[]] {
        let args = [&["restore", &id][..], paths, &["--in-place", "--yes"]].concat();
        let said = json(&place, 3, &args);
        assert_eq!(said["skipped"], serde_json::json!(["kept"]), "{paths:?}: {said}");
        assert_eq!(read(&place.data, "kept/x").as_deref(), Some("of today"), "{paths:?}");
    }
    assert_eq!(read(&place.data, "notes").as_deref(), Some("of then"));
    let run = place.run(&["restore", &id, "kept/x", "--in-place", "--yes"]);
    assert!(run.code == 3 && run.err.contains("not restored, and left as it is: kept"), "{run:?}");
}
