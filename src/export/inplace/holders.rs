//! Which processes have a file open: `/proc/*/fd`, as far as it may be read.
//!
//! Of other users' processes only root sees anything, and none is seen across containers. So this finds names to tell
//! and openers that hold no lock at the moment; it is not what safety rests on.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

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
    let files: std::collections::BTreeSet<File> = files.iter().copied().collect();
    let Ok(processes) = std::fs::read_dir("/proc") else { return found };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if whose == Whose::Others && pid == std::process::id() {
            continue;
        }
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else { continue };
        for one in open.flatten() {
            let Ok(meta) = std::fs::metadata(one.path()) else { continue };
            let file = (meta.dev(), meta.ino());
            if files.contains(&file) {
                let list = found.entry(file).or_default();
                if list.iter().all(|(known, _)| *known != pid) {
                    list.push((pid, command(&process.path())));
                }
            }
        }
    }
    found
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
