//! The time, and waiting for it.
//!
//! A wait is never longer than [`LONGEST`], and the wall clock is looked at again after each: a machine that slept, or
//! whose clock was set, is noticed then. Tests have a clock of their own, which goes as fast as they like.

use std::time::Duration;

/// The longest wait before the wall clock is looked at again.
pub const LONGEST: Duration = Duration::from_secs(20);

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The time is over.
    Time,
    /// The process is to end.
    End,
    /// The configuration is to be read again.
    Reload,
}

/// Time.
pub trait Clock {
    /// Milliseconds since 1970.
    fn now(&self) -> i64;
    /// Waits, at most `most`.
    fn wait(&self, most: Duration) -> Woken;
    /// Milliseconds since this machine was started, its sleep counted, whatever its clock was set to; if that is known.
    fn ran(&self) -> Option<i64> {
        None
    }
}

/// The machine's clock; signals end a wait.
pub struct Machine {
    /// Gives what a signal asks for.
    pub signals: crossbeam_channel::Receiver<Woken>,
}

impl Clock for Machine {
    fn now(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond()
    }

    fn wait(&self, most: Duration) -> Woken {
        self.signals.recv_timeout(most.min(LONGEST)).unwrap_or(Woken::Time)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn ran(&self) -> Option<i64> {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Some(time.tv_sec * 1000 + i64::from(time.tv_nsec as i32) / 1_000_000)
    }
}
