//! The part of the Drive API that is about files: list, metadata, downloads, folders, changes, deletion.
//! An answer carries every field there is, unless the test asks for Drive's own strictness.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::{Value, json};

use super::clock::{random_word, scramble};
use super::faults::Fault;
use super::hostile::{self, Hostile};
use super::query::{self, Term};
use super::reply::Reply;
use super::request::{Req, Wanted, parse_range};
use super::state::{Content, FOLDER, Meta, ROOT, State, StoredFile};

/// Drive's default choice of fields for one file.
const DEFAULT_FIELDS: &str = "kind,id,name,mimeType";

/// The answer with one file's metadata.
pub(super) fn metadata(state: &State, fields: Option<&str>, file: &StoredFile) -> Reply {
    let value = state.describe(file);
    if state.settings.strict_fields {
        return Reply::json(200, query::only_fields(&value, fields.unwrap_or(DEFAULT_FIELDS)));
    }
    Reply::json(200, value)
}

/// GET of the list.
pub(super) fn list(state: &State, req: &Req) -> Reply {
    let search = req.arg("q").unwrap_or("");
    let Some(terms) = query::parse(search) else {
        return Reply::bad_request("Invalid Value: q");
    };
    if req.arg("spaces").is_some_and(|spaces| spaces != "drive") || req.arg("orderBy").is_some() {
        return Reply::bad_request("Invalid Value: spaces or orderBy");
    }
    let size = match req.arg("pageSize").map_or(Ok(100), str::parse::<usize>) {
        Ok(size @ 1..=1000) => size.min(state.settings.page_cap),
        _ => return Reply::bad_request("Invalid Value: pageSize"),
    };
    // A token holds where the page before ended, and for which search: it fits no other.
    let check = search.bytes().fold(0, |sum, byte| scramble(sum ^ u64::from(byte))) & 0xffff_ffff;
    let after = match req.arg("pageToken") {
        None | Some("endless") => 0,
        Some(token) => match parse_token(token) {
            Some((after, of)) if of == check => after,
            _ => return Reply::bad_request("Invalid Value: pageToken"),
        },
    };
    let parent = terms.iter().find_map(|term| match term {
        Term::In(id) => Some(real_id(id)),
        _ => None,
    });
    if let Some(parent) = parent
        && !state.is_folder(parent)
        && state.hostile.is_empty()
    {
        return Reply::not_found(parent);
    }
    let mut found: Vec<&StoredFile> = state.files.values().filter(|file| file.sequence > after).collect();
    found.retain(|file| terms.iter().all(|term| holds(state, file, term)));
    found.sort_by_key(|file| file.sequence);
    let more = found.len() > size;
    found.truncate(size);
    let mut files: Vec<Value> = found.iter().map(|file| state.describe(file)).collect();
    files.extend(hostile::injected(&state.hostile, parent.unwrap_or(ROOT)));
    let mut answer = json!({
        "kind": "drive#fileList",
        "incompleteSearch": state.settings.incomplete_search,
        "files": files,
    });
    if let (true, Some(last)) = (more, found.last()) {
        answer["nextPageToken"] = json!(format!("~{:x}~{check:x}", last.sequence));
    }
    if state.settings.strict_fields {
        let default = format!("kind,nextPageToken,incompleteSearch,files({DEFAULT_FIELDS})");
        answer = query::only_fields(&answer, req.arg("fields").unwrap_or(&default));
    }
    Reply::json(200, answer)
}

fn parse_token(token: &str) -> Option<(u64, u64)> {
    let (after, check) = token.strip_prefix('~')?.split_once('~')?;
    Some((u64::from_str_radix(after, 16).ok()?, u64::from_str_radix(check, 16).ok()?))
}

fn holds(state: &State, file: &StoredFile, term: &Term) -> bool {
    match term {
        Term::In(id) => file.parents.iter().any(|parent| parent == real_id(id)),
        Term::Trashed(trashed) => state.in_trash(file) == *trashed,
        Term::Name(name) => file.name == *name,
        Term::Mime(mime) => file.mime == *mime,
        Term::NotMime(mime) => file.mime != *mime,
        Term::Has(key, value) => file.app_properties.get(key) == Some(value),
    }
}

/// The id that is meant: `root` is another name of the root's.
pub(super) fn real_id(id: &str) -> &str {
    if id == "root" { ROOT } else { id }
}

/// GET of one file's metadata.
pub(super) fn get(state: &State, req: &Req) -> Reply {
    let id = real_id(req.last_segment());
    if id == ROOT {
        return Reply::json(
            200,
            json!({ "kind": "drive#file", "id": ROOT, "name": "My Drive", "mimeType": FOLDER, "trashed": false }),
        );
    }
    let injected = hostile::injected(&state.hostile, ROOT);
    if let Some(entry) = injected.into_iter().find(|entry| entry["id"] == id) {
        return Reply::json(200, entry);
    }
    match state.files.get(id) {
        Some(file) => metadata(state, req.arg("fields"), file),
        None => Reply::not_found(id),
    }
}

/// GET of one file's content, or of a range of it.
pub(super) fn media(state: &State, req: &Req, fault: Option<&Fault>, sent: &Arc<AtomicU64>) -> Reply {
    let id = req.last_segment();
    let content = if hostile::injected(&state.hostile, ROOT).iter().any(|entry| entry["id"] == id) {
        Arc::new(b"test".to_vec())
    } else {
        match state.files.get(id) {
            None => return Reply::not_found(id),
            Some(file) if file.is_folder() => {
                let message = "Only files with binary content can be downloaded.";
                return Reply::error(403, "fileNotDownloadable", message);
            }
            Some(file) if !file.kept => return Reply::error(404, "notFound", "The content was not kept."),
            Some(file) => Arc::clone(&file.content),
        }
    };
    let extra = state.hostile.iter().find_map(|hostile| match hostile {
        Hostile::LongMedia(extra) => Some(*extra),
        _ => None,
    });
    let content = match extra {
        Some(extra) => {
            let mut longer = content.to_vec();
            longer.resize(longer.len() + extra, b'+');
            Arc::new(longer)
        }
        None => content,
    };
    let size = content.len() as u64;
    let (status, from, to) = match req.header("range").map_or(Wanted::All, |text| parse_range(text, size)) {
        Wanted::All => (200, 0, size),
        Wanted::Range(from, to) => (206, from, to),
        Wanted::Outside => {
            return Reply::error(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
                .with("content-range", format!("bytes */{size}"));
        }
    };
    let cut = match fault {
        Some(Fault::MediaCut(percent)) => Some(from + (to - from) * u64::from(*percent.min(&100)) / 100),
        _ => None,
    };
    let reply = Reply::stream(status, pour(content, from, to, cut, Arc::clone(sent)))
        .with("content-type", "application/octet-stream".into())
        .with("content-length", (to - from).to_string());
    if status == 206 { reply.with("content-range", format!("bytes {from}-{}/{size}", to - 1)) } else { reply }
}

/// A body of these bytes, which breaks at `cut` when that is given.
fn pour(content: Arc<Vec<u8>>, from: u64, to: u64, cut: Option<u64>, sent: Arc<AtomicU64>) -> Body {
    let stop = cut.unwrap_or(to) as usize;
    Body::from_stream(stream::unfold(Some(from as usize), move |at| {
        let (content, sent) = (Arc::clone(&content), Arc::clone(&sent));
        async move {
            let at = at?;
            if at < stop {
                let end = stop.min(at + 64 * 1024);
                sent.fetch_add((end - at) as u64, Ordering::SeqCst);
                return Some((Ok(Bytes::copy_from_slice(&content[at..end])), Some(end)));
            }
            cut?;
            // The pause lets what was sent so far reach the client before the connection breaks.
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), None))
        }
    }))
}

/// Reads a create's metadata. `mime` is the type when the metadata names none.
pub(super) fn parse_meta(state: &State, body: &[u8], mime: &str) -> Result<Meta, Reply> {
    let value: Value = match body {
        [] => json!({}),
        body => serde_json::from_slice(body).map_err(|_| Reply::error(400, "parseError", "Parse Error"))?,
    };
    let Value::Object(object) = &value else {
        return Err(Reply::error(400, "parseError", "Parse Error"));
    };
    let text = |name: &str| match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Reply::bad_request(&format!("Invalid value at '{name}'"))),
    };
    let id = text("id")?;
    if let Some(id) = &id {
        if state.files.contains_key(id) {
            return Err(already(id));
        }
        if !state.settings.any_id && !state.generated.contains(id) {
            return Err(Reply::bad_request("The provided file ID is not usable"));
        }
    }
    let parent = match object.get("parents") {
        None | Some(Value::Null) => ROOT.to_owned(),
        Some(Value::Array(parents)) if parents.is_empty() => ROOT.to_owned(),
        Some(Value::Array(parents)) => match parents.as_slice() {
            [Value::String(parent)] => real_id(parent).to_owned(),
            _ => return Err(Reply::bad_request("A file must have exactly one parent.")),
        },
        Some(_) => return Err(Reply::bad_request("Invalid value at 'parents'")),
    };
    if !state.is_folder(&parent) {
        return Err(Reply::not_found(&parent));
    }
    let mut app_properties = BTreeMap::new();
    change_properties(&mut app_properties, object.get("appProperties"))?;
    let name = text("name")?.unwrap_or_else(|| "Untitled".into());
    let mime = text("mimeType")?.unwrap_or_else(|| mime.to_owned());
    Ok(Meta { id, name, parent, mime, app_properties })
}

/// The refusal of an id that is taken.
pub(super) fn already(id: &str) -> Reply {
    Reply::error(409, "fileIdInUse", &format!("A file already exists with the provided ID: {id}."))
}

/// Takes over application properties, within Drive's limits; one that is null goes away.
fn change_properties(own: &mut BTreeMap<String, String>, change: Option<&Value>) -> Result<(), Reply> {
    let object = match change {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(object)) => object,
        Some(_) => return Err(Reply::bad_request("Invalid value at 'appProperties'")),
    };
    for (key, value) in object {
        match value {
            Value::Null => drop(own.remove(key)),
            Value::String(value) if key.len() + value.len() <= 124 => drop(own.insert(key.clone(), value.clone())),
            _ => {
                return Err(Reply::bad_request("A property is limited to 124 bytes of key and value."));
            }
        }
    }
    if own.len() > 30 {
        return Err(Reply::bad_request("The number of properties is limited to 30."));
    }
    Ok(())
}

/// POST of metadata alone: folders.
pub(super) fn create(state: &mut State, req: &Req) -> Reply {
    let meta = match parse_meta(state, &req.body, "application/octet-stream") {
        Ok(meta) => meta,
        Err(reply) => return reply,
    };
    let content = if meta.mime == FOLDER { Content::default() } else { Content::of(b"") };
    let id = state.insert(meta, content);
    metadata(state, req.arg("fields"), &state.files[&id])
}

/// PATCH of a file's metadata.
pub(super) fn update(state: &mut State, req: &Req) -> Reply {
    let id = req.last_segment();
    let now = state.now();
    let Ok(Value::Object(change)) = serde_json::from_slice(if req.body.is_empty() { b"{}" } else { &req.body }) else {
        return Reply::error(400, "parseError", "Parse Error");
    };
    let add = req.arg("addParents").map(real_id);
    if let Some(parent) = add
        && !state.is_folder(parent)
    {
        return Reply::not_found(parent);
    }
    let Some(file) = state.files.get_mut(id) else {
        return Reply::not_found(id);
    };
    let mut changed = file.clone();
    for (name, value) in &change {
        match (name.as_str(), value) {
            ("name", Value::String(name)) => changed.name.clone_from(name),
            ("mimeType", Value::String(mime)) => changed.mime.clone_from(mime),
            ("trashed", Value::Bool(trashed)) => changed.trashed = *trashed,
            ("appProperties", value) => {
                if let Err(reply) = change_properties(&mut changed.app_properties, Some(value)) {
                    return reply;
                }
            }
            ("parents", _) => {
                let message = "The parents field is not directly writable in update requests.";
                return Reply::error(403, "fieldNotWritable", message);
            }
            _ => return Reply::bad_request(&format!("Invalid value at '{name}'")),
        }
    }
    if let Some(parent) = add {
        changed.parents = vec![parent.to_owned()];
    }
    changed.modified = now;
    *file = changed;
    metadata(state, req.arg("fields"), &state.files[id])
}

/// DELETE of a file, or of a folder with all below it.
pub(super) fn delete(state: &mut State, req: &Req) -> Reply {
    let id = req.last_segment();
    if state.remove(id) { Reply::empty(204) } else { Reply::not_found(id) }
}

/// GET of ids for creates to come.
pub(super) fn generate_ids(state: &mut State, req: &Req) -> Reply {
    let Ok(count @ 1..=1000) = req.arg("count").map_or(Ok(10), str::parse::<usize>) else {
        return Reply::bad_request("Invalid Value: count");
    };
    let ids: Vec<String> = (0..count).map(|_| State::new_id()).collect();
    state.generated.extend(ids.iter().cloned());
    Reply::json(200, json!({ "kind": "drive#generatedIds", "space": "drive", "ids": ids }))
}

/// GET about the user and the room.
pub(super) fn about(state: &State, req: &Req) -> Reply {
    let Some(fields) = req.arg("fields") else {
        return Reply::error(400, "required", "The 'fields' parameter is required for this method.");
    };
    let used = state.used().to_string();
    let mut quota = json!({ "usage": used, "usageInDrive": used, "usageInDriveTrash": "0" });
    if let Some(limit) = state.settings.quota {
        quota["limit"] = json!(limit.to_string());
    }
    let answer = json!({
        "kind": "drive#about",
        "user": {
            "kind": "drive#user", "displayName": "A Tester", "emailAddress": "tester@example.com", "me": true,
            "permissionId": random_word(),
        },
        "storageQuota": quota,
    });
    Reply::json(200, if state.settings.strict_fields { query::only_fields(&answer, fields) } else { answer })
}
