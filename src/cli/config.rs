//! What `config.json` in the data directory says, as far as it is about backups.
//!
//! A mistake in it is a warning, and what it is about stays as it would be without it: nobody must be without a backup
//! for a comma. Only what would remove something is left undone then.

use std::path::PathBuf;

use serde_json::Value;

use crate::source::exclude::Exclusions;

/// Days that documented backups are kept, if nothing else is said.
const RETENTION_DAYS: u32 = 30;
/// The most days that can be said.
const RETENTION_MOST: u64 = 365;

/// What the configuration file says, as far as it is about snapshots.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own, in a file that people write")]
pub struct Config {
    /// Where backups go.
    pub backup_dir: Option<PathBuf>,
    /// Globs that are left out.
    pub exclude: Vec<String>,
    /// Compress every file apart from all others.
    pub separate_files: bool,
    /// Encrypt documented backups, if there is a vault key.
    pub encrypt: bool,
    /// Upload documented backups, if access to Google Drive was granted.
    pub gdrive: bool,
    /// Who this program is for Google: client id and secret.
    pub google_client: (Option<String>, Option<String>),
    /// Days to keep documented backups; 0 keeps them for ever.
    pub retention_days: u32,
    /// There is a file, and it could not be understood: what it says of the store's place is not known.
    pub unreadable: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            backup_dir: None,
            exclude: Vec::new(),
            separate_files: false,
            encrypt: true,
            gdrive: true,
            google_client: (None, None),
            retention_days: RETENTION_DAYS,
            unreadable: false,
        }
    }
}

/// What the text of a configuration file says, and the mistakes in it.
pub fn read(text: &str) -> (Config, Vec<String>) {
    let mut warnings = Vec::new();
    let mut config = Config::default();
    let root: Value = match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(root) => root,
        Err(error) => {
            config.unreadable = true;
            return (config, vec![format!("the configuration is not JSON, and is left aside: {error}")]);
        }
    };
    match &root["backup_dir"] {
        Value::Null => {}
        Value::String(path) if !path.is_empty() => config.backup_dir = Some(PathBuf::from(path)),
        _ => warnings.push("`backup_dir` is not a path".to_owned()),
    }
    match &root["nbak"]["exclude"] {
        Value::Null => {}
        Value::Array(globs) if globs.iter().all(Value::is_string) => {
            let globs = globs.iter().filter_map(|glob| glob.as_str().map(str::to_owned));
            // One that means nothing, or everything, must not keep anybody from a backup.
            config.exclude = globs
                .filter(|glob| {
                    let why = if glob.trim_matches(['/', '.', ' ']).is_empty() {
                        Some("it would leave out everything".to_owned())
                    } else {
                        Exclusions::new(Vec::new(), std::slice::from_ref(glob)).err().map(|error| error.to_string())
                    };
                    warnings.extend(why.iter().map(|why| {
                        format!(
                            "`nbak.exclude` has `{glob}`, which is left aside, so that it leaves out nothing: {why}"
                        )
                    }));
                    why.is_none()
                })
                .collect();
        }
        _ => warnings.push("`nbak.exclude` is not a list of globs".to_owned()),
    }
    match &root["nbak"]["separate_files"] {
        Value::Null => {}
        Value::Bool(on) => config.separate_files = *on,
        _ => warnings.push("`nbak.separate_files` is neither true nor false".to_owned()),
    }
    match &root["backup_encrypt"] {
        Value::Null => {}
        Value::Bool(on) => config.encrypt = *on,
        _ => warnings.push("`backup_encrypt` is neither true nor false: backups are encrypted".to_owned()),
    }
    match &root["backup_gdrive"] {
        Value::Null => {}
        Value::Bool(on) => config.gdrive = *on,
        _ => warnings.push("`backup_gdrive` is neither true nor false: backups are uploaded".to_owned()),
    }
    let mut text = |name: &str| match &root[name] {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Null => None,
        _ => {
            warnings.push(format!("`{name}` is not a text"));
            None
        }
    };
    config.google_client = (text("google_client_id"), text("google_client_secret"));
    match (&root["backup_retention_days"], root["backup_retention_days"].as_u64()) {
        (Value::Null, _) => {}
        (_, Some(days)) if days <= RETENTION_MOST => config.retention_days = days as u32,
        _ => {
            // What is meant is not known: nothing may be removed for it.
            config.retention_days = 0;
            warnings.push(format!(
                "`backup_retention_days` is no whole number from 0 to {RETENTION_MOST}: no backup is removed"
            ));
        }
    }
    (config, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_mistakes_are_warnings() {
        let (config, warnings) = read(r#"{"backup_dir": "~/b", "nbak": {"exclude": ["*.tmp"]}, "other": 1}"#);
        assert_eq!((config.backup_dir, config.exclude), (Some(PathBuf::from("~/b")), vec!["*.tmp".to_owned()]));
        assert!(warnings.is_empty());
        let (config, warnings) = read(r#"{"backup_dir": 3, "nbak": {"exclude": "x"}}"#);
        assert_eq!((config.backup_dir, warnings.len()), (None, 2));
        let (config, warnings) = read(r#"{"nbak": {"exclude": ["*.a", "[", "/", "*.b"]}}"#);
        assert_eq!((config.exclude.join(" "), warnings.len()), ("*.a *.b".to_owned(), 2), "{warnings:?}");
        assert_eq!(read("{").1.len(), 1);
        assert_eq!(read("\u{feff}{}").1.len(), 0);
    }
}
