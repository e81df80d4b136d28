//! The second half of the tour: the documented backup, a disaster, and the way back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nbak::crypto::secret::Credential;
use nbak::export::backup::Backup;
use nbak::export::manager::{BackupManager, Created, Settings};
use nbak::export::restore::{Options, Restored};
use nbak::export::verify::Verified;
use nbak::snapshot::places::Places;
use nbak::snapshot::progress::Silent;
use rusqlite::Connection;

use super::{Nbak, Result, files_below};

/// The backups of the tour's data directory.
pub struct Backups {
    manager: BackupManager,
    data: PathBuf,
}

impl Backups {
    /// In `folder`, made from the store of `nbak` and sealed with its key.
    pub fn of(nbak: &Nbak, folder: PathBuf) -> Backups {
        let places = Places { name: None, data_dir: nbak.source.clone(), backup_dir: folder, repo: nbak.repo.clone() };
        let manager = BackupManager::new(places, Settings::default(), vec![Credential::VaultKey(nbak.key.clone())]);
        Backups { manager, data: nbak.source.clone() }
    }

    pub fn create(&self) -> Result<Created> {
        Ok(self.manager.create_backup(&Silent)?)
    }

    /// The newest, found in the list and verified.
    pub fn verify(&self) -> Result<(Backup, Verified)> {
        let backup = self.manager.find_backup(None)?;
        let verified = self.manager.verify_backup(&backup)?;
        Ok((backup, verified))
    }

    /// Restores; answers also where the safety backup is.
    pub fn restore(&self, backup: &Backup) -> Result<(Restored, PathBuf)> {
        let safety = std::cell::RefCell::new(PathBuf::new());
        let on_safety = |created: &Created| safety.borrow_mut().clone_from(&created.written.path);
        let restored = self.manager.restore_backup(backup, &Options::default(), &on_safety, &Silent)?;
        Ok((restored, safety.into_inner()))
    }

    /// What a bad day does: rows deleted, with the log of that left beside the database as a killed program leaves it;
    /// a database gone; folders gone; a file overwritten.
    pub fn disaster(&self) -> Result<()> {
        let history = self.data.join("history.db");
        let log = self.data.join("history.db-wal");
        let db = Connection::open(&history)?;
        db.busy_timeout(Duration::from_secs(5))?;
        db.execute_batch("PRAGMA wal_autocheckpoint=0; DELETE FROM tool_calls; DELETE FROM runs")?;
        let bytes = fs::read(&log)?;
        drop(db);
        fs::write(&log, bytes)?;
        fs::remove_file(self.data.join("vault.db"))?;
        fs::remove_dir_all(self.data.join("memory"))?;
        fs::write(self.data.join("config.json"), b"")?;
        Ok(())
    }
}

/// What stands in a data directory, by content: databases by their rows, since a backup holds compact copies of them.
pub fn content(data: &Path) -> Result<BTreeMap<PathBuf, blake3::Hash>> {
    let mut all = BTreeMap::new();
    for path in files_below(data)? {
        let name = path.to_string_lossy();
        if name.starts_with(".nbak-") || name.ends_with("-wal") || name.ends_with("-shm") {
            continue;
        }
        let mut hash = blake3::Hasher::new();
        if name.ends_with(".db") {
            rows(&data.join(&path), &mut hash)?;
        } else {
            hash.update(&fs::read(data.join(&path))?);
        }
        all.insert(path, hash.finalize());
    }
    Ok(all)
}

fn rows(path: &Path, hash: &mut blake3::Hasher) -> Result<()> {
    let db = super::open(path)?;
    let mut names = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let names = names.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for name in names {
        let mut statement = db.prepare(&format!("SELECT * FROM \"{name}\" ORDER BY 1"))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                hash.update(format!("{:?}|", row.get_ref(column)?).as_bytes());
            }
        }
    }
    Ok(())
}
