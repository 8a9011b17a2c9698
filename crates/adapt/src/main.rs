//! `adapt`: a merged network and unlabelled images in, a better one out, by gradients.

mod flags;
mod images;
mod job;
mod report;
mod resume;
mod start;

use clap::Parser;
use flags::{AugmentArgs, CoefficientArgs, LearnName, ObjectiveName, TrustName};
use std::path::PathBuf;
use zipit_stage::images::ImageArgs;
use zipit_stage::{Common, Format, HasCommon, PrecisionArg, SaveArgs};
use zipit_torch::Device;

/// Improve a merged network by a few minutes of gradients on unlabelled images.
///
/// Every output is to say what the network that it is from says of the same images: no labels. Weights are learned in
/// whitened inputs. A tenth of the images judges after every epoch, and the best network is written; it is taken from the
/// far end of the random order, where stages that took fewer images with the same --seed have seen none. BatchNorm is
/// folded into the layers and gone from the result, but with --root and with --learn coefficients, which gives sums of
/// weights BatchNorm statistics of their own (as `recalibrate` does). Uses the train split unless --split says otherwise.
///
/// Example: adapt network.safetensors --to a.safetensors b.safetensors --data data/fashion-mnist --images 2000 -o adapted.safetensors
#[derive(Debug, Parser)]
#[command(name = "adapt", version)]
struct Args {
    /// The network, from `apply` or `refit`
    #[arg(required_unless_present = "root")]
    network: Option<PathBuf>,
    /// The networks whose outputs it has, in the order of the merge
    #[arg(long, value_name = "MODEL", required = true, num_args = 1..)]
    to: Vec<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
    /// Adapt this network to --to, a single one, in place of a merged network: networks that are copies of one root can be
    /// merged as its fine-tunes
    #[arg(long, value_name = "MODEL", conflicts_with = "network")]
    root: Option<PathBuf>,
    /// What is made small
    #[arg(long, value_enum, default_value_t = ObjectiveName::Distill)]
    objective: ObjectiveName,
    /// For --objective cross-entropy: what logits are divided by
    #[arg(long, value_name = "T", default_value_t = 2.0)]
    temperature: f64,
    /// What may change
    #[arg(long, value_enum, default_value_t = LearnName::Weights)]
    learn: LearnName,
    /// Learn weights as they are, not in whitened inputs
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    coefficients: CoefficientArgs,
    /// Begin with random weights, to see what merging is worth
    #[arg(long, conflicts_with = "root")]
    from_scratch: bool,
    /// Which network is believed on an image, where several speak of one output
    #[arg(long, value_enum, default_value_t = TrustName::Surest)]
    trust: TrustName,
    #[command(flatten)]
    augmentation: AugmentArgs,
    /// Passes over the images; may be a fraction [default: 10]
    #[arg(long, conflicts_with = "minutes")]
    epochs: Option<f64>,
    /// As many as this machine makes in so many minutes: the log says how many, and --epochs makes the same elsewhere
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<f64>,
    /// Highest learning rate; where the first steps make the network far worse, it begins again with a third of it
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// Convolutions and linear layers compute in bf16, all else in f32 (PyTorch's autocast)
    #[arg(long)]
    bf16: bool,
    #[command(flatten)]
    precision: PrecisionArg,
    /// Where to compute: cpu, cuda or cuda:i
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Images are kept in memory if all of them take no more than so many GiB, else read again in every epoch
    #[arg(long, value_name = "GIB", default_value_t = 8.0, help_heading = zipit_stage::args::EXECUTION)]
    max_memory: f64,
    /// The network to write
    #[arg(long, short, help_heading = zipit_stage::args::OUTPUT)]
    out: PathBuf,
    /// Write what every judgement came to, as JSON
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

impl HasCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn main() {
    zipit_stage::run(job::adapt)
}
