//! Holders of secrets: wiped when dropped, neither printable nor copyable by accident.
//!
//! [`Secret`] is key material of 32 bytes; [`Credential`] is what a person gives: the vault key or a passphrase.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::{Error, Result};

/// 32 bytes of key material.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Fresh random key material.
    pub fn random() -> Self {
        Secret(crate::id::random_bytes())
    }

    /// Takes over `bytes`; the caller's copy is wiped.
    pub fn take(bytes: &mut [u8; 32]) -> Self {
        let secret = Secret(*bytes);
        bytes.zeroize();
        secret
    }

    /// The bytes, for the one call that needs them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What examples have where a key is to go, without what is between the words.
const EXAMPLES: [&str; 6] =
    ["changeme", "changethis", "replaceme", "yourkeyhere", "yourvaultkeyhere", "yourpassphrasehere"];

/// What opens a slot.
#[derive(ZeroizeOnDrop)]
pub enum Credential {
    /// The application's vault key: its characters as they are.
    VaultKey(String),
    /// A passphrase.
    Passphrase(String),
}

impl Credential {
    /// The characters.
    pub(crate) fn expose(&self) -> &[u8] {
        match self {
            Credential::VaultKey(text) | Credential::Passphrase(text) => text.as_bytes(),
        }
    }

    /// Whether it only stands for a key, and nobody put the key in its place: a reference as shells, units, compose
    /// files and templates have them, or the words of an example. It has to be all of it: what has such a thing in it
    /// may be a passphrase.
    pub fn is_placeholder(&self) -> bool {
        let (Credential::VaultKey(text) | Credential::Passphrase(text)) = self;
        // As environment files of some programs keep them.
        let text = text.trim().trim_matches(['"', '\'']);
        let between = |open, close| {
            text.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close)).is_some_and(|name| !name.is_empty())
        };
        let is_name = |name: &str| {
            name.starts_with(|first: char| first.is_ascii_uppercase() || first == '_')
                && name.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_')
        };
        let percent = text.strip_prefix('%').and_then(|rest| rest.strip_suffix('%'));
        let is_reference =
            [("${", "}"), ("$(", ")"), ("{{", "}}"), ("<", ">"), ("#{", "}"), ("ENC[", "]"), ("__", "__")]
                .iter()
                .any(|(a, b)| between(*a, *b))
                || ["op://", "vault:", "secretref:"].iter().any(|scheme| text.starts_with(scheme))
                || [text.strip_prefix('$'), percent].into_iter().flatten().any(is_name);
        // Compared as they stand: a copy would be one that nobody wipes.
        let words = || text.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
        is_reference || EXAMPLES.iter().any(|example| words().eq(example.bytes()))
    }

    /// Fails if it only stands for a key. A reference in an environment file or a unit that nobody expands arrives here
    /// as it was written. Everybody knows these words: what is sealed under one opens for everyone, and the owner's key
    /// does not open it. So nothing new is; what is sealed so already still opens.
    pub fn refuse_placeholder(&self) -> Result<()> {
        if !self.is_placeholder() {
            return Ok(());
        }
        let what = "what was given only stands for a key: it is a reference that nobody expanded, or a placeholder";
        Err(Error::key(what).hint(
            "see where it is set (the environment, .env, the unit, the file) and put the key itself there (`openssl \
             rand -base64 48` makes one); nothing was changed",
        ))
    }

    /// Whether it has the entropy of a generated key, so that it needs no slow hash: 32 to 128 characters of
    /// base64, the pattern that the application's own keys follow. Anything else is treated as a passphrase.
    pub fn is_strong(&self) -> bool {
        match self {
            Credential::VaultKey(text) => {
                (32..=128).contains(&text.len())
                    && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/' | b'='))
            }
            Credential::Passphrase(_) => false,
        }
    }
}
