//! Networks with random weights, and copies of them with every free feature space permuted.

use ndarray::{ArrayD, Axis, IxDyn};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use zipit::graph::{Segment, Spaces};
use zipit::{Graph, Model, Preprocess, Task};

/// A network of random weights, its BatchNorm statistics made up so that activations stay of order one.
///
/// # Panics
/// When the graph is malformed.
#[must_use]
pub fn random_model(graph: &Graph, seed: u64, task: &str, classes: &[&str]) -> Model {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = move || (0..6).map(|_| rng.random_range(-1.0f32..1.0)).sum::<f32>() * 0.707;
    let weights = graph
        .params()
        .into_iter()
        .map(|(name, param)| {
            let fan_in: usize = param.shape.iter().skip(1).product();
            let scale = (2.0 / fan_in.max(1) as f32).sqrt();
            let tensor = ArrayD::from_shape_simple_fn(IxDyn(&param.shape), || match (param.name, param.shape.len()) {
                ("running_var", _) => 1.0 + 0.3 * normal().tanh(),
                ("weight", 1) => 1.0 + 0.2 * normal().tanh(),
                ("weight", _) => scale * normal(),
                _ => 0.2 * normal(),
            });
            (name, tensor)
        })
        .collect();
    let [c, h, w] = graph.input.shape[..] else { panic!("an image goes in") };
    Model {
        graph: graph.clone(),
        weights,
        tasks: vec![Task { name: task.to_owned(), classes: classes.iter().map(|&c| c.to_owned()).collect() }],
        preprocess: Preprocess { size: [h, w], resize: None, mean: vec![0.5; c], std: vec![0.25; c] },
        joint: None,
    }
}

/// The same function with the features of every free space in another order.
///
/// # Panics
/// When the graph is malformed.
#[must_use]
pub fn permuted(model: &Model, seed: u64) -> Model {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let spaces = model.graph.spaces().expect("a sound graph");
    let orders: Vec<Vec<usize>> = spaces
        .spaces
        .iter()
        .map(|space| {
            let mut order: Vec<usize> = (0..space.dim).collect();
            if space.fixed.is_none() {
                order.shuffle(&mut rng);
            }
            order
        })
        .collect();
    let mut copy = model.clone();
    for node in &model.graph.nodes {
        let Some(module) = &node.module else { continue };
        let outputs = positions(&spaces, &orders, &node.name);
        let inputs = positions(&spaces, &orders, &node.inputs[0]);
        for param in node.op.params() {
            let tensor = copy.weights.get_mut(&format!("{module}.{}", param.name)).expect("a complete network");
            *tensor = tensor.select(Axis(0), &outputs);
            if tensor.ndim() > 1 && tensor.shape()[1] == inputs.len() {
                *tensor = tensor.select(Axis(1), &inputs);
            }
        }
    }
    copy
}

/// Where each entry of a value's feature axis comes from.
fn positions(spaces: &Spaces, orders: &[Vec<usize>], value: &str) -> Vec<usize> {
    let axes: &BTreeMap<String, Vec<Segment>> = &spaces.axes;
    let mut start = 0;
    let mut all = Vec::new();
    for segment in &axes[value] {
        let order = &orders[segment.space];
        all.extend(order.iter().flat_map(|&f| (0..segment.repeat).map(move |r| start + f * segment.repeat + r)));
        start += order.len() * segment.repeat;
    }
    all
}
