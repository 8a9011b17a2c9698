//! M and U as maps, against dense algebra and against the samples they were measured on.
#![allow(clippy::unwrap_used)]

use crate::features::{Features, features};
use ndarray::Array2;
use proptest::prelude::*;
use zipit::Constants;
use zipit::matching::{Method, match_features};
use zipit::plan::{Plan, PlanSettings, PointPlan};
use zipit::unmerge::{self, MINIMAL_RIDGE, UnmergeRule};

fn f64s(matrix: &Array2<f32>) -> Array2<f64> {
    matrix.mapv(f64::from)
}

fn largest(matrix: &Array2<f64>) -> f64 {
    matrix.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

/// A plan of the features' zip into about `kept` of them, validated.
fn plan(features: &Features, kept: f64, rule: UnmergeRule) -> PointPlan {
    plan_with(features, &Constants::of(&features.moments()), kept, rule)
}

/// As [`plan`], with averages that leave no constant out.
fn plain(features: &Features, kept: f64) -> PointPlan {
    plan_with(features, &Constants::of(&features.moments()).weighed(), kept, UnmergeRule::Pinv)
}

fn plan_with(features: &Features, constants: &Constants, kept: f64, rule: UnmergeRule) -> PointPlan {
    let n_groups = 1 + (kept * (features.z.ncols() - 1) as f64).round() as usize;
    let method = Method::Zip { alpha: 0.7, beta: 0.5 };
    let moments = features.moments();
    let of = (&moments, constants);
    let matching = match_features(&method, of, features.n_models, n_groups).unwrap();
    let point =
        PointPlan::new("point", &matching, of, features.n_models, &rule, zipit::plan::PointNature::default()).unwrap();
    let settings = PlanSettings { method, unmerge: rule };
    let plan = Plan { n_models: features.n_models, settings, points: vec![point] };
    plan.validate().unwrap();
    plan.points.into_iter().next().unwrap()
}

/// E‖z − U M z‖² / E‖z‖² by running the samples through the maps.
fn lost_on_samples(features: &Features, m: &Array2<f64>, u: &Array2<f64>) -> f64 {
    let z = f64s(&features.z);
    let lost = &z - &z.dot(&m.t()).dot(&u.t());
    let energy = (&z * &z).sum();
    if energy > 0.0 { (&lost * &lost).sum() / energy } else { 0.0 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn unmerge_undoes_merge_and_reports_what_it_loses(features in features(), kept in 0.0..=1.0_f64, exponent in -6..3_i32) {
        for rule in [UnmergeRule::Pinv, UnmergeRule::Covariance { ridge: 10_f64.powi(exponent) }] {
            let point = plan(&features, kept, rule);
            let (m, u) = (f64s(&point.merge_matrix()), f64s(&point.unmerge_matrix()));
            let off = m.dot(&u) - Array2::<f64>::eye(point.n_groups);
            prop_assert!(largest(&off) <= 1e-6 * (1.0 + largest(&u)), "M·U is off by {}", largest(&off));
            let lost = lost_on_samples(&features, &m, &u);
            prop_assert!((lost - point.summary.reconstruction_error).abs() < 1e-5, "{lost} {:?}", point.summary);
        }
    }

    #[test]
    fn covariance_solves_its_normal_equations(features in features(), kept in 0.0..=1.0_f64, exponent in -5..3_i32) {
        let ridge = 10_f64.powi(exponent);
        let point = plain(&features, kept);
        let g = features.moments().second_moment();
        let u = unmerge::covariance(&g, &point.assignment, point.n_groups, ridge).unwrap();
        let m = f64s(&point.merge_matrix());
        let a = m.dot(&g).dot(&m.t());
        let load = ridge * a.diag().mean().unwrap();
        let x = &u - &f64s(&point.unmerge_matrix());
        // U A + λc (U − U_pinv) = G Mᵀ; f32 averages in M leave 1e-7.
        let residual = u.dot(&a) + x.mapv(|x| x * load) - g.dot(&m.t());
        prop_assert!(largest(&residual) <= 1e-5 * (1.0 + largest(&g)), "{}", largest(&residual));
    }

    #[test]
    fn covariance_loses_no_more_than_pinv_and_becomes_it(features in features(), kept in 0.0..=1.0_f64) {
        let g = features.moments().second_moment();
        let pinv = plain(&features, kept);
        let lost = |ridge: f64| {
            let fitted = unmerge::unmerge(&UnmergeRule::Covariance { ridge }, &g, &pinv.assignment, pinv.n_groups).unwrap();
            let u = fitted.matrix.as_ref().map(Array2::view);
            let dense = unmerge::reconstruction_error(&g, &pinv.assignment, pinv.n_groups, u);
            assert!((dense - fitted.reconstruction_error).abs() < 1e-9, "{dense} {}", fitted.reconstruction_error);
            fitted.reconstruction_error
        };
        let mut least = pinv.summary.reconstruction_error;
        for ridge in [10.0, 0.1, 1e-3, 1e-6, MINIMAL_RIDGE] {
            let now = lost(ridge);
            prop_assert!(now <= least + 1e-9, "a smaller ridge fits better: {now} after {least}");
            least = now;
        }
        let far = unmerge::covariance(&g, &pinv.assignment, pinv.n_groups, 1e12).unwrap();
        let indicator: Array2<f64> = unmerge::indicator(&pinv.assignment, pinv.n_groups);
        prop_assert!(largest(&(far - indicator)) < 1e-9);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn features_may_count_differently(features in features(), kept in 0.0..=1.0_f64, exponent in -6..3_i32, seed in 0_usize..1000) {
        let n = features.z.ncols();
        // From nothing to a thousand.
        let weights: Vec<f64> = (0..n).map(|k| [0.0, 1e-3, 0.3, 1.0, 1e3][(k * 7 + seed) % 5]).collect();
        let plain = plan(&features, kept, UnmergeRule::Pinv);
        let method = Method::Zip { alpha: 0.7, beta: 0.5 };
        let moments = features.moments();
        let matching = match_features(&method, &moments, features.n_models, plain.n_groups).unwrap();
        for rule in [UnmergeRule::Pinv, UnmergeRule::Covariance { ridge: 10_f64.powi(exponent) }] {
            let of = |weights: Option<&[f64]>| {
                let nature = zipit::plan::PointNature::default();
                PointPlan::weighted("point", &matching, weights, &moments, features.n_models, &rule, nature).unwrap()
            };
            let point = of(Some(&weights));
            let plan = Plan { n_models: features.n_models, settings: PlanSettings { method, unmerge: rule }, points: vec![point] };
            plan.validate().unwrap();
            let point = &plan.points[0];
            let (m, u) = (f64s(&point.merge_matrix()), f64s(&point.unmerge_matrix()));
            let rests = point.rests();
            for (g, row) in m.rows().into_iter().enumerate() {
                let members: Vec<usize> = (0..n).filter(|&k| point.assignment[k] as usize == g && !rests[k]).collect();
                let total: f64 = members.iter().map(|&k| weights[k]).sum();
                for &k in &members {
                    let expected = if total > 0.0 { weights[k] / total } else { 1.0 / members.len() as f64 };
                    prop_assert!((row[k] - expected).abs() < 1e-6, "{} instead of {expected}", row[k]);
                }
                prop_assert!((row.sum() - 1.0).abs() < 1e-6);
            }
            let off = m.dot(&u) - Array2::<f64>::eye(point.n_groups);
            prop_assert!(largest(&off) <= 1e-6 * (1.0 + largest(&u)), "M·U is off by {}", largest(&off));
            let lost = lost_on_samples(&features, &m, &u);
            let scale = 1.0 + lost;
            prop_assert!((lost - point.summary.reconstruction_error).abs() < 1e-5 * scale, "{lost} {:?}", point.summary);
            // What counts the same is averaged as if nobody had counted.
            prop_assert_eq!(of(Some(&vec![3.0; n])), of(None));
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let z = Array2::from_shape_fn((300, 600), |(s, k)| ((s * 31 + k * k * 17 + s * k) % 23) as f32 / 7.0);
    let features = Features { n_models: 2, z };
    let on = |n_threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| plan(&features, 0.5, UnmergeRule::Covariance { ridge: 0.01 }))
    };
    let one = on(1);
    assert!(one.unmerge.is_some());
    assert_eq!(one, on(2));
    assert_eq!(one, on(5));
}
