//! What the log says against what is there: the earlier image with the changed pages put into it must be the later
//! one; and where the log is not the same any more, it must say nothing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::*;
use crate::source::sqlite::live::tests::{OnDrop, write};
use crate::source::sqlite::{Database, HotJournal, Opened, copy};

/// A database of `page_size` with a log that nobody checkpoints but us.
fn app(path: &Path, page_size: u32) -> Connection {
    let app = Connection::open(path).expect("open");
    app.execute_batch(&format!(
        "PRAGMA page_size={page_size}; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL;
         PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, pad BLOB);
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<200)
         INSERT INTO t SELECT x, randomblob(500) FROM n"
    ))
    .expect("make");
    app
}

fn no_scratch() -> io::Result<PathBuf> {
    panic!("no copy should be needed")
}

/// The whole image, and where it ends.
fn whole(path: &Path) -> (Vec<u8>, WalMark) {
    let mut database = Database::open_live(path).expect("live");
    let mut image = vec![0xee; database.len() as usize];
    database.read_at(0, &mut image).expect("read");
    let mark = database.wal_mark().expect("a log");
    assert!(database.finish().expect("finish"));
    (image, mark)
}

fn since(path: &Path, mark: &WalMark) -> Option<Changes> {
    match Database::open_since(path, &no_scratch, HotJournal::RollBack, mark).expect("open") {
        Opened::Changes(changes) => Some(*changes),
        Opened::Whole(_) => None,
    }
}

/// What `changes` make of an earlier image.
fn patched(mut image: Vec<u8>, changes: &Changes) -> Vec<u8> {
    let page_size = changes.mark().page_size as usize;
    image.resize(changes.mark().pages as usize * page_size, 0);
    for page in changes.pages() {
        let at = (page as usize - 1) * page_size;
        changes.read_page(page, &mut image[at..at + page_size]).expect("a page");
    }
    image
}

const STEPS: [(&str, bool); 14] = [
    ("SELECT 1", true),
    ("UPDATE t SET pad=randomblob(400) WHERE id%50=0", true),
    ("BEGIN IMMEDIATE; COMMIT", true),
    ("INSERT INTO t(pad) VALUES(randomblob(300000))", true),
    ("PRAGMA wal_checkpoint(PASSIVE)", true),
    ("UPDATE t SET pad=NULL WHERE id%3=0", false),
    ("DELETE FROM t WHERE id>150; PRAGMA incremental_vacuum", true),
    ("INSERT INTO t(pad) VALUES(zeroblob(100000))", true),
    ("VACUUM", true),
    // Not before the next commit is it begun anew.
    ("PRAGMA wal_checkpoint(RESTART)", true),
    ("INSERT INTO t(pad) VALUES(randomblob(9000))", false),
    ("PRAGMA wal_checkpoint(TRUNCATE)", false),
    ("DELETE FROM t; PRAGMA incremental_vacuum", true),
    ("UPDATE t SET pad=NULL", true),
];

#[test]
fn changes_make_the_later_image_of_the_earlier_one() {
    let dir = TempDir::new().expect("dir");
    for page_size in [512, 4096, 65_536] {
        for held in [false, true] {
            let path = dir.path().join(format!("{page_size}-{held}.db"));
            let app = app(&path, page_size);
            let old = Connection::open(&path).expect("open");
            let mut before = whole(&path);
            for (nth, (step, told)) in STEPS.iter().enumerate() {
                let what = format!("{page_size} {held} {nth} {step}");
                if held && nth.is_multiple_of(3) {
                    // An older reader: checkpoints stop short, and the log is not begun anew.
                    old.execute_batch("COMMIT").ok();
                    old.execute_batch("BEGIN; SELECT count(*) FROM t").expect("read");
                }
                app.busy_timeout(std::time::Duration::ZERO).expect("timeout");
                app.execute_batch(step).expect(step);
                let after = whole(&path);
                let changes = since(&path, &before.1);
                assert!(changes.is_some() || held || !told, "{what}: the log should say it");
                if let Some(changes) = changes {
                    assert_eq!(changes.mark(), after.1, "{what}");
                    assert!(patched(before.0.clone(), &changes) == after.0, "{what}");
                    assert!(changes.finish().expect("finish"), "{what}");
                }
                before = after;
            }
        }
    }
}

#[test]
fn another_mark_says_nothing() {
    let dir = TempDir::new().expect("dir");
    let path = dir.path().join("app.db");
    let app = app(&path, 4096);
    let (_, mark) = whole(&path);
    let unlike = |mark: WalMark| {
        let [s, t] = mark.salts;
        let [c, d] = mark.checksum;
        [
            WalMark { salts: [s ^ 1, t], ..mark },
            WalMark { salts: [s, t ^ 1], ..mark },
            WalMark { salts: [0, 0], ..mark },
            WalMark { checksum: [c ^ 1, d], ..mark },
            WalMark { checksum: [c, d ^ 1], ..mark },
            WalMark { mx_frame: mark.mx_frame - 1, ..mark },
            WalMark { mx_frame: mark.mx_frame + 1, ..mark },
            WalMark { mx_frame: u32::MAX, ..mark },
            WalMark { mx_frame: 0, page_size: 8192, ..mark },
            WalMark { pages: mark.pages + 1, ..mark },
            WalMark { page_size: 512, ..mark },
        ]
    };
    for step in ["SELECT 1", "UPDATE t SET pad=NULL WHERE id=7", "PRAGMA wal_checkpoint(PASSIVE)"] {
        app.execute_batch(step).expect(step);
        assert!(since(&path, &mark).is_some(), "{step}");
        for wrong in unlike(mark) {
            assert!(since(&path, &wrong).is_none(), "{step}: {wrong:?}");
        }
    }
    // A log without frames: there is nothing but its salts, and the file.
    app.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("checkpoint");
    let (_, mark) = whole(&path);
    assert_eq!(mark.mx_frame, 0);
    assert!(since(&path, &mark).expect("nothing changed").pages().is_empty());
    assert!(since(&path, &WalMark { pages: mark.pages - 1, ..mark }).is_none());
}

/// Frames that follow on one another, and are not those that were there.
#[test]
fn a_log_that_was_written_differently_is_noticed() {
    let (dir, other) = (TempDir::new().expect("dir"), TempDir::new().expect("dir"));
    let path = dir.path().join("app.db");
    let app = app(&path, 4096);
    let copy = |to: &Path| {
        for suffix in ["", "-wal"] {
            std::fs::copy(format!("{}{suffix}", path.display()), to.join(format!("app.db{suffix}"))).expect("copied");
        }
    };
    copy(other.path());
    app.execute_batch("UPDATE t SET pad=randomblob(500) WHERE id<20").expect("write");
    let (_, mark) = whole(&path);
    // The same log, but for its end: as if a crash had taken that.
    let path = other.path().join("app.db");
    let app = Connection::open(&path).expect("open");
    app.execute_batch("PRAGMA wal_autocheckpoint=0; UPDATE t SET pad=randomblob(500) WHERE id<20").expect("write");
    app.execute_batch("UPDATE t SET pad=randomblob(500) WHERE id<20").expect("write");
    let (_, now) = whole(&path);
    assert!(now.salts == mark.salts && now.mx_frame > mark.mx_frame);
    assert!(since(&path, &mark).is_none());
}

#[test]
fn a_restart_while_it_is_read_does_not_matter() {
    let dir = TempDir::new().expect("dir");
    let path = dir.path().join("app.db");
    let app = app(&path, 4096);
    let (before, mark) = whole(&path);
    app.execute_batch("UPDATE t SET pad=randomblob(300) WHERE id%5=0; PRAGMA wal_checkpoint(PASSIVE)").expect("write");
    let (after, _) = whole(&path);
    // All of the log is in the file, so the next writer begins it anew, under the transaction.
    let changes = since(&path, &mark).expect("changes");
    assert!(changes.ground.frozen.is_some());
    app.execute_batch("UPDATE t SET pad=randomblob(900)").expect("write");
    assert_ne!(whole(&path).1.salts, mark.salts, "begun anew");
    assert!(patched(before, &changes) == after);
    // And who looks only now does not take the new frames for the old ones.
    assert!(changed(&changes.conn, &changes.ground, &mark).expect("read").is_none());
    assert!(changes.finish().expect("finish"));
}

/// `image` is what a copy shows that is made within the very transaction.
fn assert_own(changes: &Changes, image: &[u8], scratch: &Path, what: &str) {
    let to = scratch.join("copy.db");
    std::fs::write(&to, "").expect("create");
    copy::copy(&changes.conn, &to).expect("copy");
    let mut expected = std::fs::read(&to).expect("read");
    // What the backup API sets in the copy's page 1.
    for at in [24, 40, 92, 96] {
        expected[at..at + 4].copy_from_slice(&image[at..at + 4]);
    }
    assert!(image == expected, "{what}: {:?}", changes.ground);
}

/// A log that was written up to some length once, is begun anew, and has a few frames since: what is left of the first
/// one lies behind. The mark is in the middle of what the second one has so far.
fn second_log(path: &Path, page_size: u32) -> (Connection, Vec<u8>, WalMark) {
    let app = app(path, page_size);
    app.execute_batch(
        "INSERT INTO t(pad) VALUES(randomblob(2000000)); DELETE FROM t WHERE id>200; PRAGMA incremental_vacuum;
         PRAGMA wal_checkpoint(PASSIVE); INSERT INTO t(pad) VALUES(randomblob(300000))",
    )
    .expect("write");
    let (before, mark) = whole(path);
    app.execute_batch("UPDATE t SET pad=randomblob(300) WHERE id%40=0").expect("write");
    (app, before, mark)
}

#[test]
fn a_log_is_followed_over_its_beginning() {
    let dir = TempDir::new().expect("dir");
    let again = "UPDATE t SET pad=randomblob(200) WHERE id%60=0";
    let shrunk = "DELETE FROM t WHERE id>150; PRAGMA incremental_vacuum";
    let cases = [
        ("few frames", "", again),
        ("all of them are in the file", "", "UPDATE t SET pad=NULL WHERE id%60=0; PRAGMA wal_checkpoint(PASSIVE)"),
        (
            "the new one has none",
            "",
            "PRAGMA cache_size=2; BEGIN; UPDATE t SET pad=randomblob(400) WHERE id<100; ROLLBACK",
        ),
        ("cut off in the old log", shrunk, again),
        ("cut off in the old log, grown in the new", shrunk, "INSERT INTO t(pad) VALUES(zeroblob(100000))"),
        ("cut off in the new log", "", shrunk),
        ("grown in the old log", "INSERT INTO t(pad) VALUES(randomblob(200000))", again),
        ("vacuumed in the old log", "VACUUM", again),
    ];
    for page_size in [512, 4096, 65_536] {
        for (nth, (what, old, new)) in cases.into_iter().enumerate() {
            let path = dir.path().join(format!("{page_size}-{nth}.db"));
            let (app, before, mark) = second_log(&path, page_size);
            app.execute_batch(old).expect(old);
            app.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").expect("checkpoint");
            app.execute_batch(new).expect(new);
            let (after, now) = whole(&path);
            let Some(changes) = since(&path, &mark) else {
                // A few pages that large are all that there is.
                assert_eq!(page_size, 65_536, "{what}: {now:?} since {mark:?}");
                continue;
            };
            let anew = now.salts != mark.salts;
            assert!(anew || page_size == 65_536, "{what}");
            assert!(changes.changed.anew == anew && !changes.is_all_in_log(), "{page_size} {what}");
            assert!(patched(before, &changes) == after, "{page_size} {what}");
            assert!(changes.finish().expect("finish"));
        }
    }
}

#[test]
fn a_log_that_was_begun_anew_and_hides_something_says_nothing() {
    let dir = TempDir::new().expect("dir");
    let cases = [
        (
            "begun anew twice",
            "PRAGMA wal_checkpoint(PASSIVE); UPDATE t SET pad=NULL WHERE id=1;
                              PRAGMA wal_checkpoint(PASSIVE); UPDATE t SET pad=NULL WHERE id=2",
        ),
        (
            "the new one has come too far",
            "PRAGMA wal_checkpoint(PASSIVE); INSERT INTO t(pad) VALUES(randomblob(400000))",
        ),
        ("cut by a checkpoint", "PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET pad=NULL WHERE id=1"),
        (
            "cut to a limit",
            "PRAGMA journal_size_limit=329632; PRAGMA wal_checkpoint(PASSIVE);
                            UPDATE t SET pad=NULL WHERE id=1",
        ),
        (
            "no log in between",
            "PRAGMA journal_mode=DELETE; UPDATE t SET pad=NULL WHERE id=1; PRAGMA journal_mode=WAL;
                               UPDATE t SET pad=NULL WHERE id=2",
        ),
    ];
    for (nth, (what, sql)) in cases.into_iter().enumerate() {
        let path = dir.path().join(format!("{nth}.db"));
        let (app, _, mark) = second_log(&path, 4096);
        app.execute_batch(sql).expect(what);
        assert!(since(&path, &mark).is_none(), "{what}");
    }
}

/// What is left of the old log is read by nobody else, so nobody else would notice.
#[test]
fn a_damaged_rest_of_an_old_log_says_nothing() {
    use std::os::unix::fs::FileExt as _;

    let dir = TempDir::new().expect("dir");
    let path = dir.path().join("app.db");
    let (app, _, mark) = second_log(&path, 4096);
    let (_, end) = whole(&path);
    app.execute_batch("PRAGMA wal_checkpoint(PASSIVE); UPDATE t SET pad=NULL WHERE id<40").expect("write");
    let changes = since(&path, &mark).expect("changes");
    assert!(changes.changed.anew);
    let say = || changed(&changes.conn, &changes.ground, &mark).expect("read").is_some();
    // Through a descriptor that is never closed: closing it would drop SQLite's locks.
    let log = std::fs::OpenOptions::new().read(true).write(true).open(dir.path().join("app.db-wal")).expect("open");
    let frames = (1..=changes.mark().mx_frame).chain(mark.mx_frame..=end.mx_frame);
    for frame in frames {
        // Of the frame that the earlier image ended in only the header counts.
        let places = if frame == mark.mx_frame {
            [4, 5, 7, 8, 11, 12, 15, 16, 20, 23]
        } else {
            [0, 3, 7, 8, 15, 16, 23, 24, 2000, 4119]
        };
        for at in places {
            let place = wal::frame_offset(frame, 4096) + at;
            let mut byte = [0];
            log.read_exact_at(&mut byte, place).expect("read");
            log.write_all_at(&[byte[0] ^ 4], place).expect("write");
            let said = say();
            log.write_all_at(&byte, place).expect("write");
            assert!(!said, "frame {frame}, byte {at}");
        }
        // As older versions of SQLite leave it in the middle of a log, after a rollback to a savepoint.
        let (place, mut salts) = (wal::frame_offset(frame, 4096) + 8, [0; 16]);
        log.read_exact_at(&mut salts, place).expect("read");
        log.write_all_at(&[0; 16], place).expect("write");
        let said = say();
        log.write_all_at(&salts, place).expect("write");
        assert!(!said, "frame {frame} without salts");
    }
    assert!(say());
    let whole_len = log.metadata().expect("its size").len();
    for cut in [
        1,
        5000,
        whole_len - wal::frame_offset(end.mx_frame + 1, 4096),
        whole_len - wal::frame_offset(end.mx_frame, 4096),
    ] {
        log.set_len(whole_len - cut).expect("cut");
        let is_ended = whole_len - cut >= wal::frame_offset(end.mx_frame + 2, 4096);
        assert_eq!(say(), is_ended, "cut by {cut}");
    }
    std::mem::forget(log);
}

/// Under writers, with checkpoints and logs that are begun anew at any moment, against a copy that is made within the
/// very transaction.
#[test]
fn changes_are_the_transactions_own() {
    let (dir, scratch) = (TempDir::new().expect("dir"), TempDir::new().expect("dir"));
    let path = dir.path().join("app.db");
    app(&path, 1024).execute_batch("DELETE FROM t WHERE id > 40; PRAGMA incremental_vacuum").expect("smaller");
    let hold = Connection::open(&path).expect("open");
    hold.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).expect("opened");
    let mut before = whole(&path);
    let stop = AtomicBool::new(false);
    let (mut overlaid, mut alone) = (0, 0);
    std::thread::scope(|scope| {
        let _stopping = OnDrop(&stop);
        scope.spawn(|| write(&path, &stop, true));
        scope.spawn(|| write(&path, &stop, false));
        for round in 0..600 {
            let Some(changes) = since(&path, &before.1) else {
                before = whole(&path);
                continue;
            };
            *(if changes.ground.frozen.is_some() { &mut alone } else { &mut overlaid }) += 1;
            let image = patched(before.0, &changes);
            assert_own(&changes, &image, scratch.path(), &format!("round {round}: since {:?}", before.1));
            before = (image, changes.mark());
            assert!(changes.finish().expect("finish"), "round {round}");
        }
    });
    assert!(overlaid > 20, "{overlaid} overlaid, {alone} alone");
}

/// The same beside an application as they are: it commits now and then, and begins its log anew after some hundreds of
/// frames.
#[test]
fn changes_over_a_beginning_are_the_transactions_own() {
    let (dir, scratch) = (TempDir::new().expect("dir"), TempDir::new().expect("dir"));
    let path = dir.path().join("app.db");
    drop(second_log(&path, 4096));
    let hold = Connection::open(&path).expect("open");
    hold.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).expect("opened");
    let mut before = whole(&path);
    let stop = AtomicBool::new(false);
    let (mut same, mut anew) = (0, 0);
    std::thread::scope(|scope| {
        let _stopping = OnDrop(&stop);
        scope.spawn(|| {
            let app = Connection::open(&path).expect("open");
            app.busy_timeout(std::time::Duration::from_secs(10)).expect("timeout");
            app.execute_batch("PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0").expect("pragmas");
            for n in 0u64.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let sql = match n % 40 {
                    9 | 29 => "PRAGMA wal_checkpoint(PASSIVE)",
                    19 => "DELETE FROM t WHERE id>300; PRAGMA incremental_vacuum",
                    // Frames that lead nowhere; where they lie behind the last one, nothing is said.
                    33 if n % 200 == 33 => {
                        "PRAGMA cache_size=2; BEGIN; UPDATE t SET pad=randomblob(600) WHERE id<90; ROLLBACK"
                    }
                    _ => "INSERT INTO t(pad) VALUES(randomblob(6000)); UPDATE t SET pad=randomblob(500) WHERE id%60=0",
                };
                app.execute_batch(sql).expect("write");
                std::thread::sleep(std::time::Duration::from_micros(n * 7919 % 1500));
            }
        });
        for round in 0..8000 {
            if round > 600 && anew > 5 {
                break;
            }
            let Some(changes) = since(&path, &before.1) else {
                before = whole(&path);
                continue;
            };
            *(if changes.changed.anew { &mut anew } else { &mut same }) += 1;
            let image = patched(before.0, &changes);
            assert_own(&changes, &image, scratch.path(), &format!("round {round}: since {:?}", before.1));
            before = (image, changes.mark());
            assert!(changes.finish().expect("finish"), "round {round}");
        }
    });
    assert!(anew > 5, "{same} in the same log, {anew} over a beginning");
}

#[test]
fn every_added_page_has_a_frame() {
    let map = |pages: &[u32]| pages.iter().map(|page| (*page, 1)).collect::<PageMap>();
    for (pages, least, count, lock, all) in [
        (&[1, 4, 5][..], 3, 5, 100, true),
        (&[1, 5], 3, 5, 100, false),
        (&[1, 4], 3, 5, 100, false),
        (&[1, 2, 3], 3, 5, 100, false),
        (&[1], 5, 5, 100, true),
        (&[1], 6, 5, 100, true),
        (&[1, 4, 6], 3, 6, 5, true),
        (&[1, 4], 3, 5, 5, true),
        (&[1, 6], 5, 6, 5, true),
        (&[1], 5, 6, 5, false),
        (&[1, 6], 3, 6, 5, false),
    ] {
        assert_eq!(has_all(&map(pages), least, count, lock), all, "{pages:?} {least} {count} {lock}");
    }
}

/// Past 1 GiB there is a page that SQLite never writes.
#[test]
fn the_lock_byte_page_needs_no_frame() {
    use std::os::unix::fs::FileExt as _;

    let dir = TempDir::new().expect("dir");
    let path = dir.path().join("app.db");
    drop(app(&path, 65_536));
    // Grown by decree to a few pages short of it: a hole, so neither time nor space.
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("open");
    let (lock, pages) = (lock_page(65_536), lock_page(65_536) - 3);
    file.write_all_at(&pages.to_be_bytes(), 28).expect("write");
    file.set_len(u64::from(pages) * 65_536).expect("grow");
    drop(file);
    let app = Connection::open(&path).expect("open");
    let insert = "PRAGMA wal_autocheckpoint=0; INSERT INTO t(pad) VALUES(zeroblob(66000))";
    app.execute_batch(insert).expect("write");
    let mark = {
        let database = Database::open_live(&path).expect("live");
        database.wal_mark().expect("a log")
    };
    assert!(mark.pages < lock);
    app.execute_batch(&insert.replace("66000", "600000")).expect("write");
    let changes = since(&path, &mark).expect("changes");
    assert!(changes.mark().pages > lock);
    let expected: Vec<u32> = (mark.pages + 1..=changes.mark().pages).filter(|page| *page != lock).collect();
    assert!(changes.pages().ends_with(&expected));
}

/// Each frame matters: with one changed, at any place that a header or a page has, nothing is said.
#[test]
fn a_damaged_frame_says_nothing() {
    use std::os::unix::fs::FileExt as _;

    let dir = TempDir::new().expect("dir");
    let path = dir.path().join("app.db");
    let app = app(&path, 4096);
    let (_, mark) = whole(&path);
    app.execute_batch("UPDATE t SET pad=NULL WHERE id%40=0").expect("write");
    let changes = since(&path, &mark).expect("changes");
    let frames = changes.mark().mx_frame - mark.mx_frame;
    assert!(frames > 2);
    // Through a descriptor that is never closed: closing it would drop SQLite's locks.
    let log = std::fs::OpenOptions::new().read(true).write(true).open(dir.path().join("app.db-wal")).expect("open");
    for frame in 1..=frames {
        for at in [0, 3, 7, 8, 15, 16, 23, 24, 2000, 4119] {
            let place = wal::frame_offset(mark.mx_frame + frame, 4096) + at;
            let mut byte = [0];
            log.read_exact_at(&mut byte, place).expect("read");
            log.write_all_at(&[byte[0] ^ 4], place).expect("write");
            let said = changed(&changes.conn, &changes.ground, &mark).expect("read");
            log.write_all_at(&byte, place).expect("write");
            assert!(said.is_none(), "frame {frame}, byte {at}");
        }
    }
    assert!(changed(&changes.conn, &changes.ground, &mark).expect("read").is_some());
    std::mem::forget(log);
}
