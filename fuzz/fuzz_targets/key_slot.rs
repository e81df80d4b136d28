//! Feeds the body `key_slot`: see `tests/fuzz_bodies/key_slot.rs`.

#![no_main]

#[path = "../../tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::run("key_slot", data));
