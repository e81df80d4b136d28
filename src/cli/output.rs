//! Printing: results, messages, sizes, progress bars.
//!
//! Results go to stdout, everything else to stderr, and names of files are made harmless on the way.

use std::io::{ErrorKind, IsTerminal, Write};
use std::os::fd::AsRawFd as _;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::Value;

use super::given;
pub use crate::error::words::{count, shown, size, time, zone};
use crate::error::{Error, Result};
use crate::snapshot::progress::Progress;

/// Why results are missing from stdout, if some are.
static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// Prints a line of a result. A reader that went away (`nbak ls | head`) is no error; what else goes wrong is
/// remembered for [`complete`].
pub fn line(text: impl AsRef<str>) {
    result(&shown(text.as_ref()));
}

fn result(text: &str) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{text}")
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = LOST.set(error);
    }
}

/// Closes stdout, and fails if a result could not be printed: a list that was cut short by a full disk must not pass
/// for the whole. Some file systems say only at the closing that they have no room. Nothing can be printed after it.
pub fn complete() -> Result<()> {
    let failed =
        |error: &std::io::Error| Err(Error::failed(format!("cannot write the results to standard output: {error}")));
    match (LOST.get(), nix::unistd::close(std::io::stdout().as_raw_fd()).map_err(std::io::Error::from)) {
        (None, Ok(())) => Ok(()),
        (Some(error), _) => failed(error),
        (None, Err(error)) => failed(&error),
    }
}

/// Prints a result of many lines that this program made itself.
pub fn text(text: &str) {
    text.lines().for_each(result);
}

/// Prints a result as one line of JSON.
pub fn json(value: &Value) {
    result(&value.to_string());
}

/// Prints a line of a result that says what to do next.
pub fn advice(text: impl AsRef<str>) {
    line(given::complete(text.as_ref()));
}

/// Prints a message.
pub fn message(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", shown(&given::complete(text.as_ref())));
}

/// Prints a warning.
pub fn warning(text: impl AsRef<str>) {
    message(format!("warning: {}", text.as_ref()));
}

/// Prints the error that ends the program.
pub fn error(error: &Error) {
    message(format!("error: {error}"));
}

/// A time for programs.
pub fn iso(milliseconds: i64) -> Value {
    Timestamp::from_millisecond(milliseconds).map_or(Value::Null, |moment| Value::from(format!("{moment:.3}")))
}

/// Progress bars on stderr.
#[derive(Default)]
pub struct Bars {
    shown: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Bars {
    /// Bars if stderr is a terminal and they are `wanted`.
    pub fn new(wanted: bool) -> Self {
        Bars { shown: wanted && std::io::stderr().is_terminal(), bar: Mutex::default() }
    }

    fn with(&self, act: impl FnOnce(&mut Option<ProgressBar>)) {
        if self.shown {
            act(&mut self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        }
    }
}

impl Progress for Bars {
    fn begin(&self, what: &str, total: u64) {
        self.with(|bar| {
            let style = ProgressStyle::with_template(
                "{msg:12} {wide_bar} {percent:>3}% {bytes_per_sec} {elapsed_precise} (left: {eta})",
            );
            let fresh = ProgressBar::new(total).with_message(what.to_owned());
            fresh.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            // The bar's own thread panics if it cannot be made: one is tried first.
            if std::thread::Builder::new().spawn(|| ()).is_ok_and(|thread| thread.join().is_ok()) {
                fresh.enable_steady_tick(Duration::from_millis(200));
            }
            *bar = Some(fresh);
        });
    }

    fn advance(&self, bytes: u64) {
        self.with(|bar| bar.iter().for_each(|bar| bar.inc(bytes)));
    }

    fn end(&self) {
        self.with(|bar| bar.take().iter().for_each(ProgressBar::finish_and_clear));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1000), "1.0 kB");
        assert_eq!(size(999_960), "1.0 MB");
        assert_eq!(size(u64::MAX), "18446.7 PB");
        assert_eq!(iso(0), Value::from("1970-01-01T00:00:00.000Z"));
    }
}
