//! The program against the test vectors of `docs/BACKUP-FORMAT.md`: a reader written from that page must agree with it.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use nbak::crypto::secret::Credential;
use nbak::crypto::vault::{MacSource, mac, mac_holds, mac_key_of_vault, nbak_key};
use nbak::export::dialect::Dialect;
use nbak::export::manifest::Manifest;
use nbak::export::nbak::{NbakKeys, open};
use sha2::{Digest, Sha256};

const DOCUMENT: &str = "docs/BACKUP-FORMAT.md";

fn document() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT)).expect("the document")
}

fn vault() -> Credential {
    let text = document();
    let after = text.split("The vault key is `").nth(1).expect("the vault key");
    Credential::VaultKey(after.split('`').next().expect("its end").to_owned())
}

/// The bytes in the row of the table of vectors that begins with `what`.
fn vector(what: &str) -> Vec<u8> {
    let text = document();
    let row = text.lines().find(|line| line.starts_with(&format!("| {what}"))).unwrap_or_else(|| panic!("{what}"));
    let digits = row.split('`').rev().nth(1).expect("bytes");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("a digit")).collect()
}

#[test]
fn keys_are_those_of_the_document() {
    for (what, dialect) in [("NBAK key, nodyn", Dialect::Nodyn), ("NBAK key, lynox", Dialect::Lynox)] {
        assert_eq!(nbak_key(&vault(), dialect.labels()).expose()[..], vector(what)[..], "{what}");
    }
    let key = mac_key_of_vault(&vault(), MacSource::Vault, &[0x20; 32]).expect("a key");
    assert_eq!(key.expose()[..], vector("key of the MAC")[..]);
}

#[test]
fn sealed_files_open() {
    let keys = NbakKeys::new(&[vault()], Dialect::Nodyn);
    for (what, plain) in [("NBAK file, nodyn", "A person's memory."), ("NBAK file of an empty file", "")] {
        let mut out = Vec::new();
        open(&mut Cursor::new(vector(what)), Path::new(what), &keys, &mut out).expect("it opens");
        assert_eq!(out, plain.as_bytes());
    }
}

#[test]
fn the_manifest_and_its_mac() {
    let text = document();
    let json = text.split("```json\n").nth(1).and_then(|rest| rest.split("\n```").next()).expect("a manifest");
    let manifest = Manifest::parse(json.as_bytes()).expect("it is one");
    assert_eq!(String::from_utf8(manifest.to_json()).expect("UTF-8"), json, "the form is the written one");
    assert!(manifest.checksum_holds());
    let input = manifest.mac_input();
    assert_eq!(Sha256::digest(&input)[..], vector("SHA-256 of the message")[..]);
    let own = manifest.own.as_ref().expect("it is one of ours");
    let key = mac_key_of_vault(&vault(), own.mac_key, &own.mac_salt).expect("a key");
    assert_eq!(mac(&key, &input)[..], vector("its MAC")[..]);
    assert!(mac_holds(&key, &input, &own.mac));
    for (what, edited) in [
        ("encrypted", json.replace("\"encrypted\": true", "\"encrypted\": false")),
        ("path", json.replace("memory/facts.txt", "memory/fakes.txt")),
        ("type", json.replace("\"type\": \"file\"", "\"type\": \"sqlite\"")),
        ("mode", json.replace("384", "511")),
        ("created_at", json.replace("03:00:00.000Z", "04:00:00.000Z")),
        ("snapshot", json.replace("000102030405", "000102030406")),
    ] {
        let edited = Manifest::parse(edited.as_bytes()).expect("it can be read");
        assert!(!mac_holds(&key, &edited.mac_input(), &own.mac), "{what}");
    }
}
