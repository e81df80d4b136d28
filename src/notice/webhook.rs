//! A webhook: the notice as JSON, signed if there is a secret.
//!
//! The signature is HMAC-SHA256 over the time of sending, a full stop and the body, so that whoever receives it knows
//! who sent it, and can refuse what is too old. `X-Nbak-Delivery` is the same for every try: a notice that arrived,
//! though its answer did not, is told from a new one.

use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Map, Value};
use sha2::Sha256;

use super::address;
use super::deliver::{Deliver, Letter, Trouble, hex};
use super::fields::Fields;
use super::secret::Secret;
use super::web::{self, Ask};

/// Posts to an address.
pub(super) struct Webhook {
    url: Secret,
    secret: Option<Secret>,
}

impl Webhook {
    /// As configured.
    pub fn parse(all: &Map<String, Value>) -> Result<Webhook, String> {
        let fields = Fields::of(all, &[], &["url", "secret"])?;
        let webhook = Webhook { url: fields.needed_secret("url")?, secret: fields.secret("secret")? };
        check(&webhook.url)?;
        Ok(webhook)
    }
}

impl Deliver for Webhook {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    fn host(&self) -> Option<String> {
        host(&self.url)
    }

    fn secrets(&self) -> Vec<&Secret> {
        [&self.url].into_iter().chain(&self.secret).collect()
    }

    fn once(&self, letter: &Letter) -> Result<(), Trouble> {
        let url = target(&self.url)?;
        let body = letter.notice.json();
        let timestamp = jiff::Timestamp::now().as_second().to_string();
        let mut headers = vec![("x-nbak-delivery", letter.id.clone())];
        if let Some(secret) = &self.secret {
            let secret = secret.read().map_err(Trouble::Lasting)?;
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
            mac.update(timestamp.as_bytes());
            mac.update(b".");
            mac.update(&body);
            headers.push(("x-nbak-signature", format!("sha256={}", hex(&mac.finalize().into_bytes()))));
        }
        headers.push(("x-nbak-timestamp", timestamp));
        let body = Some(("application/json", body));
        web::ask(Ask { method: Method::POST, url, headers, body }, letter, |_| None)
    }
}

/// Refuses an address of the configuration that nothing may go to.
pub(super) fn check(url: &Secret) -> Result<(), String> {
    url.given().map_or(Ok(()), |text| address::parse(text).map(drop).map_err(|why| format!("`url` {why}")))
}

/// The host of an address of the configuration.
pub(super) fn host(url: &Secret) -> Option<String> {
    address::parse(url.given()?).ok()?.host_str().map(str::to_owned)
}

/// Where to, now.
pub(super) fn target(url: &Secret) -> Result<reqwest::Url, Trouble> {
    let text = url.read().map_err(Trouble::Lasting)?;
    address::parse(&text).map_err(|why| Trouble::Lasting(format!("the address {why}")))
}
