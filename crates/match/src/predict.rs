//! `--predict`: what stopping at each merge point would cost, without labels.

use zipit::budget::MacModel;
use zipit::graph::{Graph, MergePoint};
use zipit::plan::PointPlan;
use zipit_stage::Table;

/// Share of the features' energy that must survive all merges together where the trunk is suggested to end.
const KEPT: f64 = 0.5;

/// A row per merge point: what is lost there, what is left of the energy after all merges up to it (the product of
/// what each leaves), and the multiply-adds of the network that stops there, in networks.
///
/// # Errors
/// A malformed graph.
pub fn table(
    graph: &Graph,
    others: &[Graph],
    points: &[MergePoint],
    plans: &[PointPlan],
    n_models: usize,
) -> anyhow::Result<(Table, String)> {
    let spaces = graph.spaces()?;
    let model = MacModel::new(graph, &spaces, others, n_models)?;
    let one = model.one() as f64;
    let mut widths: Vec<Option<usize>> = vec![None; spaces.spaces.len()];
    let mut kept = 1.0;
    let mut suggested: Option<&MergePoint> = None;
    let mut table = Table::new(["stop at", "layers", "lost here", "left", "FLOPs"]);
    for (point, plan) in points.iter().zip(plans) {
        widths[point.space] = Some(plan.n_groups);
        kept *= (1.0 - plan.summary.reconstruction_error).max(0.0);
        if kept >= KEPT {
            suggested = Some(point);
        }
        table.row([
            point.name.clone(),
            format!("{}/{}", point.layers, graph.n_layers()),
            format!("{:.1} %", 100.0 * plan.summary.reconstruction_error),
            format!("{:.0} %", 100.0 * kept),
            format!("{:.2}×", model.macs(&widths) as f64 / one),
        ]);
    }
    let advice = match suggested {
        Some(point) => format!(
            "half of the features' energy survives up to --stop-at {} ({}/{} layers)\n",
            point.name,
            point.layers,
            graph.n_layers()
        ),
        None => {
            "less than half of the features' energy survives the first merge: these networks share little\n".to_owned()
        }
    };
    Ok((table, advice))
}
