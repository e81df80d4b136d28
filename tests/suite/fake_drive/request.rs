//! One request as the handlers see it: its body already read, its query taken apart, its kind named. Also the small
//! parsers for queries, forms and ranges.

use axum::http::{HeaderMap, Method};

/// One request.
pub(super) struct Req {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) raw_query: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The body broke off before its announced end.
    pub(super) broken: bool,
}

impl Req {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn arg(&self, name: &str) -> Option<&str> {
        lookup(&self.query, name)
    }

    /// The access token, when there is one.
    pub(super) fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    /// The fields of a form body; nothing when the body is not said to be one.
    pub(super) fn form(&self) -> Vec<(String, String)> {
        let is_form =
            self.header("content-type").is_some_and(|mime| mime.starts_with("application/x-www-form-urlencoded"));
        if is_form { parse_form(&String::from_utf8_lossy(&self.body)) } else { Vec::new() }
    }

    /// The last part of the path.
    pub(super) fn last_segment(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or("")
    }

    /// The name under which this request is counted, and can be made to fail.
    pub(super) fn kind(&self) -> &'static str {
        let (path, method) = (self.path.as_str(), self.method.as_str());
        match (method, path) {
            ("GET", "/drive/v3/files") => "files.list",
            ("POST", "/drive/v3/files") => "files.create",
            ("GET", "/drive/v3/files/generateIds") => "files.generateIds",
            ("GET", "/drive/v3/about") => "about",
            ("POST", "/upload/drive/v3/files") => "upload.start",
            ("POST", "/token") => "token",
            ("POST", "/device/code") => "device.code",
            ("POST", "/revoke") => "revoke",
            ("GET", "/o/oauth2/v2/auth") => "auth",
            _ if one_under(path, "/drive/v3/files/") => match method {
                "GET" if self.arg("alt") == Some("media") => "files.media",
                "GET" => "files.get",
                "DELETE" => "files.delete",
                "PATCH" => "files.update",
                _ => "other",
            },
            _ if one_under(path, "/upload/drive/v3/session/") => match method {
                "PUT" if self.header("content-range").is_some_and(|range| range.starts_with("bytes */")) => {
                    "upload.query"
                }
                "PUT" => "upload.put",
                "DELETE" => "upload.cancel",
                _ => "other",
            },
            _ => "other",
        }
    }

    /// A finer name for requests to the token endpoint, by what they ask for.
    pub(super) fn sub_kind(&self) -> &'static str {
        match lookup(&self.form(), "grant_type") {
            Some("refresh_token") => "token.refresh",
            Some("authorization_code") => "token.code",
            Some("urn:ietf:params:oauth:grant-type:device_code") => "token.device",
            _ => "token.other",
        }
    }
}

fn one_under(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
}

/// The first value under a name.
pub(super) fn lookup<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Takes apart a query or a form body.
pub(super) fn parse_form(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let value = hex.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(value) = value {
            out.push(value);
            at += 3;
        } else {
            out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Encodes a value for a query.
pub(super) fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            write!(out, "%{byte:02X}").expect("a string takes all");
        }
    }
    out
}

/// What a `Content-Range` of an upload says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// `bytes */total`: only asks what is stored.
    Ask(Option<u64>),
    /// `bytes first-last/total`.
    Data { first: u64, last: u64, total: Option<u64> },
}

/// Parses a `Content-Range`; nothing when it is malformed.
pub(super) fn parse_content_range(text: &str) -> Option<Part> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let total = if total == "*" { None } else { Some(number(total)?) };
    if range == "*" {
        return Some(Part::Ask(total));
    }
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && total.is_none_or(|total| last < total)).then_some(Part::Data { first, last, total })
}

/// Which part of a download is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    /// From here up to there, which is not included.
    Range(u64, u64),
    /// The range lies outside of the file.
    Outside,
}

/// Parses the `Range` of a download of so many bytes; one that is malformed is as good as none.
pub(super) fn parse_range(text: &str, size: u64) -> Wanted {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Wanted::All;
    };
    let bounds = match (number(first), number(last)) {
        (None, Some(wanted)) if first.is_empty() => (size.saturating_sub(wanted), size),
        (Some(first), None) if last.is_empty() => (first, size),
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        _ => return Wanted::All,
    };
    if bounds.0 < bounds.1 { Wanted::Range(bounds.0, bounds.1) } else { Wanted::Outside }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_ranges() {
        assert_eq!(parse_form("a=1+2%27&b"), [("a".into(), "1 2'".into()), ("b".into(), String::new())]);
        assert_eq!(encode("a b/'"), "a%20b%2F%27");
        assert_eq!(parse_content_range("bytes */7"), Some(Part::Ask(Some(7))));
        assert_eq!(parse_content_range("bytes 0-6/7"), Some(Part::Data { first: 0, last: 6, total: Some(7) }));
        assert_eq!(parse_content_range("bytes 0-7/7"), None);
        assert_eq!(parse_content_range("bytes 3-2/7"), None);
        assert_eq!(parse_range("bytes=2-", 5), Wanted::Range(2, 5));
        assert_eq!(parse_range("bytes=2-3", 5), Wanted::Range(2, 4));
        assert_eq!(parse_range("bytes=-2", 5), Wanted::Range(3, 5));
        assert_eq!(parse_range("bytes=5-", 5), Wanted::Outside);
        assert_eq!(parse_range("lines=5-", 5), Wanted::All);
    }
}
