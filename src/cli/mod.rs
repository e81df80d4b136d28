//! The command line: arguments in, one library call, output.
//!
//! [`args`] is what was typed, [`context`] what is meant by it (which directory, which store, which keys). Each family
//! of commands has a file that makes the call and prints its answer. Results go to stdout, everything else to stderr
//! ([`output`]); with `--json` a result is one object, or one object a line for lists.

mod args;
mod backup;
mod check;
mod context;
mod key;
mod look;
mod output;
mod restore;
mod snapshot;

use clap::Parser;

use self::args::{Args, Command};
use self::context::Context;
use crate::error::Result;

/// Runs the program with the process's arguments; answers its exit code.
pub fn main() -> u8 {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    let context = Context::new(&args.common);
    allow_open_files();
    match run(&context, args.command).and_then(|code| output::complete().map(|()| code)) {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            error.exit_code()
        }
    }
}

/// No core dumps. And: all changed databases are open at the same time: take as many descriptors as the system lets
/// this process have.
fn allow_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If not, many databases that changed at once are a clear error later on.
    let _ = setrlimit(Resource::Nofile, limit);
    // A core file would hold the key.
    let mut core = getrlimit(Resource::Core);
    core.current = Some(0);
    let _ = setrlimit(Resource::Core, core);
}

fn run(context: &Context, command: Command) -> Result<u8> {
    backup::recover(context);
    match command {
        Command::Snapshot(args) => snapshot::take(context, args),
        Command::Snapshots => snapshot::list(context),
        Command::Ls(args) => look::ls(context, &args),
        Command::Cat(args) => look::cat(context, &args),
        Command::Restore(args) => restore::restore(context, args),
        Command::Export(args) => backup::export(context, args),
        Command::Backup(args) => backup::run(context, args),
        Command::Check(args) => check::check(context, &args),
        Command::Stats => check::stats(context),
        Command::Repair(args) => check::repair(context, &args),
        Command::Key(args) => key::run(context, args),
    }
}
