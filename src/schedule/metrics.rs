//! Metrics in Prometheus's text format: as a file for its textfile collector, and on a port of this machine.
//!
//! Names and types follow its conventions: seconds and bytes, times since 1970. No secret is in them, and no path of
//! the data.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::health::Standing;
use super::state::State;
use crate::error::{Error, Result};
use crate::source::own::put;

/// All metrics, as text.
pub fn text(standing: &Standing, state: &State) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, values: &[(String, f64)]| {
        let _ = writeln!(text, "# HELP nbak_{name} {help}\n# TYPE nbak_{name} gauge");
        for (labels, value) in values {
            let _ = writeln!(text, "nbak_{name}{labels} {value}");
        }
    };
    let one = |value: f64| vec![(String::new(), value)];
    // Of what cannot be read nobody knows how many there are.
    let known = |value: u64, is_known: bool| if is_known { one(value as f64) } else { Vec::new() };
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let at = |found: &Option<(String, i64)>| one(found.as_ref().map_or(0.0, |(_, at)| seconds(*at)));
    gauge("up", "Whether the store opens.", &one(f64::from(u8::from(standing.store_error.is_none()))));
    gauge(
        "damaged",
        "Whether the store is known to have lost something.",
        &one(f64::from(u8::from(standing.damage.is_some()))),
    );
    gauge(
        "restore_pending",
        "Whether a restore in place is half done.",
        &one(f64::from(u8::from(standing.pending.is_some()))),
    );
    gauge(
        "snapshots",
        "Snapshots of this data directory that are not forgotten.",
        &known(standing.snapshots, !standing.store_is_closed),
    );
    gauge(
        "backups",
        "Documented backups of it on this machine.",
        &known(standing.backups, standing.backups_error.is_none()),
    );
    gauge("store_bytes", "What the packs take.", &one(standing.store_bytes as f64));
    gauge("free_bytes", "What is free where the store is.", &one(standing.free.unwrap_or(0) as f64));
    gauge(
        "newest_snapshot_timestamp_seconds",
        "When the newest snapshot was taken; 0 for never.",
        &at(&standing.snapshot),
    );
    gauge(
        "newest_backup_timestamp_seconds",
        "When the newest backup was made; 0 for none.",
        &one(standing.backup_at.map_or(0.0, seconds)),
    );
    gauge(
        "newest_proof_timestamp_seconds",
        "When a drill restored the newest complete snapshot that one restored; 0 for never.",
        &at(&standing.proven),
    );
    let label = |what: &str| format!("{{what=\"{what}\"}}");
    let of = |value: &dyn Fn(&super::state::Last) -> f64| -> Vec<(String, f64)> {
        state.last.iter().map(|(what, last)| (label(what), value(last))).collect()
    };
    gauge("last_run_timestamp_seconds", "When it ran the last time.", &of(&|last| seconds(last.at)));
    gauge(
        "last_success_timestamp_seconds",
        "When it succeeded the last time; 0 for never.",
        &of(&|last| seconds(last.succeeded)),
    );
    gauge("last_duration_seconds", "How long it took the last time.", &of(&|last| seconds(last.took)));
    gauge("failures", "How often it failed since it succeeded.", &of(&|last| last.failures as f64));
    text
}

/// Writes them to the file at `path`, in one piece. Whoever collects them is another user, and may read it whatever the
/// mask of this one is.
pub fn write(path: &Path, text: &str) -> std::io::Result<()> {
    put(path, text.as_bytes(), 0o644)
}

/// Serves what is in `text` on a port of this machine, for as long as the process lives.
pub fn serve(port: u16, text: Arc<Mutex<String>>) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
        Error::failed(format!("cannot listen on port {port} for metrics")).because(error).hint("set nbak.metrics_port")
    })?;
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || answer(&listener, &text))
        .map_err(Error::thread)?;
    Ok(())
}

/// So long whoever asks has for its question, and for taking the answer.
const TIME: Duration = Duration::from_secs(2);
/// So much of a question is read, in bytes.
const HEAD: usize = 8 * 1024;

/// The head of a question, which may come in pieces.
fn head(stream: &mut TcpStream) -> Vec<u8> {
    let until = Instant::now() + TIME;
    let (mut head, mut block) = (Vec::new(), [0; 1024]);
    while head.len() < HEAD && !head.ends_with(b"\r\n\r\n") {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            break;
        }
        match stream.read(&mut block) {
            Ok(read) if read > 0 => head.extend_from_slice(&block[..read]),
            _ => break,
        }
    }
    head
}

fn answer(listener: &TcpListener, text: &Mutex<String>) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let _ = stream.set_write_timeout(Some(TIME));
        let head = head(&mut stream);
        let asked = String::from_utf8_lossy(&head);
        let is_ours = asked.starts_with("GET /metrics ") || asked.starts_with("GET / ");
        let body = if is_ours { text.lock().unwrap_or_else(PoisonError::into_inner).clone() } else { String::new() };
        let status = if is_ours { "200 OK" } else { "404 Not Found" };
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn whoever_collects_them_can_read_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("nbak.prom");
        // As a mask that keeps others out would make it.
        std::fs::write(folder.path().join("nbak.prom.tmp"), "").expect("written");
        let aside = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(folder.path().join("nbak.prom.tmp"), aside).expect("set");
        write(&path, "nbak_up 1\n").expect("written");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!((mode & 0o777, std::fs::read_to_string(&path).expect("read")), (0o644, "nbak_up 1\n".to_owned()));
    }
}
