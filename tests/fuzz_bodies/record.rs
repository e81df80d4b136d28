//! Snapshot records, and receipts, which are read beside them.

use nbak::snapshot::receipts::Receipts;
use nbak::snapshot::record::{MOST_UNREADABLE, Record};

pub fn body(data: &[u8]) {
    match Record::decode(data) {
        Ok(mut record) => {
            let bytes = record.encode();
            // Only so many are written by name.
            record.unreadable.truncate(MOST_UNREADABLE);
            let again = Record::decode(&bytes).expect("what was written can be read");
            assert_eq!(again, record);
            assert_eq!(again.encode(), bytes, "equal records have equal bytes: their hash chains them");
        }
        Err(error) => assert!(error.is_integrity(), "{error}"),
    }
    if let Ok(receipts) = Receipts::decode(data) {
        let again = Receipts::decode(&receipts.encode()).expect("what was written can be read");
        assert_eq!(again.snapshot, receipts.snapshot);
        assert!(again.files.keys().all(|path| receipts.files.contains_key(path)));
    }
}
