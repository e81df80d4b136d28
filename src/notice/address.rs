//! Which addresses a notice may go to.
//!
//! Over TLS anywhere, without it to this very machine only: what is told, and often the address itself, is nobody
//! else's business. A name may lead anywhere, so this machine is meant by number. No message repeats an address: it can
//! be a key by itself.

use url::{Host, Url};

/// The address that `text` is, if a notice may go there.
pub(super) fn parse(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no address: {error}"))?;
    match url.scheme() {
        "https" => {}
        "http" if url.host().is_some_and(|host| is_here(&host)) => {}
        "http" => {
            return Err("is without TLS, which is for this very machine only, by its number: make it https".to_owned());
        }
        _ => return Err("is no https address".to_owned()),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("carries a name or a password: leave that out".to_owned());
    }
    if url.fragment().is_some() {
        return Err("has a part behind `#`, which no server sees".to_owned());
    }
    Ok(url)
}

/// Whether that is this machine.
pub(super) fn is_here<S>(host: &Host<S>) -> bool {
    match host {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
        Host::Domain(_) => false,
    }
}

/// `url` with one more segment to its path.
pub(super) fn below(url: &Url, segment: &str) -> Url {
    let mut below = url.clone();
    below.set_path(&format!("{}/{segment}", url.path().trim_end_matches('/')));
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_told_without_tls() {
        for text in ["https://example.org/x?y=z", "http://127.0.0.1:80/", "http://[::1]:9/x", "https://10.0.0.1"] {
            parse(text).expect(text);
        }
        for text in [
            "http://example.org/sesame",
            "http://localhost:1/sesame",
            "http://127.0.0.1.example.org/sesame",
            "http://10.0.0.1/sesame",
            "http://127.0.0.1@example.org/sesame",
            "https://me:sesame@example.org/",
            "https://sesame@example.org/",
            "https://example.org/#sesame",
            "ftp://127.0.0.1/sesame",
            "file:///sesame",
            "sesame",
            "https:///",
            "",
        ] {
            let error = parse(text).expect_err(text);
            assert!(!error.contains("sesame"), "{error}");
        }
    }

    #[test]
    fn what_is_below_keeps_the_question() {
        let of = |text: &str| below(&parse(text).expect("an address"), "fail").to_string();
        assert_eq!(of("https://example.org/a/?create=1"), "https://example.org/a/fail?create=1");
        assert_eq!(of("https://example.org"), "https://example.org/fail");
    }
}
