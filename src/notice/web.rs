//! One request to a channel's server, and what its answer means.
//!
//! Redirects are not followed: nobody else's server is to see what is told, or the key that came with it. What goes to
//! this very machine goes past every proxy, since it is not under TLS. Of an answer only the status is read. No error
//! has the address in it.

use std::time::Duration;

use reqwest::blocking::Client;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Url};

use super::deliver::{Letter, Trouble};

/// What is asked.
pub(super) struct Ask {
    /// How.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// Header lines.
    pub headers: Vec<(&'static str, String)>,
    /// What goes with it, and of what type it is.
    pub body: Option<(&'static str, Vec<u8>)>,
}

/// Asks once. What a lasting refusal means to this service, `explain` knows.
pub(super) fn ask(ask: Ask, letter: &Letter, explain: fn(status: u16) -> Option<&'static str>) -> Result<(), Trouble> {
    let client = client(&ask.url, letter.patience.step)?;
    let mut request = client.request(ask.method, ask.url);
    for (name, value) in ask.headers {
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| Trouble::Lasting("a key has characters that no header can carry".to_owned()))?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    if let Some((kind, bytes)) = ask.body {
        request = request.header(CONTENT_TYPE, kind).body(bytes);
    }
    let response = request.send().map_err(|error| {
        if error.is_builder() {
            Trouble::Lasting("a request cannot be made".to_owned())
        } else if error.is_timeout() {
            Trouble::passing("no answer in time")
        } else if error.is_connect() {
            Trouble::passing("no connection")
        } else {
            Trouble::passing("the connection broke")
        }
    })?;
    judge(response.status().as_u16(), response.headers(), explain)
}

fn client(url: &Url, step: Duration) -> Result<Client, Trouble> {
    // The first one in the process stays, and is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(step)
        .timeout(step)
        .pool_max_idle_per_host(0)
        .user_agent(concat!("nbak/", env!("CARGO_PKG_VERSION")));
    if url.scheme() == "http" {
        client = client.no_proxy();
    }
    client.build().map_err(|error| Trouble::passing(format!("cannot make an HTTP client: {}", error.without_url())))
}

fn judge(status: u16, headers: &HeaderMap, explain: fn(status: u16) -> Option<&'static str>) -> Result<(), Trouble> {
    match status {
        200..=299 => Ok(()),
        300..=399 => {
            Err(Trouble::Lasting(format!("the server sends elsewhere (status {status}), which is not followed")))
        }
        408 | 425 | 429 | 500..=599 => {
            let asked = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            Err(Trouble::Passing(format!("status {status}"), asked.map(Duration::from_secs)))
        }
        _ => Err(Trouble::Lasting(match explain(status) {
            Some(why) => format!("status {status}: {why}"),
            None => format!("status {status}"),
        })),
    }
}
