//! Numbers and times in words, for whoever reads a message.
//!
//! Here, at the bottom, since every room has messages, and two ways to say a size would be one too many. A time is the
//! local one, with how far that is from UTC: so it can be held against any other, and given to a command as it stands.
//! Programs get UTC.

use std::borrow::Cow;
use std::io::Read as _;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time for people: milliseconds since 1970 in the local zone.
pub fn time(milliseconds: i64) -> String {
    let Ok(moment) = Timestamp::from_millisecond(milliseconds) else { return "-".to_owned() };
    moment.to_zoned_datetime(zone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
}

/// The local zone. To find its name, which nobody sees, the names of all zones would be looked up.
pub fn zone() -> TimeZone {
    let file = || {
        let mut rules = Vec::new();
        std::fs::File::open("/etc/localtime").ok()?.take(1 << 16).read_to_end(&mut rules).ok()?;
        TimeZone::tzif("local", &rules).ok()
    };
    let is_set = std::env::var_os("TZ").is_some();
    (!is_set).then(file).flatten().unwrap_or_else(TimeZone::system)
}

/// Bytes for people, in powers of ten.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A number and its noun.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `text` as it may be sent to a terminal. Names of files come from anywhere, and can hold any control sequence.
pub fn shown(text: &str) -> Cow<'_, str> {
    let is_command = char::is_control;
    if !text.contains(is_command) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_command(c) { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    Cow::Owned(plain)
}

/// A path as a shell takes it for one word. None for one that cannot be typed: with control characters, or bytes that
/// are no text.
pub fn word(path: &Path) -> Option<String> {
    let is_lost = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
    let text = path.to_str().filter(|text| !text.contains(is_lost))?;
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@,=".contains(c);
    let is_word = !text.is_empty() && text.chars().all(is_plain);
    Some(if is_word { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_spelt_out() {
        assert_eq!(shown("plain — ü"), "plain — ü");
        assert_eq!(shown("a\u{1b}[2J\u{9b}\rb"), "a\\u{1b}[2J\\u{9b}\\rb");
    }
}
