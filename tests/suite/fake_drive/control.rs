//! What a test can look at and set: files, counters, settings, faults. None of it goes over HTTP.
//! Settings count from the next request on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::faults::{Drawn, Fault};
use super::files::real_id;
use super::hostile::Hostile;
use super::oauth::{DeviceEnd, SCOPE};
use super::state::{Content, FOLDER, Meta, ROOT, State, StoredFile};
use super::{FakeDrive, clock};

/// An upload session as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// The session's URI.
    pub uri: String,
    /// The id of the file to be.
    pub file: String,
    /// How many bytes are stored.
    pub stored: u64,
    /// How many there will be, when that is known.
    pub total: Option<u64>,
    /// Whether it is finished.
    pub done: bool,
    /// The status with which it is gone, when it is.
    pub gone: Option<u16>,
}

/// To look at.
impl FakeDrive {
    /// All files and folders, in the order of their creation.
    pub fn files(&self) -> Vec<StoredFile> {
        let mut files: Vec<_> = self.common.lock().files.values().cloned().collect();
        files.sort_by_key(|file| file.sequence);
        files
    }

    /// One file or folder.
    pub fn file(&self, id: &str) -> Option<StoredFile> {
        self.common.lock().files.get(id).cloned()
    }

    /// What is in a folder, in the order of creation, trash included.
    pub fn children(&self, parent: &str) -> Vec<StoredFile> {
        let parent = real_id(parent);
        self.files().into_iter().filter(|file| file.parents.iter().any(|id| id == parent)).collect()
    }

    /// The first file or folder on a path of names from the root, such as `backups/today/manifest`.
    pub fn at(&self, path: &str) -> Option<StoredFile> {
        let mut found: Option<StoredFile> = None;
        for name in path.split('/') {
            let parent = found.map_or_else(|| ROOT.to_owned(), |file| file.id);
            found = Some(self.children(&parent).into_iter().find(|file| file.name == name)?);
        }
        found
    }

    /// How many requests of each kind there were.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let state = self.common.lock();
        let mut counts = state.counts.clone();
        counts.insert("device.hasty".into(), state.oauth.hasty);
        counts
    }

    /// How many requests of one kind there were. `device.hasty` counts devices that asked before their interval was
    /// over.
    pub fn count(&self, kind: &str) -> u64 {
        self.counts().get(kind).copied().unwrap_or(0)
    }

    /// Bytes of content that came in with upload parts, stored or not.
    pub fn bytes_in(&self) -> u64 {
        self.common.lock().bytes_in
    }

    /// Bytes of content that went out with downloads.
    pub fn bytes_out(&self) -> u64 {
        self.common.bytes_out.load(Ordering::SeqCst)
    }

    /// All requests: method, path and query, such as `GET /drive/v3/files?pageSize=10`.
    pub fn log(&self) -> Vec<String> {
        self.common.lock().log.iter().map(|(line, _)| line.clone()).collect()
    }

    /// All requests with the status of their answer, when there was one; a connection that was closed on purpose
    /// after the request was carried out has the status that the client never saw.
    pub fn answers(&self) -> Vec<(String, Option<u16>)> {
        self.common.lock().log.clone()
    }

    /// The upload sessions, in no order.
    pub fn sessions(&self) -> Vec<SessionView> {
        let state = self.common.lock();
        let view = |(key, session): (&String, &super::upload::Session)| SessionView {
            uri: format!("{}/upload/drive/v3/session/{key}", self.common.base),
            file: session.file.clone(),
            stored: session.stored,
            total: session.total,
            done: session.done,
            gone: session.gone,
        };
        state.sessions.iter().map(view).collect()
    }

    /// Forgets counters, byte counters, the log and the faults that happened.
    pub fn reset_counts(&self) {
        let mut state = self.common.lock();
        state.counts.clear();
        state.log.clear();
        state.bytes_in = 0;
        state.oauth.hasty = 0;
        state.faults.drawn.clear();
        self.common.bytes_out.store(0, Ordering::SeqCst);
    }
}

/// To change what is stored.
impl FakeDrive {
    /// Adds a file; `root` is the id of the top. Gives its id.
    pub fn add_file(&self, parent: &str, name: &str, bytes: &[u8]) -> String {
        self.add(parent, name, "application/octet-stream", Content::of(bytes))
    }

    /// Adds a folder. Gives its id.
    pub fn add_folder(&self, parent: &str, name: &str) -> String {
        self.add(parent, name, FOLDER, Content::default())
    }

    fn add(&self, parent: &str, name: &str, mime: &str, content: Content) -> String {
        let meta = Meta {
            id: None,
            name: name.to_owned(),
            parent: real_id(parent).to_owned(),
            mime: mime.to_owned(),
            app_properties: BTreeMap::new(),
        };
        self.common.lock().insert(meta, content)
    }

    /// Removes a file, or a folder with all below it. Whether there was one.
    pub fn remove(&self, id: &str) -> bool {
        self.common.lock().remove(id)
    }

    /// Changes what is stored about a file in any way, without any checks. Whether there is one.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut StoredFile)) -> bool {
        self.common.lock().files.get_mut(id).map(change).is_some()
    }

    /// Flips one byte of a file's content and leaves its checksums as they were. Whether there is such a byte.
    pub fn corrupt(&self, id: &str, at: usize) -> bool {
        let mut state = self.common.lock();
        let file = state.files.get_mut(id);
        let byte = file.and_then(|file| Arc::make_mut(&mut file.content).get_mut(at));
        byte.map(|byte| *byte ^= 1).is_some()
    }
}

/// To set.
impl FakeDrive {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.common.lock());
    }

    /// No page of a list has more than this many files.
    pub fn page_cap(&self, most: usize) {
        self.set(|state| state.settings.page_cap = most.max(1));
    }

    /// Whether the contents of uploads are kept; at first they are.
    pub fn keep_content(&self, keep: bool) {
        self.set(|state| state.settings.keep_content = keep);
    }

    /// Whether metadata lacks `sha256Checksum`.
    pub fn without_sha256(&self, without: bool) {
        self.set(|state| state.settings.without_sha256 = without);
    }

    /// Whether answers have only the fields that were asked for, and without any asked for only Drive's default ones.
    pub fn strict_fields(&self, strict: bool) {
        self.set(|state| state.settings.strict_fields = strict);
    }

    /// Whether a create may name an id that was not generated here.
    pub fn any_id(&self, any: bool) {
        self.set(|state| state.settings.any_id = any);
    }

    /// What lists say about `incompleteSearch`.
    pub fn incomplete_search(&self, incomplete: bool) {
        self.set(|state| state.settings.incomplete_search = incomplete);
    }

    /// How many bytes all files together may have; none for no bound.
    pub fn storage_quota(&self, bytes: impl Into<Option<u64>>) {
        let bytes = bytes.into();
        self.set(|state| state.settings.quota = bytes);
    }

    /// How long upload sessions live; older ones answer 404.
    pub fn session_lifetime(&self, lifetime: Duration) {
        self.set(|state| state.settings.session_lifetime = lifetime);
    }

    /// Ends all upload sessions that are not finished; they answer with this status, 404 or 410.
    pub fn expire_sessions(&self, status: u16) {
        self.set(|state| {
            let open = state.sessions.values_mut().filter(|session| !session.done);
            open.for_each(|session| session.gone = Some(status));
        });
    }

    /// Sets the clock off by so many seconds: the `Date` header and the times of files.
    pub fn set_now_offset(&self, seconds: i64) {
        self.set(|state| state.settings.now_offset = seconds);
    }

    /// The server's time, in milliseconds since 1970.
    pub fn now_millis(&self) -> i64 {
        clock::now(self.common.lock().settings.now_offset)
    }

    /// While set, every connection closes before any answer.
    pub fn offline(&self, offline: bool) {
        self.set(|state| state.settings.offline = offline);
    }
}

/// Authorization.
impl FakeDrive {
    /// The client that is known, in place of the first one.
    pub fn client(&self, id: &str, secret: &str) {
        self.set(|state| {
            id.clone_into(&mut state.oauth.client_id);
            secret.clone_into(&mut state.oauth.client_secret);
        });
    }

    /// Whether the token endpoint insists on the client's secret; at first it does.
    pub fn needs_secret(&self, needs: bool) {
        self.set(|state| state.oauth.needs_secret = needs);
    }

    /// Consents without any flow. Gives an access token and a refresh token.
    pub fn issue_tokens(&self) -> (String, String) {
        self.common.lock().oauth.issue(SCOPE)
    }

    /// All tokens that were given, and the addresses of all sessions: nobody but the one who asked may see them.
    pub fn secrets(&self) -> Vec<String> {
        let mut all = self.common.lock().oauth.secrets();
        all.extend(self.sessions().into_iter().map(|session| session.uri));
        all
    }

    /// Whether an access token is good now.
    pub fn accepts_token(&self, token: &str) -> bool {
        self.common.lock().oauth.accepts(token)
    }

    /// How long access tokens live that are given out from now on.
    pub fn token_lifetime(&self, lifetime: Duration) {
        self.set(|state| state.oauth.lifetime = lifetime);
    }

    /// Ends all access tokens; refreshing goes on working.
    pub fn expire_tokens(&self) {
        self.set(|state| state.oauth.kill_all());
    }

    /// Takes back all consents: access tokens get 401, refreshing gets `invalid_grant`.
    pub fn revoke_all(&self) {
        self.set(|state| state.oauth.revoke_all());
    }

    /// Whether every code and every refresh token gets `invalid_grant`.
    pub fn invalid_grant(&self, invalid: bool) {
        self.set(|state| state.oauth.invalid_grant = invalid);
    }

    /// Whether the user refuses in the browser.
    pub fn deny_consent(&self, deny: bool) {
        self.set(|state| state.oauth.deny_consent = deny);
    }

    /// Whether the browser comes back with a state that is not the client's.
    pub fn wrong_state(&self, wrong: bool) {
        self.set(|state| state.oauth.wrong_state = wrong);
    }

    /// The scope that the user grants, whatever was asked for; none to grant just that.
    pub fn granted_scope(&self, scope: Option<&str>) {
        self.set(|state| state.oauth.granted_scope = scope.map(str::to_owned));
    }

    /// How device flows go that begin from now on: so often pending, so often `slow_down`, then the end.
    pub fn device_flow(&self, pending: u32, slow_down: u32, end: DeviceEnd) {
        self.set(|state| {
            state.oauth.pending = pending;
            state.oauth.slow_down = slow_down;
            state.oauth.device_end = end;
        });
    }

    /// The seconds between two questions of a device.
    pub fn device_interval(&self, seconds: u64) {
        self.set(|state| state.oauth.interval = seconds);
    }

    /// The status of `authorization_pending`: 428 at first.
    pub fn pending_status(&self, status: u16) {
        self.set(|state| state.oauth.pending_status = status);
    }
}

/// What goes wrong.
impl FakeDrive {
    /// From now on every request fails with this probability, in a way that seed, kind and number of the request
    /// decide. Requests of the kinds `auth` and `other` never do.
    pub fn script(&self, seed: u64, rate: f64) {
        self.set(|state| state.faults.set_script(Some((seed, rate))));
    }

    /// The script befalls only these kinds; an empty list stands for all.
    pub fn script_only(&self, kinds: &[&str]) {
        self.set(|state| state.faults.set_only(kinds));
    }

    /// After so many faults the script behaves.
    pub fn script_most(&self, most: usize) {
        self.set(|state| state.faults.set_most(most));
    }

    /// The script never lets more than so many requests of one kind fail in a row.
    pub fn script_in_a_row(&self, most: u32) {
        self.set(|state| state.faults.set_in_a_row(most));
    }

    /// The next so many requests of this kind (`*` for any) have this fault.
    pub fn fail_next(&self, kind: &str, fault: Fault, times: usize) {
        self.set(|state| state.faults.order(kind, fault, times));
    }

    /// How many ordered faults have not happened yet.
    pub fn faults_pending(&self) -> usize {
        self.common.lock().faults.pending()
    }

    /// The faults that happened, in order.
    pub fn faults_drawn(&self) -> Vec<Drawn> {
        self.common.lock().faults.drawn.clone()
    }

    /// Means harm in this way from now on, besides those set before.
    pub fn hostile(&self, hostile: Hostile) {
        self.set(|state| state.hostile.push(hostile));
    }

    /// No script, no ordered faults, no harm, not offline.
    pub fn behave(&self) {
        self.set(|state| {
            state.faults.clear();
            state.hostile.clear();
            state.settings.offline = false;
        });
    }
}
