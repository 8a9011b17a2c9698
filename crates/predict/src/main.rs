//! `predict`: a network and images in; what it says of them, or what it takes them for, out.

mod arrays;
mod choice;
mod dataset;

use anyhow::{Context, anyhow, bail};
use clap::Parser;
use ndarray::ArrayD;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use zipit::Model;
use zipit::images::ImageBatches;
use zipit_data::Split;
use zipit_stage::images::{ImageArgs, ImageSet};
use zipit_stage::{Common, Given, HasCommon, Stage, Usage};
use zipit_torch::{Device, Network, batch_size, evaluate};

/// Run a network on images: its outputs as arrays, or predictions for a data set.
///
/// With --images, an array [B, C, H, W] of preprocessed images, the output of every task, of whatever shape, goes under its
/// name into an .npz archive that NumPy opens (a gate's as `gate`). With --data, every image of the data set, read as in the
/// other stages, gets a line of CSV: its class as the data set has it, for each task that classifies images the likeliest
/// class and its probability, and the joint choice over them if the network has a rule for it (see `gate`); if the output
/// is called .npz, the arrays are written instead, images in the data set's order. Of masked networks each task's output is that of
/// its own network.
///
/// Example: predict network.safetensors --data data/fashion-mnist -o predictions.csv
#[derive(Debug, Parser)]
#[command(name = "predict", version)]
struct Args {
    /// A merged or single network, or masked networks
    model: PathBuf,
    /// Of masked networks (`combine --rule emr`): only the network of this task [default: of every task its own]
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Preprocessed images as numpy.save wrote them: float32 or float64, [B, C, H, W]
    #[arg(long, value_name = "NPY", requires = "out", conflicts_with_all = ["data", "split"])]
    images: Option<PathBuf>,
    /// A data set: class folders of images, IDX, CIFAR's or STL-10's files, or an HDF5 file; may be given several times
    #[arg(long, value_name = "PATH")]
    data: Vec<PathBuf>,
    /// Of the data set: train, val (every tenth training image, which `train` leaves out) or test [default: test]
    #[arg(long)]
    split: Option<Split>,
    /// Images per batch [default: what is fastest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    batch_size: Option<u64>,
    /// Where the network runs: cpu, cuda or cuda:i
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// The .npz file to write, or with --data the .csv file, or .npz for arrays [default: CSV to stdout]
    #[arg(long, short, help_heading = zipit_stage::args::OUTPUT)]
    out: Option<PathBuf>,
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
    if args.images.is_none() && args.data.is_empty() {
        return Err(Usage("what is to be predicted? give --images or --data".to_owned()).into());
    }
    let file = Given::read(&args.model)?;
    if let Some(out) = &args.out {
        stage.may_replace(out)?;
    }
    match (&args.images, &args.out) {
        (Some(images), Some(out)) => arrays::of_array(args, stage, &file, images, out),
        (None, Some(out)) if out.extension().is_some_and(|ending| ending == "npz") => {
            arrays::of_data(args, stage, &file, out)
        }
        _ => dataset::predict(args, stage, &file),
    }
}

impl Args {
    /// Which of the file's networks are run.
    fn chosen(&self, file: &Given) -> anyhow::Result<Range<usize>> {
        let path = file.path().display();
        match (&self.task, file) {
            (None, _) => Ok(0..file.n_networks()),
            (Some(task), Given::Masked(masked)) => {
                let t = masked.outline().network_of(task).map_err(|e| anyhow!("{path}: {e}"))?;
                Ok(t..t + 1)
            }
            (Some(_), Given::Network(_)) => {
                bail!("{path} is one network, which gives all its outputs: leave --task out")
            }
        }
    }

    fn batch_size(&self, model: &Model) -> anyhow::Result<usize> {
        Ok(self.batch_size.map_or_else(|| batch_size(&model.graph, self.device), |n| Ok(n as usize))?)
    }

    /// All images of the data sets: of whichever class, as what an image shows is what is asked for.
    fn set(&self) -> anyhow::Result<ImageSet> {
        let chosen = ImageArgs {
            data: self.data.clone(),
            split: self.split,
            images: None,
            classes: vec![],
            seed: 0,
            batch_size: self.batch_size,
        };
        Ok(chosen.choose(&[], Split::Test)?.as_stored())
    }

    /// Every output of the network at `path`, `[n, …]`.
    fn outputs(
        &self,
        stage: &Stage,
        (path, model): (&Path, &Model),
        images: &dyn ImageBatches,
    ) -> anyhow::Result<Vec<ArrayD<f32>>> {
        let progress = stage.progress("predict", "images", images.n_images() as u64);
        Network::folded(model, &BTreeSet::new(), self.device)
            .and_then(|network| evaluate::outputs(&network, images, &progress))
            .with_context(|| format!("{}", path.display()))
    }
}
