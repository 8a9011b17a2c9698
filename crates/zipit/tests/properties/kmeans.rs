//! k-means from R alone, against the features as points.

use crate::features::features;
use ndarray::{Array2, Axis};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zipit::matching::kmeans::kmeans;

/// Points, one a row, whose inner products are R: standardised samples, and an axis of its own for every dead feature.
fn points(z: &Array2<f32>) -> Array2<f64> {
    let (n_samples, n) = z.dim();
    let mut points = Array2::zeros((n, n_samples + n));
    for (k, column) in z.axis_iter(Axis(1)).enumerate() {
        let column = column.mapv(f64::from);
        let centred = &column - column.sum() / n_samples as f64;
        let norm = centred.dot(&centred).sqrt();
        if norm > 1e-9 {
            points.row_mut(k).split_at(Axis(0), n_samples).0.assign(&(centred / norm));
        } else {
            points[[k, n_samples + k]] = 1.0;
        }
    }
    points
}

proptest! {
    #[test]
    fn no_feature_is_nearer_to_another_centre(features in features(), kept in 0.0..=1.0_f64, seed: u64) {
        let n = features.z.ncols();
        let n_groups = 1 + (kept * (n - 1) as f64).round() as usize;
        let matching = kmeans(features.moments().correlation().view(), n_groups, seed);
        let points = points(&features.z);
        let centres: Vec<_> = (0..n_groups as u32)
            .map(|g| {
                let members: Vec<usize> = (0..n).filter(|&k| matching.assignment[k] == g).collect();
                points.select(Axis(0), &members).mean_axis(Axis(0)).unwrap()
            })
            .collect();
        for (k, point) in points.rows().into_iter().enumerate() {
            let square = |g: usize| (&point - &centres[g]).mapv(|x| x * x).sum();
            let own = square(matching.assignment[k] as usize);
            for g in 0..n_groups {
                prop_assert!(own <= square(g) + 1e-5, "feature {} is {} from its centre, {} from {}", k, own, square(g), g);
            }
        }
    }
}

#[test]
fn planted_groups_are_found() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let sources = Array2::from_shape_simple_fn((300, 4), || rng.random_range(-1.0_f32..1.0));
    let z = Array2::from_shape_fn((300, 24), |(s, k)| sources[[s, k % 4]] + 0.3 * rng.random_range(-1.0_f32..1.0));
    let features = crate::features::Features { n_models: 2, z };
    let expected: Vec<u32> = (0..24).map(|k| k % 4).collect();
    for seed in 0..20 {
        let r = features.moments().correlation();
        assert_eq!(kmeans(r.view(), 4, seed).assignment, expected, "seed {seed}");
    }
}
