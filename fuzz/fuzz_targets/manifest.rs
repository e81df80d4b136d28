//! Feeds the body `manifest`: see `tests/fuzz_bodies/manifest.rs`.

#![no_main]

#[path = "../../tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::run("manifest", data));
