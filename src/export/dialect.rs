//! The names that the application goes by: it was `nodyn` first, and is `lynox` today.
//!
//! Both are read, wherever they come from. What is written follows the data directory, unless a flag chooses.

use std::path::Path;

use crate::crypto::vault::Labels;

/// One set of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The first.
    Nodyn,
    /// Since the application was renamed.
    Lynox,
}

impl Dialect {
    /// Both, the older first.
    pub const ALL: [Dialect; 2] = [Dialect::Nodyn, Dialect::Lynox];

    /// The dialect of the data directory at `path`: `~/.lynox` is called after the application, and so is a volume.
    pub fn of_data_dir(path: &Path) -> Dialect {
        match path.file_name().and_then(|name| name.to_str()) {
            Some(".lynox" | "lynox") => Dialect::Lynox,
            _ => Dialect::Nodyn,
        }
    }

    /// The dialect called `word`.
    pub fn parse(word: &str) -> Option<Dialect> {
        Self::ALL.into_iter().find(|dialect| dialect.as_str() == word)
    }

    /// The word that users see and give.
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::Nodyn => "nodyn",
            Dialect::Lynox => "lynox",
        }
    }

    /// What the manifest calls the data directory.
    pub fn directory_field(self) -> &'static str {
        match self {
            Dialect::Nodyn => "nodyn_dir",
            Dialect::Lynox => "lynox_dir",
        }
    }

    /// What separates this application's backup key from its other uses of the vault key.
    pub fn labels(self) -> Labels {
        match self {
            Dialect::Nodyn => Labels { salt: b"nodyn-backup", info: b"nodyn-backup-encryption" },
            Dialect::Lynox => Labels { salt: b"lynox-backup", info: b"lynox-backup-encryption" },
        }
    }

    /// The folder in Google Drive.
    pub fn drive_folder(self) -> &'static str {
        match self {
            Dialect::Nodyn => "nodyn-backups",
            Dialect::Lynox => "lynox-backups",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_says_its_dialect() {
        assert_eq!(Dialect::of_data_dir(Path::new("/home/user/.lynox")), Dialect::Lynox);
        for other in ["/home/user/.nodyn", "/data", "/"] {
            assert_eq!(Dialect::of_data_dir(Path::new(other)), Dialect::Nodyn);
        }
        assert_eq!(Dialect::parse("lynox"), Some(Dialect::Lynox));
        assert_eq!(Dialect::parse("other"), None);
    }
}
