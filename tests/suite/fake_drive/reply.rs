//! Answers, before they are handed to the HTTP library: JSON answers stay values until the very end, so that a
//! hostile twist can still change them. The forms of Google's errors are here too.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

/// What an answer carries.
pub(super) enum Payload {
    Empty,
    Json(Value),
    Bytes(&'static str, Vec<u8>),
    Stream(Body),
}

/// One answer.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: Payload,
}

impl Reply {
    fn new(status: u16, payload: Payload) -> Self {
        Self { status, headers: Vec::new(), payload }
    }

    pub(super) fn json(status: u16, value: Value) -> Self {
        Self::new(status, Payload::Json(value))
    }

    pub(super) fn empty(status: u16) -> Self {
        Self::new(status, Payload::Empty)
    }

    pub(super) fn bytes(status: u16, mime: &'static str, bytes: Vec<u8>) -> Self {
        Self::new(status, Payload::Bytes(mime, bytes))
    }

    pub(super) fn stream(status: u16, body: Body) -> Self {
        Self::new(status, Payload::Stream(body))
    }

    /// An error of the Drive API.
    pub(super) fn error(status: u16, reason: &str, message: &str) -> Self {
        let domain = match reason {
            "userRateLimitExceeded" | "rateLimitExceeded" | "storageQuotaExceeded" => "usageLimits",
            _ => "global",
        };
        let mut error = json!({
            "code": status,
            "message": message,
            "errors": [{ "message": message, "domain": domain, "reason": reason }],
        });
        if status == 401 {
            error["status"] = json!("UNAUTHENTICATED");
        }
        Self::json(status, json!({ "error": error }))
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::error(400, "invalid", message)
    }

    pub(super) fn not_found(id: &str) -> Self {
        Self::error(404, "notFound", &format!("File not found: {id}."))
    }

    /// What an access token that is missing, unknown or out of date gets.
    pub(super) fn unauthorized() -> Self {
        Self::error(401, "authError", "Invalid Credentials")
            .with("www-authenticate", "Bearer realm=\"https://accounts.google.com/\", error=\"invalid_token\"".into())
    }

    /// An error of the token, device or revocation endpoint.
    pub(super) fn oauth_error(status: u16, error: &str, description: &str) -> Self {
        Self::json(status, json!({ "error": error, "error_description": description }))
    }

    pub(super) fn redirect(to: String) -> Self {
        Self::empty(302).with("location", to)
    }

    /// The same answer with one header more.
    pub(super) fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn into_response(self, date: &str) -> Response {
        let (mime, body) = match self.payload {
            Payload::Empty => (None, Body::empty()),
            Payload::Json(value) => (Some("application/json; charset=UTF-8"), Body::from(value.to_string())),
            Payload::Bytes(mime, bytes) => (Some(mime), Body::from(bytes)),
            Payload::Stream(body) => (None, body),
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        if let Some(mime) = mime {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
        }
        if let Ok(value) = HeaderValue::from_str(date) {
            headers.insert(header::DATE, value);
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        response
    }
}
