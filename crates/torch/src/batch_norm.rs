//! BatchNorm statistics, estimated anew: what a merged network needs before it works.

use crate::convert::to_array;
use crate::forward::{Network, Statistics, load};
use crate::parallel::{Failure, InOrder, all_batches, n_workers, read, replicas};
use crate::{Device, Error, Result};
use ndarray::ArrayD;
use std::collections::BTreeMap;
use zipit::graph::{Node, Op};
use zipit::images::ImageBatches;
use zipit::watch::Watch;
use zipit::{Graph, Model};

/// Images whose statistics are taken together, unless told otherwise. Part of the result, so it does not follow the machine.
pub const BATCH: usize = 250;

/// The model with every BatchNorm's `running_mean` and `running_var` measured on unlabelled images.
///
/// Each batch runs through the whole network (all heads of it) normalised by the batch's own statistics, and these are
/// averaged, weighted by the batch's number of images: the exact cumulative average, PyTorch's `momentum=None` on
/// batches of equal size. As in PyTorch, `running_var` averages *unbiased* variances (divided by B·H·W − 1). Every
/// BatchNorm sees every image; a head is not restricted to its own task's images, because the images have no labels.
/// The result is the same for any number of threads, but not for another batch size.
///
/// A model without BatchNorm comes back as it was.
///
/// # Errors
/// Images that cannot be read or do not fit, a batch with a single value per channel, statistics that are not finite,
/// or [`zipit::Error::Interrupted`].
pub fn reset(model: &Model, batches: &dyn ImageBatches, device: Device, watch: &dyn Watch) -> Result<Model> {
    let norms = norms(&model.graph)?;
    if norms.is_empty() {
        return Ok(model.clone());
    }
    if batches.n_batches() == 0 {
        return Err(Error::Request("there are no images to measure BatchNorm statistics on".into()));
    }
    let network = Network::new(model, device)?;
    let n_batches = batches.n_batches();
    let buffers: Vec<String> =
        norms.iter().flat_map(|(node, _)| [node.tensor("running_mean"), node.tensor("running_var")]).collect();
    let workers = replicas(&network, n_workers(device, n_batches));
    let average = InOrder::new(0, Average::default());
    let failure = Failure::default();
    all_batches(workers, n_batches, watch, &failure, |network, batch| {
        let images = read(batches, batch)?;
        let n_images = images.shape()[0];
        for (node, n_positions) in &norms {
            if n_images * n_positions < 2 {
                return Err(Error::Request(format!(
                    "batch {batch} has one image and `{}` one position: a single value has no variance; use \
                     larger batches",
                    node.name
                )));
            }
        }
        // Each batch gets buffers of its own; with momentum 1 they hold that batch's statistics alone.
        for name in &buffers {
            network.set_tensor(name, load(&ArrayD::zeros(model.weights[name].raw_dim()), device)?);
        }
        network.start(network.input(&images)?, Statistics::Batch { momentum: 1.0 }).outputs()?;
        let found: Vec<ArrayD<f32>> =
            buffers.iter().map(|name| to_array(network.tensor(name))).collect::<Result<_>>()?;
        if let Some(i) = found.iter().position(|values| values.iter().any(|x| !x.is_finite())) {
            return Err(Error::NotFinite(format!(
                "batch {batch}: `{}` came out as NaN or infinity; check the model's weights",
                buffers[i]
            )));
        }
        average.hand_in(batch, (found, n_images), &failure, |average, (found, n_images)| {
            average.add(&buffers, &found, n_images as f64);
            Ok(())
        })?;
        Ok(n_images as u64)
    })?;
    let mut reset = model.clone();
    let Average { weight, sums } = average.into_inner();
    for (name, sum) in sums {
        reset.weights.insert(name, sum.mapv(|x| (x / weight) as f32));
    }
    Ok(reset)
}

/// Each BatchNorm and its number of positions (H·W).
fn norms(graph: &Graph) -> Result<Vec<(&Node, usize)>> {
    let shapes = graph.shapes()?;
    let norms = graph.nodes.iter().filter(|node| matches!(node.op, Op::BatchNorm2d { .. }));
    Ok(norms.map(|node| (node, shapes[node.name.as_str()][1..].iter().product())).collect())
}

/// Σ B·statistic and Σ B.
#[derive(Default)]
struct Average {
    weight: f64,
    sums: BTreeMap<String, ArrayD<f64>>,
}

impl Average {
    fn add(&mut self, names: &[String], batch: &[ArrayD<f32>], weight: f64) {
        self.weight += weight;
        for (name, values) in names.iter().zip(batch) {
            let sum = self.sums.entry(name.clone()).or_insert_with(|| ArrayD::zeros(values.raw_dim()));
            sum.zip_mut_with(values, |sum, &value| *sum += weight * f64::from(value));
        }
    }
}
