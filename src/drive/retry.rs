//! How often, and how long apart, something is tried again.
//!
//! Truncated exponential backoff with jitter: the n-th wait is drawn from the upper half of 2^n times the first, up to
//! the longest; what the server asks for goes before it, up to a bound. Tries are counted, so that nothing goes on for
//! ever. Progress starts the count anew, since a large file on a bad line may break many times and still get there.

use std::time::Duration;

use super::http::Trouble;
use crate::error::{Error, Result};
use crate::id::random_bytes;

/// The longest wait that a server may ask for.
const ASKED_MOST: Duration = Duration::from_mins(2);

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The first wait.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
    /// How often something is tried that gets nowhere.
    pub tries: u32,
    /// Told of the second try and those after it: nobody likes to wait and not know for what.
    pub tell: Option<fn(&str)>,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { first: Duration::from_millis(500), longest: Duration::from_secs(32), tries: 8, tell: None }
    }
}

/// Tries of one thing.
pub struct Tries {
    patience: Patience,
    done: u32,
}

impl Patience {
    /// Begins to try something.
    pub fn begin(self) -> Tries {
        Tries { patience: self, done: 0 }
    }
}

impl Tries {
    /// It got somewhere: the count starts anew.
    pub fn progress(&mut self) {
        self.done = 0;
    }

    /// Waits before the next try, or fails if there have been enough, with `what` was tried and `why` it failed.
    pub fn again(&mut self, what: &str, why: &str, asked: Option<Duration>) -> Result<()> {
        self.done += 1;
        if self.done >= self.patience.tries {
            return Err(Error::remote(format!("{what}: {why}, {} times", self.done))
                .hint("what is done so far is kept: run it again later"));
        }
        if let Some(tell) = self.patience.tell.filter(|_| self.done > 1) {
            tell(&format!("{what}: {why}; trying again"));
        }
        let full = self.patience.first.saturating_mul(1 << (self.done - 1).min(16)).min(self.patience.longest);
        let part = f64::from(u32::from_le_bytes(random_bytes())) / f64::from(u32::MAX);
        let wait = full.mul_f64(0.5 + part / 2.0);
        std::thread::sleep(asked.map_or(wait, |asked| asked.min(ASKED_MOST).max(wait)));
        Ok(())
    }

    /// The same for trouble: what does not pass is the error at once. A token that is not accepted is no matter of
    /// waiting, and for whoever has it.
    pub fn after(&mut self, what: &str, trouble: Trouble) -> Result<()> {
        match trouble {
            Trouble::Passing(why, asked) => self.again(what, &why, asked),
            Trouble::Token => self.again(what, "the access token is not accepted", None),
            Trouble::Lasting(error) => Err(error),
        }
    }
}
