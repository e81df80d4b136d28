//! What stands for a key, and nobody put the key in its place: it seals nothing new.
//!
//! A reference in an environment file or a unit that nobody expands arrives here as it was written, and so does what a
//! template has where the key is to go. Everybody knows these words: a store that is sealed under one opens for
//! everyone, and its owner's key does not open it. One that is sealed so already still opens.

use std::path::Path;

use super::store::{Access, Store};
use crate::crypto::secret::Credential;
use crate::error::{Error, Result};

/// Fails if `credential` only stands for a key.
pub fn refuse(credential: &Credential) -> Result<()> {
    if !credential.is_placeholder() {
        return Ok(());
    }
    let what = "what was given only stands for a key: it is a reference that nobody expanded, or a placeholder";
    Err(Error::key(what).hint(
        "see where it is set (the environment, .env, the unit, the file) and put the key itself there (`openssl rand \
         -base64 48` makes one); nothing was changed",
    ))
}

/// Fails if there is no store at `root`, and the first of `credentials`, which seals a new one, only stands for a key.
pub fn refuse_for_new(root: &Path, credentials: &[Credential]) -> Result<()> {
    let Some(first) = credentials.first().filter(|first| first.is_placeholder()) else { return Ok(()) };
    match Store::open(root, credentials, Access::Read) {
        Err(error) if error.is_no_store() => refuse(first),
        _ => Ok(()),
    }
}
