//! What an interrupted run of the same command learned.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::path::Path;
use zipit_artifact::header::Provenance;
use zipit_stage::Stage;
use zipit_stage::saving::{leave_behind, left_behind, no_state_of};
use zipit_torch::adapt::{AdaptState, Adapter, Judged};

/// What it is a state of.
const WHAT: &str = "an adaptation";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// Done, and to do.
    steps: [u64; 2],
    /// How often the learning rate was lowered.
    lowered: u32,
    judged: Vec<(u64, f64)>,
}

/// Writes what was learned so far.
pub fn save(adapter: &Adapter<'_>, path: &Path, provenance: &Provenance) -> anyhow::Result<()> {
    let AdaptState { steps, lowered, judged, tensors } = adapter.state()?;
    let judged = judged.iter().map(|judged| (judged.step, judged.loss)).collect();
    let state = serde_json::to_string(&State { steps, lowered, judged }).context("the state of learning")?;
    leave_behind(path, state, tensors, provenance)
}

/// Goes on from there; says whether there was anything.
pub fn restore(adapter: &mut Adapter<'_>, path: &Path, provenance: &Provenance, stage: &Stage) -> anyhow::Result<bool> {
    let Some((state, tensors)) = left_behind(path, WHAT, provenance, stage)? else { return Ok(false) };
    let unreadable = || no_state_of(path, WHAT);
    let State { steps, lowered, judged } = serde_json::from_str(&state).with_context(unreadable)?;
    let judged = judged.into_iter().map(|(step, loss)| Judged { step, loss }).collect();
    adapter.restore(&AdaptState { steps, lowered, judged, tensors }).with_context(unreadable)?;
    tracing::info!("going on after {} of {} steps ({})", steps[0], steps[1], path.display());
    Ok(true)
}
