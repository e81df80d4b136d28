//! Servers on loopback that are told something: HTTP by axum, SMTP by a few lines of its own, with and without TLS.
#![allow(dead_code, reason = "each test uses its own part of this")]

pub mod smtp;
pub mod tls;
pub mod web;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use nbak::notice::{Channel, Channels, Event, Notice, Outcome, Patience};
use serde_json::Value;

/// Waits that a test has the time for.
pub const QUICK: Patience = Patience {
    tries: 3,
    first: Duration::from_millis(5),
    longest: Duration::from_millis(50),
    step: Duration::from_secs(5),
    command: Duration::from_secs(10),
    whole: Duration::from_secs(20),
};

pub fn notice(event: Event) -> Notice {
    Notice {
        event,
        host: "attic".to_owned(),
        data_dir: "/srv/data".to_owned(),
        title: "Backup failed: Überlauf".to_owned(),
        text: "The disk is full.\nFree some space.".to_owned(),
        when_ms: 1_700_000_000_000,
        facts: BTreeMap::from([("exit code".to_owned(), "1".to_owned())]),
    }
}

pub fn channels(all: &[Value]) -> Channels {
    Channels::new(all.iter().map(|value| Channel::parse(value).expect("a channel")).collect()).with_patience(QUICK)
}

/// Tells it by one channel.
pub fn tell(channel: &Value, notice: &Notice) -> Outcome {
    let mut outcomes = channels(std::slice::from_ref(channel)).send(notice);
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    outcomes.remove(0)
}

/// Runs the test of this name again, in a process whose environment has `variables` too; true in that process.
pub fn is_inside(name: &str, variables: &[(&str, &str)]) -> bool {
    const INSIDE: &str = "NBAK_TEST_INSIDE";
    if std::env::var(INSIDE).is_ok_and(|inside| inside == name) {
        return true;
    }
    let mut again = Command::new(std::env::current_exe().expect("this program"));
    again.args([name, "--exact", "--nocapture"]).env(INSIDE, name).envs(variables.iter().copied());
    let done = again.output().expect("run");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    false
}
