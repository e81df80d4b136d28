//! The daemon, as the real program: what is due is made up for, whatever ends it leaves nothing half, and it says how
//! it is to its supervisor, to whoever measures it, and to nobody a secret.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{self, KEY, Place, Random, Run, noise, rounds};
use crate::daemon_common::clock::Clock;
use crate::daemon_common::{
    LONG, Life, STATE, backups, children, daemon, filled, leftovers, lives, make_due, now_ms, signal_to, snapshots,
    state, text, until, write_state,
};
use serde_json::{Value, json};

/// What follows on a documented backup.
const STEPS: [&str; 5] = ["backup", "backup prune", "drill", "forget", "gc"];

/// The steps that a log tells of, in order.
fn steps(log: &str) -> Vec<&str> {
    log.lines().filter_map(|line| line.split_once(": done in ").map(|(what, _)| what)).collect()
}

/// Small data that differs from the last time.
fn change(place: &Place, seed: u64) {
    fs::write(place.data.join("changes"), noise(seed, 2000)).expect("written");
}

#[test]
fn what_was_missed_is_made_up_for_once() {
    let place = filled();
    make_due(&place.data, &["backup"]);
    let mut command = daemon(&place);
    // Every day for eight years.
    command.env("NBAK_BACKUP_SCHEDULE", "0 3 * * *");
    let life = Life::start(command);
    life.says("gc: done in");
    let log = life.end();
    assert_eq!(steps(&log), STEPS, "{log}");
    let listed = backups(&place);
    assert_eq!(listed.len(), 1, "{listed:?}");
    let taken = snapshots(&place);
    assert!(taken.len() == 1 && taken[0]["proven"].is_string(), "{taken:?}");
    assert_eq!(listed[0]["snapshot"], taken[0]["snapshot"]);
    assert!(place.ok(&["snapshots"]).out.contains("proven"));
    place.ok(&["check", "--read-data"]);
    // It was missed often, and was made up for once: there is nothing to do for the next one.
    let life = Life::start(daemon(&place));
    until(LONG, "it looks", || state(&place.data)["seen"]["backup"].as_i64().is_some());
    life.says("daemon of");
    std::thread::sleep(Duration::from_secs(1));
    assert!(life.children().is_empty());
    assert_eq!(steps(&life.end()), Vec::<&str>::new());
    assert_eq!(backups(&place).len(), 1);
    assert_eq!(leftovers(&place), Vec::<std::path::PathBuf>::new());
}

#[test]
fn snapshots_and_drills_by_their_own_schedules() {
    let place = filled();
    make_due(&place.data, &["snapshot", "drill"]);
    let mut command = daemon(&place);
    command.env("NBAK_SNAPSHOT_SCHEDULE", "0 4 29 2 *").env("NBAK_DRILL", "0 5 29 2 *");
    let life = Life::start(command);
    life.says("drill: done in");
    assert_eq!(steps(&life.end()), ["snapshot", "drill"]);
    assert!(backups(&place).is_empty() && snapshots(&place)[0]["proven"].is_string());
}

/// What the program notes for itself does not make the directory look changed.
#[test]
fn an_idle_directory_is_captured_once() {
    let place = filled();
    let mut command = daemon(&place);
    command.env("NBAK_SNAPSHOT_SCHEDULE", "@every 5s");
    let life = Life::start(command);
    let mut looks = std::collections::BTreeSet::new();
    until(LONG, "it was looked at four times", || {
        looks.extend(state(&place.data)["last"]["snapshot"]["at"].as_i64());
        looks.len() >= 4
    });
    life.end();
    assert_eq!(snapshots(&place).len(), 1);
}

#[test]
#[ignore = "takes three minutes: cron has no seconds"]
fn every_minute_by_the_clock() {
    let place = filled();
    let mut command = daemon(&place);
    command.env("NBAK_SNAPSHOT_SCHEDULE", "* * * * *").env("NBAK_BACKUP_SCHEDULE", "*/2 * * * *");
    let (life, start) = (Life::start(command), Instant::now());
    let mut seed = 0;
    while start.elapsed() < Duration::from_secs(185) {
        seed += 1;
        change(&place, seed);
        std::thread::sleep(Duration::from_secs(5));
    }
    let log = life.end();
    let of = |what: &str| steps(&log).iter().filter(|step| **step == what).count();
    assert!((2..=4).contains(&of("snapshot")) && (1..=2).contains(&of("backup")), "{log}");
    assert_eq!(backups(&place).len(), of("backup"));
    let taken = snapshots(&place);
    assert_eq!(taken.len(), of("snapshot") + of("backup"), "{log}\n{taken:?}");
    // Each began at a full minute, but those that waited for a backup.
    let seconds = taken.iter().filter_map(|one| one["started"].as_str()?.get(17..19)?.parse::<u32>().ok());
    assert!(seconds.filter(|second| *second < 10).count() >= taken.len() / 2, "{taken:?}");
    place.ok(&["check", "--read-data"]);
}

/// Data whose backup takes long enough to be disturbed.
fn some_data(seed: u64) -> Place {
    let place = filled();
    for part in 0..6 {
        fs::write(place.data.join(format!("part-{part}")), noise(seed * 10 + part, 600_000)).expect("written");
    }
    place
}

/// How long a whole backup and what follows takes here.
fn whole(place: &Place) -> Duration {
    make_due(&place.data, &["backup"]);
    let (life, start) = (Life::start(daemon(place)), Instant::now());
    life.says("gc: done in");
    let took = start.elapsed();
    life.end();
    took
}

/// Disturbs scheduled backups at random moments, and then has one made up for.
fn disturb(what: &str, end: fn(Life)) {
    let mut random = Random::seeded(what);
    let place = some_data(1);
    let took = whole(&place);
    let mut made = backups(&place).len();
    let mut during = 0;
    for round in 0..20 * rounds() {
        change(&place, round);
        make_due(&place.data, &["backup"]);
        let life = Life::start(daemon(&place));
        let wait = random.below(took.as_millis() as u64);
        std::thread::sleep(Duration::from_millis(wait));
        let is_done = life.count("gc: done in") > 0;
        during += usize::from(!life.children().is_empty());
        end(life);
        // Nothing half is listed, and each that is listed is whole.
        let listed = backups(&place);
        assert!((made..=made + 1).contains(&listed.len()), "after {wait} ms: {listed:?}");
        assert!(listed.iter().all(|one| one["damage"].is_null() && one["damaged"] != json!(true)), "{listed:?}");
        place.ok(&["check"]);
        made = listed.len();
        let running = state(&place.data)["running"].clone();
        if !is_done && round % 4 == 3 {
            // It is made up for at the next start, whatever time it is, unless it had ended meanwhile.
            let life = Life::start(daemon(&place));
            if !running.is_null()
                || state(&place.data)["seen"]["backup"].as_i64().is_some_and(|at| at < now_ms() - 86_400_000)
            {
                life.says("gc: done in");
            }
            life.end();
            let listed = backups(&place);
            assert!(listed.len() >= made && leftovers(&place).is_empty(), "{:?}", leftovers(&place));
            made = listed.len();
        }
    }
    assert!(during > 1, "{during} moments were during a job: they are not random enough");
    // At the end all is as if nothing had been: one is made up for, and no scratch space stays.
    change(&place, u64::MAX);
    make_due(&place.data, &["backup"]);
    let life = Life::start(daemon(&place));
    life.says("gc: done in");
    life.end();
    assert_eq!(leftovers(&place), Vec::<std::path::PathBuf>::new());
    assert_eq!(place.ok(&["backup", "verify", "--json"]).code, 0);
    place.ok(&["check", "--read-data"]);
    let (run, target) = place.restore("latest", "restored");
    assert_eq!(run.code, 0, "{run:?}");
    let mut expected = common::tree(&place.data);
    expected.retain(|path, _| !path.starts_with("backups") && !path.to_string_lossy().starts_with(".nbak-"));
    common::assert_equal(&expected, &common::tree(&target));
    assert!(state(&place.data)["running"].is_null());
}

#[test]
fn sigterm_at_any_moment_ends_all_of_it() {
    disturb("sigterm", |life| drop(life.end()));
}

#[test]
fn killed_at_any_moment_it_leaves_nothing_half() {
    disturb("kill", |life| drop(life.kill()));
}

/// Jobs are short here, and would soon end by themselves: this one would not.
#[test]
fn a_long_job_ends_with_a_daemon_that_is_killed() {
    let place = filled();
    place.ok(&["snapshot"]);
    make_due(&place.data, &["backup"]);
    let mut command = daemon(&place);
    command.env_remove("NODYN_VAULT_KEY");
    command.arg("--vault-key-command").arg(format!("[ -z \"$NBAK_CHILD\" ] || exec sleep 60; echo {KEY}"));
    let life = Life::start(command);
    // The daemon asks for its own key too, with a child that has none.
    let waiting = || life.children().into_iter().find(|job| !children(*job).is_empty());
    until(LONG, "a job waits for its key", || waiting().is_some());
    let job = waiting().expect("it waits for a minute");
    let asked = children(job);
    life.signal("KILL");
    until(Duration::from_secs(5), "it ends too", || !lives(job));
    // What it waited for is nobody's, and is this test's to end.
    asked.into_iter().filter(|id| lives(*id)).for_each(|id| signal_to(id, "KILL"));
    assert!(backups(&place).is_empty() && state(&place.data)["running"].is_object());
}

#[test]
fn a_job_whose_daemon_is_gone_before_it_begins_does_not_begin() {
    let place = filled();
    // As if the process that started it had ended meanwhile: it has a group of its own, and another parent.
    let mut command = place.command(&["snapshot"]);
    std::os::unix::process::CommandExt::process_group(command.env("NBAK_CHILD", "1999999999"), 0);
    let done = command.output().expect("runs");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&done.status), Some(15), "{done:?}");
    assert!(!place.repo.exists());
    // What a job starts is not a job.
    let mut command = place.command(&["snapshot"]);
    assert_eq!(
        Run::of({
            command.env("NBAK_CHILD", "1999999999");
            command
        })
        .code,
        0
    );
}

#[test]
fn sighup_reads_the_configuration_again() {
    let place = filled();
    let config = |text: &str| fs::write(place.data.join("config.json"), text).expect("written");
    let seldom = r#"{"nbak": {"snapshot_schedule": "0 0 29 2 *", "timezone": "UTC", "metrics_file": "METRICS"}}"#;
    let metrics = place.path("metrics.prom");
    let seldom = seldom.replace("METRICS", metrics.to_str().expect("text"));
    config(&seldom);
    let mut command = place.command(&["daemon"]);
    command.env("NBAK_BACKUP_SCHEDULE", "0 3 29 2 *").env("NBAK_JITTER_SECONDS", "0");
    let life = Life::start(command);
    life.says("daemon of");
    until(LONG, "metrics are written", || metrics.exists());
    let next = || {
        let status = place.ok(&["status", "--json"]).out;
        serde_json::from_str::<Value>(&status).expect("JSON")["next"]["snapshot"].as_str().expect("a time").to_owned()
    };
    assert!(next().contains("-02-29T00:00:00"), "{}", next());
    // A broken one is said, and what was in force stays: metrics still are written where it said.
    config("{\"nbak\": {\"snapshot_schedule\": ");
    life.signal("HUP");
    life.says("config.json:1: the configuration is not JSON");
    life.says("what it said before stays in force");
    fs::remove_file(&metrics).expect("removed");
    // A changed one is in force at once: a snapshot every minute is due within one.
    let often = seldom.replace("0 0 29 2 *", "* * * * *");
    config(&often);
    life.signal("HUP");
    life.says("the configuration was read again");
    life.says("snapshot: done in");
    until(LONG, "metrics are written", || metrics.exists());
    let log = life.end();
    assert_eq!(log.matches("the configuration is not JSON").count(), 1, "once, and not at every look:\n{log}");
    assert_eq!(log.matches("the configuration was read again").count(), 1, "{log}");
}

#[test]
fn a_broken_configuration_leaves_the_schedule_in_force() {
    let place = filled();
    let config = |text: &str| fs::write(place.data.join("config.json"), text).expect("written");
    // By the defaults a snapshot would be taken every five minutes; here it is every minute.
    config(r#"{"nbak": {"snapshot_schedule": "* * * * *"}}"#);
    let mut command = place.command(&["daemon"]);
    command.env("NBAK_BACKUP_SCHEDULE", "0 3 29 2 *");
    let mut clock = Clock::new();
    clock.set_to("2027-05-01T12:00:30Z");
    clock.give(&mut command);
    let life = Life::start(command);
    life.says("daemon of");
    config("{");
    life.signal("HUP");
    life.says("stays in force");
    for times in 1..=3 {
        next(&life, &mut clock, Duration::from_mins(1), "snapshot: done in", times);
    }
    life.end();
}

#[test]
fn a_second_daemon_is_refused() {
    let place = filled();
    let life = Life::start(daemon(&place));
    life.says("daemon of");
    let start = Instant::now();
    let run = Run::of(daemon(&place));
    assert_eq!(run.code, 11, "{run:?}");
    assert!(run.err.contains(&format!("process {} is running as daemon here", life.id())), "{run:?}");
    assert!(start.elapsed() < Duration::from_secs(20));
    let status: Value = serde_json::from_str(&place.ok(&["status", "--json"]).out).expect("JSON");
    assert_eq!(status["daemon"], json!(life.id().to_string()));
    life.end();
    let status: Value = serde_json::from_str(&place.ok(&["status", "--json"]).out).expect("JSON");
    assert_eq!(status["daemon"], Value::Null);
    // Who only looks does not keep one from starting.
    let held = fs::File::open(place.data.join(".nbak-daemon.lock")).expect("a lock");
    held.lock_shared().expect("taken");
    let life = Life::start(daemon(&place));
    std::thread::sleep(Duration::from_millis(300));
    drop(held);
    life.says("daemon of");
    life.end();
}

/// Has the state say that the job whose turn comes again is to be tried now.
fn again_now(place: &Place) {
    let mut state = state(&place.data);
    assert!(state["again"].as_i64().is_some_and(|at| at > now_ms()), "it is tried again: {state}");
    state["again"] = json!(now_ms() - 1000);
    write_state(&place.data, &state);
}

#[test]
fn a_locked_store_is_tried_again_and_told_once() {
    let place = filled();
    place.ok(&["snapshot"]);
    let told = place.path("told");
    let script = format!("test ! -d {} && echo $NBAK_EVENT >> {}", place.path("deaf").display(), told.display());
    let notify = json!([{"kind": "command", "command": script}]).to_string();
    let start = || {
        let mut command = daemon(&place);
        command.arg("--lock-wait").arg("0").env("NBAK_NOTIFY", &notify);
        Life::start(command)
    };
    let lock = fs::OpenOptions::new().read(true).write(true).open(place.repo.join("lock")).expect("a lock");
    lock.lock().expect("taken");
    lock.set_len(0).expect("cut");
    (&lock).write_all(b"4711").expect("written");
    make_due(&place.data, &["backup"]);
    let life = start();
    life.says("backup failed");
    until(LONG, "it is told", || text(&told) == "backup_failed\n");
    let log = life.end();
    assert!(log.contains("process 4711 is writing to this store"), "{log}");
    assert_eq!(state(&place.data)["last"]["backup"]["code"], 11);
    again_now(&place);
    let life = start();
    life.says("backup failed");
    life.end();
    assert_eq!(state(&place.data)["last"]["backup"]["failures"], 2);
    again_now(&place);
    drop(lock);
    // That it is over reaches nobody at first: a later success tells it.
    fs::create_dir(place.path("deaf")).expect("made");
    let life = start();
    life.says("not told by command");
    life.says("gc: done in");
    life.end();
    fs::remove_dir(place.path("deaf")).expect("removed");
    make_due(&place.data, &["backup"]);
    let life = start();
    life.says("gc: done in");
    life.end();
    assert_eq!(text(&told), "backup_failed\nrecovered\n");
    assert_eq!(backups(&place).len(), 2);
    assert!(state(&place.data)["again"].is_null());
}

/// A command for the key that hangs when the daemon looks how things stand does not keep it from ending.
#[test]
fn a_command_for_the_key_that_hangs_does_not_keep_the_daemon() {
    let place = Place { key: None, ..filled() };
    let (key, asked) = (place.path("key"), place.path("asked"));
    fs::write(&key, KEY).expect("written");
    // The first time is before it begins.
    let script = format!(
        "if test -e {0}; then echo >> {0}.again; exec sleep 1000; fi; echo > {0}; cat {1}",
        asked.display(),
        key.display()
    );
    let mut command = daemon(&place);
    command.arg("--vault-key-command").arg(script);
    let life = Life::start(command);
    until(LONG, "it looks", || asked.with_extension("again").exists());
    life.end();
}

/// What a supervisor was told since the last time.
fn heard(socket: &UnixDatagram) -> Vec<String> {
    let (mut all, mut block) = (Vec::new(), [0; 4096]);
    while let Ok(length) = socket.recv(&mut block) {
        all.extend(String::from_utf8_lossy(&block[..length]).lines().map(str::to_owned));
    }
    all
}

/// A program in the place of a channel, or of what gives the key, that takes its time.
fn slow(place: &Place, seconds: u32) -> String {
    let path = place.path("slow");
    fs::write(&path, format!("#!/bin/sh\nsleep {seconds}\necho {KEY}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    path.to_string_lossy().into_owned()
}

#[test]
fn the_supervisor_is_told_how_it_is() {
    let place = filled();
    let address = place.path("notify");
    let socket = UnixDatagram::bind(&address).expect("bound");
    socket.set_nonblocking(true).expect("set");
    let mut command = daemon(&place);
    command.env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "2000000");
    // A notice that takes long is waited for, and meanwhile the daemon is no less alive.
    let notify = json!([{"kind": "command", "command": slow(&place, 6), "on": ["backup_ok"]}]).to_string();
    command.env("NBAK_NOTIFY", notify);
    let life = Life::start(command);
    life.says("daemon of");
    let mut all = Vec::new();
    until(LONG, "READY=1", || {
        all.extend(heard(&socket));
        all.contains(&"READY=1".to_owned())
    });
    let gaps = |seconds: u64, is_over: &dyn Fn() -> bool| {
        let (start, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
        while start.elapsed() < Duration::from_secs(seconds) && !is_over() {
            if heard(&socket).contains(&"WATCHDOG=1".to_owned()) {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        longest.max(last.elapsed())
    };
    let longest = gaps(5, &|| false);
    assert!(longest < Duration::from_millis(1900), "{longest:?} without a word, in idleness");
    life.signal("HUP");
    let mut all = Vec::new();
    until(LONG, "it reads again", || {
        all.extend(heard(&socket));
        all.contains(&"READY=1".to_owned())
    });
    assert!(all.contains(&"RELOADING=1".to_owned()) && all.iter().any(|line| line.starts_with("MONOTONIC_USEC=")));
    life.end();
    assert!(heard(&socket).contains(&"STOPPING=1".to_owned()));
    // During a job that takes long: the command that gives the key sleeps; and while a notice is on its way.
    make_due(&place.data, &["backup"]);
    let mut command = daemon(&Place {
        key: None,
        folder: tempfile::tempdir().expect("a folder"),
        data: place.data.clone(),
        repo: place.repo.clone(),
    });
    command.arg("--vault-key-command").arg(slow(&place, 6));
    command.env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "2000000");
    let life = Life::start(command);
    until(LONG, "a job runs", || !life.children().is_empty() && life.count("daemon of") == 1);
    heard(&socket);
    let longest = gaps(5, &|| false);
    assert!(longest < Duration::from_millis(1900), "{longest:?} without a word, during a job");
    let children = life.children();
    assert_eq!(children.len(), 1);
    life.end();
    assert!(heard(&socket).contains(&"STOPPING=1".to_owned()));
    assert!(state(&place.data)["running"].is_object(), "it is made up for");
}

#[test]
fn a_notice_that_hangs_neither_silences_the_daemon_nor_keeps_it() {
    let place = filled();
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://127.0.0.1:{}/", server.local_addr().expect("bound").port());
    let address = place.path("notify");
    let socket = UnixDatagram::bind(&address).expect("bound");
    socket.set_nonblocking(true).expect("set");
    make_due(&place.data, &["backup"]);
    let mut command = daemon(&place);
    command.env("NBAK_NOTIFY", json!([{"kind": "webhook", "url": url, "on": ["backup_ok"]}]).to_string());
    command.env("NOTIFY_SOCKET", &address);
    let life = Life::start(command);
    // It accepts, and never answers.
    let (_kept, _) = server.accept().expect("asked");
    heard(&socket);
    until(Duration::from_secs(5), "it lives", || heard(&socket).contains(&"WATCHDOG=1".to_owned()));
    let log = life.end();
    assert!(log.contains("not told"), "{log}");
}

#[test]
fn metrics_are_a_file_and_a_port_of_this_machine() {
    let place = filled();
    let file = place.path("nbak.prom");
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        free.local_addr().expect("bound").port()
    };
    make_due(&place.data, &["backup"]);
    let mut command = daemon(&place);
    command.env("NBAK_METRICS_FILE", &file).env("NBAK_METRICS_PORT", port.to_string());
    let before = now_ms() as f64 / 1000.0;
    let life = Life::start(command);
    life.says("gc: done in");
    until(LONG, "they are written", || text(&file).contains("nbak_backups 1"));
    let ask = |line: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        write!(stream, "{line} HTTP/1.1\r\nHost: x\r\n\r\n").expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    until(LONG, "the port says so too", || ask("GET /metrics").contains("nbak_backups 1"));
    let answer = ask("GET /metrics");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    assert_eq!(body, text(&file));
    assert!(ask("GET /etc/passwd").starts_with("HTTP/1.1 404") && ask("POST /metrics").starts_with("HTTP/1.1 404"));
    let value = |name: &str| -> f64 {
        let line = body.lines().find_map(|line| line.strip_prefix(&format!("nbak_{name} ")));
        line.unwrap_or_else(|| panic!("{name}: {body}")).parse().expect("a number")
    };
    let now = now_ms() as f64 / 1000.0;
    assert_eq!(["up", "damaged", "snapshots", "backups"].map(|name| value(name) as i64), [1, 0, 1, 1]);
    for name in ["newest_snapshot", "newest_backup", "newest_proof"] {
        let at = value(&format!("{name}_timestamp_seconds"));
        assert!((before - 1.0..=now).contains(&at), "{name}: {at}, {before} to {now}");
    }
    assert!(value("store_bytes") > 100_000.0 && value("free_bytes") > 0.0);
    for step in STEPS {
        assert!(body.contains(&format!("nbak_failures{{what=\"{step}\"}} 0\n")), "{body}");
        assert!((before..=now).contains(&value(&format!("last_success_timestamp_seconds{{what=\"{step}\"}}"))));
        assert!((0.0..120.0).contains(&value(&format!("last_duration_seconds{{what=\"{step}\"}}"))));
    }
    // Every line is a comment or a sample, and each metric says what it is.
    for line in body.lines().filter(|line| !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        let name = name.split('{').next().expect("a name");
        assert!(value.parse::<f64>().is_ok() && body.contains(&format!("# TYPE {name} gauge")), "{line}");
    }
    // Only this machine can ask: the socket listens on 127.0.0.1, and on nothing else.
    let hex = format!(":{port:04X}");
    let listens = |path: &str| -> Vec<String> {
        let table = text(Path::new(path));
        let lines = table.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (own, _, kind) = (words.next()?, words.next()?, words.next()?);
            (own.ends_with(&hex) && kind == "0A").then(|| own.to_owned())
        });
        lines.collect()
    };
    assert_eq!(listens("/proc/net/tcp"), [format!("0100007F{hex}")]);
    assert!(listens("/proc/net/tcp6").is_empty());
    // Who connects and says nothing holds up nobody for long, and not the daemon.
    let _silent = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    assert!(ask("GET /metrics").starts_with("HTTP/1.1 200"));
    life.end();
}

#[test]
fn its_memory_stays_what_it_was() {
    let place = filled();
    let resident = |life: &Life| -> u64 {
        let status = text(Path::new(&format!("/proc/{}/status", life.id())));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    let mut clock = Clock::new();
    let mut command = daemon(&place);
    clock.give(&mut command);
    command.env("NBAK_SNAPSHOT_SCHEDULE", "* * * * *").env("NBAK_METRICS_FILE", place.path("metrics"));
    command.env("NBAK_NOTIFY", json!([{"kind": "command", "command": "true"}]).to_string());
    let life = Life::start(command);
    life.says("daemon of");
    let mut after = Vec::new();
    for job in 1..=30 {
        change(&place, job as u64);
        next(&life, &mut clock, Duration::from_mins(1), "snapshot: done in", job);
        until(LONG, "it rests", || life.children().is_empty());
        after.push(resident(&life));
    }
    life.end();
    assert!(after[29].abs_diff(after[4]) <= 2048, "KiB after each job: {after:?}");
    // The minutes of the machine pass too: a job may come between, and find nothing new.
    let taken = snapshots(&place).len();
    assert!((25..=30).contains(&taken), "{taken}");
}

/// Sets the clock forward and wakes the daemon, which then says so for the `times`th time.
fn next(life: &Life, clock: &mut Clock, by: Duration, says: &str, times: usize) {
    clock.forward(by);
    life.signal("HUP");
    life.says_times(says, times);
}

#[test]
fn a_week_with_a_night_that_has_no_half_past_two() {
    let place = filled();
    let mut clock = Clock::new();
    clock.set_to("2027-03-25T12:00:00Z");
    let mut command = daemon(&place);
    clock.give(&mut command);
    command.env("NBAK_BACKUP_SCHEDULE", "30 2 * * *").env("NBAK_TIMEZONE", "Europe/Zurich");
    let life = Life::start(command);
    life.says("daemon of");
    let steps = |hours: u64, clock: &mut Clock| {
        // A jump that means nothing for how old something is.
        for _ in 0..hours {
            let read = life.count("was read again");
            next(&life, clock, Duration::from_hours(1), "was read again", read + 1);
            std::thread::sleep(Duration::from_millis(50));
            until(LONG, "it rests", || life.children().is_empty());
        }
    };
    // The clock goes from two to three on Sunday the 28th: each day has its backup.
    steps(4 * 24, &mut clock);
    life.says_times("gc: done in", 4);
    let created: Vec<String> =
        backups(&place).iter().map(|one| one["created"].as_str().expect("a time")[..13].to_owned()).collect();
    assert_eq!(created.len(), 4, "{created:?}");
    // It is late by the hour at which it is woken here, and on a busy machine by another; by design the one of the 28th
    // is at its gap's end, at one.
    for (at, day) in created.iter().zip(["26", "27", "28", "29"]) {
        assert!((1..=4).any(|hour| *at == format!("2027-03-{day}T0{hour}")), "{created:?}");
    }
    // A week later one is made up for. But nothing says that the machine slept for so long, and was not set: by the
    // time that it shows nothing is removed for a day.
    next(&life, &mut clock, Duration::from_hours(7 * 24), "backup: done in", 5);
    life.says("gc --keep-forgotten 7d: not now, since the clock was set forward");
    until(LONG, "it rests", || life.children().is_empty());
    assert_eq!((backups(&place).len(), life.count("prune: done in"), life.count("gc: done in")), (5, 4, 4));
    // Its clock is set back by a day: nothing is done again at once, and the next turn comes.
    clock.back(Duration::from_hours(24));
    steps(1, &mut clock);
    assert_eq!(life.count("backup: done in"), 5);
    steps(24, &mut clock);
    life.says_times("backup: done in", 6);
    life.end();
}

/// What kept something from being removed is kept for the next daemon, and for who does it by hand.
#[test]
fn what_a_daemon_knew_outlives_it() {
    let place = filled();
    let config = place.data.join("config.json");
    fs::write(&config, r#"{"backup_retention_days": 0, "nbak": {"keep": false}}"#).expect("written");
    let mut clock = Clock::new();
    let start = |clock: &Clock| {
        let mut command = daemon(&place);
        clock.give(&mut command);
        let life = Life::start(command);
        life.says("daemon of");
        life
    };
    let life = start(&clock);
    until(LONG, "it looked", || state(&place.data)["had_config"] == json!(true));
    clock.forward(Duration::from_hours(24 * 400));
    life.signal("HUP");
    life.says("nothing is removed for a day");
    life.end();
    make_due(&place.data, &["backup"]);
    let life = start(&clock);
    life.says("backup prune: not now, since the clock was set forward");
    life.end();
    fs::remove_file(&config).expect("removed");
    let run = place.run(&["backup", "prune"]);
    assert!(run.code == 1 && run.err.contains("no backup is removed until the configuration is mended"), "{run:?}");
    assert!(run.err.contains("cannot be understood") && run.err.contains("nothing was removed"), "{run:?}");
}

/// All that could be read of secrets: none may be in what the daemon says, keeps or hands on.
#[test]
fn no_secret_is_said_kept_or_handed_on() {
    let place = some_data(3);
    let secrets = [KEY, "hmac-sesame-1", "ntfy-sesame-2", "4711:telegram-sesame-3", "smtp-sesame-4", "path-sesame-5"];
    let told = place.path("told");
    // Nothing listens there: each way fails, and says why.
    let notify = json!([
        {"kind": "command", "command": format!("env >> {0}; cat >> {0}; exit 1", told.display())},
        {"kind": "webhook", "url": "http://127.0.0.1:9/path-sesame-5", "secret": secrets[1]},
        {"kind": "ntfy", "url": "http://127.0.0.1:9/path-sesame-5", "token": secrets[2]},
        {"kind": "telegram", "token": secrets[3], "chat": 1, "base": "http://127.0.0.1:9"},
        {"kind": "email", "server": "127.0.0.1", "port": 9, "tls": "none", "from": "a@example.org",
            "to": "b@example.org", "user": "me", "password": secrets[4]},
    ]);
    let config = json!({"nbak": {"notify": notify, "metrics_file": place.path("metrics")}});
    fs::write(place.data.join("config.json"), config.to_string()).expect("written");
    make_due(&place.data, &["backup"]);
    let mut command = daemon(&place);
    command.env("NBAK_DRILL", "0 5 29 2 *");
    let life = Life::start(command);
    let mut lines = std::collections::BTreeSet::new();
    until(LONG, "a backup is made", || {
        for child in life.children() {
            lines.insert(text(Path::new(&format!("/proc/{child}/cmdline"))).replace('\0', " "));
        }
        life.count("gc: done in") > 0
    });
    life.end();
    // And one that fails, with a key that is wrong: all channels are told.
    make_due(&place.data, &["backup"]);
    let mut command = daemon(&place);
    command.env("NODYN_VAULT_KEY", common::OTHER_KEY).env("NBAK_NOTIFY_AGAIN_HOURS", "1");
    let life = Life::start(command);
    life.says("backup failed");
    life.says("not told by email");
    let log = life.end();
    assert_eq!(log.matches("not told by").count(), 5, "{log}");
    assert!(lines.iter().any(|line| line.contains("backup --json")), "{lines:?}");
    let state = text(&place.data.join(STATE));
    let told = text(&told);
    assert!(told.contains("NBAK_EVENT=backup_failed") && !told.contains("VAULT_KEY="), "{told}");
    let lines = lines.into_iter().collect::<String>();
    for secret in secrets.into_iter().chain([common::OTHER_KEY]) {
        for (what, text) in [("log", &log), ("state", &state), ("notice", &told), ("arguments", &lines)] {
            assert!(!text.contains(secret), "a secret is in the {what}: {text}");
        }
        assert!(!text(&place.path("metrics")).contains(secret));
    }
}
