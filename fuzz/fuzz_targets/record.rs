//! Feeds the body `record`: see `tests/fuzz_bodies/record.rs`.

#![no_main]

#[path = "../../tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::run("record", data));
