//! What a backup lacks of its data directory, in its manifest.
//!
//! The message of the MAC is what it was before manifests said this, so that a reader that does not know these fields
//! finds the MAC valid. They are vouched for by way of the salt, which the MAC is over: of an incomplete backup it is
//! random in its first part alone. The second says that there is something, and the third what. So nothing can be
//! changed, added, or taken away. That the salt of a complete backup looks as if there were something happens once in
//! 2^64.

use sha2::{Digest, Sha256};

use super::put_text;
use crate::snapshot::lack::Lack;
use crate::snapshot::record::{MOST_UNREADABLE, within_bounds};

/// What is at the head of the hash that the second part is of.
const MARK_LABEL: &str = "nbak v1 incomplete backup";
/// And the third.
const WHAT_LABEL: &str = "nbak v1 lacks of a backup";
/// So many bytes of the salt stay random.
const RANDOM: usize = 12;
/// Where what it lacks begins.
const WHAT: usize = 20;

/// What a backup lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lacks {
    /// Entries that are not in it, and why, the first [`MOST_UNREADABLE`] of them. The first may be what says that it
    /// is a mixture ([`crate::snapshot::lack`]).
    pub named: Vec<(String, String)>,
    /// How many there are; 0 for a backup that is complete.
    pub count: u64,
}

impl Lacks {
    /// What a backup lacks of which `left_out` is not in it of a snapshot that lacked `count` entries, some of them
    /// `named`.
    pub fn of(named: &[(String, String)], count: u64, left_out: impl Iterator<Item = (String, String)>) -> Lacks {
        let left_out: Vec<_> = left_out.collect();
        let count = count + left_out.len() as u64;
        let named: Vec<_> = named.iter().cloned().chain(left_out).collect();
        Lacks { named: within_bounds(&named), count }
    }

    /// How much, in words too.
    pub fn lack(&self) -> Lack {
        Lack::of(&self.named, self.count)
    }

    /// Fails if no manifest can say this.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.named.len() > MOST_UNREADABLE {
            return Err(format!("`lacks` has more than {MOST_UNREADABLE} entries"));
        }
        if self.count < self.named.len() as u64 {
            return Err("`lacks_count` is less than `lacks` has".to_owned());
        }
        Ok(())
    }

    /// The salt for a manifest that says this: `random`, if there is nothing.
    pub fn salt(&self, random: [u8; 32]) -> [u8; 32] {
        let mut salt = random;
        if self.count > 0 {
            salt[RANDOM..WHAT].copy_from_slice(&mark(&random)[..WHAT - RANDOM]);
            salt[WHAT..].copy_from_slice(&self.what(&random)[..32 - WHAT]);
        }
        salt
    }

    /// Whether a manifest with this `salt` says this, no more and no less.
    pub fn is_in(&self, salt: &[u8; 32]) -> bool {
        let is_marked = salt[RANDOM..WHAT] == mark(salt)[..WHAT - RANDOM];
        match self.count {
            0 => !is_marked,
            _ => is_marked && salt[WHAT..] == self.what(salt)[..32 - WHAT],
        }
    }

    /// SHA-256 over: a label, the random part, the count, how many are named, and each path and reason.
    fn what(&self, salt: &[u8; 32]) -> [u8; 32] {
        let mut input = Vec::new();
        put_text(&mut input, WHAT_LABEL);
        input.extend_from_slice(&salt[..RANDOM]);
        input.extend_from_slice(&self.count.to_le_bytes());
        input.extend_from_slice(&(self.named.len() as u64).to_le_bytes());
        for (path, reason) in &self.named {
            put_text(&mut input, path);
            put_text(&mut input, reason);
        }
        Sha256::digest(input).into()
    }
}

/// SHA-256 over a label and the random part.
fn mark(salt: &[u8; 32]) -> [u8; 32] {
    let mut input = Vec::new();
    put_text(&mut input, MARK_LABEL);
    input.extend_from_slice(&salt[..RANDOM]);
    Sha256::digest(input).into()
}
