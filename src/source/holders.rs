//! Which processes have a file open, or mapped into their memory: `/proc/*/fd` and `/proc/*/maps`, as far as they may
//! be read.
//!
//! Of other users' processes only root sees anything, and none is seen across containers. So this finds names to tell
//! and openers that hold no lock at the moment; it is not what safety rests on.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::makedev;

/// A file, by device and inode as `stat` gives them.
pub type File = (u64, u64);

/// A process: its number and its name.
pub type Process = (u32, String);

/// Between two looks: a process that is being started holds its parent's files for a moment.
const MOMENT: Duration = Duration::from_millis(60);

/// Which processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// All but this one.
    Others,
    /// All: asked while this library has none of the files open itself.
    Anybody,
}

/// The processes that have each of `files` open. Files that nobody has open are left out.
pub fn holders(files: &[File], whose: Whose) -> BTreeMap<File, Vec<Process>> {
    let first = look(files, whose);
    if first.is_empty() {
        return first;
    }
    std::thread::sleep(MOMENT);
    let again = look(files, whose);
    again.into_iter().filter(|(file, _)| first.contains_key(file)).collect()
}

fn look(files: &[File], whose: Whose) -> BTreeMap<File, Vec<Process>> {
    let mut found = BTreeMap::<File, Vec<Process>>::new();
    if files.is_empty() {
        return found;
    }
    let files: BTreeSet<File> = files.iter().copied().collect();
    let Ok(processes) = std::fs::read_dir("/proc") else { return found };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if whose == Whose::Others && pid == std::process::id() {
            continue;
        }
        let open = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let open = open.filter_map(|one| std::fs::metadata(one.path()).ok()).map(|meta| (meta.dev(), meta.ino()));
        let mut held: BTreeSet<File> = open.filter(|file| files.contains(file)).collect();
        held.extend(mapped(&process.path(), &files));
        for file in held {
            found.entry(file).or_default().push((pid, command(&process.path())));
        }
    }
    found
}

/// Which of `files` a process has in its memory: it needs none of them open for that. The form of a line is that of
/// proc(5): `address permissions offset device inode path`.
fn mapped(process: &Path, files: &BTreeSet<File>) -> BTreeSet<File> {
    let maps = std::fs::read(process.join("maps")).unwrap_or_default();
    let of_line = |line: &[u8]| {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let device = std::str::from_utf8(fields.nth(3)?).ok()?;
        let (major, minor) = device.split_once(':')?;
        let device = makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        let inode: u64 = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let path = Path::new(std::ffi::OsStr::from_bytes(fields.next().unwrap_or_default().trim_ascii_start()));
        // Some file systems say another device here than `stat` does.
        let is_it = |file: &&File| {
            file.0 == device || std::fs::metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == **file)
        };
        files.iter().filter(|file| file.1 == inode).find(is_it).copied()
    };
    maps.split(|byte| *byte == b'\n').filter_map(of_line).collect()
}

fn command(process: &Path) -> String {
    // Any bytes may be in it, and it goes into messages.
    let text = std::fs::read(process.join("comm")).unwrap_or_default();
    String::from_utf8_lossy(&text).trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// As words, for a message.
pub fn in_words(processes: &[Process]) -> String {
    if processes.is_empty() {
        return "an open program".to_owned();
    }
    let named: Vec<String> = processes.iter().map(|(pid, name)| format!("{name} (process {pid})")).collect();
    named.join(", ")
}
