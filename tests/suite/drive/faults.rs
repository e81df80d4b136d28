//! A thousand scripts of faults: lost connections before and after a request was carried out, parts that are stored in
//! part, sessions that end, refusals, servers that fail. Afterwards Drive holds one whole copy of each file, nothing
//! half is listed as whole, and no request was repeated without bound.
//!
//! `NBAK_TEST_ROUNDS` multiplies how many scripts have their turn; a run prints the seed of one that fails.

use std::fs;

use crate::common::noise;
use crate::drive_common::{Cloud, drive, store_grant};
use nbak::drive::backups::{Backups, Choice};
use nbak::drive::owner::Owner;
use nbak::drive::sessions::Sessions;
use nbak::export::backup::Backup;
use nbak::export::list::Order;
use nbak::export::manifest::whose::Known;

/// Scripts in one run.
const SCRIPTS: u64 = 12;
/// Faults in one script.
const FAULTS: usize = 25;

/// A machine with one backup, of some small files and one of several parts.
fn machine() -> (Cloud, Backup) {
    let cloud = Cloud::new();
    fs::create_dir_all(cloud.place.data.join("a/b")).expect("made");
    for (name, seed, size) in [("one", 1, 10), ("a/two", 2, 70_000), ("a/b/three", 3, 5_000_000), ("empty", 4, 0)] {
        fs::write(cloud.place.data.join(name), noise(seed, size)).expect("written");
    }
    cloud.place.ok(&["backup"]);
    store_grant(&cloud);
    let backups = fs::read_dir(cloud.place.data.join("backups")).expect("a folder");
    let path = backups.map(|entry| entry.expect("one").path()).find(|path| path.join("manifest.json").exists());
    let backup = Backup::open(&path.expect("a backup")).expect("it opens");
    (cloud, backup)
}

#[test]
fn whatever_breaks_there_is_one_whole_copy() {
    let (cloud, backup) = machine();
    let mut most = 0;
    for seed in 0..SCRIPTS * crate::common::rounds() {
        let target = tempfile::tempdir().expect("a folder");
        cloud.empty_the_drive();
        cloud.fake.reset_counts();
        cloud.fake.script_most(FAULTS);
        cloud.fake.script(seed, 0.2);
        let sessions = Sessions::open(cloud.place.data.join(".nbak-state/uploads.json"));
        // It may fail, and then it is run again; each run ends.
        let mut runs = 0;
        loop {
            let drive = drive(&cloud);
            let backups = Backups { drive: &drive, sessions: &sessions, own: &Owner::default() };
            // What is there meanwhile is complete, or is not called so.
            match backups.upload(&backup, &|_| {}) {
                Ok(_) => break,
                Err(error) => {
                    runs += 1;
                    assert!(error.is_remote(), "seed {seed}: {error}");
                    let whole = backups.list().unwrap_or_default().into_iter().any(|one| one.listed.damage.is_none());
                    assert!(!whole, "seed {seed}: it is called whole after {error}");
                    assert!(runs <= FAULTS, "seed {seed}: {runs} runs");
                }
            }
        }
        let faults = cloud.fake.faults_drawn();
        cloud.fake.behave();
        cloud.assert_holds_once(&backup.path);
        let requests = cloud.fake.log().len();
        assert!(requests < 400 + 60 * faults.len(), "seed {seed}: {requests} requests for {faults:?}");
        most = most.max(requests);

        // And back, through as many again.
        cloud.fake.script(seed ^ 0x5555, 0.2);
        let folder = target.path().join("back");
        let mut runs = 0;
        loop {
            let drive = drive(&cloud);
            let backups = Backups { drive: &drive, sessions: &sessions, own: &Owner::default() };
            match backups
                .find(None, &Choice { order: &Order::new(), now_ms: 0, known: &Known::default() })
                .and_then(|(stored, _)| backups.download(&backups.plan(&stored)?, &folder, &|_| Ok(()), &|_| {}))
            {
                Ok(_) => break,
                Err(error) => {
                    runs += 1;
                    assert!(error.is_remote() && runs <= FAULTS, "seed {seed}: {error}");
                }
            }
        }
        let plain =
            |root| crate::common::tree(root).into_iter().map(|(path, thing)| (path, thing.bytes)).collect::<Vec<_>>();
        assert!(plain(&folder) == plain(&backup.path), "seed {seed}");
    }
    println!("scripts of the seeds 0 to {}", SCRIPTS * crate::common::rounds() - 1);
    println!("at most {most} requests for one script");
    assert!(!cloud.place.data.join(".nbak-state/uploads.json").exists(), "nothing has begun that did not end");
}
