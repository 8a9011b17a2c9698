//! A network's first weights, from a seed and nothing else: the same on every machine.

use crate::Result;
use ndarray::{ArrayD, IxDyn};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zipit::graph::Op;
use zipit::{Graph, StateDict};

/// Weights drawn as He et al. (2015) do: convolutions and linear layers from N(0, 2 / `fan_in`), biases 0; norms
/// start as the identity (weight 1, bias 0, mean 0, variance 1), learned tokens and position embeddings at 0.
///
/// # Errors
/// A malformed graph.
pub fn initialise(graph: &Graph, seed: u64) -> Result<StateDict> {
    graph.shapes()?;
    let mut weights = StateDict::new();
    for (stream, node) in graph.nodes.iter().enumerate() {
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
                (Op::BatchNorm2d { .. }, "weight" | "running_var")
                | (
                    Op::LayerNorm { .. } | Op::GroupNorm { .. } | Op::PowerMeanNorm { .. } | Op::LayerScale { .. },
                    "weight",
                ) => ArrayD::ones(shape),
                _ => ArrayD::zeros(shape),
            };
            weights.entry(node.tensor(param.name)).or_insert(tensor);
        }
    }
    Ok(weights)
}

/// A draw from N(0, 1) by Box and Muller's transform.
pub(crate) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (radius, angle): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use zipit::graph::{ArchSpec, arch::Arch};

    fn weights(seed: u64) -> StateDict {
        initialise(&ArchSpec::new(Arch::ResNet20, 1.0, 1, [28, 28], 5).build().unwrap(), seed).unwrap()
    }

    #[test]
    fn every_layer_starts_with_its_own_variance() {
        let weights = weights(1);
        for (name, fan_in) in [("layer3.2.conv2.weight", 64.0 * 9.0), ("layer1.0.conv1.weight", 16.0 * 9.0)] {
            let w = &weights[name];
            let n = w.len() as f32;
            let mean = w.sum() / n;
            let variance = w.mapv(|x| (x - mean).powi(2)).sum() / n;
            assert!((variance * fan_in / 2.0 - 1.0).abs() < 0.1, "{name}: variance {variance}");
            assert!(mean.abs() < 4.0 * (variance / n).sqrt(), "{name}: mean {mean}");
        }
        assert_eq!(weights["bn1.weight"], ArrayD::<f32>::ones(IxDyn(&[16])));
        assert_eq!(weights["bn1.running_var"], ArrayD::<f32>::ones(IxDyn(&[16])));
        assert_eq!(weights["linear.bias"], ArrayD::<f32>::zeros(IxDyn(&[5])));
    }

    /// Layers of one shape must not start alike, and seeds must keep their meaning from version to version.
    #[test]
    fn seeds_and_layers_differ() {
        let (one, two) = (weights(1), weights(2));
        assert_eq!(one, weights(1));
        assert_ne!(one["conv1.weight"], two["conv1.weight"]);
        assert_ne!(one["layer1.0.conv1.weight"], one["layer1.0.conv2.weight"]);
        let first: Vec<f32> = one["conv1.weight"].iter().take(3).copied().collect();
        let expected = [0.418_679_33, 0.121_664_74, -0.094_334_476];
        assert!(first.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{first:?}");
    }
}
