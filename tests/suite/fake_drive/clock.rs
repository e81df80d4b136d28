//! Times as the protocol writes them, and random words. The clock can be set off by a number of seconds, which shows
//! in the `Date` header and in the times of files.

use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, set off by so many seconds.
pub(super) fn now(offset: i64) -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64 + offset.saturating_mul(1000)
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// The form of a `Date` header.
pub(super) fn http_date(millis: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = millis.div_euclid(1000);
    let (day, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, of_month) = civil(day);
    let (name, month) = (DAYS[day.rem_euclid(7) as usize], MONTHS[month as usize - 1]);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{name}, {of_month:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// The form of `createdTime`.
pub(super) fn rfc3339(millis: i64) -> String {
    let seconds = millis.div_euclid(1000);
    let (day, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, of_month) = civil(day);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let part = millis.rem_euclid(1000);
    format!("{year:04}-{month:02}-{of_month:02}T{hour:02}:{minute:02}:{second:02}.{part:03}Z")
}

/// A random word of 32 hexadecimal digits. The standard library's hash keys are random enough for a test.
pub(super) fn random_word() -> String {
    let mut word = String::new();
    for part in 0..2_u8 {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u8(part);
        write!(word, "{:016x}", hasher.finish()).expect("a string takes all");
    }
    word
}

/// A small deterministic generator: the value that belongs to a number.
pub(super) fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(rfc3339(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn words_differ() {
        assert_ne!(random_word(), random_word());
        assert_ne!(scramble(1), scramble(2));
    }
}
