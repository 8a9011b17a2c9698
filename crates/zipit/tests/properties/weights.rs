//! Matchings that read the weights, and dense maps from covariances.

use crate::features::{Features, features};
use crate::networks::{model, oddities, orders, permuted};
use ndarray::{Array2, Axis, concatenate};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use zipit::Moments;
use zipit::graph::{Arch, ArchSpec, Graph, MergePoint, VggHead};
use zipit::matching::cca::cca;
use zipit::matching::identity::identity;
use zipit::matching::mudsc::{Solver, mudsc};
use zipit::matching::weight::{objective, weight_matching};
use zipit::matching::{Matching, Method, match_features};

/// Small networks of every kind.
fn zoo() -> Vec<Graph> {
    let spec = |arch, width, size| ArchSpec::new(arch, width, 3, [size; 2], 10);
    let mlp = ArchSpec { vgg_head: VggHead::Mlp { hidden: 24 }, ..spec(Arch::Vgg11Bn, 0.2, 32) };
    let mut graphs: Vec<Graph> =
        [spec(Arch::ResNet20, 1.0, 8), spec(Arch::Vgg11Bn, 0.2, 64), mlp, spec(Arch::ResNet50, 0.2, 32)]
            .iter()
            .map(|spec| spec.build().expect("a valid network"))
            .collect();
    graphs.push(oddities());
    graphs
}

/// What a matching of copies must be: each copy's feature with the feature that it is.
fn expected(d: usize, copies: &[&Vec<usize>]) -> Vec<u32> {
    let copied = copies.iter().flat_map(|order| order.iter().map(|&j| j as u32));
    (0..d as u32).chain(copied).collect()
}

fn is_one_to_one(matching: &Matching, d: usize) -> bool {
    matching.n_groups == d
        && matching.assignment.chunks(d).all(|groups| {
            let mut groups = groups.to_vec();
            groups.sort_unstable();
            groups.into_iter().eq(0..d as u32)
        })
}

#[test]
fn permuted_copies_are_recovered_by_weights() {
    for (seed, graph) in (1..).zip(zoo()) {
        let spaces = graph.spaces().unwrap();
        let points = graph.merge_points(&spaces);
        let first = model(&graph, seed);
        let [a, b] = [orders(&spaces, 10 + seed), orders(&spaces, 20 + seed)];
        let [second, third] = [permuted(&first, &spaces, &a), permuted(&first, &spaces, &b)];
        let matchings = weight_matching(&[&first, &second, &third], &points, seed).unwrap();
        for (point, matching) in points.iter().zip(&matchings) {
            let expected = expected(point.dim, &[&a[point.space], &b[point.space]]);
            assert_eq!(matching.assignment, expected, "{} `{}`", graph.arch, point.name);
        }
        let own = weight_matching(&[&first, &first], &points, seed).unwrap();
        let most = 2.0 * objective(&[&first, &first], &points, &own).unwrap();
        let reached = objective(&[&first, &second, &third], &points, &matchings).unwrap();
        assert!((reached - most).abs() < 1e-9 * most, "{}: {reached} of {most}", graph.arch);
    }
}

#[test]
fn spaces_that_are_not_asked_for_keep_the_identity() {
    let graph = oddities();
    let spaces = graph.spaces().unwrap();
    let points = graph.merge_points(&spaces);
    let first = model(&graph, 1);
    let mut order = orders(&spaces, 2);
    for (space, order) in order.iter_mut().enumerate().filter(|(space, _)| *space != points[2].space) {
        *order = (0..spaces.spaces[space].dim).collect();
    }
    let second = permuted(&first, &spaces, &order);
    let matchings = weight_matching(&[&first, &second], &points[2..3], 0).unwrap();
    assert_eq!(matchings.len(), 1);
    assert_eq!(matchings[0].assignment, expected(points[2].dim, &[&order[points[2].space]]));
    assert_eq!(weight_matching(&[&first, &second], &[], 0).unwrap(), []);
}

#[test]
fn points_that_are_not_the_models_are_refused() {
    let graph = oddities();
    let spaces = graph.spaces().unwrap();
    let points = graph.merge_points(&spaces);
    let first = model(&graph, 1);
    let refusal = |points: &[_]| weight_matching(&[&first, &first], points, 0).unwrap_err().to_string();
    assert!(refusal(&[points[0].clone(), points[0].clone()]).contains("twice"));
    let mut wrong = points[0].clone();
    wrong.space = points[1].space;
    assert!(refusal(&[wrong]).contains("none of oddities's merge points"));
    assert!(weight_matching(&[&first], &points, 0).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn weight_matching_of_strangers_is_a_local_maximum(seed: u64, n_models in 2..=3_usize) {
        let graph = oddities();
        let points = graph.merge_points(&graph.spaces().unwrap());
        let models: Vec<_> = (0..n_models as u64).map(|i| model(&graph, seed.wrapping_add(i))).collect();
        let models: Vec<_> = models.iter().collect();
        let matchings = weight_matching(&models, &points, seed).unwrap();
        prop_assert!(points.iter().zip(&matchings).all(|(point, matching)| is_one_to_one(matching, point.dim)));
        let reached = objective(&models, &points, &matchings).unwrap();
        let unmoved: Vec<_> = points.iter().map(|point| identity(point.dim, n_models)).collect();
        prop_assert!(reached >= objective(&models, &points, &unmoved).unwrap());
        // No exchange of two features of one point does better, but where the space lies along both axes of a tensor.
        for (at, point) in points.iter().enumerate().filter(|(_, point)| point.name != "add") {
            for k in 1..point.dim {
                let mut exchanged = matchings.clone();
                exchanged[at].assignment.swap(point.dim, point.dim + k);
                let other = objective(&models, &points, &exchanged).unwrap();
                prop_assert!(other <= reached + 1e-9 * reached.abs(), "{}: {other} after {reached}", point.name);
            }
        }
        prop_assert_eq!(weight_matching(&models, &points, seed).unwrap(), matchings);
    }
}

/// Two models, the second one's features a permutation of the first one's: feature j of it is `order[j]` of that.
fn copy_and_order(n_samples: usize, d: usize, seed: u64) -> (Features, Vec<usize>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..d).collect();
    order.shuffle(&mut rng);
    let x = Array2::from_shape_simple_fn((n_samples, d), || rng.random_range(-1.0_f32..2.0));
    let z = concatenate![Axis(1), x, x.select(Axis(1), &order)];
    (Features { n_models: 2, z }, order)
}

fn largest(matrix: &Array2<f64>) -> f64 {
    matrix.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

proptest! {
    #[test]
    fn cca_maps_invert_each_other(features in features(), gamma in prop::sample::select(vec![0.0, 1e-4, 0.1, 10.0])) {
        let d = features.z.ncols() / features.n_models;
        let maps = cca(&features.moments(), features.n_models, gamma).unwrap();
        prop_assert_eq!(maps.merge.dim(), (d, features.z.ncols()));
        prop_assert_eq!(maps.unmerge.dim(), (features.z.ncols(), d));
        prop_assert!(largest(&(maps.merge.dot(&maps.unmerge) - Array2::<f64>::eye(d))) < 1e-8);
        // Every T is invertible by itself, where no constant is left out.
        for i in if features.constants().iter().any(|&c| c) { 0..0 } else { 0..features.n_models } {
            let of: Vec<usize> = (i * d..(i + 1) * d).collect();
            let to = maps.merge.select(Axis(1), &of) * features.n_models as f64;
            prop_assert!(largest(&(maps.unmerge.select(Axis(0), &of).dot(&to) - Array2::<f64>::eye(d))) < 1e-8);
        }
    }

    #[test]
    fn cca_of_a_permuted_copy_is_that_permutation(d in 1..16_usize, seed: u64, gamma in prop::sample::select(vec![0.0, 1e-3])) {
        let (features, order) = copy_and_order(200, d, seed);
        let maps = cca(&features.moments(), 2, gamma).unwrap();
        for (j, &origin) in order.iter().enumerate() {
            for k in 0..d {
                let expected = if k == origin { 0.5 } else { 0.0 };
                prop_assert!((maps.merge[[k, d + j]] - expected).abs() < 1e-5, "{} {k} {j}", maps.merge[[k, d + j]]);
            }
        }
    }

    #[test]
    fn cca_gives_each_model_the_covariance_of_the_first(seed: u64, d in 1..8_usize) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let z = Array2::from_shape_simple_fn((200, 3 * d), || rng.random_range(-1.0_f32..1.0));
        let moments = Features { n_models: 3, z }.moments();
        let maps = cca(&moments, 3, 0.0).unwrap();
        let covariance = moments.covariance();
        let block = |i: usize| {
            let of: Vec<usize> = (i * d..(i + 1) * d).collect();
            (covariance.select(Axis(0), &of).select(Axis(1), &of), maps.merge.select(Axis(1), &of) * 3.0)
        };
        let (first, _) = block(0);
        for i in 1..3 {
            let (own, to) = block(i);
            prop_assert!(largest(&(to.dot(&own).dot(&to.t()) - &first)) < 1e-4);
        }
    }
}

#[test]
fn cca_leaves_constants_out() {
    let (mut features, order) = copy_and_order(50, 4, 3);
    // Feature 1 of both models is constant, where the second one had the first one's feature `order[1]`.
    for k in [1, 5] {
        features.z.column_mut(k).fill(0.1 * k as f32);
    }
    let maps = cca(&features.moments(), 2, 0.0).unwrap();
    assert!((0..4).all(|k| k == 1 || maps.merge[[1, 4 + k]] == 0.0 && maps.merge[[k, 5]] == 0.0));
    // The larger one is carried.
    assert_eq!((maps.merge[[1, 1]], maps.merge[[1, 5]]), (0.0, 1.0));
    assert!((maps.unmerge[[1, 1]] - 0.2).abs() < 1e-6 && (maps.unmerge[[5, 1]] - 1.0).abs() < 1e-9, "{order:?}");
    (4..8).for_each(|k| features.z.column_mut(k).fill(2.0));
    let maps = cca(&features.moments(), 2, 0.1).unwrap();
    assert!(largest(&(maps.merge.dot(&maps.unmerge) - Array2::<f64>::eye(4))) < 1e-8);
}

#[test]
fn cca_refuses_what_makes_no_sense() {
    let moments = copy_and_order(50, 3, 1).0.moments();
    let refusal = |n_models, gamma| cca(&moments, n_models, gamma).unwrap_err().to_string();
    assert!(refusal(2, -1.0).contains("gamma is -1"));
    assert!(refusal(2, f64::NAN).contains("gamma is NaN"));
    assert!(refusal(1, 0.1).contains("at least 2 models"));
    assert!(refusal(4, 0.1).contains("6 joint features"));
}

/// Joint moments at every point: the copies' features are the first model's, in their own order.
fn moments_of(points: &[MergePoint], copies: &[&[Vec<usize>]], noise: f32, seed: u64) -> Vec<Moments> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let of = |point: &MergePoint| {
        let x = Array2::from_shape_simple_fn((100, point.dim), || rng.random_range(-1.0_f32..1.0));
        let mut z = x.clone();
        for orders in copies {
            let mut copy = x.select(Axis(1), &orders[point.space]);
            copy.mapv_inplace(|x| x + noise * rng.random_range(-1.0..1.0));
            z = concatenate![Axis(1), z, copy];
        }
        Features { n_models: copies.len() + 1, z }.moments()
    };
    points.iter().map(of).collect()
}

/// Without damping: with it, chance within a model would beat the third copy.
const ZIP: Solver = Solver::Zip { alpha: 1.0, beta: 0.5 };

#[test]
fn permuted_copies_are_recovered_in_both_spaces() {
    for (seed, graph) in (1..).zip(zoo().into_iter().filter(|graph| graph.arch != "resnet50")) {
        let spaces = graph.spaces().unwrap();
        let points = graph.merge_points(&spaces);
        let first = model(&graph, seed);
        let [a, b] = [orders(&spaces, 10 + seed), orders(&spaces, 20 + seed)];
        let [second, third] = [permuted(&first, &spaces, &a), permuted(&first, &spaces, &b)];
        let d: Vec<usize> = points.iter().map(|point| point.dim).collect();
        // For one-to-one assignment, activations so noisy that alone they mislead.
        for (rho, solver, noise) in [(1.0, Solver::Permute, 2.0), (0.5, Solver::Permute, 2.0), (0.5, ZIP, 0.5)] {
            let moments = moments_of(&points, &[&a, &b], noise, seed);
            let moments: Vec<_> = moments.iter().collect();
            let matchings = mudsc(&[&first, &second, &third], &points, &moments, rho, solver, &d, seed).unwrap();
            for (point, matching) in points.iter().zip(&matchings) {
                let expected = expected(point.dim, &[&a[point.space], &b[point.space]]);
                assert_eq!(matching.assignment, expected, "{} `{}` {rho} {solver:?}", graph.arch, point.name);
            }
        }
    }
}

#[test]
fn mudsc_refuses_what_makes_no_sense() {
    let graph = oddities();
    let spaces = graph.spaces().unwrap();
    let points = graph.merge_points(&spaces);
    let first = model(&graph, 1);
    let order = orders(&spaces, 2);
    let moments = moments_of(&points, &[&order], 0.0, 1);
    let moments: Vec<_> = moments.iter().collect();
    let d: Vec<usize> = points.iter().map(|point| point.dim).collect();
    let refusal = |moments: &[&Moments], rho, n_groups: &[usize]| {
        mudsc(&[&first, &first], &points, moments, rho, Solver::Permute, n_groups, 0).unwrap_err().to_string()
    };
    assert!(refusal(&moments, 1.5, &d).contains("rho is 1.5"));
    assert!(refusal(&moments, f64::NAN, &d).contains("rho is NaN"));
    assert!(refusal(&moments[1..], 0.5, &d).contains("as many moments"));
    let more: Vec<usize> = d.iter().map(|d| d + 1).collect();
    assert!(refusal(&moments, 0.5, &more).contains("d' = d"));
    let reversed: Vec<_> = moments.iter().rev().copied().collect();
    assert!(refusal(&reversed, 0.5, &d).contains("features for 2 models"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn mudsc_makes_the_groups_that_are_asked_for(
        seed: u64, rho in prop::sample::select(vec![0.0, 0.3, 1.0]), kept in 0.0..=1.0_f64, alpha in prop::sample::select(vec![0.0_f32, 0.3, 1.0]),
    ) {
        let graph = oddities();
        let spaces = graph.spaces().unwrap();
        let points = graph.merge_points(&spaces);
        let [first, second] = [model(&graph, seed), model(&graph, seed.wrapping_add(1))];
        let moments = moments_of(&points, &[&orders(&spaces, seed)], 0.5, seed);
        let moments: Vec<_> = moments.iter().collect();
        let zip = Solver::Zip { alpha, beta: 1.0 };
        let full: Vec<usize> = points.iter().map(|point| point.dim).collect();
        let some: Vec<usize> = full.iter().map(|&d| d + (kept * d as f64) as usize).collect();
        for (solver, n_groups, method) in [
            (Solver::Permute, &full, Method::Permute),
            (zip, &some, Method::Zip { alpha, beta: 1.0 }),
        ] {
            let matchings = mudsc(&[&first, &second], &points, &moments, rho, solver, n_groups, seed).unwrap();
            prop_assert_eq!(matchings.len(), points.len());
            for (((matching, point), &n), moments) in matchings.iter().zip(&points).zip(n_groups).zip(&moments) {
                prop_assert_eq!((matching.n_groups, matching.assignment.len()), (n, 2 * point.dim));
                if rho == 0.0 {
                    prop_assert_eq!(matching, &match_features(&method, *moments, 2, n).unwrap());
                }
            }
            let again = mudsc(&[&first, &second], &points, &moments, rho, solver, n_groups, seed).unwrap();
            prop_assert_eq!(again, matchings);
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    // Spaces of more features than one task takes.
    let graph = ArchSpec::new(Arch::ResNet20, 3.0, 3, [8, 8], 10).build().unwrap();
    let points = graph.merge_points(&graph.spaces().unwrap());
    let [first, second] = [model(&graph, 1), model(&graph, 2)];
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let z = Array2::from_shape_simple_fn((400, 2 * 150), || rng.random_range(-1.0_f32..1.0));
    let moments = Features { n_models: 2, z }.moments();
    let on = |n_threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| {
            let matchings = weight_matching(&[&first, &second], &points, 0).unwrap();
            (matchings, cca(&moments, 2, 0.1).unwrap())
        })
    };
    let one = on(1);
    assert_eq!(one, on(2));
    assert_eq!(one, on(5));
}
