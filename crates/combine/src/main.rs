//! `combine`: a base and its fine-tunes in, one network out.

mod flags;
mod masks;
mod measured;
mod networks;

use anyhow::ensure;
use clap::{Parser, ValueEnum};
use flags::{RuleArgs, RuleName, told};
use measured::{Measured, tell};
use networks::{Networks, outline_of};
use std::path::PathBuf;
use zipit::apply::Heads;
use zipit::graph::Cost;
use zipit::task_vector::{Made, combine, kin};
use zipit_artifact::weights;
use zipit_stage::{Common, HasCommon, PrecisionArg, Stage, Usage};

/// Merge fine-tunes of one base by what fine-tuning changed, without images.
///
/// Features of fine-tunes stand at the same places, so that weights can be added: θ = θ₀ + λ · (what a rule makes of τ₁, τ₂, …), τ
/// = θ − θ₀. Heads stay each network's own. Nothing is kept in memory: networks may be larger than it. BatchNorm's running
/// statistics are averaged and fit no sum of weights: `recalibrate` comes next. With --rule emr networks stay apart, but for
/// what they share: the task says which it is.
///
/// Example: combine base.safetensors a.safetensors b.safetensors --rule ties --density 0.2 -o merged.safetensors
#[derive(Debug, Parser)]
#[command(name = "combine", version)]
struct Args {
    /// The base, then its fine-tunes
    #[arg(required = true, value_name = "BASE FINE-TUNE")]
    networks: Vec<PathBuf>,
    /// There is no base: all networks are merged (average, slerp, fisher and regmean do without)
    #[arg(long)]
    no_base: bool,
    #[command(flatten)]
    rule: RuleArgs,
    /// What becomes of heads
    #[arg(long, value_enum, default_value_t = HeadsName::Separate)]
    heads: HeadsName,
    #[command(flatten)]
    precision: PrecisionArg,
    /// The merged network to write
    #[arg(long, short, help_heading = zipit_stage::args::OUTPUT)]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HeadsName {
    /// One output per task
    Separate,
    /// One for all, of networks that predict the same classes
    Merge,
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
    let with_base = !args.no_base;
    let without = [RuleName::Average, RuleName::Slerp, RuleName::Fisher, RuleName::Regmean];
    if args.no_base && !without.contains(&args.rule.rule) {
        let rule = args.rule.rule.name();
        return Err(Usage(format!("--rule {rule} adds to a base what fine-tuning changed: leave --no-base out")).into());
    }
    let n_tuned = args.networks.len() - usize::from(with_base);
    if n_tuned == 0 {
        return Err(Usage("a base alone is nothing to combine: its fine-tunes follow it".to_owned()).into());
    }
    let recipe = args.rule.recipe(n_tuned, |flag| stage.was_given(flag))?;
    if recipe.is_none() && args.heads == HeadsName::Merge {
        let why = "--rule emr keeps every network apart, with its own head: leave --heads merge out";
        return Err(Usage(why.to_owned()).into());
    }
    let networks = Networks::open(&args.networks, with_base)?;
    let stats = Measured::open(&args.rule.stats)?;
    let inputs = networks.input_refs().into_iter().chain(Measured::input_refs(&stats));
    let provenance = stage.provenance(inputs.collect(), [].into());
    if !args.common.dry_run && stage.up_to_date(&args.out, &provenance)? {
        return Ok(());
    }
    let heads = if args.heads == HeadsName::Merge { Heads::Merge } else { Heads::Separate };
    let joined = networks.join(heads)?;
    if with_base {
        networks.warn_of_strangers(&kin(&joined.parts, n_tuned, &networks)?);
    }
    let (model, shapes) = outline_of(&joined, networks.preprocess());
    let (one, all): (Cost, Cost) = (networks.cost()?, model.graph.cost()?);
    let n_made = |made: Made| joined.parts.iter().filter(|part| part.made == made).count();
    let n_by_rule = n_made(Made::ByRule);
    ensure!(
        n_by_rule > 0,
        "the networks have no learned tensor in common but in their heads: there is nothing to combine"
    );
    let Some(recipe) = recipe else { return masks::write(args, stage, &networks, &joined, &provenance) };
    let by = (recipe.rule, args.rule.normalize);
    let measured = Measured::of(&networks, stats, by, networks.tuned())?;
    tracing::debug!("{n_by_rule} tensors by the rule, {} as they are on average", n_made(Made::AsMean));
    let (s, words) = (if n_tuned == 1 { "" } else { "s" }, told(&recipe));
    let summary = format!(
        "{n_tuned} network{s} by {}{}{words} → 1 network with {} output{}: {:.2}× the FLOPs and {:.2}× the parameters of one",
        args.rule.rule.name(),
        if words.is_empty() { "" } else { ": " },
        model.tasks.len(),
        if model.tasks.len() == 1 { "" } else { "s" },
        all.macs as f64 / one.macs as f64,
        all.params as f64 / one.params as f64,
    );
    if args.common.dry_run {
        return stage.print(&format!("{summary}; would write {}\n", args.out.display()));
    }
    let precision = args.precision.given(networks.precision());
    let total = joined.parts.iter().map(|part| part.tensor.n_numbers() as u64).sum();
    let progress = stage.progress("combine", "numbers", total);
    weights::write_streamed(&args.out, &model, &shapes, precision, &provenance, |writer| -> anyhow::Result<()> {
        let mut write = |numbers: &[f32]| writer.write(numbers).map_err(|e| zipit::Error::Source(e.to_string()));
        tell(&combine(&recipe, &joined.parts, &measured, &progress, &mut write)?);
        Ok(())
    })?;
    drop(progress);
    stage.record(&args.out);
    stage.print(&format!("{}: {summary}\n", args.out.display()))?;
    if model.graph.params().values().any(|param| param.name == "running_mean") {
        let out = args.out.display();
        stage.print(&format!("BatchNorm's statistics are averages: recalibrate {out} --data IMAGES -o NETWORK\n"))?;
    }
    Ok(())
}
