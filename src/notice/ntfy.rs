//! ntfy: a push message to whoever subscribed to a topic.
//!
//! Published as JSON to the server's root, with the topic in it, and not by header lines: a title is any text, and a
//! header line is not.

use reqwest::{Method, Url};
use serde_json::{Map, Value, json};

use super::deliver::{Deliver, Letter, Trouble};
use super::event::Event;
use super::fields::Fields;
use super::secret::Secret;
use super::web::{self, Ask};
use super::webhook::{check, host, target};

/// What is longer than 4096 bytes becomes a file to fetch, or is refused.
const MOST: usize = 4000;

/// Publishes to a topic.
pub(super) struct Ntfy {
    url: Secret,
    token: Option<Secret>,
}

impl Ntfy {
    /// As configured.
    pub fn parse(all: &Map<String, Value>) -> Result<Ntfy, String> {
        let fields = Fields::of(all, &[], &["url", "token"])?;
        let ntfy = Ntfy { url: fields.needed_secret("url")?, token: fields.secret("token")? };
        check(&ntfy.url)?;
        if let Some(text) = ntfy.url.given() {
            let url = super::address::parse(text).map_err(|why| format!("`url` {why}"))?;
            split(&url).ok_or("`url` names no topic: it is https://SERVER/TOPIC")?;
        }
        Ok(ntfy)
    }
}

impl Deliver for Ntfy {
    fn kind(&self) -> &'static str {
        "ntfy"
    }

    fn host(&self) -> Option<String> {
        host(&self.url)
    }

    fn secrets(&self) -> Vec<&Secret> {
        [&self.url].into_iter().chain(&self.token).collect()
    }

    fn once(&self, letter: &Letter) -> Result<(), Trouble> {
        let (url, topic) =
            split(&target(&self.url)?).ok_or_else(|| Trouble::Lasting("the address names no topic".to_owned()))?;
        let mut headers = Vec::new();
        if let Some(token) = &self.token {
            let token = token.read().map_err(Trouble::Lasting)?;
            headers.push(("authorization", format!("Bearer {}", token.as_str())));
        }
        let (priority, tag) = match letter.notice.event {
            Event::BackupOk => (2, "white_check_mark"),
            Event::Recovered => (3, "white_check_mark"),
            Event::Test => (3, "bell"),
            _ => (4, "warning"),
        };
        let body = json!({
            "topic": topic,
            "title": letter.notice.title,
            "message": letter.notice.letter(MOST),
            "priority": priority,
            "tags": [tag, letter.notice.event.as_str()],
        });
        let body = Some(("application/json", body.to_string().into_bytes()));
        web::ask(Ask { method: Method::POST, url, headers, body }, letter, |status| {
            matches!(status, 401 | 403).then_some("the server does not let this in; look at the token")
        })
    }
}

/// The server's root, and the topic. A topic has letters, digits, `-` and `_`.
fn split(url: &Url) -> Option<(Url, String)> {
    let path = url.path().trim_end_matches('/');
    let (root, topic) = path.rsplit_once('/')?;
    let is_topic = !topic.is_empty() && topic.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let mut server = url.clone();
    server.set_path(&format!("{root}/"));
    server.set_query(None);
    is_topic.then(|| (server, topic.to_owned()))
}
