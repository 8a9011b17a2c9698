//! Matchings that read the weights, and dense maps from covariances.

use crate::networks::{model, oddities, orders, permuted};
use proptest::prelude::*;
use zipit::graph::{Arch, ArchSpec, Graph, VggHead};
use zipit::matching::Matching;
use zipit::matching::identity::identity;
use zipit::matching::weight::{objective, weight_matching};

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
