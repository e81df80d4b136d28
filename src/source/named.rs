//! The name that an operator may give a data directory (`nbak.name`).
//!
//! A path says too little where several machines, or sets of containers, share a store or a folder of backups: in a
//! container the data directory has the same path each time. What may be a name is so narrow that it can stand before a
//! path, with a `:` between the two, and nobody can take one for the other.

/// The longest there may be, in bytes.
pub const LONGEST: usize = 40;
/// What stands before a path that is no text ([`crate::snapshot::places`]), and so cannot be a name.
pub const BYTES: &str = "bytes";

/// The name that `text` is, or why it cannot be one.
pub fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > LONGEST {
        return Err(format!("is no name: one has 1 to {LONGEST} characters"));
    }
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !text.bytes().all(is_good) {
        return Err(format!("is no name: one has letters, digits, `-`, `_` and `.` only, and not `{text}`"));
    }
    if text == BYTES {
        return Err(format!("cannot be `{BYTES}`, which stands before paths that are no text"));
    }
    Ok(text.to_owned())
}

/// The name and the rest of what is known as `name:path`; without a name all of it is the rest.
pub fn split(known: &str) -> (Option<&str>, &str) {
    match known.split_once(':') {
        Some((before, rest)) if name(before).is_ok() => (Some(before), rest),
        _ => (None, known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_narrow_and_taken_off_again() {
        let long = "x".repeat(LONGEST);
        for good in ["web-1", "a", "A_b.c", "0", "...", &long] {
            assert_eq!(name(good).as_deref(), Ok(good));
            assert_eq!(split(&format!("{good}:/d:e")), (Some(good), "/d:e"));
            assert_eq!(split(&format!("{good}:bytes:/d")), (Some(good), "bytes:/d"));
        }
        for bad in ["", "a b", "a/b", "a:b", "\u{e4}", "bytes", &format!("{long}x"), "a\n"] {
            assert!(name(bad).is_err(), "{bad}");
        }
        for none in ["/d", "/d:e", "/a/b:/c", "bytes:/d", "bytes:/d:e", ""] {
            assert_eq!(split(none), (None, none));
        }
    }
}
