//! `collect`: models and images in, moments of the joint features at every merge point out.

mod gradients;
mod job;
mod reduce;

use clap::{Parser, ValueEnum};
use gradients::Predictions;
use std::path::PathBuf;
use zipit_artifact::stats::GramKind;
use zipit_stage::images::{ImageArgs, parse_shard};
use zipit_stage::{Common, HasCommon, SaveArgs, Stage, Usage};
use zipit_torch::Device;

/// Measure the joint features of all models on the same images, at every merge point.
///
/// Uses the train split unless --split says otherwise; no labels are used. Interrupted work is kept beside the output
/// and continued by the same command.
///
/// Example: collect a.safetensors b.safetensors --data data/fashion-mnist --images 5000 --importance -o stats.h5
///
/// Example: collect --reduce shard1.h5 shard2.h5 -o stats.h5
#[derive(Debug, Parser)]
#[command(name = "collect", version, verbatim_doc_comment)]
struct Args {
    /// The models to merge, two or more; one where only it itself is measured, for `combine` (--gram own, --fisher)
    #[arg(required_unless_present = "reduce", num_args = 1..)]
    models: Vec<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
    /// Measure only every n-th batch, beginning with the i-th (from 1); add the shards up with --reduce
    #[arg(long, value_name = "I/N", value_parser = parse_shard, conflicts_with = "reduce")]
    shard: Option<(usize, usize)>,
    /// Also measure what every layer reads, so that `refit --stats` can solve the layers without images: of all models
    /// with each other, or of each model by itself (a quarter of the size for two models; RegMean)
    #[arg(long, value_enum, value_name = "HOW")]
    gram: Option<Gram>,
    /// Also measure what a change of every feature does to the logits, by a backward pass through each network with random
    /// probes (no labels; about twice the time): `match` then merges by what matters, the more so
    /// the more images there are
    #[arg(long, conflicts_with = "reduce")]
    importance: bool,
    /// Seed of the probes [default: 0]
    #[arg(long, value_name = "SEED", requires = "importance")]
    probe_seed: Option<u64>,
    /// Also measure how much each network's predictions change with every parameter (the diagonal of the Fisher information):
    /// for each image the expectation over its own class probabilities, or of the label's class; a backward pass per class,
    /// image by image
    #[arg(long, value_enum, value_name = "OF", num_args = 0..=1, default_missing_value = "own", conflicts_with = "reduce")]
    fisher: Option<Predictions>,
    /// Also measure second moments of the gradients at what every layer makes: `MaTS`' second factor, beside --gram own
    #[arg(long, conflicts_with = "reduce")]
    gradients: bool,
    /// --fisher, --gradients: every class by itself, also where there are more than 10, in place of 8 random sums of them
    #[arg(long, conflicts_with = "reduce")]
    exact: bool,
    /// Add up the moments of shards
    #[arg(long, value_name = "STATS", num_args = 1.., conflicts_with_all = ["models", "data"])]
    reduce: Vec<PathBuf>,
    /// Where the networks run: cpu, cuda or cuda:i
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// The stats file to write
    #[arg(long, short, help_heading = zipit_stage::args::OUTPUT)]
    out: PathBuf,
    #[command(flatten)]
    saving: SaveArgs,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Gram {
    Joint,
    Own,
}

impl Gram {
    fn kind(self) -> GramKind {
        match self {
            Self::Joint => GramKind::Joint,
            Self::Own => GramKind::Own,
        }
    }
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
    if !args.reduce.is_empty() {
        return reduce::reduce(&args.reduce, &args.out, args.common.dry_run, stage);
    }
    if args.gradients && !matches!(args.gram, Some(Gram::Own)) {
        let problem = "--gradients are one factor of two: add --gram own, what layers read";
        return Err(Usage(problem.to_owned()).into());
    }
    if args.exact && args.fisher.is_none() && !args.gradients {
        return Err(Usage("--exact is about --fisher or --gradients: neither is given".to_owned()).into());
    }
    gradients::check_number(args)?;
    job::collect(args, stage)
}
