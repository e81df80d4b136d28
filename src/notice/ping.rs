//! The ping of a service that tells people when it does not come.
//!
//! Success is a GET of the address; trouble a POST to the address with `/fail` behind it. It is the one channel that
//! works when this machine does not. So it must not say that all is well when only something is: a backup that was made
//! while something else is wrong is no success, nor is the end of some other trouble.

use reqwest::Method;
use serde_json::{Map, Value};

use super::address;
use super::deliver::{Deliver, Letter, Trouble};
use super::event::Event;
use super::fields::Fields;
use super::message::TROUBLE;
use super::secret::Secret;
use super::web::{self, Ask};
use super::webhook::{check, host, target};

/// So much of the text goes along, in bytes.
const MOST: usize = 10_000;

/// Pings an address.
pub(super) struct Ping {
    url: Secret,
}

impl Ping {
    /// As configured.
    pub fn parse(all: &Map<String, Value>) -> Result<Ping, String> {
        let ping = Ping { url: Fields::of(all, &[], &["url"])?.needed_secret("url")? };
        check(&ping.url)?;
        Ok(ping)
    }
}

impl Deliver for Ping {
    fn kind(&self) -> &'static str {
        "ping"
    }

    fn host(&self) -> Option<String> {
        host(&self.url)
    }

    fn secrets(&self) -> Vec<&Secret> {
        vec![&self.url]
    }

    fn once(&self, letter: &Letter) -> Result<(), Trouble> {
        let url = target(&self.url)?;
        let is_success = match letter.notice.event {
            Event::BackupOk => !letter.notice.facts.contains_key(TROUBLE),
            event => event == Event::Test,
        };
        let ask = if letter.notice.event.is_trouble() {
            let title = &letter.notice.title;
            let text = format!("{title}\n\n{}", letter.notice.letter(MOST - title.len() - 2));
            let body = Some(("text/plain; charset=utf-8", text.into_bytes()));
            Ask { method: Method::POST, url: address::below(&url, "fail"), headers: Vec::new(), body }
        } else if !is_success {
            return Ok(());
        } else {
            Ask { method: Method::GET, url, headers: Vec::new(), body: None }
        };
        web::ask(ask, letter, |status| (status == 404).then_some("the service does not know this address"))
    }
}
