//! What comes from the vault key besides key slots: the keys of the documented backup.
//!
//! The key of NBAK files is the application's: HKDF-SHA256 (RFC 5869) over the vault key's characters as they are, with
//! the application's own salt and info. It is the same for every file and every backup of one vault key, which is why a
//! seal draws its nonce at random and why seals are counted (S3).
//!
//! The manifest's key is ours, and comes from one of two places ([`MacSource`]). A vault key with little entropy is
//! slowed down by Argon2id there: an unencrypted backup must not become a quick way to try vault keys.

use aes_gcm::aead::Aead;
use aes_gcm::{Aes256Gcm, Nonce};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::keys::{Keys, derive};
use super::secret::{Credential, Secret};
use super::slot::{ARGON2, stretch};

/// What separates one use of the vault key from another, in the application's own terms.
#[derive(Debug, Clone, Copy)]
pub struct Labels {
    /// HKDF's salt.
    pub salt: &'static [u8],
    /// HKDF's info.
    pub info: &'static [u8],
}

/// The key of the NBAK files that `vault` seals.
pub fn nbak_key(vault: &Credential, labels: Labels) -> Secret {
    derive(labels.salt, vault.expose(), &[labels.info])
}

/// Names a vault key in the count of its seals, without telling it: one more HKDF output beside the key itself.
pub fn nbak_name(vault: &Credential, labels: Labels) -> [u8; 8] {
    let name = derive(labels.salt, vault.expose(), &[b"nbak v1 seal count"]);
    let mut short = [0; 8];
    short.copy_from_slice(&name.expose()[..8]);
    short
}

/// What a manifest's MAC is keyed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacSource {
    /// The vault key, which has the entropy of a generated key.
    Vault,
    /// The vault key, slowed down.
    VaultArgon2id,
    /// The store's master key: there was no vault key.
    Store,
}

impl MacSource {
    /// What a backup made with `vault` uses.
    pub fn of(vault: Option<&Credential>) -> MacSource {
        match vault {
            None => MacSource::Store,
            Some(vault) if vault.is_strong() => MacSource::Vault,
            Some(_) => MacSource::VaultArgon2id,
        }
    }

    /// The word in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            MacSource::Vault => "vault",
            MacSource::VaultArgon2id => "vault-argon2id",
            MacSource::Store => "store",
        }
    }

    /// The source that the manifest calls `word`.
    pub fn parse(word: &str) -> Option<MacSource> {
        [MacSource::Vault, MacSource::VaultArgon2id, MacSource::Store].into_iter().find(|own| own.as_str() == word)
    }
}

const MAC_INFO: &[u8] = b"nbak v1 manifest mac";

/// The key of a manifest's MAC from the vault key; nothing if `source` is not one of the vault key.
pub fn mac_key_of_vault(vault: &Credential, source: MacSource, salt: &[u8; 32]) -> Option<Secret> {
    match source {
        MacSource::Vault => Some(derive(salt, vault.expose(), &[MAC_INFO])),
        MacSource::VaultArgon2id => {
            let slow = stretch(vault, salt, ARGON2)?;
            Some(derive(salt, slow.expose(), &[MAC_INFO]))
        }
        MacSource::Store => None,
    }
}

/// The key of a manifest's MAC from a store.
pub fn mac_key_of_store(keys: &Keys, salt: &[u8; 32]) -> Secret {
    derive(salt, keys.manifests.expose(), &[MAC_INFO])
}

/// Bytes of the salt of a sealed grant.
pub const GRANT_SALT: usize = 32;
const GRANT_INFO: &[u8] = b"nbak v1 remote grant";

/// The key that seals what a remote service granted. The salt is drawn for each writing, so each key seals once.
fn grant_key(vault: &Credential, salt: &[u8; GRANT_SALT]) -> Option<Aes256Gcm> {
    let key = if vault.is_strong() {
        derive(salt, vault.expose(), &[GRANT_INFO])
    } else {
        derive(salt, stretch(vault, salt, ARGON2)?.expose(), &[GRANT_INFO])
    };
    Some(Aes256Gcm::new(key.expose().into()))
}

/// Seals `plain`; nothing if there is not enough memory to slow down a weak key.
pub fn seal_grant(vault: &Credential, salt: &[u8; GRANT_SALT], plain: &[u8]) -> Option<Vec<u8>> {
    grant_key(vault, salt)?.encrypt(&Nonce::default(), plain).ok()
}

/// Opens what [`seal_grant`] sealed; nothing if it was not under this key.
pub fn open_grant(vault: &Credential, salt: &[u8; GRANT_SALT], sealed: &[u8]) -> Option<Vec<u8>> {
    grant_key(vault, salt)?.decrypt(&Nonce::default(), sealed).ok()
}

/// HMAC-SHA256 (RFC 2104) over `message`.
pub fn mac(key: &Secret, message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Whether `claimed` is the MAC of `message`; takes the same time either way.
pub fn mac_holds(key: &Secret, message: &[u8], claimed: &[u8; 32]) -> bool {
    mac(key, message).ct_eq(claimed).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(text: &str) -> Credential {
        Credential::VaultKey(text.to_owned())
    }

    #[test]
    fn every_use_has_a_key_of_its_own() {
        let strong = vault(&"k".repeat(44));
        let nodyn = Labels { salt: b"nodyn-backup", info: b"nodyn-backup-encryption" };
        let lynox = Labels { salt: b"lynox-backup", info: b"lynox-backup-encryption" };
        let mut keys = vec![*nbak_key(&strong, nodyn).expose(), *nbak_key(&strong, lynox).expose()];
        for source in [MacSource::Vault, MacSource::VaultArgon2id] {
            keys.extend(mac_key_of_vault(&strong, source, &[1; 32]).map(|key| *key.expose()));
        }
        keys.push(*mac_key_of_store(&Keys::new(crate::id::StoreId([1; 16]), &Secret::random()), &[1; 32]).expose());
        assert_eq!(keys.len(), 5);
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{at}");
        }
        assert!(mac_key_of_vault(&strong, MacSource::Store, &[1; 32]).is_none());
        assert_ne!(nbak_name(&strong, nodyn)[..], nbak_key(&strong, nodyn).expose()[..8]);
    }

    #[test]
    fn a_mac_is_the_one_of_the_rfc() {
        // RFC 4231, test case 1, with its key of 20 bytes padded to 32: HMAC pads it with zeros anyway.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let key = Secret::take(&mut key);
        assert_eq!(
            crate::codec::hex(&mac(&key, b"Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert!(!mac_holds(&key, b"Hi there", &mac(&key, b"Hi There")));
    }

    #[test]
    fn words_round_trip() {
        for source in [MacSource::Vault, MacSource::VaultArgon2id, MacSource::Store] {
            assert_eq!(MacSource::parse(source.as_str()), Some(source));
        }
        assert_eq!(MacSource::of(None), MacSource::Store);
        assert_eq!(MacSource::of(Some(&vault("short"))), MacSource::VaultArgon2id);
    }
}
