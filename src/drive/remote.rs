//! What Drive says about a file, read from its answers, and checked.
//!
//! Ids have a pattern, sizes, times and checksums a form; names are as they are, and whoever makes paths of them checks
//! them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Result};

/// The type of a folder.
pub(super) const FOLDER: &str = "application/vnd.google-apps.folder";
/// A file or folder there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its id.
    pub id: String,
    /// Its name, as it is: not checked.
    pub name: String,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Its size in bytes; 0 for a folder.
    pub size: u64,
    /// MD5 of its bytes, if Drive says so: 32 digits.
    pub md5: Option<String>,
    /// SHA-256 of its bytes, if Drive says so: 64 digits.
    pub sha256: Option<String>,
    /// What this program noted with it.
    pub properties: BTreeMap<String, String>,
    /// The folder that it is in, if Drive says so.
    pub parent: Option<String>,
    /// Whether it, or a folder that it is in, was thrown away: then it will be gone soon.
    pub is_trashed: bool,
    /// When it was made, in milliseconds since 1970; 0 if Drive does not say.
    pub created_ms: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    mime_type: String,
    #[serde(default)]
    size: Option<String>,
    #[serde(default)]
    md5_checksum: Option<String>,
    #[serde(default)]
    sha256_checksum: Option<String>,
    #[serde(default)]
    app_properties: BTreeMap<String, String>,
    #[serde(default)]
    parents: Vec<String>,
    #[serde(default)]
    trashed: bool,
    #[serde(default)]
    created_time: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    next_page_token: Option<String>,
    #[serde(default)]
    incomplete_search: bool,
    #[serde(default)]
    files: Vec<Wire>,
}

pub(super) fn malformed(what: &str) -> Error {
    Error::remote(format!("Google Drive answers with {what} that cannot be read"))
        .hint("try again; if it stays so, something else answers in Drive's place: look at your proxies")
}

/// Whether this is an id that can stand in an address.
pub(super) fn is_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Wire {
    fn checked(self) -> Result<Remote> {
        let is_folder = self.mime_type == FOLDER;
        let size = match &self.size {
            Some(size) => size.parse().map_err(|_| malformed("a size"))?,
            None => 0,
        };
        let digest = |text: Option<String>, digits| match text.map(|text| text.to_ascii_lowercase()) {
            Some(text) if is_hex(&text, digits) => Ok(Some(text)),
            Some(_) => Err(malformed("a checksum")),
            None => Ok(None),
        };
        if !is_id(&self.id) {
            return Err(malformed("an id"));
        }
        let created_ms = match &self.created_time {
            Some(time) => time.parse::<jiff::Timestamp>().map_err(|_| malformed("a time"))?.as_millisecond(),
            None => 0,
        };
        Ok(Remote {
            md5: digest(self.md5_checksum, 32)?,
            sha256: digest(self.sha256_checksum, 64)?,
            id: self.id,
            name: self.name,
            is_folder,
            size,
            properties: self.app_properties,
            parent: self.parents.into_iter().next(),
            is_trashed: self.trashed,
            created_ms,
        })
    }
}

/// Reads an object: a list would do for the library, field by field.
pub(super) fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T> {
    let is_object = bytes.trim_ascii_start().first() == Some(&b'{');
    let read = is_object.then(|| serde_json::from_slice(bytes).ok()).flatten();
    read.ok_or_else(|| malformed(what))
}

/// Reads one file's description, as any answer may have it.
pub fn parse_file(bytes: &[u8]) -> Result<Remote> {
    object::<Wire>(bytes, "a file")?.checked()
}

/// Reads one page of a list: its entries, and the token of the next page.
pub fn parse_page(bytes: &[u8]) -> Result<(Vec<Remote>, Option<String>)> {
    let page: Page = object(bytes, "a list")?;
    if page.incomplete_search {
        return Err(Error::remote("Google Drive did not look everywhere for a list").hint("try again later"));
    }
    let files: Result<Vec<Remote>> = page.files.into_iter().map(Wire::checked).collect();
    Ok((files?, page.next_page_token.filter(|token| !token.is_empty())))
}

/// A name from there, for a message: a stranger may have chosen it.
pub fn shown(name: &str) -> String {
    name.chars().take(200).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_right_is_refused() {
        for page in [
            "",
            "[]",
            "{\"files\":1}",
            "{\"files\":[{\"name\":\"x\"}]}",
            "{\"files\":[{\"id\":\"../x\"}]}",
            "{\"files\":[{\"id\":\"a\",\"size\":\"-1\"}]}",
            "{\"files\":[{\"id\":\"a\",\"size\":7}]}",
            "{\"files\":[{\"id\":\"a\",\"md5Checksum\":\"x\"}]}",
            "{\"incompleteSearch\":true}",
        ] {
            assert!(parse_page(page.as_bytes()).is_err(), "{page}");
        }
        let (files, next) =
            parse_page(b"{\"files\":[{\"id\":\"a-_9\",\"size\":\"3\"}],\"nextPageToken\":\"t\"}").expect("a page");
        assert_eq!((files[0].size, next.as_deref()), (3, Some("t")));
        assert_eq!(parse_page(b"{}").expect("an empty page"), (Vec::new(), None));
    }
}
