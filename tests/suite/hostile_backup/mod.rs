//! Backups that somebody made up to do harm, from a seed.
//!
//! Each begins as a good one with a bit of everything; then one thing is done to it, and where that takes it the
//! manifest is signed again with the real key, so that what is behind the MAC is reached too. [`make`] says what was
//! done, and whether it has to be noticed or may pass. The same seed gives the same backup.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::ffi::CString;
use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nbak::crypto::secret::{Credential, Secret};
use nbak::crypto::vault::{MacSource, mac, mac_key_of_vault, nbak_key};
use nbak::export::dialect::Dialect;
use nbak::export::manifest::lacks::Lacks;
use nbak::export::manifest::{FileEntry, Kind, Manifest, Own, iso, overall_checksum};
use nbak::export::nbak::{NbakKeys, seal};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The key of every backup made here, and one that is not.
pub const KEY: &str = "aG9zdGlsZSBiYWNrdXBzLCBhbGwgb2Ygb25lIGtleQ==";
pub const OTHER_KEY: &str = "c29tZWJvZHkgZWxzZSdzIGtleSwgbm90IG91cnMgMA==";
/// What lies outside of the backup, in a file called like one of its own.
pub const SECRET: &[u8] = b"nobody outside may read this";

/// What has to come of a hostile backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It cannot be opened, or verifying with the key finds a fault.
    Noticed,
    /// The manifest alone is enough to refuse it.
    Unreadable,
    /// It may be whole all the same.
    Either,
}

/// What was made.
#[derive(Debug)]
pub struct Hostile {
    pub what: String,
    pub verdict: Verdict,
    /// Whether it is signed with the real key.
    pub signed: bool,
}

pub fn credential(key: &str) -> Credential {
    Credential::VaultKey(key.to_owned())
}

pub fn nbak_keys(key: Option<&str>) -> NbakKeys {
    let credentials: Vec<Credential> = key.into_iter().map(credential).collect();
    NbakKeys::new(&credentials, Dialect::Nodyn)
}

pub fn mac_keys(key: Option<&str>, own: &Own) -> Vec<Secret> {
    key.and_then(|key| mac_key_of_vault(&credential(key), own.mac_key, &own.mac_salt)).into_iter().collect()
}

/// Small, quick, and the same everywhere.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// A database, made once.
pub fn database() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("db");
        let db = rusqlite::Connection::open(&path).expect("opened");
        db.execute_batch(
            "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT); CREATE INDEX i ON t(b);
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<50)
             INSERT INTO t SELECT x, 'row '||x FROM n",
        )
        .expect("filled");
        db.close().expect("closed");
        fs::read(path).expect("read")
    })
}

/// A backup that is being made: what its manifest says, and what lies beside that.
pub struct Workshop {
    pub manifest: Manifest,
    /// Path, plaintext and what lies in the backup, of every file.
    pub files: Vec<(String, Vec<u8>, Vec<u8>)>,
}

impl Workshop {
    /// A good one.
    pub fn new(encrypted: bool, signed: bool) -> Workshop {
        let parts: [(&str, Kind, &[u8]); 9] = [
            ("history.db", Kind::Sqlite, database()),
            ("vault.db", Kind::Sqlite, database()),
            ("knowledge-graph", Kind::KuzuDir, b""),
            ("knowledge-graph/data.kz", Kind::File, b"graph"),
            ("memory", Kind::Directory, b""),
            ("memory/deep/note.txt", Kind::File, SECRET),
            ("memory/empty.txt", Kind::File, b""),
            ("memory/facts.txt", Kind::File, b"facts about something"),
            ("config.json", Kind::File, b"{}"),
        ];
        let mut workshop = Workshop {
            manifest: Manifest {
                version: "1.0.0".to_owned(),
                created_at: iso(1_774_407_600_000),
                created_ms: 1_774_407_600_000,
                dialect: Dialect::Nodyn,
                source_dir: "/home/user/.nodyn".to_owned(),
                encrypted,
                files: Vec::new(),
                checksum: String::new(),
                own: signed.then(|| Own {
                    snapshot: "5a".repeat(16),
                    mac: [0; 32],
                    mac_key: MacSource::Vault,
                    mac_salt: [3; 32],
                    instance: None,
                    before_restore: false,
                    lacks: Lacks::default(),
                }),
            },
            files: Vec::new(),
        };
        for (path, kind, plain) in parts {
            workshop.add(path, kind, plain);
        }
        workshop.settle();
        workshop
    }

    pub fn add(&mut self, path: &str, kind: Kind, plain: &[u8]) {
        let signed = self.manifest.own.is_some();
        let mut entry = FileEntry {
            path: path.to_owned(),
            size: 0,
            sha256: String::new(),
            kind,
            mode: signed.then_some(0o600),
            mtime_ms: signed.then_some(1_774_407_600_000),
        };
        if !kind.is_directory() {
            let stored = if self.manifest.encrypted { sealed(plain, KEY) } else { plain.to_vec() };
            (entry.size, entry.sha256) = (stored.len() as u64, hash(&stored));
            self.files.push((path.to_owned(), plain.to_vec(), stored));
        }
        self.manifest.files.push(entry);
    }

    /// Puts other bytes into a file, and makes the manifest say so.
    pub fn replace(&mut self, at: usize, stored: Vec<u8>) {
        let path = &self.files[at].0;
        let entry = self.manifest.files.iter_mut().find(|entry| entry.path == *path).expect("an entry");
        (entry.size, entry.sha256) = (stored.len() as u64, hash(&stored));
        self.files[at].2 = stored;
        self.settle();
    }

    /// Makes checksum and MAC fit again.
    pub fn settle(&mut self) {
        self.manifest.checksum = overall_checksum(&self.manifest.files);
        if let Some(own) = &self.manifest.own {
            let key = mac_key_of_vault(&credential(KEY), own.mac_key, &own.mac_salt).expect("a key");
            let mac = mac(&key, &self.manifest.mac_input());
            self.manifest.own.as_mut().expect("there").mac = mac;
        }
    }

    /// Writes it into the new folder `into`. Where its files go is fixed: a hostile path is written nowhere.
    pub fn write(&self, into: &Path) {
        for folder in ["", "knowledge-graph", "memory", "memory/deep"] {
            fs::create_dir(into.join(folder)).expect("made");
        }
        for (path, _, stored) in &self.files {
            let path = into.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, stored).expect("written");
        }
        fs::write(into.join("manifest.json"), self.manifest.to_json()).expect("written");
    }
}

pub fn hash(bytes: &[u8]) -> String {
    nbak::codec::hex(&Sha256::digest(bytes))
}

pub fn sealed(plain: &[u8], key: &str) -> Vec<u8> {
    let key = nbak_key(&credential(key), Dialect::Nodyn.labels());
    let mut out = Cursor::new(Vec::new());
    seal(&mut Cursor::new(plain), Path::new("plain"), &mut out, Path::new("sealed"), &key).expect("memory takes it");
    out.into_inner()
}

/// What lies outside: made once, and never to be touched.
pub fn outside(folder: &Path) -> PathBuf {
    let outside = folder.join("outside");
    fs::create_dir_all(outside.join("deep")).expect("made");
    fs::write(outside.join("deep/note.txt"), SECRET).expect("written");
    fs::write(outside.join("facts.txt"), b"facts about something").expect("written");
    fs::write(outside.join("empty.txt"), b"").expect("written");
    outside
}

pub fn fifo(path: &Path) {
    let name = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
    rustix::fs::mknodat(rustix::fs::CWD, &*name, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .expect("a pipe");
}

/// Paths that lead elsewhere, or that are somebody's own.
pub fn bad_path(dice: &mut Dice) -> String {
    let fixed: &[&str] = &[
        "",
        "/",
        ".",
        "..",
        "/etc/passwd",
        "//x",
        "../x",
        "x/..",
        "x/../../y",
        "./x",
        "x/.",
        "x//y",
        "x/",
        "x\\y",
        "..\\x",
        "\\\\host\\share",
        "C:",
        "C:\\x",
        "c:x",
        "z:/x",
        "x\0y",
        "\0",
        "manifest.json",
        "backups",
        "backups/x",
        ".env",
        "vault.key",
        "secrets.json",
        "http-secret",
        ".last_version",
        "app.lock",
        "app.pid",
        ".nbak-restore/new",
        ".nbak-scratch-00/lock",
        "memory/../../../../etc/cron.d/x",
    ];
    match dice.below(6) {
        0 => "../".repeat(1 + dice.below(40)) + "outside/facts.txt",
        1 => vec!["x"; 256 + dice.below(600)].join("/"),
        2 => "x".repeat(256 + dice.below(5000)),
        3 => {
            let parts: Vec<&str> =
                (0..2 + dice.below(6)).map(|_| dice.pick(&["memory", "a", "deep", "..", ".", "", "b"])).collect();
            let path = parts.join("/");
            // Some of those are good ones.
            if nbak::export::names::check_path(&path).is_ok() { path + "/.." } else { path }
        }
        _ => dice.pick(fixed).to_owned(),
    }
}

/// Makes a hostile backup in the new folder `into`. `outside` is what [`outside`] made.
pub fn make(seed: u64, into: &Path, outside: &Path) -> Hostile {
    let mut dice = Dice::new(seed);
    let (encrypted, signed) = (dice.coin(), dice.coin());
    let mut shop = Workshop::new(encrypted, signed);
    let (what, verdict) = match dice.below(5) {
        0 => entries(&mut dice, &mut shop, into),
        1 => contents(&mut dice, &mut shop, into),
        2 => places(&mut dice, &shop, into, outside),
        3 => fields(&mut dice, &mut shop, into),
        _ => text(&mut dice, &shop, into),
    };
    let of =
        format!("{}{}", if encrypted { "sealed, " } else { "plain, " }, if signed { "signed" } else { "unsigned" });
    Hostile { what: format!("{of}: {what}"), verdict, signed }
}

type Made = (String, Verdict);

/// Entries of the manifest that cannot be; signed anew.
fn entries(dice: &mut Dice, shop: &mut Workshop, into: &Path) -> Made {
    let at = dice.below(shop.manifest.files.len());
    let made = match dice.below(6) {
        0 => {
            let path = bad_path(dice);
            shop.manifest.files[at].path.clone_from(&path);
            (format!("an entry is called {:?}", &path[..path.len().min(60)]), Verdict::Unreadable)
        }
        1 => {
            let path = bad_path(dice);
            let entry = FileEntry { path: path.clone(), ..shop.manifest.files[at].clone() };
            shop.manifest.files.push(entry);
            (format!("one more entry is called {:?}", &path[..path.len().min(60)]), Verdict::Unreadable)
        }
        2 => {
            let again = shop.manifest.files[at].clone();
            shop.manifest.files.push(again);
            ("an entry stands there twice".to_owned(), Verdict::Unreadable)
        }
        3 => {
            let file = shop.files[dice.below(shop.files.len())].0.clone();
            shop.manifest.files.push(FileEntry {
                path: format!("{file}/below"),
                kind: if dice.coin() { Kind::Directory } else { Kind::KuzuDir },
                size: 0,
                sha256: String::new(),
                mode: None,
                mtime_ms: None,
            });
            ("something is below a file".to_owned(), Verdict::Unreadable)
        }
        4 => {
            let signed = shop.manifest.own.is_some();
            shop.add("MEMORY/facts.txt", Kind::File, b"other facts");
            let verdict = if signed { Verdict::Either } else { Verdict::Noticed };
            ("two entries differ in case only".to_owned(), verdict)
        }
        _ => {
            let (path, kind) = [("gone.txt", Kind::File), ("gone.db", Kind::Sqlite), ("gone", Kind::Directory)][at % 3];
            shop.add(path, kind, b"gone");
            shop.files.retain(|(path, _, _)| !path.starts_with("gone"));
            shop.settle();
            shop.write(into);
            return (format!("{path} is missing"), Verdict::Noticed);
        }
    };
    shop.settle();
    shop.write(into);
    made
}

/// Files whose content is not what it should be.
fn contents(dice: &mut Dice, shop: &mut Workshop, into: &Path) -> Made {
    let encrypted = shop.manifest.encrypted;
    let at = dice.below(shop.files.len());
    let path = shop.files[at].0.clone();
    let made = match dice.below(8) {
        0 => {
            let other = (at + 1 + dice.below(shop.files.len() - 1)) % shop.files.len();
            let same = shop.files[at].2 == shop.files[other].2;
            let (one, two) = (shop.files[at].2.clone(), shop.files[other].2.clone());
            (shop.files[at].2, shop.files[other].2) = (two, one);
            let verdict = if same { Verdict::Either } else { Verdict::Noticed };
            (format!("{path} and {} are swapped", shop.files[other].0), verdict)
        }
        1 => {
            // With the hashes too. Nothing but SQLite can tell, where nobody signs; so a signature is left as it was.
            let old = shop.manifest.own.clone();
            let (database, file) = (0, 2 + dice.below(shop.files.len() - 2));
            let stored = shop.files[file].2.clone();
            shop.replace(database, stored);
            shop.manifest.own = old;
            // An empty file is an empty database.
            let empty = shop.files[file].1.is_empty() && shop.manifest.own.is_none();
            ("a file in a database's place".to_owned(), if empty { Verdict::Either } else { Verdict::Noticed })
        }
        2 if encrypted => {
            let plain = shop.files[at].1.clone();
            shop.replace(at, plain);
            (format!("{path} is plain in a sealed backup, and the manifest says so"), Verdict::Noticed)
        }
        3 if encrypted => {
            let foreign = sealed(&shop.files[at].1, OTHER_KEY);
            shop.replace(at, foreign);
            (format!("{path} is sealed under another key, and the manifest says so"), Verdict::Noticed)
        }
        4 if encrypted => {
            let mut short = shop.files[at].2.clone();
            short.truncate(4 + dice.below(29));
            shop.replace(at, short);
            (format!("{path} is a piece of an NBAK header, and the manifest says so"), Verdict::Noticed)
        }
        5 => {
            let stored = &mut shop.files[at].2;
            if stored.is_empty() || dice.coin() {
                stored.extend(vec![b'x'; 1 + dice.below(300)]);
                (format!("{path} is longer"), Verdict::Noticed)
            } else {
                let end = dice.below(stored.len());
                stored.truncate(end);
                (format!("{path} is cut at {end}"), Verdict::Noticed)
            }
        }
        6 => {
            // A database that is damaged, and sealed and signed as it is.
            let mut damaged = database().to_vec();
            let end = damaged.len();
            damaged[if dice.coin() { 100..end } else { end / 2..end }].fill(0xff);
            let stored = if encrypted { sealed(&damaged, KEY) } else { damaged };
            shop.replace(0, stored);
            ("a damaged database, signed".to_owned(), Verdict::Noticed)
        }
        _ => {
            let stored = &mut shop.files[at].2;
            if stored.is_empty() {
                stored.push(0);
            } else {
                let place = dice.below(stored.len());
                stored[place] ^= 1 << dice.below(8);
            }
            (format!("a bit of {path} is flipped"), Verdict::Noticed)
        }
    };
    shop.write(into);
    made
}

/// Something else in a file's or folder's place; what it leads to has the right content.
fn places(dice: &mut Dice, shop: &Workshop, into: &Path, outside: &Path) -> Made {
    shop.write(into);
    let file =
        dice.pick(&["history.db", "memory/facts.txt", "memory/deep/note.txt", "memory/empty.txt", "config.json"]);
    let folder = dice.pick(&["memory", "memory/deep", "knowledge-graph"]);
    let manifest = into.join("manifest.json");
    let what = match dice.below(9) {
        0 => {
            fs::remove_dir_all(into.join("memory")).expect("removed");
            symlink(outside, into.join("memory")).expect("linked");
            "a link to a folder outside".to_owned()
        }
        1 => {
            let (from, to) = (into.join(folder), into.join("elsewhere"));
            fs::rename(&from, &to).expect("renamed");
            symlink(&to, &from).expect("linked");
            format!("{folder} is a link to the same content")
        }
        2 => {
            let (from, to) = (into.join(file), into.join("elsewhere"));
            fs::rename(&from, &to).expect("renamed");
            symlink(&to, &from).expect("linked");
            format!("{file} is a link to the same content")
        }
        3 => {
            fs::remove_file(into.join(file)).expect("removed");
            fifo(&into.join(file));
            format!("{file} is a pipe")
        }
        4 => {
            fs::remove_file(into.join(file)).expect("removed");
            fs::create_dir(into.join(file)).expect("made");
            format!("{file} is a folder")
        }
        5 => {
            fs::remove_dir_all(into.join(folder)).expect("removed");
            fs::write(into.join(folder), b"").expect("written");
            format!("{folder} is a file")
        }
        6 => {
            let text = fs::read(&manifest).expect("read");
            fs::write(into.join("elsewhere"), text).expect("written");
            fs::remove_file(&manifest).expect("removed");
            symlink("elsewhere", &manifest).expect("linked");
            return ("the manifest is a link".to_owned(), Verdict::Unreadable);
        }
        7 => {
            fs::remove_file(&manifest).expect("removed");
            match dice.below(4) {
                0 => fifo(&manifest),
                1 => fs::create_dir(&manifest).expect("made"),
                2 => symlink("/dev/zero", &manifest).expect("linked"),
                _ => {}
            }
            return ("the manifest is no file".to_owned(), Verdict::Unreadable);
        }
        _ => {
            fs::remove_file(into.join(file)).expect("removed");
            symlink("/dev/zero", into.join(file)).expect("linked");
            format!("{file} is a link to a device")
        }
    };
    (what, Verdict::Noticed)
}

/// The manifest says something else than when it was signed; or its signature is gone.
fn fields(dice: &mut Dice, shop: &mut Workshop, into: &Path) -> Made {
    let signed = shop.manifest.own.is_some();
    let at = dice.below(shop.manifest.files.len());
    let before = shop.manifest.clone();
    let manifest = &mut shop.manifest;
    let entry = &mut manifest.files[at];
    let other = dice.pick(&["history.db", "memory", "config.json", "x", "memory/facts.txt"]);
    let what = match dice.below(14) {
        0 => {
            manifest.encrypted = !manifest.encrypted;
            "`encrypted`"
        }
        1 => {
            entry.size = dice.next() >> dice.below(64).max(11);
            "`size_bytes`"
        }
        2 => {
            entry.sha256 = hash(b"other");
            "`checksum_sha256`"
        }
        3 => {
            entry.kind = [Kind::Sqlite, Kind::File, Kind::Directory, Kind::KuzuDir][dice.below(4)];
            "`type`"
        }
        4 => {
            other.clone_into(&mut entry.path);
            "`path`"
        }
        5 => {
            manifest.files.swap(0, at);
            "the order"
        }
        6 => {
            manifest.files.remove(at);
            manifest.checksum = overall_checksum(&manifest.files);
            "an entry less"
        }
        7 => {
            manifest.checksum = hash(b"other");
            "`checksum`"
        }
        8 => {
            manifest.source_dir.push('x');
            "the directory"
        }
        9 => {
            manifest.version.push('x');
            "`version`"
        }
        10 => {
            manifest.created_ms += 1 + (dice.next() >> 24) as i64;
            manifest.created_at = iso(manifest.created_ms);
            "`created_at`"
        }
        11 => {
            manifest.dialect = Dialect::Lynox;
            "the dialect"
        }
        12 => {
            entry.mode = Some(0o4777);
            "`mode`"
        }
        _ => {
            manifest.own = None;
            "the MAC is gone"
        }
    };
    let differs = shop.manifest != before;
    shop.write(into);
    // Where nobody signs, what is about no file's content can be changed by anybody.
    let free =
        ["an entry less", "the order", "the directory", "`version`", "`created_at`", "the dialect", "the MAC is gone"];
    let verdict = match () {
        () if !differs => Verdict::Either,
        () if signed => Verdict::Noticed,
        () if free.contains(&what) || what == "`type`" => Verdict::Either,
        () => Verdict::Noticed,
    };
    (format!("the manifest was changed: {what} ({at})"), verdict)
}

/// The manifest's text: cut, flipped, spliced, inflated.
fn text(dice: &mut Dice, shop: &Workshop, into: &Path) -> Made {
    shop.write(into);
    let path = into.join("manifest.json");
    let good = fs::read(&path).expect("read");
    let mut value: Value = serde_json::from_slice(&good).expect("JSON");
    let (bytes, what, verdict) = match dice.below(10) {
        0 => {
            let end = dice.below(good.len());
            (good[..end].to_vec(), format!("cut at {end}"), Verdict::Unreadable)
        }
        1 => {
            let mut bytes = good;
            let flips = 1 + dice.below(4);
            for _ in 0..flips {
                let place = dice.below(bytes.len());
                bytes[place] ^= 1 << dice.below(8);
            }
            (bytes, format!("{flips} flips"), Verdict::Either)
        }
        2 => {
            let (from, to, length) = (dice.below(good.len()), dice.below(good.len()), dice.below(200));
            let piece = good[from..good.len().min(from + length)].to_vec();
            let mut bytes = good;
            bytes.splice(to..to, piece);
            (bytes, "a piece of it stands somewhere else again".to_owned(), Verdict::Either)
        }
        3 => {
            let junk: &[Value] = &[
                json!(null),
                json!(-1),
                json!(1.5),
                json!(1e300),
                json!([]),
                json!({}),
                json!(true),
                json!(""),
                json!("x"),
                json!(u64::MAX),
                json!(i64::MIN),
                json!([[[]]]),
                json!("\u{0}"),
                json!("\u{202e}txt.exe"),
            ];
            let junk = junk[dice.below(junk.len())].clone();
            let entry = dice.below(value["files"].as_array().expect("a list").len());
            let target = match dice.below(3) {
                0 => &mut value,
                1 => &mut value["files"][entry],
                _ if shop.manifest.own.is_some() => &mut value["nbak"],
                _ => &mut value,
            };
            let fields = target.as_object_mut().expect("an object");
            let at = dice.below(fields.len());
            let (name, slot) = fields.iter_mut().nth(at).expect("a field");
            let what = format!("`{name}` is {junk}");
            *slot = junk;
            (serde_json::to_vec(&value).expect("JSON"), what, Verdict::Either)
        }
        4 => {
            let fields = value.as_object_mut().expect("an object");
            let known = ["version", "created_at", "nodyn_dir", "encrypted", "files", "checksum"];
            let gone = dice.pick(&known);
            fields.remove(gone);
            (serde_json::to_vec(&value).expect("JSON"), format!("`{gone}` is missing"), Verdict::Unreadable)
        }
        5 => {
            let text = String::from_utf8(good).expect("UTF-8");
            let field =
                dice.pick(&["\"version\": \"x\"", "\"encrypted\": false", "\"files\": []", "\"x\": 0, \"x\": 1"]);
            let bytes = text.replacen('{', &format!("{{ {field},"), 1).into_bytes();
            (bytes, format!("{field} stands there too"), Verdict::Unreadable)
        }
        6 => {
            let depth = 200 + dice.below(20_000);
            let open = dice.pick(&["[", "{\"a\":"]).repeat(depth);
            let text = String::from_utf8(good).expect("UTF-8");
            let bytes = text.replacen("\"files\": [", &format!("\"files\": [{open}"), 1).into_bytes();
            (bytes, format!("{depth} levels"), Verdict::Unreadable)
        }
        7 => {
            let count = 1000 + dice.below(20_000);
            let entry = r#"{"path":"memory","size_bytes":0,"checksum_sha256":"","type":"directory"},"#;
            let text = String::from_utf8(good).expect("UTF-8");
            let bytes = text.replacen("\"files\": [", &format!("\"files\": [{}", entry.repeat(count)), 1).into_bytes();
            (bytes, format!("{count} entries more"), Verdict::Unreadable)
        }
        8 => {
            let (length, byte) = (dice.below(70_000), dice.next() as u8);
            (vec![byte; length], format!("{length} times {byte}"), Verdict::Unreadable)
        }
        _ => {
            let mut bytes = good;
            bytes.extend_from_slice(dice.pick(&["}", "\0", "{}", "x", "[]"]).as_bytes());
            (bytes, "something stands behind it".to_owned(), Verdict::Unreadable)
        }
    };
    fs::write(&path, bytes).expect("written");
    (format!("the manifest's text: {what}"), verdict)
}
