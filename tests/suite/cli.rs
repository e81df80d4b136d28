//! The promises of the command line: exit codes, fields, what goes to which stream, and messages that help.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::common::strace::{can_trace, traced};
use crate::live_common::{self, KEY, Place, Random, Run, app, run, survey, text};
use serde_json::Value;

fn file(place: &Place, name: &str, content: &str) -> String {
    let path = place.path(name);
    fs::write(&path, content).expect("a file");
    path.to_str().expect("text").to_owned()
}

/// Flips a byte in the middle of each pack.
fn damage(place: &Place) {
    for entry in fs::read_dir(place.repo.join("packs")).expect("a list") {
        let path = entry.expect("an entry").path();
        let mut bytes = fs::read(&path).expect("a pack");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("written");
    }
}

// ---- exit codes ---------------------------------------------------------------------------------

#[test]
fn code_0_and_2_are_about_what_was_typed() {
    let place = Place::new();
    place.ok(["--version"]).says(&["nbak "]);
    place.ok(["--help"]).says(&["Usage"]);
    for words in [
        &["snapshot"][..],
        &["snapshots"],
        &["ls"],
        &["cat"],
        &["restore"],
        &["check"],
        &["stats"],
        &["repair"],
        &["repair", "index"],
        &["key"],
        &["key", "list"],
        &["key", "add"],
        &["key", "remove"],
        &["key", "rotate"],
    ] {
        for flag in ["--help", "-h"] {
            let run = place.ok(words.iter().chain(&[flag]));
            assert!(run.out.contains("Usage: nbak") && run.err.is_empty(), "{words:?}: {run:?}");
            assert!(run.out.lines().count() > 5, "{words:?}: {run:?}");
        }
    }
    for wrong in [
        &[][..],
        &["no-such-command"],
        &["snapshot", "--no-such-flag"],
        &["-q", "-v", "snapshots"],
        &["restore", "latest"],
        &["cat", "latest"],
        &["check", "--read-data", "--subset", "0"],
        &["snapshots", "--lock-wait", "soon"],
        &["snapshot", "--tag"],
        &["snapshot", "--tag", ""],
        &["forget", "--keep-tag", ""],
        &["forget", "--keep-last", "3", "--keep-tag", " "],
        &["key", "add", "--new-vault-key-file", "a", "--new-passphrase-file", "b"],
    ] {
        let run = place.run(wrong).exits(2);
        assert!(run.out.is_empty() && !run.err.is_empty(), "{run:?}");
    }
    assert!(!place.repo.exists(), "nothing of this makes a store");
    place.snapshot();
    place.run(["ls", "nonsense"]).exits(2).says(&["`nonsense` names no snapshot", "nbak snapshots"]);
    place.run(["key", "add"]).exits(2).says(&["--new-vault-key-file"]);
    place.run(["key", "remove", "ffff"]).exits(2).says(&["nbak key list"]);
    run(place.nbak(["snapshot"]).env("NBAK_REPO", &place.data)).exits(2).says(&["--repo"]);
}

#[test]
fn code_1_is_what_failed() {
    let place = Place::new();
    let missing = place.path("not-there");
    run(place.nbak(["snapshot"]).env("NBAK_DATA_DIR", &missing)).exits(1).says(&[
        "data directory",
        missing.to_str().expect("text"),
        "--data-dir",
    ]);
    assert!(!place.repo.exists(), "and makes no store");
    run(place.nbak(["snapshot"]).env("NBAK_DATA_DIR", file(&place, "a-file", "x"))).exits(1).says(&["a-file"]);
    run(place.nbak(["snapshot"]).env("NBAK_REPO", place.path("a-file/store"))).exits(1).says(&["a-file"]);
    place.snapshot();
    place.run(["ls", "latest", "none"]).exits(1).says(&["none", "nbak ls"]);
    place.run(["cat", "latest", "none"]).exits(1);
}

#[test]
fn code_10_is_no_store() {
    let place = Place::new();
    let target = place.path("target");
    let target = target.to_str().expect("text");
    let commands: [&[&str]; 10] = [
        &["snapshots"],
        &["ls", "latest"],
        &["cat", "latest", "x"],
        &["restore", "latest", "--target", target],
        &["check"],
        &["stats"],
        &["repair", "index"],
        &["key", "list"],
        &["key", "rotate"],
        &["key", "remove", "x"],
    ];
    for made in [false, true] {
        for args in commands {
            let run = place.run(args).exits(10);
            assert!(run.out.is_empty(), "{run:?}");
            run.says(&["no store", place.repo.to_str().expect("text"), "nbak snapshot", "--repo"]);
        }
        // A folder that is there, but is no store.
        fs::create_dir_all(&place.repo).expect("a folder");
        assert!(survey(&place.repo).len() == 1, "asking for a store makes none ({made})");
    }
    assert!(!place.path("target").exists());
}

#[test]
fn code_11_is_locked() {
    let place = Place::new();
    place.snapshot();
    let lock = fs::File::options().write(true).open(place.repo.join("lock")).expect("the lock");
    lock.try_lock().expect("nobody has it");
    for args in [&["snapshot"][..], &["repair", "index"], &["key", "rotate"], &["key", "add"]] {
        let run = place.run(args.iter().copied().chain(["--lock-wait", "0"])).exits(11);
        assert!(run.out.is_empty(), "{run:?}");
        run.says(&["is writing to this store", place.repo.to_str().expect("text"), "--lock-wait"]);
    }
    place.ok(["snapshots"]);
    lock.unlock().expect("unlocked");
    place.ok(["snapshot", "--lock-wait", "0"]);
}

#[test]
fn code_12_is_a_wrong_or_missing_key() {
    let place = Place::new();
    fs::write(place.data.join("file"), "content").expect("a file");
    place.snapshot();
    let before = survey(&place.repo);
    let wrong = "another-key-that-is-as-long-as-the-right-one";
    let commands: [&[&str]; 6] = [
        &["snapshot"],
        &["snapshots"],
        &["cat", "latest", "file"],
        &["check"],
        &["repair", "index"],
        &["key", "rotate"],
    ];
    for args in commands {
        let with = run(place.nbak(args).env("NODYN_VAULT_KEY", wrong)).exits(12);
        let without = run(place.nbak(args).env_remove("NODYN_VAULT_KEY")).exits(12);
        for run in [with, without] {
            assert!(run.out.is_empty() && !run.err.contains(wrong), "{run:?}");
            run.says(&[place.repo.to_str().expect("text"), "NODYN_VAULT_KEY", "--vault-key-file"]);
        }
    }
    let mut after = survey(&place.repo);
    // The text of the lock says who came last.
    let lock = after.get_mut(std::path::Path::new("lock")).expect("a lock");
    lock.clone_from(&before[std::path::Path::new("lock")]);
    live_common::assert_same(&before, &after, "a wrong key writes nothing");
    run(&mut place.nbak(["snapshots", "--vault-key-file", "/no/such/file"])).exits(12).says(&["/no/such/file"]);
    run(&mut place.nbak(["snapshots", "--vault-key-command", "exit 3"])).exits(12).says(&["command"]);
    let empty = file(&place, "empty", "\n");
    run(&mut place.nbak(["snapshots", "--vault-key-file", &empty])).exits(12).says(&["empty"]);
    // What is typed counts more than the environment.
    let key = file(&place, "key", &format!("{KEY}\n"));
    run(place.nbak(["snapshots", "--vault-key-file", &key]).env("NODYN_VAULT_KEY", wrong)).exits(0);
    run(place.nbak(["snapshots", "--vault-key-command", &format!("cat {key}")]).env("NODYN_VAULT_KEY", wrong)).exits(0);
    run(place.nbak(["snapshots"]).env_remove("NODYN_VAULT_KEY").env("LYNOX_VAULT_KEY", KEY)).exits(0);
}

#[test]
fn code_13_is_damage() {
    let place = Place::new();
    fs::write(place.data.join("a"), Random::new(1).bytes(400_000)).expect("a file");
    place.snapshot();
    damage(&place);
    let run = place.run(["check", "--read-data"]).exits(13);
    assert!(run.out.contains("packs/") && run.out.contains("lost"), "{run:?}");
    let report = place.run(["check", "--read-data", "--json"]).exits(13).json();
    assert_eq!(report["ok"], false);
    assert!(!report["problems"].as_array().expect("a list").is_empty());
    assert_eq!(report["affected"][0]["paths"][0], "a");
    let cat = place.run(["cat", "latest", "a"]).exits(13);
    assert!(!cat.err.is_empty(), "{cat:?}");
    let target = place.path("target");
    let args = ["restore".as_ref(), "latest".as_ref(), "--target".as_ref(), target.as_os_str()];
    place.run(args).exits(13).says(&["a", "not restored"]);
    assert!(!target.join("a").exists(), "a damaged file is not there at all");
    for entry in fs::read_dir(place.repo.join("keys")).expect("a list") {
        fs::remove_file(entry.expect("an entry").path()).expect("removed");
    }
    place.run(["snapshots"]).exits(13).says(&["no key slot", "copy"]);
    place.run(["snapshot"]).exits(13).says(&["no key slot"]);
}

// ---- JSON ---------------------------------------------------------------------------------------

#[derive(Clone, Copy)]
enum Is {
    Text,
    Number,
    Flag,
    List,
    TextOrNull,
}

fn shape(value: &Value, fields: &[(&str, Is)]) {
    for (name, is) in fields {
        let field = value.get(*name).unwrap_or_else(|| panic!("{name} is missing: {value}"));
        let right = match is {
            Is::Text => field.is_string(),
            Is::Number => field.is_u64(),
            Is::Flag => field.is_boolean(),
            Is::List => field.is_array(),
            Is::TextOrNull => field.is_string() || field.is_null(),
        };
        assert!(right, "{name} is of another kind: {value}");
    }
}

/// One object, on one line, and nothing else.
fn object(run: &Run) -> Value {
    assert_eq!(run.out.lines().count(), 1, "{run:?}");
    assert!(run.err.is_empty(), "{run:?}");
    run.json()
}

#[test]
fn fields_are_as_promised() {
    use Is::{Flag, List, Number, Text, TextOrNull};
    let place = Place::new();
    app::make(&place.data, &mut Random::new(2), 1);
    let promised = [
        ("snapshot", Text),
        ("parent", TextOrNull),
        ("files", Number),
        ("bytes", Number),
        ("new_chunks", Number),
        ("stored_bytes", Number),
        ("changed_files", Number),
        ("duration_ms", Number),
        ("warnings", List),
        ("unchanged", Flag),
        ("dry_run", Flag),
        ("entries", List),
        ("tags", List),
        ("started", Text),
        ("unreadable", Number),
    ];
    let dry = object(&place.ok(["snapshot", "--json", "--dry-run"]));
    shape(&dry, &promised);
    let first = object(&place.ok(["snapshot", "--json", "--tag", "one", "--tag", "two", "--note", "n"]));
    shape(&first, &promised);
    assert_eq!((&first["parent"], &first["tags"]), (&Value::Null, &serde_json::json!(["one", "two"])));
    // Where there is no store there is no key yet that says where to cut, so chunks may differ; bytes do not.
    for same in ["files", "bytes", "new_bytes", "changed_files"] {
        assert_eq!(dry[same], first[same], "a dry run says what would be: {same}");
    }
    fs::write(place.data.join("one-more"), "x").expect("a file");
    let second = object(&place.ok(["snapshot", "--json"]));
    shape(&second, &promised);
    assert_eq!(second["parent"], first["snapshot"]);
    assert_eq!(second["changed_files"], 1);

    let listed = place.ok(["snapshots", "--json"]).json_lines();
    assert_eq!(listed.len(), 2);
    for one in &listed {
        let fields =
            [("snapshot", Text), ("parent", TextOrNull), ("started", Text), ("ended", Text), ("files", Number)];
        shape(one, &fields);
        shape(one, &[("bytes", Number), ("tags", List), ("note", TextOrNull), ("source", Text), ("databases", Number)]);
    }
    let entries = place.ok(["ls", "--json", "-R", "latest"]).json_lines();
    assert!(entries.len() > 70);
    for one in &entries {
        let fields = [("path", Text), ("type", Text), ("bytes", Number), ("mode", Text), ("mtime", Text)];
        shape(one, &fields);
        shape(one, &[("consistency", Text), ("target", TextOrNull), ("uid", Number), ("gid", Number)]);
    }
    let target = place.path("target");
    let args = ["restore".as_ref(), "latest".as_ref(), OsStr::new("--json"), "--target".as_ref(), target.as_os_str()];
    let fields = [("snapshot", Text), ("target", Text), ("files", Number), ("bytes", Number), ("damaged", List)];
    let restored = object(&place.ok(args));
    shape(&restored, &fields);
    assert_eq!((&restored["files"], &restored["bytes"]), (&second["files"], &second["bytes"]));
    let fields = [("ok", Flag), ("snapshots", Number), ("packs", Number), ("problems", List), ("affected", List)];
    shape(&object(&place.ok(["check", "--json"])), &fields);
    let fields = [("store", Text), ("snapshots", Number), ("packs", Number), ("stored_bytes", Number)];
    shape(&object(&place.ok(["stats", "--json"])), &fields);
    shape(&object(&place.ok(["repair", "index", "--json"])), &[("packs", Number)]);
    let slots = place.ok(["key", "list", "--json"]).json_lines();
    shape(&slots[0], &[("slot", Text), ("method", Text), ("created", Text), ("label", Text), ("in_use", Flag)]);
    let more = file(&place, "more", "a-passphrase");
    let added = object(&place.ok(["key", "add", "--json", "--new-passphrase-file", &more]));
    shape(&added, &[("done", Text), ("slot", Text)]);
    let removed = object(&place.ok(["key", "remove", "--json", text(&added["slot"])]));
    assert_eq!(removed["slot"], added["slot"]);
    // The one that is left stays.
    place.run(["key", "remove", text(&slots[0]["slot"])]).exits(2).says(&["opened the store"]);
}

// ---- streams ------------------------------------------------------------------------------------

#[test]
fn results_and_messages_go_their_own_ways() {
    let place = Place::new();
    app::make(&place.data, &mut Random::new(2), 2);
    let _socket = std::os::unix::net::UnixListener::bind(place.data.join("socket")).expect("a socket");
    let run = place.run(["snapshot"]).exits(3);
    assert_eq!(run.out.lines().count(), 1, "{run:?}");
    assert!(run.err.contains("warning: ") && run.err.contains("socket"), "{run:?}");
    let quiet = place.run(["-q", "snapshot", "--tag", "t"]).exits(3);
    // Even then it is said why the code is not 0, and nothing else.
    let why = quiet.err.lines().all(|line| line.contains("not captured: socket"));
    assert!(why && quiet.err.lines().count() == 1 && quiet.out.lines().count() == 1, "{quiet:?}");
    let error = place.run(["-q", "ls", "nonsense"]).exits(2);
    assert!(error.out.is_empty() && error.err.starts_with("error: "), "{error:?}");
    // No bars, no colours, no cursor movements where nobody watches.
    let target = place.path("target");
    let args = ["restore".as_ref(), "latest".as_ref(), "--target".as_ref(), target.as_os_str()];
    for run in [run, place.run(args), place.ok(["check", "--read-data"]), place.ok(["--help"]), place.run(["snap"])] {
        for stream in [&run.out, &run.err] {
            assert!(!stream.contains('\u{1b}') && !stream.contains('\r'), "{run:?}");
        }
    }
    // Without a key every command says so once, and only there.
    let open = Place::new();
    let run = live_common::run(open.nbak(["snapshot"]).env_remove("NODYN_VAULT_KEY")).exits(0);
    assert_eq!(run.err.matches("not protected").count(), 1, "{run:?}");
    let run = live_common::run(open.nbak(["snapshots", "--json"]).env_remove("NODYN_VAULT_KEY")).exits(0);
    assert_eq!((run.err.matches("not protected").count(), run.out.lines().count()), (1, 1), "{run:?}");
    // A store that opens without a key is not written to when a key is given: it may be somebody else's.
    open.run(["snapshot"]).exits(12).says(&["nbak key rotate"]);
    open.ok(["key", "rotate"]);
    assert!(open.ok(["snapshot"]).err.is_empty());
}

/// A reader that goes away, as `head` does, ends nothing with a panic.
#[test]
fn a_closed_pipe_is_no_panic() {
    let place = Place::new();
    for n in 0..3000 {
        fs::write(place.data.join(format!("a-file-with-a-long-name-{n}")), "").expect("a file");
    }
    fs::write(place.data.join("large"), Random::new(1).bytes(3_000_000)).expect("a file");
    place.snapshot();
    let commands: [&[&str]; 8] = [
        &["ls", "latest"],
        &["ls", "--json", "-l", "latest"],
        &["cat", "latest", "large"],
        &["snapshots"],
        &["snapshot", "--json", "--tag", "t"],
        &["stats"],
        &["--help"],
        &["no-such-command"],
    ];
    for args in commands {
        let mut command = place.nbak(args);
        let what = format!("{command:?} into a closed pipe");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        let run = Run::of(child.wait_with_output().expect("its output"), what);
        let quiet = args[0] == "no-such-command" || run.err.is_empty();
        assert!(quiet && matches!(run.code, Some(0 | 2)), "{run:?}");
        // Nor is one whose messages nobody reads.
        let mut child = place.nbak(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stderr.take());
        assert!(matches!(child.wait().expect("its end").code(), Some(0 | 2)), "{args:?}");
    }
}

/// A full disk under the results is an error: a list that was cut short must not pass for the whole.
#[test]
fn results_that_cannot_be_written_are_an_error() {
    let Ok(full) = fs::File::options().write(true).open("/dev/full") else { return };
    let place = Place::new();
    fs::write(place.data.join("file"), "content").expect("a file");
    place.snapshot();
    for args in [&["snapshots"][..], &["ls", "latest"], &["cat", "latest", "file"], &["stats", "--json"]] {
        let mut command = place.nbak(args);
        let output = command.stdout(full.try_clone().expect("a handle")).stderr(Stdio::piped()).spawn();
        let output = output.expect("it starts").wait_with_output().expect("its output");
        let run = Run::of(output, format!("{command:?}"));
        run.exits(1).says(&["No space left"]);
    }
}

/// So is a file system that has no room and says so only when the file is closed.
#[test]
fn results_that_are_refused_at_the_closing_are_an_error() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    fs::write(place.data.join("file"), "content").expect("a file");
    place.snapshot();
    let results = place.path("results");
    for args in [&["cat", "latest", "file"][..], &["snapshots", "--json"]] {
        let path = results.to_str().expect("text");
        let fails = ["-o", "/dev/null", "-e", "trace=close", "-P", path, "-e", "inject=close:error=EDQUOT"];
        let mut command = traced(&place.nbak(args), &fails);
        command.stdout(fs::File::create(&results).expect("a file")).stderr(Stdio::piped());
        let output = command.spawn().expect("it starts").wait_with_output().expect("its output");
        Run::of(output, format!("{command:?}")).exits(1).says(&["quota"]);
    }
}

// ---- defaults, configuration, dry runs ----------------------------------------------------------

#[test]
fn places_are_found_without_being_named() {
    let place = Place::new();
    let home = place.path("home");
    let plain = |args: &[&str]| run(place.bare(args).env("NODYN_VAULT_KEY", KEY));
    plain(&["snapshot"]).exits(1).says(&[".nodyn", "--data-dir"]);
    fs::create_dir(home.join(".lynox")).expect("a folder");
    fs::write(home.join(".lynox/file"), "lynox").expect("a file");
    plain(&["snapshot"]).exits(0);
    assert!(home.join(".lynox/backups/store/packs").is_dir());
    assert_eq!(plain(&["cat", "latest", "file"]).exits(0).out, "lynox");
    fs::create_dir(home.join(".nodyn")).expect("a folder");
    fs::write(home.join(".nodyn/file"), "nodyn").expect("a file");
    plain(&["snapshots"]).exits(10);
    plain(&["snapshot"]).exits(0);
    assert_eq!(plain(&["cat", "latest", "file"]).exits(0).out, "nodyn");
    assert!(!plain(&["ls", "latest"]).exits(0).out.contains("backups"));
    // The configuration moves it; a `~` in it is the home.
    fs::write(home.join(".nodyn/config.json"), r#"{"backup_dir": "~/elsewhere"}"#).expect("a configuration");
    plain(&["snapshot"]).exits(0);
    assert!(home.join("elsewhere/store/packs").is_dir());
    assert!(!plain(&["ls", "latest"]).exits(0).out.contains("backups"), "a folder of old backups is still left out");
    let within = home.join(".nodyn/mine");
    let config = format!("{{\"backup_dir\": {:?}}}", within.to_str().expect("text"));
    fs::write(home.join(".nodyn/config.json"), config).expect("a configuration");
    plain(&["snapshot"]).exits(0);
    assert!(!plain(&["ls", "latest"]).exits(0).out.contains("mine"), "backups are not backed up");
    // A mistake in it does not keep anybody from a backup.
    for wrong in ["{", "{\"backup_dir\": 7}", "{\"nbak\": {\"exclude\": 1}}", "[]", ""] {
        fs::write(home.join(".nodyn/config.json"), wrong).expect("a configuration");
        plain(&["snapshot"]).exits(0);
    }
}

/// One entry whose path leaves no room for the way to anywhere else is named, and keeps nothing from being done for all
/// others.
#[test]
fn a_path_that_could_not_be_put_back_is_said() {
    let place = Place::new();
    fs::write(place.data.join("file"), "one").expect("a file");
    let mut deep = place.data.clone();
    while deep.as_os_str().len() < 3850 {
        deep.push("d".repeat(200.min(3901 - deep.as_os_str().len())));
    }
    fs::create_dir_all(&deep).expect("folders");
    fs::write(deep.join("file"), "deep").expect("a file");
    let run = place.run(["snapshot", "--json"]).exits(3).says(&["shorten a name in it"]);
    assert_eq!(run.json()["unreadable"], 1, "{run:?}");
    place.run(["backup"]).exits(3);
    place.run(["drill"]).exits(3);
    fs::write(place.data.join("file"), "two").expect("a file");
    let id = run.json()["snapshot"].as_str().expect("an id").to_owned();
    place.run(["restore", &id, "--in-place", "--yes"]).exits(3);
    assert_eq!(fs::read(place.data.join("file")).expect("there"), b"one");
    assert_eq!(fs::read(deep.join("file")).expect("there"), b"deep", "what is in no snapshot stays");
}

/// In a store of several, names that mean the newest of something mean that of the data directory that is named, and of
/// no other: not of one whose name looks alike, and not of any at all.
#[test]
fn a_data_directory_has_snapshots_of_its_own() {
    let place = Place::new();
    let of = |name: &[u8]| Place {
        data: place.path("").join(OsStr::from_bytes(name)),
        repo: place.repo.clone(),
        ..Place::new()
    };
    let [one, other, text, new] = [&b"d\xff"[..], b"d\xfe", b"d\\xff", b"new"].map(of);
    for (place, what) in [(&one, "one"), (&other, "other"), (&text, "text")] {
        fs::create_dir(&place.data).expect("a folder");
        fs::write(place.data.join("own"), what).expect("a file");
        place.ok(["snapshot"]);
    }
    for place in [&one, &other] {
        place.ok(["snapshot", "--tag", "again"]);
    }
    other.ok(["forget", "--keep-last", "1"]).says(&["1 snapshot forgotten, 4 stay"]);
    for (place, what) in [(&one, "one"), (&other, "other"), (&text, "text")] {
        assert_eq!(place.ok(["cat", "latest", "own"]).out, what);
        place.ok(["forget", "--keep-last", "1"]);
    }
    assert_eq!(one.ok(["snapshots", "--json"]).out.lines().count(), 3, "each is the newest of its own");
    new.run(["forget", "--keep-last", "1"]).exits(2);
    new.run(["cat", "latest", "own"]).exits(2).says(&["none of this data directory's snapshots", "by its id"]);
    let id = one.ok(["snapshots", "--json"]).out;
    let id: Value = serde_json::from_str(id.lines().next().expect("a line")).expect("JSON");
    new.ok(["cat", id["snapshot"].as_str().expect("an id"), "own"]).says(&["text"]);
    // One that is not there any more is known by its name.
    fs::remove_dir_all(&other.data).expect("removed");
    assert_eq!(other.ok(["cat", "latest", "own"]).out, "other");
}

#[test]
fn the_key_is_found_in_the_applications_own_file() {
    let place = Place::new();
    let home = place.path("home");
    let env = home.join(".nodyn/.env");
    fs::create_dir(home.join(".nodyn")).expect("a folder");
    fs::write(&env, format!("# settings\nexport NODYN_VAULT_KEY='{KEY}'\n")).expect("a file");
    fs::set_permissions(&env, fs::Permissions::from_mode(0o600)).expect("chmod");
    let run_bare = run(&mut place.bare(["snapshot"])).exits(0);
    assert!(!run_bare.err.contains("not protected"), "{run_bare:?}");
    fs::set_permissions(&env, fs::Permissions::from_mode(0o644)).expect("chmod");
    run(&mut place.bare(["snapshot"])).exits(12).says(&["chmod 600", ".env"]);
    fs::remove_file(&env).expect("removed");
    run(&mut place.bare(["snapshots"])).exits(12);
    run(place.bare(["snapshots"]).env("NODYN_VAULT_KEY", KEY)).exits(0);
}

#[test]
fn a_dry_run_writes_nothing() {
    let place = Place::new();
    app::make(&place.data, &mut Random::new(2), 1);
    let all = survey(place.root.path());
    let run = place.ok(["snapshot", "--dry-run"]).says(&["dry run", "would store"]);
    assert!(run.err.is_empty(), "{run:?}");
    live_common::assert_same(&all, &survey(place.root.path()), "a dry run without a store");
    place.snapshot();
    fs::write(place.data.join("one-more"), "more").expect("a file");
    let all = survey(place.root.path());
    let said = place.ok(["snapshot", "--dry-run", "--json", "--tag", "t"]).json();
    assert_eq!((&said["dry_run"], &said["new_chunks"], &said["changed_files"]), (&true.into(), &1.into(), &1.into()));
    place.ok(["snapshot", "--dry-run", "--full-scan"]);
    live_common::assert_same(&all, &survey(place.root.path()), "a dry run with a store");
    assert_eq!(place.ok(["snapshots"]).out.lines().count(), 1);
    assert_eq!(place.snapshot()["new_chunks"], 1);
    place.ok(["snapshot", "--dry-run"]).says(&["dry run: nothing changed", "nothing would be stored"]);
}

#[test]
fn files_and_folders_of_a_store_are_private() {
    let place = Place::new();
    fs::write(place.data.join("file"), "content").expect("a file");
    let mut command = place.nbak(["snapshot"]);
    run(&mut command).exits(0);
    for (path, item) in survey(&place.repo) {
        assert_eq!(item.mode & 0o077, 0, "{} is open to others: {:o}", path.display(), item.mode);
    }
}

/// What changes a store deletes and moves in its folders, and does that nowhere else.
#[test]
fn a_link_in_the_place_of_a_stores_folder_is_refused() {
    let place = Place::new();
    fs::write(place.data.join("file"), "content").expect("a file");
    place.ok(["snapshot"]);
    for folder in ["packs", "keys", "tmp"] {
        let (own, elsewhere) = (place.repo.join(folder), place.path(folder));
        fs::rename(&own, &elsewhere).expect("moved");
        fs::write(elsewhere.join("0123456789abcdef0123456789abcdef"), "somebody's").expect("a file");
        std::os::unix::fs::symlink(&elsewhere, &own).expect("a link");
        let before = survey(&elsewhere);
        for command in [&["snapshot", "--tag", "more"][..], &["gc"], &["repair"], &["key", "rotate"]] {
            place.run(command).exits(1).says(&["symbolic link", folder]);
        }
        assert!(survey(&elsewhere) == before, "{folder}");
        fs::remove_file(&own).expect("removed");
        fs::remove_file(elsewhere.join("0123456789abcdef0123456789abcdef")).expect("removed");
        fs::rename(&elsewhere, &own).expect("moved back");
    }
    place.ok(["snapshot", "--tag", "more"]);
    place.check();
}
