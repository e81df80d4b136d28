//! The scanner behind the tidy test: it splits a Rust file into code, comments and strings, and finds words and
//! paths in the code. It is a scanner, not a parser: it needs no crate but std, and what it takes for granted is
//! what rustfmt produces.

use std::ops::Range;

/// A Rust file, split by what its bytes are. `code`, `comments` and `strings` are as long as `text` and have their
/// line breaks where it has them; bytes that belong to another part are spaces. Quotes stay with the code.
pub struct Source {
    /// From the root, with `/`.
    pub path: String,
    pub text: String,
    pub code: String,
    pub comments: String,
    pub strings: String,
    /// The bodies of the modules that are written inside this file.
    pub modules: Vec<Range<usize>>,
    /// The items under `#[cfg(test)]`.
    pub tests: Vec<Range<usize>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Code,
    Comment,
    Text,
}

impl Source {
    pub fn parse(path: &str, text: &str) -> Self {
        let parts = classify(text.as_bytes());
        let only = |part: Part| -> String {
            let bytes = text.bytes().zip(&parts).map(|(b, p)| if *p == part || b == b'\n' { b } else { b' ' });
            String::from_utf8(bytes.collect()).expect("parts begin and end at ASCII bytes")
        };
        let code = only(Part::Code);
        let mut source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
            comments: only(Part::Comment),
            strings: only(Part::Text),
            modules: Vec::new(),
            tests: Vec::new(),
            code,
        };
        let tokens = tokens(&source.code);
        for window in tokens.windows(3).filter(|window| window[0].1 == "mod" && window[2].1 == "{") {
            source.modules.push(item(&source.code, window[2].0));
        }
        for (at, _) in source.code.match_indices("cfg(").filter(|(at, _)| source.code[..*at].ends_with('[')) {
            let attribute = &source.code[at..at + source.code[at..].find(']').unwrap_or(0)];
            if words(attribute, "test").next().is_some() && words(attribute, "not").next().is_none() {
                let whole = source.code[..at].ends_with("#![");
                source.tests.push(if whole { 0..text.len() } else { item(&source.code, at + attribute.len() + 1) });
            }
        }
        source
    }

    pub fn line(&self, at: usize) -> usize {
        line_of(&self.text, at)
    }

    pub fn in_src(&self) -> bool {
        self.path.starts_with("src/")
    }

    pub fn in_tests(&self) -> bool {
        self.path.starts_with("tests/")
    }

    pub fn is_test(&self, at: usize) -> bool {
        self.tests.iter().any(|test| test.contains(&at))
    }

    /// The room that this file of src belongs to, and how many modules deep it is: 1 is the room's own door.
    pub fn room(&self) -> Option<(&str, usize)> {
        let path = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let path = path.strip_suffix("/mod").unwrap_or(path);
        Some((path.split('/').next()?, path.split('/').count()))
    }

    /// The files that a `#[cfg(test)] mod name;` here brings in: `name.rs` or everything in `name/`.
    pub fn test_modules(&self) -> Vec<String> {
        let tokens = tokens(&self.code);
        let dir = match self.path.rsplit_once('/') {
            Some((dir, "mod.rs" | "lib.rs" | "main.rs")) => dir,
            _ => self.path.trim_end_matches(".rs"),
        };
        let declared = tokens.windows(3).filter(|w| w[0].1 == "mod" && w[2].1 == ";" && self.is_test(w[0].0));
        declared.map(|w| format!("{dir}/{}", w[1].1)).collect()
    }
}

/// Says of each byte what it is.
fn classify(b: &[u8]) -> Vec<Part> {
    let mut parts = vec![Part::Code; b.len()];
    let starts = |at: usize, what: &[u8]| b[at..].starts_with(what);
    let is_name = |at: usize| b[at].is_ascii_alphanumeric() || b[at] == b'_';
    let mut at = 0;
    while at < b.len() {
        let start = at;
        if starts(at, b"//") {
            at = b[at..].iter().position(|c| *c == b'\n').map_or(b.len(), |n| at + n);
            parts[start..at].fill(Part::Comment);
        } else if starts(at, b"/*") {
            let mut open = 0;
            while at < b.len() {
                let step = if starts(at, b"/*") { 1 } else { -i32::from(starts(at, b"*/")) };
                open += step;
                at = b.len().min(at + 1 + usize::from(step != 0));
                if open == 0 {
                    break;
                }
            }
            parts[start..at].fill(Part::Comment);
        } else if b[at] == b'r'
            && (at == 0 || !is_name(at - 1) || (b"bc".contains(&b[at - 1]) && (at == 1 || !is_name(at - 2))))
        {
            let hashes = b[at + 1..].iter().take_while(|c| **c == b'#').count();
            at += 1;
            if b.get(at + hashes) == Some(&b'"') {
                let open = at + hashes + 1;
                let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
                let end = b[open..].windows(close.len()).position(|w| w == close).map_or(b.len(), |n| open + n);
                parts[open..end].fill(Part::Text);
                at = b.len().min(end + close.len());
            }
        } else if b[at] == b'"' {
            at += 1;
            while at < b.len() && b[at] != b'"' {
                at += 1 + usize::from(b[at] == b'\\');
            }
            at = at.min(b.len());
            parts[start + 1..at].fill(Part::Text);
            at += 1;
        } else if b[at] == b'\'' {
            // A character, or a lifetime: only the first is closed.
            let inner = match b.get(at + 1) {
                Some(b'\\') => b[(at + 3).min(b.len())..].iter().position(|c| *c == b'\'').map(|n| n + 2),
                Some(first) => Some(usize::max(first.leading_ones() as usize, 1)),
                None => None,
            };
            at += 1;
            if let Some(end) = inner.map(|n| at + n).filter(|end| b.get(*end) == Some(&b'\'')) {
                parts[at..end].fill(Part::Text);
                at = end + 1;
            }
        } else {
            at += 1;
        }
    }
    parts
}

/// From `at` to the end of the item that begins there: its closing brace, or its semicolon.
fn item(code: &str, at: usize) -> Range<usize> {
    let (mut braces, mut others) = (0, 0);
    for (n, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        if (c == '}' && braces <= 0) || (c == ';' && braces == 0 && others == 0) {
            return at..at + n + 1;
        }
    }
    at..code.len()
}

/// Where `needle` stands in `text` as a word of its own.
pub fn words<'a>(text: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(needle).map(|(at, _)| at).filter(move |at| {
        let glued =
            |inside: Option<char>, outside: Option<char>| inside.is_some_and(is_name) && outside.is_some_and(is_name);
        !glued(needle.chars().next(), text[..*at].chars().next_back())
            && !glued(needle.chars().next_back(), text[at + needle.len()..].chars().next())
    })
}

/// Names, `::`, and every other character on its own.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = code[at..].chars().next() {
        let length = match c {
            ':' if code[at..].starts_with("::") => 2,
            c if is_name(c) => code[at..].find(|c| !is_name(c)).unwrap_or(code.len() - at),
            c => c.len_utf8(),
        };
        if !c.is_whitespace() {
            tokens.push((at, &code[at..at + length]));
        }
        at += length;
    }
    tokens
}

/// Every path that the code names: those of `use`, with their groups taken apart, and those written in place.
pub fn paths(code: &str) -> Vec<(usize, Vec<&str>)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((offset, token)) = tokens.get(at).copied() {
        let next = |n: usize| tokens.get(at + n).map_or("", |(_, token)| *token);
        let is_name = token.starts_with(|c: char| c.is_alphabetic() || c == '_');
        if token == "use" && next(1) != "<" {
            at = use_tree(&tokens, at + 1, Vec::new(), &mut found);
        } else if is_name && next(1) == "::" {
            let mut path = vec![token];
            at += 1;
            while let [(_, "::"), (_, part), ..] = &tokens[at..]
                && part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            {
                path.push(part);
                at += 2;
            }
            found.push((offset, path));
        } else {
            at += 1;
        }
    }
    found
}

/// Takes one branch of a `use` apart, from the token `at`; answers where it ends.
fn use_tree<'a>(
    tokens: &[(usize, &'a str)],
    mut at: usize,
    mut path: Vec<&'a str>,
    found: &mut Vec<(usize, Vec<&'a str>)>,
) -> usize {
    let first = at;
    while let Some((_, token)) = tokens.get(at).copied() {
        match token {
            "::" | "$" => at += 1,
            "as" => at += 2,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|(_, token)| *token != "}") {
                    at = usize::max(use_tree(tokens, at, path.clone(), found), at + 1);
                }
                return at + 1;
            }
            "," | ";" | "}" => break,
            part => {
                path.push(part);
                at += 1;
            }
        }
    }
    if at > first && !path.is_empty() {
        found.push((tokens[first].0, path));
    }
    at
}

/// The line, from 1, of the byte `at`.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

mod broken {
    use super::*;

    #[test]
    fn parts_are_told_apart() {
        let text = "let a = \"x \\\" // no\"; // yes \"no\"\nlet b = r#\"y \" z\"#; \
                    /* c /* d */ e */ f('\"', b'\\'', 'é', '\\u{22}');\n\
                    fn g<'a>(h: &'a str) {} br\"i\" r#type\n";
        let source = Source::parse("src/x.rs", text);
        assert_eq!(source.comments.split_whitespace().collect::<Vec<_>>().join(" "), "// yes \"no\" /* c /* d */ e */");
        assert_eq!(
            source.strings.split_whitespace().collect::<Vec<_>>().join(" "),
            "x \\\" // no y \" z \" \\' é \\u{22} i"
        );
        assert!(source.code.contains("fn g<'a>(h: &'a str) {} br\" \" r#type"), "{}", source.code);
        assert_eq!(source.code.len(), text.len());
        // What is cut off in the middle is still only text.
        for text in ["\"", "r#\"", "'", "'\\", "/*", "b'", "\"\\", "use a::{", "#[cfg(test)]", "mod a {"] {
            paths(&Source::parse("src/x.rs", text).code);
        }
    }

    #[test]
    fn paths_are_taken_apart() {
        let code = "use crate::{error::{Error, Result as R}, id::*};\n\
                    pub(crate) fn f() -> crate::store::Id { a::<b::C>() }\n\
                    fn g() -> impl Sized + use<> {} use $crate::x; super::super::y();";
        let named: Vec<String> = paths(code).into_iter().map(|(_, path)| path.join("::")).collect();
        let expected =
            "crate::error::Error crate::error::Result crate::id::* crate::store::Id a b::C crate::x super::super::y";
        assert_eq!(named.join(" "), expected);
    }
}
