//! Files that need each other in a circle.
//!
//! A file needs another if its code, tests apart, names something that is defined there: what a door hands on is
//! followed to the file behind it. A door and the files behind it are one in this; they may name each other.

use std::collections::{BTreeMap, BTreeSet};

use super::scan::{Source, paths};

/// The modules on the way to a file.
type Module<'a> = Vec<&'a str>;

fn module_of(path: &str) -> Option<Module<'_>> {
    let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    (path != "lib" && path != "main").then(|| path.split('/').collect())
}

/// What is not to be: each step of each circle, as far as it can be told from the steps that only lead there.
pub fn circles(files: &[Source]) -> Vec<String> {
    let files: BTreeMap<Module<'_>, &Source> =
        files.iter().filter_map(|file| Some((module_of(&file.path)?, file))).collect();
    let mut needs: BTreeMap<&Module<'_>, BTreeMap<&Module<'_>, usize>> = BTreeMap::new();
    for (module, file) in &files {
        for (at, path) in paths(&file.code).into_iter().filter(|(at, _)| !file.is_test(*at)) {
            if let Some(other) = named(&files, module, file, at, &path) {
                needs.entry(module).or_default().entry(other).or_insert_with(|| file.line(at));
            }
        }
    }
    // What needs nothing is in no circle, and what nothing needs neither.
    loop {
        let needed: BTreeSet<&Module<'_>> = needs.values().flat_map(BTreeMap::keys).copied().collect();
        let before = (needs.len(), needs.values().map(BTreeMap::len).sum::<usize>());
        needs.retain(|module, _| needed.contains(module));
        let needing: BTreeSet<&Module<'_>> = needs.keys().copied().collect();
        for others in needs.values_mut() {
            others.retain(|other, _| needing.contains(other));
        }
        needs.retain(|_, others| !others.is_empty());
        if before == (needs.len(), needs.values().map(BTreeMap::len).sum()) {
            break;
        }
    }
    let step = |module: &Module<'_>, (other, line): (&&Module<'_>, &usize)| {
        format!("{}:{line}: needs {}", files[module].path, files[*other].path)
    };
    needs.iter().flat_map(|(module, others)| others.iter().map(|other| step(module, other))).collect()
}

/// The file that defines what `path` names, if it is another one, and no door of this one.
fn named<'f, 'm>(
    files: &'f BTreeMap<Module<'m>, &'m Source>,
    module: &Module<'m>,
    file: &'m Source,
    at: usize,
    path: &[&'m str],
) -> Option<&'f Module<'m>> {
    let inside = file.modules.iter().filter(|inner| inner.contains(&at)).count();
    let climbs = path.iter().take_while(|part| **part == "super").count();
    let mut whole: Module<'m> = match path[0] {
        "crate" => Vec::new(),
        "super" => module.get(..(module.len() + inside).checked_sub(climbs)?)?.to_vec(),
        _ => return None,
    };
    whole.extend(path.iter().skip(climbs.max(1)));
    let mut length = (1..=whole.len()).rev().find(|length| files.contains_key(&whole[..*length]))?;
    // A door that hands it on.
    while let Some(name) = whole.get(length)
        && let Some(behind) = handed_on(files, &whole[..length], name)
    {
        whole.insert(length, behind);
        length += 1;
    }
    let (other, _) = files.get_key_value(&whole[..length])?;
    let is_one = other.starts_with(module) || module.starts_with(other);
    (!is_one).then_some(other)
}

/// The module behind `door` from which that hands `name` on.
fn handed_on<'m>(files: &BTreeMap<Module<'m>, &'m Source>, door: &[&'m str], name: &str) -> Option<&'m str> {
    let all = paths(&files.get(door)?.code);
    let (_, path) = all.into_iter().find(|(_, path)| path.len() > 1 && path.last() == Some(&name))?;
    let behind: Module<'m> = door.iter().copied().chain([path[path.len() - 2]]).collect();
    files.get_key_value(&behind).and_then(|(module, _)| module.last().copied())
}
