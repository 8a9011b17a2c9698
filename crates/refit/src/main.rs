//! `refit`: models, a plan and unlabelled images in, one network out whose layers were solved in closed form.

mod grams;
mod images;
mod job;
mod report;
mod resume;

use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use zipit::apply::Heads;
use zipit::refit::{Positions, ROUNDS};
use zipit_stage::images::ImageArgs;
use zipit_stage::merging::MergeArgs;
use zipit_stage::{Common, Format, HasCommon, PrecisionArg, SaveArgs};
use zipit_torch::Device;

/// Merge the models as the plan says, then solve every layer again by least squares on unlabelled images.
///
/// Takes the place of `apply` and `recalibrate`. Each layer is fitted to what the models compute there, in order, on what
/// the network solved so far feeds it: closed form, no labels, no gradients. BatchNorm is folded into the layers and gone
/// from the result. Uses the train split unless --split says otherwise.
///
/// Example: refit plan.bin a.safetensors b.safetensors --data data/fashion-mnist --images 2000 -o network.safetensors
#[derive(Debug, Parser)]
#[command(name = "refit", version)]
struct Args {
    #[command(flatten)]
    merge: MergeArgs,
    #[command(flatten)]
    images: ImageArgs,
    /// Take every image's mirror image, too, where left and right do not matter: it helps where images are few
    #[arg(long)]
    flip: bool,
    /// What a layer reads while it is solved
    #[arg(long, value_enum, default_value_t = Mode::Sequential)]
    mode: Mode,
    /// For --mode gram: what the models' layers read, from `collect --gram`
    #[arg(long, value_name = "STATS")]
    stats: Option<PathBuf>,
    /// For --mode gram: the same of other images, to choose the ridge on
    #[arg(long, value_name = "STATS", requires = "stats", conflicts_with = "ridge")]
    holdout: Option<PathBuf>,
    /// Find only a scale and a shift for every feature, so that it varies as its members do (REPAIR): faster, and less
    #[arg(long, conflicts_with_all = ["ridge", "holdout"])]
    repair: bool,
    /// How strongly layers are held at the merged weights, in units of their inputs' mean variance [default: the power
    /// of ten that predicts a held-out quarter of the different images, or --holdout, best, layer by layer; 1 for fewer
    /// than four; 1e-3 for --mode gram without --holdout]
    #[arg(long, value_name = "λ")]
    ridge: Option<f64>,
    /// How often a layer in front of a ReLU is solved again for what the ReLU lets through, at most: held-out images judge
    /// [default: 2, which double the time; 0 for --mode layerwise and gram, which do not run the network that is solved]
    #[arg(long, value_name = "N", conflicts_with = "repair")]
    rounds: Option<u32>,
    /// Over which of an image's positions layers are summed up: all, or so many, evenly spread, that there are N for every
    /// number that an output is a sum of, and 32768 in any case [default: 64]
    #[arg(long, value_name = "N|all", conflicts_with_all = ["repair", "stats"])]
    positions: Option<Positions>,
    /// Solve layers that write one sum one after the other, not as one (as in --mode layerwise)
    #[arg(long, conflicts_with = "repair")]
    one_by_one: bool,
    /// How much each model's features count where they are averaged, in the order of the plan [default: all the same]
    #[arg(long, value_name = "W,…", value_delimiter = ',')]
    weights: Option<Vec<f64>>,
    /// Which model is believed on an image, where features of several are averaged and where a layer is one model's alone
    /// [default: surest with --heads merge, else all]
    #[arg(long, value_enum)]
    trust: Option<Trust>,
    #[command(flatten)]
    precision: PrecisionArg,
    /// Where the networks run: cpu, cuda or cuda:i
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Activations beyond so many GiB go into a file without a name beside the output
    #[arg(long, value_name = "GIB", default_value_t = 8.0, help_heading = zipit_stage::args::EXECUTION)]
    max_memory: f64,
    /// The network to write
    #[arg(long, short, help_heading = zipit_stage::args::OUTPUT)]
    out: PathBuf,
    /// Write what solving did to every layer, as JSON
    #[arg(long, value_name = "JSON", help_heading = zipit_stage::args::OUTPUT)]
    report: Option<PathBuf>,
    /// How the table is printed
    #[arg(long, value_enum, default_value_t, help_heading = zipit_stage::args::OUTPUT)]
    format: Format,
    #[command(flatten)]
    saving: SaveArgs,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The merged network's own activations, so that errors of earlier layers are made up for
    Sequential,
    /// The models' activations, merged, as in a merged network without errors (PLeaS)
    Layerwise,
    /// The same from moments that were collected once, without images; of each model by itself, RegMean
    Gram,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Trust {
    /// All models alike
    All,
    /// The one whose softmax gives the largest probability: for models that predict the same classes
    Surest,
}

impl Args {
    /// How often layers are solved again, at most.
    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.mode == Mode::Sequential && !self.repair { ROUNDS } else { 0 })
    }

    fn positions(&self) -> Positions {
        self.positions.unwrap_or_default()
    }

    /// Which model is believed.
    fn trust(&self) -> Trust {
        let measures_images = !self.repair && self.mode != Mode::Gram;
        match (self.trust, self.merge.heads()) {
            (Some(trust), _) => trust,
            (None, Heads::Merge) if measures_images => Trust::Surest,
            (None, _) => Trust::All,
        }
    }
}

impl HasCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn main() {
    zipit_stage::run(job::refit)
}
