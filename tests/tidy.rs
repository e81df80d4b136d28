//! The house rules, as a test: what a compiler and a linter cannot hold is read here from the source text.
//!
//! The order of the rooms is the table [`ROOMS`]; the other rules are one function each, and each says why it
//! exists when it fails. A file is first split by [`Source::parse`] into code, comments and strings, so that a rule
//! about code is not tripped by a sentence about code. The last part feeds every rule a snippet that breaks it: a
//! rule that cannot fail holds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use May::{UseAllAbove, UseOnly};
use circles::circles;
use scan::{Source, line_of, paths, words};

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/scan.rs"]
mod scan;

/// What a room may name besides itself.
enum May {
    /// These rooms and no other.
    UseOnly(&'static [&'static str]),
    /// Every room that stands above it in the table.
    UseAllAbove,
}

/// The rooms, in order. A room only ever looks up; `lib.rs` is the door, and `main.rs` may use `nbak::cli` alone.
const ROOMS: &[(&str, May)] = &[
    ("error", UseOnly(&[])),
    ("codec", UseOnly(&["error"])),
    ("id", UseOnly(&["error", "codec"])),
    ("crypto", UseOnly(&["error", "id", "codec"])),
    ("store", UseOnly(&["error", "id", "codec", "crypto"])),
    ("index", UseOnly(&["error", "id", "codec", "crypto", "store"])),
    ("chunk", UseOnly(&["error", "id", "codec", "crypto", "store"])),
    ("source", UseOnly(&["error"])),
    ("snapshot", UseAllAbove),
    ("upkeep", UseAllAbove),
    ("export", UseAllAbove),
    ("drive", UseOnly(&["error", "id", "codec", "crypto", "store", "source", "export"])),
    ("notice", UseOnly(&["error", "id"])),
    ("config", UseOnly(&["error", "source", "upkeep", "notice"])),
    ("schedule", UseAllAbove),
    ("cli", UseAllAbove),
];

/// The one file that may talk to C.
const FFI: &str = "src/source/sqlite/ffi.rs";
/// This file: it spells out what it forbids.
const SELF: &str = "tests/tidy.rs";
const SRC_LINES: usize = 600;
const TEST_LINES: usize = 900;
const COLUMNS: usize = 120;
/// How far above an `unsafe` its reason may stand.
const SAFETY_LINES: usize = 12;
const EXPECT_WORDS: usize = 3;
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";
const DOCUMENTS: &[&str] = &[
    "README.md",
    "docs/FORMAT.md",
    "docs/SECURITY.md",
    "docs/OPERATIONS.md",
    "docs/RELIABILITY.md",
    ARCHITECTURE,
    "CHANGELOG.md",
    "CONTRIBUTING.md",
];

/// A line number and what is wrong there.
type Found = (usize, String);

// ---------------------------------------------------------------------------------------------------------------
// The rules
// ---------------------------------------------------------------------------------------------------------------

#[test]
fn rooms_only_look_up() {
    enforce(
        "a room names only the rooms that ROOMS in tests/tidy.rs grants it, by `crate::ROOM::…`",
        "a cycle between rooms cannot be read, tested or replaced one piece at a time; and a layer that is skipped \
         (a command that seals its own bytes) is where a guarantee of the layer is lost",
        rust_files().iter().filter(|file| file.in_src()),
        rooms,
    );
}

#[test]
fn no_files_need_each_other() {
    report(
        "files of a room need each other in one direction only",
        "a file that is in a circle cannot be read before all the others in it; what two of them need of each other \
         belongs into a third",
        &circles(&rust_files()),
    );
}

#[test]
fn the_table_of_rooms_is_an_order() {
    for (at, (room, may)) in ROOMS.iter().enumerate() {
        if let UseOnly(allowed) = may {
            for other in *allowed {
                assert!(
                    ROOMS[..at].iter().any(|(name, _)| name == other),
                    "{room} may use {other}, which is not above it"
                );
            }
        }
    }
}

#[test]
fn files_stay_readable() {
    enforce(
        "at most 600 lines in a file of src, 900 in one of tests, 120 columns (URLs excepted); a file of src opens \
         with two lines of `//!` prose or more",
        "a file that does not fit a head has two subjects; prose at the door is what a reader starts from",
        rust_files().iter(),
        size_and_opening,
    );
}

#[test]
fn unsafe_has_one_home() {
    enforce(
        "`unsafe` only in src/source/sqlite/ffi.rs, with a SAFETY comment within the 12 lines above",
        "undefined behaviour in a backup tool is silent damage: one file can be reviewed, a crate cannot",
        rust_files().iter(),
        unsafe_code,
    );
}

#[test]
fn the_library_does_not_print_or_exit() {
    enforce(
        "print macros only in src/cli and src/main.rs, `process::exit` only in src/main.rs",
        "stdout is the result, which scripts read; and an exit in the library skips the destructors that release \
         locks and remove temporary files",
        rust_files().iter().filter(|file| file.in_src()),
        print_and_exit,
    );
}

#[test]
fn nothing_is_left_unfinished_or_unexplained() {
    enforce(
        "no `todo!`, `unimplemented!`, `dbg!`; no `.unwrap()` in src outside tests; an `.expect(\"…\")` there says \
         in three words or more why it cannot fail",
        "a panic in the middle of a backup is a backup that was not made, and its message is all that the user has",
        rust_files().iter(),
        panics,
    );
}

#[test]
fn bytes_have_an_order() {
    enforce(
        "no `from_ne_bytes`/`to_ne_bytes`, but in the FFI with a comment that says `native`",
        "a store that was written on one machine must be readable on every other",
        rust_files().iter(),
        native_endian,
    );
}

#[test]
fn invariants_are_numbered_in_one_document() {
    let text = fs::read_to_string(root().join(ARCHITECTURE))
        .unwrap_or_else(|error| panic!("{ARCHITECTURE}: the invariants of the house stand there: {error}"));
    let defined = defined_invariants(&text);
    let mut named = BTreeSet::new();
    let files: Vec<Source> =
        rust_files().into_iter().filter(|file| file.path != SELF && (file.in_src() || file.in_tests())).collect();
    for file in &files {
        named.extend(named_invariants(file).into_iter().map(|(_, name)| name));
    }
    let rule = "every invariant that a comment or string of src names is defined in docs/ARCHITECTURE.md (a row \
                `| I1 | …` or a heading), and every one defined there is named in src or tests";
    let why = "a number without a sentence explains nothing, and a sentence that no code or test names is not kept";
    enforce(rule, why, files.iter().filter(|file| file.in_src()), |file| {
        named_invariants(file)
            .into_iter()
            .filter(|(_, name)| !defined.contains_key(name))
            .map(|(line, name)| (line, format!("names {name}, which {ARCHITECTURE} does not define")))
            .collect()
    });
    let unnamed: Vec<String> = defined
        .iter()
        .filter(|(name, _)| !named.contains(*name))
        .map(|(name, line)| format!("{ARCHITECTURE}:{line}: {name} is named nowhere in src or tests"))
        .collect();
    report(rule, why, &unnamed);
}

#[test]
fn no_machine_is_named() {
    let mut all = Vec::new();
    for path in committed_files() {
        let Some(text) = read_text(&path) else { continue };
        all.extend(machine_paths(&path, &text).into_iter().map(|(line, what)| format!("{path}:{line}: {what}")));
    }
    report(
        "no path of one machine in a committed file (a temporary directory may be named in tests)",
        "it works for whoever wrote it, and for nobody else",
        &all,
    );
}

#[test]
fn the_documents_stand() {
    let missing: Vec<String> = DOCUMENTS
        .iter()
        .filter(|path| !root().join(path).is_file())
        .map(|path| format!("{path}:1: is missing"))
        .collect();
    report(
        "the documents exist",
        "the format, its security and the plan of the house are part of the promise that a backup can be read",
        &missing,
    );
}

#[test]
fn links_lead_somewhere() {
    let mut all = Vec::new();
    for path in committed_files().into_iter().filter(|path| is_kind(path, "md")) {
        let Some(text) = read_text(&path) else { continue };
        for (line, target) in links(&text) {
            if let Some(problem) = dead_link(&path, &target) {
                all.push(format!("{path}:{line}: {problem}"));
            }
        }
    }
    report(
        "relative links in Markdown lead to a file that exists, and to a heading that it has",
        "whoever follows a link in the restore procedure has no time to search",
        &all,
    );
}

#[test]
fn tests_that_documents_name_are_there() {
    let sources: Vec<String> =
        committed_files().iter().filter(|path| is_kind(path, "rs")).filter_map(|path| read_text(path)).collect();
    let is_there = |name: &str| sources.iter().any(|text| text.contains(&format!("fn {name}(")));
    let mut all = Vec::new();
    for path in ["docs/SECURITY.md", "docs/RELIABILITY.md"] {
        let text = read_text(path).unwrap_or_default();
        all.extend(
            named_tests(&text)
                .filter(|(_, name)| !is_there(name))
                .map(|(line, name)| format!("{path}:{line}: no test is called `{name}`")),
        );
    }
    report(
        "a test that a table of promises names exists",
        "a promise whose test was renamed, or went, looks as if it were still held",
        &all,
    );
}

/// The names of tests in the rows of tables that begin with the number of a promise, and their lines.
fn named_tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_promise = |line: &&str| {
        let number = line.strip_prefix("| S").or_else(|| line.strip_prefix("| R"));
        number.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let is_name = |word: &&str| {
        let letters = word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        letters && word.matches('_').count() > 1
    };
    let lines = text.lines().enumerate().filter(move |(_, line)| is_promise(line));
    lines.flat_map(move |(at, line)| line.split('`').skip(1).step_by(2).filter(is_name).map(move |name| (at + 1, name)))
}

// ---------------------------------------------------------------------------------------------------------------
// What the rules look for, one file at a time
// ---------------------------------------------------------------------------------------------------------------

fn rooms(file: &Source) -> Vec<Found> {
    let mut found = Vec::new();
    let Some((room, depth)) = file.room() else { return found };
    let is_main = room == "main";
    let standing = ROOMS.iter().position(|(name, _)| *name == room);
    if standing.is_none() && !is_main && room != "lib" {
        return vec![(1, format!("the room `{room}` is not in the table: give it a place in the order"))];
    }
    for at in words(&file.code, "#[path") {
        found.push((file.line(at), "`#[path]` hides which room a file belongs to".to_owned()));
    }
    for (at, path) in paths(&file.code) {
        let line = file.line(at);
        let second = path.get(1).copied().unwrap_or("");
        if is_main {
            if path[0] == "nbak" && second != "cli" {
                found.push((line, format!("main names `{}`: it may use `nbak::cli` alone", path.join("::"))));
            }
            continue;
        }
        let Some(standing) = standing else { continue };
        if path[0] == "crate" {
            let may = match &ROOMS[standing].1 {
                UseOnly(allowed) => allowed.contains(&second),
                UseAllAbove => ROOMS[..standing].iter().any(|(name, _)| *name == second),
            };
            if second != room && !may {
                let what = if ROOMS.iter().any(|(name, _)| *name == second) {
                    format!("`{room}` may not use the room `{second}`")
                } else {
                    format!("`{}` is not a room: name things by the room that they stand in", path.join("::"))
                };
                found.push((line, what));
            }
        }
        let climbs = path.iter().skip_while(|part| **part == "self").take_while(|part| **part == "super").count();
        let inside = file.modules.iter().filter(|module| module.contains(&at)).count();
        if climbs > 0 && climbs >= depth + inside {
            found.push((line, format!("`{}` climbs out of the room `{room}`", path.join("::"))));
        }
    }
    found
}

fn size_and_opening(file: &Source) -> Vec<Found> {
    let mut found = Vec::new();
    let limit = match () {
        () if file.in_src() => SRC_LINES,
        () if file.in_tests() => TEST_LINES,
        () => usize::MAX,
    };
    let lines = file.text.lines().count();
    if lines > limit {
        found.push((limit + 1, format!("{lines} lines, {limit} are allowed")));
    }
    for (number, line) in file.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS && !line.contains("://") {
            found.push((number + 1, format!("{columns} columns, {COLUMNS} are allowed")));
        }
    }
    let opening = file.text.lines().map_while(|line| line.strip_prefix("//!")).filter(|line| !line.trim().is_empty());
    if file.in_src() && opening.count() < 2 {
        found.push((1, "does not open with two lines of `//!` prose".to_owned()));
    }
    found
}

fn unsafe_code(file: &Source) -> Vec<Found> {
    let mut found = Vec::new();
    let comments: Vec<&str> = file.comments.lines().collect();
    for at in words(&file.code, "unsafe") {
        let line = file.line(at);
        if file.path != FFI {
            found.push((line, "`unsafe` outside of the FFI".to_owned()));
            continue;
        }
        let next = file.code[at + "unsafe".len()..].trim_start();
        let foreign = next.strip_prefix("extern").map(|rest| rest.trim_start_matches([' ', '"']));
        let opens = next.starts_with("impl") || foreign.unwrap_or(next).starts_with('{');
        let above = &comments[line.saturating_sub(SAFETY_LINES + 1)..line.min(comments.len())];
        if opens && !above.iter().any(|comment| comment.contains("SAFETY")) {
            found.push((line, format!("`unsafe` without SAFETY within the {SAFETY_LINES} lines above")));
        }
    }
    found
}

fn print_and_exit(file: &Source) -> Vec<Found> {
    let mut found = Vec::new();
    let is_main = file.path == "src/main.rs";
    if !is_main && file.room().is_none_or(|(room, _)| room != "cli") {
        for name in ["println!", "eprintln!", "print!", "eprint!"] {
            found.extend(words(&file.code, name).map(|at| (file.line(at), format!("`{name}` in the library"))));
        }
    }
    if !is_main {
        let exits = paths(&file.code).into_iter().filter(|(_, path)| path.ends_with(&["process", "exit"]));
        found.extend(exits.map(|(at, path)| (file.line(at), format!("`{}` outside of main", path.join("::")))));
    }
    found
}

fn panics(file: &Source) -> Vec<Found> {
    let mut found = Vec::new();
    for name in ["todo!", "unimplemented!", "dbg!"] {
        found.extend(words(&file.code, name).map(|at| (file.line(at), format!("`{name}`"))));
    }
    if !file.in_src() {
        return found;
    }
    for at in words(&file.code, ".unwrap()").filter(|at| !file.is_test(*at)) {
        found.push((file.line(at), "`.unwrap()` outside of tests".to_owned()));
    }
    for at in words(&file.code, ".expect(").filter(|at| !file.is_test(*at)) {
        let rest = at + ".expect(".len();
        let open = rest + file.code[rest..].len() - file.code[rest..].trim_start().len();
        let Some(message) = file.code[open..].strip_prefix('"').and_then(|rest| rest.find('"')) else { continue };
        let message = &file.strings[open + 1..=open + message];
        if message.split_whitespace().count() < EXPECT_WORDS {
            found.push((file.line(at), format!("`.expect(\"{message}\")` does not say why it cannot fail")));
        }
    }
    found
}

fn native_endian(file: &Source) -> Vec<Found> {
    let mut found = Vec::new();
    let comments: Vec<&str> = file.comments.lines().collect();
    for name in ["from_ne_bytes", "to_ne_bytes"] {
        for line in words(&file.code, name).map(|at| file.line(at)) {
            let near = &comments[line.saturating_sub(2)..line.min(comments.len())];
            let said = near.iter().any(|comment| comment.to_lowercase().contains("native"));
            if file.path != FFI {
                found.push((line, format!("`{name}`: say little or big endian")));
            } else if !said {
                found.push((line, format!("`{name}` without a comment that says why the native order is meant")));
            }
        }
    }
    found
}

/// `I` and one or two digits, as a word of its own.
fn invariant_names(text: &str) -> Vec<(usize, String)> {
    let is_name = |word: &str| {
        word.strip_prefix('I').is_some_and(|n| (1..=2).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut names = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let parts = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        names.extend(parts.filter(|word| is_name(word)).map(|word| (number + 1, word.to_owned())));
    }
    names
}

fn named_invariants(file: &Source) -> Vec<(usize, String)> {
    let mut names = invariant_names(&file.comments);
    names.extend(invariant_names(&file.strings));
    names.sort();
    names
}

/// The invariants that a table row or a heading of `text` defines, and on which line.
fn defined_invariants(text: &str) -> BTreeMap<String, usize> {
    let mut defined = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let subject = match line.strip_prefix('|') {
            Some(row) => row.split('|').next().unwrap_or("").trim(),
            None if line.starts_with('#') => line,
            None => continue,
        };
        for (_, name) in invariant_names(subject) {
            if subject == name || line.starts_with('#') {
                defined.entry(name).or_insert(number + 1);
            }
        }
    }
    defined
}

fn machine_paths(path: &str, text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    let source = is_kind(path, "rs").then(|| Source::parse(path, text));
    let is_test = |at| path.starts_with("tests/") || source.as_ref().is_some_and(|source| source.is_test(at));
    for (needle, in_tests) in [(concat!("/", "work/"), false), (concat!("/", "root/"), false), ("/tmp/", true)] {
        for (at, _) in text.match_indices(needle) {
            // A name before it makes it the inside of another path: `target/…`, `$HOME/…`, a URL.
            let starts = text[..at].chars().next_back().is_none_or(|c| c.is_whitespace() || "\"'`(=:<>[,/".contains(c));
            if starts && !(in_tests && is_test(at)) {
                found.push((line_of(text, at), format!("names the path `{needle}…` of one machine")));
            }
        }
    }
    found
}

// ---------------------------------------------------------------------------------------------------------------
// Markdown
// ---------------------------------------------------------------------------------------------------------------

/// The lines of a Markdown text outside of code blocks, numbered.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((number + 1, line))
    })
}

/// The targets of `[text](target)` and `[name]: target`, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for (number, line) in prose(text) {
        // The odd parts between backticks are code; a link's text may be code, its target is not.
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        let inline = plain.match_indices("](").filter_map(|(at, _)| plain[at + 2..].split([')', ' ']).next());
        all.extend(inline.map(|target| (number, target.to_owned())));
        if let Some((_, target)) = plain.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
            all.extend(target.split_whitespace().next().map(|target| (number, target.to_owned())));
        }
    }
    all
}

/// The anchors of a Markdown text's headings, as forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    let slug = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        words.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(|(_, line)| slug(line)).collect()
}

/// What is wrong with the link `target` in the document at `path`, if it is a relative one.
fn dead_link(path: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let from = root().join(path);
    let to = if file.is_empty() { from } else { from.parent()?.join(file) };
    if !to.exists() {
        return Some(format!("the link `{target}` leads to no file"));
    }
    let of_markdown = to.extension().is_some_and(|end| end == "md");
    let known = || fs::read_to_string(&to).is_ok_and(|text| anchors(&text).contains(anchor));
    (!anchor.is_empty() && of_markdown && !known()).then(|| format!("the link `{target}` leads to no heading"))
}

// ---------------------------------------------------------------------------------------------------------------
// Reading the tree, and reporting
// ---------------------------------------------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the project.
fn rust_files() -> Vec<Source> {
    let paths = walk(root()).into_iter().filter(|path| is_kind(path, "rs"));
    let mut files: Vec<Source> =
        paths.filter_map(|path| read_text(&path).map(|text| Source::parse(&path, &text))).collect();
    assert!(!files.is_empty(), "no Rust file under {}", root().display());
    let tests: Vec<String> = files.iter().flat_map(Source::test_modules).collect();
    for file in &mut files {
        if tests.iter().any(|t| file.path == format!("{t}.rs") || file.path.starts_with(&format!("{t}/"))) {
            file.tests.push(0..file.text.len());
        }
    }
    files
}

/// What git keeps; without git, every file that is not built or hidden.
fn committed_files() -> Vec<String> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    match listed {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            String::from_utf8_lossy(&output.stdout).split_terminator('\0').map(str::to_owned).collect()
        }
        _ => walk(root()),
    }
}

fn walk(dir: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("cannot read {}: {error}", dir.display()));
    for path in entries.map(|entry| entry.map(|entry| entry.path())).filter_map(Result::ok) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(".");
        // Links are not followed: one to a directory above would never end.
        if path.is_symlink() || name.starts_with('.') || ["target", "corpus", "artifacts"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(from_root(&path));
        }
    }
    files.sort();
    files
}

fn from_root(path: &Path) -> String {
    let parts = path.strip_prefix(root()).unwrap_or(path).components();
    let names = parts.filter_map(|part| if let Component::Normal(name) = part { name.to_str() } else { None });
    names.collect::<Vec<_>>().join("/")
}

fn is_kind(path: &str, ending: &str) -> bool {
    Path::new(path).extension().is_some_and(|end| end == ending)
}

/// The text at `path`; nothing if it is gone or is not text.
fn read_text(path: &str) -> Option<String> {
    let path: PathBuf = root().join(path);
    String::from_utf8(fs::read(path).ok()?).ok()
}

fn enforce<'a>(rule: &str, why: &str, files: impl Iterator<Item = &'a Source>, check: impl Fn(&Source) -> Vec<Found>) {
    let mut all = Vec::new();
    for file in files {
        all.extend(check(file).into_iter().map(|(line, what)| format!("{}:{line}: {what}", file.path)));
    }
    report(rule, why, &all);
}

fn report(rule: &str, why: &str, found: &[String]) {
    assert!(found.is_empty(), "\n  {}\nthe rule: {rule}\nwhy: {why}\n", found.join("\n  "));
}

// ---------------------------------------------------------------------------------------------------------------
// The rules can fail
// ---------------------------------------------------------------------------------------------------------------

mod broken {
    use super::*;

    /// The lines that `check` finds fault with in `text`, if it stood at `path`.
    fn lines(check: fn(&Source) -> Vec<Found>, path: &str, text: &str) -> Vec<usize> {
        let mut lines: Vec<usize> = check(&Source::parse(path, text)).into_iter().map(|(line, _)| line).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn tests_that_are_named() {
        let text = "| S1 | `a_test_here`, `not_one` |\n| a | `another_test_here` |\n| R12 | `src/a_b_c.rs` `x_y_z` |\n";
        assert_eq!(named_tests(text).collect::<Vec<_>>(), [(1, "a_test_here"), (3, "x_y_z")]);
    }

    #[test]
    fn rooms_that_look_down() {
        let at = |path, text| lines(rooms, path, text);
        assert_eq!(at("src/store/pack.rs", "use crate::error::Error;\nuse crate::index::Index;\n"), [2]);
        assert_eq!(at("src/store/mod.rs", "use crate::{\n    error::Error,\n    snapshot,\n};\n"), [3]);
        assert_eq!(at("src/chunk/mod.rs", "fn f() {\n    crate::source::walk();\n}\n"), [2]);
        assert_eq!(at("src/chunk/mod.rs", "#[cfg(test)]\nmod tests {\n    use crate::index::Index;\n}\n"), [3]);
        assert_eq!(at("src/source/walk.rs", "use crate::id::Id;\nuse crate::source::Entry;\n"), [1]);
        assert_eq!(at("src/drive/mod.rs", "use crate::export::Layout;\nuse crate::snapshot::take;\n"), [2]);
        assert_eq!(at("src/cli/mod.rs", "use crate::{schedule, drive, snapshot, Result};\nuse crate::*;\n"), [1, 2]);
        assert_eq!(at("src/attic.rs", "\n"), [1]);
        assert_eq!(at("src/id.rs", "use super::error;\nuse crate as all;\n#[path = \"x.rs\"]\nmod x;\n"), [1, 2, 3]);
        assert_eq!(at("src/store/mod.rs", "use self::super::index;\n"), [1]);
        assert_eq!(at("src/store/pack.rs", "use super::Id;\nuse super::super::index;\n"), [2]);
        assert_eq!(at("src/store/pack.rs", "mod tests {\n    use super::super::Id;\n    use super::*;\n}\n"), []);
        assert_eq!(at("src/store/mod.rs", "// crate::index\nlet a = \"crate::index\";\npub(crate) fn f() {}\n"), []);
        assert_eq!(at("src/main.rs", "use nbak::cli;\nuse nbak::{store, cli::run};\nnbak::error::f();\n"), [2, 3]);
        assert_eq!(at("src/lib.rs", "pub use crate::snapshot::take;\npub mod cli;\n"), []);
    }

    #[test]
    fn files_that_need_each_other() {
        let at = |files: &[(&str, &str)]| -> Vec<String> {
            circles(&files.iter().map(|(path, text)| Source::parse(path, text)).collect::<Vec<_>>())
        };
        let (a, b, c) = ("src/room/a.rs", "src/room/b.rs", "src/room/c.rs");
        let leading = ("src/room/d.rs", "use super::a::A;\n");
        let circle =
            [(a, "use super::b::B;\n"), (b, "\nuse crate::room::{c::C, E};\n"), (c, "use super::a;\n"), leading];
        let steps = [
            "src/room/a.rs:1: needs src/room/b.rs",
            "src/room/b.rs:2: needs src/room/c.rs",
            "src/room/c.rs:1: needs src/room/a.rs",
        ];
        assert_eq!(at(&circle), steps);
        let door = ("src/room/mod.rs", "mod a;\npub use b::B;\n");
        assert_eq!(at(&[door, (a, "use super::B;\n"), (b, "fn f(x: super::a::A) {}\n")]).len(), 2, "by the door");
        assert!(at(&[door, (a, "use super::B;\n"), (b, "use super::Other;\n")]).is_empty(), "one way, and a door");
        let tests = "#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}\n";
        assert!(at(&[(a, "use super::b::B;\n"), (b, tests)]).is_empty(), "a test's");
    }

    #[test]
    fn files_that_cannot_be_read() {
        let prose = "//! One.\n//!\n//! Two.\n";
        let at = |path: &str, text: String| lines(size_and_opening, path, &text);
        assert_eq!(at("src/a.rs", format!("{prose}{}", "\n".repeat(597))), []);
        assert_eq!(at("src/a.rs", format!("{prose}{}", "\n".repeat(598))), [601]);
        assert_eq!(at("tests/a.rs", "\n".repeat(901)), [901]);
        assert_eq!(at("benches/a.rs", "\n".repeat(2000)), []);
        assert_eq!(at("src/a.rs", format!("{prose}{}\n// https://{}\n", "é".repeat(121), "x".repeat(200))), [4]);
        assert_eq!(at("src/a/mod.rs", "//! One.\n//!\nuse x;\n".to_owned()), [1]);
    }

    #[test]
    fn unsafe_that_strays_or_is_silent() {
        assert_eq!(lines(unsafe_code, "src/store/mod.rs", "#![deny(unsafe_code)]\n// unsafe\nunsafe { f() }\n"), [3]);
        let far = "\n".repeat(SAFETY_LINES);
        assert_eq!(lines(unsafe_code, FFI, &format!("// SAFETY: held.{far}unsafe {{ f() }}\n")), []);
        assert_eq!(lines(unsafe_code, FFI, &format!("// SAFETY: held.\n{far}unsafe {{ f() }}\n")), [14]);
        assert_eq!(lines(unsafe_code, FFI, "unsafe impl Send for A {}\nunsafe extern \"C\" {\n}\n"), [1, 2]);
        assert_eq!(lines(unsafe_code, FFI, "type F = unsafe extern \"C\" fn(i32);\n"), []);
    }

    #[test]
    fn a_library_that_talks() {
        let text = "println!();\neprint!();\nstd::process::exit(1);\nuse std::{io, process::exit};\n\
                    writeln!(a)?; my_print!();\n";
        assert_eq!(lines(print_and_exit, "src/store/mod.rs", text), [1, 2, 3, 4]);
        assert_eq!(lines(print_and_exit, "src/cli/show.rs", text), [3, 4]);
        assert_eq!(lines(print_and_exit, "src/main.rs", text), []);
    }

    #[test]
    fn panics_that_explain_nothing() {
        let text = "todo!();\na.unwrap();\nb.expect(\"two words\");\nc.expect(\n    \"length was checked\",\n);\n\
                    d.unwrap_or(1);\n#[cfg(not(test))]\nfn g() { e.unwrap() }\n\
                    #[cfg(test)]\nmod tests {\n    fn h() { f.unwrap().expect(\"x\"); dbg!(1); }\n}\n";
        assert_eq!(lines(panics, "src/a.rs", text), [1, 2, 3, 9, 12]);
        assert_eq!(lines(panics, "tests/a.rs", text), [1, 12]);
        let parent = Source::parse("src/store/mod.rs", "#[cfg(test)]\npub(crate) mod suite;\nmod pack;\n");
        assert_eq!(parent.test_modules(), ["src/store/suite"]);
    }

    #[test]
    fn bytes_without_an_order() {
        let text = "// The native order: C made it.\nu32::from_ne_bytes(a);\n\nb.to_ne_bytes(); c.to_le_bytes();\n";
        assert_eq!(lines(native_endian, FFI, text), [4]);
        assert_eq!(lines(native_endian, "src/store/pack.rs", text), [2, 4]);
    }

    #[test]
    fn invariants_without_a_home() {
        let file = Source::parse("src/a.rs", "// Keeps I3, see I12.\nlet I4 = \"breaks I5\"; // I100 MI6 I7b\n");
        let expected = [(1, "I12".to_owned()), (1, "I3".to_owned()), (2, "I5".to_owned())];
        assert_eq!(named_invariants(&file), expected);
        let defined =
            defined_invariants("| I1 | packs first, before I9 |\n| see I8 | x |\n### I2: receipts\nI3 in prose\n");
        assert_eq!(defined.into_iter().collect::<Vec<_>>(), [("I1".to_owned(), 1), ("I2".to_owned(), 3)]);
    }

    #[test]
    fn machines_that_are_named() {
        let at = |path, text: &str| machine_paths(path, text).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
        let home = concat!("cd /", "root/x\n");
        assert_eq!(at("README.md", &format!("fine\n{home}see https://example.org/tmp/x and target/tmp/\n")), [2]);
        assert_eq!(at("tests/a.rs", &format!("\"/tmp/x\"\n{home}")), [2]);
        assert_eq!(at("src/a.rs", "\"/tmp/x\"\n#[cfg(test)]\nmod tests {\n    \"/tmp/x\"\n}\n"), [1]);
    }

    #[test]
    fn links_that_lead_nowhere() {
        let text = "# A `b` c!\n[a](x.md#top) ![b](y.png \"t\") `[c](no)` [`d`](z)\n```\n[e](no)\n```\n[f]: w.md\n";
        let targets: Vec<(usize, String)> = links(text);
        let named: Vec<(usize, &str)> = targets.iter().map(|(line, target)| (*line, target.as_str())).collect();
        assert_eq!(named, [(2, "x.md#top"), (2, "y.png"), (2, "z"), (6, "w.md")]);
        assert!(anchors(text).contains("a-b-c"));
        assert!(dead_link("README.md", "no-such-file.md").is_some());
        assert!(dead_link("tests/tidy.rs", "../Cargo.toml").is_none());
        assert!(dead_link("README.md", "https://example.org/none").is_none());
    }
}
