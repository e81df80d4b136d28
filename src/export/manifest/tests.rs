//! What the manifest's reader takes and refuses, and that what was read is written again byte by byte.
//!
//! The application's own manifests are the measure of the form.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn sample() -> Manifest {
    let file = |path: &str, kind| FileEntry {
        path: path.to_owned(),
        size: 7,
        sha256: "ab".repeat(32),
        kind,
        mode: Some(0o600),
        mtime_ms: Some(-1),
    };
    let folder = FileEntry { size: 0, sha256: String::new(), mode: None, ..file("memory", Kind::Directory) };
    let files = vec![file("history.db", Kind::Sqlite), folder, file("memory/ä", Kind::File)];
    Manifest {
        version: "1.0.0".to_owned(),
        created_at: "2026-03-25T03:00:00.000Z".to_owned(),
        created_ms: 1_774_407_600_000,
        dialect: Dialect::Nodyn,
        source_dir: "/home/user/.nodyn".to_owned(),
        encrypted: true,
        checksum: overall_checksum(&files),
        files,
        own: Some(Own {
            snapshot: "0f".repeat(16),
            mac: [1; 32],
            mac_key: MacSource::Vault,
            mac_salt: [2; 32],
            instance: None,
            before_restore: false,
            lacks: Lacks::default(),
        }),
    }
}

fn text(manifest: &Manifest) -> String {
    String::from_utf8(manifest.to_json()).expect("JSON is UTF-8")
}

#[test]
fn the_application_s_own_are_written_again_byte_by_byte() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference");
    for name in [
        "nodyn-plain/2026-11-22T21124938Z",
        "nodyn-encrypted/2026-11-22T21125092Z",
        "lynox-encrypted/2026-11-22T21125295Z",
    ] {
        let bytes = std::fs::read(folder.join(name).join(names::MANIFEST)).expect("a sample");
        let manifest = Manifest::parse(&bytes).expect("a manifest");
        assert!(manifest.to_json() == bytes, "{name}");
        assert!(manifest.checksum_holds() && manifest.own.is_none(), "{name}");
        assert_eq!(manifest.created_at, iso(manifest.created_ms));
        assert_eq!(manifest.files.iter().any(|entry| entry.kind == Kind::KuzuDir), name.starts_with("nodyn"));
    }
}

#[test]
fn what_is_wrong_is_named() {
    let good = text(&sample());
    assert_eq!(Manifest::parse(good.as_bytes()).expect("a manifest"), sample());
    let ab = "ab".repeat(32);
    for (from, to, say) in [
        ("\"encrypted\": true", "\"encrypted\": \"true\"", "`encrypted`"),
        ("\"encrypted\": true,", "", "`encrypted` is missing"),
        ("\"encrypted\"", "\"encrypted\": true, \"encrypted\"", "`encrypted` stands there twice"),
        ("\"version\"", "\"x\": 1, \"x\": 2, \"version\"", "`x` stands there twice"),
        ("\"version\"", "\"lynox_dir\": \"\", \"version\"", "`nodyn_dir`"),
        ("\"nodyn_dir\"", "\"other_dir\"", "`nodyn_dir` is missing"),
        ("03:00:00.000Z", "03:00:00Z", "`created_at`"),
        ("2026-03-25T", "2026-02-30T", "`created_at`"),
        ("\"size_bytes\": 7", "\"size_bytes\": -7", "`history.db`: `size_bytes`"),
        ("\"size_bytes\": 7", "\"size_bytes\": 7.0", "`history.db`: `size_bytes`"),
        ("\"size_bytes\": 7", "\"size_bytes\": 7e0", "`history.db`: `size_bytes`"),
        ("\"size_bytes\": 7", "\"size_bytes\": 9007199254740992", "`history.db`: `size_bytes`"),
        ("\"size_bytes\": 7", "\"size_bytes\": 7, \"size_bytes\": 7", "`history.db`: `size_bytes` stands there twice"),
        ("\"size_bytes\": 0", "\"size_bytes\": 1", "`memory`: `size_bytes`"),
        ("\"checksum_sha256\": \"\"", "\"checksum_sha256\": \"00\"", "`memory`: `checksum_sha256`"),
        (&*ab, &*ab.to_uppercase(), "`history.db`: `checksum_sha256`"),
        (&*ab, &ab[1..], "`history.db`: `checksum_sha256`"),
        ("\"sqlite\"", "\"SQLite\"", "`history.db`: `type`"),
        ("\"mode\": 384", "\"mode\": 4096", "`history.db`: `mode`"),
        ("\"mtime_ms\": -1", "\"mtime_ms\": 9223372036854775807", "`history.db`: `mtime_ms`"),
        ("\"path\": \"history.db\",", "", "files[0]: `path` is missing"),
        ("\"path\": \"history.db\"", "\"path\": \"../history.db\"", "`../history.db`: `path`"),
        ("\"history.db\"", "\"memory/ä\"", "stands there twice"),
        ("\"history.db\"", "\"memory/ä/below\"", "is below it"),
        ("\"format\": 1", "\"format\": 2", "`format`"),
        ("\"vault\"", "\"vaults\"", "`mac_key`"),
        ("\"mac_salt\": \"02", "\"mac_salt\": \"0x", "`mac_salt`"),
        ("\"snapshot\": \"0f", "\"snapshot\": \"0F", "`snapshot`"),
        ("{\n  \"v", "[{\n  \"v", "a manifest"),
        ("\"files\": [", "\"files\": {}, \"f\": [", "`files`"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        let error = Manifest::parse(bad.as_bytes()).expect_err(to);
        assert!(error.is_integrity() && error.to_string().contains(say), "{to}: {error}");
    }
    let more = good.replacen("{\n", "{\n \"later\": {\"a\": [1, null]},", 1);
    let more = more.replacen("\"path\"", "\"later\": -1.5, \"path\"", 1);
    assert_eq!(Manifest::parse(more.as_bytes()).expect("unknown fields are no fault"), sample());
    for cut in 0..good.len() {
        assert!(Manifest::parse(&good.as_bytes()[..cut]).is_err(), "cut at {cut}");
    }
    assert!(Manifest::parse((good + "\n{}").as_bytes()).is_err(), "something behind it");
}

/// `mac_input` has to tell apart every two manifests that mean something else.
#[test]
fn every_field_is_under_the_mac() {
    let change: [fn(&mut Manifest); 20] = [
        |m| m.version.push('1'),
        |m| m.created_at.push('1'),
        |m| m.dialect = Dialect::Lynox,
        |m| m.source_dir.push('1'),
        |m| m.encrypted = false,
        |m| m.checksum.push('1'),
        |m| m.files.truncate(2),
        |m| m.files.swap(0, 2),
        |m| m.files[0].path.push('1'),
        |m| m.files[0].size += 1,
        |m| m.files[0].sha256.push('1'),
        |m| m.files[0].kind = Kind::File,
        |m| m.files[1].kind = Kind::KuzuDir,
        |m| m.files[0].mode = None,
        |m| m.files[0].mtime_ms = Some(0),
        |m| m.files[1].mode = Some(0),
        |m| m.own.as_mut().expect("there").snapshot.push('1'),
        |m| m.own.as_mut().expect("there").mac_key = MacSource::Store,
        |m| m.own.as_mut().expect("there").mac_salt[31] ^= 1,
        // What moves from one field into the next.
        |m| {
            let last = m.version.pop().expect("some");
            m.created_at.insert(0, last);
        },
    ];
    let mut inputs = vec![sample().mac_input()];
    for change in change {
        let mut other = sample();
        change(&mut other);
        let input = other.mac_input();
        assert!(!inputs.contains(&input), "{other:?}");
        inputs.push(input);
    }
    let mut other = sample();
    other.own.as_mut().expect("there").mac = [9; 32];
    assert_eq!(other.mac_input(), inputs[0], "the MAC is not under itself");
}

#[test]
fn limits_hold() {
    let mut many = sample();
    let folder = |at: usize| FileEntry {
        path: format!("{at}"),
        size: 0,
        sha256: String::new(),
        kind: Kind::Directory,
        mode: None,
        mtime_ms: None,
    };
    let json = |manifest: &Manifest| serde_json::to_vec(manifest).expect("JSON");
    many.files = (0..30_000).map(folder).collect();
    assert_eq!(Manifest::parse(&json(&many)).expect("many are fine").files.len(), 30_000);
    // As short as entries can be, so that it is the count and not the bytes that ends it.
    let entry = r#"{"path":"a","size_bytes":0,"checksum_sha256":"","type":"kuzu_dir"}"#;
    let text = format!("{{\"files\":[{}", format!("{entry},").repeat(ENTRIES_MAX + 1));
    let error = Manifest::parse(text.as_bytes()).expect_err("too many");
    assert!(error.to_string().contains(if text.len() as u64 > BYTES_MAX { "larger" } else { "entries" }), "{error}");
    let error = Manifest::parse(&vec![b' '; BYTES_MAX as usize + 1]).expect_err("too large");
    assert!(error.to_string().contains("larger"), "{error}");
    assert!(Manifest::parse("[".repeat(1 << 20).as_bytes()).is_err());
    let nested = format!("{{\"x\":{}", "[".repeat(1 << 20));
    assert!(Manifest::parse(nested.as_bytes()).is_err());
}

type Entry = (u64, [u8; 32], usize, Option<u16>, Option<i32>, String);

fn entries() -> impl Strategy<Value = Vec<FileEntry>> {
    let entry = (any::<u64>(), any::<[u8; 32]>(), 0..4_usize, any::<Option<u16>>(), any::<Option<i32>>(), "\\PC{0,12}");
    prop::collection::vec(entry, 0..12).prop_map(|entries| {
        let entry = |(at, (size, hash, kind, mode, mtime, name)): (usize, Entry)| {
            let kind = Kind::ALL[kind];
            FileEntry {
                path: format!("{at}/{}", name.replace(['/', '\\', '\0'], "_") + "_"),
                size: if kind.is_directory() { 0 } else { size & NUMBER_MAX },
                sha256: if kind.is_directory() { String::new() } else { hex(&hash) },
                kind,
                mode: mode.map(|mode| u32::from(mode & 0o7777)),
                mtime_ms: mtime.map(|ms| i64::from(ms) * 1_000_000),
            }
        };
        entries.into_iter().enumerate().map(entry).collect()
    })
}

fn lacks(named: &[&str], count: u64) -> Lacks {
    Lacks { named: named.iter().map(|path| ((*path).to_owned(), "a pipe".to_owned())).collect(), count }
}

/// What a backup lacks is vouched for by the salt, and the message of the MAC is what it was before there was such.
#[test]
fn what_is_lacking_cannot_be_changed_or_taken_away() {
    let said = lacks(&["pipe", "deep/pipe"], 7);
    let mut manifest = sample();
    let own = manifest.own.as_mut().expect("ours");
    assert!(own.lacks.is_in(&own.mac_salt) && lacks(&[], 0).is_in(&[9; 32]));
    assert_eq!(lacks(&[], 0).salt([9; 32]), [9; 32], "of a complete one all is random");
    own.mac_salt = said.salt([9; 32]);
    own.lacks = said.clone();
    assert_eq!(own.mac_salt[..12], [9; 12]);
    let salt = own.mac_salt;
    let back = Manifest::parse(text(&manifest).as_bytes()).expect("read");
    assert_eq!(back, manifest);
    let mut silent = manifest.clone();
    silent.own.as_mut().expect("ours").lacks = Lacks::default();
    assert_eq!(silent.mac_input(), manifest.mac_input(), "who does not know it finds the MAC valid");
    assert!(!text(&silent).contains("lacks"));

    assert!(said.is_in(&salt));
    for other in [lacks(&[], 0), lacks(&["pipe", "deep/pipe"], 2), lacks(&["pipe"], 7), lacks(&["pipe", "deep"], 7)] {
        assert!(!other.is_in(&salt), "{other:?}");
    }
    assert!(!said.is_in(&[9; 32]), "nor can it be added");
    let other = lacks(&["x"], 1).salt([9; 32]);
    assert!(!said.is_in(&other) && !lacks(&[], 0).is_in(&other));
}

#[test]
fn what_cannot_be_lacking_is_refused() {
    let with = |lacks: Lacks| {
        let mut manifest = sample();
        manifest.own.as_mut().expect("ours").lacks = lacks;
        Manifest::parse(text(&manifest).as_bytes()).map_err(|error| error.to_string())
    };
    assert!(with(lacks(&["a"; 100], 5000)).is_ok() && with(lacks(&[], 3)).is_ok());
    assert!(with(lacks(&["a"; 101], 5000)).expect_err("too many").contains("more than 100"));
    assert!(with(lacks(&["a", "b"], 1)).expect_err("too few").contains("less than"));
    assert!(with(lacks(&["a"], u64::MAX)).expect_err("no number").contains("`lacks_count` is more"));
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        files in entries(),
        version in ".{0,20}",
        source_dir in any::<String>(),
        seconds in 0..200_000_000_000_i64,
        encrypted in any::<bool>(),
        own in any::<Option<([u8; 32], [u8; 16], usize)>>(),
        lacks in prop::collection::vec(any::<(String, String)>(), 0..3),
        more in 0..3_u64,
        lynox in any::<bool>(),
    ) {
        let sources = [MacSource::Vault, MacSource::VaultArgon2id, MacSource::Store];
        let manifest = Manifest {
            version,
            created_at: iso(seconds * 997),
            created_ms: seconds * 997,
            dialect: if lynox { Dialect::Lynox } else { Dialect::Nodyn },
            source_dir,
            encrypted,
            checksum: overall_checksum(&files),
            files,
            own: own.map(|(mac, id, source)| Own {
                snapshot: hex(&id),
                mac,
                mac_key: sources[source % 3],
                mac_salt: mac,
                instance: None,
                before_restore: false,
                lacks: Lacks { count: lacks.len() as u64 + more, named: lacks },
            }),
        };
        let json = manifest.to_json();
        let back = Manifest::parse(&json).expect("what was written is read");
        prop_assert!(back.checksum_holds());
        prop_assert_eq!(back.mac_input(), manifest.mac_input());
        prop_assert_eq!(&back, &manifest);
        prop_assert_eq!(back.to_json(), json);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::parse(&bytes);
    }
}
