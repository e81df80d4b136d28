//! nbak: frequent, cheap, encrypted snapshots of a live data directory.
//!
//! The way in: [`source`] finds entries and reads databases as one transaction; [`chunk`] says where to cut;
//! [`snapshot`] asks the [`index`] what is known and hands the rest to [`store`], which compresses, seals
//! ([`crypto`]) and packs it. A snapshot exists when the pack that holds its record is durable.
//!
//! The way back: record, tree, recipe, location, segment, chunk, file.
//!
//! A room uses only rooms above it in this list: `error`, `codec`, `id`, `crypto`, `store`, `index`; beside them
//! `chunk` and `source`, which know nothing of storage; then `snapshot`, `upkeep`, `export`, `drive`, `notice`,
//! `config`, `schedule`; then `cli`. A test holds the order.

pub mod chunk;
pub mod cli;
pub mod codec;
pub mod config;
pub mod crypto;
pub mod drive;
pub mod error;
pub mod export;
pub mod id;
pub mod index;
pub mod notice;
pub mod schedule;
pub mod snapshot;
pub mod source;
pub mod store;
pub mod upkeep;
