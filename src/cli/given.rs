//! Commands that are printed as a next step, with what the command that prints them was given.
//!
//! Whoever runs `nbak --repo /mnt/copy check` at night and reads "run `nbak repair`" gives just that, and repairs
//! another store, or is asked for a key that he named a minute ago. So what stood on the command line, and says which
//! directory, which store and which key, is put into every command that is printed for people. What stands in the
//! environment is there for the next command as well.

use std::borrow::Cow;
use std::path::Path;
use std::sync::OnceLock;

use super::args::Common;
use crate::error::words;

/// Flags with their values, as they are typed.
static GIVEN: OnceLock<Vec<(&str, String)>> = OnceLock::new();

/// How a command that is printed begins.
const COMMAND: &str = "`nbak ";

/// Keeps what was given.
pub fn keep(common: &Common) {
    let _ = GIVEN.set(flags(common, |name| std::env::var_os(name)));
}

/// `text`, with what was given in each command in it.
pub fn complete(text: &str) -> Cow<'_, str> {
    match GIVEN.get() {
        Some(flags) if !flags.is_empty() && text.contains(COMMAND) => Cow::Owned(with(flags, text)),
        _ => Cow::Borrowed(text),
    }
}

/// A path as a shell takes it for one word; with control characters, as the usual shells do.
pub fn word(path: &Path) -> String {
    words::word(path).unwrap_or_else(|| {
        let escaped = |c: char| match c {
            '\n' => "\\n".to_owned(),
            '\t' => "\\t".to_owned(),
            '\\' | '\'' => format!("\\{c}"),
            c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        };
        format!("$'{}'", path.to_string_lossy().chars().map(escaped).collect::<String>())
    })
}

fn flags(common: &Common, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Vec<(&'static str, String)> {
    let stays = |name: &str, path: &Path| variable(name).is_some_and(|value| value == path);
    let data_dir = common.data_dir.iter().filter(|path| !stays("NBAK_DATA_DIR", path));
    let repo = common.repo.iter().filter(|path| !stays("NBAK_REPO", path));
    let of = |flag, path: &std::path::PathBuf| (flag, word(path));
    let command = common.vault_key_command.iter();
    data_dir
        .map(|path| of("--data-dir", path))
        .chain(repo.map(|path| of("--repo", path)))
        .chain(common.vault_key_file.iter().map(|path| of("--vault-key-file", path)))
        .chain(command.map(|text| ("--vault-key-command", word(Path::new(text)))))
        .chain(common.passphrase_file.iter().map(|path| of("--passphrase-file", path)))
        .collect()
}

fn with(flags: &[(&str, String)], text: &str) -> String {
    let mut parts = text.split(COMMAND);
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole.push_str(COMMAND);
        let command = part.split('`').next().unwrap_or_default();
        for (flag, value) in flags {
            // One that says it itself is about that place.
            if !command.split(' ').any(|word| word == *flag) {
                whole.extend([flag, " ", value, " "]);
            }
        }
        whole.push_str(part);
    }
    whole
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::args::Args;
    use super::*;

    fn given(args: &[&str], environment: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let args = Args::try_parse_from([&["nbak"], args, &["check"]].concat()).expect("arguments");
        flags(&args.common, |name| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn each_command_has_what_was_given() {
        let flags = given(&["--repo", "/mnt/the copy", "--vault-key-file=/k"], &[]);
        assert_eq!(
            with(&flags, "see `nbak check`, then `nbak repair index`; `gc` later"),
            "see `nbak --repo '/mnt/the copy' --vault-key-file /k check`, then `nbak --repo '/mnt/the copy' \
             --vault-key-file /k repair index`; `gc` later"
        );
        assert_eq!(with(&given(&[], &[]), "see `nbak check`"), "see `nbak check`");
    }

    #[test]
    fn one_that_names_a_place_keeps_it() {
        let flags = given(&["--data-dir", "/one", "--repo", "/r"], &[]);
        assert_eq!(
            with(&flags, "`nbak --data-dir /other restore x`, `nbak backup`"),
            "`nbak --repo /r --data-dir /other restore x`, `nbak --data-dir /one --repo /r backup`"
        );
    }

    #[test]
    fn what_the_environment_says_is_not_repeated() {
        let environment = [("NBAK_DATA_DIR", "/one"), ("NBAK_REPO", "/r")];
        assert_eq!(given(&["--data-dir", "/one"], &environment), []);
        assert_eq!(given(&["--data-dir", "/two"], &environment), [("--data-dir", "/two".to_owned())]);
    }

    #[test]
    fn a_path_is_one_word() {
        for (path, typed) in [
            ("/a/b-1.x", "/a/b-1.x"),
            ("", "''"),
            ("it's", "'it'\\''s'"),
            ("/ä", "/ä"),
            ("a$b", "'a$b'"),
            ("a\n'b", "$'a\\n\\'b'"),
        ] {
            assert_eq!(word(Path::new(path)), typed);
        }
    }
}
