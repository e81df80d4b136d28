//! Feeds the body `pack_footer`: see `tests/fuzz_bodies/pack_footer.rs`.

#![no_main]

#[path = "../../tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::run("pack_footer", data));
