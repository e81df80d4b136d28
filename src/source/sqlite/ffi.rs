//! The only unsafe code of the capture: SQLite's file layer, called directly.
//!
//! Two families. [`VfsFile`] owns a file opened through the unix VFS. The free functions borrow the
//! files of a [`Connection`]: each asks the connection for its current file object, uses it, and
//! forgets it, so no pointer outlives the call and no safe code can make one dangle. A `Connection`
//! is not `Sync`, so nothing can close its files during such a call.
//!
//! The VFS is looked up by name: a program that embeds this library may have made another one the
//! default, and then "the bytes of the file" would not be what its `xRead` returns.
#![expect(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rusqlite::Connection;
use rusqlite::ffi;

/// The VFS that all files and connections of the capture go through.
pub(super) const VFS: &CStr = c"unix";

/// One `xRead` takes a `c_int`; more is split. A power of two, so that splits stay page-aligned.
const READ_MAX: usize = 1 << 30;

/// How often a read starts again because the file was cut short under it.
const SHRINK_RETRIES: u32 = 16;

/// Words of the wal-index that are read: two headers of 12, then `nBackfill`.
const HEADER_WORDS: usize = 12;
const BACKFILL_WORD: usize = 2 * HEADER_WORDS;
const SHM_REGION_BYTES: c_int = 32 * 1024;

/// A file opened through the VFS for reading. Closed on drop, which also drops its lock.
#[derive(Debug)]
pub(in crate::source) struct VfsFile {
    /// The file object: `szOsFile` bytes that this value allocated, with methods installed.
    file: NonNull<ffi::sqlite3_file>,
    /// The length of the allocation in words, to free it with.
    words: usize,
    /// The name that the file object keeps a pointer to.
    name: ffi::sqlite3_filename,
}

// SAFETY: the file object is exclusively owned, refers to no thread-local state, and the VFS guards
// what it shares between files (the inode list) with its own mutexes; SQLite itself moves
// connections, and so their files, between threads. It is not `Sync`: calls on one file must not overlap.
unsafe impl Send for VfsFile {}

impl VfsFile {
    pub(in crate::source) fn open(path: &CStr) -> io::Result<VfsFile> {
        // SAFETY: no preconditions; idempotent and thread-safe by its documentation.
        let rc = unsafe { ffi::sqlite3_initialize() };
        if rc != ffi::SQLITE_OK {
            return Err(sqlite_error(rc));
        }
        // SAFETY: SQLite is initialised, and the name is NUL-terminated.
        let vfs = unsafe { ffi::sqlite3_vfs_find(VFS.as_ptr()) };
        if vfs.is_null() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this SQLite has no unix file layer"));
        }
        // SAFETY: a non-null VFS is a valid static object; the two fields are plain data.
        let (open, bytes) = unsafe { ((*vfs).xOpen, (*vfs).szOsFile) };
        let words = usize::try_from(bytes).map_err(io::Error::other)?.max(8).div_ceil(8);
        let Some(open) = open else { return Err(sqlite_error(ffi::SQLITE_MISUSE)) };

        // SAFETY: three NUL-terminated strings and no parameters. `xOpen` of a main database wants a
        // name of this layout: the VFS looks for parameters behind its terminator.
        let name = unsafe { ffi::sqlite3_create_filename(path.as_ptr(), EMPTY, EMPTY, 0, ptr::null_mut()) };
        if name.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // Zeroed words: at least `szOsFile` bytes, aligned for the pointers and 64-bit fields inside,
        // and `pMethods` is null until `xOpen` succeeds.
        let memory = Box::into_raw(vec![0_u64; words].into_boxed_slice()).cast::<ffi::sqlite3_file>();
        // SAFETY: `Box::into_raw` is never null.
        let file = unsafe { NonNull::new_unchecked(memory) };
        let flags = ffi::SQLITE_OPEN_READONLY | ffi::SQLITE_OPEN_MAIN_DB;
        // SAFETY: the VFS is valid, `name` is of the layout it wants and outlives the file (freed after
        // xClose), `file` points to enough zeroed memory, and null out-flags are allowed.
        let rc = unsafe { open(vfs, name, file.as_ptr(), flags, ptr::null_mut()) };
        // The errno of the failed system call, before anything else is called on this thread.
        // SAFETY: `vfs` is valid; the unix VFS ignores the buffer arguments.
        let errno = unsafe { (*vfs).xGetLastError.map_or(0, |last| last(vfs, 0, ptr::null_mut())) };
        // Dropping this value releases name and memory also when the open failed.
        let opened = VfsFile { file, words, name };
        match rc {
            ffi::SQLITE_OK => Ok(opened),
            ffi::SQLITE_NOMEM => Err(io::ErrorKind::OutOfMemory.into()),
            _ if errno != 0 => Err(io::Error::from_raw_os_error(errno)),
            _ => Err(sqlite_error(rc)),
        }
    }

    pub(in crate::source) fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        // SAFETY: the file is open and owned by `self`, which is not `Sync`.
        unsafe { read_at(self.file, buf, offset) }
    }

    pub(in crate::source) fn size(&self) -> io::Result<u64> {
        // SAFETY: as above.
        unsafe { size(self.file) }
    }

    pub(in crate::source) fn try_lock_shared(&self) -> io::Result<bool> {
        // SAFETY: an open file has its methods installed for as long as it is open.
        let lock = unsafe { methods(self.file)?.xLock }.ok_or_else(|| sqlite_error(ffi::SQLITE_MISUSE))?;
        // SAFETY: from unlocked, or from SHARED where it does nothing, SHARED is the one legal step.
        let rc = unsafe { lock(self.file.as_ptr(), ffi::SQLITE_LOCK_SHARED) };
        match rc {
            ffi::SQLITE_OK => Ok(true),
            ffi::SQLITE_BUSY => Ok(false),
            // SAFETY: the file is still open.
            rc => Err(unsafe { file_error(self.file, rc) }),
        }
    }
}

impl Drop for VfsFile {
    fn drop(&mut self) {
        // SAFETY: the memory is `words` zero-initialised words from a boxed slice, of which SQLite wrote
        // some; `pMethods` is null if the file is not open, so xClose is called at most once; nothing
        // uses the file, its name or the memory after this.
        unsafe {
            if let Ok(methods) = methods(self.file)
                && let Some(close) = methods.xClose
            {
                // A failed close leaves nothing to do: the file was only read.
                let _ = close(self.file.as_ptr());
            }
            ffi::sqlite3_free_filename(self.name);
            drop(Box::from_raw(ptr::slice_from_raw_parts_mut(self.file.as_ptr().cast::<u64>(), self.words)));
        }
    }
}

const EMPTY: *const std::ffi::c_char = c"".as_ptr();

/// Reads the connection's database file; returns how many bytes there were before its end.
pub(super) fn read_main(conn: &Connection, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let file = file_of(conn, ffi::SQLITE_FCNTL_FILE_POINTER)?;
    // SAFETY: fresh from the connection, which is borrowed and is not `Sync`.
    unsafe { read_at(file, buf, offset) }
}

/// The length of the connection's database file.
pub(super) fn main_size(conn: &Connection) -> io::Result<u64> {
    let file = file_of(conn, ffi::SQLITE_FCNTL_FILE_POINTER)?;
    // SAFETY: as in `read_main`.
    unsafe { size(file) }
}

/// Reads the connection's write-ahead log. The connection must be in WAL mode.
pub(super) fn read_wal(conn: &Connection, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let file = file_of(conn, ffi::SQLITE_FCNTL_JOURNAL_POINTER)?;
    // SAFETY: as in `read_main`.
    unsafe { read_at(file, buf, offset) }
}

/// The length of the connection's write-ahead log.
pub(super) fn wal_size(conn: &Connection) -> io::Result<u64> {
    let file = file_of(conn, ffi::SQLITE_FCNTL_JOURNAL_POINTER)?;
    // SAFETY: as in `read_main`.
    unsafe { size(file) }
}

/// The first words of the wal-index as they are in shared memory, in host order.
pub(super) struct WalIndexWords {
    pub(super) backfill: u32,
    pub(super) first: [u32; HEADER_WORDS],
    pub(super) second: [u32; HEADER_WORDS],
}

/// Reads `nBackfill`, **then** the two header copies. The order matters: who finds the header of its
/// transaction here knows that `backfill` was not set by a checkpoint of a later state, nor by a restart.
///
/// `None` when the index is not mapped. The connection must be in WAL mode: only then has it opened
/// the shared memory already, and asking for the map does not create anything.
pub(super) fn wal_index(conn: &Connection) -> io::Result<Option<WalIndexWords>> {
    let file = file_of(conn, ffi::SQLITE_FCNTL_FILE_POINTER)?;
    // SAFETY: the pointer is fresh from the connection, whose file is open.
    let Some(map) = (unsafe { methods(file)?.xShmMap }) else { return Ok(None) };
    let mut region: *mut c_void = ptr::null_mut();
    // SAFETY: region 0 with SQLite's own region size, and without extending it.
    let rc = unsafe { map(file.as_ptr(), 0, SHM_REGION_BYTES, 0, &raw mut region) };
    // READONLY is a map that may only be read, which is all that is wanted.
    if !matches!(rc, ffi::SQLITE_OK | ffi::SQLITE_READONLY) {
        return Ok(None);
    }
    let Some(region) = NonNull::new(region.cast::<u32>()) else { return Ok(None) };
    let load = |word: usize| {
        // SAFETY: the region is 32 KiB, page-aligned, and stays mapped while the connection, which is
        // borrowed, has the shared memory open. Other threads and processes write it; they and we use
        // single 32-bit accesses, which are atomic.
        unsafe { AtomicU32::from_ptr(region.as_ptr().add(word)) }.load(Ordering::Relaxed)
    };
    let backfill = load(BACKFILL_WORD);
    fence(Ordering::SeqCst);
    let first = std::array::from_fn(load);
    // A writer stores the second copy, a barrier, then the first.
    fence(Ordering::SeqCst);
    let second = std::array::from_fn(|i| load(HEADER_WORDS + i));
    fence(Ordering::SeqCst);
    Ok(Some(WalIndexWords { backfill, first, second }))
}

fn file_of(conn: &Connection, which: c_int) -> io::Result<NonNull<ffi::sqlite3_file>> {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    // SAFETY: the handle is valid while `conn` is borrowed and is not closed here; both controls
    // write one pointer to the address given.
    let rc =
        unsafe { ffi::sqlite3_file_control(conn.handle(), c"main".as_ptr(), which, (&raw mut file).cast::<c_void>()) };
    if rc != ffi::SQLITE_OK {
        return Err(sqlite_error(rc));
    }
    NonNull::new(file).ok_or_else(|| sqlite_error(ffi::SQLITE_MISUSE))
}

/// # Safety
/// `file` must point to a file object that is initialised: `pMethods` null or the methods of an open file.
unsafe fn methods<'a>(file: NonNull<ffi::sqlite3_file>) -> io::Result<&'a ffi::sqlite3_io_methods> {
    // SAFETY: initialised by the contract; method tables are static.
    unsafe { (*file.as_ptr()).pMethods.as_ref() }.ok_or_else(|| sqlite_error(ffi::SQLITE_MISUSE))
}

/// # Safety
/// As for [`methods`], and no other call on the file may overlap.
unsafe fn size(file: NonNull<ffi::sqlite3_file>) -> io::Result<u64> {
    // SAFETY: by the contract.
    let size = unsafe { methods(file)?.xFileSize }.ok_or_else(|| sqlite_error(ffi::SQLITE_MISUSE))?;
    let mut bytes: ffi::sqlite3_int64 = 0;
    // SAFETY: the file is open, and the address is that of a 64-bit integer.
    match unsafe { size(file.as_ptr(), &raw mut bytes) } {
        // The layer calls a file of one byte empty: on one old system it writes that byte itself. Here it is
        // somebody's. SAFETY: by the contract.
        ffi::SQLITE_OK if bytes == 0 => Ok(u64::from(unsafe { has_a_byte(file)? })),
        ffi::SQLITE_OK => u64::try_from(bytes).map_err(io::Error::other),
        // SAFETY: by the contract.
        rc => Err(unsafe { file_error(file, rc) }),
    }
}

/// # Safety
/// As for [`methods`], and no other call on the file may overlap.
unsafe fn has_a_byte(file: NonNull<ffi::sqlite3_file>) -> io::Result<bool> {
    // SAFETY: by the contract.
    let read = unsafe { methods(file)?.xRead }.ok_or_else(|| sqlite_error(ffi::SQLITE_MISUSE))?;
    let mut byte = 0_u8;
    // SAFETY: the file is open, and the address is that of one byte.
    match unsafe { read(file.as_ptr(), (&raw mut byte).cast::<c_void>(), 1, 0) } {
        ffi::SQLITE_OK => Ok(true),
        ffi::SQLITE_IOERR_SHORT_READ => Ok(false),
        // SAFETY: by the contract.
        rc => Err(unsafe { file_error(file, rc) }),
    }
}

/// # Safety
/// As for [`methods`], and no other call on the file may overlap.
unsafe fn read_at(file: NonNull<ffi::sqlite3_file>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    // SAFETY: by the contract.
    let read = unsafe { methods(file)?.xRead }.ok_or_else(|| sqlite_error(ffi::SQLITE_MISUSE))?;
    let mut done = 0;
    let mut retries = 0;
    while done < buf.len() {
        // Past the largest offset there is nothing.
        let Some(at) = offset.checked_add(done as u64) else { break };
        let Ok(place) = ffi::sqlite3_int64::try_from(at) else { break };
        // A short read zero-fills and does not say where the file ended, so no more than there is gets asked for.
        // SAFETY: by the contract.
        let there = unsafe { size(file)? }.saturating_sub(at);
        let part = &mut buf[done..];
        let amount = part.len().min(READ_MAX).min(usize::try_from(there).unwrap_or(usize::MAX));
        let Ok(count @ 1..) = c_int::try_from(amount) else { break };
        // SAFETY: `part` is writable for `count` bytes, at most its length; the file is open by the contract.
        match unsafe { read(file.as_ptr(), part.as_mut_ptr().cast::<c_void>(), count, place) } {
            ffi::SQLITE_OK => done += amount,
            // It shrank between the two calls. Whoever plays with it for longer than this has no end to read to.
            ffi::SQLITE_IOERR_SHORT_READ if retries < SHRINK_RETRIES => retries += 1,
            ffi::SQLITE_IOERR_SHORT_READ => break,
            // SAFETY: by the contract.
            rc => return Err(unsafe { file_error(file, rc) }),
        }
    }
    Ok(done)
}

/// The system's error behind the file's last failed call, if it kept one.
///
/// # Safety
/// As for [`methods`].
unsafe fn file_error(file: NonNull<ffi::sqlite3_file>, rc: c_int) -> io::Error {
    let mut errno: c_int = 0;
    // SAFETY: by the contract; the control writes one int.
    unsafe {
        if let Ok(methods) = methods(file)
            && let Some(control) = methods.xFileControl
        {
            let _ = control(file.as_ptr(), ffi::SQLITE_FCNTL_LAST_ERRNO, (&raw mut errno).cast::<c_void>());
        }
    }
    if errno == 0 { sqlite_error(rc) } else { io::Error::from_raw_os_error(errno) }
}

fn sqlite_error(rc: c_int) -> io::Error {
    io::Error::other(format!("SQLite's file layer failed with code {rc}"))
}
