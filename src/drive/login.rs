//! How access is granted, and taken back.
//!
//! Two flows: in a browser on this machine, which comes back to a port that only this program listens on, with PKCE
//! (RFC 7636) and a state of its own (RFC 8252); and with a code that is typed on another device (RFC 8628), for
//! servers and containers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::access::{App, SCOPE, now_ms, parse, post, refusal, refused};
use super::bases::Bases;
use super::grant::{Grant, Keeper};
use super::http::{Answer, Http};
use super::retry::Patience;
use crate::error::{Error, Result};
use crate::id::random_bytes;

/// How long a person may take.
const PERSON: Duration = Duration::from_mins(10);
/// A browser's request is at most this long.
const REQUEST_MOST: usize = 16 * 1024;

/// What the device flow begins with.
#[derive(Deserialize)]
struct DeviceAnswer {
    device_code: Zeroizing<String>,
    user_code: String,
    #[serde(alias = "verification_uri")]
    verification_url: String,
    #[serde(default)]
    expires_in: u32,
    #[serde(default = "five")]
    interval: u32,
}

/// What RFC 8628 says for an answer without an interval, in seconds.
fn five() -> u32 {
    5
}

/// What a login needs.
pub struct Login<'a> {
    /// Sends requests.
    pub http: &'a Http,
    /// Where to.
    pub bases: &'a Bases,
    /// Who this program is.
    pub app: &'a App,
    /// How often to try.
    pub patience: Patience,
}

fn random_text() -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(random_bytes::<32>()))
}

impl Login<'_> {
    /// In a browser: `show` is given the address to open.
    pub fn in_browser(&self, show: &dyn Fn(&str)) -> Result<Grant> {
        let failed = |error: std::io::Error| Error::failed("cannot listen for the browser").because(error);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let redirect = format!("http://127.0.0.1:{}", listener.local_addr().map_err(failed)?.port());
        let (verifier, state) = (random_text(), random_text());
        let mut address = self.bases.consent.clone();
        address
            .query_pairs_mut()
            .append_pair("client_id", &self.app.id)
            .append_pair("redirect_uri", &redirect)
            .append_pair("response_type", "code")
            .append_pair("scope", SCOPE)
            .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())))
            .append_pair("code_challenge_method", "S256")
            .append_pair("state", &state)
            .append_pair("access_type", "offline")
            .append_pair("prompt", "consent");
        show(address.as_str());
        let code = wait_for_code(&listener, &redirect, &state)?;
        let fields = || {
            vec![
                ("client_id", self.app.id.clone()),
                ("client_secret", self.app.secret.to_string()),
                ("code", code.to_string()),
                ("code_verifier", verifier.to_string()),
                ("redirect_uri", redirect.clone()),
                ("grant_type", "authorization_code".to_owned()),
            ]
        };
        let mut tries = self.patience.begin();
        loop {
            match post(self.http, &self.bases.token, fields()) {
                Ok(answer) if answer.status == 200 => return self.granted(&answer),
                Ok(answer) => return Err(refused(&answer)),
                Err(trouble) => tries.after("cannot get a token from Google", trouble)?,
            }
        }
    }

    /// With a code that is typed elsewhere: `show` is given the address and the code.
    pub fn on_device(&self, show: &dyn Fn(&str, &str)) -> Result<Grant> {
        let mut tries = self.patience.begin();
        let answer = loop {
            let fields = vec![("client_id", self.app.id.clone()), ("scope", SCOPE.to_owned())];
            match post(self.http, &self.bases.device, fields) {
                Ok(answer) if answer.status == 200 => break answer,
                Ok(answer) => return Err(refused(&answer)),
                Err(trouble) => tries.after("cannot get a code from Google", trouble)?,
            }
        };
        let device: DeviceAnswer = serde_json::from_slice(&answer.body)
            .map_err(|_| Error::remote("Google answers with no code that can be read"))?;
        show(&device.verification_url, &device.user_code);
        let lasts = Duration::from_secs(u64::from(device.expires_in.clamp(1, 3600)));
        let (start, mut interval) = (Instant::now(), Duration::from_secs(u64::from(device.interval.min(60))));
        let mut tries = self.patience.begin();
        while start.elapsed() < lasts {
            std::thread::sleep(interval.max(Duration::from_millis(10)));
            let fields = vec![
                ("client_id", self.app.id.clone()),
                ("client_secret", self.app.secret.to_string()),
                ("device_code", device.device_code.to_string()),
                ("grant_type", "urn:ietf:params:oauth:grant-type:device_code".to_owned()),
            ];
            match post(self.http, &self.bases.token, fields) {
                Ok(answer) if answer.status == 200 => return self.granted(&answer),
                Ok(answer) => match refusal(&answer).as_str() {
                    "authorization_pending" => tries.progress(),
                    "slow_down" => interval += Duration::from_secs(5),
                    _ => return Err(refused(&answer)),
                },
                Err(trouble) => tries.after("cannot get a token from Google", trouble)?,
            }
        }
        Err(Error::remote("the code was not typed in time").hint("run `nbak auth google --device` again"))
    }

    fn granted(&self, answer: &Answer) -> Result<Grant> {
        let token = parse(answer)?;
        let expires_ms = token.expires_ms();
        let Some(refresh_token) = token.refresh_token else {
            return Err(Error::remote("Google grants access for an hour only")
                .hint("remove this program's access in your Google account, and run `nbak auth google` again"));
        };
        let scope = token.scope.unwrap_or_else(|| SCOPE.to_owned());
        if !scope.split(' ').any(|one| one == SCOPE) {
            return Err(Error::remote("access to Google Drive was not granted")
                .hint("run `nbak auth google` again, and tick the box for Google Drive"));
        }
        Ok(Grant {
            client_id: self.app.id.clone(),
            scope,
            refresh_token,
            granted_ms: now_ms(),
            expires_ms,
            access_token: token.access_token,
        })
    }

    /// Takes the grant back at Google, and forgets it here; that Google knows of none is no failure.
    pub fn revoke(&self, keeper: &Keeper) -> Result<bool> {
        let Some(grant) = keeper.load()? else { return keeper.remove() };
        let mut tries = self.patience.begin();
        loop {
            match post(self.http, &self.bases.revoke, vec![("token", grant.refresh_token.to_string())]) {
                Ok(answer) if answer.status == 200 => return keeper.remove(),
                // Google knows of none any more.
                Ok(answer) if matches!(refusal(&answer).as_str(), "invalid_token" | "invalid_grant") => {
                    return keeper.remove();
                }
                Ok(answer) => {
                    let why = format!("status {}", answer.status);
                    tries.again("cannot revoke the access at Google", &why, None)?;
                }
                Err(trouble) => tries.after("cannot revoke the access at Google", trouble)?,
            }
        }
    }
}

/// Waits until the browser comes back with a code for `state`. Whoever else comes is sent away.
fn wait_for_code(listener: &TcpListener, redirect: &str, state: &str) -> Result<Zeroizing<String>> {
    let failed = |error: std::io::Error| Error::failed("cannot listen for the browser").because(error);
    listener.set_nonblocking(true).map_err(failed)?;
    let start = Instant::now();
    while start.elapsed() < PERSON {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        let Some(path) = requested(&mut stream) else { continue };
        let address = Url::parse(redirect).and_then(|base| base.join(&path));
        let Ok(address) = address else { continue };
        let value =
            |name: &str| address.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        if address.path() != "/" || value("state").as_deref() != Some(state) {
            say(&mut stream, "404 Not Found", "This is not what nbak waits for.");
            continue;
        }
        if let Some(code) = value("code") {
            say(&mut stream, "200 OK", "Access was granted. You can close this window.");
            return Ok(Zeroizing::new(code));
        }
        say(&mut stream, "200 OK", "Access was not granted. You can close this window.");
        return Err(Error::remote("access was denied").hint("run `nbak auth google` again, and allow it"));
    }
    Err(Error::remote("nobody granted access in time").hint("run `nbak auth google` again"))
}

/// The path that a browser asks for.
fn requested(stream: &mut TcpStream) -> Option<String> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let start = Instant::now();
    let (mut head, mut block) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n")
        && head.len() < REQUEST_MOST
        && start.elapsed() < Duration::from_secs(4)
    {
        match stream.read(&mut block) {
            Ok(0) | Err(_) => break,
            Ok(read) => head.extend_from_slice(&block[..read]),
        }
    }
    let line = String::from_utf8_lossy(&head);
    let mut words = line.lines().next()?.split(' ');
    (words.next() == Some("GET")).then(|| words.next().map(str::to_owned)).flatten()
}

fn say(stream: &mut TcpStream, status: &str, text: &str) {
    let page = format!("<!doctype html><meta charset=utf-8><title>nbak</title><p>{text}</p>");
    // The code is there, whatever the browser shows.
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{page}",
        page.len()
    );
}
