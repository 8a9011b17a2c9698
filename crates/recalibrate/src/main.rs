//! `recalibrate`: a network and unlabelled images in, the network with re-estimated BatchNorm statistics out.

use anyhow::Context;
use clap::Parser;
use std::path::PathBuf;
use zipit::Model;
use zipit::graph::Op;
use zipit::images::ImageBatches;
use zipit::joint::without_gate;
use zipit_artifact::model::{self, ModelFile};
use zipit_data::Split;
use zipit_stage::images::{ImageArgs, tasks_of};
use zipit_stage::{Common, HasCommon, PrecisionArg, Stage};
use zipit_torch::device::libtorch_version;
use zipit_torch::{Device, batch_norm};

/// Images that are too few for statistics without a word.
const FEW: usize = 50;

/// Re-estimate the BatchNorm statistics of a network on unlabelled images.
///
/// Merging averages features, which shrinks their variance; the statistics measured on the merged network itself put
/// that right. Uses the train split unless --split says otherwise, and no labels. Takes any model file.
///
/// Example: recalibrate merged.safetensors --data data/fashion-mnist --images 2000 -o network.safetensors
#[derive(Debug, Parser)]
#[command(name = "recalibrate", version)]
struct Args {
    /// A merged or single network
    model: PathBuf,
    #[command(flatten)]
    images: ImageArgs,
    /// Use images of every class, not only those of the network's tasks (the authors do, for the networks to be merged)
    #[arg(long, conflicts_with = "classes")]
    all_classes: bool,
    #[command(flatten)]
    precision: PrecisionArg,
    /// Where the network runs: cpu, cuda or cuda:i
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// The network to write
    #[arg(long, short, help_heading = zipit_stage::args::OUTPUT)]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

impl HasCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn main() {
    zipit_stage::run(run)
}

fn run(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let mut file: ModelFile = model::read(&args.model)?;
    if file.model.joint.is_some() {
        tracing::warn!(
            "{}: its gate was fitted to other statistics, and is left out: `gate` fits a new one",
            args.model.display()
        );
        file.model = without_gate(&file.model);
    }
    let tasks = if args.all_classes { Vec::new() } else { tasks_of(&[&file.model]) };
    let set = args.images.choose(&tasks, Split::Train)?;
    let mut inputs = vec![file.input_ref()];
    inputs.extend(set.inputs());
    let environment = [("libtorch", libtorch_version().to_owned()), ("images", set.len().to_string())];
    let provenance = stage.provenance(inputs, environment.map(|(k, v)| (k.to_owned(), v)).into());
    let n_layers = n_batch_norms(&file.model);
    let batches =
        set.batches(&file.model.preprocess, args.images.batch_size.map_or(batch_norm::BATCH, |n| n as usize), None);
    let told = format!(
        "statistics of {n_layers} BatchNorm layers from {} unlabelled {} images in {} batches",
        batches.n_images(),
        set.split,
        batches.n_batches()
    );
    if args.common.dry_run {
        return stage.print(&format!("would re-estimate the {told}; would write {}\n", args.out.display()));
    }
    if stage.up_to_date(&args.out, &provenance)? {
        return Ok(());
    }
    if n_layers > 0 && batches.n_images() < FEW {
        tracing::warn!(
            "{} images are few to tell statistics from: the network may come out worse than it was; take hundreds",
            batches.n_images()
        );
    }
    if n_layers == 0 {
        tracing::warn!("{} has no BatchNorm: the network is written as it was", args.model.display());
    }
    let progress = stage.progress("recalibrate", "images", batches.n_images() as u64);
    let network = batch_norm::reset(&file.model, &batches, args.device, &progress)
        .with_context(|| format!("{}", args.model.display()))?;
    drop(progress);
    model::write_as(&args.out, &network, args.precision.given(file.precision), &provenance)?;
    stage.record(&args.out);
    stage.print(&format!("{}: {told}\n", args.out.display()))
}

fn n_batch_norms(model: &Model) -> usize {
    model.graph.nodes.iter().filter(|node| matches!(node.op, Op::BatchNorm2d { .. })).count()
}
