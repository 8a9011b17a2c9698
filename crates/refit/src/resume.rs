//! Layers that an interrupted run of the same command solved.

use crate::report::LayerReport;
use anyhow::{Context, bail, ensure};
use std::path::{Path, PathBuf};
use zipit_artifact::checkpoint::{self, Checkpoint, Tensor};
use zipit_artifact::header::Provenance;
use zipit_stage::Stage;
use zipit_torch::refit::{Refit, Solved};

/// Where they are kept.
pub fn path(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".resume");
    out.with_file_name(name)
}

/// Writes the layers solved so far.
pub fn save(refit: &Refit<'_>, layers: &[LayerReport], path: &Path, provenance: &Provenance) -> anyhow::Result<()> {
    let weights = &refit.model().weights;
    let tensors = weights.iter().map(|(name, tensor)| (name.clone(), Tensor::F32(tensor.clone()))).collect();
    let state = serde_json::to_string(layers).context("the layers' reports")?;
    Ok(checkpoint::write(path, &Checkpoint { tensors, state, provenance: provenance.clone() })?)
}

/// Goes on from there.
pub fn restore(
    refit: &mut Refit<'_>,
    path: &Path,
    provenance: &Provenance,
    stage: &Stage,
) -> anyhow::Result<Vec<LayerReport>> {
    if !path.exists() || stage.forced() {
        return Ok(vec![]);
    }
    let found = checkpoint::read(path)?;
    ensure!(
        found.provenance.key == provenance.key,
        "{} is the state of a refit with other settings or inputs; remove it or give --force to begin anew",
        path.display()
    );
    let unreadable = || format!("{} is not the state of a refit; remove it", path.display());
    let layers: Vec<LayerReport> = serde_json::from_str(&found.state).with_context(unreadable)?;
    let floats = found.tensors.into_iter().map(|(name, tensor)| match tensor {
        Tensor::F32(tensor) => Ok((name, tensor)),
        Tensor::F64(_) | Tensor::I64(_) => bail!(unreadable()),
    });
    let solved = |layer: &LayerReport| Solved { layers: layer.layers.clone(), outcome: layer.outcome };
    let solved: Vec<Solved> = layers.iter().map(solved).collect();
    refit.restore(&solved, floats.collect::<anyhow::Result<_>>()?).with_context(unreadable)?;
    tracing::info!("going on after {} layers ({})", layers.len(), path.display());
    Ok(layers)
}
