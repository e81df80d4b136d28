//! Key slots: the master key, wrapped once for each credential that may open the store.
//!
//! A slot is one small immutable object. [`Method::VaultKey`] runs the credential through HKDF-SHA256 (it has the
//! entropy), [`Method::Passphrase`] through Argon2id; [`Method::Open`] holds the master key in the clear and exists so
//! that a store works without a key, and says so. Rotating a key writes a new slot and deletes the old one; no data is
//! touched.
//!
//! AES-GCM does not commit to its key, so a **key check** is derived beside the wrapping key and compared in constant
//! time before anything is opened. A checksum at the end tells damage from a wrong key.

use argon2::{Algorithm, Argon2, Params, Version};
use subtle::ConstantTimeEq;

use super::keys::derive;
use super::seal;
use super::secret::{Credential, Secret};
use crate::codec::{Malformed, Reader};
use crate::error::Error;
use crate::id::{SlotId, StoreId, random_bytes};

/// Bytes that every slot begins with.
const MAGIC: &[u8; 8] = b"nbakslot";
const VERSION: u8 = 1;
/// Argon2id parameters of new slots (RFC 9106, second recommendation): memory in KiB, passes, lanes.
pub(super) const ARGON2: (u32, u32, u32) = (64 * 1024, 3, 4);
/// A slot that asks for more memory than this, in KiB, is refused: it would be a way to exhaust the machine.
const ARGON2_MOST: u32 = 1024 * 1024;
/// So is one whose passes over that memory, in KiB times passes, are more than this: some seconds of work.
const ARGON2_WORK: u64 = 4 * 1024 * 1024;
/// A label's limit, in bytes.
pub const MAX_LABEL: usize = 64;
/// Bytes before the nonce and the wrapped key: what the additional data covers, with the label.
const HEAD: usize = 110;

/// How a slot is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// By anyone: the master key stands in the clear.
    Open,
    /// By the vault key.
    VaultKey,
    /// By a passphrase.
    Passphrase,
}

impl Method {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Open => "unprotected",
            Method::VaultKey => "vault-key",
            Method::Passphrase => "passphrase",
        }
    }
}

/// One key slot.
pub struct Slot {
    /// Its id, which is also its object's name.
    pub id: SlotId,
    /// The store it opens.
    pub store: StoreId,
    /// How it is opened.
    pub method: Method,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// What its owner calls it.
    pub label: String,
    bytes: Vec<u8>,
}

impl Slot {
    /// Wraps `master` for `credential`, or for anyone when there is none. What only stands for a key is refused.
    pub fn new(
        store: StoreId,
        master: &Secret,
        credential: Option<&Credential>,
        created: i64,
        label: &str,
    ) -> Result<Slot, Error> {
        credential.map_or(Ok(()), Credential::refuse_placeholder)?;
        let id = SlotId::random();
        let method = match credential {
            None => Method::Open,
            Some(credential) if credential.is_strong() => Method::VaultKey,
            Some(_) => Method::Passphrase,
        };
        let (memory, passes, lanes) = if method == Method::Passphrase { ARGON2 } else { (0, 0, 0) };
        let salt: [u8; 32] = random_bytes();
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.push(match method {
            Method::Open => 0,
            Method::VaultKey => 1,
            Method::Passphrase => 2,
        });
        bytes.extend_from_slice(&store.0);
        bytes.extend_from_slice(&id.0);
        bytes.extend_from_slice(&created.to_le_bytes());
        for number in [memory, passes, lanes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&salt);
        let nonce: [u8; 12] = random_bytes();
        let label: String = label
            .chars()
            .scan(0, |used, c| {
                *used += c.len_utf8();
                (*used <= MAX_LABEL).then_some(c)
            })
            .collect();
        let wrapping = credential
            .map(|c| Wrapping::derive(c, method, &salt, (memory, passes, lanes)).expect("these parameters are ours"));
        bytes.extend_from_slice(&wrapping.as_ref().map_or([0; 16], |w| w.check));
        debug_assert_eq!(bytes.len(), HEAD);
        let mut wrapped = master.expose().to_vec();
        match &wrapping {
            Some(wrapping) => {
                seal::seal(&seal::cipher(wrapping.key.expose()), nonce, &aad(&bytes, label.as_bytes()), &mut wrapped);
            }
            None => wrapped.extend_from_slice(&[0; seal::OVERHEAD]),
        }
        bytes.extend_from_slice(&nonce);
        bytes.append(&mut wrapped);
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(&checksum.as_bytes()[..16]);
        Ok(Slot { id, store, method, created, label, bytes })
    }

    /// The object's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads a slot; does not open it.
    pub fn parse(bytes: &[u8]) -> Result<Slot, Malformed> {
        let body = bytes.len().checked_sub(16).ok_or(Malformed("the key slot is too short"))?;
        if blake3::hash(&bytes[..body]).as_bytes()[..16] != bytes[body..] {
            return Err(Malformed("the key slot's checksum does not match"));
        }
        let mut reader = Reader::new(&bytes[..body]);
        if reader.array::<8>()? != *MAGIC {
            return Err(Malformed("this is not a key slot"));
        }
        if reader.u8()? != VERSION {
            return Err(Malformed("the key slot is of a newer format: use a newer nbak"));
        }
        let method = match reader.u8()? {
            0 => Method::Open,
            1 => Method::VaultKey,
            2 => Method::Passphrase,
            _ => return Err(Malformed("the key slot's method is unknown: use a newer nbak")),
        };
        let store = StoreId(reader.array()?);
        let id = SlotId(reader.array()?);
        let created = reader.u64()? as i64;
        reader.take(HEAD - 50 + 12 + 32 + seal::OVERHEAD)?;
        let length = usize::from(reader.u8()?);
        let label =
            std::str::from_utf8(reader.take(length)?).map_err(|_| Malformed("the label is not UTF-8"))?.to_owned();
        reader.end()?;
        Ok(Slot { id, store, method, created, label, bytes: bytes.to_vec() })
    }

    /// The master key, if `credential` opens this slot. A wrong credential and a tampered slot answer alike.
    pub fn open(&self, credential: Option<&Credential>) -> Option<Secret> {
        let (head, rest) = self.bytes.split_at(HEAD);
        let (nonce, rest) = rest.split_first_chunk::<12>()?;
        let mut wrapped = rest[..32 + seal::OVERHEAD].to_vec();
        if self.method != Method::Open {
            let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let salt = head[62..94].try_into().ok()?;
            let wrapping = Wrapping::derive(credential?, self.method, &salt, (number(50), number(54), number(58)))?;
            if !bool::from(wrapping.check.ct_eq(&head[94..110])) {
                return None;
            }
            let aad = aad(head, self.label.as_bytes());
            seal::open(&seal::cipher(wrapping.key.expose()), *nonce, &aad, &mut wrapped).ok()?;
        }
        let mut master = [0; 32];
        master.copy_from_slice(&wrapped[..32]);
        zeroize::Zeroize::zeroize(&mut wrapped);
        Some(Secret::take(&mut master))
    }
}

fn aad(head: &[u8], label: &[u8]) -> Vec<u8> {
    [head, label].concat()
}

struct Wrapping {
    key: Secret,
    check: [u8; 16],
}

impl Wrapping {
    fn derive(credential: &Credential, method: Method, salt: &[u8; 32], argon2: (u32, u32, u32)) -> Option<Wrapping> {
        let stretched;
        let input: &[u8] = if method == Method::Passphrase {
            stretched = stretch(credential, salt, argon2)?;
            stretched.expose()
        } else {
            credential.expose()
        };
        let check = derive(salt, input, &[b"nbak v1 slot check"]);
        let mut short = [0; 16];
        short.copy_from_slice(&check.expose()[..16]);
        Some(Wrapping { key: derive(salt, input, &[b"nbak v1 slot wrap"]), check: short })
    }
}

/// Argon2id (RFC 9106) over `credential`; nothing if the parameters (memory in KiB, passes, lanes) ask for too much.
pub(super) fn stretch(credential: &Credential, salt: &[u8; 32], argon2: (u32, u32, u32)) -> Option<Secret> {
    let (memory, passes, lanes) = argon2;
    if memory > ARGON2_MOST || u64::from(memory) * u64::from(passes) > ARGON2_WORK || lanes > 64 {
        return None;
    }
    let params = Params::new(memory, passes, lanes, Some(32)).ok()?;
    let mut out = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(credential.expose(), salt, &mut out)
        .ok()?;
    Some(Secret::take(&mut out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(text: &str) -> Credential {
        Credential::VaultKey(text.to_owned())
    }

    #[test]
    fn slots_open_for_their_credential_only() {
        let (store, master) = (StoreId::random(), Secret::random());
        let strong = vault(&"k".repeat(44));
        let weak = vault("short");
        for (credential, method) in [(&strong, Method::VaultKey), (&weak, Method::Passphrase)] {
            let slot = Slot::new(store, &master, Some(credential), 5, "mine").expect("a key");
            let slot = Slot::parse(slot.bytes()).expect("what was written");
            assert_eq!((slot.method, slot.created, slot.label.as_str()), (method, 5, "mine"));
            assert_eq!(slot.open(Some(credential)).expect("the right one").expose(), master.expose());
            assert!(slot.open(Some(&vault("wrong"))).is_none());
            assert!(slot.open(None).is_none());
        }
        let open =
            Slot::parse(Slot::new(store, &master, None, 5, "").expect("no key").bytes()).expect("what was written");
        assert_eq!(open.open(None).expect("anyone").expose(), master.expose());
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let slot =
            Slot::new(StoreId::random(), &Secret::random(), Some(&vault(&"k".repeat(44))), 5, "mine").expect("a key");
        for at in 0..slot.bytes().len() {
            let mut bytes = slot.bytes().to_vec();
            bytes[at] ^= 1;
            assert!(Slot::parse(&bytes).is_err(), "byte {at}");
            assert!(Slot::parse(&slot.bytes()[..at]).is_err(), "cut at {at}");
        }
    }

    /// The slot with these bytes and a checksum that fits, as whoever can write to the store would make it.
    fn forged(mut bytes: Vec<u8>) -> Option<Slot> {
        let body = bytes.len() - 16;
        let checksum = blake3::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(&checksum.as_bytes()[..16]);
        Slot::parse(&bytes).ok()
    }

    #[test]
    fn a_flipped_byte_with_a_checksum_that_fits_opens_nothing() {
        let (master, strong) = (Secret::random(), "c3Ryb25nIGtleSBvZiBmb3J0eS1mb3VyIGNoYXJhY3Rlcg==");
        let sample = |key: &Credential| Slot::new(StoreId::random(), &master, Some(key), 5, "mine").expect("a key");
        let (vault, phrase) = (vault(strong), Credential::Passphrase("words".to_owned()));
        for (key, method) in [(&vault, Method::VaultKey), (&phrase, Method::Passphrase)] {
            let slot = sample(key);
            assert_eq!(slot.method, method);
            assert!(forged(slot.bytes.clone()).expect("unchanged").open(Some(key)).is_some());
            // With Argon2id every byte would take minutes: one of each field.
            let all = 0..slot.bytes.len() - 16;
            let fields = [10, 26, 42, 50, 62, 94, 110, 122, 154, 170, 171];
            for at in all.filter(|at| method == Method::VaultKey || fields.contains(at)) {
                let mut bytes = slot.bytes.clone();
                bytes[at] ^= 1;
                let opened = forged(bytes).and_then(|slot| slot.open(Some(key)));
                // The method says that it is not sealed at all: what stands there is no master key of this store.
                let is_method = at == 9;
                let is_other = opened.as_ref().is_none_or(|found| is_method && found.expose() != master.expose());
                assert!(is_other, "{method:?}: byte {at} is not noticed");
            }
        }
    }

    /// AES-GCM does not commit to its key. That this slot's text opens under the key is not enough.
    #[test]
    fn a_slot_with_a_wrong_key_check_opens_for_nobody() {
        let (master, key) = (Secret::random(), vault("c3Ryb25nIGtleSBvZiBmb3J0eS1mb3VyIGNoYXJhY3Rlcg=="));
        let slot = Slot::new(StoreId::random(), &master, Some(&key), 5, "mine").expect("a key");
        for flip in [0, 1] {
            let mut bytes = slot.bytes.clone();
            bytes[94] ^= flip;
            let salt: [u8; 32] = bytes[62..94].try_into().expect("32 bytes");
            let wrapping = Wrapping::derive(&key, slot.method, &salt, (0, 0, 0)).expect("a key");
            let nonce: [u8; 12] = bytes[HEAD..HEAD + 12].try_into().expect("12 bytes");
            let mut wrapped = master.expose().to_vec();
            let aad = [&bytes[..HEAD], b"mine"].concat();
            seal::seal(&seal::cipher(wrapping.key.expose()), nonce, &aad, &mut wrapped);
            let end = HEAD + 12 + wrapped.len();
            bytes[HEAD + 12..end].copy_from_slice(&wrapped);
            let slot = forged(bytes).expect("it has the form of one");
            assert_eq!(slot.open(Some(&key)).is_some(), flip == 0, "flipped: {flip}");
        }
    }
}
