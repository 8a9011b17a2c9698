//! A network's parameters and buffers under their PyTorch names.

use ndarray::ArrayD;
use std::collections::BTreeMap;

/// Tensors in f32 under PyTorch state-dict names, in name order.
pub type StateDict = BTreeMap<String, ArrayD<f32>>;

/// Names of tensors that hold a NaN or an infinity, in order.
#[must_use]
pub fn non_finite(weights: &StateDict) -> Vec<&str> {
    weights.iter().filter(|(_, t)| t.iter().any(|x| !x.is_finite())).map(|(name, _)| name.as_str()).collect()
}
