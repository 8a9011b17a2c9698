//! `match`: moments in, merge and unmerge maps out.

mod inputs;
mod predict;
mod print;
mod report;
mod search;
mod selection;
mod settings;
mod solve;
mod widths;

use anyhow::{Context, ensure};
use clap::Parser;
use report::MatchReport;
use settings::MethodArgs;
use solve::Problem;
use std::collections::BTreeMap;
use std::path::PathBuf;
use widths::{PointsFile, WidthArgs};
use zipit::importance::{POSITIONS, PRIOR_IMAGES};
use zipit::merge_set::{Bound, Selection};
use zipit::plan::Plan;
use zipit_artifact::stats::StatsReader;
use zipit_artifact::{plan as plan_file, report as report_file};
use zipit_stage::{Common, Format, HasCommon, Stage};

/// Decide which features become one at every merge point.
///
/// Example: match stats.h5 --budget 1 -o plan.bin
#[derive(Debug, Parser)]
#[command(name = "match", version)]
struct Args {
    /// Moments of the models' joint features, from `collect`
    stats: PathBuf,
    #[command(flatten)]
    method: MethodArgs,
    /// Merge up to and including this point: a value of the network (layer2.2.add) or layers (13/20); heads after it
    #[arg(long, value_name = "POINT")]
    stop_at: Option<Bound>,
    /// Merge from this point on, or after that many layers; separate stems before it
    #[arg(long, value_name = "POINT")]
    start_at: Option<Bound>,
    /// Merge exactly these points
    #[arg(long, value_name = "POINT,…", value_delimiter = ',', conflicts_with_all = ["stop_at", "start_at"])]
    merge_only: Option<Vec<String>>,
    #[command(flatten)]
    widths: WidthArgs,
    /// Try a grid of the method's parameters (alpha, beta; rho; ridge), rank them without labels, take the best
    #[arg(long, conflicts_with = "budget")]
    search: bool,
    /// Statistics of the same models on other images, to rank on [default: the same images, which flatters]
    #[arg(long, value_name = "STATS", requires = "search")]
    holdout: Option<PathBuf>,
    /// Print what stopping at each merge point would cost, and where to stop
    #[arg(long, help_heading = zipit_stage::args::OUTPUT)]
    predict: bool,
    /// The plan to write
    #[arg(long, short, help_heading = zipit_stage::args::OUTPUT)]
    out: PathBuf,
    /// Also write what every merge did, as JSON
    #[arg(long, value_name = "JSON", help_heading = zipit_stage::args::OUTPUT)]
    report: Option<PathBuf>,
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

fn main() {
    zipit_stage::run(run)
}

fn run(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    args.method.check_flags()?;
    let stats = StatsReader::open(&args.stats)?;
    let header = stats.header();
    let settings = args.method.settings(header.probes.is_some())?;
    let selection =
        Selection { stop_at: args.stop_at.clone(), start_at: args.start_at.clone(), only: args.merge_only.clone() };
    let n_models = header.models.len();
    ensure!(
        n_models > 1,
        "{} is of one network, measured for `combine`: there is nothing to match it with",
        args.stats.display()
    );
    let points =
        selection::points(&selection, &header.graph, n_models).with_context(|| format!("{}", args.stats.display()))?;
    let holdout = args.holdout.as_deref().map(|path| search::open_holdout(path, &stats)).transpose()?;
    let file = args.widths.points.as_deref().map(|path| widths::read(path, &points, settings.method)).transpose()?;
    // Other versions weigh features and positions otherwise.
    let mut weighed = BTreeMap::new();
    if settings.method.weighs() {
        weighed.insert("prior images".to_owned(), PRIOR_IMAGES.to_string());
        weighed.extend(args.widths.budget.map(|_| ("power of positions".to_owned(), format!("{POSITIONS:.3}"))));
    }
    let provenance = stage.provenance(inputs::all(args, &stats, holdout.as_ref())?, weighed);
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
    // What the merges did is not in the plan: without its report everything is solved again.
    let plan_is_there = stage.up_to_date(&args.out, &provenance)?;
    if args.report.as_deref().map_or(Ok(true), |path| stage.up_to_date(path, &provenance))? && plan_is_there {
        if args.search {
            tracing::info!("the ranking was printed when the search was made: --force searches again");
        }
        return print::print(args, stage, &plan_file::read(&args.out)?.plan, header, &points);
    }
    let file: PointsFile = file.unwrap_or_default();
    let overrides = points.iter().map(|p| file.at(&p.name)).collect();
    let mut problem =
        Problem { stats: &stats, points: &points, n_models, models: inputs::models(args, &stats)?, overrides };
    let n_groups = args.widths.n_groups(&problem, &settings, selection == Selection::default(), stage)?;
    problem.end_after(n_groups.len());
    let (settings, ranking) = if args.search {
        search::best(args, &problem, &settings, &n_groups, holdout.as_ref(), stage)?
    } else {
        (settings, vec![])
    };
    let solved = problem.solve(&settings, &n_groups, &stage.progress("match", "points", n_groups.len() as u64))?;
    if let Some(path) = &args.report {
        report_file::write(path, &MatchReport::new(&problem, &settings, &solved, ranking)?, &provenance)?;
        stage.record(path);
    }
    let plan = Plan { n_models, settings, points: solved.into_iter().map(|s| s.plan).collect() };
    plan_file::write(&args.out, &plan, &header.graph, &header.models, &provenance)?;
    stage.record(&args.out);
    print::print(args, stage, &plan, header, &points)
}

/// f64 second moment, its copy in the ridge solve and the f32 similarity of the largest point.
fn peak_gib(n_joint: usize) -> f64 {
    (n_joint * n_joint * (8 + 8 + 4)) as f64 / f64::from(1 << 30)
}
