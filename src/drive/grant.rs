//! What a person granted, and where it is kept.
//!
//! A file of this program's own in the data directory, 0600, written aside and renamed. With a vault key it is sealed:
//! AES-256-GCM under a key that comes from the vault key and a salt that is drawn for each writing, so that no key and
//! nonce occur twice. Without one it stands in the clear, and whoever asks is told so. A snapshot never has it: names
//! that begin with `.nbak-` are left out.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::secret::Credential;
use crate::crypto::vault::{GRANT_SALT, open_grant, seal_grant};
use crate::error::{Error, Result};
use crate::export::files::{read_bounded, write_durably};
use crate::source::own::make_room;

/// Where it is in the data directory.
pub const FILE: &str = ".nbak-state/google.json";
/// It is at most this long, in bytes.
const MOST: u64 = 64 * 1024;

/// What was granted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whose program it was granted to.
    pub client_id: String,
    /// What was granted, as Google said it.
    pub scope: String,
    /// Gives access tokens, until it is revoked.
    pub refresh_token: Zeroizing<String>,
    /// When it was granted, in milliseconds since 1970.
    pub granted_ms: i64,
    /// The last access token.
    pub access_token: Zeroizing<String>,
    /// When that expires.
    pub expires_ms: i64,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Wire {
    format: u32,
    /// Of the sealing key, base64; none if it is not sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
    /// The grant as JSON, sealed; base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grant: Option<Grant>,
}

/// Where a grant is kept, and what seals it.
pub struct Keeper {
    path: PathBuf,
    vaults: Vec<Credential>,
}

impl Keeper {
    /// The grant of `data_dir`, sealed by the first vault key of `credentials` and opened by any.
    pub fn new(data_dir: &Path, credentials: Vec<Credential>) -> Keeper {
        let vaults = credentials.into_iter().filter(|one| matches!(one, Credential::VaultKey(_))).collect();
        Keeper { path: data_dir.join(FILE), vaults }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether what is stored from now on is sealed.
    pub fn seals(&self) -> bool {
        !self.vaults.is_empty()
    }

    /// Whether what is kept is sealed, by the file itself; no if there is none that can be read.
    pub fn is_sealed(&self) -> bool {
        self.wire().ok().flatten().is_some_and(|wire| wire.sealed.is_some() && wire.grant.is_none())
    }

    fn bad(&self, why: &str) -> Error {
        Error::failed(format!("what Google granted cannot be read: {why}"))
            .at(&self.path)
            .hint("run `nbak auth google` again")
    }

    /// The file, if there is one.
    fn wire(&self) -> Result<Option<Wire>> {
        let bytes = match read_bounded(&self.path, MOST) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read what Google granted", &self.path, error)),
        };
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|_| self.bad("it is malformed"))?;
        if wire.format != 1 {
            return Err(self.bad("it is of another format version: use a newer nbak"));
        }
        Ok(Some(wire))
    }

    /// The grant, if there is one. One that stands in the clear is sealed as soon as there is a key.
    pub fn load(&self) -> Result<Option<Grant>> {
        let bad = |why: &str| self.bad(why);
        let Some(wire) = self.wire()? else { return Ok(None) };
        let (Some(salt), Some(sealed)) = (&wire.salt, &wire.sealed) else {
            let grant = wire.grant.ok_or_else(|| bad("it is empty"))?;
            if self.seals() {
                // What fails is told by whoever asks whether it is sealed.
                let _ = self.store(&grant);
            }
            return Ok(Some(grant));
        };
        let salt = salt_of(salt).ok_or_else(|| bad("its salt is malformed"))?;
        let sealed = STANDARD.decode(sealed).map_err(|_| bad("it is malformed"))?;
        let opened = self.vaults.iter().find_map(|vault| open_grant(vault, &salt, &sealed));
        let Some(plain) = opened.map(Zeroizing::new) else {
            let what = if self.vaults.is_empty() {
                "what Google granted is sealed under the vault key, and none is given"
            } else {
                "what Google granted is sealed under another vault key"
            };
            return Err(Error::key(what)
                .at(&self.path)
                .hint("give that key with --vault-key-file, or run `nbak auth google` again"));
        };
        serde_json::from_slice(&plain).map(Some).map_err(|_| bad("it is malformed"))
    }

    /// Keeps `grant` in the place of what was kept.
    pub fn store(&self, grant: &Grant) -> Result<()> {
        let wire = match self.vaults.first() {
            None => Wire { format: 1, salt: None, sealed: None, grant: Some(grant.clone()) },
            Some(vault) => {
                let plain = Zeroizing::new(serde_json::to_vec(grant).expect("strings and numbers have a JSON form"));
                let salt: [u8; GRANT_SALT] = crate::id::random_bytes();
                let sealed = seal_grant(vault, &salt, &plain)
                    .ok_or_else(|| Error::failed("there is not enough memory to derive a key").at(&self.path))?;
                Wire {
                    format: 1,
                    salt: Some(STANDARD.encode(salt)),
                    sealed: Some(STANDARD.encode(sealed)),
                    grant: None,
                }
            }
        };
        let bytes = Zeroizing::new(serde_json::to_vec(&wire).expect("strings and numbers have a JSON form"));
        make_room(&self.path).map_err(|error| Error::io("keep what Google granted", &self.path, error))?;
        write_durably(&self.path, &bytes)
    }

    /// Forgets what was kept; answers whether there was something.
    pub fn remove(&self) -> Result<bool> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("remove what Google granted", &self.path, error)),
        }
    }
}

fn salt_of(text: &str) -> Option<[u8; GRANT_SALT]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn grant() -> Grant {
        Grant {
            client_id: "client".to_owned(),
            scope: "drive".to_owned(),
            refresh_token: Zeroizing::new("refresh-this".to_owned()),
            granted_ms: 5,
            access_token: Zeroizing::new("access-that".to_owned()),
            expires_ms: 7,
        }
    }

    fn vault(key: &str) -> Vec<Credential> {
        vec![Credential::VaultKey(key.to_owned())]
    }

    const KEY: &str = "c29tZSBrZXkgb2Ygc29tZSBsZW5ndGggZm9yIGEgdGVzdA==";

    #[test]
    fn it_is_sealed_by_the_vault_key_and_opens_with_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = Keeper::new(folder.path(), vault(KEY));
        assert!(keeper.load().expect("nothing is there").is_none());
        keeper.store(&grant()).expect("stored");
        let bytes = std::fs::read(keeper.path()).expect("there");
        let text = String::from_utf8(bytes).expect("JSON");
        assert!(!text.contains("refresh") && !text.contains("access-that") && !text.contains("client"), "{text}");
        let mode = std::fs::metadata(keeper.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(keeper.load().expect("opens") == Some(grant()));
        let other = Keeper::new(folder.path(), vault("YW5vdGhlciBrZXkgb2YgdGhlIHNhbWUgbGVuZ3RoIG5vdA=="));
        assert!(other.load().is_err_and(|error| error.is_key()));
        assert!(Keeper::new(folder.path(), Vec::new()).load().is_err_and(|error| error.is_key()));
        assert!(keeper.remove().expect("removed") && !keeper.remove().expect("not there"));
    }

    #[test]
    fn without_a_key_it_stands_in_the_clear() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = Keeper::new(folder.path(), Vec::new());
        keeper.store(&grant()).expect("stored");
        assert!(!keeper.seals() && keeper.load().expect("opens") == Some(grant()));
        for malformed in ["", "{}", r#"{"format":2}"#, r#"{"format":1}"#, r#"{"format":1,"salt":"é","sealed":""}"#] {
            std::fs::write(keeper.path(), malformed).expect("written");
            assert!(keeper.load().is_err(), "{malformed}");
        }
    }
}
