//! What can go wrong, in two types that must never be mixed up.
//!
//! [`Error`] is about the *store*, the key, or the request: it ends the operation. [`SourceError`] is
//! about one entry of the data directory that could not be read: it is reported, the snapshot goes on,
//! and the command exits with 3. There is deliberately no conversion from the first to the second:
//! a store failure that dresses up as one unreadable file would be a snapshot that says it is
//! whole and is not.
//!
//! Every message says what failed, on which path, why, and where there is one, the next step.

use std::fmt;
use std::path::{Path, PathBuf};

pub mod words;

/// A result of an operation on the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Anything that has no code of its own: I/O, a full disk, an unusable target.
    Failed,
    /// The request itself makes no sense.
    Usage,
    /// There is no store where one was expected.
    NoStore,
    /// Another process holds the writer's lock.
    Locked,
    /// The key is wrong or missing.
    Key,
    /// Stored bytes are not what was written.
    Integrity,
    /// A service on the net failed or refused; what was done on this machine stands.
    Remote,
}

/// An error that ends the operation. Opaque: ask it with the `is_` methods, print it with `Display`
/// (`{:#}` appends the causes).
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: String,
    path: Option<PathBuf>,
    hint: Option<String>,
    /// The hint is about the machine: what the caller would say of the request leads astray.
    hint_stays: bool,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), path: None, hint: None, hint_stays: false, cause: None }))
    }

    /// A failure without a code of its own.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// A request that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// No store at the given place.
    pub fn no_store(message: impl Into<String>) -> Self {
        Self::new(Kind::NoStore, message)
    }

    /// Somebody else is writing.
    pub fn locked(message: impl Into<String>) -> Self {
        Self::new(Kind::Locked, message)
    }

    /// A wrong or missing key.
    pub fn key(message: impl Into<String>) -> Self {
        Self::new(Kind::Key, message)
    }

    /// Stored bytes that are damaged, missing, or not what they claim to be.
    pub fn integrity(message: impl Into<String>) -> Self {
        Self::new(Kind::Integrity, message)
    }

    /// A service on the net that failed, or refused.
    pub fn remote(message: impl Into<String>) -> Self {
        Self::new(Kind::Remote, message)
    }

    /// An I/O error on `path`. Where the system's answer alone says what to do, that is the hint; what is about the
    /// machine and not about the path stays so, whatever the caller hints at.
    pub fn io(action: &str, path: impl AsRef<Path>, cause: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let hint = match cause.kind() {
            Io::StorageFull | Io::QuotaExceeded => {
                Some(("the disk is full: free some space and try again; what was stored before is not affected", true))
            }
            Io::ReadOnlyFilesystem => Some((
                "the file system is mounted read-only: mount it for writing, or name a place that can be written",
                true,
            )),
            Io::NotADirectory => {
                Some(("something on the way there is a file and no folder: name another place, or move it", false))
            }
            Io::PermissionDenied => {
                Some(("run it as the user that this belongs to, or let this one in (chown, chmod)", false))
            }
            _ => match cause.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::MFILE) => {
                    Some(("this process has as many files open as it may: allow it more (`ulimit -n`)", true))
                }
                Some(rustix::io::Errno::NFILE) => {
                    Some(("the system has as many files open as it can: end some programs and try again", true))
                }
                _ => None,
            },
        };
        let mut error = Self::failed(format!("cannot {action}")).at(path);
        if let Some((hint, stays)) = hint {
            error = error.hint(hint);
            error.0.hint_stays = stays;
        }
        error.because(cause)
    }

    /// A thread could not be started.
    pub fn thread(cause: std::io::Error) -> Self {
        Self::failed("cannot start a thread")
            .hint("this user has as many processes and threads as it may: end some, or allow more (`ulimit -u`)")
            .because(cause)
    }

    /// Names the path the error is about.
    #[must_use]
    pub fn at(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path = Some(path.as_ref().to_path_buf());
        self
    }

    /// Tells what the reader can do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if !self.0.hint_stays {
            self.0.hint = Some(hint.into());
        }
        self
    }

    /// The same, and whoever passes it on cannot tell another: none but this one helps.
    #[must_use]
    pub fn only_hint(self, hint: impl Into<String>) -> Self {
        let mut error = self.hint(hint);
        error.0.hint_stays = true;
        error
    }

    /// Tells one thing more, behind the next step if there is one.
    #[must_use]
    pub fn also(mut self, more: impl fmt::Display) -> Self {
        self.0.hint = Some(match self.0.hint.take() {
            Some(hint) => format!("{hint}; {more}"),
            None => more.to_string(),
        });
        self
    }

    /// Attaches the cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Stored bytes are damaged, missing, or not what they claim to be.
    pub fn is_integrity(&self) -> bool {
        self.0.kind == Kind::Integrity
    }

    /// Stored bytes are damaged, or the medium cannot read them any more (`EIO`).
    pub fn is_damage(&self) -> bool {
        let cause = self.0.cause.as_ref().and_then(|cause| cause.downcast_ref::<std::io::Error>());
        let is_medium = cause.is_some_and(|cause| cause.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()));
        self.is_integrity() || is_medium
    }

    /// There was no room left on the disk, or for this user.
    pub fn is_full(&self) -> bool {
        let cause = self.0.cause.as_ref().and_then(|cause| cause.downcast_ref::<std::io::Error>());
        cause.is_some_and(|cause| {
            matches!(cause.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        })
    }

    /// The key is wrong or missing.
    pub fn is_key(&self) -> bool {
        self.0.kind == Kind::Key
    }

    /// There is no store.
    pub fn is_no_store(&self) -> bool {
        self.0.kind == Kind::NoStore
    }

    /// The same as the failure of something on the net: what was to be done on this machine is done.
    #[must_use]
    pub fn into_remote(mut self) -> Self {
        self.0.kind = Kind::Remote;
        self
    }

    /// A service on the net failed.
    pub fn is_remote(&self) -> bool {
        self.0.kind == Kind::Remote
    }

    /// Another process holds the lock.
    pub fn is_locked(&self) -> bool {
        self.0.kind == Kind::Locked
    }

    /// The request makes no sense.
    pub fn is_usage(&self) -> bool {
        self.0.kind == Kind::Usage
    }

    /// The next step, if there is one.
    pub fn next_step(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// What failed and why, without the path and the next step: for whoever names those otherwise.
    pub fn what(&self) -> String {
        match &self.0.cause {
            Some(cause) => format!("{}: {cause}", self.0.message),
            None => self.0.message.clone(),
        }
    }

    /// The process exit code that stands for this error.
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NoStore => 10,
            Kind::Locked => 11,
            Kind::Key => 12,
            Kind::Integrity => 13,
            Kind::Remote => 14,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(path) = &self.0.path {
            write!(f, ": {}", path.display())?;
        }
        if let Some(cause) = &self.0.cause {
            write!(f, ": {cause}")?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_ref().map(|c| &**c as &(dyn std::error::Error + 'static))
    }
}

/// One entry of the data directory that could not be captured. The snapshot goes on without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError {
    /// The entry, relative to the data directory.
    pub path: PathBuf,
    /// Why it could not be read, in words.
    pub reason: String,
}

impl SourceError {
    /// `path` could not be captured because of `reason`.
    pub fn new(path: impl Into<PathBuf>, reason: impl fmt::Display) -> Self {
        SourceError { path: path.into(), reason: reason.to_string() }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_the_machine_is_said_whatever_else_is_hinted_at() {
        let of = |errno: rustix::io::Errno| Error::io("open", "/p", errno.into()).hint("look at /p").to_string();
        for (errno, word) in [
            (rustix::io::Errno::MFILE, "ulimit -n"),
            (rustix::io::Errno::NFILE, "end some programs"),
            (rustix::io::Errno::ROFS, "read-only"),
            (rustix::io::Errno::NOSPC, "free some space"),
        ] {
            let text = of(errno);
            assert!(text.contains("/p") && text.contains(word) && !text.contains("look at"), "{text}");
        }
        for (errno, word) in [(rustix::io::Errno::ACCESS, "chmod"), (rustix::io::Errno::NOTDIR, "a file and no folder")]
        {
            let plain = Error::io("open", "/p", errno.into()).to_string();
            assert!(plain.contains(word), "{plain}");
            assert!(of(errno).contains("look at /p"), "who knows the request better says so");
        }
        let both = Error::io("write", "/p", rustix::io::Errno::NOSPC.into()).also("3 files stay");
        assert!(both.to_string().ends_with("not affected; 3 files stay)"), "{both}");
    }
}
