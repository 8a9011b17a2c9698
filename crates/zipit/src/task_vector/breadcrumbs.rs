//! Model Breadcrumbs (Davari and Belilovsky 2024, arXiv 2312.06795): θ = θ₀ + λ Σₜ wₜ τ̂ₜ, with τ̂ₜ the entries of τₜ that are
//! neither among the largest, a share γ of a tensor, nor too small to be among the `density` next to them.

use super::selection::Selection;
use super::source::{Source, Tensor};
use super::ties::band;
use crate::Result;

/// What is left of every τₜ in one tensor.
pub(super) fn crumbs(
    source: &dyn Source,
    tensor: &Tensor,
    n_tuned: usize,
    density: f64,
    gamma: f64,
) -> Result<Vec<Selection>> {
    let n = tensor.n_numbers();
    let [left, largest] = [density, gamma].map(|share| (share * n as f64) as usize);
    // Where both shares are more than all, fewer of the largest go.
    let largest = largest.min(n - left);
    (0..n_tuned).map(|t| band(source, tensor, t, [n - left - largest, n - largest])).collect()
}
