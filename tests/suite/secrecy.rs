//! What the threat model says, looked at where it would show: in the calls that make files, in every place where a key
//! could be left, in what stands in one segment, and where the count of sealed files ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::common::strace::{can_trace, traced};
use crate::common::{KEY, OTHER_KEY, Place, Run, database, noise, objects, tree};
use crate::drive_common::{Cloud, store_grant};
use nbak::chunk::{Cut, Cutter};
use nbak::crypto::secret::Credential;
use nbak::crypto::slot::Slot;
use nbak::snapshot::store::{Access, Store};
use nbak::store::segment::Content;

const PHRASE: &str = "nobody writes these words anywhere";

fn text(path: &Path) -> String {
    path.to_str().expect("text").to_owned()
}

/// A data directory of which everything has its place in a backup.
fn small() -> Place {
    let place = Place { key: Some(KEY), ..Place::empty() };
    fs::create_dir(place.data.join("folder")).expect("made");
    fs::write(place.data.join("config.json"), "{}").expect("written");
    fs::write(place.data.join("folder/noise"), noise(1, 50_000)).expect("written");
    database(&place.data.join("history.db"), "WAL", 60);
    database(&place.data.join("engine.db"), "DELETE", 20);
    place
}

/// `program`, started under a umask that takes nothing away.
fn open_handed(program: &Command) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "umask 000; exec \"$@\"", "sh"]).arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// What a line of a trace makes: its mode, if it makes a file or a folder.
fn mode_of(line: &str) -> Option<u32> {
    let makes = line.contains("O_CREAT") || line.contains(" mkdir") || line.contains("O_TMPFILE");
    let is_done = !line.contains(" = -1 ") && !line.contains("resumed>");
    let call = line.split(" = ").next().filter(|_| makes && is_done)?;
    let number = |part: &str| {
        let digits = part.trim_start_matches("mode=").trim_end_matches([')', '}']);
        let is_octal = digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_octal.then(|| u32::from_str_radix(digits, 8).expect("octal"))
    };
    // Before what a thread did not end in one line there is no `)`.
    call.split(" <unfinished").next()?.trim_end().split(", ").filter_map(number).last()
}

/// The path that a line of a trace names: what it is called with, since what it ended with may stand in a later line.
fn path_of(line: &str) -> Option<PathBuf> {
    let (folder, rest) = line.split_once('"')?;
    let (name, _) = rest.split_once('"')?;
    let folder = folder.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(folder, _)| folder);
    Some(Path::new(folder).join(name))
}

/// Modes are given when things are made, whatever becomes of them later: nobody can open them in between.
#[test]
fn what_is_made_is_private_from_the_call_that_makes_it() {
    if !can_trace() {
        return;
    }
    let place = small();
    let target = text(&place.path("target"));
    let other = text(&place.path("other key"));
    fs::write(&other, OTHER_KEY).expect("written");
    let top = text(place.folder.path());
    let (mut files, mut open, mut private) = (0, Vec::new(), BTreeSet::new());
    for args in [
        &["snapshot"][..],
        &["key", "add", "--new-vault-key-file", &other],
        &["repair", "index"],
        &["backup"],
        &["backup", "verify"],
        &["restore", "latest", "--target", &target],
        &["restore", "latest", "--in-place", "--yes"],
        &["drill"],
        &["forget", "latest", "--force"],
        &["gc"],
    ] {
        fs::write(place.data.join("changes"), noise(files, 5000)).expect("written");
        let log = place.path("calls");
        let trace = "trace=open,openat,openat2,creat,mkdir,mkdirat";
        let mut command = traced(&open_handed(&place.command(args)), &["-y", "-o", &text(&log), "-e", trace]);
        let output = command.output().expect("runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
        for line in fs::read_to_string(&log).expect("a log").lines().filter(|line| line.contains(&top)) {
            let Some(mode) = mode_of(line) else { continue };
            files += 1;
            let path = path_of(line);
            if mode & !0o700 == 0 {
                private.extend(path);
            } else if line.contains("O_EXCL") || !path.is_some_and(|path| private.contains(&path)) {
                // What was made before keeps its mode: SQLite says that it may make what is there already.
                open.push(format!("{args:?}: {line}"));
            }
        }
    }
    assert!(files > 40, "{files} are too few to mean anything");
    assert!(open.is_empty(), "open to others when they are made:\n{}", open.join("\n"));
}

/// Forms in which somebody might have left a key.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex = nbak::codec::hex(secret);
    vec![
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        BASE64_STANDARD.encode(secret).into_bytes(),
    ]
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Every command that touches a key, with places of its own for all that it may write: what it prints, the arguments of
/// all that it starts, and every file are searched for the vault key, the other keys and the master key.
#[test]
fn no_command_leaves_a_key_anywhere() {
    let cloud = Cloud::new();
    let place = &cloud.place;
    crate::common::fill(&place.data);
    let env = place.data.join(".env");
    fs::write(&env, format!("NODYN_VAULT_KEY={KEY}\n")).expect("written");
    fs::set_permissions(&env, Permissions::from_mode(0o600)).expect("a mode");
    let (keys, phrase) = (place.path("other key"), place.path("phrase"));
    fs::write(&keys, format!("{OTHER_KEY}\n")).expect("written");
    fs::write(&phrase, format!("{PHRASE}\n")).expect("written");
    let (temporary, home) = (place.path("tmp"), place.path("home"));
    for folder in [&temporary, &home] {
        fs::create_dir(folder).expect("made");
    }
    store_grant(&cloud);
    let (other, phrase, target) = (text(&keys), text(&phrase), text(&place.path("target")));
    let commands: &[&[&str]] = &[
        &["-v", "snapshot"],
        &["-v", "snapshot", "--json", "--note", "again"],
        &["-v", "key", "add", "--new-vault-key-file", &other],
        &["-v", "key", "add", "--new-passphrase-file", &phrase],
        &["-v", "key", "list"],
        &["-v", "backup"],
        &["-v", "backup", "list"],
        &["-v", "backup", "verify"],
        &["-v", "backup", "prune"],
        &["-v", "restore", "latest", "--target", &target],
        &["-v", "restore", "latest", "--in-place", "--yes"],
        &["-v", "backup", "restore", "--yes"],
        &["-v", "drill"],
        &["-v", "check", "--read-data"],
        &["-v", "stats"],
        &["-v", "status"],
        &["-v", "doctor"],
        &["-v", "forget", "latest", "--force"],
        &["-v", "gc"],
        &["-v", "repair", "index"],
        &["-v", "gdrive", "push"],
        &["-v", "backup", "gdrive", "upload"],
        &["-v", "startup", "--app-version", "1"],
        &["-v", "startup", "--app-version", "2"],
        &["-v", "key", "rotate", "--new-vault-key-file", &other],
        &["-v", "snapshots"],
    ];
    let log = place.path("calls");
    let (mut said, traces) = (String::new(), can_trace());
    for args in commands {
        let mut command = cloud.command(args);
        command.env("TMPDIR", &temporary).env("HOME", &home);
        for name in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
            command.env_remove(name);
        }
        if traces {
            command = traced(&command, &["-A", "-s", "4096", "-o", &text(&log), "-e", "trace=execve"]);
        }
        let run = Run::of(command);
        // The last one has the old key, which the store does not know any more; a doctor may find something.
        assert!(matches!(run.code, 0 | 3) || matches!(args[1], "snapshots" | "doctor"), "{args:?}: {run:?}");
        said.extend([run.out, run.err]);
    }
    let calls = fs::read_to_string(&log).unwrap_or_default();
    assert!(!traces || calls.lines().filter(|line| line.contains("execve(")).count() >= commands.len());
    let strong = Credential::VaultKey(OTHER_KEY.to_owned());
    let mut slots = objects(&place.repo, "keys").into_iter().map(|path| fs::read(path).expect("read"));
    let master = slots.find_map(|bytes| Slot::parse(&bytes).expect("a slot").open(Some(&strong)));
    let master = master.expect("the new key opens it");
    let decoded = BASE64_STANDARD.decode(KEY).expect("base64");
    let all: Vec<(&str, Vec<u8>)> = [
        ("the vault key", KEY.as_bytes()),
        ("the vault key, decoded", &decoded),
        ("the other key", OTHER_KEY.as_bytes()),
        ("the passphrase", PHRASE.as_bytes()),
        ("the master key", master.expose()),
    ]
    .into_iter()
    .flat_map(|(name, secret)| forms(secret).into_iter().map(move |form| (name, form)))
    .collect();
    let mut files: BTreeMap<PathBuf, Vec<u8>> =
        tree(place.folder.path()).into_iter().map(|(path, thing)| (path, thing.bytes)).collect();
    // Where the test itself put a key, and what it had traced.
    for own in [&env, &keys, &PathBuf::from(&phrase), &log] {
        files.remove(own.strip_prefix(place.folder.path()).expect("below")).unwrap_or_default();
    }
    for (name, form) in &all {
        assert!(!has(said.as_bytes(), form), "{name} was printed");
        assert!(!has(calls.as_bytes(), form), "{name} stands in the arguments of a process");
        for (path, bytes) in &files {
            assert!(!has(bytes, form), "{name} stands in {}", path.display());
            assert!(!has(path.as_os_str().as_encoded_bytes(), form), "{name} is in the name of {}", path.display());
        }
    }
}

/// The number of segments of data, and which of them hold chunks of more than one file.
fn shared_segments(place: &Place) -> (usize, Vec<String>) {
    let key = Credential::VaultKey(KEY.to_owned());
    let store = Store::open(&place.repo, &[key], Access::Read).expect("opens");
    let packs = store.catalog().packs();
    let keys = packs.keys();
    let cutter = Cutter::new(keys.chunker_seed());
    // Of databases the chunks are not known here: they count as one file.
    let mut owners = BTreeMap::new();
    for (path, thing) in tree(&place.data).into_iter().filter(|(_, thing)| thing.kind == "file") {
        if path.extension().is_some_and(|end| end == "db") {
            continue;
        }
        assert!(matches!(Cut::for_file(thing.bytes.len() as u64), Cut::Content), "{}", path.display());
        let mut rest = &thing.bytes[..];
        for length in cutter.cuts(rest, true) {
            let (chunk, later) = rest.split_at(length);
            owners.insert(keys.chunk_id(chunk), path.display().to_string());
            rest = later;
        }
    }
    let (mut count, mut shared, mut met) = (0, Vec::new(), BTreeSet::new());
    for id in packs.list().expect("a list") {
        let pack = packs.open(id).expect("a pack");
        for segment in pack.footer.segments.iter().filter(|segment| segment.content == Content::Data) {
            let owner =
                |chunk: &nbak::store::segment::ChunkEntry| owners.get(&chunk.id).map_or("a database", String::as_str);
            let of: BTreeSet<&str> = segment.chunks.iter().map(owner).collect();
            count += 1;
            if of.len() > 1 {
                shared.push(format!("{of:?}"));
            }
            met.extend(of.into_iter().map(str::to_owned));
        }
    }
    let files: BTreeSet<&String> = owners.values().collect();
    assert!(files.iter().all(|file| met.contains(*file)) && met.contains("a database"), "{met:?}");
    (count, shared)
}

#[test]
fn separate_files_share_no_segment() {
    for (flag, config, is_separate) in [
        (None, "{\"other\": 1}", false),
        (Some("--separate-files"), "{\"other\": 1}", true),
        (None, "{\"nbak\": {\"separate_files\": true}}", true),
    ] {
        let place = Place { key: Some(KEY), ..Place::empty() };
        fs::write(place.data.join("config.json"), config).expect("written");
        for nth in 0..20 {
            fs::write(place.data.join(format!("small {nth}")), noise(nth, 300 + nth as usize * 100)).expect("written");
        }
        for nth in 0..4 {
            // Longer than some chunks, and no whole number of pages.
            let bytes = noise(100 + nth, 150_001 + nth as usize * 1000);
            fs::write(place.data.join(format!("large {nth}")), bytes).expect("written");
        }
        database(&place.data.join("history.db"), "WAL", 60);
        place.ok(&["snapshot"].into_iter().chain(flag).collect::<Vec<_>>());
        // What changed and what is new, and what upkeep writes again of both.
        fs::write(place.data.join("small 3"), noise(500, 2000)).expect("written");
        fs::write(place.data.join("small 20"), noise(501, 2000)).expect("written");
        place.ok(&["snapshot"].into_iter().chain(flag).collect::<Vec<_>>());
        let (count, shared) = shared_segments(&place);
        assert_eq!(shared.is_empty(), is_separate, "{flag:?}, {config}: of {count} segments {shared:?}");
        assert!(!is_separate || count >= 26, "{count} segments are not one for each file");
    }
}

/// The count of sealed files is held by each export, and not just where it is kept.
#[test]
fn an_export_beyond_the_last_seal_is_refused() {
    const MOST: u64 = 1 << 31;
    let place = small();
    place.ok(&["backup"]);
    let folder = place.data.join("backups");
    let names = || -> BTreeSet<PathBuf> {
        let all = fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        all.filter(|path| path.is_dir()).collect()
    };
    let first = names();
    assert_eq!(first.len(), 1);
    let path = first.first().expect("a backup").join("manifest.json");
    let manifest: Value = serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON");
    assert_eq!(manifest["encrypted"], true);
    let entries = manifest["files"].as_array().expect("a list");
    let files = entries.iter().filter(|entry| entry["type"] != "directory").count() as u64;
    let counts = folder.join(".nbak-seals.json");
    let count = || -> BTreeMap<String, u64> {
        serde_json::from_slice(&fs::read(&counts).expect("the count is there")).expect("numbers")
    };
    let counted = count();
    assert_eq!(counted.values().copied().collect::<Vec<_>>(), [files], "each file of the backup is counted");
    let name = counted.keys().next().expect("a key").clone();
    let set = |to: u64| fs::write(&counts, format!("{{\"{name}\": {to}}}")).expect("written");

    // The last that are to be had, and then none.
    set(MOST - files);
    place.ok(&["backup"]);
    assert_eq!((count()[&name], names().len()), (MOST, 2));
    for left in [0, files - 1] {
        set(MOST - left);
        let before = (names(), fs::read(&counts).expect("read"));
        let run = place.run(&["backup"]);
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.err.contains("would not be safe") && run.err.contains("nothing was written"), "{run:?}");
        assert!((names(), fs::read(&counts).expect("read")) == before, "a refused export left something");
    }
}
