//! What a signal that ends a command leaves: no plaintext.
//!
//! A thread waits for the signals that people, supervisors, timers and limits end a program with, removes what is noted
//! in [`crate::source::passing`], and then lets the signal do what it does by itself, so that whoever waits for this
//! process sees that it was ended by it. The work itself is not waited for, as it was not before: the store, and a
//! restore that has its journal, bear to be cut off at any point. The daemon listens by itself, and its jobs are
//! processes like any other.
//!
//! A file that would get larger than the limit (`ulimit -f`) is an error of the write like a full disk, and no signal.
//!
//! A signal that was to be ignored when this process was started (`nohup`) stays ignored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{
    SIGABRT, SIGALRM, SIGHUP, SIGINT, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::output;
use crate::source::passing::{left, sweep};

/// What people, supervisors (the watchdog of one sends SIGABRT), timers and limits end a process with.
const ENDING: [i32; 11] =
    [SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGABRT, SIGXCPU, SIGALRM, SIGVTALRM, SIGPROF, SIGUSR1, SIGUSR2];

/// Whether a signal ends this process.
static ENDS: AtomicBool = AtomicBool::new(false);

/// Listens from here on. If it cannot, signals end this process as they do any other.
pub fn listen() {
    let ignored = ignored();
    let wanted = ENDING.into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    // The thread first: a signal that is caught and that nobody hears would be lost.
    let (give, take) = crossbeam_channel::bounded::<Signals>(1);
    let wait = move || {
        let Some(signal) = take.recv().ok().and_then(|mut signals| signals.forever().next()) else { return };
        ENDS.store(true, Ordering::SeqCst);
        sweep();
        let _ = emulate_default_handler(signal);
    };
    if std::thread::Builder::new().name("signals".to_owned()).spawn(wait).is_ok()
        && let Ok(signals) = Signals::new(wanted)
    {
        let _ = give.send(signals);
    }
}

/// Makes what goes over the limit for the size of a file an error of the write.
pub fn outlive_large_files() {
    // Caught, and not ignored: a command that is started from here is to have what everybody has.
    let _ = flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// Waits for the end, if a signal ends this process: what failed since then failed for want of what was swept, and is
/// nothing to tell.
pub fn await_end() {
    while ENDS.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Names what was to be gone by now, and could not be removed.
pub fn tell_left() {
    for path in left() {
        output::warning(format!(
            "{}: this could not be removed, and may hold plaintext: remove it, or the next such command does",
            path.display()
        ));
    }
}

/// The signals that are ignored, a bit for each, from the lowest for 1.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
