//! Telegram: a message of a bot to one chat.
//!
//! The bot's token is a part of the address, so it must have no character that could make another address of it. The
//! message has no markup: text that looks like some would be refused, or read wrongly.

use reqwest::{Method, Url};
use serde_json::{Map, Value, json};
use url::Host;

use super::address;
use super::deliver::{Deliver, Letter, Trouble};
use super::fields::Fields;
use super::secret::Secret;
use super::web::{self, Ask};

/// The service.
const BASE: &str = "https://api.telegram.org/";
/// A message is at most this long, in characters; in bytes it is no shorter, however the service counts them.
const MOST: usize = 4096;

/// Sends messages to a chat.
pub(super) struct Telegram {
    base: Url,
    token: Secret,
    chat: Value,
}

impl Telegram {
    /// As configured.
    pub fn parse(all: &Map<String, Value>) -> Result<Telegram, String> {
        let fields = Fields::of(all, &["chat", "base"], &["token"])?;
        let base = match fields.text("base")? {
            None => Url::parse(BASE).expect("the address is a constant and well formed"),
            Some(text) => {
                let url = address::parse(text).map_err(|why| format!("`base` {why}"))?;
                let is_root = url.path() == "/" && url.query().is_none();
                if !is_root || !url.host().is_some_and(|host| address::is_here(&host)) {
                    return Err("`base` is for tests on this very machine: http://127.0.0.1:PORT".to_owned());
                }
                url
            }
        };
        let token = fields.needed_secret("token")?;
        if token.given().is_some_and(|token| !is_token(token)) {
            return Err(format!("`token` {NO_TOKEN}"));
        }
        let chat = match fields.value("chat") {
            Some(Value::Number(number)) if number.is_i64() => Value::Number(number.clone()),
            _ => Value::String(fields.needed("chat")?.to_owned()),
        };
        Ok(Telegram { base, token, chat })
    }
}

const NO_TOKEN: &str = "is none that Telegram gives: those are digits, a colon, and letters, digits, `-` and `_`";

fn is_token(token: &str) -> bool {
    token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'-' | b'_'))
}

impl Deliver for Telegram {
    fn kind(&self) -> &'static str {
        "telegram"
    }

    fn host(&self) -> Option<String> {
        self.base.host().map(|host: Host<&str>| host.to_string())
    }

    fn secrets(&self) -> Vec<&Secret> {
        vec![&self.token]
    }

    fn once(&self, letter: &Letter) -> Result<(), Trouble> {
        let token = self.token.read().map_err(Trouble::Lasting)?;
        if !is_token(&token) {
            return Err(Trouble::Lasting(format!("the token {NO_TOKEN}")));
        }
        let mut url = self.base.clone();
        url.set_path(&format!("/bot{}/sendMessage", token.as_str()));
        let title = &letter.notice.title;
        let text = format!("{title}\n\n{}", letter.notice.letter(MOST - title.len() - 2));
        let body = json!({
            "chat_id": self.chat,
            "text": text,
            "link_preview_options": { "is_disabled": true },
        });
        let body = Some(("application/json", body.to_string().into_bytes()));
        web::ask(Ask { method: Method::POST, url, headers: Vec::new(), body }, letter, |status| match status {
            400 => Some("there is no such chat, or the bot is not in it"),
            401 | 404 => Some("the token is not accepted"),
            403 => Some("the bot may not write to this chat"),
            _ => None,
        })
    }
}
