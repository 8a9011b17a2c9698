//! What solving did, layer by layer.

use serde::{Deserialize, Serialize};
use zipit::refit::Solution;
use zipit_stage::Table;
use zipit_torch::refit::Solved;

/// What `--report` writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefitReport {
    /// Unlabelled images that every layer was fitted to.
    pub n_images: u64,
    /// In the order in which they were solved.
    pub layers: Vec<LayerReport>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerReport {
    /// Its node in the merged graph.
    pub layer: String,
    /// Unknowns of each output.
    pub n_inputs: usize,
    /// Outputs.
    pub n_outputs: usize,
    /// What solving did.
    pub solution: Solution,
}

impl From<Solved> for LayerReport {
    fn from(solved: Solved) -> Self {
        Self {
            layer: solved.layer,
            n_inputs: solved.design.n_inputs,
            n_outputs: solved.design.n_outputs * solved.design.n_groups,
            solution: solved.solution,
        }
    }
}

/// One line per layer.
pub fn table(report: &RefitReport) -> Table {
    let mut table = Table::new(["layer", "unknowns", "ridge", "error before", "after", "held out"]);
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    for layer in &report.layers {
        let s = &layer.solution;
        table.row([
            layer.layer.clone(),
            format!("{}×{}", layer.n_outputs, layer.n_inputs),
            format!("{:.0e}", s.ridge),
            percent(s.before),
            percent(s.after),
            s.held_out.map_or_else(|| "-".to_owned(), percent),
        ]);
    }
    table
}
