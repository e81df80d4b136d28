//! Where a vault key or a passphrase is read from: a file, a command, the environment, the data directory's `.env`.
//!
//! What it is read into is made once, large enough, and wiped: a buffer that grows leaves the key behind in what it
//! outgrew, and a process that runs for months would keep it there.

use std::env::VarError;
use std::fs;
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::output;
use crate::crypto::secret::Credential;
use crate::error::{Error, Result};

/// The environment variables that hold the vault key.
const VARIABLES: [&str; 2] = ["NODYN_VAULT_KEY", "LYNOX_VAULT_KEY"];
/// A key or a passphrase is at most this long, in bytes.
const LIMIT: usize = 4096;
/// So long a command that gives a key may take where it can ask nobody.
const PATIENCE: Duration = Duration::from_mins(1);
/// It is looked so often whether this process is to end meanwhile.
const STEP: Duration = Duration::from_millis(200);
/// So much of an `.env` file is looked at, in bytes.
const ENV_FILE_LIMIT: u64 = 1 << 20;

/// Whether this process is to end.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// From now on nobody is waited for who gives a key: this process is to end.
pub fn give_up() {
    GIVEN_UP.store(true, Ordering::Relaxed);
}

/// Tells of a vault key that is none: it opens what it sealed, and who made a mistake would not know.
pub fn warn_of_weak(what: &str, credential: &Credential) {
    if credential.is_placeholder() {
        return output::warning(format!(
            "{what} only stands for a key (a reference that nobody expanded, or a placeholder): what it seals opens \
             for everyone; put a key in its place with `nbak key rotate`"
        ));
    }
    if let Credential::VaultKey(key) = credential
        && !credential.is_strong()
    {
        let why =
            if key.len() < 32 { "is shorter than 32 characters" } else { "is not 32 to 128 characters of base64" };
        output::warning(format!("{what} {why}: it is treated as a passphrase, which is slower"));
    }
}

/// What editors put before the first letter of a text. It is no part of a key: nobody types it, and no variable has it.
const MARK: char = '\u{feff}';

/// A key that was read.
pub struct Given {
    /// The key.
    pub key: String,
    /// A byte order mark stood before it.
    marked: bool,
}

impl Given {
    /// What may open a store, each made by `credential`: the key, and after it the key with the mark that stood before
    /// it. Earlier versions took that for a part of the key, and what they sealed so has to open.
    pub fn into_openers(self, credential: fn(String) -> Credential) -> impl Iterator<Item = Credential> {
        let marked = self.marked.then(|| format!("{MARK}{}", self.key));
        [Some(self.key), marked].into_iter().flatten().map(credential)
    }
}

/// The first line of a file.
pub fn of_file(path: &Path) -> Result<Given> {
    let failed = |error: io::Error| {
        let error = Error::key("cannot read a key").at(path).because(error);
        error.hint("name a file that this user can read, with the key in its first line")
    };
    // It may be a pipe, and whoever writes to it may never come.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    // What a shell hands over (`/dev/fd/63`, `/dev/stdin`) has somebody at its other end from the beginning.
    let is_handed = path.starts_with("/dev") || path.starts_with("/proc");
    let waits = !is_handed && !file.metadata().map_err(failed)?.is_file();
    let bytes = read_wiped(&mut Waiting { file, waits, start: Instant::now() }, LIMIT).map_err(failed)?;
    first_line(&bytes, &path.display().to_string())
}

/// A file that is waited for as long as nothing comes from it, if it is no plain one.
struct Waiting {
    file: fs::File,
    /// Whether whoever writes to it may come later.
    waits: bool,
    start: Instant,
}

impl Read for Waiting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buffer) {
                // Nobody has opened its other end, or nobody has written.
                Ok(0) if self.waits => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => {
                    self.waits &= !matches!(read, Ok(1..));
                    return read;
                }
            }
            if is_over(self.start) {
                let what = format!("nothing came from it within {} s", PATIENCE.as_secs());
                return Err(io::Error::new(ErrorKind::TimedOut, what));
            }
            std::thread::sleep(STEP);
        }
    }
}

/// Whether what was waited for since `start` is not to be waited for any more. Where a terminal is somebody may be
/// asked, for as long as that takes.
fn is_over(start: Instant) -> bool {
    GIVEN_UP.load(Ordering::Relaxed) || !io::stdin().is_terminal() && start.elapsed() >= PATIENCE
}

/// The first line of what a command prints. Where there is a terminal it may ask somebody, for as long as that takes.
pub fn of_command(command: &str) -> Result<Given> {
    let failed = |error: io::Error| Error::key("cannot run the command that gives the key").because(error);
    let mut shell = Command::new("/bin/sh");
    let mut child = shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let out = child.stdout.take();
    let read = move || {
        out.map_or_else(
            || Ok(Zeroizing::default()),
            |mut out| {
                let bytes = read_wiped(&mut out, LIMIT)?;
                // What it says besides is nothing to us, but it must not fail for being unable to say it.
                io::copy(&mut out, &mut io::sink())?;
                Ok(bytes)
            },
        )
    };
    let (give, take) = crossbeam_channel::bounded(1);
    // Nobody waits any more if it comes late.
    let read = move || drop(give.send(read()));
    std::thread::Builder::new().name("key".to_owned()).spawn(read).map_err(Error::thread)?;
    let start = Instant::now();
    let bytes = loop {
        match take.recv_timeout(STEP) {
            Ok(bytes) => break Some(bytes),
            Err(RecvTimeoutError::Timeout) if !is_over(start) => {}
            Err(_) => break None,
        }
    };
    let Some(bytes) = bytes else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(Error::key(format!("the command that gives the key did not end within {} s", PATIENCE.as_secs()))
            .hint("nobody is at a terminal whom it could ask"));
    };
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(Error::key(format!("the command that gives the key failed ({status})")));
    }
    first_line(&bytes.map_err(failed)?, "what the command printed")
}

/// The vault keys in the environment.
pub fn in_environment() -> Result<Vec<Credential>> {
    let mut found = Vec::new();
    for name in VARIABLES {
        match std::env::var(name).map(Zeroizing::new) {
            Ok(key) if !key.trim().is_empty() => found.push(Credential::VaultKey(key.trim().to_owned())),
            Ok(_) | Err(VarError::NotPresent) => {}
            // To go on without it would make a store that is not protected.
            Err(VarError::NotUnicode(_)) => return Err(Error::key(format!("{name} holds a key that is not UTF-8"))),
        }
    }
    Ok(found)
}

/// The vault key in the application's own `.env`. One that others can read or could have put there is refused: to go on
/// without it would make a store that is not protected.
pub fn in_env_file(path: &Path) -> Result<Option<Credential>> {
    let refused = |why: &str, next: &str| {
        Err(Error::key(format!("refusing to take the vault key from a file that {why}"))
            .at(path)
            .hint(format!("{next}, or set NODYN_VAULT_KEY")))
    };
    let refuse = |why: &str| refused(why, "mend it (chmod 600)");
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound || error.kind() == ErrorKind::NotADirectory => {
            return Ok(None);
        }
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return refuse("is a symbolic link");
        }
        Err(error) => return Err(Error::key("cannot read the vault key").at(path).because(error)),
    };
    let meta = file.metadata().map_err(|error| Error::io("look at", path, error))?;
    if !meta.is_file() {
        return refuse("is no regular file");
    }
    let failed = |error| Error::io("read", path, error);
    let most = usize::try_from(meta.len().min(ENV_FILE_LIMIT)).unwrap_or(LIMIT);
    let bytes = read_wiped(&mut file, most).map_err(failed)?;
    let text = str::from_utf8(&bytes).map_err(|error| failed(io::Error::other(error)))?;
    let key = key_in(text).map_err(|line| {
        Error::key(format!("line {line} names the vault key, and cannot be understood"))
            .at(path)
            .hint("write it as NODYN_VAULT_KEY=…, with nothing behind it")
    })?;
    match key {
        Some(_) if meta.uid() != rustix::process::geteuid().as_raw() => {
            refused("belongs to another user", "run this as that user, give the file to this one (chown)")
        }
        Some(_) if meta.mode() & 0o077 != 0 => refuse("others can read or write"),
        key => Ok(key.map(Credential::VaultKey)),
    }
}

/// Reads at most so many bytes, into the one place from which they are wiped.
fn read_wiped(from: &mut impl Read, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; most]);
    let mut length = 0;
    while length < most {
        match from.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(got) => length += got,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn first_line(bytes: &[u8], place: &str) -> Result<Given> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = str::from_utf8(line).map_err(|_| Error::key(format!("the key in {place} is not UTF-8")))?;
    let unmarked = line.strip_prefix(MARK);
    let line = unmarked.unwrap_or(line).trim();
    if line.is_empty() {
        return Err(
            Error::key(format!("there is no key in {place}")).hint("its first line must be the key, and is empty")
        );
    }
    // An environment file: the line would be taken for a passphrase that nobody knows.
    let name = line.trim_start_matches("export ").split_once('=').map(|(name, _)| name.trim());
    if let Some(name) = name.filter(|name| VARIABLES.contains(name)) {
        return Err(Error::key(format!("the first line of {place} is a setting of {name}, and not a key by itself"))
            .hint(
                "the key in the data directory's .env is found without being named; else put the key alone in a file",
            ));
    }
    Ok(Given { key: line.to_owned(), marked: unmarked.is_some() })
}

/// The vault key that the text of an `.env` file sets, or the number of a line that names it and cannot be understood.
/// Quotes, blanks, `export` and comments are taken as the application takes them, and of several lines the last counts.
fn key_in(text: &str) -> std::result::Result<Option<String>, usize> {
    let mut found = None;
    for (at, line) in text.trim_start_matches(MARK).lines().enumerate() {
        let line = line.trim();
        let line =
            line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(line).trim_start();
        let Some(rest) = VARIABLES.iter().find_map(|name| line.strip_prefix(name)) else { continue };
        if rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let value = rest.trim_start().strip_prefix('=').ok_or(at + 1)?.trim();
        let key = match value.chars().next() {
            Some(quote @ ('"' | '\'' | '`')) => {
                let (key, rest) = value[1..].split_once(quote).ok_or(at + 1)?;
                let rest = rest.trim_start();
                if !rest.is_empty() && !rest.starts_with('#') {
                    return Err(at + 1);
                }
                key
            }
            _ => value.split('#').next().unwrap_or_default().trim(),
        };
        if key.contains(char::is_whitespace) {
            return Err(at + 1);
        }
        found = (!key.is_empty()).then(|| key.to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_an_env_file_are_taken_as_the_application_takes_them() {
        for line in
            ["NAME=K", "NAME = K", "export   NAME=K", "NAME=K # note", "NAME=\"K\" # note", "NAME=`K`", "NAME='K'"]
        {
            let text = format!("\u{feff}# first\n{}\n", line.replace("NAME", "NODYN_VAULT_KEY"));
            assert_eq!(key_in(&text), Ok(Some("K".to_owned())), "{line}");
        }
        assert_eq!(key_in("NODYN_VAULT_KEY=old\nNODYN_VAULT_KEY=new"), Ok(Some("new".to_owned())), "the last counts");
        assert_eq!(key_in("NODYN_VAULT_KEY_OLD=x\n# NODYN_VAULT_KEY=y"), Ok(None));
        for line in ["NODYN_VAULT_KEY: K", "NODYN_VAULT_KEY=\"K", "NODYN_VAULT_KEY=a b", "NODYN_VAULT_KEY"] {
            assert_eq!(key_in(line), Err(1), "{line}");
        }
    }

    #[test]
    fn keys_in_an_env_file_are_found_or_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(".env");
        assert!(matches!(in_env_file(&path), Ok(None)));
        fs::write(&path, "A=1\nexport NODYN_VAULT_KEY=\"abc\"\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        assert!(in_env_file(&path).is_err(), "others can read it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        assert!(matches!(in_env_file(&path), Ok(Some(Credential::VaultKey(ref key))) if key == "abc"));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        assert!(in_env_file(&link).is_err(), "a link");
    }

    #[test]
    fn only_the_first_line_has_to_be_text_and_no_more_than_the_limit_is_read() {
        let mut long = vec![b'x'; LIMIT];
        long[3] = b'\n';
        long[9] = 0xff;
        long.extend([b'y'; 100]);
        let mut from = long.as_slice();
        let bytes = read_wiped(&mut from, LIMIT).expect("read");
        assert_eq!((bytes.len(), from.len()), (LIMIT, 100));
        assert_eq!(first_line(&bytes, "here").expect("a key").key, "xxx");
        assert!(first_line(&long[9..], "here").is_err());
    }
}
