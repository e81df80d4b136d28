//! AES-256-GCM over a stream: for files that are larger than memory, in a format that is not ours.
//!
//! The `aes-gcm` crate seals a buffer. An NBAK file is one seal over a file of any size, and its tag stands *in front*.
//! Here are the same parts that the crate is made of (NIST SP 800-38D, section 7: AES in counter mode, GHASH over the
//! ciphertext), fed piece by piece. A test holds the two against each other.
//!
//! Whoever opens must not believe a byte before the tag was right: [`Proof`] goes over the ciphertext alone and gives
//! out no plaintext, so a reader can prove first and decrypt in a second pass.

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher};
use ctr::Ctr32BE;
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::secret::Secret;

/// A nonce, in bytes.
pub const NONCE: usize = 12;
/// A tag, in bytes.
pub const TAG: usize = 16;
/// The most plaintext under one nonce, in bytes: 2^39 - 256 bits (SP 800-38D, 5.2.1.1).
pub const MOST: u64 = (1 << 36) - 32;

const BLOCK: usize = 16;

/// The keystream of one seal.
pub struct Keystream(Ctr32BE<Aes256>);

/// What the tag is computed from, as it comes.
pub struct Proof {
    ghash: GHash,
    /// The first block of the keystream: what the hash is masked with.
    mask: [u8; BLOCK],
    /// The begun block, and how much of it there is.
    begun: [u8; BLOCK],
    filled: usize,
    bytes: u64,
}

/// The two halves of a seal under `key` and `nonce`.
pub fn start(key: &Secret, nonce: &[u8; NONCE]) -> (Keystream, Proof) {
    // The counter block before the first one: the nonce, then a 1.
    let mut first = [0; BLOCK];
    first[..NONCE].copy_from_slice(nonce);
    first[BLOCK - 1] = 1;
    let mut stream = Ctr32BE::<Aes256>::new(key.expose().into(), &first.into());
    let mut mask = [0; BLOCK];
    stream.apply_keystream(&mut mask);
    // The hash's key is the cipher of the zero block; in counter mode from zero, the first block of the keystream.
    let mut hash_key = [0; BLOCK];
    Ctr32BE::<Aes256>::new(key.expose().into(), &[0; BLOCK].into()).apply_keystream(&mut hash_key);
    let ghash = GHash::new(&hash_key.into());
    hash_key.zeroize();
    (Keystream(stream), Proof { ghash, mask, begun: [0; BLOCK], filled: 0, bytes: 0 })
}

impl Keystream {
    /// Encrypts or decrypts the next bytes, which is the same.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

impl Proof {
    /// Takes in the next bytes of the ciphertext.
    pub fn absorb(&mut self, mut ciphertext: &[u8]) {
        self.bytes += ciphertext.len() as u64;
        if self.filled > 0 {
            let some = ciphertext.len().min(BLOCK - self.filled);
            self.begun[self.filled..self.filled + some].copy_from_slice(&ciphertext[..some]);
            self.filled += some;
            ciphertext = &ciphertext[some..];
            if self.filled < BLOCK {
                return;
            }
            self.ghash.update(&[self.begun.into()]);
            self.filled = 0;
        }
        let (whole, rest) = ciphertext.split_at(ciphertext.len() - ciphertext.len() % BLOCK);
        // Whole blocks: nothing is padded.
        self.ghash.update_padded(whole);
        self.begun[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
    }

    /// The tag of all that was taken in.
    pub fn tag(mut self) -> [u8; TAG] {
        self.ghash.update_padded(&self.begun[..self.filled]);
        // No additional data: NBAK has none.
        let mut lengths = [0; BLOCK];
        lengths[8..].copy_from_slice(&(self.bytes * 8).to_be_bytes());
        self.ghash.update(&[lengths.into()]);
        let mut tag: [u8; TAG] = self.ghash.finalize().into();
        tag.iter_mut().zip(self.mask).for_each(|(byte, mask)| *byte ^= mask);
        tag
    }

    /// Whether `tag` is the tag of all that was taken in; takes the same time either way.
    pub fn holds(self, tag: &[u8; TAG]) -> bool {
        self.tag().ct_eq(tag).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::seal;
    use proptest::prelude::*;

    fn sealed_in_pieces(key: &Secret, nonce: &[u8; NONCE], plain: &[u8], pieces: &[usize]) -> (Vec<u8>, [u8; TAG]) {
        let (mut stream, mut proof) = start(key, nonce);
        let mut out = plain.to_vec();
        let mut at = 0;
        for piece in pieces.iter().cycle() {
            let end = (at + piece).min(out.len());
            stream.apply(&mut out[at..end]);
            proof.absorb(&out[at..end]);
            at = end;
            if at == out.len() {
                break;
            }
        }
        (out, proof.tag())
    }

    proptest! {
        #[test]
        fn pieces_make_what_the_crate_makes(
            plain in prop::collection::vec(any::<u8>(), 0..5000),
            pieces in prop::collection::vec(1usize..700, 1..6),
            key in any::<[u8; 32]>(),
            nonce in any::<[u8; NONCE]>(),
        ) {
            let key = Secret::take(&mut { key });
            let mut whole = plain.clone();
            seal::seal(&seal::cipher(key.expose()), nonce, &[], &mut whole);
            let (ciphertext, tag) = sealed_in_pieces(&key, &nonce, &plain, &pieces);
            prop_assert_eq!(&whole[..plain.len()], &ciphertext[..]);
            prop_assert_eq!(&whole[plain.len()..], &tag[..]);
        }
    }

    #[test]
    fn another_bit_another_key_or_another_nonce_does_not_hold() {
        let key = Secret::take(&mut [7; 32]);
        let (ciphertext, tag) = sealed_in_pieces(&key, &[1; NONCE], b"forty bytes of something to be protected", &[9]);
        let holds = |key: &Secret, nonce: u8, bytes: &[u8], tag: &[u8; TAG]| {
            let (_, mut proof) = start(key, &[nonce; NONCE]);
            proof.absorb(bytes);
            proof.holds(tag)
        };
        assert!(holds(&key, 1, &ciphertext, &tag));
        assert!(!holds(&key, 2, &ciphertext, &tag));
        assert!(!holds(&Secret::take(&mut [8; 32]), 1, &ciphertext, &tag));
        assert!(!holds(&key, 1, &ciphertext[1..], &tag));
        for bit in 0..ciphertext.len() * 8 {
            let mut bytes = ciphertext.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!holds(&key, 1, &bytes, &tag), "bit {bit}");
        }
    }
}
