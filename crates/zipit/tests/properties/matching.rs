//! What every method promises of its groups.

use crate::features::{Features, features};
use ndarray::Array2;
use proptest::prelude::*;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use zipit::matching::{Method, match_features, permute};
use zipit::plan::PointPlan;
use zipit::unmerge::UnmergeRule;

/// Two models, the second one's features a permutation of the first one's: feature j of it is `order[j]` of that.
fn copy_and_order(n_samples: usize, d: usize, seed: u64) -> (Features, Vec<u32>) {
    use rand::RngExt;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<u32> = (0..d as u32).collect();
    order.shuffle(&mut rng);
    let x = Array2::from_shape_simple_fn((n_samples, d), || rng.random_range(-1.0_f32..1.0));
    let z = Array2::from_shape_fn(
        (n_samples, 2 * d),
        |(s, k)| if k < d { x[[s, k]] } else { x[[s, order[k - d] as usize]] },
    );
    (Features { n_models: 2, z }, order)
}

/// Every permutation of 0…n−1.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    let Some(last) = n.checked_sub(1) else { return vec![Vec::new()] };
    let insert = |shorter: Vec<usize>| {
        (0..=last).map(move |at| {
            let mut longer = shorter.clone();
            longer.insert(at, last);
            longer
        })
    };
    permutations(last).into_iter().flat_map(insert).collect()
}

proptest! {
    #[test]
    fn a_permuted_copy_is_recovered(d in 2..24_usize, seed: u64, alpha in prop::sample::select(vec![0.0_f32, 0.3, 1.0])) {
        let (features, order) = copy_and_order(100, d, seed);
        let expected: Vec<u32> = (0..d as u32).chain(order).collect();
        for method in [Method::Permute, Method::Zip { alpha, beta: 0.0 }, Method::Zip { alpha, beta: 1.0 }] {
            let matching = match_features(&method, &features.moments(), 2, d).unwrap();
            prop_assert_eq!(&matching.assignment, &expected, "{:?}", method);
            let plan = PointPlan::new("copy", &matching, &features.moments(), 2, &UnmergeRule::Pinv).unwrap();
            prop_assert!(plan.summary.reconstruction_error < 1e-6);
            prop_assert_eq!(plan.summary.across, d);
            prop_assert!(plan.summary.mean_correlation.unwrap() > 1.0 - 1e-5);
        }
    }

    #[test]
    fn permute_is_the_best_of_all_permutations(
        d in 1..=6_usize,
        entries in prop::collection::vec(-20_i8..=20, 36),
    ) {
        let r = Array2::from_shape_fn((2 * d, 2 * d), |(i, j)| {
            let (low, high) = (i.min(j), i.max(j));
            if low < d && high >= d { f32::from(entries[low * d + high - d]) / 20.0 } else { 0.0 }
        });
        let gain = |onto: &[usize]| onto.iter().enumerate().map(|(j, &k)| r[[d + j, k]]).sum::<f32>();
        let best = permutations(d).iter().map(|p| gain(p)).fold(f32::NEG_INFINITY, f32::max);
        let found = permute::permute(r.view(), 2);
        let onto: Vec<usize> = found.assignment[d..].iter().map(|&k| k as usize).collect();
        prop_assert!((gain(&onto) - best).abs() < 1e-5);
        let mut image = onto.clone();
        image.sort_unstable();
        prop_assert_eq!(image, (0..d).collect::<Vec<_>>(), "one to one");
    }

    #[test]
    fn identity_merges_by_plain_averaging(features in features()) {
        let (n_models, n) = (features.n_models, features.z.ncols());
        let d = n / n_models;
        let matching = match_features(&Method::Identity, &features.moments(), n_models, d).unwrap();
        let plan = PointPlan::new("identity", &matching, &features.moments(), n_models, &UnmergeRule::Pinv).unwrap();
        let average = Array2::from_shape_fn((d, n), |(g, k)| if k % d == g { 1.0 / n_models as f32 } else { 0.0 });
        prop_assert_eq!(plan.merge_matrix(), average);
    }
}
