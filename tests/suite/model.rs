//! Commands in random order against a plain model of what they should do.
//!
//! The model is a list of snapshots: the directory as it was, and whether the snapshot is live, forgotten or reclaimed.
//! After each command the store's lists must be the model's, and what can be restored must be what the model has, byte
//! for byte; what cannot be is refused, and the refusal changes nothing. Most sequences use the library, which is quick
//! and lets time pass as it likes; some use the program.
//!
//! A failure prints the seed of its sequence and the steps. `NBAK_TEST_ROUNDS` multiplies the sequences;
//! `NBAK_TEST_SEQUENCE` repeats the one with that seed.

#![allow(clippy::print_stdout, reason = "seeds are printed, so that a failure can be had again")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::live_common::{KEY, Place, Random, Survey, assert_same, rounds, seed, survey, text};
use jiff::ZonedDateTime;
use nbak::crypto::secret::Credential;
use nbak::error::Result;
use nbak::id::SnapshotId;
use nbak::snapshot::check::{self, check};
use nbak::snapshot::look;
use nbak::snapshot::now::now_ms;
use nbak::snapshot::progress::Silent;
use nbak::snapshot::restore::{self, restore};
use nbak::snapshot::store::{Access, Store};
use nbak::snapshot::take::{self, take};
use nbak::snapshot::tree::Node;
use nbak::upkeep::policy::{Candidate, Policy, plan};
use nbak::upkeep::{forget, gc, swarm};
use tempfile::TempDir;

/// Somebody who reads: is given what restores a snapshot into a folder.
type Reading<'a> = &'a mut dyn FnMut(&mut dyn FnMut(&str, &Path));

const DAY: i64 = 24 * 60 * 60 * 1000;
/// A program that the other test starts has this process's descriptors, locks included, until it runs.
const PATIENCE: Duration = Duration::from_secs(10);
const DATABASE: &str = "rows.db";
/// Sequences by the library, and by the program.
const LIBRARY: u32 = 300;
const PROGRAM: u32 = 4;

/// What a `gc` said that it did.
#[derive(Debug, Default)]
struct Freed {
    reclaimed: BTreeSet<String>,
    deleted: u64,
    written: u64,
}

/// The commands, by whatever way they are given.
trait Commands {
    /// Takes a snapshot; answers its id, and whether nothing had changed.
    fn snapshot(&mut self, tags: &[String]) -> (String, bool);
    /// Forgets these, as if it were done `ago` milliseconds ago, if it can.
    fn forget(&mut self, ids: &[String], ago: i64);
    /// Forgets all but the last `count`; answers which.
    fn keep_last(&mut self, count: u64) -> BTreeSet<String>;
    /// Brings these back, or all; answers which, or why not.
    fn undelete(&mut self, ids: Option<&[String]>) -> Result<BTreeSet<String>, String>;
    /// Frees space; with `grace` what was forgotten within a day stays.
    fn gc(&mut self, grace: bool) -> Freed;
    /// Makes the index anew.
    fn repair(&mut self);
    /// Lets go of the store.
    fn close(&mut self);
    /// Those that are live and those that are forgotten, oldest first.
    fn lists(&mut self) -> (Vec<String>, Vec<String>);
    /// Restores one into a new folder.
    fn restore(&mut self, id: &str, target: &Path) -> Result<(), String>;
    /// The content of a file.
    fn cat(&mut self, id: &str, path: &Path) -> Vec<u8>;
    /// Fails unless all is whole.
    fn check(&mut self);
    /// What is done after a snapshot for the store.
    fn upkeep(&mut self) {}
    /// A `gc` beside somebody who reads: whoever began before it can go on.
    /// Answers whether something was left for later.
    fn gc_beside_a_reader(&mut self, _reading: Reading<'_>) -> bool {
        false
    }
    /// Whether time passes as one likes.
    fn has_ages(&self) -> bool {
        false
    }
}

// ---------------------------------------------------------------------------------------------------------------
// By the library
// ---------------------------------------------------------------------------------------------------------------

/// The store stays open for writing from one command to the next, until it is closed.
struct Library<'a> {
    place: &'a Place,
    store: Option<Store>,
}

fn credentials() -> [Credential; 1] {
    [Credential::VaultKey(KEY.to_owned())]
}

fn id_of(text: &str) -> SnapshotId {
    SnapshotId::parse(text).expect("an id that the store gave")
}

fn restore_from(store: &Store, id: &str, target: &Path) -> Result<(), String> {
    let records = store.records().expect("records");
    let record = look::select(&records, id, &ZonedDateTime::now()).map_err(|error| error.to_string())?;
    let options = restore::Options { target: target.to_path_buf(), ..restore::Options::default() };
    let restored = restore(store, record, &options, &Silent).map_err(|error| error.to_string())?;
    assert_eq!(restored.damaged, [], "{id}");
    Ok(())
}

impl Library<'_> {
    fn store(&mut self) -> &mut Store {
        let open = || Store::open_or_create(&self.place.repo, &credentials(), PATIENCE, 0).expect("a store");
        let store = self.store.get_or_insert_with(open);
        assert_eq!(store.losses(), None, "the store misses nothing");
        store
    }

    fn collect(&mut self, options: &gc::Options) -> gc::Outcome {
        let outcome = gc::gc(self.store(), options, &Silent).expect("space is freed");
        assert!(outcome.held.is_empty() && !outcome.no_room, "{outcome:?}");
        outcome
    }
}

fn texts<'i>(ids: impl IntoIterator<Item = &'i SnapshotId>) -> BTreeSet<String> {
    ids.into_iter().map(ToString::to_string).collect()
}

impl Commands for Library<'_> {
    fn snapshot(&mut self, tags: &[String]) -> (String, bool) {
        let options = take::Options { source: self.place.data.clone(), tags: tags.to_vec(), ..Default::default() };
        let taken = take(self.store(), &options, &Silent).expect("a snapshot");
        assert_eq!(taken.unreadable, []);
        (taken.record.id.to_string(), taken.unchanged)
    }

    fn forget(&mut self, ids: &[String], ago: i64) {
        let ids = ids.iter().map(|id| id_of(id)).collect();
        forget::forget(self.store(), &ids, now_ms() - ago).expect("forgotten");
    }

    fn keep_last(&mut self, count: u64) -> BTreeSet<String> {
        let store = self.store();
        let records = store.records().expect("records");
        let candidates: Vec<Candidate<'_>> = records
            .iter()
            .map(|one| Candidate {
                id: one.id,
                started: one.started,
                source: &one.source,
                instance: None,
                tags: &one.tags,
                proven: false,
                complete: true,
                mixed: false,
                pinned: None,
            })
            .collect();
        let policy = Policy { last: count, ..Policy::default() };
        let verdicts = plan(&candidates, &policy, &ZonedDateTime::now());
        let gone: BTreeSet<SnapshotId> = verdicts.iter().filter(|one| one.keep.is_empty()).map(|one| one.id).collect();
        forget::forget(store, &gone, now_ms()).expect("forgotten");
        texts(&gone)
    }

    fn undelete(&mut self, ids: Option<&[String]>) -> Result<BTreeSet<String>, String> {
        let store = self.store();
        let history = store.history().expect("a history");
        let there: BTreeSet<SnapshotId> = history.ledger().forgotten.keys().copied().collect();
        let wanted = ids.map_or_else(|| there.clone(), |ids| ids.iter().map(|id| id_of(id)).collect());
        if there.is_empty() || !wanted.is_subset(&there) {
            return Err("not one of those that were forgotten".to_owned());
        }
        forget::undelete(store, &wanted, false).map_err(|error| error.to_string())?;
        Ok(texts(&wanted))
    }

    fn gc(&mut self, grace: bool) -> Freed {
        let forgotten_before = if grace { now_ms() - DAY } else { i64::MAX };
        let outcome = self.collect(&gc::Options { forgotten_before, patience: PATIENCE, ..gc::Options::default() });
        assert!(outcome.waiting.is_none(), "nobody reads: {outcome:?}");
        Freed { reclaimed: texts(&outcome.reclaimed), deleted: outcome.deleted, written: outcome.written }
    }

    fn repair(&mut self) {
        self.store().catalog_mut().index_mut().discard();
        self.store = None;
    }

    fn close(&mut self) {
        self.store = None;
    }

    fn lists(&mut self) -> (Vec<String>, Vec<String>) {
        let history = self.store().history().expect("a history");
        let live = history.live().map(|record| record.id.to_string()).collect();
        let ledger = history.ledger();
        let there = history.forgotten().filter(|one| ledger.forgotten.contains_key(&one.record.id));
        (live, there.map(|one| one.record.id.to_string()).collect())
    }

    fn restore(&mut self, id: &str, target: &Path) -> Result<(), String> {
        restore_from(self.store(), id, target)
    }

    fn cat(&mut self, id: &str, path: &Path) -> Vec<u8> {
        let store = self.store();
        let records = store.records().expect("records");
        let record = look::select(&records, id, &ZonedDateTime::now()).expect("it is live");
        let look::Place::Entry(entry) = look::find(store, record, path).expect("it is there") else {
            panic!("{}: the root", path.display())
        };
        let Node::File { size, content, .. } = &entry.node else { panic!("{}: no file", path.display()) };
        let mut bytes = Vec::new();
        look::cat(store, *size, content, &mut bytes).expect("it can be read");
        bytes
    }

    fn check(&mut self) {
        let report = check(self.store(), check::Options { read_data: true, subset: None }, &Silent).expect("a check");
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    }

    fn upkeep(&mut self) {
        swarm::gather(self.store()).expect("small packs can be put together");
    }

    fn gc_beside_a_reader(&mut self, reading: Reading<'_>) -> bool {
        let reader = Store::open(&self.place.repo, &credentials(), Access::Read).expect("a store to read");
        // What it does not look at before may be gone from the place where it lay, but never from the store.
        let outcome = self.collect(&gc::Options::default());
        assert_eq!(outcome.deleted, 0, "somebody reads: {outcome:?}");
        reading(&mut |id, target| restore_from(&reader, id, target).expect("whoever read before can go on"));
        outcome.waiting.is_some()
    }

    fn has_ages(&self) -> bool {
        true
    }
}

// ---------------------------------------------------------------------------------------------------------------
// By the program
// ---------------------------------------------------------------------------------------------------------------

struct Program<'a>(&'a Place);

impl Program<'_> {
    fn listed(&self, args: &[&str]) -> Vec<String> {
        self.0.ok(args).json_lines().iter().map(|one| text(&one["snapshot"]).to_owned()).collect()
    }
}

impl Commands for Program<'_> {
    fn snapshot(&mut self, tags: &[String]) -> (String, bool) {
        let mut args = vec!["snapshot", "--json"];
        for tag in tags {
            args.extend(["--tag", tag]);
        }
        let said = self.0.ok(args).json();
        (text(&said["snapshot"]).to_owned(), said["unchanged"] == true)
    }

    fn forget(&mut self, ids: &[String], _ago: i64) {
        self.0.ok([&["forget".to_owned()], ids].concat());
    }

    fn keep_last(&mut self, count: u64) -> BTreeSet<String> {
        let said = self.0.ok(["forget", "--json", "--keep-last", &count.to_string()]).json_lines();
        said.iter().filter(|one| one["forget"] == true).map(|one| text(&one["snapshot"]).to_owned()).collect()
    }

    fn undelete(&mut self, ids: Option<&[String]>) -> Result<BTreeSet<String>, String> {
        let all = ["all".to_owned()];
        let run = self.0.run([&["undelete".to_owned(), "--json".to_owned()], ids.unwrap_or(&all)].concat());
        match run.code {
            Some(0) => Ok(run.json_lines().iter().map(|one| text(&one["snapshot"]).to_owned()).collect()),
            Some(1 | 2) => Err(run.err),
            _ => panic!("{run:?}"),
        }
    }

    fn gc(&mut self, grace: bool) -> Freed {
        let args: &[&str] = if grace { &["gc", "--json", "--keep-forgotten", "1d"] } else { &["gc", "--json"] };
        let said = self.0.ok(args).json();
        assert_eq!(said["waiting_bytes"], 0, "nobody reads: {said}");
        Freed {
            reclaimed: said["reclaimed"].as_array().expect("a list").iter().map(|id| text(id).to_owned()).collect(),
            deleted: said["deleted_packs"].as_u64().expect("a number"),
            written: said["written_packs"].as_u64().expect("a number"),
        }
    }

    fn repair(&mut self) {
        self.0.ok(["repair", "index"]);
    }

    fn close(&mut self) {}

    fn lists(&mut self) -> (Vec<String>, Vec<String>) {
        (self.listed(&["snapshots", "--json"]), self.listed(&["snapshots", "--json", "--forgotten"]))
    }

    fn restore(&mut self, id: &str, target: &Path) -> Result<(), String> {
        let run = self.0.run(["restore".as_ref(), id.as_ref(), "--target".as_ref(), target.as_os_str()]);
        match run.code {
            Some(0) => Ok(()),
            Some(1 | 2) => Err(run.err),
            _ => panic!("{run:?}"),
        }
    }

    fn cat(&mut self, id: &str, path: &Path) -> Vec<u8> {
        self.0.ok(["cat".as_ref(), id.as_ref(), path.as_os_str()]).raw
    }

    fn check(&mut self) {
        self.0.check();
    }
}

// ---------------------------------------------------------------------------------------------------------------
// The model
// ---------------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    /// How long ago it was forgotten, in milliseconds.
    Forgotten(i64),
    Reclaimed,
}

struct Taken {
    id: String,
    content: Survey,
    state: State,
}

/// What was done in all sequences together.
#[derive(Default)]
struct Tally {
    sequences: AtomicU64,
    steps: AtomicU64,
    deleted: AtomicU64,
    written: AtomicU64,
    reclaimed: AtomicU64,
    brought_back: AtomicU64,
    restored: AtomicU64,
}

struct Model<'a, C> {
    place: &'a Place,
    commands: C,
    random: Random,
    taken: Vec<Taken>,
    /// What was done, for whoever has to look at a failure.
    steps: &'a RefCell<Vec<String>>,
    tally: &'a Tally,
    targets: u32,
}

impl<C: Commands> Model<'_, C> {
    fn said(&self, step: impl Into<String>) {
        self.steps.borrow_mut().push(step.into());
    }

    fn name(&self, at: usize) -> String {
        format!("#{at} ({})", &self.taken[at].id[..8])
    }

    fn those(&self, is_one: impl Fn(State) -> bool) -> Vec<usize> {
        (0..self.taken.len()).filter(|at| is_one(self.taken[*at].state)).collect()
    }

    fn live(&self) -> Vec<usize> {
        self.those(|state| state == State::Live)
    }

    fn forgotten(&self) -> Vec<usize> {
        self.those(|state| matches!(state, State::Forgotten(_)))
    }

    /// Some of `all`, at least one if there is one.
    fn some(&mut self, all: &[usize], most: u64) -> Vec<usize> {
        let mut left = all.to_vec();
        let count = (1 + self.random.below(most)).min(left.len() as u64);
        let mut some: Vec<usize> =
            (0..count).map(|_| left.swap_remove(self.random.below(left.len() as u64) as usize)).collect();
        some.sort_unstable();
        some
    }

    fn ids(&self, all: &[usize]) -> Vec<String> {
        all.iter().map(|at| self.taken[*at].id.clone()).collect()
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..=33 => self.snapshot(),
            34..=45 => self.forget(),
            46..=49 => self.keep_last(),
            50..=59 => self.undelete(),
            60..=72 => self.gc(),
            73..=75 => self.gc_beside_a_reader(),
            76..=78 => {
                self.said("repair index");
                self.commands.repair();
            }
            79..=81 => self.lose_the_index(),
            82..=84 => self.commands.check(),
            85..=91 => self.restore(),
            92..=94 => self.restore_what_was_forgotten(),
            _ => self.cat(),
        }
        self.compare_lists();
        if self.random.below(2) == 0 {
            self.commands.close();
        }
        self.tally.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// The lists are the model's.
    fn compare_lists(&mut self) {
        let lists = self.commands.lists();
        assert_eq!(lists.0, self.ids(&self.live()), "the live ones");
        assert_eq!(lists.1, self.ids(&self.forgotten()), "the forgotten ones");
    }

    fn snapshot(&mut self) {
        // Now and then nothing changes.
        let changes = self.random.below(5);
        (0..changes).for_each(|_| change(&self.place.data, &mut self.random));
        let tags = if self.random.below(4) == 0 { vec![format!("t{}", self.random.below(3))] } else { Vec::new() };
        let (id, unchanged) = self.commands.snapshot(&tags);
        let mut content = survey(&self.place.data);
        // What a policy begins to remember there is in no snapshot.
        content.retain(|path, _| !path.starts_with(".nbak-state"));
        if unchanged {
            self.said("snapshot: nothing changed");
            let one = self.taken.iter().find(|one| one.id == id).expect("it was taken before");
            assert_eq!(one.state, State::Live, "what holds everything is not forgotten: {id}");
            assert_same(&one.content, &content, "nothing changed");
            assert!(tags.is_empty(), "one with a tag is always taken");
        } else {
            assert!(self.taken.iter().all(|one| one.id != id), "{id} is new");
            self.taken.push(Taken { id, content, state: State::Live });
            self.said(format!("snapshot {} after {changes} changes, {tags:?}", self.name(self.taken.len() - 1)));
        }
        self.commands.upkeep();
    }

    fn forget(&mut self) {
        let mut ones = self.some(&self.live(), 4);
        if ones.is_empty() {
            return;
        }
        let ago = if self.commands.has_ages() { [0, DAY / 2, 2 * DAY][self.random.below(3) as usize] } else { 0 };
        if self.random.below(8) == 0 && self.commands.has_ages() {
            // One that was forgotten before stays as it is.
            ones.extend(self.some(&self.forgotten(), 1));
        }
        self.said(format!("forget {ones:?}, {ago} ms ago"));
        self.commands.forget(&self.ids(&ones), ago);
        for at in ones {
            if self.taken[at].state == State::Live {
                self.taken[at].state = State::Forgotten(ago);
            }
        }
    }

    fn keep_last(&mut self) {
        let count = 1 + self.random.below(5);
        let live = self.live();
        let gone = &live[..live.len().saturating_sub(count as usize)];
        self.said(format!("forget --keep-last {count}: {gone:?}"));
        let said = self.commands.keep_last(count);
        assert_eq!(said, self.ids(gone).into_iter().collect(), "the last {count} stay");
        for at in gone {
            self.taken[*at].state = State::Forgotten(0);
        }
    }

    fn undelete(&mut self) {
        let forgotten = self.forgotten();
        let reclaimed = self.those(|state| state == State::Reclaimed);
        match self.random.below(4) {
            0 => {
                self.said(format!("undelete all: {forgotten:?}"));
                match self.commands.undelete(None) {
                    Ok(back) => self.is_back(&forgotten, &back),
                    Err(why) => assert!(forgotten.is_empty(), "they are whole: {why}"),
                }
            }
            // Together with one that is gone: then nothing is changed.
            1 if !reclaimed.is_empty() => {
                let ones = [self.some(&reclaimed, 1), self.some(&forgotten, 2)].concat();
                self.said(format!("undelete {ones:?}, of which one is gone"));
                assert!(self.commands.undelete(Some(&self.ids(&ones))).is_err(), "it is gone");
            }
            _ if forgotten.is_empty() => {}
            _ => {
                let ones = self.some(&forgotten, 3);
                self.said(format!("undelete {ones:?}"));
                let back = self.commands.undelete(Some(&self.ids(&ones))).expect("they are whole");
                self.is_back(&ones, &back);
            }
        }
    }

    fn is_back(&mut self, ones: &[usize], said: &BTreeSet<String>) {
        assert_eq!(*said, self.ids(ones).into_iter().collect(), "what was brought back");
        for at in ones {
            self.taken[*at].state = State::Live;
        }
        self.tally.brought_back.fetch_add(ones.len() as u64, Ordering::Relaxed);
    }

    /// Notes that what was forgotten longer ago than the grace is gone.
    fn reclaim(&mut self, grace: bool) -> BTreeSet<String> {
        let gone = self.those(|state| matches!(state, State::Forgotten(ago) if !grace || ago > DAY));
        for at in &gone {
            self.taken[*at].state = State::Reclaimed;
        }
        self.tally.reclaimed.fetch_add(gone.len() as u64, Ordering::Relaxed);
        self.ids(&gone).into_iter().collect()
    }

    fn gc(&mut self) {
        let grace = self.random.below(3) == 0;
        self.said(format!("gc, {}", if grace { "of what was forgotten before yesterday" } else { "of all" }));
        let freed = self.commands.gc(grace);
        assert_eq!(freed.reclaimed, self.reclaim(grace), "what is gone");
        self.tally.deleted.fetch_add(freed.deleted, Ordering::Relaxed);
        self.tally.written.fetch_add(freed.written, Ordering::Relaxed);
        self.commands.check();
        if self.random.below(3) == 0 {
            let again = self.commands.gc(grace);
            assert!(again.reclaimed.is_empty(), "{again:?}");
            self.said(format!("gc again: {again:?}"));
        }
    }

    fn gc_beside_a_reader(&mut self) {
        if self.taken.is_empty() || !self.commands.has_ages() {
            return;
        }
        let live = self.some(&self.live(), 2);
        self.said(format!("gc beside somebody who reads {live:?}"));
        let mut targets: Vec<PathBuf> = live.iter().map(|_| self.target()).collect();
        let all: Vec<(&Taken, PathBuf)> = live.iter().map(|at| &self.taken[*at]).zip(targets.drain(..)).collect();
        let waits = self.commands.gc_beside_a_reader(&mut |read| {
            for (one, target) in &all {
                read(&one.id, target);
                assert_same(&one.content, &survey(target), "read beside a gc");
            }
        });
        for (_, target) in all {
            fs::remove_dir_all(target).expect("removed");
        }
        // As long as nothing was deleted, what was forgotten can be brought back.
        if !waits {
            self.reclaim(false);
        }
    }

    fn lose_the_index(&mut self) {
        self.commands.close();
        let path = self.place.repo.join("index.redb");
        self.said(format!("the index is deleted, if it is there: {}", path.exists()));
        let _ = fs::remove_file(path);
    }

    fn target(&mut self) -> PathBuf {
        self.targets += 1;
        self.place.path(&format!("target-{}", self.targets))
    }

    fn restore_one(&mut self, at: usize) {
        let target = self.target();
        let id = self.taken[at].id.clone();
        self.commands.restore(&id, &target).unwrap_or_else(|why| panic!("{}: {why}", self.name(at)));
        assert_same(&self.taken[at].content, &survey(&target), &self.name(at));
        fs::remove_dir_all(target).expect("removed");
        self.tally.restored.fetch_add(1, Ordering::Relaxed);
    }

    fn restore(&mut self) {
        for at in self.some(&self.live(), 1) {
            self.said(format!("restore {}", self.name(at)));
            self.restore_one(at);
        }
    }

    fn restore_what_was_forgotten(&mut self) {
        let gone = self.those(|state| state != State::Live);
        for at in self.some(&gone, 1) {
            self.said(format!("restore {}, which was forgotten", self.name(at)));
            let target = self.target();
            let id = self.taken[at].id.clone();
            assert!(self.commands.restore(&id, &target).is_err(), "{} was forgotten", self.name(at));
            assert!(!target.exists(), "nothing was made");
        }
    }

    fn cat(&mut self) {
        for at in self.some(&self.live(), 1) {
            let is_file = |path: &&PathBuf| self.taken[at].content[*path].mode & 0o17_0000 == 0o10_0000;
            let files: Vec<PathBuf> = self.taken[at].content.keys().filter(is_file).cloned().collect();
            let Some(path) = files.get(self.random.below(files.len() as u64) as usize) else { continue };
            self.said(format!("cat {} {}", self.name(at), path.display()));
            let id = self.taken[at].id.clone();
            let bytes = self.commands.cat(&id, path);
            let expected = &self.taken[at].content[path].content;
            assert_eq!(blake3::hash(&bytes).as_bytes().as_slice(), expected, "{}", path.display());
        }
    }

    /// All that is live is there; and after a `gc` of everything else too.
    fn end(&mut self) {
        self.said("the end");
        self.commands.check();
        self.live().into_iter().for_each(|at| self.restore_one(at));
        self.commands.close();
        let freed = self.commands.gc(false);
        assert_eq!(freed.reclaimed, self.reclaim(false), "what is gone");
        self.compare_lists();
        self.commands.check();
        self.commands.close();
        self.live().into_iter().for_each(|at| self.restore_one(at));
    }
}

// ---------------------------------------------------------------------------------------------------------------
// The directory
// ---------------------------------------------------------------------------------------------------------------

/// Some files of each kind: small ones, one that is cut by content, some that are cut by pages, and a database.
fn fill(data: &Path, random: &mut Random) {
    fs::create_dir(data.join("d")).expect("made");
    (0..4).for_each(|_| change(data, random));
    fs::write(data.join("pages"), random.bytes(20 * 4096)).expect("written");
    let conn = rusqlite::Connection::open(data.join(DATABASE)).expect("open");
    conn.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB, n INT);
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<150)
         INSERT INTO t SELECT x, randomblob(500), 0 FROM n;",
    )
    .expect("filled");
    conn.close().expect("closed");
}

/// One change of some kind.
fn change(data: &Path, random: &mut Random) {
    let name = |random: &mut Random| {
        let folder = if random.below(3) == 0 { "d/" } else { "" };
        data.join(format!("{folder}f{}", random.below(6)))
    };
    match random.below(12) {
        0..=2 => {
            let size = random.below(9000) as usize;
            fs::write(name(random), random.bytes(size)).expect("written");
        }
        3 => {
            let size = random.below(90_000) as usize;
            fs::write(name(random), random.prose(size)).expect("written");
        }
        // Of more chunks than a directory lists, some of them holes.
        4 if random.below(2) == 0 => change_large(&data.join("d/large"), random),
        4 => drop(fs::remove_file(name(random))),
        5 => drop(fs::rename(name(random), name(random))),
        // In place: such pages are stored as differences.
        6..=8 => {
            let path = data.join(if random.below(3) == 0 { "d/pages" } else { "pages" });
            if !path.exists() {
                fs::write(&path, random.bytes(17 * 4096)).expect("written");
            }
            let file = fs::OpenOptions::new().write(true).open(&path).expect("open");
            for _ in 0..=random.below(4) {
                file.write_all_at(&random.bytes(100), random.below(17) * 4096 + random.below(3000)).expect("written");
            }
            if random.below(10) == 0 {
                fs::remove_file(&path).expect("removed");
            }
        }
        _ => change_rows(&data.join(DATABASE), random),
    }
}

/// A file that is cut by its content: it grows, gets holes, is cut off, or begins anew.
fn change_large(path: &Path, random: &mut Random) {
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).expect("open");
    let size = file.metadata().expect("its size").len();
    let more = random.below(400_000);
    match random.below(6) {
        0 if size > 0 => file.set_len(random.below(size)).expect("cut"),
        1 | 2 => file.set_len(size + more).expect("a hole"),
        3 if size > 0 => {
            let at = random.below(size);
            file.write_all_at(&random.bytes(50), at).expect("written");
        }
        _ if size > 1_500_000 => fs::remove_file(path).expect("removed"),
        _ => {
            let text = random.prose(more as usize / 4);
            file.write_all_at(text.as_bytes(), size).expect("written");
        }
    }
}

fn change_rows(path: &Path, random: &mut Random) {
    if !path.exists() {
        return;
    }
    let conn = rusqlite::Connection::open(path).expect("open");
    conn.execute_batch("PRAGMA synchronous=OFF; BEGIN").expect("begun");
    for _ in 0..=random.below(5) {
        let row = 1 + random.below(150) as i64;
        match random.below(8) {
            0 => conn.execute("DELETE FROM t WHERE id=?1", [row]),
            1 => conn.execute("INSERT OR REPLACE INTO t VALUES(?1, randomblob(500), 1)", [row]),
            2 => conn.execute("INSERT OR REPLACE INTO t VALUES(?1, zeroblob(3000), 1)", [row]),
            _ => conn.execute("UPDATE t SET n=n+1 WHERE id=?1", [row]),
        }
        .expect("changed");
    }
    conn.execute_batch("COMMIT").expect("committed");
    conn.close().expect("closed");
}

// ---------------------------------------------------------------------------------------------------------------
// Sequences
// ---------------------------------------------------------------------------------------------------------------

/// One sequence; on a failure its seed and its steps are printed.
fn run<'p, C: Commands>(place: &'p Place, seed: u64, tally: &Tally, steps: u64, commands: impl FnOnce(&'p Place) -> C) {
    let log = RefCell::new(Vec::new());
    let done = catch_unwind(AssertUnwindSafe(|| {
        let mut random = Random::new(seed);
        fill(&place.data, &mut random);
        let (taken, targets) = (Vec::new(), 0);
        let mut model = Model { place, commands: commands(place), random, taken, steps: &log, tally, targets };
        model.snapshot();
        (0..steps).for_each(|_| model.step());
        model.end();
    }));
    if let Err(panic) = done {
        println!("NBAK_TEST_SEQUENCE={seed} failed after these {} steps:", log.borrow().len());
        for step in log.borrow().iter() {
            println!("  {step}");
        }
        std::panic::resume_unwind(panic);
    }
    tally.sequences.fetch_add(1, Ordering::Relaxed);
}

/// Thousands of small files are quicker in memory.
fn place_in_memory() -> Place {
    let root = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a folder");
    let real = root.path().canonicalize().expect("a real path");
    let (data, repo) = (real.join("data"), real.join("store"));
    for folder in [&data, &real.join("home")] {
        fs::create_dir(folder).expect("made");
    }
    Place { root, data, repo }
}

/// Does `act` with each seed, on two threads. One that is given is done alone.
fn with_seeds(what: &str, count: u32, act: impl Fn(u64) + Sync) {
    let given = std::env::var("NBAK_TEST_SEQUENCE").ok().and_then(|seed| seed.parse().ok());
    if let Some(seed) = given {
        return act(seed);
    }
    let (first, next) = (seed(what), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    act(first + u64::from(n));
                }
            });
        }
    });
}

impl Tally {
    fn print(&self, what: &str) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        println!(
            "{what}: {} sequences, {} steps; {} packs deleted, {} written; {} snapshots reclaimed, {} brought back, {} \
             restored",
            of(&self.sequences),
            of(&self.steps),
            of(&self.deleted),
            of(&self.written),
            of(&self.reclaimed),
            of(&self.brought_back),
            of(&self.restored)
        );
        let all = [&self.deleted, &self.written, &self.reclaimed, &self.brought_back, &self.restored];
        let given = std::env::var_os("NBAK_TEST_SEQUENCE").is_some();
        // A few sequences may lack one of these.
        let few = of(&self.sequences) < 100;
        assert!(given || few || all.into_iter().all(|count| of(count) > 0), "every kind of thing happened");
    }
}

#[test]
fn the_library_does_what_the_model_does() {
    let tally = Tally::default();
    with_seeds("model", rounds(LIBRARY), |seed| {
        let place = place_in_memory();
        // Long ones leave packs enough for them to be put together.
        let steps = if seed % 25 == 0 { 160 } else { 25 };
        run(&place, seed, &tally, steps, |place| Library { place, store: None });
    });
    tally.print("by the library");
}

#[test]
fn the_program_does_what_the_model_does() {
    let tally = Tally::default();
    with_seeds("model of the program", rounds(PROGRAM), |seed| {
        let place = place_in_memory();
        run(&place, seed, &tally, 25, Program);
    });
    tally.print("by the program");
}
