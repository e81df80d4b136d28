//! The command line: arguments in, one library call, output.
//!
//! [`args`] is what was typed, [`context`] what is meant by it (which directory, which store, which keys). Each family
//! of commands has a file that makes the call and prints its answer. Results go to stdout, everything else to stderr
//! ([`output`]); with `--json` a result is one object, or one object a line for lists.

mod args;
mod backup;
mod check;
mod compare;
mod config;
mod context;
mod daemon;
mod drill;
mod drive;
mod ending;
mod given;
mod inplace;
mod key;
mod listed;
mod look;
mod meant;
mod output;
mod repair;
mod restore;
mod retention;
mod secrets;
mod snapshot;
mod stats;
mod status;

use std::os::unix::fs::MetadataExt as _;

use clap::Parser;

use self::args::{Args, BackupAction, Command, Common, Gdrive};
use self::context::Context;
use crate::error::Result;
use crate::schedule::child::{settle_in, threads};

/// Runs the program with the process's arguments; answers its exit code.
pub fn main() -> u8 {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    given::keep(&args.common);
    let context = Context::new(&args.common);
    allow_open_files();
    settle_in();
    ending::outlive_large_files();
    if !matches!(args.command, Command::Daemon) {
        ending::listen();
    }
    start_threads();
    let done = run(&args.common, &context, args.command).and_then(|code| output::complete().map(|()| code));
    ending::await_end();
    ending::tell_left();
    match done {
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

/// Starts the pool that work is spread over, with as many threads as the system lets this process have. Left to itself
/// it would be started in the middle of something, and panic there if it cannot be. If there is no other thread,
/// this one does all of the work.
fn start_threads() {
    use rayon::{ThreadBuilder, ThreadPoolBuilder};
    let wanted = threads(std::thread::available_parallelism().map_or(1, usize::from));
    let (hand, given) = crossbeam_channel::unbounded::<ThreadBuilder>();
    // The pool can be started only once, and gives up at the first thread that fails: so the threads are made before.
    let ready = (0..wanted).take_while(|at| {
        let given = given.clone();
        let thread = std::thread::Builder::new().name(format!("worker {at}"));
        thread.spawn(move || given.recv().into_iter().for_each(ThreadBuilder::run)).is_ok()
    });
    let ready = ready.count();
    let pool = ThreadPoolBuilder::new().num_threads(ready.max(1));
    let started = if ready == 0 {
        pool.use_current_thread().build_global()
    } else {
        pool.spawn_handler(move |thread| hand.send(thread).map_err(|_| std::io::ErrorKind::BrokenPipe.into()))
            .build_global()
    };
    // It fails only if there is a pool already, and then that one will do.
    let _ = started;
}

/// Whether the command finishes an interrupted restore, or is about one, and so says itself how that stands. The others
/// only look, or write to the store alone.
fn finishes(command: &Command) -> bool {
    match command {
        Command::Snapshot(_) | Command::Startup(_) => true,
        Command::Restore(args) => args.target.is_none(),
        Command::Backup(args) => match &args.action {
            None | Some(BackupAction::Create(_) | BackupAction::Restore(_)) => true,
            Some(BackupAction::Gdrive { action }) => matches!(action, Gdrive::Restore { .. }),
            Some(_) => false,
        },
        _ => false,
    }
}

/// Whether the command may make files in the store, or among the backups.
fn writes(command: &Command) -> bool {
    matches!(
        command,
        Command::Forget(_)
            | Command::Undelete(_)
            | Command::Gc(_)
            | Command::Backup(_)
            | Command::Daemon
            | Command::Repair(_)
    ) || finishes(command)
}

/// As root, what is made for an application is root's: its own snapshots fail at that later on.
fn warn_of_root(context: &Context) {
    let is_root = rustix::process::geteuid().is_root();
    let owner = |path: std::path::PathBuf| std::fs::metadata(path).ok().map(|meta| meta.uid());
    let owner = context.data_dir().ok().and_then(owner).filter(|owner| is_root && *owner != 0);
    if let Some(owner) = owner {
        output::warning(format!(
            "this runs as root, and the data directory belongs to user {owner}: what it makes in the store and among \
             the backups is root's, and that user can neither read nor remove it; better is `sudo -u '#{owner}' nbak \
             …`, or `chown -R {owner}` of the store and the backups after this"
        ));
    }
}

fn run(common: &Common, context: &Context, command: Command) -> Result<u8> {
    if writes(&command) {
        warn_of_root(context);
    }
    if !finishes(&command) {
        let _ = inplace::warn(context);
    }
    match command {
        Command::Snapshot(args) => snapshot::take(context, args),
        Command::Snapshots(args) => snapshot::list(context, &args),
        Command::Forget(args) => retention::forget(context, &args),
        Command::Pin(args) => retention::pin(context, &args),
        Command::Unpin(args) => retention::unpin(context, &args),
        Command::Undelete(args) => retention::undelete(context, &args),
        Command::Gc(args) => retention::gc(context, &args),
        Command::Ls(args) => look::ls(context, &args),
        Command::Cat(args) => look::cat(context, &args),
        Command::Diff(args) => compare::diff(context, &args),
        Command::Find(args) => compare::find(context, &args),
        Command::Restore(args) => restore::restore(context, args),
        Command::Drill(args) => drill::drill(context, &args),
        Command::Export(args) => backup::export(context, args),
        Command::Backup(args) => backup::run(context, args),
        Command::Auth(args) => drive::auth::auth(context, &args.action),
        Command::Daemon => daemon::daemon(common, context),
        Command::Startup(args) => daemon::startup(context, &args),
        Command::Status => status::status(context),
        Command::Doctor => status::doctor(context),
        Command::Notify => daemon::notify(context),
        Command::Config(args) => config::config(context, &args.action),
        Command::Completions(args) => Ok(config::completions(args.shell)),
        Command::Man(args) => config::man(&args.dir),
        Command::Gdrive(args) => drive::store::copy_store(context, &args.action),
        Command::Check(args) => check::check(context, &args),
        Command::Stats(args) => stats::stats(context, &args),
        Command::Repair(args) => repair::repair(context, &args),
        Command::Key(args) => key::run(context, args),
    }
}
