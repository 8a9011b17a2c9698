//! `eval`: networks and labelled images in, a table of accuracies out.

mod job;
mod print;
mod rows;

use clap::Parser;
use std::path::PathBuf;
use zipit_stage::images::ImageArgs;
use zipit_stage::{Common, Format, HasCommon};
use zipit_torch::Device;

/// Measure networks on labelled images: per task, task average, joint; FLOPs, parameters, file size.
///
/// Uses the test split unless --split says otherwise. Reports that were written before may stand among the networks:
/// their rows are taken into the table if they are about the same images. Masked networks (`combine --rule emr`) have one
/// row: each is measured on its own task, which must be known, so that there is no joint accuracy.
///
/// Example: eval a.safetensors b.safetensors network.safetensors --ensemble a.safetensors b.safetensors --data images/
#[derive(Debug, Parser)]
#[command(name = "eval", version)]
struct Args {
    /// Networks, merged or single, and reports of earlier evaluations
    #[arg(required_unless_present = "ensemble")]
    files: Vec<PathBuf>,
    /// Evaluate these networks side by side, each with its own heads
    #[arg(long, value_name = "MODEL", num_args = 2..)]
    ensemble: Vec<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
    /// What the network is called in the table, if there is one [default: its file's name]
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    /// A remark to go under the table: how α was chosen, for example
    #[arg(long, value_name = "TEXT")]
    note: Vec<String>,
    /// Where the networks run: cpu, cuda or cuda:i
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// The report to write
    #[arg(long, short, help_heading = zipit_stage::args::OUTPUT)]
    out: Option<PathBuf>,
    /// Write the logits of every network, one tensor per head, images in the data set's order
    #[arg(long, value_name = "SAFETENSORS", help_heading = zipit_stage::args::OUTPUT)]
    logits: Option<PathBuf>,
    /// Name the merged network with the best task average in a last line
    #[arg(long, help_heading = zipit_stage::args::OUTPUT)]
    best: bool,
    /// How the table is printed
    #[arg(long, value_enum, default_value_t, help_heading = zipit_stage::args::OUTPUT)]
    format: Format,
    #[command(flatten)]
    common: Common,
}

impl HasCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn main() {
    zipit_stage::run(job::eval)
}
