//! Marks: where in its write-ahead log a database ended when it was captured, so that the next capture reads only what
//! came after.
//!
//! They are kept with the receipts of a snapshot, and hold for it alone (I19). Unlike a receipt, a mark needs no margin
//! of time: the log itself proves it, or does not ([`crate::source::sqlite::Changes`]). What the log cannot prove is
//! that nobody wrote the database past SQLite. So now and then, at the latest after [`MOST`] captures or a day, all of
//! it is read again, and held against what the log says.

use super::now::now_ms;
use super::receipt::Receipt;
use crate::chunk::PAGE;
use crate::codec::{Malformed, Reader, put_signed, put_varint};
use crate::source::sqlite::WalMark;
use crate::source::walk::{Identity, identity};

/// After so many captures by the log all of a database is read again.
pub const MOST: u32 = 200;
/// After so many milliseconds too.
const LONGEST: i64 = 24 * 60 * 60 * 1000;

/// Where a database ended in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Where.
    pub log: WalMark,
    /// The database and its log, which must still be the same files.
    pub files: [Identity; 2],
    /// When the database's file was changed last, in nanoseconds since 1970: its ctime, which nobody puts back.
    pub written: i128,
    /// When all of the database was read the last time, in milliseconds since 1970.
    pub read: i64,
    /// How often it was captured by its log since then.
    pub captures: u32,
}

impl Mark {
    /// The mark of an image of `len` bytes that was read in full just now, if the log can be followed from there.
    ///
    /// Smaller pages than a chunk are not: a chunk has several, and not all of them are in the log.
    pub fn new(log: WalMark, len: u64, receipt: &Receipt) -> Option<Mark> {
        let beside = receipt.beside()?[0]?;
        let files = [identity(&receipt.stamp), identity(&beside)];
        let mark = Mark { log, files, written: receipt.stamp.ctime, read: now_ms(), captures: 0 };
        (log.salts != [0, 0] && log.page_size >= PAGE && mark.bytes() == len).then_some(mark)
    }

    /// The mark of the capture after this one, which went by the log.
    #[must_use]
    pub fn next(&self, log: WalMark, receipt: &Receipt) -> Mark {
        Mark { log, written: receipt.stamp.ctime, captures: self.captures.saturating_add(1), ..*self }
    }

    /// Bytes of the image.
    pub fn bytes(&self) -> u64 {
        u64::from(self.log.pages) * u64::from(self.log.page_size)
    }

    /// Whether it is of the files that `receipt` saw.
    pub fn is_of(&self, receipt: &Receipt) -> bool {
        let beside = receipt.beside().and_then(|[log, _]| log);
        beside.is_some_and(|log| self.files == [identity(&receipt.stamp), identity(&log)])
    }

    /// Whether it is time to read all of it again, at `now`.
    pub fn is_due(&self, now: i64) -> bool {
        self.captures >= MOST || !(self.read..self.read.saturating_add(LONGEST)).contains(&now)
    }

    /// Writes it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let WalMark { salts, mx_frame, checksum, pages, page_size } = self.log;
        for word in [salts[0], salts[1], mx_frame, checksum[0], checksum[1], pages, page_size, self.captures] {
            put_varint(out, u64::from(word));
        }
        for number in self.files.iter().flat_map(|(device, inode)| [*device, *inode]) {
            put_varint(out, number);
        }
        put_signed(out, self.read);
        put_signed(out, self.written.div_euclid(1_000_000_000) as i64);
        put_varint(out, self.written.rem_euclid(1_000_000_000) as u64);
    }

    /// Reads one.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Mark, Malformed> {
        let mut word = || Ok(reader.varint_up_to(u64::from(u32::MAX), "a mark is out of range")? as u32);
        let (salts, mx_frame, checksum) = ([word()?, word()?], word()?, [word()?, word()?]);
        let (pages, page_size, captures) = (word()?, word()?, word()?);
        let log = WalMark { salts, mx_frame, checksum, pages, page_size };
        let mut file = || Ok((reader.varint()?, reader.varint()?));
        let files = [file()?, file()?];
        let read = reader.signed()?;
        let written = i128::from(reader.signed()?) * 1_000_000_000 + i128::from(reader.varint()?);
        Ok(Mark { log, files, written, read, captures })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::source::walk::Stamp;

    pub(in crate::snapshot) fn mark() -> Mark {
        let log = WalMark { salts: [1, u32::MAX], mx_frame: 3, checksum: [4, 5], pages: 6, page_size: 4096 };
        Mark { log, files: [(7, 8), (9, u64::MAX)], written: -5, read: 1_700_000_000_000, captures: 11 }
    }

    #[test]
    fn marks_are_for_the_same_files() {
        let stamp = |(device, inode)| Stamp { device, inode, size: 0, mtime: 0, ctime: 0 };
        let receipt = |log: Option<Identity>| Receipt::of_database(stamp((7, 8)), [log.map(stamp), None]);
        let mark = mark();
        let same = receipt(Some((9, u64::MAX)));
        assert!(mark.is_of(&same));
        assert!(!mark.is_of(&receipt(Some((9, 8)))) && !mark.is_of(&receipt(None)));
        assert!(!mark.is_of(&Receipt::of_file(same.stamp)));
        let other = Receipt::of_database(stamp((7, 9)), same.beside().expect("a database"));
        assert!(!mark.is_of(&other));

        assert!(Mark::new(mark.log, 6 * 4096, &same).is_some_and(|mark| mark.captures == 0));
        assert!(Mark::new(mark.log, 6 * 4096 + 1, &same).is_none(), "bytes behind the last page");
        assert!(Mark::new(WalMark { salts: [0, 0], ..mark.log }, 6 * 4096, &same).is_none(), "no log");
        assert!(Mark::new(WalMark { page_size: 2048, ..mark.log }, 6 * 2048, &same).is_none(), "small pages");
    }

    fn receipt() -> Receipt {
        Receipt::of_file(Stamp { device: 7, inode: 8, size: 0, mtime: 6, ctime: 6 })
    }

    #[test]
    fn everything_is_read_now_and_then() {
        let mark = mark();
        let day = 24 * 60 * 60 * 1000;
        for (now, due) in [(0, false), (day - 1, false), (day, true), (-1, true)] {
            assert_eq!(mark.is_due(mark.read + now), due, "{now}");
        }
        assert!(!Mark { captures: MOST - 1, ..mark }.is_due(mark.read));
        assert!(Mark { captures: MOST - 1, ..mark }.next(mark.log, &receipt()).is_due(mark.read));
    }
}
