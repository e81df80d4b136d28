//! What time it is for the files: the clock that their stamps are of.
//!
//! Whether something may have changed after a given moment is asked of its stamp. A file system on a disk of this
//! machine takes its times from this machine's clock. One that another machine keeps (a server on the network, the host
//! of a virtual machine) takes them from that one's, which may be behind: there a change of now looks older than it is.
//! Nobody can ask what time it is there. But each time of change that was seen there says that it was at least that. So
//! there the newest that was seen stands for *now*: it is never later than the files' clock, and earlier only by as
//! long as nothing changed. Only the time of change (ctime) counts, since anybody may set the other.
//!
//! The clock of this machine may be set back in between: what is stamped then looks older by as much.

use std::cell::Cell;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::medium;
use super::mounts::Mounts;

/// Nanoseconds: above the tick of any kernel's coarse clock (10 ms), within which two changes get one time.
pub const TICK: i128 = 20_000_000;
/// Nanoseconds: the same where times look as if the file system counts in whole seconds, or in two.
pub const COARSE_TICK: i128 = 3_000_000_000;

/// Nanoseconds since 1970 by the clock of this machine, or 0 before that.
pub fn now_nanos() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128)
}

/// Nanoseconds by a clock of this machine that nobody sets.
fn unset_nanos() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

/// How far the clock of this machine is ahead of one that nobody sets, in nanoseconds.
pub fn ahead() -> i128 {
    let other = unset_nanos();
    now_nanos() - other
}

/// The clock of the files of one directory.
#[derive(Debug)]
pub struct Clock {
    /// The newest time of change that was seen, where it is another machine's.
    newest: Option<Cell<i128>>,
    /// How far this machine's was ahead of one that nobody sets, when this was made.
    ahead: i128,
}

impl Clock {
    /// That of the files in `root`, with what is mounted below it.
    pub fn of(root: &Path, mounts: &Mounts) -> Clock {
        Clock::of_machine(medium::is_of_this_machine(root, mounts))
    }

    /// That of this machine, or of another one.
    pub(crate) fn of_machine(is_ours: bool) -> Clock {
        Clock { newest: (!is_ours).then(|| Cell::new(i128::MIN)), ahead: ahead() }
    }

    /// Whether it is this machine's.
    pub fn is_ours(&self) -> bool {
        self.newest.is_none()
    }

    /// Has seen a time of change, in nanoseconds since 1970.
    pub fn see(&self, changed: i128) {
        if let Some(newest) = &self.newest {
            newest.set(newest.get().max(changed));
        }
    }

    /// A time, in nanoseconds since 1970, that it shows now, or showed earlier.
    pub fn now(&self) -> i128 {
        self.newest.as_ref().map_or_else(now_nanos, Cell::get)
    }

    /// A time that no stamp of after `when`, which was [`Self::now`], lies before.
    pub fn least_after(&self, when: i128) -> i128 {
        if !self.is_ours() {
            return when;
        }
        // In this order, so that who has to wait in between takes it for set back rather than for right.
        let now = now_nanos();
        when - (self.ahead - (now - unset_nanos())).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_there_tells_the_time_of_another_machine() {
        let clock = Clock::of_machine(false);
        for (seen, now) in [(100, 100), (50, 100), (700, 700)] {
            clock.see(seen);
            assert_eq!((clock.now(), clock.least_after(clock.now())), (now, now));
        }
    }

    #[test]
    fn a_clock_that_was_set_back_stamps_earlier() {
        let clock = Clock::of_machine(true);
        let when = clock.now();
        clock.see(when * 2);
        let even = when - clock.least_after(when);
        assert!((0..1_000_000_000).contains(&even), "{even}");
        let second = 1_000_000_000;
        let set = Clock { ahead: clock.ahead + 5 * second, ..Clock::of_machine(true) };
        assert!(set.least_after(when) <= when - 5 * second);
        let forward = Clock { ahead: clock.ahead - 5 * second, ..Clock::of_machine(true) };
        assert_eq!(forward.least_after(when), when);
    }
}
