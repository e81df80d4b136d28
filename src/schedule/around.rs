//! What `doctor` says of the places themselves: who has databases open, what interruptions left behind, and who can
//! read what is a secret.
//!
//! Nothing is opened that belongs to the application, and nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::checks::{Level, Say};
use crate::crypto::secret::Credential;
use crate::drive::grant::FILE as GRANT;
use crate::drive::sessions::WAITING;
use crate::export::backup::Backup;
use crate::export::nbak::{self, NbakKeys};
use crate::snapshot::places::Places;
use crate::snapshot::scratch::left;
use crate::snapshot::store::UNFINISHED;
use crate::source::holders::{Whose, holders, in_words};
use crate::source::own;

/// Who has the databases open that lie at the top of the data directory: whoever restores has to know.
pub fn openers(places: &Places, say: &mut Say<'_>) {
    let entries = std::fs::read_dir(&places.data_dir).into_iter().flatten().flatten();
    let mut databases = BTreeMap::new();
    // By their names: to open one and close it again would drop locks that this very process may hold on it.
    let is_database = |path: &PathBuf| {
        path.extension()
            .is_some_and(|end| ["db", "sqlite", "sqlite3"].iter().any(|known| end.eq_ignore_ascii_case(known)))
    };
    for path in entries.map(|entry| entry.path()).filter(is_database) {
        if let Ok(meta) = std::fs::metadata(&path) {
            databases.insert((meta.dev(), meta.ino()), path.file_name().unwrap_or_default().to_os_string());
        }
    }
    let files: Vec<_> = databases.keys().copied().collect();
    let open = holders(&files, Whose::Others);
    let mut all: Vec<String> = open
        .iter()
        .filter_map(|(file, who)| Some(format!("{} by {}", databases.get(file)?.to_string_lossy(), in_words(who))))
        .collect();
    all.sort();
    let text = if all.is_empty() {
        "nobody who can be seen from here has a database open".to_owned()
    } else {
        format!("open: {}", all.join("; "))
    };
    say("openers", Level::Good, text, "");
}

/// What an interruption left behind, and who may still need it.
pub fn leftovers(places: &Places, say: &mut Say<'_>) {
    for (path, text, remedy) in [
        (
            places.repo.join("quarantine"),
            "the store has set damaged packs aside",
            "look at them, then remove the folder",
        ),
        (places.repo.join(UNFINISHED), "a pull from Google Drive has not ended", "run `nbak gdrive pull` again"),
        (
            places.backup_dir.join(".nbak-gdrive"),
            "a download from Google Drive lies here",
            "run `nbak backup gdrive restore` again, or remove the folder",
        ),
        (
            places.data_dir.join(WAITING),
            "backups wait for their upload",
            "the next `nbak backup` uploads them; `nbak auth status` says whether there is access",
        ),
    ] {
        if path.exists() {
            say("leftovers", Level::Note, format!("{text}: {}", path.display()), remedy);
        }
    }
    let staged = places.data_dir.join(".nbak-restore");
    if staged.is_dir() && !staged.join("intent").exists() {
        let text = format!(
            "a restore that was killed before it changed anything left what it had staged: {}",
            staged.display()
        );
        say("leftovers", Level::Note, text, "the next `nbak snapshot` or `nbak backup` removes it");
    }
    let beside = places.repo.parent().unwrap_or(&places.repo);
    let folders: BTreeSet<&Path> = [beside, &places.data_dir, &places.backup_dir].into();
    for path in folders.into_iter().flat_map(left) {
        let text = format!("a command that was killed left plaintext in its scratch space: {}", path.display());
        say("leftovers", Level::Note, text, "the next `nbak snapshot` or `nbak backup` removes it; so may you");
    }
}

/// Whether a key that is at hand opens the backup in `folder`: proven on its smallest file, as a restore does first.
/// Nobody wants to learn in the night of one that it was sealed under a key that is gone.
pub fn key_of_backup(folder: &Path, credentials: &[Credential], say: &mut Say<'_>) {
    // What cannot be read is said elsewhere.
    let Ok(backup) = Backup::open(folder) else { return };
    let files = backup.manifest.files.iter().filter(|entry| !entry.kind.is_directory());
    let Some(smallest) = files.min_by_key(|entry| entry.size).filter(|_| backup.manifest.encrypted) else { return };
    let Ok(mut file) = backup.file(smallest) else { return };
    let keys = NbakKeys::new(credentials, backup.manifest.dialect);
    match nbak::prove(&mut file, &folder.join(&smallest.path), &keys) {
        Ok(_) => say("backup key", Level::Good, format!("a key that is set opens {}", backup.name), ""),
        Err(error) if error.is_key() => {
            let text = format!("no key that is set opens {}", backup.name);
            let remedy = "find the key that it was made with (`nbak backup verify --vault-key-file FILE` tries one); \
                          `nbak backup` makes one that today's key opens";
            say("backup key", Level::Bad, text, remedy);
        }
        Err(_) => {}
    }
}

/// Whether others can read what is a secret.
pub fn permissions(places: &Places, say: &mut Say<'_>) {
    let own = rustix::process::geteuid();
    let (mut open, mut is_others) = (Vec::new(), false);
    let secret: [PathBuf; 3] =
        [places.data_dir.join(".env"), places.data_dir.join(GRANT), places.data_dir.join("vault.key")];
    for path in secret {
        if let Some(meta) = std::fs::metadata(&path).ok().filter(|meta| meta.mode() & 0o077 != 0) {
            open.push(path.display().to_string());
            is_others |= !own.is_root() && meta.uid() != own.as_raw();
        }
    }
    if open.is_empty() {
        say("permissions", Level::Good, "nobody else can read the keys".to_owned(), "");
    } else {
        let remedy = if is_others { "as the user that it belongs to, or as root: chmod 600" } else { "chmod 600" };
        say("permissions", Level::Bad, format!("others can read {}", open.join(", ")), remedy);
    }
    let own = places.data_dir.join(own::FOLDER);
    if std::fs::metadata(&own).is_ok_and(|meta| !meta.is_dir()) {
        let text = format!("{} is no folder: nothing can be kept there", own.display());
        say("permissions", Level::Bad, text, "move it away; the next command makes the folder");
    }
    if std::fs::metadata(&places.data_dir).is_ok_and(|meta| meta.mode() & 0o007 != 0) {
        let text = format!("everybody can look into {}", places.data_dir.display());
        say("permissions", Level::Note, text, "chmod 700, if nobody else has to");
    }
}
