//! Which earlier version a patch is made against.
//!
//! Versions of one thing are counted: a whole one has ordinal 0, a patch has that of its predecessor plus one. A patch
//! with ordinal `n` is made against the version with ordinal `n - 8^k`, where `8^k` is the largest power of eight that
//! divides `n`: the Fenwick tree's rule, with digits instead of bits. Seven patches of eight hold one step of change
//! only, a version is at most `7 * log8(n)` patches away from a whole one, and each change is written about once for
//! each digit of `n`.

/// A chain longer than this is refused when read, in patches. The rule above stays below it up to 8^17 versions.
pub const LONGEST: usize = 128;

/// No version has a higher ordinal: a thing that changes every second gets there in seventy million years.
pub const HIGHEST: u64 = 1 << 51;

/// The ordinal that a patch with ordinal `n` is made against.
pub fn base_of(n: u64) -> u64 {
    debug_assert!(n > 0);
    n - (1 << (n.trailing_zeros() / 3 * 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_always_on_the_chain_of_the_version_before() {
        for n in 1..5000u64 {
            let mut at = n - 1;
            let mut steps = 0;
            while at != base_of(n) {
                at = base_of(at);
                steps += 1;
            }
            assert!(steps <= 7 * 5);
        }
    }

    #[test]
    fn chains_are_short() {
        for n in 0..100_000u64 {
            let (mut at, mut length) = (n, 0);
            while at > 0 {
                at = base_of(at);
                length += 1;
            }
            assert!(length <= LONGEST.min(42));
        }
    }
}
