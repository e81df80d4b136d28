//! Whose something in Drive is: several machines may share an account.
//!
//! A folder there carries the name of the machine that made it, and a backup's the data directory's path, as its
//! manifest does: so it is known while that is not there yet. Of a store only the machine is said in the clear.

use std::collections::BTreeMap;

use crate::source::named;

/// Notes with a folder which machine it is of.
const MACHINE: &str = "nbak_machine";
/// Notes with a backup's folder which data directory it is of.
const SOURCE: &str = "nbak_source";
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
    /// What is noted with a store's folder.
    pub fn of_store(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(MACHINE.to_owned(), short(&self.machine))])
    }

    /// What is noted with a backup's folder.
    pub fn of_backup(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(MACHINE.to_owned(), short(&self.machine)), (SOURCE.to_owned(), short(&self.source_dir))])
    }

    /// Whether something of `other` is of this one too. What does not say which machine, or which data directory, it is
    /// of was uploaded by a program that does not note it: the other of the two decides.
    pub fn owns(&self, other: &Owner) -> bool {
        let same = |own: &str, other: &str| short(own) == short(other);
        let (machine, source) = (other.machine.is_empty(), other.source_dir.is_empty());
        !(machine && source)
            && (machine || same(&self.machine, &other.machine))
            && (source || same(&self.source_dir, &other.source_dir))
    }
}

/// The data directory that `properties` name; empty if they name none.
pub fn source(properties: &BTreeMap<String, String>) -> String {
    properties.get(SOURCE).cloned().unwrap_or_default()
}

/// The machine that `properties` name; empty if they name none.
pub fn machine(properties: &BTreeMap<String, String>) -> String {
    properties.get(MACHINE).cloned().unwrap_or_default()
}

/// As much of the end of `text` as a property takes: of a path that says most. What the data directory is called
/// beside its path stays whole.
pub fn short(text: &str) -> String {
    let (name, path) = named::split(text);
    let name = name.map(|name| format!("{name}:")).unwrap_or_default();
    let mut start = (name.len() + path.len()).saturating_sub(MOST).min(path.len());
    while !path.is_char_boundary(start) {
        start += 1;
    }
    format!("{name}{}", &path[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_keeps_the_name_and_the_end_of_the_path() {
        let path = format!("/{}/.nodyn", "d\u{e9}".repeat(60));
        let named = |name: &str| format!("{name}:{path}");
        for text in [path.clone(), named("web-1"), "/short".to_owned(), "web-1:/short".to_owned(), String::new()] {
            let noted = short(&text);
            assert!(noted.len() <= MOST && short(&noted) == noted, "{noted}");
            assert!(text.is_empty() || noted.ends_with(&text[text.len() - 6..]), "{noted}");
        }
        let owner = |source: String| Owner { machine: "m".to_owned(), source_dir: source };
        let (one, other) = (owner(named("web-1")), owner(named("web-2")));
        assert!(one.owns(&one) && !one.owns(&other) && !one.owns(&owner(path.clone())) && !owner(path).owns(&one));
    }
}
