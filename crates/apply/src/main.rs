//! `apply`: models and a plan in, one network out.

use anyhow::{Context, ensure};
use clap::Parser;
use std::path::PathBuf;
use zipit::apply::apply;
use zipit::graph::Cost;
use zipit_artifact::model::{self, ModelFile};
use zipit_stage::merging::MergeArgs;
use zipit_stage::{Common, HasCommon, PrecisionArg, Stage};

/// Merge the models as the plan says: one network, one output per task.
///
/// Example: apply runs/demo/plan.bin a.safetensors b.safetensors -o runs/demo/merged.safetensors
#[derive(Debug, Parser)]
#[command(name = "apply", version)]
struct Args {
    #[command(flatten)]
    merge: MergeArgs,
    #[command(flatten)]
    precision: PrecisionArg,
    /// The merged network to write
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
    let (plan, files) = args.merge.read()?;
    let mut inputs = vec![plan.input_ref()];
    inputs.extend(files.iter().map(ModelFile::input_ref));
    let provenance = stage.provenance(inputs, [].into());
    if !args.common.dry_run && stage.up_to_date(&args.out, &provenance)? {
        return Ok(());
    }
    let models: Vec<_> = files.iter().map(|file| &file.model).collect();
    let merged = apply(&models, &plan.plan, args.merge.heads()).with_context(|| format!("{}", plan.path.display()))?;
    ensure!(!stage.interrupted(), "interrupted, nothing was written");
    let (one, all): (Cost, Cost) = (models[0].graph.cost()?, merged.graph.cost()?);
    let summary = format!(
        "{} models → 1 network with {} output{}: {:.2}× the FLOPs and {:.2}× the parameters of one model",
        models.len(),
        merged.tasks.len(),
        if merged.tasks.len() == 1 { "" } else { "s" },
        all.macs as f64 / one.macs as f64,
        all.params as f64 / one.params as f64,
    );
    if args.common.dry_run {
        return stage.print(&format!("{summary}; would write {}\n", args.out.display()));
    }
    model::write_as(&args.out, &merged, args.precision.given(files[0].precision), &provenance)?;
    stage.record(&args.out);
    stage.print(&format!("{}: {summary}\n", args.out.display()))
}
