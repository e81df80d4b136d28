//! The end mark against the transaction itself: a copy made by the backup API *within the same transaction* must
//! be the image, in every round, while a writer commits as fast as it can.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::source::sqlite::copy;

pub(in crate::source::sqlite) struct OnDrop<'a>(pub(in crate::source::sqlite) &'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Commits as fast as it can.
pub(in crate::source::sqlite) fn write(path: &Path, stop: &AtomicBool, checkpoints: bool) {
    let app = Connection::open(path).expect("open");
    app.busy_timeout(Duration::from_secs(10)).expect("timeout");
    app.execute_batch("PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0").expect("pragmas");
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let sql = match n % 50 {
            7 if checkpoints => "PRAGMA wal_checkpoint(PASSIVE)",
            21 if checkpoints => "PRAGMA wal_checkpoint(TRUNCATE)",
            33 => "DELETE FROM t WHERE id > 40; PRAGMA incremental_vacuum",
            _ => "INSERT INTO t(pad) VALUES (randomblob(900)); UPDATE t SET pad=randomblob(700) WHERE id%9=0",
        };
        app.execute_batch(sql).expect("write");
    }
}

#[test]
fn every_image_is_the_transactions_own() {
    let (dir, scratch) = (tempfile::TempDir::new().expect("dir"), tempfile::TempDir::new().expect("dir"));
    let path = dir.path().join("app.db");
    let app = Connection::open(&path).expect("open");
    app.execute_batch(
        "PRAGMA page_size=1024; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL;
         CREATE TABLE t(id INTEGER PRIMARY KEY, pad BLOB)",
    )
    .expect("make");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopping = OnDrop(&stop);
        scope.spawn(|| write(&path, &stop, true));
        scope.spawn(|| write(&path, &stop, false));
        let (mut alone, mut overlaid, mut unproven) = (0, 0, 0);
        for round in 0..400 {
            let Ok((mut live, shape)) = Live::open(&path, HotJournal::RollBack).expect("open") else {
                unproven += 1;
                assert!(unproven < 10, "round {round}: the end mark is hardly ever proven");
                continue;
            };
            match &live.kind {
                Kind::Wal { ground: Ground { frozen: Some(_), .. }, .. } => alone += 1,
                Kind::Wal { ground: Ground { frozen: None, .. }, .. } => overlaid += 1,
                Kind::Rollback { .. } => panic!("not in WAL mode"),
            }
            let mut image = vec![0xee; shape.len as usize];
            for (i, part) in image.chunks_mut(8 * 1024).enumerate() {
                live.read_at(i as u64 * 8 * 1024, part).expect("read");
            }
            let to = scratch.path().join("copy.db");
            std::fs::write(&to, "").expect("create");
            copy::copy(&live.conn, &to).expect("copy");
            let mut expected = std::fs::read(&to).expect("read");
            // What the backup API sets in the copy's page 1.
            for at in [24, 40, 92, 96] {
                expected[at..at + 4].copy_from_slice(&image[at..at + 4]);
            }
            assert_eq!(image.len(), expected.len(), "round {round}: {:?}", live.kind);
            assert!(image == expected, "round {round}: {:?}", live.kind);
            assert!(live.finish().expect("finish"), "round {round}");
        }
        // Which kind a round gets is chance; there are enough rounds for both on all but the strangest of days.
        assert!(alone + overlaid > 0, "{alone} alone, {overlaid} overlaid");
    });
}
