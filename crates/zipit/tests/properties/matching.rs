//! What every method promises of its groups.
#![allow(clippy::unwrap_used)]

use crate::features::{Features, features};
use ndarray::Array2;
use proptest::prelude::*;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::LazyLock;
use zipit::matching::{Matching, Method, Similarity, match_features, permute};
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

static ONE_THREAD: LazyLock<ThreadPool> = LazyLock::new(|| threads(1));
static THREE_THREADS: LazyLock<ThreadPool> = LazyLock::new(|| threads(3));

fn threads(n: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(n).build().unwrap()
}

/// Every method, at its own parameters.
fn methods(seed: u64) -> Vec<Method> {
    let mut methods = vec![
        Method::Zip { alpha: 0.7, beta: 0.5 },
        Method::Permute,
        Method::Identity,
        Method::Kmeans { seed },
        Method::Optimal,
        Method::Random { seed },
        Method::First,
    ];
    for similarity in Similarity::ALL {
        methods.extend([Method::Ward { similarity }, Method::Average { similarity }]);
    }
    methods
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
    fn every_feature_has_a_group_whatever_the_method(features in features(), kept in 0.0..=1.0_f64, seed: u64) {
        let (n_models, n) = (features.n_models, features.z.ncols());
        let moments = features.moments();
        for method in methods(seed) {
            let any = 1 + (kept * (n - 1) as f64).round() as usize;
            let n_groups = if method.serves_any_size() { any } else { n / n_models };
            if method == Method::Optimal && n_models > 2 {
                prop_assert!(match_features(&method, &moments, n_models, n_groups).is_err());
                continue;
            }
            let on = |pool: &ThreadPool| pool.install(|| match_features(&method, &moments, n_models, n_groups)).unwrap();
            let matching = on(&ONE_THREAD);
            prop_assert_eq!(&matching, &on(&THREE_THREADS), "{:?}", method);
            let sizes = (matching.assignment.len(), matching.n_groups, matching.merges.len());
            prop_assert_eq!(sizes, (n, n_groups, n - n_groups), "{:?}", method);
            let mut seen = 0;
            for &group in &matching.assignment {
                prop_assert!(group <= seen, "{:?}: groups are numbered by their lowest feature", method);
                seen += u32::from(group == seen);
            }
            prop_assert_eq!(seen as usize, n_groups, "{:?}: every group has members", method);
            let rebuilt = Matching::from_merges(n, matching.merges.clone(), matching.caps_lifted);
            prop_assert_eq!(rebuilt, matching, "{:?}", method);
        }
    }

    #[test]
    fn a_permuted_copy_is_recovered(d in 2..24_usize, seed: u64, alpha in prop::sample::select(vec![0.0_f32, 0.3, 1.0])) {
        let (features, order) = copy_and_order(100, d, seed);
        let expected: Vec<u32> = (0..d as u32).chain(order).collect();
        for method in [
            Method::Permute,
            Method::Zip { alpha, beta: 0.0 },
            Method::Zip { alpha, beta: 1.0 },
            Method::Ward { similarity: Similarity::Correlation },
            Method::Average { similarity: Similarity::Covariance },
            Method::Ward { similarity: Similarity::Moments },
            Method::Optimal,
            Method::First,
        ] {
            let matching = match_features(&method, &features.moments(), 2, d).unwrap();
            prop_assert_eq!(&matching.assignment, &expected, "{:?}", method);
            let plan = PointPlan::new("copy", &matching, &features.moments(), 2, &UnmergeRule::Pinv, zipit::plan::PointNature::default()).unwrap();
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
        let constants = zipit::Constants::of(&features.moments()).weighed();
        let plan = PointPlan::new("identity", &matching, (&features.moments(), &constants), n_models, &UnmergeRule::Pinv, zipit::plan::PointNature::default()).unwrap();
        let average = Array2::from_shape_fn((d, n), |(g, k)| if k % d == g { 1.0 / n_models as f32 } else { 0.0 });
        prop_assert_eq!(plan.merge_matrix(), average);
    }
}
