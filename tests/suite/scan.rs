//! Large files that consist of pages, of which only what differs from the snapshot before is saved: each version comes
//! back, whatever was changed, added or cut off.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use crate::common::{Random, noise};
use crate::live_common::Place;
use crate::replaced::{Moment, taken};
use nbak::snapshot::progress::Silent;
use nbak::snapshot::restore;
use nbak::snapshot::store::{Access, Store};
use nbak::snapshot::take::Taken;

const PAGE: u64 = 4096;

/// A snapshot that waits for whoever looks at large files meanwhile.
fn snapshot(place: &Place) -> Taken {
    // What was written a moment before it is read is read twice.
    std::thread::sleep(Duration::from_millis(50));
    let taken = taken(place, |moment| {
        if matches!(moment, Moment::Reading(_)) {
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    assert!(taken.unreadable.is_empty(), "{:?}", taken.unreadable);
    taken
}

#[test]
fn each_version_of_a_large_file_comes_back() {
    let place = Place::new();
    let path = place.data.join("graph.kz");
    fs::write(&path, noise(1, 6 << 20)).expect("a file");
    snapshot(&place);
    let mut random = Random::seeded("scan");
    let mut file = fs::File::options().read(true).write(true).open(&path).expect("opens");
    let write = |file: &mut fs::File, page: u64, seed| {
        file.write_all_at(&noise(seed, PAGE as usize), page * PAGE).expect("written");
    };
    for round in 0..12 {
        let pages = file.metadata().expect("there").len() / PAGE;
        file.set_len(pages * PAGE).expect("whole pages again");
        match round % 6 {
            // The first page, the last, and some between.
            0 => [0, 700, pages - 1].into_iter().for_each(|page| write(&mut file, page, 100 + round)),
            // More pages, of which one is zeros.
            1 => {
                file.set_len((pages + 2) * PAGE).expect("longer");
                write(&mut file, pages, 200 + round);
            }
            // A page becomes zeros, and what was zeros something.
            2 => {
                file.write_all_at(&[0; PAGE as usize], 5 * PAGE).expect("written");
                write(&mut file, pages - 1, 300 + round);
            }
            // Fewer pages, and one that goes where another was.
            3 => {
                let mut moved = [0; PAGE as usize];
                file.read_exact_at(&mut moved, 9 * PAGE).expect("read");
                file.write_all_at(&moved, 20 * PAGE).expect("written");
                file.set_len((pages - 3) * PAGE).expect("shorter");
            }
            // Nearly all of it.
            4 => (1..pages).for_each(|page| write(&mut file, page, 10_000 * (round + 1) + page)),
            // Some at random, and not a whole number of pages any more.
            _ => {
                (0..20).for_each(|nth| write(&mut file, random.below(pages), 400 + round + nth));
                file.set_len(pages * PAGE - 7 * (round % 2)).expect("cut");
            }
        }
        let taken = snapshot(&place);
        // Where it was cut by its content before, all of it is new.
        let most = if matches!(round % 6, 4 | 5) || round == 6 { u64::MAX } else { 3 };
        assert!(taken.new_chunks <= most, "round {round}: {}", taken.new_chunks);
        let store = Store::open(&place.repo, &[], Access::Read).expect("opens");
        let target = place.path(&format!("target-{round}"));
        let options = restore::Options { target: target.clone(), ..restore::Options::default() };
        restore::restore(&store, &taken.record, &options, &Silent).expect("restored");
        let now = fs::read(&path).expect("read");
        assert!(fs::read(target.join("graph.kz")).expect("restored") == now, "round {round}");
    }
}

#[test]
fn a_large_file_that_became_a_database_is_one() {
    let place = Place::new();
    let path = place.data.join("graph.kz");
    fs::write(&path, noise(1, 2 << 20)).expect("a file");
    snapshot(&place);
    let conn = rusqlite::Connection::open(place.path("db")).expect("opens");
    conn.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES (zeroblob(2000000))").expect("a table");
    drop(conn);
    let all = fs::read(place.path("db")).expect("read");
    let file = fs::File::options().write(true).open(&path).expect("opens");
    file.write_all_at(&all, 0).and_then(|()| file.set_len(all.len() as u64)).expect("written");
    assert_eq!(snapshot(&place).record.totals.databases, 1);
}
