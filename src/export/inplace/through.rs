//! Writing a restored database into a live one that somebody has open, through SQLite's backup API.
//!
//! One step, so one transaction: others see the old content or the new. It can be repeated, but must not be once it
//! was done and others have written since, so the caller marks it as done right after.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::databases::{connect, failed, is_busy};
use crate::error::{Error, Result};

/// How long is waited for the others' transactions to end.
const PATIENCE: Duration = Duration::from_secs(10);
const BLOCK: usize = 1 << 20;
/// How a database of our own is opened: it lies where it was put, and no link leads to it.
const OURS: OpenFlags =
    OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX).union(OpenFlags::SQLITE_OPEN_NOFOLLOW);

/// How the live database compares with the staged one afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The same.
    Same,
    /// Others have committed meanwhile.
    Written,
    /// It differs, and nobody else has committed.
    Different,
}

/// Copies `staged` into `live` and compares. `scratch` is a path for a copy, which is removed again.
pub fn copy(staged: &Path, live: &Path, scratch: &Path) -> Result<Outcome> {
    let about = |error| failed("write into the live database", live, error);
    let mut target = connect(live).map_err(about)?;
    let source = Connection::open_with_flags_and_vfs(staged, OURS, c"unix")
        .map_err(|error| failed("open the staged database", staged, error))?;
    let version = |conn: &Connection| conn.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
    // Moves when another connection commits, not when this one does.
    let before = waiting(live, || version(&target))?;
    let start = Instant::now();
    loop {
        let step = Backup::new(&source, &mut target).and_then(|backup| backup.step(-1));
        match step {
            Ok(StepResult::Done) => break,
            Err(error) if !is_busy(&error) => return Err(about(error)),
            _ if start.elapsed() >= PATIENCE => {
                return Err(Error::locked("the live database is being used without a pause")
                    .at(live)
                    .hint("stop the program that uses it"));
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    let after = waiting(live, || {
        target.execute_batch("BEGIN")?;
        version(&target)
    })?;
    let result = image(&target, scratch).and_then(|()| is_same(staged, scratch));
    let _ = std::fs::remove_file(scratch);
    match result? {
        true => Ok(Outcome::Same),
        false if before == after => Ok(Outcome::Different),
        false => Ok(Outcome::Written),
    }
}

/// Whether `live` holds now what `staged` does. `scratch` is a path for a copy, which is removed again.
pub fn is_written(staged: &Path, live: &Path, scratch: &Path) -> Result<bool> {
    let conn = connect(live).map_err(|error| failed("read the live database", live, error))?;
    let result = image(&conn, scratch).and_then(|()| is_same(staged, scratch));
    let _ = std::fs::remove_file(scratch);
    result
}

/// Copies what `live` holds now into the new file `to`.
pub fn keep(live: &Path, to: &Path) -> Result<()> {
    let conn = connect(live).map_err(|error| failed("read the live database", live, error))?;
    image(&conn, to)?;
    File::open(to).and_then(|file| file.sync_all()).map_err(|error| Error::io("sync a file that is kept", to, error))
}

fn waiting<T>(live: &Path, mut call: impl FnMut() -> rusqlite::Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match call() {
            Err(error) if is_busy(&error) && start.elapsed() < PATIENCE => {}
            other => return other.map_err(|error| failed("read the live database", live, error)),
        }
    }
}

/// What the open transaction of `conn` sees, as a file.
fn image(conn: &Connection, scratch: &Path) -> Result<()> {
    let _ = std::fs::remove_file(scratch);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(scratch)
        .map_err(|error| Error::io("make a copy to compare", scratch, error))?;
    let about = |error| failed("make a copy to compare", scratch, error);
    let mut target = Connection::open_with_flags_and_vfs(scratch, OURS, c"unix").map_err(about)?;
    target.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF").map_err(about)?;
    match Backup::new(conn, &mut target).and_then(|backup| backup.step(-1)).map_err(about)? {
        StepResult::Done => Ok(()),
        _ => Err(Error::failed("a copy to compare was not made in one step").at(scratch)),
    }
}

/// The bytes of the first page that a copy sets itself: journal mode, change counter, page count, schema cookie,
/// the version that the counter is valid for, and the version of SQLite.
const OWN: [std::ops::Range<usize>; 4] = [18..20, 24..32, 40..44, 92..100];

fn is_same(staged: &Path, copy: &Path) -> Result<bool> {
    let open = |path: &Path| File::open(path).map_err(|error| Error::io("compare", path, error));
    let (mut a, mut b) = (open(staged)?, open(copy)?);
    let (mut left, mut right) = (Vec::with_capacity(BLOCK), Vec::with_capacity(BLOCK));
    let mut is_first = true;
    loop {
        for (file, block, path) in [(&mut a, &mut left, staged), (&mut b, &mut right, copy)] {
            block.clear();
            file.take(BLOCK as u64).read_to_end(block).map_err(|error| Error::io("compare", path, error))?;
            for range in OWN.into_iter().filter(|_| is_first) {
                if let Some(own) = block.get_mut(range) {
                    own.fill(0);
                }
            }
        }
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
        is_first = false;
    }
}
