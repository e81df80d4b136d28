//! An email, by SMTP.
//!
//! Under TLS from the start or from STARTTLS on, which the server has to offer: without it nothing is said but EHLO.
//! The title is one line before it gets here, and is encoded as a header asks for; addresses are parsed when the
//! configuration is read.

use std::error::Error as _;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::{Duration, UNIX_EPOCH};

use lettre::address::Envelope;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{SmtpTransport, Transport};
use serde_json::{Map, Value};
use url::Host;

use super::address::is_here;
use super::deliver::{Deliver, Letter, Trouble};
use super::fields::Fields;
use super::relay::Relay;
use super::secret::Secret;

/// So many people are told by one channel.
const TO_MOST: usize = 20;
/// To hand over a mail may take so many steps in all.
const STEPS: u32 = 4;
/// A mail's text is at most this long, in bytes.
const MOST: usize = 100_000;

/// Sends mail by a server.
pub(super) struct Email {
    server: Host,
    port: u16,
    cover: Cover,
    login: Option<(String, Secret)>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

/// What keeps the mail from others' eyes.
enum Cover {
    StartTls,
    Tls,
    None,
}

/// Says that no person wrote it, so that no machine answers.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(AutoSubmitted)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

impl Email {
    /// As configured.
    pub fn parse(all: &Map<String, Value>) -> Result<Email, String> {
        let fields = Fields::of(all, &["server", "port", "tls", "user", "from", "to"], &["password"])?;
        let server = fields.needed("server")?;
        let server = match server.parse::<std::net::Ipv6Addr>() {
            Ok(address) => Host::Ipv6(address),
            Err(_) => Host::parse(server).map_err(|_| "`server` is no name of a host".to_owned())?,
        };
        let (cover, usual) = match fields.text("tls")? {
            None | Some("starttls") => (Cover::StartTls, 587),
            Some("tls") => (Cover::Tls, 465),
            Some("none") if is_here(&server) => (Cover::None, 25),
            Some("none") => {
                return Err("`tls` is \"none\", which is for a server on this very machine only (127.0.0.1)".to_owned());
            }
            Some(_) => return Err("`tls` is none of \"starttls\", \"tls\", \"none\"".to_owned()),
        };
        let port = match fields.value("port") {
            None => usual,
            Some(port) => port
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port > 0)
                .ok_or("`port` is no number of a port")?,
        };
        let login = match (fields.text("user")?, fields.secret("password")?) {
            (Some(user), Some(password)) => Some((user.to_owned(), password)),
            (None, None) => None,
            (Some(_), None) => return Err("`user` is there, and `password` (or `password_file`) is missing".to_owned()),
            (None, Some(_)) => return Err("`password` is there, and `user` is missing".to_owned()),
        };
        let from = mailbox("from", fields.needed("from")?)?;
        let to = match fields.value("to") {
            Some(Value::Array(all)) if all.is_empty() => return Err("`to` names nobody".to_owned()),
            Some(Value::Array(all)) if all.len() > TO_MOST => {
                return Err(format!("`to` names more than {TO_MOST} people"));
            }
            Some(Value::Array(all)) => all
                .iter()
                .map(|to| mailbox("to", to.as_str().ok_or("`to` has something in it that is no text")?))
                .collect::<Result<_, String>>()?,
            _ => vec![mailbox("to", fields.needed("to")?)?],
        };
        Ok(Email { server, port, cover, login, from, to })
    }

    /// Without brackets around a number, as it is connected to.
    fn server(&self) -> String {
        match &self.server {
            Host::Ipv6(address) => address.to_string(),
            other => other.to_string(),
        }
    }

    /// By way of a port of this machine.
    fn transport(&self, port: u16, step: Duration) -> Result<SmtpTransport, Trouble> {
        let server = self.server();
        let tls =
            || TlsParameters::new(server.clone()).map_err(|_| Trouble::Lasting("cannot make ready for TLS".to_owned()));
        let cover = match self.cover {
            Cover::StartTls => Tls::Required(tls()?),
            Cover::Tls => Tls::Wrapper(tls()?),
            Cover::None => Tls::None,
        };
        let way = Ipv4Addr::LOCALHOST.to_string();
        let mut transport = SmtpTransport::builder_dangerous(way).port(port).tls(cover).timeout(Some(step));
        if let Some((user, password)) = &self.login {
            let password = password.read().map_err(Trouble::Lasting)?;
            transport = transport.credentials(Credentials::new(user.clone(), password.to_string()));
        }
        Ok(transport.build())
    }

    fn message(&self, letter: &Letter) -> Result<Message, lettre::error::Error> {
        let notice = &letter.notice;
        let when = u64::try_from(notice.when_ms).unwrap_or(0);
        let mut message = Message::builder()
            .from(self.from.clone())
            .subject(notice.title.clone())
            .date(UNIX_EPOCH + Duration::from_millis(when))
            .message_id(Some(format!("<{}@{}>", letter.id, self.from.email.domain())))
            .header(AutoSubmitted)
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            message = message.to(to.clone());
        }
        let envelope =
            Envelope::new(Some(self.from.email.clone()), self.to.iter().map(|to| to.email.clone()).collect())?;
        message.envelope(envelope).body(notice.letter(MOST) + "\n")
    }
}

impl Deliver for Email {
    fn kind(&self) -> &'static str {
        "email"
    }

    fn host(&self) -> Option<String> {
        Some(self.server())
    }

    fn secrets(&self) -> Vec<&Secret> {
        self.login.iter().map(|(_, password)| password).collect()
    }

    fn once(&self, letter: &Letter) -> Result<(), Trouble> {
        let message = self.message(letter).map_err(|_| Trouble::Lasting("no mail can be made of it".to_owned()))?;
        let step = letter.patience.step;
        let relay = Relay::to(&self.server(), self.port, step, step * STEPS).map_err(|error| no_way(error.kind()))?;
        match self.transport(relay.port(), step)?.send(&message) {
            Ok(_) => Ok(()),
            Err(error) => Err(meaning(&error)),
        }
    }
}

fn mailbox(key: &str, text: &str) -> Result<Mailbox, String> {
    if text.chars().any(char::is_control) {
        return Err(format!("`{key}` has a line break or another control character in it"));
    }
    text.parse().map_err(|_| format!("`{key}` is no address of a mailbox"))
}

/// In words of our own: what a server says may repeat what was said to it.
fn meaning(error: &lettre::transport::smtp::Error) -> Trouble {
    if let Some(code) = error.status() {
        let code = code.to_string();
        return match code.as_str() {
            "530" | "534" | "535" | "538" => {
                Trouble::Lasting(format!("the server does not accept user and password ({code})"))
            }
            _ if error.is_transient() => Trouble::passing(format!("the server refuses for now ({code})")),
            _ => Trouble::Lasting(format!("the server refuses ({code})")),
        };
    }
    if error.is_client() {
        return Trouble::Lasting("the server lacks what is needed: STARTTLS, or a way to log in".to_owned());
    }
    match io_kind(error) {
        Some(ErrorKind::InvalidData) => {
            Trouble::Lasting("the server speaks no TLS, or nobody vouches for its certificate".to_owned())
        }
        Some(kind @ (ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::ConnectionRefused)) => no_way(kind),
        _ if error.is_response() => Trouble::passing("the connection ended early, or the server speaks no SMTP"),
        _ => no_way(ErrorKind::Other),
    }
}

fn no_way(kind: ErrorKind) -> Trouble {
    match kind {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Trouble::passing("no answer in time"),
        ErrorKind::ConnectionRefused => Trouble::passing("no connection"),
        _ => Trouble::passing("no connection, or it broke"),
    }
}

fn io_kind(error: &lettre::transport::smtp::Error) -> Option<ErrorKind> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}
