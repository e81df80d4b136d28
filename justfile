# Short names for what is done often. `just` lists them; CONTRIBUTING.md explains them.

_default:
    @just --list

# What has to pass before a change is pushed: all of .ci/run but the stages `reader` and `tour`. It takes minutes.
check:
    .ci/run setup fmt python test clippy doc

# Every test, the house rules included.
test *ARGS:
    cargo test --locked {{ARGS}}

# The benches; an argument picks some of them by name.
bench *ARGS:
    cargo bench --locked {{ARGS}}

# The long form of the tests that kill, cut the power, make calls fail and flip bytes; ROUNDS times what `just test` does. Hours.
torture ROUNDS="20":
    NBAK_TEST_ROUNDS={{ROUNDS}} NBAK_TEST_THRASH_SECONDS=600 cargo test --locked --no-fail-fast --test suite -- \
        power:: crash:: gc_faults:: damage:: drills:: inplace:: under_fire:: together:: thrash:: model:: drive::faults drive::disk

# An input may make a parser take as much as in tests/fuzz_replay.rs at once, and the process four times as much beside
# what the sanitizer needs; more is a finding. So is what takes longer than ten seconds.
#
# Fuzz one target of fuzz/ for so many seconds: `just fuzz pack_footer 60`.
fuzz TARGET SECONDS:
    cargo +nightly fuzz run {{TARGET}} -- -max_total_time={{SECONDS}} -timeout=10 -rss_limit_mb=1024 \
        -malloc_limit_mb={{ if TARGET == "pack_footer" { "96" } else { "64" } }}

# What Miri can run of the library (with a nightly toolchain that has it): all that calls no C and waits for no thread pool.
miri:
    MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=4 cargo +nightly miri test --lib -- \
        codec:: id:: snapshot::recipe snapshot::tree snapshot::chain snapshot::marks snapshot::receipts \
        source::sqlite::header store::kept export::names

# benches/peers.py ages a data directory under WORK and runs each program on the same bytes. It finds the others on the
# PATH; benches/README.md has its options. All figures of a table come from one run on a quiet machine.
#
# Compare with other backup programs in the scratch directory WORK.
peers WORK *ARGS:
    cargo build --locked --release
    NBAK="{{justfile_directory()}}/target/release/nbak" python3 benches/peers.py --work {{WORK}} {{ARGS}}

# What thousands of snapshots cost, and to free their space, in the scratch directory WORK; `--prune` beside others.
years WORK *ARGS:
    cargo build --locked --release
    NBAK="{{justfile_directory()}}/target/release/nbak" python3 benches/years.py --work {{WORK}} {{ARGS}}
