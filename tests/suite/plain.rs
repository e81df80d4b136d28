//! A store that is protected, and no vault key to encrypt a backup with: nobody gets what everyone can read, unless
//! `backup_encrypt: false` says so.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::common::{KEY, Place, Run};
use crate::drive_common::Cloud;
use serde_json::Value;

const SECRET: &str = "a secret that nobody else is to read";

/// A place whose store opens with a passphrase too, and the file that holds that.
fn place() -> (Place, String) {
    let place = Place { key: Some(KEY), ..Place::empty() };
    fs::set_permissions(&place.data, fs::Permissions::from_mode(0o700)).expect("a mode");
    fs::write(place.data.join("secret"), SECRET).expect("written");
    place.ok(&["backup"]);
    let phrase = place.path("phrase");
    fs::write(&phrase, "correct horse battery staple\n").expect("written");
    let phrase = phrase.display().to_string();
    place.ok(&["key", "add", "--new-passphrase-file", &phrase]);
    (place, phrase)
}

fn configure(place: &Place, text: &str) {
    fs::write(place.data.join("config.json"), text).expect("written");
}

fn backups(place: &Place) -> Vec<Value> {
    let list = place.ok(&["backup", "list", "--json"]);
    list.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The files below `folder` in which the secret can be read.
fn readable(folder: &Path) -> Vec<PathBuf> {
    let all = crate::common::tree(folder).into_iter();
    let found = all.filter(|(_, thing)| thing.bytes.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes()));
    found.map(|(path, _)| path).collect()
}

#[test]
fn no_backup_is_made_that_everyone_can_read_unless_that_is_said() {
    let (place, phrase) = place();
    let folder = place.data.join("backups");
    let run = |args: &[&str]| place.with_key(None, &[&["--passphrase-file", &phrase], args].concat());
    for (nth, text) in ["{}", r#"{"backup_encrypt": true}"#].into_iter().enumerate() {
        configure(&place, text);
        fs::write(place.data.join("new"), text).expect("written");
        let refused = run(&["backup"]);
        assert_eq!(refused.code, 12, "{text}: {refused:?}");
        for words in ["--vault-key-file", "NBAK_BACKUP_ENCRYPT=false", "no backup was written", "snapshot"] {
            assert!(refused.err.contains(words), "{words}: {refused:?}");
        }
        assert!(!refused.err.contains("is not encrypted"), "{refused:?}");
        let to = place.path("elsewhere");
        assert_eq!(run(&["export", "latest", "--to", to.to_str().expect("text")]).code, 12);
        assert!(!to.exists() && backups(&place).len() == 1 && readable(&folder).is_empty(), "{text}");
        // The snapshot stands all the same.
        assert_eq!(place.ok(&["snapshots"]).out.lines().count(), nth + 2, "{text}");
        assert_eq!(place.ok(&["cat", "latest", "new"]).out, text);
    }
    // The key beside the passphrase encrypts, whichever of them opens the store.
    let key = place.path("key");
    fs::write(&key, KEY).expect("written");
    let made = run(&["--vault-key-file", key.to_str().expect("text"), "backup", "--json"]);
    assert!(made.code == 0 && made.out.contains(r#""encrypted":true"#), "{made:?}");
    assert!(readable(&folder).is_empty());
    // For once, and for good.
    for (config, once) in [("{}", Some("false")), (r#"{"backup_encrypt": false}"#, None)] {
        configure(&place, config);
        let mut command = place.command(&["--passphrase-file", &phrase, "backup"]);
        command.env_remove("NODYN_VAULT_KEY").envs(once.map(|value| ("NBAK_BACKUP_ENCRYPT", value)));
        let made = Run::of(command);
        assert!(made.code == 0 && made.err.contains("is not encrypted"), "{made:?}");
    }
    assert_eq!(readable(&folder).len(), 2);
}

/// As the documents of the application promise it.
#[test]
fn without_any_key_backups_are_plain_and_that_is_said() {
    let place = Place::empty();
    fs::write(place.data.join("secret"), SECRET).expect("written");
    for text in ["{}", r#"{"backup_encrypt": true}"#] {
        configure(&place, text);
        let made = place.ok(&["backup"]);
        assert!(made.err.contains("is not encrypted"), "{made:?}");
    }
    assert_eq!(backups(&place).len(), 2);
    assert!(!place.run(&["doctor"]).out.contains("everyone who gets at"), "the store itself is what it says");
}

#[test]
fn a_restore_in_place_is_refused_with_what_leads_on() {
    let (place, phrase) = place();
    fs::write(place.data.join("secret"), "changed").expect("written");
    let run = |args: &[&str]| place.with_key(None, &[&["--passphrase-file", &phrase], args].concat());
    let id = place.ok(&["snapshots"]).out[..8].to_owned();
    let refused = run(&["restore", &id, "--in-place", "--yes"]);
    assert!(refused.code == 12 && refused.err.contains("--without-safety-backup"), "{refused:?}");
    assert_eq!(fs::read_to_string(place.data.join("secret")).expect("read"), "changed");
    assert_eq!(backups(&place).len(), 1);
    // What stood there is in the snapshot that it names.
    let done = run(&["restore", &id, "--in-place", "--yes", "--without-safety-backup"]);
    assert!(done.code == 0 && done.err.contains("there is no safety backup"), "{done:?}");
    assert_eq!(fs::read_to_string(place.data.join("secret")).expect("read"), SECRET);
    let at = done.err.find("; snapshot ").expect("it is named") + "; snapshot ".len();
    assert_eq!(place.ok(&["cat", &done.err[at..at + 8], "secret"]).out, "changed");
    assert!(readable(&place.data.join("backups")).is_empty());
}

/// Each next step as it is worded there, with nothing added.
#[test]
fn what_leads_on_does() {
    let (place, phrase) = place();
    let key = place.path("fresh");
    fs::write(&key, crate::common::OTHER_KEY).expect("written");
    let run = |args: &[&str], encrypt: Option<&str>| {
        let mut command = place.command(&[&["--passphrase-file", &phrase], args].concat());
        command.env_remove("NODYN_VAULT_KEY").envs(encrypt.map(|value| ("NBAK_BACKUP_ENCRYPT", value)));
        Run::of(command)
    };
    let wanted = place.ok(&["snapshots"]).out[..8].to_owned();
    for (nth, way) in
        ["--vault-key-file FILE", "NBAK_BACKUP_ENCRYPT=false", "--without-safety-backup"].iter().enumerate()
    {
        fs::write(place.data.join("secret"), format!("changed {nth}")).expect("written");
        // What a person gives first; from the second time on `latest` is what an earlier one was to replace.
        let name = if nth == 0 { "latest" } else { &wanted };
        let refused = run(&["restore", name, "--in-place", "--yes"], None);
        assert!(refused.code == 12 && refused.err.contains(way), "{refused:?}");
        let again = refused.err.split("do so with `nbak ").nth(1).and_then(|rest| rest.split('`').next());
        let again = again.unwrap_or_else(|| panic!("{refused:?}"));
        // With what was given, which the next one needs too.
        assert_eq!(again, format!("--passphrase-file {phrase} restore {wanted} --in-place"));
        let again = again.split_once(&phrase).map_or(again, |(_, rest)| rest.trim_start());
        let mut words: Vec<&str> = again.split(' ').chain(["--yes"]).collect();
        match nth {
            0 => words.extend(["--vault-key-file", key.to_str().expect("text")]),
            1 => {}
            _ => words.push(way),
        }
        let done = run(&words, (nth == 1).then_some("false"));
        assert_eq!(done.code, 0, "{way}: {done:?}");
        assert_eq!(fs::read_to_string(place.data.join("secret")).expect("read"), SECRET, "{way}");
        assert_eq!(backups(&place).len(), [2, 3, 3][nth], "{way}");
    }
    assert!(backups(&place)[1]["encrypted"] == true && backups(&place)[2]["encrypted"] == false);
}

#[test]
fn doctor_finds_a_newest_backup_that_everyone_can_read() {
    let (place, _) = place();
    let bad = || place.run(&["doctor"]).out.contains("everyone who gets at");
    assert!(!bad());
    configure(&place, r#"{"backup_encrypt": false}"#);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    place.ok(&["backup"]);
    assert!(!bad(), "it is meant");
    configure(&place, "{}");
    let doctor = place.run(&["doctor"]);
    assert!(bad() && doctor.code == 1, "{doctor:?}");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    place.ok(&["backup"]);
    assert!(!bad(), "the newest is encrypted");
}

#[test]
fn what_everyone_can_read_is_not_uploaded_unless_that_is_said() {
    let cloud = Cloud::new();
    fs::write(cloud.place.data.join("secret"), SECRET).expect("written");
    cloud.grant();
    configure(&cloud.place, r#"{"backup_encrypt": false, "backup_gdrive": false}"#);
    cloud.ok(&["backup"]);
    let name = backups(&cloud.place)[0]["name"].as_str().expect("a name").to_owned();
    let before = cloud.fake.files().len();
    configure(&cloud.place, "{}");
    let refused = cloud.run(&["backup", "gdrive", "upload", &name]);
    assert!(refused.code == 12 && refused.err.contains("backup_encrypt"), "{refused:?}");
    // One that waits for its upload keeps no other back, and is told of once.
    assert_eq!(cloud.fake.files().len(), before);
    let waiting = cloud.place.data.join(".nbak-state/waiting");
    fs::create_dir_all(&waiting).expect("made");
    let folder = cloud.place.data.join("backups");
    fs::write(waiting.join(&name), folder.to_str().expect("text")).expect("written");
    fs::write(cloud.place.data.join("new"), "new").expect("written");
    let told = cloud.run(&["backup"]);
    assert!(told.code == 14 && told.err.contains(&name), "{told:?}");
    assert!(!waiting.exists() && !cloud.fake.files().iter().any(|file| file.name == name));
    cloud.ok(&["backup"]);
    configure(&cloud.place, r#"{"backup_encrypt": false}"#);
    cloud.ok(&["backup", "gdrive", "upload", &name]);
    assert!(cloud.fake.files().iter().any(|file| file.name == name), "{name}");
}
