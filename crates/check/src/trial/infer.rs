//! `recalibrate` and `eval`: one network's forward pass, with the batches' statistics or with its own.

use super::images::{First, Images};
use super::{Taken, Time, models, pace, peak};
use crate::Args;
use std::collections::{BTreeMap, BTreeSet};
use zipit::Graph;
use zipit::graph::Op;
use zipit::watch::Unwatched;
use zipit_artifact::model::ModelFile;
use zipit_data::Split;
use zipit_stage::Stage;
use zipit_torch::{Network, batch_norm, batch_size, evaluate, n_workers};

/// As in the README.
const IMAGES: usize = 2000;
/// Multiply-adds of the largest batch that is tried with its own statistics.
const TRIED: u64 = 30_000_000_000;
/// Images of the smallest that is.
const FEW: usize = 8;

/// The merged network is as one of the models.
pub fn recalibrate(files: &[ModelFile], args: &Args, stage: &Stage) -> anyhow::Result<Taken> {
    let model = &files[0].model;
    let images = Images::choose(&models(files), args, Split::Train, Some(IMAGES))?;
    let fixed = Time::now(stage);
    let whole = args.images.batch_size.map_or(batch_norm::BATCH, |n| n as usize).min(images.len());
    let n_workers = n_workers(args.device, images.len().div_ceil(whole));
    // Where a whole batch takes too long, a smaller one tells.
    let fitting = (TRIED / model.graph.cost()?.macs.max(1)) as usize;
    let size = fitting.max(FEW).min(whole);
    let batches = images.batches(&model.preprocess, size);
    let per_batch = pace(n_workers, batches.n_batches(), stage, |n| {
        batch_norm::reset(model, &First { batches: &*batches, n }, args.device, &Unwatched)?;
        Ok(())
    })?;
    let per_image = per_batch * (1.0 / batches.n_images_in(1) as f64);
    let rest = live(&model.graph)? * (whole - size) * n_workers * size_of::<f32>();
    Ok(Taken { n_images: images.len(), fixed, per_image, memory: peak() + rest as f64, ..Taken::default() })
}

/// Numbers per image that a pass with the batches' statistics holds at most: every value that is still read, and the one
/// that is made; only ReLU works in place.
fn live(graph: &Graph) -> anyhow::Result<usize> {
    let shapes = graph.shapes()?;
    let readers = graph.readers();
    let size = |value: &str| shapes[value].iter().product::<usize>();
    let mut held: BTreeMap<&str, usize> = BTreeMap::from([(graph.input.name.as_str(), size(&graph.input.name))]);
    let mut most = 0;
    for (at, node) in graph.nodes.iter().enumerate() {
        held.insert(&node.name, size(&node.name));
        let now: usize = held.values().sum();
        most = most.max(if matches!(node.op, Op::Relu) { now - size(&node.name) } else { now });
        held.retain(|value, _| {
            graph.outputs.iter().any(|output| output == value)
                || readers.get(value).is_some_and(|all| all.iter().any(|&reader| reader > at))
        });
    }
    Ok(most)
}

/// The models, and the merged network, which is as one of them.
pub fn eval(files: &[ModelFile], args: &Args, stage: &Stage) -> anyhow::Result<Taken> {
    let merged = files[0].clone();
    let n_networks = files.len() + 1;
    let model = &merged.model;
    let images = Images::choose(&models(files), args, Split::Test, None)?;
    let size = args.images.batch_size.map_or_else(|| batch_size(&model.graph, args.device), |n| Ok(n as usize))?;
    let batches = images.batches(&model.preprocess, size);
    let fixed = Time::now(stage);
    let network = Network::folded(model, &BTreeSet::new(), args.device)?;
    let n_batches = batches.n_batches();
    let per_batch = pace(n_workers(args.device, n_batches), n_batches, stage, |n| {
        evaluate::logits(&network, &First { batches: &*batches, n }, &Unwatched)?;
        Ok(())
    })?;
    Ok(Taken {
        n_images: images.len(),
        fixed,
        per_image: per_batch * (n_networks as f64 / batches.n_images_in(1) as f64),
        memory: peak(),
        ..Taken::default()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use zipit::graph::{Arch, ArchSpec};

    #[test]
    fn a_residual_network_holds_a_stream_and_what_a_layer_makes_of_it() {
        let graph = ArchSpec::new(Arch::ResNet18, 1.0, 3, [224, 224], 10).build().unwrap();
        // The first convolution and its BatchNorm, 64 features at half the size each.
        assert_eq!(live(&graph).unwrap(), 2 * 64 * 112 * 112);
        let graph = ArchSpec::new(Arch::ResNet20, 1.0, 1, [28, 28], 10).build().unwrap();
        // The stream, a convolution of it and its BatchNorm.
        assert_eq!(live(&graph).unwrap(), 3 * 16 * 28 * 28);
    }
}
