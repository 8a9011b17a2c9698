//! Matching by importance: what it promises, and what it says that it loses.
#![allow(clippy::unwrap_used)]

use crate::features::{Features, features};
use ndarray::{Array2, Axis};
use proptest::prelude::*;
use zipit::importance::{Importance, PlaceSums};
use zipit::matching::{Method, Similarity, losses, match_features};
use zipit::plan::{PointNature, PointPlan};
use zipit::unmerge::UnmergeRule;
use zipit::watch::Unwatched;
use zipit::{Constants, Moments, Observed};

const METHOD: Method = Method::Ward { similarity: Similarity::Importance };

/// Gradients of mean 0 with these energies, one place.
fn importance(energies: &[f64], n_models: usize) -> Importance {
    let d = energies.len() / n_models;
    let own = |energies: &[f64]| {
        let mut moments = Moments::zeros(d);
        let diagonal = Array2::from_diag(&ndarray::Array1::from_iter(energies.iter().map(|&x| x as f32)));
        moments.add_batch(1, &vec![0.0; d], diagonal.view());
        moments
    };
    Importance { places: vec![PlaceSums { joint: None, gradients: energies.chunks(d).map(own).collect() }] }
}

/// A⁻¹ B by Gauss and Jordan, A positive definite.
fn solve(mut a: Array2<f64>, mut b: Array2<f64>) -> Array2<f64> {
    for p in 0..a.nrows() {
        let pivot = a[[p, p]];
        for row in (0..a.nrows()).filter(|&row| row != p) {
            let factor = a[[row, p]] / pivot;
            for matrix in [&mut a, &mut b] {
                let own = matrix.row(p).to_owned();
                matrix.row_mut(row).scaled_add(-factor, &own);
            }
        }
        a.row_mut(p).mapv_inplace(|x| x / pivot);
        b.row_mut(p).mapv_inplace(|x| x / pivot);
    }
    b
}

fn energies(n: usize, seed: usize) -> Vec<f64> {
    (0..n).map(|k| [0.25, 1.0, 4.0, 0.0, 9.0][(k * 3 + seed) % 5]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn it_loses_what_it_says(features in features(), seed in 0_usize..100) {
        let (n, n_models, moments) = (features.z.ncols(), features.n_models, features.moments());
        let energies = energies(n, seed);
        let importance = importance(&energies, n_models);
        // All features take part: what is constant is another matter.
        let constants = Constants::none(n);
        let observed = Observed { importance: Some(&importance), ..(&moments, &constants).into() };
        let said = losses(&METHOD, observed.clone(), n_models, &Unwatched).unwrap();
        let mut c = moments.second_moment();
        let mean = c.diag().mean().unwrap();
        let load = if mean > 0.0 { 1e-3 * mean } else { 1.0 };
        c.diag_mut().iter_mut().for_each(|x| *x += load);
        for n_groups in 1..=n {
            let matching = match_features(&METHOD, observed.clone(), n_models, n_groups).unwrap();
            let nature = PointNature::default();
            let weights = importance.weights();
            let rule = UnmergeRule::Pinv;
            let plan = PointPlan::weighted("p", &matching, Some(&weights), (&moments, &constants), n_models, &rule, nature);
            let m = plan.unwrap().merge_matrix().mapv(f64::from);
            let cm = c.dot(&m.t());
            // U = C Mᵀ (M C Mᵀ)⁻¹, by elimination.
            let u = solve(m.dot(&cm), cm.t().to_owned()).t().to_owned();
            let left = &c - &u.dot(&cm.t());
            let lost: f64 = left.diag().iter().zip(&energies).map(|(x, energy)| x * energy).sum();
            let scale = c.diag().iter().zip(&energies).map(|(x, energy)| x * energy).sum::<f64>();
            prop_assert!((lost - said[n_groups - 1]).abs() <= 1e-5 * (1e-3 + scale), "{n_groups}: {lost}, {said:?}");
        }
        prop_assert!(said.windows(2).all(|pair| pair[0] >= pair[1]) && said[n - 1] == 0.0);
    }

    #[test]
    fn a_copy_is_found(n_samples in 20_usize..60, d in 1_usize..9, seed in 0_usize..100) {
        let x = Array2::from_shape_fn((n_samples, d), |(s, k)| ((s * 37 + k * 101 + s * s * k + seed) % 61) as f32 / 7.0);
        let order: Vec<usize> = (0..d).map(|k| (k * 5 + seed) % d).collect();
        let mut seen = order.clone();
        seen.sort_unstable();
        seen.dedup();
        prop_assume!(seen.len() == d);
        let z = ndarray::concatenate(Axis(1), &[x.view(), x.select(Axis(1), &order).view()]).unwrap();
        let own: Vec<f64> = energies(d, seed).into_iter().map(|x| x + 0.1).collect();
        let energies: Vec<f64> = own.iter().copied().chain(order.iter().map(|&k| own[k])).collect();
        let (moments, importance) = (Features { n_models: 2, z }.moments(), importance(&energies, 2));
        let constants = Constants::of(&moments);
        let observed = Observed { importance: Some(&importance), ..(&moments, &constants).into() };
        let matching = match_features(&METHOD, observed.clone(), 2, d).unwrap();
        for (k, &from) in order.iter().enumerate() {
            prop_assert_eq!(matching.assignment[d + k], matching.assignment[from]);
        }
        // One of every two is kept, unless fewer than d say all.
        let matching = match_features(&Method::Select, observed.clone(), 2, d).unwrap();
        prop_assert_eq!(matching.n_groups, d);
        let rule = UnmergeRule::Covariance { ridge: 1e-9 };
        let weights = matching.weights.as_ref().map(|own| own.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        let nature = PointNature::default();
        let plan = PointPlan::weighted("p", &matching, weights.as_deref(), observed, 2, &rule, nature).unwrap();
        prop_assert!(plan.summary.reconstruction_error < 1e-4, "{}", plan.summary.reconstruction_error);
    }
}

#[test]
fn losses_are_of_methods_that_know_the_logits() {
    let z = Array2::from_shape_fn((9, 4), |(s, k)| ((s * 5 + k * k) % 7) as f32);
    let moments = Features { n_models: 2, z }.moments();
    let message = losses(&Method::Permute, &moments, 2, &Unwatched).unwrap_err().to_string();
    assert!(message.contains("`permute` does not say what the logits lose"), "{message}");
}

#[test]
fn nothing_matches_by_what_was_not_measured() {
    let z = Array2::from_shape_fn((9, 4), |(s, k)| ((s * 5 + k * k) % 7) as f32);
    let moments = Features { n_models: 2, z }.moments();
    for method in [METHOD, Method::Select] {
        let message = match_features(&method, &moments, 2, 2).unwrap_err().to_string();
        assert!(message.contains("collect with --importance"), "{message}");
    }
}
