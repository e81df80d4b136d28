//! What a file system keeps of the times at which files change.
//!
//! A store into a mapped page changes a file's time only when the page was clean. A file system on a disk cleans its
//! pages by writing them back, so the next store is seen again. One in memory never writes back: there a file can
//! change for ever behind one time stamp.
//!
//! One that is kept by another machine takes its times from that one's clock ([`super::clock`]).

use std::path::Path;

use super::mounts::Mounts;

/// `TMPFS_MAGIC`, `RAMFS_MAGIC` and `HUGETLBFS_MAGIC` of `linux/magic.h` and the kernel's sources.
#[cfg(target_os = "linux")]
const IN_MEMORY: [u64; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

/// Of the same: ext2 to ext4, XFS, Btrfs, F2FS, overlays, ZFS, bcachefs, JFS, Reiserfs, NILFS, FAT, exFAT, NTFS, UBIFS
/// and eCryptfs, of which the kernel of this machine writes the times.
#[cfg(target_os = "linux")]
const OF_THIS_MACHINE: [u64; 16] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0x794c_7630,
    0x2fc1_2fc1,
    0xca45_1a4e,
    0x3153_464a,
    0x5265_4973,
    0x3434,
    0x4d44,
    0x2011_bab0,
    0x7366_746e,
    0x5346_544e,
    0x2405_1905,
    0xf15f,
];

/// The type of the file system that `path` lies on.
#[cfg(target_os = "linux")]
fn kind(path: &Path) -> Option<u64> {
    // It has another width on other machines; a sign that came with widening is taken off again.
    rustix::fs::statfs(path).ok().map(|about| about.f_type as u64 & 0xffff_ffff)
}

/// Whether this machine is known to keep the file system that `path` lies on, and the `mounts` below it.
#[cfg(target_os = "linux")]
pub fn is_of_this_machine(path: &Path, mounts: &Mounts) -> bool {
    let is_ours =
        |path: &Path| kind(path).is_some_and(|kind| OF_THIS_MACHINE.contains(&kind) || IN_MEMORY.contains(&kind));
    is_ours(path) && mounts.places().all(is_ours)
}

/// Whether this machine is known to keep the file system that `path` lies on. Elsewhere nobody is asked.
#[cfg(not(target_os = "linux"))]
pub fn is_of_this_machine(_: &Path, _: &Mounts) -> bool {
    true
}

/// Whether the file system that `path` lies on is known to be one in memory.
#[cfg(target_os = "linux")]
pub fn is_in_memory(path: &Path) -> bool {
    kind(path).is_some_and(|kind| IN_MEMORY.contains(&kind))
}

/// Whether the file system that `path` lies on is known to be one in memory.
#[cfg(not(target_os = "linux"))]
pub fn is_in_memory(_: &Path) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_makes_up_is_no_disk_of_this_machine() {
        let is_ours = |path: &Path| is_of_this_machine(path, &Mounts::below(path));
        assert!(is_ours(&std::env::temp_dir()));
        assert!(!is_ours(Path::new("/proc")));
        // Below the root that is mounted.
        assert!(!is_ours(Path::new("/")));
    }

    #[test]
    fn a_tmpfs_is_told_from_a_disk() {
        let shared = Path::new("/dev/shm");
        if shared.is_dir() {
            assert!(is_in_memory(shared));
        }
        assert!(!is_in_memory(Path::new("/proc")));
    }
}
