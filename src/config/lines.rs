//! On which line of a JSON text a key stands, so that a warning can say so.
//!
//! The library that reads the values does not keep their places. The text was read by it before, so it is known to be
//! JSON: what is scanned here are strings and brackets only.

use std::collections::{BTreeMap, BTreeSet};

/// The line, from 1, of each key of `text`, by its path: `nbak.keep.daily`.
pub fn lines(text: &str) -> BTreeMap<String, usize> {
    places(text).into_iter().collect()
}

/// The paths that are there more than once, not counting those in lists.
pub fn twice(text: &str) -> BTreeSet<String> {
    let (mut seen, mut again) = (BTreeSet::new(), BTreeSet::new());
    // In a list each element has the same paths.
    let all = places(text).into_iter().map(|(path, _)| path).filter(|path| !path.starts_with("nbak.notify."));
    again.extend(all.filter(|path| !seen.insert(path.clone())));
    again
}

fn places(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    // For each open bracket: whether it is an object, and the key that leads into it.
    let mut open: Vec<(bool, String)> = Vec::new();
    let (mut line, mut key, mut is_key) = (1, String::new(), false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\n' => line += 1,
            '{' | '[' => {
                open.push((c == '{', std::mem::take(&mut key)));
                is_key = c == '{';
            }
            '}' | ']' => {
                open.pop();
                is_key = false;
            }
            ',' => is_key = open.last().is_some_and(|(is_object, _)| *is_object),
            ':' => is_key = false,
            '"' => {
                let string = string(&mut chars);
                if is_key {
                    let above = open.iter().skip(1).map(|(_, key)| key.as_str());
                    let path: Vec<&str> = above.chain([string.as_str()]).filter(|part| !part.is_empty()).collect();
                    found.push((path.join("."), line));
                    key = string;
                }
            }
            _ => {}
        }
    }
    found
}

/// The rest of a string, of which the first quote was read. Escapes stay as they are: no key of ours has one.
fn string(chars: &mut std::str::Chars<'_>) -> String {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => text.extend(['\\'].into_iter().chain(chars.next())),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_where_they_stand() {
        let text =
            "{\n \"a\": 1,\n \"n\": {\"x\": [{\"i\": 2}, \"y\"],\n  \"k\": {\n\"d\": \"a: \\\"b\\\", {\"}},\n\"z\": 3}";
        let found = lines(text);
        let line = |path: &str| found.get(path).copied();
        assert_eq!((line("a"), line("n"), line("n.x"), line("n.x.i")), (Some(2), Some(3), Some(3), Some(3)));
        assert_eq!((line("n.k"), line("n.k.d"), line("z"), line("y")), (Some(4), Some(5), Some(6), None));
        assert_eq!(twice("{\"a\": {\"b\": 1, \"b\": 2}, \"c\": 1}"), BTreeSet::from(["a.b".to_owned()]));
        assert!(lines("").is_empty() && lines("[1, \"a\"]").is_empty());
    }
}
