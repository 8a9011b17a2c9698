//! Random subsets that are the same on every machine.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `k` of the numbers `0..n_total` in random order, without repeats; all of them, shuffled, if `k >= n_total`.
///
/// The first steps of a Fisher–Yates shuffle drawn from `ChaCha8`, so a smaller sample is a prefix of a larger one with
/// the same seed.
///
/// ```
/// assert_eq!(zipit_data::sample(60_000, 3, 0), zipit_data::sample(60_000, 5, 0)[..3]);
/// ```
#[must_use]
pub fn sample(n_total: usize, k: usize, seed: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut numbers: Vec<usize> = (0..n_total).collect();
    let k = k.min(n_total);
    for i in 0..k {
        // Drawn as u64 so that the width of usize cannot matter.
        let j = rng.random_range(i as u64..n_total as u64) as usize;
        numbers.swap(i, j);
    }
    numbers.truncate(k);
    numbers
}

#[cfg(test)]
mod tests {
    use super::sample;

    #[test]
    fn a_full_sample_is_a_permutation() {
        let mut all = sample(100, 200, 7);
        assert_ne!(all, (0..100).collect::<Vec<_>>());
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }

    /// A change here changes every experiment that names a seed.
    #[test]
    fn the_same_on_every_machine() {
        assert_eq!(sample(60_000, 8, 0), [42_544, 27_955, 41_949, 3613, 52_747, 32_974, 49_740, 56_126]);
    }

    #[test]
    fn a_seed_decides() {
        assert_eq!(sample(1000, 10, 3), sample(1000, 10, 3));
        assert_ne!(sample(1000, 10, 3), sample(1000, 10, 4));
        assert!(sample(5, 0, 3).is_empty() && sample(0, 5, 3).is_empty());
    }
}
