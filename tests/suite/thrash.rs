//! Everything at once on one store: processes that take, restore, check, forget, bring back, free space and list, in
//! random order, many of them killed at a random moment, while somebody writes to the data directory.
//!
//! What was acknowledged and not forgotten is there at the end, whole; whoever reads is never disturbed by a `gc`; no
//! exit code comes that is not documented, and no panic. `NBAK_TEST_THRASH_SECONDS` says for how long, `NBAK_TEST_SEED`
//! repeats the choices, as far as timing can be repeated.

#![allow(clippy::print_stdout, reason = "seeds are printed, so that a failure can be had again")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::live_common::{Place, Random, Run, Stop, app, seed, text};

/// How long it goes on unless `NBAK_TEST_THRASH_SECONDS` says otherwise.
const SECONDS: u64 = 20;
/// So many processes at most, and for so long before their number changes.
const MOST: u64 = 8;
const WAVE: Duration = Duration::from_secs(4);
const SIGKILL: i32 = 9;
const DATABASE: &str = "accounts.db";
/// What has this tag is kept by every policy.
const KEEP: &str = "keep";

// ---------------------------------------------------------------------------------------------------------------
// Who writes
// ---------------------------------------------------------------------------------------------------------------

/// Two tables whose sums agree, and a count of transactions that is that of the rows of a third.
fn make(data: &Path) {
    let conn = app::open(&data.join(DATABASE));
    conn.execute_batch(
        "PRAGMA journal_mode=WAL;
         CREATE TABLE one(id INTEGER PRIMARY KEY, amount INT, pad BLOB);
         CREATE TABLE other(id INTEGER PRIMARY KEY, amount INT, pad BLOB);
         CREATE TABLE done(transactions INT);
         INSERT INTO done VALUES(0);
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<300)
         INSERT INTO one SELECT x, x, randomblob(700) FROM n;
         INSERT INTO other SELECT 301-id, amount, randomblob(300) FROM one;",
    )
    .expect("tables");
    fs::create_dir(data.join("files")).expect("made");
}

fn write_until(data: &Path, random: &mut Random, stop: &AtomicBool) -> u64 {
    let mut conn = app::open(&data.join(DATABASE));
    let mut transactions = 0;
    while !stop.load(Ordering::Relaxed) {
        let txn = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("begun");
        for _ in 0..=random.below(4) {
            let (amount, row, twin) =
                (random.below(1000) as i64, 1 + random.below(300) as i64, 1 + random.below(300) as i64);
            let pad = random.bytes(200 + amount as usize);
            txn.execute("UPDATE one SET amount=amount+?1, pad=?2 WHERE id=?3", rusqlite::params![amount, pad, row])
                .expect("changed");
            txn.execute("UPDATE other SET amount=amount+?1 WHERE id=?2", [amount, twin]).expect("changed");
        }
        txn.execute("UPDATE done SET transactions=transactions+1", []).expect("counted");
        txn.commit().expect("committed");
        transactions += 1;
        let size = random.below(30_000) as usize;
        fs::write(data.join(format!("files/f{}", random.below(20))), random.bytes(size)).expect("written");
        if random.below(20) == 0 {
            conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
        }
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
    }
    transactions
}

/// Looks at what was restored: no sidecars, a sound database, whole transactions.
fn verify(folder: &Path, what: &str) {
    for suffix in ["-wal", "-shm", "-journal"] {
        assert!(!folder.join(format!("{DATABASE}{suffix}")).exists(), "{what}: {suffix}");
    }
    let conn = app::open(&folder.join(DATABASE));
    let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
    assert_eq!(sound, "ok", "{what}");
    let sum = |table: &str| -> (i64, i64) {
        let sql = format!("SELECT count(*), sum(amount) FROM {table}");
        conn.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("a sum")
    };
    assert_eq!(sum("one"), sum("other"), "{what}: both tables were changed in every transaction");
}

// ---------------------------------------------------------------------------------------------------------------
// What is known
// ---------------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct One {
    kept: bool,
    /// It was acknowledged, or brought back, and no `forget` that may have named it came after that.
    stays: bool,
    /// How many times somebody began to forget it, and how many of those are at it.
    touched: u64,
    under_way: u64,
}

#[derive(Default)]
struct Known {
    snapshots: BTreeMap<String, One>,
    /// Policies that are at work, and how many ended without saying what they forgot.
    policies: u64,
    unclear: u64,
    /// All that a `forget` said that it forgot, also before its snapshot was known here.
    named: BTreeSet<String>,
    /// How long each command took when it was left alone, about.
    durations: BTreeMap<&'static str, Duration>,
}

#[derive(Default)]
struct Tally {
    runs: AtomicU32,
    kills: AtomicU32,
    locked: AtomicU32,
    taken: AtomicU32,
    restored: AtomicU32,
    deleted: AtomicU64,
    written: AtomicU64,
    waited: AtomicU32,
    back: AtomicU32,
}

fn add(count: &AtomicU32) {
    count.fetch_add(1, Ordering::Relaxed);
}

struct Thrash<'a> {
    place: &'a Place,
    known: Mutex<Known>,
    tally: Tally,
    targets: AtomicU32,
    /// A snapshot that nobody forgets.
    base: String,
}

impl Thrash<'_> {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a command; one time in three it is killed. Nothing if it was.
    fn run(&self, random: &mut Random, what: &'static str, args: &[&str]) -> Option<Run> {
        add(&self.tally.runs);
        let start = Instant::now();
        let mut command = self.place.nbak(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let usual = self.known().durations.get(what).copied();
        if let Some(usual) = usual.filter(|_| random.below(3) == 0) {
            std::thread::sleep(usual * random.below(1200) as u32 / 1000);
            child.kill().expect("it can be killed");
        }
        let output = child.wait_with_output().expect("its output");
        let was_killed = output.status.signal() == Some(SIGKILL);
        let run = Run::of(output, format!("{args:?}"));
        if was_killed {
            add(&self.tally.kills);
            return None;
        }
        let took = start.elapsed();
        let mut known = self.known();
        let usual = known.durations.entry(what).or_insert(took);
        *usual = (*usual * 3 + took) / 4;
        let code = run.code.expect("it was not killed");
        assert!([0, 1, 2, 3, 11].contains(&code), "{run:?}");
        if code == 11 {
            add(&self.tally.locked);
        }
        Some(run)
    }

    fn step(&self, random: &mut Random) {
        match random.below(100) {
            0..=34 => self.snapshot(random),
            35..=47 => self.restore(random),
            48..=52 => self.read(random, "check", &["check"]),
            53..=55 => self.read(random, "check data", &["check", "--read-data"]),
            56..=67 => self.forget_by_policy(random),
            68..=75 => self.forget_by_id(random),
            76..=80 => self.undelete(random),
            81..=92 => self.gc(random),
            93..=95 => self.read(random, "list", &["snapshots", "--json"]),
            96 => self.read(random, "list", &["snapshots", "--forgotten"]),
            97 => self.read(random, "stats", &["stats"]),
            _ => self.read(random, "cat", &["cat", "latest", DATABASE]),
        }
    }

    /// Whoever reads succeeds, whatever goes on.
    fn read(&self, random: &mut Random, what: &'static str, args: &[&str]) {
        if let Some(run) = self.run(random, what, args) {
            run.exits(0);
        }
    }

    fn snapshot(&self, random: &mut Random) {
        let kept = random.below(3) == 0;
        let mut args = vec!["snapshot", "--json", "--lock-wait", ["60", "60", "0"][random.below(3) as usize]];
        if kept {
            args.extend(["--tag", KEEP]);
        }
        let (before, unclear) = {
            let known = self.known();
            (known.policies, known.unclear)
        };
        let Some(run) = self.run(random, "snapshot", &args) else { return };
        if run.code == Some(11) {
            return;
        }
        assert!(matches!(run.code, Some(0 | 3)), "{run:?}");
        let said = run.json();
        let id = text(&said["snapshot"]).to_owned();
        let mut known = self.known();
        if said["unchanged"] == true || known.snapshots.contains_key(&id) {
            return;
        }
        add(&self.tally.taken);
        // A policy that was at work meanwhile may have seen it before we did.
        let sure = kept || (before == 0 && known.policies == 0 && known.unclear == unclear);
        let stays = sure && !known.named.contains(&id);
        known.snapshots.insert(id, One { kept, stays, ..One::default() });
    }

    fn restore(&self, random: &mut Random) {
        let target = self.place.path(&format!("target-{}", self.targets.fetch_add(1, Ordering::Relaxed)));
        let (mut name, mut before) = ("latest".to_owned(), 0);
        if random.below(2) == 0 {
            let known = self.known();
            let ones: Vec<(&String, &One)> = known.snapshots.iter().filter(|(_, one)| one.stays).collect();
            if !ones.is_empty() {
                let (id, one) = ones[random.below(ones.len() as u64) as usize];
                (name, before) = (id.clone(), one.touched);
            }
        }
        let folder = target.to_str().expect("text").to_owned();
        if let Some(run) = self.run(random, "restore", &["restore", &name, "--target", &folder]) {
            let stays = self.known().snapshots.get(&name).is_none_or(|one| one.touched == before);
            if run.code == Some(0) || stays {
                verify(&target, &format!("{:?}", run.exits(0)));
                add(&self.tally.restored);
            } else {
                assert_eq!(run.code, Some(2), "{name} was forgotten meanwhile: {run:?}");
            }
        }
        let _ = fs::remove_dir_all(target);
    }

    /// Somebody begins to forget what `is_one` says yes to; answers these, and whether they stayed until then.
    fn begin_to_forget(&self, is_one: impl Fn(&str, &One) -> bool) -> Vec<(String, bool, u64)> {
        let mut ones = Vec::new();
        for (id, one) in self.known().snapshots.iter_mut().filter(|(id, one)| is_one(id, one)) {
            one.touched += 1;
            one.under_way += 1;
            ones.push((id.clone(), std::mem::take(&mut one.stays), one.touched));
        }
        ones
    }

    /// The same command has ended: what it certainly did not forget stays as it did.
    fn end_to_forget(&self, ones: &[(String, bool, u64)], forgotten: Option<&BTreeSet<String>>) {
        let mut known = self.known();
        for (id, stayed, touched) in ones {
            let one = known.snapshots.get_mut(id).expect("it is known");
            one.under_way -= 1;
            if forgotten.is_some_and(|forgotten| !forgotten.contains(id)) && *stayed && one.touched == *touched {
                one.stays = true;
            }
        }
        if let Some(forgotten) = forgotten {
            known.named.extend(forgotten.iter().cloned());
        }
    }

    fn forget_by_policy(&self, random: &mut Random) {
        self.known().policies += 1;
        let ones = self.begin_to_forget(|_, one| !one.kept);
        let count = (1 + random.below(6)).to_string();
        let args = ["forget", "--json", "--keep-last", &count, "--keep-tag", KEEP, "--lock-wait", "60"];
        let run = self.run(random, "forget", &args);
        let forgotten = run.map(|run| {
            let lines = run.exits(0).json_lines();
            let gone = lines.iter().filter(|one| one["forget"] == true);
            gone.map(|one| text(&one["snapshot"]).to_owned()).collect::<BTreeSet<String>>()
        });
        self.end_to_forget(&ones, forgotten.as_ref());
        let mut known = self.known();
        known.policies -= 1;
        known.unclear += u64::from(forgotten.is_none());
        if let Some(forgotten) = forgotten {
            // It may have named what became known while it ran.
            for id in forgotten {
                if let Some(one) = known.snapshots.get_mut(&id) {
                    assert!(!one.kept, "{id} has a tag that is kept");
                }
            }
        }
    }

    fn forget_by_id(&self, random: &mut Random) {
        let ids: Vec<String> = self.known().snapshots.keys().filter(|id| **id != self.base).cloned().collect();
        if ids.is_empty() {
            return;
        }
        let chosen: BTreeSet<String> =
            (0..=random.below(3)).map(|_| ids[random.below(ids.len() as u64) as usize].clone()).collect();
        let ones = self.begin_to_forget(|id, _| chosen.contains(id));
        let mut args = vec!["forget", "--lock-wait", "60"];
        args.extend(chosen.iter().map(String::as_str));
        let run = self.run(random, "forget", &args);
        let nothing = BTreeSet::new();
        let forgotten = run.map(|run| match run.code {
            Some(0) => &chosen,
            // One of them is gone: then none was forgotten.
            Some(1 | 2) => &nothing,
            _ => panic!("{run:?}"),
        });
        self.end_to_forget(&ones, forgotten);
    }

    fn undelete(&self, random: &mut Random) {
        // Those that are forgotten now, before anybody else comes.
        let before: BTreeMap<String, (u64, u64)> =
            self.known().snapshots.iter().map(|(id, one)| (id.clone(), (one.touched, one.under_way))).collect();
        let Some(run) = self.run(random, "undelete", &["undelete", "--json", "all", "--lock-wait", "60"]) else {
            return;
        };
        if run.code == Some(1) {
            // There is none, or some of its space is gone, which `gc` had no time to note.
            return;
        }
        for line in run.exits(0).json_lines() {
            add(&self.tally.back);
            let id = text(&line["snapshot"]);
            let mut known = self.known();
            let policies = known.policies;
            if let (Some(one), Some((touched, 0))) = (known.snapshots.get_mut(id), before.get(id))
                && one.touched == *touched
                && (one.kept || policies == 0)
            {
                one.stays = true;
            }
        }
    }

    fn gc(&self, random: &mut Random) {
        let args: &[&str] = match random.below(8) {
            0 => return self.read(random, "gc --dry-run", &["gc", "--dry-run"]),
            1 => &["gc", "--json", "--lock-wait", "0"],
            2 => &["gc", "--json", "--keep-forgotten", "1h", "--lock-wait", "10"],
            _ => &["gc", "--json", "--lock-wait", "10"],
        };
        let Some(run) = self.run(random, "gc", args) else { return };
        if run.code == Some(11) {
            return;
        }
        let said = run.exits(0).json();
        let number = |key: &str| said[key].as_u64().expect("a number");
        self.tally.deleted.fetch_add(number("deleted_packs"), Ordering::Relaxed);
        self.tally.written.fetch_add(number("written_packs"), Ordering::Relaxed);
        if number("waiting_bytes") > 0 {
            add(&self.tally.waited);
        }
    }

    fn listed(&self) -> Vec<String> {
        let lines = self.place.ok(["snapshots", "--json"]).json_lines();
        lines.iter().map(|one| text(&one["snapshot"]).to_owned()).collect()
    }

    /// All that are listed restore, each as of one transaction.
    fn restore_all(&self, ids: &[String], what: &str) {
        let next = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        let target = self.place.restore(id, &format!("last-{what}-{id}"));
                        verify(&target, &format!("{what}: {id}"));
                        fs::remove_dir_all(target).expect("removed");
                    }
                });
            }
        });
    }
}

#[test]
fn everything_at_once() {
    let seconds = std::env::var("NBAK_TEST_THRASH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let seed = seed("thrash");
    let place = Place::new();
    make(&place.data);
    let base = text(&place.ok(["snapshot", "--json", "--tag", KEEP]).json()["snapshot"]).to_owned();
    let thrash = Thrash {
        place: &place,
        known: Mutex::default(),
        tally: Tally::default(),
        targets: AtomicU32::new(0),
        base: base.clone(),
    };
    thrash.known().snapshots.insert(base, One { kept: true, stays: true, ..One::default() });
    let (stop, end) = (AtomicBool::new(false), Instant::now() + Duration::from_secs(seconds));
    let mut random = Random::new(seed);
    let transactions = std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let mut own = Random::new(random.next());
        let writer = scope.spawn({
            let (data, stop) = (&place.data, &stop);
            move || write_until(data, &mut own, stop)
        });
        while Instant::now() < end {
            let wave = end.min(Instant::now() + WAVE);
            let count = 2 + random.below(MOST - 1);
            std::thread::scope(|scope| {
                for _ in 0..count {
                    let mut random = Random::new(random.next());
                    let thrash = &thrash;
                    scope.spawn(move || {
                        while Instant::now() < wave {
                            thrash.step(&mut random);
                        }
                    });
                }
            });
        }
        drop(stopping);
        writer.join().expect("whoever writes sees no error")
    });
    let tally = &thrash.tally;
    println!(
        "{} runs, {} killed, {} locked out; {transactions} transactions, {} snapshots, {} restored, {} brought back; \
         gc deleted {} packs, wrote {}, waited for readers {} times",
        tally.runs.load(Ordering::Relaxed),
        tally.kills.load(Ordering::Relaxed),
        tally.locked.load(Ordering::Relaxed),
        tally.taken.load(Ordering::Relaxed),
        tally.restored.load(Ordering::Relaxed),
        tally.back.load(Ordering::Relaxed),
        tally.deleted.load(Ordering::Relaxed),
        tally.written.load(Ordering::Relaxed),
        tally.waited.load(Ordering::Relaxed),
    );

    place.check();
    let listed = thrash.listed();
    let known = thrash.known();
    let promised: Vec<&String> = known.snapshots.iter().filter(|(_, one)| one.stays).map(|(id, _)| id).collect();
    println!("{} snapshots are listed, of which {} must be", listed.len(), promised.len());
    for id in &promised {
        assert!(listed.contains(id), "{id} was promised, nobody forgot it, and it is not listed");
    }
    assert!(promised.len() > 1, "something was promised");
    thrash.restore_all(&listed, "before");

    let said = place.ok(["gc", "--json"]).json();
    assert_eq!(said["waiting_bytes"], 0, "nobody is around: {said}");
    println!("at last gc deleted {} packs and wrote {}", said["deleted_packs"], said["written_packs"]);
    place.check();
    assert_eq!(thrash.listed(), listed, "a gc forgets nothing");
    thrash.restore_all(&listed, "after");
    assert!(tally.kills.load(Ordering::Relaxed) > 5, "some were killed");
    assert!(tally.deleted.load(Ordering::Relaxed) > 0, "packs were deleted while all that went on");
}
