//! A server that means harm: answers which no honest server would give. A client must neither believe nor follow
//! them, and above all must not be led to write outside of its folder, fill the memory, or show its token elsewhere.

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::{Value, json};

use super::reply::{Payload, Reply};
use super::request::Req;

/// One way to mean harm. Where a kind of request is named, `*` stands for all of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Hostile {
    /// Every listing also has files of these names, in the folder that was asked for.
    InjectNames(Vec<String>),
    /// Every listing also has these entries, as they are.
    InjectEntries(Vec<Value>),
    /// The size in all metadata is this.
    WrongSize(String),
    /// The checksums in all metadata are wrong.
    WrongChecksum,
    /// Every listing says that there is another page.
    EndlessPages,
    /// Requests of this kind are sent on, with 302, to the same path on this base.
    Redirect(String, String),
    /// Requests of this kind get a body of so many bytes, without a `Content-Length`.
    Giant(String, u64),
    /// In the answers to this kind, the values at this depth have another JSON type; depth 0 is the answer itself.
    WrongTypes(String, u8),
    /// Downloads have so many bytes more than the file, with an honest `Content-Length`.
    LongMedia(usize),
    /// The session's `Location` is on this base.
    SessionElsewhere(String),
    /// Requests of this kind get this status and this body, said to be JSON.
    Canned(String, u16, Vec<u8>),
}

fn fits(wanted: &str, kind: &str) -> bool {
    wanted == "*" || wanted == kind
}

/// The answer that takes the place of the honest one, when there is one for this kind.
pub(super) fn instead(all: &[Hostile], kind: &str, req: &Req) -> Option<Reply> {
    all.iter().find_map(|hostile| match hostile {
        Hostile::Redirect(wanted, base) if fits(wanted, kind) => {
            let mark = if req.raw_query.is_empty() { "" } else { "?" };
            Some(Reply::redirect(format!("{base}{}{mark}{}", req.path, req.raw_query)))
        }
        Hostile::Giant(wanted, bytes) if fits(wanted, kind) => {
            let mime = "application/json; charset=UTF-8";
            Some(Reply::stream(200, giant(*bytes)).with("content-type", mime.into()))
        }
        Hostile::Canned(wanted, status, body) if fits(wanted, kind) => {
            Some(Reply::bytes(*status, "application/json; charset=UTF-8", body.clone()))
        }
        _ => None,
    })
}

/// A body of so many bytes that begins as a listing and never leaves the name of its first file.
fn giant(bytes: u64) -> Body {
    const HEAD: &[u8] = b"{\"files\":[{\"id\":\"x\",\"name\":\"";
    let filler = Bytes::from(vec![b'a'; 64 * 1024]);
    Body::from_stream(stream::unfold(0_u64, move |sent| {
        let filler = filler.clone();
        async move {
            if sent >= bytes {
                return None;
            }
            let mut chunk = if sent == 0 { Bytes::from_static(HEAD) } else { filler };
            chunk.truncate((bytes - sent).min(chunk.len() as u64) as usize);
            let sent = sent + chunk.len() as u64;
            Some((Ok::<_, std::io::Error>(chunk), sent))
        }
    }))
}

/// Twists an honest answer.
pub(super) fn twist(all: &[Hostile], kind: &str, reply: &mut Reply) {
    for hostile in all {
        if let Hostile::SessionElsewhere(base) = hostile
            && kind == "upload.start"
        {
            for (name, value) in &mut reply.headers {
                if *name == "location"
                    && let Some(at) = value.find("/upload/")
                {
                    *value = format!("{base}{}", &value[at..]);
                }
            }
        }
        let Payload::Json(value) = &mut reply.payload else {
            continue;
        };
        if reply.status != 200 {
            continue;
        }
        match hostile {
            Hostile::WrongSize(size) => each_file(value, |file| file["size"] = json!(size)),
            Hostile::WrongChecksum => each_file(value, |file| {
                for name in ["md5Checksum", "sha256Checksum"] {
                    if let Some(Value::String(sum)) = file.get_mut(name) {
                        let flipped = if sum.starts_with('0') { "1" } else { "0" };
                        sum.replace_range(0..1, flipped);
                    }
                }
            }),
            Hostile::EndlessPages if kind == "files.list" => value["nextPageToken"] = json!("endless"),
            Hostile::WrongTypes(wanted, depth) if fits(wanted, kind) => wrong_types(value, *depth),
            _ => {}
        }
    }
}

/// The entries that are added to a listing of this folder.
pub(super) fn injected(all: &[Hostile], parent: &str) -> Vec<Value> {
    let mut entries = Vec::new();
    for hostile in all {
        match hostile {
            Hostile::InjectNames(names) => entries.extend(names.iter().enumerate().map(|(number, name)| {
                json!({
                    "kind": "drive#file", "id": format!("injected-{number}"), "name": name, "size": "4",
                    "mimeType": "application/octet-stream", "parents": [parent], "trashed": false,
                    "md5Checksum": "098f6bcd4621d373cade4e832627b4f6",
                    "sha256Checksum": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "createdTime": "2025-01-01T00:00:00.000Z", "modifiedTime": "2025-01-01T00:00:00.000Z",
                })
            })),
            Hostile::InjectEntries(more) => entries.extend(more.iter().cloned()),
            _ => {}
        }
    }
    entries
}

/// Calls this on every file's metadata within an answer; folders have no sizes and are left alone.
fn each_file(value: &mut Value, mut change: impl FnMut(&mut Value)) {
    let is_file = |value: &Value| value.get("id").is_some() && value.get("size").is_some();
    if is_file(value) {
        change(value);
    }
    if let Some(Value::Array(files)) = value.get_mut("files") {
        files.iter_mut().filter(|file| is_file(file)).for_each(change);
    }
}

fn wrong_types(value: &mut Value, depth: u8) {
    match value {
        Value::Array(items) if depth > 0 => items.iter_mut().for_each(|item| wrong_types(item, depth)),
        Value::Object(object) if depth > 0 => object.values_mut().for_each(|inner| wrong_types(inner, depth - 1)),
        _ if depth > 0 => {}
        Value::String(_) => *value = json!(7),
        Value::Number(_) => *value = json!("seven"),
        Value::Bool(_) => *value = json!({ "no": "truth" }),
        Value::Array(_) => *value = json!({ "no": "list" }),
        Value::Object(_) | Value::Null => *value = json!([7]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_change_at_their_depth() {
        let honest = json!({"files": [{"id": "x", "n": 1}], "b": true});
        let twisted = |depth| {
            let mut value = honest.clone();
            wrong_types(&mut value, depth);
            value
        };
        assert_eq!(twisted(0), json!([7]));
        assert_eq!(twisted(1), json!({"files": {"no": "list"}, "b": {"no": "truth"}}));
        assert_eq!(twisted(2), json!({"files": [{"id": 7, "n": "seven"}], "b": true}));
    }
}
