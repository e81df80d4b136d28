//! The corpus of every fuzz target, on the pinned toolchain.
//!
//! `cargo test` feeds each file of `fuzz/corpus/` to its body, and holds what it allocates to a limit: a count or a
//! length that somebody made up must not be what memory is sized by. An input that a fuzzer found is committed
//! there, and stays fixed; until it is, it lies in `fuzz/findings/`.
//!
//! `cargo test --test fuzz_replay write_the_seeds -- --ignored` writes the seeds anew, when a format has gained
//! something.

use std::fs;
use std::path::{Path, PathBuf};

use nbak::store::segment::MAX_PLAIN;
use peak_alloc::PeakAlloc;

mod fuzz_bodies;
#[path = "fuzz_bodies/seeds.rs"]
mod seeds;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What one input may take at most, in bytes.
const PEAK: usize = 64 << 20;
/// The same for a footer. It may state any length that a segment can have, and be a bomb of that length; what its
/// tables are read into comes on top.
const FOOTER_PEAK: usize = MAX_PLAIN + (32 << 20);
/// The largest corpus file, and all of them together, in bytes.
const LARGEST: usize = 8 * 1024;
const TOTAL: usize = 512 * 1024;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn files(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = corpus(target);
    let listed = fs::read_dir(&folder).unwrap_or_else(|error| panic!("no corpus in {}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("a folder can be listed").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("a corpus file can be read"))).collect()
}

/// One test for all: the peak is that of the process.
#[test]
fn the_corpus_keeps_every_promise() {
    let mut total = 0;
    for (target, _) in fuzz_bodies::TARGETS {
        let files = files(target);
        assert!(!files.is_empty(), "the corpus of {target} is empty");
        // What is made once, thread pools and the like, is no input's.
        fuzz_bodies::run(target, &files[0].1);
        for (path, data) in files {
            assert!(data.len() <= LARGEST, "{} is too large to be minimal", path.display());
            total += data.len();
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            println!("{}", path.display());
            fuzz_bodies::run(target, &data);
            let peak = MEMORY.peak_usage().saturating_sub(before);
            println!("  {peak} bytes at most");
            let most = if *target == "pack_footer" { FOOTER_PEAK } else { PEAK };
            assert!(peak <= most, "{}: {} bytes make it allocate {peak}", path.display(), data.len());
        }
    }
    assert!(total <= TOTAL, "the corpus is {total} bytes: minimise it");
}

#[test]
fn every_target_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("the fuzz package is there");
    let names = |dir: &str| {
        let listed = fs::read_dir(folder.join(dir)).expect("a folder can be listed");
        let names = listed.map(|entry| entry.expect("a folder can be listed").path());
        let mut names: Vec<String> =
            names.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let table: Vec<&str> = fuzz_bodies::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names("fuzz_targets"), table);
    assert_eq!(names("corpus"), table);
    for name in table {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not built");
        let source = fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).expect("a target is there");
        assert!(source.contains(&format!("fuzz_bodies::run(\"{name}\", data)")), "{name} feeds another body");
    }
}

#[test]
#[ignore = "writes into fuzz/corpus"]
fn write_the_seeds() {
    for (target, name, data) in seeds::all() {
        let folder = corpus(target);
        fs::create_dir_all(&folder).expect("a folder can be made");
        let name: Vec<&str> = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        fs::write(folder.join(name.join("-")), data).expect("a seed can be written");
    }
}
