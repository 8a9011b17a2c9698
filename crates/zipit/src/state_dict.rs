//! A network's parameters and buffers under their PyTorch names.

use ndarray::{Array2, ArrayD, IxDyn};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Tensors in f32 under PyTorch state-dict names, in name order.
pub type StateDict = BTreeMap<String, ArrayD<f32>>;

/// Names of tensors that hold a NaN or an infinity, in order.
#[must_use]
pub fn non_finite(weights: &StateDict) -> Vec<&str> {
    let finite = |tensor: &ArrayD<f32>| tensor.fold(true, |all, x| all & x.is_finite());
    weights.par_iter().filter(|(_, tensor)| !finite(tensor)).map(|(name, _)| name.as_str()).collect()
}

/// A tensor as `[features, rest]`, its feature axis first.
///
/// # Panics
/// When it has no such axis, or no features.
pub(crate) fn feature_rows(tensor: &ArrayD<f32>, axis: usize) -> Array2<f32> {
    let mut axes: Vec<usize> = (0..tensor.ndim()).filter(|&i| i != axis).collect();
    axes.insert(0, axis);
    let first = tensor.view().permuted_axes(IxDyn(&axes));
    let features = tensor.shape()[axis];
    let shape = (features, tensor.len() / features);
    first.to_shape(shape).expect("the same number of elements").into_owned()
}

/// The inverse of what [`feature_rows`] does to the axes.
pub(crate) fn feature_axis_back(tensor: ArrayD<f32>, axis: usize) -> ArrayD<f32> {
    let mut axes: Vec<usize> = (1..tensor.ndim()).collect();
    axes.insert(axis, 0);
    tensor.permuted_axes(IxDyn(&axes)).as_standard_layout().into_owned()
}
