//! What the program keeps for itself in the data directory: one folder, which no snapshot has.
//!
//! What is in there is replaced by renames, and a rename changes the time of the folder that it happens in. The data
//! directory's own time is part of a snapshot: if such files lay in it, each snapshot would find it changed by what
//! was noted after the one before, and an idle directory would never be found unchanged.

use std::io::{ErrorKind, Result, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The folder's name in the data directory.
pub const FOLDER: &str = ".nbak-state";

/// Makes the folder that `path` is in, if it is not there; not the one above it.
pub fn make_room(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The same, for the owner of the data directory `of`, whoever makes it.
pub fn make_room_for_owner(path: &Path, of: &Path) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let was_there = std::fs::symlink_metadata(folder).is_ok();
    make_room(path)?;
    if let (Some((user, group)), false) = (owner(of)?, was_there) {
        // Who owns the data directory may have put a link in its place meanwhile.
        std::os::unix::fs::lchown(folder, Some(user), Some(group))?;
    }
    Ok(())
}

/// Gives a file to the owner of the folder `of`, if root has made it.
pub fn give_to_owner(file: &std::fs::File, of: &Path) -> Result<()> {
    match owner(of)? {
        Some((user, group)) => std::os::unix::fs::fchown(file, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// Puts a file in place in one piece, not synced, for those whom `mode` says, whatever the mask is. What has the name
/// that it is written under goes, and is not written through: in a folder of others it may be a link, or a pipe.
pub fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    place(path, bytes, mode, None)
}

/// The same, for the owner of the folder `of`, whoever puts it there: root's command may not take from an application
/// what that keeps.
pub fn put_for_owner(path: &Path, bytes: &[u8], mode: u32, of: &Path) -> Result<()> {
    place(path, bytes, mode, owner(of)?)
}

/// Whose the folder `of` is, if this process is root's and that is not.
fn owner(of: &Path) -> Result<Option<(u32, u32)>> {
    let meta = std::fs::metadata(of)?;
    let is_root = rustix::process::geteuid().is_root() && meta.uid() != 0;
    Ok(is_root.then(|| (meta.uid(), meta.gid())))
}

fn place(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    // If it stays, the next line says so.
    let _ = std::fs::remove_file(&aside);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    if let Some((user, group)) = owner {
        // By the file itself, which was made here: who owns the folder may put another in its place meanwhile.
        std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
    }
    std::fs::rename(aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_name_that_it_is_written_under_is_not_written_through() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, other) = (folder.path().join("file"), folder.path().join("other"));
        std::fs::write(&other, "a key").expect("written");
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).expect("set");
        std::os::unix::fs::symlink(&other, folder.path().join("file.tmp")).expect("linked");
        put(&path, b"new", 0o644).expect("put");
        assert_eq!(std::fs::read(&other).expect("read"), b"a key");
        let mode = |path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&other), std::fs::read(&path).expect("read")), (0o644, 0o600, b"new".to_vec()));
    }

    #[test]
    fn room_is_made_for_the_owner_and_not_above() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join(FOLDER).join("file");
        for _ in 0..2 {
            make_room(&path).expect("made");
        }
        let mode = std::fs::metadata(place.path().join(FOLDER)).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o700);
        assert!(make_room(&place.path().join("nowhere").join(FOLDER).join("file")).is_err());
    }
}
