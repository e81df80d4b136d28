//! What happened, by name.
//!
//! The names stand in configurations and in what scripts read: one may be added, none is ever changed.

use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A documented backup was not made.
    BackupFailed,
    /// A snapshot was not taken.
    SnapshotFailed,
    /// What should be in Google Drive is not there.
    DriveFailed,
    /// A restore that was made as a drill did not bring back what it should.
    DrillFailed,
    /// The store is not what it was: something is lost, damaged, or was put back.
    StoreDamaged,
    /// The configuration has mistakes, or cannot be read.
    ConfigMistaken,
    /// There was no successful backup for too long.
    Stale,
    /// Something is unlike what it was before.
    Anomaly,
    /// Trouble that was told of is over.
    Recovered,
    /// A backup was made.
    BackupOk,
    /// Somebody wants to see whether notices arrive.
    Test,
}

impl Event {
    /// All of them.
    pub const ALL: [Event; 11] = [
        Event::BackupFailed,
        Event::SnapshotFailed,
        Event::DriveFailed,
        Event::DrillFailed,
        Event::StoreDamaged,
        Event::ConfigMistaken,
        Event::Stale,
        Event::Anomaly,
        Event::Recovered,
        Event::BackupOk,
        Event::Test,
    ];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Event::BackupFailed => "backup_failed",
            Event::SnapshotFailed => "snapshot_failed",
            Event::DriveFailed => "drive_failed",
            Event::DrillFailed => "drill_failed",
            Event::StoreDamaged => "store_damaged",
            Event::ConfigMistaken => "config_mistaken",
            Event::Stale => "stale",
            Event::Anomaly => "anomaly",
            Event::Recovered => "recovered",
            Event::BackupOk => "backup_ok",
            Event::Test => "test",
        }
    }

    /// The event of that name.
    pub fn parse(name: &str) -> Option<Event> {
        Event::ALL.into_iter().find(|event| event.as_str() == name)
    }

    /// Whether somebody has to do something about it.
    pub fn is_trouble(self) -> bool {
        !matches!(self, Event::Recovered | Event::BackupOk | Event::Test)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_to_one_and_the_same_in_json() {
        for event in Event::ALL {
            assert_eq!(Event::parse(event.as_str()), Some(event));
            assert_eq!(serde_json::to_value(event).expect("JSON"), event.as_str());
            assert_eq!(serde_json::from_value::<Event>(event.as_str().into()).expect("an event"), event);
        }
        assert_eq!(Event::parse("Stale"), None);
        let troubles: Vec<Event> = Event::ALL.into_iter().filter(|event| event.is_trouble()).collect();
        assert_eq!(troubles, Event::ALL[..8]);
    }
}
