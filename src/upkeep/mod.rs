//! Upkeep: what has to be done to a store so that it does not only grow.
//!
//! [`policy`] says which snapshots may be forgotten, and why the others stay; it touches nothing. [`forget`] writes
//! into the ledger that they are forgotten, and [`undelete`](forget::undelete) that they are not (`ledgers` is how one
//! takes the place of another). [`gc`] gives back
//! the space of what nobody needs any more: it reads all footers ([`survey`]), follows what the snapshots need
//! ([`mark`]), makes a [`plan`], with the [`forms`] in which differences are stored again, and [`rewrite`]s what is
//! needed of packs that are mostly waste. [`swarm`] puts small packs together without asking who needs what, which is
//! quick enough to be done after a snapshot: [`tend`] does it.
//!
//! [`pin`] notes in the ledger which snapshots are kept on purpose, and which a drill has restored.
//!
//! [`drill`] restores a snapshot for the trial and looks at what came back; [`anomaly`] says
//! what of a new snapshot looks as if something had gone wrong with the data itself.
//!
//! When something is damaged, [`heal`] looks for lost chunks in files that may still hold them, and [`salvage`] sets
//! damaged packs aside, keeps what is sound of them, and notes what is lost for good.
//!
//! [`remembered`] keeps outside of a store how far it had come, and tells when it was put back, or when another data
//! directory with the same path writes to it ([`alike`]).
//!
//! [`stats`] says what all of that would be worth: what each snapshot alone holds, and what nobody needs. It asks
//! [`spans`] from which snapshot to which each chunk is needed.

pub mod alike;
pub mod anomaly;
pub mod drill;
pub mod forget;
pub mod forms;
pub mod gc;
pub mod headless;
pub mod heal;
mod ledgers;
pub mod mark;
pub mod pin;
pub mod plan;
pub mod policy;
pub mod remembered;
pub mod rewrite;
pub mod salvage;
pub mod spans;
pub mod stats;
pub mod survey;
pub mod swarm;
pub mod tend;
pub mod whole;
