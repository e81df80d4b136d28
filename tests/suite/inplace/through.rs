//! A database that was written into while a program had it open, and what becomes of it before the restore is finished.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::json;

use super::beside;
use super::interrupted::Half;
use super::scene::{Opener, database, insert, is_half_at, kills, rows, scene as a_scene};

/// A restore that was killed when one database was written into, and the rest was still to come. The program has ended.
fn written_into() -> Half {
    let template = a_scene("closed");
    let half = kills().find_map(|kill| {
        let scene = template.again();
        let (done, left) = (scene.data.join("h.db"), scene.data.join("second.db"));
        let _opener = Opener::of(&done);
        scene.child("replace", kill, true);
        if scene.is_pending() {
            is_half_at(kill);
        }
        let is_noted = scene.data.join(".nbak-restore/old/h.db").exists();
        (is_noted && rows(&left).expect("it opens").contains("old")).then_some(Half { scene, done, left })
    });
    half.expect("it passes there")
}

#[test]
fn what_became_of_a_database_that_was_written_into_is_noticed() {
    let remove = |path: &Path| {
        for path in [path.to_path_buf(), beside(path, "-wal"), beside(path, "-shm")] {
            let _ = fs::remove_file(path);
        }
    };
    let deeds: [&dyn Fn(&Path); 4] = [
        &|path| remove(path),
        &|path| {
            remove(path);
            drop(database(path, "WAL", "fresh", 2));
        },
        &|path| insert(&Connection::open(path).expect("opened"), "since", 1),
        &|path| fs::write(path, "no database").expect("written"),
    ];
    for (nth, deed) in deeds.into_iter().enumerate() {
        let half = written_into();
        deed(&half.done);
        let found = fs::read(&half.done).ok();
        for args in [&["snapshot"][..], &["backup"]] {
            let run = half.run(args);
            assert!(run.code == 3 && run.err.contains("written since: h.db"), "{nth}, {args:?}: {run:?}");
            assert!(half.scene.is_pending() && rows(&half.left).expect("it opens").contains("old"));
        }
        let (code, said) = half.json(&["restore", "--resume", "--yes"]);
        assert_eq!((code, &said[0]["written_since"]), (3, &json!(["h.db"])), "{nth}: {said:?}");
        assert!(rows(&half.left).expect("it opens").contains("new"), "{nth}");
        assert_eq!(fs::read(&half.done).ok(), found, "{nth}: it is left");
    }
}

/// It holds what was written into it, whatever its log was when the program ended.
#[test]
fn one_that_holds_what_it_was_given_is_in_nobodys_way() {
    let half = written_into();
    let run = half.run(&["snapshot"]);
    assert!(run.code == 0 && run.err.contains("was finished"), "{run:?}");
    let half = written_into();
    let (code, said) = half.json(&["restore", "--resume", "--yes"]);
    assert_eq!((code, &said[0]["written_since"], &said[0]["through"]), (0, &json!([]), &json!(["h.db"])), "{said:?}");
}
