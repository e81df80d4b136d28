//! What happens by itself: by a schedule, before updates, and when something is wrong.
//!
//! Nouns: a *job* is a backup, a snapshot or a drill; the *plan* says when one is due ([`plan`]), by a clock that tests
//! can drive ([`clock`]); the *state* is what a daemon knows from one life to the next ([`state`]). [`daemon`] is the
//! loop, and does nothing itself: each job is the program again, as a process of its own ([`child`]). So the daemon's
//! memory stays what it was, a job that is killed takes nobody along, and what a job does is what a person gets who
//! types it. [`watch`] tells people. [`startup`] makes the backup before an update. [`health`] gathers how things
//! stand, for `status`, `doctor` and [`metrics`].

pub mod around;
pub mod checks;
pub mod child;
pub mod clock;
pub mod daemon;
pub mod health;
pub mod metrics;
pub mod plan;
pub mod startup;
pub mod state;
pub mod watch;
