//! Key slots: as they are, and with the checksum that they should have.
//!
//! Slots lie where anybody can write, and are read before any key is known.

use nbak::crypto::secret::Credential;
use nbak::crypto::slot::{Method, Slot};

pub fn body(data: &[u8]) {
    parse(data);
    let mut sealed = data.to_vec();
    sealed.extend_from_slice(&blake3::hash(data).as_bytes()[..16]);
    parse(&sealed);
}

fn parse(bytes: &[u8]) {
    let Ok(slot) = Slot::parse(bytes) else { return };
    assert_eq!(slot.bytes(), bytes);
    let again = Slot::parse(slot.bytes()).expect("a slot is read twice alike");
    assert!(again.id == slot.id && again.store == slot.store && again.label == slot.label);
    match slot.method {
        Method::Open => assert!(slot.open(None).is_some(), "an unprotected slot opens for everyone"),
        Method::VaultKey => {
            assert!(slot.open(None).is_none());
            assert!(slot.open(Some(&Credential::VaultKey("z".repeat(44)))).is_none(), "nobody made it for this key");
        }
        Method::Passphrase => {
            assert!(slot.open(None).is_none());
            let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
            // What costs more is allowed, and takes longer than a fuzzer has.
            if number(50) <= 256 && number(54) <= 2 {
                assert!(slot.open(Some(&Credential::Passphrase("secret".to_owned()))).is_none());
            }
        }
    }
}
