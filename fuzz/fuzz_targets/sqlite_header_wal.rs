//! Feeds the body `sqlite_header_wal`: see `tests/fuzz_bodies/sqlite_header_wal.rs`.

#![no_main]

#[path = "../../tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::run("sqlite_header_wal", data));
