//! One request, one answer, and what became of it.
//!
//! Nothing here is tried twice: what is worth another try is told apart from what is not ([`Trouble`]), and who asks
//! decides, since only it knows whether a request may be repeated. Redirects are not followed: an upload answers 308
//! and means something else, and nobody else's server is to see a token. Every request has a time limit and every
//! answer a bound. No message has an address in it: the address of an upload session is a key to it (S18).

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use reqwest::blocking::{Body, Client, Response};
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::bases::Bases;
use super::limit::Limit;
use crate::error::{Error, Result};

/// An answer that is no file is at most this long, in bytes.
pub const ANSWER_MOST: u64 = 8 * 1024 * 1024;
/// How long a request may take that carries little.
const SHORT: Duration = Duration::from_mins(1);
/// The slowest line that is waited for, in bytes per second.
const SLOWEST: u64 = 8 * 1024;
/// So many bytes are read or sent at a time.
const BLOCK: usize = 64 * 1024;

/// What is asked.
pub struct Ask<'a> {
    /// How.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// The access token.
    pub token: Option<&'a str>,
    /// Further header lines.
    pub headers: Vec<(&'static str, String)>,
    /// What goes with it.
    pub body: Send,
}

/// What goes with a request.
pub enum Send {
    /// Nothing.
    Nothing,
    /// A form.
    Form(Vec<(&'static str, String)>),
    /// JSON.
    Json(Vec<u8>),
    /// A part of a file.
    Part(Vec<u8>),
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// `Location`.
    pub location: Option<String>,
    /// `Range`.
    pub range: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer that could be used.
#[derive(Debug)]
pub enum Trouble {
    /// It passes: another try is worth it, after this long if the server says so.
    Passing(String, Option<Duration>),
    /// The access token is not accepted.
    Token,
    /// It does not pass.
    Lasting(Error),
}

/// Why Drive refuses, in its own words: `{"error": {"errors": [{"reason": …}], "message": …}}`.
#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(default)]
    error: RefusalBody,
}

#[derive(Deserialize, Default)]
struct RefusalBody {
    #[serde(default)]
    errors: Vec<RefusalReason>,
}

#[derive(Deserialize)]
struct RefusalReason {
    #[serde(default)]
    reason: String,
}

/// Sends requests.
pub struct Http {
    client: Client,
    limit: Arc<Limit>,
}

/// A body that goes no faster than it may.
struct Slowed {
    bytes: std::io::Cursor<Vec<u8>>,
    limit: Arc<Limit>,
}

impl Read for Slowed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(BLOCK);
        let read = self.bytes.read(&mut buffer[..most])?;
        self.limit.take(read);
        Ok(read)
    }
}

impl Http {
    /// A client whose proxies come from the environment, as usual; none for `bases` on this very machine.
    pub fn new(limit: Limit, bases: &Bases) -> Result<Http> {
        // The first one in the process stays, and is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = if bases.is_loopback() { Client::builder().no_proxy() } else { Client::builder() };
        let client = builder
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(20))
            .timeout(SHORT)
            .user_agent(concat!("nbak/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::failed("cannot make an HTTP client").because(error))?;
        Ok(Http { client, limit: Arc::new(limit) })
    }

    /// Asks, and reads the whole answer, which must not be long.
    pub fn ask(&self, ask: Ask<'_>) -> Result<Answer, Trouble> {
        let (answer, wait) = self.ask_plainly(ask)?;
        match answer.status {
            401 => Err(Trouble::Token),
            403 => Err(forbidden(&answer.body, wait)),
            _ => Ok(answer),
        }
    }

    /// The same for a service that has another meaning of 401 and 403; with how long it says to wait.
    pub fn ask_plainly(&self, ask: Ask<'_>) -> Result<(Answer, Option<Duration>), Trouble> {
        let response = self.send(ask)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (location, range) = (text(LOCATION), text(RANGE));
        let body = read_all(response, ANSWER_MOST)?;
        judge(status, &headers)?;
        Ok((Answer { status, location, range, body }, asked_to_wait(&headers)))
    }

    /// Asks for `length` bytes of a file from `offset` on, of all that it has, and gives them to `take`. Answers with
    /// how many came; fewer than were asked for are trouble that passes, and those that came are good.
    pub fn fetch(
        &self,
        ask: Ask<'_>,
        offset: u64,
        length: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<(), Trouble> {
        let mut ask = ask;
        ask.headers.push(("range", format!("bytes={offset}-{}", offset + length.max(1) - 1)));
        let mut response = self.send_within(ask, SHORT + Duration::from_secs(length / SLOWEST))?;
        let status = response.status().as_u16();
        if status != 206 && !(status == 200 && offset == 0) {
            let headers = response.headers().clone();
            let body = read_all(response, ANSWER_MOST)?;
            judge(status, &headers)?;
            return Err(match status {
                401 => Trouble::Token,
                403 => forbidden(&body, asked_to_wait(&headers)),
                _ => Trouble::Lasting(Error::remote(format!("a download was answered with status {status}"))),
            });
        }
        let begins = format!("bytes {offset}-");
        let names = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        if status == 206 && !names.is_some_and(|range| range.starts_with(&begins)) {
            return Err(Trouble::Lasting(Error::remote("a download answers with another part than was asked for")));
        }
        let (mut left, mut block) = (length, vec![0; BLOCK]);
        loop {
            let read = match response.read(&mut block) {
                Ok(0) if left == 0 => return Ok(()),
                Ok(0) => return Err(Trouble::Passing("the connection ended early".to_owned(), None)),
                Ok(read) => read,
                Err(error) => return Err(Trouble::Passing(format!("the connection broke: {}", error.kind()), None)),
            };
            if read as u64 > left {
                return Err(Trouble::Lasting(Error::remote("a download brings more bytes than the file has")));
            }
            self.limit.take(read);
            take(&block[..read]).map_err(Trouble::Lasting)?;
            left -= read as u64;
        }
    }

    fn send(&self, ask: Ask<'_>) -> Result<Response, Trouble> {
        let bytes = match &ask.body {
            Send::Part(bytes) | Send::Json(bytes) => bytes.len() as u64,
            _ => 0,
        };
        self.send_within(ask, SHORT + Duration::from_secs(bytes / SLOWEST))
    }

    fn send_within(&self, ask: Ask<'_>, time: Duration) -> Result<Response, Trouble> {
        let mut request = self.client.request(ask.method, ask.url).timeout(time);
        if let Some(token) = ask.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        request = match ask.body {
            // Google asks for a length also of what has none.
            Send::Nothing => request.header(CONTENT_LENGTH, 0),
            Send::Form(fields) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.extend_pairs(&fields);
                request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish())
            }
            Send::Json(bytes) => request.header(CONTENT_TYPE, "application/json; charset=UTF-8").body(bytes),
            Send::Part(bytes) => {
                let length = bytes.len() as u64;
                let slowed = Slowed { bytes: std::io::Cursor::new(bytes), limit: self.limit.clone() };
                request.body(Body::sized(slowed, length))
            }
        };
        request.send().map_err(|error| {
            let what = if error.is_timeout() {
                "no answer in time"
            } else if error.is_connect() {
                "no connection"
            } else {
                "the connection broke"
            };
            if error.is_builder() {
                return Trouble::Lasting(Error::remote("a request cannot be made").because(error.without_url()));
            }
            Trouble::Passing(what.to_owned(), None)
        })
    }
}

fn read_all(response: Response, most: u64) -> Result<Vec<u8>, Trouble> {
    let mut body = Vec::new();
    match response.take(most + 1).read_to_end(&mut body) {
        Ok(_) if body.len() as u64 > most => {
            Err(Trouble::Lasting(Error::remote("an answer is longer than any should be")))
        }
        Ok(_) => Ok(body),
        Err(error) => Err(Trouble::Passing(format!("the connection broke: {}", error.kind()), None)),
    }
}

fn asked_to_wait(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What a status means wherever it comes from.
fn judge(status: u16, headers: &HeaderMap) -> Result<(), Trouble> {
    match status {
        408 | 429 | 500..=599 => Err(Trouble::Passing(format!("status {status}"), asked_to_wait(headers))),
        300..=307 => Err(Trouble::Lasting(Error::remote(format!(
            "the service sends elsewhere (status {status}), which is not followed"
        )))),
        _ => Ok(()),
    }
}

fn forbidden(body: &[u8], wait: Option<Duration>) -> Trouble {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let reasons: Vec<&str> = refusal.error.errors.iter().map(|error| error.reason.as_str()).collect();
    let is = |reason| reasons.contains(&reason);
    if is("userRateLimitExceeded") || is("rateLimitExceeded") || is("sharingRateLimitExceeded") {
        return Trouble::Passing("too many requests".to_owned(), wait);
    }
    let (what, hint) = if is("storageQuotaExceeded") {
        ("Google Drive is full", "make room there, or `nbak backup gdrive prune`")
    } else if is("dailyLimitExceeded") {
        ("the daily limit of the Google project is reached", "try again tomorrow, or use a client id of your own")
    } else if is("appNotAuthorizedToFile") || is("insufficientFilePermissions") {
        ("this program may not touch that file in Google Drive", "another program made it; move or remove it there")
    } else if is("accessNotConfigured") {
        ("the Google project has no Drive API", "switch the Google Drive API on in the Google Cloud console")
    } else {
        ("Google Drive refuses (status 403)", "run `nbak auth google` again, with the scope drive.file")
    };
    Trouble::Lasting(Error::remote(what).hint(hint))
}
