//! A command of the user's own: `sh -c`, the notice as JSON on its standard input.
//!
//! It gets no key of this program's, and it has an end: after its time it is killed with all that it started and that
//! did not leave its process group. Nothing here waits for a pipe: a command that does not read keeps nobody, and what
//! it prints is nobody's. What a notice says reaches the shell in variables only, never in its words.

use std::io::{ErrorKind, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::deliver::{Deliver, Letter, Trouble};
use super::fields::Fields;
use super::secret::Secret;

/// What no command gets to see.
const KEYS: [&str; 4] = ["NODYN_VAULT_KEY", "LYNOX_VAULT_KEY", "GOOGLE_CLIENT_SECRET", "NBAK_NOTIFY"];
/// How often it is looked whether a command has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Runs a command. Its line is never told: there may be a key in it.
pub(super) struct Command {
    line: Zeroizing<String>,
}

impl Command {
    /// As configured.
    pub fn parse(all: &Map<String, Value>) -> Result<Command, String> {
        Fields::of(all, &["command"], &[])?;
        let line = match all.get("command") {
            None => return Err("`command` is missing".to_owned()),
            Some(Value::String(line)) if line.trim().is_empty() => return Err("`command` is empty".to_owned()),
            Some(Value::String(line)) if line.contains('\0') => return Err("`command` has a NUL in it".to_owned()),
            Some(Value::String(line)) => line,
            Some(_) => return Err("`command` is no text".to_owned()),
        };
        Ok(Command { line: Zeroizing::new(line.clone()) })
    }
}

impl Deliver for Command {
    fn kind(&self) -> &'static str {
        "command"
    }

    fn host(&self) -> Option<String> {
        None
    }

    fn secrets(&self) -> Vec<&Secret> {
        // Its line is never told, but `date` is a word like any other in what others are told.
        Vec::new()
    }

    fn once(&self, letter: &Letter) -> Result<(), Trouble> {
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(self.line.as_str()).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        for key in KEYS {
            command.env_remove(key);
        }
        command.env("NBAK_EVENT", letter.notice.event.as_str()).env("NBAK_TITLE", &letter.notice.title);
        let mut child =
            command.spawn().map_err(|error| Trouble::passing(format!("it cannot be started: {}", error.kind())))?;
        let status = match watch(&mut child, &letter.notice.json(), letter.patience.command) {
            Ok(Some(status)) => status,
            Ok(None) => {
                kill(&mut child);
                return Err(Trouble::Lasting(format!(
                    "it did not end within {} s, and was killed",
                    letter.patience.command.as_secs_f32()
                )));
            }
            Err(error) => {
                kill(&mut child);
                return Err(Trouble::passing(format!("it cannot be watched: {}", error.kind())));
            }
        };
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(code @ (126 | 127)), _) => {
                Err(Trouble::Lasting(format!("it ended with {code}: something in it cannot be run")))
            }
            (Some(code), _) => Err(Trouble::passing(format!("it ended with {code}"))),
            (None, signal) => Err(Trouble::passing(format!("signal {} ended it", signal.unwrap_or(0)))),
        }
    }
}

/// Gives `input` to it, and waits until it has ended; nothing if it has not in time.
fn watch(child: &mut Child, input: &[u8], time: Duration) -> std::io::Result<Option<ExitStatus>> {
    let until = Instant::now() + time;
    let (mut stdin, mut left) = (child.stdin.take(), input);
    if let Some(pipe) = &stdin {
        fcntl_setfl(pipe, fcntl_getfl(pipe)? | OFlags::NONBLOCK)?;
    }
    loop {
        if let Some(pipe) = &mut stdin {
            left = give(pipe, left)?;
        }
        if left.is_empty() {
            // The end of what there is to read.
            stdin = None;
        }
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

/// Writes what the pipe takes, and says what is left; nothing if nobody reads.
fn give<'a>(pipe: &mut ChildStdin, mut left: &'a [u8]) -> std::io::Result<&'a [u8]> {
    while !left.is_empty() {
        match pipe.write(left) {
            Ok(written) => left = &left[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(&[]),
            Err(error) => return Err(error),
        }
    }
    Ok(left)
}

/// Ends it with its process group. It was not waited for yet, so its number is still its own.
fn kill(child: &mut Child) {
    if let Ok(Some(group)) = i32::try_from(child.id()).map(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}
