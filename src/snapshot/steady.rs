//! Since when the clock went evenly.
//!
//! A stamp tells how long ago a file was written ([`super::receipt`]) only as long as nobody set the clock. A machine
//! that was paused, or learned the time late, sets it forward: what was written a second ago looks a minute old. So the
//! index has a note of when this clock was first compared with one that nobody sets, and by how much they differed. If
//! they differ by that much still, it went evenly since. What is stamped before that is at least as old as the note.
//!
//! Dirty pages age by that other clock too: neither goes on while the machine sleeps.

use super::now::now_nanos;
use super::taking::Taking;
use crate::codec::{Malformed, Reader, put_signed, put_varint};
use crate::source::clock::ahead;

/// So far apart, in nanoseconds, they may be, and count as even: it comes off the minute that receipts wait, of which
/// the kernel needs 35 seconds.
const DRIFT: i128 = 5_000_000_000;

/// The comparison that is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steady {
    /// When it was made first.
    since: i128,
    /// How far the clock was ahead of the other.
    ahead: i128,
}

impl Steady {
    /// Made now.
    pub(super) fn now() -> Steady {
        Steady { since: now_nanos(), ahead: ahead() }
    }

    /// As it was `noted`, if that holds `now`.
    fn kept(noted: Option<Steady>, now: Steady) -> Steady {
        noted.filter(|noted| (noted.ahead - now.ahead).abs() <= DRIFT && noted.since <= now.since).unwrap_or(now)
    }

    fn encode(self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [self.since, self.ahead] {
            put_signed(&mut out, number.div_euclid(1_000_000_000) as i64);
            put_varint(&mut out, number.rem_euclid(1_000_000_000) as u64);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Steady, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut number = || Ok(i128::from(reader.signed()?) * 1_000_000_000 + i128::from(reader.varint()?));
        let steady = Steady { since: number()?, ahead: number()? };
        reader.end()?;
        Ok(steady)
    }
}

fn note_name(source: &str) -> String {
    format!("clock {source}")
}

impl Taking<'_> {
    /// Since when the clock went evenly, as far as snapshots of `source` know.
    pub(super) fn steady_since(&self, source: &str) -> i128 {
        self.steady(source).since.min(self.began)
    }

    fn noted(&self, source: &str) -> Option<Steady> {
        let note = self.store.catalog().index().note(&note_name(source))?;
        Steady::decode(&note).ok()
    }

    fn steady(&self, source: &str) -> Steady {
        Steady::kept(self.noted(source), Steady::now())
    }

    /// Whether the clock was set since this snapshot began. Then the stamps of files that were read meanwhile do not
    /// tell how old they are.
    pub(super) fn clock_was_set(&self) -> bool {
        (ahead() - self.ahead).abs() > DRIFT
    }

    /// Has the next snapshot of `source` know it.
    pub(super) fn note_clock(&mut self, source: &str) {
        let steady = self.steady(source);
        if self.noted(source) != Some(steady) {
            self.store.catalog_mut().index_mut().leave_note(&note_name(source), &steady.encode());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_begins_anew() {
        let second = 1_000_000_000;
        let noted = Steady { since: 1000 * second, ahead: 900 * second };
        for (since, ahead, is_kept) in [
            (2000, 900, true),
            (2000, 904, true),
            (2000, 896, true),
            (2000, 906, false),
            (2000, 894, false),
            (2000, 990, false),
            (999, 900, false),
        ] {
            let now = Steady { since: since * second, ahead: ahead * second };
            assert_eq!(Steady::kept(Some(noted), now), if is_kept { noted } else { now }, "{since} {ahead}");
        }
        assert_eq!(Steady::kept(None, noted), noted);
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        for (since, ahead) in [(0, 0), (1_700_000_000_123_456_789, 1_600_000_000_999_999_999), (5, -7)] {
            let steady = Steady { since, ahead };
            assert_eq!(Steady::decode(&steady.encode()), Ok(steady));
        }
    }
}
