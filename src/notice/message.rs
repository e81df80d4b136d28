//! A notice, and the forms in which people and programs read it.
//!
//! The title becomes one line without control characters before it goes anywhere: what an error or a path put there
//! could be a line break, and after it a header. The text keeps its lines, and is bounded. [`scrub`] takes out what
//! must not be told, wherever it got in.

use std::collections::BTreeMap;

use serde::Serialize;

use super::event::Event;

/// A title is at most this long, in bytes.
const TITLE_MOST: usize = 250;
/// A text is at most this long, in bytes.
const TEXT_MOST: usize = 48 * 1024;
/// Any other part of a notice.
const PART_MOST: usize = 1000;
/// So many facts are told.
const FACTS_MOST: usize = 40;
/// What is shorter than this is no secret, and stands in half of all words.
const SECRET_LEAST: usize = 4;
/// What stands where a secret stood.
const SCRUBBED: &str = "[secret]";

/// The fact that says what else is wrong while something was done.
pub const TROUBLE: &str = "trouble";

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// What happened.
    pub event: Event,
    /// The machine.
    pub host: String,
    /// The data directory.
    pub data_dir: String,
    /// It in one line.
    pub title: String,
    /// It in full.
    pub text: String,
    /// When, in milliseconds since 1970.
    pub when_ms: i64,
    /// Further facts, for people and programs.
    pub facts: BTreeMap<String, String>,
}

impl Notice {
    /// The same, with each part in its bounds and `secrets` taken out.
    pub(super) fn fit(&self, secrets: &[&str]) -> Notice {
        let part = |text: &str| cut(&one_line(&scrub(text, secrets)), PART_MOST);
        Notice {
            event: self.event,
            host: part(&self.host),
            data_dir: part(&self.data_dir),
            title: cut(&one_line(&scrub(&self.title, secrets)), TITLE_MOST),
            text: cut(&lines(&scrub(&self.text, secrets)), TEXT_MOST),
            when_ms: self.when_ms,
            facts: self.facts.iter().take(FACTS_MOST).map(|(name, fact)| (part(name), part(fact))).collect(),
        }
    }

    /// For programs.
    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers have a JSON form")
    }

    /// For people, in at most `most` bytes: the text, cut where it is too long, then the facts, where and when. Without
    /// the title.
    pub(super) fn letter(&self, most: usize) -> String {
        let when = match jiff::Timestamp::from_millisecond(self.when_ms) {
            Ok(when) => format!("{when:.0}"),
            Err(_) => self.when_ms.to_string(),
        };
        let facts = self.facts.iter().map(|(name, fact)| format!("{name}: {fact}\n"));
        let place = format!("host: {}\ndata directory: {}\ntime: {when}", self.host, self.data_dir);
        let end = cut(&(facts.collect::<String>() + &place), most / 2);
        match self.text.trim() {
            "" => end,
            text => format!("{}\n\n{end}", cut(text, most - end.len() - 2)),
        }
    }
}

/// `text` without `secrets`: wherever one stands, it says so instead. What is shorter than four bytes stays.
pub fn scrub(text: &str, secrets: &[&str]) -> String {
    let mut secrets: Vec<&str> = secrets.iter().copied().filter(|secret| secret.len() >= SECRET_LEAST).collect();
    // One that is a part of another would leave the rest of it.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, SCRUBBED))
}

/// The beginning of `text`, of at most `most` bytes.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(most.saturating_sub('…'.len_utf8()))])
}

/// `text` in one line: nothing in it ends a header, or moves a terminal's cursor.
fn one_line(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if is_break(c) { ' ' } else { c }).collect();
    spaced.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// `text` with line feeds and tabs, and no other control character.
fn lines(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect()
}

fn is_break(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(title: &str, text: &str) -> Notice {
        Notice {
            event: Event::BackupFailed,
            host: "attic".to_owned(),
            data_dir: "/srv/data".to_owned(),
            title: title.to_owned(),
            text: text.to_owned(),
            when_ms: 1_700_000_000_123,
            facts: BTreeMap::from([("exit code".to_owned(), "14".to_owned())]),
        }
    }

    #[test]
    fn a_title_is_one_line_and_a_text_has_no_control_characters() {
        let fit = notice(" a\r\nBcc: x\u{2028}y\0\u{85}\u{1b}[2Jz ", "1\r\n2\r3\u{7}\n\t4").fit(&[]);
        assert_eq!(fit.title, "a Bcc: x y [2Jz");
        assert_eq!(fit.text, "1\n2\n3\n\t4");
    }

    #[test]
    fn parts_are_bounded_between_characters() {
        let fit = notice(&"é".repeat(1000), &"ü".repeat(100_000)).fit(&[]);
        assert!(fit.title.len() <= TITLE_MOST && fit.title.ends_with("é…"), "{}", fit.title);
        assert!(fit.text.len() <= TEXT_MOST && fit.text.ends_with("ü…"));
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "…");
    }

    #[test]
    fn secrets_are_taken_out_of_every_part() {
        let mut told = notice("token-1 and token-12", "https://example.org/token-1");
        told.facts.insert("token-1".to_owned(), "token-12".to_owned());
        told.host = "token-1".to_owned();
        told.data_dir = "/token-1".to_owned();
        let json = String::from_utf8(told.fit(&["token-1", "token-12", "to"]).json()).expect("text");
        assert!(!json.contains("token-1") && !json.contains("]2") && json.contains("[secret] and [secret]"), "{json}");
        assert_eq!(scrub("to be", &["to", ""]), "to be");
    }

    #[test]
    fn a_letter_says_what_where_and_when() {
        let place = "exit code: 14\nhost: attic\ndata directory: /srv/data\ntime: 2023-11-14T22:13:20Z";
        assert_eq!(notice("t", "It broke.\n").letter(1000), format!("It broke.\n\n{place}"));
        assert_eq!(notice("t", " ").letter(1000), place);
        let mut long = notice("t", &"é".repeat(1000));
        let letter = long.letter(1000);
        assert!(letter.len() <= 1000 && letter.len() > 990 && letter.ends_with(place), "{letter}");
        long.facts.insert("more".to_owned(), "x".repeat(5000));
        assert!(long.letter(1000).len() <= 1000);
    }
}
