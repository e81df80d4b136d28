//! Feeds the body `recipe_and_tree`: see `tests/fuzz_bodies/recipe_and_tree.rs`.

#![no_main]

#[path = "../../tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::run("recipe_and_tree", data));
