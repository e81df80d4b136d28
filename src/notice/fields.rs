//! The object that configures a channel, read without mercy.
//!
//! A key that nobody knows is an error that names it: a channel whose `tokn` was left aside would be found out on the
//! day when it should have told something. What is wrong is said of keys; values are repeated in no message.

use std::path::PathBuf;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::secret::Secret;

/// What every channel may have.
const COMMON: [&str; 2] = ["kind", "on"];
/// What is behind the key of a secret when a file holds it.
const IN_A_FILE: &str = "_file";

/// The keys and values of one channel.
pub(super) struct Fields<'a> {
    all: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Of `all`, which may have `keys`, and `secrets` each in one of two ways.
    pub fn of(all: &'a Map<String, Value>, keys: &[&str], secrets: &[&str]) -> Result<Fields<'a>, String> {
        let mut known: Vec<String> = COMMON.iter().chain(keys).map(|&key| key.to_owned()).collect();
        known.extend(secrets.iter().flat_map(|&key| [key.to_owned(), format!("{key}{IN_A_FILE}")]));
        let unknown: Vec<String> =
            all.keys().filter(|key| !known.contains(key)).map(|key| format!("`{key}`")).collect();
        if !unknown.is_empty() {
            return Err(format!("does not know {}; there are `{}`", unknown.join(", "), known.join("`, `")));
        }
        Ok(Fields { all })
    }

    /// What stands under `key`.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.all.get(key)
    }

    /// The text under `key`, if there is one.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        match self.all.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Err(format!("`{key}` is empty")),
            Some(Value::String(text)) if text.chars().any(char::is_control) => {
                Err(format!("`{key}` has a line break or another control character in it"))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("`{key}` is no text")),
        }
    }

    /// The text under `key`, which has to be there.
    pub fn needed(&self, key: &str) -> Result<&'a str, String> {
        self.text(key)?.ok_or_else(|| format!("`{key}` is missing"))
    }

    /// The secret under `key`, or in the file that `<key>_file` names.
    pub fn secret(&self, key: &str) -> Result<Option<Secret>, String> {
        let file = format!("{key}{IN_A_FILE}");
        match (self.text(key)?, self.text(&file)?) {
            (Some(_), Some(_)) => Err(format!("`{key}` and `{file}` are both there: take one")),
            (Some(text), None) => Ok(Some(Secret::Given(Zeroizing::new(text.to_owned())))),
            (None, Some(path)) if !path.starts_with('/') => {
                Err(format!("`{file}` is no full path: it begins with `/`, so that it means one file everywhere"))
            }
            (None, Some(path)) => Ok(Some(Secret::File(PathBuf::from(path)))),
            (None, None) => Ok(None),
        }
    }

    /// The same for one that has to be there.
    pub fn needed_secret(&self, key: &str) -> Result<Secret, String> {
        self.secret(key)?.ok_or_else(|| format!("`{key}` is missing (or `{key}{IN_A_FILE}`)"))
    }
}
