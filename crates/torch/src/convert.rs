//! Arrays to tensors and back. Everything is f32; the layout in memory is this crate's business alone.

use crate::{Device, Error, Result};
use ndarray::{Array, ArrayBase, ArrayD, Data, Dimension, IxDyn};
use tch::Tensor;

/// Copies an array of any shape and strides to `device`.
///
/// # Errors
/// [`Error::LibTorch`] when there is no memory for it.
pub fn to_tensor<S, D>(array: &ArrayBase<S, D>, device: Device) -> Result<Tensor>
where
    S: Data<Elem = f32>,
    D: Dimension,
{
    let shape: Vec<i64> = array.shape().iter().map(|&n| n as i64).collect();
    let flat = match array.as_slice() {
        Some(slice) => Tensor::f_from_slice(slice)?,
        None => Tensor::f_from_slice(&array.iter().copied().collect::<Vec<f32>>())?,
    };
    Ok(flat.f_reshape(shape)?.f_to_device(device.tch())?)
}

/// A tensor's numbers, in standard order.
pub(crate) fn numbers<T: tch::kind::Element + Default + Clone>(tensor: &Tensor) -> Result<Vec<T>> {
    let tensor = tensor.f_to_device(tch::Device::Cpu)?.f_to_kind(T::KIND)?.f_contiguous()?;
    let mut values = vec![T::default(); tensor.numel()];
    let n = values.len();
    tensor.f_copy_data(&mut values, n)?;
    Ok(values)
}

/// Copies a tensor of any layout and device into an array.
///
/// # Errors
/// [`Error::LibTorch`] when the tensor is not dense numbers.
pub fn to_array(tensor: &Tensor) -> Result<ArrayD<f32>> {
    let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
    Array::from_shape_vec(IxDyn(&shape), numbers(&tensor.f_detach()?)?).map_err(|e| Error::LibTorch(e.to_string()))
}

/// The same `[B, C, H, W]` values with the channels of a position side by side in memory; other values unchanged.
pub(crate) fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    if tensor.dim() != 4 {
        return Ok(tensor.shallow_clone());
    }
    Ok(tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ndarray::{Array4, array};

    #[test]
    fn arrays_survive_the_way_there_and_back() {
        let a = Array4::from_shape_fn((2, 3, 4, 5), |(b, c, h, w)| (b * 1000 + c * 100 + h * 10 + w) as f32);
        let t = to_tensor(&a, Device::Cpu).unwrap();
        assert_eq!(t.size(), [2, 3, 4, 5]);
        assert_eq!(to_array(&t).unwrap(), a.clone().into_dyn());
        assert_eq!(to_array(&channels_last(&t).unwrap()).unwrap(), a.into_dyn());
    }

    #[test]
    fn transposed_and_scalar_arrays_are_read_by_value() {
        let a = array![[1.0_f32, 2.0], [3.0, 4.0]];
        let t = to_tensor(&a.t(), Device::Cpu).unwrap();
        assert_eq!(to_array(&t).unwrap(), array![[1.0_f32, 3.0], [2.0, 4.0]].into_dyn());
        let s = to_tensor(&ndarray::arr0(7.0_f32), Device::Cpu).unwrap();
        assert_eq!(to_array(&s).unwrap(), ndarray::arr0(7.0_f32).into_dyn());
    }

    #[test]
    fn channels_last_is_a_layout_not_a_value() {
        let t = to_tensor(&Array4::<f32>::zeros((2, 3, 4, 5)), Device::Cpu).unwrap();
        assert_eq!(channels_last(&t).unwrap().stride(), [60, 1, 15, 3]);
    }
}
