//! Replacing files of a live data directory by staged ones, so that a crash leaves the old or the new content.
//!
//! Nouns: the *staging* (`.nbak-restore/`, in the data directory, so on its file system) holds what is to be restored
//! in `new/` and what stood in the way in `old/`; the *intent* is the journal in it that says what goes where. What
//! must not go with the staging is *kept* in `.nbak-kept-<time>/`.
//!
//! Flow: the caller fills `new/`. [`replace`] compares it with what is live, looks ahead for everything that can be
//! known to go wrong, takes the databases away from whoever might open them, and writes the intent. Up to there, what
//! is live means what it meant before. From there on, it is finished: by `replace` itself, or after a crash by
//! [`recover_untouched`] if nobody wrote to any of it since ([`pending`]), else by [`recover`] when a person asks for
//! it; or a person has it given up ([`abandon`]). Only when all of it stands in place and was compared does the intent
//! go, and then what was replaced.
//!
//! - **Nothing is deleted before the end.** A file is exchanged with the staged one in one step, and then stands in the
//!   staging itself. A path is never without a file in between.
//! - **No old log beside a new database.** A database is switched to a rollback journal first, which only works if
//!   nobody else has it open, and takes its write-ahead log and shared memory away; it is then held exclusively until
//!   it was exchanged. What stands beside it all the same goes before the database does; and so does what stands beside
//!   anything else under such names ([`mod@company`]), which may be a database all the same.
//! - **Forward only.** A move is still to be done if the staged file, told by its inode, stands in the staging; so a
//!   move is done once, and never swapped back. The inode alone is compared, since device numbers change when a
//!   machine starts again. A copy of the directory, where all inodes are others, is told ([`origin`]), and is not
//!   finished.
//! - **Given up is given up.** That is noted in the staging before anything is kept aside; from then on nobody finishes
//!   it, and who comes next goes on giving it up ([`given_up`]).
//! - **What was written meanwhile is kept.** What is found in place of what the intent names is not in the safety
//!   backup; nor is a folder that has anything below it that was not there then ([`old`]).
//!
//! Databases are only ever opened through SQLite's own file layer (I10): closing any other descriptor of one would drop
//! the locks by which it is held here.

mod apply;
mod asked;
mod attributes;
pub mod beside;
mod called;
mod company;
mod databases;
mod door;
mod given_up;
mod intent;
mod linked;
mod old;
mod opened;
mod origin;
pub mod pending;
mod plan;
mod root;
mod staging;
mod taken;
mod through;
mod trust;
mod versions;

pub use asked::{Abandoned, Ended, Options, Replaced};
pub use company::of as company;
pub use door::{abandon, recover, recover_untouched, replace};
pub use plan::hash_live;
pub use staging::Staging;
pub use taken::look_for_openers;
