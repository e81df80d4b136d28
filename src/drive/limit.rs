//! A bound on how fast bytes go over the line, for all connections together.
//!
//! Each piece that goes is charged, and whoever is ahead of the rate sleeps until it is not. There is no burst: what
//! was not used while nothing happened is not saved up beyond a moment.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What may be made up for after a pause.
const MOMENT: Duration = Duration::from_millis(200);

/// A rate, shared by all who send and receive.
pub struct Limit {
    bytes_per_second: Option<u64>,
    /// When the next byte may go.
    next: Mutex<Instant>,
}

impl Limit {
    /// At most so many bytes in a second; nothing for no limit.
    pub fn new(bytes_per_second: Option<u64>) -> Limit {
        Limit { bytes_per_second: bytes_per_second.filter(|rate| *rate > 0), next: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` more may go.
    pub fn take(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let until = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let earliest = now.checked_sub(MOMENT).unwrap_or(now);
            *next = (*next).max(earliest) + cost;
            *next
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_by_several_together() {
        let limit = Limit::new(Some(1_000_000));
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..10).for_each(|_| limit.take(20_000)));
            }
        });
        let took = start.elapsed().as_secs_f64();
        assert!(took > 0.35, "600,000 bytes went in {took} s");
        Limit::new(None).take(usize::MAX);
        Limit::new(Some(0)).take(usize::MAX);
    }
}
