//! What the fuzz targets do with one input.
//!
//! A body is a function of bytes that panics when a promise is broken, and nothing else: the targets in `fuzz/` feed it
//! what libFuzzer makes up, `tests/fuzz_replay.rs` feeds it the corpus on the pinned toolchain. Most formats here are
//! read under a seal or a checksum, which no mutant would survive; so the bodies take the plain form and seal it
//! themselves, with keys that are fixed, and read it back through the same door as everything else.

mod backup_names;
mod chunker;
mod drive_reply;
mod key_slot;
mod manifest;
mod nbak;
mod pack_footer;
mod recipe_and_tree;
mod record;
mod sealed;
mod sqlite_header_wal;

/// A target's name, which is that of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("backup_names", backup_names::body),
    ("chunker", chunker::body),
    ("drive_reply", drive_reply::body),
    ("key_slot", key_slot::body),
    ("manifest", manifest::body),
    ("nbak", nbak::body),
    ("pack_footer", pack_footer::body),
    ("recipe_and_tree", recipe_and_tree::body),
    ("record", record::body),
    ("sqlite_header_wal", sqlite_header_wal::body),
];

/// Feeds `data` to the target called `name`.
pub fn run(name: &str, data: &[u8]) {
    let (_, body) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of the table");
    body(data);
}
