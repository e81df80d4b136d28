//! The cuts of one fixed input, written down.
//!
//! Another gear table, other masks or other limits still make sound snapshots, and find nothing of what older ones
//! stored: every file would be stored once more. The library that cuts has changed its cuts between major versions, so
//! the lengths stand here as literals. They are not to be made anew for a test that fails; a store must keep its cuts.

use nbak::chunk::{CONTENT, Cut, Cutter, PAGE, PAGED_LEAST};

/// A seed as a store would have it.
const SEED: u64 = 0x6e62_616b_2d63_7574;

const OF_ZERO: &[usize] = &[
    23429, 19811, 22802, 26923, 22528, 17806, 26297, 24465, 36083, 19109, 22289, 16635, 22952, 8089, 11546, 5959,
    14888, 38929, 21905, 21155, 19839, 15849, 7571, 19266, 11715, 6909, 26826, 15689, 19902, 20472, 25795, 29335,
    19756, 21955, 9367, 27682, 37364, 7206, 15355, 17976, 18617, 21163, 23285, 24451, 37344, 18469, 31075, 8322, 6661,
    19299, 16946, 11890, 10871, 754,
];

const OF_SEED: &[usize] = &[
    5541, 13559, 16850, 26009, 7357, 11195, 4851, 23904, 13105, 17631, 31609, 17175, 33644, 33131, 20791, 16406, 15186,
    7282, 17819, 15333, 20878, 16687, 18144, 17666, 26069, 8728, 18002, 43283, 17825, 17079, 4123, 11235, 16215, 18977,
    20847, 24270, 24252, 18021, 17526, 17952, 16429, 22724, 6342, 8314, 19139, 9800, 20977, 17602, 17583, 18760, 4105,
    26504, 9777, 5515, 52760, 27068, 16045, 22975,
];

/// 1 MiB by SplitMix64, which is too simple to change.
fn input() -> Vec<u8> {
    let mut state = 0u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    (0..1 << 17).flat_map(|_| next().to_le_bytes()).collect()
}

#[test]
fn content_is_cut_where_it_always_was() {
    let input = input();
    assert_eq!(input[..8], [0xaf, 0xcd, 0x1d, 0x7b, 0x39, 0xa8, 0x20, 0xe2][..], "the generator is another one");
    for (seed, golden) in [(0, OF_ZERO), (SEED, OF_SEED)] {
        assert_eq!(Cutter::new(seed).cuts(&input, true), golden, "seed {seed:#x}");
        assert_eq!(golden.iter().sum::<usize>(), input.len());
    }
}

#[test]
fn the_seed_matters() {
    assert_ne!(OF_ZERO, OF_SEED);
}

#[test]
fn parameters_are_what_they_were() {
    assert_eq!((PAGE, PAGED_LEAST, CONTENT), (4096, 65_536, (4096, 16_384, 65_536)));
}

#[test]
fn files_are_cut_the_way_they_always_were() {
    for (size, cut) in [
        (0, Cut::Content),
        (4096, Cut::Content),
        (61_440, Cut::Content),
        (65_535, Cut::Content),
        (65_536, Cut::Pages(4096)),
        (65_537, Cut::Content),
        (69_632, Cut::Pages(4096)),
        (1 << 20, Cut::Pages(4096)),
        ((1 << 20) + 512, Cut::Content),
        (1 << 40, Cut::Pages(4096)),
        (u64::MAX, Cut::Content),
    ] {
        assert_eq!(Cut::for_file(size), cut, "{size}");
    }
    for (page, cut) in [(512, 4096), (1024, 4096), (4096, 4096), (8192, 8192), (65_536, 65_536)] {
        assert_eq!(Cut::for_database(page), Cut::Pages(cut), "{page}");
    }
}
