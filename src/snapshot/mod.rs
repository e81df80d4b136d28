//! Snapshots: what they are made of, and what can be done with them.
//!
//! A snapshot is a [`record`]: who, when, and the root [`tree`]. A tree lists one directory; a file in it names its
//! chunks, or [`recipe`]s that do. Trees and recipes are named by the keyed hash of their *whole* form, but stored
//! whole or as a patch against an earlier one ([`chain`], [`meta`]), so that metadata is in the size of the change and
//! an id says the same whatever it was patched against.
//!
//! Which of the snapshots were forgotten is said by a [`ledger`] beside them; [`history`] is both as one,
//! and [`head`] what the next snapshot needs of it.
//!
//! [`store`] opens all that belongs to one store; [`take`] makes a snapshot, with [`capture`] for one file and
//! [`save`] for its content, or for what a database's log says of it ([`marks`]); [`look`] lists and reads one,
//! [`diff`](mod@diff) says what is different in another,
//! [`restore`] writes one out into a [`target`]; [`check`] proves that all of it is there.

mod against;
mod ahead;
pub mod along;
pub mod capture;
pub mod captured;
pub mod chain;
pub mod check;
mod complete;
mod contents;
mod delta;
pub mod diff;
mod early;
mod first;
mod frames;
mod gather;
pub mod graph;
pub mod head;
pub mod history;
mod images;
pub mod instance;
pub mod lack;
pub mod ledger;
pub mod look;
pub mod marks;
pub mod meta;
pub mod now;
mod outward;
mod parent;
pub mod pieces;
pub mod places;
pub mod progress;
pub mod receipt;
pub mod receipts;
pub mod recipe;
pub mod record;
pub mod restore;
mod same;
pub mod save;
mod scan;
pub mod scratch;
pub mod sidecar;
mod standing;
mod steady;
mod still;
pub mod store;
mod subtree;
pub mod take;
mod taking;
pub mod target;
pub mod tree;
