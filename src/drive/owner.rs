//! Whose something in Drive is: several machines may share an account.
//!
//! A folder there carries the name of the machine that made it. Of a store that is all that is said in the clear: the
//! data directory's path is in a backup's manifest, and in no store.

use std::collections::BTreeMap;

/// Notes with a folder which machine it is of.
const MACHINE: &str = "nbak_machine";
/// A property is at most 124 bytes with its name.
const MOST: usize = 100;

/// Whose it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The machine's name; empty if that was not noted.
    pub machine: String,
    /// The data directory.
    pub source_dir: String,
}

impl Owner {
    /// What is noted with a folder of its.
    pub fn noted(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(MACHINE.to_owned(), short(&self.machine))])
    }
}

/// The machine that `properties` name; empty if they name none.
pub fn machine(properties: &BTreeMap<String, String>) -> String {
    properties.get(MACHINE).cloned().unwrap_or_default()
}

/// As much of the end of `text` as a property takes: of a path that says most.
pub fn short(text: &str) -> String {
    let mut start = text.len().saturating_sub(MOST);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}
