//! Copies in Google Drive: of documented backups, and of the store itself.
//!
//! Nouns: a *grant* is what a person allowed ([`grant`], [`login`]); *access* turns it into tokens ([`access`]);
//! [`api`] are Drive's calls, each bounded in time, size and tries ([`http`], [`retry`], [`limit`]), and [`remote`] is
//! what they say of a file; an *upload* is one file that is there once and whole afterwards, whatever breaks on the way
//! ([`upload`], [`sums`], [`sessions`]); [`backups`] and [`mirror`] are what is made of it.
//!
//! Three things hold throughout. Nothing that the service says is believed: names, sizes, checksums, addresses and the
//! ends of lists are checked. No secret is in a message: neither a token nor the address of an upload. And nothing here
//! fails what was done on this machine: a backup is made before anybody asks whether it can be uploaded.

pub mod access;
pub mod api;
pub mod backups;
pub mod bases;
pub mod grant;
pub mod http;
pub mod limit;
pub mod login;
pub mod mirror;
pub mod owner;
pub mod remote;
pub mod retry;
pub mod sessions;
pub mod sums;
pub mod upload;
