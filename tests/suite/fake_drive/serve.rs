//! From a request to its answer: count it, let a fault happen to it, read its body, check its token, carry it out,
//! twist the answer. One handler does it all, since the kind of a request is more than its path.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Request, State as Shared};
use axum::response::Response;
use futures_util::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::clock::http_date;
use super::faults::Fault;
use super::line::{Cut, Door};
use super::reply::Reply;
use super::request::{Req, parse_form};
use super::state::State;
use super::{files, hostile, upload};

/// What the handler and the test share.
pub(super) struct Common {
    pub(super) state: Mutex<State>,
    pub(super) base: String,
    pub(super) bytes_out: Arc<AtomicU64>,
}

impl Common {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until told to stop.
pub(super) async fn run(listener: std::net::TcpListener, common: Arc<Common>, stop: oneshot::Receiver<()>) {
    let listener = TcpListener::from_std(listener).expect("the listener is sound");
    let router = Router::new().fallback(handle).with_state(common);
    let service = router.into_make_service_with_connect_info::<Cut>();
    tokio::select! {
        _ = axum::serve(Door(listener), service) => {}
        _ = stop => {}
    }
}

async fn handle(Shared(common): Shared<Arc<Common>>, ConnectInfo(cut): ConnectInfo<Cut>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let raw_query = parts.uri.query().unwrap_or("").to_owned();
    let mut req = Req {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parse_form(&raw_query),
        raw_query,
        headers: parts.headers,
        body: Vec::new(),
        broken: false,
    };
    let kind = req.kind();
    let mut body = Some(body);
    if kind == "token" {
        // What a token is asked for with is told by the body alone.
        (req.body, req.broken) = read(body.take().unwrap_or_default()).await;
    }
    let (number, fault) = arrive(&common, &req, kind);
    let fault = match fault {
        Some(Fault::Slow(millis)) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            None
        }
        Some(Fault::CloseBefore) => return hang_up(&cut),
        fault => fault,
    };
    if let Some(body) = body {
        (req.body, req.broken) = read(body).await;
    }
    let response = {
        let mut state = common.lock();
        if kind == "upload.put" {
            state.bytes_in += req.body.len() as u64;
        }
        let mut reply = match fault.as_ref().and_then(|fault| fail(&mut state, &req, fault)) {
            Some(reply) => reply,
            None => checked(&mut state, &req, kind, fault.as_ref(), &common),
        };
        hostile::twist(&state.hostile, kind, &mut reply);
        // The log may have been cleared in the meantime.
        if let Some((_, status)) = state.log.get_mut(number - 1) {
            *status = Some(reply.status);
        }
        reply.into_response(&http_date(state.now()))
    };
    match fault {
        Some(Fault::CloseAfter | Fault::PartBroken(_)) => hang_up(&cut),
        _ => response,
    }
}

/// Notes a request and draws its fault. Gives its number, counted from one.
fn arrive(common: &Common, req: &Req, kind: &'static str) -> (usize, Option<Fault>) {
    let mut state = common.lock();
    let mark = if req.raw_query.is_empty() { "" } else { "?" };
    state.log.push((format!("{} {}{mark}{}", req.method, req.path, req.raw_query), None));
    let mut kinds = vec![kind];
    if kind == "token" {
        kinds.push(req.sub_kind());
    }
    for kind in &kinds {
        state.count(kind);
    }
    if req.headers.contains_key("authorization") {
        state.count("with.bearer");
    }
    let number = state.log.len();
    if state.settings.offline {
        return (number, Some(Fault::CloseBefore));
    }
    (number, state.faults.draw(number, &kinds))
}

/// Breaks the connection. The answer only serves to make the HTTP library write, and so notice.
fn hang_up(cut: &Cut) -> Response {
    cut.throw();
    Response::new(Body::empty())
}

/// Reads a body to its end, or to where it breaks off.
async fn read(body: Body) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(_) => return (bytes, true),
        }
    }
    (bytes, false)
}

/// The answer of a fault that takes the place of the honest one.
fn fail(state: &mut State, req: &Req, fault: &Fault) -> Option<Reply> {
    let oauth = matches!(req.kind(), "token" | "device.code" | "revoke");
    match fault {
        Fault::Unauthorized => {
            state.oauth.kill(req.bearer().unwrap_or(""));
            Some(Reply::unauthorized())
        }
        Fault::UserRateLimit => Some(Reply::error(403, "userRateLimitExceeded", "User Rate Limit Exceeded")),
        Fault::RateLimit => Some(Reply::error(403, "rateLimitExceeded", "Rate Limit Exceeded")),
        Fault::TooMany(seconds) => {
            let reply = Reply::error(429, "rateLimitExceeded", "Too Many Requests");
            Some(reply.with("retry-after", seconds.to_string()))
        }
        Fault::Status(status) if oauth => Some(Reply::oauth_error(*status, "internal_failure", "Backend Error")),
        // Front ends of Google answer these two with a page.
        Fault::Status(status @ (502 | 503)) => {
            Some(Reply::bytes(*status, "text/html; charset=UTF-8", b"<!DOCTYPE html><title>Error</title>".to_vec()))
        }
        Fault::Status(status) => Some(Reply::error(*status, "backendError", "Internal Error")),
        Fault::Refused(status, reason) if oauth => Some(Reply::oauth_error(*status, reason, "Refused")),
        Fault::Refused(status, reason) => Some(Reply::error(*status, reason, "Refused")),
        Fault::SessionGone(status) => Some(upload::end(state, req.last_segment(), *status)),
        _ => None,
    }
}

/// Checks the token where one is needed, then carries the request out.
fn checked(state: &mut State, req: &Req, kind: &str, fault: Option<&Fault>, common: &Common) -> Reply {
    let open = matches!(kind, "token" | "device.code" | "revoke" | "auth" | "other");
    if !open && !req.bearer().is_some_and(|token| state.oauth.accepts(token)) {
        return Reply::unauthorized();
    }
    if let Some(reply) = hostile::instead(&state.hostile, kind, req) {
        return reply;
    }
    if req.broken && kind != "upload.put" {
        return Reply::bad_request("The body broke off.");
    }
    match kind {
        "files.list" => files::list(state, req),
        "files.create" => files::create(state, req),
        "files.get" => files::get(state, req),
        "files.media" => files::media(state, req, fault, &common.bytes_out),
        "files.update" => files::update(state, req),
        "files.delete" => files::delete(state, req),
        "files.generateIds" => files::generate_ids(state, req),
        "about" => files::about(state, req),
        "upload.start" => upload::start(state, req, &common.base),
        "upload.put" | "upload.query" => upload::put(state, req, fault),
        "upload.cancel" => upload::cancel(state, req),
        "token" => state.oauth.token(req),
        "device.code" => state.oauth.device_code(req),
        "revoke" => state.oauth.revoke(req),
        "auth" => state.oauth.auth(req),
        _ => Reply::error(404, "notFound", "Not Found"),
    }
}
