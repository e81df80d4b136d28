//! A small file system for one test, in a mount namespace of its own: nothing of it is left or seen outside. And a
//! limit on the size of files, which cuts writes short.
//!
//! Mounting needs the superuser; without, the tests say so and pass.

use std::path::{Path, PathBuf};
use std::process::Command;

const INSIDE: &str = "NBAK_TEST_SMALL_DISK";

/// Runs `test` again in a namespace where `$NBAK_TEST_SMALL_DISK` is a small file system; answers its path in there.
#[expect(clippy::print_stdout, reason = "a test that was skipped says so")]
pub fn small_disk(test: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(INSIDE) {
        return Some(PathBuf::from(path));
    }
    let folder = tempfile::TempDir::new().expect("a folder");
    let mut probe = Command::new("unshare");
    probe.args(["-m", "mount", "-t", "tmpfs", "-o", "size=64k", "small"]).arg(folder.path());
    if !probe.output().is_ok_and(|output| output.status.success()) {
        println!("skipped: mounting a small file system is not possible here");
        return None;
    }
    let own = std::env::current_exe().expect("this test");
    let mut again = Command::new("unshare");
    again.args(["-m", "--"]).arg(own).args(["--exact", test, "--nocapture"]).env(INSIDE, folder.path());
    let output = again.output().expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    print!("{}", text(&output.stdout));
    None
}

/// An empty file system of `kib` KiB at `path`, in place of the one before.
pub fn mount(path: &Path, kib: usize) {
    let _ = Command::new("umount").arg(path).output();
    let options = format!("size={kib}k,mode=0700");
    let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "small"]).arg(path).output().expect("runs");
    assert!(done.status.success(), "{done:?}");
}

/// `program`, whose files can have so many blocks of 512 bytes: a write beyond that is cut short, and the next one
/// fails.
pub fn limited(program: &Command, blocks: u64) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f $0; exec \"$@\"", &blocks.to_string()]);
    limited.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}
