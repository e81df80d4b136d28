//! What time it is, in the units that snapshots count in.
//!
//! A clock that stands before 1970 is taken to stand there.

use std::time::{SystemTime, UNIX_EPOCH};

/// When a capture began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By the clock, in nanoseconds since 1970.
    pub began: i128,
    /// Since when that clock went evenly, by itself ([`super::steady`]).
    pub steady: i128,
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    (now_nanos() / 1_000_000) as i64
}

/// Nanoseconds since 1970.
pub(super) fn now_nanos() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128)
}
