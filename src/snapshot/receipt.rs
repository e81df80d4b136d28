//! A receipt: what `stat` said of a file when it was captured. If it still says so, the file is what it was.
//!
//! A receipt is only written for a file whose last change lies clearly before the capture began: a write in the same
//! tick of the file system's clock could otherwise hide behind an equal time stamp. The margin is [`MARGIN`], or
//! [`COARSE_MARGIN`] where the stamps look as if the file system counts in whole seconds, and [`MAPPED_MARGIN`] for
//! every file with content that is no database: anybody may write it through a memory map. On a file system in memory
//! such a file gets none at all ([`crate::source::medium`]).
//!
//! Databases are not in that trap. SQLite writes the database, its log and its journal with `pwrite`, also when
//! `PRAGMA mmap_size` is set: then it *reads* through the map (writing through it is a build option that is off, and
//! that nobody turns on). Its one mapped file is the `-shm`, which no receipt names. And `pwrite` sets the time with
//! each call, on a file system in memory too. What has SQLite's header and is written by another program through a map
//! is outside of this argument; see the limits in `docs/ARCHITECTURE.md`.

use super::now::Moment;
use crate::codec::{Malformed, Reader, put_signed, put_varint};
use crate::source::walk::Stamp;

/// Nanoseconds, for what may be written through a memory map: above the time that the kernel leaves a page dirty
/// (30 s, and 5 s until it looks). Until a page was written back, further stores into it change no time stamp.
const MAPPED_MARGIN: i128 = 60_000_000_000;

/// Nanoseconds, for what is written by calls: above the tick of any kernel's coarse clock (10 ms).
const MARGIN: i128 = 100_000_000;

/// Nanoseconds: above the two seconds that the coarsest file systems count in.
const COARSE_MARGIN: i128 = 3_000_000_000;

/// What was seen of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The file itself.
    pub stamp: Stamp,
    /// For a database: its write-ahead log and its rollback journal, if they were there. Elsewhere, since there are
    /// thousands of receipts, and few databases.
    database: Option<Box<[Option<Stamp>; 2]>>,
}

impl Receipt {
    /// Of a file that is no database.
    pub fn of_file(stamp: Stamp) -> Receipt {
        Receipt { stamp, database: None }
    }

    /// Of a database, with its write-ahead log and its rollback journal, if they were there.
    pub fn of_database(stamp: Stamp, beside: [Option<Stamp>; 2]) -> Receipt {
        Receipt { stamp, database: Some(Box::new(beside)) }
    }

    /// For a database: its write-ahead log and its rollback journal, if they were there.
    pub fn beside(&self) -> Option<[Option<Stamp>; 2]> {
        self.database.as_deref().copied()
    }

    /// Whether what lies beside a database, as it was seen, says the same as what is seen `now`.
    ///
    /// A log without a byte says no more than none at all: then the file is the database, whose own stamp is compared
    /// too. Such a log appears when somebody opens the database, and to open it changes its ctime if SQLite runs as the
    /// superuser, since it sets the owner.
    pub fn is_same_beside(&self, now: [Option<Stamp>; 2]) -> bool {
        let frames = |log: Option<Stamp>| log.filter(|log| log.size > 0);
        self.beside().is_none_or(|[log, journal]| frames(log) == frames(now[0]) && journal == now[1])
    }

    /// Whether it is safe to rely on, of a capture that began at the moment `began`, on a file system that is one
    /// `in_memory` or is not.
    pub fn may_be_kept(&self, began: Moment, in_memory: bool) -> bool {
        let is_hidden = in_memory && self.database.is_none() && self.stamp.size > 0;
        !is_hidden && self.is_safe(began)
    }

    /// Whether an unnoticed later change is out of the question for a capture that began at the moment `began`.
    pub fn is_safe(&self, began: Moment) -> bool {
        // SQLite gives a log its owner anew when the superuser opens it, as this program does for a moment: that is no
        // change of what is in it. Whoever writes to a log or a journal changes its modification time too.
        let sidecars = self.beside().into_iter().flatten().flatten().map(|stamp| Stamp { ctime: stamp.mtime, ..stamp });
        std::iter::once(self.stamp).chain(sidecars).all(|stamp| {
            let whole = |nanos: i128| nanos.rem_euclid(1_000_000_000) == 0;
            let coarse = whole(stamp.mtime) && whole(stamp.ctime);
            let changed = stamp.mtime.max(stamp.ctime);
            if self.database.is_none() && stamp.size > 0 {
                // By a clock that was set meanwhile it may be younger than it looks.
                return changed.max(began.steady) + MAPPED_MARGIN < began.began;
            }
            changed + (if coarse { COARSE_MARGIN } else { MARGIN }) < began.began
        })
    }
}

pub(super) fn put_stamp(out: &mut Vec<u8>, stamp: &Stamp) {
    for number in [stamp.device, stamp.inode, stamp.size] {
        put_varint(out, number);
    }
    for time in [stamp.mtime, stamp.ctime] {
        put_signed(out, time.div_euclid(1_000_000_000) as i64);
        put_varint(out, time.rem_euclid(1_000_000_000) as u64);
    }
}

pub(super) fn take_stamp(reader: &mut Reader<'_>) -> Result<Stamp, Malformed> {
    let (device, inode, size) = (reader.varint()?, reader.varint()?, reader.varint()?);
    let mut time = || Ok(i128::from(reader.signed()?) * 1_000_000_000 + i128::from(reader.varint()?));
    Ok(Stamp { device, inode, size, mtime: time()?, ctime: time()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(time: i128) -> Stamp {
        Stamp { device: 1, inode: 2, size: 3, mtime: time, ctime: time }
    }

    #[test]
    fn a_log_without_frames_is_none() {
        let old = stamp(5);
        let (empty, journal) = (Stamp { size: 0, ..stamp(5) }, Some(stamp(6)));
        for (was, now, is_same) in [
            ([Some(old), None], [Some(old), None], true),
            ([Some(old), None], [Some(stamp(6)), None], false),
            ([Some(old), None], [Some(empty), None], false),
            ([Some(old), None], [None, None], false),
            ([Some(empty), None], [Some(Stamp { size: 0, ..stamp(7) }), None], true),
            ([Some(empty), None], [None, None], true),
            ([None, None], [Some(empty), None], true),
            ([None, None], [Some(old), None], false),
            ([None, journal], [Some(empty), journal], true),
            ([None, journal], [None, None], false),
        ] {
            let receipt = Receipt::of_database(old, was);
            assert_eq!(receipt.is_same_beside(now), is_same, "{was:?} {now:?}");
        }
        assert!(Receipt::of_file(old).is_same_beside([Some(old), None]));
    }

    #[test]
    fn a_recent_change_gets_no_receipt() {
        let began = 1_700_000_000_500_000_000;
        let moment = Moment { began, steady: 0 };
        for (name, age, database, kept) in [
            ("old", 60_200_000_000, None, true),
            ("still in a map", 59_000_000_000, None, false),
            ("same tick", 1_000_000, None, false),
            ("whole seconds", 2_500_000_000, None, false),
            ("an old database", 200_000_000, Some([None, None]), true),
            ("a log in the same tick", 200_000_000, Some([Some(stamp(began)), None]), false),
        ] {
            let stamp = stamp(began - age);
            let receipt =
                database.map_or_else(|| Receipt::of_file(stamp), |beside| Receipt::of_database(stamp, beside));
            assert_eq!(receipt.may_be_kept(moment, false), kept, "{name}");
        }
    }

    #[test]
    fn what_has_content_may_be_mapped_and_must_have_been_written_back() {
        let began = 1_700_000_000_500_000_000;
        let moment = Moment { began, steady: 0 };
        for (size, age, kept) in [(0, 30, true), (1, 30, false), (1, 61, true), (5000, 30, false), (5000, 61, true)] {
            let receipt = Receipt::of_file(Stamp { size, ..stamp(began - age * 1_000_000_000 + 1) });
            assert_eq!(receipt.may_be_kept(moment, true), size == 0, "{size} bytes, {age} s, in memory");
            assert_eq!(receipt.may_be_kept(moment, false), kept, "{size} bytes, {age} s");
            // The clock was set a moment ago: nobody knows how old it is.
            let moment = Moment { began, steady: began - 1_000_000_000 };
            assert_eq!(receipt.may_be_kept(moment, false), size == 0, "{size} bytes, {age} s, the clock was set");
        }
    }
}
