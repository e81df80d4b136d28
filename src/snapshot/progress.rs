//! How long operations tell how far they are.
//!
//! The library calls these; the command line draws bars. Nothing is decided by them.

/// Told what is under way. All methods may be called from any thread.
pub trait Progress: Sync {
    /// Something begins that will take `total` bytes.
    fn begin(&self, what: &str, total: u64);
    /// So many more bytes are done.
    fn advance(&self, bytes: u64);
    /// It ended.
    fn end(&self);
}

/// Draws nothing.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
}
