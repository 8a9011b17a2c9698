//! `check`: models in, one page out: whether and how they can be merged, what comes out, and what it takes.

mod answers;
mod estimate;
mod page;
mod trial;

use clap::Parser;
use std::path::PathBuf;
use trial::Which;
use zipit_stage::images::ImageArgs;
use zipit_stage::{Common, Format, HasCommon, Stage};
use zipit_torch::Device;

/// Say before anything expensive whether models can be merged, what a merge will be, and what it takes.
///
/// Answers on one page: can they be merged, or where do they differ first; do they share an initialisation; which tasks
/// and classes they have; what is merged, what is not, and why; FLOPs and parameters of full and partial merges; memory
/// and time of every stage. The latter are found by trying the stages' own code on a few images: of --data, or made up.
/// Exit code 1 if the models cannot be merged.
///
/// Example: check a.safetensors b.safetensors --data data/fashion-mnist
#[derive(Debug, Parser)]
#[command(name = "check", version)]
struct Args {
    /// The models to merge, two or more
    #[arg(required = true, num_args = 2..)]
    models: Vec<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
    /// Do not try the stages: memory is told from the graph, roughly and on the CPU only; time is not told
    #[arg(long)]
    no_trial: bool,
    /// Where the networks are to run: cpu, cuda or cuda:i
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// How the page is printed
    #[arg(long, value_enum, default_value_t, help_heading = zipit_stage::args::OUTPUT)]
    format: Format,
    /// Try this stage and print what it took: a process of its own for every stage
    #[arg(long, value_enum, hide = true)]
    trial: Option<Which>,
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
    match args.trial {
        Some(which) => stage.print(&trial::run(which, args, stage)?),
        None => page::check(args, stage),
    }
}
