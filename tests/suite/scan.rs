//! Large files that consist of pages, of which only what differs from the snapshot before is saved: each version comes
//! back, whatever was changed, added or cut off.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use crate::common::{Random, noise};
use crate::live_common::Place;

const PAGE: u64 = 4096;
/// So many small files change each time.
const OTHERS: u64 = 300;

#[test]
fn each_version_of_a_large_file_comes_back() {
    let place = Place::new();
    let path = place.data.join("graph.kz");
    fs::write(&path, noise(1, 6 << 20)).expect("a file");
    place.snapshot();
    let mut random = Random::seeded("scan");
    let mut file = fs::File::options().read(true).write(true).open(&path).expect("opens");
    let mut write = |file: &mut fs::File, page: u64, seed| {
        file.write_all_at(&noise(seed, PAGE as usize), page * PAGE).expect("written");
    };
    for round in 0..12 {
        let pages = file.metadata().expect("there").len() / PAGE;
        file.set_len(pages * PAGE).expect("whole pages again");
        let before = fs::read(&path).expect("read");
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
                file.set_len((pages - 3) * PAGE).expect("shorter");
                let moved = &before[9 * PAGE as usize..10 * PAGE as usize];
                file.write_all_at(moved, 20 * PAGE).expect("written");
            }
            // Nearly all of it.
            4 => (1..pages).for_each(|page| write(&mut file, page, 1000 * round + page)),
            // Some at random, and not a whole number of pages any more.
            _ => {
                (0..20).for_each(|nth| write(&mut file, random.below(pages), 400 + round + nth));
                file.set_len(pages * PAGE - 7 * (round % 2)).expect("cut");
            }
        }
        let taken = place.snapshot();
        assert_eq!(taken["changed_files"], 1, "round {round}: {taken}");
        // Where it was cut by its content before, all of it is new.
        let most = if matches!(round % 6, 4 | 5) || round == 6 { u64::MAX } else { OTHERS + 6 };
        assert!(taken["new_chunks"].as_u64().expect("a number") <= most, "round {round}: {taken}");
        let target = place.restore("latest", &format!("target-{round}"));
        let now = fs::read(&path).expect("read");
        assert!(fs::read(target.join("graph.kz")).expect("restored") == now, "round {round}");
    }
    // One that is a database by now is one.
    fs::write(&path, noise(1, 6 << 20)).expect("a file");
    place.snapshot();
    let conn = rusqlite::Connection::open(place.path("db")).expect("opens");
    conn.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES (zeroblob(2000000))").expect("a table");
    drop(conn);
    file = fs::File::options().write(true).open(&path).expect("opens");
    let database = fs::read(place.path("db")).expect("read");
    file.write_all_at(&database, 0).expect("written");
    file.set_len(database.len() as u64).expect("cut");
    let listed = place.ok(["snapshot", "--json", "--dry-run"]).json();
    assert_eq!(listed["databases"], 1, "{listed}");
    place.check();
}
