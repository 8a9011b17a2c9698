//! Random directions among a network's outputs, and what a change of its values does along them.

use crate::convert::to_tensor;
use crate::forward::Run;
use crate::initialise::normal;
use crate::{Device, Result};
use ndarray::{Array4, ArrayD, ArrayView3, Axis, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;
use zipit::Model;

/// Random directions, drawn for every image from a seed and from the image itself: the same whatever batch or shard it is
/// in, and for all networks that have an output of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probes {
    seed: u64,
    /// For each network and output, whether it is logits: they say the same when all of them grow alike.
    logits: Vec<Vec<bool>>,
}

impl Probes {
    /// For so many models; outputs that name classes, and a gate's, are logits.
    #[must_use]
    pub fn new(seed: u64, models: &[&Model]) -> Self {
        let names = |model: &&Model| {
            let is_logits = |at: usize| model.tasks.get(at).is_none_or(|task| !task.classes.is_empty());
            (0..model.graph.outputs.len()).map(is_logits).collect()
        };
        Self { seed, logits: models.iter().map(names).collect() }
    }

    /// r of every image for an output of `shape` `[B, K, …]`: standard normal, of logits less their mean over K > 1.
    fn draw(&self, images: &Array4<f32>, output: usize, shape: &[i64], logits: bool) -> ArrayD<f32> {
        let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
        let mut probes = ArrayD::zeros(IxDyn(&shape));
        for (image, mut own) in images.outer_iter().zip(probes.outer_iter_mut()) {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&self.seed.to_le_bytes());
            key[8..16].copy_from_slice(&content(image).to_le_bytes());
            key[16..24].copy_from_slice(&(output as u64).to_le_bytes());
            let mut rng = ChaCha8Rng::from_seed(key);
            own.iter_mut().for_each(|r| *r = normal(&mut rng) as f32);
            let centred = logits && own.shape().first().is_some_and(|&k| k > 1);
            if let Some(mean) = centred.then(|| own.mean_axis(Axis(0))).flatten() {
                own -= &mean;
            }
        }
        probes
    }

    /// ∂(r·outputs)/∂y for each of the values y, in network i's `run`, which has run to its end: `[B, …]` as the values.
    ///
    /// # Errors
    /// What LibTorch refuses; a value that was not traced.
    pub(crate) fn gradients(
        &self,
        i: usize,
        run: &Run<'_>,
        outputs: &[String],
        values: &[&str],
        images: &Array4<f32>,
        device: Device,
    ) -> Result<Vec<Tensor>> {
        let values: Vec<&Tensor> = values.iter().map(|name| run.value(name)).collect::<Result<_>>()?;
        let along = |(at, name): (usize, &String)| -> Result<Option<Tensor>> {
            let made = run.value(name)?;
            if !made.requires_grad() {
                return Ok(None);
            }
            let probes = self.draw(images, at, &made.size(), self.logits[i][at]);
            Ok(Some(made.f_mul(&to_tensor(&probes, device)?)?.f_sum(None)?))
        };
        let along = tch::with_grad(|| outputs.iter().enumerate().map(along).collect::<Result<Vec<_>>>())?;
        let along: Vec<Tensor> = along.into_iter().flatten().collect();
        if along.is_empty() {
            return Ok(values.iter().map(|value| value.f_zeros_like()).collect::<Result<_, _>>()?);
        }
        let found = Tensor::f_run_backward(&along, &values, false, false)?;
        let reached = |(gradient, value): (Tensor, &&Tensor)| {
            if gradient.defined() { Ok(gradient) } else { value.f_zeros_like() }
        };
        Ok(found.into_iter().zip(&values).map(reached).collect::<Result<_, _>>()?)
    }
}

/// A number that images of other content do not share, but for chance (FNV-1a of the bits).
pub(crate) fn content(image: ArrayView3<'_, f32>) -> u64 {
    image.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, pixel| {
        (hash ^ u64::from(pixel.to_bits())).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Network;
    use crate::convert::to_array;
    use crate::forward::Statistics;
    use crate::initialise::initialise;
    use std::collections::BTreeSet;
    use zipit::graph::{Arch, ArchSpec};
    use zipit::{Preprocess, Task};

    /// Before the last ReLU the logits are W mean(relu(y)) + b, so that r·logits has the gradient (Wᵀ r) / positions where
    /// y > 0.
    #[test]
    fn gradients_are_those_of_the_logits_along_the_probes() {
        let graph = ArchSpec::new(Arch::ResNet20, 0.25, 1, [8, 8], 3).build().unwrap();
        let weights = initialise(&graph, 1).unwrap();
        let task = Task { name: "t".into(), classes: ["a", "b", "c"].map(str::to_owned).to_vec() };
        let preprocess = Preprocess::new([8, 8], vec![0.5], vec![0.5]);
        let model = Model { graph, weights, tasks: vec![task], preprocess, joint: None };
        let points = model.graph.merge_points(&model.graph.spaces().unwrap());
        let place = model.graph.places(points.last().unwrap()).unwrap().pop().unwrap();
        let names: BTreeSet<String> = [place.read.value, place.made.value.clone()].into();
        let network = Network::traced(&model, &names, &[place.made.value.clone()].into(), Device::Cpu).unwrap();
        let probes = Probes::new(5, &[&model]);
        let images =
            Array4::from_shape_fn((3, 1, 8, 8), |(b, _, y, x)| ((b * 31 + y * 7 + x * x) % 11) as f32 / 3.0 - 1.0);
        let _no_grad = tch::no_grad_guard();
        let mut run = network.start(network.input(&images).unwrap(), Statistics::Running);
        run.advance_to(network.graph().nodes.len()).unwrap();
        let values = [place.made.value.as_str()];
        let outputs = &network.graph().outputs;
        let found = probes.gradients(0, &run, outputs, &values, &images, Device::Cpu).unwrap();
        let found = to_array(&found[0]).unwrap();
        let made = to_array(run.value(&place.made.value).unwrap()).unwrap();
        let r = probes.draw(&images, 0, &[3, 3], true);
        let head = &model.weights[&model.graph.nodes.last().unwrap().tensor("weight")];
        let (width, positions) = (made.shape()[1], made.shape()[2] * made.shape()[3]);
        assert!(made.iter().any(|y| *y > 0.0) && made.iter().any(|y| *y <= 0.0));
        for (at, &g) in found.indexed_iter() {
            let (b, k) = (at[0], at[1]);
            assert!(k < width);
            let along: f32 = (0..3).map(|c| r[[b, c]] * head[[c, k]]).sum();
            let expected = if made[at.clone()] > 0.0 { along / positions as f32 } else { 0.0 };
            assert!((g - expected).abs() < 1e-6, "{at:?}: {g} instead of {expected}");
        }
    }

    #[test]
    fn probes_belong_to_their_image() {
        let probes = Probes { seed: 3, logits: vec![vec![true]] };
        let images = Array4::from_shape_fn((2, 1, 2, 2), |(b, _, y, x)| (b * 7 + y * 2 + x) as f32);
        let r = probes.draw(&images, 0, &[2, 5], true);
        let turned = images.select(Axis(0), &[1, 0]);
        assert_eq!(probes.draw(&turned, 0, &[2, 5], true), r.select(Axis(0), &[1, 0]));
        assert!(r.sum_axis(Axis(1)).iter().all(|sum| sum.abs() < 1e-5));
        assert_ne!(probes.draw(&images, 1, &[2, 5], true), r);
        // One number has no others to be compared with, and features are no logits.
        assert!(probes.draw(&images, 0, &[2, 1], true).iter().all(|r| *r != 0.0));
        assert!(probes.draw(&images, 0, &[2, 5], false).sum_axis(Axis(1)).iter().all(|sum| sum.abs() > 1e-5));
    }
}
