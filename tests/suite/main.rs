//! What nbak promises, tried with the real program, real databases, real processes that die, and real servers.
//!
//! One program for nearly all of it: a program for each file would be linked for each file, and take most of the time.
//! The others beside it need a process of their own: they bound or measure its memory (`hostile`, `backup_hostile`,
//! `fuzz_replay`), or need nothing of nbak (`tidy`). A file of this folder is a topic; run it by name:
//! `cargo test --test suite damage::`.

/// The name by which this program runs a test of the module that says this, and no other.
macro_rules! own_name {
    ($test:literal) => {
        concat!(module_path!(), "::", $test).split_once("::").expect("this program's name comes first").1
    };
}

mod adversary;
mod alike;
mod anomaly;
mod away;
mod backup;
mod backup_format;
mod backup_hostile_restore;
mod backup_read;
mod backup_reference;
mod canary;
mod capture;
mod cli;
mod common;
mod crash;
mod cron;
mod daemon;
mod daemon_common;
mod daemon_told;
mod damage;
mod delta;
mod disturbed;
mod drill;
mod drills;
mod drive;
mod drive_common;
mod ending;
mod fake_drive;
mod fidelity;
mod full_disk;
mod gc_faults;
mod golden_cuts;
mod golden_store;
mod handed_over;
mod heal;
mod hostile_backup;
mod images;
mod inplace;
mod keys;
mod live_common;
mod misled;
mod model;
mod named;
mod night;
mod notice;
mod notice_common;
mod objects;
mod packaging;
mod plain;
mod power;
mod replaced;
mod retention;
mod rollback;
mod scan;
mod seals;
mod secrecy;
mod shared;
mod startup;
mod stats;
mod still;
mod subtrees;
mod swapped;
mod target;
mod thrash;
mod together;
mod under_fire;
mod wal_delta;
mod whose;
mod wrong_key;
