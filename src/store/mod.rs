//! What lies on disk: immutable objects, and packs among them.
//!
//! An **object** is put whole, read by range, listed and deleted, behind one narrow trait ([`objects`]); a local
//! directory ([`local`]) and memory ([`memory`]) implement it. There are two kinds: key slots and **packs**.
//!
//! A pack ([`pack`]) is a header, sealed **segments**, and a sealed **footer** that lists the chunks in each segment,
//! and may carry snapshot records. A segment ([`segment`]) is a run of chunks that are compressed and sealed together.
//! [`reader`] takes packs apart. [`sink`] makes them: chunks go in one at a time, segments are compressed and sealed on
//! all cores, packs are put by a thread of their own, and a snapshot record can only be committed through a
//! [`sink::Flushed`], which exists when every earlier pack is durable (I1).
//!
//! [`lock`] has the kernel locks of writers and readers; [`kept`] is what both packs and index remember with.

pub mod kept;
pub mod local;
pub mod lock;
pub mod memory;
pub mod objects;
pub mod pack;
pub mod reader;
pub mod segment;
pub mod sink;
