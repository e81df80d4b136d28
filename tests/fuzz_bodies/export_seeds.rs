//! What fuzzing manifests and names begins from.

use nbak::crypto::vault::MacSource;
use nbak::export::dialect::Dialect;
use nbak::export::manifest::lacks::Lacks;
use nbak::export::manifest::{FileEntry, Kind, Manifest, Own, iso, overall_checksum};

use super::{Named, named};

fn entry(path: &str, kind: Kind) -> FileEntry {
    FileEntry {
        path: path.to_owned(),
        size: if kind.is_directory() { 0 } else { 7 },
        sha256: if kind.is_directory() { String::new() } else { "ab".repeat(32) },
        kind,
        mode: None,
        mtime_ms: None,
    }
}

fn good(dialect: Dialect, own: bool) -> Manifest {
    let mut files = vec![
        entry("history.db", Kind::Sqlite),
        entry("memory", Kind::Directory),
        entry("memory/später-日本.txt", Kind::File),
        entry("knowledge-graph", Kind::KuzuDir),
    ];
    if own {
        files[0].mode = Some(0o600);
        files[0].mtime_ms = Some(-1);
    }
    Manifest {
        version: "1.0.0".to_owned(),
        created_at: iso(1_774_407_600_000),
        created_ms: 1_774_407_600_000,
        dialect,
        source_dir: "/home/user/.nodyn".to_owned(),
        encrypted: own,
        checksum: overall_checksum(&files),
        files,
        own: own.then(|| Own {
            snapshot: "5a".repeat(16),
            mac: [1; 32],
            mac_key: MacSource::VaultArgon2id,
            mac_salt: [2; 32],
            instance: None,
            before_restore: false,
            lacks: Lacks::default(),
        }),
    }
}

fn with(change: impl FnOnce(&mut Manifest)) -> Vec<u8> {
    let mut manifest = good(Dialect::Nodyn, true);
    change(&mut manifest);
    manifest.to_json()
}

fn lack(manifest: &mut Manifest, named: &[(&str, &str)], count: u64) {
    let named = named.iter().map(|(path, why)| ((*path).to_owned(), (*why).to_owned())).collect();
    manifest.own.as_mut().expect("ours").lacks = Lacks { named, count };
}

pub fn manifest() -> Named {
    let text = String::from_utf8(good(Dialect::Nodyn, true).to_json()).expect("JSON is UTF-8");
    let swapped = |from: &str, to: &str| text.replacen(from, to, 1).into_bytes();
    named([
        ("nothing", Vec::new()),
        ("plain", good(Dialect::Nodyn, false).to_json()),
        ("lynox", good(Dialect::Lynox, false).to_json()),
        ("signed", text.clone().into_bytes()),
        ("lacks", with(|m| lack(m, &[("pipe", "a pipe")], 2))),
        ("lacks less than it names", with(|m| lack(m, &[("a", ""), ("b", "")], 1))),
        ("no files", with(|m| m.files.clear())),
        ("traversal", with(|m| "memory/../../x".clone_into(&mut m.files[0].path))),
        ("absolute", with(|m| "/etc/passwd".clone_into(&mut m.files[0].path))),
        ("twice", with(|m| m.files.push(m.files[0].clone()))),
        ("below a file", with(|m| m.files.push(entry("history.db/x", Kind::File)))),
        ("case", with(|m| m.files.push(entry("MEMORY/x", Kind::File)))),
        ("manifest in itself", with(|m| "manifest.json".clone_into(&mut m.files[0].path))),
        ("key file", with(|m| ".env".clone_into(&mut m.files[0].path))),
        ("zero byte and controls", with(|m| "a\0b".clone_into(&mut m.files[0].path))),
        ("controls in a path", with(|m| "a\u{1}\u{7f}\u{2028}".clone_into(&mut m.files[0].path))),
        ("size beyond a double", with(|m| m.files[0].size = 1 << 53)),
        ("largest size", with(|m| m.files[0].size = (1 << 53) - 1)),
        ("negative size", swapped("\"size_bytes\": 7", "\"size_bytes\": -7")),
        ("fraction", swapped("\"size_bytes\": 7", "\"size_bytes\": 7.0")),
        ("field twice", swapped("\"encrypted\"", "\"encrypted\": true, \"encrypted\"")),
        ("unknown field twice", swapped("\"version\"", "\"x\": 1, \"x\": [{}], \"version\"")),
        ("both dialects", swapped("\"version\"", "\"lynox_dir\": \"\", \"version\"")),
        ("upper case digits", swapped(&"ab".repeat(32), &"AB".repeat(32))),
        ("escaped names", swapped("\"path\"", "\"\\u0070ath\"")),
        ("lone surrogate", swapped("history.db", "\\ud800")),
        ("later format", swapped("\"format\": 1", "\"format\": 2")),
        ("other key", swapped("vault-argon2id", "none")),
        ("nested", format!("{{\"x\":{}", "[".repeat(2000)).into_bytes()),
        ("nested known", text.replacen("\"files\": [", &format!("\"files\": [{}", "[".repeat(500)), 1).into_bytes()),
        ("cut", text.as_bytes()[..text.len() / 2].to_vec()),
        ("twice in a row", [text.as_bytes(), text.as_bytes()].concat()),
    ])
}

pub fn backup_names() -> Named {
    let seeds: [(&str, &str); 12] = [
        ("nothing", ""),
        ("documented", "20260325T030000Z\n20260325T030000Z-1\n20260325T030000Z-12"),
        ("of the application", "2026-03-26T03000012Z\n2026-03-26T03000012Z-3"),
        ("no dates", "20261325T030000Z\n20260325T030000Z-0\n2026-03-26T030000Z\n20260325T250000Z\nZ\n-"),
        ("scratch", "20260325T030000Z.tmp\n.nbak-scratch-0\n.tmp"),
        ("good paths", "history.db\nmemory\nmemory/a\nmemory/später-日本.txt\na-b\na/b\na.b"),
        ("traversal", "..\n../x\na/..\n.\n./a\na//b\na/\n/\n/etc/passwd"),
        ("other systems", "C:\nc:/a\na\\b\n\\\\host\\share\nc:a"),
        ("own names", "manifest.json\nbackups\nbackups/x\n.env\nvault.key\nx.lock\nworkspace/.env"),
        ("below a file", "a/b/c\na!\na\na-b\nab"),
        ("case", "README\nreadme\nA/x\na/y\nSTRASSE\nstraße\nİ\ni̇"),
        ("zero byte", "a\0b\n\0"),
    ];
    let long =
        ("long".to_owned(), [vec!["x"; 256].join("/"), "y".repeat(256), "z/".repeat(2049)].join("\n").into_bytes());
    seeds.into_iter().map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).chain([long]).collect()
}
