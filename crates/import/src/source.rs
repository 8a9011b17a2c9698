//! A foreign checkpoint, whichever container it came in.

use crate::pytorch;
use anyhow::{Context, bail};
use ndarray::ArrayD;
use pytorch_reader::Tensor;
use std::collections::BTreeMap;
use std::path::Path;
use zipit_artifact::Precision;
use zipit_artifact::header::Kind;
use zipit_artifact::model::{self, Foreign};

/// Tensors by their names in the file.
pub enum Source {
    /// `torch.save`: read tensor by tensor.
    PyTorch(BTreeMap<String, Tensor>),
    /// Safetensors: already f32.
    Safetensors(Foreign),
}

/// Whether a tensor is BatchNorm's counter of batches, which casting a network makes a float.
pub fn is_counter(name: &str) -> bool {
    name.rsplit('.').next() == Some("num_batches_tracked")
}

impl Source {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(match zipit_artifact::sniff(path)? {
            Kind::PytorchZip | Kind::Pickle => Self::PyTorch(pytorch::open(path)?),
            Kind::Safetensors | Kind::Model => {
                let mut file = model::read_foreign_safetensors(path)?;
                // `save_model` writes a tensor that has two names once, and the other name into the metadata.
                for (name, kept) in &file.metadata {
                    if let (Some(tensor), false) = (file.weights.get(kept), file.weights.contains_key(name)) {
                        let tensor = tensor.clone();
                        file.weights.insert(name.clone(), tensor);
                    }
                }
                Self::Safetensors(file)
            }
            other => bail!(
                "{} is {other}; import reads a state dict saved by torch.save (.pt, .pth) or a .safetensors file",
                path.display()
            ),
        })
    }

    /// Shapes of the floating-point tensors.
    pub fn shapes(&self) -> BTreeMap<&str, Vec<usize>> {
        match self {
            Self::PyTorch(tensors) => {
                let floats = tensors.iter().filter(|(n, t)| !pytorch::is_integer(t) && !is_counter(n));
                floats.map(|(n, t)| (n.as_str(), t.shape().to_vec())).collect()
            }
            Self::Safetensors(file) => {
                let weights = file.weights.iter().filter(|(n, _)| !is_counter(n));
                weights.map(|(n, t)| (n.as_str(), t.shape().to_vec())).collect()
            }
        }
    }

    /// How most of the floating-point numbers are stored.
    pub fn precision(&self) -> Precision {
        match self {
            Self::PyTorch(tensors) => {
                let counts =
                    tensors.values().filter_map(|t| Some((pytorch::precision(t)?, t.shape().iter().product())));
                Precision::mostly(counts)
            }
            Self::Safetensors(file) => file.precision,
        }
    }

    /// What the other tensors hold: counters (`num_batches_tracked`) and indices, which no network here has.
    pub fn others(&self) -> BTreeMap<&str, String> {
        match self {
            Self::PyTorch(tensors) => {
                let others = tensors.iter().filter(|(n, t)| pytorch::is_integer(t) || is_counter(n));
                others.map(|(n, t)| (n.as_str(), format!("{:?} {:?}", t.dtype(), t.shape()))).collect()
            }
            Self::Safetensors(file) => {
                let counters = file.weights.iter().filter(|(n, _)| is_counter(n));
                let counters = counters.map(|(n, t)| (n.as_str(), format!("a counter {:?}", t.shape())));
                file.dropped.iter().map(|(n, what)| (n.as_str(), what.clone())).chain(counters).collect()
            }
        }
    }

    pub fn read(&self, name: &str) -> anyhow::Result<ArrayD<f32>> {
        match self {
            Self::PyTorch(tensors) => pytorch::read(tensors.get(name).context("asked for a tensor that is there")?),
            Self::Safetensors(file) => file.weights.get(name).cloned().context("asked for a tensor that is there"),
        }
    }
}
