//! What solving did, layer by layer.

use serde::{Deserialize, Serialize};
use zipit::graph::Node;
use zipit::refit::{Design, Outcome};
use zipit_stage::Table;

/// What `--report` writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefitReport {
    /// Unlabelled images that every layer was fitted to, or whose moments were.
    pub n_images: u64,
    /// In the order in which they were solved.
    pub layers: Vec<LayerReport>,
}

/// One layer, or several that were solved as one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerReport {
    /// Its node in the merged graph; of several, all.
    pub layers: Vec<String>,
    /// Unknowns of each output.
    pub n_inputs: usize,
    /// Outputs.
    pub n_outputs: usize,
    /// What was done.
    pub outcome: Outcome,
}

impl LayerReport {
    /// # Panics
    /// When the nodes have no parameters.
    pub fn new(nodes: &[Node], outcome: Outcome) -> Self {
        let design = Design::of_all(nodes).expect("layers with parameters");
        Self {
            layers: nodes.iter().map(|node| node.name.clone()).collect(),
            n_inputs: design.n_inputs,
            n_outputs: design.n_outputs * design.n_groups,
            outcome,
        }
    }

    fn name(&self) -> String {
        self.layers.join(" + ")
    }

    /// What was done, in a few words.
    pub fn told(&self) -> String {
        match &self.outcome {
            Outcome::Weights(s) => {
                let rounds = if s.rounds > 0 { format!(", {} rounds", s.rounds) } else { String::new() };
                format!(
                    "{}: error {:.2} → {:.2} %, ridge {:.0e}{rounds}",
                    self.name(),
                    100.0 * s.before,
                    100.0 * s.after,
                    s.ridge
                )
            }
            Outcome::Scale(r) => format!("{}: {:.2} of its members' standard deviation", self.name(), r.spread),
        }
    }
}

/// One line per layer.
pub fn table(report: &RefitReport) -> Table {
    let scaled = report.layers.iter().any(|layer| matches!(layer.outcome, Outcome::Scale(_)));
    let rounds = |layer: &LayerReport| match layer.outcome {
        Outcome::Weights(solution) => solution.rounds,
        Outcome::Scale(_) => 0,
    };
    let in_rounds = report.layers.iter().any(|layer| rounds(layer) > 0);
    let mut table = match (scaled, in_rounds) {
        (true, _) => Table::new(["layer", "features", "spread before"]),
        (false, false) => Table::new(["layer", "unknowns", "ridge", "error before", "after", "held out"]),
        (false, true) => Table::new(["layer", "unknowns", "ridge", "error before", "after", "held out", "rounds"]),
    };
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    for layer in &report.layers {
        match &layer.outcome {
            Outcome::Weights(s) => {
                let mut row = vec![
                    layer.name(),
                    format!("{}×{}", layer.n_outputs, layer.n_inputs),
                    format!("{:.0e}", s.ridge),
                    percent(s.before),
                    percent(s.after),
                    s.held_out.map_or_else(|| "-".to_owned(), percent),
                ];
                row.extend(in_rounds.then(|| s.rounds.to_string()));
                table.row(row);
            }
            Outcome::Scale(r) => {
                table.row([layer.name(), layer.n_outputs.to_string(), percent(r.spread)]);
            }
        }
    }
    table
}
