//! Notices, by every kind of channel, to real servers on loopback: what arrives and in which form, what is tried again
//! and what is not, that nothing keeps anything else back, and that no secret is told.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::notice_common::smtp::{self, Manner};
use crate::notice_common::web::{Answer, Seen, Server};
use crate::notice_common::{QUICK, channels, is_inside, notice, tell, tls};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use nbak::notice::{Channels, Event, Outcome};
use serde_json::{Value, json};
use sha2::Sha256;

fn is_ok(outcome: &Outcome, tries: u32) {
    assert_eq!((outcome.tries, outcome.error.as_deref()), (tries, None));
}

fn is_not(outcome: &Outcome, tries: u32, why: &str) {
    let error = outcome.error.as_deref().expect("an error");
    assert!(outcome.tries == tries && error.contains(why), "{outcome:?}");
    for secret in ["sesame", "127.0.0.1", "://", "never repeat"] {
        assert!(!error.contains(secret), "{outcome:?}");
    }
    assert!(!outcome.channel.contains("sesame"), "{outcome:?}");
}

fn is_signed(seen: &Seen, secret: &str) {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(format!("{}.", seen.header("x-nbak-timestamp")).as_bytes());
    mac.update(&seen.body);
    let digits = seen.header("x-nbak-signature").strip_prefix("sha256=").expect("a signature");
    assert!(digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{digits}");
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits");
    let bytes: Vec<u8> = (0..64).step_by(2).map(byte).collect();
    mac.verify_slice(&bytes).expect("signed with the secret");
    let sent: i64 = seen.header("x-nbak-timestamp").parse().expect("a number");
    let now = jiff::Timestamp::now().as_second();
    assert!((now - 60..=now).contains(&sent), "{sent}");
}

#[test]
fn a_webhook_gets_the_notice_signed() {
    let server = Server::start(&[]);
    let channel = json!({"kind": "webhook", "url": server.at("/sesame?a=b"), "secret": "sesame-hmac"});
    let outcome = tell(&channel, &notice(Event::BackupFailed));
    is_ok(&outcome, 1);
    assert_eq!(outcome.channel, "webhook (127.0.0.1)");
    let seen = server.only();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/sesame?a=b"));
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(
        seen.json(),
        json!({"event": "backup_failed", "host": "attic", "data_dir": "/srv/data", "title": "Backup failed: Überlauf",
            "text": "The disk is full.\nFree some space.", "when_ms": 1_700_000_000_000_i64,
            "facts": {"exit code": "1"}})
    );
    is_signed(&seen, "sesame-hmac");
    // Without a secret there is no signature that could be taken for one.
    is_ok(&tell(&json!({"kind": "webhook", "url": server.at("/")}), &notice(Event::Test)), 1);
    assert!(!server.seen()[1].headers.contains_key("x-nbak-signature"));
}

#[test]
fn what_passes_is_tried_three_times() {
    let channel = |server: &Server| json!({"kind": "webhook", "url": server.at("/sesame"), "secret": "sesame-hmac"});
    let server = Server::statuses(&[500, 503]);
    is_ok(&tell(&channel(&server), &notice(Event::Stale)), 3);
    let seen = server.seen();
    for seen in &seen {
        is_signed(seen, "sesame-hmac");
    }
    let ids: Vec<&str> = seen.iter().map(|seen| seen.header("x-nbak-delivery")).collect();
    assert!(ids[0].len() == 32 && ids == [ids[0]; 3], "{ids:?}");

    let server = Server::statuses(&[500; 9]);
    is_not(&tell(&channel(&server), &notice(Event::Stale)), 3, "status 500, 3 times");
    assert_eq!(server.seen().len(), 3);

    let server = Server::breaking(2);
    is_ok(&tell(&channel(&server), &notice(Event::Stale)), 3);
    assert_eq!((server.seen().len(), server.breaks_left()), (1, 0));
    let server = Server::breaking(9);
    is_not(&tell(&channel(&server), &notice(Event::Stale)), 3, "connection broke, 3 times");
    assert_eq!(server.breaks_left(), 6);

    let gone = channel(&Server::start(&[]));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(tell(&gone, &notice(Event::Stale)).tries, 3);
}

#[test]
fn what_is_configured_otherwise_is_tried_no_more_than_three_times() {
    let server = Server::statuses(&[500; 20]);
    let all = json!([{"kind": "webhook", "url": server.at("/")}]);
    let patience = nbak::notice::Patience { tries: 10, ..QUICK };
    let outcomes = Channels::parse(&all).expect("channels").with_patience(patience).send(&notice(Event::Stale));
    assert_eq!((outcomes[0].tries, server.seen().len()), (3, 3));
}

#[test]
fn what_does_not_pass_is_not_tried_again() {
    for status in [400, 401, 403, 404, 405, 410, 413] {
        for kind in 0..4 {
            let server = Server::statuses(&[status]);
            let channel = [
                json!({"kind": "webhook", "url": server.at("/sesame"), "secret": "sesame-hmac"}),
                json!({"kind": "ntfy", "url": server.at("/sesame"), "token": "sesame-token"}),
                json!({"kind": "telegram", "base": server.at("/"), "token": "1:sesame-token", "chat": 7}),
                json!({"kind": "ping", "url": server.at("/sesame")}),
            ];
            is_not(&tell(&channel[kind], &notice(Event::Stale)), 1, &format!("status {status}"));
            server.only();
        }
    }
}

#[test]
fn a_refusal_is_explained_without_the_key() {
    let server = Server::statuses(&[401, 401, 403, 404, 400]);
    let telegram = json!({"kind": "telegram", "base": server.at("/"), "token": "1:sesame-token", "chat": "@c"});
    is_not(&tell(&telegram, &notice(Event::Stale)), 1, "the token is not accepted");
    let ntfy = json!({"kind": "ntfy", "url": server.at("/sesame"), "token": "sesame-token"});
    is_not(&tell(&ntfy, &notice(Event::Stale)), 1, "look at the token");
    is_not(&tell(&telegram, &notice(Event::Stale)), 1, "may not write");
    is_not(&tell(&json!({"kind": "ping", "url": server.at("/sesame")}), &notice(Event::Stale)), 1, "this address");
    is_not(&tell(&telegram, &notice(Event::Stale)), 1, "no such chat");
}

#[test]
fn nobody_is_sent_elsewhere() {
    for status in [301, 302, 303, 307, 308] {
        let other = Server::start(&[]);
        let server = Server::start(&[Answer::With(status, "location", other.at("/thief"))]);
        let channel = json!({"kind": "ntfy", "url": server.at("/sesame"), "token": "sesame-token"});
        is_not(&tell(&channel, &notice(Event::Stale)), 1, "not followed");
        assert_eq!((server.seen().len(), other.seen().len()), (1, 0));
    }
}

#[test]
fn ntfy_gets_any_text_as_json() {
    let server = Server::start(&[]);
    let channel = json!({"kind": "ntfy", "url": server.at("/push/my-topic_1"), "token": "sesame-token"});
    let mut told = notice(Event::DriveFailed);
    told.title = "Ключ 🔑\r\nX-Evil: yes".to_owned();
    told.text = "日本語 ".repeat(1000);
    is_ok(&tell(&channel, &told), 1);
    is_ok(&tell(&channel, &notice(Event::Recovered)), 1);
    let seen = server.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("POST", "/push/"));
    assert_eq!(seen[0].header("authorization"), "Bearer sesame-token");
    assert!(!seen[0].headers.contains_key("x-evil"));
    let body = seen[0].json();
    assert_eq!((&body["topic"], &body["priority"]), (&json!("my-topic_1"), &json!(4)));
    assert_eq!((&body["title"], &body["tags"]), (&json!("Ключ 🔑 X-Evil: yes"), &json!(["warning", "drive_failed"])));
    let message = body["message"].as_str().expect("text");
    assert!(message.starts_with("日本語") && message.len() <= 4096 && message.contains("host: attic"), "{message}");
    let body = seen[1].json();
    assert_eq!((&body["priority"], &body["tags"][0]), (&json!(3), &json!("white_check_mark")));
}

#[test]
fn telegram_gets_plain_text_of_its_length() {
    let server = Server::start(&[]);
    let base = server.at("");
    let channel = json!({"kind": "telegram", "base": base, "token": "123:sesame_To-ken", "chat": -100_123});
    let mut told = notice(Event::Anomaly);
    is_ok(&tell(&channel, &told), 1);
    told.text = "<b>*_🦀".repeat(3000);
    is_ok(&tell(&channel, &told), 1);
    let seen = server.seen();
    assert_eq!(seen[0].path, "/bot123:sesame_To-ken/sendMessage");
    let body = seen[0].json();
    assert_eq!((&body["chat_id"], &body["parse_mode"]), (&json!(-100_123), &Value::Null));
    assert_eq!(
        body["text"],
        "Backup failed: Überlauf\n\nThe disk is full.\nFree some space.\n\nexit code: 1\nhost: attic\n\
         data directory: /srv/data\ntime: 2023-11-14T22:13:20Z"
    );
    let long = seen[1].json()["text"].as_str().expect("text").to_owned();
    assert!(long.encode_utf16().count() <= 4096 && long.len() > 4000 && long.contains("host: attic"), "{long}");
}

#[test]
fn who_asks_to_wait_is_waited_for_and_not_for_ever() {
    let answer = Answer::With(429, "retry-after", "86400".to_owned());
    let server = Server::start(&[answer.clone(), answer]);
    let channel = json!({"kind": "telegram", "base": server.at(""), "token": "1:sesame", "chat": 7});
    let begun = Instant::now();
    is_ok(&tell(&channel, &notice(Event::Stale)), 3);
    assert!(begun.elapsed() >= 2 * QUICK.longest && begun.elapsed() < QUICK.whole, "{:?}", begun.elapsed());
}

#[test]
fn a_ping_is_success_or_failure_and_nothing_else() {
    let server = Server::start(&[]);
    let channel = json!({"kind": "ping", "url": server.at("/sesame-uuid?create=1")});
    let mut told = notice(Event::BackupFailed);
    told.text = "é".repeat(30_000);
    is_ok(&tell(&channel, &notice(Event::BackupOk)), 1);
    // Neither is the end of some trouble a success, nor a backup beside which something else is wrong.
    is_ok(&tell(&channel, &notice(Event::Recovered)), 1);
    let mut besides = notice(Event::BackupOk);
    besides.facts.insert("trouble".to_owned(), "drill_failed".to_owned());
    is_ok(&tell(&channel, &besides), 1);
    is_ok(&tell(&channel, &told), 1);
    assert!(channels(&[channel]).send(&notice(Event::Test)).is_empty());
    let seen = server.seen();
    let asked: Vec<_> = seen.iter().map(|seen| (seen.method.as_str(), seen.path.as_str())).collect();
    let success = ("GET", "/sesame-uuid?create=1");
    assert_eq!(asked, [success, ("POST", "/sesame-uuid/fail?create=1")]);
    let body = String::from_utf8(seen[1].body.clone()).expect("text");
    assert!(body.starts_with("Backup failed: Überlauf\n\né") && body.len() <= 10_000 && body.len() > 9900, "{body}");
}

#[test]
fn secrets_come_from_files_and_are_told_to_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let server = Server::start(&[]);
    let channel = json!({"kind": "webhook", "url_file": file("url"), "secret_file": file("secret")});
    fs::write(file("url"), server.at("/sesame-path\n")).expect("written");
    is_not(&tell(&channel, &notice(Event::Stale)), 1, "cannot read");
    for secret in ["sesame-one", "sesame-two"] {
        fs::write(file("secret"), secret).expect("written");
        let mut told = notice(Event::Stale);
        told.text = format!("{} {secret} sesame-other", server.at("/sesame-path"));
        let others = json!({"kind": "telegram", "base": server.at(""), "token": "sesame-other", "chat": 1});
        let outcomes = channels(&[channel.clone(), others]).send(&told);
        for outcome in &outcomes {
            is_ok(outcome, 1);
        }
        assert_eq!(outcomes[0].channel, "webhook");
        let seen = server.seen().into_iter().rfind(|seen| seen.path == "/sesame-path").expect("told");
        is_signed(&seen, secret);
        assert_eq!(seen.json()["text"], "[secret] [secret] [secret]");
    }
    fs::write(file("url"), "http://example.org/sesame").expect("written");
    is_not(&tell(&channel, &notice(Event::Stale)), 1, "without TLS");
}

#[test]
fn one_that_hangs_keeps_nobody_back() {
    let (slow, fast) = (Server::start(&[Answer::Hang, Answer::Hang, Answer::Hang]), Server::start(&[]));
    let drip = smtp::Server::start(Manner { drips: true, ..Manner::default() });
    let all = json!([
        {"kind": "webhook", "url": slow.at("/sesame")},
        {"kind": "email", "server": "127.0.0.1", "port": drip.port, "tls": "none", "from": "a@b.org", "to": "c@d.org"},
        {"kind": "command", "command": "sleep 60"},
        {"kind": "webhook", "url": fast.at("/")},
    ]);
    let patience = nbak::notice::Patience {
        step: Duration::from_millis(600),
        command: Duration::from_secs(1),
        whole: Duration::from_secs(3),
        ..QUICK
    };
    let channels = Channels::parse(&all).expect("channels").with_patience(patience);
    let begun = Instant::now();
    let (outcomes, when) = std::thread::scope(|scope| {
        let sent = scope.spawn(|| channels.send(&notice(Event::Stale)));
        while fast.seen().is_empty() && begun.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let when = begun.elapsed();
        (sent.join().expect("sent"), when)
    });
    assert!(when < Duration::from_secs(1), "told only after {when:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    is_not(&outcomes[0], 3, "no answer in time, 3 times");
    assert!(outcomes[1].error.is_some(), "{outcomes:?}");
    is_not(&outcomes[2], 1, "was killed");
    is_ok(&outcomes[3], 1);
}

#[test]
fn two_notices_at_a_time_both_arrive() {
    let server = Server::start(&[]);
    let channels = channels(&[json!({"kind": "webhook", "url": server.at("/")})]);
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for event in [Event::Stale, Event::Anomaly, Event::DriveFailed, Event::BackupFailed] {
            let (channels, barrier) = (&channels, &barrier);
            scope.spawn(move || {
                barrier.wait();
                is_ok(&channels.send(&notice(event))[0], 1);
            });
        }
    });
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn only_who_wants_it_is_told() {
    let server = Server::start(&[]);
    let all = [
        json!({"kind": "webhook", "url": server.at("/stale"), "on": ["stale"]}),
        json!({"kind": "webhook", "url": server.at("/usual")}),
        json!({"kind": "webhook", "url": server.at("/ok"), "on": ["backup_ok", "recovered"]}),
    ];
    let told = |event| channels(&all).send(&notice(event)).into_iter().map(|outcome| outcome.at).collect::<Vec<_>>();
    assert_eq!(told(Event::Stale), [0, 1]);
    assert_eq!(told(Event::BackupOk), [2]);
    assert_eq!(told(Event::Recovered), [1, 2]);
    assert_eq!(told(Event::Test), [0, 1, 2]);
}

#[test]
fn which_channel_is_wrong_is_said() {
    let ok = json!({"kind": "command", "command": "x"});
    let wrong = json!({"kind": "telegram", "token": "sesame", "caht": 1});
    let error = Channels::parse(&json!([ok, wrong])).expect_err("refused");
    assert!(error.contains("channel 2 of 2: telegram: ") && error.contains("`caht`"), "{error}");
    assert!(!error.contains("sesame"), "{error}");
    assert!(Channels::parse(&json!([])).expect("none").is_empty());
    assert!(Channels::parse(&json!({})).is_err() && Channels::parse(&json!(vec![ok; 33])).is_err());
}

fn mail(server: &smtp::Server, more: &[(&str, Value)]) -> Value {
    let mut mail = json!({"kind": "email", "server": "127.0.0.1", "port": server.port, "tls": "none",
        "from": "Nbak <nbak@example.org>", "to": ["Ann <ann@example.org>", "bob@example.org"]});
    for (key, value) in more {
        mail[*key] = value.clone();
    }
    mail
}

/// A header value as RFC 2047 has it, in plain text.
fn decoded(value: &str) -> String {
    let words = value.split(' ').map(|word| {
        let Some(word) = word.strip_prefix("=?utf-8?b?").and_then(|word| word.strip_suffix("?=")) else {
            return (false, word.to_owned());
        };
        (true, String::from_utf8(STANDARD.decode(word).expect("base64")).expect("text"))
    });
    // Between two encoded words a space is none.
    let (mut text, mut last) = (String::new(), true);
    for (is_encoded, word) in words {
        if !(text.is_empty() || last && is_encoded) {
            text.push(' ');
        }
        (text, last) = (text + &word, is_encoded);
    }
    text
}

#[test]
fn an_email_arrives_whole() {
    let server = smtp::Server::start(Manner { offers: vec!["AUTH PLAIN"], ..Manner::default() });
    let login = [("user", json!("me")), ("password", json!("sesame-pass"))];
    let mut told = notice(Event::BackupFailed);
    told.text = "First.\n.\n..\n.hidden\nBcc: nobody@example.org\nLäst.".to_owned();
    is_ok(&tell(&mail(&server, &login), &told), 1);
    let session = server.sessions().remove(0);
    let lines = session.lines();
    let auth = STANDARD.encode("\0me\0sesame-pass");
    assert_eq!(lines[1], format!("AUTH PLAIN {auth}"));
    assert!(lines[2].starts_with("MAIL FROM:<nbak@example.org>"), "{lines:?}");
    assert_eq!(lines[3..6], ["RCPT TO:<ann@example.org>", "RCPT TO:<bob@example.org>", "DATA"]);
    let (head, body) = session.mail();
    let head: BTreeMap<_, _> = head.iter().filter_map(|line| line.split_once(": ")).collect();
    assert_eq!(decoded(head["Subject"]), "Backup failed: Überlauf");
    assert!(head["Subject"].is_ascii() && head["From"].contains("<nbak@example.org>"), "{head:?}");
    assert!(head["To"].contains("ann@example.org") && head["To"].contains("bob@example.org"), "{head:?}");
    assert!(head["Date"].starts_with("Tue, 14 Nov 2023 22:13:20") && head["Auto-Submitted"] == "auto-generated");
    assert!(head["Message-ID"].ends_with("@example.org>") && head["Content-Type"].contains("utf-8"), "{head:?}");
    let body = match head["Content-Transfer-Encoding"] {
        "quoted-printable" => body.replace("=\r\n", "").replace("=C3=A4", "ä"),
        "base64" => String::from_utf8(STANDARD.decode(body.replace("\r\n", "")).expect("base64")).expect("text"),
        _ => body,
    };
    let expected = told.text.replace('\n', "\r\n") + "\r\n\r\nexit code: 1\r\nhost: attic\r\n";
    assert!(body.starts_with(&expected), "{body}");
}

#[test]
fn no_title_becomes_a_header() {
    let server = smtp::Server::start(Manner::default());
    for (title, expected) in [
        ("a\r\nBcc: evil@example.org\r\n\r\nbody", "a Bcc: evil@example.org body"),
        ("a\nBcc: evil@example.org", "a Bcc: evil@example.org"),
        ("a\rBcc: evil@example.org", "a Bcc: evil@example.org"),
        ("Ä\u{2028}\u{85}\0Bcc: evil@example.org", "Ä Bcc: evil@example.org"),
        ("=?utf-8?q?x?=\r\n.\r\nMAIL FROM:<evil@example.org>", "=?utf-8?q?x?= . MAIL FROM:<evil@example.org>"),
        (&"Größe 日本語 🦀 ".repeat(10), "Größe 日本語 🦀 ".repeat(10).trim_end()),
    ] {
        let before = server.sessions().len();
        let mut told = notice(Event::BackupFailed);
        told.title = title.to_owned();
        told.facts.insert("a\r\nBcc: evil@example.org".to_owned(), "b".to_owned());
        is_ok(&tell(&mail(&server, &[]), &told), 1);
        let session = server.sessions().remove(before);
        assert_eq!(session.commands.iter().filter(|(_, line)| line.starts_with("RCPT")).count(), 2);
        assert_eq!(session.commands.iter().filter(|(_, line)| line.starts_with("MAIL")).count(), 1);
        let (head, body) = session.mail();
        let subject = head.iter().find_map(|line| line.strip_prefix("Subject: ")).expect("a subject");
        assert!(!head.iter().any(|line| line.to_lowercase().starts_with("bcc")), "{head:?}");
        assert!(subject.is_ascii() && !body.starts_with("body"), "{subject}");
        if !title.starts_with("=?") {
            assert_eq!(decoded(subject), expected);
        }
    }
}

#[test]
fn a_mail_server_that_refuses_is_asked_again_only_if_it_may_pass() {
    let order = |answers: &[(&'static str, &'static str)]| {
        smtp::Server::start(Manner { offers: vec!["AUTH PLAIN"], answers: answers.to_vec(), ..Manner::default() })
    };
    let server = order(&[("RCPT", "451 sesame later"), ("MAIL", "421 sesame later")]);
    is_ok(&tell(&mail(&server, &[]), &notice(Event::Stale)), 3);
    let server = order(&[("RCPT", "550 sesame no")]);
    is_not(&tell(&mail(&server, &[]), &notice(Event::Stale)), 1, "refuses (550)");
    assert!(server.sessions().iter().all(|session| session.data.is_none()));
    let server = order(&[("AUTH", "535 sesame no")]);
    let login = [("user", json!("me")), ("password", json!("sesame-pass"))];
    is_not(&tell(&mail(&server, &login), &notice(Event::Stale)), 1, "user and password (535)");
    assert_eq!(server.sessions().len(), 1);
}

#[test]
fn without_tls_a_server_elsewhere_hears_nothing_but_ehlo() {
    let server = smtp::Server::start(Manner { offers: vec!["AUTH PLAIN"], ..Manner::default() });
    let login = [("tls", json!("starttls")), ("user", json!("me")), ("password", json!("sesame-pass"))];
    is_not(&tell(&mail(&server, &login), &notice(Event::Stale)), 1, "STARTTLS");
    let session = server.sessions().remove(0);
    assert!(session.lines().iter().all(|line| line.starts_with("EHLO") || *line == "QUIT"), "{session:?}");
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    for (cover, offers, tls) in [("tls", vec![], true), ("starttls", vec!["STARTTLS", "AUTH PLAIN"], false)] {
        let server = smtp::Server::start(Manner { offers, tls, ..Manner::default() });
        let login = [("tls", json!(cover)), ("user", json!("me")), ("password", json!("sesame-pass"))];
        is_not(&tell(&mail(&server, &login), &notice(Event::Stale)), 1, "vouches for its certificate");
        assert!(!server.sessions().iter().any(|session| session.has("AUTH") || session.has("MAIL")));
        let webhook = json!({"kind": "webhook", "url": format!("https://127.0.0.1:{}/sesame", server.port)});
        assert!(!tell(&webhook, &notice(Event::Stale)).is_told());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn under_tls_a_mail_goes_through() {
    if !is_inside(own_name!("under_tls_a_mail_goes_through"), &[("SSL_CERT_FILE", &tls::authority())]) {
        return;
    }
    for (cover, offers, tls) in [("tls", vec!["AUTH LOGIN"], true), ("starttls", vec!["STARTTLS", "AUTH PLAIN"], false)]
    {
        let server = smtp::Server::start(Manner { offers, tls, ..Manner::default() });
        let login = [("tls", json!(cover)), ("user", json!("me")), ("password", json!("sesame-pass"))];
        let login = if cover == "tls" { &login[..1] } else { &login[..] };
        is_ok(&tell(&mail(&server, login), &notice(Event::Stale)), 1);
        let session = server.sessions().remove(0);
        assert!(session.data.is_some(), "{session:?}");
        let clear: Vec<_> = session.commands.iter().filter(|(covered, _)| !covered).map(|(_, line)| line).collect();
        assert!(clear.iter().all(|line| line.starts_with("EHLO") || *line == "STARTTLS"), "{session:?}");
    }
}

#[test]
fn what_goes_to_this_machine_passes_by_every_proxy() {
    let proxy = Server::start(&[]);
    let name = own_name!("what_goes_to_this_machine_passes_by_every_proxy");
    let at = proxy.at("");
    if is_inside(name, &[("HTTP_PROXY", &at), ("http_proxy", &at), ("ALL_PROXY", &at), ("NO_PROXY", "")]) {
        let server = Server::start(&[]);
        is_ok(&tell(&json!({"kind": "ntfy", "url": server.at("/t"), "token": "sesame"}), &notice(Event::Test)), 1);
        server.only();
    }
    assert!(proxy.seen().is_empty());
}

#[test]
fn a_command_gets_the_notice_and_no_key() {
    let keys = [
        ("NODYN_VAULT_KEY", "sesame-nodyn"),
        ("LYNOX_VAULT_KEY", "sesame-lynox"),
        ("GOOGLE_CLIENT_SECRET", "sesame-google"),
        ("HARMLESS", "yes"),
    ];
    if !is_inside(own_name!("a_command_gets_the_notice_and_no_key"), &keys) {
        return;
    }
    assert_eq!(std::env::var("NODYN_VAULT_KEY").as_deref(), Ok("sesame-nodyn"));
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let line = format!("cat > '{}'; env > '{}'", at("stdin").display(), at("env").display());
    let mut told = notice(Event::DrillFailed);
    told.title = "$(touch /x) `y` \"z\" ' \0 ü".to_owned();
    let outcome = tell(&json!({"kind": "command", "command": line}), &told);
    is_ok(&outcome, 1);
    assert_eq!(outcome.channel, "command");
    let stdin: Value = serde_json::from_slice(&fs::read(at("stdin")).expect("written")).expect("JSON");
    assert_eq!((&stdin["event"], &stdin["facts"]["exit code"]), (&json!("drill_failed"), &json!("1")));
    let env = fs::read_to_string(at("env")).expect("written");
    assert!(env.contains("NBAK_EVENT=drill_failed\n") && env.contains("HARMLESS=yes\n"), "{env}");
    assert!(env.contains("NBAK_TITLE=$(touch /x) `y` \"z\" ' ü\n"), "{env}");
    assert!(!env.contains("sesame"), "{env}");
}

#[test]
fn a_command_that_hangs_is_killed_with_its_children() {
    let folder = tempfile::tempdir().expect("a folder");
    let beat = folder.path().join("beat");
    let loops = format!("while :; do echo x >> '{}'; sleep 0.02; done", beat.display());
    let all = json!([{"kind": "command", "command": format!("({loops}) & {loops}")}]);
    let patience = nbak::notice::Patience { command: Duration::from_millis(500), ..QUICK };
    let begun = Instant::now();
    let outcomes = Channels::parse(&all).expect("channels").with_patience(patience).send(&notice(Event::Stale));
    is_not(&outcomes[0], 1, "was killed");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let length = || fs::metadata(&beat).map_or(0, |meta| meta.len());
    let then = length();
    std::thread::sleep(Duration::from_millis(400));
    assert!(then > 0 && length() == then, "something of it still runs");
}

#[test]
fn a_command_that_does_not_read_keeps_nobody() {
    let mut told = notice(Event::Stale);
    told.text = "\"".repeat(200_000);
    is_ok(&tell(&json!({"kind": "command", "command": "sleep 0.2"}), &told), 1);
    is_ok(&tell(&json!({"kind": "command", "command": "exec <&-; sleep 0.2"}), &told), 1);
    let patience = nbak::notice::Patience { command: Duration::from_millis(300), ..QUICK };
    let begun = Instant::now();
    let hangs = channels(&[json!({"kind": "command", "command": "sleep 8"})]).with_patience(patience);
    is_not(&hangs.send(&told)[0], 1, "was killed");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // What reads slowly gets all of it.
    is_ok(&tell(&json!({"kind": "command", "command": "sleep 0.2; test $(wc -c) -gt 90000"}), &told), 1);
}

#[test]
fn a_command_that_fails_is_run_again_if_there_is_hope() {
    let folder = tempfile::tempdir().expect("a folder");
    let runs = folder.path().join("runs");
    let line = |rest: &str| json!({"kind": "command", "command": format!("echo x >> '{}'; {rest}", runs.display())});
    is_ok(&tell(&line(&format!("test $(wc -l < '{}') -ge 3", runs.display())), &notice(Event::Stale)), 3);
    is_not(&tell(&line("exit 7"), &notice(Event::Stale)), 3, "ended with 7, 3 times");
    is_not(&tell(&line("kill -9 $$"), &notice(Event::Stale)), 3, "signal 9");
    is_not(&tell(&line("no-such-program-sesame"), &notice(Event::Stale)), 1, "127");
}
