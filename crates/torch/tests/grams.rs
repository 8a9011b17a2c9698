//! Layers solved from second moments that were collected once are the layers solved on the images.
#![allow(clippy::unwrap_used)]

mod networks;

use ndarray::Array4;
use networks::merging::{
    Merge, batches, grams, identity, linear_network, oddities, plan, random, samples, solution, unsolved, values,
    weights, weights_differ,
};
use networks::{images, resnet20};
use std::collections::BTreeMap;
use zipit::Model;
use zipit::refit::{Design, Gram, Layer, Ridge, Solution, Sums, gram, layers, solve};
use zipit_torch::refit::Inputs;

const RIDGE: Ridge = Ridge::Fixed(1e-2);

fn from_grams(merge: &Merge, grams: &BTreeMap<String, Gram>, counts: &[f64]) -> (Model, Vec<Solution>) {
    let graph = &merge.models[0].graph;
    let mut network = merge.grafted.model.clone();
    let mut told = Vec::new();
    for layer in &layers(&merge.grafted, &merge.models(), false) {
        let source = &graph.nodes[layer.source];
        let gram = &grams[source.module.as_deref().unwrap()];
        let node = &mut network.graph.nodes[layer.node];
        let sums = gram::sums(layer, node, source, &merge.models(), gram, counts).unwrap();
        let nothing = Sums::zeros(Design::of(&node.op).unwrap());
        told.push(solve(std::slice::from_mut(node), &mut network.weights, [sums, nothing.clone()], RIDGE).unwrap());
    }
    (network, told)
}

fn check(merge: &Merge, images: &Array4<f32>) {
    let what = &merge.models[0].graph.arch;
    let (network, solved) = merge.refit(&batches(images, 16), weights(Inputs::Layerwise, RIDGE)).unwrap();
    let (found, told) = from_grams(merge, &grams(merge, &batches(images, 16), true), &[1.0; 3]);
    assert!(solved.len() > 1);
    for (solved, told) in solved.iter().zip(&told) {
        let expected = solution(solved);
        assert!((told.before - expected.before).abs() < 1e-4 * (1.0 + told.before), "{what}: {solved:?}, {told:?}");
        assert!((told.after - expected.after).abs() < 1e-4, "{what}: {solved:?}, {told:?}");
    }
    let difference = weights_differ(&found, &network);
    assert!(difference < 1e-4, "{what}: {difference}");
    assert!(weights_differ(&found, &unsolved(merge, &network)) > 0.01, "{what}: something was solved");
}

#[test]
fn joint_moments_are_all_there_is_to_know() {
    let resnets = [1, 2].map(resnet20);
    let graph = &resnets[0].graph;
    let names: Vec<String> = graph.merge_points(&graph.spaces().unwrap()).into_iter().map(|p| p.name).collect();
    let part = |from: usize, to: usize| plan(graph, 2, |name| names[from..to].iter().any(|n| n == name), |_, _, j| j);
    let data = images(60, [1, 8, 8], 3);
    for plan in [identity(graph, 2), random(graph, 2, 1.3, 2), part(0, 6), part(4, 12)] {
        check(&Merge::new(&resnets.each_ref(), plan), &data);
    }
    // Three models; batch normalisation by itself, depthwise, concatenated, flattened over positions.
    let odd = [1, 2, 3].map(oddities);
    for share in [0.7, 1.6] {
        check(&Merge::new(&odd.each_ref(), random(&odd[0].graph, 3, share, 2)), &images(60, [2, 4, 4], 3));
    }
    let linear = [1, 2].map(|seed| linear_network(seed, [1, 2, 3], 2));
    check(&Merge::new(&linear.each_ref(), random(&linear[0].graph, 2, 1.0, 2)), &images(60, [1, 2, 3], 3));
}

/// Each model by itself: the samples of all of them one after the other, each counted as often as its model.
#[test]
fn own_moments_are_those_of_the_models_samples_together() {
    let models = [1, 2].map(|seed| linear_network(seed, [1, 2, 3], 2));
    let merge = Merge::new(&models.each_ref(), identity(&models[0].graph, 2));
    let data = images(50, [1, 2, 3], 3);
    let (found, told) = from_grams(&merge, &grams(&merge, &batches(&data, 16), false), &[1.0, 3.0]);
    let graph = &merge.models[0].graph;
    let mut expected = merge.grafted.model.clone();
    let each: Vec<_> = merge.models.iter().map(|model| values(model, &data)).collect();
    let mut n_shared = 0;
    for (layer, told) in layers(&merge.grafted, &merge.models(), false).iter().zip(told) {
        let Layer { node, source, .. } = *layer;
        let source = &graph.nodes[source];
        let node = &mut expected.graph.nodes[node];
        let mut sums = Sums::zeros(Design::of(&node.op).unwrap());
        for (i, values) in each.iter().enumerate() {
            let [x, y] = [&source.inputs[0], &source.name].map(|name| samples(&values[name]));
            // A head is one model's alone.
            let own = node.name.strip_prefix("models.").map(|rest| rest[..1].parse::<usize>().unwrap());
            if own.is_none_or(|own| own == i) {
                let times = if i == 1 { 3 } else { 1 };
                (0..times).for_each(|_| sums.add_samples(&x, &y));
                n_shared += usize::from(own.is_none());
            }
        }
        let nothing = Sums::zeros(sums.design);
        let solved = solve(std::slice::from_mut(node), &mut expected.weights, [sums, nothing.clone()], RIDGE).unwrap();
        assert!((solved.after - told.after).abs() < 1e-5, "`{}`: {solved:?}, {told:?}", node.name);
    }
    assert_eq!(n_shared, 4, "two layers of two models");
    assert!(weights_differ(&found, &expected) < 1e-4, "{}", weights_differ(&found, &expected));
}

/// Any network can be solved so, whatever is merged how; every number stays finite and no layer gets worse on its own
/// samples.
#[test]
fn own_moments_solve_every_network() {
    let odd = [1, 2, 3].map(oddities);
    let resnets = [1, 2].map(resnet20);
    let graph = &resnets[0].graph;
    let names: Vec<String> = graph.merge_points(&graph.spaces().unwrap()).into_iter().map(|p| p.name).collect();
    let start = plan(graph, 2, |name| names[5..].iter().any(|n| n == name), |_, _, j| j);
    for (merge, shape) in [
        (Merge::new(&odd.each_ref(), random(&odd[0].graph, 3, 1.6, 2)), [2, 4, 4]),
        (Merge::new(&resnets.each_ref(), random(graph, 2, 1.3, 2)), [1, 8, 8]),
        (Merge::new(&resnets.each_ref(), start), [1, 8, 8]),
    ] {
        let (network, told) = from_grams(&merge, &grams(&merge, &batches(&images(60, shape, 3), 16), false), &[]);
        network.validate().unwrap();
        assert!(told.iter().all(|layer| layer.after <= layer.before + 1e-9), "{told:?}");
    }
}

#[test]
fn moments_of_other_layers_are_refused() {
    let models = [1, 2].map(|seed| linear_network(seed, [1, 2, 3], 2));
    let merge = Merge::new(&models.each_ref(), identity(&models[0].graph, 2));
    let grams = grams(&merge, &batches(&images(20, [1, 2, 3], 3), 16), true);
    let graph = &merge.models[0].graph;
    let layer = &layers(&merge.grafted, &merge.models(), false)[0];
    let refusal = |gram: &Gram| {
        let (node, source) = (&merge.grafted.model.graph.nodes[layer.node], &graph.nodes[layer.source]);
        gram::sums(layer, node, source, &merge.models(), gram, &[]).unwrap_err().to_string()
    };
    assert!(refusal(&grams["last"]).contains("`hidden`: moments of 14 numbers, but the models' layers read 32"));
    let own = Gram::Own(vec![zipit::Moments::zeros(16); 3]);
    assert!(refusal(&own).contains("`hidden`: moments of 3 models for 2"));
}
