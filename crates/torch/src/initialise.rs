//! A network's first weights, from a seed and nothing else: the same on every machine.

use crate::Result;
use ndarray::{ArrayD, IxDyn};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zipit::graph::Op;
use zipit::{Graph, StateDict};

/// Weights drawn as He et al. (2015) do: convolutions and linear layers from N(0, 2 / `fan_in`), biases 0; BatchNorm
/// starts as the identity (weight 1, bias 0, mean 0, variance 1).
///
/// # Errors
/// A malformed graph.
pub fn initialise(graph: &Graph, seed: u64) -> Result<StateDict> {
    graph.shapes()?;
    let mut weights = StateDict::new();
    for (stream, node) in graph.nodes.iter().enumerate() {
        let Some(module) = &node.module else { continue };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream as u64);
        for param in node.op.params() {
            let shape = IxDyn(&param.shape);
            let fan_in: usize = param.shape[1..].iter().product();
            let tensor = match (&node.op, param.name) {
                (Op::Conv2d { .. } | Op::Linear { .. }, "weight") => {
                    let scale = (2.0 / fan_in as f64).sqrt();
                    ArrayD::from_shape_simple_fn(shape, || (scale * normal(&mut rng)) as f32)
                }
                (Op::BatchNorm2d { .. }, "weight" | "running_var") => ArrayD::ones(shape),
                _ => ArrayD::zeros(shape),
            };
            weights.entry(format!("{module}.{}", param.name)).or_insert(tensor);
        }
    }
    Ok(weights)
}

/// A draw from N(0, 1) by Box and Muller's transform.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (radius, angle): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}
