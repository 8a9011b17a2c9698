//! `match`: moments in, merge and unmerge maps out.

mod print;
mod settings;

use anyhow::{Context, ensure};
use clap::Parser;
use print::print;
use rayon::prelude::*;
use settings::{MethodName, UnmergeName, settings};
use std::path::PathBuf;
use std::process::ExitCode;
use zipit::graph::MergePoint;
use zipit::matching::match_features;
use zipit::merge_set::{Bound, Selection};
use zipit::plan::{Plan, PlanSettings, PointPlan};
use zipit::watch::Watch;
use zipit_artifact::plan as plan_file;
use zipit_artifact::stats::StatsReader;
use zipit_stage::{Common, Format, HasCommon, Stage};

/// Decide which features become one at every merge point.
///
/// Example: match runs/demo/stats.h5 --method zip --alpha 1 --beta 1 --unmerge covariance -o runs/demo/plan.bin
#[derive(Debug, Parser)]
#[command(name = "match", version)]
struct Args {
    /// Moments of the models' joint features, from `collect`
    stats: PathBuf,
    /// How features are matched
    #[arg(long, value_enum, default_value_t = MethodName::Zip)]
    method: MethodName,
    /// zip: each merge multiplies the new group's similarities by it [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    alpha: Option<f32>,
    /// zip: share of the removals that a model may spend within itself, 0 to 1 [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    beta: Option<f32>,
    /// Merge up to and including this point: a value of the network (layer2.2.add) or layers (13/20); heads after it
    #[arg(long, value_name = "POINT")]
    stop_at: Option<Bound>,
    /// Merge from this point on, or after that many layers; separate stems before it
    #[arg(long, value_name = "POINT")]
    start_at: Option<Bound>,
    /// Merge exactly these points
    #[arg(long, value_name = "POINT,…", value_delimiter = ',', conflicts_with_all = ["stop_at", "start_at"])]
    merge_only: Option<Vec<String>>,
    /// How every model's features come back from the merged ones
    #[arg(long, value_enum, default_value_t = UnmergeName::Covariance)]
    unmerge: UnmergeName,
    /// covariance: ridge in units of the mean energy of a merged feature [default: 0.001]
    #[arg(long, allow_negative_numbers = true)]
    ridge: Option<f64>,
    /// The plan to write
    #[arg(long, short, help_heading = zipit_stage::args::OUTPUT)]
    out: PathBuf,
    /// How the table of merge points is printed
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

fn main() -> ExitCode {
    zipit_stage::run(run)
}

fn run(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let settings = settings(args)?;
    let stats = StatsReader::open(&args.stats)?;
    let header = stats.header();
    let n_models = header.models.len();
    let provenance = stage.provenance(vec![stats.input_ref()], [].into());
    let selection =
        Selection { stop_at: args.stop_at.clone(), start_at: args.start_at.clone(), only: args.merge_only.clone() };
    let points = selection.resolve(&header.graph).with_context(|| format!("{}", args.stats.display()))?;
    if args.common.dry_run {
        let largest = points.iter().map(|p| n_models * p.dim).max().unwrap_or(0);
        return stage.print(&format!(
            "would match {} of {} merge points of {n_models} models; the largest has {largest} joint features \
             (about {:.2} GiB at its peak); would write {}\n",
            points.len(),
            header.points.len(),
            peak_gib(largest),
            args.out.display()
        ));
    }
    if stage.up_to_date(&args.out, &provenance)? {
        let found = plan_file::read(&args.out)?;
        return print(args, stage, &found.plan, &points);
    }
    let plan = solve(settings, &points, &stats, stage)?;
    plan_file::write(&args.out, &plan, &header.graph, &header.models, &provenance)?;
    stage.record(&args.out);
    print(args, stage, &plan, &points)
}

/// Reads one merge point at a time (the file format allows no more), solves it with all threads, and goes on.
fn solve(settings: PlanSettings, points: &[MergePoint], stats: &StatsReader, stage: &Stage) -> anyhow::Result<Plan> {
    let n_models = stats.header().models.len();
    let progress = stage.progress("match", "points", points.len() as u64);
    let mut plans = Vec::with_capacity(points.len());
    for chunk in points.chunks(stage.n_threads()) {
        ensure!(!progress.interrupted(), "interrupted, nothing was written");
        let moments = chunk.iter().map(|p| stats.moments(&p.name)).collect::<Result<Vec<_>, _>>()?;
        let solved = chunk.par_iter().zip(moments).map(|(point, moments)| {
            let matching = match_features(&settings.method, &moments, n_models, point.dim)?;
            let plan = PointPlan::new(&point.name, &matching, &moments, n_models, &settings.unmerge);
            progress.advance(1);
            plan
        });
        plans.extend(solved.collect::<zipit::Result<Vec<_>>>()?);
    }
    Ok(Plan { n_models, settings, points: plans })
}

/// f64 second moment, its copy in the ridge solve and the f32 similarity of the largest point.
fn peak_gib(n_joint: usize) -> f64 {
    (n_joint * n_joint * (8 + 8 + 4)) as f64 / f64::from(1 << 30)
}
