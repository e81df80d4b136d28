//! What a file system keeps of the times at which files change.
//!
//! A store into a mapped page changes a file's time only when the page was clean. A file system on a disk cleans its
//! pages by writing them back, so the next store is seen again. One in memory never writes back: there a file can
//! change for ever behind one time stamp.

use std::path::Path;

/// `TMPFS_MAGIC`, `RAMFS_MAGIC` and `HUGETLBFS_MAGIC` of `linux/magic.h` and the kernel's sources.
#[cfg(target_os = "linux")]
const IN_MEMORY: [u64; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

/// Whether the file system that `path` lies on is known to be one in memory.
#[cfg(target_os = "linux")]
pub fn is_in_memory(path: &Path) -> bool {
    // The type has another width on other machines; a sign that came with widening is taken off again.
    rustix::fs::statfs(path).is_ok_and(|about| IN_MEMORY.contains(&(about.f_type as u64 & 0xffff_ffff)))
}

/// Whether the file system that `path` lies on is known to be one in memory.
#[cfg(not(target_os = "linux"))]
pub fn is_in_memory(_: &Path) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn a_tmpfs_is_told_from_a_disk() {
        let shared = std::path::Path::new("/dev/shm");
        if shared.is_dir() {
            assert!(super::is_in_memory(shared));
        }
        assert!(!super::is_in_memory(std::path::Path::new("/proc")));
    }
}
