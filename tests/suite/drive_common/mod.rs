//! What the tests of Google Drive share: a machine, and the service that it talks to.
#![allow(dead_code, reason = "no test file uses all of it")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

use std::time::Duration;

use nbak::crypto::secret::Credential;
use nbak::drive::access::{Access, App};
use nbak::drive::api::Drive;
use nbak::drive::bases::Bases;
use nbak::drive::grant::{Grant, Keeper};
use nbak::drive::http::Http;
use nbak::drive::limit::Limit;
use nbak::drive::retry::Patience;

use super::common::{KEY, Place, Run, days_ago};
use super::fake_drive::{CLIENT_ID, CLIENT_SECRET, FakeDrive, SCOPE};

/// One machine and its Drive. Several machines may have the same.
pub struct Cloud {
    pub place: Place,
    pub fake: Rc<FakeDrive>,
    pub printed: Printed,
}

/// All that was printed on a machine. Whichever test it is: at its end nothing of that may be a secret.
pub struct Printed {
    text: RefCell<String>,
    fake: Rc<FakeDrive>,
}

impl Printed {
    fn of(fake: &Rc<FakeDrive>) -> Printed {
        Printed { text: RefCell::default(), fake: fake.clone() }
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let text = self.text.borrow();
            assert!(!self.fake.secrets().iter().any(|secret| text.contains(secret)), "a secret was printed: {text}");
        }
    }
}

impl Cloud {
    pub fn new() -> Cloud {
        let fake = Rc::new(FakeDrive::start());
        fake.device_interval(0);
        let printed = Printed::of(&fake);
        Cloud { place: Place { key: Some(KEY), ..Place::empty() }, fake, printed }
    }

    /// Another machine, with the same account and key, and nothing else.
    pub fn on_a_new_machine(&self) -> Cloud {
        let place = Place { key: self.place.key, ..Place::empty() };
        Cloud { place, fake: self.fake.clone(), printed: Printed::of(&self.fake) }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        command
            .env("NBAK_GOOGLE_BASE", self.fake.base())
            .env("GOOGLE_CLIENT_ID", CLIENT_ID)
            .env("GOOGLE_CLIENT_SECRET", CLIENT_SECRET)
            .env_remove("NBAK_REPO");
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(name);
        }
        command.env("NBAK_REPO", &self.place.repo);
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        let run = Run::of(self.command(args));
        self.heard(&[&run.out, &run.err]);
        run
    }

    /// Notes what was printed by a run that was not one of [`Cloud::run`].
    pub fn heard(&self, texts: &[&str]) {
        for text in texts {
            self.printed.text.borrow_mut().extend([text, "\n"]);
        }
    }

    pub fn ok(&self, args: &[&str]) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}: {run:?}");
        run
    }

    /// With a code on another device.
    pub fn grant(&self) {
        self.ok(&["auth", "google", "--device"]);
    }

    /// In a browser.
    pub fn grant_by_browser(&self) {
        let mut child = self.command(&["auth", "google"]);
        let mut child = child.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let address = lines.find_map(|line| line.ok().filter(|line| line.starts_with("http"))).expect("an address");
        assert!(visit(&address).contains("Access was granted"));
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        assert!(child.wait().expect("ended").success(), "{rest:?}");
        self.heard(&rest.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Removes all that is there.
    pub fn empty_the_drive(&self) {
        for file in self.fake.children("root") {
            self.fake.remove(&file.id);
        }
    }

    /// Whether Drive holds the files of `backup`, each once, with its bytes.
    pub fn assert_holds_once(&self, backup: &Path) {
        let name = backup.file_name().expect("a name").to_string_lossy().into_owned();
        let files = self.fake.files();
        let by_id: BTreeMap<_, _> = files.iter().map(|file| (file.id.clone(), file)).collect();
        let path_of = |id: &str| {
            let (mut parts, mut at) = (Vec::new(), by_id.get(id).copied());
            while let Some(file) = at {
                parts.push(file.name.clone());
                at = file.parents.first().and_then(|parent| by_id.get(parent).copied());
            }
            parts.reverse();
            parts.join("/")
        };
        let mut there: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in files.iter().filter(|file| !file.is_folder()) {
            there.entry(path_of(&file.id)).or_default().push(file.sha256.clone());
        }
        let prefix = format!("nodyn-backups/{name}/");
        let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (path, thing) in super::common::tree(backup).into_iter().filter(|(_, thing)| thing.kind == "file") {
            let sum = nbak::export::files::sha256(&mut &thing.bytes[..]).expect("read").0;
            expected.insert(format!("{prefix}{}", path.display()), vec![sum]);
        }
        there.retain(|path, _| path.starts_with(&prefix));
        assert_eq!(there.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        assert_eq!(there, expected);
    }

    /// Nothing that was printed has a token or the address of a session in it; nor has a file that others can read.
    pub fn assert_no_secret_was_shown(&self) {
        let printed = self.printed.text.borrow();
        for secret in self.fake.secrets() {
            assert!(!printed.contains(&secret), "a secret was printed");
            for (path, thing) in super::common::tree(&self.place.data) {
                let is_own = path.to_string_lossy().starts_with(".nbak-state/uploads");
                let found = thing.bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                assert!(!found || is_own && thing.mode == 0o600, "a secret stands in {}", path.display());
            }
        }
    }

    /// Makes the backup in this folder there one of long ago, as its manifest says; nobody compares that with its seal.
    pub fn age(&self, folder: &str) {
        let files = self.fake.children(folder);
        let manifest = files.into_iter().find(|file| file.name == "manifest.json").expect("there");
        let text = String::from_utf8(manifest.content.to_vec()).expect("JSON");
        let at = text.find("\"created_at\": \"").expect("a date") + 15;
        let old = format!("{}{}{}", &text[..at], &days_ago(100)[..10], &text[at + 10..]);
        self.fake.remove(&manifest.id);
        self.fake.add_file(folder, "manifest.json", old.as_bytes());
    }
}

/// Access without asking anybody: the grant is there.
pub fn store_grant(cloud: &Cloud) {
    let (access, refresh) = cloud.fake.issue_tokens();
    let grant = Grant {
        client_id: CLIENT_ID.to_owned(),
        scope: SCOPE.to_owned(),
        refresh_token: refresh.into(),
        granted_ms: 0,
        access_token: access.into(),
        expires_ms: i64::MAX,
    };
    keeper(cloud).store(&grant).expect("stored");
}

fn keeper(cloud: &Cloud) -> Keeper {
    Keeper::new(&cloud.place.data, vec![Credential::VaultKey(KEY.to_owned())])
}

/// The account, for the library: with little patience, since nobody waits for it.
pub fn drive(cloud: &Cloud) -> Drive {
    let app = App { id: CLIENT_ID.to_owned(), secret: CLIENT_SECRET.to_owned().into() };
    let access = Access::open(app, keeper(cloud)).expect("a grant");
    let bases = Bases::loopback(&cloud.fake.base()).expect("loopback");
    let patience =
        Patience { first: Duration::from_millis(1), longest: Duration::from_millis(4), tries: 8, tell: None };
    let http = Http::new(Limit::new(None), &bases).expect("a client");
    Drive::new(http, bases, access, patience)
}

/// Visits an address as a browser does: with redirects.
pub fn visit(address: &str) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::blocking::Client::builder().no_proxy().build();
    let mut response = client.and_then(|client| client.get(address).send()).expect("an answer");
    let mut text = String::new();
    response.read_to_string(&mut text).expect("a page");
    text
}
