//! Layers that an interrupted run of the same command solved.

use crate::report::LayerReport;
use anyhow::Context;
use std::path::Path;
use zipit_artifact::header::Provenance;
use zipit_stage::Stage;
use zipit_stage::saving::{leave_behind, left_behind, no_state_of};
use zipit_torch::refit::{Refit, Solved};

/// What they are a state of.
const WHAT: &str = "a refit";

/// Writes the layers solved so far.
pub fn save(refit: &Refit<'_>, layers: &[LayerReport], path: &Path, provenance: &Provenance) -> anyhow::Result<()> {
    let state = serde_json::to_string(layers).context("the layers' reports")?;
    leave_behind(path, state, refit.model().weights.clone(), provenance)
}

/// Goes on from there.
pub fn restore(
    refit: &mut Refit<'_>,
    path: &Path,
    provenance: &Provenance,
    stage: &Stage,
) -> anyhow::Result<Vec<LayerReport>> {
    let Some((state, weights)) = left_behind(path, WHAT, provenance, stage)? else { return Ok(vec![]) };
    let unreadable = || no_state_of(path, WHAT);
    let layers: Vec<LayerReport> = serde_json::from_str(&state).with_context(unreadable)?;
    let solved = |layer: &LayerReport| Solved { layers: layer.layers.clone(), outcome: layer.outcome };
    let solved: Vec<Solved> = layers.iter().map(solved).collect();
    refit.restore(&solved, weights).with_context(unreadable)?;
    tracing::info!("going on after {} layers ({})", layers.len(), path.display());
    Ok(layers)
}
