//! What is a key to a channel: given in the configuration, or in a file that is read when it is needed.
//!
//! It wipes itself and does not print. A file is read anew for each notice, so that a new token needs no restart; it
//! has to be a plain file of one line, since a pipe that nobody writes to would keep everybody waiting.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// A secret is at most this long, in bytes.
const MOST: u64 = 4096;

/// Where a secret comes from.
pub(super) enum Secret {
    /// From the configuration.
    Given(Zeroizing<String>),
    /// From a file.
    File(PathBuf),
}

impl Secret {
    /// What it is now. An error says which file, and nothing of what is in it.
    pub fn read(&self) -> Result<Zeroizing<String>, String> {
        let path = match self {
            Secret::Given(text) => return Ok(text.clone()),
            Secret::File(path) => path,
        };
        let failed = |why: &str| format!("cannot read {}: {why}", path.display());
        let io = |error: std::io::Error| failed(&error.kind().to_string());
        // Looked at before it is opened: to open a pipe waits for somebody who writes.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(failed("it is no plain file"));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MOST as usize + 1));
        File::open(path).map_err(io)?.take(MOST + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MOST {
            return Err(failed("it is longer than any secret"));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| failed("it is no text"))?.trim();
        if text.is_empty() {
            return Err(failed("it is empty"));
        }
        if text.chars().any(char::is_control) {
            return Err(failed("it has more than one line"));
        }
        Ok(Zeroizing::new(text.to_owned()))
    }

    /// The one that stands in the configuration.
    pub fn given(&self) -> Option<&str> {
        match self {
            Secret::Given(text) => Some(text),
            Secret::File(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_line_and_is_read_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let secret = Secret::File(path.clone());
        assert!(secret.read().expect_err("none").contains("token"));
        for (text, expected) in [("first\n", "first"), (" second\r\n", "second")] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(secret.read().expect("a secret").as_str(), expected);
        }
        for text in ["", "\n", "hunter\ntwo", &"x".repeat(5000)] {
            std::fs::write(&path, text).expect("written");
            let error = secret.read().expect_err("refused");
            assert!(!error.contains("hunter") && !error.contains("xx"), "{error}");
        }
        assert!(Secret::File(folder.path().to_owned()).read().expect_err("a folder").contains("no plain file"));
    }
}
