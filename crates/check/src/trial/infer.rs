//! `recalibrate` and `eval`: one network's forward pass, with the batches' statistics or with its own.

use super::images::{First, Images};
use super::{Taken, Time, models, pace, peak};
use crate::Args;
use std::collections::BTreeSet;
use zipit::memory::{self, Work};
use zipit::watch::Unwatched;
use zipit_artifact::model::ModelFile;
use zipit_data::Split;
use zipit_stage::Stage;
use zipit_torch::{Network, batch_norm, batch_size, evaluate, n_workers};

/// Images that `recalibrate` takes, as in the README.
pub const IMAGES: usize = 2000;
/// Multiply-adds of the largest batch that is tried with its own statistics.
const TRIED: u64 = 30_000_000_000;
/// Images of the smallest that is.
const FEW: usize = 8;

/// The merged network is as one of the models.
pub fn recalibrate(files: &[ModelFile], args: &Args, stage: &Stage) -> anyhow::Result<Taken> {
    let model = &files[0].model;
    let images = Images::choose(&models(files), args, Split::Train, Some(IMAGES))?.digested();
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
    let of_batches =
        |batch_size| memory::recalibration(&model.graph, Work { n_models: 1, batch_size, n_threads: n_workers });
    let rest = of_batches(whole)?.saturating_sub(of_batches(size)?);
    Ok(Taken { n_images: images.len(), fixed, per_image, memory: peak() + rest as f64, ..Taken::default() })
}

/// The models, and the merged network, which is as one of them.
pub fn eval(files: &[ModelFile], args: &Args, stage: &Stage) -> anyhow::Result<Taken> {
    let merged = files[0].clone();
    let n_networks = files.len() + 1;
    let model = &merged.model;
    let images = Images::choose(&models(files), args, Split::Test, None)?.digested();
    let size = args.images.batch_size.map_or_else(|| batch_size(&model.graph, args.device), |n| Ok(n as usize))?;
    let batches = images.batches(&model.preprocess, size);
    let fixed = Time::now(stage);
    let network = Network::folded(model, &BTreeSet::new(), args.device)?;
    let n_batches = batches.n_batches();
    let per_batch = pace(n_workers(args.device, n_batches), n_batches, stage, |n| {
        evaluate::outputs(&network, &First { batches: &*batches, n }, &Unwatched)?;
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
