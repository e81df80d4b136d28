//! What a daemon knows from one life to the next: `.nbak-state/daemon.json` in the data directory.
//!
//! Nothing in it is needed for a restore, and it is not synced: if it is lost the schedules begin anew from now, and
//! trouble that was told is told again. It is replaced by a rename, so that nobody reads half of it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::plan::{Job, Seen};
use crate::export::files::read_bounded;
use crate::source::own;
use crate::upkeep::anomaly::FEW_ROWS;

/// Where it is in the data directory.
pub const FILE: &str = ".nbak-state/daemon.json";
/// What became of the last drill that a person asked for. It is kept apart: a daemon writes over the other one.
pub const DRILL: &str = ".nbak-state/drill.json";
/// Each is at most this long, in bytes.
const MOST: u64 = 4 * 1024 * 1024;

/// What became of something the last time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Last {
    /// When it began, in milliseconds since 1970.
    pub at: i64,
    /// How long it took, in milliseconds.
    pub took: i64,
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// When it succeeded the last time; 0 for never.
    pub succeeded: i64,
    /// How often it failed since.
    pub failures: u64,
    /// What it said when it failed.
    pub message: String,
}

/// A job that was begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Which.
    pub job: Job,
    /// Up to when the schedules were seen to before.
    pub seen: Seen,
}

/// Something that was not usual.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unusual {
    /// When it was noticed, in milliseconds since 1970.
    pub at: i64,
    /// What it was, and what was done about it.
    pub text: String,
    /// Whether anybody was reached, or nobody is to be.
    pub told: bool,
}

/// So much of that is kept.
const UNUSUAL_MOST: usize = 20;

/// So many tables' rows are kept, those with the most; a table whose name is longer than this is not.
const TABLES_MOST: usize = 5000;
const NAME_MOST: usize = 200;

/// What is kept of the rows that a drill counted: what [`judge_rows`](crate::upkeep::anomaly::judge_rows) looks at, and
/// so much that the state is read again, whatever databases somebody puts into the directory.
pub fn rows_to_keep(databases: &Value) -> Value {
    let mut all: Vec<(&str, &str, u64)> = Vec::new();
    for database in databases.as_array().into_iter().flatten() {
        let Some(path) = database["path"].as_str().filter(|path| path.len() <= 4 * NAME_MOST) else { continue };
        let tables = database["rows"].as_object().into_iter().flatten();
        all.extend(tables.filter_map(|(table, rows)| Some((path, table.as_str(), rows.as_u64()?))));
    }
    all.retain(|(_, table, rows)| *rows >= FEW_ROWS && table.len() <= NAME_MOST);
    all.sort_by_key(|(_, _, rows)| std::cmp::Reverse(*rows));
    let mut kept: BTreeMap<&str, serde_json::Map<String, Value>> = BTreeMap::new();
    for (path, table, rows) in all.into_iter().take(TABLES_MOST) {
        kept.entry(path).or_default().insert(table.to_owned(), rows.into());
    }
    kept.into_iter().map(|(path, rows)| json!({"path": path, "rows": rows})).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = read_bounded(path, MOST).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn write<T: Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(value).map_err(std::io::Error::other)?;
    own::make_room(path)?;
    own::put(path, &bytes, 0o600)
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// When a daemon ran here first, in milliseconds since 1970; 0 if none did.
    pub begun: i64,
    /// Up to when the schedules were seen to.
    pub seen: Seen,
    /// What was begun, and has not ended.
    pub running: Option<Running>,
    /// When a backup that failed is tried again.
    pub again: Option<i64>,
    /// How often a backup was tried since its turn.
    pub tries: usize,
    /// A daemon has seen a configuration in the data directory: that there is none says nothing of what is meant.
    pub had_config: bool,
    /// When it was noticed last that the clock was set forward, by how long the machine had run, in milliseconds.
    pub doubted: Option<i64>,
    /// The snapshot up to which it was looked at what changed.
    pub compared: Option<String>,
    /// What was not usual, the newest last.
    pub unusual: Vec<Unusual>,
    /// By what was done: `backup`, `snapshot`, `prune`, …
    pub last: BTreeMap<String, Last>,
    /// What was told, and when.
    pub told: Value,
    /// The rows of each table that the last drill counted.
    pub rows: Value,
    /// The snapshot that they were counted in.
    pub rows_of: Option<String>,
}

impl State {
    /// The state of `data_dir`; a new one if there is none that can be read.
    pub fn load(data_dir: &Path) -> State {
        let mut state: State = read(&data_dir.join(FILE)).unwrap_or_default();
        state.take_up(data_dir);
        state
    }

    /// Takes up what became of a drill that a person asked for, if that was the last one.
    pub fn take_up(&mut self, data_dir: &Path) {
        let Some(drill) = read::<Last>(&data_dir.join(DRILL)) else { return };
        if self.last.get("drill").is_none_or(|last| last.at < drill.at) {
            self.last.insert("drill".to_owned(), drill);
        }
    }

    /// Keeps what became of such a drill, which is noted.
    pub fn store_drill(&self, data_dir: &Path) -> std::io::Result<()> {
        self.last.get("drill").map_or(Ok(()), |drill| write(&data_dir.join(DRILL), drill))
    }

    /// Keeps it. Why not, if that fails: nothing else does for it.
    pub fn store(&self, data_dir: &Path) -> std::io::Result<()> {
        write(&data_dir.join(FILE), self)
    }

    /// Notes what was not usual.
    pub fn note_unusual(&mut self, at: i64, text: String) {
        self.unusual.push(Unusual { at, text, told: false });
        let more = self.unusual.len().saturating_sub(UNUSUAL_MOST);
        self.unusual.drain(..more);
    }

    /// Notes what became of `what`.
    pub fn note(&mut self, what: &str, at: i64, took: i64, code: Option<i32>, good: bool, message: String) {
        let last = self.last.entry(what.to_owned()).or_default();
        (last.at, last.took, last.code) = (at, took, code);
        if good {
            (last.succeeded, last.failures, last.message) = (at, 0, String::new());
        } else {
            last.failures += 1;
            last.message = message;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_and_is_not_needed() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(State::load(folder.path()), State::default());
        // What a person's drill found counts until there is a later one, and no longer.
        let drill = |at, good| {
            let mut state = State::load(folder.path());
            state.note("drill", at, 1, Some(0), good, String::new());
            state
        };
        drill(5, false).store_drill(folder.path()).expect("stored");
        drill(6, false).store_drill(folder.path()).expect("stored");
        assert_eq!(State::load(folder.path()).last["drill"].failures, 2);
        let mut daemon = State::default();
        daemon.note("drill", 6, 1, Some(0), true, String::new());
        daemon.take_up(folder.path());
        assert_eq!(daemon.last["drill"].failures, 0);
        daemon.last.insert("drill".to_owned(), Last { at: 5, ..Last::default() });
        daemon.take_up(folder.path());
        assert_eq!(daemon.last["drill"].failures, 2);
        std::fs::remove_file(folder.path().join(DRILL)).expect("removed");
        let mut state = State::default();
        state.note("backup", 5, 1, Some(1), false, "no room".to_owned());
        state.note("backup", 6, 1, None, false, "killed".to_owned());
        state.store(folder.path()).expect("stored");
        assert_eq!(State::load(folder.path()), state);
        assert_eq!((state.last["backup"].failures, state.last["backup"].succeeded), (2, 0));
        state.note("backup", 7, 1, Some(0), true, String::new());
        assert_eq!((state.last["backup"].failures, state.last["backup"].succeeded), (0, 7));
        let many: Vec<Value> = (0..60)
            .map(|at| {
                let rows =
                    (0..1000).map(|n| (format!("{n:0>190}"), Value::from(200 + n))).collect::<serde_json::Map<_, _>>();
                json!({"path": format!("d{at}"), "rows": rows})
            })
            .chain([json!({"path": "history.db", "rows": {"messages": 2_000_000, "few": 3, ("x".repeat(300)): 500}})])
            .collect();
        state.rows = rows_to_keep(&Value::Array(many));
        let own = state.rows.as_array().expect("a list").iter().find(|one| one["path"] == "history.db").expect("kept");
        assert_eq!(own["rows"], json!({"messages": 2_000_000}));
        state.store(folder.path()).expect("stored");
        assert_eq!(State::load(folder.path()), state, "it is not too long to be read");
        std::fs::write(folder.path().join(FILE), "{\"last\": [").expect("written");
        assert_eq!(State::load(folder.path()), State::default());
    }
}
