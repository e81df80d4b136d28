//! Manifests, as they lie in a folder that anybody can write to.
//!
//! What is read has one meaning: it is written again, and read, and means the same; its paths lead nowhere else, and
//! can all be there at once.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path};

use nbak::export::manifest::{Manifest, NUMBER_MAX, iso, overall_checksum};

pub fn body(data: &[u8]) {
    let manifest = match Manifest::parse(data) {
        Ok(manifest) => manifest,
        Err(error) => return assert!(error.is_integrity() && error.to_string().len() < 4096, "{error}"),
    };
    let json = manifest.to_json();
    let again = Manifest::parse(&json).expect("what was written is read");
    assert_eq!(again, manifest);
    assert_eq!(again.to_json(), json);
    assert_eq!(again.mac_input(), manifest.mac_input());
    assert_eq!(manifest.created_at, iso(manifest.created_ms));
    assert_eq!(manifest.checksum_holds(), manifest.checksum == overall_checksum(&manifest.files));

    let mut folders = HashMap::new();
    for entry in &manifest.files {
        assert!(entry.size <= NUMBER_MAX && entry.mode.is_none_or(|mode| mode <= 0o7777));
        assert_eq!(entry.sha256.len(), if entry.kind.is_directory() { 0 } else { 64 });
        let path = Path::new(&entry.path);
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{:?}", entry.path);
        assert_eq!(path.components().count(), entry.path.split('/').count(), "{:?}", entry.path);
        assert!(folders.insert(entry.path.as_str(), entry.kind.is_directory()).is_none(), "{:?} twice", entry.path);
    }
    let mut seen = HashSet::new();
    for entry in &manifest.files {
        let mut above = entry.path.as_str();
        while let Some((folder, _)) = above.rsplit_once('/') {
            if !seen.insert(folder) {
                break;
            }
            assert_ne!(folders.get(folder), Some(&false), "{} is below a file", entry.path);
            above = folder;
        }
    }

    // One byte of what is under the MAC, changed: the MAC's input is another.
    let mut other = manifest.clone();
    other.version.push('1');
    assert_ne!(other.mac_input(), manifest.mac_input());
}
