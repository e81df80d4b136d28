//! How many files each vault key has sealed.
//!
//! NBAK has one key for each vault key, and a random nonce of 96 bits for each file. After 2^32 files the chance that
//! two of them share a nonce is 2^-33 (SP 800-38D, 8.3, sets the limit there), and two that do give away the
//! difference of their plaintexts. So seals are counted, in a file beside the backups, and refused beyond it (I18).
//!
//! Seals are reserved before the first one is made and never given back: after a crash the count is too high, never too
//! low. A key is named by a hash that does not tell it. If the file is lost the count begins anew, as it does for
//! whatever the application itself sealed: that is why it is refused at half the limit.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use super::files::{read_bounded, write_durably};
use crate::codec::hex;
use crate::crypto::secret::Credential;
use crate::crypto::vault::nbak_name;
use crate::error::{Error, Result};
use crate::export::dialect::Dialect;

const NAME: &str = ".nbak-seals.json";
/// The most files that are sealed under one key: half of what the standard allows.
const MOST: u64 = 1 << 31;
/// The largest count file, in bytes.
const LARGEST: u64 = 1 << 20;

/// Reserves `count` seals under `vault` in the backups at `folder`, whose lock the caller has.
pub fn reserve(folder: &Path, vault: &Credential, dialect: Dialect, count: u64) -> Result<()> {
    let path = folder.join(NAME);
    let mut counts: BTreeMap<String, u64> = match read_bounded(&path, LARGEST) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| {
            Error::integrity("the count of sealed files cannot be read")
                .at(&path)
                .because(error)
                .hint("bring it back from a copy, or move it away: the count then begins anew")
        })?,
        Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(Error::io("read the count of sealed files", &path, error)),
    };
    let sealed = counts.entry(hex(&nbak_name(vault, dialect.labels()))).or_default();
    *sealed = sealed.saturating_add(count);
    if *sealed > MOST {
        return Err(Error::failed(format!("this vault key has sealed {MOST} files: more would not be safe"))
            .at(&path)
            .hint("change the vault key; nothing was written"));
    }
    let text = serde_json::to_vec_pretty(&counts).expect("a map of numbers has a JSON form");
    write_durably(&path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seals_are_counted_for_each_key_and_end() {
        let place = tempfile::tempdir().expect("a folder");
        let key = |text: &str| Credential::VaultKey(text.to_owned());
        let reserve = |name: &str, count| reserve(place.path(), &key(name), Dialect::Nodyn, count);
        reserve("one", MOST - 1).expect("room");
        reserve("two", 5).expect("another key");
        reserve("one", 1).expect("the last");
        assert!(reserve("one", 1).is_err());
        reserve("two", 1).expect("room");
        std::fs::write(place.path().join(NAME), b"{").expect("written");
        assert!(reserve("two", 1).expect_err("damaged").is_integrity());
    }
}
