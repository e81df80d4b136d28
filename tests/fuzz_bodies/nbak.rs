//! NBAK files: as they are, sealed here and opened again, and changed in one place.
//!
//! The input's first four bytes say where what was sealed is changed; the rest is the plaintext, and once more a file.

use std::io::Cursor;
use std::path::Path;

use nbak::crypto::secret::Credential;
use nbak::crypto::vault::nbak_key;
use nbak::export::dialect::Dialect;
use nbak::export::nbak::{HEADER, NbakKeys, is_nbak, open, parse_header, prove, seal};

pub fn body(data: &[u8]) {
    let vault = Credential::VaultKey("z".repeat(44));
    let keys = NbakKeys::new([&vault], Dialect::Nodyn);
    let path = Path::new("input");
    let opened = |bytes: &[u8]| {
        let mut out = Vec::new();
        open(&mut Cursor::new(bytes), path, &keys, &mut out).map(|size| (size, out))
    };

    // Nobody has the key: nothing made up opens, and nothing that does not open gives out a byte.
    assert!(opened(data).is_err());
    assert!(prove(&mut Cursor::new(data), path, &keys).is_err());
    assert_eq!(parse_header(data).is_ok(), is_nbak(data) && data.len() as u64 >= HEADER && data[4] == 1);

    let (choice, plain) = data.split_at(data.len().min(4));
    let mut sealed = Cursor::new(Vec::new());
    let key = nbak_key(&vault, Dialect::Nodyn.labels());
    let size = seal(&mut Cursor::new(plain), path, &mut sealed, path, &key).expect("memory takes everything");
    let sealed = sealed.into_inner();
    assert_eq!((size, sealed.len() as u64), (plain.len() as u64, HEADER + plain.len() as u64));
    let (size, again) = opened(&sealed).expect("what was sealed opens");
    assert!(size == plain.len() as u64 && again == plain);

    let number = choice.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
    let mut changed = sealed.clone();
    changed[number / 8 % sealed.len()] ^= 1 << (number % 8);
    assert!(opened(&changed).is_err(), "a flipped bit");
    assert!(opened(&sealed[..number % sealed.len()]).is_err(), "a cut");
    let other = NbakKeys::new([&vault], Dialect::Lynox);
    assert!(prove(&mut Cursor::new(&sealed), path, &other).is_ok(), "the other dialect's key is tried too");
}
