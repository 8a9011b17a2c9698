//! Training checkpoints: named tensors and a JSON text of the trainer's own, in the container of a model, so that
//! `train` goes on where it was interrupted.

use crate::container::{self, Container, Values};
use crate::header::CHECKPOINT_VERSION;
use crate::{Error, Kind, Precision, Provenance, Result, json};
use ndarray::ArrayD;
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::path::Path;

const STATE: &str = "zipit.state";

/// A tensor in the type it was given in.
#[derive(Debug, Clone, PartialEq)]
pub enum Tensor {
    /// 32-bit floats.
    F32(ArrayD<f32>),
    /// 64-bit floats.
    F64(ArrayD<f64>),
    /// 64-bit integers.
    I64(ArrayD<i64>),
}

/// Everything interrupted work needs to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Weights, momenta, counters.
    pub tensors: BTreeMap<String, Tensor>,
    /// JSON of the writer's own.
    pub state: String,
    /// Who wrote it; its key tells whether it belongs to the same work.
    pub provenance: Provenance,
}

/// Writes a checkpoint. The same content gives the same bytes.
///
/// # Errors
/// A `state` that is no JSON, or a file that cannot be written.
pub fn write(path: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let unwritable = |reason: String| Error::unwritable(path, &reason);
    json::decode::<serde_json::Value>("state", &checkpoint.state).map_err(unwritable)?;
    let metadata = BTreeMap::from([(STATE, checkpoint.state.clone())]);
    let tensors = checkpoint
        .tensors
        .iter()
        .map(|(name, tensor)| {
            let values = match tensor {
                Tensor::F32(a) => Values::Floats(a, Precision::F32),
                Tensor::F64(a) => Values::F64(a),
                Tensor::I64(a) => Values::I64(a),
            };
            (name.as_str(), values)
        })
        .collect();
    container::write(path, (Kind::Checkpoint, CHECKPOINT_VERSION), metadata, &tensors, &checkpoint.provenance)
}

/// Reads a checkpoint and verifies its digest.
///
/// # Errors
/// A file that cannot be read, is another kind or version, or is damaged.
pub fn read(path: &Path) -> Result<Checkpoint> {
    let bytes = container::read_bytes(path, Kind::Checkpoint)?;
    let container = Container::parse(path, Kind::Checkpoint, &bytes)?;
    let header = &container.header;
    header.expect(path, Kind::Checkpoint, CHECKPOINT_VERSION)?;
    container.verify(path)?;
    let mut tensors = BTreeMap::new();
    for (name, info) in &header.tensors {
        let tensor = match info.dtype {
            Dtype::F32 => container.f32(name).map(Tensor::F32),
            Dtype::F64 => container.f64(name).map(Tensor::F64),
            Dtype::I64 => container.i64(name).map(Tensor::I64),
            other => Err(format!("`{name}` holds {other}, expected F32, F64 or I64")),
        };
        tensors.insert(name.clone(), tensor.map_err(|e| Error::contents(path, Kind::Checkpoint, &e))?);
    }
    let state = header.text(path, STATE)?.to_owned();
    json::decode::<serde_json::Value>("state", &state).map_err(|e| Error::contents(path, Kind::Checkpoint, &e))?;
    Ok(Checkpoint { tensors, state, provenance: header.provenance(path)? })
}
