//! The table of merge points.

use crate::{Args, predict};
use zipit::graph::MergePoint;
use zipit::plan::Plan;
use zipit_artifact::stats::StatsHeader;
use zipit_stage::{Stage, Table};

/// # Errors
/// When stdout cannot be written.
pub fn print(
    args: &Args,
    stage: &Stage,
    plan: &Plan,
    stats: &StatsHeader,
    points: &[MergePoint],
) -> anyhow::Result<()> {
    let mut table = Table::new([
        "merge point",
        "layers",
        "features",
        "dead",
        "constant",
        "groups",
        "across",
        "within",
        "mean corr.",
        "lost",
        "condition",
    ]);
    for (point, at) in plan.points.iter().zip(points) {
        let s = &point.summary;
        table.row([
            point.name.clone() + if s.caps_lifted { " (caps lifted)" } else { "" },
            at.layers.to_string(),
            format!("{}×{}", plan.n_models, at.dim),
            s.dead.to_string(),
            s.constant.to_string(),
            point.n_groups.to_string(),
            s.across.to_string(),
            s.within.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
            s.mean_correlation.map_or_else(|| "-".to_owned(), |r| format!("{r:.3}")),
            format!("{:.1} %", 100.0 * s.reconstruction_error),
            s.condition.map_or_else(|| "-".to_owned(), |c| format!("{c:.0e}")),
        ]);
    }
    let report: Vec<_> = plan.points.iter().map(|p| (&p.name, p.n_groups, &p.summary)).collect();
    stage.print(&table.render(args.format, &(&plan.settings, report))?)?;
    if args.predict {
        let (table, advice) = predict::table(&stats.graph, &stats.others, points, &plan.points, plan.n_models)?;
        stage.print(&format!("\n{}{advice}", table.to_text()))?;
    }
    if plan.points.iter().any(|p| p.summary.caps_lifted) {
        tracing::warn!("some caps on within-model merges had to be lifted: --beta is too small for these features");
    }
    Ok(())
}
