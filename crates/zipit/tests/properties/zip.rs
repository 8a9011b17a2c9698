//! The fast zip makes the oracle's merges, in the oracle's order, on anything.

use ndarray::Array2;
use proptest::prelude::*;
use zipit::matching::{Matching, limits::within_cap, oracle, zip};

/// N, and a symmetric `[N·d, N·d]` of similarities in −1…1, d up to `max_d`.
fn similarities(max_d: usize) -> impl Strategy<Value = (usize, Array2<f32>)> {
    // Levels per unit: few make exact ties, 0 means none are made on purpose.
    let shape = (2..=5_usize, 1..=max_d, prop::sample::select(vec![0_u8, 1, 2, 5, 20]), 0..4_u8);
    shape.prop_flat_map(|(n_models, d, levels, dead_one_in)| {
        let n = n_models * d;
        let entries = prop::collection::vec(-1.0_f32..=1.0, n * n);
        let dead = prop::collection::vec(0..8_u8, n);
        (entries, dead).prop_map(move |(entries, dead)| {
            let similarity = Array2::from_shape_fn((n, n), |(i, j)| {
                let x = entries[i.min(j) * n + i.max(j)];
                let x = if levels == 0 { x } else { (x * f32::from(levels)).round() / f32::from(levels) };
                match (i == j, dead[i] < dead_one_in || dead[j] < dead_one_in) {
                    (true, _) => 1.0,
                    (_, true) => 0.0,
                    _ => x,
                }
            });
            (n_models, similarity)
        })
    })
}

/// What any zip must be, whatever was merged.
fn check_matching(matching: &Matching, n_models: usize, n: usize, n_groups: usize, beta: f32) {
    assert_eq!((matching.assignment.len(), matching.n_groups, matching.merges.len()), (n, n_groups, n - n_groups));
    let mut seen = 0;
    for &group in &matching.assignment {
        assert!(group <= seen, "groups are numbered by their lowest feature");
        seen += u32::from(group == seen);
    }
    assert_eq!(seen as usize, n_groups, "every group has members");
    let d = n / n_models;
    let cap = within_cap(n - n_groups, n_models, beta);
    for model in 0..n_models {
        let within = matching.merges.iter().filter(|&&(i, j)| [i, j].iter().all(|&k| k as usize / d == model)).count();
        assert!(matching.caps_lifted || within <= cap, "{within} merges within model {model}, cap {cap}");
    }
    assert_eq!(Matching::from_merges(n, matching.merges.clone(), matching.caps_lifted), *matching);
}

fn alphas() -> impl Strategy<Value = f32> {
    prop::sample::select(vec![-1.0, 0.0, 0.01, 0.3, 0.7, 1.0])
}

fn betas() -> impl Strategy<Value = f32> {
    prop::sample::select(vec![0.0, 0.15, 0.5, 1.0])
}

fn fast_is_the_oracle(similarity: &Array2<f32>, n_models: usize, kept: f64, alpha: f32, beta: f32) {
    let n = similarity.nrows();
    let n_groups = 1 + (kept * (n - 1) as f64).round() as usize;
    let fast = zip::zip(similarity.view(), n_models, n_groups, alpha, beta);
    assert_eq!(fast, oracle::zip(similarity.view(), n_models, n_groups, alpha, beta));
    check_matching(&fast, n_models, n, n_groups, beta);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn fast_zip_is_the_oracle(
        (n_models, similarity) in similarities(12), alpha in alphas(), beta in betas(), kept in 0.0..=1.0_f64,
    ) {
        fast_is_the_oracle(&similarity, n_models, kept, alpha, beta);
    }
}

proptest! {
    #[test]
    fn models_may_have_any_number_of_features(
        (n_models, similarity) in similarities(12), alpha in alphas(), beta in betas(), kept in 0.0..=1.0_f64, cut in 0.0..1.0_f64,
    ) {
        // The first model has some of its features, perhaps none; the last has the others too.
        let n = similarity.nrows();
        let d = n / n_models;
        let gone = (cut * (d + 1) as f64) as usize;
        let mut sizes = vec![d; n_models];
        sizes[0] -= gone;
        sizes[n_models - 1] += gone;
        let n_groups = 1 + (kept * (n - 1) as f64).round() as usize;
        let fast = zip::zip_of(similarity.view(), &sizes, n_groups, alpha, beta);
        prop_assert_eq!(fast, oracle::zip_of(similarity.view(), &sizes, n_groups, alpha, beta));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn fast_zip_is_the_oracle_on_many_features(
        (n_models, similarity) in similarities(40), alpha in alphas(), beta in betas(), kept in 0.0..=1.0_f64,
    ) {
        fast_is_the_oracle(&similarity, n_models, kept, alpha, beta);
    }
}
