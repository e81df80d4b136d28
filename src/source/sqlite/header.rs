//! The first 100 bytes of a database file.
//!
//! The layout is that of "The Database Header" in SQLite's file format document; integers are
//! big-endian. The checks are the ones SQLite makes before it accepts a file, no stricter in what
//! matters: a file that passes here may still be refused by SQLite, and a file that fails here is
//! one that SQLite would not open.

/// The bytes that every database begins with.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The length of the header in bytes.
pub const HEADER_BYTES: usize = 100;

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes per page: a power of two, 512 to 65,536.
    pub page_size: u32,
    /// 1 for rollback journals, 2 for a write-ahead log; more is a format that may be read but not written.
    pub write_version: u8,
    /// 1 or 2, as above.
    pub read_version: u8,
    /// Bytes at the end of each page that are not the database's.
    pub reserved: u8,
    /// Pages in the database, if the writer that last changed the file was new enough to keep the count.
    pub pages: Option<u32>,
}

/// Parses the beginning of a file; `None` if it is not the beginning of a database.
pub fn looks_like_database(bytes: &[u8]) -> Option<Header> {
    let bytes = bytes.get(..HEADER_BYTES)?;
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    // 1 stands for 65,536, which does not fit.
    let page_size = match u16::from_be_bytes([bytes[16], bytes[17]]) {
        1 => 65_536,
        size => u32::from(size),
    };
    let (write_version, read_version, reserved) = (bytes[18], bytes[19], bytes[20]);
    let sound = (512..=65_536).contains(&page_size)
        && page_size.is_power_of_two()
        && write_version >= 1
        && (1..=2).contains(&read_version)
        && bytes[21..24] == [64, 32, 32]
        && page_size - u32::from(reserved) >= 480;
    if !sound {
        return None;
    }
    // Writers older than 3.7.0 left the count alone, and did not copy the change counter to 92.
    let pages = word(bytes, 28);
    let pages = (pages > 0 && word(bytes, 24) == word(bytes, 92)).then_some(pages);
    Some(Header { page_size, write_version, read_version, reserved, pages })
}

/// The big-endian word at `at`, which must be in range.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> Vec<u8> {
        let mut bytes = vec![0; 100];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16] = 0x10;
        bytes[18..24].copy_from_slice(&[2, 2, 0, 64, 32, 32]);
        bytes[31] = 7;
        bytes
    }

    #[test]
    fn reads_a_valid_header() {
        let header = looks_like_database(&valid()).expect("valid");
        assert_eq!(header, Header { page_size: 4096, write_version: 2, read_version: 2, reserved: 0, pages: Some(7) });
        let mut big = valid();
        big[16..18].copy_from_slice(&[0, 1]);
        assert_eq!(looks_like_database(&big).map(|h| h.page_size), Some(65_536));
        let mut stale = valid();
        stale[27] = 9;
        assert_eq!(looks_like_database(&stale).and_then(|h| h.pages), None);
    }

    #[test]
    fn refuses_what_sqlite_refuses() {
        assert_eq!(looks_like_database(&valid()[..99]), None);
        for (at, value) in [(0, b's'), (16, 0x11), (16, 0), (19, 3), (19, 0), (21, 63), (22, 31), (23, 0)] {
            let mut bytes = valid();
            bytes[at] = value;
            assert_eq!(looks_like_database(&bytes), None, "byte {at} = {value}");
        }
        let mut small = valid();
        small[16..18].copy_from_slice(&[2, 0]);
        small[20] = 33;
        assert_eq!(looks_like_database(&small), None);
        small[20] = 32;
        assert!(looks_like_database(&small).is_some());
    }
}
