//! Isotropic merging (Marczak et al. 2025, arXiv 2502.04959).
//!
//! Iso-C: of Σₜ τₜ = U diag(σ) Vᵀ only the directions, all as strong as the mean: Δ = σ̄ U Vᵀ.
//!
//! Iso-CTS: the k first directions of the sum, and the first ones of what every task has beside them, τₜ − U₁₋ₖ U₁₋ₖᵀ τₜ, brought
//! to orthonormal columns; all as strong as their mean.

use super::factors::Factors;
use crate::Result;
use crate::products::product;
use ndarray::Array2;

/// Σₜ τₜ of the `n` matrices that `vector` gives.
fn sum(n: usize, vector: &dyn Fn(usize) -> Result<Array2<f64>>) -> Result<Array2<f64>> {
    (1..n).try_fold(vector(0)?, |sum, t| Ok(sum + vector(t)?))
}

/// Δ of Iso-C.
pub(super) fn common(n: usize, vector: &dyn Fn(usize) -> Result<Array2<f64>>) -> Result<Array2<f64>> {
    Ok(Factors::of(sum(n, vector)?.view())?.isotropic().product())
}

/// Δ of Iso-CTS, with about a share `common` of all directions from the sum: as many as leave an equal number to every task.
pub(super) fn common_and_specific(
    n: usize,
    vector: &dyn Fn(usize) -> Result<Array2<f64>>,
    common: f64,
) -> Result<Array2<f64>> {
    let all = Factors::of(sum(n, vector)?.view())?;
    let r = all.s.len();
    let specific = ((r - (r as f64 * common) as usize) as f64 / n as f64).round_ties_even() as usize;
    let specific = specific.min(r / n);
    let shared = all.first(r - specific * n);
    let own = |t: usize| -> Result<Factors> {
        let vector = vector(t)?;
        let along = product(vector.t(), shared.u.t());
        let rest = vector - product(shared.u.view(), along.view());
        Ok(Factors::of(rest.view())?.first(specific))
    };
    let mut parts = (0..n).map(own).collect::<Result<Vec<_>>>()?;
    parts.push(shared);
    Ok(Factors::joined(&parts).orthogonal()?.isotropic().product())
}
