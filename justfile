# Short names for what is done often. `just` lists them; CONTRIBUTING.md explains them.

_default:
    @just --list

# What has to pass before a change is pushed: all of .ci/run but the release build.
check:
    .ci/run setup fmt python test clippy doc

# Every test, the house rules included.
test *ARGS:
    cargo test --locked {{ARGS}}

# The benches; an argument picks some of them by name.
bench *ARGS:
    cargo bench --locked {{ARGS}}

# Fuzz one target of fuzz/ for so many seconds: `just fuzz pack_footer 60`.
fuzz TARGET SECONDS:
    cargo +nightly fuzz run {{TARGET}} -- -max_total_time={{SECONDS}}

# peers.py ages a data directory under WORK and runs each program on the same bytes: first, unchanged and aged backups,
# bytes added, restore, full check. It finds the programs on the PATH, and this one by $NBAK. All figures of a table come
# from one run on a quiet machine.
#
# Compare with other backup programs in the scratch directory WORK; NBAK_PEERS is the path of peers.py.
peers WORK *ARGS:
    @test -f "${NBAK_PEERS:?set NBAK_PEERS to the path of peers.py}"
    cargo build --locked --release
    NBAK="{{justfile_directory()}}/target/release/nbak" python3 "$NBAK_PEERS" --work {{WORK}} {{ARGS}}
