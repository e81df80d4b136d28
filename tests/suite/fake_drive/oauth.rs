//! The authorization side: consent by browser with PKCE, the device flow, tokens and their revocation.
//! Tokens are random and live as long as the test says; a refresh gives no new refresh token.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::clock::random_word;
use super::reply::Reply;
use super::request::{Req, encode, lookup};

/// The client id that is known from the start.
pub const CLIENT_ID: &str = "fake-client.apps.example.com";

/// The secret that belongs to it.
pub const CLIENT_SECRET: &str = "fake-secret";

/// The scope that a client must ask for.
pub const SCOPE: &str = "https://www.googleapis.com/auth/drive.file";

/// How a device flow ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceEnd {
    /// The user agrees.
    Granted,
    /// The user refuses: `access_denied`.
    Denied,
    /// The user takes too long: `expired_token`.
    Expired,
}

/// One consent of the user.
struct Grant {
    refresh: String,
    scope: String,
    revoked: bool,
}

struct Access {
    grant: usize,
    until: Instant,
}

/// A code that a browser brought back.
struct Code {
    challenge: String,
    redirect_uri: String,
    scope: String,
}

/// A device flow under way.
struct Device {
    scope: String,
    pending: u32,
    slow_down: u32,
    interval: Duration,
    last: Instant,
}

/// All that the authorization side knows.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct OAuth {
    pub(super) client_id: String,
    pub(super) client_secret: String,
    pub(super) needs_secret: bool,
    pub(super) lifetime: Duration,
    pub(super) invalid_grant: bool,
    pub(super) deny_consent: bool,
    pub(super) wrong_state: bool,
    pub(super) granted_scope: Option<String>,
    pub(super) pending: u32,
    pub(super) slow_down: u32,
    pub(super) device_end: DeviceEnd,
    pub(super) pending_status: u16,
    pub(super) interval: u64,
    /// How often a device asked again before its interval was over.
    pub(super) hasty: u64,
    grants: Vec<Grant>,
    access: HashMap<String, Access>,
    /// All access tokens, also those that are good no more.
    given: Vec<String>,
    codes: HashMap<String, Code>,
    devices: HashMap<String, Device>,
}

impl OAuth {
    pub(super) fn new() -> Self {
        Self {
            client_id: CLIENT_ID.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
            needs_secret: true,
            lifetime: Duration::from_hours(1),
            invalid_grant: false,
            deny_consent: false,
            wrong_state: false,
            granted_scope: None,
            pending: 1,
            slow_down: 0,
            device_end: DeviceEnd::Granted,
            pending_status: 428,
            interval: 1,
            hasty: 0,
            grants: Vec::new(),
            access: HashMap::new(),
            given: Vec::new(),
            codes: HashMap::new(),
            devices: HashMap::new(),
        }
    }

    /// Whether an access token is good.
    pub(super) fn accepts(&self, token: &str) -> bool {
        self.access.get(token).is_some_and(|access| access.until > Instant::now() && !self.grants[access.grant].revoked)
    }

    /// All tokens that were ever given.
    pub(super) fn secrets(&self) -> Vec<String> {
        self.grants.iter().map(|grant| grant.refresh.clone()).chain(self.given.iter().cloned()).collect()
    }

    /// Kills one access token; its grant lives on.
    pub(super) fn kill(&mut self, token: &str) {
        self.access.remove(token);
    }

    /// Kills all access tokens; their grants live on.
    pub(super) fn kill_all(&mut self) {
        self.access.clear();
    }

    /// Takes back every consent.
    pub(super) fn revoke_all(&mut self) {
        self.grants.iter_mut().for_each(|grant| grant.revoked = true);
    }

    /// A new consent: its access token and its refresh token.
    pub(super) fn issue(&mut self, scope: &str) -> (String, String) {
        let scope = self.granted_scope.clone().unwrap_or_else(|| scope.to_owned());
        let refresh = format!("1//{}", random_word());
        self.grants.push(Grant { refresh: refresh.clone(), scope, revoked: false });
        (self.new_access(self.grants.len() - 1), refresh)
    }

    fn new_access(&mut self, grant: usize) -> String {
        let token = format!("ya29.{}", random_word());
        self.given.push(token.clone());
        self.access.insert(token.clone(), Access { grant, until: Instant::now() + self.lifetime });
        token
    }

    fn tokens(&mut self, scope: &str) -> Reply {
        let (access, refresh) = self.issue(scope);
        let scope = self.grants.last().map_or("", |grant| grant.scope.as_str());
        Reply::json(
            200,
            json!({
                "access_token": access, "expires_in": self.lifetime.as_secs(), "refresh_token": refresh,
                "scope": scope, "token_type": "Bearer",
            }),
        )
    }

    fn check_client(&self, form: &[(String, String)]) -> Result<(), Reply> {
        if lookup(form, "client_id") != Some(&self.client_id) {
            return Err(Reply::oauth_error(401, "invalid_client", "The OAuth client was not found."));
        }
        match lookup(form, "client_secret") {
            None if self.needs_secret => Err(Reply::oauth_error(400, "invalid_request", "client_secret is missing.")),
            Some(secret) if secret != self.client_secret => {
                Err(Reply::oauth_error(401, "invalid_client", "Unauthorized"))
            }
            _ => Ok(()),
        }
    }

    /// POST to the token endpoint.
    pub(super) fn token(&mut self, req: &Req) -> Reply {
        let form = req.form();
        if let Err(reply) = self.check_client(&form) {
            return reply;
        }
        match lookup(&form, "grant_type") {
            Some("authorization_code") => self.by_code(&form),
            Some("refresh_token") => self.by_refresh(&form),
            Some("urn:ietf:params:oauth:grant-type:device_code") => self.by_device(&form),
            _ => Reply::oauth_error(400, "unsupported_grant_type", "Invalid grant_type."),
        }
    }

    fn by_code(&mut self, form: &[(String, String)]) -> Reply {
        // A code is used up by the first who shows it, right or wrong.
        let code = lookup(form, "code").and_then(|code| self.codes.remove(code));
        let Some(code) = code.filter(|_| !self.invalid_grant) else {
            return invalid_grant("Malformed auth code.");
        };
        if lookup(form, "redirect_uri") != Some(&code.redirect_uri) {
            return Reply::oauth_error(400, "redirect_uri_mismatch", "Bad Request");
        }
        let verifier = lookup(form, "code_verifier").unwrap_or("");
        let fits = (43..=128).contains(&verifier.len())
            && verifier.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
        if !fits || URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) != code.challenge {
            return invalid_grant("Invalid code verifier.");
        }
        self.tokens(&code.scope)
    }

    fn by_refresh(&mut self, form: &[(String, String)]) -> Reply {
        let shown = lookup(form, "refresh_token").unwrap_or("");
        let grant = self.grants.iter().position(|grant| grant.refresh == shown && !grant.revoked);
        let Some(grant) = grant.filter(|_| !self.invalid_grant) else {
            return invalid_grant("Token has been expired or revoked.");
        };
        let access = self.new_access(grant);
        let scope = &self.grants[grant].scope;
        Reply::json(
            200,
            json!({
                "access_token": access, "expires_in": self.lifetime.as_secs(), "scope": scope, "token_type": "Bearer",
            }),
        )
    }

    fn by_device(&mut self, form: &[(String, String)]) -> Reply {
        let (pending_status, end) = (self.pending_status, self.device_end);
        let key = lookup(form, "device_code").unwrap_or("");
        let Some(device) = self.devices.get_mut(key) else {
            return invalid_grant("Malformed device code.");
        };
        if device.last.elapsed() < device.interval {
            self.hasty += 1;
        }
        device.last = Instant::now();
        if device.pending > 0 {
            device.pending -= 1;
            return Reply::oauth_error(pending_status, "authorization_pending", "Precondition Required");
        }
        if device.slow_down > 0 {
            device.slow_down -= 1;
            device.interval += Duration::from_secs(5);
            return Reply::oauth_error(403, "slow_down", "Forbidden");
        }
        let scope = device.scope.clone();
        self.devices.remove(key);
        match end {
            DeviceEnd::Granted => self.tokens(&scope),
            DeviceEnd::Denied => Reply::oauth_error(403, "access_denied", "Forbidden"),
            DeviceEnd::Expired => Reply::oauth_error(400, "expired_token", "The device code has expired."),
        }
    }

    /// POST that begins a device flow.
    pub(super) fn device_code(&mut self, req: &Req) -> Reply {
        let form = req.form();
        if lookup(&form, "client_id") != Some(&self.client_id) {
            return Reply::oauth_error(401, "invalid_client", "The OAuth client was not found.");
        }
        let scope = lookup(&form, "scope").unwrap_or("");
        // Only this one and those that tell who the user is may be asked for by a device.
        let allowed = |scope: &str| [SCOPE, "openid", "email", "profile"].contains(&scope);
        if !has_scope(scope) || !scope.split(' ').all(allowed) {
            return Reply::oauth_error(400, "invalid_scope", "Invalid device flow scope.");
        }
        let (device_code, word) = (format!("AH-{}", random_word()), random_word().to_uppercase());
        let device = Device {
            scope: scope.to_owned(),
            pending: self.pending,
            slow_down: self.slow_down,
            interval: Duration::from_secs(self.interval),
            last: Instant::now(),
        };
        self.devices.insert(device_code.clone(), device);
        Reply::json(
            200,
            json!({
                "device_code": device_code, "user_code": format!("{}-{}", &word[..4], &word[4..8]),
                "verification_url": "https://www.google.com/device", "expires_in": 1800, "interval": self.interval,
            }),
        )
    }

    /// POST that takes back a consent, by its refresh token or an access token.
    pub(super) fn revoke(&mut self, req: &Req) -> Reply {
        let form = req.form();
        let shown = lookup(&form, "token").or_else(|| req.arg("token")).unwrap_or("");
        let by_access = self.access.get(shown).map(|access| access.grant);
        let grant = by_access.or_else(|| self.grants.iter().position(|grant| grant.refresh == shown));
        match grant.map(|grant| &mut self.grants[grant]) {
            Some(grant) if !grant.revoked => {
                grant.revoked = true;
                Reply::json(200, json!({}))
            }
            _ => Reply::oauth_error(400, "invalid_token", "Token expired or revoked"),
        }
    }

    /// GET of the page of consent: here the user answers at once.
    pub(super) fn auth(&mut self, req: &Req) -> Reply {
        let arg = |name: &str| req.arg(name).unwrap_or("");
        let redirect_uri = arg("redirect_uri");
        if arg("client_id") != self.client_id {
            return page("invalid_client");
        }
        if !is_loopback(redirect_uri) {
            return page("redirect_uri_mismatch");
        }
        let wrong = if arg("response_type") != "code" {
            Some("unsupported_response_type")
        } else if !has_scope(arg("scope")) {
            Some("invalid_scope")
        } else if arg("code_challenge_method") != "S256"
            || URL_SAFE_NO_PAD.decode(arg("code_challenge")).map_or(true, |hash| hash.len() != 32)
            || arg("access_type") != "offline"
            || arg("prompt") != "consent"
            || arg("state").is_empty()
        {
            Some("invalid_request")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return page(wrong);
        }
        let state = if self.wrong_state { "not-the-state-you-sent" } else { arg("state") };
        let mark = if redirect_uri.contains('?') { '&' } else { '?' };
        if self.deny_consent {
            return Reply::redirect(format!("{redirect_uri}{mark}error=access_denied&state={}", encode(state)));
        }
        let code = format!("4/{}", random_word());
        let answer =
            format!("{redirect_uri}{mark}state={}&code={}&scope={}", encode(state), encode(&code), encode(SCOPE));
        let known = Code {
            challenge: arg("code_challenge").to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            scope: arg("scope").to_owned(),
        };
        self.codes.insert(code, known);
        Reply::redirect(answer)
    }
}

fn invalid_grant(description: &str) -> Reply {
    Reply::oauth_error(400, "invalid_grant", description)
}

/// An error that the user sees and the client never hears of.
fn page(error: &str) -> Reply {
    Reply::bytes(400, "text/html; charset=UTF-8", format!("<h1>Access blocked</h1><p>Error 400: {error}").into_bytes())
}

fn has_scope(scopes: &str) -> bool {
    scopes.split(' ').any(|scope| scope == SCOPE)
}

fn is_loopback(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("http://") else {
        return false;
    };
    let host = rest.split(['/', '?']).next().unwrap_or("");
    let (name, port) = match host.strip_prefix("[::1]") {
        Some(port) => ("[::1]", port.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    ["127.0.0.1", "localhost", "[::1]"].contains(&name) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_only() {
        for uri in ["http://127.0.0.1:8080", "http://localhost/x?y", "http://[::1]:9/"] {
            assert!(is_loopback(uri), "{uri}");
        }
        for uri in ["https://127.0.0.1", "http://127.0.0.1.example.com", "http://a@127.0.0.1/", "http://127.0.0.1:x"] {
            assert!(!is_loopback(uri), "{uri}");
        }
    }
}
