//! Resumable uploads: sessions, their parts, and what is asked about them.
//! Hashes are taken as the parts come in, so that contents need not be kept.

use std::time::Instant;

use md5::{Digest, Md5};
use sha2::Sha256;

use super::clock::random_word;
use super::faults::Fault;
use super::files::{already, metadata, parse_meta};
use super::reply::Reply;
use super::request::{Part, Req, parse_content_range};
use super::state::{Content, Meta, PART, State, hex};

/// One upload.
pub(super) struct Session {
    meta: Option<Meta>,
    fields: Option<String>,
    pub(super) file: String,
    pub(super) total: Option<u64>,
    pub(super) stored: u64,
    content: Vec<u8>,
    sha256: Sha256,
    md5: Md5,
    born: Instant,
    pub(super) done: bool,
    /// The status that everything gets once the session is gone.
    pub(super) gone: Option<u16>,
}

/// POST that starts an upload.
pub(super) fn start(state: &mut State, req: &Req, base: &str) -> Reply {
    if req.arg("uploadType") != Some("resumable") {
        return Reply::bad_request("Only resumable uploads are understood here.");
    }
    let mime = req.header("x-upload-content-type").unwrap_or("application/octet-stream");
    let total = match req.header("x-upload-content-length").map(str::parse::<u64>) {
        None => None,
        Some(Ok(total)) => Some(total),
        Some(Err(_)) => return Reply::bad_request("Invalid X-Upload-Content-Length"),
    };
    let mut meta = match parse_meta(state, &req.body, mime) {
        Ok(meta) => meta,
        Err(reply) => return reply,
    };
    if !state.has_room(total.unwrap_or(0)) {
        return no_room();
    }
    let file = meta.id.get_or_insert_with(State::new_id).clone();
    let session = Session {
        meta: Some(meta),
        fields: req.arg("fields").map(str::to_owned),
        file,
        total,
        stored: 0,
        content: Vec::new(),
        sha256: Sha256::new(),
        md5: Md5::new(),
        born: Instant::now(),
        done: false,
        gone: None,
    };
    let key = random_word();
    let location = format!("{base}/upload/drive/v3/session/{key}");
    state.sessions.insert(key, session);
    Reply::empty(200).with("location", location)
}

fn no_room() -> Reply {
    Reply::error(403, "storageQuotaExceeded", "The user's Drive storage quota has been exceeded.")
}

fn gone(status: u16) -> Reply {
    let reason = if status == 410 { "gone" } else { "notFound" };
    Reply::error(status, reason, "The upload session is gone.")
}

/// Ends a session before its time.
pub(super) fn end(state: &mut State, key: &str, status: u16) -> Reply {
    if let Some(session) = state.sessions.get_mut(key) {
        session.gone = Some(status);
    }
    gone(status)
}

/// DELETE of a session: the client gives up.
pub(super) fn cancel(state: &mut State, req: &Req) -> Reply {
    match state.sessions.remove(req.last_segment()) {
        Some(_) => Reply::empty(499),
        None => gone(404),
    }
}

/// PUT to a session: a part, or a question.
pub(super) fn put(state: &mut State, req: &Req, fault: Option<&Fault>) -> Reply {
    let key = req.last_segment();
    let Some(mut session) = state.sessions.remove(key) else {
        return gone(404);
    };
    if state.outlived(session.born) {
        session.gone.get_or_insert(404);
    }
    let reply = match session.gone {
        Some(status) => gone(status),
        None if session.done => finished(state, &session),
        None => advance(state, &mut session, req, fault),
    };
    state.sessions.insert(key.to_owned(), session);
    reply
}

/// The answer of a finished upload, as often as it is asked for.
fn finished(state: &State, session: &Session) -> Reply {
    match state.files.get(&session.file) {
        Some(file) => metadata(state, session.fields.as_deref(), file),
        None => Reply::not_found(&session.file),
    }
}

fn so_far(session: &Session) -> Reply {
    let reply = Reply::empty(308);
    match session.stored {
        0 => reply,
        stored => reply.with("range", format!("bytes=0-{}", stored - 1)),
    }
}

fn advance(state: &mut State, session: &mut Session, req: &Req, fault: Option<&Fault>) -> Reply {
    let sent = req.body.len() as u64;
    let part = match req.header("content-range") {
        Some(text) => match parse_content_range(text) {
            Some(part) => part,
            None => return Reply::bad_request("Failed to parse Content-Range header."),
        },
        // Without the header the body is the whole file.
        None if sent == 0 => Part::Ask(Some(0)),
        None => Part::Data { first: 0, last: sent - 1, total: (!req.broken).then_some(sent) },
    };
    let (Part::Ask(total) | Part::Data { total, .. }) = part;
    if session.total.is_some() && total.is_some() && session.total != total {
        return Reply::bad_request("The total differs from what was announced.");
    }
    let total = total.or(session.total);
    let Part::Data { first, last, .. } = part else {
        if sent > 0 {
            return Reply::bad_request("A question must have no body.");
        }
        session.total = total;
        return if total == Some(session.stored) { finish(state, session) } else { so_far(session) };
    };
    let length = last - first + 1;
    let is_last = total == Some(last + 1);
    if !req.broken && sent != length {
        return Reply::bad_request("The body's length is not the range's.");
    }
    if first != session.stored {
        return Reply::bad_request("The range does not begin where the stored part ends.");
    }
    if !is_last && !length.is_multiple_of(PART) {
        return Reply::bad_request("All parts but the last must be multiples of 262144 bytes.");
    }
    session.total = total;
    let taken = match fault {
        Some(Fault::PartBroken(percent) | Fault::PartShort(percent)) => {
            down(sent.min(length) * u64::from(*percent.min(&100)) / 100)
        }
        _ if req.broken => down(sent.min(length)),
        _ => length,
    };
    let bytes = &req.body[..taken as usize];
    session.sha256.update(bytes);
    session.md5.update(bytes);
    if state.settings.keep_content {
        session.content.extend_from_slice(bytes);
    }
    session.stored += taken;
    if is_last && taken == length { finish(state, session) } else { so_far(session) }
}

/// Rounded down to what Drive stores.
fn down(bytes: u64) -> u64 {
    bytes / PART * PART
}

fn finish(state: &mut State, session: &mut Session) -> Reply {
    if !state.has_room(session.stored) {
        session.gone = Some(404);
        return no_room();
    }
    if state.files.contains_key(&session.file) {
        session.gone = Some(404);
        return already(&session.file);
    }
    let Some(meta) = session.meta.take() else {
        return gone(404);
    };
    if !state.is_folder(&meta.parent) {
        session.gone = Some(404);
        return Reply::not_found(&meta.parent);
    }
    let kept = session.content.len() as u64 == session.stored;
    let content = Content {
        size: session.stored,
        sha256: hex(&session.sha256.finalize_reset()),
        md5: hex(&session.md5.finalize_reset()),
        bytes: kept.then(|| std::mem::take(&mut session.content)),
    };
    state.insert(meta, content);
    session.done = true;
    finished(state, session)
}
