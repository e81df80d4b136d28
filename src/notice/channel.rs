//! One way to tell people: what it is, and what it is told.
//!
//! `{"kind": …, "on": […], …}`: the kind says which further keys there are. Without `on` it is told of all trouble, and
//! when that is over.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::command::Command;
use super::deliver::Deliver;
use super::email::Email;
use super::event::Event;
use super::ntfy::Ntfy;
use super::ping::Ping;
use super::telegram::Telegram;
use super::webhook::Webhook;

/// One way to tell people. It prints as what [`Channel::describe`] says.
pub struct Channel {
    on: BTreeSet<Event>,
    is_ping: bool,
    pub(super) way: Box<dyn Deliver>,
}

impl Channel {
    /// As one object of `nbak.notify` says. An error names keys, and no values.
    pub fn parse(value: &Value) -> Result<Channel, String> {
        let all = value.as_object().ok_or("a channel is an object: {\"kind\": …}")?;
        let kind = match all.get("kind") {
            None => return Err(format!("`kind` is missing; there are {KINDS}")),
            Some(kind) => kind.as_str().ok_or("`kind` is no text")?,
        };
        let way: Result<Box<dyn Deliver>, String> = match kind {
            "command" => Command::parse(all).map(|way| Box::new(way) as _),
            "webhook" => Webhook::parse(all).map(|way| Box::new(way) as _),
            "ntfy" => Ntfy::parse(all).map(|way| Box::new(way) as _),
            "telegram" => Telegram::parse(all).map(|way| Box::new(way) as _),
            "email" => Email::parse(all).map(|way| Box::new(way) as _),
            "ping" => Ping::parse(all).map(|way| Box::new(way) as _),
            _ => return Err(format!("`kind` is none that is known; there are {KINDS}")),
        };
        let is_ping = kind == "ping";
        let on = on(all.get("on"), is_ping).map_err(|why| format!("{kind}: {why}"))?;
        Ok(Channel { on, is_ping, way: way.map_err(|why| format!("{kind}: {why}"))? })
    }

    /// What it is, for people: the kind, and the host where there is one that is no secret.
    pub fn describe(&self) -> String {
        match self.way.host() {
            Some(host) => format!("{} ({host})", self.way.kind()),
            None => self.way.kind().to_owned(),
        }
    }

    /// Whether it is told of `event`. Everybody is told of a test but who would take it for a success.
    pub fn wants(&self, event: Event) -> bool {
        if event == Event::Test { !self.is_ping } else { self.on.contains(&event) }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({})", self.describe())
    }
}

const KINDS: &str = "`command`, `webhook`, `ntfy`, `telegram`, `email`, `ping`";

fn on(value: Option<&Value>, is_ping: bool) -> Result<BTreeSet<Event>, String> {
    let usual = |event: &Event| event.is_trouble() || *event == Event::Recovered;
    let Some(value) = value else {
        let more = |event: &Event| is_ping && *event == Event::BackupOk;
        return Ok(Event::ALL.into_iter().filter(|event| usual(event) || more(event)).collect());
    };
    let names = value.as_array().ok_or("`on` is no list of events")?;
    if names.is_empty() {
        return Err("`on` names no event: leave it out, or leave the channel out".to_owned());
    }
    names
        .iter()
        .map(|name| match name.as_str().and_then(Event::parse) {
            Some(Event::Test) if is_ping => Err("`on`: `test` would count as a success there".to_owned()),
            Some(event) => Ok(event),
            None => {
                let all: Vec<&str> = Event::ALL.into_iter().map(Event::as_str).collect();
                Err(format!("`on` names {name}, which is no event; there are `{}`", all.join("`, `")))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(value: &Value) -> String {
        let error = Channel::parse(value).expect_err("refused");
        assert!(!error.contains("sesame"), "{error}");
        error
    }

    #[test]
    fn a_key_that_nobody_knows_is_named() {
        for value in [
            json!({"kind": "command", "command": "sesame", "comand": "sesame"}),
            json!({"kind": "webhook", "url": "https://example.org/sesame", "comand": "sesame"}),
            json!({"kind": "ntfy", "url": "https://example.org/sesame", "comand": "sesame"}),
            json!({"kind": "telegram", "token": "sesame", "chat": "sesame", "comand": "sesame"}),
            json!({"kind": "email", "comand": "sesame"}),
            json!({"kind": "ping", "url": "https://example.org/sesame", "comand": "sesame"}),
        ] {
            let error = refused(&value);
            let kind = value["kind"].as_str().expect("text");
            assert!(error.starts_with(&format!("{kind}: ")) && error.contains("`comand`"), "{error}");
        }
        assert!(refused(&json!({"kind": "command", "command": "x", "command_file": "/x"})).contains("`command_file`"));
        assert!(refused(&json!({"kind": "ping", "url": "https://example.org", "token": "x"})).contains("`token`"));
    }

    #[test]
    fn what_is_missing_or_makes_no_sense_is_said_without_its_value() {
        let mail = |more: Value| {
            let mut mail = json!({"kind": "email", "server": "mail.example.org", "from": "a@example.org",
                "to": "b@example.org", "user": "me", "password": "sesame"});
            let mail_fields = mail.as_object_mut().expect("an object");
            for (key, value) in more.as_object().expect("an object") {
                if value.is_null() {
                    mail_fields.remove(key)
                } else {
                    mail_fields.insert(key.clone(), value.clone())
                };
            }
            mail
        };
        Channel::parse(&mail(json!({}))).expect("a channel");
        Channel::parse(&mail(json!({"to": ["B <b@example.org>", "c@example.org"], "tls": "tls", "port": 2465})))
            .expect("a channel");
        Channel::parse(&mail(json!({"server": "::1", "tls": "none"}))).expect("a channel");
        for (value, word) in [
            (json!("sesame"), "object"),
            (json!({"command": "sesame"}), "`kind`"),
            (json!({"kind": "sesame"}), "`kind`"),
            (json!({"kind": 1}), "`kind`"),
            (json!({"kind": "command"}), "`command`"),
            (json!({"kind": "command", "command": " "}), "`command`"),
            (json!({"kind": "command", "command": ["sesame"]}), "`command`"),
            (json!({"kind": "command", "command": "sesame\0"}), "`command`"),
            (json!({"kind": "command", "command": "x", "on": []}), "`on`"),
            (json!({"kind": "command", "command": "x", "on": "stale"}), "`on`"),
            (json!({"kind": "command", "command": "x", "on": ["stale", "stael"]}), "stael"),
            (json!({"kind": "webhook"}), "`url_file`"),
            (json!({"kind": "webhook", "url": "https://x.org/sesame", "url_file": "/sesame"}), "`url_file`"),
            (json!({"kind": "webhook", "url_file": "sesame"}), "`url_file`"),
            (json!({"kind": "webhook", "url": "http://example.org/sesame"}), "TLS"),
            (json!({"kind": "webhook", "url": "https://example.org/sesame", "secret": 7}), "`secret`"),
            (json!({"kind": "webhook", "url": "https://example.org/", "secret": "sesame\r\nX: y"}), "`secret`"),
            (json!({"kind": "ntfy", "url": "https://example.org/"}), "topic"),
            (json!({"kind": "ntfy", "url": "https://example.org/sesame,b"}), "topic"),
            (json!({"kind": "telegram", "chat": 1}), "`token_file`"),
            (json!({"kind": "telegram", "token": "sesame"}), "`chat`"),
            (json!({"kind": "telegram", "token": "sesame", "chat": 1.5}), "`chat`"),
            (json!({"kind": "telegram", "token": "1:sesame/../x", "chat": 1}), "`token`"),
            (json!({"kind": "telegram", "token": "sesame", "chat": 1, "base": "https://example.org"}), "`base`"),
            (json!({"kind": "telegram", "token": "sesame", "chat": 1, "base": "http://example.org"}), "`base`"),
            (json!({"kind": "ping"}), "`url`"),
            (json!({"kind": "ping", "url": "https://example.org/sesame", "on": ["test"]}), "`test`"),
            (mail(json!({"server": null})), "`server`"),
            (mail(json!({"server": "a b"})), "`server`"),
            (mail(json!({"tls": "none"})), "`tls`"),
            (mail(json!({"tls": "none", "server": "localhost"})), "`tls`"),
            (mail(json!({"tls": "ssl"})), "`tls`"),
            (mail(json!({"port": 0})), "`port`"),
            (mail(json!({"port": 65536})), "`port`"),
            (mail(json!({"user": null})), "`user`"),
            (mail(json!({"password": null})), "`password_file`"),
            (mail(json!({"from": "sesame"})), "`from`"),
            (mail(json!({"from": "a@example.org\r\nBcc: sesame@example.org"})), "`from`"),
            (mail(json!({"to": []})), "`to`"),
            (mail(json!({"to": ["a@example.org\nBcc: sesame@example.org"]})), "`to`"),
            (mail(json!({"to": ["b@example.org", 7]})), "`to`"),
            (mail(json!({"to": vec!["b@example.org"; 21]})), "`to`"),
        ] {
            let error = refused(&value);
            assert!(error.contains(word), "{value}: {error}");
        }
    }

    #[test]
    fn what_it_is_told_by_default_and_by_name() {
        let told = |value: Value| {
            let channel = Channel::parse(&value).expect("a channel");
            Event::ALL.into_iter().filter(|event| channel.wants(*event)).collect::<Vec<_>>()
        };
        let usual = [&Event::ALL[..9], &[Event::Test]].concat();
        assert_eq!(told(json!({"kind": "command", "command": "x"})), usual);
        assert_eq!(told(json!({"kind": "ping", "url": "https://example.org/x"})), Event::ALL[..10]);
        let some = json!({"kind": "command", "command": "x", "on": ["stale", "backup_ok"]});
        assert_eq!(told(some), [Event::Stale, Event::BackupOk, Event::Test]);
    }

    #[test]
    fn it_is_described_by_kind_and_host_only() {
        for (value, expected) in [
            (json!({"kind": "command", "command": "echo sesame"}), "command"),
            (
                json!({"kind": "webhook", "url": "https://example.org/sesame", "secret": "sesame"}),
                "webhook (example.org)",
            ),
            (json!({"kind": "webhook", "url_file": "/run/sesame"}), "webhook"),
            (json!({"kind": "ntfy", "url": "https://ntfy.sh/sesame", "token": "sesame"}), "ntfy (ntfy.sh)"),
            (json!({"kind": "telegram", "token": "sesame", "chat": "@c"}), "telegram (api.telegram.org)"),
            (json!({"kind": "ping", "url": "https://hc-ping.com/sesame"}), "ping (hc-ping.com)"),
            (
                json!({"kind": "email", "server": "mail.example.org", "user": "me", "password": "sesame",
                    "from": "a@example.org", "to": "b@example.org"}),
                "email (mail.example.org)",
            ),
        ] {
            let channel = Channel::parse(&value).expect("a channel");
            assert_eq!(channel.describe(), expected);
            assert_eq!(format!("{channel:?}"), format!("Channel({expected})"));
        }
    }
}
