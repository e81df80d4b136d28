//! The keys: what can be set, what it may be, and what counts if nobody sets it.
//!
//! One table. `nbak config show` lists it, `nbak config schema` makes a JSON schema for editors of it, and the table in
//! the documentation is made of it; a test holds the two together.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A text.
    Text,
    /// A folder or a file.
    Path,
    /// A cron schedule.
    Cron,
    /// A cron schedule, `@every` and a duration, or `false`.
    CronOrFalse,
    /// A whole number from 0 up to this.
    Count(u64),
    /// A list of globs.
    Globs,
    /// A list of channels.
    Channels,
    /// One of these words, the same if that is among them, or `false`.
    OneOf(&'static [&'static str], bool),
}

/// One thing that can be set.
#[derive(Debug)]
pub struct Key {
    /// Where it stands: `nbak.keep.daily` is `daily` in `keep` in `nbak`.
    pub path: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What counts if nobody sets it, as JSON or in words.
    pub default: &'static str,
    /// Whether a project's file may set it.
    pub project: bool,
    /// Whether it is shown to nobody.
    pub secret: bool,
    /// What it does.
    pub what: &'static str,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, what: &'static str) -> Key {
    Key { path, kind, default, project: false, secret: false, what }
}

const fn project(path: &'static str, kind: Kind, default: &'static str, what: &'static str) -> Key {
    Key { path, kind, default, project: true, secret: false, what }
}

/// All keys.
pub const KEYS: &[Key] = &[
    project("backup_dir", Kind::Path, "backups in the data directory", "Where backups, and the store, are kept"),
    project("backup_schedule", Kind::Cron, "0 3 * * *", "When `nbak daemon` makes a documented backup"),
    project("backup_retention_days", Kind::Count(365), "30", "Days to keep documented backups; 0 keeps them for ever"),
    project(
        "backup_encrypt",
        Kind::Bool,
        "true",
        "Encrypt documented backups; without a vault key, `false` alone makes any of a protected store",
    ),
    key("backup_gdrive", Kind::Bool, "true", "Upload documented backups, if access to Google Drive was granted"),
    key("google_client_id", Kind::Text, "none", "Who this program is for Google"),
    Key { secret: true, ..key("google_client_secret", Kind::Text, "none", "The secret that belongs to it") },
    key(
        "nbak.name",
        Kind::Text,
        "none",
        "What this data directory is called beside its path, where others share its store or its folder of backups",
    ),
    key("nbak.exclude", Kind::Globs, "[]", "What snapshots leave out"),
    key("nbak.separate_files", Kind::Bool, "false", "Compress every file apart from all others"),
    key("nbak.snapshot_schedule", Kind::CronOrFalse, "*/5 * * * *", "When `nbak daemon` takes a snapshot"),
    key("nbak.timezone", Kind::Text, "that of the machine", "The time zone of the schedules, as `Europe/Zurich`"),
    key("nbak.jitter_seconds", Kind::Count(3600), "30", "A backup begins up to so much later, drawn each time"),
    key("nbak.keep.last", Kind::Count(100_000), "0", "Snapshots to keep: the newest so many"),
    key("nbak.keep.within", Kind::Text, "2d", "… all that are younger than this"),
    key("nbak.keep.hourly", Kind::Count(100_000), "72", "… one for each of so many hours"),
    key("nbak.keep.daily", Kind::Count(100_000), "30", "… days"),
    key("nbak.keep.weekly", Kind::Count(100_000), "12", "… weeks"),
    key("nbak.keep.monthly", Kind::Count(100_000), "24", "… months. `nbak.keep: false` keeps all snapshots"),
    key(
        "nbak.drill",
        Kind::OneOf(&["after_backup"], true),
        "after_backup",
        "When the newest snapshot is restored for a proof",
    ),
    key(
        "nbak.gdrive_push",
        Kind::OneOf(&["after_backup", "after_snapshot"], false),
        "false",
        "When the store is pushed to Google Drive",
    ),
    key("nbak.stale_hours", Kind::Count(8760), "36", "Tell if no backup succeeded for so long; 0 never tells"),
    Key { secret: true, ..key("nbak.notify", Kind::Channels, "[]", "Who is told of trouble") },
    key(
        "nbak.notify_again_hours",
        Kind::Count(8760),
        "6",
        "Trouble that lasts is told again after so long, at least one",
    ),
    key("nbak.metrics_file", Kind::Path, "none", "Where metrics are written, for Prometheus's textfile collector"),
    key("nbak.metrics_port", Kind::Count(65535), "0", "A port on 127.0.0.1 where they can be read; 0 for none"),
];

/// The key at `path`.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The environment variable that sets a key.
pub fn variable(path: &str) -> String {
    let name = path.strip_prefix("nbak.").unwrap_or(path).replace('.', "_").to_ascii_uppercase();
    if name.starts_with("GOOGLE_") { name } else { format!("NBAK_{name}") }
}

impl Kind {
    fn words(self) -> String {
        match self {
            Kind::Bool => "`true` or `false`".to_owned(),
            Kind::Text => "text".to_owned(),
            Kind::Path => "path".to_owned(),
            Kind::Cron => "cron".to_owned(),
            Kind::CronOrFalse => "cron, `@every 10s`, or `false`".to_owned(),
            Kind::Count(most) => format!("0 to {most}"),
            Kind::Globs => "list of globs".to_owned(),
            Kind::Channels => "list of channels".to_owned(),
            Kind::OneOf(words, cron) => {
                let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                format!("{}{}, or `false`", words.join(", "), if cron { ", cron, `@every 12h`" } else { "" })
            }
        }
    }

    fn schema(self) -> Value {
        match self {
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Text | Kind::Path | Kind::Cron => json!({"type": "string"}),
            Kind::CronOrFalse => json!({"anyOf": [{"type": "string"}, {"const": false}]}),
            Kind::Count(most) => json!({"type": "integer", "minimum": 0, "maximum": most}),
            Kind::Globs => json!({"type": "array", "items": {"type": "string"}}),
            Kind::Channels => json!({"type": "array", "items": {"type": "object", "required": ["kind"]}}),
            Kind::OneOf(words, false) => json!({"anyOf": [{"enum": words}, {"const": false}]}),
            Kind::OneOf(words, true) => json!({"anyOf": [{"enum": words}, {"type": "string"}, {"const": false}]}),
        }
    }
}

/// The table for people.
pub fn markdown() -> String {
    let mut text = "| key | value | default | what |\n|---|---|---|---|\n".to_owned();
    for key in KEYS {
        let star = if key.project { " *" } else { "" };
        let _ = writeln!(text, "| `{}`{star} | {} | {} | {} |", key.path, key.kind.words(), key.default, key.what);
    }
    text
}

/// The schema for editors. Keys that are not in it are the application's.
pub fn schema() -> Value {
    let mut root = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "config.json, as far as it is about backups",
        "type": "object",
        "properties": {},
    });
    for key in KEYS {
        let mut at = &mut root;
        let parts: Vec<&str> = key.path.split('.').collect();
        for (depth, part) in parts.iter().enumerate() {
            at = &mut at["properties"][part];
            let is_folder = depth + 1 < parts.len();
            if is_folder && at.is_null() {
                *at = json!({"type": "object", "properties": {}, "additionalProperties": false});
            }
        }
        let mut schema = key.kind.schema();
        schema["description"] = json!(format!("{} [default: {}]", key.what, key.default));
        *at = schema;
    }
    // All snapshots can be kept.
    let keep = root["properties"]["nbak"]["properties"]["keep"].take();
    root["properties"]["nbak"]["properties"]["keep"] = json!({"anyOf": [keep, {"const": false}]});
    root
}
