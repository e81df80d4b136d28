//! Whether the same trouble is worth telling again.
//!
//! Trouble is told at once, then once in so many hours while it lasts, and its end is told once. What is trouble is
//! known by its event and a key (which database, which folder), and there is no clock here: whoever asks says what time
//! it is. It can be written down and read again, so that a restart neither forgets nor repeats.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Event;

/// How long the same trouble is not told again, unless somebody says otherwise.
pub const EVERY: Duration = Duration::from_hours(6);
/// So many troubles are known at a time; beyond, the one that began first is forgotten.
const MOST: usize = 500;

/// What trouble there is, and when it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Muffle {
    open: BTreeMap<String, Open>,
}

/// Trouble that is not over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Open {
    since_ms: i64,
    told_ms: Option<i64>,
    seen: u64,
    is_known: bool,
}

/// What to do about trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// Tell it: it is new.
    First,
    /// Tell it again.
    Again(Past),
    /// It was told.
    Nothing,
}

/// How long it has lasted, and how often it was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// How often.
    pub times: u64,
}

impl Muffle {
    /// There is trouble: whether to tell it, if it is to be told again after `every`.
    pub fn trouble(&mut self, event: Event, key: &str, now_ms: i64, every: Duration) -> Say {
        let name = name(event, key);
        if !self.open.contains_key(&name) && self.open.len() >= MOST {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.since_ms).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.open.remove(&name));
        }
        let open = self.open.entry(name).or_insert_with(|| Open { since_ms: now_ms, ..Open::default() });
        open.seen = open.seen.saturating_add(1);
        let every_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
        match open.told_ms {
            // The clock was set back: from now on, or it would be silent until then.
            Some(told_ms) if told_ms > now_ms => {
                open.told_ms = Some(now_ms);
                Say::Nothing
            }
            Some(told_ms) if now_ms.saturating_sub(told_ms) < every_ms => Say::Nothing,
            _ => {
                open.told_ms = Some(now_ms);
                if std::mem::replace(&mut open.is_known, true) { Say::Again(open.past()) } else { Say::First }
            }
        }
    }

    /// What was to be told reached nobody: the next time it is told again.
    pub fn unheard(&mut self, event: Event, key: &str) {
        if let Some(open) = self.open.get_mut(&name(event, key)) {
            open.told_ms = None;
        }
    }

    /// There is no such trouble, or no more: if there was, then what there was, and its end is to be told.
    pub fn ended(&mut self, event: Event, key: &str) -> Option<Past> {
        self.open.remove(&name(event, key)).map(|open| open.past())
    }

    /// What trouble there is: event and key.
    pub fn open(&self) -> impl Iterator<Item = (Event, &str, Past)> {
        self.open.iter().filter_map(|(name, open)| {
            let (event, key) = name.split_once(' ')?;
            Some((Event::parse(event)?, key, open.past()))
        })
    }
}

impl Open {
    fn past(&self) -> Past {
        Past { since_ms: self.since_ms, times: self.seen }
    }
}

/// No event has a space in its name.
fn name(event: Event, key: &str) -> String {
    format!("{} {key}", event.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const NOW: i64 = 1_700_000_000_000;

    fn past(times: u64) -> Past {
        Past { since_ms: NOW, times }
    }

    #[test]
    fn the_same_trouble_is_told_at_once_and_then_now_and_then() {
        let mut muffle = Muffle::default();
        let mut at = |hours: i64| muffle.trouble(Event::BackupFailed, "a b", NOW + hours * HOUR, EVERY);
        assert_eq!(at(0), Say::First);
        assert_eq!([at(0), at(1), at(5)], [Say::Nothing; 3]);
        assert_eq!(at(6), Say::Again(past(5)));
        assert_eq!([at(7), at(11)], [Say::Nothing; 2]);
        assert_eq!(at(12), Say::Again(past(8)));
    }

    #[test]
    fn another_event_or_key_is_another_trouble() {
        let mut muffle = Muffle::default();
        for (event, key) in [(Event::BackupFailed, "a"), (Event::BackupFailed, "b"), (Event::DriveFailed, "a")] {
            assert_eq!(muffle.trouble(event, key, NOW, EVERY), Say::First);
        }
        let open: Vec<_> = muffle.open().map(|(event, key, past)| (event, key, past.times)).collect();
        assert_eq!(open, [(Event::BackupFailed, "a", 1), (Event::BackupFailed, "b", 1), (Event::DriveFailed, "a", 1)]);
    }

    #[test]
    fn the_end_is_told_once_and_then_it_is_new() {
        let mut muffle = Muffle::default();
        assert_eq!(muffle.ended(Event::Stale, ""), None);
        muffle.trouble(Event::Stale, "", NOW, EVERY);
        muffle.trouble(Event::Stale, "", NOW + 1, EVERY);
        assert_eq!(muffle.ended(Event::Anomaly, ""), None);
        assert_eq!(muffle.ended(Event::Stale, ""), Some(past(2)));
        assert_eq!(muffle.ended(Event::Stale, ""), None);
        assert_eq!(muffle.trouble(Event::Stale, "", NOW + 2, EVERY), Say::First);
    }

    #[test]
    fn what_reached_nobody_is_told_again() {
        let mut muffle = Muffle::default();
        muffle.trouble(Event::Stale, "", NOW, EVERY);
        muffle.unheard(Event::Stale, "");
        muffle.unheard(Event::Anomaly, "");
        assert_eq!(muffle.trouble(Event::Stale, "", NOW + 1, EVERY), Say::Again(past(2)));
        assert_eq!(muffle.trouble(Event::Stale, "", NOW + 2, EVERY), Say::Nothing);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_silence_it() {
        let mut muffle = Muffle::default();
        let mut at = |hours: i64| muffle.trouble(Event::Stale, "", NOW + hours * HOUR, EVERY);
        assert_eq!(at(100_000), Say::First);
        assert_eq!([at(0), at(5)], [Say::Nothing; 2]);
        assert!(matches!(at(6), Say::Again(_)));
    }

    #[test]
    fn a_restart_neither_forgets_nor_repeats() {
        let mut muffle = Muffle::default();
        muffle.trouble(Event::Stale, "x", NOW, EVERY);
        let text = serde_json::to_string(&muffle).expect("JSON");
        let mut again: Muffle = serde_json::from_str(&text).expect("the same");
        assert_eq!(again, muffle);
        assert_eq!(again.trouble(Event::Stale, "x", NOW + HOUR, EVERY), Say::Nothing);
        assert_eq!(again.ended(Event::Stale, "x"), Some(past(2)));
        assert_eq!(serde_json::from_str::<Muffle>("{}").expect("none"), Muffle::default());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut muffle = Muffle::default();
        for number in 0..2 * MOST as i64 {
            assert_eq!(muffle.trouble(Event::Anomaly, &number.to_string(), NOW + number, EVERY), Say::First);
        }
        assert_eq!(muffle.open().count(), MOST);
        assert!(muffle.ended(Event::Anomaly, "0").is_none() && muffle.ended(Event::Anomaly, "999").is_some());
    }
}
