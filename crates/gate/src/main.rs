//! `gate`: a network and images of its tasks in, the network with a joint prediction over all its classes out.

mod job;

use clap::Parser;
use std::path::PathBuf;
use zipit_stage::images::ImageArgs;
use zipit_stage::{Common, HasCommon, PrecisionArg};
use zipit_torch::Device;

/// Let a network with several heads say which head to believe.
///
/// Fits a task gate (one more output: a linear map from the features that the heads read to the tasks) and a temperature
/// and a bias per head, on images of which it is known from which task's data they come. No class labels, no gradients.
/// Several networks are put side by side into one file first: an ensemble. Uses the train split unless --split says
/// otherwise.
///
/// Example: gate network.safetensors --data data/fashion-mnist --images 2000 -o gated.safetensors
#[derive(Debug, Parser)]
#[command(name = "gate", version)]
struct Args {
    /// A network with several heads, or several networks of one architecture
    #[arg(required = true)]
    models: Vec<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
    #[command(flatten)]
    precision: PrecisionArg,
    /// Where the networks run: cpu, cuda or cuda:i
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
    zipit_stage::run(job::gate)
}
