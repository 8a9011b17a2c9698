//! Reading what `torch.save` wrote. No pickle code is executed: the `pytorch-reader` crate interprets the stream.

use anyhow::{Context, bail};
use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use pytorch_reader::{DType, PytorchReader, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use zipit_artifact::Precision;

/// A checkpoint's tensors by name, unread.
pub fn open(path: &Path) -> anyhow::Result<BTreeMap<String, Tensor>> {
    let reader = PytorchReader::new(path).map_err(|error| {
        let advice = if error.to_string().contains("float8") {
            "float8 numbers, whose scale is not in the file: save the weights in float16, bfloat16 or float32"
        } else {
            "a state dict saved by torch.save; torch.save(net.state_dict(), FILE) writes the network's alone"
        };
        anyhow::Error::from(error)
            .context(format!("{} cannot be read as a PyTorch checkpoint ({advice})", path.display()))
    })?;
    Ok(reader.into_tensors().into_iter().collect())
}

/// How the tensor's numbers are stored; `None` for integers.
pub fn precision(tensor: &Tensor) -> Option<Precision> {
    match tensor.dtype() {
        DType::F64 => Some(Precision::F64),
        DType::F32 => Some(Precision::F32),
        DType::F16 => Some(Precision::F16),
        DType::BF16 => Some(Precision::Bf16),
        _ => None,
    }
}

/// Whether the tensor only counts or indexes (`num_batches_tracked`): no parameter of any network here.
pub fn is_integer(tensor: &Tensor) -> bool {
    precision(tensor).is_none()
}

/// Reads a tensor as f32.
pub fn read(tensor: &Tensor) -> anyhow::Result<ArrayD<f32>> {
    let bytes = tensor.read().with_context(|| format!("{} cannot be read", tensor.name))?;
    let values: Vec<f32> = match tensor.dtype() {
        DType::F32 => bytes.chunks_exact(4).filter_map(|b| b.try_into().ok()).map(f32::from_le_bytes).collect(),
        DType::F64 => {
            bytes.chunks_exact(8).filter_map(|b| b.try_into().ok()).map(|b| f64::from_le_bytes(b) as f32).collect()
        }
        DType::F16 => {
            bytes.chunks_exact(2).filter_map(|b| b.try_into().ok()).map(|b| f16::from_le_bytes(b).to_f32()).collect()
        }
        DType::BF16 => {
            bytes.chunks_exact(2).filter_map(|b| b.try_into().ok()).map(|b| bf16::from_le_bytes(b).to_f32()).collect()
        }
        integer @ (DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8
        | DType::Bool) => bail!("{} holds {integer:?}, not floating-point numbers", tensor.name),
    };
    ArrayD::from_shape_vec(IxDyn(tensor.shape()), values)
        .with_context(|| format!("{} does not fill its shape {:?}", tensor.name, tensor.shape()))
}
