//! Which directory a data directory is.
//!
//! A path says where it lies, and in a container that is the same each time. What two directories never share is the
//! inode together with the nanosecond in which it was made. Both stay as long as the directory is there, whatever is
//! done in it, and nothing has to be kept anywhere to know them again: not by a snapshot that cron takes, not of a
//! directory that may not be written to. A copy, or what was restored somewhere else, is another directory; the clone
//! of a whole disk is the same one.
//!
//! The top of a file system was made with it, with the same inode as all of them, and at a whole second or, of those in
//! memory, in the same tick: so where that has an id of its own which stays with it, that counts too. An overlay shows
//! another birth time once something was written.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::id::InstanceId;

/// What `statfs` calls the file systems that are asked for more, or not at all.
const BTRFS: rustix::fs::FsWord = 0x9123_683E;
const EXT4: rustix::fs::FsWord = 0xEF53;
const TMPFS: rustix::fs::FsWord = 0x0102_1994;
const OVERLAY: rustix::fs::FsWord = 0x794C_7630;
/// What the hash begins with.
const LABEL: &[u8] = b"nbak data directory";

/// Which one lies at `path`; nothing where its file system does not know when it was made.
pub fn instance(path: &Path) -> Option<InstanceId> {
    let meta = std::fs::metadata(path).ok()?;
    let medium = match rustix::fs::statfs(path).ok()?.f_type {
        OVERLAY => return None,
        BTRFS | EXT4 | TMPFS => rustix::fs::statvfs(path).ok()?.f_fsid,
        _ => 0,
    };
    of(medium, meta.ino(), meta.created().ok()?)
}

/// When the directory at `path` was made, in milliseconds since 1970; nothing where its file system does not know.
pub fn made_ms(path: &Path) -> Option<i64> {
    instance(path)?;
    let made = std::fs::metadata(path).ok()?.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(made.as_millis()).ok()
}

fn of(medium: u64, inode: u64, made: SystemTime) -> Option<InstanceId> {
    let made = made.duration_since(UNIX_EPOCH).ok().filter(|made| !made.is_zero())?;
    let mut hash = blake3::Hasher::new();
    hash.update(LABEL)
        .update(&medium.to_le_bytes())
        .update(&inode.to_le_bytes())
        .update(&made.as_nanos().to_le_bytes());
    hash.finalize().as_bytes().first_chunk().copied().map(InstanceId)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_directory_has_its_own_and_keeps_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("one")).expect("made");
        std::fs::create_dir(path("two")).expect("made");
        let (Some(one), two) = (instance(&path("one")), instance(&path("two"))) else {
            // This file system does not say when a folder was made.
            return;
        };
        assert_ne!(Some(one), two);
        std::fs::write(path("one/file"), "content").expect("written");
        std::fs::rename(path("one"), path("elsewhere")).expect("moved");
        assert_eq!(instance(&path("elsewhere")), Some(one));
        assert_eq!(instance(&path("one")), None);
    }

    #[test]
    fn all_of_it_counts_and_no_time_is_none() {
        let at = |nanos| UNIX_EPOCH + Duration::from_nanos(nanos);
        assert_eq!(of(0, 1, at(0)), None);
        assert_ne!(of(0, 1, at(1)), of(1, 1, at(1)));
        assert_ne!(of(0, 1, at(1)), of(0, 2, at(1)));
        assert_ne!(of(0, 1, at(1)), of(0, 1, at(2)));
    }
}
