//! What is handed out beside the program: completions, manual pages, units, the container's files, and the document
//! that says how to use them. What they name has to exist, and what a reader copies from them has to work.
//!
//! Shells, groff and systemd look at what is theirs, where they are there; without them the rest is looked at still.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::common::Place;

const OPERATIONS: &str = "docs/OPERATIONS.md";
const DOCKERFILE: &str = "packaging/docker/Dockerfile";
const COMPOSE: &str = "packaging/docker/compose.yaml";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What `nbak ARGS` prints.
fn printed(args: &[&str]) -> String {
    Place::empty().ok(args).out
}

/// A program that is there on this machine only perhaps.
fn perhaps(name: &str) -> Option<Command> {
    let found = std::env::split_paths(&std::env::var_os("PATH")?).any(|folder| folder.join(name).is_file());
    found.then(|| Command::new(name))
}

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

// ---------------------------------------------------------------------------------------------------------------
// Completions and manual pages
// ---------------------------------------------------------------------------------------------------------------

#[test]
fn shells_load_their_completions() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |shell: &str| -> PathBuf {
        let path = folder.path().join(shell);
        fs::write(&path, printed(&["completions", shell])).expect("written");
        path
    };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(fs::read_to_string(write(shell)).expect("read").contains("gdrive"), "{shell}");
    }
    let scripts = [
        // The words that follow `nbak backup r`.
        (
            "bash",
            vec!["--norc", "-euc"],
            "source \"$0\"; complete -p nbak >/dev/null; COMP_WORDS=(nbak backup r) COMP_CWORD=2 COMPREPLY=(); \
             _nbak nbak r backup; echo \"${COMPREPLY[@]}\"",
            "restore",
        ),
        (
            "zsh",
            vec!["-fc"],
            "autoload -U compinit; compinit -D -u; source \"$0\"; (( $+functions[_nbak] )) && echo \"${_comps[nbak]}\"",
            "_nbak",
        ),
        ("fish", vec!["--no-config", "-c"], "source $argv[1]; complete -C 'nbak backup r'", "restore"),
    ];
    for (shell, flags, script, expected) in scripts {
        let Some(mut command) = perhaps(shell) else { continue };
        let output = output(command.args(flags).arg(script).arg(write(shell)).env("HOME", folder.path()));
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {}", said(&output));
        assert!(said(&output).contains(expected), "{shell}: {}", said(&output));
    }
}

#[test]
fn manual_pages_render_without_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    printed(&["man", &folder.path().to_string_lossy()]);
    let pages: BTreeSet<String> = fs::read_dir(folder.path())
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    for page in ["nbak.1", "nbak-daemon.1", "nbak-startup.1", "nbak-backup-gdrive-restore.1", "nbak-config-show.1"] {
        assert!(pages.contains(page), "{page} of {pages:?}");
    }
    assert!(!pages.iter().any(|page| page.contains("-help")), "{pages:?}");
    let Some(mut groff) = perhaps("groff") else { return };
    groff.args(["-man", "-Tutf8", "-ww", "-z"]).current_dir(folder.path()).args(&pages);
    let output = output(&mut groff);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
}

// ---------------------------------------------------------------------------------------------------------------
// Units, and the container's files
// ---------------------------------------------------------------------------------------------------------------

/// The unit files, by their paths from the root.
fn units() -> Vec<String> {
    let mut all = Vec::new();
    for folder in ["packaging/systemd", "packaging/systemd/user"] {
        for entry in fs::read_dir(root().join(folder)).expect("listed") {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            if Path::new(&name).extension().is_some_and(|end| end == "service" || end == "timer") {
                all.push(format!("{folder}/{name}"));
            }
        }
    }
    all.sort();
    assert_eq!(all.len(), 10, "{all:?}");
    all
}

/// The commands of nbak in a text for a shell, or like one: each begins with the program's name, with or without a
/// path, and ends where the shell would end it.
fn commands(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let mut all = Vec::new();
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or_default();
        for part in line.split(['|', ';', '>', '&', '(', ')', '`']) {
            let mut words = split(part);
            let start = words.iter().position(|word| word == "nbak" || word.ends_with("/nbak"));
            let Some(start) = start else { continue };
            words.drain(..=start);
            // A container of that name, and the program in it.
            if words.first().is_some_and(|word| word == "nbak") {
                words.remove(0);
            }
            // A file or a unit of that name, and not the program.
            let is_command =
                words.first().is_some_and(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            if is_command && !words.is_empty() {
                all.push(words);
            }
        }
    }
    all
}

fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ' ' | '\t') => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// That the program knows the command and all of its flags. `--help` at its end: it is read to there, and not done.
fn assert_known(place: &str, words: &[String]) {
    let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
    args.push("--help");
    let run = Place::empty().run(&args);
    assert_eq!(run.code, 0, "{place}: nbak {}: {}", words.join(" "), run.err);
    // An unknown command before `--help` would be an error; one that is no command at all would be the help of all.
    assert!(!run.out.starts_with("Frequent, cheap"), "{place}: nbak {}", words.join(" "));
}

#[test]
fn units_name_commands_that_exist() {
    for unit in units().iter().filter(|unit| unit.ends_with(".service")) {
        let text = read(unit).replace("\\\n", " ");
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("Exec")).collect();
        let found: Vec<Vec<String>> = lines.iter().flat_map(|line| commands(&line.replace(['=', '\''], " "))).collect();
        assert!(!found.is_empty(), "{unit}");
        for words in found {
            assert_known(unit, &words);
        }
    }
}

#[test]
fn units_are_sound_and_alike() {
    for unit in units() {
        let text = read(&unit);
        for line in text.lines() {
            assert!(line.chars().count() <= 120, "{unit}: {line}");
        }
        if unit.ends_with(".service") {
            for needed in ["NoNewPrivileges=yes", "LimitCORE=0", "UMask=0077", "MemoryMax=1G", "SystemCallFilter="] {
                assert!(text.contains(needed), "{unit}: {needed}");
            }
            // It would remove what the application shares, which runs as the same user.
            assert!(!text.contains("\nRemoveIPC=yes") && !text.contains("\nPrivateUsers=yes"), "{unit}");
        }
    }
    // The three of the system's manager have the same restrictions.
    let settings = |unit: &str| -> Vec<String> {
        let text = read(unit);
        let lines = text.lines().skip_while(|line| *line != "Nice=10").take_while(|line| *line != "[Install]");
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
    };
    for (folder, at) in [("packaging/systemd", "@"), ("packaging/systemd/user", "")] {
        let daemon = settings(&format!("{folder}/nbak{at}.service"));
        assert!(daemon.len() > 10, "{daemon:?}");
        for job in ["snapshot", "backup"] {
            assert_eq!(settings(&format!("{folder}/nbak-{job}{at}.service")), daemon, "{folder}, {job}");
        }
    }
    let Some(mut analyze) = perhaps("systemd-analyze") else { return };
    // With this program in the place of the one that would be installed.
    let folder = tempfile::tempdir().expect("a folder");
    let mut paths = Vec::new();
    for unit in units() {
        let text = read(&unit).replace("/usr/local/bin/nbak", env!("CARGO_BIN_EXE_nbak"));
        let text = text.replace("%h/.cargo/bin/nbak", env!("CARGO_BIN_EXE_nbak"));
        let name = unit.rsplit('/').next().expect("a name").replace('@', "@somebody");
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        paths.push(path);
    }
    let output = output(analyze.args(["verify", "--man=no"]).args(&paths));
    let about_ours = said(&output).lines().any(|line| line.contains("nbak"));
    assert!(output.status.success() && !about_ours, "{}", said(&output));
}

#[test]
fn the_container_runs_commands_that_exist() {
    let dockerfile = read(DOCKERFILE);
    let lists = dockerfile.lines().filter_map(|line| Some((line, line.split_once("CMD [")?.1.strip_suffix(']')?)));
    let mut seen = 0;
    for (line, list) in lists {
        let words: Vec<String> = serde_json::from_str(&format!("[{list}]")).expect("a list of words");
        let is_check = line.starts_with("HEALTHCHECK");
        assert_known(line, if is_check { &words[1..] } else { &words });
        seen += 1;
    }
    assert_eq!(seen, 2, "the check, and what runs");
    let toolchain = read("rust-toolchain.toml");
    let channel =
        toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).expect("a channel").trim_matches('"');
    assert!(dockerfile.contains(&format!("FROM rust:{channel}-")), "the image builds with rust {channel}");
    assert!(dockerfile.contains("\nUSER 1001:1001\n") && dockerfile.contains("\nSTOPSIGNAL SIGTERM\n"));
    let compose = read(COMPOSE);
    let mut seen = 0;
    for line in compose.lines() {
        if let Some(list) = line.trim().strip_prefix("command: ") {
            let words: Vec<String> = serde_json::from_str(list).expect("a list of words");
            assert_known(line, &words);
            seen += 1;
        }
    }
    assert_eq!(seen, 2, "the daemon, and startup");
    for command in commands(&compose.lines().filter_map(|line| line.strip_prefix('#')).collect::<Vec<_>>().join("\n")) {
        assert_known(COMPOSE, &command);
    }
    // What the document calls variables of the environment are such.
    let table = printed(&["config", "table"]);
    for line in compose.lines().filter_map(|line| line.trim().strip_prefix("NBAK_")) {
        let name = line.split(':').next().expect("a name").to_lowercase();
        assert!(table.contains(&format!("`nbak.{name}`")), "NBAK_{name} sets nothing");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// The document
// ---------------------------------------------------------------------------------------------------------------

/// The code blocks of a document, with their languages.
fn blocks(text: &str) -> Vec<(String, String)> {
    let (mut all, mut open): (Vec<(String, String)>, bool) = (Vec::new(), false);
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            open = !open;
            if open {
                all.push((language.to_owned(), String::new()));
            }
        } else if open {
            let block = &mut all.last_mut().expect("one is open").1;
            block.push_str(line);
            block.push('\n');
        }
    }
    all
}

#[test]
fn the_table_of_keys_is_the_programs() {
    let text = read(OPERATIONS);
    let (_, rest) = text.split_once("<!-- keys:").expect("a marker");
    let (_, rest) = rest.split_once("-->\n").expect("its end");
    let (table, _) = rest.split_once("<!-- /keys -->").expect("the other marker");
    assert_eq!(
        table.trim(),
        printed(&["config", "table"]).trim(),
        "put into {OPERATIONS} what `nbak config table` prints"
    );
}

#[test]
fn commands_in_the_documents_exist() {
    for (document, least) in [(OPERATIONS, 45), ("README.md", 40)] {
        let blocks = blocks(&read(document));
        let shell = blocks.iter().filter(|(language, _)| language.is_empty());
        let found: Vec<Vec<String>> = shell
            .flat_map(|(_, text)| commands(text))
            // What a placeholder stands for is not typed.
            .map(|words| words.into_iter().filter(|word| !word.starts_with('[')).collect())
            .collect();
        assert!(found.len() >= least, "{document}: {} commands", found.len());
        for words in found {
            assert_known(document, &words);
        }
    }
}

#[test]
fn configurations_in_the_document_are_taken_without_a_warning() {
    let schema: Value = serde_json::from_str(&printed(&["config", "schema"])).expect("a schema");
    let examples: Vec<String> = blocks(&read(OPERATIONS))
        .into_iter()
        .filter(|(language, _)| language == "json")
        .map(|(_, text)| text)
        .collect();
    assert!(examples.len() >= 7, "one, and one for each kind of channel: {}", examples.len());
    let mut kinds = BTreeSet::new();
    for text in &examples {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        if let Err(why) = fits(&schema, &value, "") {
            panic!("{why}: {text}");
        }
        let channels = value["nbak"]["notify"].as_array().into_iter().flatten();
        kinds.extend(channels.filter_map(|channel| Some(channel["kind"].as_str()?.to_owned())));
        let place = Place::empty();
        fs::write(place.data.join("config.json"), text).expect("written");
        let run = place.ok(&["config", "show"]);
        assert_eq!(run.err, "", "{text}");
    }
    let expected: BTreeSet<String> =
        ["command", "webhook", "ntfy", "telegram", "email", "ping"].map(str::to_owned).into();
    assert_eq!(kinds, expected);
    for (wrong, why) in [
        (serde_json::json!({"nbak": {"kep": {}}}), "kep"),
        (serde_json::json!({"nbak": {"keep": {"daily": -1}}}), "keep"),
        (serde_json::json!({"nbak": {"notify": [{"url": "x"}]}}), "kind"),
        (serde_json::json!({"backup_encrypt": "yes"}), "backup_encrypt"),
    ] {
        let error = fits(&schema, &wrong, "").expect_err("refused");
        assert!(error.contains(why), "{error}");
    }
    python_agrees(&schema, &examples);
}

/// Python's `jsonschema`, where it is installed, finds the schema a schema, and the examples valid.
fn python_agrees(schema: &Value, examples: &[String]) {
    let Some(mut python) = perhaps("python3") else { return };
    if !output(python.args(["-c", "import jsonschema"])).status.success() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    write("schema.json", &schema.to_string());
    for (at, text) in examples.iter().enumerate() {
        write(&format!("{at}.json"), text);
    }
    let script = "import json, jsonschema, pathlib, sys\n\
                  folder = pathlib.Path(sys.argv[1])\n\
                  schema = json.loads((folder / 'schema.json').read_text())\n\
                  jsonschema.Draft202012Validator.check_schema(schema)\n\
                  for path in folder.glob('[0-9]*.json'):\n\
                  \x20   jsonschema.Draft202012Validator(schema).validate(json.loads(path.read_text()))\n";
    let output = output(Command::new("python3").args(["-c", script]).arg(folder.path()));
    assert!(output.status.success(), "{}", said(&output));
}

/// Whether `value` is as `schema` says, as far as the program's schema goes.
fn fits(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    for (word, rule) in schema.as_object().ok_or("a schema is an object")? {
        let good = match word.as_str() {
            "$schema" | "title" | "description" => true,
            "type" => match rule.as_str() {
                Some("object") => value.is_object(),
                Some("array") => value.is_array(),
                Some("string") => value.is_string(),
                Some("boolean") => value.is_boolean(),
                Some("integer") => value.is_i64() || value.is_u64(),
                _ => return Err(format!("{at}: the type {rule} is not known")),
            },
            "const" => value == rule,
            "enum" => rule.as_array().is_some_and(|all| all.contains(value)),
            "anyOf" => rule.as_array().is_some_and(|all| all.iter().any(|one| fits(one, value, at).is_ok())),
            "minimum" => value.as_f64() >= rule.as_f64(),
            "maximum" => value.as_f64() <= rule.as_f64(),
            "required" => {
                match rule.as_array().into_iter().flatten().find(|key| value.get(key.as_str().unwrap_or("")).is_none())
                {
                    Some(key) => return Err(format!("{at}: {key} is missing")),
                    None => true,
                }
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fits(rule, item, &format!("{at}[]"))?;
                }
                true
            }
            "properties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = rule.get(key) {
                        fits(schema, value, &format!("{at}.{key}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let unknown =
                    value.as_object().into_iter().flatten().find(|(key, _)| schema["properties"].get(key).is_none());
                match unknown {
                    Some((key, _)) if rule == &Value::Bool(false) => return Err(format!("{at}: {key} is not known")),
                    _ => true,
                }
            }
            _ => return Err(format!("{at}: the rule {word} is not known")),
        };
        if !good {
            return Err(format!("{at}: against {word} {rule}"));
        }
    }
    Ok(())
}

/// What was cut off, there or on the way, is whole after the next time; what was cut off here takes nothing there.
#[test]
fn the_copy_without_rsync_mends_what_was_cut_off() {
    let text = read(OPERATIONS);
    let at = text.find("cp -p \"$file\"").expect("the commands are in the document");
    let begin = text[..at].rfind("```\n").expect("a block") + 4;
    let block = &text[begin..at + text[at..].find("```").expect("its end")];
    let place = Place::taken(Some(crate::common::KEY));
    fs::write(place.data.join("more"), crate::common::noise(3, 50_000)).expect("written");
    place.ok(&["snapshot"]);
    let copy = place.path("copy");
    let script = block
        .replace("~/.nodyn/backups/store", place.repo.to_str().expect("text"))
        .replace("/mnt/copy/store", copy.to_str().expect("text"));
    assert!(script.contains(copy.to_str().expect("text")), "{block}");
    let run = || {
        let done = output(Command::new("sh").args(["-c", &script]));
        assert!(done.status.success() && said(&done).is_empty(), "{}", said(&done));
        Place { repo: copy.clone(), key: place.key, folder: tempfile::tempdir().expect("a folder"), ..Place::empty() }
    };
    run().ok(&["check", "--read-data"]);
    let cut = |path: &Path, length| {
        fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(length)).expect("cut");
    };
    let there = crate::common::objects(&copy, "packs");
    let whole = fs::read(&there[0]).expect("read");
    cut(&there[0], 100);
    cut(&there[1], 0);
    fs::write(copy.join("copying"), "half").expect("written");
    run().ok(&["check", "--read-data"]);
    assert_eq!(fs::read(&there[0]).expect("read"), whole);
    cut(&place.packs()[0], 100);
    run().ok(&["check", "--read-data"]);
}

#[test]
fn every_metric_and_event_is_in_the_document() {
    let text = read(OPERATIONS);
    let source = read("src/schedule/metrics.rs").replace("gauge(\n        ", "gauge(");
    let names: Vec<&str> = source
        .match_indices("gauge(\"")
        .map(|(at, open)| source[at + open.len()..].split('"').next().unwrap())
        .collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        assert!(text.contains(&format!("`nbak_{name}`")) || text.contains(&format!("`nbak_{name}{{what}}`")), "{name}");
    }
    for event in nbak::notice::Event::ALL {
        assert!(text.contains(&format!("| `{}` |", event.as_str())), "{}", event.as_str());
    }
}
