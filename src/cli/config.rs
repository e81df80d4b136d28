//! `config`, `completions`, `man`: what is set, and what helps those who type.
//!
//! Secrets are shown to nobody: of those keys it is said only that they are set.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use super::args::{Args, ConfigAction};
use super::context::Context;
use super::output::{self, line, shown};
use crate::config::keys;
use crate::config::layers::Origin;
use crate::error::{Error, Result};

/// `config`.
pub fn config(context: &Context, action: &ConfigAction) -> Result<u8> {
    match action {
        ConfigAction::Show => return show(context),
        ConfigAction::Schema => output::text(&format!("{:#}\n", keys::schema())),
        ConfigAction::Table => output::text(&keys::markdown()),
    }
    Ok(0)
}

fn show(context: &Context) -> Result<u8> {
    let config = context.config()?;
    for (key, value, origin) in &config.shown {
        if context.json {
            let set = *origin != Origin::Default;
            output::json(&json!({"key": key.path, "value": value, "from": origin.to_string(), "set": set}));
            continue;
        }
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        line(format!("{:26}  {:24}  {origin}", key.path, shown(&value)));
    }
    if !context.json {
        let places = context.places()?;
        line(format!("{:26}  {}", "data directory", places.data_dir.display()));
        line(format!("{:26}  {}", "backups", places.backup_dir.display()));
        line(format!("{:26}  {}", "store", places.repo.display()));
    }
    Ok(0)
}

/// `completions`.
pub fn completions(shell: Shell) -> u8 {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "nbak", &mut bytes);
    output::text(&String::from_utf8_lossy(&bytes));
    0
}

/// `man`.
pub fn man(folder: &Path) -> Result<u8> {
    if !folder.is_dir() {
        return Err(Error::usage("the manual pages go into a folder that is there").at(folder));
    }
    let mut command = without_help(Args::command());
    command.build();
    let written = clap_mangen::generate_to(command, folder);
    written.map_err(|error| Error::io("write the manual pages", folder, error))?;
    Ok(0)
}

/// Without the command `help`, at each level: it has every other command below it, and their pages would say nothing.
fn without_help(command: clap::Command) -> clap::Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}
