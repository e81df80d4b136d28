//! The documented backup: a timestamped directory with `manifest.json` and, with a vault key, NBAK files.
//!
//! Nouns: an *export* is such a directory, made from one snapshot of the store; the *manifest* lists its files; a
//! *dialect* is the set of names that the application goes by (`nodyn`, later `lynox`); an *NBAK file* is one file,
//! sealed under a key that comes from the vault key.
//!
//! The way out ([`mod@write`]): snapshot -> plain files in scratch, databases as `VACUUM INTO` copies -> NBAK ->
//! `<name>.tmp` -> synced, read back ([`verify`]), renamed. The way back ([`restore`]) never writes into the live
//! directory before everything that is to be put there stands beside it, opened and compared ([`inplace`]).
//! [`manager`] joins them, as the documented programmatic interface.

pub mod backup;
pub mod database;
pub mod dialect;
pub mod files;
pub mod inplace;
pub mod list;
mod live;
pub mod manager;
pub mod manifest;
pub mod names;
pub mod nbak;
pub mod only;
pub mod repair;
pub mod restore;
pub mod retention;
pub mod seals;
pub mod verify;
pub mod write;
