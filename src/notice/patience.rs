//! How often, how long apart and how long at all something is tried.
//!
//! A notice that comes late is better than none, but whoever waits for it to be sent has backups to make: all is over
//! after [`Patience::whole`], whatever the other side does.

use std::time::Duration;

/// However it is configured, nothing is tried more often.
pub const TRIES_MOST: u32 = 3;

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How often it is tried, up to three times.
    pub tries: u32,
    /// The first wait between two tries; the next is four times as long.
    pub first: Duration,
    /// The longest wait, also of those that a server asks for.
    pub longest: Duration,
    /// How long one request may take, or one step of handing over a letter.
    pub step: Duration,
    /// How long a command may run.
    pub command: Duration,
    /// How long all tries of one channel may take.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            tries: TRIES_MOST,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(10),
            step: Duration::from_secs(15),
            command: Duration::from_secs(30),
            whole: Duration::from_secs(100),
        }
    }
}

impl Patience {
    /// How long to wait after so many tries, of which there is one at least; the server may have asked for a time.
    pub(super) fn wait(&self, done: u32, asked: Option<Duration>) -> Duration {
        let own = self.first.saturating_mul(1 << (2 * (done.max(1) - 1)).min(16));
        asked.map_or(own, |asked| asked.max(own)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let patience = Patience::default();
        let seconds = |done, asked: Option<u64>| patience.wait(done, asked.map(Duration::from_secs)).as_secs();
        assert_eq!([seconds(1, None), seconds(2, None), seconds(3, None), seconds(99, None)], [1, 4, 10, 10]);
        assert_eq!([seconds(1, Some(5)), seconds(1, Some(86_400)), seconds(2, Some(0))], [5, 10, 4]);
    }
}
