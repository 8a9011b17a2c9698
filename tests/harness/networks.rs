//! Networks with random weights, and copies of them with every free feature space permuted.

use ndarray::{ArrayD, IxDyn};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zipit::apply::random_orders;
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
        preprocess: Preprocess::new([h, w], vec![0.5; c], vec![0.25; c]),
        joint: None,
    }
}

/// The same function with the features of every free space in another order.
///
/// # Panics
/// When the graph is malformed.
#[must_use]
pub fn permuted(model: &Model, seed: u64) -> Model {
    let orders = random_orders(&model.graph.spaces().expect("a sound graph"), seed);
    zipit::apply::permuted(model, &orders).expect("a sound graph")
}
