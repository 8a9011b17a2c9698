//! What merged networks compute.

use super::graphs::{convolutional, dense, modern, oddities, zoo};
use super::networks::{duplicated, duplication, identity, image, model, plan, rng, thicken, with_heads};
use crate::Model;
use crate::apply::{Heads, apply, permuted, random_orders, reference::logits};
use crate::budget::MacModel;
use crate::graph::{Graph, Space, Spaces};
use crate::plan::Plan;
use proptest::prelude::*;
use rand::RngExt;
use std::collections::BTreeMap;

/// Largest difference between the merged network's outputs and the models' own, model by model.
fn error(merged: &Model, models: &[&Model]) -> f64 {
    let x = image(&models[0].graph, 99);
    let own: Vec<f64> = models.iter().flat_map(|m| logits(m, &x).concat()).collect();
    let ours = logits(merged, &x).concat();
    assert_eq!(ours.len(), own.len(), "an output for every output");
    assert!(own.iter().any(|y| y.abs() > 1e-3), "a network that says something");
    ours.iter().zip(&own).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn nothing_merged_is_the_ensemble_exactly() {
    for graph in [zoo(), modern(), dense()].concat() {
        let models = [1, 2, 3].map(|seed| model(&graph, seed));
        let models: Vec<&Model> = models.iter().collect();
        let merged = apply(&models, &identity(&graph, 3, |_| false), Heads::Separate).unwrap();
        // Shuffled features stand in another order, in which sums round otherwise.
        let bound = if ["shuffled", "features"].contains(&graph.arch.as_str()) { 1e-12 } else { 0.0 };
        assert!(error(&merged, &models) <= bound, "{}", graph.arch);
    }
}

#[test]
fn identity_is_weight_averaging_exactly() {
    for graph in zoo() {
        let models = [1, 2, 3].map(|seed| model(&graph, seed));
        let merged = apply(&models.each_ref(), &identity(&graph, 3, |_| true), Heads::Merge).unwrap();
        if graph.arch == "oddities" {
            // Its input's own batch normalisation is not merged, and the dead end is gone.
            assert!(merged.weights.contains_key("models.2.net.bn0.weight"));
            assert!(!merged.weights.contains_key("net.dead.weight"));
            continue;
        }
        assert_eq!(merged.graph.nodes, graph.nodes);
        for (name, tensor) in &merged.weights {
            for (at, &x) in tensor.indexed_iter() {
                let sum: f64 = models.iter().map(|m| f64::from(m.weights[name][&at])).sum();
                assert_eq!(x, (sum / 3.0) as f32, "{} {name}", graph.arch);
            }
        }
    }
}

#[test]
fn dense_maps_that_average_are_averages() {
    for graph in zoo() {
        let models = [1, 2].map(|seed| model(&graph, seed));
        // Every third point stays separate, so that all kinds of borders are met.
        let mut at = 0;
        let sparse = identity(&graph, 2, |_| {
            at += 1;
            at % 3 != 0
        });
        let mut dense = sparse.clone();
        for point in &mut dense.points {
            (point.merge, point.unmerge) = (Some(point.merge_matrix()), Some(point.unmerge_matrix()));
        }
        let [sparse, dense] = [sparse, dense].map(|plan| apply(&models.each_ref(), &plan, Heads::Separate).unwrap());
        assert_eq!(sparse.graph, dense.graph);
        for (name, tensor) in &sparse.weights {
            let largest = (tensor - &dense.weights[name]).iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            assert!(largest <= 1e-6, "{} {name}: {largest}", graph.arch);
        }
    }
}

#[test]
fn full_zip_costs_one_trunk_and_n_heads() {
    let graph = &zoo()[0];
    let models = [1, 2].map(|seed| model(graph, seed));
    let merged = apply(&models.each_ref(), &identity(graph, 2, |_| true), Heads::Separate).unwrap();
    let [one, two] = [graph.cost().unwrap(), merged.graph.cost().unwrap()];
    let head = graph.nodes.last().unwrap().op.params();
    let n = |i: usize| head[i].shape.iter().product::<usize>() as u64;
    assert_eq!(two.macs, one.macs + n(0));
    assert_eq!(two.params, one.params + n(0) + n(1));
    assert_eq!(merged.graph.outputs, ["models.0.linear", "models.1.linear"]);
}

#[test]
fn inner_outputs_are_each_models_own_in_its_order() {
    for graph in dense() {
        let models = [1, 2].map(|seed| model(&graph, seed));
        let merged = apply(&models.each_ref(), &identity(&graph, 2, |_| true), Heads::Separate).unwrap();
        let x = image(&graph, 99);
        let found = logits(&merged, &x);
        let own = models.each_ref().map(|model| logits(model, &x)).concat();
        // What no merged feature stands before is the models' own to the last digit but the order of sums.
        let exact = ["pooled", "shuffled"].map(|name| graph.outputs.iter().position(|output| output == name));
        for at in exact.into_iter().flatten() {
            for k in [at, at + graph.outputs.len()] {
                assert!(found[k].iter().zip(&own[k]).all(|(a, b)| (a - b).abs() < 1e-12), "{} {k}", graph.arch);
            }
        }
        let shapes = merged.graph.output_shapes().unwrap();
        assert_eq!(shapes, [graph.output_shapes().unwrap(), graph.output_shapes().unwrap()].concat(), "{}", graph.arch);
    }
}

#[test]
fn a_merged_model_can_be_merged_again() {
    for graph in [&zoo()[0], &oddities(), &dense()[0], &dense()[1]] {
        let spaces = graph.spaces().unwrap();
        let points: Vec<String> = graph.merge_points(&spaces).into_iter().map(|p| p.name).collect();
        let half = points.len() / 2;
        for selected in [&points[..half], &points[half..], &points[half.min(1)..half], &points[..0]] {
            // Two pairs of equal models; each pair is merged partially, then both results with each other.
            let one = model(graph, 7);
            let pair = apply(&[&one, &one], &identity(graph, 2, |p| selected.contains(&p.to_owned())), Heads::Separate);
            let pair = pair.unwrap();
            for stride in [1, 2, 100] {
                let mut n = 0;
                let chosen = |_: &str| {
                    n += 1;
                    n % stride == 0
                };
                let four = apply(&[&pair, &pair], &identity(&pair.graph, 2, chosen), Heads::Separate).unwrap();
                assert_eq!(four.tasks.len(), 4 * graph.outputs.len());
                let difference = error(&four, &[&one; 4]);
                assert!(difference < 1e-5, "{} {selected:?} {stride}: {difference}", graph.arch);
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let graph = &zoo()[3];
    let models = [1, 2].map(|seed| model(graph, seed));
    let mut plan = identity(graph, 2, |_| true);
    thicken(&mut plan, 5, |_, _| 0);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| apply(&models.each_ref(), &plan, Heads::Separate).unwrap())
    };
    assert_eq!(with(1), with(5));
}

/// d' of every space that is merged.
fn planned_widths(plan: &Plan, spaces: &Spaces) -> Vec<Option<usize>> {
    let planned = |space: &Space| plan.points.iter().find(|point| point.name == space.name);
    spaces.spaces.iter().map(|space| planned(space).map(|point| point.n_groups)).collect()
}

fn arbitrary_graph() -> impl Strategy<Value = Graph> {
    prop::sample::select(zoo())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Permuted copies of one network, matched by the true permutations in any set of spaces, compute its function.
    #[test]
    fn permuted_copies_give_the_function_back(
        graph in prop::sample::select([zoo(), modern(), dense(), dense()].concat()), n in 2..4_usize, seed in any::<u64>(), density in 0.0..1.5_f64,
    ) {
        let spaces = graph.spaces().unwrap();
        let original = model(&graph, seed);
        let origins: Vec<_> = (0..n).map(|i| random_orders(&spaces, seed ^ (i as u64 + 1))).collect();
        let models: Vec<Model> = origins.iter().map(|o| permuted(&original, o).unwrap()).collect();
        let models: Vec<&Model> = models.iter().collect();
        prop_assert!(error(&original, &[models[0]]) < 1e-9);
        let mut coin = rng(seed);
        let plan = plan(&graph, n, |_| coin.random_bool(density.min(1.0)), |s, i, j| origins[i][s][j]);
        let merged = apply(&models, &plan, Heads::Separate).unwrap();
        let difference = error(&merged, &models);
        prop_assert!(difference < 1e-5, "{} {difference}", graph.arch);
        if dense().contains(&graph) {
            let macs = MacModel::new(&graph, &spaces, &[], n).unwrap();
            prop_assert_eq!(macs.macs(&planned_widths(&plan, &spaces)), merged.graph.cost().unwrap().macs, "{}", graph.arch);
        }
    }

    /// Heads are each model's own: of any width and number, with a bias or without, under any name.
    #[test]
    fn heads_may_differ(
        graph in prop::sample::select([zoo(), modern(), vec![convolutional(), dense().swap_remove(0)]].concat()),
        widths in prop::collection::vec(1..5_usize, 1..4), first in any::<bool>(), seed in any::<u64>(),
        density in 0.0..1.5_f64,
    ) {
        let other = with_heads(&graph, &widths);
        let mut graphs = [&graph, &other, &graph];
        graphs.rotate_left(usize::from(first));
        let trunk = model(&graph, seed).weights;
        let (models, origins): (Vec<Model>, Vec<_>) = (graphs.iter().zip(1..))
            .map(|(graph, i)| {
                let mut own = model(graph, seed ^ i);
                let shared: Vec<_> = trunk.iter().filter(|(name, _)| other.params().contains_key(*name)).collect();
                own.weights.extend(shared.into_iter().map(|(name, tensor)| (name.clone(), tensor.clone())));
                let spaces = graph.spaces().unwrap();
                let orders = random_orders(&spaces, seed ^ i);
                let by_name: BTreeMap<String, Vec<usize>> =
                    spaces.spaces.iter().map(|space| space.name.clone()).zip(orders.clone()).collect();
                (permuted(&own, &orders).unwrap(), by_name)
            })
            .unzip();
        let models: Vec<&Model> = models.iter().collect();
        let spaces = graphs[0].spaces().unwrap();
        let mut coin = rng(seed);
        let label = |s: usize, i: usize, j: usize| origins[i][&spaces.spaces[s].name][j];
        let plan = plan(graphs[0], 3, |_| coin.random_bool(density.min(1.0)), label);
        let merged = apply(&models, &plan, Heads::Separate).unwrap();
        let difference = error(&merged, &models);
        prop_assert!(difference < 1e-5, "{} {difference}", graph.arch);
        // It costs what was foreseen.
        let widths = planned_widths(&plan, &spaces);
        let others: Vec<Graph> = graphs[1..].iter().map(|graph| (*graph).clone()).collect();
        let macs = MacModel::new(graphs[0], &spaces, &others, 3).unwrap();
        // Surgery drops the dead end of this one.
        if graph.arch != "oddities" {
            prop_assert_eq!(macs.macs(&widths), merged.graph.cost().unwrap().macs, "{}", graph.arch);
        }
    }

    /// Features that are equal may be merged or kept apart (d' below and above d), and read back by any U.
    #[test]
    fn equal_features_may_be_grouped_in_any_way(
        graph in arbitrary_graph(), n in 2..4_usize, seed in any::<u64>(), density in 0.3..1.5_f64, dense in any::<bool>(),
    ) {
        let spaces = graph.spaces().unwrap();
        let origins = duplication(&spaces, seed);
        let one = duplicated(&model(&graph, seed), &spaces, &origins);
        let models = vec![&one; n];
        let mut coin = rng(seed);
        let mut choice = rng(!seed);
        // Equal features, sometimes in two groups.
        let label = |s: usize, _: usize, j: usize| 2 * origins[s][j] + usize::from(coin.random_bool(0.3));
        let mut plan = plan(&graph, n, |_| choice.random_bool(density.min(1.0)), label);
        if dense {
            let space_of = |name: &str| spaces.spaces.iter().position(|s| s.name == name).unwrap();
            thicken(&mut plan, seed, |name, k| {
                let origin = &origins[space_of(name)];
                origin[k % origin.len()]
            });
        }
        let merged = apply(&models, &plan, Heads::Separate).unwrap();
        let difference = error(&merged, &models);
        prop_assert!(difference < 1e-5, "{} {difference}", graph.arch);
    }
}
