//! What is mounted below a directory.
//!
//! What is mounted on a folder may go while the directory is captured, or something else be mounted there: what was
//! below it is not to be found any more, as if it had been deleted, though nobody deleted it. No stamp tells: a folder
//! of the same file system may have been mounted. So the list is held against the one of the beginning.
//!
//! A mount has a number, which the kernel gives to the next one when it goes; since Linux 6.8 there is one besides that
//! is never given twice. Before that, who exchanges one file system in memory for another is not found out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStringExt as _;

#[cfg(target_os = "linux")]
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::error::SourceError;

/// `STATX_MNT_ID_UNIQUE` of statx(2).
#[cfg(target_os = "linux")]
const NEVER_AGAIN: u32 = 0x4000;

/// Where something is mounted below a directory, and what tells it from another.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mounts(BTreeSet<(PathBuf, String)>);

impl Mounts {
    /// Of the directory at `path`, which must be its real one. None where nobody can be asked.
    #[cfg(target_os = "linux")]
    pub fn below(path: &Path) -> Mounts {
        let list = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        let all = list.split(|byte| *byte == b'\n').filter_map(mount);
        let below = all.filter(|(place, _)| place != path && place.starts_with(path));
        let told_apart = |(place, known): (PathBuf, String)| {
            let who = number(&place).unwrap_or(known);
            (place, who)
        };
        Mounts(below.map(told_apart).collect())
    }

    /// Of the directory at `path`. Nobody can be asked.
    #[cfg(not(target_os = "linux"))]
    pub fn below(_: &Path) -> Mounts {
        Mounts::default()
    }

    /// Where it is.
    pub fn places(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(place, _)| &**place)
    }

    /// Where something went since this was asked, or came, of what is there `now`.
    pub fn changed<'m>(&'m self, now: &'m Mounts) -> BTreeSet<&'m Path> {
        self.0.symmetric_difference(&now.0).map(|(place, _)| &**place).collect()
    }
}

/// What is to be said of the folder at `path` in the data directory, where something was mounted, and is no more.
pub fn unmounted(path: &Path) -> SourceError {
    let reason = "what is mounted there is not what was: what had been below it may be missing; take another snapshot";
    SourceError::new(path, reason)
}

/// The number of the mount at `place` that no other one will have, if the kernel has such.
#[cfg(target_os = "linux")]
fn number(place: &Path) -> Option<String> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let stat = statx(CWD, place, flags, StatxFlags::from_bits_retain(NEVER_AGAIN)).ok()?;
    (stat.stx_mask & NEVER_AGAIN != 0).then(|| stat.stx_mnt_id.to_string())
}

/// A line of proc(5): the place is the fifth field, in which a byte may be in octal. The four before it (the number,
/// the parent's, the device, and the folder of that) mostly tell it from others.
#[cfg(target_os = "linux")]
fn mount(line: &[u8]) -> Option<(PathBuf, String)> {
    let fields: Vec<&[u8]> = line.splitn(6, |byte| *byte == b' ').collect();
    let [number, parent, device, folder, field, _] = fields[..] else { return None };
    let known = [number, parent, device, folder].map(|field| String::from_utf8_lossy(field).into_owned()).join(" ");
    let (mut bytes, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|three| std::str::from_utf8(three).ok());
        let escaped = octal.and_then(|three| u8::from_str_radix(three, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    Some((PathBuf::from(std::ffi::OsString::from_vec(bytes)), known))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = b"36 35 98:0 /mnt1 /mnt/with\\040space rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount(line), Some((PathBuf::from("/mnt/with space"), "36 35 98:0 /mnt1".to_owned())));
        assert_eq!(mount(b""), None);
        assert!(Mounts::below(Path::new("/")).places().any(|place| place == Path::new("/proc")));
    }

    #[test]
    fn what_went_and_what_came_is_named() {
        let mount = |(place, who): &(&str, &str)| (PathBuf::from(place), (*who).to_owned());
        let mounts = |all: &[(&str, &str)]| Mounts(all.iter().map(mount).collect());
        let before = mounts(&[("/d/gone", "1"), ("/d/again", "2"), ("/d/stays", "3")]);
        let now = mounts(&[("/d/again", "4"), ("/d/stays", "3"), ("/d/new", "5")]);
        let changed: Vec<&Path> = before.changed(&now).into_iter().collect();
        assert_eq!(changed, ["/d/again", "/d/gone", "/d/new"].map(Path::new));
    }
}
