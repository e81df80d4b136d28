//! Where settings come from: the user's file, the project's, the environment. A higher layer wins, key by key.
//!
//! A project's file lies in the folder in which a command was given, and may be a stranger's: it may set only what the
//! application lets it set, and that it turns encryption off is said aloud.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::keys::{KEYS, Kind, find, variable};
use super::lines::{lines, twice};

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    Default,
    /// A file, and the line in it.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => write!(f, "${name}"),
        }
    }
}

/// Variables that are no keys, and mean something: places, what a command that is told of trouble finds, and what the
/// daemon tells its own jobs.
const OTHER_VARIABLES: [&str; 8] = [
    "NBAK_DATA_DIR",
    "NBAK_REPO",
    "NBAK_GOOGLE_BASE",
    "NBAK_EVENT",
    "NBAK_TITLE",
    "NBAK_CHILD",
    HAD_CONFIG,
    "NBAK_KEEP",
];
/// Tells a job of the daemon that there was a configuration when that was read.
pub const HAD_CONFIG: &str = "NBAK_CHILD_HAD_CONFIG";

/// One place that sets values.
struct Layer {
    root: Value,
    /// The file, and the lines of its keys.
    file: Option<(PathBuf, BTreeMap<String, usize>)>,
    is_project: bool,
}

/// All layers, the lowest first.
#[derive(Default)]
pub struct Layers {
    all: Vec<Layer>,
    /// What is wrong, with file and line.
    pub warnings: Vec<String>,
    /// The user's file, if it is there and cannot be understood.
    pub unreadable: Option<Origin>,
    /// Something was said by a name that is not known, and may be about which snapshots are kept.
    pub unclear_keep: bool,
    /// The same, about how long backups are kept; who said it.
    pub unclear_days: Option<Origin>,
}

impl Layers {
    /// Adds what a file says. `Err` is why it could not be read at all.
    pub fn add_file(&mut self, path: &Path, text: Result<String, String>, is_project: bool) {
        let place = path.display();
        let mut unreadable = |line| {
            if !is_project {
                self.unreadable = Some(Origin::File(path.to_path_buf(), line));
            }
        };
        let text = match text {
            Ok(text) => text,
            Err(why) => {
                unreadable(1);
                self.warnings.push(format!("cannot read the configuration: {place}: {why}"));
                return;
            }
        };
        let text = text.trim_start_matches('\u{feff}');
        let root: Value = match serde_json::from_str(text) {
            Ok(root @ Value::Object(_)) => root,
            Ok(_) => {
                unreadable(1);
                self.warnings.push(format!("{place}:1: the configuration is no JSON object, and is left aside"));
                return;
            }
            Err(error) => {
                let line = error.line();
                unreadable(line);
                self.warnings
                    .push(format!("{place}:{line}: the configuration is not JSON, and is left aside: {error}"));
                return;
            }
        };
        let lines = lines(text);
        let at = |path: &str| lines.get(path).copied().unwrap_or(1);
        if is_project {
            for key in KEYS.iter().filter(|key| !key.project && !lookup(&root, key.path).is_null()) {
                let line = at(key.path);
                self.warnings
                    .push(format!("{place}:{line}: `{}` cannot be set by a project, and is left aside", key.path));
            }
            if !matches!(root["nbak"]["keep"], Value::Null | Value::Object(_)) {
                let line = at("nbak.keep");
                self.warnings
                    .push(format!("{place}:{line}: `nbak.keep` cannot be set by a project, and is left aside"));
            }
            if root["backup_encrypt"] == Value::Bool(false) {
                let line = at("backup_encrypt");
                self.warnings.push(format!("{place}:{line}: this project turns the encryption of backups off"));
            }
            let set = |key: &&str| !root[*key].is_null();
            for key in ["backup_dir", "backup_retention_days"].into_iter().filter(set) {
                let what = if key == "backup_dir" { "where backups lie" } else { "how long backups are kept" };
                self.warnings.push(format!("{place}:{}: this project says {what}", at(key)));
            }
        }
        let file = path;
        // What is ours alone has no keys that we do not know.
        for path in lines.keys().filter(|path| path.starts_with("nbak.") && !path.starts_with("nbak.notify.")) {
            let known = |key: &&super::keys::Key| key.path == path || key.path.starts_with(&format!("{path}."));
            // A name with a dot in it has the same path, and is another.
            if !KEYS.iter().any(|key| known(&key)) || root.get(path).is_some() {
                self.warnings.push(format!("{place}:{}: `{path}` is not known, and is left aside", at(path)));
                self.unclear_keep |= !is_project;
                if !is_project && path.to_ascii_lowercase().contains("retention") {
                    self.unclear_days = Some(Origin::File(file.to_path_buf(), at(path)));
                }
            }
        }
        for (name, value) in root.as_object().into_iter().flatten().filter(|_| !is_project) {
            let is_shape = name == "nbak" && !value.is_object() && !value.is_null();
            let is_like = |known: &str| name != known && name.eq_ignore_ascii_case(known);
            let is_days =
                name.starts_with("backup_retention") && find(name).is_none() || is_like("backup_retention_days");
            if is_shape || is_like("nbak") || is_days {
                let what = if is_shape { "is no object" } else { "is not known" };
                self.warnings.push(format!("{place}:{}: `{name}` {what}, and is left aside", at(name)));
                if is_days {
                    self.unclear_days = Some(Origin::File(path.to_path_buf(), at(name)));
                }
                self.unclear_keep |= !is_days;
            }
        }
        for key in twice(text).iter().filter(|key| key.starts_with("nbak") || find(key).is_some()) {
            self.warnings.push(format!("{place}:{}: `{key}` is there twice: the last counts", at(key)));
            self.unclear_keep |= !is_project && key.starts_with("nbak");
            if !is_project && key == "backup_retention_days" {
                self.unclear_days = Some(Origin::File(path.to_path_buf(), at(key)));
            }
        }
        self.all.push(Layer { root, file: Some((path.to_path_buf(), lines)), is_project });
    }

    /// Adds what the environment says.
    pub fn add_environment(&mut self, get: &dyn Fn(&str) -> Option<String>) {
        let mut root = Value::Object(serde_json::Map::new());
        for key in KEYS {
            let Some(text) = get(&variable(key.path)).filter(|text| !text.trim().is_empty()) else { continue };
            let text = text.trim();
            let as_text = matches!(key.kind, Kind::Text | Kind::Path | Kind::Cron);
            let value = if as_text { None } else { serde_json::from_str(text).ok() };
            let mut at = &mut root;
            for part in key.path.split('.') {
                at = &mut at[part];
            }
            *at = value.unwrap_or_else(|| Value::String(text.to_owned()));
        }
        // `false`, which keeps all, is no key of the table.
        if let Some(text) = get(&variable("nbak.keep")).filter(|text| !text.trim().is_empty()) {
            root["nbak"]["keep"] =
                serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::String(text.trim().to_owned()));
        }
        self.all.push(Layer { root, file: None, is_project: false });
    }

    /// Warns of those of `names` that look as if they set something, and set nothing.
    pub fn warn_of_variables(&mut self, names: impl Iterator<Item = String>) {
        let ours = names.filter(|name| name.starts_with("NBAK_") && !name.starts_with("NBAK_TEST_"));
        let is_known = |name: &String| KEYS.iter().any(|key| variable(key.path) == *name);
        for name in ours.filter(|name| !is_known(name) && !OTHER_VARIABLES.contains(&name.as_str())) {
            self.unclear_keep |= name.starts_with("NBAK_KEEP");
            if name.starts_with("NBAK_BACKUP_RET") {
                self.unclear_days = Some(Origin::Variable(name.clone()));
            }
            self.warnings.push(format!("${name} is not known, and is left aside (see `nbak config show`)"));
        }
    }

    /// Whether a project's file said it.
    pub fn is_project(&self, origin: &Origin) -> bool {
        let Origin::File(path, _) = origin else { return false };
        self.all.iter().any(|layer| layer.is_project && layer.file.as_ref().is_some_and(|(file, _)| file == path))
    }

    /// What the layers say of the key at `path`, the lowest first.
    pub fn say(&self, path: &str, by_project: bool) -> Vec<(Value, Origin)> {
        let layers = self.all.iter().filter(|layer| by_project || !layer.is_project);
        let all = layers.map(|layer| {
            let origin = match &layer.file {
                Some((file, lines)) => Origin::File(file.clone(), lines.get(path).copied().unwrap_or(1)),
                None => Origin::Variable(variable(path)),
            };
            (lookup(&layer.root, path).clone(), origin)
        });
        all.filter(|(value, _)| !value.is_null()).collect()
    }
}

/// What stands at `path`; null if nothing does.
fn lookup<'a>(root: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(root, |at, part| &at[part])
}
