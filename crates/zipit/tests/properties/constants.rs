//! Constant features, in what every method makes of a permuted copy and of anything else.
#![allow(clippy::unwrap_used)]

use crate::features::{Features, features};
use ndarray::{Array2, Axis, concatenate};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use zipit::matching::{Method, Similarity, match_features};
use zipit::plan::{Plan, PlanSettings, PointNature, PointPlan};
use zipit::unmerge::UnmergeRule;
use zipit::{Constants, Extent, Moments};

fn methods() -> Vec<Method> {
    let mut methods = vec![
        Method::Zip { alpha: 1.0, beta: 1.0 },
        Method::Zip { alpha: 0.3, beta: 0.15 },
        Method::Zip { alpha: 0.0, beta: 0.0 },
        Method::Permute,
        Method::Kmeans { seed: 3 },
        Method::Optimal,
    ];
    for similarity in Similarity::ALL {
        methods.extend([Method::Ward { similarity }, Method::Average { similarity }]);
    }
    methods
}

/// Samples `[n, N·d]` at each of several reads. Of d features some vary everywhere, some are 0 everywhere, some are
/// constants of their own at each read.
fn space(d: usize, n_reads: usize, kinds: &[u8], rng: &mut ChaCha8Rng) -> Vec<Array2<f32>> {
    let x = Array2::from_shape_simple_fn((80, d), || rng.random_range(0.0_f32..1.0));
    (0..n_reads)
        .map(|_| {
            let mut x = x.mapv(|x| x * rng.random_range(0.5_f32..2.0));
            for (k, &kind) in kinds.iter().enumerate().filter(|(_, kind)| **kind > 1) {
                x.column_mut(k).fill(if kind == 2 { 0.0 } else { rng.random_range(-1.0_f32..3.0) });
            }
            x
        })
        .collect()
}

fn observed(reads: &[Array2<f32>], n_models: usize) -> (Moments, Constants) {
    let z = &reads[reads.len() - 1];
    let moments = Features { n_models, z: z.clone() }.moments();
    let extent = |z: &Array2<f32>| {
        let end = |pick: fn(f32, f32) -> f32| z.map_axis(Axis(0), |z| z.iter().copied().reduce(pick).unwrap()).to_vec();
        Extent { low: end(f32::min), high: end(f32::max) }
    };
    let extents: Vec<Extent> = reads.iter().map(extent).collect();
    let constants = Constants::new(&moments, &extents, n_models, false);
    (moments, constants)
}

/// U M z is z at every read.
fn brings_all_back(plan: &PointPlan, reads: &[Array2<f32>]) -> f32 {
    let (m, u) = (plan.merge_matrix(), plan.unmerge_matrix());
    let off = reads.iter().flat_map(|z| (z.dot(&m.t()).dot(&u.t()) - z).into_iter().map(f32::abs));
    off.fold(0.0, f32::max)
}

proptest! {
    #[test]
    fn copies_with_constants_are_recovered(
        kinds in prop::collection::vec(0..4_u8, 2..16), n_reads in 1..4_usize, n_models in 2..4_usize, seed: u64,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let d = kinds.len();
        let first = space(d, n_reads, &kinds, &mut rng);
        let orders: Vec<Vec<usize>> = (1..n_models).map(|_| {
            let mut order: Vec<usize> = (0..d).collect();
            order.shuffle(&mut rng);
            order
        }).collect();
        let joint = |x: &Array2<f32>| {
            let copies = orders.iter().map(|order| x.select(Axis(1), order));
            let all: Vec<Array2<f32>> = std::iter::once(x.clone()).chain(copies).collect();
            concatenate(Axis(1), &all.iter().map(Array2::view).collect::<Vec<_>>()).unwrap()
        };
        let reads: Vec<Array2<f32>> = first.iter().map(joint).collect();
        let (moments, constants) = observed(&reads, n_models);
        let count = |kind: u8| n_models * kinds.iter().map(|k| usize::from(*k == kind)).sum::<usize>();
        prop_assert_eq!(constants.count(), (count(2), count(3)));
        for method in methods() {
            // With damping, chance within a model would beat the third copy.
            let damped = matches!(method, Method::Zip { alpha, .. } if alpha < 1.0);
            if n_models > 2 && (method == Method::Optimal || damped) {
                continue;
            }
            let matching = match_features(&method, (&moments, &constants), n_models, d).unwrap();
            for unmerge in [UnmergeRule::Pinv, UnmergeRule::Covariance { ridge: 1e-4 }] {
                let of = (&moments, &constants);
                let point = PointPlan::new("p", &matching, of, n_models, &unmerge, PointNature::default()).unwrap();
                prop_assert!(point.summary.reconstruction_error < 1e-6, "{:?}: {:?}", method, point.summary);
                let off = brings_all_back(&point, &reads);
                prop_assert!(off < 2e-4, "{:?} {:?}: {}", method, unmerge, off);
                let plan = Plan { n_models, settings: PlanSettings { method, unmerge }, points: vec![point] };
                prop_assert_eq!(plan.validate(), Ok(()));
            }
        }
    }

    #[test]
    fn any_plan_with_constants_is_sound_and_leaves_living_features_alone(features in features(), kept in 0.0..=1.0_f64) {
        let (n_models, n) = (features.n_models, features.z.ncols());
        let moments = features.moments();
        let constants = features.constants();
        for method in methods() {
            let any = 1 + (kept * (n - 1) as f64).round() as usize;
            let n_groups = if method.serves_any_size() { any } else { n / n_models };
            if method == Method::Optimal && n_models > 2 {
                continue;
            }
            let matching = match_features(&method, &moments, n_models, n_groups).unwrap();
            for unmerge in [UnmergeRule::Pinv, UnmergeRule::Covariance { ridge: 1e-3 }] {
                let point = PointPlan::new("p", &matching, &moments, n_models, &unmerge, PointNature::default()).unwrap();
                let (m, u) = (point.merge_matrix(), point.unmerge_matrix());
                let off = m.dot(&u) - Array2::<f32>::eye(n_groups);
                let largest = u.iter().fold(1.0_f32, |largest, x| largest.max(x.abs()));
                prop_assert!(off.iter().all(|x| x.abs() < 1e-4 * largest), "{:?}", method);
                // A row of M holds constants only where it holds nothing that varies.
                for row in m.rows() {
                    let of = |constant: bool| row.iter().zip(&constants).any(|(&m, &c)| m != 0.0 && c == constant);
                    prop_assert!(!(of(true) && of(false)), "{:?}", method);
                }
                let plan = Plan { n_models, settings: PlanSettings { method, unmerge }, points: vec![point] };
                prop_assert_eq!(plan.validate(), Ok(()));
            }
        }
    }
}

/// What varies little about a large mean is no constant, and what rounding varies is one.
#[test]
fn constants_are_told_by_their_range() {
    let of = |mean: f32, width: f32| {
        let z = Array2::from_shape_fn(
            (50, 2),
            |(s, k)| if k == 0 { mean + width * (s % 7) as f32 } else { (s % 5) as f32 },
        );
        observed(&[z], 1).1.count()
    };
    for mean in [0.0, 1.0, 250.0, 1e3, 1e5] {
        assert_eq!(of(mean, 0.3), (0, 0), "{mean}");
    }
    assert_eq!(of(1.0, f32::EPSILON / 7.0), (0, 1));
    assert_eq!(of(1.0, 0.0), (0, 1));
    assert_eq!(of(-0.0, 0.0), (1, 0));
    // A channel that weight decay has brought to nothing.
    assert_eq!(of(1e-12, 1e-12), (1, 0));
}

/// Where all features of a space are read together, none is left out, but constants are still counted and paired.
#[test]
fn constants_that_must_be_weighed() {
    let z = Array2::from_shape_fn((50, 6), |(s, k)| match k {
        0 | 5 => 0.0,
        1 | 3 => 2.0,
        _ => ((s * 7) % 11) as f32,
    });
    let (moments, _) = observed(std::slice::from_ref(&z), 2);
    let end = z.row(0).to_vec();
    let mut high = end.clone();
    (high[2], high[4]) = (10.0, 10.0);
    let constants = Constants::new(&moments, &[Extent { low: end, high }], 2, true);
    assert_eq!(constants.count(), (2, 2));
    assert!((0..6).all(|k| !constants.rests(k)));
    for method in methods() {
        let matching = match_features(&method, (&moments, &constants), 2, 3).unwrap();
        assert_eq!(matching.assignment, [0, 1, 2, 1, 2, 0], "{method:?}");
    }
}
