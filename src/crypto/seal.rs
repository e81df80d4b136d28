//! The only place where anything is encrypted or decrypted.
//!
//! A **pack** has a key of its own: HKDF over the pack subkey, salted with 256 random bits that stand in the pack's
//! header. Writing and reading are two types. [`PackSealer`] is made from a fresh salt only and hands out each
//! segment number once, as a [`Ticket`] that sealing consumes; so no nonce repeats under a key (I9), and the compiler
//! sees to it. [`PackOpener`] cannot seal.
//!
//! The additional data of every seal binds it to its place: format, version, store, pack, type, number. A segment that
//! is moved, or a pack under another's name, does not open.
//!
//! **Rows** of the local index are sealed under the index subkey with random 96-bit nonces.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, Nonce, Tag};
use aes_gcm::{Aes256Gcm, KeyInit};

use super::keys::{Keys, derive};
use crate::id::{PackId, random_bytes};

/// What a seal adds to its plaintext, in bytes: the tag.
pub const OVERHEAD: usize = 16;

/// Segments a pack may have: their numbers, and so the nonces, stay below the footer's.
pub const MAX_SEGMENTS: u32 = 0xFFFF;

const FOOTER: u32 = u32::MAX;
const TYPE_SEGMENT: u8 = 1;
const TYPE_FOOTER: u8 = 2;
const TYPE_ROW: u8 = 3;

/// The bytes are not what was sealed at this place under this key. There is one such error for every cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsealable;

/// The right to seal one segment, once.
#[derive(Debug)]
pub struct Ticket(u32);

struct PackKey {
    cipher: Aes256Gcm,
    context: [u8; 37],
}

impl PackKey {
    fn new(keys: &Keys, pack: PackId, salt: &[u8; 32]) -> Self {
        let key = derive(salt, keys.packs.expose(), &[b"nbak v1 pack ", &pack.0]);
        let mut context = [0; 37];
        context[..5].copy_from_slice(b"nbak\x01");
        context[5..21].copy_from_slice(&keys.store().0);
        context[21..].copy_from_slice(&pack.0);
        PackKey { cipher: cipher(key.expose()), context }
    }

    fn place(&self, kind: u8, number: u32) -> ([u8; 42], [u8; 12]) {
        let mut aad = [0; 42];
        aad[..37].copy_from_slice(&self.context);
        aad[37] = kind;
        aad[38..].copy_from_slice(&number.to_le_bytes());
        let mut nonce = [0; 12];
        nonce[8..].copy_from_slice(&number.to_le_bytes());
        (aad, nonce)
    }

    fn seal(&self, kind: u8, number: u32, buffer: &mut Vec<u8>) {
        let (aad, nonce) = self.place(kind, number);
        seal(&self.cipher, nonce, &aad, buffer);
    }

    fn open(&self, kind: u8, number: u32, buffer: &mut Vec<u8>) -> Result<(), Unsealable> {
        let (aad, nonce) = self.place(kind, number);
        open(&self.cipher, nonce, &aad, buffer)
    }
}

/// Seals the parts of one new pack.
pub struct PackSealer {
    key: PackKey,
    salt: [u8; 32],
}

/// Hands out the segment numbers of one pack. Not cloneable: there is one for each sealer.
#[derive(Debug)]
pub struct Tickets(u32);

impl PackSealer {
    /// A sealer for the new pack `pack`, under a key that was never used.
    pub fn fresh(keys: &Keys, pack: PackId) -> (Self, Tickets) {
        let salt = random_bytes();
        (PackSealer { key: PackKey::new(keys, pack, &salt), salt }, Tickets(0))
    }

    /// What the pack's header must carry.
    pub fn salt(&self) -> &[u8; 32] {
        &self.salt
    }

    /// Seals a segment in place: ciphertext, then tag.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is used up by sealing")]
    pub fn seal_segment(&self, ticket: Ticket, buffer: &mut Vec<u8>) {
        self.key.seal(TYPE_SEGMENT, ticket.0, buffer);
    }

    /// Seals the footer in place. Takes the numbers with it: nothing can be sealed afterwards.
    #[expect(clippy::needless_pass_by_value, reason = "the footer ends the pack")]
    pub fn seal_footer(&self, tickets: Tickets, buffer: &mut Vec<u8>) {
        debug_assert!(tickets.0 <= MAX_SEGMENTS);
        self.key.seal(TYPE_FOOTER, FOOTER, buffer);
    }
}

impl Tickets {
    /// The next segment's number, or none when the pack is full.
    pub fn issue(&mut self) -> Option<(u32, Ticket)> {
        if self.0 >= MAX_SEGMENTS {
            return None;
        }
        self.0 += 1;
        Some((self.0 - 1, Ticket(self.0 - 1)))
    }
}

/// Opens the parts of an existing pack.
pub struct PackOpener(PackKey);

impl PackOpener {
    /// An opener for `pack`, whose header carries `salt`.
    pub fn new(keys: &Keys, pack: PackId, salt: &[u8; 32]) -> Self {
        PackOpener(PackKey::new(keys, pack, salt))
    }

    /// Opens segment `number` in place.
    pub fn open_segment(&self, number: u32, buffer: &mut Vec<u8>) -> Result<(), Unsealable> {
        self.0.open(TYPE_SEGMENT, number, buffer)
    }

    /// Opens the footer in place.
    pub fn open_footer(&self, buffer: &mut Vec<u8>) -> Result<(), Unsealable> {
        self.0.open(TYPE_FOOTER, FOOTER, buffer)
    }
}

/// Seals and opens rows of the local index.
pub struct RowSealer {
    cipher: Aes256Gcm,
    store: [u8; 16],
}

impl RowSealer {
    /// For the index of the store that `keys` belong to.
    pub fn new(keys: &Keys) -> Self {
        RowSealer { cipher: cipher(keys.index.expose()), store: keys.store().0 }
    }

    fn aad(&self, name: &[u8]) -> Vec<u8> {
        [b"nbak\x01".as_slice(), &self.store, &[TYPE_ROW], name].concat()
    }

    /// The row called `name`: nonce, ciphertext, tag.
    pub fn seal(&self, name: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; 12] = random_bytes();
        let mut body = Vec::with_capacity(12 + plain.len() + OVERHEAD);
        body.extend_from_slice(plain);
        seal(&self.cipher, nonce, &self.aad(name), &mut body);
        body.splice(0..0, nonce);
        body
    }

    /// The plaintext of the row called `name`.
    pub fn open(&self, name: &[u8], row: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let (nonce, body) = row.split_first_chunk::<12>().ok_or(Unsealable)?;
        let mut body = body.to_vec();
        open(&self.cipher, *nonce, &self.aad(name), &mut body)?;
        Ok(body)
    }
}

pub(super) fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new(key.into())
}

pub(super) fn seal(cipher: &Aes256Gcm, nonce: [u8; 12], aad: &[u8], buffer: &mut Vec<u8>) {
    let tag = cipher
        .encrypt_inout_detached(&Nonce::<Aes256Gcm>::from(nonce), aad, InOutBuf::from(buffer.as_mut_slice()))
        .expect("segments are far below what AES-GCM can seal at once");
    buffer.extend_from_slice(&tag);
}

pub(super) fn open(cipher: &Aes256Gcm, nonce: [u8; 12], aad: &[u8], buffer: &mut Vec<u8>) -> Result<(), Unsealable> {
    let body = buffer.len().checked_sub(OVERHEAD).ok_or(Unsealable)?;
    let tag = Tag::<Aes256Gcm>::try_from(&buffer[body..]).map_err(|_| Unsealable)?;
    buffer.truncate(body);
    cipher
        .decrypt_inout_detached(&Nonce::<Aes256Gcm>::from(nonce), aad, InOutBuf::from(buffer.as_mut_slice()), &tag)
        .map_err(|_| Unsealable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::secret::Secret;
    use crate::id::StoreId;

    fn keys() -> Keys {
        Keys::new(StoreId([7; 16]), &Secret::random())
    }

    #[test]
    fn a_segment_opens_at_its_place_only() {
        let keys = keys();
        let pack = PackId::random();
        let (sealer, mut tickets) = PackSealer::fresh(&keys, pack);
        let (_, first) = tickets.issue().expect("a fresh pack");
        let (number, second) = tickets.issue().expect("a fresh pack");
        let (mut a, mut b) = (b"first".to_vec(), b"other".to_vec());
        sealer.seal_segment(first, &mut a);
        sealer.seal_segment(second, &mut b);
        let opener = PackOpener::new(&keys, pack, sealer.salt());
        assert_eq!(opener.open_segment(number, &mut a.clone()), Err(Unsealable), "another number");
        assert_eq!(opener.open_footer(&mut b.clone()), Err(Unsealable), "another type");
        let elsewhere = PackOpener::new(&keys, PackId::random(), sealer.salt());
        assert_eq!(elsewhere.open_segment(number, &mut b.clone()), Err(Unsealable), "another pack");
        assert_eq!(opener.open_segment(number, &mut b), Ok(()));
        assert_eq!(b, b"other");
        assert_eq!(opener.open_segment(0, &mut a[..10].to_vec()), Err(Unsealable), "cut short");
    }

    #[test]
    fn numbers_never_repeat_and_end() {
        let (_, mut tickets) = PackSealer::fresh(&keys(), PackId::random());
        let mut last = None;
        while let Some((number, _)) = tickets.issue() {
            assert!(last < Some(number));
            last = Some(number);
        }
        assert_eq!(last, Some(MAX_SEGMENTS - 1));
    }

    #[test]
    fn rows_are_bound_to_their_name() {
        let rows = RowSealer::new(&keys());
        let row = rows.seal(b"a", b"text");
        assert_eq!(rows.open(b"a", &row).as_deref(), Ok(b"text".as_slice()));
        assert_eq!(rows.open(b"b", &row), Err(Unsealable));
        assert_eq!(rows.open(b"a", &row[..11]), Err(Unsealable));
    }
}
