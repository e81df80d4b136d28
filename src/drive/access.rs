//! Access tokens: one at a time, fresh when it is asked for.
//!
//! **Single flight.** Whoever finds the token stale refreshes it while the others wait for the lock, and then have the
//! new one. **What is permanent** is told apart from what passes: `invalid_grant` means that nobody will ever accept
//! this grant again, and says so; a server that fails is asked again, and never costs the grant.

use std::sync::{Mutex, PoisonError};

use reqwest::Method;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::bases::Bases;
use super::grant::{Grant, Keeper};
use super::http::{Answer, Ask, Http, Send, Trouble};
use super::retry::Patience;
use crate::error::{Error, Result};

/// A token is renewed so long before it expires, in milliseconds.
const EARLY: i64 = 120_000;
/// What is asked for: only what this program made itself.
pub const SCOPE: &str = "https://www.googleapis.com/auth/drive.file";

/// Who this program is, for Google.
pub struct App {
    /// The client id.
    pub id: String,
    /// The client secret.
    pub secret: Zeroizing<String>,
}

/// What a token endpoint answers.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    pub(super) access_token: Zeroizing<String>,
    #[serde(default)]
    pub(super) expires_in: f64,
    #[serde(default)]
    pub(super) refresh_token: Option<Zeroizing<String>>,
    #[serde(default)]
    pub(super) scope: Option<String>,
}

impl TokenAnswer {
    /// When the token expires, in milliseconds since 1970.
    pub(super) fn expires_ms(&self) -> i64 {
        now_ms() + (self.expires_in.clamp(0.0, 86_400.0) * 1000.0) as i64
    }
}

/// How it refuses.
#[derive(Deserialize, Default)]
pub(super) struct TokenRefusal {
    #[serde(default)]
    pub(super) error: String,
}

/// Gives access tokens.
pub struct Access {
    app: App,
    keeper: Keeper,
    grant: Mutex<Grant>,
}

impl Access {
    /// By what `keeper` keeps; an error if that is nothing.
    pub fn open(app: App, keeper: Keeper) -> Result<Access> {
        let Some(grant) = keeper.load()? else {
            return Err(Error::remote("nobody has granted access to Google Drive yet")
                .hint("run `nbak auth google`, or on a machine without a browser `nbak auth google --device`"));
        };
        Ok(Access { app, keeper, grant: Mutex::new(grant) })
    }

    /// A token that is good for some minutes. If `refused` is the one at hand, a new one.
    pub fn token(
        &self,
        http: &Http,
        bases: &Bases,
        patience: Patience,
        refused: Option<&str>,
    ) -> Result<Zeroizing<String>> {
        let mut grant = self.grant.lock().unwrap_or_else(PoisonError::into_inner);
        let is_good = grant.expires_ms - EARLY > now_ms() && Some(grant.access_token.as_str()) != refused;
        if !is_good || grant.access_token.is_empty() {
            self.refresh(http, bases, patience, &mut grant)?;
        }
        Ok(grant.access_token.clone())
    }

    /// Asks for a new token, whatever there is: whether Google still accepts what was granted.
    pub fn prove(&self, http: &Http, bases: &Bases, patience: Patience) -> Result<()> {
        let mut grant = self.grant.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(http, bases, patience, &mut grant)
    }

    fn refresh(&self, http: &Http, bases: &Bases, patience: Patience, grant: &mut Grant) -> Result<()> {
        let mut tries = patience.begin();
        let answer = loop {
            let fields = vec![
                ("client_id", grant.client_id.clone()),
                ("client_secret", self.app.secret.to_string()),
                ("refresh_token", grant.refresh_token.to_string()),
                ("grant_type", "refresh_token".to_owned()),
            ];
            match post(http, &bases.token, fields) {
                Ok(answer) if answer.status == 200 => break answer,
                Ok(answer) => return Err(refused(&answer)),
                Err(trouble) => tries.after("cannot renew the access to Google Drive", trouble)?,
            }
        };
        let fresh: TokenAnswer = parse(&answer)?;
        grant.expires_ms = fresh.expires_ms();
        grant.access_token = fresh.access_token;
        // An answer may leave it out: then the old one stays.
        if let Some(token) = fresh.refresh_token {
            grant.refresh_token = token;
        }
        // What cannot be kept is asked for again next time. What somebody granted meanwhile is not written over.
        let is_ours = |kept: Option<Grant>| kept.is_some_and(|kept| kept.granted_ms == grant.granted_ms);
        if self.keeper.load().is_ok_and(is_ours) {
            let _ = self.keeper.store(grant);
        }
        Ok(())
    }
}

pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

pub(super) fn post(http: &Http, url: &reqwest::Url, fields: Vec<(&'static str, String)>) -> Result<Answer, Trouble> {
    let ask =
        Ask { method: Method::POST, url: url.clone(), token: None, headers: Vec::new(), body: Send::Form(fields) };
    http.ask_plainly(ask).map(|(answer, _)| answer)
}

pub(super) fn parse(answer: &Answer) -> Result<TokenAnswer> {
    let token: Option<TokenAnswer> = serde_json::from_slice(&answer.body).ok();
    // One with a line's end in it would be another header.
    let is_one = |token: &TokenAnswer| {
        let text = &token.access_token;
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    token.filter(is_one).ok_or_else(|| Error::remote("Google answers with no token that can be read"))
}

pub(super) fn refusal(answer: &Answer) -> String {
    serde_json::from_slice::<TokenRefusal>(&answer.body).unwrap_or_default().error
}

/// Why no token is given, by the answer's word.
pub(super) fn refused(answer: &Answer) -> Error {
    match refusal(answer).as_str() {
        "invalid_grant" => Error::remote("Google does not accept what was granted any more").hint(
            "run `nbak auth google` again; it was revoked, or expired: with a consent screen in testing mode that \
             happens after 7 days, so publish it",
        ),
        "invalid_client" | "unauthorized_client" | "deleted_client" => Error::remote(
            "Google does not know this client id and secret, or not for this",
        )
        .hint(
            "set GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET as the Google Cloud console shows them; --device needs a \
                 client of the type TVs and Limited Input devices",
        ),
        "" if answer.status == 401 => Error::remote("Google does not know this client id and secret")
            .hint("set GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET as the Google Cloud console shows them"),
        "access_denied" => Error::remote("access was denied").hint("run `nbak auth google` again, and allow it"),
        "expired_token" => Error::remote("the code has expired").hint("run `nbak auth google` again"),
        word if (1..60).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') => {
            Error::remote(format!("Google gives no token: {word}"))
        }
        _ => Error::remote(format!("Google gives no token (status {})", answer.status)),
    }
}
