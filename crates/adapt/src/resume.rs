//! What an interrupted run of the same command learned.

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use zipit_artifact::checkpoint::{self, Checkpoint, Tensor};
use zipit_artifact::header::Provenance;
use zipit_stage::Stage;
use zipit_torch::adapt::{AdaptState, Adapter, Judged};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// Done, and to do.
    steps: [u64; 2],
    /// How often the learning rate was.
    lowered: u32,
    judged: Vec<(u64, f64)>,
}

/// Where it is kept.
pub fn path(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".resume");
    out.with_file_name(name)
}

/// Writes what was learned so far.
pub fn save(adapter: &Adapter<'_>, path: &Path, provenance: &Provenance) -> anyhow::Result<()> {
    let AdaptState { steps, lowered, judged, tensors } = adapter.state()?;
    let judged = judged.iter().map(|judged| (judged.step, judged.loss)).collect();
    let state = serde_json::to_string(&State { steps, lowered, judged }).context("the state of learning")?;
    let tensors = tensors.into_iter().map(|(name, tensor)| (name, Tensor::F32(tensor))).collect();
    Ok(checkpoint::write(path, &Checkpoint { tensors, state, provenance: provenance.clone() })?)
}

/// Goes on from there; says whether there was anything.
pub fn restore(adapter: &mut Adapter<'_>, path: &Path, provenance: &Provenance, stage: &Stage) -> anyhow::Result<bool> {
    if !path.exists() || stage.forced() {
        return Ok(false);
    }
    let found = checkpoint::read(path)?;
    ensure!(
        found.provenance.key == provenance.key,
        "{} is the state of an adaptation with other settings or inputs; remove it or give --force to begin anew",
        path.display()
    );
    let unreadable = || format!("{} is not the state of an adaptation; remove it", path.display());
    let State { steps, lowered, judged } = serde_json::from_str(&found.state).with_context(unreadable)?;
    let floats = found.tensors.into_iter().map(|(name, tensor)| match tensor {
        Tensor::F32(tensor) => Ok((name, tensor)),
        Tensor::F64(_) | Tensor::I64(_) => bail!(unreadable()),
    });
    let tensors = floats.collect::<anyhow::Result<_>>()?;
    let judged = judged.into_iter().map(|(step, loss)| Judged { step, loss }).collect();
    adapter.restore(&AdaptState { steps, lowered, judged, tensors }).with_context(unreadable)?;
    tracing::info!("going on after {} of {} steps ({})", steps[0], steps[1], path.display());
    Ok(true)
}
