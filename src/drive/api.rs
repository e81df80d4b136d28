//! Drive's calls, each tried until it succeeds, is refused, or was tried often enough.
//!
//! What an answer says is believed only as far as it is checked, here and in [`super::remote`]: lists have an end, an
//! upload goes on at the service and nowhere else.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::access::Access;
use super::bases::Bases;
use super::http::{Answer, Ask, Http, Send, Trouble};
use super::remote::{FOLDER, Remote, is_id, malformed, object, parse_file, parse_page, shown};
use super::retry::Patience;
use super::sums::Sums;
use crate::error::{Error, Result};

/// What is asked of a file.
const FIELDS: &str = "id,name,mimeType,size,md5Checksum,sha256Checksum,appProperties,createdTime,parents,trashed";
/// So many ids are asked for at a time.
const IDS: usize = 20;
/// A list has at most so many pages.
const PAGES_MOST: usize = 2000;
/// And that many entries.
const ENTRIES_MOST: usize = 1_000_000;

#[derive(Deserialize)]
struct Ids {
    #[serde(default)]
    ids: Vec<String>,
}

/// What became of a part of an upload, or of asking for it.
#[derive(Debug)]
pub enum Part {
    /// So many bytes are there.
    Stored(u64),
    /// The file is complete.
    Complete(Remote),
    /// The session is no more.
    Gone,
}

/// A further header line.
type Header = (&'static str, String);

/// Drive, for one account.
pub struct Drive {
    http: Http,
    bases: Bases,
    access: Access,
    patience: Patience,
    /// Ids that Drive gave, and nothing has yet.
    ids: Mutex<Vec<String>>,
}

/// A string in a query.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

impl Drive {
    /// Drive at `bases`, as `access` allows.
    pub fn new(http: Http, bases: Bases, access: Access, patience: Patience) -> Drive {
        Drive { http, bases, access, patience, ids: Mutex::default() }
    }

    /// How often things are tried.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    fn token(&self, refused: Option<&str>) -> Result<Zeroizing<String>> {
        self.access.token(&self.http, &self.bases, self.patience, refused)
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.bases.api.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// One call, tried again while that is of use.
    fn call(&self, what: &str, headers: &[Header], make: &dyn Fn() -> (Method, Url, Send)) -> Result<Answer> {
        let mut tries = self.patience.begin();
        let mut token = self.token(None)?;
        loop {
            let (method, url, body) = make();
            match self.http.ask(Ask { method, url, token: Some(&token), headers: headers.to_vec(), body }) {
                Ok(answer) => return Ok(answer),
                Err(trouble) => {
                    let renew = matches!(trouble, Trouble::Token);
                    tries.after(what, trouble)?;
                    if renew {
                        token = self.token(Some(&token))?;
                    }
                }
            }
        }
    }

    fn get(&self, what: &str, path: &[&str], query: &[(&str, &str)]) -> Result<Answer> {
        self.call(what, &[], &|| (Method::GET, self.url(path, query), Send::Nothing))
    }

    /// Everything for which `query` holds, that is not in the bin.
    fn list(&self, query: &str) -> Result<Vec<Remote>> {
        let what = "cannot list what is in Google Drive";
        let query = format!("{query} and trashed=false");
        let fields = format!("nextPageToken,incompleteSearch,files({FIELDS})");
        let (mut found, mut tokens, mut token) = (Vec::new(), HashSet::new(), None::<String>);
        for _ in 0..PAGES_MOST {
            let mut asked =
                vec![("q", query.as_str()), ("spaces", "drive"), ("pageSize", "1000"), ("fields", fields.as_str())];
            if let Some(token) = &token {
                asked.push(("pageToken", token));
            }
            let answer = self.get(what, &["drive", "v3", "files"], &asked)?;
            if answer.status != 200 {
                return Err(Error::remote(format!("{what}: status {}", answer.status)));
            }
            let (files, next) = parse_page(&answer.body)?;
            found.extend(files);
            match next {
                None => {
                    // Where there are several of one name, everybody means the same one.
                    found.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
                    return Ok(found);
                }
                Some(next) if tokens.insert(next.clone()) && found.len() <= ENTRIES_MOST => token = Some(next),
                Some(_) => break,
            }
        }
        Err(Error::remote(format!("{what}: the list has no end")))
    }

    /// What is in a folder.
    pub fn children(&self, folder: &str) -> Result<Vec<Remote>> {
        self.list(&format!("{} in parents", quoted(folder)))
    }

    /// What is in a folder under one name.
    pub fn named(&self, folder: &str, name: &str) -> Result<Vec<Remote>> {
        let mut found = self.list(&format!("{} in parents and name={}", quoted(folder), quoted(name)))?;
        found.retain(|remote| remote.name == name);
        Ok(found)
    }

    /// Fresh ids. An upload that names one can be repeated: it cannot be there twice.
    pub fn ids(&self, count: usize) -> Result<Vec<String>> {
        let what = "cannot get ids from Google Drive";
        let count = count.clamp(1, 1000);
        let path = ["drive", "v3", "files", "generateIds"];
        let answer = self.get(what, &path, &[("count", &count.to_string()), ("space", "drive")])?;
        let ids: Ids = object(&answer.body, "ids")?;
        if answer.status != 200 || ids.ids.len() < count || !ids.ids.iter().all(|id| is_id(id)) {
            return Err(malformed("ids"));
        }
        Ok(ids.ids)
    }

    /// One fresh id; Drive is asked for several at a time.
    pub fn id(&self) -> Result<String> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.is_empty() {
            *ids = self.ids(IDS)?;
        }
        ids.pop().ok_or_else(|| malformed("no id"))
    }

    /// The folder `name` in `parent`, made if it is not there.
    pub fn folder(&self, parent: &str, name: &str) -> Result<String> {
        self.folder_noted(parent, name, &BTreeMap::new())
    }

    /// The same; `properties` are noted with it if it is made.
    pub fn folder_noted(&self, parent: &str, name: &str, properties: &BTreeMap<String, String>) -> Result<String> {
        match self.named(parent, name)?.into_iter().find(|found| found.is_folder) {
            Some(found) => Ok(found.id),
            None => self.make_folder(parent, name, properties),
        }
    }

    /// A new folder, whether there is one of that name or not.
    pub fn make_folder(&self, parent: &str, name: &str, properties: &BTreeMap<String, String>) -> Result<String> {
        let what = "cannot make a folder in Google Drive";
        let id = self.id()?;
        let metadata =
            json!({"id": id, "name": name, "mimeType": FOLDER, "parents": [parent], "appProperties": properties});
        let body = metadata.to_string();
        let make = || {
            (Method::POST, self.url(&["drive", "v3", "files"], &[("fields", "id")]), Send::Json(body.clone().into()))
        };
        match self.call(what, &[], &make)?.status {
            // It is there already: an earlier try went through.
            200 | 201 | 409 => Ok(id),
            status => Err(Error::remote(format!("{what}: {name}: status {status}"))),
        }
    }

    /// What is known of a file; nothing if it is not there, or was thrown away.
    pub fn file(&self, id: &str) -> Result<Option<Remote>> {
        let what = "cannot look at a file in Google Drive";
        let answer = self.get(what, &["drive", "v3", "files", id], &[("fields", FIELDS)])?;
        match answer.status {
            200 => parse_file(&answer.body).map(|remote| Some(remote).filter(|remote| !remote.is_trashed)),
            404 => Ok(None),
            status => Err(Error::remote(format!("{what}: status {status}"))),
        }
    }

    /// Deletes a file, or a folder with all that is in it. One that is not there is no failure.
    pub fn delete(&self, id: &str) -> Result<()> {
        let what = "cannot remove a file from Google Drive";
        let answer =
            self.call(what, &[], &|| (Method::DELETE, self.url(&["drive", "v3", "files", id], &[]), Send::Nothing))?;
        match answer.status {
            200 | 204 | 404 | 410 => Ok(()),
            status => Err(Error::remote(format!("{what}: status {status}"))),
        }
    }

    /// Begins to upload `size` bytes as the new file `id`; answers with the session's address, a secret. Nothing if the
    /// file is there already.
    pub fn begin_upload(
        &self,
        id: &str,
        parent: &str,
        name: &str,
        properties: &BTreeMap<String, String>,
        size: u64,
    ) -> Result<Option<Zeroizing<String>>> {
        let what = format!("cannot begin to upload {name}");
        let metadata = json!({
            "id": id, "name": name, "parents": [parent], "appProperties": properties,
            "mimeType": "application/octet-stream",
        });
        let body = metadata.to_string();
        let headers = [
            ("x-upload-content-type", "application/octet-stream".to_owned()),
            ("x-upload-content-length", size.to_string()),
        ];
        let query = [("uploadType", "resumable"), ("fields", FIELDS)];
        let path = ["upload", "drive", "v3", "files"];
        let make = || (Method::POST, self.url(&path, &query), Send::Json(body.clone().into()));
        let answer = self.call(&what, &headers, &make)?;
        match answer.status {
            200 => {
                let address = answer.location.ok_or_else(|| malformed("no address for an upload"))?;
                let parsed = Url::parse(&address).map_err(|_| malformed("an address for an upload"))?;
                if !self.bases.may_upload_to(&parsed) {
                    return Err(Error::remote(format!("{what}: it would go to a server that is not Google's")));
                }
                Ok(Some(Zeroizing::new(address)))
            }
            409 => Ok(None),
            // The folder was removed meanwhile.
            404 => Err(Error::remote(format!("{what}: the folder in Google Drive is not there any more"))
                .hint("run it again: the folder is made anew")),
            status => Err(Error::remote(format!("{what}: status {status}"))),
        }
    }

    /// Sends a part of an upload, once; with nothing to send, asks what is there.
    pub fn send_part(&self, session: &str, part: Option<(u64, Vec<u8>)>, total: u64) -> Result<Part, Trouble> {
        let url = Url::parse(session).ok().filter(|url| self.bases.may_upload_to(url));
        let Some(url) = url else { return Ok(Part::Gone) };
        let token = self.token(None).map_err(Trouble::Lasting)?;
        let (range, body) = match part {
            Some((offset, bytes)) if !bytes.is_empty() => {
                (format!("bytes {offset}-{}/{total}", offset + bytes.len() as u64 - 1), Send::Part(bytes))
            }
            _ => (format!("bytes */{total}"), Send::Nothing),
        };
        let headers = vec![("content-range", range)];
        let answer = match self.http.ask(Ask { method: Method::PUT, url, token: Some(&token), headers, body }) {
            Err(Trouble::Token) => {
                self.token(Some(&token)).map_err(Trouble::Lasting)?;
                return Err(Trouble::Token);
            }
            other => other?,
        };
        match answer.status {
            200 | 201 => parse_file(&answer.body).map(Part::Complete).map_err(Trouble::Lasting),
            308 => {
                let stored = match &answer.range {
                    None => Some(0),
                    Some(range) => {
                        range.strip_prefix("bytes=0-").and_then(|last| last.parse::<u64>().ok()).map(|n| n + 1)
                    }
                };
                stored
                    .filter(|stored| *stored <= total)
                    .map(Part::Stored)
                    .ok_or_else(|| Trouble::Lasting(malformed("a range")))
            }
            404 | 410 => Ok(Part::Gone),
            status => Err(Trouble::Passing(format!("status {status}"), None)),
        }
    }

    /// Gives the bytes of a file from `offset` on to `take`, up to `length` in all.
    pub fn read(
        &self,
        remote: &Remote,
        offset: u64,
        length: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let what = format!("cannot download {}", shown(&remote.name));
        let mut tries = self.patience.begin();
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let token = self.token(None)?;
            let url = self.url(&["drive", "v3", "files", &remote.id], &[("alt", "media")]);
            let ask = Ask { method: Method::GET, url, token: Some(&token), headers: Vec::new(), body: Send::Nothing };
            let before = at;
            let mut counted = |bytes: &[u8]| {
                at += bytes.len() as u64;
                take(bytes)
            };
            let Err(trouble) = self.http.fetch(ask, before, end - before, &mut counted) else { break };
            if at > before {
                tries.progress();
            }
            let renew = matches!(trouble, Trouble::Token);
            tries.after(&what, trouble)?;
            if renew {
                self.token(Some(&token))?;
            }
        }
        Ok(())
    }

    /// A whole file that is no longer than `most`, with the checksum that Drive says it has.
    pub fn read_whole(&self, remote: &Remote, most: u64) -> Result<Vec<u8>> {
        if remote.size > most {
            return Err(Error::remote(format!("{} is larger than it can be", shown(&remote.name))));
        }
        let mut bytes = Vec::with_capacity(remote.size as usize);
        self.read(remote, 0, remote.size, &mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        let says = remote.sha256.is_some() || remote.md5.is_some();
        if says && !Sums::of(&bytes)?.are_of(remote, remote.size) {
            let what = format!("{} does not come from Google Drive as it lies there", shown(&remote.name));
            return Err(Error::integrity(what).hint("try again; if it stays so, another copy is needed"));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_is_meant() {
        assert_eq!(quoted("it's \\"), "'it\\'s \\\\'");
    }
}
