//! A foreign checkpoint, whichever container it came in.

use crate::pytorch;
use anyhow::{Context, bail};
use ndarray::ArrayD;
use pytorch_reader::Tensor;
use std::collections::BTreeMap;
use std::path::Path;
use zipit::StateDict;
use zipit_artifact::header::Kind;
use zipit_artifact::model;

/// Tensors by their names in the file.
pub enum Source {
    /// `torch.save`: read tensor by tensor.
    PyTorch(BTreeMap<String, Tensor>),
    /// Safetensors: already f32, integer tensors left out.
    Safetensors(StateDict),
}

impl Source {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(match zipit_artifact::sniff(path)? {
            Kind::PytorchZip | Kind::Pickle => Self::PyTorch(pytorch::open(path)?),
            Kind::Safetensors | Kind::Model => {
                let file = model::read_foreign_safetensors(path)?;
                if !file.dropped.is_empty() {
                    tracing::info!("left {} integer tensors out ({} …)", file.dropped.len(), file.dropped[0]);
                }
                Self::Safetensors(file.weights)
            }
            other => bail!(
                "{} is {other}; import reads a state dict saved by torch.save (.pt, .pth) or a .safetensors file",
                path.display()
            ),
        })
    }

    pub fn shapes(&self) -> BTreeMap<&str, Vec<usize>> {
        match self {
            Self::PyTorch(tensors) => tensors.iter().map(|(n, t)| (n.as_str(), t.shape().to_vec())).collect(),
            Self::Safetensors(tensors) => tensors.iter().map(|(n, t)| (n.as_str(), t.shape().to_vec())).collect(),
        }
    }

    /// Whether it only counts (`num_batches_tracked`).
    pub fn is_counter(&self, name: &str) -> bool {
        match self {
            Self::PyTorch(tensors) => tensors.get(name).is_some_and(pytorch::is_integer),
            Self::Safetensors(_) => false,
        }
    }

    pub fn read(&self, name: &str) -> anyhow::Result<ArrayD<f32>> {
        match self {
            Self::PyTorch(tensors) => pytorch::read(tensors.get(name).context("asked for a tensor that is there")?),
            Self::Safetensors(tensors) => tensors.get(name).cloned().context("asked for a tensor that is there"),
        }
    }
}
