//! Feeds the body `backup_names`: see `tests/fuzz_bodies/backup_names.rs`.

#![no_main]

#[path = "../../tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::run("backup_names", data));
