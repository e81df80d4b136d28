//! The program: hands the command line to the library and its answer to the shell.
//!
//! Everything that can be said about a command is in `nbak::cli`; here is only the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(nbak::cli::main())
}
