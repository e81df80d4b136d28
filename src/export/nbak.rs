//! The NBAK file: one file of a backup, sealed under the vault key.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `NBAK` |
//! | 4 | 1 | version: 1 |
//! | 5 | 12 | nonce, random |
//! | 17 | 16 | tag |
//! | 33 | to the end | ciphertext, as long as the plaintext |
//!
//! AES-256-GCM without additional data. The tag stands in front and is known last, and files are larger than memory:
//! sealing leaves room for it and writes it in the end; opening goes over the file twice, first for the tag, and gives
//! out nothing before that one holds.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use zeroize::Zeroizing;

use super::dialect::Dialect;
use crate::crypto::gcm::{self, MOST, NONCE, Proof, TAG};
use crate::crypto::secret::{Credential, Secret};
use crate::crypto::vault::nbak_key;
use crate::error::{Error, Result};
use crate::id::random_bytes;

/// What an NBAK file begins with.
pub const MAGIC: &[u8; 4] = b"NBAK";
/// Bytes before the ciphertext.
pub const HEADER: u64 = 33;

const VERSION: u8 = 1;
const NONCE_AT: usize = 5;
const TAG_AT: usize = NONCE_AT + NONCE;
const HEADER_BYTES: usize = HEADER as usize;
/// What is read, encrypted and written at a time, in bytes.
const PIECE: usize = 256 * 1024;

/// The keys that may open the files of a backup, the likeliest first.
pub struct NbakKeys(Vec<Secret>);

impl NbakKeys {
    /// The keys of every vault key among `credentials`, for a backup of `dialect`. The other dialect's come last: a
    /// manifest that was edited by hand must not lock anybody out.
    pub fn new<'c>(credentials: impl IntoIterator<Item = &'c Credential>, dialect: Dialect) -> NbakKeys {
        let vaults: Vec<_> =
            credentials.into_iter().filter(|credential| matches!(credential, Credential::VaultKey(_))).collect();
        let mut dialects = Dialect::ALL;
        dialects.sort_by_key(|other| *other != dialect);
        NbakKeys(
            dialects.into_iter().flat_map(|one| vaults.iter().map(move |key| nbak_key(key, one.labels()))).collect(),
        )
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a file that begins with `head` says that it is an NBAK file.
pub fn is_nbak(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// The nonce and the tag of an NBAK file that begins with `head`; why not, if it is none.
pub fn parse_header(head: &[u8]) -> Result<([u8; NONCE], [u8; TAG]), &'static str> {
    if !is_nbak(head) {
        return Err("it does not begin with `NBAK`");
    }
    if head.len() < HEADER_BYTES {
        return Err("it is shorter than an NBAK header");
    }
    if head[4] != VERSION {
        return Err("it is of another NBAK version: use a newer nbak");
    }
    let (mut nonce, mut tag) = ([0; NONCE], [0; TAG]);
    nonce.copy_from_slice(&head[NONCE_AT..TAG_AT]);
    tag.copy_from_slice(&head[TAG_AT..HEADER_BYTES]);
    Ok((nonce, tag))
}

/// Seals all that `plain` gives into `out`, from where that stands; answers how many bytes it was. `path` names the
/// file that is written, `from` the one that is read.
pub fn seal(
    plain: &mut impl Read,
    from: &Path,
    out: &mut (impl Write + Seek),
    path: &Path,
    key: &Secret,
) -> Result<u64> {
    seal_with(plain, from, out, path, key, &random_bytes())
}

fn seal_with(
    plain: &mut impl Read,
    from: &Path,
    out: &mut (impl Write + Seek),
    path: &Path,
    key: &Secret,
    nonce: &[u8; NONCE],
) -> Result<u64> {
    let failed = |error| Error::io("write a sealed file", path, error);
    let start = out.stream_position().map_err(failed)?;
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(MAGIC);
    header[4] = VERSION;
    header[NONCE_AT..TAG_AT].copy_from_slice(nonce);
    out.write_all(&header).map_err(failed)?;
    let (mut stream, mut proof) = gcm::start(key, nonce);
    let mut piece = Zeroizing::new(vec![0; PIECE]);
    let mut total = 0;
    loop {
        let got = read_full(plain, &mut piece).map_err(|error| Error::io("read a file to seal it", from, error))?;
        total += got as u64;
        if total > MOST {
            return Err(Error::failed(format!("a file of more than {MOST} bytes cannot be sealed as NBAK"))
                .at(from)
                .hint("exclude it from the backup; snapshots hold it"));
        }
        stream.apply(&mut piece[..got]);
        proof.absorb(&piece[..got]);
        out.write_all(&piece[..got]).map_err(failed)?;
        if got < PIECE {
            break;
        }
    }
    out.seek(SeekFrom::Start(start + TAG_AT as u64)).map_err(failed)?;
    out.write_all(&proof.tag()).map_err(failed)?;
    out.seek(SeekFrom::Start(start + HEADER + total)).map_err(failed)?;
    Ok(total)
}

/// Proves that `file` is whole and sealed under one of `keys`, and says which; gives out no plaintext. `path` is for
/// messages.
pub fn prove(file: &mut (impl Read + Seek), path: &Path, keys: &NbakKeys) -> Result<usize> {
    if keys.is_empty() {
        return Err(no_key(path));
    }
    let failed = |error| Error::io("read a sealed file", path, error);
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut piece = vec![0; PIECE];
    let mut head = [0; HEADER_BYTES];
    let got = read_full(file, &mut head).map_err(failed)?;
    let (nonce, tag) = parse_header(&head[..got]).map_err(|why| not_nbak(path, why))?;
    let mut proofs: Vec<Proof> = keys.0.iter().map(|key| gcm::start(key, &nonce).1).collect();
    loop {
        let got = read_full(file, &mut piece).map_err(failed)?;
        for proof in &mut proofs {
            proof.absorb(&piece[..got]);
        }
        if got < PIECE {
            break;
        }
    }
    // Every one is compared, whichever holds: one answer, and one time, for every wrong key.
    let hold: Vec<bool> = proofs.into_iter().map(|proof| proof.holds(&tag)).collect();
    hold.into_iter().position(|holds| holds).ok_or_else(|| {
        Error::key("no vault key that was given opens this file: another key sealed it, or it was changed")
            .at(path)
            .hint("give the key of that time with --vault-key-file, more than once if need be")
    })
}

/// Decrypts `file` into `out`, after all of it was proven; answers the plaintext's bytes.
pub fn open(file: &mut (impl Read + Seek), path: &Path, keys: &NbakKeys, out: &mut dyn Write) -> Result<u64> {
    let key = &keys.0[prove(file, path, keys)?];
    let failed = |error| Error::io("read a sealed file", path, error);
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut head = [0; HEADER_BYTES];
    file.read_exact(&mut head).map_err(failed)?;
    let (nonce, tag) = parse_header(&head).map_err(|why| not_nbak(path, why))?;
    let (mut stream, mut proof) = gcm::start(key, &nonce);
    let mut piece = Zeroizing::new(vec![0; PIECE]);
    let mut total = 0;
    loop {
        let got = read_full(file, &mut piece).map_err(failed)?;
        proof.absorb(&piece[..got]);
        stream.apply(&mut piece[..got]);
        out.write_all(&piece[..got]).map_err(|error| Error::io("write what was decrypted of", path, error))?;
        total += got as u64;
        if got < PIECE {
            break;
        }
    }
    // Somebody may have written to it between the two passes.
    if proof.holds(&tag) {
        Ok(total)
    } else {
        Err(Error::integrity("a sealed file changed while it was read").at(path).hint("try again"))
    }
}

fn no_key(path: &Path) -> Error {
    Error::key("this file is sealed, and no vault key was given")
        .at(path)
        .hint("set NODYN_VAULT_KEY (or LYNOX_VAULT_KEY), or give --vault-key-file or --vault-key-command")
}

fn not_nbak(path: &Path, why: &str) -> Error {
    Error::integrity(format!("this is no NBAK file: {why}")).at(path)
}

/// Reads until `buffer` is full or the end was reached.
fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use proptest::prelude::*;

    fn keys(texts: &[&str]) -> NbakKeys {
        let credentials: Vec<Credential> = texts.iter().map(|t| Credential::VaultKey((*t).to_owned())).collect();
        NbakKeys::new(&credentials, Dialect::Nodyn)
    }

    fn sealed(plain: &[u8], key: &Secret) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        let path = Path::new("f");
        assert_eq!(seal(&mut Cursor::new(plain), path, &mut out, path, key).expect("sealed"), plain.len() as u64);
        out.into_inner()
    }

    fn opened(bytes: &[u8], keys: &NbakKeys) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        open(&mut Cursor::new(bytes), Path::new("f"), keys, &mut out).map(|_| out)
    }

    proptest! {
        #[test]
        fn open_gives_back_what_was_sealed(plain in prop::collection::vec(any::<u8>(), 0..3000)) {
            let keys = keys(&["one", "two"]);
            let bytes = sealed(&plain, &keys.0[1]);
            prop_assert_eq!(bytes.len() as u64, HEADER + plain.len() as u64);
            prop_assert_eq!(opened(&bytes, &keys).expect("it opens"), plain);
        }
    }

    #[test]
    fn pieces_join() {
        let keys = keys(&["one"]);
        for length in [0, 1, 16, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let plain: Vec<u8> = (0..length).map(|n| (n * 7 % 251) as u8).collect();
            assert_eq!(opened(&sealed(&plain, &keys.0[0]), &keys).expect("it opens"), plain, "{length}");
        }
        assert_eq!(sealed(b"", &keys.0[0]).len() as u64, HEADER);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let keys = keys(&["one"]);
        let bytes = sealed(b"something that nobody may change", &keys.0[0]);
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(opened(&other, &keys).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(opened(&bytes[..cut], &keys).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn the_key_has_to_be_there_and_right() {
        let bytes = sealed(b"text", &keys(&["one"]).0[0]);
        assert!(opened(&bytes, &keys(&["two"])).expect_err("another key").is_key());
        assert!(opened(&bytes, &keys(&[])).expect_err("no key").is_key());
        assert!(opened(&bytes, &keys(&["two", "one"])).is_ok());
        assert!(opened(b"plain text", &keys(&["one"])).expect_err("no NBAK").is_integrity());
        let passphrase = NbakKeys::new(&[Credential::Passphrase("one".to_owned())], Dialect::Nodyn);
        assert!(passphrase.is_empty(), "a passphrase is no vault key");
    }
}
