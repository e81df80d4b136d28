//! What a file system keeps of the times at which files change.
//!
//! A store into a mapped page changes a file's time only when the page was clean. A file system on a disk cleans its
//! pages by writing them back, so the next store is seen again. One in memory never writes back: there a file can
//! change for ever behind one time stamp.
//!
//! One that is kept by another machine takes its times from that one's clock ([`super::clock`]).

#[cfg(target_os = "linux")]
use std::ffi::OsString;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::path::PathBuf;

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

/// Whether this machine is known to keep the file system that `path` lies on, and those that are mounted below it.
#[cfg(target_os = "linux")]
pub fn is_of_this_machine(path: &Path) -> bool {
    let is_ours =
        |path: &Path| kind(path).is_some_and(|kind| OF_THIS_MACHINE.contains(&kind) || IN_MEMORY.contains(&kind));
    is_ours(path) && mounted_below(path).iter().all(|path| is_ours(path))
}

/// Where something is mounted below `path`, by proc(5): the fifth field of a line, in which a byte may be in octal.
#[cfg(target_os = "linux")]
fn mounted_below(path: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let place = |line: &[u8]| {
        let field = line.split(|byte| *byte == b' ').nth(4)?;
        let (mut bytes, mut rest) = (Vec::with_capacity(field.len()), field);
        while let Some((first, after)) = rest.split_first() {
            let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|three| std::str::from_utf8(three).ok());
            let escaped = octal.and_then(|three| u8::from_str_radix(three, 8).ok());
            bytes.push(escaped.unwrap_or(*first));
            rest = if escaped.is_some() { &after[3..] } else { after };
        }
        Some(PathBuf::from(OsString::from_vec(bytes)))
    };
    let places = mounts.split(|byte| *byte == b'\n').filter_map(place);
    places.filter(|place| place != path && place.starts_with(path)).collect()
}

/// Whether this machine is known to keep the file system that `path` lies on. Elsewhere nobody is asked.
#[cfg(not(target_os = "linux"))]
pub fn is_of_this_machine(_: &Path) -> bool {
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
    #[test]
    fn what_the_kernel_makes_up_is_no_disk_of_this_machine() {
        assert!(super::is_of_this_machine(&std::env::temp_dir()));
        assert!(!super::is_of_this_machine(std::path::Path::new("/proc")));
        // Below the root that is mounted.
        assert!(super::mounted_below(std::path::Path::new("/")).contains(&"/proc".into()));
        assert!(!super::is_of_this_machine(std::path::Path::new("/")));
    }

    #[test]
    fn a_tmpfs_is_told_from_a_disk() {
        let shared = std::path::Path::new("/dev/shm");
        if shared.is_dir() {
            assert!(super::is_in_memory(shared));
        }
        assert!(!super::is_in_memory(std::path::Path::new("/proc")));
    }
}
