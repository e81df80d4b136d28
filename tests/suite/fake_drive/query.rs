//! The part of Drive's search language that a backup needs, and the choice of fields. What is outside of that part
//! is refused, so that a client which relies on it shows in a test.

use serde_json::{Map, Value};

/// One condition of a search.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Term {
    In(String),
    Trashed(bool),
    Name(String),
    Mime(String),
    NotMime(String),
    Has(String, String),
}

/// Parses a search; all its conditions must hold. Nothing when it is not understood.
pub(super) fn parse(text: &str) -> Option<Vec<Term>> {
    let mut scan = Scan { rest: text.trim() };
    let mut terms = Vec::new();
    if scan.rest.is_empty() {
        return Some(terms);
    }
    loop {
        terms.push(scan.term()?);
        if scan.rest.is_empty() {
            return Some(terms);
        }
        scan.word("and")?;
    }
}

struct Scan<'a> {
    rest: &'a str,
}

impl Scan<'_> {
    fn term(&mut self) -> Option<Term> {
        if self.rest.starts_with('\'') {
            let id = self.string()?;
            self.word("in")?;
            self.word("parents")?;
            return Some(Term::In(id));
        }
        match self.ident().as_str() {
            "trashed" => {
                self.mark("=")?;
                match self.ident().as_str() {
                    "true" => Some(Term::Trashed(true)),
                    "false" => Some(Term::Trashed(false)),
                    _ => None,
                }
            }
            "name" => {
                self.mark("=")?;
                self.string().map(Term::Name)
            }
            "mimeType" if self.mark("!=").is_some() => self.string().map(Term::NotMime),
            "mimeType" => {
                self.mark("=")?;
                self.string().map(Term::Mime)
            }
            "appProperties" => {
                self.word("has")?;
                self.mark("{")?;
                self.word("key")?;
                self.mark("=")?;
                let key = self.string()?;
                self.word("and")?;
                self.word("value")?;
                self.mark("=")?;
                let value = self.string()?;
                self.mark("}")?;
                Some(Term::Has(key, value))
            }
            _ => None,
        }
    }

    fn ident(&mut self) -> String {
        let end = self.rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word.to_owned()
    }

    fn word(&mut self, word: &str) -> Option<()> {
        (self.ident() == word).then_some(())
    }

    fn mark(&mut self, mark: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(mark)?.trim_start();
        Some(())
    }

    /// A string in single quotes, with `\'` and `\\` for the two that need it.
    fn string(&mut self) -> Option<String> {
        let mut out = String::new();
        let mut chars = self.rest.strip_prefix('\'')?.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\'' => {
                    self.rest = self.rest[at + 2..].trim_start();
                    return Some(out);
                }
                '\\' => match chars.next()?.1 {
                    c @ ('\'' | '\\') => out.push(c),
                    _ => return None,
                },
                c => out.push(c),
            }
        }
        None
    }
}

/// Leaves only the fields that `fields` names, as Drive does: `a,b(c,d),e/f,*`.
pub(super) fn only_fields(value: &Value, fields: &str) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| only_fields(item, fields)).collect(),
        Value::Object(object) => {
            let mut out = Map::new();
            for field in split_top(fields) {
                let (name, inner) = match field.find(['(', '/']) {
                    Some(at) if field[at..].starts_with('/') => (&field[..at], Some(&field[at + 1..])),
                    Some(at) => (&field[..at], field[at + 1..].strip_suffix(')')),
                    None => (field, None),
                };
                if name == "*" {
                    return value.clone();
                }
                if let Some(found) = object.get(name) {
                    out.insert(name.to_owned(), inner.map_or_else(|| found.clone(), |inner| only_fields(found, inner)));
                }
            }
            Value::Object(out)
        }
        other => other.clone(),
    }
}

/// Splits at the commas that are not within brackets.
fn split_top(fields: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0_i32, 0, Vec::new());
    for (at, c) in fields.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(fields[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(fields[from..].trim());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_understood() {
        assert_eq!(parse("'a' in parents and trashed = false"), Some(vec![Term::In("a".into()), Term::Trashed(false)]));
        assert_eq!(
            parse(r"name='it\'s \\ that' and mimeType!='m'"),
            Some(vec![Term::Name(r"it's \ that".into()), Term::NotMime("m".into())])
        );
        assert_eq!(
            parse("appProperties has { key='k' and value='v' } and mimeType = 'x'"),
            Some(vec![Term::Has("k".into(), "v".into()), Term::Mime("x".into())])
        );
        assert_eq!(parse(""), Some(vec![]));
    }

    #[test]
    fn what_is_refused() {
        for text in ["name contains 'x'", "name='x", "name='x' or name='y'", "name='a' and", r"name='\x'", "trashed"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn chosen_fields() {
        let value = json!({"a": 1, "files": [{"id": "x", "name": "y"}], "t": {"u": 1, "v": 2}});
        assert_eq!(only_fields(&value, "files(id),t/u"), json!({"files": [{"id": "x"}], "t": {"u": 1}}));
        assert_eq!(only_fields(&value, "*"), value);
    }
}
