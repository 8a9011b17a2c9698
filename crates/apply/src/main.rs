//! `apply`: models and a plan in, one network out.

use anyhow::{Context, bail, ensure};
use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use zipit::apply::{Heads, apply};
use zipit::graph::Cost;
use zipit_artifact::model::{self, ModelFile};
use zipit_artifact::plan::{self as plan_file, PlanFile};
use zipit_stage::{Common, HasCommon, Stage};

/// Merge the models as the plan says: one network, one output per task.
///
/// Example: apply runs/demo/plan.bin a.safetensors b.safetensors -o runs/demo/merged.safetensors
#[derive(Debug, Parser)]
#[command(name = "apply", version)]
struct Args {
    /// What to merge, from `match`
    plan: PathBuf,
    /// The models that were matched, in any order
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// Heads that all predict the same classes can be merged into one
    #[arg(long, value_enum, default_value_t = HeadsName::Separate)]
    heads: HeadsName,
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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum HeadsName {
    /// One output per task
    Separate,
    /// One output for all
    Merge,
}

fn main() -> ExitCode {
    zipit_stage::run(run)
}

fn run(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let plan = plan_file::read(&args.plan)?;
    let files = args.models.iter().map(|path| model::read(path)).collect::<Result<Vec<_>, _>>()?;
    let files = in_plan_order(&plan, files, args)?;
    let mut inputs = vec![plan.input_ref()];
    inputs.extend(files.iter().map(ModelFile::input_ref));
    let provenance = stage.provenance(inputs, [].into());
    if !args.common.dry_run && stage.up_to_date(&args.out, &provenance)? {
        return Ok(());
    }
    let heads = match args.heads {
        HeadsName::Separate => Heads::Separate,
        HeadsName::Merge => Heads::Merge,
    };
    let models: Vec<_> = files.iter().map(|file| &file.model).collect();
    let merged = apply(&models, &plan.plan, heads).with_context(|| format!("{}", args.plan.display()))?;
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
    model::write(&args.out, &merged, &provenance)?;
    stage.record(&args.out);
    stage.print(&format!("{}: {summary}\n", args.out.display()))
}

/// The plan knows which models it is about, by content: they need not be given in its order.
fn in_plan_order(plan: &PlanFile, mut files: Vec<ModelFile>, args: &Args) -> anyhow::Result<Vec<ModelFile>> {
    let mut ordered = Vec::with_capacity(files.len());
    for wanted in &plan.models {
        let Some(at) = files.iter().position(|file| file.blake3 == wanted.blake3) else {
            let given: Vec<_> = args.models.iter().map(|p| p.display().to_string()).collect();
            bail!(
                "{} was made for a model called {} with digest {}…, which none of the given files has ({}): give the \
                 files that were collected, or collect and match again",
                args.plan.display(),
                wanted.name,
                wanted.blake3.get(..12).unwrap_or(&wanted.blake3),
                given.join(", ")
            );
        };
        ordered.push(files.remove(at));
    }
    if let Some(extra) = files.first() {
        bail!(
            "{} is not one of the {} models that {} is about",
            extra.path.display(),
            ordered.len(),
            args.plan.display()
        );
    }
    Ok(ordered)
}
