//! Feeds the body `drive_reply`: see `tests/fuzz_bodies/drive_reply.rs`.

#![no_main]

#[path = "../../tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::run("drive_reply", data));
