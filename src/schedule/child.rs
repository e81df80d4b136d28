//! A job is this program again, as a process of its own.
//!
//! It is in a process group of its own, has a lower priority than the application, and half of the cores; if the daemon
//! dies it is told to end too, so that no second one begins beside it. What it prints is kept up to a bound. While it
//! runs the daemon goes on to answer: to the supervisor, and to signals, of which one that ends the daemon ends the job
//! within [`PATIENCE`].

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use rustix::process::{Pid, Signal, kill_process_group};

use super::clock::Woken;

/// Is set for such a process, to the process that started it.
pub const VARIABLE: &str = "NBAK_CHILD";
/// How long a job has to end when it is told to, before it is killed.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often the daemon looks up while a job runs, at least.
pub const LOOK: Duration = Duration::from_secs(5);
/// How long what it printed is waited for once it has ended.
const LEFT: Duration = Duration::from_secs(2);
/// So much of what it says about itself is kept, in bytes.
const KEPT: usize = 4 * 1024 * 1024;
/// So much of its result, which is of no use if it is cut.
const OUT_MOST: usize = 32 * 1024 * 1024;

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; none if a signal ended it, or it could not be started.
    pub code: Option<i32>,
    /// What it printed.
    pub out: String,
    /// What it said besides.
    pub err: String,
    /// How long it took, in milliseconds.
    pub took: i64,
    /// It was ended, since the daemon is to end.
    pub ended: bool,
    /// Meanwhile the configuration was asked to be read again.
    pub reload: bool,
}

impl Ran {
    /// The last error that it said, or how it ended.
    pub fn message(&self) -> String {
        let last = self.err.lines().rev().find_map(|line| line.strip_prefix("error: "));
        match (last, self.code) {
            (Some(error), _) => error.to_owned(),
            (None, Some(code)) => format!("it ended with exit code {code}"),
            (None, None) => "a signal ended it".to_owned(),
        }
    }

    /// The results that it printed, if they are JSON.
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// Runs jobs.
pub trait Work {
    /// Runs the program with `args`; calls `meanwhile` now and then.
    fn run(&self, args: &[&str], meanwhile: &mut dyn FnMut()) -> Ran;
}

/// Runs them as processes.
pub struct Processes<'a> {
    /// This program.
    pub program: OsString,
    /// The arguments that all of them get.
    pub common: Vec<OsString>,
    /// What signals ask for.
    pub signals: Receiver<Woken>,
    /// Variables that all of them get, as things are now.
    pub variables: &'a dyn Fn() -> Vec<(&'static str, &'static str)>,
    /// Called now and then while one runs.
    pub alive: &'a dyn Fn(),
    /// How often.
    pub look: Duration,
}

impl Work for Processes<'_> {
    fn run(&self, args: &[&str], meanwhile: &mut dyn FnMut()) -> Ran {
        let start = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(args).args(&self.common).env(VARIABLE, std::process::id().to_string()).process_group(0);
        command.envs((self.variables)());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut ran = match command.spawn() {
            Ok(child) => self.attend(child, meanwhile),
            Err(error) => Ran { err: format!("error: the program cannot be started: {error}"), ..Ran::default() },
        };
        ran.took = start.elapsed().as_millis() as i64;
        ran
    }
}

impl Processes<'_> {
    fn attend(&self, mut child: Child, meanwhile: &mut dyn FnMut()) -> Ran {
        let group = Pid::from_child(&child);
        let out = child.stdout.take().map(|pipe| keep(pipe, OUT_MOST));
        let err = child.stderr.take().map(|pipe| keep(pipe, KEPT));
        let (done, ended) = bounded(1);
        let waiter = std::thread::spawn(move || {
            let _ = done.send(child.wait());
        });
        let mut ran = Ran::default();
        let mut deadline: Option<Instant> = None;
        let status = loop {
            let left = deadline.map_or(self.look, |at| at.saturating_duration_since(Instant::now()).min(self.look));
            crossbeam_channel::select! {
                recv(ended) -> status => break status.ok().and_then(Result::ok),
                recv(self.signals) -> woken => match woken {
                    Ok(Woken::Reload) => ran.reload = true,
                    Ok(Woken::End) if deadline.is_none() => {
                        ran.ended = true;
                        deadline = Some(Instant::now() + PATIENCE);
                        let _ = kill_process_group(group, Signal::TERM);
                    }
                    _ => {}
                },
                default(left) => {}
            }
            (self.alive)();
            if deadline.is_none() {
                meanwhile();
            }
            if deadline.is_some_and(|at| Instant::now() >= at) {
                let _ = kill_process_group(group, Signal::KILL);
                deadline = Some(Instant::now() + PATIENCE);
            }
        };
        let _ = waiter.join();
        ran.code = status.and_then(|status| status.code());
        let until = Instant::now() + LEFT;
        ran.out = out.map(|kept| kept.text(until)).unwrap_or_default();
        ran.err = err.map(|kept| kept.text(until)).unwrap_or_default();
        ran
    }
}

/// What came out of a pipe so far.
struct Kept {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

/// Reads all of a pipe, and keeps the last of it, at most so many bytes.
fn keep(mut pipe: impl Read + Send + 'static, most: usize) -> Kept {
    let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (end, ended) = bounded(1);
    let kept = bytes.clone();
    std::thread::spawn(move || {
        let mut block = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = pipe.read(&mut block) {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&block[..read]);
            if kept.len() > most {
                let more = kept.len() - most / 2;
                kept.drain(..more);
            }
        }
        // Nobody waits any more if it comes late.
        let _ = end.send(());
    });
    Kept { bytes, ended }
}

impl Kept {
    /// All of it once the pipe has ended, or what there is at `until`: what the process started may hold its end of the
    /// pipe for as long as it likes.
    fn text(&self, until: Instant) -> String {
        let _ = self.ended.recv_deadline(until);
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// What a process does at its start that is such a job. Each is for the comfort of others: if it cannot be, it is not.
pub fn settle_in() {
    if let Some(parent) = std::env::var_os(VARIABLE) {
        #[cfg(any(target_os = "linux", target_os = "freebsd"))]
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
        end_without(parent.to_str().and_then(|id| id.parse().ok()));
        let _ = rustix::process::nice(10);
    }
}

/// Ends this process if the daemon that started it is gone already: of that death no signal comes any more. What a job
/// starts has the variable too; it has no group of its own, and is left alone.
fn end_without(parent: Option<i32>) {
    use rustix::process::{getpgrp, getpid, getppid, kill_process};
    let (own, now) = (getpid(), getppid().map(Pid::as_raw_nonzero));
    if parent.is_some() && getpgrp() == own && now.map(std::num::NonZero::get) != parent {
        let _ = kill_process(own, Signal::TERM);
    }
}

/// Whether this process is such a job.
pub fn is_job() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// How many threads such a process has, of so many.
pub fn threads(all: usize) -> usize {
    if is_job() { all.div_ceil(2) } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_its_pipe_holds_nobody_else() {
        let (_give, signals) = bounded(1);
        let work = Processes {
            program: "/bin/sh".into(),
            common: Vec::new(),
            signals,
            variables: &Vec::new,
            alive: &|| {},
            look: Duration::from_millis(50),
        };
        let start = Instant::now();
        let ran = work.run(&["-c", "sleep 30 & echo said; exit 3"], &mut || {});
        assert_eq!((ran.code, ran.out.as_str()), (Some(3), "said\n"));
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
