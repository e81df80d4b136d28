//! What Google Drive, or whatever answers in its place, says of files.
//!
//! The input is one answer, read as a page of a list and as a file. What is accepted can stand in an address, and has
//! checksums of the right length.

use nbak::drive::remote::{Remote, parse_file, parse_page, shown};

pub fn body(data: &[u8]) {
    if let Ok((files, next)) = parse_page(data) {
        assert!(next.is_none_or(|token| !token.is_empty()), "an empty token would be the first page again");
        files.iter().for_each(file);
    }
    if let Ok(remote) = parse_file(data) {
        file(&remote);
    }
}

fn file(remote: &Remote) {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    assert!(!remote.id.is_empty() && remote.id.len() <= 128 && remote.id.chars().all(is_plain), "{:?}", remote.id);
    let is_hex = |text: &String, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(remote.md5.as_ref().is_none_or(|md5| is_hex(md5, 32)));
    assert!(remote.sha256.as_ref().is_none_or(|sha256| is_hex(sha256, 64)));
    assert!(!shown(&remote.name).contains(char::is_control), "{:?}", remote.name);
}
