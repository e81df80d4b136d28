//! What time it is, in the units that snapshots count in.
//!
//! A clock that stands before 1970 is taken to stand there.

pub(super) use crate::source::clock::now_nanos;

/// When a capture began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By the clock of the files ([`crate::source::clock`]).
    pub began: i128,
    /// Since when that clock went evenly, by itself, as far as that is known ([`super::steady`]).
    pub steady: i128,
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    (now_nanos() / 1_000_000) as i64
}
