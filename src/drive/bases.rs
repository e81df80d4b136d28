//! Where Google's services are: one struct, so that a test puts a server of its own in the place of all of them.
//!
//! Without TLS only this very machine is talked to: another address in `NBAK_GOOGLE_BASE` would send tokens, and
//! backups, in the clear to whoever set the variable (S18).

use reqwest::Url;
use url::Host;

use crate::error::{Error, Result};

/// Replaces all addresses; for loopback only.
pub const VARIABLE: &str = "NBAK_GOOGLE_BASE";

/// The addresses of the services.
#[derive(Debug, Clone)]
pub struct Bases {
    /// Drive: `/drive/v3` and `/upload/drive/v3` are below it.
    pub api: Url,
    /// Gives tokens.
    pub token: Url,
    /// Begins the flow for devices.
    pub device: Url,
    /// Takes tokens back.
    pub revoke: Url,
    /// Asks the person.
    pub consent: Url,
}

impl Bases {
    /// Google's, or the one that the environment names.
    pub fn from_env() -> Result<Bases> {
        match std::env::var(VARIABLE) {
            Ok(base) if !base.is_empty() => Bases::loopback(&base),
            _ => Ok(Bases::google()),
        }
    }

    /// Google's own.
    pub fn google() -> Bases {
        let parse = |text| Url::parse(text).expect("the address is a constant and well formed");
        Bases {
            api: parse("https://www.googleapis.com/"),
            token: parse("https://oauth2.googleapis.com/token"),
            device: parse("https://oauth2.googleapis.com/device/code"),
            revoke: parse("https://oauth2.googleapis.com/revoke"),
            consent: parse("https://accounts.google.com/o/oauth2/v2/auth"),
        }
    }

    /// All of them on one server of this machine.
    pub fn loopback(base: &str) -> Result<Bases> {
        let refused = |why: &str| {
            Error::usage(format!("{VARIABLE} is `{base}`: {why}"))
                .hint("it is for tests: http://127.0.0.1:PORT, or nothing")
        };
        let url = Url::parse(base).map_err(|error| refused(&error.to_string()))?;
        let is_here = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            // A name may lead anywhere.
            _ => false,
        };
        if url.scheme() != "http" || !is_here || url.path() != "/" || url.query().is_some() {
            return Err(refused("only an address of this very machine is accepted"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("it carries a name or a password"));
        }
        let at = |path| url.join(path).map_err(|error| refused(&error.to_string()));
        Ok(Bases {
            token: at("/token")?,
            device: at("/device/code")?,
            revoke: at("/revoke")?,
            consent: at("/o/oauth2/v2/auth")?,
            api: url,
        })
    }

    /// Whether this is a server on this very machine.
    pub fn is_loopback(&self) -> bool {
        self.api.scheme() == "http"
    }

    /// Whether an upload may go on at `address`, which an answer named: a token goes there, and all of the data.
    pub fn may_upload_to(&self, address: &Url) -> bool {
        let is_googles = address.scheme() == "https"
            && self.api.scheme() == "https"
            && address.host_str().is_some_and(|host| host == "googleapis.com" || host.ends_with(".googleapis.com"))
            && address.port().is_none();
        address.origin() == self.api.origin() || is_googles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_talked_to_without_tls() {
        for base in ["http://127.0.0.1:8080", "http://127.0.0.1:1/", "http://[::1]:9"] {
            Bases::loopback(base).expect(base);
        }
        for base in [
            "https://127.0.0.1:1",
            "http://localhost:1",
            "http://example.org",
            "http://127.0.0.1.example.org",
            "http://10.0.0.1:1",
            "http://me@127.0.0.1:1",
            "http://127.0.0.1:1/path",
            "ftp://127.0.0.1",
            "127.0.0.1:1",
            "x",
        ] {
            assert!(Bases::loopback(base).is_err(), "{base}");
        }
    }

    #[test]
    fn uploads_stay_with_the_service() {
        let url = |text: &str| Url::parse(text).expect("an address");
        let google = Bases::google();
        assert!(google.may_upload_to(&url("https://www.googleapis.com/upload/x?upload_id=1")));
        assert!(google.may_upload_to(&url("https://storage.googleapis.com/x")));
        for other in ["http://www.googleapis.com/x", "https://googleapis.com.example.org/x", "https://example.org/"] {
            assert!(!google.may_upload_to(&url(other)), "{other}");
        }
        let here = Bases::loopback("http://127.0.0.1:7").expect("loopback");
        assert!(here.may_upload_to(&url("http://127.0.0.1:7/session/1")));
        assert!(!here.may_upload_to(&url("http://127.0.0.1:8/session/1")));
        assert!(!here.may_upload_to(&url("https://www.googleapis.com/x")));
    }
}
