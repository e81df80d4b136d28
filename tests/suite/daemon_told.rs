//! What a daemon tells, and by which way: real trouble in a real store, told by every kind of channel to servers on
//! loopback, once, and once more when it is over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::{self, KEY, Place, noise};
use crate::daemon_common::clock::Clock;
use crate::daemon_common::{self, LONG, Life, daemon, fill, filled, make_due, quiet, snapshots, state, text, until};
use crate::drive_common::{Cloud, store_grant};
use crate::notice_common::smtp::{self, Manner};
use crate::notice_common::web::{Seen, Server};
use hmac::{Hmac, KeyInit, Mac};
use nbak::store::lock::WriterLock;
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::Sha256;

const SECRET: &str = "hmac-sesame";

/// One channel of each kind, and who hears them.
struct Ears {
    command: PathBuf,
    webhook: Server,
    ntfy: Server,
    telegram: Server,
    mail: smtp::Server,
    ping: Server,
}

impl Ears {
    fn new(place: &Place) -> Ears {
        Ears {
            command: place.path("told-to-a-command"),
            webhook: Server::start(&[]),
            ntfy: Server::start(&[]),
            telegram: Server::start(&[]),
            mail: smtp::Server::start(Manner { offers: vec!["AUTH PLAIN"], ..Manner::default() }),
            ping: Server::start(&[]),
        }
    }

    fn channels(&self) -> Value {
        json!([
            {"kind": "command", "command": format!("echo $NBAK_EVENT >> {}", self.command.display())},
            {"kind": "webhook", "url": self.webhook.at("/hook"), "secret": SECRET},
            {"kind": "ntfy", "url": self.ntfy.at("/topic"), "token": "ntfy-sesame"},
            {"kind": "telegram", "token": "4711:sesame", "chat": 7, "base": self.telegram.at("")},
            {"kind": "email", "server": "127.0.0.1", "port": self.mail.port, "tls": "none", "from": "n@example.org",
                "to": "ann@example.org", "user": "me", "password": "smtp-sesame"},
            {"kind": "ping", "url": self.ping.at("/uuid")},
        ])
    }

    fn mails(&self) -> Vec<(Vec<String>, String)> {
        self.mail.sessions().iter().filter(|session| session.data.is_some()).map(smtp::Session::mail).collect()
    }

    /// How much each has heard.
    fn counts(&self) -> [usize; 6] {
        let told = [&self.webhook, &self.ntfy, &self.telegram, &self.ping].map(|server| server.seen().len());
        let command = text(&self.command).lines().count();
        [command, told[0], told[1], told[2], self.mails().len(), told[3]]
    }

    /// Waits until each has heard so much, and the ping so much of success or failure.
    fn heard(&self, count: usize, pings: usize, life: &Life) {
        let start = std::time::Instant::now();
        let expected = [count, count, count, count, count, pings];
        while self.counts() != expected {
            assert!(start.elapsed() < LONG, "{:?}, not {expected:?}: {}", self.counts(), life.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last that each has heard is this, and signed where it is to be.
    fn last_is(&self, event: &str, words: &str) {
        assert_eq!(text(&self.command).lines().last(), Some(event));
        let seen = self.webhook.seen().pop().expect("asked");
        is_signed(&seen);
        let told = seen.json();
        assert_eq!(told["event"], event);
        assert!(told["title"].as_str().is_some_and(|title| title.contains(words)), "{told}");
        let seen = self.ntfy.seen().pop().expect("asked");
        assert_eq!(seen.header("authorization"), "Bearer ntfy-sesame");
        assert!(seen.json()["title"].as_str().is_some_and(|title| title.contains(words)));
        assert_eq!(seen.json()["tags"][1], event);
        let seen = self.telegram.seen().pop().expect("asked");
        assert_eq!(seen.path, "/bot4711:sesame/sendMessage");
        assert!(seen.json()["text"].as_str().is_some_and(|text| text.contains(words)) && seen.json()["chat_id"] == 7);
        let (head, _) = self.mails().pop().expect("a mail");
        assert!(head.iter().any(|line| line.starts_with("Subject: ") && line.contains(words)), "{head:?}");
        // The end of some trouble is no success.
        let seen = self.ping.seen().pop().expect("asked");
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/uuid/fail"));
    }
}

fn is_signed(seen: &Seen) {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(format!("{}.", seen.header("x-nbak-timestamp")).as_bytes());
    mac.update(&seen.body);
    let digits = seen.header("x-nbak-signature").strip_prefix("sha256=").expect("a signature");
    let bytes: Vec<u8> =
        (0..64).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits")).collect();
    mac.verify_slice(&bytes).expect("signed with the secret");
}

/// A life in which this job is due, until its log says so; then it rests and is ended.
fn one(place: &Place, jobs: &[&str], notify: &Value, says: &str, then: impl FnOnce(&Life)) -> String {
    make_due(&place.data, jobs);
    let mut command = daemon(place);
    command.env("NBAK_DRILL", "0 5 29 2 *").env("NBAK_NOTIFY", notify.to_string());
    let life = Life::start(command);
    life.says(says);
    then(&life);
    until(LONG, "it rests", || state(&place.data)["running"].is_null() && life.children().is_empty());
    let log = life.end();
    assert!(!log.contains("sesame") && !log.contains(KEY), "{log}");
    log
}

/// A drill that fails is told by each channel, once, and so is the `loss` of the store if it is known without; again
/// only after the interval; and when it passes again.
fn caught(place: &Place, loss: bool, mend: impl FnOnce()) {
    let ears = Ears::new(place);
    let notify = ears.channels();
    let troubles = 1 + usize::from(loss);
    one(place, &["drill"], &notify, "drill failed", |life| ears.heard(troubles, troubles, life));
    let told =
        if loss { ("store_damaged", "the store is not as it should be") } else { ("drill_failed", "drill failed") };
    ears.last_is(told.0, told.1);
    assert!(snapshots(place).last().expect("one")["proven"].is_null());
    // Within the interval it is not told again, also not by another life.
    one(place, &["drill"], &notify, "drill failed", |_| {});
    assert_eq!(ears.counts(), [troubles; 6]);
    assert_eq!(state(&place.data)["last"]["drill"]["failures"], 2);
    mend();
    one(place, &["drill"], &notify, "drill: done in", |life| ears.heard(2 * troubles, troubles, life));
    ears.last_is("recovered", if loss { "the store is as it should be again" } else { "drill succeeds again" });
    assert!(snapshots(place).last().expect("one")["proven"].is_string());
    one(place, &["drill"], &notify, "drill: done in", |_| {});
    assert_eq!(ears.counts()[..5], [2 * troubles; 5]);
}

/// A store with one snapshot, and its largest pack.
fn stored() -> (Place, PathBuf, Vec<u8>) {
    let place = filled();
    place.ok(&["backup"]);
    // The newest one is in a pack of its own.
    let before = place.packs();
    fs::write(place.data.join("later"), "on").expect("written");
    place.ok(&["snapshot"]);
    assert!(place.packs().len() > before.len());
    let pack = place.packs().into_iter().max_by_key(|path| fs::metadata(path).expect("a file").len());
    let pack = pack.expect("a pack");
    let bytes = fs::read(&pack).expect("read");
    (place, pack, bytes)
}

#[test]
fn a_flipped_bit_is_caught_and_told() {
    let (place, pack, bytes) = stored();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 3] ^= 8;
    fs::write(&pack, flipped).expect("written");
    caught(&place, false, || fs::write(&pack, bytes).expect("written"));
}

#[test]
fn a_deleted_pack_is_caught_and_told() {
    let (place, pack, bytes) = stored();
    fs::remove_file(&pack).expect("removed");
    caught(&place, true, || fs::write(&pack, bytes).expect("written"));
}

#[test]
fn a_database_that_was_malformed_is_caught_and_told() {
    let (place, _, _) = stored();
    let path = place.data.join("malformed.db");
    let good = {
        let conn = Connection::open(&path).expect("open");
        conn.execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE INDEX i ON t(v);
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<2000)
             INSERT INTO t SELECT x, hex(randomblob(20)) FROM n;",
        )
        .expect("filled");
        conn.close().expect("closed");
        fs::read(&path).expect("read")
    };
    let mut bad = good.clone();
    let end = bad.len() - 3000;
    bad[end..].fill(0xff);
    fs::write(&path, bad).expect("written");
    place.ok(&["snapshot"]);
    caught(&place, false, || {
        fs::write(&path, good).expect("written");
        place.ok(&["snapshot"]);
    });
}

/// Notes which events a command is told of.
fn notebook(place: &Place) -> (Value, impl Fn() -> Vec<String>) {
    let told = place.path("told");
    let line = format!("echo $NBAK_EVENT >> {0}; cat >> {0}.json; echo >> {0}.json", told.display());
    let notify = json!([{"kind": "command", "command": line}]);
    (notify, move || text(&told).lines().map(str::to_owned).collect())
}

#[test]
fn what_only_drive_refuses_is_its_failure_and_not_the_backups() {
    let cloud = Cloud::new();
    fill(&cloud.place.data);
    store_grant(&cloud);
    let (notify, told) = notebook(&cloud.place);
    let life = |says: &str| {
        make_due(&cloud.place.data, &["backup"]);
        let mut command: Command = quiet(cloud.command(&["daemon"]));
        command.env("NBAK_NOTIFY", notify.to_string()).env("NBAK_DRILL", "false");
        let life = Life::start(command);
        life.says(says);
        life.says("gc: done in");
        until(LONG, "it rests", || life.children().is_empty());
        let log = life.end();
        for secret in cloud.fake.secrets() {
            let state = text(&cloud.place.data.join(daemon_common::STATE));
            assert!(!log.contains(&secret) && !state.contains(&secret), "a secret was told");
        }
        log
    };
    cloud.fake.storage_quota(1);
    let log = life("a backup did not get to Google Drive");
    assert!(log.contains("backup: done in"), "{log}");
    assert_eq!(told(), ["drive_failed"]);
    let last = state(&cloud.place.data)["last"].clone();
    assert_eq!((&last["backup"]["failures"], &last["upload"]["failures"]), (&json!(0), &json!(1)), "{last}");
    assert!(state(&cloud.place.data)["again"].is_null(), "the backup was made");
    fs::write(cloud.place.data.join("more"), noise(2, 50_000)).expect("written");
    life("a backup did not get to Google Drive");
    assert_eq!(told(), ["drive_failed"]);
    cloud.fake.storage_quota(None);
    fs::write(cloud.place.data.join("more"), noise(3, 50_000)).expect("written");
    life("backup: done in");
    assert_eq!(told(), ["drive_failed", "recovered"]);
    let listed = daemon_common::backups(&cloud.place);
    assert_eq!(listed.len(), 3);
    for backup in listed {
        cloud.assert_holds_once(Path::new(backup["path"].as_str().expect("a path")));
    }
}

#[test]
fn that_no_backup_succeeds_for_long_is_told() {
    let place = filled();
    let (notify, told) = notebook(&place);
    let mut clock = Clock::new();
    let life = |clock: &Clock, key: &str| {
        let mut command = daemon(&place);
        clock.give(&mut command);
        command.env("NBAK_NOTIFY", notify.to_string()).env("NBAK_STALE_HOURS", "30").env("NODYN_VAULT_KEY", key);
        Life::start(command)
    };
    // A machine that has none yet is not told of; the backup that is due is made.
    make_due(&place.data, &["backup"]);
    let first = life(&clock, KEY);
    first.says("gc: done in");
    first.end();
    assert_eq!(told(), Vec::<String>::new());
    // It was off for three days, and then the key is wrong: the backup fails, and the newest one is old.
    clock.forward(Duration::from_hours(72));
    make_due(&place.data, &["backup"]);
    let second = life(&clock, common::OTHER_KEY);
    second.says("backup failed");
    until(LONG, "both are told", || told().len() == 2);
    second.end();
    assert_eq!(told(), ["backup_failed", "stale"]);
    // Its retry succeeds, and both are over.
    clock.forward(Duration::from_mins(11));
    let third = life(&clock, KEY);
    third.says("gc: done in");
    until(LONG, "both are over", || told().len() == 4);
    third.end();
    assert_eq!(told()[2..], ["recovered", "recovered"]);
    // Where there never was one, it is not stale at once when the first fails.
    let place = filled();
    let (notify, told) = notebook(&place);
    make_due(&place.data, &["backup"]);
    place.ok(&["snapshot"]);
    let mut clock = Clock::new();
    let life = |clock: &Clock| {
        let mut command = daemon(&place);
        clock.give(&mut command);
        command.env("NBAK_NOTIFY", notify.to_string()).env("NODYN_VAULT_KEY", common::OTHER_KEY);
        Life::start(command)
    };
    let new = life(&clock);
    new.says("backup failed");
    until(LONG, "it rests", || state(&place.data)["running"].is_null() && new.children().is_empty());
    new.end();
    assert_eq!(told(), ["backup_failed"]);
    clock.forward(Duration::from_hours(40));
    let new = life(&clock);
    until(LONG, "it is told", || told().contains(&"stale".to_owned()));
    new.end();
}

/// Many files, most of which are gone later on.
fn many(place: &Place) {
    fs::create_dir(place.data.join("many")).expect("made");
    for at in 0..80u64 {
        fs::write(place.data.join(format!("many/{at}.txt")), noise(at, 3000)).expect("written");
    }
}

#[test]
fn files_that_are_gone_pin_the_snapshot_before() {
    for job in ["snapshot", "backup"] {
        let place = filled();
        many(&place);
        place.ok(&["snapshot"]);
        let before = snapshots(&place)[0]["snapshot"].as_str().expect("an id").to_owned();
        fs::remove_dir_all(place.data.join("many")).expect("removed");
        let (notify, told) = notebook(&place);
        make_due(&place.data, &[job]);
        let mut command = daemon(&place);
        command.env("NBAK_DRILL", "false").env("NBAK_NOTIFY", notify.to_string());
        if job == "snapshot" {
            command.env("NBAK_SNAPSHOT_SCHEDULE", "0 4 29 2 *");
        }
        let life = Life::start(command);
        life.says("not usual");
        until(LONG, "it is told", || told() == ["anomaly"]);
        life.end();
        let said = text(&place.path("told.json"));
        assert!(said.contains("is pinned") && said.contains("nbak unpin"), "{said}");
        let pinned = snapshots(&place);
        assert_eq!(pinned[0]["snapshot"], before.as_str());
        assert!(place.ok(&["snapshots"]).out.lines().next().is_some_and(|line| line.contains("pinned")), "{pinned:?}");
        // No retention takes it.
        place.ok(&["forget", "--keep-last", "1"]);
        assert!(snapshots(&place).iter().any(|one| one["snapshot"] == before.as_str()), "after a {job}");
    }
}

#[test]
fn a_pin_that_fails_is_not_said_to_be_there() {
    let place = filled();
    many(&place);
    place.ok(&["snapshot"]);
    fs::remove_dir_all(place.data.join("many")).expect("removed");
    let (notify, told) = notebook(&place);
    make_due(&place.data, &["snapshot"]);
    // Its key is given to every job but the one that pins.
    let key = format!("set -f; set -- $(tr '\\0' ' ' < /proc/$PPID/cmdline); [ \"$2\" != pin ] && echo {KEY}");
    let mut command = daemon(&place);
    command.env_remove("NODYN_VAULT_KEY").arg("--vault-key-command").arg(key);
    command.env("NBAK_SNAPSHOT_SCHEDULE", "0 4 29 2 *").env("NBAK_NOTIFY", notify.to_string());
    let life = Life::start(command);
    until(LONG, "it is told", || told() == ["anomaly"]);
    life.end();
    let said = text(&place.path("told.json"));
    assert!(said.contains("could not be pinned") && !said.contains("is pinned:"), "{said}");
}

/// Nobody could be told while it happened: it is told as soon as somebody can be.
#[test]
fn what_was_not_usual_is_told_when_somebody_can_be_reached() {
    let place = filled();
    for at in 0..60 {
        fs::write(place.data.join(format!("note-{at}")), noise(at, 900)).expect("written");
    }
    place.ok(&["snapshot"]);
    (0..60).for_each(|at| fs::remove_file(place.data.join(format!("note-{at}"))).expect("removed"));
    let server = Server::start(&[]);
    let (deaf, hears) = ("http://127.0.0.1:9/", server.at("/hook"));
    let told = |url: &str| json!([{"kind": "webhook", "url": url, "on": ["anomaly"]}]);
    let mut command = daemon(&place);
    make_due(&place.data, &["snapshot"]);
    command.env("NBAK_SNAPSHOT_SCHEDULE", "0 4 29 2 *").env("NBAK_NOTIFY", told(deaf).to_string());
    let life = Life::start(command);
    life.says("not told by webhook");
    life.end();
    assert_eq!(state(&place.data)["unusual"][0]["told"], false);
    let doctor = place.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("nobody could be told yet"), "{doctor:?}");
    let mut command = daemon(&place);
    command.env("NBAK_NOTIFY", told(&hears).to_string());
    let life = Life::start(command);
    until(LONG, "it is told", || !server.seen().is_empty());
    life.end();
    assert_eq!((server.seen()[0].json()["event"].clone(), server.seen().len()), (json!("anomaly"), 1));
    assert_eq!(state(&place.data)["unusual"][0]["told"], true);
}

/// A port that somebody else has keeps nobody from a snapshot, and what the newest backup lacks is seen.
#[test]
fn mistakes_keep_nobody_from_a_snapshot_and_are_seen() {
    let place = filled();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("an address").port();
    make_due(&place.data, &["backup"]);
    let mut command = daemon(&place);
    command.env("NBAK_METRICS_PORT", port.to_string()).env("NBAK_NOTIFY", r#"[{"kind": "pigeon"}]"#);
    let life = Life::start(command);
    life.says("no metrics for now");
    life.says("gc: done in");
    life.end();
    let mut doctor = place.command(&["doctor"]);
    doctor.env("NBAK_NOTIFY", r#"[{"kind": "pigeon"}]"#);
    let said = doctor.output().expect("runs");
    // A test of the channels reaches those that are right.
    let (mut notify, told) = notebook(&place);
    notify.as_array_mut().expect("a list").insert(0, json!({"kind": "pigeon"}));
    let mut command = place.command(&["notify"]);
    let tried = command.env("NBAK_NOTIFY", notify.to_string()).output().expect("runs");
    let why = String::from_utf8_lossy(&tried.stderr).into_owned();
    assert!(tried.status.code() == Some(2) && why.contains("channel 1 of 2"), "{why}");
    assert_eq!(told(), ["test"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.code() == Some(1) && text.contains("channel 1 of 1"), "{text}");
    assert_eq!(place.run(&["doctor"]).code, 0);
    let backup = place.data.join("backups").join(daemon_common::backups(&place)[0]["name"].as_str().expect("a name"));
    let file = common::tree(&backup)
        .into_iter()
        .find(|(path, thing)| thing.kind == "file" && path.to_str() != Some("manifest.json"));
    fs::remove_file(backup.join(file.expect("a file").0)).expect("removed");
    let doctor = place.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("is not whole"), "{doctor:?}");
    // So is what was cut: a backup's file, and a pack.
    place.ok(&["backup"]);
    assert_eq!(place.run(&["doctor"]).code, 0);
    let newest = daemon_common::backups(&place).pop().expect("one")["path"].as_str().expect("a path").to_owned();
    let cut = |path: &Path| fs::write(path, "").expect("cut");
    let files = common::tree(Path::new(&newest)).into_iter().filter(|(_, thing)| thing.kind == "file");
    let file = files.map(|(path, _)| path).find(|path| path.to_str() != Some("manifest.json")).expect("a file");
    let file = Path::new(&newest).join(file);
    let whole = fs::read(&file).expect("read");
    cut(&file);
    let doctor = place.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("another size"), "{doctor:?}");
    fs::write(&file, whole).expect("back");
    place.packs().iter().for_each(|pack| cut(pack));
    let doctor = place.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("pack"), "{doctor:?}");
}

/// The configuration is gone, or its place of backups is no path, under a daemon that has read it: nothing is removed
/// by what counts without one, no store is made elsewhere, and it is told.
#[test]
fn a_configuration_that_is_gone_removes_nothing_and_is_told() {
    let place = filled();
    let elsewhere = place.path("disk");
    let own = Place { repo: elsewhere.join("store"), ..place };
    let (notify, told) = notebook(&own);
    fs::create_dir(&elsewhere).expect("made");
    let config = json!({
        "backup_dir": elsewhere, "backup_retention_days": 0, "nbak": {"keep": false, "notify": notify, "drill": false},
    });
    let file = own.data.join("config.json");
    fs::write(&file, config.to_string()).expect("written");
    let run = |args: &[&str]| {
        let mut command = own.command(args);
        command.env_remove("NBAK_REPO");
        common::Run::of(command)
    };
    assert_eq!(run(&["backup"]).code, 0);
    // Of last year, by what it says.
    let backup = fs::read_dir(&elsewhere).expect("a folder").map(|entry| entry.expect("one").path());
    let backup = backup.filter(|path| path.join("manifest.json").exists()).max().expect("a backup");
    let mut command = daemon(&own);
    command.env_remove("NBAK_REPO");
    make_due(&own.data, &["backup"]);
    let life = Life::start(command);
    life.says("gc: done in");
    for broken in [None, Some(json!({"backup_dir": [elsewhere], "nbak": {"notify": notify}}).to_string())] {
        let _ = fs::remove_file(&file);
        if let Some(text) = broken {
            fs::write(&file, text).expect("written");
        }
        let failed = life.count("backup failed");
        let mut state = state(&own.data);
        state["again"] = json!(1);
        daemon_common::write_state(&own.data, &state);
        life.signal("HUP");
        until(LONG, "it is told", || told().contains(&"config_mistaken".to_owned()));
        assert!(backup.exists() && !own.data.join("backups").exists(), "{failed}: {}", life.log());
    }
    life.end();
    // What a job would do with it.
    let mut job = own.command(&["backup", "prune"]);
    job.env_remove("NBAK_REPO").env("NBAK_CHILD_HAD_CONFIG", "1");
    let refused = common::Run::of(job);
    assert!(refused.code != 0 && refused.err.contains("may name another place"), "{refused:?}");
    fs::remove_file(&file).expect("removed");
    let mut job = own.command(&["backup", "prune"]);
    job.env_remove("NBAK_REPO").env("NBAK_CHILD_HAD_CONFIG", "1");
    let refused = common::Run::of(job);
    assert!(refused.code != 0 && refused.err.contains("how long backups are kept cannot be understood"), "{refused:?}");
    let mut job = own.command(&["backup", "prune", "--days", "1"]);
    job.env_remove("NBAK_REPO").env("NBAK_CHILD_HAD_CONFIG", "1");
    let refused = common::Run::of(job);
    assert!(refused.code != 0 && refused.err.contains("may name another place"), "{refused:?}");
    assert!(!own.data.join("backups").exists());
}

/// A job that hangs says nothing by itself: it is told of, once, and that it is over.
#[test]
fn a_job_that_hangs_is_told() {
    let place = filled();
    place.ok(&["backup"]);
    place.ok(&["drill"]);
    let (notify, told) = notebook(&place);
    let mut clock = Clock::new();
    let held = WriterLock::acquire(&place.repo, LONG).expect("free");
    let mut command = quiet(place.command(&["daemon", "--lock-wait", "3600"]));
    command.env("NBAK_NOTIFY", notify.to_string()).env("NBAK_SNAPSHOT_SCHEDULE", "@every 5s");
    command.env("NBAK_STALE_HOURS", "0").env("NBAK_DRILL", "false");
    clock.give(&mut command);
    let life = Life::start(command);
    let hung = || told().iter().filter(|event| *event == "snapshot_failed").count();
    until(LONG, "it waits", || !life.children().is_empty() && state(&place.data)["running"]["job"] == "snapshot");
    // By now the first look is over.
    std::thread::sleep(Duration::from_secs(2));
    clock.forward(Duration::from_hours(4));
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(hung(), 0, "much data takes its time");
    clock.forward(Duration::from_hours(4));
    let is_told = || text(&place.path("told.json"));
    until(LONG, "it is told", || is_told().contains("snapshot hangs") && is_told().contains("It runs since"));
    for _ in 0..3 {
        clock.forward(Duration::from_mins(20));
        std::thread::sleep(Duration::from_secs(2));
    }
    assert_eq!(hung(), 1, "once");
    drop(held);
    until(LONG, "its end is told", || told().contains(&"recovered".to_owned()));
    life.end();
}

/// What the daemon knows cannot be kept; what it is to remember was removed; what failed was switched off.
#[test]
fn what_is_kept_for_the_daemon_is_looked_after() {
    let place = filled();
    let (notify, told) = notebook(&place);
    let own = place.data.join(".nbak-state");
    fs::write(&own, "no folder").expect("written");
    let start = |snapshots: &str| {
        let mut command = daemon(&place);
        command.env("NBAK_NOTIFY", notify.to_string()).env("NBAK_SNAPSHOT_SCHEDULE", snapshots);
        command.env("NBAK_STALE_HOURS", "0").env("NBAK_DRILL", "false");
        Life::start(command)
    };
    let life = start("false");
    until(LONG, "it is told", || told().contains(&"backup_failed".to_owned()));
    let doctor = place.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("is no folder"), "{doctor:?}");
    fs::remove_file(&own).expect("removed");
    life.signal("HUP");
    until(LONG, "it is kept again", || told().contains(&"recovered".to_owned()));
    assert!(own.join("seen.json").exists());
    fs::remove_dir_all(&own).expect("removed");
    life.signal("HUP");
    until(LONG, "it is remembered again", || own.join("seen.json").exists() && own.join("daemon.json").exists());
    life.end();
    // A snapshot fails, and then none is to be taken any more.
    let mut failing = state(&place.data);
    failing["last"]["snapshot"] = json!({"at": 1, "took": 1, "code": 1, "failures": 2, "message": "no room"});
    failing["told"] = json!({"open": {"snapshot_failed snapshot": {"since_ms": 1, "told_ms": 1, "seen": 2}}});
    // That of a backup stands, though nobody asks how old the newest is; and that of a drill which a person made.
    failing["last"]["backup"] = json!({"at": 1, "took": 1, "code": 1, "failures": 4, "message": "no room"});
    failing["last"]["drill"] = json!({"at": 1, "took": 1, "code": 13, "failures": 1, "message": "a fault"});
    daemon_common::write_state(&place.data, &failing);
    let life = start("false");
    until(LONG, "it is forgotten", || state(&place.data)["last"]["snapshot"]["failures"] == 0);
    life.end();
    let doctor = place.run(&["doctor"]).out;
    assert!(!doctor.contains("snapshot failed"), "{doctor}");
    assert!(doctor.contains("backup failed, 4 times") && doctor.contains("drill failed"), "{doctor}");
}

/// A key file may be a pipe that nobody writes into: neither the end of the daemon waits for it, nor a job for ever.
#[test]
fn a_key_file_that_is_a_pipe_does_not_keep_the_daemon() {
    let place = Place { key: None, ..filled() };
    let key = place.path("key");
    fs::write(&key, KEY).expect("written");
    let mut command = daemon(&place);
    command.arg("--vault-key-file").arg(&key);
    let life = Life::start(command);
    life.says("daemon of");
    until(LONG, "it has looked", || state(&place.data)["begun"].is_number());
    fs::remove_file(&key).expect("removed");
    let made = Command::new("mkfifo").arg(&key).status().expect("mkfifo runs");
    assert!(made.success());
    life.signal("HUP");
    std::thread::sleep(Duration::from_millis(500));
    life.end();
}
